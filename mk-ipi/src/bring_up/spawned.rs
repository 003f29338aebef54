// SPDX-License-Identifier: MIT OR Apache-2.0
//! A spawned kernel, from its command line: see [`bring_up_spawned`](crate::EndpointExt::bring_up_spawned).

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

/// A spawned kernel that has taken its place.
#[derive(Debug)]
pub struct Spawned<W: 'static> {
    /// Who we are.
    pub me: InstanceId,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Instances that were added, ourselves included.
    pub instances: usize,
    /// The directory, to [`follow`](mk_ipi_core::Endpoint::follow).
    pub directory: Directory<'static, W>,
}

/// Why a spawned kernel could not take its place. Nothing is left of what was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpawnedError {
    /// `mk_ipi_shared=` makes no sense.
    Shared(BootParamError),
    /// There is no `mk_ipi_shared=`: nobody has given this kernel a region.
    NoRegion,
    /// `mk_ipi_directory=` makes no sense.
    DirectoryParam(BootParamError),
    /// There is no `mk_ipi_directory=`.
    NoDirectory,
    /// The memory that `mk_ipi_directory=` names cannot be mapped.
    Map(MapError),
    /// There is no directory in it that this build can read.
    Directory(DirectoryError),
    /// The endpoint could not join. [`JoinError::Changing`] is the deadline that passed.
    Join(JoinError),
}

impl fmt::Display for SpawnedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shared(e) => write!(f, "mk_ipi_shared= makes no sense: {e}"),
            Self::NoRegion => f.write_str("there is no mk_ipi_shared= on the command line"),
            Self::DirectoryParam(e) => write!(f, "mk_ipi_directory= makes no sense: {e}"),
            Self::NoDirectory => f.write_str("there is no mk_ipi_directory= on the command line"),
            Self::Map(e) => write!(f, "the directory cannot be mapped: {e}"),
            Self::Directory(e) => write!(f, "there is no directory where mk_ipi_directory= says: {e}"),
            Self::Join(e) => write!(f, "this kernel cannot join the others: {e}"),
        }
    }
}

impl core::error::Error for SpawnedError {}

/// The directory that the command line names, mapped read-only for as long as the kernel lives. May sleep.
///
/// For a kernel whose platform is to know the directory before it joins; [`bring_up_spawned`](crate::EndpointExt::bring_up_spawned) does both.
///
/// # Errors
/// `DirectoryParam`, `NoDirectory`, `Map` and `Directory` of [`SpawnedError`]. Nothing stays mapped.
pub fn find_directory<P: PhysMemory>(
    platform: &P,
    command_line: &[u8],
) -> Result<Directory<'static, P::Word>, SpawnedError> {
    let mapped = map_directory(platform, command_line)?;
    // SAFETY: used behind this only if it is kept.
    let directory = Directory::open(unsafe { mapped.words_to_keep() }).map_err(SpawnedError::Directory)?;
    mapped.keep();
    Ok(directory)
}

fn map_directory<'p, P: PhysMemory>(
    platform: &'p P,
    command_line: &[u8],
) -> Result<Mapped<'p, P>, SpawnedError> {
    let at = mk_ipi_directory(command_line).map_err(SpawnedError::DirectoryParam)?;
    let at = at.ok_or(SpawnedError::NoDirectory)?;
    // The header says how long the whole is, which is bounded (SPEC D-2).
    let len = match Directory::open(map(platform, at, size_of::<DirectoryHeader>() as u64)?.words()) {
        Err(DirectoryError::TooSmall(len)) => len,
        Err(e) => return Err(SpawnedError::Directory(e)),
        // Not even one entry fits into a header.
        Ok(_) => return Err(SpawnedError::Directory(DirectoryError::Geometry)),
    };
    map(platform, at, len)
}

fn map<P: PhysMemory>(platform: &P, at: PhysAddr, len: u64) -> Result<Mapped<'_, P>, SpawnedError> {
    let range = PhysRange::new(at, len).ok_or(SpawnedError::Map(MapError::NotAllowed))?;
    Mapped::new(platform, range, Access::ReadOnly).map_err(SpawnedError::Map)
}

/// See [`bring_up_spawned`](crate::EndpointExt::bring_up_spawned).
pub(crate) fn start<E: AnyEndpoint + ?Sized>(
    endpoint: &E,
    command_line: &[u8],
    deadline: &mut Deadline<impl FnMut() -> u64>,
    mut left_out: impl FnMut(InstanceId, JoinError),
) -> Result<Spawned<WordOf<E>>, SpawnedError> {
    let shared = mk_ipi_shared(command_line).map_err(SpawnedError::Shared)?;
    let shared = shared.ok_or(SpawnedError::NoRegion)?;
    let mapped = map_directory(endpoint.platform(), command_line)?;
    // SAFETY: on an error this function ends, and the directory with it; else the words are kept.
    let directory = Directory::open(unsafe { mapped.words_to_keep() }).map_err(SpawnedError::Directory)?;
    let instances = loop {
        match endpoint.join_and(shared, &directory, &mut left_out) {
            Ok(instances) => break instances,
            // The host is writing of somebody; one that died in it never ends.
            Err(JoinError::Changing(_)) if !deadline.has_passed() => endpoint.platform().relax(),
            Err(e) => return Err(SpawnedError::Join(e)),
        }
    };
    let (me, incarnation) = endpoint.identity().ok_or(SpawnedError::Join(JoinError::NotListed(shared)))?;
    mapped.keep();
    Ok(Spawned { me, incarnation, instances, directory })
}
