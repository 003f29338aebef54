// SPDX-License-Identifier: MIT OR Apache-2.0
//! The future that sends, and that is pending while there is no space.

use crate::blocking::WaitError;
use crate::ext::AnyEndpoint;
use crate::peers::ended_life;
use crate::waker::WakerCell;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use mk_ipi_core::abi::{Incarnation, InstanceId, MessageType};
use mk_ipi_core::platform::{DoorbellError, Peer, PeerEvent};
use mk_ipi_core::sync::{fence, AtomicU64, Ordering};
use mk_ipi_core::SendError;

/// The largest number of tries in one poll. After these tries the future lets other tasks run.
const TRIES: u32 = 4;
/// The value of [`Place::peer`] if the place is free.
const FREE: u64 = 0;

/// The tasks that wait for peers. Up to `N` tasks can wait at the same time. Keep it in a `static`.
#[derive(Debug)]
pub struct Waiters<const N: usize> {
    places: [Place; N],
}

/// The place of one waiting task.
#[derive(Debug)]
struct Place {
    /// The id of the peer for which the task waits, plus one. [`FREE`] if no task waits here.
    peer: AtomicU64,
    waker: WakerCell,
}

impl Place {
    const_unless_loom! {
        fn new() -> Self {
            Self { peer: AtomicU64::new(FREE), waker: WakerCell::new() }
        }
    }
}

/// The value of [`Place::peer`] for a task that waits for `peer`.
const fn key_of(peer: InstanceId) -> u64 {
    (peer.get() as u64).wrapping_add(1)
}

impl<const N: usize> Waiters<N> {
    const_unless_loom! {
        /// Makes the object, with room for `N` tasks. No task waits yet.
        pub fn new() -> Self {
            Self { places: array_of![Place::new(); N] }
        }
    }

    /// Wakes the tasks that wait for `peer`, if the result of a send can be different after `event`. Call it from
    /// [`Observer::peer_event`](mk_ipi_core::platform::Observer::peer_event).
    pub fn peer_event(&self, peer: &Peer, event: &PeerEvent) {
        match event {
            PeerEvent::Space
            | PeerEvent::Answered
            | PeerEvent::Refused(_)
            | PeerEvent::Unsettled { .. }
            | PeerEvent::Up(_)
            | PeerEvent::Dead(_) => self.wake(peer.id),
            PeerEvent::Began(_)
            | PeerEvent::Quarantined(_)
            | PeerEvent::InDoubt { .. }
            | PeerEvent::Discarded { .. }
            | PeerEvent::ReadDirectory
            | PeerEvent::Suspect
            | PeerEvent::Alive => {}
        }
    }

    /// Wakes every task that waits for `peer`. Each of them tries again. Call it also for each instance that
    /// [`follow`](mk_ipi_core::Endpoint::follow) reports as new, changed or gone. Do not call it in NMI context.
    pub fn wake(&self, peer: InstanceId) {
        // The event was stored before this fence. SYNC POINT: waker-registered (fence)
        fence(Ordering::SeqCst);
        for place in &self.places {
            if place.peer.load(Ordering::Relaxed) == key_of(peer) {
                place.waker.wake();
            }
        }
    }

    /// The number of tasks that wait now.
    pub fn waiting(&self) -> usize {
        let taken = self.places.iter().filter(|place| place.peer.load(Ordering::Relaxed) != FREE);
        // `count` is not used, because it has an overflow check.
        taken.fold(0, |count: usize, _| count.wrapping_add(1))
    }

    /// Takes a free place for a task that waits for `peer`. `None` if no place is free.
    fn enter(&self, peer: InstanceId) -> Option<Seat<'_>> {
        // Relaxed is enough: `peer` protects only the `WakerCell` of the place, which has its own synchronization.
        let is_taken =
            |place: &&Place| place.peer.compare_exchange(FREE, key_of(peer), Ordering::Relaxed).is_ok();
        self.places.iter().find(is_taken).map(Seat)
    }
}

impl<const N: usize> Default for Waiters<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// A place that belongs to a task. It becomes free when the `Seat` is dropped.
#[derive(Debug)]
struct Seat<'a>(&'a Place);

impl Seat<'_> {
    /// Registers the waker of the task. After this call, the task must check again whether the event has happened.
    fn register(&self, waker: &Waker) {
        self.0.waker.register(waker);
        // The task looks for the event after this fence. SYNC POINT: waker-registered (fence)
        fence(Ordering::SeqCst);
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        // A concurrent `wake` can still wake this task, or the next task that takes this place. This does no harm, because a task
        // that is woken checks again whether it can send.
        let waker = self.0.waker.take();
        self.0.peer.store(FREE, Ordering::Relaxed);
        drop(waker);
    }
}

/// Why a [`SendFuture`] has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsyncSendError {
    /// The send failed with an error that waiting does not change. With [`SendError::NotRung`] the message **was** stored. With
    /// every other error it was not.
    Send(SendError),
    /// There is no space, and this life of the peer has ended. Nothing was sent. See [`WaitError::PeerEnded`].
    PeerEnded(Incarnation),
    /// There is no space, and `N` tasks wait in [`Waiters`] already. Nothing was sent.
    TooManyWaiters,
    /// There is no space, and the doorbell by which this kernel asks the peer for space failed. Nothing was sent.
    NotAsked(DoorbellError),
}

