// SPDX-License-Identifier: MIT OR Apache-2.0
//! Terminals and logs (SPEC chapter K). tty.c has what Linux requires of a terminal and of a console.

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

/// Bytes that can wait to be sent, for each terminal.
const OUT: usize = 4 << 10;
/// Bytes that can wait to be read: what a kernel prints before a program reads it.
const KEPT: usize = 64 << 10;

type Lines = [Option<TerminalEnd<Buffer>>; MAX_INSTANCES];

// SAFETY: the only `SpinLocked` with 0.
static LINES: SpinLocked<Lines> = unsafe { SpinLocked::new(0, [const { None }; MAX_INSTANCES]) };

/// The life of the host that takes this kernel's log, 0 for none. And how many bytes of the log were sent or left out.
static LISTENER: AtomicU32 = AtomicU32::new(0);
static LOGGED: AtomicU64 = AtomicU64::new(0);
/// True if the console is registered.
static HAS_CONSOLE: AtomicBool = AtomicBool::new(false);

fn with<R>(id: InstanceId, f: impl FnOnce(&mut TerminalEnd<Buffer>) -> R) -> Option<R> {
    LINES.with(|lines| lines.get_mut(id.index())?.as_mut().map(f))
}

/// Makes lines to these peers, and removes all others. Runs in process context.
pub fn make(peers: u32) {
    for id in (0..MAX_INSTANCES as u8).map(InstanceId::new) {
        let is_there = with(id, |_| ()).is_some();
        let is_wanted = peers & 1 << id.index() != 0;
        if is_there == is_wanted {
            continue;
        }
        let new = if is_wanted { Buffer::new(OUT).zip(Buffer::new(KEPT)) } else { None };
        let line = new.map(|(out, kept)| TerminalEnd::new(out, kept));
        // It is freed here, where the code can sleep.
        drop(LINES.with(|lines| lines.get_mut(id.index()).and_then(|place| core::mem::replace(place, line))));
    }
}

/// Sends what `line` has to send, as far as there is room. Then its writers find room again.
fn pump(id: InstanceId, line: &mut TerminalEnd<Buffer>) {
    let mut room = [0; BYTES + ConsoleMessage::HEADER];
    while let Some((payload, sent)) = line.next(&mut room) {
        match send(id, CONSOLE_TYPE, payload) {
            Ok(()) => line.sent(sent),
            Err(Unsent::Later | Unsent::Never) => break,
        }
    }
}

/// Hands over what the reader takes, sends what there is to send, and wakes writers that have room now. Not called in
/// hard interrupt context.
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

/// Looks at all lines, in process context.
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
        // SAFETY: process context, called once; `end` undoes it.
        unsafe { ffi::mk_ipi_glue_console_start() };
    }
}

/// Removes the console, in process context.
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
    // A message from a kernel to which there is no line is ignored. Only a host can listen to this kernel's log.
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

/// Sends a piece of this kernel's log. Returns how many bytes were sent or left out; 0 if there is no room; less than 0
/// if no one listens. Can be called in any context.
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
        // It was sent, or the host takes nothing any more.
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
    // What no one takes is lost, as with a UART that is not connected.
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

/// How many bytes were lost before what comes next. They count as reported now.
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
