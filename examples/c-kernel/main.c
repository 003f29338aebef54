/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A spawned kernel: its start, its command line, its place among the others. */
#include "kernel.h"

struct options options = { .x2apic = -1, .native = 1, .messages = 1000 };
unsigned int me, nr_kernels;

extern char __image_start[];
_Noreturn void kernel_main(const struct start_info *info);

void give_up(enum failure how)
{
	if (!options.serve)
		machine_exit(how);
	__asm__ volatile("cli" : : : "memory");
	/* After an exception nothing can be relied upon. Then the heartbeat ends by itself. */
	if (how != EXCEPTION)
		mk_ipi_goodbye(&mk);
	machine_halt();
}

/* ---- the command line ---- */

static size_t length(const char *text)
{
	size_t n = 0;

	while (text[n])
		n++;
	return n;
}

static int begins(const char *text, const char *with)
{
	while (*with && *text == *with)
		text++, with++;
	return !*with;
}

/* Returns whether a word of the line ends here. */
static int is_end(const char *at)
{
	return *at == '\0' || *at == ' ';
}

/* The value of the option `name` in `line`; the last one if there are several, NULL if there is none. */
static const char *value_of(const char *line, const char *name)
{
	const char *at, *value = NULL;

	for (at = line; *at; at++)
		if ((at == line || at[-1] == ' ') && begins(at, name))
			value = at + length(name);
	return value;
}

/* Returns whether `value` is this word. */
static int is(const char *value, const char *word)
{
	return value && begins(value, word) && is_end(value + length(word));
}

/* The number that begins at `digits`, hexadecimal with 0x, at most `most`; 0 if there is none. */
static uint64_t number(const char *digits, uint64_t most)
{
	uint64_t base = 10, n = 0, digit;

	if (!digits)
		return 0;
	if (begins(digits, "0x")) {
		base = 16;
		digits += 2;
	}
	for (; !is_end(digits); digits++) {
		digit = *digits >= 'a' ? (uint64_t)(*digits - 'a') + 10 : (uint64_t)(*digits - '0');
		if (digit >= base || n > (most - digit) / base)
			return 0;
		n = base * n + digit;
	}
	return n;
}

/* The kernel of the demo for which this image is linked. */
static unsigned int own_kernel(void)
{
	return (unsigned int)(((uint64_t)__image_start - 0x01000000) / 0x01000000);
}

/* In the demo the host passes on its own options, which it has checked. */
static void read_demo_options(const char *line)
{
	const char *run = value_of(line, "mk_ipi.run="), *generation = value_of(line, "mk_ipi.generation=");
	const char *fault = value_of(line, "mk_ipi.fault="), *n = value_of(line, "mk_ipi.messages=");
	const char *whose = fault;

	if (run && !is(run, "demo"))
		fatal("the kernel in C can only run the demo or serve");
	if (value_of(line, "mk_ipi.kill="))
		fatal("the kernel in C keeps no journal of its deaths");
	while (whose && !is_end(whose) && *whose++ != ':')
		;
	if (fault && number(whose, MAX_KERNELS) == me) {
		options.hang = begins(fault, "hang:");
		if (!options.hang)
			fatal("the kernel in C fails by hanging only");
	}
	options.native = !generation || is(generation, "native");
	if (n)
		options.messages = number(n, MAX_MESSAGES);
	if (options.messages == 0)
		fatal("bad number of messages");
}

static void read_options(const char *line)
{
	const char *mode = value_of(line, "mk_ipi.mode="), *console = value_of(line, "mk_ipi.console=");

	options.serve = is(value_of(line, "mk_ipi.run="), "serve");
	me = options.serve ? NOBODY : own_kernel();
	if (options.serve)
		console_own((unsigned short)number(console, 0xffff));
	else
		read_demo_options(line);
	if (options.serve && console && number(console, 0xffff) == 0)
		fatal("bad mk_ipi.console=");
	if (is(mode, "xapic") || is(mode, "x2apic"))
		options.x2apic = is(mode, "x2apic");
	else if (mode && !is(mode, "present"))
		fatal("bad mk_ipi.mode=");
}

/* ---- the start ---- */

/* Takes this kernel's place among the others. From then on it takes messages. */
static void join(const char *line)
{
	uint64_t start = now();
	uint32_t life;
	int err;

	/* The host may be writing another entry. If it died while it wrote, that state never ends. */
	do
		err = mk_ipi_start(&mk, line, length(line));
	while (err == -MK_IPI_EAGAIN && now() - start < SECOND);
	if (err == 0)
		fatal("mk_ipi_shared= is missing");
	if (err < 0)
		fatal("mk_ipi_start: -%u", (unsigned long)-err);
	nr_kernels = (unsigned int)err;
	err = mk_ipi_identity(&mk, &life);
	if (!options.serve && (unsigned int)err != me)
		fatal("the directory lists kernel %u with this region", (unsigned long)err);
	me = (unsigned int)err;
	record("{\"kernel\":{\"id\":%u,\"lang\":\"c\",\"cpu\":%u,\"life\":%u}}", (unsigned long)me, apic_id(),
	       (unsigned long)life);
	say("image at %x, %s, %u kernels known", (uint64_t)__image_start, options.x2apic ? "x2apic" : "xapic",
	    (unsigned long)nr_kernels);
	__asm__ volatile("sti" : : : "memory");
}

void kernel_main(const struct start_info *info)
{
	const char *line = info->cmdline ? (const char *)info->cmdline : "";

	/* Nothing tells which kernel owns the console and the machine. */
	if (info->magic != START_MAGIC || info->version == 0)
		machine_halt();
	read_options(line);
	options.x2apic = interrupts_init(options.x2apic, options.serve);
	platform_init(info);
	payload_init();
	if (options.serve) {
		serve_register();
		join(line);
		serve_run();
	}
	demo_register();
	join(line);
	demo_run();
}
