// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests that create, attach and destroy regions. In some of them senders, callbacks and interrupts use the instance meanwhile.

use crate::odd::Odd;
use mk_ipi_abi::native::Geometry;
use mk_ipi_abi::{Errno, Incarnation, InstanceId, MessageType, PhysAddr, PhysCpuId, PhysRange};
use mk_ipi_core::platform::{Doorbell, DoorbellError, MapError, PhysMemory, PoolError, ThisCpu};
use mk_ipi_core::sync::{AtomicU64, Ordering::Relaxed};
use mk_ipi_core::{
    AddError, Endpoint, InstanceConfig, LinkConfig, LookupError, Message, PollError, SendError, SlotPolicy,
};
use mk_ipi_mock::{Callback, Cpu, Machine, Mode, RegionEvent};
use std::sync::{Arc, Mutex};

const TYPE: MessageType = MessageType(7);
const ONE: InstanceId = InstanceId::new(1);

/// Returns a machine of one kernel, and an endpoint on a platform that logs its calls. The thread of the test acts as the
/// kernel's CPU.
fn odd_machine() -> (Machine, Endpoint<Odd, Callback>) {
    let machine = Machine::builder().kernel(&[0]).pool(ONE, 2).build();
    machine.kernel(0).set_vector(mk_ipi_abi::Vector::RFC_V2, || ());
    let endpoint = Endpoint::new(Odd::new(machine.kernel(0)));
    endpoint.identify(InstanceId::HOST, Incarnation::FIRST);
    (machine, endpoint)
}

/// Returns a configuration of instance 1 with CPU 0 and this many slots.
fn config(slots: u32) -> InstanceConfig<'static> {
    InstanceConfig {
        id: ONE,
        incarnation: Incarnation::FIRST,
        cpus: &[PhysCpuId(0)],
        doorbell_cpu: PhysCpuId(0),
        vector: mk_ipi_abi::Vector::RFC_V2,
        link: LinkConfig::RfcV2 { slots, policy: SlotPolicy::Exclusive },
        one_doorbell: false,
    }
}

/// Reads word number `word` of a region.
fn word(machine: &Machine, region: PhysRange, word: u64) -> u64 {
    machine.peek(PhysAddr(region.start().0 + 8 * word))
}

#[test]
fn a_region_is_made_zeroed_and_given_back() {
    let (machine, endpoint) = odd_machine();
    let region = endpoint.create_instance(&config(16)).unwrap();
    assert_eq!((region.start().is_page_aligned(), region.len()), (true, 16 * 272));
    assert!((0..16 * 34).all(|i| word(&machine, region, i) == 0), "the region is zeroed");
    assert_eq!(endpoint.instance(ONE).unwrap().region(), Some(region));
    assert_eq!(machine.pool_used(ONE), 8192);
    let made = ["alloc", "map", "unmap", "map", "added"];
    assert_eq!(
        endpoint.platform().log(),
        made,
        "the first mapping is used to fill the region with zeros; the second one is kept"
    );
    endpoint.destroy_instance(ONE).unwrap();
    assert_eq!(
        endpoint.platform().log(),
        ["removed", "unmap", "free"],
        "the core calls `region_removed` before it unmaps the region"
    );
    assert_eq!((machine.pool_used(ONE), machine.kernel(0).live_mappings()), (0, 0));
    let events = [RegionEvent::Added(ONE, region), RegionEvent::Removed(ONE, region)];
    assert_eq!(machine.kernel(0).regions_seen(), events);
}

