// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls about native peers: which messages they have handled, space in lanes, `tick`, `goodbye`, moves of the doorbell (SPEC
//! chapter N).

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
    /// This kernel has no native region of its own.
    NotNative,
    /// The CPU does not belong to us, or its id has more than 48 bits.
    NotOurCpu(PhysCpuId),
}

impl core::fmt::Display for MoveError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::NotNative => f.write_str(
                "this kernel has no native region, and only a native region can name another doorbell",
            ),
            Self::NotOurCpu(cpu) => {
                write!(f, "CPU {:#x} does not belong to this kernel, or its id has more than 48 bits", cpu.0)
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
    /// The message number up to which `to` has handled all messages of this life of ours. The number may lag, because the peer
    /// confirms several messages together.
    ///
    /// # Errors
    /// `Broken` if the peer's word CREDIT has an impossible value.
    pub fn handled(&self, to: InstanceId) -> Result<u64, SendError> {
        let (_, handled) = self.native(to, |sender, _| sender.handled())?;
        handled.ok_or(SendError::Broken)
    }

    /// Requests [`PeerEvent::Space`](crate::platform::PeerEvent::Space) for when our lane to `to` has space for a message of
    /// `len` bytes. True if the lane has space now; the event may come nevertheless. True also if the lane is broken or in
    /// quarantine, because then no space can come. A send that finds no space then fails with `Broken`, `RegionGone` or
    /// `Quarantined`.
    ///
    /// Other events tell a waiting sender that the peer refuses us, has ended or has restarted
    /// ([`PeerEvent`](crate::platform::PeerEvent)). An end and a restart are reported by [`tick`](Self::tick).
    pub fn want_space(&self, to: InstanceId, len: usize) -> Result<bool, SendError> {
        self.continue_handshake(to);
        let wait = || self.busy.wanting.add(to);
        let (instance, has_space) =
            self.native(to, |sender, _| sender.fits(len).then(|| sender.want_space(len, wait)))?;
        if has_space.ok_or(SendError::TooLong)? {
            return Ok(true);
        }
        self.ring_if_wanted(&instance).map_err(SendError::NotRung)?;
        // The space may have become free before the receiver could see our request.
        Ok(instance.sender().is_some_and(|sender| sender.has_space(len)))
    }

    /// Statistics of our lane to `to`.
    pub fn lane_stats(&self, to: InstanceId) -> Result<LaneStats, SendError> {
        self.native(to, |sender, _| sender.stats()).map(|(_, stats)| stats)
    }

    /// Advances our heartbeat, schedules the deferred work to look at all lanes, and checks all native peers. Changes are
    /// reported by [`PeerEvent`](crate::platform::PeerEvent). Call it periodically, where a short wait does no harm. It does not
    /// sleep.
    ///
    /// The heartbeat of a kernel that never calls this does not change. Then no peer suspects this kernel, and no peer notices if
    /// it dies. The call also finds messages whose doorbell was lost, and what happened to messages in flight when a peer died.
    ///
    /// `now`: the kernel's clock, any 64-bit counter that does not wrap, in any unit. A peer whose heartbeat does not change for
    /// more than `patience` of these units is suspect.
    pub fn tick(&self, now: u64, patience: u64) {
        let Some((me, ours)) = self.identity() else { return };
        if let Some(own) = self.own() {
            if let Some(region) = own.link.own_region() {
                region.advance_heartbeat();
                // The deferred work finds also messages whose doorbell was lost.
                let _ = self.poll();
            }
        }
        self.maintain_lanes();
        for instance in self.instances.all().filter(|i| i.id != me) {
            if let Some((sender, watch)) = instance.link.lane() {
                let theirs = sender.life().map(|life| life.incarnation);
                let peer = Peer { id: instance.id, theirs, ours };
                watch.look(sender, now, patience, |event| {
                    // A life whose CPUs were stopped has no heartbeat. This is expected, so `Suspect` is not reported for it.
                    let is_over =
                        || !instance.is_live() || theirs.is_some_and(|life| instance.is_former(life));
                    if !(event == PeerEvent::Suspect && is_over()) && self.is_news(instance.id, event) {
                        self.platform.peer_event(peer, event);
                    }
                });
            }
        }
    }

    /// Whether `event` must be reported. False for an `Up` or `Dead` that repeats what was reported last for this instance.
    fn is_news(&self, id: InstanceId, event: PeerEvent) -> bool {
        let life = match event {
            PeerEvent::Up(incarnation) => Life { incarnation, over: false },
            PeerEvent::Dead(incarnation) => Life { incarnation, over: true },
            _ => return true,
        };
        let told = self.lives.get(id.index());
        told.is_none_or(|told| told.swap(life.to_word(), Ordering::Relaxed) != life.to_word())
    }

    /// Tells all peers that this life has ended (SPEC N-11). Afterwards call only `destroy_instance`, because the host may give
    /// our region to another kernel. Unread messages stay in our region for our next life.
    pub fn goodbye(&self) {
        if let (Some((_, incarnation)), Some(own)) = (self.identity(), self.own()) {
            if let Some(region) = own.link.own_region() {
                region.say_goodbye(incarnation);
            }
        }
    }

    /// Tells this life of `to` to stop at once (SPEC N-15). Only the host can do this: `to` ignores it from other kernels.
    pub fn stop(&self, to: InstanceId, incarnation: Incarnation) -> Result<(), SendError> {
        self.native(to, |sender, _| sender.stop(incarnation))?;
        self.ring(to)
    }

    /// Sets the CPU and vector at which peers ring our next life from its beginning, instead of those in the directory
    /// (SPEC N-11, N-12). A kernel that chooses its vector itself needs this. Call it before our own instance is added.
    /// Afterwards use [`move_doorbell`](Self::move_doorbell).
    ///
    /// Senders ring this CPU only if the directory lists it as a CPU of this kernel.
    pub fn begin_at(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), MoveError> {
        let bell = Bell { cpu, vector }.to_word().ok_or(MoveError::NotOurCpu(cpu))?;
        self.bell.store(bell, Ordering::Relaxed);
        Ok(())
    }

    /// Makes senders ring `cpu` with `vector` from now on (SPEC N-12). After the deferred work that this schedules, the
    /// old doorbell does not ring any more.
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
