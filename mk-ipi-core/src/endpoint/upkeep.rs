// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pending work of our lanes: flushes, handshakes, events for waiting senders (SPEC N-8 to N-10).

use super::base::{Endpoint, Instance};
use super::error::SendError;
use crate::native::{Opening, Sender, Watch};
use crate::platform::{Peer, PeerEvent, Platform};
use crate::published::Ref;
use crate::registry::Handler;
use mk_ipi_abi::InstanceId;

impl<
        P: Platform,
        H: Handler,
        const CPUS: usize,
        const HANDLERS: usize,
        const QUEUE: usize,
        const INSTANCES: usize,
    > Endpoint<P, H, CPUS, HANDLERS, QUEUE, INSTANCES>
{
    /// Rings `to` for posted messages, if it wants to be rung.
    pub fn flush(&self, to: InstanceId) -> Result<(), SendError> {
        let (instance, ()) = self.native(to, |_, _| ())?;
        self.busy.posted.remove(to);
        self.ring_if_wanted(&instance).map_err(SendError::NotRung)
    }

    /// Does the pending work of our lanes: flushes, handshakes, and events for senders that wait for space.
    pub(super) fn maintain_lanes(&self) {
        if self.busy.is_idle() {
            return;
        }
        self.busy.posted.for_each(|id| {
            // If this fails, the peer finds the messages in its next `tick`.
            let _ = self.flush(id);
        });
        self.busy.unexplained.for_each(|id| {
            if self.busy.unexplained.remove(id) {
                if let Ok(instance) = self.instances.get(id) {
                    self.report(&instance, PeerEvent::ReadDirectory);
                }
            }
        });
        self.busy.opening.for_each(|id| _ = self.continue_handshake(id));
        self.busy.wanting.for_each(|id| self.report_space(id));
    }

    /// Continues the handshake of our life with `id`. True if the handshake is complete.
    pub(super) fn continue_handshake(&self, id: InstanceId) -> bool {
        let Ok((instance, opening)) = self.native(id, |sender, _| sender.open()) else {
            self.busy.opening.remove(id);
            return false;
        };
        match opening {
            Opening::Waiting => {}
            Opening::HelloSent => {
                let _ = self.ring_if_wanted(&instance);
            }
            Opening::Open => {
                if self.busy.opening.remove(id) {
                    self.report(&instance, PeerEvent::Answered);
                }
            }
        }
        opening == Opening::Open
    }

    /// Reports to a sender that waits for space in our lane to `id`: the lane has space, or the peer refuses this life of ours.
    fn report_space(&self, id: InstanceId) {
        let instance = self.instances.get(id).ok();
        let Some((instance, (sender, watch))) = instance.as_deref().and_then(|i| Some((i, i.link.lane()?)))
        else {
            self.busy.wanting.remove(id);
            return;
        };
        let asked = sender.asked_for();
        let event = match sender.breach() {
            Some(breach) => {
                (sender.end_waiting() && watch.newly_refused()).then_some(PeerEvent::Refused(breach))
            }
            None => sender.has_space_for_waiter().then_some(PeerEvent::Space),
        };
        if event.is_none() && sender.is_waited_for() {
            // A ring is needed only for a new request. The receiver was rung for the former one.
            if sender.asked_for() != asked {
                let _ = self.ring_if_wanted(instance);
            }
            return;
        }
        self.busy.wanting.remove(id);
        if sender.is_waited_for() {
            // Another sender has begun to wait meanwhile.
            self.busy.wanting.add(id);
            self.schedule();
        }
        if let Some(event) = event {
            self.report(instance, event);
        }
    }

    fn report(&self, instance: &Instance<P>, event: PeerEvent) {
        if let (Some((_, ours)), Some(sender)) = (self.identity(), instance.sender()) {
            let theirs = sender.life().map(|life| life.incarnation);
            self.platform.peer_event(Peer { id: instance.id, theirs, ours }, event);
        }
    }

    /// Calls `f` with our lane to `to`.
    pub(super) fn native<R>(
        &self,
        to: InstanceId,
        f: impl FnOnce(&Sender<P::Word>, &Watch) -> R,
    ) -> Result<(Ref<'_, Instance<P>>, R), SendError> {
        let instance = self.instances.get(to).map_err(SendError::Instance)?;
        let result = instance.link.lane().map(|(sender, watch)| f(sender, watch));
        result.map(|result| (instance, result)).ok_or(SendError::NotNative)
    }
}
