// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is measured and how: two pinned threads, a link between them, messages that are checked to the last byte.

use std::array;
use std::fmt;
use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Instant;

use core_affinity::CoreId;
use mk_ipi_core::sync::{AtomicU64, Ordering};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A message of `WORDS` times 8 bytes: its number, and further numbers made of that and their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(transparent)]
pub struct Payload<const WORDS: usize>([u64; WORDS]);

impl<const WORDS: usize> Payload<WORDS> {
    /// Message number `n`.
    #[inline(always)]
    pub fn numbered(n: u64) -> Self {
        Self(array::from_fn(|place| word(n, place)))
    }

    /// Reads every byte: whether this is message number `n`, whole.
    #[inline(always)]
    fn is_numbered(&self, n: u64) -> bool {
        // Without an early end: all words are read, in good messages and bad.
        self.0.iter().enumerate().fold(0, |differs, (place, found)| differs | (found ^ word(n, place))) == 0
    }
}

const fn word(n: u64, place: usize) -> u64 {
    n.wrapping_add((place as u64) << 48)
}

/// Where a receiver puts what arrives: it wants the messages 0, 1, 2 and so on, each whole and once.
#[derive(Debug)]
#[repr(align(128))]
pub struct Sink {
    /// How many came. Atomic because a handler has no more than a shared reference; written by one thread.
    count: AtomicU64,
    /// How many of them were not what they had to be.
    bad: AtomicU64,
}

impl Sink {
    fn new() -> Arc<Self> {
        Arc::new(Self { count: AtomicU64::new(0), bad: AtomicU64::new(0) })
    }

    /// Takes the next message.
    #[inline(always)]
    pub fn take<const WORDS: usize>(&self, payload: &Payload<WORDS>) {
        let n = self.count.load(Ordering::Relaxed);
        self.count.store(n.wrapping_add(1), Ordering::Relaxed);
        if !payload.is_numbered(n) {
            self.reject();
        }
    }

    /// Counts a message that is not even of the right size, or is not the one that had to come.
    #[cold]
    pub fn reject(&self) {
        self.bad.store(self.bad.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    fn check(&self, sent: u64) -> Result<(), Broken> {
        let (came, bad) = (self.count.load(Ordering::Relaxed), self.bad.load(Ordering::Relaxed));
        if came == sent && bad == 0 {
            Ok(())
        } else {
            Err(Broken::Delivery { sent, came, bad })
        }
    }
}

/// Why a measurement is worth nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Not every message came, or not once, or not in order, or not whole.
    Delivery {
        /// Messages sent.
        sent: u64,
        /// Messages that came.
        came: u64,
        /// Those of them that were not what had to come.
        bad: u64,
    },
    /// One side waited for the other without end.
    Stalled,
    /// The operating system did not let the thread run on this CPU alone.
    NotPinned(usize),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delivery { sent, came, bad } => {
                write!(f, "{sent} messages sent, {came} came, {bad} of them wrong")
            }
            Self::Stalled => write!(f, "stalled: a side waited for the other without end"),
            Self::NotPinned(cpu) => write!(f, "cannot pin a thread to CPU {cpu}"),
        }
    }
}

impl std::error::Error for Broken {}

/// A kind of link to be measured.
pub trait Contender {
    /// What the table calls it.
    const NAME: &'static str;
    /// How many messages it can hold in one direction.
    const CELLS: usize;
    /// The link for one size of message.
    type Link<const WORDS: usize>: Link<WORDS>;
}

/// A link in both directions between two threads.
pub trait Link<const WORDS: usize>: Sized {
    /// A new one. What arrives at end 0 goes to `sinks[0]`, what arrives at end 1 to `sinks[1]`.
    fn new(sinks: [Arc<Sink>; 2]) -> Self;
    /// Both ends.
    fn ends(&mut self) -> [impl End<WORDS>; 2];
}

/// One thread's end of a link.
pub trait End<const WORDS: usize>: Send {
    /// Sends a message; false, with nothing changed, if there is no space.
    fn try_send(&mut self, payload: &Payload<WORDS>) -> bool;
    /// As `try_send`, but the message may wait for `flush`.
    #[inline(always)]
    fn try_post(&mut self, payload: &Payload<WORDS>) -> bool {
        self.try_send(payload)
    }
    /// Has the other side see to what was posted.
    fn flush(&mut self) {}
    /// Gives what has arrived to the sink, oldest first; how many.
    fn poll(&mut self) -> usize;
}

/// Kept away from what the other thread writes: prefetchers fetch lines in pairs.
#[repr(align(128))]
pub struct Apart<T>(pub T);

/// The two CPUs.
#[derive(Clone, Copy, Debug)]
pub struct Cpus(pub [CoreId; 2]);

