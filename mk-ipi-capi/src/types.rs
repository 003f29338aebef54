// SPDX-License-Identifier: MIT OR Apache-2.0
//! Constants and structs of the header.

use core::ffi::{c_char, c_int, c_uint, c_void};
use mk_ipi_core::abi::directory::{EntryFlags, Layout, State, MAX_ENTRY_CPUS};
use mk_ipi_core::abi::{native, rfc_v2};

/// Most bytes of payload in one message of generation RFC v2.
pub const MK_MAX_DATA_SIZE: usize = 256;
/// Most bytes of payload in one message that a native region can be made for. The default is
/// 256.
pub const MK_IPI_MAX_LEN: usize = 4096;
/// Most messages that one call of `mk_ipi_post_many` or `mk_ipi_send_many` sends.
pub const MK_IPI_MAX_MANY: usize = 32;
/// Most CPUs that an instance can list, here and in the directory.
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

/// State of an instance in the directory: there is no instance with this id.
pub const MK_IPI_ABSENT: u32 = 0;
/// State: being started; its region exists.
pub const MK_IPI_STARTING: u32 = 1;
/// State: takes messages.
pub const MK_IPI_RUNNING: u32 = 2;
/// State: this incarnation has ended.
pub const MK_IPI_DEAD: u32 = 3;
/// State: this incarnation has ended, and its region will be freed. Kernels that have it mapped unmap it.
pub const MK_IPI_ENDING: u32 = 4;
/// Flag of an instance in the directory: exclusive slots.
pub const MK_IPI_EXCLUSIVE: u32 = 1;
/// Flag of an instance in the directory: its vector rings it at the doorbell CPU only.
pub const MK_IPI_ONE_DOORBELL: u32 = 2;

/// Event: messages of the peer's life `incarnation` follow. Messages of its former lives have been delivered. Reported once
/// in each life of ours.
pub const MK_IPI_EVENT_BEGAN: u32 = 1;
/// Event: the peer has answered this life of ours. Sends no longer return -`MK_IPI_EAGAIN` for this reason.
pub const MK_IPI_EVENT_ANSWERED: u32 = 2;
/// Event: the peer broke the protocol. Its messages are refused until it begins a new life or attaches again. `breach` is
/// set.
pub const MK_IPI_EVENT_QUARANTINED: u32 = 3;
/// Event: the peer says that we broke the protocol. It accepts nothing more from this life of ours. `breach`
/// is set.
pub const MK_IPI_EVENT_REFUSED: u32 = 4;
/// Event: a life of the peer ended while it handled our message `number`. This message may or may not have been handled. All
/// messages before it were handled, and none after it.
pub const MK_IPI_EVENT_IN_DOUBT: u32 = 5;
/// Event: a new life of the peer chose to discard our messages with a number above `after`, up to `number`. They were
/// not handled.
pub const MK_IPI_EVENT_DISCARDED: u32 = 6;
/// Event: our lane to the peer has the space that `mk_ipi_want_space` asked for.
pub const MK_IPI_EVENT_SPACE: u32 = 7;
/// Event: the peer's heartbeat has stopped.
pub const MK_IPI_EVENT_SUSPECT: u32 = 8;
/// Event: the heartbeat of a suspect peer advances again.
pub const MK_IPI_EVENT_ALIVE: u32 = 9;
/// Event: the peer's receiver runs, as `incarnation`.
pub const MK_IPI_EVENT_UP: u32 = 10;
/// Event: the peer said goodbye, as `incarnation`.
pub const MK_IPI_EVENT_DEAD: u32 = 11;

/// Event: the link with the peer ended: it was destroyed here, or its region was created again. It is not known whether
/// our messages with a number above `after`, up to `number`, were handled.
pub const MK_IPI_EVENT_UNSETTLED: u32 = 12;
/// Event: the peer's words contradict the directory as we know it. The directory may have changed: call
/// `mk_ipi_follow`.
pub const MK_IPI_EVENT_READ_DIRECTORY: u32 = 13;

