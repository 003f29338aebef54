/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * mk-ipi: kernels on one machine send messages to each other through shared memory. An interrupt,
 * the doorbell, tells the receiver that there is a message. This header is for kernels written in C.
 *
 * Made by cbindgen from the crate mk-ipi-capi: do not edit.
 *
 * Terms:
 *
 *   instance             one kernel of the machine; its id is 0 to 255
 *   instance of the library
 *                        a `struct mk_ipi`, which a kernel passes to these calls
 *   we, our              the kernel that makes the call
 *   peer                 an instance with which we exchange messages
 *   incarnation          one life of a kernel, from its start to its end
 *   host                 the kernel that starts the others, and writes the directory
 *   directory            memory in which the host describes all instances
 *   live                 an instance whose state in the directory is starting or running
 *   region               shared memory of one instance, in which its peers store messages for it
 *   slot                 in a region of the layout RFC v2: the place for one message to one CPU
 *   lane                 in a region of the native link: the message buffer for one sending instance
 *   callback, handler    a C function that is called for each message of a type
 *
 * A kernel fills a `struct mk_ipi_ops`, and makes an instance of the library in a static `struct
 * mk_ipi` (mk_ipi_init). It sets its own instance id (mk_ipi_identify, or mk_ipi_start for a kernel
 * that another kernel started), adds the instances that it exchanges messages with to its table, and
 * registers handlers. It calls mk_ipi_interrupt in the interrupt handler of the doorbell's vector, and
 * mk_ipi_run_deferred after the operation `schedule` was called. A CPU that polls all the time makes
 * a poller (mk_ipi_poller_begin) instead.
 *
 * The calls that begin with multikernel_, mk_send_ and mk_receive_ have the names and results of
 * the Linux patch "Introduce generic multikernel IPI communication framework". They use the
 * instance of the library that was given to mk_ipi_set_default.
 *
 * Calls that return an int return 0 or a count, or a negated error number (enum mk_ipi_error, with
 * the numbers of Linux). Only negative results are failures. mk_ipi_strerror has a text for each
 * number, and mk_ipi_last_error says why the last call on this CPU failed. Addresses are physical
 * unless they are pointers. Lengths are in bytes.
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
 * or an NMI may come at any moment of a call, and its handler may make the calls that are allowed in
 * its context. If a call has another restriction, such as one caller at a time, its comment says so.
 *
 * Sections: general, life of a kernel, messages, native link, RFC v2, host.
 *
 * The library allocates nothing and prints nothing. Apart from the operations of the kernel, it calls
 * only memcpy, memset, memcmp and memmove. The library for x86_64-unknown-none contains weak
 * definitions of these four, and uses no floating-point or vector registers.
 */

#ifndef MK_IPI_H
#define MK_IPI_H

/*
 * Types: size_t, offsetof, and those of <stdint.h>. If your kernel has them in a header of its own, name that header:
 * -DMK_IPI_TYPES='<linux/types.h>'. If MK_IPI_TYPES is not defined and the compiler's headers are missing (-nostdinc), the types
 * are defined here.
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

/* The compiler must support this attribute: gcc and clang do, in C99 too. */
#define MK_IPI_ALIGNED(n) __attribute__((aligned(n)))

/*
 * Limits. They are chosen when the library is built (`cargo xtask capi --help`). A program must define them to
 * the same values. mk_ipi_init fails if the sizes of struct mk_ipi differ.
 */
/** Largest number of CPUs of this kernel. `this_cpu_index` returns indexes below this limit. CPUs of other kernels do
 * not count. 1 to 4096. */
#ifndef MK_IPI_MAX_CPUS
#define MK_IPI_MAX_CPUS 64
#endif
#if MK_IPI_MAX_CPUS < 1 || MK_IPI_MAX_CPUS > 4096
#error "MK_IPI_MAX_CPUS must be 1 to 4096"
#endif
/** Largest number of callbacks that can be registered at the same time. 1 to 128. */
#ifndef MK_IPI_MAX_HANDLERS
#define MK_IPI_MAX_HANDLERS 64
#endif
#if MK_IPI_MAX_HANDLERS < 1 || MK_IPI_MAX_HANDLERS > 128
#error "MK_IPI_MAX_HANDLERS must be 1 to 128"
#endif
/** Largest number of messages that one run of the deferred work handles. On RFC v2 it is also the largest number of
 * messages that can wait for the deferred work on one CPU. A power of two. 1 to 1024. */
#ifndef MK_IPI_QUEUE
#define MK_IPI_QUEUE 16
#endif
#if MK_IPI_QUEUE < 1 || MK_IPI_QUEUE > 1024
#error "MK_IPI_QUEUE must be 1 to 1024"
#endif
/** The table of instances can hold ids below this number. 1 to 256. */
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

/* Declared here, so that each section can use them. */
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
 * Error numbers and their texts, layouts of regions, counters.
 */

/**
 * Largest number of CPUs that a config or an entry of the directory can list for an instance.
 */
#define MK_IPI_MAX_ENTRY_CPUS 1024

/**
 * Layout of a region: RFC v2. The region has a slot for each CPU of its kernel.
 */
#define MK_IPI_RFC_V2 1

/**
 * Layout of a region: native link. The region has a lane for each sending instance.
 */
#define MK_IPI_NATIVE 2

/**
 * Error numbers. They have the values of Linux. Calls return them negated: `-MK_IPI_EINVAL`. `mk_ipi_strerror` returns a text
 * for each.
 */
enum mk_ipi_error {
    /**
     * No such CPU or address.
     */
    MK_IPI_ENXIO = 6,
    /**
     * Not possible now: try again.
     */
    MK_IPI_EAGAIN = 11,
    /**
     * Out of memory, or a table is full.
     */
    MK_IPI_ENOMEM = 12,
    /**
     * The kernel does not allow this memory to be mapped.
     */
    MK_IPI_EACCES = 13,
    /**
     * In use.
     */
    MK_IPI_EBUSY = 16,
    /**
     * The instance or the directory exists already.
     */
    MK_IPI_EEXIST = 17,
    /**
     * No region, no pool, no directory, no identity of this kernel, or no default instance of the library.
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
     * A number is too large.
     */
    MK_IPI_ERANGE = 34,
    /**
     * The caller would wait for itself.
     */
    MK_IPI_EDEADLK = 35,
    /**
     * The protocol or its version is not known, or the peer broke the protocol.
     */
    MK_IPI_EPROTO = 71,
    /**
     * The handle, the instance or the region is not valid any more.
     */
    MK_IPI_ESTALE = 116,
};

/**
 * A range of physical memory.
 */
struct mk_ipi_range {
    /**
     * Physical address of the first byte.
     */
    uint64_t start;
    /**
     * Length in bytes.
     */
    uint64_t len;
};

/**
 * Counters of an instance of the library, summed over the CPUs of the kernel. Each counter begins at 0 and wraps at 2^64.
 */
