// SPDX-License-Identifier: MIT OR Apache-2.0
//! No message stays unread, even if a doorbell is lost, the queue is full, or a message comes before its receiver is identified.
//! These tests are about slots.

use crate::odd::Odd;
use mk_ipi_abi::{Incarnation, InstanceId, MessageType, PhysCpuId, Vector};
use mk_ipi_core::sync::{AtomicU64, Ordering::Relaxed};
use mk_ipi_core::{
    Deferred, Endpoint, InstanceConfig, LinkConfig, Message, PollError, SendError, SlotPolicy,
};
use mk_ipi_mock::{Callback, DoorbellFault, Fault, Machine, Mode, When};
use std::sync::Arc;

const TYPE: MessageType = MessageType(7);
const HOST: InstanceId = InstanceId::HOST;
const PEER: InstanceId = InstanceId::new(1);

/// Returns a handler that counts its calls, and the count.
fn counter() -> (Callback, Arc<AtomicU64>) {
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    (Callback::new(move |_: &Message| _ = counted.fetch_add(1, Relaxed)), count)
}

#[test]
fn senders_that_find_a_slot_busy_make_up_for_a_lost_doorbell() {
    let lost = Fault::Doorbell {
        from: Some(PhysCpuId(0)),
        to: Some(PhysCpuId(1)),
        when: When::Nth(1),
        what: DoorbellFault::Lost,
    };
    let builder = Machine::builder().kernel(&[0]).kernel(&[1]).fault(lost);
    let machine = builder.mode(Mode::Stepped { seed: 1 }).build();
    let [host, peer] = machine.link(SlotPolicy::Exclusive);
    let (count, seen) = counter();
    let _kept = peer.register(TYPE, count).unwrap();
    let run = machine.run(|cpu| {
        if cpu.kernel() == 0 {
            host.send(PEER, TYPE, &[1]).unwrap();
            // No kernel polls, so a send that finds the slot busy must ring again.
            while host.send(PEER, TYPE, &[2]) == Err(SendError::Busy) {
                cpu.relax();
            }
        }
    });
    run.unwrap();
    assert_eq!(seen.load(Relaxed), 2, "both messages arrive");
}

#[test]
fn a_busy_slot_is_rung_again_once_in_so_many_tries() {
    let machine = Machine::builder().kernel(&[0]).kernel(&[1]).build();
    let [host, _] = machine.link(SlotPolicy::Exclusive);
    host.send(PEER, TYPE, &[1]).unwrap();
    let rings = |tries: u64| {
        let before = machine.doorbells_at(PhysCpuId(1));
        (0..tries).for_each(|_| assert_eq!(host.send(PEER, TYPE, &[2]), Err(SendError::Busy)));
        machine.doorbells_at(PhysCpuId(1)) - before
    };
    let apart = (1..1000).find(|_| rings(1) == 1).unwrap();
    assert!(apart > 1);
    assert_eq!((rings(apart - 1), rings(1), rings(10 * apart)), (0, 1, 10));
}

/// Kernel 0 of `N` kernels sends to the others in turn, although their slots are occupied.
fn is_rung_again_in_turn<const N: usize>() {
    let cpus = Vec::from_iter(0..N as u64);
    let builder = cpus.iter().fold(Machine::builder(), |builder, cpu| builder.kernel(&[*cpu]));
    let machine = builder.build();
    let links = machine.link::<N>(SlotPolicy::Exclusive);
    let rounds = |count: u64| {
        for to in (0..count).flat_map(|_| 1..N as u8) {
            _ = links[0].send(InstanceId::new(to), TYPE, &[1]);
        }
    };
    let rung = || Vec::from_iter(cpus[1..].iter().map(|cpu| machine.doorbells_at(PhysCpuId(*cpu))));
    rounds(1);
    let before = rung();
    rounds(1000);
    let again = Vec::from_iter(rung().iter().zip(before).map(|(now, before)| now - before));
    assert!(again.iter().all(|&n| n > 5), "{again:?}");
}

#[test]
fn each_of_several_busy_slots_is_rung_again() {
    is_rung_again_in_turn::<3>();
    is_rung_again_in_turn::<4>();
    is_rung_again_in_turn::<5>();
}

#[test]
fn a_message_that_came_before_its_receiver_knew_itself_is_found() {
    let machine = Machine::builder().kernel(&[0]).kernel(&[1]).build();
    let [host, _] = machine.link(SlotPolicy::Exclusive);
    let late = Endpoint::<_, Callback>::new(machine.kernel(1));
    let region = host.instance(PEER).unwrap().region();
    machine.kernel(1).set_vector(Vector::RFC_V2, || ());
    host.send(PEER, TYPE, &[1]).unwrap();
    let kernel = machine.kernel(1);
    let config = kernel.config(PEER, Incarnation::FIRST, SlotPolicy::Exclusive);
    late.attach_instance(&config, region).unwrap();
    late.identify(PEER, Incarnation::FIRST);
    assert_eq!(late.stats().received, 1);
    late.destroy_instance(PEER).unwrap();
}

