// SPDX-License-Identifier: MIT OR Apache-2.0
//! Three kernels send and receive by RFC v2 while any values are written to their slots.
//!
//! One thread makes all calls, so each result can be predicted. The loom models test races.

use arbitrary::{Arbitrary, Unstructured};
use mk_ipi_abi::rfc_v2::{Claim, SLOT_WORDS};
use mk_ipi_abi::{Incarnation, InstanceId, MessageType, Pfn, PhysAddr, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::sync::{AtomicBool, Ordering::Relaxed};
use mk_ipi_core::{Endpoint, Handle, Handler, InstanceConfig, LinkConfig, Message, SendError, SlotPolicy};
use mk_ipi_mock::{Machine, MockPlatform, POISON_FREE};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex};

const CPUS: [u64; 3] = [0, 3, 5];
const SLOTS: usize = 8;
const TYPES: u8 = 4;
const HANDLERS: usize = 8;
const QUEUE: usize = 4;
type End = Endpoint<MockPlatform, Probe, 4, HANDLERS, QUEUE>;

#[derive(Arbitrary, Debug)]
enum Op {
    Send {
        from: u8,
        to: u8,
        ty: u8,
        len: u16,
    },
    SendToCpu {
        from: u8,
        to: u8,
        cpu: u8,
        len: u8,
    },
    Scribble {
        region: u8,
        slot: u8,
        word: u8,
        value: Value,
    },
    /// Several messages, each followed by an interrupt of the receiver.
    Burst {
        from: u8,
        to: u8,
        len: u8,
    },
    Interrupt(u8),
    Deferred(u8),
    Poll(u8),
    ClearClaims {
        by: u8,
        of: u8,
        life: u8,
    },
    Add {
        by: u8,
        id: u8,
    },
    Destroy {
        by: u8,
        id: u8,
    },
    Register {
        by: u8,
        ty: u8,
    },
    Unregister {
        by: u8,
        index: u8,
    },
    MapPfn {
        by: u8,
        pfn: u16,
    },
}

/// The value that a hostile peer writes. Many are chosen so that they can do harm.
#[derive(Arbitrary, Debug)]
enum Value {
    Small(u16),
    Claim { of: u8, life: u8 },
    Header { cpu: u8, ty: u8 },
    Any(u64),
}

/// A message that was handed out: its type and its payload.
type Got = (MessageType, Vec<u8>);

/// A handler that panics if it is called after it was unregistered (`ended`).
#[derive(Clone)]
struct Probe {
    msg_type: MessageType,
    ended: Arc<AtomicBool>,
    log: Arc<Mutex<Vec<Got>>>,
}

impl Handler for Probe {
    fn handle(&self, message: &Message<'_>) {
        assert!(!self.ended.load(Relaxed), "called after it was unregistered");
        assert_eq!(message.msg_type(), self.msg_type);
        assert!((1..=256).contains(&message.payload().len()));
        self.log.lock().unwrap().push((message.msg_type(), message.payload().to_vec()));
    }
}

struct Kernel {
    end: Box<End>,
    id: InstanceId,
    /// The messages that the permanent handlers got. There is one such handler for each type.
    log: Arc<Mutex<Vec<Got>>>,
    more: Vec<(Handle, Probe)>,
    ended: Vec<Handle>,
    /// Whether a message was left in the slot, so that the deferred work must fetch it.
    left: bool,
    /// Which instances are in this kernel's table.
    knows: [bool; 3],
    /// The messages that were sent to this kernel and not delivered yet. `None` if its slot has the overwrite policy, or if it
    /// was changed by anything but a send.
    expected: Option<VecDeque<Vec<u8>>>,
}

struct World {
    machine: Machine,
    kernels: [Kernel; 3],
    regions: [PhysRange; 3],
    /// The expected contents of the regions.
    memory: [Vec<u64>; 3],
    policies: [SlotPolicy; 3],
    sent: u8,
}

/// Does the operations that the bytes describe, and checks their results.
pub fn slot(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(exclusive) = input.arbitrary::<[bool; 3]>() else { return };
    let mut world =
        World::new(exclusive.map(|e| if e { SlotPolicy::Exclusive } else { SlotPolicy::Overwrite }));
    while let (false, Ok(op)) = (input.is_empty(), input.arbitrary()) {
        world.apply(&op);
    }
    world.finish();
}

fn instance(n: usize) -> InstanceId {
    InstanceId::new(u8::try_from(n).unwrap())
}

