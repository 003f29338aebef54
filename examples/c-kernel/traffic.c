/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Code that both the demo and a kernel that serves use: heartbeat, checks of messages, round trips. */
#include "kernel.h"

/* The time between two calls of mk_ipi_tick. */
#define TICK (SECOND / 200)
/* A peer whose heartbeat does not change for this time is suspect. */
#define SUSPECT_AFTER (5 * SECOND)

void heartbeat(mk_ipi_followed_callback_t followed)
{
	static uint64_t last;

	if (now() - last > TICK) {
		last = now();
		mk_ipi_tick(&mk, last, SUSPECT_AFTER);
		/* Errors are ignored, because the next call tries again. */
		mk_ipi_follow(&mk, followed, NULL);
	}
}

int is_full(int err)
{
	return err == -MK_IPI_EBUSY || err == -MK_IPI_ENOSPC || err == -MK_IPI_EAGAIN;
}

int is_from(const struct mk_ipi_message *message, uint64_t sender)
{
	return message->sender < 0 || (uint64_t)message->sender == sender;
}

int message_check(const struct mk_ipi_message *message, uint64_t *number, uint32_t *sender)
{
	return payload_check(message->payload, message->size, number, sender) && is_from(message, *sender);
}

void trips_add(struct trips *trips, uint64_t cycles)
{
	size_t at = trips->count;

	if (at == MAX_TRIPS)
		return;
	for (; at > 0 && trips->cycles[at - 1] > cycles; at--)
		trips->cycles[at] = trips->cycles[at - 1];
	trips->cycles[at] = cycles;
	trips->count++;
}

uint64_t trips_at(const struct trips *trips, unsigned int percent)
{
	return trips->count ? trips->cycles[trips->count * percent / 100] : 0;
}

void check_take(struct check *check, uint64_t number)
{
	uint64_t gap = number - check->next, back = check->next - 1 - number, bit = back < 64 ? 1ull << back : 0;

	if (check->received == 0)
		check->first = number;
	if (number >= check->next) {
		check->seen = (gap < 63 ? check->seen << (gap + 1) : 0) | 1;
		check->next = number + 1;
		check->lost += gap;
		check->received++;
	} else if (bit == 0 || check->seen & bit) {
		check->doubled++;
	} else {
		check->seen |= bit;
		check->lost -= check->lost != 0;
		check->received++;
		check->disordered++;
	}
}

void check_began(struct check *check, uint32_t life)
{
	if (check->life == life)
		return;
	check->life = life;
	check->former = check->received;
	check->next = check->seen = 0;
}
