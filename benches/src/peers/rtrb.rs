// SPDX-License-Identifier: MIT OR Apache-2.0
//! `rtrb`: each side keeps a private copy of the other side's index.

use std::sync::Arc;

use rtrb::{Consumer, Producer, RingBuffer};

use super::{contender, drain};
use crate::link::{Contender, End};
use crate::message::{Payload, Sink};
use crate::pair::Apart;

/// The contender that uses `push` and `pop`.
pub fn rtrb<const WORDS: usize>(room: &str, cells: usize) -> Contender {
    make::<WORDS, false>("rtrb", room, cells)
}

/// The contender that sends with `push_partial_slice`, and receives with `read_chunk`, which lets it read messages in place.
pub fn rtrb_chunks<const WORDS: usize>(room: &str, cells: usize) -> Contender {
    make::<WORDS, true>("rtrb chunks", room, cells)
}

fn make<const WORDS: usize, const CHUNKS: bool>(name: &str, room: &str, cells: usize) -> Contender {
    let memory = cells * size_of::<Payload<WORDS>>();
    contender::<WORDS, CHUNKS, _>(name, room, cells, memory, move |[near, far]| {
        let (to_far, at_far) = RingBuffer::new(cells);
        let (to_near, at_near) = RingBuffer::new(cells);
        let end = |out, into, sink| Apart(Rtrb::<WORDS, CHUNKS> { out, into, sink });
        [end(to_far, at_near, near), end(to_near, at_far, far)]
    })
}

struct Rtrb<const WORDS: usize, const CHUNKS: bool> {
    out: Producer<Payload<WORDS>>,
    into: Consumer<Payload<WORDS>>,
    sink: Arc<Sink>,
}

impl<const WORDS: usize, const CHUNKS: bool> End<WORDS> for Rtrb<WORDS, CHUNKS> {
    #[inline(always)]
    fn send(&mut self, payload: &Payload<WORDS>) -> bool {
        self.out.push(*payload).is_ok()
    }

    #[inline(always)]
    fn send_many(&mut self, payloads: &[Payload<WORDS>]) -> usize {
        self.out.push_partial_slice(payloads).0.len()
    }

    #[inline(always)]
    fn receive(&mut self, most: usize) -> usize {
        if !CHUNKS {
            return drain(&self.sink, most, || self.into.pop().ok());
        }
        let Ok(chunk) = self.into.read_chunk(self.into.slots().min(most)) else { return 0 };
        let (first, second) = chunk.as_slices();
        first.iter().chain(second).for_each(|payload| self.sink.take(payload));
        let came = chunk.len();
        chunk.commit_all();
        came
    }
}
