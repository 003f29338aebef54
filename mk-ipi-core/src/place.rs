// SPDX-License-Identifier: MIT OR Apache-2.0
//! Initializes large values in place, because they do not fit on a kernel's stack.

/// Initializes the elements of an array in place, one by one.
///
/// # Safety
///
/// `array` is valid for a write.
pub(crate) unsafe fn fill<T, const N: usize>(array: *mut [T; N], new: impl Fn() -> T) {
    let first = array.cast::<T>();
    for i in 0..N {
        // SAFETY: `i` is below the array's length, and the array may be written (the caller).
        unsafe { first.add(i).write(new()) };
    }
}
