/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A spawned kernel: its start, what it supplies to mk-ipi, its deferred work, how it waits for the others. */
#include "kernel.h"

#define PATIENCE (10 * SECOND)
enum { READY = 1, DONE = 1000 };

/* `hvm_start_info` and `hvm_memmap_table_entry` of the PVH boot ABI, version 1. */
struct start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modules, cmdline, rsdp, memmap;
	uint32_t nr_memmap, reserved;
};

struct memmap_entry {
	uint64_t start, len;
	uint32_t kind, reserved;
};

struct options options = { .native = 1, .messages = 1000 };
struct mk_ipi mk;
unsigned int me, nr_kernels;
unsigned long rung;

extern char __image_start[], __image_end[];
_Noreturn void kernel_main(const struct start_info *info);

static struct memmap_entry memmap[32];
static unsigned int nr_memmap;
static uint64_t cpu;
static int due, running;
static uint64_t nr_runs;

unsigned int own_kernel(void)
{
	return (unsigned int)(((uint64_t)__image_start - 0x01000000) / 0x01000000);
}

/* ---- what this kernel supplies ---- */

/* Only a host makes regions. */
static int pool_alloc(void *ctx, int instance, uint64_t len, uint64_t *phys)
{
	(void)ctx, (void)instance, (void)len, (void)phys;
	return -MK_IPI_ENODEV;
}

static void pool_free(void *ctx, int instance, uint64_t phys, uint64_t len)
{
	(void)ctx, (void)instance, (void)phys, (void)len;
}

static int is_ram(uint64_t start, uint64_t len)
{
	unsigned int i;

	for (i = 0; i < nr_memmap; i++)
		if (memmap[i].kind == 1 && start >= memmap[i].start && len <= memmap[i].len &&
		    start - memmap[i].start <= memmap[i].len - len)
			return start + len <= 1ull << 32;
	return 0;
}

/* boot.s maps 4 GiB one to one, and once more, read-only, from 512 GiB on. */
static int map(void *ctx, uint64_t phys, uint64_t len, int writable, void **virt)
{
	int own = phys < (uint64_t)__image_end && (uint64_t)__image_start < phys + len;

	(void)ctx;
	if (phys == 0 || !is_ram(phys, len) || own)
		return -MK_IPI_EACCES;
	*virt = (void *)(phys + (writable ? 0 : 1ull << 39));
	return 0;
}

static void unmap(void *ctx, void *virt, uint64_t len)
{
	(void)ctx, (void)virt, (void)len;
}

