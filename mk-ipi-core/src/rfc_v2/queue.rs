// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages between the interrupt path and the deferred work of one CPU: bounded, in order, in private memory.
//!
//! The interrupt path adds messages, and the deferred work removes them. The interrupt path can interrupt the deferred work. Each
//! of the two sides has one holder at a time. If a side is held, a second holder gets an error instead of waiting. So a CPU never
//! waits for itself.

use super::slot::Stored;
use crate::sync::{array_of, const_unless_loom, AtomicBool, AtomicUsize, Ordering, UnsafeCell};

/// INVARIANT: `tail - head <= N`; cells `head..tail` hold messages and belong to the consumer, the others to
/// the producer.
#[derive(Debug)]
pub(crate) struct Queue<const N: usize> {
    producing: AtomicBool,
    consuming: AtomicBool,
    head: AtomicUsize,
    tail: AtomicUsize,
    cells: [UnsafeCell<Stored>; N],
}

// SAFETY: only the holder of the side that a cell belongs to accesses the cell (INVARIANT, `Producer`, `Consumer`).
unsafe impl<const N: usize> Sync for Queue<N> {}

/// Why a message cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueError {
    Full,
    /// Another producer holds the side: this CPU was interrupted in the interrupt path.
    Held,
}

impl<const N: usize> Queue<N> {
    const MASK: usize = {
        assert!(N.is_power_of_two(), "the queue's length is a power of two");
        N.wrapping_sub(1)
    };

    const_unless_loom! {
        pub(crate) fn new() -> Self {
            Self {
                producing: AtomicBool::new(false),
                consuming: AtomicBool::new(false),
                head: AtomicUsize::new(0),
                tail: AtomicUsize::new(0),
                cells: array_of![UnsafeCell::new(Stored::EMPTY); N],
            }
        }
    }

    fn cell(&self, position: usize) -> Option<&UnsafeCell<Stored>> {
        self.cells.get(position & Self::MASK)
    }

    /// Takes the producer's side, with a free cell to fill.
    pub(crate) fn produce(&self) -> Result<Producer<'_, N>, QueueError> {
        // SYNC POINT: queue-producer (acquire)
        if self.producing.swap(true, Ordering::Acquire) {
            return Err(QueueError::Held);
        }
        let producer = Producer { queue: self, tail: self.tail.load(Ordering::Relaxed) };
        // SYNC POINT: queue-head (acquire)
        let used = producer.tail.wrapping_sub(self.head.load(Ordering::Acquire));
        if used >= N {
            return Err(QueueError::Full);
        }
        Ok(producer)
    }

    /// Takes the consumer's side; `None` if it is held.
    pub(crate) fn consume(&self) -> Option<Consumer<'_, N>> {
        // SYNC POINT: queue-consumer (acquire)
        // The `Consumer` is made only if we got the side, because its drop releases the side.
        (!self.consuming.swap(true, Ordering::Acquire)).then(|| Consumer { queue: self })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tail.load(Ordering::Relaxed) == self.head.load(Ordering::Relaxed)
    }
}

/// The producer's side, with one free cell.
#[derive(Debug)]
pub(crate) struct Producer<'a, const N: usize> {
    queue: &'a Queue<N>,
    tail: usize,
}

impl<const N: usize> Producer<'_, N> {
    /// Lets `fill` write the free cell. Adds it to the queue if that succeeds.
    pub(crate) fn fill<E>(self, fill: impl FnOnce(&mut Stored) -> Result<(), E>) -> Result<(), E> {
        if let Some(cell) = self.queue.cell(self.tail) {
            // SAFETY: the cell at `tail` is not in `head..tail`, so it is the producer's (INVARIANT), and we
            // hold that side alone (`producing`).
            cell.with_mut(|m| fill(unsafe { &mut *m }))?;
            // SYNC POINT: queue-tail (release)
            self.queue.tail.store(self.tail.wrapping_add(1), Ordering::Release);
        }
        Ok(())
    }
}

impl<const N: usize> Drop for Producer<'_, N> {
    fn drop(&mut self) {
        // SYNC POINT: queue-producer (release)
        self.queue.producing.store(false, Ordering::Release);
    }
}

/// The consumer's side.
#[derive(Debug)]
pub(crate) struct Consumer<'a, const N: usize> {
    queue: &'a Queue<N>,
}

impl<const N: usize> Consumer<'_, N> {
    /// Lets `f` read the oldest message, then frees its cell. False if there is none.
    pub(crate) fn pop(&mut self, f: impl FnOnce(&Stored)) -> bool {
        let head = self.queue.head.load(Ordering::Relaxed);
        // SYNC POINT: queue-tail (acquire)
        if self.queue.tail.load(Ordering::Acquire) == head {
            return false;
        }
        let Some(cell) = self.queue.cell(head) else { return false };
        let freed = Freed(&self.queue.head, head.wrapping_add(1));
        // SAFETY: the cell at `head` is in `head..tail`, so it is the consumer's (INVARIANT), and we hold that
        // side alone (`consuming`); the producer comes to it only after `head` has moved on.
        cell.with(|m| f(unsafe { &*m }));
        drop(freed);
        true
    }
}

