// SPDX-License-Identifier: MIT OR Apache-2.0
//! A cell that holds a value for many users. The owner publishes the value, and takes it back when the value has no users any
//! more.
//!
//! Handlers and instances are stored in such cells. A user holds a [`Ref`] while it works on the value, without a
//! lock. To take the value back, the owner first closes the cell to new users, and then checks whether earlier users
//! still hold the value. One word holds the state:
//!
//! ```text
//! 63        32 31   30 29       0
//! |  serial   | phase |  users  |      EMPTY -> SETUP -> LIVE -> CLOSING -> SETUP, serial + 1 -> EMPTY
//! ```

use crate::sync::{const_unless_loom, AtomicU64, Ordering, UnsafeCell};
use core::ops::Deref;

const USERS: u64 = (1 << 30) - 1;
/// More users than this are refused, so that the count cannot overflow into the phase.
const MAX_USERS: u64 = 1 << 29;
const PHASE: u64 = 3 << 30;
const EMPTY: u64 = 0;
const SETUP: u64 = 1 << 30;
const LIVE: u64 = 2 << 30;
const CLOSING: u64 = 3 << 30;
const SERIAL_ONE: u64 = 1 << 32;

/// The cell that the module describes. INVARIANT: `value` is `Some` in LIVE and CLOSING. It is written only in SETUP, and only
/// through the one `Vacancy` of that phase.
#[derive(Debug)]
pub(crate) struct Published<T> {
    state: AtomicU64,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: many threads can have references to the value (T: Sync). Any thread can move a value in or out (T: Send). `state`
// admits a writer only when there is no reader (`claim`, `take`).
unsafe impl<T: Send + Sync> Sync for Published<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Published<T> {}

/// Identifies one of the successive values of a cell. The serial of a cell changes whenever its value is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Serial(pub(crate) u32);

/// Why a cell's value could not be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TakeError {
    /// There is no closed value: no value was published, another caller has taken the value, or the cell is not closed.
    NotClosing,
    /// This many users still hold the value.
    InUse(u32),
}

impl<T> Published<T> {
    const_unless_loom! {
        pub(crate) fn new() -> Self {
            Self { state: AtomicU64::new(EMPTY), value: UnsafeCell::new(None) }
        }
    }

    /// Reserves an empty cell for the caller, which can then publish a value in it.
    pub(crate) fn claim(&self) -> Option<Vacancy<'_, T>> {
        // SYNC POINT: cell-emptied (acquire)
        let claimed = self.change(Ordering::Acquire, |s| (s & PHASE == EMPTY).then_some(s | SETUP));
        claimed.ok().map(|_| Vacancy { cell: self })
    }

    /// The value; `None` if the cell is empty or closed. Wait-free.
    #[inline]
    pub(crate) fn get(&self) -> Option<Ref<'_, T>> {
        // If the cell is not live, it is not written. So a search through many cells only loads.
        if self.state.load(Ordering::Relaxed) & PHASE != LIVE {
            return None;
        }
        // SYNC POINT: cell-published (acquire)
        let state = self.state.fetch_add(1, Ordering::Acquire);
        if state & PHASE != LIVE || state & USERS >= MAX_USERS {
            self.state.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Ref { cell: self })
    }

    /// Whether the cell has a value and is open to new users.
    pub(crate) fn is_live(&self) -> bool {
        self.state.load(Ordering::Relaxed) & PHASE == LIVE
    }

    /// Closes the cell to new users, if its value has the serial `serial`. `None`: closes it with any value.
    ///
    /// False if the cell is not live, or its value has another serial.
    pub(crate) fn close(&self, serial: Option<Serial>) -> bool {
        let wanted = |s| s & PHASE == LIVE && serial.is_none_or(|w| serial_of(s) == w);
        self.change(Ordering::Relaxed, |s| wanted(s).then_some(s | CLOSING)).is_ok()
    }

    /// Takes a closed value back if it has no users. The cell stays reserved until the vacancy is dropped.
    pub(crate) fn take(&self) -> Result<(T, Vacancy<'_, T>), TakeError> {
        // SYNC POINT: cell-left (acquire)
        let idle = |s| s & PHASE == CLOSING && s & USERS == 0;
        let next = |s: u64| ((s & !PHASE) | SETUP).wrapping_add(SERIAL_ONE);
        match self.change(Ordering::Acquire, |s| idle(s).then(|| next(s))) {
            Err(s) if s & PHASE == CLOSING => {
                Err(TakeError::InUse(u32::try_from(s & USERS).unwrap_or(u32::MAX)))
            }
            Err(_) => Err(TakeError::NotClosing),
            Ok(_) => {
                let vacancy = Vacancy { cell: self };
                // SAFETY: we changed the phase from CLOSING with no users to SETUP: nobody else touches
                // `value` until the vacancy ends, and all former users' reads happened before (cell-left).
                let value = self.value.with_mut(|v| unsafe { (*v).take() });
                value.map(|v| (v, vacancy)).ok_or(TakeError::NotClosing)
            }
        }
    }

    /// Whether a value of this cell was ever closed.
    pub(crate) fn was_used(&self) -> bool {
        let s = self.state.load(Ordering::Relaxed);
        s & PHASE == CLOSING || serial_of(s) != Serial(0)
    }

    /// Replaces the state by the result of `next`. If `next` returns `None`, returns the state as the error.
    fn change(&self, order: Ordering, next: impl Fn(u64) -> Option<u64>) -> Result<u64, u64> {
        self.state.fetch_update(order, next)
    }
}

