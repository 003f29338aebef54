/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The border between net.c and net.rs. */
#ifndef MK_IPI_NET_H
#define MK_IPI_NET_H

#include <linux/types.h>

struct virtio_net_hdr;
struct work_struct;

/* Most bytes of a message. */
#define MK_NET_MESSAGE 4096
/* What an end supports (SPEC E-2). */
#define MK_NET_CSUM 1
#define MK_NET_TSO4 2
#define MK_NET_TSO6 4

/* What happened to the carrier since the last call. */
struct mk_net_peer {
	/* It was lost, perhaps only for a moment. */
	bool lost;
	/* There is a carrier; the other end supports this. */
	bool carrier;
	u32 takes, max_frame;
};

/* net.rs, called by net.c: process context. */
void mk_ipi_rs_net_follow(struct work_struct *work);
void mk_ipi_rs_net_open(u8 id);
void mk_ipi_rs_net_close(u8 id);
/* Under the queue's lock: begins a frame; gives the next message's head and the bytes that follow; sends it, 1 = no space. */
int mk_ipi_rs_net_begin(u8 id, u32 len, const struct virtio_net_hdr *offload);
u32 mk_ipi_rs_net_next(u8 id, u8 *message, u32 *at, u32 *len);
int mk_ipi_rs_net_post(u8 id, const u8 *message, u32 len);
void mk_ipi_rs_net_flush(u8 id);
/* By NAPI. */
void mk_ipi_rs_net_peer(u8 id, struct mk_net_peer *peer);
void mk_ipi_rs_net_take(u8 id, u32 msg_type, u32 epoch, const u8 *message, u32 len);

/* net.c, called by net.rs. */
unsigned long mk_ipi_net_lock(u8 id);
void mk_ipi_net_unlock(u8 id, unsigned long flags);
void mk_ipi_net_queue_follow(void);
void mk_ipi_net_end_follow(void);
int mk_ipi_net_add(u8 id, u8 me);
void mk_ipi_net_remove(u8 id);
/* In any context, under the peer's lock. */
void mk_ipi_net_keep(u8 id, u32 msg_type, u32 epoch, const void *from, u32 len);
void mk_ipi_net_bad(u8 id);
void mk_ipi_net_news(u8 id);
/* By NAPI, in mk_ipi_rs_net_take. */
void mk_ipi_net_begin(u8 id, u32 len, const struct virtio_net_hdr *offload);
void mk_ipi_net_put(u8 id, u32 at, const void *from, u32 len);
void mk_ipi_net_end(u8 id);
void mk_ipi_net_drop(u8 id);
/* Process context, interrupts on. */
void mk_ipi_net_hold_softirqs(void);
void mk_ipi_net_run_softirqs(void);

#endif
