// SPDX-License-Identifier: MIT OR Apache-2.0
//! The native link among peers that break the protocol, begin anew at bad times, or wait (SPEC N-9 to N-14).
#![expect(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use mk_ipi_abi::native::{cell, control, header, receiver, Breach, Geometry, Hello};
use mk_ipi_abi::{Incarnation, InstanceId, MessageType, PhysAddr, PhysRange};
use mk_ipi_core::platform::PeerEvent;
use mk_ipi_core::{Occupied, SendError};
use mk_ipi_mock::{Callback, Link, Machine};
use std::sync::{Arc, Mutex};

const TYPE: MessageType = MessageType(7);
const CELLS: u32 = 4;
const SECOND: Incarnation = Incarnation::new(2).unwrap();

fn id(kernel: usize) -> InstanceId {
    InstanceId::new(kernel as u8)
}

/// Senders and numbers.
type Seen = Arc<Mutex<Vec<(usize, u8)>>>;

/// A machine whose kernels boot one by one. Messages are one byte; what a kernel got is in `seen`.
struct World {
    machine: Machine,
    geometry: Geometry,
    regions: Vec<PhysRange>,
    links: Vec<Option<Arc<Link>>>,
    seen: Vec<Seen>,
}

impl World {
    fn new(kernels: usize) -> Self {
        let machine = (0..kernels).fold(Machine::builder(), |b, k| b.kernel(&[k as u64 * 3])).build();
        let geometry = Geometry::new(kernels as u32, CELLS).unwrap();
        let regions = (0..kernels).map(|_| machine.native_region(geometry)).collect();
        let seen = (0..kernels).map(|_| Arc::default()).collect();
        Self { machine, geometry, regions, links: (0..kernels).map(|_| None).collect(), seen }
    }

    fn booted(kernels: usize) -> Self {
        let mut world = Self::new(kernels);
        (0..kernels).for_each(|k| world.boot(k, Incarnation::FIRST));
        world.settle();
        (0..kernels).for_each(|k| drop(world.events(k)));
        world
    }

    /// Boots kernel `k`, again if it ran before.
    fn boot(&mut self, k: usize, life: Incarnation) {
        let link = self.machine.kernel(k).boot(id(k), life);
        let seen = self.seen[k].clone();
        let note = move |m: &mk_ipi_core::Message| {
            seen.lock().unwrap().push((m.sender().unwrap().index(), m.payload()[0]));
        };
        let _ = link.register(TYPE, Callback::new(note)).unwrap();
        for (other, region) in self.regions.iter().enumerate() {
            let kernel = self.machine.kernel(other);
            let config = kernel.native_config(id(other), Incarnation::FIRST);
            link.attach_instance(&config, Some(*region)).unwrap();
        }
        self.links[k] = Some(link);
    }

    fn link(&self, k: usize) -> &Link {
        self.links[k].as_ref().unwrap()
    }

    /// Every CPU takes its interrupts and runs its deferred work until there is none.
    fn settle(&self) {
        self.machine.run(|_| ()).unwrap();
    }

    fn send(&self, from: usize, to: usize, n: u8) -> Result<(), SendError> {
        self.link(from).send(id(to), TYPE, &[n])
    }

    fn seen(&self, k: usize) -> Vec<(usize, u8)> {
        std::mem::take(&mut *self.seen[k].lock().unwrap())
    }

    fn events(&self, k: usize) -> Vec<(InstanceId, PeerEvent)> {
        self.machine.kernel(k).peer_events()
    }

    /// Where word `word` of the lane of `from` in the region of `to` lies.
    fn lane(&self, from: usize, to: usize, word: usize) -> PhysAddr {
        let at = self.geometry.lane_at(from as u32).unwrap() + 8 * word as u64;
        PhysAddr(self.regions[to].start().0 + at)
    }

    /// Where BASE of that lane lies.
    fn base(&self, from: usize, to: usize) -> PhysAddr {
        let word = receiver::CONTROL + from * receiver::CONTROL_WORDS + control::BASE;
        PhysAddr(self.regions[to].start().0 + 8 * word as u64)
    }

    fn head(&self, from: usize, to: usize, cell: usize) -> PhysAddr {
        self.lane(from, to, header::WORDS + cell * cell::WORDS + cell::HEAD)
    }
}

#[test]
fn an_instance_whose_cells_held_nonsense_speaks_again_in_its_next_life() {
    for found in [2, 3, 4, 5, 0x7000_0000] {
        let mut world = World::booted(2);
        (0..CELLS as usize).for_each(|cell| world.machine.poke(world.head(0, 1, cell), found));
        world.link(1).poll().unwrap();
        world.settle();
        assert!(world.events(1).contains(&(id(0), PeerEvent::Quarantined(Breach::Lap))), "{found:#x}");
        world.boot(0, SECOND);
        world.settle();
        assert_eq!(world.seen(1), [], "nothing that a lane in quarantine holds is believed, {found:#x}");
        for n in 0..20 {
            assert_eq!(world.send(0, 1, n), Ok(()), "{found:#x}, message {n}");
            world.settle();
            assert_eq!(world.seen(1), [(0, n)]);
        }
    }
}

