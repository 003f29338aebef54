// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * The end of a Linux that another kernel started. Such a Linux must not restart the machine or switch it off, because the machine
 * belongs to the host. Instead it only stops its own CPUs. In C because the layout of these objects depends on the configuration.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/irqflags.h>
#include <linux/kprobes.h>
#include <linux/kthread.h>
#include <linux/notifier.h>
#include <linux/panic_notifier.h>
#include <linux/panic.h>
#include <linux/reboot.h>
#include <linux/smp.h>
#include <linux/syscore_ops.h>
#include <linux/version.h>
#include <asm/processor.h>
#include "glue.h"

/*
 * Stops all CPUs of this kernel, and does not return. The host takes the CPUs back later. Interrupts are switched off first.
 * Otherwise a timer interrupt could make this CPU run another program, and that program could wake a task on a stopped CPU.
 */
static void __noreturn stand_still(void)
{
	local_irq_disable();
	smp_send_stop();
	for (;;)
		asm volatile("hlt");
}

/*
 * A syscore shutdown operation. Linux calls it before a restart, a halt, a power off or kexec, after all devices were shut down,
 * and when only one CPU runs. Linux calls these operations in the reverse order of their registration. So it calls this one
 * before those that change the machine itself.
 */
static void mk_ipi_last(void)
{
	pr_emerg("this kernel ends here; the machine belongs to its host\n");
	/* The thread of a console prints this message, and needs some time. */
	if (!irqs_disabled())
		msleep(50);
	mk_ipi_rs_goodbye();
	stand_still();
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 19, 0)
static void mk_ipi_on_last(void *unused)
{
	mk_ipi_last();
}

static const struct syscore_ops mk_ipi_last_ops = { .shutdown = mk_ipi_on_last };
static struct syscore mk_ipi_last_one = { .ops = &mk_ipi_last_ops };
#define mk_ipi_register_last() register_syscore(&mk_ipi_last_one)
#define mk_ipi_unregister_last() unregister_syscore(&mk_ipi_last_one)
#else
static struct syscore_ops mk_ipi_last_ops = { .shutdown = mk_ipi_last };
#define mk_ipi_register_last() register_syscore_ops(&mk_ipi_last_ops)
#define mk_ipi_unregister_last() unregister_syscore_ops(&mk_ipi_last_ops)
#endif

/* After a panic this kernel cannot say goodbye reliably, so it does not. Its peers notice that its heartbeat has stopped. */
static int mk_ipi_on_panic(struct notifier_block *self, unsigned long event, void *message)
{
	mk_ipi_rs_over();
	/* After a time-out Linux would restart the complete machine. */
	panic_timeout = 0;
	return NOTIFY_DONE;
}

static struct notifier_block mk_ipi_panic = { .notifier_call = mk_ipi_on_panic };

/* An immediate restart (sysrq b, or after a panic) calls no reboot notifier and no syscore operation. So a kprobe stops it. */
#ifdef CONFIG_KPROBES
static int mk_ipi_on_restart(struct kprobe *probe, struct pt_regs *regs)
{
	mk_ipi_rs_over();
	pr_emerg("this kernel stops here; the machine belongs to its host\n");
	stand_still();
	return 0;
}

static struct kprobe mk_ipi_restart;

/* Puts the probe into the last function of an immediate restart in which a probe is possible. */
static void mk_ipi_guard_restart(void)
{
	static const char *const names[] = { "native_machine_emergency_restart", "machine_emergency_restart", "emergency_restart" };
	unsigned int i;
	int err;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		mk_ipi_restart = (struct kprobe){ .symbol_name = names[i], .pre_handler = mk_ipi_on_restart };
		err = register_kprobe(&mk_ipi_restart);
		if (!err)
			return;
	}
	pr_warn("an immediate restart (sysrq b) would restart the complete machine: no probe, error %d\n", err);
}

static void mk_ipi_unguard_restart(void)
{
	unregister_kprobe(&mk_ipi_restart);
}
#else
static void mk_ipi_guard_restart(void)
{
	pr_warn("an immediate restart (sysrq b) would restart the complete machine: this kernel has no CONFIG_KPROBES\n");
}

static void mk_ipi_unguard_restart(void)
{
}
#endif

int mk_ipi_glue_watch_end(void)
{
	int err = atomic_notifier_chain_register(&panic_notifier_list, &mk_ipi_panic);

	if (err)
		return err;
	mk_ipi_register_last();
	mk_ipi_guard_restart();
	return 0;
}

void mk_ipi_glue_unwatch_end(void)
{
	mk_ipi_unguard_restart();
	mk_ipi_unregister_last();
	atomic_notifier_chain_unregister(&panic_notifier_list, &mk_ipi_panic);
}

/* Shuts this kernel down as the power button does: its programs end first. */
void mk_ipi_glue_power_off(void)
{
	orderly_poweroff(true);
}

/* The thread of serve mode (traffic/serve.rs). In C because kthread_run is a macro. */
static struct task_struct *mk_ipi_serving;

int mk_ipi_glue_start_serving(void)
{
	struct task_struct *task;

	if (mk_ipi_serving)
		return 0;
	task = kthread_run(mk_ipi_rs_serve, NULL, "mk_ipi_serve");
	if (IS_ERR(task))
		return PTR_ERR(task);
	mk_ipi_serving = task;
	return 0;
}

void mk_ipi_glue_stop_serving(void)
{
	if (mk_ipi_serving)
		kthread_stop(mk_ipi_serving);
	mk_ipi_serving = NULL;
}

bool mk_ipi_glue_should_stop(void)
{
	return kthread_should_stop();
}
