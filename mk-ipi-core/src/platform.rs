// SPDX-License-Identifier: MIT OR Apache-2.0
//! The traits that a kernel and its architecture implement. [`Platform`] combines all of them.
//!
//! "Implementation safety" says what an implementor must guarantee. "Safety" says what a caller must guarantee.

use crate::message::Message;
use crate::sync::{AtomicU64, Ordering, Word};
use core::ptr::NonNull;
use mk_ipi_abi::native::Breach;
use mk_ipi_abi::{Errno, Incarnation, InstanceId, PhysAddr, PhysCpuId, PhysRange, Vector};

/// Rings another CPU: sends one edge-triggered interrupt with a fixed vector to one target.
///
/// # Implementation safety
///
/// **Ordering (SPEC O-1):** stores of this CPU to shared memory, made before it called [`ring`](Self::ring), must be visible to
/// the handler that this doorbell causes at the target. A doorbell does not order earlier stores by itself, except a store to
/// uncached device memory on x86. A release store or fence of the language is not enough either: it orders accesses to memory
/// only, and the sending of an interrupt is not such an access. These instructions are enough:
///
/// | doorbell | before it | source |
/// | --- | --- | --- |
/// | x86, xAPIC | nothing, if its page is mapped uncached | Intel SDM vol. 3A, 8.2.2 |
/// | x86, x2APIC | `mfence; lfence` | Intel SDM vol. 3A, 10.12.3 |
/// | arm64, SGI of a GICv3 | `dsb ishst`; a `dmb` is not enough | Arm ARM, "Data Synchronization Barrier (DSB)"; GIC, "Observability of the effects of accesses to the GIC registers" |
/// | riscv64, SBI or IMSIC | `fence w, o`; `fence w, w` is not enough | ISA, "FENCE instruction" |
///
/// **At the target** the kernel takes the interrupt first, and then looks for messages. In between it executes a barrier where
/// the architecture needs one (SPEC AR-5, RV-5, RV-7). `docs/book/src/memory-ordering.md` has a litmus test of sender and target.
///
/// `ring` must be callable in any context that may send, with interrupts on or off. It must interrupt only `cpu`:
/// another kernel's CPU does not expect this vector.
pub unsafe trait Doorbell {
    /// Checks whether `ring` can reach this CPU with this vector. Sends nothing.
    ///
    /// It is called before the message is stored, so that a send to an unreachable CPU changes nothing.
    fn check(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError>;

    /// Interrupts `cpu` with `vector`. Several calls may cause only one interrupt: if the vector is already pending, a further
    /// call changes nothing.
    fn ring(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError>;

    /// The same as [`ring`](Self::ring), for an NMI handler. The NMI may have interrupted a `ring` on the same CPU. So this
    /// method must leave the interrupt controller in the state in which it was before (SPEC A-9).
    fn ring_from_nmi(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError>;
}

/// Why a doorbell did not ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoorbellError {
    /// The interrupt controller, in its current mode, cannot address this CPU.
    Unreachable(PhysCpuId),
    /// The interrupt controller has no interrupt that this vector stands for.
    NoSuchVector(Vector),
    /// The interrupt controller did not take the request in bounded time.
    Stuck,
    /// The interrupt controller refused the request. This is its error status.
    Refused(u32),
}

impl core::fmt::Display for DoorbellError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Unreachable(cpu) => write!(f, "the interrupt controller cannot address CPU {:#x}", cpu.0),
            Self::NoSuchVector(vector) => {
                write!(f, "the interrupt controller has no interrupt for vector {:#x}", vector.get())
            }
            Self::Stuck => f.write_str("the interrupt controller stays busy"),
            Self::Refused(status) => {
                write!(f, "the interrupt controller refused the doorbell: status {status:#x}")
            }
        }
    }
}

impl core::error::Error for DoorbellError {}

