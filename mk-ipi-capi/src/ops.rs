// SPDX-License-Identifier: MIT OR Apache-2.0
//! The operations of a C kernel. `mk_ipi_init` checks and copies their table. The copy is the platform for mk-ipi-core.

use crate::callback::message_of;
use crate::kept::{Held, Kept};
use crate::reason::keep_init;
use crate::types::{
    mk_ipi_event, mk_ipi_message, MK_IPI_EVENT_ALIVE, MK_IPI_EVENT_ANSWERED, MK_IPI_EVENT_BEGAN,
    MK_IPI_EVENT_DEAD, MK_IPI_EVENT_DISCARDED, MK_IPI_EVENT_IN_DOUBT, MK_IPI_EVENT_QUARANTINED,
    MK_IPI_EVENT_READ_DIRECTORY, MK_IPI_EVENT_REFUSED, MK_IPI_EVENT_SPACE, MK_IPI_EVENT_SUSPECT,
    MK_IPI_EVENT_UNSETTLED, MK_IPI_EVENT_UP,
};
use core::ffi::{c_char, c_int, c_uint, c_ulong, c_void, CStr};
use core::ptr::NonNull;
use mk_ipi_core::abi::native::Breach;
use mk_ipi_core::abi::{Errno, Incarnation, InstanceId, PhysAddr, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::platform::{
    Access, DeferredWork, Doorbell, DoorbellError, InstancePool, LocalInterrupts, MapError, Mapping,
    Observer, Peer, PeerEvent, PhysMemory, PoolError, ThisCpu,
};
use mk_ipi_core::sync::{spin_hint, AtomicU64};
use mk_ipi_core::Message;

/// The version of `struct mk_ipi_ops` that this header describes.
pub const MK_IPI_OPS_VERSION: u32 = 3;

/// Operations that the kernel implements. Each gets `ctx` as its first argument. `mk_ipi_init` copies the table.
///
/// Eight are required: `map`, `unmap`, `doorbell_ring`, `this_cpu_id`, `this_cpu_index`, `irq_save`, `irq_restore` and
/// `schedule`. The others may be NULL; their comments say what NULL means. If `pool_alloc` is not NULL, `pool_free` is required
/// too.
///
/// Any CPU may call any of them at any time. Only `pool_alloc`, `pool_free`, `map`, `unmap`, `relax`, `region_added` and
/// `region_removed` may sleep. These operations are also called in interrupt context: `doorbell_check`, `doorbell_ring`,
/// `this_cpu_id`, `this_cpu_index`, `irq_save`, `irq_restore`, `peer_has_cpu`, `schedule` and `stop`; and `peer_event` if
/// `mk_ipi_tick`, `mk_ipi_want_space` or a call that sends is made there. These are also called in NMI context:
/// `doorbell_ring_nmi`, `peer_has_cpu`, `irq_save`, `irq_restore`, `this_cpu_id` and `this_cpu_index`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct mk_ipi_ops {
    /// `sizeof(struct mk_ipi_ops)`.
    pub size: usize,
    /// `MK_IPI_OPS_VERSION`.
    pub version: u32,
    /// Must be 0.
    pub reserved: u32,
    /// First argument of each operation.
    pub ctx: *mut c_void,
    /// Takes `len` bytes from the pool of `instance`: whole pages that begin on a page boundary. Stores their physical address in
    /// `*phys`. Returns 0, -19 (`ENODEV`) if the instance has no pool, or -12 (`ENOMEM`). NULL: the kernel has no pools, and
    /// cannot create instances.
    pub pool_alloc:
        Option<unsafe extern "C" fn(ctx: *mut c_void, instance: c_int, len: u64, phys: *mut u64) -> c_int>,
    /// Gives memory from `pool_alloc` back to the pool. May be NULL if `pool_alloc` is NULL.
    pub pool_free: Option<unsafe extern "C" fn(ctx: *mut c_void, instance: c_int, phys: u64, len: u64)>,
    /// Maps `len` bytes at the physical address `phys`, write-back cached, and writable only if `writable` is not 0. Stores the
    /// address of the mapping in `*virt`. It is 8-byte aligned. Returns 0, -12 (`ENOMEM`) or -13 (`EACCES`). It must refuse
    /// memory that this kernel uses for itself.
    pub map: Option<
        unsafe extern "C" fn(
            ctx: *mut c_void,
            phys: u64,
            len: u64,
            writable: c_int,
            virt: *mut *mut c_void,
        ) -> c_int,
    >,
    /// Unmaps what `map` mapped at `virt` with this `len`.
    pub unmap: Option<unsafe extern "C" fn(ctx: *mut c_void, virt: *mut c_void, len: u64)>,
    /// Returns whether `mk_ipi_map_pfn` and `mk_receive_map_page` may map this page, whose number came from a peer; 0 if not.
    /// NULL: they may map no page.
    pub peer_may_share: Option<unsafe extern "C" fn(ctx: *mut c_void, phys: u64, len: u64) -> c_int>,
    /// Checks whether `doorbell_ring` can reach the CPU with this physical id. Returns 0 if it can, -6 (`ENXIO`) if not, or
    /// another negated error number. Sends nothing. NULL: `doorbell_ring` can reach each CPU.
    pub doorbell_check: Option<unsafe extern "C" fn(ctx: *mut c_void, cpu: u64, vector: c_uint) -> c_int>,
    /// Interrupts the CPU with this physical id, by an edge-triggered interrupt with this vector. All earlier stores of the
    /// calling CPU must be visible to the interrupt handler there. Returns 0, -6 (`ENXIO`), -11 (`EAGAIN`: the controller is
    /// stuck), or another negated error number.
    pub doorbell_ring: Option<unsafe extern "C" fn(ctx: *mut c_void, cpu: u64, vector: c_uint) -> c_int>,
    /// The same as `doorbell_ring`, for an NMI handler. The NMI may have interrupted a `doorbell_ring` on the same CPU. NULL:
    /// `mk_ipi_send_from_nmi` returns -`MK_IPI_ENXIO`.
    pub doorbell_ring_nmi: Option<unsafe extern "C" fn(ctx: *mut c_void, cpu: u64, vector: c_uint) -> c_int>,
    /// Returns the physical id of the calling CPU: on x86 its APIC id.
    pub this_cpu_id: Option<unsafe extern "C" fn(ctx: *mut c_void) -> u64>,
    /// Returns the index of the calling CPU in this kernel: from 0, without gaps, below `MK_IPI_MAX_CPUS`.
    pub this_cpu_index: Option<unsafe extern "C" fn(ctx: *mut c_void) -> c_uint>,
    /// Switches interrupts off on this CPU, and prevents migration. Returns the former state. May be called again before
    /// `irq_restore`.
    pub irq_save: Option<unsafe extern "C" fn(ctx: *mut c_void) -> c_ulong>,
    /// Restores the state that `irq_save` returned.
    pub irq_restore: Option<unsafe extern "C" fn(ctx: *mut c_void, state: c_ulong)>,
    /// Schedules `mk_ipi_run_deferred`: the kernel calls it soon, on this CPU, outside of the interrupt handler. Interrupts may
    /// be off now. This operation must not make that call itself.
    pub schedule: Option<unsafe extern "C" fn(ctx: *mut c_void)>,
    /// Called repeatedly while a call that may sleep waits for another CPU. It may sleep or yield. NULL: the library executes a
    /// pause instruction instead.
    pub relax: Option<unsafe extern "C" fn(ctx: *mut c_void)>,
    /// Prints a line to the kernel's log. Called at most once for each failed call, never in interrupt context. May be NULL.
    pub log: Option<unsafe extern "C" fn(ctx: *mut c_void, text: *const c_char)>,
    /// Called after a region was mapped, so that the kernel can list it in its resource tree. May be NULL.
    pub region_added: Option<unsafe extern "C" fn(ctx: *mut c_void, instance: c_int, phys: u64, len: u64)>,
    /// Called before a region is unmapped. May be NULL.
    pub region_removed: Option<unsafe extern "C" fn(ctx: *mut c_void, instance: c_int, phys: u64, len: u64)>,
    /// Called when something has happened to a peer. It is called from the deferred work, from a poller, from `mk_ipi_tick`,
    /// `mk_ipi_follow`, `mk_ipi_destroy_instance`, `mk_ipi_destroy_stopped` and `mk_ipi_fini`, and from a `mk_ipi_start` or
    /// `mk_ipi_join` that fails. `MK_IPI_EVENT_ANSWERED` can also come from `mk_ipi_want_space` and from the calls that send.
    /// This operation may send, and must not wait. May be NULL.
    pub peer_event: Option<unsafe extern "C" fn(ctx: *mut c_void, event: *const mk_ipi_event)>,
    /// Returns whether the CPU belongs to the peer now, according to the directory: 1 or 0; a negative number if this kernel does
    /// not know. If the result is negative, or this operation is NULL, the library reads the directory that it keeps
    /// (`mk_ipi_start`, `mk_ipi_join`). If it keeps no directory, only the doorbell CPU belongs to a peer. The operation is
    /// called when a peer has moved its doorbell, so that only CPUs of the peer are interrupted; when a sender names a CPU; and
    /// with our own instance id when this kernel moves its own doorbell. Must not wait.
    pub peer_has_cpu: Option<unsafe extern "C" fn(ctx: *mut c_void, peer: c_int, cpu: u64) -> c_int>,
    /// Called if `mk_ipi_start`, `mk_ipi_join`, or a `mk_ipi_follow` without a callback could not add a live instance. `error` is
    /// the reason, as a negated error number. `mk_ipi_follow` tries again after the next change of the directory. May be NULL.
    pub left_out: Option<unsafe extern "C" fn(ctx: *mut c_void, instance: c_int, error: c_int)>,
    /// Called when the host tells this kernel to stop at once. The call is repeated until the kernel has stopped. May be NULL.
    pub stop: Option<unsafe extern "C" fn(ctx: *mut c_void)>,
    /// Called for a received message for whose type no handler is registered. The message is dropped after this call. The same
    /// rules hold as for a callback of `mk_ipi_register`. May be NULL.
    pub unhandled: Option<unsafe extern "C" fn(ctx: *mut c_void, message: *const mk_ipi_message)>,
}

