// SPDX-License-Identifier: MIT OR Apache-2.0
//! The real CPU interface and the real firmware: each operation is one instruction.

use crate::psci::Conduit;
use crate::regs::{GicIo, SystemRegister};
use core::arch::asm;
use mk_ipi_core::platform::LocalInterrupts;

/// The CPU interface of whichever CPU runs the call, and the interrupt mask of that CPU.
#[derive(Clone, Copy, Debug)]
pub struct Hardware(());

impl Hardware {
    /// The CPU interface.
    ///
    /// # Safety
    ///
    /// Every CPU that uses the object, or a copy, runs at EL1 (or at EL2 with `HCR_EL2.E2H` set) and has a GICv3 or a newer one, whose
    /// system registers no higher exception level traps.
    pub const unsafe fn new() -> Self {
        Self(())
    }
}

// SAFETY: DAIF.I is the switch for IRQs, and a kernel's code is not moved to another CPU while it is set. Doorbells are
// IRQs. The blocks are without `nomem`: they are compiler barriers.
unsafe impl LocalInterrupts for Hardware {
    /// The saved value of DAIF.
    type State = u64;

    #[inline]
    fn disable(&self) -> u64 {
        let before;
        // SAFETY: EL1 may mask its interrupts.
        unsafe {
            asm!("mrs {}, daif", "msr daifset, #2", out(reg) before, options(nostack, preserves_flags))
        };
        before
    }

    #[inline]
    fn restore(&self, before: u64) {
        // SAFETY: a value that DAIF had.
        unsafe { asm!("msr daif, {}", in(reg) before, options(nostack, preserves_flags)) };
    }
}

/// Reads a system register by its name in the manual, or by its encoding.
macro_rules! read {
    ($register:literal) => {{
        let value: u64;
        // SAFETY: the caller of `GicIo::read` promises it.
        unsafe { asm!(concat!("mrs {}, ", $register), out(reg) value, options(nostack, preserves_flags)) };
        value
    }};
}

/// Writes a system register, named in the same way.
macro_rules! write {
    ($register:literal, $value:expr) => {
        // SAFETY: the caller of `GicIo::write` promises it.
        unsafe { asm!(concat!("msr ", $register, ", {}"), in(reg) $value, options(nostack, preserves_flags)) }
    };
}

// SAFETY: each is one instruction, with the effect required. `asm!` blocks are kept in order, and are without `nomem`.
// The encodings are those of the GIC's "AArch64 System register descriptions": op0, op1, CRn, CRm, op2.
unsafe impl GicIo for Hardware {
    // Inlined, so that the code shows which register each write goes to: the check of the disassembly needs that (SPEC
    // AR-3).
    #[inline(always)]
    unsafe fn read(&self, register: SystemRegister) -> u64 {
        use SystemRegister::*;
        match register {
            Mpidr => read!("mpidr_el1"),
            SystemRegisterEnable => read!("s3_0_c12_c12_5"),
            Control => read!("s3_0_c12_c12_4"),
            PriorityMask => read!("s3_0_c4_c6_0"),
            BinaryPoint => read!("s3_0_c12_c12_3"),
            ActivePriorities => read!("s3_0_c12_c9_0"),
            ActivePriorities1 => read!("s3_0_c12_c9_1"),
            ActivePriorities2 => read!("s3_0_c12_c9_2"),
            ActivePriorities3 => read!("s3_0_c12_c9_3"),
            GroupEnable => read!("s3_0_c12_c12_7"),
            Acknowledge => read!("s3_0_c12_c12_0"),
            // Write only: the caller has promised not to read it.
            EndOfInterrupt | SendSgi => 0,
        }
    }

    #[inline(always)]
    unsafe fn write(&self, register: SystemRegister, value: u64) {
        use SystemRegister::*;
        match register {
            SystemRegisterEnable => write!("s3_0_c12_c12_5", value),
            Control => write!("s3_0_c12_c12_4", value),
            PriorityMask => write!("s3_0_c4_c6_0", value),
            BinaryPoint => write!("s3_0_c12_c12_3", value),
            ActivePriorities => write!("s3_0_c12_c9_0", value),
            ActivePriorities1 => write!("s3_0_c12_c9_1", value),
            ActivePriorities2 => write!("s3_0_c12_c9_2", value),
            ActivePriorities3 => write!("s3_0_c12_c9_3", value),
            GroupEnable => write!("s3_0_c12_c12_7", value),
            EndOfInterrupt => write!("s3_0_c12_c12_1", value),
            SendSgi => write!("s3_0_c12_c11_5", value),
            // Read only: the caller has promised not to write it.
            Mpidr | Acknowledge => {}
        }
    }

    #[inline(always)]
    fn fence_before_doorbell(&self) {
        // SAFETY: a barrier only orders accesses.
        unsafe { asm!("dsb ishst", options(nostack, preserves_flags)) }
    }

    #[inline(always)]
    fn synchronize(&self) {
        // SAFETY: as above.
        unsafe { asm!("isb", options(nostack, preserves_flags)) }
    }

    #[inline(always)]
    fn settle(&self) {
        // SAFETY: as above.
        unsafe { asm!("dsb sy", options(nostack, preserves_flags)) }
    }
}

/// Declares a way to call the firmware.
macro_rules! conduit {
    ($(#[$meta:meta])* $name:ident, $instruction:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name;

        // SAFETY: it is the one instruction, without `nomem`, and names all registers that SMCCC lets the call change.
        unsafe impl Conduit for $name {
            unsafe fn call(&self, function: u32, args: [u64; 3]) -> u64 {
                let [x1, x2, x3] = args;
                let mut x0 = u64::from(function);
                // SAFETY: the caller promises it.
                unsafe {
                    asm!(
                        $instruction,
                        inout("x0") x0, inout("x1") x1 => _, inout("x2") x2 => _, inout("x3") x3 => _,
                        out("x4") _, out("x5") _, out("x6") _, out("x7") _, out("x8") _, out("x9") _, out("x10") _,
                        out("x11") _, out("x12") _, out("x13") _, out("x14") _, out("x15") _, out("x16") _,
                        out("x17") _,
                        options(nostack),
                    );
                }
                x0
            }
        }
    };
}

conduit! {
    /// The firmware is called by `hvc #0`: under a hypervisor, or one that emulates it.
    Hvc, "hvc #0"
}
conduit! {
    /// The firmware is called by `smc #0`.
    Smc, "smc #0"
}
