// SPDX-License-Identifier: MIT OR Apache-2.0
//! Constants and structs of the header.

use core::ffi::{c_char, c_int, c_uint, c_void};
use mk_ipi_core::abi::directory::{EntryFlags, Layout, State, MAX_ENTRY_CPUS};
use mk_ipi_core::abi::{native, rfc_v2};

/// Largest payload of a message of generation RFC v2, in bytes.
pub const MK_MAX_DATA_SIZE: usize = 256;
/// Largest payload of a message on the native link, in bytes. A region can be made for shorter messages; the default is 256
/// bytes.
pub const MK_IPI_MAX_LEN: usize = 4096;
/// Largest number of messages that one call of `mk_ipi_post_many` or `mk_ipi_send_many` sends.
pub const MK_IPI_MAX_MANY: usize = 32;
/// Largest number of CPUs that a config or an entry of the directory can list for an instance.
pub const MK_IPI_MAX_ENTRY_CPUS: usize = 1024;
/// Largest number of instances that a machine can have. Their ids are 0 to 255.
pub const MK_MAX_INSTANCES: usize = 256;
/// Type of a message that carries a page frame number.
pub const MK_PFN_IPI_TYPE: u32 = 0x8000_0001;
/// The doorbell's vector in kernels with the Linux patch, on x86.
pub const MULTIKERNEL_VECTOR: u32 = 0xea;
/// Layout of a region: RFC v2. The region has a slot for each CPU of its kernel.
pub const MK_IPI_RFC_V2: u32 = 1;
/// Layout of a region: native link. The region has a lane for each sending instance.
pub const MK_IPI_NATIVE: u32 = 2;

/// State of an instance in the directory: absent. There is no instance with this id.
pub const MK_IPI_ABSENT: u32 = 0;
/// State of an instance in the directory: the host is starting it. Its region exists.
pub const MK_IPI_STARTING: u32 = 1;
/// State of an instance in the directory: it runs.
pub const MK_IPI_RUNNING: u32 = 2;
/// State of an instance in the directory: this incarnation has ended. Its region is kept for the next one.
pub const MK_IPI_DEAD: u32 = 3;
/// State of an instance in the directory: this incarnation has ended, and the host will free its region. Kernels that have the
/// region mapped must unmap it.
pub const MK_IPI_ENDING: u32 = 4;
/// Flag of an instance in the directory: its slots are exclusive. A sender does not overwrite an unread message.
pub const MK_IPI_EXCLUSIVE: u32 = 1;
/// Flag of an instance in the directory: it accepts its vector on the doorbell CPU only.
pub const MK_IPI_ONE_DOORBELL: u32 = 2;

/// Event: messages of the peer's life `incarnation` follow. All messages of its former lives have been delivered. Each life of
/// this kernel gets this event once for each life of the peer.
pub const MK_IPI_EVENT_BEGAN: u32 = 1;
/// Event: the peer has answered this life of ours. Until now sends could fail with -`MK_IPI_EAGAIN`, because the answer was
/// missing. They do not fail for this reason any more.
pub const MK_IPI_EVENT_ANSWERED: u32 = 2;
/// Event: the peer broke the protocol. Its messages are refused until it begins a new life or attaches again. `breach` is
/// set.
pub const MK_IPI_EVENT_QUARANTINED: u32 = 3;
/// Event: the peer says that this kernel broke the protocol. It accepts no more messages from this life of ours. `breach` is
/// set.
pub const MK_IPI_EVENT_REFUSED: u32 = 4;
/// Event: a life of the peer ended while it handled our message `number`. It is not known whether this message was handled. All
/// messages before it were handled, and no message after it.
pub const MK_IPI_EVENT_IN_DOUBT: u32 = 5;
/// Event: a new life of the peer has discarded our unread messages: those with a number above `after`, up to `number`. They were
/// not handled.
pub const MK_IPI_EVENT_DISCARDED: u32 = 6;
/// Event: our lane to the peer has the space that `mk_ipi_want_space` requested.
pub const MK_IPI_EVENT_SPACE: u32 = 7;
/// Event: the peer's heartbeat has stopped.
pub const MK_IPI_EVENT_SUSPECT: u32 = 8;
/// Event: the heartbeat of a suspect peer advances again.
pub const MK_IPI_EVENT_ALIVE: u32 = 9;
/// Event: the peer runs as `incarnation` and receives messages. Reported once for each life of the peer.
pub const MK_IPI_EVENT_UP: u32 = 10;
/// Event: the peer has ended its life `incarnation` with a goodbye (`mk_ipi_goodbye`).
pub const MK_IPI_EVENT_DEAD: u32 = 11;

