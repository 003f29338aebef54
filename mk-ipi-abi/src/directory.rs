// SPDX-License-Identifier: MIT OR Apache-2.0
//! The directory lists the kernels of a machine: where the region of each kernel lies, and how to ring that kernel (SPEC chapter
//! D).
//!
//! The host writes the directory, and all other kernels only read it. A spawned kernel gets the address of the directory by the
//! boot parameter `mk_ipi_directory=`, and finds its own entry by the address of its region. The bytes are not trusted until
//! [`DirectoryHeader::check`] and [`InstanceEntry::check`] have accepted a private copy.

use crate::rfc_v2::region_size;
use crate::{Incarnation, InstanceId, PhysAddr, PhysCpuId, PhysRange, Vector};
use bitflags::bitflags;
use core::mem::{offset_of, size_of};
use static_assertions::const_assert_eq;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// First eight bytes of a directory: "MKIPIDIR" (SPEC D-2).
pub const MAGIC: u64 = u64::from_le_bytes(*b"MKIPIDIR");
/// The version of the layout described here. A reader refuses another major version and ignores the minor version (SPEC D-2).
pub const VERSION: Version = Version { major: 1, minor: 1 };
/// Largest number of CPUs that one entry can list.
pub const MAX_ENTRY_CPUS: u32 = 1024;

/// The version of a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Version {
    /// Changes if an old reader would misread the new layout.
    pub major: u16,
    /// Changes if an old reader can ignore the new parts.
    pub minor: u16,
}

/// The header at the start of a directory, 64 bytes. The host fills it before another kernel reads it. Afterwards only
/// `generation` changes (SPEC D-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DirectoryHeader {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`VERSION`].
    pub version: Version,
    /// Number of entries, at most 256. The entries are for the instance ids `0..nr_instances`.
    pub nr_instances: u32,
    /// Size of the header and all entries, in bytes.
    pub total_size: u64,
    /// Number of CPUs that an entry has room for, at most [`MAX_ENTRY_CPUS`].
    pub cpus_per_instance: u32,
    /// 0.
    pub reserved: u32,
    /// Changes after every change of an entry (SPEC D-7). It is a counter of 32 bits; the high half is 0.
    pub generation: u64,
    /// Physical id of the machine's boot CPU, plus one; 0 if the host has not stored it.
    pub boot_cpu: u64,
    /// Physical address of this header; 0 if the host has not stored it.
    pub address: u64,
    /// 0.
    pub reserved_too: u64,
}

/// One instance, 64 bytes, followed in memory by `cpus_per_instance` physical CPU ids of 8 bytes (SPEC D-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct InstanceEntry {
    /// Odd while the host changes the entry. Every change gives it another value (SPEC D-4).
    pub sequence: u64,
    /// The instance's id, equal to the entry's index.
    pub instance: u32,
    /// The instance's life, never 0.
    pub incarnation: u32,
    /// A [`State`].
    pub state: u32,
    /// A [`Layout`].
    pub layout: u32,
    /// [`EntryFlags`].
    pub flags: u32,
    /// Vector of the doorbell.
    pub doorbell_vector: u32,
    /// Physical address of the instance's region; 0 if it has none.
    pub region_start: u64,
    /// Bytes of the region; 0 if it has none.
    pub region_len: u64,
    /// Physical id of the CPU that a sender rings if it names no other CPU.
    pub doorbell_cpu: u64,
    /// Number of CPUs that are listed after the entry.
    pub nr_cpus: u32,
    /// 0.
    pub reserved: u32,
}

