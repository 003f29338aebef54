// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests tasks that send and receive, on a small executor.
#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::panic,
    reason = "a test may panic"
)]

mod common;

use common::{leak, Pair, A, B, FIRST, LINES, TYPE};
use mk_ipi::abi::MessageType;
use mk_ipi::asynchronous::{AsyncSendError, Inbox, SendFuture, Waiters};
use mk_ipi::platform::{DoorbellError, PeerEvent};
use mk_ipi::sync::{AtomicBool, AtomicU64, Ordering::SeqCst};
use mk_ipi::{EndpointExt, LookupError, SendError};
use mk_ipi_mock::Mode;
use std::future::Future;
use std::pin::{pin, Pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

/// The target of a task's waker.
struct Ready {
    /// True if the task was woken since its last poll.
    is_ready: AtomicBool,
    /// The number of wake-ups.
    wakes: AtomicU64,
}

impl Default for Ready {
    fn default() -> Self {
        Self { is_ready: AtomicBool::new(false), wakes: AtomicU64::new(0) }
    }
}

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, SeqCst);
        self.is_ready.store(true, SeqCst);
    }
}

/// A task: its future (`None` after it is ready), the target of its waker, and the number of polls.
struct Task<'f> {
    future: Option<Pin<&'f mut dyn Future<Output = ()>>>,
    ready: Arc<Ready>,
    polls: u64,
}

impl<'f> Task<'f> {
    fn new(future: Pin<&'f mut dyn Future<Output = ()>>) -> Self {
        let ready = Arc::new(Ready::default());
        ready.is_ready.store(true, SeqCst);
        Self { future: Some(future), ready, polls: 0 }
    }
}

/// Polls each task that was woken, until all tasks are done. Calls `idle` if no task was woken. Checks that no task was polled
/// without a wake-up. Returns the tasks.
fn block_on<'f>(mut tasks: Vec<Task<'f>>, mut idle: impl FnMut(&dyn Fn() -> bool)) -> Vec<Task<'f>> {
    let flags: Vec<_> = tasks.iter().map(|task| task.ready.clone()).collect();
    let any_ready = || flags.iter().any(|flag| flag.is_ready.load(SeqCst));
    for _ in 0..100_000 {
        for task in &mut tasks {
            let Some(future) = &mut task.future else {
                task.ready.is_ready.store(false, SeqCst);
                continue;
            };
            if !task.ready.is_ready.swap(false, SeqCst) {
                continue;
            }
            task.polls += 1;
            let waker = Waker::from(task.ready.clone());
            if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                task.future = None;
            }
        }
        if tasks.iter().all(|task| task.future.is_none()) {
            for task in &tasks {
                let wakes = task.ready.wakes.load(SeqCst);
                assert!(task.polls <= wakes + 1, "{} polls after {wakes} wake-ups", task.polls);
            }
            return tasks;
        }
        if !any_ready() {
            idle(&any_ready);
        }
    }
    panic!("the tasks do not end");
}

/// Sends `count` messages from A to B. Their payloads are the numbers from `from` on.
async fn send_all(pair: &Pair, waiters: &'static Waiters<2>, from: u64, count: u64) {
    for n in from..from + count {
        pair.a.send_async(waiters, B, TYPE, &n.to_le_bytes()).await.unwrap();
    }
}

/// Polls the future once.
fn poll<N: Future + Unpin>(future: &mut N, ready: &Arc<Ready>) -> Poll<N::Output> {
    Pin::new(future).poll(&mut Context::from_waker(&Waker::from(ready.clone())))
}

/// Returns the future that sends `payload` from A to B.
fn send_one<'a>(
    pair: &Pair,
    waiters: &'static Waiters<2>,
    payload: &'a [u8],
) -> SendFuture<'a, common::End, 2> {
    pair.a.send_async(waiters, B, TYPE, payload)
}

