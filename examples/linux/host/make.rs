// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes and removes instances.

use super::{destroy_region, CpuList, Generation, Host, Instance, Phase, MAX_INSTANCE_CPUS};
use crate::failure::{refuse, Result};
use crate::memory::{self, Owner};
use crate::peers::{self, MAX_INSTANCES};
use crate::{cpus, ffi, start};
use mk_ipi_core::abi::directory::State;
use mk_ipi_core::abi::{Incarnation, InstanceId, Vector, PAGE_SIZE};

impl Host {
    /// Makes instance `id` with the CPUs `wanted`, which must have been given away, and with a pool of `pool` bytes that
    /// contains its region. While its kernel runs, it can also get the CPUs in `may_get`.
    pub fn create(&mut self, id: InstanceId, wanted: &CpuList, may_get: &CpuList, pool: u64) -> Result {
        if id == InstanceId::HOST || id.index() >= MAX_INSTANCES {
            return refuse!(EINVAL, "instances are 1 to {}", MAX_INSTANCES - 1);
        }
        if self.find(id).is_some() {
            return refuse!(EEXIST, "instance {} exists already", id.get());
        }
        self.check_cpus(wanted.get())?;
        let boot = cpus::boot_cpu();
        if let Some(cpu) = may_get.get().iter().find(|c| cpus::apic_id(**c).is_none_or(|id| Some(id) == boot))
        {
            return refuse!(ENXIO, "there is no CPU {cpu}, or it is the machine's boot CPU");
        }
        let (cpus, may_get, incarnation) = (*wanted, *may_get, Incarnation::FIRST);
        let instance = Instance { phase: Phase::Created, cpus, may_get, incarnation };
        // SAFETY: `clear_out` drops this reference to the module, on an error or in `destroy`.
        if !unsafe { ffi::mk_ipi_glue_hold_module() } {
            return refuse!(ENODEV, "the module is being unloaded");
        }
        let made = self.furnish(id, &instance, pool);
        match made {
            Ok(()) => self.set(id, Some(instance)),
            Err(_) => Self::clear_out(id),
        }
        made
    }

    fn check_cpus(&self, wanted: &[u32]) -> Result {
        if wanted.is_empty() || wanted.len() > MAX_INSTANCE_CPUS {
            return refuse!(EINVAL, "an instance has 1 to {MAX_INSTANCE_CPUS} CPUs");
        }
        for (n, cpu) in wanted.iter().enumerate() {
            if !cpus::is_given(*cpu) {
                return refuse!(EBUSY, "CPU {cpu} belongs to Linux: give it away first");
            }
            if wanted.iter().take(n).any(|other| other == cpu) {
                return refuse!(EINVAL, "CPU {cpu} is named twice");
            }
            if let Some((other, _)) = self.instances().find(|(_, i)| i.cpus.has(*cpu)) {
                return refuse!(EBUSY, "CPU {cpu} belongs to instance {}", other.get());
            }
        }
        Ok(())
    }

    /// Makes the start pages, the pool, the region and the directory entry of `id`. After an error, the caller must call
    /// `clear_out`.
    fn furnish(&mut self, id: InstanceId, instance: &Instance, pool: u64) -> Result {
        let needed = self.generation.region_len();
        if pool < needed {
            return refuse!(EINVAL, "a pool of {pool} bytes has no room for a region of {needed}");
        }
        let len = start::pages_len(2 * MAX_INSTANCE_CPUS + 1);
        // At its start, Linux can read only the first GiB, because it has mapped no more. Another kernel can read all
        // addresses below 4 GiB.
        let pages = |limit| memory::take_aligned(Owner::StartPages(id), len, PAGE_SIZE, limit);
        pages(1 << 30).or_else(|_| pages(1 << 32))?;
        memory::take(Owner::Pool(id), pool)?;
        peers::forget_all_of(id);
        let (ids, count, _) = instance.ids();
        let ids = ids.get(..count).unwrap_or(&[]);
        let Some(bell) = ids.first() else { return refuse!(ENODEV, "no CPU") };
        let record = self.record(id, instance.incarnation, State::Starting, *bell, Vector::RFC_V2);
        self.make_region(&record, ids, |host| host.list(id, instance, State::Starting))
    }

    /// Frees the memory of an instance whose region does not exist (any more), and drops its reference to the module.
    fn clear_out(id: InstanceId) {
        for owner in [Owner::Pool(id), Owner::StartPages(id), Owner::Image(id), Owner::Low(id)] {
            memory::give_back(owner);
        }
        // SAFETY: `create` has taken the reference.
        unsafe { ffi::mk_ipi_glue_release_module() };
    }

    /// Removes instance `id`, whose kernel must not run. Waits until the other kernels have unmapped its region (SPEC
    /// D-10).
    pub fn destroy(&mut self, id: InstanceId) -> Result {
        let instance = self.get(id)?;
        if instance.phase == Phase::Running {
            return refuse!(EBUSY, "instance {} runs: stop it first", id.get());
        }
        // With slots (RFC v2) there is no way for a kernel to say that it has unmapped a region.
        if self.generation == Generation::RfcV2 && self.any_runs() {
            return refuse!(
                EBUSY,
                "another kernel runs, and can have the region of instance {} mapped",
                id.get()
            );
        }
        if instance.phase == Phase::Created {
            self.list(id, &instance, State::Dead)?;
        }
        self.list(id, &instance, State::Ending)?;
        let lives = |id, incarnation| self.find(id).and_then(|i| i.life()) == Some(incarnation);
        if let Err(by) = destroy_region(id, |id, incarnation| !lives(id, incarnation)) {
            return refuse!(
                EBUSY,
                "instance {} has the region of instance {} mapped, and does not unmap it",
                by.get(),
                id.get()
            );
        }
        self.list(id, &instance, State::Absent)?;
        self.set(id, None);
        Self::clear_out(id);
        Ok(())
    }
}
