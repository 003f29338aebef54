// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * The devices /dev/mk_ipi_peerN (mk_ipi_peer.h): their files, the wait queues, and memory that is charged to the program that
 * opens a file. In C because Linux has no Rust interface for these that both 6.12 and 7.3 have. services/channel.rs makes and
 * reads the messages on the link.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt
#include <linux/cdev.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/wait.h>
#include "glue.h"
#include "mk_ipi_peer.h"

/* One open file. */
struct opened {
	/* Guards the fields below. It is not held while a call waits. */
	struct mutex lock;
	unsigned int peer;
	/* The index of the file's channel in the table of channel.rs. Below 0 if the file is not bound. */
	int slot;
	/* How many resets the program was told of, or need not be told of: by read, and by write. */
	u32 seen[2];
	/* A buffer for the message that is copied from or to the program. */
	u8 message[MK_IPI_MAX_MESSAGE];
};

static wait_queue_head_t waits[MK_IPI_MAX_CHANNELS];
static dev_t numbers;
static struct cdev peer_cdev;
static struct device *devices[MK_IPI_MAX_INSTANCES];

static int bind(struct file *file, struct opened *opened, u32 channel)
{
	bool reads = file->f_mode & FMODE_READ, writes = file->f_mode & FMODE_WRITE;
	int slot = mk_ipi_rs_peer_bind(opened->peer, channel, reads, writes, opened->seen);

	if (slot < 0)
		return slot;
	/* poll and the waits read opened->slot without the lock. */
	smp_store_release(&opened->slot, slot);
	return 0;
}

/* Binds the file to channel 0, if it is not bound to a channel yet. */
static int bound(struct file *file, struct opened *opened)
{
	int err = 0;

	mutex_lock(&opened->lock);
	if (opened->slot < 0)
		err = bind(file, opened, 0);
	mutex_unlock(&opened->lock);
	return err;
}

static int peer_open(struct inode *inode, struct file *file)
{
	struct opened *opened = kmalloc(sizeof(*opened), GFP_KERNEL_ACCOUNT);

	if (!opened)
		return -ENOMEM;
	mutex_init(&opened->lock);
	opened->peer = iminor(inode) - MINOR(numbers);
	opened->slot = -1;
	file->private_data = opened;
	return stream_open(inode, file);
}

static int peer_release(struct inode *inode, struct file *file)
{
	struct opened *opened = file->private_data;

	if (opened->slot >= 0)
		mk_ipi_rs_peer_unbind(opened->slot, file->f_mode & FMODE_READ, file->f_mode & FMODE_WRITE);
	kfree(opened);
	return 0;
}

static long peer_ioctl(struct file *file, unsigned int what, unsigned long arg)
{
	struct opened *opened = file->private_data;
	struct mk_ipi_bind wanted;
	long err;

	if (what != MK_IPI_BIND)
		return -ENOTTY;
	if (copy_from_user(&wanted, (void __user *)arg, sizeof(wanted)))
		return -EFAULT;
	if (wanted.flags)
		return -EINVAL;
	mutex_lock(&opened->lock);
	err = opened->slot < 0 ? bind(file, opened, wanted.channel) : -EBUSY;
	mutex_unlock(&opened->lock);
	return err;
}

/* Tries once to read a message. Returns -EAGAIN if there is none. */
static ssize_t try_read(struct opened *opened, char __user *to, size_t room)
{
	ssize_t len;

	mutex_lock(&opened->lock);
	len = mk_ipi_rs_peer_read(opened->slot, opened->message, min(room, sizeof(opened->message)), opened->seen);
	if (len > 0 && copy_to_user(to, opened->message, len))
		len = -EFAULT;
	mutex_unlock(&opened->lock);
	return len;
}

/* Tries once to write a message. Returns -EAGAIN if there is no room. */
static ssize_t try_write(struct opened *opened, const char __user *from, size_t len)
{
	ssize_t sent = -EFAULT;

	mutex_lock(&opened->lock);
	if (!copy_from_user(opened->message, from, len))
		sent = mk_ipi_rs_peer_write(opened->slot, opened->message, len, opened->seen);
	mutex_unlock(&opened->lock);
	return sent;
}

static __poll_t ready(struct opened *opened)
{
	return mk_ipi_rs_peer_ready(opened->slot, opened->seen[0], opened->seen[1]);
}