struct mk_ipi_stats {
    /**
     * Messages stored. On RFC v2 a message whose doorbell did not ring is not counted here.
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
     * Sends refused for any other reason, and messages that were written but not published, because the host had cleared our
     * claim on the slot.
     */
    uint64_t refused;
    /**
     * Doorbells on the native link that this kernel rang, or tried to ring. A send rings only if the receiver has requested it.
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
     * Interrupts and polls that found a slot with a size that is neither a length nor a claim.
     */
    uint64_t bad_size;
    /**
     * Messages overwritten while they were read.
     */
    uint64_t overwritten;
    /**
     * Messages that were overwritten while they waited in their slot for room in the queue (not on exclusive slots).
     */
    uint64_t dropped;
    /**
     * Messages that were left in their slot because the queue was full or in use. They are taken later.
     */
    uint64_t left;
    /**
     * Interrupts that came while this kernel had no region of its own, and interrupts or polls on a CPU that has no slot in it.
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
 * Returns the text of an error number. The number may be negated, as calls return it. 0 and numbers that no call returns have a
 * text too. The text is constant, and the result is never NULL. Context: any.
 */
const char *mk_ipi_strerror(int error);

/**
 * Returns a text that says why the last call for `mk` on this CPU failed, in more detail than `mk_ipi_strerror`. `error` is the
 * result of that call. If the last failure on this CPU had another error number, or if there are no details, the text is that of
 * `mk_ipi_strerror`. If `mk` is not an instance of the library because `mk_ipi_init` failed, the text says why `mk_ipi_init`
 * failed.
 *
 * The library stores one failure for each CPU. Call this on the CPU on which the call failed, before that CPU makes another
 * call, and do not migrate in between. If a call in an interrupt handler fails in between, it replaces the stored failure. Then
 * the text is that of the handler's failure if both error numbers are the same.
 *
 * `mk_ipi_fini` and `mk_ipi_set_default` store no failure. Calls without an argument `mk` store none either, except
 * `multikernel_send_ipi_data` and `mk_send_pfn`: they store it for the default instance. The text is constant, and the result is
 * never NULL. Context: any.
 *
 * Safety:
 * As `mk_ipi_identify`.
 */
const char *mk_ipi_last_error(struct mk_ipi *mk,
                              int error);

/* ====================================================================
 * Life of a kernel
 *
 * The operations of a kernel, its identity, the instances in its table, and its end.
 */

/**
 * Change that `mk_ipi_follow` found: the instance is live in the directory, and was added to the table.
 */
#define MK_IPI_FOLLOWED_ADDED 1

/**
 * Change that `mk_ipi_follow` found: the life, the state or the doorbell of the instance changed. Its region is the same.
 */
#define MK_IPI_FOLLOWED_CHANGED 2

/**
 * Change that `mk_ipi_follow` found: the instance was removed from the table, because the directory does not list it any more,
 * or because its region ends or has changed. If it is live with another region, `MK_IPI_FOLLOWED_ADDED` follows.
 */
#define MK_IPI_FOLLOWED_REMOVED 3

/**
 * Change that `mk_ipi_follow` found: the instance is live, but could not be added. `mk_ipi_follow` tries again after the next
 * change of the directory.
 */
#define MK_IPI_FOLLOWED_LEFT_OUT 4

/**
 * Change that `mk_ipi_follow` found: the host considers this life of ours dead. Our own entry is not live, or names another
 * life.
 */
#define MK_IPI_FOLLOWED_TAKEN_FOR_DEAD 5

/**
 * The version of `struct mk_ipi_ops` that this header describes.
 */
#define MK_IPI_OPS_VERSION 3

/**
 * Storage for one instance of the library: everything that a kernel needs for its links to all other kernels. It is large: make
 * it `static` and zeroed. It must not move.
 */
struct MK_IPI_ALIGNED(128) mk_ipi {
    uint8_t _opaque[MK_IPI_SIZE];
};

/**
 * Operations that the kernel implements. Each gets `ctx` as its first argument. `mk_ipi_init` copies the table.
 *
 * Eight are required: `map`, `unmap`, `doorbell_ring`, `this_cpu_id`, `this_cpu_index`, `irq_save`, `irq_restore` and
 * `schedule`. The others may be NULL; their comments say what NULL means. If `pool_alloc` is not NULL, `pool_free` is required
 * too.
 *
 * Any CPU may call any of them at any time. Only `pool_alloc`, `pool_free`, `map`, `unmap`, `relax`, `region_added` and
 * `region_removed` may sleep. These operations are also called in interrupt context: `doorbell_check`, `doorbell_ring`,
 * `this_cpu_id`, `this_cpu_index`, `irq_save`, `irq_restore`, `peer_has_cpu`, `schedule` and `stop`; and `peer_event` if
 * `mk_ipi_tick`, `mk_ipi_want_space` or a call that sends is made there. These are also called in NMI context:
 * `doorbell_ring_nmi`, `peer_has_cpu`, `irq_save`, `irq_restore`, `this_cpu_id` and `this_cpu_index`.
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
     * Must be 0.
     */
    uint32_t reserved;
    /**
     * First argument of each operation.
     */
    void *ctx;
    /**
     * Takes `len` bytes from the pool of `instance`: whole pages that begin on a page boundary. Stores their physical address in
     * `*phys`. Returns 0, -19 (`ENODEV`) if the instance has no pool, or -12 (`ENOMEM`). NULL: the kernel has no pools, and
     * cannot create instances.
     */
    int (*pool_alloc)(void *ctx, int instance, uint64_t len, uint64_t *phys);
    /**
     * Gives memory from `pool_alloc` back to the pool. May be NULL if `pool_alloc` is NULL.
     */
    void (*pool_free)(void *ctx, int instance, uint64_t phys, uint64_t len);
    /**
     * Maps `len` bytes at the physical address `phys`, write-back cached, and writable only if `writable` is not 0. Stores the
     * address of the mapping in `*virt`. It is 8-byte aligned. Returns 0, -12 (`ENOMEM`) or -13 (`EACCES`). It must refuse
     * memory that this kernel uses for itself.
     */
    int (*map)(void *ctx, uint64_t phys, uint64_t len, int writable, void **virt);
    /**
     * Unmaps what `map` mapped at `virt` with this `len`.
     */
    void (*unmap)(void *ctx, void *virt, uint64_t len);
    /**
     * Returns whether `mk_ipi_map_pfn` and `mk_receive_map_page` may map this page, whose number came from a peer; 0 if not.
     * NULL: they may map no page.
     */
    int (*peer_may_share)(void *ctx, uint64_t phys, uint64_t len);
    /**
     * Checks whether `doorbell_ring` can reach the CPU with this physical id. Returns 0 if it can, -6 (`ENXIO`) if not, or
     * another negated error number. Sends nothing. NULL: `doorbell_ring` can reach each CPU.
     */
    int (*doorbell_check)(void *ctx, uint64_t cpu, unsigned int vector);
    /**
     * Interrupts the CPU with this physical id, by an edge-triggered interrupt with this vector. All earlier stores of the
     * calling CPU must be visible to the interrupt handler there. Returns 0, -6 (`ENXIO`), -11 (`EAGAIN`: the controller is
     * stuck), or another negated error number.
     */
    int (*doorbell_ring)(void *ctx, uint64_t cpu, unsigned int vector);
    /**
     * The same as `doorbell_ring`, for an NMI handler. The NMI may have interrupted a `doorbell_ring` on the same CPU. NULL:
     * `mk_ipi_send_from_nmi` returns -`MK_IPI_ENXIO`.
     */
    int (*doorbell_ring_nmi)(void *ctx, uint64_t cpu, unsigned int vector);
    /**
     * Returns the physical id of the calling CPU: on x86 its APIC id.
     */
    uint64_t (*this_cpu_id)(void *ctx);
    /**
     * Returns the index of the calling CPU in this kernel: from 0, without gaps, below `MK_IPI_MAX_CPUS`.
     */
    unsigned int (*this_cpu_index)(void *ctx);
    /**
     * Switches interrupts off on this CPU, and prevents migration. Returns the former state. May be called again before
     * `irq_restore`.
     */
    unsigned long (*irq_save)(void *ctx);
    /**
     * Restores the state that `irq_save` returned.
     */
    void (*irq_restore)(void *ctx, unsigned long state);
    /**
     * Schedules `mk_ipi_run_deferred`: the kernel calls it soon, on this CPU, outside of the interrupt handler. Interrupts may
     * be off now. This operation must not make that call itself.
     */
    void (*schedule)(void *ctx);
    /**
     * Called repeatedly while a call that may sleep waits for another CPU. It may sleep or yield. NULL: the library executes a
     * pause instruction instead.
     */
    void (*relax)(void *ctx);
    /**
     * Prints a line to the kernel's log. Called at most once for each failed call, never in interrupt context. May be NULL.
     */
    void (*log)(void *ctx, const char *text);
    /**
     * Called after a region was mapped, so that the kernel can list it in its resource tree. May be NULL.
     */
    void (*region_added)(void *ctx, int instance, uint64_t phys, uint64_t len);
    /**
     * Called before a region is unmapped. May be NULL.
     */
    void (*region_removed)(void *ctx, int instance, uint64_t phys, uint64_t len);
    /**
     * Called when something has happened to a peer. It is called from the deferred work, from a poller, from `mk_ipi_tick`,
     * `mk_ipi_follow`, `mk_ipi_destroy_instance`, `mk_ipi_destroy_stopped` and `mk_ipi_fini`, and from a `mk_ipi_start` or
     * `mk_ipi_join` that fails. `MK_IPI_EVENT_ANSWERED` can also come from `mk_ipi_want_space` and from the calls that send.
     * This operation may send, and must not wait. May be NULL.
     */
    void (*peer_event)(void *ctx, const struct mk_ipi_event *event);
    /**
     * Returns whether the CPU belongs to the peer now, according to the directory: 1 or 0; a negative number if this kernel does
     * not know. If the result is negative, or this operation is NULL, the library reads the directory that it keeps
     * (`mk_ipi_start`, `mk_ipi_join`). If it keeps no directory, only the doorbell CPU belongs to a peer. The operation is
     * called when a peer has moved its doorbell, so that only CPUs of the peer are interrupted; when a sender names a CPU; and
     * with our own instance id when this kernel moves its own doorbell. Must not wait.
     */
    int (*peer_has_cpu)(void *ctx, int peer, uint64_t cpu);
    /**
     * Called if `mk_ipi_start`, `mk_ipi_join`, or a `mk_ipi_follow` without a callback could not add a live instance. `error` is
     * the reason, as a negated error number. `mk_ipi_follow` tries again after the next change of the directory. May be NULL.
     */
    void (*left_out)(void *ctx, int instance, int error);
    /**
     * Called when the host tells this kernel to stop at once. The call is repeated until the kernel has stopped. May be NULL.
     */
    void (*stop)(void *ctx);
    /**
     * Called for a received message for whose type no handler is registered. The message is dropped after this call. The same
     * rules hold as for a callback of `mk_ipi_register`. May be NULL.
     */
    void (*unhandled)(void *ctx, const struct mk_ipi_message *message);
};

/**
 * The config of an instance: its description, which must be known before messages can be sent to the instance. Set unused fields
 * to 0.
 */
struct mk_ipi_instance {
    /**
     * Physical ids of its CPUs that are known (on x86 APIC ids). They are checked when the instance is added, and are not
     * stored.
     */
    const uint64_t *cpus;
    /**
     * The CPU to ring if the sender names no other CPU; one of `cpus`.
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
     * The vector of its doorbell: 0x20 to 0xfe.
     */
    uint32_t vector;
    /**
     * `MK_IPI_RFC_V2` or `MK_IPI_NATIVE`.
     */
    uint32_t layout;
    /**
     * RFC v2: number of slots in its region, the `NR_CPUS` of its kernel. The physical ids of all its CPUs are below this
     * number.
     */
    uint32_t slots;
    /**
     * RFC v2: 1 if the receiver and all senders use mk-ipi. Then no unread message is overwritten. 0 if any of them has the code
     * of the Linux patch.
     */
    uint32_t exclusive;
    /**
     * Native: number of lanes, 1 to 256. 0 means any number if the region is attached, and 16 if it is created.
     */
    uint32_t lanes;
    /**
     * Native: number of lines of 64 bytes in each lane. A power of two from 8 to 4096, large enough for the longest message; 0
     * if `lanes` is 0. If both `lines` and `max_len` are 0, they have the default for this number of lanes.
     */
    uint32_t lines;
    /**
     * Native: largest payload of a message in bytes, 1 to 4096; 0 if `lines` is 0.
     */
    uint32_t max_len;
    /**
     * 1 if the instance accepts its vector on `doorbell_cpu` only. Then no other CPU can be the target of a message.
     */
    uint32_t one_doorbell;
};

