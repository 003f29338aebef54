/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A small bare-metal x86-64 kernel in C that talks to others through mk-ipi. It takes the place of a spawned kernel in
 * `cargo xtask demo`, or runs beside Linux in `cargo xtask linux`. The other kernels are the Rust kernels of examples/bare-metal,
 * whose
 * boot.s and kernel.ld it uses, too.
 */
#ifndef KERNEL_H
#define KERNEL_H

#include "mk_ipi.h"

#include <stdarg.h>

#define MAX_KERNELS 16
#define MAX_MESSAGES (1u << 20)
#define SECOND 4000000000ull /* cycles, at most */

/* ---- the machine (machine.c) ---- */

/* How a kernel fails; it becomes the emulator's exit status (examples/bare-metal/src/machine.rs). */
enum failure { ERROR = 0x12, EXCEPTION = 0x14 };

_Noreturn void machine_exit(unsigned char how);
_Noreturn void machine_halt(void);
uint64_t now(void);
/* Opens the doorbell, with interrupts off. x2apic: 0 xAPIC mode, 1 x2APIC mode, -1 no change. Returns the mode (0 or 1). */
int interrupts_init(int x2apic, int with_strays);
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

/* ---- how it was started: `hvm_start_info` and `hvm_memmap_table_entry` of the PVH boot ABI, version 1 ---- */

#define START_MAGIC 0x336ec578

struct start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modules, cmdline, rsdp, memmap;
	uint32_t nr_memmap, reserved;
};

struct memmap_entry {
	uint64_t start, len;
	uint32_t kind, reserved;
};

/* ---- the demo's memory map and what lies in it (examples/bare-metal/src/layout.rs, control.rs, journal.rs) ---- */

struct kernel_words {
	uint32_t step, verdict;
	uint64_t progress, suite;
} __attribute__((aligned(64)));

struct control {
	uint64_t console; /* the kernel that prints: its id plus 1 */
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

/* For words that another kernel, or an interrupt, writes. */
#define LOAD(word) __atomic_load_n(&(word), __ATOMIC_ACQUIRE)
#define STORE(word, value) __atomic_store_n(&(word), (value), __ATOMIC_RELEASE)

/* ---- the console (console.c) ---- */

/* From now on this kernel has its own line, the UART at `base`, or none if that is 0. */
void console_own(unsigned short base);
/* Prints a line of text, for people. Conversions: %s, %u (unsigned long), %x (unsigned long). */
void say(const char *format, ...);
/* Prints a record for machines: a JSON object. */
void record(const char *format, ...);
/* Says why, and gives up. */
_Noreturn void fatal_as(enum failure how, const char *format, ...);
#define fatal(...) fatal_as(ERROR, __VA_ARGS__)

/* ---- the start (main.c) ---- */

struct options {
	int serve;
	int x2apic; /* as for interrupts_init */
	int native;
	int hang; /* stop in mid-stream, to prove that the demo notices */
	uint64_t messages;
};

extern struct options options;
/* This kernel's number. A kernel that serves learns it when it joins, and has NOBODY until then. */
#define NOBODY 255
extern unsigned int me, nr_kernels;

/* Ends the machine; a kernel that serves ends only itself. */
_Noreturn void give_up(enum failure how);

/* ---- what it supplies to mk-ipi (platform.c) ---- */

extern struct mk_ipi mk;
/* Doorbells rung. */
extern unsigned long rung;

/* Called when the APIC is on and the console is set up. */
void platform_init(const struct start_info *info);
/* How often deferred work has run. sleep_since sleeps until the next interrupt, unless it has run since runs() gave `seen`. */
uint64_t runs(void);
void sleep_since(uint64_t seen);
/* Does the deferred work that is due. */
void service(void);
/* Called by the interrupts of machine.c, after the EOI. */
void on_doorbell(void);
void on_tick(void);

/* ---- messages (payload.c, traffic.c) ---- */

/* Messages to one receiver in a row. Sweeps that find all receivers busy, before a sender sleeps (RFC v2). */
#define BURST 32
#define BUSY_SWEEPS 50
#define MAX_TRIPS 1000

enum { STREAM = 0x100, PING = 0x101, PONG = 0x102 };

struct payload {
	unsigned char bytes[256];
	size_t size;
};

/* Round trips, the shortest first. */
struct trips {
	size_t count;
	uint64_t cycles[MAX_TRIPS];
};

/* What is known of an endless stream (examples/bare-metal/src/stream_check.rs). */
struct check {
	uint32_t life; /* the sender's life, 0 before the first */
	uint64_t next; /* the number after the highest one of this life that came */
	uint64_t seen; /* one bit for each of the 64 numbers below `next`; bit 0 is the highest one's */
	uint64_t received, former, first, lost, torn, doubled, disordered;
};

void payload_init(void);
void payload_make(struct payload *payload, uint64_t sequence, uint32_t sender);
/* Returns whether it arrived whole. Then gives its number and sender. */
int payload_check(const unsigned char *bytes, size_t size, uint64_t *sequence, uint32_t *sender);
/* Returns whether it can be from that kernel: a lane proves the sender; a slot does not. */
int is_from(const struct mk_ipi_message *message, uint64_t sender);
/* Returns whether it arrived whole, and can be from the sender that it names. */
int message_check(const struct mk_ipi_message *message, uint64_t *number, uint32_t *sender);
/* Returns whether a send that gave this error can succeed later. */
int is_full(int err);
/* Notes that a message of the stream came whole. */
void check_take(struct check *check, uint64_t number);
/* What comes from now on was sent in this life of the sender. If it is another life than before, it begins at number 0. */
void check_began(struct check *check, uint32_t life);
void trips_add(struct trips *trips, uint64_t cycles);
uint64_t trips_at(const struct trips *trips, unsigned int percent);
/* If it is time: shows that this kernel lives, checks which others do, and follows the directory. */
void heartbeat(mk_ipi_followed_callback_t followed);

/* ---- the demo (demo.c, stream.c) ---- */

void stream_event(const struct mk_ipi_event *event);
void stream_run(void);
void stream_turn(void);
void stream_counts(unsigned int to, uint64_t *busy, uint64_t *doorbells);
/* Messages to that kernel that it may or may not have handled before it died. */
uint64_t stream_in_doubt(unsigned int to);
/* Does deferred work, and checks that each stream gets its turn. */
void drain_watched(void);
void drains_watch(int on);
int drains_report(void);

void demo_register(void);
_Noreturn void demo_run(void);

/* ---- serving a host of another kind (serve.c) ---- */

void serve_register(void);
_Noreturn void serve_run(void);
void serve_event(const struct mk_ipi_event *event);
void serve_stop(void);

#endif