/// The words of the slot that instance `id` reads.
fn slot_of(id: usize) -> Range<usize> {
    let first = usize::try_from(CPUS[id]).unwrap() * SLOT_WORDS;
    first..first + SLOT_WORDS
}

impl World {
    fn new(policies: [SlotPolicy; 3]) -> Self {
        let mut builder = Machine::builder().memory(8);
        for (n, cpu) in CPUS.iter().enumerate() {
            builder = builder.kernel(&[*cpu]).pool(instance(n), 1);
        }
        let machine = builder.build();
        let kernels = [0, 1, 2].map(|n| Kernel::new(&machine, n, policies[n]));
        let start = [PhysRange::new(PhysAddr(4096), 8).unwrap(); 3];
        let memory = [(); 3].map(|()| vec![0; SLOTS * SLOT_WORDS]);
        let mut world = Self { machine, kernels, regions: start, memory, policies, sent: 0 };
        world.regions = [0, 1, 2].map(|id| world.kernels[0].end.create_instance(&world.config(id)).unwrap());
        for kernel in 1..3 {
            (0..3).for_each(|id| world.attach(kernel, id).unwrap());
        }
        world
    }

    fn config(&self, id: usize) -> InstanceConfig<'static> {
        const LISTS: [[PhysCpuId; 1]; 3] = [[PhysCpuId(CPUS[0])], [PhysCpuId(CPUS[1])], [PhysCpuId(CPUS[2])]];
        InstanceConfig {
            id: instance(id),
            incarnation: Incarnation::FIRST,
            cpus: &LISTS[id],
            doorbell_cpu: LISTS[id][0],
            vector: Vector::RFC_V2,
            link: LinkConfig::RfcV2 { slots: SLOTS as u32, policy: self.policies[id] },
            one_doorbell: false,
        }
    }

    fn attach(&self, kernel: usize, id: usize) -> Result<(), mk_ipi_core::AddError> {
        self.kernels[kernel].end.attach_instance(&self.config(id), Some(self.regions[id]))
    }

    fn word(&self, id: usize, index: usize) -> u64 {
        self.machine.peek(PhysAddr(self.regions[id].start().0 + 8 * index as u64))
    }

    /// Checks that the slot that instance `id` reads has the expected content.
    fn check(&self, id: usize) {
        slot_of(id).for_each(|i| assert_eq!(self.word(id, i), self.memory[id][i], "word {i} of region {id}"));
    }

    fn apply(&mut self, op: &Op) {
        let k = |n: &u8| usize::from(*n) % 3;
        match op {
            Op::Send { from, to, ty, len } => {
                self.send(k(from), k(to), None, ty % TYPES, usize::from(len % 300))
            }
            Op::SendToCpu { from, to, cpu, len } => {
                self.send(k(from), k(to), Some(PhysCpuId((cpu % 9).into())), 0, (*len).into());
            }
            Op::Scribble { region, slot, word, value } => self.scribble(k(region), *slot, *word, value),
            Op::Burst { from, to, len } => {
                for ty in 0..=QUEUE {
                    self.send(k(from), k(to), None, ty as u8 % TYPES, (*len).into());
                    self.receive(k(to), false);
                }
            }
            Op::Interrupt(n) => self.receive(k(n), false),
            Op::Poll(n) => self.receive(k(n), true),
            Op::Deferred(n) => self.deferred(k(n)),
            Op::ClearClaims { by, of, life } => {
                let life = Incarnation::new((*life).into()).unwrap_or(Incarnation::FIRST);
                self.kernels[k(by)].end.clear_claims(instance(k(of)), life);
            }
            Op::Add { by, id } => self.add(k(by), k(id)),
            Op::Destroy { by, id } => self.destroy(k(by), k(id)),
            Op::Register { by, ty } => self.kernels[k(by)].register(*ty),
            Op::Unregister { by, index } => self.kernels[k(by)].unregister((*index).into()),
            Op::MapPfn { by, pfn } => {
                let kernel = self.kernels[k(by)].end.platform();
                let before = kernel.live_mappings();
                let page = self.kernels[k(by)].end.map_pfn(Pfn((*pfn).into()));
                assert_eq!(
                    page.is_ok(),
                    (0x100..0x108).contains(pfn),
                    "only the 8 pages of the machine can be mapped"
                );
                drop(page);
                assert_eq!(kernel.live_mappings(), before);
            }
        }
    }

    /// Sends a message. Checks the result, and that only the expected words are written.
    fn send(&mut self, from: usize, to: usize, cpu: Option<PhysCpuId>, ty: u8, len: usize) {
        self.sent = self.sent.wrapping_add(1);
        let payload: Vec<u8> = (0..len).map(|i| self.sent.wrapping_add(i.to_le_bytes()[0])).collect();
        let slot = &mut self.memory[to][slot_of(to)];
        let (end, ty) = (&self.kernels[from].end, MessageType(ty.into()));
        let result = match cpu {
            None => end.send(instance(to), ty, &payload),
            Some(cpu) => end.send_to_cpu(instance(to), cpu, ty, &payload),
        };
        match (len, cpu) {
            _ if !self.kernels[from].knows[to] => assert!(matches!(result, Err(SendError::Instance(_)))),
            (0, _) => assert_eq!(result, Err(SendError::Empty)),
            (257.., _) => assert_eq!(result, Err(SendError::TooLong)),
            (_, Some(cpu)) if cpu.0 != CPUS[to] => assert_eq!(result, Err(SendError::NotItsCpu(cpu))),
            _ if self.policies[to] == SlotPolicy::Exclusive && slot[1] != 0 => {
                assert_eq!(result, Err(SendError::Busy));
            }
            _ => {
                assert_eq!(result, Ok(0));
                (slot[0], slot[1]) = (CPUS[from] | u64::from(ty.0) << 32, len as u64);
                let padded: Vec<u8> = payload.iter().copied().chain(std::iter::repeat(0)).take(256).collect();
                for (word, bytes) in slot[2..].iter_mut().zip(padded.chunks_exact(8)) {
                    *word = u64::from_le_bytes(bytes.try_into().unwrap());
                }
                self.kernels[to].expected.iter_mut().for_each(|e| e.push_back(payload.clone()));
            }
        }
        self.check(to);
    }

    fn scribble(&mut self, region: usize, slot: u8, word: u8, value: &Value) {
        let word = usize::from(word) % SLOT_WORDS;
        // In most cases write to the slot that the instance reads.
        let first = if slot < 200 { slot_of(region).start } else { usize::from(slot) % SLOTS * SLOT_WORDS };
        let index = first + word;
        let value = match *value {
            Value::Small(n) => n.into(),
            Value::Claim { of, life } => {
                let incarnation = Incarnation::new(life.into()).unwrap_or(Incarnation::FIRST);
                Claim { instance: InstanceId::new(of), incarnation }.to_data_size()
            }
            Value::Header { cpu, ty } => u64::from(cpu) | u64::from(ty % TYPES) << 32,
            Value::Any(n) => n,
        };
        self.machine.poke(PhysAddr(self.regions[region].start().0 + 8 * index as u64), value);
        self.memory[region][index] = value;
        if slot_of(region).contains(&index) {
            self.kernels[region].expected = None;
        }
    }

    /// Calls the interrupt handler, or polls. This must take the message in the slot, if there is one, and may only write what
    /// the policy allows.
    fn receive(&mut self, n: usize, poll: bool) {
        let end = &self.kernels[n].end;
        let before = end.stats();
        if poll {
            let possible = self.kernels[n].knows[n] && self.policies[n] == SlotPolicy::Exclusive;
            assert_eq!(end.poll().is_ok(), possible);
        } else {
            end.on_interrupt();
        }
        let after = end.stats();
        let size = &mut self.memory[n][slot_of(n).start + 1];
        let (received, bad) = (after.received - before.received, after.bad_size - before.bad_size);
        let exclusive = self.policies[n] == SlotPolicy::Exclusive;
        let looked = self.kernels[n].knows[n] && (!poll || exclusive);
        let full = before.received - before.handled - before.unhandled == QUEUE as u64;
        let message = looked && (1..=256).contains(size);
        assert_eq!(received, u64::from(message && !full));
        assert!(bad == 0 || *size > 256);
        if exclusive && (received == 1 || (bad == 1 && !full)) {
            *size = 0;
        }
        self.kernels[n].left |= exclusive && message && full;
        self.check(n);
    }

    /// Runs the deferred work. It may fetch a message that was left in the slot, and must write nothing else.
    fn deferred(&mut self, n: usize) {
        let at = slot_of(n).start + 1;
        self.kernels[n].deferred();
        let (before, after) = (self.memory[n][at], self.word(n, at));
        assert!(after == before || (after == 0 && self.policies[n] == SlotPolicy::Exclusive));
        self.memory[n][at] = after;
        self.check(n);
    }

    fn add(&mut self, by: usize, id: usize) {
        let known = self.kernels[by].knows[id];
        if by == 0 {
            // The host creates the region again, in the only page of that pool.
            match self.kernels[0].end.create_instance(&self.config(id)) {
                Ok(range) => {
                    assert!(!known && range == self.regions[id]);
                    self.memory[id].fill(0);
                }
                Err(_) => assert!(known),
            }
        } else {
            assert_eq!(self.attach(by, id).is_ok(), !known);
        }
        self.kernels[by].knows[id] = true;
        self.check(id);
    }

    fn destroy(&mut self, by: usize, id: usize) {
        let known = std::mem::replace(&mut self.kernels[by].knows[id], false);
        assert_eq!(self.kernels[by].end.destroy_instance(instance(id)).is_ok(), known);
        // Now the host has freed the memory, or the kernel has no region of its own. So no pending message will be delivered.
        if known && (by == 0 || by == id) {
            self.kernels[id].expected = None;
        }
        if known && by == 0 {
            self.memory[id].fill(POISON_FREE);
        }
    }

    /// Checks that all messages are delivered in the end, and that no mapping and no memory is left.
    fn finish(mut self) {
        for n in 0..3 {
            for _ in 0..2 * QUEUE {
                self.receive(n, false);
                self.deferred(n);
            }
            (0..SLOTS * SLOT_WORDS).for_each(|i| assert_eq!(self.word(n, i), self.memory[n][i]));
            assert!(self.kernels[n].expected.as_ref().is_none_or(VecDeque::is_empty), "a message is lost");
        }
        for by in [1, 2, 0] {
            (0..3).for_each(|id| self.destroy(by, id));
            assert_eq!(self.kernels[by].end.platform().live_mappings(), 0);
        }
        (0..3).for_each(|id| assert_eq!(self.machine.pool_used(instance(id)), 0));
    }
}