/**
 * The description of an instance in the table.
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
     * The CPU to ring if the sender names no other CPU.
     */
    uint64_t doorbell_cpu;
    /**
     * Its incarnation.
     */
    uint32_t incarnation;
    /**
     * `MK_IPI_RFC_V2` or `MK_IPI_NATIVE`; 0 if it has no region.
     */
    uint32_t layout;
    /**
     * RFC v2: 1 if its slots are exclusive.
     */
    uint32_t exclusive;
    /**
     * The vector of its doorbell.
     */
    uint32_t vector;
    /**
     * 1 if the instance accepts its vector on `doorbell_cpu` only.
     */
    uint32_t one_doorbell;
    /**
     * Reserved: 0.
     */
    uint32_t reserved;
};

/**
 * Called by `mk_ipi_follow` for each changed instance. `what` is an `MK_IPI_FOLLOWED_` number. `error` is the reason of
 * `LEFT_OUT`, as a negated error number; otherwise 0.
 */
typedef void (*mk_ipi_followed_callback_t)(int instance, uint32_t what, int error, void *ctx);

/**
 * Makes an instance of the library in `mk`.
 *
 * `size`: `sizeof(struct mk_ipi)`. A wrong size means that the header and the library have different versions or limits.
 * Returns 0; -EINVAL if `mk` or `ops` is NULL or misaligned, a required operation is NULL (the operation `log` prints its name),
 * `size` or `ops->size` is wrong, or `ops->reserved` is not 0; -EPROTO if `ops->version` is wrong; -EBUSY if there is an
 * instance in `mk` already.
 *
 * Context: any but NMI, while no other call uses `mk`. Does not sleep. It writes all of `mk`, and needs little stack.
 *
 * Safety:
 * `mk` is NULL, or points to storage that is zeroed or whose instance `mk_ipi_fini` has ended. `ops` is NULL, or points to a
 * table whose operations do what their comments require.
 */
int mk_ipi_init(struct mk_ipi *mk,
                size_t size,
                const struct mk_ipi_ops *ops);

/**
 * Ends an instance of the library: tells all peers that this life ends (`mk_ipi_goodbye`), unmaps all that it has mapped, and
 * gives memory back to the pools. The storage can be used again.
 *
 * Returns 0; -EINVAL if `mk` is not an instance of the library; -EBUSY while a call or a poller still uses an instance or the
 * directory: call again. -EBUSY also while another kernel has a region mapped that came from our pools: call again later. If the
 * CPUs of that kernel have stopped, call `mk_ipi_destroy_stopped` first. -ENOMEM: to find out which kernels have such a region
 * mapped, this call must read the region, and could not map it.
 *
 * If `mk` is the default instance, there is no default instance afterwards. Context: may sleep. No other call may use `mk` any
 * more, also not the interrupt handler.
 *
 * Safety:
 * As `mk_ipi_identify`.
 */
int mk_ipi_fini(struct mk_ipi *mk);

/**
 * Sets the identity of this kernel: its instance id and its incarnation. Before this call `mk_ipi_interrupt` reads no message,
 * sends into exclusive slots are refused, and no native link can be made.
 *
 * Peers may have sent messages before. So every other CPU of this kernel must call `mk_ipi_poll` once after this call. Returns
 * 0; -EINVAL if `mk` is not an instance of the library, `instance` is not 0 to 255, or `incarnation` is 0. Context: any but NMI.
 *
 * Safety:
 * `mk` is NULL, or points to zeroed storage, or is an instance of the library that `mk_ipi_fini` does not end meanwhile.
 */
int mk_ipi_identify(struct mk_ipi *mk,
                    int instance,
                    uint32_t incarnation);

/**
 * Returns the instance id of this kernel. Stores its incarnation in `*incarnation`, unless `incarnation` is NULL.
 *
 * The id is 0 to 255. Returns -EINVAL if `mk` is not an instance of the library, or `incarnation` is misaligned; -ENODEV if this
 * kernel has no identity yet (`mk_ipi_identify`). Context: any.
 *
 * Safety:
 * As `mk_ipi_identify`. `incarnation` is NULL, or may be written.
 */
int mk_ipi_identity(struct mk_ipi *mk,
                    uint32_t *incarnation);

/**
 * Adds an instance to the table, and makes its region from memory of its pool. The region is zeroed and mapped before other
 * calls can use it. Stores the range of the region in `*made`, unless `made` is NULL.
 *
 * Returns 0; -EINVAL for null and misaligned pointers, for an id that is not 0 to 255, for any other number that is not allowed,
 * and on the native link if this kernel has no identity yet (`mk_ipi_identify`); -EEXIST if the id is in the table; -ENODEV if
 * the instance has no pool; -ENOMEM if the id is not below `MK_IPI_MAX_INSTANCES`, the pool has not enough memory, or the
 * mapping fails. Context: may sleep.
 *
 * Safety:
 * As `mk_ipi_identify`. `config` is NULL, or points to a config, whose `cpus` is NULL or points to `nr_cpus` ids. `made` is
 * NULL, or may be written.
 */
int mk_ipi_create_instance(struct mk_ipi *mk,
                           const struct mk_ipi_instance *config,
                           struct mk_ipi_range *made);

/**
 * Adds an instance to the table. Another kernel made its region: `len` bytes at physical address `start`, page-aligned. Both are
 * 0 if the instance has no region.
 *
 * Returns 0; -EINVAL as `mk_ipi_create_instance`, and for a region that is misaligned or too small, overlaps the region of
 * another instance, has no lane for this kernel, or does not have the numbers of lanes and lines and the longest message that
 * `config` gives; -EINVAL also if the numbers in the stamp of a native region contradict each other; -EPROTO if the memory is
 * not a native region that this library can use; -EEXIST if the id is in the table; -ENOMEM if the id is not below
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
 * Removes an instance from the table, and unmaps its region. If the region came from the pool of the instance, gives the memory
 * back. Messages that the instance has not confirmed as handled are reported by `MK_IPI_EVENT_UNSETTLED`. Before you destroy
 * this kernel's own instance, call `mk_ipi_goodbye`. Otherwise the kernel that created the region believes that this kernel
 * still uses it.
 *
 * Returns 0; -EINVAL if `mk` is not an instance of the library, or the instance is not in the table; -EBUSY while calls still
 * use the instance: new calls that use it are refused from now on, and you must call again.
 *
 * A native region from our pool is not unmapped while another kernel says that it has the region mapped. Then the result is also
 * -EBUSY, and nothing has changed. Write `MK_IPI_ENDING` into the directory, and call again, or call `mk_ipi_destroy_stopped`.
 * To find out which kernels have the region mapped, this call must read the region: it returns -ENOMEM if it cannot map it.
 * Context: may sleep.
 *
 * Safety:
 * As `mk_ipi_identify`.
 */
int mk_ipi_destroy_instance(struct mk_ipi *mk,
                            int id);

/**
 * Stores the description of an instance in the table in `*info`.
 *
 * Returns 0; -EINVAL for null and misaligned pointers, and for an unknown instance; -ESTALE for an instance that was destroyed.
 * Context: any.
 *
 * Safety:
 * As `mk_ipi_identify`. `info` is NULL, or may be written.
 */
int mk_ipi_get_instance(struct mk_ipi *mk,
                        int id,
                        struct mk_ipi_instance_info *info);

/**
 * Reads the value of `mk_ipi_shared=` on a command line, the physical address of the kernel's own region, and stores it in
 * `*address`. The command line has `len` bytes, and need not end with NUL. The value alone is also accepted: one word that
 * begins with a digit. This is for kernels with a parser of their own that returns only the value.
 *
 * Returns 1; 0 if the parameter is absent; -EINVAL for null and misaligned pointers, for an empty value, for 0, for an address
 * that is not on a page boundary, for a value that is not a number, and for other characters after the number; -ERANGE for an
 * address that is not below 2^52. Context: any.
 *
 * Safety:
 * `cmdline` is NULL, or points to `len` bytes. `address` is NULL, or may be written.
 */
int mk_ipi_boot_shared(const char *cmdline,
                       size_t len,
                       uint64_t *address);

/**
 * Reads the value of `mk_ipi_directory=`, the physical address of the directory. Otherwise the same as `mk_ipi_boot_shared`.
 *
 * Safety:
 * As `mk_ipi_boot_shared`.
 */
int mk_ipi_boot_directory(const char *cmdline,
                          size_t len,
                          uint64_t *address);

