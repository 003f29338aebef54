// SPDX-License-Identifier: MIT OR Apache-2.0
//! Access to the directory: the host writes it here, and senders look up the CPUs of a peer.

use crate::failure::{failure, refuse, Result};
use crate::platform::ENDPOINT;
use mk_ipi_core::abi::directory::InstanceRecord;
use mk_ipi_core::abi::{InstanceId, PhysCpuId};
use mk_ipi_core::directory::{Directory, DirectoryWriter};
use mk_ipi_core::sync::{AtomicU64, UnsafeCell};

/// The directory, for senders. It is read without a lock, because senders must not wait for the host's lock.
struct TheDirectory(UnsafeCell<Option<Directory<'static, AtomicU64>>>);
// SAFETY: it is written by one caller at a time, while the endpoint knows no instance (`set_reader`). A reader holds an
// instance of the endpoint, so it is never read and written at the same time.
unsafe impl Sync for TheDirectory {}
static DIRECTORY: TheDirectory = TheDirectory(UnsafeCell::new(None));

/// Sets the directory that `lists_cpu` reads.
///
/// # Safety
///
/// The endpoint knows no instance, and no other code calls this at the same time.
pub unsafe fn set_reader(reader: Option<Directory<'static, AtomicU64>>) {
    // SAFETY: nothing reads it now (the caller promises it). Later readers have found an instance, which was published
    // after this.
    DIRECTORY.0.with_mut(|place| unsafe { *place = reader });
}

/// Returns whether the directory now lists `cpu` as a CPU of `id`. Returns false while that entry is being written, and
/// `None` if there is no directory. It can be called in any context, also in an NMI that has interrupted the writer.
///
/// # Safety
///
/// The caller holds an instance of the endpoint.
pub unsafe fn lists_cpu(id: InstanceId, cpu: PhysCpuId) -> Option<bool> {
    // SAFETY: `DIRECTORY` is not written while any code holds an instance.
    let directory = DIRECTORY.0.with(|place| unsafe { (*place).as_ref() })?;
    Some(directory.has_cpu(id, cpu).unwrap_or(false))
}

/// Writes an entry of the directory. Then makes this kernel's endpoint add or remove the instance, if it has changed.
pub fn write(
    writer: Option<&mut DirectoryWriter<'static, AtomicU64>>,
    record: &InstanceRecord,
    cpus: &[PhysCpuId],
) -> Result {
    let Some(writer) = writer else { return refuse!(ENODEV, "there is no directory") };
    writer
        .write(record, cpus)
        .map_err(|e| failure!(EINVAL, "the directory's entry {}: {e:?}", record.instance.get()))?;
    // A change that the endpoint cannot make now is made when the directory changes next.
    let _ = ENDPOINT.follow(&writer.reader(), |_, _| ());
    Ok(())
}
