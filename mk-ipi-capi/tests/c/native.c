/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What only the native link has. */
#include "machine.h"

#include <string.h>

static struct kernel a, b;
static unsigned calls;
static size_t bytes_got;

static void count(const struct mk_ipi_message *message, void *ctx)
{
	CHECK(ctx == &b && message->sender == 0 && message->sender_cpu == a.cpu && message->type == 1);
	calls++;
	bytes_got += message->size;
}

static void begin(void)
{
	struct mk_ipi_handler *handler;

	kernel_boot(&a, 0, 5, 1);
	kernel_boot(&b, 2, 3, 1);
	link_two(&a, &b, MK_IPI_NATIVE, 0);
	GIVES(mk_ipi_register(b.mk, 1, count, &b, &handler), 0);
	calls = 0, bytes_got = 0;
	kernel_forget(&a);
	kernel_forget(&b);
}

static void end(void)
{
	kernel_end(&b);
	kernel_end(&a);
	machine_reset();
}

/* Several messages, one doorbell; and a receiver that polls is not rung at all. */
static void batches(void)
{
	struct mk_ipi_lane_stats lane;
	unsigned before;
	int more = 7;

	begin();
	before = a.rung;
	GIVES(mk_ipi_post(a.mk, 2, 1, "abc", 3), 0);
	GIVES(mk_ipi_post(a.mk, 2, 1, NULL, 0), 0);
	GIVES(mk_ipi_post(a.mk, 2, 1, "de", 2), 0);
	GIVES(a.rung, before);
	GIVES(mk_ipi_flush(a.mk, 2), 0);
	GIVES(a.rung, before + 1);
	machine_run();
	GIVES(calls, 3);
	GIVES(bytes_got, 5);
	GIVES(mk_ipi_drain(b.mk, &more), 0);
	GIVES(more, 0);
	before = a.rung;
	GIVES(mk_ipi_send_from_nmi(a.mk, 2, 1, "x", 1), 0);
	b.pending = 0;
	GIVES(mk_ipi_drain(b.mk, &more), 1);
	GIVES(calls, 4);
	GIVES(mk_ipi_get_lane_stats(a.mk, 2, &lane), 0);
	GIVES(lane.sent, 4);
	GIVES(lane.received, 4);
	GIVES(lane.resets, 1);
	CHECK(lane.rung >= 2 && lane.rung <= a.rung);
	GIVES(lane.bad, 0);
	GIVES(mk_ipi_get_lane_stats(a.mk, 9, &lane), -MK_IPI_EINVAL);
	end();
}

static void space(void)
{
	int i;

	begin();
	GIVES(mk_ipi_want_space(a.mk, 2), 1);
	for (i = 0; i < 4; i++)
		GIVES(mk_ipi_send(a.mk, 2, 1, "x", 1), 0);
	GIVES(mk_ipi_send(a.mk, 2, 1, "x", 1), -MK_IPI_ENOSPC);
	GIVES(mk_ipi_want_space(a.mk, 2), 0);
	CHECK(!kernel_event(&a, 2, MK_IPI_EVENT_SPACE));
	machine_run();
	CHECK(kernel_event(&a, 2, MK_IPI_EVENT_SPACE));
	GIVES(mk_ipi_send(a.mk, 2, 1, "x", 1), 0);
	machine_run();
	GIVES(calls, 5);
	end();
}

static void signs_of_life(void)
{
	begin();
	GIVES(mk_ipi_tick(a.mk, 100, 10), 0);
	CHECK(kernel_event(&a, 2, MK_IPI_EVENT_UP) && kernel_event(&a, 2, MK_IPI_EVENT_UP)->incarnation == 1);
	GIVES(mk_ipi_tick(b.mk, 0, 10), 0);
	GIVES(mk_ipi_tick(a.mk, 105, 10), 0);
	CHECK(!kernel_event(&a, 2, MK_IPI_EVENT_SUSPECT));
	GIVES(mk_ipi_tick(a.mk, 120, 10), 0);
	CHECK(kernel_event(&a, 2, MK_IPI_EVENT_SUSPECT));
	GIVES(mk_ipi_tick(b.mk, 0, 10), 0);
	GIVES(mk_ipi_tick(a.mk, 125, 10), 0);
	CHECK(kernel_event(&a, 2, MK_IPI_EVENT_ALIVE));
	GIVES(mk_ipi_goodbye(b.mk), 0);
	GIVES(mk_ipi_tick(a.mk, 126, 10), 0);
	CHECK(kernel_event(&a, 2, MK_IPI_EVENT_DEAD));
	/* The host's word stops a kernel, nobody else's does. */
	GIVES(mk_ipi_stop(b.mk, 0), 0);
	machine_run();
	GIVES(a.stopped, 0);
	GIVES(mk_ipi_stop(a.mk, 2), 0);
	machine_run();
	CHECK(b.stopped > 0);
	GIVES(mk_ipi_stop(a.mk, 9), -MK_IPI_EINVAL);
	end();
}

