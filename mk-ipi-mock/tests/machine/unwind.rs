// SPDX-License-Identifier: MIT OR Apache-2.0
//! Handlers that unwind, which is possible in a process, and messages for which no handler is registered. The link must work
//! after both.

use mk_ipi_abi::native::Geometry;
use mk_ipi_abi::{InstanceId, MessageType};
use mk_ipi_core::SlotPolicy;
use mk_ipi_mock::{Callback, Link, Machine};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Mutex};

const TYPE: MessageType = MessageType(7);
const HOST: InstanceId = InstanceId::HOST;
const PEER: InstanceId = InstanceId::new(1);

type Seen = Arc<Mutex<Vec<u8>>>;

/// Registers a handler that notes the first byte of each message. If the byte is 1, the handler then unwinds.
fn unwinds_at_1(link: &Link) -> Seen {
    let seen = Seen::default();
    let noted = seen.clone();
    let handler = move |m: &mk_ipi_core::Message<'_>| {
        noted.lock().unwrap().push(m.payload()[0]);
        // This unwinds without a panic, because a panic would be printed.
        if m.payload()[0] == 1 {
            std::panic::resume_unwind(Box::new(()));
        }
    };
    let _ = link.register(TYPE, Callback::new(handler)).unwrap();
    seen
}

/// Calls `f`. Returns true if it unwinds.
fn unwinds(f: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(f)).is_err()
}

fn machine() -> Machine {
    Machine::builder().memory(1024).kernel(&[0]).kernel(&[1]).build()
}

/// The message of the handler counts as handled: no message is delivered twice or lost, and the receiver sets ARMED to 1 again.
#[test]
fn a_handler_that_unwinds_on_a_lane_has_had_its_message() {
    let machine = machine();
    let [host, peer] = machine.link_native(Geometry::new(2, 8, 256).unwrap());
    machine.run(|_| ()).unwrap();
    let seen = unwinds_at_1(&peer);
    for n in [0, 1, 2] {
        host.post(PEER, TYPE, &[n]).unwrap();
    }
    assert!(unwinds(|| _ = peer.run_deferred()));
    assert_eq!(*seen.lock().unwrap(), [0, 1]);
    // `run_deferred` has scheduled the deferred work again before it unwound.
    machine.run(|_| ()).unwrap();
    assert_eq!(*seen.lock().unwrap(), [0, 1, 2]);
    host.send(PEER, TYPE, &[3]).unwrap();
    machine.run(|_| ()).unwrap();
    assert_eq!(*seen.lock().unwrap(), [0, 1, 2, 3], "the receiver was rung");
    assert_eq!(host.handled(PEER).unwrap(), host.lane_stats(PEER).unwrap().number);
}

#[test]
fn a_handler_that_unwinds_in_a_poll_has_had_its_message() {
    let machine = machine();
    let [host, peer] = machine.link_native(Geometry::new(2, 8, 256).unwrap());
    machine.run(|_| ()).unwrap();
    let seen = unwinds_at_1(&peer);
    let mut poller = peer.poller().unwrap();
    for n in [0, 1, 2] {
        host.post(PEER, TYPE, &[n]).unwrap();
    }
    // After this many polls, each lane was read.
    let unwound = (0..600).filter(|_| unwinds(|| _ = poller.poll())).count();
    assert_eq!((unwound, &seen.lock().unwrap()[..]), (1, &[0, 1, 2][..]));
    // A poller that is made after `run_deferred` has unwound does not deliver the message again either.
    drop(poller);
    machine.run(|_| ()).unwrap();
    host.post(PEER, TYPE, &[1]).unwrap();
    assert!(unwinds(|| _ = peer.run_deferred()));
    let mut poller = peer.poller().unwrap();
    (0..600).for_each(|_| _ = poller.poll());
    assert_eq!(*seen.lock().unwrap(), [0, 1, 2, 1]);
    drop(poller);
    machine.run(|_| ()).unwrap();
    host.send(PEER, TYPE, &[3]).unwrap();
    machine.run(|_| ()).unwrap();
    assert_eq!(seen.lock().unwrap().len(), 5);
}

#[test]
fn a_handler_that_unwinds_behind_a_slot_has_had_its_message() {
    let machine = machine();
    let [host, peer] = machine.link(SlotPolicy::Exclusive);
    let seen = unwinds_at_1(&peer);
    let spare = peer.register(MessageType(8), Callback::new(|_: &mk_ipi_core::Message<'_>| ())).unwrap();
    for n in [1, 2] {
        host.send(PEER, TYPE, &[n]).unwrap();
        peer.poll().unwrap();
    }
    assert!(unwinds(|| _ = peer.run_deferred()));
    machine.run(|_| ()).unwrap();
    assert_eq!(*seen.lock().unwrap(), [1, 2]);
    peer.unregister(spare).unwrap();
}

/// A message is in the queue when its handler is unregistered. The core passes it to `Observer::unhandled`.
#[test]
fn a_message_that_no_handler_takes_is_reported() {
    let machine = machine();
    let [host, peer] = machine.link(SlotPolicy::Exclusive);
    let handler = peer.register(TYPE, Callback::new(|_: &mk_ipi_core::Message<'_>| ())).unwrap();
    host.send(PEER, TYPE, &[5]).unwrap();
    peer.poll().unwrap();
    peer.unregister(handler).unwrap();
    machine.run(|_| ()).unwrap();
    assert_eq!(machine.kernel(1).unhandled(), [(None, TYPE, vec![5])]);
    assert_eq!(peer.stats().unhandled, 1);

    let [host, peer] = machine.link_native(Geometry::new(2, 8, 256).unwrap());
    machine.run(|_| ()).unwrap();
    host.send(PEER, TYPE, &[6]).unwrap();
    machine.run(|_| ()).unwrap();
    assert_eq!(machine.kernel(1).unhandled(), [(Some(HOST), TYPE, vec![6])]);
    assert_eq!(peer.stats().unhandled, 1);
}
