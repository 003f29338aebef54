// SPDX-License-Identifier: MIT OR Apache-2.0
//! A lane: the words of its sender and of its receiver (SPEC N-4, N-5, N-9).

use super::lines::{Lines, Reading, Ring};
use crate::memory::{Memory, ReadError};
use mk_ipi_abi::native::{control, header, receiver, Attached, Geometry, Hello, LINE_WORDS};
use serde::Serialize;

/// How often a lane is read again because it changed. After that its last copy is used, and marked as torn.
const TRIES: usize = 8;
/// All positions that a correct kernel writes are below this (SPEC N-11).
pub(super) const MAX_POSITION: u64 = 1 << 61;

/// A copy of the words of a lane.
pub(super) struct Snapshot {
    /// The control line.
    control: Vec<u64>,
    /// The header and the lines.
    words: Vec<u64>,
    /// True if one of the words from CREDIT to BREACH changed each time while the lane was copied.
    torn: bool,
}

impl Snapshot {
    /// Copies the lane. The receiver's words from CREDIT to BREACH are read before and after the lines. If these words are the
    /// same both times, the lines from CREDIT on belong together: a sender writes a published line again only after CREDIT has
    /// grown.
    pub fn take(memory: &Memory, at: u64, geometry: Geometry, number: u32) -> Result<Self, ReadError> {
        let control_at = 8 * (receiver::CONTROL as u64 + u64::from(number) * receiver::CONTROL_WORDS as u64);
        let lane_at = geometry.lane_at(number).unwrap_or(0);
        let words = header::WORDS + geometry.lines() as usize * LINE_WORDS;
        let control_of = || memory.words(at + control_at, receiver::CONTROL_WORDS);
        let mut before = control_of()?;
        for _ in 0..TRIES {
            let words = memory.words(at + lane_at, words)?;
            let after = if memory.is_live() { control_of()? } else { before.clone() };
            let same = before.get(..=control::BREACH) == after.get(..=control::BREACH);
            before = after;
            if same {
                return Ok(Self { control: before, words, torn: false });
            }
        }
        Ok(Self { control: before, words: memory.words(at + lane_at, words)?, torn: true })
    }

    pub fn is_unused(&self) -> bool {
        let header = self.words.iter().take(header::WORDS);
        self.control.iter().chain(header).all(|word| *word == 0)
    }

    fn control(&self, word: usize) -> u64 {
        self.control.get(word).copied().unwrap_or(0)
    }

    fn header(&self, word: usize) -> u64 {
        self.words.get(word).copied().unwrap_or(0)
    }
}

/// The phase in a hello (SPEC N-9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The sender found a lane that was never used, and sends at once.
    First,
    /// The sender begins.
    Begin,
    /// The sender has set the tags of all lines to 0, and waits until it may send.
    Clean,
}

/// The contents of HELLO or ANSWER.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HelloReport {
    /// The sender's life.
    pub incarnation: u32,
    /// The number of the session. It differs each time a sender attaches.
    pub session: u16,
    /// The phase.
    pub phase: Phase,
}

impl HelloReport {
    fn of(word: u64) -> Option<Self> {
        Hello::from_word(word).map(|hello| Self {
            incarnation: hello.incarnation.get(),
            session: hello.session,
            phase: match hello.phase {
                mk_ipi_abi::native::Phase::First => Phase::First,
                mk_ipi_abi::native::Phase::Begin => Phase::Begin,
                mk_ipi_abi::native::Phase::Clean => Phase::Clean,
            },
        })
    }
}

/// The state of a lane's link, which follows from HELLO, ANSWER and BREACH.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The sender has written no hello.
    Silent,
    /// The sender can send, and the receiver takes the messages.
    Open,
    /// The sender can send. Its hello is a First, and the receiver has not answered it yet.
    NeverAnswered,
    /// The sender waits for the receiver's answer. The sender's sends are `Unanswered`.
    WaitsForReceiver,
    /// The receiver has answered, and the sender must take the next step. The sender's sends are `Unanswered`.
    WaitsForSender,
    /// The receiver does not accept this life of the sender. The sender's sends are `Broken`.
    Disowned,
    /// The receiver takes no messages, because the sender broke the protocol (SPEC N-14).
    Quarantined,
    /// HELLO is neither 0 nor a valid hello.
    Nonsense,
}

/// The receiver's words of a lane (SPEC N-4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "each is the word of that name in SPEC N-4")]
pub struct Control {
    pub credit: u64,
    pub answer: Option<HelloReport>,
    pub answer_word: u64,
    pub base: u64,
    pub handed: u64,
    pub breach: u64,
    pub doubts: u64,
    /// The numbers of the last messages in doubt, at most four, the oldest first.
    pub in_doubt: Vec<u64>,
    pub discard_from: u64,
    pub discard_to: u64,
    pub received: u64,
    pub lives: u64,
    pub breaches: u64,
    pub last_breach: u64,
}

