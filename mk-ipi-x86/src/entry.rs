// SPDX-License-Identifier: MIT OR Apache-2.0
//! The entry stub of the doorbell's vector.

/// Declares an interrupt entry: what the IDT's gate for the doorbell's vector points to.
///
/// `doorbell_entry!(pub fn my_entry => my_handler)` declares `unsafe extern "C" fn my_entry()`, whose address goes into an
/// interrupt gate (one that clears IF), and which nothing else calls. It calls `my_handler`, an
/// `extern "C" fn()`, which does the EOI, and returns to what was interrupted with every integer register as it was. The
/// symbol is `mk_ipi_entry_my_entry`.
///
/// A macro over `global_asm!`, because naked functions came with Rust 1.88.
///
/// The kernel's duties:
/// - Its code is built without SSE and x87, as for `x86_64-unknown-none`, or its handler saves what it uses: the stub saves integer
///   registers only.
/// - Its code is built without a red zone, as for `x86_64-unknown-none`, or the gate has a stack of its own (IST): the CPU
///   itself pushes its frame over a red zone, before any stub could mind.
/// - It interrupts ring 0 only, or the handler does not use GS: there is no `swapgs`.
/// - The handler does not unwind.
///
/// The stub nests in any code that keeps these, another instance of itself included, if the handler enables interrupts.
#[macro_export]
macro_rules! doorbell_entry {
    ($(#[$meta:meta])* $vis:vis fn $entry:ident => $handler:path) => {
        unsafe extern "C" {
            $(#[$meta])*
            #[link_name = concat!("mk_ipi_entry_", stringify!($entry))]
            $vis fn $entry();
        }
        const _: extern "C" fn() = $handler;
        // In long mode the CPU aligns the stack to 16 bytes and pushes five words (Intel SDM vol. 3A, 6.14.2), and an interrupt has no error
        // code: with the nine registers that a C function may change, the stack is again aligned at the call.
        ::core::arch::global_asm!(
            concat!(".global mk_ipi_entry_", stringify!($entry)),
            concat!("mk_ipi_entry_", stringify!($entry), ":"),
            "push rax", "push rcx", "push rdx", "push rsi", "push rdi", "push r8", "push r9", "push r10", "push r11",
            "cld", // the C ABI wants it clear; iretq puts it back
            "call {handler}",
            "pop r11", "pop r10", "pop r9", "pop r8", "pop rdi", "pop rsi", "pop rdx", "pop rcx", "pop rax",
            "iretq",
            handler = sym $handler,
        );
    };
}
