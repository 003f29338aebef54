/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The entry of a second CPU, which comes here from the trampoline (trampoline.s). It uses the first CPU's page tables, and
 * has its own GDT, TSS and stacks. The selector of its TSS differs from that of the first CPU. `own_index` in mod.rs reads
 * the selector to find out which of the two CPUs runs.
 */

/*
 * At entry: 32-bit protected mode, flat segments, paging and interrupts off. This code enters 64-bit mode and calls second_main.
 */
    .section .boot.text, "ax", @progbits
    .code32
    .global second_entry
second_entry:
    cli
    cld
    movl $page_pml4, %eax
    movl %eax, %cr3
    movl $0x20, %eax                /* PAE */
    movl %eax, %cr4
    movl $0xc0000080, %ecx          /* EFER: set LME */
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl $0x80010011, %eax          /* PG, WP, ET, PE; this clears CD and NW, which INIT sets */
    movl %eax, %cr0
    movl $second_tss, %eax          /* write the TSS's address into the three address fields of its descriptor */
    movw %ax, second_gdt_tss + 2
    shrl $16, %eax
    movb %al, second_gdt_tss + 4
    movb $0x89, second_gdt_tss + 5  /* mark the TSS as not busy: ltr marked it busy if this CPU was here before */
    movb %ah, second_gdt_tss + 7
    lgdt second_gdt_pointer
    ljmpl $0x08, $second_long_mode

    .code64
second_long_mode:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    movl $0x20, %eax
    ltr %ax
    movl $second_stack_top, %esp
    xorl %ebp, %ebp
    call second_main
    ud2

    .section .data.second_gdt, "aw", @progbits
    .p2align 3
second_gdt:
    .quad 0
    .quad 0x00af9a000000ffff        /* 0x08: 64-bit code, ring 0 */
    .quad 0x00cf92000000ffff        /* 0x10: data, ring 0 */
    .quad 0                         /* 0x18: empty; the first CPU's GDT has its TSS here */
second_gdt_tss:
    .quad 0x0000890000000067, 0     /* 0x20: the TSS, 104 bytes; the code above writes its address */
second_gdt_pointer:
    .word . - second_gdt - 1
    .long second_gdt
    .long 0
    .p2align 3
second_tss:
    .skip 36
    .quad second_double_fault_stack_top
    .skip 58
    .word 104                       /* no I/O bit map */

    .section .bss.second, "aw", @nobits
    .p2align 12
    .skip 16 * 1024
second_double_fault_stack_top:
    .skip 64 * 1024
second_stack_top:
    .text
