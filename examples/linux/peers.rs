// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the links told of the peers.

use crate::{ffi, traffic};
use core::fmt;
use kernel::prelude::*;
use mk_ipi_core::abi::{Incarnation, InstanceId};
use mk_ipi_core::platform::PeerEvent;
use mk_ipi_core::sync::{AtomicU32, AtomicU64, Ordering};

/// Instances that can exist beside each other, Linux being 0: the lanes of a native region.
pub const MAX_INSTANCES: usize = 16;

/// How a peer's link looks from here. A native link alone tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Sign {
    /// Nothing was heard.
    Silent,
    /// Its receiver lives.
    Up,
    /// It is up, and its heartbeat stands still.
    Suspect,
    /// It broke the protocol.
    Quarantined,
    /// It said goodbye.
    Gone,
}

impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Silent => "-",
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Quarantined => "quarantined",
            Self::Gone => "gone",
        })
    }
}

struct Peer {
    sign: AtomicU32,
    /// The incarnation that said goodbye last; 0 for none.
    gone: AtomicU32,
    /// Messages lost with it.
    lost: AtomicU64,
}

static PEERS: [Peer; MAX_INSTANCES] =
    [const { Peer { sign: AtomicU32::new(0), gone: AtomicU32::new(0), lost: AtomicU64::new(0) } };
        MAX_INSTANCES];

/// Something happened to a peer: deferred work or the tick, interrupts off.
pub fn on_event(id: InstanceId, event: PeerEvent) {
    traffic::on_event(id, event);
    let Some(peer) = PEERS.get(id.index()) else { return };
    let sign = match event {
        PeerEvent::Up(_) | PeerEvent::Alive => Sign::Up,
        PeerEvent::Suspect => Sign::Suspect,
        PeerEvent::Quarantined(_) => Sign::Quarantined,
        PeerEvent::Dead(incarnation) => {
            peer.gone.store(incarnation.get(), Ordering::Relaxed);
            Sign::Gone
        }
        PeerEvent::Lost { count, .. } => {
            peer.lost.fetch_add(count, Ordering::Relaxed);
            return log(id, event);
        }
        PeerEvent::Began(_) | PeerEvent::Space => return,
    };
    peer.sign.store(sign as u32, Ordering::Relaxed);
    log(id, event);
}

fn log(id: InstanceId, event: PeerEvent) {
    // SAFETY: no more than a look at the clock.
    if unsafe { ffi::mk_ipi_glue_may_log() } {
        pr_info!("instance {}: {event:?}\n", id.get());
    }
}

/// How the link to `id` looks.
pub fn sign(id: InstanceId) -> Sign {
    let sign = PEERS.get(id.index()).map_or(0, |p| p.sign.load(Ordering::Relaxed));
    let all = [Sign::Silent, Sign::Up, Sign::Suspect, Sign::Quarantined, Sign::Gone];
    all.into_iter().find(|s| *s as u32 == sign).unwrap_or(Sign::Silent)
}

/// Messages to `id` that were lost with it.
pub fn lost(id: InstanceId) -> u64 {
    PEERS.get(id.index()).map_or(0, |p| p.lost.load(Ordering::Relaxed))
}

/// Whether this life of `id` said goodbye.
pub fn is_gone(id: InstanceId, incarnation: Incarnation) -> bool {
    PEERS.get(id.index()).is_some_and(|p| p.gone.load(Ordering::Relaxed) == incarnation.get())
}

/// Forgets `id`, which is about to be made.
pub fn forget_all_of(id: InstanceId) {
    forget(id);
    if let Some(peer) = PEERS.get(id.index()) {
        peer.lost.store(0, Ordering::Relaxed);
    }
}

/// Forgets the life of `id`, which is about to be started anew.
pub fn forget(id: InstanceId) {
    if let Some(peer) = PEERS.get(id.index()) {
        peer.sign.store(Sign::Silent as u32, Ordering::Relaxed);
        peer.gone.store(0, Ordering::Relaxed);
    }
}
