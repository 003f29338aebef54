/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Adding instances: after each error nothing stays allocated or mapped. Also exclusive slots, and the claims of dead kernels. */
#include "machine.h"

#include <string.h>

static struct kernel a, b;

/* Checks that both calls that add an instance refuse this config. */
static void is_refused(struct mk_ipi_instance config)
{
	unsigned pages = pages_used();

	GIVES(mk_ipi_create_instance(a.mk, &config, NULL), -MK_IPI_EINVAL);
	GIVES(mk_ipi_attach_instance(a.mk, &config, ARENA_PHYS + 100 * PAGE, 64 * PAGE), -MK_IPI_EINVAL);
	GIVES(pages_used(), pages);
	GIVES(a.maps, 0);
}

static void bad_configs(uint32_t layout)
{
	const struct mk_ipi_instance good = config_of(1, &a.cpu, layout, 0);
	static uint64_t many[MK_IPI_MAX_ENTRY_CPUS + 1] = { 1 };
	struct mk_ipi_instance bad;

#define BAD(change) (bad = good, change, is_refused(bad))
	BAD(bad.id = -1);
	BAD(bad.id = 256);
	BAD(bad.incarnation = 0);
	BAD(bad.vector = 0x1f);
	BAD(bad.vector = 0xff);
	BAD(bad.vector = 0x1e0);
	BAD(bad.layout = 0);
	BAD(bad.layout = 3);
	BAD(bad.nr_cpus = 0);
	BAD((bad.cpus = many, bad.nr_cpus = MK_IPI_MAX_ENTRY_CPUS + 1, bad.doorbell_cpu = 1));
	BAD(bad.nr_cpus = UINT32_MAX);
	BAD(bad.doorbell_cpu = 77);
	if (layout == MK_IPI_RFC_V2) {
		BAD(bad.slots = 5);
		BAD(bad.slots = 0);
	} else {
		BAD(bad.lanes = 257);
		BAD(bad.lines = 12);
		BAD(bad.lines = 4);
		BAD(bad.lines = 8192);
		BAD(bad.lines = 0);
		BAD(bad.max_len = 4097);
		BAD(bad.max_len = 0);
		/* 552 bytes need ten lines, and a lane has eight. */
		BAD(bad.max_len = 552);
		BAD(bad.lanes = 0);
	}
#undef BAD
}

/* Copies a region to another address. Returns that address. */
static uint64_t copy_of(struct mk_ipi_range region)
{
	uint64_t copy = pages_alloc(region.len);

	memcpy(at_phys(copy), at_phys(region.start), region.len);
	return copy;
}

static void bad_moments(uint32_t layout)
{
	struct mk_ipi_instance config = config_of(1, &a.cpu, layout, 0);
	struct mk_ipi_range made = { 0, 0 };
	uint64_t copy;
	int left;

	a.no_pool = 1;
	GIVES(mk_ipi_create_instance(a.mk, &config, &made), -MK_IPI_ENODEV);
	a.no_pool = 0, a.pool_empty = 1;
	GIVES(mk_ipi_create_instance(a.mk, &config, &made), -MK_IPI_ENOMEM);
	a.pool_empty = 0;
	/* Each of the mappings fails in turn: all memory is given back. */
	for (left = 0; left < (layout == MK_IPI_NATIVE ? 4 : 1); left++) {
		a.maps_left = left;
		GIVES(mk_ipi_create_instance(a.mk, &config, &made), -MK_IPI_ENOMEM);
		GIVES(a.maps, 0);
		GIVES(a.pages, 0);
	}
	a.maps_left = -1;
	GIVES(made.len, 0);
	GIVES(mk_ipi_create_instance(a.mk, &config, &made), 0);
	CHECK(made.len > 0 && made.start % PAGE == 0);
	GIVES(mk_ipi_create_instance(a.mk, &config, NULL), -MK_IPI_EEXIST);
	GIVES(mk_ipi_attach_instance(a.mk, &config, made.start, made.len), -MK_IPI_EEXIST);
	config.id = 3;
	GIVES(mk_ipi_attach_instance(a.mk, &config, made.start + 8, made.len), -MK_IPI_EINVAL);
	GIVES(mk_ipi_attach_instance(a.mk, &config, made.start, 200), -MK_IPI_EINVAL);
	GIVES(mk_ipi_attach_instance(a.mk, &config, made.start, 1ull << 53), -MK_IPI_EINVAL);
	GIVES(mk_ipi_attach_instance(a.mk, &config, 0, PAGE), layout == MK_IPI_NATIVE ? -MK_IPI_ENOMEM : -MK_IPI_ENOMEM);
	/* The range is the region of another instance. */
	GIVES(mk_ipi_attach_instance(a.mk, &config, made.start, made.len), -MK_IPI_EINVAL);
	copy = copy_of(made);
	GIVES(mk_ipi_attach_instance(a.mk, &config, copy, made.len), 0);
	GIVES(mk_ipi_destroy_instance(a.mk, 3), 0);
	GIVES(mk_ipi_destroy_instance(a.mk, -1), -MK_IPI_EINVAL);
	pages_free(copy, made.len);
	if (MK_IPI_MAX_INSTANCES < 256) {
		config.id = MK_IPI_MAX_INSTANCES;
		GIVES(mk_ipi_create_instance(a.mk, &config, NULL), -MK_IPI_ENOMEM);
		GIVES(mk_ipi_attach_instance(a.mk, &config, 0, 0), -MK_IPI_ENOMEM);
		GIVES(mk_ipi_send(a.mk, config.id, 1, "x", 1, NULL), -MK_IPI_EINVAL);
	}
}

