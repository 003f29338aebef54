/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The trampoline. trampoline.rs copies it to the page `TRAMPOLINE` of layout.rs. A CPU that gets a SIPI begins here, in real mode
 * with CS = page >> 4 and IP = 0 (Intel SDM vol. 3A, 8.4.4). It enters an image at the address in the mailbox, in 32-bit
 * protected mode.
 */
    .section .rodata.trampoline, "a", @progbits
    .p2align 4
    .set TRAMPOLINE, 0x8000
    .global trampoline_start, trampoline_mailbox, trampoline_end
    .code16
trampoline_start:
    cli
    cld
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl trampoline_gdt_pointer - trampoline_start + TRAMPOLINE
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $0x08, $(trampoline_32 - trampoline_start + TRAMPOLINE)
    .code32
trampoline_32:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl trampoline_mailbox - trampoline_start + TRAMPOLINE, %eax
    movl trampoline_mailbox - trampoline_start + TRAMPOLINE + 4, %ebx
    jmp *%eax
    .p2align 3
trampoline_gdt:
    .quad 0
    .quad 0x00cf9a000000ffff        /* 0x08: 32-bit code, flat */
    .quad 0x00cf92000000ffff        /* 0x10: data, flat */
trampoline_gdt_pointer:
    .word . - trampoline_gdt - 1
    .long trampoline_gdt - trampoline_start + TRAMPOLINE
    .p2align 3
trampoline_mailbox:
    .long 0, 0                      /* the address to enter; the value for ebx, which is a start info for a PVH entry */
trampoline_end:
    .code64
    .text
