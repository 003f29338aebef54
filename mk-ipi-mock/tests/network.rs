// SPDX-License-Identifier: MIT OR Apache-2.0
//! An Ethernet interface between two kernels of the mock machine (SPEC chapter E).
#![expect(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::panic,
    reason = "tests"
)]

use mk_ipi_abi::native::Geometry;
use mk_ipi_abi::net::{
    Features, FrameHead, Key, Offer, Offload, MAX_FRAME, NET_CONTROL_TYPE, NET_FRAME_TYPE, NET_PART_TYPE,
};
use mk_ipi_abi::{Incarnation, InstanceId, MessageType};
use mk_ipi_core::sync::{AtomicBool, Ordering::SeqCst};
use mk_ipi_core::{Message, SendError};
use mk_ipi_mock::{Callback, Cpu, Link, Machine, Mode};
use mk_ipi_net::{FrameAssembler, FrameError, FrameSplitter, Port};
use std::sync::{Arc, Mutex};

/// One end of the interface, at one kernel.
struct End {
    port: Port,
    gather: FrameAssembler,
    /// How often the port was opened.
    openings: u16,
    /// The frame whose parts are arriving.
    frame: Vec<u8>,
    /// The frames that arrived completely, each with the key that the port had at that time.
    whole: Vec<(Key, Vec<u8>)>,
    /// The number of parts that were refused. Such a part belongs to another opening or to no frame, or the port was closed.
    stale: usize,
}

type Shared = Arc<Mutex<End>>;

/// Makes an end, and registers handlers at `link` that pass its messages to the end.
fn end_on(link: &Link) -> Shared {
    let (port, gather) = (Port::new(), FrameAssembler::new());
    let end =
        Shared::new(Mutex::new(End { port, gather, openings: 0, frame: vec![], whole: vec![], stale: 0 }));
    let on_control = end.clone();
    let hear = move |m: &Message<'_>| {
        let _ = on_control.lock().unwrap().port.receive(m.sender_incarnation(), m.payload()).unwrap();
    };
    let _ = link.register(NET_CONTROL_TYPE, Callback::new(hear)).unwrap();
    for msg_type in [NET_FRAME_TYPE, NET_PART_TYPE] {
        let on_frame = end.clone();
        let take = move |m: &Message<'_>| on_frame.lock().unwrap().take(m);
        let _ = link.register(msg_type, Callback::new(take)).unwrap();
    }
    end
}

impl End {
    /// Opens the port, with a new key.
    fn open(&mut self, me: u8) {
        self.openings += 1;
        let key = Key::of(Incarnation::FIRST, self.openings);
        let mac = [2, 0, 0, 0, 0, me];
        let _ = self.port.open(Offer { key, features: Features::all(), max_frame: MAX_FRAME, mac });
    }

    /// Takes a part of a frame.
    fn take(&mut self, m: &Message<'_>) {
        let ours = self.port.ours().copied();
        match self.gather.take(ours.as_ref(), m.msg_type(), m.payload()) {
            Ok(taken) => {
                if let Some((len, _)) = taken.begins {
                    self.frame = vec![0; len as usize];
                }
                self.frame[taken.at as usize..][..taken.bytes.len()].copy_from_slice(taken.bytes);
                if taken.is_whole {
                    self.whole.push((ours.unwrap().key, std::mem::take(&mut self.frame)));
                }
            }
            Err(FrameError::Stale(_) | FrameError::Closed | FrameError::NotExpected { .. }) => {
                self.stale += 1
            }
            Err(e) => panic!("{e:?}"),
        }
    }
}

/// Sends a message. Tries again while the lane is full.
fn send(cpu: &Cpu, link: &Link, to: InstanceId, msg_type: MessageType, payload: &[u8]) {
    while let Err(e) = link.send(to, msg_type, payload) {
        assert_eq!(e, SendError::Full);
        cpu.relax();
    }
}

/// Sends all control messages that the port has to send.
fn say(cpu: &Cpu, link: &Link, end: &Shared, to: InstanceId) {
    loop {
        let Some(message) = end.lock().unwrap().port.begin_send() else { return };
        send(cpu, link, to, NET_CONTROL_TYPE, &message.encode());
        if !end.lock().unwrap().port.end_send(true) {
            return;
        }
    }
}

/// Returns the bytes of frame number `n` that is sent with `key`. The frame contains both.
fn frame(n: u32, key: Key) -> Vec<u8> {
    let len = 22 + (n as usize * 977) % 9000;
    let mut frame: Vec<u8> = (0..len).map(|at| (at as u32 * 31 + n) as u8).collect();
    frame[14..18].copy_from_slice(&n.to_le_bytes());
    frame[18..22].copy_from_slice(&key.get().to_le_bytes());
    frame
}

const FRAMES: u32 = 40;

