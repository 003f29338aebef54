// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Passes damaged images to mk_ipi.ko: fuzz-start SECONDS SEED INITRAMFS ID=IMAGE...
 *
 * It uses the command `check`, which does all steps of `start` except the start of the CPU. Each image is a Linux or a bare-metal
 * kernel. Its ELF header, program headers and notes are changed in some places, or the file is truncated. The initramfs is the
 * given one, or a file that is no initramfs. The further words of the command have random lengths. The result of each command
 * must be 0, or an error number and a reason in the kernel's log.
 *
 * The undamaged images are also checked, from time to time and at the end, and must be accepted. They are refused if the module
 * has leaked memory or has damaged its own state. The same seed gives the same run.
 *
 * The program prints records for the scenario, and at its end how often each result occurred. It does not print the module's many
 * log lines. It writes the other lines of the kernel's log to the console. So the kernel itself should not print the log there.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define DEVICE "/dev/mk_ipi"
#define LOG "/dev/kmsg"
#define CONSOLE "/dev/console"
/* The beginning of each log line of the module. */
#define MODULE "mk_ipi: "
/* Size of the buffer for one record of the log. A record is shorter than this. */
#define RECORD_BYTES 8192
#define MAX_IMAGES 4
#define MAX_PLACES 32
/* Each segment is shortened to this many bytes, so that a large image is read and loaded quickly. */
#define SEGMENT_BYTES 4096
/* The largest error number that a system call may return to a program. */
#define MAX_ERRNO 133
/* One of this many rounds uses an undamaged image. */
#define WHOLE_EVERY 64

struct place {
	size_t at, len;
};

struct image {
	const char *id;
	char file[32];
	unsigned char *bytes;
	size_t len;
	/* The parts of the file that are damaged: the ELF header, the program headers, the notes. */
	struct place places[MAX_PLACES];
	int count;
};

static struct image images[MAX_IMAGES];
static int image_count;
static const char *initramfs;
static unsigned long outcomes[MAX_ERRNO + 1];
static uint64_t state;
static int kernel_log, console;
/* The last error message of the module in the log. */
static char reason[512];

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* Returns a random number below `below` (xorshift64*). */
static uint64_t any(uint64_t below)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return state * 0x2545f4914f6cdd1dULL % below;
}

static unsigned char *read_file(const char *name, size_t *len)
{
	int file = open(name, O_RDONLY);
	struct stat about;
	unsigned char *bytes;
	size_t done = 0;

	if (file < 0 || fstat(file, &about))
		die(name);
	*len = about.st_size;
	bytes = malloc(*len + 1);
	while (bytes && done < *len) {
		ssize_t got = read(file, bytes + done, *len - done);

		if (got <= 0)
			die(name);
		done += got;
	}
	if (!bytes)
		die("memory");
	close(file);
	return bytes;
}

static void write_file(const char *name, const void *bytes, size_t len)
{
	int file = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	if (file < 0 || write(file, bytes, len) != (ssize_t)len || close(file))
		die(name);
}

static void add_place(struct image *image, size_t at, size_t len)
{
	if (image->count < MAX_PLACES && at < image->len && len && len <= image->len - at)
		image->places[image->count++] = (struct place){ at, len };
}

/* The owner and the type of the note that contains the address of the PVH entry. */
#define PVH_OWNER "Xen"
#define PVH_ENTRY 18

static size_t padded(size_t len)
{
	return (len + 3) & ~(size_t)3;
}

/* Changes the PVH entry in the notes to the start of the first segment, because `shorten` has removed the ends of segments. */
static void move_entry(struct image *image, const Elf64_Phdr *notes, uint32_t entry)
{
	size_t at = notes->p_offset, end = at + notes->p_filesz;

	while (end - at >= sizeof(Elf64_Nhdr)) {
		const Elf64_Nhdr *note = (const void *)(image->bytes + at);
		size_t name = at + sizeof(*note), desc = name + padded(note->n_namesz), next = desc + padded(note->n_descsz);

		if (next > end || next <= at)
			return;
		if (note->n_type == PVH_ENTRY && note->n_namesz == sizeof(PVH_OWNER) && note->n_descsz >= sizeof(entry) &&
		    !memcmp(image->bytes + name, PVH_OWNER, sizeof(PVH_OWNER)))
			memcpy(image->bytes + desc, &entry, sizeof(entry));
		at = next;
	}
}

