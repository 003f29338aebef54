// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sending: which link, its checks, the doorbell (SPEC chapters S and N).

use super::{Endpoint, Instance};
use crate::instance::{InstanceRef, LookupError};
use crate::link::Link;
use crate::native::{Sender, Unsent};
use crate::platform::{DoorbellError, Platform};
use crate::registry::Handler;
use crate::rfc_v2::{Occupied, Outgoing, Slot, Unsendable};
use crate::stats::Count;
use crate::sync::{AtomicU64, Ordering};
use mk_ipi_abi::rfc_v2::{check_data_size, Claim};
use mk_ipi_abi::{Errno, InstanceId, MessageType, PhysCpuId, Vector};

/// Why a message was not sent. Unless it says otherwise, nothing was written and nothing lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The payload has no bytes, which RFC v2 cannot carry (SPEC H-4).
    Empty,
    /// The payload is longer than 256 bytes, or than the native region's stamp allows.
    TooLong,
    /// This endpoint was not told who it is ([`Endpoint::identify`]).
    NoIdentity,
    /// This CPU's physical id does not fit the wire's field.
    SenderBeyondField,
    /// The instance is not in the table.
    Instance(LookupError),
    /// The instance has no region.
    NoRegion,
    /// The CPU named is not one of the instance's, or not the one that is rung (SPEC S-7, N-12).
    NotItsCpu(PhysCpuId),
    /// The exclusive slot is occupied: by an unread message, or by another sender. Try again; now and then that
    /// rings for the unread message, so that a doorbell that was lost does not close the slot (SPEC R-7).
    Busy,
    /// The claim on the slot was cleared while the message was stored, and it was not published: the host holds
    /// this incarnation dead.
    ClaimLost,
    /// Our lane is full. [`Endpoint::want_space`] asks to be told when it is not.
    Full,
    /// The receiver has not answered this life of ours yet. Try again; [`PeerEvent::Answered`](crate::platform::PeerEvent) tells when.
    Unanswered,
    /// Other CPUs of ours took every position that this one tried for. Try again.
    Contended,
    /// The receiver holds that we broke the protocol, and takes nothing from this life of ours.
    Quarantined,
    /// The receiver's own words contradict each other, or a new life of it does not know ours: attach the instance again.
    Broken,
    /// The call exists on the native link only.
    NotNative,
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
            Self::NotNative => Errno::EINVAL,
            Self::Full => Errno::ENOSPC,
            Self::Unanswered | Self::Contended => Errno::EAGAIN,
            Self::Quarantined | Self::Broken => Errno::EPROTO,
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

impl From<Unsent> for SendError {
    fn from(e: Unsent) -> Self {
        match e {
            Unsent::Full => Self::Full,
            Unsent::Unanswered => Self::Unanswered,
            Unsent::Contended => Self::Contended,
            Unsent::Quarantined => Self::Quarantined,
            Unsent::Broken => Self::Broken,
            Unsent::TooLong => Self::TooLong,
        }
    }
}

/// How the caller may ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Context {
    Normal,
    Nmi,
}

/// A sender that finds a message unread rings for it again once in so many tries (SPEC R-7).
const RING_AGAIN: u64 = 64;

