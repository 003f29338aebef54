/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The directory, and the start of a spawned kernel. */
#include "machine.h"

#include <stdio.h>
#include <string.h>

#define INSTANCES 60u
#define CPUS 4u

static struct kernel host, spawned;
static struct mk_ipi_directory_writer writer;
static uint64_t directory, shared;
static size_t size;
static unsigned calls;

static void count(const struct mk_ipi_message *message, void *ctx)
{
	(void)message, (void)ctx;
	calls++;
}

static struct mk_ipi_record record_of(const struct kernel *k)
{
	struct mk_ipi_instance_info info;
	struct mk_ipi_record record = { 0 };

	GIVES(mk_ipi_get_instance(host.mk, k->id, &info), 0);
	record.region_start = info.region_start;
	record.region_len = info.region_len;
	record.doorbell_cpu = info.doorbell_cpu;
	record.instance = k->id;
	record.incarnation = info.incarnation;
	record.state = MK_IPI_RUNNING;
	record.layout = info.layout;
	record.flags = (info.exclusive ? MK_IPI_EXCLUSIVE : 0) | MK_IPI_ONE_DOORBELL;
	record.vector = info.vector;
	record.nr_cpus = 1;
	return record;
}

/* The host makes the regions and writes the directory. */
static void write_all(uint32_t layout)
{
	struct mk_ipi_instance a, b;
	struct mk_ipi_record record;
	struct mk_ipi_range range;

	kernel_boot(&host, 0, 5, 1);
	kernel_boot(&spawned, 2, 3, 0);
	a = config_of(0, &host.cpu, layout, 1);
	b = config_of(2, &spawned.cpu, layout, 1);
	GIVES(mk_ipi_create_instance(host.mk, &a, NULL), 0);
	GIVES(mk_ipi_create_instance(host.mk, &b, &range), 0);
	shared = range.start;
	size = mk_ipi_directory_size(INSTANCES, CPUS);
	GIVES(size, 64 + INSTANCES * (64 + 8 * CPUS));
	CHECK(size > PAGE);
	directory = pages_alloc(size);
	GIVES(mk_ipi_directory_create(&writer, at_phys(directory), size, INSTANCES, CPUS), 0);
	record = record_of(&host);
	GIVES(mk_ipi_directory_write(&writer, &record, &host.cpu), 0);
	record = record_of(&spawned);
	record.state = MK_IPI_STARTING;
	GIVES(mk_ipi_directory_write(&writer, &record, &spawned.cpu), 0);
}

static void end(void)
{
	pages_free(directory, size);
	kernel_end(&spawned);
	kernel_end(&host);
	machine_reset();
}

static void errors_of_the_writer(void)
{
	struct mk_ipi_directory_writer none = { 0 };
	struct mk_ipi_record good = record_of(&spawned), bad;
	void *memory = at_phys(directory);

	GIVES(mk_ipi_directory_size(0, 1), 0);
	GIVES(mk_ipi_directory_size(257, 1), 0);
	GIVES(mk_ipi_directory_size(1, 1025), 0);
	GIVES(mk_ipi_directory_create(NULL, memory, size, 1, 1), -MK_IPI_EINVAL);
	GIVES(mk_ipi_directory_create(&none, NULL, size, 1, 1), -MK_IPI_EINVAL);
	GIVES(mk_ipi_directory_create(&none, (char *)memory + 4, size - 8, 1, 1), -MK_IPI_EINVAL);
	GIVES(mk_ipi_directory_create(&none, memory, 64, 1, 1), -MK_IPI_EINVAL);
	GIVES(mk_ipi_directory_create(&none, memory, size, 0, 1), -MK_IPI_EINVAL);
	GIVES(mk_ipi_directory_write(NULL, &good, &spawned.cpu), -MK_IPI_EINVAL);
	GIVES(mk_ipi_directory_write(&writer, NULL, &spawned.cpu), -MK_IPI_EINVAL);
	GIVES(mk_ipi_directory_write(&writer, &good, NULL), -MK_IPI_EINVAL);
#define BAD(change) \
	(bad = good, change, check(mk_ipi_directory_write(&writer, &bad, &spawned.cpu) == -MK_IPI_EINVAL, #change, \
				   __FILE__, __LINE__, 0))
	BAD(bad.instance = -1);
	BAD(bad.instance = INSTANCES);
	BAD(bad.incarnation = 0);
	BAD(bad.state = 5);
	BAD(bad.layout = 3);
	BAD(bad.flags = 4);
	BAD(bad.vector = 0);
	BAD(bad.doorbell_cpu = 77);
	BAD(bad.nr_cpus = 0);
	BAD(bad.nr_cpus = CPUS + 1000);
	BAD(bad.region_start += 8);
	BAD(bad.region_len = UINT64_MAX);
#undef BAD
}

