// SPDX-License-Identifier: MIT OR Apache-2.0
//! A handler that keeps messages until a task takes them.

use crate::waker::WakerCell;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use mk_ipi_core::abi::{Incarnation, InstanceId, MessageType};
use mk_ipi_core::sync::{fence, AtomicBool, AtomicU64, Ordering};
use mk_ipi_core::{Handler, Message};
use zerocopy::{FromBytes, IntoBytes};

/// A handler that keeps up to `MESSAGES` messages of up to `WORDS` × 8 bytes, for one task that takes them out in order.
///
/// Keep it in a `static`, and register it for one or more message types, for example as a
/// [`DynHandler`](crate::typed::DynHandler). Messages of one lane keep their order. The handler copies the message and wakes the
/// task. It never waits. (The handler can be interrupted while it copies a message. Until the copy is complete, the task does not
/// get later messages either, not even those that other CPUs put in.)
///
/// **A message that does not fit is dropped and counted**: [`lost`](Self::lost) and [`too_long`](Self::too_long). A lane
/// carries messages of all types, so a full inbox does not stop the lane. `MESSAGES` must be at least the number of messages
/// that the peers can send before the task reads them. For example, one place for each peer is enough if each peer waits for
/// the answer to its request before it sends the next one.
#[derive(Debug)]
pub struct Inbox<const MESSAGES: usize, const WORDS: usize> {
    places: [Place<WORDS>; MESSAGES],
    /// The position of the next message that is put in.
    tail: AtomicU64,
    /// The position of the next message that is taken out.
    head: AtomicU64,
    /// True if a [`Receiver`] exists.
    is_taken: AtomicBool,
    waker: WakerCell,
    lost: AtomicU64,
    too_long: AtomicU64,
}

/// The place of a message. All fields are atomic words, so no access needs `unsafe`.
#[derive(Debug)]
struct Place<const WORDS: usize> {
    /// Positions only increase. The lap of a position is the position divided by `MESSAGES`. If `turn` is 2 × lap, the place is
    /// empty, and waits for the message of that lap. If `turn` is 2 × lap + 1, the place has the message of that lap.
    turn: AtomicU64,
    /// Length in bits 15..0, id of the sender plus one (0 if unknown) in bits 24..16, and message type in bits 63..32.
    what: AtomicU64,
    /// The incarnation of the sender, or 0 if it is unknown.
    theirs: AtomicU64,
    /// The number of the message, or 0 if it has none.
    number: AtomicU64,
    /// The payload.
    words: [AtomicU64; WORDS],
}

impl<const WORDS: usize> Place<WORDS> {
    const_unless_loom! {
        fn new() -> Self {
            Self {
                turn: AtomicU64::new(0),
                what: AtomicU64::new(0),
                theirs: AtomicU64::new(0),
                number: AtomicU64::new(0),
                words: array_of![AtomicU64::new(0); WORDS],
            }
        }
    }

    /// Stores the message. The caller must own the place.
    fn fill(&self, message: &Message<'_>) {
        let sender = message.sender().map_or(0, |id| u64::from(id.get()).wrapping_add(1));
        let payload = message.payload();
        let what = payload.len() as u64 & 0xffff | sender << 16 | u64::from(message.msg_type().0) << 32;
        self.what.store(what, Ordering::Relaxed);
        let theirs = message.sender_incarnation().map_or(0, |life| u64::from(life.get()));
        self.theirs.store(theirs, Ordering::Relaxed);
        self.number.store(message.number().unwrap_or(0), Ordering::Relaxed);
        // `chunks` is not used: it divides by the size of a chunk, for which the compiler can keep a panic path.
        let mut rest = payload;
        for word in &self.words {
            let (bytes, behind) = rest.split_at_checked(8).unwrap_or((rest, &[]));
            let mut value = [0; 8];
            value.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            word.store(u64::from_ne_bytes(value), Ordering::Relaxed);
            if behind.is_empty() {
                break;
            }
            rest = behind;
        }
    }

