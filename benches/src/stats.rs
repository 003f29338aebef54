// SPDX-License-Identifier: MIT OR Apache-2.0
//! Quartiles, and the choice of the best pause.

use serde::Serialize;

use crate::pair::Pause;

/// The three quartiles of some values. The second one is the median.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quartiles {
    /// A quarter of the values is below this.
    pub q1: f64,
    /// Half of the values are below this.
    pub median: f64,
    /// Three quarters of the values are below this.
    pub q3: f64,
}

impl Quartiles {
    /// The quartiles of `values`, with linear interpolation between two values; `None` if there are no values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        let at = |quarter: usize| {
            let place = (last * quarter) as f64 / 4.0;
            let (below, above) = (values[place.floor() as usize], values[place.ceil() as usize]);
            below + (above - below) * place.fract()
        };
        Some(Self { q1: at(1), median: at(2), q3: at(3) })
    }

    /// The quartiles, divided by `unit`.
    pub fn by(self, unit: f64) -> Self {
        Self { q1: self.q1 / unit, median: self.median / unit, q3: self.q3 / unit }
    }
}

/// The times of one contender or floor, with each pause and in each round.
#[derive(Clone, Debug)]
pub struct Times {
    /// The pauses.
    pauses: &'static [Pause],
    /// The nanoseconds of each round, for each pause.
    nanos: Vec<Vec<f64>>,
}

impl Times {
    /// Makes an empty set of times for these pauses.
    pub fn new(pauses: &'static [Pause]) -> Self {
        Self { pauses, nanos: vec![Vec::new(); pauses.len()] }
    }

    /// Adds a round: the nanoseconds for each pause.
    pub fn push(&mut self, round: impl IntoIterator<Item = f64>) {
        self.nanos.iter_mut().zip(round).for_each(|(all, one)| all.push(one));
    }

    /// The times with the pause whose median over all rounds is smallest; `None` if there was no round.
    pub fn best(&self) -> Option<Best<'_>> {
        let all = self.pauses.iter().zip(&self.nanos);
        let known = all.filter_map(|(pause, nanos)| {
            Some(Best { pause: *pause, quartiles: Quartiles::of(nanos.iter().copied())?, nanos })
        });
        known.min_by(|a, b| a.median_ns().total_cmp(&b.median_ns()))
    }
}

/// The times of a contender or floor with its best pause.
#[derive(Clone, Copy, Debug)]
pub struct Best<'a> {
    /// The pause.
    pub pause: Pause,
    /// The quartiles of the nanoseconds of all rounds.
    pub quartiles: Quartiles,
    /// The nanoseconds of each round.
    nanos: &'a [f64],
}

impl Best<'_> {
    /// The median of the nanoseconds of all rounds.
    pub const fn median_ns(&self) -> f64 {
        self.quartiles.median
    }

    /// The quartiles of the ratio to the times of another contender or floor. The ratio is computed for each round.
    pub fn ratio_to(&self, other: &Best<'_>) -> Option<Quartiles> {
        Quartiles::of(self.nanos.iter().zip(other.nanos).map(|(mine, its)| mine / its))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles() {
        let of = |values: &[f64]| Quartiles::of(values.iter().copied()).map(|q| [q.q1, q.median, q.q3]);
        assert_eq!(of(&[5.0, 1.0, 3.0, 2.0, 4.0]), Some([2.0, 3.0, 4.0]));
        assert_eq!(of(&[1.0, 2.0]), Some([1.25, 1.5, 1.75]));
        assert_eq!(of(&[7.0]), Some([7.0; 3]));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn the_best_pause_is_that_of_all_rounds_and_a_ratio_that_of_one() {
        let mut mine = Times::new(&[0, 4]);
        let mut its = Times::new(&[0, 4]);
        for (round, scale) in [1.0, 10.0, 2.0].into_iter().enumerate() {
            // In one round the other pause is better.
            let lucky = if round == 1 { 1.0 } else { 9.0 };
            mine.push([lucky, 2.0 * scale]);
            its.push([100.0, scale]);
        }
        let (mine, its) = (mine.best().expect("rounds"), its.best().expect("rounds"));
        assert_eq!((mine.pause, mine.median_ns()), (4, 4.0));
        assert_eq!(mine.ratio_to(&its), Some(Quartiles { q1: 2.0, median: 2.0, q3: 2.0 }));
        assert!(Times::new(&[0]).best().is_none());
    }
}
