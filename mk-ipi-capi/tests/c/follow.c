/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The directory changes while kernels run: instances are added and removed, regions end, and the host restarts (SPEC D-7 to D-10,
 * N-17).
 */
#include "machine.h"

#include <stdio.h>
#include <string.h>

#define INSTANCES 4u
#define CPUS 512u
#define BOOT_CPU (9ull << 33)

static struct kernel host, spawned, late;
static struct mk_ipi_directory_writer writer;
static uint64_t directory;
static size_t size;

/* The arguments of the last callback, and how many callbacks were called. `has_stopped` returns whether `what` is 1. */
static struct {
	unsigned calls;
	int instance, error;
	uint32_t what;
} last;

static void followed(int instance, uint32_t what, int error, void *ctx)
{
	CHECK(ctx == &last);
	last.calls++;
	last.instance = instance;
	last.what = what;
	last.error = error;
}

static void is_behind(int instance, uint32_t incarnation, void *ctx)
{
	CHECK(ctx == &last && incarnation == 1);
	last.calls++;
	last.instance = instance;
}

static int has_stopped(int instance, uint32_t incarnation, void *ctx)
{
	CHECK(ctx == &last && incarnation == 1);
	last.calls++;
	last.instance = instance;
	return last.what == 1;
}

static struct mk_ipi_record record_of(const struct kernel *k, uint32_t state)
{
	struct mk_ipi_instance_info info;
	struct mk_ipi_record record = { 0 };

	GIVES(mk_ipi_get_instance(host.mk, k->id, &info), 0);
	record.region_start = info.region_start;
	record.region_len = info.region_len;
	record.doorbell_cpu = k->cpu;
	record.instance = k->id;
	record.incarnation = info.incarnation;
	record.state = state;
	record.layout = info.layout;
	record.vector = info.vector;
	record.nr_cpus = 1;
	return record;
}

static void writes(const struct kernel *k, uint32_t state)
{
	struct mk_ipi_record record = record_of(k, state);

	GIVES(mk_ipi_directory_write(&writer, &record, &k->cpu), 0);
}

static int64_t generation(void)
{
	return mk_ipi_directory_generation(at_phys(directory), size);
}

static void makes(struct kernel *k)
{
	struct mk_ipi_instance config = config_of(k->id, &k->cpu, MK_IPI_NATIVE, 0);

	GIVES(mk_ipi_create_instance(host.mk, &config, NULL), 0);
}

static int start(struct kernel *k)
{
	struct mk_ipi_instance_info info;
	char line[128];

	GIVES(mk_ipi_get_instance(host.mk, k->id, &info), 0);
	return mk_ipi_start(k->mk, line,
			    (size_t)snprintf(line, sizeof(line), "mk_ipi_shared=0x%llx mk_ipi_directory=0x%llx",
					     (unsigned long long)info.region_start, (unsigned long long)directory));
}

/* Starts a host and a kernel that it has spawned. The directory names the CPU that booted the machine, and its own address. */
static void begin(void)
{
	uint64_t cpu = 0;

	kernel_boot(&host, 0, 5, 1);
	kernel_boot(&spawned, 1, 1ull << 32, 0);
	kernel_boot(&late, 2, 1ull << 33, 0);
	makes(&host);
	makes(&spawned);
	size = mk_ipi_directory_size(INSTANCES, CPUS);
	directory = pages_alloc(size);
	GIVES(mk_ipi_directory_create(&writer, at_phys(directory), size, INSTANCES, CPUS), 0);
	GIVES(mk_ipi_directory_boot_cpu(at_phys(directory), size, &cpu), 0);
	GIVES(mk_ipi_directory_set_boot_cpu(&writer, BOOT_CPU), 0);
	GIVES(mk_ipi_directory_boot_cpu(at_phys(directory), size, &cpu), 1);
	CHECK(cpu == BOOT_CPU);
	GIVES(mk_ipi_directory_set_boot_cpu(&writer, UINT64_MAX), -MK_IPI_EINVAL);
	GIVES(mk_ipi_directory_set_boot_cpu(NULL, 1), -MK_IPI_EINVAL);
	GIVES(mk_ipi_directory_set_address(&writer, directory), 0);
	GIVES(mk_ipi_directory_set_address(&writer, 0), -MK_IPI_EINVAL);
	GIVES(mk_ipi_directory_set_address(&writer, directory + 8), -MK_IPI_EINVAL);
	GIVES(mk_ipi_directory_set_address(&writer, 1ull << 60), -MK_IPI_EINVAL);
	GIVES(mk_ipi_directory_set_address(NULL, directory), -MK_IPI_EINVAL);
	GIVES(generation(), 0);
	writes(&host, MK_IPI_RUNNING);
	writes(&spawned, MK_IPI_STARTING);
	GIVES(generation(), 2);
	GIVES(start(&spawned), 2);
	machine_run();
	last.calls = 0;
}

