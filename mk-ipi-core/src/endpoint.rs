// SPDX-License-Identifier: MIT OR Apache-2.0
//! One kernel's end of every link: send, receive, handlers, instances.

use crate::instance::{
    AddError, DestroyError, Instance, InstanceConfig, InstanceRef, InstanceTable, LookupError,
};
use crate::message::Message;
use crate::platform::{DoorbellError, Platform};
use crate::queue::{Queue, QueueError};
use crate::registry::{Handle, Handler, Registry, RegistryFull, UnregisterError};
use crate::slot::{Occupied, Outgoing, Slot, Unsendable, Untaken};
use crate::stats::{Count, Counters, Stats};
use crate::sync::{array_of, const_unless_loom, fence, AtomicBool, AtomicU32, AtomicU64, Ordering};
use mk_ipi_abi::rfc_v2::{check_data_size, Claim, NoMessage};
use mk_ipi_abi::{Errno, Incarnation, InstanceId, MessageType, PhysCpuId, PhysRange, Vector};

/// Why a message was not sent. Unless it says otherwise, nothing was written and nothing lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The payload has no bytes, which this generation cannot carry (SPEC H-4).
    Empty,
    /// The payload is longer than 256 bytes.
    TooLong,
    /// This endpoint was not told who it is ([`Endpoint::identify`]).
    NoIdentity,
    /// This CPU's physical id does not fit the wire's field.
    SenderBeyondField,
    /// The instance is not in the table.
    Instance(LookupError),
    /// The instance has no region.
    NoRegion,
    /// The CPU named is not one of the instance's.
    NotItsCpu(PhysCpuId),
    /// The exclusive slot is occupied: by an unread message, or by another sender. Try again; now and then that
    /// rings for the unread message, so that a doorbell that was lost does not close the slot (SPEC R-7).
    Busy,
    /// The claim on the slot was cleared while the message was stored, and it was not published: the host holds
    /// this incarnation dead.
    ClaimLost,
    /// The doorbell cannot reach the CPU.
    Unreachable(DoorbellError),
    /// The message **was** stored, but the doorbell did not ring: [`Endpoint::ring`], the next doorbell to that CPU,
    /// or a poll there, delivers it.
    NotRung(DoorbellError),
}

impl SendError {
    /// As the C call (SPEC C-2), and for what it does not know the nearest number.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Empty | Self::TooLong | Self::NoIdentity | Self::NotItsCpu(_) => Errno::EINVAL,
            Self::SenderBeyondField => Errno::ERANGE,
            Self::Instance(e) => e.errno(),
            Self::NoRegion => Errno::ENODEV,
            Self::Busy => Errno::EBUSY,
            Self::ClaimLost => Errno::ESTALE,
            Self::Unreachable(e) | Self::NotRung(e) => e.errno(),
        }
    }
}

impl From<Unsendable> for SendError {
    fn from(e: Unsendable) -> Self {
        match e {
            Unsendable::Empty => Self::Empty,
            Unsendable::TooLong => Self::TooLong,
            Unsendable::SenderBeyondField => Self::SenderBeyondField,
        }
    }
}

/// Why a poll is not possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollError {
    /// This kernel's slots admit C senders: they are never emptied, so a poll would find old messages again.
    NotExclusive,
    /// This kernel has no region.
    NoRegion,
    /// The CPU's [`index`](crate::platform::ThisCpu::index) is not below `CPUS`.
    BeyondCpus,
}

/// A sender that finds a message unread rings for it again once in so many tries (SPEC R-7).
const RING_AGAIN: u64 = 64;

/// What is left after a run of the deferred work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deferred {
    /// Messages that were given to handlers.
    pub messages: usize,
    /// Whether the budget ended the run; it was scheduled again.
    pub more: bool,
}

