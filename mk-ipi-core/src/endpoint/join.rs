// SPDX-License-Identifier: MIT OR Apache-2.0
//! [`join`](Endpoint::join): a spawned kernel adds the instances that the directory lists (SPEC D-5, D-6).

use super::base::Endpoint;
use crate::directory::{Directory, InstanceRecord};
use crate::instance::InstanceConfig;
use crate::link::{AddError, LinkConfig};
use crate::platform::Platform;
use crate::registry::Handler;
use crate::rfc_v2::SlotPolicy;
use crate::sync::{fence, Ordering, Word};
use mk_ipi_abi::directory::{EntryError, EntryFlags, Layout};
use mk_ipi_abi::rfc_v2::{Claim, MK_MAX_INSTANCES, SLOT_SIZE};
use mk_ipi_abi::{Errno, InstanceId, PhysAddr, PhysCpuId};

/// Why a spawned kernel could not join, or could not follow the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinError {
    /// No live entry has a region at this address. `mk_ipi_shared=` and `mk_ipi_directory=` do not belong together.
    NotListed(PhysAddr),
    /// An instance, our own or another, could not be added.
    Instance(InstanceId, AddError),
    /// The host was changing the entry of this instance. Try again.
    Changing(InstanceId),
    /// From [`follow`](Endpoint::follow) only. This instance must be removed, because the directory does not list it any more, or
    /// lists it with another region. But the instance is still in use. Call again.
    InUse(InstanceId),
    /// From [`follow`](Endpoint::follow) only. Another call of `follow` runs, or an instance was added meanwhile. Call again.
    Busy,
    /// From [`follow`](Endpoint::follow) only. A CPU of this kernel is still ringing a doorbell of a former entry. Call again.
    Ringing,
    /// The entry of this instance cannot be used. If [`join`](Endpoint::join) returns this, no entry that can be used has its
    /// region at our address.
    Entry(InstanceId, EntryError),
}

impl core::fmt::Display for JoinError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::NotListed(at) => {
                write!(f, "no live instance of the directory has its region at {:#x}", at.0)
            }
            Self::Instance(id, e) => write!(f, "instance {} cannot be added: {e}", id.get()),
            Self::Changing(id) => write!(f, "the host is changing the entry of instance {}", id.get()),
            Self::InUse(id) => write!(f, "instance {} is in use, and cannot be removed yet", id.get()),
            Self::Busy => f.write_str("another call follows the directory now, or has added an instance"),
            Self::Ringing => f.write_str("another CPU is still ringing a doorbell of a former entry"),
            Self::Entry(id, e) => write!(f, "the entry of instance {} cannot be used: {e}", id.get()),
        }
    }
}

impl core::error::Error for JoinError {}

impl JoinError {
    /// `ENODEV`, `EAGAIN`, `EBUSY`, or the error number of the instance's error.
    pub const fn errno(self) -> Errno {
        match self {
            Self::NotListed(_) | Self::Entry(..) => Errno::ENODEV,
            Self::Instance(_, e) => e.errno(),
            Self::Changing(_) | Self::Ringing | Self::Busy => Errno::EAGAIN,
            Self::InUse(_) => Errno::EBUSY,
        }
    }
}

/// The config of an instance in the directory. `cpus` are the CPUs of the instance, as far as the caller knows them. An RFC v2
/// region has as many slots as fit into it. The geometry of a native region is in its stamp.
pub fn config_of<'a>(record: &InstanceRecord, cpus: &'a [PhysCpuId]) -> InstanceConfig<'a> {
    let slots = || {
        record.region.map_or(u32::MAX, |r| {
            let slots = r.len().checked_div(SLOT_SIZE as u64).unwrap_or(0);
            u32::try_from(slots).unwrap_or(u32::MAX)
        })
    };
    let exclusive = record.flags.contains(EntryFlags::EXCLUSIVE);
    let policy = if exclusive { SlotPolicy::Exclusive } else { SlotPolicy::Overwrite };
    InstanceConfig {
        id: record.instance,
        incarnation: record.incarnation,
        cpus: cpus.get(..record.nr_cpus as usize).unwrap_or(cpus),
        doorbell_cpu: record.doorbell_cpu,
        vector: record.vector,
        one_doorbell: record.flags.contains(EntryFlags::ONE_DOORBELL),
        link: match record.layout {
            Layout::RfcV2 => LinkConfig::RfcV2 { slots: slots(), policy },
            Layout::Native => LinkConfig::Native(None),
        },
    }
}

