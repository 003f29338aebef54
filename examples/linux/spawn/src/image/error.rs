// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is wrong with an image, or with an address for it.

use super::MAX_SEGMENTS;
use core::fmt;
use mk_ipi_abi::PhysAddr;

/// Why a file is not an image that can be started, or why it cannot lie at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// A compressed kernel for a boot loader.
    BzImage,
    /// Not an ELF file at all.
    NotElf,
    /// Not an ELF file of 64 bits. Gives its `EI_CLASS`.
    Class(u8),
    /// Not little endian. Gives its `EI_DATA`.
    ByteOrder(u8),
    /// Not for x86-64. Gives its `e_machine`.
    Machine(u16),
    /// Not a program, but for example an object file. Gives its `e_type`.
    Type(u16),
    /// The header or the program headers are not in the file.
    Tables,
    /// More program headers than [`MAX_SEGMENTS`]. Gives how many.
    TooManySegments(usize),
    /// The program headers have another size than expected. Gives how many bytes each has.
    HeaderSize(usize),
    /// No segment takes memory.
    Empty,
    /// The part that a program header names is not in the file.
    NotInFile {
        /// Where it would begin in the file.
        offset: u64,
        /// How many bytes it has.
        len: u64,
        /// How many bytes the file has.
        file: usize,
    },
    /// A segment that ends beyond what a CPU can address.
    Unaddressable {
        /// Where it begins.
        at: PhysAddr,
        /// How many bytes it has.
        len: u64,
    },
    /// A segment with more bytes in the file than in memory.
    Sizes {
        /// Where it begins.
        at: PhysAddr,
        /// How many bytes it has in the file.
        file: u64,
        /// How many bytes it has in memory.
        memory: u64,
    },
    /// Two segments share memory. Gives where they begin.
    Overlap(PhysAddr, PhysAddr),
    /// No note names a PVH entry.
    NoEntry,
    /// The note that should name it does not contain a 32-bit address. Gives how many bytes it has.
    EntryNote(usize),
    /// The PVH entry is not at any of the bytes that the file has.
    EntryOutside(u32),
    /// The note that lets the image be moved does not consist of up to three words. Gives how many bytes it has.
    RelocationNote(usize),
    /// The alignment that the image requires is not a power of two.
    Alignment(u64),
    /// The image's lowest address is above its highest.
    Bounds {
        /// Lowest start.
        min: PhysAddr,
        /// Highest last byte.
        max: PhysAddr,
    },
    /// The image can only lie where it was linked.
    Fixed {
        /// Where that is.
        linked: PhysAddr,
        /// Where it should have been placed.
        at: PhysAddr,
    },
    /// The place is not aligned as the image requires.
    Unaligned {
        /// The place.
        at: PhysAddr,
        /// What it must be a multiple of.
        align: u64,
    },
    /// The place is below the lowest one that the image allows.
    TooLow {
        /// The place.
        at: PhysAddr,
        /// The lowest.
        min: PhysAddr,
    },
    /// The image would end beyond the highest address that it allows, or at 4 GiB or above.
    TooHigh {
        /// Its last byte.
        last: PhysAddr,
        /// The highest.
        max: PhysAddr,
    },
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BzImage => write!(
                f,
                "the file is a bzImage, but the ELF file in it is needed: vmlinux, or what Linux's \
                 scripts/extract-vmlinux makes of the bzImage"
            ),
            Self::NotElf => write!(f, "the file is not an ELF file"),
            Self::Class(class) => write!(f, "the ELF file is of class {class}, not 2, which is 64 bits"),
            Self::ByteOrder(order) => {
                write!(f, "the ELF file's byte order is {order}, not 1, which is little endian")
            }
            Self::Machine(machine) => {
                write!(f, "the ELF file is for machine {machine}, not 62, which is x86-64")
            }
            Self::Type(kind) => write!(f, "the ELF file is of type {kind}, not a program (2 or 3)"),
            Self::Tables => write!(f, "the ELF header or the program headers are not in the file"),
            Self::TooManySegments(count) => {
                write!(f, "the ELF file has {count} program headers, more than {MAX_SEGMENTS}")
            }
            Self::HeaderSize(size) => {
                write!(f, "the ELF file's program headers have {size} bytes each, not 56")
            }
            Self::Empty => write!(f, "the ELF file has nothing to load"),
            Self::NotInFile { offset, len, file } => write!(
                f,
                "a program header names {len:#x} bytes at {offset:#x} of a file that has {file:#x} bytes"
            ),
            Self::Unaddressable { at, len } => {
                write!(f, "the segment of {len:#x} bytes at {:#x} ends beyond what a CPU can address", at.0)
            }
            Self::Sizes { at, file, memory } => write!(
                f,
                "the segment at {:#x} has {file:#x} bytes in the file, but {memory:#x} in memory",
                at.0
            ),
            Self::Overlap(one, other) => {
                write!(f, "the segments at {:#x} and {:#x} overlap", one.0, other.0)
            }
            Self::NoEntry => write!(
                f,
                "no note of the file names a PVH entry (Linux has one with CONFIG_PVH, which needs CONFIG_HYPERVISOR_GUEST)"
            ),
            Self::EntryNote(len) => {
                write!(f, "the note of the PVH entry has {len} bytes, which is not a 32-bit address")
            }
            Self::EntryOutside(entry) => write!(f, "the PVH entry {entry:#x} is not in the image"),
            Self::RelocationNote(len) => {
                write!(f, "the note of the image's place has {len} bytes, which are not up to three words")
            }
            Self::Alignment(align) => {
                write!(f, "the image's alignment, {align:#x}, is not a power of two")
            }
            Self::Bounds { min, max } => {
                write!(f, "the image must lie between {:#x} and {:#x}, which is impossible", min.0, max.0)
            }
            Self::Fixed { linked, at } => write!(
                f,
                "the image can only lie at {:#x}, not at {:#x} (Linux can be moved with CONFIG_RELOCATABLE)",
                linked.0, at.0
            ),
            Self::Unaligned { at, align } => {
                write!(f, "the image cannot lie at {:#x}, which is not a multiple of {align:#x}", at.0)
            }
            Self::TooLow { at, min } => {
                write!(f, "the image cannot lie at {:#x}, below its minimum {:#x}", at.0, min.0)
            }
            Self::TooHigh { last, max } => {
                write!(f, "the image would end at {:#x}, beyond its maximum {:#x}", last.0, max.0)
            }
        }
    }
}

impl core::error::Error for ImageError {}
