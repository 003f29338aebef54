/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * mk_ipi_test: the library as C sees it, by several instances in one process.
 *
 *   mk_ipi_test                    every test
 *   mk_ipi_test --peer ./peer.so   the round trip with another implementation: mk_ipi_peer.h says what it exports
 */
#include "machine.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
	const char *path = argc == 3 && strcmp(argv[1], "--peer") == 0 ? argv[2] : NULL;

	if (argc > 1 && !path) {
		fprintf(stderr, "usage: %s [--peer SHARED_OBJECT]\n", argv[0]);
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
		/* A kernel with one CPU has no other. */
		if (MK_IPI_MAX_CPUS > 1)
			test_threads();
	}
	if (!test_peer(path))
		return 2;
	printf("%lu checks, %lu failed\n", checks, failures);
	return failures != 0;
}
