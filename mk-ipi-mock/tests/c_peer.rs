// SPDX-License-Identifier: MIT OR Apache-2.0
//! Our endpoint and a C program exchange messages of every size, in both directions. All bytes of each region are compared (SPEC
//! chapters S and R).
#![cfg(not(miri))]
#![expect(clippy::unwrap_used, clippy::panic, clippy::arithmetic_side_effects, reason = "a test may panic")]

use mk_ipi_core::abi::rfc_v2::{region_size, SLOT_SIZE};
use mk_ipi_core::abi::{Incarnation, InstanceId, MessageType, PhysAddr, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::{Endpoint, Handler, InstanceConfig, LinkConfig, Message, SlotPolicy};
use mk_ipi_mock::{Machine, MockPlatform};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

// These numbers must be the same as in peer.c.
const NR_CPUS: u32 = 8;
const SENDER: PhysCpuId = PhysCpuId(5);
const TYPE: MessageType = MessageType(0xfedc_ba98);
/// The receiving CPU. Its slot is neither the first of the region nor the last.
const RECEIVER: PhysCpuId = PhysCpuId(3);
const REGION: usize = NR_CPUS as usize * SLOT_SIZE;

/// Returns the payload of the message of this size. peer.c computes the same bytes.
fn payload(size: usize) -> Vec<u8> {
    (0..size).map(|i| (31 * i + 7 * size + 1).to_le_bytes()[0]).collect()
}

/// Returns the path of the C program. The first call compiles it.
fn peer() -> &'static Path {
    static PEER: OnceLock<PathBuf> = OnceLock::new();
    PEER.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c/peer.c");
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peer");
        let cc = std::env::var("CC").unwrap_or_else(|_| "cc".into());
        let mut compile = Command::new(&cc);
        compile.args(["-std=c11", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-o"]);
        let status = compile.args([&program, &source]).status().unwrap_or_else(|e| {
            panic!(
                "the C compiler `{cc}` cannot be run ({e}): install one (Debian: gcc), or set CC to its name"
            )
        });
        assert!(status.success(), "`{cc}` does not compile {}", source.display());
        program
    })
}

/// Runs the C program in this mode, with these bytes as its standard input. Returns its standard output.
fn run(mode: &str, input: &[u8]) -> Vec<u8> {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("input-{mode}"));
    std::fs::write(&file, input).unwrap();
    let mut command = Command::new(peer());
    command.args([mode, &RECEIVER.0.to_string()]).stdin(std::fs::File::open(&file).unwrap());
    let out = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(out.status.success(), "{mode}: {}", out.status);
    out.stdout
}

/// A message that was delivered.
struct Delivered {
    sender_cpu: PhysCpuId,
    msg_type: MessageType,
    payload: Vec<u8>,
}

/// A handler that keeps a copy of each message.
#[derive(Clone, Default)]
struct Inbox(Arc<Mutex<Vec<Delivered>>>);

impl Handler for Inbox {
    fn handle(&self, message: &Message<'_>) {
        let (sender_cpu, msg_type) = (message.sender_cpu(), message.msg_type());
        let payload = message.payload().to_vec();
        self.0.lock().unwrap().push(Delivered { sender_cpu, msg_type, payload });
    }
}

/// A machine with a sending and a receiving kernel. The thread of the test acts as the CPU of both.
struct Pair {
    machine: Machine,
    sender: Box<Endpoint<MockPlatform, Inbox>>,
    receiver: Box<Endpoint<MockPlatform, Inbox>>,
    region: PhysRange,
    inbox: Inbox,
}

