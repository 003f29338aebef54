// SPDX-License-Identifier: MIT OR Apache-2.0
//! Regions that are destroyed while kernels run: which kernels still use a region, when it goes back to its pool, and which
//! events its senders get (SPEC D-8, D-10, N-17).

use crate::changing::{id, life, World, LINES, TYPE};
use mk_ipi_abi::directory::{InstanceRecord, State};
use mk_ipi_abi::native::{header, Attached, Geometry};
use mk_ipi_abi::{PhysAddr, PhysRange};
use mk_ipi_core::platform::PeerEvent;
use mk_ipi_core::{AddError, DestroyError, Followed, InstanceConfig, JoinError, LinkConfig, SendError};
use mk_ipi_mock::Machine;

#[test]
fn a_pooled_region_goes_back_when_its_peers_have_let_go() {
    let world = World::joined(&[&[0], &[10], &[20]]);
    let host = &world.links[0];
    let region = world.pooled();
    let old = InstanceRecord { state: State::Dead, ..world.record(1) };
    world.write(old, &[10]);
    let new = InstanceRecord { region: Some(region), incarnation: life(2), ..world.record(1) };
    world.write(new, &[10]);
    assert_eq!(world.follow(2).1, [(id(1), Followed::Removed), (id(1), Followed::Added)]);
    world.links[2].send(id(1), TYPE, &[5]).unwrap();
    // Kernel 1 is dead. The host wants the region back, but kernel 2 has it mapped.
    assert_eq!(host.destroy_instance(id(1)), Err(DestroyError::Mapped(id(2), life(1))));
    assert!(host.send(id(1), TYPE, &[1]).is_ok(), "the host can still send");
    world.write(InstanceRecord { state: State::Dead, ..new }, &[10]);
    let generation = world.write(InstanceRecord { state: State::Ending, ..new }, &[10]);
    assert_eq!(
        host.destroy_instance(id(1)),
        Err(DestroyError::Mapped(id(2), life(1))),
        "the region is still mapped, because kernel 2 has not followed the directory"
    );
    world.events(2);
    // While the instance is in use at kernel 2, `follow` fails there. It can be called again.
    let held = world.links[2].instance(id(1)).unwrap();
    assert_eq!(world.follow(2).0, Err(JoinError::InUse(id(1))));
    assert_eq!(world.follow(2).0, Err(JoinError::InUse(id(1))));
    drop(held);
    assert_eq!(world.follow(2), (Ok(generation), vec![(id(1), Followed::Removed)]));
    assert!(matches!(world.events(2)[..], [(peer, PeerEvent::Unsettled { after: 0, .. })] if peer == id(1)));
    world.events(0);
    host.destroy_instance(id(1)).unwrap();
    assert_eq!(world.machine.pool_used(id(1)), 0);
    assert!(
        matches!(world.events(0)[..], [(_, PeerEvent::Unsettled { .. })]),
        "the host gets an event about its own messages"
    );
}

#[test]
fn who_never_answers_keeps_the_region_until_its_cpus_have_stopped() {
    let world = World::joined(&[&[0], &[10], &[20]]);
    let host = &world.links[0];
    let region = world.pooled();
    world.links[2].destroy_instance(id(1)).unwrap();
    world.links[2].attach_instance(&world.kernel(1).native_config(id(1), life(1)), Some(region)).unwrap();
    let mut asked = Vec::new();
    let refused = host.destroy_with(id(1), |who, life| {
        asked.push((who, life));
        false
    });
    assert_eq!((refused, &asked[..]), (Err(DestroyError::Mapped(id(2), life(1))), &[(id(2), life(1))][..]));
    // The closure of this call says that life 7 of kernel 2 has stopped. But life 1 has the region mapped.
    assert!(host.destroy_with(id(1), |who, n| who == id(2) && n == life(7)).is_err());
    world.machine.stop_kernel(2);
    host.destroy_with(id(1), |who, n| who == id(2) && n == life(1)).unwrap();
    assert_eq!(world.machine.pool_used(id(1)), 0);
}

#[test]
fn a_region_that_was_in_use_is_looked_at_again() {
    let world = World::joined(&[&[0], &[10], &[20]]);
    let host = &world.links[0];
    let (one, region) = (world.kernel(1), world.pooled());
    let held = host.instance(id(1)).unwrap();
    assert_eq!(host.destroy_instance(id(1)), Err(DestroyError::InUse(1)));
    // Kernel 2 attaches the instance, with a configuration that it got earlier.
    world.links[2].destroy_instance(id(1)).unwrap();
    world.links[2].attach_instance(&one.native_config(id(1), life(1)), Some(region)).unwrap();
    drop(held);
    assert_eq!(host.destroy_instance(id(1)), Err(DestroyError::Mapped(id(2), life(1))));
    assert!(host.send(id(1), TYPE, &[1]).is_ok(), "the instance can be used again");
    // A kernel that did not create the region can call `mapped_by` too.
    let mut by = Vec::new();
    world.links[2].mapped_by(id(1), |id, _| by.push(id)).unwrap();
    host.mapped_by(id(1), |id, life| by.push((id, life).0)).unwrap();
    assert_eq!(by, [id(0), id(2)]);
    world.links[2].destroy_instance(id(1)).unwrap();
    host.destroy_instance(id(1)).unwrap();
    assert_eq!(world.machine.pool_used(id(1)), 0);
}

