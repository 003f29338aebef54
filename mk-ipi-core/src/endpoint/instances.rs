// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who we are, and which instances we know (SPEC chapter C).

use super::base::Endpoint;
use crate::instance::{DestroyError, InstanceConfig};
use crate::link::{AddError, Me};
use crate::native::Opening;
use crate::platform::{Peer, PeerEvent, Platform};
use crate::registry::Handler;
use crate::sync::Ordering;
use mk_ipi_abi::rfc_v2::Claim;
use mk_ipi_abi::{Incarnation, InstanceId, PhysRange};

impl<
        P: Platform,
        H: Handler,
        const CPUS: usize,
        const HANDLERS: usize,
        const QUEUE: usize,
        const INSTANCES: usize,
    > Endpoint<P, H, CPUS, HANDLERS, QUEUE, INSTANCES>
{
    /// Says who this kernel is. Until then interrupts are ignored, sends refused, and native links not made.
    ///
    /// Peers may have sent before: looks into this CPU's slot. Every other CPU of this kernel calls
    /// [`poll`](Self::poll) once after this, and after our own instance was added anew.
    pub fn identify(&self, instance: InstanceId, incarnation: Incarnation) {
        self.set_identity(Some(Claim { instance, incarnation }));
        // Without a region, or where slots are never emptied, there is nothing to find.
        let _ = self.poll();
    }

    /// Adds an instance and makes its region from its pool: zeroed, mapped, then published. May sleep.
    ///
    /// Gives where the region lies, exactly.
    pub fn create_instance(&self, config: &InstanceConfig<'_>) -> Result<PhysRange, AddError> {
        let range = self.with_me(|me| self.instances.create(&self.platform, me, config))?;
        self.announce(config.id);
        Ok(range)
    }

    /// Adds an instance whose region another kernel made, or that has none. May sleep.
    pub fn attach_instance(
        &self,
        config: &InstanceConfig<'_>,
        region: Option<PhysRange>,
    ) -> Result<(), AddError> {
        self.with_me(|me| self.instances.attach(&self.platform, me, config, region))?;
        self.announce(config.id);
        Ok(())
    }

    /// Has this life begin with empty lanes: what former lives of ours left unread is not delivered but given back to its senders
    /// ([`PeerEvent::Discarded`](crate::platform::PeerEvent)). Call it before our own instance is added.
    pub fn discard_unread(&self) {
        self.discard.store(true, Ordering::Relaxed);
    }

    /// Calls `f` with who we are, as a native link needs it.
    fn with_me<R>(&self, f: impl FnOnce(Option<Me<'_, INSTANCES>>) -> R) -> R {
        let Some((id, incarnation)) = self.identity() else { return f(None) };
        let discard = self.discard.load(Ordering::Relaxed);
        let bell = self.bell.load(Ordering::Relaxed);
        f(Some(Me { id, incarnation, receiver: &self.receiver, discard, bell }))
    }

    /// Takes an instance out of the table, unmaps its region and gives back what came from its pool. May sleep.
    ///
    /// Never waits: while senders use the instance it is closed to new ones and `InUse`; call again. What the peer has not said to
    /// have handled is told by [`PeerEvent::Unsettled`].
    ///
    /// A native region goes back to our pool only when nobody else has it mapped, by their own word: `Mapped` says who has
    /// (SPEC D-8, N-17). A region of RFC v2 has no room for such a word; there the host knows from the directory
    /// ([`behind`](Self::behind)).
    pub fn destroy_instance(&self, id: InstanceId) -> Result<(), DestroyError> {
        self.destroy_with(id, |_, _| false)
    }

    /// As [`destroy_instance`](Self::destroy_instance), for the host. `has_stopped` is asked about each instance, and the life of it,
    /// that says that it has the region mapped: whether its CPUs have stopped for good. If it answers true and they run, that kernel
    /// goes on writing into memory that is somebody else's by then.
    pub fn destroy_with(
        &self,
        id: InstanceId,
        has_stopped: impl FnMut(InstanceId, Incarnation) -> bool,
    ) -> Result<(), DestroyError> {
        let me = self.identity();
        let unsettled = self.instances.destroy(&self.platform, id, me.map(|(id, _)| id), has_stopped)?;
        if let (Some((theirs, (after, to))), Some((_, ours))) = (unsettled, me) {
            self.platform.peer_event(Peer { id, theirs, ours }, PeerEvent::Unsettled { after, to });
        }
        Ok(())
    }

    /// Calls `each` for every other kernel that has the native region of `id` mapped, by its own word, whoever made that
    /// (SPEC N-17): its senders, and its receiver, in these lives. May sleep.
    ///
    /// # Errors
    /// `Unknown` if there is no such instance with a native region, `Map` if its lanes could not be looked at.
    pub fn mapped_by(
        &self,
        id: InstanceId,
        each: impl FnMut(InstanceId, Incarnation),
    ) -> Result<(), DestroyError> {
        let instance = self.instances.get(id).map_err(|_| DestroyError::Unknown)?;
        let me = self.identity().map(|(me, _)| me);
        instance.mapped_by(&self.platform, me, each)
    }

    /// Empties every slot that a dead kernel had claimed; gives how many (SPEC X-5).
    ///
    /// For the host, when that incarnation's CPUs have stopped for good: a kernel that still ran could write
    /// into the message of the slot's next owner.
    pub fn clear_claims(&self, dead: InstanceId, incarnation: Incarnation) -> usize {
        self.instances.clear_claims(Claim { instance: dead, incarnation })
    }

    /// An instance was added: it learns that we are there, and we look at its lane.
    fn announce(&self, id: InstanceId) {
        // Perhaps by an entry that has changed since: the next look at the directory is a whole one, also of who is at it now.
        self.attachments.fetch_add(1, Ordering::Relaxed);
        self.followed.store(0, Ordering::Relaxed);
        if let Ok(instance) = self.instances.get(id) {
            if let Some(sender) = instance.sender() {
                if sender.is_fresh() {
                    // Another region: whoever lives there has not been told of.
                    self.lives.get(id.index()).into_iter().for_each(|told| told.store(0, Ordering::Relaxed));
                }
                if sender.open() != Opening::Open {
                    self.busy.opening.add(id);
                }
                // One that cannot be rung looks by itself.
                let _ = self.ring_if_wanted(&instance);
            }
        }
        if self.own().is_some_and(|own| own.link.own_region().is_some()) {
            self.schedule();
        }
    }
}
