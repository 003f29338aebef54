// SPDX-License-Identifier: MIT OR Apache-2.0
//! The type [`Endpoint`]: its fields, the identity, and the registration of handlers.

use super::busy::Busy;
use super::ringing::Ringing;
use crate::instance::{InstanceRef, InstanceTable, LookupError};
use crate::native::Receiver;
#[cfg(not(loom))]
use crate::place::fill;
use crate::platform::Platform;
use crate::published::Ref;
use crate::registry::{Handle, Handler, Registry, RegistryFull, UnregisterError};
use crate::rfc_v2::Queue;
use crate::stats::{Count, Counters, Stats};
use crate::sync::{array_of, const_unless_loom, AtomicBool, AtomicU32, AtomicU64, Ordering};
#[cfg(not(loom))]
use core::mem::MaybeUninit;
use mk_ipi_abi::rfc_v2::Claim;
use mk_ipi_abi::{Incarnation, InstanceId, MessageType};

pub(super) type Instance<P> = crate::instance::Instance<<P as crate::platform::PhysMemory>::Word>;

/// The state of one CPU. Aligned to 128 bytes, because prefetchers fetch cache lines in pairs.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Cpu<const QUEUE: usize> {
    pub(super) queue: Queue<QUEUE>,
    /// Whether a message was left in this CPU's slot because the queue was full or in use.
    pub(super) left: AtomicBool,
    /// How many callbacks this CPU is running. A pass over the lanes counts as one from its first callback to its end. A poller
    /// of this CPU counts as one for as long as it exists.
    pub(super) callbacks: AtomicU32,
    pub(super) ringing: Ringing,
    /// This CPU's physical id, plus one; 0 if it is not cached. It is cached because reading it takes longer than a send. When
    /// `follow` has applied a change of the directory, it forgets the id.
    pub(super) physical: AtomicU64,
    pub(super) counters: Counters,
}

impl<const QUEUE: usize> Cpu<QUEUE> {
    const_unless_loom! {
        fn new() -> Self {
            Self {
                queue: Queue::new(),
                left: AtomicBool::new(false),
                callbacks: AtomicU32::new(0),
                ringing: Ringing::new(),
                physical: AtomicU64::new(0),
                counters: Counters::new(),
            }
        }
    }

