// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel can die at any of its stores. These are small scenarios on the native link (SPEC chapter N). Each scenario is run
//! once for each store of each kernel: the kernel stops at that store, and starts again as its next incarnation. Then the link
//! must still work, and each message must be handled once. There is one exception: at each death of a receiver, one message of a
//! lane can be missing. The sender of that message must get the event InDoubt for it.
//!
//! A run ends when nothing is pending any more. No kernel polls, except in the steps `Poll` and `Reattach`. So if a doorbell is
//! missing, messages are left at the end. `MK_IPI_SCENARIO_SEEDS` is the number of seeds that are tried for each scenario. The
//! default is 2. `MK_IPI_SCENARIO_STRIDE` is a number n for the test with two deaths: there a kernel dies only at every n-th
//! store. The default is 9, and 1 tries all stores. `cargo xtask scenarios` runs more seeds.
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

/// The scenarios: a name, and the scripts of kernels 0 and 1. In addition to its script, each kernel receives messages.
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

/// Returns the number in an environment variable, or a default if the variable is not set.
fn setting(name: &str, unless_told: u64) -> u64 {
    std::env::var(name).map_or(unless_told, |value| value.parse().unwrap())
}

/// When a thread has found this many points with problems, it plays no more points.
const ENOUGH: u64 = 30;

/// The result of many points. A point is one run of a scenario, with one seed and one choice of deaths.
#[derive(Default)]
struct Found {
    /// The number of points.
    points: u64,
    /// The number of steps of the machines in all points: accesses to memory, doorbells, interrupts and so on.
    steps: u64,
    /// The number of points with a problem.
    bad: u64,
    /// For each problem: how often it was found, and the first point at which it was found.
    problems: BTreeMap<String, (u64, String)>,
}

impl Found {
    /// Plays scenario `number` with these deaths. Returns whether all of them happened, and how many stores the last life of each
    /// kernel made.
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

    /// Prints the numbers of points and steps. Panics if any problem was found.
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

/// Calls `part` with the number of each scenario and each seed, on two threads. Returns the results of both.
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
        assert!(stores.iter().all(|n| *n > 20), "a kernel makes too few stores for this test: {stores:?}");
        for (kernel, stores) in stores.into_iter().enumerate() {
            // With a death the kernel can make a few more stores than without one.
            for store in (1..=stores + 20).rev() {
                found.point(number, seed, &[Death { kernel, store }]);
            }
        }
    });
    found.report("with one death");
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
                    // The search ends when the second death does not happen, because the kernel makes fewer stores.
                    let mut seconds = (1 + store % stride as u64..400).step_by(stride);
                    let _ = seconds
                        .find(|&store| !found.point(number, seed, &[first, Death { kernel, store }]).0);
                }
            }
        }
    });
    found.report("with two deaths");
}
