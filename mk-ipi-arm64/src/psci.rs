// SPDX-License-Identifier: MIT OR Apache-2.0
//! Start and stop of CPUs by the firmware: PSCI (Arm DEN 0022).
//!
//! Any CPU can start another one, but a CPU can only stop itself: PSCI has no call that stops another CPU. So a kernel
//! that hangs keeps its CPU. To get it back, that kernel must run [`Psci::cpu_off`], or the machine must be reset.

use crate::affinity::Affinity;
use mk_ipi_abi::{Errno, PhysAddr, PhysCpuId};

/// `PSCI_VERSION` (PSCI, "PSCI_VERSION").
const VERSION: u32 = 0x8400_0000;
/// `CPU_OFF`.
const CPU_OFF: u32 = 0x8400_0002;
/// `CPU_ON`, with 64-bit arguments.
const CPU_ON: u32 = 0xc400_0003;
/// `AFFINITY_INFO`, with 64-bit arguments.
const AFFINITY_INFO: u32 = 0xc400_0004;
/// `SYSTEM_OFF`.
const SYSTEM_OFF: u32 = 0x8400_0008;

/// The way to call the firmware: by `hvc` or by `smc`, as the device tree's PSCI node (`method`) or ACPI's FADT says.
///
/// # Implementation safety
///
/// `call` is the one instruction, with the function in W0 and the arguments in X1 to X3. It returns X0; X4 to X17 can
/// change, too (SMCCC, "Register use in SMC64 and HVC64 calls"). It is a compiler barrier: all stores before it are
/// made before it.
pub unsafe trait Conduit {
    /// Calls `function`.
    ///
    /// # Safety
    ///
    /// The firmware is called in this way on this machine, and the caller may cause the effect.
    unsafe fn call(&self, function: u32, args: [u64; 3]) -> u64;
}

/// Why the firmware did not do what it was asked (PSCI, "Return error codes").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PsciError {
    /// No CPU can have this id: it is not an affinity. The firmware was not called.
    NoAffinity(PhysCpuId),
    /// NOT_SUPPORTED: the firmware has no such call.
    NotSupported,
    /// INVALID_PARAMETERS: no CPU has this affinity.
    InvalidParameters,
    /// DENIED.
    Denied,
    /// ALREADY_ON.
    AlreadyOn,
    /// ON_PENDING: the CPU is being started.
    OnPending,
    /// INTERNAL_FAILURE.
    InternalFailure,
    /// NOT_PRESENT.
    NotPresent,
    /// DISABLED.
    Disabled,
    /// INVALID_ADDRESS: code cannot run at the entry address.
    InvalidAddress,
    /// A value that PSCI (Arm DEN 0022) does not name.
    Unknown(i32),
}

impl core::fmt::Display for PsciError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::NoAffinity(cpu) => write!(f, "{:#x} is no affinity of a CPU", cpu.0),
            Self::NotSupported => f.write_str("the firmware does not support the call"),
            Self::InvalidParameters => f.write_str("no CPU has this affinity"),
            Self::Denied => f.write_str("the firmware denied the call"),
            Self::AlreadyOn => f.write_str("the CPU is on already"),
            Self::OnPending => f.write_str("the CPU is being started already"),
            Self::InternalFailure => f.write_str("the firmware failed"),
            Self::NotPresent => f.write_str("the CPU is not present"),
            Self::Disabled => f.write_str("the CPU is disabled"),
            Self::InvalidAddress => f.write_str("the entry address is not allowed"),
            Self::Unknown(value) => write!(f, "the firmware returned {value}"),
        }
    }
}

impl core::error::Error for PsciError {}

impl PsciError {
    /// The result that a return value stands for: 0 and above is no error.
    const fn of(value: i32) -> Result<u32, Self> {
        Err(match value {
            -1 => Self::NotSupported,
            -2 => Self::InvalidParameters,
            -3 => Self::Denied,
            -4 => Self::AlreadyOn,
            -5 => Self::OnPending,
            -6 => Self::InternalFailure,
            -7 => Self::NotPresent,
            -8 => Self::Disabled,
            -9 => Self::InvalidAddress,
            0.. => return Ok(value.unsigned_abs()),
            _ => Self::Unknown(value),
        })
    }

