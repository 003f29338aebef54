// SPDX-License-Identifier: MIT OR Apache-2.0
//! The native link, with kernels that poll. It is measured from the send of a typed message to the call of its handler.

use std::mem;
use std::sync::Arc;

use mk_ipi_core::abi::native::Geometry;
use mk_ipi_core::abi::InstanceId;
use mk_ipi_core::sync::AtomicU64;
use mk_ipi_core::{InstanceRef, Poller};
use zerocopy::IntoBytes;

use super::host::{self, Memory, NUMBERED};
use super::{lines_of, ToSink, LINE_BYTES};
use crate::link::{Contender, End, Kind, Link, Room, BATCH};
use crate::message::{Payload, Sink};

type Kernel<const WORDS: usize, const CPUS: usize> = host::Kernel<AtomicU64, ToSink<WORDS>, CPUS>;

/// The contenders whose lanes have this number of lines: with endpoints for one CPU, and with endpoints for 4 CPUs.
pub fn contenders<const WORDS: usize>(kind: Kind, lines: usize) -> Vec<Contender> {
    let one = each_call::<WORDS, 1>(kind, lines, "1 CPU");
    one.into_iter().chain(each_call::<WORDS, 4>(kind, lines, "4 CPUs")).collect()
}

/// A contender for each way to send: `send`, `post`, `post_many`.
fn each_call<const WORDS: usize, const CPUS: usize>(kind: Kind, lines: usize, cpus: &str) -> Vec<Contender> {
    let name = |calls: &str| format!("mk-ipi {calls}, {cpus}, {lines} lines");
    let room = Room { messages: lines / lines_of(8 * WORDS), memory_bytes: lines * LINE_BYTES };
    let sending = move |sinks| Native::<WORDS, CPUS, false>::new(sinks, lines);
    let posting = move |sinks| Native::<WORDS, CPUS, true>::new(sinks, lines);
    let mut all = vec![Contender::new::<WORDS, false, _>(name("send"), room, sending)];
    // In a round trip a flush follows each post, which is the same as a send.
    if kind == Kind::Stream {
        all.push(Contender::new::<WORDS, false, _>(name("post"), room, posting));
    }
    all.push(Contender::new::<WORDS, true, _>(name("post_many"), room, posting));
    all.into_iter().map(Contender::ours).collect()
}

/// The ids of the kernels.
const KERNELS: [u8; 2] = [0, 1];

/// Two kernels with a native link. With `POST`, single messages are sent with `post`, and `flush` is called after several of
/// them.
struct Native<const WORDS: usize, const CPUS: usize, const POST: bool> {
    kernels: [Box<Kernel<WORDS, CPUS>>; 2],
    sinks: [Arc<Sink>; 2],
}

impl<const WORDS: usize, const CPUS: usize, const POST: bool> Native<WORDS, CPUS, POST> {
    fn new(sinks: [Arc<Sink>; 2], lines: usize) -> Self {
        let max_len = (8 * WORDS as u32).max(mk_ipi_core::abi::native::DEFAULT_MAX_LEN);
        let geometry = Geometry::new(KERNELS.len() as u32, lines as u32, max_len)
            .expect("lanes and lines within bounds");
        let memory = Memory::new(KERNELS.len() as u64 * geometry.total_size());
        let [a, b] = KERNELS;
        let [near, far] = sinks.clone().map(ToSink);
        let kernels = [host::kernel(&memory, a, near), host::kernel(&memory, b, far)];
        host::link([(&kernels[0], a, geometry), (&kernels[1], b, geometry)]);
        Self { kernels, sinks }
    }
}

impl<const WORDS: usize, const CPUS: usize, const POST: bool> Link<WORDS> for Native<WORDS, CPUS, POST> {
    fn ends(&mut self) -> [impl End<WORDS>; 2] {
        let [a, b] = KERNELS.map(InstanceId::new);
        let ([near, far], [near_sink, far_sink]) = (&self.kernels, &self.sinks);
        [(near, b, near_sink), (far, a, far_sink)].map(|(kernel, peer, sink)| Held::<WORDS, CPUS, POST> {
            kernel,
            peer,
            held: kernel.instance(peer).expect("the peer is attached"),
            poller: kernel.poller().expect("there is no other poller"),
            sink,
            came: sink.came(),
        })
    }
}

/// One end of the link. It keeps a reference to its peer, and a poller, so that nothing is looked up for each message.
struct Held<'a, const WORDS: usize, const CPUS: usize, const POST: bool> {
    kernel: &'a Kernel<WORDS, CPUS>,
    peer: InstanceId,
    held: InstanceRef<'a, AtomicU64>,
    poller: Poller<'a, host::Host<AtomicU64>, ToSink<WORDS>, CPUS, 1, 16>,
    sink: &'a Sink,
    /// How many messages the sink had counted after the last `receive`.
    came: u64,
}

impl<const WORDS: usize, const CPUS: usize, const POST: bool> End<WORDS> for Held<'_, WORDS, CPUS, POST> {
    #[inline(always)]
    fn send(&mut self, payload: &Payload<WORDS>) -> bool {
        if POST {
            self.kernel.post_held(&self.held, NUMBERED, payload.as_bytes()).is_ok()
        } else {
            self.kernel.send_held(&self.held, NUMBERED, payload.as_bytes()).is_ok()
        }
    }

    #[inline(always)]
    fn send_many(&mut self, payloads: &[Payload<WORDS>]) -> usize {
        let mut bytes = [&[][..]; BATCH];
        bytes.iter_mut().zip(payloads).for_each(|(bytes, payload)| *bytes = payload.as_bytes());
        let bytes = &bytes[..payloads.len().min(BATCH)];
        self.kernel.post_many_held(&self.held, NUMBERED, bytes).unwrap_or(0)
    }

    #[inline(always)]
    fn flush(&mut self) {
        if POST {
            self.kernel.flush(self.peer).expect("a native link");
        }
    }

    #[inline(always)]
    fn receive(&mut self, _: usize) -> usize {
        if self.poller.poll() == 0 {
            return 0;
        }
        // The result of `poll` also counts events. The sink counts only messages.
        let before = mem::replace(&mut self.came, self.sink.came());
        (self.came - before) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Handler;

    #[test]
    fn what_is_sent_is_received() {
        let sinks = Sink::pair(Handler::Heavy);
        let mut link = Native::<6, 1, false>::new(sinks.clone(), 64);
        let [mut near, mut far]: [_; 2] = Link::<6>::ends(&mut link);
        // Not every poll reads the lane of a peer that has not sent lately. So poll often enough.
        let mut receive = || (0..200).map(|_| far.receive(1)).sum::<usize>();
        for n in 0..1000 {
            assert!(near.send(&Payload::numbered(n)), "{n}");
            assert_eq!(receive(), 1, "{n}");
        }
        let payloads = [1000, 1001, 1002].map(Payload::numbered);
        assert_eq!(near.send_many(&payloads), 3);
        near.flush();
        assert_eq!(receive(), 3);
        assert_eq!(sinks[1].check(1003), Ok(()));
    }
}