impl Kernel {
    fn new(machine: &Machine, n: usize, policy: SlotPolicy) -> Self {
        let (end, log) = (Box::new(End::new(machine.kernel(n))), Arc::new(Mutex::new(Vec::new())));
        let id = instance(n);
        end.identify(id, Incarnation::FIRST);
        for ty in 0..TYPES {
            let msg_type = MessageType(ty.into());
            let probe = Probe { msg_type, ended: Arc::new(AtomicBool::new(false)), log: log.clone() };
            let _ = end.register(msg_type, probe).unwrap();
        }
        let expected = (policy == SlotPolicy::Exclusive).then(VecDeque::new);
        let (more, ended) = (Vec::new(), Vec::new());
        Self { end, id, log, more, ended, left: false, knows: [true; 3], expected }
    }

    fn deferred(&mut self) {
        let before = self.end.stats();
        let done = self.end.run_deferred();
        let after = self.end.stats();
        let called = std::mem::take(&mut *self.log.lock().unwrap());
        let (handled, unhandled) = (after.handled - before.handled, after.unhandled - before.unhandled);
        assert_eq!(handled, called.len() as u64, "a message was not counted exactly once");
        assert_eq!((handled + unhandled) as usize, done.messages);
        assert!(done.messages <= QUEUE);
        for (_, probe) in &self.more {
            let same = |(msg_type, _): &&Got| *msg_type == probe.msg_type;
            let theirs = std::mem::take(&mut *probe.log.lock().unwrap());
            assert!(theirs.iter().eq(called.iter().filter(same)));
        }
        if let Some(expected) = &mut self.expected {
            for (_, payload) in &called {
                assert_eq!(expected.pop_front().as_ref(), Some(payload), "instance {:?}", self.id);
            }
            assert!(
                done.more || !self.left || expected.is_empty(),
                "a message that was left in the slot is not fetched"
            );
        }
        // The message is still left only if there is more to do and this run fetched no message.
        self.left &= done.more && after.received == before.received;
    }

    fn register(&mut self, ty: u8) {
        let msg_type = MessageType((ty % TYPES).into());
        let probe = Probe { msg_type, ended: Arc::new(AtomicBool::new(false)), log: Arc::default() };
        match self.end.register(msg_type, probe.clone()) {
            Ok(handle) => self.more.push((handle, probe)),
            Err(_) => assert_eq!(self.more.len() + usize::from(TYPES), HANDLERS),
        }
    }

    fn unregister(&mut self, index: usize) {
        for handle in &self.ended {
            assert!(self.end.unregister(*handle).is_err(), "a handle was unregistered twice");
        }
        if self.more.is_empty() {
            return;
        }
        let (handle, probe) = self.more.swap_remove(index % self.more.len());
        assert_eq!(self.end.unregister(handle), Ok(()));
        probe.ended.store(true, Relaxed);
        self.ended.push(handle);
    }
}
