// SPDX-License-Identifier: MIT OR Apache-2.0
//! The receiver's end of all lanes: find what is pending, copy it out, check the copy, hand it on, give credit.
#![expect(clippy::cast_possible_truncation, reason = "fields are cut out of words")]

use super::lane::{Cell, LaneEnd, OwnRegion};
use crate::message::Message;
use crate::platform::PeerEvent;
use crate::sync::{const_unless_loom, fence, AtomicBool, AtomicU32, Ordering, UnsafeCell, Word};
use mk_ipi_abi::native::{cell, control, header, receiver, Breach, CellAbout, Lap, HINT_WORDS, MAX_LEN};
use mk_ipi_abi::{InstanceId, MessageType, PhysCpuId};

/// Most messages of one lane before the next one's turn.
const SHARE: usize = 16;
/// Lanes that a region can have; a model, whose stack is small, uses few.
const LANES: usize = if cfg!(loom) { 8 } else { 256 };

/// What the receiver needs to know of the rest of its kernel.
pub(crate) trait Events {
    /// A hold on an instance that this kernel knows.
    type Peer;
    /// The instance whose lane it is, if this kernel knows it.
    fn peer(&self, id: InstanceId) -> Option<Self::Peer>;
    /// Another number, never 0, whenever an instance has come or gone.
    fn version(&self) -> u32;
    /// The physical id of the CPU that the directory lists at `index` for it.
    fn cpu(peer: &Self::Peer, index: u16) -> Option<PhysCpuId>;
    /// Hands a message to its handlers.
    fn deliver(&mut self, message: &Message);
    /// Rings an instance that waits for something of ours.
    fn ring(&self, id: InstanceId);
    /// Something happened to a lane.
    fn event(&mut self, id: InstanceId, event: PeerEvent);
}

/// What the receiver knows of one lane. In private memory: no peer can change it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane {
    /// The position to be read next.
    pub next: u64,
    /// What `CREDIT` says.
    pub credited: u64,
    /// What `ANSWER` says: the sender's life that is acknowledged.
    pub hello: u64,
    /// The end of what a former life of the sender may have published, while that is drained; else 0.
    pub until: u64,
    /// The sender's `WANT` that was answered.
    pub want: u64,
    /// What `RECEIVED` says.
    pub received: u64,
    /// The lane is in quarantine.
    pub breach: bool,
    /// The cells are known to hold nothing but what the life in `hello` published.
    pub clean: bool,
    /// The CPU that sent last.
    pub speaker: Speaker,
}

/// A sender's CPU, looked up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Speaker {
    /// The [`Events::version`] for which this holds.
    version: u32,
    /// In the directory's list of the instance.
    index: u16,
    id: PhysCpuId,
}

/// Why a cell gave no message.
enum NotCopied {
    /// The sending instance is not known here.
    Unknown,
    Breach(Breach),
}

impl Lane {
    /// Whether its cells are to be read.
    fn is_open(&self) -> bool {
        self.until != 0 || (self.hello != 0 && self.clean && !self.breach)
    }

    pub const NEW: Self = Self {
        next: 0,
        credited: 0,
        hello: 0,
        until: 0,
        want: 0,
        received: 0,
        breach: false,
        clean: true,
        speaker: Speaker { version: 0, index: 0, id: PhysCpuId(0) },
    };
}

/// How a turn at a lane ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing is left.
    Empty,
    /// There is more.
    More,
}

/// What the holder of the receiver works on.
#[derive(Debug)]
pub(super) struct State {
    pub lanes: [Lane; LANES],
    /// Lanes that are looked at in each drain: all whose hint was seen since the receiver last armed.
    pub active: [u64; HINT_WORDS],
    /// The lane whose turn is next.
    turn: u8,
    /// The lane that is looked at without a hint in the next drain.
    sweep: u8,
    message: Message,
}

/// The receiver's end of a kernel's own region. One CPU at a time drains it.
#[derive(Debug)]
pub(crate) struct Receiver {
    /// [`FREE`], [`HELD`] or [`AGAIN`].
    held: AtomicU32,
    /// An interrupt came: there is something, hint or not.
    woken: AtomicBool,
    state: UnsafeCell<State>,
}

