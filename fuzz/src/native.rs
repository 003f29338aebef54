// SPDX-License-Identifier: MIT OR Apache-2.0
//! Three kernels speak the native link; the last one writes whatever it likes into every page that it may write.
//!
//! Between the other two everything arrives once and in order, through attachments, restarts and lost doorbells. One
//! thread makes all calls; what the hostile kernel writes in mid-drain is written by a handler.

mod model;

use arbitrary::{Arbitrary, Unstructured};
use mk_ipi_abi::native::{
    cell, control, header, receiver, Breach, CellAbout, Features, Geometry, Hello, Life, Stamp, STAMP_WORDS,
};
use mk_ipi_abi::{Incarnation, InstanceId, MessageType, PhysAddr, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::platform::PeerEvent;
use mk_ipi_core::{AddError, Endpoint, Handler, InstanceConfig, LinkConfig, Message, SendError};
use mk_ipi_mock::{Machine, MockPlatform};
use model::Model;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

const CPUS: [u64; 3] = [0, 3, 5];
const KERNELS: usize = 3;
/// The kernel that writes what it likes.
const HOSTILE: usize = 2;
const CELLS: u32 = 4;
const QUEUE: usize = 4;
type End = Endpoint<MockPlatform, Probe, 4, 4, QUEUE>;

#[derive(Arbitrary, Debug)]
enum Op {
    Send {
        from: u8,
        to: u8,
        len: u16,
    },
    Post {
        from: u8,
        to: u8,
        len: u8,
    },
    Flush {
        from: u8,
        to: u8,
    },
    SendFromNmi {
        from: u8,
        to: u8,
        len: u8,
    },
    SendToCpu {
        from: u8,
        to: u8,
        cpu: u8,
    },
    Burst {
        from: u8,
        to: u8,
    },
    Poll(u8),
    Deferred(u8),
    Drain(u8),
    Interrupt(u8),
    Scribble(Scribble),
    /// When the next message is handed to a handler.
    ScribbleLater(Scribble),
    /// Destroyed, and attached again.
    Attach {
        by: u8,
        id: u8,
    },
    Restart {
        kernel: u8,
    },
    WantSpace {
        from: u8,
        to: u8,
    },
    Tick {
        kernel: u8,
        now: u16,
    },
    Stop {
        by: u8,
        to: u8,
    },
    Goodbye(u8),
    MoveDoorbell {
        kernel: u8,
        cpu: u8,
        vector: u8,
    },
}

/// A word of a page that the hostile kernel may write.
#[derive(Arbitrary, Debug)]
struct Scribble {
    at: At,
    value: Value,
}

#[derive(Arbitrary, Debug)]
enum At {
    Header {
        to: u8,
        word: u8,
    },
    Cell {
        to: u8,
        cell: u8,
        word: u8,
    },
    Hint {
        to: u8,
        word: u8,
    },
    /// As a receiver: its stamp and line, and its control lines.
    Own {
        word: u8,
    },
    Control {
        lane: u8,
        word: u8,
    },
}

/// Words with which a hostile peer gets furthest.
#[derive(Arbitrary, Debug)]
enum Value {
    Small(u16),
    Head {
        lap: u8,
        ty: u8,
    },
    About {
        len: u16,
        cpu: u8,
    },
    Hello {
        life: u8,
        session: u8,
        first: bool,
    },
    Life {
        life: u8,
        over: bool,
    },
    /// What stands in another lane's word.
    Answer {
        to: u8,
    },
    Any(u64),
}

/// Who sent, and what.
type Received = (usize, Vec<u8>);

/// Notes what arrives, and does in between what the hostile kernel does meanwhile.
#[derive(Clone)]
struct Probe {
    log: Arc<Mutex<Vec<Received>>>,
    later: Arc<Mutex<VecDeque<(PhysAddr, u64)>>>,
    machine: Arc<Machine>,
}

impl Handler for Probe {
    fn handle(&self, message: &Message) {
        assert!(message.payload().len() <= 256);
        let sender = message.sender().expect("a lane").index();
        assert_eq!(message.sender_cpu(), PhysCpuId(CPUS[sender]));
        self.log.lock().unwrap().push((sender, message.payload().to_vec()));
        if let Some((at, value)) = self.later.lock().unwrap().pop_front() {
            self.machine.poke(at, value);
        }
    }
}

struct Kernel {
    end: End,
    life: Incarnation,
    probe: Probe,
}

struct World {
    machine: Arc<Machine>,
    geometry: Geometry,
    regions: [PhysRange; KERNELS],
    kernels: [Kernel; KERNELS],
    model: Model,
    number: u64,
}

/// Does what the bytes say.
pub fn native(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut world = World::new();
    while let (false, Ok(op)) = (input.is_empty(), input.arbitrary()) {
        world.apply(&op);
    }
    world.finish();
}

fn instance(n: usize) -> InstanceId {
    InstanceId::new(u8::try_from(n).unwrap())
}

fn k(n: u8) -> usize {
    usize::from(n) % KERNELS
}

/// Whether neither end of a lane is the hostile kernel.
fn honest(from: usize, to: usize) -> bool {
    from != HOSTILE && to != HOSTILE
}

fn config(id: usize) -> InstanceConfig<'static> {
    const LISTS: [[PhysCpuId; 1]; 3] = [[PhysCpuId(CPUS[0])], [PhysCpuId(CPUS[1])], [PhysCpuId(CPUS[2])]];
    InstanceConfig {
        id: instance(id),
        incarnation: Incarnation::FIRST,
        cpus: &LISTS[id],
        doorbell_cpu: LISTS[id][0],
        vector: Vector::RFC_V2,
        link: LinkConfig::Native(None),
        one_doorbell: false,
    }
}

