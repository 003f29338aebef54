/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A minimal freestanding C kernel. Code of the library that it does not call must not be linked. */
#include "mk_ipi.h"

extern const struct mk_ipi_ops kernel_ops;
const struct mk_ipi_ops kernel_ops;
static struct mk_ipi mk;

void _start(void);

void _start(void)
{
	if (mk_ipi_init(&mk, sizeof(mk), &kernel_ops) == 0 && mk_ipi_identify(&mk, 1, 1) == 0) {
		(void)mk_ipi_send(&mk, 0, 1, "hello", 5, NULL);
		mk_ipi_interrupt(&mk);
		(void)mk_ipi_run_deferred(&mk, NULL);
	}
	for (;;)
		;
}
