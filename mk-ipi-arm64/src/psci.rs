// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starts and stops CPUs by calls of the firmware: PSCI (Arm DEN 0022).
//!
//! Any CPU can start another CPU. But a CPU can only stop itself: PSCI has no call that stops another CPU. So a kernel that hangs
//! keeps its CPU. The CPU becomes free only if that kernel calls [`Psci::cpu_off`] on it, or if the machine is reset.

use crate::affinity::Affinity;
use mk_ipi_abi::{Errno, PhysAddr, PhysCpuId};

/// The function id of `PSCI_VERSION` (PSCI, "PSCI_VERSION").
const VERSION: u32 = 0x8400_0000;
/// The function id of `CPU_OFF`.
const CPU_OFF: u32 = 0x8400_0002;
/// The function id of `CPU_ON` with 64-bit arguments.
const CPU_ON: u32 = 0xc400_0003;
/// The function id of `AFFINITY_INFO` with 64-bit arguments.
const AFFINITY_INFO: u32 = 0xc400_0004;
/// The function id of `SYSTEM_OFF`.
const SYSTEM_OFF: u32 = 0x8400_0008;

/// The instruction that calls the firmware: `hvc` or `smc`. The property `method` of the device tree's PSCI node, or ACPI's FADT,
/// says which one.
///
/// # Implementation safety
///
/// `call` executes this instruction once, with the function id in W0 and the arguments in X1 to X3. It returns X0. The firmware
/// can also change X4 to X17 (SMCCC, "Register use in SMC64 and HVC64 calls"). `call` is a compiler barrier: the compiler moves
/// no earlier store after it.
pub unsafe trait Conduit {
    /// Calls the function with the id `function`.
    ///
    /// # Safety
    ///
    /// On this machine the firmware is called by this instruction. The caller has the right to cause the effect of the function.
    unsafe fn call(&self, function: u32, args: [u64; 3]) -> u64;
}

/// Why a call of the firmware failed (PSCI, "Return error codes").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PsciError {
    /// This id is not an affinity, so no CPU can have it. The firmware was not called.
    NoAffinity(PhysCpuId),
    /// NOT_SUPPORTED: the firmware has no such call.
    NotSupported,
    /// INVALID_PARAMETERS: no CPU has this affinity.
    InvalidParameters,
    /// DENIED: the firmware does not allow the call.
    Denied,
    /// ALREADY_ON: the CPU is on.
    AlreadyOn,
    /// ON_PENDING: an earlier call has started the CPU, and the CPU is not on yet.
    OnPending,
    /// INTERNAL_FAILURE. Also if [`Psci::cpu_off`] or [`Psci::system_off`] returns although the firmware reports success.
    InternalFailure,
    /// NOT_PRESENT: the CPU is not present.
    NotPresent,
    /// DISABLED: the CPU is disabled.
    Disabled,
    /// INVALID_ADDRESS: a CPU cannot start at the entry address.
    InvalidAddress,
    /// A return value that this crate does not know.
    Unknown(i32),
}

impl core::fmt::Display for PsciError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::NoAffinity(cpu) => write!(f, "{:#x} is not the affinity of a CPU", cpu.0),
            Self::NotSupported => f.write_str("the firmware does not support the call"),
            Self::InvalidParameters => f.write_str("no CPU has this affinity"),
            Self::Denied => f.write_str("the firmware denied the call"),
            Self::AlreadyOn => f.write_str("the CPU is on already"),
            Self::OnPending => f.write_str("the CPU is being started already"),
            Self::InternalFailure => f.write_str("the firmware reports an internal failure"),
            Self::NotPresent => f.write_str("the CPU is not present"),
            Self::Disabled => f.write_str("the CPU is disabled"),
            Self::InvalidAddress => f.write_str("the entry address is not allowed"),
            Self::Unknown(value) => write!(f, "the firmware returned an unknown value: {value}"),
        }
    }
}

impl core::error::Error for PsciError {}

impl PsciError {
    /// Converts a return value of the firmware: `Ok` if it is 0 or above, else the error.
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

    /// `EBUSY` for [`AlreadyOn`](Self::AlreadyOn) and [`OnPending`](Self::OnPending), `EACCES` for [`Denied`](Self::Denied), else
    /// `EINVAL`.
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
    /// The CPU is on.
    On,
    /// The CPU is off: it accesses no memory, and it can be started.
    Off,
    /// The CPU was started, and is not on yet.
    OnPending,
}

