// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a kernel knows about the set of kernels: its own number, the number of kernels, and how to wait for the others.

use crate::clock::Watchdog;
use crate::control::control;
use crate::hand_over;
use crate::options::Options;
use crate::platform::ENDPOINT;
use mk_ipi_abi::InstanceId;
use mk_ipi_core::sync::spin_hint;
use mk_ipi_core::{Followed, JoinError};

/// The step at which a kernel takes messages.
pub const READY: u32 = 1;
/// The step at which a kernel has finished everything and has set its result.
pub const DONE: u32 = 1000;
/// A wait ends with an error if no kernel makes progress for this number of seconds.
const PATIENCE: u64 = 10;
/// The number of checks that a wait makes before it sleeps. Peers run on their own CPUs, so they often answer soon.
const SPINS: u32 = 100;

/// This kernel, and the set of kernels. Their numbers are 0 (the host), 1, 2, ... without gaps.
pub struct Node {
    /// This kernel's number.
    pub me: usize,
    /// The number of kernels.
    pub kernels: usize,
    /// The options in this kernel's command line.
    pub options: Options,
}

/// The instance id of kernel `k`. It fits into 8 bits, because the memory map has room for only 16 kernels.
pub fn instance(k: usize) -> InstanceId {
    InstanceId::new(k as u8)
}

/// Updates the endpoint from the directory. If the directory has not changed, this costs one load. Returns the generation
/// that was read. `None` means that the caller must try again later.
pub fn follow() -> Option<u32> {
    let directory = ENDPOINT.platform().directory()?;
    if hand_over::is_stale() {
        return Some(directory.generation());
    }
    let followed = ENDPOINT.follow(directory, |id, what| match what {
        Followed::Changed => log!("kernel {}: its directory entry has changed", id.get()),
        // Nothing else can happen: all kernels are listed before the first one joins, and keep their regions.
        what => fatal!("kernel {}: {what:?}", id.get()),
    });
    match followed {
        Ok(generation) => Some(generation),
        Err(JoinError::Changing(_) | JoinError::Ringing | JoinError::Busy) => None,
        Err(e) => fatal!("the directory cannot be followed: {e:?}"),
    }
}

impl Node {
    /// Returns whether kernel `k` is the one that the host kills.
    pub fn is_victim(&self, k: usize) -> bool {
        self.options.kills.is_some_and(|kills| usize::from(kills.kernel) == k)
    }

    /// The other kernels.
    pub fn others(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.kernels).filter(|&k| k != self.me)
    }

    /// Records in the control area that this kernel has reached `step`.
    pub fn reach(&self, step: u32) {
        control().set_step(self.me, step);
    }

    /// Records this kernel's progress in the control area, so that the waits of other kernels do not time out.
    pub fn progress(&self, done: u64) {
        control().set_progress(self.me, done);
    }

    /// Calls `step` again and again until it returns true. If no kernel makes progress for [`PATIENCE`] seconds, ends with an
    /// error that contains `what`.
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

    /// Waits until all kernels have reached `step`. Calls `meanwhile` again and again until then.
    pub fn wait_for_all(&self, step: u32, what: &str, mut meanwhile: impl FnMut()) {
        self.wait(what, || {
            meanwhile();
            (0..self.kernels).all(|k| control().step(k) >= step)
        });
    }
}
