// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * The parts of the module that must be in C. These are uses of macros and of constants that macros define, calls of functions
 * that are inline in some configurations, and objects whose layout depends on the configuration. The comment of each section says
 * why it is in C. All other code is in Rust.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt
#include <linux/cpu.h>
#include <linux/cpuhotplug.h>
#include <linux/debugfs.h>
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/irq.h>
#include <linux/irq_work.h>
#include <linux/kernel_read_file.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/ratelimit.h>
#include <linux/sched/signal.h>
#include <linux/reboot.h>
#include <linux/security.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/suspend.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/version.h>
#include <linux/workqueue.h>
#include <asm/apic.h>
#include <asm/e820/api.h>
#include "glue.h"
#include "mk_ipi_linux.h"

#if defined(CONFIG_CFI) || defined(CONFIG_CFI_CLANG)
#error "the C and Rust parts of mk_ipi call each other's functions by pointers: this does not work with CONFIG_CFI"
#endif

/* Module parameters and exported symbols. In C because macros define them. Rust has string parameters only since 7.x. */
char *mk_ipi_glue_memory;
module_param_named(memory, mk_ipi_glue_memory, charp, 0444);
MODULE_PARM_DESC(memory, "memory for instances: START+BYTES that memmap=BYTES$START has reserved, or the NAME of memory that reserve_mem= has reserved");
char *mk_ipi_glue_low;
module_param_named(low, mk_ipi_glue_low, charp, 0444);
MODULE_PARM_DESC(low, "memory below 1 MiB, START+BYTES that memmap=BYTES$START has reserved: 4K, and 48K more for each Linux that is to be started");
char *mk_ipi_glue_generation = "native";
module_param_named(generation, mk_ipi_glue_generation, charp, 0444);
MODULE_PARM_DESC(generation, "the layout of the regions: native (default) or rfc-v2");
unsigned long mk_ipi_glue_trampoline = 0x40000;
module_param_named(trampoline, mk_ipi_glue_trampoline, ulong, 0444);
MODULE_PARM_DESC(trampoline, "address of a page below 1 MiB that is overwritten while a CPU starts, if there is no low= (default 0x40000)");

EXPORT_SYMBOL(multikernel_register_handler);
EXPORT_SYMBOL(multikernel_unregister_handler);
EXPORT_SYMBOL(multikernel_send_ipi_data);
EXPORT_SYMBOL(generic_multikernel_interrupt);
EXPORT_SYMBOL(mk_send_pfn);
EXPORT_SYMBOL(mk_receive_pfn);
EXPORT_SYMBOL(mk_receive_map_page);
EXPORT_SYMBOL(mk_receive_unmap_page);

/* The current CPU and its interrupts. In C because these are macros and inline functions. */
unsigned long mk_ipi_glue_irq_save(void)
{
	unsigned long flags;

	local_irq_save(flags);
	return flags;
}

void mk_ipi_glue_irq_restore(unsigned long flags)
{
	local_irq_restore(flags);
}

unsigned int mk_ipi_glue_cpu(void)
{
	return raw_smp_processor_id();
}

/* The CPUs of the machine. In C because macros access the masks and the per-CPU variables. */
unsigned int mk_ipi_glue_nr_cpus(void)
{
	return nr_cpu_ids;
}

bool mk_ipi_glue_cpu_present(unsigned int cpu)
{
	return cpu < nr_cpu_ids && cpu_present(cpu);
}

bool mk_ipi_glue_cpu_online(unsigned int cpu)
{
	return cpu_online(cpu);
}

u32 mk_ipi_glue_apic_id(unsigned int cpu)
{
	return per_cpu(x86_cpu_to_apicid, cpu);
}

const struct cpumask *mk_ipi_glue_cpumask_of(unsigned int cpu)
{
	return cpumask_of(cpu);
}

