// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a kernel and an architecture supply. Each trait is one seam; [`Platform`] is all of them.
//!
//! The duty of an implementor stands under "Implementation safety", that of a caller under "Safety".

use crate::message::Message;
use crate::sync::{AtomicU64, Ordering, Word};
use core::ptr::NonNull;
use mk_ipi_abi::native::Breach;
use mk_ipi_abi::{Errno, Incarnation, InstanceId, PhysAddr, PhysCpuId, PhysRange, Vector};

/// Rings another CPU: one interrupt, fixed vector, one target, edge.
///
/// # Implementation safety
///
/// **Ordering, the first duty (SPEC O-1):** every store that this CPU made before [`ring`](Self::ring) was
/// called, to memory shared with the target, is visible to the handler that runs at the target because of
/// it. No architecture's doorbell orders earlier stores by itself, but for a store to memory that is a device's on x86. A release store or fence
/// of the language does not either: it orders memory, and an interrupt is none. What does:
///
/// | doorbell | before it | source |
/// | --- | --- | --- |
/// | x86, xAPIC | nothing, if its page is mapped uncached | Intel SDM vol. 3A, 8.2.2 |
/// | x86, x2APIC | `mfence; lfence` | Intel SDM vol. 3A, 10.12.3 |
/// | arm64, SGI of a GICv3 | `dsb ishst`; a `dmb` is not enough | Arm ARM, "Data Synchronization Barrier (DSB)"; GIC, "Observability of the effects of accesses to the GIC registers" |
/// | riscv64, SBI or IMSIC | `fence w, o`; `fence w, w` is not enough | ISA, "FENCE instruction" |
///
/// **The target's half** is its kernel's: it takes the interrupt first, and looks for messages behind that, with a barrier in between where the
/// architecture needs one (SPEC AR-5, RV-5, RV-7). `docs/book/src/memory-ordering.md` has both halves as a litmus test.
///
/// `ring` must be callable in any context that may send, with interrupts on or off, and must interrupt no
/// other CPU than the one named: the vector's handler there is code that its kernel trusts to be expected.
pub unsafe trait Doorbell {
    /// Whether `ring` could reach this CPU with this vector. Nothing is sent.
    ///
    /// Called before the message is stored, so that a target that cannot be reached costs nothing.
    fn check(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError>;

    /// Interrupts `cpu` with `vector`. One interrupt may stand for many calls: a vector that is pending
    /// already is not counted twice.
    fn ring(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError>;

    /// As [`ring`](Self::ring), from a handler that may have interrupted one half-way: an NMI. Leaves the interrupt
    /// controller as it found it (SPEC A-9).
    fn ring_from_nmi(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError>;
}

/// Why a doorbell did not ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoorbellError {
    /// The interrupt controller, in its present mode, cannot address this CPU.
    Unreachable(PhysCpuId),
    /// The interrupt controller has no interrupt that this vector stands for.
    NoSuchVector(Vector),
    /// The interrupt controller did not take the request in bounded time.
    Stuck,
    /// The interrupt controller refused the request: its error status.
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

/// Says which CPU runs this.
///
/// # Implementation safety
///
/// `physical_id` is the id by which the machine's interrupt controller addresses the CPU that runs the call:
/// peers ring it and receivers choose their slot by it. `index` numbers the CPUs of this kernel densely from
/// 0, and no two CPUs that run at the same time have the same one. Both are constant on one CPU while
/// interrupts are off there, and while a callback runs (a callback must not migrate).
pub unsafe trait ThisCpu {
    /// The CPU's physical id: on x86 its APIC id, on arm64 its affinity, on riscv64 its hart id (SPEC A-2, AR-1, RV-1).
    fn physical_id(&self) -> PhysCpuId;
    /// The CPU's number within this kernel.
    fn index(&self) -> usize;
    /// One turn of a wait for another CPU, in a context that may wait. A kernel whose callbacks can be preempted
    /// must sleep here, or a waiter of higher priority keeps the callback from its CPU.
    fn relax(&self) {
        crate::sync::spin_hint();
    }
    /// Writes `new` to `word` if that is `current`; whether it was. Called in kernels with one CPU only, for words that no
    /// other CPU touches: it need be whole to this CPU's own interrupts and NMIs, no more. x86 has an instruction for
    /// that which costs a fraction (`mk_ipi_x86::compare_exchange_alone`).
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
    /// What `disable` found, for `restore`.
    type State;
    /// Switches interrupts off; gives the former state.
    fn disable(&self) -> Self::State;
    /// Goes back to the state that `disable` gave.
    fn restore(&self, state: Self::State);
}

/// How a mapping may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Loads only. A platform with page tables makes it so, and a store through the mapping's words faults.
    ReadOnly,
    /// Loads and stores.
    ReadWrite,
}

/// Physical memory, mapped write-back cached: a slice of words from the start of the range.
///
/// The mapping's owner gives it back to [`PhysMemory::unmap`]; dropping it leaks the mapping, no more.
#[derive(Debug)]
pub struct Mapping<W> {
    words: NonNull<[W]>,
}

impl<W: Word> Mapping<W> {
    /// A mapping of the memory at `words`.
    ///
    /// # Safety
    ///
    /// `words` is aligned, non-dangling and valid for loads (and stores, if mapped so) of `W` from every CPU
    /// of this kernel until the mapping is unmapped, and all access by this kernel is through `W`. Other
    /// kernels may write it at any time.
    pub const unsafe fn new(words: NonNull<[W]>) -> Self {
        Self { words }
    }

    /// The mapped words.
    #[inline(always)]
    pub fn words(&self) -> &[W] {
        // SAFETY: `new` was promised validity for as long as this mapping exists; `W` is shared by design.
        unsafe { self.words.as_ref() }
    }

    /// Where the mapping lies, for an `unmap`.
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
    /// Not on a page boundary, or a length that is not a multiple of 8.
    Misaligned,
    /// No address space or page tables left.
    NoMemory,
    /// The platform's policy does not allow this memory to be mapped.
    NotAllowed,
}

impl core::fmt::Display for MapError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Misaligned => f.write_str("the memory is not on a page boundary, or not whole words"),
            Self::NoMemory => f.write_str("there is no memory left to map it"),
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
/// A mapping covers exactly `range` rounded down to whole words, write-back cached (on arm64 also inner shareable, as the fences here are), and keeps the promise of
/// [`Mapping::new`]. `map` refuses memory that this kernel uses for itself, be it named by a peer or not.
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
    /// Whether a page that a *peer* named may be mapped (SPEC H-18). Refuse what no peer has business with.
    fn peer_may_share(&self, page: PhysRange) -> bool;
}

/// Why a pool gave no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolError {
    /// The instance has no pool.
    NoPool,
    /// The pool has no such piece left.
    Exhausted,
}