const_assert_eq!(size_of::<DirectoryHeader>(), 64);
const_assert_eq!(offset_of!(DirectoryHeader, magic), 0);
const_assert_eq!(offset_of!(DirectoryHeader, version), 8);
const_assert_eq!(offset_of!(DirectoryHeader, nr_instances), 12);
const_assert_eq!(offset_of!(DirectoryHeader, total_size), 16);
const_assert_eq!(offset_of!(DirectoryHeader, cpus_per_instance), 24);
const_assert_eq!(offset_of!(DirectoryHeader, generation), 32);
const_assert_eq!(offset_of!(DirectoryHeader, boot_cpu), 40);
const_assert_eq!(offset_of!(DirectoryHeader, address), 48);
const_assert_eq!(size_of::<InstanceEntry>(), 64);
const_assert_eq!(offset_of!(InstanceEntry, sequence), 0);
const_assert_eq!(offset_of!(InstanceEntry, instance), 8);
const_assert_eq!(offset_of!(InstanceEntry, incarnation), 12);
const_assert_eq!(offset_of!(InstanceEntry, state), 16);
const_assert_eq!(offset_of!(InstanceEntry, layout), 20);
const_assert_eq!(offset_of!(InstanceEntry, flags), 24);
const_assert_eq!(offset_of!(InstanceEntry, doorbell_vector), 28);
const_assert_eq!(offset_of!(InstanceEntry, region_start), 32);
const_assert_eq!(offset_of!(InstanceEntry, region_len), 40);
const_assert_eq!(offset_of!(InstanceEntry, doorbell_cpu), 48);
const_assert_eq!(offset_of!(InstanceEntry, nr_cpus), 56);

bitflags! {
    /// Properties of an instance's region. Unknown bits are ignored (SPEC D-3).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct EntryFlags: u32 {
        /// The receiver and all senders use mk-ipi: a slot is claimed before it is written (SPEC X-1).
        const EXCLUSIVE = 1;
        /// The vector rings the instance at the doorbell CPU only (SPEC S-7).
        const ONE_DOORBELL = 1 << 1;
    }
}

/// The state of an instance (SPEC D-5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// No instance has this id.
    Absent = 0,
    /// The instance is being loaded and started. Its region exists.
    Starting = 1,
    /// The instance runs and takes messages.
    Running = 2,
    /// This life has ended. The region stays for the next life.
    Dead = 3,
    /// This life has ended, and the region will be freed. Kernels that have it mapped detach (SPEC D-8).
    Ending = 4,
}

impl State {
    /// The state that `n` stands for.
    pub const fn from_u32(n: u32) -> Option<Self> {
        match n {
            0 => Some(Self::Absent),
            1 => Some(Self::Starting),
            2 => Some(Self::Running),
            3 => Some(Self::Dead),
            4 => Some(Self::Ending),
            _ => None,
        }
    }

    /// Whether the instance is starting or running. Only then CPUs belong to it.
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Starting | Self::Running)
    }
}

/// The layout of a region (SPEC D-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Layout {
    /// [`crate::rfc_v2`].
    RfcV2 = 1,
    /// [`crate::native`].
    Native = 2,
}

impl Layout {
    /// The layout that `n` stands for.
    pub const fn from_u32(n: u32) -> Option<Self> {
        match n {
            1 => Some(Self::RfcV2),
            2 => Some(Self::Native),
            _ => None,
        }
    }

    /// Size of the smallest region of this layout, in bytes.
    const fn least(self) -> u64 {
        match self {
            Self::RfcV2 => region_size(1),
            Self::Native => crate::PAGE_SIZE,
        }
    }
}

/// Why the memory holds no directory that this build can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectoryError {
    /// The first eight bytes are not [`MAGIC`]. These are the bytes found.
    NoStamp(u64),
    /// The major version is not that of [`VERSION`]. This is the version found.
    Version(Version),
    /// A count is out of bounds, or the total size does not follow from the counts.
    Geometry,
    /// The memory is smaller than the directory. This is how many bytes are needed.
    TooSmall(u64),
}

impl core::fmt::Display for DirectoryError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::NoStamp(found) => {
                write!(f, "this memory is not a directory: its first word is {found:#018x}")
            }
            Self::Version(Version { major, minor }) => {
                write!(f, "a directory of version {major}.{minor} is not supported")
            }
            Self::Geometry => f.write_str(
                "a count of the directory is out of bounds, or its size does not follow from the counts",
            ),
            Self::TooSmall(needed) => {
                write!(f, "the directory needs {needed} bytes, and the memory is smaller")
            }
        }
    }
}

impl core::error::Error for DirectoryError {}

