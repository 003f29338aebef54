// SPDX-License-Identifier: MIT OR Apache-2.0
//! A send that waits for space, until a deadline: [`send_blocking`](crate::EndpointExt::send_blocking).
//!
//! It is for tasks. Call it with interrupts on, and without holding a lock that a handler takes. Do not call it in a callback
//! or in interrupt context: the peer may need an answer from this kernel before it makes space.

use crate::ext::AnyEndpoint;
use crate::peers::ended_life;
use core::fmt;
use mk_ipi_core::abi::{Incarnation, InstanceId, MessageType};
use mk_ipi_core::platform::ThisCpu;
use mk_ipi_core::SendError;

/// A moment of the kernel's clock, and the clock.
///
/// The clock is any 64-bit counter that does not wrap, in any unit, as for [`Endpoint::tick`](mk_ipi_core::Endpoint::tick). It
/// is read once in each turn of a wait, so the clock function may also do periodic work of the kernel, for example call `tick`.
#[derive(Clone, Copy, Debug)]
pub struct Deadline<C> {
    clock: C,
    at: u64,
}

impl<C: FnMut() -> u64> Deadline<C> {
    /// A deadline that has passed when `clock` returns `at` or more.
    pub const fn new(clock: C, at: u64) -> Self {
        Self { clock, at }
    }

    /// Returns whether the deadline has passed.
    pub fn has_passed(&mut self) -> bool {
        (self.clock)() >= self.at
    }
}

/// Why a send that waits has ended without success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitError {
    /// The send failed for a reason that does not go away by waiting. Only with [`SendError::NotRung`] the message **was**
    /// stored.
    Send(SendError),
    /// The deadline passed. Nothing was sent.
    Deadline,
    /// There is no space, and this life of the peer has ended: the peer said so, or the directory. Nothing was sent. Its next
    /// life makes space: try again after [`PeerEvent::Up`](mk_ipi_core::platform::PeerEvent::Up).
    PeerEnded(Incarnation),
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(e) => e.fmt(f),
            Self::Deadline => f.write_str("the deadline passed before there was space for the message"),
            Self::PeerEnded(life) => {
                write!(f, "the peer's incarnation {} ended before there was space", life.get())
            }
        }
    }
}

impl core::error::Error for WaitError {}

/// See [`send_blocking`](crate::EndpointExt::send_blocking).
pub(crate) fn send<E: AnyEndpoint + ?Sized>(
    endpoint: &E,
    (to, msg_type, payload): (InstanceId, MessageType, &[u8]),
    deadline: &mut Deadline<impl FnMut() -> u64>,
) -> Result<u64, WaitError> {
    loop {
        match endpoint.send(to, msg_type, payload) {
            Err(e) if e.is_transient() => {}
            sent => return sent.map_err(WaitError::Send),
        }
        if let Some(life) = ended_life(endpoint, to) {
            return Err(WaitError::PeerEnded(life));
        }
        if deadline.has_passed() {
            return Err(WaitError::Deadline);
        }
        match endpoint.want_space(to, payload.len()) {
            // There is space, or the receiver knows that we wait for it. RFC v2 cannot tell the receiver, so there we only try
            // again.
            Ok(_) | Err(SendError::NotNative) => {}
            // The doorbell failed; the next turn rings again.
            Err(SendError::NotRung(_)) => {}
            Err(e) => return Err(WaitError::Send(e)),
        }
        endpoint.platform().relax();
    }
}
