// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests about faults of the native link that were found and corrected. Each test checks the correct behaviour.

use mk_ipi_abi::directory::{directory_size, EntryFlags, InstanceRecord, Layout, State};
use mk_ipi_abi::native::{control, header, receiver, Breach, Geometry, Hello, Life, MessageInfo, Phase};
use mk_ipi_abi::{Incarnation, InstanceId, MessageType, PhysAddr, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::directory::{Directory, DirectoryWriter};
use mk_ipi_core::platform::{Access, Peer, PeerEvent, PhysMemory};
use mk_ipi_core::SendError;
use mk_ipi_mock::{Callback, Link, Machine};
use std::sync::{Arc, Mutex};

const TYPE: MessageType = MessageType(7);
const LINES: u32 = 8;
const SECOND: Incarnation = Incarnation::new(2).unwrap();

fn id(kernel: usize) -> InstanceId {
    InstanceId::new(kernel as u8)
}

/// The sender's incarnation of each message that a kernel got.
type Lives = Arc<Mutex<Vec<Option<Incarnation>>>>;
/// The sender and the first byte of each message that a kernel got.
type Seen = Arc<Mutex<Vec<(usize, u8)>>>;

struct World {
    machine: Machine,
    geometry: Geometry,
    regions: Vec<PhysRange>,
    links: Vec<Option<Arc<Link>>>,
    seen: Vec<Seen>,
    lives: Vec<Lives>,
}

impl World {
    fn with_cpus(cpus: &[&[u64]], lanes: u32) -> Self {
        let machine = cpus.iter().fold(Machine::builder(), |b, k| b.kernel(k)).memory(4096).build();
        let geometry = Geometry::new(lanes, LINES, 256).unwrap();
        let regions = (0..cpus.len()).map(|_| machine.native_region(geometry)).collect();
        let seen = (0..cpus.len()).map(|_| Arc::default()).collect();
        let lives = (0..cpus.len()).map(|_| Arc::default()).collect();
        Self { machine, geometry, regions, links: cpus.iter().map(|_| None).collect(), seen, lives }
    }
    fn booted(kernels: usize) -> Self {
        let cpus: Vec<_> = (0..kernels).map(|k| vec![k as u64 * 3]).collect();
        let cpus: Vec<&[u64]> = cpus.iter().map(|c| &c[..]).collect();
        Self::booted_with(&cpus, kernels as u32)
    }
    fn booted_with(cpus: &[&[u64]], lanes: u32) -> Self {
        let mut world = Self::with_cpus(cpus, lanes);
        (0..cpus.len()).for_each(|k| world.boot(k, Incarnation::FIRST));
        world.settle();
        (0..cpus.len()).for_each(|k| drop(world.events(k)));
        world
    }
    fn boot(&mut self, k: usize, life: Incarnation) {
        let link = self.machine.kernel(k).boot(id(k), life);
        self.listen(k, &link);
        for (other, region) in self.regions.iter().enumerate() {
            let kernel = self.machine.kernel(other);
            let config = kernel.native_config(id(other), Incarnation::FIRST);
            link.attach_instance(&config, Some(*region)).unwrap();
        }
        self.links[k] = Some(link);
    }
    fn listen(&self, k: usize, link: &Link) {
        let (seen, lives) = (self.seen[k].clone(), self.lives[k].clone());
        let note = move |m: &mk_ipi_core::Message<'_>| {
            seen.lock().unwrap().push((m.sender().unwrap().index(), m.payload()[0]));
            lives.lock().unwrap().push(m.sender_incarnation());
        };
        let _ = link.register(TYPE, Callback::new(note)).unwrap();
    }
    fn link(&self, k: usize) -> &Arc<Link> {
        self.links[k].as_ref().unwrap()
    }
    fn settle(&self) {
        self.machine.run(|_| ()).unwrap();
    }
    fn send(&self, from: usize, to: usize, n: u8) -> Result<u64, SendError> {
        self.link(from).send(id(to), TYPE, &[n])
    }
    fn seen(&self, k: usize) -> Vec<(usize, u8)> {
        std::mem::take(&mut *self.seen[k].lock().unwrap())
    }
    /// The sender's life of each message that kernel `k` got since the last call.
    fn lives(&self, k: usize) -> Vec<Option<Incarnation>> {
        std::mem::take(&mut *self.lives[k].lock().unwrap())
    }
    fn news(&self, k: usize) -> Vec<(Peer, PeerEvent)> {
        self.machine.kernel(k).peer_news()
    }
    fn events(&self, k: usize) -> Vec<(InstanceId, PeerEvent)> {
        self.machine.kernel(k).peer_events()
    }
    fn lane(&self, from: usize, to: usize, word: usize) -> PhysAddr {
        let at = self.geometry.lane_at(from as u32).unwrap() + 8 * word as u64;
        PhysAddr(self.regions[to].start().0 + at)
    }
    fn control(&self, from: usize, to: usize, word: usize) -> PhysAddr {
        let word = receiver::CONTROL + from * receiver::CONTROL_WORDS + word;
        PhysAddr(self.regions[to].start().0 + 8 * word as u64)
    }
    /// Returns the address of word `word` of the line at `position` in the lane of `from` to `to`.
    fn line(&self, from: usize, to: usize, position: u64, word: usize) -> PhysAddr {
        self.lane(from, to, self.geometry.line_at(position) + word)
    }
    /// Stores a message of one byte into the line at `position` in the lane of `from` to `to`, as a sender does. It does not
    /// ring.
    fn plant(&self, from: usize, to: usize, position: u64) {
        self.machine.poke(self.line(from, to, position, 1), MessageInfo { len: 1, cpu: 0 }.to_word());
        self.machine.poke(self.line(from, to, position, 2), 0xee);
        self.machine
            .poke(self.line(from, to, position, 0), self.geometry.first_tag(position).to_word(TYPE.0));
    }
}

