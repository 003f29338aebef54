// SPDX-License-Identifier: MIT OR Apache-2.0
//! Measures contenders: the links of mk-ipi, and other queues.

use std::fmt;
use std::hint::black_box;
use std::slice;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use crate::message::{Broken, Handler, Payload, Sink};
use crate::pair::{nanos_each, part, until, Apart, Counts, Pause, Setting};

/// One thread's end of a link in both directions.
pub trait End<const WORDS: usize>: Send {
    /// Sends a message. Returns false, and changes nothing, if there is no space.
    fn send(&mut self, payload: &Payload<WORDS>) -> bool;
    /// Sends as many of the messages as there is space for, beginning with the first. Uses one call for all of them, if the link
    /// has such a call. Returns how many were sent.
    fn send_many(&mut self, payloads: &[Payload<WORDS>]) -> usize {
        payloads.iter().take_while(|payload| self.send(payload)).count()
    }
    /// Tells the other side that there are messages, if the link needs that.
    fn flush(&mut self) {}
    /// Receives messages, and passes them to the sink, oldest first. Returns how many. Stops after `most` messages, if the link
    /// can do that.
    fn receive(&mut self, most: usize) -> usize;
}

/// A link between two threads.
pub trait Link<const WORDS: usize> {
    /// The two ends of the link, one for each thread.
    fn ends(&mut self) -> [impl End<WORDS>; 2];
}

/// A link that consists only of its two ends, which are kept on different cache lines.
impl<const WORDS: usize, E: End<WORDS>> Link<WORDS> for [Apart<E>; 2] {
    fn ends(&mut self) -> [impl End<WORDS>; 2] {
        self.each_mut()
    }
}

impl<const WORDS: usize, E: End<WORDS>> End<WORDS> for &mut Apart<E> {
    #[inline(always)]
    fn send(&mut self, payload: &Payload<WORDS>) -> bool {
        self.0.send(payload)
    }
    #[inline(always)]
    fn send_many(&mut self, payloads: &[Payload<WORDS>]) -> usize {
        self.0.send_many(payloads)
    }
    #[inline(always)]
    fn flush(&mut self) {
        self.0.flush();
    }
    #[inline(always)]
    fn receive(&mut self, most: usize) -> usize {
        self.0.receive(most)
    }
}

/// What the two threads do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Kind {
    /// The first thread sends one message. When the second thread has received it, it sends one of the same size back.
    RoundTrip,
    /// One thread sends messages without waiting for answers, as fast as the link accepts them.
    Stream,
}

impl Kind {
    /// The name in files and options.
    pub const fn slug(self) -> &'static str {
        match self {
            Self::RoundTrip => "round_trip",
            Self::Stream => "stream",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.slug().replace('_', " "))
    }
}

/// The kind of calls with which messages are sent and received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Interface {
    /// One call for each message.
    Single,
    /// One call for many messages.
    Batch,
}

impl Interface {
    /// The name in tables and files.
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Batch => "batch",
        }
    }
}

/// The description of a contender.
#[derive(Clone, Debug, Serialize)]
pub struct Label {
    /// The name in the table. No other contender of the workload has this name.
    pub name: String,
    /// Whether the contender is a link of mk-ipi.
    pub ours: bool,
    /// The kind of calls that are measured.
    pub interface: Interface,
    /// The room of the contender.
    #[serde(flatten)]
    pub room: Room,
}

/// The room of a link in one direction.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Room {
    /// How many messages of the workload's size fit.
    pub messages: usize,
    /// Bytes of all cells or lines, without indices and headers.
    pub memory_bytes: usize,
}

/// A measurement to be made.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// The CPUs and the pauses.
    pub setting: Setting,
    /// What the threads do.
    pub kind: Kind,
    /// How many round trips or messages.
    pub counts: Counts,
    /// How much of each message is read.
    pub handler: Handler,
}

/// Average nanoseconds of a round trip or a message, for each pause.
pub type Times = Result<Vec<f64>, Broken>;

/// A link to be measured.
pub struct Contender {
    /// Its description.
    pub label: Label,
    measure: Box<dyn Fn(&Job) -> Times>,
}

