// SPDX-License-Identifier: MIT OR Apache-2.0
//! The mk-ipi doorbell on arm64: a software generated interrupt (SGI) of a GICv3, sent through the CPU interface's system
//! registers.
//!
//! [`Gic`] is the doorbell. It accesses the registers through one trait, [`GicIo`], which `Hardware` implements with
//! real instructions and a test implements with a recorder. More is there for kernels without such code of their own:
//! [`Gic::acknowledge`] and [`Gic::eoi`] for the interrupt's handler, [`Gic::enable`] for each CPU, and [`Psci`], which
//! starts a CPU, stops the one that calls, and says which are on.
//!
//! "GIC" is the GIC architecture specification, version 3 and 4 (Arm IHI 0069); "Arm ARM" is the architecture reference
//! manual for A-profile (Arm DDI 0487); "PSCI" is the power state coordination interface (Arm DEN 0022); "SMCCC" is the
//! calling convention that it uses (Arm DEN 0028). Their sections are cited by title, because their numbers differ between editions.
//!
//! # What a kernel must do before it accepts doorbells
//!
//! This crate handles the CPU interface. The distributor and the redistributors are memory-mapped, at addresses from the device tree
//! or ACPI. The kernel must set them up (GIC, "Software Generated Interrupts" and "Enabling the distribution of interrupts"):
//!
//! - **Distributor, once for the machine**: affinity routing on for the Security state (`GICD_CTLR.ARE_NS`, or `ARE`), Group 1
//!   enabled. The machine's first kernel does that. A kernel that another one started must not touch it: the distributor routes
//!   the other kernels' interrupts, too.
//! - **Redistributor, for each CPU of this kernel**: awake (`GICR_WAKER`); the doorbell's SGI in Group 1 (`GICR_IGROUPR0`), with
//!   a priority that is let through (`GICR_IPRIORITYR`), enabled (`GICR_ISENABLER0`), and neither active nor pending from a former
//!   kernel (`GICR_ICACTIVER0`, `GICR_ICPENDR0`). A kernel touches those of its own CPUs only.
//! - **Vectors**: an entry for IRQ in the table at `VBAR_EL1`, and one for SError, which can report an error that another
//!   kernel of the machine caused (Arm ARM, "Asynchronous exception types"). Its handler must not reset the machine, because
//!   other kernels may live on.
//!
//! An SGI that the kernel does not know is acknowledged, ended and ignored: another kernel that sends to "all but myself"
//! (`ICC_SGI1R_EL1.IRM`) does not know which CPUs were given away.
//!
//! # Modules
//!
//! Each module uses only those named before it: `affinity`, `sgi`, `regs`, `gic`. Besides these, `hardware` uses
//! `regs`, and `psci` uses `affinity`.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod affinity;
#[cfg(test)]
mod fake;
pub mod gic;
#[cfg(target_arch = "aarch64")]
pub mod hardware;
#[cfg(all(test, loom))]
mod loom_tests;
pub mod psci;
pub mod regs;
pub mod sgi;

pub use affinity::Affinity;
pub use gic::{Gic, GicError, Interrupt};
#[cfg(target_arch = "aarch64")]
pub use hardware::{Hardware, Hvc, Smc};
pub use psci::{Conduit, PowerState, Psci, PsciError};
pub use regs::{GicIo, SystemRegister};
pub use sgi::{Sgi, SgiCommand};

/// The README's example, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
