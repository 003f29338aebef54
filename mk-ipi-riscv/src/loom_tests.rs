// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs the two doorbells in every interleaving that loom finds. The receiver must miss no message for which a doorbell was sent.

use crate::doorbell::{SbiDoorbell, SOFTWARE_INTERRUPT};
use crate::imsic::{Identity, Imsic, ImsicIo};
use crate::sbi::{Extension, SbiIo, SbiReturn};
use mk_ipi_abi::PhysCpuId;
use mk_ipi_core::platform::Doorbell;
use mk_ipi_core::sync::line::{nothing_is_missed, Line};
use mk_ipi_core::sync::{fence, Ordering};

/// The hart that the modelled interrupt line interrupts.
const HART: PhysCpuId = PhysCpuId(0);

// SAFETY: a `Line` is a model. It does not call the firmware, and interrupts no hart.
unsafe impl SbiIo for &Line {
    unsafe fn call(&self, extension: Extension, _: u64, _: [u64; 3]) -> SbiReturn {
        if extension == Extension::Ipi {
            self.raise();
        }
        SbiReturn { error: 0, value: 1 }
    }
    fn fence_before_doorbell(&self) {
        fence(Ordering::Release);
    }
    fn clear_software_interrupt(&self) {
        self.take();
    }
    fn fence_after_clear(&self) {
        fence(Ordering::Acquire);
    }
}

// SAFETY: a `Line` is a model, and accesses no interrupt file.
unsafe impl ImsicIo for &Line {
    fn has_file(&self, _: PhysCpuId) -> bool {
        true
    }
    unsafe fn send(&self, _: PhysCpuId, _: Identity) {
        fence(Ordering::Release);
        self.raise();
    }
    unsafe fn write(&self, _: u64, _: u64) {}
    unsafe fn claim(&self) -> u64 {
        u64::from(self.take()) << 16
    }
    fn fence_after_claim(&self) {
        fence(Ordering::Acquire);
    }
}

fn sbi(line: &Line) -> SbiDoorbell<&Line> {
    SbiDoorbell::new(line).unwrap()
}

fn imsic(line: &Line) -> Imsic<&Line> {
    // SAFETY: a `Line` accesses no interrupt file.
    unsafe { Imsic::new(line) }
}

fn rings_by_sbi(line: &Line) {
    sbi(line).ring(HART, SOFTWARE_INTERRUPT).unwrap();
}

/// SPEC RV-3 and RV-5.
#[test]
fn loom_what_the_firmware_is_called_for_is_not_missed() {
    nothing_is_missed(rings_by_sbi, |line, look| sbi(line).handle(look));
}

/// Shows that the order in [`SbiDoorbell::handle`] is necessary. With the other order, a message is missed if it comes after the
/// receiver has looked for messages, and before it clears the interrupt.
#[test]
#[should_panic(expected = "a message was missed")]
fn loom_broken_who_clears_behind_the_look_misses_a_message() {
    nothing_is_missed(rings_by_sbi, |line, look| {
        look();
        sbi(line).acknowledge();
    });
}

/// SPEC RV-7.
#[test]
fn loom_what_an_imsic_is_written_for_is_not_missed() {
    nothing_is_missed(
        |line| imsic(line).ring(HART, SOFTWARE_INTERRUPT).unwrap(),
        |line, look| {
            // SAFETY: a `Line` interrupts no CPU.
            while unsafe { imsic(line).claim() }.is_some() {
                look();
            }
        },
    );
}
