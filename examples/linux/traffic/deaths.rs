// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds out how many messages of this kernel's stream a kernel had handled when it was killed during a run (native link
//! only).
//!
//! After a kernel was stopped, the link knows the number of the last message that the kernel had handled. Later an event
//! reports the number of the message that the kernel was handling when it was stopped: this message is in doubt. All later
//! messages are unread, and the next life receives them. Both numbers are numbers of the link. This file converts them to
//! positions in the stream.

use crate::peers::MAX_INSTANCES;
use crate::platform::ENDPOINT;
use mk_ipi_core::abi::InstanceId;
use mk_ipi_core::platform::PeerEvent;
use mk_ipi_core::sync::{AtomicBool, AtomicU64, Ordering};

/// For how many of the last messages of a stream the link's numbers are kept. The unread messages must be among them. A lane
/// has 512 lines, and a message of a stream takes three lines on average, so fewer than 256 messages are unread.
const RECENT: u64 = 256;

/// This kernel's stream to one other kernel.
struct Stream {
    /// True if the other kernel was stopped since the run began.
    ended: AtomicBool,
    /// The link's number of the last message that the other kernel had reported as handled before it was stopped.
    handled: AtomicU64,
    /// The link's number of the last message in doubt; 0 if there is none.
    doubt: AtomicU64,
    /// How many messages are in doubt.
    doubts: AtomicU64,
    /// The link's numbers of the last messages of the stream. Message `n` has its number at index `n % RECENT`.
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
    /// The link's number of message `n` of the stream.
    fn number(&self, n: u64) -> u64 {
        let place = self.numbers.get((n % RECENT) as usize);
        place.map_or(0, |number| number.load(Ordering::Relaxed))
    }
}

/// Called at the beginning of a run, before the check that `id` runs.
pub fn begin(id: InstanceId) {
    let Some(stream) = of(id) else { return };
    for word in [&stream.handled, &stream.doubt, &stream.doubts] {
        word.store(0, Ordering::Relaxed);
    }
    stream.ended.store(false, Ordering::Release);
}

/// Stores that message `n` of the stream to `id` was sent, and that the link gave it the number `number`.
pub fn note(id: InstanceId, n: u64, number: u64) {
    if let Some(place) = of(id).and_then(|stream| stream.numbers.get((n % RECENT) as usize)) {
        place.store(number, Ordering::Relaxed);
    }
}

/// Called after the CPUs of `id` were stopped, and before its next life begins.
pub fn on_death(id: InstanceId) {
    let Some(stream) = of(id) else { return };
    // With slots (RFC v2) the link does not know this number, and 0 is stored.
    stream.handled.store(ENDPOINT.handled(id).unwrap_or(0), Ordering::Relaxed);
    stream.ended.store(true, Ordering::Release);
}

/// Returns whether `id` was stopped since the run began, also if its next life runs already.
pub fn is_over(id: InstanceId) -> bool {
    of(id).is_some_and(|stream| stream.ended.load(Ordering::Acquire))
}

/// Called for each event of a peer. Stores which message is in doubt.
pub fn on_event(id: InstanceId, event: PeerEvent) {
    let PeerEvent::InDoubt { number } = event else { return };
    // If `id` was not stopped in this run, the message in doubt does not belong to this run.
    if let Some(stream) = of(id).filter(|_| is_over(id)) {
        stream.doubt.store(number, Ordering::Relaxed);
        stream.doubts.fetch_add(1, Ordering::Relaxed);
    }
}

/// How many messages to `id` are in doubt: `id` was handling them when it was stopped.
pub fn doubts(id: InstanceId) -> u64 {
    of(id).map_or(0, |stream| stream.doubts.load(Ordering::Relaxed))
}

/// Returns how many messages of the stream the stopped life of `id` had received, including the message in doubt. Also
/// returns whether a message of the stream is in doubt. `sent` is the number of messages of the stream that were sent.
pub fn taken(id: InstanceId, sent: u64) -> (u64, bool) {
    let Some(stream) = of(id) else { return (0, false) };
    let [handled, doubt] = [&stream.handled, &stream.doubt].map(|word| word.load(Ordering::Relaxed));
    let recent = sent.saturating_sub(RECENT)..sent;
    let unread = recent.clone().find(|n| stream.number(*n) > handled.max(doubt));
    (unread.unwrap_or(sent), doubt != 0 && recent.clone().any(|n| stream.number(n) == doubt))
}
