/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The demo: a stream to each other kernel, and after it round trips with each (examples/bare-metal/src/demo.rs). */
#include "kernel.h"

/* The steps of the demo. From FIRST_PAIR on, there is one step for each ordered pair of kernels. */
enum { READY = 1, SENT = 2, RECEIVED = 3, FIRST_PAIR = 4, DONE = 1000 };

/* A wait ends with an error if no kernel makes progress for this time. */
#define PATIENCE (10 * SECOND)
/* If no message arrives for this time, the missing messages count as lost. */
#define LOST_AFTER (2 * SECOND)
/* The number of messages that the drain takes from a lane in one turn (SHARE in mk-ipi-core/src/native/receive.rs). */
#define SHARE 16

/* The ping that this kernel must answer: sender plus 1 in the upper half, number in the lower half. 0 if there is none. */
static uint64_t pinged;
/* The number of the last pong, plus 1. */
static uint64_t ponged;
static struct trips trips[MAX_KERNELS];

/* ---- waiting for the other kernels ---- */

static void reach(uint32_t step)
{
	STORE(CONTROL->kernels[me].step, step);
}

static uint64_t progress_of_all(void)
{
	uint64_t sum = 0;
	unsigned int k;

	for (k = 0; k < nr_kernels; k++)
		sum += LOAD(CONTROL->kernels[k].progress) + LOAD(CONTROL->kernels[k].step);
	return sum;
}

static void wait_until(const char *what, int (*step)(void *arg), void *arg)
{
	uint64_t since = now(), seen = progress_of_all(), before;
	int spins;

	for (;;) {
		for (spins = 0; spins < 100; spins++) {
			if (step(arg))
				return;
			pause_cpu();
		}
		if (progress_of_all() != seen) {
			seen = progress_of_all();
			since = now();
		}
		if (now() - since > PATIENCE)
			fatal("waited too long: %s", what);
		before = runs();
		if (step(arg))
			return;
		sleep_since(before);
	}
}

static uint32_t awaited;
static void (*aside)(void);

static int all_there(void *arg)
{
	unsigned int k;

	(void)arg;
	if (aside)
		aside();
	for (k = 0; k < nr_kernels; k++)
		if (LOAD(CONTROL->kernels[k].step) < awaited)
			return 0;
	return 1;
}

static void wait_for_all(uint32_t step, void (*meanwhile)(void))
{
	awaited = step;
	aside = meanwhile;
	wait_until("not all kernels have reached this step", all_there, NULL);
}

/* ---- receiving ---- */

static void take(const struct mk_ipi_message *message, void *ctx)
{
	struct journal *journal = journal_of(me);
	struct from_sender *from;
	uint64_t number, bit, next;
	uint32_t sender;

	(void)ctx;
	if (!message_check(message, &number, &sender) || sender >= MAX_KERNELS || number >= MAX_MESSAGES) {
		STORE(journal->torn, journal->torn + 1);
		return;
	}
	from = &journal->senders[sender];
	bit = 1ull << number % 64;
	if (from->seen[number / 64] & bit) {
		STORE(from->doubled, from->doubled + 1);
		return;
	}
	STORE(from->seen[number / 64], from->seen[number / 64] | bit);
	STORE(from->received, from->received + 1);
	next = from->next;
	if (next > number)
		STORE(from->disordered, from->disordered + 1);
	else
		STORE(from->next, number + 1);
}

static void on_ping(const struct mk_ipi_message *message, void *ctx)
{
	uint64_t number;
	uint32_t sender;

	(void)ctx;
	if (message_check(message, &number, &sender))
		STORE(pinged, ((uint64_t)sender + 1) << 32 | (number & 0xffffffff));
}

static void on_pong(const struct mk_ipi_message *message, void *ctx)
{
	uint64_t number;
	uint32_t sender;

	(void)ctx;
	if (message_check(message, &number, &sender))
		STORE(ponged, number + 1);
}

