/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A peer that uses the library. mk_ipi_test uses it if no other peer is named. It is also an example for those who write a peer.
 */
#include "mk_ipi.h"
#include "mk_ipi_peer.h"

#include <string.h>

#define INBOX 256

static struct mk_ipi storage;
static struct mk_ipi_peer_setup setup;
static struct mk_ipi_peer_message inbox[INBOX];
static unsigned first, last;
static int pending, scheduled;

static int pool_alloc(void *ctx, int instance, uint64_t len, uint64_t *phys)
{
	(void)ctx, (void)instance, (void)len, (void)phys;
	return -MK_IPI_ENODEV;
}

static void pool_free(void *ctx, int instance, uint64_t phys, uint64_t len)
{
	(void)ctx, (void)instance, (void)phys, (void)len;
}

static int map(void *ctx, uint64_t phys, uint64_t len, int writable, void **virt)
{
	(void)ctx, (void)writable;
	if (phys < setup.phys || len > setup.len || phys - setup.phys > setup.len - len)
		return -MK_IPI_EACCES;
	*virt = (char *)setup.memory + (phys - setup.phys);
	return 0;
}

static void unmap(void *ctx, void *virt, uint64_t len)
{
	(void)ctx, (void)virt, (void)len;
}

static int peer_may_share(void *ctx, uint64_t phys, uint64_t len)
{
	(void)ctx, (void)phys, (void)len;
	return 0;
}

static int doorbell_check(void *ctx, uint64_t cpu, unsigned int vector)
{
	(void)ctx, (void)vector;
	return cpu == setup.self.cpu || cpu == setup.other.cpu ? 0 : -MK_IPI_ENXIO;
}

static int doorbell_ring(void *ctx, uint64_t cpu, unsigned int vector)
{
	(void)ctx;
	if (cpu == setup.self.cpu)
		pending = 1;
	else
		setup.ring(setup.ctx, cpu, vector);
	return 0;
}

static uint64_t this_cpu_id(void *ctx)
{
	(void)ctx;
	return setup.self.cpu;
}

static unsigned int this_cpu_index(void *ctx)
{
	(void)ctx;
	return 0;
}

static unsigned long irq_save(void *ctx)
{
	(void)ctx;
	return 0;
}

static void irq_restore(void *ctx, unsigned long state)
{
	(void)ctx, (void)state;
}

static void schedule(void *ctx)
{
	(void)ctx;
	scheduled = 1;
}

static void received(const struct mk_ipi_message *message, void *ctx)
{
	struct mk_ipi_peer_message *to = &inbox[last % INBOX];

	(void)ctx;
	if (last - first == INBOX)
		return;
	to->sender_cpu = message->sender_cpu;
	to->type = message->type;
	to->size = (uint32_t)message->size;
	memcpy(to->bytes, message->payload, message->size);
	last++;
}

static int attach(const struct mk_ipi_peer_side *side)
{
	struct mk_ipi_instance config = {
		.cpus = &side->cpu,
		.doorbell_cpu = side->cpu,
		.nr_cpus = 1,
		.id = side->id,
		.incarnation = side->incarnation,
		.vector = setup.vector,
		.layout = setup.layout,
		.slots = setup.slots,
		.exclusive = setup.exclusive,
	};

	return mk_ipi_attach_instance(&storage, &config, side->region, side->region_len);
}

int mk_ipi_peer_init(const struct mk_ipi_peer_setup *given)
{
	struct mk_ipi_ops ops = {
		.size = sizeof(ops),
		.version = MK_IPI_OPS_VERSION,
		.pool_alloc = pool_alloc,
		.pool_free = pool_free,
		.map = map,
		.unmap = unmap,
		.peer_may_share = peer_may_share,
		.doorbell_check = doorbell_check,
		.doorbell_ring = doorbell_ring,
		.doorbell_ring_nmi = doorbell_ring,
		.this_cpu_id = this_cpu_id,
		.this_cpu_index = this_cpu_index,
		.irq_save = irq_save,
		.irq_restore = irq_restore,
		.schedule = schedule,
	};
	static const uint32_t types[] = { MK_IPI_PEER_TYPES };
	struct mk_ipi_handler *handler;
	unsigned i;
	int err;

	if (given->version != MK_IPI_PEER_VERSION)
		return -MK_IPI_EPROTO;
	setup = *given;
	pending = scheduled = 0;
	first = last = 0;
	err = mk_ipi_init(&storage, sizeof(storage), &ops);
	if (!err)
		err = mk_ipi_identify(&storage, setup.self.id, setup.self.incarnation);
	for (i = 0; !err && i < sizeof(types) / sizeof(types[0]); i++)
		err = mk_ipi_register(&storage, types[i], received, NULL, &handler);
	if (!err)
		err = attach(&setup.self);
	return err ? err : attach(&setup.other);
}

static void run(void)
{
	while (pending || scheduled) {
		if (pending) {
			pending = 0;
			mk_ipi_interrupt(&storage);
		}
		if (scheduled) {
			scheduled = 0;
			mk_ipi_run_deferred(&storage, NULL);
		}
	}
}

int mk_ipi_peer_send(uint32_t type, const void *data, size_t size)
{
	int err = mk_ipi_send(&storage, setup.other.id, type, data, size, NULL);

	return err == -MK_IPI_EAGAIN || err == -MK_IPI_ENOSPC || err == -MK_IPI_EBUSY ? 1 : err;
}

int mk_ipi_peer_receive(struct mk_ipi_peer_message *message)
{
	run();
	if (first == last)
		return 0;
	*message = inbox[first++ % INBOX];
	return 1;
}

void mk_ipi_peer_interrupt(void)
{
	pending = 1;
}

void mk_ipi_peer_fini(void)
{
	mk_ipi_fini(&storage);
}
