// SPDX-License-Identifier: MIT OR Apache-2.0
//! Adds findings about a lane: what is wrong or remarkable, and what this means for the kernels.

use super::lane::{Lane, State, MAX_POSITION};
use super::Receiver;
use crate::finding::Notes;
use mk_ipi_abi::native::{Breach, Geometry};
use mk_ipi_abi::InstanceId;

/// The reason why a lane is in quarantine, in words.
pub(crate) fn breach_text(word: u64) -> &'static str {
    match Breach::from_word(word) {
        Some(Breach::Tag) => "a line with a wrong tag",
        Some(Breach::Length) => "a message that is longer than the region allows",
        Some(Breach::Hello) => "an invalid hello",
        None => "an unknown reason",
    }
}

/// Adds all findings about a lane.
pub(super) fn lane(lane: &Lane, geometry: Geometry, receiver: &Receiver, notes: &mut Notes<'_>) {
    if lane.torn {
        return notes.note(
            "the lane changed each time while it was read",
            "The words that were read are not all of the same moment, so they are not compared with each other.",
        );
    }
    positions(lane, geometry, notes);
    life(lane, notes);
    lines(lane, receiver, notes);
    history(lane, notes);
    words(lane, receiver, notes);
}

/// Adds findings about the positions in the words of the lane.
fn positions(lane: &Lane, geometry: Geometry, notes: &mut Notes<'_>) {
    let control = &lane.control;
    let lines = u64::from(geometry.lines());
    if lane.next.is_none() {
        notes.broken(
            format!("CREDIT {} and HANDED {} cannot both be right", control.credit, control.handed),
            "The receiver's next life does not use them. It disowns the sender, which must then attach again (SPEC N-11).",
        );
    } else if control.handed < control.credit {
        notes.broken(
            format!("HANDED {} is below CREDIT {}", control.handed, control.credit),
            "The receiver's next life uses the larger one. A correct receiver leaves the two words like this only for a moment (SPEC N-10).",
        );
    } else if control.handed > control.credit {
        notes.note(
            format!("message {} is being handled", control.handed),
            "If the receiver dies now, this message is in doubt: it may have been handled or not (SPEC N-11).",
        );
    }
    let sends = matches!(lane.state, State::Open);
    if sends && control.base > control.credit.max(control.handed) {
        notes.broken(
            format!("BASE {} is larger than CREDIT and HANDED", control.base),
            "The present life of the sender cannot have begun at BASE (SPEC N-9).",
        );
    }
    if lane.header.want > lane.lines.end.saturating_add(lines) && lane.header.want >= control.credit {
        notes.suspect(
            format!("WANT {} is larger than any CREDIT for which the sender can wait", lane.header.want),
            "The sender waits for space that it will not get, or WANT was written by a former life of the sender (SPEC N-8).",
        );
    } else if lane.header.want > control.credit {
        notes.note(
            format!(
                "the sender waits for space: CREDIT is {}, and must become {}",
                control.credit, lane.header.want
            ),
            "The receiver rings the sender when CREDIT has this value (SPEC N-10).",
        );
    }
}

/// Adds findings about the state of the link, and about ANSWER and BREACH.
fn life(lane: &Lane, notes: &mut Notes<'_>) {
    let hello = lane.header.hello_word;
    match lane.state {
        State::Silent if lane.control.answer_word != 0 => notes.broken(
            "HELLO is 0, but ANSWER is not",
            "The sender has removed its hello, which is no breach. The receiver continues with the life that it answered (SPEC N-14).",
        ),
        State::Nonsense => notes.broken(
            format!("HELLO is {hello:#x}, which is not a valid hello"),
            "The receiver puts the lane into quarantine when it looks at the lane. There is no quarantine if the receiver's life has just begun, or if the receiver has already disowned the sender. Then the receiver takes no messages until there is another HELLO (SPEC N-11, N-14).",
        ),
        State::WaitsForReceiver | State::WaitsForSender if lane.control.breach != 0 => notes.note(
            format!("the lane is still in quarantine: {}", breach_text(lane.control.breach)),
            "A new life of the sender, or the same life that attaches again, is about to end the quarantine (SPEC N-14).",
        ),
        State::Quarantined => notes.broken(
            format!("the lane is in quarantine: {}", breach_text(lane.control.breach)),
            "The receiver takes no message of this life of the sender. The quarantine ends when the sender's next life attaches, or when this life attaches again (SPEC N-14).",
        ),
        State::Disowned => notes.broken(
            "the receiver does not accept this life of the sender",
            "The sender's sends are `Broken` until it attaches again. If the receiver has not looked at this HELLO yet, it answers the HELLO as a Begin (SPEC N-9).",
        ),
        State::WaitsForReceiver => notes.suspect(
            "the sender waits for an answer to its hello",
            "The sender's sends are `Unanswered` until the receiver looks at the lane. The receiver is down, or has not attached this instance, or was rung just now (SPEC N-9).",
        ),
        State::WaitsForSender => notes.suspect(
            "the receiver has answered, and the sender has not continued",
            "The sender's sends are `Unanswered` until it takes the next step, at its next send or tick (SPEC N-9).",
        ),
        State::Open | State::NeverAnswered | State::Silent => {}
    }
    let answer = lane.control.answer_word;
    // ANSWER is 1 while the receiver hands out the messages of a life that ended before it was answered (N-9).
    if lane.control.answer.is_none() && answer > 1 {
        notes.broken(
            format!("ANSWER is {answer:#x}, which is not a valid hello"),
            "The sender does not accept it as the answer to its hello. Its sends are `Unanswered` or `Broken` (SPEC N-9).",
        );
    }
    if lane.control.breach != 0 && Breach::from_word(lane.control.breach).is_none() {
        notes.broken(
            format!("BREACH is {:#x}, which is not a known reason", lane.control.breach),
            "The lane is in quarantine all the same (SPEC N-14).",
        );
    }
}

