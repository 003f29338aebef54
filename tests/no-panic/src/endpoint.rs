// SPDX-License-Identifier: MIT OR Apache-2.0
//! The functions of mk-ipi-core for endpoints and directories, with two kinds of memory and endpoints of several sizes.

use crate::opaque::{any, bytes, cpu_room, cpus, instance, maybe, option, range, sink, vector};
use crate::opaque::{HasMemory, HostileWord, Opaque};
use core::hint::black_box;
use core::mem::MaybeUninit;
use mk_ipi_abi::{Incarnation, MessageType, Pfn, PhysAddr, PhysCpuId};
use mk_ipi_core::directory::{Directory, DirectoryWriter, WriteError};
use mk_ipi_core::sync::AtomicU64;
use mk_ipi_core::{config_of, Endpoint, Handler, InstanceConfig, LinkConfig, Message, SlotPolicy};
use mk_ipi_core::{
    AddError, DestroyError, JoinError, LookupError, MapPfnError, RegistryFull, SendError, UnregisterError,
};

type Callback = &'static (dyn Fn(&Message<'_>) + Send + Sync);

static DEFAULT: Endpoint<Opaque<AtomicU64>, Callback> = Endpoint::new(Opaque::new());
static HOSTILE: Endpoint<Opaque<HostileWord>, Sink, 4, 3, 8, 16> = Endpoint::new(Opaque::new());
static SMALL: Endpoint<Opaque<AtomicU64>, Sink, 1, 1, 1, 1> = Endpoint::new(Opaque::new());

/// A handler that is not a closure.
struct Sink;

impl Handler for Sink {
    fn handle(&self, message: &Message<'_>) {
        message_all(message);
        if let Ok(page) = HOSTILE.map_page_of(message) {
            sink(page.words().len());
        }
    }
}

pub fn call_all() {
    endpoint(black_box(&DEFAULT), || &|message| message_all(message));
    endpoint(black_box(&HOSTILE), || Sink);
    endpoint(black_box(&SMALL), || Sink);
    sink(black_box(Endpoint::<_, Sink, 2, 2, 2>::new(Opaque::<AtomicU64>::new())).identity());
    let mut place = MaybeUninit::<Endpoint<_, Sink, 2, 2, 2>>::uninit();
    sink(Endpoint::new_in(black_box(&mut place), Opaque::<AtomicU64>::new()).identity());
    directory::<AtomicU64>();
    directory::<HostileWord>();
}

fn message_all(message: &Message<'_>) {
    sink((
        message.sender(),
        message.sender_cpu(),
        message.msg_type(),
        message.payload().len(),
        message.pfn(),
    ));
    sink((message.sender_incarnation(), message.receiver_incarnation(), message.number()));
    sink((message.read::<u64>(), message.read::<[u8; 13]>(), message.read::<[u64; 32]>()));
    sink(*message);
    sink(DEFAULT.map_page_of(message).is_ok());
}

fn endpoint<
    W: HasMemory,
    H: Handler,
    const CPUS: usize,
    const HANDLERS: usize,
    const QUEUE: usize,
    const INSTANCES: usize,
