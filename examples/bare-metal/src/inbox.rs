// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages and events that a kernel that serves (serve.rs) has received. Deferred work stores them here, and the main program
//! fetches them.

use crate::arch::without_interrupts;
use crate::clock;
use crate::link_log;
use crate::net;
use crate::order::{
    self, Order, OrderKind, Query, Reset, MAX_INSTANCES, ORDER, PING, PONG, QUERY, RESET, STREAM,
};
use crate::payload;
use crate::platform::Kernel;
use crate::serve::{self, SERVER};
use crate::stream_check::{Counts, StreamCheck};
use mk_ipi_abi::console::CONSOLE_TYPE;
use mk_ipi_abi::InstanceId;
use mk_ipi_core::platform::PeerEvent;
use mk_ipi_core::sync::{AtomicU64, Ordering};
use mk_ipi_core::Message;
use spin::Mutex;

/// What is to be done for one other kernel, and what was received from it. The main program has not fetched this yet.
#[derive(Clone, Copy)]
pub struct News {
    /// The number of stream messages to that kernel that the host has ordered.
    pub stream: u64,
    /// The length of the series of pings to that kernel that the host has ordered.
    pub pings: Option<u64>,
    /// The number of that kernel's latest ping.
    pub ping: Option<u64>,
    /// The number of that kernel's latest pong, and the time at which it was received.
    pub pong: Option<(u64, u64)>,
    /// The kernels about which that kernel has asked for a report: one bit for each.
    pub asked: u64,
    /// True if the lane to that kernel has space again.
    pub space: bool,
}

const NO_NEWS: News = News { stream: 0, pings: None, ping: None, pong: None, asked: 0, space: false };

/// Accessed with interrupts off, so that no code ever waits for its lock.
struct Inbox {
    /// The number of the present run (order.rs).
    run: u32,
    /// The kernels whose entry in `news` has changed: one bit for each.
    changed: u64,
    news: [News; MAX_INSTANCES],
    /// For each kernel, the number of messages to it that are in doubt: it may have handled the message or not before it died.
    in_doubt: [u64; MAX_INSTANCES],
}

static INBOX: Mutex<Inbox> =
    Mutex::new(Inbox { run: 0, changed: 0, news: [NO_NEWS; MAX_INSTANCES], in_doubt: [0; MAX_INSTANCES] });
/// The check of the stream from each other kernel.
static STREAMS: [StreamCheck; MAX_INSTANCES] = [const { StreamCheck::new() }; MAX_INSTANCES];
/// The number of torn messages whose sender is not known.
static TORN: AtomicU64 = AtomicU64::new(0);

const _: () = assert!(MAX_INSTANCES == 64);

fn with<R>(f: impl FnOnce(&mut Inbox) -> R) -> R {
    without_interrupts(|| f(&mut INBOX.lock()))
}

/// Calls `f` with the news about `id`, and marks them as changed. Does nothing if `id` is too large for the table.
fn note(id: InstanceId, f: impl FnOnce(&mut News)) {
    with(|inbox| {
        if let Some(news) = inbox.news.get_mut(id.index()) {
            f(news);
            inbox.changed |= 1 << id.get();
        }
    });
}

/// Returns the number of the present run, and the news about one kernel, which are removed here. `None` if there are no news.
pub fn next() -> (u32, Option<(InstanceId, News)>) {
    with(|inbox| {
        // If no bit is set, this id is `MAX_INSTANCES`, for which `news` has no entry.
        let id = InstanceId::new(inbox.changed.trailing_zeros() as u8);
        let news = inbox.news.get_mut(id.index()).map(|news| (id, core::mem::replace(news, NO_NEWS)));
        inbox.changed &= inbox.changed.wrapping_sub(1);
        (inbox.run, news)
    })
}

/// Returns the results about the stream from `id`, and the number of messages to `id` that are in doubt.
pub fn found(id: InstanceId) -> (Counts, u64) {
    let counts = STREAMS.get(id.index()).map(StreamCheck::counts).unwrap_or_default();
    let in_doubt = with(|inbox| inbox.in_doubt.get(id.index()).copied()).unwrap_or(0);
    (Counts { torn: counts.torn + TORN.load(Ordering::Relaxed), ..counts }, in_doubt)
}

/// Called when instance `id` has been removed.
pub fn forget(id: InstanceId) {
    if let Some(stream) = STREAMS.get(id.index()) {
        // The caller is the main program. No message handler may run at the same time.
        without_interrupts(|| stream.ended());
    }
}

