// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs the example of this package, and checks its result.

#[path = "../examples/two_kernels.rs"]
#[allow(dead_code, reason = "`main` is not called")]
mod two_kernels;

#[test]
fn the_example_gives_the_mean() {
    // The mean of 290,000 to 290,019, rounded down.
    assert_eq!(two_kernels::play(), 290_009);
}
