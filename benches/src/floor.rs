// SPDX-License-Identifier: MIT OR Apache-2.0
//! The floor: the time in which cache lines are moved to the other CPU and back, and nothing else is done. The times of links are
//! given as multiples of it.

use std::fmt;

use mk_ipi_core::sync::{AtomicU64, Ordering};
use serde::{Serialize, Serializer};

use crate::message::Broken;
use crate::pair::{part, until, Apart, Counts, Setting};

/// How the cache lines are moved to the other CPU and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Floor {
    /// One line, which both sides write in turn. It is transferred once in each direction. A lane cannot work like this, because
    /// each of its lines has one writer.
    BothWrite,
    /// This number of lines in each direction. Each line has one writer and one reader. In each round trip it is transferred
    /// twice: to the writer, and then to the reader.
    OneWriter(usize),
}

/// Words in a cache line.
const LINE: usize = 8;

impl Floor {
    /// The floor of a message of this size: as many lines as are needed for its bytes and one more word, which says that
    /// the message is complete.
    pub const fn of(bytes: usize) -> Self {
        Self::OneWriter((bytes + 8).div_ceil(8 * LINE))
    }

    /// The floors that are measured in the same rounds as the contenders with messages of this size. The first is the floor of
    /// this size.
    pub fn beside(bytes: usize) -> Vec<Self> {
        let own = Self::of(bytes);
        let others = [Self::BothWrite, Self::OneWriter(1), Self::OneWriter(5)];
        [own].into_iter().chain(others.into_iter().filter(|floor| *floor != own)).collect()
    }

    /// Measures the average nanoseconds of a round trip, for each pause.
    pub fn measure(self, setting: &Setting, counts: Counts) -> Result<Vec<f64>, Broken> {
        match self {
            Self::BothWrite => both_write(setting, counts),
            Self::OneWriter(1) => one_writer::<1>(setting, counts),
            Self::OneWriter(5) => one_writer::<5>(setting, counts),
            Self::OneWriter(17) => one_writer::<17>(setting, counts),
            Self::OneWriter(_) => one_writer::<65>(setting, counts),
        }
    }
}

impl fmt::Display for Floor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BothWrite => f.write_str("line, both write"),
            Self::OneWriter(1) => f.write_str("line, one writer"),
            Self::OneWriter(lines) => write!(f, "{lines} lines, one writer"),
        }
    }
}

impl Serialize for Floor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn both_write(setting: &Setting, counts: Counts) -> Result<Vec<f64>, Broken> {
    let line = &*Box::new(Apart(AtomicU64::new(0)));
    let (mut near, mut far) = (0, 0);
    let there = part(move |pause| {
        counts.time(|| {
            near += 2;
            line.0.store(near - 1, Ordering::Release);
            until(pause, || line.0.load(Ordering::Acquire) == near)
        })
    });
    let back = part(move |pause| {
        for _ in 0..counts.total() {
            far += 2;
            until(pause, || line.0.load(Ordering::Acquire) == far - 1)?;
            line.0.store(far, Ordering::Release);
        }
        Ok(())
    });
    setting.run(there, back)
}

/// `K` lines that one side writes and the other side reads.
struct Lines<const K: usize>([[AtomicU64; LINE]; K]);

impl<const K: usize> Lines<K> {
    fn new() -> Box<Apart<Self>> {
        Box::new(Apart(Self([const { [const { AtomicU64::new(0) }; LINE] }; K])))
    }

    /// Writes `n` to all words. The first word, for which the reader waits, is written last.
    #[inline(always)]
    fn put(&self, n: u64) {
        for word in self.0.iter().flatten().rev() {
            word.store(n, Ordering::Release);
        }
    }

    /// Waits until the first word is `n`, and then reads all words.
    #[inline(always)]
    fn get(&self, pause: u32, n: u64) -> Result<(), Broken> {
        until(pause, || self.0[0][0].load(Ordering::Acquire) == n)?;
        let differs = self.0.iter().flatten().fold(0, |differs, w| differs | (w.load(Ordering::Relaxed) ^ n));
        if differs == 0 {
            Ok(())
        } else {
            Err(Broken::Delivery { sent: n, came: n, bad: 1 })
        }
    }
}

fn one_writer<const K: usize>(setting: &Setting, counts: Counts) -> Result<Vec<f64>, Broken> {
    let (to_far, to_near) = (&Lines::<K>::new().0, &Lines::<K>::new().0);
    let (mut near, mut far) = (0, 0);
    let there = part(move |pause| {
        counts.time(|| {
            near += 1;
            to_far.put(near);
            to_near.get(pause, near)
        })
    });
    let back = part(move |pause| {
        for _ in 0..counts.total() {
            far += 1;
            to_far.get(pause, far)?;
            to_near.put(far);
        }
        Ok(())
    });
    setting.run(there, back)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Cpus;

    #[test]
    fn lines_of_a_message() {
        for (bytes, lines) in [(0, 1), (8, 1), (48, 1), (56, 1), (57, 2), (256, 5), (1024, 17), (4096, 65)] {
            assert_eq!(Floor::of(bytes), Floor::OneWriter(lines), "{bytes}");
        }
    }

    #[test]
    fn each_floor_is_listed_once_and_the_floor_of_the_size_first() {
        assert_eq!(Floor::beside(48), [Floor::OneWriter(1), Floor::BothWrite, Floor::OneWriter(5)]);
        assert_eq!(Floor::beside(256), [Floor::OneWriter(5), Floor::BothWrite, Floor::OneWriter(1)]);
        assert_eq!(Floor::beside(4096).len(), 4);
    }

    #[test]
    fn they_can_be_measured() {
        let setting = Setting { cpus: Cpus::allowed(true).expect("a CPU"), pauses: &[1] };
        for floor in Floor::beside(1024) {
            let nanos = floor.measure(&setting, Counts { warm_up: 1, timed: 10 });
            assert!(nanos.is_ok_and(|nanos| nanos[0] > 0.0), "{floor}");
        }
    }
}
