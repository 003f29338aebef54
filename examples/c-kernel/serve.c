/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * `mk_ipi.run=serve`: a kernel whose host is of another kind, such as Linux. It does what the host's messages say
 * (examples/bare-metal/src/order.rs). The machine belongs to the host. If this kernel fails, or is told to stop, it stops only
 * itself.
 *
 * Only the main program runs this code. It also runs the message handlers, between two turns. Interrupts access only `stopping`.
 * No code here waits. A message that cannot be sent now is tried again in the next turn.
 */
#include "kernel.h"

/* This kernel knows only instances with ids below this number. */
#define MAX_INSTANCES 64
/* A ping is sent again if it is not answered within this time, because its receiver may have died. */
#define PING_AGAIN (2 * SECOND)

enum { ORDER = 0x110, QUERY = 0x111, REPORT = 0x112, RESET = 0x113 };
enum { ORDER_STREAM = 1, ORDER_PINGS = 2 };

/* What must be sent to another kernel, and what came from it. */
struct peer {
	uint64_t new_stream; /* stream messages of new orders, for which the directory must be followed first */
	uint64_t ordered;    /* stream messages of all other orders of this run */
	uint64_t sent;	     /* stream messages that were sent; also the number of the next one */
	uint64_t new_pings;  /* length of a new series of pings plus 1, for which the directory must be followed first */
	uint64_t pings;	     /* length of the present series of pings */
	uint64_t pinged_at;  /* time at which the unanswered ping was last sent; 0 if there is none */
	struct trips trips;
	uint64_t pong;	/* the number of a ping that must be answered, plus 1; 0 if there is none */
	uint64_t asked; /* the instances about which the peer asked for a report: one bit for each */
	int waiting;	/* whether its lane is full; an event reports when it has space */
	int is_slot;	/* whether its layout is RFC v2 */
	uint64_t busy, rung;		 /* how often its slot was occupied, and its doorbell was rung */
	struct mk_ipi_lane_stats before; /* the counters of its lane when this run began */
	struct check came;
	uint64_t in_doubt;
};

static struct peer peers[MAX_INSTANCES];
static uint64_t run, torn;
static int new_orders, stopping;
/* Whether a message was sent in this turn, or can be sent at once. */
static int moved;
/* Whether a slot was occupied in this turn. No event reports that it has become free. */
static int blocked;

static struct peer *peer_of(uint64_t id)
{
	return id < MAX_INSTANCES ? &peers[id] : NULL;
}

static int id_of(const struct peer *peer)
{
	return (int)(peer - peers);
}

