/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A peer that was written from SPEC.md alone. It uses no code of the library. The comments name the clauses of SPEC.md.
 *
 * All access to shared memory is by aligned 64-bit words (O-3).
 */
#include "mk_ipi_peer.h"

#include <string.h>

#define LIFE_OVER (1ull << 32) /* N-4 */
#define SLOT_WORDS 34 /* L-2: 272 bytes */
#define DATA_SIZE 1
#define BUFFER 2

static struct mk_ipi_peer_setup setup;
static int rang;

/* N-3: a relaxed load, then an acquire fence, since a mapping may be read-only */
static uint64_t load(const uint64_t *word)
{
	uint64_t value = __atomic_load_n(word, __ATOMIC_RELAXED);

	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return value;
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
	/* L-5: the index of the slot is the physical id of the CPU that receives */
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
	for (i = BUFFER; i < SLOT_WORDS; i++) /* S-4: zeros after the payload */
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

	/* A slot that others overwrite is read once for each doorbell, because it is never emptied (X-1, H-16). */
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

/* N-1, N-4: words of a region */
enum { MAGIC, VERSION_LANES, TOTAL, LINES_MOST, HEARTBEAT = 8, LIFE, ARMED = 16, BELL };
enum { CREDIT, ANSWER, BASE, HANDED, BREACH, DOUBTS, DOUBT }; /* N-4: words of a control line */
enum { HELLO, STOP, WANT, ATTACHED }; /* N-5: words of a lane's header */

#define NATIVE_MAGIC 0x54414e4950494b4dull /* "MKIPINAT" */
/* N-6: a tag */
#define LAP_MASK ((1u << 30) - 1)
#define TAG_SET (1u << 30)
#define TAG_FURTHER (1u << 31)

/* N-5: the bits of a hello. Without the bits of its phase, a hello identifies a session of a life. */
#define FIRST (1ull << 48)
#define BEGIN (2ull << 48)
#define CLEAN (3ull << 48)
#define PHASE CLEAN /* the mask of the phase */
#define HELLO_SET (1ull << 50)
enum { BAD_TAG = 1, BAD_LENGTH, BAD_HELLO }; /* N-14: values of BREACH */
enum { NOTHING, MESSAGE, BAD }; /* results of find() */

struct lane {
	uint64_t *region, *control, *header, *lines;
	uint64_t count; /* K */
	uint32_t most;  /* largest payload in bytes */
};
/* Our lane, in the region of the other side. */
static struct {
	struct lane lane;
	uint64_t hello, tail, credit;
	int was_answered;
} out;
/* The lane of the other side, in our region. */
static struct {
	struct lane lane;
	uint64_t next;
	uint64_t answer, seen; /* what we stored to ANSWER; the HELLO that was handled last */
	uint64_t answered;     /* the last WANT that was answered */
	int quarantine; /* N-14 */
	int confirmed;  /* this life has read a message or a hello, so `next` is right (N-11) */
	uint32_t why;
} in;

static uint64_t pages(uint64_t bytes) /* N-2 */
{
	return (bytes + 4095) & ~4095ull;
}

static uint64_t lines_of(uint64_t size) /* N-6 */
{
	return size <= 48 ? 1 : 1 + (size - 48 + 55) / 56;
}

/* N-1, N-2: finds the lane of instance `id` in the region at `phys`. Returns 0 if this memory is not a region of this version. */
static int find_lane(struct lane *lane, uint64_t phys, uint64_t len, unsigned id)
{
	uint64_t stamp[4], lanes, control, size;
	int i;

	lane->region = words_at(phys);
	for (i = 0; i < 4; i++)
		stamp[i] = len < 4096 ? 0 : load(&lane->region[i]);
	lanes = stamp[VERSION_LANES] >> 32;
	lane->count = stamp[LINES_MOST] & 0xffffffff;
	lane->most = (uint32_t)(stamp[LINES_MOST] >> 32);
	control = pages(256 + 128 * lanes);
	size = pages(256 + 64 * lane->count);
	lane->control = lane->region + 32 + id * 16;
	lane->header = lane->region + (control + id * size) / 8;
	lane->lines = lane->header + 32;
	return stamp[MAGIC] == NATIVE_MAGIC && (stamp[VERSION_LANES] & 0xffff) == 2 && id < lanes && lanes <= 256 &&
	       lane->count >= 8 && lane->count <= 4096 && !(lane->count & (lane->count - 1)) && lane->most >= 1 &&
	       lane->most <= 4096 && lines_of(lane->most) <= lane->count && stamp[TOTAL] == control + lanes * size &&
	       stamp[TOTAL] <= len;
}

/* N-8 */
static uint64_t *line_at(const struct lane *lane, uint64_t position)
{
	return lane->lines + position % lane->count * 8;
}

static uint32_t lap_of(const struct lane *lane, uint64_t position)
{
	return (uint32_t)(position / lane->count) & LAP_MASK;
}

/* N-12: rings the other side at the vector in its BELL, if the CPU in BELL is its own. Otherwise at the vector of the setup. */
static void ring(void)
{
	uint64_t bell = load(&out.lane.region[BELL]);
	uint32_t vector = bell >> 48 & 0xff;
	int is_good = bell >> 63 && bell << 16 >> 16 == setup.other.cpu && vector >= 0x20 && vector <= 0xfe;

	setup.ring(setup.ctx, setup.other.cpu, is_good ? vector : setup.vector);
}

/* N-8, step 4: rings the other side if ARMED in its region is 1. */
static void ring_if_armed(void)
{
	fence();
	if (load(&out.lane.region[ARMED]) == 1)
		ring();
}

/* ---- the sender ---- */

static void clean_lines(void)
{
	uint64_t i;

	for (i = 0; i < out.lane.count; i++)
		store(line_at(&out.lane, i), 0);
}

static void say(uint64_t phase)
{
	out.hello = (out.hello & ~PHASE) | phase;
	store(&out.lane.header[HELLO], out.hello);
	ring_if_armed();
}

/* N-9: begins a life; or, if sends are Broken, begins a new session of this life. */
static void say_hello(void)
{
	uint64_t before = load(&out.lane.header[HELLO]), answer = load(&out.lane.control[ANSWER]);
	uint16_t session = (uint16_t)(before >> 32);

	do
		session++;
	while (session == (uint16_t)(answer >> 32));
	out.hello = HELLO_SET | (uint64_t)session << 32 | setup.self.incarnation;
	out.tail = out.credit = 0;
	out.was_answered = 0;
	store(&out.lane.header[WANT], 0);
	if (before || answer || load(&out.lane.control[BREACH]) || load(&out.lane.control[CREDIT])) {
		say(BEGIN);
		return;
	}
	/* The lane was never used. */
	clean_lines();
	say(FIRST); /* it executes a full fence */
	answer = load(&out.lane.control[ANSWER]);
	if (answer && (answer & ~PHASE) != (out.hello & ~PHASE))
		say_hello();
}

/* N-9: handles ANSWER in each phase. Returns 1 if this life may send, 0 if not. If sends are Broken, begins a new session. */
static int look_at_answer(void)
{
	uint64_t answer = load(&out.lane.control[ANSWER]), begin = (out.hello & ~PHASE) | BEGIN;
	uint64_t phase = out.hello & PHASE;

	if (phase == BEGIN) {
		if (answer == begin) {
			clean_lines();
			say(CLEAN);
		}
		return 0;
	}
	if (answer == out.hello) {
		if (phase == CLEAN && !out.was_answered)
			out.tail = out.credit = load(&out.lane.control[BASE]);
		out.was_answered = 1;
		return 1;
	}
	if (!out.was_answered && (answer == begin || (phase == FIRST && !answer)))
		return phase == FIRST;
	say_hello();
	return 0;
}

/* N-8, step 1. Returns 1 if this number of lines fits into the lane; 0: Full; -1: Broken. */
static int have_room(uint64_t lines)
{
	uint64_t credit = load(&out.lane.control[CREDIT]);

	if (credit < out.credit || credit > out.tail)
		return -1;
	out.credit = credit;
	return out.tail + lines - credit <= out.lane.count;
}

static int lane_send(uint32_t type, const unsigned char *data, size_t size)
{
	uint64_t position, lines, *first;
	size_t done = 48, part;
	int room;

	if (size > out.lane.most || type >= 0xffff0000u) /* N-7 */
		return -22;
	if (!look_at_answer())
		return 1;
	if (load(&out.lane.control[BREACH])) /* N-14 */
		return -71;
	lines = lines_of(size);
	room = have_room(lines);
	if (!room) {
		/* N-8: store WANT, execute a full fence, read CREDIT again; then step 4, so that the receiver reads WANT */
		store(&out.lane.header[WANT], out.tail + lines - out.lane.count);
		fence();
		room = have_room(lines);
		if (!room)
			ring_if_armed();
	}
	if (room < 0)
		say_hello();
	if (room <= 0)
		return 1;

	/* N-8, steps 2 to 4. Only one thread sends, so TAIL needs no compare-and-swap. */
	first = line_at(&out.lane, out.tail);
	for (position = out.tail + 1; position < out.tail + lines; position++, done += part) {
		uint64_t *line = line_at(&out.lane, position);

		part = size - done < 56 ? size - done : 56;
		__atomic_store_n(&line[0], lap_of(&out.lane, position) | TAG_SET | TAG_FURTHER, __ATOMIC_RELAXED);
		store_bytes(&line[1], data + done, part);
	}
	__atomic_store_n(&first[1], size | setup.self.cpu << 32, __ATOMIC_RELAXED);
	store_bytes(&first[2], data, size < 48 ? size : 48);
	store(&first[0], lap_of(&out.lane, out.tail) | TAG_SET | (uint64_t)type << 32);
	out.tail += lines;
	ring_if_armed();
	return 0;
}

/* ---- the receiver ---- */

static void set_answer(uint64_t answer)
{
	in.answer = answer;
	store(&in.lane.control[ANSWER], answer);
	ring_if_armed();
}

/* N-10, step 2: stores HANDED and CREDIT. There are no handlers to call in between: this peer only copies messages. */
static void go_on_at(uint64_t position)
{
	in.next = position;
	store(&in.lane.control[HANDED], position);
	store(&in.lane.control[CREDIT], position);
	in.confirmed = 1;
}

/* Whether this receiver reads the lines: a life of the sender was answered, and is not in quarantine. */
static int is_read(void)
{
	uint64_t phase = in.answer & PHASE;

	return !in.quarantine && (phase == FIRST || phase == CLEAN);
}

/*
 * N-14: puts the lane into quarantine. But if a former life of this kernel may have caused the fault, the sender is disowned
 * instead (N-9, N-11): ANSWER becomes a Begin of a session that is not in HELLO. After that this receiver answers only another
 * HELLO, or a Begin.
 */
static void accuse(uint32_t why)
{
	uint64_t hello = load(&in.lane.header[HELLO]);

	if (in.confirmed) {
		in.quarantine = 1;
		store(&in.lane.control[BREACH], why);
		ring();
	} else {
		if ((hello & PHASE) == BEGIN)
			in.seen = 0;
		set_answer(HELLO_SET | BEGIN | ((hello + (1ull << 32)) & 0xffffffffffffull));
	}
}

/* N-11 */
static void begin_receiving(void)
{
	uint64_t *control = in.lane.control, credit = load(&control[CREDIT]), handed = load(&control[HANDED]);
	uint64_t life = load(&in.lane.region[LIFE]), doubts = load(&control[DOUBTS]);

	store(&in.lane.region[ARMED], 0);
	store(&in.lane.region[BELL], 0);
	in.answer = in.seen = load(&control[ANSWER]);
	in.quarantine = load(&control[BREACH]) != 0;
	in.confirmed = 0;
	if ((credit | handed) >> 61 || handed - credit > in.lane.count) {
		/* N-11: the values are wrong. */
		handed = in.lane.count;
		accuse(0);
	} else if (life && (uint32_t)life != setup.self.incarnation && handed > credit &&
		   (!doubts || load(&control[DOUBT + (doubts - 1) % 4]) != handed)) {
		/* Step 1: the message that was handed out last is in doubt. */
		store(&control[DOUBT + doubts % 4], handed);
		store(&control[DOUBTS], doubts + 1);
	}
	/* This life hands out the unread messages. Step 2 is only for lives that refuse old messages. */
	go_on_at(handed);
	in.confirmed = !in.answer;
	store(&in.lane.region[HEARTBEAT], 0); /* this life has no clock */
	store(&in.lane.region[LIFE], setup.self.incarnation);
}

/* N-7: reads the message at `position` once into private memory; only the copy is checked and used. It must end before `end`. */
static int find(uint64_t position, uint64_t end, struct mk_ipi_peer_message *message)
{
	const uint64_t *line = line_at(&in.lane, position);
	uint64_t head = load(&line[0]), about, lines, i;
	uint32_t ahead = ((uint32_t)head - lap_of(&in.lane, position)) & LAP_MASK;
	size_t done = 48, part;

	if (!(head & TAG_SET) || ahead > 1u << 29)
		return NOTHING;
	in.why = BAD_TAG;
	if (ahead || head & TAG_FURTHER)
		return BAD;
	about = __atomic_load_n(&line[1], __ATOMIC_RELAXED);
	lines = lines_of(about & 0xffffffff);
	if ((about & 0xffffffff) > in.lane.most) {
		in.why = BAD_LENGTH;
		return BAD;
	}
	if (position + lines > end)
		return BAD;
	message->type = (uint32_t)(head >> 32);
	message->size = (uint32_t)about;
	message->sender_cpu = about >> 32; /* N-12: it is not checked */
	load_bytes(message->bytes, &line[2], message->size < 48 ? message->size : 48);
	for (i = 1; i < lines; i++, done += part) {
		line = line_at(&in.lane, position + i);
		if (load(&line[0]) != (lap_of(&in.lane, position + i) | TAG_SET | TAG_FURTHER))
			return BAD;
		part = message->size - done < 56 ? message->size - done : 56;
		load_bytes(message->bytes + done, &line[1], part);
	}
	return MESSAGE;
}

/* N-9: answers a life, and begins to read its lines. */
static void begin_at(uint64_t position, uint64_t hello)
{
	store(&in.lane.control[BASE], position);
	go_on_at(position);
	store(&in.lane.control[BREACH], 0);
	in.quarantine = 0;
	in.answered = 0;
	in.seen = hello;
	set_answer(hello);
}

/* N-9, N-14: handles a hello that differs from ANSWER. Returns 1 if it has read a message of the former life. */
static int answer_hello(uint64_t hello, struct mk_ipi_peer_message *message)
{
	uint64_t phase = hello & PHASE, begin = (hello & ~PHASE) | BEGIN, position, end;

	if ((hello & ~PHASE) >> 48 != HELLO_SET >> 48 || !phase || !(uint32_t)hello ||
	    (phase == FIRST && in.answer && in.answer != begin)) {
		in.seen = hello;
		accuse(BAD_HELLO);
		return 0;
	}
	if (phase == FIRST) {
		set_answer(begin); /* it executes a full fence */
		if (load(&in.lane.header[HELLO]) == hello)
			begin_at(0, hello);
		return 0;
	}
	if (phase == CLEAN && in.answer == begin) {
		begin_at(in.next, hello);
		return 0;
	}
	/* A Begin; or a Clean whose Begin was not answered: it is answered as a Begin now, and handled again later. */
	end = in.next + in.lane.count;
	for (position = in.next; is_read() && position < end; position++) {
		if (find(position, end, message) == MESSAGE) {
			go_on_at(position + lines_of(message->size));
			return 1;
		}
	}
	if (phase == BEGIN)
		in.seen = hello;
	set_answer(begin);
	return 0;
}

/* Returns 1 if it has read a message; 0 if there is nothing; -1 if it has handled something else: look again. */
static int look(struct mk_ipi_peer_message *message)
{
	uint64_t hello, want;
	int found = is_read() ? find(in.next, in.next + in.lane.count, message) : NOTHING;

	if (found == MESSAGE)
		go_on_at(in.next + lines_of(message->size));
	else if (found == BAD)
		accuse(in.why);
	want = load(&in.lane.header[WANT]);
	if (want > in.answered && want <= in.next) {
		in.answered = want;
		ring();
	}
	if (found != NOTHING)
		return found == MESSAGE ? 1 : -1;
	hello = load(&in.lane.header[HELLO]);
	if (!hello || hello == in.seen)
		return 0;
	return answer_hello(hello, message) ? 1 : -1;
}

/* N-10: a drain with a budget of one message or 16 rounds */
static int lane_receive(struct mk_ipi_peer_message *message)
{
	int armed = 0, budget = 16;

	store(&in.lane.region[ARMED], 0);
	while (budget--) {
		int found = look(message);

		if (armed && !found)
			return 0;
		armed = !found;
		store(&in.lane.region[ARMED], (uint64_t)armed);
		if (found > 0)
			return 1;
		fence();
		look_at_answer();
	}
	return -11; /* N-13: something may be left, call again */
}

/* ---- the functions that mk_ipi_test calls ---- */

int mk_ipi_peer_init(const struct mk_ipi_peer_setup *given)
{
	if (given->version != MK_IPI_PEER_VERSION)
		return -71;
	setup = *given;
	rang = 0;
	if (setup.layout == 1)
		return 0;
	if (!find_lane(&out.lane, setup.other.region, setup.other.region_len, (unsigned)setup.self.id) ||
	    !find_lane(&in.lane, setup.self.region, setup.self.region_len, (unsigned)setup.other.id))
		return -71;
	/* N-17: before the other's region is used. The generation is 0, because this peer has followed no directory. */
	store(&out.lane.header[ATTACHED], setup.self.incarnation);
	begin_receiving();
	say_hello();
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
	/* N-13: disarm. STOP (N-15) is not read, because the setup does not say which kernel is the host. */
	if (in.lane.region)
		store(&in.lane.region[ARMED], 0);
}

void mk_ipi_peer_fini(void)
{
	if (out.lane.region) {
		/* N-4, N-17: this life is over, and no longer uses the other's region. */
		store(&in.lane.region[LIFE], setup.self.incarnation | LIFE_OVER);
		store(&out.lane.header[ATTACHED], 0);
	}
	memset(&out, 0, sizeof(out));
	memset(&in, 0, sizeof(in));
}