/// What belongs to one CPU. 128 bytes apart: prefetchers fetch lines in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Cpu<const QUEUE: usize> {
    queue: Queue<QUEUE>,
    /// A message was left in this CPU's exclusive slot because the queue was full.
    left: AtomicBool,
    /// How many callbacks this CPU is inside.
    callbacks: AtomicU32,
    counters: Counters,
}

/// One kernel's end of every link.
///
/// `P`: the kernel and its architecture. `H`: what a handler is, for example `&'static (dyn Fn(&Message) +
/// Send + Sync)`. `CPUS`: most CPUs of this kernel (its [`ThisCpu::index`](crate::platform::ThisCpu::index) is
/// below it) and of any instance it sends to. `HANDLERS`: most handlers. `QUEUE`: messages that can wait for
/// the deferred work on one CPU, a power of two; that is also the budget of one run.
///
/// All methods take `&self` and may be called from any CPU at any time, unless they say otherwise.
#[derive(Debug)]
pub struct Endpoint<
    P: Platform,
    H,
    const CPUS: usize = 8,
    const HANDLERS: usize = 32,
    const QUEUE: usize = 16,
> {
    platform: P,
    /// A [`Claim`]'s `data_size` that names us; 0 until `identify`.
    identity: AtomicU64,
    instances: InstanceTable<P::Word, CPUS>,
    registry: Registry<H, HANDLERS>,
    cpus: [Cpu<QUEUE>; CPUS],
    /// Of CPUs whose index is not below `CPUS`.
    elsewhere: Counters,
}