type Ring = unsafe extern "C" fn(*mut c_void, u64, c_uint) -> c_int;
type Region = Option<unsafe extern "C" fn(*mut c_void, c_int, u64, u64)>;

/// A checked copy of the table of operations. All required operations are present.
#[derive(Debug)]
pub struct CPlatform {
    ctx: *mut c_void,
    pool_alloc: Option<unsafe extern "C" fn(*mut c_void, c_int, u64, *mut u64) -> c_int>,
    pool_free: Region,
    map: unsafe extern "C" fn(*mut c_void, u64, u64, c_int, *mut *mut c_void) -> c_int,
    unmap: unsafe extern "C" fn(*mut c_void, *mut c_void, u64),
    peer_may_share: Option<unsafe extern "C" fn(*mut c_void, u64, u64) -> c_int>,
    doorbell_check: Option<Ring>,
    doorbell_ring: Ring,
    doorbell_ring_nmi: Option<Ring>,
    this_cpu_id: unsafe extern "C" fn(*mut c_void) -> u64,
    this_cpu_index: unsafe extern "C" fn(*mut c_void) -> c_uint,
    irq_save: unsafe extern "C" fn(*mut c_void) -> c_ulong,
    irq_restore: unsafe extern "C" fn(*mut c_void, c_ulong),
    schedule: unsafe extern "C" fn(*mut c_void),
    relax: Option<unsafe extern "C" fn(*mut c_void)>,
    log: Option<unsafe extern "C" fn(*mut c_void, *const c_char)>,
    region_added: Region,
    region_removed: Region,
    peer_event: Option<unsafe extern "C" fn(*mut c_void, *const mk_ipi_event)>,
    peer_has_cpu: Option<unsafe extern "C" fn(*mut c_void, c_int, u64) -> c_int>,
    left_out: Option<unsafe extern "C" fn(*mut c_void, c_int, c_int)>,
    stop: Option<unsafe extern "C" fn(*mut c_void)>,
    unhandled: Option<unsafe extern "C" fn(*mut c_void, *const mk_ipi_message)>,
    /// The directory that the library keeps. It also says which CPUs a peer has, if the operation `peer_has_cpu` does not.
    pub(crate) directory: Kept,
}

