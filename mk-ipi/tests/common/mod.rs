// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two kernels with a native lane to each other, on the simulated machine of `mk-ipi-mock`.
#![allow(dead_code, reason = "not every test file uses every item")]

use mk_ipi::abi::native::Geometry;
use mk_ipi::abi::{Incarnation, InstanceId, MessageType, PhysRange, Vector};
use mk_ipi::asynchronous::Waiters;
use mk_ipi::platform::{Peer, PeerEvent};
use mk_ipi::typed::DynHandler;
use mk_ipi::Endpoint;
use mk_ipi_mock::{Machine, MockPlatform, Mode};
use std::sync::{Arc, Mutex};

pub type End = Endpoint<MockPlatform, DynHandler>;
/// A function that is called with each event of a peer.
type OnEvent = Arc<Mutex<Box<dyn FnMut(&Peer, &PeerEvent) + Send>>>;

pub const A: InstanceId = InstanceId::new(0);
pub const B: InstanceId = InstanceId::new(1);
pub const TYPE: MessageType = MessageType(7);
pub const FIRST: Incarnation = Incarnation::FIRST;
pub const SECOND: Incarnation = FIRST.next();
/// The number of lines of each lane. It is also the number of short messages for which a lane has space.
pub const LINES: u64 = 8;

/// Allocates `value` for ever.
pub fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// Makes an endpoint, and connects the doorbell's vector and the deferred work to it. The deferred work passes the events of
/// peers to `on_event`. The endpoint has no identity yet.
pub fn end(kernel: &MockPlatform, on_event: impl FnMut(&Peer, &PeerEvent) + Send + 'static) -> &'static End {
    let end = leak(End::new(kernel.clone()));
    let on_event: OnEvent = Arc::new(Mutex::new(Box::new(on_event)));
    kernel.set_vector(Vector::RFC_V2, || end.on_interrupt());
    kernel.set_deferred(move || {
        end.run_deferred();
        for (peer, event) in end.platform().peer_news() {
            (*on_event.lock().unwrap())(&peer, &event);
        }
    });
    end
}

/// The two kernels.
pub struct Pair {
    pub machine: Machine,
    pub a: &'static End,
    pub b: &'static End,
    regions: [PhysRange; 2],
}

impl Pair {
    /// Makes both kernels, in their first life. The events of A are passed to `waiters`.
    pub fn new(mode: Mode, waiters: &'static Waiters<2>) -> Self {
        let machine = Machine::builder().kernel(&[0]).kernel(&[4]).mode(mode).build();
        let geometry = Geometry::new(2, LINES as u32, 256).unwrap();
        let regions = [(); 2].map(|()| machine.native_region(geometry));
        let a = end(&machine.kernel(0), |peer, event| waiters.peer_event(peer, event));
        let b = end(&machine.kernel(1), |_, _| ());
        let pair = Self { machine, a, b, regions };
        pair.begin(a, A, FIRST);
        pair.begin(b, B, FIRST);
        // After this, each kernel has answered the other one.
        (0..3).for_each(|_| pair.settle());
        pair
    }

    /// Makes both kernels. They run only when the test calls them.
    pub fn by_hand(waiters: &'static Waiters<2>) -> Self {
        Self::new(Mode::Stepped { seed: 0 }, waiters)
    }

    /// Begins a life of a kernel, and attaches both instances.
    fn begin(&self, end: &End, me: InstanceId, life: Incarnation) {
        end.identify(me, life);
        for (id, region) in [A, B].into_iter().zip(self.regions) {
            let kernel = self.machine.kernel(id.index());
            end.attach_instance(&kernel.native_config(id, FIRST), Some(region)).unwrap();
        }
    }

    /// Runs the deferred work of both kernels, first of B and then of A.
    pub fn settle(&self) {
        self.b.run_deferred();
        self.a.run_deferred();
    }

    /// Begins the second life of B. The first one must have ended.
    pub fn next_life_of_b(&mut self) {
        self.b = end(&self.machine.kernel(1), |_, _| ());
        self.begin(self.b, B, SECOND);
    }

    /// Fills A's lane to B. Returns the number of messages, which is [`LINES`].
    pub fn fill(&self) -> u64 {
        let mut sent = 0;
        while self.a.send(B, TYPE, &[0]).is_ok() {
            sent += 1;
        }
        assert_eq!(sent, LINES);
        sent
    }
}

/// Makes a clock that advances by 1 at each read. It then calls `at` with the time.
pub fn clock(mut at: impl FnMut(u64)) -> impl FnMut() -> u64 {
    let mut now = 0;
    move || {
        now += 1;
        at(now);
        now
    }
}