/// Kernel 0 sends frames. Meanwhile kernel 1 closes and opens its port `times` times. Checks that frames arrive in order, with
/// the bytes that were sent. Returns how many frames arrived, and how many parts were refused.
fn frames(mode: Mode, geometry: Geometry, times: u16) -> (usize, usize) {
    let machine = Machine::builder().kernel(&[0]).kernel(&[1]).mode(mode).memory(512).build();
    let links: [_; 2] = machine.link_native(geometry);
    let ends = links.each_ref().map(|link| end_on(link));
    let done = AtomicBool::new(false);
    let run = machine.run(|cpu| {
        let me = cpu.kernel();
        let (link, end, to) = (&links[me], &ends[me], InstanceId::new(1 - me as u8));
        end.lock().unwrap().open(me as u8);
        if me == 0 {
            let mut number = 0;
            while number < FRAMES {
                say(cpu, link, end, to);
                let carrier = end.lock().unwrap().port.carrier();
                let Some(theirs) = carrier else {
                    cpu.relax();
                    continue;
                };
                number += 1;
                let frame = frame(number, theirs.key);
                let max = geometry.max_len();
                let mut cut =
                    FrameSplitter::new(&theirs, number, frame.len() as u32, Offload::default(), max).unwrap();
                while let Some(piece) = cut.next() {
                    let bytes = &frame[piece.at as usize..][..piece.len as usize];
                    send(cpu, link, to, piece.msg_type, &[piece.head.as_bytes(), bytes].concat());
                    cut.sent(&piece);
                }
            }
            done.store(true, SeqCst);
        } else {
            let came = || end.lock().unwrap().whole.len();
            let mut before = came();
            for _ in 0..times {
                while came() < before + 3 && !done.load(SeqCst) {
                    say(cpu, link, end, to);
                    cpu.relax();
                }
                before = came();
                let _ = end.lock().unwrap().port.close();
                say(cpu, link, end, to);
                end.lock().unwrap().open(me as u8);
            }
            while !done.load(SeqCst) {
                say(cpu, link, end, to);
                cpu.relax();
            }
            // The last frames arrive during these iterations.
            (0..2000).for_each(|_| cpu.relax());
        }
    });
    run.unwrap();
    let end = ends[1].lock().unwrap();
    let mut last = 0;
    for (key, came) in &end.whole {
        let n = u32::from_le_bytes(came[14..18].try_into().unwrap());
        assert!(n > last, "frame {n} arrived after frame {last}");
        last = n;
        assert_eq!(
            *came,
            frame(n, *key),
            "frame {n} has wrong bytes, or was sent with the key of another opening: {mode:?}"
        );
    }
    (end.whole.len(), end.stale)
}

#[test]
fn frames_arrive_whole_and_in_order_under_every_seed() {
    for seed in 0..20 {
        // The first geometry has the longest messages. In the second one a frame can be longer than the lane.
        for geometry in [Geometry::new(2, 128, 4096), Geometry::new(2, 16, 256)].map(Option::unwrap) {
            let (whole, stale) = frames(Mode::Stepped { seed }, geometry, 0);
            assert_eq!((whole, stale), (FRAMES as usize, 0), "seed {seed}");
        }
    }
}

#[test]
fn no_frame_of_a_former_opening_is_taken_under_every_seed() {
    let mut stale = 0;
    for seed in 0..40 {
        stale += frames(Mode::Stepped { seed }, Geometry::new(2, 128, 4096).unwrap(), 3).1;
    }
    assert_ne!(stale, 0, "no part of a former opening arrived, so this run has tested nothing");
    frames(Mode::Free, Geometry::new(2, 128, 4096).unwrap(), 3);
}

#[test]
fn a_hostile_end_costs_its_own_frames_only() {
    let machine = Machine::builder().kernel(&[0]).kernel(&[1]).memory(512).build();
    let links: [_; 2] = machine.link_native(Geometry::new(2, 128, 4096).unwrap());
    let (end, one) = (end_on(&links[0]), InstanceId::new(1));
    end.lock().unwrap().open(0);
    let key = end.lock().unwrap().port.ours().unwrap().key;
    machine
        .run(|cpu| {
            if cpu.kernel() == 1 {
                let head = FrameHead { key, number: 1, len: 5000, offload: Offload::default() };
                // Kernel 1 sends the first part of a frame, but never its other parts. Then it sends a frame of another opening,
                // and a correct frame.
                send(
                    cpu,
                    &links[1],
                    InstanceId::HOST,
                    NET_FRAME_TYPE,
                    &[&head.encode()[..], &[1; 9]].concat(),
                );
                let stale = FrameHead { key: Key::new(77).unwrap(), len: 20, ..head };
                send(
                    cpu,
                    &links[1],
                    InstanceId::HOST,
                    NET_FRAME_TYPE,
                    &[&stale.encode()[..], &[2; 20]].concat(),
                );
                let good = FrameHead { number: 2, len: 30, ..head };
                send(
                    cpu,
                    &links[1],
                    InstanceId::HOST,
                    NET_FRAME_TYPE,
                    &[&good.encode()[..], &[3; 30]].concat(),
                );
            } else {
                cpu.wait_until(|| !end.lock().unwrap().whole.is_empty());
            }
        })
        .unwrap();
    let end = end.lock().unwrap();
    assert_eq!((end.whole.clone(), end.stale), (vec![(key, vec![3; 30])], 1));
    assert_eq!(links[0].instance(one).map(|_| ()), Ok(()), "the link still works");
}
