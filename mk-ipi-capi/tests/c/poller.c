/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A CPU that polls, and wrong uses of a poller (native link). */
#include "machine.h"

#include <string.h>

static struct kernel a, b;
static struct mk_ipi_poller poller;
static unsigned calls;

static void count(const struct mk_ipi_message *message, void *ctx)
{
	(void)message, (void)ctx;
	calls++;
}

/* Calls that a handler must not make for the poller that called it. Each is refused. */
static void meddle(const struct mk_ipi_message *message, void *ctx)
{
	struct mk_ipi_poller other = { { 0 } };

	(void)message, (void)ctx;
	GIVES(mk_ipi_poller_poll(&poller), -MK_IPI_EBUSY);
	GIVES(mk_ipi_poller_wait(&poller, 5), -MK_IPI_EBUSY);
	GIVES(mk_ipi_poller_end(&poller), -MK_IPI_EBUSY);
	GIVES(mk_ipi_poller_begin(b.mk, &poller, sizeof(poller)), -MK_IPI_EBUSY);
	GIVES(mk_ipi_poller_begin(b.mk, &other, sizeof(other)), -MK_IPI_EBUSY);
	GIVES(mk_ipi_poller_poll(&other), -MK_IPI_EINVAL);
	calls++;
}

/* Starts two kernels. The second one polls. */
static void begin(void)
{
	struct mk_ipi_handler *handler;

	kernel_boot(&a, 0, 5, 1);
	kernel_boot(&b, 2, 3, 1);
	link_two(&a, &b, MK_IPI_NATIVE, 0);
	GIVES(mk_ipi_register(b.mk, 1, count, NULL, &handler), 0);
	GIVES(mk_ipi_register(b.mk, 2, meddle, NULL, &handler), 0);
	memset(&poller, 0, sizeof(poller));
	GIVES(mk_ipi_poller_begin(b.mk, &poller, sizeof(poller)), 0);
	calls = 0;
}

static void end(void)
{
	GIVES(mk_ipi_poller_end(&poller), 0);
	GIVES(mk_ipi_poller_end(&poller), -MK_IPI_EINVAL);
	GIVES(mk_ipi_poller_poll(&poller), -MK_IPI_EINVAL);
	machine_run();
	kernel_end(&b);
	kernel_end(&a);
	machine_reset();
}

/* While the poller exists, senders ring no doorbell, and only the poller delivers messages. Afterwards senders ring again. */
static void looks(void)
{
	unsigned before;
	int more = 7;

	begin();
	before = a.rung;
	GIVES(mk_ipi_poller_poll(&poller), 0);
	GIVES(mk_ipi_send(a.mk, 2, 1, "x", 1, NULL), 0);
	GIVES(mk_ipi_send(a.mk, 2, 1, "x", 1, NULL), 0);
	GIVES(a.rung, before);
	GIVES(mk_ipi_run_deferred(b.mk, &more), 0);
	GIVES(calls, 0);
	GIVES(mk_ipi_poller_wait(&poller, 100), 2);
	GIVES(calls, 2);
	GIVES(mk_ipi_poller_wait(&poller, 100), 0);
	GIVES(mk_ipi_send(a.mk, 2, 1, "x", 1, NULL), 0);
	GIVES(mk_ipi_poller_poll(&poller), 1);
	b.scheduled = 0;
	GIVES(mk_ipi_poller_end(&poller), 0);
	CHECK(b.scheduled);
	machine_run();
	GIVES(mk_ipi_send(a.mk, 2, 1, "x", 1, NULL), 0);
	GIVES(a.rung, before + 1);
	machine_run();
	GIVES(calls, 4);
	/* The storage of a poller can be used again. */
	GIVES(mk_ipi_poller_begin(b.mk, &poller, sizeof(poller)), 0);
	GIVES(mk_ipi_poller_wait(&poller, 1000), 0);
	end();
}

