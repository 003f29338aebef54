// SPDX-License-Identifier: MIT OR Apache-2.0
//! Endpoints of `mk-ipi-core` on the kernels of the machine, and functions that connect them.

use crate::machine::Machine;
use crate::platform::MockPlatform;
use mk_ipi_abi::native::Geometry;
use mk_ipi_abi::rfc_v2::region_size;
use mk_ipi_abi::{Incarnation, InstanceId, PhysRange, Vector};
use mk_ipi_core::{Endpoint, Handler, InstanceConfig, LinkConfig, Message, SlotPolicy};
use std::sync::Arc;

/// The type of a kernel's endpoint, with handlers of type [`Callback`].
pub type Link = Endpoint<MockPlatform, Callback>;

/// A handler that is a closure. The endpoint owns it while it is registered. If the closure uses the [`Link`] at which it is
/// registered, it must hold a weak reference to it. With a strong reference neither of them would ever be dropped.
#[derive(Clone)]
pub struct Callback(Arc<dyn Fn(&Message<'_>) + Send + Sync>);

impl core::fmt::Debug for Callback {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Callback")
    }
}

impl Callback {
    /// Makes a handler that calls `f`.
    pub fn new(f: impl Fn(&Message<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(f))
    }
}

impl Handler for Callback {
    fn handle(&self, message: &Message<'_>) {
        (self.0)(message);
    }
}

impl MockPlatform {
    /// Boots this kernel as instance `id`: makes an endpoint, calls its `identify`, and sets its `on_interrupt` as the handler of
    /// vector [`Vector::RFC_V2`] and its `run_deferred` as the deferred work.
    pub fn boot(&self, id: InstanceId, incarnation: Incarnation) -> Arc<Link> {
        let link = Arc::new(Link::new(self.clone()));
        self.booted_as(id);
        link.identify(id, incarnation);
        let (interrupt, deferred) = (link.clone(), link.clone());
        self.set_vector(Vector::RFC_V2, move || interrupt.on_interrupt());
        self.set_deferred(move || {
            deferred.run_deferred();
        });
        link
    }

    /// Returns the configuration of this kernel as instance `id`, with a region of slots. It is rung at its first CPU. There is a
    /// slot for each physical CPU id from 0 to the highest id of its CPUs.
    pub fn config(&self, id: InstanceId, incarnation: Incarnation, policy: SlotPolicy) -> InstanceConfig<'_> {
        let cpus = self.cpus();
        let highest = cpus.iter().map(|cpu| cpu.0).max().unwrap_or(0);
        let slots = u32::try_from(highest).expect("a small physical id") + 1;
        let link = LinkConfig::RfcV2 { slots, policy };
        InstanceConfig { link, ..self.native_config(id, incarnation) }
    }

    /// Returns the configuration of this kernel as instance `id`, with a native region. It is rung at its first CPU.
    pub fn native_config(&self, id: InstanceId, incarnation: Incarnation) -> InstanceConfig<'_> {
        let (cpus, vector, link) = (self.cpus(), Vector::RFC_V2, LinkConfig::Native(None));
        InstanceConfig { id, incarnation, cpus, doorbell_cpu: cpus[0], vector, link, one_doorbell: false }
    }
}

impl Machine {
    /// Boots every kernel: kernel `k` is instance `k`, in its first incarnation. Each gets a region of slots, and every kernel
    /// attaches all instances.
    ///
    /// # Panics
    ///
    /// If the number of kernels is not `N`, is above 256, or there is too little memory for the regions.
    pub fn link<const N: usize>(&self, policy: SlotPolicy) -> [Arc<Link>; N] {
        self.link_all(|id, kernel| {
            let config = kernel.config(id, Incarnation::FIRST, policy);
            let LinkConfig::RfcV2 { slots, .. } = config.link else { unreachable!("made above") };
            (config, self.reserve(region_size(slots)))
        })
    }

    /// Does the same as [`link`](Self::link), with native regions of this geometry.
    ///
    /// # Panics
    ///
    /// In the cases in which `link` panics, and if the geometry has fewer lanes than there are kernels.
    pub fn link_native<const N: usize>(&self, geometry: Geometry) -> [Arc<Link>; N] {
        self.link_all(|id, kernel| {
            let config = kernel.native_config(id, Incarnation::FIRST);
            (config, self.native_region(geometry))
        })
    }

    fn link_all<const N: usize>(
        &self,
        region: impl for<'k> Fn(InstanceId, &'k MockPlatform) -> (InstanceConfig<'k>, PhysRange),
    ) -> [Arc<Link>; N] {
        let kernels: Vec<_> = (0..=u8::MAX).map(InstanceId::new).zip(self.kernels()).collect();
        let links: Vec<_> = kernels.iter().map(|(id, kernel)| kernel.boot(*id, Incarnation::FIRST)).collect();
        for (id, kernel) in &kernels {
            let (config, region) = region(*id, kernel);
            links.iter().for_each(|link| attach(link, &config, region));
        }
        let count = links.len();
        links.try_into().unwrap_or_else(|_| panic!("{count} kernels, not {N}"))
    }
}

fn attach(link: &Link, config: &InstanceConfig<'_>, region: PhysRange) {
    link.attach_instance(config, Some(region)).expect("a fresh instance on fresh memory");
}
