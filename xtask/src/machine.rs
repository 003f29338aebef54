// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs the emulated machine once: boots it, reads its serial line, and stops it if it hangs.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::arch::Arch;
use crate::cmd::{shown, Places};
use crate::guest::{Host, COMMAND_LINE};
use crate::image::Image;
use crate::provision::qemu::Qemu;
use crate::record::{Generation, Mode, Record, Report, VICTIM};
use crate::watch::Watch;

/// QEMU's exit status if the run succeeded. On x86 the host kernel writes 0x10 to isa-debug-exit, and QEMU's status is then
/// `(0x10 << 1) | 1`. On the other architectures the host ends QEMU with the same status. 0 does not mean success, because it is
/// also QEMU's status after a triple fault.
const SUCCESS: i32 = 33;
/// The option of QEMU for the device by which a kernel on a PC ends QEMU with a status.
const EXIT_DEVICE: [&str; 2] = ["-device", "isa-debug-exit,iobase=0xf4,iosize=4"];
/// How many of the last lines of the serial line are shown after a failure.
pub const TAIL: usize = 40;
/// If a machine reports no progress for this time, it is hung.
const QUIET: Duration = Duration::from_secs(30);

/// A machine, and the task of its kernels.
pub struct Job<'a> {
    /// The machine's architecture.
    pub arch: Arch,
    /// The kernel that the machine boots.
    pub host: Host,
    /// `demo` or `conformance`.
    pub run: &'a str,
    /// The mode of the interrupt controller.
    pub mode: Mode,
    /// The layout of the links.
    pub generation: Generation,
    /// Messages that each kernel sends to each other kernel.
    pub messages: u64,
    /// How often kernel [`VICTIM`] is killed.
    pub kills: u32,
    /// How many CPUs the directory lists for the host. Each other kernel has one.
    pub host_cpus: u32,
    /// How often a CPU is moved between running kernels. If this is not 0, the machine has one CPU more.
    pub moves: u32,
    /// A failure that a kernel causes on purpose, in the syntax of the kernels' command line
    /// (examples/bare-metal/src/options.rs).
    pub fault: Option<&'a str>,
    /// The kernels, the host first.
    pub images: &'a [Image],
}

impl Job<'_> {
    /// The number of kernels.
    pub fn kernels(&self) -> u32 {
        u32::try_from(self.images.len()).unwrap_or(u32::MAX)
    }

    /// The number of CPUs of the machine.
    pub fn cpus(&self) -> u32 {
        let spare = u32::from(self.moves != 0);
        self.host_cpus.saturating_add(self.kernels().saturating_sub(1)).saturating_add(spare)
    }

    /// The command line of the host kernel.
    fn command_line(&self) -> String {
        let mode = self.mode.word();
        let mut line = format!(
            "mk_ipi.run={} mk_ipi.mode={mode} mk_ipi.generation={} mk_ipi.messages={}",
            self.run, self.generation, self.messages
        );
        if self.kills != 0 {
            line.push_str(&format!(" mk_ipi.kill={}:{VICTIM}", self.kills));
        }
        if self.moves != 0 {
            line.push_str(&format!(" mk_ipi.move={}", self.moves));
        }
        for image in &self.images[1..] {
            line.push_str(&format!(" mk_ipi.image={:#x}+{:#x}", image.staged_at, image.len));
        }
        if let Some(fault) = self.fault {
            line.push_str(&format!(" mk_ipi.fault={fault}"));
        }
        line
    }

    /// The command that runs QEMU. `line` is a file with the command line. It is put into memory for a host whose boot loader
    /// passes no command line.
    fn command(&self, qemu: &Qemu, line: &Path) -> Command {
        let mut cmd = qemu.command();
        match self.arch {
            Arch::X86 => cmd.args(["-M", "q35", "-cpu", self.cpu()]).args(EXIT_DEVICE),
            Arch::Arm64 => cmd.args(["-M", "virt,gic-version=3", "-cpu", "max", "-semihosting"]),
            Arch::Riscv64 if self.mode == Mode::Imsic => cmd.args(["-M", "virt,aia=aplic-imsic"]),
            Arch::Riscv64 => cmd.args(["-M", "virt"]),
        };
        cmd.args(["-accel", "tcg,thread=multi", "-m", "1G"]);
        cmd.args(["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"]);
        cmd.arg("-smp").arg(self.cpus().to_string());
        // In QEMU's options, a comma that is part of a value is doubled.
        let quoted = |file: &Path| file.display().to_string().replace(',', ",,");
        let loader = |file, at: u64| format!("loader,file={},addr={at:#x},force-raw=on", quoted(file));
        match self.host {
            Host::BareMetal | Host::Axplat => {
                cmd.arg("-kernel").arg(&self.images[0].file).arg("-append").arg(self.command_line());
            }
            Host::Bootloader => {
                let disk = quoted(&self.images[0].file);
                cmd.arg("-drive").arg(format!("if=none,id=disk,format=raw,snapshot=on,file={disk}"));
                // The boot loader asks the BIOS for a video mode, so the machine must have a graphics card.
                cmd.args(["-device", "VGA", "-device", "ide-hd,drive=disk"]);
                cmd.arg("-device").arg(loader(line, COMMAND_LINE));
            }
        }
        for image in &self.images[1..] {
            cmd.arg("-device").arg(loader(&image.file, image.staged_at));
        }
        cmd
    }

    /// The CPU model. axplat always uses x2APIC mode if the CPU has this mode. So the CPU must not have it if the run is in xAPIC
    /// mode.
    fn cpu(&self) -> &'static str {
        if self.host == Host::Axplat && self.mode == Mode::Xapic {
            "max,-x2apic"
        } else {
            "max"
        }
    }

    /// The time limit of a run. A run that reaches it is stopped even if it makes progress. The limit is much longer than a run
    /// needs, so that a run on a slow computer does not fail.
    fn hard_bound(&self) -> Duration {
        let n = u64::from(self.kernels());
        let messages = self.messages.saturating_mul(n * (n - 1));
        let moves = Duration::from_secs(self.moves.into());
        let messages = Duration::from_millis(messages.saturating_mul(2));
        Duration::from_secs(120).saturating_add(messages).saturating_add(moves)
    }
}

