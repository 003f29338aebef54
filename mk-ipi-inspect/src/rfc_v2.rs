// SPDX-License-Identifier: MIT OR Apache-2.0
//! A region of slots (SPEC chapters L and X).

use crate::finding::{Finding, Notes};
use crate::memory::{Memory, ReadError};
use mk_ipi_abi::rfc_v2::{MkIpiData, NoMessage, SLOT_SIZE, SLOT_WORDS};
use serde::Serialize;

/// How many bytes of a payload are shown.
const SHOWN: usize = 16;
/// The largest number of slots of a region that are read.
const MAX_SLOTS: u64 = 1 << 16;

/// What is in a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Content {
    /// A message. In an exclusive slot it is unread. In other slots the receiver may have taken it already: the slot does not
    /// show that.
    Message {
        /// The id of the sending CPU, as the sender wrote it.
        sender_cpu: i32,
        /// The type of the message.
        #[serde(rename = "type")]
        msg_type: u32,
        /// Number of bytes of the payload.
        len: u64,
        /// The payload's first bytes, in hexadecimal.
        begins: String,
    },
    /// A claim: a sender is filling the slot (SPEC X-2).
    Claimed {
        /// The instance that claimed it.
        instance: u8,
        /// The life of the instance that claimed it.
        incarnation: u32,
    },
    /// A size that is neither a valid length nor a claim.
    BadSize {
        /// The value of `data_size`.
        size: u64,
    },
}

/// A slot that is not empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Slot {
    /// The physical id of the CPU that reads it.
    pub cpu: u64,
    /// What is in it.
    pub content: Content,
}

/// What was read from a region of slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Region {
    /// The physical address of the region.
    pub at: u64,
    /// Number of slots.
    pub slots: u64,
    /// The slots that are not empty.
    pub used: Vec<Slot>,
    /// What is wrong or remarkable in this region.
    pub findings: Vec<Finding>,
}

/// Reads and checks the region of `len` bytes at address `at`.
///
/// # Errors
///
/// If a part of the region is not in the file.
pub fn region(memory: &Memory, at: u64, len: u64) -> Result<Region, ReadError> {
    let slots = len / SLOT_SIZE as u64;
    let mut region = Region { at, slots, used: vec![], findings: vec![] };
    for cpu in 0..slots.min(MAX_SLOTS) {
        let words = memory.words(at + cpu * SLOT_SIZE as u64, SLOT_WORDS)?;
        let words: [u64; SLOT_WORDS] = words.try_into().unwrap_or([0; SLOT_WORDS]);
        let slot: MkIpiData = zerocopy::transmute!(words);
        let mut notes = Notes::of(format!("region {at:#x}, slot {cpu}"), &mut region.findings);
        let content = match slot.check() {
            Ok(payload) => Content::Message {
                sender_cpu: slot.sender_cpu,
                msg_type: slot.msg_type,
                len: slot.data_size,
                begins: payload.iter().take(SHOWN).map(|byte| format!("{byte:02x}")).collect(),
            },
            Err(NoMessage::Empty) => continue,
            Err(NoMessage::Claimed(claim)) => {
                let (instance, incarnation) = (claim.instance.get(), claim.incarnation.get());
                notes.suspect(
                    format!("life {incarnation} of instance {instance} is filling the slot"),
                    "Other senders get `Busy`. If this lasts, that life ended while it filled the slot: the host must free the slot (SPEC X-5).",
                );
                Content::Claimed { instance, incarnation }
            }
            Err(NoMessage::BadSize(size)) => {
                notes.broken(
                    format!("data_size is {size:#x}, which is neither a valid length nor a claim"),
                    "The receiver takes no message from this slot. If the slot is exclusive, the receiver sets the size to 0 when it is rung (SPEC R-3, X-4).",
                );
                Content::BadSize { size }
            }
        };
        region.used.push(Slot { cpu, content });
    }
    Ok(region)
}