impl<
        P: Platform,
        H: Handler,
        const CPUS: usize,
        const HANDLERS: usize,
        const QUEUE: usize,
        const INSTANCES: usize,
    > Endpoint<P, H, CPUS, HANDLERS, QUEUE, INSTANCES>
{
    /// Takes the identity of the instance whose region is at `shared` (`mk_ipi_shared=`), and adds every instance
    /// that the directory lists as starting or running, including our own. Returns the number of instances added. May sleep.
    ///
    /// An instance that cannot be added is left out ([`join_and`](Self::join_and) reports it). But it is an error if our own
    /// instance cannot be added, or if the host keeps changing an entry. On an error, the instances that this call added are
    /// removed again. Afterwards every other CPU of this kernel must call [`poll`](Self::poll) once. One CPU must call
    /// [`follow`](Self::follow) from time to time, which applies later changes.
    pub fn join(&self, shared: PhysAddr, directory: &Directory<'_, P::Word>) -> Result<usize, JoinError> {
        self.join_and(shared, directory, |_, _| ())
    }

    /// The same as [`join`](Self::join). Calls `left_out` for each live instance that could not be added, with the reason.
    /// [`follow`](Self::follow) tries again when the directory has changed.
    pub fn join_and(
        &self,
        shared: PhysAddr,
        directory: &Directory<'_, P::Word>,
        mut left_out: impl FnMut(InstanceId, JoinError),
    ) -> Result<usize, JoinError> {
        let me = find_self(shared, directory)?;
        let before = self.identity().map(|(instance, incarnation)| Claim { instance, incarnation });
        // A native link needs our identity first.
        self.set_identity(Some(Claim { instance: me.instance, incarnation: me.incarnation }));
        let mut added = [false; MK_MAX_INSTANCES];
        let joined = directory.ids().zip(&mut added).try_for_each(|(id, added)| {
            match self.join_one(id, &me, directory) {
                Ok(was_alive) => *added = was_alive,
                Err(e) if id == me.instance || matches!(e, JoinError::Changing(_)) => return Err(e),
                // The other instances are added nevertheless.
                Err(e) => left_out(id, e),
            }
            Ok(())
        });
        let mut count = 0usize;
        for (id, _) in directory.ids().zip(added).filter(|(_, added)| *added) {
            count = count.wrapping_add(1);
            if joined.is_err() {
                // Only this call uses the instance, unless a sender has looked it up meanwhile. In that case this call only
                // closes the instance, and the next `destroy_instance` removes it.
                let _ = self.destroy_instance(id);
            }
        }
        if joined.is_err() {
            self.set_identity(before);
        }
        joined?;
        self.identify(me.instance, me.incarnation);
        // Applies changes of the directory that came meanwhile. What this call cannot apply yet, the next `follow` applies.
        let _ = self.follow(directory, |_, _| ());
        Ok(count)
    }

    /// Adds the instance `id` if it is live. Returns whether it was live.
    fn join_one(
        &self,
        id: InstanceId,
        me: &InstanceRecord,
        directory: &Directory<'_, P::Word>,
    ) -> Result<bool, JoinError> {
        let record = match directory.record(id) {
            Ok(record) => Some(record).filter(|record| record.state.is_live()),
            Err(EntryError::Absent) => None,
            Err(EntryError::Changing) => return Err(JoinError::Changing(id)),
            Err(e) => return Err(JoinError::Entry(id, e)),
        };
        if id == me.instance && record.as_ref() != Some(me) {
            // The entry has changed since it was found to be ours.
            return Err(JoinError::Changing(id));
        }
        let Some(record) = record else { return Ok(false) };
        self.attach_listed(&record).map(|()| true)
    }

    /// Adds the instance of this record.
    pub(super) fn attach_listed(&self, record: &InstanceRecord) -> Result<(), JoinError> {
        let attached = self.attach_instance(&config_of(record, &[record.doorbell_cpu]), record.region);
        // A host may wait until all kernels have followed. Because of this fence either the host sees our word ATTACHED, or we
        // read the entries that it wrote before.
        fence(Ordering::SeqCst);
        attached.map_err(|e| JoinError::Instance(record.instance, e))
    }
}

/// The live entry whose region is at `shared`.
fn find_self<W: Word>(shared: PhysAddr, directory: &Directory<'_, W>) -> Result<InstanceRecord, JoinError> {
    let is_ours =
        |r: &InstanceRecord| r.state.is_live() && r.region.is_some_and(|region| region.start() == shared);
    let mut unread = JoinError::NotListed(shared);
    for id in directory.ids() {
        match directory.record(id) {
            Ok(record) if is_ours(&record) => return Ok(record),
            Ok(_) | Err(EntryError::Absent) => {}
            Err(EntryError::Changing) => return Err(JoinError::Changing(id)),
            Err(e) => unread = JoinError::Entry(id, e),
        }
    }
    Err(unread)
}