static void end(void)
{
	kernel_end(&late);
	kernel_end(&spawned);
	kernel_end(&host);
	pages_free(directory, size);
	machine_reset();
}

/* Another kernel starts and ends. Its region goes back to the pool when no kernel has it mapped any more. */
static void comes_and_goes(void)
{
	begin();
	GIVES(mk_ipi_follow(host.mk, followed, &last), -MK_IPI_ENODEV);
	GIVES(mk_ipi_follow(spawned.mk, followed, &last), 2);
	GIVES(last.calls, 0);
	makes(&late);
	writes(&late, MK_IPI_RUNNING);
	GIVES(start(&late), 3);
	/* `spawned` has not followed the directory to generation 3. Its lane in the host's own region says so. */
	GIVES(mk_ipi_behind(host.mk, 3, is_behind, &last), 1);
	GIVES(last.calls, 1);
	GIVES(last.instance, 1);
	GIVES(mk_ipi_follow(spawned.mk, followed, &last), 3);
	GIVES(last.calls, 2);
	CHECK(last.instance == 2 && last.what == MK_IPI_FOLLOWED_ADDED && last.error == 0);
	GIVES(mk_ipi_behind(host.mk, 3, NULL, NULL), 0);
	machine_run();
	GIVES(mk_ipi_send(spawned.mk, 2, 1, "x", 1, NULL), 0);
	machine_run();
	GIVES(late.nr_unhandled, 1);
	/* The region of `late` ends: each kernel that has it mapped must detach. */
	GIVES(mk_ipi_goodbye(late.mk), 0);
	kernel_end(&late);
	writes(&late, MK_IPI_DEAD);
	writes(&late, MK_IPI_ENDING);
	GIVES(mk_ipi_destroy_instance(host.mk, 2), -MK_IPI_EBUSY);
	GIVES(mk_ipi_follow(spawned.mk, followed, &last), 5);
	CHECK(last.instance == 2 && last.what == MK_IPI_FOLLOWED_REMOVED);
	GIVES(mk_ipi_send(spawned.mk, 2, 1, "x", 1, NULL), -MK_IPI_ESTALE);
	GIVES(mk_ipi_destroy_instance(host.mk, 2), 0);
	kernel_boot(&late, 2, 1ull << 33, 0);
	end();
}

/* A killed kernel cannot say that it no longer has a region mapped. The host says instead that its CPUs have stopped. */
static void killed(void)
{
	begin();
	GIVES(mk_ipi_destroy_stopped(host.mk, 1, NULL, NULL), -MK_IPI_EBUSY);
	last.what = 0;
	GIVES(mk_ipi_destroy_stopped(host.mk, 1, has_stopped, &last), -MK_IPI_EBUSY);
	CHECK(last.calls == 1 && last.instance == 1);
	last.what = 1;
	GIVES(mk_ipi_destroy_stopped(host.mk, 1, has_stopped, &last), 0);
	GIVES(mk_ipi_destroy_stopped(host.mk, 1, has_stopped, &last), -MK_IPI_EINVAL);
	GIVES(mk_ipi_destroy_stopped(NULL, 1, has_stopped, &last), -MK_IPI_EINVAL);
	GIVES(mk_ipi_fini(host.mk), -MK_IPI_EBUSY);
	end();
}

/*
 * Messages that the peer has not confirmed as handled are reported when the link ends. If the region was created again, sends are
 * refused.
 */
static void unsettled(void)
{
	const struct mk_ipi_event *event;
	struct mk_ipi_instance_info info;
	uint64_t first, second;

	begin();
	GIVES(mk_ipi_send(spawned.mk, 0, 1, "x", 1, &first), 0);
	GIVES(mk_ipi_send(spawned.mk, 0, 1, "x", 1, &second), 0);
	GIVES(mk_ipi_destroy_instance(spawned.mk, 0), 0);
	event = kernel_event(&spawned, 0, MK_IPI_EVENT_UNSETTLED);
	CHECK(event && event->after < first && event->number == second && event->ours == 1);
	machine_run();
	end();
	begin();
	GIVES(mk_ipi_get_instance(host.mk, 0, &info), 0);
	/* Word 3 (ATTACHED) in the header of lane 1: 0 means that the region was created again (N-17). */
	store64(info.region_start + PAGE + PAGE + 24, 0);
	GIVES(mk_ipi_send(spawned.mk, 0, 1, "x", 1, NULL), -MK_IPI_ESTALE);
	end();
}

