/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "machine.h"

#include <stdio.h>
#include <string.h>

unsigned char arena[ARENA_PAGES * PAGE] __attribute__((aligned(4096)));
unsigned long checks, failures;
void (*machine_other)(uint64_t cpu);
uint32_t machine_lines = 8, machine_max_len = 256;
int machine_no_has_cpu, machine_least;

static struct mk_ipi storage[KERNELS];
static struct kernel *kernels[KERNELS];
static unsigned char used[ARENA_PAGES];

int check(int good, const char *what, const char *file, int line, long long got)
{
	checks++;
	if (!good) {
		failures++;
		printf("%s:%d: check failed: %s (the value is %lld)\n", file, line, what, got);
	}
	return good;
}

void *at_phys(uint64_t phys)
{
	if (phys < ARENA_PHYS || phys - ARENA_PHYS >= sizeof(arena))
		return NULL;
	return arena + (phys - ARENA_PHYS);
}

uint64_t load64(uint64_t phys)
{
	return __atomic_load_n((uint64_t *)at_phys(phys), __ATOMIC_SEQ_CST);
}

void store64(uint64_t phys, uint64_t value)
{
	__atomic_store_n((uint64_t *)at_phys(phys), value, __ATOMIC_SEQ_CST);
}

uint64_t pages_alloc(uint64_t len)
{
	uint64_t wanted = (len + PAGE - 1) / PAGE, first, n;

	for (first = 0; first + wanted <= ARENA_PAGES; first++) {
		for (n = 0; n < wanted && !used[first + n]; n++)
			;
		if (n == wanted) {
			memset(used + first, 1, wanted);
			memset(arena + first * PAGE, 0xa5, wanted * PAGE);
			return ARENA_PHYS + first * PAGE;
		}
	}
	return 0;
}

void pages_free(uint64_t phys, uint64_t len)
{
	memset(used + (phys - ARENA_PHYS) / PAGE, 0, (len + PAGE - 1) / PAGE);
}

unsigned pages_used(void)
{
	unsigned i, n = 0;

	for (i = 0; i < ARENA_PAGES; i++)
		n += used[i];
	return n;
}

/* ---- operations ---- */

static int op_pool_alloc(void *ctx, int instance, uint64_t len, uint64_t *phys)
{
	struct kernel *k = ctx;

	(void)instance;
	if (k->no_pool)
		return -MK_IPI_ENODEV;
	*phys = k->pool_empty ? 0 : pages_alloc(len);
	if (!*phys)
		return -MK_IPI_ENOMEM;
	k->pages += (int)((len + PAGE - 1) / PAGE);
	return 0;
}

static void op_pool_free(void *ctx, int instance, uint64_t phys, uint64_t len)
{
	struct kernel *k = ctx;

	(void)instance;
	pages_free(phys, len);
	k->pages -= (int)((len + PAGE - 1) / PAGE);
}

static int op_map(void *ctx, uint64_t phys, uint64_t len, int writable, void **virt)
{
	struct kernel *k = ctx;

	(void)writable;
	if (phys < ARENA_PHYS || len > sizeof(arena) || phys - ARENA_PHYS > sizeof(arena) - len)
		return -MK_IPI_EACCES;
	if (k->maps_left == 0)
		return -MK_IPI_ENOMEM;
	k->maps_left -= k->maps_left > 0;
	*virt = at_phys(phys);
	k->maps++;
	return 0;
}

static void op_unmap(void *ctx, void *virt, uint64_t len)
{
	(void)virt, (void)len;
	((struct kernel *)ctx)->maps--;
}

static int op_peer_may_share(void *ctx, uint64_t phys, uint64_t len)
{
	(void)len;
	return !((struct kernel *)ctx)->unshared && at_phys(phys) != NULL;
}

static int op_check(void *ctx, uint64_t cpu, unsigned int vector)
{
	(void)cpu, (void)vector;
	return ((struct kernel *)ctx)->unreachable ? -MK_IPI_ENXIO : 0;
}

static int op_ring(void *ctx, uint64_t cpu, unsigned int vector)
{
	struct kernel *k = ctx;

	if (k->mute)
		return -MK_IPI_EAGAIN;
	k->rung++;
	k->rung_cpu = cpu;
	if (!machine_ring(cpu, vector) && machine_other)
		machine_other(cpu);
	return 0;
}