impl Contender {
    /// A contender whose links are made by `make`. End 0 of a link must pass the messages that it receives to the first sink, end
    /// 1 to the second. With `MANY`, calls for many messages are used.
    pub fn new<const WORDS: usize, const MANY: bool, L: Link<WORDS>>(
        name: String,
        room: Room,
        make: impl Fn([Arc<Sink>; 2]) -> L + 'static,
    ) -> Self {
        let batch = batch_for(room.messages);
        let measure = Box::new(move |job: &Job| measure::<WORDS, MANY, L>(&make, job, batch));
        let interface = if MANY { Interface::Batch } else { Interface::Single };
        Self { label: Label { name, ours: false, interface, room }, measure }
    }

    /// Marks the contender as a link of mk-ipi.
    pub fn ours(mut self) -> Self {
        self.label.ours = true;
        self
    }

    /// Makes a link, and measures it with each pause.
    pub fn measure(&self, job: &Job) -> Times {
        (self.measure)(job)
    }
}

/// The largest number of messages in a batch.
pub const BATCH: usize = 16;

/// The number of messages in a batch, if the link has room for `messages`. A stream is flushed after each batch. A batch has at
/// most half of the room, so that one end can fill a batch while the other end empties one.
fn batch_for(messages: usize) -> usize {
    (messages / 2).clamp(1, BATCH)
}

fn measure<const WORDS: usize, const MANY: bool, L: Link<WORDS>>(
    make: &impl Fn([Arc<Sink>; 2]) -> L,
    job: &Job,
    batch: usize,
) -> Times {
    let sinks = Sink::pair(job.handler);
    let mut link = make(sinks.clone());
    let total = job.counts.total() * job.setting.pauses.len() as u64;
    let [near, far] = link.ends();
    let (times, sent) = match job.kind {
        Kind::RoundTrip => (round_trip::<WORDS, MANY>(near, far, job)?, [total, total]),
        Kind::Stream => (stream::<WORDS, MANY>(near, far, job, batch)?, [total, 0]),
    };
    finish(&mut link);
    check(&sinks, sent)?;
    Ok(times)
}

/// Receives the messages that are left in the link.
fn finish<const WORDS: usize>(link: &mut impl Link<WORDS>) {
    for mut end in link.ends() {
        end.receive(usize::MAX);
    }
}

/// Checks that each sink got all messages that were `sent` to it, and no others.
fn check(sinks: &[Arc<Sink>; 2], sent: [u64; 2]) -> Result<(), Broken> {
    sinks.iter().zip(sent).try_for_each(|(sink, sent)| sink.check(sent))
}

fn round_trip<const WORDS: usize, const MANY: bool>(
    mut near: impl End<WORDS>,
    mut far: impl End<WORDS>,
    job: &Job,
) -> Times {
    let (counts, mut there, mut back) = (job.counts, 0, 0);
    let near = part(move |pause| {
        counts.time(|| {
            send::<WORDS, MANY>(&mut near, pause, there)?;
            there += 1;
            until(pause, || near.receive(1) > 0)
        })
    });
    let far = part(move |pause| {
        for _ in 0..counts.total() {
            until(pause, || far.receive(1) > 0)?;
            send::<WORDS, MANY>(&mut far, pause, back)?;
            back += 1;
        }
        Ok(())
    });
    job.setting.run(near, far)
}

#[inline(always)]
fn send<const WORDS: usize, const MANY: bool>(
    end: &mut impl End<WORDS>,
    pause: Pause,
    n: u64,
) -> Result<(), Broken> {
    let payload = Payload::numbered(n);
    // In a program the message is in memory before it is sent. `black_box` keeps the compiler from building it directly in a
    // cell of the link.
    let payload = black_box(&payload);
    if MANY {
        until(pause, || end.send_many(slice::from_ref(payload)) == 1)?;
        end.flush();
        Ok(())
    } else {
        until(pause, || end.send(payload))
    }
}