#[test]
fn its_own_receiver_keeps_a_region_until_its_goodbye() {
    let machine = Machine::builder().memory(2048).kernel(&[0]).kernel(&[3]).pool(id(1), 64).build();
    let geometry = Geometry::new(2, LINES, 256).unwrap();
    let host = machine.kernel(0).boot(id(0), life(1));
    let kernel = machine.kernel(1);
    let link = LinkConfig::Native(Some(geometry));
    let config = InstanceConfig { link, ..kernel.native_config(id(1), life(1)) };
    let region = host.create_instance(&config).unwrap();
    let one = machine.kernel(1).boot(id(1), life(4));
    one.attach_instance(&machine.kernel(1).native_config(id(1), life(4)), Some(region)).unwrap();
    assert_eq!(host.destroy_instance(id(1)), Err(DestroyError::Mapped(id(1), life(4))));
    // The result is the same if ATTACHED in the kernel's own lane is 0.
    let lane = geometry.lane_at(1).unwrap() + 8 * header::ATTACHED as u64;
    machine.poke(PhysAddr(region.start().0 + lane), 0);
    assert_eq!(host.destroy_instance(id(1)), Err(DestroyError::Mapped(id(1), life(4))));
    one.goodbye();
    one.destroy_instance(id(1)).unwrap();
    host.destroy_instance(id(1)).unwrap();
}

#[test]
fn a_region_that_is_made_anew_below_a_peer_is_noticed() {
    let world = World::joined(&[&[0], &[10]]);
    world.send(0, 1, 1).unwrap();
    world.settle();
    world.machine.stop_kernel(1);
    for n in 2..4 {
        world.send(0, 1, n).unwrap();
    }
    let number = world.links[0].lane_stats(id(1)).unwrap().number;
    world.machine.make_native_region(world.regions[1], world.geometry);
    assert_eq!(world.send(0, 1, 4), Err(SendError::RegionGone));
    assert_eq!(world.links[0].post_many(id(1), TYPE, &[&[1], &[2]]), Err(SendError::RegionGone));
    assert_eq!(world.links[0].send_from_nmi(id(1), TYPE, &[4]), Err(SendError::RegionGone));
    let told = world.tick(0);
    let lost = PeerEvent::Unsettled { after: 0, to: number };
    assert_eq!(told, [(id(1), lost), (id(1), PeerEvent::ReadDirectory)]);
    assert_eq!(world.tick(0), [], "the events are reported only once");
    // When the sender follows the directory, it attaches the region again.
    world.write(InstanceRecord { state: State::Dead, ..world.record(1) }, &[10]);
    world.write(InstanceRecord { incarnation: life(2), ..world.record(1) }, &[10]);
    assert_eq!(world.follow(0).1, [(id(1), Followed::Removed), (id(1), Followed::Added)]);
    world.send(0, 1, 5).unwrap();
}

#[test]
fn one_region_is_not_two_instances() {
    let world = World::joined(&[&[0], &[10], &[20]]);
    world.links[0].destroy_instance(id(2)).unwrap();
    let two = world.kernel(2);
    let config = two.native_config(id(2), life(1));
    let attach = |at: u64, len| {
        let range = PhysRange::new(PhysAddr(world.regions[1].start().0 + at), len);
        world.links[0].attach_instance(&config, range)
    };
    for (at, len) in [(0, world.regions[1].len()), (4096, 4096), (0, 4096)] {
        assert_eq!(attach(at, len), Err(AddError::Overlaps(id(1))));
    }
    world.links[0].attach_instance(&config, Some(world.regions[2])).unwrap();
}

#[test]
fn what_a_detached_sender_said_of_itself_is_gone() {
    let world = World::joined(&[&[0], &[10]]);
    let lane = world.geometry.lane_at(0).unwrap() + 8 * header::ATTACHED as u64;
    let at = PhysAddr(world.regions[1].start().0 + lane);
    let attached = |at| Attached::from_word(world.machine.peek(at));
    assert_eq!(attached(at).map(|a| a.incarnation), Some(life(1)));
    world.links[0].destroy_instance(id(1)).unwrap();
    assert_eq!(attached(at), None);
    world.follow(0).0.unwrap();
}

#[test]
fn the_host_keeps_an_ending_instance_from_its_pool() {
    let world = World::joined(&[&[0], &[10], &[20]]);
    let pooled = world.pooled();
    world.write(InstanceRecord { state: State::Dead, ..world.record(1) }, &[10]);
    let new = InstanceRecord { region: Some(pooled), incarnation: life(2), ..world.record(1) };
    world.write(new, &[10]);
    world.follow(0).0.unwrap();
    world.write(InstanceRecord { state: State::Dead, ..new }, &[10]);
    world.write(InstanceRecord { state: State::Ending, ..new }, &[10]);
    assert_eq!(world.follow(0).1, [(id(1), Followed::Changed)], "it is not removed");
    assert!(!world.links[0].instance(id(1)).unwrap().is_live());
}
