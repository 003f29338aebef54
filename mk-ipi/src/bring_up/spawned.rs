// SPDX-License-Identifier: MIT OR Apache-2.0
//! Brings up a spawned kernel from its command line: see [`bring_up_spawned`](crate::EndpointExt::bring_up_spawned).

use super::Mapped;
use crate::blocking::Deadline;
use crate::ext::{AnyEndpoint, WordOf};
use core::fmt;
use mk_ipi_core::abi::boot_param::{mk_ipi_directory, mk_ipi_shared, BootParamError};
use mk_ipi_core::abi::directory::{DirectoryError, DirectoryHeader};
use mk_ipi_core::abi::{Incarnation, InstanceId, PhysAddr, PhysRange};
use mk_ipi_core::directory::Directory;
use mk_ipi_core::platform::{Access, MapError, PhysMemory, ThisCpu};
use mk_ipi_core::JoinError;

/// The result of [`bring_up_spawned`](crate::EndpointExt::bring_up_spawned).
#[derive(Debug)]
pub struct Spawned<W: 'static> {
    /// The instance of this kernel.
    pub me: InstanceId,
    /// The incarnation of this kernel.
    pub incarnation: Incarnation,
    /// The number of instances that were added, including this kernel.
    pub instances: usize,
    /// The directory. Pass it to [`follow`](mk_ipi_core::Endpoint::follow).
    pub directory: Directory<'static, W>,
}

/// Why a spawned kernel could not join. The steps that were done are undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpawnedError {
    /// The value of `mk_ipi_shared=` is wrong.
    Shared(BootParamError),
    /// `mk_ipi_shared=` is not on the command line: the host has given no region to this kernel.
    NoRegion,
    /// The value of `mk_ipi_directory=` is wrong.
    DirectoryParam(BootParamError),
    /// `mk_ipi_directory=` is not on the command line.
    NoDirectory,
    /// The memory that `mk_ipi_directory=` names cannot be mapped.
    Map(MapError),
    /// The memory that `mk_ipi_directory=` names has no directory, or one that this version of mk-ipi cannot read.
    Directory(DirectoryError),
    /// The endpoint could not join. [`JoinError::Changing`] means that the host was still changing an entry at the deadline.
    Join(JoinError),
}

impl fmt::Display for SpawnedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shared(e) => write!(f, "the value of mk_ipi_shared= is wrong: {e}"),
            Self::NoRegion => f.write_str("mk_ipi_shared= is not on the command line"),
            Self::DirectoryParam(e) => write!(f, "the value of mk_ipi_directory= is wrong: {e}"),
            Self::NoDirectory => f.write_str("mk_ipi_directory= is not on the command line"),
            Self::Map(e) => write!(f, "the directory cannot be mapped: {e}"),
            Self::Directory(e) => write!(f, "mk_ipi_directory= names no valid directory: {e}"),
            Self::Join(e) => write!(f, "this kernel cannot join the others: {e}"),
        }
    }
}

impl core::error::Error for SpawnedError {}

/// Maps the directory that the command line names, and returns it. It stays mapped, read-only, as long as the kernel runs. May
/// sleep.
///
/// Use this if your platform needs the directory before the kernel joins. Otherwise call only
/// [`bring_up_spawned`](crate::EndpointExt::bring_up_spawned), which also maps the directory.
///
/// # Errors
/// `DirectoryParam`, `NoDirectory`, `Map` and `Directory` of [`SpawnedError`]. Nothing stays mapped.
pub fn find_directory<P: PhysMemory>(
    platform: &P,
    command_line: &[u8],
) -> Result<Directory<'static, P::Word>, SpawnedError> {
    let mapped = map_directory(platform, command_line)?;
    // SAFETY: if `open` fails, the words are not used any more. Otherwise the mapping is kept.
    let directory = Directory::open(unsafe { mapped.words_to_keep() }).map_err(SpawnedError::Directory)?;
    mapped.keep();
    Ok(directory)
}

/// Maps the directory that the command line names.
fn map_directory<'p, P: PhysMemory>(
    platform: &'p P,
    command_line: &[u8],
) -> Result<Mapped<'p, P>, SpawnedError> {
    let at = mk_ipi_directory(command_line).map_err(SpawnedError::DirectoryParam)?;
    let at = at.ok_or(SpawnedError::NoDirectory)?;
    // Map only the header first. It gives the total size, which is limited (SPEC D-2).
    let len = match Directory::open(map(platform, at, size_of::<DirectoryHeader>() as u64)?.words()) {
        Err(DirectoryError::TooSmall(len)) => len,
        Err(e) => return Err(SpawnedError::Directory(e)),
        // This cannot happen, because the total size is larger than the header.
        Ok(_) => return Err(SpawnedError::Directory(DirectoryError::Geometry)),
    };
    map(platform, at, len)
}

/// Maps `len` bytes at `at`, read-only.
fn map<P: PhysMemory>(platform: &P, at: PhysAddr, len: u64) -> Result<Mapped<'_, P>, SpawnedError> {
    let range = PhysRange::new(at, len).ok_or(SpawnedError::Map(MapError::NotAllowed))?;
    Mapped::new(platform, range, Access::ReadOnly).map_err(SpawnedError::Map)
}

/// Implements [`bring_up_spawned`](crate::EndpointExt::bring_up_spawned).
pub(crate) fn start<E: AnyEndpoint + ?Sized>(
    endpoint: &E,
    command_line: &[u8],
    deadline: &mut Deadline<impl FnMut() -> u64>,
    mut left_out: impl FnMut(InstanceId, JoinError),
) -> Result<Spawned<WordOf<E>>, SpawnedError> {
    let shared = mk_ipi_shared(command_line).map_err(SpawnedError::Shared)?;
    let shared = shared.ok_or(SpawnedError::NoRegion)?;
    let mapped = map_directory(endpoint.platform(), command_line)?;
    // SAFETY: on an error this function drops the directory, and nothing uses the words after that. On success the mapping is
    // kept.
    let directory = Directory::open(unsafe { mapped.words_to_keep() }).map_err(SpawnedError::Directory)?;
    let instances = loop {
        match endpoint.join_and(shared, &directory, &mut left_out) {
            Ok(instances) => break instances,
            // The host is changing an entry. If it died meanwhile, the change never ends, so the wait needs the deadline.
            Err(JoinError::Changing(_)) if !deadline.has_passed() => endpoint.platform().relax(),
            Err(e) => return Err(SpawnedError::Join(e)),
        }
    };
    let (me, incarnation) = endpoint.identity().ok_or(SpawnedError::Join(JoinError::NotListed(shared)))?;
    mapped.keep();
    Ok(Spawned { me, incarnation, instances, directory })
}
