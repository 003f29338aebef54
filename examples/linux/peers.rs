// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the links have told about the peers.

use crate::{ffi, net, services, traffic};
use core::fmt;
use kernel::prelude::*;
use mk_ipi_core::abi::{Incarnation, InstanceId};
use mk_ipi_core::platform::{Peer, PeerEvent};
use mk_ipi_core::sync::{AtomicU32, AtomicU64, Ordering};

/// Instances that can exist at the same time, Linux being 0: the number of lanes of a native region.
pub const MAX_INSTANCES: usize = 16;

/// The state of the link to a peer, seen from here. Only a native link tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Sign {
    /// Nothing was heard of it.
    Silent,
    /// Its receiver is alive.
    Up,
    /// It was up, but its heartbeat stands still.
    Suspect,
    /// It broke the protocol.
    Quarantined,
    /// It says that this kernel broke the protocol.
    Refuses,
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
            Self::Refuses => "refuses",
            Self::Gone => "gone",
        })
    }
}

struct Seen {
    sign: AtomicU32,
    /// The last incarnation that said goodbye; 0 for none.
    gone: AtomicU32,
    /// How many messages it was handling when it died.
    in_doubt: AtomicU64,
}

static PEERS: [Seen; MAX_INSTANCES] =
    [const { Seen { sign: AtomicU32::new(0), gone: AtomicU32::new(0), in_doubt: AtomicU64::new(0) } };
        MAX_INSTANCES];

/// Something happened to a peer. Called in deferred work or the tick, with interrupts off; or in a send that found it
/// out.
pub fn on_event(peer: Peer, event: PeerEvent) {
    traffic::on_event(peer.id, event);
    services::on_event(peer.id, event);
    net::on_event(peer.id, event);
    let Some(seen) = PEERS.get(peer.id.index()) else { return };
    let sign = match event {
        PeerEvent::Up(_) | PeerEvent::Alive => {
            // A peer that said goodbye can come back in the same life.
            seen.gone.store(0, Ordering::Relaxed);
            Sign::Up
        }
        PeerEvent::Suspect => Sign::Suspect,
        PeerEvent::Quarantined(_) => Sign::Quarantined,
        PeerEvent::Refused(_) => Sign::Refuses,
        PeerEvent::Dead(incarnation) => {
            seen.gone.store(incarnation.get(), Ordering::Relaxed);
            Sign::Gone
        }
        PeerEvent::InDoubt { .. } => {
            seen.in_doubt.fetch_add(1, Ordering::Relaxed);
            return log(peer, event);
        }
        PeerEvent::Discarded { .. } | PeerEvent::Answered | PeerEvent::Unsettled { .. } => {
            return log(peer, event)
        }
        // A host follows the directory at each change that it makes, other kernels with each tick.
        PeerEvent::ReadDirectory => return log(peer, event),
        PeerEvent::Began(_) | PeerEvent::Space => return,
    };
    seen.sign.store(sign as u32, Ordering::Relaxed);
    log(peer, event);
}

fn log(Peer { id, theirs, ours }: Peer, event: PeerEvent) {
    // SAFETY: it only looks at the clock.
    if unsafe { ffi::mk_ipi_glue_may_log() } {
        // 0 means that no life is known.
        let theirs = theirs.map_or(0, Incarnation::get);
        pr_info!("instance {}, its life {theirs}, ours {}: {event:?}\n", id.get(), ours.get());
    }
}

/// The state of the link to `id`.
pub fn sign(id: InstanceId) -> Sign {
    let sign = PEERS.get(id.index()).map_or(0, |p| p.sign.load(Ordering::Relaxed));
    let all = [Sign::Silent, Sign::Up, Sign::Suspect, Sign::Quarantined, Sign::Refuses, Sign::Gone];
    all.into_iter().find(|s| *s as u32 == sign).unwrap_or(Sign::Silent)
}

/// How many messages `id` was handling when it died. They may or may not have been handled.
pub fn in_doubt(id: InstanceId) -> u64 {
    PEERS.get(id.index()).map_or(0, |p| p.in_doubt.load(Ordering::Relaxed))
}

/// Returns whether this life of `id` said goodbye.
pub fn is_gone(id: InstanceId, incarnation: Incarnation) -> bool {
    PEERS.get(id.index()).is_some_and(|p| p.gone.load(Ordering::Relaxed) == incarnation.get())
}

/// Forgets everything about `id`, which is about to be made.
pub fn forget_all_of(id: InstanceId) {
    forget(id);
    services::forget(id);
    if let Some(peer) = PEERS.get(id.index()) {
        peer.in_doubt.store(0, Ordering::Relaxed);
    }
}

/// Forgets the life of `id`, which is about to be started anew.
pub fn forget(id: InstanceId) {
    if let Some(peer) = PEERS.get(id.index()) {
        peer.sign.store(Sign::Silent as u32, Ordering::Relaxed);
        peer.gone.store(0, Ordering::Relaxed);
    }
}
