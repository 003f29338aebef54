// SPDX-License-Identifier: MIT OR Apache-2.0
//! The architectures that there are kernels for.

use clap::ValueEnum;

/// An architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lowercase")]
pub enum Arch {
    /// x86-64.
    #[value(name = "x86")]
    X86,
    /// arm64, with a GICv3.
    Arm64,
    /// riscv64, with an SBI firmware.
    Riscv64,
}

/// The bare-metal targets of all of them.
pub const TARGETS: [&str; 3] = [Arch::X86.target(), Arch::Arm64.target(), Arch::Riscv64.target()];

impl Arch {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::X86, Self::Arm64, Self::Riscv64];

    /// The target of everything that a kernel links.
    pub const fn target(self) -> &'static str {
        match self {
            Self::X86 => "x86_64-unknown-none",
            Self::Arm64 => "aarch64-unknown-none",
            Self::Riscv64 => "riscv64gc-unknown-none-elf",
        }
    }

    /// The crates that a kernel links.
    pub const fn crates(self) -> [&'static str; 3] {
        let doorbell = match self {
            Self::X86 => "mk-ipi-x86",
            Self::Arm64 => "mk-ipi-arm64",
            Self::Riscv64 => "mk-ipi-riscv",
        };
        ["mk-ipi-abi", "mk-ipi-core", doorbell]
    }
}
