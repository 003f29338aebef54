/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The start of this kernel: it reads its command line, and joins the other kernels. */
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
	/* After an exception the state may be wrong, so mk_ipi_goodbye is not called. The host sees that the heartbeat ends. */
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

/* Returns whether a word of the command line ends at `at`. */
static int is_end(const char *at)
{
	return *at == '\0' || *at == ' ';
}

/* The value of the option `name` in `line`. If it occurs several times, the last one. NULL if it is absent. */
static const char *value_of(const char *line, const char *name)
{
	const char *at, *value = NULL;

	for (at = line; *at; at++)
		if ((at == line || at[-1] == ' ') && begins(at, name))
			value = at + length(name);
	return value;
}

/* Returns whether the word at `value` is `word`. False if `value` is NULL. */
static int is(const char *value, const char *word)
{
	return value && begins(value, word) && is_end(value + length(word));
}

/* The number at `digits`, decimal or hexadecimal with 0x. 0 if it is invalid or above `most`, or if `digits` is NULL. */
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

/* The number of the demo's kernel at whose address this image is linked. */
static unsigned int own_kernel(void)
{
	return (unsigned int)(((uint64_t)__image_start - 0x01000000) / 0x01000000);
}

/* In the demo, the host writes this kernel's options, and has checked them. */
static void read_demo_options(const char *line)
{
	const char *run = value_of(line, "mk_ipi.run="), *generation = value_of(line, "mk_ipi.generation=");
	const char *fault = value_of(line, "mk_ipi.fault="), *n = value_of(line, "mk_ipi.messages=");
	const char *whose = fault;

	if (run && !is(run, "demo"))
		fatal("mk_ipi.run=: the kernel in C supports only demo and serve");
	if (value_of(line, "mk_ipi.kill="))
		fatal("the kernel in C does not support mk_ipi.kill=");
	while (whose && !is_end(whose) && *whose++ != ':')
		;
	if (fault && number(whose, MAX_KERNELS) == me) {
		options.hang = begins(fault, "hang:");
		if (!options.hang)
			fatal("mk_ipi.fault=: the kernel in C supports only hang");
	}
	options.native = !generation || is(generation, "native");
	if (n)
		options.messages = number(n, MAX_MESSAGES);
	if (options.messages == 0)
		fatal("bad mk_ipi.messages=");
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

/* Joins the other kernels. When this returns, the kernel takes messages. */
static void join(const char *line)
{
	uint64_t start = now();
	uint32_t life;
	int err;

	/* EAGAIN: the host is changing the directory. The wait is bounded, because the host may die meanwhile. */
	do
		err = mk_ipi_start(&mk, line, length(line));
	while (err == -MK_IPI_EAGAIN && now() - start < SECOND);
	if (err == 0)
		fatal("mk_ipi_shared= is absent: no host started this kernel");
	if (err < 0)
		fatal("mk_ipi_start: -%u", (unsigned long)-err);
	nr_kernels = (unsigned int)err;
	err = mk_ipi_identity(&mk, &life);
	if (!options.serve && (unsigned int)err != me)
		fatal("the directory lists this region for kernel %u", (unsigned long)err);
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

	/* Without a start info this kernel does not know whether it may use the console or end the machine. */
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
