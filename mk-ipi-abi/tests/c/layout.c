// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * The RFC v2 layout as a C peer declares it: what the compiler makes of it is printed, a line "name value"
 * each, and compared with the Rust types by c_layout.rs.
 */
#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define MK_MAX_DATA_SIZE 256
#define MK_MAX_INSTANCES 256
#define MK_PFN_IPI_TYPE 0x80000001U
#define MULTIKERNEL_VECTOR 0xea

struct mk_ipi_data {
	int sender_cpu;
	unsigned int type;
	size_t data_size;
	char buffer[MK_MAX_DATA_SIZE];
};

/* One declaration per NR_CPUS: there it is a build-time constant of the kernel. */
#define REGION(n) struct mk_shared_data_##n { struct mk_ipi_data cpu_data[n]; }
REGION(1);
REGION(8);
REGION(64);
REGION(256);
REGION(512);
REGION(8192);

_Static_assert(CHAR_BIT == 8, "a byte has 8 bits");
_Static_assert(sizeof(size_t) == 8 && sizeof(unsigned long) == 8 && sizeof(void *) == 8, "LP64");
_Static_assert(sizeof(struct mk_ipi_data) == 272, "size of a slot");
_Static_assert(_Alignof(struct mk_ipi_data) == 8, "alignment of a slot");
_Static_assert(offsetof(struct mk_ipi_data, sender_cpu) == 0, "sender_cpu");
_Static_assert(offsetof(struct mk_ipi_data, type) == 4, "type");
_Static_assert(offsetof(struct mk_ipi_data, data_size) == 8, "data_size");
_Static_assert(offsetof(struct mk_ipi_data, buffer) == 16, "buffer");
_Static_assert(sizeof(struct mk_shared_data_8192) == 2228224, "size of a region of 8,192");

static void line(const char *name, uint64_t value)
{
	printf("%s %llu\n", name, (unsigned long long)value);
}

#define FIELD(s, f) do { \
		line("offset " #f, offsetof(s, f)); \
		line("size " #f, sizeof(((s *)0)->f)); \
	} while (0)

#define REGION_LINES(n) do { \
		line("region " #n, sizeof(struct mk_shared_data_##n)); \
		line("region-align " #n, _Alignof(struct mk_shared_data_##n)); \
		line("slots-at " #n, offsetof(struct mk_shared_data_##n, cpu_data)); \
		line("last-slot " #n, offsetof(struct mk_shared_data_##n, cpu_data[n - 1])); \
	} while (0)

int main(void)
{
	line("size", sizeof(struct mk_ipi_data));
	line("align", _Alignof(struct mk_ipi_data));
	FIELD(struct mk_ipi_data, sender_cpu);
	FIELD(struct mk_ipi_data, type);
	FIELD(struct mk_ipi_data, data_size);
	FIELD(struct mk_ipi_data, buffer);
	REGION_LINES(1);
	REGION_LINES(8);
	REGION_LINES(64);
	REGION_LINES(256);
	REGION_LINES(512);
	REGION_LINES(8192);
	line("MK_MAX_DATA_SIZE", MK_MAX_DATA_SIZE);
	line("MK_MAX_INSTANCES", MK_MAX_INSTANCES);
	line("MK_PFN_IPI_TYPE", MK_PFN_IPI_TYPE);
	line("MULTIKERNEL_VECTOR", MULTIKERNEL_VECTOR);
	/* mk_send_pfn sends one unsigned long. */
	line("pfn-size", sizeof(unsigned long));
	return fflush(stdout) == 0 ? 0 : 1;
}
