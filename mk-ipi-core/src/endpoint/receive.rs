// SPDX-License-Identifier: MIT OR Apache-2.0
//! Receives messages: in the doorbell's interrupt, in a poll, and in the deferred work (SPEC chapters R and N).

use super::base::{Cpu, Endpoint, Instance, OnUnwind};
use super::poller::Deferred;
use crate::message::Message;
use crate::platform::Platform;
use crate::registry::Handler;
use crate::rfc_v2::{NotTaken, QueueError, Slot, SlotPolicy};
use crate::stats::Count;
use crate::sync::{fence, Ordering};
use mk_ipi_abi::rfc_v2::NoMessage;

/// Why a poll is not possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollError {
    /// The slots of this kernel have the overwrite policy, and are never emptied. A poll would find old messages again.
    NotExclusive,
    /// This kernel has no region.
    NoRegion,
    /// The CPU's [`index`](crate::platform::ThisCpu::index) is not below `CPUS`.
    BeyondCpus,
}

impl core::fmt::Display for PollError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::NotExclusive => {
                f.write_str("the slots of this kernel are not exclusive, and a poll needs exclusive slots")
            }
            Self::NoRegion => f.write_str("this kernel has no region"),
            Self::BeyondCpus => f.write_str("the index of this CPU is too large for the endpoint"),
        }
    }
}

impl core::error::Error for PollError {}

