// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * The network interfaces mkN, one for each peer (SPEC chapter E). This file is the network device. It is in C because the layout
 * of its objects depends on the configuration. net.rs makes and reads the messages on the link, and decides whether there is a
 * carrier.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt
#include <linux/bottom_half.h>
#include <linux/etherdevice.h>
#include <linux/ethtool.h>
#include <linux/if_vlan.h>
#include <linux/kfifo.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/rtnetlink.h>
#include <linux/skbuff.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/virtio_net.h>
#include <linux/workqueue.h>
#include "net.h"

#define MAX_PEERS 16
/* Size in bytes of the buffer for messages that wait for NAPI, a power of two. If it is full, further messages are dropped. */
#define ARRIVED (1 << 20)
/* Size in bytes of the linear part of a received frame that does not fit into one page. It has room for all headers. */
#define LINEAR 256

/* The header of each message that waits for NAPI. */
struct arrived {
	u32 msg_type;
	/* The epoch in which the message arrived (struct End in net.rs). */
	u32 epoch;
	u32 len;
};

struct mk_net {
	struct net_device *dev;
	struct napi_struct napi;
	u8 id;
	/* What the other end supports (MK_NET_...), and the size of the largest frame that it accepts. Written by NAPI. */
	u32 takes, max_frame;
	/* The frame that is being sent, and a buffer for one message. The lock of the transmit queue guards them. */
	struct sk_buff *out;
	u8 *message;
	/* True if the carrier can have changed, or the lane can have space again. */
	bool news;
	/*
	 * The messages that wait for NAPI. They are written in any context, under the peer's lock. NAPI reads them, because
	 * memory for a frame must not be allocated in a hard interrupt.
	 */
	DECLARE_KFIFO_PTR(arrived, u8);
	void *arrived_room;
	/* The message that NAPI handles, and the frame that is being received. Only NAPI uses them. */
	u8 *taken;
	struct sk_buff *in;
	struct virtio_net_hdr offload;
};

static struct mk_net *mk_nets[MAX_PEERS];
/* Initialised statically, because an event can take a lock before its interface exists. */
static raw_spinlock_t mk_net_locks[MAX_PEERS] = { [0 ... MAX_PEERS - 1] = __RAW_SPIN_LOCK_UNLOCKED(mk_net_locks) };

/* Takes the peer's lock. Hard interrupt handlers take it, too. So code that holds it must not sleep, also on PREEMPT_RT. */
unsigned long mk_ipi_net_lock(u8 id)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&mk_net_locks[id], flags);
	return flags;
}

void mk_ipi_net_unlock(u8 id, unsigned long flags)
{
	raw_spin_unlock_irqrestore(&mk_net_locks[id], flags);
}

/* Holds softirqs back during deferred work. mk_ipi_net_run_softirqs lets them run at once. */
void mk_ipi_net_hold_softirqs(void)
{
	local_bh_disable();
}

void mk_ipi_net_run_softirqs(void)
{
	local_bh_enable();
}

/* Sending. The lock of the transmit queue is held. */

/* Ends the frame that is being sent, and counts it as sent or as an error. */
static void end_out(struct mk_net *net, bool sent)
{
	struct sk_buff *skb = net->out;

	net->out = NULL;
	if (sent) {
		dev_sw_netstats_tx_add(net->dev, 1, skb->len);
		dev_consume_skb_any(skb);
	} else {
		DEV_STATS_INC(net->dev, tx_errors);
		dev_kfree_skb_any(skb);
	}
}

/* Sends the rest of the frame that is being sent. If the lane is full, stops the transmit queue until there is space. */
static void push(struct mk_net *net)
{
	while (net->out) {
		u32 at, len, head;
		int err;

		if (!netif_carrier_ok(net->dev)) {
			end_out(net, false);
			break;
		}
		head = mk_ipi_rs_net_next(net->id, net->message, &at, &len);
		if (!head) {
			end_out(net, true);
			break;
		}
		if (skb_copy_bits(net->out, at, net->message + head, len)) {
			end_out(net, false);
			break;
		}
		err = mk_ipi_rs_net_post(net->id, net->message, head + len);
		if (err > 0) {
			netif_stop_queue(net->dev);
			return;
		}
		if (err)
			end_out(net, false);
	}
	if (netif_queue_stopped(net->dev))
		netif_wake_queue(net->dev);
}

