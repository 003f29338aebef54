// SPDX-License-Identifier: MIT OR Apache-2.0
//! The entry stub of the doorbell's vector.

/// Declares an interrupt entry, for the IDT's gate of the doorbell's vector.
///
/// It declares `unsafe extern "C" fn my_entry()`, whose address goes into an interrupt gate (one that clears
/// IF). Code must not call it. The stub calls the handler, which does the EOI, and returns to what was
/// interrupted with every integer register as it was. The symbol is `mk_ipi_entry_my_entry`.
///
/// ```
/// extern "C" fn my_handler() { /* end of interrupt, then the slot */ }
/// mk_ipi_x86::doorbell_entry!(pub fn my_entry => my_handler);
/// # fn main() {}
/// ```
///
/// A macro over `global_asm!`, because naked functions came with Rust 1.88.
///
/// Requirements for the kernel:
/// - Its code is built without SSE and x87, as for `x86_64-unknown-none`, or its handler saves what it uses:
///   the stub saves integer registers only.
/// - Its code is built without a red zone, as for `x86_64-unknown-none`, or the gate has a stack of its own
///   (IST): the CPU itself overwrites a red zone with its frame, before the stub runs.
/// - It interrupts ring 0 only, or the handler does not use GS: there is no `swapgs`.
/// - The handler does not unwind.
///
/// A kernel may have control-flow enforcement on (CR4.CET; Intel SDM vol. 1, "Control-Flow Enforcement Technology (CET)"):
/// - Supervisor indirect branch tracking (`IA32_S_CET.ENDBR_EN`): an interrupt through the IDT must arrive at
///   `endbr64`, with which the stub begins. It calls its handler directly, so the handler needs none. The CPU does
///   nothing at an `endbr64` without tracking, and so do CPUs that have none.
/// - Supervisor shadow stacks (`IA32_S_CET.SH_STK_EN`): the stub needs to do nothing more. The interrupt pushes CS, the
///   return address and the old shadow stack pointer onto the shadow stack. `iretq` pops them and compares the first
///   two with the frame on the stack. They match, because the stub does not change its frame and each call in it
///   returns. The handler must keep to this, too: it must not change the return address and must not jump out. A gate
///   with a stack of its own (IST) has a shadow stack of its own too, in the table of `IA32_INTERRUPT_SSP_TABLE_ADDR`.
///   An interrupt from ring 3 needs one in `IA32_PL0_SSP`.
///
/// # Kernels with FRED
///
/// With CR4.FRED set no interrupt goes through the IDT (Intel, "Flexible Return and Event Delivery (FRED)
/// Specification", 346446): it arrives, with its vector, at the kernel's one entry for events, which saves the registers
/// and returns by `ERETS` or `ERETU`. Such a kernel declares no entry here. From its function for external
/// interrupts, with interrupts off, it calls what the stub would have called, acknowledgement first:
///
/// ```
/// use mk_ipi_abi::Vector;
/// use mk_ipi_x86::{ApicIo, LocalApic};
///
/// /// `look` is the kernel's `Endpoint::on_interrupt`.
/// fn external_interrupt<Io: ApicIo>(vector: u8, apic: &LocalApic<Io>, look: impl FnOnce()) {
///     if vector == Vector::RFC_V2.get() {
///         apic.eoi();
///         look();
///     }
/// }
/// ```
///
/// The stub can nest in any code that keeps these rules. That includes itself, if the handler enables interrupts.
#[macro_export]
macro_rules! doorbell_entry {
    ($(#[$meta:meta])* $vis:vis fn $entry:ident => $handler:path) => {
        unsafe extern "C" {
            $(#[$meta])*
            #[link_name = concat!("mk_ipi_entry_", stringify!($entry))]
            $vis fn $entry();
        }
        const _: extern "C" fn() = $handler;
        // In long mode the CPU aligns the stack to 16 bytes and pushes five words (Intel SDM vol. 3A,
        // 6.14.2), and an interrupt has no error code: with the nine registers that a C function may
        // change, the stack is again aligned at the call.
        // The section is named, because `global_asm!` continues in whatever section the previous block left.
        ::core::arch::global_asm!(
            concat!(".pushsection .text.mk_ipi_entry_", stringify!($entry), ",\"ax\",@progbits"),
            concat!(".global mk_ipi_entry_", stringify!($entry)),
            concat!("mk_ipi_entry_", stringify!($entry), ":"),
            "endbr64", // where an interrupt arrives under indirect branch tracking
            "push rax", "push rcx", "push rdx", "push rsi", "push rdi",
            "push r8", "push r9", "push r10", "push r11",
            "cld", // the C ABI wants it clear; iretq puts it back
            "call {handler}",
            "pop r11", "pop r10", "pop r9", "pop r8",
            "pop rdi", "pop rsi", "pop rdx", "pop rcx", "pop rax",
            "iretq",
            ".popsection",
            handler = sym $handler,
        );
    };
}

#[cfg(test)]
mod tests {
    use core::arch::{asm, global_asm};

    /// Values for the registers that a C function may change, in the order of the stub.
    const PATTERN: [u64; 9] = [0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8];
    /// The direction flag, in RFLAGS.
    const DF: u64 = 1 << 10;
    /// Carry, parity, adjust, zero and sign flags: what arithmetic leaves, all set.
    const ARITHMETIC: u64 = 0xd5;

    // The worst handler that the C ABI allows: it changes every register that it may. It notes the stack pointer
    // at the call and the flags at r15, which the stub must not touch.
    global_asm!(
        "mk_ipi_test_probe:",
        "lea rax, [rsp + 8]",
        "mov [r15], rax",
        "pushfq",
        "pop qword ptr [r15 + 8]",
        "or rax, -1",
        "mov rcx, rax",
        "mov rdx, rax",
        "mov rsi, rax",
        "mov rdi, rax",
        "mov r8, rax",
        "mov r9, rax",
        "mov r10, rax",
        "mov r11, rax",
        "xor eax, eax",
        "ret",
    );
    unsafe extern "C" {
        #[link_name = "mk_ipi_test_probe"]
        safe fn probe();
    }
    extern "C" fn interrupted_again() {
        interrupt(inner, 0);
    }
    // The entries must not end up in this section: only zeros assemble there.
    global_asm!(".section .bss");
    doorbell_entry!(fn inner => probe);
    doorbell_entry!(fn outer => interrupted_again);
    global_asm!(".text");

    /// What r15 points to.
    #[repr(C)]
    struct Args {
        noted: [u64; 2],
        entry: unsafe extern "C" fn(),
    }

    /// Enters `entry` as the CPU does in long mode, from code whose stack is `skew` bytes off alignment, and checks
    /// that nothing changed on return. Returns what a probe noted: stack pointer and flags.
    fn interrupt(entry: unsafe extern "C" fn(), skew: u64) -> [u64; 2] {
        let mut args = Args { noted: [0; 2], entry };
        let [mut rax, mut rcx, mut rdx, mut rsi, mut rdi, mut r8, mut r9, mut r10, mut r11] = PATTERN;
        let (mut moved, mut flags): (u64, u64) = (skew, DF | ARITHMETIC | 2);
        // SAFETY: it builds the frame that `iretq` pops below the stack in use, restores the stack pointer, and names
        // all registers that it changes.
        unsafe {
            asm!(
                "mov r12, rsp",
                "sub rsp, r13",
                "mov r13, rsp",
                "and rsp, -16",
                "push r14",
                "popfq",
                "mov r14, ss",
                "push r14",
                "push r13",
                "pushfq",
                "mov r14, cs",
                "push r14",
                "lea r14, [rip + 2f]",
                "push r14",
                "jmp qword ptr [r15 + 16]",
                "2:",
                "pushfq",
                "pop r14",
                "cld",
                "sub r13, rsp",
                "mov rsp, r12",
                inout("rax") rax, inout("rcx") rcx, inout("rdx") rdx, inout("rsi") rsi, inout("rdi") rdi,
                inout("r8") r8, inout("r9") r9, inout("r10") r10, inout("r11") r11,
                out("r12") _, inout("r13") moved, inout("r14") flags, in("r15") &mut args,
            );
        }
        assert_eq!([rax, rcx, rdx, rsi, rdi, r8, r9, r10, r11], PATTERN);
        assert_eq!(moved, 0, "the stack pointer");
        assert_eq!(flags & (DF | ARITHMETIC), DF | ARITHMETIC, "the flags");
        args.noted
    }

    #[test]
    #[cfg_attr(miri, ignore = "assembly")]
    fn the_entry_keeps_every_register_and_aligns_the_stack_and_clears_the_direction_flag() {
        for skew in 0..64 {
            let [stack, flags] = interrupt(inner, skew);
            assert_ne!(stack, 0);
            assert_eq!((stack % 16, flags & DF), (0, 0));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "assembly")]
    fn the_entry_begins_with_endbr64() {
        for entry in [inner, outer] {
            // SAFETY: the code of an entry, which has more bytes than four.
            let first = unsafe { core::ptr::read_unaligned(entry as *const [u8; 4]) };
            assert_eq!(first, [0xf3, 0x0f, 0x1e, 0xfa]);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "assembly")]
    fn the_entry_nests() {
        interrupt(outer, 0);
    }
}
