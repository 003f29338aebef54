// SPDX-License-Identifier: MIT OR Apache-2.0
//! Boots Linux once in the emulated machine, and checks what it reported.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use super::board::{to_file, to_socket, Board, Lines};
use super::log;
use super::trace::{self, Touched};
use crate::cmd::shown;
use crate::live::Live;
use crate::machine::{Run, Watched, TAIL};
use crate::provision::qemu::Qemu;
use crate::record::{Generation, Order, Report};

/// The number of kernels without a spawned Linux: the host and two bare-metal kernels.
const KERNELS: u32 = 3;
/// The instance id of the spawned Linux.
const SPAWNED: u32 = 3;
/// The ways in which the spawned Linux ends itself. It does so in a new life each time.
pub const ENDS: [&str; 7] = ["poweroff", "halt", "reboot", "rmmod", "panic", "exit", "sysrq-b"];
/// QEMU's exit status if the run succeeded: at the end Linux restarts the machine, and with `-no-reboot` QEMU then ends with 0.
/// The status is also 0 if Linux crashes, but then the last record is missing.
const SUCCESS: i32 = 0;

/// The task of Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// The scenario with all of its steps.
    All,
    /// Starts and stops a spawned Linux once, while QEMU traces each access to a device.
    Trace,
    /// Passes damaged images to the command `start` for this number of seconds.
    Fuzz(u64),
    /// Tests only the consoles, and the devices by which programs talk.
    Programs,
    /// Gives the user a shell.
    Shell,
}

impl Scenario {
    /// The name of the task, as Linux's first program knows it.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::All => "all",
            Scenario::Trace => "trace",
            Scenario::Fuzz(_) => "fuzz",
            Scenario::Programs => "programs",
            Scenario::Shell => "shell",
        }
    }
}

/// The result of a boot.
pub struct Came {
    /// The records of the kernels.
    pub report: Report,
    /// All problems.
    pub problems: Vec<String>,
    /// The device accesses of a spawned Linux as lines of text, if they were traced.
    pub touched: Vec<String>,
}

/// A Linux to boot, and its task.
pub struct Job<'a> {
    /// The image of Linux.
    pub image: PathBuf,
    /// Its initramfs.
    pub initramfs: &'a Path,
    /// The folder for the logs. It is emptied before a run.
    pub folder: PathBuf,
    /// The machine.
    pub board: Board,
    /// The task.
    pub scenario: Scenario,
    /// The layouts of the links. They are tested one after the other.
    pub generations: &'a [Generation],
    /// Messages that each kernel sends to each other kernel.
    pub messages: u64,
    /// How often Linux loads the module, starts and ends the bare-metal kernels, and unloads the module.
    pub cycles: u64,
    /// How often the spawned Linux is killed in mid-stream.
    pub lives: u64,
    /// The ways in which the spawned Linux ends itself.
    pub ends: Vec<String>,
    /// Number of bytes that are sent over each network interface, in each direction.
    pub bytes: u64,
}