/// Adds findings about the lines from the receiver's next position on.
fn lines(lane: &Lane, receiver: &Receiver, notes: &mut Notes<'_>) {
    if let Some(breach) = lane.lines.breach_to_come {
        notes.broken(
            format!("at position {} there is {}", lane.lines.end, breach_text(breach)),
            "The receiver puts the lane into quarantine when it comes to this position. If its life has just begun, it disowns the sender instead (SPEC N-11, N-14).",
        );
    }
    if lane.lines.behind_gap != 0 {
        notes.suspect(
            format!("{} messages come after position {}, where no message is published", lane.lines.behind_gap, lane.next.unwrap_or(0) + lane.lines.unread_lines),
            "A send is not finished. If this lasts, the sending CPU died or was stopped during the send: the messages are handed out when the sender's next life begins (SPEC N-8).",
        );
    }
    if lane.lines.unread != 0 && (receiver.life.is_none() || receiver.over) {
        notes.note(
            format!("{} messages wait for the receiver's next life", lane.lines.unread),
            "No message is lost (SPEC N-11).",
        );
    }
}

/// Adds findings about messages in doubt, discarded messages and former quarantines.
fn history(lane: &Lane, notes: &mut Notes<'_>) {
    let control = &lane.control;
    if control.doubts != 0 {
        let numbers: Vec<String> = control.in_doubt.iter().map(u64::to_string).collect();
        notes.note(
            format!("{} messages were in doubt since the region was made; the last ones: {}", control.doubts, numbers.join(", ")),
            "While each of these messages was being handled, a life of the receiver ended: the message may have been handled or not. The sender learns this in its tick (SPEC N-11).",
        );
    }
    if control.discard_to > control.discard_from {
        notes.note(
            format!(
                "messages with numbers above {} and up to {} were discarded",
                control.discard_from, control.discard_to
            ),
            "A new life of the receiver refused old messages. The sender learns this in its tick (SPEC N-11).",
        );
    }
    if control.breaches != 0 && control.breach == 0 {
        notes.note(
            format!(
                "the lane was in quarantine {} times; the last reason: {}",
                control.breaches,
                breach_text(control.last_breach)
            ),
            "The quarantine is over. These words are only statistics (SPEC N-16).",
        );
    }
}

/// Adds findings about the other words of the sender.
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
            format!("ATTACHED is {:#x}, which does not name a life", header.attached_word),
            "The sender counts as attached: the host does not reuse the region (SPEC N-17).",
        ),
        None if header.hello_word != 0 => notes.note(
            "the sender is not attached",
            "It has detached, or the region was made again while it was attached. The messages that it has published are handed out all the same (SPEC N-17).",
        ),
        Some(life) if header.hello.is_some_and(|hello| hello.incarnation != life) => notes.suspect(
            format!("ATTACHED names life {life}, and HELLO names another life"),
            "A life of the sender is just beginning, or a life ended between its stores to the two words (SPEC N-17).",
        ),
        _ => {}
    }
    if header.want >= MAX_POSITION || lane.lines.end >= MAX_POSITION {
        notes.broken(
            "a position is 2^61 or more, which no correct kernel reaches",
            "This position is not used (SPEC N-11).",
        );
    }
}

/// Adds a finding if there are unread messages, and the receiver is alive.
pub(super) fn doorbell(lanes: &[Lane], receiver: &Receiver, notes: &mut Notes<'_>) {
    let unread: u64 = lanes.iter().filter(|lane| !lane.torn).map(|lane| lane.lines.unread).sum();
    if receiver.armed && unread != 0 && receiver.life.is_some() && !receiver.over {
        notes.suspect(
            format!("the receiver sleeps until it is rung, and there are {unread} unread messages"),
            "A doorbell has not arrived yet, or messages were posted and not flushed. If this lasts, a doorbell was lost: a tick or poll of the receiver finds the messages (SPEC N-10).",
        );
    } else if !receiver.armed && unread != 0 && receiver.life.is_some() && !receiver.over {
        notes.note(
            format!("there are {unread} unread messages, and no sender rings for more, because ARMED is 0"),
            "The receiver drains or polls, and finds the messages. If it takes no message for a long time (see --watch), a drain has stopped before its end: the receiver's next tick or poll finds them (SPEC N-8, N-10).",
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
            "the receiver has not begun a life",
            "Messages that are sent wait. No sender rings: the first life looks for messages without a doorbell (SPEC N-12).",
        ),
        Some(lane) => notes.broken(
            format!("LIFE is 0, but the receiver has answered lane {}", lane.instance),
            "LIFE was overwritten. No kernel rings this receiver any more: messages wait for its next tick or poll. Its next life writes LIFE again, and does not report which message was in doubt (SPEC N-11, N-12).",
        ),
    }
}