impl<P: Platform, H: Handler, const CPUS: usize, const HANDLERS: usize, const QUEUE: usize>
    Endpoint<P, H, CPUS, HANDLERS, QUEUE>
{
    /// Sends `payload` to `to`: at most 256 bytes, or what a native region's stamp says; on RFC v2 at least one byte, and to its
    /// doorbell CPU. Gives the message's number: on the native link the position behind its last line, which grows, but not by
    /// one ([`handled`](Self::handled)); 0 on RFC v2.
    ///
    /// Neither sleeps nor waits but for the doorbell, bounded; may be called in interrupt context and in callbacks. From NMI
    /// context call [`send_from_nmi`](Self::send_from_nmi).
    pub fn send(&self, to: InstanceId, msg_type: MessageType, payload: &[u8]) -> Result<u64, SendError> {
        match self.instances.get(to) {
            Ok(instance) => self.send_to(&instance, msg_type, payload),
            Err(e) => Err(self.count_unsent(SendError::Instance(e))),
        }
    }

    /// As [`send`](Self::send), to an instance that is held already: spares the look-up of each message of many.
    #[inline]
    pub fn send_held(
        &self,
        to: &InstanceRef<'_, P::Word, CPUS>,
        msg_type: MessageType,
        payload: &[u8],
    ) -> Result<u64, SendError> {
        self.send_to(&to.0, msg_type, payload)
    }

    /// As [`send`](Self::send), to one CPU of `to`. On the native link a message goes to an instance: `cpu` has to be the one that
    /// its doorbell rings.
    pub fn send_to_cpu(
        &self,
        to: InstanceId,
        cpu: PhysCpuId,
        msg_type: MessageType,
        payload: &[u8],
    ) -> Result<u64, SendError> {
        let instance = self.instances.get(to).map_err(|e| self.count_unsent(SendError::Instance(e)))?;
        match &instance.link {
            Link::Native { sender, .. } if self.doorbell(&instance, sender).0 != cpu => {
                Err(self.count_unsent(SendError::NotItsCpu(cpu)))
            }
            Link::RfcV2 { .. } => self.send_on_slot(&instance, cpu, msg_type, payload),
            _ => self.send_to(&instance, msg_type, payload),
        }
    }

    #[inline]
    fn send_to(
        &self,
        to: &Instance<P, CPUS>,
        msg_type: MessageType,
        payload: &[u8],
    ) -> Result<u64, SendError> {
        match &to.link {
            Link::Native { sender, .. } => self.send_on_lane(to, sender, Context::Normal, msg_type, payload),
            _ => self.send_on_slot(to, to.doorbell_cpu, msg_type, payload),
        }
    }

    /// Sends with interrupts off: the CPU stays the same, and what was taken is published and rung for without delay.
    #[inline(always)]
    fn send_on_lane(
        &self,
        to: &Instance<P, CPUS>,
        sender: &Sender<P::Word>,
        context: Context,
        msg_type: MessageType,
        payload: &[u8],
    ) -> Result<u64, SendError> {
        let interrupts = self.platform.disable();
        let sent = sender.send(msg_type, || self.speaker(), payload, self.swap());
        if let (Ok(_), Context::Normal) = (sent, context) {
            // From an NMI that CPU's own counter is not touched: it may be in the middle of counting by it.
            self.counters().add_alone(Count::Sent, 1);
        }
        let wanted = sent.is_ok() && sender.flush();
        if !wanted {
            self.platform.restore(interrupts);
            return sent.or_else(|e| self.send_once_more(to, sender, context, msg_type, payload, e));
        }
        let rung = self.ring_bell(to, sender, context);
        self.platform.restore(interrupts);
        match (sent, rung) {
            (Ok(number), Ok(())) => Ok(number),
            (_, Err(e)) => Err(self.count_unsent(SendError::NotRung(e))),
            // Not reached: nothing is rung for then.
            (Err(e), _) => Err(e.into()),
        }
    }

    /// Perhaps the answer has come that the lane waits for. Its lines are not cleaned with interrupts off.
    #[cold]
    fn send_once_more(
        &self,
        to: &Instance<P, CPUS>,
        sender: &Sender<P::Word>,
        context: Context,
        msg_type: MessageType,
        payload: &[u8],
        e: Unsent,
    ) -> Result<u64, SendError> {
        if e == Unsent::Unanswered && context == Context::Normal {
            // Not two tries: what the second one says new, nobody would be rung for.
            if self.go_on_with(to.id) {
                return self.send_on_lane(to, sender, context, msg_type, payload);
            }
        }
        Err(self.count_unsent(e.into()))
    }

    /// Calls `f`, which posts, with our lane to `to` and what it is to say of this CPU, with interrupts off.
    #[inline(always)]
    pub(super) fn on_lane(
        &self,
        to: &Instance<P, CPUS>,
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
                self.go_on_with(to.id);
                undisturbed()
            }
            done => done,
        };
        done.map_err(|e| self.count_unsent(e.into()))
    }

    /// As [`send`](Self::send), on the native link, from any context, NMI and console paths included: no lock is taken, and an
    /// interrupted send stays whole.
    ///
    /// A send that is interrupted and never goes on, because its CPU died in the interruption, leaves a gap: what this kernel
    /// sends behind it to that peer, a panic's last words included, is handed out when the kernel's next life begins (SPEC N-8).
    pub fn send_from_nmi(
        &self,
        to: InstanceId,
        msg_type: MessageType,
        payload: &[u8],
    ) -> Result<u64, SendError> {
        let instance = self.instances.get(to).map_err(SendError::Instance)?;
        let sender = instance.sender().ok_or(SendError::NotNative)?;
        let number = self.send_on_lane(&instance, sender, Context::Nmi, msg_type, payload)?;
        // Not the CPU's own counter, which it may be in the middle of counting by.
        self.elsewhere.count(Count::Sent);
        Ok(number)
    }

    /// What lines are taken by: one CPU alone needs no locked instruction.
    #[inline(always)]
    pub(super) fn swap(
        &self,
    ) -> impl Fn(&AtomicU64, u64, u64) -> bool + use<'_, P, H, CPUS, HANDLERS, QUEUE> {
        |word, current, new| {
            if CPUS == 1 {
                self.platform.compare_exchange_alone(word, current, new)
            } else {
                word.compare_exchange(current, new, Ordering::Relaxed).is_ok()
            }
        }
    }

    /// This CPU's physical id, as far as it fits a message's field.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "as much as fits: it proves nothing")]
    fn speaker(&self) -> u32 {
        match self.cpu().map_or(0, |cpu| cpu.physical.load(Ordering::Relaxed)) {
            0 => self.ask_speaker(),
            known => known.wrapping_sub(1) as u32,
        }
    }

    #[cold]
    #[expect(clippy::cast_possible_truncation, reason = "as above")]
    fn ask_speaker(&self) -> u32 {
        let PhysCpuId(id) = self.platform.physical_id();
        if let Some(cpu) = self.cpu() {
            cpu.physical.store(id.wrapping_add(1), Ordering::Relaxed);
        }
        id as u32
    }

    /// Counts a send that was refused.
    #[cold]
    pub(super) fn count_unsent(&self, e: SendError) -> SendError {
        self.count(match e {
            SendError::Busy => Count::Busy,
            SendError::Full => Count::Full,
            SendError::NotRung(_) => Count::NotRung,
            SendError::ClaimLost => Count::ClaimLost,
            _ => Count::Refused,
        });
        e
    }

    /// Whether the directory gives `cpu` to that instance.
    pub(super) fn has_cpu(&self, instance: &Instance<P, CPUS>, cpu: PhysCpuId) -> bool {
        let listed = || instance.cpus().contains(&cpu);
        self.platform.peer_has_cpu(instance.id, cpu).unwrap_or_else(listed)
    }

    /// Where an instance is rung: where it wants, if that CPU is its own, else where the directory says.
    fn doorbell(&self, to: &Instance<P, CPUS>, sender: &Sender<P::Word>) -> (PhysCpuId, Vector) {
        let bell = sender.bell(|bell| self.has_cpu(to, bell.cpu));
        bell.map_or((to.doorbell_cpu, to.vector), |bell| (bell.cpu, bell.vector))
    }

    #[cold]
    fn ring_bell(
        &self,
        to: &Instance<P, CPUS>,
        sender: &Sender<P::Word>,
        context: Context,
    ) -> Result<(), DoorbellError> {
        let (cpu, vector) = self.doorbell(to, sender);
        sender.count_rung();
        self.count(Count::Rung);
        match context {
            Context::Normal => self.platform.ring(cpu, vector),
            Context::Nmi => self.platform.ring_from_nmi(cpu, vector),
        }
    }

    /// Rings an instance if it wants to be rung for what we have stored.
    pub(super) fn ring_if_wanted(&self, to: &Instance<P, CPUS>) -> Result<(), DoorbellError> {
        match to.sender().filter(|sender| sender.flush()) {
            Some(sender) => self.ring_undisturbed(to, sender),
            None => Ok(()),
        }
    }

    fn ring_undisturbed(
        &self,
        to: &Instance<P, CPUS>,
        sender: &Sender<P::Word>,
    ) -> Result<(), DoorbellError> {
        let interrupts = self.platform.disable();
        let rung = self.ring_bell(to, sender, Context::Normal);
        self.platform.restore(interrupts);
        rung
    }

    // Kept out of the native link's way.
    #[inline(never)]
    fn send_on_slot(
        &self,
        to: &Instance<P, CPUS>,
        cpu: PhysCpuId,
        msg_type: MessageType,
        payload: &[u8],
    ) -> Result<u64, SendError> {
        let interrupts = self.platform.disable();
        let sent = match to.link.slots() {
            Some((slots, policy)) => self.send_to_slot(to, slots, policy, cpu, msg_type, payload),
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
        instance: &Instance<P, CPUS>,
        slots: &[P::Word],
        policy: Occupied,
        cpu: PhysCpuId,
        msg_type: MessageType,
        payload: &[u8],
    ) -> Result<(), SendError> {
        let message = Outgoing::new(self.platform.physical_id(), msg_type, payload)?;
        let me = Claim::from_data_size(self.identity.load(Ordering::Acquire)).ok_or(SendError::NoIdentity)?;
        if !instance.is_target(cpu) {
            return Err(SendError::NotItsCpu(cpu));
        }
        // Each of an instance's CPUs has a slot (`Instance::new`).
        let slot = Slot::of_cpu(slots, cpu).ok_or(SendError::NoRegion)?;
        self.platform.check(cpu, instance.vector).map_err(SendError::Unreachable)?;
        match policy {
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

    /// Rings `to` once more, without a message, wanted or not: after [`SendError::NotRung`].
    pub fn ring(&self, to: InstanceId) -> Result<(), SendError> {
        let instance = self.instances.get(to).map_err(SendError::Instance)?;
        match instance.sender() {
            Some(sender) => self.ring_undisturbed(&instance, sender),
            None => self.platform.ring(instance.doorbell_cpu, instance.vector),
        }
        .map_err(SendError::Unreachable)
    }
}