static uint64_t op_cpu_id(void *ctx)
{
	return ((struct kernel *)ctx)->cpu;
}

static unsigned int op_cpu_index(void *ctx)
{
	return ((struct kernel *)ctx)->index;
}

static unsigned long op_irq_save(void *ctx)
{
	struct kernel *k = ctx;

	return (unsigned long)k->irqs_off++;
}

static void op_irq_restore(void *ctx, unsigned long state)
{
	struct kernel *k = ctx;

	CHECK(k->irqs_off == (int)state + 1);
	k->irqs_off = (int)state;
}

static void op_schedule(void *ctx)
{
	((struct kernel *)ctx)->scheduled = 1;
}

static void op_relax(void *ctx)
{
	struct kernel *k = ctx;

	k->relaxed++;
	if (k->on_relax)
		k->on_relax();
}

static void op_log(void *ctx, const char *text)
{
	struct kernel *k = ctx;

	k->logged += strlen(text) > 0;
	k->log_text = text;
}

static void op_region_added(void *ctx, int instance, uint64_t phys, uint64_t len)
{
	(void)instance;
	CHECK(at_phys(phys) && len > 0);
	((struct kernel *)ctx)->added++;
}

static void op_region_removed(void *ctx, int instance, uint64_t phys, uint64_t len)
{
	(void)instance, (void)phys, (void)len;
	((struct kernel *)ctx)->removed++;
}

static void op_peer_event(void *ctx, const struct mk_ipi_event *event)
{
	struct kernel *k = ctx;

	if (k->nr_events < sizeof(k->events) / sizeof(k->events[0]))
		k->events[k->nr_events++] = *event;
}

static int op_peer_has_cpu(void *ctx, int peer, uint64_t cpu)
{
	struct kernel *k = ctx;

	(void)peer, (void)cpu;
	k->asked++;
	return k->says_of_cpus;
}

static void op_left_out(void *ctx, int instance, int error)
{
	struct kernel *k = ctx;

	k->nr_left_out++;
	k->left_out = instance;
	k->left_out_error = error;
}

static void op_stop(void *ctx)
{
	((struct kernel *)ctx)->stopped++;
}

static void op_unhandled(void *ctx, const struct mk_ipi_message *message)
{
	struct kernel *k = ctx;

	k->nr_unhandled++;
	k->unhandled_type = message->type;
	k->unhandled_size = message->size;
}

struct mk_ipi_ops kernel_ops(struct kernel *k)
{
	struct mk_ipi_ops ops = {
		.size = sizeof(ops),
		.version = MK_IPI_OPS_VERSION,
		.ctx = k,
		.pool_alloc = op_pool_alloc,
		.pool_free = op_pool_free,
		.map = op_map,
		.unmap = op_unmap,
		.peer_may_share = op_peer_may_share,
		.doorbell_check = op_check,
		.doorbell_ring = op_ring,
		.doorbell_ring_nmi = op_ring,
		.this_cpu_id = op_cpu_id,
		.this_cpu_index = op_cpu_index,
		.irq_save = op_irq_save,
		.irq_restore = op_irq_restore,
		.schedule = op_schedule,
		.relax = op_relax,
		.log = op_log,
		.region_added = op_region_added,
		.region_removed = op_region_removed,
		.peer_event = op_peer_event,
		.peer_has_cpu = machine_no_has_cpu ? NULL : op_peer_has_cpu,
		.left_out = op_left_out,
		.stop = op_stop,
		.unhandled = op_unhandled,
	};

	if (machine_least) {
		ops.pool_alloc = NULL, ops.pool_free = NULL, ops.peer_may_share = NULL, ops.doorbell_check = NULL;
		ops.doorbell_ring_nmi = NULL, ops.relax = NULL, ops.log = NULL, ops.region_added = NULL;
		ops.region_removed = NULL, ops.peer_event = NULL, ops.peer_has_cpu = NULL, ops.left_out = NULL;
		ops.stop = NULL, ops.unhandled = NULL;
	}
	return ops;
}

/* ---- kernels ---- */

