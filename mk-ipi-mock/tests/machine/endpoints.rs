// SPDX-License-Identifier: MIT OR Apache-2.0
//! Endpoints of `mk-ipi-core` on the mock machine. Kernels send messages through slots, with and without faults.

use mk_ipi_abi::{Incarnation, InstanceId, MessageType, PhysRange};
use mk_ipi_core::{SendError, SlotPolicy, Stats};
use mk_ipi_mock::{Callback, Cause, Cpu, DoorbellFault, Fault, Link, Machine, Mode, When};
use std::sync::{Arc, Mutex};

const TYPE: MessageType = MessageType(7);

/// The sender and the number of each message that a kernel got, in order.
type Log = Arc<Mutex<Vec<(u64, u64)>>>;

fn id(kernel: usize) -> InstanceId {
    InstanceId::try_from(kernel as i64).unwrap()
}

/// Registers a handler at `link` that logs each message, and checks all its bytes.
fn logged(link: &Link) -> Log {
    let log = Log::default();
    let writer = log.clone();
    let callback = Callback::new(move |message| {
        let [from, number, rest @ ..] = message.read::<[u64; 30]>().unwrap();
        assert_eq!(rest, [from ^ number; 28], "the message has parts of two messages");
        writer.lock().unwrap().push((from, number));
    });
    let _kept = link.register(TYPE, callback).unwrap();
    log
}

fn try_send(link: &Link, to: usize, number: u64) -> Result<u64, SendError> {
    let from = link.identity().unwrap().0.get().into();
    let mut payload = [from ^ number; 30];
    payload[..2].copy_from_slice(&[from, number]);
    let bytes: Vec<u8> = payload.iter().flat_map(|word| word.to_le_bytes()).collect();
    link.send(id(to), TYPE, &bytes)
}

fn send(cpu: &Cpu, link: &Link, to: usize, number: u64) {
    while let Err(error) = try_send(link, to, number) {
        assert_eq!(error, SendError::Busy);
        cpu.relax();
    }
}

/// Returns the numbers of the messages that came from kernel `from`.
fn numbers(log: &Log, from: u64) -> Vec<u64> {
    log.lock().unwrap().iter().filter(|entry| entry.0 == from).map(|entry| entry.1).collect()
}

/// Each of three kernels sends `count` messages to each of the others.
fn everyone_to_everyone(mode: Mode, count: u64) {
    let machine = Machine::builder().kernel(&[0]).kernel(&[2, 5]).kernel(&[3]).mode(mode).build();
    let links = machine.link::<3>(SlotPolicy::Exclusive);
    let logs = links.each_ref().map(|link| logged(link));
    let run = machine.run(|cpu| {
        for number in (0..count).filter(|_| cpu.index() == 0) {
            for to in (0..3).filter(|&to| to != cpu.kernel()) {
                send(cpu, &links[cpu.kernel()], to, number);
            }
        }
    });
    run.unwrap();
    for (to, log) in logs.iter().enumerate() {
        for from in (0..3).filter(|&from| from != to) {
            assert_eq!(numbers(log, from as u64), Vec::from_iter(0..count), "{from} -> {to}, {mode:?}");
        }
    }
}

#[test]
fn exclusive_slots_deliver_everything_once_and_in_order_under_every_seed() {
    (0..200).for_each(|seed| everyone_to_everyone(Mode::Stepped { seed }, 6));
}

#[test]
fn exclusive_slots_deliver_everything_once_and_in_order_side_by_side() {
    everyone_to_everyone(Mode::Free, 300);
}

