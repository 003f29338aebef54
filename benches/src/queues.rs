// SPDX-License-Identifier: MIT OR Apache-2.0
//! The queues that Rust programs use, one in each direction, by their plain calls for one message.

use std::sync::Arc;

use ringbuf::traits::{Consumer as _, Producer as _, Split};

use crate::harness::{Apart, Contender, End, Link, Payload, Sink};

/// Cells of each queue.
const CELLS: usize = 64;

/// Gives what `pop` gives to the sink, a queue's length of it at most.
#[inline(always)]
fn drain<const WORDS: usize>(sink: &Sink, mut pop: impl FnMut() -> Option<Payload<WORDS>>) -> usize {
    let mut came = 0;
    while came < CELLS {
        let Some(payload) = pop() else { break };
        sink.take(&payload);
        came += 1;
    }
    came
}

/// `rtrb`: a queue with a private copy of the other side's index.
pub struct Rtrb;
pub struct RtrbEnd<const WORDS: usize> {
    out: rtrb::Producer<Payload<WORDS>>,
    into: rtrb::Consumer<Payload<WORDS>>,
    sink: Arc<Sink>,
}

impl Contender for Rtrb {
    const NAME: &'static str = "rtrb";
    const CELLS: usize = CELLS;
    type Link<const WORDS: usize> = [Apart<RtrbEnd<WORDS>>; 2];
}

impl<const WORDS: usize> Link<WORDS> for [Apart<RtrbEnd<WORDS>>; 2] {
    fn new([near, far]: [Arc<Sink>; 2]) -> Self {
        let (to_far, at_far) = rtrb::RingBuffer::new(CELLS);
        let (to_near, at_near) = rtrb::RingBuffer::new(CELLS);
        [
            Apart(RtrbEnd { out: to_far, into: at_near, sink: near }),
            Apart(RtrbEnd { out: to_near, into: at_far, sink: far }),
        ]
    }
    fn ends(&mut self) -> [impl End<WORDS>; 2] {
        self.each_mut()
    }
}

impl<const WORDS: usize> End<WORDS> for &mut Apart<RtrbEnd<WORDS>> {
    #[inline(always)]
    fn try_send(&mut self, payload: &Payload<WORDS>) -> bool {
        self.0.out.push(*payload).is_ok()
    }
    #[inline(always)]
    fn poll(&mut self) -> usize {
        drain(&self.0.sink, || self.0.into.pop().ok())
    }
}

/// `ringbuf`, with its caching ends.
pub struct Ringbuf;
pub struct RingbufEnd<const WORDS: usize> {
    out: ringbuf::HeapProd<Payload<WORDS>>,
    into: ringbuf::HeapCons<Payload<WORDS>>,
    sink: Arc<Sink>,
}

impl Contender for Ringbuf {
    const NAME: &'static str = "ringbuf";
    const CELLS: usize = CELLS;
    type Link<const WORDS: usize> = [Apart<RingbufEnd<WORDS>>; 2];
}

impl<const WORDS: usize> Link<WORDS> for [Apart<RingbufEnd<WORDS>>; 2] {
    fn new([near, far]: [Arc<Sink>; 2]) -> Self {
        let (to_far, at_far) = ringbuf::HeapRb::new(CELLS).split();
        let (to_near, at_near) = ringbuf::HeapRb::new(CELLS).split();
        [
            Apart(RingbufEnd { out: to_far, into: at_near, sink: near }),
            Apart(RingbufEnd { out: to_near, into: at_far, sink: far }),
        ]
    }
    fn ends(&mut self) -> [impl End<WORDS>; 2] {
        self.each_mut()
    }
}

impl<const WORDS: usize> End<WORDS> for &mut Apart<RingbufEnd<WORDS>> {
    #[inline(always)]
    fn try_send(&mut self, payload: &Payload<WORDS>) -> bool {
        self.0.out.try_push(*payload).is_ok()
    }
    #[inline(always)]
    fn poll(&mut self) -> usize {
        drain(&self.0.sink, || self.0.into.try_pop())
    }
}