// SAFETY: the caller of `mk_ipi_init` has promised that any CPU may call any operation with `ctx`. All other fields are `Send`.
unsafe impl Send for CPlatform {}
// SAFETY: as above.
unsafe impl Sync for CPlatform {}

/// Gives a required operation of the table. If it is NULL, returns a line with its name.
macro_rules! needed {
    ($ops:ident.$name:ident) => {
        match $ops.$name {
            Some(operation) => operation,
            None => {
                const LINE: &str = concat!("mk_ipi: the operation ", stringify!($name), " is NULL\0");
                return Err(
                    CStr::from_bytes_with_nul(LINE.as_bytes()).unwrap_or(c"mk_ipi: an operation is NULL")
                );
            }
        }
    };
}

impl CPlatform {
    /// Checks and copies the table at `ops`. `EINVAL` if `ops` is NULL or misaligned, the size of the table is wrong, its field
    /// `reserved` is not 0, or a required operation is NULL; `EPROTO` if the version of the table is wrong.
    ///
    /// # Safety
    ///
    /// `ops` is NULL, or points to the first 16 bytes of a table, and to as many bytes as its field `size` says. The operations
    /// do what the header requires.
    pub(crate) unsafe fn new(ops: *const mk_ipi_ops) -> Result<Self, Errno> {
        if ops.is_null() || !ops.is_aligned() {
            keep_init(c"mk_ipi: the table of operations is NULL or misaligned");
            return Err(Errno::EINVAL);
        }
        // SAFETY: not NULL, so it points to the first fields (the caller).
        let (size, version) = unsafe { ((*ops).size, (*ops).version) };
        if size != size_of::<mk_ipi_ops>() {
            keep_init(
                c"mk_ipi: the size in the table of operations is not the size of struct mk_ipi_ops in this library",
            );
            return Err(Errno::EINVAL);
        }
        if version != MK_IPI_OPS_VERSION {
            return Err(Errno::EPROTO);
        }
        // SAFETY: the table has this size (the caller). Any bits are valid for integers, pointers, and functions that may be
        // NULL.
        let ops = unsafe { ops.read() };
        if ops.reserved != 0 {
            keep_init(c"mk_ipi: the field reserved of the table of operations is not 0");
            return Err(Errno::EINVAL);
        }
        let (ctx, log) = (ops.ctx, ops.log);
        Self::complete(ops).map_err(|missing| {
            write_line(ctx, log, missing);
            keep_init(missing);
            Errno::EINVAL
        })
    }

