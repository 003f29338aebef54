// SPDX-License-Identifier: MIT OR Apache-2.0
//! All atomics of the project. In a kernel they are the types of `core`, in a model those of loom. No other module uses `core`'s
//! or loom's atomics directly.
//!
//! Memory that a peer can write is a slice of [`Word`]s. It is accessed one word at a time, also for payloads:
//! a plain copy that races with the peer would be undefined behaviour. The mock has its own `Word`, which
//! asks a scheduler before each access.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "only this module uses them (CONTRIBUTING.md)"
)]

#[cfg(not(loom))]
use core::sync::atomic as imp;
pub use imp::Ordering;
#[cfg(loom)]
pub use loom::cell::UnsafeCell;
#[cfg(loom)]
use loom::sync::atomic as imp;

pub mod line;
#[cfg(all(test, loom))]
pub(crate) mod weak;
#[cfg(all(test, loom))]
use weak::{is_fence_left, left};

/// The memory ordering with which an access runs. Only a loom model makes it weaker (`weak`).
#[cfg(not(all(test, loom)))]
#[inline(always)]
const fn left(order: Ordering) -> Ordering {
    order
}

/// Declares a constructor that is `const` except under loom, whose atomics have no const constructor.
macro_rules! const_unless_loom {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty $body:block) => {
        #[cfg(not(loom))]
        $(#[$meta])* $vis const fn $name($($arg: $ty),*) -> $ret $body
        #[cfg(loom)]
        $(#[$meta])* $vis fn $name($($arg: $ty),*) -> $ret $body
    };
}
pub(crate) use const_unless_loom;

/// Declares an atomic type with the operations that this project uses.
macro_rules! atomic {
    ($(#[$meta:meta])* $name:ident($value:ty) { $($op:ident),* }) => {
        $(#[$meta])*
        #[derive(Debug)]
        #[repr(transparent)]
        pub struct $name(imp::$name);

        impl $name {
            const_unless_loom! {
                /// An atomic that holds `value`.
                pub fn new(value: $value) -> Self {
                    Self(imp::$name::new(value))
                }
            }
            /// Reads the value.
            #[inline(always)]
            #[cfg_attr(loom, track_caller)]
            pub fn load(&self, order: Ordering) -> $value {
                self.0.load(left(order))
            }
            /// Writes the value.
            #[inline(always)]
            #[cfg_attr(loom, track_caller)]
            pub fn store(&self, value: $value, order: Ordering) {
                self.0.store(value, left(order));
            }
            $(
                /// The same as the method of this name in `core`. Returns the former value.
                #[inline(always)]
                #[cfg_attr(loom, track_caller)]
                pub fn $op(&self, value: $value, order: Ordering) -> $value {
                    self.0.$op(value, left(order))
                }
            )*
        }
    };
}

atomic! {
    /// A boolean.
    AtomicBool(bool) { swap }
}
atomic! {
    /// A 32-bit number.
    AtomicU32(u32) { swap, fetch_add, fetch_sub }
}
atomic! {
    /// A 64-bit number; in a kernel also the [`Word`] of shared memory, 8 bytes, alignment 8.
    AtomicU64(u64) { swap, fetch_add, fetch_sub, fetch_xor, fetch_or, fetch_and, fetch_max }
}
atomic! {
    /// A number with as many bits as an address.
    AtomicUsize(usize) { fetch_add }
}

impl AtomicU32 {
    /// Replaces the value by the result of `next`. If `next` returns `None`, returns the value as the error. `order` is used on
    /// success; a failure is relaxed.
    #[inline]
    #[cfg_attr(loom, track_caller)]
    pub fn fetch_update(&self, order: Ordering, next: impl FnMut(u32) -> Option<u32>) -> Result<u32, u32> {
        self.0.fetch_update(left(order), Ordering::Relaxed, next)
    }
}

impl AtomicU64 {
    /// The same as the method of this name in `core`.
    #[cfg(not(loom))]
    #[inline(always)]
    pub const fn as_ptr(&self) -> *mut u64 {
        self.0.as_ptr()
    }
    /// Writes `new` if the value is `current`. Otherwise returns the value as the error. `order` is used on success; a failure is
    /// relaxed.
    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub fn compare_exchange(&self, current: u64, new: u64, order: Ordering) -> Result<u64, u64> {
        self.0.compare_exchange(current, new, left(order), Ordering::Relaxed)
    }
    /// Replaces the value by the result of `next`. If `next` returns `None`, returns the value as the error. `order` is used on
    /// success; a failure is relaxed.
    #[inline]
    #[cfg_attr(loom, track_caller)]
    pub fn fetch_update(&self, order: Ordering, next: impl FnMut(u64) -> Option<u64>) -> Result<u64, u64> {
        self.0.fetch_update(left(order), Ordering::Relaxed, next)
    }
}

/// A memory fence. To loom a `SeqCst` access is only acquire or release. So a store that must come before a later load of another
/// word needs this fence between them.
#[inline(always)]
#[cfg_attr(loom, track_caller)]
pub fn fence(order: Ordering) {
    #[cfg(all(test, loom))]
    if !is_fence_left() {
        return;
    }
    imp::fence(order);
}

/// One aligned 64-bit word of memory that another kernel may write at any time.
///
/// The value of a word can be anything. Code that reads it must be sound for every value.
pub trait Word: Send + Sync + 'static {
    /// Reads the word.
    #[cfg_attr(loom, track_caller)]
    fn load(&self, order: Ordering) -> u64;
    /// Writes the word.
    #[cfg_attr(loom, track_caller)]
    fn store(&self, value: u64, order: Ordering);
    /// Writes `new` if the word is `current`. Otherwise returns the value of the word as the error. `order` is used on success; a
    /// failure is relaxed.
    #[cfg_attr(loom, track_caller)]
    fn compare_exchange(&self, current: u64, new: u64, order: Ordering) -> Result<u64, u64>;
    /// Reads the word with acquire ordering: a relaxed load and then a fence. An acquire load is not used, because for memory
    /// that is mapped read-only Rust guarantees relaxed loads only.
    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    fn load_acquire(&self) -> u64 {
        let value = self.load(Ordering::Relaxed);
        acquire();
        value
    }
    /// Prefetches the word's cache line for reading. No value changes.
    #[inline(always)]
    fn will_read(&self) {}
    /// Prefetches the word's cache line for writing.
    #[inline(always)]
    fn will_write(&self) {}
}

/// The fence of [`Word::load_acquire`].
#[inline(always)]
#[cfg_attr(loom, track_caller)]
fn acquire() {
    #[cfg(all(test, loom))]
    if left(Ordering::Acquire) == Ordering::Relaxed {
        return;
    }
    imp::fence(Ordering::Acquire);
}

impl Word for AtomicU64 {
    #[inline(always)]
    fn load(&self, order: Ordering) -> u64 {
        self.0.load(left(order))
    }
    #[inline(always)]
    fn store(&self, value: u64, order: Ordering) {
        self.0.store(value, left(order));
    }
    #[inline(always)]
    fn compare_exchange(&self, current: u64, new: u64, order: Ordering) -> Result<u64, u64> {
        self.0.compare_exchange(current, new, left(order), Ordering::Relaxed)
    }
    #[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
    #[inline(always)]
    fn will_read(&self) {
        // SAFETY: a prefetch neither reads nor writes memory as the program sees it.
        unsafe { core::arch::asm!("prefetcht0 [{}]", in(reg) self, options(nostack, preserves_flags)) };
    }
    #[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
    #[inline(always)]
    fn will_write(&self) {
        // SAFETY: as above; a processor without PREFETCHW does nothing (Intel SDM vol. 2B).
        unsafe { core::arch::asm!("prefetchw [{}]", in(reg) self, options(nostack, preserves_flags)) };
    }
}

/// One iteration of a wait: in a kernel a pause instruction; in a model a switch to another thread.
#[inline]
pub fn spin_hint() {
    #[cfg(not(loom))]
    core::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}

/// The `UnsafeCell` of `core` with the interface of loom's `UnsafeCell`. Loom checks every access in a model.
#[cfg(not(loom))]
#[derive(Debug)]
#[repr(transparent)]
pub struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    /// A cell that holds `value`.
    pub const fn new(value: T) -> Self {
        Self(core::cell::UnsafeCell::new(value))
    }
    /// Calls `f` with a pointer for reading.
    #[inline(always)]
    pub fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }
    /// Calls `f` with a pointer for writing.
    #[inline(always)]
    pub fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// An array of `$n` elements, each of which is `$init`. For constructors that [`const_unless_loom`] declares.
macro_rules! array_of {
    ($init:expr; $n:expr) => {{
        #[cfg(not(loom))]
        let array = [const { $init }; $n];
        #[cfg(loom)]
        let array = core::array::from_fn(|_| $init);
        array
    }};
}
pub(crate) use array_of;
