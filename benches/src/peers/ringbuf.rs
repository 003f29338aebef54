// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ringbuf`, with the ends that `split` returns. They keep copies of the indices.

use std::sync::Arc;

use ringbuf::traits::{Consumer as _, Producer as _, Split};
use ringbuf::{HeapCons, HeapProd, HeapRb};

use super::{contender, drain};
use crate::link::{Contender, End};
use crate::message::{Payload, Sink};
use crate::pair::Apart;

/// The contender that uses `try_push` and `try_pop`.
pub fn ringbuf<const WORDS: usize>(room: &str, cells: usize) -> Contender {
    make::<WORDS, false>("ringbuf", room, cells)
}

/// The contender that sends with `push_slice`, and receives with `as_slices` and `skip`, which let it read messages in place.
pub fn ringbuf_slices<const WORDS: usize>(room: &str, cells: usize) -> Contender {
    make::<WORDS, true>("ringbuf slices", room, cells)
}

fn make<const WORDS: usize, const SLICES: bool>(name: &str, room: &str, cells: usize) -> Contender {
    let memory = cells * size_of::<Payload<WORDS>>();
    contender::<WORDS, SLICES, _>(name, room, cells, memory, move |[near, far]| {
        let (to_far, at_far) = HeapRb::new(cells).split();
        let (to_near, at_near) = HeapRb::new(cells).split();
        let end = |out, into, sink| Apart(Ringbuf::<WORDS, SLICES> { out, into, sink });
        [end(to_far, at_near, near), end(to_near, at_far, far)]
    })
}

struct Ringbuf<const WORDS: usize, const SLICES: bool> {
    out: HeapProd<Payload<WORDS>>,
    into: HeapCons<Payload<WORDS>>,
    sink: Arc<Sink>,
}

impl<const WORDS: usize, const SLICES: bool> End<WORDS> for Ringbuf<WORDS, SLICES> {
    #[inline(always)]
    fn send(&mut self, payload: &Payload<WORDS>) -> bool {
        self.out.try_push(*payload).is_ok()
    }

    #[inline(always)]
    fn send_many(&mut self, payloads: &[Payload<WORDS>]) -> usize {
        self.out.push_slice(payloads)
    }

    #[inline(always)]
    fn receive(&mut self, most: usize) -> usize {
        if !SLICES {
            return drain(&self.sink, most, || self.into.try_pop());
        }
        let (first, second) = self.into.as_slices();
        let came = (first.len() + second.len()).min(most);
        if came == 0 {
            return 0;
        }
        first.iter().chain(second).take(came).for_each(|payload| self.sink.take(payload));
        self.into.skip(came)
    }
}
