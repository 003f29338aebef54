// SPDX-License-Identifier: MIT OR Apache-2.0
//! The native link between kernels of the mock machine: no message is lost, and each lane keeps the order (SPEC chapter N).

use crate::odd::Odd;
use mk_ipi_abi::native::Geometry;
use mk_ipi_abi::{Incarnation, InstanceId, MessageType};
use mk_ipi_core::sync::{AtomicU64, Ordering::Relaxed};
use mk_ipi_core::{Endpoint, Message, SendError, UnregisterError};
use mk_ipi_mock::{Callback, Cpu, Link, Machine, Mode};
use std::sync::{Arc, Mutex};

const TYPE: MessageType = MessageType(7);

fn id(kernel: usize) -> InstanceId {
    InstanceId::new(u8::try_from(kernel).unwrap())
}

/// Returns the payload of message number `n` of a stream: 16 to `longest` bytes. Each CPU of a kernel sends one stream to each
/// other kernel.
fn bytes(stream: u64, n: u64, longest: usize) -> Vec<u8> {
    let mut bytes = vec![stream as u8; 16 + (n as usize * 61) % (longest - 15)];
    bytes[..8].copy_from_slice(&n.to_le_bytes());
    bytes[8..16].copy_from_slice(&stream.to_le_bytes());
    bytes
}

/// The numbers of the messages that a kernel got, in order: a list for each sender and stream.
type Seen = Arc<Mutex<Vec<Vec<Vec<u64>>>>>;

/// Registers a handler at `link` that notes each message. It checks the message's bytes, and that the message numbers of a lane
/// grow.
fn listen(link: &Link, streams: usize, longest: usize) -> Seen {
    let seen = Seen::new(Mutex::new(vec![vec![vec![]; streams]; 3]));
    let (writer, last) = (seen.clone(), Mutex::new([0; 3]));
    let note = Callback::new(move |m: &Message<'_>| {
        let [n, stream] = [0, 8].map(|at| u64::from_le_bytes(m.payload()[at..at + 8].try_into().unwrap()));
        assert_eq!(m.payload(), bytes(stream, n, longest), "a message has wrong bytes");
        let from = m.sender().unwrap().index();
        let number = m.number().unwrap();
        let before = std::mem::replace(&mut last.lock().unwrap()[from], number);
        assert!(number > before, "message number {number} came after {before}");
        writer.lock().unwrap()[from][stream as usize].push(n);
    });
    let _ = link.register(TYPE, note).unwrap();
    seen
}

/// Returns how many messages came.
fn count(seen: &Seen) -> usize {
    seen.lock().unwrap().iter().flatten().map(Vec::len).sum()
}

/// Checks that each kernel got every message of each stream of the other kernels, once and in order.
fn check(seen: &[Seen], streams: usize, messages: u64, what: &str) {
    for (me, seen) in seen.iter().enumerate() {
        for (from, of) in seen.lock().unwrap().iter().enumerate().filter(|(from, _)| *from != me) {
            for (stream, numbers) in of.iter().enumerate().take(streams) {
                assert_eq!(*numbers, (0..messages).collect::<Vec<_>>(), "{from}, {stream} to {me}: {what}");
            }
        }
    }
}

/// Three kernels with `cpus` CPUs each. Every CPU sends to every other kernel.
fn all_to_all(mode: Mode, cpus: u64, geometry: Geometry, messages: u64) {
    let ids = |kernel: u64| Vec::from_iter((0..cpus).map(|cpu| 10 * kernel + 4 * cpu));
    let machine = (0..3).fold(Machine::builder(), |b, k| b.kernel(&ids(k))).mode(mode).memory(512).build();
    let longest = geometry.max_len() as usize;
    let links: [_; 3] = machine.link_native(geometry);
    let seen = links.each_ref().map(|link| listen(link, cpus as usize, longest));
    let run = machine.run(|cpu| {
        let me = cpu.kernel();
        for n in 0..messages {
            let payload = bytes(cpu.index() as u64, n, longest);
            for to in (0..3).filter(|to| *to != me) {
                while let Err(e) = links[me].send(id(to), TYPE, &payload) {
                    assert!(matches!(e, SendError::Full | SendError::Contended), "{e:?}");
                    cpu.relax();
                }
            }
        }
        while count(&seen[me]) < (2 * cpus * messages) as usize {
            cpu.relax();
        }
    });
    run.unwrap();
    check(&seen, cpus as usize, messages, &format!("{mode:?}"));
}

