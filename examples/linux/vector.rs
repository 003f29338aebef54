// SPDX-License-Identifier: MIT OR Apache-2.0
//! The doorbell's vector: one of the interrupts of the boot CPU, which never goes offline.
//!
//! It stays on that CPU. The interrupt is excluded from balancing, so Linux refuses a change of its affinity with an
//! error. So senders never need to be told of a change. `/proc/interrupts` counts it.

use crate::failure::{check, refuse, Result};
use crate::platform::ENDPOINT;
use crate::{ffi, stop};
use core::ffi::{c_int, c_void};
use core::ptr;
use mk_ipi_core::abi::Vector;

/// The CPU that peers ring, by Linux's number.
pub const DOORBELL_CPU: u32 = 0;

/// The vector. Dropping it gives it back, and after that no handler runs.
pub struct Doorbell {
    irq: u32,
    /// True if its handler is installed.
    requested: bool,
}

extern "C" fn on_doorbell(_: c_int, _: *mut c_void) -> c_int {
    // `handle_edge_irq` has acknowledged it, and interrupts are off.
    if !stop::is_over() {
        ENDPOINT.on_interrupt();
    }
    // IRQ_HANDLED
    1
}

impl Doorbell {
    /// Takes a vector on the doorbell's CPU.
    pub fn new() -> Result<Self> {
        let mut info = ffi::IrqAllocInfo([0; 256]);
        // SAFETY: the domain exists on every x86 machine with an APIC. `info` asks for nothing special.
        let irq = unsafe {
            let (node, info) = (-1, (&raw mut info).cast());
            ffi::__irq_domain_alloc_irqs(ffi::x86_vector_domain, -1, 1, node, info, false, ptr::null())
        };
        let irq = check(irq, format_args!("no free interrupt"))?;
        let mut doorbell = Self { irq, requested: false };
        // SAFETY: it is this module's interrupt, and nothing else uses it. The affinity is set before the handler; if
        // it were set later, the move would wait for an interrupt.
        let placed = unsafe {
            ffi::__irq_set_handler(irq, ffi::handle_edge_irq as *const c_void, 0, ptr::null());
            ffi::irq_set_affinity(irq, ffi::mk_ipi_glue_cpumask_of(DOORBELL_CPU))
        };
        check(placed, format_args!("interrupt {irq} does not take CPU {DOORBELL_CPU}"))?;
        // SAFETY: the handler lives as long as the module, and `drop` takes it out.
        let requested = unsafe {
            let (flags, name) = (ffi::mk_ipi_glue_irq_flags, c"mk_ipi".as_ptr().cast());
            ffi::request_threaded_irq(irq, on_doorbell, ptr::null(), flags, name, ptr::null_mut())
        };
        check(requested, format_args!("interrupt {irq}"))?;
        doorbell.requested = true;
        // If CPU 0 has no vector left, the kernel takes one of another CPU.
        // SAFETY: it is this module's interrupt.
        if !unsafe { ffi::mk_ipi_glue_irq_is_on(irq, DOORBELL_CPU) } {
            return refuse!(ENOSPC, "no vector left on CPU {DOORBELL_CPU}");
        }
        Ok(doorbell)
    }

    /// The vector that peers send.
    pub fn vector(&self) -> Result<Vector> {
        // SAFETY: it is an interrupt of the vector domain, whose data and configuration live as long as it does.
        let vector = unsafe { (*ffi::irqd_cfg(ffi::irq_get_irq_data(self.irq))).vector };
        match u8::try_from(vector).ok().and_then(Vector::new) {
            Some(vector) => Ok(vector),
            None => refuse!(ENODEV, "interrupt {} has no usable vector: {vector:#x}", self.irq),
        }
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        // SAFETY: made by `new`; `free_irq` waits until no handler runs.
        unsafe {
            if self.requested {
                ffi::free_irq(self.irq, ptr::null_mut());
            }
            ffi::irq_dispose_mapping(self.irq);
        }
    }
}
