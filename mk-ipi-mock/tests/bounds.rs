// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counts the accesses that each call makes with interrupts off, and compares them with the table in SPEC C-9. The numbers must
//! not grow with the number of lanes, lines or instances.
#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test may panic"
)]

use mk_ipi_abi::native::Geometry;
use mk_ipi_abi::{Incarnation, InstanceId, MessageType, PhysCpuId, Vector};
use mk_ipi_core::SlotPolicy;
use mk_ipi_mock::{Cpu, Link, Machine, MockPlatform};
use std::collections::BTreeMap;
use std::sync::Mutex;

const TYPE: MessageType = MessageType(7);
const PEER: InstanceId = InstanceId::new(1);

type Table = BTreeMap<String, u64>;

/// Calls `f` on the first CPU of kernel 0. Returns how many accesses to shared memory kernel 0 made meanwhile with interrupts
/// off. Rings count as accesses.
fn masked(machine: &Machine, f: impl Fn() + Sync) -> u64 {
    let kernel = machine.kernel(0);
    let spent = Mutex::new(0);
    let run = machine.run(|cpu: &Cpu| {
        if cpu.kernel() == 0 && cpu.index() == 0 {
            let before = kernel.masked_accesses();
            f();
            *spent.lock().unwrap() = kernel.masked_accesses() - before;
        }
    });
    run.unwrap();
    let spent = *spent.lock().unwrap();
    spent
}

/// Calls `f` with interrupts off, as in an interrupt handler.
fn with_interrupts_off(kernel: &MockPlatform, f: impl Fn()) {
    use mk_ipi_core::platform::LocalInterrupts;
    let state = kernel.disable();
    f();
    kernel.restore(state);
}

/// Returns the counts for calls of kernel 0, on a machine of `kernels` kernels with native regions of this many lanes and lines.
fn native(kernels: u64, lanes: u32, lines: u32) -> Table {
    let builder = (0..kernels).fold(Machine::builder(), |b, k| b.kernel(&[k * 2, k * 2 + 1]));
    let machine = builder.memory(65_536).build();
    let geometry = Geometry::new(lanes, lines, 256).unwrap();
    let links: Vec<_> = (0..kernels).map(|k| boot(&machine, k)).collect();
    for k in 0..kernels {
        let (kernel, region) = (machine.kernel(k as usize), machine.native_region(geometry));
        for link in &links {
            let config = kernel.native_config(InstanceId::new(k as u8), Incarnation::FIRST);
            link.attach_instance(&config, Some(region)).unwrap();
        }
    }
    machine.run(|_| ()).unwrap();
    let (link, kernel) = (&links[0], machine.kernel(0));
    // Before each call the receiver sets ARMED to 1 again. So the count includes the ring.
    let count = |f: &(dyn Fn() + Sync)| {
        machine.run(|_| ()).unwrap();
        masked(&machine, f)
    };
    let rows: [(&str, &(dyn Fn() + Sync)); 13] = [
        ("`send`, 48 bytes", &|| _ = link.send(PEER, TYPE, &[1; 48]).unwrap()),
        ("`send`, 256 bytes", &|| _ = link.send(PEER, TYPE, &[1; 256]).unwrap()),
        ("`send_from_nmi`, 48 bytes", &|| _ = link.send_from_nmi(PEER, TYPE, &[1; 48]).unwrap()),
        ("`post`, 48 bytes", &|| _ = link.post(PEER, TYPE, &[1; 48]).unwrap()),
        ("`post_many`, 4 of 48 bytes", &|| _ = link.post_many(PEER, TYPE, &[&[1; 48][..]; 4]).unwrap()),
        ("`flush`", &|| link.flush(PEER).unwrap()),
        ("`ring`", &|| link.ring(PEER).unwrap()),
        ("`want_space`", &|| _ = link.want_space(PEER, 1).unwrap()),
        ("`on_interrupt`", &|| with_interrupts_off(&kernel, || link.on_interrupt())),
        ("`poll`", &|| _ = link.poll().unwrap()),
        ("`tick`", &|| link.tick(1, 1 << 40)),
        ("`run_deferred`", &|| _ = link.run_deferred()),
        ("`move_doorbell`", &|| link.move_doorbell(PhysCpuId(0), Vector::RFC_V2).unwrap()),
    ];
    rows.into_iter().map(|(name, f)| (name.to_owned(), count(f))).collect()
}

fn boot(machine: &Machine, k: u64) -> std::sync::Arc<Link> {
    machine.kernel(k as usize).boot(InstanceId::new(k as u8), Incarnation::FIRST)
}

/// Returns the counts for RFC v2 regions of two slots with this policy.
fn slots(policy: SlotPolicy) -> Table {
    let machine = Machine::builder().kernel(&[0]).kernel(&[1]).build();
    let [link, peer] = machine.link(policy);
    let kernel = machine.kernel(0);
    let mut table = Table::new();
    let name = if policy == SlotPolicy::Exclusive { "exclusive" } else { "overwrite" };
    let sent = masked(&machine, || _ = link.send(PEER, TYPE, &[1; 256]).unwrap());
    table.insert(format!("`send`, 256 bytes, {name} slot"), sent);
    let _ = peer.send(InstanceId::HOST, TYPE, &[1; 256]);
    // In this run kernel 0 takes the interrupt of this message. The counted call of `on_interrupt` below then finds the next
    // message.
    machine.run(|_| ()).unwrap();
    let received = Mutex::new(0);
    let run = machine.run(|cpu| match cpu.kernel() {
        0 => with_interrupts_off(&kernel, || {
            while machine.doorbells_at(PhysCpuId(0)) < 2 {
                cpu.relax();
            }
            let before = kernel.masked_accesses();
            link.on_interrupt();
            *received.lock().unwrap() = kernel.masked_accesses() - before;
        }),
        _ => _ = peer.send(InstanceId::HOST, TYPE, &[1; 256]).unwrap(),
    });
    run.unwrap();
    let received = *received.lock().unwrap();
    table.insert(format!("`on_interrupt`, 256 bytes, {name} slot"), received);
    table
}

/// Reads the table in SPEC C-9.
fn spec() -> Table {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../SPEC.md")).unwrap();
    let table = text.split("| call | accesses |").nth(1).unwrap().split("\n\n").next().unwrap();
    let row = |line: &str| {
        let mut cells = line.trim().trim_matches('|').split('|').map(str::trim);
        let (name, number) = (cells.next()?.to_owned(), cells.next()?.parse().ok()?);
        Some((name, number))
    };
    table.lines().filter_map(row).collect()
}

#[test]
fn the_table_of_the_spec_is_what_is_counted() {
    let mut counted = native(2, 2, 64);
    counted.extend(slots(SlotPolicy::Overwrite));
    counted.extend(slots(SlotPolicy::Exclusive));
    assert_eq!(counted, spec());
}

#[test]
fn nothing_grows_with_lanes_lines_or_instances() {
    let few = native(2, 2, 64);
    assert_eq!(native(2, 256, 64), few, "the counts are the same with 256 lanes");
    assert_eq!(native(2, 2, 1024), few, "the counts are the same with 1,024 lines");
    assert_eq!(native(40, 40, 64), few, "the counts are the same with 40 instances");
}
