/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Output of text. All kernels of the demo share one serial line, COM1, and a lock keeps their lines of text apart. A line that
 * begins with `@` contains a JSON object, which xtask reads. Other lines are for people. A kernel that serves has its own serial
 * line, or prints nothing.
 */
#include "kernel.h"

#define LINE 512
#define COM1 0x3f8

/* The base of the UART. 0 means that this kernel prints nothing. */
static unsigned short port = COM1;
/* Whether no other kernel uses the UART, so that no lock is needed. */
static int is_own;

struct line {
	char bytes[LINE];
	size_t size;
};

static void put(struct line *line, char c)
{
	if (line->size < LINE - 1)
		line->bytes[line->size++] = c;
}

static void put_text(struct line *line, const char *text)
{
	while (*text)
		put(line, *text++);
}

static void put_number(struct line *line, unsigned long n, unsigned int base)
{
	char digits[20];
	int i = 0;

	do {
		digits[i++] = "0123456789abcdef"[n % base];
		n /= base;
	} while (n);
	while (i)
		put(line, digits[--i]);
}

static void put_all(struct line *line, const char *format, va_list args)
{
	for (; *format; format++) {
		if (*format != '%') {
			put(line, *format);
			continue;
		}
		switch (*++format) {
		case 's':
			put_text(line, va_arg(args, const char *));
			break;
		case 'u':
			put_number(line, va_arg(args, unsigned long), 10);
			break;
		case 'x':
			put_text(line, "0x");
			put_number(line, va_arg(args, unsigned long), 16);
			break;
		default:
			put(line, '%');
		}
	}
}

/* Sets the 16550 at `base` to 115200 baud and 8 data bits, with empty FIFOs and without interrupts. */
void console_own(unsigned short base)
{
	static const unsigned char set_up[][2] = {
		{ 1, 0 }, { 3, 0x80 }, { 0, 1 }, { 1, 0 }, { 3, 0x03 }, { 2, 0x07 }, { 4, 0x03 },
	};
	size_t i;

	is_own = 1;
	port = base;
	for (i = 0; port && i < sizeof(set_up) / sizeof(set_up[0]); i++)
		out8(port + set_up[i][0], set_up[i][1]);
}

/* The wait for each byte is bounded, because a UART that takes no bytes must not hang the kernel. */
static void send(const char *bytes, size_t size)
{
	int polls;

	for (; port && size; size--, bytes++) {
		for (polls = 0; polls < 100000 && !(in8(port + 5) & 0x20); polls++)
			pause_cpu();
		out8(port, (unsigned char)*bytes);
	}
}

/*
 * Sends a line while this kernel holds the console's lock. If the lock is not free in time, its holder is assumed to be dead, and
 * this kernel takes the lock. The character CAN of ASCII then tells xtask to ignore the unfinished line. If this kernel itself
 * holds the lock, an exception interrupted it while it printed (`nested`).
 */
static void send_locked(const struct line *line)
{
	uint64_t start = now(), mine = me + 1, holder = 0;
	int nested = 0;

	while (!__atomic_compare_exchange_n(&CONTROL->console, &holder, mine, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
		nested = holder == mine;
		if (nested || now() - start > SECOND / 2) {
			send("\x18\n", 2);
			STORE(CONTROL->console, mine);
			break;
		}
		holder = 0;
		pause_cpu();
	}
	send(line->bytes, line->size);
	if (!nested) {
		holder = mine;
		__atomic_compare_exchange_n(&CONTROL->console, &holder, 0, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
	}
}

static void print(struct line *line)
{
	unsigned long flags = irq_save();

	line->bytes[line->size++] = '\n';
	if (is_own)
		send(line->bytes, line->size);
	else
		send_locked(line);
	irq_restore(flags);
}

void say(const char *format, ...)
{
	struct line line = { .size = 0 };
	va_list args;

	put_text(&line, "[k");
	put_number(&line, me, 10);
	put_text(&line, "] ");
	va_start(args, format);
	put_all(&line, format, args);
	va_end(args);
	print(&line);
}

void record(const char *format, ...)
{
	struct line line = { .size = 0 };
	va_list args;

	put(&line, '@');
	va_start(args, format);
	put_all(&line, format, args);
	va_end(args);
	print(&line);
}

void fatal_as(enum failure how, const char *format, ...)
{
	struct line line = { .size = 0 };
	va_list args;

	put_text(&line, "@{\"error\":{\"kernel\":");
	put_number(&line, me, 10);
	put_text(&line, ",\"text\":\"");
	va_start(args, format);
	put_all(&line, format, args);
	va_end(args);
	put_text(&line, "\"}}");
	print(&line);
	give_up(how);
}
