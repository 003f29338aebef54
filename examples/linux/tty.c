// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * The terminals /dev/ttyMK<ID>, each of which is connected to the kernel <ID>, and the console by which a spawned Linux sends its
 * log to its host. In C because Linux has no Rust interface for terminals and consoles. services/console.rs makes and reads the
 * messages on the link. Its functions take the lock of the lines. This lock is not held when the tty core is called, because a
 * callback of the tty core can take it.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt
#include <linux/console.h>
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/preempt.h>
#include <linux/string.h>
#include <linux/tty.h>
#include <linux/tty_driver.h>
#include <linux/tty_flip.h>
#include "glue.h"

struct mk_ipi_tty {
	struct tty_port port;
	struct device *device;
	/* Held while the port's buffer is filled. It is taken before the lock of the lines. */
	spinlock_t push_lock;
	bool is_open;
	bool is_throttled;
};

static struct mk_ipi_tty ttys[MK_IPI_MAX_INSTANCES];
static struct tty_driver *driver;

static int tty_install(struct tty_driver *from, struct tty_struct *tty)
{
	if (!ttys[tty->index].device)
		return -ENODEV;
	return tty_port_install(&ttys[tty->index].port, from, tty);
}

static int mk_ipi_tty_open(struct tty_struct *tty, struct file *file)
{
	return tty_port_open(tty->port, tty, file);
}

static void mk_ipi_tty_close(struct tty_struct *tty, struct file *file)
{
	tty_port_close(tty->port, tty, file);
}

static void mk_ipi_tty_hangup(struct tty_struct *tty)
{
	tty_port_hangup(tty->port);
}

static ssize_t mk_ipi_tty_write(struct tty_struct *tty, const u8 *from, size_t len)
{
	return mk_ipi_rs_tty_write(tty->index, from, len);
}

static unsigned int mk_ipi_tty_write_room(struct tty_struct *tty)
{
	return mk_ipi_rs_tty_room(tty->index);
}

static unsigned int mk_ipi_tty_chars_in_buffer(struct tty_struct *tty)
{
	return mk_ipi_rs_tty_unsent(tty->index);
}

static void mk_ipi_tty_flush_buffer(struct tty_struct *tty)
{
	mk_ipi_rs_tty_forget(tty->index);
	tty_wakeup(tty);
}

static void mk_ipi_tty_throttle(struct tty_struct *tty)
{
	WRITE_ONCE(ttys[tty->index].is_throttled, true);
}

static void mk_ipi_tty_unthrottle(struct tty_struct *tty)
{
	WRITE_ONCE(ttys[tty->index].is_throttled, false);
	mk_ipi_glue_tty_drain(tty->index);
}

static const struct tty_operations mk_ipi_tty_ops = {
	.install = tty_install,
	.open = mk_ipi_tty_open,
	.close = mk_ipi_tty_close,
	.hangup = mk_ipi_tty_hangup,
	.write = mk_ipi_tty_write,
	.write_room = mk_ipi_tty_write_room,
	.chars_in_buffer = mk_ipi_tty_chars_in_buffer,
	.flush_buffer = mk_ipi_tty_flush_buffer,
	.throttle = mk_ipi_tty_throttle,
	.unthrottle = mk_ipi_tty_unthrottle,
};

static unsigned int id_of(struct tty_port *port)
{
	return container_of(port, struct mk_ipi_tty, port) - ttys;
}

/* Called when the first program opens the terminal. tty_shutdown is called when the last program has closed it. */
static int tty_activate(struct tty_port *port, struct tty_struct *tty)
{
	unsigned int id = id_of(port);

	WRITE_ONCE(ttys[id].is_throttled, false);
	WRITE_ONCE(ttys[id].is_open, true);
	mk_ipi_rs_tty_open(id, true);
	mk_ipi_glue_tty_drain(id);
	return 0;
}

static void tty_shutdown(struct tty_port *port)
{
	unsigned int id = id_of(port);

	WRITE_ONCE(ttys[id].is_open, false);
	mk_ipi_rs_tty_open(id, false);
}

