/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The content of the demo's messages. examples/bare-metal/src/payload.rs describes it. All numbers are little endian. */
#include "kernel.h"

/* The length of the shortest payload, in bytes. */
#define MIN 24

static uint64_t table[256];

/* Fills the table for CRC-64/XZ: reflected, polynomial 0x42f0e1eba9ea3693. */
void payload_init(void)
{
	uint64_t crc;
	unsigned int i, bit;

	for (i = 0; i < 256; i++) {
		crc = i;
		for (bit = 0; bit < 8; bit++)
			crc = crc & 1 ? crc >> 1 ^ 0xc96c5795d7870f42ull : crc >> 1;
		table[i] = crc;
	}
}

static uint64_t update(uint64_t crc, const unsigned char *bytes, size_t size)
{
	while (size--)
		crc = table[(crc ^ *bytes++) & 0xff] ^ crc >> 8;
	return crc;
}

static uint64_t checksum(const unsigned char *bytes, size_t size)
{
	return ~update(update(~0ull, bytes, 16), bytes + MIN, size - MIN);
}

/* The pseudo-random generator splitmix64. */
static uint64_t noise(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static void put(unsigned char *to, uint64_t value, size_t size)
{
	for (; size; size--, value >>= 8)
		*to++ = (unsigned char)value;
}

static uint64_t get(const unsigned char *from, size_t size)
{
	uint64_t value = 0;

	while (size--)
		value = value << 8 | from[size];
	return value;
}

void payload_make(struct payload *payload, uint64_t sequence, uint32_t sender)
{
	uint64_t state = sequence ^ (uint64_t)sender << 48;
	size_t size = MIN + noise(&state) % (256 - MIN + 1), at;

	payload->size = size;
	put(payload->bytes, sequence, 8);
	put(payload->bytes + 8, sender, 4);
	put(payload->bytes + 12, size, 4);
	for (at = MIN; at < size; at += 8)
		put(payload->bytes + at, noise(&state), size - at < 8 ? size - at : 8);
	put(payload->bytes + 16, checksum(payload->bytes, size), 8);
}

int payload_check(const unsigned char *bytes, size_t size, uint64_t *sequence, uint32_t *sender)
{
	if (size < MIN || get(bytes + 12, 4) != size || get(bytes + 16, 8) != checksum(bytes, size))
		return 0;
	*sequence = get(bytes, 8);
	*sender = (uint32_t)get(bytes + 8, 4);
	return 1;
}
