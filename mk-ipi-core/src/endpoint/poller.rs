// SPDX-License-Identifier: MIT OR Apache-2.0
//! Looking at our lanes: a run of deferred work that ends, and a poller that stays (SPEC N-10, N-13).

use super::base::{Cpu, Endpoint, Instance, OnUnwind};
use crate::message::Message;
use crate::native::{Events, Hold, OwnRegion};
use crate::platform::{Peer, PeerEvent, Platform};
use crate::published::Ref;
use crate::registry::{Handler, Recent};
use crate::stats::Count;
use crate::sync::spin_hint;
use mk_ipi_abi::InstanceId;

/// Turns of `spin_hint` between two looks: 50 to 100 ns on most processors. A receiver that looks more often takes the line from
/// the sender while that is writing it.
const PAUSES: usize = 4;

/// What is left after a run of the deferred work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deferred {
    /// Messages that were given to handlers.
    pub messages: usize,
    /// Whether the budget ended the run; it was scheduled again.
    pub more: bool,
}

impl Deferred {
    pub(super) const NOTHING: Self = Self { messages: 0, more: false };
}

/// What a look works with.
struct Run<
    'a,
    P: Platform,
    H,
    const CPUS: usize,
    const HANDLERS: usize,
    const QUEUE: usize,
    const INSTANCES: usize,
> {
    endpoint: &'a Endpoint<P, H, CPUS, HANDLERS, QUEUE, INSTANCES>,
    cpu: &'a Cpu<QUEUE>,
    recent: Recent<'a, H>,
    handled: usize,
    unhandled: usize,
    /// Whether the CPU is marked as inside callbacks.
    calling: bool,
}

impl<
        'a,
        P: Platform,
        H: Handler,
        const CPUS: usize,
        const HANDLERS: usize,
        const QUEUE: usize,
        const INSTANCES: usize,
    > Run<'a, P, H, CPUS, HANDLERS, QUEUE, INSTANCES>
{
    fn new(endpoint: &'a Endpoint<P, H, CPUS, HANDLERS, QUEUE, INSTANCES>, cpu: &'a Cpu<QUEUE>) -> Self {
        Self { endpoint, cpu, recent: Recent::NONE, handled: 0, unhandled: 0, calling: false }
    }
}

impl<
        P: Platform,
        H,
        const CPUS: usize,
        const HANDLERS: usize,
        const QUEUE: usize,
        const INSTANCES: usize,
    > Run<'_, P, H, CPUS, HANDLERS, QUEUE, INSTANCES>
{
    /// Callbacks begin, and last until the end of this look.
    #[inline(always)]
    fn begin_calling(&mut self) {
        if !core::mem::replace(&mut self.calling, true) {
            self.cpu.enter_callback();
        }
    }

    /// The look is over: callbacks end, and are counted.
    #[inline(always)]
    fn end_calling(&mut self) {
        if !core::mem::take(&mut self.calling) {
            return;
        }
        let cpu = self.cpu;
        cpu.leave_callback();
        let [handled, unhandled] =
            [&mut self.handled, &mut self.unhandled].map(|n| core::mem::take(n) as u64);
        // Whoever looks counts these, and one does at a time.
        cpu.counters.add_alone(Count::Received, handled.wrapping_add(unhandled));
        cpu.counters.add_alone(Count::Handled, handled);
        if unhandled != 0 {
            cpu.counters.add_alone(Count::Unhandled, unhandled);
        }
    }
}

impl<
        P: Platform,
        H,
        const CPUS: usize,
        const HANDLERS: usize,
        const QUEUE: usize,
        const INSTANCES: usize,
    > Drop for Run<'_, P, H, CPUS, HANDLERS, QUEUE, INSTANCES>
{
    fn drop(&mut self) {
        self.end_calling();
    }
}

