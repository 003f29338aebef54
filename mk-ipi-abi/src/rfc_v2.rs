// SPDX-License-Identifier: MIT OR Apache-2.0
//! Generation "RFC v2": one slot per physical CPU of the receiver, no ring (SPEC chapter L).
//!
//! A region is `NR_CPUS` slots and nothing else. The slot's index is the physical id of the CPU that
//! receives. Writers of the region are not trusted: copy a slot once, then call [`MkIpiData::check`] on the copy.

use crate::{Errno, Incarnation, InstanceId, MessageType, Pfn, Vector};
use core::mem::{align_of, offset_of, size_of};
use static_assertions::const_assert_eq;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use crate::ids::MK_MAX_INSTANCES;

/// Largest payload of one message, in bytes (SPEC L-3).
pub const MK_MAX_DATA_SIZE: usize = 256;
/// Type of a message that carries one PFN (SPEC P-1).
pub const MK_PFN_IPI_TYPE: MessageType = MessageType(0x8000_0001);
/// The interrupt vector of the C peers on x86 (SPEC L-6).
pub const MULTIKERNEL_VECTOR: Vector = Vector::RFC_V2;
/// Bytes of one slot.
pub const SLOT_SIZE: usize = size_of::<MkIpiData>();
/// 64-bit words of one slot.
pub const SLOT_WORDS: usize = SLOT_SIZE / 8;
/// Word of a slot that holds `sender_cpu` (low half) and `type` (high half).
pub const WORD_HEADER: usize = 0;
/// Word of a slot that holds `data_size`.
pub const WORD_DATA_SIZE: usize = 1;
/// First word of a slot's payload.
pub const WORD_BUFFER: usize = 2;

/// `struct mk_ipi_data`, one slot: 272 bytes, alignment 8 (SPEC L-2).
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MkIpiData {
    /// Physical id of the sending CPU. The sender writes it, and nobody can check it.
    pub sender_cpu: i32,
    /// `type`: the message type, by which handlers are chosen.
    pub msg_type: u32,
    /// Length of the payload in bytes, `1..=256`. With any other value there is no message. Above 256 it can be a [`Claim`].
    pub data_size: u64,
    /// The payload. A sender that follows SPEC S-4 fills the rest of the buffer with 0.
    pub buffer: [u8; MK_MAX_DATA_SIZE],
}

impl core::fmt::Debug for MkIpiData {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("MkIpiData")
            .field("sender_cpu", &self.sender_cpu)
            .field("msg_type", &self.msg_type)
            .field("data_size", &self.data_size)
            .finish_non_exhaustive()
    }
}

/// `struct mk_shared_data`, a region: one slot per physical CPU id below `NR_CPUS` (SPEC L-5).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MkSharedData<const NR_CPUS: usize> {
    /// Slot `i` is read by the CPU whose physical id is `i`.
    pub cpu_data: [MkIpiData; NR_CPUS],
}

const_assert_eq!(size_of::<MkIpiData>(), 272);
const_assert_eq!(align_of::<MkIpiData>(), 8);
const_assert_eq!(offset_of!(MkIpiData, sender_cpu), 0);
const_assert_eq!(offset_of!(MkIpiData, msg_type), 4);
const_assert_eq!(offset_of!(MkIpiData, data_size), WORD_DATA_SIZE * 8);
const_assert_eq!(offset_of!(MkIpiData, buffer), WORD_BUFFER * 8);
const_assert_eq!(size_of::<MkSharedData<1>>(), 272);
const_assert_eq!(size_of::<MkSharedData<8>>(), 2_176);
const_assert_eq!(size_of::<MkSharedData<64>>(), 17_408);
const_assert_eq!(size_of::<MkSharedData<256>>(), 69_632);
const_assert_eq!(size_of::<MkSharedData<512>>(), 139_264);
const_assert_eq!(size_of::<MkSharedData<8192>>(), 2_228_224);
const_assert_eq!(align_of::<MkSharedData<1>>(), 8);
const_assert_eq!(offset_of!(MkSharedData<1>, cpu_data), 0);

