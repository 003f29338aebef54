// SPDX-License-Identifier: MIT OR Apache-2.0
//! The mk-ipi doorbell on x86: the local APIC, in xAPIC mode (memory-mapped) and x2APIC mode (MSRs).
//!
//! [`LocalApic`] is the doorbell. It accesses the registers through one trait, [`ApicIo`], which `Hardware` implements
//! with real instructions and a test implements with a recorder. Three more parts are for kernels without APIC code of
//! their own: [`Mode`] and [`LocalApic::enable`] set an APIC up; [`start_cpu`] starts another CPU and [`stop_cpu`]
//! stops one, but never the one that booted the machine ([`LocalApic::boot_cpu`]); [`doorbell_entry`] makes the
//! vector's entry stub.
//!
//! "Intel SDM vol. 3A" is edition 325384-077 (April 2022), which contains all of volume 3, so "vol. 3B" too. The APIC
//! is chapter 10 there, and multiple processors are chapter 8. Later editions number these chapters one higher (10.6.1
//! is 11.6.1); the titles are the same.
//!
//! # What a kernel must do before it accepts doorbells
//!
//! A kernel that another one started has CPUs of a machine that is not its own. Two events can reach it that
//! were not sent to it, and that cannot be masked. Both need an entry in its IDT before its first doorbell. Each needs a stack of its
//! own (IST; with FRED a stack level), because they also come when the kernel's stack is not valid.
//!
//! - **NMI, vector 2** (Intel SDM vol. 3A, 6.7). Another kernel of the machine sends NMIs to "all but myself", by a shorthand
//!   that does not know which CPUs were given away (10.6.1): for a backtrace, or when it panics. An NMI without a
//!   known cause is not for this kernel: the handler returns, and changes nothing. An ordinary interrupt sent by shorthand arrives in the
//!   same way, with the other kernel's vector. It is acknowledged ([`LocalApic::eoi`]) and ignored. What the kernel itself sends
//!   must name its CPU, as a doorbell does.
//! - **Machine check, vector 18** (vol. 3B, 15.10). Intel's hardware reports an uncorrected error to all CPUs of the
//!   machine. The exception is an error that it can report to the CPU concerned alone, if local machine checks are on
//!   (15.3.1.5). So a spawned kernel has two choices. It takes part: it looks at its own CPU's banks, and returns if no
//!   error there is its own and `MCG_STATUS.RIPV` says that it can return. Or it stops its CPU for good, in a loop of
//!   `hlt` with interrupts off. Either way it first clears `MCG_STATUS.MCIP`, because a machine check that comes while
//!   that bit is set shuts the CPU down. A machine check that finds no entry, or CR4.MCE clear, shuts the CPU down,
//!   too. Most machines reset when a CPU shuts down. The kernel must not reset the machine, because its other kernels
//!   may live on.
//!
//! # Modules
//!
//! Each module uses only those named before it: `regs`, `page`, `icr`, `mode`, `apic`, `start`. Besides these,
//! `hardware` uses `regs`. `entry` and `alone` (the exchange of a kernel with one CPU) use none.
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

/// The README's example, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