/// Nanoseconds per round trip of one cache line: what no link can be faster than.
pub fn floor(cpus: Cpus, trips: u64) -> Result<f64, Broken> {
    let line = Apart(AtomicU64::new(0));
    let warm_up = warm_up(trips);
    let trip = |n| {
        line.0.store(2 * n + 1, Ordering::Release);
        insist(|| line.0.load(Ordering::Acquire) == 2 * n + 2)
    };
    let there = || {
        (0..warm_up).try_for_each(trip)?;
        let start = Instant::now();
        (warm_up..warm_up + trips).try_for_each(trip)?;
        Ok(nanos_each(start, trips))
    };
    let back = || {
        (0..warm_up + trips).try_for_each(|n| {
            insist(|| line.0.load(Ordering::Acquire) == 2 * n + 1)?;
            line.0.store(2 * n + 2, Ordering::Release);
            Ok(())
        })
    };
    on_two_cpus(cpus, there, back)
}

/// Nanoseconds per round trip of a message of `WORDS` words: one there, then one of the same size back.
pub fn round_trip<C: Contender, const WORDS: usize>(cpus: Cpus, trips: u64) -> Result<f64, Broken> {
    let sinks = [Sink::new(), Sink::new()];
    let mut link = C::Link::<WORDS>::new(sinks.clone());
    let warm_up = warm_up(trips);
    let [mut near, mut far] = link.ends();
    let there = move || {
        let mut run = |first, count| {
            (first..first + count).try_for_each(|n| {
                send(&mut near, n)?;
                insist(|| near.poll() > 0)
            })
        };
        run(0, warm_up)?;
        let start = Instant::now();
        run(warm_up, trips)?;
        Ok(nanos_each(start, trips))
    };
    let back = move || {
        (0..warm_up + trips).try_for_each(|n| {
            insist(|| far.poll() > 0)?;
            send(&mut far, n)
        })
    };
    let nanos = on_two_cpus(cpus, there, back)?;
    finish(link, &sinks, [warm_up + trips; 2])?;
    Ok(nanos)
}

/// Nanoseconds per message of `WORDS` words, sent one after the other as fast as the link takes them.
///
/// The receiver's clock alone is read.
pub fn stream<C: Contender, const WORDS: usize>(cpus: Cpus, messages: u64) -> Result<f64, Broken> {
    let sinks = [Sink::new(), Sink::new()];
    let mut link = C::Link::<WORDS>::new(sinks.clone());
    let warm_up = warm_up(messages);
    let [mut near, mut far] = link.ends();
    let receive = move || {
        let mut came = 0;
        let mut until = |wanted: u64| {
            insist(|| {
                came += near.poll() as u64;
                came >= wanted
            })?;
            Ok(came)
        };
        let before = until(warm_up)?;
        let start = Instant::now();
        let after = until(warm_up + messages)?;
        Ok(nanos_each(start, after - before))
    };
    let send = move || {
        for n in 0..warm_up + messages {
            let payload = Payload::numbered(n);
            let payload = black_box(&payload);
            insist(|| {
                let posted = far.try_post(payload);
                if !posted {
                    // Whoever waits first says what there is.
                    far.flush();
                }
                posted
            })?;
        }
        far.flush();
        Ok(())
    };
    let nanos = on_two_cpus(cpus, receive, send)?;
    finish(link, &sinks, [warm_up + messages, 0])?;
    Ok(nanos)
}

/// Nothing may be left in the link, and each sink must have had what was `sent` to it.
fn finish<const WORDS: usize>(
    mut link: impl Link<WORDS>,
    sinks: &[Arc<Sink>; 2],
    sent: [u64; 2],
) -> Result<(), Broken> {
    for mut end in link.ends() {
        end.poll();
    }
    sinks.iter().zip(sent).try_for_each(|(sink, sent)| sink.check(sent))
}

/// Messages before the clock starts.
const fn warm_up(messages: u64) -> u64 {
    messages / 10 + 1
}

fn nanos_each(start: Instant, count: u64) -> f64 {
    start.elapsed().as_secs_f64() * 1e9 / count as f64
}

#[inline(always)]
fn send<const WORDS: usize>(end: &mut impl End<WORDS>, n: u64) -> Result<(), Broken> {
    let payload = Payload::numbered(n);
    // The message is in memory, as a program has it: no link may have it built in its cell.
    let payload = black_box(&payload);
    insist(|| end.try_send(payload))
}

/// Fruitless tries after which the CPU is offered to others, should the two threads share one.
const OFFER: u64 = 1 << 16;
/// Fruitless tries, minutes of them even on a busy machine, after which the other side is held dead.
const PATIENCE: u64 = 1 << 37;

/// Tries until it succeeds.
#[inline(always)]
fn insist(mut attempt: impl FnMut() -> bool) -> Result<(), Broken> {
    let mut tries = 0;
    while !attempt() {
        tries += 1;
        if tries % OFFER == 0 {
            wait(tries)?;
        }
    }
    Ok(())
}