impl DoorbellError {
    /// `ENXIO` for a CPU that cannot be addressed, `EAGAIN` for a controller that is stuck, else `EINVAL`.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Unreachable(_) => Errno::ENXIO,
            Self::Stuck => Errno::EAGAIN,
            Self::NoSuchVector(_) | Self::Refused(_) => Errno::EINVAL,
        }
    }
}

/// Identifies the CPU that runs the call.
///
/// # Implementation safety
///
/// `physical_id` is the id by which the machine's interrupt controller addresses the CPU that runs the call. Peers ring the CPU
/// by this id, and the CPU finds its slot by it. `index` is the number of the CPU within this kernel. The numbers begin at 0 and
/// have no gaps, and two CPUs that run at the same time have different numbers. While interrupts are off, both calls return the
/// same values again. The same holds while a callback runs, because a callback must not migrate to another CPU.
pub unsafe trait ThisCpu {
    /// The physical id of this CPU: on x86 the APIC id, on arm64 the affinity, on riscv64 the hart id (SPEC A-2, AR-1, RV-1).
    fn physical_id(&self) -> PhysCpuId;
    /// The index of the CPU within this kernel.
    fn index(&self) -> usize;
    /// One iteration of a wait for another CPU, in a context that may wait. A kernel whose callbacks can be preempted
    /// must sleep here. Otherwise a waiter of higher priority would keep the callback from running.
    fn relax(&self) {
        crate::sync::spin_hint();
    }
    /// Writes `new` to `word` if its value is `current`. Returns whether it has written. It is called only in kernels with one
    /// CPU, and only for words that no other CPU accesses. So it must be atomic only with respect to interrupts and NMIs of this
    /// CPU. On x86 an instruction without `lock` is enough, and much faster (`mk_ipi_x86::compare_exchange_alone`).
    #[inline(always)]
    fn compare_exchange_alone(&self, word: &AtomicU64, current: u64, new: u64) -> bool {
        word.compare_exchange(current, new, Ordering::Relaxed).is_ok()
    }
}

/// Switches interrupts off and on for the CPU that runs this.
///
/// # Implementation safety
///
/// Between `disable` and the matching `restore` no maskable interrupt is taken on this CPU, and the code is
/// not moved to another CPU. Pairs nest. Both may be called in NMI context.
pub unsafe trait LocalInterrupts {
    /// The state before `disable`, for `restore`.
    type State;
    /// Switches interrupts off; returns the former state.
    fn disable(&self) -> Self::State;
    /// Restores the state that `disable` returned.
    fn restore(&self, state: Self::State);
}

/// How a mapping may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Loads only. If the platform has page tables, a store through the mapping faults.
    ReadOnly,
    /// Loads and stores.
    ReadWrite,
}

/// Physical memory that is mapped write-back cached, as a slice of words. The first word is at the start of the range.
///
/// The owner must give the mapping back to [`PhysMemory::unmap`]. If it is only dropped, the memory stays mapped.
#[derive(Debug)]
pub struct Mapping<W> {
    words: NonNull<[W]>,
}

impl<W: Word> Mapping<W> {
    /// A mapping of the memory at `words`.
    ///
    /// # Safety
    ///
    /// `words` is aligned and non-dangling. Until the mapping is unmapped, `words` is valid for loads of `W` from every CPU of
    /// this kernel, and for stores if the memory is mapped for stores. This kernel accesses the memory only through `W`. Other
    /// kernels may write it at any time.
    pub const unsafe fn new(words: NonNull<[W]>) -> Self {
        Self { words }
    }

    /// The mapped words.
    #[inline(always)]
    pub fn words(&self) -> &[W] {
        // SAFETY: the caller of `new` guarantees validity for as long as this mapping exists. `W` may be shared.
        unsafe { self.words.as_ref() }
    }

    /// The address of the mapping, for `unmap`.
    pub const fn as_ptr(&self) -> NonNull<[W]> {
        self.words
    }
}

// SAFETY: a mapping is a pointer to words that any CPU of this kernel may use (`new`), and `W` is Send + Sync.
unsafe impl<W: Word> Send for Mapping<W> {}
// SAFETY: as above; `words` gives out shared references only.
unsafe impl<W: Word> Sync for Mapping<W> {}

