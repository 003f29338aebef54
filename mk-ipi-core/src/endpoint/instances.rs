// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls that set our identity, and that add and remove instances (SPEC chapter C).

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
    /// Sets the identity of this kernel. Without an identity `on_interrupt` reads no message, sends into exclusive slots are
    /// refused, and no native link can be made.
    ///
    /// Peers may have sent before, so this looks into the slot of this CPU. Every other CPU of this kernel must call
    /// [`poll`](Self::poll) once after this, and each time after our own instance was added.
    pub fn identify(&self, instance: InstanceId, incarnation: Incarnation) {
        self.set_identity(Some(Claim { instance, incarnation }));
        // An error is allowed here: no region, slots that are never emptied, or the index of this CPU is not below `CPUS`.
        let _ = self.poll();
    }

    /// Undoes [`identify`](Self::identify) after a start that failed. Call it only when no instance is in the table any more.
    pub fn forget_identity(&self) {
        self.set_identity(None);
    }

    /// Adds an instance and makes its region from its pool: zeroed, mapped, then published. May sleep.
    ///
    /// Returns the exact range of the region.
    pub fn create_instance(&self, config: &InstanceConfig<'_>) -> Result<PhysRange, AddError> {
        let range = self.with_me(|me| self.instances.create(&self.platform, me, config))?;
        self.announce(config.id);
        Ok(range)
    }

    /// Adds an instance whose region another kernel made, or an instance without a region. May sleep.
    pub fn attach_instance(
        &self,
        config: &InstanceConfig<'_>,
        region: Option<PhysRange>,
    ) -> Result<(), AddError> {
        self.with_me(|me| self.instances.attach(&self.platform, me, config, region))?;
        self.announce(config.id);
        Ok(())
    }

    /// Makes this life begin with empty lanes. Messages that former lives of ours left unread are not delivered. Their senders
    /// get [`PeerEvent::Discarded`](crate::platform::PeerEvent). Call it before our own instance is added.
    pub fn discard_unread(&self) {
        self.discard.store(true, Ordering::Relaxed);
    }

    /// Calls `f` with our identity and the settings of our receiver, which a native link needs; with `None` if we have no
    /// identity.
    fn with_me<R>(&self, f: impl FnOnce(Option<Me<'_, INSTANCES>>) -> R) -> R {
        let Some((id, incarnation)) = self.identity() else { return f(None) };
        let discard = self.discard.load(Ordering::Relaxed);
        let bell = self.bell.load(Ordering::Relaxed);
        f(Some(Me { id, incarnation, receiver: &self.receiver, discard, bell }))
    }

    /// Removes an instance from the table, unmaps its region and gives back memory that came from its pool. May sleep.
    ///
    /// It never waits for users. While senders use the instance, the result is `InUse`, and new users are refused: call again.
    /// Messages that the peer has not confirmed as handled are reported by [`PeerEvent::Unsettled`].
    ///
    /// A native region goes back to our pool only if no other instance says that it has the region mapped. Otherwise the error
    /// `Mapped` names such an instance (SPEC D-8, N-17). A region of RFC v2 has no word for that. For such a region the host
    /// first waits until all kernels have followed the directory ([`behind`](Self::behind)).
    pub fn destroy_instance(&self, id: InstanceId) -> Result<(), DestroyError> {
        self.destroy_with(id, |_, _| false)
    }

    /// The same as [`destroy_instance`](Self::destroy_instance), for the host. `has_stopped` is called with an instance and a
    /// life that says that it has the region mapped. It must return whether the CPUs of that life have stopped for good. If it
    /// returns true although they still run, that kernel may write into memory that has another owner by then. `has_stopped` is
    /// called for each such life until it returns false once, and can be called more than once for the same life.
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

    /// Calls `each` for every other instance and life that says that it has the native region of `id` mapped (SPEC N-17): the
    /// senders, and the receiver. It does not matter which kernel created the region. May sleep.
    ///
    /// # Errors
    /// `Unknown` if there is no such instance with a native region, `Map` if its lanes could not be mapped.
    pub fn mapped_by(
        &self,
        id: InstanceId,
        each: impl FnMut(InstanceId, Incarnation),
    ) -> Result<(), DestroyError> {
        let instance = self.instances.get(id).map_err(|_| DestroyError::Unknown)?;
        let me = self.identity().map(|(me, _)| me);
        instance.mapped_by(&self.platform, me, each)
    }

    /// Empties every slot that a dead kernel had claimed (SPEC X-5). Returns the number of slots emptied.
    ///
    /// For the host, after the CPUs of that incarnation have stopped for good. A kernel that still runs could write
    /// into the message of the slot's next owner.
    pub fn clear_claims(&self, dead: InstanceId, incarnation: Incarnation) -> usize {
        self.instances.clear_claims(Claim { instance: dead, incarnation })
    }

    /// Called after an instance was added. Rings the instance, so that it sees our hello, and schedules a run that reads our
    /// lanes.
    fn announce(&self, id: InstanceId) {
        // The directory entry that the caller used may be out of date. So the next `follow` reads the whole directory.
        self.attachments.fetch_add(1, Ordering::Relaxed);
        if let Ok(instance) = self.instances.get(id) {
            if let Some(sender) = instance.sender() {
                if sender.is_fresh() {
                    // The region is new to us, so the life in it has not been reported yet.
                    self.lives.get(id.index()).into_iter().for_each(|told| told.store(0, Ordering::Relaxed));
                }
                if sender.open() != Opening::Open {
                    self.busy.opening.add(id);
                }
                // If this fails, the peer finds the hello in its next `tick`.
                let _ = self.ring_if_wanted(&instance);
            }
        }
        if self.own().is_some_and(|own| own.link.own_region().is_some()) {
            self.schedule();
        }
    }
}
