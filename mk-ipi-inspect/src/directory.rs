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

/// Words of the header, and of an entry without its CPUs.
const WORDS: usize = 8;
/// How often an entry is read while its host changes it (SPEC D-4).
const TRIES: usize = 64;

/// An instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Instance {
    /// Its id.
    pub id: u8,
    /// The number of its present life.
    pub incarnation: u32,
    /// Its state (SPEC D-5).
    pub state: &'static str,
    /// True if it is starting or running.
    pub live: bool,
    /// The layout of its region.
    pub layout: &'static str,
    /// True if senders claim a slot before they write to it.
    pub exclusive: bool,
    /// True if its vector rings it only at its doorbell CPU (SPEC S-7).
    pub one_doorbell: bool,
    /// The address of its region, and how many bytes that has.
    pub region: Option<(u64, u64)>,
    /// The CPU at which it is rung.
    pub doorbell_cpu: u64,
    /// The vector with which it is rung.
    pub vector: u8,
    /// All its CPUs.
    pub cpus: Vec<u64>,
}

impl Instance {
    /// True if its region is about to end (SPEC D-8).
    pub(crate) fn is_ending(&self) -> bool {
        self.state == "ending"
    }
}

/// A directory, explained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Directory {
    /// Its physical address.
    pub at: u64,
    /// The generation, a number that changes with each change of an entry. `None` if the header is refused.
    pub generation: Option<u64>,
    /// The physical id of the machine's boot CPU, if the host has written it.
    pub boot_cpu: Option<u64>,
    /// How many entries it has.
    pub room: u32,
    /// The instances whose entries can be read.
    pub instances: Vec<Instance>,
    /// What was found.
    pub findings: Vec<Finding>,
}

/// True if a page that begins with this word can be the first page of a directory.
pub const fn is_magic(word: u64) -> bool {
    word == MAGIC
}

/// Explains the directory at `at`.
///
/// # Errors
///
/// If a part of it is not in the file.
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
            format!("it says that it lies at {:#x}", header.address),
            "This is a copy, or --base is not the address of the dump's first byte.",
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
            "it has no entry for instance 0, the host",
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

fn refused(mut notes: Notes<'_>, error: DirectoryError) {
    let what = match error {
        DirectoryError::NoStamp(found) => format!("no directory: the first eight bytes are {found:#018x}"),
        DirectoryError::Version(v) => format!("a directory of version {}.{}", v.major, v.minor),
        DirectoryError::Geometry => {
            "its counts and its size contradict each other, or are out of bounds".into()
        }
        DirectoryError::TooSmall(needed) => format!("{needed} bytes are needed, but there are fewer"),
    };
    notes.broken(what, "No kernel can use this directory (SPEC D-2).");
}

fn bad_entry(mut notes: Notes<'_>, error: EntryError) {
    let what = match error {
        EntryError::Changing => {
            return notes.suspect(
                "its host is changing it",
                "Kernels read it again. If this lasts, the host died while it wrote the entry: no kernel can follow the directory any more (SPEC D-4).",
            );
        }
        EntryError::OutOfRange => "it is beyond the end of the directory".into(),
        EntryError::Absent => return,
        EntryError::WrongInstance(id) => format!("it names instance {id}"),
        EntryError::NoIncarnation => "its incarnation is 0".into(),
        EntryError::UnknownState(n) => format!("its state is {n}, which is not a state"),
        EntryError::UnknownLayout(n) => format!("its layout is {n}, which is unknown"),
        EntryError::BadVector(n) => format!("vector {n:#x} cannot be a doorbell"),
        EntryError::BadRegion => "its region is misaligned, out of range or too small".into(),
        EntryError::BadCpus => {
            "its doorbell CPU is not among its CPUs or has an id of more than 48 bits, or it has no CPU or more than an entry has room for".into()
        }
    };
    notes.broken(
        what,
        "No kernel can use this entry. A kernel that joins leaves this instance out; one that knows it cannot follow the directory until the host writes the entry again (SPEC D-3, D-7).",
    );
}

/// Finds what cannot be in one entry of a directory at `at` (SPEC D-9).
fn contradictions(instance: &Instance, at: u64, len: u64, notes: &mut Notes<'_>) {
    if instance.region.is_some_and(|region| overlap(region, (at, len))) {
        notes.broken(
            format!("the region of instance {} overlaps the directory", instance.id),
            "Kernels that use the region write over the directory. Its host must write it at another place (SPEC D-9).",
        );
    }
    let mut cpus = instance.cpus.iter().enumerate();
    if let Some((_, cpu)) = cpus.find(|(n, cpu)| instance.cpus.iter().take(*n).any(|other| other == *cpu)) {
        notes.broken(
            format!("CPU {cpu} is in the list of instance {} twice", instance.id),
            "No honest host writes this. Kernels use the entry as if the CPU were there once (SPEC D-9).",
        );
    }
}

fn overlap((a, a_len): (u64, u64), (b, b_len): (u64, u64)) -> bool {
    a < b.saturating_add(b_len) && b < a.saturating_add(a_len)
}

/// Finds pairs of entries that contradict each other (SPEC D-9).
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