/// Bytes of a region of `nr_cpus` slots: 272 x `nr_cpus` (SPEC L-5). The product cannot overflow, because `nr_cpus` has 32 bits.
pub const fn region_size(nr_cpus: u32) -> u64 {
    (nr_cpus as u64).wrapping_mul(SLOT_SIZE as u64)
}

/// Why a slot holds no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoMessage {
    /// `data_size` is 0. The slot was never used, or it was emptied, or a C peer sent 0 bytes, which is no message here.
    Empty,
    /// An mk-ipi sender is filling the slot (SPEC X-2).
    Claimed(Claim),
    /// `data_size` is above 256, and is not a claim. The sender is hostile or broken.
    BadSize(u64),
}

impl core::fmt::Display for NoMessage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Empty => f.write_str("the slot is empty"),
            Self::Claimed(claim) => write!(
                f,
                "instance {}, incarnation {}, is filling the slot",
                claim.instance.get(),
                claim.incarnation.get()
            ),
            Self::BadSize(size) => {
                write!(f, "the slot has the size {size:#x}, which is neither a length nor a claim")
            }
        }
    }
}

impl core::error::Error for NoMessage {}

impl MkIpiData {
    /// An empty slot.
    pub const EMPTY: Self = Self { sender_cpu: 0, msg_type: 0, data_size: 0, buffer: [0; MK_MAX_DATA_SIZE] };

    /// The payload of this private copy of a slot, or why there is none (SPEC R-3).
    pub fn check(&self) -> Result<&[u8], NoMessage> {
        let len = check_data_size(self.data_size)?;
        self.buffer.get(..len).ok_or(NoMessage::BadSize(self.data_size))
    }
}

/// The message length that `data_size` gives, `1..=256`, or why there is no message (SPEC R-3).
pub const fn check_data_size(data_size: u64) -> Result<usize, NoMessage> {
    match data_size {
        0 => Err(NoMessage::Empty),
        #[expect(clippy::cast_possible_truncation, reason = "at most 256")]
        1..=256 => Ok(data_size as usize),
        _ => Err(match Claim::from_data_size(data_size) {
            Some(claim) => NoMessage::Claimed(claim),
            None => NoMessage::BadSize(data_size),
        }),
    }
}

/// A sender's claim on an exclusive slot: a `data_size` above 256, which every receiver ignores (SPEC X-2).
///
/// Bits 63..48 hold `0x4d4b` ("MK"), 47..40 are 0, 39..32 the instance, 31..0 the incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The kernel that claims.
    pub instance: InstanceId,
    /// The life in which that kernel claims.
    pub incarnation: Incarnation,
}

impl Claim {
    const TAG: u64 = 0x4d4b << 48;
    const TAG_MASK: u64 = 0xffff_ff00 << 32;

    /// The claim as a `data_size`.
    pub const fn to_data_size(self) -> u64 {
        Self::TAG | ((self.instance.get() as u64) << 32) | self.incarnation.get() as u64
    }

    /// The claim in `data_size`; `None` if the value is not a claim.
    pub const fn from_data_size(data_size: u64) -> Option<Self> {
        if data_size & Self::TAG_MASK != Self::TAG {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "one byte above bit 32, and the low half")]
        let (id, life) = ((data_size >> 32) as u8, data_size as u32);
        match Incarnation::new(life) {
            Some(incarnation) => Some(Self { instance: InstanceId::new(id), incarnation }),
            None => None,
        }
    }
}

/// Why a message carries no PFN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PfnError {
    /// The message has another type. This is the type found.
    WrongType(MessageType),
    /// The length of the payload is not 8 bytes. This is its length.
    WrongSize(usize),
}

impl core::fmt::Display for PfnError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::WrongType(ty) => write!(f, "a message of type {:#x} carries no PFN", ty.0),
            Self::WrongSize(len) => write!(f, "a PFN message has 8 bytes, not {len}"),
        }
    }
}

impl core::error::Error for PfnError {}

impl PfnError {
    /// `EINVAL`, as `mk_receive_pfn` returns it (SPEC P-2).
    pub const fn errno(self) -> Errno {
        Errno::EINVAL
    }
}

