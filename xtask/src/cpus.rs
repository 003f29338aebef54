// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernels report of the machine's CPUs, and the verdict on it.

use serde::{Deserialize, Serialize};

use crate::record::{Order, Report};

/// What a spawned kernel found in the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The kernel that read it.
    pub kernel: u32,
    /// How many of the machine's CPUs are the host's.
    pub host_cpus: u32,
    /// How many CPUs this kernel is built for.
    pub room: u32,
}

/// What the host reports about the CPU that it moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Its physical id.
    pub cpu: u64,
    /// How often it was moved from one kernel to another.
    pub times: u32,
    /// How often it was moved while the streams ran.
    pub in_stream: u32,
}

/// What a kernel reports about the CPU that was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spare {
    /// The kernel.
    pub kernel: u32,
    /// How often it had the CPU.
    pub had: u32,
    /// Doorbells that arrived there while it had the CPU.
    pub arrived: u64,
    /// Doorbells for other kernels that arrived at any of its CPUs.
    pub stray: u64,
}

impl Report {
    /// What is wrong with the moves of a CPU.
    fn move_problems(&self, order: &Order) -> Vec<String> {
        let mut problems = Vec::new();
        match self.moved {
            Some(m) if m.times == order.moves && m.in_stream == m.times => {}
            Some(m) => problems.push(format!("{} moves were ordered: {m:?}", order.moves)),
            None => problems.push("the host never said how often it moved a CPU".into()),
        }
        // Plus one, because one kernel had the CPU before the first move.
        let had: u32 = self.spare.values().map(|s| s.had).sum();
        if had != order.moves.saturating_add(1) {
            problems.push(format!("{had} times somebody had the CPU that was moved {} times", order.moves));
        }
        for id in 0..order.kernels {
            let Some(s) = self.spare.get(&id) else {
                problems.push(format!("kernel {id} never said what it saw of the CPU that was moved"));
                continue;
            };
            if s.stray != 0 {
                problems.push(format!("kernel {id}: {} stray doorbells", s.stray));
            }
            if s.arrived < s.had.into() {
                let Spare { had, arrived, .. } = s;
                problems
                    .push(format!("kernel {id} had the CPU {had} times, and {arrived} doorbells arrived"));
            }
        }
        problems
    }

    /// Problems with the lists of CPUs in the directory.
    pub fn cpu_problems(&self, order: &Order) -> Vec<String> {
        let mut problems = if order.moves == 0 { Vec::new() } else { self.move_problems(order) };
        // A kernel in C does not report this.
        let asked = |id: u32| (1..order.kernels).contains(&id);
        for k in self.kernels.values().filter(|k| asked(k.id) && k.lang == "rust") {
            let expected = order.host_cpus;
            match self.listed.get(&k.id) {
                None => problems.push(format!("kernel {} never said what the directory lists", k.id)),
                Some(l) if l.host_cpus != expected => problems
                    .push(format!("kernel {} finds {} CPUs of the host, not {expected}", k.id, l.host_cpus)),
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
