// SPDX-License-Identifier: MIT OR Apache-2.0
//! A network interface for each peer on the native link (SPEC chapter E). net.c is the network device. This file makes and
//! reads the messages on the link, and decides when there is a carrier.
//!
//! An interface exists while its peer is in the endpoint's table. It keeps its addresses when the peer begins a new life.
//! A work item, which the tick queues, adds and removes interfaces.

use crate::callback::Callback;
use crate::failure::{failure, Result};
use crate::lock::Locked;
use crate::peers::MAX_INSTANCES;
use crate::platform::ENDPOINT;
use core::ffi::{c_int, c_ulong, c_void};
use kernel::prelude::*;
use mk_ipi_core::abi::directory::Layout;
use mk_ipi_core::abi::{InstanceId, MessageType};
use mk_ipi_core::platform::PeerEvent;
use mk_ipi_core::sync::{AtomicU32, Ordering, UnsafeCell};
use mk_ipi_core::{Handle, Message, SendError};
use mk_ipi_net::net::{
    Features, Key, Offer, Offload, MAX_FRAME, NET_CONTROL_TYPE, NET_FRAME_TYPE, NET_PART_TYPE,
};
use mk_ipi_net::{CarrierChange, FrameAssembler, FrameError, FrameSplitter, Piece, Port};

/// The largest number of control messages that one call of `say` sends, so that a peer cannot keep the call from ending.
const CONTROLS: usize = 4;

/// `struct virtio_net_hdr`, little endian.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Header {
    flags: u8,
    gso_type: u8,
    hdr_len: u16,
    gso_size: u16,
    csum_start: u16,
    csum_offset: u16,
}

// net.c.
extern "C" {
    fn mk_ipi_net_lock(id: u8) -> c_ulong;
    fn mk_ipi_net_unlock(id: u8, flags: c_ulong);
    fn mk_ipi_net_queue_follow();
    fn mk_ipi_net_end_follow();
    fn mk_ipi_net_add(id: u8, me: u8) -> c_int;
    fn mk_ipi_net_remove(id: u8);
    fn mk_ipi_net_keep(id: u8, msg_type: u32, epoch: u32, from: *const c_void, len: u32);
    fn mk_ipi_net_bad(id: u8);
    fn mk_ipi_net_news(id: u8);
    fn mk_ipi_net_begin(id: u8, len: u32, offload: *const Header);
    fn mk_ipi_net_put(id: u8, at: u32, from: *const c_void, len: u32);
    fn mk_ipi_net_end(id: u8);
    fn mk_ipi_net_drop(id: u8);
}

/// This kernel's end of an interface. The peer's lock (`mk_ipi_net_lock`) guards it.
struct End {
    port: Port,
    /// How often the interface was set up.
    openings: u16,
    /// A number that grows when an incomplete frame must be given up. All messages of a frame have the same epoch.
    epoch: u32,
    /// True if the carrier was lost since NAPI asked last.
    lost: bool,
}

/// The frame that is being received. Only NAPI uses it.
struct In {
    gather: FrameAssembler,
    epoch: u32,
}

/// The frame that is being sent. The lock of the transmit queue guards it.
struct Out {
    cut: Option<FrameSplitter>,
    piece: Option<Piece>,
    number: u32,
}

/// A value that a lock in C guards, or that only NAPI uses.
struct Behind<T>(UnsafeCell<T>);
// SAFETY: code that accesses the value holds its lock (`with_end`, `with_out`), or is the interface's NAPI, which never
// runs twice at a time.
unsafe impl<T: Send> Sync for Behind<T> {}

static ENDS: [Behind<End>; MAX_INSTANCES] =
    [const { Behind(UnsafeCell::new(End { port: Port::new(), openings: 0, epoch: 0, lost: false })) };
        MAX_INSTANCES];

static INS: [Behind<In>; MAX_INSTANCES] =
    [const { Behind(UnsafeCell::new(In { gather: FrameAssembler::new(), epoch: 0 })) }; MAX_INSTANCES];

static OUTS: [Behind<Out>; MAX_INSTANCES] =
    [const { Behind(UnsafeCell::new(Out { cut: None, piece: None, number: 0 })) }; MAX_INSTANCES];

