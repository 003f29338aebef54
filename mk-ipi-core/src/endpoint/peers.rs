// SPDX-License-Identifier: MIT OR Apache-2.0
//! The native peers: how far they are, space in their lanes, their lives and ours, the moving doorbell (SPEC chapter N).

use super::base::Endpoint;
use super::error::SendError;
use crate::native::LaneStats;
use crate::platform::{Peer, PeerEvent, Platform};
use crate::registry::Handler;
use crate::sync::Ordering;
use mk_ipi_abi::native::{Bell, Life};
use mk_ipi_abi::{Errno, Incarnation, InstanceId, PhysCpuId, Vector};

/// Why the doorbell was not moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveError {
    /// Our own region is not a native one.
    NotNative,
    /// The CPU is not ours, or its id has more than 48 bits.
    NotOurCpu(PhysCpuId),
}

impl core::fmt::Display for MoveError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::NotNative => f.write_str("only a native region can name another doorbell"),
            Self::NotOurCpu(cpu) => {
                write!(f, "CPU {:#x} is not one of this kernel, or its id has more than 48 bits", cpu.0)
            }
        }
    }
}

impl core::error::Error for MoveError {}

impl MoveError {
    /// `EINVAL`.
    pub const fn errno(self) -> Errno {
        Errno::EINVAL
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
    /// How far `to` has handled what this life of ours sent: every message with a number up to this one. It says so once for
    /// several.
    ///
    /// # Errors
    /// `Broken` if it says what cannot be.
    pub fn handled(&self, to: InstanceId) -> Result<u64, SendError> {
        let (_, handled) = self.native(to, |sender, _| sender.handled())?;
        handled.ok_or(SendError::Broken)
    }

    /// Asks to be told when our lane to `to` has space for a message of `len` bytes, or is answered: [`PeerEvent::Space`](crate::platform::PeerEvent::Space). True if
    /// it has now; the event may come all the same.
    ///
    /// Who waits also learns, by [`PeerEvent`](crate::platform::PeerEvent), that the peer refuses us, ended or restarted; the latter two from
    /// [`tick`](Self::tick).
    pub fn want_space(&self, to: InstanceId, len: usize) -> Result<bool, SendError> {
        self.continue_handshake(to);
        let wait = || self.busy.wanting.add(to);
        let (instance, has_space) =
            self.native(to, |sender, _| sender.fits(len).then(|| sender.want_space(len, wait)))?;
        if has_space.ok_or(SendError::TooLong)? {
            return Ok(true);
        }
        self.ring_if_wanted(&instance).map_err(SendError::NotRung)?;
        // It may have come before the receiver could know that we wait.
        Ok(instance.sender().is_some_and(|sender| sender.has_space(len)))
    }

    /// Our lane to `to` in numbers.
    pub fn lane_stats(&self, to: InstanceId) -> Result<LaneStats, SendError> {
        self.native(to, |sender, _| sender.stats()).map(|(_, stats)| stats)
    }

    /// Shows that we live, has the deferred work look at all lanes, and looks at all native peers: what changed is told by
    /// [`PeerEvent`](crate::platform::PeerEvent). Call it now and then, where sleeping is not needed but waiting a little is no harm.
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
                region.advance_heartbeat();
                // Also what nobody rang for is found in the end.
                let _ = self.poll();
            }
        }
        self.maintain_lanes();
        for instance in self.instances.all().filter(|i| i.id != me) {
            if let Some((sender, watch)) = instance.link.lane() {
                let theirs = sender.life().map(|life| life.incarnation);
                let peer = Peer { id: instance.id, theirs, ours };
                watch.look(sender, now, patience, |event| {
                    // That the heart of a life stands still whose CPUs were stopped is no news.
                    let is_over =
                        || !instance.is_live() || theirs.is_some_and(|life| instance.is_former(life));
                    if !(event == PeerEvent::Suspect && is_over()) && self.is_news(instance.id, event) {
                        self.platform.peer_event(peer, event);
                    }
                });
            }
        }
    }

    /// Whether that is not the life of an instance that was told of last.
    fn is_news(&self, id: InstanceId, event: PeerEvent) -> bool {
        let life = match event {
            PeerEvent::Up(incarnation) => Life { incarnation, over: false },
            PeerEvent::Dead(incarnation) => Life { incarnation, over: true },
            _ => return true,
        };
        let told = self.lives.get(id.index());
        told.is_none_or(|told| told.swap(life.to_word(), Ordering::Relaxed) != life.to_word())
    }

    /// Tells all peers that this life is over (SPEC N-11). From then on call nothing but `destroy_instance`: the host may give our region
    /// to somebody else. What they sent and we have not read stays in our region, for our next
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

    /// Has our next life be rung at `cpu` with `vector` from its first doorbell on, whatever vector the directory lists for us
    /// (SPEC N-11, N-12). For a kernel that chooses its vector itself. Call it before our own instance is added;
    /// [`move_doorbell`](Self::move_doorbell) is for later.
    ///
    /// Senders ring there only if the directory lists that CPU as ours.
    pub fn begin_at(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), MoveError> {
        let bell = Bell { cpu, vector }.to_word().ok_or(MoveError::NotOurCpu(cpu))?;
        self.bell.store(bell, Ordering::Relaxed);
        Ok(())
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
}
