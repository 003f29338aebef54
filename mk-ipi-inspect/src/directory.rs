// SPDX-License-Identifier: MIT OR Apache-2.0
//! The directory of a machine (SPEC chapter D).

use crate::finding::{Finding, Notes};
use crate::memory::{Memory, ReadError};
use mk_ipi_abi::directory::{
    DirectoryError, DirectoryHeader, EntryError, EntryFlags, InstanceEntry, InstanceRecord, Layout, State,
    MAGIC,
};
use mk_ipi_abi::InstanceId;
use serde::Serialize;

/// Number of words of the header. An entry without its list of CPUs has the same number of words.
const WORDS: usize = 8;
/// How often an entry is read again while the host changes it (SPEC D-4).
const TRIES: usize = 64;

/// An instance, as its entry in the directory describes it (SPEC D-3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Instance {
    /// The instance's id.
    pub id: u8,
    /// The incarnation: the number of the present life.
    pub incarnation: u32,
    /// The state (SPEC D-5).
    pub state: &'static str,
    /// True if the state is starting or running.
    pub live: bool,
    /// The layout of the region.
    pub layout: &'static str,
    /// True if the slots of the region are exclusive: senders claim a slot before they write into it (SPEC X-1).
    pub exclusive: bool,
    /// True if the instance can be rung at its doorbell CPU only (SPEC S-7).
    pub one_doorbell: bool,
    /// The physical address of the region, and its size in bytes. `None` if the instance has no region.
    pub region: Option<(u64, u64)>,
    /// The physical id of the CPU to which doorbells are sent.
    pub doorbell_cpu: u64,
    /// The vector of the doorbell.
    pub vector: u8,
    /// The physical ids of all CPUs of the instance.
    pub cpus: Vec<u64>,
}

impl Instance {
    /// True if the instance's region is about to end (SPEC D-8).
    pub(crate) fn is_ending(&self) -> bool {
        self.state == "ending"
    }
}

/// What was read from a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Directory {
    /// The physical address of the directory.
    pub at: u64,
    /// The generation, a number that changes with each change of an entry (SPEC D-7). `None` if the header is not valid.
    pub generation: Option<u64>,
    /// The physical id of the machine's boot CPU, if the host has written it.
    pub boot_cpu: Option<u64>,
    /// The number of entries, used or not.
    pub room: u32,
    /// The instances whose entries are valid and not absent.
    pub instances: Vec<Instance>,
    /// What is wrong or remarkable in this directory.
    pub findings: Vec<Finding>,
}

/// True if a page that begins with this word can be the first page of a directory.
pub const fn is_magic(word: u64) -> bool {
    word == MAGIC
}

/// Reads and checks the directory at address `at`.
///
/// # Errors
///
/// If a part of the directory is not in the file.
pub fn directory(memory: &Memory, at: u64) -> Result<Directory, ReadError> {
    let mut directory =
        Directory { at, generation: None, boot_cpu: None, room: 0, instances: vec![], findings: vec![] };
    let place = format!("directory {at:#x}");
    let words: [u64; WORDS] = memory.words(at, WORDS)?.try_into().unwrap_or_default();
    let header: DirectoryHeader = zerocopy::transmute!(words);
    let header = match header.check(memory.available(at)) {
        Ok(header) => header,
        Err(error) => {
            refused(Notes::of(&place, &mut directory.findings), error);
            return Ok(directory);
        }
    };
    let mut notes = Notes::of(&place, &mut directory.findings);
    if header.address != 0 && header.address != at {
        notes.broken(
            format!("the header says that the directory is at {:#x}", header.address),
            "This is a copy of the directory, or --base is not the address of the dump's first byte.",
        );
    }
    directory.generation = Some(header.generation);
    directory.boot_cpu = header.boot_cpu.checked_sub(1);
    directory.room = header.nr_instances;
    let mut host_is_absent = false;
    for id in (0..=u8::MAX).take(header.nr_instances as usize) {
        let read = entry(memory, at, &header, id)?;
        match read {
            Ok(instance) => directory.instances.push(instance),
            Err(EntryError::Absent) => host_is_absent |= id == InstanceId::HOST.get(),
            Err(error) => {
                bad_entry(Notes::of(format!("{place}, entry {id}"), &mut directory.findings), error)
            }
        }
    }
    let mut notes = Notes::of(&place, &mut directory.findings);
    for instance in &directory.instances {
        contradictions(instance, at, header.total_size, &mut notes);
    }
    conflicts(&directory.instances, &mut notes);
    if host_is_absent {
        notes.suspect(
            "the directory has no entry for instance 0, the host",
            "Kernels that join do not attach the host. They cannot send to it, and it cannot tell them to stop (SPEC D-6, N-15).",
        );
    }
    Ok(directory)
}

/// Reads an entry as a kernel does (SPEC D-4).
fn entry(
    memory: &Memory,
    at: u64,
    header: &DirectoryHeader,
    id: u8,
) -> Result<Result<Instance, EntryError>, ReadError> {
    let words = header.entry_words();
    let at = at + 8 * (WORDS + usize::from(id) * words) as u64;
    let mut found = memory.words(at, words)?;
    for _ in 0..TRIES {
        let again = if memory.is_live() { memory.words(at, words)? } else { found.clone() };
        let settled = again == found && again.first().is_some_and(|sequence| sequence % 2 == 0);
        found = again;
        if settled || !memory.is_live() {
            break;
        }
    }
    if found.first().is_some_and(|sequence| sequence % 2 == 1) {
        return Ok(Err(EntryError::Changing));
    }
    let Some((first, cpus)) = found.split_first_chunk::<WORDS>() else {
        return Ok(Err(EntryError::OutOfRange));
    };
    let entry: InstanceEntry = zerocopy::transmute!(*first);
    Ok(entry.check(InstanceId::new(id), header.cpus_per_instance).and_then(|record| instance(&record, cpus)))
}

