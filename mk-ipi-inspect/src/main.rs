// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mk-ipi-inspect`: shows the contents of the shared memory of mk-ipi kernels, and says what they mean.

mod live;

use clap::Parser;
use mk_ipi_inspect::machine::Kind;
use mk_ipi_inspect::rates::Rates;
use mk_ipi_inspect::{svg, text, Machine};
use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Explains the shared memory of mk-ipi kernels: which kernels are alive, which messages are unread, which kernel waits for which
/// other one, and what is broken.
///
/// The exit code is 0 if nothing is broken, 1 if something is, and 2 if the memory cannot be read.
#[derive(Parser, Debug)]
#[command(version)]
struct Cli {
    /// The memory: a raw dump (QEMU's `pmemsave`), an ELF vmcore (`dump-guest-memory`, kdump), the file that processes share as
    /// kernels, /dev/mem, or the folder of mk-ipi's Linux module in debugfs
    memory: PathBuf,
    /// Read the file as a raw dump, even if it begins like an ELF file. ADDRESS is the physical address of its first byte.
    /// Without this option, the first byte of a raw dump has the address 0
    #[arg(long, value_parser = number, value_name = "ADDRESS")]
    base: Option<u64>,
    /// Explain the region at this physical address, or the directory at this address and the regions that it names. Without this
    /// option all of the memory is searched
    #[arg(long, value_parser = number, value_name = "ADDRESS")]
    at: Option<u64>,
    /// With --at: an RFC v2 region with N slots is at this address. Such a region has no stamp by which it could be recognized
    #[arg(long, requires = "at", value_name = "N")]
    slots: Option<u32>,
    /// List at most N unread messages for each lane
    #[arg(long, default_value_t = 4, value_name = "N")]
    messages: usize,
    /// Print all that was found, as one JSON object
    #[arg(long, conflicts_with = "svg")]
    json: bool,
    /// Print all that was found, as an SVG picture
    #[arg(long)]
    svg: bool,
    /// Read the memory again every SECONDS seconds (by default every second), and print what changed, per second
    #[arg(long, num_args = 0..=1, default_missing_value = "1", value_name = "SECONDS", conflicts_with = "svg")]
    watch: Option<f64>,
    /// With --watch: stop after N times. Without this option the command does not stop
    #[arg(long, requires = "watch", value_name = "N")]
    times: Option<u64>,
}

/// Parses a decimal number, or a hexadecimal one that begins with `0x`.
fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|e| format!("{e}"))
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(false) => ExitCode::SUCCESS,
        Ok(true) => ExitCode::from(1),
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(2)
        }
    }
}

/// Does what the command line says. Returns true if anything is broken.
fn run(cli: &Cli) -> Result<bool, Box<dyn Error>> {
    let (memory, directory) = live::open(&cli.memory, cli.base)?;
    let at = cli.at.or(directory);
    let kind = cli.slots.map_or(Kind::ByItsStamp, Kind::RfcV2);
    let look = || match at {
        Some(at) => Machine::at(&memory, at, kind, cli.messages),
        None => Machine::find(&memory, cli.messages),
    };
    if at.is_none() && !memory.is_bounded() {
        return Err(
            "this file cannot be searched, because its length is not known: give an address with --at".into(),
        );
    }
    let machine = look().map_err(|e| e.to_string())?;
    if let Some(seconds) = cli.watch {
        return watch(cli, machine, Duration::try_from_secs_f64(seconds)?, &|| {
            look().map_err(|e| e.to_string().into())
        });
    }
    let shown = match () {
        () if cli.json => mk_ipi_inspect::json(&machine) + "\n",
        () if cli.svg => svg::machine(&machine),
        () => text::machine(&machine),
    };
    std::io::stdout().write_all(shown.as_bytes())?;
    Ok(machine.is_broken())
}

/// A function that reads the memory, and explains it.
type Look<'a> = &'a dyn Fn() -> Result<Machine, Box<dyn Error>>;

/// Calls `look` again and again, with a `pause` before each call, and prints what changed. Returns true if anything is broken at
/// the end.
fn watch(cli: &Cli, mut before: Machine, pause: Duration, look: Look<'_>) -> Result<bool, Box<dyn Error>> {
    let mut since = Instant::now();
    for _ in 0..cli.times.unwrap_or(u64::MAX) {
        std::thread::sleep(pause);
        let now = look()?;
        let rates = Rates::between(&before, &now, since.elapsed());
        since = Instant::now();
        let shown = if cli.json { serde_json::to_string(&rates)? + "\n" } else { text::rates(&rates) };
        std::io::stdout().write_all(shown.as_bytes())?;
        before = now;
    }
    Ok(before.is_broken())
}