/// The sender's words of a lane (SPEC N-5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "each is the word of that name in SPEC N-5")]
pub struct Header {
    pub hello: Option<HelloReport>,
    pub hello_word: u64,
    pub stop: u64,
    pub want: u64,
    /// The life that has the region mapped.
    pub attached: Option<u32>,
    /// The generation of the directory that this life has followed (SPEC D-7).
    pub followed: u32,
    pub attached_word: u64,
    pub full: u64,
    pub rung: u64,
}

/// What was read from a lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lane {
    /// The instance that sends here.
    pub instance: u32,
    /// The state of the link.
    pub state: State,
    /// The receiver's next position. `None` if HANDED and CREDIT contradict each other.
    pub next: Option<u64>,
    /// The lines from the receiver's next position on.
    pub lines: Lines,
    /// The receiver's words.
    pub control: Control,
    /// The sender's words.
    pub header: Header,
    /// True if the lane changed each time while it was copied. Then the copied words are not all of the same moment.
    pub torn: bool,
}

impl Lane {
    /// Explains a copy of lane `number`. Lists at most `messages` unread messages.
    pub(super) fn of(snapshot: &Snapshot, geometry: Geometry, number: u32, messages: usize) -> Self {
        let control = control_of(snapshot);
        let header = header_of(snapshot);
        let next = control.handed.max(control.credit);
        let sane = next < MAX_POSITION && next - control.credit <= geometry.lines().into();
        let next = sane.then_some(next);
        let ring = Ring { words: &snapshot.words, geometry };
        let state = state_of(&control, &header);
        let reading = reading(state, &control);
        let lines = reading.zip(next).map(|(reading, next)| ring.look_through(next, reading, messages));
        let lines = lines.unwrap_or(Lines { end: next.unwrap_or(0), ..Lines::default() });
        Self { instance: number, state, next, lines, control, header, torn: snapshot.torn }
    }
}

/// How the receiver will read the lines of the lane. `None` if it will not read them.
fn reading(state: State, control: &Control) -> Option<Reading> {
    if control.breach != 0 {
        return None;
    }
    match (state, control.answer) {
        (State::NeverAnswered, _) => Some(Reading::InForce),
        // After the receiver has answered a Begin, no message is left to hand out.
        (_, Some(answer)) if answer.phase == Phase::Begin => None,
        (State::WaitsForReceiver, Some(_)) => Some(Reading::Last),
        // The receiver continues to read the lines of the life that it answered, whatever HELLO is now.
        (_, Some(_)) => Some(Reading::InForce),
        // A sender that waits has not written its lines yet. The lines are those of a life that was never answered.
        (State::WaitsForReceiver, None) => Some(Reading::NeverAnswered),
        (_, None) => None,
    }
}

/// Reads the receiver's words.
fn control_of(snapshot: &Snapshot) -> Control {
    let word = |at| snapshot.control(at);
    let doubts = word(control::DOUBTS);
    let oldest = doubts.saturating_sub(control::DOUBT_WORDS as u64);
    Control {
        credit: word(control::CREDIT),
        answer: HelloReport::of(word(control::ANSWER)),
        answer_word: word(control::ANSWER),
        base: word(control::BASE),
        handed: word(control::HANDED),
        breach: word(control::BREACH),
        doubts,
        in_doubt: (oldest..doubts).map(|nth| word(control::doubt(nth))).collect(),
        discard_from: word(control::DISCARD_FROM),
        discard_to: word(control::DISCARD_TO),
        received: word(control::RECEIVED),
        lives: word(control::RESETS),
        breaches: word(control::BAD),
        last_breach: word(control::LAST_BREACH),
    }
}

/// Reads the sender's words.
fn header_of(snapshot: &Snapshot) -> Header {
    let word = |at| snapshot.header(at);
    let attached = Attached::from_word(word(header::ATTACHED));
    Header {
        hello: HelloReport::of(word(header::HELLO)),
        hello_word: word(header::HELLO),
        stop: word(header::STOP),
        want: word(header::WANT),
        attached: attached.map(|attached| attached.incarnation.get()),
        followed: attached.map_or(0, |attached| attached.generation),
        attached_word: word(header::ATTACHED),
        full: word(header::FULL),
        rung: word(header::RUNG),
    }
}

/// Finds the state of the link (SPEC N-9, N-14).
fn state_of(control: &Control, header: &Header) -> State {
    let (answer, said) = (control.answer_word, header.hello_word);
    let Some(hello) = Hello::from_word(said) else {
        return match () {
            () if control.breach != 0 => State::Quarantined,
            () if said == 0 => State::Silent,
            () => State::Nonsense,
        };
    };
    let begin = hello.in_phase(mk_ipi_abi::native::Phase::Begin).to_word();
    match hello.phase {
        // This comes before the check for quarantine: a Begin is answered in quarantine too.
        mk_ipi_abi::native::Phase::Begin if answer == said => State::WaitsForSender,
        mk_ipi_abi::native::Phase::Begin => State::WaitsForReceiver,
        mk_ipi_abi::native::Phase::Clean if answer == begin => State::WaitsForReceiver,
        _ if control.breach != 0 => State::Quarantined,
        _ if answer == said => State::Open,
        mk_ipi_abi::native::Phase::First if answer == 0 || answer == begin => State::NeverAnswered,
        _ => State::Disowned,
    }
}
