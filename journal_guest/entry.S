// Entry points of the journal guest: from the VMM (64-bit Linux boot protocol), from a SIPI, and from exceptions.

        .section .text.entry, "ax"
        .code64
        .globl _start
_start:
        cli
        cld
        leaq    bsp_stack_top(%rip), %rsp
        xorl    %ebp, %ebp
        movq    %rsi, %rdi              // boot_params
        call    guest_main
1:      hlt
        jmp     1b

// A vCPU that was started by guest_main, in long mode by now, on the stack of its own that guest_main chose.
        .globl ap_long_mode
ap_long_mode:
        cld
        xorl    %ebp, %ebp
        call    ap_main
1:      hlt
        jmp     1b

// Copied to 0x10000 (SIPI vector 0x10) by guest_main, which also fills in ap_cr3 and ap_stack there. Real mode, CS = 0x1000.
// The absolute addresses are those of the copy.
        .set    copy, 0x10000
        .code16
        .globl  ap_trampoline, ap_trampoline_end, ap_cr3, ap_stack
ap_trampoline:
        cli
        movw    %cs, %ax
        movw    %ax, %ds
        lgdtl   (ap_gdt_pointer - ap_trampoline)
        movl    %cr4, %eax
        orl     $0x20, %eax             // PAE
        movl    %eax, %cr4
        movl    (ap_cr3 - ap_trampoline), %eax
        movl    %eax, %cr3
        movl    $0xc0000080, %ecx
        rdmsr
        orl     $0x100, %eax            // LME
        wrmsr
        movl    %cr0, %eax
        orl     $0x80000001, %eax       // PG, PE
        movl    %eax, %cr0
        ljmpl   $0x08, $(copy + ap_in_long_mode - ap_trampoline)
        .code64
ap_in_long_mode:
        movw    $0x10, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movq    copy + (ap_stack - ap_trampoline), %rsp
        movabsq $ap_long_mode, %rax
        jmp     *%rax
        .balign 8
ap_cr3: .long   0, 0
ap_stack:
        .quad   0
ap_gdt: .quad   0
        .quad   0x00af9b000000ffff
        .quad   0x00cf93000000ffff
ap_gdt_pointer:
        .word   ap_gdt_pointer - ap_gdt - 1
        .long   copy + ap_gdt - ap_trampoline
ap_trampoline_end:

// One stub per exception; they are 16 bytes apart. exception_main(vector, frame) does not return.
        .text
        .balign 16
        .globl  exception_stubs
exception_stubs:
        .set    vector, 0
        .rept   32
        .balign 16
        movl    $vector, %edi
        movq    %rsp, %rsi
        jmp     exception_common
        .set    vector, vector + 1
        .endr
exception_common:
        cld
        andq    $-16, %rsp
        call    exception_main

// The local APIC's timer has fired: end of interrupt, and on after the hlt. Leaves r15, the step counter, alone.
        .balign 16
        .globl  timer_interrupt
timer_interrupt:
        pushq   %rax
        pushq   %rcx
        pushq   %rdx
        movl    $0x80b, %ecx            // x2APIC EOI
        xorl    %eax, %eax
        xorl    %edx, %edx
        wrmsr
        popq    %rdx
        popq    %rcx
        popq    %rax
        iretq

        .bss
        .balign 16
        .space  16384
bsp_stack_top:
        .section .note.GNU-stack, "", @progbits