static netdev_tx_t mk_net_xmit(struct sk_buff *skb, struct net_device *dev)
{
	struct mk_net *net = netdev_priv(dev);
	struct virtio_net_hdr offload = {};

	if (net->out)
		return NETDEV_TX_BUSY;
	if (virtio_net_hdr_from_skb(skb, &offload, true, true, 0) || mk_ipi_rs_net_begin(net->id, skb->len, &offload)) {
		DEV_STATS_INC(dev, tx_dropped);
		dev_kfree_skb_any(skb);
	} else {
		net->out = skb;
		push(net);
	}
	if (!netdev_xmit_more() || netif_queue_stopped(dev))
		mk_ipi_rs_net_flush(net->id);
	return NETDEV_TX_OK;
}

/* Removes the features that the other end does not support. Linux then does their work in software, before it sends the frame. */
static netdev_features_t mk_net_features(struct sk_buff *skb, struct net_device *dev, netdev_features_t features)
{
	struct mk_net *net = netdev_priv(dev);
	u32 takes = READ_ONCE(net->takes);

	if (!(takes & MK_NET_CSUM) || (skb_is_gso(skb) && skb->len > READ_ONCE(net->max_frame)))
		features &= ~(NETIF_F_CSUM_MASK | NETIF_F_GSO_MASK);
	if (!(takes & MK_NET_TSO4))
		features &= ~NETIF_F_TSO;
	if (!(takes & MK_NET_TSO6))
		features &= ~NETIF_F_TSO6;
	return vlan_features_check(skb, features);
}

/* Messages that arrive. These functions run in any context, while the peer's lock is held. */

static void wake_napi(struct mk_net *net)
{
	napi_schedule(&net->napi);
}

/* Stores a message for NAPI. */
void mk_ipi_net_keep(u8 id, u32 msg_type, u32 epoch, const void *from, u32 len)
{
	struct arrived head = { .msg_type = msg_type, .epoch = epoch, .len = len };
	struct mk_net *net = mk_nets[id];

	if (!net)
		return;
	if (len > MK_NET_MESSAGE || kfifo_avail(&net->arrived) < sizeof(head) + len) {
		DEV_STATS_INC(net->dev, rx_dropped);
	} else {
		kfifo_in(&net->arrived, (const u8 *)&head, sizeof(head));
		kfifo_in(&net->arrived, (const u8 *)from, len);
	}
	wake_napi(net);
}

/* Counts a message or frame that is invalid. */
void mk_ipi_net_bad(u8 id)
{
	if (mk_nets[id])
		DEV_STATS_INC(mk_nets[id]->dev, rx_errors);
}

/* Makes NAPI check the carrier, and continue to send. */
void mk_ipi_net_news(u8 id)
{
	struct mk_net *net = mk_nets[id];

	if (!net)
		return;
	WRITE_ONCE(net->news, true);
	wake_napi(net);
}

/* Receiving. NAPI calls these functions. */

/* Drops the frame that is being received, if there is one. */
void mk_ipi_net_drop(u8 id)
{
	struct mk_net *net = mk_nets[id];

	if (net->in)
		dev_kfree_skb_any(net->in);
	net->in = NULL;
}

/* Allocates a frame of `len` bytes. If there is no memory, all parts of this frame are dropped. */
void mk_ipi_net_begin(u8 id, u32 len, const struct virtio_net_hdr *offload)
{
	struct mk_net *net = mk_nets[id];
	u32 linear = len <= SKB_MAX_ORDER(NET_SKB_PAD, 0) ? len : LINEAR;
	struct sk_buff *skb;
	int err;

	mk_ipi_net_drop(id);
	if (linear == len)
		skb = netdev_alloc_skb_ip_align(net->dev, len);
	else
		skb = alloc_skb_with_frags(linear, len - linear, PAGE_ALLOC_COSTLY_ORDER, &err, GFP_ATOMIC | __GFP_NOWARN);
	if (!skb) {
		DEV_STATS_INC(net->dev, rx_dropped);
		return;
	}
	skb_put(skb, linear);
	skb->data_len = len - linear;
	skb->len = len;
	skb->dev = net->dev;
	net->offload = *offload;
	net->in = skb;
}

