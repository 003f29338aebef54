/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A receiver dies while it handles messages, and restarts. The tests check what happens to each message (native link). */
#include "machine.h"

#include <string.h>

static struct kernel a, b;
static unsigned calls;
static uint64_t last_number;

/* A copy of the region of `b`. The handler makes it in its call number `copy_at`, so that the region can be restored later. */
static unsigned char copy[16 * PAGE];
static struct mk_ipi_instance_info of_b;
static unsigned copy_at;

static void take(const struct mk_ipi_message *message, void *ctx)
{
	uint32_t life = 0;

	(void)ctx;
	GIVES(mk_ipi_identity(b.mk, &life), 2);
	GIVES(message->receiver_incarnation, life);
	GIVES(message->sender_incarnation, 1);
	calls++;
	last_number = message->number;
	if (calls == copy_at)
		memcpy(copy, at_phys(of_b.region_start), of_b.region_len);
}

static void begin(void)
{
	struct mk_ipi_handler *handler;

	kernel_boot(&a, 0, 5, 1);
	kernel_boot(&b, 2, 3, 1);
	link_two(&a, &b, MK_IPI_NATIVE, 0);
	GIVES(mk_ipi_register(b.mk, 1, take, NULL, &handler), 0);
	GIVES(mk_ipi_get_instance(a.mk, 2, &of_b), 0);
	CHECK(of_b.region_len <= sizeof(copy));
	GIVES(mk_ipi_tick(a.mk, 1, 100), 0);
	calls = copy_at = 0;
	kernel_forget(&a);
}

/* Starts the next life of `b`. With `discards`, it discards unread messages. */
static void again(uint32_t life, int discards)
{
	struct mk_ipi_instance_info of_a;
	struct mk_ipi_instance config;
	struct mk_ipi_handler *handler;

	kernel_boot(&b, 2, 3, life);
	GIVES(mk_ipi_register(b.mk, 1, take, NULL, &handler), 0);
	if (discards)
		GIVES(mk_ipi_discard_unread(b.mk), 0);
	config = config_of(2, &b.cpu, MK_IPI_NATIVE, 0);
	config.incarnation = life;
	GIVES(mk_ipi_attach_instance(b.mk, &config, of_b.region_start, of_b.region_len), 0);
	GIVES(mk_ipi_get_instance(a.mk, 0, &of_a), 0);
	config = config_of(0, &a.cpu, MK_IPI_NATIVE, 0);
	GIVES(mk_ipi_attach_instance(b.mk, &config, of_a.region_start, of_a.region_len), 0);
	calls = 0;
	machine_run();
	GIVES(mk_ipi_tick(a.mk, life, 100), 0);
}

static void end(void)
{
	kernel_end(&b);
	kernel_end(&a);
	machine_reset();
}

/*
 * `b` dies inside a handler. The message of that handler is in doubt. The messages before it were handled, and the next life gets
 * the messages after it.
 */
static void in_doubt(void)
{
	const struct mk_ipi_event *event;
	uint64_t numbers[4], handled;
	int i;

	begin();
	copy_at = 2;
	for (i = 0; i < 4; i++)
		GIVES(mk_ipi_send(a.mk, 2, 1, "x", 1, &numbers[i]), 0);
	machine_run();
	GIVES(calls, 4);
	kernel_end(&b);
	memcpy(at_phys(of_b.region_start), copy, of_b.region_len);
	copy_at = 0;
	again(2, 0);
	GIVES(calls, 2);
	GIVES(last_number, numbers[3]);
	event = kernel_event(&a, 2, MK_IPI_EVENT_IN_DOUBT);
	CHECK(event && event->number == numbers[1] && event->theirs == 2 && event->ours == 1);
	event = kernel_event(&a, 2, MK_IPI_EVENT_UP);
	CHECK(event && event->incarnation == 2);
	GIVES(mk_ipi_handled(a.mk, 2, &handled), 0);
	GIVES(handled, numbers[3]);
	CHECK(!kernel_event(&a, 2, MK_IPI_EVENT_DISCARDED));
	/* The event is reported once. */
	kernel_forget(&a);
	GIVES(mk_ipi_tick(a.mk, 3, 100), 0);
	CHECK(!kernel_event(&a, 2, MK_IPI_EVENT_IN_DOUBT));
	end();
}

/* The next life gets the unread messages. If it calls mk_ipi_discard_unread, they are discarded instead. */
static void unread(int discards)
{
	const struct mk_ipi_event *event;
	uint64_t numbers[3];
	int i;

	begin();
	GIVES(mk_ipi_send(a.mk, 2, 1, "x", 1, &numbers[0]), 0);
	machine_run();
	GIVES(calls, 1);
	for (i = 1; i < 3; i++)
		GIVES(mk_ipi_send(a.mk, 2, 1, "x", 1, &numbers[i]), 0);
	kernel_end(&b);
	again(2, discards);
	GIVES(calls, discards ? 0 : 2);
	event = kernel_event(&a, 2, MK_IPI_EVENT_DISCARDED);
	if (discards)
		CHECK(event && event->after == numbers[0] && event->number == numbers[2]);
	else
		CHECK(!event);
	CHECK(!kernel_event(&a, 2, MK_IPI_EVENT_IN_DOUBT));
	GIVES(mk_ipi_send(a.mk, 2, 1, "x", 1, NULL), 0);
	machine_run();
	GIVES(calls, discards ? 1 : 3);
	end();
}

void test_lives(void)
{
	in_doubt();
	unread(0);
	unread(1);
}
