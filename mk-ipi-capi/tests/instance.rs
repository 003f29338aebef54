// SPDX-License-Identifier: MIT OR Apache-2.0
//! The C calls from Rust, so that Miri can watch them: an instance made in place, a message to itself, handles.
use mk_ipi_capi::handlers::{mk_ipi_register, mk_ipi_unregister};
use mk_ipi_capi::instance::{mk_ipi, mk_ipi_fini, mk_ipi_init, mk_ipi_set_default};
use mk_ipi_capi::life::{mk_ipi_create_instance, mk_ipi_identify};
use mk_ipi_capi::limits::MK_IPI_SIZE;
use mk_ipi_capi::ops::{mk_ipi_ops, MK_IPI_OPS_VERSION};
use mk_ipi_capi::poller::{
    mk_ipi_poller, mk_ipi_poller_begin, mk_ipi_poller_end, mk_ipi_poller_poll, mk_ipi_poller_wait,
    MK_IPI_POLLER_SIZE,
};
use mk_ipi_capi::receive::{mk_ipi_interrupt, mk_ipi_run_deferred};
use mk_ipi_capi::send::{mk_ipi_send, mk_ipi_send_many};
use mk_ipi_capi::types::*;
use mk_ipi_capi::{compat, ops};
use std::alloc::{alloc_zeroed, dealloc, Layout};
use std::ffi::{c_int, c_uint, c_ulong, c_void};
use std::ptr::{null, null_mut};

/// Where the one region is said to lie.
const PHYS: u64 = 0x10_0000;
const PAGES: Layout = match Layout::from_size_align(64 << 12, 4096) {
    Ok(layout) => layout,
    Err(_) => panic!(),
};

/// A kernel with one CPU, which rings itself only. `ctx` is the region's memory.
unsafe extern "C" fn pool_alloc(_: *mut c_void, _: c_int, len: u64, phys: *mut u64) -> c_int {
    // SAFETY: the library gives a place for it.
    unsafe { phys.write(PHYS) };
    if len <= PAGES.size() as u64 {
        0
    } else {
        -MK_IPI_ENOMEM
    }
}
unsafe extern "C" fn pool_free(_: *mut c_void, _: c_int, _: u64, _: u64) {}
unsafe extern "C" fn map(ctx: *mut c_void, phys: u64, _: u64, _: c_int, virt: *mut *mut c_void) -> c_int {
    let offset = usize::try_from(phys.wrapping_sub(PHYS)).unwrap_or(0);
    // SAFETY: as above; the library maps what `pool_alloc` gave, which lies in the memory at `ctx`.
    unsafe { virt.write(ctx.byte_add(offset)) };
    0
}
unsafe extern "C" fn unmap(_: *mut c_void, _: *mut c_void, _: u64) {}
unsafe extern "C" fn share(_: *mut c_void, _: u64, _: u64) -> c_int {
    1
}
unsafe extern "C" fn ring(_: *mut c_void, _: u64, _: c_uint) -> c_int {
    0
}
unsafe extern "C" fn cpu_id(_: *mut c_void) -> u64 {
    3
}
unsafe extern "C" fn cpu_index(_: *mut c_void) -> c_uint {
    0
}
unsafe extern "C" fn irq_save(_: *mut c_void) -> c_ulong {
    0
}
unsafe extern "C" fn irq_restore(_: *mut c_void, _: c_ulong) {}
unsafe extern "C" fn schedule(_: *mut c_void) {}

fn table(ctx: *mut c_void) -> mk_ipi_ops {
    mk_ipi_ops {
        size: size_of::<ops::mk_ipi_ops>(),
        version: MK_IPI_OPS_VERSION,
        reserved: 0,
        ctx,
        pool_alloc: Some(pool_alloc),
        pool_free: Some(pool_free),
        map: Some(map),
        unmap: Some(unmap),
        peer_may_share: Some(share),
        doorbell_check: Some(ring),
        doorbell_ring: Some(ring),
        doorbell_ring_nmi: Some(ring),
        this_cpu_id: Some(cpu_id),
        this_cpu_index: Some(cpu_index),
        irq_save: Some(irq_save),
        irq_restore: Some(irq_restore),
        schedule: Some(schedule),
        relax: None,
        log: None,
        region_added: None,
        region_removed: None,
        peer_event: None,
        peer_has_cpu: None,
        left_out: None,
        stop: None,
        unhandled: None,
    }
}

