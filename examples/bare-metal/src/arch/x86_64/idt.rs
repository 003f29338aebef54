// SPDX-License-Identifier: MIT OR Apache-2.0
//! The IDT. Each exception is reported and ends the machine, except the NMI, which is ignored. [`set`] gives a vector its
//! handler.

use crate::arch::without_interrupts;
use crate::console;
use crate::machine::Exit;
use core::mem::size_of;
use mk_ipi_abi::Vector;
use mk_ipi_core::sync::UnsafeCell;
use x86_64::instructions::tables::lidt;
use x86_64::registers::control::Cr2;
use x86_64::structures::DescriptorTablePointer;
use x86_64::VirtAddr;

/// The distance between two exception stubs of boot.s, in bytes.
const STUB_SIZE: u64 = 16;

/// The vector of NMIs. This kernel uses no NMIs, and another kernel can send an NMI to all CPUs. So the handler returns at
/// once (SPEC A-17). It runs on the stack of IST 1 in boot.s.
const NMI: u64 = 2;

core::arch::global_asm!(".globl ignored_nmi", "ignored_nmi:", "iretq");

/// The vector of double faults. The handler runs on the stack of IST 1 in boot.s, because the current stack may be the cause.
const DOUBLE_FAULT: u64 = 8;

/// A 64-bit interrupt gate: code segment 0x08, ring 0, interrupts off. IST 0 means that the handler runs on the current stack
/// (Intel SDM vol. 3A, 6.14.1).
#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Gate {
    low: u64,
    high: u64,
}

impl Gate {
    /// A gate that is not present. An interrupt on its vector raises an exception.
    const NONE: Self = Self { low: 0, high: 0 };

    fn is_none(&self) -> bool {
        self.low == 0
    }

    const fn to(entry: u64, ist: u64) -> Self {
        let low =
            (entry & 0xffff) | (0x08 << 16) | (ist << 32) | (0x8e00 << 32) | ((entry >> 16 & 0xffff) << 48);
        Self { low, high: entry >> 32 }
    }
}

struct Idt(UnsafeCell<[Gate; 256]>);

// SAFETY: only the kernel's first CPU writes the table, in `init`, `set` and `set_others`, with interrupts off.
unsafe impl Sync for Idt {}

static IDT: Idt = Idt(UnsafeCell::new([Gate::NONE; 256]));

/// Sets the handlers of the exceptions, and loads the IDT.
pub fn init() {
    extern "C" {
        static exception_stubs: u8;
        static ignored_nmi: u8;
    }
    let (stubs, ignored) = (&raw const exception_stubs as u64, &raw const ignored_nmi as u64);
    IDT.0.with_mut(|idt| {
        // SAFETY: interrupts are off since the boot, and no other code writes the table now.
        let gates = unsafe { &mut *idt };
        for (vector, gate) in (0..).zip(&mut gates[..32]) {
            *gate = match vector {
                NMI => Gate::to(ignored, 1),
                DOUBLE_FAULT => Gate::to(stubs + vector * STUB_SIZE, 1),
                _ => Gate::to(stubs + vector * STUB_SIZE, 0),
            };
        }
    });
    load();
}

/// Makes this CPU use the IDT that [`init`] has filled.
pub fn load() {
    let idt = IDT.0.with(|idt| idt as u64);
    let pointer =
        DescriptorTablePointer { limit: (size_of::<[Gate; 256]>() - 1) as u16, base: VirtAddr::new(idt) };
    // SAFETY: the table is a `static`, and every present entry points to code for an interrupt or an exception.
    unsafe { lidt(&pointer) };
}

/// Sets the handler of `vector` to `entry`.
///
/// # Safety
///
/// `entry` is code that an interrupt may enter.
pub unsafe fn set(vector: Vector, entry: unsafe extern "C" fn()) {
    without_interrupts(|| {
        // SAFETY: interrupts are off, and no other CPU writes the table.
        IDT.0.with_mut(|idt| unsafe {
            (*idt)[usize::from(vector.get())] = Gate::to(entry as usize as u64, 0)
        });
    });
}

/// Sets the handler of every vector that has none yet to `entry`. The vectors of exceptions are not changed.
///
/// # Safety
///
/// As for [`set`].
pub unsafe fn set_others(entry: unsafe extern "C" fn()) {
    without_interrupts(|| {
        IDT.0.with_mut(|idt| {
            // SAFETY: interrupts are off, and no other CPU writes the table.
            let gates = unsafe { &mut *idt };
            for gate in gates[32..].iter_mut().filter(|gate| gate.is_none()) {
                *gate = Gate::to(entry as usize as u64, 0);
            }
        });
    });
}

/// The words that an exception and its stub in boot.s push on the stack.
#[repr(C)]
struct ExceptionFrame {
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

#[no_mangle]
extern "C" fn exception(frame: &ExceptionFrame) -> ! {
    let ExceptionFrame { vector, error, rip, rsp, .. } = frame;
    let cr2 = Cr2::read_raw();
    console::fatal(
        format_args!("exception {vector}, error {error:#x}, rip {rip:#x}, rsp {rsp:#x}, cr2 {cr2:#x}"),
        Exit::Exception,
    )
}
