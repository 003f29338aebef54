// SPDX-License-Identifier: MIT OR Apache-2.0
//! Searches the logs of the kernels for problems. A log can show a problem although all steps passed.

use crate::record::Mode;

/// If a line of Linux's log contains one of these texts, it shows a problem.
const TROUBLE: [&str; 14] = [
    "WARNING:",
    "BUG:",
    "Oops",
    "KASAN",
    "UBSAN",
    "possible recursive locking",
    "inconsistent lock state",
    "Call Trace",
    "refcount_t",
    "unreferenced object",
    "general protection",
    "Kernel panic",
    "No irq handler",
    "scheduling while atomic",
];
/// If a line contains the first text, and after it one of the other texts, it shows a problem.
const TOGETHER: [(&str, &[&str]); 5] = [
    ("possible ", &[" detected"]),
    ("INFO: ", &["blocked", "stall", "trying to register"]),
    ("sleeping function called", &[""]),
    ("kmemleak: ", &["suspected memory leak"]),
    ("Unloaded ", &["with live"]),
];
/// If a line contains one of these texts, it never shows a problem: Linux prints its command line, which can have any text.
const HARMLESS: [&str; 1] = ["Kernel command line:"];

/// Returns a problem if QEMU's log shows a triple fault. It resets the machine, so QEMU ends with status 0, and no kernel can
/// report it.
pub fn reset_problem(mode: Mode, resets: &str) -> Option<String> {
    let found = resets.lines().any(|line| line.starts_with("Triple fault"));
    found.then(|| format!("{mode}: a triple fault of a CPU has reset the machine"))
}

/// Returns a problem for each line of the host's console that shows one.
pub fn problems(mode: Mode, console: &str) -> Vec<String> {
    let bad = console.lines().filter(|line| is_trouble(line));
    bad.map(|line| format!("{mode}: the host's log shows a problem: {}", line.trim())).collect()
}

fn is_trouble(line: &str) -> bool {
    let together = |(head, tails): &(&str, &[&str])| {
        let rest = line.find(head).map(|at| &line[at + head.len()..]);
        rest.is_some_and(|rest| tails.iter().any(|tail| rest.contains(tail)))
    };
    let found = TROUBLE.iter().any(|words| line.contains(words)) || TOGETHER.iter().any(together);
    found && !HARMLESS.iter().any(|words| line.contains(words))
}

/// The first line of Linux in each life contains this text.
const BEGINS: &str = "Linux version ";
/// The first program of a spawned Linux prints this text before it causes a panic on purpose.
const WILL_PANIC: &str = "mk-ipi guest: ends by a panic";
/// The first program of a spawned Linux prints this text, and then the online CPUs, whenever the online CPUs change.
const ONLINE: &str = "mk-ipi guest: CPUs online: ";

/// Returns a problem for each line of the spawned Linux's console that shows one. The console can have the output of several
/// lives. Lines between [`WILL_PANIC`] and the next life do not count.
pub fn spawned_problems(mode: Mode, console: &str) -> Vec<String> {
    let mut counts = true;
    let mut problems = Vec::new();
    for line in console.lines() {
        counts = line.contains(BEGINS) || (counts && !line.contains(WILL_PANIC));
        if counts && is_trouble(line) {
            problems.push(format!("{mode}: the spawned Linux's log shows a problem: {}", line.trim()));
        }
    }
    problems
}

/// Returns a problem if the spawned Linux did not give up CPU 1 and get it back. The console shows this: CPUs 0 and 1 were
/// online, then only CPU 0, then both.
pub fn move_problem(mode: Mode, console: &str) -> Option<String> {
    let said: Vec<&str> =
        console.lines().filter_map(|line| Some(line.split_once(ONLINE)?.1.trim())).collect();
    (!said.windows(3).any(|w| w == ["0-1", "0", "0-1"])).then(|| {
        format!("{mode}: CPU 1 of the spawned Linux was not taken and given back; the lists of its online CPUs were: {said:?}")
    })
}

/// Returns a problem for each error record that a bare-metal kernel wrote to its own serial line.
pub fn failures(mode: Mode, serial: &str) -> Vec<String> {
    let bad = serial.lines().filter(|line| line.starts_with("@{\"error\""));
    bad.map(|line| format!("{mode}: a bare-metal kernel reported an error: {}", line.trim())).collect()
}

/// Returns a problem if Linux's log does not show that Linux uses the wanted mode of the local APIC.
pub fn mode_problem(mode: Mode, console: &str) -> Option<String> {
    let x2apic = console.contains("x2apic enabled") || console.contains("x2apic: enabled");
    match mode {
        Mode::Xapic if x2apic => Some(format!("{mode}: Linux uses x2APIC mode")),
        Mode::X2apic if !x2apic => {
            Some(format!("{mode}: Linux's log does not say that Linux uses x2APIC mode"))
        }
        _ => None,
    }
}

