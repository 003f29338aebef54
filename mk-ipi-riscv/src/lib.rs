// SPDX-License-Identifier: MIT OR Apache-2.0
//! The mk-ipi doorbell on riscv64: the supervisor software interrupt of another hart, which the firmware sends by SBI. On a
//! machine whose harts have IMSICs, the doorbell can be a message-signalled interrupt instead ([`Imsic`], with a trait and
//! requirements of its own).
//!
//! [`SbiDoorbell`] is the doorbell. It calls the firmware and accesses the registers through one trait, [`SbiIo`]. `Hardware`
//! implements this trait with the hart's instructions; in the tests an implementation records the operations. The rest is for
//! kernels without such code of their own. The interrupt's handler calls [`SbiDoorbell::handle`]. [`Hsm`] starts a hart, stops
//! the hart that makes the call, and tells the state of a hart.
//!
//! "SBI" is the RISC-V supervisor binary interface specification, version 2.0. "ISA" is volume 1 of the RISC-V instruction set
//! manual (unprivileged, 20240411), and "privileged" is volume 2. Their sections are cited by title.
//!
//! # What a kernel must do before it accepts doorbells
//!
//! - The trap entry in `stvec` must call [`SbiDoorbell::handle`] for supervisor software interrupts (`scause` is 1 with the
//!   interrupt bit set). `handle` clears the interrupt **before** it looks for messages. So an interrupt that comes after the
//!   clearing is taken again.
//! - `sie.SSIE` must be 1 on each hart to which peers send doorbells.
//! - Each hart has only one supervisor software interrupt. It does not tell which hart sent it, or why. A kernel that also uses
//!   it between its own harts must look for messages each time it comes. An interrupt without a message does no harm.
//! - Before the first doorbell, the kernel must call [`SbiDoorbell::acknowledge`], because a former kernel of this hart may have
//!   left the interrupt pending.
//!
//! # Modules
//!
//! `sbi` and `imsic` use no other module. `doorbell` and `hsm` use `sbi`. `hardware` uses `sbi` and `imsic`.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod doorbell;
#[cfg(test)]
mod fake;
#[cfg(target_arch = "riscv64")]
pub mod hardware;
pub mod hsm;
pub mod imsic;
#[cfg(all(test, loom))]
mod loom_tests;
pub mod sbi;

pub use doorbell::{SbiDoorbell, SOFTWARE_INTERRUPT};
#[cfg(target_arch = "riscv64")]
pub use hardware::{Hardware, ImsicFiles};
pub use hsm::{HartState, Hsm};
pub use imsic::{Identity, Imsic, ImsicIo};
pub use sbi::{Extension, SbiError, SbiIo, SbiReturn};

/// Compiles the example in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