/// Makes an [`Instance`] of an entry that was checked, and of its list of CPUs.
fn instance(record: &InstanceRecord, cpus: &[u64]) -> Result<Instance, EntryError> {
    let cpus: Vec<u64> = cpus.iter().take(record.nr_cpus as usize).copied().collect();
    if !cpus.contains(&record.doorbell_cpu.0) {
        return Err(EntryError::BadCpus);
    }
    Ok(Instance {
        id: record.instance.get(),
        incarnation: record.incarnation.get(),
        state: match record.state {
            State::Absent => "absent",
            State::Starting => "starting",
            State::Running => "running",
            State::Dead => "dead",
            State::Ending => "ending",
        },
        live: record.state.is_live(),
        layout: match record.layout {
            Layout::RfcV2 => "rfc-v2",
            Layout::Native => "native",
        },
        exclusive: record.flags.contains(EntryFlags::EXCLUSIVE),
        one_doorbell: record.flags.contains(EntryFlags::ONE_DOORBELL),
        region: record.region.map(|range| (range.start().0, range.len())),
        doorbell_cpu: record.doorbell_cpu.0,
        vector: record.vector.get(),
        cpus,
    })
}

/// Adds the finding that the header is not valid.
fn refused(mut notes: Notes<'_>, error: DirectoryError) {
    let what = match error {
        DirectoryError::NoStamp(found) => {
            format!("this is not a directory: the first eight bytes are {found:#018x}")
        }
        DirectoryError::Version(v) => {
            format!("the directory has version {}.{}, which is not supported", v.major, v.minor)
        }
        DirectoryError::Geometry => {
            "the counts and the total size in the header contradict each other, or are out of bounds".into()
        }
        DirectoryError::TooSmall(needed) => {
            format!("the directory needs {needed} bytes, and the file contains fewer")
        }
    };
    notes.broken(what, "No kernel can use this directory (SPEC D-2).");
}

/// Adds the finding that an entry is not valid.
fn bad_entry(mut notes: Notes<'_>, error: EntryError) {
    let what = match error {
        EntryError::Changing => {
            return notes.suspect(
                "the host is changing the entry",
                "Kernels read the entry again. If this lasts, the host died while it wrote the entry: no kernel can follow the directory any more (SPEC D-4).",
            );
        }
        EntryError::OutOfRange => "the entry is beyond the end of the directory".into(),
        EntryError::Absent => return,
        EntryError::WrongInstance(id) => format!("the entry has the id of instance {id}"),
        EntryError::NoIncarnation => "the incarnation is 0".into(),
        EntryError::UnknownState(n) => format!("the state is {n}, which is not a valid state"),
        EntryError::UnknownLayout(n) => format!("the layout of the region is {n}, which is not a known layout"),
        EntryError::BadVector(n) => format!("the doorbell vector is {n:#x}, which is not allowed"),
        EntryError::BadRegion => "the region is misaligned, out of range or too small".into(),
        EntryError::BadCpus => {
            "the doorbell CPU is not in the list of CPUs or has an id of more than 48 bits, or the list is empty or longer than an entry has room for".into()
        }
    };
    notes.broken(
        what,
        "No kernel can use this entry. A kernel that joins leaves this instance out. A kernel that has attached this instance cannot follow the directory until the host writes the entry again (SPEC D-3, D-7).",
    );
}

/// Adds findings if an entry contains what SPEC D-9 forbids. The directory is at address `at`, and has `len` bytes.
fn contradictions(instance: &Instance, at: u64, len: u64, notes: &mut Notes<'_>) {
    if instance.region.is_some_and(|region| overlap(region, (at, len))) {
        notes.broken(
            format!("the region of instance {} overlaps the directory", instance.id),
            "Kernels that use the region write over the directory. The host must put the region at another address (SPEC D-9).",
        );
    }
    let mut cpus = instance.cpus.iter().enumerate();
    if let Some((_, cpu)) = cpus.find(|(n, cpu)| instance.cpus.iter().take(*n).any(|other| other == *cpu)) {
        notes.broken(
            format!("CPU {cpu} is in the list of instance {} twice", instance.id),
            "No correct host writes this. Kernels use the entry as if the CPU were in the list once (SPEC D-9).",
        );
    }
}

/// True if two ranges, each given by its start and its length, have a byte in common.
fn overlap((a, a_len): (u64, u64), (b, b_len): (u64, u64)) -> bool {
    a < b.saturating_add(b_len) && b < a.saturating_add(a_len)
}

/// Adds findings about pairs of entries that contradict each other (SPEC D-9).
fn conflicts(instances: &[Instance], notes: &mut Notes<'_>) {
    for (n, one) in instances.iter().enumerate() {
        for other in instances.iter().skip(n + 1) {
            if one.region.zip(other.region).is_some_and(|(a, b)| overlap(a, b)) {
                notes.broken(
                    format!("the regions of instances {} and {} overlap", one.id, other.id),
                    "Messages to one instance are written into the region of the other (SPEC D-9).",
                );
            }
            let both = one.live && other.live;
            if let Some(cpu) = one.cpus.iter().find(|cpu| both && other.cpus.contains(cpu)) {
                notes.broken(
                    format!("instances {} and {} both have CPU {cpu}", one.id, other.id),
                    "A doorbell for one instance can arrive at the other (SPEC D-9).",
                );
            }
        }
    }
}