// SAFETY: `state` is reached by the one `Hold` that exists (`held`).
unsafe impl Sync for Receiver {}

const FREE: u32 = 0;
const HELD: u32 = 1;
/// Held, and somebody who found it so has left the drain to the holder.
const AGAIN: u32 = 2;

/// The right to drain. Nobody waits for it.
#[derive(Debug)]
pub(crate) struct Hold<'a>(&'a Receiver);

impl Receiver {
    const_unless_loom! {
        pub(crate) fn new() -> Self {
            Self {
                held: AtomicU32::new(FREE),
                woken: AtomicBool::new(false),
                state: UnsafeCell::new(State {
                    lanes: [Lane::NEW; LANES],
                    active: [0; HINT_WORDS],
                    turn: 0,
                    sweep: 0,
                    message: Message::EMPTY,
                }),
            }
        }
    }

    /// As `new`, in place.
    ///
    /// # Safety
    ///
    /// `at` is valid for a write of a receiver.
    #[cfg(not(loom))]
    pub(crate) unsafe fn new_in(at: *mut Self) {
        // SAFETY: the caller; these are all fields, and the cell is its value in memory (`sync::UnsafeCell`).
        unsafe {
            (&raw mut (*at).held).write(AtomicU32::new(FREE));
            (&raw mut (*at).woken).write(AtomicBool::new(false));
            let state = (&raw mut (*at).state).cast::<State>();
            crate::place::fill(&raw mut (*state).lanes, || Lane::NEW);
            (&raw mut (*state).active).write([0; HINT_WORDS]);
            (&raw mut (*state).turn).write(0);
            (&raw mut (*state).sweep).write(0);
            (&raw mut (*state).message).write(Message::EMPTY);
            // A field that is added must be written above.
            let Self { held: _, woken: _, state: _ } = &*at;
            let State { lanes: _, active: _, turn: _, sweep: _, message: _ } = &*state;
        }
    }

    /// Holds the receiver, unless somebody does; whoever does then drains once more.
    #[inline]
    pub(crate) fn hold(&self) -> Option<Hold<'_>> {
        // SYNC POINT: receiver-held (acquire); receiver-again (release)
        let next = |held| Some(if held == FREE { HELD } else { AGAIN });
        let before = self.held.fetch_update(Ordering::AcqRel, next);
        // Made only if it is ours: dropped, it would give up what another one holds.
        (before == Ok(FREE)).then(|| Hold(self))
    }

    /// An interrupt came: the next drain believes it.
    pub(crate) fn wake(&self) {
        self.woken.store(true, Ordering::Relaxed);
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        // A hold that was not released leaves nothing to anybody.
        self.give_up();
    }
}

impl Hold<'_> {
    /// Gives the receiver up; true if somebody left a drain to us.
    pub(crate) fn release(self) -> bool {
        let again = self.give_up();
        core::mem::forget(self);
        again
    }

    fn give_up(&self) -> bool {
        // SYNC POINT: receiver-held (release). What was left to us is seen by whoever holds next.
        self.0.held.swap(FREE, Ordering::Release) == AGAIN
    }

    pub(super) fn with<R>(&mut self, f: impl FnOnce(&mut State) -> R) -> R {
        // SAFETY: there is one hold (`held`), and it is borrowed mutably for as long as the state is.
        self.0.state.with_mut(|state| f(unsafe { &mut *state }))
    }

    /// Whether any lane has anything, hint or not; if so the next drain looks there.
    pub(crate) fn is_pending<W: Word, E: Events>(&mut self, own: &OwnRegion<W>, to: &E) -> bool {
        self.with(|state| {
            state.activate_all(own.geometry.lanes());
            state.is_pending(own, to)
        })
    }

    /// Reads up to `budget` messages, lane by lane in turn (SPEC N-13). With `arm`, senders ring from now on if nothing
    /// is left. True if something is.
    pub(crate) fn drain<W: Word, E: Events>(
        &mut self,
        own: &OwnRegion<W>,
        to: &mut E,
        budget: usize,
        arm: bool,
    ) -> bool {
        let woken = arm && self.0.woken.swap(false, Ordering::Relaxed);
        self.with(|state| state.drain(own, to, budget, arm, woken))
    }
}

