// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls the C interface from Rust, so that Miri can check it: instances of the library in their storage, messages, handles, a
//! poller, and a directory.
use mk_ipi_capi::directory::{
    mk_ipi_directory_create, mk_ipi_directory_has_cpu, mk_ipi_directory_read, mk_ipi_directory_write,
    mk_ipi_directory_writer,
};
use mk_ipi_capi::error::mk_ipi_error;
use mk_ipi_capi::follow::{mk_ipi_behind, mk_ipi_follow};
use mk_ipi_capi::handlers::{mk_ipi_register, mk_ipi_unregister};
use mk_ipi_capi::instance::{mk_ipi, mk_ipi_fini, mk_ipi_init, mk_ipi_set_default};
use mk_ipi_capi::life::{mk_ipi_create_instance, mk_ipi_identify};
use mk_ipi_capi::limits::MK_IPI_SIZE;
use mk_ipi_capi::native::mk_ipi_move_doorbell;
use mk_ipi_capi::ops::{mk_ipi_ops, MK_IPI_OPS_VERSION};
use mk_ipi_capi::poller::{
    mk_ipi_poller, mk_ipi_poller_begin, mk_ipi_poller_end, mk_ipi_poller_poll, mk_ipi_poller_wait,
    MK_IPI_POLLER_SIZE,
};
use mk_ipi_capi::reason::mk_ipi_last_error;
use mk_ipi_capi::receive::{mk_ipi_interrupt, mk_ipi_run_deferred};
use mk_ipi_capi::send::{mk_ipi_send, mk_ipi_send_many};
use mk_ipi_capi::start::mk_ipi_join;
use mk_ipi_capi::types::*;
use mk_ipi_capi::{compat, ops};
use std::alloc::{alloc_zeroed, dealloc, Layout};
use std::ffi::{c_int, c_uint, c_ulong, c_void, CStr};
use std::ptr::{null, null_mut};

// The results of calls that fail.
const ENOMEM: c_int = -(mk_ipi_error::MK_IPI_ENOMEM as c_int);
const EBUSY: c_int = -(mk_ipi_error::MK_IPI_EBUSY as c_int);
const EINVAL: c_int = -(mk_ipi_error::MK_IPI_EINVAL as c_int);
const ESTALE: c_int = -(mk_ipi_error::MK_IPI_ESTALE as c_int);
const ENODEV: c_int = -(mk_ipi_error::MK_IPI_ENODEV as c_int);

/// The physical address of the only region.
const PHYS: u64 = 0x10_0000;
/// The size and alignment of its memory.
const PAGES: Layout = match Layout::from_size_align(64 << 12, 4096) {
    Ok(layout) => layout,
    Err(_) => panic!(),
};

// The operations of a kernel with one CPU. A doorbell does nothing. `ctx` is the memory of the region.

