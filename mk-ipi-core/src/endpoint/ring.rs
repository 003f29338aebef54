// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rings an instance: chooses its doorbell CPU, and checks whether the instance wants to be rung (SPEC S-5, N-10, N-12).

use super::base::{Endpoint, Instance};
use super::error::SendError;
use super::ringing::before_settled;
use crate::native::Sender;
use crate::platform::{DoorbellError, Platform};
use crate::registry::Handler;
use crate::stats::Count;
use mk_ipi_abi::native::Bell;
use mk_ipi_abi::{InstanceId, PhysCpuId};

/// The context of the caller, which decides how it may ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Context {
    Normal,
    Nmi,
}

impl<
        P: Platform,
        H: Handler,
        const CPUS: usize,
        const HANDLERS: usize,
        const QUEUE: usize,
        const INSTANCES: usize,
    > Endpoint<P, H, CPUS, HANDLERS, QUEUE, INSTANCES>
{
    /// Whether `cpu` belongs to the instance, as the directory says.
    pub(super) fn has_cpu(&self, instance: &Instance<P>, cpu: PhysCpuId) -> bool {
        let listed = || instance.doorbell().cpu == cpu;
        self.platform.peer_has_cpu(instance.id, cpu).unwrap_or_else(listed)
    }

    /// The doorbell of an instance: the one in its word BELL if that CPU belongs to the instance, otherwise the one in the
    /// directory.
    pub(super) fn doorbell(&self, to: &Instance<P>, sender: &Sender<P::Word>) -> Bell {
        let is_its_cpu = |bell: Bell| {
            let is = self.has_cpu(to, bell.cpu);
            if !is {
                // The directory may have changed. This reports `ReadDirectory` later.
                self.busy.unexplained.add(to.id);
            }
            is
        };
        sender.bell(is_its_cpu).unwrap_or_else(|| to.doorbell())
    }

    /// Calls `ring`, which chooses the CPU to ring and rings it. [`settle_doorbells`](Self::settle_doorbells) waits until such
    /// calls have returned. Interrupts are off.
    pub(super) fn while_ringing<R>(&self, ring: impl FnOnce() -> R) -> R {
        self.cpu().map_or(&self.ringing_elsewhere, |cpu| &cpu.ringing).during(ring)
    }

    /// Whether `cpu` is the doorbell CPU of the instance.
    pub(super) fn is_rung_at(&self, to: &Instance<P>, sender: &Sender<P::Word>, cpu: PhysCpuId) -> bool {
        let interrupts = self.platform.disable();
        // This check runs as a ring does, because `doorbell` caches the CPU that it finds. So `settle_doorbells` waits for it.
        let bell = self.while_ringing(|| self.doorbell(to, sender));
        self.platform.restore(interrupts);
        bell.cpu == cpu
    }

    /// Waits, for a bounded time, until no CPU of this kernel rings a doorbell of a former directory entry. True if this was
    /// reached.
    pub(super) fn settle_doorbells(&self) -> bool {
        before_settled();
        let all = self.cpus.iter().map(|cpu| &cpu.ringing).chain([&self.ringing_elsewhere]);
        all.into_iter().all(|ringing| ringing.has_settled(|| self.platform.relax()))
    }

    #[cold]
    pub(super) fn ring_bell(
        &self,
        to: &Instance<P>,
        sender: &Sender<P::Word>,
        context: Context,
    ) -> Result<(), DoorbellError> {
        self.while_ringing(|| {
            if !to.is_live() || !to.may_listen(sender) {
                // The CPUs of the instance may belong to another instance now, or have no handler for the vector yet. Its next
                // life reads the lanes without a doorbell.
                return Ok(());
            }
            sender.count_rung();
            self.count(Count::Rung);
            let Bell { cpu, vector } = self.doorbell(to, sender);
            match context {
                Context::Normal => self.platform.ring(cpu, vector),
                Context::Nmi => self.platform.ring_from_nmi(cpu, vector),
            }
        })
    }

    /// Rings an instance for the messages and words that we have stored, if the instance wants to be rung.
    pub(super) fn ring_if_wanted(&self, to: &Instance<P>) -> Result<(), DoorbellError> {
        match to.sender().filter(|sender| sender.flush()) {
            Some(sender) => self.ring_undisturbed(to, sender),
            None => Ok(()),
        }
    }

    fn ring_undisturbed(&self, to: &Instance<P>, sender: &Sender<P::Word>) -> Result<(), DoorbellError> {
        let interrupts = self.platform.disable();
        let rung = self.ring_bell(to, sender, Context::Normal);
        self.platform.restore(interrupts);
        rung
    }

    /// Rings `to` without sending a message, even if `to` does not want to be rung. Call it after [`SendError::NotRung`]. An
    /// instance is not rung if it is not live, or if its native region says that the life in the directory has not begun yet.
    pub fn ring(&self, to: InstanceId) -> Result<(), SendError> {
        let instance = self.instances.get(to).map_err(SendError::Instance)?;
        let rung = match instance.sender() {
            Some(sender) => self.ring_undisturbed(&instance, sender),
            None => {
                let interrupts = self.platform.disable();
                let rung = self.while_ringing(|| match instance.doorbell() {
                    Bell { cpu, vector } if instance.is_live() => self.platform.ring(cpu, vector),
                    _ => Ok(()),
                });
                self.platform.restore(interrupts);
                rung
            }
        };
        rung.map_err(SendError::Unreachable)
    }
}
