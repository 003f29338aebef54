/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Uses a library that was built with other limits than the default. If the program has other limits than the library, mk_ipi_init
 * fails.
 *
 * ONE_CPU: library and program are built for 1 CPU, 16 handlers, 16 instances. OTHER_LIMITS: only the library is.
 */
#include "mk_ipi.h"

#include <stdio.h>

#ifdef ONE_CPU
_Static_assert(MK_IPI_MAX_CPUS == 1 && MK_IPI_MAX_HANDLERS == 16 && MK_IPI_MAX_INSTANCES == 16, "the limits");
_Static_assert(sizeof(struct mk_ipi) < 64 * 1024, "a small kernel has room for it");
#endif

static struct mk_ipi mk;

int main(void)
{
	/* Only the size of the table of operations is set. The next field that mk_ipi_init checks is the version. */
	const int other = mk_ipi_init(&mk, sizeof(mk), &(struct mk_ipi_ops){ .size = sizeof(struct mk_ipi_ops) });

	printf("%zu bytes: %d\n", sizeof(mk), other);
#ifdef OTHER_LIMITS
	return other != -MK_IPI_EINVAL;
#else
	/* The sizes agree, so mk_ipi_init has reached the version, which is 0. */
	return other != -MK_IPI_EPROTO;
#endif
}