#[test]
fn deferred_work_inside_a_callback_neither_runs_nor_asks_for_more() {
    let machine = Machine::builder().kernel(&[0]).kernel(&[1]).build();
    let [link, _] = machine.link(SlotPolicy::Exclusive);
    let (inner, nested) = (Arc::downgrade(&link), Arc::new(AtomicU64::new(0)));
    let runs = nested.clone();
    let again = Callback::new(move |_: &Message| {
        let inner = inner.upgrade().unwrap();
        assert_eq!(inner.run_deferred(), Deferred { messages: 0, more: false });
        runs.fetch_add(1, Relaxed);
    });
    let _kept = link.register(TYPE, again).unwrap();
    link.send(HOST, TYPE, &[1]).unwrap();
    link.on_interrupt();
    assert_eq!(link.run_deferred(), Deferred { messages: 1, more: false });
    assert_eq!(nested.load(Relaxed), 1);
}

#[test]
fn an_empty_slot_is_empty_also_if_the_queue_is_full() {
    let machine = Machine::builder().kernel(&[0]).kernel(&[1]).build();
    let [link, _] = machine.link(SlotPolicy::Exclusive);
    for _ in 0..16 {
        link.send(HOST, TYPE, &[1]).unwrap();
        assert_eq!(link.poll(), Ok(true));
    }
    let before = link.stats();
    link.on_interrupt();
    let after = link.stats();
    assert_eq!((after.left, after.empty), (before.left, before.empty + 1));
}

#[test]
fn slots_that_may_be_overwritten_are_not_polled() {
    let machine = Machine::builder().kernel(&[0]).kernel(&[1]).build();
    let [link, _] = machine.link(SlotPolicy::Overwrite);
    assert_eq!(link.poll(), Err(PollError::NotExclusive));
    link.destroy_instance(HOST).unwrap();
    assert_eq!(link.poll(), Err(PollError::NoRegion));
}

#[test]
fn a_poll_says_whether_it_took_a_message() {
    let machine = Machine::builder().kernel(&[0]).kernel(&[1]).build();
    let [link, _] = machine.link(SlotPolicy::Exclusive);
    let (count, seen) = counter();
    let _kept = link.register(TYPE, count).unwrap();
    // After this loop 16 messages are in the queue, and the 17th is in the slot.
    for _ in 0..17 {
        link.send(HOST, TYPE, &[1]).unwrap();
        let _ = link.poll();
    }
    let left = link.stats().left;
    assert_eq!([link.poll(), link.poll()], [Ok(false); 2], "a poll takes no message while the queue is full");
    assert_eq!((left, link.stats().left), (1, 1), "a message that is left in its slot is counted once");
    while link.run_deferred().more {}
    assert_eq!((seen.load(Relaxed), link.poll()), (17, Ok(false)));
}

/// An endpoint of kernel 0 that has room for only one CPU.
fn with_room_for_one_cpu(machine: &Machine) -> Endpoint<Odd, Callback, 1> {
    let endpoint = Endpoint::<_, Callback, 1>::new(Odd::new(machine.kernel(0)));
    let region = machine.reserve(4 * 272);
    let config = InstanceConfig {
        id: HOST,
        incarnation: Incarnation::FIRST,
        cpus: &[PhysCpuId(0)],
        doorbell_cpu: PhysCpuId(0),
        vector: Vector::RFC_V2,
        link: LinkConfig::RfcV2 { slots: 4, policy: SlotPolicy::Exclusive },
        one_doorbell: false,
    };
    endpoint.attach_instance(&config, Some(region)).unwrap();
    endpoint.identify(HOST, Incarnation::FIRST);
    endpoint
}

#[test]
fn a_cpu_beyond_the_endpoints_rings_again_too() {
    let machine = Machine::builder().kernel(&[0, 1]).build();
    let endpoint = with_room_for_one_cpu(&machine);
    machine.kernel(0).set_vector(Vector::RFC_V2, || ());
    let run = machine.run(|cpu| {
        if cpu.index() == 1 {
            endpoint.send(HOST, TYPE, &[1]).unwrap();
            let before = machine.doorbells_at(PhysCpuId(0));
            (0..1000).for_each(|_| assert_eq!(endpoint.send(HOST, TYPE, &[2]), Err(SendError::Busy)));
            assert!(machine.doorbells_at(PhysCpuId(0)) > before + 5);
        }
    });
    run.unwrap();
}

