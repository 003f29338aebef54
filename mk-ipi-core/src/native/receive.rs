// SPDX-License-Identifier: MIT OR Apache-2.0
//! The receiver's end of all lanes: which CPU may read them, which lanes a drain or a poll visits, and when senders must ring
//! (SPEC N-10, N-13).

use super::lane::OwnRegion;
use super::state::{give_credit, Buffer, Events, Lane, Visit};
use super::take::{copy_next, hand_out};
use crate::sync::{const_unless_loom, fence, AtomicU32, Ordering, UnsafeCell, Word};
use mk_ipi_abi::native::{receiver, Life, LineTag, LINE_WORDS};
use mk_ipi_abi::{Incarnation, InstanceId};

/// The largest number of messages that one visit takes from a lane. After these, the next lane is visited.
const SHARE: usize = 16;
/// If a lane other than the `last` one is active, one of this number of polls visits all active lanes.
const LOOK_AT_ACTIVE: u32 = 4;
/// After this number of polls, one poll visits the lanes of all instances in the table, and reads their headers. If lanes become
/// inactive in between, or a drain ran before the polls, this takes up to three times as many polls.
const LOOK_AT_ALL: u32 = 128;

/// The value of `State::polls_left` in a poll that must visit more than the `last` lane.
const NONE_LEFT: u32 = u32::MAX;

/// The private state of the receiver. Only the CPU with the [`Hold`] accesses it. A state of zero bytes is valid.
#[derive(Debug)]
struct State<const LANES: usize> {
    lanes: [Lane; LANES],
    /// The numbers of the lanes whose instances are in the table. The active lanes come first: those in which the last visit
    /// found a message or a new hello.
    list: [u8; LANES],
    /// Number of valid entries of `list`.
    known: usize,
    /// Number of active lanes at the start of `list`.
    active: usize,
    /// The value of [`Events::version`] when `list` was made. 0: it must be made again.
    version: u32,
    /// The lane with which the next round over `list` begins.
    turn: u8,
    /// The lane in which a message was found last.
    last: u8,
    /// The index of the next tag in the `last` lane, for [`OwnRegion::tag`]. `usize::MAX`: a poll must not read that lane.
    next_at: usize,
    /// The value that this tag has when the next message is published.
    next_tag: LineTag,
    /// Whether the message that was delivered last from the `last` lane took more than one line.
    long: bool,
    /// Number of polls until one must visit more than the `last` lane.
    polls_left: u32,
    /// Number of polls from the last visit of all lanes to the next poll that visits more than the `last` lane.
    polls_since_all: u32,
    /// The incarnation of this receiver. `None` before its first life.
    ours: Option<Incarnation>,
    buffer: Buffer,
}

/// Clears `State::next_at` when it is dropped. Then, after a handler has unwound, no poll reads the line of its message
/// again.
struct PollTarget<'a>(&'a mut usize);

impl Drop for PollTarget<'_> {
    fn drop(&mut self) {
        *self.0 = usize::MAX;
    }
}

/// The receiver's end of a kernel's own region. One CPU at a time holds it. Aligned to 128 bytes, so that it shares no cache line
/// with data that other code writes.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Receiver<const LANES: usize> {
    /// [`FREE`], [`HELD`] or [`AGAIN`].
    held: AtomicU32,
    state: UnsafeCell<State<LANES>>,
}

// SAFETY: `state` is accessed through the only `Hold` that exists (`held`).
unsafe impl<const LANES: usize> Sync for Receiver<LANES> {}

/// No CPU holds the receiver.
const FREE: u32 = 0;
/// A CPU holds the receiver.
const HELD: u32 = 1;
/// A CPU holds the receiver, and since then another CPU has tried to hold it. The holder must drain once more.
const AGAIN: u32 = 2;

/// The exclusive right to read the lanes. A CPU that does not get it does not wait.
#[derive(Debug)]
pub(crate) struct Hold<'a, const LANES: usize>(&'a Receiver<LANES>);

impl<const LANES: usize> Receiver<LANES> {
    const_unless_loom! {
        pub(crate) fn new() -> Self {
            // SAFETY: zero bytes are a valid value of each field: integers are 0, a `bool` is `false`, and an `Option` of an
            // incarnation, which is never 0, is `None`.
            let state = unsafe { core::mem::MaybeUninit::<State<LANES>>::zeroed().assume_init() };
            Self { held: AtomicU32::new(FREE), state: UnsafeCell::new(state) }
        }
    }

    /// As `new`, but writes the receiver to `at`.
    ///
    /// # Safety
    ///
    /// `at` is aligned, and valid for a write of a receiver.
    #[cfg(not(loom))]
    pub(crate) unsafe fn new_in(at: *mut Self) {
        // SAFETY: the caller promises that `at` is valid. Zero bytes are a valid receiver: `FREE` is 0, a `sync::UnsafeCell` has
        // the layout of its value, and a state of zero bytes is valid (`new`).
        unsafe { at.write_bytes(0, 1) };
    }