/// Frees a cell when it is dropped, also if `f` unwinds. Otherwise the message would be delivered again.
struct Freed<'a>(&'a AtomicUsize, usize);

impl Drop for Freed<'_> {
    fn drop(&mut self) {
        // SYNC POINT: queue-head (release)
        self.0.store(self.1, Ordering::Release);
    }
}

impl<const N: usize> Drop for Consumer<'_, N> {
    fn drop(&mut self) {
        // SYNC POINT: queue-consumer (release)
        self.queue.consuming.store(false, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn push<const N: usize>(q: &Queue<N>, n: usize) -> Result<(), QueueError> {
        q.produce()?.fill(|m| {
            m.len = n;
            Ok(())
        })
    }

    #[test]
    fn in_order_bounded_and_reusable() {
        let q = Queue::<4>::new();
        for round in 0..5 {
            for n in 0..4 {
                assert_eq!(push(&q, round * 4 + n), Ok(()));
            }
            assert_eq!(push(&q, 99), Err(QueueError::Full));
            for n in 0..4 {
                assert!(q.consume().unwrap().pop(|m| assert_eq!(m.len, round * 4 + n)));
            }
            assert!(!q.consume().unwrap().pop(|_| unreachable!()) && q.is_empty());
        }
    }

    #[test]
    fn each_side_is_held_by_one() {
        let q = Queue::<2>::new();
        let p = q.produce().unwrap();
        assert_eq!(q.produce().unwrap_err(), QueueError::Held);
        assert_eq!(p.fill(|_| Err("no message")), Err("no message"));
        assert!(q.is_empty(), "a failed fill adds nothing");
        let c = q.consume().unwrap();
        assert!(q.consume().is_none());
        assert!(q.consume().is_none(), "a refused consumer does not release the side");
        drop(c);
        assert!(q.consume().is_some() && q.produce().is_ok());
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;

    fn push(q: &Queue<1>, n: usize) -> bool {
        let fill = |m: &mut Stored| {
            (m.len, m.words[0]) = (n, n as u64);
            Ok::<(), ()>(())
        };
        q.produce().is_ok_and(|p| p.fill(fill).is_ok())
    }

    fn pop(c: &mut Consumer<'_, 1>, seen: &mut std::vec::Vec<(usize, u64)>) -> bool {
        c.pop(|m| seen.push((m.len, m.words[0])))
    }

    /// queue-tail, queue-head: each message arrives whole and in order, and a cell is reused only after its message was read.
    ///
    /// The producer is the main thread, because loom runs that thread first. Loom remembers only the last access to each atomic.
    /// If the consumer ran first, loom would forget the consumer's load when the producer loads the same atomic. Then it would
    /// not notice that the consumer's load races with the producer's later store.
    #[test]
    fn loom_queue_of_one_cell() {
        let mut model = loom::model::Builder::new();
        // This model is small enough for all interleavings. With at most two preemptions, loom would not find a cell that is
        // freed too early.
        model.preemption_bound = None;
        model.check(|| {
            let q = Arc::new(Queue::<1>::new());
            let consumer = {
                let q = q.clone();
                loom::thread::spawn(move || {
                    let (mut seen, mut c) = (std::vec![], q.consume().unwrap());
                    let _ = (pop(&mut c, &mut seen), pop(&mut c, &mut seen));
                    seen
                })
            };
            let added = [1, 2, 3].map(|n| push(&q, n)).into_iter().filter(|&pushed| pushed).count();
            let mut seen = consumer.join().unwrap();
            let mut c = q.consume().unwrap();
            while pop(&mut c, &mut seen) {}
            assert_eq!(seen.len(), added);
            assert!(seen.iter().all(|&(n, w)| n as u64 == w) && seen.windows(2).all(|w| w[0].0 < w[1].0));
        });
    }

    /// queue-producer: the next producer knows what the last one added.
    #[test]
    fn loom_one_producer_after_the_other() {
        loom::model(|| {
            let q = Arc::new(Queue::<1>::new());
            let other = {
                let q = q.clone();
                loom::thread::spawn(move || push(&q, 1))
            };
            let mine = push(&q, 2);
            assert!(mine != other.join().unwrap(), "one cell holds one message");
        });
    }

    /// queue-consumer: the next consumer sees which messages the former consumer has removed.
    #[test]
    fn loom_one_consumer_after_the_other() {
        fn consume(q: &Queue<1>) -> usize {
            let mut seen = std::vec![];
            let _ = q.consume().is_some_and(|mut c| pop(&mut c, &mut seen));
            seen.len()
        }
        loom::model(|| {
            let q = Arc::new(Queue::<1>::new());
            assert!(push(&q, 1));
            let other = {
                let q = q.clone();
                loom::thread::spawn(move || consume(&q))
            };
            let mine = consume(&q);
            assert_eq!(mine + other.join().unwrap(), 1, "read once");
        });
    }
}