void demo_register(void)
{
	struct mk_ipi_handler *handler;

	if (mk_ipi_register(&mk, STREAM, take, NULL, &handler) || mk_ipi_register(&mk, PING, on_ping, NULL, &handler) ||
	    mk_ipi_register(&mk, PONG, on_pong, NULL, &handler))
		fatal("the registry is full");
}

/* ---- the fairness of the drain: counts the calls in a row that took no message from a stream with waiting messages ---- */

static int watching;
static uint64_t calls, rows[MAX_KERNELS], longest;

void drains_watch(int on)
{
	STORE(watching, on);
}

void drain_watched(void)
{
	uint64_t before[MAX_KERNELS];
	unsigned int k;
	int watched = LOAD(watching), waits[MAX_KERNELS] = { 0 };

	for (k = 0; watched && k < nr_kernels; k++) {
		before[k] = journal_of(me)->senders[k].next;
		waits[k] = k != me && LOAD(journal_of(k)->sent[me].flushed) > before[k];
	}
	mk_ipi_run_deferred(&mk, NULL);
	if (!watched)
		return;
	calls++;
	for (k = 0; k < nr_kernels; k++) {
		rows[k] = waits[k] && journal_of(me)->senders[k].next == before[k] ? rows[k] + 1 : 0;
		if (rows[k] > longest)
			longest = rows[k];
	}
}

int drains_report(void)
{
	uint64_t allowed = (nr_kernels * SHARE + MK_IPI_QUEUE - 1) / MK_IPI_QUEUE;

	record("{\"drains\":{\"kernel\":%u,\"calls\":%u,\"longest\":%u,\"allowed\":%u}}", (unsigned long)me, calls, longest,
	       allowed);
	return longest <= allowed;
}

/* ---- the results of the streams ---- */

static uint64_t received(void)
{
	uint64_t sum = 0;
	unsigned int k;

	for (k = 0; k < nr_kernels; k++)
		sum += LOAD(journal_of(me)->senders[k].received);
	return sum;
}

static const char *mode(void)
{
	return options.x2apic ? "x2apic" : "xapic";
}

static const char *generation(void)
{
	return options.native ? "native" : "rfc-v2";
}

/*
 * Waits for messages that are on their way, and prints a record for each sender. Returns whether all messages came once, intact
 * and in order.
 */
static int report_received(void)
{
	uint64_t total = 0, since = now(), seen = 0, before;
	unsigned int k;
	int whole = 1;

	for (k = 0; k < nr_kernels; k++)
		total += k == me ? 0 : LOAD(journal_of(k)->sent[me].ended);
	while (received() < total && now() - since < LOST_AFTER) {
		before = runs();
		if (received() != seen) {
			seen = received();
			since = now();
		}
		if (received() < total)
			sleep_since(before);
	}
	for (k = 0; k < nr_kernels; k++) {
		const struct from_sender *from = &journal_of(me)->senders[k];
		uint64_t sent = LOAD(journal_of(k)->sent[me].ended), torn = from->torn + journal_of(me)->torn;
		uint64_t lost = sent > from->received ? sent - from->received : 0;

		if (k == me)
			continue;
		whole &= !lost && !torn && !from->doubled && !from->disordered;
		record("{\"received\":{\"from\":%u,\"to\":%u,\"mode\":\"%s\",\"generation\":\"%s\",\"received\":%u,\"lost\":%u,"
		       "\"torn\":%u,\"doubled\":%u,\"disordered\":%u}}",
		       (unsigned long)k, (unsigned long)me, mode(), generation(), from->received, lost, torn, from->doubled,
		       from->disordered);
	}
	reach(RECEIVED);
	wait_for_all(RECEIVED, NULL);
	return whole;
}

/* ---- round trips ---- */

/* A message that must be sent: its receiver, its type, and the number in its payload. */
struct letter {
	struct payload payload;
	unsigned int to;
	uint32_t type;
	uint64_t number;
};

static int try_send(void *arg)
{
	const struct letter *letter = arg;
	int err = mk_ipi_send(&mk, (int)letter->to, letter->type, letter->payload.bytes, letter->payload.size, NULL);

	if (err == 0)
		return 1;
	if (!is_full(err))
		fatal("sending to kernel %u: %u", (unsigned long)letter->to, (unsigned long)(err < 0 ? -err : err));
	return 0;
}