#[test]
fn two_senders_and_a_receiver_each_on_its_kernel() {
    const EACH: u64 = 30;
    let mut waited = 0;
    for seed in 0..40 {
        let waiters = leak(Waiters::new());
        let pair = Pair::new(Mode::Stepped { seed }, waiters);
        let inbox = leak(Inbox::<{ 2 * EACH as usize }, 1>::new());
        let _handle = pair.b.register(TYPE, mk_ipi::typed::DynHandler::new(inbox)).unwrap();
        let run = pair.machine.run(|cpu| {
            let idle = |any_ready: &dyn Fn() -> bool| cpu.wait_until(any_ready);
            if cpu.kernel() == 0 {
                let (one, other) = (send_all(&pair, waiters, 0, EACH), send_all(&pair, waiters, EACH, EACH));
                let (one, other) = (pin!(one), pin!(other));
                let done = block_on(vec![Task::new(one), Task::new(other)], idle);
                assert_eq!((done.len(), waiters.waiting()), (2, 0));
            } else {
                let receiver = async {
                    let mut receiver = inbox.receiver().unwrap();
                    let mut next = [0, EACH];
                    for _ in 0..2 * EACH {
                        let message = receiver.receive().await;
                        assert_eq!((message.sender(), message.msg_type()), (Some(A), TYPE));
                        let n = message.read::<u64>().unwrap();
                        let of = usize::from(n >= EACH);
                        assert_eq!(n, next[of], "seed {seed}: the messages of each task are in order");
                        next[of] += 1;
                    }
                };
                block_on(vec![Task::new(pin!(receiver))], idle);
            }
        });
        run.unwrap();
        assert_eq!(inbox.lost(), 0, "seed {seed}");
        waited += pair.a.stats().full;
    }
    assert!(waited > 0, "no send had to wait, so this test has tested nothing");
}

#[test]
fn a_request_and_its_answer() {
    const ANSWER: MessageType = MessageType(8);
    let waiters = leak(Waiters::new());
    let pair = Pair::by_hand(waiters);
    let (requests, answers) = (leak(Inbox::<4, 1>::new()), leak(Inbox::<4, 1>::new()));
    let _handles = (
        pair.b.register(TYPE, mk_ipi::typed::DynHandler::from(requests)).unwrap(),
        pair.a.register(ANSWER, mk_ipi::typed::DynHandler::from(answers)).unwrap(),
    );
    let client = pin!(async {
        let mut receiver = answers.receiver().unwrap();
        for n in 0..50u64 {
            pair.a.send_async(waiters, B, TYPE, &n.to_le_bytes()).await.unwrap();
            assert_eq!(receiver.receive().await.read::<u64>(), Some(n + 1));
        }
    });
    let others = leak(Waiters::<1>::new());
    let server = pin!(async {
        let mut receiver = requests.receiver().unwrap();
        for _ in 0..50 {
            let request = receiver.receive().await;
            let answer = (request.read::<u64>().unwrap() + 1).to_le_bytes();
            pair.b.send_async(others, request.sender().unwrap(), ANSWER, &answer).await.unwrap();
        }
    });
    block_on(vec![Task::new(client), Task::new(server)], |_| pair.settle());
    assert_eq!((requests.lost(), answers.lost()), (0, 0));
}

#[test]
fn a_task_that_waits_is_woken_by_space_and_by_nothing_else() {
    let waiters = leak(Waiters::new());
    let pair = Pair::by_hand(waiters);
    pair.fill();
    let ready = Arc::default();
    let mut send = send_one(&pair, waiters, &[1]);
    assert!(poll(&mut send, &ready).is_pending());
    assert_eq!((waiters.waiting(), ready.wakes.load(SeqCst)), (1, 0));
    // Events that do not wake the task, and an event of another peer.
    let peer = |id| mk_ipi::platform::Peer { id, theirs: None, ours: FIRST };
    for event in [PeerEvent::Suspect, PeerEvent::Alive, PeerEvent::ReadDirectory, PeerEvent::Began(FIRST)] {
        waiters.peer_event(&peer(B), &event);
    }
    waiters.peer_event(&peer(A), &PeerEvent::Space);
    assert_eq!(ready.wakes.load(SeqCst), 0);
    pair.settle();
    tell(&pair, waiters);
    assert_eq!(ready.wakes.load(SeqCst), 1);
    assert!(matches!(poll(&mut send, &ready), Poll::Ready(Ok(_))));
    assert_eq!(waiters.waiting(), 0);
    assert!(poll(&mut send, &ready).is_pending(), "it does not send twice");
    pair.settle();
    assert_eq!(pair.b.stats().unhandled, LINES + 1);
}

