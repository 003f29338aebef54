/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * mk-ipi for C modules of this Linux: the calls of generation RFC v2 (SPEC.md, chapter C), exported by mk_ipi.ko.
 * They work on both generations of links.
 */
#ifndef MK_IPI_LINUX_H
#define MK_IPI_LINUX_H

#include <linux/types.h>

#define MK_MAX_DATA_SIZE 256
#define MK_MAX_INSTANCES 256
#define MK_PFN_IPI_TYPE 0x80000001U

/* The message that a callback gets: a private copy, valid until the callback returns. */
struct mk_ipi_data {
	int sender_cpu;		/* APIC id of the sender */
	unsigned int type;
	size_t data_size;	/* bytes of buffer in use, 0..256 */
	char buffer[MK_MAX_DATA_SIZE];
};

/* Called in hard interrupt context or with interrupts off: must not sleep. It can send; it must not unregister. */
typedef void (*mk_ipi_callback_t)(struct mk_ipi_data *data, void *ctx);

struct mk_ipi_handler;

/* In any context except NMI. Returns NULL for a null callback, or when all places are taken. */
struct mk_ipi_handler *multikernel_register_handler(mk_ipi_callback_t callback, void *ctx, unsigned int ipi_type);
/* Can sleep. When it returns, the callback is not running and will not run again. */
void multikernel_unregister_handler(struct mk_ipi_handler *handler);
/*
 * In any context except NMI; never sleeps. Returns 0, or
 *   -EINVAL   an unknown instance, or more than 256 bytes
 *   -ENODEV   the instance has no region
 *   -ENOSPC   its lane is full. -EAGAIN: it has not yet answered this life of the caller's kernel. Try again (native)
 *   -EBUSY    its slot is occupied. Try again (RFC v2)
 *   -EPROTO   it takes nothing from this kernel, or contradicts itself (native)
 *   -ESTALE, -ERANGE, -ENXIO   the slot's claim was lost; this CPU's APIC id does not fit; its CPU cannot be rung
 * It also returns 0 if the message was stored but the doorbell failed. Then the next doorbell, or the receiver's own look,
 * delivers it.
 * Messages that are unread when the receiver dies go to its kernel's next life (native).
 * With no bytes it returns 0, and nothing arrives.
 */
int multikernel_send_ipi_data(int instance_id, void *data, size_t data_size, unsigned long type);
/* For a vector of the caller's own that peers ring. Interrupts must be off. */
void generic_multikernel_interrupt(void);
int mk_send_pfn(int instance_id, unsigned long pfn);
int mk_receive_pfn(struct mk_ipi_data *data, unsigned long *out_pfn);
/* Can sleep, so do not call it in the callback. Returns NULL unless the page belongs to an instance's pool. */
void *mk_receive_map_page(struct mk_ipi_data *data);
void mk_receive_unmap_page(void *page);

#endif
