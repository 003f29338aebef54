// SPDX-License-Identifier: MIT OR Apache-2.0
//! A native region (SPEC chapter N). Each module uses only those that come before it in this list: `lines`, `lane`, `judge`, this
//! one. The only exception: `judge` uses the type [`Receiver`] of this module.

mod judge;
mod lane;
mod lines;

pub use lane::{Control, Header, Lane, Phase, State};
pub use lines::{Lines, Message};

use crate::finding::{Finding, Notes};
use crate::memory::{Memory, ReadError, PAGE};
use lane::Snapshot;
use mk_ipi_abi::native::{
    receiver, Bell, Geometry, Life, Stamp, StampError, MAGIC, MKIPI0NN_AT, STAMP_WORDS,
};
use serde::Serialize;

/// The numbers in the stamp (SPEC N-1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shape {
    /// Number of lanes. Instances 0 to `lanes` - 1 can send here.
    pub lanes: u32,
    /// Number of lines of each lane.
    pub lines: u32,
    /// The largest number of bytes of a message.
    pub max_len: u32,
    /// Size of the region in bytes.
    pub total_size: u64,
}

/// The receiver's words that do not belong to a lane (SPEC N-4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Receiver {
    /// The incarnation in LIFE. `None` if LIFE is 0 or not valid.
    pub life: Option<u32>,
    /// The word LIFE.
    pub life_word: u64,
    /// True if the receiver has said goodbye.
    pub over: bool,
    /// The word HEARTBEAT.
    pub heartbeat: u64,
    /// True if the receiver wants to be rung: ARMED is not 0.
    pub armed: bool,
    /// The CPU and the vector in BELL, at which the receiver wants to be rung. `None` if BELL is 0 or not valid: the receiver is
    /// then rung at the doorbell in the directory.
    pub bell: Option<(u64, u8)>,
}

/// What was read from a native region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Region {
    /// The physical address of the region.
    pub at: u64,
    /// The numbers in the stamp. `None` if the stamp is not valid.
    pub shape: Option<Shape>,
    /// The receiver's words that do not belong to a lane. `None` if the stamp is not valid.
    pub receiver: Option<Receiver>,
    /// The lanes that were used.
    pub lanes: Vec<Lane>,
    /// Number of lanes that were never used.
    pub unused_lanes: usize,
    /// What is wrong or remarkable in this region.
    pub findings: Vec<Finding>,
}

/// True if a page that begins with this word can be the first page of a native region.
pub const fn is_magic(word: u64) -> bool {
    word == MAGIC
}

/// Reads and checks the native region at address `at`. `len` is the size of the region in the directory, if there is a directory.
/// For each lane at most `messages` unread messages are listed.
///
/// # Errors
///
/// If a part of the region is not in the file.
pub fn region(memory: &Memory, at: u64, len: Option<u64>, messages: usize) -> Result<Region, ReadError> {
    let available = memory.available(at).min(len.unwrap_or(u64::MAX)) & !7;
    let mut region =
        Region { at, shape: None, receiver: None, lanes: vec![], unused_lanes: 0, findings: vec![] };
    let place = format!("region {at:#x}");
    let geometry = match stamp(memory, at, available)? {
        Ok(geometry) => geometry,
        Err(error) => {
            refused(Notes::of(&place, &mut region.findings), error);
            return Ok(region);
        }
    };
    region.shape = Some(Shape {
        lanes: geometry.lanes(),
        lines: geometry.lines(),
        max_len: geometry.max_len(),
        total_size: geometry.total_size(),
    });
    let words = memory.words(at, receiver::CONTROL)?;
    let receiver = receiver_of(&words, &mut Notes::of(&place, &mut region.findings));
    for number in 0..geometry.lanes() {
        let snapshot = Snapshot::take(memory, at, geometry, number)?;
        if snapshot.is_unused() {
            region.unused_lanes += 1;
            continue;
        }
        let lane = Lane::of(&snapshot, geometry, number, messages);
        let mut notes = Notes::of(format!("{place}, lane {number}"), &mut region.findings);
        judge::lane(&lane, geometry, &receiver, &mut notes);
        region.lanes.push(lane);
    }
    judge::lived(&region.lanes, &receiver, &mut Notes::of(&place, &mut region.findings));
    judge::doorbell(&region.lanes, &receiver, &mut Notes::of(&place, &mut region.findings));
    region.receiver = Some(receiver);
    Ok(region)
}

