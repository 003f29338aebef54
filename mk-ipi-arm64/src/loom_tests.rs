// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs the doorbell in every interleaving that loom finds. The receiver must miss no message for which an SGI was sent (SPEC
//! AR-3, AR-5).

use crate::gic::Gic;
use crate::regs::{GicIo, SystemRegister as Reg};
use mk_ipi_abi::{PhysCpuId, Vector};
use mk_ipi_core::platform::Doorbell;
use mk_ipi_core::sync::line::{nothing_is_missed, Line};
use mk_ipi_core::sync::{fence, Ordering};

// SAFETY: a `Line` is a model, and accesses no GIC.
unsafe impl GicIo for &Line {
    unsafe fn read(&self, register: Reg) -> u64 {
        match register {
            Reg::SystemRegisterEnable => 1,
            Reg::Acknowledge if self.take() => 1,
            Reg::Acknowledge => 1023,
            _ => 0,
        }
    }
    unsafe fn write(&self, register: Reg, _: u64) {
        if register == Reg::SendSgi {
            self.raise();
        }
    }
    fn fence_before_doorbell(&self) {
        fence(Ordering::Release);
    }
    // It does nothing, because `isb` does not order accesses to memory.
    fn synchronize(&self) {}
    fn settle(&self) {
        fence(Ordering::Acquire);
    }
}

fn gic(line: &Line) -> Gic<&Line> {
    Gic::new(line).unwrap()
}

/// Sends SGI 1.
fn rings(line: &Line) {
    gic(line).ring(PhysCpuId(0), Vector::of_number(1).unwrap()).unwrap();
}

/// Acknowledges and ends the SGI, if it is pending.
fn takes(line: &Line) {
    // SAFETY: a `Line` interrupts no CPU.
    unsafe {
        if let Some(interrupt) = gic(line).acknowledge() {
            gic(line).eoi(interrupt);
        }
    }
}

#[test]
fn loom_what_an_sgi_is_sent_for_is_not_missed() {
    nothing_is_missed(rings, |line, look| {
        takes(line);
        look();
    });
}

#[test]
#[should_panic(expected = "a message was missed")]
fn loom_broken_who_acknowledges_behind_the_look_misses_a_message() {
    nothing_is_missed(rings, |line, look| {
        look();
        takes(line);
    });
}
