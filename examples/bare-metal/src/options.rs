// SPDX-License-Identifier: MIT OR Apache-2.0
//! The options in the command line. The host gets its command line from the emulator, a spawned kernel from the host.
//!
//! - `mk_ipi.run=demo|conformance|serve`: what to run. `serve` is for a kernel whose host is of another kind, such as Linux
//! - `mk_ipi.mode=MODE`: the mode of the interrupt controller, such as `x2apic`. Without this option, the kernel uses the mode in
//!   which it finds the controller
//! - `mk_ipi.console=PORT|link`, with `serve`: where this kernel prints. PORT is the base of its own UART; `link` means that it
//!   prints to the host, over the link. Without this option, the kernel prints nothing
//! - `mk_ipi.ip=ADDRESS/PREFIX`, with `serve`: the address of the kernel's network interfaces to other kernels (net.rs)
//! - `mk_ipi.hostile=noise:SEED|deaf`, with `serve`: the kernel breaks the rules in this way (hostile.rs)
//! - `mk_ipi.generation=native|rfc-v2`: the layout of the links
//! - `mk_ipi.messages=N`: the number of messages in the demo, per ordered pair of kernels
//! - `mk_ipi.fault=FAULT:K`: kernel K has this fault in the middle of its stream, to test that the demo detects it. FAULT is
//!   one of `hang`, `panic`, `exception`, `lose`, `tear`, `double`. With `mk_ipi.move=` it can also be `keep` or `stale`.
//!   `keep`: kernel K leaves its doorbell at a CPU that it gives up; this does no harm. `stale`: the same, and in addition the
//!   kernels do not follow the directory, and do not wait until others have followed it; the demo must detect this
//! - `mk_ipi.kill=N:K`: while the kernels stream, the host stops kernel K and starts it again, N times (native only)
//! - `mk_ipi.move=N`: the host moves a spare CPU N times from one running kernel to the next (native only)
//! - `mk_ipi.image=ADDRESS+LENGTH`, for the host, once for each kernel that it must start: the location of that kernel's ELF file
//! - `mk_ipi_shared=`, `mk_ipi_directory=`, for a spawned kernel (SPEC B-1, D-1). mk-ipi-abi reads them

use crate::arch::Mode;
use crate::console::Own;
use crate::layout::MAX_KERNELS;
use core::fmt;
use core::net::Ipv4Addr;
use mk_ipi_abi::boot_param::{parse_address, parse_size};
use mk_ipi_abi::{PhysAddr, PhysRange};

/// The largest number of messages per ordered pair of kernels. A receiver has one bit of memory for each.
pub const MAX_MESSAGES: u32 = 1 << 20;

/// The largest number of times that a kernel can be killed. The journal has room for one message in doubt for each.
pub const MAX_KILLS: usize = 50;

/// What to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// The traffic of demo.rs.
    Demo,
    /// The cases of conformance.rs.
    Conformance,
    /// The service of serve.rs, which does what the host's messages say.
    Serve,
}

/// The layout of the links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// The native link.
    Native,
    /// RFC v2.
    RfcV2,
}

/// Which kernel the host kills, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kills {
    /// How often the kernel is killed.
    pub count: u32,
    /// The number of the kernel, which is not the host.
    pub kernel: u8,
}

/// A fault that a kernel must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Stop for ever, with interrupts off.
    Hang,
    /// Panic.
    Panic,
    /// Run an undefined instruction.
    Exception,
    /// Count a message as sent without sending it.
    Lose,
    /// Change a byte of a message.
    Tear,
    /// Send message 0 a second time, in the place of another message.
    Double,
    /// Leave the doorbell at a CPU that is given up. Other kernels ring it only as long as the directory lists that CPU for
    /// this kernel.
    Keep,
    /// The same as `Keep`. In addition the kernels do not follow the directory, and do not wait until others have followed it.
    /// So other kernels continue to ring the doorbell at that CPU.
    Stale,
}