#[test]
fn an_instance_that_wiped_its_hello_speaks_again_in_its_next_life() {
    let mut world = World::booted(2);
    world.machine.poke(world.lane(0, 1, header::HELLO), 0);
    world.link(1).poll().unwrap();
    world.settle();
    assert_eq!(world.events(1), [(id(0), PeerEvent::Quarantined(Breach::Hello))]);
    world.boot(0, SECOND);
    world.settle();
    assert_eq!(world.send(0, 1, 5), Ok(()));
    world.settle();
    assert_eq!(world.seen(1), [(0, 5)]);
}

#[test]
fn a_sender_that_filled_its_lane_before_the_receiver_was_up_is_told_of_space() {
    let mut world = World::new(2);
    world.boot(0, Incarnation::FIRST);
    (0..CELLS as u8).for_each(|n| world.send(0, 1, n).unwrap());
    assert_eq!(world.send(0, 1, 9), Err(SendError::Full));
    assert_eq!(world.link(0).want_space(id(1)), Ok(false));
    world.boot(1, Incarnation::FIRST);
    world.settle();
    assert_eq!(world.seen(1), [(0, 0), (0, 1), (0, 2), (0, 3)]);
    assert!(world.events(0).contains(&(id(1), PeerEvent::Space)));
}

#[test]
fn a_sender_that_waits_for_space_is_told_of_it_by_the_receivers_next_life() {
    let mut world = World::booted(2);
    let _unheard = world.machine.kernel(1);
    (0..CELLS as u8).for_each(|n| world.send(0, 1, n).unwrap());
    assert_eq!(world.link(0).want_space(id(1)), Ok(false));
    world.boot(1, SECOND);
    world.settle();
    assert_eq!(world.seen(1), [], "they are lost");
    assert!(world.events(0).contains(&(id(1), PeerEvent::Space)));
}

#[test]
fn space_that_another_cpu_took_is_waited_for_again() {
    let world = World::booted(2);
    for n in 0..5 {
        (0..CELLS as u8).for_each(|n| world.send(0, 1, n).unwrap());
        assert_eq!(world.link(0).want_space(id(1)), Ok(false));
        // The receiver rings, and before we hear it, another sends.
        while world.link(1).run_deferred().more {}
        assert_eq!(world.seen(1).len(), CELLS as usize);
        (0..CELLS as u8).for_each(|n| world.send(0, 1, n).unwrap());
        world.settle();
        assert_eq!(world.seen(1).len(), CELLS as usize);
        assert!(world.events(0).contains(&(id(1), PeerEvent::Space)), "round {n}");
    }
}

#[test]
fn a_lane_that_is_full_behind_a_gap_neither_rings_without_end_nor_forgets_who_waits() {
    let world = World::booted(2);
    (0..CELLS as u8).for_each(|n| world.send(0, 1, n).unwrap());
    // As if the CPU that took the first position were stopped before it published.
    let first = world.head(0, 1, 0);
    let head = world.machine.peek(first);
    world.machine.poke(first, 0);
    assert_eq!(world.link(0).want_space(id(1)), Ok(false));
    world.settle();
    assert_eq!((world.seen(1), world.events(0)), (vec![], vec![]));
    world.machine.poke(first, head);
    world.link(1).poll().unwrap();
    world.settle();
    assert_eq!(world.seen(1).len(), CELLS as usize);
    assert_eq!(world.events(0), [(id(1), PeerEvent::Space)]);
}

#[test]
fn a_kernel_whose_own_region_has_slots_is_told_of_space() {
    let world = World::booted(2);
    let (kernel, link) = (world.machine.kernel(0), world.link(0));
    link.destroy_instance(id(0)).unwrap();
    let slots = world.machine.reserve(4096);
    link.attach_instance(&kernel.config(id(0), SECOND, Occupied::Exclusive), Some(slots)).unwrap();
    (0..CELLS as u8).for_each(|n| world.send(0, 1, n).unwrap());
    assert_eq!(link.want_space(id(1)), Ok(false));
    world.settle();
    assert_eq!(world.events(0), [(id(1), PeerEvent::Space)]);
}

#[test]
fn a_clock_that_is_behind_on_another_cpu_makes_nobody_suspect() {
    let world = World::booted(2);
    world.link(1).tick(0, 10);
    world.link(0).tick(1_000, 10);
    world.link(0).tick(999, 10);
    assert!(!world.events(0).contains(&(id(1), PeerEvent::Suspect)));
    world.link(0).tick(1_011, 10);
    assert_eq!(world.events(0).last(), Some(&(id(1), PeerEvent::Suspect)));
}