    /// Makes the copy. If a required operation is missing, returns a line with its name.
    fn complete(ops: mk_ipi_ops) -> Result<Self, &'static CStr> {
        if ops.pool_alloc.is_some() {
            needed!(ops.pool_free);
        }
        Ok(Self {
            ctx: ops.ctx,
            pool_alloc: ops.pool_alloc,
            pool_free: ops.pool_free,
            map: needed!(ops.map),
            unmap: needed!(ops.unmap),
            peer_may_share: ops.peer_may_share,
            doorbell_check: ops.doorbell_check,
            doorbell_ring: needed!(ops.doorbell_ring),
            doorbell_ring_nmi: ops.doorbell_ring_nmi,
            this_cpu_id: needed!(ops.this_cpu_id),
            this_cpu_index: needed!(ops.this_cpu_index),
            irq_save: needed!(ops.irq_save),
            irq_restore: needed!(ops.irq_restore),
            schedule: needed!(ops.schedule),
            relax: ops.relax,
            log: ops.log,
            region_added: ops.region_added,
            region_removed: ops.region_removed,
            peer_event: ops.peer_event,
            peer_has_cpu: ops.peer_has_cpu,
            left_out: ops.left_out,
            stop: ops.stop,
            unhandled: ops.unhandled,
            directory: Kept::new(),
        })
    }

    /// Prints a line to the kernel's log, if the operation `log` is present.
    pub(crate) fn log(&self, text: &'static CStr) {
        write_line(self.ctx, self.log, text);
    }

    /// Whether the kernel can ring a doorbell in NMI context.
    pub(crate) const fn rings_from_nmi(&self) -> bool {
        self.doorbell_ring_nmi.is_some()
    }

    /// Reports a live instance that could not be added.
    pub(crate) fn left_out(&self, instance: InstanceId, error: Errno) {
        if let Some(left_out) = self.left_out {
            // SAFETY: the kernel's own operation.
            unsafe { left_out(self.ctx, instance.get().into(), error.to_c()) };
        }
    }

    /// Removes the kept directory, and unmaps it if this library mapped it.
    pub(crate) fn let_directory_go(&self) {
        if let Some(Held { mapping, ours: Some(_) }) = self.directory.take(|| self.relax()) {
            // SAFETY: `map` of this platform mapped it, and it is not used any more.
            unsafe { self.unmap(mapping) };
        }
    }

    /// Unmaps `len` bytes at `virt`.
    ///
    /// # Safety
    ///
    /// This platform mapped these bytes, and they are not used again.
    pub(crate) unsafe fn unmap_at(&self, virt: *mut c_void, len: u64) {
        // SAFETY: the caller. The operation is the kernel's own.
        unsafe { (self.unmap)(self.ctx, virt, len) };
    }
}

