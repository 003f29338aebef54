// SPDX-License-Identifier: MIT OR Apache-2.0
//! CPUs that Linux gives away and takes back, also to and from a kernel that runs (SPEC D-10, chapter M).
//!
//! Every kernel here has one doorbell, which stays where it is. So nobody rings a CPU that moves, and none has to follow the directory
//! before it is another's; only the kernel that gets the CPU must find it there.

use super::{Host, Instance, Phase};
use crate::failure::{refuse, Result};
use crate::{cpus, moves};
use mk_ipi_core::abi::cpu_move::What;
use mk_ipi_core::abi::directory::State;
use mk_ipi_core::abi::{InstanceId, PhysCpuId};

impl Host {
    /// Takes `cpu` from Linux.
    pub fn give(&mut self, cpu: u32) -> Result {
        cpus::give(cpu)?;
        self.list_own()
    }

    /// Gives `cpu` back to Linux.
    pub fn take(&mut self, cpu: u32) -> Result {
        if let Some((id, _)) = self.instances().find(|(_, i)| i.cpus.has(cpu)) {
            return refuse!(EBUSY, "CPU {cpu} belongs to instance {}", id.get());
        }
        cpus::take(cpu)?;
        self.list_own()
    }

    /// Gives `cpu` to the kernel of `id`, which runs; takes it from Linux first, if Linux still has it.
    pub fn give_to(&mut self, id: InstanceId, cpu: u32) -> Result {
        let mut instance = self.running(id)?;
        if let Some((other, _)) = self.instances().find(|(_, i)| i.cpus.has(cpu)) {
            return refuse!(EBUSY, "CPU {cpu} belongs to instance {}", other.get());
        }
        if !instance.may_get.has(cpu) {
            return refuse!(
                ENXIO,
                "instance {} was not told of CPU {cpu}: create it with may={cpu}",
                id.get()
            );
        }
        let was_linuxs = !cpus::is_given(cpu);
        if was_linuxs {
            self.give(cpu)?;
        }
        let before = instance;
        let given = match cpus::apic_id(cpu) {
            Some(_) if !instance.cpus.add(cpu) => refuse!(ENOSPC, "instance {} has CPUs enough", id.get()),
            Some(at) => self.hand_over(id, &instance, at),
            None => refuse!(ENXIO, "there is no CPU {cpu}"),
        };
        if given.is_err() {
            // If any of this fails, the log says so.
            let _ = self.keep(id, &before);
            let _ = if was_linuxs { self.take(cpu) } else { Ok(()) };
        }
        given
    }

    /// Lists the CPU as one of `instance`, and has its kernel use it.
    fn hand_over(&mut self, id: InstanceId, instance: &Instance, cpu: PhysCpuId) -> Result {
        self.keep(id, instance)?;
        moves::ask(id, instance.incarnation, What::Use, cpu)
    }

    /// Has the kernel of `id`, which runs, give `cpu` up, and gives it back to Linux.
    pub fn take_from(&mut self, id: InstanceId, cpu: u32) -> Result {
        let mut instance = self.running(id)?;
        let (Some(at), true) = (cpus::apic_id(cpu), instance.cpus.has(cpu)) else {
            return refuse!(EINVAL, "CPU {cpu} is none of instance {}", id.get());
        };
        moves::ask(id, instance.incarnation, What::GiveUp, at)?;
        instance.cpus.remove(cpu);
        // It may come back.
        if !instance.may_get.has(cpu) && !instance.may_get.add(cpu) {
            kernel::prelude::pr_info!("CPU {cpu} cannot go back to instance {} in this life\n", id.get());
        }
        self.keep(id, &instance)?;
        self.take(cpu)
    }

    fn running(&self, id: InstanceId) -> Result<Instance> {
        let instance = self.get(id)?;
        if instance.phase != Phase::Running {
            return refuse!(EINVAL, "instance {} does not run", id.get());
        }
        Ok(instance)
    }

    /// Keeps what `id` has now, and lists it.
    fn keep(&mut self, id: InstanceId, instance: &Instance) -> Result {
        self.set(id, Some(*instance));
        self.list(id, instance, State::Running)
    }
}
