// SPDX-License-Identifier: MIT OR Apache-2.0
//! The messages by which a host gives CPUs to a running kernel, and takes them back (SPEC chapter M).

use crate::{Errno, Incarnation, MessageType, PhysCpuId};

/// The type of these messages (SPEC M-1).
pub const CPU_MOVE_TYPE: MessageType = MessageType(0xffff_0001);

/// What a message about a CPU says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuMoveKind {
    /// The host asks: stop using the CPU.
    GiveUp,
    /// The host asks: use the CPU, which the directory lists as yours.
    Use,
    /// The kernel answers: done.
    Done,
    /// The kernel answers: not done, with the reason.
    Refused(Errno),
}

/// A request of the host, or the answer to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuMove {
    /// What the message says.
    pub kind: CpuMoveKind,
    /// The number of the request, which the host chooses. An answer repeats it.
    pub request: u32,
    /// The CPU.
    pub cpu: PhysCpuId,
    /// The life that is asked, or the life that answers. A kernel ignores a request to a former life.
    pub life: Incarnation,
}

/// Why a payload is not a valid message about a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuMoveError {
    /// The length of the payload is not [`CpuMove::LEN`] bytes. This is its length.
    WrongSize(usize),
    /// The kind is unknown. This is the kind found.
    WrongKind(u32),
    /// The error number is above 4,095, or a request has an error number. This is the error number found.
    WrongErrno(u32),
    /// The incarnation is 0, which is not valid.
    NoLife,
}

impl core::fmt::Display for CpuMoveError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::WrongSize(len) => write!(f, "a message about a CPU has {} bytes, not {len}", CpuMove::LEN),
            Self::WrongKind(kind) => write!(f, "messages about a CPU have no kind {kind}"),
            Self::WrongErrno(errno) => {
                write!(f, "the error number {errno} is not allowed in this kind of message about a CPU")
            }
            Self::NoLife => f.write_str("a message about a CPU names the incarnation 0"),
        }
    }
}

impl core::error::Error for CpuMoveError {}

const GIVE_UP: u32 = 1;
const USE: u32 = 2;
const ANSWER: u32 = 3;
/// Linux's largest error number.
const MAX_ERRNO: u32 = 4095;

impl CpuMove {
    /// Bytes of the payload (SPEC M-1).
    pub const LEN: usize = 24;

    /// The payload: `kind`, request number, physical CPU id, error number, incarnation; all little endian.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let (kind, errno) = match self.kind {
            CpuMoveKind::GiveUp => (GIVE_UP, 0),
            CpuMoveKind::Use => (USE, 0),
            CpuMoveKind::Done => (ANSWER, 0),
            CpuMoveKind::Refused(errno) => (ANSWER, errno.0.unsigned_abs()),
        };
        let words = [
            u64::from(kind) | u64::from(self.request) << 32,
            self.cpu.0,
            u64::from(errno) | u64::from(self.life.get()) << 32,
        ];
        let mut bytes = [0; Self::LEN];
        let all = words.iter().flat_map(|word| word.to_le_bytes());
        bytes.iter_mut().zip(all).for_each(|(to, byte)| *to = byte);
        bytes
    }

    /// Reads a payload.
    pub fn decode(payload: &[u8]) -> Result<Self, CpuMoveError> {
        let bytes: &[u8; Self::LEN] =
            payload.try_into().map_err(|_| CpuMoveError::WrongSize(payload.len()))?;
        let word = |at: usize| {
            let eight = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
            eight.map_or(0, |eight| u64::from_le_bytes(*eight))
        };
        let half = |word: u64| u32::try_from(word & u64::from(u32::MAX)).unwrap_or(0);
        let (kind, errno) = (half(word(0)), half(word(16)));
        let kind = match (kind, errno) {
            (GIVE_UP, 0) => CpuMoveKind::GiveUp,
            (USE, 0) => CpuMoveKind::Use,
            (ANSWER, 0) => CpuMoveKind::Done,
            (ANSWER, 1..=MAX_ERRNO) => CpuMoveKind::Refused(Errno(errno as i32)),
            (GIVE_UP | USE | ANSWER, _) => return Err(CpuMoveError::WrongErrno(errno)),
            _ => return Err(CpuMoveError::WrongKind(kind)),
        };
        let life = Incarnation::new(half(word(16) >> 32)).ok_or(CpuMoveError::NoLife)?;
        Ok(Self { kind, request: half(word(0) >> 32), cpu: PhysCpuId(word(8)), life })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn message(kind: CpuMoveKind) -> CpuMove {
        let life = Incarnation::FIRST.next();
        CpuMove { kind, request: 0x8765_4321, cpu: PhysCpuId(0x1_0000_00ff), life }
    }

    fn all() -> Vec<CpuMove> {
        let refused = [Errno::EBUSY, Errno(4095)].map(CpuMoveKind::Refused);
        [CpuMoveKind::GiveUp, CpuMoveKind::Use, CpuMoveKind::Done]
            .into_iter()
            .chain(refused)
            .map(message)
            .collect()
    }

    #[test]
    fn each_comes_back_as_it_went() {
        for one in all() {
            assert_eq!(CpuMove::decode(&one.encode()), Ok(one));
        }
    }

    #[test]
    fn the_payload_has_the_specs_bytes() {
        let bytes =
            CpuMove { request: 2, cpu: PhysCpuId(0x0102), ..message(CpuMoveKind::Refused(Errno(16))) }
                .encode();
        assert_eq!(bytes, [3, 0, 0, 0, 2, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 2, 0, 0, 0]);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let good = CpuMove { request: 1, ..message(CpuMoveKind::Use) }.encode();
        let with = |at: usize, value: u8| {
            let mut bytes = good;
            bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = value);
            CpuMove::decode(&bytes)
        };
        assert_eq!(CpuMove::decode(good.get(..23).unwrap_or(&[])), Err(CpuMoveError::WrongSize(23)));
        assert_eq!(CpuMove::decode(&[0; 25]), Err(CpuMoveError::WrongSize(25)));
        assert_eq!(with(0, 0), Err(CpuMoveError::WrongKind(0)));
        assert_eq!(with(1, 1), Err(CpuMoveError::WrongKind(0x102)));
        assert_eq!(with(16, 1), Err(CpuMoveError::WrongErrno(1)), "a request with an error number");
        assert_eq!(with(20, 0), Err(CpuMoveError::NoLife));
        let mut refusal = message(CpuMoveKind::Refused(Errno(16))).encode();
        refusal.iter_mut().skip(17).take(1).for_each(|byte| *byte = 0x10);
        assert_eq!(CpuMove::decode(&refusal), Err(CpuMoveError::WrongErrno(0x1010)));
    }
}
