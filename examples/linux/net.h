/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The functions of net.rs that net.c calls, and the functions of net.c that net.rs calls. */
#ifndef MK_IPI_NET_H
#define MK_IPI_NET_H

#include <linux/types.h>

struct virtio_net_hdr;
struct work_struct;

/* Size in bytes of the largest message. */
#define MK_NET_MESSAGE 4096
/* The features that an end can support (SPEC E-2). */
#define MK_NET_CSUM 1
#define MK_NET_TSO4 2
#define MK_NET_TSO6 4

/* The carrier of an interface. */
struct mk_net_peer {
	/* True if the carrier was lost since the last call, also if there is one again. */
	bool lost;
	/* True if there is a carrier. */
	bool carrier;
	/* The features that the other end supports, and the size of the largest frame that it accepts. */
	u32 takes, max_frame;
};

/* Functions of net.rs. net.c calls these three in process context. */
void mk_ipi_rs_net_follow(struct work_struct *work);
void mk_ipi_rs_net_open(u8 id);
void mk_ipi_rs_net_close(u8 id);
/* These send a frame. The lock of the transmit queue is held. */
/* Begins a frame. Returns 0 or a negative error number. */
int mk_ipi_rs_net_begin(u8 id, u32 len, const struct virtio_net_hdr *offload);
/* Writes the head of the next message, and says which bytes of the frame follow it. Returns the head's length; 0: no more. */
u32 mk_ipi_rs_net_next(u8 id, u8 *message, u32 *at, u32 *len);
/* Sends this message. Returns 0, 1 if there is no space, or a negative error number. */
int mk_ipi_rs_net_post(u8 id, const u8 *message, u32 len);
/* Rings the peer's doorbell, if it must be rung. */
void mk_ipi_rs_net_flush(u8 id);
/* NAPI calls these two. */
void mk_ipi_rs_net_peer(u8 id, struct mk_net_peer *peer);
void mk_ipi_rs_net_take(u8 id, u32 msg_type, u32 epoch, const u8 *message, u32 len);

/* Functions of net.c. */
unsigned long mk_ipi_net_lock(u8 id);
void mk_ipi_net_unlock(u8 id, unsigned long flags);
void mk_ipi_net_queue_follow(void);
void mk_ipi_net_end_follow(void);
int mk_ipi_net_add(u8 id, u8 me);
void mk_ipi_net_remove(u8 id);
/* Called in any context, while the peer's lock is held. */
void mk_ipi_net_keep(u8 id, u32 msg_type, u32 epoch, const void *from, u32 len);
void mk_ipi_net_bad(u8 id);
void mk_ipi_net_news(u8 id);
/* mk_ipi_rs_net_take calls these, in NAPI. */
void mk_ipi_net_begin(u8 id, u32 len, const struct virtio_net_hdr *offload);
void mk_ipi_net_put(u8 id, u32 at, const void *from, u32 len);
void mk_ipi_net_end(u8 id);
void mk_ipi_net_drop(u8 id);
/* Called in process context, with interrupts on. */
void mk_ipi_net_hold_softirqs(void);
void mk_ipi_net_run_softirqs(void);

#endif
