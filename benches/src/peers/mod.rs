// SPDX-License-Identifier: MIT OR Apache-2.0
//! The queues that Rust programs use, one in each direction. They are used as their own documentation says.

mod crossbeam;
mod heapless;
mod ringbuf;
mod rtrb;

pub use crossbeam::{crossbeam, STAMP as CROSSBEAM_STAMP};
pub use heapless::heapless;
pub use ringbuf::{ringbuf, ringbuf_slices};
pub use rtrb::{rtrb, rtrb_chunks};

use std::sync::Arc;

use crate::link::{Contender, Link, Room};
use crate::message::{Payload, Sink};

/// A contender whose queues `make` makes. `room` is the part of its name that says why it has so much room.
fn contender<const WORDS: usize, const MANY: bool, L: Link<WORDS>>(
    name: &str,
    room: &str,
    messages: usize,
    memory_bytes: usize,
    make: impl Fn([Arc<Sink>; 2]) -> L + 'static,
) -> Contender {
    Contender::new::<WORDS, MANY, L>(format!("{name}, {room}"), Room { messages, memory_bytes }, make)
}

/// Gives messages from `pop` to the sink, until there is none or `most` came. Returns how many came.
#[inline(always)]
fn drain<const WORDS: usize>(
    sink: &Sink,
    most: usize,
    mut pop: impl FnMut() -> Option<Payload<WORDS>>,
) -> usize {
    let mut came = 0;
    while came < most {
        let Some(payload) = pop() else { break };
        sink.take(&payload);
        came += 1;
    }
    came
}

/// Makes a contender with so many cells. `room` is the part of its name that says why so many.
pub type Make = fn(room: &str, cells: usize) -> Contender;
