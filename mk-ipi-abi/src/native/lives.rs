// SPDX-License-Identifier: MIT OR Apache-2.0
//! Words about lives: hello and answer, the receiver's life, its doorbell, how a sender broke the protocol
//! (SPEC N-9, N-11, N-12, N-14).

use crate::{Incarnation, PhysCpuId, Vector};

/// How far a sender's life has come (SPEC N-9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The lane was never used: this life sends from position 0 and waits for no answer.
    First = 1,
    /// The life begins; it has not touched a line yet.
    Begin = 2,
    /// The life has cleaned every line, after its `Begin` was answered.
    Clean = 3,
}

/// What a sender says of its life: bits 31..0 incarnation, 47..32 session, 49..48 phase, 50 set (SPEC N-9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The sender's life.
    pub incarnation: Incarnation,
    /// Tells apart two attachments of one life.
    pub session: u16,
    /// How far it has come.
    pub phase: Phase,
}

impl Hello {
    /// The word, never 0.
    pub const fn to_word(self) -> u64 {
        self.incarnation.get() as u64 | (self.session as u64) << 32 | (self.phase as u64) << 48 | 1 << 50
    }
    /// What a word says; `None` for one that no sender of ours would write.
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
    /// The same life, in that phase.
    pub const fn in_phase(self, phase: Phase) -> Self {
        Self { phase, ..self }
    }
    /// The `Begin` of a life that finds `said` in its lane's `HELLO` and `answered` in `ANSWER`: of a session that neither names.
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

/// Where a receiver wants to be rung: bits 47..0 physical CPU id, 55..48 vector, 63 set (SPEC N-12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bell {
    /// The CPU. Whether it is the receiver's own, only the directory can say.
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
    /// What a word says; `None` for 0 and for what makes no sense.
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

/// A receiver's life, as its own page tells: bits 31..0 incarnation, 32 set when it is over (SPEC N-11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Which.
    pub incarnation: Incarnation,
    /// It has said goodbye.
    pub over: bool,
}

impl Life {
    /// The word, never 0.
    pub const fn to_word(self) -> u64 {
        self.incarnation.get() as u64 | (self.over as u64) << 32
    }
    /// What a word says; `None` before the first life.
    pub const fn from_word(word: u64) -> Option<Self> {
        match Incarnation::new(word as u32) {
            Some(incarnation) if word >> 33 == 0 => Some(Self { incarnation, over: word >> 32 != 0 }),
            _ => None,
        }
    }
}

/// That a sender has the region mapped: bits 31..0 its incarnation, 63..32 the directory's generation up to which it has done
/// what that asks for (SPEC N-17). It is 0 before it uses the region and after its last use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The sender's life.
    pub incarnation: Incarnation,
    /// How far it has followed the directory; 0 if it has not.
    pub generation: u32,
}

impl Attached {
    /// The word, never 0.
    pub const fn to_word(self) -> u64 {
        self.incarnation.get() as u64 | (self.generation as u64) << 32
    }
    /// What a word says; `None` for who is not attached.
    pub const fn from_word(word: u64) -> Option<Self> {
        match Incarnation::new(word as u32) {
            Some(incarnation) => Some(Self { incarnation, generation: (word >> 32) as u32 }),
            None => None,
        }
    }
    /// Whether it has followed the directory to `generation`, which wraps.
    pub const fn has_followed(self, generation: u32) -> bool {
        self.generation != 0 && self.generation.wrapping_sub(generation) < 1 << 31
    }
}

/// How a sender broke the protocol (SPEC N-14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Breach {
    /// A line bears a lap that is still to come, or is a further one where a message must begin, or the other way round.
    Tag = 1,
    /// A message says that it is longer than the region allows.
    Length = 2,
    /// A hello that makes no sense here.
    Hello = 3,
}

impl Breach {
    /// What a word of a control line says; `None` for 0 and unknown numbers.
    pub const fn from_word(word: u64) -> Option<Self> {
        match word {
            1 => Some(Self::Tag),
            2 => Some(Self::Length),
            3 => Some(Self::Hello),
            _ => None,
        }
    }
}
