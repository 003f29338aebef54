// SPDX-License-Identifier: MIT OR Apache-2.0
//! Words about the lives of sender and receiver: hello and answer, the receiver's life and doorbell, attachment, and breaches of
//! the protocol (SPEC N-9, N-11, N-12, N-14, N-17).

use crate::{Incarnation, PhysCpuId, Vector};

/// The phase of a sender's life (SPEC N-9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The lane was never used before. This life sends from position 0, and does not wait for an answer.
    First = 1,
    /// The life begins. It has not changed a line yet.
    Begin = 2,
    /// The receiver has answered the `Begin` of this life, and the sender has cleaned every line.
    Clean = 3,
}

/// The word by which a sender announces its life: bits 31..0 incarnation, 47..32 session, 49..48 phase, 50 set (SPEC N-9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The sender's life.
    pub incarnation: Incarnation,
    /// A number that differs from the session numbers that `HELLO` and `ANSWER` had before.
    pub session: u16,
    /// The phase.
    pub phase: Phase,
}

impl Hello {
    /// The word, never 0.
    pub const fn to_word(self) -> u64 {
        self.incarnation.get() as u64 | (self.session as u64) << 32 | (self.phase as u64) << 48 | 1 << 50
    }
    /// The hello in a word. `None` for a word that mk-ipi never writes.
    pub const fn from_word(word: u64) -> Option<Self> {
        let phase = match word >> 48 {
            0b101 => Phase::First,
            0b110 => Phase::Begin,
            0b111 => Phase::Clean,
            _ => return None,
        };
        match Incarnation::new(word as u32) {
            Some(incarnation) => Some(Self { incarnation, session: session_of(word), phase }),
            None => None,
        }
    }
    /// The same hello with another phase.
    pub const fn in_phase(self, phase: Phase) -> Self {
        Self { phase, ..self }
    }
    /// The first hello of a life that does not begin with phase `First`. `said` is the word that it finds in `HELLO` of its lane,
    /// `answered` the word in `ANSWER`. The new session differs from the sessions in both words.
    pub const fn after(said: u64, answered: u64, incarnation: Incarnation) -> Self {
        let next = session_of(said).wrapping_add(1);
        let session = if next == session_of(answered) { next.wrapping_add(1) } else { next };
        Self { incarnation, session, phase: Phase::Begin }
    }
    /// Whether a life in this phase may have messages in the lane.
    pub const fn may_send(self) -> bool {
        !matches!(self.phase, Phase::Begin)
    }
}

const fn session_of(word: u64) -> u16 {
    (word >> 32) as u16
}

/// The CPU and vector of the doorbell that a receiver asks for: bits 47..0 physical CPU id, 55..48 vector, 63 set (SPEC N-12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bell {
    /// The CPU. Only the directory can say whether it belongs to the receiver.
    pub cpu: PhysCpuId,
    /// The vector.
    pub vector: Vector,
}

impl Bell {
    const CPU: u64 = (1 << 48) - 1;

    /// The word, never 0; `None` for a CPU whose id has more than 48 bits.
    pub const fn to_word(self) -> Option<u64> {
        if self.cpu.0 > Self::CPU {
            return None;
        }
        Some(self.cpu.0 | (self.vector.get() as u64) << 48 | 1 << 63)
    }
    /// The doorbell in a word. `None` for 0 and for invalid words.
    pub const fn from_word(word: u64) -> Option<Self> {
        if word >> 56 != 0x80 {
            return None;
        }
        match Vector::new((word >> 48) as u8) {
            Some(vector) => Some(Self { cpu: PhysCpuId(word & Self::CPU), vector }),
            None => None,
        }
    }
}

/// A receiver's life, as it stores it in its own page: bits 31..0 incarnation, bit 32 set after the end of the life (SPEC N-11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// The incarnation.
    pub incarnation: Incarnation,
    /// Whether the receiver has ended this life with a goodbye.
    pub over: bool,
}

impl Life {
    /// The word, never 0.
    pub const fn to_word(self) -> u64 {
        self.incarnation.get() as u64 | (self.over as u64) << 32
    }
    /// The life in a word. `None` for invalid words, and for 0, the value before the first life.
    pub const fn from_word(word: u64) -> Option<Self> {
        match Incarnation::new(word as u32) {
            Some(incarnation) if word >> 33 == 0 => Some(Self { incarnation, over: word >> 32 != 0 }),
            _ => None,
        }
    }
}

/// The word by which a sender says that it has the region mapped: bits 31..0 its incarnation, 63..32 the generation of the
/// directory that it has followed (SPEC N-17). The word is 0 before the sender uses the region, and after its last use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The sender's life.
    pub incarnation: Incarnation,
    /// The generation of the directory that the sender has followed; 0 if it has followed none.
    pub generation: u32,
}

impl Attached {
    /// The word, never 0.
    pub const fn to_word(self) -> u64 {
        self.incarnation.get() as u64 | (self.generation as u64) << 32
    }
    /// The attachment in a word. `None` if the sender is not attached.
    pub const fn from_word(word: u64) -> Option<Self> {
        match Incarnation::new(word as u32) {
            Some(incarnation) => Some(Self { incarnation, generation: (word >> 32) as u32 }),
            None => None,
        }
    }
    /// Whether the sender has followed the directory to `generation` or to a later one. Generations wrap.
    pub const fn has_followed(self, generation: u32) -> bool {
        self.generation != 0 && self.generation.wrapping_sub(generation) < 1 << 31
    }
}

/// How a sender broke the protocol (SPEC N-14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Breach {
    /// Where a message must begin, there is the tag of a later lap or the tag of a further line. Or a further line of a message
    /// does not have its tag.
    Tag = 1,
    /// The length in a message is above what the region allows.
    Length = 2,
    /// A hello that is invalid, or not allowed now.
    Hello = 3,
}

impl Breach {
    /// The breach in a word of a control line. `None` for 0 and unknown numbers.
    pub const fn from_word(word: u64) -> Option<Self> {
        match word {
            1 => Some(Self::Tag),
            2 => Some(Self::Length),
            3 => Some(Self::Hello),
            _ => None,
        }
    }
}