/// Why an entry cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryError {
    /// No entry has that index.
    OutOfRange,
    /// No instance has that id now.
    Absent,
    /// The host is changing the entry. Try again.
    Changing,
    /// The id in the entry is not the index of the entry. This is the id found.
    WrongInstance(u32),
    /// The incarnation is 0, which is not valid.
    NoIncarnation,
    /// The number of the state is not that of a [`State`]. This is the number.
    UnknownState(u32),
    /// The number of the layout is not that of a [`Layout`]. This is the number.
    UnknownLayout(u32),
    /// The vector cannot be a [`Vector`]. This is the vector found.
    BadVector(u32),
    /// The region is misaligned, out of range, or too small for its layout.
    BadRegion,
    /// The entry lists no CPU, or more CPUs than there is room for; or its doorbell CPU is not listed, or has an id of more than
    /// 48 bits.
    BadCpus,
}

impl core::fmt::Display for EntryError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::OutOfRange => f.write_str("the directory has no entry for this instance"),
            Self::Absent => f.write_str("no instance has this id now"),
            Self::Changing => f.write_str("the host is changing the entry"),
            Self::WrongInstance(id) => write!(f, "the entry contains the id {id}, which is not the index of the entry"),
            Self::NoIncarnation => f.write_str("the entry has the incarnation 0"),
            Self::UnknownState(state) => write!(f, "the state {state} is not known"),
            Self::UnknownLayout(layout) => write!(f, "the region layout {layout} is not known"),
            Self::BadVector(vector) => write!(f, "the vector {vector:#x} cannot be used for a doorbell"),
            Self::BadRegion => f.write_str("the region is misaligned, out of range or too small for its layout"),
            Self::BadCpus => {
                f.write_str("the entry lists no CPU or too many, or its doorbell CPU is not listed, or has an id of more than 48 bits")
            }
        }
    }
}

impl core::error::Error for EntryError {}

impl DirectoryHeader {
    /// The header of a directory of `nr_instances` entries with room for `cpus_per_instance` CPUs each.
    ///
    /// `None` if a number is 0, or `nr_instances` is above 256, or `cpus_per_instance` is above [`MAX_ENTRY_CPUS`].
    pub const fn new(nr_instances: u32, cpus_per_instance: u32) -> Option<Self> {
        if nr_instances == 0
            || nr_instances as usize > crate::ids::MK_MAX_INSTANCES
            || cpus_per_instance == 0
            || cpus_per_instance > MAX_ENTRY_CPUS
        {
            return None;
        }
        let total_size = directory_size(nr_instances, cpus_per_instance);
        Some(Self {
            magic: MAGIC,
            version: VERSION,
            nr_instances,
            total_size,
            cpus_per_instance,
            reserved: 0,
            generation: 0,
            boot_cpu: 0,
            address: 0,
            reserved_too: 0,
        })
    }

    /// Checks this copy of a header (SPEC D-2), and returns it. `available` is the length of the mapped memory in bytes.
    pub const fn check(self, available: u64) -> Result<Self, DirectoryError> {
        if self.magic != MAGIC {
            return Err(DirectoryError::NoStamp(self.magic));
        }
        if self.version.major != VERSION.major {
            return Err(DirectoryError::Version(self.version));
        }
        match Self::new(self.nr_instances, self.cpus_per_instance) {
            Some(same) if same.total_size == self.total_size => {
                if self.total_size > available {
                    return Err(DirectoryError::TooSmall(self.total_size));
                }
                Ok(self)
            }
            _ => Err(DirectoryError::Geometry),
        }
    }

    /// Number of 64-bit words from one entry to the next.
    pub const fn entry_words(&self) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "a u32 times 8 fits LP64's usize (SPEC L-1)")]
        let bytes = entry_size(self.cpus_per_instance) as usize;
        bytes / 8
    }
}

const fn entry_size(cpus: u32) -> u64 {
    (size_of::<InstanceEntry>() as u64).wrapping_add((cpus as u64).wrapping_mul(8))
}

/// Bytes of a directory: 64 + `nr_instances` x (64 + 8 x `cpus_per_instance`) (SPEC D-2).
///
/// It does not overflow for counts that [`DirectoryHeader::new`] accepts.
pub const fn directory_size(nr_instances: u32, cpus_per_instance: u32) -> u64 {
    let entries = (nr_instances as u64).wrapping_mul(entry_size(cpus_per_instance));
    (size_of::<DirectoryHeader>() as u64).wrapping_add(entries)
}

