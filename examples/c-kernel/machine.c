/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The CPU and its devices: exit device, clock, IDT, local APIC. Section numbers are those of the Intel SDM, volume 3A. */
#include "kernel.h"

#define TIMER_VECTOR 0xeb
#define SPURIOUS_VECTOR 0xef
/* Vectors of exceptions that use the stack of IST 1 in boot.s, because the current stack may be invalid when they come. */
enum { NMI = 2, DOUBLE_FAULT = 8 };

#define APIC_BASE_MSR 0x1b
#define REG_ID 0x20
#define REG_EOI 0xb0
#define REG_SPURIOUS 0xf0
#define REG_ICR_LOW 0x300
#define REG_ICR_HIGH 0x310
#define REG_LVT_TIMER 0x320
#define REG_INITIAL_COUNT 0x380
#define REG_DIVIDE 0x3e0

struct gate {
	uint64_t low, high;
};

struct interrupt_frame;

struct exception_frame {
	uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

extern const char exception_stubs[];
void exception(const struct exception_frame *frame);

static struct gate idt[256] __attribute__((aligned(16)));
static int is_x2apic;

void machine_exit(unsigned char how)
{
	out8(0xf4, how);
	machine_halt();
}

void machine_halt(void)
{
	for (;;)
		__asm__ volatile("cli; hlt");
}

uint64_t now(void)
{
	uint32_t low, high;

	__asm__ volatile("lfence; rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}

static uint64_t read_msr(uint32_t msr)
{
	uint32_t low, high;

	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
	return (uint64_t)high << 32 | low;
}

static void write_msr(uint32_t msr, uint64_t value)
{
	__asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)) : "memory");
}

/* boot.s maps the page of the APIC's registers one to one, uncached. */
static volatile uint32_t *apic_register(uint32_t reg)
{
	return (volatile uint32_t *)((read_msr(APIC_BASE_MSR) & 0xffffff000ull) + reg);
}

static uint32_t apic_read(uint32_t reg)
{
	return is_x2apic ? (uint32_t)read_msr(0x800 + (reg >> 4)) : *apic_register(reg);
}

static void apic_write(uint32_t reg, uint32_t value)
{
	if (is_x2apic)
		write_msr(0x800 + (reg >> 4), value);
	else
		*apic_register(reg) = value;
}

uint64_t apic_id(void)
{
	return is_x2apic ? apic_read(REG_ID) : apic_read(REG_ID) >> 24;
}

/* Refuses the broadcast ids, and ids that the mode cannot address (10.6.2). */
int apic_check(uint64_t cpu)
{
	return cpu < (is_x2apic ? 0xffffffffull : 0xffull) ? 0 : -MK_IPI_ENXIO;
}

/* Sends a fixed interrupt to a physical APIC id, edge-triggered (10.6.1). The handler sees all earlier stores of this CPU. */
int apic_ring(uint64_t cpu, unsigned int vector)
{
	unsigned long flags;
	int polls, idle = 0;

	if (apic_check(cpu))
		return -MK_IPI_ENXIO;
	if (is_x2apic) {
		/* Without these fences the write of the MSR would not wait for earlier stores (10.12.3). */
		__asm__ volatile("mfence; lfence" : : : "memory");
		write_msr(0x800 + (REG_ICR_LOW >> 4), cpu << 32 | vector);
		return 0;
	}
	flags = irq_save();
	for (polls = 0; polls < 20000 && !idle; polls++)
		idle = !(apic_read(REG_ICR_LOW) & 1 << 12);
	if (idle) {
		apic_write(REG_ICR_HIGH, (uint32_t)cpu << 24);
		apic_write(REG_ICR_LOW, vector);
	}
	irq_restore(flags);
	return idle ? 0 : -MK_IPI_EAGAIN;
}

void exception(const struct exception_frame *frame)
{
	fatal_as(EXCEPTION, "exception %u, error %x, rip %x, rsp %x", frame->vector, frame->error, frame->rip, frame->rsp);
}

#ifdef __clang__
/* clang warns that a call in an interrupt handler can change vector registers. This kernel does not use vector registers. */
#pragma clang diagnostic ignored "-Winterrupt-service-routine"
#endif

__attribute__((interrupt)) static void doorbell_interrupt(struct interrupt_frame *frame)
{
	(void)frame;
	apic_write(REG_EOI, 0);
	on_doorbell();
}

__attribute__((interrupt)) static void tick_interrupt(struct interrupt_frame *frame)
{
	(void)frame;
	apic_write(REG_EOI, 0);
	on_tick();
}

/* For unknown vectors. A host can assume that this CPU is an unused one of its own, and send an interrupt to all CPUs. */
__attribute__((interrupt)) static void stray_interrupt(struct interrupt_frame *frame)
{
	(void)frame;
	apic_write(REG_EOI, 0);
}

/* For interrupts that need no acknowledgement: spurious ones (10.9), and NMIs, which this kernel ignores (SPEC A-17). */
__attribute__((interrupt)) static void ignored_interrupt(struct interrupt_frame *frame)
{
	(void)frame;
}

/* Sets a 64-bit interrupt gate for ring 0 (6.14.1). */
static void set_gate(unsigned int vector, uint64_t entry, uint64_t ist)
{
	idt[vector].low = (entry & 0xffff) | 0x08 << 16 | ist << 32 | 0x8e00ull << 32 | (entry >> 16 & 0xffff) << 48;
	idt[vector].high = entry >> 32;
}

int interrupts_init(int x2apic, int with_strays)
{
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) pointer = { sizeof(idt) - 1, (uint64_t)idt };
	unsigned int vector;

	for (vector = 0; vector < 32; vector++)
		set_gate(vector, (uint64_t)exception_stubs + 16 * vector, vector == DOUBLE_FAULT);
	set_gate(NMI, (uint64_t)ignored_interrupt, 1);
	for (; with_strays && vector < 256; vector++)
		set_gate(vector, (uint64_t)stray_interrupt, 0);
	set_gate(MULTIKERNEL_VECTOR, (uint64_t)doorbell_interrupt, 0);
	set_gate(TIMER_VECTOR, (uint64_t)tick_interrupt, 0);
	set_gate(SPURIOUS_VECTOR, (uint64_t)ignored_interrupt, 0);
	__asm__ volatile("lidt %0" : : "m"(pointer));
	if (!(read_msr(APIC_BASE_MSR) & 1 << 11))
		fatal("the local APIC is disabled");
	if (x2apic == 1)
		write_msr(APIC_BASE_MSR, read_msr(APIC_BASE_MSR) | 1 << 10);
	is_x2apic = (read_msr(APIC_BASE_MSR) >> 10) & 1;
	if (x2apic >= 0 && is_x2apic != x2apic)
		fatal("the local APIC is not in the mode of mk_ipi.mode=");
	apic_write(REG_SPURIOUS, 0x100 | SPURIOUS_VECTOR);
	/* A periodic tick, every 2 ms if the timer has 1 GHz. It wakes a CPU that sleeps, so that it sees time-outs (10.5.4). */
	apic_write(REG_DIVIDE, 0xb);
	apic_write(REG_LVT_TIMER, 1 << 17 | TIMER_VECTOR);
	apic_write(REG_INITIAL_COUNT, 2000000);
	return is_x2apic;
}
