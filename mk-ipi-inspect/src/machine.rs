// SPDX-License-Identifier: MIT OR Apache-2.0
//! A whole machine: its directory, the regions in it, and regions that no directory names.

use crate::directory::{self, Directory, Instance};
use crate::finding::{Finding, Notes, Severity};
use crate::memory::{Memory, ReadError};
use crate::{native, rfc_v2};
use mk_ipi_abi::native::Attached;
use mk_ipi_abi::Incarnation;
use serde::Serialize;

/// A region of either layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "layout")]
pub enum Region {
    /// A native region, with lanes.
    Native(native::Region),
    /// An RFC v2 region, with slots.
    RfcV2(rfc_v2::Region),
}

impl Region {
    /// Its physical address.
    pub const fn at(&self) -> u64 {
        match self {
            Self::Native(region) => region.at,
            Self::RfcV2(region) => region.at,
        }
    }

    fn findings(&self) -> &[Finding] {
        match self {
            Self::Native(region) => &region.findings,
            Self::RfcV2(region) => &region.findings,
        }
    }
}

/// A region, and the instance that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Owned {
    /// The instance that receives here, if a directory names it.
    pub instance: Option<u8>,
    /// The region.
    #[serde(flatten)]
    pub region: Region,
}

/// A machine, or the part of it that was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The directories that were found. A machine has only one.
    pub directories: Vec<Directory>,
    /// The regions that were found.
    pub regions: Vec<Owned>,
    /// Findings that do not belong to one directory or region.
    pub findings: Vec<Finding>,
}

/// What lies at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory or a native region. The first word tells which.
    ByItsStamp,
    /// A directory, and the regions in it.
    Directory,
    /// A native region.
    Native,
    /// An RFC v2 region with this many slots.
    RfcV2(u32),
}

impl Machine {
    /// Searches all of the memory for directories and native regions. For each lane it lists at most `messages` unread messages.
    ///
    /// # Errors
    ///
    /// If the memory cannot be read.
    pub fn find(memory: &Memory, messages: usize) -> Result<Self, ReadError> {
        let (mut directories, mut regions) = (vec![], vec![]);
        memory.scan(|at, word| {
            if directory::is_magic(word) {
                directories.push(at);
            } else if native::is_magic(word) {
                regions.push(at);
            }
        })?;
        let mut machine = Self::default();
        for at in directories {
            machine.add_directory(memory, at, messages)?;
        }
        for at in regions {
            if !machine.regions.iter().any(|owned| owned.region.at() == at) {
                let region = native::region(memory, at, None, messages)?;
                machine.add(None, Region::Native(region));
            }
        }
        machine.look_around();
        Ok(machine)
    }

    /// Explains what lies at one address.
    ///
    /// # Errors
    ///
    /// If a part of it is not in the file.
    pub fn at(memory: &Memory, at: u64, kind: Kind, messages: usize) -> Result<Self, ReadError> {
        let mut machine = Self::default();
        let is_directory = match kind {
            Kind::Directory => true,
            Kind::ByItsStamp => memory.words(at, 1)?.first().is_some_and(|word| directory::is_magic(*word)),
            Kind::Native | Kind::RfcV2(_) => false,
        };
        match kind {
            _ if is_directory => machine.add_directory(memory, at, messages)?,
            Kind::RfcV2(slots) => {
                let len = mk_ipi_abi::rfc_v2::region_size(slots);
                machine.add(None, Region::RfcV2(rfc_v2::region(memory, at, len)?));
            }
            _ => machine.add(None, Region::Native(native::region(memory, at, None, messages)?)),
        }
        machine.look_around();
        Ok(machine)
    }

    fn add(&mut self, instance: Option<u8>, region: Region) {
        self.regions.push(Owned { instance, region });
    }

    fn add_directory(&mut self, memory: &Memory, at: u64, messages: usize) -> Result<(), ReadError> {
        let directory = directory::directory(memory, at)?;
        for instance in &directory.instances {
            let Some((at, len)) = instance.region else { continue };
            if memory.available(at) < len {
                let mut notes = Notes::of(format!("region {at:#x}"), &mut self.findings);
                notes.note(
                    format!("the region of instance {} is not in the file, or only in part", instance.id),
                    "It cannot be explained. A dump of all memory contains it.",
                );
                continue;
            }
            let region = match instance.layout {
                "native" => Region::Native(native::region(memory, at, Some(len), messages)?),
                _ => Region::RfcV2(rfc_v2::region(memory, at, len)?),
            };
            self.add(Some(instance.id), region);
        }
        self.directories.push(directory);
        Ok(())
    }

