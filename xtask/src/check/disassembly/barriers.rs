// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks that there is a barrier before each doorbell, for arm64 and riscv64. A decoder for each architecture classifies the
//! instructions; the check itself is here.

use std::collections::BTreeSet;

use anyhow::{ensure, Result};

/// The class of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The barrier that must stand before a doorbell.
    Barrier,
    /// The barrier that must stand directly after a doorbell, if the architecture needs one.
    Behind,
    /// A doorbell.
    Doorbell,
    /// A load or a store.
    Memory,
    /// Any other instruction that continues with the next one.
    Other,
    /// A jump or a call: the code after it may run without the code before it.
    Jump {
        /// The target, if it is in the instruction.
        target: Option<u64>,
    },
}

/// An instruction and its address.
pub type Instruction = (u64, What);

/// The number of doorbells. An error if a doorbell has no barrier before it, with only arithmetic in between; or, if `behind`
/// is set, no barrier directly after it.
pub fn doorbells(all: &[Instruction], behind: bool) -> Result<usize> {
    let targets: BTreeSet<u64> = all
        .iter()
        .filter_map(|(_, what)| if let What::Jump { target } = what { *target } else { None })
        .collect();
    let (mut found, mut is_ordered) = (0, false);
    for (n, &(at, what)) in all.iter().enumerate() {
        // If this instruction can be jumped to, the instructions before it may not have run.
        is_ordered &= !targets.contains(&at);
        match what {
            What::Barrier => is_ordered = true,
            What::Memory | What::Jump { .. } => is_ordered = false,
            What::Other | What::Behind => {}
            What::Doorbell => {
                ensure!(is_ordered, "a doorbell at {at:#x} without its barrier");
                let next = all.get(n + 1).map(|(_, what)| *what);
                ensure!(
                    !behind || next == Some(What::Behind),
                    "a doorbell at {at:#x} without the barrier after it"
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

    /// Instructions at 0, 1, 2, ...
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