/// Measures a stream. Only the receiver reads the clock. The time does not include the warm-up.
fn stream<const WORDS: usize, const MANY: bool>(
    mut near: impl End<WORDS>,
    mut far: impl End<WORDS>,
    job: &Job,
    batch: usize,
) -> Times {
    let counts = job.counts;
    let (mut came, mut next) = (0, 0);
    let mut payloads = [Payload::numbered(0); BATCH];
    let near = part(move |pause| {
        let [warm, last] = [counts.warm_up, counts.total()].map(|count| came + count);
        let (mut start, mut before) = (None, came);
        while came < last {
            let wanted = if start.is_none() { warm } else { last };
            until(pause, || {
                let now = near.receive((wanted - came) as usize);
                came += now as u64;
                now > 0
            })?;
            if start.is_none() && came >= warm {
                (start, before) = (Some(Instant::now()), came);
            }
        }
        Ok(start.map_or(0.0, |start| nanos_each(start, came - before)))
    });
    let far = part(move |pause| {
        let last = next + counts.total();
        while next < last {
            let now = (last - next).min(batch as u64);
            if MANY {
                let payloads = &mut payloads[..now as usize];
                (next..).zip(&mut *payloads).for_each(|(n, payload)| *payload = Payload::numbered(n));
                send_all(&mut far, pause, payloads)?;
            } else {
                for n in next..next + now {
                    send::<WORDS, false>(&mut far, pause, n)?;
                }
            }
            far.flush();
            next += now;
        }
        Ok(())
    });
    job.setting.run(near, far)
}

/// Sends all messages. Waits for space if there is none.
#[inline(always)]
fn send_all<const WORDS: usize>(
    end: &mut impl End<WORDS>,
    pause: Pause,
    payloads: &[Payload<WORDS>],
) -> Result<(), Broken> {
    let mut rest = black_box(payloads);
    while !rest.is_empty() {
        until(pause, || {
            let sent = end.send_many(rest);
            rest = &rest[sent..];
            sent > 0
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::machine::Cpus;

    /// A faulty queue: when it is full, it drops its oldest message and still says that the new one was sent.
    struct Forgetful(Arc<[Mutex<Vec<u64>>; 2]>, usize, Arc<Sink>);

    impl Forgetful {
        const CELLS: usize = 4;

        fn link([near, far]: [Arc<Sink>; 2]) -> [Apart<Self>; 2] {
            let queues = Arc::new(<[Mutex<Vec<u64>>; 2]>::default());
            [Apart(Self(queues.clone(), 0, near)), Apart(Self(queues, 1, far))]
        }
    }

    impl<const WORDS: usize> End<WORDS> for Forgetful {
        fn send(&mut self, payload: &Payload<WORDS>) -> bool {
            let mut queue = self.0[1 - self.1].lock().expect("no panic holds it");
            if queue.len() == Self::CELLS {
                queue.remove(0);
            }
            queue.push((0..).find(|n| *payload == Payload::numbered(*n)).expect("a number"));
            true
        }
        fn receive(&mut self, _: usize) -> usize {
            let came = std::mem::take(&mut *self.0[self.1].lock().expect("no panic holds it"));
            came.iter().for_each(|n| self.2.take(&Payload::<WORDS>::numbered(*n)));
            came.len()
        }
    }

    #[test]
    fn a_broken_queue_cannot_win() {
        let sinks = Sink::pair(Handler::Light);
        let mut link = Forgetful::link(sinks.clone());
        {
            let [_, mut far]: [_; 2] = Link::<6>::ends(&mut link);
            (0..5).for_each(|n| assert!(far.send(&Payload::numbered(n))));
        }
        finish::<6>(&mut link);
        assert!(matches!(check(&sinks, [5, 0]), Err(Broken::Delivery { sent: 5, came: 4, .. })));
    }

    #[test]
    fn a_good_queue_is_measured() {
        let room = Room { messages: Forgetful::CELLS, memory_bytes: 0 };
        for contender in [
            Contender::new::<6, false, _>("it".into(), room, Forgetful::link),
            Contender::new::<6, true, _>("it".into(), room, Forgetful::link),
        ] {
            let job = Job {
                setting: Setting { cpus: Cpus::allowed(true).expect("a CPU"), pauses: &[0, 1] },
                kind: Kind::RoundTrip,
                counts: Counts { warm_up: 10, timed: 100 },
                handler: Handler::Heavy,
            };
            let times = contender.measure(&job).expect("never more than one message");
            assert!(times.len() == 2 && times.iter().all(|nanos| *nanos > 0.0));
        }
    }

    #[test]
    fn batches_leave_room() {
        assert_eq!([1, 3, 4, 13, 64].map(batch_for), [1, 1, 2, 6, 16]);
    }
}
