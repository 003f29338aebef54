// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds what is wrong or remarkable in a lane, and says what that means.

use super::lane::{Lane, State, MAX_POSITION};
use super::Receiver;
use crate::finding::Notes;
use mk_ipi_abi::native::{Breach, Geometry};
use mk_ipi_abi::InstanceId;

/// The reason why a lane is in quarantine, in words.
pub(crate) fn breach_text(word: u64) -> &'static str {
    match Breach::from_word(word) {
        Some(Breach::Tag) => "a line with another tag than it must have",
        Some(Breach::Length) => "a message that is longer than the region allows",
        Some(Breach::Hello) => "a hello that is not valid",
        None => "an unknown reason",
    }
}

/// Adds all findings about a lane.
pub(super) fn lane(lane: &Lane, geometry: Geometry, receiver: &Receiver, notes: &mut Notes<'_>) {
    if lane.torn {
        return notes.note(
            "it changes faster than it can be read",
            "Its words were not all read at the same moment, so they are not judged.",
        );
    }
    positions(lane, geometry, notes);
    life(lane, notes);
    lines(lane, receiver, notes);
    history(lane, notes);
    words(lane, receiver, notes);
}

fn positions(lane: &Lane, geometry: Geometry, notes: &mut Notes<'_>) {
    let control = &lane.control;
    let lines = u64::from(geometry.lines());
    if lane.next.is_none() {
        notes.broken(
            format!("CREDIT {} and HANDED {} cannot both be right", control.credit, control.handed),
            "The receiver's next life does not use them. It disowns the sender, which must then begin a new life (SPEC N-11).",
        );
    } else if control.handed < control.credit {
        notes.broken(
            format!("HANDED {} is below CREDIT {}", control.handed, control.credit),
            "The receiver's next life uses the larger one. An honest receiver leaves the words like this only for a moment (SPEC N-10).",
        );
    } else if control.handed > control.credit {
        notes.note(
            format!("message {} is with its handlers", control.handed),
            "If the receiver dies now, this message is in doubt: perhaps it was handled (SPEC N-11).",
        );
    }
    let sends = matches!(lane.state, State::Open);
    if sends && control.base > control.credit.max(control.handed) {
        notes.broken(
            format!("BASE {} is beyond what was handed out", control.base),
            "This life of the sender cannot have begun there (SPEC N-9).",
        );
    }
    if lane.header.want > lane.lines.end.saturating_add(lines) && lane.header.want >= control.credit {
        notes.suspect(
            format!("WANT {} is beyond all that can be published", lane.header.want),
            "The sender waits for space that cannot come, or a former life left this behind (SPEC N-8).",
        );
    } else if lane.header.want > control.credit {
        notes.note(
            format!(
                "the sender waits for space: for CREDIT {}, and it is {}",
                lane.header.want, control.credit
            ),
            "The receiver rings it when CREDIT comes to that (SPEC N-10).",
        );
    }
}

fn life(lane: &Lane, notes: &mut Notes<'_>) {
    let hello = lane.header.hello_word;
    match lane.state {
        State::Silent if lane.control.answer_word != 0 => notes.broken(
            "HELLO is 0, but ANSWER is not",
            "The sender has removed its hello, which is no breach. The receiver continues with the life that it answered (SPEC N-14).",
        ),
        State::Nonsense => notes.broken(
            format!("HELLO is {hello:#x}, which is no hello"),
            "The receiver puts the lane into quarantine when it looks. If it began its life just now, or has disowned the sender already, it takes no messages until there is another HELLO (SPEC N-11, N-14).",
        ),
        State::WaitsForReceiver | State::WaitsForSender if lane.control.breach != 0 => notes.note(
            format!("the lane was in quarantine: {}", breach_text(lane.control.breach)),
            "A new life of the sender, or another attachment, is about to end the quarantine (SPEC N-14).",
        ),
        State::Quarantined => notes.broken(
            format!("the lane is in quarantine: {}", breach_text(lane.control.breach)),
            "No message of this life of the sender is taken. Its next life, or another attachment, ends the quarantine (SPEC N-14).",
        ),
        State::Disowned => notes.broken(
            "the receiver does not know this life of the sender any more",
            "The sender's sends are `Broken` until it attaches again. If the receiver has not looked at this HELLO yet, it answers it as a Begin (SPEC N-9).",
        ),
        State::WaitsForReceiver => notes.suspect(
            "the sender waits for an answer to its hello",
            "The sender's sends are `Unanswered` until the receiver looks. The receiver is down, or does not know this instance, or was rung just now (SPEC N-9).",
        ),
        State::WaitsForSender => notes.suspect(
            "the receiver has answered, and the sender does not go on",
            "The sender's sends are `Unanswered` until it takes the next step, at its next send or tick (SPEC N-9).",
        ),
        State::Open | State::NeverAnswered | State::Silent => {}
    }
    let answer = lane.control.answer_word;
    // ANSWER is 1 while the receiver hands out the messages of a life that ended before it was answered (N-9).
    if lane.control.answer.is_none() && answer > 1 {
        notes.broken(
            format!("ANSWER is {answer:#x}, which is no hello"),
            "No sender takes it as an answer to its own hello. The sender's sends are `Unanswered` or `Broken` (SPEC N-9).",
        );
    }
    if lane.control.breach != 0 && Breach::from_word(lane.control.breach).is_none() {
        notes.broken(
            format!("BREACH is {:#x}, which is not a known reason", lane.control.breach),
            "The lane is in quarantine all the same (SPEC N-14).",
        );
    }
}