/// Kernels 1 and 2 send to kernel 0. Kernel 1 stops at access number `access`. If it makes fewer accesses, it does not stop.
/// Kernel 0 polls. After kernel 1 has stopped, kernel 0 clears the claims of kernel 1. Returns the numbers that came from kernel
/// 1, and whether kernel 1 stopped.
fn one_stops(seed: u64, access: u64) -> (Vec<u64>, bool) {
    let builder = Machine::builder().kernel(&[0]).kernel(&[1]).kernel(&[2]).mode(Mode::Stepped { seed });
    let machine = builder.fault(Fault::Stop { kernel: 1, access }).build();
    let links = machine.link::<3>(SlotPolicy::Exclusive);
    let log = logged(&links[0]);
    let run = machine.run(|cpu| match cpu.kernel() {
        0 => {
            while numbers(&log, 2).len() < 4 {
                if machine.is_stopped(1) {
                    links[0].clear_claims(id(1), Incarnation::FIRST);
                }
                links[0].poll().unwrap();
                cpu.relax();
            }
        }
        from => (0..4).for_each(|number| send(cpu, &links[from], 0, number)),
    });
    run.unwrap();
    assert_eq!(numbers(&log, 2), [0, 1, 2, 3], "seed {seed}, access {access}");
    (numbers(&log, 1), machine.is_stopped(1))
}

#[test]
fn the_others_go_on_wherever_a_kernel_stops() {
    for access in 1..150 {
        for seed in 0..2 {
            let (arrived, stopped) = one_stops(seed, access);
            let sent = Vec::from_iter(0..4);
            assert!(stopped || arrived.len() == 4, "seed {seed}, access {access}: {arrived:?}");
            assert!(sent.starts_with(&arrived), "seed {seed}, access {access}: {arrived:?}");
        }
    }
}

#[test]
fn a_kernel_that_was_stopped_sends_again_in_its_next_incarnation() {
    for access in 1..=40 {
        let stop = Fault::Stop { kernel: 1, access };
        let machine = Machine::builder().kernel(&[0]).kernel(&[1]).fault(stop).build();
        let [host, first] = machine.link(SlotPolicy::Exclusive);
        let log = logged(&host);
        let region = host.instance(id(0)).unwrap().region().unwrap();
        let run = machine.run(|cpu| match (cpu.kernel(), cpu.incarnation()) {
            (0, _) => {
                while !machine.is_stopped(1) {
                    cpu.relax();
                }
                host.clear_claims(id(1), Incarnation::FIRST);
                machine.restart_kernel(1);
                while numbers(&log, 1).last() != Some(&100) {
                    host.poll().unwrap();
                    cpu.relax();
                }
            }
            (_, 0) => (0..9).for_each(|number| send(cpu, &first, 0, number)),
            _ => send(cpu, &second_life(cpu, &machine, region), 0, 100),
        });
        run.unwrap();
        assert!(numbers(&log, 1).windows(2).all(|pair| pair[0] < pair[1]), "access {access}");
    }
}

/// Boots kernel 1 as its second incarnation, and attaches kernel 0, whose region is `host`.
fn second_life(cpu: &Cpu, machine: &Machine, host: PhysRange) -> Arc<Link> {
    let link = cpu.platform().boot(id(1), Incarnation::FIRST.next());
    let kernel = machine.kernel(0);
    link.attach_instance(&kernel.config(id(0), Incarnation::FIRST, SlotPolicy::Exclusive), Some(host))
        .unwrap();
    link
}

/// Kernel 0 sends to kernel 1. Each doorbell is lost with probability 1/3. Kernel 1 polls if `poll` is true. Returns the numbers
/// that arrived, and why the run failed, if it did.
fn with_lost_doorbells(seed: u64, poll: bool) -> (Vec<u64>, Option<Cause>) {
    let lost = Fault::Doorbell { from: None, to: None, when: When::OneIn(3), what: DoorbellFault::Lost };
    let builder = Machine::builder().kernel(&[0]).kernel(&[1]).mode(Mode::Stepped { seed });
    let machine = builder.fault(lost).step_limit(20_000).build();
    let [sender, receiver] = machine.link(SlotPolicy::Exclusive);
    let log = logged(&receiver);
    let run = machine.run(|cpu| match cpu.kernel() {
        0 => (0..12).for_each(|number| send(cpu, &sender, 1, number)),
        _ => {
            while poll && numbers(&log, 0).len() < 12 {
                receiver.poll().unwrap();
                cpu.relax();
            }
        }
    });
    (numbers(&log, 0), run.err().map(|failure| failure.cause))
}