/* The functions of the APIC driver. In C because they are members of a structure that differs between kernel versions. */
u32 mk_ipi_glue_apic_read(u32 reg)
{
	return apic->read(reg);
}

void mk_ipi_glue_apic_write(u32 reg, u32 value)
{
	apic->write(reg, value);
}

void mk_ipi_glue_apic_icr_write(u32 low, u32 dest)
{
	apic->icr_write(low, dest);
}

const unsigned long mk_ipi_glue_irq_flags = IRQF_NOBALANCING | IRQF_NO_THREAD;

bool mk_ipi_glue_irq_is_on(unsigned int irq, unsigned int cpu)
{
	return cpumask_equal(irq_data_get_effective_affinity_mask(irq_get_irq_data(irq)), cpumask_of(cpu));
}

/*
 * Returns 0 if the range was reserved at boot, so that Linux does not use it. -EBUSY: a part of it is RAM of Linux. -ENXIO: it is
 * not reserved. In C because the constants are macros.
 */
int mk_ipi_glue_reserved(u64 start, u64 len)
{
	if (region_intersects(start, len, IORESOURCE_SYSTEM_RAM, IORES_DESC_NONE) != REGION_DISJOINT)
		return -EBUSY;
	if (region_intersects(start, len, IORESOURCE_MEM, IORES_DESC_RESERVED) != REGION_INTERSECTS)
		return -ENXIO;
	return 0;
}

/*
 * Returns whether all pages of the range are reserved in this kernel's memory map, which the host has made. The resource tree
 * cannot be asked: without PCI, Linux does not put reserved memory into it.
 */
bool mk_ipi_glue_is_not_ram(u64 start, u64 len)
{
	u64 page;

	for (page = start; page < start + len; page += PAGE_SIZE)
		if (!e820__mapped_any(page, page + PAGE_SIZE, E820_TYPE_RESERVED))
			return false;
	return !e820__mapped_any(start, start + len, E820_TYPE_RAM);
}

/*
 * Returns whether the page at `at`, below 1 MiB, can be overwritten for a short time. It must be RAM. Linux reserves all RAM
 * below 1 MiB, and uses only the pages of its own trampoline. These are fewer than 16 pages, and the first of them are read-only.
 * So if one of the 16 pages before `at`, or the page itself, is read-only, `at` can be in Linux's trampoline, and is refused. In
 * C because macros access the page tables.
 */
bool mk_ipi_glue_may_borrow(u64 at)
{
	u64 page, first = at > SZ_64K ? at - SZ_64K : PAGE_SIZE;
	unsigned int level;

	if (!at || at >= SZ_1M || !page_is_ram(at >> PAGE_SHIFT))
		return false;
	for (page = first; page <= at; page += PAGE_SIZE) {
		pte_t *pte = lookup_address((unsigned long)__va(page), &level);

		if (!pte || !pte_write(*pte))
			return false;
	}
	return true;
}

/* The mutexes of lock.rs. In C because macros initialise them, and with lockdep mutex_lock is a macro, too. */
static DEFINE_MUTEX(mk_ipi_control_lock);
static DEFINE_MUTEX(mk_ipi_memory_lock);
static DEFINE_MUTEX(mk_ipi_traffic_lock);
static DEFINE_MUTEX(mk_ipi_directory_lock);
static DEFINE_MUTEX(mk_ipi_serve_lock);
static DEFINE_MUTEX(mk_ipi_moves_lock);
static DEFINE_MUTEX(mk_ipi_held_lock);
static DEFINE_MUTEX(mk_ipi_services_lock);
static DEFINE_MUTEX(mk_ipi_net_made_lock);
static struct mutex *const mk_ipi_locks[] = {
	&mk_ipi_control_lock, &mk_ipi_memory_lock, &mk_ipi_traffic_lock, &mk_ipi_directory_lock, &mk_ipi_serve_lock,
	&mk_ipi_moves_lock, &mk_ipi_held_lock, &mk_ipi_services_lock, &mk_ipi_net_made_lock,
};