/// `mk_ipi_follow`: the instance is new, and was added.
pub const MK_IPI_FOLLOWED_ADDED: u32 = 1;
/// `mk_ipi_follow`: the life, the state or the doorbell of the instance changed. Its region is the same.
pub const MK_IPI_FOLLOWED_CHANGED: u32 = 2;
/// `mk_ipi_follow`: the instance or its region is gone, and it was removed from the table.
pub const MK_IPI_FOLLOWED_REMOVED: u32 = 3;
/// `mk_ipi_follow`: the instance is live, but could not be added. `mk_ipi_follow` tries again after the next change of the
/// directory.
pub const MK_IPI_FOLLOWED_LEFT_OUT: u32 = 4;
/// `mk_ipi_follow`: the host treats this life of ours as dead: our own entry is not live, or names another life.
pub const MK_IPI_FOLLOWED_TAKEN_FOR_DEAD: u32 = 5;

/// Nothing was refused.
pub const MK_IPI_CONFLICT_NONE: u32 = 0;
/// Readers would refuse the entry: a number in it is not allowed, or its region is invalid.
pub const MK_IPI_CONFLICT_ENTRY: u32 = 1;
/// The entry has no CPU, or more CPUs than the directory has room for.
pub const MK_IPI_CONFLICT_NR_CPUS: u32 = 2;
/// The doorbell CPU, `cpu`, is not listed.
pub const MK_IPI_CONFLICT_DOORBELL: u32 = 3;
/// `cpu` is listed twice.
pub const MK_IPI_CONFLICT_CPU_TWICE: u32 = 4;
/// `cpu` belongs to the live instance `instance`.
pub const MK_IPI_CONFLICT_CPU: u32 = 5;
/// The region overlaps that of `instance`.
pub const MK_IPI_CONFLICT_REGION: u32 = 6;
/// The region overlaps the directory.
pub const MK_IPI_CONFLICT_ON_DIRECTORY: u32 = 7;
/// `instance`, the one to be written, is live as `incarnation`. Until it is dead, its incarnation, region and layout cannot
/// change.
pub const MK_IPI_CONFLICT_LIVE: u32 = 8;
/// This incarnation of `instance` has ended. Its next life needs another one.
pub const MK_IPI_CONFLICT_OVER: u32 = 9;
/// The entry of `instance`, which must be compared with the new one, cannot be read.
pub const MK_IPI_CONFLICT_UNREADABLE: u32 = 10;

/// A message of generation RFC v2, as it lies in shared memory and as callbacks of
/// `multikernel_register_handler` get it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct mk_ipi_data {
    /// Physical id of the CPU that sent, as the sender says; -1 if it does not fit.
    pub sender_cpu: c_int,
    /// The message type, by which handlers are chosen.
    pub r#type: c_uint,
    /// Bytes of payload.
    pub data_size: usize,
    /// The payload; after it zeros.
    pub buffer: [c_char; MK_MAX_DATA_SIZE],
}

/// A registration. It is a number, not an address. Only compare it with NULL, keep it, and pass it back.
#[derive(Debug)]
pub struct mk_ipi_handler {
    _never_made: (),
}

/// Called for a message of `multikernel_register_handler`: as deferred work, on the CPU that took the message, with no
/// lock held. `data` is a private copy, valid until the callback returns. The callback may send and register. It must not
/// unregister, and must not migrate. It is not called for messages above 256 bytes, which only a native region that was made
/// for them can carry.
pub type mk_ipi_callback_t = Option<unsafe extern "C" fn(data: *mut mk_ipi_data, ctx: *mut c_void)>;

/// A message as callbacks of `mk_ipi_register` get it: a private copy, valid until the callback returns.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct mk_ipi_message {
    /// The payload, 8-byte aligned; never NULL.
    pub payload: *const c_void,
    /// Bytes of payload: 0 to 4096.
    pub size: usize,
    /// The number that the sender got for it (`mk_ipi_send`); 0 on RFC v2.
    pub number: u64,
    /// The low 32 bits of the physical id of the sending CPU, as the sender says.
    pub sender_cpu: u64,
    /// The message type.
    pub r#type: u32,
    /// The instance that sent, proved by its lane; -1 on RFC v2, where nothing proves it.
    pub sender: c_int,
    /// Which life of the sender sent it, as that life says; 0 on RFC v2.
    pub sender_incarnation: u32,
    /// Our own life that receives it; 0 on RFC v2.
    pub receiver_incarnation: u32,
}

