// SPDX-License-Identifier: MIT OR Apache-2.0
//! The messages in a lane that are published and not handed out yet (SPEC N-6, N-8).

use mk_ipi_abi::native::{lines_of, Breach, Geometry, LineTag, MessageInfo, LINE_WORDS};
use serde::Serialize;

/// How many bytes of a payload are shown.
const SHOWN: usize = 16;

/// A message that its receiver has not handed out yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// The number of the message: the position after its last line (SPEC N-8).
    pub number: u64,
    /// The type of the message.
    #[serde(rename = "type")]
    pub msg_type: u32,
    /// Number of bytes of the payload.
    pub len: u32,
    /// The low 32 bits of the sending CPU's id, as the sender wrote them.
    pub cpu: u32,
    /// The payload's first bytes, in hexadecimal.
    pub begins: String,
}

/// What the lines contain, from the receiver's next position on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lines {
    /// Number of messages that will be handed out.
    pub unread: u64,
    /// Number of lines that these messages take.
    pub unread_lines: u64,
    /// The first ones of these messages, in the order in which they will be handed out.
    pub messages: Vec<Message>,
    /// Number of messages that are not in `unread`, because a line before them is not published.
    pub behind_gap: u64,
    /// Set if no correct sender writes what is at position `end`. The lane goes into quarantine when the receiver comes to this
    /// position. The value is the reason, a [`Breach`](mk_ipi_abi::native::Breach).
    pub breach_to_come: Option<u64>,
    /// The position after the last message that was found.
    pub end: u64,
}

/// The copied lines of a lane.
#[derive(Clone, Copy)]
pub(super) struct Ring<'a> {
    /// The words of the lane, including its header.
    pub words: &'a [u64],
    pub geometry: Geometry,
}

/// How a receiver reads a lane.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// The receiver hands out the messages up to the first line that is not published. A line that no correct sender writes is a
    /// breach.
    InForce,
    /// As `InForce`, but the receiver also hands out the messages after gaps, because the sender's next life has written Begin.
    Last,
    /// The lines are those of a life that ended before it was answered. The receiver hands out all valid messages, and no line is
    /// a breach.
    NeverAnswered,
}

/// What is at a position where a message can begin.
enum Found {
    Message(Message),
    Nothing,
    Breach(Breach),
}

impl Ring<'_> {
    fn line(&self, position: u64) -> [u64; LINE_WORDS] {
        let at = self.geometry.line_at(position);
        let line = self.words.get(at..).and_then(|rest| rest.first_chunk());
        line.copied().unwrap_or_default()
    }

    /// What a receiver finds at `position`, if this is its next position.
    fn look(&self, position: u64) -> Found {
        let [word, about, ..] = self.line(position);
        let (tag, expected) = (LineTag::of_word(word), self.geometry.first_tag(position));
        if tag != expected {
            return if expected.is_contradicted_by(tag) {
                Found::Breach(Breach::Tag)
            } else {
                Found::Nothing
            };
        }
        let MessageInfo { len, cpu } = MessageInfo::from_word(about);
        if len > self.geometry.max_len() {
            return Found::Breach(Breach::Length);
        }
        let lines = lines_of(len as usize);
        let is_further = |n: &u64| {
            let further = position.wrapping_add(*n);
            LineTag::of_word(self.line(further)[0]) == self.geometry.further_tag(further)
        };
        if !(1..lines).all(|n| is_further(&n)) {
            return Found::Breach(Breach::Tag);
        }
        let number = position.wrapping_add(lines);
        let begins = self.begins(position, len as usize);
        Found::Message(Message { number, msg_type: (word >> 32) as u32, len, cpu, begins })
    }

    /// The first bytes of the payload of the message at `position`, in hexadecimal.
    fn begins(&self, position: u64, len: usize) -> String {
        let [_, _, first, second, ..] = self.line(position);
        let bytes = [first.to_le_bytes(), second.to_le_bytes()].concat();
        bytes.iter().take(len.min(SHOWN)).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads all lines of the lane, from position `next` on. Lists at most `most` messages.
    pub fn look_through(&self, next: u64, reading: Reading, most: usize) -> Lines {
        let end = next.wrapping_add(self.geometry.lines().into());
        let mut found = Lines { end: next, ..Lines::default() };
        let (mut position, mut gap) = (next, false);
        while position < end {
            match self.look(position) {
                Found::Message(message) if message.number <= end => {
                    position = message.number;
                    found.add(message, gap && reading == Reading::InForce, most);
                    found.end = position;
                    continue;
                }
                Found::Breach(breach) if !gap && reading != Reading::NeverAnswered => {
                    found.breach_to_come = Some(breach as u64);
                    return found;
                }
                _ => {}
            }
            // A line at which no message begins is skipped.
            gap = true;
            position = position.wrapping_add(1);
        }
        found
    }
}

impl Lines {
    /// Counts a message that was found, and lists it if it will be handed out and fewer than `most` are listed.
    fn add(&mut self, message: Message, behind_gap: bool, most: usize) {
        if behind_gap {
            self.behind_gap += 1;
            return;
        }
        self.unread += 1;
        self.unread_lines += lines_of(message.len as usize);
        if self.messages.len() < most {
            self.messages.push(message);
        }
    }
}
