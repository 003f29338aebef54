// SPDX-License-Identifier: MIT OR Apache-2.0
//! The log of a kernel that serves, sent to its host over the link (SPEC chapter K): `mk_ipi.console=link`.
//!
//! Lines wait here until the host listens, the last 16 KiB of them.

use crate::arch::without_interrupts;
use crate::serve::SERVER;
use mk_ipi_abi::console::{ConsoleMessage, CONSOLE_TYPE};
use mk_ipi_abi::InstanceId;
use mk_ipi_core::Message;
use mk_ipi_services::console::{Log, Received, BYTES};
use spin::Mutex;

const KEPT: usize = 16 << 10;

static LOG: Mutex<Log<[u8; KEPT]>> = Mutex::new(Log::new([0; KEPT]));

/// Calls `f` with the log, unless the log is in use. This kernel has one CPU, so that can only happen in an exception,
/// or through what a send found out.
fn with<R>(f: impl FnOnce(&mut Log<[u8; KEPT]>) -> R) -> Option<R> {
    without_interrupts(|| LOG.try_lock().map(|mut log| f(&mut log)))
}

/// Adds a line, and sends what can be sent.
pub fn write(line: &[u8]) {
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    let _ = with(|log| {
        log.write(text);
        log.write(b"\r\n");
    });
    go_on();
}

/// Sends what waits, as far as the lane has room.
pub fn go_on() {
    let _ = with(|log| {
        let mut room = [0; BYTES + ConsoleMessage::HEADER];
        while let Some((payload, sent)) = log.next(&mut room) {
            // This can be any context: a panic's last words must go out, too.
            if SERVER.send_from_nmi(InstanceId::HOST, CONSOLE_TYPE, payload).is_err() {
                break;
            }
            log.sent(sent);
        }
    });
}

/// The handler.
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
