// SPDX-License-Identifier: MIT OR Apache-2.0
//! The RFC v2 layout: one slot for each CPU. The slots are exclusive, so that no message is lost.

use std::sync::Arc;

use mk_ipi_core::abi::rfc_v2::region_size;
use mk_ipi_core::abi::{InstanceId, PhysAddr, PhysRange, PAGE_SIZE};
use mk_ipi_core::sync::AtomicU64;
use mk_ipi_core::{LinkConfig, SlotPolicy};
use zerocopy::IntoBytes;

use super::host::{self, Memory, NUMBERED};
use super::ToSink;
use crate::link::{Contender, End, Kind, Room};
use crate::message::{Payload, Sink};
use crate::pair::Apart;

/// Bytes of the longest message that a slot can carry.
const MAX_LEN: usize = 256;
/// The ids of the kernels.
const KERNELS: [u8; 2] = [0, 1];
const SLOTS: u32 = 2;

/// The contender, if it can carry messages of this size. A slot cannot carry a message of 0 bytes, because it would look like an
/// empty slot. `None` for streams: a stream through one slot would mostly measure how senders wait.
pub fn contender<const WORDS: usize>(kind: Kind) -> Option<Contender> {
    let room = Room { messages: 1, memory_bytes: region_size(1) as usize };
    let can = kind == Kind::RoundTrip && (1..=MAX_LEN).contains(&(8 * WORDS));
    can.then(|| {
        let make = |[near, far]: [Arc<Sink>; 2]| {
            let memory = Memory::new(2 * PAGE_SIZE);
            let [a, b] = KERNELS;
            [(a, b, near), (b, a, far)].map(|(me, peer, sink)| {
                let kernel = host::kernel(&memory, me, ToSink(sink));
                KERNELS.into_iter().for_each(|instance| attach(&kernel, instance));
                Apart(Slot::<WORDS> { kernel, peer: InstanceId::new(peer) })
            })
        };
        Contender::new::<WORDS, false, _>("mk-ipi RFC v2 slot".into(), room, make).ours()
    })
}

/// Lets `kernel` attach an instance. Its region is in a page of its own.
fn attach<const WORDS: usize>(kernel: &Kernel<WORDS>, instance: u8) {
    let link = LinkConfig::RfcV2 { slots: SLOTS, policy: SlotPolicy::Exclusive };
    let start = PhysAddr(host::START.0 + u64::from(instance) * PAGE_SIZE);
    let region = PhysRange::new(start, region_size(SLOTS)).expect("a range of addresses");
    host::configured(instance, link, |config| kernel.attach_instance(config, Some(region)))
        .expect("a region in memory");
}

type Kernel<const WORDS: usize> = host::Kernel<AtomicU64, ToSink<WORDS>, 1>;

struct Slot<const WORDS: usize> {
    kernel: Box<Kernel<WORDS>>,
    peer: InstanceId,
}

impl<const WORDS: usize> End<WORDS> for Slot<WORDS> {
    #[inline(always)]
    fn send(&mut self, payload: &Payload<WORDS>) -> bool {
        self.kernel.send(self.peer, NUMBERED, payload.as_bytes()).is_ok()
    }

    #[inline(always)]
    fn receive(&mut self, _: usize) -> usize {
        match self.kernel.poll() {
            Ok(true) => self.kernel.run_deferred().messages,
            _ => 0,
        }
    }
}