/// Calls `f` with this kernel's end of the interface to `id`, while its lock is held and interrupts are off. `f` must not
/// send messages, because a send can report an event, and `on_event` takes the same lock.
fn with_end<R>(id: InstanceId, f: impl FnOnce(&mut End) -> R) -> Option<R> {
    let end = ENDS.get(id.index())?;
    // SAFETY: each end has its own lock. It is released below.
    let flags = unsafe { mk_ipi_net_lock(id.get()) };
    // SAFETY: the lock is held.
    let result = end.0.with_mut(|end| f(unsafe { &mut *end }));
    // SAFETY: taken above.
    unsafe { mk_ipi_net_unlock(id.get(), flags) };
    Some(result)
}

/// Calls `f` with the frame that is sent to `id`.
///
/// # Safety
///
/// The queue's lock is held.
unsafe fn with_out<R>(id: u8, f: impl FnOnce(&mut Out) -> R) -> Option<R> {
    // SAFETY: the caller promises it.
    OUTS.get(usize::from(id)).map(|out| out.0.with_mut(|out| f(unsafe { &mut *out })))
}

/// Calls `f` to change this kernel's end, makes NAPI apply the change to the device, and sends the control messages that are
/// due.
fn change(id: InstanceId, f: impl FnOnce(&mut End) -> CarrierChange) {
    with_end(id, |end| {
        let changed = f(end);
        if changed.lost {
            end.epoch = end.epoch.wrapping_add(1);
            end.lost = true;
        }
        if changed.lost || changed.gained {
            // SAFETY: the lock is held.
            unsafe { mk_ipi_net_news(id.get()) };
        }
    });
    say(id);
}

/// Sends the control messages to `id` that are due, at most `CONTROLS`. Messages that cannot be sent now are sent by a later
/// tick.
fn say(id: InstanceId) {
    for _ in 0..CONTROLS {
        let Some(Some(message)) = with_end(id, |end| end.port.begin_send()) else { return };
        let sent = ENDPOINT.send(id, NET_CONTROL_TYPE, &message.encode());
        let was_sent = matches!(sent, Ok(_) | Err(SendError::NotRung(_)));
        if with_end(id, |end| end.port.end_send(was_sent)) != Some(true) {
            return;
        }
    }
}

/// Called for each event of a peer. Interrupts can be off.
pub fn on_event(id: InstanceId, event: PeerEvent) {
    match event {
        PeerEvent::Up(life) => change(id, |end| end.port.peer_is_up(life)),
        PeerEvent::Began(life) => change(id, |end| {
            end.epoch = end.epoch.wrapping_add(1);
            end.port.peer_is_up(life)
        }),
        PeerEvent::Suspect => change(id, |end| end.port.peer_is_suspect(true)),
        PeerEvent::Alive => change(id, |end| end.port.peer_is_suspect(false)),
        PeerEvent::Dead(life) => change(id, |end| end.port.peer_is_gone(Some(life))),
        PeerEvent::Quarantined(_) | PeerEvent::Refused(_) | PeerEvent::Unsettled { .. } => {
            change(id, |end| end.port.peer_is_gone(None));
        }
        PeerEvent::Space | PeerEvent::Answered => {
            // SAFETY: the lock is held.
            with_end(id, |_| unsafe { mk_ipi_net_news(id.get()) });
            say(id);
        }
        PeerEvent::InDoubt { .. } | PeerEvent::Discarded { .. } | PeerEvent::ReadDirectory => {}
    }
}

/// Called when the host has killed the kernel of `id`.
pub fn on_kill(id: InstanceId) {
    change(id, |end| end.port.peer_is_gone(None));
}

fn on_control(message: &Message<'_>) {
    let Some(id) = message.sender() else { return };
    let life = message.sender_incarnation();
    change(id, |end| {
        let heard = end.port.receive(life, message.payload());
        // A message that is invalid or has another version is only counted. The carrier does not change.
        heard.unwrap_or_else(|_| {
            // SAFETY: the lock is held.
            unsafe { mk_ipi_net_bad(id.get()) };
            CarrierChange::default()
        })
    });
}

