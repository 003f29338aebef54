// SPDX-License-Identifier: MIT OR Apache-2.0
//! mk-ipi's native link: from a typed send to the handler called, by a kernel that polls.

use std::sync::Arc;

use mk_ipi_core::abi::native::Geometry;
use mk_ipi_core::abi::{Incarnation, InstanceId, PhysCpuId, Vector};
use mk_ipi_core::sync::AtomicU64;
use mk_ipi_core::{Endpoint, InstanceConfig, InstanceRef, LinkConfig};
use zerocopy::IntoBytes;

use crate::harness::{Contender, End, Link, Payload, Sink};
use crate::platform::{Host, Memory};
use crate::rfc_v2::{ToSink, NUMBERED};

/// The link with lanes of `CELLS` cells.
pub struct Native<const CELLS: usize>;
type Kernel<const WORDS: usize> = Endpoint<Host, ToSink<WORDS>, 1, 1>;
pub struct NativeEnd<const WORDS: usize> {
    kernel: Box<Kernel<WORDS>>,
    peer: InstanceId,
}
/// Both ends, for lanes of `CELLS` cells.
pub struct NativeLink<const WORDS: usize, const CELLS: usize>([NativeEnd<WORDS>; 2]);

impl<const CELLS: usize> Contender for Native<CELLS> {
    const NAME: &'static str = "mk-ipi native link";
    const CELLS: usize = CELLS;
    type Link<const WORDS: usize> = NativeLink<WORDS, CELLS>;
}

/// How the kernels know each other.
const KERNELS: [u8; 2] = [0, 1];

impl<const WORDS: usize, const CELLS: usize> Link<WORDS> for NativeLink<WORDS, CELLS> {
    fn new(sinks: [Arc<Sink>; 2]) -> Self {
        let geometry =
            Geometry::new(KERNELS.len() as u32, CELLS as u32).expect("lanes and cells within bounds");
        let memory = Memory::new(KERNELS.len() as u64 * geometry.total_size());
        let mut sinks = sinks.into_iter();
        let kernels = KERNELS.map(|me| {
            let kernel = Box::new(Kernel::new(Host::new(memory.clone(), PhysCpuId(me.into()))));
            kernel.identify(InstanceId::new(me), Incarnation::FIRST);
            let handler = ToSink(sinks.next().expect("a sink for each end"));
            let _for_ever = kernel.register(NUMBERED, handler).expect("room for a handler");
            kernel
        });
        // Each makes its own region, the other attaches it.
        for (owner, instance) in kernels.iter().zip(KERNELS) {
            let region = add(geometry, instance, |config| owner.create_instance(config)).expect("a region");
            for other in kernels.iter().filter(|other| !std::ptr::eq(*other, owner)) {
                add(geometry, instance, |config| other.attach_instance(config, Some(region)))
                    .expect("a region");
            }
        }
        let mut peers = KERNELS.into_iter().rev();
        Self(kernels.map(|kernel| NativeEnd { kernel, peer: InstanceId::new(peers.next().expect("a peer")) }))
    }
    fn ends(&mut self) -> [impl End<WORDS>; 2] {
        self.0.each_ref().map(|NativeEnd { kernel, peer }| {
            let held = kernel.instance(*peer).expect("it was added");
            let me = InstanceId::new(1 - peer.get());
            let own = kernel.instance(me).expect("it was added");
            Held { kernel, peer: *peer, held, own }
        })
    }
}

fn add<R>(geometry: Geometry, instance: u8, with: impl FnOnce(&InstanceConfig<'_>) -> R) -> R {
    let cpu = PhysCpuId(instance.into());
    with(&InstanceConfig {
        id: InstanceId::new(instance),
        incarnation: Incarnation::FIRST,
        cpus: &[cpu],
        doorbell_cpu: cpu,
        vector: Vector::RFC_V2,
        link: LinkConfig::Native(Some(geometry)),
        one_doorbell: false,
    })
}

/// A kernel that keeps hold of its peer: the look-up is not done for each message.
struct Held<'a, const WORDS: usize> {
    kernel: &'a Kernel<WORDS>,
    peer: InstanceId,
    held: InstanceRef<'a, AtomicU64, 1>,
    own: InstanceRef<'a, AtomicU64, 1>,
}

impl<const WORDS: usize> End<WORDS> for Held<'_, WORDS> {
    #[inline(always)]
    fn try_send(&mut self, payload: &Payload<WORDS>) -> bool {
        self.kernel.send_held(&self.held, NUMBERED, payload.as_bytes()).is_ok()
    }
    #[inline(always)]
    fn try_post(&mut self, payload: &Payload<WORDS>) -> bool {
        self.kernel.post_held(&self.held, NUMBERED, payload.as_bytes()).is_ok()
    }
    fn flush(&mut self) {
        self.kernel.flush(self.peer).expect("a native link");
    }
    #[inline(always)]
    fn poll(&mut self) -> usize {
        self.kernel.drain_held(&self.own).messages
    }
}
