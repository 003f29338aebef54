/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A CPU begins here after a SIPI, in real mode, with CS = address of the page >> 4 and IP = 0 (Intel SDM vol. 3A, 8.4.4). The
 * code can be in any page below 1 MiB, because it computes its addresses from CS. It enters 32-bit protected mode with flat
 * segments, and jumps to the code at mk_ipi_trampoline_exit, which start.rs has copied to the start page.
 */
    .pushsection .rodata.mk_ipi_trampoline, "a", @progbits
    .balign 16
    .globl mk_ipi_trampoline_start, mk_ipi_trampoline_mailbox, mk_ipi_trampoline_end
    .globl mk_ipi_trampoline_exit, mk_ipi_trampoline_exit_end
    .code16
mk_ipi_trampoline_start:
    cli
    cld
    movw %cs, %ax
    movw %ax, %ds
    movzwl %ax, %ebx
    shll $4, %ebx                   /* the address of this page */
    addl %ebx, 2f - mk_ipi_trampoline_start + 2
    addl %ebx, 3f - mk_ipi_trampoline_start
    lgdtl 2f - mk_ipi_trampoline_start
    movl %cr0, %eax
    orl $1, %eax                    /* PE */
    movl %eax, %cr0
    ljmpl *(3f - mk_ipi_trampoline_start)
    .code32
1:  movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $0x18, %eax
    ltr %ax
    movl mk_ipi_trampoline_mailbox - mk_ipi_trampoline_start(%ebx), %edx
    movl mk_ipi_trampoline_mailbox - mk_ipi_trampoline_start + 4(%ebx), %eax
    movl mk_ipi_trampoline_mailbox - mk_ipi_trampoline_start + 12(%ebx), %ecx
    movl mk_ipi_trampoline_mailbox - mk_ipi_trampoline_start + 8(%ebx), %ebx
    jmp *%edx
    .balign 8
4:  .quad 0
    .quad 0x00cf9a000000ffff        /* 0x08: 32-bit code, flat */
    .quad 0x00cf92000000ffff        /* 0x10: data, flat */
    .quad 0x0000890000000067        /* 0x18: a 32-bit TSS at 0, as PVH requires */
2:  .word . - 4b - 1
    .long 4b - mk_ipi_trampoline_start
    .balign 4
3:  .long 1b - mk_ipi_trampoline_start
    .word 0x08
    .balign 4
mk_ipi_trampoline_mailbox:
    .long 0, 0, 0, 0                /* addresses: the copied exit, the PVH entry, the start page, the flag */
mk_ipi_trampoline_end:

/*
 * The CPU is now in the start page, and has left the page below 1 MiB. It sets the flag, and jumps to the PVH entry.
 * %eax: address of the PVH entry. %ebx: address of the start page, for the kernel. %ecx: address of the flag.
 */
mk_ipi_trampoline_exit:
    movl $1, (%ecx)
    jmp *%eax
mk_ipi_trampoline_exit_end:
    .code64
    .popsection
