// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a start page cannot be written.

use super::{MAX_COMMAND_LINE, MAX_MEMORY};
use core::fmt;
use mk_ipi_abi::{PhysAddr, PhysRange, PAGE_SIZE};

/// Why the page cannot contain what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartInfoError {
    /// The page has another size than a page. Gives how many bytes it has.
    PageSize(usize),
    /// The page would not begin at a page boundary.
    Unaligned(PhysAddr),
    /// The page, or what it should point to, is not below 4 GiB.
    TooHigh {
        /// Where it begins.
        at: PhysAddr,
        /// How many bytes it has.
        len: u64,
    },
    /// The memory map has no room for this.
    TooManyPieces(PhysRange),
    /// The command line is too long. Gives how many bytes it has.
    CommandLine(usize),
    /// The command line would end at the NUL at this offset.
    Nul(usize),
    /// A part of the command line could not be turned into text.
    Format,
}

impl fmt::Display for StartInfoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::PageSize(len) => write!(f, "the start page has {len} bytes, not {PAGE_SIZE}"),
            Self::Unaligned(at) => write!(f, "the start page cannot lie at {:#x}, inside of a page", at.0),
            Self::TooHigh { at, len } => {
                write!(f, "what a kernel is given at its start must lie below 4 GiB, unlike {len:#x} bytes at {:#x}", at.0)
            }
            Self::TooManyPieces(piece) => write!(
                f,
                "the memory map has {MAX_MEMORY} entries, and no room for {:#x} bytes at {:#x}",
                piece.len(),
                piece.start().0
            ),
            Self::CommandLine(len) => write!(
                f,
                "the kernel's command line has {len} bytes, more than {}",
                MAX_COMMAND_LINE.wrapping_sub(1)
            ),
            Self::Nul(at) => write!(f, "the kernel's command line has a NUL, at byte {at}"),
            Self::Format => write!(f, "a part of the kernel's command line cannot be written as text"),
        }
    }
}

impl core::error::Error for StartInfoError {}