/// `heapless::spsc`: both indices shared. One of its cells stays empty.
pub struct Heapless;
pub struct HeaplessLink<const WORDS: usize> {
    queues: [Box<Apart<heapless::spsc::Queue<Payload<WORDS>, CELLS>>>; 2],
    sinks: [Arc<Sink>; 2],
}
struct HeaplessEnd<'a, const WORDS: usize> {
    out: heapless::spsc::Producer<'a, Payload<WORDS>>,
    into: heapless::spsc::Consumer<'a, Payload<WORDS>>,
    sink: &'a Sink,
}

impl Contender for Heapless {
    const NAME: &'static str = "heapless::spsc";
    const CELLS: usize = CELLS;
    type Link<const WORDS: usize> = HeaplessLink<WORDS>;
}

impl<const WORDS: usize> Link<WORDS> for HeaplessLink<WORDS> {
    fn new(sinks: [Arc<Sink>; 2]) -> Self {
        Self { queues: [(); 2].map(|()| Box::new(Apart(heapless::spsc::Queue::new()))), sinks }
    }
    fn ends(&mut self) -> [impl End<WORDS>; 2] {
        let ([there, back], [near, far]) = (&mut self.queues, &self.sinks);
        let ((to_far, at_far), (to_near, at_near)) = (there.0.split(), back.0.split());
        [
            HeaplessEnd { out: to_far, into: at_near, sink: near },
            HeaplessEnd { out: to_near, into: at_far, sink: far },
        ]
    }
}

impl<const WORDS: usize> End<WORDS> for HeaplessEnd<'_, WORDS> {
    #[inline(always)]
    fn try_send(&mut self, payload: &Payload<WORDS>) -> bool {
        self.out.enqueue(*payload).is_ok()
    }
    #[inline(always)]
    fn poll(&mut self) -> usize {
        drain(self.sink, || self.into.dequeue())
    }
}

/// `crossbeam_queue::ArrayQueue`: many senders and receivers; a stamp in each cell.
pub struct Crossbeam;
pub struct CrossbeamLink<const WORDS: usize> {
    queues: [crossbeam_queue::ArrayQueue<Payload<WORDS>>; 2],
    sinks: [Arc<Sink>; 2],
}
struct CrossbeamEnd<'a, const WORDS: usize> {
    out: &'a crossbeam_queue::ArrayQueue<Payload<WORDS>>,
    into: &'a crossbeam_queue::ArrayQueue<Payload<WORDS>>,
    sink: &'a Sink,
}

impl Contender for Crossbeam {
    const NAME: &'static str = "crossbeam-queue";
    const CELLS: usize = CELLS;
    type Link<const WORDS: usize> = CrossbeamLink<WORDS>;
}

impl<const WORDS: usize> Link<WORDS> for CrossbeamLink<WORDS> {
    fn new(sinks: [Arc<Sink>; 2]) -> Self {
        Self { queues: [(); 2].map(|()| crossbeam_queue::ArrayQueue::new(CELLS)), sinks }
    }
    fn ends(&mut self) -> [impl End<WORDS>; 2] {
        let ([there, back], [near, far]) = (&self.queues, &self.sinks);
        [
            CrossbeamEnd { out: there, into: back, sink: near },
            CrossbeamEnd { out: back, into: there, sink: far },
        ]
    }
}

impl<const WORDS: usize> End<WORDS> for CrossbeamEnd<'_, WORDS> {
    #[inline(always)]
    fn try_send(&mut self, payload: &Payload<WORDS>) -> bool {
        self.out.push(*payload).is_ok()
    }
    #[inline(always)]
    fn poll(&mut self) -> usize {
        drain(self.sink, || self.into.pop())
    }
}
