// SPDX-License-Identifier: MIT OR Apache-2.0
//! The mk-ipi doorbell on x86: the local APIC, in xAPIC mode (memory-mapped) and x2APIC mode (MSRs).
//!
//! [`LocalApic`] is the doorbell. It reaches the registers through one seam, [`ApicIo`], which `Hardware`
//! implements with real instructions and a test with a recorder. For kernels without APIC code of their own
//! there are three parts more: [`Mode`] and [`LocalApic::enable`] set an APIC up, [`start_cpu`] starts
//! another CPU and [`stop_cpu`] stops one, and [`doorbell_entry`] makes the vector's entry stub.
//!
//! "Intel SDM vol. 3A" is edition 325384-077 (April 2022), where the APIC is chapter 10 and multiple
//! processors are chapter 8. Later editions number these chapters one higher (10.6.1 is 11.6.1); the titles
//! are the same.
//!
//! The modules, each of which uses only those named before it: `regs`, `page`, `icr`, `mode`, `apic`, `start`. Beside
//! them stand `hardware` on `regs`, and on nothing `entry` and `alone`, the exchange of a kernel with one CPU.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod alone;
pub mod apic;
#[cfg(target_arch = "x86_64")]
pub mod entry;
#[cfg(test)]
mod fake;
#[cfg(target_arch = "x86_64")]
pub mod hardware;
pub mod icr;
pub mod mode;
pub mod page;
pub mod regs;
pub mod start;

pub use alone::compare_exchange_alone;
pub use apic::{ErrorStatus, LocalApic, SpuriousVector};
#[cfg(target_arch = "x86_64")]
pub use hardware::Hardware;
pub use icr::Icr;
pub use mode::{Mode, ModeError};
pub use page::StartPage;
pub use regs::{ApicIo, Register};
pub use start::{start_cpu, stop_cpu, Microseconds, StartError};