impl Pair {
    fn new() -> Self {
        let (a, b) = (InstanceId::HOST, InstanceId::new(7));
        let machine = Machine::builder().kernel(&[SENDER.0]).kernel(&[RECEIVER.0]).pool(b, 2).build();
        let [sender, receiver] = [0, 1].map(|k| Box::new(Endpoint::new(machine.kernel(k))));
        let config = InstanceConfig {
            id: b,
            incarnation: Incarnation::FIRST,
            cpus: &[RECEIVER],
            doorbell_cpu: RECEIVER,
            vector: Vector::RFC_V2,
            link: LinkConfig::RfcV2 { slots: NR_CPUS, policy: SlotPolicy::Overwrite },
            one_doorbell: false,
        };
        let region = sender.create_instance(&config).unwrap();
        receiver.attach_instance(&config, Some(region)).unwrap();
        sender.identify(a, Incarnation::FIRST);
        receiver.identify(b, Incarnation::FIRST);
        let inbox = Inbox::default();
        let _ = receiver.register(TYPE, inbox.clone()).unwrap();
        assert_eq!(region.len(), region_size(NR_CPUS));
        Self { machine, sender, receiver, region, inbox }
    }

    fn send(&self, payload: &[u8]) {
        self.sender.send(InstanceId::new(7), TYPE, payload).unwrap();
    }

    fn words(&self) -> impl Iterator<Item = PhysAddr> {
        let start = self.region.start().0;
        (0..REGION as u64 / 8).map(move |i| PhysAddr(start + 8 * i))
    }

    fn bytes(&self) -> Vec<u8> {
        self.words().flat_map(|at| self.machine.peek(at).to_le_bytes()).collect()
    }

    /// Stores the bytes of a region, rings, and returns what was delivered.
    fn receive(&self, region: &[u8]) -> Vec<Delivered> {
        assert_eq!(region.len(), REGION);
        for (at, word) in self.words().zip(region.chunks_exact(8)) {
            self.machine.poke(at, u64::from_le_bytes(word.try_into().unwrap()));
        }
        self.receiver.on_interrupt();
        self.receiver.run_deferred();
        std::mem::take(&mut self.inbox.0.lock().unwrap())
    }
}

#[test]
fn a_c_receiver_delivers_what_our_sender_sent() {
    let pair = Pair::new();
    let mut regions = pair.bytes();
    for size in 1..=256 {
        pair.send(&payload(size));
        regions.extend(pair.bytes());
    }
    let said = String::from_utf8(run("receive", &regions)).unwrap();
    let mut lines = said.lines();
    assert_eq!(lines.next(), Some("nothing"), "an empty region delivers no message");
    for size in 1..=256 {
        let hex: String = payload(size).iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = format!("{} {} {size} {hex}", SENDER.0, TYPE.0);
        assert_eq!(lines.next(), Some(expected.as_str()));
    }
    assert_eq!(lines.next(), None);
}

#[test]
fn our_receiver_delivers_what_a_c_sender_sent() {
    let (ours, theirs) = (Pair::new(), Pair::new());
    let sent = run("send", &[]);
    let mut regions = sent.chunks_exact(REGION);
    let mut next = || regions.next().unwrap();
    assert!(theirs.receive(next()).is_empty(), "size 0 is no message");
    for size in 1..=256 {
        let region = next();
        let [message] = &theirs.receive(region)[..] else { panic!("expected one message, of {size} bytes") };
        assert_eq!((message.sender_cpu, message.msg_type), (SENDER, TYPE));
        assert_eq!(message.payload, payload(size));
        ours.send(&payload(size));
        assert_eq!(ours.bytes(), region, "{size}: both senders store the same bytes");
        assert_eq!(theirs.bytes(), region, "{size}: our receiver writes nothing");
    }
    assert!(theirs.receive(next()).is_empty(), "size 257 is no message");
    let [zeros] = &theirs.receive(next())[..] else {
        panic!("expected one message, which the C sender sent from a null pointer")
    };
    assert_eq!(zeros.payload, [0; 10]);
    assert!(regions.next().is_none());
    let stats = theirs.receiver.stats();
    assert_eq!((stats.empty, stats.bad_size, stats.handled), (1, 1, 257));
}
