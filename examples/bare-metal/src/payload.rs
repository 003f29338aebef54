// SPDX-License-Identifier: MIT OR Apache-2.0
//! The content of the demo's messages. It has a checksum, by which a receiver detects a torn message.
//!
//! The module in examples/linux includes this file, too. So it uses only `core`, `crc` and `mk_ipi_abi`.
//!
//! | bytes | content |
//! | --- | --- |
//! | 0..8 | sequence number, from 0 |
//! | 8..12 | id of the sending kernel |
//! | 12..16 | length of the payload, 24..=256, which depends on sequence number and sender |
//! | 16..24 | CRC-64/XZ of all the other bytes |
//! | 24.. | pseudo-random bytes, whose seed is made from sequence number and sender |

use crc::{Crc, CRC_64_XZ};

/// Length of the shortest payload.
const MIN: usize = 24;
/// Length of the longest payload, which is also the longest that RFC v2 carries.
const MAX: usize = mk_ipi_abi::rfc_v2::MK_MAX_DATA_SIZE;

static CRC: Crc<u64> = Crc::<u64>::new(&CRC_64_XZ);

/// A message of the demo.
#[derive(Clone, Copy)]
pub struct Payload {
    bytes: [u8; MAX],
    len: usize,
}

/// A generator of pseudo-random numbers: splitmix64 (Steele, Lea, Flood; OOPSLA 2014).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn noise(sequence: u64, sender: u32) -> Noise {
    Noise(sequence ^ u64::from(sender) << 48)
}

/// The CRC of all bytes of a payload except those of the CRC field.
fn checksum(bytes: &[u8]) -> u64 {
    let mut digest = CRC.digest();
    digest.update(&bytes[..16]);
    digest.update(&bytes[MIN..]);
    digest.finalize()
}

impl Payload {
    /// Message number `sequence` of kernel `sender`.
    pub fn new(sequence: u64, sender: u32) -> Self {
        let mut noise = noise(sequence, sender);
        let len = MIN + (noise.next() % (MAX - MIN + 1) as u64) as usize;
        let mut bytes = [0; MAX];
        bytes[..8].copy_from_slice(&sequence.to_le_bytes());
        bytes[8..12].copy_from_slice(&sender.to_le_bytes());
        bytes[12..16].copy_from_slice(&(len as u32).to_le_bytes());
        for chunk in bytes[MIN..len].chunks_mut(8) {
            chunk.copy_from_slice(&noise.next().to_le_bytes()[..chunk.len()]);
        }
        let crc = checksum(&bytes[..len]);
        bytes[16..24].copy_from_slice(&crc.to_le_bytes());
        Self { bytes, len }
    }

    /// Changes a byte after the checksum was computed, so that the checksum is wrong.
    #[allow(dead_code, reason = "only kernels that can have a fault use it")]
    pub fn spoil(&mut self) {
        self.bytes[0] ^= 1;
    }

    /// The bytes to send.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Checks length and checksum of a payload. Returns its sequence number and sender; `None` if the payload is torn.
pub fn check(bytes: &[u8]) -> Option<(u64, u32)> {
    let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let long = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let (sequence, sender, len, crc) = (long(0)?, word(8)?, word(12)?, long(16)?);
    (len as usize == bytes.len() && crc == checksum(bytes)).then_some((sequence, sender))
}
