// A guest of one vCPU that watches its own registers: it loads the x87, the sixteen SSE registers, some MSRs, debug
// registers and the TSC, and then looks for ever whether they are as it left them. It uses what every KVM can run, also
// one that emulates each instruction: FXRSTOR and FXSAVE.
        .set    steps, 0x300000         // goes up while all is well
        .set    wrong, 0x300008         // not 0: what was wrong
        .set    pattern, 0x301000       // an FXSAVE area, as loaded
        .set    found, 0x302000

        .text
        .code64
        .globl  _start
_start: cli
        cld
        movq    %cr4, %rax
        orq     $0x600, %rax            // OSFXSR, OSXMMEXCPT
        movq    %rax, %cr4
        movq    %cr0, %rax
        andq    $~0xc, %rax             // no EM, no TS
        movq    %rax, %cr0
        movq    $pattern, %rdi
        movl    $0x037f, (%rdi)         // x87 control word
        movl    $0x1f80, 24(%rdi)       // MXCSR
        movb    $0xff, 4(%rdi)          // every x87 register in use
        movl    $32, %ecx
1:      movb    %cl, (%rdi, %rcx)       // registers: a byte of each place's own
        incl    %ecx
        cmpl    $416, %ecx
        jb      1b
        fxrstor64 (%rdi)
        movl    $0xc0000102, %ecx       // KERNEL_GS_BASE
        movl    $0x12345678, %eax
        movl    $0x00001234, %edx
        wrmsr
        movl    $0xc0000082, %ecx       // LSTAR
        movl    $0x00abcdef, %eax
        xorl    %edx, %edx
        wrmsr
        movl    $0x00400000, %eax
        movq    %rax, %dr1
        rdtsc
        shlq    $32, %rdx
        orq     %rdx, %rax
        movq    %rax, %r14              // the time of before
        xorl    %r15d, %r15d

again:  movq    $found, %rsi
        fxsave64 (%rsi)
        movq    $pattern, %rdi
        movl    $160, %ecx              // the SSE registers
2:      movq    (%rdi, %rcx), %rax
        movl    $1, %ebx
        cmpq    %rax, (%rsi, %rcx)
        jne     bad
        addl    $8, %ecx
        cmpl    $416, %ecx
        jb      2b
        movl    $32, %ecx               // the x87 registers: 10 bytes of each 16
3:      movq    (%rdi, %rcx), %rax
        movl    $2, %ebx
        cmpq    %rax, (%rsi, %rcx)
        jne     bad
        addl    $16, %ecx
        cmpl    $160, %ecx
        jb      3b
        movl    $0xc0000102, %ecx
        rdmsr
        movl    $3, %ebx
        cmpl    $0x12345678, %eax
        jne     bad
        cmpl    $0x00001234, %edx
        jne     bad
        movl    $0xc0000082, %ecx
        rdmsr
        movl    $4, %ebx
        cmpl    $0x00abcdef, %eax
        jne     bad
        movq    %dr1, %rax
        movl    $5, %ebx
        cmpl    $0x00400000, %eax
        jne     bad
        rdtsc
        shlq    $32, %rdx
        orq     %rdx, %rax
        movl    $6, %ebx
        cmpq    %r14, %rax              // time never goes back
        jb      bad
        movq    %rax, %r14
        incq    %r15
        movl    $7, %ebx
        movq    steps, %rax
        incq    %rax
        cmpq    %r15, %rax              // memory and registers of one instant
        jne     bad
        movq    %r15, steps
        jmp     again

bad:    movq    %rbx, wrong
        cli
        hlt
        jmp     bad
        .section .note.GNU-stack, "", @progbits
