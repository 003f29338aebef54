// SPDX-License-Identifier: MIT OR Apache-2.0
//! This kernel among the others: its number, how many there are, and how it waits for them.

use crate::clock::Watchdog;
use crate::control::control;
use crate::hand_over;
use crate::options::Options;
use crate::platform::ENDPOINT;
use mk_ipi_abi::InstanceId;
use mk_ipi_core::sync::spin_hint;
use mk_ipi_core::{Followed, JoinError};

/// Step at which a kernel takes messages.
pub const READY: u32 = 1;
/// Step at which a kernel has finished everything, and has given its verdict.
pub const DONE: u32 = 1000;
/// Seconds without progress of any kernel, after which a wait is given up.
const PATIENCE: u64 = 10;
/// Turns that a wait spins before it sleeps: a peer on a CPU of its own often answers at once.
const SPINS: u32 = 100;

/// This kernel among the others. Ids are 0 (the host), 1, 2, ... without gaps.
pub struct Node {
    /// This kernel.
    pub me: usize,
    /// How many kernels there are.
    pub kernels: usize,
    /// What this kernel was told to do.
    pub options: Options,
}

/// The instance that kernel `k` is. The memory map has room for far fewer than 256.
pub fn instance(k: usize) -> InstanceId {
    InstanceId::new(k as u8)
}

/// Follows the directory. This costs one load if there is nothing new. Returns the generation that was followed, or
/// `None` if it must be tried again.
pub fn follow() -> Option<u32> {
    let directory = ENDPOINT.platform().directory()?;
    if hand_over::is_stale() {
        return Some(directory.generation());
    }
    let followed = ENDPOINT.follow(directory, |id, what| match what {
        Followed::Changed => log!("kernel {}: the directory says something new", id.get()),
        // All are listed before the first one runs, and keep their regions.
        what => fatal!("kernel {}: {what:?}", id.get()),
    });
    match followed {
        Ok(generation) => Some(generation),
        Err(JoinError::Changing(_) | JoinError::Ringing | JoinError::Busy) => None,
        Err(e) => fatal!("the directory cannot be followed: {e:?}"),
    }
}

impl Node {
    /// Returns whether kernel `k` is the one that is killed again and again.
    pub fn is_victim(&self, k: usize) -> bool {
        self.options.kills.is_some_and(|kills| usize::from(kills.kernel) == k)
    }

    /// The other kernels.
    pub fn others(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.kernels).filter(|&k| k != self.me)
    }

    /// Says that this kernel is now at `step`.
    pub fn reach(&self, step: u32) {
        control().set_step(self.me, step);
    }

    /// Says how much this kernel has done, so that no other kernel takes it for hung.
    pub fn progress(&self, done: u64) {
        control().set_progress(self.me, done);
    }

    /// Calls `step` over and over until it returns that the wait is over. Gives up when no kernel makes progress.
    pub fn wait(&self, what: &str, mut step: impl FnMut() -> bool) {
        let mut watchdog = Watchdog::new(PATIENCE);
        loop {
            for _ in 0..SPINS {
                if step() {
                    return;
                }
                spin_hint();
            }
            if watchdog.stalled(control().progress(self.kernels)) {
                let last = (0..self.kernels).min_by_key(|&k| control().step(k)).unwrap_or(self.me);
                fatal!("waited too long: {what}; kernel {last} is last, at step {}", control().step(last));
            }
            let runs = ENDPOINT.platform().runs();
            if step() {
                return;
            }
            ENDPOINT.platform().sleep(runs);
        }
    }

    /// Waits until all kernels have come to `step`. Runs `meanwhile` over and over until then.
    pub fn wait_for_all(&self, step: u32, what: &str, mut meanwhile: impl FnMut()) {
        self.wait(what, || {
            meanwhile();
            (0..self.kernels).all(|k| control().step(k) >= step)
        });
    }
}
