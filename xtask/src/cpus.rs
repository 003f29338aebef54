// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernels report of the machine's CPUs, and the verdict on it.

use serde::{Deserialize, Serialize};

use crate::record::{Order, Report};

/// What a spawned kernel found in the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Who looked.
    pub kernel: u32,
    /// How many of the machine's CPUs are the host's.
    pub host_cpus: u32,
    /// How many CPUs this kernel is built for.
    pub room: u32,
}

impl Report {
    /// What is wrong with whose the CPUs are.
    pub fn cpu_problems(&self, order: &Order) -> Vec<String> {
        let mut problems = Vec::new();
        // A kernel in C does not say.
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