/// Registers the message handlers. Called before the kernel joins the others.
pub fn register() {
    let registered = SERVER
        .register(STREAM, &on_stream)
        .and_then(|_| SERVER.register(PING, &on_ping))
        .and_then(|_| SERVER.register(PONG, &on_pong))
        .and_then(|_| SERVER.register(RESET, &on_reset))
        .and_then(|_| SERVER.register(ORDER, &on_order))
        .and_then(|_| SERVER.register(QUERY, &on_query))
        .and_then(|_| SERVER.register(CONSOLE_TYPE, &link_log::on_message));
    if registered.is_err() {
        fatal!("the registry is full");
    }
}

/// The number and the sender in a payload of payload.rs. `None` if the message is torn, or if this sender cannot have sent it.
fn checked(message: &Message) -> Option<(u64, InstanceId)> {
    let (number, sender) = payload::check(message.payload())?;
    let sender = InstanceId::new(sender.try_into().ok()?);
    is_from(message, sender).then_some((number, sender))
}

/// Returns whether `id` can have sent the message. On the native link the lane tells the sender. On RFC v2 any kernel can
/// have sent it.
fn is_from(message: &Message, id: InstanceId) -> bool {
    message.sender().is_none_or(|sender| sender == id)
}

fn on_stream(message: &Message) {
    let Some((number, sender)) = checked(message) else { return on_torn(message) };
    let Some(stream) = STREAMS.get(sender.index()) else { return };
    if number == 0 && message.sender().is_none() {
        // RFC v2 does not report a new life of the sender. The directory lists the new life before this life sends.
        if let Some(life) = serve::listed_life(sender) {
            stream.began(life);
        }
    }
    stream.take(number);
}

fn on_torn(message: &Message) {
    let sent = |id: &InstanceId| Kernel.lists(*id, message.sender_cpu()) == Some(true);
    let sender = message.sender().or_else(|| serve::ids().find(sent));
    match sender.and_then(|id| STREAMS.get(id.index())) {
        Some(stream) => stream.took_torn(),
        None => _ = TORN.fetch_add(1, Ordering::Relaxed),
    }
}

fn on_ping(message: &Message) {
    // A torn ping is not answered, so its sender pings again.
    if let Some((number, sender)) = checked(message) {
        note(sender, |news| news.ping = Some(number));
    }
}

fn on_pong(message: &Message) {
    let now = clock::now();
    if let Some((number, sender)) = checked(message) {
        note(sender, |news| news.pong = Some((number, now)));
    }
}

fn on_reset(message: &Message) {
    let Some(Reset { run }) = Reset::decode(message.payload()) else { return };
    with(|inbox| {
        if inbox.run == run {
            return;
        }
        inbox.run = run;
        inbox.in_doubt = [0; MAX_INSTANCES];
        for news in &mut inbox.news {
            // Queries, and pings of other kernels, do not belong to a run, so they stay.
            *news = News { stream: 0, pings: None, pong: None, ..*news };
        }
        STREAMS.iter().for_each(StreamCheck::reset);
        TORN.store(0, Ordering::Relaxed);
    });
}

fn on_order(message: &Message) {
    let Some(Order { kind, to, count, run }) = Order::decode(message.payload()) else { return };
    if with(|inbox| inbox.run) != run {
        log!("an order for run {run} is ignored: this is another run");
        return;
    }
    note(to, |news| match kind {
        OrderKind::Stream => news.stream = news.stream.saturating_add(count),
        OrderKind::Pings => news.pings = Some(count.min(order::MAX_PINGS)),
    });
}

fn on_query(message: &Message) {
    let query = Query::decode(message.payload());
    if let Some(Query { from, about }) = query.filter(|query| is_from(message, query.from)) {
        if about.index() < MAX_INSTANCES {
            note(from, |news| news.asked |= 1 << about.get());
        }
    }
}

/// Called for each event of a peer.
pub fn on_peer_event(peer: InstanceId, event: PeerEvent) {
    net::on_event(peer, event);
    match event {
        PeerEvent::Space => return note(peer, |news| news.space = true),
        PeerEvent::Began(life) => {
            if let Some(stream) = STREAMS.get(peer.index()) {
                stream.began(life);
            }
        }
        PeerEvent::InDoubt { .. } => with(|inbox| {
            if let Some(in_doubt) = inbox.in_doubt.get_mut(peer.index()) {
                *in_doubt = in_doubt.saturating_add(1);
            }
        }),
        _ => {}
    }
    log!("kernel {}: {event:?}", peer.get());
}
