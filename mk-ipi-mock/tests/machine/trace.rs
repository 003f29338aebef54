// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of `chrome_trace`: an arrow goes from every send to its handler, and from every doorbell to its interrupt. Every slice
//! (a bar in the track of a CPU) ends. The death of a kernel and its next life are shown. Without `Builder::trace` the trace has
//! only names.

use mk_ipi_abi::native::Geometry;
use mk_ipi_abi::{Incarnation, InstanceId, MessageType};
use mk_ipi_core::sync::{AtomicU64, Ordering::Relaxed};
use mk_ipi_mock::{Callback, Fault, Machine, Mode};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

const TYPE: MessageType = MessageType(7);
const TO: InstanceId = InstanceId::new(1);

/// Returns the events of the machine's trace.
fn events(machine: &Machine) -> Vec<Value> {
    let trace: Value = serde_json::from_str(&machine.chrome_trace()).unwrap();
    trace["traceEvents"].as_array().unwrap().clone()
}

/// Returns a field of an event, or an empty text if the field is absent or not a text.
fn text<'a>(event: &'a Value, field: &str) -> &'a str {
    event[field].as_str().unwrap_or("")
}

/// Checks that slices are nested and end, and that the arrow of each message ends. The arrow of a doorbell need not end. Returns
/// for each arrow that ends the name of the event at which it begins, and the name of the slice in which it ends.
fn arrows(events: &[Value]) -> Vec<(String, String)> {
    let mut open: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    let mut last: BTreeMap<u64, String> = BTreeMap::new();
    let (mut from, mut found) = (BTreeMap::new(), Vec::new());
    for event in events {
        let track = event["tid"].as_u64().unwrap();
        let name = text(event, "name").to_owned();
        let id = event["id"].as_u64();
        match text(event, "ph") {
            "B" => open.entry(track).or_default().push(name),
            "E" => drop(open.get_mut(&track).and_then(Vec::pop).expect("each slice that ends has begun")),
            "X" => drop(last.insert(track, name)),
            "s" => drop(from.insert(id.unwrap(), last[&track].clone())),
            "f" => {
                let slice = open[&track].last().expect("each arrow ends in a slice").clone();
                found.push((from.remove(&id.unwrap()).expect("each arrow that ends has begun"), slice));
            }
            "M" => {}
            other => unreachable!("{other}"),
        }
    }
    assert!(open.values().all(Vec::is_empty), "{open:?}");
    assert!(from.values().all(|name| name.starts_with("ring ")), "a message has no handler: {from:?}");
    found
}

#[test]
fn every_send_has_its_handler_and_every_doorbell_its_interrupt() {
    for seed in 0..20 {
        let machine =
            Machine::builder().kernel(&[0]).kernel(&[4]).mode(Mode::Stepped { seed }).trace().build();
        let links = machine.link_native::<2>(Geometry::new(2, 8, 256).unwrap());
        let seen = Arc::new(AtomicU64::new(0));
        let count = seen.clone();
        let _ = links[1].register(TYPE, Callback::new(move |_| _ = count.fetch_add(1, Relaxed))).unwrap();
        machine
            .run(|cpu| {
                for n in (0..20).filter(|_| cpu.kernel() == 0) {
                    while links[0].send(TO, TYPE, &[7; 100][..n * 5]).is_err() {
                        cpu.relax();
                    }
                }
            })
            .unwrap();
        assert_eq!(seen.load(Relaxed), 20);
        let events = events(&machine);
        let arrows = arrows(&events);
        let messages: Vec<_> = arrows.iter().filter(|(from, _)| from.starts_with("send ")).collect();
        assert_eq!(messages.len(), 20, "seed {seed}");
        for (from, slice) in messages {
            // The names are like "send 3 to instance 1" and "message 3 from instance 0".
            assert_eq!(from.split(' ').nth(1), slice.split(' ').nth(1), "{from}: {slice}");
            assert!(from.ends_with("to instance 1") && slice.ends_with("from instance 0"));
        }
        let rings: Vec<_> = arrows.iter().filter(|(from, _)| from.starts_with("ring ")).collect();
        assert!(!rings.is_empty() && rings.iter().all(|(_, slice)| slice == "interrupt 0xea"));
        let rung = events.iter().filter(|event| text(event, "name").starts_with("ring ")).count();
        assert_eq!(rings.len(), rung, "every ring has an arrow");
    }
}

#[test]
fn a_death_and_the_next_life_are_shown() {
    let machine = Machine::builder().kernel(&[0]).kernel(&[4]).trace().build();
    let links = machine.link_native::<2>(Geometry::new(2, 8, 256).unwrap());
    let regions: Vec<_> =
        (0..2).map(|k| links[0].instance(InstanceId::new(k)).unwrap().region().unwrap()).collect();
    machine.fault(Fault::StopAtStore { kernel: 1, store: 3 });
    let again = AtomicU64::new(0);
    machine
        .run(|cpu| {
            if cpu.kernel() == 1 && cpu.incarnation() == 1 {
                let link = cpu.platform().boot(TO, Incarnation::new(2).unwrap());
                for (k, region) in (0..).zip(&regions) {
                    let (id, kernel) = (InstanceId::new(k), machine.kernel(k.into()));
                    link.attach_instance(&kernel.native_config(id, Incarnation::FIRST), Some(*region))
                        .unwrap();
                }
                cpu.enable_interrupts();
                again.store(1, Relaxed);
            }
            if cpu.kernel() == 0 {
                for _ in 0..6 {
                    let _ = links[0].send(TO, TYPE, b"x");
                    cpu.relax();
                }
                while !machine.is_stopped(1) {
                    cpu.relax();
                }
                machine.restart_kernel(1);
                while again.load(Relaxed) == 0 {
                    cpu.relax();
                }
            }
        })
        .unwrap();
    let events = events(&machine);
    let named = |name: &str| events.iter().any(|event| text(event, "name") == name);
    assert!(named("the kernel is stopped") && named("life 2 begins"));
    assert!(named("process_name") && named("thread_name"));
}

#[test]
fn a_machine_that_was_not_asked_for_a_trace_keeps_none() {
    let machine = Machine::builder().kernel(&[0]).kernel(&[4]).build();
    let links = machine.link_native::<2>(Geometry::new(2, 8, 256).unwrap());
    machine.run(|cpu| _ = (cpu.kernel() == 0).then(|| links[0].send(TO, TYPE, b"x"))).unwrap();
    assert!(events(&machine).iter().all(|event| text(event, "ph") == "M"));
}
