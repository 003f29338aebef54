/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The host of the kernel in rfc_v2_kernel.c. This program also simulates the machine: its memory and its doorbells. */
#include <mk_ipi.h>
#include <stdio.h>
#include <string.h>

/* The other kernel, on CPU 1. */
int mk_start(const char *cmdline, size_t len, uint64_t host_start, uint64_t host_len);
void mk_doorbell(void);
void mk_work(void);

/* ---- the machine: a physical address is an address of this program ---- */

enum { CPUS = 2, HELLO = 1 };
static _Alignas(4096) unsigned char memory[CPUS][4096]; /* a region for each kernel */
static uint64_t running; /* the CPU that runs now */
static int rung[CPUS];

void *kernel_map(uint64_t phys, uint64_t len) { return (void)len, (void *)(uintptr_t)phys; }
void kernel_unmap(void *virt, uint64_t len) { (void)virt, (void)len; }
int kernel_ring(uint64_t cpu, unsigned int vector) { return (void)vector, rung[cpu] = 1, 0; }
uint64_t kernel_cpu(void) { return running; }
unsigned long kernel_irq_save(void) { return 0; }
void kernel_irq_restore(unsigned long state) { (void)state; }

/* ---- the host ---- */

static struct mk_ipi mk;
static int scheduled;

/* ANCHOR: ops */
static int map(void *ctx, uint64_t phys, uint64_t len, int writable, void **virt)
{
	(void)ctx, (void)writable;
	return (*virt = kernel_map(phys, len)) ? 0 : -MK_IPI_ENOMEM;
}
static void unmap(void *ctx, void *virt, uint64_t len) { (void)ctx, kernel_unmap(virt, len); }
static int ring(void *ctx, uint64_t cpu, unsigned v) { return (void)ctx, kernel_ring(cpu, v); }
static uint64_t cpu_id(void *ctx) { return (void)ctx, kernel_cpu(); }
static unsigned cpu_index(void *ctx) { return (void)ctx, 0; }
static unsigned long irq_save(void *ctx) { return (void)ctx, kernel_irq_save(); }
static void irq_restore(void *ctx, unsigned long state) { (void)ctx, kernel_irq_restore(state); }
static void schedule(void *ctx) { (void)ctx, scheduled = 1; }
/* A host also allocates memory for regions, by two more operations. */
static int pool_alloc(void *ctx, int id, uint64_t len, uint64_t *phys)
{
	(void)ctx;
	*phys = (uintptr_t)memory[id];
	return len <= sizeof(memory[id]) ? 0 : -MK_IPI_ENOMEM;
}
static void pool_free(void *ctx, int id, uint64_t phys, uint64_t len) { (void)ctx, (void)id, (void)phys, (void)len; }
/* ANCHOR_END: ops */

static void hear(const struct mk_ipi_message *m, void *ctx)
{
	(void)ctx;
	printf("the host heard \"%.*s\" from CPU %d\n", (int)m->size, (const char *)m->payload, (int)m->sender_cpu);
}

/* ANCHOR: main */
static int fail(const char *what, int err) { return fprintf(stderr, "%s: %s\n", what, mk_ipi_last_error(&mk, err)), 1; }

int main(void)
{
	const struct mk_ipi_ops ops = { .size = sizeof(ops), .version = MK_IPI_OPS_VERSION, .map = map, .unmap = unmap,
		.doorbell_ring = ring, .this_cpu_id = cpu_id, .this_cpu_index = cpu_index, .irq_save = irq_save,
		.irq_restore = irq_restore, .schedule = schedule, .pool_alloc = pool_alloc, .pool_free = pool_free };
	struct mk_ipi_range regions[CPUS];
	struct mk_ipi_handler *handler;
	char line[64];
	int err = mk_ipi_init(&mk, sizeof(mk), &ops);

	if (err || (err = mk_ipi_identify(&mk, 0, 1)) || (err = mk_ipi_register(&mk, HELLO, hear, NULL, &handler)))
		return fail("the host", err);
	/* Make a region for each kernel. Each kernel has one CPU, whose number is the kernel's instance id. */
	for (uint64_t i = 0; i < CPUS; i++) {
		struct mk_ipi_instance config = { .cpus = &i, .nr_cpus = 1, .doorbell_cpu = i, .id = (int)i, .incarnation = 1,
			.vector = MULTIKERNEL_VECTOR, .layout = MK_IPI_RFC_V2, .slots = CPUS };

		if ((err = mk_ipi_create_instance(&mk, &config, &regions[i])))
			return fail("a region", err);
	}
	/* Start the other kernel. Its command line contains the address of its region. */
	running = 1;
	snprintf(line, sizeof(line), "quiet mk_ipi_shared=%#llx", (unsigned long long)regions[1].start);
	if ((err = mk_start(line, strlen(line), regions[0].start, regions[0].len)))
		return fail("the other kernel", err);
	running = 0;
	if ((err = mk_ipi_send(&mk, 1, HELLO, "hello, kernel 1", 15, NULL)))
		return fail("sending", err);
	/* The machine: each CPU handles its doorbell, and after it runs the deferred work. */
	while (rung[0] || rung[1]) {
		running = (uint64_t)rung[1];
		rung[running] = 0;
		if (running == 1)
			mk_doorbell(), mk_work();
		else
			mk_ipi_interrupt(&mk);
		while (scheduled) {
			scheduled = 0;
			mk_ipi_run_deferred(&mk, NULL);
		}
	}
	return 0;
}
/* ANCHOR_END: main */