static const struct tty_port_operations mk_ipi_tty_port_ops = {
	.activate = tty_activate,
	.shutdown = tty_shutdown,
};

/*
 * Registers the driver of the terminals. On the host the terminals are in raw mode (is_raw), because the other kernel echoes the
 * input. In a spawned Linux the terminal is not in raw mode, because a login of this Linux reads from it.
 */
int mk_ipi_glue_tty_start(bool is_raw)
{
	unsigned int id;
	int err;

	driver = tty_alloc_driver(MK_IPI_MAX_INSTANCES, TTY_DRIVER_REAL_RAW | TTY_DRIVER_DYNAMIC_DEV);
	if (IS_ERR(driver))
		return PTR_ERR(driver);
	driver->driver_name = "mk_ipi";
	driver->name = "ttyMK";
	driver->type = TTY_DRIVER_TYPE_SERIAL;
	driver->subtype = SERIAL_TYPE_NORMAL;
	driver->init_termios = tty_std_termios;
	driver->init_termios.c_cflag |= CLOCAL;
	if (is_raw) {
		driver->init_termios.c_iflag = 0;
		driver->init_termios.c_oflag = 0;
		driver->init_termios.c_lflag = 0;
	}
	tty_set_operations(driver, &mk_ipi_tty_ops);
	for (id = 0; id < MK_IPI_MAX_INSTANCES; id++) {
		spin_lock_init(&ttys[id].push_lock);
		tty_port_init(&ttys[id].port);
		ttys[id].port.ops = &mk_ipi_tty_port_ops;
	}
	err = tty_register_driver(driver);
	if (!err)
		return 0;
	for (id = 0; id < MK_IPI_MAX_INSTANCES; id++)
		tty_port_destroy(&ttys[id].port);
	tty_driver_kref_put(driver);
	return err;
}

void mk_ipi_glue_tty_stop(void)
{
	unsigned int id;

	tty_unregister_driver(driver);
	for (id = 0; id < MK_IPI_MAX_INSTANCES; id++)
		tty_port_destroy(&ttys[id].port);
	tty_driver_kref_put(driver);
}

int mk_ipi_glue_tty_add(unsigned int id)
{
	struct device *device = tty_port_register_device(&ttys[id].port, driver, id, NULL);

	if (IS_ERR(device))
		return PTR_ERR(device);
	WRITE_ONCE(ttys[id].device, device);
	return 0;
}

void mk_ipi_glue_tty_remove(unsigned int id)
{
	struct tty_struct *tty = tty_port_tty_get(&ttys[id].port);

	WRITE_ONCE(ttys[id].device, NULL);
	if (tty) {
		tty_vhangup(tty);
		tty_kref_put(tty);
	}
	tty_unregister_device(driver, id);
}

/* Passes some of the bytes that have arrived to the reader of the terminal. Returns whether there can be more bytes. */
static bool push(struct mk_ipi_tty *to, unsigned int id)
{
	u8 piece[256];
	u64 lost;
	size_t len, taken;

	if (!READ_ONCE(to->is_open) || READ_ONCE(to->is_throttled))
		return false;
	lost = mk_ipi_rs_tty_lost(id);
	if (lost) {
		len = scnprintf(piece, sizeof(piece), "\r\n[mk_ipi: %llu bytes before this were lost]\r\n", lost);
		tty_insert_flip_string(&to->port, piece, len);
	}
	len = mk_ipi_rs_tty_peek(id, piece, sizeof(piece));
	taken = tty_insert_flip_string(&to->port, piece, len);
	tty_flip_buffer_push(&to->port);
	mk_ipi_rs_tty_read(id, taken);
	return taken == sizeof(piece);
}

/* Passes the bytes that have arrived to the reader, as many as it accepts. Must not be called in an NMI or a hard interrupt. */
void mk_ipi_glue_tty_drain(unsigned int id)
{
	struct mk_ipi_tty *to = &ttys[id];
	unsigned long flags;
	bool more;

	/* Bytes that arrive before the terminal exists stay in the line's buffer. */
	if (!READ_ONCE(to->device))
		return;
	do {
		spin_lock_irqsave(&to->push_lock, flags);
		more = push(to, id);
		spin_unlock_irqrestore(&to->push_lock, flags);
	} while (more);
}