impl core::fmt::Display for PoolError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::NoPool => f.write_str("the instance has no memory pool"),
            Self::Exhausted => f.write_str("the memory pool of the instance has no such piece left"),
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

/// The instance pools: memory set aside for one instance each.
///
/// # Implementation safety
///
/// `alloc` gives page-aligned memory of at least `len` bytes, in whole pages that nothing else uses until they are
/// freed. Peers map the pages whole: what `len` leaves of the last one must hold no secrets.
pub unsafe trait InstancePool {
    /// Takes `len` bytes, page-aligned, from the pool of `instance`. May sleep.
    fn alloc(&self, instance: InstanceId, len: u64) -> Result<PhysAddr, PoolError>;
    /// Gives back what `alloc` gave.
    ///
    /// # Safety
    ///
    /// `range` is what `alloc` gave for `instance`, given back once, and no longer mapped or used.
    unsafe fn free(&self, instance: InstanceId, range: PhysRange);
}

/// Runs the deferred work: the callbacks, outside the vector's own code.
pub trait DeferredWork {
    /// Has `Endpoint::run_deferred` called soon, on this CPU, once (or more often). Called with interrupts off, from the
    /// doorbell's interrupt **and from tasks**: a send, a poll, an attachment. So a kernel that runs the deferred work only behind
    /// the doorbell's vector would miss it: it also needs its idle loop, its tick or an interrupt to itself. Must not call it
    /// itself. A call that is still due need not be repeated.
    fn schedule(&self);
}

/// Whom an event is about, and between which two lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The peer.
    pub id: InstanceId,
    /// Its life, if one has been heard of.
    pub theirs: Option<Incarnation>,
    /// Our own life.
    pub ours: Incarnation,
}

