// SPDX-License-Identifier: MIT OR Apache-2.0
//! A spawned kernel takes its place among the instances that the directory lists (SPEC D-5, D-6).

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

/// Why a spawned kernel could not take its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinError {
    /// No live entry has its region at that address: the boot parameters contradict each other.
    NotListed(PhysAddr),
    /// An instance, ourselves or another, could not be added: who and why.
    Instance(InstanceId, AddError),
    /// The host was changing the entry of this instance: try again.
    Changing(InstanceId),
    /// From [`follow`](Endpoint::follow) alone. Somebody still uses this instance, which the directory lists no more, or with
    /// another region: call again.
    InUse(InstanceId),
    /// From [`follow`](Endpoint::follow) alone. Another call of it is at work, or somebody added an instance meanwhile: call again.
    Busy,
    /// From [`follow`](Endpoint::follow) alone. A CPU of ours does not come to an end of ringing where the directory said before: call again.
    Ringing,
    /// The entry of this instance cannot be used: who and why. If it is the result of a join, no entry that can be read has its
    /// region at that address.
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
            Self::Ringing => f.write_str("another CPU still rings by the former entries"),
            Self::Entry(id, e) => write!(f, "the entry of instance {} cannot be used: {e}", id.get()),
        }
    }
}

impl core::error::Error for JoinError {}

impl JoinError {
    /// `ENODEV`, `EAGAIN`, or that of the instance.
    pub const fn errno(self) -> Errno {
        match self {
            Self::NotListed(_) | Self::Entry(..) => Errno::ENODEV,
            Self::Instance(_, e) => e.errno(),
            Self::Changing(_) | Self::Ringing | Self::Busy => Errno::EAGAIN,
            Self::InUse(_) => Errno::EBUSY,
        }
    }
}

/// The config of an instance that the directory lists, with those of its CPUs that are at hand; slots fill its region, a native region's stamp says the rest.
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
    /// Takes the place of the instance whose region is at `shared` (`mk_ipi_shared=`), and adds every instance
    /// that the directory lists as starting or running, ourselves included. Gives how many. May sleep.
    ///
    /// On an error nothing that this call added stays. An instance that cannot be added, unless it is our own, is left out
    /// ([`join_and`](Self::join_and) says which). Afterwards every other CPU of this kernel calls
    /// [`poll`](Self::poll) once, and this one calls [`follow`](Self::follow) now and then: what comes, goes and changes later is
    /// found by that.
    pub fn join(&self, shared: PhysAddr, directory: &Directory<'_, P::Word>) -> Result<usize, JoinError> {
        self.join_and(shared, directory, |_, _| ())
    }

    /// As [`join`](Self::join), and calls `left_out` for each live instance that could not be added: who and why.
    /// [`follow`](Self::follow) tries again when the directory has changed.
    pub fn join_and(
        &self,
        shared: PhysAddr,
        directory: &Directory<'_, P::Word>,
        mut left_out: impl FnMut(InstanceId, JoinError),
    ) -> Result<usize, JoinError> {
        let me = find_self(shared, directory)?;
        let before = self.identity().map(|(instance, incarnation)| Claim { instance, incarnation });
        // A native link begins with who we are.
        self.set_identity(Some(Claim { instance: me.instance, incarnation: me.incarnation }));
        let mut added = [false; MK_MAX_INSTANCES];
        let joined = directory.ids().zip(&mut added).try_for_each(|(id, added)| {
            match self.join_one(id, &me, directory) {
                Ok(was_alive) => *added = was_alive,
                Err(e) if id == me.instance || matches!(e, JoinError::Changing(_)) => return Err(e),
                // One bad neighbour keeps nobody from the others.
                Err(e) => left_out(id, e),
            }
            Ok(())
        });
        let mut count = 0usize;
        for (id, _) in directory.ids().zip(added).filter(|(_, added)| *added) {
            count = count.wrapping_add(1);
            if joined.is_err() {
                // Ours alone, but for a sender that found it in this moment: then it is closed, and goes with the
                // next `destroy_instance`.
                let _ = self.destroy_instance(id);
            }
        }
        if joined.is_err() {
            self.set_identity(before);
        }
        joined?;
        self.identify(me.instance, me.incarnation);
        // Also what has changed meanwhile. What cannot be done yet is done by the next call of it.
        let _ = self.follow(directory, |_, _| ());
        Ok(count)
    }

    /// Adds the instance `id` if it is alive; whether it was.
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
            // It is not any more what it was when we recognised ourselves.
            return Err(JoinError::Changing(id));
        }
        let Some(record) = record else { return Ok(false) };
        self.attach_listed(&record).map(|()| true)
    }

    /// Adds the instance that the directory lists so.
    pub(super) fn attach_listed(&self, record: &InstanceRecord) -> Result<(), JoinError> {
        let attached = self.attach_instance(&config_of(record, &[record.doorbell_cpu]), record.region);
        // A host that waits for all to follow finds our word in its lanes, or the entries that we read next are those it wrote before.
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
