/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the header promises if a kernel makes a mistake: results, texts of errors, and that nothing is written to wrong addresses.
 */
#include "machine.h"

#include <limits.h>
#include <string.h>

static struct kernel a, b;

static void begin(uint32_t layout)
{
	kernel_boot(&a, 0, 5, 1);
	kernel_boot(&b, 2, 3, 1);
	link_two(&a, &b, layout, 0);
}

static void end(void)
{
	GIVES(mk_ipi_set_default(NULL), 0);
	kernel_end(&b);
	kernel_end(&a);
	machine_reset();
}

/* A misaligned address, as in a packed struct. Nothing must be written there. */
static unsigned char odd[4096 + 1] __attribute__((aligned(8)));
#define ODD ((void *)(odd + 1))

static void refused_to_write(long long got, const char *what)
{
	size_t i;

	check(got == -MK_IPI_EINVAL, what, __FILE__, __LINE__, got);
	for (i = 0; i < sizeof(odd); i++)
		if (odd[i])
			break;
	check(i == sizeof(odd), what, __FILE__, __LINE__, (long long)i);
}

#define REFUSED(call) refused_to_write(call, #call)

static void no_message(const struct mk_ipi_message *message, void *ctx)
{
	(void)message, (void)ctx;
}

/* Each pointer to a result, or to a struct that is read, is misaligned in turn. */
static void misaligned(void)
{
	static uint64_t memory[4096 / 8] __attribute__((aligned(4096)));
	struct mk_ipi_record record = { .region_start = 0x1000, .region_len = 0x100000, .doorbell_cpu = 5, .incarnation = 1,
					.state = MK_IPI_RUNNING, .layout = MK_IPI_NATIVE, .vector = VECTOR, .nr_cpus = 1 };
	struct mk_ipi_instance config = config_of(3, &a.cpu, MK_IPI_RFC_V2, 0);
	struct mk_ipi_data data = { .type = MK_PFN_IPI_TYPE, .data_size = 8 };
	struct mk_ipi_payload payload = { "x", 1 };
	struct mk_ipi_directory_writer writer;
	uint64_t cpu = 5, cpus[2];
	size_t done;

	begin(MK_IPI_NATIVE);
	REFUSED(mk_ipi_directory_create(ODD, memory, sizeof(memory), 4, 2));
	GIVES(mk_ipi_directory_create(&writer, memory, sizeof(memory), 4, 2), 0);
	GIVES(mk_ipi_directory_write(&writer, &record, &cpu), 0);
	REFUSED(mk_ipi_directory_write(&writer, ODD, &cpu));
	REFUSED(mk_ipi_directory_write(&writer, &record, ODD));
	REFUSED(mk_ipi_directory_write(ODD, &record, &cpu));
	REFUSED(mk_ipi_directory_conflict(&writer, ODD));
	REFUSED(mk_ipi_directory_read(memory, sizeof(memory), 0, ODD, cpus, 2));
	REFUSED(mk_ipi_directory_read(memory, sizeof(memory), 0, &record, ODD, 2));
	REFUSED(mk_ipi_directory_boot_cpu(memory, sizeof(memory), ODD));
	REFUSED(mk_ipi_attach_record(a.mk, ODD, &cpu));
	REFUSED(mk_ipi_attach_record(a.mk, &record, ODD));
	REFUSED(mk_ipi_get_stats(a.mk, ODD));
	REFUSED(mk_ipi_get_lane_stats(a.mk, 2, ODD));
	REFUSED(mk_ipi_get_instance(a.mk, 0, ODD));
	REFUSED(mk_ipi_identity(a.mk, ODD));
	REFUSED(mk_ipi_create_instance(a.mk, ODD, NULL));
	REFUSED(mk_ipi_create_instance(a.mk, &config, ODD));
	REFUSED(mk_ipi_get_instance(a.mk, 3, &(struct mk_ipi_instance_info){ 0 }));
	config.cpus = ODD;
	REFUSED(mk_ipi_create_instance(a.mk, &config, NULL));
	REFUSED(mk_ipi_boot_shared("mk_ipi_shared=1M", 16, ODD));
	REFUSED(mk_ipi_register(a.mk, 1, no_message, NULL, ODD));
	REFUSED(mk_ipi_run_deferred(a.mk, ODD));
	REFUSED(mk_ipi_drain(a.mk, ODD));
	REFUSED(mk_ipi_send(a.mk, 2, 1, "x", 1, ODD));
	REFUSED(mk_ipi_post(a.mk, 2, 1, "x", 1, ODD));
	REFUSED(mk_ipi_send_pfn(a.mk, 2, 1, ODD));
	REFUSED(mk_ipi_post_many(a.mk, 2, 1, ODD, 1, &done));
	REFUSED(mk_ipi_post_many(a.mk, 2, 1, &payload, 1, ODD));
	REFUSED(mk_ipi_handled(a.mk, 2, ODD));
	REFUSED(mk_ipi_map_pfn(a.mk, ARENA_PHYS / PAGE, ODD));
	REFUSED(mk_receive_pfn(&data, ODD));
	REFUSED(mk_ipi_poller_begin(a.mk, ODD, sizeof(struct mk_ipi_poller)));
	/* None of these calls sent a message. */
	machine_run();
	GIVES(b.nr_unhandled, 0);
	end();
}

