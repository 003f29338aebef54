/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A peer that passes each call to a program in any language, for `mk_ipi_test --peer ./mk_ipi_peer_stdio.so`. The environment
 * variable MK_IPI_PEER_PROGRAM has the shell command that starts the program. The program reads commands from its standard input,
 * and writes answers to its standard output. The shared memory is a file, which the program maps. mk-ipi-conformance/README.md
 * describes the lines of commands and answers.
 */
#include "mk_ipi_peer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MOST_RINGS 64
/* Room for `= 1 CPU TYPE ` and two digits for each byte. */
#define LINE (2 * 4096 + 128)

static struct mk_ipi_peer_setup setup;
static FILE *to, *from;
static char file[] = "/tmp/mk_ipi_peer_XXXXXX";
static int mapped;

static void fail(const char *what)
{
	fprintf(stderr, "the peer's program: %s\n", what);
	exit(1);
}

static void forget_file(void)
{
	unlink(file);
}

/* Replaces the test's memory by a mapping of a file, at the same address. */
static void share(void)
{
	int fd = mkstemp(file);

	if (fd < 0 || atexit(forget_file) || (uintptr_t)setup.memory % 4096 || setup.len % 4096)
		fail("the memory of the test cannot be shared with it");
	if (write(fd, setup.memory, setup.len) != (ssize_t)setup.len ||
	    mmap(setup.memory, setup.len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) != setup.memory)
		fail("the memory of the test cannot be shared with it");
	close(fd);
	mapped = 1;
}

static void start(void)
{
	const char *program = getenv("MK_IPI_PEER_PROGRAM");
	int input[2], output[2];
	pid_t child;

	if (!program)
		fail("MK_IPI_PEER_PROGRAM is not set");
	if (pipe(input) || pipe(output))
		fail("its pipes cannot be made");
	child = fork();
	if (child == 0) {
		dup2(input[0], 0);
		dup2(output[1], 1);
		/* If the program had these descriptors too, it would never see the end of its input. */
		close(input[0]);
		close(input[1]);
		close(output[0]);
		close(output[1]);
		execl("/bin/sh", "sh", "-c", program, (char *)NULL);
		_exit(127);
	}
	close(input[0]);
	close(output[1]);
	to = fdopen(input[1], "w");
	from = fdopen(output[0], "r");
	if (child < 0 || !to || !from)
		fail("it cannot be started");
}

/*
 * Reads the answer to a command: lines with doorbells, and then a line with the result. Copies what follows the result to `rest`.
 * The doorbells are rung after that, while the program waits for the next command.
 */
static int answer(char *rest)
{
	static char line[LINE];
	struct {
		unsigned long long cpu;
		unsigned vector;
	} rings[MOST_RINGS];
	unsigned nr_rings = 0, i;
	int result, at = 0;

	fflush(to);
	for (;;) {
		if (!fgets(line, sizeof(line), from))
			fail("it has ended");
		if (sscanf(line, "ring %llu %u", &rings[nr_rings].cpu, &rings[nr_rings].vector) != 2)
			break;
		if (++nr_rings == MOST_RINGS)
			fail("it rings more than 63 doorbells during one command");
	}
	if (sscanf(line, "= %d %n", &result, &at) != 1)
		fail(line);
	if (rest)
		strcpy(rest, line + at);
	for (i = 0; i < nr_rings; i++)
		setup.ring(setup.ctx, rings[i].cpu, rings[i].vector);
	return result;
}

static void tell_side(const struct mk_ipi_peer_side *side)
{
	fprintf(to, " %d %u %llu %llu %llu", side->id, side->incarnation, (unsigned long long)side->cpu,
		(unsigned long long)side->region, (unsigned long long)side->region_len);
}

int mk_ipi_peer_init(const struct mk_ipi_peer_setup *given)
{
	if (given->version != MK_IPI_PEER_VERSION)
		return -71;
	setup = *given;
	if (!mapped)
		share();
	if (!to)
		start();
	fprintf(to, "init %s %llu %llu %u %u %u %u", file, (unsigned long long)setup.phys, (unsigned long long)setup.len,
		setup.layout, setup.exclusive, setup.slots, setup.vector);
	tell_side(&setup.self);
	tell_side(&setup.other);
	fputc('\n', to);
	return answer(NULL);
}

int mk_ipi_peer_send(uint32_t type, const void *data, size_t size)
{
	size_t i;

	fprintf(to, "send %u ", type);
	for (i = 0; i < size; i++)
		fprintf(to, "%02x", ((const unsigned char *)data)[i]);
	fputc('\n', to);
	return answer(NULL);
}

int mk_ipi_peer_receive(struct mk_ipi_peer_message *message)
{
	static char rest[LINE];
	unsigned long long cpu;
	unsigned byte;
	int result, at = 0;

	fputs("receive\n", to);
	result = answer(rest);
	if (result != 1)
		return result;
	message->size = 0;
	if (sscanf(rest, "%llu %u %n", &cpu, &message->type, &at) != 2)
		fail(rest);
	message->sender_cpu = cpu;
	for (; sscanf(rest + at, "%2x", &byte) == 1 && message->size < sizeof(message->bytes); at += 2)
		message->bytes[message->size++] = (unsigned char)byte;
	return 1;
}

void mk_ipi_peer_interrupt(void)
{
	fputs("interrupt\n", to);
	answer(NULL);
}

void mk_ipi_peer_fini(void)
{
	fputs("fini\n", to);
	answer(NULL);
}
