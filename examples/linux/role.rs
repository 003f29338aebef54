// SPDX-License-Identifier: MIT OR Apache-2.0
//! The role of this Linux: the host of other kernels, or a kernel that a host started.

use crate::failure::{failure, refuse, Result};
use crate::file::File;
use mk_ipi_core::abi::boot_param::{mk_ipi_directory, mk_ipi_shared, MK_IPI_DIRECTORY, MK_IPI_SHARED};
use mk_ipi_core::abi::PhysAddr;
use mk_ipi_core::sync::{AtomicBool, Ordering};

/// True if another kernel is the host.
static JOINED: AtomicBool = AtomicBool::new(false);

/// Returns whether another kernel is the host.
pub fn is_joined() -> bool {
    JOINED.load(Ordering::Relaxed)
}

/// What the host told this kernel on its command line.
#[derive(Clone, Copy)]
pub struct Told {
    /// The address of this kernel's own region.
    pub shared: PhysAddr,
    /// The address of the directory.
    pub directory: PhysAddr,
}

/// Reads this kernel's command line. If it names a region and a directory, a host has started this kernel, and from now on
/// `is_joined` returns true.
pub fn join() -> Result<Told> {
    let file = File::any("/proc/cmdline")?;
    let line = file.bytes();
    let bad = |name| move |e| failure!(EINVAL, "{name}= on the kernel's command line: {e:?}");
    let shared = mk_ipi_shared(line).map_err(bad(MK_IPI_SHARED))?;
    let directory = mk_ipi_directory(line).map_err(bad(MK_IPI_DIRECTORY))?;
    match (shared, directory) {
        (Some(shared), Some(directory)) => {
            JOINED.store(true, Ordering::Relaxed);
            Ok(Told { shared, directory })
        }
        (None, None) => refuse!(
            EINVAL,
            "memory= is missing (START+BYTES or a name, see modinfo), and no host has started this kernel"
        ),
        _ => refuse!(
            EINVAL,
            "the kernel's command line has only one of {MK_IPI_SHARED}= and {MK_IPI_DIRECTORY}="
        ),
    }
}