fn lines(lane: &Lane, receiver: &Receiver, notes: &mut Notes<'_>) {
    if let Some(breach) = lane.lines.breach_to_come {
        notes.broken(
            format!("at position {} is {}", lane.lines.end, breach_text(breach)),
            "The receiver puts the lane into quarantine when it comes there. A life that has just begun disowns the sender instead (SPEC N-11, N-14).",
        );
    }
    if lane.lines.behind_gap != 0 {
        notes.suspect(
            format!("{} messages come after position {}, which is not published", lane.lines.behind_gap, lane.next.unwrap_or(0) + lane.lines.unread_lines),
            "A send is under way. If this lasts, the sending CPU died or was stopped in it: the messages are handed out when the sender's next life begins (SPEC N-8).",
        );
    }
    if lane.lines.unread != 0 && (receiver.life.is_none() || receiver.over) {
        notes.note(
            format!("{} messages wait for the receiver's next life", lane.lines.unread),
            "No message is lost (SPEC N-11).",
        );
    }
}

fn history(lane: &Lane, notes: &mut Notes<'_>) {
    let control = &lane.control;
    if control.doubts != 0 {
        let numbers: Vec<String> = control.in_doubt.iter().map(u64::to_string).collect();
        notes.note(
            format!("{} messages were ever in doubt; the last: {}", control.doubts, numbers.join(", ")),
            "A life of the receiver ended while a handler of each had the message: perhaps it was handled. The sender is told in its tick (SPEC N-11).",
        );
    }
    if control.discard_to > control.discard_from {
        notes.note(
            format!(
                "messages with numbers above {} and up to {} were discarded",
                control.discard_from, control.discard_to
            ),
            "A new life of the receiver refused old messages. The sender is told in its tick (SPEC N-11).",
        );
    }
    if control.breaches != 0 && control.breach == 0 {
        notes.note(
            format!(
                "it was in quarantine {} times; the last reason: {}",
                control.breaches,
                breach_text(control.last_breach)
            ),
            "The quarantine is over. These words are only statistics (SPEC N-16).",
        );
    }
}

fn words(lane: &Lane, receiver: &Receiver, notes: &mut Notes<'_>) {
    let header = &lane.header;
    let host = lane.instance == u32::from(InstanceId::HOST.get());
    if header.stop != 0 && !host {
        notes.broken(
            format!("STOP is {} in the lane of an instance that is not the host", header.stop),
            "The receiver ignores it (SPEC N-15).",
        );
    } else if header.stop != 0 && receiver.life.map(u64::from) == Some(header.stop) {
        notes.note(
            format!("the host tells life {} of the receiver to stop", header.stop),
            "The receiver stops at its next interrupt or tick (SPEC N-15).",
        );
    }
    match header.attached {
        None if header.attached_word != 0 => notes.broken(
            format!("ATTACHED is {:#x}, which is no life", header.attached_word),
            "The sender counts as attached: the host does not reuse the region (SPEC N-17).",
        ),
        None if header.hello_word != 0 => notes.note(
            "the sender is not attached",
            "It has detached, or the region was made again while it was attached. What it published is handed out all the same (SPEC N-17).",
        ),
        Some(life) if header.hello.is_some_and(|hello| hello.incarnation != life) => notes.suspect(
            format!("ATTACHED names life {life}, HELLO another"),
            "A life of the sender begins just now, or a life ended between its two stores (SPEC N-17).",
        ),
        _ => {}
    }
    if header.want >= MAX_POSITION || lane.lines.end >= MAX_POSITION {
        notes.broken("a position is larger than any honest kernel reaches", "It is not used (SPEC N-11).");
    }
}

/// Adds a finding if a sender should have rung.
pub(super) fn doorbell(lanes: &[Lane], receiver: &Receiver, notes: &mut Notes<'_>) {
    let unread: u64 = lanes.iter().filter(|lane| !lane.torn).map(|lane| lane.lines.unread).sum();
    if receiver.armed && unread != 0 && receiver.life.is_some() && !receiver.over {
        notes.suspect(
            format!("the receiver sleeps until it is rung, and {unread} messages are there"),
            "A doorbell is under way, or messages were posted and not flushed. If this lasts, a doorbell was lost: a tick or poll of the receiver finds the messages (SPEC N-10).",
        );
    } else if !receiver.armed && unread != 0 && receiver.life.is_some() && !receiver.over {
        notes.note(
            format!("{unread} messages are there, and no sender rings for more, because ARMED is 0"),
            "The receiver drains or polls, and finds them. If it takes no message for long (--watch), its drain was given up: its next tick or poll finds them (SPEC N-8, N-10).",
        );
    }
}

/// Adds a finding if LIFE is 0: there was no life yet, or LIFE was overwritten.
pub(super) fn lived(lanes: &[Lane], receiver: &Receiver, notes: &mut Notes<'_>) {
    if receiver.life_word != 0 {
        return;
    }
    match lanes.iter().find(|lane| lane.control.answer.is_some()) {
        None => notes.note(
            "its receiver has not begun a life",
            "Messages that are sent wait. No sender rings: the first life looks without a doorbell (SPEC N-12).",
        ),
        Some(lane) => notes.broken(
            format!("there is no life in LIFE, and lane {} was answered", lane.instance),
            "LIFE was overwritten. No kernel rings this receiver any more: messages wait for its next tick or poll. Its next life writes LIFE again, and does not know which message was in doubt (SPEC N-11, N-12).",
        ),
    }
}