#[test]
fn a_message_whose_hint_another_peer_wiped_is_found_at_the_next_tick() {
    let world = World::booted(3);
    let hints = PhysAddr(world.regions[2].start().0 + world.geometry.hint_at());
    // The receiver is awake when the message comes, so that nobody rings, and the hint goes before it looks.
    world.machine.poke(PhysAddr(world.regions[2].start().0 + 8 * receiver::ARMED as u64), 0);
    world.send(1, 2, 7).unwrap();
    world.machine.poke(hints, 0);
    world.link(2).run_deferred();
    world.link(2).tick(0, 10);
    world.settle();
    assert_eq!(world.seen(2), [(1, 7)]);
}

#[test]
fn a_peer_that_says_hello_without_end_is_answered_within_bounds() {
    let world = World::booted(2);
    let hello = world.lane(0, 1, header::HELLO);
    // Another hello each time that the receiver looks: a CPU of the peer writes between its steps.
    let machine = &world.machine;
    let report = machine.run(|cpu| {
        if cpu.kernel() == 0 {
            (0..3_000u64).for_each(|n| machine.poke(hello, 1 << 49 | (n & 0xffff) << 32 | 2));
        } else {
            world.link(1).poll().unwrap();
        }
    });
    report.unwrap();
}

#[test]
fn what_lay_in_a_lane_before_its_first_life_is_nobodys_message() {
    let mut world = World::new(2);
    (0..CELLS as usize).for_each(|cell| world.machine.poke(world.head(0, 1, cell), 1 + cell as u64));
    (0..2).for_each(|k| world.boot(k, Incarnation::FIRST));
    world.settle();
    assert_eq!((world.seen(1), world.send(0, 1, 5)), (vec![], Ok(())));
    world.settle();
    assert_eq!(world.seen(1), [(0, 5)]);
}

#[test]
fn a_hello_that_was_answered_before_it_was_said_is_not_said() {
    let mut world = World::booted(2);
    let hello = |session| Hello { incarnation: SECOND, session, first: false }.to_word();
    // A life that knew what the next one would say had it answered, and sent.
    world.machine.poke(world.lane(0, 1, header::HELLO), hello(8));
    world.link(1).poll().unwrap();
    world.settle();
    world.machine.poke(world.lane(0, 1, header::CLEAN), hello(8));
    let lap = world.machine.peek(world.base(0, 1)) / u64::from(CELLS) + 1;
    world.machine.poke(world.head(0, 1, 0), lap);
    world.machine.poke(world.lane(0, 1, header::HELLO), hello(7));
    world.boot(0, SECOND);
    world.settle();
    assert_eq!(world.send(0, 1, 5), Ok(()));
    world.settle();
    assert_eq!(world.seen(1).last(), Some(&(0, 5)));
}

#[test]
fn a_life_is_not_told_of_what_its_predecessors_lost() {
    let mut world = World::booted(2);
    world.send(0, 1, 1).unwrap();
    world.boot(1, SECOND);
    world.settle();
    // Nobody was told, and the next life knows nothing of it.
    world.boot(0, SECOND);
    world.settle();
    world.send(0, 1, 2).unwrap();
    world.settle();
    assert_eq!(world.seen(1), [(0, 2)]);
    world.send(0, 1, 3).unwrap();
    world.boot(1, SECOND.next());
    world.events(0);
    world.link(0).tick(0, 10);
    assert!(world.events(0).contains(&(id(1), PeerEvent::Lost { first: 1, count: 1 })));
}

#[test]
fn a_life_is_told_of_what_it_lost_whatever_its_predecessor_said_to_have_seen() {
    let mut world = World::booted(2);
    world.machine.poke(world.lane(0, 1, header::SEEN), u64::MAX);
    world.boot(0, SECOND);
    world.settle();
    world.send(0, 1, 3).unwrap();
    world.boot(1, SECOND);
    world.link(0).tick(0, 10);
    assert!(world.events(0).contains(&(id(1), PeerEvent::Lost { first: 0, count: 1 })));
}

#[test]
fn an_instance_that_wiped_its_hello_after_an_unanswered_life_speaks_again() {
    let mut world = World::new(2);
    world.boot(1, Incarnation::FIRST);
    // A life that nobody greeted, then the receiver's next one, which skips what the last may have read.
    world.link(1).destroy_instance(id(0)).unwrap();
    let hello = Hello { incarnation: SECOND, session: 1, first: false };
    world.machine.poke(world.lane(0, 1, header::HELLO), hello.to_word());
    world.boot(1, SECOND);
    world.machine.poke(world.lane(0, 1, header::HELLO), 0);
    world.boot(0, SECOND);
    world.settle();
    assert_eq!(world.send(0, 1, 5), Ok(()));
    world.settle();
    assert_eq!(world.seen(1), [(0, 5)]);
}
