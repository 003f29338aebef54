// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * A C peer of generation RFC v2. A region has NR_CPUS slots.
 *
 *   peer receive CPU   reads regions from stdin. For each region it prints one line: the message that the kernel on CPU
 *                      delivers, or "nothing"
 *   peer send CPU      sends to CPU, and writes the region to stdout after each send. The messages have 0 to 256 bytes,
 *                      then 257 bytes (this sender does not check the size), then 10 bytes from a null pointer
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MK_MAX_DATA_SIZE 256
#define NR_CPUS 8
#define SENDER_CPU 5
#define MESSAGE_TYPE 0xfedcba98U

struct mk_ipi_data {
	int sender_cpu;
	unsigned int type;
	size_t data_size;
	char buffer[MK_MAX_DATA_SIZE];
};

struct mk_shared_data {
	struct mk_ipi_data cpu_data[NR_CPUS];
};

static struct mk_shared_data region;

static int receive(int cpu)
{
	while (fread(&region, sizeof(region), 1, stdin) == 1) {
		const struct mk_ipi_data *slot = &region.cpu_data[cpu];
		size_t i;

		if (slot->data_size == 0 || slot->data_size > MK_MAX_DATA_SIZE) {
			puts("nothing");
			continue;
		}
		printf("%d %u %zu ", slot->sender_cpu, slot->type, slot->data_size);
		for (i = 0; i < slot->data_size; i++)
			printf("%02x", (unsigned char)slot->buffer[i]);
		putchar('\n');
	}
	return ferror(stdin) ? 1 : 0;
}

/* Stores a message as a C sender does, but without the check of its size. At most 256 bytes are copied to the buffer. */
static int put(int cpu, const char *data, size_t size)
{
	struct mk_ipi_data *slot = &region.cpu_data[cpu];

	memset(slot, 0, sizeof(*slot));
	slot->data_size = size;
	slot->sender_cpu = SENDER_CPU;
	slot->type = MESSAGE_TYPE;
	if (data && size > 0)
		memcpy(slot->buffer, data, size < MK_MAX_DATA_SIZE ? size : MK_MAX_DATA_SIZE);
	return fwrite(&region, sizeof(region), 1, stdout) == 1;
}

static int send_all(int cpu)
{
	char data[MK_MAX_DATA_SIZE + 1];
	size_t size, i;

	for (size = 0; size <= MK_MAX_DATA_SIZE + 1; size++) {
		for (i = 0; i < size; i++)
			data[i] = (char)(unsigned char)(31 * i + 7 * size + 1);
		if (!put(cpu, data, size))
			return 1;
	}
	return put(cpu, NULL, 10) ? 0 : 1;
}

int main(int argc, char **argv)
{
	int cpu = argc == 3 ? atoi(argv[2]) : -1;
	int status = 2;

	if (cpu >= 0 && cpu < NR_CPUS && strcmp(argv[1], "receive") == 0)
		status = receive(cpu);
	else if (cpu >= 0 && cpu < NR_CPUS && strcmp(argv[1], "send") == 0)
		status = send_all(cpu);
	return fflush(stdout) == 0 ? status : 1;
}
