// SPDX-License-Identifier: MIT OR Apache-2.0
//! Channels, by which programs on two kernels exchange messages (SPEC chapter G). peer.c has the device files.
//!
//! A slot of the table is one channel to one peer. It exists while a file is bound to the channel, or a message of it is
//! still to be sent. A reset is an event of which a reader or writer is told by `ECONNRESET`: the peer has begun a new
//! life, or the peer's reader has changed and messages were lost.

use super::memory::Buffer;
use super::{ends, life_of, send, Unsent};
use crate::lock::SpinLocked;
use crate::platform::ENDPOINT;
use core::ffi::{c_int, c_uint};
use mk_ipi_core::abi::channel::{Body, ChannelMessage, CHANNEL_TYPE, MAX_MESSAGE, PART};
use mk_ipi_core::abi::{Errno, Incarnation, InstanceId};
use mk_ipi_core::sync::{AtomicU32, Ordering};
use mk_ipi_core::Message;
use mk_ipi_services::channel::{Inbox, Outbox, ReaderChange};

/// How many channels can be open at the same time. `MK_IPI_MAX_CHANNELS` in glue.h must be the same number.
pub const SLOTS: usize = 64;
/// Size in bytes of the buffer of a reader, for messages that it has not read yet.
const WINDOW: usize = 64 << 10;

const EAGAIN: Errno = Errno(11);
const EPIPE: Errno = Errno(32);
const EMSGSIZE: Errno = Errno(90);
const ECONNRESET: Errno = Errno(104);

/// Result of `poll`: `POLLIN` and `POLLRDNORM` (uapi/asm-generic/poll.h).
const READABLE: u32 = 0x0001 | 0x0040;
/// Result of `poll`: `POLLOUT` and `POLLWRNORM`.
const WRITABLE: u32 = 0x0004 | 0x0100;
/// Result of `poll`: `POLLERR` and `POLLHUP`.
const ENDED: u32 = 0x0008 | 0x0010;

/// A program's message that is being sent.
struct Outgoing {
    bytes: Buffer,
    len: usize,
    /// How many bytes of the message were sent.
    at: usize,
}

impl Outgoing {
    /// Returns whether a part of the message is still to be sent.
    fn is_under_way(&self) -> bool {
        self.at < self.len
    }
}

/// One channel to one peer.
struct Slot {
    /// The instance of the peer.
    peer: InstanceId,
    /// The number of the channel.
    number: u32,
    /// The peer's incarnation with which the channel works; `None` if none is known.
    life: Option<Incarnation>,
    /// True if the peer's life has ended.
    has_ended: bool,
    /// How many open files can write to the channel.
    writers: u32,
    /// The buffer for the message that is being sent. It exists after the first writer has been bound.
    outgoing: Option<Outgoing>,
    /// The state of the sending side.
    outbox: Outbox,
    /// True if the message `Ask` is still to be sent.
    owes_ask: bool,
    /// The state and buffer of the reading side, if a file reads.
    inbox: Option<Inbox<Buffer>>,
    /// How many messages in `inbox` arrived before the last reset.
    old: usize,
    /// The message that tells the peer that the reader has closed the channel, if it is still to be sent.
    closed: Option<Body<'static>>,
    /// How many resets there were of which the reader is told, and how many of which the writers are told.
    resets: [u32; 2],
    /// True if `poll` found no room for a message.
    waits: bool,
}

// SAFETY: no other `SpinLocked` has the number 1.
static SLOTS_OF_ALL: SpinLocked<[Option<Slot>; SLOTS]> =
    unsafe { SpinLocked::new(1, [const { None }; SLOTS]) };

/// The number of sessions that this kernel has begun in this life.
static READERS: AtomicU32 = AtomicU32::new(0);