void kernel_boot(struct kernel *k, int id, uint64_t cpu, uint32_t life)
{
	int i = 0;

	memset(k, 0, sizeof(*k));
	while (i < KERNELS - 1 && kernels[i])
		i++;
	CHECK(!kernels[i]);
	kernels[i] = k;
	k->mk = &storage[i];
	k->id = id;
	k->cpu = cpu;
	k->maps_left = -1;
	k->says_of_cpus = -1;
	k->ops = kernel_ops(k);
	GIVES(mk_ipi_init(k->mk, sizeof(*k->mk), &k->ops), 0);
	/* mk_ipi_init has copied the table, so the kernel may overwrite it. */
	memset(&k->ops, 0xff, sizeof(k->ops));
	if (life)
		GIVES(mk_ipi_identify(k->mk, id, life), 0);
}

void kernel_end(struct kernel *k)
{
	int i;

	GIVES(mk_ipi_fini(k->mk), 0);
	GIVES(mk_ipi_fini(k->mk), -MK_IPI_EINVAL);
	GIVES(k->maps, 0);
	GIVES(k->pages, 0);
	GIVES(k->added, k->removed);
	GIVES(k->irqs_off, 0);
	for (i = 0; i < KERNELS; i++)
		if (kernels[i] == k)
			kernels[i] = NULL;
}

const struct mk_ipi_event *kernel_event(const struct kernel *k, int peer, uint32_t kind)
{
	unsigned i;

	for (i = k->nr_events; i-- > 0;)
		if (k->events[i].peer == peer && k->events[i].kind == kind)
			return &k->events[i];
	return NULL;
}

void kernel_forget(struct kernel *k)
{
	k->nr_events = 0;
}

struct mk_ipi_instance config_of(int id, const uint64_t *cpu, uint32_t layout, uint32_t exclusive)
{
	struct mk_ipi_instance config = {
		.cpus = cpu,
		.doorbell_cpu = *cpu,
		.nr_cpus = 1,
		.id = id,
		.incarnation = 1,
		.vector = VECTOR,
		.layout = layout,
		.slots = 8,
		.exclusive = exclusive,
	};

	if (layout == MK_IPI_NATIVE) {
		config.slots = 0;
		config.lanes = 8;
		config.lines = machine_lines;
		config.max_len = machine_max_len;
	}
	return config;
}

void link_two(struct kernel *host, struct kernel *other, uint32_t layout, uint32_t exclusive)
{
	struct mk_ipi_instance a = config_of(host->id, &host->cpu, layout, exclusive);
	struct mk_ipi_instance b = config_of(other->id, &other->cpu, layout, exclusive);
	struct mk_ipi_range ra, rb;

	GIVES(mk_ipi_create_instance(host->mk, &a, &ra), 0);
	GIVES(mk_ipi_create_instance(host->mk, &b, &rb), 0);
	GIVES(mk_ipi_attach_instance(other->mk, &b, rb.start, rb.len), 0);
	GIVES(mk_ipi_attach_instance(other->mk, &a, ra.start, ra.len), 0);
	machine_run();
}

int machine_ring(uint64_t cpu, uint32_t vector)
{
	int i;

	for (i = 0; i < KERNELS; i++)
		if (kernels[i] && kernels[i]->cpu == cpu) {
			kernels[i]->pending = 1;
			kernels[i]->vector = vector;
			return 1;
		}
	return 0;
}

static int kernel_run(struct kernel *k)
{
	int more = 0, due = k->pending || k->scheduled;

	if (k->pending) {
		k->pending = 0;
		mk_ipi_interrupt(k->mk);
	}
	if (k->scheduled) {
		k->scheduled = 0;
		CHECK(mk_ipi_run_deferred(k->mk, &more) >= 0);
		CHECK(!more || k->scheduled);
	}
	return due;
}

void machine_run(void)
{
	int due, i, turns = 0;

	do {
		due = 0;
		for (i = 0; i < KERNELS; i++)
			if (kernels[i])
				due |= kernel_run(kernels[i]);
	} while (due && ++turns < 10000);
	CHECK(turns < 10000);
}

void machine_reset(void)
{
	int i;

	for (i = 0; i < KERNELS; i++)
		CHECK(!kernels[i]);
	GIVES(pages_used(), 0);
	memset(used, 0, sizeof(used));
	machine_other = NULL;
	machine_lines = 8, machine_max_len = 256;
	machine_no_has_cpu = 0, machine_least = 0;
}

unsigned char test_byte(size_t size, size_t i)
{
	return (unsigned char)(31 * i + 7 * size + 1);
}

void test_bytes(unsigned char *to, size_t size)
{
	size_t i;

	for (i = 0; i < size; i++)
		to[i] = test_byte(size, i);
}
