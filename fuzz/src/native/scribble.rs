// SPDX-License-Identifier: MIT OR Apache-2.0
//! The words that a hostile kernel writes. Many of the values are chosen so that they can do harm.

use super::{k, World};
use arbitrary::Arbitrary;
use mk_ipi_abi::native::{control, header, receiver, Hello, Life, LineTag, MessageInfo, Phase, LINE_WORDS};
use mk_ipi_abi::{Incarnation, PhysAddr};

/// A word in a page that a hostile kernel can write, and the value that it writes.
#[derive(Arbitrary, Debug)]
pub struct Scribble {
    at: At,
    value: Value,
}

#[derive(Arbitrary, Debug)]
enum At {
    Header {
        to: u8,
        word: u8,
    },
    Line {
        to: u8,
        line: u8,
        word: u8,
    },
    /// A word at the beginning of its own region: of the stamp or of the receiver's words.
    Own {
        word: u8,
    },
    Control {
        lane: u8,
        word: u8,
    },
}

#[derive(Arbitrary, Debug)]
enum Value {
    Small(u16),
    /// A tag of the lap in which the receiver reads, or of a lap near it.
    Tag {
        lap: i8,
        further: bool,
        ty: u8,
    },
    About {
        len: u16,
        cpu: u8,
    },
    Hello {
        life: u8,
        session: u8,
        phase: u8,
    },
    /// The hello with which an honest next life would begin.
    Next {
        life: u8,
        phase: u8,
    },
    Life {
        life: u8,
        over: bool,
    },
    /// The value of ANSWER for one of its lanes.
    Answer {
        to: u8,
    },
    /// A number near the value of one of the first four words in a control line, most of which are positions.
    Near {
        lane: u8,
        word: u8,
        by: i8,
    },
    Any(u64),
}

fn phase(n: u8) -> Phase {
    [Phase::First, Phase::Begin, Phase::Clean][usize::from(n) % 3]
}

fn life(n: u8) -> Incarnation {
    Incarnation::new(n.into()).unwrap_or(Incarnation::FIRST)
}

impl World {
    /// The address and the value that kernel `by` writes. `None` if the test does not allow this write.
    pub fn resolve(&self, by: usize, scribble: &Scribble, last: bool) -> Option<(PhysAddr, u64)> {
        let value = self.value(by, &scribble.value);
        let at = match scribble.at {
            At::Header { to, word } => {
                let word = usize::from(word) % header::WORDS;
                let claims = || {
                    Hello::from_word(value).is_some_and(|h| h.incarnation.get() > self.kernels[by].life.get())
                };
                // If the next life of this kernel is honest, the present life must not write the incarnation of a later life.
                // Otherwise its unread messages would look as if that life had sent them. It may do so only as its last write.
                if word == header::HELLO && self.is_of_two_minds(by) && !last && claims() {
                    return None;
                }
                self.lane(by, k(to), word)
            }
            At::Line { to, line, word } => {
                // In half of the cases, one of the first two words: the tag, or the length and the CPU.
                let word = if word < 128 { word % 2 } else { word } as usize % LINE_WORDS;
                self.lane(by, k(to), self.geometry.line_at(line.into()) + word)
            }
            At::Own { word } => {
                // If the next life of this kernel is honest, it needs the stamp, and only the host could write the stamp again.
                let first = if self.is_of_two_minds(by) { receiver::HEARTBEAT } else { 0 };
                self.at(by, 0, first + usize::from(word) % (receiver::CONTROL - first))
            }
            At::Control { lane, word } => {
                self.control(k(lane), by, usize::from(word) % receiver::CONTROL_WORDS)
            }
        };
        Some((at, value))
    }

    /// The value that kernel `by` writes.
    fn value(&self, by: usize, value: &Value) -> u64 {
        match *value {
            Value::Small(n) => n.into(),
            Value::Tag { lap, further, ty } => {
                let next = self.machine.peek(self.control(by, k(ty), control::CREDIT));
                let lap = (next / u64::from(self.geometry.lines())).wrapping_add_signed((lap % 3).into());
                if further { LineTag::further(lap) } else { LineTag::first(lap) }.to_word((ty / 4 % 2).into())
            }
            Value::About { len, cpu } => {
                MessageInfo { len: u32::from(len % 300), cpu: (cpu % 2).into() }.to_word()
            }
            Value::Hello { life: n, session, phase: p } => {
                Hello { incarnation: life(n), session: session.into(), phase: phase(p) }.to_word()
            }
            Value::Next { life: n, phase: p } => {
                let said = self.machine.peek(self.lane(by, k(n), header::HELLO));
                let answered = self.machine.peek(self.control(by, k(n), control::ANSWER));
                let next = self.kernels[by].life.next();
                Hello::after(said, answered, next).in_phase(phase(p)).to_word()
            }
            Value::Life { life: n, over } => Life { incarnation: life(n), over }.to_word(),
            Value::Answer { to } => self.machine.peek(self.control(by, k(to), control::ANSWER)),
            Value::Near { lane, word, by: d } => {
                let stands = self.machine.peek(self.control(k(lane), by, usize::from(word) % 4));
                stands.wrapping_add_signed(d.into())
            }
            Value::Any(n) => n,
        }
    }
}
