// SPDX-License-Identifier: MIT OR Apache-2.0
//! The queues that Rust programs use. A link has two queues, one for each direction. They are used as their documentation
//! recommends.

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

/// A contender whose queues are made by `make`. `room` becomes a part of its name, and says how its size was chosen.
fn contender<const WORDS: usize, const MANY: bool, L: Link<WORDS>>(
    name: &str,
    room: &str,
    messages: usize,
    memory_bytes: usize,
    make: impl Fn([Arc<Sink>; 2]) -> L + 'static,
) -> Contender {
    Contender::new::<WORDS, MANY, L>(format!("{name}, {room}"), Room { messages, memory_bytes }, make)
}

/// Passes messages from `pop` to the sink, until there are no more, or until there were `most`. Returns how many there were.
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

/// Makes a contender with this number of cells. `room` becomes a part of its name, and says how the number was chosen.
pub type Make = fn(room: &str, cells: usize) -> Contender;
