/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * mk-ipi for C modules of this Linux: the calls of the patches of generation RFC v2 (SPEC.md, chapter C). mk_ipi.ko exports them.
 * They work with both layouts of regions, native and RFC v2.
 */
#ifndef MK_IPI_LINUX_H
#define MK_IPI_LINUX_H

#include <linux/types.h>

#define MK_MAX_DATA_SIZE 256
#define MK_MAX_INSTANCES 256
#define MK_PFN_IPI_TYPE 0x80000001U

/* The message that a callback gets. It is a copy for this callback, and is valid until the callback returns. */
struct mk_ipi_data {
	int sender_cpu;		/* APIC id of the sender */
	unsigned int type;
	size_t data_size;	/* length of the message in bytes, 0..256 */
	char buffer[MK_MAX_DATA_SIZE];
};

/*
 * A callback. It is called in hard interrupt context, or in process context with interrupts off. So it must not sleep. It can
 * send messages, and must not unregister a handler.
 */
typedef void (*mk_ipi_callback_t)(struct mk_ipi_data *data, void *ctx);

struct mk_ipi_handler;

/*
 * Registers callback for messages of type ipi_type. Can be called in any context except an NMI. Returns NULL if callback is NULL,
 * or if no more handlers can be registered.
 */
struct mk_ipi_handler *multikernel_register_handler(mk_ipi_callback_t callback, void *ctx, unsigned int ipi_type);
/* Unregisters a handler. Can sleep. When it returns, the callback does not run, and will not run again. */
void multikernel_unregister_handler(struct mk_ipi_handler *handler);
/*
 * Sends a message. Can be called in any context except an NMI, and never sleeps. Returns 0, or
 *   -EINVAL   the instance is unknown, the message has more than 256 bytes, or this kernel has no identity yet
 *   -ENODEV   the instance has no region
 *   -ENOSPC   the lane is full: try again (native)
 *   -EAGAIN   the instance has not yet answered this life of the caller's kernel, or other CPUs send at the same time: try again
 *             (native)
 *   -EBUSY    the slot of the instance is occupied: try again (RFC v2)
 *   -EPROTO   the instance accepts no messages from this kernel, or has broken the protocol (native)
 *   -ESTALE   the claim of the slot was lost (RFC v2), or the region of the instance was made again (native)
 *   -ERANGE   the APIC id of this CPU does not fit into the message (RFC v2)
 *   -ENXIO    the doorbell of the instance cannot be rung
 * It also returns 0 if the message was stored but the doorbell failed. Then the receiver finds the message at its next doorbell,
 * or when it polls. If the receiver dies, its next life gets the messages that are unread (native). If data_size is 0, the call
 * returns 0 and no message is sent.
 */
int multikernel_send_ipi_data(int instance_id, void *data, size_t data_size, unsigned long type);
/* Handles a doorbell. A module that has allocated a vector for doorbells calls it in its handler. Interrupts must be off. */
void generic_multikernel_interrupt(void);
/* Sends a page frame number. Returns the same values as multikernel_send_ipi_data. */
int mk_send_pfn(int instance_id, unsigned long pfn);
/* Reads the page frame number in a message. Returns 0, or -EINVAL if the message contains none. */
int mk_receive_pfn(struct mk_ipi_data *data, unsigned long *out_pfn);
/*
 * Maps the page whose number is in a message. Can sleep, so it must not be called in a callback. Returns NULL if the page is not
 * in the pool of an instance.
 */
void *mk_receive_map_page(struct mk_ipi_data *data);
/* Unmaps a page that mk_receive_map_page has mapped. */
void mk_receive_unmap_page(void *page);

#endif