/// Event: the link with the peer has ended, because this kernel destroyed the instance or because the region of the peer was
/// created again. It is not known whether our messages with a number above `after`, up to `number`, were handled.
pub const MK_IPI_EVENT_UNSETTLED: u32 = 12;
/// Event: what the peer wrote into its region contradicts what this kernel has read in the directory. The directory may have
/// changed: call `mk_ipi_follow`.
pub const MK_IPI_EVENT_READ_DIRECTORY: u32 = 13;

/// Change that `mk_ipi_follow` found: the instance is live in the directory, and was added to the table.
pub const MK_IPI_FOLLOWED_ADDED: u32 = 1;
/// Change that `mk_ipi_follow` found: the life, the state or the doorbell of the instance changed. Its region is the same.
pub const MK_IPI_FOLLOWED_CHANGED: u32 = 2;
/// Change that `mk_ipi_follow` found: the instance was removed from the table, because the directory does not list it any more,
/// or because its region ends or has changed. If it is live with another region, `MK_IPI_FOLLOWED_ADDED` follows.
pub const MK_IPI_FOLLOWED_REMOVED: u32 = 3;
/// Change that `mk_ipi_follow` found: the instance is live, but could not be added. `mk_ipi_follow` tries again after the next
/// change of the directory.
pub const MK_IPI_FOLLOWED_LEFT_OUT: u32 = 4;
/// Change that `mk_ipi_follow` found: the host considers this life of ours dead. Our own entry is not live, or names another
/// life.
pub const MK_IPI_FOLLOWED_TAKEN_FOR_DEAD: u32 = 5;

/// Conflict: none. The entry was not refused.
pub const MK_IPI_CONFLICT_NONE: u32 = 0;
/// Conflict: readers would refuse the entry, because a number in it is not allowed, or its region is invalid.
pub const MK_IPI_CONFLICT_ENTRY: u32 = 1;
/// Conflict: the entry has no CPU, or more CPUs than the directory has room for.
pub const MK_IPI_CONFLICT_NR_CPUS: u32 = 2;
/// Conflict: the doorbell CPU is not listed. `cpu` is its physical id.
pub const MK_IPI_CONFLICT_DOORBELL: u32 = 3;
/// Conflict: `cpu` is listed twice.
pub const MK_IPI_CONFLICT_CPU_TWICE: u32 = 4;
/// Conflict: `cpu` belongs to the live instance `instance`.
pub const MK_IPI_CONFLICT_CPU: u32 = 5;
/// Conflict: the region overlaps the region of `instance`.
pub const MK_IPI_CONFLICT_REGION: u32 = 6;
/// Conflict: the region overlaps the directory.
pub const MK_IPI_CONFLICT_ON_DIRECTORY: u32 = 7;
/// Conflict: `instance`, whose entry should be written, is live as `incarnation`. Until it is dead, its incarnation, region,
/// layout and flags cannot change, and it cannot become absent or ending.
pub const MK_IPI_CONFLICT_LIVE: u32 = 8;
/// Conflict: this incarnation of `instance` has ended, and cannot become live again. The next life needs another incarnation.
pub const MK_IPI_CONFLICT_OVER: u32 = 9;
/// Conflict: the entry of `instance` in the directory is invalid, so the new entry cannot be compared with it.
pub const MK_IPI_CONFLICT_UNREADABLE: u32 = 10;

/// A message of generation RFC v2. This is the layout in shared memory. Callbacks of `multikernel_register_handler` get a copy.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct mk_ipi_data {
    /// Physical id of the CPU that sent the message. The sender wrote it, and it is not checked. -1 if it does not fit.
    pub sender_cpu: c_int,
    /// The message type, by which handlers are chosen.
    pub r#type: c_uint,
    /// Bytes of payload.
    pub data_size: usize,
    /// The payload. The bytes after it are 0.
    pub buffer: [c_char; MK_MAX_DATA_SIZE],
}

/// A registration. It is a number, not an address. Only compare it with NULL, keep it, and pass it back.
#[derive(Debug)]
pub struct mk_ipi_handler {
    _never_made: (),
}

/// A callback of `multikernel_register_handler`. It is called in the deferred work, on the CPU that received the message, with no
/// lock held. `data` is a private copy, valid until the callback returns. The callback may send and register. It must not
/// unregister, and must not migrate. It is not called for messages above 256 bytes. Such messages exist only on the native link.
pub type mk_ipi_callback_t = Option<unsafe extern "C" fn(data: *mut mk_ipi_data, ctx: *mut c_void)>;