/* Makes a smaller image from `whole`: the ELF header, the program headers, and the first SEGMENT_BYTES of each segment. */
static void shorten(struct image *image, const unsigned char *whole, size_t len)
{
	const Elf64_Ehdr *old = (const void *)whole;
	const Elf64_Phdr *segments = (const void *)(whole + old->e_phoff);
	size_t at = sizeof(*old) + old->e_phnum * sizeof(*segments);
	Elf64_Ehdr *head;

	if (len < sizeof(*old) || memcmp(old->e_ident, ELFMAG, SELFMAG) || old->e_phoff > len ||
	    old->e_phnum * sizeof(*segments) > len - old->e_phoff) {
		fprintf(stderr, "the file is not an ELF image\n");
		exit(1);
	}
	image->bytes = calloc(1, at + (size_t)old->e_phnum * SEGMENT_BYTES);
	if (!image->bytes)
		die("memory");
	head = (void *)image->bytes;
	*head = *old;
	head->e_phoff = sizeof(*old);
	head->e_shoff = head->e_shnum = head->e_shstrndx = 0;
	for (int i = 0; i < old->e_phnum; i++) {
		Elf64_Phdr segment = segments[i];
		size_t kept = segment.p_filesz < SEGMENT_BYTES ? segment.p_filesz : SEGMENT_BYTES;

		if (segment.p_offset <= len && kept <= len - segment.p_offset)
			memcpy(image->bytes + at, whole + segment.p_offset, kept);
		segment.p_offset = at;
		segment.p_filesz = kept;
		memcpy(image->bytes + head->e_phoff + i * sizeof(segment), &segment, sizeof(segment));
		at += kept;
	}
	image->len = at;
}

static void add_image(char *named)
{
	struct image *image = &images[image_count];
	char *equals = strchr(named, '=');
	const Elf64_Phdr *segments, *first = 0;
	const Elf64_Ehdr *head;
	unsigned char *whole;
	size_t len;

	if (!equals || image_count == MAX_IMAGES) {
		fprintf(stderr, "expected ID=IMAGE, at most %d times: %s\n", MAX_IMAGES, named);
		exit(2);
	}
	*equals = 0;
	image->id = named;
	snprintf(image->file, sizeof(image->file), "/tmp/fuzz-%d.elf", image_count++);
	whole = read_file(equals + 1, &len);
	shorten(image, whole, len);
	free(whole);
	head = (const void *)image->bytes;
	segments = (const void *)(image->bytes + head->e_phoff);
	add_place(image, 0, sizeof(*head));
	add_place(image, head->e_phoff, head->e_phnum * sizeof(*segments));
	for (int i = 0; i < head->e_phnum; i++)
		if (segments[i].p_type == PT_LOAD && !first)
			first = &segments[i];
	for (int i = 0; first && i < head->e_phnum; i++) {
		if (segments[i].p_type != PT_NOTE)
			continue;
		move_entry(image, &segments[i], first->p_paddr);
		add_place(image, segments[i].p_offset, segments[i].p_filesz);
	}
}

/* Changes 1, 2, 4 or 8 bytes of the image: a bit, a small number, or a value for which code is often wrong. */
static void damage(const struct image *image, unsigned char *bytes)
{
	static const uint64_t edges[] = { 0, 1, 2, 0xfff, 0x1000, 0x10000, 0x200000, 0x7fffffff, 0x80000000, 0xffffffff,
					  0x100000000, 0x7fffffffffffffff, 0x8000000000000000, 0xffffffffffffffff };
	const struct place *place = &image->places[any(image->count)];
	size_t width = (size_t)1 << any(4), at = any(place->len) & ~(width - 1);
	uint64_t value = 0;

	if (at + width > place->len)
		return;
	memcpy(&value, bytes + place->at + at, width);
	switch (any(5)) {
	case 0:
		value ^= (uint64_t)1 << any(8 * width);
		break;
	case 1:
		value = edges[any(sizeof(edges) / sizeof(*edges))];
		break;
	case 2:
		value += any(16) - 8;
		break;
	case 3:
		value = image->len + any(3) - 1;
		break;
	default:
		value = any(UINT64_MAX);
	}
	memcpy(bytes + place->at + at, &value, width);
}

/* Writes the image, with random damage, to its file. */
static void write_damaged(const struct image *image)
{
	unsigned char *bytes = malloc(image->len);
	size_t len = image->len;

	if (!bytes)
		die("memory");
	memcpy(bytes, image->bytes, len);
	if (any(16))
		for (int times = 1 + any(4); times; times--)
			damage(image, bytes);
	else
		len = any(2) ? any(len) : any(len < 512 ? len : 512);
	write_file(image->file, bytes, len);
	free(bytes);
}

