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

/* A message, as callbacks get it: a private copy, valid until the callback returns. */
struct mk_ipi_data {
	int sender_cpu;		/* APIC id of the sender */
	unsigned int type;
	size_t data_size;	/* bytes of buffer in use, 0..256 */
	char buffer[MK_MAX_DATA_SIZE];
};

/* Called in hard interrupt context or with interrupts off: must not sleep. May send; must not unregister. */
typedef void (*mk_ipi_callback_t)(struct mk_ipi_data *data, void *ctx);

struct mk_ipi_handler;

/* Any context but NMI. NULL for a null callback, or when all places are taken. */
struct mk_ipi_handler *multikernel_register_handler(mk_ipi_callback_t callback, void *ctx, unsigned int ipi_type);
/* May sleep. When it returns, the callback is not running and will not run again. */
void multikernel_unregister_handler(struct mk_ipi_handler *handler);
/*
 * Any context but NMI; never sleeps. 0, or
 *   -EINVAL   an unknown instance, or more than 256 bytes
 *   -ENODEV   the instance has no region
 *   -ENOSPC   its lane is full; -EAGAIN: it has not answered this life of ours yet. Try again (native)
 *   -EBUSY    its slot is occupied. Try again (RFC v2)
 *   -EPROTO   it takes nothing from us, or contradicts itself (native)
 *   -ESTALE, -ERANGE, -ENXIO   the slot's claim was lost; our APIC id does not fit; its CPU cannot be rung
 * 0 also if it was stored and the doorbell did not ring: the next one, or its own look, delivers it.
 * What is unread when its kernel dies goes to that kernel's next life (native).
 * No bytes: 0, and nothing arrives.
 */
int multikernel_send_ipi_data(int instance_id, void *data, size_t data_size, unsigned long type);
/* For a vector of one's own that peers ring; interrupts off. */
void generic_multikernel_interrupt(void);
int mk_send_pfn(int instance_id, unsigned long pfn);
int mk_receive_pfn(struct mk_ipi_data *data, unsigned long *out_pfn);
/* May sleep: not in the callback. NULL unless the page belongs to an instance's pool. */
void *mk_receive_map_page(struct mk_ipi_data *data);
void mk_receive_unmap_page(void *page);

#endif
