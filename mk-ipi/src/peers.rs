// SPDX-License-Identifier: MIT OR Apache-2.0
//! The other kernels, and the state of each.
//!
//! A call reads this kernel's table of instances, and on the native link also the region of the peer. It does not read the
//! directory. So a change in the directory is visible only after [`Endpoint::follow`](mk_ipi_core::Endpoint::follow) has found
//! it, and a heartbeat that has stopped only after [`Endpoint::tick`](mk_ipi_core::Endpoint::tick) has found it.

use crate::ext::{AnyEndpoint, WordOf};
use mk_ipi_core::abi::directory::Layout;
use mk_ipi_core::abi::native::Geometry;
use mk_ipi_core::abi::{Incarnation, InstanceId, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::{InstanceRef, LaneStats};

/// The state of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// The directory lists the peer as live. It has no native region, so it is not known whether it runs.
    Listed,
    /// The directory lists the peer as live. Its native region shows that the listed life does not receive yet. It will read our
    /// messages after it has begun.
    Starting,
    /// The region of the peer says that it runs as this incarnation.
    Running(Incarnation),
    /// The region of the peer says that it runs as this incarnation. But the last [`tick`](mk_ipi_core::Endpoint::tick) found
    /// that its heartbeat has stopped.
    Suspect(Incarnation),
    /// This life of the peer has ended with a goodbye. Its next life will read our messages.
    Left(Incarnation),
    /// The last [`follow`](mk_ipi_core::Endpoint::follow) found that the directory does not list this life of the peer as live.
    /// Its next life will read our messages.
    Dead(Incarnation),
}

impl PeerState {
    /// The life that has ended. `None` if the life of the peer has not ended.
    pub const fn ended(self) -> Option<Incarnation> {
        match self {
            Self::Left(life) | Self::Dead(life) => Some(life),
            Self::Listed | Self::Starting | Self::Running(_) | Self::Suspect(_) => None,
        }
    }
}

/// What this kernel knows of another kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerInfo {
    /// The id of the peer.
    pub id: InstanceId,
    /// The incarnation of the peer that the directory listed at the last [`follow`](mk_ipi_core::Endpoint::follow).
    pub listed: Incarnation,
    /// The state of the peer.
    pub state: PeerState,
    /// The doorbell CPU of the peer, according to the directory.
    pub doorbell_cpu: PhysCpuId,
    /// The doorbell vector of the peer, according to the directory.
    pub vector: Vector,
    /// The layout of the peer's region. `None` if the peer has no region.
    pub layout: Option<Layout>,
    /// The physical memory of the peer's region. `None` if the peer has no region.
    pub region: Option<PhysRange>,
    /// The number of lanes and lines of the peer's native region, and the maximum length of a message to it. `None` if the peer
    /// has no native region.
    pub geometry: Option<Geometry>,
    /// Statistics of our lane to the peer. `None` if the peer has no native region.
    pub lane: Option<LaneStats>,
}

/// An iterator over the peers of an endpoint, in the order of their ids: see [`peers`](crate::EndpointExt::peers).
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

/// Implements [`peer`](crate::EndpointExt::peer).
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

/// Returns the state of a peer.
fn state_of<E: AnyEndpoint + ?Sized>(instance: &InstanceRef<'_, WordOf<E>>) -> PeerState {
    let listed = instance.incarnation();
    let life = instance.life().filter(|life| !life.incarnation.is_before(listed));
    // True if the region of the peer names a later life than the directory did at the last `follow`.
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

/// Returns the life of `to` if this life has ended. Then there will be no space before the next life. `None` if it has not ended,
/// or if `to` is not in the table.
pub(crate) fn ended_life<E: AnyEndpoint + ?Sized>(endpoint: &E, to: InstanceId) -> Option<Incarnation> {
    state_of::<E>(&endpoint.instance(to).ok()?).ended()
}