void mk_ipi_glue_lock(unsigned int which)
{
	mutex_lock(mk_ipi_locks[which]);
}

void mk_ipi_glue_unlock(unsigned int which)
{
	mutex_unlock(mk_ipi_locks[which]);
}

/* The spin locks of lock.rs. Message handlers take them, too, in hard interrupt context. */
static DEFINE_RAW_SPINLOCK(mk_ipi_lines_lock);
static DEFINE_RAW_SPINLOCK(mk_ipi_channels_lock);
static raw_spinlock_t *const mk_ipi_spin_locks[] = { &mk_ipi_lines_lock, &mk_ipi_channels_lock };

unsigned long mk_ipi_glue_spin_lock(unsigned int which)
{
	unsigned long flags;

	raw_spin_lock_irqsave(mk_ipi_spin_locks[which], flags);
	return flags;
}

void mk_ipi_glue_spin_unlock(unsigned int which, unsigned long flags)
{
	raw_spin_unlock_irqrestore(mk_ipi_spin_locks[which], flags);
}

/* Deferred work: one irq work and one work item for each CPU, and work items of the module. In C because macros define them. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 18, 0)
#define WQ_PERCPU 0 /* before 6.18, workqueues are per-CPU by default */
#endif
static DEFINE_PER_CPU(struct irq_work, mk_ipi_irq_work);
static DEFINE_PER_CPU(struct work_struct, mk_ipi_rest);
static struct delayed_work mk_ipi_tick;
static DECLARE_WORK(mk_ipi_host_request, mk_ipi_rs_host_request);
static DECLARE_WORK(mk_ipi_services, mk_ipi_rs_services);
/* Not a hard irq work, because it wakes tasks and fills buffers of terminals. Both take locks that can sleep with PREEMPT_RT. */
static struct irq_work mk_ipi_news = IRQ_WORK_INIT(mk_ipi_rs_news);
static struct workqueue_struct *mk_ipi_queue;

int mk_ipi_glue_start_work(void)
{
	unsigned int cpu;

	for_each_possible_cpu(cpu) {
		*per_cpu_ptr(&mk_ipi_irq_work, cpu) = IRQ_WORK_INIT_HARD(mk_ipi_rs_deferred);
		INIT_WORK(per_cpu_ptr(&mk_ipi_rest, cpu), mk_ipi_rs_deferred_rest);
	}
	INIT_DELAYED_WORK(&mk_ipi_tick, mk_ipi_rs_tick);
	/* The workqueue is per-CPU, because the deferred work of a CPU must run on this CPU. */
	mk_ipi_queue = alloc_workqueue("mk_ipi", WQ_PERCPU, 0);
	return mk_ipi_queue ? 0 : -ENOMEM;
}

void mk_ipi_glue_stop_work(void)
{
	unsigned int cpu;

	cancel_delayed_work_sync(&mk_ipi_tick);
	cancel_work_sync(&mk_ipi_host_request);
	cancel_work_sync(&mk_ipi_services);
	irq_work_sync(&mk_ipi_news);
	for_each_possible_cpu(cpu) {
		irq_work_sync(per_cpu_ptr(&mk_ipi_irq_work, cpu));
		cancel_work_sync(per_cpu_ptr(&mk_ipi_rest, cpu));
	}
	destroy_workqueue(mk_ipi_queue);
}

void mk_ipi_glue_queue_irq_work(void)
{
	irq_work_queue(this_cpu_ptr(&mk_ipi_irq_work));
}

void mk_ipi_glue_queue_rest(void)
{
	queue_work_on(raw_smp_processor_id(), mk_ipi_queue, this_cpu_ptr(&mk_ipi_rest));
}

