/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The entry of a kernel image. A CPU comes here from the emulator, or because another kernel called PSCI's CPU_ON. Sources:
 * Arm DDI 0487 (search for the name of the register or table); Arm DEN 0022, "CPU_ON".
 */

/*
 * At entry: EL1, MMU and caches off, interrupts masked, x0 = argument. This code unmaps the 2 MiB below the stack, turns the MMU
 * and the caches on with the page tables below, and calls kernel_main(argument).
 */
    .section .boot.text, "ax", @progbits
    .global kernel_entry
kernel_entry:
    msr daifset, #0xf
    mov x19, x0
    /* Unmap the 2 MiB below the stack, so that a stack overflow faults. */
    adrp x1, stack_guard
    mov x2, #0x40000000
    sub x1, x1, x2
    lsr x1, x1, #21
    adrp x2, page_ram
    add x2, x2, :lo12:page_ram
    str xzr, [x2, x1, lsl #3]

    mov x1, #0xff00                     /* MAIR: 0 = Device-nGnRnE, 1 = Normal, write-back */
    msr mair_el1, x1
    ldr x1, =0x200803519                /* TCR: 39 bits by TTBR0, 4 KiB, write-back, inner shareable; no TTBR1; 40 bits out */
    msr tcr_el1, x1
    adrp x1, page_root
    add x1, x1, :lo12:page_root
    msr ttbr0_el1, x1
    dsb sy
    tlbi vmalle1
    ic iallu
    dsb sy
    isb
    ldr x1, =0x30d0180d                 /* SCTLR: RES1, I, SA, C, M */
    msr sctlr_el1, x1
    isb
    mov x1, #0x300000                   /* CPACR: FPEN, because compiled code uses vector registers to copy */
    msr cpacr_el1, x1
    adrp x1, vectors
    add x1, x1, :lo12:vectors
    msr vbar_el1, x1
    isb
    adrp x1, stack_top
    add x1, x1, :lo12:stack_top
    mov sp, x1
    mov x29, xzr
    mov x30, xzr
    mov x0, x19
    bl kernel_main
1:  wfi
    b 1b
    .ltorg

/*
 * Each entry of the first table, page_root, is for 1 GiB. Entry 0: devices. Entry 1: memory. Entry 257: the same memory a second
 * time, all of it read-only (APTable). The entries of the second table, page_ram, are blocks of 2 MiB: Normal, inner shareable,
 * accessed.
 */
    .section .data.pages, "aw", @progbits
    .p2align 12
page_root:
    .quad 0x0060000000000401
    .quad page_ram + 3
    .fill 255, 8, 0
    .quad page_ram + 0x4000000000000003
    .fill 254, 8, 0
page_ram:
    .set at, 0x40000000
    .rept 512
    .quad at + 0x0040000000000705
    .set at, at + 0x200000
    .endr

/*
 * Each of the 16 vectors has 128 bytes. Vector 5, the IRQ of this exception level, goes to `interrupt`. Each other vector
 * switches to the exception stack and calls `exception`, which does not return.
 */
    .text
    .macro fatal number
    .p2align 7
    adrp x1, exception_stack_top
    add sp, x1, :lo12:exception_stack_top
    mov x0, #\number
    b exception
    .endm
    .p2align 11
vectors:
    fatal 0
    fatal 1
    fatal 2
    fatal 3
    fatal 4
    .p2align 7
    b interrupt
    fatal 6
    fatal 7
    fatal 8
    fatal 9
    fatal 10
    fatal 11
    fatal 12
    fatal 13
    fatal 14
    fatal 15

/*
 * Saves all registers that a function call may change. Also saves ELR and SPSR, because a second interrupt overwrites them: so
 * on_interrupt may turn interrupts on.
 */
interrupt:
    sub sp, sp, #704
    stp x0, x1, [sp]
    stp x2, x3, [sp, #16]
    stp x4, x5, [sp, #32]
    stp x6, x7, [sp, #48]
    stp x8, x9, [sp, #64]
    stp x10, x11, [sp, #80]
    stp x12, x13, [sp, #96]
    stp x14, x15, [sp, #112]
    stp x16, x17, [sp, #128]
    stp x18, x30, [sp, #144]
    mrs x0, elr_el1
    mrs x1, spsr_el1
    stp x0, x1, [sp, #160]
    mrs x0, fpsr
    mrs x1, fpcr
    stp x0, x1, [sp, #176]
    stp q0, q1, [sp, #192]
    stp q2, q3, [sp, #224]
    stp q4, q5, [sp, #256]
    stp q6, q7, [sp, #288]
    stp q8, q9, [sp, #320]
    stp q10, q11, [sp, #352]
    stp q12, q13, [sp, #384]
    stp q14, q15, [sp, #416]
    stp q16, q17, [sp, #448]
    stp q18, q19, [sp, #480]
    stp q20, q21, [sp, #512]
    stp q22, q23, [sp, #544]
    stp q24, q25, [sp, #576]
    stp q26, q27, [sp, #608]
    stp q28, q29, [sp, #640]
    stp q30, q31, [sp, #672]
    bl on_interrupt
    msr daifset, #2                     /* an interrupt would overwrite ELR and SPSR, which are restored below */
    ldp q0, q1, [sp, #192]
    ldp q2, q3, [sp, #224]
    ldp q4, q5, [sp, #256]
    ldp q6, q7, [sp, #288]
    ldp q8, q9, [sp, #320]
    ldp q10, q11, [sp, #352]
    ldp q12, q13, [sp, #384]
    ldp q14, q15, [sp, #416]
    ldp q16, q17, [sp, #448]
    ldp q18, q19, [sp, #480]
    ldp q20, q21, [sp, #512]
    ldp q22, q23, [sp, #544]
    ldp q24, q25, [sp, #576]
    ldp q26, q27, [sp, #608]
    ldp q28, q29, [sp, #640]
    ldp q30, q31, [sp, #672]
    ldp x0, x1, [sp, #176]
    msr fpsr, x0
    msr fpcr, x1
    ldp x0, x1, [sp, #160]
    msr elr_el1, x0
    msr spsr_el1, x1
    ldp x18, x30, [sp, #144]
    ldp x16, x17, [sp, #128]
    ldp x14, x15, [sp, #112]
    ldp x12, x13, [sp, #96]
    ldp x10, x11, [sp, #80]
    ldp x8, x9, [sp, #64]
    ldp x6, x7, [sp, #48]
    ldp x4, x5, [sp, #32]
    ldp x2, x3, [sp, #16]
    ldp x0, x1, [sp]
    add sp, sp, #704
    eret

    .section .bss.boot, "aw", @nobits
    .p2align 4
    .skip 16 * 1024
exception_stack_top:
    .text