static void misuse(void)
{
	struct mk_ipi_handler *handler;
	struct mk_ipi_poller other;

	begin();
	memset(&other, 0, sizeof(other));
	GIVES(mk_ipi_poller_begin(b.mk, &poller, sizeof(poller)), -MK_IPI_EBUSY);
	GIVES(mk_ipi_poller_begin(a.mk, &poller, sizeof(poller)), -MK_IPI_EBUSY);
	GIVES(mk_ipi_poller_begin(b.mk, &other, sizeof(other)), -MK_IPI_EBUSY);
	GIVES(mk_ipi_poller_begin(a.mk, &other, sizeof(other) - 1), -MK_IPI_EINVAL);
	GIVES(mk_ipi_poller_begin(a.mk, (struct mk_ipi_poller *)(void *)((char *)&other + 1), sizeof(other)), -MK_IPI_EINVAL);
	/* Storage without a poller, and a copy of a poller at another address. */
	GIVES(mk_ipi_poller_poll(&other), -MK_IPI_EINVAL);
	memcpy(&other, &poller, sizeof(other));
	GIVES(mk_ipi_poller_poll(&other), -MK_IPI_EINVAL);
	GIVES(mk_ipi_poller_wait(&other, 1), -MK_IPI_EINVAL);
	GIVES(mk_ipi_poller_end(&other), -MK_IPI_EINVAL);
	/* Another kernel can have a poller at the same time. */
	memset(&other, 0, sizeof(other));
	GIVES(mk_ipi_poller_begin(a.mk, &other, sizeof(other)), 0);
	GIVES(mk_ipi_poller_end(&other), 0);
	/* Wrong calls inside a handler that the poller calls: see `meddle`. */
	GIVES(mk_ipi_send(a.mk, 2, 2, "x", 1, NULL), 0);
	GIVES(mk_ipi_poller_wait(&poller, 64), 1);
	GIVES(calls, 1);
	/*
	 * The poller may keep a reference to a handler until its next poll. On its own CPU an unregistration cannot wait for
	 * that.
	 */
	GIVES(mk_ipi_register(b.mk, 3, count, NULL, &handler), 0);
	GIVES(mk_ipi_send(a.mk, 2, 3, "x", 1, NULL), 0);
	GIVES(mk_ipi_poller_wait(&poller, 64), 1);
	GIVES(mk_ipi_unregister(b.mk, handler), -MK_IPI_EDEADLK);
	GIVES(mk_ipi_poller_end(&poller), 0);
	GIVES(mk_ipi_unregister(b.mk, handler), 0);
	GIVES(mk_ipi_poller_begin(b.mk, &poller, sizeof(poller)), 0);
	/* The instance cannot end while the poller exists. */
	GIVES(mk_ipi_fini(b.mk), -MK_IPI_EBUSY);
	GIVES(mk_ipi_goodbye(b.mk), 0);
	GIVES(mk_ipi_destroy_instance(b.mk, 2), -MK_IPI_EBUSY);
	GIVES(mk_ipi_poller_poll(&poller), 0);
	end();
}

/* Kernels that have no lanes to poll. */
static void nothing(void)
{
	kernel_boot(&a, 0, 5, 0);
	kernel_boot(&b, 2, 3, 1);
	memset(&poller, 0, sizeof(poller));
	GIVES(mk_ipi_poller_begin(a.mk, &poller, sizeof(poller)), -MK_IPI_ENODEV);
	GIVES(mk_ipi_identify(a.mk, 0, 1), 0);
	GIVES(mk_ipi_poller_begin(a.mk, &poller, sizeof(poller)), -MK_IPI_ENODEV);
	link_two(&a, &b, MK_IPI_RFC_V2, 1);
	GIVES(mk_ipi_poller_begin(a.mk, &poller, sizeof(poller)), -MK_IPI_EINVAL);
	a.index = MK_IPI_MAX_CPUS;
	GIVES(mk_ipi_poller_begin(a.mk, &poller, sizeof(poller)), -MK_IPI_ERANGE);
	a.index = UINT32_MAX;
	GIVES(mk_ipi_poller_begin(a.mk, &poller, sizeof(poller)), -MK_IPI_ERANGE);
	a.index = 0;
	kernel_end(&b);
	kernel_end(&a);
	machine_reset();
}

void test_poller(void)
{
	looks();
	misuse();
	nothing();
}