#[test]
fn a_region_is_told_of_before_anyone_can_use_it() {
    let (_machine, endpoint) = odd_machine();
    let endpoint = Arc::new(endpoint);
    let (inner, seen) = (Arc::downgrade(&endpoint), Arc::new(Mutex::new(Vec::new())));
    let writer = seen.clone();
    endpoint.platform().at_each_call(move |call| {
        let found = inner.upgrade().unwrap().instance(ONE).map(drop);
        writer.lock().unwrap().push((call, found));
    });
    endpoint.create_instance(&config(1)).unwrap();
    endpoint.destroy_instance(ONE).unwrap();
    let (unknown, gone) = (Err(LookupError::Unknown), Err(LookupError::Destroyed));
    let calls = ["alloc", "map", "unmap", "map", "added"].map(|call| (call, unknown));
    assert_eq!(seen.lock().unwrap()[..5], calls, "the instance can be found only after all of these calls");
    assert_eq!(seen.lock().unwrap()[5..], [("removed", gone), ("unmap", gone), ("free", gone)]);
    endpoint.platform().at_each_call(|_| ());
}

#[test]
fn a_region_that_cannot_be_made_leaves_nothing_behind() {
    let (machine, endpoint) = odd_machine();
    let failed = |config: &InstanceConfig<'_>| {
        let error = endpoint.create_instance(config).unwrap_err();
        assert_eq!((machine.pool_used(ONE), machine.kernel(0).live_mappings()), (0, 0), "{error:?}");
        let never = endpoint.instance(ONE).map(drop);
        assert_eq!((never, machine.kernel(0).regions_seen()), (Err(LookupError::Unknown), vec![]));
        (error, error.errno())
    };
    let no_pool = InstanceConfig { id: InstanceId::new(2), ..config(1) };
    assert_eq!(failed(&no_pool), (AddError::Pool(PoolError::NoPool), Errno::ENODEV));
    assert_eq!(
        failed(&config(31)),
        (AddError::Pool(PoolError::Exhausted), Errno::ENOMEM),
        "the region needs 3 pages, and the pool has 2"
    );
    machine.exhaust_pool(ONE, true);
    assert_eq!(failed(&config(1)), (AddError::Pool(PoolError::Exhausted), Errno::ENOMEM));
    machine.exhaust_pool(ONE, false);
    machine.kernel(0).refuse_maps(true);
    endpoint.platform().log();
    assert_eq!(failed(&config(1)), (AddError::Map(MapError::NoMemory), Errno::ENOMEM));
    assert_eq!(endpoint.platform().log(), ["alloc", "map", "free"], "the memory is given back");
    machine.kernel(0).refuse_maps(false);
    let beyond = InstanceConfig { cpus: &[PhysCpuId(0), PhysCpuId(1)], ..config(1) };
    assert_eq!(failed(&beyond), (AddError::BeyondRegion(PhysCpuId(1)), Errno::EINVAL));
    assert_eq!(endpoint.platform().log(), [""; 0], "the error is found before anything is allocated");
    endpoint.create_instance(&config(1)).unwrap();
}

#[test]
fn an_id_that_exists_allocates_nothing() {
    let (machine, endpoint) = odd_machine();
    endpoint.create_instance(&config(1)).unwrap();
    let (used, _) = (machine.pool_used(ONE), endpoint.platform().log());
    let again = endpoint.create_instance(&config(1)).unwrap_err();
    assert_eq!((again, again.errno()), (AddError::Exists, Errno::EEXIST));
    assert_eq!((machine.pool_used(ONE), endpoint.platform().log()), (used, vec![]));
    // The id also exists while its instance is being destroyed.
    let held = endpoint.instance(ONE).unwrap();
    let in_use = endpoint.destroy_instance(ONE).unwrap_err();
    assert_eq!(in_use.errno(), Errno::EBUSY);
    assert_eq!(endpoint.create_instance(&config(1)), Err(AddError::Exists));
    drop(held);
    endpoint.destroy_instance(ONE).unwrap();
    let unknown = endpoint.destroy_instance(InstanceId::new(9)).unwrap_err();
    assert_eq!(unknown.errno(), Errno::EINVAL);
}

