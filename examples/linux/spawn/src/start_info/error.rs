// SPDX-License-Identifier: MIT OR Apache-2.0
//! The errors of the functions that write a start page.

use super::{MAX_COMMAND_LINE, MAX_MEMORY};
use core::fmt;
use mk_ipi_abi::{PhysAddr, PhysRange, PAGE_SIZE};

/// Why the start page cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartInfoError {
    /// The slice does not have the size of a page. Contains its size in bytes.
    PageSize(usize),
    /// The address of the page is not a multiple of the page size. Contains the address.
    Unaligned(PhysAddr),
    /// The page, or memory to which it would point, is not completely below 4 GiB.
    TooHigh {
        /// The address of the memory.
        at: PhysAddr,
        /// The length of the memory in bytes.
        len: u64,
    },
    /// The memory map has no room for another entry. Contains the range of that entry.
    TooManyPieces(PhysRange),
    /// The command line is too long. Contains its length in bytes.
    CommandLine(usize),
    /// The command line contains a NUL. Contains the offset of the NUL.
    Nul(usize),
    /// Formatting a part of the command line has failed.
    Format,
}

impl fmt::Display for StartInfoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::PageSize(len) => write!(f, "the start page has {len} bytes, not {PAGE_SIZE}"),
            Self::Unaligned(at) => {
                write!(f, "the address {:#x} of the start page is not a multiple of the page size", at.0)
            }
            Self::TooHigh { at, len } => {
                write!(
                    f,
                    "{len:#x} bytes at {:#x}, which the kernel needs at its start, are not below 4 GiB",
                    at.0
                )
            }
            Self::TooManyPieces(piece) => write!(
                f,
                "the memory map has {MAX_MEMORY} entries already, and no room for {:#x} bytes at {:#x}",
                piece.len(),
                piece.start().0
            ),
            Self::CommandLine(len) => write!(
                f,
                "the kernel's command line has {len} bytes, more than {}",
                MAX_COMMAND_LINE.wrapping_sub(1)
            ),
            Self::Nul(at) => write!(f, "the kernel's command line contains a NUL at offset {at}"),
            Self::Format => write!(f, "a part of the kernel's command line cannot be formatted"),
        }
    }
}

impl core::error::Error for StartInfoError {}