/// Returns a new session number of a reader (SPEC G-3). It differs from all numbers of this life and of the life before,
/// if neither life begins more than 65,535 sessions.
fn new_session() -> u32 {
    let life = ENDPOINT.identity().map_or(1, |(_, life)| life.get());
    let number = READERS.fetch_add(1, Ordering::Relaxed) % 0xffff + 1;
    (life & 0xffff) << 16 | number
}

impl Slot {
    fn new(peer: InstanceId, number: u32) -> Self {
        Self {
            peer,
            number,
            life: life_of(peer).filter(|(_, goes_on)| *goes_on).map(|(life, _)| life),
            has_ended: life_of(peer).is_some_and(|(_, goes_on)| !goes_on),
            writers: 0,
            outgoing: None,
            outbox: Outbox::new(),
            owes_ask: false,
            inbox: None,
            old: 0,
            closed: None,
            resets: [0; 2],
            waits: false,
        }
    }

    fn is_of(&self, peer: InstanceId, number: u32) -> bool {
        self.peer == peer && self.number == number
    }

    /// Returns whether no file is bound to the channel, and no message is still to be sent.
    fn is_over(&self) -> bool {
        let is_under_way = self.outgoing.as_ref().is_some_and(Outgoing::is_under_way);
        let nobody = self.writers == 0 && self.inbox.is_none();
        nobody && (!is_under_way && self.closed.is_none() || self.has_ended)
    }

    /// Gives up the message that was being sent.
    fn give_up(&mut self) {
        if let Some(outgoing) = &mut self.outgoing {
            (outgoing.len, outgoing.at) = (0, 0);
        }
    }

    /// Called when the peer's life has ended.
    fn end(&mut self) {
        self.has_ended = true;
        self.give_up();
        self.outbox.ended();
        self.closed = None;
    }

    /// Called when the peer is up with the incarnation `life`. Returns whether the slot has changed.
    fn up(&mut self, life: Incarnation) -> bool {
        if self.life == Some(life) && !self.has_ended {
            return false;
        }
        let lived = self.life.is_some();
        (self.life, self.has_ended) = (Some(life), false);
        self.give_up();
        self.outbox.ended();
        self.closed = None;
        self.owes_ask = self.writers > 0;
        if lived {
            self.resets = self.resets.map(|n| n.wrapping_add(1));
        }
        if let Some(inbox) = &mut self.inbox {
            inbox.begin(new_session());
            self.old = if lived { inbox.messages() } else { 0 };
        }
        true
    }

    /// Sends one message of this channel. `to` is the incarnation of the peer that must handle it, if there is one.
    fn say(&self, to: Option<Incarnation>, body: Body<'_>) -> Result<(), Unsent> {
        let mut room = [0; ChannelMessage::HEADER];
        match (ChannelMessage { number: self.number, to, body }).encode(&mut room) {
            Some(payload) => send(self.peer, CHANNEL_TYPE, payload),
            None => Err(Unsent::Never),
        }
    }

    /// Sends all messages of this channel that are due, until the lane is full.
    fn pump(&mut self) {
        let Some(life) = self.life.filter(|_| !self.has_ended) else { return };
        if let Some(body) = self.closed {
            if self.say(Some(life), body).is_err() {
                return;
            }
            self.closed = None;
        }
        if self.owes_ask {
            if self.say(None, Body::Ask).is_err() {
                return;
            }
            self.owes_ask = false;
        }
        if let Some(body) = self.inbox.as_ref().and_then(Inbox::next) {
            if self.say(Some(life), body).is_err() {
                return;
            }
            if let Some(inbox) = &mut self.inbox {
                inbox.sent();
            }
        }
        self.send_parts();
    }

    fn send_parts(&mut self) {
        let Some(outgoing) = &mut self.outgoing else { return };
        let mut room = [0; PART + ChannelMessage::HEADER];
        let message = outgoing.bytes.as_ref().get(..outgoing.len).unwrap_or(&[]);
        while let Some((payload, behind)) = self.outbox.part(self.number, message, outgoing.at, &mut room) {
            if send(self.peer, CHANNEL_TYPE, payload).is_err() {
                break;
            }
            self.outbox.sent(outgoing.at, behind);
            outgoing.at = behind;
        }
    }

