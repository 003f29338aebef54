// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks the device accesses of a spawned Linux. QEMU writes each access of a CPU to a trace. This compares the trace with the
//! list of allowed accesses.
//!
//! Just before the host starts the spawned Linux, and just after it has stopped this Linux, it writes a byte to a port. These two
//! writes are marks in the trace. Between them the given CPUs belong to the spawned Linux. In this scenario the host does not
//! start kernel 2, which is the only other user of that port. The trace shows no accesses to memory, and no accesses to registers
//! of the CPU, so it shows no access to an x2APIC.

use std::collections::BTreeMap;
use std::fmt;
use std::io::BufRead;

use anyhow::Result;

use crate::record::Mode;

/// The names of the events that QEMU writes to the trace.
pub const EVENTS: [&str; 2] = ["memory_region_ops_read", "memory_region_ops_write"];
/// The port to which the host writes its marks.
pub const MARKS: u64 = 0x220;
/// The byte that marks the start of the spawned Linux.
const BEGIN: u64 = b'b' as u64;
/// The byte that marks the end of the spawned Linux.
const END: u64 = b'e' as u64;

/// The ports of the spawned Linux's UART.
const UART: std::ops::Range<u64> = 0x3e8..0x3f0;
/// The registers of the local APIC.
const APIC: std::ops::Range<u64> = 0xfee0_0000..0xfee0_1000;
/// The low half of the interrupt command register. A write to it sends an interrupt.
const ICR: u64 = 0xfee0_0300;
/// The high half of the interrupt command register, which has the destination.
const ICR_TO: u64 = 0xfee0_0310;
/// The ports that select edge or level for the interrupts of the 8259.
const ELCR: std::ops::Range<u64> = 0x4d0..0x4d2;
/// The memory of graphics cards, of ROMs of cards, and of the BIOS.
const BIOS: std::ops::Range<u64> = 0xa_0000..0x10_0000;
/// The register of the CMOS that says how a CPU starts after a reset.
const SHUTDOWN: u64 = 0x0f;
/// The largest number of accesses to the CMOS's data port in a boot. Linux reads the clock there once.
const CLOCK: u64 = 100;
/// The address port of the PCI configuration space.
const PCI_INDEX: u64 = 0xcf8;
/// The data ports of the PCI configuration space.
const PCI_DATA: std::ops::Range<u64> = 0xcfc..0xd00;
/// The address of the first register of PCI device 2, which has the vendor. Linux reads this register before it handles
/// `pci=off`: it looks for the graphics of an old Intel processor.
const GRAPHICS: u64 = 0x8000_1000;
/// How often Linux writes this address to [`PCI_INDEX`]: once to read the vendor, and once more if the vendor is Intel.
const LOOKS: u64 = 2;

/// One access of a CPU to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Access<'a> {
    write: bool,
    cpu: u32,
    addr: u64,
    value: u64,
    device: &'a str,
}

/// Parses a line such as `memory_region_ops_write cpu 0 mr 0x55d0 addr 0x70 value 0x8f size 1 name 'rtc-index'`. Returns `None`
/// if the line is not an access of a CPU.
fn parse(line: &str) -> Option<Access<'_>> {
    let (head, device) = line.split_once(" name '")?;
    let mut words = head.split_ascii_whitespace();
    // Some builds print the time before the event.
    let event = words.find_map(|word| EVENTS.iter().position(|event| word.ends_with(event)))?;
    let rest: Vec<&str> = words.collect();
    let after = |name: &str| rest.iter().skip_while(|word| **word != name).nth(1).copied();
    let number = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
    Some(Access {
        write: event == 1,
        cpu: after("cpu")?.parse().ok()?,
        addr: number(after("addr")?)?,
        value: number(after("value")?)?,
        device: device.trim_end().trim_end_matches('\''),
    })
}

/// A kind of access. All accesses of one kind are counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Touch {
    device: String,
    write: bool,
    addr: u64,
    /// Why it is not allowed; empty if it is allowed.
    why: &'static str,
}

impl fmt::Display for Touch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.write { "written" } else { "read" };
        write!(f, "{} at {:#x} {how}", self.device, self.addr)
    }
}

/// The last values that a CPU wrote to some registers. They say what the CPU's next access to another register means.
#[derive(Default)]
struct State {
    /// The selected register of the CMOS.
    cmos: u64,
    /// [`GRAPHICS`] if this register of the PCI configuration space was selected before, otherwise 0.
    pci: u64,
    /// The CPU to which the next interrupt is sent.
    to: u64,
}