static int peer_may_share(void *ctx, uint64_t phys, uint64_t len)
{
	(void)ctx;
	return phys >= POOLS && phys + len <= POOLS_END;
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

static void left_out(void *ctx, int instance, int error)
{
	(void)ctx;
	say("instance %u cannot be added: -%u", (unsigned long)instance, (unsigned long)-error);
}

static void peer_event(void *ctx, const struct mk_ipi_event *event)
{
	(void)ctx;
	stream_event(event);
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
	/* No NMI comes here. */
	.doorbell_ring_nmi = doorbell_ring,
	.this_cpu_id = this_cpu_id,
	.this_cpu_index = this_cpu_index,
	.irq_save = ops_irq_save,
	.irq_restore = ops_irq_restore,
	.schedule = schedule,
	.log = log_line,
	.region_added = region_added,
	.peer_event = peer_event,
	.left_out = left_out,
};

/* ---- deferred work ---- */

/* Interrupts are off, and on while it runs. A few runs in a row, so that whoever waits for space is rung less often. */
static void run_due(void)
{
	int runs;

	if (running)
		return;
	running = 1;
	for (runs = 0; due && runs < 4; runs++) {
		due = 0;
		__asm__ volatile("sti" : : : "memory");
		drain_watched();
		__asm__ volatile("cli" : : : "memory");
		STORE(nr_runs, nr_runs + 1);
	}
	running = 0;
}

void on_doorbell(void)
{
	mk_ipi_interrupt(&mk);
	run_due();
}

void on_tick(void)
{
	run_due();
}

uint64_t runs(void)
{
	return LOAD(nr_runs);
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

/* ---- among the others ---- */

void reach(uint32_t step)
{
	STORE(CONTROL->kernels[me].step, step);
}

static uint64_t progress_of_all(void)
{
	uint64_t sum = 0;
	unsigned int k;

	for (k = 0; k < nr_kernels; k++)
		sum += LOAD(CONTROL->kernels[k].progress) + LOAD(CONTROL->kernels[k].step);
	return sum;
}

void wait_until(const char *what, int (*step)(void *arg), void *arg)
{
	uint64_t since = now(), seen = progress_of_all(), before;
	int spins;

	for (;;) {
		for (spins = 0; spins < 100; spins++) {
			if (step(arg))
				return;
			pause_cpu();
		}
		if (progress_of_all() != seen) {
			seen = progress_of_all();
			since = now();
		}
		if (now() - since > PATIENCE)
			fatal("waited too long: %s", what);
		before = runs();
		if (step(arg))
			return;
		sleep_since(before);
	}
}

static uint32_t awaited;
static void (*aside)(void);

static int all_there(void *arg)
{
	unsigned int k;

	(void)arg;
	if (aside)
		aside();
	for (k = 0; k < nr_kernels; k++)
		if (LOAD(CONTROL->kernels[k].step) < awaited)
			return 0;
	return 1;
}

void wait_for_all(uint32_t step, void (*meanwhile)(void))
{
	awaited = step;
	aside = meanwhile;
	wait_until("not all kernels are so far", all_there, NULL);
}

/* ---- the start ---- */

static size_t length(const char *text)
{
	size_t n = 0;

	while (text[n])
		n++;
	return n;
}

/* What follows `name` in `line`; NULL if it is not there. */
static const char *value_of(const char *line, const char *name)
{
	size_t n = length(name), i;

	for (; *line; line++) {
		for (i = 0; i < n && line[i] == name[i]; i++)
			;
		if (i == n)
			return line + n;
	}
	return NULL;
}

static int begins(const char *text, const char *with)
{
	while (*with && *text == *with)
		text++, with++;
	return !*with;
}

static uint64_t number(const char *digits)
{
	uint64_t n = 0;

	for (; digits && *digits >= '0' && *digits <= '9'; digits++)
		n = 10 * n + (uint64_t)(*digits - '0');
	return n;
}

/* The host passes on its own options, which it has checked. */
static void read_options(const char *line)
{
	const char *run = value_of(line, "mk_ipi.run="), *mode = value_of(line, "mk_ipi.mode=");
	const char *generation = value_of(line, "mk_ipi.generation="), *n = value_of(line, "mk_ipi.messages=");
	const char *fault = value_of(line, "mk_ipi.fault=");

	if (run && !begins(run, "demo"))
		fatal("the kernel in C has the demo only");
	if (value_of(line, "mk_ipi.kill="))
		fatal("the kernel in C keeps no journal of its deaths");
	if (fault && number(value_of(fault, ":")) == own_kernel()) {
		options.hang = begins(fault, "hang:");
		if (!options.hang)
			fatal("the kernel in C fails by hanging only");
	}
	options.x2apic = mode && begins(mode, "x2apic");
	options.native = !generation || begins(generation, "native");
	options.messages = number(n);
	if (options.messages == 0 || options.messages > MAX_MESSAGES)
		fatal("bad number of messages");
}

/* Takes this kernel's place among the others: from then on it takes messages. */
static void join(const char *line)
{
	uint32_t life;
	int err = mk_ipi_init(&mk, sizeof(mk), &ops);

	if (err)
		fatal("mk_ipi_init: -%u", (unsigned long)-err);
	demo_register();
	err = mk_ipi_start(&mk, line, length(line));
	if (err <= 0)
		fatal("mk_ipi_start: -%u", (unsigned long)-err);
	nr_kernels = (unsigned int)err;
	me = (unsigned int)mk_ipi_identity(&mk, &life);
	if (me != own_kernel())
		fatal("the directory lists kernel %u with this region", (unsigned long)me);
	__asm__ volatile("sti" : : : "memory");
	reach(READY);
	record("{\"kernel\":{\"id\":%u,\"lang\":\"c\",\"cpu\":%u,\"life\":%u}}", (unsigned long)me, cpu,
	       (unsigned long)life);
	say("image at %x", (uint64_t)__image_start);
}

void kernel_main(const struct start_info *info)
{
	const struct memmap_entry *entries = (const void *)info->memmap;
	const char *line = (const void *)info->cmdline;
	int ok;

	for (; nr_memmap < info->nr_memmap && nr_memmap < 32; nr_memmap++)
		memmap[nr_memmap] = entries[nr_memmap];
	read_options(line);
	interrupts_init(options.x2apic);
	cpu = apic_id();
	join(line);
	wait_for_all(READY, NULL);
	ok = demo_run();
	STORE(CONTROL->kernels[me].verdict, ok ? 1 : 2);
	reach(DONE);
	machine_halt();
}
