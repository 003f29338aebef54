/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Tests the calls of the Linux patch: their signatures and their results. */
#include "machine.h"

#include <string.h>

#define TYPE 0xfedcba98u

static struct kernel a, b;

/* The last message that `callback` received, and how often callbacks were called. */
static struct mk_ipi_data last;
static unsigned calls;
static struct mk_ipi_handler *me;

/* The compiler checks here that the calls have the signatures of the patch. */
static struct mk_ipi_handler *(*const register_)(mk_ipi_callback_t, void *, unsigned int) = multikernel_register_handler;
static void (*const unregister_)(struct mk_ipi_handler *) = multikernel_unregister_handler;
static int (*const send_)(int, void *, size_t, unsigned long) = multikernel_send_ipi_data;
static void (*const interrupt_)(void) = generic_multikernel_interrupt;
static int (*const send_pfn_)(int, unsigned long) = mk_send_pfn;
static int (*const receive_pfn_)(struct mk_ipi_data *, unsigned long *) = mk_receive_pfn;
static void *(*const map_page_)(struct mk_ipi_data *) = mk_receive_map_page;
static void (*const unmap_page_)(void *) = mk_receive_unmap_page;

static void callback(struct mk_ipi_data *data, void *ctx)
{
	size_t i;

	CHECK(ctx == &calls);
	for (i = data->data_size; i < MK_MAX_DATA_SIZE; i++)
		check(data->buffer[i] == 0, "zeros after the payload", __FILE__, __LINE__, (long long)i);
	last = *data;
	/* `data` is a private copy: the next callback for this message gets the message unchanged. */
	memset(data, 0xff, sizeof(*data));
	calls++;
}

static void nothing(const struct mk_ipi_message *message, void *ctx)
{
	(void)message, (void)ctx;
}

static void ends_itself(struct mk_ipi_data *data, void *ctx)
{
	(void)data, (void)ctx;
	calls++;
	unregister_(me);
	GIVES(mk_ipi_unregister(b.mk, me), -MK_IPI_EDEADLK);
}

/* Sends from `a`. Then makes `b` the default instance, so that `deliver` calls the interrupt handler of `b`. */
static int send(int to, void *data, size_t size, unsigned long type)
{
	int err;

	GIVES(mk_ipi_set_default(a.mk), 0);
	err = send_(to, data, size, type);
	GIVES(mk_ipi_set_default(b.mk), 0);
	return err;
}

static void deliver(void)
{
	if (b.pending) {
		b.pending = 0;
		interrupt_();
	}
	machine_run();
}

static void without_default(void)
{
	unsigned long pfn = 7;

	GIVES(mk_ipi_set_default(NULL), 0);
	CHECK(!register_(NULL, &calls, TYPE));
	GIVES(send_(2, last.buffer, 1, TYPE), -MK_IPI_ENODEV);
	GIVES(send_pfn_(2, pfn), -MK_IPI_ENODEV);
	CHECK(!map_page_(&last));
	unmap_page_(NULL);
	unregister_(NULL);
	unregister_((struct mk_ipi_handler *)(void *)arena);
	interrupt_();
}