const fn serial_of(state: u64) -> Serial {
    Serial((state >> 32) as u32)
}

/// The exclusive right to publish in an empty cell. If it is dropped unused, the cell stays empty.
#[derive(Debug)]
pub(crate) struct Vacancy<'a, T> {
    cell: &'a Published<T>,
}

impl<T> Vacancy<'_, T> {
    /// Publishes `value`, and returns the serial of the value.
    pub(crate) fn publish(self, value: T) -> Serial {
        // SAFETY: a vacancy exists only in the SETUP phase, and each SETUP phase has one vacancy: this one.
        self.cell.value.with_mut(|v| unsafe { *v = Some(value) });
        // SYNC POINT: cell-published (release)
        let state = self.cell.state.fetch_xor(SETUP ^ LIVE, Ordering::Release);
        core::mem::forget(self);
        serial_of(state)
    }
}

impl<T> Drop for Vacancy<'_, T> {
    fn drop(&mut self) {
        // Subtracts, and does not store 0: a `get` may have added 1 to the word, and will subtract it when it finds that
        // the cell is not live.
        // SYNC POINT: cell-emptied (release)
        self.cell.state.fetch_sub(SETUP, Ordering::Release);
    }
}

/// A counted reference to a published value.
#[derive(Debug)]
pub(crate) struct Ref<'a, T> {
    cell: &'a Published<T>,
}

impl<T> Deref for Ref<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this Ref was counted while the cell was LIVE, so `value` is Some (INVARIANT) and nobody writes
        // it before the count is given back in `drop`.
        self.cell.value.with(|v| unsafe { (*v).as_ref().unwrap_unchecked() })
    }
}

impl<T> Drop for Ref<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // SYNC POINT: cell-left (release)
        self.cell.state.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_taken_once_and_only_when_unused() {
        let cell = Published::new();
        assert!(cell.get().is_none() && !cell.is_live() && !cell.close(None) && !cell.was_used());
        assert_eq!(cell.take().unwrap_err(), TakeError::NotClosing);
        let serial = cell.claim().unwrap().publish(7);
        assert!(cell.claim().is_none());
        let r = cell.get().unwrap();
        assert!(*r == 7 && cell.is_live());
        assert_eq!(cell.take().unwrap_err(), TakeError::NotClosing, "not closed yet");
        assert!(cell.close(Some(serial)) && !cell.close(Some(serial)));
        assert!(cell.get().is_none() && !cell.is_live() && cell.was_used());
        assert_eq!(cell.take().unwrap_err(), TakeError::InUse(1));
        drop(r);
        let (value, vacancy) = cell.take().unwrap();
        assert_eq!(value, 7);
        assert!(cell.claim().is_none(), "the cell stays reserved until the vacancy is dropped");
        drop(vacancy);
        assert_eq!(cell.take().unwrap_err(), TakeError::NotClosing);
        let next = cell.claim().unwrap().publish(8);
        assert_ne!(serial, next);
        assert!(!cell.close(Some(serial)), "the former value's serial is stale");
        assert_eq!(*cell.get().unwrap(), 8);
    }

    #[test]
    fn the_count_of_users_has_a_limit() {
        let cell = Published::new();
        cell.claim().unwrap().publish(1);
        cell.state.fetch_add(MAX_USERS, Ordering::Relaxed);
        assert!(cell.get().is_none());
        assert_eq!(cell.state.load(Ordering::Relaxed) & USERS, MAX_USERS);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// cell-published, cell-left, cell-emptied: a user sees the whole value or none, and the taker is alone.
    #[test]
    fn loom_take_waits_for_users() {
        loom::model(|| {
            let cell = Arc::new(Published::new());
            let user = {
                let cell = cell.clone();
                thread::spawn(move || {
                    if let Some(r) = cell.get() {
                        assert_eq!(*r, [3, 4]);
                    }
                })
            };
            cell.claim().unwrap().publish([3, 4]);
            assert!(cell.close(None));
            loop {
                match cell.take() {
                    Ok((value, vacancy)) => {
                        assert_eq!(value, [3, 4]);
                        vacancy.publish([3, 4]);
                        break;
                    }
                    Err(TakeError::InUse(_)) => thread::yield_now(),
                    Err(e) => panic!("{e:?}"),
                }
            }
            user.join().unwrap();
        });
    }

    /// cell-emptied: a CPU that claims a cell publishes after the CPU that emptied the cell.
    #[test]
    fn loom_an_emptied_cell_is_claimed() {
        loom::model(|| {
            let cell = Arc::new(Published::new());
            cell.claim().unwrap().publish(1);
            assert!(cell.close(None));
            let next = {
                let cell = cell.clone();
                thread::spawn(move || cell.claim().map(|v| v.publish(2)).is_some())
            };
            let (value, vacancy) = cell.take().unwrap();
            assert_eq!(value, 1);
            drop(vacancy);
            let published = next.join().unwrap();
            assert_eq!(published, cell.get().is_some_and(|r| *r == 2));
        });
    }

    /// Two CPUs close the same value. Only one of them succeeds.
    #[test]
    fn loom_one_taker_wins() {
        loom::model(|| {
            let cell = Arc::new(Published::new());
            let serial = cell.claim().unwrap().publish(5);
            let other = {
                let cell = cell.clone();
                thread::spawn(move || u32::from(cell.close(Some(serial))))
            };
            let mine = u32::from(cell.close(Some(serial)));
            assert_eq!(mine + other.join().unwrap(), 1);
            assert!(cell.take().is_ok());
        });
    }
}
