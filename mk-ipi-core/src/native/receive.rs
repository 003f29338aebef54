// SPDX-License-Identifier: MIT OR Apache-2.0
//! The receiver's end of all lanes: which CPU may read them, which lanes it visits, and when senders must ring (SPEC N-10, N-13).

use super::lane::OwnRegion;
use super::state::{give_credit, Buffer, Events, Lane, Visit};
use super::take::{copy_next, hand_out};
use crate::sync::{const_unless_loom, fence, AtomicU32, Ordering, UnsafeCell, Word};
use mk_ipi_abi::native::{receiver, Life, LineTag, LINE_WORDS};
use mk_ipi_abi::{Incarnation, InstanceId};

/// Most messages of one lane before the next lane is visited.
const SHARE: usize = 16;
/// Out of this many polls, one visits every lane that had a message recently.
const LOOK_AT_ACTIVE: u32 = 4;
/// Out of this many polls, one visits every lane of an instance in the table, including its header.
const LOOK_AT_ALL: u32 = 128;

/// `left` in a poll that must look at more lanes.
const NONE_LEFT: u32 = u32::MAX;

/// The state of the receiver, for its holder. All zeros is a valid state.
#[derive(Debug)]
struct State<const LANES: usize> {
    lanes: [Lane; LANES],
    /// The lanes of instances in the table, as of `version`. First those in which the last visit found something.
    list: [u8; LANES],
    known: usize,
    active: usize,
    version: u32,
    /// The lane with which the next round begins.
    turn: u8,
    /// The lane in which something was found last.
    last: u8,
    /// The index of its next tag, and its expected value.
    next_at: usize,
    next_tag: LineTag,
    /// Whether its last message had further lines.
    long: bool,
    /// Polls until one must visit more than the `last` lane, and polls since all lanes were visited.
    polls_left: u32,
    polls_since_all: u32,
    ours: Option<Incarnation>,
    buffer: Buffer,
}

/// Clears the target of the next poll when it is dropped: if a handler unwinds, its line must not be read again.
struct PollTarget<'a>(&'a mut usize);

impl Drop for PollTarget<'_> {
    fn drop(&mut self) {
        *self.0 = usize::MAX;
    }
}

/// The receiver's end of a kernel's own region. One CPU at a time holds it. Aligned to 128 bytes, apart from what others write.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Receiver<const LANES: usize> {
    /// [`FREE`], [`HELD`] or [`AGAIN`].
    held: AtomicU32,
    state: UnsafeCell<State<LANES>>,
}

// SAFETY: `state` is accessed through the only `Hold` that exists (`held`).
unsafe impl<const LANES: usize> Sync for Receiver<LANES> {}

const FREE: u32 = 0;
const HELD: u32 = 1;
/// Held, and another CPU has left a drain to the holder.
const AGAIN: u32 = 2;

/// The exclusive right to read the lanes. No CPU waits for it.
#[derive(Debug)]
pub(crate) struct Hold<'a, const LANES: usize>(&'a Receiver<LANES>);

impl<const LANES: usize> Receiver<LANES> {
    const_unless_loom! {
        pub(crate) fn new() -> Self {
            // SAFETY: integers, `false` and `None` of a number that is never 0 are all zeros.
            let state = unsafe { core::mem::MaybeUninit::<State<LANES>>::zeroed().assume_init() };
            Self { held: AtomicU32::new(FREE), state: UnsafeCell::new(state) }
        }
    }

    /// As `new`, in place.
    ///
    /// # Safety
    ///
    /// `at` is valid for a write of a receiver.
    #[cfg(not(loom))]
    pub(crate) unsafe fn new_in(at: *mut Self) {
        // SAFETY: the caller; `FREE` is 0, and the cell is its value in memory (`sync::UnsafeCell`): as in `new`.
        unsafe { at.write_bytes(0, 1) };
    }

    /// Holds the receiver. `None` if another CPU holds it: that CPU then looks once more, or schedules it.
    #[inline]
    pub(crate) fn hold(&self) -> Option<Hold<'_, LANES>> {
        // SYNC POINT: receiver-held (acquire); receiver-again (release)
        let next = |held| Some(if held == FREE { HELD } else { AGAIN });
        let before = self.held.fetch_update(Ordering::AcqRel, next);
        // Made only if it is ours, because dropping it releases the receiver.
        (before == Ok(FREE)).then(|| Hold(self))
    }

    /// Begins a life of the receiver, with the doorbell `at` (SPEC N-11, N-12). `discard`: messages that former lives left unread are
    /// discarded.
    ///
    /// No CPU reads the lanes yet, because our own instance is not in the table.
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
        // The doorbell of a former life is not valid any more.
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
            // A life that never calls `tick` keeps 0 here, and is not suspected.
            heartbeat.store(0, Ordering::Relaxed);
        }
        // Last, or a life that ends in between would not count as one.
        // SYNC POINT: receiver-life (release)
        life.store(Life { incarnation, over: false }.to_word(), Ordering::Release);
        hold.release();
    }
}