/* An instance that cannot be added is reported by the callback, or by the operation `left_out` if there is no callback. */
static void left_out(void)
{
	struct mk_ipi_record record;
	uint64_t nonsense = pages_alloc(PAGE), cpu = 77;

	begin();
	memset(at_phys(nonsense), 0, PAGE);
	record = record_of(&spawned, MK_IPI_RUNNING);
	record.instance = 3, record.region_start = nonsense, record.region_len = PAGE, record.doorbell_cpu = cpu;
	GIVES(mk_ipi_directory_write(&writer, &record, &cpu), 0);
	GIVES(mk_ipi_follow(spawned.mk, followed, &last), 3);
	CHECK(last.calls == 1 && last.instance == 3 && last.what == MK_IPI_FOLLOWED_LEFT_OUT && last.error == -MK_IPI_EPROTO);
	GIVES(spawned.nr_left_out, 0);
	record.state = MK_IPI_STARTING;
	GIVES(mk_ipi_directory_write(&writer, &record, &cpu), 0);
	GIVES(mk_ipi_follow(spawned.mk, NULL, NULL), 4);
	CHECK(spawned.nr_left_out == 1 && spawned.left_out == 3 && spawned.left_out_error == -MK_IPI_EPROTO);
	/* The sequence is odd: the host is changing the entry. */
	GIVES(mk_ipi_directory_write(&writer, &record, &cpu), 0);
	store64(directory + 64 + 3 * (64 + 8 * CPUS), load64(directory + 64 + 3 * (64 + 8 * CPUS)) | 1);
	GIVES(mk_ipi_follow(spawned.mk, NULL, NULL), -MK_IPI_EAGAIN);
	pages_free(nonsense, PAGE);
	end();
}

/* Checks that a write is refused, and that mk_ipi_directory_conflict gives this reason, instance and CPU. */
static void refused(const struct mk_ipi_record *record, const uint64_t *cpus, int error, uint32_t why, int instance,
		    uint64_t cpu)
{
	struct mk_ipi_conflict conflict;
	int64_t before = generation();

	memset(&conflict, 0xff, sizeof(conflict));
	GIVES(mk_ipi_directory_write(&writer, record, cpus), error);
	GIVES(mk_ipi_directory_conflict(&writer, &conflict), 0);
	GIVES(conflict.why, why);
	GIVES(conflict.instance, instance);
	CHECK(conflict.cpu == cpu);
	GIVES(conflict.incarnation, why == MK_IPI_CONFLICT_LIVE);
	/* Nothing was written. */
	GIVES(generation(), before);
}

static void conflicts(void)
{
	static uint64_t many[MK_IPI_MAX_ENTRY_CPUS];
	struct mk_ipi_conflict conflict;
	struct mk_ipi_record good, bad, read;
	uint64_t copy[CPUS], two[2], i;

	begin();
	makes(&late);
	good = bad = record_of(&late, MK_IPI_RUNNING);
	for (i = 0; i < MK_IPI_MAX_ENTRY_CPUS; i++)
		many[i] = late.cpu + i;
	bad.vector = 0;
	refused(&bad, many, -MK_IPI_EINVAL, MK_IPI_CONFLICT_ENTRY, -1, 0);
	bad = good, bad.instance = INSTANCES;
	refused(&bad, many, -MK_IPI_EINVAL, MK_IPI_CONFLICT_ENTRY, -1, 0);
	bad = good, bad.nr_cpus = CPUS + 1;
	refused(&bad, many, -MK_IPI_EINVAL, MK_IPI_CONFLICT_NR_CPUS, -1, 0);
	bad = good, bad.doorbell_cpu = 77;
	refused(&bad, many, -MK_IPI_EINVAL, MK_IPI_CONFLICT_DOORBELL, -1, 77);
	two[0] = two[1] = late.cpu;
	bad = good, bad.nr_cpus = 2;
	refused(&bad, two, -MK_IPI_EINVAL, MK_IPI_CONFLICT_CPU_TWICE, -1, late.cpu);
	two[1] = spawned.cpu;
	refused(&bad, two, -MK_IPI_EBUSY, MK_IPI_CONFLICT_CPU, 1, spawned.cpu);
	bad = record_of(&host, MK_IPI_RUNNING), bad.instance = 2, bad.doorbell_cpu = late.cpu;
	refused(&bad, many, -MK_IPI_EBUSY, MK_IPI_CONFLICT_REGION, 0, 0);
	bad = good, bad.region_start = directory;
	refused(&bad, many, -MK_IPI_EINVAL, MK_IPI_CONFLICT_ON_DIRECTORY, -1, 0);
	bad = record_of(&spawned, MK_IPI_RUNNING), bad.incarnation++;
	refused(&bad, &spawned.cpu, -MK_IPI_EBUSY, MK_IPI_CONFLICT_LIVE, 1, 0);
	writes(&late, MK_IPI_RUNNING);
	writes(&late, MK_IPI_DEAD);
	refused(&good, many, -MK_IPI_EINVAL, MK_IPI_CONFLICT_OVER, 2, 0);
	/* Writes and reads as many CPUs as the directory has room for. */
	good.incarnation++, good.nr_cpus = CPUS;
	GIVES(mk_ipi_directory_write(&writer, &good, many), 0);
	GIVES(mk_ipi_directory_conflict(&writer, &conflict), 0);
	GIVES(conflict.why, MK_IPI_CONFLICT_NONE);
	GIVES(mk_ipi_directory_read(at_phys(directory), size, 2, &read, NULL, 0), 0);
	GIVES(read.nr_cpus, CPUS);
	GIVES(mk_ipi_directory_read(at_phys(directory), size, 2, &read, copy, CPUS - 1), -MK_IPI_EPROTO);
	GIVES(mk_ipi_directory_read(at_phys(directory), size, 2, &read, copy, CPUS), 0);
	GIVES(memcmp(copy, many, sizeof(copy)), 0);
	GIVES(mk_ipi_directory_has_cpu(at_phys(directory), size, 2, many[CPUS - 1]), 1);
	GIVES(mk_ipi_directory_has_cpu(at_phys(directory), size, 2, many[CPUS]), 0);
	/* If the entry of another instance is invalid, the write is refused, and the reason names that instance. */
	store64(directory + 64 + 8, 7);
	refused(&good, many, -MK_IPI_EPROTO, MK_IPI_CONFLICT_UNREADABLE, 0, 0);
	end();
}