#[test]
fn an_attached_region_is_told_of_and_not_freed() {
    let (machine, endpoint) = odd_machine();
    let page = machine.reserve(4096);
    endpoint.attach_instance(&config(3), Some(page)).unwrap();
    let region = PhysRange::new(page.start(), 3 * 272);
    assert_eq!(
        endpoint.instance(ONE).unwrap().region(),
        region,
        "the length of the region is the length of its slots"
    );
    assert_eq!(endpoint.platform().log(), ["map", "added"]);
    endpoint.destroy_instance(ONE).unwrap();
    assert_eq!(endpoint.platform().log(), ["removed", "unmap"]);
}

#[test]
fn every_cpu_of_an_instance_can_be_the_target() {
    for seed in 0..20 {
        let machine = Machine::builder().kernel(&[0]).kernel(&[2, 5, 9]).mode(Mode::Stepped { seed }).build();
        let [sender, receiver] = machine.link(SlotPolicy::Exclusive);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (writer, platform) = (seen.clone(), machine.kernel(1));
        let note = Callback::new(move |m: &Message<'_>| {
            writer.lock().unwrap().push((platform.physical_id().0, u64::from(m.payload()[0])));
        });
        let _kept = receiver.register(TYPE, note).unwrap();
        let run = machine.run(|cpu| {
            if cpu.kernel() == 0 {
                for id in [9, 5, 2] {
                    sender.send_to_cpu(ONE, PhysCpuId(id), TYPE, &[id as u8]).unwrap();
                }
            }
        });
        run.unwrap();
        seen.lock().unwrap().sort_unstable();
        assert_eq!(*seen.lock().unwrap(), [(2, 2), (5, 5), (9, 9)], "seed {seed}");
        for absent in [0, 3, 10, 1 << 40] {
            let refused = sender.send_to_cpu(ONE, PhysCpuId(absent), TYPE, &[1]);
            assert_eq!(refused, Err(SendError::NotItsCpu(PhysCpuId(absent))));
        }
    }
}

#[test]
fn where_there_is_one_doorbell_no_other_cpu_is_named() {
    let cpus = [2, 5, 9].map(PhysCpuId);
    let slots = LinkConfig::RfcV2 { slots: 16, policy: SlotPolicy::Exclusive };
    for link in [slots, LinkConfig::Native(Geometry::new(2, 8, 256))] {
        let machine = Machine::builder()
            .kernel(&[0])
            .kernel(&[2, 5, 9])
            .pool(ONE, 64)
            .pool(InstanceId::HOST, 64)
            .build();
        machine.kernel(1).set_vector(mk_ipi_abi::Vector::RFC_V2, || ());
        let end: Endpoint<Odd, Callback> = Endpoint::new(Odd::new(machine.kernel(0)));
        end.identify(InstanceId::HOST, Incarnation::FIRST);
        let own = InstanceConfig { id: InstanceId::HOST, link, ..config(16) };
        end.create_instance(&own).unwrap();
        let one_doorbell =
            InstanceConfig { cpus: &cpus, doorbell_cpu: cpus[1], one_doorbell: true, link, ..config(16) };
        let region = end.create_instance(&one_doorbell).unwrap();
        let bytes = || (0..region.len() / 8).map(|i| word(&machine, region, i)).collect::<Vec<_>>();
        let before = bytes();
        for other in [cpus[0], cpus[2], PhysCpuId(0)] {
            assert_eq!(end.send_to_cpu(ONE, other, TYPE, &[1]), Err(SendError::NotItsCpu(other)));
        }
        assert_eq!(bytes(), before, "nothing is written");
        end.send_to_cpu(ONE, cpus[1], TYPE, &[1]).unwrap();
        assert_ne!(bytes(), before);
    }
}

