// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sends one message: chooses the link, and checks the message (SPEC chapters S and N).

use super::base::{Endpoint, Instance};
use super::error::SendError;
use super::ring::Context;
use crate::instance::InstanceRef;
use crate::link::Link;
use crate::native::{Sender, Unsent};
use crate::platform::Platform;
use crate::registry::Handler;
use crate::rfc_v2::{Outgoing, Slot, SlotPolicy};
use crate::stats::Count;
use crate::sync::{AtomicU64, Ordering};
use mk_ipi_abi::rfc_v2::{check_data_size, Claim};
use mk_ipi_abi::{InstanceId, MessageType, PhysCpuId, Vector};

/// A CPU counts its sends that find a slot occupied, for all slots together. One in this number of them rings again, if the slot
/// holds a message (SPEC R-7). It is a prime number, so that a CPU that tries fewer slots than this in turn rings again for each
/// of them.
const RING_AGAIN: u64 = 67;

impl<
        P: Platform,
        H: Handler,
        const CPUS: usize,
        const HANDLERS: usize,
        const QUEUE: usize,
        const INSTANCES: usize,
    > Endpoint<P, H, CPUS, HANDLERS, QUEUE, INSTANCES>
{
    /// Sends `payload` to `to`. On the native link, the stamp of the region of `to` says how many bytes a payload can have. On
    /// RFC v2 a payload has 1 to 256 bytes, and goes to the doorbell CPU of `to`.
    ///
    /// Returns the message number ([`handled`](Self::handled)). On the native link this is the position after the last line of
    /// the message, so from one message to the next it grows by the number of lines. On RFC v2 it is 0.
    ///
    /// This call does not sleep. It waits only for the interrupt controller, for a bounded time. It may be called in interrupt
    /// context and in callbacks. In NMI context call [`send_from_nmi`](Self::send_from_nmi).
    pub fn send(&self, to: InstanceId, msg_type: MessageType, payload: &[u8]) -> Result<u64, SendError> {
        match self.instances.get(to) {
            Ok(instance) => self.send_to(&instance, msg_type, payload),
            Err(e) => Err(self.count_unsent(SendError::Instance(e))),
        }
    }

    /// The same as [`send`](Self::send), to an instance to which the caller already has a reference. This saves the look-up for
    /// each message.
    #[inline(always)]
    pub fn send_held(
        &self,
        to: &InstanceRef<'_, P::Word>,
        msg_type: MessageType,
        payload: &[u8],
    ) -> Result<u64, SendError> {
        self.send_to(&to.0, msg_type, payload)
    }

    /// The same as [`send`](Self::send), but to one CPU of `to`. On the native link messages go to an instance, so `cpu` must be
    /// the doorbell CPU of `to`.
    pub fn send_to_cpu(
        &self,
        to: InstanceId,
        cpu: PhysCpuId,
        msg_type: MessageType,
        payload: &[u8],
    ) -> Result<u64, SendError> {
        let instance = self.instances.get(to).map_err(|e| self.count_unsent(SendError::Instance(e)))?;
        match &instance.link {
            Link::Native { sender, .. } if !self.is_rung_at(&instance, sender, cpu) => {
                Err(self.count_unsent(SendError::NotItsCpu(cpu)))
            }
            Link::RfcV2 { .. } => self.send_on_slot(&instance, cpu, msg_type, payload),
            _ => self.send_to(&instance, msg_type, payload),
        }
    }

    #[inline(always)]
    fn send_to(&self, to: &Instance<P>, msg_type: MessageType, payload: &[u8]) -> Result<u64, SendError> {
        match &to.link {
            Link::Native { sender, .. } => self.send_on_lane(to, sender, msg_type, payload),
            _ => self.send_on_slot(to, to.doorbell().cpu, msg_type, payload),
        }
    }

    /// Sends with interrupts off. So the task stays on this CPU, and the lines that it takes are published without delay.
    #[inline(always)]
    fn send_on_lane(
        &self,
        to: &Instance<P>,
        sender: &Sender<P::Word>,
        msg_type: MessageType,
        payload: &[u8],
    ) -> Result<u64, SendError> {
        let interrupts = self.platform.disable();
        let sent = self.known_speaker().and_then(|cpu| sender.send_line(msg_type, cpu, payload, self.swap()));
        let Some(number) = sent else {
            self.platform.restore(interrupts);
            return self.send_in_any_case(to, Context::Normal, msg_type, payload);
        };
        self.counters().add_alone(Count::Sent, 1);
        if sender.flush() {
            return self.ring_for(to, Context::Normal, number, interrupts);
        }
        self.platform.restore(interrupts);
        Ok(number)
    }

    /// Sends a message of any length, in any context. `send_on_lane` calls it if `send_line` cannot be used, or has sent nothing.
    #[inline(never)]
    fn send_in_any_case(
        &self,
        to: &Instance<P>,
        context: Context,
        msg_type: MessageType,
        payload: &[u8],
    ) -> Result<u64, SendError> {
        let sender = to.sender().ok_or(SendError::NotNative)?;
        let interrupts = self.platform.disable();
        match sender.send(msg_type, self.speaker(), payload, self.swap()) {
            Ok(number) => {
                match context {
                    Context::Normal => self.counters().add_alone(Count::Sent, 1),
                    // Not the CPU's own counter: the NMI may have interrupted a change of it.
                    Context::Nmi => self.elsewhere.count(Count::Sent),
                }
                if sender.flush() {
                    return self.ring_for(to, context, number, interrupts);
                }
                self.platform.restore(interrupts);
                Ok(number)
            }
            Err(e) => {
                self.platform.restore(interrupts);
                // `Unanswered`: the receiver's answer to our hello may have come by now. Interrupts were restored before this,
                // because the handshake may store to every line of the lane.
                let retry =
                    e == Unsent::Unanswered && context == Context::Normal && self.continue_handshake(to.id);
                if retry {
                    return self.send_in_any_case(to, context, msg_type, payload);
                }
                Err(self.count_unsent(e.into()))
            }
        }
    }

    /// Rings for a stored message, then restores interrupts.
    #[cold]
    fn ring_for(
        &self,
        to: &Instance<P>,
        context: Context,
        number: u64,
        interrupts: P::State,
    ) -> Result<u64, SendError> {
        let rung = to.sender().map_or(Ok(()), |sender| self.ring_bell(to, sender, context));
        self.platform.restore(interrupts);
        rung.map(|()| number).map_err(|e| self.count_unsent(SendError::NotRung(e)))
    }

    /// Calls `f` with our lane to `to` and the low 32 bits of this CPU's id, with interrupts off. `f` posts messages, and returns
    /// how many, and the number of the last one. If `f` returns `Unanswered`, the handshake is continued and `f` is called once
    /// more.
    #[inline(always)]
    pub(super) fn on_lane(
        &self,
        to: &Instance<P>,
        f: impl Fn(&Sender<P::Word>, u32) -> Result<(usize, u64), Unsent>,
    ) -> Result<(usize, u64), SendError> {
        let Some(sender) = to.sender() else { return Err(self.count_unsent(SendError::NotNative)) };
        let undisturbed = || {
            let interrupts = self.platform.disable();
            let done = f(sender, self.speaker());
            if let Ok((count, _)) = done {
                self.counters().add_alone(Count::Sent, count as u64);
            }
            self.platform.restore(interrupts);
            done
        };
        let done = match undisturbed() {
            Err(Unsent::Unanswered) => {
                self.continue_handshake(to.id);
                undisturbed()
            }
            done => done,
        };
        done.map_err(|e| self.count_unsent(e.into()))
    }

    /// The same as [`send`](Self::send) on the native link, for any context, including NMI and console paths. It takes no lock,
    /// and does not damage a send that it interrupts.
    ///
    /// A send that is interrupted and never continues, because its CPU died, leaves a gap. Later messages of this kernel to that
    /// peer, including those of a panic, are delivered when the next life of this kernel begins (SPEC N-8).
    pub fn send_from_nmi(
        &self,
        to: InstanceId,
        msg_type: MessageType,
        payload: &[u8],
    ) -> Result<u64, SendError> {
        let instance = self.instances.get(to).map_err(SendError::Instance)?;
        self.send_in_any_case(&instance, Context::Nmi, msg_type, payload)
    }

    /// The compare-and-swap by which a sender takes lines. If `CPUS` is 1, it needs no locked instruction.
    #[inline(always)]
    pub(super) fn swap(
        &self,
    ) -> impl Fn(&AtomicU64, u64, u64) -> bool + use<'_, P, H, CPUS, HANDLERS, QUEUE, INSTANCES> {
        |word, current, new| {
            if CPUS == 1 {
                self.platform.compare_exchange_alone(word, current, new)
            } else {
                word.compare_exchange(current, new, Ordering::Relaxed).is_ok()
            }
        }
    }

    /// The low 32 bits of this CPU's physical id, if the id is cached.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the field of the message has 32 bits, and is only a hint for the receiver"
    )]
    fn known_speaker(&self) -> Option<u32> {
        let known = self.cpu()?.physical.load(Ordering::Relaxed);
        (known != 0).then(|| known.wrapping_sub(1) as u32)
    }

    /// The low 32 bits of this CPU's physical id. If the id is not cached, reads it and caches it.
    #[expect(clippy::cast_possible_truncation, reason = "as above")]
    fn speaker(&self) -> u32 {
        self.known_speaker().unwrap_or_else(|| {
            let PhysCpuId(id) = self.platform.physical_id();
            if let Some(cpu) = self.cpu() {
                cpu.physical.store(id.wrapping_add(1), Ordering::Relaxed);
            }
            id as u32
        })
    }

    // A function of its own, so that the native path stays short.
    #[inline(never)]
    fn send_on_slot(
        &self,
        to: &Instance<P>,
        cpu: PhysCpuId,
        msg_type: MessageType,
        payload: &[u8],
    ) -> Result<u64, SendError> {
        let interrupts = self.platform.disable();
        let sent = match to.link.slots() {
            // All of `send_to_slot` runs in `while_ringing`, not only its ring: the CPU may move to another instance after
            // `send_to_slot` has checked that the CPU belongs to `to`.
            Some((slots, policy)) => {
                self.while_ringing(|| self.send_to_slot(to, slots, policy, cpu, msg_type, payload))
            }
            None => Err(SendError::NoRegion),
        };
        if sent.is_ok() {
            self.counters().add_alone(Count::Sent, 1);
        }
        self.platform.restore(interrupts);
        sent.map(|()| 0).map_err(|e| self.count_unsent(e))
    }

    fn send_to_slot(
        &self,
        instance: &Instance<P>,
        slots: &[P::Word],
        policy: SlotPolicy,
        cpu: PhysCpuId,
        msg_type: MessageType,
        payload: &[u8],
    ) -> Result<(), SendError> {
        let message = Outgoing::new(self.platform.physical_id(), msg_type, payload)?;
        let vector = instance.doorbell().vector;
        let is_target = || {
            let doorbell = instance.doorbell().cpu;
            cpu == doorbell || (!instance.one_doorbell && self.has_cpu(instance, cpu))
        };
        if !is_target() {
            return Err(SendError::NotItsCpu(cpu));
        }
        let slot = Slot::of_cpu(slots, cpu).ok_or(SendError::NotItsCpu(cpu))?;
        self.platform.check(cpu, vector).map_err(SendError::Unreachable)?;
        match policy {
            SlotPolicy::Overwrite => slot.overwrite(&message),
            SlotPolicy::Exclusive => {
                let me = Claim::from_data_size(self.identity.load(Ordering::Acquire));
                let claimed = slot.claim(me.ok_or(SendError::NoIdentity)?);
                let claimed = claimed.map_err(|found| self.busy(found, cpu, vector))?;
                claimed.publish(&message).map_err(|_| SendError::ClaimLost)?;
            }
        }
        if !instance.is_live() {
            // The CPUs of the instance may belong to another instance now. The next life of the instance finds the message: in a
            // poll if the slot is exclusive, otherwise at its next doorbell.
            return Ok(());
        }
        self.platform.ring(cpu, vector).map_err(SendError::NotRung)
    }

    /// Called if the slot is occupied. If it holds a message, the doorbell of that message may have been lost. So every
    /// [`RING_AGAIN`]th of these calls on a CPU rings again.
    fn busy(&self, found: u64, cpu: PhysCpuId, vector: Vector) -> SendError {
        let tries = self.counters().get(Count::Busy);
        if check_data_size(found).is_ok() && tries % RING_AGAIN == RING_AGAIN - 1 {
            // If it fails, a later try rings.
            let _ = self.platform.ring(cpu, vector);
        }
        SendError::Busy
    }
}
