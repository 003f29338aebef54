// SPDX-License-Identifier: MIT OR Apache-2.0
//! Explains a dump that can have any bytes. The inspector must never panic, and must be able to show everything that it found.

use arbitrary::{Arbitrary, Unstructured};
use mk_ipi_abi::directory::{DirectoryHeader, EntryFlags, InstanceRecord, Layout, State};
use mk_ipi_abi::native::{control, header, receiver, Geometry, Hello, Phase, Stamp, STAMP_WORDS};
use mk_ipi_abi::{Incarnation, InstanceId, PhysAddr, PhysCpuId, PhysRange, Vector};
use mk_ipi_inspect::machine::Kind;
use mk_ipi_inspect::rates::Rates;
use mk_ipi_inspect::{svg, text, Machine, Memory};
use std::time::Duration;

const BASE: u64 = 0x10_0000;
const LANES: u32 = 2;
const LINES: u32 = 8;

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    /// A file of any bytes.
    Any { base: Option<u64>, at: Option<u64>, slots: u16, bytes: &'a [u8] },
    /// An ELF core file whose headers have any bytes.
    Core { header: [u16; 20], loads: Vec<[u64; 7]>, at: u64 },
    /// A directory and two regions, of which words are changed.
    Machine { patches: Vec<Patch>, later: Vec<Patch> },
}

#[derive(Arbitrary, Debug)]
struct Patch {
    at: At,
    value: Value,
}

#[derive(Arbitrary, Debug)]
enum At {
    Directory(u8),
    Stamp { region: bool, word: u8 },
    Receiver { region: bool, word: u8 },
    Control { region: bool, lane: bool, word: u8 },
    Header { region: bool, lane: bool, word: u8 },
    Line { region: bool, lane: bool, line: u8, word: u8 },
}

#[derive(Arbitrary, Debug)]
enum Value {
    Small(u8),
    Halves(u16, u16),
    Tag { lap: u8, further: bool },
    Hello { life: u8, session: u8, phase: u8 },
    Any(u64),
}

/// Builds the memory that the bytes describe, and lets the inspector explain it.
pub fn inspect(data: &[u8]) {
    let Ok(input) = Input::arbitrary(&mut Unstructured::new(data)) else { return };
    match input {
        Input::Any { base, at, slots, bytes } => {
            let Ok(memory) = Memory::of_bytes(bytes.to_vec(), base) else { return };
            show(&Machine::find(&memory, 3).expect("all of it is in the file"));
            let at = at.or(base).unwrap_or(0);
            for kind in [Kind::ByItsStamp, Kind::Directory, Kind::Native, Kind::RfcV2(slots.into())] {
                Machine::at(&memory, at, kind, 3).iter().for_each(show);
            }
        }
        Input::Core { header, loads, at } => {
            let Ok(memory) = Memory::of_bytes(core(&header, &loads), None) else { return };
            Machine::find(&memory, 3).iter().for_each(show);
            Machine::at(&memory, at, Kind::Native, 3).iter().for_each(show);
        }
        Input::Machine { patches, later } => {
            let mut words = machine();
            patches.iter().for_each(|patch| apply(&mut words, patch));
            let before = find(&words);
            show(&before);
            later.iter().for_each(|patch| apply(&mut words, patch));
            let now = find(&words);
            let rates = Rates::between(&before, &now, Duration::from_secs(1));
            assert!(!text::rates(&rates).is_empty());
        }
    }
}

fn find(words: &[u64]) -> Machine {
    let bytes = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    Machine::find(&Memory::of_bytes(bytes, Some(BASE)).expect("memory"), 3).expect("all of it is in the file")
}

/// Checks that the explanation can be shown in each form.
fn show(machine: &Machine) {
    assert!(!text::machine(machine).is_empty());
    let picture = svg::machine(machine);
    assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
    assert_eq!(picture.matches("<text").count(), picture.matches("</text>").count());
    let json = mk_ipi_inspect::json(machine);
    assert!(json.starts_with('{') && json.ends_with('}'));
}

