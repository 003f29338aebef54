/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * /dev/mk_ipi_peerN: messages between programs on this Linux and programs on kernel N (SPEC.md, chapter G). A program includes
 * this header.
 *
 * open     O_RDONLY, O_WRONLY or O_RDWR, with O_NONBLOCK or without.
 * ioctl    MK_IPI_BIND binds the file to a channel. It must be the first call after open. Without it the first read, write or
 *          poll binds the file to channel 0. On each kernel, a channel can have at most one file that reads, and any number of
 *          files that write.
 * write    sends one message of 1 to MK_IPI_MAX_MESSAGE bytes, completely or not at all. It waits while the other kernel has no
 *          reader, or the buffer of its reader is full.
 * read     returns one complete message.
 * poll     POLLIN: there is a message, or an error that read will report. POLLOUT: a message of MK_IPI_MAX_MESSAGE bytes can be
 *          written without waiting, or there is an error that write will report.
 *
 * EAGAIN      O_NONBLOCK is set, and the call would have to wait.
 * EINTR       a signal arrived during the wait. No message was sent or read. With SA_RESTART the call is repeated, as usual.
 * EMSGSIZE    write: the message is longer than MK_IPI_MAX_MESSAGE. read: the message is longer than the buffer; it can still be
 *             read.
 * EPIPE       kernel N has ended. Messages that arrived before its end are read first.
 * ECONNRESET  kernel N has begun a new life; or (write only) the reader on kernel N has closed the channel. Messages that were
 *             sent and not read are lost. Each file gets this error once, and can then be used as after open. Before read
 *             returns this error, it returns the messages that have arrived from the former life.
 * EBUSY       bind: another file reads from that channel, or this file is bound already.
 * ENOSPC      bind: too many channels are open.
 * ENODEV      there is no kernel N.
 */
#ifndef MK_IPI_PEER_H
#define MK_IPI_PEER_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define MK_IPI_MAX_MESSAGE 4096

struct mk_ipi_bind {
	__u32 channel;	/* the number of the channel; the program on the other kernel must use the same number */
	__u32 flags;	/* must be 0 */
};

#define MK_IPI_BIND _IOW(0xb9, 0x00, struct mk_ipi_bind)

#endif