/* The next life of the host continues with the directory of the former life. */
static void takes_over(void)
{
	struct mk_ipi_record record;
	uint64_t cpus[1], cpu;

	begin();
	memset(&writer, 0xff, sizeof(writer));
	GIVES(mk_ipi_directory_take_over(NULL, at_phys(directory), size), -MK_IPI_EINVAL);
	GIVES(mk_ipi_directory_take_over(&writer, NULL, size), -MK_IPI_EINVAL);
	GIVES(mk_ipi_directory_take_over(&writer, at_phys(directory), size - 8), -MK_IPI_EINVAL);
	GIVES(mk_ipi_directory_take_over(&writer, at_phys(directory + PAGE), size - PAGE), -MK_IPI_EPROTO);
	GIVES(mk_ipi_directory_take_over(&writer, at_phys(directory), size), 0);
	GIVES(generation(), 2);
	GIVES(mk_ipi_directory_boot_cpu(at_phys(directory), size, &cpu), 1);
	GIVES(mk_ipi_directory_read(at_phys(directory), size, 1, &record, cpus, 1), 0);
	record.state = MK_IPI_RUNNING;
	GIVES(mk_ipi_directory_write(&writer, &record, cpus), 0);
	GIVES(generation(), 3);
	/* The new writer has read the address of the directory from its header. */
	record.instance = 3, record.region_start = directory, cpus[0] = record.doorbell_cpu = 99;
	refused(&record, cpus, -MK_IPI_EINVAL, MK_IPI_CONFLICT_ON_DIRECTORY, -1, 0);
	GIVES(mk_ipi_directory_generation(at_phys(directory + PAGE), size - PAGE), -MK_IPI_EPROTO);
	GIVES(mk_ipi_directory_generation(NULL, size), -MK_IPI_EINVAL);
	end();
}

/* Calls without an instance of the library, or without a directory. */
static void nothing(void)
{
	GIVES(mk_ipi_follow(NULL, followed, &last), -MK_IPI_EINVAL);
	GIVES(mk_ipi_behind(NULL, 1, is_behind, &last), -MK_IPI_EINVAL);
	GIVES(mk_ipi_directory_conflict(NULL, &(struct mk_ipi_conflict){ 0 }), -MK_IPI_EINVAL);
	kernel_boot(&late, 2, 7, 0);
	GIVES(mk_ipi_behind(late.mk, 1, is_behind, &last), -MK_IPI_EINVAL);
	GIVES(mk_ipi_follow(late.mk, followed, &last), -MK_IPI_ENODEV);
	kernel_end(&late);
	machine_reset();
}

void test_follow(void)
{
	nothing();
	comes_and_goes();
	killed();
	unsettled();
	left_out();
	conflicts();
	takes_over();
}
