// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages that contain the number of a page, its page frame number (PFN).

use crate::args::{call, code, given, id_of, place, place_if_wanted, put};
use crate::instance::{at, mk_ipi, Instance};
use crate::send::sent;
use crate::types::mk_ipi_data;
use core::ffi::{c_int, c_void};
use mk_ipi_core::abi::rfc_v2::decode_pfn;
use mk_ipi_core::abi::{Errno, MessageType, Pfn, PAGE_SIZE};

/// The page frame number in a message. `EINVAL` if the message contains none.
///
/// # Safety
///
/// `data` is NULL, or points to a message.
pub(crate) unsafe fn pfn_of(data: *const mk_ipi_data) -> Result<Pfn, Errno> {
    // SAFETY: the caller.
    let data = unsafe { given(data) }?;
    // SAFETY: `buffer` has more than 8 bytes.
    let (ty, size, bytes) =
        (data.r#type, data.data_size, unsafe { data.buffer.as_ptr().cast::<[u8; 8]>().read() });
    if size != bytes.len() {
        return Err(Errno::EINVAL);
    }
    decode_pfn(MessageType(ty), &bytes).map_err(|e| e.errno())
}

/// Maps the page with this number, which came from a peer.
pub(crate) fn map(instance: &Instance, pfn: Pfn) -> Result<*mut c_void, Errno> {
    let page = instance.end.map_pfn(pfn).map_err(|e| e.errno())?;
    let words = page.words().as_ptr();
    // Do not unmap the page when this function returns: the C caller unmaps it.
    core::mem::forget(page);
    Ok(words.cast_mut().cast())
}

/// Unmaps a page that [`map`] mapped. Does nothing for NULL.
///
/// # Safety
///
/// `page` is NULL, or an address that `map` returned for this instance. It is unmapped only once, and not used afterwards.
pub(crate) unsafe fn unmap(instance: &Instance, page: *mut c_void) {
    if !page.is_null() {
        // SAFETY: the caller.
        unsafe { instance.end.platform().unmap_at(page, PAGE_SIZE) };
    }
}

/// Sends the page frame number of a page: its physical address divided by 4096.
///
/// Returns the same as `mk_ipi_send`, and also stores the number of the message in `*number`, unless `number` is NULL. Context:
/// any but NMI.
///
/// # Safety
///
/// As `mk_ipi_identify`. `number` is NULL, or may be written.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_send_pfn(mk: *mut mk_ipi, to: c_int, pfn: u64, number: *mut u64) -> c_int {
    // SAFETY: the caller.
    code(call(unsafe { at(mk) }, |instance| {
        let number = place_if_wanted(number)?;
        let sent = sent(instance, instance.end.send_pfn(id_of(to)?, Pfn(pfn)))?;
        // SAFETY: it may be written (the caller).
        unsafe { put(number, sent) };
        Ok(0)
    }))
}

/// Maps the page of 4096 bytes with the number `pfn`, write-back cached. The number came from a peer, so the operation
/// `peer_may_share` must allow it. Stores the address of the mapping in `*page`.
///
/// Returns 0; -EINVAL if `mk` is not an instance of the library, or `page` is NULL or misaligned; -ERANGE if no CPU can address
/// that page; -EACCES if `peer_may_share` or `map` does not allow it; -ENOMEM if `map` fails. Context: may sleep.
///
/// # Safety
///
/// As `mk_ipi_identify`. `page` is NULL, or may be written.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_map_pfn(mk: *mut mk_ipi, pfn: u64, page: *mut *mut c_void) -> c_int {
    // SAFETY: the caller.
    code(call(unsafe { at(mk) }, |instance| {
        let place = place(page)?;
        let mapped = map(instance, Pfn(pfn))?;
        // SAFETY: not NULL, so it may be written (the caller).
        unsafe { place.write(mapped) };
        Ok(0)
    }))
}

/// Unmaps a page that `mk_ipi_map_pfn` mapped. Does nothing if `page` is NULL.
///
/// Returns 0, or -EINVAL if `mk` is not an instance of the library. Context: may sleep.
///
/// # Safety
///
/// As `mk_ipi_identify`. `page` is NULL, or an address that `mk_ipi_map_pfn` returned for `mk`. It is unmapped only once, and not
/// used afterwards.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_unmap_page(mk: *mut mk_ipi, page: *mut c_void) -> c_int {
    // SAFETY: the caller.
    code(unsafe { at(mk) }.map(|instance| {
        // SAFETY: the caller.
        unsafe { unmap(instance, page) };
        0
    }))
}
