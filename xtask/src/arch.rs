// SPDX-License-Identifier: MIT OR Apache-2.0
//! The architectures for which this repository has kernels.

use std::fmt;

use clap::ValueEnum;

use crate::record::Mode;

/// An architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lowercase")]
pub enum Arch {
    /// x86-64.
    #[value(name = "x86")]
    X86,
    /// arm64, with a GICv3.
    Arm64,
    /// riscv64. Doorbells are sent through the SBI firmware, or through IMSICs.
    Riscv64,
}

/// The bare-metal targets of all architectures.
pub const TARGETS: [&str; 3] = [Arch::X86.target(), Arch::Arm64.target(), Arch::Riscv64.target()];

impl Arch {
    /// All architectures.
    pub const ALL: [Self; 3] = [Self::X86, Self::Arm64, Self::Riscv64];

    /// The compiler's target for everything that a kernel links.
    pub const fn target(self) -> &'static str {
        match self {
            Self::X86 => "x86_64-unknown-none",
            Self::Arm64 => "aarch64-unknown-none",
            Self::Riscv64 => "riscv64gc-unknown-none-elf",
        }
    }

    /// The result of [`Arch::target`], as a list with one entry.
    pub const fn targets(self) -> &'static [&'static str] {
        const X86: &[&str] = &[Arch::X86.target()];
        const ARM64: &[&str] = &[Arch::Arm64.target()];
        const RISCV64: &[&str] = &[Arch::Riscv64.target()];
        match self {
            Self::X86 => X86,
            Self::Arm64 => ARM64,
            Self::Riscv64 => RISCV64,
        }
    }

    /// The crates that a kernel on this architecture links.
    pub const fn crates(self) -> [&'static str; 6] {
        let doorbell = match self {
            Self::X86 => "mk-ipi-x86",
            Self::Arm64 => "mk-ipi-arm64",
            Self::Riscv64 => "mk-ipi-riscv",
        };
        ["mk-ipi", "mk-ipi-abi", "mk-ipi-core", "mk-ipi-net", "mk-ipi-services", doorbell]
    }

    /// The address at which the memory of QEMU's machine begins (the same as in examples/bare-metal/src/arch).
    pub const fn ram(self) -> u64 {
        match self {
            Self::X86 => 0,
            Self::Arm64 => 0x4000_0000,
            Self::Riscv64 => 0x8000_0000,
        }
    }

    /// The modes of the interrupt controller in which the kernels can run.
    pub const fn modes(self) -> &'static [Mode] {
        match self {
            Self::X86 => &[Mode::Xapic, Mode::X2apic],
            Self::Arm64 => &[Mode::Gicv3],
            Self::Riscv64 => &[Mode::Sbi, Mode::Imsic],
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X86 => "x86-64",
            Self::Arm64 => "arm64",
            Self::Riscv64 => "riscv64",
        })
    }
}