>(
    end: &Endpoint<Opaque<W>, H, CPUS, HANDLERS, QUEUE, INSTANCES>,
    handler: impl Fn() -> H,
) {
    sink((end.identity(), end.stats(), core::ptr::from_ref(end.platform())));
    if let Some(life) = Incarnation::new(any()) {
        end.identify(instance(), life);
        sink(end.clear_claims(instance(), life));
        if maybe() {
            end.forget_identity();
        }
    }
    let first = end.register(MessageType(any()), handler()).map_err(RegistryFull::errno);
    let second = end.register(MessageType(any()), handler());
    if let (Ok(first), Ok(second)) = (first, second) {
        let handle = if maybe() { first } else { second };
        let handle = end.handle_from_bits(handle.to_bits() ^ any::<u64>());
        sink((first == second, end.unregister(handle).map_err(UnregisterError::errno)));
    }
    instances(end);
    sink(end.send(instance(), MessageType(any()), bytes()).map_err(SendError::errno));
    sink(end.send(instance(), MessageType(any()), bytes()).map_err(SendError::is_transient));
    sink(end.send_to_cpu(instance(), PhysCpuId(any()), MessageType(any()), bytes()));
    sink(end.send_pfn(instance(), Pfn(any())));
    end.on_interrupt();
    sink((end.poll(), end.run_deferred()));
    sink(end.ring(instance()));
    crate::native::endpoint(end);
    if let Ok(page) = end.map_pfn(Pfn(any())).map_err(MapPfnError::errno) {
        sink(page.words().len());
    }
    if let Ok(directory) = Directory::open(W::memory()) {
        sink(end.join(PhysAddr(any()), &directory).map_err(JoinError::errno));
        sink(end.join_and(PhysAddr(any()), &directory, |id, e| sink((id, e.errno()))));
        sink(end.follow(&directory, |id, followed| sink((id, followed))).map_err(JoinError::errno));
    }
}

fn instances<
    W: HasMemory,
    H: Handler,
    const CPUS: usize,
    const HANDLERS: usize,
    const QUEUE: usize,
    const INSTANCES: usize,
>(
    end: &Endpoint<Opaque<W>, H, CPUS, HANDLERS, QUEUE, INSTANCES>,
) {
    if let (Some(incarnation), Some(vector)) = (Incarnation::new(any()), vector()) {
        let config = InstanceConfig {
            id: instance(),
            incarnation,
            cpus: cpus(),
            doorbell_cpu: PhysCpuId(any()),
            vector,
            link: if maybe() { crate::native::link() } else { slots() },
            one_doorbell: false,
        };
        sink(end.create_instance(&config).map_err(AddError::errno));
        sink(end.attach_instance(&config, range().and_then(option)));
    }
    if let Ok(held) = end.instance(instance()).map_err(LookupError::errno) {
        sink((held.incarnation(), held.one_doorbell(), held.doorbell_cpu(), held.vector()));
        sink((held.policy(), held.region(), held.words().len()));
        sink((held.life(), held.is_live(), held.is_suspect()));
    }
    sink(end.behind(any(), |id, incarnation| sink((id, incarnation))).map_err(SendError::errno));
    sink(end.mapped_by(instance(), |id, incarnation| sink((id, incarnation))));
    sink(end.destroy_instance(instance()).map_err(DestroyError::errno));
    sink(end.destroy_with(instance(), |id, incarnation| {
        sink((id, incarnation));
        maybe()
    }));
}

/// A link with any number of slots and any policy.
pub fn slots() -> LinkConfig {
    LinkConfig::RfcV2 {
        slots: any(),
        policy: if maybe() { SlotPolicy::Exclusive } else { SlotPolicy::Overwrite },
    }
}

fn directory<W: HasMemory>() {
    let mut room = [PhysCpuId(0); 64];
    if let Ok(directory) = Directory::open(W::memory()) {
        sink((directory.nr_instances(), directory.generation(), directory.boot_cpu()));
        for id in directory.ids() {
            if let Ok(record) = directory.read(id, cpu_room(&mut room)) {
                sink(config_of(&record, cpus()).link);
            }
            sink(directory.record(id).map(|record| record.state.is_live()));
            sink((directory.record(id), directory.has_cpu(id, PhysCpuId(any()))));
        }
    }
    if let Ok(mut writer) = DirectoryWriter::create(W::memory(), any(), any()) {
        if let Some(record) = crate::abi::record() {
            sink(writer.write(&record, cpus()).map_err(WriteError::errno));
        }
        sink(writer.reader().nr_instances());
        sink(writer.at(PhysAddr(any())).boot_cpu(PhysCpuId(any())).reader().boot_cpu());
    }
    sink(DirectoryWriter::take_over(W::memory()).is_ok());
}