/* Copies a part of the frame that is being received to its place. */
void mk_ipi_net_put(u8 id, u32 at, const void *from, u32 len)
{
	struct mk_net *net = mk_nets[id];

	if (net->in && skb_store_bits(net->in, at, from, len)) {
		mk_ipi_net_bad(id);
		mk_ipi_net_drop(id);
	}
}

/* Passes the frame to Linux's network stack, after all its parts have arrived. */
void mk_ipi_net_end(u8 id)
{
	struct mk_net *net = mk_nets[id];
	struct sk_buff *skb = net->in;

	net->in = NULL;
	if (!skb)
		return;
	if (net->offload.flags & VIRTIO_NET_HDR_F_DATA_VALID)
		skb->ip_summed = CHECKSUM_UNNECESSARY;
	/* The call fails if the offload header does not fit the headers of the packet. A faulty peer can send such a frame. */
	if (virtio_net_hdr_to_skb(skb, &net->offload, true)) {
		DEV_STATS_INC(net->dev, rx_frame_errors);
		DEV_STATS_INC(net->dev, rx_errors);
		dev_kfree_skb_any(skb);
		return;
	}
	dev_sw_netstats_rx_add(net->dev, skb->len);
	if (!pskb_may_pull(skb, ETH_HLEN)) {
		dev_kfree_skb_any(skb);
		return;
	}
	skb->protocol = eth_type_trans(skb, net->dev);
	napi_gro_receive(&net->napi, skb);
}

/* Handles at most `budget` of the messages that wait. Returns how many it has handled. */
static int take_arrived(struct mk_net *net, int budget)
{
	struct arrived head;
	int done;

	for (done = 0; done < budget; done++) {
		if (kfifo_out_peek(&net->arrived, (u8 *)&head, sizeof(head)) < sizeof(head))
			break;
		/* The message can be incomplete, because it is being written. Its writer then wakes NAPI again. */
		if (kfifo_len(&net->arrived) < sizeof(head) + head.len)
			break;
		if (kfifo_out(&net->arrived, (u8 *)&head, sizeof(head)) < sizeof(head) ||
		    kfifo_out(&net->arrived, net->taken, head.len) < head.len)
			break;
		mk_ipi_rs_net_take(net->id, head.msg_type, head.epoch, net->taken, head.len);
	}
	return done;
}

/* Sets the carrier of the device as net.rs says, and continues to send. */
static void follow_peer(struct mk_net *net)
{
	struct netdev_queue *queue = netdev_get_tx_queue(net->dev, 0);
	struct mk_net_peer peer;

	mk_ipi_rs_net_peer(net->id, &peer);
	if (peer.lost) {
		netif_carrier_off(net->dev);
		__netif_tx_lock(queue, smp_processor_id());
		push(net);
		__netif_tx_unlock(queue);
	}
	if (peer.carrier) {
		WRITE_ONCE(net->takes, peer.takes);
		WRITE_ONCE(net->max_frame, peer.max_frame);
		netif_carrier_on(net->dev);
	}
	__netif_tx_lock(queue, smp_processor_id());
	push(net);
	mk_ipi_rs_net_flush(net->id);
	__netif_tx_unlock(queue);
}

static int mk_net_poll(struct napi_struct *napi, int budget)
{
	struct mk_net *net = container_of(napi, struct mk_net, napi);
	int done;

	if (READ_ONCE(net->news)) {
		WRITE_ONCE(net->news, false);
		follow_peer(net);
	}
	done = take_arrived(net, budget);
	if (done < budget)
		napi_complete_done(napi, done);
	return done;
}

/* The device. */

static int mk_net_open(struct net_device *dev)
{
	struct mk_net *net = netdev_priv(dev);
	unsigned long flags = mk_ipi_net_lock(net->id);

	/* The writers of the buffer hold this lock, and its reader, NAPI, does not run yet. So nothing uses the buffer now. */
	kfifo_reset(&net->arrived);
	mk_ipi_net_unlock(net->id, flags);
	napi_enable(&net->napi);
	netif_start_queue(dev);
	mk_ipi_rs_net_open(net->id);
	return 0;
}