const FAULTS: [(&str, FaultKind); 8] = [
    ("hang", FaultKind::Hang),
    ("panic", FaultKind::Panic),
    ("exception", FaultKind::Exception),
    ("lose", FaultKind::Lose),
    ("tear", FaultKind::Tear),
    ("double", FaultKind::Double),
    ("keep", FaultKind::Keep),
    ("stale", FaultKind::Stale),
];

/// A kernel, and the fault that it must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The fault.
    pub kind: FaultKind,
    /// The number of the kernel.
    pub kernel: u8,
}

/// The command line's options.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What to run.
    pub run: Run,
    /// The mode of the interrupt controller.
    pub mode: Mode,
    /// The layout of the links.
    pub generation: Generation,
    /// The number of messages per ordered pair of kernels.
    pub messages: u32,
    /// The kernel that the host kills, if there is one.
    pub kills: Option<Kills>,
    /// How often a spare CPU is moved. `None` if there is no such CPU.
    pub moves: Option<u32>,
    /// The fault that a kernel must have, if any.
    pub fault: Option<Fault>,
    /// The address of this kernel's network interfaces, and the length of the network prefix in bits.
    pub ip: Option<(Ipv4Addr, u8)>,
    /// How this kernel breaks the rules, if it must.
    pub hostile: Option<Hostile>,
    /// The ELF files of the kernels that the host must start.
    images: [Option<PhysRange>; MAX_KERNELS - 1],
}

/// How a kernel breaks the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hostile {
    /// It sends invalid messages. Contains the seed of the random numbers.
    Noise(u64),
    /// It takes no more messages.
    Deaf,
}

/// Why an option is invalid.
#[derive(Debug)]
pub enum OptionError<'a> {
    /// There is no option of that name.
    Unknown(&'a str),
    /// The option has an invalid value.
    Value(&'a str),
    /// There are more images than the memory map has room for.
    TooManyImages,
}

impl fmt::Display for OptionError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(word) => write!(f, "no such option: {word}"),
            Self::Value(word) => write!(f, "bad value: {word}"),
            Self::TooManyImages => write!(f, "more than {MAX_KERNELS} kernels"),
        }
    }
}

impl Options {
    /// Reads all words of `line` that begin with `mk_ipi.` and contain `=`. Other words are ignored.
    pub fn parse(line: &str) -> Result<Self, OptionError<'_>> {
        let mut options = Self {
            run: Run::Demo,
            mode: Mode::Present,
            generation: Generation::Native,
            messages: 1000,
            kills: None,
            moves: None,
            fault: None,
            ip: None,
            hostile: None,
            images: [None; MAX_KERNELS - 1],
        };
        let mut nr_images = 0;
        for word in line.split_ascii_whitespace() {
            let Some((name, value)) = word.strip_prefix("mk_ipi.").and_then(|w| w.split_once('=')) else {
                continue;
            };
            let bad = OptionError::Value(word);
            match name {
                "run" => options.run = run_named(value).ok_or(bad)?,
                "mode" => options.mode = Mode::named(value).ok_or(bad)?,
                // The value is only checked here. `own_console` has used it already.
                "console" => _ = console(value.as_bytes()).ok_or(bad)?,
                "generation" => options.generation = generation_named(value).ok_or(bad)?,
                "kill" => options.kills = Some(kills(value).ok_or(bad)?),
                "move" => options.moves = Some(value.parse().map_err(|_| bad)?),
                "messages" => options.messages = messages(value).ok_or(bad)?,
                "fault" => options.fault = Some(fault(value).ok_or(bad)?),
                "ip" => options.ip = Some(ip(value).ok_or(bad)?),
                "hostile" => options.hostile = Some(hostile(value).ok_or(bad)?),
                "image" => {
                    let place = options.images.get_mut(nr_images).ok_or(OptionError::TooManyImages)?;
                    *place = Some(image(value).ok_or(bad)?);
                    nr_images += 1;
                }
                _ => return Err(OptionError::Unknown(word)),
            }
        }
        Ok(options)
    }

    /// The locations of the ELF files of kernels 1, 2, ...
    pub fn images(&self) -> impl Iterator<Item = PhysRange> + '_ {
        self.images.iter().map_while(|i| *i)
    }
}