    /// Takes the exclusive right to read the lanes. `None` if another CPU has it. That CPU then learns from [`Hold::release`]
    /// that it must drain once more.
    #[inline]
    pub(crate) fn hold(&self) -> Option<Hold<'_, LANES>> {
        // SYNC POINT: receiver-held (acquire); receiver-again (release)
        let next = |held| Some(if held == FREE { HELD } else { AGAIN });
        let before = self.held.fetch_update(Ordering::AcqRel, next);
        // `then`, not `then_some`, which would make and drop a `Hold` also if another CPU has it. Dropping one releases the
        // receiver.
        (before == Ok(FREE)).then(|| Hold(self))
    }

    /// Begins a life of the receiver (SPEC N-11, N-12). `at` is the value for `BELL`: the doorbell of this life, or 0 for the one
    /// in the directory. `discard`: discards the messages that former lives left unread.
    ///
    /// No other CPU reads the lanes yet, because our own instance is not in the table.
    pub(crate) fn begin<W: Word>(
        &self,
        own: &OwnRegion<W>,
        incarnation: Incarnation,
        discard: bool,
        at: u64,
    ) {
        let Some(mut hold) = self.hold() else { return };
        let (Some(life), Some(bell)) = (own.word(receiver::LIFE), own.word(receiver::BELL)) else { return };
        let before = life.load(Ordering::Relaxed);
        let restarted = before != 0 && Life::from_word(before).is_none_or(|b| b.incarnation != incarnation);
        own.disarm();
        // Overwrites the doorbell of a former life, which is not valid any more.
        bell.store(at, Ordering::Relaxed);
        hold.with(|state| {
            for (number, lane) in (0..=u8::MAX).zip(&mut state.lanes) {
                if let Some(end) = own.lane_end(number) {
                    *lane = end.resume(before == 0, restarted, restarted && discard);
                }
            }
            (state.version, state.polls_left, state.polls_since_all) = (0, 0, LOOK_AT_ALL);
            state.ours = Some(incarnation);
        });
        if let Some(heartbeat) = own.word(receiver::HEARTBEAT) {
            // Stays 0 until this life calls `tick`. No sender suspects a life with heartbeat 0.
            heartbeat.store(0, Ordering::Relaxed);
        }
        // Stored last, so that a sender that finds the new incarnation also finds the doubts and discards of this life.
        // SYNC POINT: receiver-life (release)
        life.store(Life { incarnation, over: false }.to_word(), Ordering::Release);
        hold.release();
    }
}

impl<const LANES: usize> Drop for Hold<'_, LANES> {
    fn drop(&mut self) {
        // Releases the receiver if the hold is dropped without `release`, for example because a handler unwinds.
        self.give_up();
    }
}

impl<const LANES: usize> Hold<'_, LANES> {
    /// Releases the receiver. True if another CPU tried to hold it in the meantime: the caller must drain once more.
    pub(crate) fn release(self) -> bool {
        let again = self.give_up();
        core::mem::forget(self);
        again
    }

    fn give_up(&self) -> bool {
        // SYNC POINT: receiver-held (release). The next holder also sees the stores that a refused CPU made before its `hold`.
        self.0.held.swap(FREE, Ordering::Release) == AGAIN
    }

    #[inline(always)]
    fn with<R>(&mut self, f: impl FnOnce(&mut State<LANES>) -> R) -> R {
        // SAFETY: there is only one hold (`held`), and this borrows it mutably for as long as it borrows the state.
        self.0.state.with_mut(|state| f(unsafe { &mut *state }))
    }

    /// Visits the lanes in turn, and handles up to `budget` messages and hellos (SPEC N-13). With `arm`, senders ring from now on
    /// if nothing is left. True if something can be left: the budget was used up, or a last look after arming found something.
    pub(crate) fn drain<W: Word, E: Events>(
        &mut self,
        own: &OwnRegion<W>,
        to: &mut E,
        budget: usize,
        arm: bool,
    ) -> bool {
        self.with(|state| state.drain(own, to, budget, arm))
    }

    /// The first step of a poll. True if the `last` lane has no new message and no other lane is due: then the poll is over.
    /// Loads one word of the region. Always false after a message of several lines, so that `poll` prefetches the next one.
    #[inline(always)]
    pub(crate) fn finds_nothing<W: Word>(&mut self, own: &OwnRegion<W>) -> bool {
        self.with(|state| {
            let polls_left = state.polls_left.checked_sub(1);
            state.polls_left = polls_left.unwrap_or(NONE_LEFT);
            polls_left.is_some() && own.tag(state.next_at) != state.next_tag && !state.long
        })
    }

    /// The second step of a poll: visits the lanes that are due, and delivers messages. Returns the number of messages and hellos
    /// found, and whether all lanes were visited.
    #[inline(always)]
    pub(crate) fn poll<W: Word, E: Events>(&mut self, own: &OwnRegion<W>, to: &mut E) -> (usize, bool) {
        self.with(|state| {
            if state.polls_left == NONE_LEFT {
                return state.look_at_more(own, to);
            }
            (state.look_at_last(own, to), false)
        })
    }
}