/* Handlers that are registered before there is a default instance become handlers of that instance. Their handles stay valid. */
static void before_the_default(void)
{
	struct mk_ipi_handler *one, *two, *gone, *other, *all[MK_IPI_MAX_HANDLERS];
	unsigned i;

	GIVES(mk_ipi_set_default(NULL), 0);
	one = register_(callback, &calls, 6);
	two = register_(callback, &calls, 6);
	gone = register_(callback, &calls, 6);
	CHECK(one && two && gone && one != two && one != gone && two != gone);
	/* `gone` is unregistered while it waits. Another handler takes its place, and has another handle. */
	unregister_(gone);
	other = register_(callback, &calls, 7);
	CHECK(other && other != gone);
	unregister_(gone);
	GIVES(mk_ipi_unregister(b.mk, gone), -MK_IPI_ESTALE);
	calls = 0;
	GIVES(mk_ipi_send(a.mk, 2, 6, "x", 1, NULL), 0);
	machine_run();
	GIVES(calls, 0);
	GIVES(mk_ipi_set_default(b.mk), 0);
	GIVES(mk_ipi_send(a.mk, 2, 6, "x", 1, NULL), 0);
	machine_run();
	GIVES(calls, 2);
	/* They are registered with the first default instance only, and not again with the next one. */
	GIVES(mk_ipi_set_default(NULL), 0);
	GIVES(mk_ipi_set_default(b.mk), 0);
	unregister_(one);
	unregister_(one);
	GIVES(mk_ipi_send(a.mk, 2, 6, "x", 1, NULL), 0);
	machine_run();
	GIVES(calls, 3);
	/* The handlers belong to b: a refuses their handles. */
	GIVES(mk_ipi_unregister(a.mk, two), -MK_IPI_EINVAL);
	GIVES(mk_ipi_unregister(b.mk, two), 0);
	GIVES(mk_ipi_unregister(b.mk, two), -MK_IPI_ESTALE);
	GIVES(mk_ipi_send(a.mk, 2, 7, "x", 1, NULL), 0);
	machine_run();
	GIVES(calls, 4);
	/*
	 * More handlers than there is room for: first the table of waiting handlers is full, then the registry of the instance.
	 */
	GIVES(mk_ipi_set_default(NULL), 0);
	GIVES(mk_ipi_register(b.mk, 9, nothing, NULL, &one), 0);
	for (i = 0; i < MK_IPI_MAX_HANDLERS - 1; i++)
		CHECK(all[i] = register_(callback, &calls, 8));
	CHECK(!register_(callback, &calls, 8));
	GIVES(mk_ipi_set_default(b.mk), -MK_IPI_ENOMEM);
	CHECK(!register_(callback, &calls, 8));
	GIVES(mk_ipi_unregister(b.mk, one), 0);
	GIVES(mk_ipi_set_default(b.mk), 0);
	CHECK(!register_(callback, &calls, 8));
	calls = 0;
	GIVES(mk_ipi_send(a.mk, 2, 8, "x", 1, NULL), 0);
	machine_run();
	GIVES(calls, MK_IPI_MAX_HANDLERS - 1);
	for (i = 0; i < MK_IPI_MAX_HANDLERS - 1; i++)
		unregister_(all[i]);
	/*
	 * `other` stays registered until b ends. If its place were not free then, the table would be too small when this runs
	 * again.
	 */
}

static void sends(uint32_t exclusive)
{
	static char bytes[257];
	struct mk_ipi_handler *one, *two;
	size_t size;

	GIVES(mk_ipi_set_default(b.mk), 0);
	CHECK(!register_(NULL, &calls, TYPE));
	one = register_(callback, &calls, TYPE);
	two = register_(callback, &calls, TYPE);
	CHECK(one && two && one != two);
	for (size = 1, calls = 0; size <= 256; size++) {
		test_bytes((unsigned char *)bytes, size);
		GIVES(send(2, bytes, size, TYPE), 0);
		deliver();
		GIVES(calls, 2 * size);
		GIVES(last.sender_cpu, a.cpu);
		GIVES(last.type, TYPE);
		GIVES(last.data_size, size);
		CHECK(memcmp(last.buffer, bytes, size) == 0);
	}
	/* A message of 0 bytes: the call returns 0, and no callback is called. */
	GIVES(send(2, bytes, 0, TYPE), 0);
	GIVES(send(2, NULL, 0, TYPE), 0);
	deliver();
	GIVES(calls, 512);
	/* A null pointer with a size sends zeros. */
	GIVES(send(2, NULL, 10, TYPE), 0);
	deliver();
	GIVES(calls, 514);
	memset(bytes, 0, sizeof(bytes));
	CHECK(last.data_size == 10 && memcmp(last.buffer, bytes, 256) == 0);
	/* Only the low 32 bits of a sign-extended type are sent. */
	GIVES(send(2, bytes, 1, (unsigned long)(long)(int)TYPE), 0);
	deliver();
	GIVES(calls, 516);
	GIVES(send(3, bytes, 257, TYPE), -MK_IPI_EINVAL);
	GIVES(send(-1, bytes, 1, TYPE), -MK_IPI_EINVAL);
	GIVES(send(256, bytes, 1, TYPE), -MK_IPI_EINVAL);
	GIVES(send(2, bytes, 257, TYPE), -MK_IPI_EINVAL);
	GIVES(send(9, bytes, 257, TYPE), -MK_IPI_EINVAL);
	GIVES(send(9, bytes, 0, TYPE), -MK_IPI_ENODEV);
	GIVES(send(9, bytes, 1, TYPE), -MK_IPI_ENODEV);
	/* A second message is sent before the first is read. */
	GIVES(send(2, bytes, 1, TYPE), 0);
	GIVES(send(2, bytes, 2, TYPE), exclusive ? -MK_IPI_EBUSY : 0);
	deliver();
	GIVES(last.data_size, exclusive ? 1 : 2);
	GIVES(calls, 518);
	unregister_(two);
	unregister_(two);
	GIVES(send(2, bytes, 1, TYPE), 0);
	deliver();
	GIVES(calls, 519);
	/* The handle `two` is not valid any more: it does not unregister the handler that has its place now. */
	CHECK(register_(callback, &calls, TYPE) != two);
	unregister_(two);
	GIVES(send(2, bytes, 1, TYPE), 0);
	deliver();
	GIVES(calls, 521);
	/* A handle of another instance of the library: nothing is unregistered. */
	GIVES(mk_ipi_set_default(a.mk), 0);
	unregister_(one);
	GIVES(mk_ipi_set_default(b.mk), 0);
	GIVES(send(2, bytes, 1, TYPE), 0);
	deliver();
	GIVES(calls, 523);
}