unsafe extern "C" fn pool_alloc(_: *mut c_void, _: c_int, len: u64, phys: *mut u64) -> c_int {
    // SAFETY: the library passes a valid place for the result.
    unsafe { phys.write(PHYS) };
    if len <= PAGES.size() as u64 {
        0
    } else {
        ENOMEM
    }
}
unsafe extern "C" fn pool_free(_: *mut c_void, _: c_int, _: u64, _: u64) {}
unsafe extern "C" fn map(ctx: *mut c_void, phys: u64, _: u64, _: c_int, virt: *mut *mut c_void) -> c_int {
    let offset = usize::try_from(phys.wrapping_sub(PHYS)).unwrap_or(0);
    // SAFETY: as above. The library maps only the region, which is in the memory at `ctx`.
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
    // SAFETY: the library passes a message that exists until this function returns.
    let message = unsafe { &*message };
    // SAFETY: as above. Its payload has `size` bytes.
    let payload = unsafe { std::slice::from_raw_parts(message.payload.cast::<u8>(), message.size) };
    assert_eq!((payload, message.r#type, message.sender_cpu), (&b"hello"[..], 7, 3));
    // SAFETY: `ctx` is the counter that was registered; there is one thread.
    unsafe { *ctx.cast::<u32>() = (*ctx.cast::<u32>()).wrapping_add(1) };
}

unsafe extern "C" fn count_data(data: *mut mk_ipi_data, ctx: *mut c_void) {
    // SAFETY: the library's private copy.
    let data = unsafe { &mut *data };
    assert_eq!((data.data_size, data.r#type, data.sender_cpu), (5, 7, 3));
    data.data_size = 0;
    // SAFETY: `ctx` is the counter that was registered; there is one thread.
    unsafe { *ctx.cast::<u32>() = (*ctx.cast::<u32>()).wrapping_add(1) };
}

/// Sends two messages in one call. A poller in storage on the stack delivers them. Returns how many it delivered; 0 if no poller
/// can be made.
///
/// # Safety
///
/// `mk` is an instance that has an identity.
unsafe fn poll(mk: *mut mk_ipi) -> c_int {
    let mut place = std::mem::MaybeUninit::<mk_ipi_poller>::zeroed();
    let (poller, hello) = (place.as_mut_ptr(), mk_ipi_payload { data: b"hello".as_ptr().cast(), size: 5 });
    let (all, mut done) = ([hello, hello], 0);
    // SAFETY: the caller. The storage for the poller is zeroed. The payloads exist, and `done` may be written.
    unsafe {
        if mk_ipi_poller_begin(mk, poller, MK_IPI_POLLER_SIZE) != 0 {
            return 0;
        }
        assert_eq!(mk_ipi_poller_begin(mk, poller, MK_IPI_POLLER_SIZE), EBUSY);
        assert_eq!(mk_ipi_send_many(mk, 1, 7, all.as_ptr(), all.len(), &mut done), 0);
        assert_eq!((done, mk_ipi_fini(mk)), (2, EBUSY));
        let found = mk_ipi_poller_wait(poller, 64);
        assert_eq!((mk_ipi_poller_poll(poller), mk_ipi_poller_end(poller)), (0, 0));
        assert_eq!((mk_ipi_poller_poll(poller), mk_ipi_poller_end(poller)), (EINVAL, EINVAL));
        found
    }
}

#[test]
fn an_instance_made_in_place_sends_to_itself() {
    for layout in [MK_IPI_RFC_V2, MK_IPI_NATIVE] {
        let storage = Layout::new::<mk_ipi>();
        // SAFETY: neither layout has size 0.
        let (region, mk) = unsafe { (alloc_zeroed(PAGES), alloc_zeroed(storage).cast::<mk_ipi>()) };
        let mut seen = 0u32;
        let ctx = (&raw mut seen).cast::<c_void>();
        // SAFETY: `mk` is zeroed storage, in which an instance is made. All pointers point to values that exist until the end of
        // this block.
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
            // There is no default instance yet. The handler waits for it.
            let old = compat::multikernel_register_handler(Some(count_data), ctx, 7);
            assert_eq!(mk_ipi_set_default(mk), 0);
            let hello = b"hello".as_ptr().cast();
            let mut number = 7;
            assert_eq!(mk_ipi_send(mk, 1, 7, hello, 5, &mut number), 0);
            assert_eq!(number, if layout == MK_IPI_NATIVE { 1 } else { 0 });
            assert_eq!(mk_ipi_send(mk, 2, 7, hello, 5, null_mut()), EINVAL);
            assert_eq!(CStr::from_ptr(mk_ipi_last_error(mk, EINVAL)), c"there is no such instance");
            assert_eq!(mk_ipi_send(mk, 1, 7, null(), 5, null_mut()), EINVAL);
            assert_eq!(CStr::from_ptr(mk_ipi_last_error(mk, EINVAL)), c"invalid argument");
            mk_ipi_interrupt(mk);
            assert_eq!(mk_ipi_run_deferred(mk, null_mut()), 1);
            assert_eq!(*ctx.cast::<u32>(), 2);
            assert_eq!(poll(mk), if layout == MK_IPI_NATIVE { 2 } else { 0 });
            assert_eq!(*ctx.cast::<u32>(), if layout == MK_IPI_NATIVE { 6 } else { 2 });
            assert_eq!(mk_ipi_unregister(mk, handler), 0);
            assert_eq!(mk_ipi_unregister(mk, handler), ESTALE);
            compat::multikernel_unregister_handler(old);
            assert_eq!(mk_ipi_fini(mk), 0);
            dealloc(mk.cast(), storage);
            dealloc(region, PAGES);
        }
    }
}

unsafe extern "C" fn followed(instance: c_int, what: u32, error: c_int, ctx: *mut c_void) {
    // SAFETY: `ctx` is what the test has passed; there is one thread.
    unsafe { *ctx.cast::<(c_int, u32, c_int)>() = (instance, what, error) };
}

/// Writes a directory of one instance, with the region at [`PHYS`], and `nr_cpus` CPUs whose ids begin at 3.
///
/// # Safety
///
/// `writer` is a directory writer.
unsafe fn write(writer: *mut mk_ipi_directory_writer, nr_cpus: u32, doorbell_cpu: u64) {
    let record = mk_ipi_record {
        region_start: PHYS,
        region_len: PAGES.size() as u64,
        doorbell_cpu,
        instance: 1,
        incarnation: 1,
        state: MK_IPI_RUNNING,
        layout: MK_IPI_NATIVE,
        vector: 0xe0,
        nr_cpus,
        ..mk_ipi_record::default()
    };
    let cpus: Vec<u64> = (3..3 + u64::from(nr_cpus)).collect();
    // SAFETY: the caller. The record and its CPUs exist.
    assert_eq!(unsafe { mk_ipi_directory_write(writer, &record, cpus.as_ptr()) }, 0);
}

#[test]
fn a_kernel_joins_by_a_directory_that_it_keeps() {
    let storage = Layout::new::<mk_ipi>();
    // SAFETY: neither layout has size 0.
    let [region, host, mk] = unsafe { [alloc_zeroed(PAGES), alloc_zeroed(storage), alloc_zeroed(storage)] };
    let (host, mk) = (host.cast::<mk_ipi>(), mk.cast::<mk_ipi>());
    let mut memory = vec![0u64; 8 + 2 * (8 + 100)];
    let (words, len) = (memory.as_mut_ptr().cast::<c_void>(), memory.len() * 8);
    let mut writer = std::mem::MaybeUninit::<mk_ipi_directory_writer>::zeroed();
    let writer = writer.as_mut_ptr();
    let (mut seen, mut record, mut cpus) = ((0, 0, 0), mk_ipi_record::default(), [0; 100]);
    let ctx = (&raw mut seen).cast::<c_void>();
    // SAFETY: `host` and `mk` are zeroed storage, in which instances are made. All pointers point to values that exist until the
    // end of this test.
    unsafe {
        assert_eq!(mk_ipi_init(host, MK_IPI_SIZE, &table(region.cast())), 0);
        assert_eq!(mk_ipi_identify(host, 0, 1), 0);
        let config = mk_ipi_instance {
            cpus: &3,
            doorbell_cpu: 3,
            nr_cpus: 1,
            id: 1,
            incarnation: 1,
            vector: 0xe0,
            layout: MK_IPI_NATIVE,
            slots: 0,
            exclusive: 0,
            lanes: 2,
            lines: 8,
            max_len: 64,
            one_doorbell: 0,
        };
        assert_eq!(mk_ipi_create_instance(host, &config, null_mut()), 0);
        assert_eq!(mk_ipi_directory_create(writer, words, len, 2, 100), 0);
        write(writer, 1, 3);
        assert_eq!(mk_ipi_init(mk, MK_IPI_SIZE, &table(region.cast())), 0);
        assert_eq!(mk_ipi_follow(mk, Some(followed), ctx), ENODEV.into());
        assert_eq!(mk_ipi_join(mk, PHYS + 4096, words, len), ENODEV);
        assert_eq!(mk_ipi_join(mk, PHYS, words, len), 1);
        assert_eq!(mk_ipi_follow(mk, Some(followed), ctx), 1);
        write(writer, 100, 102);
        assert_eq!(mk_ipi_follow(mk, Some(followed), ctx), 2);
        assert_eq!(*ctx.cast::<(c_int, u32, c_int)>(), (1, MK_IPI_FOLLOWED_CHANGED, 0));
        // The lane of the host says that the host has our region mapped, and has not followed the directory to generation 2.
        assert_eq!(mk_ipi_behind(mk, 2, None, null_mut()), 1);
        assert_eq!(mk_ipi_directory_has_cpu(words, len, 1, 102), 1);
        assert_eq!(mk_ipi_directory_has_cpu(words, len, 1, 103), 0);
        assert_eq!(mk_ipi_directory_read(words, len, 1, &mut record, cpus.as_mut_ptr(), 100), 0);
        assert_eq!((record.nr_cpus, cpus[99]), (100, 102));
        // The kept directory says which CPUs are ours. It can list more CPUs than `MK_IPI_MAX_CPUS`.
        assert_eq!(mk_ipi_move_doorbell(mk, 50, 0xe0), 0);
        assert_eq!(mk_ipi_move_doorbell(mk, 103, 0xe0), EINVAL);
        assert_eq!((mk_ipi_fini(mk), mk_ipi_fini(host)), (0, 0));
        dealloc(mk.cast(), storage);
        dealloc(host.cast(), storage);
        dealloc(region, PAGES);
    }
}
