/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Tests a peer: the peer in this program, or one in a shared object. It sends messages of each size in both directions, on both
 * layouts, and checks each byte.
 */
#include "machine.h"
#include "mk_ipi_peer.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static const uint32_t types[] = { MK_IPI_PEER_TYPES };

/* The functions of the peer, in the order of mk_ipi_peer.h. */
static struct {
	int (*init)(const struct mk_ipi_peer_setup *setup);
	int (*send)(uint32_t type, const void *data, size_t size);
	int (*receive)(struct mk_ipi_peer_message *message);
	void (*interrupt)(void);
	void (*fini)(void);
} peer;

static struct kernel ours;
static struct mk_ipi_peer_setup setup;

/* The messages that our callbacks received. */
static struct mk_ipi_peer_message got[64];
static unsigned nr_got;

static void keep(const struct mk_ipi_message *message, void *ctx)
{
	struct mk_ipi_peer_message *to = &got[nr_got % 64];

	CHECK(ctx == &ours);
	CHECK(message->payload && message->size <= sizeof(to->bytes));
	to->type = message->type;
	to->size = (uint32_t)message->size;
	to->sender_cpu = message->sender_cpu;
	memcpy(to->bytes, message->payload, message->size);
	CHECK(message->sender == (setup.layout == MK_IPI_NATIVE ? setup.self.id : -1));
	nr_got++;
}

static void ring_peer(uint64_t cpu)
{
	CHECK(cpu == setup.self.cpu);
	peer.interrupt();
}

static void ring_us(void *ctx, uint64_t cpu, uint32_t vector)
{
	CHECK(ctx == &ours);
	CHECK(cpu == ours.cpu && machine_ring(cpu, vector));
}

