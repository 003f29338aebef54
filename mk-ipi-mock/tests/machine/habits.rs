// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the mock machine itself: its interrupts, its memory checks and its scheduler.

use mk_ipi_abi::{InstanceId, PhysAddr, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::platform::*;
use mk_ipi_core::sync::{AtomicU64, Ordering::Relaxed, Word};
use mk_ipi_mock::{Builder, Cause, Cpu, Machine, MockPlatform, Mode, RegionEvent};
use std::sync::{Arc, Mutex};

const V: Vector = Vector::RFC_V2;
const A: PhysCpuId = PhysCpuId(0);

/// Sets a handler of `vector` that counts the interrupts. Returns the count.
fn count(platform: &MockPlatform, vector: Vector) -> Arc<AtomicU64> {
    let taken = Arc::new(AtomicU64::new(0));
    let counter = taken.clone();
    platform.set_vector(vector, move || {
        counter.fetch_add(1, Relaxed);
    });
    taken
}

/// A machine of one kernel with one CPU.
fn one() -> Machine {
    Machine::builder().kernel(&[0]).build()
}

/// A builder of a machine of two kernels, on CPUs 0 and 4.
fn two(seed: u64) -> Builder {
    Machine::builder().kernel(&[0]).kernel(&[4]).mode(Mode::Stepped { seed })
}

fn ring(cpu: &Cpu, to: u64) {
    cpu.platform().ring(PhysCpuId(to), V).unwrap();
}

#[test]
fn a_vector_that_is_pending_is_not_counted_twice() {
    let machine = one();
    let taken = count(&machine.kernel(0), V);
    let report = machine.run(|cpu| {
        let on = cpu.disable_interrupts();
        for _ in 0..3 {
            ring(cpu, 0);
        }
        assert_eq!(taken.load(Relaxed), 0, "no interrupt is taken while interrupts are off");
        assert!(on && !cpu.interrupts_enabled());
        cpu.enable_interrupts();
        assert_eq!(taken.load(Relaxed), 1);
    });
    let doorbells = report.unwrap().doorbells;
    assert_eq!((doorbells.rung, doorbells.coalesced, doorbells.taken), (3, 2, 1));
}

#[test]
fn a_handler_runs_with_interrupts_off_and_a_ring_meanwhile_is_taken_after_it() {
    let machine = one();
    let platform = machine.kernel(0);
    let (log, inner) = (Arc::new(Mutex::new(Vec::new())), platform.clone());
    let writer = log.clone();
    platform.set_vector(V, move || {
        let first = writer.lock().unwrap().is_empty();
        writer.lock().unwrap().push("in");
        if first {
            inner.ring(A, V).unwrap();
            inner.relax();
        }
        writer.lock().unwrap().push("out");
    });
    machine.run(|cpu| ring(cpu, 0)).unwrap();
    assert_eq!(*log.lock().unwrap(), ["in", "out", "in", "out"]);
}

#[test]
fn a_handler_that_switches_interrupts_on_is_interrupted() {
    let machine = one();
    let platform = machine.kernel(0);
    let high = Vector::new(0xf0).unwrap();
    let nested = count(&platform, high);
    let (inner, seen) = (platform.clone(), nested.clone());
    platform.set_vector(V, move || {
        inner.ring(A, high).unwrap();
        assert_eq!(seen.load(Relaxed), 0);
        inner.restore(true);
        assert_eq!(seen.load(Relaxed), 1);
    });
    machine.run(|cpu| ring(cpu, 0)).unwrap();
    assert_eq!(nested.load(Relaxed), 1);
}

#[test]
fn the_highest_vector_is_taken_first() {
    let machine = one();
    let platform = machine.kernel(0);
    let order = Arc::new(Mutex::new(Vec::new()));
    for v in [0x20, 0x80, 0xfe] {
        let order = order.clone();
        platform.set_vector(Vector::new(v).unwrap(), move || order.lock().unwrap().push(v));
    }
    let run = machine.run(|cpu| {
        cpu.disable_interrupts();
        for v in [0x80, 0x20, 0xfe] {
            cpu.platform().ring(A, Vector::new(v).unwrap()).unwrap();
        }
        cpu.enable_interrupts();
    });
    run.unwrap();
    assert_eq!(*order.lock().unwrap(), [0xfe, 0x80, 0x20]);
}

#[test]
fn an_interrupt_nests_into_code_between_two_accesses() {
    let nested = (0..50).filter(|&seed| {
        let machine = two(seed).build();
        let page = machine.reserve(4096);
        let platform = machine.kernel(1);
        let mapping = Arc::new(platform.map(page, Access::ReadWrite).unwrap());
        let (words, seen) = (mapping.clone(), Arc::new(AtomicU64::new(0)));
        let found = seen.clone();
        platform.set_vector(V, move || found.store(words.words()[0].load(Relaxed), Relaxed));
        let run = machine.run(|cpu| match cpu.kernel() {
            0 => ring(cpu, 4),
            _ => (1..=20).for_each(|n| mapping.words()[0].store(n, Relaxed)),
        });
        run.unwrap();
        (1..20).contains(&seen.load(Relaxed))
    });
    assert!(nested.count() > 5, "with too few seeds the interrupt was taken between two stores");
}

#[test]
fn idle_sleeps_until_an_interrupt_and_misses_none() {
    for seed in 0..200 {
        let machine = two(seed).build();
        let taken = count(&machine.kernel(1), V);
        let run = machine.run(|cpu| match cpu.kernel() {
            0 => ring(cpu, 4),
            _ => loop {
                cpu.disable_interrupts();
                if taken.load(Relaxed) != 0 {
                    break;
                }
                cpu.idle();
                assert!(cpu.interrupts_enabled());
            },
        });
        run.unwrap();
    }
}

#[test]
fn going_idle_with_interrupts_on_can_lose_the_wake_up() {
    let lost = (0..100).filter(|&seed| {
        let machine = two(seed).build();
        let taken = count(&machine.kernel(1), V);
        let run = machine.run(|cpu| match cpu.kernel() {
            0 => ring(cpu, 4),
            _ => {
                while taken.load(Relaxed) == 0 {
                    cpu.idle();
                }
            }
        });
        run.is_err_and(|failure| failure.cause == Cause::Deadlock(vec![PhysCpuId(4)]))
    });
    assert!(lost.count() > 0, "no seed lost the wake-up, although interrupts were on before `idle`");
}

#[test]
fn deferred_work_runs_after_the_handler_with_interrupts_on_and_once() {
    let machine = Machine::builder().kernel(&[0, 7]).build();
    let platform = machine.kernel(0);
    let log = Arc::new(Mutex::new(Vec::new()));
    let (handler, routine) = (log.clone(), log.clone());
    let (p, q) = (platform.clone(), platform.clone());
    platform.set_vector(V, move || {
        p.schedule();
        p.schedule();
        handler.lock().unwrap().push(("handler", p.physical_id()));
    });
    platform.set_deferred(move || {
        let on = q.disable();
        q.restore(on);
        assert!(on);
        routine.lock().unwrap().push(("deferred", q.physical_id()));
    });
    let run = machine.run(|cpu| {
        if cpu.index() == 0 {
            ring(cpu, 7);
        }
    });
    run.unwrap();
    assert_eq!(*log.lock().unwrap(), [("handler", PhysCpuId(7)), ("deferred", PhysCpuId(7))]);
}

#[test]
fn deferred_work_waits_for_the_outermost_handler() {
    let machine = one();
    let platform = machine.kernel(0);
    let deferred = Arc::new(AtomicU64::new(0));
    let (counter, seen, inner) = (deferred.clone(), deferred.clone(), platform.clone());
    platform.set_deferred(move || {
        counter.fetch_add(1, Relaxed);
    });
    platform.set_vector(V, move || {
        inner.schedule();
        inner.restore(true);
        assert_eq!(seen.load(Relaxed), 0, "deferred work does not run inside the handler");
    });
    machine.run(|cpu| ring(cpu, 0)).unwrap();
    assert_eq!(deferred.load(Relaxed), 1);
}

#[test]
fn deferred_work_is_interrupted_but_does_not_nest_in_itself() {
    let machine = one();
    let platform = machine.kernel(0);
    let (runs, inner) = (Arc::new(AtomicU64::new(0)), platform.clone());
    let (counter, handler) = (runs.clone(), platform.clone());
    platform.set_vector(V, move || handler.schedule());
    platform.set_deferred(move || {
        let run = counter.fetch_add(1, Relaxed) + 1;
        if run == 1 {
            inner.ring(A, V).unwrap();
            inner.relax();
            inner.relax();
        }
        assert_eq!(counter.load(Relaxed), run);
    });
    assert_eq!(machine.run(|cpu| ring(cpu, 0)).unwrap().doorbells.taken, 2);
    assert_eq!(runs.load(Relaxed), 2);
}

#[test]
fn a_cpu_whose_code_returned_still_takes_interrupts() {
    let machine = two(1).build();
    let taken = count(&machine.kernel(1), V);
    let run = machine.run(|cpu| {
        if cpu.kernel() == 0 {
            (0..100).for_each(|_| cpu.relax());
            ring(cpu, 4);
        }
    });
    run.unwrap();
    assert_eq!(taken.load(Relaxed), 1);
}

#[test]
fn ids_are_sparse_and_absent_cpus_cannot_be_rung() {
    let machine = Machine::builder().kernel(&[0]).kernel(&[2, 4, 300]).build();
    let seen = Mutex::new(Vec::new());
    let run = machine.run(|cpu| {
        let p = cpu.platform();
        seen.lock().unwrap().push((cpu.kernel(), p.index(), p.physical_id().0));
        let absent = PhysCpuId(1);
        assert_eq!(p.check(absent, V), Err(DoorbellError::Unreachable(absent)));
        assert_eq!(p.ring(absent, V), Err(DoorbellError::Unreachable(absent)));
        assert_eq!(p.check(PhysCpuId(300), V), Ok(()));
    });
    run.unwrap();
    let mut seen = seen.into_inner().unwrap();
    seen.sort_unstable();
    assert_eq!(seen, [(0, 0, 0), (1, 0, 2), (1, 1, 4), (1, 2, 300)]);
}

#[test]
fn one_seed_gives_one_run_and_others_differ() {
    let run = |seed| {
        let machine = two(seed).build();
        let page = machine.reserve(4096);
        count(&machine.kernel(1), V);
        let run = machine.run(|cpu| {
            let p = cpu.platform();
            let mapping = p.map(page, Access::ReadWrite).unwrap();
            for n in 0..30 {
                mapping.words()[n].store(cpu.random(), Relaxed);
                if cpu.kernel() == 0 && n % 10 == 0 {
                    ring(cpu, 4);
                }
            }
        });
        run.unwrap()
    };
    let reports: Vec<_> = (0..20).map(run).collect();
    assert_eq!(reports, (0..20).map(run).collect::<Vec<_>>());
    let distinct: std::collections::HashSet<_> = reports.iter().map(|report| report.trace).collect();
    // Two seeds can give the same run if the run is short and both seeds rarely switch to another CPU.
    assert!(distinct.len() > 10);
}

#[test]
fn a_deadlock_is_found_and_names_the_seed() {
    let machine = two(77).build();
    let run = machine.run(|cpu| match cpu.kernel() {
        0 => (),
        _ => cpu.idle(),
    });
    let failure = run.unwrap_err();
    assert_eq!(failure.cause, Cause::Deadlock(vec![PhysCpuId(4)]));
    assert!(format!("{failure:?}").contains("Mode::Stepped { seed: 77 }"), "{failure:?}");
    assert_eq!(failure.tail.last().unwrap().what, mk_ipi_mock::Step::Idle);
}

#[test]
fn a_livelock_meets_the_step_limit() {
    let machine = two(0).step_limit(10_000).build();
    let failure = machine
        .run(|cpu| loop {
            cpu.relax()
        })
        .unwrap_err();
    assert_eq!((failure.cause, failure.steps), (Cause::StepLimit, 10_000));
}

#[test]
fn a_panic_ends_the_run_for_all() {
    let machine = two(5).build();
    let run = machine.run(|cpu| match cpu.kernel() {
        0 => panic!("on purpose"),
        _ => cpu.idle(),
    });
    let cause = run.unwrap_err().cause;
    assert_eq!(cause, Cause::Panicked { cpu: A, message: "on purpose".into() });
    machine.run(|_| ()).unwrap();
}

#[test]
fn free_mode_delivers_too() {
    let machine = two(0).mode(Mode::Free).build();
    let (there, back) = (count(&machine.kernel(1), V), count(&machine.kernel(0), V));
    let wait = |cpu: &Cpu, counter: &AtomicU64, n| loop {
        cpu.disable_interrupts();
        if counter.load(Relaxed) >= n {
            return cpu.enable_interrupts();
        }
        cpu.idle();
    };
    let run = machine.run(|cpu| {
        for n in 1..=1000 {
            match cpu.kernel() {
                0 => {
                    ring(cpu, 4);
                    wait(cpu, &back, n);
                }
                _ => {
                    wait(cpu, &there, n);
                    ring(cpu, 0);
                }
            }
        }
    });
    assert_eq!(run.unwrap().doorbells.taken, 2000);
    let failure = machine.run(Cpu::idle).unwrap_err();
    assert_eq!(failure.cause, Cause::Deadlock(vec![A, PhysCpuId(4)]));
}

/// Runs `code` on a machine of one CPU, and returns the message with which it panicked.
fn complaint(code: impl Fn(&Cpu, PhysRange) + Sync) -> String {
    let machine = Machine::builder().kernel(&[0]).pool(InstanceId::HOST, 2).build();
    let page = machine.reserve(4096);
    match machine.run(|cpu| code(cpu, page)).unwrap_err().cause {
        Cause::Panicked { message, .. } => message,
        cause => panic!("{cause:?}"),
    }
}

#[test]
fn misuse_of_memory_is_found() {
    let after_unmap = complaint(|cpu, page| {
        let p = cpu.platform();
        let (kept, given) =
            (p.map(page, Access::ReadWrite).unwrap(), p.map(page, Access::ReadWrite).unwrap());
        let word = &kept.words()[0];
        // SAFETY: `given` came from `map`, and no reference to its words is used after this. `kept` maps the same words.
        unsafe { p.unmap(given) };
        word.load(Relaxed);
        assert_eq!(p.live_mappings(), 1);
        // SAFETY: the mapping came from `map`, and nothing refers to its words.
        unsafe { p.unmap(p.map(page, Access::ReadOnly).unwrap()) };
        let gone = p.map(page, Access::ReadWrite).unwrap();
        let alias: *const mk_ipi_mock::MockWord = &gone.words()[1];
        // SAFETY: both mappings came from `map`. No reference to their words is used after this.
        unsafe {
            p.unmap(gone);
            p.unmap(kept);
        }
        // SAFETY: the machine still exists, and it owns the memory. The access is a fault of the kernel, which the machine must
        // find.
        unsafe { &*alias }.store(1, Relaxed);
    });
    assert!(after_unmap.contains("Store at 0x102008, which it has not mapped"), "{after_unmap}");

    let read_only = complaint(|cpu, page| {
        let mapping = cpu.platform().map(page, Access::ReadOnly).unwrap();
        mapping.words()[0].load(Relaxed);
        mapping.words()[0].store(1, Relaxed);
    });
    assert!(read_only.contains("mapped read-only"), "{read_only}");

    let still_mapped = complaint(|cpu, _| {
        let p = cpu.platform();
        let at = p.alloc(InstanceId::HOST, 8).unwrap();
        let range = PhysRange::new(at, 4096).unwrap();
        let _leaked = p.map(range, Access::ReadWrite).unwrap();
        // SAFETY: this breaks the contract of `free` on purpose, because the range is still mapped. The machine must find this,
        // and then the memory is not used any more.
        unsafe { p.free(InstanceId::HOST, range) };
    });
    assert!(still_mapped.contains("still has mapped"), "{still_mapped}");
}

#[test]
fn maps_are_checked_and_can_be_refused() {
    let machine = one();
    let (p, page) = (machine.kernel(0), machine.reserve(4096));
    let at = |start, len| p.map(PhysRange::new(PhysAddr(start), len).unwrap(), Access::ReadWrite).err();
    assert_eq!(at(page.start().0, 12), Some(MapError::Misaligned));
    assert_eq!(at(page.start().0 + 8, 8), Some(MapError::Misaligned));
    assert_eq!(at(0, 4096), Some(MapError::NotAllowed));
    assert_eq!(at(machine.memory().end().0, 4096), Some(MapError::NotAllowed));
    assert!(p.peer_may_share(page));
    p.keep_private(page);
    assert!(!p.peer_may_share(page) && at(page.start().0, 8) == Some(MapError::NotAllowed));
    let other = machine.reserve(1).start().0;
    p.refuse_maps(true);
    assert_eq!(at(other, 8), Some(MapError::NoMemory));
    p.refuse_maps(false);
    assert_eq!((at(other, 8), p.live_mappings()), (None, 1));
}

#[test]
fn the_observer_records_regions() {
    let machine = one();
    let (p, page) = (machine.kernel(0), machine.reserve(4096));
    p.region_added(InstanceId::HOST, page);
    p.region_removed(InstanceId::HOST, page);
    let events = [RegionEvent::Added(InstanceId::HOST, page), RegionEvent::Removed(InstanceId::HOST, page)];
    assert_eq!(p.regions_seen(), events);
}

#[test]
fn a_platform_is_for_the_cpus_of_its_kernel() {
    let machine = two(0).build();
    let other = machine.kernel(1);
    let run = machine.run(|cpu| {
        if cpu.kernel() == 0 {
            other.index();
        }
    });
    let failure = run.unwrap_err();
    assert!(matches!(failure.cause, Cause::Panicked { cpu: A, .. }), "{failure:?}");
    let elsewhere = one().run(|_| other.ring(A, V).unwrap()).unwrap_err();
    assert!(matches!(elsewhere.cause, Cause::Panicked { cpu: A, .. }), "{elsewhere:?}");
    let stranger = std::thread::scope(|s| s.spawn(|| other.physical_id()).join());
    assert!(stranger.is_err());
    assert_eq!(
        other.physical_id(),
        PhysCpuId(4),
        "the thread that built the machine counts as the first CPU"
    );
}
