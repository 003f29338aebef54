// SPDX-License-Identifier: MIT OR Apache-2.0
//! Wire layouts, constants and checked parsing of the mk-ipi inter-kernel protocol.
//!
//! This crate holds types only: what lies in shared memory ([`rfc_v2`], [`native`], [`directory`]), what names a
//! kernel or a CPU ([`ids`]), what a boot parameter or an error number means ([`boot_param`], [`errno`]), and what the
//! messages of services say: moves of CPUs ([`cpu_move`]), a console ([`console`]), messages between programs ([`channel`]) and network
//! interfaces ([`net`]).
//! It touches no memory but its arguments, so that kernels, tests and tools can use it.
//!
//! `SPEC.md`, which comes with this crate, is normative; a clause is cited as "SPEC L-1".
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod boot_param;
pub mod channel;
pub mod console;
pub mod cpu_move;
pub mod directory;
pub mod errno;
pub mod ids;
pub mod native;
pub mod net;
pub mod rfc_v2;

/// The specification.
#[cfg(doc)]
#[doc = include_str!("../SPEC.md")]
pub mod spec {}

pub use errno::Errno;
pub use ids::{Incarnation, InstanceId, MessageType, Pfn, PhysAddr, PhysCpuId, PhysRange, Vector};

// SPEC L-1: the layouts are defined for little-endian LP64 machines only.
const _: () = assert!(cfg!(target_endian = "little"), "the wire format is little endian (SPEC L-1)");

/// Stands for bytes of a peer in debug output. It shows their number only.
pub(crate) struct Len(pub usize);

impl core::fmt::Debug for Len {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} bytes", self.0)
    }
}

/// Bytes in one page of physical memory, the unit in which regions are allocated and PFNs count.
pub const PAGE_SIZE: u64 = 4096;

/// The README's example, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
