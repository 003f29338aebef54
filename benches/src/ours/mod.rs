// SPDX-License-Identifier: MIT OR Apache-2.0
//! mk-ipi's links: measured from the send of a typed message to the call of its handler.

mod host;
mod native;
mod rfc_v2;
mod wake_up;

pub use wake_up::{wake_up, WakeUp};

use std::sync::Arc;

use mk_ipi_core::{Handler, Message};
use zerocopy::FromBytes;

use crate::link::{Contender, Kind};
use crate::message::{Payload, Sink};

/// Bytes of a line of a lane.
pub const LINE_BYTES: usize = 64;

/// How many lines of a lane a message of this size takes.
pub const fn lines_of(bytes: usize) -> usize {
    mk_ipi_core::abi::native::lines_of(bytes) as usize
}

/// The handler that a kernel registers. It passes each message to the sink.
struct ToSink<const WORDS: usize>(Arc<Sink>);

impl<const WORDS: usize> Handler for ToSink<WORDS> {
    #[inline(always)]
    fn handle(&self, message: &Message<'_>) {
        match Payload::<WORDS>::ref_from_bytes(message.payload()) {
            Ok(payload) => self.0.take(payload),
            Err(_) => self.0.reject(),
        }
    }
}

/// The links of mk-ipi for this kind and size. Those of the native link are measured with each number of `lines`.
pub fn contenders<const WORDS: usize>(kind: Kind, lines: &[usize]) -> Vec<Contender> {
    let mut all: Vec<_> = lines.iter().flat_map(|lines| native::contenders::<WORDS>(kind, *lines)).collect();
    all.extend(rfc_v2::contender::<WORDS>(kind));
    all
}