/// A hostile life stores messages into the lines that the next life will use. The receiver must not deliver them as messages of
/// the next life.
#[test]
fn a_dead_life_cannot_speak_for_its_successor() {
    for left in [None, Some(Phase::Begin), Some(Phase::Clean), Some(Phase::First)] {
        let mut world = World::booted(2);
        // Kernel 0 is hostile. It can write only to its lane. It begins a life, and the receiver answers it.
        let star = Hello { incarnation: Incarnation::FIRST, session: 9, phase: Phase::Begin };
        for phase in [Phase::Begin, Phase::Clean] {
            world.machine.poke(world.lane(0, 1, header::HELLO), star.in_phase(phase).to_word());
            world.link(1).poll().unwrap();
            world.settle();
        }
        let base = world.machine.peek(world.control(0, 1, control::BASE));
        // The hostile kernel stores a message at each position where the next life can begin, except the first position.
        (base + 1..base + u64::from(LINES)).for_each(|position| world.plant(0, 1, position));
        let next = Hello::after(star.to_word(), star.in_phase(Phase::Clean).to_word(), SECOND);
        if let Some(phase) = left {
            world.machine.poke(world.lane(0, 1, header::HELLO), next.in_phase(phase).to_word());
        }
        // The hostile kernel is stopped, and another kernel is booted as the same instance.
        world.boot(0, SECOND);
        // Before the receiver answers the next life, it skips the gap and hands out these messages as messages of the hostile
        // life.
        world.settle();
        let began = world.news(1).into_iter().map(|(peer, event)| (peer.theirs, event)).collect::<Vec<_>>();
        assert_eq!(began.last(), Some(&(Some(SECOND), PeerEvent::Began(SECOND))), "{left:?}");
        assert!(
            world.lives(1).iter().all(|life| *life != Some(SECOND)),
            "no message names the new life, which has sent nothing"
        );
        world.seen(1);
        for n in 0..8 {
            world.send(0, 1, n).unwrap();
            world.settle();
        }
        assert_eq!(world.seen(1), (0..8).map(|n| (0, n)).collect::<Vec<_>>());
        assert_eq!(world.lives(1), [Some(SECOND); 8]);
    }
}

