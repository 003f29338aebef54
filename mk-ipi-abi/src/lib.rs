// SPDX-License-Identifier: MIT OR Apache-2.0
//! Wire layouts, constants and checked parsing of the mk-ipi inter-kernel protocol.
//!
//! This crate defines the layouts of shared memory ([`rfc_v2`], [`native`], [`directory`]), the identifiers of kernels and CPUs
//! ([`ids`]), the boot parameters ([`boot_param`]), the error numbers ([`errno`]), and the messages of the services: moves of CPUs
//! ([`cpu_move`]), a console ([`console`]), messages between programs ([`channel`]) and network interfaces ([`net`]).
//! Its functions read and write their arguments only. So kernels, tests and tools can use them.
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

/// Replaces the bytes of a peer in debug output. It prints only how many bytes there are.
pub(crate) struct Len(pub usize);

impl core::fmt::Debug for Len {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} bytes", self.0)
    }
}

/// Size of one page of physical memory, in bytes. Regions are allocated in whole pages, and a PFN is the number of such a page.
pub const PAGE_SIZE: u64 = 4096;

/// The README's example, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