fn write_line(
    ctx: *mut c_void,
    log: Option<unsafe extern "C" fn(*mut c_void, *const c_char)>,
    text: &'static CStr,
) {
    if let Some(log) = log {
        // SAFETY: the kernel's own operation with its own context. The text ends with NUL.
        unsafe { log(ctx, text.as_ptr()) };
    }
}

fn doorbell_result(code: c_int, cpu: PhysCpuId) -> Result<(), DoorbellError> {
    match Errno(code.wrapping_neg()) {
        Errno(0) => Ok(()),
        Errno::ENXIO => Err(DoorbellError::Unreachable(cpu)),
        Errno::EAGAIN => Err(DoorbellError::Stuck),
        _ => Err(DoorbellError::Refused(code.unsigned_abs())),
    }
}

// SAFETY: the header requires of the `doorbell_` operations what this trait requires.
unsafe impl Doorbell for CPlatform {
    fn check(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        // SAFETY: the kernel's own operation, which accepts any values.
        let check = |check: Ring| unsafe { check(self.ctx, cpu.0, vector.get().into()) };
        self.doorbell_check.map_or(Ok(()), |f| doorbell_result(check(f), cpu))
    }
    fn ring(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        // SAFETY: as above.
        doorbell_result(unsafe { (self.doorbell_ring)(self.ctx, cpu.0, vector.get().into()) }, cpu)
    }
    fn ring_from_nmi(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        // SAFETY: as above.
        let ring = |ring: Ring| unsafe { ring(self.ctx, cpu.0, vector.get().into()) };
        self.doorbell_ring_nmi.map_or(Err(DoorbellError::Unreachable(cpu)), |f| doorbell_result(ring(f), cpu))
    }
}

// SAFETY: the header requires of `this_cpu_id` and `this_cpu_index` what this trait requires.
unsafe impl ThisCpu for CPlatform {
    fn physical_id(&self) -> PhysCpuId {
        // SAFETY: the kernel's own operation.
        PhysCpuId(unsafe { (self.this_cpu_id)(self.ctx) })
    }
    fn index(&self) -> usize {
        // SAFETY: the kernel's own operation.
        usize::try_from(unsafe { (self.this_cpu_index)(self.ctx) }).unwrap_or(usize::MAX)
    }
    fn relax(&self) {
        match self.relax {
            // SAFETY: the kernel's own operation.
            Some(relax) => unsafe { relax(self.ctx) },
            None => spin_hint(),
        }
    }
}

