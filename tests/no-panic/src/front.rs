// SPDX-License-Identifier: MIT OR Apache-2.0
//! The functions of mk-ipi: typed, blocking and async calls, the list of peers, and the start of a host and of a spawned kernel.

use crate::opaque::{any, bytes, cpus, instance, maybe, option, range, sink, vector};
use crate::opaque::{HasMemory, HostileWord, Opaque};
use core::future::Future;
use core::hint::black_box;
use core::pin::Pin;
use core::task::{Context, Waker};
use mk_ipi::asynchronous::{Inbox, Received, Waiters};
use mk_ipi::blocking::Deadline;
use mk_ipi::bring_up::{find_directory, HostPlan};
use mk_ipi::peers::PeerState;
use mk_ipi::platform::{Observer, Peer, PeerEvent};
use mk_ipi::typed::{DynHandler, TypedHandler, TypedMessage};
use mk_ipi::{AnyEndpoint, Endpoint, EndpointExt, Handler, InstanceConfig, Message};
use mk_ipi_abi::native::Breach;
use mk_ipi_abi::{Incarnation, MessageType, PhysCpuId};
use mk_ipi_core::sync::AtomicU64;
use zerocopy::{FromBytes, Immutable, IntoBytes};

static DEFAULT: Endpoint<Opaque<AtomicU64>, DynHandler> = Endpoint::new(Opaque::new());
static HOSTILE: Endpoint<Opaque<HostileWord>, DynHandler, 4, 3, 8, 16> = Endpoint::new(Opaque::new());

/// A type whose values can be sent as messages.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Value([u64; 3]);

impl TypedMessage for Value {
    const TYPE: MessageType = MessageType(7);
}

static VALUES: TypedHandler<Value> =
    TypedHandler::<Value>::new(|message, value| sink((message.sender(), value.0)))
        .on_wrong_length(|message| sink(message.payload().len()));
static INBOX: Inbox<5, 32> = Inbox::new();
static SMALL: Inbox<1, 0> = Inbox::new();
static WAITERS: Waiters<3> = Waiters::new();

/// An observer and a handler that put messages into inboxes.
struct Unhandled;

impl Observer for Unhandled {
    fn unhandled(&self, message: &Message<'_>) {
        sink((INBOX.put(message), SMALL.put(message)));
    }
}

impl Handler for Unhandled {
    fn handle(&self, message: &Message<'_>) {
        self.unhandled(message);
    }
}

pub fn call_all() {
    all(black_box(&DEFAULT));
    all(black_box(&HOSTILE));
    handlers(black_box(&DEFAULT));
    handlers(black_box(&HOSTILE));
    inbox(black_box(&INBOX));
    inbox(black_box(&SMALL));
    sink(find_directory(&Opaque::<AtomicU64>::new(), bytes()).is_ok());
    sink(find_directory(&Opaque::<HostileWord>::new(), bytes()).is_ok());
}

fn handlers<E: AnyEndpoint<Handler = DynHandler>>(end: &E) {
    sink(end.register_typed(black_box(&VALUES)).is_ok());
    sink(end.register(MessageType(any()), DynHandler::new(&INBOX)).is_ok());
    sink(end.register(MessageType(any()), DynHandler::from(black_box(&SMALL))).is_ok());
    sink(end.register(MessageType(any()), DynHandler::new(&Unhandled)).is_ok());
    sink((VALUES.wrong_length(), TypedHandler::<Value>::new(|_, _| ()).wrong_length()));
}

fn deadline() -> Deadline<fn() -> u64> {
    let mut deadline = Deadline::new(any::<u64> as fn() -> u64, any());
    sink(deadline.has_passed());
    deadline
}

fn all<W: HasMemory, E: AnyEndpoint<Platform = Opaque<W>>>(end: &E) {
    sink((end.max_instances(), end.identity(), core::ptr::from_ref(end.platform())));
    sink(end.send_typed(instance(), &Value(any())));
    sink(end.send_blocking(instance(), MessageType(any()), bytes(), deadline()));
    for info in end.peers() {
        sink((info.id, info.state.ended()));
    }
    sink(end.peer(instance()).map(|info| PeerState::ended(info.state)));
    waiters(end);
    poll(&mut end.send_async(black_box(&WAITERS), instance(), MessageType(any()), bytes()));
    if let Some(plan) = plan(&configs()) {
        sink(plan.check(end));
        sink(end.bring_up_host(&plan).is_ok());
    }
    sink(end.bring_up_spawned(bytes(), deadline(), |id, e| sink((id, e))).is_ok());
}

fn waiters<E: AnyEndpoint>(end: &E) {
    if let (Some(ours), Some(breach)) = (Incarnation::new(any()), Breach::from_word(any())) {
        let event = match any::<u8>() {
            0 => PeerEvent::Space,
            1 => PeerEvent::Refused(breach),
            2 => PeerEvent::InDoubt { number: any() },
            _ => PeerEvent::Dead(ours),
        };
        WAITERS.peer_event(&Peer { id: instance(), theirs: None, ours }, &event);
    }
    WAITERS.wake(instance());
    sink((WAITERS.waiting(), end.identity(), Waiters::<2>::new().waiting()));
}

fn poll<F: Future + Unpin>(future: &mut F) {
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..3 {
        sink(Pin::new(&mut *future).poll(&mut context).is_ready());
    }
}

fn inbox<const MESSAGES: usize, const WORDS: usize>(inbox: &'static Inbox<MESSAGES, WORDS>) {
    sink((inbox.lost(), inbox.too_long(), Inbox::<2, 3>::new().lost()));
    let Some(mut receiver) = inbox.receiver() else { return };
    sink(receiver.try_receive().map(|message| received(&message)));
    poll(&mut receiver.receive());
}

fn received<const WORDS: usize>(message: &Received<WORDS>) {
    sink((message.sender(), message.sender_incarnation(), message.number(), message.msg_type()));
    sink((message.payload().len(), message.read::<u64>(), message.read::<[u8; 13]>()));
}

/// The configs of two instances, with any values.
fn configs() -> Option<[InstanceConfig<'static>; 2]> {
    let config = || {
        Some(InstanceConfig {
            id: instance(),
            incarnation: Incarnation::new(any())?,
            cpus: cpus(),
            doorbell_cpu: PhysCpuId(any()),
            vector: vector()?,
            link: crate::native::link(),
            one_doorbell: maybe(),
        })
    };
    Some([config()?, InstanceConfig { link: crate::endpoint::slots(), ..config()? }])
}

fn plan<'a>(configs: &'a Option<[InstanceConfig<'a>; 2]>) -> Option<HostPlan<'a>> {
    Some(HostPlan {
        directory: range()?,
        max_instances: any(),
        cpus_per_instance: any(),
        boot_cpu: option(PhysCpuId(any())),
        me: instance(),
        instances: black_box(configs.as_ref()?),
    })
}