impl<const LANES: usize> State<LANES> {
    fn drain<W: Word, E: Events>(
        &mut self,
        own: &OwnRegion<W>,
        to: &mut E,
        budget: usize,
        arm: bool,
    ) -> bool {
        if arm {
            own.disarm();
        }
        let mut spent = self.look_at_all(own, to, budget);
        while spent < budget && self.active != 0 {
            spent = spent.wrapping_add(self.look_at(own, to, self.active, budget.wrapping_sub(spent)));
        }
        self.plan_polls(own);
        spent >= budget || (arm && !self.arm(own, to))
    }

    /// Visits all lanes of instances in the table, until the budget is used up. Returns the number of messages and hellos found.
    fn look_at_all<W: Word, E: Events>(&mut self, own: &OwnRegion<W>, to: &mut E, budget: usize) -> usize {
        let version = to.version();
        if self.version != version {
            (self.version, self.known, self.active) = (version, 0, 0);
            for number in (0..=u8::MAX).filter(|&number| to.knows(InstanceId::new(number))) {
                if let Some(place) = self.list.get_mut(self.known) {
                    *place = number;
                    self.known = self.known.wrapping_add(1);
                }
            }
        }
        self.look_at(own, to, self.known, budget)
    }

    /// Visits the first `count` lanes of the list, beginning with the lane `turn`, until the budget is used up. Returns the
    /// number of messages and hellos found.
    fn look_at<W: Word, E: Events>(
        &mut self,
        own: &OwnRegion<W>,
        to: &mut E,
        count: usize,
        budget: usize,
    ) -> usize {
        self.clear_poll_target();
        let from = (0..count).find(|&index| self.list.get(index) == Some(&self.turn)).unwrap_or(0);
        let mut spent = 0usize;
        for index in (from..count).chain(0..from) {
            let Some(&lane) = self.list.get(index) else { break };
            if spent >= budget {
                self.turn = lane;
                break;
            }
            spent = spent.wrapping_add(self.visit(own, to, lane, SHARE.min(budget.wrapping_sub(spent))));
        }
        self.sort(count);
        spent
    }

    /// Moves the active lanes among the first `count` to the front of the list. Called after a round, because a round could skip
    /// a lane that is moved while the round runs.
    fn sort(&mut self, count: usize) {
        self.active = 0;
        for index in 0..count {
            let lane = self.list.get(index).and_then(|&lane| self.lanes.get(usize::from(lane)));
            if lane.is_some_and(|lane| lane.active) {
                self.exchange(index, self.active);
                self.active = self.active.wrapping_add(1);
            }
        }
    }

    /// Exchanges two entries of the list.
    fn exchange(&mut self, a: usize, b: usize) {
        // Not `swap`, which could panic.
        if let (Some(&at_a), Some(&at_b)) = (self.list.get(a), self.list.get(b)) {
            for (index, lane) in [(a, at_b), (b, at_a)] {
                self.list.get_mut(index).into_iter().for_each(|place| *place = lane);
            }
        }
    }

    /// Visits a lane: takes up to `share` messages, then reads the header. Returns the number of messages and new hellos. While
    /// messages of a life that has ended are delivered, skipped lines count too. Hellos count, because otherwise a hostile peer
    /// could keep a drain from ending: it would write another hello before each visit.
    fn visit<W: Word, E: Events>(
        &mut self,
        own: &OwnRegion<W>,
        to: &mut E,
        number: u8,
        share: usize,
    ) -> usize {
        let lane = self.lanes.get_mut(usize::from(number)).zip(own.lane_end(number));
        let Some((lane, end)) = lane else { return 0 };
        let mut visit = Visit { end, lane, id: InstanceId::new(number), ours: self.ours };
        let steps = if visit.lane.hand_on_until == 0 {
            visit.take(to, &mut self.buffer, share)
        } else {
            visit.hand_on(to, &mut self.buffer, share)
        };
        visit.give_credit();
        if steps == 0 {
            visit.end.prefetch_long(visit.lane);
        } else {
            self.last = number;
        }
        let steps = steps.wrapping_add(visit.look_at_header(to).into());
        visit.lane.active = steps != 0;
        steps
    }

