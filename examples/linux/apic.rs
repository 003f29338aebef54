// SPDX-License-Identifier: MIT OR Apache-2.0
//! The local APIC, accessed as Linux requires: the ICR has one owner, the APIC driver. These are the driver's entry
//! points. mk-ipi-x86 does the encodings, the ordering, the wait for an idle ICR and the start of a CPU.

use crate::ffi;
use crate::platform::Linux;
use mk_ipi_core::abi::PhysCpuId;
use mk_ipi_core::platform::LocalInterrupts;
use mk_ipi_x86::{ApicIo, Hardware, LocalApic, ModeError, Register};

/// The registers, through the driver.
#[derive(Clone, Copy, Debug)]
pub struct DriverIo(Hardware);

/// The doorbell.
pub type Apic = LocalApic<DriverIo>;

/// The APIC of this machine, in the mode in which Linux runs it, which is the same on all CPUs. It is told the boot
/// CPU, whichever CPU runs this: Linux gives number 0 to the CPU on which it started. A Linux that another one started
/// after a crash (kdump) may have started on another CPU. It then never brings up the machine's boot CPU, so that CPU
/// cannot be given away.
pub fn open() -> Result<Apic, ModeError> {
    // SAFETY: ring 0. Without a page it is used only for MSRs, CPUID and fences, which need no page.
    let apic = LocalApic::new(DriverIo(unsafe { Hardware::new(None) }))?;
    // SAFETY: there is always a CPU 0.
    let boot = unsafe { ffi::mk_ipi_glue_apic_id(0) };
    Ok(apic.with_boot_cpu(PhysCpuId(boot.into())))
}

// SAFETY: Linux's own switch, which also keeps the task on its CPU.
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

// SAFETY: `mmio_read` and `mmio_write` are the driver's `read` and `write`. In xAPIC mode each is one access to the UC
// page. Calls of functions whose code the compiler does not see are compiler barriers. The x2APIC's ICR goes to the
// driver, too; the driver does not fence, but `fence_before_doorbell` does. The rest is the hardware's.
unsafe impl ApicIo for DriverIo {
    #[inline]
    unsafe fn rdmsr(&self, msr: u32) -> u64 {
        // SAFETY: the caller promises it.
        unsafe { self.0.rdmsr(msr) }
    }

    #[inline]
    unsafe fn wrmsr(&self, msr: u32, value: u64) {
        if msr == Register::IcrLow.msr() {
            // SAFETY: the driver's entry point; the caller may cause the effect.
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
        // SAFETY: the driver's entry point.
        unsafe { ffi::mk_ipi_glue_apic_read(register.offset()) }
    }

    unsafe fn mmio_write(&self, register: Register, value: u32) {
        // SAFETY: the driver's entry point; the caller may cause the effect.
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
