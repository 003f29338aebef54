// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cost of one message to a receiver that waits for a doorbell and has many idle peers: the time, and the accesses to shared
//! memory.
//!
//! One thread sends to its own kernel, calls the interrupt handler and runs the deferred work. So no cache line moves between
//! CPUs. The difference between few and many peers is only the work that the peers cause.

use std::time::Instant;

use anyhow::{ensure, Context, Result};
use mk_ipi_core::abi::native::{Geometry, MAX_LANES, MIN_LINES};
use mk_ipi_core::abi::{InstanceId, PAGE_SIZE};
use mk_ipi_core::sync::{AtomicU64, Ordering, Word};
use mk_ipi_core::{Handler, Message};
use serde::Serialize;

use super::host::{self, Kernel, Memory, Zero, NUMBERED};
use crate::pair::nanos_each;
use crate::stats::Quartiles;

/// The numbers of idle peers that are measured.
const IDLE: [u8; 3] = [1, 16, 255];
/// How many wake-ups are timed together.
const TOGETHER: u64 = 16;

/// The cost of a wake-up with this number of idle peers.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct WakeUp {
    /// How many peers are idle. Each of them has attached and has sent one message, and has done nothing since.
    pub idle_peers: u8,
    /// The time from the send to the end of the deferred work.
    pub nanos: Quartiles,
    /// The accesses to shared memory in one wake-up. They are counted in other wake-ups than the timed ones, because counting
    /// takes time.
    pub accesses: Accesses,
}

/// Average numbers of accesses to shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Accesses {
    /// Words read.
    pub loads: f64,
    /// Words written.
    pub stores: f64,
    /// Words compared and exchanged.
    pub exchanges: f64,
}

/// Measures the cost for each number of idle peers. `samples` is the number of groups of [`TOGETHER`] wake-ups that are timed.
pub fn wake_up(samples: u64) -> Result<Vec<WakeUp>> {
    let one = |idle_peers| {
        let timed = Sleeper::<AtomicU64>::with_idle(idle_peers)?;
        let time = |_| {
            let start = Instant::now();
            (0..TOGETHER).try_for_each(|_| timed.wake())?;
            Ok(nanos_each(start, TOGETHER))
        };
        let nanos = (0..samples).map(time).collect::<Result<Vec<_>>>()?;
        let nanos = Quartiles::of(nanos).context("no sample")?;
        Ok(WakeUp { idle_peers, nanos, accesses: accesses(idle_peers)? })
    };
    IDLE.into_iter().map(one).collect()
}

/// A handler that does nothing.
struct Ignore;

impl Handler for Ignore {
    fn handle(&self, _: &Message<'_>) {}
}

/// A kernel that waits for a doorbell, and rings this doorbell itself.
struct Sleeper<W: Zero> {
    kernel: Box<Kernel<W, Ignore, 1>>,
    me: InstanceId,
}

impl<W: Zero> Sleeper<W> {
    const ME: u8 = 0;

    /// Makes such a kernel with this number of peers. Each peer has sent one message.
    fn with_idle(peers: u8) -> Result<Self> {
        let geometry = Geometry::default_for(MAX_LANES)
            .context("there is no default geometry for this number of lanes")?;
        // The region of peer `id` has only the lanes 0 to `id`: lane `id` is the peer's own. The lanes are as short as possible.
        let of_peer = |id: u8| {
            Geometry::new(u32::from(id) + 1, MIN_LINES, 48).context("the geometry of a peer is not valid")
        };
        let most = of_peer(peers)?.total_size().next_multiple_of(PAGE_SIZE);
        let memory = Memory::new(geometry.total_size().next_multiple_of(PAGE_SIZE) + u64::from(peers) * most);
        let kernel = host::kernel(&memory, Self::ME, Ignore);
        let region = host::create(&kernel, Self::ME, geometry);
        let sleeper = Self { kernel, me: InstanceId::new(Self::ME) };
        for id in 1..=peers {
            let peer: Box<Kernel<W, Ignore, 1>> = host::kernel(&memory, id, Ignore);
            host::attach(&sleeper.kernel, id, host::create(&peer, id, of_peer(id)?));
            host::attach(&peer, Self::ME, region);
            peer.send(sleeper.me, NUMBERED, &[id]).ok().context("a peer could not send")?;
            ensure!(sleeper.kernel.run_deferred().messages == 1, "a peer's message was not handled");
        }
        // Some work is done only once, for example the last hellos and the answers to them. These wake-ups do it, so that the
        // measured ones do not.
        (0..64).try_for_each(|_| sleeper.wake())?;
        Ok(sleeper)
    }

    /// Sends one message to the own kernel, and receives it.
    fn wake(&self) -> Result<()> {
        let rung = self.kernel.platform().rung();
        self.kernel.send(self.me, NUMBERED, &[0; 48]).ok().context("the message was not sent")?;
        ensure!(self.kernel.platform().rung() == rung + 1, "the send did not ring exactly one doorbell");
        self.kernel.on_interrupt();
        ensure!(self.kernel.run_deferred().messages == 1, "the message was not handled");
        Ok(())
    }
}

/// A word that counts the accesses to all words of this type.
#[repr(transparent)]
struct Counting(AtomicU64);

static LOADS: AtomicU64 = AtomicU64::new(0);
static STORES: AtomicU64 = AtomicU64::new(0);
static EXCHANGES: AtomicU64 = AtomicU64::new(0);

impl Zero for Counting {
    fn zero() -> Self {
        Self(AtomicU64::new(0))
    }
}

impl Word for Counting {
    fn load(&self, order: Ordering) -> u64 {
        LOADS.fetch_add(1, Ordering::Relaxed);
        self.0.load(order)
    }
    fn store(&self, value: u64, order: Ordering) {
        STORES.fetch_add(1, Ordering::Relaxed);
        self.0.store(value, order);
    }
    fn compare_exchange(&self, current: u64, new: u64, order: Ordering) -> Result<u64, u64> {
        EXCHANGES.fetch_add(1, Ordering::Relaxed);
        Word::compare_exchange(&self.0, current, new, order)
    }
}

fn accesses(idle: u8) -> Result<Accesses> {
    /// Enough wake-ups that the average includes work that is not done in each of them.
    const WAKE_UPS: u64 = 4096;
    let sleeper = Sleeper::<Counting>::with_idle(idle)?;
    let counters = [&LOADS, &STORES, &EXCHANGES];
    let now = || counters.map(|counter| counter.load(Ordering::Relaxed));
    let before = now();
    (0..WAKE_UPS).try_for_each(|_| sleeper.wake())?;
    let after = now();
    let each = |at: usize| (after[at] - before[at]) as f64 / WAKE_UPS as f64;
    Ok(Accesses { loads: each(0), stores: each(1), exchanges: each(2) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleeper_is_woken_by_one_message_and_what_that_takes_is_counted() {
        let accesses = accesses(1).expect("a wake-up");
        assert!(accesses.loads >= 1.0 && accesses.stores >= 1.0, "{accesses:?}");
    }
}
