/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The entry of a kernel image, as PVH defines it. A CPU comes here from the emulator, or from the trampoline (trampoline.s).
 * Sources: Xen's x86/HVM direct boot ABI (PVH); Intel SDM vol. 3A, 9.8.5 (entering IA-32e mode).
 */

    /* The note must be aligned to 4 bytes. With another alignment loaders do not find it. */
    .section .note.Xen, "a", @note
    .p2align 2
    .long 4, 8, 18                  /* name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .quad pvh_entry

/*
 * At entry: 32-bit protected mode, flat segments, paging and interrupts off, %ebx = physical address of the start info. This code
 * builds the page tables, enters 64-bit mode, and calls kernel_main(start info).
 */
    .section .boot.text, "ax", @progbits
    .code32
    .global pvh_entry
pvh_entry:
    cli
    cld
    /* PML4[0]: the first 4 GiB, mapped one to one, writable. PML4[1]: the same 4 GiB a second time, read-only. */
    movl $page_pdpt + 0x3, page_pml4            /* present, writable */
    movl $page_pdpt + 0x1, page_pml4 + 8        /* present */
    movl $page_pd + 0x3, %eax
    xorl %ecx, %ecx
1:  movl %eax, page_pdpt(,%ecx,8)
    addl $0x1000, %eax
    incl %ecx
    cmpl $4, %ecx
    jb 1b
    movl $0x83, %eax                /* present, writable, 2 MiB */
    xorl %ecx, %ecx
2:  cmpl $1536, %ecx
    jb 3f
    orl $0x18, %eax                 /* PCD, PWT: not cached, because the APICs' registers are between 3 and 4 GiB */
3:  movl %eax, page_pd(,%ecx,8)
    addl $0x200000, %eax
    incl %ecx
    cmpl $2048, %ecx
    jb 2b

    movl $stack_guard, %eax         /* unmap the 2 MiB below the stack, so that a stack overflow faults */
    shrl $21, %eax
    movl $0, page_pd(,%eax,8)

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
    movl $tss, %eax                 /* write the TSS's address into the three address fields of its descriptor */
    movw %ax, gdt_tss + 2
    shrl $16, %eax
    movb %al, gdt_tss + 4
    movb %ah, gdt_tss + 7
    lgdt gdt_pointer
    ljmpl $0x08, $long_mode

    .code64
long_mode:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    movl $0x18, %eax
    ltr %ax
    movl $stack_top, %esp
    xorl %ebp, %ebp
    movl %ebx, %edi
    call kernel_main
    ud2

    .section .data.gdt, "aw", @progbits
    .p2align 3
gdt:
    .quad 0
    .quad 0x00af9a000000ffff        /* 0x08: 64-bit code, ring 0 */
    .quad 0x00cf92000000ffff        /* 0x10: data, ring 0 */
gdt_tss:
    .quad 0x0000890000000067, 0     /* 0x18: the TSS, 104 bytes; the code above writes its address */
gdt_pointer:
    .word . - gdt - 1
    .long gdt
    .long 0
    .p2align 3
tss:                                /* Intel SDM vol. 3A, 7.7; IST 1 is the stack for NMIs and double faults */
    .skip 36
    .quad double_fault_stack_top
    .skip 58
    .word 104                       /* no I/O bit map */

    .section .bss.boot, "aw", @nobits
    .p2align 12
    .global page_pml4               /* a second CPU uses these tables, too (second.s) */
page_pml4:  .skip 4096
page_pdpt:  .skip 4096
page_pd:    .skip 4 * 4096
    .skip 16 * 1024
double_fault_stack_top:

/*
 * The stubs of the 32 exceptions, 16 bytes apart. For an exception without an error code the stub pushes a 0 in its place, so
 * that all exceptions have the same frame (Intel SDM vol. 3A, 6.15).
 */
    .text
    .p2align 4
    .global exception_stubs
exception_stubs:
    .set vector, 0
    .rept 32
    .p2align 4
    .if !((0x60227d00 >> vector) & 1)
    pushq $0
    .endif
    pushq $vector
    jmp exception_common
    .set vector, vector + 1
    .endr
exception_common:
    movq %rsp, %rdi                 /* ExceptionFrame: vector, error code, the CPU's own frame */
    andq $-16, %rsp
    call exception
    ud2