/**
 * Starts a spawned kernel. It maps the directory at the address in `mk_ipi_directory=`. The entry whose region is at the address
 * in `mk_ipi_shared=` describes this kernel, and gives it its identity. Then it adds this kernel's own instance and all other
 * live instances. An instance that cannot be added is left out, and the operation `left_out` reports it.
 *
 * The directory stays mapped until `mk_ipi_fini`, because `mk_ipi_follow` reads it. It also says which CPUs belong to a peer, if
 * the operation `peer_has_cpu` does not.
 *
 * Returns the number of added instances, including this kernel's own; 0 if `mk_ipi_shared=` is absent: then the kernel has no
 * region, and `mk_ipi_interrupt` reads no message. -EINVAL if `mk` is not an instance of the library, for an invalid value of a
 * parameter, and if this kernel's own region cannot be used; -ERANGE for an address that is not below 2^52; -ENODEV if
 * `mk_ipi_directory=` is absent, or no valid live entry has that region; -EPROTO if there is no directory at its address, or if
 * this kernel's own region is not a native region that this library can use; -EACCES if `map` refuses the directory; -EAGAIN
 * while the host changes an entry; -EBUSY while another CPU makes this call; -EEXIST if this kernel is in the table already, or
 * keeps another directory; -ENOMEM if `map` fails, or the id of this kernel is not below `MK_IPI_MAX_INSTANCES`. After an error
 * everything that this call added or mapped was removed again, and boot can continue. Context: may sleep. Every other CPU of
 * this kernel must call `mk_ipi_poll` once afterwards.
 *
 * Safety:
 * As `mk_ipi_identify`. `cmdline` is NULL, or points to `len` bytes.
 */
int mk_ipi_start(struct mk_ipi *mk,
                 const char *cmdline,
                 size_t len);

/**
 * The same as `mk_ipi_start`, for a kernel that has parsed its command line and mapped the directory itself: the directory is in
 * the `len` bytes at `memory`, and this kernel's own region is at the physical address `shared`.
 *
 * Returns the number of added instances, including this kernel's own; or an error as `mk_ipi_start`. Context: may sleep.
 *
 * Safety:
 * As `mk_ipi_identify`. `memory` is NULL, or points to `len` bytes. If this call succeeds, they stay mapped until `mk_ipi_fini`.
 */
int mk_ipi_join(struct mk_ipi *mk,
                uint64_t shared,
                const void *memory,
                size_t len);

/**
 * Applies the changes of the directory since the last call, or since `mk_ipi_start` or `mk_ipi_join`: adds new instances,
 * removes instances whose region ends, and uses the doorbells that the directory names now. Calls `callback`, unless it is NULL,
 * with `ctx` for every change.
 *
 * Returns the generation of the directory, after it has stored this number in all our lanes. There the host reads it
 * (`mk_ipi_behind`). It tells the host that this kernel does not use older entries any more: if a CPU or a region is named only
 * in an older entry, this kernel does not ring that CPU, and does not use that region.
 *
 * Returns -EINVAL if `mk` is not an instance of the library; -ENODEV if there is no directory, or the entry of an instance in
 * the table is invalid; -EAGAIN while the host changes an entry, while a CPU of ours is ringing a doorbell of a former entry,
 * while another CPU runs `mk_ipi_follow`, and if another CPU added an instance during the call; -EBUSY while calls use an
 * instance that must be removed. After -EAGAIN, -EBUSY and an invalid entry, call again. If another CPU runs `mk_ipi_follow`,
 * this call has applied nothing. Otherwise it has applied all other changes.
 *
 * Context: may sleep; one caller at a time. Call it periodically: if the host counts its changes, and nothing has changed, it
 * reads only one word of the directory. Call it also after
 * `MK_IPI_EVENT_READ_DIRECTORY`, but not from the operation that reports this event. `callback` may send and register, and must
 * not call `mk_ipi_fini`.
 *
 * Safety:
 * As `mk_ipi_identify`. `callback` may be called with `ctx`.
 */
int64_t mk_ipi_follow(struct mk_ipi *mk,
                      mk_ipi_followed_callback_t callback,
                      void *ctx);

/* ====================================================================
 * Messages
 *
 * Callbacks for messages, sending and receiving, on both layouts.
 */

/**
 * A registration. It is a number, not an address. Only compare it with NULL, keep it, and pass it back.
 */
struct mk_ipi_handler;

/**
 * A message, as a callback of `mk_ipi_register` gets it. It is a private copy, valid until the callback returns.
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
     * The number of the message, which `mk_ipi_send` also gave to the sender; 0 on RFC v2.
     */
    uint64_t number;
    /**
     * The low 32 bits of the physical id of the sending CPU. The sender wrote them, and they are not checked.
     */
    uint64_t sender_cpu;
    /**
     * The message type.
     */
    uint32_t type;
    /**
     * The instance that sent the message. It follows from the lane; -1 on RFC v2, which has no lanes.
     */
    int sender;
    /**
     * The incarnation of the sender that sent the message. The sender wrote it; 0 on RFC v2.
     */
    uint32_t sender_incarnation;
    /**
     * Our own incarnation, which receives the message; 0 on RFC v2.
     */
    uint32_t receiver_incarnation;
};

/**
 * A callback of `mk_ipi_register`. It is called for messages of any size. Otherwise the same as `mk_ipi_callback_t`.
 */
typedef void (*mk_ipi_message_callback_t)(const struct mk_ipi_message *message, void *ctx);

/**
 * Registers `callback` for messages of type `type`. The callback gets `ctx`. A type may have several callbacks. The order in
 * which they are called is not defined.
 *
 * Stores the handle in `*handler`. Returns 0; -EINVAL if `mk` is not an instance of the library, `callback` is NULL, or
 * `handler` is NULL or misaligned; -ENOMEM if `MK_IPI_MAX_HANDLERS` callbacks are registered. Context: any but NMI. Callbacks
 * may call it.
 *
 * Safety:
 * As `mk_ipi_identify`. Any CPU may call `callback` with `ctx`. `handler` is NULL, or may be written.
 */
int mk_ipi_register(struct mk_ipi *mk,
                    uint32_t type,
                    mk_ipi_message_callback_t callback,
                    void *ctx,
                    struct mk_ipi_handler **handler);

/**
 * Ends a registration. When this returns 0, the callback is not running and will not run again.
 *
 * Returns 0; -ESTALE if the registration has ended before; -EINVAL if `mk` is not an instance of the library, for NULL, and for
 * a handle of another instance of the library; -EDEADLK on a CPU that runs a callback or has a poller. Context: may sleep (waits
 * for callbacks on other CPUs, and for the next poll of a poller on another CPU); not in interrupt context.
 *
 * Safety:
 * As `mk_ipi_identify`. `handler` may have any value.
 */
int mk_ipi_unregister(struct mk_ipi *mk,
                      struct mk_ipi_handler *handler);

/**
 * Sends the `size` bytes at `data` to the instance `to`. On the native link `size` is 0 to 4096, or less if the region of `to`
 * was made for shorter messages. On RFC v2 it is 1 to 256, and the message goes to the doorbell CPU of `to`.
 *
 * Returns 0, and stores the number of the message in `*number`, unless `number` is NULL. On the native link a later message has
 * a larger number. There are gaps between the numbers, and no number is 0. `mk_ipi_handled` and `mk_ipi_event` use these
 * numbers. On RFC v2 the number is 0.
 *
 * If the message was stored but its doorbell failed, the call also returns 0, with the number 0. An error would make the caller
 * send the message again. The next doorbell or `mk_ipi_ring` delivers the message, or the receiver finds it when it polls.
 * `mk_ipi_get_stats` counts such messages in `not_rung`. On the native link `mk_ipi_flush` after `mk_ipi_post` returns the error
 * of the doorbell.
 *
 * With any other result nothing was sent, and `*number` is unchanged:
 *
 * -EINVAL: `mk` is not an instance of the library, `to` is unknown, there are too many bytes, `data` is NULL and `size` is not
 * 0, or `number` is misaligned. On RFC v2 also: there are 0 bytes; or the slot is exclusive and this kernel has no identity yet.
 *
 * -ERANGE: `type` has more than 32 bits. On RFC v2 also: the physical id of this CPU has more than 31 bits.
 *
 * -ESTALE: `to` was destroyed; or its region was created again after `to` was added: then destroy it and add it again
 * (`mk_ipi_follow` does so); or the host has cleared our claim on the slot, because it considers this life of ours dead.
 *
 * -ENODEV: `to` has no region.
 *
 * -EBUSY: the slot holds an unread message, or another sender is filling it. -ENOSPC: our lane is full. -EAGAIN: the receiver
 * has not answered this life of ours yet, or other CPUs took each position that this CPU tried. After these three errors, try
 * again.
 *
 * -EPROTO: the peer has put our lane into quarantine; or the values that the peer wrote into its region contradict each other,
 * or its new life does not know our life. In the last two cases destroy the peer and add it again.
 *
 * -ENXIO: the doorbell cannot reach the CPU (RFC v2 only). Other errors of the operation `doorbell_check` give -EAGAIN or
 * -EINVAL.
 *
 * Context: any but NMI. It does not sleep, and does not wait for the receiver.
 *
 * Safety:
 * As `mk_ipi_identify`. `data` is NULL, or points to `size` bytes. `number` is NULL, or may be written.
 */
int mk_ipi_send(struct mk_ipi *mk,
                int to,
                unsigned long type,
                const void *data,
                size_t size,
                uint64_t *number);

/**
 * The same as `mk_ipi_send`, but to the CPU with physical id `cpu` of the instance. Returns -EINVAL also if that CPU does not
 * belong to the instance. The operation `peer_has_cpu` or the directory says which CPUs belong to it. Without both, only the
 * doorbell CPU does. On the native link messages go to an instance, not to a CPU. So `cpu` must be the CPU of its doorbell.
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
 * Rings an instance without sending a message, even if it has not requested a doorbell. An instance that is not live is not
 * rung: the result is then also 0.
 *
 * Returns 0; -EINVAL and -ESTALE as `mk_ipi_send`; or the error of the doorbell. Context: any but NMI.
 *
 * Safety:
 * As `mk_ipi_identify`.
 */
int mk_ipi_ring(struct mk_ipi *mk,
                int to);

