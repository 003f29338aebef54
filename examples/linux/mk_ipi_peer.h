/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * /dev/mk_ipi_peerN: messages between programs on this Linux and programs on kernel N (SPEC.md, chapter G). For programs.
 *
 * open     O_RDONLY, O_WRONLY or O_RDWR, with O_NONBLOCK or without.
 * ioctl    MK_IPI_BIND chooses the channel, once, before anything else. Without it the first read, write or poll binds to channel
 * 0. On
 *          each kernel a channel has at most one file that reads, and any number that write.
 * write    sends one message of 1 to MK_IPI_MAX_MESSAGE bytes, whole or not at all. It waits while there is no reader, or a slow
 * one.
 * read     takes one whole message.
 * poll     POLLIN: there is a message, or an error that read will report. POLLOUT: a message of full length would be taken, or
 * there is
 *          an error that write will report.
 *
 * EAGAIN      O_NONBLOCK is set, and the call would have to wait.
 * EINTR       a signal came during the wait: nothing was sent or taken. As usual, with SA_RESTART the call goes on.
 * EMSGSIZE    write: longer than MK_IPI_MAX_MESSAGE. read: the message is longer than the buffer, and stays.
 * EPIPE       kernel N has ended. Messages that had come from it are read first.
 * ECONNRESET  kernel N has a new life, or (write) its reader has gone: what was sent and not read is lost. Each file gets this
 * once, and
 *             is then as after open. read reports it after the messages that came before.
 * EBUSY       bind: another file reads that channel, or this file is bound already.
 * ENOSPC      bind: too many channels are open.
 * ENODEV      there is no kernel N.
 */
#ifndef MK_IPI_PEER_H
#define MK_IPI_PEER_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define MK_IPI_MAX_MESSAGE 4096

struct mk_ipi_bind {
	__u32 channel;	/* programs on the two kernels find each other by it */
	__u32 flags;	/* 0 */
};

#define MK_IPI_BIND _IOW(0xb9, 0x00, struct mk_ipi_bind)

#endif
