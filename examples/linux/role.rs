// SPDX-License-Identifier: MIT OR Apache-2.0
//! The role of this Linux: the host of other kernels, or a kernel that a host started beside itself.

use crate::failure::{failure, refuse, Result};
use crate::file::File;
use mk_ipi_core::abi::boot_param::{mk_ipi_directory, mk_ipi_shared, MK_IPI_DIRECTORY, MK_IPI_SHARED};
use mk_ipi_core::abi::PhysAddr;
use mk_ipi_core::sync::{AtomicBool, Ordering};

static JOINED: AtomicBool = AtomicBool::new(false);

/// Returns whether another kernel is the host.
pub fn is_joined() -> bool {
    JOINED.load(Ordering::Relaxed)
}

/// What the host told this kernel at its start.
#[derive(Clone, Copy)]
pub struct Told {
    /// Where this kernel's own region lies.
    pub shared: PhysAddr,
    /// Where the directory lies.
    pub directory: PhysAddr,
}

/// From now on this Linux is a kernel that a host started, as its own command line says.
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
            "memory= is missing: START+BYTES or a name (modinfo tells more); and no host has started this kernel"
        ),
        _ => refuse!(EINVAL, "the kernel's command line has one of {MK_IPI_SHARED}= and {MK_IPI_DIRECTORY}= alone"),
    }
}
