// SPDX-License-Identifier: MIT OR Apache-2.0
//! Constants and structs of the header.

use core::ffi::{c_char, c_int, c_uint, c_void};
use mk_ipi_core::abi::directory::{EntryFlags, Layout, State, MAX_ENTRY_CPUS};
use mk_ipi_core::abi::{native, rfc_v2, Errno};

/// Most bytes of payload in one message of generation RFC v2.
pub const MK_MAX_DATA_SIZE: usize = 256;
/// Most bytes of payload in one message of a native region that was made for such; unless its maker said
/// otherwise, they are 256.
pub const MK_IPI_MAX_LEN: usize = 4096;
/// Messages that one call of `mk_ipi_post_many` or `mk_ipi_send_many` sends at most.
pub const MK_IPI_MAX_MANY: usize = 32;
/// CPUs that an instance can list at most, here and in the directory.
pub const MK_IPI_MAX_ENTRY_CPUS: usize = 1024;
/// Instances that a machine can have: ids are 0 to 255.
pub const MK_MAX_INSTANCES: usize = 256;
/// Type of a message that carries a page frame number.
pub const MK_PFN_IPI_TYPE: u32 = 0x8000_0001;
/// Vector of the RFC v2 C peers on x86.
pub const MULTIKERNEL_VECTOR: u32 = 0xea;
/// Layout of a region: generation RFC v2, a slot for each CPU.
pub const MK_IPI_RFC_V2: u32 = 1;
/// Layout of a region: the native link, a lane for each sending instance.
pub const MK_IPI_NATIVE: u32 = 2;

/// No such CPU or address. Calls return these numbers negated.
pub const MK_IPI_ENXIO: c_int = 6;
/// Try again.
pub const MK_IPI_EAGAIN: c_int = 11;
/// Out of memory, or a table is full.
pub const MK_IPI_ENOMEM: c_int = 12;
/// The kernel does not allow it.
pub const MK_IPI_EACCES: c_int = 13;
/// In use.
pub const MK_IPI_EBUSY: c_int = 16;
/// There already.
pub const MK_IPI_EEXIST: c_int = 17;
/// No region, no pool, or no default instance of the library.
pub const MK_IPI_ENODEV: c_int = 19;
/// Invalid argument.
pub const MK_IPI_EINVAL: c_int = 22;
/// The lane is full.
pub const MK_IPI_ENOSPC: c_int = 28;
/// A number does not fit.
pub const MK_IPI_ERANGE: c_int = 34;
/// Waiting here would wait for oneself.
pub const MK_IPI_EDEADLK: c_int = 35;
/// Not a protocol, or a version of it, that this side speaks.
pub const MK_IPI_EPROTO: c_int = 71;
/// The handle or instance is of a former life.
pub const MK_IPI_ESTALE: c_int = 116;

/// State of an instance in the directory: none has this id.
pub const MK_IPI_ABSENT: u32 = 0;
/// State: being started; its region exists.
pub const MK_IPI_STARTING: u32 = 1;
/// State: takes messages.
pub const MK_IPI_RUNNING: u32 = 2;
/// State: that incarnation is over.
pub const MK_IPI_DEAD: u32 = 3;
/// State: that incarnation is over, and its region is about to go. Whoever has it mapped lets go of it.
pub const MK_IPI_ENDING: u32 = 4;
/// Flag of an instance in the directory: exclusive slots.
pub const MK_IPI_EXCLUSIVE: u32 = 1;
/// Flag of an instance in the directory: its vector is good at the doorbell CPU alone.
pub const MK_IPI_ONE_DOORBELL: u32 = 2;

