// SPDX-License-Identifier: MIT OR Apache-2.0
//! What only the native link has: many messages at once, space, the peers' lives, the moving doorbell (SPEC chapter N).

use super::{Endpoint, SendError};
use crate::instance::InstanceRef;
use crate::native::{LaneStats, Opening, Sender, Watch};
use crate::platform::{Peer, PeerEvent, Platform};
use crate::published::Ref;
use crate::registry::Handler;
use mk_ipi_abi::native::Bell;
use mk_ipi_abi::{Errno, Incarnation, InstanceId, MessageType, PhysCpuId, Vector};

/// Why the doorbell was not moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveError {
    /// Our own region is not a native one.
    NotNative,
    /// The CPU is not ours, or its id has more than 48 bits.
    NotOurCpu(PhysCpuId),
}

impl MoveError {
    /// `EINVAL`.
    pub const fn errno(self) -> Errno {
        Errno::EINVAL
    }
}

impl<P: Platform, H: Handler, const CPUS: usize, const HANDLERS: usize, const QUEUE: usize>
    Endpoint<P, H, CPUS, HANDLERS, QUEUE>
{
    /// As [`send`](Self::send) on the native link, but rings nobody: after the last of several messages call
    /// [`flush`](Self::flush). Until then they may wait. What handlers post is flushed when they are through.
    #[inline]
    pub fn post(&self, to: InstanceId, msg_type: MessageType, payload: &[u8]) -> Result<u64, SendError> {
        match self.instance(to) {
            Ok(instance) => self.post_held(&instance, msg_type, payload),
            Err(e) => Err(self.count_unsent(SendError::Instance(e))),
        }
    }

    /// As [`post`](Self::post), to an instance that is held already.
    #[inline]
    pub fn post_held(
        &self,
        to: &InstanceRef<'_, P::Word, CPUS>,
        msg_type: MessageType,
        payload: &[u8],
    ) -> Result<u64, SendError> {
        self.post_all(to, msg_type, &[payload]).map(|(_, number)| number)
    }

    /// As [`post`](Self::post), for several messages of one type: how many there was space for, from the first on. One claim for all.
    ///
    /// # Errors
    /// `Full` if there was space for none, `TooLong` if any is.
    pub fn post_many(
        &self,
        to: InstanceId,
        msg_type: MessageType,
        payloads: &[&[u8]],
    ) -> Result<usize, SendError> {
        let instance = self.instance(to).map_err(SendError::Instance)?;
        self.post_many_held(&instance, msg_type, payloads)
    }

    /// As [`post_many`](Self::post_many), to an instance that is held already.
    #[inline]
    pub fn post_many_held(
        &self,
        to: &InstanceRef<'_, P::Word, CPUS>,
        msg_type: MessageType,
        payloads: &[&[u8]],
    ) -> Result<usize, SendError> {
        self.post_all(to, msg_type, payloads).map(|(count, _)| count)
    }

    #[inline(always)]
    fn post_all(
        &self,
        to: &InstanceRef<'_, P::Word, CPUS>,
        msg_type: MessageType,
        payloads: &[&[u8]],
    ) -> Result<(usize, u64), SendError> {
        let posted = self.on_lane(&to.0, |sender, cpu| sender.post(msg_type, cpu, payloads, self.swap()))?;
        self.busy.posted.add(to.0.id);
        Ok(posted)
    }

    /// As [`post_many`](Self::post_many), and rings the receiver if it wants to be rung.
    pub fn send_many(
        &self,
        to: InstanceId,
        msg_type: MessageType,
        payloads: &[&[u8]],
    ) -> Result<usize, SendError> {
        let instance = self.instance(to).map_err(SendError::Instance)?;
        let sent = self.post_many_held(&instance, msg_type, payloads)?;
        self.flush(to)?;
        Ok(sent)
    }

    /// Rings `to` for what was posted, if it wants to be rung.
    pub fn flush(&self, to: InstanceId) -> Result<(), SendError> {
        let (instance, ()) = self.native(to, |_, _| ())?;
        self.busy.posted.remove(to);
        self.ring_if_wanted(&instance).map_err(SendError::NotRung)
    }

    /// How far `to` has handled what this life of ours sent: every message with a number up to this one. It says so once for
    /// several.
    ///
    /// # Errors
    /// `Broken` if it says what cannot be.
    pub fn handled(&self, to: InstanceId) -> Result<u64, SendError> {
        let (_, handled) = self.native(to, |sender, _| sender.handled())?;
        handled.ok_or(SendError::Broken)
    }

    /// Asks to be told when our lane to `to` has space for a message of `len` bytes, or is answered: [`PeerEvent::Space`]. True if
    /// it has now; the event may come all the same.
    ///
    /// Who waits also learns, by [`PeerEvent`], that the peer refuses us, ended or restarted; the latter two from
    /// [`tick`](Self::tick).
    pub fn want_space(&self, to: InstanceId, len: usize) -> Result<bool, SendError> {
        self.go_on_with(to);
        let (instance, has_space) =
            self.native(to, |sender, _| sender.fits(len).then(|| sender.want_space(len)))?;
        if has_space.ok_or(SendError::TooLong)? {
            return Ok(true);
        }
        self.busy.wanting.add(to);
        self.ring_if_wanted(&instance).map_err(SendError::NotRung)?;
        // It may have come before the receiver could know that we wait.
        Ok(instance.sender().is_some_and(|sender| sender.has_space(len)))
    }

    /// Our lane to `to` in numbers.
    pub fn lane_stats(&self, to: InstanceId) -> Result<LaneStats, SendError> {
        self.native(to, |sender, _| sender.stats()).map(|(_, stats)| stats)
    }

    /// Shows that we live, has the deferred work look at all lanes, and looks at all native peers: what changed is told by
    /// [`PeerEvent`]. Call it now and then, where sleeping is not needed but waiting a little is no harm.
    ///
    /// A kernel that never calls this has no heartbeat: nobody takes it for dead, or notices if it is. It also finds what a lost
    /// doorbell left, and what became of messages that were in flight when a peer died.
    ///
    /// `now`: the kernel's clock, any 64-bit counter that does not wrap, in any unit; a peer whose heartbeat stands still for more
    /// than `patience` of it is suspect.
    pub fn tick(&self, now: u64, patience: u64) {
        let Some((me, ours)) = self.identity() else { return };
        if let Some(own) = self.own() {
            if let Some(region) = own.link.own_region() {
                region.beat();
                // Also what nobody rang for is found in the end.
                let _ = self.poll();
            }
        }
        self.see_to_lanes();
        for instance in self.instances.all().filter(|i| i.id != me) {
            if let Some((sender, watch)) = instance.link.lane() {
                let theirs = sender.life().map(|life| life.incarnation);
                let peer = Peer { id: instance.id, theirs, ours };
                watch.look(sender, now, patience, |event| self.platform.peer_event(peer, event));
            }
        }
    }

    /// Tells all peers that this life is over (SPEC N-11). What they sent and we have not read stays in our region, for our next
    /// life.
    pub fn goodbye(&self) {
        if let (Some((_, incarnation)), Some(own)) = (self.identity(), self.own()) {
            if let Some(region) = own.link.own_region() {
                region.say_goodbye(incarnation);
            }
        }
    }

    /// Tells that life of `to` to stop at once (SPEC N-15). Obeyed if we are the host.
    pub fn stop(&self, to: InstanceId, incarnation: Incarnation) -> Result<(), SendError> {
        self.native(to, |sender, _| sender.stop(incarnation))?;
        self.ring(to)
    }

    /// Has senders ring `cpu` with `vector` from now on (SPEC N-12). When the deferred work that this schedules is through, the
    /// old doorbell rings no more.
    pub fn move_doorbell(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), MoveError> {
        let own = self.own().ok_or(MoveError::NotNative)?;
        let region = own.link.own_region().ok_or(MoveError::NotNative)?;
        if !self.has_cpu(&own, cpu) || !region.set_bell(Bell { cpu, vector }) {
            return Err(MoveError::NotOurCpu(cpu));
        }
        region.disarm();
        self.schedule();
        Ok(())
    }

    /// An instance was added: it learns that we are there, and we look at its lane.
    pub(super) fn announce(&self, id: InstanceId) {
        if let Ok(instance) = self.instances.get(id) {
            if let Some(sender) = instance.sender() {
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

    /// Goes on with what our lanes wait for: answers, space, flushes.
    pub(super) fn see_to_lanes(&self) {
        if self.busy.is_idle() {
            return;
        }
        self.busy.posted.for_each(|id| {
            // One that cannot be rung looks by itself.
            let _ = self.flush(id);
        });
        self.busy.opening.for_each(|id| _ = self.go_on_with(id));
        self.busy.wanting.for_each(|id| self.tell_of_space(id));
    }

    /// Goes on with the handshake of a life of ours; whether it is through.
    pub(super) fn go_on_with(&self, id: InstanceId) -> bool {
        let Ok((instance, opening)) = self.native(id, |sender, _| sender.open()) else {
            self.busy.opening.remove(id);
            return false;
        };
        match opening {
            Opening::Waiting => {}
            Opening::Said => {
                let _ = self.ring_if_wanted(&instance);
            }
            Opening::Open => {
                if self.busy.opening.remove(id) {
                    self.tell(&instance, PeerEvent::Answered);
                }
            }
        }
        opening == Opening::Open
    }

    /// Tells whoever waits for space in the lane of `id` what has come of it.
    fn tell_of_space(&self, id: InstanceId) {
        let instance = self.instances.get(id).ok();
        let Some((instance, (sender, watch))) = instance.as_deref().and_then(|i| Some((i, i.link.lane()?)))
        else {
            self.busy.wanting.remove(id);
            return;
        };
        let event = match sender.breach() {
            Some(breach) => (sender.end_waiting() && watch.refuses()).then_some(PeerEvent::Refused(breach)),
            None => sender.has_space_for_waiter().then_some(PeerEvent::Space),
        };
        if event.is_none() && sender.is_waited_for() {
            let _ = self.ring_if_wanted(instance);
            return;
        }
        self.busy.wanting.remove(id);
        if sender.is_waited_for() {
            // Somebody has begun to wait in between.
            self.busy.wanting.add(id);
            self.schedule();
        }
        if let Some(event) = event {
            self.tell(instance, event);
        }
    }

    fn tell(&self, instance: &super::Instance<P, CPUS>, event: PeerEvent) {
        if let (Some((_, ours)), Some(sender)) = (self.identity(), instance.sender()) {
            let theirs = sender.life().map(|life| life.incarnation);
            self.platform.peer_event(Peer { id: instance.id, theirs, ours }, event);
        }
    }

    /// Calls `f` with our lane to `to`.
    fn native<R>(
        &self,
        to: InstanceId,
        f: impl FnOnce(&Sender<P::Word>, &Watch) -> R,
    ) -> Result<(Ref<'_, super::Instance<P, CPUS>>, R), SendError> {
        let instance = self.instances.get(to).map_err(SendError::Instance)?;
        let result = instance.link.lane().map(|(sender, watch)| f(sender, watch));
        result.map(|result| (instance, result)).ok_or(SendError::NotNative)
    }
}
