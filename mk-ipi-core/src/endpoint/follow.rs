// SPDX-License-Identifier: MIT OR Apache-2.0
//! Following the directory: instances come, go and change while we run (SPEC D-7, D-8, N-17).

use super::base::{Endpoint, Instance};
use super::join::{config_of, JoinError};
use crate::directory::{Directory, InstanceRecord};
use crate::instance::DestroyError;
use crate::link::LinkConfig;
use crate::platform::Platform;
use crate::registry::Handler;
use crate::sync::{Ordering, Word};
use mk_ipi_abi::directory::{EntryError, EntryFlags, State};
use mk_ipi_abi::native::Bell;
use mk_ipi_abi::{Incarnation, InstanceId, PhysRange};

/// What became of an instance of which the directory says something new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    /// It came, and was added.
    Added,
    /// It is another life, or is rung elsewhere; its region is the same.
    Changed,
    /// It went, or its region did, and was taken out of the table.
    Removed,
    /// It is live, and could not be added: why. It is tried again when the directory has changed once more.
    LeftOut(JoinError),
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
    /// Does what the directory asks for since the last call, or since [`join`](Self::join): adds instances that have come, takes
    /// out those whose region ends, and rings where it says now. Calls `each` for every instance of which that is new. Gives the
    /// directory's generation, which all our lanes name from then on: the host knows by it that no CPU of ours rings a CPU, or
    /// uses a region, that an older one named (SPEC D-7, N-17).
    ///
    /// One load if nothing has changed. Call it where sleeping is allowed, from one task: now and then, and when
    /// [`PeerEvent::ReadDirectory`](crate::platform::PeerEvent::ReadDirectory) says so.
    ///
    /// Our own instance, and those whose region came from our own pool, are not taken out.
    ///
    /// # Errors
    /// `Changing`, `InUse` and `Ringing`: what could be done was; call again.
    pub fn follow(
        &self,
        directory: &Directory<'_, P::Word>,
        mut each: impl FnMut(InstanceId, Followed),
    ) -> Result<u32, JoinError> {
        let generation = directory.generation();
        if self.followed.load(Ordering::Relaxed) == generation {
            return Ok(generation);
        }
        let mut done = Ok(generation);
        for id in directory.ids() {
            match self.follow_one(id, directory) {
                Ok(Some(followed)) => each(id, followed),
                Ok(None) => {}
                Err(e) => done = Err(e),
            }
        }
        if done.is_ok() && !self.settle_doorbells() {
            done = Err(JoinError::Ringing);
        }
        if done.is_ok() {
            self.has_followed(generation);
        }
        done
    }

    fn follow_one(
        &self,
        id: InstanceId,
        directory: &Directory<'_, P::Word>,
    ) -> Result<Option<Followed>, JoinError> {
        let record = match directory.record(id) {
            Ok(record) => Some(record).filter(|record| record.state != State::Ending),
            Err(EntryError::Absent) => None,
            Err(EntryError::Changing) => return Err(JoinError::Changing(id)),
            Err(e) => return Ok(Some(Followed::LeftOut(JoinError::Entry(id, e)))),
        };
        let mut followed = None;
        if let Ok(known) = self.instances.get(id) {
            let same = record.filter(|record| is_same(&known, record));
            if same.is_some() || known.is_pooled() || self.identity().is_some_and(|(me, _)| me == id) {
                return Ok(same.and_then(|record| self.change(&known, &record)));
            }
            drop(known);
            match self.destroy_instance(id) {
                Ok(()) | Err(DestroyError::Unknown) => followed = Some(Followed::Removed),
                Err(_) => return Err(JoinError::InUse(id)),
            }
        }
        if let Some(record) = record.filter(|record| record.state.is_live()) {
            followed = Some(match self.attach_listed(&record) {
                Ok(()) => Followed::Added,
                Err(e) => Followed::LeftOut(e),
            });
        }
        Ok(followed)
    }

    /// The same region is rung elsewhere now, or has another life.
    fn change(&self, known: &Instance<P>, record: &InstanceRecord) -> Option<Followed> {
        known.sender().into_iter().for_each(|sender| sender.forget_bell());
        let bell = Bell { cpu: record.doorbell_cpu, vector: record.vector };
        known.change(record.incarnation, bell).then_some(Followed::Changed)
    }

    /// Calls `each` for every instance that has our native region mapped, by its own word, and has not followed the directory to
    /// `generation`: it may still ring, or use, what an older one named. The word of a life that was killed stays; whether its
    /// CPUs have stopped only the host knows.
    pub fn behind(&self, generation: u32, mut each: impl FnMut(InstanceId, Incarnation)) {
        let me = self.identity().map(|(me, _)| me);
        let Some(own) = self.own() else { return };
        let Some(region) = own.link.own_region() else { return };
        for (id, attached) in region.attached().filter(|(id, _)| Some(*id) != me) {
            if !attached.has_followed(generation) {
                each(id, attached.incarnation);
            }
        }
    }
}

/// Whether that is the region that we have mapped, to be used as we use it.
fn is_same<W: Word>(known: &crate::instance::Instance<W>, record: &InstanceRecord) -> bool {
    let LinkConfig::RfcV2 { policy, .. } = config_of(record, &[]).link else {
        // A native region's length is in its stamp.
        let start = |range: Option<PhysRange>| range.map(PhysRange::start);
        let same = known.link.layout() == record.region.map(|_| record.layout)
            && start(known.region()) == start(record.region);
        return same && known.one_doorbell == one_doorbell(record) && !known.is_gone();
    };
    known.region() == record.region
        && known.link.slots().map(|(_, policy)| policy) == record.region.map(|_| policy)
        && known.one_doorbell == one_doorbell(record)
}

fn one_doorbell(record: &InstanceRecord) -> bool {
    record.flags.contains(EntryFlags::ONE_DOORBELL)
}