/// Stores a message with a part of a frame, for NAPI. Runs in interrupt context.
fn on_frame(message: &Message<'_>) {
    let Some(id) = message.sender() else { return };
    let payload = message.payload();
    // SAFETY: the lock is held, and the payload exists until the call returns.
    with_end(id, |end| unsafe {
        let (msg_type, from) = (message.msg_type().0, payload.as_ptr().cast());
        mk_ipi_net_keep(id.get(), msg_type, end.epoch, from, payload.len() as u32);
    });
}

/// Handles a message that `on_frame` has stored: adds its part to the frame that is being received.
///
/// # Safety
///
/// Only NAPI of the interface may call this. `message` has `len` bytes.
#[no_mangle]
unsafe extern "C" fn mk_ipi_rs_net_take(id: u8, msg_type: u32, epoch: u32, message: *const u8, len: u32) {
    let ours = with_end(InstanceId::new(id), |end| end.port.ours().copied()).flatten();
    // SAFETY: the caller promises it.
    let payload = unsafe { core::slice::from_raw_parts(message, len as usize) };
    let Some(place) = INS.get(usize::from(id)) else { return };
    // SAFETY: NAPI never runs twice at a time (the caller promises it).
    place.0.with_mut(|place| unsafe {
        let In { gather, epoch: of_gather } = &mut *place;
        if *of_gather != epoch {
            *of_gather = epoch;
            gather.reset();
            mk_ipi_net_drop(id);
        }
        match gather.take(ours.as_ref(), MessageType(msg_type), payload) {
            Ok(taken) => {
                if let Some((len, offload)) = taken.begins {
                    mk_ipi_net_begin(id, len, &Header::of(offload));
                }
                mk_ipi_net_put(id, taken.at, taken.bytes.as_ptr().cast(), taken.bytes.len() as u32);
                if taken.is_whole {
                    mk_ipi_net_end(id);
                }
            }
            Err(FrameError::Closed | FrameError::Stale(_)) => {}
            Err(_) => {
                mk_ipi_net_bad(id);
                mk_ipi_net_drop(id);
            }
        }
    });
}

/// `struct mk_net_peer`.
#[repr(C)]
struct Peer {
    lost: bool,
    carrier: bool,
    takes: u32,
    max_frame: u32,
}

/// Writes to `peer` whether there is a carrier to `id`, what the other end supports, and whether the carrier was lost since
/// the last call.
///
/// # Safety
///
/// `peer` can be written.
#[no_mangle]
unsafe extern "C" fn mk_ipi_rs_net_peer(id: u8, peer: *mut Peer) {
    let (lost, theirs) =
        with_end(InstanceId::new(id), |end| (core::mem::replace(&mut end.lost, false), end.port.carrier()))
            .unwrap_or((false, None));
    let (takes, max_frame) = theirs.map_or((0, 0), |theirs| (theirs.features.bits(), theirs.max_frame));
    // SAFETY: the caller promises it.
    unsafe { peer.write(Peer { lost, carrier: theirs.is_some(), takes, max_frame }) };
}

impl Header {
    fn of(offload: Offload) -> Self {
        let Offload { flags, gso_type, hdr_len, gso_size, csum_start, csum_offset } = offload;
        Self { flags, gso_type, hdr_len, gso_size, csum_start, csum_offset }
    }

    fn offload(self) -> Offload {
        let Self { flags, gso_type, hdr_len, gso_size, csum_start, csum_offset } = self;
        Offload { flags, gso_type, hdr_len, gso_size, csum_start, csum_offset }
    }
}

/// Called when the interface to `id` is set up.
#[no_mangle]
extern "C" fn mk_ipi_rs_net_open(id: u8) {
    let Some((me, life)) = ENDPOINT.identity() else { return };
    change(InstanceId::new(id), |end| {
        end.openings = end.openings.wrapping_add(1);
        let mac = [0x02, 0x6d, 0x6b, 0, me.get(), id];
        let key = Key::of(life, end.openings);
        end.epoch = end.epoch.wrapping_add(1);
        end.port.open(Offer { key, features: Features::all(), max_frame: MAX_FRAME, mac })
    });
}