impl<
        P: Platform,
        H: Handler,
        const CPUS: usize,
        const HANDLERS: usize,
        const QUEUE: usize,
        const INSTANCES: usize,
    > Endpoint<P, H, CPUS, HANDLERS, QUEUE, INSTANCES>
{
    /// Handles the doorbell's interrupt. On RFC v2 it copies the message in this CPU's slot, if any, into the queue. It schedules
    /// the deferred work.
    ///
    /// Call it with interrupts off, from the vector's handler, after the interrupt was acknowledged. Do not call it in NMI
    /// context. It takes at most one message and calls no handler. Its time is bounded: it copies at most 256 bytes.
    pub fn on_interrupt(&self) {
        let Some(cpu) = self.cpu() else { return self.elsewhere.count(Count::BeyondCpus) };
        cpu.counters.count(Count::Interrupts);
        if !self.busy.wanting.is_empty() || !self.busy.opening.is_empty() {
            // A peer may have rung because our lane has space again, or because it has answered our hello.
            self.platform.schedule();
        }
        let Some(own) = self.own() else { return cpu.counters.count(Count::NoRegion) };
        match (own.link.slots(), own.link.own_region()) {
            (Some((slots, policy)), _) => drop(self.receive(cpu, slots, policy)),
            (_, Some(region)) => {
                // The deferred work will read all lanes. Until then no further doorbells are needed.
                region.disarm();
                self.wake(region);
            }
            _ => {}
        }
    }

    /// Looks for messages without an interrupt, so that a message whose doorbell was lost is found. On RFC v2 it reads the slot
    /// of this CPU. On the native link it reads the stop word, and schedules the deferred work.
    ///
    /// True if a message was found. Handlers run as deferred work. On RFC v2 the message stays in the slot while the queue is
    /// full, and the result is false. On the native link the result is always true, because only the deferred work looks. Do not
    /// call it in NMI context.
    pub fn poll(&self) -> Result<bool, PollError> {
        let interrupts = self.platform.disable();
        let found = self.poll_undisturbed();
        self.platform.restore(interrupts);
        found
    }

    fn poll_undisturbed(&self) -> Result<bool, PollError> {
        let cpu = self.cpu().ok_or(PollError::BeyondCpus)?;
        let own = self.own().ok_or(PollError::NoRegion)?;
        match (own.link.slots(), own.link.own_region()) {
            (Some((slots, SlotPolicy::Exclusive)), _) => Ok(self.receive(cpu, slots, SlotPolicy::Exclusive)),
            (Some(_), _) => Err(PollError::NotExclusive),
            (_, Some(region)) => {
                self.wake(region);
                Ok(true)
            }
            _ => Err(PollError::NoRegion),
        }
    }

    /// Moves the message in this CPU's slot, if any, to the queue of this CPU. True if a message was moved. Interrupts are off.
    fn receive(&self, cpu: &Cpu<QUEUE>, slots: &[P::Word], policy: SlotPolicy) -> bool {
        let Some(slot) = Slot::of_cpu(slots, self.platform.physical_id()) else {
            cpu.counters.count(Count::BeyondRegion);
            return false;
        };
        let taken = match cpu.queue.produce() {
            Ok(free) => {
                // If a message was left before, it is taken now, or it is gone. `left` is cleared before the message is taken,
                // because a nested interrupt may set it again.
                let left = cpu.left.swap(false, Ordering::Relaxed);
                let taken = free.fill(|copy| slot.take(policy, copy));
                if left && taken.is_err() {
                    cpu.left.store(true, Ordering::Relaxed);
                }
                taken
            }
            Err(QueueError::Held) => {
                cpu.counters.count(Count::Nested);
                return self.leave(cpu, policy, slot);
            }
            Err(QueueError::Full) => return self.leave(cpu, policy, slot),
        };
        cpu.counters.count(match taken {
            Ok(()) => Count::Received,
            Err(NotTaken::Nothing(nothing)) => nothing_found(nothing),
            Err(NotTaken::Overwritten) => Count::Overwritten,
        });
        if taken.is_ok() {
            self.platform.schedule();
        }
        taken.is_ok()
    }

    /// Leaves the message in its slot until the queue has room (SPEC R-6). With the overwrite policy the next message may
    /// overwrite it before that. Returns false.
    fn leave(&self, cpu: &Cpu<QUEUE>, policy: SlotPolicy, slot: Slot<'_, P::Word>) -> bool {
        if let Err(nothing) = slot.peek() {
            cpu.counters.count(nothing_found(nothing));
            return false;
        }
        if !cpu.left.swap(true, Ordering::Relaxed) {
            cpu.counters.count(Count::Left);
        } else if policy == SlotPolicy::Overwrite {
            // The message that was left before was overwritten.
            cpu.counters.count(Count::Dropped);
        }
        self.platform.schedule();
        false
    }

    /// The deferred work: gives at most `QUEUE` waiting messages to their handlers. On RFC v2 it handles the messages of this CPU
    /// only.
    ///
    /// Call it on the CPU that scheduled it, outside of the interrupt handler. Interrupts may be on. It must not migrate.
    /// A call that interrupts another one on its CPU does nothing; the other one handles its messages too.
    pub fn run_deferred(&self) -> Deferred {
        self.run(self.own().as_deref(), true)
    }

    /// The same as [`run_deferred`](Self::run_deferred) on the native link, for a kernel that polls from time to time. It does
    /// not request doorbells when no message is left, and leaves ARMED as it is. It schedules another run only if another CPU
    /// tried to read the lanes meanwhile. For constant polling use a [`poller`](Self::poller).
    pub fn drain(&self) -> Deferred {
        self.run(self.own().as_deref(), false)
    }

    fn run(&self, own: Option<&Instance<P>>, arm: bool) -> Deferred {
        let Some(cpu) = self.cpu() else { return Deferred::NOTHING };
        match own.and_then(|own| own.link.own_region()) {
            Some(region) => self.run_lanes(cpu, region, arm),
            None => self.run_queue(cpu),
        }
    }

    /// Gives the messages in the queue of this CPU to their handlers (RFC v2).
    fn run_queue(&self, cpu: &Cpu<QUEUE>) -> Deferred {
        let mut messages = 0usize;
        let mut more = false;
        while let Some(mut consumer) = cpu.queue.consume() {
            while messages < QUEUE && consumer.pop(|m| self.dispatch(cpu, &m.message())) {
                messages = messages.wrapping_add(1);
            }
            drop(consumer);
            // Look again after the consumer's side was released. Another run may have found the side held, and has left its
            // message to us. SYNC POINT: queue-consumer (fence)
            fence(Ordering::SeqCst);
            more = !cpu.queue.is_empty() || self.fetch_left(cpu);
            if !more || messages >= QUEUE {
                break;
            }
        }
        self.maintain_lanes();
        if more {
            self.schedule();
        }
        Deferred { messages, more }
    }

    /// Fetches the message that was left in the slot. True if the message is in the queue now, or was left again.
    fn fetch_left(&self, cpu: &Cpu<QUEUE>) -> bool {
        let interrupts = self.platform.disable();
        // An interrupt may have fetched the message meanwhile.
        let left = cpu.left.swap(false, Ordering::Relaxed);
        let slots = self.own();
        let found = match slots.as_deref().and_then(|own| own.link.slots()).filter(|_| left) {
            Some((slots, policy)) => self.receive(cpu, slots, policy) || cpu.left.load(Ordering::Relaxed),
            None => false,
        };
        self.platform.restore(interrupts);
        found
    }

    pub(super) fn dispatch(&self, cpu: &Cpu<QUEUE>, message: &Message<'_>) {
        cpu.enter_callback();
        let unwound = OnUnwind(|| {
            cpu.leave_callback();
            self.schedule();
        });
        let called = self.registry.dispatch(message);
        if called == 0 {
            self.platform.unhandled(message);
        }
        unwound.defuse();
        cpu.leave_callback();
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