impl fmt::Display for AsyncSendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(e) => e.fmt(f),
            Self::PeerEnded(life) => WaitError::PeerEnded(*life).fmt(f),
            Self::TooManyWaiters => f.write_str("there is no space, and no room for another waiting task"),
            Self::NotAsked(e) => {
                write!(f, "there is no space, and the doorbell that asks for space failed: {e}")
            }
        }
    }
}

impl core::error::Error for AsyncSendError {}

/// The future that [`send_async`](crate::EndpointExt::send_async) returns. If it is polled again after it was ready, it is
/// pending for ever, and sends nothing.
#[derive(Debug)]
#[must_use = "a future does nothing unless it is polled"]
pub struct SendFuture<'a, E: ?Sized, const N: usize> {
    endpoint: &'a E,
    waiters: &'a Waiters<N>,
    to: InstanceId,
    msg_type: MessageType,
    payload: &'a [u8],
    seat: Option<Seat<'a>>,
    is_done: bool,
}

impl<'a, E: AnyEndpoint + ?Sized, const N: usize> SendFuture<'a, E, N> {
    pub(crate) const fn new(
        endpoint: &'a E,
        waiters: &'a Waiters<N>,
        (to, msg_type, payload): (InstanceId, MessageType, &'a [u8]),
    ) -> Self {
        Self { endpoint, waiters, to, msg_type, payload, seat: None, is_done: false }
    }

    /// Tries to send. If the result is `Pending`, `waker` is called when the future must try again.
    fn try_send(&mut self, waker: &Waker) -> Poll<Result<u64, AsyncSendError>> {
        for _ in 0..TRIES {
            match self.endpoint.send(self.to, self.msg_type, self.payload) {
                Ok(number) => return Poll::Ready(Ok(number)),
                Err(SendError::Full | SendError::Unanswered) => {}
                // No event tells when these errors end, so we do not wait for one.
                Err(SendError::Busy | SendError::Contended) => break,
                Err(e) => return Poll::Ready(Err(AsyncSendError::Send(e))),
            }
            if self.seat.is_none() {
                self.seat = self.waiters.enter(self.to);
            }
            let Some(seat) = &self.seat else { return Poll::Ready(Err(AsyncSendError::TooManyWaiters)) };
            // The order is necessary: we register before we check. So an event that the checks below do not see wakes us.
            seat.register(waker);
            if let Some(life) = ended_life(self.endpoint, self.to) {
                return Poll::Ready(Err(AsyncSendError::PeerEnded(life)));
            }
            match self.endpoint.want_space(self.to, self.payload.len()) {
                Ok(false) => return Poll::Pending,
                Ok(true) => {}
                Err(SendError::NotRung(e)) => return Poll::Ready(Err(AsyncSendError::NotAsked(e))),
                Err(e) => return Poll::Ready(Err(AsyncSendError::Send(e))),
            }
        }
        if let Some(life) = ended_life(self.endpoint, self.to) {
            return Poll::Ready(Err(AsyncSendError::PeerEnded(life)));
        }
        waker.wake_by_ref();
        Poll::Pending
    }
}

impl<E: AnyEndpoint + ?Sized, const N: usize> Future for SendFuture<'_, E, N> {
    type Output = Result<u64, AsyncSendError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if this.is_done {
            return Poll::Pending;
        }
        let sent = this.try_send(cx.waker());
        if sent.is_ready() {
            this.is_done = true;
            this.seat = None;
        }
        sent
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::waker::test_waker::Count;
    use loom::sync::Arc;
    use loom::thread;

    /// SYNC POINT waker-registered: a task that checks after its registration sees the event of the peer, or is woken.
    #[test]
    fn loom_no_event_of_a_peer_is_missed() {
        loom::model(|| {
            let shared = Arc::new((Waiters::<1>::new(), AtomicU64::new(0)));
            let telling = {
                let shared = shared.clone();
                thread::spawn(move || {
                    shared.1.store(1, Ordering::Relaxed);
                    shared.0.wake(InstanceId::HOST);
                })
            };
            let (count, waker) = Count::waker();
            let seat = shared.0.enter(InstanceId::HOST).unwrap();
            seat.register(&waker);
            let found = shared.1.load(Ordering::Relaxed) == 1;
            telling.join().unwrap();
            assert!(found || count.get() > 0);
        });
    }

    /// During a concurrent `wake`, one task leaves its place and another task takes it. The place keeps no waker of the former
    /// task, and is free again at the end.
    #[test]
    fn loom_a_place_goes_to_the_next_task() {
        loom::model(|| {
            let waiters = Arc::new(Waiters::<1>::new());
            let waking = {
                let waiters = waiters.clone();
                thread::spawn(move || waiters.wake(InstanceId::HOST))
            };
            let (first, waker) = Count::waker();
            let seat = waiters.enter(InstanceId::HOST).unwrap();
            seat.register(&waker);
            drop((seat, waker));
            let (second, waker) = Count::waker();
            let seat = waiters.enter(InstanceId::HOST).unwrap();
            seat.register(&waker);
            waking.join().unwrap();
            assert_eq!(std::sync::Arc::strong_count(&first), 1);
            let before = first.get();
            waiters.wake(InstanceId::HOST);
            assert_eq!((first.get(), second.get().min(1)), (before, 1));
            drop(seat);
            assert_eq!(waiters.waiting(), 0);
        });
    }
}
