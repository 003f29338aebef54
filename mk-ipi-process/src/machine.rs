// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine: one file, and its layout.
//!
//! | offset in the file | content | written by |
//! | --- | --- | --- |
//! | 0 | a page that describes the machine | the creator of the file |
//! | 4096 | a line of 64 bytes for each CPU: its pending vectors, and the futex of its process | all processes |
//! | the next page | the directory (SPEC chapter D) | the host |
//! | the next page | a pool for each instance, all of one size; the instance's region is in its pool | all processes |

use crate::map::Map;
use crate::sys;
use mk_ipi_abi::directory::directory_size;
use mk_ipi_abi::{InstanceId, PhysAddr, PhysCpuId, PhysRange, Vector, PAGE_SIZE};
use mk_ipi_core::directory::Directory;
use mk_ipi_core::sync::{AtomicU32, AtomicU64, Ordering, Word};
use std::fs::File;
use std::io;

/// First eight bytes of the file: "MKIPIPRC".
const MAGIC: u64 = u64::from_le_bytes(*b"MKIPIPRC");
/// Version of the layout of this file.
const VERSION: u64 = 1;
/// Number of words of a CPU's line: the words of the pending vectors, then the word of the futex, then words that are not used.
const LINE: usize = 8;
/// Number of words at the beginning of the line. They have one bit for each vector, which is set while the vector is pending.
const PENDING: usize = 4;
/// The largest number of CPUs of a machine.
const MAX_CPUS: u32 = 1024;

/// The size of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Number of CPUs, 1 to 1,024. The physical ids of the CPUs are 0 to `cpus` - 1.
    pub cpus: u32,
    /// Number of instances, 1 to 256. The ids of the instances are 0 to `instances` - 1.
    pub instances: u32,
    /// Size of each instance's pool in bytes: a multiple of 4,096, not 0, below 2^40.
    pub pool: u64,
}

impl Shape {
    fn is_good(self) -> bool {
        let counts = (1..=MAX_CPUS).contains(&self.cpus) && (1..=256).contains(&self.instances);
        counts && self.pool != 0 && self.pool.is_multiple_of(PAGE_SIZE) && self.pool < 1 << 40
    }

    fn directory(self) -> PhysRange {
        let lines = (u64::from(self.cpus) * 8 * LINE as u64).next_multiple_of(PAGE_SIZE);
        let len = directory_size(self.instances, self.cpus).next_multiple_of(PAGE_SIZE);
        range(PAGE_SIZE + lines, len)
    }

    fn pools(self) -> PhysRange {
        range(self.directory().end().0, self.pool * u64::from(self.instances))
    }
}

/// Makes the range of a part of a machine. The machine's shape must be valid.
#[expect(clippy::expect_used, reason = "bounded by `Shape::is_good`")]
fn range(start: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr(start), len).expect("a shape's parts lie below 2^52")
}

/// Why a file cannot be opened as a machine.
#[derive(Debug)]
pub enum OpenError {
    /// The file cannot be read or mapped.
    Io(io::Error),
    /// The file does not begin with the magic of a machine. The value is the first eight bytes of the file.
    NoMachine(u64),
    /// The layout of the file has another version. The value is that version.
    Version(u64),
    /// The numbers in the file are out of bounds (see [`Shape`]), or the file is shorter than they require.
    Shape,
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(e) => e.fmt(f),
            Self::NoMachine(found) => {
                write!(f, "the file is not a machine: it begins with {found:#018x}, not {MAGIC:#018x}")
            }
            Self::Version(version) => {
                write!(f, "the machine's file has version {version}, and this program supports {VERSION}")
            }
            Self::Shape => f.write_str("the machine's file has numbers out of bounds, or is too short"),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<io::Error> for OpenError {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

/// A machine in a file.
#[derive(Debug)]
pub struct Machine {
    file: File,
    shape: Shape,
    /// The lines of the CPUs.
    lines: Map,
    directory: Map,
    /// True if this process has created the machine.
    host: bool,
}

impl Machine {
    /// Creates a machine in this file, which must be open for reading and writing. The former content of the file is lost.
    ///
    /// # Errors
    ///
    /// If the file cannot be written or mapped; `InvalidInput` for a shape that is out of bounds.
    pub fn create(file: File, shape: Shape) -> io::Result<Self> {
        if !shape.is_good() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        file.set_len(0)?;
        file.set_len(shape.pools().end().0)?;
        Self::make(file, shape)
    }

    /// As [`create`](Self::create), in an anonymous file, which child processes can inherit. No process can change the file's
    /// size.
    ///
    /// # Errors
    ///
    /// As `create`.
    pub fn in_memory(shape: Shape) -> io::Result<Self> {
        if !shape.is_good() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Self::make(sys::memfd(shape.pools().end().0)?, shape)
    }

    fn make(file: File, shape: Shape) -> io::Result<Self> {
        let header = Map::new(&file, range(0, PAGE_SIZE), true)?;
        let counts = u64::from(shape.cpus) | u64::from(shape.instances) << 32;
        let values = [VERSION, counts, shape.pool];
        for (word, value) in header.words().iter().skip(1).zip(values) {
            word.store(value, Ordering::Relaxed);
        }
        let machine = Self::with(file, shape, true)?;
        header.words().iter().take(1).for_each(|magic| magic.store(MAGIC, Ordering::Release));
        Ok(machine)
    }

    /// Opens the machine in this file. This process or another one has created it. The directory is mapped read-only.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn open(file: File) -> Result<Self, OpenError> {
        let header = Map::new(&file, range(0, PAGE_SIZE), false)?;
        // Each word is read only once. The copy is checked, and only the copy is used.
        let word = |at: usize| header.words().get(at).map_or(0, Word::load_acquire);
        let [magic, version, counts, pool] = [0, 1, 2, 3].map(word);
        if magic != MAGIC {
            return Err(OpenError::NoMachine(magic));
        }
        if version != VERSION {
            return Err(OpenError::Version(version));
        }
        #[expect(clippy::cast_possible_truncation, reason = "two halves of a word")]
        let shape = Shape { cpus: counts as u32, instances: (counts >> 32) as u32, pool };
        if !shape.is_good() || file.metadata()?.len() < shape.pools().end().0 {
            return Err(OpenError::Shape);
        }
        Ok(Self::with(file, shape, false)?)
    }

    fn with(file: File, shape: Shape, host: bool) -> io::Result<Self> {
        let directory = shape.directory();
        let lines = Map::new(&file, range(PAGE_SIZE, directory.start().0 - PAGE_SIZE), true)?;
        let directory = Map::new(&file, directory, host)?;
        Ok(Self { file, shape, lines, directory, host })
    }

    /// The numbers of CPUs and instances, and the size of a pool.
    pub const fn shape(&self) -> Shape {
        self.shape
    }

    /// The machine's file.
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// The physical address of the machine's directory, which is the value of `mk_ipi_directory=`.
    pub fn directory_at(&self) -> PhysAddr {
        self.shape.directory().start()
    }

    /// The machine's directory. `None` before the host has created it.
    pub fn directory(&self) -> Option<Directory<'_, AtomicU64>> {
        Directory::open(self.directory.words()).ok()
    }