    /// `EBUSY` for a CPU that is on or being started, `EACCES` for one that is denied, else `EINVAL`.
    pub const fn errno(self) -> Errno {
        match self {
            Self::AlreadyOn | Self::OnPending => Errno::EBUSY,
            Self::Denied => Errno::EACCES,
            _ => Errno::EINVAL,
        }
    }
}

/// The power state of a CPU (PSCI, "AFFINITY_INFO").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerState {
    /// On.
    On,
    /// Off: it touches no memory, and can be started.
    Off,
    /// It was started and is not yet on.
    OnPending,
}

/// The firmware.
#[derive(Clone, Copy, Debug)]
pub struct Psci<C> {
    conduit: C,
}

impl<C: Conduit> Psci<C> {
    /// The firmware that is called by `conduit`.
    ///
    /// # Safety
    ///
    /// The machine has PSCI 0.2 or newer, called in this way: the device tree or ACPI says so.
    pub const unsafe fn new(conduit: C) -> Self {
        Self { conduit }
    }

    /// Calls a function that returns 32 bits.
    ///
    /// # Safety
    ///
    /// The caller may cause the effect.
    unsafe fn call(&self, function: u32, args: [u64; 3]) -> Result<u32, PsciError> {
        // SAFETY: `new` was promised the conduit; the caller promises the rest.
        let value = unsafe { self.conduit.call(function, args) };
        // Bits 63:32 mean nothing (SMCCC, "Results from SMC32 and HVC32").
        #[expect(clippy::cast_possible_truncation, reason = "see above")]
        PsciError::of(value as i32)
    }

    /// The version: major, minor.
    pub fn version(&self) -> Result<(u16, u16), PsciError> {
        // SAFETY: it has no effect.
        let version = unsafe { self.call(VERSION, [0; 3]) }?;
        #[expect(clippy::cast_possible_truncation, reason = "halves of a word")]
        Ok(((version >> 16) as u16, version as u16))
    }

    /// Starts the CPU `target` at `entry`, with `context` in its X0. It starts with MMU and caches off, and with
    /// interrupts masked.
    ///
    /// `Ok` says that the firmware accepts the call, not that the CPU came up. The started code should say so in
    /// memory, and the wait for it should be bounded.
    ///
    /// # Safety
    ///
    /// `target` belongs to this kernel. `entry` is code that may run there, and `context` is what that code expects.
    /// All that it needs is in memory and not only in a cache, because it first runs with caches off. (If this kernel's
    /// caches are on, `dc cvac` and `dsb ish` do that; Arm ARM, "A64 Cache maintenance instructions".)
    pub unsafe fn cpu_on(&self, target: PhysCpuId, entry: PhysAddr, context: u64) -> Result<(), PsciError> {
        let target = Affinity::new(target).ok_or(PsciError::NoAffinity(target))?;
        // SAFETY: the caller promises all of it.
        unsafe { self.call(CPU_ON, [target.cpu().0, entry.0, context]) }.map(drop)
    }

    /// Stops the CPU that calls. Returns only if the firmware refuses.
    ///
    /// # Safety
    ///
    /// This CPU is not needed any more. Interrupts are masked, and no interrupt is routed here that another CPU must
    /// take. If its stores are read by a CPU with caches off, they are in memory.
    pub unsafe fn cpu_off(&self) -> PsciError {
        // SAFETY: the caller promises it.
        match unsafe { self.call(CPU_OFF, [0; 3]) } {
            Err(why) => why,
            // A call that succeeds does not return.
            Ok(_) => PsciError::InternalFailure,
        }
    }

    /// The power state of the CPU `target`.
    pub fn affinity_info(&self, target: PhysCpuId) -> Result<PowerState, PsciError> {
        let target = Affinity::new(target).ok_or(PsciError::NoAffinity(target))?;
        // SAFETY: it has no effect. Level 0: this CPU alone.
        match unsafe { self.call(AFFINITY_INFO, [target.cpu().0, 0, 0]) }? {
            0 => Ok(PowerState::On),
            1 => Ok(PowerState::Off),
            2 => Ok(PowerState::OnPending),
            other => Err(PsciError::Unknown(other as i32)),
        }
    }