/// Event: messages of the peer's life `incarnation` follow; those of former ones have been delivered. Once
/// for each life of ours.
pub const MK_IPI_EVENT_BEGAN: u32 = 1;
/// Event: the peer has answered this life of ours: sends return -`MK_IPI_EAGAIN` for that no more.
pub const MK_IPI_EVENT_ANSWERED: u32 = 2;
/// Event: the peer broke the protocol, and nothing is taken from it until it begins anew. `breach` is set.
pub const MK_IPI_EVENT_QUARANTINED: u32 = 3;
/// Event: the peer holds that we broke the protocol, and takes nothing more from this life of ours. `breach`
/// is set.
pub const MK_IPI_EVENT_REFUSED: u32 = 4;
/// Event: a life of the peer ended while it handled our message `number`: perhaps it was handled. All before
/// it were, none behind it.
pub const MK_IPI_EVENT_IN_DOUBT: u32 = 5;
/// Event: a new life of the peer gave back, unhandled, our messages with a number above `after`, up to
/// `number`, as it wished to.
pub const MK_IPI_EVENT_DISCARDED: u32 = 6;
/// Event: there is space in the peer's lane, as `mk_ipi_want_space` asked.
pub const MK_IPI_EVENT_SPACE: u32 = 7;
/// Event: the peer's heartbeat stands still.
pub const MK_IPI_EVENT_SUSPECT: u32 = 8;
/// Event: the heartbeat of a suspect peer beats again.
pub const MK_IPI_EVENT_ALIVE: u32 = 9;
/// Event: the peer's receiver lives, as `incarnation`.
pub const MK_IPI_EVENT_UP: u32 = 10;
/// Event: the peer said goodbye, as `incarnation`.
pub const MK_IPI_EVENT_DEAD: u32 = 11;

/// Event: the link with the peer ended: it was destroyed here, or its region was made anew. Whether our messages
/// with a number above `after`, up to `number`, were handled is not known.
pub const MK_IPI_EVENT_UNSETTLED: u32 = 12;
/// Event: the peer says what the directory does not explain: it may have changed. Call `mk_ipi_follow`.
pub const MK_IPI_EVENT_READ_DIRECTORY: u32 = 13;

/// `mk_ipi_follow`: the instance came, and was added.
pub const MK_IPI_FOLLOWED_ADDED: u32 = 1;
/// `mk_ipi_follow`: the instance is another life, or is rung elsewhere; its region is the same.
pub const MK_IPI_FOLLOWED_CHANGED: u32 = 2;
/// `mk_ipi_follow`: the instance went, or its region did, and was taken out of the table.
pub const MK_IPI_FOLLOWED_REMOVED: u32 = 3;
/// `mk_ipi_follow`: the instance is live, and could not be added. It is tried again when the directory has changed
/// once more.
pub const MK_IPI_FOLLOWED_LEFT_OUT: u32 = 4;
/// The host takes this life of ours for dead: our own entry is not live, or another life's.
pub const MK_IPI_FOLLOWED_TAKEN_FOR_DEAD: u32 = 5;

/// Nothing was refused.
pub const MK_IPI_CONFLICT_NONE: u32 = 0;
/// Readers would refuse the entry: a number of it that is not allowed, or a region that is none.
pub const MK_IPI_CONFLICT_ENTRY: u32 = 1;
/// No CPU, or more than the directory has room for.
pub const MK_IPI_CONFLICT_NR_CPUS: u32 = 2;
/// The doorbell CPU, `cpu`, is not listed.
pub const MK_IPI_CONFLICT_DOORBELL: u32 = 3;
/// `cpu` is listed twice.
pub const MK_IPI_CONFLICT_CPU_TWICE: u32 = 4;
/// `cpu` is one of the live instance `instance` too.
pub const MK_IPI_CONFLICT_CPU: u32 = 5;
/// The region lies on that of `instance`.
pub const MK_IPI_CONFLICT_REGION: u32 = 6;
/// The region lies on the directory.
pub const MK_IPI_CONFLICT_ON_DIRECTORY: u32 = 7;
/// `instance`, the one to be written, is live as `incarnation`: until it is dead it keeps that, its region and
/// what that speaks.
pub const MK_IPI_CONFLICT_LIVE: u32 = 8;
/// That incarnation of `instance` is over: its next life has another one.
pub const MK_IPI_CONFLICT_OVER: u32 = 9;
/// The entry of `instance`, with which this one is compared, cannot be read.
pub const MK_IPI_CONFLICT_UNREADABLE: u32 = 10;

/// A message of generation RFC v2, as it lies in shared memory and as callbacks of
/// `multikernel_register_handler` get it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct mk_ipi_data {
    /// Physical id of the CPU that sent, as the sender says; -1 if it does not fit.
    pub sender_cpu: c_int,
    /// What the message is: handlers are chosen by it.
    pub r#type: c_uint,
    /// Bytes of payload.
    pub data_size: usize,
    /// The payload; zeros behind it.
    pub buffer: [c_char; MK_MAX_DATA_SIZE],
}