/// The payload of a PFN message: the number, 8 bytes, little endian (SPEC P-1).
pub const fn encode_pfn(pfn: Pfn) -> [u8; 8] {
    pfn.0.to_le_bytes()
}

/// The PFN in a message of type `ty` and payload `payload` (SPEC P-2).
pub fn decode_pfn(ty: MessageType, payload: &[u8]) -> Result<Pfn, PfnError> {
    if ty != MK_PFN_IPI_TYPE {
        return Err(PfnError::WrongType(ty));
    }
    let bytes = payload.try_into().map_err(|_| PfnError::WrongSize(payload.len()))?;
    Ok(Pfn(u64::from_le_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_1_to_256_bytes() {
        let mut slot = MkIpiData::EMPTY;
        assert_eq!(slot.check(), Err(NoMessage::Empty));
        for size in 1..=256 {
            slot.data_size = size;
            assert_eq!(slot.check().unwrap().len() as u64, size);
        }
        for size in [257, 1 << 32, 1 << 63, u64::MAX] {
            slot.data_size = size;
            assert_eq!(slot.check(), Err(NoMessage::BadSize(size)));
        }
    }

    #[test]
    fn a_claim_is_no_message_and_names_its_owner() {
        for id in [0, 1, 255] {
            for life in [1, 2, u32::MAX] {
                let claim =
                    Claim { instance: InstanceId::new(id), incarnation: Incarnation::new(life).unwrap() };
                let size = claim.to_data_size();
                assert!(size > 256);
                assert_eq!(check_data_size(size), Err(NoMessage::Claimed(claim)));
            }
        }
        let golden = Claim { instance: InstanceId::new(7), incarnation: Incarnation::FIRST };
        assert_eq!(golden.to_data_size(), 0x4d4b_0007_0000_0001);
        // Each is almost a claim: the first has no incarnation, the second another tag, the third a bit set in 47..40.
        for size in [0x4d4b_0007_0000_0000, 0x4d4a_0007_0000_0001, 0x4d4b_0107_0000_0001] {
            assert_eq!(check_data_size(size), Err(NoMessage::BadSize(size)));
        }
    }

    #[test]
    fn golden_bytes_of_a_slot() {
        let mut slot = MkIpiData { sender_cpu: 3, msg_type: 0x8000_0001, data_size: 8, ..MkIpiData::EMPTY };
        slot.buffer[..8].copy_from_slice(&encode_pfn(Pfn(0x1122_3344_5566_7788)));
        let bytes = slot.as_bytes();
        assert_eq!(
            bytes[..24],
            [
                3, 0, 0, 0, 1, 0, 0, 0x80, 8, 0, 0, 0, 0, 0, 0, 0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22,
                0x11
            ]
        );
        assert!(bytes[24..].iter().all(|&b| b == 0));
        assert_eq!(MkIpiData::read_from_bytes(bytes).unwrap(), slot);
        assert_eq!((SLOT_SIZE, SLOT_WORDS), (272, 34));
        let shown = std::format!("{slot:?}");
        assert!(shown.contains("msg_type: 2147483649") && !shown.contains("buffer"), "{shown}");
    }

    #[test]
    fn pfn_codec_checks_type_and_size() {
        let bytes = encode_pfn(Pfn(42));
        assert_eq!(decode_pfn(MK_PFN_IPI_TYPE, &bytes), Ok(Pfn(42)));
        assert_eq!(decode_pfn(MessageType(1), &bytes), Err(PfnError::WrongType(MessageType(1))));
        for n in (0..=16).filter(|&n| n != 8) {
            assert_eq!(decode_pfn(MK_PFN_IPI_TYPE, &[0; 16][..n]), Err(PfnError::WrongSize(n)));
        }
    }

    #[test]
    fn region_sizes() {
        for (n, size) in [(0, 0), (1, 272), (8, 2_176), (8_192, 2_228_224)] {
            assert_eq!(region_size(n), size);
        }
        assert_eq!(region_size(u32::MAX), 272 * u64::from(u32::MAX));
    }
}
