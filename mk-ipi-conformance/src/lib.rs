// SPDX-License-Identifier: MIT OR Apache-2.0
//! The conformance suite: each clause of SPEC.md that can be observed is a named case (see [`CASES`]).
//!
//! Every kernel of a machine calls [`run`] at the same time, on one CPU each, with an [`Env`] of its own. A case
//! is one function. All kernels run it, and each does its own part. The machine has three kernels or more (at most 16),
//! instances `0..n`, and for each kernel a control word that the others can read.
#![no_std]
#![expect(
    clippy::arithmetic_side_effects,
    reason = "a test suite may panic; the crates that it tests may not"
)]
#![expect(clippy::cast_possible_truncation, reason = "small numbers")]
#![expect(clippy::indexing_slicing, reason = "own tables and payloads")]

mod cases;
mod env;
mod inbox;
mod instances;
mod native;
mod policies;

pub use cases::CASES;
pub use env::{Env, TestEndpoint, TestHandler};
pub use inbox::Inbox;
pub use native::NATIVE_LEN;

use env::Steps;

/// Why a case did not pass: what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed(pub &'static str);

impl core::fmt::Display for Failed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "expected that {}", self.0)
    }
}

impl core::error::Error for Failed {}

/// How a case ended at one kernel.
pub type Outcome = Result<(), Failed>;

/// One case. It is the same for every backend.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name, as in the table of proofs in SPEC.md.
    pub name: &'static str,
    /// The clauses that it shows.
    pub clauses: &'static str,
}

/// Returns `Failed` with the text, unless the condition holds.
macro_rules! check {
    ($condition:expr, $text:literal) => {
        if !$condition {
            return Err($crate::Failed($text));
        }
    };
}
pub(crate) use check;

/// Runs every case at this kernel. All kernels of the machine must call it at the same time. True if all cases passed here.
///
/// Each case begins with exclusive slots, empty, and with an empty inbox.
///
/// If cases fail, look at the first case that failed at any kernel: later failures can be its consequences. Within that case,
/// ignore the kernels that expected `the others come to this step`: they waited for the one that failed. [`Env::wants`] can run
/// a case alone.
pub fn run<E: Env>(env: &'static E) -> bool {
    let mut passed = true;
    let cases = CASES.iter().zip(cases::parts::<E>()).enumerate();
    for (number, (case, part)) in cases.filter(|(_, (case, _))| env.wants(case)) {
        env.begin_case(number);
        let outcome = env.fresh().and_then(|()| part(env)).and_then(|()| env.quiet());
        passed &= outcome.is_ok();
        env.report(case, outcome);
    }
    env.begin_case(CASES.len());
    passed
}

/// The README's example, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
