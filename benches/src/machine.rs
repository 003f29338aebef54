// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine: which CPUs this process may use, which caches they share, and how a thread is pinned to a CPU.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{ensure, Context, Result};
use core_affinity::CoreId;
use serde::Serialize;

use crate::message::Broken;

/// The CPUs of the two threads that exchange messages. Both can be the same CPU.
#[derive(Clone, Copy, Debug)]
pub struct Cpus(pub [CoreId; 2]);

impl Cpus {
    /// The first two CPUs that this process may use. If it may use only one, and `one_will_do` is true, both threads use this
    /// CPU.
    pub fn allowed(one_will_do: bool) -> Result<Self> {
        let allowed = core_affinity::get_core_ids()
            .context("the operating system does not say which CPUs this process may use")?;
        let first = *allowed.first().context("this process may use no CPU")?;
        let second = allowed.get(1).copied().or(one_will_do.then_some(first));
        let second = second.with_context(|| {
            format!("two CPUs are needed, but this process may use only CPU {}", first.id)
        })?;
        Ok(Self([first, second]))
    }

    /// Parses two different CPU numbers, such as `0,1`.
    pub fn parse(text: &str) -> Result<Self> {
        let (a, b) = text.split_once(',').context("expected two CPU numbers, such as 0,1")?;
        let (a, b) = (a.parse()?, b.parse()?);
        ensure!(a != b, "expected two different CPUs");
        Ok(Self([CoreId { id: a }, CoreId { id: b }]))
    }

    /// Whether each thread has a CPU of its own.
    pub fn differ(self) -> bool {
        self.0[0].id != self.0[1].id
    }
}

/// Pins this thread to one CPU.
pub fn pin(cpu: CoreId) -> Result<(), Broken> {
    core_affinity::set_for_current(cpu).then_some(()).ok_or(Broken::NotPinned(cpu.id))
}

/// Gives this thread, and the threads that it starts, priority over all ordinary threads. Returns false if the operating system
/// does not allow it.
#[cfg(target_os = "linux")]
pub fn run_first() -> bool {
    /// A priority in the middle of the range from 1 to 99. By default, Linux's interrupt threads have the same one.
    const PRIORITY: i32 = 50;
    let param = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: `param` is initialized, and is read only during the call. 0 means this thread.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &param) == 0 }
}

/// Always false: this is not implemented for other operating systems.
#[cfg(not(target_os = "linux"))]
pub fn run_first() -> bool {
    false
}

/// The two CPUs, and what they share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Topology {
    /// The name of the CPU model.
    pub model: String,
    /// The numbers of the two CPUs.
    pub cpus: [usize; 2],
    /// Whether the two CPUs are threads of one core; `None` if that is not known.
    pub one_core: Option<bool>,
    /// Whether the two CPUs are in one package; `None` if that is not known.
    pub one_package: Option<bool>,
    /// The caches of the first CPU.
    pub caches: Vec<Cache>,
}

/// A cache of the first CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cache {
    /// The name, such as `L3 Unified`.
    pub name: String,
    /// The size, such as `32768K`.
    pub size: String,
    /// Whether the second CPU shares this cache.
    pub shared: bool,
}

impl Topology {
    /// Reads the topology from `/proc` and `/sys`. If the operating system does not give a value, the model is `unknown CPU`, a
    /// size is empty, `one_core` and `one_package` are `None`, and a cache counts as not shared.
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

/// Parses a list of CPUs as Linux writes it, such as `0-3,8`.
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
            (Some(false), Some(true)) => "two cores of one package",
            (None, Some(true)) => "in one package, not known whether they share a core",
            (_, Some(false)) => "in two packages",
            (Some(false), None) => "two cores, not known whether they share a package",
            (None, None) => "not known whether they share a core or a package",
        };
        if a == b {
            return write!(f, "{model}, both threads on CPU {a}: these times do not show how fast messages are between two CPUs");
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
    fn a_topology_that_cannot_be_read_is_shown_as_not_known() {
        let topology = Topology::read(Path::new("/nowhere"), "some CPU".into(), [0, 1]);
        assert_eq!(topology.one_core, None);
        assert!(topology.to_string().contains("not known"));
    }
}
