// SPDX-License-Identifier: MIT OR Apache-2.0
//! The mk-ipi doorbell on arm64: a software generated interrupt (SGI) of a GICv3, sent through the CPU interface's system
//! registers.
//!
//! [`Gic`] is the doorbell. It accesses the registers through one trait, [`GicIo`]. `Hardware` implements this trait with the
//! CPU's instructions; in the tests an implementation records the accesses.
//!
//! A kernel that has no driver for the GIC uses three more calls. The interrupt's handler calls [`Gic::acknowledge`] and
//! [`Gic::eoi`], and each CPU calls [`Gic::enable`]. A kernel that has no code for PSCI uses [`Psci`]. It starts a CPU, stops
//! the CPU that makes the call, and tells whether a CPU is on.
//!
//! "GIC" is the GIC architecture specification, version 3 and 4 (Arm IHI 0069). "Arm ARM" is the architecture reference manual
//! for A-profile (Arm DDI 0487). "PSCI" is the power state coordination interface (Arm DEN 0022). "SMCCC" is the calling
//! convention that PSCI uses (Arm DEN 0028). Their sections are cited by title, because the numbers differ between editions.
//!
//! # What a kernel must do before it accepts doorbells
//!
//! This crate handles the CPU interface. The distributor and the redistributors are memory-mapped, at addresses from the device
//! tree or ACPI. The kernel must set them up (GIC, "Software Generated Interrupts" and "Enabling the distribution of
//! interrupts"):
//!
//! - **Distributor, once for the machine**: affinity routing is on for the Security state (`GICD_CTLR.ARE_NS`, or `ARE`), and
//!   Group 1 is enabled. The machine's first kernel does that. A kernel that another kernel started must not write to the
//!   distributor, because the distributor also routes the interrupts of the other kernels.
//! - **Redistributor, for each CPU of this kernel**: it is awake (`GICR_WAKER`). The doorbell's SGI is in Group 1
//!   (`GICR_IGROUPR0`), has a priority that the priority mask accepts (`GICR_IPRIORITYR`), and is enabled (`GICR_ISENABLER0`).
//!   A former kernel may have left it active or pending: clear both (`GICR_ICACTIVER0`, `GICR_ICPENDR0`). A kernel accesses
//!   only the redistributors of its own CPUs.
//! - **Vectors**: the table at `VBAR_EL1` has an entry for IRQ and an entry for SError. An SError can report an error that
//!   another kernel of the machine caused (Arm ARM, "Asynchronous exception types"). Its handler must not reset the machine,
//!   because other kernels may still run on it.
//!
//! If an SGI comes that the kernel does not use, the kernel acknowledges it, ends it, and ignores it. Such an SGI can come from
//! another kernel: if a CPU sends an SGI to all CPUs except itself (`ICC_SGI1R_EL1.IRM`), the SGI also reaches the CPUs that
//! the sender's kernel has given away.
//!
//! # Modules
//!
//! Each module uses only modules that stand before it in this list: `affinity`, `sgi`, `regs`, `gic`. `hardware` uses `regs` and
//! `psci`. `psci` uses `affinity`.
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

/// Compiles the example in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
