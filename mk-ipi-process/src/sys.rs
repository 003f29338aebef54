// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Linux system calls that this crate uses, as safe functions where possible.

use mk_ipi_core::sync::AtomicU32;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr::{null_mut, NonNull};
use std::time::Duration;

/// Makes an anonymous file of `len` bytes. Its size can never change, so an access to a mapped part of it never faults.
pub fn memfd(len: u64) -> io::Result<File> {
    // SAFETY: the name is a C string. The descriptor is new, and nothing else owns it.
    let file = unsafe {
        let fd = libc::memfd_create(c"mk-ipi".as_ptr(), libc::MFD_ALLOW_SEALING);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        File::from_raw_fd(fd)
    };
    file.set_len(len)?;
    // SAFETY: the call accesses no memory of this program.
    let sealed = unsafe {
        libc::fcntl(
            file.as_raw_fd(),
            libc::F_ADD_SEALS,
            libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL,
        )
    };
    if sealed < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

/// Maps `len` bytes of the file from `offset` on, shared with other processes.
pub fn map(file: &File, offset: u64, len: usize, writable: bool) -> io::Result<NonNull<u8>> {
    let protection = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
    let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory of this program.
    let at = unsafe { libc::mmap(null_mut(), len, protection, libc::MAP_SHARED, file.as_raw_fd(), offset) };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(at.cast()).ok_or_else(io::Error::last_os_error)
}

/// Unmaps what [`map`] has mapped.
///
/// # Safety
///
/// `map` returned `at` for this `len`, and the memory is not used any more.
pub unsafe fn unmap(at: NonNull<u8>, len: usize) {
    // SAFETY: the caller promises that this is a mapping, and that nothing uses it any more. For a mapping the call cannot fail.
    unsafe { libc::munmap(at.as_ptr().cast(), len) };
}

/// Wakes all threads that wait for the word by [`futex_wait`], in any process.
pub fn futex_wake(word: &AtomicU32) {
    let word: *const AtomicU32 = word;
    // SAFETY: the call uses only the address. It reads and writes no memory.
    unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE, i32::MAX) };
}

/// Sleeps until [`futex_wake`] is called for the word, for at most `at_most`. Does not sleep if the word is not `value`. Can
/// return early.
pub fn futex_wait(word: &AtomicU32, value: u32, at_most: Duration) {
    let (word, time): (*const AtomicU32, _) = (word, timespec(at_most));
    // SAFETY: the word is a valid u32 that this process may read, and the time lives until the call returns.
    unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAIT, value, &raw const time) };
}

fn timespec(time: Duration) -> libc::timespec {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    libc::timespec { tv_sec: seconds, tv_nsec: time.subsec_nanos().into() }
}

/// A thread of this process.
#[derive(Clone, Copy, Debug)]
pub struct Thread(libc::pthread_t);

impl Thread {
    /// The calling thread.
    pub fn this() -> Self {
        // SAFETY: the call cannot fail.
        Self(unsafe { libc::pthread_self() })
    }

    /// Interrupts this thread: sends it the signal that is used as the interrupt.
    ///
    /// # Safety
    ///
    /// The thread has not ended.
    pub unsafe fn interrupt(self) {
        // SAFETY: the caller promises that the thread has not ended. `install` has set a handler for the signal, which would
        // otherwise end the process.
        unsafe { libc::pthread_kill(self.0, signal()) };
    }
}

/// The signal that is used as the interrupt.
fn signal() -> i32 {
    libc::SIGRTMIN() + 3
}

/// Installs `handler` for the signal that is used as the interrupt.
pub fn install(handler: extern "C" fn(i32)) -> io::Result<()> {
    // SAFETY: all zeros is a valid `sigaction`, and the handler is a function of the right type. System calls that the signal
    // interrupts continue (SA_RESTART).
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(signal(), &raw const action, null_mut())
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Calls `f`, and then restores `errno`, which the interrupted code can still need.
pub fn with_errno_kept(f: impl FnOnce()) {
    // SAFETY: this is the `errno` of this thread, and is valid as long as the thread lives.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        f();
        *errno = before;
    }
}

/// Sleeps until a signal interrupts this thread, for at most `at_most`. Does not sleep if `may_sleep` returns false. The signal
/// that is used as the interrupt is blocked while `may_sleep` runs, and comes through when the sleep begins. So a signal between
/// this check and the sleep is not lost: it ends the sleep.
pub fn sleep(at_most: Duration, may_sleep: impl FnOnce() -> bool) {
    let time = timespec(at_most);
    // SAFETY: all zeros is a valid signal set, and all pointers are valid during the calls. The last call restores the signal
    // mask.
    unsafe {
        let (mut interrupt, mut before): (libc::sigset_t, libc::sigset_t) =
            (std::mem::zeroed(), std::mem::zeroed());
        libc::sigemptyset(&raw mut interrupt);
        libc::sigaddset(&raw mut interrupt, signal());
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const interrupt, &raw mut before);
        if may_sleep() {
            libc::ppoll(null_mut(), 0, &raw const time, &raw const before);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, null_mut());
    }
}
