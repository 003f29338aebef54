// SPDX-License-Identifier: MIT OR Apache-2.0
//! The functions of mk-ipi-net, and of the messages that it sends and receives.

use crate::opaque::{any, bytes, option, sink};
use mk_ipi_abi::net::*;
use mk_ipi_abi::{Incarnation, MessageType};
use mk_ipi_net::{FrameAssembler, FrameSplitter, Port};

pub fn call_all() {
    codec();
    port();
    frames();
}

fn offer() -> Option<Offer> {
    let mac = any::<u64>().to_le_bytes();
    let [a, b, c, d, e, f, ..] = mac;
    let features = Features::from_bits_retain(any());
    Some(Offer { key: Key::new(any())?, features, max_frame: any(), mac: [a, b, c, d, e, f] })
}

fn offload() -> Offload {
    let [flags, gso_type] = any::<u16>().to_le_bytes();
    Offload { flags, gso_type, hdr_len: any(), gso_size: any(), csum_start: any(), csum_offset: any() }
}

fn codec() {
    sink(Control::decode(bytes()).map(|message| message.encode()));
    sink(FrameHead::decode(bytes()).map(|(head, rest)| (head.encode(), rest)));
    sink(PartHead::decode(bytes()).map(|(head, rest)| (head.encode(), rest)));
    sink((offload().check(any(), Features::from_bits_retain(any())), offload().needed()));
    sink(Incarnation::new(any()).map(|life| Key::of(life, any()).get()));
}

fn port() {
    let mut port = Port::new();
    sink(offer().map(|offer| port.open(offer)));
    sink(port.receive(option(Incarnation::FIRST), bytes()));
    sink(port.peer_is_up(Incarnation::FIRST));
    sink(port.peer_is_gone(option(Incarnation::FIRST)));
    sink(port.peer_is_suspect(crate::opaque::maybe()));
    sink(port.pending());
    sink(port.begin_send());
    sink(port.end_send(crate::opaque::maybe()));
    sink((port.ours().copied(), port.carrier(), port.close(), Port::default()));
}

fn frames() {
    let cut = offer().map(|offer| FrameSplitter::new(&offer, any(), any(), offload(), any()));
    if let Some(Ok(mut cut)) = cut {
        let piece = cut.next();
        sink(piece.map(|piece| (piece.head.as_bytes().len(), cut.sent(&piece))));
        sink(cut);
    }
    let mut gather = FrameAssembler::new();
    sink(gather.take(offer().as_ref(), MessageType(any()), bytes()));
    sink(gather.take(offer().as_ref(), MessageType(any()), bytes()));
    gather.reset();
    sink(gather);
}