/// One of several messages that are sent by one call.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct mk_ipi_payload {
    /// The payload, `size` bytes; may be NULL if `size` is 0.
    pub data: *const c_void,
    /// Bytes of payload.
    pub size: usize,
}

/// Called for a message of `mk_ipi_register`; otherwise as `mk_ipi_callback_t`.
pub type mk_ipi_message_callback_t =
    Option<unsafe extern "C" fn(message: *const mk_ipi_message, ctx: *mut c_void)>;

/// What must be known of an instance before messages can be sent to it. Set unused fields to 0.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct mk_ipi_instance {
    /// Physical ids of its known CPUs (on x86 APIC ids). They are checked, and not stored.
    pub cpus: *const u64,
    /// The CPU that is rung if the sender names no other; one of `cpus`.
    pub doorbell_cpu: u64,
    /// Number of CPUs, 1 to `MK_IPI_MAX_ENTRY_CPUS`.
    pub nr_cpus: u32,
    /// The instance id, 0 to 255.
    pub id: c_int,
    /// Its incarnation, never 0.
    pub incarnation: u32,
    /// The vector to ring: 0x20 to 0xfe.
    pub vector: u32,
    /// `MK_IPI_RFC_V2` or `MK_IPI_NATIVE`.
    pub layout: u32,
    /// RFC v2: number of slots, the `NR_CPUS` of its kernel. The ids of all its CPUs are below it.
    pub slots: u32,
    /// RFC v2: 1 if the receiver and all senders are mk-ipi, so that no message is overwritten; 0 with C
    /// peers.
    pub exclusive: u32,
    /// Native: lanes, 1 to 256. 0: any number (attach), or 16 (create).
    pub lanes: u32,
    /// Native: lines of 64 bytes in each lane, a power of two from 8 to 4096, and enough for the longest
    /// message; 0 where `lanes` is 0. If both this and `max_len` are 0: the default for this number of lanes.
    pub lines: u32,
    /// Native: most bytes of a message, 1 to 4096; 0 where `lines` is 0.
    pub max_len: u32,
    /// 1 if the vector rings it at `doorbell_cpu` only. Then no other CPU can be the target.
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
    /// The CPU that is rung if the sender names no other.
    pub doorbell_cpu: u64,
    /// Its incarnation.
    pub incarnation: u32,
    /// `MK_IPI_RFC_V2`, `MK_IPI_NATIVE`, or 0 without a region.
    pub layout: u32,
    /// RFC v2: 1 if its slots are exclusive.
    pub exclusive: u32,
    /// The vector to ring.
    pub vector: u32,
    /// 1 if the vector rings it at `doorbell_cpu` only.
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

/// What happened to a peer, or to the link with it (native).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct mk_ipi_event {
    /// `IN_DOUBT`: the number of the message, as `mk_ipi_send` returned it. `DISCARDED`, `UNSETTLED`: the number of the last
    /// of these messages.
    pub number: u64,
    /// `DISCARDED`, `UNSETTLED`: the messages are those with a number above this one.
    pub after: u64,
    /// The peer's instance id.
    pub peer: c_int,
    /// An `MK_IPI_EVENT_` number.
    pub kind: u32,
    /// The peer's life; 0 if none is known.
    pub theirs: u32,
    /// Our own life.
    pub ours: u32,
    /// `BEGAN`, `UP` and `DEAD`: which life of the peer.
    pub incarnation: u32,
    /// `QUARANTINED` and `REFUSED`: 1 = a line that cannot be there, 2 = a length above `max_len`, 3 = an invalid
    /// hello.
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
    /// The CPU that is rung if the sender names no other; one of the listed CPUs.
    pub doorbell_cpu: u64,
    /// The instance id, 0 to 255.
    pub instance: c_int,
    /// Its incarnation, never 0.
    pub incarnation: u32,
    /// `MK_IPI_ABSENT`, `MK_IPI_STARTING`, `MK_IPI_RUNNING`, `MK_IPI_DEAD` or `MK_IPI_ENDING`.
    pub state: u32,
    /// `MK_IPI_RFC_V2` or `MK_IPI_NATIVE`.
    pub layout: u32,
    /// Any of `MK_IPI_EXCLUSIVE` and `MK_IPI_ONE_DOORBELL`, or 0.
    pub flags: u32,
    /// The vector to ring.
    pub vector: u32,
    /// Number of listed CPUs.
    pub nr_cpus: u32,
    /// 0.
    pub reserved: u32,
}