impl<
        P: Platform,
        H: Handler,
        const CPUS: usize,
        const HANDLERS: usize,
        const QUEUE: usize,
        const INSTANCES: usize,
    > Events for Run<'_, P, H, CPUS, HANDLERS, QUEUE, INSTANCES>
{
    fn version(&self) -> u32 {
        self.endpoint.instances.version()
    }

    fn knows(&self, id: InstanceId) -> bool {
        self.endpoint.instances.get(id).is_ok()
    }

    #[inline(always)]
    fn deliver(&mut self, message: &Message<'_>) {
        self.begin_calling();
        let called = self.endpoint.registry.dispatch_recent(&mut self.recent, message);
        if called != 0 {
            self.handled = self.handled.wrapping_add(1);
        } else {
            self.unhandled = self.unhandled.wrapping_add(1);
            self.endpoint.platform.unhandled(message);
        }
    }

    fn ring(&self, id: InstanceId) {
        // A peer that cannot be rung finds out by itself when it tries again.
        let _ = self.endpoint.ring(id);
    }

    fn event(&mut self, peer: Peer, event: PeerEvent) {
        self.begin_calling();
        if let PeerEvent::Quarantined(_) = event {
            self.cpu.counters.count(Count::Quarantined);
        }
        self.endpoint.platform.peer_event(peer, event);
    }
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
    /// A doorbell rang, or somebody wants to be sure. Bounded: the deferred work looks.
    pub(super) fn wake(&self, own: &OwnRegion<P::Word>) {
        self.check_stop_word(own);
        self.platform.schedule();
    }

    /// Stops, if the host says so.
    fn check_stop_word(&self, own: &OwnRegion<P::Word>) {
        if self.identity().is_some_and(|(_, incarnation)| own.is_stopped(incarnation)) {
            self.platform.stop();
        }
    }

    /// Looks at our lanes, and hands out `QUEUE` messages at most.
    pub(super) fn run_lanes(&self, cpu: &Cpu<QUEUE>, own: &OwnRegion<P::Word>, arm: bool) -> Deferred {
        // Dropped last: whoever looks then can hold the lanes.
        let unwound = OnUnwind(|| self.schedule());
        let Some(mut hold) = self.receiver.hold() else {
            unwound.defuse();
            return Deferred::NOTHING;
        };
        let mut run = Run::new(self, cpu);
        let left = hold.drain(own, &mut run, QUEUE, arm);
        unwound.defuse();
        let messages = run.handled.wrapping_add(run.unhandled);
        drop(run);
        // Who was refused meanwhile has left us a run that arms.
        let refused = hold.release();
        self.maintain_lanes();
        if refused || (left && arm) {
            self.schedule();
        }
        Deferred { messages, more: left || refused }
    }

    /// The right to look at our lanes, kept over many looks: for a CPU that polls. `None` if we have no native region, or
    /// another one holds it.
    ///
    /// While it exists no sender is asked to ring, and deferred work finds the lanes held. When it is dropped, the deferred work
    /// is scheduled, and asks for doorbells again. It stays on its CPU. While it
    /// exists our own instance cannot be destroyed, and on its CPU no handler can be unregistered: it may be keeping it.
    pub fn poller(&self) -> Option<Poller<'_, P, H, CPUS, HANDLERS, QUEUE, INSTANCES>> {
        let (cpu, own) = (self.cpu()?, self.own()?);
        let region: *const OwnRegion<P::Word> = own.link.own_region()?;
        // SAFETY: it is a part of the instance, which neither moves nor ends while `own` exists; the poller keeps that, and lends
        // the region to nobody beyond a call.
        let region = unsafe { &*region };
        let hold = self.receiver.hold()?;
        region.disarm();
        cpu.enter_callback();
        Some(Poller { run: Run::new(self, cpu), region, hold, _ends: Ends(self, cpu), _own: own })
    }
}

/// The right to look at a kernel's lanes ([`Endpoint::poller`]).
pub struct Poller<
    'a,
    P: Platform,
    H: Handler,
    const CPUS: usize,
    const HANDLERS: usize,
    const QUEUE: usize,
    const INSTANCES: usize = 256,
> {
    // Dropped in this order: callbacks end, the lanes are given up, and then the deferred work is scheduled.
    run: Run<'a, P, H, CPUS, HANDLERS, QUEUE, INSTANCES>,
    hold: Hold<'a, INSTANCES>,
    /// A part of `_own`, found once for all looks.
    region: &'a OwnRegion<P::Word>,
    _ends: Ends<'a, P, H, CPUS, HANDLERS, QUEUE, INSTANCES>,
    _own: Ref<'a, Instance<P>>,
}

/// A poller that ends: nobody is asked to ring then, and the deferred work asks.
struct Ends<
    'a,
    P: Platform,
    H: Handler,
    const CPUS: usize,
    const HANDLERS: usize,
    const QUEUE: usize,
    const INSTANCES: usize,
>(&'a Endpoint<P, H, CPUS, HANDLERS, QUEUE, INSTANCES>, &'a Cpu<QUEUE>);

impl<
        P: Platform,
        H: Handler,
        const CPUS: usize,
        const HANDLERS: usize,
        const QUEUE: usize,
        const INSTANCES: usize,
    > Drop for Ends<'_, P, H, CPUS, HANDLERS, QUEUE, INSTANCES>
{
    fn drop(&mut self) {
        self.1.leave_callback();
        self.0.schedule();
    }
}

impl<
        P: Platform,
        H: Handler,
        const CPUS: usize,
        const HANDLERS: usize,
        const QUEUE: usize,
        const INSTANCES: usize,
    > Poller<'_, P, H, CPUS, HANDLERS, QUEUE, INSTANCES>
{
    /// Hands out what has come; how many messages that was, or other news of peers.
    ///
    /// Looks at the lane that spoke last. Every 4th call looks at all that had something lately, every 128th at all, at the stop
    /// word, and at what our own lanes wait for: answers, space, flushes.
    #[inline]
    pub fn poll(&mut self) -> usize {
        self.run.endpoint.registry.freshen(&mut self.run.recent);
        if self.hold.finds_nothing(self.region) {
            return 0;
        }
        self.look()
    }

    #[inline(never)]
    fn look(&mut self) -> usize {
        let Self { run, region, hold, .. } = self;
        let (found, all) = hold.poll(region, run);
        run.end_calling();
        if all {
            run.endpoint.check_stop_word(region);
            run.endpoint.maintain_lanes();
        }
        found
    }

    /// Polls until something has come, `looks` times at most, with a pause behind each look at nothing; as [`poll`](Self::poll).
    #[inline]
    pub fn wait(&mut self, looks: usize) -> usize {
        for _ in 0..looks {
            match self.poll() {
                0 => (0..PAUSES).for_each(|_| spin_hint()),
                found => return found,
            }
        }
        0
    }
}

impl<
        P: Platform,
        H: Handler,
        const CPUS: usize,
        const HANDLERS: usize,
        const QUEUE: usize,
        const INSTANCES: usize,
    > core::fmt::Debug for Poller<'_, P, H, CPUS, HANDLERS, QUEUE, INSTANCES>
{
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Poller")
    }
}
