/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A small bare-metal kernel in C for x86-64, which exchanges messages with other kernels by mk-ipi. It is a spawned kernel in
 * `cargo xtask demo`, or runs beside Linux in `cargo xtask linux`. The other kernels are the Rust kernels of examples/bare-metal.
 * This kernel uses their boot.s and kernel.ld, too.
 */
#ifndef KERNEL_H
#define KERNEL_H

#include "mk_ipi.h"

#include <stdarg.h>

#define MAX_KERNELS 16
#define MAX_MESSAGES (1u << 20)
#define SECOND 4000000000ull /* an upper bound of the cycles of the time stamp counter in a second */

/* ---- the machine (machine.c) ---- */

/* Why a kernel fails. The emulator's exit status is made from this value (examples/bare-metal/src/machine.rs). */
enum failure { ERROR = 0x12, EXCEPTION = 0x14 };

_Noreturn void machine_exit(unsigned char how);
_Noreturn void machine_halt(void);
uint64_t now(void);
/*
 * Makes this CPU accept doorbells, and starts the tick. Interrupts must be off, and stay off. x2apic: 0 for xAPIC mode, 1 for
 * x2APIC mode, -1 for the present mode. with_strays: whether interrupts on unknown vectors are acknowledged. Returns the
 * mode, 0 or 1.
 */
int interrupts_init(int x2apic, int with_strays);
uint64_t apic_id(void);
/* Checks whether a doorbell can be sent to the CPU. Returns 0 or -MK_IPI_ENXIO. */
int apic_check(uint64_t cpu);
/* Sends a doorbell. Returns 0, -MK_IPI_ENXIO or -MK_IPI_EAGAIN. */
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

/* ---- what the kernel is told at its start: `hvm_start_info`, `hvm_memmap_table_entry` of the PVH boot ABI, version 1 ---- */

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

/* ---- the demo's memory map, control area and journals (examples/bare-metal/src/layout.rs, control.rs, journal.rs) ---- */

struct kernel_words {
	uint32_t step, verdict;
	uint64_t progress, suite;
} __attribute__((aligned(64)));

struct control {
	uint64_t console; /* the lock: 0, or the number of the kernel that prints plus 1 */
	uint64_t killing; /* not used by this kernel */
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

/* Accesses to words that another kernel or an interrupt handler also accesses. */
#define LOAD(word) __atomic_load_n(&(word), __ATOMIC_ACQUIRE)
#define STORE(word, value) __atomic_store_n(&(word), (value), __ATOMIC_RELEASE)

/* ---- the console (console.c) ---- */

/* Makes this kernel print to the UART at `base`, which no other kernel uses. If `base` is 0, it prints nothing. */
void console_own(unsigned short base);
/* Prints a line of text for people. Conversions: %s; %u and %x, both for unsigned long. */
void say(const char *format, ...);
/* Prints a record for xtask: a JSON object. */
void record(const char *format, ...);
/* Prints an error record with this text, and calls give_up. */
_Noreturn void fatal_as(enum failure how, const char *format, ...);
#define fatal(...) fatal_as(ERROR, __VA_ARGS__)

/* ---- the start (main.c) ---- */

struct options {
	int serve;
	int x2apic; /* as the parameter of interrupts_init */
	int native;
	int hang; /* stop in the middle of the stream, to test that the demo detects this */
	uint64_t messages;
};

extern struct options options;
/* `me` is this kernel's number. A kernel that serves learns it when it joins. Until then it is NOBODY. */
#define NOBODY 255
extern unsigned int me, nr_kernels;

/* Ends the machine. A kernel that serves stops only itself. */
_Noreturn void give_up(enum failure how);

/* ---- the operations for the library, and deferred work (platform.c) ---- */

extern struct mk_ipi mk;
/* The number of doorbells that this kernel has rung. */
extern unsigned long rung;

/* Must be called after interrupts_init, and after the console is set up. */
void platform_init(const struct start_info *info);
/* How often deferred work has run. */
uint64_t runs(void);
/* Sleeps until the next interrupt, unless deferred work has run since runs() returned `seen`. */
void sleep_since(uint64_t seen);
/* Runs deferred work if it is due. */
void service(void);
/* The interrupt handlers of machine.c call these after the EOI. */
void on_doorbell(void);
void on_tick(void);

/* ---- messages (payload.c, traffic.c) ---- */

/* The largest number of messages that are sent to one receiver in a row. */
#define BURST 32
/* A sender sleeps if it found all slots occupied in more than this number of turns in a row (RFC v2). */
#define BUSY_SWEEPS 50
/* The largest number of round trips that are measured per receiver. */
#define MAX_TRIPS 1000

enum { STREAM = 0x100, PING = 0x101, PONG = 0x102 };

struct payload {
	unsigned char bytes[256];
	size_t size;
};

/* Round trips in cycles, sorted from the shortest to the longest. */
struct trips {
	size_t count;
	uint64_t cycles[MAX_TRIPS];
};

/* The check of one sender's stream (examples/bare-metal/src/stream_check.rs). */
struct check {
	uint32_t life; /* the sender's incarnation; 0 before the first one is known */
	uint64_t next; /* one more than the highest sequence number of this life that came */
	uint64_t seen; /* one bit for each of the 64 numbers below `next`, set if it came; bit 0 is for next - 1 */
	uint64_t received, former, first, lost, torn, doubled, disordered;
};

void payload_init(void);
void payload_make(struct payload *payload, uint64_t sequence, uint32_t sender);
/* Returns whether the payload is intact. If so, also returns its sequence number and sender. */
int payload_check(const unsigned char *bytes, size_t size, uint64_t *sequence, uint32_t *sender);
/*
 * Returns whether kernel `sender` can have sent the message. A lane has only one sender. A slot does not say who the sender is,
 * so it can be any kernel.
 */
int is_from(const struct mk_ipi_message *message, uint64_t sender);
/* Returns whether the message is intact, and can be from the sender that its payload names. */
int message_check(const struct mk_ipi_message *message, uint64_t *number, uint32_t *sender);
/* Returns whether a send that failed with this error can succeed later. */
int is_full(int err);
/* Counts an intact message of the stream. */
void check_take(struct check *check, uint64_t number);
/* Sets the sender's life. The next messages belong to this life. If it is a new life, its sequence numbers begin at 0. */
void check_began(struct check *check, uint32_t life);
void trips_add(struct trips *trips, uint64_t cycles);
uint64_t trips_at(const struct trips *trips, unsigned int percent);
/* If a period has passed: shows that this kernel is alive, checks which other kernels are, and follows the directory. */
void heartbeat(mk_ipi_followed_callback_t followed);

/* ---- the demo (demo.c, stream.c) ---- */

void stream_event(const struct mk_ipi_event *event);
void stream_run(void);
void stream_turn(void);
void stream_counts(unsigned int to, uint64_t *busy, uint64_t *doorbells);
/* The number of messages to kernel `to` that are in doubt: it died, and may have handled them or not. */
uint64_t stream_in_doubt(unsigned int to);
/* Runs deferred work. Counts for each stream how often in a row it had waiting messages, and none of them was taken. */
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
