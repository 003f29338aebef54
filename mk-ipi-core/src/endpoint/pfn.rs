// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page numbers (PFNs) in messages: send, receive, map and unmap (SPEC chapter P).

use super::base::Endpoint;
use super::error::SendError;
use crate::message::Message;
use crate::platform::{Access, MapError, Mapping, Platform};
use crate::registry::Handler;
use mk_ipi_abi::rfc_v2::{encode_pfn, PfnError, MK_PFN_IPI_TYPE};
use mk_ipi_abi::{Errno, InstanceId, Pfn};

/// Why a page that a message names was not mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapPfnError {
    /// The message carries no PFN.
    NotAPfn(PfnError),
    /// The page is not below 2^52 bytes, so CPUs cannot address it.
    OutOfRange(Pfn),
    /// The platform does not let peers share that page (SPEC H-18).
    NotShared(Pfn),
    /// The page could not be mapped.
    Map(MapError),
}

impl core::fmt::Display for MapPfnError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::NotAPfn(e) => write!(f, "{e}"),
            Self::OutOfRange(pfn) => write!(f, "no CPU can address the page {:#x}", pfn.0),
            Self::NotShared(pfn) => write!(f, "peers may not share the page {:#x}", pfn.0),
            Self::Map(e) => write!(f, "{e}"),
        }
    }
}

impl core::error::Error for MapPfnError {}

impl MapPfnError {
    /// `EINVAL`, `ERANGE`, `EACCES`, or the error number of the mapping.
    pub const fn errno(self) -> Errno {
        match self {
            Self::NotAPfn(e) => e.errno(),
            Self::OutOfRange(_) => Errno::ERANGE,
            Self::NotShared(_) => Errno::EACCES,
            Self::Map(e) => e.errno(),
        }
    }
}

/// A page of a peer, mapped write-back cached until this is dropped. Dropping it may sleep.
#[derive(Debug)]
pub struct MappedPage<'a, P: Platform> {
    platform: &'a P,
    /// `Some` until `drop`.
    mapping: Option<Mapping<P::Word>>,
}

impl<P: Platform> MappedPage<'_, P> {
    /// The page's 512 words, which peers may write at any time.
    pub fn words(&self) -> &[P::Word] {
        self.mapping.as_ref().map_or(&[], Mapping::words)
    }
}

impl<P: Platform> Drop for MappedPage<'_, P> {
    fn drop(&mut self) {
        if let Some(mapping) = self.mapping.take() {
            // SAFETY: `mapping` came from `map` of this platform, and the borrows that `words` gave out have ended.
            unsafe { self.platform.unmap(mapping) };
        }
    }
}

impl<
        P: Platform,
        H: Handler,
        const CPUS: usize,
        const HANDLERS: usize,
        const QUEUE: usize,
        const INSTANCES: usize,
    > Endpoint<P, H, CPUS, HANDLERS, QUEUE, INSTANCES>
{
    /// Sends the number of a page (`mk_send_pfn`). Returns the message number, as [`send`](Self::send) does.
    pub fn send_pfn(&self, to: InstanceId, pfn: Pfn) -> Result<u64, SendError> {
        self.send(to, MK_PFN_IPI_TYPE, &encode_pfn(pfn))
    }

    /// Maps the page that `message` names, if the platform lets peers share it (`mk_receive_map_page`). May
    /// sleep, so a callback should copy the PFN ([`Message::pfn`]) and map it later ([`map_pfn`](Self::map_pfn)).
    pub fn map_page_of(&self, message: &Message<'_>) -> Result<MappedPage<'_, P>, MapPfnError> {
        self.map_pfn(message.pfn().map_err(MapPfnError::NotAPfn)?)
    }

    /// Maps a page that a peer named, if the platform lets peers share that page. May sleep. The page is unmapped when the result
    /// is dropped.
    pub fn map_pfn(&self, pfn: Pfn) -> Result<MappedPage<'_, P>, MapPfnError> {
        let page = pfn.range().ok_or(MapPfnError::OutOfRange(pfn))?;
        let platform = self.platform();
        if !platform.peer_may_share(page) {
            return Err(MapPfnError::NotShared(pfn));
        }
        let mapping = platform.map(page, Access::ReadWrite).map_err(MapPfnError::Map)?;
        Ok(MappedPage { platform, mapping: Some(mapping) })
    }
}
