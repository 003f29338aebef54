// SPDX-License-Identifier: MIT OR Apache-2.0
//! Takes messages out of a lane: finds a message, copies each of its words once, checks the copy, and delivers the copy (SPEC N-6
//! to N-8, N-11).

use super::lane::{Control, LaneEnd, Line, OwnRegion};
use super::state::{Buffer, Events, Lane, Visit};
use crate::message::{Message, Origin};
use crate::platform::PeerEvent;
use crate::sync::{Ordering, Word};
use mk_ipi_abi::native::{
    control, lines_of, Breach, LineTag, MessageInfo, FIRST_LINE_WORDS, FURTHER_LINE_WORDS,
};
use mk_ipi_abi::{Incarnation, InstanceId, MessageType, PhysCpuId};
use zerocopy::IntoBytes;

/// Distance in lines between the line that is read next and the first line that is prefetched.
const BEHIND: u64 = 8;
/// Distance in lines between two checks of how far lines are published. Such a check looks at one line only.
const STRIDE: u64 = 16;

/// A copied and checked message.
pub(super) struct Copied {
    /// The position after the message.
    pub end: u64,
    len: usize,
    cpu: u32,
    msg_type: u32,
}

impl<W: Word> LaneEnd<'_, W> {
    /// Returns whether the lane is open and a message begins at its next line. One load.
    #[inline(always)]
    pub(super) fn is_there(&self, lane: &Lane) -> bool {
        let tag = self.line(lane.next).map_or(0, |[tag, ..]| tag.load(Ordering::Relaxed));
        lane.open && LineTag::of_word(tag) == self.geometry.first_tag(lane.next)
    }

    /// Copies the message at position `first` out of its lines, and checks the copy. `word` is the first word of the message,
    /// which the caller has loaded and checked.
    #[inline(always)]
    pub(super) fn copy(&self, first: u64, word: u64, buffer: &mut Buffer) -> Result<Copied, Breach> {
        let Some([_, about, near @ ..]) = self.line(first) else { return Err(Breach::Tag) };
        let MessageInfo { len, cpu } = MessageInfo::from_word(about.load(Ordering::Relaxed));
        if len > self.geometry.max_len() {
            return Err(Breach::Length);
        }
        let len = len as usize;
        // Copies all words of the line. This is faster than to compute how many of them belong to the payload.
        for (copy, word) in buffer.iter_mut().zip(near) {
            *copy = word.load(Ordering::Relaxed);
        }
        let end = first.wrapping_add(lines_of(len));
        if end != first.wrapping_add(1) {
            self.copy_further(first.wrapping_add(1)..end, buffer)?;
        }
        Ok(Copied { end, len, cpu, msg_type: (word >> 32) as u32 })
    }

    /// Copies the further lines of a message, and checks their tags.
    #[inline(never)]
    fn copy_further(&self, positions: core::ops::Range<u64>, buffer: &mut Buffer) -> Result<(), Breach> {
        let mut rest = buffer.get_mut(FIRST_LINE_WORDS..).unwrap_or(&mut []);
        let mut good = true;
        for position in positions {
            let copy = core::mem::take(&mut rest).split_first_chunk_mut::<FURTHER_LINE_WORDS>();
            let (Some([tag, words @ ..]), Some((copy, behind))) = (self.line(position), copy) else {
                return Err(Breach::Tag);
            };
            rest = behind;
            good &= LineTag::of_word(tag.load(Ordering::Relaxed)) == self.geometry.further_tag(position);
            for (copy, word) in copy.iter_mut().zip(words) {
                *copy = word.load(Ordering::Relaxed);
            }
        }
        good.then_some(()).ok_or(Breach::Tag)
    }

    /// Prefetches `count` lines, beginning `BEHIND` lines after the next one, but none after the last line that is known to be
    /// published. Prefetching a line that a sender is writing would take the cache line away from the sender's CPU.
    #[inline(always)]
    fn fetch(&self, lane: &mut Lane, count: u64) {
        let from = lane.next.wrapping_add(BEHIND);
        if from.wrapping_add(count) > lane.known && lane.next >= lane.look_ahead_at {
            // Checks one line, `far`. If it is published, the lines before it usually are too. They are not always, because
            // several CPUs can send at once. The line of the next check is prefetched now, so that the next check need not wait
            // for it.
            lane.look_ahead_at = from;
            let far = lane.next.max(lane.known).wrapping_add(STRIDE);
            let tag = self.line(far).map_or(0, |[tag, ..]| tag.load(Ordering::Relaxed));
            let tag = LineTag::of_word(tag);
            let there = tag == self.geometry.first_tag(far) || tag == self.geometry.further_tag(far);
            if there && far.wrapping_sub(lane.next) < self.lines() >> 1 {
                lane.known = far;
                self.will_read(far.wrapping_add(STRIDE));
            }
        }
        for position in from..from.wrapping_add(count) {
            if position <= lane.known {
                self.will_read(position);
            }
        }
    }

    /// Prefetches the line at `position`.
    #[inline(always)]
    fn will_read(&self, position: u64) {
        if let Some([tag, ..]) = self.line(position) {
            tag.will_read();
        }
    }

    /// Called when there is no message. If the last message had several lines, the next one probably has, too. The sender stores
    /// its further lines before its first line. So the further lines are prefetched while the first line is not there yet.
    #[inline(always)]
    pub(super) fn prefetch_long(&self, lane: &Lane) {
        if lane.long {
            (1..5).for_each(|n| self.will_read(lane.next.wrapping_add(n)));
        }
    }
}