    /// Compares each region with the directory.
    fn look_around(&mut self) {
        if self.directories.len() > 1 {
            let mut notes = Notes::of("machine", &mut self.findings);
            notes.suspect(
                "there is more than one directory",
                "One of them is a copy, or left from an earlier boot.",
            );
        }
        for owned in &self.regions {
            let place = format!("region {:#x}", owned.region.at());
            let mut notes = Notes::of(place, &mut self.findings);
            let directory = self.directories.iter().find_map(|directory| {
                let is_its = |i: &&Instance| {
                    Some(i.id) == owned.instance && i.region.map(|r| r.0) == Some(owned.region.at())
                };
                Some((directory, directory.instances.iter().find(is_its)?))
            });
            match (&owned.region, directory) {
                (Region::Native(region), Some((directory, instance))) => {
                    beside_native(region, directory, instance, &mut notes);
                }
                (Region::RfcV2(region), Some((directory, instance))) => {
                    beside_slots(region, directory, instance, &mut notes);
                }
                (_, None) if !self.directories.is_empty() => notes.note(
                    "no directory names this region",
                    "It is left from an earlier boot, or belongs to kernels that use another directory.",
                ),
                _ => {}
            }
        }
    }

    /// All findings, the worst first.
    pub fn findings(&self) -> Vec<&Finding> {
        let own = self.directories.iter().flat_map(|directory| &directory.findings);
        let of_regions = self.regions.iter().flat_map(|owned| owned.region.findings());
        let mut all: Vec<_> = own.chain(of_regions).chain(&self.findings).collect();
        all.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        all
    }

    /// True if anything is broken.
    pub fn is_broken(&self) -> bool {
        self.findings().iter().any(|finding| finding.severity == Severity::Broken)
    }
}

fn beside_native(region: &native::Region, directory: &Directory, instance: &Instance, notes: &mut Notes<'_>) {
    if let Some(receiver) = &region.receiver {
        lives(receiver.life, instance, notes);
        if let Some((cpu, vector)) = receiver.bell.filter(|(cpu, _)| !instance.cpus.contains(cpu)) {
            notes.suspect(
                format!("it wants to be rung at CPU {cpu}, vector {vector:#x}, but in the directory that CPU is not its own"),
                "It is rung at the doorbell CPU in the directory, until the directory gives it that CPU (SPEC N-12).",
            );
        }
    }
    let generation = directory.generation.and_then(|generation| u32::try_from(generation).ok()).unwrap_or(0);
    for lane in &region.lanes {
        let sender = directory.instances.iter().find(|sender| u32::from(sender.id) == lane.instance);
        let Some(attached) = lane.header.attached.and_then(Incarnation::new) else { continue };
        match sender {
            None => notes.note(
                format!("lane {}: the directory has no such instance", lane.instance),
                "Its sender has gone, or is not in this machine. The receiver does not look at its lane (SPEC N-10).",
            ),
            Some(sender) if !sender.live => notes.note(
                format!("lane {}: its sender is {}, and has not detached", lane.instance, sender.state),
                "What it published is handed out. The region can end when the CPUs of that sender have stopped (SPEC D-10).",
            ),
            Some(sender) if sender.incarnation != attached.get() => notes.suspect(
                format!("lane {}: life {} is attached, the directory names life {}", lane.instance, attached.get(), sender.incarnation),
                "A new life of the sender has just begun, or has not attached yet (SPEC D-5).",
            ),
            Some(_) => {
                let attached = Attached { incarnation: attached, generation: lane.header.followed };
                if lane.header.followed != 0 && !attached.has_followed(generation) {
                    notes.suspect(
                        format!("lane {}: its sender has followed the directory to generation {}, not to {generation}", lane.instance, lane.header.followed),
                        "It can still ring CPUs and use regions that an older generation gave to it. The host waits for it before it gives them to another kernel (SPEC D-7, D-10).",
                    );
                }
            }
        }
    }
}

fn lives(life: Option<u32>, instance: &Instance, notes: &mut Notes<'_>) {
    let Some(life) = life.filter(|life| *life != instance.incarnation) else { return };
    if instance.incarnation.wrapping_sub(life) < 1 << 31 {
        notes.suspect(
            format!("LIFE names life {life}, the directory life {}", instance.incarnation),
            "The life that the directory names has not begun here. No kernel rings it; when it begins, it looks without a doorbell (SPEC N-12).",
        );
    } else {
        notes.broken(
            format!("LIFE names life {life}, which is newer than the directory's {}", instance.incarnation),
            "The host has not written this life to the directory, or another kernel uses the region.",
        );
    }
}

fn beside_slots(region: &rfc_v2::Region, directory: &Directory, instance: &Instance, notes: &mut Notes<'_>) {
    for slot in &region.used {
        if !instance.cpus.contains(&slot.cpu) {
            notes.suspect(
                format!("slot {}: CPU {} is not one of instance {}", slot.cpu, slot.cpu, instance.id),
                "No kernel reads this slot (SPEC L-5).",
            );
        }
        let rfc_v2::Content::Claimed { instance: by, incarnation } = slot.content else { continue };
        let claimer = directory.instances.iter().find(|claimer| claimer.id == by);
        if !claimer.is_some_and(|claimer| claimer.live && claimer.incarnation == incarnation) {
            notes.broken(
                format!("slot {}: life {incarnation} of instance {by}, which claims it, is over", slot.cpu),
                "All senders get `Busy` there until the host frees the slot (SPEC X-5).",
            );
        } else if !instance.exclusive {
            notes.broken(
                format!("slot {} is claimed, and the region is not exclusive", slot.cpu),
                "The kernels do not agree on the policy: one of them uses another directory (SPEC X-1).",
            );
        }
    }
}
