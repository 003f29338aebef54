// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Test program for /dev/mk_ipi_peerN (../mk_ipi_peer.h):
 *
 *   talk echo DEVICE CHANNEL            sends back each message, for ever; also goes on after the peer has ended or restarted
 *   talk rounds DEVICE CHANNEL COUNT    sends COUNT messages of different lengths with poll; each must come back, in order
 *   talk send DEVICE CHANNEL COUNT      sends COUNT messages, and waits for room; stops at an error, and prints it
 *   talk flood DEVICE CHANNEL           sends messages until it would have to wait; prints how many it has sent
 *   talk hold DEVICE CHANNEL            opens the channel for reading, and reads no message
 *   talk until DEVICE CHANNEL           sends and receives messages, and prints each new error, until it gets a message from the
 *                                       peer's next life
 *   talk fuzz DEVICE SECONDS            calls the device with random arguments
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include "../mk_ipi_peer.h"

static char message[MK_IPI_MAX_MESSAGE + 1], answer[MK_IPI_MAX_MESSAGE + 1];

static int opened(const char *device, const char *channel, int flags)
{
	struct mk_ipi_bind bind = { .channel = strtoul(channel, NULL, 0) };
	int fd = open(device, flags);

	if (fd < 0 || ioctl(fd, MK_IPI_BIND, &bind)) {
		printf("%s, channel %s: %s\n", device, channel, strerror(errno));
		exit(1);
	}
	return fd;
}

static int echo(int fd)
{
	for (;;) {
		ssize_t len = read(fd, message, sizeof(message));

		if (len < 0) {
			printf("echo: read: %s\n", strerror(errno));
			if (errno != EPIPE && errno != ECONNRESET)
				return 1;
			usleep(100000);
			continue;
		}
		if (write(fd, message, len) != len)
			printf("echo: write: %s\n", strerror(errno));
	}
}

/*
 * Makes message n, and returns its length. Every eighth message has a length from 8 bytes to MK_IPI_MAX_MESSAGE, the others have
 * 8 to 207 bytes.
 */
static size_t fill(unsigned long n)
{
	size_t len = 8 + n * 611 % (MK_IPI_MAX_MESSAGE - 7), i;

	if (n % 8)
		len = 8 + len % 200;
	memcpy(message, &n, sizeof(n));
	for (i = sizeof(n); i < len; i++)
		message[i] = (char)(n + i);
	return len;
}

static int rounds(int fd, unsigned long count)
{
	unsigned long sent = 0, got = 0;

	while (got < count) {
		struct pollfd one = { .fd = fd, .events = POLLIN };
		ssize_t len;

		/*
		 * At most 16 messages are on their way, so that this program never waits for room while the other program waits
		 * for room to send messages back.
		 */
		if (sent < count && sent - got < 16)
			one.events |= POLLOUT;
		if (poll(&one, 1, 30000) != 1) {
			printf("poll: no event within 30 s: %lu sent, %lu came back\n", sent, got);
			return 1;
		}
		if (one.revents & POLLIN) {
			len = read(fd, answer, sizeof(answer));
			if (len < 0 && errno == EAGAIN)
				continue;
			if (len < 0 || (size_t)len != fill(got) || memcmp(message, answer, len)) {
				printf("message %lu came back changed, or was not read: %zd: %s\n", got, len, strerror(errno));
				return 1;
			}
			got++;
		} else if (one.revents & POLLOUT) {
			len = fill(sent);
			if (write(fd, message, len) == len) {
				sent++;
			} else if (errno != EAGAIN) {
				printf("write %lu: %s\n", sent, strerror(errno));
				return 1;
			}
		}
	}
	printf("%lu messages there and back\n", got);
	return 0;
}

static int send_all(int fd, unsigned long count)
{
	unsigned long n;

	for (n = 0; n < count; n++) {
		size_t len = fill(n);

		if (write(fd, message, len) != (ssize_t)len) {
			printf("%s after %lu\n", strerror(errno), n);
			return 1;
		}
	}
	printf("%lu sent\n", n);
	return 0;
}