/* Queues the tick on the CPU that receives the doorbell. With slots (RFC v2), a poll reads only the slot of its own CPU. */
void mk_ipi_glue_queue_tick(unsigned int ms)
{
	queue_delayed_work_on(0, mk_ipi_queue, &mk_ipi_tick, msecs_to_jiffies(ms));
}

/* Queues the work item that does a request of the host. The work item can sleep. It runs on CPU 0, which never goes offline. */
void mk_ipi_glue_queue_host_request(void)
{
	queue_work_on(0, mk_ipi_queue, &mk_ipi_host_request);
}

/* Queues the work item of consoles and channels, which sends messages, and adds and removes devices. The work item can sleep. */
void mk_ipi_glue_queue_services(void)
{
	queue_work_on(0, mk_ipi_queue, &mk_ipi_services);
}

/* Queues the irq work that wakes programs which wait for a message, or for a terminal. */
void mk_ipi_glue_queue_news(void)
{
	irq_work_queue(&mk_ipi_news);
}

/* CPU hotplug. In C because these functions are inline. */
int mk_ipi_glue_watch_cpus(void)
{
	return cpuhp_setup_state_nocalls(CPUHP_BP_PREPARE_DYN, "mk_ipi:prepare", mk_ipi_rs_cpu_prepare, NULL);
}

void mk_ipi_glue_unwatch_cpus(int state)
{
	cpuhp_remove_state_nocalls(state);
}

/* Notifiers of a reboot and of a sleep of the machine. In C because the notifier chains link objects of C. */
static int mk_ipi_on_reboot(struct notifier_block *self, unsigned long how, void *unused)
{
	mk_ipi_rs_end();
	return NOTIFY_DONE;
}

static int mk_ipi_on_sleep(struct notifier_block *self, unsigned long what, void *unused)
{
	bool sleep = what == PM_HIBERNATION_PREPARE || what == PM_SUSPEND_PREPARE || what == PM_RESTORE_PREPARE;

	return mk_ipi_rs_sleep(sleep) ? NOTIFY_DONE : notifier_from_errno(-EBUSY);
}

static struct notifier_block mk_ipi_reboot = { .notifier_call = mk_ipi_on_reboot };
static struct notifier_block mk_ipi_sleep = { .notifier_call = mk_ipi_on_sleep };

int mk_ipi_glue_watch_power(void)
{
	int err = register_reboot_notifier(&mk_ipi_reboot);

	if (err)
		return err;
	err = register_pm_notifier(&mk_ipi_sleep);
	if (err)
		unregister_reboot_notifier(&mk_ipi_reboot);
	return err;
}

void mk_ipi_glue_unwatch_power(void)
{
	unregister_pm_notifier(&mk_ipi_sleep);
	unregister_reboot_notifier(&mk_ipi_reboot);
}

/*
 * Checks whether the current task may start a kernel, in the same way as for kexec. In C because of the constants, and because
 * the functions are inline in a kernel without security modules.
 */
const int mk_ipi_glue_image_kind = READING_KEXEC_IMAGE;
const int mk_ipi_glue_initrd_kind = READING_KEXEC_INITRAMFS;

int mk_ipi_glue_may_start(void)
{
	return capable(CAP_SYS_BOOT) ? security_locked_down(LOCKDOWN_KEXEC) : -EPERM;
}

/* The files. In C because the layout of their objects depends on the configuration. */
static ssize_t mk_ipi_with_line(const char __user *from, size_t len, int (*run)(const char *, size_t))
{
	char *line;
	int err;

	if (!len || len > PAGE_SIZE)
		return -EINVAL;
	line = memdup_user_nul(from, len);
	if (IS_ERR(line))
		return PTR_ERR(line);
	err = run(line, len);
	kfree(line);
	return err ? err : len;
}

static ssize_t instances_write(struct file *file, const char __user *from, size_t len, loff_t *at)
{
	return mk_ipi_with_line(from, len, mk_ipi_rs_command);
}