/// Returns whether the command line tells this kernel to serve. This is read before the other options, because it says where the
/// kernel prints, and how it ends after an error.
pub fn is_to_serve(line: &[u8]) -> bool {
    value_of(line, b"run") == Some(b"serve")
}

/// The value of `mk_ipi.console=`. `None` if the option is absent or invalid.
pub fn own_console(line: &[u8]) -> Option<Own> {
    value_of(line, b"console").and_then(console)
}

/// The value of the option `name` in `line`. If the option occurs several times, its last value.
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let words = line.split(u8::is_ascii_whitespace);
    words.filter_map(|w| w.strip_prefix(b"mk_ipi.")?.strip_prefix(name)?.strip_prefix(b"=")).next_back()
}

/// Formats the options that the host puts into a spawned kernel's command line.
impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let run = match self.run {
            Run::Demo => "demo",
            Run::Conformance => "conformance",
            Run::Serve => "serve",
        };
        write!(f, "mk_ipi.run={run} mk_ipi.mode={}", self.mode)?;
        write!(f, " mk_ipi.generation={} mk_ipi.messages={}", self.generation, self.messages)?;
        if let Some(Kills { count, kernel }) = self.kills {
            write!(f, " mk_ipi.kill={count}:{kernel}")?;
        }
        if let Some(count) = self.moves {
            write!(f, " mk_ipi.move={count}")?;
        }
        if let Some(Fault { kind, kernel }) = self.fault {
            let name = FAULTS.iter().find(|(_, k)| *k == kind).map_or("", |(name, _)| name);
            write!(f, " mk_ipi.fault={name}:{kernel}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::RfcV2 => "rfc-v2",
        })
    }
}

fn run_named(value: &str) -> Option<Run> {
    match value {
        "demo" => Some(Run::Demo),
        "conformance" => Some(Run::Conformance),
        "serve" => Some(Run::Serve),
        _ => None,
    }
}

fn generation_named(value: &str) -> Option<Generation> {
    match value {
        "native" => Some(Generation::Native),
        "rfc-v2" => Some(Generation::RfcV2),
        _ => None,
    }
}

fn kills(value: &str) -> Option<Kills> {
    let (count, kernel) = value.split_once(':')?;
    let kills = Kills { count: count.parse().ok()?, kernel: kernel.parse().ok()? };
    (kills.kernel != 0 && kills.count as usize <= MAX_KILLS).then_some(kills)
}

fn console(value: &[u8]) -> Option<Own> {
    match value {
        b"link" => Some(Own::Link),
        port => Some(Own::Port(parse_size(port).ok()?.try_into().ok()?)),
    }
}

fn ip(value: &str) -> Option<(Ipv4Addr, u8)> {
    let (address, prefix) = value.split_once('/')?;
    let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
    Some((address.parse().ok()?, prefix))
}

fn hostile(value: &str) -> Option<Hostile> {
    match value.split_once(':') {
        Some(("noise", seed)) => Some(Hostile::Noise(seed.parse().ok()?)),
        None if value == "deaf" => Some(Hostile::Deaf),
        _ => None,
    }
}

fn messages(value: &str) -> Option<u32> {
    let n = parse_size(value.as_bytes()).ok()?;
    u32::try_from(n).ok().filter(|n| (1..=MAX_MESSAGES).contains(n))
}

fn fault(value: &str) -> Option<Fault> {
    let (kind, kernel) = value.split_once(':')?;
    let (_, kind) = *FAULTS.iter().find(|(name, _)| *name == kind)?;
    Some(Fault { kind, kernel: kernel.parse().ok()? })
}

fn image(value: &str) -> Option<PhysRange> {
    let (start, len) = value.split_once('+')?;
    let start: PhysAddr = parse_address(start.as_bytes()).ok()?;
    PhysRange::new(start, parse_size(len.as_bytes()).ok()?)
}
