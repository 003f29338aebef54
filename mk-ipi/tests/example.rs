// SPDX-License-Identifier: MIT OR Apache-2.0
//! The example of this package does what it says.

#[path = "../examples/two_kernels.rs"]
#[allow(dead_code, reason = "its `main`")]
mod two_kernels;

#[test]
fn the_example_gives_the_mean() {
    // 290,000 to 290,019, rounded down.
    assert_eq!(two_kernels::play(), 290_009);
}
