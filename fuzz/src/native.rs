// SPDX-License-Identifier: MIT OR Apache-2.0
//! Three kernels with native links. One of them is hostile: it writes any values to all pages that it can write. The others can
//! become hostile too, until their next life begins. A kernel that is not hostile is called honest.
//!
//! Between honest kernels each message must be delivered once and in order, also after new attachments, restarts and lost
//! doorbells, and must name the life that sent it. One thread makes all calls. So a handler writes the words that a hostile
//! kernel writes during a drain.

mod end;
pub(crate) mod foretell;
mod model;
mod scribble;

use arbitrary::{Arbitrary, Unstructured};
use mk_ipi_abi::native::{control, header, lines_of, receiver, Geometry, Hello, Phase};
use mk_ipi_abi::{Incarnation, InstanceId, MessageType, PhysAddr, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::platform::{Peer, PeerEvent};
use mk_ipi_core::{AddError, Endpoint, Handler, InstanceConfig, LinkConfig, Message, SendError};
use mk_ipi_mock::{Machine, MockPlatform};
use model::{Model, Sent};
use scribble::Scribble;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

const CPUS: [u64; 3] = [0, 3, 5];
const KERNELS: usize = 3;
/// The kernel that is hostile from the beginning.
const HOSTILE: usize = 2;
const MAX_LEN: usize = 256;
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
    Many {
        from: u8,
        to: u8,
        lens: [u8; 4],
        ring: bool,
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
    Poller {
        kernel: u8,
        polls: u8,
    },
    Interrupt(u8),
    Scribble {
        by: u8,
        what: Scribble,
    },
    /// The same as `Scribble`, but the word is written when the next message is handed to a handler.
    ScribbleLater {
        by: u8,
        what: Scribble,
    },
    /// A kernel becomes hostile, and stays so until its next life begins.
    Turn(u8),
    /// An instance is destroyed and attached again.
    Attach {
        by: u8,
        id: u8,
    },
    Restart {
        kernel: u8,
        discard: bool,
    },
    /// The same as `Restart`, but the former life becomes hostile, and writes these words before it ends.
    RestartAfter {
        kernel: u8,
        parting: [Scribble; 4],
    },
    WantSpace {
        from: u8,
        to: u8,
        len: u16,
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

/// A message that was handed out: its sender, the life of the receiver, and the sending CPU that the message names.
#[derive(Clone)]
struct Got {
    from: usize,
    sent: Sent,
    ours: Incarnation,
    cpu: PhysCpuId,
}

/// The words that hostile kernels will write during drains: the kernel, the address and the value.
type Later = VecDeque<(usize, PhysAddr, u64)>;

/// A handler that stores each message in a log, and then writes the next word of a hostile kernel.
#[derive(Clone)]
struct Probe {
    log: Arc<Mutex<Vec<Got>>>,
    later: Arc<Mutex<Later>>,
    machine: Arc<Machine>,
}

impl Handler for Probe {
    fn handle(&self, message: &Message<'_>) {
        assert!(message.payload().len() <= MAX_LEN);
        let life = message.sender_incarnation();
        let number = message.number().expect("a lane");
        self.log.lock().unwrap().push(Got {
            from: message.sender().expect("a lane").index(),
            sent: Sent { payload: message.payload().to_vec(), life, number },
            ours: message.receiver_incarnation().expect("a lane"),
            cpu: message.sender_cpu(),
        });
        if let Some((_, at, value)) = self.later.lock().unwrap().pop_front() {
            self.machine.poke(at, value);
        }
    }
}

struct Kernel {
    end: Box<End>,
    life: Incarnation,
    probe: Probe,
}

struct World {
    machine: Arc<Machine>,
    geometry: Geometry,
    regions: [PhysRange; KERNELS],
    kernels: [Kernel; KERNELS],
    model: Model,
    count: u64,
}

/// Does the operations that the bytes describe, and checks their results.
pub fn native(data: &[u8]) {
    let Some((lines, mut world)) = World::after(data) else { return };
    // Not for each input, because it reads all of the memory.
    if lines < 64 {
        world.foretell();
    }
    world.finish();
}

fn instance(n: usize) -> InstanceId {
    InstanceId::new(u8::try_from(n).unwrap())
}

fn k(n: u8) -> usize {
    usize::from(n) % KERNELS
}

/// All pairs of kernels.
fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..KERNELS).flat_map(|from| (0..KERNELS).map(move |to| (from, to)))
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

fn begin(machine: &Machine, n: usize, life: Incarnation, probe: Probe) -> Box<End> {
    let end = Box::new(End::new(machine.kernel(n)));
    end.identify(instance(n), life);
    let _ = end.register(MessageType(0), probe).unwrap();
    end
}

impl World {
    /// Makes a machine, and does the operations that the bytes describe. Also returns the first byte, which selects the number of
    /// lines of a lane.
    fn after(data: &[u8]) -> Option<(u8, Self)> {
        let mut input = Unstructured::new(data);
        let lines = input.arbitrary::<u8>().ok()?;
        let mut world = Self::new([8, 8, 16, 64][usize::from(lines) % 4]);
        while let (false, Ok(op)) = (input.is_empty(), input.arbitrary()) {
            world.apply(&op);
        }
        Some((lines, world))
    }

    fn new(lines: u32) -> Self {
        let machine = CPUS.iter().fold(Machine::builder().memory(32), |b, cpu| b.kernel(&[*cpu])).build();
        let machine = Arc::new(machine);
        let geometry = Geometry::new(KERNELS as u32, lines, MAX_LEN as u32).unwrap();
        let regions = [(); KERNELS].map(|()| machine.native_region(geometry));
        let later: Arc<Mutex<Later>> = Arc::default();
        let kernels = [0, 1, 2].map(|n| {
            let probe = Probe { log: Arc::default(), later: later.clone(), machine: machine.clone() };
            let life = Incarnation::FIRST;
            Kernel { end: begin(&machine, n, life, probe.clone()), life, probe }
        });
        let mut world = Self { machine, geometry, regions, kernels, model: Model::default(), count: 0 };
        for (by, id) in pairs() {
            world.attach(by, id).unwrap();
        }
        world.model.turn(HOSTILE);
        world
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Send { from, to, len } => self.send(k(from), k(to), usize::from(len % 300), End::send),
            Op::Post { from, to, len } => self.send(k(from), k(to), len.into(), End::post),
            Op::Many { from, to, lens, ring } => self.many(k(from), k(to), lens, ring),
            // `send_from_nmi` does not continue the handshake, so it can always fail with `Unanswered`.
            Op::SendFromNmi { from, to, len } => {
                self.send_as(k(from), k(to), len.into(), true, End::send_from_nmi)
            }
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
                (0..8).for_each(|n| self.send(k(from), k(to), n * 13, End::send));
            }
            Op::Flush { from, to } => drop(self.kernels[k(from)].end.flush(instance(k(to)))),
            Op::Poll(n) => drop(self.kernels[k(n)].end.poll()),
            Op::Deferred(n) => drop(self.run(k(n), End::run_deferred)),
            Op::Drain(n) => drop(self.run(k(n), End::drain)),
            Op::Poller { kernel, polls } => self.poller(k(kernel), polls),
            Op::Interrupt(n) => self.kernels[k(n)].end.on_interrupt(),
            Op::Scribble { by, ref what } => self.scribble(k(by), what, false),
            Op::ScribbleLater { by, ref what } => {
                if let Some((at, value)) = self.hostile(k(by)).and_then(|by| self.resolve(by, what, false)) {
                    self.later().push_back((k(by), at, value));
                }
            }
            Op::Turn(n) => self.model.turn(k(n)),
            Op::Attach { by, id } => self.attach_anew(k(by), k(id)),
            Op::Restart { kernel, discard } => self.restart(k(kernel), discard, &[]),
            Op::RestartAfter { kernel, ref parting } => self.restart(k(kernel), false, parting),
            Op::WantSpace { from, to, len } => self.want_space(k(from), k(to), usize::from(len % 300)),
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

    // ---- hostile kernels ----

    /// Kernel `by` if it is hostile, else the kernel that is hostile from the beginning. `None` if that one is honest now.
    fn hostile(&self, by: usize) -> Option<usize> {
        [by, HOSTILE].into_iter().find(|n| self.model.hostile[*n])
    }

    /// Whether a restart makes a kernel honest. [`HOSTILE`] is honest only in a fresh region.
    const fn is_of_two_minds(&self, n: usize) -> bool {
        n != HOSTILE
    }

    fn scribble(&mut self, by: usize, what: &Scribble, last: bool) {
        if let Some((at, value)) = self.hostile(by).and_then(|by| self.resolve(by, what, last)) {
            self.machine.poke(at, value);
        }
    }

    fn later(&self) -> std::sync::MutexGuard<'_, Later> {
        self.kernels[HOSTILE].probe.later.lock().unwrap()
    }

    // ---- addresses of words ----

    fn at(&self, region: usize, bytes: u64, word: usize) -> PhysAddr {
        PhysAddr(self.regions[region].start().0 + bytes + 8 * word as u64)
    }

    fn lane(&self, from: usize, to: usize, word: usize) -> PhysAddr {
        self.at(to, self.geometry.lane_at(from as u32).unwrap(), word)
    }

    fn control(&self, from: usize, to: usize, word: usize) -> PhysAddr {
        self.at(to, 0, receiver::CONTROL + from * receiver::CONTROL_WORDS + word)
    }

    /// The value of a word in the control line of this lane, which the receiver writes.
    fn says(&self, from: usize, to: usize, word: usize) -> u64 {
        self.machine.peek(self.control(from, to, word))
    }

    // ---- what kernels do ----

    fn payload(&mut self, len: usize) -> Vec<u8> {
        self.count += 1;
        let mut payload = self.count.to_le_bytes().repeat(len.div_ceil(8));
        payload.truncate(len);
        payload
    }

    fn send(
        &mut self,
        from: usize,
        to: usize,
        len: usize,
        send: impl Fn(&End, InstanceId, MessageType, &[u8]) -> Result<u64, SendError>,
    ) {
        let may_wait = self.may_wait(from, to);
        self.send_as(from, to, len, may_wait, send);
    }

    fn send_as(
        &mut self,
        from: usize,
        to: usize,
        len: usize,
        may_wait: bool,
        send: impl Fn(&End, InstanceId, MessageType, &[u8]) -> Result<u64, SendError>,
    ) {
        let payload = self.payload(len);
        let sent = send(&self.kernels[from].end, instance(to), MessageType(0), &payload);
        assert!(
            len <= MAX_LEN || sent == Err(SendError::TooLong) || !self.model.honest(from, to),
            "{sent:?}"
        );
        self.sent(from, to, sent, may_wait, vec![payload]);
    }

    fn many(&mut self, from: usize, to: usize, lens: [u8; 4], ring: bool) {
        let payloads = lens.map(|len| self.payload(len.into()));
        let may_wait = self.may_wait(from, to);
        let end = &self.kernels[from].end;
        let many = payloads.each_ref().map(Vec::as_slice);
        let many =
            if ring { End::send_many } else { End::post_many }(end, instance(to), MessageType(0), &many);
        let number = end.lane_stats(instance(to)).map_or(0, |stats| stats.number);
        let count = many.unwrap_or(1);
        assert!((1..=4).contains(&count), "{many:?}");
        self.sent(from, to, many.map(|_| number), may_wait, payloads[..count].to_vec());
    }

    /// Whether it is possible that the receiver has not answered this attachment yet.
    fn may_wait(&self, from: usize, to: usize) -> bool {
        let said = self.machine.peek(self.lane(from, to, header::HELLO));
        let first = Hello::from_word(said).is_some_and(|hello| hello.phase == Phase::First);
        !first
            && (said != self.says(from, to, control::ANSWER) || said == 0 || {
                let hello = Hello::from_word(said);
                hello.is_some_and(|hello| hello.phase == Phase::Begin)
            })
    }

    /// Checks the result of a send of these messages, and enters it into the model. The number in the result is that of the last
    /// message.
    fn sent(
        &mut self,
        from: usize,
        to: usize,
        sent: Result<u64, SendError>,
        may_wait: bool,
        payloads: Vec<Vec<u8>>,
    ) {
        if !self.model.honest(from, to) {
            return self.model.lanes[from][to].maybe.extend(payloads);
        }
        let (life, all) = (self.kernels[from].life, u64::from(self.geometry.lines()));
        let (base, credit) = (self.says(from, to, control::BASE), self.says(from, to, control::CREDIT));
        let lane = &mut self.model.lanes[from][to];
        let lines: u64 = payloads.iter().map(|payload| lines_of(payload.len())).sum();
        match sent {
            Ok(end) => {
                let mut number = end - lines;
                for payload in payloads {
                    number += lines_of(payload.len());
                    lane.sent(payload, life, number);
                }
                assert!(!lane.sound || end - credit <= all, "more was sent than there were free lines");
            }
            Err(SendError::TooLong) => return,
            Err(_) if !lane.sound => {}
            Err(SendError::Full) => {
                assert!(lane.number.max(base) + lines - credit > all, "the lane is not full")
            }
            Err(SendError::Unanswered) => {
                assert!(may_wait, "the send failed with Unanswered, but the attachment was answered")
            }
            Err(e) => panic!("{e:?}"),
        }
        lane.ended(sent);
    }

    /// Runs the deferred work or a drain, and checks the messages that were handed out. Returns whether messages may be left.
    fn run(&mut self, n: usize, run: impl Fn(&End) -> mk_ipi_core::Deferred) -> bool {
        let done = run(&self.kernels[n].end);
        let handled = self.look_at_log(n);
        assert!(
            done.messages <= QUEUE && handled <= done.messages,
            "more messages were handled than counted"
        );
        done.more
    }

    fn poller(&mut self, n: usize, polls: u8) {
        if let Some(mut poller) = self.kernels[n].end.poller() {
            (0..polls).for_each(|_| _ = poller.poll());
        }
        self.look_at_log(n);
    }

    /// Checks the messages that were handed out in kernel `n`. Returns their number.
    fn look_at_log(&mut self, n: usize) -> usize {
        let log = std::mem::take(&mut *self.kernels[n].probe.log.lock().unwrap());
        for Got { from, sent, ours, cpu } in &log {
            assert_eq!(*ours, self.kernels[n].life);
            assert!(*cpu == PhysCpuId(CPUS[*from]) || self.model.ever_hostile[*from], "{cpu:?}");
            self.model.received(*from, n, self.kernels[*from].life, sent);
        }
        log.len()
    }

    fn attach(&self, by: usize, id: usize) -> Result<(), AddError> {
        self.kernels[by].end.attach_instance(&config(id), Some(self.regions[id]))
    }

    fn destroy(&self, by: usize, id: usize) {
        let destroyed = self.kernels[by].end.destroy_instance(instance(id));
        assert!(destroyed.is_ok() || id == HOSTILE || by == HOSTILE, "{destroyed:?}");
    }

    /// Kernel `by` attaches `id`, which must succeed if `id` is honest.
    fn attached(&mut self, by: usize, id: usize) {
        let attached = self.attach(by, id);
        assert!(attached.is_ok() || self.model.hostile[id], "{attached:?}");
        let honest = self.model.honest(by, id);
        self.model.lanes[by][id].begin(honest);
        (self.model.wanting[by][id], self.model.owed[by][id]) = (false, false);
    }

    fn attach_anew(&mut self, by: usize, id: usize) {
        self.destroy(by, id);
        self.attached(by, id);
    }

    /// Begins the next life of kernel `n`, which is honest, except for [`HOSTILE`]. If `parting` is not empty, the former life
    /// becomes hostile, and writes these words last.
    fn restart(&mut self, n: usize, discard: bool, parting: &[Scribble]) {
        if !parting.is_empty() {
            self.model.turn(n);
        }
        for from in (0..KERNELS).filter(|_| discard) {
            let answer = Hello::from_word(self.says(from, n, control::ANSWER));
            // Messages of a first life that was not answered yet are not discarded.
            if answer.is_some_and(Hello::may_send) && self.says(from, n, control::BREACH) == 0 {
                self.model.lanes[from][n].discard();
            }
        }
        // Destroying the instances writes only ATTACHED. For the peers this looks almost as if the life had stopped at this
        // moment.
        (0..KERNELS).for_each(|id| self.destroy(n, id));
        self.look_at_events();
        parting.iter().for_each(|what| self.scribble(n, what, true));
        self.later().retain(|(by, ..)| *by != n);
        self.model.hostile[n] &= n == HOSTILE;
        let kernel = &mut self.kernels[n];
        kernel.life = kernel.life.next();
        kernel.end = begin(&self.machine, n, kernel.life, kernel.probe.clone());
        kernel.probe.log.lock().unwrap().clear();
        if discard {
            kernel.end.discard_unread();
        }
        (0..KERNELS).for_each(|id| self.attached(n, id));
    }

    fn want_space(&mut self, from: usize, to: usize, len: usize) {
        let wanted = self.kernels[from].end.want_space(instance(to), len);
        assert!(len <= MAX_LEN || wanted.is_err(), "{wanted:?}");
        if let Ok(now) = wanted {
            self.model.wanting[from][to] = true;
            self.model.owed[from][to] |= !now && self.model.lanes[from][to].sound;
        }
    }

    fn tick(&mut self, n: usize, now: u64) {
        self.look_at_events();
        self.kernels[n].end.tick(now, 100);
        for (peer, event) in self.kernels[n].end.platform().peer_news() {
            let lane = &mut self.model.lanes[n][peer.id.index()];
            match event {
                PeerEvent::Discarded { after, to } if lane.sound => lane.told_of(after, to),
                event => self.event(n, peer, event),
            }
        }
        (0..KERNELS).filter(|to| *to != n).for_each(|to| self.model.lanes[n][to].all_told());
    }

    fn stop(&mut self, by: usize, to: usize) {
        let life = self.kernels[to].life;
        let _ = self.kernels[by].end.stop(instance(to), life);
        if by == 0 {
            self.model.stopped[to] = Some(life);
        }
    }

    fn look_at_events(&mut self) {
        for n in 0..KERNELS {
            for (peer, event) in self.kernels[n].end.platform().peer_news() {
                assert!(
                    !matches!(event, PeerEvent::Discarded { .. } | PeerEvent::InDoubt { .. }),
                    "this is reported only in a tick"
                );
                self.event(n, peer, event);
            }
            let stops = self.kernels[n].end.platform().stops();
            let told = std::mem::replace(&mut self.model.stops[n], stops) != stops;
            let by_host = self.model.stopped[n] == Some(self.kernels[n].life) || self.model.ever_hostile[0];
            assert!(self.model.ever_hostile[n] || !told || by_host);
        }
    }

    fn event(&mut self, n: usize, peer: Peer, event: PeerEvent) {
        let (id, model) = (peer.id.index(), &mut self.model);
        assert_eq!(peer.ours, self.kernels[n].life);
        let life = self.kernels[id].life;
        let honest = model.honest(n, id);
        match event {
            // If a former life of the peer or of this kernel has written wrong words, the present life of the peer must not be
            // put into quarantine for them.
            PeerEvent::Quarantined(_) if honest => {
                let by_former = model.ever_hostile[id] && peer.theirs != Some(life);
                assert!(by_former, "{event:?} of {id}, {peer:?}");
            }
            PeerEvent::Refused(_) | PeerEvent::InDoubt { .. } => {
                assert!(!model.lanes[n][id].sound, "{event:?}, {peer:?}");
            }
            PeerEvent::Space => {
                assert!(model.wanting[n][id] || !honest, "space is reported, but was not requested");
                (model.wanting[n][id], model.owed[n][id]) = (false, false);
            }
            PeerEvent::Began(began) if honest => {
                assert!(began.get() <= life.get() || model.ever_hostile[n], "{began:?}")
            }
            PeerEvent::Up(up) if honest => assert_eq!(up, life),
            _ => {}
        }
    }
}
