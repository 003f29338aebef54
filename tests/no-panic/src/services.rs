// SPDX-License-Identifier: MIT OR Apache-2.0
//! The functions of mk-ipi-services, with any buffers, messages and numbers.

use crate::opaque::{any, bytes, maybe, sink};
use core::hint::black_box;
use mk_ipi_abi::channel::{Body, ChannelMessage};
use mk_ipi_abi::console::ConsoleMessage;
use mk_ipi_abi::Incarnation;
use mk_ipi_services::channel::{Inbox, Outbox};
use mk_ipi_services::console::{Log, TerminalEnd};
use mk_ipi_services::ring::Ring;

pub fn call_all() {
    let mut room = [0; 8192];
    let room = black_box(&mut room[..]);
    let (first, rest) = room.split_at_mut_checked(any()).unwrap_or_default();
    let (second, third) = rest.split_at_mut_checked(any()).unwrap_or_default();
    ring(Ring::new(&mut *first), second);
    line(TerminalEnd::new(&mut *first, &mut *second), third);
    log(Log::new(&mut *first), third);
    inbox(&mut *first, third);
    outbox(Outbox::new(), third);
}

fn life() -> Incarnation {
    Incarnation::new(any()).unwrap_or(Incarnation::FIRST)
}

fn ring(mut ring: Ring<&mut [u8]>, to: &mut [u8]) {
    sink((ring.push(bytes()), ring.push_over(bytes())));
    ring.patch(any(), bytes());
    sink((ring.copy(any(), to), ring.len(), ring.is_empty(), ring.room(), ring.capacity()));
    ring.drop_first(any());
    ring.truncate(any());
    if maybe() {
        ring.clear();
    }
    sink(ring.into_buffer());
}

fn line(mut line: TerminalEnd<&mut [u8]>, to: &mut [u8]) {
    sink(line.peer_up(life()));
    if let Ok(message) = ConsoleMessage::decode(bytes()) {
        sink(line.receive(&message, life(), life()));
    }
    line.set_reader(maybe());
    if maybe() {
        line.peer_down();
    }
    sink(line.peer());
    sink((line.write(bytes()), line.room(), line.has_made_room(), line.unsent(), line.peek(to)));
    line.read(any());
    if let Some((payload, sent)) = line.next(to) {
        sink(payload);
        line.sent(sent);
    }
    sink(line.lost());
    line.clear_lost();
    line.clear_unsent();
    sink(line.into_buffers());
}

fn log(mut log: Log<&mut [u8]>, to: &mut [u8]) {
    log.write(bytes());
    if let Ok(message) = ConsoleMessage::decode(bytes()) {
        sink(log.receive(&message, life(), life()));
    }
    if let Some((payload, sent)) = log.next(to) {
        sink(payload);
        log.sent(sent);
    }
}

fn inbox(kept: &mut [u8], to: &mut [u8]) {
    let Some(mut inbox) = Inbox::new(kept, any()) else { return };
    inbox.begin(any());
    inbox.asked(any());
    if let Ok(message) = ChannelMessage::decode(bytes()) {
        sink(inbox.receive(&message.body));
    }
    sink((inbox.session(), inbox.messages(), inbox.next(), inbox.closed()));
    inbox.sent();
    sink((inbox.len(), inbox.is_empty(), inbox.read(to)));
    sink(inbox.into_buffer());
}

fn outbox(mut outbox: Outbox, to: &mut [u8]) {
    if let Ok(message) = ChannelMessage::decode(bytes()) {
        sink(outbox.receive(&message.body, life()));
    }
    sink(outbox.receive(&Body::Grant { session: any(), limit: any() }, life()));
    if let Some((payload, behind)) = outbox.part(any(), bytes(), any(), to) {
        sink(payload);
        outbox.sent(any(), behind);
    }
    sink((outbox.has_reader(), outbox.accepts(any()), outbox.ended()));
}