/**
 * Handles a doorbell: schedules the deferred work. On RFC v2 it first copies the message in this CPU's slot, if any, into the
 * queue of this CPU.
 *
 * Call it in the interrupt handler of the doorbell's vector, after the interrupt was acknowledged. It takes a bounded time, and
 * calls no callback. Does nothing if `mk` is not an instance of the library. Context: interrupts off; not NMI.
 *
 * Safety:
 * As `mk_ipi_identify`.
 */
void mk_ipi_interrupt(struct mk_ipi *mk);

/**
 * Looks for messages without an interrupt, so that a message whose doorbell was lost is found. On RFC v2 it reads
 * this CPU's exclusive slot. On the native link it schedules the deferred work, which reads the lanes.
 *
 * Returns 1 on the native link. On RFC v2 returns 1 if it has taken a message from the slot; 0 if there was none, or if the
 * queue of this CPU was full. -EINVAL if `mk` is not an instance of the library, or the slots of this kernel are not exclusive;
 * -ENODEV if this kernel has no region; -ERANGE on a CPU whose index is not below `MK_IPI_MAX_CPUS`. Context: any but NMI.
 *
 * Safety:
 * As `mk_ipi_identify`.
 */
int mk_ipi_poll(struct mk_ipi *mk);

/**
 * The deferred work: gives at most `MK_IPI_QUEUE` waiting messages to their callbacks.
 *
 * Unless `more` is NULL, stores in `*more`: 1 if messages may be left, and then the deferred work is scheduled again; otherwise
 * 0. Returns the number of handled messages; -EINVAL if `mk` is not an instance of the library, or `more` is misaligned.
 * Context: on the CPU that scheduled it, outside of the interrupt handler; must not migrate.
 *
 * Safety:
 * As `mk_ipi_identify`. `more` is NULL, or may be written.
 */
int mk_ipi_run_deferred(struct mk_ipi *mk,
                        int *more);

/**
 * The same as `mk_ipi_run_deferred`, for a kernel that polls from time to time. On the native link it does not request doorbells
 * when no message is left; a request by a former `mk_ipi_run_deferred` stays. It schedules another run only if another CPU tried
 * to read the lanes meanwhile. A CPU that polls all the time should use a poller (`mk_ipi_poller_begin`).
 *
 * Safety:
 * As `mk_ipi_run_deferred`.
 */
int mk_ipi_drain(struct mk_ipi *mk,
                 int *more);

/**
 * Stores the counters of this kernel in `*stats`.
 *
 * Returns 0, or -EINVAL if `mk` is not an instance of the library, or `stats` is NULL or misaligned. Context: any.
 *
 * Safety:
 * As `mk_ipi_identify`. `stats` is NULL, or may be written.
 */
int mk_ipi_get_stats(struct mk_ipi *mk,
                     struct mk_ipi_stats *stats);

/**
 * Sends the page frame number of a page: its physical address divided by 4096.
 *
 * Returns the same as `mk_ipi_send`, and also stores the number of the message in `*number`, unless `number` is NULL. Context:
 * any but NMI.
 *
 * Safety:
 * As `mk_ipi_identify`. `number` is NULL, or may be written.
 */
int mk_ipi_send_pfn(struct mk_ipi *mk,
                    int to,
                    uint64_t pfn,
                    uint64_t *number);

/**
 * Maps the page of 4096 bytes with the number `pfn`, write-back cached. The number came from a peer, so the operation
 * `peer_may_share` must allow it. Stores the address of the mapping in `*page`.
 *
 * Returns 0; -EINVAL if `mk` is not an instance of the library, or `page` is NULL or misaligned; -ERANGE if no CPU can address
 * that page; -EACCES if `peer_may_share` or `map` does not allow it; -ENOMEM if `map` fails. Context: may sleep.
 *
 * Safety:
 * As `mk_ipi_identify`. `page` is NULL, or may be written.
 */
int mk_ipi_map_pfn(struct mk_ipi *mk,
                   uint64_t pfn,
                   void **page);

/**
 * Unmaps a page that `mk_ipi_map_pfn` mapped. Does nothing if `page` is NULL.
 *
 * Returns 0, or -EINVAL if `mk` is not an instance of the library. Context: may sleep.
 *
 * Safety:
 * As `mk_ipi_identify`. `page` is NULL, or an address that `mk_ipi_map_pfn` returned for `mk`. It is unmapped only once, and not
 * used afterwards.
 */
int mk_ipi_unmap_page(struct mk_ipi *mk,
                      void *page);

/* ====================================================================
 * Native link
 *
 * Calls that only the native link has: several messages in one call, events, pollers, moves of the doorbell.
 */

/**
 * Largest payload of a message on the native link, in bytes. A region can be made for shorter messages; the default is 256
 * bytes.
 */
#define MK_IPI_MAX_LEN 4096

/**
 * Largest number of messages that one call of `mk_ipi_post_many` or `mk_ipi_send_many` sends.
 */
#define MK_IPI_MAX_MANY 32

/**
 * Event: messages of the peer's life `incarnation` follow. All messages of its former lives have been delivered. Each life of
 * this kernel gets this event once for each life of the peer.
 */
#define MK_IPI_EVENT_BEGAN 1

/**
 * Event: the peer has answered this life of ours. Until now sends could fail with -`MK_IPI_EAGAIN`, because the answer was
 * missing. They do not fail for this reason any more.
 */
#define MK_IPI_EVENT_ANSWERED 2

/**
 * Event: the peer broke the protocol. Its messages are refused until it begins a new life or attaches again. `breach` is
 * set.
 */
#define MK_IPI_EVENT_QUARANTINED 3

/**
 * Event: the peer says that this kernel broke the protocol. It accepts no more messages from this life of ours. `breach` is
 * set.
 */
#define MK_IPI_EVENT_REFUSED 4

/**
 * Event: a life of the peer ended while it handled our message `number`. It is not known whether this message was handled. All
 * messages before it were handled, and no message after it.
 */
#define MK_IPI_EVENT_IN_DOUBT 5

/**
 * Event: a new life of the peer has discarded our unread messages: those with a number above `after`, up to `number`. They were
 * not handled.
 */
#define MK_IPI_EVENT_DISCARDED 6

/**
 * Event: our lane to the peer has the space that `mk_ipi_want_space` requested.
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
 * Event: the peer runs as `incarnation` and receives messages. Reported once for each life of the peer.
 */
#define MK_IPI_EVENT_UP 10

/**
 * Event: the peer has ended its life `incarnation` with a goodbye (`mk_ipi_goodbye`).
 */
#define MK_IPI_EVENT_DEAD 11

/**
 * Event: the link with the peer has ended, because this kernel destroyed the instance or because the region of the peer was
 * created again. It is not known whether our messages with a number above `after`, up to `number`, were handled.
 */
#define MK_IPI_EVENT_UNSETTLED 12

/**
 * Event: what the peer wrote into its region contradicts what this kernel has read in the directory. The directory may have
 * changed: call `mk_ipi_follow`.
 */
#define MK_IPI_EVENT_READ_DIRECTORY 13

/**
 * Bytes of `struct mk_ipi_poller`.
 */
#define MK_IPI_POLLER_SIZE 128

/**
 * An event: what happened to a peer, or to the link with it (native link only).
 */
struct mk_ipi_event {
    /**
     * `IN_DOUBT`: the number of the message, as `mk_ipi_send` stored it. `DISCARDED`, `UNSETTLED`: the number of the last of
     * these messages.
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
     * The incarnation of the peer; 0 if it is not known.
     */
    uint32_t theirs;
    /**
     * Our own incarnation.
     */
    uint32_t ours;
    /**
     * `BEGAN`, `UP` and `DEAD`: the incarnation of the peer that the event is about.
     */
    uint32_t incarnation;
    /**
     * `QUARANTINED` and `REFUSED`: how the protocol was broken. 1 = a line that is not allowed at this position, 2 = a length
     * above `max_len`, 3 = an invalid hello.
     */
    uint32_t breach;
};

/**
 * One of several messages that one call sends.
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
 * Statistics of our lane in a peer's region. The peer writes some of the values, and they are not checked.
 */
