// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Runs a program on a UART without a driver: uartsh PORT PROGRAM [WORD...]
 *
 * In a spawned Linux the UART driver must not search for UARTs, because it would find those of its host. So this program polls
 * the UART at PORT through /dev/port, and copies its bytes to and from the terminal of PROGRAM.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

/* Offsets of the UART's registers, and bits of its line status register. */
#define DATA 0
#define LINE_STATUS 5
#define HAS_BYTE 0x01
#define TAKES_BYTE 0x20

#define IDLE_MICROSECONDS 5000

static int ports;

static unsigned char in(unsigned short port)
{
	unsigned char byte;

	if (pread(ports, &byte, 1, port) == 1)
		return byte;
	perror("uartsh: /dev/port");
	exit(1);
}

static void out(unsigned char byte, unsigned short port)
{
	if (pwrite(ports, &byte, 1, port) == 1)
		return;
	perror("uartsh: /dev/port");
	exit(1);
}

static void run(const char *terminal, char **words)
{
	struct winsize size = { .ws_row = 24, .ws_col = 80 };
	int tty;

	setsid();
	tty = open(terminal, O_RDWR);
	if (tty < 0 || ioctl(tty, TIOCSCTTY, 0))
		_exit(126);
	ioctl(tty, TIOCSWINSZ, &size);
	dup2(tty, 0);
	dup2(tty, 1);
	dup2(tty, 2);
	execv(words[0], words);
	_exit(127);
}

/* Copies the available bytes in both directions. Returns 1 if there were any, 0 if not, -1 if the terminal is closed. */
static int move_bytes(unsigned short port, int pty)
{
	unsigned char byte;
	int moved = 0;
	ssize_t got;

	while (in(port + LINE_STATUS) & HAS_BYTE) {
		byte = in(port + DATA);
		if (write(pty, &byte, 1) == 1)
			moved = 1;
	}
	/* At most 80 bytes in one call, so that input which arrives during this time does not wait for long. */
	for (int left = 80; left; left--) {
		got = read(pty, &byte, 1);
		if (got != 1)
			return got < 0 && errno == EAGAIN ? moved : -1;
		while (!(in(port + LINE_STATUS) & TAKES_BYTE))
			;
		out(byte, port + DATA);
		moved = 1;
	}
	return moved;
}

int main(int argc, char **argv)
{
	char *end;
	unsigned long port = argc > 2 ? strtoul(argv[1], &end, 0) : 0;
	int pty, tty, moved, status;
	pid_t child;

	if (argc < 3 || *end || !port || port > 0xfff8) {
		fprintf(stderr, "uartsh PORT PROGRAM [WORD...]\n");
		return 2;
	}
	pty = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
	if (pty < 0 || grantpt(pty) || unlockpt(pty)) {
		perror("uartsh: no terminal");
		return 1;
	}
	ports = open("/dev/port", O_RDWR | O_CLOEXEC);
	if (ports < 0) {
		perror("uartsh: /dev/port");
		return 1;
	}
	/* This process keeps the terminal open. Otherwise reads of the master fail until the program has opened it. */
	tty = open(ptsname(pty), O_RDWR | O_NOCTTY);
	child = fork();
	if (!child)
		run(ptsname(pty), argv + 2);
	if (child < 0 || tty < 0) {
		perror("uartsh");
		return 1;
	}
	while (waitpid(child, &status, WNOHANG) != child) {
		moved = move_bytes(port, pty);
		if (moved <= 0)
			usleep(IDLE_MICROSECONDS);
	}
	while (move_bytes(port, pty) > 0)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