// SAFETY: the header requires of `irq_save` and `irq_restore` what this trait requires.
unsafe impl LocalInterrupts for CPlatform {
    type State = c_ulong;
    fn disable(&self) -> c_ulong {
        // SAFETY: the kernel's own operation.
        unsafe { (self.irq_save)(self.ctx) }
    }
    fn restore(&self, state: c_ulong) {
        // SAFETY: the kernel's own operation, with the state that `irq_save` returned.
        unsafe { (self.irq_restore)(self.ctx, state) };
    }
}

// SAFETY: the header requires of `map` and `unmap` what this trait requires: `*virt` is valid for `len` bytes, a multiple of 8.
unsafe impl PhysMemory for CPlatform {
    type Word = AtomicU64;
    fn map(&self, range: PhysRange, access: Access) -> Result<Mapping<AtomicU64>, MapError> {
        let len = range.len() & !7;
        let mut virt = core::ptr::null_mut();
        let writable = c_int::from(access == Access::ReadWrite);
        // SAFETY: the kernel's own operation. It may write `virt`.
        let code = unsafe { (self.map)(self.ctx, range.start().0, len, writable, &mut virt) };
        match Errno(code.wrapping_neg()) {
            Errno(0) => {}
            Errno::EACCES => return Err(MapError::NotAllowed),
            Errno::EINVAL => return Err(MapError::Misaligned),
            _ => return Err(MapError::NoMemory),
        }
        let words = NonNull::new(virt.cast::<AtomicU64>()).ok_or(MapError::NoMemory)?;
        if !words.is_aligned() {
            // SAFETY: `map` returned this address just now.
            unsafe { self.unmap_at(virt, len) };
            return Err(MapError::Misaligned);
        }
        let count = usize::try_from(len >> 3).map_err(|_| MapError::NoMemory)?;
        // SAFETY: it is aligned and not NULL. The header requires that `len` bytes are mapped there until `unmap`.
        Ok(unsafe { Mapping::new(NonNull::slice_from_raw_parts(words, count)) })
    }
    unsafe fn unmap(&self, mapping: Mapping<AtomicU64>) {
        let words = mapping.as_ptr();
        let len = (words.len() as u64) << 3;
        // SAFETY: the caller promises that the mapping came from `map` and is not used again.
        unsafe { self.unmap_at(words.as_ptr().cast(), len) };
    }
    fn peer_may_share(&self, page: PhysRange) -> bool {
        // SAFETY: the kernel's own operation, which accepts any values.
        self.peer_may_share.is_some_and(|may| unsafe { may(self.ctx, page.start().0, page.len()) != 0 })
    }
}

// SAFETY: the header requires of `pool_alloc` and `pool_free` what this trait requires.
unsafe impl InstancePool for CPlatform {
    fn alloc(&self, instance: InstanceId, len: u64) -> Result<PhysAddr, PoolError> {
        let pool_alloc = self.pool_alloc.ok_or(PoolError::NoPool)?;
        let mut phys = 0;
        // SAFETY: the kernel's own operation. It may write `phys`.
        let code = unsafe { pool_alloc(self.ctx, instance.get().into(), len, &mut phys) };
        match Errno(code.wrapping_neg()) {
            Errno(0) => Ok(PhysAddr(phys)),
            Errno::ENODEV => Err(PoolError::NoPool),
            _ => Err(PoolError::Exhausted),
        }
    }
    unsafe fn free(&self, instance: InstanceId, range: PhysRange) {
        if let Some(pool_free) = self.pool_free {
            // SAFETY: the caller promises that the range came from `alloc` and is not used again.
            unsafe { pool_free(self.ctx, instance.get().into(), range.start().0, range.len()) };
        }
    }
}

