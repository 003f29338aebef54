// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest serves nobody (examples/bare-metal/src/serve.rs): it is the host.

use crate::machine::{self, Exit};
use mk_ipi_abi::{Incarnation, InstanceId};

/// Nobody.
pub struct Nobody;
/// The end of a link that there is not.
pub static SERVER: Nobody = Nobody;

impl Nobody {
    /// Nobody has no name.
    pub fn identity(&self) -> Option<(InstanceId, Incarnation)> {
        None
    }
}

/// Ends the machine.
pub fn give_up(how: Exit) -> ! {
    machine::exit(how)
}
