// SPDX-License-Identifier: MIT OR Apache-2.0
//! The mk-ipi doorbell on riscv64: the supervisor software interrupt of another hart, sent by the firmware through SBI.
//! On a machine whose harts have IMSICs it can be a message-signalled interrupt instead ([`Imsic`], with its own trait
//! and requirements).
//!
//! [`SbiDoorbell`] is the doorbell. It accesses firmware and registers through one trait, [`SbiIo`], which `Hardware`
//! implements with real instructions and a test implements with a recorder. More is there for kernels without such code
//! of their own: [`SbiDoorbell::handle`] for the interrupt's handler, and [`Hsm`], which starts a hart, stops the one
//! that calls, and says in which state a hart is.
//!
//! "SBI" is the RISC-V supervisor binary interface specification, version 2.0; "ISA" is volume 1 of the RISC-V instruction set manual
//! (unprivileged, 20240411), "privileged" is volume 2. Their sections are named by title.
//!
//! # What a kernel must do before it accepts doorbells
//!
//! - A trap entry in `stvec` that calls [`SbiDoorbell::handle`] for supervisor software interrupts (`scause` 1 with the
//!   interrupt bit). It clears the interrupt **before** it looks for messages, so that an interrupt that comes in
//!   between is taken again.
//! - `sie.SSIE` set, on each hart that peers can ring.
//! - There is one such interrupt for each hart, and it does not say who rang, or why. A kernel that also uses it
//!   between its own harts looks for messages whenever it comes. An interrupt that another kernel sends without need
//!   does no harm.
//! - [`SbiDoorbell::acknowledge`] before the first message is expected: a former kernel of this hart may have left the interrupt
//!   pending.
//!
//! # Modules
//!
//! Each module uses only those named before it: `sbi`; then `doorbell`, `hsm` and `hardware`, which use `sbi`. `imsic`
//! uses none of them.
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

/// The README's example, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
