// SPDX-License-Identifier: MIT OR Apache-2.0
//! The native link's part of an endpoint: the drain, and what only this generation has (SPEC chapter N).

use super::{Cpu, Deferred, Endpoint, Instance, SendError};
use crate::instance::{InstanceRef, Link};
use crate::message::Message;
use crate::native::{Events, OwnRegion};
use crate::platform::{PeerEvent, Platform};
use crate::published::Ref;
use crate::registry::{Handler, Recent};
use crate::stats::Count;
use crate::sync::{AtomicU64, Ordering};
use mk_ipi_abi::native::{Bell, Breach, Features};
use mk_ipi_abi::{Errno, InstanceId, MessageType, PhysCpuId, Vector};

/// Why the doorbell was not moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveError {
    /// Our own region is not a native one.
    NotNative,
    /// The directory does not list that CPU for us.
    NotOurCpu(PhysCpuId),
}

impl MoveError {
    /// `EINVAL`.
    pub const fn errno(self) -> Errno {
        Errno::EINVAL
    }
}

/// Our lane in a peer's region, in numbers. Some are the peer's word: they inform, and decide nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneStats {
    /// Messages sent in this life.
    pub sent: u64,
    /// Sends that found the lane full, in all lives.
    pub full: u64,
    /// Doorbells rung, in all lives; all other sends were suppressed.
    pub rung: u64,
    /// Messages that the peer says it handed on, in all lives.
    pub received: u64,
    /// Lives of ours that it acknowledged, and restarts of its own.
    pub resets: u64,
    /// How often it put the lane into quarantine.
    pub bad: u64,
    /// Why it did so last.
    pub last_breach: Option<Breach>,
}

/// One run of the drain.
struct Run<'a, P: Platform, H, const CPUS: usize, const HANDLERS: usize, const QUEUE: usize> {
    endpoint: &'a Endpoint<P, H, CPUS, HANDLERS, QUEUE>,
    cpu: &'a Cpu<QUEUE>,
    recent: Recent<'a, H>,
    handled: usize,
    unhandled: usize,
    /// Whether the CPU is marked as inside callbacks.
    calling: bool,
}

