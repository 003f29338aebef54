/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A peer written from SPEC.md alone: it uses no line of the library. Clauses are named where they are followed.
 *
 * All access to shared memory is by aligned 64-bit words (O-3).
 */
#include "mk_ipi_peer.h"

#include <string.h>

#define SLOT_WORDS 34 /* L-2: 272 bytes */
#define DATA_SIZE 1
#define BUFFER 2

/* N-3, N-4, N-5, N-6: words */
#define STAMP_CELLS 3
#define HEARTBEAT 8
#define LIFE 9
#define ARMED 16
#define BELL 17
#define CONTROL 32
#define CONTROL_WORDS 16
enum { CREDIT, ANSWER, BASE, LOST_FROM, LOST_TO, BREACH, RECEIVED };
enum { HELLO, STOP, SEEN, WANT, CLEAN, SENT = 16 };
#define LANE_HEADER 32
#define CELL_WORDS 40

static const uint64_t native_magic = 0x54414e4950494b4dull; /* "MKIPINAT" */

static struct mk_ipi_peer_setup setup;
static int rang;

/* A lane of the native link: ours in the other's region, or the other's in ours. */
struct lane {
	uint64_t *region, *control, *hints, *words;
	unsigned id;
	uint64_t cells, next, hello;
	uint64_t until; /* end of the window of a former life, while that is drained; else 0 */
};
static struct lane out, in;