/// Why physical memory could not be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// The memory does not begin on a page boundary, or its length is not a multiple of 8.
    Misaligned,
    /// No address space or page tables left.
    NoMemory,
    /// The platform's policy does not allow this memory to be mapped.
    NotAllowed,
}

impl core::fmt::Display for MapError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Misaligned => f.write_str(
                "the memory does not begin on a page boundary, or its length is not a multiple of 8",
            ),
            Self::NoMemory => f.write_str("the mapping needs memory or address space, and none is left"),
            Self::NotAllowed => f.write_str("the platform does not allow this memory to be mapped"),
        }
    }
}

impl core::error::Error for MapError {}

impl MapError {
    /// `EINVAL`, `ENOMEM` or `EACCES`.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Misaligned => Errno::EINVAL,
            Self::NoMemory => Errno::ENOMEM,
            Self::NotAllowed => Errno::EACCES,
        }
    }
}

/// Maps and unmaps physical memory. Both may sleep.
///
/// # Implementation safety
///
/// A mapping covers exactly `range`. A `range` that does not begin on a page boundary, or whose length is not a multiple of 8, is
/// refused as [`MapError::Misaligned`]. A mapping is write-back cached (on arm64 also inner shareable, as are the fences here),
/// and meets the requirements of [`Mapping::new`]. `map` refuses memory that this kernel uses for itself, also if a peer or the
/// directory names it.
pub unsafe trait PhysMemory {
    /// The word type of mapped memory: [`crate::sync::AtomicU64`] in a kernel.
    type Word: Word;
    /// Maps `range`.
    fn map(&self, range: PhysRange, access: Access) -> Result<Mapping<Self::Word>, MapError>;
    /// Undoes a `map`.
    ///
    /// # Safety
    ///
    /// `mapping` came from `map` of this very object, and nothing that was borrowed from it is used again.
    unsafe fn unmap(&self, mapping: Mapping<Self::Word>);
    /// Whether a page that a *peer* named may be mapped (SPEC H-18). Return true only for memory that is intended for sharing.
    fn peer_may_share(&self, page: PhysRange) -> bool;
}

/// Why a pool gave no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolError {
    /// The instance has no pool.
    NoPool,
    /// The pool has no piece of this size left.
    Exhausted,
}

impl core::fmt::Display for PoolError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::NoPool => f.write_str("the instance has no memory pool"),
            Self::Exhausted => f.write_str("the memory pool of the instance has no piece of this size left"),
        }
    }
}

impl core::error::Error for PoolError {}

impl PoolError {
    /// `ENODEV` without a pool, `ENOMEM` when it is exhausted (SPEC C-1).
    pub const fn errno(self) -> Errno {
        match self {
            Self::NoPool => Errno::ENODEV,
            Self::Exhausted => Errno::ENOMEM,
        }
    }
}

/// The memory pools of instances. Each pool is for one instance.
///
/// # Implementation safety
///
/// `alloc` returns page-aligned memory of at least `len` bytes, in whole pages that nothing else uses until they are
/// freed. Peers map whole pages, so the rest of the last page must hold no secrets.
pub unsafe trait InstancePool {
    /// Takes `len` bytes, page-aligned, from the pool of `instance`. May sleep.
    fn alloc(&self, instance: InstanceId, len: u64) -> Result<PhysAddr, PoolError>;
    /// Gives memory of `alloc` back to the pool.
    ///
    /// # Safety
    ///
    /// `range` begins at the address that `alloc` returned for `instance`, and has the length that was asked for. It is given
    /// back only once. It is not mapped and not used any more.
    unsafe fn free(&self, instance: InstanceId, range: PhysRange);
}