/// The device accesses of a spawned Linux's CPUs between the two marks.
pub struct Touched {
    mode: Mode,
    /// The CPUs of the spawned Linux.
    cpus: Vec<u32>,
    /// Whether the start mark was read, and the end mark was not read yet.
    lives: bool,
    /// The number of start marks.
    begun: u32,
    /// The number of end marks.
    ended: u32,
    /// For each kind of access: the number of accesses, and the value of the first one.
    counts: BTreeMap<Touch, (u64, u64)>,
    /// The registers of each CPU that are needed to judge its accesses.
    states: BTreeMap<u32, State>,
}

impl Touched {
    /// Returns an empty list for a spawned Linux on these CPUs.
    pub fn new(mode: Mode, cpus: Vec<u32>) -> Self {
        let (counts, states) = (BTreeMap::new(), BTreeMap::new());
        Self { mode, cpus, lives: false, begun: 0, ended: 0, counts, states }
    }

    /// Reads a trace, and adds its accesses.
    pub fn read(&mut self, trace: impl BufRead) -> Result<()> {
        for line in trace.split(b'\n') {
            self.take(&String::from_utf8_lossy(&line?));
        }
        Ok(())
    }

    /// Handles a line of the trace.
    fn take(&mut self, line: &str) {
        let Some(access) = parse(line) else { return };
        let own = self.cpus.contains(&access.cpu);
        if access.addr == MARKS && access.write && !own {
            return self.mark(access.value);
        }
        if !self.lives || !own {
            return;
        }
        let why = self.objection(&access).unwrap_or("");
        let Access { write, addr, value, device, .. } = access;
        // Allowed accesses to any register of the local APIC are counted as one kind.
        let addr = if why.is_empty() && APIC.contains(&addr) { APIC.start } else { addr };
        let touch = Touch { device: device.into(), write, addr, why };
        self.counts.entry(touch).or_insert((0, value)).0 += 1;
    }

    /// Handles a byte that the host wrote to the port for marks.
    fn mark(&mut self, value: u64) {
        self.lives = value == BEGIN;
        self.begun += u32::from(value == BEGIN);
        self.ended += u32::from(value == END);
    }

