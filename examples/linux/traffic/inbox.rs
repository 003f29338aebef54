// SPDX-License-Identifier: MIT OR Apache-2.0
//! Handlers of the test's messages. They check streams, answer pings and store reports. They run with interrupts off.

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

/// What this kernel has received from one other kernel.
pub struct From {
    /// Checks the stream of that kernel, and counts its messages.
    pub check: StreamCheck,
    /// True if that kernel has reported space in the lane to it.
    pub space: AtomicBool,
    /// The number of the last answer to a ping (pong), plus 1.
    pub ponged: AtomicU64,
    /// The number of a ping that could not be answered yet, plus 1; 0 if there is none.
    pinged: AtomicU64,
    /// The last report, in the encoding of the message. It is valid if `answered` is true.
    answer: [AtomicU64; Report::LEN / 8],
    /// True if a report has arrived since `expect_report`.
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

/// The messages that have arrived from `id`.
pub fn from(id: InstanceId) -> Option<&'static From> {
    FROM.get(id.index())
}

/// How many stream messages had a damaged payload, so that their sender is not known (slots only).
static TORN: AtomicU64 = AtomicU64::new(0);

/// How many stream messages with a damaged payload arrived from an unknown sender.
pub fn torn() -> u64 {
    TORN.load(Ordering::Relaxed)
}

/// Sets all counts to 0, for a new run. No message of the test may be in a lane or slot at this time.
pub fn reset() {
    TORN.store(0, Ordering::Relaxed);
    for from in &FROM {
        from.check.reset();
    }
}

/// Called for each event of a peer.
pub fn on_event(id: InstanceId, event: PeerEvent) {
    let Some(from) = from(id) else { return };
    match event {
        PeerEvent::Space => from.space.store(true, Ordering::Release),
        PeerEvent::Began(life) => from.check.began(life),
        _ => {}
    }
}

/// Called before the next life of `id` begins. This is needed only with slots (RFC v2), which do not report a new life.
pub fn peer_restarts(id: InstanceId) {
    if let Some(from) = from(id) {
        from.check.ended();
    }
}

/// Finds the sender of a message. A lane has one sender. A slot does not say who the sender is. Then `named` is used, which
/// is the sender's id in the payload.
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
    // A ping with a damaged payload is not answered. Its sender sends it again, or reports that there is no answer.
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
        // The ping is stored for the next try, unless another ping has arrived.
        let _ = from.pinged.compare_exchange(0, pinged, Ordering::Relaxed);
    }
}

/// Tries again to answer the pings that could not be answered when they arrived.
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

/// Makes the handler store the next report of `id`.
pub fn expect_report(id: InstanceId) {
    if let Some(from) = from(id) {
        from.answered.store(false, Ordering::Release);
    }
}

/// The report that arrived from `id` since `expect_report`, if there is one.
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

/// The handlers that are registered on each kernel, whether it runs in serve mode or not.
const HANDLERS: [(MessageType, fn(&Message<'_>)); 4] =
    [(STREAM, on_stream), (PING, on_ping), (PONG, on_pong), (REPORT, on_report)];

/// The registered handlers. Dropping this unregisters them.
pub struct Handlers([Option<Handle>; 8]);

impl Handlers {
    /// Registers the handlers above and the handlers in `more`.
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