static ssize_t traffic_write(struct file *file, const char __user *from, size_t len, loff_t *at)
{
	return mk_ipi_with_line(from, len, mk_ipi_rs_traffic);
}

#define traffic_show mk_ipi_rs_show_traffic
#define statistics_show mk_ipi_rs_show_statistics
DEFINE_SHOW_STORE_ATTRIBUTE(traffic);
DEFINE_SHOW_ATTRIBUTE(statistics);

/* debugfs `memory`: the directory and the regions, for mk-ipi-inspect. An offset in the file is a physical address. */
static ssize_t memory_read(struct file *file, char __user *to, size_t len, loff_t *at)
{
	void *page;
	ssize_t read;

	if (*at < 0)
		return -EINVAL;
	page = (void *)__get_free_page(GFP_KERNEL);
	if (!page)
		return -ENOMEM;
	read = mk_ipi_rs_read_memory(*at, page, min_t(size_t, len, PAGE_SIZE - offset_in_page(*at)));
	if (read > 0 && copy_to_user(to, page, read))
		read = -EFAULT;
	if (read > 0)
		*at += read;
	free_page((unsigned long)page);
	return read;
}

static const struct file_operations memory_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.read = memory_read,
	.llseek = default_llseek,
};

/* When a misc device is opened, private_data points to the device. But single_open requires that it is NULL. */
static int mk_ipi_device_open(struct inode *inode, struct file *file)
{
	file->private_data = NULL;
	return single_open(file, mk_ipi_rs_show_instances, NULL);
}

static const struct file_operations mk_ipi_device_fops = {
	.owner = THIS_MODULE,
	.open = mk_ipi_device_open,
	.read = seq_read,
	.write = instances_write,
	.llseek = seq_lseek,
	.release = single_release,
};

static struct miscdevice mk_ipi_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "mk_ipi",
	.fops = &mk_ipi_device_fops,
	.mode = 0600,
};
static struct dentry *mk_ipi_debugfs;

int mk_ipi_glue_add_files(void)
{
	int err = misc_register(&mk_ipi_device);

	if (err)
		return err;
	/* In a kernel without debugfs these calls do nothing. */
	mk_ipi_debugfs = debugfs_create_dir("mk_ipi", NULL);
	debugfs_create_file("statistics", 0400, mk_ipi_debugfs, NULL, &statistics_fops);
	debugfs_create_file("memory", 0400, mk_ipi_debugfs, NULL, &memory_fops);
	debugfs_create_file("traffic", 0600, mk_ipi_debugfs, NULL, &traffic_fops);
	return 0;
}

void mk_ipi_glue_remove_files(void)
{
	debugfs_remove(mk_ipi_debugfs);
	misc_deregister(&mk_ipi_device);
}

/* The reference to this module, and the current task. In C because THIS_MODULE and current are macros. */
bool mk_ipi_glue_hold_module(void)
{
	return try_module_get(THIS_MODULE);
}

void mk_ipi_glue_release_module(void)
{
	module_put(THIS_MODULE);
}

bool mk_ipi_glue_signal_pending(void)
{
	return signal_pending(current);
}

/*
 * Returns whether a line may be written to the log now. A peer that says goodbye and comes up again all the time must not fill
 * the log. In C because the rate limit is a macro.
 */
bool mk_ipi_glue_may_log(void)
{
	static DEFINE_RATELIMIT_STATE(limit, DEFAULT_RATELIMIT_INTERVAL, DEFAULT_RATELIMIT_BURST);

	return __ratelimit(&limit);
}

/* Writes a line for each message to the log, if dynamic debug is on. It is off by default. In C because pr_debug is a macro. */
void mk_ipi_glue_trace(bool sent, int peer, u32 type, u32 len, int result)
{
	if (sent)
		pr_debug("to %d: type %#x, %u bytes: %d\n", peer, type, len, result);
	else
		pr_debug("from %d: type %#x, %u bytes\n", peer, type, len);
}
