// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which kernel has which CPU of the machine, in the host's view.

use crate::cpus::Cpus;
use crate::layout::MAX_KERNELS;
use mk_ipi_abi::PhysCpuId;

/// Each kernel's CPUs.
pub struct Shares {
    /// The host's CPUs: the one that it runs on, and all that no kernel was given. It has started none of the latter.
    own: Cpus,
    /// For each other kernel the CPU that it begins on, followed by the spare one, which is never the first.
    others: [[PhysCpuId; 2]; MAX_KERNELS],
    /// The kernel that has the spare CPU.
    pub holder: Option<usize>,
}

impl Shares {
    /// Gives each of `kernels` kernels a CPU. The host gets `me`, which this runs on. The others get the last ones, so
    /// that CPU ids differ from the kernels' numbers. If `spare`, one more is kept to be moved. The host has all the
    /// rest. `None` if there are too few.
    pub fn new(found: &Cpus, me: PhysCpuId, kernels: usize, spare: bool) -> Option<Self> {
        let (mut own, mut others) = (Cpus::none(), [[me; 2]; MAX_KERNELS]);
        own.add(me);
        let mut free = found.ids().iter().rev().copied().filter(|&cpu| cpu != me);
        for [first, _] in &mut others[1..kernels] {
            *first = free.next()?;
        }
        if spare {
            let cpu = free.next()?;
            others.iter_mut().for_each(|[_, second]| *second = cpu);
        }
        free.for_each(|cpu| own.add(cpu));
        Some(Self { own, others, holder: None })
    }

    /// The CPUs of kernel `k`. The one that it began on comes first.
    pub fn of(&self, k: usize) -> &[PhysCpuId] {
        match k {
            0 => self.own.ids(),
            k => &self.others[k][..1 + usize::from(self.holder == Some(k))],
        }
    }

    /// The CPU that kernel `k` began on.
    pub fn first(&self, k: usize) -> PhysCpuId {
        self.of(k)[0]
    }

    /// The CPU that is moved, if there is one.
    pub fn spare(&self) -> PhysCpuId {
        let [_, spare] = self.others[0];
        spare
    }
}