/// The result of a run.
pub struct Run {
    /// The records of the kernels.
    pub report: Report,
    /// A problem if the machine was stopped because it was hung, or if QEMU ended with a wrong status.
    pub problems: Vec<String>,
    /// The last lines of the serial line.
    pub tail: VecDeque<String>,
    /// The file with all lines of the serial line.
    pub log: PathBuf,
}

/// A QEMU process, which is killed when this is dropped.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // These fail if QEMU has already ended, which does no harm.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Boots the machine, and waits until it ends. Calls `on_record` for each record as soon as it comes.
pub fn boot(places: &Places, qemu: &Qemu, job: &Job, on_record: &mut dyn FnMut(&Record)) -> Result<Run> {
    watched(places, qemu, job)?.run(on_record)
}

/// Prepares a run of the machine: the command that boots it, and the time limits.
pub fn watched(places: &Places, qemu: &Qemu, job: &Job) -> Result<Watched> {
    let name = format!("serial-{}-{}.log", job.run, job.mode.to_string().to_lowercase());
    std::fs::create_dir_all(places.own_target(""))?;
    let line = places.own_target("command-line");
    // A byte of 0 ends the command line.
    std::fs::write(&line, job.command_line() + "\0")?;
    Ok(Watched {
        cmd: job.command(qemu, &line),
        log: places.own_target(&name),
        quiet: QUIET,
        hard: job.hard_bound(),
        success: SUCCESS,
        report: Report::default(),
    })
}

/// A run of QEMU whose stdout is the serial line with the records.
pub struct Watched {
    /// The command that runs QEMU.
    pub cmd: Command,
    /// The file to which QEMU's output is written.
    pub log: PathBuf,
    /// If the machine reports no progress for this time, it is hung, and is stopped.
    pub quiet: Duration,
    /// If the machine runs longer than this, it is stopped, even if it makes progress.
    pub hard: Duration,
    /// The exit status that QEMU must have.
    pub success: i32,
    /// Collects the records.
    pub report: Report,
}