    /// Returns why a spawned Linux must not make this access, or `None` if the access is allowed.
    fn objection(&mut self, access: &Access<'_>) -> Option<&'static str> {
        let state = self.states.entry(access.cpu).or_default();
        match (access.addr, access.write) {
            (ICR, true) if self.mode == Mode::Xapic => return interrupt(access.value, state.to, &self.cpus),
            (ICR_TO, true) => state.to = access.value >> 24,
            (addr, _) if APIC.contains(&addr) && self.mode == Mode::X2apic => {
                return Some("the local APIC is in x2APIC mode")
            }
            (addr, _) if APIC.contains(&addr) || UART.contains(&addr) => {}
            // Linux measures the frequency of the CPU's clock with channel 2 of the timer (0x42, 0x43) and its gate (0x61).
            (0x42 | 0x61, _) => {}
            (0x43, true) if access.value >> 6 == 2 => {}
            (0x70, true) => state.cmos = access.value & 0x7f,
            (0x71, false) => {}
            (0x71, true) if state.cmos == SHUTDOWN && self.cpus.len() > 1 => {}
            // If Linux finds no IO-APIC, it initializes the 8259s, and so it writes to these ports. This is allowed if the host
            // is in x2APIC mode, because then the host does not use the 8259s.
            (addr, _) if ELCR.contains(&addr) && self.mode == Mode::X2apic => {}
            (PCI_INDEX, true) if access.value == GRAPHICS => state.pci = GRAPHICS,
            (addr, false) if PCI_DATA.contains(&addr) && state.pci == GRAPHICS => {}
            (addr, false) if BIOS.contains(&addr) => {}
            _ => return Some("the device belongs to the host"),
        }
        None
    }

    /// Returns one line of text for each kind of access.
    pub fn lines(&self) -> Vec<String> {
        let line = |(touch, (count, first)): (&Touch, &(u64, u64))| {
            let why = if touch.why.is_empty() { String::new() } else { format!(" ({})", touch.why) };
            format!("{touch} {count} times, first value {first:#x}{why}")
        };
        self.counts.iter().map(line).collect()
    }

    /// Returns all problems.
    pub fn problems(&self) -> Vec<String> {
        let mode = self.mode;
        if (self.begun, self.ended) != (1, 1) {
            let (begun, ended) = (self.begun, self.ended);
            return vec![format!(
                "{mode}: the trace has {begun} start marks and {ended} end marks, not one of each"
            )];
        }
        let mut problems = Vec::new();
        if self.sum(|touch| UART.contains(&touch.addr)) == 0 {
            problems.push(format!(
                "{mode}: the trace shows no access to the spawned Linux's own UART, so the trace is incomplete"
            ));
        }
        let clock = self.sum(|touch| touch.addr == 0x71);
        if clock > CLOCK {
            problems.push(format!(
                "{mode}: the spawned Linux accessed the CMOS {clock} times, more than {CLOCK}"
            ));
        }
        let looks = self.sum(|touch| touch.addr == PCI_INDEX && touch.why.is_empty());
        if looks > LOOKS {
            problems.push(format!(
                "{mode}: the spawned Linux selected PCI device 2 {looks} times, more than {LOOKS}"
            ));
        }
        let bad = self.counts.iter().filter(|(touch, _)| !touch.why.is_empty());
        problems.extend(bad.map(|(touch, (count, first))| {
            format!("{mode}: the spawned Linux: {touch} {count} times, first value {first:#x}: {}", touch.why)
        }));
        problems
    }

    /// Returns the number of accesses of those kinds for which `which` is true.
    fn sum(&self, which: impl Fn(&Touch) -> bool) -> u64 {
        self.counts.iter().filter(|(touch, _)| which(touch)).map(|(_, (count, _))| count).sum()
    }
}

/// Returns why the spawned Linux must not send this interrupt, or `None` if it is allowed. It must not send an interrupt to all
/// CPUs. It must not send an interrupt that cannot be ignored to a CPU of another kernel. `command` is the low half of the ICR,
/// and `to` is the destination.
fn interrupt(command: u64, to: u64, own: &[u32]) -> Option<&'static str> {
    const TO_ITSELF: u64 = 1;
    let (kind, shorthand) = (command >> 8 & 7, command >> 18 & 3);
    // A CPU cannot ignore an SMI, an NMI, an INIT or a SIPI.
    let forces = matches!(kind, 2 | 4 | 5 | 6);
    match shorthand {
        0 if forces && !own.iter().any(|cpu| u64::from(*cpu) == to) => {
            Some("the interrupt goes to a CPU of another kernel, which cannot ignore it")
        }
        0 | TO_ITSELF => None,
        _ => Some("the interrupt goes to all CPUs of the machine"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str =
        "memory_region_ops_write cpu 0 mr 0x56106ef9d900 addr 0x70 value 0x8f size 1 name 'rtc-index'";

    fn line(write: bool, cpu: i32, addr: u64, value: u64) -> String {
        let event = EVENTS[usize::from(write)];
        format!("{event} cpu {cpu} mr 0x1 addr {addr:#x} value {value:#x} size 1 name 'x'")
    }

    /// Returns the problems of a trace with these accesses between the marks. It also has one write to the UART.
    fn found(mode: Mode, cpus: &[u32], accesses: &[(bool, i32, u64, u64)]) -> Vec<String> {
        let mut touched = Touched::new(mode, cpus.to_vec());
        let own = (true, 4, UART.start, 0x40);
        let marks = [(true, 0, MARKS, BEGIN), (true, 0, MARKS, END)];
        let all = [&marks[..1], &[own], accesses, &marks[1..]].concat();
        let text: Vec<String> = all.into_iter().map(|(w, c, a, v)| line(w, c, a, v)).collect();
        touched.read(text.join("\n").as_bytes()).expect("text");
        touched.problems()
    }

    #[test]
    fn a_line_of_the_trace() {
        let access = Access { write: true, cpu: 0, addr: 0x70, value: 0x8f, device: "rtc-index" };
        assert_eq!(parse(EXAMPLE), Some(access));
        assert_eq!(parse(&format!("1234@56.7:{EXAMPLE}")), Some(access));
        assert_eq!(parse(&EXAMPLE.replace("_write", "_read")).map(|a| a.write), Some(false));
        assert_eq!(parse(&EXAMPLE.replace("cpu 0", "cpu -1")), None, "the machine's reset");
        for none in ["", "apic_mem_writel cpu 0", "qemu: a word name 'x'", "memory_region_ops_read name 'x'"]
        {
            assert_eq!(parse(none), None, "{none}");
        }
    }

    #[test]
    fn what_it_may_touch() {
        let fine = [
            (true, 4, 0xfee0_00b0, 0),
            (false, 5, 0xfee0_0020, 0),
            (true, 4, 0x43, 0xb0),
            (true, 4, 0x42, 0xff),
            (false, 4, 0x61, 0x20),
            (true, 4, 0x70, 0x0a),
            (false, 4, 0x71, 0x26),
            (true, 4, 0x70, 0x8f),
            (true, 4, 0x71, 0x0a),
            (false, 4, 0xf_0000, 0xff),
            (true, 4, PCI_INDEX, GRAPHICS),
            (false, 4, 0xcfc, 0x8086),
            (true, 4, PCI_INDEX, GRAPHICS),
            (false, 4, 0xcfe, 0x0116),
        ];
        assert_eq!(found(Mode::Xapic, &[4, 5], &fine), Vec::<String>::new());
    }

    #[test]
    fn what_it_may_not_touch() {
        for (write, addr, value) in [
            (true, 0x43, 0x34),
            (true, 0x40, 1),
            (true, 0x21, 0xff),
            (true, 0xcf8, 0x8000_f800),
            (false, 0xcfc, 0),
            (true, 0xcfc, 0),
            (true, 0x71, 1),
            (true, 0x4d0, 0),
            (false, 0x60, 0),
            (true, 0x3f8, 0x41),
            (true, 0x2f8, 0x41),
            (false, 0xfec0_0010, 0),
            (false, 0xfed0_00f0, 0),
            (true, 0xa_0000, 0),
            (true, 0xcf9, 6),
        ] {
            let problems = found(Mode::Xapic, &[4, 5], &[(write, 4, addr, value); 3]);
            assert_eq!(problems.len(), 1, "{addr:#x}");
            assert!(problems[0].contains(&format!("{addr:#x}")) && problems[0].contains("3 times"));
            assert!(found(Mode::Xapic, &[4, 5], &[(write, 3, addr, value)]).is_empty(), "another's");
        }
    }

    #[test]
    fn a_cpu_alone_starts_no_other() {
        let warm = [(true, 4, 0x70, 0x8f), (true, 4, 0x71, 0x0a)];
        assert_eq!(found(Mode::Xapic, &[4, 5], &warm).len(), 0);
        assert_eq!(found(Mode::Xapic, &[4], &warm).len(), 1);
    }

    #[test]
    fn interrupts_go_to_whom_they_may() {
        let sent = |to: u64, command| {
            found(Mode::Xapic, &[4, 5], &[(true, 4, ICR_TO, to << 24), (true, 4, ICR, command)])
        };
        for (to, command) in [(0, 0x0020), (5, 0x4500), (5, 0x4601), (4, 0x0400), (9, 0x4_00ec)] {
            assert!(sent(to, command).is_empty(), "{to} {command:#x}");
        }
        for (to, command) in [(0, 0x4500), (3, 0x4601), (0, 0x0400), (0, 0xc_00fd), (0, 0x8_00fd)] {
            assert_eq!(sent(to, command).len(), 1, "{to} {command:#x}");
        }
    }

    #[test]
    fn in_x2apic_mode_the_page_of_the_apic_is_nobodys() {
        assert_eq!(found(Mode::X2apic, &[4], &[(true, 4, 0xfee0_00b0, 0)]).len(), 1);
        assert_eq!(found(Mode::X2apic, &[4], &[(true, 4, 0x4d0, 0)]).len(), 0);
    }

    #[test]
    fn a_trace_that_shows_nothing_proves_nothing() {
        let problems = |lines: &[String]| {
            let mut touched = Touched::new(Mode::Xapic, vec![4]);
            lines.iter().for_each(|line| touched.take(line));
            touched.problems().len()
        };
        let [begin, end] = [BEGIN, END].map(|value| line(true, 0, MARKS, value));
        let own = line(true, 4, UART.start, 0);
        assert_eq!(problems(&[]), 1);
        assert_eq!(problems(&[begin.clone(), own.clone()]), 1);
        assert_eq!(problems(&[begin.clone(), end.clone()]), 1);
        assert_eq!(problems(&[begin.clone(), own.clone(), end.clone()]), 0);
        assert_eq!(problems(&[own, begin, end]), 1);
    }

    #[test]
    fn one_look_for_graphics() {
        let looks = |count| found(Mode::Xapic, &[4], &vec![(true, 4, PCI_INDEX, GRAPHICS); count]).len();
        assert_eq!((looks(LOOKS as usize), looks(LOOKS as usize + 1)), (0, 1));
    }

    #[test]
    fn a_clock_that_is_read_again_and_again() {
        let reads = vec![(false, 4, 0x71, 0); CLOCK as usize];
        assert!(found(Mode::Xapic, &[4], &reads).is_empty());
        let more = vec![(false, 4, 0x71, 0); CLOCK as usize + 1];
        assert_eq!(found(Mode::Xapic, &[4], &more).len(), 1);
    }
}