/// A registration. It is a number and points nowhere: compare it with NULL, keep it, give it back, no more.
#[derive(Debug)]
pub struct mk_ipi_handler {
    _never_made: (),
}

/// Called for a message of `multikernel_register_handler`: as deferred work, on the CPU that took it, with no
/// lock held. `data` is a private copy, valid until the callback returns. May send and register; may not
/// unregister, must not migrate. It does not see messages above 256 bytes, which only a native region that
/// was made for such carries.
pub type mk_ipi_callback_t = Option<unsafe extern "C" fn(data: *mut mk_ipi_data, ctx: *mut c_void)>;

/// A message as callbacks of `mk_ipi_register` get it: a private copy, valid until the callback returns.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct mk_ipi_message {
    /// The payload, 8-byte aligned; never NULL.
    pub payload: *const c_void,
    /// Bytes of payload: 0 to 4096.
    pub size: usize,
    /// The number that the sender knows it by (`mk_ipi_send`); 0 on RFC v2.
    pub number: u64,
    /// Physical id of the CPU that sent, as the sender says, cut to 32 bits.
    pub sender_cpu: u64,
    /// What the message is.
    pub r#type: u32,
    /// The instance that sent, proved by its lane; -1 on RFC v2, where nothing proves it.
    pub sender: c_int,
    /// Which life of the sender sent it, as that life says; 0 on RFC v2.
    pub sender_incarnation: u32,
    /// Which life of ours receives it; 0 on RFC v2.
    pub receiver_incarnation: u32,
}

/// One of several messages that are sent by one call.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct mk_ipi_payload {
    /// `size` bytes; may be NULL if there are none.
    pub data: *const c_void,
    /// How many.
    pub size: usize,
}

/// Called for a message of `mk_ipi_register`; otherwise as `mk_ipi_callback_t`.
pub type mk_ipi_message_callback_t =
    Option<unsafe extern "C" fn(message: *const mk_ipi_message, ctx: *mut c_void)>;

/// What is to be known of an instance before messages can go to it. Set to 0 what is not used.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct mk_ipi_instance {
    /// CPUs that it is known to have, by physical id (on x86 the APIC id). They are checked, not kept.
    pub cpus: *const u64,
    /// The CPU that is rung unless another is named; one of `cpus`.
    pub doorbell_cpu: u64,
    /// How many CPUs: 1 to `MK_IPI_MAX_ENTRY_CPUS`.
    pub nr_cpus: u32,
    /// Who: 0 to 255.
    pub id: c_int,
    /// Which life of it; never 0.
    pub incarnation: u32,
    /// The vector to ring: 0x20 to 0xfe.
    pub vector: u32,
    /// `MK_IPI_RFC_V2` or `MK_IPI_NATIVE`.
    pub layout: u32,
    /// RFC v2: slots, the `NR_CPUS` of its kernel. Each of its CPUs is below it.
    pub slots: u32,
    /// RFC v2: 1 if the receiver and all senders are mk-ipi, so that no message is overwritten; 0 with C
    /// peers.
    pub exclusive: u32,
    /// Native: lanes, 1 to 256, or 0 for whatever there is (attach) or 16 (create).
    pub lanes: u32,
    /// Native: lines of 64 bytes of each lane, a power of two from 8 to 4096, and at least those of the longest
    /// message; 0 where `lanes` is 0. 0 and a `max_len` of 0: the default for so many lanes.
    pub lines: u32,
    /// Native: most bytes of a message, 1 to 4096; 0 where `lines` is 0.
    pub max_len: u32,
    /// 1 if the vector is good at `doorbell_cpu` alone: then no other CPU can be named as the target.
    pub one_doorbell: u32,
}

/// What is known of an instance.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct mk_ipi_instance_info {
    /// Physical address of its region; 0 if it has none.
    pub region_start: u64,
    /// Bytes of its region; 0 if it has none.
    pub region_len: u64,
    /// The CPU that is rung unless another is named.
    pub doorbell_cpu: u64,
    /// Which life of it.
    pub incarnation: u32,
    /// `MK_IPI_RFC_V2`, `MK_IPI_NATIVE`, or 0 without a region.
    pub layout: u32,
    /// RFC v2: 1 if its slots are exclusive.
    pub exclusive: u32,
    /// The vector to ring.
    pub vector: u32,
    /// 1 if the vector is good at `doorbell_cpu` alone.
    pub one_doorbell: u32,
    /// 0.
    pub reserved: u32,
}

