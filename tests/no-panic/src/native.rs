// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mk_ipi_abi::native`, and what only the native link has of an endpoint.

use crate::opaque::{any, bytes, cpus, instance, maybe, sink, vector, HasMemory, Opaque};
use mk_ipi_abi::native::*;
use mk_ipi_abi::{Incarnation, MessageType, PhysCpuId};
use mk_ipi_core::{Endpoint, Handler, LinkConfig, MoveError, SendError};

pub fn call_all() {
    for geometry in [Geometry::new(any(), any()), Geometry::default_for(any())] {
        sink((geometry.map(layout), geometry == Geometry::new(any(), any())));
    }
    words();
    stamp();
    features();
    known();
}

/// Any geometry, or that which a creator gets who names none.
pub fn link() -> LinkConfig {
    LinkConfig::Native(if maybe() { Geometry::new(any(), any()) } else { None })
}

fn layout(geometry: Geometry) {
    sink((
        geometry.lanes(),
        geometry.cells(),
        geometry.receiver_len(),
        geometry.hint_at(),
        geometry.hint_len(),
    ));
    sink((geometry.lane_len(), geometry.lane_at(any()), geometry.lanes_at(), geometry.lanes_len()));
    sink((geometry.total_size(), geometry.lap(any()), geometry.index(any()), geometry.next_life(any())));
    sink(Stamp::new(geometry, Features::from_bits_retain(any())));
}

fn words() {
    sink(Lap::of(any(), any()) == Lap::Here);
    let about = CellAbout::from_word(any());
    sink((about.to_word(), about == CellAbout { len: any(), cpu: any() }));
    if let (Some(a), Some(b)) = (Hello::from_word(any()), Incarnation::new(any())) {
        sink((a.to_word(), Hello::after(any(), b), a == Hello::after(any(), b)));
    }
    if let Some(vector) = vector() {
        sink((
            Bell { cpu: any(), vector }.to_word(),
            Bell { cpu: any(), vector } == Bell { cpu: any(), vector },
        ));
    }
    sink(Bell::from_word(any(), cpus()));
    if let (Some(a), Some(b)) = (Life::from_word(any()), Life::from_word(any())) {
        sink((a.to_word(), a == b));
    }
    sink(Breach::from_word(any()) == Breach::from_word(any()));
}

fn stamp() {
    sink(any::<Stamp>() == any::<Stamp>());
    let second = if maybe() { Some([any(), any()]) } else { None };
    let checked = any::<Stamp>().check(any(), second);
    sink((checked == any::<Stamp>().check(any(), None), checked.map_err(StampError::errno)));
}

/// What `bitflags!` declares.
fn features() {
    let (mut a, b) = (Features::from_bits_retain(any()), Features::from_bits_truncate(any()));
    sink((
        Features::from_bits(any()),
        Features::empty(),
        Features::all(),
        a.bits(),
        a.is_empty(),
        a.is_all(),
    ));
    sink((a.contains(b), a.intersects(b), a.intersection(b), a.union(b), a.difference(b), a == b));
    sink((a.symmetric_difference(b), a.complement(), a & b, a | b, a ^ b, a - b, !a));
    a.insert(b);
    a.remove(b);
    a.toggle(b);
    a.set(b, maybe());
    sink((a, core::str::from_utf8(bytes()).ok().and_then(Features::from_name)));
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

/// The calls that other links refuse, and those that spare a look-up.
pub fn endpoint<W: HasMemory, H: Handler, const CPUS: usize, const HANDLERS: usize, const QUEUE: usize>(
    end: &Endpoint<Opaque<W>, H, CPUS, HANDLERS, QUEUE>,
) {
    sink(end.send_from_nmi(instance(), MessageType(any()), bytes()).map_err(SendError::errno));
    sink((
        end.post(instance(), MessageType(any()), bytes()),
        end.flush(instance()),
        end.want_space(instance()),
    ));
    if let Ok(held) = end.instance(instance()) {
        sink((end.send_held(&held, MessageType(any()), bytes()), held.layout()));
        sink((end.post_held(&held, MessageType(any()), bytes()), end.drain_held(&held)));
    }
    sink(end.drain());
    end.tick(any(), any());
    end.goodbye();
    sink((end.stop(instance()), end.lane_stats(instance())));
    if let Some(vector) = vector() {
        sink(end.move_doorbell(PhysCpuId(any()), vector).map_err(MoveError::errno));
    }
}