/* Memory that is not a native region, and a region that has another geometry than the config. */
static void bad_stamps(void)
{
	struct mk_ipi_instance config = config_of(3, &a.cpu, MK_IPI_NATIVE, 0);
	struct mk_ipi_range made;
	uint64_t magic;

	GIVES(mk_ipi_create_instance(a.mk, &config, &made), 0);
	made.start = copy_of(made);
	config.id = 4;
	config.lanes = 16;
	GIVES(mk_ipi_attach_instance(a.mk, &config, made.start, made.len), -MK_IPI_EINVAL);
	config.lanes = 8, config.max_len--;
	GIVES(mk_ipi_attach_instance(a.mk, &config, made.start, made.len), -MK_IPI_EINVAL);
	config.lines = config.max_len = 0;
	GIVES(mk_ipi_attach_instance(a.mk, &config, made.start, made.len), -MK_IPI_EINVAL);
	config.lanes = 0;
	magic = load64(made.start);
	store64(made.start, magic + 1);
	GIVES(mk_ipi_attach_instance(a.mk, &config, made.start, made.len), -MK_IPI_EPROTO);
	store64(made.start, magic);
	store64(made.start + 8, load64(made.start + 8) + 1);
	GIVES(mk_ipi_attach_instance(a.mk, &config, made.start, made.len), -MK_IPI_EPROTO);
	store64(made.start + 8, load64(made.start + 8) - 1);
	GIVES(mk_ipi_attach_instance(a.mk, &config, made.start, made.len - PAGE), -MK_IPI_EINVAL);
	GIVES(mk_ipi_attach_instance(a.mk, &config, made.start, made.len), 0);
	GIVES(a.maps, 4);
	GIVES(mk_ipi_destroy_instance(a.mk, 4), 0);
	pages_free(made.start, made.len);
}

static void information(uint32_t layout)
{
	struct mk_ipi_instance_info info;

	link_two(&a, &b, layout, 1);
	memset(&info, 0xff, sizeof(info));
	GIVES(mk_ipi_get_instance(a.mk, 2, &info), 0);
	CHECK(info.region_start >= ARENA_PHYS && info.region_len > 0);
	GIVES(info.doorbell_cpu, b.cpu);
	GIVES(info.incarnation, 1);
	GIVES(info.layout, layout);
	GIVES(info.exclusive, layout == MK_IPI_RFC_V2);
	GIVES(info.vector, VECTOR);
	GIVES(info.reserved, 0);
	GIVES(info.one_doorbell, 0);
	GIVES(a.added, 2);
}

/* A sender has claimed a slot, and died before it published its message. Its claim occupies the slot until the host clears it. */
static void claims(void)
{
	struct mk_ipi_instance_info info;
	struct mk_ipi_stats stats;
	uint64_t size_at;

	GIVES(mk_ipi_get_instance(a.mk, 2, &info), 0);
	size_at = info.region_start + 272 * b.cpu + 8;
	store64(size_at, 0x4d4b000900000007ull);
	GIVES(mk_ipi_send(a.mk, 2, 1, "x", 1, NULL), -MK_IPI_EBUSY);
	GIVES(mk_ipi_clear_claims(a.mk, 9, 6), 0);
	GIVES(mk_ipi_send(a.mk, 2, 1, "x", 1, NULL), -MK_IPI_EBUSY);
	GIVES(mk_ipi_clear_claims(a.mk, 9, 7), 1);
	GIVES(mk_ipi_clear_claims(a.mk, 9, 0), -MK_IPI_EINVAL);
	GIVES(mk_ipi_clear_claims(a.mk, 256, 7), -MK_IPI_EINVAL);
	GIVES(mk_ipi_send(a.mk, 2, 1, "x", 1, NULL), 0);
	/* The doorbell is lost. A poll finds the message. */
	b.pending = 0;
	GIVES(mk_ipi_poll(b.mk), 1);
	GIVES(mk_ipi_poll(b.mk), 0);
	machine_run();
	GIVES(mk_ipi_get_stats(b.mk, &stats), 0);
	GIVES(stats.received, 1);
	GIVES(stats.unhandled, 1);
	GIVES(mk_ipi_get_stats(a.mk, &stats), 0);
	GIVES(stats.sent, 1);
	GIVES(stats.busy, 2);
	b.index = MK_IPI_MAX_CPUS;
	GIVES(mk_ipi_poll(b.mk), -MK_IPI_ERANGE);
	b.index = 0;
	GIVES(mk_ipi_destroy_instance(b.mk, 2), 0);
	GIVES(mk_ipi_poll(b.mk), -MK_IPI_ENODEV);
}

void test_instances(void)
{
	uint32_t layout;

	for (layout = MK_IPI_RFC_V2; layout <= MK_IPI_NATIVE; layout++) {
		kernel_boot(&a, 0, 5, 0);
		if (layout == MK_IPI_NATIVE) {
			/* Before this kernel has an identity, it cannot make a native link. */
			struct mk_ipi_instance config = config_of(1, &a.cpu, layout, 0);

			GIVES(mk_ipi_create_instance(a.mk, &config, NULL), -MK_IPI_EINVAL);
			GIVES(pages_used(), 0);
		}
		GIVES(mk_ipi_identify(a.mk, 0, 1), 0);
		bad_configs(layout);
		bad_moments(layout);
		kernel_end(&a);
		machine_reset();
		kernel_boot(&a, 0, 5, 1);
		kernel_boot(&b, 2, 3, 1);
		information(layout);
		if (layout == MK_IPI_RFC_V2)
			claims();
		kernel_end(&b);
		kernel_end(&a);
		machine_reset();
	}
	kernel_boot(&a, 0, 5, 1);
	bad_stamps();
	kernel_end(&a);
	machine_reset();
}
