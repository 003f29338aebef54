// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host's record of which CPU belongs to which kernel.

use crate::cpus::Cpus;
use crate::layout::MAX_KERNELS;
use mk_ipi_abi::PhysCpuId;

/// The CPUs of each kernel.
pub struct Shares {
    /// The host's CPUs: first the one on which it runs, and then all CPUs that no other kernel has. The host has not started
    /// those.
    own: Cpus,
    /// For each other kernel: the CPU on which it begins, and the spare CPU. If there is no spare CPU, the second one is
    /// meaningless.
    others: [[PhysCpuId; 2]; MAX_KERNELS],
    /// The kernel that has the spare CPU now, if any.
    pub holder: Option<usize>,
}

impl Shares {
    /// Gives each of `kernels` kernels a CPU. The host gets `me`, the CPU that makes this call. The others get the last CPUs
    /// in `found`, so that CPU ids differ from the kernels' numbers. If `spare` is true, one more CPU becomes the spare CPU,
    /// which is moved between kernels. The host gets all remaining CPUs. `None` if there are too few CPUs.
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

    /// The CPUs of kernel `k`. The first one is the CPU on which the kernel began.
    pub fn of(&self, k: usize) -> &[PhysCpuId] {
        match k {
            0 => self.own.ids(),
            k => &self.others[k][..1 + usize::from(self.holder == Some(k))],
        }
    }

    /// The CPU on which kernel `k` began.
    pub fn first(&self, k: usize) -> PhysCpuId {
        self.of(k)[0]
    }

    /// The spare CPU, which is moved between kernels. Meaningless if no CPU is moved in this run.
    pub fn spare(&self) -> PhysCpuId {
        let [_, spare] = self.others[0];
        spare
    }
}
