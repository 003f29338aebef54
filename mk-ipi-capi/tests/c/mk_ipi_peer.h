/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The other side of mk_ipi_test: what a shared object exports to be tested by `mk_ipi_test --peer ./peer.so`.
 *
 * It speaks one generation over memory that it shares with the test, which plays the machine: a doorbell that the peer rings is a call
 * of `ring`, one for the peer's CPU is a call of mk_ipi_peer_interrupt. All calls come from one thread. This file needs nothing of
 * mk-ipi: a peer can be another implementation. One that does not speak all is tested for what it speaks:
 * `mk_ipi_test --peer ./peer.so --speaks rfc-v2,native`.
 */
#ifndef MK_IPI_PEER_H
#define MK_IPI_PEER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MK_IPI_PEER_VERSION 2
/* The types of the test's messages, for a peer whose handlers are for one type each. */
#define MK_IPI_PEER_TYPES 0, 1, 0x7fffffff, 0xfedcba98

/* One of the two instances. Each has one CPU. */
struct mk_ipi_peer_side {
	int id;
	uint32_t incarnation;
	uint64_t cpu;    /* physical id */
	uint64_t region; /* physical address of its region, which exists and is stamped if it is native */
	uint64_t region_len;
};

struct mk_ipi_peer_setup {
	uint32_t version;   /* MK_IPI_PEER_VERSION */
	uint32_t layout;    /* 1: RFC v2, 2: native */
	uint32_t exclusive; /* RFC v2: 1 for exclusive slots */
	uint32_t slots;     /* RFC v2: slots of each region */
	uint32_t vector;    /* of both doorbells */
	uint32_t reserved;
	struct mk_ipi_peer_side self, other;
	void *memory; /* what both share: `len` bytes, of which the first has physical address `phys` */
	uint64_t phys, len;
	void (*ring)(void *ctx, uint64_t cpu, uint32_t vector);
	void *ctx;
};

struct mk_ipi_peer_message {
	uint64_t sender_cpu;
	uint32_t type;
	uint32_t size;
	unsigned char bytes[4096]; /* on RFC v2 256 at most; on the native link what the stamp of the region says */
};

/* Begins a life of the peer. 0, or negative. */
int mk_ipi_peer_init(const struct mk_ipi_peer_setup *setup);
/* Sends to the other side. 0; 1 to be tried again when the other side has had its turn; or negative: nothing was sent. */
int mk_ipi_peer_send(uint32_t type, const void *data, size_t size);
/* The oldest message that has come and was not given out yet: 1, 0 if there is none, or negative. */
int mk_ipi_peer_receive(struct mk_ipi_peer_message *message);
/* The doorbell of the peer's CPU rang. */
void mk_ipi_peer_interrupt(void);
/* Ends that life, as a kernel that says goodbye, and that it has the other side's region mapped no more (native). */
void mk_ipi_peer_fini(void);

#ifdef __cplusplus
}
#endif

#endif
