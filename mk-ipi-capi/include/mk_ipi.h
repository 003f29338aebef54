/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * mk-ipi: how kernels on one machine talk, by shared memory and an interrupt. For kernels written
 * in C.
 *
 * Made by cbindgen from the crate mk-ipi-capi: do not edit.
 *
 * A kernel fills a `struct mk_ipi_ops`, and makes an instance of the library in a static `struct
 * mk_ipi` (mk_ipi_init). It says which instance of the machine it is (mk_ipi_identify, or
 * mk_ipi_start for a spawned kernel), adds the instances that it talks to, and registers handlers.
 * It calls mk_ipi_interrupt in the doorbell's vector, and mk_ipi_run_deferred after `schedule` was
 * called. A CPU that polls keeps a poller (mk_ipi_poller_begin) instead.
 *
 * The calls that begin with multikernel_, mk_send_ and mk_receive_ have the names and results of
 * the Linux patch "Introduce generic multikernel IPI communication framework"; they work on the
 * instance that mk_ipi_set_default names.
 *
 * Calls that return an int return 0 or a count, or a negated error number (enum mk_ipi_error, with
 * the numbers of Linux). Only negative results are failures. mk_ipi_strerror has a text for each
 * number, and mk_ipi_last_error says why the last call on this CPU failed. Addresses and lengths
 * are in bytes.
 *
 * Context. Each call says in what context of a kernel it may be called:
 *
 *   any              tasks, callbacks of this library, interrupt handlers, NMI handlers
 *   any but NMI      tasks, callbacks, interrupt handlers
 *   may sleep        tasks that hold no spinlock: the call uses operations that may sleep, or waits
 *                    for other CPUs
 *   interrupts off   the doorbell's interrupt handler
 *
 * Any number of CPUs may make calls for one instance of the library at the same time. An interrupt
 * or an NMI may come at any moment of a call, and its handler may make the calls of its context. If
 * a call needs more, such as one caller at a time, its comment says so.
 *
 * Sections: general, life of a kernel, messages, native link, RFC v2, host.
 *
 * The library allocates nothing and prints nothing. The only functions that it calls from outside
 * are memcpy, memset, memcmp and memmove. The library for x86_64-unknown-none has weak definitions
 * of these, so it needs nothing. It uses no floating-point or vector registers there.
 */

#ifndef MK_IPI_H
#define MK_IPI_H

/*
 * Types: size_t, offsetof, and those of <stdint.h>. If your kernel has them in a header of its own, name that header:
 * -DMK_IPI_TYPES='<linux/types.h>'. Without that, and without the compiler's headers (-nostdinc), they are defined here.
 */
#ifdef MK_IPI_TYPES
#include MK_IPI_TYPES
#else
#ifdef __has_include
#if !__has_include(<stdint.h>) || !__has_include(<stddef.h>)
#define MK_IPI_OWN_TYPES 1
#endif
#endif
#ifdef MK_IPI_OWN_TYPES
typedef __SIZE_TYPE__ size_t;
typedef __UINT8_TYPE__ uint8_t;
typedef __UINT32_TYPE__ uint32_t;
typedef __UINT64_TYPE__ uint64_t;
typedef __INT64_TYPE__ int64_t;
#if !defined(NULL) && !defined(__cplusplus)
#define NULL ((void *)0)
#endif
#else
#include <stddef.h>
#include <stdint.h>
#endif
#endif
#ifndef offsetof
#define offsetof(type, member) __builtin_offsetof(type, member)
#endif

/* An attribute that the compiler must have: gcc and clang have it, in C99 too. */
#define MK_IPI_ALIGNED(n) __attribute__((aligned(n)))

/*
 * Limits. They are chosen when the library is built (`cargo xtask capi --help`). Define them here to the same values:
 * mk_ipi_init fails if these give another size.
 */
/** Most CPUs of this kernel: `this_cpu_index` is below it. CPUs of other kernels need no room. 1 to 4096. */
#ifndef MK_IPI_MAX_CPUS
#define MK_IPI_MAX_CPUS 64
#endif
#if MK_IPI_MAX_CPUS < 1 || MK_IPI_MAX_CPUS > 4096
#error "MK_IPI_MAX_CPUS must be 1 to 4096"
#endif
/** Most handlers that can be registered at a time. 1 to 128. */
#ifndef MK_IPI_MAX_HANDLERS
#define MK_IPI_MAX_HANDLERS 64
#endif
#if MK_IPI_MAX_HANDLERS < 1 || MK_IPI_MAX_HANDLERS > 128
#error "MK_IPI_MAX_HANDLERS must be 1 to 128"
#endif
/** Messages that one run of the deferred work handles at most; on RFC v2 also those that can wait for it on a CPU. A power of two. 1 to 1024. */
#ifndef MK_IPI_QUEUE
#define MK_IPI_QUEUE 16
#endif
#if MK_IPI_QUEUE < 1 || MK_IPI_QUEUE > 1024
#error "MK_IPI_QUEUE must be 1 to 1024"
#endif
/** This kernel can know only instances whose ids are below it. 1 to 256. */
#ifndef MK_IPI_MAX_INSTANCES
#define MK_IPI_MAX_INSTANCES 256
#endif
#if MK_IPI_MAX_INSTANCES < 1 || MK_IPI_MAX_INSTANCES > 256
#error "MK_IPI_MAX_INSTANCES must be 1 to 256"
#endif
/** Bytes of `struct mk_ipi`. */
#define MK_IPI_ROUND_(n) (((n) + 127) / 128 * 128)
#define MK_IPI_SIZE \
	MK_IPI_ROUND_(5376 + MK_IPI_MAX_CPUS * (MK_IPI_ROUND_(232 + 280 * MK_IPI_QUEUE) + 4) + \
		       44 * MK_IPI_MAX_HANDLERS + 617 * MK_IPI_MAX_INSTANCES)

/* Declared here, so that the sections need no order. */
struct mk_ipi_handler;
struct mk_ipi;
struct mk_ipi_event;
struct mk_ipi_message;
struct mk_ipi_ops;
struct mk_ipi_instance;
struct mk_ipi_range;
struct mk_ipi_instance_info;
struct mk_ipi_payload;
struct mk_ipi_stats;
struct mk_ipi_lane_stats;
struct mk_ipi_poller;
struct mk_ipi_data;
struct mk_ipi_directory_writer;
struct mk_ipi_record;
struct mk_ipi_conflict;