/// Schedules the deferred work, which calls the handlers outside of the interrupt handler.
pub trait DeferredWork {
    /// Schedules at least one call of `Endpoint::run_deferred`, soon, on this CPU. It is called with interrupts off, from the
    /// doorbell's interrupt **and from tasks**: by a send, a poll or an attachment. So it is not enough to run the deferred work
    /// after the doorbell's interrupt. The kernel must also run it from its idle loop, from its tick or from an interrupt to
    /// itself. `schedule` must not call `run_deferred` itself. It may do nothing if a call is already scheduled.
    fn schedule(&self);
}

/// The peer of an event, and the two lives that the event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The peer.
    pub id: InstanceId,
    /// The life of the peer, if it is known.
    pub theirs: Option<Incarnation>,
    /// The life of this kernel.
    pub ours: Incarnation,
}

/// What happened to a peer, or to the link with it (SPEC N-9, N-11, N-14). All events are of the native link.
///
/// | event | the call of this kernel that reports it | how often | what to do |
/// | --- | --- | --- | --- |
/// | `Began` | deferred work, poll | once for each pair of a life of the peer and a life of ours, before the first message | drop what belongs to the former life of the peer |
/// | `Answered` | deferred work, poll, `tick`, a send, `want_space` | once for each attachment that had to wait | send what was `Unanswered` |
/// | `Quarantined` | deferred work, poll | once for each life that breaks the protocol | report it to the operator. No call is needed to accept the next life of the peer |
/// | `Refused` | `tick`; with `want_space` also deferred work and poll | once for each attachment | this kernel has a fault: stop sending, report it |
/// | `InDoubt` | `tick` | once for each message | ask the peer whether the message was handled, or do something that is correct in both cases |
/// | `Discarded` | `tick` | once for each range | send these messages again, if they are still wanted |
/// | `Unsettled` | `destroy_instance`, `follow`, a `join` that fails; `tick` if the region was created again | once for each attachment, if the peer has not confirmed all messages | for each message the same as for `InDoubt` |
/// | `ReadDirectory` | deferred work, poll, `tick` | each time that the directory may have changed. One call can report it for several peers | [`follow`](crate::Endpoint::follow) from a task |
/// | `Space` | deferred work, poll, `tick` | once for each `want_space` that gave false | send |
/// | `Suspect` | `tick` | once, until `Alive` or `Up` | tell the operator; only the host decides whether the peer is dead (SPEC D-11) |
/// | `Alive` | `tick` | once for each `Suspect` that was wrong | nothing |
/// | `Up` | `tick` | once for each life of the peer, however often it is attached | nothing: **do not attach it again**; the link continues by itself |
/// | `Dead` | `tick` | once for each life that says goodbye | nothing: messages that are sent now wait for the next life |
///
/// A sender that waits for space or for an answer stops waiting when one of these events comes: `Space`, `Answered`, `Refused`,
/// `Dead`, `Up`, or `ReadDirectory` if the region was created again. In the last case `Unsettled` comes first if some messages
/// are not confirmed. `Space` and `Answered` come without [`tick`](crate::Endpoint::tick). So does `Refused` if a sender waits
/// for space. The others need `tick`. `Suspect` ends no wait: the peer may only be slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// Messages of this life of the peer follow. All messages of its former lives have been delivered. Reported once for each
    /// life of ours.
    Began(Incarnation),
    /// The peer has answered this life of ours. Sends do not fail with `Unanswered` any more.
    Answered,
    /// The peer broke the protocol. Its messages are refused until it begins a new life or attaches again.
    Quarantined(Breach),
    /// The peer says that this kernel broke the protocol. It accepts no more messages from this life of ours.
    Refused(Breach),
    /// A life of the peer ended while it handled this message of ours. It is not known whether this message was handled. All
    /// messages before it were handled, and no message after it.
    InDoubt {
        /// The number of the message, as [`Endpoint::send`](crate::Endpoint::send) returned it.
        number: u64,
    },
    /// A new life of the peer has discarded our unread messages. They were not handled.
    Discarded {
        /// The discarded messages have numbers above this.
        after: u64,
        /// The number of the last discarded message.
        to: u64,
    },
    /// The link with the peer ended: we detached, or its region was created again. It is not known whether these messages of ours
    /// were handled.
    Unsettled {
        /// These messages have numbers above this.
        after: u64,
        /// The number of the last of these messages.
        to: u64,
    },
    /// A word of the peer contradicts our copy of the directory. The directory may have changed: call
    /// [`Endpoint::follow`](crate::Endpoint::follow).
    ReadDirectory,
    /// Our lane to the peer has the space that `want_space` asked for.
    Space,
    /// The peer's heartbeat has stopped.
    Suspect,
    /// The heartbeat of a suspect peer advances again.
    Alive,
    /// The receiver of the peer runs as this incarnation. It is the first one that we see, or differs from the one before.
    Up(Incarnation),
    /// The peer has ended this life with a goodbye.
    Dead(Incarnation),
}

