// SPDX-License-Identifier: MIT OR Apache-2.0
//! Locks of the kernel's, and what they guard. Mutexes: The host's (0) is taken before that of memory (1), never behind it; that of
//! the traffic's results (2), that of the directory that is followed (3), that of the kernel that serves (4), and that of the module's hold on itself (6), and that of the network interfaces (8) alone; that of a
//! CPU's move (5) before the host's; that of what consoles and channels set up (7) before that of the host and those of the tty core. Spin locks, which handlers take
//! too: that of lines (0) and that of channels (1), each alone and last. Messages
//! are sent with one held; so what a send is told of takes none.

use crate::ffi;
use mk_ipi_core::sync::UnsafeCell;

/// A value behind a mutex. Taking it may sleep.
pub struct Locked<T> {
    which: u32,
    value: UnsafeCell<T>,
}

// SAFETY: `with` lets one caller at a time at the value.
unsafe impl<T: Send> Sync for Locked<T> {}

impl<T> Locked<T> {
    /// `value` behind the mutex `which` of glue.c; one value for each.
    ///
    /// # Safety
    ///
    /// No other `Locked` has the same `which`.
    pub const unsafe fn new(which: u32, value: T) -> Self {
        Self { which, value: UnsafeCell::new(value) }
    }

    /// Calls `f` with the value, and nobody else has it meanwhile. `f` must not come here again.
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        struct Unlock(u32);
        impl Drop for Unlock {
            fn drop(&mut self) {
                // SAFETY: it is held by `with`, which made this.
                unsafe { ffi::mk_ipi_glue_unlock(self.0) };
            }
        }
        // SAFETY: a mutex of the kernel's; our callers may sleep. A task that takes it twice hangs, as lockdep tells.
        unsafe { ffi::mk_ipi_glue_lock(self.which) };
        let _unlock = Unlock(self.which);
        // SAFETY: the mutex is ours alone (`new`), and held.
        self.value.with_mut(|value| f(unsafe { &mut *value }))
    }
}

/// A value behind a spin lock, which may be taken in any context but an NMI's. Interrupts are off meanwhile.
pub struct SpinLocked<T> {
    which: u32,
    value: UnsafeCell<T>,
}

// SAFETY: `with` lets one caller at a time at the value.
unsafe impl<T: Send> Sync for SpinLocked<T> {}

impl<T> SpinLocked<T> {
    /// `value` behind the spin lock `which` of glue.c; one value for each.
    ///
    /// # Safety
    ///
    /// No other `SpinLocked` has the same `which`.
    pub const unsafe fn new(which: u32, value: T) -> Self {
        Self { which, value: UnsafeCell::new(value) }
    }

    /// Calls `f` with the value, and nobody else has it meanwhile. `f` must not sleep, nor come here again.
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        struct Unlock(u32, core::ffi::c_ulong);
        impl Drop for Unlock {
            fn drop(&mut self) {
                // SAFETY: it is held by `with`, which made this, and these are the flags from then.
                unsafe { ffi::mk_ipi_glue_spin_unlock(self.0, self.1) };
            }
        }
        // SAFETY: a spin lock of the kernel's.
        let _unlock = Unlock(self.which, unsafe { ffi::mk_ipi_glue_spin_lock(self.which) });
        // SAFETY: the lock is ours alone (`new`), and held.
        self.value.with_mut(|value| f(unsafe { &mut *value }))
    }
}
