// SPDX-License-Identifier: MIT OR Apache-2.0
//! The C functions that Rust calls: those of this module (glue.h and net.h declare them for C), and exported functions of
//! Linux that `kernel::bindings` contains only in some configurations.

use core::ffi::{c_char, c_int, c_uint, c_ulong, c_void};

// glue.c, spawned.c and peer.c.
extern "C" {
    pub static mk_ipi_glue_memory: *const c_char;
    pub static mk_ipi_glue_generation: *const c_char;
    pub static mk_ipi_glue_low: *const c_char;
    pub static mk_ipi_glue_trampoline: c_ulong;
    pub static mk_ipi_glue_irq_flags: c_ulong;
    pub static mk_ipi_glue_image_kind: c_int;
    pub static mk_ipi_glue_initrd_kind: c_int;
    pub fn mk_ipi_glue_irq_save() -> c_ulong;
    pub fn mk_ipi_glue_irq_restore(flags: c_ulong);
    pub fn mk_ipi_glue_cpu() -> c_uint;
    pub fn mk_ipi_glue_nr_cpus() -> c_uint;
    pub fn mk_ipi_glue_cpu_present(cpu: c_uint) -> bool;
    pub fn mk_ipi_glue_cpu_online(cpu: c_uint) -> bool;
    pub fn mk_ipi_glue_apic_id(cpu: c_uint) -> u32;
    pub fn mk_ipi_glue_cpumask_of(cpu: c_uint) -> *const c_void;
    pub fn mk_ipi_glue_apic_read(reg: u32) -> u32;
    pub fn mk_ipi_glue_apic_write(reg: u32, value: u32);
    pub fn mk_ipi_glue_apic_icr_write(low: u32, dest: u32);
    pub fn mk_ipi_glue_irq_is_on(irq: c_uint, cpu: c_uint) -> bool;
    pub fn mk_ipi_glue_reserved(start: u64, len: u64) -> c_int;
    pub fn mk_ipi_glue_is_not_ram(start: u64, len: u64) -> bool;
    pub fn mk_ipi_glue_may_borrow(at: u64) -> bool;
    pub fn mk_ipi_glue_watch_power() -> c_int;
    pub fn mk_ipi_glue_unwatch_power();
    pub fn mk_ipi_glue_may_start() -> c_int;
    pub fn mk_ipi_glue_lock(which: c_uint);
    pub fn mk_ipi_glue_unlock(which: c_uint);
    pub fn mk_ipi_glue_start_work() -> c_int;
    pub fn mk_ipi_glue_stop_work();
    pub fn mk_ipi_glue_queue_irq_work();
    pub fn mk_ipi_glue_queue_rest();
    pub fn mk_ipi_glue_queue_tick(ms: c_uint);
    pub fn mk_ipi_glue_queue_host_request();
    pub fn mk_ipi_glue_start_serving() -> c_int;
    pub fn mk_ipi_glue_stop_serving();
    pub fn mk_ipi_glue_should_stop() -> bool;
    pub fn mk_ipi_glue_watch_end() -> c_int;
    pub fn mk_ipi_glue_unwatch_end();
    pub fn mk_ipi_glue_power_off();
    pub fn mk_ipi_glue_watch_cpus() -> c_int;
    pub fn mk_ipi_glue_unwatch_cpus(state: c_int);
    pub fn mk_ipi_glue_add_files() -> c_int;
    pub fn mk_ipi_glue_remove_files();
    pub fn mk_ipi_glue_hold_module() -> bool;
    pub fn mk_ipi_glue_release_module();
    pub fn mk_ipi_glue_signal_pending() -> bool;
    pub fn mk_ipi_glue_may_log() -> bool;
    pub fn mk_ipi_glue_spin_lock(which: c_uint) -> c_ulong;
    pub fn mk_ipi_glue_spin_unlock(which: c_uint, flags: c_ulong);
    pub fn mk_ipi_glue_queue_services();
    pub fn mk_ipi_glue_queue_news();
    pub fn mk_ipi_glue_alloc(len: usize) -> *mut c_void;
    pub fn mk_ipi_glue_free(at: *mut c_void);
    pub fn mk_ipi_glue_trace(sent: bool, peer: c_int, ty: u32, len: u32, result: c_int);
}

