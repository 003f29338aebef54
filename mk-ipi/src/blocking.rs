// SPDX-License-Identifier: MIT OR Apache-2.0
//! A send that waits for space until a deadline: [`send_blocking`](crate::EndpointExt::send_blocking).
//!
//! Call it from a task, with interrupts on, and while you hold no lock that a handler takes. Do not call it in a callback or in
//! interrupt context, because the peer may need an answer from this kernel before it reads the messages in the lane.

use crate::ext::AnyEndpoint;
use crate::peers::ended_life;
use core::fmt;
use mk_ipi_core::abi::{Incarnation, InstanceId, MessageType};
use mk_ipi_core::platform::ThisCpu;
use mk_ipi_core::SendError;

/// A clock, and the time on this clock at which a wait ends.
///
/// The clock is any 64-bit counter that does not wrap, in any unit, as for [`Endpoint::tick`](mk_ipi_core::Endpoint::tick). A
/// call that waits reads the clock once in each iteration. So the clock function may also do periodic work, for example call
/// `tick`.
#[derive(Clone, Copy, Debug)]
pub struct Deadline<C> {
    clock: C,
    at: u64,
}

impl<C: FnMut() -> u64> Deadline<C> {
    /// Makes a deadline. It has passed when `clock` returns `at` or more.
    pub const fn new(clock: C, at: u64) -> Self {
        Self { clock, at }
    }

    /// Reads the clock, and returns whether the deadline has passed.
    pub fn has_passed(&mut self) -> bool {
        (self.clock)() >= self.at
    }
}

/// Why a send that waits has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitError {
    /// The send failed with an error that waiting does not change. With [`SendError::NotRung`] the message **was** stored. With
    /// every other error it was not.
    Send(SendError),
    /// The deadline passed before there was space. Nothing was sent.
    Deadline,
    /// There is no space, and this life of the peer has ended: the peer said goodbye, or the directory does not list it as live.
    /// Nothing was sent. The next life of the peer makes space: try again after
    /// [`PeerEvent::Up`](mk_ipi_core::platform::PeerEvent::Up).
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

/// Implements [`send_blocking`](crate::EndpointExt::send_blocking).
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
            // There is space now, or the receiver knows that we wait for space. On RFC v2 a sender cannot tell this to the
            // receiver, so we only try again.
            Ok(_) | Err(SendError::NotNative) => {}
            // The doorbell that tells the receiver failed. The next iteration rings again.
            Err(SendError::NotRung(_)) => {}
            Err(e) => return Err(WaitError::Send(e)),
        }
        endpoint.platform().relax();
    }
}