impl<W: Word> Visit<'_, W> {
    /// Delivers up to `share` messages, in order. Returns their number; a bad message, after which the lane is closed, counts
    /// too.
    pub(super) fn take<E: Events>(&mut self, to: &mut E, buffer: &mut Buffer, share: usize) -> usize {
        let mut found = 0usize;
        while found < share && self.lane.open {
            let first = self.lane.next;
            let Some(line) = self.end.line(first) else { break };
            let [tag, ..]: &Line<W> = line;
            // SYNC POINT: message-published (acquire)
            let word = tag.load_acquire();
            let expected = self.end.geometry.first_tag(first);
            if LineTag::of_word(word) != expected {
                if expected.is_contradicted_by(LineTag::of_word(word)) {
                    self.quarantine(to, Breach::Tag);
                }
                break;
            }
            match self.end.copy(first, word, buffer) {
                Ok(copied) => {
                    if found != 0 {
                        // Not for the first message: it is often the only one. After two messages, more are likely.
                        self.end.fetch(self.lane, copied.end.wrapping_sub(first));
                    }
                    self.hand_out(to, &copied, buffer);
                }
                Err(breach) => self.quarantine(to, breach),
            }
            found = found.wrapping_add(1);
        }
        found
    }

    /// Advances the lane to the position after the message, then calls the handlers of the message.
    #[inline(always)]
    pub(super) fn hand_out<E: Events>(&mut self, to: &mut E, copied: &Copied, buffer: &Buffer) {
        self.report_began(to);
        hand_out(self.end.control, self.lane, (self.id, self.ours), to, copied, buffer);
    }

    /// Reports once, before the first message of a sender's life, that this life has begun.
    #[inline(always)]
    pub(super) fn report_began<E: Events>(&mut self, to: &mut E) {
        if !self.lane.began_reported {
            self.lane.began_reported = true;
            if let Some(theirs) = self.lane.theirs {
                self.report(to, PeerEvent::Began(theirs));
            }
        }
    }
}

/// As [`LaneEnd::copy`], for the usual case of a poll: in few instructions if the message has one line. The message is that of
/// lane `number` at position `first`; its tag has index `at` and must have the value `expected`. `None` if there is no good
/// message.
#[inline(always)]
pub(super) fn copy_next<W: Word>(
    own: &OwnRegion<W>,
    number: u8,
    (at, expected): (usize, LineTag),
    first: u64,
    buffer: &mut Buffer,
) -> Option<Copied> {
    let [tag, about, near @ ..] = own.line(at)?;
    // SYNC POINT: message-published (acquire)
    let word = tag.load_acquire();
    let MessageInfo { len, cpu } = MessageInfo::from_word(about.load(Ordering::Relaxed));
    if LineTag::of_word(word) != expected || len > own.geometry.max_len() {
        return None;
    }
    let len = len as usize;
    for (copy, word) in buffer.iter_mut().zip(near) {
        *copy = word.load(Ordering::Relaxed);
    }
    let end = first.wrapping_add(1);
    let end = if len > FIRST_LINE_WORDS * 8 { copy_rest(own, number, end, len, buffer)? } else { end };
    Some(Copied { end, len, cpu, msg_type: (word >> 32) as u32 })
}

/// Copies the further lines of a message of `len` bytes. `from` is the position of the first of them. Returns the position after
/// the message.
#[inline(never)]
fn copy_rest<W: Word>(
    own: &OwnRegion<W>,
    number: u8,
    from: u64,
    len: usize,
    buffer: &mut Buffer,
) -> Option<u64> {
    let end = from.wrapping_add(lines_of(len)).wrapping_sub(1);
    own.lane_end(number)?.copy_further(from..end, buffer).ok()?;
    Some(end)
}

/// Advances the lane to the position after the message, then calls the handlers of the message.
#[inline(always)]
pub(super) fn hand_out<W: Word, E: Events>(
    control: &Control<W>,
    lane: &mut Lane,
    (id, ours): (InstanceId, Option<Incarnation>),
    to: &mut E,
    &Copied { end, len, cpu, msg_type }: &Copied,
    buffer: &Buffer,
) {
    lane.next = end;
    lane.long = len > FIRST_LINE_WORDS * 8;
    lane.received = lane.received.wrapping_add(1);
    let [_, _, _, handed, ..] = control;
    // Stored before the handlers run: if this kernel dies in a handler, its next life knows which message is in doubt (SPEC
    // N-11).
    handed.store(end, Ordering::Release);
    let origin = ours.map(|ours| Origin { id, theirs: lane.theirs, ours, number: end });
    let payload = buffer.as_bytes().get(..len).unwrap_or(&[]);
    let (sender_cpu, msg_type) = (PhysCpuId(cpu.into()), MessageType(msg_type));
    to.deliver(&Message { origin, sender_cpu, msg_type, payload });
}

const _: () = assert!(control::HANDED == 3);