/// A receiver's next life must be rung at its configured doorbell, and not at the doorbell to which its former life had moved.
#[test]
fn the_next_life_of_a_receiver_is_rung_where_it_listens() {
    let spare = Vector::new(0x51).unwrap();
    let mut world = World::booted_with(&[&[0], &[3, 4]], 2);
    let kernel = world.machine.kernel(1);
    let old = world.link(1).clone();
    kernel.set_vector(spare, move || old.on_interrupt());
    world.link(1).move_doorbell(PhysCpuId(4), spare).unwrap();
    world.settle();
    // Kernel 1 restarts. Its next life takes doorbells at CPU 3 with the configured vector. It uses vector 0x51 for a device.
    world.boot(1, SECOND);
    let stray = Arc::new(Mutex::new(0));
    let count = stray.clone();
    kernel.set_vector(spare, move || *count.lock().unwrap() += 1);
    world.settle();
    world.send(0, 1, 7).unwrap();
    world.settle();
    assert_eq!(*stray.lock().unwrap(), 0, "the next life was rung at the vector of its device");
    assert_eq!(world.seen(1), [(0, 7)]);
}

/// A hostile instance overwrites the stamp of its region. Other kernels must still be able to join.
#[test]
fn one_bad_stamp_keeps_nobody_from_joining() {
    let machine = [0, 3, 6].iter().fold(Machine::builder(), |b, cpu| b.kernel(&[*cpu])).memory(1024).build();
    let geometry = Geometry::new(3, LINES, 256).unwrap();
    let regions: Vec<_> = (0..3).map(|_| machine.native_region(geometry)).collect();
    let range = machine.reserve(directory_size(3, 2));
    let host = machine.kernel(0).map(range, Access::ReadWrite).unwrap();
    let mut writer = DirectoryWriter::create(host.words(), 3, 2).unwrap();
    for (n, kernel) in machine.kernels().enumerate() {
        let record = InstanceRecord {
            instance: id(n),
            incarnation: Incarnation::FIRST,
            state: State::Running,
            layout: Layout::Native,
            flags: EntryFlags::empty(),
            region: Some(regions[n]),
            doorbell_cpu: kernel.cpus()[0],
            vector: Vector::RFC_V2,
            nr_cpus: 0,
        };
        writer.write(&record, kernel.cpus()).unwrap();
    }
    // Instance 2 overwrites its own stamp.
    machine.poke(regions[2].start(), 0);
    let kernel = machine.kernel(1);
    let link = Link::new(kernel.clone());
    let mapping = kernel.map(range, Access::ReadOnly).unwrap();
    let joined = link.join(regions[1].start(), &Directory::open(mapping.words()).unwrap());
    assert_eq!(joined, Ok(2), "kernel 1 has attached itself and the host");
}

/// While one CPU of a kernel drains, the deferred work on another CPU is refused, because the lanes are in use. At the end ARMED
/// must still be set to 1.
#[test]
fn a_drain_without_arm_makes_up_for_the_run_that_it_refused() {
    use mk_ipi_core::sync::{AtomicBool, Ordering::SeqCst};
    let world = World::booted_with(&[&[0], &[3, 4]], 2);
    let [draining, refused] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let (d, r, kernel) = (draining.clone(), refused.clone(), world.machine.kernel(1));
    let inner = kernel.clone();
    // This handler runs until the deferred work of the other CPU was refused.
    let handler = move |_: &mk_ipi_core::Message<'_>| {
        d.store(true, SeqCst);
        while !r.load(SeqCst) {
            mk_ipi_core::platform::ThisCpu::relax(&inner);
        }
    };
    let _ = world.link(1).register(MessageType(9), Callback::new(handler)).unwrap();
    let (r, link) = (refused.clone(), world.link(1).clone());
    kernel.set_deferred(move || {
        link.run_deferred();
        r.store(true, SeqCst);
    });
    world.link(0).post(id(1), MessageType(9), &[1]).unwrap();
    world
        .machine
        .run(|cpu| match cpu.id().0 {
            4 => while world.link(1).drain().more {},
            0 => {
                while !draining.load(SeqCst) {
                    cpu.relax();
                }
                world.send(0, 1, 1).unwrap(); // rings CPU 3
            }
            _ => {}
        })
        .unwrap();
    assert_eq!(world.seen(1), [(0, 1)]);
    // Now nothing is pending, and no CPU drains. So ARMED must be 1, and the next message must ring.
    world.send(0, 1, 2).unwrap();
    world.settle();
    assert_eq!(world.seen(1), [(0, 2)], "no doorbell rang for the message");
}