struct mk_ipi_lane_stats {
    /**
     * The number of the last message that this life of ours sent; 0 if it has sent none.
     */
    uint64_t number;
    /**
     * How often a send found the lane full, in all lives of this kernel.
     */
    uint64_t full;
    /**
     * How often this kernel rang the peer for this lane, in all lives of this kernel.
     */
    uint64_t rung;
    /**
     * How many messages the peer has delivered to its handlers, in all lives of both kernels. The peer writes this value.
     */
    uint64_t received;
    /**
     * How often the peer accepted a new life or attachment of this kernel, plus how often the peer restarted. The peer writes
     * this value.
     */
    uint64_t resets;
    /**
     * How often the peer put the lane into quarantine. The peer writes this value.
     */
    uint64_t bad;
    /**
     * The reason for the last quarantine, as in `breach` of `struct mk_ipi_event`; 0 if there was none. The peer writes this
     * value.
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
 * The same as `mk_ipi_send` on the native link, for any context, including NMI handlers and the output of a console. Returns
 * -EINVAL on RFC v2, and -ENXIO if the operation `doorbell_ring_nmi` is NULL. Context: any.
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
 * The same as `mk_ipi_send` on the native link, but without a doorbell. After the last of several messages call `mk_ipi_flush`.
 * Until then the receiver may not read them. Messages that a callback posts are flushed at the end of the run of deferred work
 * that called the callback; a poller flushes them within 384 calls. Returns -EINVAL on RFC v2.
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
 * The same as `mk_ipi_post`, for `count` messages of one type; if `count` is larger than `MK_IPI_MAX_MANY`, only for the first
 * `MK_IPI_MAX_MANY`. Posts as many of them as fit into the lane, beginning with the first, and stores in `*done` how many it
 * posted. This is faster than one call for each message.
 *
 * Returns 0, or an error as `mk_ipi_send`: then nothing was sent, and `*done` is unchanged. -ENOSPC: the first message does not
 * fit. -EINVAL also: any message is too long, or has NULL as `data` and a `size` that is not 0; or `done` is NULL or misaligned.
 * Context: any but NMI.
 *
 * Safety:
 * As `mk_ipi_identify`. `payloads` is NULL, or points to `count` structs; the `data` of each is NULL, or points to `size` bytes.
 * `done` is NULL, or may be written.
 */
int mk_ipi_post_many(struct mk_ipi *mk,
                     int to,
                     unsigned long type,
                     const struct mk_ipi_payload *payloads,
                     size_t count,
                     size_t *done);

/**
 * The same as `mk_ipi_post_many`, and then rings the instance if it has requested a doorbell.
 *
 * Returns 0 also if messages were stored and the doorbell failed. If you need the error of the doorbell, call `mk_ipi_post_many`
 * and `mk_ipi_flush` instead.
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
 * Rings an instance after messages were posted, if it has requested a doorbell (native link).
 *
 * Returns 0; -EINVAL and -ESTALE as `mk_ipi_send`; -EINVAL also on RFC v2; or the error of the doorbell. Context: any but NMI.
 *
 * Safety:
 * As `mk_ipi_identify`.
 */
int mk_ipi_flush(struct mk_ipi *mk,
                 int to);

/**
 * Requests the event `MK_IPI_EVENT_SPACE`. It is reported when this kernel can send a message of `len` bytes to the instance:
 * our lane has space, and the instance has answered this life of ours. Call this after -ENOSPC or -EAGAIN on the native link.
 *
 * Returns 1 if the message can be sent now; the event may come nevertheless. Returns 0 if it cannot be sent yet. Then this event
 * will come, or another event that says that the peer refuses our messages, has ended or has restarted. `mk_ipi_tick` reports
 * the end and the restart. Returns -EINVAL and -ESTALE as `mk_ipi_send`; -EINVAL also on RFC v2, and for more bytes than a
 * message can have; or the error of the doorbell. Context: any but NMI.
 *
 * Safety:
 * As `mk_ipi_identify`.
 */
int mk_ipi_want_space(struct mk_ipi *mk,
                      int to,
                      size_t len);

/**
 * Advances the heartbeat of this kernel, schedules the deferred work to read all lanes, and checks all peers with native
 * regions. The operation `peer_event` reports changes. Call it periodically.
 *
 * `now` is the time on the kernel's clock. The clock is a counter that does not wrap, in any unit. If the heartbeat of a peer
 * does not change for more than `patience` of these units, the event `MK_IPI_EVENT_SUSPECT` is reported. Returns 0, or -EINVAL
 * if `mk` is not an instance of the library. Context: any but NMI.
 *
 * Safety:
 * As `mk_ipi_identify`.
 */
int mk_ipi_tick(struct mk_ipi *mk,
                uint64_t now,
                uint64_t patience);

/**
 * Tells all peers that this life of the kernel has ended. Afterwards call only `mk_ipi_destroy_instance` and `mk_ipi_fini`.
 * Unread messages stay in the region of this kernel for its next life.
 *
 * Returns 0, or -EINVAL if `mk` is not an instance of the library. Context: any.
 *
 * Safety:
 * As `mk_ipi_identify`.
 */
int mk_ipi_goodbye(struct mk_ipi *mk);

/**
 * Makes this life of the kernel begin with empty lanes. Messages that former lives left unread are not delivered. Their senders
 * get `MK_IPI_EVENT_DISCARDED`. Call it before this kernel's own instance is added.
 *
 * Returns 0, or -EINVAL if `mk` is not an instance of the library. Context: any.
 *
 * Safety:
 * As `mk_ipi_identify`.
 */
int mk_ipi_discard_unread(struct mk_ipi *mk);

/**
 * Stores a message number in `*number`. The instance has handled all messages of this life of ours whose numbers are not above
 * that number. It may have handled more, because it confirms several messages together.
 *
 * Returns 0; -EINVAL and -ESTALE as `mk_ipi_send`; -EINVAL also on RFC v2, and if `number` is NULL or misaligned; -EPROTO if the
 * peer has written an impossible number. Context: any.
 *
 * Safety:
 * As `mk_ipi_identify`. `number` is NULL, or may be written.
 */
int mk_ipi_handled(struct mk_ipi *mk,
                   int to,
                   uint64_t *number);

/**
 * Sets the CPU and the vector of this kernel's doorbell, instead of those in the directory. Peers ring it from the moment when
 * this kernel joins. Call it before `mk_ipi_start` or `mk_ipi_join`; afterwards call `mk_ipi_move_doorbell`. Peers ring this CPU
 * only if the directory lists it as a CPU of this kernel.
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
 * Moves the doorbell of this kernel to `cpu` with `vector`: senders ring it from now on. After the deferred work that this call
 * schedules has run, senders do not ring the old doorbell any more.
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
 * Returns 0; -EINVAL and -ESTALE as `mk_ipi_send`; -EINVAL also on RFC v2, and if `stats` is NULL or misaligned. Context: any.
 *
 * Safety:
 * As `mk_ipi_identify`. `stats` is NULL, or may be written.
 */
int mk_ipi_get_lane_stats(struct mk_ipi *mk,
                          int to,
                          struct mk_ipi_lane_stats *stats);

/**
 * Makes a poller in `poller`, for a CPU that polls all the time. A poller has the exclusive right to read the lanes of this
 * kernel's native region.
 *
 * While it exists, senders do not ring this kernel's doorbell, and the deferred work does not read the lanes. `size`:
 * `sizeof(struct mk_ipi_poller)`. Returns 0; -EINVAL if `mk` is not an instance of the library, `poller` is NULL, the size is
 * wrong, or this kernel's region is not native; -ENODEV if this kernel has no identity or no region; -EBUSY if there is a poller
 * in `poller` already, and while another CPU reads the lanes or has a poller: try again; -ERANGE on a CPU whose index is not
 * below `MK_IPI_MAX_CPUS`. Context: any but NMI. All calls for this poller, up to `mk_ipi_poller_end`, must be made on this CPU.
 *
 * Safety:
 * As `mk_ipi_identify`. `poller` is NULL, or points to storage that is zeroed or whose poller `mk_ipi_poller_end` has ended. The
 * storage does not move until `mk_ipi_poller_end`.
 */
int mk_ipi_poller_begin(struct mk_ipi *mk,
                        struct mk_ipi_poller *poller,
                        size_t size);

/**
 * Delivers new messages to their handlers.
 *
 * Returns the number of messages and of other events of peers; 0 if there were none; -EINVAL if `poller` is not a poller; -EBUSY
 * inside a handler that this poller called, and if another call uses the poller. Context: as `mk_ipi_run_deferred`, on the CPU
 * that made the poller.
 *
 * Each call reads the lane from which the last message came. Some calls also read all lanes, and check whether the host tells
 * this kernel to stop, and whether our own lanes have got an answer or space.
 *
 * Safety:
 * `poller` is NULL, or points to storage that is zeroed or was given to `mk_ipi_poller_begin`.
 */
int mk_ipi_poller_poll(struct mk_ipi_poller *poller);

/**
 * Polls until a poll finds a message or an event, at most `looks` times, with a short pause after each poll that finds nothing.
 * This is faster than `looks` calls of `mk_ipi_poller_poll`. Otherwise it is the same as `mk_ipi_poller_poll`.
 *
 * Safety:
 * As `mk_ipi_poller_poll`.
 */
int mk_ipi_poller_wait(struct mk_ipi_poller *poller,
                       size_t looks);

/**
 * Ends a poller, and schedules the deferred work, which requests doorbells again. The storage can be used again.
 *
 * Returns 0; -EINVAL if `poller` is not a poller; -EBUSY inside a handler that this poller called, and if another call uses the
 * poller. Context: any but NMI, on the CPU that made the poller.
 *
 * Safety:
 * As `mk_ipi_poller_poll`.
 */
int mk_ipi_poller_end(struct mk_ipi_poller *poller);

/* ====================================================================
 * RFC v2
 *
 * The calls of the Linux patch, with its names and results. They use the default instance of the library.
 * Macros whose names do not begin with MK_IPI_ are defined only if they are not defined yet.
 */

/**
 * Largest payload of a message of generation RFC v2, in bytes.
 */
#ifndef MK_MAX_DATA_SIZE
#define MK_MAX_DATA_SIZE 256
#endif

/**
 * Largest number of instances that a machine can have. Their ids are 0 to 255.
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
 * The doorbell's vector in kernels with the Linux patch, on x86.
 */
#ifndef MULTIKERNEL_VECTOR
#define MULTIKERNEL_VECTOR 0xea
#endif

/**
 * A message of generation RFC v2. This is the layout in shared memory. Callbacks of `multikernel_register_handler` get a copy.
 */
struct mk_ipi_data {
    /**
     * Physical id of the CPU that sent the message. The sender wrote it, and it is not checked. -1 if it does not fit.
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
     * The payload. The bytes after it are 0.
     */
    char buffer[MK_MAX_DATA_SIZE];
};

/**
 * A callback of `multikernel_register_handler`. It is called in the deferred work, on the CPU that received the message, with no
 * lock held. `data` is a private copy, valid until the callback returns. The callback may send and register. It must not
 * unregister, and must not migrate. It is not called for messages above 256 bytes. Such messages exist only on the native link.
 */
typedef void (*mk_ipi_callback_t)(struct mk_ipi_data *data, void *ctx);

/**
 * Sets the default instance of the library. Calls without an argument `mk` use it (`multikernel_...`, `mk_send_pfn` and so on).
 * NULL: from now on there is no default instance. Handlers that `multikernel_register_handler` registered while there was no
 * default instance become handlers of `mk`.
 *
 * Returns 0; -EINVAL if `mk` is neither NULL nor an instance of the library; -ENOMEM if `mk` has become the default instance,
 * but has no room for all of those handlers. The others wait until the next `mk_ipi_set_default`. Context: any but NMI.
 *
 * Safety:
 * As `mk_ipi_identify`. The instance exists while it is the default instance.
 */
int mk_ipi_set_default(struct mk_ipi *mk);

/**
 * Starts a spawned kernel of generation RFC v2 without a directory. Its own region is at the address in `mk_ipi_shared=`, and
 * has `me->slots` slots. `cmdline` is a command line, or the value of `mk_ipi_shared=` alone.
 *
 * Returns 1; 0 if the parameter is absent: then the kernel has no region, and `mk_ipi_interrupt` reads no message. -EINVAL and
 * -ERANGE for an invalid value or config; -EEXIST if the instance is in the table already; -ENOMEM if the region cannot be
 * mapped. After an error boot can continue without a region. Context: may sleep.
 *
 * Safety:
 * As `mk_ipi_start`. For `me` the same holds as for `config` of `mk_ipi_create_instance`.
 */
int mk_ipi_start_rfc_v2(struct mk_ipi *mk,
                        const char *cmdline,
                        size_t len,
                        const struct mk_ipi_instance *me);

/**
 * Registers `callback` for messages of type `ipi_type`. The callback gets `ctx`. A type may have several callbacks. The order
 * in which they are called is not defined. If there is no default instance, the registration waits until the next
 * `mk_ipi_set_default`. So the parts of a kernel can start in any order.
 *
 * Returns a handle; NULL for a null callback, or if `MK_IPI_MAX_HANDLERS` callbacks are registered or wait. Context: any but
 * NMI. Callbacks may call it.
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
 * The call does nothing for NULL, for a handle that was unregistered before, and for a handle of another instance of the
 * library. It must not be made on a CPU that runs a callback or has a poller, because it would wait for itself. There it does
 * nothing: the callback stays registered, and the call writes a line to the kernel's log. Context: may sleep (waits for
 * callbacks on other CPUs); not in interrupt context.
 */
void multikernel_unregister_handler(struct mk_ipi_handler *handler);

/**
 * Sends `data_size` bytes, at most 256, to the doorbell CPU of an instance. If `data` is NULL, sends `data_size` zeros.
 *
 * Returns 0; -EINVAL for an unknown instance and for more than 256 bytes; -ENODEV if the instance has no region, or if there is
 * no default instance of the library. If these checks pass and the message has 0 bytes, it returns 0, and nothing is sent. Only
 * the low 32 bits of `type` are sent.
 *
 * It also returns errors that the patch does not have, and then nothing was sent: -EBUSY on exclusive slots, -ENOSPC and -EAGAIN
 * on the native link, -ENXIO if the doorbell cannot reach the CPU, and the other errors of `mk_ipi_send`. If the message was
 * stored and the doorbell failed, it returns 0 (`mk_ipi_send` says why). Context: any but NMI.
 *
 * Safety:
 * `data` is NULL or holds `data_size` bytes.
 */
int multikernel_send_ipi_data(int instance_id,
                              void *data,
                              size_t data_size,
                              unsigned long type);

/**
 * Handles a doorbell of the default instance, as `mk_ipi_interrupt` does. Does nothing if there is no default instance.
 *
 * Call it in the interrupt handler of the doorbell's vector, after the interrupt was acknowledged. Context: interrupts off; not
 * NMI.
 */
void generic_multikernel_interrupt(void);

/**
 * Sends the number of a page: its physical address divided by 4096.
 *
 * Returns as `multikernel_send_ipi_data`. Context: any but NMI.
 */
int mk_send_pfn(int instance_id, unsigned long pfn);

/**
 * Reads the page frame number in a message, and stores it in `*out_pfn`.
 *
 * Returns 0; -EINVAL for null and misaligned pointers, for a message of another type, and for a message whose size is not that
 * of an `unsigned long`. After an error `*out_pfn` is unchanged. Context: any.
 *
 * Safety:
 * `data` is NULL, or points to a message. `out_pfn` is NULL, or may be written.
 */
int mk_receive_pfn(struct mk_ipi_data *data,
                   unsigned long *out_pfn);

/**
 * Maps the page of 4096 bytes that a message names, write-back cached. The operation `peer_may_share` must allow it.
 *
 * Returns the address; NULL after any error. Context: may sleep. So a callback must not make this call. It should copy the
 * message, and map the page later.
 *
 * Safety:
 * `data` is NULL, or points to a message.
 */
void *mk_receive_map_page(struct mk_ipi_data *data);

/**
 * Unmaps a page that `mk_receive_map_page` mapped. Does nothing for NULL. (In the patch this is a macro.) Context: may sleep.
 *
 * Safety:
 * `page` is NULL, or an address that `mk_receive_map_page` returned. It is unmapped only once, and not used afterwards. The
 * default instance has not changed since the page was mapped.
 */
void mk_receive_unmap_page(void *page);

/* ====================================================================
 * Host
 *
 * For the kernel that starts and stops other kernels: the directory, and the calls that free a CPU or a region.
 */

/**
 * State of an instance in the directory: absent. There is no instance with this id.
 */
#define MK_IPI_ABSENT 0

/**
 * State of an instance in the directory: the host is starting it. Its region exists.
 */
#define MK_IPI_STARTING 1

/**
 * State of an instance in the directory: it runs.
 */
#define MK_IPI_RUNNING 2

/**
 * State of an instance in the directory: this incarnation has ended. Its region is kept for the next one.
 */
#define MK_IPI_DEAD 3

/**
 * State of an instance in the directory: this incarnation has ended, and the host will free its region. Kernels that have the
 * region mapped must unmap it.
 */
#define MK_IPI_ENDING 4

/**
 * Flag of an instance in the directory: its slots are exclusive. A sender does not overwrite an unread message.
 */
#define MK_IPI_EXCLUSIVE 1

/**
 * Flag of an instance in the directory: it accepts its vector on the doorbell CPU only.
 */
#define MK_IPI_ONE_DOORBELL 2

/**
 * Conflict: none. The entry was not refused.
 */
#define MK_IPI_CONFLICT_NONE 0

/**
 * Conflict: readers would refuse the entry, because a number in it is not allowed, or its region is invalid.
 */
#define MK_IPI_CONFLICT_ENTRY 1

/**
 * Conflict: the entry has no CPU, or more CPUs than the directory has room for.
 */
#define MK_IPI_CONFLICT_NR_CPUS 2

/**
 * Conflict: the doorbell CPU is not listed. `cpu` is its physical id.
 */
#define MK_IPI_CONFLICT_DOORBELL 3

/**
 * Conflict: `cpu` is listed twice.
 */
#define MK_IPI_CONFLICT_CPU_TWICE 4

/**
 * Conflict: `cpu` belongs to the live instance `instance`.
 */
#define MK_IPI_CONFLICT_CPU 5

/**
 * Conflict: the region overlaps the region of `instance`.
 */
#define MK_IPI_CONFLICT_REGION 6

/**
 * Conflict: the region overlaps the directory.
 */
#define MK_IPI_CONFLICT_ON_DIRECTORY 7

/**
 * Conflict: `instance`, whose entry should be written, is live as `incarnation`. Until it is dead, its incarnation, region,
 * layout and flags cannot change, and it cannot become absent or ending.
 */
#define MK_IPI_CONFLICT_LIVE 8

/**
 * Conflict: this incarnation of `instance` has ended, and cannot become live again. The next life needs another incarnation.
 */
#define MK_IPI_CONFLICT_OVER 9

/**
 * Conflict: the entry of `instance` in the directory is invalid, so the new entry cannot be compared with it.
 */
#define MK_IPI_CONFLICT_UNREADABLE 10

/**
 * Called by `mk_ipi_destroy_stopped`. Returns whether the CPUs of this incarnation of the instance have stopped for good; 0 if
 * not.
 */
typedef int (*mk_ipi_has_stopped_callback_t)(int instance, uint32_t incarnation, void *ctx);

/**
 * Called by `mk_ipi_behind` for each instance that it finds, with the incarnation of that instance.
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
     * The CPU to ring if the sender names no other CPU; one of the listed CPUs.
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
     * The vector of its doorbell: 0x20 to 0xfe.
     */
    uint32_t vector;
    /**
     * Number of listed CPUs.
     */
    uint32_t nr_cpus;
    /**
     * Reserved: 0.
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
     * Reserved: 0.
     */
    uint32_t reserved;
};