/// Returns the last `count` lines of a text.
pub fn tail(text: &str, count: usize) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_beside_linux_is_seen() {
        let log =
            "[k1] run 1\r\n@{\"kernel\":{\"id\":1}}\r\n@{\"error\":{\"kernel\":1,\"text\":\"panic\"}}\r\n";
        assert_eq!(failures(Mode::Xapic, log).len(), 1);
        assert!(failures(Mode::Xapic, "[k1] an error").is_empty());
    }

    #[test]
    fn a_triple_fault_is_seen() {
        let resets = "CPU Reset (CPU 4)\nEAX=00000000\n";
        assert_eq!(reset_problem(Mode::Xapic, resets), None);
        assert!(reset_problem(Mode::Xapic, &format!("{resets}Triple fault\n")).is_some());
    }

    #[test]
    fn trouble_is_seen() {
        for line in [
            "[    1.0] WARNING: CPU: 0 PID: 1 at kernel/x.c:1 f+0x1/0x2",
            "[    1.0] WARNING: kernel/x.c:1 at f+0x1/0x2, CPU#0: insmod/30",
            "[    1.0] BUG: kernel NULL pointer dereference, address: 0",
            "[    1.0] BUG: KASAN: slab-use-after-free in f",
            "[    1.0] watchdog: BUG: soft lockup - CPU#0 stuck for 22s!",
            "[    1.0] Oops: 0000 [#1] SMP",
            "[    1.0] WARNING: possible circular locking dependency detected",
            "[    1.0] possible deadlock detected",
            "[    1.0] WARNING: possible recursive locking detected",
            "[    1.0] WARNING: inconsistent lock state",
            "[    1.0] INFO: task insmod:30 blocked for more than 120 seconds.",
            "[    1.0] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
            "[    1.0] INFO: trying to register non-static key.",
            "[    1.0] Call Trace:",
            "[    1.0] refcount_t: underflow; use-after-free.",
            "[    1.0] kmemleak: 1 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
            "unreferenced object 0xffff888003d6b000 (size 64):",
            "[    1.0] general protection fault, probably for non-canonical address",
            "[    1.0] Kernel panic - not syncing: Attempted to kill init!",
            "[    1.0] __common_interrupt: 1.35 No irq handler for vector",
            "[    1.0] common_interrupt: No irq handler for 0.234",
            "[    1.0] BUG: scheduling while atomic: insmod/30/0x2",
            "[    1.0] BUG: sleeping function called from invalid context at mm/x.c:1",
            "[    1.0] UBSAN: array-index-out-of-bounds in x.c:1",
            "[    1.0] Unloaded mk_ipi with live instances",
        ] {
            assert!(is_trouble(line), "{line}");
        }
    }

    #[test]
    fn a_good_boot_is_no_trouble() {
        for line in [
            "[    0.0] Kernel command line: console=ttyS0 panic=-1 oops=panic",
            "[    0.0] Lock dependency validator: Copyright (c) 2006 Red Hat, Inc., Ingo Molnar",
            "[    0.0] kasan: KernelAddressSanitizer initialized (generic)",
            "[    1.0] kmemleak: Kernel memory leak detector initialized (mem pool available: 15)",
            "[    1.0] kmemleak: Automatic memory scanning thread started",
            "[    1.2] clocksource: Watchdog remote CPU 1 read timed out",
            "[    1.2] x86/fpu: INFO: nothing",
            "[    3.0] mk_ipi: Unloaded",
        ] {
            assert!(!is_trouble(line), "{line}");
        }
        let problem = "xAPIC: the host's log shows a problem: Oops: 1";
        assert_eq!(problems(Mode::Xapic, "fine\n Oops: 1 \nfine"), [problem]);
    }

    #[test]
    fn a_spawned_linux_may_end_as_it_said() {
        let begins = "[    0.0] Linux version 7.3.4 (gcc)";
        let stray = "[    1.0] common_interrupt: No irq handler for 0.234";
        let announced = "[    2.0] [U] mk-ipi guest: ends by a panic";
        let panic = "[    2.0] Kernel panic - not syncing: sysrq triggered crash";
        let count = |lines: &[&str]| spawned_problems(Mode::Xapic, &lines.join("\n")).len();
        assert_eq!(count(&[begins, announced, panic, begins, "fine"]), 0);
        assert_eq!(count(&[begins, stray, announced, panic]), 1);
        assert_eq!(count(&[begins, panic]), 1);
        assert_eq!(count(&[begins, announced, panic, begins, stray]), 1, "of its next life");
        let problems = spawned_problems(Mode::Xapic, stray);
        assert_eq!(problems, [format!("xAPIC: the spawned Linux's log shows a problem: {stray}")]);
    }

    #[test]
    fn a_cpu_that_went_and_came_back() {
        let found = |said: &[&str]| {
            let lines = said.iter().map(|cpus| format!("[    1.0] [U] {ONLINE}{cpus}\r"));
            move_problem(Mode::Xapic, &lines.collect::<Vec<_>>().join("\n"))
        };
        assert_eq!(found(&["0-1", "0", "0-1"]), None);
        assert_eq!(found(&["0-1", "0-1", "0", "0-1", "0-1"]), None);
        for bad in [&[][..], &["0-1"], &["0-1", "0"], &["0", "0-1"], &["0-1", "0", "0", "0-1"]] {
            assert!(found(bad).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn the_mode_is_linuxs_word() {
        let x2apic = "[    0.1] x2apic enabled\n";
        assert_eq!(mode_problem(Mode::X2apic, x2apic), None);
        assert_eq!(mode_problem(Mode::Xapic, "[    0.1] APIC: Switch to symmetric I/O mode setup"), None);
        assert!(mode_problem(Mode::Xapic, x2apic).is_some());
        assert!(mode_problem(Mode::X2apic, "x2apic: IRQ remapping doesn't support X2APIC mode").is_some());
    }

    #[test]
    fn tails() {
        assert_eq!(tail("a\nb\nc\n", 2), ["b", "c"]);
        assert_eq!(tail("a", 2), ["a"]);
    }
}
