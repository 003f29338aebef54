/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The Rust functions that the C files call, and the C functions that Rust calls. ffi.rs declares the C functions for Rust. */
#ifndef MK_IPI_GLUE_H
#define MK_IPI_GLUE_H

#include <linux/types.h>

/* These must be the same as MAX_INSTANCES in peers.rs and SLOTS in services/channel.rs. */
#define MK_IPI_MAX_INSTANCES 16
#define MK_IPI_MAX_CHANNELS 64

struct irq_work;
struct seq_file;
struct work_struct;

/* Functions in Rust that the C files call or pass to Linux. */
void mk_ipi_rs_deferred(struct irq_work *work);
void mk_ipi_rs_deferred_rest(struct work_struct *work);
void mk_ipi_rs_tick(struct work_struct *work);
void mk_ipi_rs_host_request(struct work_struct *work);
int mk_ipi_rs_serve(void *unused);
void mk_ipi_rs_goodbye(void);
void mk_ipi_rs_over(void);
int mk_ipi_rs_cpu_prepare(unsigned int cpu);
int mk_ipi_rs_show_instances(struct seq_file *to, void *unused);
int mk_ipi_rs_show_statistics(struct seq_file *to, void *unused);
int mk_ipi_rs_show_traffic(struct seq_file *to, void *unused);
int mk_ipi_rs_read_memory(u64 at, void *to, size_t len);
int mk_ipi_rs_command(const char *line, size_t len);
int mk_ipi_rs_traffic(const char *line, size_t len);
void mk_ipi_rs_end(void);
bool mk_ipi_rs_sleep(bool sleep);
void mk_ipi_rs_services(struct work_struct *work);
void mk_ipi_rs_news(struct irq_work *work);
u64 mk_ipi_rs_tty_lost(unsigned int id);
size_t mk_ipi_rs_tty_peek(unsigned int id, u8 *to, size_t room);
void mk_ipi_rs_tty_read(unsigned int id, size_t len);
size_t mk_ipi_rs_tty_write(unsigned int id, const u8 *from, size_t len);
unsigned int mk_ipi_rs_tty_room(unsigned int id);
unsigned int mk_ipi_rs_tty_unsent(unsigned int id);
void mk_ipi_rs_tty_forget(unsigned int id);
void mk_ipi_rs_tty_open(unsigned int id, bool is_open);
long mk_ipi_rs_log(const char *from, size_t len, bool any_context);
int mk_ipi_rs_peer_bind(unsigned int peer, u32 channel, bool reads, bool writes, u32 *seen);
void mk_ipi_rs_peer_unbind(unsigned int slot, bool reads, bool writes);
ssize_t mk_ipi_rs_peer_read(unsigned int slot, u8 *to, size_t room, u32 *seen);
ssize_t mk_ipi_rs_peer_write(unsigned int slot, const u8 *from, size_t len, u32 *seen);
__poll_t mk_ipi_rs_peer_ready(unsigned int slot, u32 seen_read, u32 seen_write);

/* Functions and variables in C, mostly in glue.c and spawned.c, that Rust uses. */
extern char *mk_ipi_glue_memory;
extern char *mk_ipi_glue_generation;
extern char *mk_ipi_glue_low;
extern unsigned long mk_ipi_glue_trampoline;
extern const unsigned long mk_ipi_glue_irq_flags;
extern const int mk_ipi_glue_image_kind;
extern const int mk_ipi_glue_initrd_kind;
unsigned long mk_ipi_glue_irq_save(void);
void mk_ipi_glue_irq_restore(unsigned long flags);
unsigned int mk_ipi_glue_cpu(void);
unsigned int mk_ipi_glue_nr_cpus(void);
bool mk_ipi_glue_cpu_present(unsigned int cpu);
bool mk_ipi_glue_cpu_online(unsigned int cpu);
u32 mk_ipi_glue_apic_id(unsigned int cpu);
const struct cpumask *mk_ipi_glue_cpumask_of(unsigned int cpu);
u32 mk_ipi_glue_apic_read(u32 reg);
void mk_ipi_glue_apic_write(u32 reg, u32 value);
void mk_ipi_glue_apic_icr_write(u32 low, u32 dest);
bool mk_ipi_glue_irq_is_on(unsigned int irq, unsigned int cpu);
int mk_ipi_glue_reserved(u64 start, u64 len);
bool mk_ipi_glue_is_not_ram(u64 start, u64 len);
bool mk_ipi_glue_may_borrow(u64 at);
int mk_ipi_glue_watch_power(void);
void mk_ipi_glue_unwatch_power(void);
int mk_ipi_glue_may_start(void);
void mk_ipi_glue_lock(unsigned int which);
void mk_ipi_glue_unlock(unsigned int which);
int mk_ipi_glue_start_work(void);
void mk_ipi_glue_stop_work(void);
void mk_ipi_glue_queue_irq_work(void);
void mk_ipi_glue_queue_rest(void);
void mk_ipi_glue_queue_tick(unsigned int ms);
void mk_ipi_glue_queue_host_request(void);
int mk_ipi_glue_start_serving(void);
void mk_ipi_glue_stop_serving(void);
bool mk_ipi_glue_should_stop(void);
int mk_ipi_glue_watch_end(void);
void mk_ipi_glue_unwatch_end(void);
void mk_ipi_glue_power_off(void);
int mk_ipi_glue_watch_cpus(void);
void mk_ipi_glue_unwatch_cpus(int state);
int mk_ipi_glue_add_files(void);
void mk_ipi_glue_remove_files(void);
bool mk_ipi_glue_hold_module(void);
void mk_ipi_glue_release_module(void);
bool mk_ipi_glue_signal_pending(void);
bool mk_ipi_glue_may_log(void);
unsigned long mk_ipi_glue_spin_lock(unsigned int which);
void mk_ipi_glue_spin_unlock(unsigned int which, unsigned long flags);
void mk_ipi_glue_queue_services(void);
void mk_ipi_glue_queue_news(void);
void *mk_ipi_glue_alloc(size_t len);
void mk_ipi_glue_free(void *at);

/* Functions of tty.c that Rust calls. */
int mk_ipi_glue_tty_start(bool is_raw);
void mk_ipi_glue_tty_stop(void);
int mk_ipi_glue_tty_add(unsigned int id);
void mk_ipi_glue_tty_remove(unsigned int id);
void mk_ipi_glue_tty_drain(unsigned int id);
void mk_ipi_glue_tty_wake(unsigned int id);
void mk_ipi_glue_console_start(void);
void mk_ipi_glue_console_stop(void);

/* Functions of peer.c that Rust calls, and mk_ipi_glue_trace of glue.c. */
int mk_ipi_glue_peer_start(void);
void mk_ipi_glue_peer_stop(void);
int mk_ipi_glue_peer_add(unsigned int id);
void mk_ipi_glue_peer_remove(unsigned int id);
void mk_ipi_glue_peer_wake(unsigned int slot);
void mk_ipi_glue_trace(bool sent, int peer, u32 type, u32 len, int result);

#endif
