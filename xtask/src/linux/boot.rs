// SPDX-License-Identifier: MIT OR Apache-2.0
//! One boot of Linux in the emulated machine, and the verdict on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use super::log;
use crate::cmd::shown;
use crate::live::Live;
use crate::machine::{Run, Watched, TAIL};
use crate::provision::qemu::Qemu;
use crate::record::{Generation, Mode, Order, Report};

/// Linux and those beside it.
pub const KERNELS: u32 = 3;
/// QEMU's exit status when Linux restarts the machine, which it may not (`-no-reboot`). A crash ends with it too:
/// what tells them apart is the last record.
const SUCCESS: i32 = 0;

/// What to boot, and what it shall do.
pub struct Job<'a> {
    /// Linux.
    pub image: PathBuf,
    /// Its first file system.
    pub initramfs: &'a Path,
    /// Where the logs go; its own.
    pub folder: PathBuf,
    /// How the local APIC is driven.
    pub mode: Mode,
    /// What the links speak, one after the other.
    pub generations: &'a [Generation],
    /// Messages per ordered pair.
    pub messages: u64,
    /// How often all comes up and goes down.
    pub cycles: u64,
    /// CPUs of the machine.
    pub cpus: u32,
    /// Whether this Linux looks for mistakes, which takes its time.
    pub debug: bool,
}

impl Job<'_> {
    /// The serial lines: Linux's log, then one for each other kernel. The records come on QEMU's stdout.
    fn logs(&self) -> [PathBuf; 3] {
        ["console.log", "k1.log", "k2.log"].map(|name| self.folder.join(name))
    }

    /// A folder without the logs of an earlier run.
    fn make_folder(&self) -> Result<()> {
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder)?;
        }
        Ok(fs::create_dir_all(&self.folder)?)
    }

    fn command_line(&self, scenario: &str) -> String {
        let apic = if self.mode == Mode::Xapic { "nox2apic" } else { "intremap=on" };
        let generation = match self.generations {
            [one] => one.to_string(),
            _ => "both".into(),
        };
        let (one, two) = (self.cpus - 2, self.cpus - 1);
        // Of many emulated CPUs a few are online: each wants its share of few real ones. Linux knows them all.
        let few = if self.cpus > 8 { "maxcpus=4 " } else { "" };
        format!(
            "{few}console=ttyS0 panic=-1 oops=panic memmap=64M$0x30000000 no_ipi_broadcast=1 {apic} \
             mk_ipi.scenario={scenario} mk_ipi.generation={generation} mk_ipi.cpus={one},{two} mk_ipi.messages={} mk_ipi.cycles={}",
            self.messages, self.cycles
        )
    }

    /// QEMU with these for its first two serial lines, Linux's console and what carries the records.
    fn command(&self, qemu: &Qemu, scenario: &str, [console, records]: [&str; 2]) -> Command {
        let mut cmd = qemu.command();
        cmd.args(["-M", "q35", "-cpu", "max", "-accel", "tcg,thread=multi", "-m", "1G"]);
        cmd.args(["-smp", &self.cpus.to_string()]);
        if self.mode == Mode::X2apic {
            // Linux takes x2APIC where interrupts can be remapped only.
            cmd.args(["-device", "intel-iommu,intremap=on,eim=on"]);
        }
        cmd.args(["-nodefaults", "-display", "none", "-no-reboot"]);
        let [_, k1, k2] = self.logs().map(to_file);
        for serial in [console, records, &k1, &k2] {
            cmd.arg("-serial").arg(serial);
        }
        cmd.arg("-kernel").arg(&self.image).arg("-initrd").arg(self.initramfs);
        cmd.arg("-append").arg(self.command_line(scenario));
        cmd
    }

    /// Linux that looks for mistakes is slow.
    fn slowness(&self) -> u32 {
        if self.debug {
            4
        } else {
            1
        }
    }

    /// The bound of a run that gets on: far more than it needs, so that a slow machine passes.
    fn hard_bound(&self) -> Duration {
        let n = u64::from(KERNELS);
        let messages =
            self.messages.saturating_mul(n * (n - 1)).saturating_mul(self.generations.len() as u64);
        let work = Duration::from_millis(messages.saturating_mul(2));
        let cycles = Duration::from_secs(self.cycles.saturating_mul(10));
        let start = Duration::from_secs(u64::from(self.cpus.saturating_mul(4)));
        let all = Duration::from_secs(300).saturating_add(start).saturating_add(work).saturating_add(cycles);
        all * self.slowness()
    }

    /// Boots, sees it to its end, and gives what it reported and all that is wrong.
    pub fn run(&self, qemu: &Qemu) -> Result<(Run, Vec<String>)> {
        self.make_folder()?;
        let [console, others @ ..] = self.logs();
        let watched = Watched {
            cmd: self.command(qemu, "all", [&to_file(console.clone()), "stdio"]),
            log: self.folder.join("records.log"),
            quiet: Duration::from_secs(60_u64.saturating_add(self.cpus.into())) * self.slowness(),
            hard: self.hard_bound(),
            success: SUCCESS,
            report: Report { anew: true, ..Report::default() },
        };
        let mut live = Live::new(self.mode);
        let run = watched.run(&mut |record| live.saw(record))?;
        live.end();
        let mut problems = run.problems.clone();
        let said = text_of(&console);
        problems.extend(log::mode_problem(self.mode, &said));
        problems.extend(others.iter().flat_map(|log| log::failures(self.mode, &text_of(log))));
        problems.extend(log::problems(self.mode, &said));
        problems.extend(self.report_problems(&run.report));
        if !problems.is_empty() {
            self.show_tails(&run);
        }
        Ok((run, problems))
    }

    /// Boots, and leaves the user with a shell in Linux.
    pub fn shell(&self, qemu: &Qemu) -> Result<()> {
        self.make_folder()?;
        let mut cmd = self.command(qemu, "shell", ["mon:stdio", "null"]);
        eprintln!("$ {}", shown(&cmd));
        eprintln!("`reboot -f` ends it; ctrl-A x does too. The modules are in /lib/modules, the images in /lib/mk_ipi.");
        let status = cmd.status().context("QEMU does not start")?;
        ensure!(status.success(), "QEMU ended with {status}");
        Ok(())
    }

    /// What is wrong with what was reported.
    fn report_problems(&self, report: &Report) -> Vec<String> {
        let mut problems = report.common_problems(KERNELS);
        let failed = report.steps.iter().filter(|step| !step.ok);
        problems.extend(failed.map(|step| format!("{}: {step}", self.mode)));
        if report.steps.is_empty() {
            problems.push(format!("{}: no step was reported", self.mode));
        }
        if report.cycles < self.cycles {
            problems.push(format!("{}: {} cycles of {}", self.mode, report.cycles, self.cycles));
        }
        for &generation in self.generations {
            let (messages, mode) = (self.messages, self.mode);
            let (kills, host_cpus, moves) = (0, 1, 0);
            let order = Order { kernels: KERNELS, messages, mode, generation, kills, host_cpus, moves };
            problems.extend(report.pair_problems(&order).into_iter().map(|p| format!("{generation}: {p}")));
        }
        problems
    }

    /// The ends of all serial lines, for whoever must find out.
    fn show_tails(&self, run: &Run) {
        crate::demo::show_tail(run, self.mode);
        for file in self.logs() {
            eprintln!("--- the end of {} ---", file.display());
            for line in log::tail(&text_of(&file), TAIL) {
                eprintln!("{line}");
            }
        }
        eprintln!("---");
    }
}

