// SPDX-License-Identifier: MIT OR Apache-2.0
//! Measures a workload in rounds. A round measures all floors, then each contender, then all floors again.
//!
//! The speed of a machine changes with time. So a contender is compared with figures of the same round, and a round in which the
//! speed of the machine changed does not count.

use anyhow::{Context, Result};

use crate::floor::Floor;
use crate::link::{Contender, Job};
use crate::pair::Counts;
use crate::stats::Times;

/// The factor by which a floor may change from the beginning of a round to its end.
const DRIFT: f64 = 1.15;
/// The largest number of rounds that are measured, divided by the number of rounds that are wanted.
const TRIES: usize = 2;
/// How many round trips a measurement of a floor makes. The measurement takes about as long as that of a contender.
const FLOOR: Counts = Counts { warm_up: 150, timed: 800 };

/// All times of a workload.
pub struct Measured {
    /// The times of each floor. The floor of the workload's size comes first.
    pub floors: Vec<(Floor, Times)>,
    /// The times of each contender.
    pub contenders: Vec<Times>,
    /// How many rounds count.
    pub rounds: usize,
    /// How many rounds were discarded, because a floor changed too much.
    pub discarded: usize,
}

/// The times of one round. Each `Vec<f64>` has one time for each pause in `Setting::pauses`.
struct Round {
    /// The times of each floor, at the beginning and at the end of the round.
    floors: Vec<[Vec<f64>; 2]>,
    contenders: Vec<Vec<f64>>,
}

/// Measures rounds until there are `wanted` rounds in which the speed of the machine did not change. Measures at most [`TRIES`]
/// times `wanted` rounds.
///
/// If the speed changed in every round, the times of all rounds are used. In this case both [`Measured::rounds`] and
/// [`Measured::discarded`] are the number of all rounds.
pub fn measure(contenders: &[Contender], bytes: usize, job: &Job, wanted: usize) -> Result<Measured> {
    let floors = Floor::beside(bytes);
    let (mut quiet, mut noisy) = (Vec::new(), Vec::new());
    for first in 0..wanted * TRIES {
        let round = Round::measure(&floors, contenders, job, first)?;
        if round.drift() <= DRIFT { &mut quiet } else { &mut noisy }.push(round);
        if quiet.len() == wanted {
            break;
        }
    }
    let discarded = noisy.len();
    let rounds = if quiet.is_empty() { noisy } else { quiet };
    let times = || Times::new(job.setting.pauses);
    let mut measured = Measured {
        floors: floors.into_iter().map(|floor| (floor, times())).collect(),
        contenders: contenders.iter().map(|_| times()).collect(),
        rounds: rounds.len(),
        discarded,
    };
    rounds.into_iter().for_each(|round| measured.push(round));
    Ok(measured)
}

impl Measured {
    fn push(&mut self, round: Round) {
        for ((_, times), [begin, end]) in self.floors.iter_mut().zip(round.floors) {
            times.push(begin.into_iter().zip(end).map(|(begin, end)| (begin + end) / 2.0));
        }
        self.contenders.iter_mut().zip(round.contenders).for_each(|(times, round)| times.push(round));
    }
}

impl Round {
    /// Measures one round. The contenders are measured in turn, and the first one is number `first`, modulo the number of
    /// contenders. So each round measures another contender first.
    fn measure(floors: &[Floor], contenders: &[Contender], job: &Job, first: usize) -> Result<Self> {
        let all_floors = || -> Result<Vec<_>> {
            let one = |floor: &Floor| {
                floor.measure(&job.setting, floor_counts(job)).with_context(|| floor.to_string())
            };
            floors.iter().map(one).collect()
        };
        let begin = all_floors()?;
        let mut times = vec![Vec::new(); contenders.len()];
        for at in (0..contenders.len()).map(|at| (at + first) % contenders.len()) {
            let contender = &contenders[at];
            times[at] = contender.measure(job).with_context(|| contender.label.name.clone())?;
        }
        let floors = begin.into_iter().zip(all_floors()?).map(|(begin, end)| [begin, end]).collect();
        Ok(Self { floors, contenders: times })
    }

    /// The largest factor by which a floor changed during the round. For each floor this compares its smallest time at the
    /// beginning with its smallest time at the end. These two times can be of different pauses.
    fn drift(&self) -> f64 {
        let best = |nanos: &[f64]| nanos.iter().copied().fold(f64::INFINITY, f64::min);
        let of = |[begin, end]: &[Vec<f64>; 2]| {
            let ratio = best(begin) / best(end);
            ratio.max(ratio.recip())
        };
        self.floors.iter().map(of).fold(1.0, f64::max)
    }
}

/// The number of round trips of a floor. It is not larger than that of a contender, so that `--quick` takes a short time.
fn floor_counts(job: &Job) -> Counts {
    if job.counts.timed < FLOOR.timed {
        job.counts
    } else {
        FLOOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_that_changed_is_noticed() {
        let round = |floors: &[[[f64; 2]; 2]]| Round {
            floors: floors.iter().map(|pair| pair.map(|nanos| nanos.to_vec())).collect(),
            contenders: Vec::new(),
        };
        // The smallest time at the beginning and the smallest time at the end are of different pauses.
        assert_eq!(round(&[[[10.0, 20.0], [30.0, 10.0]]]).drift(), 1.0);
        assert_eq!(round(&[[[10.0, 20.0], [10.0, 20.0]], [[10.0, 20.0], [8.0, 20.0]]]).drift(), 1.25);
        assert_eq!(round(&[[[8.0, 20.0], [10.0, 20.0]]]).drift(), 1.25);
    }
}