impl Job<'_> {
    /// The log files of the host, the spawned Linux, and the two bare-metal kernels. The records are not in these files: they are
    /// QEMU's stdout.
    fn logs(&self) -> [PathBuf; 4] {
        ["console.log", "spawned.log", "k1.log", "k2.log"].map(|name| self.folder.join(name))
    }

    /// The file to which QEMU writes the trace.
    fn trace(&self) -> PathBuf {
        self.folder.join("trace.log")
    }

    /// The file to which QEMU writes each reset of a CPU, if there is no trace.
    fn resets(&self) -> PathBuf {
        self.folder.join("resets.log")
    }

    /// Makes the folder for the logs. If it exists, the logs of an earlier run are removed.
    fn make_folder(&self) -> Result<()> {
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder)?;
        }
        Ok(fs::create_dir_all(&self.folder)?)
    }

    /// Whether a Linux is spawned while the links have this layout.
    fn spawns(&self, generation: Generation) -> bool {
        self.board.spawn && generation == Generation::Native && self.generations.contains(&generation)
    }

    /// The number of kernels while the links have this layout.
    fn kernels_of(&self, generation: Generation) -> u32 {
        KERNELS + u32::from(self.spawns(generation))
    }

    /// The largest number of kernels in the run.
    pub fn kernels(&self) -> u32 {
        self.kernels_of(Generation::Native)
    }

    /// The command line of Linux.
    fn command_line(&self) -> String {
        let name = self.scenario.name();
        let scenario = match self.scenario {
            Scenario::Trace => format!("{name} mk_ipi.marks={:#x}", trace::MARKS),
            Scenario::Fuzz(seconds) => format!("{name} mk_ipi.seconds={seconds}"),
            Scenario::All | Scenario::Programs | Scenario::Shell => name.into(),
        };
        let generation = match self.generations {
            [one] => one.to_string(),
            _ => "both".into(),
        };
        let mut line = format!(
            "{} mk_ipi.scenario={scenario} mk_ipi.generation={generation} mk_ipi.messages={} mk_ipi.cycles={}",
            self.board.words(),
            self.messages,
            self.cycles
        );
        if self.spawns(Generation::Native) {
            line.push_str(&format!(" mk_ipi.lives={} mk_ipi.ends={}", self.lives, self.ends.join(",")));
            line.push_str(&format!(" mk_ipi.bytes={}", self.bytes));
        }
        line
    }

    /// The command that runs QEMU with Linux. The three strings are QEMU's options for the serial lines: the host's console, the
    /// records, and the spawned Linux's console.
    fn command(&self, qemu: &Qemu, [console, records, spawned]: [String; 3]) -> Command {
        let [_, _, k1, k2] = self.logs();
        let mut cmd = self.board.command(qemu, &Lines { console, records, spawned, k1, k2 });
        cmd.arg("-kernel").arg(&self.image).arg("-initrd").arg(self.initramfs);
        cmd.arg("-append").arg(self.command_line());
        if self.scenario == Scenario::Trace {
            cmd.args(trace::EVENTS.iter().flat_map(|event| ["-trace", event])).arg("-D").arg(self.trace());
        } else {
            cmd.args(["-d", "cpu_reset"]).arg("-D").arg(self.resets());
        }
        cmd
    }

    /// The time limit of a run. A run that reaches it is stopped even if it makes progress. The limit is much longer than a run
    /// needs, so that a run on a slow computer does not fail.
    fn hard_bound(&self) -> Duration {
        let pairs = |generation| u64::from(self.kernels_of(generation) * (self.kernels_of(generation) - 1));
        let pairs: u64 = self.generations.iter().map(|generation| pairs(*generation)).sum();
        let work = Duration::from_millis(self.messages.saturating_mul(pairs).saturating_mul(2));
        let cycles = Duration::from_secs(self.cycles.saturating_mul(10));
        let lives = Duration::from_secs(self.lives.saturating_add(self.ends.len() as u64).saturating_mul(60));
        let start = Duration::from_secs(u64::from(self.board.cpus.saturating_mul(4)));
        let fuzz = Duration::from_secs(if let Scenario::Fuzz(seconds) = self.scenario { seconds } else { 0 });
        let parts = [start, work, cycles, lives, fuzz];
        let all = parts.into_iter().fold(Duration::from_secs(300), Duration::saturating_add);
        all.saturating_mul(self.board.slowness())
    }

    /// Boots the machine, waits until it ends, and returns the result.
    pub fn run(&self, qemu: &Qemu) -> Result<Came> {
        self.make_folder()?;
        let [console, spawned, ..] = self.logs();
        let quiet = Duration::from_secs(60_u64.saturating_add(self.board.cpus.into()));
        let watched = Watched {
            cmd: self.command(qemu, [to_file(&console), "stdio".into(), to_file(&spawned)]),
            log: self.folder.join("records.log"),
            quiet: quiet * self.board.slowness(),
            hard: self.hard_bound(),
            success: SUCCESS,
            report: Report { anew: true, ..Report::default() },
        };
        let mut live = Live::new(self.board.mode);
        let run = watched.run(&mut |record| live.saw(record))?;
        live.end();
        let mut problems = run.problems.clone();
        problems.extend(self.log_problems());
        problems.extend(self.report_problems(&run.report));
        let mut touched = Vec::new();
        if self.scenario == Scenario::Trace {
            let trace = self.read_trace()?;
            problems.extend(trace.problems());
            touched = trace.lines();
        }
        if !problems.is_empty() {
            self.show_tails(&run);
        }
        Ok(Came { report: run.report, problems, touched })
    }

    /// Boots the machine, and gives the user a shell in Linux on this terminal. The spawned Linux, if there is one, has a shell
    /// on a socket.
    pub fn shell(&self, qemu: &Qemu) -> Result<()> {
        self.make_folder()?;
        let socket = self.folder.join("spawned.socket");
        let mut cmd = self.command(qemu, ["mon:stdio".into(), "null".into(), to_socket(&socket)]);
        eprintln!("$ {}", shown(&cmd));
        if self.board.spawn {
            eprintln!(
                "To use the spawned Linux's console, run in another terminal (ctrl-] ends it): socat -,raw,echo=0,escape=0x1d {}",
                socket.display()
            );
        }
        eprintln!(
            "`reboot -f` or ctrl-A x ends the machine. The modules are in /lib/modules, the images in /lib/mk_ipi."
        );
        let status = cmd.status().context("QEMU could not be started")?;
        ensure!(status.success(), "QEMU ended with {status}");
        Ok(())
    }

    /// Returns the problems that the logs show.
    fn log_problems(&self) -> Vec<String> {
        let mode = self.board.mode;
        let [console, spawned, k1, k2] = self.logs().map(|file| text_of(&file));
        let mut problems: Vec<String> = log::mode_problem(mode, &console).into_iter().collect();
        problems.extend([k1, k2].iter().flat_map(|log| log::failures(mode, log)));
        problems.extend(log::reset_problem(mode, &text_of(&self.resets())));
        problems.extend(log::problems(mode, &console));
        problems.extend(log::spawned_problems(mode, &spawned));
        if self.scenario == Scenario::All && self.spawns(Generation::Native) {
            problems.extend(log::move_problem(mode, &spawned));
        }
        problems
    }

    /// Reads QEMU's trace. The file is large, so it is removed if the trace shows no problem.
    fn read_trace(&self) -> Result<Touched> {
        let mut touched = Touched::new(self.board.mode, self.board.spawned_cpus());
        let trace = self.trace();
        let file = File::open(&trace).with_context(|| trace.display().to_string())?;
        touched.read(BufReader::new(file))?;
        if touched.problems().is_empty() {
            fs::remove_file(&trace)?;
        }
        Ok(touched)
    }

    /// Returns the problems that the records show.
    fn report_problems(&self, report: &Report) -> Vec<String> {
        let mode = self.board.mode;
        let all = self.scenario == Scenario::All;
        let reporting = if all || self.scenario == Scenario::Programs { self.kernels() } else { 0 };
        let mut problems = report.common_problems(reporting);
        let failed = report.steps.iter().filter(|step| !step.ok);
        problems.extend(failed.map(|step| format!("{mode}: {step}")));
        if report.steps.is_empty() {
            problems.push(format!("{mode}: no step was reported"));
        }
        if all {
            problems.extend(self.count_problems(report));
        }
        problems
    }

    /// Returns problems with the numbers of cycles, lives and messages.
    fn count_problems(&self, report: &Report) -> Vec<String> {
        let mode = self.board.mode;
        let mut problems = Vec::new();
        if report.cycles < self.cycles {
            problems.push(format!("{mode}: only {} of {} cycles were done", report.cycles, self.cycles));
        }
        if self.spawns(Generation::Native) {
            let lived = report.kernels.get(&SPAWNED).map_or(0, |kernel| u64::from(kernel.life));
            // The lives are: the first one; one after a kill during a network transfer; one after a kill while programs exchange
            // messages; one after each kill of `--lives`; and one for each way to end.
            let wanted = 3 + self.lives + self.ends.len() as u64;
            if lived != wanted && lived != 0 {
                problems.push(format!("{mode}: the spawned Linux had {lived} lives, not {wanted}"));
            }
        }
        for &generation in self.generations {
            let (kernels, messages) = (self.kernels_of(generation), self.messages);
            let (kills, host_cpus, moves) = (0, 1, 0);
            let order = Order { kernels, messages, mode, generation, kills, host_cpus, moves };
            problems.extend(report.pair_problems(&order).into_iter().map(|p| format!("{generation}: {p}")));
        }
        problems
    }

    /// Prints the last lines of all serial lines, to help find the cause of a failure.
    fn show_tails(&self, run: &Run) {
        crate::demo::show_tail(run, self.board.mode);
        for file in self.logs() {
            eprintln!("--- the end of {} ---", file.display());
            for line in log::tail(&text_of(&file), TAIL) {
                eprintln!("{line}");
            }
        }
        eprintln!("---");
    }
}

