// SPDX-License-Identifier: MIT OR Apache-2.0
//! Following the directory: instances come, go and change while we run (SPEC D-7, D-8, N-17).

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

/// What became of an instance of which the directory says something new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    /// It came, and was added.
    Added,
    /// It is another life, lives or is dead, or is rung elsewhere; its region is the same.
    Changed,
    /// It went, or its region is another one, and was taken out of the table; in the latter case `Added` follows.
    Removed,
    /// The host takes this life of ours for dead: our own entry is not live, or another life's. Again with each change, while it is so.
    TakenForDead,
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
    /// Does what the directory asks for since the last call, or since [`join`](Self::join): takes out instances whose region ends,
    /// adds those that have come, and rings where it says now. Calls `each` for all that is new. Gives the directory's generation,
    /// which all our lanes name from then on: the host knows by it that no CPU of ours rings a CPU, or uses a region, that an older
    /// one named (SPEC D-7, N-17).
    ///
    /// One load if nothing has changed. Call it where sleeping is allowed: now and then, and when
    /// [`PeerEvent::ReadDirectory`](crate::platform::PeerEvent::ReadDirectory) says so. One caller at a time does it.
    ///
    /// Our own instance, and those whose region came from our own pool, are not taken out. A dead or ending one is not rung.
    ///
    /// # Errors
    /// `Busy`, `Changing`, `InUse`, `Ringing`, and `Entry` if that of an instance that we know cannot be read: what could be done
    /// was; call again.
    pub fn follow(
        &self,
        directory: &Directory<'_, P::Word>,
        mut each: impl FnMut(InstanceId, Followed),
    ) -> Result<u32, JoinError> {
        let generation = directory.generation();
        // 0 is a host that does not count its changes.
        if generation != 0 && self.followed.load(Ordering::Relaxed) == generation {
            return Ok(generation);
        }
        // Two at a time could undo each other. SYNC POINT: following (acquire)
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
        // What goes first: its region may be another's by now.
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
        // From here on nobody accepts a doorbell by an older entry. Who accepted one before may be ringing it.
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

    /// Says in all our lanes how far we have followed the directory (SPEC N-17).
    fn has_followed(&self, generation: u32) {
        self.followed.store(generation, Ordering::Relaxed);
        // Also a CPU of ours may be another one by now.
        self.cpus.iter().for_each(|cpu| cpu.physical.store(0, Ordering::Relaxed));
        for instance in self.instances.all() {
            instance.sender().into_iter().for_each(|sender| sender.follow(generation));
        }
    }

    /// What the directory says of an instance that we know.
    fn update_known(
        &self,
        id: InstanceId,
        directory: &Directory<'_, P::Word>,
    ) -> Result<Option<Followed>, JoinError> {
        let known = match self.instances.get(id) {
            Ok(known) => known,
            // Perhaps it was in use when it was to go.
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
                // First where, then whether: a new life is not rung at its former CPU.
                let changed = known.change(record.incarnation, bell);
                let comes_or_goes = known.set_live(is_live);
                if (comes_or_goes || changed) && is_live {
                    // What was sent meanwhile may not have been rung for. One that cannot be rung looks by itself.
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

    /// What the directory says of an instance that we do not know.
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

    /// Calls `each` for every instance that has our native region mapped, by its own word, and has not followed the directory to
    /// `generation`: it may still ring, or use, what an older one named. The word of a life that was killed stays; whether its
    /// CPUs have stopped only the host knows. Ourselves apart: what our own [`follow`](Self::follow) gave says that.
    ///
    /// # Errors
    /// `NotNative` if our own region is not a native one: then nobody can say so.
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

/// Whether that is the region that we have mapped, to be used as we use it.
fn is_same<W: Word>(known: &crate::instance::Instance<W>, record: &InstanceRecord) -> bool {
    let LinkConfig::RfcV2 { slots, policy } = config_of(record, &[]).link else {
        // A native region's length is in its stamp.
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