unsafe extern "C" fn count(message: *const mk_ipi_message, ctx: *mut c_void) {
    // SAFETY: the library's message, and its payload.
    let message = unsafe { &*message };
    // SAFETY: as above.
    let payload = unsafe { std::slice::from_raw_parts(message.payload.cast::<u8>(), message.size) };
    assert_eq!((payload, message.r#type, message.sender_cpu), (&b"hello"[..], 7, 3));
    // SAFETY: the counter that was registered; one thread.
    unsafe { *ctx.cast::<u32>() = (*ctx.cast::<u32>()).wrapping_add(1) };
}

unsafe extern "C" fn count_data(data: *mut mk_ipi_data, ctx: *mut c_void) {
    // SAFETY: the library's private copy.
    let data = unsafe { &mut *data };
    assert_eq!((data.data_size, data.r#type, data.sender_cpu), (5, 7, 3));
    data.data_size = 0;
    // SAFETY: the counter that was registered; one thread.
    unsafe { *ctx.cast::<u32>() = (*ctx.cast::<u32>()).wrapping_add(1) };
}

/// Two messages at once, given out by a poller, which is made where a stack has it; how many that were.
///
/// # Safety
///
/// `mk` is an instance that knows itself.
unsafe fn poll(mk: *mut mk_ipi) -> c_int {
    let mut place = std::mem::MaybeUninit::<mk_ipi_poller>::zeroed();
    let (poller, hello) = (place.as_mut_ptr(), mk_ipi_payload { data: b"hello".as_ptr().cast(), size: 5 });
    let (all, mut done) = ([hello, hello], 0);
    // SAFETY: the caller; zeroed storage for a poller; payloads, and a number to write.
    unsafe {
        if mk_ipi_poller_begin(mk, poller, MK_IPI_POLLER_SIZE) != 0 {
            return 0;
        }
        assert_eq!(mk_ipi_poller_begin(mk, poller, MK_IPI_POLLER_SIZE), -MK_IPI_EBUSY);
        assert_eq!(mk_ipi_send_many(mk, 1, 7, all.as_ptr(), all.len(), &mut done), 0);
        assert_eq!((done, mk_ipi_fini(mk)), (2, -MK_IPI_EBUSY));
        let found = mk_ipi_poller_wait(poller, 64);
        assert_eq!((mk_ipi_poller_poll(poller), mk_ipi_poller_end(poller)), (0, 0));
        assert_eq!((mk_ipi_poller_poll(poller), mk_ipi_poller_end(poller)), (-MK_IPI_EINVAL, -MK_IPI_EINVAL));
        found
    }
}

#[test]
fn an_instance_made_in_place_sends_to_itself() {
    for layout in [MK_IPI_RFC_V2, MK_IPI_NATIVE] {
        let storage = Layout::new::<mk_ipi>();
        // SAFETY: neither has size 0.
        let (region, mk) = unsafe { (alloc_zeroed(PAGES), alloc_zeroed(storage).cast::<mk_ipi>()) };
        let mut seen = 0u32;
        let ctx = (&raw mut seen).cast::<c_void>();
        // SAFETY: zeroed storage, an instance in it, pointers to what lives until the end of this block.
        unsafe {
            assert_eq!(mk_ipi_init(mk, MK_IPI_SIZE, &table(region.cast())), 0);
            assert_eq!(mk_ipi_identify(mk, 1, 1), 0);
            let (cpu, slots) = (3, if layout == MK_IPI_RFC_V2 { 4 } else { 0 });
            let [lanes, lines, max_len] = if layout == MK_IPI_NATIVE { [2, 8, 64] } else { [0; 3] };
            let config = mk_ipi_instance {
                cpus: &cpu,
                doorbell_cpu: cpu,
                nr_cpus: 1,
                id: 1,
                incarnation: 1,
                vector: 0xe0,
                layout,
                slots,
                exclusive: 1,
                lanes,
                lines,
                max_len,
                one_doorbell: 0,
            };
            assert_eq!(mk_ipi_create_instance(mk, &config, null_mut()), 0);
            let mut handler = null_mut();
            assert_eq!(mk_ipi_register(mk, 7, Some(count), ctx, &mut handler), 0);
            assert_eq!(mk_ipi_set_default(mk), 0);
            let old = compat::multikernel_register_handler(Some(count_data), ctx, 7);
            let hello = b"hello".as_ptr().cast();
            let mut number = 7;
            assert_eq!(mk_ipi_send(mk, 1, 7, hello, 5, &mut number), 0);
            assert_eq!(number, if layout == MK_IPI_NATIVE { 1 } else { 0 });
            assert_eq!(mk_ipi_send(mk, 1, 7, null(), 5, null_mut()), -MK_IPI_EINVAL);
            mk_ipi_interrupt(mk);
            assert_eq!(mk_ipi_run_deferred(mk, null_mut()), 1);
            assert_eq!(*ctx.cast::<u32>(), 2);
            assert_eq!(poll(mk), if layout == MK_IPI_NATIVE { 2 } else { 0 });
            assert_eq!(*ctx.cast::<u32>(), if layout == MK_IPI_NATIVE { 6 } else { 2 });
            assert_eq!(mk_ipi_unregister(mk, handler), 0);
            assert_eq!(mk_ipi_unregister(mk, handler), -MK_IPI_ESTALE);
            compat::multikernel_unregister_handler(old);
            assert_eq!(mk_ipi_fini(mk), 0);
            dealloc(mk.cast(), storage);
            dealloc(region, PAGES);
        }
    }
}
