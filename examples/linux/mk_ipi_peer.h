/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * /dev/mk_ipi_peerN: messages between programs on this Linux and programs on the kernel N (SPEC.md, chapter G). For programs.
 *
 * open     O_RDONLY, O_WRONLY or O_RDWR, with O_NONBLOCK or without.
 * ioctl    MK_IPI_BIND says which channel, once, before anything else. Without it the first read, write or poll binds to channel 0. A channel
 *          has one file that reads at a time, on each kernel, and any number that write.
 * write    sends one message of 1 to MK_IPI_MAX_MESSAGE bytes, whole or not at all. Waits while nobody reads there, or whoever does is slow.
 * read     takes one message, whole.
 * poll     POLLIN: there is a message, or an error to be told of by read; POLLOUT: the same of write, a message of full length is taken.
 *
 * EAGAIN      O_NONBLOCK, and it would wait.
 * EINTR       a signal came while it waited: nothing was sent or taken. As usual, with SA_RESTART the call goes on.
 * EMSGSIZE    write: longer than MK_IPI_MAX_MESSAGE. read: the message is longer than the buffer, and stays.
 * EPIPE       the kernel N has ended. What had come from it is read first.
 * ECONNRESET  the kernel N lives anew, or (write) its reader went: what was sent and not read is lost. Told once to each file; then
 *             everything is as after open. read tells of it behind what came before.
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
	__u32 channel;	/* by which programs on the two kernels find each other */
	__u32 flags;	/* 0 */
};

#define MK_IPI_BIND _IOW(0xb9, 0x00, struct mk_ipi_bind)

#endif