    /// The words of the machine's directory, if this process has created the machine. Other processes have them mapped read-only.
    pub(crate) fn directory_to_write(&self) -> Option<&[AtomicU64]> {
        self.host.then(|| self.directory.words())
    }

    /// The pool of `instance`; `None` if the machine has no such instance.
    pub fn pool(&self, instance: InstanceId) -> Option<PhysRange> {
        let number = u64::from(instance.get());
        let start = self.shape.pools().start().0 + number * self.shape.pool;
        (number < self.shape.instances.into()).then(|| range(start, self.shape.pool))
    }

    /// The range of all pools.
    pub fn pools(&self) -> PhysRange {
        self.shape.pools()
    }

    /// Maps part of the pools, for reading only, or also for writing if `writable` is true.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if `part` is not inside of the pools, or does not begin on a page boundary. Another error if the mapping
    /// fails.
    pub fn map(&self, part: PhysRange, writable: bool) -> io::Result<Map> {
        let pools = self.pools();
        let inside = pools.start() <= part.start() && part.end() <= pools.end();
        if !inside || !part.start().is_page_aligned() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Map::new(&self.file, part, writable)
    }

    fn line(&self, cpu: PhysCpuId) -> Option<&[AtomicU64; LINE]> {
        let at = usize::try_from(cpu.0).ok()?.checked_mul(LINE)?;
        let line = self.lines.words().get(at..)?.first_chunk();
        line.filter(|_| cpu.0 < self.shape.cpus.into())
    }

    /// True if the machine has this CPU.
    pub fn has_cpu(&self, cpu: PhysCpuId) -> bool {
        self.line(cpu).is_some()
    }

    /// Makes `vector` pending at `cpu`, and wakes the CPU's process. Returns false if the machine has no such CPU.
    pub(crate) fn ring(&self, cpu: PhysCpuId, vector: Vector) -> bool {
        let Some(line) = self.line(cpu) else { return false };
        let vector = usize::from(vector.get());
        if let Some(word) = line.get(vector / 64) {
            // The CPU that takes this interrupt (`take_pending`) sees all stores that came before this one.
            word.fetch_or(1 << (vector % 64), Ordering::SeqCst);
        }
        let futex = futex_of(line);
        futex.fetch_add(1, Ordering::SeqCst);
        sys::futex_wake(futex);
        true
    }

    /// The futex of `cpu`: `ring` changes its value, and wakes its waiters. `None` if the machine has no such CPU.
    pub(crate) fn futex(&self, cpu: PhysCpuId) -> Option<&AtomicU32> {
        self.line(cpu).map(futex_of)
    }

    /// True if a vector is pending at the CPU.
    pub(crate) fn is_pending(&self, cpu: PhysCpuId) -> bool {
        let pending = self.line(cpu).into_iter().flat_map(|line| line.iter().take(PENDING));
        pending.into_iter().any(|word| word.load(Ordering::SeqCst) != 0)
    }

    /// Clears the pending vectors of the CPU, and calls `each` with each of them, the highest first.
    pub(crate) fn take_pending(&self, cpu: PhysCpuId, mut each: impl FnMut(Vector)) {
        let Some(line) = self.line(cpu) else { return };
        for (number, word) in line.iter().enumerate().take(PENDING).rev() {
            // Reads what `ring` wrote, and so sees all stores that came before it.
            let mut bits = word.swap(0, Ordering::SeqCst);
            while bits != 0 {
                let bit = bits.ilog2();
                bits &= !(1 << bit);
                let vector = u8::try_from(number as u64 * 64 + u64::from(bit)).ok().and_then(Vector::new);
                vector.into_iter().for_each(&mut each);
            }
        }
    }
}

/// The futex in a CPU's line.
fn futex_of(line: &[AtomicU64; LINE]) -> &AtomicU32 {
    let [.., word, _, _, _] = line;
    // SAFETY: this word of the line is used as the futex only. Its first four bytes are a valid, aligned u32 as long as the line
    // is mapped.
    unsafe { &*(&raw const *word).cast() }
}