static uint64_t load(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static void store(uint64_t *word, uint64_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
}

static int swap_if(uint64_t *word, uint64_t from, uint64_t to)
{
	return __atomic_compare_exchange_n(word, &from, to, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

static void fence(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static uint64_t *words_at(uint64_t phys)
{
	return (uint64_t *)(void *)((char *)setup.memory + (phys - setup.phys));
}

static void store_bytes(uint64_t *to, const unsigned char *from, size_t size)
{
	size_t i;

	for (i = 0; i < size; i += 8) {
		uint64_t word = 0;

		memcpy(&word, from + i, size - i < 8 ? size - i : 8);
		__atomic_store_n(&to[i / 8], word, __ATOMIC_RELAXED);
	}
}

static void load_bytes(unsigned char *to, const uint64_t *from, size_t size)
{
	size_t i;

	for (i = 0; i < size; i += 8) {
		uint64_t word = __atomic_load_n(&from[i / 8], __ATOMIC_RELAXED);

		memcpy(to + i, &word, size - i < 8 ? size - i : 8);
	}
}

/* ---- RFC v2: chapters L, S, R, X ---- */

static uint64_t *slot_of(const struct mk_ipi_peer_side *side)
{
	/* L-5: by the physical id of the CPU that receives */
	return words_at(side->region) + side->cpu * SLOT_WORDS;
}

static int slot_send(uint32_t type, const unsigned char *data, size_t size)
{
	uint64_t *slot = slot_of(&setup.other);
	/* */
	uint64_t claim = (0x4d4bull << 48) | ((uint64_t)setup.self.id << 32) | setup.self.incarnation;
	size_t i;

	if (size == 0 || size > 256) /* S-1 */
		return -22;
	if (setup.exclusive && !swap_if(&slot[DATA_SIZE], 0, claim))
		return 1;
	if (!setup.exclusive)
		store(&slot[DATA_SIZE], 0);
	fence();
	store(&slot[0], setup.self.cpu | (uint64_t)type << 32); /* S-3 */
	for (i = BUFFER; i < SLOT_WORDS; i++) /* S-4: zeros behind the payload */
		store(&slot[i], 0);
	store_bytes(slot + BUFFER, data, size);
	/* O-2, X-3 */
	if (!setup.exclusive)
		store(&slot[DATA_SIZE], size);
	else if (!swap_if(&slot[DATA_SIZE], claim, size))
		return -116;
	setup.ring(setup.ctx, setup.other.cpu, setup.vector);
	return 0;
}

static int slot_receive(struct mk_ipi_peer_message *message)
{
	uint64_t *slot = slot_of(&setup.self), size, head;

	/* A slot that others overwrite is looked at once for each doorbell: it is never emptied (X-1, H-16). */
	if (!rang && !setup.exclusive)
		return 0;
	rang = 0;
	size = load(&slot[DATA_SIZE]);
	if (size == 0 || size > 256) /* */
		return 0;
	head = load(&slot[0]);
	message->sender_cpu = head & 0xffffffff;
	message->type = (uint32_t)(head >> 32);
	message->size = (uint32_t)size;
	load_bytes(message->bytes, slot + BUFFER, size);
	if (setup.exclusive)
		store(&slot[DATA_SIZE], 0); /* */
	return 1;
}

/* ---- native: chapter N ---- */

static uint64_t pages(uint64_t bytes)
{
	return (bytes + 4095) & ~4095ull;
}

/* The lane of instance `id` in the region at `phys`; 0 if that is no native region (N-1, N-2). */
static int find_lane(struct lane *lane, uint64_t phys, uint64_t len, unsigned id)
{
	uint64_t *region = words_at(phys), lanes, total;

	lanes = load(&region[1]) >> 32;
	lane->cells = load(&region[STAMP_CELLS]) & 0xffffffff;
	if (load(&region[0]) != native_magic || (load(&region[1]) & 0xffff) != 1)
		return 0;
	if (id >= lanes || lanes > 256 || lane->cells < 2 || lane->cells > 1024 || (lane->cells & (lane->cells - 1)))
		return 0;
	total = pages(256 + 128 * lanes) + 4096 + lanes * pages(256 + 320 * lane->cells);
	if (load(&region[2]) != total || total > len)
		return 0;
	lane->region = region;
	lane->control = region + CONTROL + id * CONTROL_WORDS;
	lane->hints = region + pages(256 + 128 * lanes) / 8;
	lane->words = lane->hints + 512 + id * (pages(256 + 320 * lane->cells) / 8);
	lane->id = id;
	return 1;
}

static uint32_t lap_of(const struct lane *lane, uint64_t position)
{
	return (uint32_t)(position / lane->cells + 1); /* N-8 */
}

static uint64_t *cell_of(const struct lane *lane, uint64_t position)
{
	return lane->words + LANE_HEADER + position % lane->cells * CELL_WORDS;
}

/* N-9: no cell of a life that is not first is read before that life has cleaned them. */
static int is_clean(const struct lane *lane)
{
	return !lane->hello || lane->hello >> 48 & 1 || load(&lane->words[CLEAN]) == lane->hello;
}

static int is_published(const struct lane *lane, uint64_t position)
{
	return is_clean(lane) &&
	       (uint32_t)load(cell_of(lane, position)) == lap_of(lane, position);
}

static void clean(uint32_t lap)
{
	uint64_t i;

	for (i = 0; i < out.cells; i++)
		store(cell_of(&out, i), lap);
}

/* N-9: HELLO = incarnation, session, first, 1. A lane of which nobody took note is begun at once, in clean cells. */
static void say_hello(void)
{
	uint64_t before = load(&out.words[HELLO]), answer = load(&out.control[ANSWER]);
	int is_first = !before && !answer && !load(&out.control[BASE]) && !load(&out.control[BREACH]);

	out.hello = setup.self.incarnation | (uint64_t)is_first << 48 | 1ull << 49;
	do {
		before += 1ull << 32;
		out.hello = (out.hello & ~(0xffffull << 32)) | (before & (0xffffull << 32));
	} while (out.hello == answer);
	out.next = is_first ? 0 : UINT64_MAX;
	if (is_first)
		clean(0);
	store(&out.words[HELLO], out.hello);
}

static void ring_if_wanted(void)
{
	uint64_t *hint = &out.hints[out.id / 64], bit = 1ull << out.id % 64;

	/* N-10: a full fence; the hint, and another; ARMED */
	fence();
	if (!(load(hint) & bit)) {
		__atomic_fetch_or(hint, bit, __ATOMIC_SEQ_CST);
		fence();
	}
	if (load(&out.region[ARMED]) == 1)
		setup.ring(setup.ctx, setup.other.cpu, setup.vector);
}

/* Whether this life may send; from where, and in clean cells (N-9). */
static int may_send(void)
{
	if (out.next != UINT64_MAX)
		return 1;
	if (load(&out.control[ANSWER]) != out.hello)
		return 0;
	out.next = load(&out.control[BASE]);
	clean(lap_of(&out, out.next) - 1u);
	store(&out.words[CLEAN], out.hello);
	return 1;
}

static int lane_send(uint32_t type, const unsigned char *data, size_t size)
{
	uint64_t *cell;

	if (size > 256) /* N-7 */
		return -22;
	if (load(&out.control[BREACH]))
		return -71;
	if (!may_send() || out.next - load(&out.control[CREDIT]) >= out.cells) {
		ring_if_wanted();
		return 1;
	}
	cell = cell_of(&out, out.next);
	store_bytes(cell + 2, data, size);
	store(&cell[1], size); /* N-12: our CPU is index 0 of its list */
	store(&out.words[SENT], out.next + 1);
	store(&cell[0], lap_of(&out, out.next) | (uint64_t)type << 32);
	out.next++;
	ring_if_wanted();
	return 0;
}

/* N-11: a restart skips what was not credited, and says so; the incarnation comes last. */
static void begin_receiving(void)
{
	uint64_t stamped = load(&in.region[STAMP_CELLS]), credit = load(&in.control[CREDIT]), to = credit;
	uint64_t before = stamped >> 32;

	in.hello = load(&in.control[ANSWER]);
	store(&in.region[ARMED], 0);
	if (before && before != setup.self.incarnation && in.hello) {
		if (load(&in.words[HELLO]) == in.hello)
			while (to - credit < in.cells && is_published(&in, to))
				to++;
		else
			to = credit + in.cells;
		if (to != credit) {
			if (load(&in.words[SEEN]) >= load(&in.control[LOST_TO]))
				store(&in.control[LOST_FROM], credit);
			store(&in.control[LOST_TO], to);
			store(&in.control[CREDIT], to);
		}
	}
	in.next = to;
	store(&in.region[STAMP_CELLS], in.cells | (uint64_t)setup.self.incarnation << 32);
	store(&in.region[LIFE], setup.self.incarnation);
}

/* N-7: read once, check the copy */
static int take(struct mk_ipi_peer_message *message)
{
	uint64_t *cell = cell_of(&in, in.next), head = load(&cell[0]), about = load(&cell[1]);

	message->size = about & 0xffff;
	message->type = (uint32_t)(head >> 32);
	message->sender_cpu = setup.other.cpu;
	if (message->size > 256 || about >> 16 & 0xffff) /* N-14; the other has one CPU */
		return 0;
	load_bytes(message->bytes, cell + 2, message->size);
	return 1;
}

static void quarantine(uint64_t why)
{
	store(&in.control[BREACH], why);
	store(&in.control[ANSWER], in.hello);
}

/* Another hello: what the life in force published in the window is handed on, the rest skipped; then the answer (N-9). */
static int greet(struct mk_ipi_peer_message *message)
{
	if (!in.until)
		in.until = in.next + in.cells;
	while (in.next < in.until) {
		int good = is_published(&in, in.next) && take(message);

		in.next++;
		if (good)
			return 1;
	}
	in.next = in.until - in.cells;
	in.next = (in.next + 2 * in.cells - 1) / in.cells * in.cells;
	in.until = 0;
	in.hello = load(&in.words[HELLO]);
	store(&in.control[BASE], in.next);
	store(&in.control[CREDIT], in.next);
	store(&in.control[BREACH], 0);
	store(&in.control[ANSWER], in.hello);
	setup.ring(setup.ctx, setup.other.cpu, setup.vector);
	return 0;
}

static int next_message(struct mk_ipi_peer_message *message)
{
	uint64_t hello = load(&in.words[HELLO]);

	if (!in.until && in.hello && is_published(&in, in.next)) {
		if (!take(message)) {
			quarantine(2);
			return 0;
		}
		in.next++;
		store(&in.control[RECEIVED], in.next);
		store(&in.control[CREDIT], in.next);
		return 1;
	}
	if (hello == in.hello)
		return 0;
	if (hello >> 48 & 1 && !in.hello) {
		in.hello = hello;
		store(&in.control[ANSWER], hello);
		return next_message(message);
	}
	return greet(message);
}

static int lane_receive(struct mk_ipi_peer_message *message)
{
	rang = 0;
	store(&in.region[ARMED], 0);
	if (next_message(message))
		return 1;
	/* N-10: armed, hints taken, a full fence, and one more look */
	store(&in.region[ARMED], 1);
	__atomic_exchange_n(&in.hints[in.id / 64], 0, __ATOMIC_SEQ_CST);
	fence();
	if (!next_message(message))
		return 0;
	store(&in.region[ARMED], 0);
	return 1;
}

/* ---- what mk_ipi_test calls ---- */

int mk_ipi_peer_init(const struct mk_ipi_peer_setup *given)
{
	if (given->version != MK_IPI_PEER_VERSION)
		return -71;
	setup = *given;
	rang = 0;
	if (setup.layout == 1)
		return 0;
	if (!find_lane(&out, setup.other.region, setup.other.region_len, (unsigned)setup.self.id) ||
	    !find_lane(&in, setup.self.region, setup.self.region_len, (unsigned)setup.other.id))
		return -71;
	begin_receiving();
	say_hello();
	ring_if_wanted();
	return 0;
}

int mk_ipi_peer_send(uint32_t type, const void *data, size_t size)
{
	return setup.layout == 1 ? slot_send(type, data, size) : lane_send(type, data, size);
}

int mk_ipi_peer_receive(struct mk_ipi_peer_message *message)
{
	return setup.layout == 1 ? slot_receive(message) : lane_receive(message);
}

void mk_ipi_peer_interrupt(void)
{
	rang = 1;
}

void mk_ipi_peer_fini(void)
{
	memset(&out, 0, sizeof(out));
	memset(&in, 0, sizeof(in));
}