impl State {
    fn drain<W: Word, E: Events>(
        &mut self,
        own: &OwnRegion<W>,
        to: &mut E,
        budget: usize,
        arm: bool,
        woken: bool,
    ) -> bool {
        if arm {
            disarm(own);
        }
        self.look_at_hints(own);
        let mut spent = self.sweep(own, to, budget);
        spent = spent.wrapping_add(self.rounds(own, to, budget.saturating_sub(spent)));
        if spent == 0 && woken {
            // Somebody rang and nobody is hinted at: a hint was overwritten. Look everywhere, once.
            self.activate_all(own.geometry.lanes());
            spent = self.rounds(own, to, budget);
        }
        spent >= budget || (arm && !self.arm(own, to))
    }

    /// Looks at one lane that no hint tells of, another in each drain.
    fn sweep<W: Word, E: Events>(&mut self, own: &OwnRegion<W>, to: &mut E, budget: usize) -> usize {
        let lane = self.sweep;
        self.sweep = next_lane(lane, own.geometry.lanes());
        let word = self.active.get(usize::from(lane >> 6)).copied().unwrap_or(0);
        if word & (1 << (lane & 63)) != 0 {
            return 0;
        }
        let (spent, turn) = self.visit(own, to, lane, SHARE.min(budget));
        if turn == Turn::More {
            self.activate(lane);
        }
        spent
    }

    /// Gives each active lane its turn until none has anything, or the budget is spent; how many positions that was.
    fn rounds<W: Word, E: Events>(&mut self, own: &OwnRegion<W>, to: &mut E, budget: usize) -> usize {
        let (mut spent, mut empty) = (0usize, 0u32);
        while spent < budget {
            let Some(lane) = self.next_active() else { break };
            let share = SHARE.min(budget.wrapping_sub(spent));
            let (steps, turn) = self.visit(own, to, lane, share);
            spent = spent.wrapping_add(steps);
            empty = if turn == Turn::Empty { empty.wrapping_add(1) } else { 0 };
            if empty >= self.active.iter().fold(0, |n: u32, w| n.wrapping_add(w.count_ones())) {
                break;
            }
        }
        spent
    }

    pub(super) fn activate(&mut self, lane: u8) {
        if let Some(word) = self.active.get_mut(usize::from(lane >> 6)) {
            *word |= 1 << (lane & 63);
        }
    }

    pub(super) fn activate_all(&mut self, lanes: u32) {
        (0..=u8::MAX).take(lanes as usize).for_each(|lane| self.activate(lane));
    }

    fn look_at_hints<W: Word>(&mut self, own: &OwnRegion<W>) {
        for (active, hint) in self.active.iter_mut().zip(own.hints().into_iter().flatten()) {
            *active |= hint.load(Ordering::Relaxed);
        }
    }

    /// The active lane whose turn it is.
    fn next_active(&mut self) -> Option<u8> {
        let from = self.turn;
        let word = |i: u8| self.active.get(usize::from(i & 3)).copied().unwrap_or(0);
        let start = from >> 6;
        let first = word(start) & (u64::MAX << (from & 63));
        let lane = if first != 0 {
            (start << 6) | first.trailing_zeros() as u8
        } else {
            // The last one is the first again, for the lanes below `from`.
            let i = (1..=4).map(|i| start.wrapping_add(i) & 3).find(|&i| word(i) != 0)?;
            (i << 6) | word(i).trailing_zeros() as u8
        };
        self.turn = lane.wrapping_add(1);
        Some(lane)
    }

