// SPDX-License-Identifier: MIT OR Apache-2.0
//! The native link with peers that break the protocol, that begin a new life at an unusual moment, or that wait for space (SPEC
//! N-9 to N-14).

use mk_ipi_abi::native::{control, header, receiver, Breach, Geometry, Hello, LineTag, Phase, LINE_WORDS};
use mk_ipi_abi::{Incarnation, InstanceId, MessageType, PhysAddr, PhysCpuId, PhysRange};
use mk_ipi_core::platform::PeerEvent;
use mk_ipi_core::sync::{AtomicBool, Ordering};
use mk_ipi_core::{Message, SendError, SlotPolicy};
use mk_ipi_mock::{Callback, Link, Machine};
use std::sync::{Arc, Mutex};

const TYPE: MessageType = MessageType(7);
const LINES: u32 = 8;
const SECOND: Incarnation = Incarnation::new(2).unwrap();

fn id(kernel: usize) -> InstanceId {
    InstanceId::new(kernel as u8)
}

/// The sender and the byte of each message that a kernel got.
type Seen = Arc<Mutex<Vec<(usize, u8)>>>;

/// A machine whose kernels are booted one after another. Each message has one byte. `seen` has the messages that each kernel got.
struct World {
    machine: Arc<Machine>,
    geometry: Geometry,
    regions: Vec<PhysRange>,
    links: Vec<Option<Arc<Link>>>,
    seen: Vec<Seen>,
}

