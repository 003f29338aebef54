/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A kernel joins a host that has more CPUs than this kernel was built for, with ids that are large and sparse. The directory says
 * which CPUs belong to the host, and the kernel rings only these.
 */
#include "machine.h"

#include <stdio.h>
#include <string.h>

#define MOST 1024u
#define ENTRY_WORDS (8 + MOST)
#define SIZE (64 + 2 * 8 * ENTRY_WORDS)

static struct kernel host, spawned;
static uint64_t directory;
static struct mk_ipi_range of_host, of_spawned;
static unsigned calls;
/* 1: the kernel that joins has NULL as its operation peer_has_cpu. */
static int has_no_op;

static void count(const struct mk_ipi_message *message, void *ctx)
{
	(void)message, (void)ctx;
	calls++;
}

/*
 * Writes the entry of an instance with `nr` CPUs: its own, and `nr - 1` more, whose ids are `step` apart. This follows SPEC.md
 * only, and does not use the library.
 */
static void write_entry(uint64_t *entry, const struct kernel *k, struct mk_ipi_range at, uint32_t nr, uint64_t step)
{
	uint32_t i;

	entry[0] = 2;
	entry[1] = (uint64_t)k->id | 1ull << 32;
	entry[2] = MK_IPI_RUNNING | (uint64_t)MK_IPI_NATIVE << 32;
	entry[3] = (uint64_t)VECTOR << 32;
	entry[4] = at.start;
	entry[5] = at.len;
	entry[6] = k->cpu;
	entry[7] = nr;
	for (i = 0; i < nr; i++)
		entry[8 + i] = k->cpu + i * step;
}

/* Writes a directory of version 1.0, which has no generation, no boot CPU and no address. */
static void write_directory(uint32_t nr, uint64_t step)
{
	uint64_t *words;

	directory = pages_alloc(SIZE);
	words = at_phys(directory);
	memset(words, 0, SIZE);
	memcpy(words, "MKIPIDIR", 8);
	words[1] = 1 | 2ull << 32;
	words[2] = SIZE;
	words[3] = MOST;
	write_entry(words + 8, &host, of_host, nr, step);
	write_entry(words + 8 + ENTRY_WORDS, &spawned, of_spawned, 1, 1);
}

static int start(void)
{
	char line[128];
	int len = snprintf(line, sizeof(line), "mk_ipi_shared=0x%llx mk_ipi_directory=0x%llx",
			   (unsigned long long)of_spawned.start, (unsigned long long)directory);

	return mk_ipi_start(spawned.mk, line, (size_t)len);
}

static void begin(uint64_t host_cpu, uint64_t spawned_cpu)
{
	struct mk_ipi_instance a, b;
	struct mk_ipi_handler *handler;

	kernel_boot(&host, 0, host_cpu, 1);
	machine_no_has_cpu = has_no_op;
	kernel_boot(&spawned, 1, spawned_cpu, 0);
	a = config_of(0, &host.cpu, MK_IPI_NATIVE, 0);
	b = config_of(1, &spawned.cpu, MK_IPI_NATIVE, 0);
	GIVES(mk_ipi_create_instance(host.mk, &a, &of_host), 0);
	GIVES(mk_ipi_create_instance(host.mk, &b, &of_spawned), 0);
	GIVES(mk_ipi_register(host.mk, 1, count, NULL, &handler), 0);
	calls = 0;
}

static void end(void)
{
	/* kernel_end checks that the directory was unmapped too. */
	kernel_end(&spawned);
	kernel_end(&host);
	pages_free(directory, SIZE);
	machine_reset();
}

/* The host moves its doorbell. The kernel rings the new CPU if the directory lists it. */
static void moves(uint64_t cpu, int is_listed)
{
	host.says_of_cpus = 1;
	GIVES(mk_ipi_move_doorbell(host.mk, cpu, VECTOR), 0);
	machine_run();
	kernel_forget(&spawned);
	GIVES(mk_ipi_ring(spawned.mk, 0), 0);
	GIVES(spawned.rung_cpu, is_listed ? cpu : host.cpu);
	GIVES(mk_ipi_tick(spawned.mk, 1, 1), 0);
	machine_run();
	CHECK(is_listed == !kernel_event(&spawned, 0, MK_IPI_EVENT_READ_DIRECTORY));
}

static void joins(uint32_t nr, uint64_t first, uint64_t step, uint64_t spawned_cpu)
{
	begin(first, spawned_cpu);
	write_directory(nr, step);
	GIVES(mk_ipi_follow(spawned.mk, NULL, NULL), -MK_IPI_ENODEV);
	GIVES(start(), 2);
	GIVES(spawned.logged, 0);
	GIVES(spawned.nr_left_out, 0);
	machine_run();
	GIVES(mk_ipi_send(spawned.mk, 0, 1, "x", 1, NULL), 0);
	machine_run();
	GIVES(calls, 1);
	GIVES(mk_ipi_directory_has_cpu(at_phys(directory), SIZE, 0, first + (nr - 1) * step), 1);
	GIVES(mk_ipi_directory_has_cpu(at_phys(directory), SIZE, 0, first + nr * step), 0);
	GIVES(mk_ipi_directory_has_cpu(at_phys(directory), SIZE, 2, first), 0);
	GIVES(mk_ipi_directory_has_cpu(at_phys(directory), SIZE, 256, first), -MK_IPI_EINVAL);
	moves(first + (nr - 1) * step, nr > 1 || first == host.cpu);
	moves(first + nr * step, 0);
	/* The kernel has joined already, and keeps its directory. */
	GIVES(start(), -MK_IPI_EEXIST);
	CHECK(mk_ipi_follow(spawned.mk, NULL, NULL) >= 0);
	end();
}

/* An instance that cannot be added is reported. If this kernel itself cannot be added, the call returns the reason. */
static void left_out(void)
{
	begin(5, 300);
	write_directory(512, 1);
	store64(of_host.start, 0);
	GIVES(start(), 1);
	GIVES(spawned.nr_left_out, 1);
	GIVES(spawned.left_out, 0);
	GIVES(spawned.left_out_error, -MK_IPI_EPROTO);
	end();
	begin(5, 300);
	write_directory(512, 1);
	store64(of_spawned.start, 0);
	GIVES(start(), -MK_IPI_EPROTO);
	GIVES(spawned.logged, 1);
	GIVES(spawned.maps, 0);
	GIVES(mk_ipi_follow(spawned.mk, NULL, NULL), -MK_IPI_ENODEV);
	end();
}

/* If the kernel itself mapped the directory, the library keeps it, and does not unmap it. */
static void by_memory(void)
{
	int maps;

	begin(5, 300);
	write_directory(65, 1);
	GIVES(mk_ipi_join(spawned.mk, of_spawned.start, at_phys(directory), SIZE), 2);
	maps = spawned.maps;
	GIVES(start(), -MK_IPI_EEXIST);
	GIVES(spawned.maps, maps);
	machine_run();
	moves(69, 1);
	end();
}

void test_join(void)
{
	for (has_no_op = 0; has_no_op < 2; has_no_op++) {
		joins(65, 5, 1, 300);
		joins(512, 1, 2, 2);
		joins(MOST, 5ull << 32, 1ull << 33, 7ull << 40);
		joins(1, 5, 1, 300);
	}
	left_out();
	by_memory();
}
