// SPDX-License-Identifier: MIT OR Apache-2.0
//! Access to the local APIC through Linux's APIC driver, because in Linux only this driver writes the ICR. mk-ipi-x86
//! encodes the values, orders the memory accesses, waits for an idle ICR, and does the steps of the start of a CPU.

use crate::ffi;
use crate::platform::Linux;
use mk_ipi_core::abi::PhysCpuId;
use mk_ipi_core::platform::LocalInterrupts;
use mk_ipi_x86::{ApicIo, Hardware, LocalApic, ModeError, Register};

/// Accesses the registers of the APIC through the driver. Other MSRs are accessed directly.
#[derive(Clone, Copy, Debug)]
pub struct DriverIo(Hardware);

/// The local APIC, which sends the doorbells.
pub type Apic = LocalApic<DriverIo>;

/// Opens the APIC of this machine in the mode that Linux has set (xAPIC or x2APIC), which is the same on all CPUs.
///
/// The result knows the machine's boot CPU, on whichever CPU this function runs. The boot CPU is CPU 0, because Linux gives
/// number 0 to the CPU on which it started. A Linux that was started after a crash (kdump) can have started on another CPU.
/// Such a Linux never brings up the machine's boot CPU, so it cannot give that CPU away.
pub fn open() -> Result<Apic, ModeError> {
    // SAFETY: ring 0. Without the APIC's page, `Hardware` is used only for MSRs, CPUID and fences, which need no page.
    let apic = LocalApic::new(DriverIo(unsafe { Hardware::new(None) }))?;
    // SAFETY: CPU 0 exists.
    let boot = unsafe { ffi::mk_ipi_glue_apic_id(0) };
    Ok(apic.with_boot_cpu(PhysCpuId(boot.into())))
}

// SAFETY: these are Linux's own calls, which also keep the task on its CPU.
unsafe impl LocalInterrupts for DriverIo {
    type State = u64;
    #[inline]
    fn disable(&self) -> u64 {
        Linux.disable()
    }
    #[inline]
    fn restore(&self, state: u64) {
        Linux.restore(state);
    }
}

// SAFETY: `mmio_read` and `mmio_write` call the driver's `read` and `write`. In xAPIC mode each of them does one access
// to the APIC's page, which is mapped uncacheable. The compiler does not see the code of these functions, so it does not
// move memory accesses across the calls. In x2APIC mode the driver writes the ICR, too. The driver executes no fence, but
// `fence_before_doorbell` does. All other functions are those of `Hardware`.
unsafe impl ApicIo for DriverIo {
    #[inline]
    unsafe fn rdmsr(&self, msr: u32) -> u64 {
        // SAFETY: the caller promises it.
        unsafe { self.0.rdmsr(msr) }
    }

    #[inline]
    unsafe fn wrmsr(&self, msr: u32, value: u64) {
        if msr == Register::IcrLow.msr() {
            // SAFETY: it is the driver's function. The caller is allowed to send this interrupt.
            unsafe { ffi::mk_ipi_glue_apic_icr_write(value as u32, (value >> 32) as u32) };
        } else {
            // SAFETY: the caller promises it.
            unsafe { self.0.wrmsr(msr, value) };
        }
    }

    fn has_mmio(&self) -> bool {
        true
    }

    unsafe fn mmio_read(&self, register: Register) -> u32 {
        // SAFETY: it is the driver's function, which reads a register.
        unsafe { ffi::mk_ipi_glue_apic_read(register.offset()) }
    }

    unsafe fn mmio_write(&self, register: Register, value: u32) {
        // SAFETY: it is the driver's function. The caller is allowed to write this value.
        unsafe { ffi::mk_ipi_glue_apic_write(register.offset(), value) };
    }

    fn has_x2apic(&self) -> bool {
        self.0.has_x2apic()
    }

    fn long_id(&self) -> Option<u32> {
        self.0.long_id()
    }

    #[inline]
    fn fence_before_doorbell(&self) {
        self.0.fence_before_doorbell();
    }
}