    // Only this CPU changes the count. An interrupt handler that changes it restores the former value.
    #[inline(always)]
    pub(super) fn enter_callback(&self) {
        self.callbacks.store(self.callbacks.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    #[inline(always)]
    pub(super) fn leave_callback(&self) {
        self.callbacks.store(self.callbacks.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Relaxed);
    }
}

/// Calls the function when this value is dropped, unless [`defuse`](Self::defuse) was called. It is needed if a handler panics
/// and the panic unwinds. A panic unwinds only in ordinary programs, for example in tests, and not in a kernel.
pub(super) struct OnUnwind<F: Fn()>(pub(super) F);

impl<F: Fn()> OnUnwind<F> {
    #[inline(always)]
    pub(super) fn defuse(self) {
        core::mem::forget(self);
    }
}

impl<F: Fn()> Drop for OnUnwind<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// A kernel's end of all its links to other kernels.
///
/// - `P`: the platform, that is the kernel and its architecture.
/// - `H`: the type of a handler, for example `&'static (dyn Fn(&Message) + Send + Sync)`.
/// - `CPUS`: the largest number of CPUs of this kernel. Each [`ThisCpu::index`](crate::platform::ThisCpu::index) is below it.
///   CPUs of other kernels do not count.
/// - `HANDLERS`: the largest number of registered handlers.
/// - `QUEUE`: one run of the deferred work handles at most this number of messages, a power of two. On RFC v2 this is also how
///   many messages can wait on one CPU for the deferred work.
/// - `INSTANCES`: the ids of all instances in the table are below this number. At most 256.
///
/// All methods take `&self` and may be called from any CPU at any time, unless they say otherwise.
#[derive(Debug)]
pub struct Endpoint<
    P: Platform,
    H,
    const CPUS: usize = 8,
    const HANDLERS: usize = 32,
    const QUEUE: usize = 16,
    const INSTANCES: usize = 256,
> {
    pub(super) platform: P,
    /// Our [`Claim`] as a `data_size`; 0 while we have no identity.
    pub(super) identity: AtomicU64,
    pub(super) instances: InstanceTable<P::Word, INSTANCES>,
    pub(super) registry: Registry<H, HANDLERS>,
    /// The receiver's end of our own region, if that is native.
    pub(super) receiver: Receiver<INSTANCES>,
    /// Whether a new life of ours discards the messages that our former lives left unread.
    pub(super) discard: AtomicBool,
    /// The doorbell of a new life of ours, as a [`Bell`](mk_ipi_abi::native::Bell) word; 0 for the doorbell in the directory.
    pub(super) bell: AtomicU64,
    /// Instances that need work: we wait for their answer, or for space in our lane to them; our lane has unflushed posts; or a
    /// word of theirs contradicts our copy of the directory.
    pub(super) busy: Busy,
    pub(super) cpus: [Cpu<QUEUE>; CPUS],
    /// For each instance the life that was reported last, as a `LIFE` word. After a new attachment the same life is not reported
    /// again, unless no life of ours has used our lane in the region before.
    pub(super) lives: [AtomicU64; INSTANCES],
    /// The generation of the directory that was followed last, and in the upper half the value that `attachments` had then.
    pub(super) followed: AtomicU64,
    /// How often an instance was added. If this has changed, `follow` reads the whole directory again, because the caller that
    /// added an instance may have used a directory entry that was out of date.
    pub(super) attachments: AtomicU32,
    /// Whether a CPU follows the directory now.
    pub(super) following: AtomicBool,
    /// How many doorbells are about to be rung by CPUs whose index is not below `CPUS`. Each other CPU has its own count, in
    /// `Cpu::ringing`.
    pub(super) ringing_elsewhere: Ringing,
    /// Counters of CPUs whose index is not below `CPUS`.
    pub(super) elsewhere: Counters,
}

impl<
        P: Platform,
        H: Handler,
        const CPUS: usize,
        const HANDLERS: usize,
        const QUEUE: usize,
        const INSTANCES: usize,
    > Endpoint<P, H, CPUS, HANDLERS, QUEUE, INSTANCES>
{
    const_unless_loom! {
        /// An endpoint without an identity and without instances. It is large: keep it in a `static`.
        pub fn new(platform: P) -> Self {
            Self {
                platform,
                identity: AtomicU64::new(0),
                instances: InstanceTable::new(),
                registry: Registry::new(),
                receiver: Receiver::new(),
                discard: AtomicBool::new(false),
                bell: AtomicU64::new(0),
                busy: Busy::new(),
                cpus: array_of![Cpu::new(); CPUS],
                lives: array_of![AtomicU64::new(0); INSTANCES],
                followed: AtomicU64::new(0),
                attachments: AtomicU32::new(0),
                following: AtomicBool::new(false),
                ringing_elsewhere: Ringing::new(),
                elsewhere: Counters::new(),
            }
        }
    }

    /// The same as [`new`](Self::new), but in memory that is not a `static` of Rust. The memory is initialized in place, because
    /// an endpoint does not fit on a stack.
    #[cfg(not(loom))]
    pub fn new_in(place: &mut MaybeUninit<Self>, platform: P) -> &Self {
        let at = place.as_mut_ptr();
        // SAFETY: `at` is valid for writes of all fields. All fields are written here: the pattern below names each of them.
        unsafe {
            (&raw mut (*at).platform).write(platform);
            (&raw mut (*at).identity).write(AtomicU64::new(0));
            InstanceTable::new_in(&raw mut (*at).instances);
            Registry::new_in(&raw mut (*at).registry);
            Receiver::new_in(&raw mut (*at).receiver);
            (&raw mut (*at).discard).write(AtomicBool::new(false));
            (&raw mut (*at).bell).write(AtomicU64::new(0));
            (&raw mut (*at).busy).write(Busy::new());
            fill(&raw mut (*at).cpus, Cpu::new);
            fill(&raw mut (*at).lives, || AtomicU64::new(0));
            (&raw mut (*at).followed).write(AtomicU64::new(0));
            (&raw mut (*at).attachments).write(AtomicU32::new(0));
            (&raw mut (*at).following).write(AtomicBool::new(false));
            (&raw mut (*at).ringing_elsewhere).write(Ringing::new());
            (&raw mut (*at).elsewhere).write(Counters::new());
        }
        // SAFETY: all fields were written.
        let made = unsafe { place.assume_init_ref() };
        let Self {
            platform: _,
            identity: _,
            instances: _,
            registry: _,
            receiver: _,
            discard: _,
            bell: _,
            busy: _,
            cpus: _,
            lives: _,
            followed: _,
            attachments: _,
            following: _,
            ringing_elsewhere: _,
            elsewhere: _,
        } = made;
        made
    }

    pub(super) fn set_identity(&self, me: Option<Claim>) {
        self.identity.store(me.map_or(0, Claim::to_data_size), Ordering::Release);
    }

    /// The instance and life of this kernel, after [`identify`](Self::identify).
    pub fn identity(&self) -> Option<(InstanceId, Incarnation)> {
        let claim = Claim::from_data_size(self.identity.load(Ordering::Acquire))?;
        Some((claim.instance, claim.incarnation))
    }

    /// The platform that was given to [`new`](Self::new) or `new_in`.
    pub const fn platform(&self) -> &P {
        &self.platform
    }

    pub(super) fn cpu(&self) -> Option<&Cpu<QUEUE>> {
        self.cpus.get(self.platform.index())
    }

    #[inline(always)]
    pub(super) fn counters(&self) -> &Counters {
        self.cpu().map_or(&self.elsewhere, |cpu| &cpu.counters)
    }

    pub(super) fn count(&self, what: Count) {
        self.counters().count(what);
    }

    /// The counters, summed over all of this kernel's CPUs, also those whose index is not below `CPUS`.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        stats.add(&self.elsewhere);
        for cpu in &self.cpus {
            stats.add(&cpu.counters);
        }
        stats
    }

    // ---- handlers (SPEC chapter C) ----

    /// Registers `handler` for messages of type `msg_type`. A type may have several handlers.
    pub fn register(&self, msg_type: MessageType, handler: H) -> Result<Handle, RegistryFull> {
        self.registry.register(msg_type, handler)
    }

    /// The handle with the bits that [`Handle::to_bits`] returned. Any number is safe here: [`unregister`](Self::unregister)
    /// refuses a number that stands for no registration.
    pub fn handle_from_bits(&self, bits: u64) -> Handle {
        self.registry.handle_from_bits(bits)
    }

    /// Ends a registration: when this returns `Ok`, the handler is not running and will not run again.
    ///
    /// Waits for callbacks on other CPUs, so call it where waiting is allowed, and hold no lock that the handler takes. It is
    /// refused on a CPU that runs a callback, even if that callback is preempted, and on a CPU that has a
    /// [`Poller`](crate::Poller). Then try again, or call it on another CPU.
    pub fn unregister(&self, handle: Handle) -> Result<(), UnregisterError> {
        // Interrupts are off, so that the task does not migrate between the reads of the CPU's index and of its count.
        let interrupts = self.platform.disable();
        let in_callback = self.cpu().is_some_and(|c| c.callbacks.load(Ordering::Relaxed) != 0);
        self.platform.restore(interrupts);
        if in_callback {
            return Err(UnregisterError::InCallback);
        }
        self.registry.unregister(handle, || self.platform.relax())
    }

    /// A reference to the instance `id`. The instance cannot be destroyed while the reference exists.
    pub fn instance(&self, id: InstanceId) -> Result<InstanceRef<'_, P::Word>, LookupError> {
        self.instances.get(id).map(InstanceRef)
    }

    /// Our own instance, if we have an identity and a region.
    pub(super) fn own(&self) -> Option<Ref<'_, Instance<P>>> {
        let (me, _) = self.identity()?;
        self.instances.get(me).ok().filter(|own| own.has_region())
    }

    pub(super) fn schedule(&self) {
        let interrupts = self.platform.disable();
        self.platform.schedule();
        self.platform.restore(interrupts);
    }
}