    /// Reads the message. The caller must own the place.
    fn read(&self) -> Received<WORDS> {
        let mut words = [0; WORDS];
        words.iter_mut().zip(&self.words).for_each(|(to, from)| *to = from.load(Ordering::Relaxed));
        Received {
            what: self.what.load(Ordering::Relaxed),
            theirs: self.theirs.load(Ordering::Relaxed),
            number: self.number.load(Ordering::Relaxed),
            words,
        }
    }
}

impl<const MESSAGES: usize, const WORDS: usize> Inbox<MESSAGES, WORDS> {
    /// The length of the longest message that fits, in bytes.
    pub const MAX_LEN: usize = WORDS.saturating_mul(8);

    const_unless_loom! {
        /// Makes an empty inbox. It does not compile if `MESSAGES` is 0, or if `WORDS` is above 512 (4,096 bytes), because no
        /// message is longer.
        pub fn new() -> Self {
            const { assert!(MESSAGES > 0 && WORDS <= 512) };
            Self {
                places: array_of![Place::new(); MESSAGES],
                tail: AtomicU64::new(0),
                head: AtomicU64::new(0),
                is_taken: AtomicBool::new(false),
                waker: WakerCell::new(),
                lost: AtomicU64::new(0),
                too_long: AtomicU64::new(0),
            }
        }
    }

    /// Returns the object that takes messages out. `None` if another [`Receiver`] exists.
    pub fn receiver(&self) -> Option<Receiver<'_, MESSAGES, WORDS>> {
        // SYNC POINT: inbox-receiver (acquire)
        (!self.is_taken.swap(true, Ordering::Acquire)).then_some(Receiver { inbox: self })
    }

    /// The number of messages that were dropped because no place was empty. Wraps at 2^64.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// The number of messages that were dropped because they are longer than [`MAX_LEN`](Self::MAX_LEN). Wraps at 2^64.
    pub fn too_long(&self) -> u64 {
        self.too_long.load(Ordering::Relaxed)
    }

    /// Puts a copy of the message in, and wakes the task that waits. Returns false if the message was dropped and counted. The
    /// inbox calls this itself when it is called as a handler. Your
    /// [`Observer::unhandled`](mk_ipi_core::platform::Observer::unhandled) may call it too.
    pub fn put(&self, message: &Message<'_>) -> bool {
        if message.payload().len() > Self::MAX_LEN {
            self.too_long.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let Some((place, full)) = self.claim() else {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return false;
        };
        place.fill(message);
        self.hand_over(place, full);
        true
    }

    /// Marks a filled place as full, and wakes the receiver.
    fn hand_over(&self, place: &Place<WORDS>, full: u64) {
        // SYNC POINT: inbox-filled (release)
        place.turn.store(full, Ordering::Release);
        // SYNC POINT: waker-registered (fence)
        fence(Ordering::SeqCst);
        self.waker.wake();
    }

    /// Takes the place at the tail for the caller. Returns the place, and the value of `turn` that marks it as full. `None` if
    /// the place is not empty. Tries again only if another context has taken that place meanwhile.
    fn claim(&self) -> Option<(&Place<WORDS>, u64)> {
        let mut at = self.tail.load(Ordering::Relaxed);
        loop {
            let (place, empty) = self.place(at)?;
            // SYNC POINT: inbox-emptied (acquire)
            let turn = place.turn.load(Ordering::Acquire);
            if turn == empty {
                match self.tail.compare_exchange(at, at.wrapping_add(1), Ordering::Relaxed) {
                    Ok(_) => return Some((place, empty.wrapping_add(1))),
                    Err(now) => at = now,
                }
            } else if turn < empty {
                return None;
            } else {
                at = self.tail.load(Ordering::Relaxed);
            }
        }
    }

    /// Returns the place of a position, and the value of `turn` that means "empty" in the lap of this position.
    fn place(&self, at: u64) -> Option<(&Place<WORDS>, u64)> {
        let (lap, index) = (at.checked_div(MESSAGES as u64)?, at.checked_rem(MESSAGES as u64)?);
        Some((self.places.get(usize::try_from(index).ok()?)?, lap.wrapping_mul(2)))
    }

    /// Takes the next message out. `None` if there is none. Only the receiver may call this.
    fn take(&self) -> Option<Received<WORDS>> {
        let at = self.head.load(Ordering::Relaxed);
        let (place, empty) = self.place(at)?;
        // SYNC POINT: inbox-filled (acquire)
        if place.turn.load(Ordering::Acquire) != empty.wrapping_add(1) {
            return None;
        }
        let message = place.read();
        // SYNC POINT: inbox-emptied (release)
        place.turn.store(empty.wrapping_add(2), Ordering::Release);
        self.head.store(at.wrapping_add(1), Ordering::Relaxed);
        Some(message)
    }
}

