// SPDX-License-Identifier: MIT OR Apache-2.0
//! The interrupt vector of the doorbell. It belongs to CPU 0, which never goes offline.
//!
//! The interrupt stays on that CPU: it is excluded from balancing, so Linux refuses to change its affinity. So the vector
//! never changes, and senders can keep it. `/proc/interrupts` counts the doorbells.

use crate::failure::{check, refuse, Result};
use crate::platform::ENDPOINT;
use crate::{ffi, stop};
use core::ffi::{c_int, c_void};
use core::ptr;
use mk_ipi_core::abi::Vector;

/// Linux's number of the CPU at which peers ring the doorbell.
pub const DOORBELL_CPU: u32 = 0;

/// The interrupt of the doorbell. Dropping this frees it, and waits until its handler does not run.
pub struct Doorbell {
    irq: u32,
    /// True if the handler is installed.
    requested: bool,
}

extern "C" fn on_doorbell(_: c_int, _: *mut c_void) -> c_int {
    // `handle_edge_irq` has acknowledged the interrupt, and interrupts are off.
    if !stop::is_over() {
        ENDPOINT.on_interrupt();
    }
    // IRQ_HANDLED
    1
}

impl Doorbell {
    /// Allocates a vector on the doorbell's CPU, and installs the handler.
    pub fn new() -> Result<Self> {
        let mut info = ffi::IrqAllocInfo([0; 256]);
        // SAFETY: the domain exists on every x86 machine with an APIC. `info` is all zeros, which is valid.
        let irq = unsafe {
            let (node, info) = (-1, (&raw mut info).cast());
            ffi::__irq_domain_alloc_irqs(ffi::x86_vector_domain, -1, 1, node, info, false, ptr::null())
        };
        let irq = check(irq, format_args!("no free interrupt"))?;
        let mut doorbell = Self { irq, requested: false };
        // SAFETY: it is this module's interrupt, and nothing else uses it. The affinity is set before the handler is
        // installed. If it were set later, Linux would move the interrupt only when the next one arrives.
        let placed = unsafe {
            ffi::__irq_set_handler(irq, ffi::handle_edge_irq as *const c_void, 0, ptr::null());
            ffi::irq_set_affinity(irq, ffi::mk_ipi_glue_cpumask_of(DOORBELL_CPU))
        };
        check(placed, format_args!("interrupt {irq} cannot be moved to CPU {DOORBELL_CPU}"))?;
        // SAFETY: the handler exists as long as the module, and `drop` removes it.
        let requested = unsafe {
            let (flags, name) = (ffi::mk_ipi_glue_irq_flags, c"mk_ipi".as_ptr().cast());
            ffi::request_threaded_irq(irq, on_doorbell, ptr::null(), flags, name, ptr::null_mut())
        };
        check(requested, format_args!("no handler for interrupt {irq}"))?;
        doorbell.requested = true;
        // If CPU 0 has no free vector, Linux takes a vector of another CPU.
        // SAFETY: it is this module's interrupt.
        if !unsafe { ffi::mk_ipi_glue_irq_is_on(irq, DOORBELL_CPU) } {
            return refuse!(ENOSPC, "CPU {DOORBELL_CPU} has no free vector");
        }
        Ok(doorbell)
    }

    /// The vector that peers send.
    pub fn vector(&self) -> Result<Vector> {
        // SAFETY: it is an interrupt of the vector domain. Its data and its configuration exist as long as the interrupt.
        let vector = unsafe { (*ffi::irqd_cfg(ffi::irq_get_irq_data(self.irq))).vector };
        match u8::try_from(vector).ok().and_then(Vector::new) {
            Some(vector) => Ok(vector),
            None => refuse!(ENODEV, "interrupt {} has no usable vector: {vector:#x}", self.irq),
        }
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        // SAFETY: `new` made the interrupt. `free_irq` waits until the handler does not run.
        unsafe {
            if self.requested {
                ffi::free_irq(self.irq, ptr::null_mut());
            }
            ffi::irq_dispose_mapping(self.irq);
        }
    }
}
