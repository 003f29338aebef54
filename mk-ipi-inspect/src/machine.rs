// SPDX-License-Identifier: MIT OR Apache-2.0
//! All that was found in the memory of a machine: the directory, the regions that it names, and regions that no directory names.

use crate::directory::{self, Directory, Instance};
use crate::finding::{Finding, Notes, Severity};
use crate::memory::{Memory, ReadError};
use crate::{beside, native, rfc_v2};
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
    /// The physical address of the region.
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
    /// The instance whose region this is, if a directory names the region.
    pub instance: Option<u8>,
    /// The region.
    #[serde(flatten)]
    pub region: Region,
}

/// What was found in a machine, or in the part of it that the caller asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The directories that were found. A machine uses only one.
    pub directories: Vec<Directory>,
    /// The regions that were found.
    pub regions: Vec<Owned>,
    /// Findings that do not belong to one directory or region.
    pub findings: Vec<Finding>,
}

/// What is at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory or a native region. The word at the address says which of the two.
    ByItsStamp,
    /// A directory, and the regions that it names.
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

    /// Explains what is at the address `at`. For each lane it lists at most `messages` unread messages.
    ///
    /// # Errors
    ///
    /// If a part of the directory or region is not in the file.
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
                    "The region cannot be explained. A dump of all memory contains it.",
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

    /// Adds the findings that follow from a comparison of each region with the directory.
    fn look_around(&mut self) {
        if self.directories.len() > 1 {
            let mut notes = Notes::of("machine", &mut self.findings);
            notes.suspect(
                "there is more than one directory",
                "Only one of them is in use. The others are copies, or are left from an earlier boot.",
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
                    beside::native(region, directory, instance, &mut notes);
                }
                (Region::RfcV2(region), Some((directory, instance))) => {
                    beside::slots(region, directory, instance, &mut notes);
                }
                (region, None) if !self.directories.is_empty() => {
                    notes.note(
                        "no directory names this region",
                        "The region is left from an earlier boot, or belongs to kernels that use another directory.",
                    );
                    if let Region::Native(region) = region {
                        beside::unnamed(region, &self.directories, &mut notes);
                    }
                }
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
