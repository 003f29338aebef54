// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel can die after any of its stores. These are small scenarios on the native link (SPEC chapter N). Each is run once
//! for each store of each kernel: the kernel stops at that store, and starts again as its next incarnation. Then everything
//! must continue: each message is handled once. At each death of a receiver, at most one message of a lane may be missing, and
//! its sender must be told.
//!
//! A run ends when nothing is pending any more. No kernel polls, so if a doorbell is missing, work is left at the end.
//! `MK_IPI_SCENARIO_SEEDS` is the number of schedules that are tried; the default is 2. `MK_IPI_SCENARIO_STRIDE` is the number
//! of stores from one point of a double death to the next; the default is 9, and 1 tries all. `cargo xtask scenarios` runs as
//! many as you like.
#![expect(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod verdict;
mod world;

use std::collections::BTreeMap;
use std::sync::Mutex;
use world::{play, Death, Step};
use Step::*;

/// What kernels 0 and 1 do, in addition to receiving messages.
const SCENARIOS: [(&str, [&[Step]; 2]); 11] = [
    ("lives before the receiver's first", [&[Send(3), Reattach, Send(3), Reattach, Send(2)], &[Late]]),
    ("a stream that wraps and fills", [&[Send(13)], &[]]),
    ("streams both ways", [&[Send(7)], &[Send(6)]]),
    ("lives of a sender", [&[Send(3), Reattach, Send(6), Reattach, Reattach, Send(2)], &[]]),
    ("a restart of the receiver", [&[Send(11)], &[Received(3), Restart, Received(5), Restart]]),
    ("lives of both", [&[Send(5), Reattach, Send(5)], &[Send(2), Received(2), Restart, Reattach, Send(4)]]),
    ("quarantine and its end", [&[Send(3), Breach, Send(1), Reattach, Send(6)], &[Send(2)]]),
    ("many at once", [&[Many(8), Reattach, Many(5)], &[Many(4), Received(5), Restart, Many(4)]]),
    ("a poller", [&[Send(4), Many(6)], &[Poll(70), Received(3), Poll(70), Received(6), Restart, Poll(70)]]),
    ("messages that are given back", [&[Send(11)], &[Received(2), Discard, Received(4)]]),
    ("goodbye", [&[Send(2), Goodbye, Send(3)], &[Received(1), Goodbye, Send(2)]]),
];

fn setting(name: &str, unless_told: u64) -> u64 {
    std::env::var(name).map_or(unless_told, |value| value.parse().unwrap())
}

/// After this many points with problems a thread stops trying.
const ENOUGH: u64 = 30;

/// All problems that were found, with how often and where each was found first.
#[derive(Default)]
struct Found {
    points: u64,
    /// Steps of the machines in all points: accesses to memory, doorbells, interrupts.
    steps: u64,
    /// Points with a problem.
    bad: u64,
    problems: BTreeMap<String, (u64, String)>,
}

impl Found {
    /// Plays scenario `number` with these deaths. Returns whether all of them happened, and the stores of each kernel.
    fn point(&mut self, number: usize, seed: u64, deaths: &[Death]) -> (bool, [u64; 2]) {
        if self.bad >= ENOUGH {
            return (false, [ENOUGH; 2]);
        }
        let (name, scripts) = SCENARIOS[number];
        let played = play(seed, scripts, deaths);
        self.points += 1;
        self.steps += played.steps;
        self.bad += u64::from(!played.problems.is_empty());
        for problem in played.problems {
            let place = || (0, format!("{name}, seed {seed}, {deaths:?}"));
            self.problems.entry(problem).or_insert_with(place).0 += 1;
        }
        (played.deaths == deaths.len(), played.stores)
    }

    fn report(self, what: &str) {
        let list = self
            .problems
            .iter()
            .map(|(what, (times, place))| format!("{times} x {what}: first in {place}\n"));
        let list: String = list.collect();
        let count = format!("{} points, {} steps, {what}", self.points, self.steps);
        assert!(list.is_empty(), "{count}:\n{list}");
        println!("{count}");
    }
}

/// Calls `part` for each scenario and seed, on two threads.
fn everywhere(part: impl Fn(&mut Found, usize, u64) + Sync) -> Found {
    let jobs: Vec<_> = (0..SCENARIOS.len())
        .flat_map(|n| (0..setting("MK_IPI_SCENARIO_SEEDS", 2)).map(move |seed| (n, seed)))
        .collect();
    let (jobs, found) = (Mutex::new(jobs.into_iter()), Mutex::new(Found::default()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut mine = Found::default();
                loop {
                    let job = jobs.lock().unwrap().next();
                    let Some((number, seed)) = job else { break };
                    part(&mut mine, number, seed);
                }
                let mut all = found.lock().unwrap();
                all.points += mine.points;
                all.steps += mine.steps;
                mine.problems.into_iter().for_each(|(what, (times, place))| {
                    all.problems.entry(what).or_insert((0, place)).0 += times;
                });
            });
        }
    });
    found.into_inner().unwrap()
}

#[test]
fn nothing_goes_wrong_when_nobody_dies() {
    let found = everywhere(|found, number, seed| {
        let many = (0..50).map(|n| seed * 50 + n);
        many.for_each(|seed| _ = found.point(number, seed, &[]));
    });
    found.report("without a death");
}

#[test]
fn everything_goes_on_whichever_store_is_a_kernels_last() {
    let found = everywhere(|found, number, seed| {
        let (_, stores) = found.point(number, seed, &[]);
        assert!(stores.iter().all(|n| *n > 20), "too few stores for a test: {stores:?}");
        for (kernel, stores) in stores.into_iter().enumerate() {
            // Another schedule can have a few more stores.
            for store in (1..=stores + 20).rev() {
                found.point(number, seed, &[Death { kernel, store }]);
            }
        }
    });
    found.report("one death each");
}

#[test]
fn everything_goes_on_when_a_kernel_dies_while_a_death_is_mended() {
    let stride = setting("MK_IPI_SCENARIO_STRIDE", 9) as usize;
    let found = everywhere(|found, number, seed| {
        let (_, stores) = found.point(number, seed, &[]);
        for (kernel, stores) in stores.into_iter().enumerate() {
            for store in (1 + seed % stride as u64..=stores).step_by(stride) {
                let first = Death { kernel, store };
                for kernel in 0..2 {
                    // Stops when the kernel comes to the end of its work without a second death.
                    let mut seconds = (1 + store % stride as u64..400).step_by(stride);
                    let _ = seconds
                        .find(|&store| !found.point(number, seed, &[first, Death { kernel, store }]).0);
                }
            }
        }
    });
    found.report("two deaths each");
}
