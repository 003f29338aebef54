// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the faults that a test can inject: each fault does exactly what its documentation says.

use mk_ipi_abi::{PhysAddr, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::platform::*;
use mk_ipi_core::sync::{AtomicU64, Ordering::Relaxed, Word};
use mk_ipi_mock::{Cause, Cpu, DoorbellFault, Doorbells, Fault, Machine, MockWord, Mode, Step, When};
use std::sync::{Arc, Mutex};

const V: Vector = Vector::RFC_V2;
const B: PhysCpuId = PhysCpuId(1);

fn doorbell(when: When, what: DoorbellFault) -> Fault {
    Fault::Doorbell { from: None, to: None, when, what }
}

/// Kernel 0 rings kernel 1 `rings` times. After each ring it waits for the interrupt, for at most 200 calls of `relax`. Returns
/// how many interrupts kernel 1 took, and the machine's counters of doorbells.
fn interrupts(seed: u64, rings: u64, fault: Fault) -> (u64, Doorbells) {
    let builder = Machine::builder().kernel(&[0]).kernel(&[1]).mode(Mode::Stepped { seed });
    let machine = builder.fault(fault).build();
    let taken = Arc::new(AtomicU64::new(0));
    let counter = taken.clone();
    machine.kernel(1).set_vector(V, move || {
        counter.fetch_add(1, Relaxed);
    });
    let report = machine.run(|cpu| {
        for _ in (0..rings).filter(|_| cpu.kernel() == 0) {
            let before = taken.load(Relaxed);
            cpu.platform().ring(B, V).unwrap();
            (0..200).take_while(|_| taken.load(Relaxed) == before).for_each(|_| cpu.relax());
        }
    });
    (taken.load(Relaxed), report.unwrap().doorbells)
}

#[test]
fn the_nth_doorbell_is_lost() {
    for seed in 0..50 {
        let (taken, doorbells) = interrupts(seed, 5, doorbell(When::Nth(3), DoorbellFault::Lost));
        assert_eq!((taken, doorbells.lost, doorbells.rung), (4, 1, 5));
    }
}

#[test]
fn some_doorbells_are_lost_as_the_seed_says() {
    let run = |seed| interrupts(seed, 100, doorbell(When::OneIn(4), DoorbellFault::Lost)).1;
    assert!((10..45).contains(&run(1).lost), "{:?}", run(1));
    assert_eq!(run(1), run(1));
    assert!((2..20).any(|seed| run(seed).lost != run(1).lost));
}

#[test]
fn a_fault_hits_only_the_cpus_it_names() {
    let from_b = Fault::Doorbell { from: Some(B), to: None, when: When::OneIn(1), what: DoorbellFault::Lost };
    assert_eq!(interrupts(0, 5, from_b).0, 5);
    let to_b = Fault::Doorbell { from: None, to: Some(B), when: When::OneIn(1), what: DoorbellFault::Lost };
    assert_eq!(interrupts(0, 5, to_b).0, 0);
}

#[test]
fn a_late_doorbell_arrives_when_due_or_when_nothing_else_runs() {
    for (busy, due) in [(1000, 300), (10, 5000)] {
        let machine = Machine::builder().kernel(&[0]).kernel(&[1]).build();
        machine.fault(doorbell(When::Nth(1), DoorbellFault::Late(due)));
        let steps = Arc::new(AtomicU64::new(0));
        let (clock, at) = (steps.clone(), Arc::new(AtomicU64::new(u64::MAX)));
        let taken = at.clone();
        machine.kernel(1).set_vector(V, move || taken.store(clock.load(Relaxed), Relaxed));
        let run = machine.run(|cpu| {
            if cpu.kernel() == 0 {
                cpu.platform().ring(B, V).unwrap();
                for _ in 0..busy {
                    cpu.relax();
                    steps.fetch_add(1, Relaxed);
                }
            }
        });
        run.unwrap();
        let at = at.load(Relaxed);
        assert!((due.min(busy) - 1..=due.min(busy)).contains(&at), "taken after {at} of {due} steps");
    }
}

#[test]
fn a_doubled_doorbell_comes_again_after_its_handler() {
    for seed in 0..50 {
        let (taken, doorbells) = interrupts(seed, 3, doorbell(When::Nth(2), DoorbellFault::Doubled));
        assert_eq!((taken, doorbells.taken, doorbells.rung), (4, 4, 3));
    }
}

#[test]
fn a_word_is_scribbled_on_at_the_step_named() {
    let machine = Machine::builder().kernel(&[0]).build();
    let page = machine.reserve(4096);
    let word = PhysRange::new(page.start(), 8).unwrap();
    machine.fault(Fault::Scribble { when: When::Nth(10), range: word, value: Some(7) });
    let seen = Mutex::new(Vec::new());
    machine.run(|_| (0..20).for_each(|_| seen.lock().unwrap().push(machine.peek(page.start())))).unwrap();
    let changed = seen.lock().unwrap().iter().position(|&value| value == 7);
    assert_eq!((changed, seen.lock().unwrap().last()), (Some(9), Some(&7)));
}

#[test]
fn memory_is_scribbled_on_at_random_within_the_range_only() {
    let machine = Machine::builder().kernel(&[0]).build();
    let page = machine.reserve(4096);
    let half = PhysRange::new(page.start(), 2048).unwrap();
    machine.fault(Fault::Scribble { when: When::OneIn(2), range: half, value: None });
    machine.run(|cpu| (0..1000).for_each(|_| cpu.relax())).unwrap();
    let changed = |first: u64| {
        let words = (first..first + 256).map(|i| machine.peek(PhysAddr(page.start().0 + i * 8)));
        words.filter(|&value| value != 0).count()
    };
    assert!(changed(0) > 150);
    assert_eq!(changed(256), 0);
}

/// Stores 1, 2, 3... to words 1, 2, 3... When it is dropped, it stores 99 to word 0.
struct Writer<'a>(&'a [MockWord]);

