/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * mk_ipi_test: tests the C calls of the library, with several instances in one process.
 *
 *   mk_ipi_test                    runs every test
 *   mk_ipi_test --peer ./peer.so   tests another implementation, a shared object; mk_ipi_peer.h says what it must export
 *   mk_ipi_test --peer ./peer.so --speaks rfc-v2,native   tests only these parts; peer.c lists all parts
 */
#include "machine.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
	const char *path = NULL, *speaks = NULL;
	int i, known = argc % 2;

	for (i = 1; known && i + 1 < argc; i += 2) {
		if (strcmp(argv[i], "--peer") == 0)
			path = argv[i + 1];
		else if (strcmp(argv[i], "--speaks") == 0)
			speaks = argv[i + 1];
		else
			known = 0;
	}
	if (!known || (speaks && !path)) {
		fprintf(stderr, "usage: %s [--peer SHARED_OBJECT [--speaks PART,...]]\n", argv[0]);
		return 2;
	}
	if (!path) {
		test_bad_calls();
		test_instances();
		test_compat();
		test_native();
		test_lives();
		test_poller();
		test_directory();
		test_join();
		test_follow();
		test_cases();
		/* This test needs a kernel with two CPUs. */
		if (MK_IPI_MAX_CPUS > 1)
			test_threads();
	}
	if (!test_peer(path, speaks))
		return 2;
	printf("%lu checks, %lu failed\n", checks, failures);
	return failures != 0;
}