/// A tick that found nothing must not make the next drain read all lanes.
#[test]
fn a_poll_that_finds_nothing_costs_the_next_message_nothing() {
    let mut cost = Vec::new();
    for poll in [false, true] {
        let world = World::booted_with(&[&[0], &[3]], 256);
        let kernel = world.machine.kernel(1);
        // The work of the boot must be over before the accesses are counted.
        world.settle();
        world
            .machine
            .run(|cpu| {
                if cpu.kernel() == 1 && poll {
                    world.link(1).tick(1, 10)
                }
            })
            .unwrap();
        let before = kernel.accesses();
        let send = || assert!(world.send(0, 1, 1).is_ok());
        world
            .machine
            .run(|cpu| {
                if cpu.kernel() == 0 {
                    send()
                }
            })
            .unwrap();
        cost.push(kernel.accesses() - before);
        assert_eq!(world.seen(1), [(0, 1)]);
    }
    assert!(cost[1] < 2 * cost[0], "{cost:?}");
}

/// A poll must make few accesses, even if the region has 256 lanes.
#[test]
fn a_tick_looks_at_few_words_with_interrupts_off() {
    let world = World::booted_with(&[&[0], &[3]], 256);
    let kernel = world.machine.kernel(1);
    world.settle();
    let spent = Mutex::new(0);
    world
        .machine
        .run(|cpu| {
            if cpu.kernel() == 1 {
                let before = kernel.accesses();
                world.link(1).poll().unwrap();
                *spent.lock().unwrap() = kernel.accesses() - before;
            }
        })
        .unwrap();
    assert!(*spent.lock().unwrap() < 100);
}

/// A peer restarts on other CPUs. Its messages must arrive, and their sending CPU must be one of the new CPUs.
#[test]
fn the_next_life_of_a_peer_has_its_own_cpus() {
    let mut bad = 0;
    for cpus in [&[5u64][..], &[4, 5]] {
        // Kernel 0 is instance 0, on CPU 0. Kernel 2 is the next life of instance 0, on other CPUs.
        let mut world = World::with_cpus(&[&[0], &[3], cpus], 2);
        world.regions.truncate(2);
        world.boot(0, Incarnation::FIRST);
        world.boot(1, Incarnation::FIRST);
        world.settle();
        let from: Arc<Mutex<Vec<PhysCpuId>>> = Arc::default();
        let note = from.clone();
        let _ = world
            .link(1)
            .register(MessageType(8), Callback::new(move |m| note.lock().unwrap().push(m.sender_cpu())))
            .unwrap();
        // Kernel 1 does not know the new CPUs yet.
        let kernel = world.machine.kernel(2);
        let link = kernel.boot(id(0), SECOND);
        link.attach_instance(&kernel.native_config(id(0), SECOND), Some(world.regions[0])).unwrap();
        let other = world.machine.kernel(1);
        link.attach_instance(&other.native_config(id(1), Incarnation::FIRST), Some(world.regions[1]))
            .unwrap();
        world.settle();
        let last = *cpus.last().unwrap();
        let report = world.machine.run(|cpu| if cpu.id() == PhysCpuId(last) {});
        report.unwrap();
        let events = world.events(1);
        bad += usize::from(events.contains(&(id(0), PeerEvent::Quarantined(Breach::Tag))));
        bad += from.lock().unwrap().iter().filter(|cpu| cpu.0 != last).count();
    }
    assert_eq!(
        bad, 0,
        "a correct peer is in quarantine, or a message has a sending CPU of the peer's former life"
    );
}