static ssize_t peer_read(struct file *file, char __user *to, size_t room, loff_t *at)
{
	struct opened *opened = file->private_data;
	ssize_t len = bound(file, opened);

	if (len || !room)
		return len;
	/* A message that was taken out of the channel cannot be put back. So the buffer is checked before that. */
	if (fault_in_writeable(to, min_t(size_t, room, MK_IPI_MAX_MESSAGE)))
		return -EFAULT;
	for (;;) {
		len = try_read(opened, to, room);
		if (len != -EAGAIN || file->f_flags & O_NONBLOCK)
			return len;
		len = wait_event_interruptible(waits[opened->slot], ready(opened) & (EPOLLIN | EPOLLHUP));
		if (len)
			return len;
	}
}

static ssize_t peer_write(struct file *file, const char __user *from, size_t len, loff_t *at)
{
	struct opened *opened = file->private_data;
	ssize_t sent = bound(file, opened);

	if (sent || !len)
		return sent;
	if (len > MK_IPI_MAX_MESSAGE)
		return -EMSGSIZE;
	for (;;) {
		sent = try_write(opened, from, len);
		if (sent != -EAGAIN || file->f_flags & O_NONBLOCK)
			return sent;
		sent = wait_event_interruptible(waits[opened->slot], ready(opened) & (EPOLLOUT | EPOLLHUP));
		if (sent)
			return sent;
	}
}

static __poll_t peer_poll(struct file *file, poll_table *table)
{
	struct opened *opened = file->private_data;
	__poll_t found, may = 0;

	if (bound(file, opened))
		return EPOLLERR;
	poll_wait(file, &waits[opened->slot], table);
	found = ready(opened);
	if (file->f_mode & FMODE_READ)
		may |= EPOLLIN | EPOLLRDNORM;
	if (file->f_mode & FMODE_WRITE)
		may |= EPOLLOUT | EPOLLWRNORM;
	return found & (may | EPOLLHUP);
}

static const struct file_operations peer_fops = {
	.owner = THIS_MODULE,
	.open = peer_open,
	.release = peer_release,
	.read = peer_read,
	.write = peer_write,
	.poll = peer_poll,
	.unlocked_ioctl = peer_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static char *peer_devnode(const struct device *device, umode_t *mode)
{
	if (mode)
		*mode = 0660;
	return NULL;
}

static const struct class peer_class = {
	.name = "mk_ipi_peer",
	.devnode = peer_devnode,
};

int mk_ipi_glue_peer_start(void)
{
	unsigned int i;
	int err;

	for (i = 0; i < MK_IPI_MAX_CHANNELS; i++)
		init_waitqueue_head(&waits[i]);
	err = class_register(&peer_class);
	if (err)
		return err;
	err = alloc_chrdev_region(&numbers, 0, MK_IPI_MAX_INSTANCES, "mk_ipi_peer");
	if (err)
		goto no_numbers;
	cdev_init(&peer_cdev, &peer_fops);
	peer_cdev.owner = THIS_MODULE;
	err = cdev_add(&peer_cdev, numbers, MK_IPI_MAX_INSTANCES);
	if (!err)
		return 0;
	unregister_chrdev_region(numbers, MK_IPI_MAX_INSTANCES);
no_numbers:
	class_unregister(&peer_class);
	return err;
}

void mk_ipi_glue_peer_stop(void)
{
	cdev_del(&peer_cdev);
	unregister_chrdev_region(numbers, MK_IPI_MAX_INSTANCES);
	class_unregister(&peer_class);
}

int mk_ipi_glue_peer_add(unsigned int id)
{
	struct device *device = device_create(&peer_class, NULL, numbers + id, NULL, "mk_ipi_peer%u", id);

	if (IS_ERR(device))
		return PTR_ERR(device);
	devices[id] = device;
	return 0;
}

void mk_ipi_glue_peer_remove(unsigned int id)
{
	if (devices[id])
		device_destroy(&peer_class, numbers + id);
	devices[id] = NULL;
}

/* Wakes all programs that wait for a channel. Can be called in any context except an NMI. */
void mk_ipi_glue_peer_wake(unsigned int slot)
{
	wake_up_all(&waits[slot]);
}

/* Allocates memory for a channel or a terminal. It is charged to the current program. Can sleep. */
void *mk_ipi_glue_alloc(size_t len)
{
	return kvzalloc(len, GFP_KERNEL_ACCOUNT);
}

void mk_ipi_glue_free(void *at)
{
	kvfree(at);
}