impl DeferredWork for CPlatform {
    fn schedule(&self) {
        // SAFETY: the kernel's own operation.
        unsafe { (self.schedule)(self.ctx) };
    }
}

impl Observer for CPlatform {
    fn peer_event(&self, peer: Peer, event: PeerEvent) {
        if let Some(peer_event) = self.peer_event {
            let event = event_of(peer, event);
            // SAFETY: the kernel's own operation. The event exists until it returns.
            unsafe { peer_event(self.ctx, &event) };
        }
    }
    fn peer_has_cpu(&self, peer: InstanceId, cpu: PhysCpuId) -> Option<bool> {
        let ask = |has_cpu: unsafe extern "C" fn(*mut c_void, c_int, u64) -> c_int| {
            // SAFETY: the kernel's own operation, which accepts any values.
            unsafe { has_cpu(self.ctx, peer.get().into(), cpu.0) }
        };
        let answer = self.peer_has_cpu.map(ask).filter(|answer| *answer >= 0);
        answer.map(|answer| answer != 0).or_else(|| self.directory.has_cpu(peer, cpu))
    }
    fn unhandled(&self, message: &Message<'_>) {
        if let Some(unhandled) = self.unhandled {
            let message = message_of(message);
            // SAFETY: the kernel's own operation. The message and its payload exist until it returns.
            unsafe { unhandled(self.ctx, &message) };
        }
    }
    fn stop(&self) {
        if let Some(stop) = self.stop {
            // SAFETY: the kernel's own operation.
            unsafe { stop(self.ctx) };
        }
    }
    fn region_added(&self, instance: InstanceId, range: PhysRange) {
        if let Some(added) = self.region_added {
            // SAFETY: the kernel's own operation.
            unsafe { added(self.ctx, instance.get().into(), range.start().0, range.len()) };
        }
    }
    fn region_removed(&self, instance: InstanceId, range: PhysRange) {
        if let Some(removed) = self.region_removed {
            // SAFETY: the kernel's own operation.
            unsafe { removed(self.ctx, instance.get().into(), range.start().0, range.len()) };
        }
    }
}

fn event_of(peer: Peer, event: PeerEvent) -> mk_ipi_event {
    let (theirs, ours) = (peer.theirs.map_or(0, Incarnation::get), peer.ours.get());
    let event_of =
        |kind| mk_ipi_event { peer: peer.id.get().into(), kind, theirs, ours, ..Default::default() };
    let life = |kind, life: Incarnation| mk_ipi_event { incarnation: life.get(), ..event_of(kind) };
    let broken = |kind, breach: Breach| mk_ipi_event { breach: breach as u32, ..event_of(kind) };
    let range = |kind, after, to| mk_ipi_event { number: to, after, ..event_of(kind) };
    match event {
        PeerEvent::Began(i) => life(MK_IPI_EVENT_BEGAN, i),
        PeerEvent::Answered => event_of(MK_IPI_EVENT_ANSWERED),
        PeerEvent::Quarantined(breach) => broken(MK_IPI_EVENT_QUARANTINED, breach),
        PeerEvent::Refused(breach) => broken(MK_IPI_EVENT_REFUSED, breach),
        PeerEvent::InDoubt { number } => mk_ipi_event { number, ..event_of(MK_IPI_EVENT_IN_DOUBT) },
        PeerEvent::Discarded { after, to } => range(MK_IPI_EVENT_DISCARDED, after, to),
        PeerEvent::Unsettled { after, to } => range(MK_IPI_EVENT_UNSETTLED, after, to),
        PeerEvent::ReadDirectory => event_of(MK_IPI_EVENT_READ_DIRECTORY),
        PeerEvent::Space => event_of(MK_IPI_EVENT_SPACE),
        PeerEvent::Suspect => event_of(MK_IPI_EVENT_SUSPECT),
        PeerEvent::Alive => event_of(MK_IPI_EVENT_ALIVE),
        PeerEvent::Up(i) => life(MK_IPI_EVENT_UP, i),
        PeerEvent::Dead(i) => life(MK_IPI_EVENT_DEAD, i),
    }
}