#[test]
fn a_cpu_beyond_the_endpoints_is_counted_and_named() {
    let machine = Machine::builder().kernel(&[0, 1]).build();
    let endpoint = with_room_for_one_cpu(&machine);
    let run = machine.run(|cpu| {
        if cpu.index() == 1 {
            assert_eq!(endpoint.poll(), Err(PollError::BeyondCpus));
            endpoint.on_interrupt();
        }
    });
    run.unwrap();
    assert_eq!(endpoint.stats().beyond_cpus, 1);
}

#[test]
fn a_doorbell_that_did_not_ring_can_be_rung_again() {
    let machine = Machine::builder().kernel(&[0]).build();
    machine.kernel(0).set_vector(Vector::RFC_V2, || ());
    let endpoint = Endpoint::<_, Callback>::new(Odd::new(machine.kernel(0)));
    assert!(matches!(endpoint.ring(PEER), Err(SendError::Instance(_))), "an unknown instance");
    let kernel = machine.kernel(0);
    let config = kernel.config(PEER, Incarnation::FIRST, SlotPolicy::Exclusive);
    endpoint.attach_instance(&config, None).unwrap();
    endpoint.platform().break_ring(true);
    assert!(matches!(endpoint.ring(PEER), Err(SendError::Unreachable(_))));
    endpoint.platform().break_ring(false);
    assert_eq!(endpoint.ring(PEER), Ok(()));
}

/// A machine in which all doorbells are lost. The test calls `on_interrupt` itself.
fn without_doorbells() -> Machine {
    let lost = Fault::Doorbell { from: None, to: None, when: When::OneIn(1), what: DoorbellFault::Lost };
    Machine::builder().kernel(&[0]).kernel(&[1]).fault(lost).build()
}

#[test]
fn a_message_that_found_the_queue_full_is_taken_when_there_is_room() {
    let machine = without_doorbells();
    let [host, peer] = machine.link(SlotPolicy::Overwrite);
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = seen.clone();
    let (from, to) = (Arc::downgrade(&host), Arc::downgrade(&peer));
    let note = move |m: &Message| {
        noted.lock().unwrap().push(m.payload()[0]);
        if m.payload()[0] == 51 {
            // Now the queue has a free place. Message 90 is sent, and its interrupt takes it from the slot. This happens before
            // the deferred work reads the slot.
            from.upgrade().unwrap().send(PEER, TYPE, &[90]).unwrap();
            to.upgrade().unwrap().on_interrupt();
        }
    };
    let _kept = peer.register(TYPE, Callback::new(note)).unwrap();
    let send = |n: u8| {
        host.send(PEER, TYPE, &[n]).unwrap();
        peer.on_interrupt();
    };
    (0..17).for_each(send);
    assert_eq!((peer.stats().left, peer.stats().dropped), (1, 0));
    while peer.run_deferred().more {}
    assert!(seen.lock().unwrap().iter().copied().eq(0..17), "the last message was left in its slot");
    // If two messages find the queue full, the second overwrites the first.
    (20..38).for_each(send);
    assert_eq!((peer.stats().left, peer.stats().dropped), (2, 1));
    while peer.run_deferred().more {}
    send(40);
    while peer.run_deferred().more {}
    assert!(seen.lock().unwrap()[17..].iter().copied().eq((20..36).chain([37, 40])));
    // The interrupt for message 90 has taken it. The deferred work must not take it again.
    seen.lock().unwrap().clear();
    (50..67).for_each(send);
    while peer.run_deferred().more {}
    assert!(seen.lock().unwrap().iter().copied().eq((50..66).chain([90])), "{seen:?}");
}

#[test]
fn who_has_no_region_and_no_name_can_send_where_nobody_claims() {
    let machine = without_doorbells();
    let [_, peer] = machine.link(SlotPolicy::Overwrite);
    let (count, seen) = counter();
    let _kept = peer.register(TYPE, count).unwrap();
    let nameless = Endpoint::<_, Callback>::new(machine.kernel(0));
    let kernel = machine.kernel(1);
    let config = kernel.config(PEER, Incarnation::FIRST, SlotPolicy::Overwrite);
    let region = peer.instance(PEER).unwrap().region();
    nameless.attach_instance(&config, region).unwrap();
    assert_eq!(nameless.send(PEER, TYPE, &[1]), Ok(0));
    peer.on_interrupt();
    peer.run_deferred();
    assert_eq!(seen.load(Relaxed), 1);
    // A claim contains the sender's id, so a kernel without one cannot claim.
    nameless.destroy_instance(PEER).unwrap();
    let config = kernel.config(PEER, Incarnation::FIRST, SlotPolicy::Exclusive);
    nameless.attach_instance(&config, region).unwrap();
    assert_eq!(nameless.send(PEER, TYPE, &[1]), Err(SendError::NoIdentity));
}
