// SPDX-License-Identifier: MIT OR Apache-2.0
//! Access to the real CPU interface and to the firmware by the CPU's instructions.

use crate::psci::Conduit;
use crate::regs::{GicIo, SystemRegister};
use core::arch::asm;
use mk_ipi_core::platform::LocalInterrupts;

/// The real CPU interface, and the interrupt mask. Each call accesses those of the CPU that runs the call.
#[derive(Clone, Copy, Debug)]
pub struct Hardware(());

impl Hardware {
    /// Makes the object.
    ///
    /// # Safety
    ///
    /// Every CPU that uses the object, or a copy of it, runs at EL1 (or at EL2 with `HCR_EL2.E2H` set) and has a GICv3 or newer.
    /// No higher exception level traps the GIC's system registers.
    pub const unsafe fn new() -> Self {
        Self(())
    }
}

// SAFETY: doorbells are IRQs. While DAIF.I is set, the CPU takes no IRQs, and a kernel does not move its code to another CPU. The
// `asm!` blocks do not have the option `nomem`, so they are compiler barriers.
unsafe impl LocalInterrupts for Hardware {
    /// The value of DAIF before `disable`.
    type State = u64;

    #[inline]
    fn disable(&self) -> u64 {
        let before;
        // SAFETY: code at EL1 may mask its interrupts.
        unsafe {
            asm!("mrs {}, daif", "msr daifset, #2", out(reg) before, options(nostack, preserves_flags))
        };
        before
    }

    #[inline]
    fn restore(&self, before: u64) {
        // SAFETY: `before` is a value that DAIF had.
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

/// Writes a system register by its name in the manual, or by its encoding.
macro_rules! write {
    ($register:literal, $value:expr) => {
        // SAFETY: the caller of `GicIo::write` promises it.
        unsafe { asm!(concat!("msr ", $register, ", {}"), in(reg) $value, options(nostack, preserves_flags)) }
    };
}

// SAFETY: each method is one instruction with the required effect. The compiler keeps the order of `asm!` blocks, and the blocks
// do not have the option `nomem`. The encodings (op0, op1, CRn, CRm, op2) are from GIC, "AArch64 System register descriptions".
unsafe impl GicIo for Hardware {
    // `read` and `write` are inlined, so that `register` is a constant and the match disappears. The check of the disassembly
    // needs this to find the writes of ICC_SGI1R_EL1 (SPEC AR-3).
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
            // Write only: the caller has promised not to read them.
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
            // Read only: the caller has promised not to write them.
            Mpidr | Acknowledge => {}
        }
    }

    #[inline(always)]
    fn fence_before_doorbell(&self) {
        // SAFETY: a barrier only orders accesses and instructions.
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

/// Declares a type that calls the firmware by `$instruction`.
macro_rules! conduit {
    ($(#[$meta:meta])* $name:ident, $instruction:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name;

        // SAFETY: `call` is this one instruction. The block does not have the option `nomem`, and its operands name all registers
        // that the call can change according to SMCCC.
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
    /// Calls the firmware by `hvc #0`. This is the call if a hypervisor implements PSCI.
    Hvc, "hvc #0"
}
conduit! {
    /// Calls the firmware by `smc #0`.
    Smc, "smc #0"
}
