// SPDX-License-Identifier: MIT OR Apache-2.0
//! The demo's control area, a piece of shared memory. The demo's kernels use it to wait for each other and to share the console.
//! The control area is not part of the protocol of mk-ipi.

use crate::arch::at;
use crate::layout::{CONTROL, CONTROL_LEN, MAX_KERNELS};
use mk_ipi_core::sync::{AtomicU32, AtomicU64, Ordering};

/// The control area, at a fixed address. All its words are 0 when the host starts the first other kernel.
#[repr(C)]
pub struct Control {
    /// The console's lock: 0 if it is free. Otherwise the lower half is the holder's kernel number plus one, and the upper
    /// half the number of its CPU within that kernel.
    pub console: AtomicU64,
    /// 1 while the host still has kernels to kill, or a CPU to move. While it is 1, no stream ends.
    going_on: AtomicU64,
    /// How often the host has killed a kernel or moved a CPU.
    ordered: AtomicU64,
    kernels: [KernelWords; MAX_KERNELS],
}

/// The words of one kernel. The host writes `stop`. The kernel writes the other words; after the host has stopped the kernel, the
/// host writes `step`, too.
#[repr(C, align(64))]
struct KernelWords {
    /// The last step of the demo that the kernel has reached. It only grows while the kernel runs.
    step: AtomicU32,
    /// The kernel's result: 0 if it has none yet, 1 if it found no fault, 2 if it found one.
    verdict: AtomicU32,
    /// A number that changes while the kernel makes progress.
    progress: AtomicU64,
    /// A word by which the conformance suite's cases wait for other kernels.
    suite: AtomicU64,
    /// 1 while the host wants the kernel to stop itself at its next doorbell. arm64 and riscv64 use this, because a CPU there
    /// cannot stop another one.
    stop: AtomicU64,
}

const _: () = assert!(size_of::<Control>() as u64 <= CONTROL_LEN);

/// The control area.
pub fn control() -> &'static Control {
    // SAFETY: the memory map (layout.rs) reserves this RAM for the control area. It is mapped and aligned, and every bit
    // pattern is a valid `Control`.
    unsafe { &*(at(CONTROL) as *const Control) }
}

/// Sets the control area to zeros. The host calls this before it prints, and before it starts another kernel.
pub fn reset() {
    let words = (0..CONTROL_LEN).step_by(8).map(|offset| at(CONTROL + offset) as *mut u64);
    for word in words {
        // SAFETY: the memory map (layout.rs) reserves this RAM for the control area, and no other kernel runs yet.
        unsafe { word.write_volatile(0) };
    }
}

impl Control {
    /// The last step that kernel `k` has reached.
    pub fn step(&self, k: usize) -> u32 {
        self.kernels[k].step.load(Ordering::Acquire)
    }

    /// Sets the step of kernel `k`, which is the caller, or a kernel that the caller has stopped.
    pub fn set_step(&self, k: usize, step: u32) {
        self.kernels[k].step.store(step, Ordering::Release);
    }

    /// Sets the result of kernel `k`, the caller: `ok` if it found no fault. A call of `set_step` must follow, which makes
    /// the result visible to kernels that read the step.
    pub fn set_verdict(&self, k: usize, ok: bool) {
        self.kernels[k].verdict.store(if ok { 1 } else { 2 }, Ordering::Relaxed);
    }

    /// Returns whether kernel `k` found no fault. Valid after kernel `k` has reached its last step.
    pub fn verdict(&self, k: usize) -> bool {
        self.kernels[k].verdict.load(Ordering::Relaxed) == 1
    }

    /// Returns whether the host still has kernels to kill, or a CPU to move.
    pub fn is_going_on(&self) -> bool {
        self.going_on.load(Ordering::Relaxed) != 0
    }

    /// Sets whether the host still has kernels to kill, or a CPU to move. Only the host calls this.
    pub fn go_on(&self, going_on: bool) {
        self.going_on.store(going_on.into(), Ordering::Relaxed);
    }

    /// How often the host has killed a kernel or moved a CPU.
    pub fn ordered(&self) -> u64 {
        self.ordered.load(Ordering::Relaxed)
    }

    /// Sets how often the host has killed a kernel or moved a CPU. Only the host calls this.
    pub fn set_ordered(&self, times: u64) {
        self.ordered.store(times, Ordering::Relaxed);
    }

    /// The conformance suite's word of kernel `k`.
    pub fn suite(&self, k: usize) -> &AtomicU64 {
        &self.kernels[k].suite
    }

    /// If `stop` is true, tells kernel `k` to stop itself at its next doorbell. If it is false, withdraws that order.
    pub fn order_stop(&self, k: usize, stop: bool) {
        self.kernels[k].stop.store(stop.into(), Ordering::Release);
    }

    /// Returns whether kernel `k`, the caller, was told to stop itself.
    pub fn is_to_stop(&self, k: usize) -> bool {
        self.kernels[k].stop.load(Ordering::Acquire) != 0
    }

    /// Sets the progress of kernel `k`, the caller: a number that changes while it makes progress.
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