/* Adds random words to the command, after the name of the image. */
static void add_words(char *line, size_t room)
{
	static const char *const files[] = { "", "/", "/lib", "/dev/zero", "/dev/null", "/proc/self/mem", "/proc/cmdline", "none",
					     "/none", DEVICE, "/tmp/fuzz-0.elf", "/tmp/empty", "/tmp/large" };
	char *end = line + strlen(line), *last = line + room - 1;

	if (any(2))
		end += snprintf(end, last - end, " initrd=%s", any(2) ? initramfs : files[any(sizeof(files) / sizeof(*files))]);
	if (!any(8))
		end += snprintf(end, last - end, " initrd=%0*d", (int)any(400), 0);
	if (!any(4)) {
		size_t count = any(any(8) ? 64 : last - end);

		*end++ = ' ';
		while (count-- && end < last)
			*end++ = any(8) ? ' ' + any(95) : 1 + any(255);
	}
	*end = 0;
}

/* Reads the kernel's log to its end. Returns whether it contains an error message of the module. */
static int read_log(void)
{
	static char record[RECORD_BYTES + 1];
	int said = 0;
	ssize_t len;

	for (;;) {
		char *text;

		len = read(kernel_log, record, RECORD_BYTES);
		if (len < 0 && errno == EPIPE)
			continue;
		if (len <= 0)
			return said;
		record[len] = 0;
		text = strchr(record, ';');
		if (text && !strncmp(text + 1, MODULE, strlen(MODULE))) {
			if ((atoi(record) & 7) != 3)
				continue;
			snprintf(reason, sizeof(reason), "%s", text + 1);
			said = 1;
		} else if (text && write(console, text + 1, strlen(text + 1)) < 0) {
			die(CONSOLE);
		}
	}
}

/* Writes a command to the module's device. Returns the error number. */
static int command(const char *line)
{
	int file = open(DEVICE, O_WRONLY), error = 0;
	ssize_t len = strlen(line), done;

	if (file < 0)
		die(DEVICE);
	errno = 0;
	done = write(file, line, len);
	if (done < 0)
		error = errno;
	close(file);
	if ((done >= 0 && done != len) || error > MAX_ERRNO) {
		printf("%zd of %zd bytes, error %d: %s\n", done, len, error, line);
		exit(1);
	}
	if (!read_log() && error) {
		printf("refused without a reason in the log: %s: %s\n", strerror(error), line);
		exit(1);
	}
	outcomes[error]++;
	return error;
}

/* Checks an undamaged image, which must be accepted. */
static void offer_whole(const struct image *image)
{
	char line[512];
	int error;

	write_file(image->file, image->bytes, image->len);
	snprintf(line, sizeof(line), "check %s %s", image->id, image->file);
	error = command(line);
	if (error) {
		printf("an undamaged image was refused: %s: %s: %s\n", line, strerror(error), reason);
		exit(1);
	}
}

/* Checks a damaged image. It can be accepted or refused. */
static void offer_damaged(const struct image *image)
{
	char line[4096];

	write_damaged(image);
	snprintf(line, sizeof(line), "check %s %s", image->id, image->file);
	add_words(line, sizeof(line));
	command(line);
}

int main(int argc, char **argv)
{
	long seconds = argc > 4 ? atol(argv[1]) : 0, told = -1, passed;
	unsigned long rounds = 0;
	time_t start = time(0);

	if (seconds <= 0) {
		fprintf(stderr, "fuzz-start SECONDS SEED INITRAMFS ID=IMAGE...\n");
		return 2;
	}
	state = strtoull(argv[2], 0, 0) | 1;
	initramfs = argv[3];
	kernel_log = open(LOG, O_RDONLY | O_NONBLOCK);
	console = open(CONSOLE, O_WRONLY);
	if (kernel_log < 0 || console < 0 || lseek(kernel_log, 0, SEEK_END) < 0)
		die("log");
	for (int i = 4; i < argc; i++)
		add_image(argv[i]);
	while ((passed = time(0) - start) < seconds) {
		const struct image *image = &images[any(image_count)];

		if (passed != told) {
			fprintf(stderr, "@{\"progress\":{\"kernel\":0,\"done\":%ld,\"total\":%ld}}\n", passed, seconds);
			told = passed;
		}
		if (rounds++ % WHOLE_EVERY)
			offer_damaged(image);
		else
			offer_whole(image);
	}
	for (int i = 0; i < image_count; i++)
		offer_whole(&images[i]);
	read_log();
	printf("%lu rounds, seed %s; accepted: %lu", rounds, argv[2], outcomes[0]);
	for (int error = 1; error <= MAX_ERRNO; error++)
		if (outcomes[error])
			printf("; %s: %lu", strerror(error), outcomes[error]);
	printf("\n");
	return 0;
}