/**
 * The same as `mk_ipi_destroy_instance`, for the host. Calls `has_stopped` with `ctx` for each life of a kernel that says that
 * it has the region mapped. If `has_stopped` returns 0, the result is -EBUSY. Otherwise this life is ignored. `has_stopped` must
 * return 0 if a CPU of this life may still run: the CPU could write into memory that has another owner by then. If `has_stopped`
 * is NULL, no life is ignored.
 *
 * Safety:
 * As `mk_ipi_identify`. `has_stopped` may be called with `ctx`, and does what its comment requires.
 */
int mk_ipi_destroy_stopped(struct mk_ipi *mk,
                           int id,
                           mk_ipi_has_stopped_callback_t has_stopped,
                           void *ctx);

/**
 * Empties every exclusive slot that the incarnation `incarnation` of the instance `dead` had claimed for a message. For the
 * host, after the CPUs of that incarnation have stopped for good.
 *
 * Returns the number of slots that it emptied; -EINVAL as `mk_ipi_identify`. Context: any but NMI. It reads all slots.
 *
 * Safety:
 * As `mk_ipi_identify`.
 */
int mk_ipi_clear_claims(struct mk_ipi *mk,
                        int dead,
                        uint32_t incarnation);

/**
 * Finds instances whose lanes in our native region say that they have this region mapped, and that they have not followed the
 * directory to `generation`. Such an instance can still ring a CPU, or use a region, that only an older generation named. The
 * host calls this before it gives a CPU or a region to another instance. Calls `callback`, unless it is NULL, with `ctx` for
 * each such instance. This kernel's own instance is never among them.
 *
 * A life that was killed is found too, because its lane in our region still says that it has the region mapped. Only the host
 * knows whether the CPUs of that life have stopped. Returns the number of instances found; -EINVAL if `mk` is not an instance of
 * the library, or has no native region of its own. Context: any but NMI. It reads all lanes.
 *
 * Safety:
 * As `mk_ipi_follow`.
 */
