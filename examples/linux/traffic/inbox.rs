// SPDX-License-Identifier: MIT OR Apache-2.0
//! What comes: streams are checked, pings are answered, reports are kept. Handlers run with interrupts off.

use crate::callback::Callback;
use crate::failure::{refuse, Result};
use crate::order::{Report, PING, PONG, REPORT, STREAM};
use crate::payload::{self, Payload};
use crate::peers::MAX_INSTANCES;
use crate::platform::ENDPOINT;
use crate::stream_check::StreamCheck;
use kernel::prelude::*;
use mk_ipi_core::abi::{InstanceId, MessageType};
use mk_ipi_core::platform::PeerEvent;
use mk_ipi_core::sync::{AtomicBool, AtomicU64, Ordering};
use mk_ipi_core::{Handle, Message};

/// What came from one kernel.
pub struct From {
    /// Its stream.
    pub check: StreamCheck,
    /// True if there is space in its lane again.
    pub space: AtomicBool,
    /// Number of its last pong, plus 1.
    pub ponged: AtomicU64,
    /// Number of its ping that is not answered yet, plus 1.
    pinged: AtomicU64,
    /// Its last report, as it came. It is valid once `answered` is set.
    answer: [AtomicU64; Report::LEN / 8],
    answered: AtomicBool,
}

static FROM: [From; MAX_INSTANCES] = [const {
    From {
        check: StreamCheck::new(),
        space: AtomicBool::new(false),
        ponged: AtomicU64::new(0),
        pinged: AtomicU64::new(0),
        answer: [const { AtomicU64::new(0) }; Report::LEN / 8],
        answered: AtomicBool::new(false),
    }
}; MAX_INSTANCES];

/// What came from `id`.
pub fn from(id: InstanceId) -> Option<&'static From> {
    FROM.get(id.index())
}

/// Messages whose sender is not known, because their payload is torn.
static TORN: AtomicU64 = AtomicU64::new(0);

/// How many torn messages of unknown senders came.
pub fn torn() -> u64 {
    TORN.load(Ordering::Relaxed)
}

/// Begins a new run. No message is on its way.
pub fn reset() {
    TORN.store(0, Ordering::Relaxed);
    for from in &FROM {
        from.check.reset();
    }
}

/// Something happened to a peer.
pub fn on_event(id: InstanceId, event: PeerEvent) {
    let Some(from) = from(id) else { return };
    match event {
        PeerEvent::Space => from.space.store(true, Ordering::Release),
        PeerEvent::Began(life) => from.check.began(life),
        _ => {}
    }
}

/// The kernel of `id` is about to begin its next life. Slots (RFC v2) do not tell that.
pub fn peer_restarts(id: InstanceId) {
    if let Some(from) = from(id) {
        from.check.ended();
    }
}

/// The sender: the lane proves it; with slots only the payload tells it.
fn sender_of(message: &Message<'_>, named: u32) -> Option<(InstanceId, &'static From)> {
    let named = u8::try_from(named).ok().map(InstanceId::new);
    let id = message.sender().or(named)?;
    Some((id, from(id)?))
}

fn on_stream(message: &Message<'_>) {
    let Some((number, sender)) = payload::check(message.payload()) else {
        return match message.sender().and_then(from) {
            Some(from) => from.check.took_torn(),
            None => {
                TORN.fetch_add(1, Ordering::Relaxed);
            }
        };
    };
    if let Some((_, from)) = sender_of(message, sender) {
        from.check.take(number);
    }
}

fn on_ping(message: &Message<'_>) {
    // A torn ping is not answered. The sender will report that the round trip takes too long.
    if let Some((number, sender)) = payload::check(message.payload()) {
        if let Some((id, from)) = sender_of(message, sender) {
            from.pinged.store(number.wrapping_add(1), Ordering::Release);
            answer(id.get());
        }
    }
}

/// Answers the waiting ping of `id`, if there is one and there is room.
fn answer(id: u8) {
    let id = InstanceId::new(id);
    let Some(from) = from(id) else { return };
    let pinged = from.pinged.swap(0, Ordering::AcqRel);
    let Some(number) = pinged.checked_sub(1) else { return };
    let pong = Payload::new(number, super::me().get().into());
    if ENDPOINT.send(id, PONG, pong.bytes()).is_err() {
        // It is kept for the next try, unless another ping has come.
        let _ = from.pinged.compare_exchange(0, pinged, Ordering::Relaxed);
    }
}

/// Tries again to answer what could not be answered at once.
pub fn answer_all() {
    (0..MAX_INSTANCES as u8).for_each(answer);
}

fn on_pong(message: &Message<'_>) {
    if let Some((number, sender)) = payload::check(message.payload()) {
        if let Some((_, from)) = sender_of(message, sender) {
            from.ponged.store(number.wrapping_add(1), Ordering::Release);
        }
    }
}

fn on_report(message: &Message<'_>) {
    let Some(report) = Report::decode(message.payload()) else { return };
    let Some(from) = from(report.me) else { return };
    if message.sender().is_some_and(|id| id != report.me) {
        return;
    }
    if from.answered.load(Ordering::Acquire) {
        return;
    }
    let mut rest = message.payload();
    for word in &from.answer {
        let Some((eight, behind)) = rest.split_first_chunk::<8>() else { return };
        word.store(u64::from_le_bytes(*eight), Ordering::Relaxed);
        rest = behind;
    }
    from.answered.store(true, Ordering::Release);
}

/// From now on a report of `id` is kept.
pub fn expect_report(id: InstanceId) {
    if let Some(from) = from(id) {
        from.answered.store(false, Ordering::Release);
    }
}

/// The report that came from `id`, if there is one.
pub fn report_of(id: InstanceId) -> Option<Report> {
    let from = from(id)?;
    if !from.answered.load(Ordering::Acquire) {
        return None;
    }
    let mut bytes = [0; Report::LEN];
    let all = from.answer.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes());
    bytes.iter_mut().zip(all).for_each(|(to, byte)| *to = byte);
    Report::decode(&bytes)
}

/// The messages that are always taken.
const HANDLERS: [(MessageType, fn(&Message<'_>)); 4] =
    [(STREAM, on_stream), (PING, on_ping), (PONG, on_pong), (REPORT, on_report)];

/// The handlers. Dropping it unregisters them.
pub struct Handlers([Option<Handle>; 8]);

impl Handlers {
    /// Takes these messages, and those of `more`, from now on.
    pub fn register(more: &[(MessageType, fn(&Message<'_>))]) -> Result<Self> {
        let mut handlers = Self([None; 8]);
        for (place, (ty, call)) in handlers.0.iter_mut().zip(Iterator::chain(HANDLERS.iter(), more)) {
            match ENDPOINT.register(*ty, Callback::Rust(*call)) {
                Ok(handle) => *place = Some(handle),
                Err(e) => return refuse!(ENOMEM, "no handler for type {:#x}: {e:?}", ty.0),
            }
        }
        Ok(handlers)
    }
}

impl Drop for Handlers {
    fn drop(&mut self) {
        for handle in self.0.iter().flatten() {
            if let Err(e) = ENDPOINT.unregister(*handle) {
                pr_err!("a handler cannot be removed: {e:?}\n");
            }
        }
    }
}