static int flood(int fd)
{
	struct pollfd one = { .fd = fd, .events = POLLOUT };
	unsigned long n;

	/* It takes some time until this kernel knows that the other kernel has a reader. */
	poll(&one, 1, 10000);
	for (n = 0; n < 10000000; n++) {
		size_t len = fill(n);

		if (write(fd, message, len) != (ssize_t)len)
			break;
	}
	printf("%s after %lu\n", strerror(errno), n);
	return errno != EAGAIN;
}

/* Sends and receives messages while the peer is killed and restarted. Prints each error that differs from the one before. */
static int until(int fd)
{
	int last = 0;
	unsigned long n;

	for (n = 0; n < 100000000; n++) {
		struct pollfd one = { .fd = fd, .events = POLLIN | POLLOUT };
		ssize_t len;

		if (poll(&one, 1, 60000) != 1)
			return 1;
		if (one.revents & POLLIN)
			len = read(fd, answer, sizeof(answer));
		else
			len = write(fd, message, fill(n));
		if (len < 0 && errno != EAGAIN && errno != last) {
			last = errno;
			printf("%s\n", strerror(errno));
			fflush(stdout);
		}
		if (len > 0 && last == ECONNRESET && one.revents & POLLIN) {
			printf("works again\n");
			/* The peer sends back more messages. They are read here, so that the next reader does not get them. */
			one.events = POLLIN;
			while (poll(&one, 1, 2000) == 1 && read(fd, answer, sizeof(answer)) > 0)
				;
			return 0;
		}
		if (len < 0)
			usleep(1000);
	}
	return 1;
}

static int fuzz(const char *device, unsigned long seconds)
{
	int fds[8], i;
	time_t end = time(NULL) + seconds;
	unsigned long calls = 0, taken = 0;

	for (i = 0; i < 8; i++)
		fds[i] = -1;
	srandom(1);
	while (time(NULL) < end) {
		int *fd = &fds[random() % 8];
		uint32_t words[2] = { random() % 4, random() % 3 ? 0 : random() };
		struct pollfd one = { .fd = *fd, .events = random() };
		long done = -1;

		switch (*fd < 0 ? 0 : random() % 9) {
		case 0:
			if (*fd >= 0)
				close(*fd);
			*fd = open(device, (random() % 3) | O_NONBLOCK);
			done = *fd;
			break;
		case 1: done = ioctl(*fd, MK_IPI_BIND, words); break;
		case 2: done = ioctl(*fd, MK_IPI_BIND, (void *)(random() % 5)); break;
		case 3: done = ioctl(*fd, random(), words); break;
		case 4: done = read(*fd, answer, random() % sizeof(answer)); break;
		case 5: done = read(*fd, (void *)(random() % 3), random()); break;
		case 6: done = write(*fd, message, random() % (2 * sizeof(message)) % (sizeof(message) + 1)); break;
		case 7: done = write(*fd, (void *)(random() % 3), random() % 5000); break;
		case 8: done = poll(&one, 1, 0); break;
		}
		calls++;
		taken += done >= 0;
	}
	printf("%lu calls, %lu of them succeeded\n", calls, taken);
	return !calls;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 4 && !strcmp(argv[1], "echo"))
		return echo(opened(argv[2], argv[3], O_RDWR));
	if (argc == 5 && !strcmp(argv[1], "rounds"))
		return rounds(opened(argv[2], argv[3], O_RDWR | O_NONBLOCK), strtoul(argv[4], NULL, 0));
	if (argc == 5 && !strcmp(argv[1], "send"))
		return send_all(opened(argv[2], argv[3], O_WRONLY), strtoul(argv[4], NULL, 0));
	if (argc == 4 && !strcmp(argv[1], "flood"))
		return flood(opened(argv[2], argv[3], O_WRONLY | O_NONBLOCK));
	if (argc == 4 && !strcmp(argv[1], "hold")) {
		opened(argv[2], argv[3], O_RDONLY);
		for (;;)
			pause();
	}
	if (argc == 4 && !strcmp(argv[1], "until"))
		return until(opened(argv[2], argv[3], O_RDWR | O_NONBLOCK));
	if (argc == 4 && !strcmp(argv[1], "fuzz"))
		return fuzz(argv[2], strtoul(argv[3], NULL, 0));
	fprintf(stderr, "talk: wrong arguments; the comment at the start of talk.c lists the commands\n");
	return 2;
}
