// SPDX-License-Identifier: MIT OR Apache-2.0
//! The directory, as its host writes it and as senders look into it.

use crate::failure::{failure, refuse, Result};
use crate::platform::ENDPOINT;
use mk_ipi_core::abi::directory::InstanceRecord;
use mk_ipi_core::abi::{InstanceId, PhysCpuId};
use mk_ipi_core::directory::{Directory, DirectoryWriter};
use mk_ipi_core::sync::{AtomicU64, UnsafeCell};

/// The directory, for senders, which must not wait for the books.
struct TheDirectory(UnsafeCell<Option<Directory<'static, AtomicU64>>>);
// SAFETY: written while the endpoint knows no instance, by one caller at a time (`set_reader`); whoever reads holds one.
unsafe impl Sync for TheDirectory {}
static DIRECTORY: TheDirectory = TheDirectory(UnsafeCell::new(None));

/// # Safety
///
/// The endpoint knows no instance, and nobody else calls this meanwhile.
pub unsafe fn set_reader(reader: Option<Directory<'static, AtomicU64>>) {
    // SAFETY: the caller: nobody reads it now. Who does later has found an instance, which was published after this.
    DIRECTORY.0.with_mut(|place| unsafe { *place = reader });
}

/// Whether the directory gives `cpu` to `id` now; not while that entry is being written. In any context, also an NMI's that came in
/// the middle of that.
///
/// # Safety
///
/// The caller holds an instance of the endpoint.
pub unsafe fn lists_cpu(id: InstanceId, cpu: PhysCpuId) -> Option<bool> {
    // SAFETY: nobody writes it while somebody holds an instance.
    let directory = DIRECTORY.0.with(|place| unsafe { (*place).as_ref() })?;
    Some(directory.has_cpu(id, cpu).unwrap_or(false))
}

/// Writes an entry, and follows the directory ourselves.
pub fn write(
    writer: Option<&mut DirectoryWriter<'static, AtomicU64>>,
    record: &InstanceRecord,
    cpus: &[PhysCpuId],
) -> Result {
    let Some(writer) = writer else { return refuse!(ENODEV, "there is no directory") };
    writer
        .write(record, cpus)
        .map_err(|e| failure!(EINVAL, "the directory's entry {}: {e:?}", record.instance.get()))?;
    // What cannot be done yet is done at the next change.
    let _ = ENDPOINT.follow(&writer.reader(), |_, _| ());
    Ok(())
}