fn begin(machine: &Machine, n: usize, life: Incarnation, probe: Probe) -> End {
    let end = End::new(machine.kernel(n));
    end.identify(instance(n), life);
    let _ = end.register(MessageType(0), probe).unwrap();
    end
}

impl World {
    fn new() -> Self {
        let machine = CPUS.iter().fold(Machine::builder().memory(16), |b, cpu| b.kernel(&[*cpu])).build();
        let machine = Arc::new(machine);
        let geometry = Geometry::new(KERNELS as u32, CELLS).unwrap();
        let regions = [(); KERNELS].map(|()| machine.native_region(geometry));
        let later: Arc<Mutex<VecDeque<_>>> = Arc::default();
        let kernels = [0, 1, 2].map(|n| {
            let probe = Probe { log: Arc::default(), later: later.clone(), machine: machine.clone() };
            let life = Incarnation::FIRST;
            Kernel { end: begin(&machine, n, life, probe.clone()), life, probe }
        });
        let world = Self { machine, geometry, regions, kernels, model: Model::default(), number: 0 };
        for by in 0..KERNELS {
            (0..KERNELS).for_each(|id| world.attach(by, id).unwrap());
        }
        world
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Send { from, to, len } => self.send(k(from), k(to), usize::from(len % 300), End::send),
            Op::Post { from, to, len } => self.send(k(from), k(to), len.into(), End::post),
            Op::SendFromNmi { from, to, len } => self.send(k(from), k(to), len.into(), End::send_from_nmi),
            Op::SendToCpu { from, to, cpu } => {
                let cpu = PhysCpuId((cpu % 8).into());
                let send = |end: &End, id, ty, bytes: &[u8]| end.send_to_cpu(id, cpu, ty, bytes);
                if cpu.0 == CPUS[k(to)] {
                    self.send(k(from), k(to), 9, send);
                } else {
                    let sent = send(&self.kernels[k(from)].end, instance(k(to)), MessageType(0), &[]);
                    assert!(
                        matches!(sent, Err(SendError::NotItsCpu(_) | SendError::Instance(_))),
                        "{sent:?}"
                    );
                }
            }
            Op::Burst { from, to } => {
                (0..CELLS).for_each(|n| self.send(k(from), k(to), n as usize, End::send))
            }
            Op::Flush { from, to } => drop(self.kernels[k(from)].end.flush(instance(k(to)))),
            Op::Poll(n) => drop(self.kernels[k(n)].end.poll()),
            Op::Deferred(n) => drop(self.run(k(n), End::run_deferred)),
            Op::Drain(n) => drop(self.run(k(n), End::drain)),
            Op::Interrupt(n) => self.kernels[k(n)].end.on_interrupt(),
            Op::Scribble(ref scribble) => {
                let (at, value) = self.resolve(scribble);
                self.machine.poke(at, value);
            }
            Op::ScribbleLater(ref scribble) => {
                let scribble = self.resolve(scribble);
                self.kernels[HOSTILE].probe.later.lock().unwrap().push_back(scribble);
            }
            Op::Attach { by, id } => self.attach_anew(k(by), k(id)),
            Op::Restart { kernel } => self.restart(k(kernel)),
            Op::WantSpace { from, to } => self.want_space(k(from), k(to)),
            Op::Tick { kernel, now } => self.tick(k(kernel), now.into()),
            Op::Stop { by, to } => self.stop(k(by), k(to)),
            Op::Goodbye(n) => self.kernels[k(n)].end.goodbye(),
            Op::MoveDoorbell { kernel, cpu, vector } => {
                if let Some(vector) = Vector::new(vector) {
                    let _ = self.kernels[k(kernel)].end.move_doorbell(PhysCpuId(cpu.into()), vector);
                }
            }
        }
        self.look_at_events();
    }

    // ---- where words lie ----

    fn at(&self, region: usize, bytes: u64, word: usize) -> PhysAddr {
        PhysAddr(self.regions[region].start().0 + bytes + 8 * word as u64)
    }

    fn lane(&self, from: usize, to: usize, word: usize) -> PhysAddr {
        self.at(to, self.geometry.lane_at(from as u32).unwrap(), word)
    }

    fn control(&self, from: usize, to: usize, word: usize) -> PhysAddr {
        self.at(to, 0, receiver::CONTROL + from * receiver::CONTROL_WORDS + word)
    }

    fn resolve(&self, scribble: &Scribble) -> (PhysAddr, u64) {
        let at = match scribble.at {
            At::Header { to, word } => self.lane(HOSTILE, k(to), usize::from(word) % header::WORDS),
            At::Cell { to, cell, word } => {
                let first = header::WORDS + usize::from(cell) % CELLS as usize * cell::WORDS;
                // Mostly the two that mean something.
                let word = if word < 128 { word % 2 } else { word } as usize % cell::WORDS;
                self.lane(HOSTILE, k(to), first + word)
            }
            At::Hint { to, word } => self.at(k(to), self.geometry.hint_at(), usize::from(word) % 6),
            At::Own { word } => self.at(HOSTILE, 0, usize::from(word) % receiver::CONTROL),
            At::Control { lane, word } => self.control(k(lane), HOSTILE, usize::from(word) % 10),
        };
        let life = |n: u8| Incarnation::new(n.into()).unwrap_or(Incarnation::FIRST);
        let value = match scribble.value {
            Value::Small(n) => n.into(),
            Value::Head { lap, ty } => u64::from(lap) | u64::from(ty % 2) << 32,
            Value::About { len, cpu } => CellAbout { len: len % 300, cpu: (cpu % 2).into() }.to_word(),
            Value::Hello { life: n, session, first } => {
                Hello { incarnation: life(n), session: session.into(), first }.to_word()
            }
            Value::Life { life: n, over } => Life { incarnation: life(n), over }.to_word(),
            Value::Answer { to } => self.machine.peek(self.control(HOSTILE, k(to), control::ANSWER)),
            Value::Any(n) => n,
        };
        (at, value)
    }

    // ---- what kernels do ----

    fn send(
        &mut self,
        from: usize,
        to: usize,
        len: usize,
        send: impl Fn(&End, InstanceId, MessageType, &[u8]) -> Result<(), SendError>,
    ) {
        self.number += 1;
        let mut payload = self.number.to_le_bytes().repeat(len.div_ceil(8));
        payload.truncate(len);
        let answered = self.machine.peek(self.control(from, to, control::ANSWER))
            == self.machine.peek(self.lane(from, to, header::HELLO));
        let sent = send(&self.kernels[from].end, instance(to), MessageType(0), &payload);
        assert!(len <= 256 || sent == Err(SendError::TooLong) || !honest(from, to), "{sent:?}");
        if honest(from, to) && len <= 256 {
            self.model.lanes[from][to].sent(sent, payload, answered);
        }
    }

    /// Deferred work or a drain: what the honest lanes hold comes in order.
    fn run(&mut self, n: usize, run: impl Fn(&End) -> mk_ipi_core::Deferred) -> bool {
        let done = run(&self.kernels[n].end);
        let log = std::mem::take(&mut *self.kernels[n].probe.log.lock().unwrap());
        assert!(done.messages <= QUEUE && log.len() <= done.messages, "unhandled ones are of another type");
        for (from, payload) in log {
            if honest(from, n) {
                self.model.lanes[from][n].received(&payload);
            }
        }
        done.more
    }

    fn attach(&self, by: usize, id: usize) -> Result<(), AddError> {
        self.kernels[by].end.attach_instance(&config(id), Some(self.regions[id]))
    }

    fn destroy(&self, by: usize, id: usize) {
        let destroyed = self.kernels[by].end.destroy_instance(instance(id));
        assert!(destroyed.is_ok() || id == HOSTILE || by == HOSTILE, "{destroyed:?}");
    }

    fn attach_anew(&mut self, by: usize, id: usize) {
        self.destroy(by, id);
        let attached = self.attach(by, id);
        assert!(attached.is_ok() || id == HOSTILE, "{attached:?}");
        self.model.lanes[by][id].begin();
        self.model.wanting[by][id] &= attached.is_ok();
    }

    fn restart(&mut self, n: usize) {
        for from in 0..KERNELS {
            let answer = self.machine.peek(self.control(from, n, control::ANSWER));
            let said = self.machine.peek(self.lane(from, n, header::HELLO));
            // Of a lane whose first life was not answered yet nothing was read.
            if answer != 0 || Hello::from_word(said).is_some_and(|hello| !hello.first) {
                self.model.lanes[from][n].lose(answer == said);
            }
        }
        // Unmapping writes nothing: for the others it is as if this life had just stopped.
        (0..KERNELS).for_each(|id| self.destroy(n, id));
        let kernel = &mut self.kernels[n];
        kernel.life = kernel.life.next();
        kernel.end = begin(&self.machine, n, kernel.life, kernel.probe.clone());
        kernel.probe.log.lock().unwrap().clear();
        for id in 0..KERNELS {
            let attached = self.attach(n, id);
            assert!(attached.is_ok() || id == HOSTILE, "{attached:?}");
            self.model.lanes[n][id].begin();
            (self.model.wanting[n][id], self.model.owed[n][id]) = (false, false);
        }
    }

    fn want_space(&mut self, from: usize, to: usize) {
        if let Ok(now) = self.kernels[from].end.want_space(instance(to)) {
            let lane = &self.model.lanes[from][to];
            assert!(!honest(from, to) || !now || !lane.is_full());
            self.model.wanting[from][to] = true;
            self.model.owed[from][to] |= !now;
        }
    }

    fn tick(&mut self, n: usize, now: u64) {
        self.look_at_events();
        self.kernels[n].end.tick(now, 100);
        for (id, event) in self.kernels[n].end.platform().peer_events() {
            self.event(n, id.index(), event);
            if let (PeerEvent::Lost { first, count }, true) = (event, honest(n, id.index())) {
                self.model.lanes[n][id.index()].told_of(first, count);
            }
        }
        (0..HOSTILE).for_each(|to| self.model.lanes[n][to].all_told(n != HOSTILE && n != to));
    }

    fn stop(&mut self, by: usize, to: usize) {
        let _ = self.kernels[by].end.stop(instance(to));
        if by == 0 {
            self.model.stopped[to] = Some(self.kernels[to].life);
        }
    }

    // ---- what they see ----

    fn look_at_events(&mut self) {
        for n in 0..KERNELS {
            for (id, event) in self.kernels[n].end.platform().peer_events() {
                assert!(!matches!(event, PeerEvent::Lost { .. }), "in tick only");
                self.event(n, id.index(), event);
            }
            let stops = self.kernels[n].end.platform().stops();
            let told = std::mem::replace(&mut self.model.stops[n], stops) != stops;
            assert!(n == HOSTILE || !told || self.model.stopped[n] == Some(self.kernels[n].life));
        }
    }

    fn event(&mut self, n: usize, id: usize, event: PeerEvent) {
        match event {
            PeerEvent::Quarantined(_) => assert!(!honest(n, id), "{event:?} of {id} at {n}"),
            PeerEvent::Space => {
                // After an instance was attached anew also for what was wanted before.
                assert!(self.model.wanting[n][id] || !honest(n, id), "nobody asked");
                (self.model.wanting[n][id], self.model.owed[n][id]) = (false, false);
            }
            PeerEvent::Began(life) | PeerEvent::Up(life) if honest(n, id) => {
                assert_eq!(life, self.kernels[id].life);
            }
            _ => {}
        }
    }

    // ---- the end ----

    /// Runs everybody until nothing is left; that comes soon, as nobody writes any more.
    fn settle(&mut self) {
        for _ in 0..3 {
            for n in 0..KERNELS {
                let _ = self.kernels[n].end.poll();
                let runs = (0..100).take_while(|_| self.run(n, End::run_deferred)).count();
                assert!(runs < 100, "kernel {n} finds more without end");
                self.look_at_events();
                self.tick(n, 0);
            }
        }
    }

    fn finish(mut self) {
        self.kernels[HOSTILE].probe.later.lock().unwrap().clear();
        self.settle();
        for (from, to) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            assert!(self.model.lanes[from][to].is_empty(), "from {from} to {to}: lost");
            assert!(!self.model.owed[from][to], "from {from} to {to}: not told of space");
            self.send(from, to, 8, End::send);
            assert!(self.model.lanes[from][to].is_sending(), "from {from} to {to}: not sent");
        }
        self.settle();
        self.heal();
        for n in 0..KERNELS {
            (0..KERNELS).for_each(|id| self.destroy(n, id));
            assert_eq!(self.kernels[n].end.platform().live_mappings(), 0);
        }
    }

    /// The hostile kernel comes back as an honest one, in a region that its host made anew, and can speak with all.
    fn heal(&mut self) {
        let features = Features::all();
        let stamp: [u64; STAMP_WORDS] = zerocopy::transmute!(Stamp::new(self.geometry, features));
        (0..KERNELS).for_each(|n| self.destroy(n, HOSTILE));
        for word in 0..usize::try_from(self.geometry.total_size() / 8).unwrap() {
            let value = stamp.get(word).copied().unwrap_or(0);
            self.machine.poke(self.at(HOSTILE, 0, word), value);
        }
        for n in 0..HOSTILE {
            self.attach_anew(n, HOSTILE);
        }
        self.restart(HOSTILE);
        self.settle();
        let number = 0xab_u64.to_le_bytes();
        for (from, to) in [(HOSTILE, 0), (HOSTILE, 1), (0, HOSTILE), (1, HOSTILE), (HOSTILE, HOSTILE)] {
            let sent = self.kernels[from].end.send(instance(to), MessageType(0), &number);
            assert_eq!(sent, Ok(()), "from {from} to {to}");
            let _ = self.kernels[to].end.poll();
            let mut runs = 0..100;
            while self.kernels[to].end.run_deferred().more {
                assert!(runs.next().is_some());
            }
            let log = std::mem::take(&mut *self.kernels[to].probe.log.lock().unwrap());
            assert_eq!(log, [(from, number.to_vec())], "from {from} to {to}");
        }
        for n in 0..KERNELS {
            for (id, event) in self.kernels[n].end.platform().peer_events() {
                assert!(!matches!(event, PeerEvent::Quarantined(Breach::Lap)), "{event:?} of {id:?} at {n}");
            }
        }
    }
}
