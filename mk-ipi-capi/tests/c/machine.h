/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A simulated machine for the tests: memory that all kernels share, doorbells, and kernels, each with its own instance of the
 * library. One thread runs all kernels.
 */
#ifndef MACHINE_H
#define MACHINE_H

#include "mk_ipi.h"

#define PAGE 4096u
#define ARENA_PAGES 1024u
#define ARENA_PHYS 0x40000000ull
#define KERNELS 6
#define VECTOR 0xe0u

struct kernel {
	struct mk_ipi *mk;
	struct mk_ipi_ops ops;
	int id;
	unsigned index;
	uint64_t cpu;
	/* the state of the kernel's CPU */
	int pending, scheduled, irqs_off;
	/*
	 * Injected faults. no_pool, pool_empty: pool_alloc fails. maps_left: only this number of calls of map succeeds, with -1
	 * all. unreachable: doorbell_check fails. mute: doorbell_ring fails. unshared: peer_may_share refuses.
	 */
	int no_pool, pool_empty, maps_left, unreachable, mute, unshared;
	/* the result of the operation peer_has_cpu */
	int says_of_cpus;
	/* how often each operation was called */
	unsigned rung, relaxed, logged, stopped, added, removed, asked, nr_events, nr_left_out, nr_unhandled;
	const char *log_text; /* the last line of the log */
	/* the last message without a handler */
	uint32_t unhandled_type;
	size_t unhandled_size;
	/* the last instance that was left out, and why */
	int left_out, left_out_error;
	int maps, pages; /* now mapped; now allocated */
	uint32_t vector;   /* of the last doorbell that rang this kernel */
	uint64_t rung_cpu; /* the CPU that this kernel rang last */
	struct mk_ipi_event events[64];
	void (*on_relax)(void); /* called by the operation relax */
};

extern unsigned char arena[ARENA_PAGES * PAGE];
extern unsigned long checks, failures;

/* Counts a check. If `good` is 0, counts a failure, and prints where it is. */
int check(int good, const char *what, const char *file, int line, long long got);
#define CHECK(what) check(!!(what), #what, __FILE__, __LINE__, 0)
#define GIVES(call, expected) \
	do { \
		long long got_ = (long long)(call); \
		check(got_ == (long long)(expected), #call " == " #expected, __FILE__, __LINE__, got_); \
	} while (0)

/* The table of operations of a kernel. */
struct mk_ipi_ops kernel_ops(struct kernel *k);
/* Makes a kernel: instance `id` with one CPU, as incarnation `life`. If `life` is 0, it has no identity. */
void kernel_boot(struct kernel *k, int id, uint64_t cpu, uint32_t life);
/* Ends a kernel, and checks that it has unmapped and freed everything. */
void kernel_end(struct kernel *k);
/* The last event of that kind for `peer`; NULL if there was none since the last call of kernel_forget. */
const struct mk_ipi_event *kernel_event(const struct kernel *k, int peer, uint32_t kind);
/* Removes all events that the kernel has got. */
void kernel_forget(struct kernel *k);

/* The config of a kernel with one CPU. */
struct mk_ipi_instance config_of(int id, const uint64_t *cpu, uint32_t layout, uint32_t exclusive);
/* `host` makes its own region and that of `other`. Then both kernels are linked with each other. */
void link_two(struct kernel *host, struct kernel *other, uint32_t layout, uint32_t exclusive);

/* Runs interrupts and deferred work until there are none. */
void machine_run(void);
/* Checks that no kernel and no allocated page is left. Restores the defaults of the machine. */
void machine_reset(void);
/* Rings the doorbell of a CPU. Returns 1 if a kernel has that CPU. */
int machine_ring(uint64_t cpu, uint32_t vector);
/* Called if a kernel rings a CPU that no kernel has. It is the CPU of the peer (peer.c). */
extern void (*machine_other)(uint64_t cpu);
/* The number of lines in a lane, and the largest payload, of native regions that are made from now on, until machine_reset. */
extern uint32_t machine_lines, machine_max_len;
/* Kernels that are made from now on have no operation peer_has_cpu, until machine_reset. */
extern int machine_no_has_cpu;
/* Kernels that are made from now on have only the required operations, until machine_reset. */
extern int machine_least;

/* The memory at a physical address: a pointer to it, NULL if there is none; a word of it; pages of it that are allocated. */
void *at_phys(uint64_t phys);
uint64_t load64(uint64_t phys);
void store64(uint64_t phys, uint64_t value);
uint64_t pages_alloc(uint64_t len);
void pages_free(uint64_t phys, uint64_t len);
unsigned pages_used(void);

/* Byte `i` of the test message of `size` bytes, and all of its bytes. */
unsigned char test_byte(size_t size, size_t i);
void test_bytes(unsigned char *to, size_t size);

void test_bad_calls(void);
void test_instances(void);
void test_compat(void);
void test_native(void);
void test_lives(void);
void test_poller(void);
void test_directory(void);
void test_join(void);
void test_follow(void);
void test_cases(void);
void test_threads(void);
int test_peer(const char *path, const char *speaks);

#endif
