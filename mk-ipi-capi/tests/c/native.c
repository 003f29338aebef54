/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Calls that only the native link has. */
#include "machine.h"

#include <string.h>

static struct kernel a, b;
static unsigned calls;
static size_t bytes_got;
static uint64_t last_number;

static void count(const struct mk_ipi_message *message, void *ctx)
{
	CHECK(ctx == &b && message->sender == 0 && message->sender_cpu == a.cpu && message->type == 1);
	CHECK(message->sender_incarnation == 1 && message->receiver_incarnation == 1);
	CHECK(message->number > last_number);
	last_number = message->number;
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
	calls = 0, bytes_got = 0, last_number = 0;
	kernel_forget(&a);
	kernel_forget(&b);
}

static void end(void)
{
	kernel_end(&b);
	kernel_end(&a);
	machine_reset();
}

/* One doorbell is enough for several messages. mk_ipi_drain finds a message whose doorbell was lost. */
static void batches(void)
{
	struct mk_ipi_lane_stats lane;
	uint64_t numbers[2], handled;
	unsigned before;
	int more = 7;

	begin();
	before = a.rung;
	GIVES(mk_ipi_post(a.mk, 2, 1, "abc", 3, &numbers[0]), 0);
	GIVES(mk_ipi_post(a.mk, 2, 1, NULL, 0, NULL), 0);
	GIVES(mk_ipi_post(a.mk, 2, 1, "de", 2, &numbers[1]), 0);
	CHECK(numbers[0] > 0 && numbers[1] > numbers[0]);
	GIVES(mk_ipi_handled(a.mk, 2, &handled), 0);
	GIVES(handled, 0);
	GIVES(a.rung, before);
	GIVES(mk_ipi_flush(a.mk, 2), 0);
	GIVES(a.rung, before + 1);
	machine_run();
	GIVES(calls, 3);
	GIVES(bytes_got, 5);
	GIVES(last_number, numbers[1]);
	GIVES(mk_ipi_handled(a.mk, 2, &handled), 0);
	GIVES(handled, numbers[1]);
	GIVES(mk_ipi_drain(b.mk, &more), 0);
	GIVES(more, 0);
	before = a.rung;
	GIVES(mk_ipi_send_from_nmi(a.mk, 2, 1, "x", 1, &numbers[0]), 0);
	CHECK(numbers[0] > numbers[1]);
	GIVES(a.rung, before + 1);
	b.pending = 0;
	GIVES(mk_ipi_drain(b.mk, &more), 1);
	GIVES(calls, 4);
	GIVES(mk_ipi_get_lane_stats(a.mk, 2, &lane), 0);
	GIVES(lane.number, numbers[0]);
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
	GIVES(mk_ipi_want_space(a.mk, 2, 256), 1);
	for (i = 0; i < 8; i++)
		GIVES(mk_ipi_send(a.mk, 2, 1, "x", 1, NULL), 0);
	GIVES(mk_ipi_send(a.mk, 2, 1, "x", 1, NULL), -MK_IPI_ENOSPC);
	machine_run();
	kernel_forget(&a);
	for (i = 0; i < 8; i++)
		GIVES(mk_ipi_send(a.mk, 2, 1, "x", 1, NULL), 0);
	GIVES(mk_ipi_want_space(a.mk, 2, 1), 0);
	CHECK(!kernel_event(&a, 2, MK_IPI_EVENT_SPACE));
	machine_run();
	CHECK(kernel_event(&a, 2, MK_IPI_EVENT_SPACE));
	CHECK(kernel_event(&a, 2, MK_IPI_EVENT_SPACE)->theirs == 1 && kernel_event(&a, 2, MK_IPI_EVENT_SPACE)->ours == 1);
	GIVES(mk_ipi_send(a.mk, 2, 1, "x", 1, NULL), 0);
	machine_run();
	GIVES(calls, 17);
	end();
}

