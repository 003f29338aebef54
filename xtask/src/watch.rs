// SPDX-License-Identifier: MIT OR Apache-2.0
//! Decides whether a machine is hung. Log lines do not count as progress, because a kernel that waits for a dead kernel can print
//! warnings for ever.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::record::Record;

/// Watches the machine, and each kernel that receives a stream.
pub struct Watch {
    /// If the machine, or a kernel in `working`, makes no progress for this time, the machine is hung.
    quiet: Duration,
    /// The moment at which the time limit `hard` is reached.
    end: Instant,
    /// The time limit of the run.
    hard: Duration,
    /// The time of the last progress of the machine.
    last: Instant,
    /// The kernels whose streams are not complete: the number in the last progress record, and the time when the number changed.
    working: BTreeMap<u32, (u64, Instant)>,
}

impl Watch {
    /// Begins to watch a machine that starts at `now`. The machine is hung if it makes no progress for `quiet`, or if it runs
    /// longer than `hard`.
    pub fn new(now: Instant, quiet: Duration, hard: Duration) -> Self {
        Self { quiet, hard, end: now + hard, last: now, working: BTreeMap::new() }
    }

    /// Handles a record. Each record is progress of the machine, except a progress record with the same number as the one before.
    /// A smaller number than before is progress too, because then a new stream has begun. A step of the Linux scenario is
    /// reported at its end, when its streams have ended. So after it no kernel is expected to make progress.
    pub fn saw(&mut self, record: &Record, now: Instant) {
        match record {
            Record::Progress(p) if self.working.get(&p.kernel).is_some_and(|(done, _)| *done == p.done) => {
                return
            }
            Record::Progress(p) if p.done < p.total => {
                self.working.insert(p.kernel, (p.done, now));
            }
            Record::Progress(p) => {
                self.working.remove(&p.kernel);
            }
            Record::Step(_) => self.working.clear(),
            _ => {}
        }
        self.last = now;
    }

    /// Returns the reason if the machine must be stopped.
    pub fn overdue(&self, now: Instant) -> Option<String> {
        let quiet = self.quiet.as_secs();
        if now >= self.end {
            return Some(format!("the run did not end within {} s", self.hard.as_secs()));
        }
        if now.duration_since(self.last) >= self.quiet {
            return Some(format!("no kernel made progress for {quiet} s"));
        }
        let stuck = self.working.iter().find(|(_, (_, at))| now.duration_since(*at) >= self.quiet)?;
        Some(format!("kernel {} stayed at {} messages for {quiet} s", stuck.0, stuck.1 .0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Progress, Step};

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    fn progress(kernel: u32, done: u64) -> Record {
        Record::Progress(Progress { kernel, done, total: 100 })
    }

    fn watch(start: Instant) -> Watch {
        Watch::new(start, Duration::from_secs(30), Duration::from_secs(100))
    }

    #[test]
    fn silence_is_a_hang() {
        let start = Instant::now();
        let mut w = watch(start);
        assert_eq!(w.overdue(at(start, 29)), None);
        assert!(w.overdue(at(start, 30)).is_some());
        w.saw(&Record::Done { ok: true }, at(start, 29));
        assert_eq!(w.overdue(at(start, 58)), None);
        assert!(w.overdue(at(start, 59)).is_some());
    }

    #[test]
    fn one_kernel_that_stands_still_is_a_hang_though_others_go_on() {
        let start = Instant::now();
        let mut w = watch(start);
        w.saw(&progress(1, 10), at(start, 1));
        for second in 2..31 {
            w.saw(&progress(0, second), at(start, second));
            w.saw(&progress(1, 10), at(start, second));
            assert_eq!(w.overdue(at(start, second)), None);
        }
        assert!(w.overdue(at(start, 31)).is_some_and(|why| why.contains("kernel 1 stayed at 10 messages")));
    }

    #[test]
    fn a_kernel_that_is_done_may_rest() {
        let start = Instant::now();
        let mut w = watch(start);
        w.saw(&progress(1, 100), at(start, 1));
        w.saw(&progress(0, 50), at(start, 29));
        assert_eq!(w.overdue(at(start, 50)), None);
    }

    #[test]
    fn a_new_stream_begins_with_less() {
        let start = Instant::now();
        let mut w = watch(start);
        w.saw(&progress(0, 90), at(start, 1));
        w.saw(&progress(0, 10), at(start, 29));
        assert_eq!(w.overdue(at(start, 40)), None);
        let step = Step { name: "stream".into(), ok: true, detail: String::new() };
        w.saw(&Record::Step(step), at(start, 41));
        for second in [50, 65] {
            w.saw(&Record::Cycles { done: second }, at(start, second));
        }
        assert_eq!(w.overdue(at(start, 75)), None, "no kernel streams");
    }

    #[test]
    fn the_hard_bound_holds_for_the_busy_too() {
        let start = Instant::now();
        let mut w = watch(start);
        for second in 0..100 {
            w.saw(&Record::Done { ok: true }, at(start, second));
        }
        assert_eq!(w.overdue(at(start, 99)), None);
        assert!(w.overdue(at(start, 100)).is_some());
    }
}
