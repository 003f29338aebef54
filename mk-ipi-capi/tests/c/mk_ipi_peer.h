/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The interface of mk_ipi_test: the functions that a shared object must export, so that `mk_ipi_test --peer ./peer.so` can test
 * it.
 *
 * In each test the peer uses one layout, RFC v2 or native, over memory that it shares with the test. The test simulates the
 * machine. To ring a doorbell, the peer calls `ring`. To ring the peer's CPU, the test calls mk_ipi_peer_interrupt. One thread
 * makes all calls. This file needs no other file of mk-ipi, so a peer can be another implementation. If a peer implements only
 * some parts, name them: `mk_ipi_test --peer ./peer.so --speaks rfc-v2,native`.
 */
#ifndef MK_IPI_PEER_H
#define MK_IPI_PEER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MK_IPI_PEER_VERSION 2
/* The types of the test's messages, for a peer that needs a handler for each type. */
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
	void *memory; /* the shared memory: `len` bytes; the first has the physical address `phys` */
	uint64_t phys, len;
	void (*ring)(void *ctx, uint64_t cpu, uint32_t vector);
	void *ctx;
};

struct mk_ipi_peer_message {
	uint64_t sender_cpu;
	uint32_t type;
	uint32_t size;
	unsigned char bytes[4096]; /* on RFC v2 at most 256; on the native link at most what the stamp of the region says */
};

/* Begins a life of the peer. Returns 0, or a negative number. */
int mk_ipi_peer_init(const struct mk_ipi_peer_setup *setup);
/*
 * Sends to the other side. Returns 0; or, if nothing was sent: 1 = try again after the other side has run, or a negative number.
 */
int mk_ipi_peer_send(uint32_t type, const void *data, size_t size);
/* Stores the oldest message that no earlier call has stored. Returns 1; 0 if there is none; or a negative number. */
int mk_ipi_peer_receive(struct mk_ipi_peer_message *message);
/* Called when the doorbell of the peer's CPU is rung. */
void mk_ipi_peer_interrupt(void);
/* Ends this life with a goodbye. On the native link the peer also says that it no longer has the other side's region mapped. */
void mk_ipi_peer_fini(void);

#ifdef __cplusplus
}
#endif

#endif
