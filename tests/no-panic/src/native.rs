// SPDX-License-Identifier: MIT OR Apache-2.0
//! The functions of `mk_ipi_abi::native`, and the functions of an endpoint that only the native link has.

use crate::opaque::{any, bytes, instance, maybe, payloads, sink, vector, HasMemory, Opaque};
use mk_ipi_abi::native::*;
use mk_ipi_abi::{Incarnation, MessageType, PhysCpuId};
use mk_ipi_core::{Endpoint, Handler, LinkConfig, MoveError, SendError};

pub fn call_all() {
    for geometry in [Geometry::new(any(), any(), any()), Geometry::default_for(any())] {
        sink((geometry.map(layout), geometry == Geometry::new(any(), any(), any())));
    }
    lines();
    lives();
    stamp();
    known();
}

/// A native link with any geometry, or without one, which means the default.
pub fn link() -> LinkConfig {
    LinkConfig::Native(if maybe() { Geometry::new(any(), any(), any()) } else { None })
}

fn layout(geometry: Geometry) {
    sink((geometry.lanes(), geometry.lines(), geometry.max_len(), geometry.receiver_len()));
    sink((geometry.lane_len(), geometry.lane_at(any()), geometry.lanes_at(), geometry.lanes_len()));
    sink((geometry.total_size(), geometry.line_at(any()), geometry.is_first_of_lap(any())));
    sink(control::doubt(any()));
    sink((geometry.first_tag(any()), geometry.further_tag(any())));
    sink(Stamp::new(geometry));
}

fn lines() {
    sink(lines_of(any()));
    let (a, b) =
        (LineTag::of_word(any()), if maybe() { LineTag::first(any()) } else { LineTag::further(any()) });
    sink((a.to_word(any()), a.is_contradicted_by(b), a == b));
    let about = MessageInfo::from_word(any());
    sink((about.to_word(), about == MessageInfo { len: any(), cpu: any() }));
}

fn lives() {
    if let (Some(a), Some(b)) = (Hello::from_word(any()), Incarnation::new(any())) {
        sink((a.to_word(), a.may_send(), a.in_phase(Phase::Clean), a == Hello::after(any(), any(), b)));
    }
    if let (Some(a), Some(vector)) = (Bell::from_word(any()), vector()) {
        sink((a.to_word(), a == Bell { cpu: PhysCpuId(any()), vector }));
    }
    if let (Some(a), Some(b)) = (Life::from_word(any()), Life::from_word(any())) {
        sink((a.to_word(), a == b));
    }
    if let Some(a) = Attached::from_word(any()) {
        sink((a.to_word(), a.has_followed(any())));
    }
    sink(Breach::from_word(any()) == Breach::from_word(any()));
}

fn stamp() {
    sink(any::<Stamp>() == any::<Stamp>());
    let second = if maybe() { Some([any(), any()]) } else { None };
    let checked = any::<Stamp>().check(any(), second);
    sink((checked == any::<Stamp>().check(any(), None), checked.map_err(StampError::errno)));
}

fn known() {
    let (mut a, b) = (KnownLayouts::of_size(any()), KnownLayouts::from_bits_retain(any()));
    sink((KnownLayouts::from_bits(any()), KnownLayouts::from_bits_truncate(any()), a.bits(), a.contains(b)));
    sink((KnownLayouts::empty(), KnownLayouts::all(), a.is_empty(), a.is_all(), a.intersects(b), a == b));
    sink((a.intersection(b), a.union(b), a.difference(b), a.symmetric_difference(b), a.complement()));
    sink((a & b, a | b, a ^ b, a - b, !a));
    a.insert(b);
    a.remove(b);
    a.toggle(b);
    a.set(b, maybe());
    sink((a, core::str::from_utf8(bytes()).ok().and_then(KnownLayouts::from_name)));
}

/// The calls that fail on other links, and the calls that take a reference to an instance instead of its id.
pub fn endpoint<
    W: HasMemory,
    H: Handler,
    const CPUS: usize,
    const HANDLERS: usize,
    const QUEUE: usize,
    const INSTANCES: usize,
>(
    end: &Endpoint<Opaque<W>, H, CPUS, HANDLERS, QUEUE, INSTANCES>,
) {
    end.discard_unread();
    sink(end.send_from_nmi(instance(), MessageType(any()), bytes()).map_err(SendError::errno));
    sink((end.post(instance(), MessageType(any()), bytes()), end.flush(instance())));
    sink((end.want_space(instance(), any()), end.handled(instance())));
    sink(end.post_many(instance(), MessageType(any()), payloads()));
    sink(end.send_many(instance(), MessageType(any()), payloads()));
    if let Ok(held) = end.instance(instance()) {
        sink((end.send_held(&held, MessageType(any()), bytes()), held.layout()));
        sink(end.post_held(&held, MessageType(any()), bytes()));
        sink(end.post_many_held(&held, MessageType(any()), payloads()));
    }
    sink(end.drain());
    if let Some(mut poller) = end.poller() {
        sink((poller.poll(), poller.wait(any())));
    }
    end.tick(any(), any());
    end.goodbye();
    if let Some(life) = Incarnation::new(any()) {
        sink(end.stop(instance(), life));
    }
    sink(end.lane_stats(instance()));
    if let Some(vector) = vector() {
        sink(end.begin_at(PhysCpuId(any()), vector).map_err(MoveError::errno));
        sink(end.move_doorbell(PhysCpuId(any()), vector).map_err(MoveError::errno));
    }
}
