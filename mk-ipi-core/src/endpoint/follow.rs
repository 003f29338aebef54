// SPDX-License-Identifier: MIT OR Apache-2.0
//! [`follow`](Endpoint::follow): applies changes of the directory to the table of instances while this kernel runs (SPEC D-7,
//! D-8, N-17).

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

/// What [`follow`](Endpoint::follow) did for an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    /// The directory lists the instance as live, and it was added to the table.
    Added,
    /// The life, the state or the doorbell of the instance changed. Its region is the same.
    Changed,
    /// The instance was removed from the table, because the directory does not list it any more, or because its region ends or
    /// has changed. If the instance is live with another region, `Added` follows.
    Removed,
    /// The host considers this life of ours dead: our own entry is not live, or names another life. Reported again after each
    /// change of the directory.
    TakenForDead,
    /// The instance could not be added for this reason. `follow` tries again after the next change of the directory.
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
    /// adds new instances, and uses the doorbells that the directory names now. Calls `each` for every change. Returns the
    /// generation of the directory. Before it returns, it stores this generation in each of our lanes, where the host reads it.
    /// The host then knows that we have stopped using what only older generations listed: CPUs to ring, and regions (SPEC D-7,
    /// N-17).
    ///
    /// If nothing has changed, this reads only one word of the directory. Call it where sleeping is allowed: from time to time,
    /// and at each [`PeerEvent::ReadDirectory`](crate::platform::PeerEvent::ReadDirectory). One caller at a time is admitted.
    ///
    /// Our own instance, and instances whose region came from our own pool, are not removed. A dead or ending instance is not rung.
    ///
    /// # Errors
    /// After each error, call again. Our lanes do not get the new generation until a call succeeds.
    ///
    /// - `Changing`, `InUse`, `Entry`: the change of an instance could not be applied. The other changes were applied. `Entry`
    ///   means that the entry of an instance in our table cannot be read.
    /// - `Ringing`: all changes were applied, but a CPU of ours may still ring a doorbell of a former entry.
    /// - `Busy`: another call of `follow` runs, and this call applied nothing. Or all changes were applied, but another CPU added
    ///   an instance meanwhile.
    pub fn follow(
        &self,
        directory: &Directory<'_, P::Word>,
        mut each: impl FnMut(InstanceId, Followed),
    ) -> Result<u32, JoinError> {
        let generation = directory.generation();
        // The generation is 0 if the host does not count its changes. Then each call reads the whole directory.
        let now = followed(self.attachments.load(Ordering::Relaxed), generation);
        if generation != 0 && self.followed.load(Ordering::Relaxed) == now {
            return Ok(generation);
        }
        // Two callers at the same time could undo each other's changes. SYNC POINT: following (acquire)
        if self.following.swap(true, Ordering::Acquire) {
            return Err(JoinError::Busy);
        }
        let result = self.follow_all(directory, generation, &mut each);
        // SYNC POINT: following (release)
        self.following.store(false, Ordering::Release);
        result
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
        // Another CPU may add an instance at the same time, and use an older entry for it. That CPU changes `attachments`. So
        // this call returns `Busy`, or the next call reads the whole directory again.
        let before = self.attachments.load(Ordering::Relaxed);
        // Removals first: a new instance may use the memory of a region that ended.
        directory.ids().for_each(|id| note(id, self.update_known(id, directory, generation)));
        let mut added = 0u32;
        for id in directory.ids() {
            let followed = self.add_new(id, directory, generation);
            added = added.wrapping_add((followed == Ok(Some(Followed::Added))).into());
            note(id, followed);
        }
        done?;
        if !self.settle_doorbells() {
            return Err(JoinError::Ringing);
        }
        // From here on no CPU of ours reads an older entry. But a CPU may have accepted a BELL because of an older entry, and
        // that BELL is cached. Forget it, and then wait for the CPUs that still ring it.
        self.instances.all().for_each(|known| known.sender().into_iter().for_each(|s| s.forget_bell()));
        if !self.settle_doorbells() {
            return Err(JoinError::Ringing);
        }
        let attachments = before.wrapping_add(added);
        if self.attachments.load(Ordering::Relaxed) != attachments {
            return Err(JoinError::Busy);
        }
        self.followed.store(followed(attachments, generation), Ordering::Relaxed);
        self.has_followed(directory, generation);
        Ok(generation)
    }

    /// Stores in our lanes the generation that we have followed (SPEC N-17). If another CPU has added an instance meanwhile, our
    /// lane in its region is left out, because that CPU may have used an older entry. An instance that the directory has no entry
    /// for cannot have been added by an older one.
    fn has_followed(&self, directory: &Directory<'_, P::Word>, generation: u32) {
        // Forget the cached physical ids of our own CPUs, because they may have changed too. 0 means that nothing is cached.
        self.cpus.iter().for_each(|cpu| cpu.physical.store(0, Ordering::Relaxed));
        let has_entry = |id: InstanceId| u32::from(id.get()) < directory.nr_instances();
        for instance in self.instances.all().filter(|i| i.has_applied(generation) || !has_entry(i.id)) {
            instance.sender().into_iter().for_each(|sender| sender.follow(generation));
        }
    }

    /// Applies the entry of an instance that is in our table.
    fn update_known(
        &self,
        id: InstanceId,
        directory: &Directory<'_, P::Word>,
        generation: u32,
    ) -> Result<Option<Followed>, JoinError> {
        let known = match self.instances.get(id) {
            Ok(known) => known,
            // A former call may have closed the instance and not removed it, because it was in use.
            Err(LookupError::Destroyed) => return self.remove(id),
            Err(LookupError::Unknown) => return Ok(None),
        };
        let record = match directory.record(id) {
            Ok(record) => Some(record),
            Err(EntryError::Absent) => None,
            Err(EntryError::Changing) => return Err(JoinError::Changing(id)),
            Err(e) => return Err(JoinError::Entry(id, e)),
        };
        known.set_applied(generation);
        let is_live = record.is_some_and(|record| record.state.is_live());
        let me = self.identity().filter(|(me, _)| *me == id);
        if me.is_some_and(|(_, life)| !record.is_some_and(|r| is_live && r.incarnation == life)) {
            return Ok(Some(Followed::TakenForDead));
        }
        let same = record.filter(|r| r.state != State::Ending && is_same(&known, r));
        match same {
            Some(record) => {
                let bell = Bell { cpu: record.doorbell_cpu, vector: record.vector };
                // First the doorbell, then the state: a new life must not be rung at the CPU of the former life.
                let changed = known.change(record.incarnation, bell);
                let comes_or_goes = known.set_live(is_live);
                if (comes_or_goes || changed) && is_live {
                    // We may have sent messages while the peer was dead, or had another doorbell. Then no doorbell of ours may
                    // have reached it. If this ring fails, the peer finds them in its next `tick`.
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
        generation: u32,
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
        if let Err(e) = self.attach_listed(&record) {
            return Ok(Some(Followed::LeftOut(e)));
        }
        // The entry may have changed since it was read.
        let now = self.update_known(id, directory, generation)?;
        Ok((now != Some(Followed::Removed)).then_some(Followed::Added))
    }

    /// Finds the instances that have our native region mapped, but have not followed the directory to `generation`. Both are read
    /// from their ATTACHED words. Calls `each` for each of them. Such an instance may still use what only an older
    /// generation listed: CPUs to ring, and regions.
    ///
    /// A life that is killed does not clear its ATTACHED word, so `each` can be called for it too. Only the host knows whether
    /// the CPUs of that life have stopped. `each` is not called for our own instance: [`follow`](Self::follow) returns the
    /// generation that this kernel has followed.
    ///
    /// # Errors
    /// `NotNative` if this kernel has no native region of its own. Only native regions have the word ATTACHED.
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

/// The value of [`Endpoint::followed`]: the generation that was followed, and in the upper half the value that `attachments` had
/// then.
fn followed(attachments: u32, generation: u32) -> u64 {
    u64::from(attachments) << 32 | u64::from(generation)
}

/// Whether the record has the region that we have mapped, with the same layout and flags.
fn is_same<W: Word>(known: &crate::instance::Instance<W>, record: &InstanceRecord) -> bool {
    let LinkConfig::RfcV2 { slots, policy } = config_of(record, &[]).link else {
        // Only the start is compared, because the stamp of a native region gives the length.
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
