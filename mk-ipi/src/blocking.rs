// SPDX-License-Identifier: MIT OR Apache-2.0
//! A send that waits for space, until a deadline: [`send_blocking`](crate::EndpointExt::send_blocking).
//!
//! It is for tasks. Call it with interrupts on and no lock held that a handler takes, not from a callback and not in interrupt
//! context: the peer may need an answer of ours before it makes space.

use crate::ext::AnyEndpoint;
use crate::peers::ended_life;
use core::fmt;
use mk_ipi_core::abi::{Incarnation, InstanceId, MessageType};
use mk_ipi_core::platform::ThisCpu;
use mk_ipi_core::SendError;

/// A moment of the kernel's clock, and the clock.
///
/// The clock is any 64-bit counter that does not wrap, in any unit, as for [`Endpoint::tick`](mk_ipi_core::Endpoint::tick). It is read once in each
/// turn of a wait, so a kernel may do there what is due now and then, for example `tick`.
#[derive(Clone, Copy, Debug)]
pub struct Deadline<C> {
    clock: C,
    at: u64,
}

impl<C: FnMut() -> u64> Deadline<C> {
    /// The deadline that has passed when `clock` gives `at` or more.
    pub const fn new(clock: C, at: u64) -> Self {
        Self { clock, at }
    }

    /// Whether it has passed now.
    pub fn has_passed(&mut self) -> bool {
        (self.clock)() >= self.at
    }
}

/// Why a send that waits came to an end without having sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitError {
    /// The send failed for a reason that waiting does not mend. With [`SendError::NotRung`] the message **was** stored, and with no
    /// other.
    Send(SendError),
    /// The deadline passed. Nothing was sent.
    Deadline,
    /// There is no space, and this life of the peer has ended, by its own word or by the directory's. Nothing was sent. Its next life
    /// makes space: try again when [`PeerEvent::Up`](mk_ipi_core::platform::PeerEvent::Up) tells of it.
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
            // There is space, or the receiver knows that we wait for it; RFC v2 knows no waiting, there we only look again.
            Ok(_) | Err(SendError::NotNative) => {}
            // A doorbell that did not ring now may ring in the next turn.
            Err(SendError::NotRung(_)) => {}
            Err(e) => return Err(WaitError::Send(e)),
        }
        endpoint.platform().relax();
    }
}