    /// Switches the machine off, all kernels at once. Returns only if the firmware refuses.
    ///
    /// # Safety
    ///
    /// The machine is not needed any more.
    pub unsafe fn system_off(&self) -> PsciError {
        // SAFETY: the caller promises it.
        match unsafe { self.call(SYSTEM_OFF, [0; 3]) } {
            Err(why) => why,
            Ok(_) => PsciError::InternalFailure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, Op};

    fn psci(fake: &Fake) -> Psci<&Fake> {
        // SAFETY: a fake makes no call.
        unsafe { Psci::new(fake) }
    }

    fn answering(answer: i64) -> Fake {
        Fake { answer: answer as u64, ..Fake::new() }
    }

    #[test]
    fn each_call_has_the_manuals_number_and_arguments() {
        let fake = answering(0x1_0001);
        assert_eq!(psci(&fake).version(), Ok((1, 1)));
        assert_eq!(fake.take(), [Op::Call(0x8400_0000, [0; 3])]);
        let fake = answering(0);
        // SAFETY: as above.
        assert_eq!(unsafe { psci(&fake).cpu_on(PhysCpuId(0x12_0034_5678), PhysAddr(0x4000), 9) }, Ok(()));
        assert_eq!(fake.take(), [Op::Call(0xc400_0003, [0x12_0034_5678, 0x4000, 9])]);
        assert_eq!(psci(&fake).affinity_info(PhysCpuId(3)), Ok(PowerState::On));
        assert_eq!(fake.take(), [Op::Call(0xc400_0004, [3, 0, 0])]);
        // SAFETY: as above.
        let stopped = unsafe { (psci(&fake).cpu_off(), psci(&fake).system_off()) };
        assert_eq!(stopped, (PsciError::InternalFailure, PsciError::InternalFailure), "they must not return");
        assert_eq!(fake.take(), [Op::Call(0x8400_0002, [0; 3]), Op::Call(0x8400_0008, [0; 3])]);
    }

    #[test]
    fn each_error_has_the_manuals_number_in_32_bits_and_in_64() {
        use PsciError::*;
        let errors = [
            NotSupported,
            InvalidParameters,
            Denied,
            AlreadyOn,
            OnPending,
            InternalFailure,
            NotPresent,
            Disabled,
            InvalidAddress,
            Unknown(-10),
            Unknown(i32::MIN),
        ];
        let numbers = (1..=10).map(|n: i64| -n).chain([i64::from(i32::MIN)]);
        for (error, number) in errors.into_iter().zip(numbers) {
            for answer in [number, number & 0xffff_ffff] {
                let fake = answering(answer);
                // SAFETY: as above.
                assert_eq!(unsafe { psci(&fake).cpu_on(PhysCpuId(1), PhysAddr(0), 0) }, Err(error));
                // SAFETY: as above.
                assert_eq!(unsafe { psci(&fake).cpu_off() }, error);
                assert_eq!(psci(&fake).affinity_info(PhysCpuId(1)), Err(error));
            }
        }
    }

    #[test]
    fn a_power_state_is_0_1_or_2() {
        let state = |answer| psci(&answering(answer)).affinity_info(PhysCpuId(1));
        assert_eq!((state(1), state(2)), (Ok(PowerState::Off), Ok(PowerState::OnPending)));
        assert_eq!(state(3), Err(PsciError::Unknown(3)));
    }

    #[test]
    fn an_id_that_is_no_affinity_is_not_passed_on() {
        let fake = answering(0);
        let cpu = PhysCpuId(1 << 24);
        assert_eq!(psci(&fake).affinity_info(cpu), Err(PsciError::NoAffinity(cpu)));
        // SAFETY: as above.
        assert_eq!(unsafe { psci(&fake).cpu_on(cpu, PhysAddr(0), 0) }, Err(PsciError::NoAffinity(cpu)));
        assert_eq!(fake.take(), []);
    }

    #[test]
    fn errors_have_numbers() {
        assert_eq!(PsciError::AlreadyOn.errno(), Errno::EBUSY);
        assert_eq!(PsciError::OnPending.errno(), Errno::EBUSY);
        assert_eq!(PsciError::Denied.errno(), Errno::EACCES);
        assert_eq!(PsciError::NoAffinity(PhysCpuId(0)).errno(), Errno::EINVAL);
    }
}
