// SPDX-License-Identifier: MIT OR Apache-2.0
//! A received message: a private copy, checked, that no peer can change any more.

use mk_ipi_abi::rfc_v2::{decode_pfn, PfnError, MK_MAX_DATA_SIZE};
use mk_ipi_abi::{InstanceId, MessageType, Pfn, PhysCpuId};
use zerocopy::{FromBytes, IntoBytes};

/// Words of the largest payload.
pub(crate) const PAYLOAD_WORDS: usize = MK_MAX_DATA_SIZE / 8;

/// A received message. Handlers get it by reference; it is theirs until the callback returns.
#[derive(Clone, Debug)]
pub struct Message {
    pub(crate) sender: Option<InstanceId>,
    pub(crate) sender_cpu: PhysCpuId,
    pub(crate) msg_type: MessageType,
    /// INVARIANT: at most `MK_MAX_DATA_SIZE`.
    pub(crate) len: usize,
    pub(crate) words: [u64; PAYLOAD_WORDS],
}

impl Message {
    pub(crate) const EMPTY: Self = Self {
        sender: None,
        sender_cpu: PhysCpuId(0),
        msg_type: MessageType(0),
        len: 0,
        words: [0; PAYLOAD_WORDS],
    };

    /// The instance that sent. On the native link the lane proves it (SPEC N-12); `None` on RFC v2, where nothing does.
    pub const fn sender(&self) -> Option<InstanceId> {
        self.sender
    }

    /// Physical id of the CPU that sent, as the sender says. On the native link it is one of that instance's; in
    /// RFC v2 nothing proves it (SPEC H-12).
    pub const fn sender_cpu(&self) -> PhysCpuId {
        self.sender_cpu
    }

    /// The type by which handlers are chosen.
    pub const fn msg_type(&self) -> MessageType {
        self.msg_type
    }

    /// The payload, at most 256 bytes; its first byte is 8-byte aligned.
    pub fn payload(&self) -> &[u8] {
        self.words.as_bytes().get(..self.len).unwrap_or(&[])
    }

    /// The payload as a `T`, if it is exactly as long as one.
    pub fn read<T: FromBytes>(&self) -> Option<T> {
        T::read_from_bytes(self.payload()).ok()
    }

    /// The PFN that this message carries (`mk_receive_pfn`; SPEC P-2).
    pub fn pfn(&self) -> Result<Pfn, PfnError> {
        decode_pfn(self.msg_type, self.payload())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mk_ipi_abi::rfc_v2::{encode_pfn, MK_PFN_IPI_TYPE};

    #[test]
    fn typed_access_wants_the_exact_length() {
        let mut m = Message { len: 8, ..Message::EMPTY };
        m.words[0] = 0x1122_3344_5566_7788;
        assert_eq!(m.read::<u64>(), Some(0x1122_3344_5566_7788));
        assert_eq!(m.read::<u32>(), None);
        assert_eq!(m.read::<[u64; 2]>(), None);
        assert_eq!(m.payload(), 0x1122_3344_5566_7788u64.to_le_bytes());
    }

    #[test]
    fn a_pfn_needs_type_and_size() {
        let mut m = Message { len: 8, msg_type: MK_PFN_IPI_TYPE, ..Message::EMPTY };
        m.words[0] = u64::from_le_bytes(encode_pfn(Pfn(9)));
        assert_eq!(m.pfn(), Ok(Pfn(9)));
        m.len = 7;
        assert_eq!(m.pfn(), Err(PfnError::WrongSize(7)));
    }
}
