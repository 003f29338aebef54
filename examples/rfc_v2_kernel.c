/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A kernel with one CPU that exchanges messages with its host in the layout RFC v2. It sends each message back. */
#include <mk_ipi.h>

/* ANCHOR: kernel */
/* Functions that the kernel has already. */
void *kernel_map(uint64_t phys, uint64_t len);          /* maps memory write-back cached; NULL if that fails */
void kernel_unmap(void *virt, uint64_t len);
int kernel_ring(uint64_t cpu, unsigned int vector);     /* sends an IPI; returns 0, or a negated error number */
uint64_t kernel_cpu(void);                              /* returns the physical id of this CPU; on x86 its APIC id */
unsigned long kernel_irq_save(void);
void kernel_irq_restore(unsigned long state);

enum { HOST, ME, SLOTS, HELLO = 1 }; /* instances 0 and 1. Their CPU ids are 0 and 1, too, so a region has two slots */
static struct mk_ipi mk;
static volatile int scheduled;

static int map(void *ctx, uint64_t phys, uint64_t len, int writable, void **virt)
{
	(void)ctx, (void)writable;
	*virt = kernel_map(phys, len);
	return *virt ? 0 : -MK_IPI_ENOMEM;
}
static void unmap(void *ctx, void *virt, uint64_t len) { (void)ctx, kernel_unmap(virt, len); }
static int ring(void *ctx, uint64_t cpu, unsigned int vector) { return (void)ctx, kernel_ring(cpu, vector); }
static uint64_t cpu_id(void *ctx) { return (void)ctx, kernel_cpu(); }
static unsigned int cpu_index(void *ctx) { return (void)ctx, 0; }
static unsigned long irq_save(void *ctx) { return (void)ctx, kernel_irq_save(); }
static void irq_restore(void *ctx, unsigned long state) { (void)ctx, kernel_irq_restore(state); }
static void schedule(void *ctx) { (void)ctx, scheduled = 1; }

static void echo(const struct mk_ipi_message *message, void *ctx)
{
	(void)ctx;
	mk_ipi_send(&mk, HOST, HELLO, message->payload, message->size, NULL);
}

/* Called at boot, with the command line (or only the value of `mk_ipi_shared=`) and the host's region. */
/* Returns 0, or a negated error number. */
int mk_start(const char *cmdline, size_t len, uint64_t host_start, uint64_t host_len)
{
	static const uint64_t cpus[] = { HOST, ME };
	const struct mk_ipi_ops ops = { .size = sizeof(ops), .version = MK_IPI_OPS_VERSION, .map = map, .unmap = unmap,
		.doorbell_ring = ring, .this_cpu_id = cpu_id, .this_cpu_index = cpu_index, .irq_save = irq_save,
		.irq_restore = irq_restore, .schedule = schedule };
	struct mk_ipi_instance config = { .cpus = &cpus[ME], .nr_cpus = 1, .doorbell_cpu = ME, .id = ME, .incarnation = 1,
		.vector = MULTIKERNEL_VECTOR, .layout = MK_IPI_RFC_V2, .slots = SLOTS };
	struct mk_ipi_handler *handler;
	int err = mk_ipi_init(&mk, sizeof(mk), &ops);

	if (err == 0)
		err = mk_ipi_register(&mk, HELLO, echo, NULL, &handler);
	if (err == 0)
		err = mk_ipi_start_rfc_v2(&mk, cmdline, len, &config); /* 1, or 0 if the command line has no region */
	if (err <= 0)
		return err;
	config.cpus = &cpus[HOST], config.doorbell_cpu = HOST, config.id = HOST;
	return mk_ipi_attach_instance(&mk, &config, host_start, host_len);
}

/* Called by the handler of vector 0xea, after the EOI. */
void mk_doorbell(void) { mk_ipi_interrupt(&mk); }

/* Called by the idle loop or a task, with interrupts on. */
void mk_work(void)
{
	while (scheduled) {
		scheduled = 0;
		mk_ipi_run_deferred(&mk, NULL);
	}
}
/* ANCHOR_END: kernel */