#[cold]
fn wait(tries: u64) -> Result<(), Broken> {
    thread::yield_now();
    if tries < PATIENCE {
        Ok(())
    } else {
        Err(Broken::Stalled)
    }
}

/// Runs both at the same time, each on a CPU of its own; gives what the first gives.
fn on_two_cpus<T: Send>(
    cpus: Cpus,
    first: impl FnOnce() -> Result<T, Broken> + Send,
    second: impl FnOnce() -> Result<(), Broken> + Send,
) -> Result<T, Broken> {
    let Cpus([a, b]) = cpus;
    let start = Barrier::new(2);
    let pin = |cpu: CoreId| {
        let pinned = core_affinity::set_for_current(cpu);
        start.wait();
        pinned.then_some(()).ok_or(Broken::NotPinned(cpu.id))
    };
    thread::scope(|scope| {
        let second = scope.spawn(|| pin(b).and_then(|()| second()));
        let first = scope.spawn(|| pin(a).and_then(|()| first()));
        let joined = |_| Broken::Stalled;
        let first = first.join().map_err(joined)?;
        second.join().map_err(joined)??;
        first
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(numbers: impl IntoIterator<Item = u64>) -> Result<(), Broken> {
        let sink = Sink::new();
        numbers.into_iter().for_each(|n| sink.take(&Payload::<6>::numbered(n)));
        sink.check(4)
    }

    #[test]
    fn what_is_lost_doubled_or_out_of_order_is_noticed() {
        assert_eq!(taken([0, 1, 2, 3]), Ok(()));
        for bad in [&[0, 1, 2][..], &[0, 1, 3], &[0, 1, 1, 2], &[0, 1, 2, 3, 3], &[0, 2, 1, 3], &[]] {
            assert!(taken(bad.iter().copied()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn every_bit_counts() {
        let whole = Payload::<32>::numbered(7);
        assert!(whole.is_numbered(7) && !whole.is_numbered(8));
        for bit in 0..256 * 8 {
            let mut torn = whole;
            torn.0[bit / 64] ^= 1 << (bit % 64);
            assert!(!torn.is_numbered(7), "bit {bit}");
        }
    }

    #[test]
    fn a_mix_of_two_messages_is_noticed() {
        let sink = Sink::new();
        let mut torn = Payload::<6>::numbered(0);
        torn.0[5] = Payload::<6>::numbered(1).0[5];
        sink.take(&torn);
        assert_eq!(sink.check(1), Err(Broken::Delivery { sent: 1, came: 1, bad: 1 }));
    }

    /// A queue that forgets its oldest message when it is full.
    struct Forgetful;
    struct ForgetfulLink([std::sync::Mutex<Vec<u64>>; 2], [Arc<Sink>; 2]);
    struct ForgetfulEnd<'a>(&'a ForgetfulLink, usize);

    impl Contender for Forgetful {
        const NAME: &'static str = "forgetful";
        const CELLS: usize = 4;
        type Link<const WORDS: usize> = ForgetfulLink;
    }
    impl<const WORDS: usize> Link<WORDS> for ForgetfulLink {
        fn new(sinks: [Arc<Sink>; 2]) -> Self {
            Self(Default::default(), sinks)
        }
        fn ends(&mut self) -> [impl End<WORDS>; 2] {
            [0, 1].map(|end| ForgetfulEnd(self, end))
        }
    }
    impl<const WORDS: usize> End<WORDS> for ForgetfulEnd<'_> {
        fn try_send(&mut self, payload: &Payload<WORDS>) -> bool {
            let mut queue = self.0 .0[1 - self.1].lock().expect("no panic holds it");
            if queue.len() == 4 {
                queue.remove(0);
            }
            queue.push(payload.0[0]);
            true
        }
        fn poll(&mut self) -> usize {
            let came = std::mem::take(&mut *self.0 .0[self.1].lock().expect("no panic holds it"));
            came.iter().for_each(|n| self.0 .1[self.1].take(&Payload::<WORDS>::numbered(*n)));
            came.len()
        }
    }

    #[test]
    fn a_broken_queue_cannot_win() {
        let mut link = ForgetfulLink(Default::default(), [Sink::new(), Sink::new()]);
        let sinks = link.1.clone();
        {
            let [_, mut far]: [_; 2] = Link::<6>::ends(&mut link);
            (0..5).for_each(|n| assert!(far.try_send(&Payload::numbered(n))));
        }
        assert!(matches!(finish::<6>(link, &sinks, [5, 0]), Err(Broken::Delivery { sent: 5, came: 4, .. })));
    }

    #[test]
    fn a_good_queue_is_measured() {
        let cpus = core_affinity::get_core_ids().expect("the CPUs");
        let cpus = Cpus([cpus[0], cpus[cpus.len() - 1]]);
        assert!(round_trip::<Forgetful, 6>(cpus, 100).expect("never more than one message") > 0.0);
        assert!(floor(cpus, 100).expect("a cache line") > 0.0);
    }
}
