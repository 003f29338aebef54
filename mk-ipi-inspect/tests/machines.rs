// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the directory, of slots, of rates, of the command, and of a machine that runs while it is inspected.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod world;

use mk_ipi_abi::native::{receiver, Bell};
use mk_ipi_abi::rfc_v2::{region_size, Claim};
use mk_ipi_abi::{PhysAddr, PhysCpuId, Vector};
use mk_ipi_core::SlotPolicy;
use mk_ipi_inspect::machine::{Kind, Region};
use mk_ipi_inspect::rates::Rates;
use mk_ipi_inspect::rfc_v2::Content;
use mk_ipi_inspect::{svg, text, Machine, Memory, Severity};
use mk_ipi_mock::MEMORY_START;
use std::process::Command;
use std::time::Duration;
use world::{elf_core, id, life, World, TYPE};

/// True if a finding of this severity contains `text` in what was found.
fn says(machine: &Machine, severity: Severity, text: &str) -> bool {
    machine.findings().iter().any(|finding| finding.severity == severity && finding.what.contains(text))
}

#[test]
fn a_directory_names_what_lies_where() {
    let world = World::booted(3);
    let at = world.write_directory(|_| ());
    let machine = world.inspect();
    assert!(!machine.is_broken(), "{:?}", machine.findings());
    let directory = &machine.directories[0];
    assert_eq!((directory.at, directory.generation, directory.instances.len()), (at.0, Some(3), 3));
    let owners: Vec<_> = machine.regions.iter().map(|owned| (owned.instance, owned.region.at())).collect();
    let expected: Vec<_> = (0..3).map(|k| (Some(k), world.regions[usize::from(k)].start().0)).collect();
    assert_eq!(owners, expected);
    // With the address of the directory, the inspector finds the same as by searching.
    assert_eq!(Machine::at(&world.memory(), at.0, Kind::ByItsStamp, 4).unwrap(), machine);
}

#[test]
fn entries_that_cannot_be_are_named() {
    let entry = |world: &World, at: PhysAddr, id: u64, word: u64, value: u64| {
        world.machine.poke(PhysAddr(at.0 + 64 + id * 80 + 8 * word), value);
    };
    let cases: [(u64, u64, Severity, &str); 6] = [
        (0, 7, Severity::Suspect, "the host is changing the entry"),
        (1, 2 | 1 << 32, Severity::Broken, "the entry has the id of instance 2"),
        (2, 9 | 2 << 32, Severity::Broken, "the state is 9"),
        (3, 5 << 32, Severity::Broken, "the doorbell vector is 0x5"),
        (6, 77, Severity::Broken, "doorbell CPU"),
        (8, 0, Severity::Broken, "doorbell CPU"),
    ];
    for (word, value, severity, text) in cases {
        let world = World::booted(2);
        let at = world.write_directory(|_| ());
        entry(&world, at, 1, word, value);
        let machine = world.inspect();
        assert!(says(&machine, severity, text), "{text}: {:?}", machine.findings());
        assert!(says(&machine, Severity::Note, "no directory names this region"));
    }
    let world = World::booted(2);
    let at = world.write_directory(|_| ());
    entry(&world, at, 1, 4, world.regions[0].start().0);
    entry(&world, at, 1, 6, 0);
    entry(&world, at, 1, 8, 0);
    let machine = world.inspect();
    assert!(says(&machine, Severity::Broken, "the regions of instances 0 and 1 overlap"));
    assert!(says(&machine, Severity::Broken, "both have CPU 0"));
    world.machine.poke(PhysAddr(at.0 + 16), 5);
    assert!(says(&world.inspect(), Severity::Broken, "contradict each other"));
}

