// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * A short example of the calls in C. It asks instance 1 for a report, and writes a line to the log when the report arrives. The
 * kernel of instance 1 must run in serve mode (examples/bare-metal).
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt
#include <linux/module.h>
#include "mk_ipi_linux.h"

#define QUERY 0x111
#define REPORT 0x112

static struct mk_ipi_handler *handler;

static void on_report(struct mk_ipi_data *data, void *ctx)
{
	pr_info("%s: type %#x, %zu bytes, from APIC %d\n", (char *)ctx, data->type, data->data_size, data->sender_cpu);
}

static int __init test_init(void)
{
	u64 query[2] = { 0, 0 };	/* the question of instance 0, about instance 0 */
	int err;

	handler = multikernel_register_handler(on_report, "report", REPORT);
	if (!handler)
		return -ENOMEM;
	err = multikernel_send_ipi_data(1, query, sizeof(query), QUERY);
	if (err)
		multikernel_unregister_handler(handler);
	return err;
}

static void __exit test_exit(void)
{
	multikernel_unregister_handler(handler);
}

module_init(test_init);
module_exit(test_exit);
MODULE_DESCRIPTION("Test of the calls that mk_ipi exports to C");
MODULE_LICENSE("Dual MIT/GPL");
