// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cost of one message to a receiver that sleeps and has many idle peers: the time, and the accesses to shared memory.
//!
//! A kernel sends to itself, takes the interrupt and runs the deferred work, all in one thread. So no cache line moves between
//! CPUs, and the cost that grows with the number of peers is work.

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

/// The numbers of idle peers.
const IDLE: [u8; 3] = [1, 16, 255];
/// How many wake-ups are timed together.
const TOGETHER: u64 = 16;

/// A wake-up with so many idle peers.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct WakeUp {
    /// How many peers are idle. Each has attached and sent one message, and nothing since.
    pub idle_peers: u8,
    /// The time from the send to the end of the deferred work.
    pub nanos: Quartiles,
    /// The accesses to shared memory in that time.
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

/// Measures with each number of idle peers. Times `samples` groups of wake-ups.
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

/// A handler that has nothing to do.
struct Ignore;

impl Handler for Ignore {
    fn handle(&self, _: &Message<'_>) {}
}

/// A kernel that sleeps until it rings itself.
struct Sleeper<W: Zero> {
    kernel: Box<Kernel<W, Ignore, 1>>,
    me: InstanceId,
}

impl<W: Zero> Sleeper<W> {
    const ME: u8 = 0;

    /// Makes a sleeper with so many peers. Each of them has sent one message.
    fn with_idle(peers: u8) -> Result<Self> {
        let geometry = Geometry::default_for(MAX_LANES).context("as many lanes as there can be")?;
        // A peer's region has only the lanes up to its own. They are as short as possible.
        let of_peer = |id: u8| Geometry::new(u32::from(id) + 1, MIN_LINES, 48).context("few lanes");
        let most = of_peer(peers)?.total_size().next_multiple_of(PAGE_SIZE);
        let memory = Memory::new(geometry.total_size().next_multiple_of(PAGE_SIZE) + u64::from(peers) * most);
        let kernel = host::kernel(&memory, Self::ME, Ignore);
        let region = host::create(&kernel, Self::ME, geometry);
        let sleeper = Self { kernel, me: InstanceId::new(Self::ME) };
        for id in 1..=peers {
            let peer: Box<Kernel<W, Ignore, 1>> = host::kernel(&memory, id, Ignore);
            host::attach(&sleeper.kernel, id, host::create(&peer, id, of_peer(id)?));
            host::attach(&peer, Self::ME, region);
            peer.send(sleeper.me, NUMBERED, &[id]).ok().context("a peer's lane is not open")?;
            ensure!(sleeper.kernel.run_deferred().messages == 1, "a peer's message was not handled");
        }
        // These wake-ups take the last hellos, answers and other work that is done only once.
        (0..64).try_for_each(|_| sleeper.wake())?;
        Ok(sleeper)
    }

    fn wake(&self) -> Result<()> {
        let rung = self.kernel.platform().rung();
        self.kernel.send(self.me, NUMBERED, &[0; 48]).ok().context("not sent")?;
        ensure!(self.kernel.platform().rung() == rung + 1, "the sleeper was not rung");
        self.kernel.on_interrupt();
        ensure!(self.kernel.run_deferred().messages == 1, "the message was not handled");
        Ok(())
    }
}

/// A word that counts the accesses to it.
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
    /// So many that the average includes work that is done only sometimes.
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
