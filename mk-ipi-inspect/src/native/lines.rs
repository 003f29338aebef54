// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is published in a lane and not handed out yet (SPEC N-6, N-8).

use mk_ipi_abi::native::{lines_of, Breach, Geometry, LineTag, MessageInfo, LINE_WORDS};
use serde::Serialize;

/// Bytes of a payload that are shown.
const SHOWN: usize = 16;

/// A message that its receiver has not handed out yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// The position behind its last line, by which its sender knows it.
    pub number: u64,
    /// Its type.
    #[serde(rename = "type")]
    pub msg_type: u32,
    /// Bytes of payload.
    pub len: u32,
    /// The CPU that sent it, as the sender says.
    pub cpu: u32,
    /// The payload's first bytes, in hexadecimal.
    pub begins: String,
}

/// What lies from the receiver's next position on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lines {
    /// Messages that will be handed out, in this order.
    pub unread: u64,
    /// The lines that they take.
    pub unread_lines: u64,
    /// The first of them.
    pub messages: Vec<Message>,
    /// Messages behind a line that is not published: they wait for it.
    pub behind_gap: u64,
    /// The next line is what no honest sender writes: the lane goes into quarantine for it. Why, as in
    /// [`Breach`](mk_ipi_abi::native::Breach).
    pub breach_to_come: Option<u64>,
    /// The position behind the last line that is published.
    pub end: u64,
}

/// A lane's lines, as they were copied.
#[derive(Clone, Copy)]
pub(super) struct Ring<'a> {
    /// The words of the lane, header included.
    pub words: &'a [u64],
    pub geometry: Geometry,
}

/// How a receiver reads a lane.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// In order, up to the first line that is not published. What no honest sender writes is a breach.
    InForce,
    /// As that; then, since the sender's next life has said Begin, what lies behind gaps too.
    Last,
    /// A life that was over before it was heard of: all that makes sense.
    NeverAnswered,
}

/// What stands at a position where a message may begin.
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

    /// What a receiver finds whose next position is this.
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

    fn begins(&self, position: u64, len: usize) -> String {
        let [_, _, first, second, ..] = self.line(position);
        let bytes = [first.to_le_bytes(), second.to_le_bytes()].concat();
        bytes.iter().take(len.min(SHOWN)).map(|byte| format!("{byte:02x}")).collect()
    }

    /// What lies from `next` on.
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
            // Behind a gap lines of another lap mean nothing.
            gap = true;
            position = position.wrapping_add(1);
        }
        found
    }
}

impl Lines {
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