impl Watched {
    /// Runs QEMU until it ends, or stops it if the machine is hung.
    pub fn run(mut self, on_record: &mut dyn FnMut(&Record)) -> Result<Run> {
        eprintln!("$ {}", shown(&self.cmd));
        let mut log_file = File::create(&self.log).with_context(|| self.log.display().to_string())?;
        let child = self.cmd.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut qemu = Guard(child.context("QEMU could not be started")?);
        let lines =
            lines_of(qemu.0.stdout.take().context("no stdout")?, qemu.0.stderr.take().context("no stderr")?);

        let mut run = Run { report: self.report, problems: Vec::new(), tail: VecDeque::new(), log: self.log };
        let mut watch = Watch::new(Instant::now(), self.quiet, self.hard);
        loop {
            match lines.recv_timeout(Duration::from_millis(250)) {
                Ok(line) => {
                    writeln!(log_file, "{line}")?;
                    if let Some(record) = run.report.take(&line) {
                        watch.saw(&record, Instant::now());
                        on_record(&record);
                    }
                    if run.tail.len() == TAIL {
                        run.tail.pop_front();
                    }
                    run.tail.push_back(line);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if let Some(why) = watch.overdue(Instant::now()) {
                run.problems.push(format!("the machine was stopped: {why}"));
                return Ok(run);
            }
        }
        run.problems.extend(exit_problem(qemu.0.wait()?, self.success));
        // If a signal has ended QEMU, its status can be 0, and only its last message says so.
        if run.report.done.is_none() {
            let said = run.tail.iter().rev().find(|line| line.starts_with(QEMU_SAYS));
            run.problems.extend(said.map(|line| format!("the last message of QEMU itself: {line}")));
        }
        Ok(run)
    }
}

/// Returns a problem if QEMU did not end with the status `success`.
fn exit_problem(status: ExitStatus, success: i32) -> Option<String> {
    (status.code() != Some(success)).then(|| format!("QEMU ended with {status}, not with {success}"))
}

/// Returns a channel that receives each line of both streams as soon as it comes. It is closed when both streams are closed. The
/// lines of stderr get the prefix [`QEMU_SAYS`].
fn lines_of(stdout: impl Read + Send + 'static, stderr: impl Read + Send + 'static) -> Receiver<String> {
    // The channel has a bound. Otherwise a kernel that prints without end could fill our memory.
    let (tx, rx) = mpsc::sync_channel(1024);
    let errors = tx.clone();
    thread::spawn(move || forward(stdout, &tx, ""));
    thread::spawn(move || forward(stderr, &errors, QEMU_SAYS));
    rx
}

/// The prefix of the lines that QEMU itself writes to stderr.
const QEMU_SAYS: &str = "qemu: ";
/// A line that has more bytes than this is split.
const LINE: u64 = 4096;

fn forward(from: impl Read, to: &mpsc::SyncSender<String>, prefix: &str) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        match from.by_ref().take(LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        if to.send(format!("{prefix}{}", text.trim_end_matches(['\r', '\n']))).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn only_the_kernels_own_word_is_success() {
        let exited = |code: i32| ExitStatus::from_raw(code << 8);
        assert_eq!(exit_problem(exited(33), SUCCESS), None);
        for code in [0, 1, 35] {
            assert!(exit_problem(exited(code), SUCCESS).is_some(), "{code}");
        }
        assert!(exit_problem(ExitStatus::from_raw(9), SUCCESS).is_some(), "killed");
    }

    #[test]
    fn lines_are_cut_and_cleaned() {
        let long = vec![b'x'; LINE as usize + 1];
        let lines: Vec<String> = lines_of(&b"one\r\n\xfftwo\nthree"[..], std::io::empty()).iter().collect();
        assert_eq!(lines, ["one", "\u{fffd}two", "three"]);
        let lines: Vec<usize> =
            lines_of(std::io::Cursor::new(long), std::io::empty()).iter().map(|l| l.len()).collect();
        assert_eq!(lines, [LINE as usize, 1]);
    }

    #[test]
    fn what_the_host_is_told() {
        let image = |staged_at| Image { file: "k,1.elf".into(), len: 0x1234, staged_at };
        let images = [image(0), image(0x2100_0000)];
        let job = Job {
            arch: Arch::X86,
            host: Host::BareMetal,
            run: "demo",
            mode: Mode::X2apic,
            generation: Generation::RfcV2,
            messages: 7,
            kills: 3,
            host_cpus: 128,
            moves: 9,
            fault: Some("hang:1"),
            images: &images,
        };
        let expected = "mk_ipi.run=demo mk_ipi.mode=x2apic mk_ipi.generation=rfc-v2 mk_ipi.messages=7 mk_ipi.kill=3:1 mk_ipi.move=9 mk_ipi.image=0x21000000+0x1234 mk_ipi.fault=hang:1";
        assert_eq!(job.command_line(), expected);
        assert_eq!((job.kernels(), job.cpus()), (2, 130));
    }
}
