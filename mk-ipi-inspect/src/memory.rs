// SPDX-License-Identifier: MIT OR Apache-2.0
//! Physical memory of a machine, from a file. The file is a raw dump, an ELF vmcore, or a device or a file of debugfs in which an
//! offset is a physical address.

use object::elf::{FileHeader64, ET_CORE, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, ReadCache};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;

/// Size of a page in bytes.
pub const PAGE: u64 = mk_ipi_abi::PAGE_SIZE;
/// All physical addresses are below this.
const LIMIT: u64 = mk_ipi_abi::PhysAddr::LIMIT;
/// The largest number of pieces (segments of type PT_LOAD) of an ELF vmcore that are used. A real vmcore has some hundreds.
const MAX_PIECES: usize = 1 << 12;
/// Number of pages that [`Memory::scan`] reads at a time.
const SCAN_PAGES: u64 = 256;

/// Why a file cannot be read as memory.
#[derive(Debug)]
pub enum OpenError {
    /// The file cannot be read.
    Io(io::Error),
    /// The file is an ELF file, but not a core dump. The value is its type.
    NotACore(u16),
    /// The file is an ELF file that is damaged, or has 32 bits. The value is the parser's error.
    Elf(String),
    /// The file is a dump in the compressed format of makedumpfile.
    Kdump,
    /// The file contains no memory, or its memory would end above the largest physical address.
    Empty,
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(e) => e.fmt(f),
            Self::NotACore(kind) => {
                write!(f, "the file is an ELF file of type {kind}, not a core dump (type 4)")
            }
            Self::Elf(e) => write!(f, "the file is an ELF file that cannot be read: {e}"),
            Self::Kdump => f.write_str(
                "the file is a compressed dump of makedumpfile, which cannot be read: `makedumpfile -E` writes an ELF file",
            ),
            Self::Empty => {
                f.write_str("the file contains no memory, or its last byte would have an address of 2^52 or more")
            }
        }
    }
}

impl std::error::Error for OpenError {}

/// Why a part of the memory cannot be read.
#[derive(Debug)]
pub struct ReadError {
    /// The first address that could not be read.
    pub at: u64,
    /// Why it could not be read, in words.
    pub why: String,
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the memory at {:#x} cannot be read: {}", self.at, self.why)
    }
}

#[derive(Debug)]
enum Source {
    Bytes(Vec<u8>),
    File(File),
}

impl Source {
    fn read(&self, offset: u64, to: &mut [u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.read_exact_at(to, offset),
            Self::Bytes(bytes) => {
                let from = usize::try_from(offset).ok().and_then(|from| bytes.get(from..)?.get(..to.len()));
                to.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }
}

/// A range of memory, and its offset in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    start: u64,
    len: u64,
    offset: u64,
}

impl Piece {
    fn end(self) -> u64 {
        self.start + self.len
    }
}

/// Physical memory of a machine, or a part of it.
#[derive(Debug)]
pub struct Memory {
    source: Source,
    /// The parts of the memory that the file contains, sorted by address. They can overlap.
    pieces: Vec<Piece>,
    /// True if all of the memory can be searched. False for a device, whose length is not known.
    bounded: bool,
    /// True if kernels can write the memory while it is read.
    live: bool,
}

impl Memory {
    /// Opens the file at `path`. With a `base`, the file is read as a raw dump whose first byte has the address `base`. Without a
    /// `base`, the file is read as an ELF vmcore if it begins like one, and otherwise as a raw dump whose first byte has the
    /// address 0. In a device, and in a file of debugfs, an offset is always an address: there `base` has no effect.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn open(path: &Path, base: Option<u64>) -> Result<Self, OpenError> {
        let file = File::open(path).map_err(OpenError::Io)?;
        let about = file.metadata().map_err(OpenError::Io)?;
        let pseudo = about.len() == 0 && about.file_type().is_file();
        if about.file_type().is_char_device() || pseudo {
            // This is /dev/mem, or a file of debugfs, which has the length 0.
            let whole = Piece { start: 0, len: LIMIT, offset: 0 };
            return Ok(Self { source: Source::File(file), pieces: vec![whole], bounded: false, live: true });
        }
        let mut head = [0; 8];
        let _ = file.read_at(&mut head, 0).map_err(OpenError::Io)?;
        let pieces = if base.is_none() && is_elf(&head)? {
            let copy = file.try_clone().map_err(OpenError::Io)?;
            elf_pieces(&ReadCache::new(copy), about.len())?
        } else {
            raw(base.unwrap_or(0), about.len())?
        };
        // Processes can have this file mapped, and can write it while it is read.
        Ok(Self { source: Source::File(file), pieces, bounded: true, live: true })
    }