    /// The part of a poll that visits all active lanes, or all lanes.
    #[inline(never)]
    fn look_at_more<W: Word, E: Events>(&mut self, own: &OwnRegion<W>, to: &mut E) -> (usize, bool) {
        let all = self.polls_since_all >= LOOK_AT_ALL;
        let found = if all {
            self.look_at_all(own, to, usize::MAX)
        } else {
            self.look_at(own, to, self.active, usize::MAX)
        };
        self.plan_polls(own);
        let before = if all { 0 } else { self.polls_since_all };
        self.polls_since_all = before.wrapping_add(self.polls_left).wrapping_add(1);
        (found, all)
    }

    /// The usual part of a poll: takes one message from the `last` lane, if exactly one is published there. In all other cases
    /// calls [`take_turn`](Self::take_turn).
    #[inline(always)]
    fn look_at_last<W: Word, E: Events>(&mut self, own: &OwnRegion<W>, to: &mut E) -> usize {
        let (number, next) = (self.last, (self.next_at, self.next_tag));
        let lane = self.lanes.get_mut(usize::from(number)).zip(own.control(number));
        let Some((lane, control)) = lane else { return 0 };
        let first = lane.next;
        let Some(copied) = copy_next(own, number, next, first, &mut self.buffer) else {
            return self.take_turn(own, to);
        };
        let target = PollTarget(&mut self.next_at);
        hand_out(control, lane, (InstanceId::new(number), self.ours), to, &copied, &self.buffer);
        core::mem::forget(target);
        if copied.end == first.wrapping_add(1) && !own.geometry.is_first_of_lap(copied.end) {
            (self.long, self.next_at) = (false, self.next_at.wrapping_add(LINE_WORDS));
        } else {
            self.set_poll_target(own);
        }
        if own.tag(self.next_at) == self.next_tag {
            return self.take_turn(own, to).wrapping_add(1);
        }
        if let Some(lane) = self.lanes.get_mut(usize::from(self.last)) {
            give_credit(control, lane);
        }
        1
    }

    /// Visits the `last` lane: takes up to [`SHARE`] messages, then reads the header.
    #[inline(never)]
    fn take_turn<W: Word, E: Events>(&mut self, own: &OwnRegion<W>, to: &mut E) -> usize {
        self.clear_poll_target();
        let found = self.visit(own, to, self.last, SHARE);
        self.set_poll_target(own);
        found
    }

    /// Keeps polls from reading the `last` lane before [`set_poll_target`](Self::set_poll_target) is called: a handler that
    /// unwinds would leave a wrong `next_at`.
    #[inline(always)]
    fn clear_poll_target(&mut self) {
        self.next_at = usize::MAX;
    }

    /// Plans the next polls: which of them visits more lanes, and which line the others check.
    fn plan_polls<W: Word>(&mut self, own: &OwnRegion<W>) {
        let more_often = self.active > 1 || (self.active == 1 && self.list.first() != Some(&self.last));
        self.polls_left = if more_often { LOOK_AT_ACTIVE } else { LOOK_AT_ALL }.wrapping_sub(1);
        self.set_poll_target(own);
    }

    /// Sets the line of the `last` lane that a poll checks, and the tag that it expects there.
    #[inline(always)]
    fn set_poll_target<W: Word>(&mut self, own: &OwnRegion<W>) {
        if let Some(lane) = self.lanes.get(usize::from(self.last)) {
            self.next_at = if lane.open && lane.began_reported && lane.hand_on_until == 0 {
                own.tag_at(self.last, lane.next)
            } else {
                usize::MAX
            };
            self.next_tag = own.geometry.first_tag(lane.next);
            self.long = lane.long;
        }
    }

    /// Stores 1 to `ARMED`, so that senders ring from now on. Then checks the lanes once more (SPEC N-10). If there is work,
    /// stores 0 again and returns false.
    fn arm<W: Word, E: Events>(&mut self, own: &OwnRegion<W>, to: &E) -> bool {
        let Some(armed) = own.word(receiver::ARMED) else { return true };
        // SYNC POINT: bell (release). A sender that finds 1 in `ARMED` also finds our present doorbell in `BELL`.
        armed.store(1, Ordering::Release);
        // SYNC POINT: armed (fence). Either a sender finds 1 in `ARMED`, or we see its message, hello or request for space.
        fence(Ordering::SeqCst);
        let is_pending = |&number: &u8| {
            let lane = self.lanes.get(usize::from(number));
            own.lane_end(number).zip(lane).is_some_and(|(end, lane)| end.is_pending(lane))
        };
        // If the table has changed, `list` is out of date, so the lanes must be visited again. If an instance is added after this
        // check, the CPU that adds it schedules a drain.
        let pending = to.version() != self.version || self.list.iter().take(self.known).any(is_pending);
        if pending {
            armed.store(0, Ordering::Relaxed);
        }
        !pending
    }
}
