// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine: which CPUs there are, what they share, and how a thread gets one for itself.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{ensure, Context, Result};
use core_affinity::CoreId;
use serde::Serialize;

use crate::message::Broken;

/// The CPUs of the two threads.
#[derive(Clone, Copy, Debug)]
pub struct Cpus(pub [CoreId; 2]);

impl Cpus {
    /// The first two that are allowed; one alone, twice, only if that will do.
    pub fn allowed(one_will_do: bool) -> Result<Self> {
        let allowed = core_affinity::get_core_ids().context("nobody says which CPUs are allowed")?;
        let first = *allowed.first().context("no CPU is allowed")?;
        let second = allowed.get(1).copied().or(one_will_do.then_some(first));
        let second =
            second.with_context(|| format!("two CPUs are needed, and only {} is allowed", first.id))?;
        Ok(Self([first, second]))
    }

    /// Two different numbers, such as `0,1`.
    pub fn parse(text: &str) -> Result<Self> {
        let (a, b) = text.split_once(',').context("two numbers, such as 0,1")?;
        let (a, b) = (a.parse()?, b.parse()?);
        ensure!(a != b, "two different CPUs");
        Ok(Self([CoreId { id: a }, CoreId { id: b }]))
    }

    /// Whether each thread has a CPU of its own.
    pub fn differ(self) -> bool {
        self.0[0].id != self.0[1].id
    }
}

/// Keeps this thread on one CPU.
pub fn pin(cpu: CoreId) -> Result<(), Broken> {
    core_affinity::set_for_current(cpu).then_some(()).ok_or(Broken::NotPinned(cpu.id))
}

/// Has this thread, and those that it starts, run before all ordinary ones; whether that was allowed.
#[cfg(target_os = "linux")]
pub fn run_first() -> bool {
    /// In the middle: below what the kernel itself cannot wait with.
    const PRIORITY: i32 = 50;
    let param = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: `param` is whole, and read only while the call lasts; 0 is this thread.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &param) == 0 }
}

/// Not known how to here.
#[cfg(not(target_os = "linux"))]
pub fn run_first() -> bool {
    false
}

/// What the two CPUs are to each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Topology {
    /// The CPU's own name.
    pub model: String,
    /// The two CPUs.
    pub cpus: [usize; 2],
    /// Whether they are two threads of one core; `None` if nobody says.
    pub one_core: Option<bool>,
    /// Whether they are in one package.
    pub one_package: Option<bool>,
    /// The caches of the first, each with whether the second shares it.
    pub caches: Vec<Cache>,
}

/// A cache of the first CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cache {
    /// Such as `L3 Unified`.
    pub name: String,
    /// Such as `32768K`.
    pub size: String,
    /// Whether it is the second CPU's too.
    pub shared: bool,
}

impl Topology {
    /// As `/proc` and `/sys` say; what they do not say is left out.
    pub fn of(cpus: Cpus) -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let model = model.map_or("unknown CPU", |(_, name)| name.trim()).to_owned();
        Self::read(Path::new("/sys/devices/system/cpu"), model, cpus.0.map(|cpu| cpu.id))
    }

    fn read(root: &Path, model: String, cpus: [usize; 2]) -> Self {
        let [a, b] = cpus;
        let folder = root.join(format!("cpu{a}"));
        let text = |path: &str| fs::read_to_string(folder.join(path)).map(|text| text.trim().to_owned()).ok();
        let shared = |path: &str| text(path).map(|list| parse_list(&list).contains(&b));
        let mut caches = Vec::new();
        for index in 0.. {
            let part = |name: &str| text(&format!("cache/index{index}/{name}"));
            let (Some(level), Some(kind)) = (part("level"), part("type")) else { break };
            caches.push(Cache {
                name: format!("L{level} {kind}"),
                size: part("size").unwrap_or_default(),
                shared: shared(&format!("cache/index{index}/shared_cpu_list")).unwrap_or(false),
            });
        }
        Self {
            model,
            cpus,
            one_core: shared("topology/thread_siblings_list"),
            one_package: shared("topology/package_cpus_list"),
            caches,
        }
    }
}

/// The kernel's lists of CPUs, such as `0-3,8`.
fn parse_list(text: &str) -> BTreeSet<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, cpus: [a, b], .. } = self;
        let place = match (self.one_core, self.one_package) {
            (Some(true), _) => "two threads of one core",
            (_, Some(true)) => "two cores of one package",
            (_, Some(false)) => "in two packages",
            _ => "nobody says how they lie",
        };
        if a == b {
            return write!(f, "{model}, CPU {a} alone: the times say nothing");
        }
        let list = |shared: bool| {
            let of_these = self.caches.iter().filter(|cache| cache.shared == shared);
            let names: Vec<_> = of_these.map(|cache| format!("{} {}", cache.name, cache.size)).collect();
            if names.is_empty() {
                "none".into()
            } else {
                names.join(", ")
            }
        };
        write!(f, "{model}, CPUs {a} and {b}: {place}; shared caches: {}; own: {}", list(true), list(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus() {
        assert_eq!(parse_list("0-2,8"), BTreeSet::from([0, 1, 2, 8]));
        assert_eq!(parse_list("5\n"), BTreeSet::from([5]));
        assert_eq!(parse_list(""), BTreeSet::new());
    }

    #[test]
    fn two_cpus() {
        assert!(Cpus::parse("0,1").is_ok_and(|cpus| cpus.differ()));
        for bad in ["0", "0,0", "a,b", ""] {
            assert!(Cpus::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_machine_that_says_nothing_is_told_of() {
        let topology = Topology::read(Path::new("/nowhere"), "some CPU".into(), [0, 1]);
        assert_eq!(topology.one_core, None);
        assert!(topology.to_string().contains("nobody says"));
    }
}
