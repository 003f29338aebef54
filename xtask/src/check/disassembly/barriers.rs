// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks that there is a barrier before each doorbell, for arm64 and riscv64. Each architecture has a decoder, which returns the
//! class of each instruction. The check uses only these classes.

use std::collections::BTreeSet;

use anyhow::{ensure, Result};

/// The class of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The barrier that must come before a doorbell.
    Barrier,
    /// The barrier that must be the next instruction after a doorbell, if the architecture needs one.
    Behind,
    /// The instruction that sends the doorbell interrupt.
    Doorbell,
    /// A load or a store.
    Memory,
    /// Any other instruction after which the CPU continues with the next one.
    Other,
    /// A jump, a call, a return or an exception. If the CPU executes the instruction after it, it may not have executed the
    /// instructions before it.
    Jump {
        /// The address of the target, if it is in the instruction.
        target: Option<u64>,
    },
}

/// The address of an instruction, and its class.
pub type Instruction = (u64, What);

/// Returns the number of doorbells. It is an error if a doorbell has no barrier before it. Between the barrier and the doorbell
/// there can be instructions, but no load, store, jump or target of a jump. If `behind` is true, it is also an error if the next
/// instruction after a doorbell is not the other barrier.
pub fn doorbells(all: &[Instruction], behind: bool) -> Result<usize> {
    let targets: BTreeSet<u64> = all
        .iter()
        .filter_map(|(_, what)| if let What::Jump { target } = what { *target } else { None })
        .collect();
    let (mut found, mut is_ordered) = (0, false);
    for (n, &(at, what)) in all.iter().enumerate() {
        // If a jump leads to this instruction, the CPU may not have executed the instructions before it.
        is_ordered &= !targets.contains(&at);
        match what {
            What::Barrier => is_ordered = true,
            What::Memory | What::Jump { .. } => is_ordered = false,
            What::Other | What::Behind => {}
            What::Doorbell => {
                ensure!(is_ordered, "the doorbell at {at:#x} has no barrier before it");
                let next = all.get(n + 1).map(|(_, what)| *what);
                ensure!(
                    !behind || next == Some(What::Behind),
                    "the doorbell at {at:#x} has no barrier directly after it"
                );
                found += 1;
                is_ordered = false;
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use What::{Barrier, Behind, Doorbell, Memory, Other};

    /// The number of doorbells in instructions at the addresses 0, 1, 2 and so on; `None` if there is an error.
    fn found(code: &[What], behind: bool) -> Option<usize> {
        doorbells(&(0..).zip(code.iter().copied()).collect::<Vec<_>>(), behind).ok()
    }

    const TO_3: What = What::Jump { target: Some(3) };
    const AWAY: What = What::Jump { target: None };

    #[test]
    fn a_doorbell_behind_its_barrier_is_counted() {
        assert_eq!(found(&[Memory, Barrier, Doorbell], false), Some(1));
        assert_eq!(found(&[Barrier, Other, Doorbell, AWAY, Barrier, Doorbell, TO_3], false), Some(2));
        assert_eq!(found(&[Barrier, Doorbell, Behind], true), Some(1));
        assert_eq!(found(&[Memory, AWAY], true), Some(0));
    }

    #[test]
    fn a_doorbell_without_is_an_error() {
        for code in [
            &[Doorbell][..],
            &[Memory, Doorbell],
            &[Barrier, Memory, Doorbell],
            &[Barrier, AWAY, Doorbell],
            &[Barrier, Doorbell, Doorbell],
            &[TO_3, Barrier, Other, Doorbell],
        ] {
            assert_eq!(found(code, false), None, "{code:?}");
        }
        assert_eq!(found(&[Barrier, Doorbell, Other, Behind], true), None);
        assert_eq!(found(&[Barrier, Doorbell], true), None);
    }
}
