// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs two threads that exchange messages, each on its own CPU, and lets them wait for each other.

use std::hint::spin_loop;
use std::thread;
use std::time::{Duration, Instant};

use core_affinity::CoreId;
use mk_ipi_core::sync::{AtomicU64, Ordering};

use crate::machine::{pin, Cpus};
use crate::message::Broken;

/// Keeps a value on cache lines that hold nothing else. It is aligned to two lines, because some CPUs prefetch the neighbour of a
/// line.
#[derive(Debug)]
#[repr(align(128))]
pub struct Apart<T: ?Sized>(pub T);

/// How many spin-loop hints a waiting thread executes between two checks for a message.
///
/// A thread that checks too often takes the cache line away from the thread that writes it. A thread that checks too seldom finds
/// the message late. The best number differs between links, and between machines.
pub type Pause = u32;

/// The CPUs on which the two threads run, and the pauses with which they wait.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The CPUs.
    pub cpus: Cpus,
    /// Each measurement is made once with each of these pauses.
    pub pauses: &'static [Pause],
}

/// The work of one of the two threads. It is done once for each pause. It owns its data: data on the stack of the other thread,
/// or on a cache line with data of the other thread, would make it slower.
pub type Part<'a, T> = Box<Apart<dyn FnMut(Pause) -> Result<T, Broken> + Send + 'a>>;

/// Makes the work of one thread.
pub fn part<'a, T>(each: impl FnMut(Pause) -> Result<T, Broken> + Send + 'a) -> Part<'a, T> {
    Box::new(Apart(each))
}

impl Setting {
    /// Does the work of both threads at the same time. Returns the results of the first thread, one for each pause.
    /// If a thread panics, the result is `Stalled` too.
    pub fn run(&self, mut first: Part<'_, f64>, mut second: Part<'_, ()>) -> Result<Vec<f64>, Broken> {
        let Self { cpus: Cpus([a, b]), pauses } = *self;
        let meeting = &Meeting(Apart(AtomicU64::new(0)));
        thread::scope(|scope| {
            let second = scope.spawn(move || do_part(b, meeting, pauses, &mut second.0));
            let first = scope.spawn(move || do_part(a, meeting, pauses, &mut first.0));
            let joined = |_| Broken::Stalled;
            let first = first.join().map_err(joined)?;
            second.join().map_err(joined)??;
            first
        })
    }
}

fn do_part<T>(
    cpu: CoreId,
    meeting: &Meeting,
    pauses: &[Pause],
    part: &mut dyn FnMut(Pause) -> Result<T, Broken>,
) -> Result<Vec<T>, Broken> {
    pin(cpu)?;
    let turn = |(turn, pause): (u64, &Pause)| {
        meeting.meet(turn)?;
        part(*pause)
    };
    (0..).zip(pauses).map(turn).collect()
}

/// A barrier: each thread waits here until the other one has arrived too.
#[derive(Debug)]
struct Meeting(Apart<AtomicU64>);

impl Meeting {
    fn meet(&self, turn: u64) -> Result<(), Broken> {
        let Self(Apart(arrived)) = self;
        arrived.fetch_add(1, Ordering::AcqRel);
        until(1, || arrived.load(Ordering::Acquire) >= 2 * (turn + 1))
    }
}

/// After this number of checks without success the thread yields its CPU, because both threads may share one.
const OFFER: u32 = 1 << 10;
/// If a thread waits longer than this, the measurement has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `done` returns true. `Stalled` if that takes too long.
#[inline(always)]
pub fn until(pause: Pause, mut done: impl FnMut() -> bool) -> Result<(), Broken> {
    let (mut looks, mut since) = (0, None);
    while !done() {
        (0..pause).for_each(|_| spin_loop());
        looks += 1;
        if looks % OFFER == 0 {
            offer(&mut since)?;
        }
    }
    Ok(())
}

#[cold]
fn offer(since: &mut Option<Instant>) -> Result<(), Broken> {
    thread::yield_now();
    if since.get_or_insert_with(Instant::now).elapsed() < PATIENCE {
        Ok(())
    } else {
        Err(Broken::Stalled)
    }
}

/// How many round trips or messages there are in a measurement.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// How many before the clock starts.
    pub warm_up: u64,
    /// How many while the clock runs.
    pub timed: u64,
}

impl Counts {
    /// How many in all.
    pub const fn total(self) -> u64 {
        self.warm_up + self.timed
    }

    /// Calls `each` as often as this says. Returns the average nanoseconds of a timed call.
    #[inline(always)]
    pub fn time(self, mut each: impl FnMut() -> Result<(), Broken>) -> Result<f64, Broken> {
        let mut start = Instant::now();
        for n in 0..self.total() {
            if n == self.warm_up {
                start = Instant::now();
            }
            each()?;
        }
        Ok(nanos_each(start, self.timed))
    }
}

/// Nanoseconds since `start`, divided by `count`.
pub fn nanos_each(start: Instant, count: u64) -> f64 {
    start.elapsed().as_secs_f64() * 1e9 / count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_run_once_for_each_pause() {
        let setting = Setting { cpus: Cpus::allowed(true).expect("a CPU"), pauses: &[0, 4] };
        let mut calls = 0;
        let second = part(|_| {
            calls += 1;
            Ok(())
        });
        assert_eq!(setting.run(part(|pause| Ok(pause.into())), second), Ok(vec![0.0, 4.0]));
        assert_eq!(calls, 2);
    }

    #[test]
    fn what_either_finds_broken_is_broken() {
        let setting = Setting { cpus: Cpus::allowed(true).expect("a CPU"), pauses: &[1] };
        let broken = Err(Broken::NotPinned(7));
        assert!(setting.run(part(|_| Ok(0.0)), part(move |_| broken)).is_err());
        assert!(setting.run(part(move |_| broken.map(|()| 0.0)), part(|_| Ok(()))).is_err());
    }
}
