// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a message was not sent.

use super::base::Endpoint;
use crate::instance::LookupError;
use crate::native::Unsent;
use crate::platform::{DoorbellError, Platform};
use crate::registry::Handler;
use crate::rfc_v2::Unsendable;
use crate::stats::Count;
use mk_ipi_abi::{Errno, PhysCpuId};

/// Why a message was not sent. Unless the error says otherwise, the message was not stored, and no other message was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The payload has no bytes, which RFC v2 cannot carry (SPEC H-4).
    Empty,
    /// The payload is longer than 256 bytes on RFC v2, or than the stamp of the native region allows.
    TooLong,
    /// This endpoint has no identity yet ([`Endpoint::identify`]).
    NoIdentity,
    /// The physical id of this CPU does not fit into the slot's field `sender_cpu`.
    SenderBeyondField,
    /// The instance is not in the table.
    Instance(LookupError),
    /// The instance has no region.
    NoRegion,
    /// The CPU does not belong to the instance, or has no slot, or is not the CPU of the instance's doorbell (SPEC S-7, N-12).
    NotItsCpu(PhysCpuId),
    /// The exclusive slot holds an unread message, or the claim of another sender. Try again. Some of these sends ring again for
    /// the unread message, so that a lost doorbell does not block the slot (SPEC R-7).
    Busy,
    /// The host cleared the claim on the slot while the message was stored, because it considers this incarnation
    /// dead. The message was not published.
    ClaimLost,
    /// Our lane is full. [`Endpoint::want_space`] requests an event that comes when the lane has space.
    Full,
    /// The receiver has not answered this life of ours yet. Try again; [`PeerEvent::Answered`](crate::platform::PeerEvent)
    /// reports the answer.
    Unanswered,
    /// Other CPUs or interrupt handlers of this kernel took each position that this call tried to take. Try again.
    Contended,
    /// The receiver says that this kernel broke the protocol. It accepts no messages from this life of ours.
    Quarantined,
    /// The words of the receiver contradict each other, or its new life does not know our life. Attach the instance again.
    Broken,
    /// The peer's region was created again since we attached. Attach the instance again. The messages of which it is not known
    /// whether they were handled are reported by [`PeerEvent::Unsettled`](crate::platform::PeerEvent).
    RegionGone,
    /// The call works on the native link only.
    NotNative,
    /// The doorbell cannot reach the CPU.
    Unreachable(DoorbellError),
    /// The message **was** stored, but the doorbell did not ring. The message is delivered after a call of [`Endpoint::ring`],
    /// after the next doorbell to that CPU, or after a poll on that CPU.
    NotRung(DoorbellError),
}

impl core::fmt::Display for SendError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Empty => f.write_str("RFC v2 cannot carry a message of no bytes"),
            Self::TooLong => f.write_str("the message is longer than the link allows"),
            Self::NoIdentity => f.write_str("the identity of this kernel is not set yet"),
            Self::SenderBeyondField => f.write_str("the physical id of this CPU does not fit into a slot"),
            Self::Instance(e) => write!(f, "{e}"),
            Self::NoRegion => f.write_str("the instance has no region"),
            Self::NotItsCpu(cpu) => {
                write!(f, "CPU {:#x} cannot be rung for this instance", cpu.0)
            }
            Self::Busy => f.write_str("the slot holds an unread message, or another sender is filling it"),
            Self::ClaimLost => f.write_str("the host has cleared the claim of this sender"),
            Self::Full => f.write_str("the lane is full"),
            Self::Unanswered => f.write_str("the receiver has not answered this life yet"),
            Self::Contended => f.write_str("other CPUs took each position that was tried"),
            Self::Quarantined => f.write_str("the receiver refuses this life, because it broke the protocol"),
            Self::Broken => f.write_str(
                "the words of the receiver contradict each other, or it does not know this life any more",
            ),
            Self::RegionGone => f.write_str("the region of the receiver was created again"),
            Self::NotNative => f.write_str("the call needs a native link"),
            Self::Unreachable(e) => write!(f, "the message was not sent: {e}"),
            Self::NotRung(e) => write!(f, "the message was stored, but its doorbell did not ring: {e}"),
        }
    }
}

impl core::error::Error for SendError {}

impl SendError {
    /// Whether the same call may succeed later, although this kernel changes nothing: the link has no room now, the receiver has
    /// not answered yet, or other CPUs took the positions.
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Full | Self::Busy | Self::Unanswered | Self::Contended)
    }

    /// The error number of the C call (SPEC C-2). An error that the C call does not have gets the nearest number.
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
            Self::ClaimLost | Self::RegionGone => Errno::ESTALE,
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
            Unsent::Gone => Self::RegionGone,
        }
    }
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
}