/// A message, as a callback of `mk_ipi_register` gets it. It is a private copy, valid until the callback returns.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct mk_ipi_message {
    /// The payload, 8-byte aligned; never NULL.
    pub payload: *const c_void,
    /// Bytes of payload: 0 to 4096.
    pub size: usize,
    /// The number of the message, which `mk_ipi_send` also gave to the sender; 0 on RFC v2.
    pub number: u64,
    /// The low 32 bits of the physical id of the sending CPU. The sender wrote them, and they are not checked.
    pub sender_cpu: u64,
    /// The message type.
    pub r#type: u32,
    /// The instance that sent the message. It follows from the lane; -1 on RFC v2, which has no lanes.
    pub sender: c_int,
    /// The incarnation of the sender that sent the message. The sender wrote it; 0 on RFC v2.
    pub sender_incarnation: u32,
    /// Our own incarnation, which receives the message; 0 on RFC v2.
    pub receiver_incarnation: u32,
}

/// One of several messages that one call sends.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct mk_ipi_payload {
    /// The payload, `size` bytes; may be NULL if `size` is 0.
    pub data: *const c_void,
    /// Bytes of payload.
    pub size: usize,
}

/// A callback of `mk_ipi_register`. It is called for messages of any size. Otherwise the same as `mk_ipi_callback_t`.
pub type mk_ipi_message_callback_t =
    Option<unsafe extern "C" fn(message: *const mk_ipi_message, ctx: *mut c_void)>;

/// The config of an instance: its description, which must be known before messages can be sent to the instance. Set unused fields
/// to 0.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct mk_ipi_instance {
    /// Physical ids of its CPUs that are known (on x86 APIC ids). They are checked when the instance is added, and are not
    /// stored.
    pub cpus: *const u64,
    /// The CPU to ring if the sender names no other CPU; one of `cpus`.
    pub doorbell_cpu: u64,
    /// Number of CPUs, 1 to `MK_IPI_MAX_ENTRY_CPUS`.
    pub nr_cpus: u32,
    /// The instance id, 0 to 255.
    pub id: c_int,
    /// Its incarnation, never 0.
    pub incarnation: u32,
    /// The vector of its doorbell: 0x20 to 0xfe.
    pub vector: u32,
    /// `MK_IPI_RFC_V2` or `MK_IPI_NATIVE`.
    pub layout: u32,
    /// RFC v2: number of slots in its region, the `NR_CPUS` of its kernel. The physical ids of all its CPUs are below this
    /// number.
    pub slots: u32,
    /// RFC v2: 1 if the receiver and all senders use mk-ipi. Then no unread message is overwritten. 0 if any of them has the code
    /// of the Linux patch.
    pub exclusive: u32,
    /// Native: number of lanes, 1 to 256. 0 means any number if the region is attached, and 16 if it is created.
    pub lanes: u32,
    /// Native: number of lines of 64 bytes in each lane. A power of two from 8 to 4096, large enough for the longest message; 0
    /// if `lanes` is 0. If both `lines` and `max_len` are 0, they have the default for this number of lanes.
    pub lines: u32,
    /// Native: largest payload of a message in bytes, 1 to 4096; 0 if `lines` is 0.
    pub max_len: u32,
    /// 1 if the instance accepts its vector on `doorbell_cpu` only. Then no other CPU can be the target of a message.
    pub one_doorbell: u32,
}

/// The description of an instance in the table.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct mk_ipi_instance_info {
    /// Physical address of its region; 0 if it has none.
    pub region_start: u64,
    /// Bytes of its region; 0 if it has none.
    pub region_len: u64,
    /// The CPU to ring if the sender names no other CPU.
    pub doorbell_cpu: u64,
    /// Its incarnation.
    pub incarnation: u32,
    /// `MK_IPI_RFC_V2` or `MK_IPI_NATIVE`; 0 if it has no region.
    pub layout: u32,
    /// RFC v2: 1 if its slots are exclusive.
    pub exclusive: u32,
    /// The vector of its doorbell.
    pub vector: u32,
    /// 1 if the instance accepts its vector on `doorbell_cpu` only.
    pub one_doorbell: u32,
    /// Reserved: 0.
    pub reserved: u32,
}

/// A range of physical memory.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct mk_ipi_range {
    /// Physical address of the first byte.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
}