const fn geometry(lines: u32, max_len: u32) -> Geometry {
    Geometry::new(3, lines, max_len).unwrap()
}

#[test]
fn everything_arrives_once_and_in_order_under_every_seed() {
    for seed in 0..60 {
        all_to_all(Mode::Stepped { seed }, 1, geometry(8, 256), 40);
    }
}

#[test]
fn everything_arrives_once_and_in_order_on_threads() {
    all_to_all(Mode::Free, 1, geometry(32, 256), 10_000);
}

#[test]
fn cpus_of_one_kernel_share_its_lane() {
    for seed in 0..20 {
        all_to_all(Mode::Stepped { seed }, 2, geometry(8, 256), 20);
    }
    all_to_all(Mode::Free, 3, geometry(16, 256), 3_000);
}

#[test]
fn the_longest_messages_arrive_once_and_in_order() {
    for seed in 0..10 {
        all_to_all(Mode::Stepped { seed }, 1, geometry(128, 4096), 12);
    }
    all_to_all(Mode::Free, 1, geometry(128, 4096), 1_000);
}

/// The same as [`all_to_all`] with one CPU in each kernel. The CPU sends several messages in one call, and polls its lanes part
/// of the time.
fn pollers(mode: Mode, messages: u64) {
    let machine = [0, 4, 9].iter().fold(Machine::builder(), |b, cpu| b.kernel(&[*cpu])).mode(mode).build();
    let links: [_; 3] = machine.link_native(geometry(32, 256));
    let seen = links.each_ref().map(|link| listen(link, 1, 256));
    let batch = |cpu: &Cpu, to: usize, next: &mut u64| {
        let count = (1 + cpu.random() % 7).min(messages - *next);
        let all: Vec<_> = (*next..*next + count).map(|n| bytes(0, n, 256)).collect();
        let all: Vec<_> = all.iter().map(Vec::as_slice).collect();
        let link = &links[cpu.kernel()];
        let sent = match cpu.random() % 3 {
            0 => link.send_many(id(to), TYPE, &all),
            1 => link.post_many(id(to), TYPE, &all),
            // A flush is not needed here: a receiver that polls needs no doorbell, and otherwise the deferred work flushes.
            _ => link.post(id(to), TYPE, all[0]).map(|_| 1),
        };
        match sent {
            Ok(sent) => *next += sent as u64,
            Err(e) => assert_eq!(e, SendError::Full),
        }
    };
    let run = machine.run(|cpu| {
        let me = cpu.kernel();
        let mut next = [0; 3];
        next[me] = messages;
        while next != [messages; 3] || count(&seen[me]) < 2 * messages as usize {
            // In half of the rounds a poller reads the lanes. In the other rounds the deferred work reads them.
            let mut poller = if cpu.random() % 2 == 0 { links[me].poller() } else { None };
            for _ in 0..cpu.random() % 40 {
                let to = cpu.random() as usize % 3;
                if next[to] < messages {
                    batch(cpu, to, &mut next[to]);
                }
                match &mut poller {
                    Some(poller) => _ = poller.wait(3),
                    None => cpu.relax(),
                }
            }
            drop(poller);
            cpu.relax();
        }
        // Flushes the messages that were posted last.
        (0..3).filter(|to| *to != me).for_each(|to| links[me].flush(id(to)).unwrap());
    });
    run.unwrap();
    check(&seen, 1, messages, &format!("{mode:?}"));
}

#[test]
fn pollers_and_batches_lose_nothing_under_every_seed() {
    (0..60).for_each(|seed| pollers(Mode::Stepped { seed }, 30));
}

#[test]
fn pollers_and_batches_lose_nothing_on_threads() {
    pollers(Mode::Free, 10_000);
}