/// A piece of physical memory.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct mk_ipi_range {
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub len: u64,
}

/// What became of a peer, or of the link with it (native).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct mk_ipi_event {
    /// `IN_DOUBT`: which message, by the number that `mk_ipi_send` gave. `DISCARDED`, `UNSETTLED`: the last one of
    /// them.
    pub number: u64,
    /// `DISCARDED`, `UNSETTLED`: the number behind which they begin.
    pub after: u64,
    /// The peer's instance id.
    pub peer: c_int,
    /// An `MK_IPI_EVENT_` number.
    pub kind: u32,
    /// The peer's life; 0 if none has been heard of.
    pub theirs: u32,
    /// Our own life.
    pub ours: u32,
    /// `BEGAN`, `UP` and `DEAD`: which life of the peer.
    pub incarnation: u32,
    /// `QUARANTINED` and `REFUSED`: 1 a line that cannot be there, 2 a length above `max_len`, 3 a hello without
    /// sense.
    pub breach: u32,
}

/// An entry of the directory.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct mk_ipi_record {
    /// Physical address of the region, page-aligned; 0 if it has none.
    pub region_start: u64,
    /// Bytes of the region; 0 if it has none.
    pub region_len: u64,
    /// The CPU that is rung unless another is named; one of those listed.
    pub doorbell_cpu: u64,
    /// Who: 0 to 255.
    pub instance: c_int,
    /// Which life of it; never 0.
    pub incarnation: u32,
    /// `MK_IPI_ABSENT`, `MK_IPI_STARTING`, `MK_IPI_RUNNING`, `MK_IPI_DEAD` or `MK_IPI_ENDING`.
    pub state: u32,
    /// `MK_IPI_RFC_V2` or `MK_IPI_NATIVE`.
    pub layout: u32,
    /// `MK_IPI_EXCLUSIVE` and `MK_IPI_ONE_DOORBELL`, each or not.
    pub flags: u32,
    /// The vector to ring.
    pub vector: u32,
    /// How many CPUs are listed.
    pub nr_cpus: u32,
    /// 0.
    pub reserved: u32,
}

/// Why the host could not write an entry.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct mk_ipi_conflict {
    /// A CPU, where the reason names one; else 0.
    pub cpu: u64,
    /// An `MK_IPI_CONFLICT_` number.
    pub why: u32,
    /// An instance, where the reason names one; else -1.
    pub instance: c_int,
    /// `LIVE`: which life of it is live; else 0.
    pub incarnation: u32,
    /// 0.
    pub reserved: u32,
}

/// Called by `mk_ipi_follow` for each instance of which the directory says something new: `what` is an
/// `MK_IPI_FOLLOWED_` number; `error`, for `LEFT_OUT`, says why, as a negated error number, else it is 0.
pub type mk_ipi_followed_callback_t =
    Option<unsafe extern "C" fn(instance: c_int, what: u32, error: c_int, ctx: *mut c_void)>;

/// Called by `mk_ipi_behind` for an instance and its life.
pub type mk_ipi_behind_callback_t =
    Option<unsafe extern "C" fn(instance: c_int, incarnation: u32, ctx: *mut c_void)>;

/// Asked by `mk_ipi_destroy_stopped`: whether the CPUs of that life of the instance have stopped for good; 0 if not.
pub type mk_ipi_has_stopped_callback_t =
    Option<unsafe extern "C" fn(instance: c_int, incarnation: u32, ctx: *mut c_void) -> c_int>;