#[test]
fn a_region_is_laid_beside_the_directory() {
    let world = World::booted(2);
    world.write_directory(|record| {
        if record.instance == id(1) {
            record.incarnation = life(2);
        }
    });
    let bell = Bell { cpu: PhysCpuId(99), vector: Vector::RFC_V2 }.to_word().unwrap();
    world.machine.poke(world.word(0, receiver::BELL), bell);
    let machine = world.inspect();
    assert!(says(&machine, Severity::Suspect, "LIFE names life 1, and the directory names life 2"));
    assert!(says(&machine, Severity::Suspect, "CPU 99"));
    assert!(says(
        &machine,
        Severity::Suspect,
        "life 1 of the sender is attached, and the directory names life 2"
    ));
    // LIFE names a life that the host has not written to the directory yet.
    world.machine.poke(world.word(1, receiver::LIFE), 5);
    assert!(says(&world.inspect(), Severity::Broken, "newer than life 2 in the directory"));
}

#[test]
fn slots_are_explained() {
    let machine = mk_ipi_mock::Machine::builder().kernel(&[1]).kernel(&[3]).build();
    let links = machine.link::<2>(SlotPolicy::Exclusive);
    links[0].send(id(1), TYPE, b"hello").unwrap();
    let region = links[0].instance(id(1)).unwrap().region().unwrap();
    let slot = |cpu: u64, word: u64| PhysAddr(region.start().0 + cpu * 272 + 8 * word);
    machine.poke(slot(0, 1), Claim { instance: id(0), incarnation: life(1) }.to_data_size());
    machine.poke(slot(2, 1), 257);
    let all = machine.memory();
    let words = (all.start().0..all.end().0).step_by(8);
    let bytes = words.flat_map(|at| machine.peek(PhysAddr(at)).to_le_bytes()).collect();
    let memory = Memory::of_bytes(bytes, Some(MEMORY_START.0)).unwrap();
    let slots = u32::try_from(region.len() / 272).unwrap();
    let found = Machine::at(&memory, region.start().0, Kind::RfcV2(slots), 4).unwrap();
    let Region::RfcV2(of) = &found.regions[0].region else { panic!("slots") };
    assert_eq!((of.slots, region.len()), (4, region_size(4)));
    let begins = "68656c6c6f".into();
    let message = Content::Message { sender_cpu: 1, msg_type: TYPE.0, len: 5, begins };
    assert_eq!(of.used[2].content, message);
    assert_eq!((of.used[2].cpu, of.used.len()), (3, 3));
    assert!(says(&found, Severity::Suspect, "life 1 of instance 0 is filling the slot"));
    assert!(says(&found, Severity::Broken, "data_size is 0x101"));
}

#[test]
fn rates_are_what_changed() {
    let world = World::booted(2);
    let before = world.inspect();
    (0..5).for_each(|_| _ = world.send(1, 0, b"x"));
    world.settle();
    let rates = Rates::between(&before, &world.inspect(), Duration::from_secs(2));
    let lane = rates.lanes.iter().find(|lane| (lane.region, lane.from) == (world.regions[0].start().0, 1));
    let lane = lane.unwrap();
    assert_eq!((lane.lines, lane.messages, lane.full, lane.unread), (2.5, 2.5, 0.0, 0));
    assert!(lane.doorbells > 0.0);
    assert!(text::rates(&rates).contains("2.5"));
}