/*
 * In a later version of the Linux patch a message has up to 4096 bytes. Our call of the same name accepts at most 256, also if
 * the region was made for longer messages.
 */
static void long_messages(void)
{
	static unsigned char big[MK_IPI_MAX_LEN + 1];
	int is_long;

	for (is_long = 0; is_long < 2; is_long++) {
		if (is_long)
			machine_lines = 128, machine_max_len = MK_IPI_MAX_LEN;
		begin(MK_IPI_NATIVE);
		GIVES(mk_ipi_set_default(a.mk), 0);
		GIVES(multikernel_send_ipi_data(2, big, 256, 0x5001), 0);
		GIVES(multikernel_send_ipi_data(2, big, 257, 0x5001), -MK_IPI_EINVAL);
		GIVES(multikernel_send_ipi_data(2, big, 4096, 0x5001), -MK_IPI_EINVAL);
		machine_run();
		/* No handler is registered for this type. */
		GIVES(b.nr_unhandled, 1);
		GIVES(b.unhandled_type, 0x5001);
		GIVES(b.unhandled_size, 256);
		GIVES(mk_ipi_send(a.mk, 2, 0x5002, big, 257, NULL), is_long ? 0 : -MK_IPI_EINVAL);
		GIVES(mk_ipi_send(a.mk, 2, 0x5002, big, 4096, NULL), is_long ? 0 : -MK_IPI_EINVAL);
		GIVES(mk_ipi_send(a.mk, 2, 0x5002, big, 4097, NULL), -MK_IPI_EINVAL);
		machine_run();
		GIVES(b.nr_unhandled, is_long ? 3 : 1);
		GIVES(b.unhandled_size, is_long ? 4096 : 256);
		end();
	}
	begin(MK_IPI_RFC_V2);
	GIVES(mk_ipi_send(a.mk, 2, 0x5002, big, 257, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_send(a.mk, 2, 0x5002, big, 256, NULL), 0);
	machine_run();
	GIVES(b.unhandled_type, 0x5002);
	end();
}

/* A copy of the storage at another address is not an instance of the library, and not a poller. */
static void copied(void)
{
	static struct mk_ipi copy;
	static struct mk_ipi_poller poller, copy_of_poller;

	begin(MK_IPI_NATIVE);
	memcpy(&copy, a.mk, sizeof(copy));
	GIVES(mk_ipi_poll(&copy), -MK_IPI_EINVAL);
	GIVES(mk_ipi_send(&copy, 2, 1, "x", 1, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_follow(&copy, NULL, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_fini(&copy), -MK_IPI_EINVAL);
	GIVES(mk_ipi_poller_begin(a.mk, &poller, sizeof(poller)), 0);
	memcpy(&copy_of_poller, &poller, sizeof(poller));
	GIVES(mk_ipi_poller_poll(&copy_of_poller), -MK_IPI_EINVAL);
	GIVES(mk_ipi_poller_end(&poller), 0);
	machine_run();
	end();
}

static struct mk_ipi_handler *self, *others;
static unsigned calls;

static void once(struct mk_ipi_data *data, void *ctx)
{
	(void)data, (void)ctx;
	calls++;
	multikernel_unregister_handler(self);
}

static void once_of_two(const struct mk_ipi_message *message, void *ctx)
{
	(void)message, (void)ctx;
	calls++;
	GIVES(mk_ipi_unregister(b.mk, self), -MK_IPI_EDEADLK);
	GIVES(mk_ipi_unregister(b.mk, others), -MK_IPI_EDEADLK);
}

/*
 * A handler cannot unregister itself: it is called again, and a line in the log says why. After the callback it can be
 * unregistered.
 */
static void unregisters_itself(void)
{
	begin(MK_IPI_NATIVE);
	GIVES(mk_ipi_set_default(b.mk), 0);
	calls = 0;
	self = multikernel_register_handler(once, NULL, 1);
	GIVES(mk_ipi_send(a.mk, 2, 1, "x", 1, NULL), 0);
	GIVES(mk_ipi_send(a.mk, 2, 1, "y", 1, NULL), 0);
	machine_run();
	GIVES(calls, 2);
	GIVES(b.logged, 2);
	multikernel_unregister_handler(self);
	GIVES(mk_ipi_send(a.mk, 2, 1, "z", 1, NULL), 0);
	machine_run();
	GIVES(calls, 2);
	GIVES(b.nr_unhandled, 1);
	GIVES(mk_ipi_register(b.mk, 1, once_of_two, NULL, &self), 0);
	GIVES(mk_ipi_register(b.mk, 2, no_message, NULL, &others), 0);
	GIVES(mk_ipi_send(a.mk, 2, 1, "x", 1, NULL), 0);
	machine_run();
	GIVES(calls, 3);
	GIVES(mk_ipi_unregister(b.mk, self), 0);
	GIVES(mk_ipi_unregister(b.mk, others), 0);
	end();
}

static int says(struct mk_ipi *mk, int error, const char *text)
{
	return strcmp(mk_ipi_last_error(mk, error), text) == 0;
}

/*
 * mk_ipi_last_error returns the reason for the last failure on this CPU, or the text of the error number if no reason is stored.
 */
static void reasons(void)
{
	static const char word[] = "mk_ipi_shared=0x1008";
	static struct mk_ipi none;
	struct mk_ipi_ops ops;
	struct mk_ipi_instance config;
	struct mk_ipi_handler *handler;

	begin(MK_IPI_NATIVE);
	CHECK(says(a.mk, -MK_IPI_EINVAL, "invalid argument"));
	GIVES(mk_ipi_send(a.mk, 8, 1, "x", 1, NULL), -MK_IPI_EINVAL);
	CHECK(says(a.mk, -MK_IPI_EINVAL, "there is no such instance"));
	/* A call that succeeds does not change the reason. The next failure replaces it. */
	GIVES(mk_ipi_send(a.mk, 2, 1, "x", 1, NULL), 0);
	CHECK(says(a.mk, MK_IPI_EINVAL, "there is no such instance"));
	CHECK(says(a.mk, -MK_IPI_ENOSPC, "the lane is full"));
	CHECK(says(a.mk, -MK_IPI_EBUSY, "in use"));
	CHECK(says(b.mk, -MK_IPI_EINVAL, "invalid argument"));
	GIVES(mk_ipi_send(a.mk, 2, 1, NULL, 1, NULL), -MK_IPI_EINVAL);
	CHECK(says(a.mk, -MK_IPI_EINVAL, "invalid argument"));
	GIVES(mk_ipi_send(a.mk, 2, 1, arena, 257, NULL), -MK_IPI_EINVAL);
	CHECK(says(a.mk, -MK_IPI_EINVAL, "the message is longer than the link allows"));
	if (MK_IPI_MAX_CPUS > 1) {
		/* Each CPU has its own last failure. */
		a.index = 1;
		CHECK(says(a.mk, -MK_IPI_EINVAL, "invalid argument"));
		a.index = 0;
		CHECK(says(a.mk, -MK_IPI_EINVAL, "the message is longer than the link allows"));
	}
	/* A call that refuses its arguments does not leave the reason of an older failure. */
	GIVES(mk_ipi_handled(a.mk, 2, NULL), -MK_IPI_EINVAL);
	CHECK(says(a.mk, -MK_IPI_EINVAL, "invalid argument"));
	config = config_of(2, &b.cpu, MK_IPI_NATIVE, 0);
	GIVES(mk_ipi_create_instance(a.mk, &config, NULL), -MK_IPI_EEXIST);
	CHECK(says(a.mk, -MK_IPI_EEXIST, "the instance is in the table already"));
	config.id = 5;
	a.no_pool = 1;
	GIVES(mk_ipi_create_instance(a.mk, &config, NULL), -MK_IPI_ENODEV);
	CHECK(says(a.mk, -MK_IPI_ENODEV, "the instance has no memory pool"));
	a.no_pool = 0;
	GIVES(mk_ipi_start(a.mk, word, strlen(word)), -MK_IPI_EINVAL);
	CHECK(says(a.mk, -MK_IPI_EINVAL, "the address in the boot parameter is not on a page boundary"));
	GIVES(mk_ipi_destroy_instance(a.mk, 9), -MK_IPI_EINVAL);
	CHECK(says(a.mk, -MK_IPI_EINVAL, "there is no such instance"));
	GIVES(mk_ipi_destroy_instance(a.mk, 2), -MK_IPI_EBUSY);
	CHECK(says(a.mk, -MK_IPI_EBUSY, "another kernel still has the region mapped"));
	GIVES(mk_ipi_register(a.mk, 1, no_message, NULL, &handler), 0);
	GIVES(mk_ipi_unregister(a.mk, handler), 0);
	GIVES(mk_ipi_unregister(a.mk, handler), -MK_IPI_ESTALE);
	CHECK(says(a.mk, -MK_IPI_ESTALE, "the registration has ended already"));
	/* mk_ipi_init fails, so there is no instance. The text says why it failed. */
	ops = kernel_ops(&a);
	ops.unmap = NULL;
	GIVES(mk_ipi_init(&none, sizeof(none), &ops), -MK_IPI_EINVAL);
	CHECK(says(&none, -MK_IPI_EINVAL, "mk_ipi: the operation unmap is NULL"));
	CHECK(says(NULL, -MK_IPI_EPROTO, mk_ipi_strerror(MK_IPI_EPROTO)));
	machine_run();
	end();
}

/* In a kernel with only the eight required operations messages work, and calls that need another operation are refused. */
static void least(void)
{
	struct mk_ipi_instance config;
	struct mk_ipi_handler *handler;
	void *page;
	uint32_t layout;

	for (layout = MK_IPI_RFC_V2; layout <= MK_IPI_NATIVE; layout++) {
		kernel_boot(&a, 0, 5, 1);
		machine_least = 1;
		kernel_boot(&b, 2, 3, 1);
		link_two(&a, &b, layout, 1);
		GIVES(mk_ipi_register(b.mk, 1, no_message, NULL, &handler), 0);
		GIVES(mk_ipi_register(a.mk, 1, no_message, NULL, &handler), 0);
		GIVES(mk_ipi_send(a.mk, 2, 1, "x", 1, NULL), 0);
		machine_run();
		GIVES(mk_ipi_send(b.mk, 0, 1, "y", 1, NULL), 0);
		GIVES(mk_ipi_send_from_nmi(b.mk, 0, 1, "z", 1, NULL), -MK_IPI_ENXIO);
		machine_run();
		GIVES(a.nr_unhandled, 0);
		config = config_of(7, &b.cpu, MK_IPI_RFC_V2, 0);
		GIVES(mk_ipi_create_instance(b.mk, &config, NULL), -MK_IPI_ENODEV);
		GIVES(mk_ipi_map_pfn(b.mk, ARENA_PHYS / PAGE, &page), -MK_IPI_EACCES);
		GIVES(mk_ipi_send(b.mk, 0, 9, "y", 1, NULL), 0);
		GIVES(mk_ipi_send(a.mk, 2, 9, "y", 1, NULL), 0);
		machine_run();
		GIVES(a.nr_unhandled, 1);
		end();
	}
}

/* Each error number has a text of its own, negated or not; any other number has a text too. */
static void texts(void)
{
	static const enum mk_ipi_error all[] = {
		MK_IPI_ENXIO, MK_IPI_EAGAIN, MK_IPI_ENOMEM, MK_IPI_EACCES, MK_IPI_EBUSY, MK_IPI_EEXIST, MK_IPI_ENODEV,
		MK_IPI_EINVAL, MK_IPI_ENOSPC, MK_IPI_ERANGE, MK_IPI_EDEADLK, MK_IPI_EPROTO, MK_IPI_ESTALE,
	};
	size_t i, j;

	for (i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		CHECK(mk_ipi_strerror((int)all[i]) == mk_ipi_strerror(-(int)all[i]));
		CHECK(strcmp(mk_ipi_strerror((int)all[i]), mk_ipi_strerror(1)) != 0);
		for (j = 0; j < i; j++)
			CHECK(strcmp(mk_ipi_strerror((int)all[i]), mk_ipi_strerror((int)all[j])) != 0);
	}
	CHECK(strcmp(mk_ipi_strerror(0), "no error") == 0);
	CHECK(strcmp(mk_ipi_strerror(-22), "invalid argument") == 0);
	CHECK(mk_ipi_strerror(INT_MIN) && mk_ipi_strerror(INT_MAX) && mk_ipi_strerror(-77));
}

void test_cases(void)
{
	texts();
	reasons();
	least();
	misaligned();
	long_messages();
	copied();
	unregisters_itself();
}