/// A log; empty if QEMU did not begin it.
fn text_of(file: &Path) -> String {
    String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned()
}

/// A serial line that goes to a file, as QEMU takes it.
fn to_file(file: PathBuf) -> String {
    // QEMU takes a doubled comma for one that is part of a value.
    format!("file:{}", file.display().to_string().replace(',', ",,"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(generations: &[Generation]) -> Job<'_> {
        Job {
            image: "/k/bzImage".into(),
            initramfs: Path::new("/k/initramfs"),
            folder: "/k/run".into(),
            mode: Mode::Xapic,
            generations,
            messages: 10,
            cycles: 2,
            cpus: 4,
            debug: false,
        }
    }

    #[test]
    fn what_linux_is_told() {
        let all = "console=ttyS0 panic=-1 oops=panic memmap=64M$0x30000000 no_ipi_broadcast=1 nox2apic mk_ipi.scenario=all \
                   mk_ipi.generation=both mk_ipi.cpus=2,3 mk_ipi.messages=10 mk_ipi.cycles=2";
        assert_eq!(job(&[Generation::Native, Generation::RfcV2]).command_line("all"), all);
        let x2apic = Job { mode: Mode::X2apic, ..job(&[Generation::RfcV2]) };
        assert_eq!(
            x2apic.command_line("all"),
            all.replace("nox2apic", "intremap=on").replace("both", "rfc-v2")
        );
    }

    /// A faultless run of one generation, line by line.
    fn good() -> Vec<String> {
        let mut lines: Vec<String> = (0..KERNELS)
            .map(|id| format!(r#"@{{"kernel":{{"id":{id},"lang":"rust","cpu":{id},"life":1}}}}"#))
            .collect();
        for (from, to) in crate::record::pairs(KERNELS) {
            let ends = format!(r#""from":{from},"to":{to},"mode":"xapic","generation":"native""#);
            lines.push(format!(
                r#"@{{"sent":{{{ends},"sent":10,"doorbells":1,"rtt_cycles":{{"min":1,"median":2,"p99":3}}}}}}"#
            ));
            lines.push(format!(r#"@{{"received":{{{ends},"received":10,"lost":0,"torn":0,"doubled":0}}}}"#));
        }
        lines.push(r#"@{"step":{"name":"load","ok":true}}"#.into());
        lines.push(r#"@{"cycles":{"done":1}}"#.into());
        lines.push(r#"@{"cycles":{"done":2}}"#.into());
        lines.push(r#"@{"done":{"ok":true}}"#.into());
        lines
    }

    fn problems(lines: &[String]) -> Vec<String> {
        let mut report = Report { anew: true, ..Report::default() };
        for line in lines {
            report.take(line);
        }
        job(&[Generation::Native]).report_problems(&report)
    }

    #[test]
    fn a_good_run_has_no_problem() {
        assert_eq!(problems(&good()), Vec::<String>::new());
    }

    #[test]
    fn every_line_that_is_missing_is_a_problem() {
        for (index, line) in good().iter().enumerate().filter(|(_, line)| !line.contains("\"done\":1")) {
            let mut lines = good();
            lines.remove(index);
            assert_eq!(problems(&lines).len(), 1, "without {line}");
        }
    }

    #[test]
    fn a_step_that_failed_is_a_problem() {
        let mut lines = good();
        lines.push(r#"@{"step":{"name":"offline","ok":false,"detail":"CPU 2 is still there"}}"#.into());
        assert_eq!(problems(&lines), ["xAPIC: step offline: FAILED: CPU 2 is still there"]);
    }

    #[test]
    fn kernels_may_begin_anew() {
        let mut lines = good();
        lines.push(good()[1].clone());
        assert_eq!(problems(&lines), Vec::<String>::new());
        lines.push(good()[1].replace("\"life\":1", "\"life\":3"));
        assert_eq!(problems(&lines).len(), 1);
    }
}