    /// A lane's turn: up to `share` messages. Gives how many positions it went on by.
    fn visit<W: Word, E: Events>(
        &mut self,
        own: &OwnRegion<W>,
        to: &mut E,
        number: u8,
        share: usize,
    ) -> (usize, Turn) {
        let id = InstanceId::new(number);
        let Some((lane, end)) = self.lanes.get_mut(usize::from(number)).zip(own.lane_end(number)) else {
            // A hint at a lane that does not exist.
            self.deactivate(number);
            return (0, Turn::Empty);
        };
        let mut visit = Visit { end, lane, message: &mut self.message, id };
        let (steps, turn) = visit.messages(to, share);
        visit.give_credit();
        if turn == Turn::More {
            return (steps, turn);
        }
        // A greeting costs a step: a peer may say another hello each time.
        let greeted = visit.look_at_header(to);
        (steps.wrapping_add((greeted == Turn::More).into()), greeted)
    }

    fn deactivate(&mut self, lane: u8) {
        if let Some(word) = self.active.get_mut(usize::from(lane >> 6)) {
            *word &= !(1 << (lane & 63));
        }
    }

    /// Has senders ring from now on; false if something came meanwhile (SPEC N-10).
    fn arm<W: Word, E: Events>(&mut self, own: &OwnRegion<W>, to: &E) -> bool {
        let Some(armed) = own.word(receiver::ARMED) else { return true };
        // SYNC POINT: bell (release). Who finds us armed rings where we are.
        armed.store(1, Ordering::Release);
        for (active, hint) in self.active.iter_mut().zip(own.hints().into_iter().flatten()) {
            if hint.load(Ordering::Relaxed) != 0 {
                *active |= hint.swap(0, Ordering::Relaxed);
            }
        }
        // SYNC POINT: armed (fence). A sender sees that we are armed and its hint cleared, or we see its message.
        fence(Ordering::SeqCst);
        let hinted = own.hints().into_iter().flatten().any(|hint| hint.load(Ordering::Relaxed) != 0);
        if hinted || self.is_pending(own, to) {
            armed.store(0, Ordering::Relaxed);
            return false;
        }
        self.active = [0; HINT_WORDS];
        true
    }

    /// Whether an active lane of an instance that we know has anything for us.
    fn is_pending<W: Word, E: Events>(&self, own: &OwnRegion<W>, to: &E) -> bool {
        let is_pending = |number: u8| {
            let lane = self.lanes.get(usize::from(number));
            own.lane_end(number).zip(lane).is_some_and(|(end, lane)| end.is_pending(lane))
                && to.peer(InstanceId::new(number)).is_some()
        };
        [0u8, 64, 128, 192].into_iter().zip(self.active).any(|(first, mut bits)| {
            while bits != 0 {
                if is_pending(first | bits.trailing_zeros() as u8) {
                    return true;
                }
                bits &= bits.wrapping_sub(1);
            }
            false
        })
    }
}

/// Has no sender ring any more.
pub(super) fn disarm<W: Word>(own: &OwnRegion<W>) {
    if let Some(armed) = own.word(receiver::ARMED).filter(|armed| armed.load(Ordering::Relaxed) != 0) {
        armed.store(0, Ordering::Relaxed);
    }
}

const fn next_lane(lane: u8, lanes: u32) -> u8 {
    let next = lane.wrapping_add(1);
    if (next as u32) < lanes {
        next
    } else {
        0
    }
}

/// One lane during its turn.
pub(super) struct Visit<'a, W> {
    pub end: LaneEnd<'a, W>,
    pub lane: &'a mut Lane,
    message: &'a mut Message,
    pub id: InstanceId,
}