static int mk_net_stop(struct net_device *dev)
{
	struct mk_net *net = netdev_priv(dev);

	mk_ipi_rs_net_close(net->id);
	netif_tx_disable(dev);
	napi_disable(&net->napi);
	netif_carrier_off(dev);
	mk_ipi_net_drop(net->id);
	if (net->out)
		end_out(net, false);
	return 0;
}

static const struct net_device_ops mk_net_ops = {
	.ndo_open = mk_net_open,
	.ndo_stop = mk_net_stop,
	.ndo_start_xmit = mk_net_xmit,
	.ndo_features_check = mk_net_features,
	.ndo_get_stats64 = dev_get_tstats64,
	.ndo_set_mac_address = eth_mac_addr,
	.ndo_validate_addr = eth_validate_addr,
};

static const struct ethtool_ops mk_net_ethtool = {
	.get_link = ethtool_op_get_link,
};

static void mk_net_setup(struct net_device *dev)
{
	ether_setup(dev);
	dev->netdev_ops = &mk_net_ops;
	dev->ethtool_ops = &mk_net_ethtool;
	dev->pcpu_stat_type = NETDEV_PCPU_STAT_TSTATS;
	dev->hw_features = NETIF_F_SG | NETIF_F_HW_CSUM | NETIF_F_TSO | NETIF_F_TSO_ECN | NETIF_F_TSO6;
	dev->features = dev->hw_features;
	dev->vlan_features = dev->hw_features;
	dev->min_mtu = ETH_MIN_MTU;
	dev->max_mtu = ETH_MAX_MTU;
	dev->priv_flags |= IFF_LIVE_ADDR_CHANGE;
}

static void free_net(struct mk_net *net)
{
	kfree(net->message);
	kfree(net->taken);
	kvfree(net->arrived_room);
	free_netdev(net->dev);
}

/* Adds the interface to `id`. `me` is this kernel's instance. Runs in process context; one caller at a time. */
int mk_ipi_net_add(u8 id, u8 me)
{
	const u8 mac[ETH_ALEN] = { 0x02, 0x6d, 0x6b, 0, me, id };
	struct net_device *dev;
	struct mk_net *net;
	char name[IFNAMSIZ];
	unsigned long flags;
	int err;

	snprintf(name, sizeof(name), "mk%u", id);
	dev = alloc_netdev(sizeof(*net), name, NET_NAME_PREDICTABLE, mk_net_setup);
	if (!dev)
		return -ENOMEM;
	net = netdev_priv(dev);
	net->dev = dev;
	net->id = id;
	eth_hw_addr_set(dev, mac);
	netif_carrier_off(dev);
	netif_napi_add(dev, &net->napi, mk_net_poll);
	net->message = kmalloc(MK_NET_MESSAGE, GFP_KERNEL);
	net->taken = kmalloc(MK_NET_MESSAGE, GFP_KERNEL);
	net->arrived_room = kvmalloc(ARRIVED, GFP_KERNEL);
	if (!net->message || !net->taken || !net->arrived_room) {
		free_net(net);
		return -ENOMEM;
	}
	kfifo_init(&net->arrived, net->arrived_room, ARRIVED);
	flags = mk_ipi_net_lock(id);
	mk_nets[id] = net;
	mk_ipi_net_unlock(id, flags);
	err = register_netdev(dev);
	if (err)
		mk_ipi_net_remove(id);
	return err;
}

/* Removes the interface to `id`, if it exists. Runs in process context; one caller at a time. */
void mk_ipi_net_remove(u8 id)
{
	struct mk_net *net = mk_nets[id];
	unsigned long flags;

	if (!net)
		return;
	if (net->dev->reg_state == NETREG_REGISTERED)
		unregister_netdev(net->dev);
	flags = mk_ipi_net_lock(id);
	mk_nets[id] = NULL;
	mk_ipi_net_unlock(id, flags);
	free_net(net);
}

/*
 * Adds and removes interfaces. This is a work item, because it can wait for a long time. The tick must not wait, because it
 * writes this kernel's heartbeat.
 */
static DECLARE_WORK(mk_net_work, mk_ipi_rs_net_follow);

void mk_ipi_net_queue_follow(void)
{
	schedule_work(&mk_net_work);
}

void mk_ipi_net_end_follow(void)
{
	cancel_work_sync(&mk_net_work);
}