/// Passes the events that A's observer has received to `waiters`.
fn tell(pair: &Pair, waiters: &Waiters<2>) {
    for (peer, event) in pair.a.platform().peer_news() {
        waiters.peer_event(&peer, &event);
    }
}

#[test]
fn a_peer_that_dies_ends_the_waiting_and_its_next_life_takes_the_message() {
    let waiters = leak(Waiters::new());
    let mut pair = Pair::by_hand(waiters);
    pair.a.tick(1, 100);
    tell(&pair, waiters);
    pair.fill();
    let ready = Arc::default();
    let mut send = send_one(&pair, waiters, &[1]);
    assert!(poll(&mut send, &ready).is_pending());
    pair.b.goodbye();
    pair.a.tick(2, 100);
    tell(&pair, waiters);
    assert_eq!(ready.wakes.load(SeqCst), 1);
    assert_eq!(poll(&mut send, &ready), Poll::Ready(Err(AsyncSendError::PeerEnded(FIRST))));
    let mut again = send_one(&pair, waiters, &[1]);
    assert_eq!(poll(&mut again, &ready), Poll::Ready(Err(AsyncSendError::PeerEnded(FIRST))));
    pair.next_life_of_b();
    let mut send = send_one(&pair, waiters, &[1]);
    assert!(poll(&mut send, &ready).is_pending(), "the next life of B has not read its messages yet");
    pair.settle();
    pair.settle();
    tell(&pair, waiters);
    assert!(matches!(poll(&mut send, &ready), Poll::Ready(Ok(_))));
}

#[test]
fn an_instance_that_goes_ends_the_waiting() {
    let waiters = leak(Waiters::new());
    let pair = Pair::by_hand(waiters);
    pair.fill();
    let ready = Arc::default();
    let mut send = send_one(&pair, waiters, &[1]);
    assert!(poll(&mut send, &ready).is_pending());
    pair.a.destroy_instance(B).unwrap();
    tell(&pair, waiters);
    assert_eq!(ready.wakes.load(SeqCst), 1, "`Unsettled` wakes the task");
    let gone = AsyncSendError::Send(SendError::Instance(LookupError::Destroyed));
    assert_eq!(poll(&mut send, &ready), Poll::Ready(Err(gone)));
}

#[test]
fn so_many_tasks_wait_at_a_time_and_a_dropped_one_leaves_its_place() {
    let waiters = leak(Waiters::new());
    let pair = Pair::by_hand(waiters);
    pair.fill();
    let ready: Arc<Ready> = Arc::default();
    let mut first = send_one(&pair, waiters, &[1]);
    let mut second = send_one(&pair, waiters, &[2]);
    assert!(poll(&mut first, &ready).is_pending() && poll(&mut second, &ready).is_pending());
    let mut third = send_one(&pair, waiters, &[3]);
    assert_eq!(poll(&mut third, &ready), Poll::Ready(Err(AsyncSendError::TooManyWaiters)));
    drop(first);
    assert_eq!((waiters.waiting(), Arc::strong_count(&ready)), (1, 2), "the first waker is dropped");
    let mut third = send_one(&pair, waiters, &[3]);
    assert!(poll(&mut third, &ready).is_pending());
    pair.settle();
    tell(&pair, waiters);
    assert!(poll(&mut second, &ready).is_ready() && poll(&mut third, &ready).is_ready());
    pair.settle();
    assert_eq!(pair.b.stats().unhandled, LINES + 2, "the dropped future sent nothing");
}

#[test]
fn a_future_that_need_not_wait_takes_no_place() {
    let waiters = leak(Waiters::new());
    let pair = Pair::by_hand(waiters);
    let ready = Arc::default();
    assert!(poll(&mut send_one(&pair, waiters, &[1]), &ready).is_ready());
    let long = poll(&mut send_one(&pair, waiters, &[0; 257]), &ready);
    assert_eq!(long, Poll::Ready(Err(AsyncSendError::Send(SendError::TooLong))));
    assert_eq!((waiters.waiting(), ready.wakes.load(SeqCst)), (0, 0));
}