/// Called when the interface to `id` is set down.
#[no_mangle]
extern "C" fn mk_ipi_rs_net_close(id: u8) {
    change(InstanceId::new(id), |end| end.port.close());
}

/// Begins to send a frame of `len` bytes. Returns 0, or a negative error number if the frame cannot be sent.
///
/// # Safety
///
/// The lock of the transmit queue is held, and `offload` points to a header.
#[no_mangle]
unsafe extern "C" fn mk_ipi_rs_net_begin(id: u8, len: u32, offload: *const Header) -> c_int {
    const ENOTCONN: c_int = -107;
    const EINVAL: c_int = -22;
    let to = InstanceId::new(id);
    let Some(Some(theirs)) = with_end(to, |end| end.port.carrier()) else { return ENOTCONN };
    let max = ENDPOINT.instance(to).ok().and_then(|to| to.geometry()).map_or(0, |g| g.max_len());
    // SAFETY: the caller promises it.
    let offload = unsafe { *offload }.offload();
    let begun = |out: &mut Out| {
        out.number = out.number.wrapping_add(1);
        out.cut = FrameSplitter::new(&theirs, out.number, len, offload, max).ok();
        if out.cut.is_some() {
            0
        } else {
            EINVAL
        }
    };
    // SAFETY: the caller promises it.
    unsafe { with_out(id, begun) }.unwrap_or(EINVAL)
}

/// Writes the head of the next message of the frame to `message`. Stores in `*at` and `*len` which bytes of the frame the
/// message must contain after the head. Returns the length of the head, or 0 if there is no further message.
///
/// # Safety
///
/// The lock of the transmit queue is held. `message` has room for `MK_NET_MESSAGE` bytes, and `at` and `len` can be written.
#[no_mangle]
unsafe extern "C" fn mk_ipi_rs_net_next(id: u8, message: *mut u8, at: *mut u32, len: *mut u32) -> u32 {
    let next = |out: &mut Out| {
        out.piece = out.cut.as_ref().and_then(FrameSplitter::next);
        let piece = out.piece.as_ref()?;
        let head = piece.head.as_bytes();
        // SAFETY: the caller promises it.
        unsafe {
            message.copy_from_nonoverlapping(head.as_ptr(), head.len());
            (*at, *len) = (piece.at, piece.len);
        }
        Some(head.len() as u32)
    };
    // SAFETY: the caller promises it.
    unsafe { with_out(id, next) }.flatten().unwrap_or(0)
}

/// Sends the message that `mk_ipi_rs_net_next` has begun. Returns 0 if it was sent. Returns 1 if there is no space for it
/// now; then `mk_ipi_net_news` is called when there is space. Returns a negative error number if it cannot be sent.
///
/// # Safety
///
/// The lock of the transmit queue is held, and `message` has `len` bytes.
#[no_mangle]
unsafe extern "C" fn mk_ipi_rs_net_post(id: u8, message: *const u8, len: u32) -> c_int {
    const NO_SPACE: c_int = 1;
    let to = InstanceId::new(id);
    // SAFETY: the caller promises it.
    let (message, piece) = unsafe {
        let message = core::slice::from_raw_parts(message, len as usize);
        (message, with_out(id, |out| out.piece).flatten())
    };
    let Some(piece) = piece else { return 0 };
    loop {
        match ENDPOINT.post(to, piece.msg_type, message) {
            Ok(_) => break,
            Err(SendError::Contended) => {}
            Err(e) if e.is_transient() => match ENDPOINT.want_space(to, message.len()) {
                Ok(true) => {}
                Ok(false) => return NO_SPACE,
                Err(e) => return e.errno().to_c(),
            },
            Err(e) => return e.errno().to_c(),
        }
    }
    let sent = |out: &mut Out| {
        if let Some(cut) = &mut out.cut {
            cut.sent(&piece);
        }
    };
    // SAFETY: the caller promises it.
    unsafe { with_out(id, sent) };
    0
}