static void inside_a_callback(void)
{
	me = register_(ends_itself, NULL, 5);
	calls = 0;
	GIVES(send(2, "x", 1, 5), 0);
	deliver();
	GIVES(send(2, "x", 1, 5), 0);
	deliver();
	GIVES(calls, 2);
	GIVES(b.logged, 2);
	unregister_(me);
	GIVES(send(2, "x", 1, 5), 0);
	deliver();
	GIVES(calls, 2);
}

static void numbers_of_pages(void)
{
	uint64_t phys = pages_alloc(PAGE);
	unsigned long pfn = 7;
	struct mk_ipi_data bad;
	void *page;

	CHECK(register_(callback, &calls, MK_PFN_IPI_TYPE));
	GIVES(mk_ipi_set_default(a.mk), 0);
	GIVES(send_pfn_(2, phys / PAGE), 0);
	GIVES(send_pfn_(77, 1), -MK_IPI_EINVAL);
	GIVES(mk_ipi_set_default(b.mk), 0);
	deliver();
	GIVES(last.data_size, sizeof(unsigned long));
	bad = last;
	bad.type++;
	GIVES(receive_pfn_(&bad, &pfn), -MK_IPI_EINVAL);
	bad.type--, bad.data_size--;
	GIVES(receive_pfn_(&bad, &pfn), -MK_IPI_EINVAL);
	GIVES(receive_pfn_(NULL, &pfn), -MK_IPI_EINVAL);
	GIVES(receive_pfn_(&last, NULL), -MK_IPI_EINVAL);
	GIVES(pfn, 7);
	GIVES(receive_pfn_(&last, &pfn), 0);
	GIVES(pfn, phys / PAGE);
	CHECK(!map_page_(&bad) && !map_page_(NULL));
	page = map_page_(&last);
	CHECK(page == at_phys(phys));
	unmap_page_(page);
	b.unshared = 1;
	CHECK(!map_page_(&last));
	b.unshared = 0, b.maps_left = 0;
	CHECK(!map_page_(&last));
	b.maps_left = -1;
	/* The calls whose names begin with mk_ipi_ return the reason. */
	GIVES(mk_ipi_map_pfn(b.mk, UINT64_MAX, &page), -MK_IPI_ERANGE);
	GIVES(mk_ipi_map_pfn(b.mk, 1, &page), -MK_IPI_EACCES);
	GIVES(mk_ipi_map_pfn(b.mk, pfn, &page), 0);
	GIVES(mk_ipi_unmap_page(b.mk, page), 0);
	GIVES(mk_ipi_send_pfn(a.mk, 2, pfn, NULL), 0);
	deliver();
	GIVES(receive_pfn_(&last, &pfn), 0);
	pages_free(phys, PAGE);
}

void test_compat(void)
{
	uint32_t exclusive;

	for (exclusive = 0; exclusive < 2; exclusive++) {
		struct mk_ipi_instance nowhere;

		kernel_boot(&a, 0, 5, 1);
		kernel_boot(&b, 2, 3, 1);
		link_two(&a, &b, MK_IPI_RFC_V2, exclusive);
		nowhere = config_of(9, &b.cpu, MK_IPI_RFC_V2, 0);
		GIVES(mk_ipi_attach_instance(a.mk, &nowhere, 0, 0), 0);
		without_default();
		before_the_default();
		sends(exclusive);
		inside_a_callback();
		numbers_of_pages();
		kernel_end(&b);
		kernel_end(&a);
		/* mk_ipi_fini has ended the default instance, so there is none. */
		GIVES(send_(2, last.buffer, 1, TYPE), -MK_IPI_ENODEV);
		machine_reset();
	}
}
