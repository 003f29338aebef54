// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads our lanes: in runs of deferred work, and by a poller, which keeps the right to read them (SPEC N-10, N-13).

use super::base::{Cpu, Endpoint, Instance, OnUnwind};
use crate::message::Message;
use crate::native::{Events, Hold, OwnRegion};
use crate::platform::{Peer, PeerEvent, Platform};
use crate::published::Ref;
use crate::registry::{Handler, Recent};
use crate::stats::Count;
use crate::sync::spin_hint;
use mk_ipi_abi::InstanceId;

/// Number of calls of `spin_hint` between two polls. They take 50 to 100 ns on most processors. A receiver that polls more often
/// takes the cache line away from the sender while the sender writes it.
const PAUSES: usize = 4;

/// The result of a run of the deferred work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deferred {
    /// Number of messages given to handlers.
    pub messages: usize,
    /// Whether messages may be left, for example because the budget was used up. [`Endpoint::run_deferred`] has then scheduled
    /// another run.
    pub more: bool,
}

impl Deferred {
    pub(super) const NOTHING: Self = Self { messages: 0, more: false };
}

/// The state of one pass over the lanes.
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
    /// Whether this `Run` has marked the CPU as running callbacks.
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
    /// Marks this CPU as running callbacks until the end of the pass.
    #[inline(always)]
    fn begin_calling(&mut self) {
        if !core::mem::replace(&mut self.calling, true) {
            self.cpu.enter_callback();
        }
    }

    /// Ends the pass: removes the mark, and counts the messages.
    #[inline(always)]
    fn end_calling(&mut self) {
        if !core::mem::take(&mut self.calling) {
            return;
        }
        let cpu = self.cpu;
        cpu.leave_callback();
        let [handled, unhandled] =
            [&mut self.handled, &mut self.unhandled].map(|n| core::mem::take(n) as u64);
        // Only the CPU that holds the lanes changes these counters, and only one CPU holds them at a time.
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
        // If this fails, the peer finds what we have stored for it in its next send or `tick`.
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
    /// Schedules the deferred work after a doorbell or in a poll. It takes bounded time, because only the deferred work reads the
    /// lanes.
    pub(super) fn wake(&self, own: &OwnRegion<P::Word>) {
        self.check_stop_word(own);
        self.platform.schedule();
    }

    /// Calls the platform's `stop` if the host has told this kernel to stop.
    fn check_stop_word(&self, own: &OwnRegion<P::Word>) {
        if self.identity().is_some_and(|(_, incarnation)| own.is_stopped(incarnation)) {
            self.platform.stop();
        }
    }

    /// Reads our lanes, and delivers at most `QUEUE` messages. With `arm`, requests doorbells again when no message is left.
    pub(super) fn run_lanes(&self, cpu: &Cpu<QUEUE>, own: &OwnRegion<P::Word>, arm: bool) -> Deferred {
        // If a handler unwinds, this is dropped last. So the run that it schedules can hold the lanes.
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
        // `refused`: another CPU found the lanes held meanwhile. We schedule a run in its place. That run requests doorbells
        // again.
        let refused = hold.release();
        self.maintain_lanes();
        if refused || (left && arm) {
            self.schedule();
        }
        Deferred { messages, more: left || refused }
    }

    /// The exclusive right to read our lanes, for a CPU that polls constantly. `None` if this kernel has no native region, if
    /// another CPU or a run of deferred work holds the right, or if the index of this CPU is not below `CPUS`.
    ///
    /// While it exists, senders do not ring, and deferred work does not read the lanes. When it is dropped, the deferred work is
    /// scheduled, and requests doorbells again. A poller must stay on its CPU. While it exists, our own instance cannot be
    /// destroyed. No handler can be unregistered on its CPU, because the poller may keep a reference to it.
    pub fn poller(&self) -> Option<Poller<'_, P, H, CPUS, HANDLERS, QUEUE, INSTANCES>> {
        let (cpu, own) = (self.cpu()?, self.own()?);
        let region: *const OwnRegion<P::Word> = own.link.own_region()?;
        // SAFETY: the region is a part of the instance, which neither moves nor ends while `own` exists. The poller keeps `own`,
        // and uses the region only within its calls.
        let region = unsafe { &*region };
        let hold = self.receiver.hold()?;
        region.disarm();
        cpu.enter_callback();
        Some(Poller { run: Run::new(self, cpu), region, hold, _ends: Ends(self, cpu), _own: own })
    }
}

/// The exclusive right to read a kernel's lanes ([`Endpoint::poller`]).
pub struct Poller<
    'a,
    P: Platform,
    H: Handler,
    const CPUS: usize,
    const HANDLERS: usize,
    const QUEUE: usize,
    const INSTANCES: usize = 256,
> {
    // The fields are dropped in this order: the callbacks end, the lanes are released, and then the deferred work is scheduled.
    run: Run<'a, P, H, CPUS, HANDLERS, QUEUE, INSTANCES>,
    hold: Hold<'a, INSTANCES>,
    /// The native region of `_own`. It is looked up only once, when the poller is made.
    region: &'a OwnRegion<P::Word>,
    _ends: Ends<'a, P, H, CPUS, HANDLERS, QUEUE, INSTANCES>,
    _own: Ref<'a, Instance<P>>,
}

/// Schedules the deferred work when a poller ends. The deferred work requests doorbells again. Until then senders do not ring.
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
    /// Delivers new messages. Returns the number of messages and of other events of peers.
    ///
    /// Each call reads the lane that had a message last. Every 4th call also reads the other lanes that had a message or a hello
    /// recently, if there are any. Usually every 128th call, and at least one of 384 calls, reads all lanes and the stop word.
    /// That call also does the pending work of our own lanes: answers, space, flushes.
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

    /// Polls until a poll finds a message or an event, at most `looks` times, with a pause after each poll that finds nothing.
    /// Returns the same as [`poll`](Self::poll).
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