/// Why the host could not write an entry.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct mk_ipi_conflict {
    /// A CPU, if the reason names one; otherwise 0.
    pub cpu: u64,
    /// An `MK_IPI_CONFLICT_` number.
    pub why: u32,
    /// An instance, if the reason names one; otherwise -1.
    pub instance: c_int,
    /// `LIVE`: the incarnation that is live; otherwise 0.
    pub incarnation: u32,
    /// 0.
    pub reserved: u32,
}

/// Called by `mk_ipi_follow` for each changed instance. `what` is an `MK_IPI_FOLLOWED_` number. `error` is the reason of
/// `LEFT_OUT`, as a negated error number; otherwise 0.
pub type mk_ipi_followed_callback_t =
    Option<unsafe extern "C" fn(instance: c_int, what: u32, error: c_int, ctx: *mut c_void)>;

/// Called by `mk_ipi_behind` for an instance and its life.
pub type mk_ipi_behind_callback_t =
    Option<unsafe extern "C" fn(instance: c_int, incarnation: u32, ctx: *mut c_void)>;

/// Called by `mk_ipi_destroy_stopped`. Returns whether the CPUs of this life of the instance have stopped for good; 0 if not.
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
    /// Doorbells of the native link. Its other sends needed none.
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
    /// Interrupts without a region of our own, or on a CPU that has no slot in it.
    pub no_region: u64,
    /// Interrupts on a CPU whose index is not below `MK_IPI_MAX_CPUS`.
    pub beyond_cpus: u64,
    /// Lanes put into quarantine.
    pub quarantined: u64,
}

/// Statistics of our lane in a peer's region. Values from the peer are information only.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct mk_ipi_lane_stats {
    /// The number of the last message of this life; 0 if there was none.
    pub number: u64,
    /// Sends that found the lane full, in all lives.
    pub full: u64,
    /// Doorbells rung, in all lives.
    pub rung: u64,
    /// Messages that the peer delivered to its handlers, as it says, in all lives.
    pub received: u64,
    /// Lives of ours that the peer answered, plus its own restarts.
    pub resets: u64,
    /// How often the peer put the lane into quarantine.
    pub bad: u64,
    /// The reason for the last quarantine: a `breach` number, or 0.
    pub last_breach: u64,
}

// The numbers above are written out for the header. These assertions check that they are the numbers of the protocol.
const _: () = {
    assert!(MK_MAX_DATA_SIZE == rfc_v2::MK_MAX_DATA_SIZE && MK_MAX_INSTANCES == rfc_v2::MK_MAX_INSTANCES);
    assert!(MK_IPI_MAX_LEN == native::MAX_LEN);
    assert!(MK_PFN_IPI_TYPE == rfc_v2::MK_PFN_IPI_TYPE.0);
    assert!(MULTIKERNEL_VECTOR == rfc_v2::MULTIKERNEL_VECTOR.get() as u32);
    assert!(MK_IPI_RFC_V2 == Layout::RfcV2 as u32 && MK_IPI_NATIVE == Layout::Native as u32);
    assert!(MK_IPI_EXCLUSIVE == EntryFlags::EXCLUSIVE.bits());
    assert!(MK_IPI_ONE_DOORBELL == EntryFlags::ONE_DOORBELL.bits());
    assert!(MK_IPI_ABSENT == State::Absent as u32 && MK_IPI_STARTING == State::Starting as u32);
    assert!(MK_IPI_RUNNING == State::Running as u32 && MK_IPI_DEAD == State::Dead as u32);
    assert!(MK_IPI_ENDING == State::Ending as u32 && MK_IPI_MAX_ENTRY_CPUS == MAX_ENTRY_CPUS as usize);
    assert!(size_of::<mk_ipi_data>() == size_of::<rfc_v2::MkIpiData>());
    assert!(core::mem::offset_of!(mk_ipi_data, r#type) == 4);
    assert!(core::mem::offset_of!(mk_ipi_data, data_size) == rfc_v2::WORD_DATA_SIZE * 8);
    assert!(core::mem::offset_of!(mk_ipi_data, buffer) == rfc_v2::WORD_BUFFER * 8);
};