/// What became of a peer or of the link with it (SPEC N-9, N-11, N-14). All are of the native link.
///
/// | event | from which call of ours | how often | what to do |
/// | --- | --- | --- | --- |
/// | `Began` | deferred work, poll | once for each life of the peer and each of ours, before its first message | forget what the former life of the peer was promised |
/// | `Answered` | deferred work, poll, `tick`, a send, `want_space` | once for each attachment that had to wait | send what was `Unanswered` |
/// | `Quarantined` | deferred work, poll | once for each life that breaks the protocol | report it to the operator; its next life is heard by itself |
/// | `Refused` | `tick`; with `want_space` also deferred work and poll | once for each attachment | a fault of this kernel: stop sending, report it |
/// | `InDoubt` | `tick` | once for each message | ask the peer whether it was handled, or do what is right in both cases |
/// | `Discarded` | `tick` | once for each range | send it again, if it is still wanted |
/// | `Unsettled` | `destroy_instance`, `follow`, a `join` that fails; `tick` if the region was made anew | once for each attachment, if anything is unsettled | as `InDoubt`, for each of them |
/// | `ReadDirectory` | deferred work, poll, `tick` | again each time that something is not explained, at most once a call | [`follow`](crate::Endpoint::follow) from a task |
/// | `Space` | deferred work, poll, `tick` | once for each `want_space` that gave false | send |
/// | `Suspect` | `tick` | once, until `Alive` or `Up` | tell the operator; the host decides whether the peer is dead (SPEC D-11) |
/// | `Alive` | `tick` | once for each `Suspect` that was wrong | nothing |
/// | `Up` | `tick` | once for each life of the peer, however often it is attached | nothing: **do not attach it again**; the link goes on by itself |
/// | `Dead` | `tick` | once for each life that says goodbye | nothing: what is sent waits for its next life |
///
/// Who waits, for space or for an answer, learns by these of everything that can end the waiting: `Space` and `Answered`, `Refused`, `Dead`,
/// `Up`, `Suspect`, and `Unsettled` with `ReadDirectory` if the region is gone. All but the first two need [`tick`](crate::Endpoint::tick).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// The peer's messages of this life of it follow; those of former ones have been delivered. Once for each life of ours.
    Began(Incarnation),
    /// The peer has answered this life of ours: sends are `Unanswered` no more.
    Answered,
    /// The peer broke the protocol: nothing is taken from it until it begins anew.
    Quarantined(Breach),
    /// The peer holds that we broke the protocol: it takes nothing more from this life of ours.
    Refused(Breach),
    /// A life of the peer ended while it handled this message of ours: perhaps it was handled. All before it were, none behind it.
    InDoubt {
        /// The message's number, as [`Endpoint::send`](crate::Endpoint::send) gave it.
        number: u64,
    },
    /// A new life of the peer gave our unread messages back unhandled, as it wished to.
    Discarded {
        /// Those with a number above this,
        after: u64,
        /// up to this one.
        to: u64,
    },
    /// The link with the peer ended: we detached, or its region was made anew. Whether these messages of ours were handled is
    /// not known.
    Unsettled {
        /// Those with a number above this,
        after: u64,
        /// up to this one.
        to: u64,
    },
    /// The peer says what the directory does not explain: it may have changed. Call [`Endpoint::follow`](crate::Endpoint::follow).
    ReadDirectory,
    /// There is space in the peer's lane, as was asked for by `want_space`.
    Space,
    /// The peer's heartbeat stands still.
    Suspect,
    /// The heartbeat of a peer that was suspect beats again.
    Alive,
    /// The peer's receiver lives as this incarnation, the first or another than before.
    Up(Incarnation),
    /// The peer said goodbye.
    Dead(Incarnation),
}

/// Sees regions and peers come and go. Called from the call that found out, with no lock held that anybody waits for: a
/// drain that is asked for meanwhile follows.
pub trait Observer {
    /// Something happened to a peer. [`PeerEvent`] says from which calls; may send, must not wait.
    fn peer_event(&self, peer: Peer, event: PeerEvent) {
        let _ = (peer, event);
    }
    /// Whether the directory gives `cpu` to `peer` now ([`Directory::has_cpu`](crate::directory::Directory::has_cpu)); `None` if
    /// there is no directory to ask: then `peer` has its doorbell CPU alone. While the entry changes: false; it is asked again. Asked when a peer has moved its doorbell
    /// (SPEC N-12), when a sender names a CPU, and of our own CPUs, in any context that may send: read, do not wait.
    fn peer_has_cpu(&self, peer: InstanceId, cpu: PhysCpuId) -> Option<bool> {
        let _ = (peer, cpu);
        None
    }
    /// No handler is registered for this message's type, perhaps any more: it is taken, and goes. Called where its handlers
    /// would be, under the same rules.
    fn unhandled(&self, message: &Message<'_>) {
        let _ = message;
    }
    /// The host tells this kernel to stop at once (SPEC N-15). In interrupt context or in a poll, and again each time until
    /// it has.
    fn stop(&self) {}
    /// The region of `instance` exists at `range`: for a kernel's resource tree (Linux: `/proc/iomem`; SPEC C-5).
    fn region_added(&self, instance: InstanceId, range: PhysRange) {
        let _ = (instance, range);
    }
    /// The region of `instance` at `range` is about to go.
    fn region_removed(&self, instance: InstanceId, range: PhysRange) {
        let _ = (instance, range);
    }
}

/// All that a kernel and its architecture supply.
pub trait Platform:
    Doorbell + ThisCpu + LocalInterrupts + PhysMemory + InstancePool + DeferredWork + Observer + Sync
{
}

impl<T> Platform for T where
    T: Doorbell + ThisCpu + LocalInterrupts + PhysMemory + InstancePool + DeferredWork + Observer + Sync
{
}
