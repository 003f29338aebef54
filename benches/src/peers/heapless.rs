// SPDX-License-Identifier: MIT OR Apache-2.0
//! `heapless::spsc`, a queue for microcontrollers. Both sides use both indices, which are on one cache line. The queue has no
//! call for many messages.

use std::sync::Arc;

use heapless::spsc::{Consumer, Producer, Queue};

use super::{contender, drain};
use crate::link::{Contender, End, Link};
use crate::message::{Payload, Sink};
use crate::pair::Apart;

/// The contender with `CELLS` cells. One of them always stays empty.
pub fn heapless<const WORDS: usize, const CELLS: usize>(room: &str) -> Contender {
    let memory = CELLS * size_of::<Payload<WORDS>>();
    contender::<WORDS, false, _>("heapless::spsc", room, CELLS - 1, memory, |sinks| {
        let queue = || -> Box<dyn Splits<WORDS>> { Box::new(Apart(Queue::<_, CELLS>::new())) };
        HeaplessLink { queues: [queue(), queue()], sinks }
    })
}

/// A queue with any number of cells. The types of its two ends do not depend on that number.
trait Splits<const WORDS: usize> {
    fn split(&mut self) -> (Producer<'_, Payload<WORDS>>, Consumer<'_, Payload<WORDS>>);
}

impl<const WORDS: usize, const CELLS: usize> Splits<WORDS> for Apart<Queue<Payload<WORDS>, CELLS>> {
    fn split(&mut self) -> (Producer<'_, Payload<WORDS>>, Consumer<'_, Payload<WORDS>>) {
        self.0.split()
    }
}

struct HeaplessLink<const WORDS: usize> {
    queues: [Box<dyn Splits<WORDS>>; 2],
    sinks: [Arc<Sink>; 2],
}

impl<const WORDS: usize> Link<WORDS> for HeaplessLink<WORDS> {
    fn ends(&mut self) -> [impl End<WORDS>; 2] {
        let ([there, back], [near, far]) = (&mut self.queues, &self.sinks);
        let ((to_far, at_far), (to_near, at_near)) = (there.split(), back.split());
        [
            Heapless { out: to_far, into: at_near, sink: near },
            Heapless { out: to_near, into: at_far, sink: far },
        ]
    }
}

struct Heapless<'a, const WORDS: usize> {
    out: Producer<'a, Payload<WORDS>>,
    into: Consumer<'a, Payload<WORDS>>,
    sink: &'a Sink,
}

impl<const WORDS: usize> End<WORDS> for Heapless<'_, WORDS> {
    #[inline(always)]
    fn send(&mut self, payload: &Payload<WORDS>) -> bool {
        self.out.enqueue(*payload).is_ok()
    }

    #[inline(always)]
    fn receive(&mut self, most: usize) -> usize {
        drain(self.sink, most, || self.into.dequeue())
    }
}