#ifdef __cplusplus
extern "C" {
#endif

/* ====================================================================
 * General
 *
 * Limits, error numbers, layouts of regions.
 */

/**
 * Most CPUs that an instance can list, here and in the directory.
 */
#define MK_IPI_MAX_ENTRY_CPUS 1024

/**
 * Layout of a region: generation RFC v2, a slot for each CPU.
 */
#define MK_IPI_RFC_V2 1

/**
 * Layout of a region: the native link, a lane for each sending instance.
 */
#define MK_IPI_NATIVE 2

/**
 * Error numbers, those of Linux. Calls return them negated: `-MK_IPI_EINVAL`. `mk_ipi_strerror` returns a text for each.
 */
enum mk_ipi_error {
    /**
     * No such CPU or address.
     */
    MK_IPI_ENXIO = 6,
    /**
     * Try again.
     */
    MK_IPI_EAGAIN = 11,
    /**
     * Out of memory, or a table is full.
     */
    MK_IPI_ENOMEM = 12,
    /**
     * The kernel does not allow it.
     */
    MK_IPI_EACCES = 13,
    /**
     * In use.
     */
    MK_IPI_EBUSY = 16,
    /**
     * It exists already.
     */
    MK_IPI_EEXIST = 17,
    /**
     * No region, no pool, or no default instance of the library.
     */
    MK_IPI_ENODEV = 19,
    /**
     * Invalid argument.
     */
    MK_IPI_EINVAL = 22,
    /**
     * The lane is full.
     */
    MK_IPI_ENOSPC = 28,
    /**
     * A number does not fit.
     */
    MK_IPI_ERANGE = 34,
    /**
     * The caller would wait for itself.
     */
    MK_IPI_EDEADLK = 35,
    /**
     * The protocol, or its version, is not known.
     */
    MK_IPI_EPROTO = 71,
    /**
     * The handle or instance belongs to a former life.
     */
    MK_IPI_ESTALE = 116,
};

/**
 * A piece of physical memory.
 */
struct mk_ipi_range {
    /**
     * First byte.
     */
    uint64_t start;
    /**
     * Bytes.
     */
    uint64_t len;
};

/**
 * Counters of an instance of the library, summed over its CPUs. Each counts from 0 and wraps at 2^64.
 */
struct mk_ipi_stats {
    /**
     * Messages stored.
     */
    uint64_t sent;
    /**
     * Sends refused because the exclusive slot was occupied.
     */
    uint64_t busy;
    /**
     * Sends refused because the lane was full.
     */
    uint64_t full;
    /**
     * Sends refused for any other reason.
     */
    uint64_t refused;
    /**
     * Doorbells of the native link. Its other sends needed none.
     */
    uint64_t rung;
    /**
     * Messages stored whose doorbell did not ring.
     */
    uint64_t not_rung;
    /**
     * Calls of `mk_ipi_interrupt`.
     */
    uint64_t interrupts;
    /**
     * Messages copied out of shared memory.
     */
    uint64_t received;
    /**
     * Messages given to at least one handler.
     */
    uint64_t handled;
    /**
     * Messages for whose type no handler was registered.
     */
    uint64_t unhandled;
    /**
     * Interrupts and polls that found an empty slot.
     */
    uint64_t empty;
    /**
     * Slots found with a size that is neither message nor claim.
     */
    uint64_t bad_size;
    /**
     * Messages overwritten while they were read.
     */
    uint64_t overwritten;
    /**
     * Messages dropped because the queue was full.
     */
    uint64_t dropped;
    /**
     * Messages left in their exclusive slot because the queue was full, and taken later.
     */
    uint64_t left;
    /**
     * Interrupts without a region of our own, or on a CPU that has no slot in it.
     */
    uint64_t no_region;
    /**
     * Interrupts on a CPU whose index is not below `MK_IPI_MAX_CPUS`.
     */
    uint64_t beyond_cpus;
    /**
     * Lanes put into quarantine.
     */
    uint64_t quarantined;
};

/**
 * The text of an error number, negated or not, as calls return it. 0 and numbers that no call returns have a text too.
 *
 * Returns the text, which is constant: never NULL. Context: any.
 */
const char *mk_ipi_strerror(int error);

/**
 * Why a call for `mk` failed on this CPU. The text says more than the text of the error number (`mk_ipi_strerror`). `error` is
 * the result of that call. If the last failure on this CPU had another number, or no more is known, the text is that of
 * `mk_ipi_strerror`. If `mk` is not an instance of the library, because `mk_ipi_init` failed, the text says why that failed.
 *
 * The library keeps one failure for each CPU. Ask on the CPU that made the call, before it makes another call; do not migrate
 * in between. A call in an interrupt handler that fails in between replaces the kept failure; then the text is that of the
 * handler's failure if the numbers are the same. For directory writers and pollers no failure is kept. Returns the text, which
 * is constant: never NULL. Context: any.
 *
 * Safety:
 * As `mk_ipi_identify`.
 */
const char *mk_ipi_last_error(struct mk_ipi *mk,
                              int error);

/* ====================================================================
 * Life of a kernel
 *
 * Its operations, the instance of the library, its identity, the instances that it talks to, and its end.
 */

/**
 * `mk_ipi_follow`: the instance is new, and was added.
 */
#define MK_IPI_FOLLOWED_ADDED 1

/**
 * `mk_ipi_follow`: the life, the state or the doorbell of the instance changed. Its region is the same.
 */
#define MK_IPI_FOLLOWED_CHANGED 2

/**
 * `mk_ipi_follow`: the instance or its region is gone, and it was removed from the table.
 */
#define MK_IPI_FOLLOWED_REMOVED 3

/**
 * `mk_ipi_follow`: the instance is live, but could not be added. `mk_ipi_follow` tries again after the next change of the
 * directory.
 */
#define MK_IPI_FOLLOWED_LEFT_OUT 4

/**
 * `mk_ipi_follow`: the host treats this life of ours as dead: our own entry is not live, or names another life.
 */
#define MK_IPI_FOLLOWED_TAKEN_FOR_DEAD 5

/**
 * The version of `struct mk_ipi_ops` that this header describes.
 */
#define MK_IPI_OPS_VERSION 3

/**
 * Storage for one instance of the library: a kernel's end of all its links. It is large: make it `static`,
 * zeroed. It must not move.
 */
struct MK_IPI_ALIGNED(128) mk_ipi {
    uint8_t _opaque[MK_IPI_SIZE];
};

/**
 * Operations that the kernel implements. Each gets `ctx`. The table is copied.
 *
 * Eight are required: `map`, `unmap`, `doorbell_ring`, `this_cpu_id`, `this_cpu_index`, `irq_save`, `irq_restore` and
 * `schedule`. The others may be NULL; their comments say what that means.
 *
 * Any CPU may call any of them at any time. Only `pool_alloc`, `pool_free`, `map`, `unmap`, `region_added`
 * and `region_removed` may sleep; `doorbell_check`, `doorbell_ring`, `this_cpu_id`, `this_cpu_index`,
 * `peer_has_cpu`, `schedule` and `stop` are called in interrupt context too, `doorbell_ring_nmi`,
 * `peer_has_cpu`, `irq_save`, `irq_restore`, `this_cpu_id` and `this_cpu_index` in NMI context.
 */
struct mk_ipi_ops {
    /**
     * `sizeof(struct mk_ipi_ops)`.
     */
    size_t size;
    /**
     * `MK_IPI_OPS_VERSION`.
     */
    uint32_t version;
    /**
     * 0.
     */
    uint32_t reserved;
    /**
     * First argument of each operation.
     */
    void *ctx;
    /**
     * Takes `len` bytes, page-aligned, in whole pages, from the pool of `instance`. Stores their address in
     * `*phys`. Returns 0, -19 (`ENODEV`) without a pool, or -12 (`ENOMEM`). NULL for a kernel without pools, which cannot
     * create instances.
     */
    int (*pool_alloc)(void *ctx, int instance, uint64_t len, uint64_t *phys);
    /**
     * Gives memory from `pool_alloc` back to the pool. NULL if `pool_alloc` is NULL.
     */
    void (*pool_free)(void *ctx, int instance, uint64_t phys, uint64_t len);
    /**
     * Maps `len` bytes at `phys`, write-back cached, writable only if `writable` is not 0. Stores the address in `*virt`,
     * 8-byte aligned. Returns 0, -12 (`ENOMEM`) or -13 (`EACCES`). It must refuse memory that this kernel uses for itself.
     */
    int (*map)(void *ctx, uint64_t phys, uint64_t len, int writable, void **virt);
    /**
     * Undoes a `map`.
     */
    void (*unmap)(void *ctx, void *virt, uint64_t len);
    /**
     * Returns whether a page that a peer named may be mapped: 0 if not. NULL: no page may be mapped.
     */
    int (*peer_may_share)(void *ctx, uint64_t phys, uint64_t len);
    /**
     * Checks whether `doorbell_ring` can reach the CPU. Returns 0 if it can, -6 (`ENXIO`) if not, or another negated error
     * number. Sends nothing. NULL: `doorbell_ring` can reach each CPU.
     */
    int (*doorbell_check)(void *ctx, uint64_t cpu, unsigned int vector);
    /**
     * Interrupts the CPU with this physical id: fixed vector, edge. All earlier stores of this CPU must be
     * visible to the handler that this doorbell causes there. Returns 0, -6 (`ENXIO`), -11 (`EAGAIN`: the controller
     * is stuck), or another negated error number.
     */
    int (*doorbell_ring)(void *ctx, uint64_t cpu, unsigned int vector);
    /**
     * As `doorbell_ring`, but called in an NMI handler, which may have interrupted a `doorbell_ring` on its CPU. NULL:
     * `mk_ipi_send_from_nmi` is refused.
     */
    int (*doorbell_ring_nmi)(void *ctx, uint64_t cpu, unsigned int vector);
    /**
     * Physical id of the calling CPU: on x86 its APIC id.
     */
    uint64_t (*this_cpu_id)(void *ctx);
    /**
     * Index of the calling CPU within this kernel: dense from 0, below `MK_IPI_MAX_CPUS`.
     */
    unsigned int (*this_cpu_index)(void *ctx);
    /**
     * Switches interrupts off on this CPU, and prevents migration. Returns the former state. Pairs nest.
     */
    unsigned long (*irq_save)(void *ctx);
    /**
     * Restores the state that `irq_save` returned.
     */
    void (*irq_restore)(void *ctx, unsigned long state);
    /**
     * Schedules a call of `mk_ipi_run_deferred`, soon, on this CPU, outside of the interrupt handler. Interrupts are off.
     * Must not make the call itself.
     */
    void (*schedule)(void *ctx);
    /**
     * Called repeatedly while a call waits for another CPU's callback. It may sleep or yield. NULL: a pause instruction.
     */
    void (*relax)(void *ctx);
    /**
     * Prints a line to the kernel's log. At most one line for each failed call, never in interrupt context. May be
     * NULL.
     */
    void (*log)(void *ctx, const char *text);
    /**
     * A region is mapped from now on: for the kernel's resource tree. May be NULL.
     */
    void (*region_added)(void *ctx, int instance, uint64_t phys, uint64_t len);
    /**
     * A region will be removed. May be NULL.
     */
    void (*region_removed)(void *ctx, int instance, uint64_t phys, uint64_t len);
    /**
     * Something happened to a peer. Called in deferred work, a poll, or any other call that finds the event. It may
     * send, and must not wait. May be NULL.
     */
    void (*peer_event)(void *ctx, const struct mk_ipi_event *event);
    /**
     * Returns whether the CPU belongs to the peer now, according to the directory: 1 or 0, or negative if that is not known.
     * If it is negative, or this operation is NULL, the library reads the directory that it keeps (`mk_ipi_start`,
     * `mk_ipi_join`). Without a directory only its doorbell CPU belongs to a peer. The operation is called when a peer has moved
     * its doorbell, so that only CPUs of the peer are interrupted. It is also called for this kernel itself when it moves its
     * own doorbell. Must not wait.
     */
    int (*peer_has_cpu)(void *ctx, int peer, uint64_t cpu);
    /**
     * Called if a live instance could not be added, by `mk_ipi_start`, `mk_ipi_join`, or `mk_ipi_follow` without a
     * callback. `error` is the reason, as a negated error number. `mk_ipi_follow` tries again after the next change of
     * the directory. May be NULL.
     */
    void (*left_out)(void *ctx, int instance, int error);
    /**
     * The host tells this kernel to stop at once. Called again and again until the kernel has stopped. May be NULL.
     */
    void (*stop)(void *ctx);
    /**
     * A message was received for whose type no handler is registered. It is dropped after this call. Called where
     * handlers are called, under the same rules. May be NULL.
     */
    void (*unhandled)(void *ctx, const struct mk_ipi_message *message);
};

/**
 * What must be known of an instance before messages can be sent to it. Set unused fields to 0.
 */
struct mk_ipi_instance {
    /**
     * Physical ids of its known CPUs (on x86 APIC ids). They are checked, and not stored.
     */
    const uint64_t *cpus;
    /**
     * The CPU that is rung if the sender names no other; one of `cpus`.
     */
    uint64_t doorbell_cpu;
    /**
     * Number of CPUs, 1 to `MK_IPI_MAX_ENTRY_CPUS`.
     */
    uint32_t nr_cpus;
    /**
     * The instance id, 0 to 255.
     */
    int id;
    /**
     * Its incarnation, never 0.
     */
    uint32_t incarnation;
    /**
     * The vector to ring: 0x20 to 0xfe.
     */
    uint32_t vector;
    /**
     * `MK_IPI_RFC_V2` or `MK_IPI_NATIVE`.
     */
    uint32_t layout;
    /**
     * RFC v2: number of slots, the `NR_CPUS` of its kernel. The ids of all its CPUs are below it.
     */
    uint32_t slots;
    /**
     * RFC v2: 1 if the receiver and all senders are mk-ipi, so that no message is overwritten; 0 with C
     * peers.
     */
    uint32_t exclusive;
    /**
     * Native: lanes, 1 to 256. 0: any number (attach), or 16 (create).
     */
    uint32_t lanes;
    /**
     * Native: lines of 64 bytes in each lane, a power of two from 8 to 4096, and enough for the longest
     * message; 0 where `lanes` is 0. If both this and `max_len` are 0: the default for this number of lanes.
     */
    uint32_t lines;
    /**
     * Native: most bytes of a message, 1 to 4096; 0 where `lines` is 0.
     */
    uint32_t max_len;
    /**
     * 1 if the vector rings it at `doorbell_cpu` only. Then no other CPU can be the target.
     */
    uint32_t one_doorbell;
};

/**
 * What is known of an instance.
 */
struct mk_ipi_instance_info {
    /**
     * Physical address of its region; 0 if it has none.
     */
    uint64_t region_start;
    /**
     * Bytes of its region; 0 if it has none.
     */
    uint64_t region_len;
    /**
     * The CPU that is rung if the sender names no other.
     */
    uint64_t doorbell_cpu;
    /**
     * Its incarnation.
     */
    uint32_t incarnation;
    /**
     * `MK_IPI_RFC_V2`, `MK_IPI_NATIVE`, or 0 without a region.
     */
    uint32_t layout;
    /**
     * RFC v2: 1 if its slots are exclusive.
     */
    uint32_t exclusive;
    /**
     * The vector to ring.
     */
    uint32_t vector;
    /**
     * 1 if the vector rings it at `doorbell_cpu` only.
     */
    uint32_t one_doorbell;
    /**
     * 0.
     */
    uint32_t reserved;
};

/**
 * Called by `mk_ipi_follow` for each changed instance. `what` is an `MK_IPI_FOLLOWED_` number. `error` is the reason of
 * `LEFT_OUT`, as a negated error number; otherwise 0.
 */
typedef void (*mk_ipi_followed_callback_t)(int instance, uint32_t what, int error, void *ctx);

/**
 * Makes an instance of the library in `mk`, which is not in use yet.
 *
 * `size`: `sizeof(struct mk_ipi)`. It shows whether header and library have the same version and limits.
 * Returns 0; -EINVAL if `mk` or `ops` is NULL, a required operation is NULL (the operation `log` is called with its name), or a
 * size is wrong; -EPROTO if `ops->version` is wrong; -EBUSY if there is an instance in `mk` already.
 *
 * Context: any but NMI, while no other call uses `mk`. Does not sleep. It writes all of `mk`, and uses little stack.
 *
 * Safety:
 * `mk` is NULL, or zeroed storage, or one given up by `mk_ipi_fini`; `ops` is NULL or a table whose
 * operations do what their comments require.
 */
int mk_ipi_init(struct mk_ipi *mk,
                size_t size,
                const struct mk_ipi_ops *ops);

/**
 * Ends an instance of the library: says goodbye, unmaps all that it has mapped, and gives memory back to the pools. Its
 * storage can be used again.
 *
 * Returns 0; -EINVAL if there is no instance; -EBUSY while a call, or a poller, still uses an instance or the directory, and
 * while another kernel has a region mapped that came from our pools (`mk_ipi_destroy_stopped`): call again; -ENOMEM if
 * such a region cannot be mapped to read what the kernels say. If it is the default instance, there is no default instance
 * afterwards. Context: may sleep; no other call may use `mk` any more, and its doorbell must have stopped.
 *
 * Safety:
 * As `mk_ipi_identify`.
 */
int mk_ipi_fini(struct mk_ipi *mk);

/**
 * Sets the identity of this kernel. Before that, interrupts are ignored, sends are refused, and native links cannot be made.
 *
 * Peers may have sent before, so every other CPU of this kernel must call `mk_ipi_poll` once after this. Returns 0;
 * -EINVAL if `mk` is not an instance of the library, `instance` is not 0 to 255, or `incarnation` is 0. Context: any but NMI.
 *
 * Safety:
 * `mk` is NULL, zeroed storage, or an instance of the library that is not given up meanwhile.
 */
int mk_ipi_identify(struct mk_ipi *mk,
                    int instance,
                    uint32_t incarnation);

/**
 * The identity of this kernel. Stores its incarnation in `*incarnation`, unless that is NULL.
 *
 * Returns 0 to 255; -EINVAL if `mk` is not an instance of the library, or `incarnation` misaligned; -ENODEV before
 * `mk_ipi_identify`. Context: any.
 *
 * Safety:
 * As `mk_ipi_identify`; `incarnation` is NULL or may be written.
 */
int mk_ipi_identity(struct mk_ipi *mk,
                    uint32_t *incarnation);

/**
 * Adds an instance and makes its region from its pool: zeroed, mapped, then published. Stores the range of the region in
 * `*made`, unless that is NULL.
 *
 * Returns 0; -EINVAL for null and misaligned pointers, an id out of range and any other number that is not allowed,
 * and on the native link without `mk_ipi_identify`; -EEXIST if the id is in the table; -ENODEV without a pool; -ENOMEM if
 * the id is not below `MK_IPI_MAX_INSTANCES`, the pool is exhausted or the mapping fails. Context: may sleep.
 *
 * Safety:
 * As `mk_ipi_identify`; `config` is NULL or its `cpus` is NULL or holds `nr_cpus`; `made` is NULL or may be
 * written.
 */
int mk_ipi_create_instance(struct mk_ipi *mk,
                           const struct mk_ipi_instance *config,
                           struct mk_ipi_range *made);

/**
 * Adds an instance whose region another kernel made: `len` bytes at `start`, page-aligned. Both are 0 if it has
 * none.
 *
 * Returns 0; -EINVAL as `mk_ipi_create_instance`, and for a region that is misaligned, too small, without a
 * lane for us, of another geometry than `config` says, or that overlaps another instance's region; -EPROTO if there is no
 * native region that this library can use; -EEXIST if the id is in the table; -ENOMEM if the id is not below
 * `MK_IPI_MAX_INSTANCES`, or the mapping fails. Context: may sleep.
 *
 * Safety:
 * As `mk_ipi_create_instance`.
 */
int mk_ipi_attach_instance(struct mk_ipi *mk,
                           const struct mk_ipi_instance *config,
                           uint64_t start,
                           uint64_t len);

/**
 * Removes an instance from the table, unmaps its region and gives back memory that came from its pool. Messages that the
 * instance has not confirmed as handled are reported by `MK_IPI_EVENT_UNSETTLED`. Before this kernel's own instance is
 * destroyed, call `mk_ipi_goodbye`: until then, for the creator of the region, this kernel still uses it.
 *
 * Returns 0; -EINVAL if `mk` or the instance does not exist (nothing changed); -EBUSY while calls still use it: new users
 * are refused, call again; also -EBUSY, and nothing changed, if the region is native, came from our pool, and another
 * kernel says that it has the region mapped: write `MK_IPI_ENDING` into the directory, and call again, or see
 * `mk_ipi_destroy_stopped`; -ENOMEM if the region cannot be mapped to read what the kernels say. Context: may sleep.
 *
 * Safety:
 * As `mk_ipi_identify`.
 */
int mk_ipi_destroy_instance(struct mk_ipi *mk,
                            int id);

/**
 * Stores what is known of an instance in `*info`.
 *
 * Returns 0; -EINVAL for null pointers and an unknown instance; -ESTALE for an instance that was destroyed. Context:
 * any.
 *
 * Safety:
 * As `mk_ipi_identify`; `info` is NULL or may be written.
 */
int mk_ipi_get_instance(struct mk_ipi *mk,
                        int id,
                        struct mk_ipi_instance_info *info);

/**
 * The value of `mk_ipi_shared=` on a command line of `len` bytes, which need not end with NUL: the address
 * of the kernel's own region. Instead of a command line, the value alone is also accepted, as a kernel's own parser returns it:
 * one word that begins with a digit.
 *
 * Returns 1 and the address in `*address`; 0 if the parameter is absent; -EINVAL for null pointers, an empty
 * value, 0, a value that is not a number, and garbage after it; -ERANGE for an address above 52 bits. Context: any.
 *
 * Safety:
 * `cmdline` is NULL or holds `len` bytes; `address` is NULL or may be written.
 */
int mk_ipi_boot_shared(const char *cmdline,
                       size_t len,
                       uint64_t *address);

/**
 * The value of `mk_ipi_directory=`: the address of the directory. Otherwise as `mk_ipi_boot_shared`.
 *
 * Safety:
 * As `mk_ipi_boot_shared`.
 */
int mk_ipi_boot_directory(const char *cmdline, size_t len, uint64_t *address);

/**
 * Starts a spawned kernel: finds its own entry in the directory at `mk_ipi_directory=`, by the region at `mk_ipi_shared=`,
 * and adds all live instances. An instance that cannot be added is left out, and reported by `left_out`.
 *
 * The directory stays mapped until `mk_ipi_fini`: `mk_ipi_follow` reads it. It also says which CPUs belong to a peer if
 * the operation `peer_has_cpu` does not.
 *
 * Returns the number of added instances; 0 if `mk_ipi_shared=` is absent: the kernel has no region, and interrupts are
 * ignored. -EINVAL and -ERANGE for an invalid value; -ENODEV if `mk_ipi_directory=` is absent, or no live entry
 * has that region; -EPROTO if there is no directory at that address; -EAGAIN while the host changes it; -EEXIST if this kernel
 * is in the table already, or keeps another directory; -ENOMEM, also if its id is not below `MK_IPI_MAX_INSTANCES`. After an
 * error nothing that this call added or mapped stays, and boot can continue. Context: may sleep. Every other CPU of this
 * kernel must call `mk_ipi_poll` once afterwards.
 *
 * Safety:
 * As `mk_ipi_identify`; `cmdline` is NULL or holds `len` bytes.
 */
int mk_ipi_start(struct mk_ipi *mk,
                 const char *cmdline,
                 size_t len);

/**
 * Takes the identity of the instance whose region is at `shared`, and adds all live instances of the directory at
 * `memory`. If another instance than this kernel's own cannot be added, it is left out, and reported by `left_out`.
 *
 * Returns the number of added instances, including its own; or an error as `mk_ipi_start`. Context: may sleep.
 *
 * Safety:
 * As `mk_ipi_identify`; `memory` is NULL or `len` bytes that stay mapped until `mk_ipi_fini`, or an error.
 */
int mk_ipi_join(struct mk_ipi *mk,
                uint64_t shared,
                const void *memory,
                size_t len);

/**
 * Applies the changes of the directory since the last call, or since `mk_ipi_start` or `mk_ipi_join`: adds new instances,
 * removes those whose region ends, and rings according to the new entries. Calls
 * `callback`, unless that is NULL, with `ctx` for every change.
 *
 * Returns the generation of the directory. From then on all our lanes name it. So the host knows (`mk_ipi_behind`) that this
 * kernel rings no CPU, and uses no region, that only an older generation named. -EINVAL if `mk` is not an instance of the
 * library; -ENODEV without a directory; -EAGAIN while the host changes it, or a CPU of ours still rings by an old entry;
 * -EBUSY while calls use an instance that must be removed: the other changes were applied, call again.
 *
 * Context: may sleep; one caller at a time. Call it periodically (it is one load if nothing has changed), and after
 * `MK_IPI_EVENT_READ_DIRECTORY`, but not in that callback. The callback may send and register, and must not end `mk`.
 *
 * Safety:
 * As `mk_ipi_identify`; `callback` may be called with `ctx`.
 */
int64_t mk_ipi_follow(struct mk_ipi *mk,
                      mk_ipi_followed_callback_t callback,
                      void *ctx);

/* ====================================================================
 * Messages
 *
 * Handlers, sending and receiving, on both layouts.
 */

/**
 * A registration. It is a number, not an address. Only compare it with NULL, keep it, and pass it back.
 */
struct mk_ipi_handler;

/**
 * A message as callbacks of `mk_ipi_register` get it: a private copy, valid until the callback returns.
 */
struct mk_ipi_message {
    /**
     * The payload, 8-byte aligned; never NULL.
     */
    const void *payload;
    /**
     * Bytes of payload: 0 to 4096.
     */
    size_t size;
    /**
     * The number that the sender got for it (`mk_ipi_send`); 0 on RFC v2.
     */
    uint64_t number;
    /**
     * The low 32 bits of the physical id of the sending CPU, as the sender says.
     */
    uint64_t sender_cpu;
    /**
     * The message type.
     */
    uint32_t type;
    /**
     * The instance that sent, proved by its lane; -1 on RFC v2, where nothing proves it.
     */
    int sender;
    /**
     * Which life of the sender sent it, as that life says; 0 on RFC v2.
     */
    uint32_t sender_incarnation;
    /**
     * Our own life that receives it; 0 on RFC v2.
     */
    uint32_t receiver_incarnation;
};

/**
 * Called for a message of `mk_ipi_register`; otherwise as `mk_ipi_callback_t`.
 */
typedef void (*mk_ipi_message_callback_t)(const struct mk_ipi_message *message, void *ctx);

/**
 * Registers `callback` for messages of type `type`. It is called with `ctx`. A type may have several callbacks, which
 * are called in no defined order.
 *
 * The handle goes to `*handler`. Returns 0; -EINVAL if `mk` is not an instance of the library, or `callback` or `handler` is
 * NULL; -ENOMEM if `MK_IPI_MAX_HANDLERS` are registered. Context: any but NMI, callbacks included.
 *
 * Safety:
 * As `mk_ipi_identify`; any CPU may call `callback` with `ctx`; `handler` is NULL or may be written.
 */
int mk_ipi_register(struct mk_ipi *mk,
                    uint32_t type,
                    mk_ipi_message_callback_t callback,
                    void *ctx,
                    struct mk_ipi_handler **handler);

/**
 * Ends a registration. When this returns 0, the callback is not running and will not run again.
 *
 * Returns 0; -ESTALE if it was ended before; -EINVAL for NULL and for a handle of another instance of the
 * library; -EDEADLK on a CPU that runs a callback or has a poller. Context: may sleep (waits for
 * callbacks on other CPUs, and for the next poll of a poller there); not in interrupt context.
 *
 * Safety:
 * As `mk_ipi_identify`. `handler` may have any value.
 */
int mk_ipi_unregister(struct mk_ipi *mk, struct mk_ipi_handler *handler);

/**
 * Sends `size` bytes to an instance: on the native link 0 to 4096, or fewer if its region was made for
 * fewer; on RFC v2 1 to 256, to its doorbell CPU.
 *
 * Returns 0, and stores the message's number in `*number`, unless that is NULL. On the native link the number grows from
 * message to message, but not by one, and is never 0 (`mk_ipi_handled`, `mk_ipi_event`); on RFC v2 it is 0. If the message was
 * stored but its doorbell failed, the call also returns 0, with a number of 0, so that the message is not sent twice. The next
 * doorbell delivers it, or `mk_ipi_ring`, or the receiver finds it when it looks by itself. `mk_ipi_get_stats` counts these
 * messages in `not_rung`; on the native link `mk_ipi_post` and `mk_ipi_flush` say which doorbell failed. With another result
 * nothing was sent, and `*number` is unchanged:
 *
 * -EINVAL: `mk` is not an instance of the library, `to` is unknown, there are too many bytes, `data` is NULL and `size` is not
 * 0; on RFC v2 also 0 bytes, or this kernel was not identified.
 *
 * -ERANGE: `type` above 32 bits, or this CPU's id above 31 bits on RFC v2.
 *
 * -ESTALE: `to` was destroyed, or its region was created again since it was added; in the second case add it again
 * (`mk_ipi_follow` does so). -ENODEV: it has no region.
 *
 * -EBUSY: its slot is occupied. -ENOSPC: our lane is full. -EAGAIN: this life of ours was not answered yet, or
 * other CPUs took the space first.
 *
 * -EPROTO: the peer has our lane in quarantine, or its words contradict each other, or its new life does
 * not know our life. Then add the peer again.
 *
 * -ENXIO: the doorbell cannot reach the CPU (RFC v2).
 *
 * Context: any but NMI. It neither sleeps nor waits.
 *
 * Safety:
 * As `mk_ipi_identify`; `data` is NULL or holds `size` bytes; `number` is NULL or may be written.
 */
int mk_ipi_send(struct mk_ipi *mk,
                int to,
                unsigned long type,
                const void *data,
                size_t size,
                uint64_t *number);

/**
 * As `mk_ipi_send`, to the CPU of that instance with physical id `cpu`. -EINVAL if that CPU does not belong to the instance,
 * according to the operation `peer_has_cpu` or the directory; without both, only the doorbell CPU belongs to it. On the native
 * link messages go to an instance, so `cpu` must be the CPU of its doorbell; otherwise -EINVAL.
 *
 * Safety:
 * As `mk_ipi_send`.
 */
int mk_ipi_send_to_cpu(struct mk_ipi *mk,
                       int to,
                       uint64_t cpu,
                       unsigned long type,
                       const void *data,
                       size_t size,
                       uint64_t *number);

/**
 * Rings an instance, without a message, even if it does not want to be rung.
 *
 * Returns 0; -EINVAL, -ESTALE as `mk_ipi_send`; or the doorbell's error. Context: any but NMI.
 *
 * Safety:
 * As `mk_ipi_identify`.
 */
int mk_ipi_ring(struct mk_ipi *mk, int to);

/**
 * Handles a doorbell. On RFC v2 it copies the message in this CPU's slot, if any. It schedules the deferred work.
 *
 * Call it in the vector's handler, after the EOI. Bounded; calls no handler. Does nothing if `mk` is not an instance of the
 * library. Context: interrupts off; not NMI.
 *
 * Safety:
 * As `mk_ipi_identify`.
 */
void mk_ipi_interrupt(struct mk_ipi *mk);

/**
 * Looks for messages without an interrupt, so that a message whose doorbell was lost is found. On RFC v2 it reads
 * this CPU's exclusive slot. On the native link it schedules the deferred work, which looks.
 *
 * Returns 1 if the deferred work was scheduled (on the native link always); 0 if there was no message; -EINVAL if
 * `mk` is not an instance of the library, or its slots are not exclusive; -ENODEV without a region of its own; -ERANGE on a CPU whose
 * index is not below `MK_IPI_MAX_CPUS`. Context: any but NMI.
 *
 * Safety:
 * As `mk_ipi_identify`.
 */
int mk_ipi_poll(struct mk_ipi *mk);

/**
 * The deferred work: gives waiting messages to their handlers, at most `MK_IPI_QUEUE`.
 *
 * Stores 1 in `*more`, unless `more` is NULL, if messages are left and it was scheduled again. Returns the number of handled
 * messages, or -EINVAL if `mk` is not an instance of the library. Context: on the CPU that scheduled it, outside the vector's
 * code; must not migrate.
 *
 * Safety:
 * As `mk_ipi_identify`; `more` is NULL or may be written.
 */
int mk_ipi_run_deferred(struct mk_ipi *mk,
                        int *more);

/**
 * As `mk_ipi_run_deferred`, for a kernel that polls from time to time: on the native link it does not request doorbells,
 * and does not schedule another run. For constant polling use a poller (`mk_ipi_poller_begin`).
 *
 * Safety:
 * As `mk_ipi_run_deferred`.
 */
int mk_ipi_drain(struct mk_ipi *mk,
                 int *more);

/**
 * Stores the counters in `*stats`.
 *
 * Returns 0, or -EINVAL if `mk` is not an instance of the library, or `stats` is NULL. Context: any.
 *
 * Safety:
 * As `mk_ipi_identify`; `stats` is NULL or may be written.
 */
int mk_ipi_get_stats(struct mk_ipi *mk, struct mk_ipi_stats *stats);

/**
 * Sends the number of a page: its physical address divided by 4096.
 *
 * Returns the same as `mk_ipi_send`, and stores the message's number. Context: any but NMI.
 *
 * Safety:
 * As `mk_ipi_identify`; `number` is NULL or may be written.
 */
int mk_ipi_send_pfn(struct mk_ipi *mk, int to, uint64_t pfn, uint64_t *number);

/**
 * Maps a page that a peer named, 4096 bytes, write-back cached, if the kernel lets peers share it. Stores the address in
 * `*page`.
 *
 * Returns 0; -EINVAL for null pointers; -ERANGE if no CPU can address that page; -EACCES if it is not
 * shared; -ENOMEM if it cannot be mapped. Context: may sleep.
 *
 * Safety:
 * As `mk_ipi_identify`; `page` is NULL or may be written.
 */
int mk_ipi_map_pfn(struct mk_ipi *mk,
                   uint64_t pfn,
                   void **page);

/**
 * Undoes `mk_ipi_map_pfn`; NULL is a no-op.
 *
 * Returns 0, or -EINVAL if `mk` is not an instance of the library. Context: may sleep.
 *
 * Safety:
 * As `mk_ipi_identify`; `page` is NULL or what `mk_ipi_map_pfn` gave for `mk`, unmapped once and not used
 * again.
 */
int mk_ipi_unmap_page(struct mk_ipi *mk, void *page);

/* ====================================================================
 * Native link
 *
 * What RFC v2 does not have: long and many messages, events of peers, pollers, moves of the doorbell.
 */

/**
 * Most bytes of payload in one message that a native region can be made for. The default is
 * 256.
 */
#define MK_IPI_MAX_LEN 4096

/**
 * Most messages that one call of `mk_ipi_post_many` or `mk_ipi_send_many` sends.
 */
#define MK_IPI_MAX_MANY 32

/**
 * Event: messages of the peer's life `incarnation` follow. Messages of its former lives have been delivered. Reported once
 * in each life of ours.
 */
#define MK_IPI_EVENT_BEGAN 1

/**
 * Event: the peer has answered this life of ours. Sends no longer return -`MK_IPI_EAGAIN` for this reason.
 */
#define MK_IPI_EVENT_ANSWERED 2

/**
 * Event: the peer broke the protocol. Its messages are refused until it begins a new life or attaches again. `breach` is
 * set.
 */
#define MK_IPI_EVENT_QUARANTINED 3

/**
 * Event: the peer says that we broke the protocol. It accepts nothing more from this life of ours. `breach`
 * is set.
 */
#define MK_IPI_EVENT_REFUSED 4

/**
 * Event: a life of the peer ended while it handled our message `number`. This message may or may not have been handled. All
 * messages before it were handled, and none after it.
 */
#define MK_IPI_EVENT_IN_DOUBT 5

/**
 * Event: a new life of the peer chose to discard our messages with a number above `after`, up to `number`. They were
 * not handled.
 */
#define MK_IPI_EVENT_DISCARDED 6

/**
 * Event: our lane to the peer has the space that `mk_ipi_want_space` asked for.
 */
#define MK_IPI_EVENT_SPACE 7

/**
 * Event: the peer's heartbeat has stopped.
 */
#define MK_IPI_EVENT_SUSPECT 8

/**
 * Event: the heartbeat of a suspect peer advances again.
 */
#define MK_IPI_EVENT_ALIVE 9

/**
 * Event: the peer's receiver runs, as `incarnation`.
 */
#define MK_IPI_EVENT_UP 10

/**
 * Event: the peer said goodbye, as `incarnation`.
 */
#define MK_IPI_EVENT_DEAD 11

/**
 * Event: the link with the peer ended: it was destroyed here, or its region was created again. It is not known whether
 * our messages with a number above `after`, up to `number`, were handled.
 */
#define MK_IPI_EVENT_UNSETTLED 12

/**
 * Event: the peer's words contradict the directory as we know it. The directory may have changed: call
 * `mk_ipi_follow`.
 */
#define MK_IPI_EVENT_READ_DIRECTORY 13

/**
 * Bytes of `struct mk_ipi_poller`.
 */
#define MK_IPI_POLLER_SIZE 128

/**
 * What happened to a peer, or to the link with it (native).
 */
struct mk_ipi_event {
    /**
     * `IN_DOUBT`: the number of the message, as `mk_ipi_send` returned it. `DISCARDED`, `UNSETTLED`: the number of the last
     * of these messages.
     */
    uint64_t number;
    /**
     * `DISCARDED`, `UNSETTLED`: the messages are those with a number above this one.
     */
    uint64_t after;
    /**
     * The peer's instance id.
     */
    int peer;
    /**
     * An `MK_IPI_EVENT_` number.
     */
    uint32_t kind;
    /**
     * The peer's life; 0 if none is known.
     */
    uint32_t theirs;
    /**
     * Our own life.
     */
    uint32_t ours;
    /**
     * `BEGAN`, `UP` and `DEAD`: which life of the peer.
     */
    uint32_t incarnation;
    /**
     * `QUARANTINED` and `REFUSED`: 1 = a line that cannot be there, 2 = a length above `max_len`, 3 = an invalid
     * hello.
     */
    uint32_t breach;
};

/**
 * One of several messages that are sent by one call.
 */
struct mk_ipi_payload {
    /**
     * The payload, `size` bytes; may be NULL if `size` is 0.
     */
    const void *data;
    /**
     * Bytes of payload.
     */
    size_t size;
};

/**
 * Statistics of our lane in a peer's region. Values from the peer are information only.
 */
struct mk_ipi_lane_stats {
    /**
     * The number of the last message of this life; 0 if there was none.
     */
    uint64_t number;
    /**
     * Sends that found the lane full, in all lives.
     */
    uint64_t full;
    /**
     * Doorbells rung, in all lives.
     */
    uint64_t rung;
    /**
     * Messages that the peer delivered to its handlers, as it says, in all lives.
     */
    uint64_t received;
    /**
     * Lives of ours that the peer answered, plus its own restarts.
     */
    uint64_t resets;
    /**
     * How often the peer put the lane into quarantine.
     */
    uint64_t bad;
    /**
     * The reason for the last quarantine: a `breach` number, or 0.
     */
    uint64_t last_breach;
};

/**
 * Storage for a poller: zeroed, 8-byte aligned. It must not move while the poller exists. It can be on a stack.
 */
struct MK_IPI_ALIGNED(8) mk_ipi_poller {
    uint8_t _opaque[MK_IPI_POLLER_SIZE];
};

/**
 * As `mk_ipi_send` on the native link, from any context, including NMI and console paths. -EINVAL on RFC v2; -ENXIO if the
 * operation `doorbell_ring_nmi` is NULL. Context: any.
 *
 * Safety:
 * As `mk_ipi_send`.
 */
int mk_ipi_send_from_nmi(struct mk_ipi *mk,
                         int to,
                         unsigned long type,
                         const void *data,
                         size_t size,
                         uint64_t *number);

/**
 * As `mk_ipi_send` on the native link, but without a doorbell. After the last of several messages call
 * `mk_ipi_flush`. Until then the receiver may not notice them. Messages that handlers post are flushed at the end of the
 * deferred work. -EINVAL on RFC v2.
 *
 * Safety:
 * As `mk_ipi_send`.
 */
int mk_ipi_post(struct mk_ipi *mk,
                int to,
                unsigned long type,
                const void *data,
                size_t size,
                uint64_t *number);

/**
 * As `mk_ipi_post`, for several messages of one type: `count`, but at most the first `MK_IPI_MAX_MANY`. Posts as many as there
 * is space for, from the first on, and stores their number in `*done`. This is cheaper than one call for each.
 *
 * Returns 0, or an error as `mk_ipi_send`: then nothing was sent, and `*done` is unchanged. -ENOSPC if there is no space
 * for the first; -EINVAL if any is too long, or NULL with a size, and if `done` is NULL. Context: any but NMI.
 *
 * Safety:
 * As `mk_ipi_identify`; `payloads` is NULL or holds `count`, each of which is NULL or holds its size; `done` is
 * NULL or may be written.
 */
int mk_ipi_post_many(struct mk_ipi *mk,
                     int to,
                     unsigned long type,
                     const struct mk_ipi_payload *payloads,
                     size_t count,
                     size_t *done);

/**
 * As `mk_ipi_post_many`. Then rings the instance if it wants to be rung.
 *
 * Returns 0 also if messages were stored and the doorbell failed. To learn of that, call `mk_ipi_post_many` and `mk_ipi_flush`
 * instead.
 *
 * Safety:
 * As `mk_ipi_post_many`.
 */
int mk_ipi_send_many(struct mk_ipi *mk,
                     int to,
                     unsigned long type,
                     const struct mk_ipi_payload *payloads,
                     size_t count,
                     size_t *done);

/**
 * Rings an instance for posted messages, if it wants to be rung (native).
 *
 * Returns 0; -EINVAL, -ESTALE as `mk_ipi_send`; or the doorbell's error. Context: any but NMI.
 *
 * Safety:
 * As `mk_ipi_identify`.
 */
int mk_ipi_flush(struct mk_ipi *mk, int to);

/**
 * Call this after -ENOSPC or -EAGAIN on the native link. It asks for the event `MK_IPI_EVENT_SPACE` when our lane to the
 * instance has space for a message of `len` bytes, or is answered.
 *
 * Returns 1 if it has space now; the event may come all the same. Returns 0 if this event will come, or another event which says
 * that the peer refuses us, has ended or has restarted (the last two from `mk_ipi_tick`). -EINVAL, -ESTALE as `mk_ipi_send`, and
 * -EINVAL for more bytes than a message can have; or the doorbell's error. Context: any but NMI.
 *
 * Safety:
 * As `mk_ipi_identify`.
 */
int mk_ipi_want_space(struct mk_ipi *mk,
                      int to,
                      size_t len);

/**
 * Advances the heartbeat of this kernel, schedules the deferred work to look at all lanes, and checks all native peers.
 * Changes are reported by `peer_event`. Call it periodically.
 *
 * `now`: the kernel's clock, in any unit. A peer whose heartbeat does not change for more than `patience` of these units
 * is suspect. Returns 0, or -EINVAL if `mk` is not an instance of the library. Context: any but NMI.
 *
 * Safety:
 * As `mk_ipi_identify`.
 */
int mk_ipi_tick(struct mk_ipi *mk,
                uint64_t now,
                uint64_t patience);

/**
 * Tells all peers that this life of the kernel has ended. Unread messages stay in its region for its next
 * life.
 *
 * Returns 0, or -EINVAL if `mk` is not an instance of the library. Context: any.
 *
 * Safety:
 * As `mk_ipi_identify`.
 */
int mk_ipi_goodbye(struct mk_ipi *mk);

/**
 * Makes this life of the kernel begin with empty lanes: messages that former lives left unread are not delivered, and
 * their senders are told (`MK_IPI_EVENT_DISCARDED`). Call it before this kernel's own instance is added.
 *
 * Returns 0, or -EINVAL if `mk` is not an instance of the library. Context: any.
 *
 * Safety:
 * As `mk_ipi_identify`.
 */
int mk_ipi_discard_unread(struct mk_ipi *mk);

/**
 * Stores in `*number` how far an instance has handled the messages of this life of ours: all messages with a number up to it
 * were handled. The instance confirms several messages at once.
 *
 * Returns 0; -EINVAL, -ESTALE as `mk_ipi_send`, and -EINVAL if `number` is NULL; -EPROTO if the number from the peer is
 * impossible. Context: any.
 *
 * Safety:
 * As `mk_ipi_identify`; `number` is NULL or may be written.
 */
int mk_ipi_handled(struct mk_ipi *mk,
                   int to,
                   uint64_t *number);

/**
 * Sets the CPU and vector at which the next life of this kernel is rung from the beginning, instead of those in the
 * directory. Call it before `mk_ipi_join`.
 *
 * Returns 0; -EINVAL if `mk` is not an instance of the library, `cpu` has more than 48 bits, or `vector` is not 0x20 to 0xfe.
 * Context: any.
 *
 * Safety:
 * As `mk_ipi_identify`.
 */
int mk_ipi_begin_at(struct mk_ipi *mk,
                    uint64_t cpu,
                    unsigned int vector);

/**
 * Makes senders ring this kernel at `cpu` with `vector` from now on. After the deferred work that this
 * schedules, the old doorbell does not ring any more.
 *
 * Returns 0; -EINVAL if `mk` is not an instance of the library, its region is not native, `cpu` is not one of its CPUs, or
 * `vector` is not 0x20 to 0xfe. Context: any but NMI.
 *
 * Safety:
 * As `mk_ipi_identify`.
 */
int mk_ipi_move_doorbell(struct mk_ipi *mk,
                         uint64_t cpu,
                         unsigned int vector);

/**
 * Stores statistics of our lane to an instance in `*stats`.
 *
 * Returns 0; -EINVAL if `mk` is not an instance of the library, `stats` is NULL, or the link is not native; -ESTALE as
 * `mk_ipi_send`. Context: any.
 *
 * Safety:
 * As `mk_ipi_identify`; `stats` is NULL or may be written.
 */
int mk_ipi_get_lane_stats(struct mk_ipi *mk,
                          int to,
                          struct mk_ipi_lane_stats *stats);

/**
 * Makes a poller in `poller`: the exclusive right to read the lanes of this kernel's native region, for a CPU that polls.
 *
 * While it exists, senders do not ring, and the deferred work does not read the lanes. `size`: `sizeof(struct mk_ipi_poller)`.
 * Returns 0; -EINVAL if `mk` is not an instance of the library, `poller` is NULL, the size is wrong, or this kernel's region
 * is not native; -ENODEV without a region of its own; -EBUSY if a poller is in `poller`, or another CPU reads the lanes or has
 * a poller: try again; -ERANGE on a CPU whose index is not below `MK_IPI_MAX_CPUS`. Context: any but NMI. All calls up to
 * `mk_ipi_poller_end` must be on one CPU.
 *
 * Safety:
 * As `mk_ipi_identify`; `poller` is NULL, or zeroed storage, or one given up by `mk_ipi_poller_end`, and stays
 * where it is until then.
 */
int mk_ipi_poller_begin(struct mk_ipi *mk,
                        struct mk_ipi_poller *poller,
                        size_t size);

/**
 * Delivers new messages to their handlers.
 *
 * Returns the number of messages and other events of peers, 0 if there was nothing; -EINVAL if `poller` is not a poller;
 * -EBUSY inside a handler that it called, and if another call uses it. It looks at the lane that had a message last. Some
 * calls also look at all lanes, at the stop word, and for answers and space that our own lanes wait for. Context: as
 * `mk_ipi_run_deferred`, on the CPU that made it.
 *
 * Safety:
 * `poller` is NULL, zeroed storage, or one that `mk_ipi_poller_begin` was called for.
 */
int mk_ipi_poller_poll(struct mk_ipi_poller *poller);

/**
 * Polls until something has come, at most `looks` times, with a short pause after each poll that finds nothing. It is cheaper
 * than the same number of calls of `mk_ipi_poller_poll`, and otherwise does the same.
 *
 * Safety:
 * As `mk_ipi_poller_poll`.
 */
int mk_ipi_poller_wait(struct mk_ipi_poller *poller,
                       size_t looks);

/**
 * Ends a poller, and schedules the deferred work, which requests doorbells again. Its storage can be used again.
 *
 * Returns 0; -EINVAL if `poller` is not a poller; -EBUSY inside a handler that it called, and if another call uses it.
 * Context: any but NMI, on the CPU that made it.
 *
 * Safety:
 * As `mk_ipi_poller_poll`.
 */
int mk_ipi_poller_end(struct mk_ipi_poller *poller);

/* ====================================================================
 * RFC v2
 *
 * The calls of the Linux patch, with its names and results. They work on the default instance. Macros that do not begin with MK_IPI_ are not defined again if they are defined already.
 */

/**
 * Most bytes of payload in one message of generation RFC v2.
 */
#ifndef MK_MAX_DATA_SIZE
#define MK_MAX_DATA_SIZE 256
#endif

/**
 * Instances that a machine can have: ids are 0 to 255.
 */
#ifndef MK_MAX_INSTANCES
#define MK_MAX_INSTANCES 256
#endif

/**
 * Type of a message that carries a page frame number.
 */
#ifndef MK_PFN_IPI_TYPE
#define MK_PFN_IPI_TYPE 0x80000001U
#endif

/**
 * Vector of the RFC v2 C peers on x86.
 */
#ifndef MULTIKERNEL_VECTOR
#define MULTIKERNEL_VECTOR 0xea
#endif

/**
 * A message of generation RFC v2, as it lies in shared memory and as callbacks of
 * `multikernel_register_handler` get it.
 */
struct mk_ipi_data {
    /**
     * Physical id of the CPU that sent, as the sender says; -1 if it does not fit.
     */
    int sender_cpu;
    /**
     * The message type, by which handlers are chosen.
     */
    unsigned int type;
    /**
     * Bytes of payload.
     */
    size_t data_size;
    /**
     * The payload; after it zeros.
     */
    char buffer[MK_MAX_DATA_SIZE];
};

/**
 * Called for a message of `multikernel_register_handler`: as deferred work, on the CPU that took the message, with no
 * lock held. `data` is a private copy, valid until the callback returns. The callback may send and register. It must not
 * unregister, and must not migrate. It is not called for messages above 256 bytes, which only a native region that was made
 * for them can carry.
 */
typedef void (*mk_ipi_callback_t)(struct mk_ipi_data *data, void *ctx);

/**
 * Sets the default instance, which is used by calls that name no instance (`multikernel_...`, `mk_send_pfn` and so on). NULL:
 * there is none. Handlers that `multikernel_register_handler` registered while there was none become handlers of `mk`.
 *
 * Returns 0; -EINVAL if `mk` is neither NULL nor an instance; -ENOMEM if `mk` is the default instance now, but has no room for
 * all of those handlers. The others wait for the next call of this. Context: any but NMI.
 *
 * Safety:
 * As `mk_ipi_identify`; the instance stays while it is the default one.
 */
int mk_ipi_set_default(struct mk_ipi *mk);

/**
 * Starts a spawned kernel of generation RFC v2, without a directory: its own region is at
 * `mk_ipi_shared=` and has `me->slots` slots. `cmdline` is a command line, or the value of `mk_ipi_shared=` alone.
 *
 * Returns 1; 0 if the parameter is absent: no region, and interrupts are ignored. -EINVAL and -ERANGE for an
 * invalid value or config; -ENOMEM if the region cannot be mapped. After an error boot can continue
 * without a region. Context: may sleep.
 *
 * Safety:
 * As `mk_ipi_start`; `me` as `config` of `mk_ipi_create_instance`.
 */
int mk_ipi_start_rfc_v2(struct mk_ipi *mk,
                        const char *cmdline,
                        size_t len,
                        const struct mk_ipi_instance *me);

/**
 * Registers `callback` for messages of type `ipi_type`. It is called with `ctx`. A type may have several callbacks,
 * which are called in no defined order. Without a default instance the registration waits, and begins with the next
 * `mk_ipi_set_default`, so that the order in which parts of a kernel start does not matter.
 *
 * Returns a handle; NULL for a null callback, or if `MK_IPI_MAX_HANDLERS` are registered or wait. Context: any but NMI,
 * callbacks included.
 *
 * Safety:
 * Any CPU may call `callback` with `ctx`.
 */
struct mk_ipi_handler *multikernel_register_handler(mk_ipi_callback_t callback,
                                                    void *ctx,
                                                    unsigned int ipi_type);

/**
 * Ends a registration: when this returns, the callback is not running and will not run again.
 *
 * NULL, a handle that was unregistered before, and a handle of another instance of the library change nothing. A call on a CPU
 * that runs a callback changes nothing either, because it would wait for itself. The callback stays registered, and a line in
 * the kernel's log says so. Context: may sleep (waits for callbacks on other CPUs); not in
 * interrupt context.
 */
void multikernel_unregister_handler(struct mk_ipi_handler *handler);

/**
 * Sends `data_size` bytes, at most 256, to the doorbell CPU of an instance. A null `data` with a size sends
 * zeros.
 *
 * Returns 0; -EINVAL for an unknown instance and for more than 256 bytes; -ENODEV if the instance has no region. For a message
 * of 0 bytes it returns 0, and nothing is sent. Only the low 32 bits of `type` are sent. Results that the patch does not have:
 * -EBUSY on exclusive slots, -ENOSPC and -EAGAIN on the native link, -ENXIO if the doorbell cannot reach the CPU (nothing was
 * sent). If the message was stored and the doorbell failed, it returns 0: see `mk_ipi_send`. Context: any but NMI.
 *
 * Safety:
 * `data` is NULL or holds `data_size` bytes.
 */
int multikernel_send_ipi_data(int instance_id,
                              void *data,
                              size_t data_size,
                              unsigned long type);

/**
 * Handles a doorbell: takes the message in this CPU's slot, if any, and schedules the deferred work.
 *
 * Call it in the vector's handler, after the EOI. Without a default instance or a region of its own it does
 * nothing. Context: interrupts off; not NMI.
 */
void generic_multikernel_interrupt(void);

/**
 * Sends the number of a page: its physical address divided by 4096.
 *
 * Returns as `multikernel_send_ipi_data`. Context: any but NMI.
 */
int mk_send_pfn(int instance_id, unsigned long pfn);

/**
 * Stores the page frame number that a message carries in `*out_pfn`.
 *
 * Returns 0; -EINVAL for null pointers, another type, or a size that is not that of an `unsigned long`; then
 * `*out_pfn` is unchanged. Context: any.
 *
 * Safety:
 * `data` is NULL or a message, `out_pfn` is NULL or may be written.
 */
int mk_receive_pfn(struct mk_ipi_data *data, unsigned long *out_pfn);

/**
 * Maps the page that a message names, 4096 bytes, write-back cached, if the kernel lets peers share it.
 *
 * Returns the address, or NULL. Context: may sleep, so a callback should copy the message, and map the page later.
 *
 * Safety:
 * `data` is NULL or a message.
 */
void *mk_receive_map_page(struct mk_ipi_data *data);

/**
 * Undoes `mk_receive_map_page`; NULL is a no-op. (In the patch this is a macro.) Context: may sleep.
 *
 * Safety:
 * `page` is NULL or what `mk_receive_map_page` gave, unmapped once and not used again; the default instance
 * is still the same.
 */
void mk_receive_unmap_page(void *page);

/* ====================================================================
 * Host
 *
 * For the kernel that starts and ends others: the directory, and what it must know before it frees a CPU or a region.
 */

/**
 * State of an instance in the directory: there is no instance with this id.
 */
#define MK_IPI_ABSENT 0

/**
 * State: being started; its region exists.
 */
#define MK_IPI_STARTING 1

/**
 * State: takes messages.
 */
#define MK_IPI_RUNNING 2

/**
 * State: this incarnation has ended.
 */
#define MK_IPI_DEAD 3

/**
 * State: this incarnation has ended, and its region will be freed. Kernels that have it mapped unmap it.
 */
#define MK_IPI_ENDING 4

/**
 * Flag of an instance in the directory: exclusive slots.
 */
#define MK_IPI_EXCLUSIVE 1

/**
 * Flag of an instance in the directory: its vector rings it at the doorbell CPU only.
 */
#define MK_IPI_ONE_DOORBELL 2

/**
 * Nothing was refused.
 */
#define MK_IPI_CONFLICT_NONE 0

/**
 * Readers would refuse the entry: a number in it is not allowed, or its region is invalid.
 */
#define MK_IPI_CONFLICT_ENTRY 1

/**
 * The entry has no CPU, or more CPUs than the directory has room for.
 */
#define MK_IPI_CONFLICT_NR_CPUS 2

/**
 * The doorbell CPU, `cpu`, is not listed.
 */
#define MK_IPI_CONFLICT_DOORBELL 3

/**
 * `cpu` is listed twice.
 */
#define MK_IPI_CONFLICT_CPU_TWICE 4

/**
 * `cpu` belongs to the live instance `instance`.
 */
#define MK_IPI_CONFLICT_CPU 5

/**
 * The region overlaps that of `instance`.
 */
#define MK_IPI_CONFLICT_REGION 6

/**
 * The region overlaps the directory.
 */
#define MK_IPI_CONFLICT_ON_DIRECTORY 7

/**
 * `instance`, the one to be written, is live as `incarnation`. Until it is dead, its incarnation, region and layout cannot
 * change.
 */
#define MK_IPI_CONFLICT_LIVE 8

/**
 * This incarnation of `instance` has ended. Its next life needs another one.
 */
#define MK_IPI_CONFLICT_OVER 9

/**
 * The entry of `instance`, which must be compared with the new one, cannot be read.
 */
#define MK_IPI_CONFLICT_UNREADABLE 10

/**
 * Called by `mk_ipi_destroy_stopped`. Returns whether the CPUs of this life of the instance have stopped for good; 0 if not.
 */
typedef int (*mk_ipi_has_stopped_callback_t)(int instance, uint32_t incarnation, void *ctx);

/**
 * Called by `mk_ipi_behind` for an instance and its life.
 */
typedef void (*mk_ipi_behind_callback_t)(int instance, uint32_t incarnation, void *ctx);

/**
 * Storage of the host's directory writer. Its content is private to the library.
 */
struct MK_IPI_ALIGNED(8) mk_ipi_directory_writer {
    uint8_t _opaque[128];
};

/**
 * An entry of the directory.
 */
struct mk_ipi_record {
    /**
     * Physical address of the region, page-aligned; 0 if it has none.
     */
    uint64_t region_start;
    /**
     * Bytes of the region; 0 if it has none.
     */
    uint64_t region_len;
    /**
     * The CPU that is rung if the sender names no other; one of the listed CPUs.
     */
    uint64_t doorbell_cpu;
    /**
     * The instance id, 0 to 255.
     */
    int instance;
    /**
     * Its incarnation, never 0.
     */
    uint32_t incarnation;
    /**
     * `MK_IPI_ABSENT`, `MK_IPI_STARTING`, `MK_IPI_RUNNING`, `MK_IPI_DEAD` or `MK_IPI_ENDING`.
     */
    uint32_t state;
    /**
     * `MK_IPI_RFC_V2` or `MK_IPI_NATIVE`.
     */
    uint32_t layout;
    /**
     * Any of `MK_IPI_EXCLUSIVE` and `MK_IPI_ONE_DOORBELL`, or 0.
     */
    uint32_t flags;
    /**
     * The vector to ring.
     */
    uint32_t vector;
    /**
     * Number of listed CPUs.
     */
    uint32_t nr_cpus;
    /**
     * 0.
     */
    uint32_t reserved;
};

/**
 * Why the host could not write an entry.
 */
struct mk_ipi_conflict {
    /**
     * A CPU, if the reason names one; otherwise 0.
     */
    uint64_t cpu;
    /**
     * An `MK_IPI_CONFLICT_` number.
     */
    uint32_t why;
    /**
     * An instance, if the reason names one; otherwise -1.
     */
    int instance;
    /**
     * `LIVE`: the incarnation that is live; otherwise 0.
     */
    uint32_t incarnation;
    /**
     * 0.
     */
    uint32_t reserved;
};

/**
 * As `mk_ipi_destroy_instance`, for the host: a life that said that it has the region mapped is ignored if
 * `has_stopped` says that its CPUs have stopped for good. If they have not, that kernel can write into memory that has
 * another owner by then. NULL: no life has stopped.
 *
 * Safety:
 * As `mk_ipi_identify`; `has_stopped` may be called with `ctx`, and does what its comment requires.
 */
int mk_ipi_destroy_stopped(struct mk_ipi *mk,
                           int id,
                           mk_ipi_has_stopped_callback_t has_stopped,
                           void *ctx);

/**
 * Empties every exclusive slot that a dead kernel had claimed. For the host, after the CPUs of that incarnation
 * have stopped for good.
 *
 * Returns the number of these slots; -EINVAL as `mk_ipi_identify`. Context: any but NMI; looks at all slots.
 *
 * Safety:
 * As `mk_ipi_identify`.
 */
int mk_ipi_clear_claims(struct mk_ipi *mk,
                        int dead,
                        uint32_t incarnation);

/**
 * Finds instances that say that they have our native region mapped, but have not followed the directory to
 * `generation`. They can still ring a CPU, or use a region, that only an older generation named. The host calls this before it
 * gives a CPU or a region to another instance. Calls `callback`, unless that is NULL, with `ctx` for each such instance.
 *
 * The words of a killed life stay, so it is found too; only the host knows whether its CPUs have stopped. Returns the number
 * of instances found; -EINVAL if `mk` is not an instance of the library, or has no native region of its own. Context: any but
 * NMI; looks at all lanes.
 *
 * Safety:
 * As `mk_ipi_follow`.
 */
int mk_ipi_behind(struct mk_ipi *mk,
                  uint32_t generation,
                  mk_ipi_behind_callback_t callback,
                  void *ctx);

/**
 * Tells this life of an instance to stop at once. It stops only if this kernel is the host, instance 0.
 *
 * Returns 0; -EINVAL, -ESTALE as `mk_ipi_send`, and -EINVAL for incarnation 0; or the doorbell's error.
 * Context: any but NMI.
 *
 * Safety:
 * As `mk_ipi_identify`.
 */
int mk_ipi_stop(struct mk_ipi *mk, int to, uint32_t incarnation);

/**
 * Bytes of a directory with `nr_instances` entries (1 to 256), each with room for `cpus_per_instance` CPUs (1 to 1024). 0 if a
 * number is out of bounds.
 *
 * Context: any.
 */
uint64_t mk_ipi_directory_size(uint32_t nr_instances,
                               uint32_t cpus_per_instance);

/**
 * Makes an empty directory in `len` bytes at `memory`, 8-byte aligned, which no kernel reads yet, and a writer
 * for it. For the host.
 *
 * Returns 0; -EINVAL for null and misaligned pointers, counts out of bounds, or too few bytes. Context: any.
 *
 * Safety:
 * `writer` is NULL or may be written; `memory` is NULL or `len` bytes that stay mapped as long as the writer
 * is used.
 */
int mk_ipi_directory_create(struct mk_ipi_directory_writer *writer,
                            void *memory,
                            size_t len,
                            uint32_t nr_instances,
                            uint32_t cpus_per_instance);

/**
 * Makes a writer for the directory at `memory`, which a former life of the host made. Its entries stay.
 *
 * Returns 0; -EINVAL for null and misaligned pointers, or too few bytes; -EPROTO if there is no directory that this
 * library can read. Context: any.
 *
 * Safety:
 * As `mk_ipi_directory_create`; no other writer uses the directory any more.
 */
int mk_ipi_directory_take_over(struct mk_ipi_directory_writer *writer,
                               void *memory,
                               size_t len);

/**
 * Stores the physical address of the directory. From then on no region may overlap it. Call it before any kernel
 * reads the directory.
 *
 * Returns 0; -EINVAL for NULL, and for an address that is 0, not on a page boundary, or too large for any CPU. Context:
 * any; one caller at a time.
 *
 * Safety:
 * `writer` is NULL or from `mk_ipi_directory_create` or `mk_ipi_directory_take_over`.
 */
int mk_ipi_directory_set_address(struct mk_ipi_directory_writer *writer,
                                 uint64_t phys);

/**
 * Stores which CPU booted the machine. No kernel may stop that CPU. Call it before any kernel reads the directory.
 *
 * Returns 0; -EINVAL for NULL, and for 2^64 - 1. Context: any; one caller at a time.
 *
 * Safety:
 * As `mk_ipi_directory_set_address`.
 */
int mk_ipi_directory_set_boot_cpu(struct mk_ipi_directory_writer *writer,
                                  uint64_t cpu);

/**
 * Writes the entry of `record->instance`. `cpus` holds its `record->nr_cpus` CPUs, at most as many as the directory
 * has room for. Readers see the entry whole or not at all.
 *
 * Returns 0; -EINVAL for null and misaligned pointers, and for an entry that readers would refuse; -EBUSY if a CPU or the
 * region belongs to another instance, and for a change that a live instance does not allow; -EPROTO if another entry cannot
 * be read. After an error nothing was written, and `mk_ipi_directory_conflict` says why. After success
 * `mk_ipi_directory_generation` returns the new generation. Pass it to `mk_ipi_behind`, which finds instances that have not
 * followed. Context: any; one caller at a time.
 *
 * Safety:
 * As `mk_ipi_directory_set_address`; `record` is NULL or a record; `cpus` is NULL or holds `record->nr_cpus`.
 */
int mk_ipi_directory_write(struct mk_ipi_directory_writer *writer,
                           const struct mk_ipi_record *record,
                           const uint64_t *cpus);

/**
 * Stores in `*conflict` why the last `mk_ipi_directory_write` was refused; `MK_IPI_CONFLICT_NONE` if it was not.
 *
 * Returns 0; -EINVAL for null and misaligned pointers. Context: any; one caller at a time.
 *
 * Safety:
 * As `mk_ipi_directory_set_address`; `conflict` is NULL or may be written.
 */
int mk_ipi_directory_conflict(struct mk_ipi_directory_writer *writer,
                              struct mk_ipi_conflict *conflict);

/**
 * Copies and checks an instance's entry in the directory at `memory`. Stores it in `*record`, and its CPUs in `cpus`,
 * which has room for `room` ids. An entry has at most `MK_IPI_MAX_ENTRY_CPUS` CPUs. If `cpus` is NULL and `room` is 0, the CPUs
 * are not copied. `record->nr_cpus` is their number.
 *
 * Returns 0; -EINVAL for null and misaligned pointers, an id that the directory has no entry for, or too few bytes;
 * -EPROTO if there is no directory that this library can read, or the entry is invalid or lists more CPUs than
 * `room`; -ENODEV if no instance has that id; -EAGAIN while the host changes the entry. After an error
 * the content of `cpus` is undefined. Context: any.
 *
 * Safety:
 * `memory` is NULL or `len` bytes; `record` is NULL or may be written; `cpus` is NULL or has room for
 * `room`.
 */
int mk_ipi_directory_read(const void *memory,
                          size_t len,
                          int instance,
                          struct mk_ipi_record *record,
                          uint64_t *cpus,
                          uint32_t room);

/**
 * The generation of the directory at `memory`: a 32-bit number. Every change of an entry changes it.
 *
 * Returns that number; -EINVAL and -EPROTO as `mk_ipi_directory_read`. Context: any.
 *
 * Safety:
 * As `mk_ipi_directory_read`.
 */
int64_t mk_ipi_directory_generation(const void *memory, size_t len);

/**
 * Stores in `*cpu` the physical id of the CPU that booted the machine, if the host has named it. No kernel may stop it.
 *
 * Returns 1 and the CPU; 0 if the host has not named it; -EINVAL and -EPROTO as `mk_ipi_directory_read`. Context: any.
 *
 * Safety:
 * `memory` is NULL or `len` bytes; `cpu` is NULL or may be written.
 */
int mk_ipi_directory_boot_cpu(const void *memory,
                              size_t len,
                              uint64_t *cpu);

/**
 * Whether the instance is live, and `cpu` belongs to it, as the directory at `memory` says. For the operation
 * `peer_has_cpu`.
 *
 * Returns 1 if so, otherwise 0, also if the directory has no such entry, or the entry cannot be used; -EINVAL for NULL, an id
 * that is not 0 to 255, or too few bytes; -EPROTO and -EAGAIN as `mk_ipi_directory_read`. Context: any.
 *
 * Safety:
 * As `mk_ipi_directory_read`.
 */
int mk_ipi_directory_has_cpu(const void *memory,
                             size_t len,
                             int instance,
                             uint64_t cpu);

/**
 * Adds the instance of an entry of the directory, in a kernel that does not follow the directory (`mk_ipi_follow`): a new
 * peer, or one that has restarted (destroy its former life first).
 *
 * Returns as `mk_ipi_attach_instance`. Context: may sleep.
 *
 * Safety:
 * As `mk_ipi_identify`; `record` is NULL or a record; `cpus` is NULL or holds `record->nr_cpus`.
 */
int mk_ipi_attach_record(struct mk_ipi *mk,
                         const struct mk_ipi_record *record,
                         const uint64_t *cpus);

/* Size, alignment and offsets, as the library was built. */
#ifdef __cplusplus
#define MK_IPI_ASSERT(what) static_assert(what, #what)
#elif __STDC_VERSION__ >= 201112L
#define MK_IPI_ASSERT(what) _Static_assert(what, #what)
#else
#define MK_IPI_ASSERT(what) extern char mk_ipi_asserted[(what) ? 1 : -1]
#endif
MK_IPI_ASSERT(MK_PFN_IPI_TYPE == 0x80000001U);
MK_IPI_ASSERT(sizeof(struct mk_ipi_data) == 272);
MK_IPI_ASSERT(__alignof__(struct mk_ipi_data) == 8);
MK_IPI_ASSERT(offsetof(struct mk_ipi_data, sender_cpu) == 0);
MK_IPI_ASSERT(offsetof(struct mk_ipi_data, type) == 4);
MK_IPI_ASSERT(offsetof(struct mk_ipi_data, data_size) == 8);
MK_IPI_ASSERT(offsetof(struct mk_ipi_data, buffer) == 16);
MK_IPI_ASSERT(sizeof(struct mk_ipi_message) == 48);
MK_IPI_ASSERT(__alignof__(struct mk_ipi_message) == 8);
MK_IPI_ASSERT(offsetof(struct mk_ipi_message, payload) == 0);
MK_IPI_ASSERT(offsetof(struct mk_ipi_message, size) == 8);
MK_IPI_ASSERT(offsetof(struct mk_ipi_message, number) == 16);
MK_IPI_ASSERT(offsetof(struct mk_ipi_message, sender_cpu) == 24);
MK_IPI_ASSERT(offsetof(struct mk_ipi_message, type) == 32);
MK_IPI_ASSERT(offsetof(struct mk_ipi_message, sender) == 36);
MK_IPI_ASSERT(offsetof(struct mk_ipi_message, sender_incarnation) == 40);
MK_IPI_ASSERT(offsetof(struct mk_ipi_message, receiver_incarnation) == 44);
MK_IPI_ASSERT(sizeof(struct mk_ipi_payload) == 16);
MK_IPI_ASSERT(__alignof__(struct mk_ipi_payload) == 8);
MK_IPI_ASSERT(offsetof(struct mk_ipi_payload, data) == 0);
MK_IPI_ASSERT(offsetof(struct mk_ipi_payload, size) == 8);
MK_IPI_ASSERT(sizeof(struct mk_ipi_instance) == 64);
MK_IPI_ASSERT(__alignof__(struct mk_ipi_instance) == 8);
MK_IPI_ASSERT(offsetof(struct mk_ipi_instance, cpus) == 0);
MK_IPI_ASSERT(offsetof(struct mk_ipi_instance, doorbell_cpu) == 8);
MK_IPI_ASSERT(offsetof(struct mk_ipi_instance, nr_cpus) == 16);
MK_IPI_ASSERT(offsetof(struct mk_ipi_instance, id) == 20);
MK_IPI_ASSERT(offsetof(struct mk_ipi_instance, incarnation) == 24);
MK_IPI_ASSERT(offsetof(struct mk_ipi_instance, vector) == 28);
MK_IPI_ASSERT(offsetof(struct mk_ipi_instance, layout) == 32);
MK_IPI_ASSERT(offsetof(struct mk_ipi_instance, slots) == 36);
MK_IPI_ASSERT(offsetof(struct mk_ipi_instance, exclusive) == 40);
MK_IPI_ASSERT(offsetof(struct mk_ipi_instance, lanes) == 44);
MK_IPI_ASSERT(offsetof(struct mk_ipi_instance, lines) == 48);
MK_IPI_ASSERT(offsetof(struct mk_ipi_instance, max_len) == 52);
MK_IPI_ASSERT(offsetof(struct mk_ipi_instance, one_doorbell) == 56);
MK_IPI_ASSERT(sizeof(struct mk_ipi_instance_info) == 48);
MK_IPI_ASSERT(__alignof__(struct mk_ipi_instance_info) == 8);
MK_IPI_ASSERT(offsetof(struct mk_ipi_instance_info, region_start) == 0);
MK_IPI_ASSERT(offsetof(struct mk_ipi_instance_info, region_len) == 8);
MK_IPI_ASSERT(offsetof(struct mk_ipi_instance_info, doorbell_cpu) == 16);
MK_IPI_ASSERT(offsetof(struct mk_ipi_instance_info, incarnation) == 24);
MK_IPI_ASSERT(offsetof(struct mk_ipi_instance_info, layout) == 28);
MK_IPI_ASSERT(offsetof(struct mk_ipi_instance_info, exclusive) == 32);
MK_IPI_ASSERT(offsetof(struct mk_ipi_instance_info, vector) == 36);
MK_IPI_ASSERT(offsetof(struct mk_ipi_instance_info, one_doorbell) == 40);
MK_IPI_ASSERT(offsetof(struct mk_ipi_instance_info, reserved) == 44);
MK_IPI_ASSERT(sizeof(struct mk_ipi_range) == 16);
MK_IPI_ASSERT(__alignof__(struct mk_ipi_range) == 8);
MK_IPI_ASSERT(offsetof(struct mk_ipi_range, start) == 0);
MK_IPI_ASSERT(offsetof(struct mk_ipi_range, len) == 8);
MK_IPI_ASSERT(sizeof(struct mk_ipi_event) == 40);
MK_IPI_ASSERT(__alignof__(struct mk_ipi_event) == 8);
MK_IPI_ASSERT(offsetof(struct mk_ipi_event, number) == 0);
MK_IPI_ASSERT(offsetof(struct mk_ipi_event, after) == 8);
MK_IPI_ASSERT(offsetof(struct mk_ipi_event, peer) == 16);
MK_IPI_ASSERT(offsetof(struct mk_ipi_event, kind) == 20);
MK_IPI_ASSERT(offsetof(struct mk_ipi_event, theirs) == 24);
MK_IPI_ASSERT(offsetof(struct mk_ipi_event, ours) == 28);
MK_IPI_ASSERT(offsetof(struct mk_ipi_event, incarnation) == 32);
MK_IPI_ASSERT(offsetof(struct mk_ipi_event, breach) == 36);
MK_IPI_ASSERT(sizeof(struct mk_ipi_record) == 56);
MK_IPI_ASSERT(__alignof__(struct mk_ipi_record) == 8);
MK_IPI_ASSERT(offsetof(struct mk_ipi_record, region_start) == 0);
MK_IPI_ASSERT(offsetof(struct mk_ipi_record, region_len) == 8);
MK_IPI_ASSERT(offsetof(struct mk_ipi_record, doorbell_cpu) == 16);
MK_IPI_ASSERT(offsetof(struct mk_ipi_record, instance) == 24);
MK_IPI_ASSERT(offsetof(struct mk_ipi_record, incarnation) == 28);
MK_IPI_ASSERT(offsetof(struct mk_ipi_record, state) == 32);
MK_IPI_ASSERT(offsetof(struct mk_ipi_record, layout) == 36);
MK_IPI_ASSERT(offsetof(struct mk_ipi_record, flags) == 40);
MK_IPI_ASSERT(offsetof(struct mk_ipi_record, vector) == 44);
MK_IPI_ASSERT(offsetof(struct mk_ipi_record, nr_cpus) == 48);
MK_IPI_ASSERT(offsetof(struct mk_ipi_record, reserved) == 52);
MK_IPI_ASSERT(sizeof(struct mk_ipi_conflict) == 24);
MK_IPI_ASSERT(__alignof__(struct mk_ipi_conflict) == 8);
MK_IPI_ASSERT(offsetof(struct mk_ipi_conflict, cpu) == 0);
MK_IPI_ASSERT(offsetof(struct mk_ipi_conflict, why) == 8);
MK_IPI_ASSERT(offsetof(struct mk_ipi_conflict, instance) == 12);
MK_IPI_ASSERT(offsetof(struct mk_ipi_conflict, incarnation) == 16);
MK_IPI_ASSERT(offsetof(struct mk_ipi_conflict, reserved) == 20);
MK_IPI_ASSERT(sizeof(struct mk_ipi_stats) == 144);
MK_IPI_ASSERT(__alignof__(struct mk_ipi_stats) == 8);
MK_IPI_ASSERT(offsetof(struct mk_ipi_stats, sent) == 0);
MK_IPI_ASSERT(offsetof(struct mk_ipi_stats, busy) == 8);
MK_IPI_ASSERT(offsetof(struct mk_ipi_stats, full) == 16);
MK_IPI_ASSERT(offsetof(struct mk_ipi_stats, refused) == 24);
MK_IPI_ASSERT(offsetof(struct mk_ipi_stats, rung) == 32);
MK_IPI_ASSERT(offsetof(struct mk_ipi_stats, not_rung) == 40);
MK_IPI_ASSERT(offsetof(struct mk_ipi_stats, interrupts) == 48);
MK_IPI_ASSERT(offsetof(struct mk_ipi_stats, received) == 56);
MK_IPI_ASSERT(offsetof(struct mk_ipi_stats, handled) == 64);
MK_IPI_ASSERT(offsetof(struct mk_ipi_stats, unhandled) == 72);
MK_IPI_ASSERT(offsetof(struct mk_ipi_stats, empty) == 80);
MK_IPI_ASSERT(offsetof(struct mk_ipi_stats, bad_size) == 88);
MK_IPI_ASSERT(offsetof(struct mk_ipi_stats, overwritten) == 96);
MK_IPI_ASSERT(offsetof(struct mk_ipi_stats, dropped) == 104);
MK_IPI_ASSERT(offsetof(struct mk_ipi_stats, left) == 112);
MK_IPI_ASSERT(offsetof(struct mk_ipi_stats, no_region) == 120);
MK_IPI_ASSERT(offsetof(struct mk_ipi_stats, beyond_cpus) == 128);
MK_IPI_ASSERT(offsetof(struct mk_ipi_stats, quarantined) == 136);
MK_IPI_ASSERT(sizeof(struct mk_ipi_lane_stats) == 56);
MK_IPI_ASSERT(__alignof__(struct mk_ipi_lane_stats) == 8);
MK_IPI_ASSERT(offsetof(struct mk_ipi_lane_stats, number) == 0);
MK_IPI_ASSERT(offsetof(struct mk_ipi_lane_stats, full) == 8);
MK_IPI_ASSERT(offsetof(struct mk_ipi_lane_stats, rung) == 16);
MK_IPI_ASSERT(offsetof(struct mk_ipi_lane_stats, received) == 24);
MK_IPI_ASSERT(offsetof(struct mk_ipi_lane_stats, resets) == 32);
MK_IPI_ASSERT(offsetof(struct mk_ipi_lane_stats, bad) == 40);
MK_IPI_ASSERT(offsetof(struct mk_ipi_lane_stats, last_breach) == 48);
MK_IPI_ASSERT(sizeof(struct mk_ipi_ops) == 200);
MK_IPI_ASSERT(__alignof__(struct mk_ipi_ops) == 8);
MK_IPI_ASSERT(offsetof(struct mk_ipi_ops, size) == 0);
MK_IPI_ASSERT(offsetof(struct mk_ipi_ops, version) == 8);
MK_IPI_ASSERT(offsetof(struct mk_ipi_ops, reserved) == 12);
MK_IPI_ASSERT(offsetof(struct mk_ipi_ops, ctx) == 16);
MK_IPI_ASSERT(offsetof(struct mk_ipi_ops, pool_alloc) == 24);
MK_IPI_ASSERT(offsetof(struct mk_ipi_ops, pool_free) == 32);
MK_IPI_ASSERT(offsetof(struct mk_ipi_ops, map) == 40);
MK_IPI_ASSERT(offsetof(struct mk_ipi_ops, unmap) == 48);
MK_IPI_ASSERT(offsetof(struct mk_ipi_ops, peer_may_share) == 56);
MK_IPI_ASSERT(offsetof(struct mk_ipi_ops, doorbell_check) == 64);
MK_IPI_ASSERT(offsetof(struct mk_ipi_ops, doorbell_ring) == 72);
MK_IPI_ASSERT(offsetof(struct mk_ipi_ops, doorbell_ring_nmi) == 80);
MK_IPI_ASSERT(offsetof(struct mk_ipi_ops, this_cpu_id) == 88);
MK_IPI_ASSERT(offsetof(struct mk_ipi_ops, this_cpu_index) == 96);
MK_IPI_ASSERT(offsetof(struct mk_ipi_ops, irq_save) == 104);
MK_IPI_ASSERT(offsetof(struct mk_ipi_ops, irq_restore) == 112);
MK_IPI_ASSERT(offsetof(struct mk_ipi_ops, schedule) == 120);
MK_IPI_ASSERT(offsetof(struct mk_ipi_ops, relax) == 128);
MK_IPI_ASSERT(offsetof(struct mk_ipi_ops, log) == 136);
MK_IPI_ASSERT(offsetof(struct mk_ipi_ops, region_added) == 144);
MK_IPI_ASSERT(offsetof(struct mk_ipi_ops, region_removed) == 152);
MK_IPI_ASSERT(offsetof(struct mk_ipi_ops, peer_event) == 160);
MK_IPI_ASSERT(offsetof(struct mk_ipi_ops, peer_has_cpu) == 168);
MK_IPI_ASSERT(offsetof(struct mk_ipi_ops, left_out) == 176);
MK_IPI_ASSERT(offsetof(struct mk_ipi_ops, stop) == 184);
MK_IPI_ASSERT(offsetof(struct mk_ipi_ops, unhandled) == 192);
MK_IPI_ASSERT(sizeof(struct mk_ipi) == MK_IPI_SIZE);
MK_IPI_ASSERT(__alignof__(struct mk_ipi) == 128);
MK_IPI_ASSERT(sizeof(struct mk_ipi_directory_writer) == 128);
MK_IPI_ASSERT(__alignof__(struct mk_ipi_directory_writer) == 8);
MK_IPI_ASSERT(sizeof(struct mk_ipi_poller) == 128);
MK_IPI_ASSERT(__alignof__(struct mk_ipi_poller) == 8);

#ifdef __cplusplus
}
#endif

#endif /* MK_IPI_H */