#[test]
fn a_senders_id_fits_the_field_or_is_refused() {
    let (machine, endpoint) = odd_machine();
    let region = endpoint.create_instance(&config(1)).unwrap();
    for id in [1 << 31, u64::from(u32::MAX), 1 << 32, u64::MAX] {
        endpoint.platform().pretend_cpu(id);
        let refused = endpoint.send(ONE, TYPE, &[1]).unwrap_err();
        assert_eq!((refused, refused.errno()), (SendError::SenderBeyondField, Errno::ERANGE));
        assert!((0..34).all(|i| word(&machine, region, i) == 0), "nothing is written");
    }
    endpoint.platform().pretend_cpu((1 << 31) - 1);
    endpoint.send(ONE, TYPE, &[1]).unwrap();
    assert_eq!(word(&machine, region, 0), 0x7_7fff_ffff);
}

#[test]
fn a_doorbell_that_cannot_reach_the_cpu_costs_nothing() {
    for policy in [SlotPolicy::Exclusive, SlotPolicy::Overwrite] {
        let (machine, endpoint) = odd_machine();
        let link = LinkConfig::RfcV2 { slots: 1, policy };
        let region = endpoint.create_instance(&InstanceConfig { link, ..config(1) }).unwrap();
        endpoint.platform().log();
        endpoint.platform().break_check(true);
        let error = DoorbellError::Unreachable(PhysCpuId(0));
        let refused = endpoint.send(ONE, TYPE, &[1]).unwrap_err();
        assert_eq!((refused, refused.errno()), (SendError::Unreachable(error), Errno::ENXIO));
        assert!((0..34).all(|i| word(&machine, region, i) == 0), "nothing is written");
        assert_eq!((endpoint.platform().log(), endpoint.stats().refused), (vec![], 1));
        endpoint.platform().break_check(false);
        endpoint.send(ONE, TYPE, &[1]).unwrap();
    }
}

#[test]
fn a_doorbell_that_does_not_ring_leaves_the_message_and_says_so() {
    let (machine, endpoint) = odd_machine();
    endpoint.identify(ONE, Incarnation::FIRST);
    let region = endpoint.create_instance(&config(1)).unwrap();
    endpoint.platform().break_ring(true);
    let error = SendError::NotRung(DoorbellError::Stuck);
    let told = endpoint.send(ONE, TYPE, &[0x55]).unwrap_err();
    assert_eq!((told, told.errno()), (error, Errno::EAGAIN));
    assert_eq!([1, 2].map(|i| word(&machine, region, i)), [1, 0x55], "the message is in the slot");
    assert_eq!((endpoint.stats().not_rung, endpoint.stats().sent), (1, 0));
    assert_eq!(endpoint.send(ONE, TYPE, &[1]), Err(SendError::Busy));
    assert_eq!(endpoint.poll(), Ok(true), "a poll finds the message");
}

#[test]
fn who_does_not_know_itself_neither_sends_nor_receives() {
    let machine = Machine::builder().kernel(&[0]).pool(ONE, 1).build();
    let endpoint: Endpoint<Odd, Callback> = Endpoint::new(Odd::new(machine.kernel(0)));
    let region = endpoint.create_instance(&config(1)).unwrap();
    assert_eq!(endpoint.send(ONE, TYPE, &[1]), Err(SendError::NoIdentity));
    assert!((0..34).all(|i| word(&machine, region, i) == 0), "nothing is written");
    endpoint.identify(ONE, Incarnation::FIRST);
    assert_eq!(endpoint.identity(), Some((ONE, Incarnation::FIRST)));
    endpoint.forget_identity();
    assert_eq!(endpoint.identity(), None);
    machine.poke(PhysAddr(region.start().0 + 8), 8);
    endpoint.on_interrupt();
    let me = InstanceConfig { id: InstanceId::HOST, ..config(1) };
    endpoint.identify(me.id, me.incarnation);
    endpoint.on_interrupt();
    endpoint.attach_instance(&me, None).unwrap();
    endpoint.on_interrupt();
    assert_eq!(endpoint.poll(), Err(PollError::NoRegion));
    let stats = endpoint.stats();
    assert_eq!(
        (stats.interrupts, stats.no_region, stats.received),
        (3, 3, 0),
        "without a region nothing is received"
    );
    assert_eq!(word(&machine, region, 1), 8);
}