impl<const MESSAGES: usize, const WORDS: usize> Default for Inbox<MESSAGES, WORDS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const MESSAGES: usize, const WORDS: usize> Handler for Inbox<MESSAGES, WORDS> {
    fn handle(&self, message: &Message<'_>) {
        self.put(message);
    }
}

/// Takes messages out of an [`Inbox`]. At most one receiver of an inbox exists at a time.
#[derive(Debug)]
pub struct Receiver<'a, const MESSAGES: usize, const WORDS: usize> {
    inbox: &'a Inbox<MESSAGES, WORDS>,
}

impl<const MESSAGES: usize, const WORDS: usize> Receiver<'_, MESSAGES, WORDS> {
    /// Takes the next message out. `None` if there is none now.
    pub fn try_receive(&mut self) -> Option<Received<WORDS>> {
        self.inbox.take()
    }

    /// Returns a future that takes the next message out. If the future is dropped before it is ready, it has taken no message
    /// out.
    pub fn receive(&mut self) -> Receive<'_, MESSAGES, WORDS> {
        Receive { inbox: self.inbox }
    }
}

impl<const MESSAGES: usize, const WORDS: usize> Drop for Receiver<'_, MESSAGES, WORDS> {
    fn drop(&mut self) {
        drop(self.inbox.waker.take());
        // SYNC POINT: inbox-receiver (release)
        self.inbox.is_taken.store(false, Ordering::Release);
    }
}

/// The future that [`Receiver::receive`] returns. If it is polled again after it was ready, it waits for the next message.
#[derive(Debug)]
#[must_use = "a future does nothing unless it is polled"]
pub struct Receive<'a, const MESSAGES: usize, const WORDS: usize> {
    inbox: &'a Inbox<MESSAGES, WORDS>,
}

impl<const MESSAGES: usize, const WORDS: usize> Future for Receive<'_, MESSAGES, WORDS> {
    type Output = Received<WORDS>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Received<WORDS>> {
        if let Some(message) = self.inbox.take() {
            return Poll::Ready(message);
        }
        self.inbox.waker.register(cx.waker());
        // SYNC POINT: waker-registered (fence)
        fence(Ordering::SeqCst);
        self.inbox.take().map_or(Poll::Pending, Poll::Ready)
    }
}

/// A copy of a message, taken out of an [`Inbox`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<const WORDS: usize> {
    what: u64,
    theirs: u64,
    number: u64,
    words: [u64; WORDS],
}

impl<const WORDS: usize> Received<WORDS> {
    /// The same as [`Message::sender`].
    pub fn sender(&self) -> Option<InstanceId> {
        u8::try_from((self.what >> 16 & 0x1ff).checked_sub(1)?).ok().map(InstanceId::new)
    }

    /// The same as [`Message::sender_incarnation`].
    pub fn sender_incarnation(&self) -> Option<Incarnation> {
        u32::try_from(self.theirs).ok().and_then(Incarnation::new)
    }