    /// Returns whether a program can now write a message of the largest length.
    fn takes(&self) -> bool {
        let is_full = super::news(self.peer).is_some_and(|news| news.is_full.load(Ordering::Acquire));
        let is_under_way = self.outgoing.as_ref().is_some_and(Outgoing::is_under_way);
        self.outbox.accepts(MAX_MESSAGE) && !is_full && !is_under_way
    }

    /// Begins to send a program's message, if this is possible now. Returns whether it has begun.
    fn begin(&mut self, message: &[u8]) -> bool {
        self.pump();
        let Some(outgoing) = &mut self.outgoing else { return false };
        if outgoing.is_under_way() || !self.outbox.accepts(message.len()) {
            return false;
        }
        outgoing.bytes.as_mut().iter_mut().zip(message).for_each(|(to, byte)| *to = *byte);
        (outgoing.len, outgoing.at) = (message.len(), 0);
        self.send_parts();
        let has_begun = self.outgoing.as_ref().is_some_and(|outgoing| outgoing.at > 0);
        if !has_begun {
            self.give_up();
        }
        has_begun
    }
}

/// Tells all channels which peers live, sends the messages that are due, wakes programs, and removes slots that are not
/// needed any more. Runs in process context.
pub fn run() {
    for index in 0..SLOTS {
        let (is_news, over) = SLOTS_OF_ALL.with(|slots| {
            let Some(place) = slots.get_mut(index) else { return (false, None) };
            let Some(slot) = place else { return (false, None) };
            let is_news = match life_of(slot.peer) {
                Some((life, true)) => slot.up(life),
                Some((_, false)) if !slot.has_ended => {
                    slot.end();
                    true
                }
                _ => false,
            };
            slot.pump();
            let has_room = slot.waits && slot.takes();
            slot.waits &= !has_room;
            (is_news || has_room, if slot.is_over() { place.take() } else { None })
        });
        // The slot is freed here, without the lock, because freeing it can sleep.
        drop(over);
        if is_news {
            super::tell_channel(index);
        }
    }
}

/// Removes all channels. No file may be open any more.
pub fn end() {
    for index in 0..SLOTS {
        drop(SLOTS_OF_ALL.with(|slots| slots.get_mut(index).and_then(Option::take)));
    }
}

/// The handler of channel messages.
pub fn on_message(message: &Message<'_>) {
    let (Some((id, from, me)), Ok(message)) = (ends(message), ChannelMessage::decode(message.payload()))
    else {
        return;
    };
    if message.to.is_some_and(|to| to != me) {
        return;
    }
    let found = SLOTS_OF_ALL.with(|slots| {
        let mut all = slots.iter_mut().enumerate();
        let (index, slot) = all.find_map(|(index, place)| {
            let slot = place.as_mut()?;
            slot.is_of(id, message.number).then_some((index, slot))
        })?;
        receive(slot, &message.body, from);
        slot.pump();
        Some(index)
    });
    match found {
        Some(index) => super::tell_channel(index),
        None if message.body == Body::Ask => {
            // This kernel has no reader of the channel. If there is no room for this answer, it can be left out: the sender
            // waits for a grant with or without it.
            let closed = Body::Closed { session: 0, read: 0 };
            let mut room = [0; ChannelMessage::HEADER];
            let answer = ChannelMessage { number: message.number, to: Some(from), body: closed };
            if let Some(payload) = answer.encode(&mut room) {
                let _ = send(id, CHANNEL_TYPE, payload);
            }
        }
        None => {}
    }
}

