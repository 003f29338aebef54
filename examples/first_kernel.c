/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Two kernels of generation RFC v2. This program plays the machine: its memory, and the doorbells. */
#include <mk_ipi.h>
#include <stdio.h>
#include <string.h>

enum { CPUS = 2, HELLO = 1 };
static struct kernel {
	struct mk_ipi mk;
	int rung, scheduled;
} kernels[CPUS]; /* kernel i has one CPU, and its physical id is i */
static _Alignas(4096) unsigned char memory[CPUS][4096]; /* a region for each kernel */
static uint64_t running; /* the CPU that runs this */

/* ANCHOR: ops */
/* What a kernel supplies. A physical address is an address of this program. */
static int pool_alloc(void *ctx, int id, uint64_t len, uint64_t *phys)
{
	(void)ctx;
	*phys = (uintptr_t)memory[id];
	return len <= sizeof(memory[id]) ? 0 : -MK_IPI_ENOMEM;
}
static void pool_free(void *ctx, int id, uint64_t phys, uint64_t len) { (void)ctx, (void)id, (void)phys, (void)len; }
static int map(void *ctx, uint64_t phys, uint64_t len, int writable, void **virt)
{
	(void)ctx, (void)len, (void)writable;
	*virt = (void *)(uintptr_t)phys;
	return 0;
}
static void unmap(void *ctx, void *virt, uint64_t len) { (void)ctx, (void)virt, (void)len; }
static int may_share(void *ctx, uint64_t phys, uint64_t len) { return (void)ctx, (void)phys, (void)len, 0; }
static int check(void *ctx, uint64_t cpu, unsigned v) { return (void)ctx, (void)v, cpu < CPUS ? 0 : -MK_IPI_ENXIO; }
static int ring(void *ctx, uint64_t cpu, unsigned v) { return (void)ctx, (void)v, kernels[cpu].rung = 1, 0; }
static uint64_t cpu_id(void *ctx) { return (void)ctx, running; }
static unsigned cpu_index(void *ctx) { return (void)ctx, 0; }
static unsigned long irq_save(void *ctx) { return (void)ctx, 0; }
static void irq_restore(void *ctx, unsigned long state) { (void)ctx, (void)state; }
static void schedule(void *ctx) { ((struct kernel *)ctx)->scheduled = 1; }
/* ANCHOR_END: ops */

static void hear(const struct mk_ipi_message *m, void *ctx)
{
	printf("CPU %d heard \"%.*s\" from CPU %d\n", (int)running, (int)m->size, (const char *)m->payload, (int)m->sender_cpu);
	if (running == 1) /* the spawned kernel answers */
		mk_ipi_send(ctx, 0, HELLO, "hello, host", 11, NULL);
}

/* ANCHOR: main */
int main(void)
{
	static const uint64_t cpus[CPUS] = { 0, 1 };
	struct mk_ipi_instance us[CPUS];
	struct mk_ipi_handler *handler;
	struct mk_ipi *host = &kernels[0].mk, *spawned = &kernels[1].mk;
	char line[64];
	int i, err = 0;

	for (i = 0; i < CPUS; i++) {
		struct mk_ipi_ops ops = {
			sizeof(ops), MK_IPI_OPS_VERSION, 0, &kernels[i], pool_alloc, pool_free, map, unmap, may_share,
			check, ring, ring, cpu_id, cpu_index, irq_save, irq_restore, schedule,
			NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
		};
		us[i] = (struct mk_ipi_instance){ .cpus = &cpus[i], .nr_cpus = 1, .doorbell_cpu = cpus[i], .id = i,
			.incarnation = 1, .vector = MULTIKERNEL_VECTOR, .layout = MK_IPI_RFC_V2, .slots = CPUS };
		err |= mk_ipi_init(&kernels[i].mk, sizeof(struct mk_ipi), &ops);
	}
	/* The host makes a region for itself and one for the kernel that it starts. */
	err |= mk_ipi_identify(host, 0, 1) | mk_ipi_create_instance(host, &us[0], NULL) | mk_ipi_create_instance(host, &us[1], NULL);
	/* The spawned kernel finds its region on its command line, and knows where the host's is. */
	running = 1;
	snprintf(line, sizeof(line), "mk_ipi_shared=%#llx", (unsigned long long)(uintptr_t)memory[1]);
	err |= mk_ipi_start_rfc_v2(spawned, line, strlen(line), &us[1]) != 1;
	err |= mk_ipi_attach_instance(spawned, &us[0], (uintptr_t)memory[0], sizeof(memory[0]) / 272 * 272);
	err |= mk_ipi_register(host, HELLO, hear, host, &handler) | mk_ipi_register(spawned, HELLO, hear, spawned, &handler);
	running = 0;
	err |= mk_ipi_send(host, 1, HELLO, "hello, kernel 1", 15, NULL);
	/* The machine: each CPU takes its doorbell, and behind it the deferred work. */
	while (kernels[0].rung || kernels[1].rung) {
		struct kernel *k = &kernels[running = kernels[1].rung];

		k->rung = 0;
		mk_ipi_interrupt(&k->mk);
		while (k->scheduled) {
			k->scheduled = 0;
			mk_ipi_run_deferred(&k->mk, NULL);
		}
	}
	return err != 0;
}
/* ANCHOR_END: main */