/* Our kernel makes both regions. Then the peer begins its first life. */
static void begin(uint32_t layout, uint32_t exclusive)
{
	static const uint64_t cpus[2] = { 5, 3 };
	struct mk_ipi_instance us, them;
	struct mk_ipi_range a, b;
	struct mk_ipi_handler *handler;
	unsigned i;

	kernel_boot(&ours, 0, cpus[0], 1);
	us = config_of(0, &cpus[0], layout, exclusive);
	them = config_of(2, &cpus[1], layout, exclusive);
	GIVES(mk_ipi_create_instance(ours.mk, &us, &a), 0);
	GIVES(mk_ipi_create_instance(ours.mk, &them, &b), 0);
	for (i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		GIVES(mk_ipi_register(ours.mk, types[i], keep, &ours, &handler), 0);
	memset(&setup, 0, sizeof(setup));
	setup = (struct mk_ipi_peer_setup){
		.version = MK_IPI_PEER_VERSION,
		.layout = layout,
		.exclusive = exclusive,
		.slots = us.slots,
		.vector = VECTOR,
		.self = { .id = 2, .incarnation = 1, .cpu = cpus[1], .region = b.start, .region_len = b.len },
		.other = { .id = 0, .incarnation = 1, .cpu = cpus[0], .region = a.start, .region_len = a.len },
		.memory = arena,
		.phys = ARENA_PHYS,
		.len = sizeof(arena),
		.ring = ring_us,
		.ctx = &ours,
	};
	machine_other = ring_peer;
	GIVES(peer.init(&setup), 0);
	nr_got = 0;
}

static void end(void)
{
	/* The peer still says that it has our region mapped. */
	if (setup.layout == MK_IPI_NATIVE)
		GIVES(mk_ipi_destroy_instance(ours.mk, ours.id), -MK_IPI_EBUSY);
	peer.fini();
	kernel_end(&ours);
	machine_reset();
}

static void is_message(const struct mk_ipi_peer_message *m, uint64_t cpu, uint32_t type, size_t size)
{
	static unsigned char expected[MK_IPI_MAX_LEN];

	test_bytes(expected, size);
	GIVES(m->sender_cpu, cpu);
	GIVES(m->type, type);
	GIVES(m->size, size);
	CHECK(m->size <= sizeof(expected) && memcmp(m->bytes, expected, m->size) == 0);
}

static int send_ours(uint32_t type, size_t size)
{
	static unsigned char bytes[MK_IPI_MAX_LEN + 1];

	test_bytes(bytes, size);
	return mk_ipi_send(ours.mk, setup.self.id, type, bytes, size, NULL);
}

static int send_theirs(uint32_t type, size_t size)
{
	static unsigned char bytes[MK_IPI_MAX_LEN + 1];
	int err, tries = 0;

	test_bytes(bytes, size);
	while ((err = peer.send(type, bytes, size)) == 1 && ++tries < 100)
		machine_run();
	return err;
}

static void to_peer(uint32_t type, size_t size)
{
	struct mk_ipi_peer_message m;

	memset(&m, 0xee, sizeof(m));
	GIVES(send_ours(type, size), 0);
	GIVES(peer.receive(&m), 1);
	is_message(&m, ours.cpu, type, size);
	GIVES(peer.receive(&m), 0);
}

static void from_peer(uint32_t type, size_t size)
{
	unsigned before = nr_got;

	GIVES(send_theirs(type, size), 0);
	machine_run();
	GIVES(nr_got, before + 1);
	is_message(&got[before % 64], setup.self.cpu, type, size);
}

static void every_size(uint32_t layout, uint32_t exclusive)
{
	struct mk_ipi_peer_message m;
	size_t size;
	unsigned i;

	begin(layout, exclusive);
	GIVES(peer.receive(&m), 0);
	for (size = layout == MK_IPI_NATIVE ? 0 : 1; size <= 256; size++) {
		to_peer(types[size % 4], size);
		from_peer(types[(size + 1) % 4], size);
	}
	for (i = 0; i < 4; i++) {
		to_peer(types[i], 8);
		from_peer(types[i], 8);
	}
	GIVES(send_ours(1, 257), -MK_IPI_EINVAL);
	CHECK(send_theirs(1, 257) < 0);
	if (layout == MK_IPI_RFC_V2) {
		GIVES(send_ours(1, 0), -MK_IPI_EINVAL);
		CHECK(send_theirs(1, 0) <= 0);
	}
	i = nr_got;
	machine_run();
	GIVES(nr_got, i);
	GIVES(peer.receive(&m), 0);
	end();
}

/* Long messages, in a region that was made for them (native). */
static void long_sizes(void)
{
	size_t size;

	machine_lines = 128, machine_max_len = MK_IPI_MAX_LEN;
	begin(MK_IPI_NATIVE, 0);
	for (size = 0; size <= MK_IPI_MAX_LEN; size += size % 3 ? 1 : 45) {
		to_peer(types[size % 4], size);
		from_peer(types[(size + 1) % 4], size);
	}
	to_peer(0, MK_IPI_MAX_LEN);
	from_peer(1, MK_IPI_MAX_LEN);
	GIVES(send_ours(1, MK_IPI_MAX_LEN + 1), -MK_IPI_EINVAL);
	CHECK(send_theirs(1, MK_IPI_MAX_LEN + 1) < 0);
	end();
}

/* Sends messages until the lane or the slot is full, and then receives all of them in order. Sizes begin at `least`. */
static void full(uint32_t layout, uint32_t expected, unsigned capacity, size_t least)
{
	static unsigned char bytes[256];
	size_t size;
	struct mk_ipi_peer_message m;
	unsigned round, i, before;

	begin(layout, 1);
	for (round = 0; round < 10; round++) {
		for (i = 0; i < capacity; i++)
			GIVES(send_ours(1, least + round + i), 0);
		GIVES(send_ours(1, least), -(int)expected);
		for (i = 0; i < capacity; i++) {
			GIVES(peer.receive(&m), 1);
			is_message(&m, ours.cpu, 1, least + round + i);
		}
		GIVES(peer.receive(&m), 0);
		before = nr_got;
		for (i = 0; i < capacity; i++) {
			size = least + round + i;
			test_bytes(bytes, size);
			GIVES(peer.send(1, bytes, size), 0);
		}
		GIVES(peer.send(1, bytes, least), 1);
		machine_run();
		GIVES(nr_got, before + capacity);
		for (i = 0; i < capacity; i++)
			is_message(&got[(before + i) % 64], setup.self.cpu, 1, least + round + i);
	}
	end();
}

/*
 * The peer ends while messages in both directions are unread, and restarts as another incarnation. No message is lost (native
 * link).
 */
static void restart(void)
{
	struct mk_ipi_peer_message m;
	const struct mk_ipi_event *event;
	unsigned life, before, i;

	begin(MK_IPI_NATIVE, 0);
	/* Our kernel answers the first life of the peer (N-9). */
	from_peer(0, 1);
	for (life = 2; life < 8; life++) {
		to_peer(1, life);
		before = nr_got;
		test_bytes(m.bytes, life);
		GIVES(send_theirs(0, life), 0);
		GIVES(send_ours(1, 3), 0);
		GIVES(send_ours(1, 4), 0);
		peer.fini();
		setup.self.incarnation = life;
		GIVES(peer.init(&setup), 0);
		machine_run();
		GIVES(nr_got, before + 1);
		is_message(&got[before % 64], setup.self.cpu, 0, life);
		/* This life gets the messages that the former life had not read. */
		for (i = 3; i < 5; i++) {
			GIVES(peer.receive(&m), 1);
			is_message(&m, ours.cpu, 1, i);
		}
		GIVES(peer.receive(&m), 0);
		GIVES(mk_ipi_tick(ours.mk, life, 1000), 0);
		event = kernel_event(&ours, setup.self.id, MK_IPI_EVENT_UP);
		CHECK(event && event->incarnation == life);
		/* In the lane of the peer, the messages of this life follow those of its former life. */
		from_peer(0, life);
		event = kernel_event(&ours, setup.self.id, MK_IPI_EVENT_BEGAN);
		CHECK(event && event->incarnation == life && event->theirs == life && event->ours == 1);
		CHECK(!kernel_event(&ours, setup.self.id, MK_IPI_EVENT_IN_DOUBT));
		CHECK(!kernel_event(&ours, setup.self.id, MK_IPI_EVENT_DISCARDED));
		kernel_forget(&ours);
		for (i = 0; i < 20; i++) {
			to_peer(1, 10 * life + i);
			from_peer(0, 10 * life + i);
		}
	}
	end();
}

static int find(const char *path)
{
	static const char *const names[] = { "mk_ipi_peer_init", "mk_ipi_peer_send", "mk_ipi_peer_receive",
					     "mk_ipi_peer_interrupt", "mk_ipi_peer_fini" };
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL), *found[5];
	int i;

	if (!library) {
		printf("%s\n", dlerror());
		return 0;
	}
	for (i = 0; i < 5; i++) {
		found[i] = dlsym(library, names[i]);
		if (!found[i]) {
			printf("%s does not export %s\n", path, names[i]);
			return 0;
		}
	}
	_Static_assert(sizeof(found) == sizeof(peer), "one pointer for each call");
	memcpy(&peer, found, sizeof(peer));
	return 1;
}

