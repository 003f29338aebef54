// SPDX-License-Identifier: MIT OR Apache-2.0
//! mk-ipi's RFC v2 generation: one slot per CPU, exclusive, so that nothing is lost.

use std::sync::Arc;

use mk_ipi_core::abi::rfc_v2::region_size;
use mk_ipi_core::abi::{
    Incarnation, InstanceId, MessageType, PhysAddr, PhysCpuId, PhysRange, Vector, PAGE_SIZE,
};
use mk_ipi_core::{Endpoint, Handler, InstanceConfig, LinkConfig, Message, Occupied};
use zerocopy::{FromBytes, IntoBytes};

use crate::harness::{Contender, End, Link, Payload, Sink};
use crate::platform::{Host, Memory};

/// The type of every message.
pub const NUMBERED: MessageType = MessageType(7);

/// The handler that a kernel registers: to the sink with it, by its type.
pub struct ToSink<const WORDS: usize>(pub Arc<Sink>);

impl<const WORDS: usize> Handler for ToSink<WORDS> {
    #[inline(always)]
    fn handle(&self, message: &Message) {
        match Payload::<WORDS>::ref_from_bytes(message.payload()) {
            Ok(payload) => self.0.take(payload),
            Err(_) => self.0.reject(),
        }
    }
}

/// The exclusive slot.
pub struct RfcV2;
/// One kernel: one CPU, whose physical id is the kernel's number.
type Kernel<const WORDS: usize> = Endpoint<Host, ToSink<WORDS>, 1, 1>;
pub struct RfcV2End<const WORDS: usize> {
    kernel: Box<Kernel<WORDS>>,
    peer: InstanceId,
}

/// How the kernels know each other.
const KERNELS: [u8; 2] = [0, 1];
const SLOTS: u32 = 2;

impl Contender for RfcV2 {
    const NAME: &'static str = "mk-ipi RFC v2 slot";
    const CELLS: usize = 1;
    type Link<const WORDS: usize> = [RfcV2End<WORDS>; 2];
}

impl<const WORDS: usize> Link<WORDS> for [RfcV2End<WORDS>; 2] {
    fn new(sinks: [Arc<Sink>; 2]) -> Self {
        let memory = Memory::new(2 * PAGE_SIZE);
        let mut sinks = sinks.into_iter();
        KERNELS.map(|me| {
            let kernel = Box::new(Endpoint::new(Host::new(memory.clone(), PhysCpuId(me.into()))));
            for instance in KERNELS {
                attach(&kernel, instance);
            }
            kernel.identify(InstanceId::new(me), Incarnation::FIRST);
            let handler = ToSink(sinks.next().expect("a sink for each end"));
            let _for_ever = kernel.register(NUMBERED, handler).expect("room for a handler");
            RfcV2End { kernel, peer: InstanceId::new(1 - me) }
        })
    }
    fn ends(&mut self) -> [impl End<WORDS>; 2] {
        self.each_mut()
    }
}

/// Has `kernel` know an instance, whose region is a page.
fn attach<const WORDS: usize>(kernel: &Kernel<WORDS>, instance: u8) {
    let cpu = PhysCpuId(instance.into());
    let config = InstanceConfig {
        id: InstanceId::new(instance),
        incarnation: Incarnation::FIRST,
        cpus: &[cpu],
        doorbell_cpu: cpu,
        vector: Vector::RFC_V2,
        link: LinkConfig::RfcV2 { slots: SLOTS, policy: Occupied::Exclusive },
        one_doorbell: false,
    };
    let start = PhysAddr(Memory::START.0 + u64::from(instance) * PAGE_SIZE);
    let region = PhysRange::new(start, region_size(SLOTS)).expect("a range of addresses");
    kernel.attach_instance(&config, Some(region)).expect("a region in memory");
}

impl<const WORDS: usize> End<WORDS> for &mut RfcV2End<WORDS> {
    #[inline(always)]
    fn try_send(&mut self, payload: &Payload<WORDS>) -> bool {
        self.kernel.send(self.peer, NUMBERED, payload.as_bytes()).is_ok()
    }
    #[inline(always)]
    fn poll(&mut self) -> usize {
        match self.kernel.poll() {
            Ok(true) => self.kernel.run_deferred().messages,
            _ => 0,
        }
    }
}
