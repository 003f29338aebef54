// SPDX-License-Identifier: MIT OR Apache-2.0
//! The demo's control area: how its kernels keep in step and share the console. It is not part of the protocol.

use crate::arch::at;
use crate::layout::{CONTROL, CONTROL_LEN, MAX_KERNELS};
use mk_ipi_core::sync::{AtomicU32, AtomicU64, Ordering};

/// The control area, at a fixed place. All its words are 0 when the host starts the others.
#[repr(C)]
pub struct Control {
    /// The holder of the console: 0 for none, else the kernel's id plus one, and the number of its CPU in the upper
    /// half.
    pub console: AtomicU64,
    /// 1 while the host still has kernels to kill, or a CPU to move. Until then no stream ends.
    going_on: AtomicU64,
    /// How often the host has killed a kernel or moved a CPU.
    ordered: AtomicU64,
    kernels: [KernelWords; MAX_KERNELS],
}

/// What one kernel says of itself, and what the host tells it. The kernel alone writes the former, or the host once it
/// has stopped the kernel.
#[repr(C, align(64))]
struct KernelWords {
    /// How far the kernel is: a number that only grows during its life.
    step: AtomicU32,
    /// 1 once the kernel found that all went well for it, 2 if not.
    verdict: AtomicU32,
    /// A number that changes while the kernel makes progress.
    progress: AtomicU64,
    /// The conformance suite's control word.
    suite: AtomicU64,
    /// 1 while the host wants the kernel to stop itself. Used where a kernel cannot be stopped from outside.
    stop: AtomicU64,
}

const _: () = assert!(size_of::<Control>() as u64 <= CONTROL_LEN);

/// The control area.
pub fn control() -> &'static Control {
    // SAFETY: RAM by the memory map, mapped, aligned, used for nothing else; every bit pattern is a `Control`.
    unsafe { &*(at(CONTROL) as *const Control) }
}

/// Empties the control area. The host calls it before it starts another kernel or prints.
pub fn reset() {
    let words = (0..CONTROL_LEN).step_by(8).map(|offset| at(CONTROL + offset) as *mut u64);
    for word in words {
        // SAFETY: RAM by the memory map, and no other kernel runs yet.
        unsafe { word.write_volatile(0) };
    }
}

impl Control {
    /// How far kernel `k` is.
    pub fn step(&self, k: usize) -> u32 {
        self.kernels[k].step.load(Ordering::Acquire)
    }

    /// Says that kernel `k` is now at `step`. `k` is the caller, or a kernel that was stopped.
    pub fn set_step(&self, k: usize, step: u32) {
        self.kernels[k].step.store(step, Ordering::Release);
    }

    /// Says whether all went well for kernel `k`, the caller. A `set_step` must follow.
    pub fn set_verdict(&self, k: usize, ok: bool) {
        self.kernels[k].verdict.store(if ok { 1 } else { 2 }, Ordering::Relaxed);
    }

    /// Returns whether kernel `k`, which came to its last step, found that all went well for it.
    pub fn verdict(&self, k: usize) -> bool {
        self.kernels[k].verdict.load(Ordering::Relaxed) == 1
    }

    /// Returns whether the host still has kernels to kill, or a CPU to move.
    pub fn is_going_on(&self) -> bool {
        self.going_on.load(Ordering::Relaxed) != 0
    }

    /// The host says whether it still has kernels to kill, or a CPU to move.
    pub fn go_on(&self, going_on: bool) {
        self.going_on.store(going_on.into(), Ordering::Relaxed);
    }

    /// How often the host has killed a kernel or moved a CPU.
    pub fn ordered(&self) -> u64 {
        self.ordered.load(Ordering::Relaxed)
    }

    /// The host says how often it has killed a kernel or moved a CPU.
    pub fn set_ordered(&self, times: u64) {
        self.ordered.store(times, Ordering::Relaxed);
    }

    /// The conformance suite's control word of kernel `k`.
    pub fn suite(&self, k: usize) -> &AtomicU64 {
        &self.kernels[k].suite
    }

    /// Tells kernel `k` to stop itself at its next doorbell, or takes that order back.
    pub fn order_stop(&self, k: usize, stop: bool) {
        self.kernels[k].stop.store(stop.into(), Ordering::Release);
    }

    /// Returns whether kernel `k`, the caller, was told to stop itself.
    pub fn is_to_stop(&self, k: usize) -> bool {
        self.kernels[k].stop.load(Ordering::Acquire) != 0
    }

    /// Says that kernel `k`, the caller, makes progress.
    pub fn set_progress(&self, k: usize, progress: u64) {
        self.kernels[k].progress.store(progress, Ordering::Relaxed);
    }

    /// A number that changes while any of the kernels below `n` makes progress.
    pub fn progress(&self, n: usize) -> u64 {
        let words = self.kernels.iter().take(n);
        words.fold(0, |sum: u64, k| {
            sum.wrapping_add(k.progress.load(Ordering::Relaxed))
                .wrapping_add(k.step.load(Ordering::Relaxed).into())
        })
    }
}
