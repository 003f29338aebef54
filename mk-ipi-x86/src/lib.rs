// SPDX-License-Identifier: MIT OR Apache-2.0
//! The mk-ipi doorbell on x86: the local APIC, in xAPIC mode (memory-mapped) and x2APIC mode (MSRs).
//!
//! [`LocalApic`] is the doorbell. It accesses the registers through one trait, [`ApicIo`]. `Hardware` implements this trait with
//! the CPU's instructions; in the tests an implementation records the accesses.
//!
//! The rest is for kernels without APIC code of their own. [`Mode`] and [`LocalApic::enable`] set an APIC up. [`start_cpu`]
//! starts another CPU, and [`stop_cpu`] stops one; both refuse the CPU that booted the machine ([`LocalApic::boot_cpu`]).
//! [`doorbell_entry`] makes the entry stub of the doorbell's vector.
//!
//! "Intel SDM vol. 3A" is edition 325384-077 (April 2022), which contains all of volume 3, so also "vol. 3B". In this edition the
//! APIC is chapter 10, and multiple processors are chapter 8. In later editions the numbers of these chapters are one higher
//! (10.6.1 is 11.6.1). The titles are the same.
//!
//! # What a kernel must do before it accepts doorbells
//!
//! On a multikernel machine, two kinds of exceptions can reach a kernel because of another kernel, and cannot be masked. Before
//! its first doorbell, a kernel that another kernel started must have an entry for both in its IDT. Each entry needs a stack of
//! its own (IST; with FRED a stack level), because these exceptions can come while the kernel's stack pointer is not valid.
//!
//! - **NMI, vector 2** (Intel SDM vol. 3A, 6.7). Another kernel of the machine sends NMIs to "all but myself", for a backtrace or
//!   when it panics. This shorthand also reaches the CPUs that the kernel has given away (10.6.1). If the cause of an NMI is not
//!   known, the NMI is meant for another kernel: the handler must return, and change nothing. Ordinary interrupts can also be
//!   sent by this shorthand. They come with a vector of the other kernel. Acknowledge them ([`LocalApic::eoi`]) and ignore them.
//!   The kernel itself must not use shorthands: it must name the target CPU, as a doorbell does.
//! - **Machine check, vector 18** (vol. 3B, 15.10). Intel's hardware reports an uncorrected error to all CPUs of the machine,
//!   unless local machine checks are on and the hardware can report the error to the affected CPU alone (15.3.1.5). A spawned
//!   kernel can do one of two things. It can check the banks of its own CPU, and return if they show no error of this CPU and
//!   `MCG_STATUS.RIPV` says that a return is possible. Or it stops its CPU for ever, in a loop of `hlt` with interrupts off. In
//!   both cases it must first clear `MCG_STATUS.MCIP`, because the CPU shuts down if a machine check comes while this bit is set.
//!   The CPU also shuts down if there is no IDT entry for the machine check, or if CR4.MCE is 0. Most machines reset when a CPU
//!   shuts down. The kernel must not reset the machine, because other kernels may still run on it.
//!
//! # Modules
//!
//! Each module uses only modules that stand before it in this list: `regs`, `page`, `icr`, `mode`, `apic`, `start`. `hardware`
//! uses `regs`. `entry` and `alone` (compare and exchange for a kernel with one CPU) use no other module.
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

/// Compiles the example in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