/// Callbacks for events of peers and regions. The call that finds an event calls the callback. Meanwhile it holds no lock for
/// which another CPU waits. Deferred work that is requested during a callback runs after it.
pub trait Observer {
    /// Something happened to a peer. [`PeerEvent`] says which calls report which event. This method may send, and must not wait.
    fn peer_event(&self, peer: Peer, event: PeerEvent) {
        let _ = (peer, event);
    }
    /// Whether `cpu` belongs to `peer` now, as the directory says ([`Directory::has_cpu`](crate::directory::Directory::has_cpu)).
    /// `None` if there is no directory: then only the doorbell CPU of `peer` belongs to `peer`. Return `Some(false)` while the
    /// entry changes: the next doorbell or send calls this method again. It is called when a peer has moved its doorbell (SPEC
    /// N-12), when a sender names a CPU, and when our own doorbell is moved. It is called in any context that may send. So it
    /// must not wait.
    fn peer_has_cpu(&self, peer: InstanceId, cpu: PhysCpuId) -> Option<bool> {
        let _ = (peer, cpu);
        None
    }
    /// A message was received, and no handler is registered for its type. The message is dropped after this call. The same rules
    /// hold as for a handler ([`Handler`](crate::Handler)).
    fn unhandled(&self, message: &Message<'_>) {
        let _ = message;
    }
    /// The host tells this kernel to stop at once (SPEC N-15). This method is called in interrupt context or in a poll. The call
    /// is repeated until the kernel has stopped.
    fn stop(&self) {}
    /// The region of `instance` was added at `range`. A kernel can list it in its resource tree (Linux: `/proc/iomem`; SPEC C-5).
    fn region_added(&self, instance: InstanceId, range: PhysRange) {
        let _ = (instance, range);
    }
    /// The region of `instance` at `range` will be removed.
    fn region_removed(&self, instance: InstanceId, range: PhysRange) {
        let _ = (instance, range);
    }
}

/// All traits that a kernel and its architecture implement.
pub trait Platform:
    Doorbell + ThisCpu + LocalInterrupts + PhysMemory + InstancePool + DeferredWork + Observer + Sync
{
}

impl<T> Platform for T where
    T: Doorbell + ThisCpu + LocalInterrupts + PhysMemory + InstancePool + DeferredWork + Observer + Sync
{
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Plain;

    // SAFETY: these tests run on one CPU.
    unsafe impl ThisCpu for Plain {
        fn physical_id(&self) -> PhysCpuId {
            PhysCpuId(0)
        }
        fn index(&self) -> usize {
            0
        }
    }

    impl Observer for Plain {}

    #[test]
    fn without_a_directory_it_is_not_known_whose_cpu_it_is() {
        assert_eq!(Plain.peer_has_cpu(InstanceId::HOST, PhysCpuId(0)), None);
    }

    #[test]
    fn a_word_is_exchanged_only_if_it_has_the_expected_value() {
        let word = AtomicU64::new(3);
        assert!(!Plain.compare_exchange_alone(&word, 4, 5));
        assert_eq!(word.load(Ordering::Relaxed), 3);
        assert!(Plain.compare_exchange_alone(&word, 3, 5));
        assert_eq!(word.load(Ordering::Relaxed), 5);
    }
}
