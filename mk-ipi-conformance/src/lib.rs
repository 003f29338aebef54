// SPDX-License-Identifier: MIT OR Apache-2.0
//! The conformance suite: named cases (see [`CASES`]) that test each clause of SPEC.md that a test can observe.
//!
//! Every kernel of a machine calls [`run`] at the same time, each on one of its CPUs, with an [`Env`] of its own. A case is one
//! function. All kernels call it, and its code does another part of the case at each kernel. The machine has 3 to 16 kernels:
//! kernel `k` is instance `k`. Each kernel has a control word that the others can read.
#![no_std]
#![expect(
    clippy::arithmetic_side_effects,
    reason = "a test suite may panic; the crates that it tests may not"
)]
#![expect(clippy::cast_possible_truncation, reason = "the suite's numbers are small enough")]
#![expect(clippy::indexing_slicing, reason = "the suite indexes only its own tables and payloads")]

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

/// Why a case did not pass. The text says what the case expected.
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
    /// The name of the case, as in `tests/proofs.toml` and `docs/evidence.md` in the repository.
    pub name: &'static str,
    /// The clauses of SPEC.md that the case tests.
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

/// Runs at this kernel every case for which [`Env::wants`] returns true. All kernels of the machine must call `run` at the same
/// time. Returns true if all these cases passed at this kernel.
///
/// Before each case the suite makes the slots of all kernels exclusive, and empties the slot of each doorbell CPU.
///
/// If cases fail, look at the first case that failed at any kernel: later failures can be its consequences. Within that case,
/// ignore the kernels that expected `the others come to this step`: they waited for the kernel that failed. To run one case
/// alone, let [`Env::wants`] return true for this case only.
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
