// SPDX-License-Identifier: MIT OR Apache-2.0
//! The locks of this module, and what they guard. They are Linux's mutexes and spin locks.
//!
//! | mutex | guards | order |
//! | --- | --- | --- |
//! | 0 | the state of the host | taken before 1 |
//! | 1 | the table of the memory's owners | taken after 0 |
//! | 2 | the results of the traffic test | no other mutex of this table is held at the same time |
//! | 3 | the directory that is followed | as 2 |
//! | 4 | the state of a kernel that serves the traffic test | as 2 |
//! | 5 | the request to move a CPU | taken before 0 |
//! | 6 | the module's reference to itself | as 2 |
//! | 7 | which devices of terminals and channels exist | taken before 0, and before the locks of the tty core |
//! | 8 | which network interfaces exist | as 2; taken before the RTNL lock |
//!
//! There are two spin locks: 0 guards the lines of terminals, 1 guards the channels. Message handlers take them, too. They
//! are never held at the same time, and no mutex is taken while one of them is held. Messages are sent while a spin lock
//! is held, and a send can report an event. So the functions that are called for an event take neither of them.

use crate::ffi;
use mk_ipi_core::sync::UnsafeCell;

/// A value that a mutex guards. Taking the mutex can sleep.
pub struct Locked<T> {
    which: u32,
    value: UnsafeCell<T>,
}

// SAFETY: `with` gives the value to one caller at a time.
unsafe impl<T: Send> Sync for Locked<T> {}

impl<T> Locked<T> {
    /// Makes a value that the mutex with index `which` in glue.c guards. Each mutex guards one value.
    ///
    /// # Safety
    ///
    /// No other `Locked` has the same `which`.
    pub const unsafe fn new(which: u32, value: T) -> Self {
        Self { which, value: UnsafeCell::new(value) }
    }

    /// Calls `f` with the value, while the mutex is held. `f` must not call `with` for the same value.
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        struct Unlock(u32);
        impl Drop for Unlock {
            fn drop(&mut self) {
                // SAFETY: `with` made this value, and holds the mutex.
                unsafe { ffi::mk_ipi_glue_unlock(self.0) };
            }
        }
        // SAFETY: all callers run in a context that can sleep. A task that takes the mutex twice would hang, and lockdep
        // reports it.
        unsafe { ffi::mk_ipi_glue_lock(self.which) };
        let _unlock = Unlock(self.which);
        // SAFETY: the mutex guards only this value (`new`), and is held.
        self.value.with_mut(|value| f(unsafe { &mut *value }))
    }
}

/// A value that a spin lock guards. It can be taken in any context except an NMI. Interrupts are off while it is held.
pub struct SpinLocked<T> {
    which: u32,
    value: UnsafeCell<T>,
}

// SAFETY: `with` gives the value to one caller at a time.
unsafe impl<T: Send> Sync for SpinLocked<T> {}

impl<T> SpinLocked<T> {
    /// Makes a value that the spin lock with index `which` in glue.c guards. Each spin lock guards one value.
    ///
    /// # Safety
    ///
    /// No other `SpinLocked` has the same `which`.
    pub const unsafe fn new(which: u32, value: T) -> Self {
        Self { which, value: UnsafeCell::new(value) }
    }

    /// Calls `f` with the value, while the spin lock is held. `f` must not sleep, and must not call `with` for the same
    /// value.
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        struct Unlock(u32, core::ffi::c_ulong);
        impl Drop for Unlock {
            fn drop(&mut self) {
                // SAFETY: `with` made this value and holds the lock. These are the flags that taking the lock returned.
                unsafe { ffi::mk_ipi_glue_spin_unlock(self.0, self.1) };
            }
        }
        // SAFETY: it takes a raw spin lock of Linux, which is possible in any context except an NMI.
        let _unlock = Unlock(self.which, unsafe { ffi::mk_ipi_glue_spin_lock(self.which) });
        // SAFETY: the lock guards only this value (`new`), and is held.
        self.value.with_mut(|value| f(unsafe { &mut *value }))
    }
}
