// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sending: which link, its checks, the doorbell (SPEC chapters S and N).

use super::{Endpoint, Instance};
use crate::instance::{InstanceRef, Link, LookupError};
use crate::native::{Sender, Unsent};
use crate::platform::{DoorbellError, Platform};
use crate::registry::Handler;
use crate::slot::{Occupied, Outgoing, Slot, Unsendable};
use crate::stats::Count;
use crate::sync::Ordering;
use mk_ipi_abi::rfc_v2::{check_data_size, Claim};
use mk_ipi_abi::{Errno, InstanceId, MessageType, PhysCpuId, Vector};

/// Why a message was not sent. Unless it says otherwise, nothing was written and nothing lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The payload has no bytes, which RFC v2 cannot carry (SPEC H-4).
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
    /// The CPU named is not one of the instance's, or cannot be rung (SPEC S-7).
    NotItsCpu(PhysCpuId),
    /// The exclusive slot is occupied: by an unread message, or by another sender. Try again; now and then that
    /// rings for the unread message, so that a doorbell that was lost does not close the slot (SPEC R-7).
    Busy,
    /// The claim on the slot was cleared while the message was stored, and it was not published: the host holds
    /// this incarnation dead.
    ClaimLost,
    /// Our lane is full. [`Endpoint::want_space`] asks to be told when it is not.
    Full,
    /// The receiver has not acknowledged this life of ours yet, or another CPU is just beginning it. Try again.
    Unanswered,
    /// Other CPUs of ours took every position that this one tried for. Try again.
    Contended,
    /// The receiver holds that we broke the protocol, and takes nothing from this life of ours.
    Quarantined,
    /// The receiver's own words contradict each other.
    Broken,
    /// This CPU is not one that the directory lists for our instance, or our instance is not in the table.
    NotListed(PhysCpuId),
    /// The call exists on the native link only.
    NotNative,
    /// The receiver's stamp does not offer what was asked for (SPEC N-1).
    NotOffered,
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
            Self::NotListed(_) | Self::NotNative | Self::NotOffered => Errno::EINVAL,
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
    /// Sends `payload`, at most 256 bytes, to `to`; on RFC v2 at least one byte, and to its doorbell CPU.
    ///
    /// Neither sleeps nor waits but for the doorbell, bounded; may be called in interrupt context and in callbacks. From NMI
    /// context call [`send_from_nmi`](Self::send_from_nmi).
    pub fn send(&self, to: InstanceId, msg_type: MessageType, payload: &[u8]) -> Result<(), SendError> {
        self.send_from_here(to, None, msg_type, payload)
    }

    /// As [`send`](Self::send), to one CPU of `to`. On the native link all CPUs share the lane: `cpu` is the one that is
    /// rung, if any is.
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
        match self.instances.get(to) {
            Ok(instance) => self.send_to(&instance, cpu, msg_type, payload),
            Err(e) => self.count_sent(Err(SendError::Instance(e))),
        }
    }

    /// As [`send`](Self::send), to an instance that is held already: spares the look-up of each message of many.
    #[inline]
    pub fn send_held(
        &self,
        to: &InstanceRef<'_, P::Word, CPUS>,
        msg_type: MessageType,
        payload: &[u8],
    ) -> Result<(), SendError> {
        self.send_to(&to.0, None, msg_type, payload)
    }

    #[inline]
    fn send_to(
        &self,
        to: &Instance<P, CPUS>,
        cpu: Option<PhysCpuId>,
        msg_type: MessageType,
        payload: &[u8],
    ) -> Result<(), SendError> {
        // Interrupts off: the CPU stays the same, and what was claimed is published without delay.
        let interrupts = self.platform.disable();
        let sent = match &to.link {
            Link::None => self.count_sent(Err(SendError::NoRegion)),
            Link::RfcV2 { slots, policy } => {
                self.count_sent(self.send_to_slot(to, slots.words(), *policy, cpu, msg_type, payload))
            }
            Link::Native { sender, .. } => {
                self.send_on_lane(to, sender, Context::Normal, cpu, msg_type, payload)
            }
        };
        self.platform.restore(interrupts);
        sent
    }

    /// Counts a send that was refused, or one of RFC v2; what a lane has taken, its positions count.
    #[cold]
    pub(super) fn count_sent(&self, sent: Result<(), SendError>) -> Result<(), SendError> {
        self.count(match sent {
            Ok(()) => Count::Sent,
            Err(SendError::Busy) => Count::Busy,
            Err(SendError::Full) => Count::Full,
            Err(SendError::NotRung(_)) => Count::NotRung,
            Err(SendError::ClaimLost) => Count::ClaimLost,
            Err(_) => Count::Refused,
        });
        sent
    }

    /// As [`send`](Self::send), on the native link, from any context, NMI and console paths included: no lock is taken, and an
    /// interrupted send stays whole.
    pub fn send_from_nmi(
        &self,
        to: InstanceId,
        msg_type: MessageType,
        payload: &[u8],
    ) -> Result<(), SendError> {
        let instance = self.instances.get(to).map_err(SendError::Instance)?;
        let sender = instance.sender().ok_or(SendError::NotNative)?;
        self.send_on_lane(&instance, sender, Context::Nmi, None, msg_type, payload)
    }

    #[inline]
    fn send_on_lane(
        &self,
        instance: &Instance<P, CPUS>,
        sender: &Sender<P::Word>,
        context: Context,
        cpu: Option<PhysCpuId>,
        msg_type: MessageType,
        payload: &[u8],
    ) -> Result<(), SendError> {
        if let Some(cpu) = cpu.filter(|cpu| !instance.is_target(*cpu)) {
            return self.count_sent(Err(SendError::NotItsCpu(cpu)));
        }
        // Where one CPU alone can be rung, the receiver says which: it may have moved its doorbell.
        let cpu = cpu.filter(|_| !instance.one_doorbell);
        let listed = match self.listed() {
            Ok(listed) => listed,
            Err(e) => return self.count_sent(Err(e)),
        };
        match sender.send(msg_type, listed, payload) {
            Ok(false) => Ok(()),
            Ok(true) => {
                let rung = self.ring_bell(instance, sender, context, cpu);
                rung.or_else(|e| self.count_sent(Err(SendError::NotRung(e))))
            }
            Err(e) => self.count_sent(Err(e.into())),
        }
    }

    /// This CPU's index in the directory's list of our instance.
    #[inline]
    pub(super) fn listed(&self) -> Result<u16, SendError> {
        let known = self.cpu().map_or(0, |cpu| cpu.listed.load(Ordering::Relaxed));
        match u16::try_from(known.wrapping_sub(1)) {
            Ok(index) => Ok(index),
            Err(_) => self.look_up_listed(),
        }
    }

    #[cold]
    fn look_up_listed(&self) -> Result<u16, SendError> {
        let (me, _) = self.identity().ok_or(SendError::NoIdentity)?;
        let here = self.platform.physical_id();
        let own = self.instances.get(me).map_err(|_| SendError::NotListed(here))?;
        let found = (0..u16::MAX).zip(own.cpus()).find(|(_, cpu)| **cpu == here);
        let (index, _) = found.ok_or(SendError::NotListed(here))?;
        if let Some(cpu) = self.cpu() {
            cpu.listed.store(u32::from(index).wrapping_add(1), Ordering::Relaxed);
        }
        Ok(index)
    }

    /// Rings where the receiver wants it, or `cpu`.
    fn ring_bell(
        &self,
        instance: &Instance<P, CPUS>,
        sender: &Sender<P::Word>,
        context: Context,
        cpu: Option<PhysCpuId>,
    ) -> Result<(), DoorbellError> {
        let (bell, vector) = sender.bell(instance.cpus(), (instance.doorbell_cpu, instance.vector));
        let cpu = cpu.unwrap_or(bell);
        sender.count_rung();
        self.count(Count::Rung);
        match context {
            Context::Normal => self.platform.ring(cpu, vector),
            Context::Nmi => self.platform.ring_from_nmi(cpu, vector),
        }
    }

    /// Rings an instance if it wants to be rung for what our lane holds.
    pub(super) fn ring_if_wanted(
        &self,
        instance: &Instance<P, CPUS>,
        sender: &Sender<P::Word>,
        wanted: bool,
    ) -> Result<(), DoorbellError> {
        if !wanted {
            return Ok(());
        }
        let interrupts = self.platform.disable();
        let rung = self.ring_bell(instance, sender, Context::Normal, None);
        self.platform.restore(interrupts);
        rung
    }

    fn send_to_slot(
        &self,
        instance: &Instance<P, CPUS>,
        slots: &[P::Word],
        policy: Occupied,
        cpu: Option<PhysCpuId>,
        msg_type: MessageType,
        payload: &[u8],
    ) -> Result<(), SendError> {
        let message = Outgoing::new(self.platform.physical_id(), msg_type, payload)?;
        let me = Claim::from_data_size(self.identity.load(Ordering::Acquire)).ok_or(SendError::NoIdentity)?;
        let cpu = cpu.unwrap_or(instance.doorbell_cpu);
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
            Some(sender) => self.ring_if_wanted(&instance, sender, true),
            None => self.platform.ring(instance.doorbell_cpu, instance.vector),
        }
        .map_err(SendError::Unreachable)
    }
}