static int is_answered(void *arg)
{
	const struct letter *letter = arg;

	return LOAD(ponged) == letter->number + 1;
}

static void answer(void)
{
	uint64_t ping = LOAD(pinged);
	struct letter letter = { .type = PONG };

	if (ping >> 32 == 0)
		return;
	/* All kernels together have one ping at a time, because its sender waits for the answer. */
	STORE(pinged, 0);
	letter.to = (unsigned int)(ping >> 32) - 1;
	payload_make(&letter.payload, ping & 0xffffffff, me);
	wait_until("no room for the answer to a ping", try_send, &letter);
}

static void ping(unsigned int to)
{
	struct letter letter = { .to = to, .type = PING };
	size_t count = options.messages < MAX_TRIPS ? options.messages : MAX_TRIPS;

	STORE(ponged, 0);
	for (letter.number = 0; letter.number < count; letter.number++) {
		uint64_t start;

		payload_make(&letter.payload, letter.number, me);
		start = now();
		wait_until("no room for a ping", try_send, &letter);
		wait_until("a ping is not answered", is_answered, &letter);
		trips_add(&trips[to], now() - start);
		STORE(CONTROL->kernels[me].progress, now());
	}
}

/* A pair's turn: the kernel that pings, and the step that ends the turn. */
struct turn {
	unsigned int from;
	uint32_t step;
};

static int is_through(void *arg)
{
	const struct turn *turn = arg;

	answer();
	heartbeat(NULL);
	return LOAD(CONTROL->kernels[turn->from].step) >= turn->step;
}

/* Measures round trips, for one ordered pair of kernels after the other: one pings, the other answers, the rest waits. */
static void round_trips(void)
{
	struct turn turn = { .step = FIRST_PAIR };
	unsigned int to;

	for (turn.from = 0; turn.from < nr_kernels; turn.from++)
		for (to = 0; to < nr_kernels; to++) {
			if (turn.from == to)
				continue;
			if (turn.from == me) {
				ping(to);
				reach(turn.step);
			} else {
				wait_until("a round trip does not end", is_through, &turn);
			}
			turn.step++;
		}
}

/* ---- the whole demo ---- */

static void report_sent(unsigned int to, uint64_t sent, uint64_t busy, uint64_t doorbells)
{
	record("{\"sent\":{\"from\":%u,\"to\":%u,\"mode\":\"%s\",\"generation\":\"%s\",\"sent\":%u,\"doorbells\":%u,\"busy\":%u,"
	       "\"in_doubt\":%u,\"rtt_cycles\":{\"min\":%u,\"median\":%u,\"p99\":%u}}}",
	       (unsigned long)me, (unsigned long)to, mode(), generation(), sent, doorbells, busy, stream_in_doubt(to),
	       trips_at(&trips[to], 0), trips_at(&trips[to], 50), trips_at(&trips[to], 99));
}

static int run(void)
{
	uint64_t sent[MAX_KERNELS], busy[MAX_KERNELS], doorbells[MAX_KERNELS], arrivals;
	unsigned int to;
	int ok;

	drains_watch(options.native);
	stream_run();
	reach(SENT);
	wait_for_all(SENT, stream_turn);
	drains_watch(0);
	for (to = 0; to < nr_kernels; to++) {
		sent[to] = journal_of(me)->sent[to].ended;
		if (to != me)
			stream_counts(to, &busy[to], &doorbells[to]);
	}
	ok = report_received();
	if (options.native)
		ok &= drains_report();
	arrivals = received();
	round_trips();
	if (received() != arrivals)
		fatal("messages came after the streams had ended");
	for (to = 0; to < nr_kernels; to++)
		if (to != me)
			report_sent(to, sent[to], busy[to], doorbells[to]);
	return ok;
}

void demo_run(void)
{
	int ok;

	reach(READY);
	wait_for_all(READY, NULL);
	ok = run();
	STORE(CONTROL->kernels[me].verdict, ok ? 1 : 2);
	reach(DONE);
	machine_halt();
}
