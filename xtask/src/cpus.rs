// SPDX-License-Identifier: MIT OR Apache-2.0
//! Records of the demo about CPUs: how many CPUs the directory lists, and how a CPU was moved between kernels. Checks these
//! records.

use serde::{Deserialize, Serialize};

use crate::record::{Order, Report};

/// The record of a spawned kernel about the CPUs in the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The kernel that read the directory.
    pub kernel: u32,
    /// How many CPUs the directory lists for the host.
    pub host_cpus: u32,
    /// The largest number of CPUs that this kernel itself can have.
    pub room: u32,
}

/// The record of the host about the CPU that it moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// The physical id of the CPU.
    pub cpu: u64,
    /// How often the CPU was moved from one kernel to another.
    pub times: u32,
    /// How many of these moves were made while the streams ran.
    pub in_stream: u32,
}

/// The record of a kernel about the CPU that was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spare {
    /// The kernel that reports.
    pub kernel: u32,
    /// How often this kernel was given the CPU.
    pub had: u32,
    /// Number of doorbells for this kernel that interrupted the CPU while this kernel had it.
    pub arrived: u64,
    /// Number of doorbells for other kernels that interrupted a CPU of this kernel.
    pub stray: u64,
}

impl Report {
    /// Returns the problems with the moves of a CPU.
    fn move_problems(&self, order: &Order) -> Vec<String> {
        let mut problems = Vec::new();
        match self.moved {
            Some(m) if m.times == order.moves && m.in_stream == m.times => {}
            Some(m) => problems.push(format!(
                "CPU {} was moved {} times, {} times in mid-stream, but {} moves in mid-stream were ordered",
                m.cpu, m.times, m.in_stream, order.moves
            )),
            None => problems.push("the host did not report how often it moved a CPU".into()),
        }
        // The sum must be one more than the number of moves, because a kernel was given the CPU before the first move.
        let had: u32 = self.spare.values().map(|s| s.had).sum();
        if had != order.moves.saturating_add(1) {
            let times = order.moves;
            problems
                .push(format!("a CPU was to be moved {times} times, but kernels were given it {had} times"));
        }
        for id in 0..order.kernels {
            let Some(s) = self.spare.get(&id) else {
                problems.push(format!("kernel {id} did not report about the CPU that was moved"));
                continue;
            };
            if s.stray != 0 {
                problems.push(format!("kernel {id}: {} stray doorbells", s.stray));
            }
            if s.arrived < s.had.into() {
                let Spare { had, arrived, .. } = s;
                problems.push(format!(
                    "kernel {id} was given the CPU {had} times, but only {arrived} doorbells interrupted it there"
                ));
            }
        }
        problems
    }

    /// Returns the problems with the CPUs that the directory lists, and with the moves of a CPU.
    pub fn cpu_problems(&self, order: &Order) -> Vec<String> {
        let mut problems = if order.moves == 0 { Vec::new() } else { self.move_problems(order) };
        // The host and the kernel in C do not report which CPUs the directory lists.
        let asked = |id: u32| (1..order.kernels).contains(&id);
        for k in self.kernels.values().filter(|k| asked(k.id) && k.lang == "rust") {
            let expected = order.host_cpus;
            match self.listed.get(&k.id) {
                None => {
                    problems.push(format!("kernel {} did not report which CPUs the directory lists", k.id))
                }
                Some(l) if l.host_cpus != expected => problems.push(format!(
                    "kernel {} found {} CPUs of the host in the directory, not {expected}",
                    k.id, l.host_cpus
                )),
                Some(_) => {}
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Generation, Mode};

    const ORDER: Order = Order {
        kernels: 3,
        messages: 10,
        mode: Mode::X2apic,
        generation: Generation::Native,
        kills: 0,
        host_cpus: 1,
        moves: 4,
    };

    const GOOD: [&str; 4] = [
        r#"@{"moved":{"cpu":3,"times":4,"in_stream":4}}"#,
        r#"@{"spare":{"kernel":0,"had":0,"arrived":0,"stray":0}}"#,
        r#"@{"spare":{"kernel":1,"had":3,"arrived":7,"stray":0}}"#,
        r#"@{"spare":{"kernel":2,"had":2,"arrived":8,"stray":0}}"#,
    ];

    fn problems(lines: &[String]) -> Vec<String> {
        let mut report = Report::default();
        for line in lines {
            report.take(line);
        }
        report.move_problems(&ORDER)
    }

    #[test]
    fn each_flaw_of_a_move_is_a_problem() {
        let lines = GOOD.map(str::to_owned);
        assert_eq!(problems(&lines), Vec::<String>::new());
        for (from, to) in [
            ("\"times\":4", "\"times\":3"),
            ("\"in_stream\":4", "\"in_stream\":3"),
            ("@{\"moved\"", "{\"moved\""),
            ("@{\"spare\":{\"kernel\":0", "{\"spare\":{\"kernel\":0"),
            ("\"had\":3", "\"had\":2"),
            ("\"arrived\":7", "\"arrived\":2"),
            ("\"arrived\":8,\"stray\":0", "\"arrived\":8,\"stray\":1"),
            ("\"arrived\":0,\"stray\":0", "\"arrived\":0,\"stray\":1"),
        ] {
            let lines = lines.clone().map(|line| line.replace(from, to));
            assert_eq!(problems(&lines).len(), 1, "{from} -> {to}");
        }
    }
}
