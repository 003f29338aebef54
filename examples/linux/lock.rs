// SPDX-License-Identifier: MIT OR Apache-2.0
//! Locks of the kernel, and what they guard.
//!
//! | mutex | guards | order |
//! | --- | --- | --- |
//! | 0 | the state of the host | before 1 |
//! | 1 | memory | never before 0 |
//! | 2 | the results of the traffic | alone |
//! | 3 | the directory that is followed | alone |
//! | 4 | the state of a kernel that serves | alone |
//! | 5 | a CPU's move | before 0 |
//! | 6 | the module's hold on itself | alone |
//! | 7 | what consoles and channels set up | before 0 and the locks of the tty core |
//! | 8 | the network interfaces | alone |
//!
//! Handlers take the spin locks, too: 0 guards lines, 1 guards channels. Each is taken alone, and after all mutexes.
//! Messages are sent while one of them is held. So code that is told of something during a send takes neither.

use crate::ffi;
use mk_ipi_core::sync::UnsafeCell;

/// A value that a mutex guards. To take it can sleep.
pub struct Locked<T> {
    which: u32,
    value: UnsafeCell<T>,
}

// SAFETY: `with` lets one caller at a time at the value.
unsafe impl<T: Send> Sync for Locked<T> {}

impl<T> Locked<T> {
    /// `value`, guarded by the mutex `which` of glue.c. Each mutex guards one value.
    ///
    /// # Safety
    ///
    /// No other `Locked` has the same `which`.
    pub const unsafe fn new(which: u32, value: T) -> Self {
        Self { which, value: UnsafeCell::new(value) }
    }

    /// Calls `f` with the value. No other caller has it at the same time. `f` must not call this again.
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        struct Unlock(u32);
        impl Drop for Unlock {
            fn drop(&mut self) {
                // SAFETY: it is held by `with`, which made this.
                unsafe { ffi::mk_ipi_glue_unlock(self.0) };
            }
        }
        // SAFETY: it is a mutex of the kernel; the callers may sleep. A task that takes it twice hangs, and lockdep
        // reports that.
        unsafe { ffi::mk_ipi_glue_lock(self.which) };
        let _unlock = Unlock(self.which);
        // SAFETY: the mutex guards this value alone (`new`), and is held.
        self.value.with_mut(|value| f(unsafe { &mut *value }))
    }
}

/// A value that a spin lock guards. It can be taken in any context except an NMI. Interrupts are off while it is held.
pub struct SpinLocked<T> {
    which: u32,
    value: UnsafeCell<T>,
}

// SAFETY: `with` lets one caller at a time at the value.
unsafe impl<T: Send> Sync for SpinLocked<T> {}

impl<T> SpinLocked<T> {
    /// `value`, guarded by the spin lock `which` of glue.c. Each lock guards one value.
    ///
    /// # Safety
    ///
    /// No other `SpinLocked` has the same `which`.
    pub const unsafe fn new(which: u32, value: T) -> Self {
        Self { which, value: UnsafeCell::new(value) }
    }

    /// Calls `f` with the value. No other caller has it at the same time. `f` must not sleep, and must not call this
    /// again.
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        struct Unlock(u32, core::ffi::c_ulong);
        impl Drop for Unlock {
            fn drop(&mut self) {
                // SAFETY: it is held by `with`, which made this, and these are the flags from then.
                unsafe { ffi::mk_ipi_glue_spin_unlock(self.0, self.1) };
            }
        }
        // SAFETY: it is a spin lock of the kernel.
        let _unlock = Unlock(self.which, unsafe { ffi::mk_ipi_glue_spin_lock(self.which) });
        // SAFETY: the lock guards this value alone (`new`), and is held.
        self.value.with_mut(|value| f(unsafe { &mut *value }))
    }
}