static void readers(void)
{
	void *memory = at_phys(directory);
	struct mk_ipi_record record;
	uint64_t cpus[CPUS], word;

	GIVES(mk_ipi_directory_read(memory, size, 2, &record, cpus, CPUS), 0);
	GIVES(record.instance, 2);
	GIVES(record.region_start, shared);
	GIVES(record.state, MK_IPI_STARTING);
	GIVES(record.flags & MK_IPI_ONE_DOORBELL, MK_IPI_ONE_DOORBELL);
	GIVES(record.nr_cpus, 1);
	GIVES(cpus[0], spawned.cpu);
	GIVES(mk_ipi_directory_read(memory, size, 7, &record, cpus, CPUS), -MK_IPI_ENODEV);
	GIVES(mk_ipi_directory_read(memory, size, INSTANCES, &record, cpus, CPUS), -MK_IPI_EINVAL);
	GIVES(mk_ipi_directory_read(memory, size, 2, &record, cpus, 0), -MK_IPI_EPROTO);
	GIVES(mk_ipi_directory_read(memory, size, 2, NULL, cpus, CPUS), -MK_IPI_EINVAL);
	GIVES(mk_ipi_directory_read(memory, size, 2, &record, NULL, CPUS), -MK_IPI_EINVAL);
	GIVES(mk_ipi_directory_read(NULL, size, 2, &record, cpus, CPUS), -MK_IPI_EINVAL);
	GIVES(mk_ipi_directory_read(memory, size - 8, 2, &record, cpus, CPUS), -MK_IPI_EINVAL);
	/* The sequence is odd: the host is changing the entry. */
	word = load64(directory + 64 + 2 * (64 + 8 * CPUS));
	store64(directory + 64 + 2 * (64 + 8 * CPUS), word | 1);
	GIVES(mk_ipi_directory_read(memory, size, 2, &record, cpus, CPUS), -MK_IPI_EAGAIN);
	GIVES(mk_ipi_join(spawned.mk, shared, memory, size), -MK_IPI_EAGAIN);
	store64(directory + 64 + 2 * (64 + 8 * CPUS), word);
	word = load64(directory);
	store64(directory, word + 1);
	GIVES(mk_ipi_directory_read(memory, size, 2, &record, cpus, CPUS), -MK_IPI_EPROTO);
	GIVES(mk_ipi_join(spawned.mk, shared, memory, size), -MK_IPI_EPROTO);
	store64(directory, word);
	GIVES(mk_ipi_join(spawned.mk, shared + PAGE, memory, size), -MK_IPI_ENODEV);
}