static void rfc_v2(void)
{
	every_size(MK_IPI_RFC_V2, 0);
}

static void rfc_v2_exclusive(void)
{
	every_size(MK_IPI_RFC_V2, 1);
	full(MK_IPI_RFC_V2, MK_IPI_EBUSY, 1, 1);
}

static void native(void)
{
	every_size(MK_IPI_NATIVE, 0);
	/* N-8: 48 bytes take one line, 217 take five; a lane has eight lines. */
	full(MK_IPI_NATIVE, MK_IPI_ENOSPC, 8, 1);
	full(MK_IPI_NATIVE, MK_IPI_ENOSPC, 1, 217);
}

/* The parts of the protocol. A peer can implement any of them without the others. */
static const struct {
	const char *name, *what;
	void (*test)(void);
} parts[] = {
	{ "rfc-v2", "RFC v2, slots that are overwritten", rfc_v2 },
	{ "rfc-v2-exclusive", "RFC v2, exclusive slots", rfc_v2_exclusive },
	{ "native", "the native link, messages of up to 256 bytes", native },
	{ "native-long", "the native link, messages of up to 4096 bytes", long_sizes },
	{ "native-restart", "the native link, restarts of the peer while messages are unread", restart },
};
#define NR_PARTS (sizeof(parts) / sizeof(parts[0]))

/* Whether this name is in the list. The names in the list are separated by commas. */
static int is_listed(const char *list, const char *name)
{
	size_t length = strlen(name);

	for (; list; list = strchr(list, ','), list += list != NULL)
		if (strncmp(list, name, length) == 0 && (list[length] == ',' || list[length] == '\0'))
			return 1;
	return 0;
}

/* Whether all names in the list are names of parts. If not, prints the names of the parts. */
static int are_parts(const char *list)
{
	size_t i, length = 0, all = strlen(list);

	for (i = 0; i < NR_PARTS; i++)
		length += is_listed(list, parts[i].name) ? strlen(parts[i].name) + 1 : 0;
	if (length == all + 1)
		return 1;
	printf("%s: expected a list of some of these names, each at most once:\n", list);
	for (i = 0; i < NR_PARTS; i++)
		printf("  %-18s %s\n", parts[i].name, parts[i].what);
	return 0;
}

int test_peer(const char *path, const char *speaks)
{
	size_t i;

	if (speaks && !are_parts(speaks))
		return 0;
	if (path && !find(path))
		return 0;
	if (!path) {
		peer.init = mk_ipi_peer_init;
		peer.send = mk_ipi_peer_send;
		peer.receive = mk_ipi_peer_receive;
		peer.interrupt = mk_ipi_peer_interrupt;
		peer.fini = mk_ipi_peer_fini;
	}
	for (i = 0; i < NR_PARTS; i++) {
		if (speaks && !is_listed(speaks, parts[i].name))
			printf("not tested: %s, %s\n", parts[i].name, parts[i].what);
		else
			parts[i].test();
	}
	return 1;
}
