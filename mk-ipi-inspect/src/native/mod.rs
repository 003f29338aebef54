// SPDX-License-Identifier: MIT OR Apache-2.0
//! A native region (SPEC chapter N). The modules from bottom to top: `lines`, `lane`, `judge`, and this one.

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

/// What the stamp says (SPEC N-1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shape {
    /// Lanes: instances `0..lanes` can send here.
    pub lanes: u32,
    /// Lines of each lane.
    pub lines: u32,
    /// Most bytes of a message.
    pub max_len: u32,
    /// Bytes of the region.
    pub total_size: u64,
}

/// The receiver's words about itself (SPEC N-4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Receiver {
    /// Its incarnation; `None` before its first life, or if LIFE is not valid.
    pub life: Option<u32>,
    /// LIFE as it is.
    pub life_word: u64,
    /// True if it has said goodbye.
    pub over: bool,
    /// Its heartbeat.
    pub heartbeat: u64,
    /// True if it wants to be rung.
    pub armed: bool,
    /// The CPU and the vector at which it wants to be rung. `None` means those in the directory.
    pub bell: Option<(u64, u8)>,
}

/// A region, explained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Region {
    /// Its physical address.
    pub at: u64,
    /// What the stamp says; `None` if it is refused.
    pub shape: Option<Shape>,
    /// Its receiver.
    pub receiver: Option<Receiver>,
    /// The lanes that were used.
    pub lanes: Vec<Lane>,
    /// How many other lanes there are, which were never used.
    pub unused_lanes: usize,
    /// What was found.
    pub findings: Vec<Finding>,
}

/// True if a page that begins with this word can be the first page of a native region.
pub const fn is_magic(word: u64) -> bool {
    word == MAGIC
}

/// Explains the region at `at`. `len` is its length in the directory, if that is known. For each lane at most `messages` unread
/// messages are listed.
///
/// # Errors
///
/// If a part of it is not in the file.
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

fn refused(mut notes: Notes<'_>, error: StampError) {
    let what = match error {
        StampError::Mkipi0nn { number, version } => {
            format!("the stamp of MKIPI{number:03}, version {version}")
        }
        StampError::NoStamp { found, known } => {
            format!(
                "no stamp: the first eight bytes are {found:#018x}; by its size it could be: {}",
                names(known)
            )
        }
        StampError::Version(v) => format!("a stamp of version {}.{}", v.major, v.minor),
        StampError::Geometry { lanes, lines, max_len } => {
            format!("a stamp with {lanes} lanes of {lines} lines for messages of {max_len} bytes")
        }
        StampError::Size(total) => {
            format!("a stamp whose total of {total} bytes does not follow from its numbers")
        }
        StampError::TooSmall(needed) => format!("{needed} bytes are needed, but there are fewer"),
    };
    notes.broken(what, "No kernel can attach this region: no message is sent or received here (SPEC N-1).");
}

fn names(known: mk_ipi_abi::native::KnownLayouts) -> String {
    let names: Vec<String> = known.iter_names().map(|(name, _)| name.to_lowercase()).collect();
    if names.is_empty() {
        return "no known layout".into();
    }
    names.join(", ")
}

fn receiver_of(words: &[u64], notes: &mut Notes<'_>) -> Receiver {
    let word = |at: usize| words.get(at).copied().unwrap_or(0);
    let (life_word, bell_word, armed) = (word(receiver::LIFE), word(receiver::BELL), word(receiver::ARMED));
    let life = Life::from_word(life_word);
    match life {
        // `judge::lived` looks whether there was a life.
        None if life_word == 0 => {}
        None => notes.broken(
            format!("LIFE is {life_word:#x}, which is no life"),
            "Kernels ring it all the same. They cannot see its restart or goodbye, only its HEARTBEAT. Its next life writes LIFE again (SPEC N-4, N-12).",
        ),
        Some(life) if life.over => notes.note(
            format!("life {} of the receiver has said goodbye", life.incarnation.get()),
            "Messages that are unread, and those that are sent meanwhile, wait for its next life (SPEC N-11).",
        ),
        Some(_) => {}
    }
    if armed > 1 {
        notes.broken(
            format!("ARMED is {armed:#x}, neither 0 nor 1"),
            "Senders with mk-ipi ring it, but other implementations need not (SPEC N-4).",
        );
    }
    let bell = Bell::from_word(bell_word);
    if bell_word != 0 && bell.is_none() {
        notes.broken(
            format!("BELL is {bell_word:#x}, which is no doorbell"),
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