/* Wakes the writers of a terminal, because there is room. */
void mk_ipi_glue_tty_wake(unsigned int id)
{
	if (READ_ONCE(ttys[id].device))
		tty_port_tty_wakeup(&ttys[id].port);
}

/*
 * The console. It is registered when the host asks for this kernel's log. It then begins with the oldest record in printk's
 * buffer, so earlier records are sent, too. If the lane is full, records wait in that buffer. But in a panic, an emergency or an
 * NMI, a record that waits too long for room is dropped.
 */
static bool is_stopping;
static DEFINE_MUTEX(console_device_lock);
/* A record in which CR was put before each LF. The device lock guards it. */
static char record[2 * 2048];

static size_t with_cr(char *to, size_t room, const char *from, size_t len, size_t *used)
{
	size_t at = 0, n = 0;

	while (n < len && at + 2 <= room) {
		if (from[n] == '\n')
			to[at++] = '\r';
		to[at++] = from[n++];
	}
	*used = n;
	return at;
}

static void console_write_thread(struct console *con, struct nbcon_write_context *wctxt)
{
	size_t at = 0, len, used;
	long sent;

	/* If this fails, another context has taken the console over, and uses the buffer. */
	if (!nbcon_enter_unsafe(wctxt))
		return;
	len = with_cr(record, sizeof(record), wctxt->outbuf, wctxt->len, &used);
	if (!nbcon_exit_unsafe(wctxt))
		return;
	while (at < len && nbcon_can_proceed(wctxt)) {
		sent = mk_ipi_rs_log(record + at, len - at, false);
		if (sent > 0)
			at += sent;
		else if (READ_ONCE(is_stopping))
			return;
		else
			usleep_range(500, 1000);
	}
}

/*
 * Waits up to ten milliseconds for room, for each piece of the record. If there was no room in that time, later pieces are
 * dropped without a wait, until a piece could be sent.
 */
static void console_write_atomic(struct console *con, struct nbcon_write_context *wctxt)
{
	static bool is_stuck;
	char piece[128];
	size_t done = 0, at, len, used;
	unsigned int tries;
	long sent;

	while (done < wctxt->len) {
		if (!nbcon_enter_unsafe(wctxt))
			return;
		len = with_cr(piece, sizeof(piece), wctxt->outbuf + done, wctxt->len - done, &used);
		if (!nbcon_exit_unsafe(wctxt))
			return;
		done += used;
		for (at = 0, tries = 0; at < len;) {
			sent = mk_ipi_rs_log(piece + at, len - at, true);
			if (sent > 0) {
				at += sent;
				is_stuck = false;
			} else if (is_stuck || ++tries > 1000) {
				is_stuck = true;
				break;
			} else {
				udelay(10);
			}
		}
	}
}

static void console_lock_device(struct console *con, unsigned long *flags)
{
	mutex_lock(&console_device_lock);
	migrate_disable();
}

static void console_unlock_device(struct console *con, unsigned long flags)
{
	migrate_enable();
	mutex_unlock(&console_device_lock);
}

static struct tty_driver *console_tty(struct console *con, int *index)
{
	*index = 0;
	return driver;
}

static struct console mk_ipi_console = {
	.name = "ttyMK",
	.write_thread = console_write_thread,
	.write_atomic = console_write_atomic,
	.device_lock = console_lock_device,
	.device_unlock = console_unlock_device,
	.device = console_tty,
	/* CON_ENABLED: the console is used even if no console= names it. */
	.flags = CON_NBCON | CON_PRINTBUFFER | CON_ENABLED,
	.index = 0,
};

void mk_ipi_glue_console_start(void)
{
	WRITE_ONCE(is_stopping, false);
	register_console(&mk_ipi_console);
}

void mk_ipi_glue_console_stop(void)
{
	WRITE_ONCE(is_stopping, true);
	unregister_console(&mk_ipi_console);
}