/// Counters of an instance of the library, summed over its CPUs. Each counts from 0 and wraps at 2^64.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct mk_ipi_stats {
    /// Messages stored.
    pub sent: u64,
    /// Sends refused because the exclusive slot was occupied.
    pub busy: u64,
    /// Sends refused because the lane was full.
    pub full: u64,
    /// Sends refused for any other reason.
    pub refused: u64,
    /// Doorbells of the native link; its other sends were suppressed.
    pub rung: u64,
    /// Messages stored whose doorbell did not ring.
    pub not_rung: u64,
    /// Calls of `mk_ipi_interrupt`.
    pub interrupts: u64,
    /// Messages copied out of shared memory.
    pub received: u64,
    /// Messages given to at least one handler.
    pub handled: u64,
    /// Messages for whose type no handler was registered.
    pub unhandled: u64,
    /// Interrupts and polls that found an empty slot.
    pub empty: u64,
    /// Slots found with a size that is neither message nor claim.
    pub bad_size: u64,
    /// Messages overwritten while they were read.
    pub overwritten: u64,
    /// Messages dropped because the queue was full.
    pub dropped: u64,
    /// Messages left in their exclusive slot because the queue was full, and taken later.
    pub left: u64,
    /// Interrupts without a region of our own, or on a CPU that it has no slot for.
    pub no_region: u64,
    /// Interrupts on a CPU whose index is not below `MK_IPI_MAX_CPUS`.
    pub beyond_cpus: u64,
    /// Lanes put into quarantine.
    pub quarantined: u64,
}

/// Our lane in a peer's region, in numbers. What the peer says informs, and decides nothing.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct mk_ipi_lane_stats {
    /// The number of the last message of this life; 0 if there was none.
    pub number: u64,
    /// Sends that found the lane full, in all lives.
    pub full: u64,
    /// Doorbells rung, in all lives.
    pub rung: u64,
    /// Messages that the peer says it handed on, in all lives.
    pub received: u64,
    /// Lives of ours that the peer answered, and restarts of its own.
    pub resets: u64,
    /// How often the peer put the lane into quarantine.
    pub bad: u64,
    /// Why it did so last: a `breach` number, or 0.
    pub last_breach: u64,
}

// The header's numbers are written out; these say that they are those of the protocol.
const _: () = {
    assert!(MK_MAX_DATA_SIZE == rfc_v2::MK_MAX_DATA_SIZE && MK_MAX_INSTANCES == rfc_v2::MK_MAX_INSTANCES);
    assert!(MK_IPI_MAX_LEN == native::MAX_LEN);
    assert!(MK_PFN_IPI_TYPE == rfc_v2::MK_PFN_IPI_TYPE.0);
    assert!(MULTIKERNEL_VECTOR == rfc_v2::MULTIKERNEL_VECTOR.get() as u32);
    assert!(MK_IPI_RFC_V2 == Layout::RfcV2 as u32 && MK_IPI_NATIVE == Layout::Native as u32);
    assert!(MK_IPI_ENXIO == Errno::ENXIO.0 && MK_IPI_EAGAIN == Errno::EAGAIN.0);
    assert!(MK_IPI_ENOMEM == Errno::ENOMEM.0 && MK_IPI_EACCES == Errno::EACCES.0);
    assert!(MK_IPI_EBUSY == Errno::EBUSY.0 && MK_IPI_EEXIST == Errno::EEXIST.0);
    assert!(MK_IPI_ENODEV == Errno::ENODEV.0 && MK_IPI_EINVAL == Errno::EINVAL.0);
    assert!(MK_IPI_ENOSPC == Errno::ENOSPC.0 && MK_IPI_ERANGE == Errno::ERANGE.0);
    assert!(MK_IPI_EDEADLK == Errno::EDEADLK.0 && MK_IPI_EPROTO == Errno::EPROTO.0);
    assert!(MK_IPI_ESTALE == Errno::ESTALE.0 && MK_IPI_EXCLUSIVE == EntryFlags::EXCLUSIVE.bits());
    assert!(MK_IPI_ONE_DOORBELL == EntryFlags::ONE_DOORBELL.bits());
    assert!(MK_IPI_ABSENT == State::Absent as u32 && MK_IPI_STARTING == State::Starting as u32);
    assert!(MK_IPI_RUNNING == State::Running as u32 && MK_IPI_DEAD == State::Dead as u32);
    assert!(MK_IPI_ENDING == State::Ending as u32 && MK_IPI_MAX_ENTRY_CPUS == MAX_ENTRY_CPUS as usize);
    assert!(size_of::<mk_ipi_data>() == size_of::<rfc_v2::MkIpiData>());
    assert!(core::mem::offset_of!(mk_ipi_data, r#type) == 4);
    assert!(core::mem::offset_of!(mk_ipi_data, data_size) == rfc_v2::WORD_DATA_SIZE * 8);
    assert!(core::mem::offset_of!(mk_ipi_data, buffer) == rfc_v2::WORD_BUFFER * 8);
};