#[test]
fn a_machine_that_goes_on_is_read_while_it_does() {
    use mk_ipi_core::sync::{AtomicBool, Ordering};
    let builder = mk_ipi_mock::Machine::builder().mode(mk_ipi_mock::Mode::Free);
    let machine = builder.kernel(&[0]).kernel(&[1]).kernel(&[2]).build();
    let geometry = mk_ipi_abi::native::Geometry::new(3, 8, 256).unwrap();
    let links = machine.link_native::<3>(geometry);
    let _ = links[0].register(TYPE, mk_ipi_mock::Callback::new(|_| ())).unwrap();
    let (file, stop) =
        (std::env::temp_dir().join(format!("mk-ipi-live-{}", std::process::id())), AtomicBool::new(false));
    let all = machine.memory();
    // Kernel 2 copies the memory word by word into a file, as a debugger would, while the other kernels send and receive.
    machine
        .run(|cpu| match cpu.kernel() {
            1 => {
                while !stop.load(Ordering::Relaxed) {
                    let _ = links[1].send(id(0), TYPE, &[1; 60]);
                }
            }
            2 => {
                for _ in 0..20 {
                    let words = (all.start().0..all.start().0 + (1 << 17)).step_by(8);
                    let bytes: Vec<u8> =
                        words.flat_map(|at| machine.peek(PhysAddr(at)).to_le_bytes()).collect();
                    std::fs::write(&file, bytes).unwrap();
                    let found =
                        Machine::find(&Memory::open(&file, Some(MEMORY_START.0)).unwrap(), 4).unwrap();
                    assert_eq!(found.regions.len(), 3);
                    assert!(text::machine(&found).contains("region"));
                }
                stop.store(true, Ordering::Relaxed);
            }
            _ => {}
        })
        .unwrap();
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn the_command_explains_a_file() {
    let world = World::booted(2);
    world.write_directory(|_| ());
    world.send(1, 0, b"hello");
    let file = std::env::temp_dir().join(format!("mk-ipi-inspect-{}", std::process::id()));
    let inspect = |bytes: &[u8], words: &[&str]| {
        std::fs::write(&file, bytes).unwrap();
        let out = Command::new(env!("CARGO_BIN_EXE_mk-ipi-inspect")).arg(&file).args(words).output().unwrap();
        (out.status.code(), String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap())
    };
    let bytes = world.bytes();
    let (code, out, err) = inspect(&bytes, &["--base", "0x100000"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("unread from 1: number 1, type 0x7, 5 bytes: 68656c6c6f"), "{out}");
    let core = elf_core(&bytes, MEMORY_START.0);
    let (code, json, _) = inspect(&core, &["--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &json["regions"][0]["lanes"][1]["lines"]["unread"]), (Some(0), &1.into()));
    let (code, picture, _) = inspect(&core, &["--svg"]);
    assert!(code == Some(0) && picture.starts_with("<svg ") && picture.trim_end().ends_with("</svg>"));
    let (code, rates, _) = inspect(&core, &["--watch", "0.01", "--times", "2"]);
    assert!(code == Some(0) && rates.matches("heartbeats").count() == 2, "{rates}");

    // A raw dump can begin with an ELF image. With --base the file is read as a raw dump all the same.
    let image = [b"\x7fELF\x02\x01\x01", &bytes[7..]].concat();
    assert_eq!(
        inspect(&image, &["--base", "0x100000"]).0,
        Some(1),
        "the stamp of the first region is overwritten"
    );
    assert_eq!(inspect(&image, &[]).0, Some(2));
    world.machine.poke(world.word(0, 0), 7);
    assert_eq!(inspect(&world.bytes(), &["--base", "0x100000"]).0, Some(1));
    assert_eq!(inspect(b"KDUMP   ...", &[]).0, Some(2));
    assert_eq!(inspect(b"\x7fELF\x02\x01\x01", &[]).0, Some(2));
    let (code, out, _) = inspect(&[0; 8192], &[]);
    assert!(code == Some(0) && out.contains("Nothing of mk-ipi was found"));
    assert_eq!(inspect(&bytes, &["--at", "0x7fff0000"]).0, Some(2));
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn a_picture_shows_lanes_and_findings() {
    let world = World::booted(2);
    world.write_directory(|_| ());
    (0..4).for_each(|_| _ = world.send(1, 0, b"x"));
    world.machine.poke(world.tag(1, 0, 2), 0);
    let picture = svg::machine(&world.inspect());
    assert!(picture.contains("from 1: open") && picture.contains("2 unread"));
    // Two of eight lines are unread. The third is a gap, with one message after it.
    assert!(picture.contains("width=\"120.0\" height=\"16\" fill=\"#0072b2\""), "{picture}");
    assert!(picture.contains("fill=\"#f0e442\"/>"));
}