static void parameters(void)
{
	static const struct {
		const char *line;
		int result;
		uint64_t address;
	} cases[] = {
		{ "", 0, 0 },
		{ "quiet mk_ipi_share=1M", 0, 0 },
		{ "quiet mk_ipi_shared=64M panic=1", 1, 64 << 20 },
		{ "mk_ipi_shared=0x1000 mk-ipi-shared=0x2000", 1, 0x2000 },
		{ "mk_ipi_shared=", -MK_IPI_EINVAL, 0 },
		{ "mk_ipi_shared=0", -MK_IPI_EINVAL, 0 },
		{ "mk_ipi_shared=1Mjunk", -MK_IPI_EINVAL, 0 },
		{ "mk_ipi_shared=0x1008", -MK_IPI_EINVAL, 0 },
		{ "mk_ipi_shared=4P", -MK_IPI_ERANGE, 0 },
		{ "mk_ipi_shared=99999999999999999999", -MK_IPI_ERANGE, 0 },
		/* The value alone. On a command line of several words, a word that begins with a digit is not our parameter. */
		{ "0x40000", 1, 0x40000 },
		{ "64M", 1, 64 << 20 },
		{ "64Mjunk", -MK_IPI_EINVAL, 0 },
		{ "0x1008", -MK_IPI_EINVAL, 0 },
		{ "99999999999999999999", -MK_IPI_ERANGE, 0 },
		{ "64M quiet", 0, 0 },
		{ "64M=1", 0, 0 },
		{ "x64M", 0, 0 },
	};
	uint64_t address;
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		address = 0;
		GIVES(mk_ipi_boot_shared(cases[i].line, strlen(cases[i].line), &address), cases[i].result);
		GIVES(address, cases[i].address);
	}
	GIVES(mk_ipi_boot_directory("mk_ipi_shared=1M mk_ipi_directory=2M", 36, &address), 1);
	GIVES(address, 2 << 20);
	GIVES(mk_ipi_boot_directory("4M\0 mk_ipi_directory=2M", 23, &address), 1);
	GIVES(address, 4 << 20);
	GIVES(mk_ipi_boot_directory(NULL, 0, &address), -MK_IPI_EINVAL);
	GIVES(mk_ipi_boot_shared("mk_ipi_shared=1M", 16, NULL), -MK_IPI_EINVAL);
}

static int start(const char *format, uint64_t at)
{
	char line[200];
	int length = snprintf(line, sizeof(line), format, (unsigned long long)shared, (unsigned long long)at);

	return mk_ipi_start(spawned.mk, line, (size_t)length);
}

/* Writes an entry whose memory is not a region. Returns the address of this memory. */
static uint64_t a_bad_neighbour(void)
{
	static const uint64_t cpu = 7;
	struct mk_ipi_record record = record_of(&spawned);

	record.region_start = pages_alloc(PAGE);
	record.region_len = PAGE;
	record.doorbell_cpu = cpu;
	record.instance = 5;
	record.layout = MK_IPI_NATIVE;
	record.flags = 0;
	GIVES(mk_ipi_directory_write(&writer, &record, &cpu), 0);
	return record.region_start;
}

/* A kernel finds itself and the host by its boot parameters, and the two exchange messages. */
static void starts(void)
{
	struct mk_ipi_instance config = config_of(2, &spawned.cpu, MK_IPI_RFC_V2, 1);
	struct mk_ipi_handler *handler;

	uint32_t life = 0;
	uint64_t nonsense;

	GIVES(start("quiet", 0), 0);
	GIVES(mk_ipi_identity(spawned.mk, &life), -MK_IPI_ENODEV);
	GIVES(start("mk_ipi_shared=0x%llx", 0), -MK_IPI_ENODEV);
	GIVES(start("mk_ipi_shared=0x%llx mk_ipi_directory=junk", 0), -MK_IPI_EINVAL);
	GIVES(start("mk_ipi_shared=%llx mk_ipi_directory=0x%llx", 0x1000), -MK_IPI_EINVAL);
	GIVES(start("mk_ipi_shared=0x%llx mk_ipi_directory=0x%llx", shared), -MK_IPI_EPROTO);
	GIVES(start("mk_ipi_shared=0x%llx mk_ipi_directory=0x%llx", 0x1000), -MK_IPI_EACCES);
	GIVES(spawned.logged, 5);
	spawned.maps_left = 1;
	GIVES(start("mk_ipi_shared=0x%llx mk_ipi_directory=0x%llx", directory), -MK_IPI_ENOMEM);
	spawned.maps_left = -1;
	GIVES(spawned.maps, 0);
	GIVES(mk_ipi_identify(host.mk, 0, 1), 0);
	nonsense = a_bad_neighbour();
	GIVES(start("mk_ipi_shared=0x%llx mk_ipi_directory=0x%llx", directory), 2);
	GIVES(spawned.nr_left_out, 1);
	GIVES(spawned.left_out, 5);
	GIVES(spawned.left_out_error, -MK_IPI_EPROTO);
	pages_free(nonsense, PAGE);
	GIVES(mk_ipi_identity(spawned.mk, NULL), 2);
	GIVES(mk_ipi_identity(spawned.mk, &life), 2);
	GIVES(life, 1);
	GIVES(start("mk_ipi_shared=0x%llx mk_ipi_directory=0x%llx", directory), -MK_IPI_EEXIST);
	GIVES(mk_ipi_start_rfc_v2(spawned.mk, "", 0, &config), 0);
	machine_run();
	GIVES(mk_ipi_register(host.mk, 1, count, NULL, &handler), 0);
	GIVES(mk_ipi_register(spawned.mk, 1, count, NULL, &handler), 0);
	calls = 0;
	GIVES(mk_ipi_send(spawned.mk, 0, 1, "x", 1, NULL), 0);
	GIVES(mk_ipi_send(host.mk, 2, 1, "x", 1, NULL), 0);
	machine_run();
	GIVES(calls, 2);
}