#[test]
fn on_slots_a_task_tries_again_when_it_is_its_turn() {
    let waiters = leak(Waiters::new());
    let pair = Pair::by_hand(waiters);
    let slots = mk_ipi::abi::InstanceId::new(5);
    let kernel = pair.machine.kernel(1);
    let config = kernel.config(slots, FIRST, mk_ipi::SlotPolicy::Exclusive);
    pair.a.attach_instance(&config, Some(pair.machine.reserve(4096))).unwrap();
    pair.a.send(slots, TYPE, &[1]).unwrap();
    let ready = Arc::default();
    let mut send = pair.a.send_async(waiters, slots, TYPE, &[2]);
    for turn in 1..4 {
        assert!(poll(&mut send, &ready).is_pending());
        assert_eq!(
            (waiters.waiting(), ready.wakes.load(SeqCst)),
            (0, turn),
            "the task is woken at once, and takes no place"
        );
    }
}

#[test]
fn an_inbox_counts_what_it_drops_and_keeps_the_order() {
    let pair = Pair::by_hand(leak(Waiters::new()));
    let inbox = leak(Inbox::<3, 2>::new());
    let _handle = pair.b.register(TYPE, mk_ipi::typed::DynHandler::new(inbox)).unwrap();
    let mut receiver = inbox.receiver().unwrap();
    assert!(inbox.receiver().is_none(), "only one receiver at a time");
    assert!(receiver.try_receive().is_none());
    let mut numbers = Vec::new();
    for len in [0, 1, 16, 17, 7] {
        numbers.push(pair.a.send(B, TYPE, &[len as u8; 17][..len]).unwrap());
    }
    pair.settle();
    assert_eq!((inbox.lost(), inbox.too_long()), (1, 1), "the fourth message, and the message of 17 bytes");
    for (len, number) in [0, 1, 16].into_iter().zip(numbers) {
        let message = receiver.try_receive().unwrap();
        assert_eq!(message.payload(), &[len as u8; 16][..len]);
        assert_eq!((message.sender(), message.number()), (Some(A), Some(number)));
        assert_eq!(message.sender_incarnation(), Some(FIRST));
    }
    assert!(receiver.try_receive().is_none());
    // The positions go round the places several times.
    for n in 0..20u64 {
        pair.a.send(B, TYPE, &n.to_le_bytes()).unwrap();
        pair.settle();
        assert_eq!(receiver.try_receive().unwrap().read::<u64>(), Some(n));
    }
    drop(receiver);
    assert!(inbox.receiver().is_some());
}

#[test]
fn a_receiver_is_woken_by_a_message() {
    let pair = Pair::by_hand(leak(Waiters::new()));
    let inbox = leak(Inbox::<3, 2>::new());
    let _handle = pair.b.register(TYPE, mk_ipi::typed::DynHandler::new(inbox)).unwrap();
    let mut receiver = inbox.receiver().unwrap();
    let ready = Arc::default();
    let mut receive = receiver.receive();
    assert!(poll(&mut receive, &ready).is_pending());
    pair.a.send(B, TYPE, &[5]).unwrap();
    assert_eq!(ready.wakes.load(SeqCst), 0);
    pair.settle();
    assert_eq!(ready.wakes.load(SeqCst), 1);
    assert!(poll(&mut receive, &ready).is_ready());
    // A task is not woken after its receiver was dropped.
    assert!(poll(&mut receive, &ready).is_pending());
    drop(receiver);
    pair.a.send(B, TYPE, &[5]).unwrap();
    pair.settle();
    assert_eq!((ready.wakes.load(SeqCst), Arc::strong_count(&ready)), (1, 1));
}

#[test]
fn each_error_says_what_it_is() {
    let errors = [
        AsyncSendError::Send(SendError::Quarantined),
        AsyncSendError::PeerEnded(FIRST),
        AsyncSendError::TooManyWaiters,
        AsyncSendError::NotAsked(DoorbellError::Stuck),
    ];
    let texts = errors.map(|e| Box::<dyn std::error::Error>::from(e).to_string());
    let words = ["broke the protocol", "incarnation 1", "no room", "asks for space"];
    texts.iter().zip(words).for_each(|(text, word)| assert!(text.contains(word), "{text}"));
}
