// SPDX-License-Identifier: MIT OR Apache-2.0
//! Gives CPUs of Linux away, and takes them back. A CPU can also move to or from a kernel that runs (SPEC D-10, chapter M).
//!
//! Every kernel on this host gets its doorbells at its first CPU, which does not move while it runs. So no kernel rings a
//! CPU that moves, and a CPU can move before all kernels have read the new directory. Only the kernel that gets the CPU
//! must find it in the directory. The host's lock is not held while the host waits for a kernel's answer.

use super::{with, Generation, Host, Instance, Phase};
use crate::failure::{refuse, Result};
use crate::moves::{self, NotDone};
use crate::{cpus, peers};
use kernel::prelude::*;
use mk_ipi_core::abi::cpu_move::CpuMoveKind;
use mk_ipi_core::abi::directory::State;
use mk_ipi_core::abi::{Incarnation, InstanceId, PhysCpuId};

/// A move of a CPU that has begun, and waits for a kernel's answer.
struct Move {
    /// The incarnation of the kernel that gets the CPU or gives it up.
    life: Incarnation,
    /// The physical id of the CPU.
    at: PhysCpuId,
    /// True if Linux had the CPU before.
    was_ours: bool,
}

/// Takes `cpu` from Linux.
pub fn give(cpu: u32) -> Result {
    with(|host| host.give(cpu))
}

/// Gives `cpu` back to Linux.
pub fn take(cpu: u32) -> Result {
    with(|host| host.take(cpu))
}

/// Gives `cpu` to the kernel of `id`, which runs. Takes it from Linux first, if Linux still has it.
pub fn give_to(id: InstanceId, cpu: u32) -> Result {
    let begun = with(|host| host.begin_give(id, cpu))?;
    let done = moves::ask(id, begun.life, CpuMoveKind::Use, begun.at, || lives(id, begun.life));
    if let Err(NotDone::Refused(_)) = done {
        with(|host| host.undo_give(id, cpu, &begun));
    }
    // If the kernel does not answer, the directory still lists the CPU as its own, because the kernel could begin to use
    // the CPU at any moment.
    done.map_err(NotDone::into_failure)
}

/// Asks the kernel of `id`, which runs, to give up `cpu`, and then gives the CPU back to Linux.
pub fn take_from(id: InstanceId, cpu: u32) -> Result {
    let begun = with(|host| host.begin_take(id, cpu))?;
    moves::ask(id, begun.life, CpuMoveKind::GiveUp, begun.at, || lives(id, begun.life))
        .map_err(NotDone::into_failure)?;
    with(|host| host.finish_take(id, cpu, &begun))
}

/// Returns whether the kernel of `id` still runs in the incarnation `life`, and has not said goodbye.
fn lives(id: InstanceId, life: Incarnation) -> bool {
    with(|host| host.find(id).and_then(|i| i.life())) == Some(life) && !peers::is_gone(id, life)
}

impl Host {
    fn give(&mut self, cpu: u32) -> Result {
        cpus::give(cpu)?;
        self.list_own()
    }

    fn take(&mut self, cpu: u32) -> Result {
        if let Some((id, _)) = self.instances().find(|(_, i)| i.cpus.has(cpu)) {
            return refuse!(EBUSY, "CPU {cpu} belongs to instance {}", id.get());
        }
        cpus::take(cpu)?;
        self.list_own()
    }

    /// Takes `cpu` from Linux, if Linux has it, and lists it in the directory as a CPU of `id`.
    fn begin_give(&mut self, id: InstanceId, cpu: u32) -> Result<Move> {
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
        let Some(at) = cpus::apic_id(cpu) else { return refuse!(ENXIO, "there is no CPU {cpu}") };
        let begun = Move { life: instance.incarnation, at, was_ours: !cpus::is_given(cpu) };
        if !instance.cpus.add(cpu) {
            return refuse!(ENOSPC, "instance {} has the largest possible number of CPUs", id.get());
        }
        if begun.was_ours {
            self.give(cpu)?;
        }
        let kept = self.keep(id, &instance);
        if kept.is_err() {
            self.undo_give(id, cpu, &begun);
        }
        kept.map(|()| begun)
    }

    /// Undoes `begin_give`. The kernel must not use the CPU, and must not begin to use it later. If a step fails, the log
    /// says so.
    fn undo_give(&mut self, id: InstanceId, cpu: u32, begun: &Move) {
        self.unlist(id, cpu, begun.life);
        let _ = if begun.was_ours { self.take(cpu) } else { Ok(()) };
    }

    fn begin_take(&mut self, id: InstanceId, cpu: u32) -> Result<Move> {
        let instance = self.running(id)?;
        let (Some(at), true) = (cpus::apic_id(cpu), instance.cpus.has(cpu)) else {
            return refuse!(EINVAL, "CPU {cpu} does not belong to instance {}", id.get());
        };
        if instance.cpus.get().first() == Some(&cpu) {
            return refuse!(EBUSY, "CPU {cpu} receives the doorbell of instance {}", id.get());
        }
        Ok(Move { life: instance.incarnation, at, was_ours: false })
    }

    /// Ends a move after the kernel has given the CPU up: removes the CPU from the directory entry, and gives it to Linux.
    fn finish_take(&mut self, id: InstanceId, cpu: u32, begun: &Move) -> Result {
        self.unlist(id, cpu, begun.life);
        self.take(cpu)
    }

    /// Removes `cpu` from the CPUs of `id`, if this life still runs. Adds it to the CPUs that the instance can get.
    fn unlist(&mut self, id: InstanceId, cpu: u32, life: Incarnation) {
        let Some(mut instance) = self.find(id).filter(|i| i.life() == Some(life)) else { return };
        instance.cpus.remove(cpu);
        if !instance.may_get.has(cpu) && !instance.may_get.add(cpu) {
            pr_info!("CPU {cpu} cannot be given to instance {} again\n", id.get());
        }
        // If this fails, the log says so.
        let _ = self.keep(id, &instance);
    }

    fn running(&self, id: InstanceId) -> Result<Instance> {
        let instance = self.get(id)?;
        if instance.phase != Phase::Running {
            return refuse!(EINVAL, "instance {} does not run", id.get());
        }
        if self.generation != Generation::Native {
            return refuse!(EINVAL, "CPUs can move only to and from kernels on the native link");
        }
        Ok(instance)
    }

    /// Stores the new state of `id`, and writes its directory entry.
    fn keep(&mut self, id: InstanceId, instance: &Instance) -> Result {
        self.set(id, Some(*instance));
        self.list(id, instance, State::Running)
    }
}