static void doorbells(void)
{
	begin();
	GIVES(mk_ipi_move_doorbell(b.mk, 4, VECTOR), -MK_IPI_EINVAL);
	GIVES(mk_ipi_move_doorbell(b.mk, b.cpu, 0x1f), -MK_IPI_EINVAL);
	GIVES(mk_ipi_move_doorbell(b.mk, b.cpu, 0x1e0), -MK_IPI_EINVAL);
	GIVES(mk_ipi_move_doorbell(b.mk, b.cpu, VECTOR + 1), 0);
	machine_run();
	GIVES(mk_ipi_send(a.mk, 2, 1, "x", 1), 0);
	GIVES(b.vector, VECTOR + 1);
	machine_run();
	GIVES(calls, 1);
	end();
}

/* The sender restarts: it waits for the receiver's answer, and what its former life sent arrives. */
static void a_new_life(void)
{
	struct mk_ipi_instance config;
	struct mk_ipi_instance_info info;

	begin();
	GIVES(mk_ipi_send(a.mk, 2, 1, "old", 3), 0);
	GIVES(mk_ipi_get_instance(a.mk, 2, &info), 0);
	GIVES(mk_ipi_identify(a.mk, 0, 2), 0);
	/* Nobody frees the region of the instance that lives on. */
	config = config_of(2, &b.cpu, MK_IPI_NATIVE, 0);
	GIVES(mk_ipi_destroy_instance(b.mk, 0), 0);
	config = config_of(0, &a.cpu, MK_IPI_NATIVE, 0);
	GIVES(mk_ipi_get_instance(a.mk, 0, &info), 0);
	GIVES(mk_ipi_attach_instance(b.mk, &config, info.region_start, info.region_len), 0);
	GIVES(mk_ipi_send(b.mk, 0, 9, "x", 1), -MK_IPI_EAGAIN);
	GIVES(mk_ipi_want_space(b.mk, 0), 0);
	machine_run();
	CHECK(kernel_event(&b, 0, MK_IPI_EVENT_SPACE));
	CHECK(kernel_event(&a, 2, MK_IPI_EVENT_BEGAN));
	GIVES(mk_ipi_send(b.mk, 0, 9, "x", 1), 0);
	machine_run();
	GIVES(calls, 1);
	GIVES(bytes_got, 3);
	end();
}

/* A sender that breaks the protocol: its lane goes into quarantine, and it is told. */
static void quarantine(void)
{
	struct mk_ipi_instance_info info;
	struct mk_ipi_lane_stats lane;
	uint64_t cell;
	int i, err = 0;

	begin();
	GIVES(mk_ipi_send(a.mk, 2, 1, "x", 1), 0);
	machine_run();
	GIVES(mk_ipi_get_instance(b.mk, 2, &info), 0);
	/* N-3: receiver's page, hints, lane 0; cell 1, whose lap is 1. */
	cell = info.region_start + 2 * PAGE + 256 + 320;
	store64(cell, 2);
	GIVES(mk_ipi_poll(b.mk), 1);
	machine_run();
	CHECK(kernel_event(&b, 0, MK_IPI_EVENT_QUARANTINED) &&
	      kernel_event(&b, 0, MK_IPI_EVENT_QUARANTINED)->breach == 1);
	for (i = 0; i < 5 && !err; i++)
		err = mk_ipi_send(a.mk, 2, 1, "x", 1);
	GIVES(err, -MK_IPI_EPROTO);
	GIVES(mk_ipi_get_lane_stats(a.mk, 2, &lane), 0);
	GIVES(lane.bad, 1);
	GIVES(lane.last_breach, 1);
	machine_run();
	GIVES(calls, 1);
	end();
}

/* One run of the deferred work is bounded, and says that it left something. */
static void budget(void)
{
	struct mk_ipi_instance config;
	struct mk_ipi_handler *handler;
	struct mk_ipi_stats stats;
	int i, more = 0;

	kernel_boot(&a, 0, 5, 1);
	b = a;
	config = config_of(0, &a.cpu, MK_IPI_NATIVE, 0);
	config.lanes = config.cells = 0;
	GIVES(mk_ipi_create_instance(a.mk, &config, NULL), 0);
	GIVES(mk_ipi_register(a.mk, 1, count, &b, &handler), 0);
	machine_run();
	calls = 0;
	for (i = 0; i < 32; i++)
		GIVES(mk_ipi_send(a.mk, 0, 1, "x", 1), 0);
	GIVES(mk_ipi_send(a.mk, 0, 1, "x", 1), -MK_IPI_ENOSPC);
	mk_ipi_interrupt(a.mk);
	GIVES(mk_ipi_run_deferred(a.mk, &more), MK_IPI_QUEUE);
	GIVES(more, 1);
	machine_run();
	GIVES(calls, 32);
	GIVES(mk_ipi_get_stats(a.mk, &stats), 0);
	GIVES(stats.sent, 32);
	GIVES(stats.handled, 32);
	GIVES(stats.full, 1);
	kernel_end(&a);
	machine_reset();
}

void test_native(void)
{
	batches();
	space();
	signs_of_life();
	doorbells();
	a_new_life();
	quarantine();
	budget();
}
