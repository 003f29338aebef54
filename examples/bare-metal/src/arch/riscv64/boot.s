/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The entry of a kernel image. A hart comes here from the firmware, or because another kernel called SBI's hart_start. Sources:
 * RISC-V instruction set manual, volume 2, "Sv39"; SBI, "Function: Hart start".
 */

/*
 * At entry: supervisor mode, satp = 0, interrupts off, a0 = hart id, a1 = argument. This code completes the page tables
 * below, turns them on, and calls kernel_main(argument).
 */
    .section .boot.text, "ax", @progbits
    .global kernel_entry
kernel_entry:
    csrw sie, zero
    csrci sstatus, 2
    li t0, 0x6000                       /* sstatus.FS = off: no handler saves floating point registers */
    csrc sstatus, t0
    la t0, boot_hart
    sd a0, 0(t0)
    mv s1, a1

    /*
     * Each entry of the first table, page_root, is for 1 GiB. Entry 0: devices. Entry 2: memory. Entry 130: the same memory a
     * second time, read-only. The entries for memory point to the tables page_ram and page_read_only, with pages of 2 MiB. An
     * entry is the address / 4, with the flags DAGUXWRV in its lowest bits.
     */
    la t0, page_root
    la t1, page_ram
    srli t2, t1, 2
    ori t2, t2, 1
    sd t2, 16(t0)
    la t3, page_read_only
    srli t2, t3, 2
    ori t2, t2, 1
    li t4, 130 * 8
    add t4, t4, t0
    sd t2, 0(t4)
    /* Unmap the 2 MiB below the stack, so that a stack overflow faults. */
    la t2, stack_guard
    li t4, 0x80000000
    sub t2, t2, t4
    srli t2, t2, 21
    slli t2, t2, 3
    add t1, t1, t2
    sd zero, 0(t1)
    add t3, t3, t2
    sd zero, 0(t3)

    srli t0, t0, 12
    li t1, 8 << 60                      /* Sv39 */
    or t0, t0, t1
    fence rw, rw
    sfence.vma
    csrw satp, t0
    sfence.vma
    fence.i
    la t0, trap
    csrw stvec, t0
    la sp, stack_top
    mv s0, zero
    mv ra, zero
    mv a0, s1
    call kernel_main
1:  wfi
    j 1b

    .section .data.pages, "aw", @progbits
    .p2align 12
page_root:
    .quad 0xc7
    .fill 511, 8, 0
page_ram:
    .set at, 0x80000000
    .rept 512
    .quad at / 4 + 0xcf
    .set at, at + 0x200000
    .endr
page_read_only:
    .set at, 0x80000000
    .rept 512
    .quad at / 4 + 0x43
    .set at, at + 0x200000
    .endr

    .section .data.boot, "aw", @progbits
    .p2align 3
    .global boot_hart                   /* this hart's id: supervisor mode cannot read it from a register */
boot_hart:
    .quad 0

/*
 * An exception ends the machine, on the exception stack. For an interrupt this code saves all registers that a function call or a
 * second interrupt may change. So on_interrupt may turn interrupts on.
 */
    .text
    .p2align 2
trap:
    csrw sscratch, t0
    csrr t0, scause
    bltz t0, 1f
    mv a0, t0
    la sp, exception_stack_top
    call exception
1:  csrr t0, sscratch
    addi sp, sp, -144
    sd ra, 0(sp)
    sd t0, 8(sp)
    sd t1, 16(sp)
    sd t2, 24(sp)
    sd t3, 32(sp)
    sd t4, 40(sp)
    sd t5, 48(sp)
    sd t6, 56(sp)
    sd a0, 64(sp)
    sd a1, 72(sp)
    sd a2, 80(sp)
    sd a3, 88(sp)
    sd a4, 96(sp)
    sd a5, 104(sp)
    sd a6, 112(sp)
    sd a7, 120(sp)
    csrr t0, sepc
    csrr t1, sstatus
    sd t0, 128(sp)
    sd t1, 136(sp)
    csrr a0, scause
    call on_interrupt
    csrci sstatus, 2                    /* an interrupt would overwrite sepc and sstatus, which are restored below */
    ld t0, 128(sp)
    ld t1, 136(sp)
    csrw sepc, t0
    csrw sstatus, t1
    ld ra, 0(sp)
    ld t0, 8(sp)
    ld t1, 16(sp)
    ld t2, 24(sp)
    ld t3, 32(sp)
    ld t4, 40(sp)
    ld t5, 48(sp)
    ld t6, 56(sp)
    ld a0, 64(sp)
    ld a1, 72(sp)
    ld a2, 80(sp)
    ld a3, 88(sp)
    ld a4, 96(sp)
    ld a5, 104(sp)
    ld a6, 112(sp)
    ld a7, 120(sp)
    addi sp, sp, 144
    sret

    .section .bss.boot, "aw", @nobits
    .p2align 4
    .skip 16 * 1024
exception_stack_top:
    .text