// tty.c and peer.c.
extern "C" {
    pub fn mk_ipi_glue_tty_start(is_raw: bool) -> c_int;
    pub fn mk_ipi_glue_tty_stop();
    pub fn mk_ipi_glue_tty_add(id: c_uint) -> c_int;
    pub fn mk_ipi_glue_tty_remove(id: c_uint);
    pub fn mk_ipi_glue_tty_drain(id: c_uint);
    pub fn mk_ipi_glue_tty_wake(id: c_uint);
    pub fn mk_ipi_glue_console_start();
    pub fn mk_ipi_glue_console_stop();
    pub fn mk_ipi_glue_peer_start() -> c_int;
    pub fn mk_ipi_glue_peer_stop();
    pub fn mk_ipi_glue_peer_add(id: c_uint) -> c_int;
    pub fn mk_ipi_glue_peer_remove(id: c_uint);
    pub fn mk_ipi_glue_peer_wake(slot: c_uint);
}

// net.c.
extern "C" {
    pub fn mk_ipi_net_hold_softirqs();
    pub fn mk_ipi_net_run_softirqs();
}

/// `struct irq_cfg` (arch/x86/include/asm/hw_irq.h). `dest_apicid` is a logical id under some APIC drivers.
#[repr(C)]
pub struct IrqCfg {
    pub dest_apicid: c_uint,
    pub vector: c_uint,
}

/// A buffer for a `struct irq_alloc_info`. All zeros mean that the interrupt belongs to no device. The size of the struct
/// depends on the configuration, and is at most a third of this buffer.
#[repr(C, align(16))]
pub struct IrqAllocInfo(pub [u8; 256]);

/// `MEMREMAP_WB` (linux/io.h).
pub const MEMREMAP_WB: c_ulong = 1;

/// `TASK_UNINTERRUPTIBLE` (linux/sched.h).
pub const TASK_UNINTERRUPTIBLE: c_uint = 2;

// Functions and variables that Linux exports.
extern "C" {
    pub static x86_vector_domain: *mut c_void;
    pub fn __irq_domain_alloc_irqs(
        domain: *mut c_void,
        base: c_int,
        count: c_uint,
        node: c_int,
        info: *mut c_void,
        realloc: bool,
        affinity: *const c_void,
    ) -> c_int;
    pub fn irq_dispose_mapping(irq: c_uint);
    pub fn irq_get_irq_data(irq: c_uint) -> *mut c_void;
    pub fn irqd_cfg(data: *mut c_void) -> *mut IrqCfg;
    pub fn irq_set_affinity(irq: c_uint, mask: *const c_void) -> c_int;
    pub fn __irq_set_handler(irq: c_uint, handler: *const c_void, chained: c_int, name: *const c_char);
    pub fn handle_edge_irq(desc: *mut c_void);
    pub fn request_threaded_irq(
        irq: c_uint,
        handler: extern "C" fn(c_int, *mut c_void) -> c_int,
        thread: *const c_void,
        flags: c_ulong,
        name: *const c_char,
        device: *mut c_void,
    ) -> c_int;
    pub fn free_irq(irq: c_uint, device: *mut c_void) -> *const c_void;
    pub fn memremap(start: u64, len: usize, flags: c_ulong) -> *mut c_void;
    pub fn memunmap(at: *mut c_void);
    pub fn reserve_mem_find_by_name(name: *const c_char, start: *mut u64, len: *mut u64) -> c_int;
    pub fn kernel_read_file_from_path(
        path: *const c_char,
        offset: i64,
        buf: *mut *mut c_void,
        buf_size: usize,
        file_size: *mut usize,
        id: c_int,
    ) -> isize;
    pub fn vfree(at: *const c_void);
    pub fn clflush_cache_range(at: *mut c_void, len: c_uint);
    pub static tsc_khz: c_uint;
    pub fn remove_cpu(cpu: c_uint) -> c_int;
    pub fn add_cpu(cpu: c_uint) -> c_int;
    pub fn seq_write(to: *mut c_void, data: *const c_void, len: usize) -> c_int;
    pub fn msleep(ms: c_uint);
    pub fn __udelay(us: c_ulong);
    pub fn usleep_range_state(min_us: c_ulong, max_us: c_ulong, state: c_uint);
    pub fn ktime_get() -> i64;
    pub fn __request_region(
        parent: *mut Resource,
        start: u64,
        len: u64,
        name: *const c_char,
        flags: c_int,
    ) -> *mut Resource;
    pub fn __release_region(parent: *mut Resource, start: u64, len: u64);
    pub fn insert_resource(parent: *mut Resource, new: *mut Resource) -> c_int;
    pub fn remove_resource(old: *mut Resource) -> c_int;
    pub static mut iomem_resource: Resource;
}

pub use kernel::bindings::resource as Resource;