/// An ELF core file. Its header is valid in most cases. The program headers have any values.
fn core(header: &[u16; 20], loads: &[[u64; 7]]) -> Vec<u8> {
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x04\0\x3e\0\x01\0\0\0".to_vec();
    elf.extend(header.iter().flat_map(|half| half.to_le_bytes()));
    if header[0] % 4 != 0 {
        elf[32..40].copy_from_slice(&64u64.to_le_bytes());
        let count = u16::try_from(loads.len()).unwrap_or(u16::MAX);
        elf[54..58].copy_from_slice(&[56u16.to_le_bytes(), count.to_le_bytes()].concat());
    }
    elf.extend(loads.iter().flatten().flat_map(|word| word.to_le_bytes()));
    elf
}

fn geometry() -> Geometry {
    Geometry::new(LANES, LINES, 256).expect("in bounds")
}

/// The index of the first word of a region.
fn region(second: bool) -> usize {
    512 + if second { words(geometry().total_size()) } else { 0 }
}

fn words(bytes: u64) -> usize {
    usize::try_from(bytes / 8).expect("small")
}

/// Memory with a directory in its first page, and then the regions of two instances that are attached to each other.
fn machine() -> Vec<u64> {
    let mut memory = vec![0; 512 + 2 * words(geometry().total_size())];
    let header: [u64; 8] = zerocopy::transmute!(DirectoryHeader::new(2, 2).expect("in bounds"));
    memory[..8].copy_from_slice(&header);
    let stamp: [u64; STAMP_WORDS] = zerocopy::transmute!(Stamp::new(geometry()));
    for (id, second) in [(0, false), (1, true)] {
        let at = region(second);
        let record = InstanceRecord {
            instance: InstanceId::new(id),
            incarnation: Incarnation::FIRST,
            state: State::Running,
            layout: Layout::Native,
            flags: EntryFlags::empty(),
            region: PhysRange::new(PhysAddr(BASE + 8 * at as u64), geometry().total_size()),
            doorbell_cpu: PhysCpuId(id.into()),
            vector: Vector::RFC_V2,
            nr_cpus: 1,
        };
        let entry: [u64; 8] = zerocopy::transmute!(record.to_entry(2));
        let place = 8 + usize::from(id) * 10;
        memory[place..place + 8].copy_from_slice(&entry);
        memory[place + 8] = id.into();
        memory[at..at + STAMP_WORDS].copy_from_slice(&stamp);
        memory[at + receiver::LIFE] = 1;
        let hello = Hello { incarnation: Incarnation::FIRST, session: 1, phase: Phase::First }.to_word();
        for lane in 0..LANES {
            memory[lane_at(second, lane) + header::HELLO] = hello;
            memory[control_at(second, lane) + control::ANSWER] = hello;
            memory[lane_at(second, lane) + geometry().line_at(0)] = geometry().first_tag(0).to_word(7);
        }
    }
    memory
}

fn lane_at(second: bool, lane: u32) -> usize {
    region(second) + words(geometry().lane_at(lane).expect("one of two"))
}

fn control_at(second: bool, lane: u32) -> usize {
    region(second) + receiver::CONTROL + lane as usize * receiver::CONTROL_WORDS
}

fn apply(memory: &mut [u64], patch: &Patch) {
    let at = match patch.at {
        At::Directory(word) => usize::from(word) % 28,
        At::Stamp { region: r, word } => region(r) + usize::from(word) % STAMP_WORDS,
        At::Receiver { region: r, word } => region(r) + usize::from(word) % receiver::CONTROL,
        At::Control { region, lane, word } => {
            control_at(region, lane.into()) + usize::from(word) % receiver::CONTROL_WORDS
        }
        At::Header { region, lane, word } => lane_at(region, lane.into()) + usize::from(word) % header::WORDS,
        At::Line { region, lane, line, word } => {
            lane_at(region, lane.into()) + geometry().line_at(line.into()) + usize::from(word) % 8
        }
    };
    memory[at] = match patch.value {
        Value::Small(n) => n.into(),
        Value::Halves(low, high) => u64::from(low) | u64::from(high) << 32,
        Value::Tag { lap, further } => {
            let position = u64::from(lap % 3) * u64::from(LINES);
            let tag = if further { geometry().further_tag(position) } else { geometry().first_tag(position) };
            tag.to_word(7)
        }
        Value::Hello { life, session, phase } => {
            let phase = [Phase::First, Phase::Begin, Phase::Clean][usize::from(phase) % 3];
            let incarnation = Incarnation::new(life.into()).unwrap_or(Incarnation::FIRST);
            Hello { incarnation, session: session.into(), phase }.to_word()
        }
        Value::Any(n) => n,
    };
}