/// The PSCI calls of the firmware.
#[derive(Clone, Copy, Debug)]
pub struct Psci<C> {
    conduit: C,
}

impl<C: Conduit> Psci<C> {
    /// Makes the object. `conduit` calls the firmware.
    ///
    /// # Safety
    ///
    /// According to the device tree or ACPI, the machine has PSCI 0.2 or newer, and it is called by the instruction of `conduit`.
    pub const unsafe fn new(conduit: C) -> Self {
        Self { conduit }
    }

    /// Calls a function that returns 32 bits.
    ///
    /// # Safety
    ///
    /// The caller has the right to cause the effect of the function.
    unsafe fn call(&self, function: u32, args: [u64; 3]) -> Result<u32, PsciError> {
        // SAFETY: the caller of `new` promised that `conduit` is right. The caller of this method promises the rest.
        let value = unsafe { self.conduit.call(function, args) };
        // Bits 63:32 have no meaning (SMCCC, "Results from SMC32 and HVC32").
        #[expect(clippy::cast_possible_truncation, reason = "see above")]
        PsciError::of(value as i32)
    }

    /// Returns the version of PSCI: major and minor number.
    pub fn version(&self) -> Result<(u16, u16), PsciError> {
        // SAFETY: the call has no effect.
        let version = unsafe { self.call(VERSION, [0; 3]) }?;
        #[expect(clippy::cast_possible_truncation, reason = "halves of a word")]
        Ok(((version >> 16) as u16, version as u16))
    }

    /// Starts the CPU `target` at the physical address `entry`, with `context` in its X0. It starts with MMU and caches off, and
    /// with interrupts masked.
    ///
    /// `Ok` means that the firmware has accepted the call. It does not mean that the CPU runs. So the started code should write
    /// to memory that it runs, and the caller should wait for this with a time limit.
    ///
    /// # Safety
    ///
    /// `target` belongs to this kernel. `entry` is code that this CPU may execute, and `context` is what this code expects. The
    /// code, and the data that it reads before its caches are on, must be in memory and not only in a cache. If the caches of
    /// this kernel are on, `dc cvac` for each line and then `dsb ish` write them to memory (Arm ARM, "A64 Cache maintenance
    /// instructions").
    pub unsafe fn cpu_on(&self, target: PhysCpuId, entry: PhysAddr, context: u64) -> Result<(), PsciError> {
        let target = Affinity::new(target).ok_or(PsciError::NoAffinity(target))?;
        // SAFETY: the caller promises it.
        unsafe { self.call(CPU_ON, [target.cpu().0, entry.0, context]) }.map(drop)
    }

    /// Stops the CPU that makes the call. Returns only if the firmware refuses.
    ///
    /// # Safety
    ///
    /// This CPU is not needed any more. Its interrupts are masked, and all interrupts that are still needed are routed to other
    /// CPUs. If a CPU with caches off will read stores of this CPU, they are in memory and not only in a cache.
    pub unsafe fn cpu_off(&self) -> PsciError {
        // SAFETY: the caller promises it.
        match unsafe { self.call(CPU_OFF, [0; 3]) } {
            Err(why) => why,
            // A call that succeeds does not return.
            Ok(_) => PsciError::InternalFailure,
        }
    }

    /// Returns the power state of the CPU `target`.
    pub fn affinity_info(&self, target: PhysCpuId) -> Result<PowerState, PsciError> {
        let target = Affinity::new(target).ok_or(PsciError::NoAffinity(target))?;
        // SAFETY: the call has no effect. Level 0 asks about this CPU alone.
        match unsafe { self.call(AFFINITY_INFO, [target.cpu().0, 0, 0]) }? {
            0 => Ok(PowerState::On),
            1 => Ok(PowerState::Off),
            2 => Ok(PowerState::OnPending),
            other => Err(PsciError::Unknown(other as i32)),
        }
    }

    /// Switches the machine off. This ends all of its kernels. Returns only if the firmware refuses.
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
        // SAFETY: a fake does not call the firmware.
        unsafe { Psci::new(fake) }
    }

    /// Makes a fake whose firmware returns `answer`.
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