impl World {
    fn new(kernels: usize) -> Self {
        let machine = (0..kernels).fold(Machine::builder(), |b, k| b.kernel(&[k as u64 * 3])).build();
        let machine = Arc::new(machine);
        let geometry = Geometry::new(kernels as u32, LINES, 256).unwrap();
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

    /// Boots kernel `k` in this incarnation. It can have booted before.
    fn boot(&mut self, k: usize, life: Incarnation) {
        let link = self.machine.kernel(k).boot(id(k), life);
        let seen = self.seen[k].clone();
        let note = move |m: &Message<'_>| {
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

    /// Runs the machine until no interrupt and no deferred work is pending.
    fn settle(&self) {
        self.machine.run(|_| ()).unwrap();
    }

    fn send(&self, from: usize, to: usize, n: u8) -> Result<u64, SendError> {
        self.link(from).send(id(to), TYPE, &[n])
    }

    /// Fills the lane of kernel `from` to kernel `to`. Returns the messages in the form in which `seen` of the receiver will have
    /// them.
    fn fill(&self, from: usize, to: usize) -> Vec<(usize, u8)> {
        (0..LINES as u8).for_each(|n| _ = self.send(from, to, n).unwrap());
        (0..LINES as u8).map(|n| (from, n)).collect()
    }

    fn seen(&self, k: usize) -> Vec<(usize, u8)> {
        std::mem::take(&mut *self.seen[k].lock().unwrap())
    }

    fn events(&self, k: usize) -> Vec<(InstanceId, PeerEvent)> {
        self.machine.kernel(k).peer_events()
    }

    /// The address of word `word` of the lane of `from` in the region of `to`.
    fn lane(&self, from: usize, to: usize, word: usize) -> PhysAddr {
        let at = self.geometry.lane_at(from as u32).unwrap() + 8 * word as u64;
        PhysAddr(self.regions[to].start().0 + at)
    }

    /// The address of word `word` of the control line for the lane of `from` in the region of `to`.
    fn control(&self, from: usize, to: usize, word: usize) -> PhysAddr {
        let word = receiver::CONTROL + from * receiver::CONTROL_WORDS + word;
        PhysAddr(self.regions[to].start().0 + 8 * word as u64)
    }

    /// The address of the first word of line `line` in the lane of `from` in the region of `to`.
    fn tag(&self, from: usize, to: usize, line: usize) -> PhysAddr {
        self.lane(from, to, header::WORDS + line * LINE_WORDS)
    }

    /// Makes kernel `k` poll, and runs the machine until nothing is pending.
    fn look(&self, k: usize) {
        self.link(k).poll().unwrap();
        self.settle();
    }
}

/// Returns a HELLO word of the second incarnation.
fn hello(session: u16, phase: Phase) -> u64 {
    Hello { incarnation: SECOND, session, phase }.to_word()
}

#[test]
fn an_instance_whose_lines_held_nonsense_speaks_again_in_its_next_life() {
    let nonsense = [
        LineTag::first(1),
        LineTag::first(2),
        LineTag::first((1 << 29) - 1),
        LineTag::further(0),
        LineTag::further(1),
    ];
    for LineTag(found) in nonsense {
        let mut world = World::booted(2);
        (0..LINES as usize).for_each(|line| world.machine.poke(world.tag(0, 1, line), found.into()));
        world.look(1);
        assert_eq!(world.events(1), [(id(0), PeerEvent::Quarantined(Breach::Tag))], "{found:#x}");
        world.boot(0, SECOND);
        world.settle();
        assert_eq!(world.seen(1), [], "a lane in quarantine delivers no message, {found:#x}");
        for n in 0..20 {
            assert!(world.send(0, 1, n).is_ok(), "{found:#x}, message {n}");
            world.settle();
            assert_eq!(world.seen(1), [(0, n)]);
        }
    }
}

#[test]
fn an_instance_that_wiped_its_hello_speaks_again_in_its_next_life() {
    let mut world = World::booted(2);
    world.machine.poke(world.lane(0, 1, header::HELLO), 0);
    world.look(1);
    assert_eq!(world.events(1), [], "a HELLO of 0 is no breach");
    world.boot(0, SECOND);
    world.settle();
    assert!(world.send(0, 1, 5).is_ok());
    world.settle();
    assert_eq!(world.seen(1), [(0, 5)]);
}

#[test]
fn a_sender_that_filled_its_lane_before_the_receiver_was_up_is_told_of_space() {
    let mut world = World::new(2);
    world.boot(0, Incarnation::FIRST);
    let sent = world.fill(0, 1);
    assert_eq!(world.send(0, 1, 9), Err(SendError::Full));
    assert_eq!(world.link(0).want_space(id(1), 1), Ok(false));
    world.boot(1, Incarnation::FIRST);
    world.settle();
    assert_eq!(world.seen(1), sent);
    assert!(world.events(0).contains(&(id(1), PeerEvent::Space)));
}

#[test]
fn a_sender_that_waits_for_space_is_told_of_it_by_the_receivers_next_life() {
    let mut world = World::booted(2);
    let sent = world.fill(0, 1);
    assert_eq!(world.link(0).want_space(id(1), 1), Ok(false));
    world.boot(1, SECOND);
    world.settle();
    assert_eq!(world.seen(1), sent, "the next life gets the messages");
    assert!(world.events(0).contains(&(id(1), PeerEvent::Space)));
}

#[test]
fn space_that_another_cpu_took_is_waited_for_again() {
    let world = World::booted(2);
    for n in 0..5 {
        let sent = world.fill(0, 1);
        assert_eq!(world.link(0).want_space(id(1), 1), Ok(false));
        // The receiver reads the lane and rings kernel 0. Before kernel 0 takes that interrupt, it fills the lane again.
        while world.link(1).run_deferred().more {}
        assert_eq!(world.seen(1), sent);
        let sent = world.fill(0, 1);
        world.settle();
        assert_eq!(world.seen(1), sent);
        assert!(world.events(0).contains(&(id(1), PeerEvent::Space)), "round {n}");
    }
}

#[test]
fn a_lane_that_is_full_behind_a_gap_neither_rings_without_end_nor_forgets_who_waits() {
    let world = World::booted(2);
    let sent = world.fill(0, 1);
    // The tag of the first line is removed, as if the sending CPU had stopped before it stored the tag.
    let first = world.tag(0, 1, 0);
    let tag = world.machine.peek(first);
    world.machine.poke(first, 0);
    assert_eq!(world.link(0).want_space(id(1), 1), Ok(false));
    world.settle();
    assert_eq!((world.seen(1), world.events(0)), (vec![], vec![]));
    world.machine.poke(first, tag);
    world.look(1);
    assert_eq!(world.seen(1), sent);
    assert_eq!(world.events(0), [(id(1), PeerEvent::Space)]);
}

#[test]
fn a_kernel_whose_own_region_has_slots_is_told_of_space() {
    let world = World::booted(2);
    let (kernel, link) = (world.machine.kernel(0), world.link(0));
    link.destroy_instance(id(0)).unwrap();
    let slots = world.machine.reserve(4096);
    link.attach_instance(&kernel.config(id(0), SECOND, SlotPolicy::Exclusive), Some(slots)).unwrap();
    world.fill(0, 1);
    assert_eq!(link.want_space(id(1), 1), Ok(false));
    world.settle();
    assert_eq!(world.events(0), [(id(1), PeerEvent::Space)]);
}

#[test]
fn a_kernel_whose_own_region_has_slots_is_answered() {
    let mut world = World::booted(2);
    let kernel = world.machine.kernel(0);
    let link = kernel.boot(id(0), SECOND);
    let slots = world.machine.reserve(4096);
    link.attach_instance(&kernel.config(id(0), SECOND, SlotPolicy::Exclusive), Some(slots)).unwrap();
    let one = world.machine.kernel(1);
    link.attach_instance(&one.native_config(id(1), Incarnation::FIRST), Some(world.regions[1])).unwrap();
    world.links[0] = Some(link);
    assert!(world.send(0, 1, 1).is_err(), "no answer yet");
    world.settle();
    assert!(world.send(0, 1, 2).is_ok(), "no tick was needed");
}

#[test]
fn two_that_wait_for_space_of_different_size_are_told_when_the_larger_is_there() {
    let world = World::booted(2);
    world.fill(0, 1);
    assert_eq!(world.link(0).want_space(id(1), 256), Ok(false));
    assert_eq!(world.link(0).want_space(id(1), 1), Ok(false));
    assert_eq!(world.machine.peek(world.lane(0, 1, header::WANT)), 5, "WANT is for the larger message");
    world.settle();
    assert_eq!(world.events(0), [(id(1), PeerEvent::Space)], "kernel 0 gets one event for both requests");
    assert!(world.link(0).send(id(1), TYPE, &[0; 256]).is_ok());
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
fn a_message_that_nobody_rang_for_is_found_at_the_next_tick() {
    let world = World::booted(3);
    // ARMED of the receiver is 0, so the sender does not ring. For the receiver this is the same as a lost doorbell.
    world.machine.poke(PhysAddr(world.regions[2].start().0 + 8 * receiver::ARMED as u64), 0);
    world.send(1, 2, 7).unwrap();
    world.settle();
    assert_eq!(world.seen(2), []);
    world.link(2).tick(0, 10);
    world.settle();
    assert_eq!(world.seen(2), [(1, 7)]);
}

#[test]
fn a_peer_that_says_hello_without_end_is_answered_within_bounds() {
    let world = World::booted(2);
    let at = world.lane(0, 1, header::HELLO);
    let answered = AtomicBool::new(false);
    // A CPU of the peer stores one hello after another, until the receiver has read its lanes. So the receiver can find a new
    // hello each time that it reads HELLO. If it answered all of them, the run would fail at the step limit.
    let machine = &world.machine;
    let report = machine.run(|cpu| {
        if cpu.kernel() == 0 {
            let mut n = 0;
            while !answered.load(Ordering::Relaxed) {
                machine.poke(at, hello(n, Phase::Begin));
                n = n.wrapping_add(1);
                cpu.relax();
            }
        } else {
            world.link(1).run_deferred();
            answered.store(true, Ordering::Relaxed);
        }
    });
    report.unwrap();
}

#[test]
fn what_lay_in_a_lane_before_its_first_life_is_nobodys_message() {
    let mut world = World::new(2);
    let tag = u64::from(LineTag::first(0).0);
    (0..LINES as usize).for_each(|line| world.machine.poke(world.tag(0, 1, line), tag));
    (0..2).for_each(|k| world.boot(k, Incarnation::FIRST));
    world.settle();
    assert_eq!((world.seen(1), world.send(0, 1, 5)), (vec![], Ok(1)));
    world.settle();
    assert_eq!(world.seen(1), [(0, 5)]);
}

#[test]
fn a_hello_that_was_answered_before_it_was_said_is_not_said() {
    let mut world = World::booted(2);
    let at = world.lane(0, 1, header::HELLO);
    // The first life can compute the hello that the next life will write. It writes that hello itself, the receiver answers it,
    // and the first life stores a message.
    for phase in [Phase::Begin, Phase::Clean] {
        world.machine.poke(at, hello(8, phase));
        world.look(1);
    }
    assert_eq!(world.machine.peek(world.control(0, 1, control::ANSWER)), hello(8, Phase::Clean));
    let base = world.machine.peek(world.control(0, 1, control::BASE));
    let line = (base % u64::from(LINES)) as usize;
    world.machine.poke(world.lane(0, 1, header::WORDS + line * LINE_WORDS + 1), 1);
    world.machine.poke(world.tag(0, 1, line), world.geometry.first_tag(base).to_word(TYPE.0));
    world.machine.poke(at, hello(7, Phase::Begin));
    world.boot(0, SECOND);
    assert_eq!(
        world.send(0, 1, 5),
        Err(SendError::Unanswered),
        "the new life does not use that answer as its own"
    );
    world.settle();
    assert!(world.send(0, 1, 5).is_ok());
    world.settle();
    assert_eq!(world.seen(1).last(), Some(&(0, 5)));
}

#[test]
fn a_life_is_not_told_of_what_became_of_its_predecessors_messages() {
    let mut world = World::booted(2);
    let doubt = |world: &World| {
        let became =
            |event: &PeerEvent| matches!(event, PeerEvent::InDoubt { .. } | PeerEvent::Discarded { .. });
        world.link(0).tick(0, 10);
        world.events(0).into_iter().map(|(_, event)| event).filter(became).collect::<Vec<_>>()
    };
    // The receiver's life ends while it handles a message. The sender's life ends too, before it gets the event InDoubt.
    world.send(0, 1, 1).unwrap();
    world.machine.poke(world.control(0, 1, control::HANDED), 1);
    world.boot(1, SECOND);
    world.boot(0, SECOND);
    world.settle();
    assert_eq!(doubt(&world), []);
    let number = world.send(0, 1, 2).unwrap();
    world.settle();
    assert_eq!((world.seen(1), doubt(&world)), (vec![(0, 2)], vec![]));
    // The new life gets events about its own messages.
    let next = world.send(0, 1, 3).unwrap();
    assert_eq!(next, number + 1);
    world.machine.poke(world.control(0, 1, control::HANDED), next);
    world.boot(1, SECOND.next());
    assert_eq!(doubt(&world), [PeerEvent::InDoubt { number: next }]);
}

#[test]
fn an_instance_that_wiped_its_hello_after_an_unanswered_life_speaks_again() {
    let mut world = World::new(2);
    world.boot(1, Incarnation::FIRST);
    // The receiver never answers this HELLO of the sender. Then the receiver's next life begins.
    world.link(1).destroy_instance(id(0)).unwrap();
    world.machine.poke(world.lane(0, 1, header::HELLO), hello(1, Phase::Begin));
    world.boot(1, SECOND);
    world.machine.poke(world.lane(0, 1, header::HELLO), 0);
    world.boot(0, SECOND);
    world.settle();
    assert!(world.send(0, 1, 5).is_ok());
    world.settle();
    assert_eq!(world.seen(1), [(0, 5)]);
}

/// Kernel 1 dies in its handler of message `last`, while its lane is full. Its next life gets the other messages.
#[test]
fn of_a_kernel_that_dies_in_a_handler_one_message_is_in_doubt_and_none_is_lost() {
    for last in 0..LINES as u8 {
        let mut world = World::booted(2);
        // The receiver handles one message before the lane is filled.
        world.send(0, 1, 100).unwrap();
        world.settle();
        let machine = Arc::downgrade(&world.machine);
        let dies = Callback::new(move |m: &Message<'_>| {
            if m.payload()[0] == last {
                machine.upgrade().unwrap().stop_kernel(1);
            }
        });
        let _ = world.link(1).register(TYPE, dies).unwrap();
        let sent = world.fill(0, 1);
        world.settle();
        assert!(world.machine.is_stopped(1));
        let number = u64::from(last) + 2;
        let words =
            [control::HANDED, control::CREDIT].map(|word| world.machine.peek(world.control(0, 1, word)));
        assert_eq!(
            words,
            [number, 1],
            "HANDED is the number of message {last}, and CREDIT is still that of the first message"
        );
        // The lane is full until the next life of the receiver begins.
        assert_eq!(world.send(0, 1, 9), Err(SendError::Full));
        world.machine.restart_kernel(1);
        world.boot(1, SECOND);
        world.settle();
        world.link(0).tick(0, 10);
        let events = world.events(0);
        // The sender gets the event InDoubt before the event Up.
        let expected = [PeerEvent::Began(SECOND), PeerEvent::InDoubt { number }, PeerEvent::Up(SECOND)];
        assert_eq!(events, expected.map(|event| (id(1), event)), "{last}");
        let mut seen = world.seen(1);
        assert_eq!(seen.remove(0), (0, 100));
        // Two handlers were registered in the first life. One can have noted message `last` before the other one stopped the
        // kernel.
        seen.dedup();
        let behind = sent.iter().filter(|(_, n)| *n > last).copied().collect::<Vec<_>>();
        assert!(seen.ends_with(&behind), "{last}: {seen:?}");
        assert!(seen.len() <= sent.len(), "a message arrived twice, {last}: {seen:?}");
        let before = sent.iter().filter(|(_, n)| *n < last).copied().collect::<Vec<_>>();
        assert!(seen.starts_with(&before), "{last}: {seen:?}");
        assert_eq!(world.link(0).handled(id(1)), Ok(u64::from(LINES) + 1));
    }
}

#[test]
fn a_sender_that_waits_is_told_once_that_it_is_refused() {
    let world = World::booted(2);
    world.fill(0, 1);
    assert_eq!(world.link(0).want_space(id(1), 1), Ok(false));
    world.machine.poke(world.control(0, 1, control::BREACH), Breach::Tag as u64);
    for now in 1..4 {
        world.link(0).tick(now, 10);
    }
    let refused = (id(1), PeerEvent::Refused(Breach::Tag));
    assert_eq!(world.events(0).into_iter().filter(|event| *event == refused).count(), 1);
    // After that event `want_space` must not tell the sender to wait, because the sender would get no other event.
    assert_eq!(world.link(0).want_space(id(1), 1), Ok(true));
    assert_eq!(world.send(0, 1, 1), Err(SendError::Quarantined));
    world.link(0).tick(5, 10);
    assert_eq!(world.events(0), [], "the event is not repeated");
}

#[test]
fn who_waits_rings_once_for_each_request() {
    let world = World::booted(2);
    world.fill(0, 1);
    // Without the tag of the first line the receiver finds no message, and gives no space.
    let (first, rung) = (world.tag(0, 1, 0), || world.machine.doorbells_at(PhysCpuId(3)));
    world.machine.poke(first, 0);
    assert_eq!(world.link(0).want_space(id(1), 1), Ok(false));
    world.settle();
    let before = rung();
    for now in 1..6 {
        world.link(0).tick(now, 10);
        world.settle();
    }
    assert_eq!(rung(), before);
}
