// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mk_ipi.console=link`: a kernel that serves sends its log to its host over the link (SPEC chapter K).
//!
//! The last 16 KiB of the log are kept here until the host listens.

use crate::arch::without_interrupts;
use crate::serve::SERVER;
use mk_ipi_abi::console::{ConsoleMessage, CONSOLE_TYPE};
use mk_ipi_abi::InstanceId;
use mk_ipi_core::Message;
use mk_ipi_services::console::{Log, Received, BYTES};
use spin::Mutex;

/// The number of bytes of the log that are kept until they are sent.
const KEPT: usize = 16 << 10;

static LOG: Mutex<Log<[u8; KEPT]>> = Mutex::new(Log::new([0; KEPT]));

/// Calls `f` with the log. Returns `None` if the log is in use already. As this kernel has one CPU, this only happens in an
/// exception, or if a send reports an event whose handler writes to the log.
fn with<R>(f: impl FnOnce(&mut Log<[u8; KEPT]>) -> R) -> Option<R> {
    without_interrupts(|| LOG.try_lock().map(|mut log| f(&mut log)))
}

/// Adds a line to the log, and sends as much of the log as possible.
pub fn write(line: &[u8]) {
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    let _ = with(|log| {
        log.write(text);
        log.write(b"\r\n");
    });
    go_on();
}

/// Sends the waiting part of the log, as far as the lane has room.
pub fn go_on() {
    let _ = with(|log| {
        let mut room = [0; BYTES + ConsoleMessage::HEADER];
        while let Some((payload, sent)) = log.next(&mut room) {
            // This can run in any context, also in a panic. `send_from_nmi` works in all of them.
            if SERVER.send_from_nmi(InstanceId::HOST, CONSOLE_TYPE, payload).is_err() {
                break;
            }
            log.sent(sent);
        }
    });
}

/// The handler of the host's console messages.
pub fn on_message(message: &Message<'_>) {
    let decoded = ConsoleMessage::decode(message.payload());
    let (Ok(decoded), Some(InstanceId::HOST)) = (decoded, message.sender()) else { return };
    let (Some(from), Some(me)) = (message.sender_incarnation(), message.receiver_incarnation()) else {
        return;
    };
    if with(|log| log.receive(&decoded, from, me)) == Some(Received::Listen) {
        go_on();
    }
}