impl<P: Platform, H: Handler, const CPUS: usize, const HANDLERS: usize, const QUEUE: usize>
    Endpoint<P, H, CPUS, HANDLERS, QUEUE>
{
    const_unless_loom! {
        /// An endpoint that knows nobody, not even itself. It is large: keep it in a `static`.
        pub fn new(platform: P) -> Self {
            Self {
                platform,
                identity: AtomicU64::new(0),
                instances: InstanceTable::new(),
                registry: Registry::new(),
                cpus: array_of![
                    Cpu {
                        queue: Queue::new(),
                        left: AtomicBool::new(false),
                        callbacks: AtomicU32::new(0),
                        counters: Counters::new(),
                    };
                    CPUS
                ],
                elsewhere: Counters::new(),
            }
        }
    }

    /// Says who this kernel is. Until then interrupts are ignored and sends refused.
    ///
    /// Peers may have sent before: looks into this CPU's slot. Every other CPU of this kernel calls
    /// [`poll`](Self::poll) once after this, and after our own instance was added anew.
    pub fn identify(&self, instance: InstanceId, incarnation: Incarnation) {
        self.identity.store(Claim { instance, incarnation }.to_data_size(), Ordering::Release);
        // Without a region, or where slots are never emptied, there is nothing to find.
        let _ = self.poll();
    }

    /// Who this kernel is, once told.
    pub fn identity(&self) -> Option<(InstanceId, Incarnation)> {
        let claim = Claim::from_data_size(self.identity.load(Ordering::Acquire))?;
        Some((claim.instance, claim.incarnation))
    }

    /// The platform it was made with.
    pub const fn platform(&self) -> &P {
        &self.platform
    }

    fn cpu(&self) -> Option<&Cpu<QUEUE>> {
        self.cpus.get(self.platform.index())
    }

    fn count(&self, what: Count) {
        self.cpu().map_or(&self.elsewhere, |cpu| &cpu.counters).count(what);
    }

    /// The counters, summed over this kernel's CPUs.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        stats.add(&self.elsewhere);
        for cpu in &self.cpus {
            stats.add(&cpu.counters);
        }
        stats
    }

    // ---- handlers (SPEC chapter C) ----

    /// Has `handler` called for each message of type `msg_type`. Several may serve one type.
    pub fn register(&self, msg_type: MessageType, handler: H) -> Result<Handle, RegistryFull> {
        self.registry.register(msg_type, handler)
    }

    /// Ends a registration: when this returns `Ok`, the handler is not running and will not run again.
    ///
    /// Waits for callbacks on other CPUs, so call it where waiting is allowed, and hold no lock that the handler
    /// takes. Refused on a CPU that is inside a callback, even one that was preempted there: try again.
    pub fn unregister(&self, handle: Handle) -> Result<(), UnregisterError> {
        if self.cpu().is_some_and(|c| c.callbacks.load(Ordering::Relaxed) != 0) {
            return Err(UnregisterError::InCallback);
        }
        self.registry.unregister(handle, || self.platform.relax())
    }

    // ---- instances (SPEC chapter C) ----

    /// Adds an instance and makes its region from its pool: zeroed, mapped, then published. May sleep.
    ///
    /// Gives where the region lies: 272 bytes for each slot.
    pub fn create_instance(&self, config: &InstanceConfig<'_>) -> Result<PhysRange, AddError> {
        self.instances.create(&self.platform, config)
    }

    /// Adds an instance whose region another kernel made, or that has none. May sleep.
    pub fn attach_instance(
        &self,
        config: &InstanceConfig<'_>,
        region: Option<PhysRange>,
    ) -> Result<(), AddError> {
        self.instances.attach(&self.platform, config, region)
    }

    /// The instance, held against destruction.
    pub fn instance(&self, id: InstanceId) -> Result<InstanceRef<'_, P::Word, CPUS>, LookupError> {
        self.instances.get(id).map(InstanceRef)
    }

    /// Takes an instance out of the table, unmaps its region and gives back what came from its pool. May sleep.
    ///
    /// Never waits: while senders use the instance it is closed to new ones and `InUse`; call again.
    pub fn destroy_instance(&self, id: InstanceId) -> Result<(), DestroyError> {
        self.instances.destroy(&self.platform, id)
    }

    /// Empties every slot that a dead kernel had claimed; gives how many (SPEC X-5).
    ///
    /// For the host, when that incarnation's CPUs have stopped for good: a kernel that still ran could write
    /// into the message of the slot's next owner.
    pub fn clear_claims(&self, dead: InstanceId, incarnation: Incarnation) -> usize {
        self.instances.clear_claims(Claim { instance: dead, incarnation })
    }

    // ---- send (SPEC chapter S) ----

    /// Sends `payload`, 1 to 256 bytes, to the doorbell CPU of `to`.
    ///
    /// Neither sleeps nor waits but for the doorbell, bounded; may be called in interrupt context and in callbacks,
    /// not from NMI context.
    pub fn send(&self, to: InstanceId, msg_type: MessageType, payload: &[u8]) -> Result<(), SendError> {
        self.send_from_here(to, None, msg_type, payload)
    }

    /// As [`send`](Self::send), to one CPU of `to`.
    pub fn send_to_cpu(
        &self,
        to: InstanceId,
        cpu: PhysCpuId,
        msg_type: MessageType,
        payload: &[u8],
    ) -> Result<(), SendError> {
        self.send_from_here(to, Some(cpu), msg_type, payload)
    }

    fn send_from_here(
        &self,
        to: InstanceId,
        cpu: Option<PhysCpuId>,
        msg_type: MessageType,
        payload: &[u8],
    ) -> Result<(), SendError> {
        // Interrupts off: the CPU stays the same, and a claimed slot is published without delay.
        let interrupts = self.platform.disable();
        let sent = self.send_undisturbed(to, cpu, msg_type, payload);
        self.count(match sent {
            Ok(()) => Count::Sent,
            Err(SendError::Busy) => Count::Busy,
            Err(SendError::NotRung(_)) => Count::NotRung,
            Err(SendError::ClaimLost) => Count::ClaimLost,
            Err(_) => Count::Refused,
        });
        self.platform.restore(interrupts);
        sent
    }

    fn send_undisturbed(
        &self,
        to: InstanceId,
        cpu: Option<PhysCpuId>,
        msg_type: MessageType,
        payload: &[u8],
    ) -> Result<(), SendError> {
        let message = Outgoing::new(self.platform.physical_id(), msg_type, payload)?;
        let me = Claim::from_data_size(self.identity.load(Ordering::Acquire)).ok_or(SendError::NoIdentity)?;
        let instance = self.instances.get(to).map_err(SendError::Instance)?;
        let cpu = cpu.unwrap_or(instance.doorbell_cpu);
        if !instance.cpus().contains(&cpu) {
            return Err(SendError::NotItsCpu(cpu));
        }
        // Each of an instance's CPUs has a slot (`Instance::new`), unless there is no region.
        let slot = instance.words().and_then(|w| Slot::of_cpu(w, cpu)).ok_or(SendError::NoRegion)?;
        self.platform.check(cpu, instance.vector).map_err(SendError::Unreachable)?;
        match instance.policy {
            Occupied::Overwrite => slot.overwrite(&message),
            Occupied::Exclusive => {
                let claimed = slot.claim(me).map_err(|found| self.busy(found, cpu, instance.vector))?;
                claimed.publish(&message).map_err(|_| SendError::ClaimLost)?;
            }
        }
        self.platform.ring(cpu, instance.vector).map_err(SendError::NotRung)
    }

    /// The slot is occupied. If by a message, its doorbell may have had no effect: ring again, but rarely.
    fn busy(&self, found: u64, cpu: PhysCpuId, vector: Vector) -> SendError {
        let tries = self.cpu().map_or(0, |cpu| cpu.counters.get(Count::Busy));
        if check_data_size(found).is_ok() && tries % RING_AGAIN == RING_AGAIN - 1 {
            // If it fails, the next try comes.
            let _ = self.platform.ring(cpu, vector);
        }
        SendError::Busy
    }

    /// Rings the doorbell CPU of `to` once more, without a message: after [`SendError::NotRung`].
    pub fn ring(&self, to: InstanceId) -> Result<(), SendError> {
        let instance = self.instances.get(to).map_err(SendError::Instance)?;
        self.platform.ring(instance.doorbell_cpu, instance.vector).map_err(SendError::Unreachable)
    }

    // ---- receive (SPEC chapter R) ----

    /// The doorbell's interrupt: copies the message in this CPU's slot, if any, and schedules the deferred work.
    ///
    /// Call it with interrupts off, from the vector's handler, after the interrupt was acknowledged. Takes at
    /// most one message, calls no handler, and is bounded: one copy of 256 bytes. Not from NMI context.
    pub fn on_interrupt(&self) {
        let Some(cpu) = self.cpu() else { return self.elsewhere.count(Count::BeyondCpus) };
        cpu.counters.count(Count::Interrupts);
        match self.own() {
            Some(own) => drop(self.receive(cpu, &own)),
            None => cpu.counters.count(Count::NoRegion),
        }
    }

    /// Looks into this CPU's slot without an interrupt: what a lost doorbell left there is received now.
    ///
    /// True if a message was taken; its handlers run as deferred work. While that is behind, the message stays in
    /// the slot and this is false. For this CPU only; not from NMI context.
    pub fn poll(&self) -> Result<bool, PollError> {
        let interrupts = self.platform.disable();
        let found = match (self.cpu(), self.own()) {
            (Some(cpu), Some(own)) if own.policy == Occupied::Exclusive => Ok(self.receive(cpu, &own)),
            (None, _) => Err(PollError::BeyondCpus),
            (_, Some(_)) => Err(PollError::NotExclusive),
            (_, None) => Err(PollError::NoRegion),
        };
        self.platform.restore(interrupts);
        found
    }

    /// Our own instance, if we know who we are and have a region.
    fn own(&self) -> Option<crate::published::Ref<'_, Instance<P::Word, CPUS>>> {
        let (me, _) = self.identity()?;
        self.instances.get(me).ok().filter(|own| own.words().is_some())
    }

    /// Moves the message in this CPU's slot, if any, to its queue. Interrupts are off.
    fn receive(&self, cpu: &Cpu<QUEUE>, own: &Instance<P::Word, CPUS>) -> bool {
        let slot = own.words().and_then(|words| Slot::of_cpu(words, self.platform.physical_id()));
        let Some(slot) = slot else {
            cpu.counters.count(Count::BeyondRegion);
            return false;
        };
        let taken = match cpu.queue.produce() {
            Ok(free) => free.fill(|copy| slot.take(own.policy, copy)),
            Err(QueueError::Held) => {
                cpu.counters.count(Count::Nested);
                return self.leave(cpu, own, slot);
            }
            Err(QueueError::Full) => return self.leave(cpu, own, slot),
        };
        cpu.counters.count(match taken {
            Ok(()) => Count::Received,
            Err(Untaken::Nothing(nothing)) => nothing_found(nothing),
            Err(Untaken::Overwritten) => Count::Overwritten,
        });
        if taken.is_ok() {
            self.platform.schedule();
        }
        taken.is_ok()
    }

    /// The overflow policy (SPEC R-6): an exclusive slot keeps its message until there is room; from a slot
    /// that may be overwritten the newest is dropped.
    fn leave(&self, cpu: &Cpu<QUEUE>, own: &Instance<P::Word, CPUS>, slot: Slot<'_, P::Word>) -> bool {
        match (slot.peek(), own.policy) {
            (Ok(_), Occupied::Exclusive) => {
                if !cpu.left.swap(true, Ordering::Relaxed) {
                    cpu.counters.count(Count::Left);
                }
                self.platform.schedule();
            }
            (Ok(_), Occupied::Overwrite) => cpu.counters.count(Count::Dropped),
            (Err(nothing), _) => cpu.counters.count(nothing_found(nothing)),
        }
        false
    }

    /// The deferred work: gives waiting messages of this CPU to their handlers, `QUEUE` at most.
    ///
    /// Call it on the CPU that scheduled it, outside the vector's code; interrupts may be on. Must not migrate.
    /// One that interrupts another on its CPU does nothing: the other one sees to what has come.
    pub fn run_deferred(&self) -> Deferred {
        let mut messages = 0usize;
        let mut more = false;
        let Some(cpu) = self.cpu() else { return Deferred { messages, more } };
        while let Some(mut consumer) = cpu.queue.consume() {
            while messages < QUEUE && consumer.pop(|m| self.dispatch(cpu, m)) {
                messages = messages.wrapping_add(1);
            }
            drop(consumer);
            // Given up, then looked once more: a run that found the consumer's side held has left its message
            // to us. SYNC POINT: queue-consumer (fence)
            fence(Ordering::SeqCst);
            more = !cpu.queue.is_empty() || self.fetch_left(cpu);
            if !more || messages >= QUEUE {
                break;
            }
        }
        if more {
            let interrupts = self.platform.disable();
            self.platform.schedule();
            self.platform.restore(interrupts);
        }
        Deferred { messages, more }
    }

    /// Takes the message that was left in the slot for want of room. True if it is in the queue now, or left again.
    fn fetch_left(&self, cpu: &Cpu<QUEUE>) -> bool {
        cpu.left.swap(false, Ordering::Relaxed)
            && (self.poll() == Ok(true) || cpu.left.load(Ordering::Relaxed))
    }

    fn dispatch(&self, cpu: &Cpu<QUEUE>, message: &Message) {
        cpu.callbacks.fetch_add(1, Ordering::Relaxed);
        let called = self.registry.dispatch(message);
        cpu.callbacks.fetch_sub(1, Ordering::Relaxed);
        cpu.counters.count(if called == 0 { Count::Unhandled } else { Count::Handled });
    }
}

const fn nothing_found(nothing: NoMessage) -> Count {
    match nothing {
        NoMessage::Empty => Count::Empty,
        NoMessage::Claimed(_) => Count::Claimed,
        NoMessage::BadSize(_) => Count::BadSize,
    }
}