int mk_ipi_behind(struct mk_ipi *mk,
                  uint32_t generation,
                  mk_ipi_behind_callback_t callback,
                  void *ctx);

/**
 * Tells the life `incarnation` of an instance to stop at once. Only the host, instance 0, can do this: the instance ignores it
 * from other kernels.
 *
 * Returns 0; -EINVAL and -ESTALE as `mk_ipi_send`; -EINVAL also on RFC v2, and for incarnation 0; or the error of the doorbell.
 * Context: any but NMI.
 *
 * Safety:
 * As `mk_ipi_identify`.
 */
int mk_ipi_stop(struct mk_ipi *mk,
                int to,
                uint32_t incarnation);

/**
 * Returns how many bytes a directory needs for `nr_instances` entries (1 to 256), each with room for `cpus_per_instance` CPUs (1
 * to 1024); 0 if a number is out of bounds. Context: any.
 */
uint64_t mk_ipi_directory_size(uint32_t nr_instances,
                               uint32_t cpus_per_instance);

/**
 * Makes an empty directory in the `len` bytes at `memory`, and a writer for it. `memory` is 8-byte aligned, and no kernel reads
 * it yet. For the host.
 *
 * Returns 0; -EINVAL for null and misaligned pointers, counts out of bounds, or too few bytes. Context: any.
 *
 * Safety:
 * `writer` is NULL, or may be written. `memory` is NULL, or points to `len` bytes that stay mapped as long as the writer
 * is used.
 */
int mk_ipi_directory_create(struct mk_ipi_directory_writer *writer,
                            void *memory,
                            size_t len,
                            uint32_t nr_instances,
                            uint32_t cpus_per_instance);

/**
 * Makes a writer for the directory at `memory`, which a former life of the host made. The entries of the directory stay.
 *
 * Returns 0; -EINVAL for null and misaligned pointers, or too few bytes; -EPROTO if the memory holds no directory that this
 * library can read. Context: any.
 *
 * Safety:
 * As `mk_ipi_directory_create`. No other writer uses the directory any more.
 */
int mk_ipi_directory_take_over(struct mk_ipi_directory_writer *writer,
                               void *memory,
                               size_t len);

/**
 * Writes the physical address of the directory into the directory's header. From then on `mk_ipi_directory_write` refuses
 * regions that overlap the directory. Call it before any kernel reads the directory.
 *
 * Returns 0; -EINVAL for null and misaligned pointers, and for an address that is 0, not on a page boundary, or not below 2^52.
 * Context: any; one caller at a time.
 *
 * Safety:
 * `writer` is NULL, or points to a writer that `mk_ipi_directory_create` or `mk_ipi_directory_take_over` made.
 */
int mk_ipi_directory_set_address(struct mk_ipi_directory_writer *writer,
                                 uint64_t phys);

/**
 * Writes the physical id of the CPU that booted the machine into the directory's header. No kernel may stop that CPU. Call it
 * before any kernel reads the directory.
 *
 * Returns 0; -EINVAL for null and misaligned pointers, and for the id 2^64 - 1. Context: any; one caller at a time.
 *
 * Safety:
 * As `mk_ipi_directory_set_address`.
 */
int mk_ipi_directory_set_boot_cpu(struct mk_ipi_directory_writer *writer,
                                  uint64_t cpu);

/**
 * Writes the entry of `record->instance`. `cpus` points to the physical ids of its `record->nr_cpus` CPUs, at most as many as an
 * entry has room for. A reader gets either the old entry or the new one.
 *
 * Returns 0; -EBUSY if a CPU or the region belongs to another instance, and for a change that is not allowed while the instance
 * is live; -EPROTO if the entry of another instance cannot be read; -EINVAL for null and misaligned pointers, and for every
 * other conflict. After an error nothing was written, and `mk_ipi_directory_conflict` says why.
 *
 * After success `mk_ipi_directory_generation` returns the new generation. Pass it to `mk_ipi_behind`, which finds the instances
 * that have not followed the directory to this generation. Context: any; one caller at a time.
 *
 * Safety:
 * As `mk_ipi_directory_set_address`. `record` is NULL, or points to a record. `cpus` is NULL, or points to `record->nr_cpus`
 * ids.
 */
int mk_ipi_directory_write(struct mk_ipi_directory_writer *writer,
                           const struct mk_ipi_record *record,
                           const uint64_t *cpus);

/**
 * Stores in `*conflict` why the last `mk_ipi_directory_write` was refused; `MK_IPI_CONFLICT_NONE` if it was not refused.
 *
 * Returns 0; -EINVAL for null and misaligned pointers. Context: any; one caller at a time.
 *
 * Safety:
 * As `mk_ipi_directory_set_address`. `conflict` is NULL, or may be written.
 */
int mk_ipi_directory_conflict(struct mk_ipi_directory_writer *writer,
                              struct mk_ipi_conflict *conflict);

/**
 * Copies the entry of an instance from the directory at `memory`, and checks the copy. Stores the entry in `*record`, and the
 * physical ids of its CPUs in `cpus`, which has room for `room` ids. `record->nr_cpus` is the number of CPUs, at most
 * `MK_IPI_MAX_ENTRY_CPUS`. If `cpus` is NULL and `room` is 0, the CPUs are not copied.
 *
 * Returns 0; -EINVAL for null and misaligned pointers, for an id that is too large for this directory, and for too few bytes;
 * -EPROTO if the memory holds no directory that this library can read, and if the entry is invalid or lists more CPUs than
 * `room`; -ENODEV if the state of the entry is absent; -EAGAIN while the host changes the entry. After an error the content of
 * `cpus` is undefined. Context: any.
 *
 * Safety:
 * `memory` is NULL, or points to `len` bytes. `record` is NULL, or may be written. `cpus` is NULL, or has room for `room` ids.
 */
int mk_ipi_directory_read(const void *memory,
                          size_t len,
                          int instance,
                          struct mk_ipi_record *record,
                          uint64_t *cpus,
                          uint32_t room);

/**
 * Reads the generation of the directory at `memory`: a 32-bit number, which the host changes after each change of an entry.
 *
 * Returns the generation; -EINVAL and -EPROTO as `mk_ipi_directory_read`. Context: any.
 *
 * Safety:
 * `memory` is NULL, or points to `len` bytes.
 */
int64_t mk_ipi_directory_generation(const void *memory,
                                    size_t len);

/**
 * Stores in `*cpu` the physical id of the CPU that booted the machine. No kernel may stop this CPU.
 *
 * Returns 1; 0 if the directory does not contain that id, and then `*cpu` is unchanged; -EINVAL and -EPROTO as
 * `mk_ipi_directory_read`. Context: any.
 *
 * Safety:
 * `memory` is NULL, or points to `len` bytes. `cpu` is NULL, or may be written.
 */
int mk_ipi_directory_boot_cpu(const void *memory,
                              size_t len,
                              uint64_t *cpu);

/**
 * Checks in the directory at `memory` whether the instance is live and has the CPU with physical id `cpu`. The operation
 * `peer_has_cpu` can call it.
 *
 * Returns 1 if it has the CPU, otherwise 0. The result is also 0 if the directory has no such entry, or the entry is invalid.
 * Returns -EINVAL for null and misaligned pointers, an id that is not 0 to 255, or too few bytes; -EPROTO and -EAGAIN as
 * `mk_ipi_directory_read`. Context: any.
 *
 * Safety:
 * `memory` is NULL, or points to `len` bytes.
 */
int mk_ipi_directory_has_cpu(const void *memory,
                             size_t len,
                             int instance,
                             uint64_t cpu);

/**
 * Adds an instance with the description in an entry of the directory. A kernel that calls `mk_ipi_follow` does not need this
 * call. If the instance is in the table already, call `mk_ipi_destroy_instance` first.
 *
 * Returns as `mk_ipi_attach_instance`. Context: may sleep.
 *
 * Safety:
 * As `mk_ipi_identify`. `record` is NULL, or points to a record. `cpus` is NULL, or points to `record->nr_cpus` ids.
 */
int mk_ipi_attach_record(struct mk_ipi *mk,
                         const struct mk_ipi_record *record,
                         const uint64_t *cpus);

/* The size, the alignment and the offsets of each struct, as in the library. */
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
