// SPDX-License-Identifier: MIT OR Apache-2.0
//! The entry stub of the doorbell's vector.

/// Declares the entry stub of an interrupt, for the doorbell's vector.
///
/// The example declares `unsafe extern "C" fn my_entry()`. Put its address into an interrupt gate of the IDT (a gate that clears
/// IF). Code must not call it. The stub saves the integer registers that a C function may change, calls the handler, restores the
/// registers, and returns to the interrupted code. It does not acknowledge the interrupt: the handler must do this (EOI). The
/// symbol is `mk_ipi_entry_my_entry`.
///
/// ```
/// extern "C" fn my_handler() { /* LocalApic::eoi, then Endpoint::on_interrupt */ }
/// mk_ipi_x86::doorbell_entry!(pub fn my_entry => my_handler);
/// # fn main() {}
/// ```
///
/// The macro uses `global_asm!`, because naked functions need Rust 1.88.
///
/// Requirements for the kernel:
/// - Its code is built without SSE and x87, as for `x86_64-unknown-none`, or its handler saves the SSE and x87 registers that it
///   uses. The stub saves only integer registers.
/// - Its code is built without a red zone, as for `x86_64-unknown-none`, or the gate has a stack of its own (IST). Otherwise the
///   CPU overwrites the red zone of the interrupted function with the interrupt frame, before the stub runs.
/// - The doorbell interrupts ring 0 only, or the handler does not use GS. The stub executes no `swapgs`.
/// - The handler does not unwind.
///
/// The stub can interrupt any code that meets these requirements. This includes the stub itself, if the handler enables
/// interrupts.
///
/// A kernel may have control-flow enforcement on (CR4.CET; Intel SDM vol. 1, "Control-Flow Enforcement Technology (CET)"):
/// - Supervisor indirect branch tracking (`IA32_S_CET.ENDBR_EN`): the first instruction after an interrupt through the IDT must
///   be `endbr64`, so the stub begins with it. The stub calls the handler by a direct call, so the handler needs no `endbr64`. If
///   tracking is off, or the CPU does not have it, `endbr64` has no effect.
/// - Supervisor shadow stacks (`IA32_S_CET.SH_STK_EN`): the stub needs no code for them. The interrupt pushes CS, the return
///   address and the old shadow stack pointer onto the shadow stack. `iretq` pops them, and compares the first two with the frame
///   on the stack. They are equal, because the stub does not change its frame, and its call returns. The handler must not change
///   its return address, and must return normally. A gate with a stack of its own (IST) also needs a shadow stack of its own, in
///   the table of `IA32_INTERRUPT_SSP_TABLE_ADDR`. An interrupt from ring 3 needs a shadow stack in `IA32_PL0_SSP`.
///
/// # Kernels with FRED
///
/// If CR4.FRED is set, no interrupt uses the IDT (Intel, "Flexible Return and Event Delivery (FRED) Specification", 346446).
/// The CPU enters the kernel at one entry for all events and tells it the vector. This entry saves the registers and returns by
/// `ERETS` or `ERETU`. Such a kernel does not use this macro. Its function for external interrupts, which runs with interrupts
/// off, first acknowledges the interrupt and then looks for messages:
///
/// ```
/// use mk_ipi_abi::Vector;
/// use mk_ipi_x86::{ApicIo, LocalApic};
///
/// /// `look` calls `Endpoint::on_interrupt`.
/// fn external_interrupt<Io: ApicIo>(vector: u8, apic: &LocalApic<Io>, look: impl FnOnce()) {
///     if vector == Vector::RFC_V2.get() {
///         apic.eoi();
///         look();
///     }
/// }
/// ```
#[macro_export]
macro_rules! doorbell_entry {
    ($(#[$meta:meta])* $vis:vis fn $entry:ident => $handler:path) => {
        unsafe extern "C" {
            $(#[$meta])*
            #[link_name = concat!("mk_ipi_entry_", stringify!($entry))]
            $vis fn $entry();
        }
        const _: extern "C" fn() = $handler;
        // In long mode the CPU aligns the stack to 16 bytes and pushes five words of 8 bytes (Intel SDM vol. 3A, 6.14.2). An
        // interrupt has no error code. The stub pushes nine more words: the registers that a C function may change. These 14
        // words have 112 bytes, so the stack is aligned to 16 bytes at the call.
        // `.pushsection` names the section, because a `global_asm!` block begins in the section in which the previous one ended.
        ::core::arch::global_asm!(
            concat!(".pushsection .text.mk_ipi_entry_", stringify!($entry), ",\"ax\",@progbits"),
            concat!(".global mk_ipi_entry_", stringify!($entry)),
            concat!("mk_ipi_entry_", stringify!($entry), ":"),
            "endbr64", // must be the first instruction, for indirect branch tracking
            "push rax", "push rcx", "push rdx", "push rsi", "push rdi",
            "push r8", "push r9", "push r10", "push r11",
            "cld", // the C ABI requires a clear direction flag; `iretq` restores the flag
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
    /// The carry, parity, adjust, zero and sign flags, in RFLAGS.
    const ARITHMETIC: u64 = 0xd5;

    // A handler that changes every register that the C ABI allows it to change. It stores the stack pointer at the call, and the
    // flags, into the memory to which R15 points. The stub must not change R15.
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
    // From here on the current section is `.bss`, where only zeros can be assembled. Each entry must name a section of its own;
    // otherwise this test does not build.
    global_asm!(".section .bss");
    doorbell_entry!(fn inner => probe);
    doorbell_entry!(fn outer => interrupted_again);
    global_asm!(".text");

    /// The memory to which R15 points.
    #[repr(C)]
    struct Args {
        /// Written by `probe`: stack pointer and flags.
        noted: [u64; 2],
        entry: unsafe extern "C" fn(),
    }

    /// Enters `entry` as an interrupt in long mode does. The interrupted code has lowered its stack pointer by `skew` bytes.
    /// Checks that the registers, the stack pointer and the flags have their old values after the return. Returns the stack
    /// pointer and the flags that `probe` stored, or zeros if the handler is not `probe`.
    fn interrupt(entry: unsafe extern "C" fn(), skew: u64) -> [u64; 2] {
        let mut args = Args { noted: [0; 2], entry };
        let [mut rax, mut rcx, mut rdx, mut rsi, mut rdi, mut r8, mut r9, mut r10, mut r11] = PATTERN;
        let (mut moved, mut flags): (u64, u64) = (skew, DF | ARITHMETIC | 2);
        // SAFETY: the code writes only below the stack that is in use: there it builds the frame that `iretq` pops. It restores
        // the stack pointer, and its operands name all registers that it changes.
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
        assert_eq!(moved, 0, "the stack pointer changed");
        assert_eq!(flags & (DF | ARITHMETIC), DF | ARITHMETIC, "the flags changed");
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
            // SAFETY: the code of an entry is readable, and is longer than four bytes.
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