impl Writer<'_> {
    fn write(&self) {
        self.0.iter().zip(0..=20).skip(1).for_each(|(word, n)| word.store(n, Relaxed));
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.0[0].store(99, Relaxed);
    }
}

#[test]
fn a_kernel_stops_between_any_two_stores_and_nothing_later_has_an_effect() {
    for access in 1..=25 {
        let stop = Fault::Stop { kernel: 1, access };
        let machine = Machine::builder().kernel(&[0]).kernel(&[1, 2]).fault(stop).build();
        let page = machine.reserve(4096);
        let run = machine.run(|cpu| match (cpu.kernel(), cpu.index()) {
            (0, _) => (0..100).for_each(|_| cpu.relax()),
            (_, 0) => {
                let mapping = cpu.platform().map(page, Access::ReadWrite).unwrap();
                Writer(mapping.words()).write();
            }
            // The second CPU must stop too. If it did not, this loop would never end.
            _ if access <= 21 => loop {
                cpu.relax();
            },
            _ => (),
        });
        run.unwrap();
        let word = |i: u64| machine.peek(PhysAddr(page.start().0 + 8 * i));
        let stored = (1..=20).take_while(|&i| word(i) == i).count() as u64;
        assert_eq!(stored, (access - 1).min(20));
        assert!((stored + 1..=20).all(|i| word(i) == 0));
        assert_eq!(
            word(0),
            if access > 21 { 99 } else { 0 },
            "`drop` stores only if the kernel was not stopped before"
        );
    }
}

#[test]
fn a_ring_is_an_access_at_which_a_kernel_can_stop() {
    for (access, rung) in [(2, 0), (3, 1)] {
        let machine = Machine::builder().kernel(&[0]).kernel(&[1]).build();
        machine.fault(Fault::Stop { kernel: 0, access });
        let word = MockWord::new(0);
        machine.kernel(1).set_vector(V, || ());
        let run = machine.run(|cpu| {
            if cpu.kernel() == 0 {
                word.store(1, Relaxed);
                cpu.platform().ring(B, V).unwrap();
                word.store(2, Relaxed);
            }
        });
        assert_eq!((run.unwrap().doorbells.rung, word.load(Relaxed)), (rung, 1));
    }
}

#[test]
fn a_stopped_kernel_takes_no_interrupts_and_can_be_started_again() {
    for seed in 0..100 {
        let builder = Machine::builder().kernel(&[0]).kernel(&[1, 2]).mode(Mode::Stepped { seed });
        let machine = builder.build();
        let (lives, taken) = (AtomicU64::new(0), Arc::new(AtomicU64::new(0)));
        let run = machine.run(|cpu| match cpu.kernel() {
            0 => {
                while lives.load(Relaxed) < 2 {
                    cpu.relax();
                }
                machine.stop_kernel(1);
                cpu.platform().ring(B, V).unwrap();
                cpu.relax();
                machine.restart_kernel(1);
                while taken.load(Relaxed) == 0 {
                    cpu.relax();
                    cpu.platform().ring(B, V).unwrap();
                }
            }
            _ => second_kernel(cpu, &lives, &taken),
        });
        run.unwrap();
        assert_eq!(lives.load(Relaxed), 4);
    }
}

fn second_kernel(cpu: &Cpu, lives: &AtomicU64, taken: &Arc<AtomicU64>) {
    lives.fetch_add(1, Relaxed);
    if cpu.incarnation() == 0 {
        return cpu.idle();
    }
    assert!(!cpu.interrupts_enabled(), "a CPU of a kernel that was started again begins with interrupts off");
    let counter = taken.clone();
    cpu.platform().set_vector(V, move || {
        counter.fetch_add(1, Relaxed);
    });
}

#[test]
fn what_was_pending_when_a_kernel_stopped_is_gone_when_it_starts_again() {
    let machine = Machine::builder().kernel(&[1]).build();
    let kernel = machine.kernel(0);
    kernel.ring(B, V).unwrap();
    kernel.schedule();
    machine.stop_kernel(0);
    machine.restart_kernel(0);
    // If an interrupt were still pending, it would have no handler now, and the run would fail.
    assert_eq!(machine.run(|cpu| cpu.enable_interrupts()).unwrap().doorbells.taken, 0);
}

#[test]
fn a_stop_is_part_of_what_a_seed_decides() {
    let run = |seed| {
        let stop = Fault::Stop { kernel: 1, access: 7 };
        let mode = Mode::Stepped { seed };
        let machine = Machine::builder().kernel(&[0]).kernel(&[1]).mode(mode).fault(stop).build();
        let word = MockWord::new(0);
        let report = machine.run(|_| (0..20).for_each(|n| word.store(n, Relaxed)));
        report.unwrap()
    };
    assert_eq!((0..20).map(run).collect::<Vec<_>>(), (0..20).map(run).collect::<Vec<_>>());
}

#[test]
fn a_kernel_that_waits_for_a_stopped_one_is_a_deadlock() {
    let stop = Fault::Stop { kernel: 0, access: 1 };
    let machine = Machine::builder().kernel(&[0]).kernel(&[1]).fault(stop).build();
    let failure = machine.run(|cpu| match cpu.kernel() {
        0 => cpu.platform().ring(B, V).unwrap(),
        _ => cpu.idle(),
    });
    let failure = failure.unwrap_err();
    assert_eq!(failure.cause, Cause::Deadlock(vec![B]));
    assert!(failure.tail.iter().any(|event| event.what == Step::Ring(B, V)), "{failure}");
}