/* mk_ipi_post_many posts as many messages as there is space for, and at most MK_IPI_MAX_MANY. */
static void many(void)
{
	static const char bytes[49] = "Of 48 bytes one fits into a line, of 49 it takes";
	struct mk_ipi_payload all[MK_IPI_MAX_MANY + 8];
	size_t done, i;
	unsigned before;

	for (i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		all[i] = (struct mk_ipi_payload){ bytes, 48 + i % 2 };
	begin();
	before = a.rung;
	GIVES(mk_ipi_post_many(a.mk, 2, 1, all, 4, &done), 0);
	GIVES(done, 4);
	GIVES(a.rung, before);
	GIVES(mk_ipi_send_many(a.mk, 2, 1, all, 4, &done), 0);
	CHECK(done == 1);
	GIVES(a.rung, before + 1);
	GIVES(mk_ipi_post_many(a.mk, 2, 1, all + 1, 4, &done), -MK_IPI_ENOSPC);
	machine_run();
	GIVES(calls, 5);
	GIVES(bytes_got, 3 * 48 + 2 * 49);
	/* The messages are stored, but their doorbell fails: the call returns 0. */
	a.mute = 1;
	GIVES(mk_ipi_send_many(a.mk, 2, 1, all, 2, &done), 0);
	GIVES(done, 2);
	a.mute = 0;
	GIVES(mk_ipi_ring(a.mk, 2), 0);
	machine_run();
	GIVES(calls, 7);
	end();
	machine_lines = 64;
	begin();
	GIVES(mk_ipi_send_many(a.mk, 2, 1, all, sizeof(all) / sizeof(all[0]), &done), 0);
	GIVES(done, MK_IPI_MAX_MANY);
	machine_run();
	GIVES(calls, MK_IPI_MAX_MANY);
	end();
}

static unsigned long_calls, old_calls;

static void take_long(const struct mk_ipi_message *message, void *ctx)
{
	size_t i, good = 0;

	(void)ctx;
	for (i = 0; i < message->size; i++)
		good += ((const unsigned char *)message->payload)[i] == test_byte(message->size, i);
	GIVES(good, message->size);
	long_calls++;
}

static void take_old(struct mk_ipi_data *data, void *ctx)
{
	(void)ctx;
	CHECK(data->data_size <= MK_MAX_DATA_SIZE);
	old_calls++;
}

/* A region for longer messages. Callbacks of multikernel_register_handler are not called for messages above 256 bytes. */
static void long_messages(void)
{
	static unsigned char bytes[MK_IPI_MAX_LEN];
	struct mk_ipi_handler *handler;
	size_t size;

	machine_lines = 128, machine_max_len = MK_IPI_MAX_LEN;
	begin();
	GIVES(mk_ipi_register(b.mk, 2, take_long, NULL, &handler), 0);
	GIVES(mk_ipi_set_default(b.mk), 0);
	CHECK(multikernel_register_handler(take_old, NULL, 2));
	long_calls = old_calls = 0;
	for (size = 250; size <= MK_IPI_MAX_LEN; size += size == 4000 ? 96 : 10) {
		test_bytes(bytes, size);
		GIVES(mk_ipi_send(a.mk, 2, 2, bytes, size, NULL), 0);
		machine_run();
	}
	GIVES(long_calls, 377);
	GIVES(old_calls, 1);
	GIVES(mk_ipi_send(a.mk, 2, 2, bytes, MK_IPI_MAX_LEN + 1, NULL), -MK_IPI_EINVAL);
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
	/* Only the host can stop a kernel. */
	GIVES(mk_ipi_stop(b.mk, 0, 1), 0);
	machine_run();
	GIVES(a.stopped, 0);
	/* This stop names another incarnation of b. */
	GIVES(mk_ipi_stop(a.mk, 2, 2), 0);
	machine_run();
	GIVES(b.stopped, 0);
	GIVES(mk_ipi_stop(a.mk, 2, 1), 0);
	machine_run();
	CHECK(b.stopped > 0);
	GIVES(mk_ipi_stop(a.mk, 9, 1), -MK_IPI_EINVAL);
	end();
}

static void doorbells(void)
{
	begin();
	GIVES(mk_ipi_move_doorbell(b.mk, 4, VECTOR), -MK_IPI_EINVAL);
	GIVES(mk_ipi_move_doorbell(b.mk, b.cpu, 0x1f), -MK_IPI_EINVAL);
	GIVES(mk_ipi_begin_at(b.mk, b.cpu, 0x1f), -MK_IPI_EINVAL);
	GIVES(mk_ipi_begin_at(b.mk, 1ull << 48, VECTOR), -MK_IPI_EINVAL);
	GIVES(mk_ipi_begin_at(b.mk, b.cpu, VECTOR), 0);
	GIVES(mk_ipi_move_doorbell(b.mk, b.cpu, 0x1e0), -MK_IPI_EINVAL);
	GIVES(mk_ipi_move_doorbell(b.mk, b.cpu, VECTOR + 1), 0);
	machine_run();
	GIVES(mk_ipi_send(a.mk, 2, 1, "x", 1, NULL), 0);
	GIVES(b.vector, VECTOR + 1);
	machine_run();
	GIVES(calls, 1);
	GIVES(mk_ipi_send_to_cpu(a.mk, 2, 4, 1, "x", 1, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_send_to_cpu(a.mk, 2, b.cpu, 1, "x", 1, NULL), 0);
	machine_run();
	/* CPU 4 is not in the config of b. The operation peer_has_cpu says whether it belongs to b now. */
	b.says_of_cpus = 1;
	GIVES(mk_ipi_move_doorbell(b.mk, 4, VECTOR), 0);
	machine_run();
	a.says_of_cpus = 0, a.asked = 0;
	GIVES(mk_ipi_ring(a.mk, 2), 0);
	GIVES(a.rung_cpu, b.cpu);
	CHECK(a.asked > 0);
	a.says_of_cpus = 1;
	GIVES(mk_ipi_ring(a.mk, 2), 0);
	GIVES(a.rung_cpu, 4);
	/* peer_has_cpu is called once for each new doorbell. */
	a.asked = 0;
	GIVES(mk_ipi_ring(a.mk, 2), 0);
	GIVES(a.asked, 0);
	end();
}

/*
 * b attaches a again, so it begins a new session, and cannot send before a answers. The message of a is delivered nevertheless.
 */
static void a_new_life(void)
{
	struct mk_ipi_instance config;
	struct mk_ipi_instance_info info;

	begin();
	GIVES(mk_ipi_send(a.mk, 2, 1, "old", 3, NULL), 0);
	GIVES(mk_ipi_destroy_instance(b.mk, 0), 0);
	config = config_of(0, &a.cpu, MK_IPI_NATIVE, 0);
	GIVES(mk_ipi_get_instance(a.mk, 0, &info), 0);
	GIVES(mk_ipi_attach_instance(b.mk, &config, info.region_start, info.region_len), 0);
	GIVES(mk_ipi_send(b.mk, 0, 9, "x", 1, NULL), -MK_IPI_EAGAIN);
	GIVES(mk_ipi_want_space(b.mk, 0, 1), 0);
	machine_run();
	CHECK(kernel_event(&b, 0, MK_IPI_EVENT_SPACE));
	CHECK(kernel_event(&b, 0, MK_IPI_EVENT_ANSWERED));
	CHECK(kernel_event(&a, 2, MK_IPI_EVENT_BEGAN));
	GIVES(mk_ipi_send(b.mk, 0, 9, "x", 1, NULL), 0);
	machine_run();
	GIVES(calls, 1);
	GIVES(bytes_got, 3);
	end();
}

/* A sender breaks the protocol: its lane is put into quarantine, and the sender gets an event. */
static void quarantine(void)
{
	struct mk_ipi_instance_info info;
	struct mk_ipi_lane_stats lane;
	const struct mk_ipi_event *event;
	int i, err = 0;

	begin();
	GIVES(mk_ipi_send(a.mk, 2, 1, "x", 1, NULL), 0);
	machine_run();
	GIVES(mk_ipi_get_instance(b.mk, 2, &info), 0);
	/*
	 * N-3: lane 0 follows the receiver's page. After its header come its lines. Line 1 gets a tag of lap 1 while lap 0 is
	 * expected.
	 */
	store64(info.region_start + PAGE + 256 + 64, 1u << 30 | 1);
	GIVES(mk_ipi_poll(b.mk), 1);
	machine_run();
	event = kernel_event(&b, 0, MK_IPI_EVENT_QUARANTINED);
	CHECK(event && event->breach == 1 && event->theirs == 1 && event->ours == 1);
	GIVES(mk_ipi_tick(a.mk, 1, 10), 0);
	event = kernel_event(&a, 2, MK_IPI_EVENT_REFUSED);
	CHECK(event && event->breach == 1);
	for (i = 0; i < 9 && !err; i++)
		err = mk_ipi_send(a.mk, 2, 1, "x", 1, NULL);
	GIVES(err, -MK_IPI_EPROTO);
	GIVES(mk_ipi_get_lane_stats(a.mk, 2, &lane), 0);
	GIVES(lane.bad, 1);
	GIVES(lane.last_breach, 1);
	machine_run();
	GIVES(calls, 1);
	end();
}

/* One run of the deferred work handles at most MK_IPI_QUEUE messages, and says that messages are left. */
static void budget(void)
{
	struct mk_ipi_instance config;
	struct mk_ipi_handler *handler;
	struct mk_ipi_stats stats;
	int i, more = 0;

	kernel_boot(&a, 0, 5, 1);
	b = a;
	config = config_of(0, &a.cpu, MK_IPI_NATIVE, 0);
	config.lanes = config.lines = config.max_len = 0;
	GIVES(mk_ipi_create_instance(a.mk, &config, NULL), 0);
	GIVES(mk_ipi_register(a.mk, 1, count, &b, &handler), 0);
	machine_run();
	calls = 0, last_number = 0;
	for (i = 0; i < 128; i++)
		GIVES(mk_ipi_send(a.mk, 0, 1, "x", 1, NULL), 0);
	GIVES(mk_ipi_send(a.mk, 0, 1, "x", 1, NULL), -MK_IPI_ENOSPC);
	mk_ipi_interrupt(a.mk);
	GIVES(mk_ipi_run_deferred(a.mk, &more), MK_IPI_QUEUE);
	GIVES(more, 1);
	machine_run();
	GIVES(calls, 128);
	GIVES(mk_ipi_get_stats(a.mk, &stats), 0);
	GIVES(stats.sent, 128);
	GIVES(stats.handled, 128);
	GIVES(stats.full, 1);
	kernel_end(&a);
	machine_reset();
}

void test_native(void)
{
	batches();
	space();
	many();
	long_messages();
	signs_of_life();
	doorbells();
	a_new_life();
	quarantine();
	budget();
}