static uint64_t add(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

/* ---- changes of a peer ---- */

/* The counters of the lane to the peer. Zeros if there is no lane. */
static struct mk_ipi_lane_stats lane_of(const struct peer *peer)
{
	struct mk_ipi_lane_stats lane = { 0 };

	mk_ipi_get_lane_stats(&mk, id_of(peer), &lane);
	return lane;
}

/* Reads the layout and the lane's counters of a peer. Called at the start, and when the peer is added or removed. */
static void meet(struct peer *peer)
{
	struct mk_ipi_instance_info info = { 0 };

	mk_ipi_get_instance(&mk, id_of(peer), &info);
	peer->is_slot = info.layout == MK_IPI_RFC_V2;
	peer->before = lane_of(peer);
}

/* Drops all that is not sent yet to the peer. The counters stay. */
static void drop(struct peer *peer)
{
	peer->ordered = peer->sent;
	peer->pings = peer->trips.count;
	peer->pinged_at = peer->pong = peer->asked = 0;
	peer->waiting = 0;
}

/* Called for each change in the directory. A dead kernel is not removed, because its next life can use its region. */
static void followed(int id, uint32_t what, int error, void *ctx)
{
	struct peer *peer = peer_of((uint64_t)id);

	(void)ctx;
	if (what == MK_IPI_FOLLOWED_LEFT_OUT)
		say("kernel %u cannot be added: -%u", (unsigned long)id, (unsigned long)-error);
	if (!peer || (what != MK_IPI_FOLLOWED_ADDED && what != MK_IPI_FOLLOWED_REMOVED))
		return;
	meet(peer);
	if (what == MK_IPI_FOLLOWED_REMOVED) {
		drop(peer);
		/* The next life counts as a new one, even if it has the same incarnation. */
		check_began(&peer->came, 0);
	}
}

void serve_event(const struct mk_ipi_event *event)
{
	static const char *const names[] = {
		"?", "began", "answered", "quarantined", "refused", "in doubt", "discarded", "space",
		"suspect", "alive", "up", "dead", "unsettled", "read directory",
	};
	struct peer *peer = peer_of((uint64_t)event->peer);

	if (peer) {
		/* Any event can mean that the lane has space again. */
		peer->waiting = 0;
		if (event->kind == MK_IPI_EVENT_BEGAN)
			check_began(&peer->came, event->incarnation);
		peer->in_doubt += event->kind == MK_IPI_EVENT_IN_DOUBT;
	}
	if (event->kind != MK_IPI_EVENT_SPACE)
		say("kernel %u, life %u: %s", (unsigned long)event->peer, (unsigned long)event->theirs,
		    names[event->kind < sizeof(names) / sizeof(names[0]) ? event->kind : 0]);
}

/* ---- received messages ---- */

/* The payload as words of 64 bits. NULL if it does not have `count` words. */
static const uint64_t *words_of(const struct mk_ipi_message *message, size_t count)
{
	return message->size == 8 * count ? message->payload : NULL;
}

static void on_stream(const struct mk_ipi_message *message, void *ctx)
{
	struct mk_ipi_instance_info info;
	struct peer *peer;
	uint64_t number;
	uint32_t sender;

	(void)ctx;
	if (!message_check(message, &number, &sender)) {
		peer = peer_of((uint64_t)message->sender);
		*(peer ? &peer->came.torn : &torn) += 1;
		return;
	}
	peer = peer_of(sender);
	if (!peer)
		return;
	/* RFC v2 does not report a new life of the sender. The directory lists the new life before it sends. */
	if (number == 0 && message->sender < 0 && mk_ipi_get_instance(&mk, (int)sender, &info) == 0)
		check_began(&peer->came, info.incarnation);
	check_take(&peer->came, number);
}

/* A torn ping is not answered, so its sender pings again. */
static void on_ping(const struct mk_ipi_message *message, void *ctx)
{
	uint64_t number;
	uint32_t sender;

	(void)ctx;
	if (message_check(message, &number, &sender) && peer_of(sender))
		peer_of(sender)->pong = number + 1;
}

/* The number of the ping that is not answered yet, or of the next ping. */
static uint64_t ping_number(const struct peer *peer)
{
	return run << 32 | peer->trips.count;
}

static void on_pong(const struct mk_ipi_message *message, void *ctx)
{
	uint64_t at = now(), number;
	struct peer *peer;
	uint32_t sender;

	(void)ctx;
	peer = message_check(message, &number, &sender) ? peer_of(sender) : NULL;
	if (!peer || peer->pinged_at == 0 || number != ping_number(peer))
		return;
	trips_add(&peer->trips, at - peer->pinged_at);
	peer->pinged_at = 0;
}

/* Queries, and pings of other kernels, do not belong to a run, so they stay. */
static void on_reset(const struct mk_ipi_message *message, void *ctx)
{
	const uint64_t *words = words_of(message, 1);
	struct peer *peer;

	(void)ctx;
	if (!words || words[0] == 0 || words[0] > UINT32_MAX || words[0] == run)
		return;
	run = words[0];
	torn = 0;
	for (peer = peers; peer < peers + MAX_INSTANCES; peer++) {
		peer->new_stream = peer->ordered = peer->sent = 0;
		peer->new_pings = peer->pings = peer->pinged_at = peer->trips.count = 0;
		peer->waiting = 0;
		peer->busy = peer->rung = peer->in_doubt = 0;
		peer->before = lane_of(peer);
		peer->came = (struct check){ .life = peer->came.life };
	}
	say("run %u", run);
}

static void on_order(const struct mk_ipi_message *message, void *ctx)
{
	const uint64_t *words = words_of(message, 4);
	struct peer *to = words ? peer_of(words[1]) : NULL;

	(void)ctx;
	if (!to)
		return;
	/* In run 0 all orders are ignored. */
	if (run == 0 || words[3] != run) {
		say("an order for run %u is ignored: this is another run", words[3]);
		return;
	}
	if (words[0] == ORDER_STREAM)
		to->new_stream = add(to->new_stream, words[2]);
	else if (words[0] == ORDER_PINGS)
		to->new_pings = (words[2] < MAX_TRIPS ? words[2] : MAX_TRIPS) + 1;
	new_orders = 1;
}

static void on_query(const struct mk_ipi_message *message, void *ctx)
{
	const uint64_t *words = words_of(message, 2);

	(void)ctx;
	if (words && is_from(message, words[0]) && peer_of(words[0]) && peer_of(words[1]))
		peer_of(words[0])->asked |= 1ull << words[1];
}

void serve_register(void)
{
	static const struct {
		uint32_t type;
		mk_ipi_message_callback_t callback;
	} all[] = {
		{ STREAM, on_stream }, { PING, on_ping },   { PONG, on_pong },
		{ RESET, on_reset },   { ORDER, on_order }, { QUERY, on_query },
	};
	struct mk_ipi_handler *handler;
	size_t i;

	for (i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (mk_ipi_register(&mk, all[i].type, all[i].callback, NULL, &handler))
			fatal("the registry is full");
}

/* ---- sending ---- */

/* Sends a message by `call`. Returns 0 or the error. If sending to this peer cannot succeed later, drops all for this peer. */
static int put(struct peer *to, uint32_t type, const void *bytes, size_t size, __typeof__(mk_ipi_send) *call)
{
	unsigned long before = rung;
	int err = call(&mk, id_of(to), type, bytes, size, NULL);

	to->rung += to->is_slot ? rung - before : 0;
	switch (err) {
	case 0: /* if only the doorbell failed, the peer finds the message in its next drain */
		moved = 1;
		return 0;
	case -MK_IPI_EBUSY:
		to->busy++;
		blocked = 1;
		return err;
	case -MK_IPI_ENOSPC:
	case -MK_IPI_EAGAIN:
	case -MK_IPI_EINVAL: /* the peer has not started yet, or was removed: followed() learns which */
	case -MK_IPI_ESTALE:
	case -MK_IPI_ENODEV:
		return err;
	default:
		say("sending to kernel %u fails: -%u", (unsigned long)id_of(to), (unsigned long)-err);
		drop(to);
		return err;
	}
}

static void answer(struct peer *to)
{
	struct payload payload;

	if (to->pong == 0)
		return;
	payload_make(&payload, to->pong - 1, me);
	if (put(to, PONG, payload.bytes, payload.size, mk_ipi_send) == 0)
		to->pong = 0;
}

static void report(struct peer *to)
{
	for (; to->asked; to->asked &= to->asked - 1) {
		const struct peer *about = &peers[__builtin_ctzll(to->asked)];
		const struct check *came = &about->came;
		const struct mk_ipi_lane_stats lane = lane_of(about);
		const uint64_t words[19] = {
			(uint64_t)id_of(about), me, run, about->sent, about->rung + lane.rung - about->before.rung,
			about->busy + lane.full - about->before.full, about->in_doubt, came->received, came->former,
			came->first, came->lost, came->torn + torn, came->doubled, came->disordered,
			about->trips.count, trips_at(&about->trips, 0), trips_at(&about->trips, 50),
			trips_at(&about->trips, 99),
			about->sent < about->ordered || about->trips.count < about->pings,
		};

		if (put(to, REPORT, words, sizeof(words), mk_ipi_send))
			return;
	}
}

static void ping(struct peer *to)
{
	struct payload payload;
	uint64_t start;

	if (to->trips.count >= to->pings || (to->pinged_at && now() - to->pinged_at < PING_AGAIN))
		return;
	payload_make(&payload, ping_number(to), me);
	start = now();
	if (put(to, PING, payload.bytes, payload.size, mk_ipi_send) == 0)
		to->pinged_at = start;
}

/* Sends a part of the stream: up to BURST messages into a lane, or one message into a slot. */
static void stream(struct peer *to)
{
	struct payload payload;
	uint64_t before = to->sent;
	int err = 0;

	while (!err && !to->waiting && to->sent < to->ordered && to->sent - before < (to->is_slot ? 1 : BURST)) {
		payload_make(&payload, to->sent, me);
		err = put(to, STREAM, payload.bytes, payload.size, to->is_slot ? mk_ipi_send : mk_ipi_post);
		to->sent += !err;
	}
	if (to->sent != before && !to->is_slot)
		mk_ipi_flush(&mk, id_of(to));
	if (err == -MK_IPI_ENOSPC || err == -MK_IPI_EAGAIN) {
		err = mk_ipi_want_space(&mk, id_of(to), payload.size);
		to->waiting = err == 0;
		moved |= err > 0;
	}
}

/* ---- the main loop ---- */

/*
 * Carries out new orders. Their sender has read the present directory. So this kernel first reads it, too: otherwise it could
 * send to a former instance with the receiver's id.
 */
static void take_orders(void)
{
	struct peer *to;

	mk_ipi_follow(&mk, followed, NULL);
	for (to = peers; to < peers + MAX_INSTANCES; to++) {
		to->ordered = add(to->ordered, to->new_stream);
		if (to->new_pings) {
			to->pings = to->new_pings - 1;
			to->pinged_at = to->trips.count = 0;
		}
		to->new_stream = to->new_pings = 0;
	}
	new_orders = 0;
}

/* Does all work that is possible now. Returns true if there is no more work before the next interrupt. */
static int turn(void)
{
	static unsigned int sweeps;
	struct peer *to;

	if (new_orders)
		take_orders();
	moved = blocked = 0;
	for (to = peers; to < peers + MAX_INSTANCES; to++) {
		if (to == &peers[me])
			continue;
		/* Answers and pings are few, so they are sent before the stream takes all space. */
		answer(to);
		report(to);
		ping(to);
		stream(to);
	}
	sweeps = moved || !blocked ? 0 : sweeps + 1;
	if (moved || (blocked && sweeps <= BUSY_SWEEPS)) {
		pause_cpu();
		return 0;
	}
	sweeps = 0;
	return 1;
}

/* Called when the host has set the stop word, possibly in an interrupt. So it only sets a flag, which the main program reads. */
void serve_stop(void)
{
	STORE(stopping, 1);
}

void serve_run(void)
{
	struct mk_ipi_instance_info host;
	struct peer *peer;
	uint64_t seen;

	if (me >= MAX_INSTANCES)
		fatal("instance id %u is too large: the largest is %u", (unsigned long)me, MAX_INSTANCES - 1ul);
	if (mk_ipi_get_instance(&mk, 0, &host))
		fatal("the directory does not list the host, or the host cannot be added");
	for (peer = peers; peer < peers + MAX_INSTANCES; peer++)
		meet(peer);
	while (!LOAD(stopping)) {
		seen = runs();
		heartbeat(followed);
		if (turn())
			sleep_since(seen);
		else
			service();
	}
	say("the host told this kernel to stop");
	__asm__ volatile("cli" : : : "memory");
	/* mk_ipi_goodbye must be the last call. After the host has seen it, the host can take the CPU and the memory away. */
	mk_ipi_goodbye(&mk);
	machine_halt();
}