/// The text of a log. It is empty if QEMU has not made the file.
fn text_of(file: &Path) -> String {
    String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Mode;

    const BOARD: Board = Board { mode: Mode::Xapic, cpus: 6, threads: 1, spawn: true, debug: false };
    const BOTH: &[Generation] = &[Generation::Native, Generation::RfcV2];

    fn job(generations: &[Generation]) -> Job<'_> {
        Job {
            image: "/k/bzImage".into(),
            initramfs: Path::new("/k/initramfs"),
            folder: "/k/run".into(),
            board: BOARD,
            scenario: Scenario::All,
            generations,
            messages: 10,
            cycles: 2,
            lives: 3,
            ends: ENDS.map(String::from).to_vec(),
            bytes: 1000,
        }
    }

    /// The job without a spawned Linux.
    fn plain(generations: &[Generation]) -> Job<'_> {
        Job { board: Board { spawn: false, ..BOARD }, ..job(generations) }
    }

    #[test]
    fn what_linux_is_told_to_do() {
        let line = |job: Job<'_>| {
            let line = job.command_line();
            line.strip_prefix(&job.board.words()).map(str::to_owned)
        };
        let all = " mk_ipi.scenario=all mk_ipi.generation=both mk_ipi.messages=10 mk_ipi.cycles=2";
        let lives =
            " mk_ipi.lives=3 mk_ipi.ends=poweroff,halt,reboot,rmmod,panic,exit,sysrq-b mk_ipi.bytes=1000";
        assert_eq!(line(job(BOTH)), Some(format!("{all}{lives}")));
        assert_eq!(line(plain(BOTH)).as_deref(), Some(all));
        assert_eq!(line(job(&BOTH[1..])), Some(all.replace("both", "rfc-v2")));
        let trace = Job { scenario: Scenario::Trace, ..job(BOTH) };
        let told = all.replace("all", "trace mk_ipi.marks=0x220");
        assert_eq!(line(trace), Some(format!("{told}{lives}")));
        let fuzz = Job { scenario: Scenario::Fuzz(9), ..plain(BOTH) };
        assert_eq!(line(fuzz), Some(all.replace("all", "fuzz mk_ipi.seconds=9")));
    }

    #[test]
    fn a_linux_is_spawned_on_the_native_link_only() {
        let kernels = |job: Job<'_>| [job.kernels(), job.kernels_of(Generation::RfcV2)];
        assert_eq!(kernels(job(BOTH)), [4, 3]);
        assert_eq!(kernels(job(&BOTH[1..])), [3, 3]);
        assert_eq!(kernels(plain(BOTH)), [3, 3]);
    }

    /// The records of a run on the native link in which no fault occurs.
    fn good(kernels: u32) -> Vec<String> {
        let mut lines: Vec<String> = (0..kernels)
            .map(|id| format!(r#"@{{"kernel":{{"id":{id},"lang":"rust","cpu":{id},"life":1}}}}"#))
            .collect();
        for (from, to) in crate::record::pairs(kernels) {
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

    /// The records of such a run with a spawned Linux, which has 13 lives.
    fn good_spawned() -> Vec<String> {
        let mut lines = good(4);
        lines.extend((2..14).map(life_of_linux));
        lines
    }

    fn life_of_linux(life: u32) -> String {
        format!(r#"@{{"kernel":{{"id":3,"lang":"linux","cpu":4,"life":{life}}}}}"#)
    }

    fn report(lines: &[String]) -> Report {
        let mut report = Report { anew: true, ..Report::default() };
        for line in lines {
            report.take(line);
        }
        report
    }

    fn problems(lines: &[String]) -> Vec<String> {
        plain(&[Generation::Native]).report_problems(&report(lines))
    }

    fn spawned_problems(lines: &[String]) -> Vec<String> {
        job(&[Generation::Native]).report_problems(&report(lines))
    }

    #[test]
    fn a_good_run_has_no_problem() {
        assert_eq!(problems(&good(3)), Vec::<String>::new());
        assert_eq!(spawned_problems(&good_spawned()), Vec::<String>::new());
    }

    #[test]
    fn every_line_that_is_missing_is_a_problem() {
        for (index, line) in good(3).iter().enumerate().filter(|(_, line)| !line.contains("\"done\":1")) {
            let mut lines = good(3);
            lines.remove(index);
            assert_eq!(problems(&lines).len(), 1, "without {line}");
        }
        let matters = |line: &str| !line.contains("\"done\":1") && !line.contains("\"id\":3");
        for (index, line) in good_spawned().iter().enumerate().filter(|(_, line)| matters(line)) {
            let mut lines = good_spawned();
            lines.remove(index);
            assert_eq!(spawned_problems(&lines).len(), 1, "without {line}");
        }
    }

    #[test]
    fn each_life_of_the_spawned_linux_counts() {
        let mut fewer = good_spawned();
        fewer.pop();
        assert_eq!(spawned_problems(&fewer), ["xAPIC: the spawned Linux had 12 lives, not 13"]);
        let mut more = good_spawned();
        more.push(life_of_linux(14));
        assert_eq!(spawned_problems(&more).len(), 1);
        let none: Vec<String> =
            good_spawned().into_iter().filter(|line| !line.contains("\"id\":3")).collect();
        assert_eq!(spawned_problems(&none), ["kernel 3 did not report that it started"]);
    }

    #[test]
    fn a_step_that_failed_is_a_problem() {
        let failed = r#"@{"step":{"name":"offline","ok":false,"detail":"CPU 2 is still there"}}"#;
        let mut lines = good(3);
        lines.push(failed.into());
        assert_eq!(problems(&lines), ["xAPIC: step offline: FAILED: CPU 2 is still there"]);
        let trace = Job { scenario: Scenario::Trace, ..job(BOTH) };
        let done = r#"@{"done":{"ok":true}}"#;
        let found = |lines: &[&str]| {
            trace.report_problems(&report(&lines.iter().map(|l| (*l).into()).collect::<Vec<_>>()))
        };
        assert_eq!(found(&[failed, done]).len(), 1);
        assert_eq!(found(&[done]).len(), 1, "no step");
        assert_eq!(found(&[&good(3)[15], done]), Vec::<String>::new());
    }

    #[test]
    fn kernels_may_begin_anew() {
        let mut lines = good(3);
        lines.push(good(3)[1].clone());
        assert_eq!(problems(&lines), Vec::<String>::new());
        lines.push(good(3)[1].replace("\"life\":1", "\"life\":3"));
        assert_eq!(problems(&lines).len(), 1);
    }
}
