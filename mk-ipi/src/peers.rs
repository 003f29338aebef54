// SPDX-License-Identifier: MIT OR Apache-2.0
//! The other kernels, as this one knows them now.
//!
//! All of it is read at the moment of the call: from the table of instances, and on the native link from the peer's own region.
//! Changes that [`Endpoint::follow`](mk_ipi_core::Endpoint::follow) and [`Endpoint::tick`](mk_ipi_core::Endpoint::tick) have
//! not found yet are not included.

use crate::ext::{AnyEndpoint, WordOf};
use mk_ipi_core::abi::directory::Layout;
use mk_ipi_core::abi::native::Geometry;
use mk_ipi_core::abi::{Incarnation, InstanceId, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::{InstanceRef, LaneStats};

/// The state of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// The directory lists it as live. More is not known: it has no region, or its region is not a native one.
    Listed,
    /// The directory lists it as live, but the listed life has not begun to receive. Messages to it wait.
    Starting,
    /// Its region says that it runs, as this incarnation.
    Running(Incarnation),
    /// Its region says that it runs, but at the last [`tick`](mk_ipi_core::Endpoint::tick) its heartbeat had not changed for
    /// too long.
    Suspect(Incarnation),
    /// It said goodbye. Messages to it wait for its next life.
    Left(Incarnation),
    /// The directory, as it was followed last, does not list it as live. Messages to it wait for its next life.
    Dead(Incarnation),
}

impl PeerState {
    /// The life that has ended, if it has.
    pub const fn ended(self) -> Option<Incarnation> {
        match self {
            Self::Left(life) | Self::Dead(life) => Some(life),
            Self::Listed | Self::Starting | Self::Running(_) | Self::Suspect(_) => None,
        }
    }
}

/// What is known of another kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerInfo {
    /// Its id.
    pub id: InstanceId,
    /// Its incarnation in the directory, as it was followed last.
    pub listed: Incarnation,
    /// Whether it runs, as far as is known.
    pub state: PeerState,
    /// Its doorbell CPU in the directory.
    pub doorbell_cpu: PhysCpuId,
    /// Its doorbell vector in the directory.
    pub vector: Vector,
    /// The layout of its region; `None` if it has no region.
    pub layout: Option<Layout>,
    /// The memory of its region; `None` if it has no region.
    pub region: Option<PhysRange>,
    /// The size of its native region, and the maximum length of a message to it; `None` if it has no native region.
    pub geometry: Option<Geometry>,
    /// Statistics of our lane to it; `None` if it has no native region.
    pub lane: Option<LaneStats>,
}

/// The peers of an endpoint, in the order of their ids: see [`peers`](crate::EndpointExt::peers).
#[derive(Debug)]
pub struct Peers<'a, E: ?Sized> {
    endpoint: &'a E,
    next: usize,
}

impl<'a, E: AnyEndpoint + ?Sized> Peers<'a, E> {
    pub(crate) const fn new(endpoint: &'a E) -> Self {
        Self { endpoint, next: 0 }
    }
}

impl<E: AnyEndpoint + ?Sized> Iterator for Peers<'_, E> {
    type Item = PeerInfo;

    fn next(&mut self) -> Option<PeerInfo> {
        while self.next < self.endpoint.max_instances() {
            let id = InstanceId::new(u8::try_from(self.next).ok()?);
            self.next = self.next.wrapping_add(1);
            if let Some(info) = peer(self.endpoint, id) {
                return Some(info);
            }
        }
        None
    }
}

/// What is known of `id`; `None` if it is not in the table, or is this kernel.
pub(crate) fn peer<E: AnyEndpoint + ?Sized>(endpoint: &E, id: InstanceId) -> Option<PeerInfo> {
    if endpoint.identity().is_some_and(|(me, _)| me == id) {
        return None;
    }
    let instance = endpoint.instance(id).ok()?;
    Some(PeerInfo {
        id,
        listed: instance.incarnation(),
        state: state_of::<E>(&instance),
        doorbell_cpu: instance.doorbell_cpu(),
        vector: instance.vector(),
        layout: instance.layout(),
        region: instance.region(),
        geometry: instance.geometry(),
        lane: endpoint.lane_stats(id).ok(),
    })
}

fn state_of<E: AnyEndpoint + ?Sized>(instance: &InstanceRef<'_, WordOf<E>>) -> PeerState {
    let listed = instance.incarnation();
    let life = instance.life().filter(|life| !life.incarnation.is_before(listed));
    // The peer's region names a later life than the directory did when it was followed last.
    let is_next = life.is_some_and(|life| listed.is_before(life.incarnation));
    if !instance.is_live() && !is_next {
        return PeerState::Dead(listed);
    }
    match life {
        Some(life) if life.over => PeerState::Left(life.incarnation),
        Some(life) if instance.is_suspect() => PeerState::Suspect(life.incarnation),
        Some(life) => PeerState::Running(life.incarnation),
        None if instance.layout() == Some(Layout::Native) => PeerState::Starting,
        None => PeerState::Listed,
    }
}

/// The life of `to`, if it has ended. Then there is no new space before the next life.
pub(crate) fn ended_life<E: AnyEndpoint + ?Sized>(endpoint: &E, to: InstanceId) -> Option<Incarnation> {
    state_of::<E>(&endpoint.instance(to).ok()?).ended()
}
