// SPDX-License-Identifier: MIT OR Apache-2.0
//! `crossbeam_queue::ArrayQueue`, a queue for many senders and many receivers. Each cell has a stamp. The queue has no call for
//! many messages.

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use super::{contender, drain};
use crate::link::{Contender, End};
use crate::message::{Payload, Sink};
use crate::pair::Apart;

/// Bytes of the stamp, which each cell has in addition to the message.
pub const STAMP: usize = size_of::<usize>();

/// The contender with this number of cells.
pub fn crossbeam<const WORDS: usize>(room: &str, cells: usize) -> Contender {
    let memory = cells * (STAMP + size_of::<Payload<WORDS>>());
    contender::<WORDS, false, _>("crossbeam ArrayQueue (MPMC)", room, cells, memory, move |[near, far]| {
        let [there, back] = [(); 2].map(|()| Arc::new(Apart(ArrayQueue::new(cells))));
        let end = |out, into, sink| Apart(Crossbeam::<WORDS> { out, into, sink });
        [end(there.clone(), back.clone(), near), end(back, there, far)]
    })
}

type Shared<const WORDS: usize> = Arc<Apart<ArrayQueue<Payload<WORDS>>>>;

struct Crossbeam<const WORDS: usize> {
    out: Shared<WORDS>,
    into: Shared<WORDS>,
    sink: Arc<Sink>,
}

impl<const WORDS: usize> End<WORDS> for Crossbeam<WORDS> {
    #[inline(always)]
    fn send(&mut self, payload: &Payload<WORDS>) -> bool {
        self.out.0.push(*payload).is_ok()
    }

    #[inline(always)]
    fn receive(&mut self, most: usize) -> usize {
        drain(&self.sink, most, || self.into.0.pop())
    }
}