/// Handles a message of the peer's life `from`.
fn receive(slot: &mut Slot, body: &Body<'_>, from: Incarnation) {
    // If the life `from` is the known one and has ended, its messages are still read, and the slot stays ended.
    if slot.life != Some(from) {
        slot.up(from);
    }
    match body {
        Body::Ask => {
            if let Some(inbox) = &mut slot.inbox {
                inbox.asked(new_session());
            }
        }
        Body::Part { .. } => {
            if let Some(inbox) = &mut slot.inbox {
                inbox.receive(body);
            }
        }
        Body::Grant { .. } | Body::Closed { .. } => {
            let reader = slot.outbox.receive(body, from);
            if matches!(reader, ReaderChange::ChangedWithLoss | ReaderChange::Changed) {
                let was_under_way = slot.outgoing.as_ref().is_some_and(Outgoing::is_under_way);
                slot.give_up();
                if reader == ReaderChange::ChangedWithLoss || was_under_way {
                    let [_, writes] = &mut slot.resets;
                    *writes = writes.wrapping_add(1);
                }
            }
        }
    }
}

fn with<R>(index: c_uint, f: impl FnOnce(&mut Slot) -> R) -> Option<R> {
    SLOTS_OF_ALL.with(|slots| slots.get_mut(index as usize)?.as_mut().map(f))
}

/// Binds a file to a channel. Returns the index of the slot. `seen` is set to the numbers of resets so far, so that the
/// file does not get `ECONNRESET` for these.
fn bind(
    peer: InstanceId,
    number: u32,
    reads: bool,
    writes: bool,
    seen: &mut [u32; 2],
) -> Result<usize, Errno> {
    if ENDPOINT.identity().is_some_and(|(me, _)| me == peer) || ENDPOINT.instance(peer).is_err() {
        return Err(Errno::ENODEV);
    }
    // The buffers are allocated before the lock is taken, because this can sleep.
    let mut window = reads.then(|| Buffer::new(WINDOW).ok_or(Errno::ENOMEM)).transpose()?;
    let mut message = writes.then(|| Buffer::new(MAX_MESSAGE).ok_or(Errno::ENOMEM)).transpose()?;
    let bound = SLOTS_OF_ALL.with(|slots| {
        let same = slots.iter().position(|place| place.as_ref().is_some_and(|slot| slot.is_of(peer, number)));
        let index = same.or_else(|| slots.iter().position(Option::is_none)).ok_or(Errno::ENOSPC)?;
        let place = slots.get_mut(index).ok_or(Errno::ENOSPC)?;
        let slot = place.get_or_insert_with(|| Slot::new(peer, number));
        if reads && slot.inbox.is_some() {
            return Err(Errno::EBUSY);
        }
        if let Some(window) = window.take() {
            slot.inbox = Inbox::new(window, new_session());
            slot.old = 0;
        }
        if writes {
            slot.writers += 1;
            slot.owes_ask |= !slot.outbox.has_reader();
            if slot.outgoing.is_none() {
                slot.outgoing = message.take().map(|bytes| Outgoing { bytes, len: 0, at: 0 });
            }
        }
        *seen = slot.resets;
        slot.pump();
        Ok(index)
    });
    // Buffers that were not needed are freed here, without the lock.
    drop((window, message));
    bound
}

/// Called when a file is closed that was bound to the slot `index`.
fn unbind(index: c_uint, reads: bool, writes: bool) {
    let inbox = with(index, |slot| {
        slot.writers -= u32::from(writes);
        let inbox = if reads { slot.inbox.take() } else { None };
        let has_peer = slot.life.is_some() && !slot.has_ended;
        slot.closed = inbox.as_ref().filter(|_| has_peer).map(Inbox::closed);
        slot.pump();
        inbox
    });
    drop(inbox);
    let over = SLOTS_OF_ALL.with(|slots| {
        let place = slots.get_mut(index as usize)?;
        if place.as_ref().is_some_and(Slot::is_over) {
            place.take()
        } else {
            None
        }
    });
    drop(over);
}

