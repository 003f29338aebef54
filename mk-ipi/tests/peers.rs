// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests the iteration over the other kernels, and the state of each.
#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::panic,
    reason = "a test may panic"
)]

mod common;

use common::{leak, Pair, A, B, FIRST, LINES, SECOND, TYPE};
use mk_ipi::abi::{directory::Layout, Incarnation, InstanceId, PhysCpuId, Vector};
use mk_ipi::asynchronous::Waiters;
use mk_ipi::peers::{PeerInfo, PeerState};
use mk_ipi::{EndpointExt, InstanceConfig, LinkConfig, SlotPolicy};

fn all(pair: &Pair) -> Vec<(InstanceId, PeerState)> {
    pair.a.peers().map(|peer| (peer.id, peer.state)).collect()
}

#[test]
fn all_others_are_seen_in_their_order() {
    let pair = Pair::by_hand(leak(Waiters::new()));
    // They are added in an order that is not the order of their ids. The first has an RFC v2 region, the second has no region.
    let kernel = pair.machine.kernel(1);
    for (id, with_region) in [(255, true), (3, false)] {
        let config = InstanceConfig {
            id: InstanceId::new(id),
            link: LinkConfig::RfcV2 { slots: 8, policy: SlotPolicy::Exclusive },
            ..kernel.native_config(B, FIRST)
        };
        let region = with_region.then(|| pair.machine.reserve(4096));
        pair.a.attach_instance(&config, region).unwrap();
    }
    let peers: Vec<PeerInfo> = pair.a.peers().collect();
    assert_eq!(peers.iter().map(|peer| peer.id.get()).collect::<Vec<_>>(), [1, 3, 255], "A is not listed");
    assert_eq!(
        peers.iter().map(|peer| peer.layout).collect::<Vec<_>>(),
        [Some(Layout::Native), None, Some(Layout::RfcV2)]
    );
    let [b, .., c] = &peers[..] else { panic!("there are not three peers") };
    assert_eq!(
        (b.state, c.state, peers[1].state),
        (PeerState::Running(FIRST), PeerState::Listed, PeerState::Listed)
    );
    assert_eq!((b.listed, b.doorbell_cpu, b.vector), (FIRST, PhysCpuId(4), Vector::RFC_V2));
    assert_eq!((b.geometry.unwrap().lines(), c.geometry), (LINES as u32, None));
    assert!(b.region.is_some() && c.region.is_some() && peers[1].region.is_none());
    pair.fill();
    assert_eq!((pair.a.peer(B).unwrap().lane.unwrap().full, c.lane), (1, None));
    assert_eq!((pair.a.peer(A), pair.a.peer(InstanceId::new(9))), (None, None));
}

#[test]
fn the_state_follows_the_life_of_a_peer() {
    let mut pair = Pair::by_hand(leak(Waiters::new()));
    assert_eq!(all(&pair), [(B, PeerState::Running(FIRST))]);
    // B needs a heartbeat first: a kernel whose heartbeat has never changed is not suspect.
    pair.b.tick(1, 10);
    pair.a.tick(1, 10);
    pair.a.tick(20, 10);
    assert_eq!(all(&pair), [(B, PeerState::Suspect(FIRST))], "its heartbeat does not change");
    pair.b.tick(1, 10);
    pair.a.tick(21, 10);
    assert_eq!(all(&pair), [(B, PeerState::Running(FIRST))], "its heartbeat changes again");
    pair.b.goodbye();
    assert_eq!(all(&pair), [(B, PeerState::Left(FIRST))]);
    assert_eq!(pair.a.peer(B).unwrap().state.ended(), Some(FIRST));
    pair.next_life_of_b();
    assert_eq!(all(&pair), [(B, PeerState::Running(SECOND))]);
    assert_eq!(pair.a.peer(B).unwrap().state.ended(), None);
    pair.a.send(B, TYPE, &[1]).unwrap();
}

#[test]
fn a_peer_that_never_began_is_starting() {
    let pair = Pair::by_hand(leak(Waiters::new()));
    let region = pair.machine.native_region(mk_ipi::abi::native::Geometry::default_for(4).unwrap());
    let third = InstanceId::new(3);
    let life = Incarnation::new(5).unwrap();
    pair.a.attach_instance(&pair.machine.kernel(1).native_config(third, life), Some(region)).unwrap();
    assert_eq!(pair.a.peer(third).map(|peer| (peer.state, peer.listed)), Some((PeerState::Starting, life)));
}