/// A checked entry, without its list of CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceRecord {
    /// The instance.
    pub instance: InstanceId,
    /// Its current or last life.
    pub incarnation: Incarnation,
    /// Its state.
    pub state: State,
    /// The layout of its region.
    pub layout: Layout,
    /// Properties of its region.
    pub flags: EntryFlags,
    /// Its region; `None` if it has none.
    pub region: Option<PhysRange>,
    /// The CPU that a sender rings if it names no other CPU.
    pub doorbell_cpu: PhysCpuId,
    /// The vector to ring.
    pub vector: Vector,
    /// Number of CPUs that are listed after the entry.
    pub nr_cpus: u32,
}

impl InstanceRecord {
    /// The entry for this record, with the given `sequence`.
    pub const fn to_entry(self, sequence: u64) -> InstanceEntry {
        let (region_start, region_len) = match self.region {
            Some(r) => (r.start().0, r.len()),
            None => (0, 0),
        };
        InstanceEntry {
            sequence,
            instance: self.instance.get() as u32,
            incarnation: self.incarnation.get(),
            state: self.state as u32,
            layout: self.layout as u32,
            flags: self.flags.bits(),
            doorbell_vector: self.vector.get() as u32,
            region_start,
            region_len,
            doorbell_cpu: self.doorbell_cpu.0,
            nr_cpus: self.nr_cpus,
            reserved: 0,
        }
    }
}

impl InstanceEntry {
    /// Checks this copy of the entry at `index` (SPEC D-3). `capacity` is the number of CPUs that an entry has room for. It does
    /// not check the list of CPUs.
    pub fn check(&self, index: InstanceId, capacity: u32) -> Result<InstanceRecord, EntryError> {
        let state = State::from_u32(self.state).ok_or(EntryError::UnknownState(self.state))?;
        if state == State::Absent {
            return Err(EntryError::Absent);
        }
        if self.instance != u32::from(index.get()) {
            return Err(EntryError::WrongInstance(self.instance));
        }
        let incarnation = Incarnation::new(self.incarnation).ok_or(EntryError::NoIncarnation)?;
        let layout = Layout::from_u32(self.layout).ok_or(EntryError::UnknownLayout(self.layout))?;
        let vector = u8::try_from(self.doorbell_vector).ok().and_then(Vector::new);
        let vector = vector.ok_or(EntryError::BadVector(self.doorbell_vector))?;
        // The id of a doorbell CPU must fit into the word by which a receiver moves its doorbell (SPEC N-4).
        if self.nr_cpus == 0 || self.nr_cpus > capacity || self.doorbell_cpu >> 48 != 0 {
            return Err(EntryError::BadCpus);
        }
        Ok(InstanceRecord {
            instance: index,
            incarnation,
            state,
            layout,
            flags: EntryFlags::from_bits_truncate(self.flags),
            region: self.region(layout)?,
            doorbell_cpu: PhysCpuId(self.doorbell_cpu),
            vector,
            nr_cpus: self.nr_cpus,
        })
    }