    /// As [`open`](Self::open), for a file whose content is `bytes`.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn of_bytes(bytes: Vec<u8>, base: Option<u64>) -> Result<Self, OpenError> {
        let len = bytes.len() as u64;
        let pieces = match base {
            None if is_elf(&bytes)? => elf_pieces(&*bytes, len)?,
            base => raw(base.unwrap_or(0), len)?,
        };
        Ok(Self { source: Source::Bytes(bytes), pieces, bounded: true, live: false })
    }

    /// True if kernels can write the memory while it is read.
    pub const fn is_live(&self) -> bool {
        self.live
    }

    /// True if all of the memory can be searched ([`scan`](Self::scan)).
    pub const fn is_bounded(&self) -> bool {
        self.bounded
    }

    /// The lowest address that the file contains.
    pub fn start(&self) -> u64 {
        self.pieces.first().map_or(0, |piece| piece.start)
    }

    /// How many bytes the file contains from address `at` on, up to the first address that it does not contain.
    pub fn available(&self, at: u64) -> u64 {
        let mut end = at;
        while let Some(piece) = self.piece_at(end) {
            end = piece.end();
        }
        end - at
    }

    fn piece_at(&self, at: u64) -> Option<Piece> {
        self.pieces.iter().copied().find(|piece| piece.start <= at && at < piece.end())
    }

    /// Fills `to` with the memory from address `at` on.
    ///
    /// # Errors
    ///
    /// If a part of it is not in the file.
    pub fn read(&self, mut at: u64, mut to: &mut [u8]) -> Result<(), ReadError> {
        while !to.is_empty() {
            let piece =
                self.piece_at(at).ok_or(ReadError { at, why: "the file does not contain it".into() })?;
            let len = to.len().min(usize::try_from(piece.end() - at).unwrap_or(usize::MAX));
            let (here, rest) = to.split_at_mut(len);
            let read = self.source.read(piece.offset + (at - piece.start), here);
            read.map_err(|e| ReadError { at, why: e.to_string() })?;
            (at, to) = (at + len as u64, rest);
        }
        Ok(())
    }

    /// The `count` words from address `at` on.
    ///
    /// # Errors
    ///
    /// If a part of them is not in the file.
    pub fn words(&self, at: u64, count: usize) -> Result<Vec<u64>, ReadError> {
        let len = count.saturating_mul(8);
        if self.available(at) < len as u64 {
            let at = at + self.available(at);
            return Err(ReadError { at, why: "the file does not contain it".into() });
        }
        let mut bytes = vec![0; len];
        self.read(at, &mut bytes)?;
        let (words, _) = bytes.as_chunks::<8>();
        Ok(words.iter().map(|word| u64::from_le_bytes(*word)).collect())
    }

    /// Calls `each` with the address and the first word of every page whose first word the file contains.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn scan(&self, mut each: impl FnMut(u64, u64)) -> Result<(), ReadError> {
        let mut seen = 0;
        for piece in &self.pieces {
            let Some(mut at) = piece.start.max(seen).checked_next_multiple_of(PAGE) else { continue };
            while at < piece.end() {
                let len = (piece.end() - at).min(SCAN_PAGES * PAGE);
                let mut chunk = vec![0; usize::try_from(len).unwrap_or(0)];
                self.read(at, &mut chunk)?;
                for (page, bytes) in (at..).step_by(PAGE as usize).zip(chunk.chunks(PAGE as usize)) {
                    if let Some(first) = bytes.first_chunk() {
                        each(page, u64::from_le_bytes(*first));
                    }
                }
                at += SCAN_PAGES * PAGE;
            }
            seen = seen.max(piece.end());
        }
        Ok(())
    }
}

/// True if the file begins like an ELF file. An error if it begins like a compressed dump of makedumpfile.
fn is_elf(head: &[u8]) -> Result<bool, OpenError> {
    if head.starts_with(b"KDUMP   ") {
        return Err(OpenError::Kdump);
    }
    Ok(head.starts_with(b"\x7fELF"))
}

/// The piece of memory in a raw dump of `len` bytes.
fn raw(base: u64, len: u64) -> Result<Vec<Piece>, OpenError> {
    match base.checked_add(len) {
        Some(end) if len != 0 && end <= LIMIT => Ok(vec![Piece { start: base, len, offset: 0 }]),
        _ => Err(OpenError::Empty),
    }
}

/// The pieces of memory in an ELF core dump of `file_len` bytes.
fn elf_pieces<'d>(data: impl object::ReadRef<'d>, file_len: u64) -> Result<Vec<Piece>, OpenError> {
    let bad = |e: object::read::Error| OpenError::Elf(e.to_string());
    let header = FileHeader64::<Endianness>::parse(data).map_err(bad)?;
    let endian = header.endian().map_err(bad)?;
    if header.e_type(endian) != ET_CORE {
        return Err(OpenError::NotACore(header.e_type(endian)));
    }
    let loads = header.program_headers(endian, data).map_err(bad)?;
    let loads = loads.iter().filter(|segment| segment.p_type(endian) == PT_LOAD).take(MAX_PIECES);
    let piece = |segment: &<FileHeader64<Endianness> as FileHeader>::ProgramHeader| {
        let (start, offset) = (segment.p_paddr(endian), segment.p_offset(endian));
        // If the file was cut off inside of this piece, only the part that is in the file is used.
        let len = segment.p_filesz(endian).min(file_len.checked_sub(offset)?);
        let is_memory = len != 0 && start.checked_add(len).is_some_and(|end| end <= LIMIT);
        is_memory.then_some(Piece { start, len, offset })
    };
    let mut pieces: Vec<Piece> = loads.filter_map(piece).collect();
    pieces.sort_by_key(|piece| piece.start);
    if pieces.is_empty() {
        return Err(OpenError::Empty);
    }
    Ok(pieces)
}
