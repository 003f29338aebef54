/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Tests that need two CPUs: each CPU is a thread. And a test on a stack that is as small as the stack of a kernel. */
#include "machine.h"

#include <pthread.h>
#include <string.h>

#define SMALL_STACK (64 * 1024)

static struct kernel k;
static _Thread_local unsigned me;
static const uint64_t cpus[2] = { 5, 6 };
static int started, go_on, ended;

static uint64_t cpu_id(void *ctx)
{
	(void)ctx;
	return cpus[me];
}

static unsigned int cpu_index(void *ctx)
{
	(void)ctx;
	return me;
}

static void relax(void *ctx)
{
	(void)ctx;
	__atomic_store_n(&go_on, 1, __ATOMIC_RELEASE);
}

static void no_op(void *ctx)
{
	(void)ctx;
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

static int ring(void *ctx, uint64_t cpu, unsigned int vector)
{
	(void)ctx, (void)cpu, (void)vector;
	return 0;
}

static void slow(struct mk_ipi_data *data, void *ctx)
{
	CHECK(ctx == &k && data->data_size == 3);
	__atomic_store_n(&started, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&go_on, __ATOMIC_ACQUIRE))
		;
	__atomic_store_n(&ended, 1, __ATOMIC_RELEASE);
}

static void *second_cpu(void *arg)
{
	(void)arg;
	me = 1;
	while (mk_ipi_poll(k.mk) == 0)
		;
	return mk_ipi_run_deferred(k.mk, NULL) == 1 ? &k : NULL;
}

/* Makes an instance of the library on a small stack, and sends a message to itself. */
static void *on_a_small_stack(void *arg)
{
	struct mk_ipi_instance config = config_of(0, cpus, MK_IPI_RFC_V2, 1);
	struct mk_ipi_ops ops;

	(void)arg;
	ops = kernel_ops(&k);
	ops.this_cpu_id = cpu_id;
	ops.this_cpu_index = cpu_index;
	ops.relax = relax;
	ops.schedule = no_op;
	ops.irq_save = irq_save;
	ops.irq_restore = irq_restore;
	ops.doorbell_ring = ring;
	config.nr_cpus = 2;
	GIVES(mk_ipi_init(k.mk, sizeof(*k.mk), &ops), 0);
	GIVES(mk_ipi_create_instance(k.mk, &config, NULL), 0);
	GIVES(mk_ipi_identify(k.mk, 0, 1), 0);
	GIVES(mk_ipi_send(k.mk, 0, 1, "x", 1, NULL), 0);
	GIVES(mk_ipi_poll(k.mk), 1);
	GIVES(mk_ipi_run_deferred(k.mk, NULL), 1);
	return &k;
}

/* mk_ipi_unregister waits until a callback on another CPU has ended. */
static void waits(void)
{
	struct mk_ipi_handler *handler;
	pthread_t thread;
	void *done;

	GIVES(mk_ipi_set_default(k.mk), 0);
	handler = multikernel_register_handler(slow, &k, 7);
	CHECK(handler);
	CHECK(pthread_create(&thread, NULL, second_cpu, NULL) == 0);
	GIVES(mk_ipi_send_to_cpu(k.mk, 0, cpus[1], 7, "abc", 3, NULL), 0);
	while (!__atomic_load_n(&started, __ATOMIC_ACQUIRE))
		;
	GIVES(mk_ipi_unregister(k.mk, handler), 0);
	CHECK(__atomic_load_n(&ended, __ATOMIC_ACQUIRE));
	CHECK(pthread_join(thread, &done) == 0 && done == &k);
}

static unsigned polled;

static void take(const struct mk_ipi_message *message, void *ctx)
{
	CHECK(ctx == &k && message->sender_cpu == cpus[0]);
	__atomic_fetch_add(&polled, 1, __ATOMIC_RELAXED);
}

/* Polls until `ended` is set. */
static void *polling_cpu(void *arg)
{
	struct mk_ipi_poller poller = { { 0 } };
	int found = 0;

	(void)arg;
	me = 1;
	if (mk_ipi_poller_begin(k.mk, &poller, sizeof(poller)) != 0)
		return NULL;
	__atomic_store_n(&started, 1, __ATOMIC_RELEASE);
	while (found >= 0 && !__atomic_load_n(&ended, __ATOMIC_ACQUIRE))
		found = mk_ipi_poller_wait(&poller, 100);
	return found >= 0 && mk_ipi_poller_end(&poller) == 0 ? &k : NULL;
}

/* One CPU sends, another polls. A handler is unregistered while the other CPU polls. */
static void polls(void)
{
	struct mk_ipi_instance config = config_of(1, cpus, MK_IPI_NATIVE, 0);
	struct mk_ipi_handler *handler;
	struct mk_ipi_ops ops = kernel_ops(&k);
	pthread_t thread;
	unsigned sent = 0;
	int err = 0;
	void *done;

	ops.this_cpu_id = cpu_id;
	ops.this_cpu_index = cpu_index;
	ops.schedule = no_op;
	ops.irq_save = irq_save;
	ops.irq_restore = irq_restore;
	ops.doorbell_ring = ring;
	config.nr_cpus = 2;
	GIVES(mk_ipi_init(k.mk, sizeof(*k.mk), &ops), 0);
	GIVES(mk_ipi_identify(k.mk, 1, 1), 0);
	GIVES(mk_ipi_create_instance(k.mk, &config, NULL), 0);
	GIVES(mk_ipi_register(k.mk, 1, take, &k, &handler), 0);
	started = ended = 0;
	CHECK(pthread_create(&thread, NULL, polling_cpu, NULL) == 0);
	while (!__atomic_load_n(&started, __ATOMIC_ACQUIRE))
		;
	while (sent < 10000 && (err == 0 || err == -MK_IPI_ENOSPC)) {
		err = mk_ipi_send(k.mk, 1, 1, "abc", 3, NULL);
		sent += err == 0;
	}
	GIVES(err, 0);
	while (__atomic_load_n(&polled, __ATOMIC_RELAXED) < sent)
		;
	GIVES(mk_ipi_unregister(k.mk, handler), 0);
	__atomic_store_n(&ended, 1, __ATOMIC_RELEASE);
	CHECK(pthread_join(thread, &done) == 0 && done == &k);
	GIVES(polled, sent);
}

void test_threads(void)
{
	static struct mk_ipi storage;
	pthread_attr_t attr;
	pthread_t thread;
	void *done;

	memset(&k, 0, sizeof(k));
	k.mk = &storage;
	k.maps_left = -1;
	k.says_of_cpus = 1;
	CHECK(pthread_attr_init(&attr) == 0 && pthread_attr_setstacksize(&attr, SMALL_STACK) == 0);
	CHECK(pthread_create(&thread, &attr, on_a_small_stack, NULL) == 0);
	CHECK(pthread_join(thread, &done) == 0 && done == &k);
	waits();
	GIVES(mk_ipi_fini(k.mk), 0);
	polls();
	GIVES(mk_ipi_fini(k.mk), 0);
	machine_reset();
}