/// Rings the doorbell of `id`, if it must be rung for the messages that were sent.
#[no_mangle]
extern "C" fn mk_ipi_rs_net_flush(id: u8) {
    // If the doorbell cannot be rung, the peer finds the messages with its next tick.
    let _ = ENDPOINT.flush(InstanceId::new(id));
}

/// The interfaces that exist: one bit for each peer. `None` if no interface may be added.
// SAFETY: no other `Locked` has the number 8.
static MADE: Locked<Option<u32>> = unsafe { Locked::new(8, None) };
/// A copy of the value of `MADE`, which the tick reads without the lock.
static SEEN: AtomicU32 = AtomicU32::new(0);

/// The peers that must have an interface: one bit for each.
fn wanted() -> u32 {
    let Some((me, _)) = ENDPOINT.identity() else { return 0 };
    let is_native =
        |id: &InstanceId| ENDPOINT.instance(*id).is_ok_and(|i| i.layout() == Some(Layout::Native));
    let peers = (0..MAX_INSTANCES as u8).map(InstanceId::new).filter(|id| *id != me);
    peers.filter(is_native).fold(0, |all, id| all | 1 << id.get())
}

/// Queues the work item if peers were added or removed. Sends the control messages that could not be sent before. Runs in
/// process context.
pub fn tick() {
    if wanted() != SEEN.load(Ordering::Relaxed) {
        // SAFETY: process context. `drop` waits for the work item.
        unsafe { mk_ipi_net_queue_follow() };
    }
    (0..MAX_INSTANCES as u8).map(InstanceId::new).for_each(say);
}

/// The work item. Adds the interfaces of new peers, and removes the interfaces of peers that were removed.
#[no_mangle]
extern "C" fn mk_ipi_rs_net_follow(_: *mut c_void) {
    MADE.with(|made| {
        let (Some(made), Some((me, _))) = (made, ENDPOINT.identity()) else { return };
        let wanted = wanted();
        for id in (0..MAX_INSTANCES as u8).filter(|id| (wanted ^ *made) & 1 << id != 0) {
            if wanted & 1 << id != 0 {
                add(id, me.get());
            } else {
                remove(id);
            }
        }
        *made = wanted;
        SEEN.store(wanted, Ordering::Relaxed);
    });
}

/// Adds an interface. If that fails, there is no interface until the instance is removed and made again. Messages on the link
/// still work.
fn add(id: u8, me: u8) {
    // SAFETY: process context, one caller at a time, and the interface does not exist.
    let e = unsafe { mk_ipi_net_add(id, me) };
    if e != 0 {
        pr_err!("the interface mk{id} cannot be added: error {}\n", -e);
    }
}

fn remove(id: u8) {
    // SAFETY: process context, one caller at a time. The call does nothing if there is no such interface.
    unsafe { mk_ipi_net_remove(id) };
    with_end(InstanceId::new(id), |end| end.port = Port::new());
}

/// The interfaces and the handlers of their messages. Dropping this removes them.
pub struct Net([Option<Handle>; 3]);

impl Net {
    /// Registers the handlers. After this the work item can add interfaces.
    pub fn new() -> Result<Self> {
        let mut net = Self([const { None }; 3]);
        let wanted: [(MessageType, fn(&Message<'_>)); 3] =
            [(NET_CONTROL_TYPE, on_control), (NET_FRAME_TYPE, on_frame), (NET_PART_TYPE, on_frame)];
        for (place, (ty, call)) in net.0.iter_mut().zip(wanted) {
            let handle = ENDPOINT.register(ty, Callback::Rust(call));
            *place = Some(handle.map_err(|e| failure!(ENOMEM, "no handler for type {:#x}: {e:?}", ty.0))?);
        }
        MADE.with(|made| *made = Some(0));
        Ok(net)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let made = MADE.with(Option::take).unwrap_or(0);
        // SAFETY: process context.
        unsafe { mk_ipi_net_end_follow() };
        for id in (0..MAX_INSTANCES as u8).filter(|id| made & 1 << id != 0) {
            remove(id);
        }
        for handle in self.0.iter().flatten() {
            if let Err(e) = ENDPOINT.unregister(*handle) {
                pr_err!("a handler cannot be removed: {e:?}\n");
            }
        }
    }
}
