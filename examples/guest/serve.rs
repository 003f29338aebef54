// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest serves no other host (examples/bare-metal/src/serve.rs): it is the host.

use crate::machine::{self, Exit};
use mk_ipi_abi::{Incarnation, InstanceId};

/// The type of an end that does not exist.
pub struct Nobody;
/// The end of a link to another host, which does not exist.
pub static SERVER: Nobody = Nobody;

impl Nobody {
    /// An end that does not exist has no identity.
    pub fn identity(&self) -> Option<(InstanceId, Incarnation)> {
        None
    }
}

/// Ends the machine.
pub fn give_up(how: Exit) -> ! {
    machine::exit(how)
}
