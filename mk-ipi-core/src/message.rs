// SPDX-License-Identifier: MIT OR Apache-2.0
//! A received message: a checked private copy, which peers cannot change.

use mk_ipi_abi::rfc_v2::{decode_pfn, PfnError};
use mk_ipi_abi::{Incarnation, InstanceId, MessageType, Pfn, PhysCpuId};
use zerocopy::FromBytes;

/// A received message: a view of the private copy. Handlers get it by reference. The reference is valid until the handler
/// returns.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    pub(crate) origin: Option<Origin>,
    pub(crate) sender_cpu: PhysCpuId,
    pub(crate) msg_type: MessageType,
    pub(crate) payload: &'a [u8],
}

impl core::fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // The payload is not printed: bytes of a peer must not get into a log.
        f.debug_struct("Message")
            .field("origin", &self.origin)
            .field("sender_cpu", &self.sender_cpu)
            .field("msg_type", &self.msg_type)
            .field("len", &self.payload.len())
            .finish()
    }
}

/// Which life of which instance sent a message, and which life of ours received it. Only the native link knows this.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) id: InstanceId,
    pub(crate) theirs: Option<Incarnation>,
    pub(crate) ours: Incarnation,
    pub(crate) number: u64,
}

impl Message<'_> {
    /// The instance that sent the message. On the native link the lane proves it (SPEC N-12). `None` on RFC v2, where nothing
    /// proves it.
    pub fn sender(&self) -> Option<InstanceId> {
        self.origin.map(|origin| origin.id)
    }

    /// The life of the sender that sent the message, as the sender says. `None` on RFC v2, and for a life that ended before the
    /// receiver answered its hello.
    pub fn sender_incarnation(&self) -> Option<Incarnation> {
        self.origin.and_then(|origin| origin.theirs)
    }

    /// Our own life that received the message; `None` on RFC v2.
    pub fn receiver_incarnation(&self) -> Option<Incarnation> {
        self.origin.map(|origin| origin.ours)
    }

    /// The message number, as [`Endpoint::send`](crate::Endpoint::send) returned it to the sender; `None` on RFC v2.
    pub fn number(&self) -> Option<u64> {
        self.origin.map(|origin| origin.number)
    }

    /// The low 32 bits of the physical id of the sending CPU, as the sender says. Nobody can check them (SPEC N-12, H-12).
    pub const fn sender_cpu(&self) -> PhysCpuId {
        self.sender_cpu
    }

    /// The type by which handlers are chosen.
    pub const fn msg_type(&self) -> MessageType {
        self.msg_type
    }

    /// The payload. On RFC v2 it has at most 256 bytes, on the native link at most the `max_len` in the stamp of the region (SPEC
    /// N-7). Its first byte is 8-byte aligned.
    pub const fn payload(&self) -> &[u8] {
        self.payload
    }

    /// The payload as a `T`. `None` if its length is not that of a `T`.
    pub fn read<T: FromBytes>(&self) -> Option<T> {
        T::read_from_bytes(self.payload()).ok()
    }

    /// The PFN that this message carries (`mk_receive_pfn`; SPEC P-2).
    pub fn pfn(&self) -> Result<Pfn, PfnError> {
        decode_pfn(self.msg_type, self.payload())
    }
}

/// For tests: a message of the type `msg_type`.
#[cfg(test)]
pub(crate) const fn of_type(msg_type: u32, payload: &[u8]) -> Message<'_> {
    Message { origin: None, sender_cpu: PhysCpuId(0), msg_type: MessageType(msg_type), payload }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mk_ipi_abi::rfc_v2::{encode_pfn, MK_PFN_IPI_TYPE};

    #[test]
    fn typed_access_wants_the_exact_length() {
        let bytes = 0x1122_3344_5566_7788u64.to_le_bytes();
        let m = of_type(0, &bytes);
        assert_eq!(m.read::<u64>(), Some(0x1122_3344_5566_7788));
        assert_eq!(m.read::<u32>(), None);
        assert_eq!(m.read::<[u64; 2]>(), None);
        assert_eq!(m.payload(), bytes);
    }

    #[test]
    fn debug_output_has_the_length_and_no_byte_of_the_payload() {
        let shown = std::format!("{:?}", of_type(7, &[0x41; 3]));
        assert!(shown.contains("len: 3") && shown.contains("MessageType"), "{shown}");
        assert!(!shown.contains("41") && !shown.contains("65"), "{shown}");
    }

    #[test]
    fn a_pfn_needs_type_and_size() {
        let bytes = encode_pfn(Pfn(9));
        assert_eq!(of_type(MK_PFN_IPI_TYPE.0, &bytes).pfn(), Ok(Pfn(9)));
        assert_eq!(of_type(MK_PFN_IPI_TYPE.0, &bytes[..7]).pfn(), Err(PfnError::WrongSize(7)));
    }
}