/// Converts a result to the value that a system call returns.
fn to_c(done: Option<Result<usize, Errno>>) -> isize {
    match done {
        Some(Ok(count)) => count as isize,
        Some(Err(errno)) => errno.to_c() as isize,
        None => Errno::ENODEV.to_c() as isize,
    }
}

fn read(slot: &mut Slot, to: &mut [u8], seen: &mut u32) -> Result<usize, Errno> {
    let [resets, _] = slot.resets;
    let Some(inbox) = &mut slot.inbox else { return Err(Errno::ENODEV) };
    if *seen != resets && slot.old == 0 {
        *seen = resets;
        return Err(ECONNRESET);
    }
    match (inbox.len(), slot.has_ended) {
        (Some(len), _) if len > to.len() => Err(EMSGSIZE),
        (Some(_), _) => {
            let len = inbox.read(to).unwrap_or(0);
            slot.old = slot.old.saturating_sub(1);
            slot.pump();
            Ok(len)
        }
        (None, true) => Err(EPIPE),
        (None, false) => Err(EAGAIN),
    }
}

fn write(slot: &mut Slot, message: &[u8], seen: &mut u32) -> Result<usize, Errno> {
    let [_, resets] = slot.resets;
    if slot.has_ended {
        return Err(EPIPE);
    }
    if *seen != resets {
        *seen = resets;
        return Err(ECONNRESET);
    }
    if slot.begin(message) {
        Ok(message.len())
    } else {
        Err(EAGAIN)
    }
}

fn ready(slot: &mut Slot, seen: [u32; 2]) -> u32 {
    let [seen_read, seen_write] = seen;
    let [reads, writes] = slot.resets;
    let has_message = slot.inbox.as_ref().is_some_and(|inbox| !inbox.is_empty());
    let mut found = 0;
    if has_message || seen_read != reads || slot.has_ended {
        found |= READABLE;
    }
    if seen_write != writes || slot.has_ended || slot.takes() {
        found |= WRITABLE;
    } else {
        slot.waits = true;
    }
    if slot.has_ended {
        found |= ENDED;
    }
    found
}

#[no_mangle]
extern "C" fn mk_ipi_rs_peer_bind(
    peer: c_uint,
    number: u32,
    reads: bool,
    writes: bool,
    seen: *mut u32,
) -> c_int {
    // SAFETY: peer.c passes the two numbers of the file, whose lock it holds.
    let seen = unsafe { &mut *seen.cast::<[u32; 2]>() };
    bind(InstanceId::new(peer as u8), number, reads, writes, seen)
        .map_or_else(|e| e.to_c(), |index| index as c_int)
}

#[no_mangle]
extern "C" fn mk_ipi_rs_peer_unbind(index: c_uint, reads: bool, writes: bool) {
    unbind(index, reads, writes);
}

#[no_mangle]
extern "C" fn mk_ipi_rs_peer_read(index: c_uint, to: *mut u8, room: usize, seen: *mut u32) -> isize {
    // SAFETY: peer.c passes `room` bytes, and the two numbers of the file, whose lock it holds. The first number is the
    // reader's.
    let (to, seen) = unsafe { (core::slice::from_raw_parts_mut(to, room), &mut *seen) };
    to_c(with(index, |slot| read(slot, to, seen)))
}

#[no_mangle]
extern "C" fn mk_ipi_rs_peer_write(index: c_uint, from: *const u8, len: usize, seen: *mut u32) -> isize {
    // SAFETY: peer.c passes `len` bytes, and the two numbers of the file, whose lock it holds. The second number is the
    // writer's.
    let (from, seen) = unsafe { (core::slice::from_raw_parts(from, len), &mut *seen.add(1)) };
    to_c(with(index, |slot| write(slot, from, seen)))
}

#[no_mangle]
extern "C" fn mk_ipi_rs_peer_ready(index: c_uint, seen_read: u32, seen_write: u32) -> u32 {
    with(index, |slot| ready(slot, [seen_read, seen_write])).unwrap_or(ENDED)
}
