/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The border between net.c and net.rs. */
#ifndef MK_IPI_NET_H
#define MK_IPI_NET_H

#include <linux/types.h>

struct virtio_net_hdr;
struct work_struct;

/* Most bytes of a message. */
#define MK_NET_MESSAGE 4096
/* What an end takes (SPEC E-2). */
#define MK_NET_CSUM 1
#define MK_NET_TSO4 2
#define MK_NET_TSO6 4

/* net.rs, called by net.c: process context. */
void mk_ipi_rs_net_follow(struct work_struct *work);
void mk_ipi_rs_net_open(u8 id);
void mk_ipi_rs_net_close(u8 id);
/* Under the queue's lock. A frame is begun; its next message's head, and which bytes follow; a message is sent: 1 = no space. */
int mk_ipi_rs_net_begin(u8 id, u32 len, const struct virtio_net_hdr *offload);
u32 mk_ipi_rs_net_next(u8 id, u8 *message, u32 *at, u32 *len);
int mk_ipi_rs_net_post(u8 id, const u8 *message, u32 len);
void mk_ipi_rs_net_flush(u8 id);

/* net.c, called by net.rs. */
unsigned long mk_ipi_net_lock(u8 id);
void mk_ipi_net_unlock(u8 id, unsigned long flags);
void mk_ipi_net_queue_follow(void);
void mk_ipi_net_end_follow(void);
int mk_ipi_net_add(u8 id, u8 me);
void mk_ipi_net_remove(u8 id);
/* Under the peer's lock. */
void mk_ipi_net_begin(u8 id, u32 len, const struct virtio_net_hdr *offload);
void mk_ipi_net_put(u8 id, u32 at, const void *from, u32 len);
void mk_ipi_net_end(u8 id);
void mk_ipi_net_drop(u8 id, bool bad);
void mk_ipi_net_space(u8 id);
void mk_ipi_net_carrier(u8 id, bool on, u32 takes, u32 max_frame);
/* Process context, interrupts on. */
void mk_ipi_net_hold_softirqs(void);
void mk_ipi_net_run_softirqs(void);

#endif
