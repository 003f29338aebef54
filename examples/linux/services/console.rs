// SPDX-License-Identifier: MIT OR Apache-2.0
//! Terminals and logs (SPEC chapter K). tty.c is the part that Linux needs for a terminal and for a console.
//!
//! A line is the connection of one terminal to one peer.

use super::memory::Buffer;
use super::{ends, life_of, send, Unsent};
use crate::lock::SpinLocked;
use crate::peers::MAX_INSTANCES;
use crate::platform::ENDPOINT;
use crate::{ffi, role};
use core::ffi::{c_char, c_long, c_uint};
use mk_ipi_core::abi::console::{Body, ConsoleMessage, CONSOLE_TYPE};
use mk_ipi_core::abi::{Incarnation, InstanceId};
use mk_ipi_core::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use mk_ipi_core::Message;
use mk_ipi_services::console::{Received, TerminalEnd, BYTES};

/// Size in bytes of the buffer of a terminal for output that waits to be sent.
const OUT: usize = 4 << 10;
/// Size in bytes of the buffer of a terminal for input that no program has read yet. On the host this is the last output of
/// the other kernel.
const KEPT: usize = 64 << 10;

type Lines = [Option<TerminalEnd<Buffer>>; MAX_INSTANCES];

// SAFETY: no other `SpinLocked` has the number 0.
static LINES: SpinLocked<Lines> = unsafe { SpinLocked::new(0, [const { None }; MAX_INSTANCES]) };

/// The incarnation of the host that has asked for this kernel's log; 0 if none has.
static LISTENER: AtomicU32 = AtomicU32::new(0);
/// How many bytes of this kernel's log were sent, or dropped because they could not be sent.
static LOGGED: AtomicU64 = AtomicU64::new(0);
/// True if the console is registered.
static HAS_CONSOLE: AtomicBool = AtomicBool::new(false);

fn with<R>(id: InstanceId, f: impl FnOnce(&mut TerminalEnd<Buffer>) -> R) -> Option<R> {
    LINES.with(|lines| lines.get_mut(id.index())?.as_mut().map(f))
}

/// Makes a line to each of these peers (one bit each), and removes all other lines. Runs in process context.
pub fn make(peers: u32) {
    for id in (0..MAX_INSTANCES as u8).map(InstanceId::new) {
        let is_there = with(id, |_| ()).is_some();
        let is_wanted = peers & 1 << id.index() != 0;
        if is_there == is_wanted {
            continue;
        }
        let new = if is_wanted { Buffer::new(OUT).zip(Buffer::new(KEPT)) } else { None };
        let line = new.map(|(out, kept)| TerminalEnd::new(out, kept));
        // The old line is freed here, without the lock, because freeing it can sleep.
        drop(LINES.with(|lines| lines.get_mut(id.index()).and_then(|place| core::mem::replace(place, line))));
    }
}

/// Sends the messages that are due on `line`, until the lane is full. This makes room in the buffer for writers.
fn pump(id: InstanceId, line: &mut TerminalEnd<Buffer>) {
    let mut room = [0; BYTES + ConsoleMessage::HEADER];
    while let Some((payload, sent)) = line.next(&mut room) {
        match send(id, CONSOLE_TYPE, payload) {
            Ok(()) => line.sent(sent),
            Err(Unsent::Later | Unsent::Never) => break,
        }
    }
}

/// Passes the input of the terminal to its reader, sends its output, and wakes its writers if they have room now. Must not
/// be called in hard interrupt context.
pub fn serve(id: InstanceId) {
    // SAFETY: no lock is held.
    unsafe { ffi::mk_ipi_glue_tty_drain(id.get().into()) };
    let has_room = with(id, |line| {
        pump(id, line);
        line.has_made_room()
    });
    if has_room == Some(true) {
        // SAFETY: no lock is held.
        unsafe { ffi::mk_ipi_glue_tty_wake(id.get().into()) };
    }
}

/// Tells all lines which peers live, and serves them. Registers the console if the host has asked for the log. Runs in
/// process context.
pub fn run() {
    for id in (0..MAX_INSTANCES as u8).map(InstanceId::new) {
        with(id, |line| match life_of(id) {
            Some((life, true)) if line.peer() != Some(life) => _ = line.peer_up(life),
            Some((_, false)) => line.peer_down(),
            _ => {}
        });
        serve(id);
    }
    if LISTENER.load(Ordering::Acquire) != 0 && !HAS_CONSOLE.swap(true, Ordering::AcqRel) {
        // SAFETY: process context. It is called once, and `end` undoes it.
        unsafe { ffi::mk_ipi_glue_console_start() };
    }
}