/// CPU 0 polls while CPU 1 unregisters the handler. `unregister` must wait until the poller does not use the handler any more.
/// Returns true if CPU 1 had to wait.
fn unregistered_under_a_poller(seed: u64) -> bool {
    let machine = Machine::builder().kernel(&[0, 1]).mode(Mode::Stepped { seed }).build();
    let [link] = machine.link_native::<1>(Geometry::new(1, 8, 256).unwrap());
    // 1: the state that the handler uses exists. 2: it is gone, because `unregister` has returned.
    let state = Arc::new(AtomicU64::new(1));
    let inner = state.clone();
    let callback = Callback::new(move |_: &Message<'_>| {
        assert_eq!(inner.load(Relaxed), 1, "the handler runs, but `unregister` has returned")
    });
    let handle = link.register(TYPE, callback).unwrap();
    let (polls, waited) = (AtomicU64::new(0), AtomicU64::new(0));
    let run = machine.run(|cpu| {
        if cpu.index() == 0 {
            let mut poller = link.poller().unwrap();
            while state.load(Relaxed) == 1 {
                let _full = link.send(id(0), TYPE, &[1]);
                poller.poll();
                polls.fetch_add(1, Relaxed);
                cpu.relax();
            }
            // No more messages come. The next poll gives up the handler that the poller called last.
            poller.poll();
            assert_eq!(
                link.unregister(handle),
                Err(UnregisterError::InCallback),
                "`unregister` is refused on the CPU that has a poller"
            );
            drop(poller);
            assert_eq!(link.unregister(handle), Err(UnregisterError::Stale));
        } else {
            (0..cpu.random() % 80).for_each(|_| cpu.relax());
            let before = polls.load(Relaxed);
            link.unregister(handle).unwrap();
            state.store(2, Relaxed);
            waited.store(polls.load(Relaxed) - before, Relaxed);
        }
    });
    run.unwrap();
    waited.load(Relaxed) != 0
}

#[test]
fn unregister_waits_for_a_poller_and_not_for_ever_under_every_seed() {
    let waited = (0..200).filter(|&seed| unregistered_under_a_poller(seed)).count();
    assert!(waited > 20, "`unregister` had to wait with only {waited} seeds");
}

#[test]
fn a_poller_that_hears_nothing_lets_a_handler_go() {
    for seed in 0..50 {
        let machine = Machine::builder().kernel(&[0, 1]).mode(Mode::Stepped { seed }).build();
        let [link] = machine.link_native::<1>(Geometry::new(1, 8, 256).unwrap());
        let state = Arc::new(AtomicU64::new(0));
        let came = state.clone();
        let handler = Callback::new(move |_: &Message<'_>| came.store(1, Relaxed));
        let handle = link.register(TYPE, handler).unwrap();
        link.send(id(0), TYPE, &[1]).unwrap();
        let run = machine.run(|cpu| {
            if cpu.index() == 0 {
                let mut poller = link.poller().unwrap();
                while state.load(Relaxed) == 0 {
                    poller.poll();
                }
                while state.load(Relaxed) != 2 {
                    poller.poll();
                    cpu.relax();
                }
            } else {
                while state.load(Relaxed) != 1 {
                    cpu.relax();
                }
                link.unregister(handle).unwrap();
                state.store(2, Relaxed);
            }
        });
        run.unwrap();
    }
}

/// Sends a message, and returns how often the platform's `compare_exchange_alone` was called.
fn times_alone<const CPUS: usize>() -> u64 {
    let machine = Machine::builder().kernel(&[0]).build();
    let (kernel, region) = (machine.kernel(0), machine.native_region(Geometry::new(1, 8, 256).unwrap()));
    let link = Endpoint::<Odd, Callback, CPUS>::new(Odd::new(machine.kernel(0)));
    link.identify(id(0), Incarnation::FIRST);
    link.attach_instance(&kernel.native_config(id(0), Incarnation::FIRST), Some(region)).unwrap();
    link.send(id(0), TYPE, &[1]).unwrap();
    link.platform().times_alone()
}

#[test]
fn only_a_kernel_of_one_cpu_takes_lines_without_a_locked_instruction() {
    assert_eq!((times_alone::<1>(), times_alone::<2>()), (1, 0));
}