#[test]
fn a_poll_makes_up_for_lost_doorbells() {
    for seed in 0..50 {
        assert_eq!(with_lost_doorbells(seed, true), (Vec::from_iter(0..12), None), "seed {seed}");
    }
    // Without a poll, a send that finds the slot busy rings again. But after the last message there is no further send.
    let unpolled = Vec::from_iter((0..50).map(|seed| with_lost_doorbells(seed, false).0.len()));
    assert!(unpolled.iter().all(|&n| n >= 11), "a send to a busy slot rings again: {unpolled:?}");
    assert!(unpolled.contains(&11), "with some seeds the last doorbell is lost: {unpolled:?}");
}

#[test]
fn late_and_doubled_doorbells_neither_lose_nor_repeat_a_message() {
    for (seed, what) in (0..50).flat_map(|s| [(s, DoorbellFault::Late(40)), (s, DoorbellFault::Doubled)]) {
        let fault = Fault::Doorbell { from: None, to: None, when: When::OneIn(2), what };
        let builder = Machine::builder().kernel(&[0]).kernel(&[1]).mode(Mode::Stepped { seed });
        let machine = builder.fault(fault).build();
        let [sender, receiver] = machine.link(SlotPolicy::Exclusive);
        let log = logged(&receiver);
        let run = machine.run(|cpu| {
            let numbers = (0..8).filter(|_| cpu.kernel() == 0);
            numbers.for_each(|number| send(cpu, &sender, 1, number));
        });
        run.unwrap();
        assert_eq!(numbers(&log, 0), Vec::from_iter(0..8), "seed {seed}, {what:?}");
    }
}

#[test]
fn a_receiver_survives_a_region_that_anyone_writes() {
    let mut all = Stats::default();
    for seed in 0..100 {
        let builder = Machine::builder().kernel(&[0]).kernel(&[1]).mode(Mode::Stepped { seed });
        let machine = builder.build();
        let [sender, receiver] = machine.link(SlotPolicy::Overwrite);
        let region = receiver.instance(id(1)).unwrap().region().unwrap();
        let slot = PhysRange::new(mk_ipi_abi::PhysAddr(region.start().0 + 272), 16).unwrap();
        for value in [None, Some(0), Some(256), Some(257), Some(1 << 63)] {
            machine.fault(Fault::Scribble { when: When::OneIn(20), range: slot, value });
        }
        let run = machine.run(|cpu| match cpu.kernel() {
            0 => (0..10).for_each(|_| _ = sender.send(id(1), TYPE, &[1; 200]).unwrap()),
            _ => (0..100).for_each(|_| cpu.relax()),
        });
        run.unwrap();
        let stats = receiver.stats();
        assert!(stats.received <= stats.interrupts);
        all.bad_size += stats.bad_size;
        all.received += stats.received;
        all.overwritten += stats.overwritten;
    }
    assert!(all.bad_size > 0 && all.received > 0 && all.overwritten > 0, "{all:?}");
}

/// The host treats a kernel as dead although it still runs. The host clears the kernel's claims while the kernel sends.
#[test]
fn a_sender_whose_claim_was_cleared_is_told_and_counts_it() {
    let mut lost = 0;
    for seed in 0..100 {
        let machine = Machine::builder().kernel(&[0]).kernel(&[1]).mode(Mode::Stepped { seed }).build();
        let [host, peer] = machine.link(SlotPolicy::Exclusive);
        let claims = Mutex::new((Ok(0), 0));
        let run = machine.run(|cpu| {
            if cpu.kernel() == 1 {
                claims.lock().unwrap().0 = peer.send(id(0), TYPE, &[1; 200]);
            } else {
                let cleared = host.clear_claims(id(1), Incarnation::FIRST);
                claims.lock().unwrap().1 = cleared;
            }
        });
        run.unwrap();
        let (sent, cleared) = claims.into_inner().unwrap();
        assert_eq!(sent.is_ok(), cleared == 0, "seed {seed}");
        let expected = u64::from(sent == Err(SendError::ClaimLost));
        assert_eq!((peer.stats().claim_lost, peer.stats().refused), (expected, 0), "seed {seed}");
        lost += expected;
    }
    assert!(lost > 0, "no claim was ever cleared in time");
}
