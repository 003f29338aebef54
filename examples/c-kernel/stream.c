/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The stream: this kernel sends its messages to each other kernel, without waiting for answers. */
#include "kernel.h"

/* The stream ends with an error if there is no progress for this time. */
#define PATIENCE (10 * SECOND)

static struct payload next[MAX_KERNELS];
static uint64_t busy[MAX_KERNELS], doorbells[MAX_KERNELS], in_doubt[MAX_KERNELS];
/* The kernels in whose lanes this kernel waits for space: one bit for each. */
static uint64_t waiting;
/* The kernels whose lanes have space again: one bit for each. */
static uint64_t space;
static uint64_t told_at, last_moved, last_moved_at;
static unsigned int busy_sweeps;

void stream_event(const struct mk_ipi_event *event)
{
	switch (event->kind) {
	case MK_IPI_EVENT_SPACE:
		__atomic_fetch_or(&space, 1ull << event->peer, __ATOMIC_RELAXED);
		break;
	case MK_IPI_EVENT_IN_DOUBT:
		say("kernel %u died while it handled message %u of the lane", (unsigned long)event->peer, event->number);
		in_doubt[event->peer]++;
		break;
	case MK_IPI_EVENT_QUARANTINED:
		fatal("kernel %u broke the protocol: %u", (unsigned long)event->peer, (unsigned long)event->breach);
	case MK_IPI_EVENT_REFUSED:
		fatal("kernel %u reports that this kernel broke the protocol: %u", (unsigned long)event->peer,
		      (unsigned long)event->breach);
	case MK_IPI_EVENT_SUSPECT:
		say("kernel %u is suspect", (unsigned long)event->peer);
		break;
	default:
		break;
	}
}

static uint64_t sent_to(unsigned int to)
{
	return journal_of(me)->sent[to].ended;
}

static int is_over_to(unsigned int to)
{
	return to == me || sent_to(to) >= options.messages;
}

static int is_over(void)
{
	unsigned int to;

	for (to = 0; to < nr_kernels; to++)
		if (!is_over_to(to))
			return 0;
	return 1;
}

static uint64_t total_sent(void)
{
	uint64_t sum = 0;
	unsigned int to;

	for (to = 0; to < nr_kernels; to++)
		sum += sent_to(to);
	return sum;
}

/* Records the result of sending the next message. Returns whether it was sent. */
static int note(unsigned int to, int err)
{
	struct sent_to *journal = &journal_of(me)->sent[to];

	if (is_full(err)) {
		busy[to]++;
		return 0;
	}
	if (err)
		fatal("sending to kernel %u: %u", (unsigned long)to, (unsigned long)(err < 0 ? -err : err));
	STORE(journal->begun, journal->ended + 1);
	STORE(journal->ended, journal->ended + 1);
	payload_make(&next[to], journal->ended, me);
	return 1;
}

static int turn_rfc_v2(void)
{
	uint64_t before = total_sent();
	unsigned int to;
	int idle;

	for (to = 0; to < nr_kernels; to++)
		if (!is_over_to(to)) {
			unsigned long rings = rung;

			note(to, mk_ipi_send(&mk, (int)to, STREAM, next[to].bytes, next[to].size, NULL));
			doorbells[to] += rung - rings;
		}
	busy_sweeps = total_sent() == before ? busy_sweeps + 1 : 0;
	pause_cpu();
	/* No event reports that a slot has become free. A message, or the next tick, ends the sleep. */
	idle = busy_sweeps > BUSY_SWEEPS;
	if (idle)
		busy_sweeps = 0;
	return idle;
}

static void burst(unsigned int to)
{
	struct sent_to *journal = &journal_of(me)->sent[to];
	uint64_t before = sent_to(to);
	int i, full = 0, err;

	for (i = 0; i < BURST && !full && !is_over_to(to); i++)
		full = !note(to, mk_ipi_post(&mk, (int)to, STREAM, next[to].bytes, next[to].size, NULL));
	if (sent_to(to) != before) {
		err = mk_ipi_flush(&mk, (int)to);
		if (err)
			fatal("ringing the doorbell of kernel %u: -%u", (unsigned long)to, (unsigned long)-err);
		STORE(journal->flushed, journal->ended);
	}
	if (!full)
		return;
	err = mk_ipi_want_space(&mk, (int)to, next[to].size);
	if (err < 0)
		fatal("waiting for space in the lane to kernel %u: -%u", (unsigned long)to, (unsigned long)-err);
	if (err == 0)
		waiting |= 1ull << to;
}

static int turn_native(void)
{
	unsigned int to;
	int idle = 1;

	for (to = 0; to < nr_kernels; to++) {
		uint64_t bit = 1ull << to;

		if (waiting & __atomic_fetch_and(&space, ~bit, __ATOMIC_RELAXED) & bit)
			waiting &= ~bit;
		if (!(waiting & bit) && !is_over_to(to))
			burst(to);
		idle &= waiting & bit || is_over_to(to);
	}
	return idle;
}

/* Prints a report after each twentieth part of the messages to this kernel. Returns a number that grows with every message. */
static uint64_t progress(void)
{
	uint64_t total = options.messages * (nr_kernels - 1), done = 0, arrivals = LOAD(journal_of(me)->torn);
	unsigned int k;

	for (k = 0; k < nr_kernels; k++) {
		const struct from_sender *from = &journal_of(me)->senders[k];

		done += LOAD(from->received);
		arrivals += LOAD(from->doubled) + LOAD(from->torn);
	}
	if (done >= told_at + (total + 19) / 20 || (done >= total && told_at < total)) {
		told_at = done < total ? done : total;
		record("{\"progress\":{\"kernel\":%u,\"done\":%u,\"total\":%u}}", (unsigned long)me, told_at, total);
	}
	return done + arrivals;
}

/* Sends the messages that can be sent now. Returns true if there is no more work before the next interrupt. */
static int turn(void)
{
	int idle = options.native ? turn_native() : turn_rfc_v2();
	uint64_t moved;

	if (options.hang && total_sent() > options.messages / 2) {
		say("this kernel now has the ordered fault: hang");
		machine_halt();
	}
	heartbeat(NULL);
	moved = total_sent() + progress();
	STORE(CONTROL->kernels[me].progress, moved);
	if (moved != last_moved) {
		last_moved = moved;
		last_moved_at = now();
	} else if (now() - last_moved_at > PATIENCE && !is_over()) {
		fatal("a kernel takes no messages");
	}
	return idle;
}

void stream_turn(void)
{
	turn();
}

void stream_run(void)
{
	unsigned int to;
	uint64_t before;

	for (to = 0; to < nr_kernels; to++)
		payload_make(&next[to], 0, me);
	last_moved_at = now();
	while (!is_over()) {
		before = runs();
		if (turn())
			sleep_since(before);
	}
}

void stream_counts(unsigned int to, uint64_t *was_busy, uint64_t *was_rung)
{
	struct mk_ipi_lane_stats lane;

	*was_busy = busy[to];
	*was_rung = doorbells[to];
	if (options.native && mk_ipi_get_lane_stats(&mk, (int)to, &lane) == 0) {
		*was_busy = lane.full;
		*was_rung = lane.rung;
	}
}

uint64_t stream_in_doubt(unsigned int to)
{
	return in_doubt[to];
}
