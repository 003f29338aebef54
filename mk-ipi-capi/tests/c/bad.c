/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Wrong calls: each returns an error number, or does nothing, as the header says. */
#include "machine.h"

#include <string.h>

static struct kernel a, b;

static void no_message(const struct mk_ipi_message *message, void *ctx)
{
	(void)message, (void)ctx;
}

/* Each required operation is NULL in turn: mk_ipi_init fails, and the log names the operation. */
static void tables(void)
{
#define NEEDED(name) { offsetof(struct mk_ipi_ops, name), "mk_ipi: the operation " #name " is NULL" }
	static const struct {
		size_t at;
		const char *line;
	} needed[] = {
		NEEDED(pool_free), NEEDED(map), NEEDED(unmap), NEEDED(doorbell_ring), NEEDED(this_cpu_id),
		NEEDED(this_cpu_index), NEEDED(irq_save), NEEDED(irq_restore), NEEDED(schedule),
	};
	static struct mk_ipi mk;
	struct mk_ipi_ops ops;
	void (*none)(void) = NULL;
	size_t i;

	memset(&a, 0, sizeof(a));
	for (i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
		ops = kernel_ops(&a);
		memcpy((char *)&ops + needed[i].at, &none, sizeof(none));
		GIVES(mk_ipi_init(&mk, sizeof(mk), &ops), -MK_IPI_EINVAL);
		GIVES(a.logged, i + 1);
		CHECK(strcmp(a.log_text, needed[i].line) == 0);
	}
	ops = kernel_ops(&a);
	ops.size--;
	GIVES(mk_ipi_init(&mk, sizeof(mk), &ops), -MK_IPI_EINVAL);
	ops.size++;
	ops.version++;
	GIVES(mk_ipi_init(&mk, sizeof(mk), &ops), -MK_IPI_EPROTO);
	ops.version--;
	ops.reserved = 1;
	GIVES(mk_ipi_init(&mk, sizeof(mk), &ops), -MK_IPI_EINVAL);
	ops.reserved = 0;
	GIVES(mk_ipi_init(&mk, sizeof(mk) - 1, &ops), -MK_IPI_EINVAL);
	GIVES(mk_ipi_init(&mk, sizeof(mk), NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_init(NULL, sizeof(mk), &ops), -MK_IPI_EINVAL);
	/* All optional operations may be NULL. */
	ops.relax = NULL, ops.log = NULL, ops.region_added = NULL, ops.region_removed = NULL;
	ops.peer_event = NULL, ops.peer_has_cpu = NULL, ops.left_out = NULL, ops.stop = NULL;
	ops.unhandled = NULL, ops.pool_alloc = NULL, ops.pool_free = NULL, ops.peer_may_share = NULL;
	ops.doorbell_check = NULL, ops.doorbell_ring_nmi = NULL;
	GIVES(mk_ipi_init(&mk, sizeof(mk), &ops), 0);
	GIVES(mk_ipi_init(&mk, sizeof(mk), &ops), -MK_IPI_EBUSY);
	GIVES(mk_ipi_fini(&mk), 0);
}

/* Every call, with a pointer that is not an instance of the library. */
static void no_instance(struct mk_ipi *mk)
{
	struct mk_ipi_handler *handler;
	struct mk_ipi_instance config = config_of(1, &a.cpu, MK_IPI_RFC_V2, 0);
	struct mk_ipi_instance_info info;
	struct mk_ipi_record record = { 0 };
	struct mk_ipi_stats stats;
	struct mk_ipi_lane_stats lane;
	struct mk_ipi_poller poller = { { 0 } };
	struct mk_ipi_payload payload = { "x", 1 };
	uint64_t number;
	size_t done;
	void *page;

	GIVES(mk_ipi_fini(mk), -MK_IPI_EINVAL);
	GIVES(mk_ipi_identify(mk, 0, 1), -MK_IPI_EINVAL);
	GIVES(mk_ipi_identity(mk, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_register(mk, 1, no_message, NULL, &handler), -MK_IPI_EINVAL);
	GIVES(mk_ipi_unregister(mk, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_create_instance(mk, &config, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_attach_instance(mk, &config, 0, 0), -MK_IPI_EINVAL);
	GIVES(mk_ipi_destroy_instance(mk, 0), -MK_IPI_EINVAL);
	GIVES(mk_ipi_get_instance(mk, 0, &info), -MK_IPI_EINVAL);
	GIVES(mk_ipi_clear_claims(mk, 0, 1), -MK_IPI_EINVAL);
	GIVES(mk_ipi_start(mk, "", 0), -MK_IPI_EINVAL);
	GIVES(mk_ipi_start_rfc_v2(mk, "", 0, &config), -MK_IPI_EINVAL);
	GIVES(mk_ipi_join(mk, 0, NULL, 0), -MK_IPI_EINVAL);
	GIVES(mk_ipi_attach_record(mk, &record, &a.cpu), -MK_IPI_EINVAL);
	GIVES(mk_ipi_send(mk, 0, 1, "x", 1, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_send_to_cpu(mk, 0, 0, 1, "x", 1, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_send_from_nmi(mk, 0, 1, "x", 1, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_post(mk, 0, 1, "x", 1, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_post_many(mk, 0, 1, &payload, 1, &done), -MK_IPI_EINVAL);
	GIVES(mk_ipi_send_many(mk, 0, 1, &payload, 1, &done), -MK_IPI_EINVAL);
	GIVES(mk_ipi_handled(mk, 0, &number), -MK_IPI_EINVAL);
	GIVES(mk_ipi_flush(mk, 0), -MK_IPI_EINVAL);
	GIVES(mk_ipi_ring(mk, 0), -MK_IPI_EINVAL);
	GIVES(mk_ipi_want_space(mk, 0, 1), -MK_IPI_EINVAL);
	GIVES(mk_ipi_send_pfn(mk, 0, 1, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_map_pfn(mk, 1, &page), -MK_IPI_EINVAL);
	GIVES(mk_ipi_unmap_page(mk, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_poll(mk), -MK_IPI_EINVAL);
	GIVES(mk_ipi_run_deferred(mk, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_drain(mk, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_get_stats(mk, &stats), -MK_IPI_EINVAL);
	GIVES(mk_ipi_get_lane_stats(mk, 0, &lane), -MK_IPI_EINVAL);
	GIVES(mk_ipi_tick(mk, 0, 0), -MK_IPI_EINVAL);
	GIVES(mk_ipi_goodbye(mk), -MK_IPI_EINVAL);
	GIVES(mk_ipi_discard_unread(mk), -MK_IPI_EINVAL);
	GIVES(mk_ipi_stop(mk, 0, 1), -MK_IPI_EINVAL);
	GIVES(mk_ipi_move_doorbell(mk, 0, VECTOR), -MK_IPI_EINVAL);
	GIVES(mk_ipi_poller_begin(mk, &poller, sizeof(poller)), -MK_IPI_EINVAL);
	mk_ipi_interrupt(mk);
}

static void null_pointers(void)
{
	struct mk_ipi_instance config = config_of(1, &a.cpu, MK_IPI_RFC_V2, 0);
	struct mk_ipi_handler *handler;

	GIVES(mk_ipi_identify(a.mk, -1, 1), -MK_IPI_EINVAL);
	GIVES(mk_ipi_identify(a.mk, 256, 1), -MK_IPI_EINVAL);
	GIVES(mk_ipi_identify(a.mk, 0, 0), -MK_IPI_EINVAL);
	GIVES(mk_ipi_register(a.mk, 1, NULL, NULL, &handler), -MK_IPI_EINVAL);
	GIVES(mk_ipi_register(a.mk, 1, no_message, NULL, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_create_instance(a.mk, NULL, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_attach_instance(a.mk, NULL, 0, 0), -MK_IPI_EINVAL);
	GIVES(mk_ipi_get_instance(a.mk, 0, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_start(a.mk, NULL, 4), -MK_IPI_EINVAL);
	GIVES(mk_ipi_start_rfc_v2(a.mk, "", 0, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_join(a.mk, 0, NULL, 64), -MK_IPI_EINVAL);
	GIVES(mk_ipi_attach_record(a.mk, NULL, &a.cpu), -MK_IPI_EINVAL);
	GIVES(mk_ipi_map_pfn(a.mk, ARENA_PHYS / PAGE, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_unmap_page(a.mk, NULL), 0);
	GIVES(mk_ipi_get_stats(a.mk, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_get_lane_stats(a.mk, 0, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_handled(a.mk, 0, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_stop(a.mk, 0, 0), -MK_IPI_EINVAL);
	GIVES(mk_ipi_poller_begin(a.mk, NULL, sizeof(struct mk_ipi_poller)), -MK_IPI_EINVAL);
	GIVES(mk_ipi_poller_poll(NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_poller_wait(NULL, 1), -MK_IPI_EINVAL);
	GIVES(mk_ipi_poller_end(NULL), -MK_IPI_EINVAL);
	config.cpus = NULL;
	GIVES(mk_ipi_attach_instance(a.mk, &config, 0, 0), -MK_IPI_EINVAL);
	GIVES(mk_ipi_set_default((struct mk_ipi *)(void *)arena), -MK_IPI_EINVAL);
}

/*
 * A full registry. Then handles that were unregistered, that belong to another instance of the library, or that no call returned.
 */
static void handles(void)
{
	struct mk_ipi_handler *all[MK_IPI_MAX_HANDLERS], *more, *of_b;
	unsigned i;

	for (i = 0; i < MK_IPI_MAX_HANDLERS; i++)
		GIVES(mk_ipi_register(a.mk, i, no_message, NULL, &all[i]), 0);
	GIVES(mk_ipi_register(a.mk, 1, no_message, NULL, &more), -MK_IPI_ENOMEM);
	GIVES(mk_ipi_register(b.mk, 1, no_message, NULL, &of_b), 0);
	GIVES(mk_ipi_unregister(a.mk, of_b), -MK_IPI_EINVAL);
	GIVES(mk_ipi_unregister(a.mk, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_unregister(a.mk, (struct mk_ipi_handler *)(void *)arena), -MK_IPI_EINVAL);
	GIVES(mk_ipi_unregister(a.mk, all[7]), 0);
	GIVES(mk_ipi_unregister(a.mk, all[7]), -MK_IPI_ESTALE);
	GIVES(mk_ipi_register(a.mk, 1, no_message, NULL, &more), 0);
	CHECK(more != all[7]);
	GIVES(mk_ipi_unregister(a.mk, all[7]), -MK_IPI_ESTALE);
	GIVES(mk_ipi_unregister(a.mk, more), 0);
	for (i = 0; i < MK_IPI_MAX_HANDLERS; i++)
		GIVES(mk_ipi_unregister(a.mk, all[i]), i == 7 ? -MK_IPI_ESTALE : 0);
	GIVES(mk_ipi_unregister(b.mk, of_b), 0);
}

/* Several messages in one call: all of them are checked before the first is sent. */
static void sends_many(int native)
{
	static unsigned char bytes[5000];
	struct mk_ipi_payload all[3] = { { bytes, 1 }, { NULL, 0 }, { bytes, 2 } };
	size_t done = 7;

	GIVES(mk_ipi_post_many(a.mk, 2, 1, all, 3, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_post_many(a.mk, 2, 1, NULL, 3, &done), -MK_IPI_EINVAL);
	GIVES(mk_ipi_post_many(a.mk, 8, 1, all, 3, &done), -MK_IPI_EINVAL);
	GIVES(mk_ipi_post_many(a.mk, -1, 1, all, 3, &done), -MK_IPI_EINVAL);
	GIVES(mk_ipi_post_many(a.mk, 2, 1ul << 32, all, 3, &done), -MK_IPI_ERANGE);
	all[2].size = 257;
	GIVES(mk_ipi_post_many(a.mk, 2, 1, all, 3, &done), -MK_IPI_EINVAL);
	all[2].size = 5000;
	GIVES(mk_ipi_post_many(a.mk, 2, 1, all, 3, &done), -MK_IPI_EINVAL);
	all[2] = (struct mk_ipi_payload){ NULL, 1 };
	GIVES(mk_ipi_send_many(a.mk, 2, 1, all, 3, &done), -MK_IPI_EINVAL);
	GIVES(done, 7);
	all[2] = (struct mk_ipi_payload){ bytes, 2 };
	GIVES(mk_ipi_send_many(a.mk, 2, 1, all, 3, &done), native ? 0 : -MK_IPI_EINVAL);
	GIVES(done, native ? 3 : 7);
	GIVES(mk_ipi_send_many(a.mk, 2, 1, NULL, 0, &done), native ? 0 : -MK_IPI_EINVAL);
	GIVES(done, native ? 0 : 7);
	machine_run();
}

static void sends(uint32_t layout)
{
	static unsigned char bytes[5000];
	struct mk_ipi_instance nowhere = config_of(9, &b.cpu, layout, 0);
	uint64_t number = 7, before;
	struct mk_ipi_stats stats;

	link_two(&a, &b, layout, 1);
	GIVES(mk_ipi_attach_instance(a.mk, &nowhere, 0, 0), 0);
	GIVES(mk_ipi_send(a.mk, 9, 1, bytes, 1, NULL), -MK_IPI_ENODEV);
	GIVES(mk_ipi_send(a.mk, 8, 1, bytes, 1, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_send(a.mk, -1, 1, bytes, 1, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_send(a.mk, 256, 1, bytes, 1, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_send(a.mk, 2, 1, bytes, 257, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_send(a.mk, 2, 1, bytes, 4097, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_send(a.mk, 2, 1, bytes, SIZE_MAX, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_send(a.mk, 2, 1, NULL, 1, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_send(a.mk, 2, 1, NULL, 0, NULL), layout == MK_IPI_NATIVE ? 0 : -MK_IPI_EINVAL);
	GIVES(mk_ipi_send(a.mk, 2, 1ul << 32, bytes, 1, NULL), -MK_IPI_ERANGE);
	GIVES(mk_ipi_send_to_cpu(a.mk, 2, 77, 1, bytes, 1, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_send_to_cpu(a.mk, 2, b.cpu, 1, bytes, 1, NULL), 0);
	GIVES(mk_ipi_send_from_nmi(a.mk, 2, 1, bytes, 1, NULL), layout == MK_IPI_NATIVE ? 0 : -MK_IPI_EINVAL);
	GIVES(mk_ipi_post(a.mk, 2, 1, bytes, 1, NULL), layout == MK_IPI_NATIVE ? 0 : -MK_IPI_EINVAL);
	GIVES(mk_ipi_flush(a.mk, 9), -MK_IPI_EINVAL);
	GIVES(mk_ipi_want_space(a.mk, 2, 257), -MK_IPI_EINVAL);
	GIVES(mk_ipi_want_space(a.mk, 2, SIZE_MAX), -MK_IPI_EINVAL);
	GIVES(mk_ipi_handled(a.mk, 2, &number), layout == MK_IPI_NATIVE ? 0 : -MK_IPI_EINVAL);
	machine_run();
	sends_many(layout == MK_IPI_NATIVE);
	a.mute = 1;
	number = 7;
	GIVES(mk_ipi_send(a.mk, 2, 1, bytes, 257, &number), -MK_IPI_EINVAL);
	GIVES(number, 7);
	GIVES(mk_ipi_get_stats(a.mk, &stats), 0);
	before = stats.not_rung;
	GIVES(mk_ipi_send(a.mk, 2, 1, bytes, 1, &number), 0);
	GIVES(number, 0);
	GIVES(mk_ipi_get_stats(a.mk, &stats), 0);
	GIVES(stats.not_rung, before + 1);
	GIVES(mk_ipi_ring(a.mk, 2), -MK_IPI_EAGAIN);
	a.mute = 0;
	GIVES(mk_ipi_ring(a.mk, 2), 0);
	machine_run();
	a.unreachable = 1;
	GIVES(mk_ipi_send(a.mk, 2, 1, bytes, 1, NULL), layout == MK_IPI_NATIVE ? 0 : -MK_IPI_ENXIO);
	a.unreachable = 0;
	machine_run();
	GIVES(mk_ipi_destroy_instance(a.mk, 9), 0);
	GIVES(mk_ipi_send(a.mk, 9, 1, bytes, 1, NULL), -MK_IPI_ESTALE);
	GIVES(mk_ipi_destroy_instance(a.mk, 9), -MK_IPI_EINVAL);
	GIVES(mk_ipi_get_instance(a.mk, 9, &(struct mk_ipi_instance_info){ 0 }), -MK_IPI_ESTALE);
}

void test_bad_calls(void)
{
	static struct mk_ipi zeroed;
	uint32_t layout;

	tables();
	for (layout = MK_IPI_RFC_V2; layout <= MK_IPI_NATIVE; layout++) {
		kernel_boot(&a, 0, 5, 1);
		kernel_boot(&b, 2, 3, 1);
		no_instance(NULL);
		no_instance(&zeroed);
		no_instance((struct mk_ipi *)(void *)((char *)a.mk + 1));
		null_pointers();
		handles();
		sends(layout);
		/*
		 * A region does not go back to the pool while another kernel says in it that it has the region mapped. In a
		 * region of RFC v2 no kernel can say this.
		 */
		if (layout == MK_IPI_NATIVE)
			GIVES(mk_ipi_fini(a.mk), -MK_IPI_EBUSY);
		kernel_end(&b);
		kernel_end(&a);
		no_instance(a.mk);
		machine_reset();
	}
}
