// SPDX-License-Identifier: MIT OR Apache-2.0
//! The state of each peer, as the events of the links report it.

use crate::{ffi, net, services, traffic};
use core::fmt;
use kernel::prelude::*;
use mk_ipi_core::abi::{Incarnation, InstanceId};
use mk_ipi_core::platform::{Peer, PeerEvent};
use mk_ipi_core::sync::{AtomicU32, AtomicU64, Ordering};

/// The largest number of instances, including the host, which is instance 0. It is also the number of lanes of a native
/// region.
pub const MAX_INSTANCES: usize = 16;

/// The state of the link to a peer, as this kernel sees it. Only native links have such a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Sign {
    /// There was no event of the peer yet.
    Silent,
    /// The peer receives messages.
    Up,
    /// The peer was up, but its heartbeat does not change any more.
    Suspect,
    /// The peer has broken the protocol. This kernel ignores it.
    Quarantined,
    /// The peer says that this kernel has broken the protocol.
    Refuses,
    /// The peer has said goodbye.
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
    /// The incarnation that has said goodbye; 0 for none.
    gone: AtomicU32,
    /// How many messages to the peer are in doubt: it was handling them when it died.
    in_doubt: AtomicU64,
}

static PEERS: [Seen; MAX_INSTANCES] =
    [const { Seen { sign: AtomicU32::new(0), gone: AtomicU32::new(0), in_doubt: AtomicU64::new(0) } };
        MAX_INSTANCES];

/// Called for each event of a peer. It is called in deferred work and in the tick, with interrupts off, and in a send that
/// finds out something about the peer.
pub fn on_event(peer: Peer, event: PeerEvent) {
    traffic::on_event(peer.id, event);
    services::on_event(peer.id, event);
    net::on_event(peer.id, event);
    let Some(seen) = PEERS.get(peer.id.index()) else { return };
    let sign = match event {
        PeerEvent::Up(_) | PeerEvent::Alive => {
            // A peer that has said goodbye can come up again in the same life.
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
        // This event needs no action: the host handles each change of the directory when it makes it, and other kernels
        // read the directory in each tick.
        PeerEvent::ReadDirectory => return log(peer, event),
        PeerEvent::Began(_) | PeerEvent::Space => return,
    };
    seen.sign.store(sign as u32, Ordering::Relaxed);
    log(peer, event);
}

fn log(Peer { id, theirs, ours }: Peer, event: PeerEvent) {
    // SAFETY: it can be called in any context in which this function is called.
    if unsafe { ffi::mk_ipi_glue_may_log() } {
        // 0 means that the peer's life is not known.
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

/// How many messages to `id` are in doubt: it was handling them when it died. It is not known whether they were handled.
pub fn in_doubt(id: InstanceId) -> u64 {
    PEERS.get(id.index()).map_or(0, |p| p.in_doubt.load(Ordering::Relaxed))
}

/// Returns whether the kernel of `id` has said goodbye in this incarnation.
pub fn is_gone(id: InstanceId, incarnation: Incarnation) -> bool {
    PEERS.get(id.index()).is_some_and(|p| p.gone.load(Ordering::Relaxed) == incarnation.get())
}

/// Forgets everything about `id`. Called before the instance is made.
pub fn forget_all_of(id: InstanceId) {
    forget(id);
    services::forget(id);
    if let Some(peer) = PEERS.get(id.index()) {
        peer.in_doubt.store(0, Ordering::Relaxed);
    }
}

/// Forgets the last life of `id`. Called before its next life is started.
pub fn forget(id: InstanceId) {
    if let Some(peer) = PEERS.get(id.index()) {
        peer.sign.store(Sign::Silent as u32, Ordering::Relaxed);
        peer.gone.store(0, Ordering::Relaxed);
    }
}