    /// The same as [`Message::number`].
    pub fn number(&self) -> Option<u64> {
        self.sender().map(|_| self.number)
    }

    /// The same as [`Message::msg_type`].
    pub const fn msg_type(&self) -> MessageType {
        MessageType((self.what >> 32) as u32)
    }

    /// The same as [`Message::payload`].
    pub fn payload(&self) -> &[u8] {
        let len = (self.what & 0xffff) as usize;
        self.words.as_bytes().get(..len).unwrap_or_default()
    }

    /// The same as [`Message::read`].
    pub fn read<T: FromBytes>(&self) -> Option<T> {
        T::read_from_bytes(self.payload()).ok()
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::waker::test_waker::Count;
    use loom::sync::Arc;
    use loom::thread;
    use std::vec::Vec;

    /// Does the same as [`Inbox::put`], with a message whose number and first word are both `value`.
    fn put<const MESSAGES: usize>(inbox: &Inbox<MESSAGES, 1>, value: u64) -> bool {
        let Some((place, full)) = inbox.claim() else { return false };
        place.number.store(value, Ordering::Relaxed);
        place.words[0].store(value, Ordering::Relaxed);
        inbox.hand_over(place, full);
        true
    }

    /// Checks that the message is complete, and returns its value.
    fn value(message: &Received<1>) -> u64 {
        assert_eq!([message.number], message.words, "parts of two messages");
        message.number
    }

    /// SYNC POINTs inbox-filled and inbox-emptied: each message that is taken out is complete. A message that was not refused
    /// is taken out exactly once.
    #[test]
    fn loom_an_inbox_hands_over_whole_messages() {
        loom::model(|| {
            let inbox = Arc::new(Inbox::<1, 1>::new());
            let putting = [3u64, 4].map(|value| {
                let inbox = inbox.clone();
                thread::spawn(move || put(&inbox, value))
            });
            let mut receiver = inbox.receiver().unwrap();
            let mut taken = Vec::new();
            for _ in 0..2 {
                taken.extend(receiver.try_receive().as_ref().map(value));
                thread::yield_now();
            }
            let put = putting.into_iter().map(|t| t.join().unwrap()).filter(|put| *put).count();
            taken.extend(receiver.try_receive().as_ref().map(value));
            assert_eq!(taken.len(), put);
            taken.dedup();
            assert_eq!(taken.len(), put, "a message was taken out twice");
        });
    }

    /// SYNC POINT waker-registered: a task that waits finds the message, or is woken.
    #[test]
    fn loom_a_receiver_is_woken_or_finds_the_message() {
        loom::model(|| {
            let inbox = Arc::new(Inbox::<1, 1>::new());
            let putting = {
                let inbox = inbox.clone();
                thread::spawn(move || put(&inbox, 3))
            };
            let mut receiver = inbox.receiver().unwrap();
            let (count, waker) = Count::waker();
            let polled = Pin::new(&mut receiver.receive()).poll(&mut Context::from_waker(&waker));
            assert!(putting.join().unwrap());
            assert!(polled.is_ready() || count.get() > 0);
        });
    }

    /// SYNC POINT inbox-receiver: the next receiver continues where the last one stopped.
    #[test]
    fn loom_the_next_receiver_goes_on_behind_the_last() {
        loom::model(|| {
            let inbox = Arc::new(Inbox::<2, 1>::new());
            assert!(put(&inbox, 3) && put(&inbox, 4));
            let take = |inbox: &Inbox<2, 1>| inbox.receiver()?.try_receive().as_ref().map(value);
            let other = {
                let inbox = inbox.clone();
                thread::spawn(move || take(&inbox))
            };
            let mut taken: Vec<_> = [take(&inbox), other.join().unwrap()].into_iter().flatten().collect();
            taken.extend(take(&inbox));
            taken.sort_unstable();
            assert!(taken == [3, 4], "{taken:?}");
        });
    }
}
