/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A small bare-metal x86-64 kernel in C that talks to others through mk-ipi. It takes the place of a spawned kernel in
 * `cargo xtask demo`, beside the Rust kernels of examples/bare-metal, whose boot.s and kernel.ld it shares.
 */
#ifndef KERNEL_H
#define KERNEL_H

#include "mk_ipi.h"

#include <stdarg.h>

#define MAX_KERNELS 16
#define MAX_MESSAGES (1u << 20)
#define SECOND 4000000000ull /* cycles, at most */

/* ---- the machine (machine.c) ---- */

/* What the emulator's exit status says (examples/bare-metal/src/machine.rs). */
enum { EXIT_ERROR = 0x12, EXIT_EXCEPTION = 0x14 };

_Noreturn void machine_exit(unsigned char how);
_Noreturn void machine_halt(void);
uint64_t now(void);
void interrupts_init(int x2apic);
uint64_t apic_id(void);
/* 0, -MK_IPI_ENXIO or -MK_IPI_EAGAIN. */
int apic_check(uint64_t cpu);
int apic_ring(uint64_t cpu, unsigned int vector);

static inline void out8(unsigned short port, unsigned char value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline unsigned char in8(unsigned short port)
{
	unsigned char value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline unsigned long irq_save(void)
{
	unsigned long flags;

	__asm__ volatile("pushfq; popq %0; cli" : "=r"(flags) : : "memory");
	return flags;
}

static inline void irq_restore(unsigned long flags)
{
	if (flags & 0x200)
		__asm__ volatile("sti" : : : "memory");
}

static inline void pause_cpu(void)
{
	__asm__ volatile("pause" : : : "memory");
}

/* ---- the memory map and what lies in it (examples/bare-metal/src/layout.rs, control.rs, journal.rs) ---- */

struct kernel_words {
	uint32_t step, verdict;
	uint64_t progress, suite;
} __attribute__((aligned(64)));

struct control {
	uint64_t console; /* who prints: a kernel's id plus 1 */
	uint64_t killing;
	struct kernel_words kernels[MAX_KERNELS];
};

struct sent_to {
	uint64_t begun, ended, flushed;
	uint64_t rest[53];
};

struct from_sender {
	uint64_t received, next, disordered, doubled, torn;
	uint64_t seen[MAX_MESSAGES / 64];
};

struct journal {
	struct sent_to sent[MAX_KERNELS];
	struct from_sender senders[MAX_KERNELS];
	uint64_t torn;
};

_Static_assert(offsetof(struct control, kernels) == 64 && sizeof(struct kernel_words) == 64, "as control.rs");
_Static_assert(sizeof(struct sent_to) == 448 && sizeof(struct from_sender) == 131112, "as journal.rs");

#define CONTROL ((struct control *)0x18000000)
#define DIRECTORY_END 0x18120000ull
#define POOLS 0x19000000ull
#define POOLS_END (POOLS + MAX_KERNELS * 0x100000ull)

static inline struct journal *journal_of(unsigned int k)
{
	return (struct journal *)(0x1a000000ull + k * 0x400000ull);
}

/* Words that another kernel, or an interrupt, writes. */
#define LOAD(word) __atomic_load_n(&(word), __ATOMIC_ACQUIRE)
#define STORE(word, value) __atomic_store_n(&(word), (value), __ATOMIC_RELEASE)

/* ---- the console (console.c) ---- */

/* Lines of text, for people. Conversions: %s, %u (unsigned long), %x (unsigned long). */
void say(const char *format, ...);
/* A record for machines: a JSON object. */
void record(const char *format, ...);
_Noreturn void fatal(const char *format, ...);

/* ---- this kernel among the others (main.c) ---- */

struct options {
	int x2apic, native;
	int hang; /* stop in mid-stream, to prove that the demo notices */
	uint64_t messages;
};

extern struct options options;
extern struct mk_ipi mk;
extern unsigned int me, nr_kernels;
extern unsigned long rung;

unsigned int own_kernel(void);
/* How often deferred work has run; sleeps until the next interrupt unless it has run since it was `seen`. */
uint64_t runs(void);
void sleep_since(uint64_t seen);
/* Called by the interrupts of machine.c, after the EOI. */
void on_doorbell(void);
void on_tick(void);
void reach(uint32_t step);
/* Calls `step` until it says that the wait is over; gives up when no kernel gets on. */
void wait_until(const char *what, int (*step)(void *arg), void *arg);
void wait_for_all(uint32_t step, void (*meanwhile)(void));

/* ---- the demo (demo.c, stream.c, payload.c) ---- */

struct payload {
	unsigned char bytes[256];
	size_t size;
};

void payload_init(void);
void payload_make(struct payload *payload, uint64_t sequence, uint32_t sender);
/* Whether it arrived whole; then its number and sender. */
int payload_check(const unsigned char *bytes, size_t size, uint64_t *sequence, uint32_t *sender);

enum { STREAM = 0x100, PING = 0x101, PONG = 0x102 };

void stream_event(const struct mk_ipi_event *event);
void stream_run(void);
void stream_turn(void);
void stream_counts(unsigned int to, uint64_t *busy, uint64_t *doorbells);
/* Messages to that kernel of which nobody knows whether it handled them. */
uint64_t stream_in_doubt(unsigned int to);
void heartbeat(void);
/* Deferred work, watched: does each stream get its turn? */
void drain_watched(void);
void drains_watch(int on);
int drains_report(void);

void demo_register(void);
int demo_run(void);

#endif