/* A peer is destroyed, and then added again from its entry in the directory. */
static void comes_back(void)
{
	struct mk_ipi_record record;
	uint64_t cpus[CPUS];

	GIVES(mk_ipi_directory_read(at_phys(directory), size, 0, &record, cpus, CPUS), 0);
	GIVES(mk_ipi_attach_record(spawned.mk, &record, cpus), -MK_IPI_EEXIST);
	GIVES(mk_ipi_destroy_instance(spawned.mk, 0), 0);
	GIVES(mk_ipi_send(spawned.mk, 0, 1, "x", 1, NULL), -MK_IPI_ESTALE);
	GIVES(mk_ipi_attach_record(spawned.mk, &record, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_attach_record(spawned.mk, &record, cpus), 0);
	machine_run();
	GIVES(mk_ipi_send(spawned.mk, 0, 1, "x", 1, NULL), 0);
	machine_run();
	GIVES(calls, 3);
}

/* A kernel starts without a directory, as kernels with the Linux patch do. */
static void old_start(void)
{
	struct mk_ipi_instance config = config_of(2, &spawned.cpu, MK_IPI_RFC_V2, 1), native;
	struct mk_ipi_handler *handler;
	char line[100];
	size_t length = (size_t)snprintf(line, sizeof(line), "mk_ipi_shared=0x%llx", (unsigned long long)shared);

	native = config_of(2, &spawned.cpu, MK_IPI_NATIVE, 0);
	GIVES(mk_ipi_start_rfc_v2(spawned.mk, "quiet", 5, &config), 0);
	GIVES(mk_ipi_start_rfc_v2(spawned.mk, line, length, &native), -MK_IPI_EINVAL);
	GIVES(mk_ipi_start_rfc_v2(spawned.mk, "mk_ipi_shared=8x", 16, &config), -MK_IPI_EINVAL);
	spawned.maps_left = 0;
	GIVES(mk_ipi_start_rfc_v2(spawned.mk, line, length, &config), -MK_IPI_ENOMEM);
	spawned.maps_left = -1;
	mk_ipi_interrupt(spawned.mk);
	/* mk_ipi_start needs two addresses. The value of mk_ipi_shared= alone does not say where the directory is. */
	GIVES(mk_ipi_start(spawned.mk, "64M", 3), -MK_IPI_ENODEV);
	/* The value alone, as a kernel's own parser of the command line returns it. */
	GIVES(mk_ipi_start_rfc_v2(spawned.mk, strchr(line, '=') + 1, strlen(strchr(line, '=') + 1), &config), 1);
	GIVES(mk_ipi_register(spawned.mk, 1, count, NULL, &handler), 0);
	GIVES(mk_ipi_identify(host.mk, 0, 1), 0);
	calls = 0;
	GIVES(mk_ipi_send(host.mk, 2, 1, "x", 1, NULL), 0);
	machine_run();
	GIVES(calls, 1);
}

void test_directory(void)
{
	parameters();
	write_all(MK_IPI_RFC_V2);
	errors_of_the_writer();
	readers();
	starts();
	comes_back();
	end();
	write_all(MK_IPI_RFC_V2);
	old_start();
	end();
}