/// An event: what happened to a peer, or to the link with it (native link only).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct mk_ipi_event {
    /// `IN_DOUBT`: the number of the message, as `mk_ipi_send` stored it. `DISCARDED`, `UNSETTLED`: the number of the last of
    /// these messages.
    pub number: u64,
    /// `DISCARDED`, `UNSETTLED`: the messages are those with a number above this one.
    pub after: u64,
    /// The peer's instance id.
    pub peer: c_int,
    /// An `MK_IPI_EVENT_` number.
    pub kind: u32,
    /// The incarnation of the peer; 0 if it is not known.
    pub theirs: u32,
    /// Our own incarnation.
    pub ours: u32,
    /// `BEGAN`, `UP` and `DEAD`: the incarnation of the peer that the event is about.
    pub incarnation: u32,
    /// `QUARANTINED` and `REFUSED`: how the protocol was broken. 1 = a line that is not allowed at this position, 2 = a length
    /// above `max_len`, 3 = an invalid hello.
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
    /// The CPU to ring if the sender names no other CPU; one of the listed CPUs.
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
    /// The vector of its doorbell: 0x20 to 0xfe.
    pub vector: u32,
    /// Number of listed CPUs.
    pub nr_cpus: u32,
    /// Reserved: 0.
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
    /// Reserved: 0.
    pub reserved: u32,
}

/// Called by `mk_ipi_follow` for each changed instance. `what` is an `MK_IPI_FOLLOWED_` number. `error` is the reason of
/// `LEFT_OUT`, as a negated error number; otherwise 0.
pub type mk_ipi_followed_callback_t =
    Option<unsafe extern "C" fn(instance: c_int, what: u32, error: c_int, ctx: *mut c_void)>;

/// Called by `mk_ipi_behind` for each instance that it finds, with the incarnation of that instance.
pub type mk_ipi_behind_callback_t =
    Option<unsafe extern "C" fn(instance: c_int, incarnation: u32, ctx: *mut c_void)>;

/// Called by `mk_ipi_destroy_stopped`. Returns whether the CPUs of this incarnation of the instance have stopped for good; 0 if
/// not.
pub type mk_ipi_has_stopped_callback_t =
    Option<unsafe extern "C" fn(instance: c_int, incarnation: u32, ctx: *mut c_void) -> c_int>;

/// Counters of an instance of the library, summed over the CPUs of the kernel. Each counter begins at 0 and wraps at 2^64.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct mk_ipi_stats {
    /// Messages stored. On RFC v2 a message whose doorbell did not ring is not counted here.
    pub sent: u64,
    /// Sends refused because the exclusive slot was occupied.
    pub busy: u64,
    /// Sends refused because the lane was full.
    pub full: u64,
    /// Sends refused for any other reason, and messages that were written but not published, because the host had cleared our
    /// claim on the slot.
    pub refused: u64,
    /// Doorbells on the native link that this kernel rang, or tried to ring. A send rings only if the receiver has requested it.
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
    /// Interrupts and polls that found a slot with a size that is neither a length nor a claim.
    pub bad_size: u64,
    /// Messages overwritten while they were read.
    pub overwritten: u64,
    /// Messages that were overwritten while they waited in their slot for room in the queue (not on exclusive slots).
    pub dropped: u64,
    /// Messages that were left in their slot because the queue was full or in use. They are taken later.
    pub left: u64,
    /// Interrupts that came while this kernel had no region of its own, and interrupts or polls on a CPU that has no slot in it.
    pub no_region: u64,
    /// Interrupts on a CPU whose index is not below `MK_IPI_MAX_CPUS`.
    pub beyond_cpus: u64,
    /// Lanes put into quarantine.
    pub quarantined: u64,
}

/// Statistics of our lane in a peer's region. The peer writes some of the values, and they are not checked.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct mk_ipi_lane_stats {
    /// The number of the last message that this life of ours sent; 0 if it has sent none.
    pub number: u64,
    /// How often a send found the lane full, in all lives of this kernel.
    pub full: u64,
    /// How often this kernel rang the peer for this lane, in all lives of this kernel.
    pub rung: u64,
    /// How many messages the peer has delivered to its handlers, in all lives of both kernels. The peer writes this value.
    pub received: u64,
    /// How often the peer accepted a new life or attachment of this kernel, plus how often the peer restarted. The peer writes
    /// this value.
    pub resets: u64,
    /// How often the peer put the lane into quarantine. The peer writes this value.
    pub bad: u64,
    /// The reason for the last quarantine, as in `breach` of `struct mk_ipi_event`; 0 if there was none. The peer writes this
    /// value.
    pub last_breach: u64,
}

// cbindgen needs the numbers above as literals. These assertions check that they are the numbers of the protocol.
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