impl<P: Platform, H, const CPUS: usize, const HANDLERS: usize, const QUEUE: usize>
    Run<'_, P, H, CPUS, HANDLERS, QUEUE>
{
    /// Callbacks begin, and last as long as this run.
    #[inline]
    fn begin_calling(&mut self) {
        if !core::mem::replace(&mut self.calling, true) {
            // This CPU's alone: who interrupts it leaves the count as it was.
            let callbacks = &self.cpu.callbacks;
            callbacks.store(callbacks.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }
}

impl<P: Platform, H, const CPUS: usize, const HANDLERS: usize, const QUEUE: usize> Drop
    for Run<'_, P, H, CPUS, HANDLERS, QUEUE>
{
    fn drop(&mut self) {
        if !self.calling {
            return;
        }
        let (cpu, [handled, unhandled]) = (self.cpu, [self.handled, self.unhandled].map(|n| n as u64));
        cpu.callbacks.store(cpu.callbacks.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Relaxed);
        // Whoever drains counts these, and one does at a time.
        cpu.counters.add_alone(Count::Received, handled.wrapping_add(unhandled));
        cpu.counters.add_alone(Count::Handled, handled);
        cpu.counters.add_alone(Count::Unhandled, unhandled);
    }
}

impl<'a, P: Platform, H: Handler, const CPUS: usize, const HANDLERS: usize, const QUEUE: usize> Events
    for Run<'a, P, H, CPUS, HANDLERS, QUEUE>
{
    type Peer = Ref<'a, Instance<P, CPUS>>;

    fn peer(&self, id: InstanceId) -> Option<Self::Peer> {
        self.endpoint.instances.get(id).ok()
    }

    fn version(&self) -> u32 {
        self.endpoint.instances.version()
    }

    fn cpu(peer: &Self::Peer, index: u16) -> Option<PhysCpuId> {
        peer.cpus().get(usize::from(index)).copied()
    }

    fn deliver(&mut self, message: &Message) {
        self.begin_calling();
        let called = self.endpoint.registry.dispatch_recent(&mut self.recent, message);
        let counter = if called == 0 { &mut self.unhandled } else { &mut self.handled };
        *counter = counter.wrapping_add(1);
    }

    fn ring(&self, id: InstanceId) {
        // A peer that cannot be rung finds out by itself when it tries again.
        let _ = self.endpoint.ring(id);
    }

    fn event(&mut self, id: InstanceId, event: PeerEvent) {
        self.begin_calling();
        if let PeerEvent::Quarantined(_) = event {
            self.cpu.counters.count(Count::Quarantined);
        }
        self.endpoint.platform.peer_event(id, event);
    }
}

impl<P: Platform, H: Handler, const CPUS: usize, const HANDLERS: usize, const QUEUE: usize>
    Endpoint<P, H, CPUS, HANDLERS, QUEUE>
{
    /// An instance was added: it learns that we are there, and we look at its lane.
    pub(super) fn announce(&self, id: InstanceId) {
        if let Ok(instance) = self.instances.get(id) {
            if let Some(sender) = instance.sender() {
                // One that cannot be rung looks by itself.
                let _ = self.ring_if_wanted(&instance, sender, sender.flush());
            }
        }
        if let Some(own) = self.own() {
            if let Some(region) = own.own_region() {
                region.hint(id);
                self.schedule();
            }
        }
    }

    /// A doorbell rang.
    pub(super) fn wake(&self, own: &OwnRegion<P::Word>) {
        own.disarm();
        self.obey(own);
        self.receiver.wake();
        self.platform.schedule();
    }

    /// Stops, if the host says so.
    fn obey(&self, own: &OwnRegion<P::Word>) {
        if self.identity().is_some_and(|(_, incarnation)| own.is_stopped(incarnation)) {
            self.platform.stop();
        }
    }

    /// Whether any lane has something; if so the deferred work is scheduled.
    pub(super) fn poll_region(&self, own: &OwnRegion<P::Word>) -> bool {
        self.obey(own);
        let Some(cpu) = self.cpu() else { return false };
        // Whoever holds it finds what there is.
        let Some(mut hold) = self.receiver.hold() else { return false };
        let found = hold.is_pending(own, &self.begin_run(cpu));
        if hold.release() || found {
            self.platform.schedule();
        }
        found
    }

    /// Drains our lanes, `QUEUE` messages at most.
    pub(super) fn run_lanes(&self, cpu: &Cpu<QUEUE>, own: &OwnRegion<P::Word>, arm: bool) -> Deferred {
        let Some(mut hold) = self.receiver.hold() else { return Deferred::NOTHING };
        let mut run = self.begin_run(cpu);
        let more = hold.drain(own, &mut run, QUEUE, arm);
        let more = hold.release() || more;
        let messages = run.handled.wrapping_add(run.unhandled);
        drop(run);
        self.tell_of_space();
        if more && arm {
            self.schedule();
        }
        Deferred { messages, more }
    }

    /// What a drain on this CPU works with.
    fn begin_run<'a>(&'a self, cpu: &'a Cpu<QUEUE>) -> Run<'a, P, H, CPUS, HANDLERS, QUEUE> {
        Run { endpoint: self, cpu, recent: Recent::NONE, handled: 0, unhandled: 0, calling: false }
    }

    /// As [`send`](Self::send) on the native link, but rings nobody: after the last of several messages call
    /// [`flush`](Self::flush). Until then they may wait.
    #[inline]
    pub fn post(&self, to: InstanceId, msg_type: MessageType, payload: &[u8]) -> Result<(), SendError> {
        match self.instance(to) {
            Ok(instance) => self.post_held(&instance, msg_type, payload),
            Err(e) => self.count_sent(Err(SendError::Instance(e))),
        }
    }

    /// As [`post`](Self::post), to an instance that is held already.
    #[inline]
    pub fn post_held(
        &self,
        to: &InstanceRef<'_, P::Word, CPUS>,
        msg_type: MessageType,
        payload: &[u8],
    ) -> Result<(), SendError> {
        let interrupts = self.platform.disable();
        let posted =
            to.0.sender()
                .ok_or(SendError::NotNative)
                .and_then(|sender| Ok(sender.post(msg_type, self.listed()?, payload)?));
        self.platform.restore(interrupts);
        posted.or_else(|e| self.count_sent(Err(e)))
    }

    /// Rings `to` for what was posted, if it wants to be rung.
    pub fn flush(&self, to: InstanceId) -> Result<(), SendError> {
        let instance = self.instances.get(to).map_err(SendError::Instance)?;
        let sender = instance.sender().ok_or(SendError::NotNative)?;
        self.ring_if_wanted(&instance, sender, sender.flush()).map_err(SendError::NotRung)
    }

    /// Asks to be told when our lane to `to` has space: [`PeerEvent::Space`]. True if it has now; the event may
    /// come all the same.
    pub fn want_space(&self, to: InstanceId) -> Result<bool, SendError> {
        let instance = self.instances.get(to).map_err(SendError::Instance)?;
        let sender = instance.sender().ok_or(SendError::NotNative)?;
        if sender.has_space() {
            return Ok(true);
        }
        if !sender.offers(Features::SPACE) {
            return Err(SendError::NotOffered);
        }
        let (word, bit) = self.wanting_bit(to);
        word.fetch_or(bit, Ordering::Relaxed);
        self.ring_if_wanted(&instance, sender, sender.want_space()).map_err(SendError::NotRung)?;
        // It may have come before the receiver could know that we wait.
        Ok(sender.has_space())
    }

    fn wanting_bit(&self, id: InstanceId) -> (&AtomicU64, u64) {
        let [a, b, c, d] = &self.wanting;
        let word = match id.get() >> 6 {
            0 => a,
            1 => b,
            2 => c,
            _ => d,
        };
        (word, 1 << (id.get() & 63))
    }

    /// Whether somebody waits for space in any lane.
    pub(super) fn is_waiting(&self) -> bool {
        self.wanting.iter().any(|word| word.load(Ordering::Relaxed) != 0)
    }

    /// Tells of the lanes that have space again.
    pub(super) fn tell_of_space(&self) {
        for (word, first) in self.wanting.iter().zip([0u8, 64, 128, 192]) {
            let mut bits = word.load(Ordering::Relaxed);
            while bits != 0 {
                #[expect(clippy::cast_possible_truncation, reason = "below 64")]
                let id = InstanceId::new(first | bits.trailing_zeros() as u8);
                let bit = bits & bits.wrapping_neg();
                bits ^= bit;
                let instance = self.instances.get(id).ok();
                let ready = instance.is_none_or(|i| self.has_space_at_last(&i));
                if ready && word.fetch_and(!bit, Ordering::Relaxed) & bit != 0 {
                    self.platform.peer_event(id, PeerEvent::Space);
                }
            }
        }
    }

    /// Whether our lane has space; if others of us took what there was, the receiver is asked again.
    fn has_space_at_last(&self, instance: &Instance<P, CPUS>) -> bool {
        let Some(sender) = instance.sender() else { return true };
        sender.has_space_at_last(|wanted| {
            // One that cannot be rung looks by itself.
            let _ = self.ring_if_wanted(instance, sender, wanted);
        })
    }

    /// Shows that we live, looks at all lanes as [`poll`](Self::poll) does, and at all native peers: what changed is told by
    /// [`PeerEvent`]. Call it now and then.
    ///
    /// A kernel that never calls this has no heartbeat: nobody takes it for dead, or notices if it is.
    ///
    /// `now`: the kernel's clock, in any unit; a peer whose heartbeat stands still for more than `patience` of it is suspect.
    pub fn tick(&self, now: u64, patience: u64) {
        let Some((me, _)) = self.identity() else { return };
        if let Some(own) = self.own() {
            if let Some(region) = own.own_region() {
                region.beat();
                // Also what no hint tells of is found in the end.
                let _ = self.poll();
            }
        }
        self.tell_of_space();
        for instance in self.instances.all().filter(|i| i.id != me) {
            if let Link::Native { sender, watch, .. } = &instance.link {
                watch.look(sender, now, patience, |event| self.platform.peer_event(instance.id, event));
            }
        }
    }

    /// Tells all peers that this life is over (SPEC N-11). What they sent and we have not read stays in our region.
    pub fn goodbye(&self) {
        if let (Some((_, incarnation)), Some(own)) = (self.identity(), self.own()) {
            if let Some(region) = own.own_region() {
                region.say_goodbye(incarnation);
            }
        }
    }

    /// Tells the present life of `to` to stop at once (SPEC N-15). Obeyed if we are the host.
    pub fn stop(&self, to: InstanceId) -> Result<(), SendError> {
        let instance = self.instances.get(to).map_err(SendError::Instance)?;
        let sender = instance.sender().ok_or(SendError::NotNative)?;
        let life = sender.pulse().life.map_or(instance.incarnation, |life| life.incarnation);
        sender.stop(life);
        self.ring_if_wanted(&instance, sender, true).map_err(SendError::NotRung)
    }

    /// Has senders ring `cpu` with `vector` from now on (SPEC N-12). When the deferred work that this schedules is through, the
    /// old doorbell rings no more.
    pub fn move_doorbell(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), MoveError> {
        let own = self.own().ok_or(MoveError::NotNative)?;
        let region = own.own_region().ok_or(MoveError::NotNative)?;
        let listed = (0..u16::MAX).zip(own.cpus()).find(|(_, listed)| **listed == cpu);
        let (index, _) = listed.ok_or(MoveError::NotOurCpu(cpu))?;
        region.set_bell(Bell { cpu: index, vector });
        region.disarm();
        self.receiver.wake();
        self.schedule();
        Ok(())
    }

    /// Our lane to `to` in numbers.
    pub fn lane_stats(&self, to: InstanceId) -> Result<LaneStats, SendError> {
        let instance = self.instances.get(to).map_err(SendError::Instance)?;
        let sender = instance.sender().ok_or(SendError::NotNative)?;
        Ok(sender.stats())
    }
}
