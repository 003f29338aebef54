// SPDX-License-Identifier: MIT OR Apache-2.0
//! Following the directory: instances are added, removed and changed while this kernel runs (SPEC D-7, D-8, N-17).

use super::base::Endpoint;
use super::error::SendError;
use super::join::{config_of, JoinError};
use crate::directory::{Directory, InstanceRecord};
use crate::instance::{DestroyError, LookupError};
use crate::link::LinkConfig;
use crate::platform::Platform;
use crate::registry::Handler;
use crate::sync::{Ordering, Word};
use mk_ipi_abi::directory::{EntryError, EntryFlags, State};
use mk_ipi_abi::native::Bell;
use mk_ipi_abi::rfc_v2::region_size;
use mk_ipi_abi::{Incarnation, InstanceId, PhysRange};

/// What changed for an instance, as the directory says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    /// It is new, and was added.
    Added,
    /// Its life, its state or its doorbell changed. Its region is the same.
    Changed,
    /// It was removed from the table, because it is gone, or has another region. In the latter case `Added` follows.
    Removed,
    /// The host takes this life of ours for dead: our own entry is not live, or names another life. Reported again with each change.
    TakenForDead,
    /// It is live, and could not be added for this reason. It is tried again after the next change of the directory.
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
    /// Applies changes of the directory since the last call, or since [`join`](Self::join): removes instances whose region ends,
    /// adds new ones, and rings where the directory says now. Calls `each` for every change. Returns the generation of the
    /// directory.
    /// All our lanes name it from then on, so that the host knows: no CPU of ours rings a CPU, or uses a region, that only an older
    /// generation named (SPEC D-7, N-17).
    ///
    /// If nothing has changed, this is one load. Call it where sleeping is allowed: from time to time, and at each
    /// [`PeerEvent::ReadDirectory`](crate::platform::PeerEvent::ReadDirectory). One caller at a time is admitted.
    ///
    /// Our own instance, and those whose region came from our own pool, are not removed. A dead or ending one is not rung.
    ///
    /// # Errors
    /// `Busy`, `Changing`, `InUse`, `Ringing`, and `Entry` if the entry of an instance in our table cannot be read. The other changes
    /// were applied. Call again.
    pub fn follow(
        &self,
        directory: &Directory<'_, P::Word>,
        mut each: impl FnMut(InstanceId, Followed),
    ) -> Result<u32, JoinError> {
        let generation = directory.generation();
        // A host that does not count its changes has 0 here.
        if generation != 0 && self.followed.load(Ordering::Relaxed) == generation {
            return Ok(generation);
        }
        // Two callers at a time could undo each other's changes. SYNC POINT: following (acquire)
        if self.following.swap(true, Ordering::Acquire) {
            return Err(JoinError::Busy);
        }
        let followed = self.follow_all(directory, generation, &mut each);
        // SYNC POINT: following (release)
        self.following.store(false, Ordering::Release);
        followed
    }

    fn follow_all(
        &self,
        directory: &Directory<'_, P::Word>,
        generation: u32,
        each: &mut impl FnMut(InstanceId, Followed),
    ) -> Result<u32, JoinError> {
        let mut done = Ok(generation);
        let mut note = |id, followed: Result<Option<Followed>, JoinError>| match followed {
            Ok(Some(followed)) => each(id, followed),
            Ok(None) => {}
            Err(e) => done = Err(e),
        };
        // Removals first: another instance may have the region by now.
        directory.ids().for_each(|id| note(id, self.update_known(id, directory)));
        let before = self.attachments.load(Ordering::Relaxed);
        let mut added = 0u32;
        for id in directory.ids() {
            let followed = self.add_new(id, directory);
            added = added.wrapping_add((followed == Ok(Some(Followed::Added))).into());
            note(id, followed);
        }
        done?;
        if !self.settle_doorbells() {
            return Err(JoinError::Ringing);
        }
        // From here on no CPU of ours starts to ring by an older entry. One that started before may still ring.
        self.instances.all().for_each(|known| known.sender().into_iter().for_each(|s| s.forget_bell()));
        if !self.settle_doorbells() {
            return Err(JoinError::Ringing);
        }
        if self.attachments.load(Ordering::Relaxed) != before.wrapping_add(added) {
            return Err(JoinError::Busy);
        }
        self.has_followed(generation);
        Ok(generation)
    }

    /// Writes into all our lanes how far we have followed the directory (SPEC N-17).
    fn has_followed(&self, generation: u32) {
        self.followed.store(generation, Ordering::Relaxed);
        // The physical ids of our own CPUs may have changed too.
        self.cpus.iter().for_each(|cpu| cpu.physical.store(0, Ordering::Relaxed));
        for instance in self.instances.all() {
            instance.sender().into_iter().for_each(|sender| sender.follow(generation));
        }
    }

    /// Applies the entry of an instance that is in our table.
    fn update_known(
        &self,
        id: InstanceId,
        directory: &Directory<'_, P::Word>,
    ) -> Result<Option<Followed>, JoinError> {
        let known = match self.instances.get(id) {
            Ok(known) => known,
            // It may have been in use when it had to be removed.
            Err(LookupError::Destroyed) => return self.remove(id),
            Err(LookupError::Unknown) => return Ok(None),
        };
        let record = match directory.record(id) {
            Ok(record) => Some(record),
            Err(EntryError::Absent) => None,
            Err(EntryError::Changing) => return Err(JoinError::Changing(id)),
            Err(e) => return Err(JoinError::Entry(id, e)),
        };
        let is_live = record.is_some_and(|record| record.state.is_live());
        let me = self.identity().filter(|(me, _)| *me == id);
        if me.is_some_and(|(_, life)| !record.is_some_and(|r| is_live && r.incarnation == life)) {
            return Ok(Some(Followed::TakenForDead));
        }
        let same = record.filter(|r| r.state != State::Ending && is_same(&known, r));
        match same {
            Some(record) => {
                let bell = Bell { cpu: record.doorbell_cpu, vector: record.vector };
                // First the doorbell, then the state: a new life must not be rung at its former CPU.
                let changed = known.change(record.incarnation, bell);
                let comes_or_goes = known.set_live(is_live);
                if (comes_or_goes || changed) && is_live {
                    // Messages sent meanwhile may lack a doorbell. If this one fails, the peer looks without one.
                    let _ = self.ring_if_wanted(&known);
                }
                let changed = comes_or_goes || changed;
                Ok(changed.then_some(Followed::Changed))
            }
            None if known.is_pooled() || me.is_some() => {
                Ok(known.set_live(is_live).then_some(Followed::Changed))
            }
            None => {
                drop(known);
                self.remove(id)
            }
        }
    }

    fn remove(&self, id: InstanceId) -> Result<Option<Followed>, JoinError> {
        match self.destroy_instance(id) {
            Ok(()) => Ok(Some(Followed::Removed)),
            Err(DestroyError::Unknown) => Ok(None),
            Err(_) => Err(JoinError::InUse(id)),
        }
    }

    /// Applies the entry of an instance that is not in our table.
    fn add_new(
        &self,
        id: InstanceId,
        directory: &Directory<'_, P::Word>,
    ) -> Result<Option<Followed>, JoinError> {
        if self.instances.get(id).is_ok() {
            return Ok(None);
        }
        let record = match directory.record(id) {
            Ok(record) => record,
            Err(EntryError::Absent) => return Ok(None),
            Err(EntryError::Changing) => return Err(JoinError::Changing(id)),
            Err(e) => return Ok(Some(Followed::LeftOut(JoinError::Entry(id, e)))),
        };
        if !record.state.is_live() {
            return Ok(None);
        }
        Ok(Some(match self.attach_listed(&record) {
            Ok(()) => Followed::Added,
            Err(e) => Followed::LeftOut(e),
        }))
    }

    /// Calls `each` for every instance that, by its own word, has our native region mapped and has not followed the directory to
    /// `generation`. It may still ring CPUs, or use regions, that an older generation named. The word of a killed life stays, and only
    /// the host knows whether its CPUs have stopped. Our own instance is left out: the result of [`follow`](Self::follow) stands for it.
    ///
    /// # Errors
    /// `NotNative` if our own region is not a native one: then there are no such words.
    pub fn behind(
        &self,
        generation: u32,
        mut each: impl FnMut(InstanceId, Incarnation),
    ) -> Result<(), SendError> {
        let me = self.identity().map(|(me, _)| me);
        let own = self.own().ok_or(SendError::NotNative)?;
        let region = own.link.own_region().ok_or(SendError::NotNative)?;
        for (id, attached) in region.attached().filter(|(id, _)| Some(*id) != me) {
            if !attached.has_followed(generation) {
                each(id, attached.incarnation);
            }
        }
        Ok(())
    }
}

/// Whether the record has the region that we have mapped, with the same layout and flags.
fn is_same<W: Word>(known: &crate::instance::Instance<W>, record: &InstanceRecord) -> bool {
    let LinkConfig::RfcV2 { slots, policy } = config_of(record, &[]).link else {
        // The length of a native region is in its stamp.
        let start = |range: Option<PhysRange>| range.map(PhysRange::start);
        let same = known.link.layout() == record.region.map(|_| record.layout)
            && start(known.region()) == start(record.region);
        return same && known.one_doorbell == one_doorbell(record) && !known.is_gone();
    };
    let exact = record.region.and_then(|range| PhysRange::new(range.start(), region_size(slots)));
    known.region() == exact
        && known.link.slots().map(|(_, policy)| policy) == record.region.map(|_| policy)
        && known.one_doorbell == one_doorbell(record)
}

fn one_doorbell(record: &InstanceRecord) -> bool {
    record.flags.contains(EntryFlags::ONE_DOORBELL)
}
