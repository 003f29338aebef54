// SPDX-License-Identifier: MIT OR Apache-2.0
//! What came to a kernel that serves (serve.rs). Deferred work leaves it here, and the main program fetches it.

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

/// What came from one other kernel and the main program has not fetched yet.
#[derive(Clone, Copy)]
pub struct News {
    /// Messages of the stream to this kernel that were ordered.
    pub stream: u64,
    /// A series of pings to this kernel that was ordered.
    pub pings: Option<u64>,
    /// Its latest ping: the number.
    pub ping: Option<u64>,
    /// Its latest pong: the number, and when it came.
    pub pong: Option<(u64, u64)>,
    /// The kernels that it asked about: one bit for each.
    pub asked: u64,
    /// True if there is space in its lane.
    pub space: bool,
}

const NO_NEWS: News = News { stream: 0, pings: None, ping: None, pong: None, asked: 0, space: false };

/// Accessed with interrupts off, so that no code ever waits for it.
struct Inbox {
    /// The present run.
    run: u32,
    /// Kernels with news: one bit for each.
    changed: u64,
    news: [News; MAX_INSTANCES],
    /// Messages to each kernel that are in doubt: the kernel died while it handled them.
    in_doubt: [u64; MAX_INSTANCES],
}

static INBOX: Mutex<Inbox> =
    Mutex::new(Inbox { run: 0, changed: 0, news: [NO_NEWS; MAX_INSTANCES], in_doubt: [0; MAX_INSTANCES] });
/// The streams from all others.
static STREAMS: [StreamCheck; MAX_INSTANCES] = [const { StreamCheck::new() }; MAX_INSTANCES];
/// Torn messages from an unknown sender.
static TORN: AtomicU64 = AtomicU64::new(0);

const _: () = assert!(MAX_INSTANCES == 64);

fn with<R>(f: impl FnOnce(&mut Inbox) -> R) -> R {
    without_interrupts(|| f(&mut INBOX.lock()))
}

/// Notes something about `id`, if it is one of the known ids.
fn note(id: InstanceId, f: impl FnOnce(&mut News)) {
    with(|inbox| {
        if let Some(news) = inbox.news.get_mut(id.index()) {
            f(news);
            inbox.changed |= 1 << id.get();
        }
    });
}

/// The present run, and some news of it, or `None` if there is no more.
pub fn next() -> (u32, Option<(InstanceId, News)>) {
    with(|inbox| {
        // An id above all others belongs to no kernel: nothing changed.
        let id = InstanceId::new(inbox.changed.trailing_zeros() as u8);
        let news = inbox.news.get_mut(id.index()).map(|news| (id, core::mem::replace(news, NO_NEWS)));
        inbox.changed &= inbox.changed.wrapping_sub(1);
        (inbox.run, news)
    })
}

/// What was found about the stream from `id`, and how many messages to it are in doubt.
pub fn found(id: InstanceId) -> (Counts, u64) {
    let counts = STREAMS.get(id.index()).map(StreamCheck::counts).unwrap_or_default();
    let in_doubt = with(|inbox| inbox.in_doubt.get(id.index()).copied()).unwrap_or(0);
    (Counts { torn: counts.torn + TORN.load(Ordering::Relaxed), ..counts }, in_doubt)
}

/// `id` is gone for good.
pub fn forget(id: InstanceId) {
    if let Some(stream) = STREAMS.get(id.index()) {
        // The main program calls this, so it must not interrupt the handling of a message.
        without_interrupts(|| stream.ended());
    }
}

/// Takes messages from now on. Called before the kernel joins the others.
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

/// The number of a payload that came whole, and the sender that it names.
fn checked(message: &Message) -> Option<(u64, InstanceId)> {
    let (number, sender) = payload::check(message.payload())?;
    let sender = InstanceId::new(sender.try_into().ok()?);
    is_from(message, sender).then_some((number, sender))
}

/// Returns whether `id` can have sent that: on the native link the lane proves it.
fn is_from(message: &Message, id: InstanceId) -> bool {
    message.sender().is_none_or(|sender| sender == id)
}

fn on_stream(message: &Message) {
    let Some((number, sender)) = checked(message) else { return on_torn(message) };
    let Some(stream) = STREAMS.get(sender.index()) else { return };
    if number == 0 && message.sender().is_none() {
        // RFC v2 does not announce a new life; the directory lists it before it begins.
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
    // A torn ping is not answered: its sender pings again.
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
            // Questions, and pings from others, belong to no run.
            *news = News { stream: 0, pings: None, pong: None, ..*news };
        }
        STREAMS.iter().for_each(StreamCheck::reset);
        TORN.store(0, Ordering::Relaxed);
    });
}

fn on_order(message: &Message) {
    let Some(Order { kind, to, count, run }) = Order::decode(message.payload()) else { return };
    if with(|inbox| inbox.run) != run {
        log!("an order of run {run} comes too early or too late");
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

/// Something happened to a peer.
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