/// Unregisters the console, if it is registered. Runs in process context.
pub fn end() {
    if HAS_CONSOLE.swap(false, Ordering::AcqRel) {
        // SAFETY: `run` registered it, and is not called any more.
        unsafe { ffi::mk_ipi_glue_console_stop() };
    }
}

/// The handler of console messages.
pub fn on_message(message: &Message<'_>) {
    let (Some((id, from, me)), Ok(message)) = (ends(message), ConsoleMessage::decode(message.payload()))
    else {
        return;
    };
    // A message from a kernel to which there is no line is ignored. Only the host can get this kernel's log.
    let Some(heard) = with(id, |line| line.receive(&message, from, me)) else { return };
    if heard == Received::Listen && role::is_joined() && id == InstanceId::HOST {
        let before = LISTENER.swap(from.get(), Ordering::AcqRel);
        if before != from.get() {
            super::have_work_done();
        }
    }
    if matches!(heard, Received::Bytes | Received::Listen) {
        with(id, |line| pump(id, line));
        super::tell_terminal(id);
    }
}

/// Sends the first bytes of a piece of this kernel's log. Returns how many bytes were sent or dropped, 0 if the lane is
/// full, and a negative number if no host has asked for the log. If `any_context` is true, it can be called in any
/// context, also in an NMI.
#[no_mangle]
extern "C" fn mk_ipi_rs_log(from: *const c_char, len: usize, any_context: bool) -> c_long {
    let Some(life) = Incarnation::new(LISTENER.load(Ordering::Acquire)) else { return -1 };
    // SAFETY: tty.c passes that many bytes.
    let bytes = unsafe { core::slice::from_raw_parts(from.cast::<u8>(), len.min(BYTES)) };
    let position = LOGGED.load(Ordering::Relaxed);
    let message = ConsoleMessage { to: Some(life), body: Body::Log { position, bytes } };
    let mut room = [0; BYTES + ConsoleMessage::HEADER];
    let Some(payload) = message.encode(&mut room) else { return -1 };
    let sent = if any_context {
        ENDPOINT.send_from_nmi(InstanceId::HOST, CONSOLE_TYPE, payload)
    } else {
        ENDPOINT.send(InstanceId::HOST, CONSOLE_TYPE, payload)
    };
    match sent {
        Err(e) if e.is_transient() => 0,
        // The bytes were sent, or are dropped because the host accepts no messages any more.
        _ => {
            LOGGED.store(position + bytes.len() as u64, Ordering::Relaxed);
            bytes.len() as c_long
        }
    }
}

fn of(id: c_uint) -> InstanceId {
    InstanceId::new(id as u8)
}

#[no_mangle]
extern "C" fn mk_ipi_rs_tty_write(id: c_uint, from: *const u8, len: usize) -> usize {
    // SAFETY: tty.c passes that many bytes.
    let bytes = unsafe { core::slice::from_raw_parts(from, len) };
    // If there is no line, the bytes are lost, as on a UART that is not connected.
    with(of(id), |line| {
        let count = line.write(bytes);
        pump(of(id), line);
        count
    })
    .unwrap_or(len)
}

#[no_mangle]
extern "C" fn mk_ipi_rs_tty_room(id: c_uint) -> c_uint {
    with(of(id), |line| line.room() as c_uint).unwrap_or(0)
}

#[no_mangle]
extern "C" fn mk_ipi_rs_tty_unsent(id: c_uint) -> c_uint {
    with(of(id), |line| line.unsent() as c_uint).unwrap_or(0)
}

#[no_mangle]
extern "C" fn mk_ipi_rs_tty_forget(id: c_uint) {
    with(of(id), TerminalEnd::clear_unsent);
}

#[no_mangle]
extern "C" fn mk_ipi_rs_tty_open(id: c_uint, is_open: bool) {
    with(of(id), |line| {
        line.set_reader(is_open);
        pump(of(id), line);
    });
}

/// Returns how many bytes were lost before the next byte of the input, and sets this count to 0.
#[no_mangle]
extern "C" fn mk_ipi_rs_tty_lost(id: c_uint) -> u64 {
    with(of(id), |line| {
        let lost = line.lost();
        line.clear_lost();
        lost
    })
    .unwrap_or(0)
}

#[no_mangle]
extern "C" fn mk_ipi_rs_tty_peek(id: c_uint, to: *mut u8, room: usize) -> usize {
    // SAFETY: tty.c passes that many bytes.
    let to = unsafe { core::slice::from_raw_parts_mut(to, room) };
    with(of(id), |line| line.peek(to)).unwrap_or(0)
}

#[no_mangle]
extern "C" fn mk_ipi_rs_tty_read(id: c_uint, len: usize) {
    with(of(id), |line| {
        line.read(len);
        pump(of(id), line);
    });
}
