/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The operations that the library calls (memory, doorbell, ...), and deferred work. */
#include "kernel.h"

/* boot.s maps memory below CACHED_END twice. The second mapping is read-only, and its addresses are higher by READ_ONLY. */
#define CACHED_END (3ull << 30)
#define READ_ONLY (1ull << 39)
/*
 * Kinds of memory in the start info's memory map. For a kernel that serves, RAM is its own memory, and RESERVED is memory
 * that the host and other kernels share with it.
 */
enum { RAM = 1, RESERVED = 2 };

struct mk_ipi mk;
unsigned long rung;

extern char __image_start[], __image_end[];

static struct memmap_entry memmap[32];
static unsigned int nr_memmap;
static uint64_t cpu;
static int due, running;
static uint64_t nr_runs;

/* ---- the operations ---- */

/* Always fails: only a host makes regions. */
static int pool_alloc(void *ctx, int instance, uint64_t len, uint64_t *phys)
{
	(void)ctx, (void)instance, (void)len, (void)phys;
	return -MK_IPI_ENODEV;
}

static void pool_free(void *ctx, int instance, uint64_t phys, uint64_t len)
{
	(void)ctx, (void)instance, (void)phys, (void)len;
}

/* Returns whether mk-ipi may map this memory. In the demo it must be RAM. A kernel that serves may also map reserved memory. */
static int is_memory(uint64_t start, uint64_t len)
{
	unsigned int i;

	for (i = 0; i < nr_memmap; i++)
		if ((memmap[i].kind == RAM || (options.serve && memmap[i].kind == RESERVED)) &&
		    start >= memmap[i].start && len <= memmap[i].len &&
		    start - memmap[i].start <= memmap[i].len - len)
			return start + len <= CACHED_END;
	return 0;
}

static int map(void *ctx, uint64_t phys, uint64_t len, int writable, void **virt)
{
	int own = phys < (uint64_t)__image_end && (uint64_t)__image_start < phys + len;

	(void)ctx;
	if (phys == 0 || !is_memory(phys, len) || own)
		return -MK_IPI_EACCES;
	*virt = (void *)(phys + (writable ? 0 : READ_ONLY));
	return 0;
}

static void unmap(void *ctx, void *virt, uint64_t len)
{
	(void)ctx, (void)virt, (void)len;
}

/* Peers may share only pages in the instance pools. A kernel that serves lets them share none. */
static int peer_may_share(void *ctx, uint64_t phys, uint64_t len)
{
	(void)ctx;
	return !options.serve && phys >= POOLS && phys + len <= POOLS_END;
}

static int doorbell_check(void *ctx, uint64_t to, unsigned int vector)
{
	(void)ctx, (void)vector;
	return apic_check(to);
}

static int doorbell_ring(void *ctx, uint64_t to, unsigned int vector)
{
	int err = apic_ring(to, vector);

	(void)ctx;
	rung += !err;
	return err;
}

static uint64_t this_cpu_id(void *ctx)
{
	(void)ctx;
	return cpu;
}

static unsigned int this_cpu_index(void *ctx)
{
	(void)ctx;
	return 0;
}

static unsigned long ops_irq_save(void *ctx)
{
	(void)ctx;
	return irq_save();
}

static void ops_irq_restore(void *ctx, unsigned long state)
{
	(void)ctx;
	irq_restore(state);
}

static void schedule(void *ctx)
{
	(void)ctx;
	due = 1;
}

static void log_line(void *ctx, const char *text)
{
	(void)ctx;
	say("%s", text);
}

static void region_added(void *ctx, int instance, uint64_t phys, uint64_t len)
{
	(void)ctx;
	say("%x..%x: region of instance %u", phys, phys + len, (unsigned long)instance);
}

static void region_removed(void *ctx, int instance, uint64_t phys, uint64_t len)
{
	(void)ctx, (void)len;
	say("%x: region of instance %u removed", phys, (unsigned long)instance);
}

static void left_out(void *ctx, int instance, int error)
{
	(void)ctx;
	say("instance %u cannot be added: -%u", (unsigned long)instance, (unsigned long)-error);
}

static void peer_event(void *ctx, const struct mk_ipi_event *event)
{
	(void)ctx;
	if (options.serve)
		serve_event(event);
	else
		stream_event(event);
}

static void stop(void *ctx)
{
	(void)ctx;
	if (options.serve)
		serve_stop();
}

static const struct mk_ipi_ops ops = {
	.size = sizeof(ops),
	.version = MK_IPI_OPS_VERSION,
	.pool_alloc = pool_alloc,
	.pool_free = pool_free,
	.map = map,
	.unmap = unmap,
	.peer_may_share = peer_may_share,
	.doorbell_check = doorbell_check,
	.doorbell_ring = doorbell_ring,
	/* This kernel's NMI handler sends no messages, so this is never called from an NMI. */
	.doorbell_ring_nmi = doorbell_ring,
	.this_cpu_id = this_cpu_id,
	.this_cpu_index = this_cpu_index,
	.irq_save = ops_irq_save,
	.irq_restore = ops_irq_restore,
	.schedule = schedule,
	.log = log_line,
	.region_added = region_added,
	.region_removed = region_removed,
	.peer_event = peer_event,
	.left_out = left_out,
	.stop = stop,
};

void platform_init(const struct start_info *info)
{
	const struct memmap_entry *entries = (const void *)info->memmap;
	int err;

	for (; nr_memmap < info->nr_memmap && nr_memmap < 32; nr_memmap++)
		memmap[nr_memmap] = entries[nr_memmap];
	cpu = apic_id();
	err = mk_ipi_init(&mk, sizeof(mk), &ops);
	if (err)
		fatal("mk_ipi_init: -%u", (unsigned long)-err);
}

/* ---- deferred work ---- */

/*
 * Runs deferred work while it is due, at most four times. The caller has turned interrupts off; they are on while the work runs.
 * With several runs in a row, senders that wait for space get fewer doorbells than with single runs.
 */
static void run_due(void)
{
	int runs;

	if (running)
		return;
	running = 1;
	for (runs = 0; due && runs < 4; runs++) {
		due = 0;
		__asm__ volatile("sti" : : : "memory");
		if (options.serve)
			mk_ipi_run_deferred(&mk, NULL);
		else
			drain_watched();
		__asm__ volatile("cli" : : : "memory");
		STORE(nr_runs, nr_runs + 1);
	}
	running = 0;
}

/* In a kernel that serves, only the main program runs deferred work. So no message handler interrupts the main program. */
void on_doorbell(void)
{
	mk_ipi_interrupt(&mk);
	if (!options.serve)
		run_due();
}

void on_tick(void)
{
	if (!options.serve)
		run_due();
}

uint64_t runs(void)
{
	return LOAD(nr_runs);
}

void service(void)
{
	__asm__ volatile("cli" : : : "memory");
	run_due();
	__asm__ volatile("sti" : : : "memory");
}

void sleep_since(uint64_t seen)
{
	__asm__ volatile("cli" : : : "memory");
	run_due();
	if (due || nr_runs != seen)
		__asm__ volatile("sti" : : : "memory");
	else
		__asm__ volatile("sti; hlt" : : : "memory");
}
