// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kernels that are killed in the middle of a run: how far they had come with this kernel's stream to them (native).
//!
//! At a death the link tells how far messages were handled. Later an event tells which message was being handled: that
//! one is in doubt. All later messages are unread, and the next life gets them. Both are numbers of the link; here they
//! become numbers of the stream.

use crate::peers::MAX_INSTANCES;
use crate::platform::ENDPOINT;
use mk_ipi_core::abi::InstanceId;
use mk_ipi_core::platform::PeerEvent;
use mk_ipi_core::sync::{AtomicBool, AtomicU64, Ordering};

/// Messages of a stream whose numbers are kept. This is more than a lane has lines.
const RECENT: u64 = 256;

/// This kernel's stream to one other.
struct Stream {
    /// True if its kernel was stopped.
    ended: AtomicBool,
    /// How far the kernel had handled messages by then, as far as it had reported.
    handled: AtomicU64,
    /// The last message that it was handling when it died, and how many there were; 0 for none.
    doubt: AtomicU64,
    doubts: AtomicU64,
    /// The link's numbers of the latest messages. The number of message `n` is at place `n` modulo their count.
    numbers: [AtomicU64; RECENT as usize],
}

static STREAMS: [Stream; MAX_INSTANCES] = [const {
    let [handled, doubt, doubts] = [const { AtomicU64::new(0) }; 3];
    let numbers = [const { AtomicU64::new(0) }; RECENT as usize];
    Stream { ended: AtomicBool::new(false), handled, doubt, doubts, numbers }
}; MAX_INSTANCES];

fn of(id: InstanceId) -> Option<&'static Stream> {
    STREAMS.get(id.index())
}

impl Stream {
    /// The link's number of message `n`.
    fn number(&self, n: u64) -> u64 {
        let place = self.numbers.get((n % RECENT) as usize);
        place.map_or(0, |number| number.load(Ordering::Relaxed))
    }
}

/// A run begins. Called before it is checked whether `id` lives.
pub fn begin(id: InstanceId) {
    let Some(stream) = of(id) else { return };
    for word in [&stream.handled, &stream.doubt, &stream.doubts] {
        word.store(0, Ordering::Relaxed);
    }
    stream.ended.store(false, Ordering::Release);
}

/// Message `n` of the stream to `id` was sent. The link gave it the number `number`.
pub fn note(id: InstanceId, n: u64, number: u64) {
    if let Some(place) = of(id).and_then(|stream| stream.numbers.get((n % RECENT) as usize)) {
        place.store(number, Ordering::Relaxed);
    }
}

/// The CPUs of `id` were stopped, and its next life has not begun.
pub fn on_death(id: InstanceId) {
    let Some(stream) = of(id) else { return };
    // With slots (RFC v2) nothing tells it.
    stream.handled.store(ENDPOINT.handled(id).unwrap_or(0), Ordering::Relaxed);
    stream.ended.store(true, Ordering::Release);
}

/// Returns whether `id` was stopped since the run began, even if it lives again.
pub fn is_over(id: InstanceId) -> bool {
    of(id).is_some_and(|stream| stream.ended.load(Ordering::Acquire))
}

/// Something happened to a peer.
pub fn on_event(id: InstanceId, event: PeerEvent) {
    let PeerEvent::InDoubt { number } = event else { return };
    // What a death before this run left in doubt does not belong to this run.
    if let Some(stream) = of(id).filter(|_| is_over(id)) {
        stream.doubt.store(number, Ordering::Relaxed);
        stream.doubts.fetch_add(1, Ordering::Relaxed);
    }
}

/// How many messages `id` was handling when it died.
pub fn doubts(id: InstanceId) -> u64 {
    of(id).map_or(0, |stream| stream.doubts.load(Ordering::Relaxed))
}

/// How many of `sent` messages the ended life of `id` had taken, including the one in doubt. And whether a message of
/// the stream is in doubt.
pub fn taken(id: InstanceId, sent: u64) -> (u64, bool) {
    let Some(stream) = of(id) else { return (0, false) };
    let [handled, doubt] = [&stream.handled, &stream.doubt].map(|word| word.load(Ordering::Relaxed));
    let recent = sent.saturating_sub(RECENT)..sent;
    let unread = recent.clone().find(|n| stream.number(*n) > handled.max(doubt));
    (unread.unwrap_or(sent), doubt != 0 && recent.clone().any(|n| stream.number(n) == doubt))
}
