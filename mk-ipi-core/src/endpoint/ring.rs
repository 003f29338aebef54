// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ringing an instance: where, and whether it wants to be rung (SPEC S-5, N-10, N-12).

use super::base::{Endpoint, Instance};
use super::error::SendError;
use crate::native::Sender;
use crate::platform::{DoorbellError, Platform};
use crate::registry::Handler;
use crate::stats::Count;
use mk_ipi_abi::{InstanceId, PhysCpuId, Vector};

/// How the caller may ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Context {
    Normal,
    Nmi,
}

impl<P: Platform, H: Handler, const CPUS: usize, const HANDLERS: usize, const QUEUE: usize>
    Endpoint<P, H, CPUS, HANDLERS, QUEUE>
{
    /// Whether the directory gives `cpu` to that instance.
    pub(super) fn has_cpu(&self, instance: &Instance<P, CPUS>, cpu: PhysCpuId) -> bool {
        let listed = || instance.cpus().contains(&cpu);
        self.platform.peer_has_cpu(instance.id, cpu).unwrap_or_else(listed)
    }

    /// Where an instance is rung: where it wants, if that CPU is its own, else where the directory says.
    pub(super) fn doorbell(&self, to: &Instance<P, CPUS>, sender: &Sender<P::Word>) -> (PhysCpuId, Vector) {
        let bell = sender.bell(|bell| self.has_cpu(to, bell.cpu));
        bell.map_or((to.doorbell_cpu, to.vector), |bell| (bell.cpu, bell.vector))
    }

    #[cold]
    pub(super) fn ring_bell(
        &self,
        to: &Instance<P, CPUS>,
        sender: &Sender<P::Word>,
        context: Context,
    ) -> Result<(), DoorbellError> {
        let (cpu, vector) = self.doorbell(to, sender);
        sender.count_rung();
        self.count(Count::Rung);
        match context {
            Context::Normal => self.platform.ring(cpu, vector),
            Context::Nmi => self.platform.ring_from_nmi(cpu, vector),
        }
    }

    /// Rings an instance if it wants to be rung for what we have stored.
    pub(super) fn ring_if_wanted(&self, to: &Instance<P, CPUS>) -> Result<(), DoorbellError> {
        match to.sender().filter(|sender| sender.flush()) {
            Some(sender) => self.ring_undisturbed(to, sender),
            None => Ok(()),
        }
    }

    fn ring_undisturbed(
        &self,
        to: &Instance<P, CPUS>,
        sender: &Sender<P::Word>,
    ) -> Result<(), DoorbellError> {
        let interrupts = self.platform.disable();
        let rung = self.ring_bell(to, sender, Context::Normal);
        self.platform.restore(interrupts);
        rung
    }

    /// Rings `to` once more, without a message, wanted or not: after [`SendError::NotRung`].
    pub fn ring(&self, to: InstanceId) -> Result<(), SendError> {
        let instance = self.instances.get(to).map_err(SendError::Instance)?;
        match instance.sender() {
            Some(sender) => self.ring_undisturbed(&instance, sender),
            None => self.platform.ring(instance.doorbell_cpu, instance.vector),
        }
        .map_err(SendError::Unreachable)
    }
}