#[test]
fn a_callback_on_the_cpu_that_a_task_has_left_is_not_its_own() {
    const OTHER: MessageType = MessageType(8);
    let (_machine, endpoint) = odd_machine();
    let endpoint: &'static _ = Box::leak(Box::new(endpoint));
    endpoint.identify(ONE, Incarnation::FIRST);
    endpoint.create_instance(&config(1)).unwrap();
    let other = endpoint.register(OTHER, Callback::new(|_: &Message<'_>| ())).unwrap();
    let seen = Arc::new(Mutex::new(None));
    let writer = seen.clone();
    // The platform behaves as if a task had read the index of CPU 1, where a callback runs, and had then been moved to CPU 0.
    let note =
        Callback::new(move |_: &Message<'_>| *writer.lock().unwrap() = Some(endpoint.unregister(other)));
    let _kept = endpoint.register(TYPE, note).unwrap();
    endpoint.send(ONE, TYPE, &[1]).unwrap();
    endpoint.platform().move_from(1);
    endpoint.on_interrupt();
    endpoint.run_deferred();
    assert_eq!(*seen.lock().unwrap(), Some(Ok(())));
}

#[test]
fn a_cpu_beyond_the_region_reads_nothing() {
    let (machine, endpoint) = odd_machine();
    endpoint.identify(ONE, Incarnation::FIRST);
    let region = endpoint.create_instance(&config(2)).unwrap();
    machine.poke(PhysAddr(region.start().0 + 8), 8);
    for id in [2, 3, u64::from(u32::MAX), u64::MAX / 34, u64::MAX] {
        endpoint.platform().pretend_cpu(id);
        let before = endpoint.stats();
        endpoint.on_interrupt();
        assert_eq!(endpoint.poll(), Ok(false));
        let now = endpoint.stats();
        assert_eq!((now.beyond_region, now.received), (before.beyond_region + 2, 0), "{id}");
    }
    assert_eq!(word(&machine, region, 1), 8, "no slot is emptied");
    endpoint.platform().pretend_cpu(0);
    endpoint.on_interrupt();
    assert_eq!(endpoint.stats().received, 1);
}

#[test]
fn an_interrupt_takes_one_message_and_a_run_as_many_as_the_queue_holds() {
    let machine = Machine::builder().kernel(&[0]).kernel(&[1]).build();
    let [link, _] = machine.link(SlotPolicy::Exclusive);
    let (handled, again) = (Arc::new(AtomicU64::new(0)), Arc::downgrade(&link));
    let counter = handled.clone();
    // This imitates a peer that never stops sending: each call of the handler sends the next message and takes its interrupt.
    let storm = Callback::new(move |_: &Message<'_>| {
        counter.fetch_add(1, Relaxed);
        let link = again.upgrade().unwrap();
        link.send(InstanceId::HOST, TYPE, &[1]).unwrap();
        link.on_interrupt();
    });
    let _kept = link.register(TYPE, storm).unwrap();
    link.send(InstanceId::HOST, TYPE, &[1]).unwrap();
    link.on_interrupt();
    link.on_interrupt();
    let stats = link.stats();
    assert_eq!(
        (stats.received, stats.empty, handled.load(Relaxed)),
        (1, 1, 0),
        "`on_interrupt` calls no handler"
    );
    for run in 1..=3 {
        let deferred = link.run_deferred();
        assert_eq!((deferred.messages, deferred.more), (16, true));
        assert_eq!(handled.load(Relaxed), 16 * run);
    }
}

/// CPU 0 of kernel 0 sends to instance 1 while CPU 1 destroys it. Returns true if a call of `destroy_instance` failed because the
/// instance was in use.
fn destroyed_under_a_sender(seed: u64) -> bool {
    let builder = Machine::builder().kernel(&[0, 1]).kernel(&[2]).pool(ONE, 1);
    let machine = builder.mode(Mode::Stepped { seed }).build();
    let link = machine.kernel(0).boot(InstanceId::HOST, Incarnation::FIRST);
    machine.kernel(1).set_vector(mk_ipi_abi::Vector::RFC_V2, || ());
    let peer = machine.kernel(1);
    let config = peer.config(ONE, Incarnation::FIRST, SlotPolicy::Overwrite);
    link.create_instance(&config).unwrap();
    let met = AtomicU64::new(0);
    let gone = LookupError::Destroyed;
    let run = machine.run(|cpu| match (cpu.kernel(), cpu.index()) {
        (0, 0) => {
            while link.send(ONE, TYPE, &[9; 200]) != Err(SendError::Instance(gone)) {
                cpu.relax();
            }
        }
        (0, _) => {
            (0..cpu.random() % 60).for_each(|_| cpu.relax());
            while link.destroy_instance(ONE).is_err() {
                assert!(
                    link.instance(ONE).is_err_and(|e| e == gone),
                    "the instance cannot be looked up any more"
                );
                met.fetch_add(1, Relaxed);
                cpu.relax();
            }
            assert_eq!(machine.pool_used(ONE), 0);
        }
        _ => (),
    });
    // The run fails if a kernel accesses unmapped memory or frees mapped memory.
    run.unwrap();
    met.load(Relaxed) != 0
}

#[test]
fn a_region_outlives_its_last_sender_under_every_seed() {
    let met = (0..200).filter(|&seed| destroyed_under_a_sender(seed)).count();
    assert!(met > 20, "the instance was in use at `destroy_instance` with only {met} seeds");
}

/// CPU 0 runs callbacks while CPU 1 unregisters. Returns true if a callback was running when CPU 1 called `unregister`.
fn unregistered_under_a_callback(seed: u64) -> bool {
    let machine = Machine::builder().kernel(&[0, 1]).mode(Mode::Stepped { seed }).build();
    let [link] = machine.link::<1>(SlotPolicy::Exclusive);
    // Bit 0: the callback is running. Bit 1: the state that the callback uses is gone, because `unregister` has returned.
    let state = Arc::new(AtomicU64::new(0));
    let (inner, platform) = (state.clone(), machine.kernel(0));
    let callback = Callback::new(move |_: &Message<'_>| {
        assert_eq!(inner.fetch_xor(1, Relaxed), 0);
        (0..20).for_each(|_| platform.relax());
        assert_eq!(inner.fetch_xor(1, Relaxed), 1, "`unregister` returned while the callback was running");
    });
    let handle = link.register(TYPE, callback).unwrap();
    let waited = AtomicU64::new(0);
    let run = machine.run(|cpu| {
        if cpu.index() == 0 {
            for _ in 0..4 {
                while link.send_to_cpu(InstanceId::HOST, cpu.id(), TYPE, &[1]) == Err(SendError::Busy) {
                    cpu.relax();
                }
            }
        } else {
            (0..cpu.random() % 80).for_each(|_| cpu.relax());
            waited.store(state.load(Relaxed), Relaxed);
            link.unregister(handle).unwrap();
            assert_eq!(state.fetch_xor(2, Relaxed), 0, "the callback is still running after `unregister`");
            link.unregister(handle).unwrap_err();
        }
    });
    run.unwrap();
    waited.load(Relaxed) != 0
}

#[test]
fn unregister_waits_for_a_callback_on_another_cpu_under_every_seed() {
    let waited = (0..200).filter(|&seed| unregistered_under_a_callback(seed)).count();
    assert!(waited > 20, "a callback was running at `unregister` with only {waited} seeds");
}

#[test]
fn a_peers_doorbell_is_where_it_wants_if_the_directory_gives_it_that_cpu() {
    let builder = Machine::builder().kernel(&[0]).kernel(&[2, 5]).kernel(&[7]).pool(ONE, 8);
    let machine = builder.build();
    let (spare, rung) = (mk_ipi_abi::Vector::new(0x40).unwrap(), Arc::new(Mutex::new(vec![])));
    for (kernel, vector) in [1, 2].into_iter().flat_map(|k| [(k, mk_ipi_abi::Vector::RFC_V2), (k, spare)]) {
        let (platform, rung) = (machine.kernel(kernel), rung.clone());
        machine.kernel(kernel).set_vector(vector, move || {
            rung.lock().unwrap().push((platform.physical_id().0, vector.get()));
        });
    }
    let end: Endpoint<Odd, Callback> = Endpoint::new(Odd::new(machine.kernel(0)));
    end.identify(InstanceId::HOST, Incarnation::FIRST);
    let link = LinkConfig::Native(Geometry::new(2, 32, 256));
    // The configuration of the instance lists only CPU 2.
    let peer = InstanceConfig { cpus: &[PhysCpuId(2)], doorbell_cpu: PhysCpuId(2), link, ..config(1) };
    let region = end.create_instance(&peer).unwrap();
    let set = |word: u64, value: u64| machine.poke(PhysAddr(region.start().0 + 8 * word), value);
    let at = |cpu: u64, vector: u8| (cpu, vector);
    // Sets the peer's LIFE and ARMED to 1, and its BELL to `cpu` and the spare vector. Then sends `sends` messages. Returns the
    // CPUs and vectors that were rung, and how often the endpoint called `peer_has_cpu`.
    let rings = |cpu: u64, sends: usize| {
        set(9, 1);
        set(16, 1);
        set(17, 1 << 63 | u64::from(spare.get()) << 48 | cpu);
        let asked = end.platform().times_asked();
        (0..sends).for_each(|_| _ = end.send(ONE, TYPE, &[1]).unwrap());
        machine.run(|_| ()).unwrap();
        let mut rung = std::mem::take(&mut *rung.lock().unwrap());
        rung.dedup();
        (rung, end.platform().times_asked() - asked)
    };
    let (there, listed) = (spare.get(), mk_ipi_abi::Vector::RFC_V2.get());
    assert_eq!(
        rings(2, 1),
        (vec![at(2, there)], 1),
        "without a directory, the configuration's list of CPUs decides"
    );
    assert_eq!(rings(5, 1), (vec![at(2, listed)], 1));
    end.platform().directory_gives(Some(vec![(ONE, PhysCpuId(5)), (InstanceId::new(2), PhysCpuId(7))]));
    assert_eq!(
        rings(5, 3),
        (vec![at(5, there)], 1),
        "the directory lists CPU 5 now, and is asked once after BELL has changed"
    );
    assert_eq!(
        rings(5, 2),
        (vec![at(5, there)], 0),
        "the directory is not asked again while BELL stays the same"
    );
    assert_eq!(
        rings(7, 2),
        (vec![at(2, listed)], 2),
        "another kernel's CPU is not rung; the directory is asked at each send, because it can change"
    );
    assert_eq!(
        rings(2, 1),
        (vec![at(2, listed)], 1),
        "a CPU that the directory does not list any more is not rung at BELL's vector"
    );
    end.platform().directory_gives(Some(vec![]));
    assert_eq!(
        rings(5, 1),
        (vec![at(5, there)], 0),
        "the directory is not asked again about the last BELL that it allowed"
    );
    assert_eq!(rings((1 << 48) - 1, 1).0, [at(2, listed)], "a CPU that belongs to no kernel is not rung");
    assert_eq!(rings(5, 1), (vec![at(5, there)], 0));
}

#[test]
fn a_page_is_mapped_while_its_hold_lives() {
    let (machine, endpoint) = odd_machine();
    let page = machine.reserve(4096);
    let pfn = mk_ipi_abi::Pfn(page.start().0 / 4096);
    let mapped = endpoint.map_pfn(pfn).unwrap();
    assert_eq!((mapped.words().len(), endpoint.platform().log()), (512, vec!["map"]));
    drop(mapped);
    assert_eq!((endpoint.platform().log(), machine.kernel(0).live_mappings()), (vec!["unmap"], 0));
    machine.kernel(0).keep_private(page);
    assert!(!endpoint.platform().peer_may_share(page));
    let refused = endpoint.map_pfn(pfn).map(drop).unwrap_err();
    assert_eq!((refused.errno(), endpoint.platform().log()), (Errno::EACCES, vec![]), "`map` is not called");
    let beyond = endpoint.map_pfn(mk_ipi_abi::Pfn(1 << 40)).map(drop).unwrap_err();
    assert_eq!(beyond.errno(), Errno::ERANGE);
}

#[test]
fn sends_take_no_reference_that_they_do_not_give_back() {
    let (machine, endpoint) = odd_machine();
    endpoint.create_instance(&config(1)).unwrap();
    let sends = [
        endpoint.send(ONE, TYPE, &[1]),
        endpoint.send(ONE, TYPE, &[1]),
        endpoint.send(ONE, TYPE, &[]),
        endpoint.send(ONE, TYPE, &[0; 257]),
        endpoint.send_to_cpu(ONE, PhysCpuId(3), TYPE, &[1]),
        endpoint.send(InstanceId::new(2), TYPE, &[1]),
    ];
    let errnos = sends.map(|sent| sent.err().map(SendError::errno));
    let (inval, busy) = (Some(Errno::EINVAL), Some(Errno::EBUSY));
    assert_eq!(errnos, [None, busy, inval, inval, inval, inval]);
    endpoint.destroy_instance(ONE).unwrap();
    let gone = endpoint.send(ONE, TYPE, &[1]).unwrap_err();
    assert_eq!(gone.errno(), Errno::ESTALE);
    endpoint.attach_instance(&config(1), None).unwrap();
    assert_eq!(endpoint.send(ONE, TYPE, &[1]).unwrap_err().errno(), Errno::ENODEV);
    endpoint.destroy_instance(ONE).unwrap();
    assert_eq!(machine.pool_used(ONE), 0);
}

#[test]
fn a_send_runs_with_interrupts_off_and_puts_them_back() {
    for seed in 0..50 {
        let builder = Machine::builder().kernel(&[0]).kernel(&[1]).kernel(&[2]).pool(ONE, 1);
        let machine = Arc::new(builder.mode(Mode::Stepped { seed }).build());
        let [link, ..] = machine.link::<3>(SlotPolicy::Exclusive);
        let size = PhysAddr(link.instance(ONE).unwrap().region().unwrap().start().0 + 272 + 8);
        let (seen, inner) = (Arc::new(AtomicU64::new(0)), Arc::downgrade(&machine));
        let (worst, bell) = (seen.clone(), mk_ipi_abi::Vector::new(0x30).unwrap());
        machine.kernel(0).set_vector(bell, move || {
            let found = inner.upgrade().unwrap().peek(size);
            worst.store(found.max(worst.load(Relaxed)), Relaxed);
        });
        let run = machine.run(|cpu: &Cpu| match cpu.kernel() {
            0 => {
                for n in 0..20 {
                    // In every fourth round interrupts are off before the send. Then they must be off after it too.
                    let off = n % 4 == 0 && cpu.disable_interrupts();
                    let _busy = link.send(ONE, TYPE, &[1; 64]);
                    assert_ne!(cpu.interrupts_enabled(), off);
                    cpu.enable_interrupts();
                }
            }
            2 => (0..40).for_each(|_| cpu.platform().ring(PhysCpuId(0), bell).unwrap()),
            _ => (),
        });
        run.unwrap();
        assert!(
            seen.load(Relaxed) <= 256,
            "seed {seed}: an interrupt was taken while its own CPU had a slot claimed"
        );
    }
}
