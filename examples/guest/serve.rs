// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replaces examples/bare-metal/src/serve.rs. A guest is the host, so it serves no other host.

use crate::machine::{self, Exit};
use mk_ipi_abi::{Incarnation, InstanceId};

/// The type of the endpoint of a kernel that serves, which a guest does not have.
pub struct Nobody;
/// Takes the place of that endpoint.
pub static SERVER: Nobody = Nobody;

impl Nobody {
    /// Always `None`: a guest does not serve.
    pub fn identity(&self) -> Option<(InstanceId, Incarnation)> {
        None
    }
}

/// Ends the machine.
pub fn give_up(how: Exit) -> ! {
    machine::exit(how)
}