/// A life sends messages and ends before the receiver reads its lane. The messages must be handed out when the next life begins.
#[test]
fn what_an_unseen_life_published_is_handed_on() {
    let mut world = World::booted(2);
    world.boot(0, SECOND);
    world.settle();
    world.send(0, 1, 1).unwrap();
    world.send(0, 1, 2).unwrap();
    world.boot(0, SECOND.next());
    world.settle();
    assert_eq!(world.seen(1), [(0, 1), (0, 2)]);
}

#[test]
fn a_message_says_who_sent_it_to_which_life_and_from_which_cpu() {
    let mut world = World::with_cpus(&[&[0], &[30, 31]], 2);
    world.boot(0, SECOND);
    world.boot(1, Incarnation::FIRST);
    world.settle();
    let life = world.link(1).instance(id(0)).unwrap().life();
    assert_eq!(life, Some(Life { incarnation: SECOND, over: false }));
    assert_eq!(world.link(1).instance(id(0)).unwrap().geometry(), Some(world.geometry));
    assert_eq!(format!("{:?}", world.link(1).poller().unwrap()), "Poller");
    type Origin = (Option<InstanceId>, Option<Incarnation>, Option<Incarnation>, Option<u64>, PhysCpuId);
    let origins: Arc<Mutex<Vec<Origin>>> = Arc::default();
    let noted = origins.clone();
    let note = move |m: &mk_ipi_core::Message<'_>| {
        let lives = (m.sender_incarnation(), m.receiver_incarnation());
        noted.lock().unwrap().push((m.sender(), lives.0, lives.1, m.number(), m.sender_cpu()));
    };
    let _ = world.link(0).register(TYPE, Callback::new(note)).unwrap();
    let sent = Mutex::new(Vec::new());
    // Each CPU of kernel 1 sends twice. The endpoint reads the CPU's id only once, and remembers it.
    let run = world.machine.run(|cpu| {
        for _ in 0..2 * usize::from(cpu.kernel() == 1) {
            let to = world.link(1).instance(id(0)).unwrap();
            let number = world.link(1).send_held(&to, TYPE, &[1]).unwrap();
            sent.lock().unwrap().push((number, cpu.id()));
        }
    });
    run.unwrap();
    let mut sent = sent.into_inner().unwrap();
    sent.sort_unstable();
    let origin = |(n, cpu)| (Some(id(1)), Some(Incarnation::FIRST), Some(SECOND), Some(n), cpu);
    assert_eq!(*origins.lock().unwrap(), sent.into_iter().map(origin).collect::<Vec<_>>());
}

#[test]
fn an_instance_that_was_removed_is_not_heard_any_more() {
    let world = World::booted(3);
    world.send(1, 0, 1).unwrap();
    world.settle();
    world.link(0).destroy_instance(id(1)).unwrap();
    world.send(1, 0, 2).unwrap();
    world.send(2, 0, 3).unwrap();
    world.settle();
    assert_eq!(world.seen(0), [(1, 1), (2, 3)]);
    let kernel = world.machine.kernel(1);
    let config = kernel.native_config(id(1), Incarnation::FIRST);
    world.link(0).attach_instance(&config, Some(world.regions[1])).unwrap();
    world.settle();
    assert_eq!(world.seen(0), [(1, 2)], "it waited in the lane");
}

#[test]
fn a_kernel_that_is_told_to_stop_stops_at_the_doorbell() {
    let world = World::booted(2);
    world.link(0).stop(id(1), SECOND).unwrap();
    world.settle();
    assert!(world.machine.kernel(1).stops() == 0, "another life was meant");
    world.link(0).stop(id(1), Incarnation::FIRST).unwrap();
    world.settle();
    assert!(world.machine.kernel(1).stops() > 0);
}
