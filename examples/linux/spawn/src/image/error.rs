// SPDX-License-Identifier: MIT OR Apache-2.0
//! The errors of the check of an image.

use super::MAX_SEGMENTS;
use core::fmt;
use mk_ipi_abi::PhysAddr;

/// Why a file is not an image that can be started, or why the image cannot be put at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// The file is a bzImage, a compressed kernel for a boot loader.
    BzImage,
    /// The file is not an ELF file.
    NotElf,
    /// The ELF file is not a 64-bit file. Contains its `EI_CLASS`.
    Class(u8),
    /// The ELF file is not little endian. Contains its `EI_DATA`.
    ByteOrder(u8),
    /// The ELF file is not for x86-64. Contains its `e_machine`.
    Machine(u16),
    /// The ELF file is not a program, but for example an object file. Contains its `e_type`.
    Type(u16),
    /// The file ends before the end of the ELF header or of the program headers.
    Tables,
    /// The file has more program headers than [`MAX_SEGMENTS`]. Contains their number.
    TooManySegments(usize),
    /// A program header does not have the size of a 64-bit ELF file. Contains its size in bytes.
    HeaderSize(usize),
    /// There is no segment to load.
    Empty,
    /// The file ends before the end of a segment.
    NotInFile {
        /// The offset of the segment in the file.
        offset: u64,
        /// How many bytes the segment has in the file.
        len: u64,
        /// How many bytes the file has.
        file: usize,
    },
    /// A segment is not completely below the highest physical address.
    Unaddressable {
        /// The address of the segment.
        at: PhysAddr,
        /// How many bytes the segment has in memory.
        len: u64,
    },
    /// A segment has more bytes in the file than in memory.
    Sizes {
        /// The address of the segment.
        at: PhysAddr,
        /// How many bytes it has in the file.
        file: u64,
        /// How many bytes it has in memory.
        memory: u64,
    },
    /// Two segments overlap in memory. Contains their addresses.
    Overlap(PhysAddr, PhysAddr),
    /// There is no note with the PVH entry.
    NoEntry,
    /// The note with the PVH entry does not contain a 32-bit address. Contains the length of the note in bytes.
    EntryNote(usize),
    /// The PVH entry is not in a part of a segment that the file contains. Contains the address of the entry.
    EntryOutside(u32),
    /// The note with the limits for moving the image does not consist of up to three words. Contains its length in bytes.
    RelocationNote(usize),
    /// The alignment that the image requires is not a power of two. Contains the alignment.
    Alignment(u64),
    /// The lowest address that the image allows is above the highest one.
    Bounds {
        /// The lowest start.
        min: PhysAddr,
        /// The highest address of the last byte.
        max: PhysAddr,
    },
    /// The image can only be put at the address for which it was linked.
    Fixed {
        /// The address for which it was linked.
        linked: PhysAddr,
        /// The requested address.
        at: PhysAddr,
    },
    /// The requested address is not aligned as the image requires.
    Unaligned {
        /// The requested address.
        at: PhysAddr,
        /// The required alignment.
        align: u64,
    },
    /// The requested address is below the lowest one that the image allows.
    TooLow {
        /// The requested address.
        at: PhysAddr,
        /// The lowest allowed address.
        min: PhysAddr,
    },
    /// The last byte of the image would be above the highest address that the image allows, or above 4 GiB - 1.
    TooHigh {
        /// The address of the last byte.
        last: PhysAddr,
        /// The highest allowed address.
        max: PhysAddr,
    },
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BzImage => write!(
                f,
                "the file is a bzImage, but the ELF file in it is needed: use vmlinux, or extract it from the bzImage \
                 by Linux's scripts/extract-vmlinux"
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
            Self::Tables => write!(f, "the file ends before the end of the ELF header or of the program headers"),
            Self::TooManySegments(count) => {
                write!(f, "the ELF file has {count} program headers, more than {MAX_SEGMENTS}")
            }
            Self::HeaderSize(size) => {
                write!(f, "the ELF file's program headers have {size} bytes each, not 56")
            }
            Self::Empty => write!(f, "the ELF file has no segment to load"),
            Self::NotInFile { offset, len, file } => write!(
                f,
                "a segment has {len:#x} bytes at offset {offset:#x} of the file, but the file has only {file:#x} bytes"
            ),
            Self::Unaddressable { at, len } => {
                write!(f, "the segment of {len:#x} bytes at {:#x} ends above the highest physical address", at.0)
            }
            Self::Sizes { at, file, memory } => write!(
                f,
                "the segment at {:#x} has {file:#x} bytes in the file, more than its {memory:#x} bytes in memory",
                at.0
            ),
            Self::Overlap(one, other) => {
                write!(f, "the segments at {:#x} and {:#x} overlap", one.0, other.0)
            }
            Self::NoEntry => write!(
                f,
                "the file has no note with a PVH entry (Linux has one with CONFIG_PVH, which needs CONFIG_HYPERVISOR_GUEST)"
            ),
            Self::EntryNote(len) => {
                write!(f, "the note with the PVH entry has {len} bytes, and is not a 32-bit address")
            }
            Self::EntryOutside(entry) => write!(f, "the PVH entry {entry:#x} is not in a segment of the file"),
            Self::RelocationNote(len) => {
                write!(f, "the note with the limits for moving the image has {len} bytes, not 0, 4, 8 or 12")
            }
            Self::Alignment(align) => {
                write!(f, "the alignment {align:#x} of the image is not a power of two")
            }
            Self::Bounds { min, max } => {
                write!(f, "the lowest address {:#x} of the image is above its highest address {:#x}", min.0, max.0)
            }
            Self::Fixed { linked, at } => write!(
                f,
                "the image can only be put at {:#x}, not at {:#x} (Linux with CONFIG_RELOCATABLE can be moved)",
                linked.0, at.0
            ),
            Self::Unaligned { at, align } => {
                write!(f, "the image cannot be put at {:#x}, which is not a multiple of {align:#x}", at.0)
            }
            Self::TooLow { at, min } => {
                write!(f, "the image cannot be put at {:#x}, which is below its lowest address {:#x}", at.0, min.0)
            }
            Self::TooHigh { last, max } => {
                write!(f, "the last byte of the image would be at {:#x}, above its highest address {:#x}", last.0, max.0)
            }
        }
    }
}

impl core::error::Error for ImageError {}
