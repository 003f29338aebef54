// SPDX-License-Identifier: MIT OR Apache-2.0
//! A host and a spawned kernel on a simulated machine in one process: `cargo run -p mk-ipi --example two_kernels`.
//!
//! The host is brought up from a plan, and the spawned kernel from its command line. The spawned kernel sends temperatures. The
//! host answers with the mean of them.
#![allow(clippy::expect_used, clippy::panic, reason = "an example")]

use mk_ipi::abi::{native::Geometry, Incarnation, InstanceId, MessageType, PhysCpuId, Vector};
use mk_ipi::blocking::Deadline;
use mk_ipi::bring_up::HostPlan;
use mk_ipi::sync::{AtomicU64, Ordering::Relaxed};
use mk_ipi::typed::{DynHandler, TypedHandler, TypedMessage};
use mk_ipi::zerocopy::{FromBytes, Immutable, IntoBytes};
use mk_ipi::{Endpoint, EndpointExt, InstanceConfig, LinkConfig};
use mk_ipi_mock::{Machine, MockPlatform};

/// The endpoint of a kernel. In a real kernel it is a `static`.
type End = Endpoint<MockPlatform, DynHandler>;

const HOST: InstanceId = InstanceId::HOST;
const SPAWNED: InstanceId = InstanceId::new(1);
/// The number of temperatures that the spawned kernel sends.
const COUNT: u64 = 20;
/// The deadline of a wait. The unit is one read of the clock, because this machine has no clock.
const PATIENCE: u64 = 1_000_000;

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
#[zerocopy(crate = "mk_ipi::zerocopy")]
struct Temperature {
    sensor: u32,
    millikelvin: u32,
}

impl TypedMessage for Temperature {
    const TYPE: MessageType = MessageType(1);
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
#[zerocopy(crate = "mk_ipi::zerocopy")]
struct Mean {
    millikelvin: u64,
}

impl TypedMessage for Mean {
    const TYPE: MessageType = MessageType(2);
}

/// The sum of the temperatures that the host has received.
static SUM: AtomicU64 = AtomicU64::new(0);
/// The number of temperatures that the host has received.
static TOLD: AtomicU64 = AtomicU64::new(0);
/// The mean that the spawned kernel has received, or 0.
static MEAN: AtomicU64 = AtomicU64::new(0);

static ON_TEMPERATURE: TypedHandler<Temperature> = TypedHandler::new(|_, temperature| {
    SUM.fetch_add(temperature.millikelvin.into(), Relaxed);
    TOLD.fetch_add(1, Relaxed);
});
static ON_MEAN: TypedHandler<Mean> = TypedHandler::new(|_, mean| MEAN.store(mean.millikelvin, Relaxed));

/// Makes the endpoint of a kernel, and connects the doorbell's vector and the deferred work to it. Every kernel does this first.
fn endpoint(kernel: MockPlatform) -> &'static End {
    let end: &'static End = Box::leak(Box::new(Endpoint::new(kernel.clone())));
    kernel.set_vector(Vector::RFC_V2, || end.on_interrupt());
    kernel.set_deferred(|| _ = end.run_deferred());
    end
}

/// Makes a deadline. Its clock advances by 1 at each read.
fn deadline() -> Deadline<impl FnMut() -> u64> {
    let mut turns = 0u64;
    let clock = move || {
        turns = turns.saturating_add(1);
        turns
    };
    Deadline::new(clock, PATIENCE)
}

fn main() {
    println!("the mean of {COUNT} temperatures is {} millikelvin", play());
}

/// Brings both kernels up and runs them. Returns the mean that the spawned kernel has received.
pub fn play() -> u64 {
    let machine = Machine::builder().kernel(&[0]).kernel(&[4]).pool(HOST, 8).pool(SPAWNED, 8).build();
    let directory = machine.reserve(4096);

    let host = endpoint(machine.kernel(0));
    let _handle = host.register_typed(&ON_TEMPERATURE).expect("room for a handler");
    let kernel = |id, cpus: &'static [PhysCpuId; 1]| InstanceConfig {
        id,
        incarnation: Incarnation::FIRST,
        cpus,
        doorbell_cpu: cpus[0],
        vector: Vector::RFC_V2,
        one_doorbell: false,
        link: LinkConfig::Native(Geometry::new(2, 8, 256)),
    };
    let plan = HostPlan {
        directory,
        max_instances: 2,
        cpus_per_instance: 1,
        boot_cpu: Some(PhysCpuId(0)),
        me: HOST,
        instances: &[kernel(HOST, &[PhysCpuId(0)]), kernel(SPAWNED, &[PhysCpuId(4)])],
    };
    let writer = host.bring_up_host(&plan).unwrap_or_else(|e| panic!("{e}"));
    let region = writer
        .reader()
        .record(SPAWNED)
        .ok()
        .and_then(|record| record.region)
        .expect("the directory lists the spawned kernel with a region");
    let (shared, at) = (region.start().0, directory.start().0);
    let command_line = format!("mk_ipi_shared={shared:#x} mk_ipi_directory={at:#x}");

    let spawned = endpoint(machine.kernel(1));
    let _handle = spawned.register_typed(&ON_MEAN).expect("room for a handler");
    let run = machine.run(|cpu| {
        if cpu.kernel() == 0 {
            cpu.wait_until(|| TOLD.load(Relaxed) == COUNT);
            let mean = Mean { millikelvin: SUM.load(Relaxed).checked_div(COUNT).unwrap_or(0) };
            host.send_typed(SPAWNED, &mean).expect("there is space for the answer");
        } else {
            let left_out = |id: InstanceId, e| panic!("kernel {} cannot be added: {e:?}", id.get());
            let up = spawned.bring_up_spawned(command_line.as_bytes(), deadline(), left_out);
            up.unwrap_or_else(|e| panic!("{e}"));
            for (millikelvin, _) in (290_000..).zip(0..COUNT) {
                let value = Temperature { sensor: 1, millikelvin };
                // The lane has no space for all of these messages, so this waits.
                let sent = spawned.send_blocking(HOST, Temperature::TYPE, value.as_bytes(), deadline());
                sent.unwrap_or_else(|e| panic!("{e}"));
            }
            cpu.wait_until(|| MEAN.load(Relaxed) != 0);
        }
    });
    run.expect("both kernels finish");
    MEAN.load(Relaxed)
}