impl<const LANES: usize> Drop for Hold<'_, LANES> {
    fn drop(&mut self) {
        // A hold that is dropped, for example by an unwinding handler, releases the receiver too.
        self.give_up();
    }
}

impl<const LANES: usize> Hold<'_, LANES> {
    /// Releases the receiver. True if another CPU left a drain to us.
    pub(crate) fn release(self) -> bool {
        let again = self.give_up();
        core::mem::forget(self);
        again
    }

    fn give_up(&self) -> bool {
        // SYNC POINT: receiver-held (release). The next holder sees what was left to us.
        self.0.held.swap(FREE, Ordering::Release) == AGAIN
    }

    #[inline(always)]
    fn with<R>(&mut self, f: impl FnOnce(&mut State<LANES>) -> R) -> R {
        // SAFETY: there is one hold (`held`), and it is borrowed mutably as long as the state is.
        self.0.state.with_mut(|state| f(unsafe { &mut *state }))
    }

    /// Delivers up to `budget` messages, lane by lane in turn (SPEC N-13). With `arm`, senders ring from now on if nothing
    /// is left. True if something is left.
    pub(crate) fn drain<W: Word, E: Events>(
        &mut self,
        own: &OwnRegion<W>,
        to: &mut E,
        budget: usize,
        arm: bool,
    ) -> bool {
        self.with(|state| state.drain(own, to, budget, arm))
    }

    /// Whether a look at the `last` lane, which is one load, finds nothing, and this poll need not visit more lanes.
    #[inline(always)]
    pub(crate) fn finds_nothing<W: Word>(&mut self, own: &OwnRegion<W>) -> bool {
        self.with(|state| {
            let polls_left = state.polls_left.checked_sub(1);
            state.polls_left = polls_left.unwrap_or(NONE_LEFT);
            polls_left.is_some() && own.tag(state.next_at) != state.next_tag && !state.long
        })
    }

    /// Visits the lanes that are due, and delivers messages. Gives how much was found, and whether all lanes were visited.
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

    /// Visits the first `count` lanes of the list, beginning with `turn`, until the budget is spent. Gives how much was
    /// spent.
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

    /// Moves the active ones of the first `count` lanes to the front of the list. Only after a round, because a lane that moves during
    /// one could be skipped.
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

    /// Exchanges two lanes of the list.
    fn exchange(&mut self, a: usize, b: usize) {
        // Not `swap`, which could panic.
        if let (Some(&at_a), Some(&at_b)) = (self.list.get(a), self.list.get(b)) {
            for (index, lane) in [(a, at_b), (b, at_a)] {
                self.list.get_mut(index).into_iter().for_each(|place| *place = lane);
            }
        }
    }

    /// Visits a lane: up to `share` messages, then its header. Gives the number of steps, including new hellos, because a peer could
    /// write another one each time.
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

    /// A poll that visits several lanes, or all.
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

    /// Visits the `last` lane when it holds something else than one good message.
    #[inline(never)]
    fn take_turn<W: Word, E: Events>(&mut self, own: &OwnRegion<W>, to: &mut E) -> usize {
        self.clear_poll_target();
        let found = self.visit(own, to, self.last, SHARE);
        self.set_poll_target(own);
        found
    }

    /// Clears the target, so that a poll finds nothing until it is set again. If a handler unwinds, no wrong line is read.
    #[inline(always)]
    fn clear_poll_target(&mut self) {
        self.next_at = usize::MAX;
    }

    /// Plans the next polls: when to visit more lanes, and which line to check.
    fn plan_polls<W: Word>(&mut self, own: &OwnRegion<W>) {
        let more_often = self.active > 1 || (self.active == 1 && self.list.first() != Some(&self.last));
        self.polls_left = if more_often { LOOK_AT_ACTIVE } else { LOOK_AT_ALL }.wrapping_sub(1);
        self.set_poll_target(own);
    }

    /// Sets the tag that a poll expects in the `last` lane.
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

    /// Asks senders to ring from now on. False if something came meanwhile (SPEC N-10).
    fn arm<W: Word, E: Events>(&mut self, own: &OwnRegion<W>, to: &E) -> bool {
        let Some(armed) = own.word(receiver::ARMED) else { return true };
        // SYNC POINT: bell (release). A sender that finds us armed rings our present doorbell.
        armed.store(1, Ordering::Release);
        // SYNC POINT: armed (fence). Either a sender sees that we are armed, or we see what it has stored.
        fence(Ordering::SeqCst);
        let is_pending = |&number: &u8| {
            let lane = self.lanes.get(usize::from(number));
            own.lane_end(number).zip(lane).is_some_and(|(end, lane)| end.is_pending(lane))
        };
        // An instance that has come since the last look is looked at by whoever added it.
        let pending = to.version() != self.version || self.list.iter().take(self.known).any(is_pending);
        if pending {
            armed.store(0, Ordering::Relaxed);
        }
        !pending
    }
}