impl<W: Word> Visit<'_, W> {
    /// Hands on up to `share` messages, in order.
    fn messages<E: Events>(&mut self, to: &mut E, share: usize) -> (usize, Turn) {
        self.lane.clean = self.is_clean();
        for steps in 0..share {
            if !self.lane.is_open() {
                return (steps, Turn::Empty);
            }
            let Some(cell) = self.end.cell(self.lane.next) else { return (steps, Turn::Empty) };
            let [head, ..] = cell;
            // SYNC POINT: message-published (acquire)
            let head = head.load(Ordering::Acquire);
            let draining = self.lane.until != 0;
            match Lap::of(head as u32, self.end.geometry.lap(self.lane.next)) {
                Lap::Here => match self.copy(to, cell, head) {
                    Ok(()) => {
                        to.deliver(self.message);
                        self.advance(to, true);
                    }
                    // The lane of an instance that we do not know yet is left as it is.
                    Err(NotCopied::Unknown) => return (steps, Turn::Empty),
                    // What a dead life left is skipped; a living one answers for it.
                    Err(NotCopied::Breach(_)) if draining => self.advance(to, false),
                    Err(NotCopied::Breach(breach)) => self.quarantine(to, breach),
                },
                _ if draining => self.advance(to, false),
                Lap::NotYet => return (steps, Turn::Empty),
                Lap::Future => self.quarantine(to, Breach::Lap),
            }
        }
        (share, Turn::More)
    }

    /// A cell's message as a private copy, each word read once, checked (SPEC N-7).
    #[inline(always)]
    fn copy<E: Events>(&mut self, to: &E, words: &Cell<W>, head: u64) -> Result<(), NotCopied> {
        let [_, about, payload @ ..] = words;
        let CellAbout { len, cpu } = CellAbout::from_word(about.load(Ordering::Relaxed));
        let len = usize::from(len);
        if len > MAX_LEN {
            return Err(NotCopied::Breach(Breach::Length));
        }
        let sender_cpu = self.speaker(to, cpu)?;
        let message = &mut *self.message;
        message.sender_cpu = sender_cpu;
        message.sender = Some(self.id);
        message.msg_type = MessageType((head >> 32) as u32);
        message.len = len;
        for (copy, word) in message.words.iter_mut().zip(payload).take(len.div_ceil(8)) {
            *copy = word.load(Ordering::Relaxed);
        }
        Ok(())
    }

    /// The physical id of the CPU at `index` in the directory's list of this lane's instance.
    #[inline(always)]
    fn speaker<E: Events>(&mut self, to: &E, index: u16) -> Result<PhysCpuId, NotCopied> {
        let version = to.version();
        let last = &mut self.lane.speaker;
        // It is looked up once for all messages of one CPU: a look-up is two locked instructions.
        if (last.version, last.index) != (version, index) {
            let peer = to.peer(self.id).ok_or(NotCopied::Unknown)?;
            let id = E::cpu(&peer, index).ok_or(NotCopied::Breach(Breach::Cpu))?;
            *last = Speaker { version, index, id };
        }
        Ok(last.id)
    }

    /// Whether the life in force has cleaned its cells, or needed not.
    pub(super) fn is_clean(&self) -> bool {
        self.lane.clean || self.end.is_clean(self.lane.hello)
    }

    /// Goes on by one position.
    fn advance<E: Events>(&mut self, to: &mut E, received: bool) {
        self.lane.next = self.lane.next.wrapping_add(1);
        self.lane.received = self.lane.received.wrapping_add(received.into());
        if self.lane.next == self.lane.until {
            self.acknowledge(to);
        }
    }

    /// Tells the sender how far we have read, once for all that were (SPEC N-8).
    fn give_credit(&mut self) {
        if self.lane.next != self.lane.credited {
            self.lane.credited = self.lane.next;
            self.end.set(control::RECEIVED, self.lane.received);
            // SYNC POINT: lane-credit (release)
            self.end.set(control::CREDIT, self.lane.next);
        }
    }

    /// The lane is empty: has its sender begun a new life, or does it wait for space?
    fn look_at_header<E: Events>(&mut self, to: &mut E) -> Turn {
        if let Some(want) = self.end.untold(self.lane) {
            self.lane.want = want;
            to.ring(self.id);
        }
        // SYNC POINT: lane-hello (acquire)
        let hello = self.end.header(header::HELLO);
        if hello == self.lane.hello {
            return Turn::Empty;
        }
        self.greet(to, hello)
    }
}

const _: () = assert!(cell::PAYLOAD == 2);