    fn region(&self, layout: Layout) -> Result<Option<PhysRange>, EntryError> {
        let start = PhysAddr(self.region_start);
        match (self.region_start, self.region_len) {
            (0, 0) => Ok(None),
            (0, _) => Err(EntryError::BadRegion),
            (_, len) if len < layout.least() || !start.is_page_aligned() => Err(EntryError::BadRegion),
            (_, len) => PhysRange::new(start, len).map(Some).ok_or(EntryError::BadRegion),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> InstanceRecord {
        InstanceRecord {
            instance: InstanceId::new(3),
            incarnation: Incarnation::FIRST,
            state: State::Running,
            layout: Layout::RfcV2,
            flags: EntryFlags::EXCLUSIVE,
            region: PhysRange::new(PhysAddr(0x10_0000), 2176),
            doorbell_cpu: PhysCpuId(5),
            vector: Vector::RFC_V2,
            nr_cpus: 2,
        }
    }

    #[test]
    fn states_and_layouts_have_the_specs_numbers() {
        use State::*;
        let states = [0, 1, 2, 3, 4].map(State::from_u32);
        assert_eq!(states, [Absent, Starting, Running, Dead, Ending].map(Some));
        assert_eq!(
            states.map(|state| state.map(State::is_live)),
            [false, true, true, false, false].map(Some)
        );
        assert_eq!([5, u32::MAX].map(State::from_u32), [None; 2]);
        assert_eq!(
            [0, 1, 2, 3].map(Layout::from_u32),
            [None, Some(Layout::RfcV2), Some(Layout::Native), None]
        );
    }

    #[test]
    fn the_smallest_region_of_each_layout_is_taken() {
        for (layout, least) in [(Layout::RfcV2, 272), (Layout::Native, 4096)] {
            let region = PhysRange::new(PhysAddr(0x10_0000), least);
            let r = InstanceRecord { layout, region, ..record() };
            assert_eq!(r.to_entry(2).check(r.instance, 4), Ok(r));
            let small = InstanceEntry { region_len: least - 1, ..r.to_entry(2) };
            assert_eq!(small.check(r.instance, 4), Err(EntryError::BadRegion));
        }
    }

    #[test]
    fn a_record_survives_the_wire() {
        let r = record();
        assert_eq!(r.to_entry(8).check(r.instance, 4), Ok(r));
        let none = InstanceRecord { region: None, ..r };
        assert_eq!(none.to_entry(8).check(r.instance, 2), Ok(none));
    }

    #[test]
    fn each_bad_field_has_its_error() {
        use EntryError::*;
        let good = record().to_entry(2);
        let bad = |e: InstanceEntry| e.check(InstanceId::new(3), 4).unwrap_err();
        assert_eq!(bad(InstanceEntry { state: 0, ..good }), Absent);
        assert_eq!(bad(InstanceEntry { state: 5, ..good }), UnknownState(5));
        assert_eq!(bad(InstanceEntry { instance: 2, ..good }), WrongInstance(2));
        assert_eq!(bad(InstanceEntry { incarnation: 0, ..good }), NoIncarnation);
        assert_eq!(bad(InstanceEntry { layout: 9, ..good }), UnknownLayout(9));
        for v in [0, 0x1f, 0xff, 0x1ea] {
            assert_eq!(bad(InstanceEntry { doorbell_vector: v, ..good }), BadVector(v));
        }
        assert_eq!(bad(InstanceEntry { nr_cpus: 0, ..good }), BadCpus);
        assert_eq!(bad(InstanceEntry { nr_cpus: 5, ..good }), BadCpus);
        for (start, len) in [
            (0, 272),
            (0x1008, 272),
            (0x1000, 271),
            (0x1000, 0),
            (1 << 52, 272),
            (0xffff_ffff_ffff_f000, 8192),
        ] {
            let e = InstanceEntry { region_start: start, region_len: len, ..good };
            assert_eq!(bad(e), BadRegion, "{start:#x} {len}");
        }
    }

    #[test]
    fn a_header_is_checked_before_it_is_believed() {
        let h = DirectoryHeader::new(3, 2).unwrap();
        assert_eq!(h.total_size, 64 + 3 * 80);
        assert_eq!(h.entry_words(), 10);
        assert_eq!(h.check(4096), Ok(h));
        assert_eq!(h.check(h.total_size), Ok(h));
        assert_eq!(h.check(h.total_size - 1), Err(DirectoryError::TooSmall(h.total_size)));
        let bad = |h: DirectoryHeader| h.check(u64::MAX).unwrap_err();
        assert_eq!(bad(DirectoryHeader { magic: 7, ..h }), DirectoryError::NoStamp(7));
        let v2 = Version { major: 2, minor: 0 };
        assert_eq!(bad(DirectoryHeader { version: v2, ..h }), DirectoryError::Version(v2));
        // First counts that are out of bounds, with the size that follows from them. Then good counts with a wrong size.
        let beyond =
            [(0, 2), (257, 2), (3, 0), (3, 1025), (u32::MAX, 2)].map(|(n, c)| (n, c, directory_size(n, c)));
        for (n, c, size) in beyond.into_iter().chain([(3, 2, 305), (3, 2, 296), (3, 2, 0)]) {
            let h = DirectoryHeader { nr_instances: n, cpus_per_instance: c, total_size: size, ..h };
            assert_eq!(bad(h), DirectoryError::Geometry);
        }
        let newer = DirectoryHeader { version: Version { major: 1, minor: 7 }, ..h };
        assert_eq!(newer.check(4096), Ok(newer), "another minor version is accepted");
    }
}