/// Reads and checks the stamp, as a kernel does before it attaches the region.
fn stamp(memory: &Memory, at: u64, available: u64) -> Result<Result<Geometry, StampError>, ReadError> {
    if available < PAGE {
        return Ok(Err(StampError::TooSmall(PAGE)));
    }
    let words: [u64; STAMP_WORDS] = memory.words(at, STAMP_WORDS)?.try_into().unwrap_or_default();
    let other =
        if available >= MKIPI0NN_AT + 16 { memory.words(at + MKIPI0NN_AT, 2)?.try_into().ok() } else { None };
    let stamp: Stamp = zerocopy::transmute!(words);
    Ok(stamp.check(available, other))
}

/// Adds the finding that the stamp is not valid.
fn refused(mut notes: Notes<'_>, error: StampError) {
    let what = match error {
        StampError::Mkipi0nn { number, version } => {
            format!("the region has another layout, MKIPI{number:03} version {version}")
        }
        StampError::NoStamp { found, known } => {
            format!(
                "no stamp: the first eight bytes are {found:#018x}; layouts with regions of this size: {}",
                names(known)
            )
        }
        StampError::Version(v) => {
            format!("the stamp has version {}.{}, which is not supported", v.major, v.minor)
        }
        StampError::Geometry { lanes, lines, max_len } => {
            format!("the stamp has numbers out of bounds: {lanes} lanes of {lines} lines for messages of {max_len} bytes")
        }
        StampError::Size(total) => {
            format!("the total size in the stamp, {total} bytes, does not follow from its other numbers")
        }
        StampError::TooSmall(needed) => {
            format!("the region needs {needed} bytes, and has fewer, or the file contains fewer")
        }
    };
    notes.broken(what, "No kernel can attach this region: no message is sent or received here (SPEC N-1).");
}

/// The names of layouts, in one line.
fn names(known: mk_ipi_abi::native::KnownLayouts) -> String {
    let names: Vec<String> = known.iter_names().map(|(name, _)| name.to_lowercase()).collect();
    if names.is_empty() {
        return "no known layout".into();
    }
    names.join(", ")
}

/// Reads the receiver's words that do not belong to a lane, and adds findings about them.
fn receiver_of(words: &[u64], notes: &mut Notes<'_>) -> Receiver {
    let word = |at: usize| words.get(at).copied().unwrap_or(0);
    let (life_word, bell_word, armed) = (word(receiver::LIFE), word(receiver::BELL), word(receiver::ARMED));
    let life = Life::from_word(life_word);
    match life {
        // `judge::lived` says what this means.
        None if life_word == 0 => {}
        None => notes.broken(
            format!("LIFE is {life_word:#x}, which does not name a life"),
            "Kernels ring the receiver all the same. They can see only its HEARTBEAT, not its restart or goodbye. Its next life writes LIFE again (SPEC N-4, N-12).",
        ),
        Some(life) if life.over => notes.note(
            format!("life {} of the receiver has said goodbye", life.incarnation.get()),
            "Messages that are unread, and messages that are sent now, wait for its next life (SPEC N-11).",
        ),
        Some(_) => {}
    }
    if armed > 1 {
        notes.broken(
            format!("ARMED is {armed:#x}, neither 0 nor 1"),
            "Senders that use mk-ipi ring the receiver. Other implementations need not ring it (SPEC N-4).",
        );
    }
    let bell = Bell::from_word(bell_word);
    if bell_word != 0 && bell.is_none() {
        notes.broken(
            format!("BELL is {bell_word:#x}, which is not a valid doorbell"),
            "The receiver is rung at the doorbell in the directory (SPEC N-12).",
        );
    }
    Receiver {
        life: life.map(|life| life.incarnation.get()),
        life_word,
        over: life.is_some_and(|life| life.over),
        heartbeat: word(receiver::HEARTBEAT),
        armed: armed != 0,
        bell: bell.map(|bell| (bell.cpu.0, bell.vector.get())),
    }
}
