// SPDX-License-Identifier: MIT OR Apache-2.0
//! The other kernels, as this one knows them now.
//!
//! All of it is read at the moment of the call: from the table of instances, and on the native link from the peer's own region. What
//! [`Endpoint::follow`](mk_ipi_core::Endpoint::follow) and [`Endpoint::tick`](mk_ipi_core::Endpoint::tick) have not found yet is not in it.

use crate::ext::{AnyEndpoint, WordOf};
use mk_ipi_core::abi::directory::Layout;
use mk_ipi_core::abi::native::Geometry;
use mk_ipi_core::abi::{Incarnation, InstanceId, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::{InstanceRef, LaneStats};

/// Where a peer is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// It is listed as live, and its region does not say more: it is no native one, or there is none.
    Listed,
    /// It is listed as live, and the life that is listed has not begun to listen. What is sent to it waits.
    Starting,
    /// It runs, by its own word, as this incarnation.
    Running(Incarnation),
    /// It runs by its own word, but its heartbeat stands still, as [`tick`](mk_ipi_core::Endpoint::tick) found last.
    Suspect(Incarnation),
    /// It said goodbye. What is sent waits for its next life.
    Left(Incarnation),
    /// The directory, as it was followed last, takes it for dead. What is sent waits for its next life.
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
    /// Who it is.
    pub id: InstanceId,
    /// Its life, as the directory said last.
    pub listed: Incarnation,
    /// Where it is in its life.
    pub state: PeerState,
    /// The CPU that the directory says is rung for it.
    pub doorbell_cpu: PhysCpuId,
    /// The vector that the directory says is rung for it.
    pub vector: Vector,
    /// What its region speaks; `None` if it has none.
    pub layout: Option<Layout>,
    /// Where its region lies; `None` if it has none.
    pub region: Option<PhysRange>,
    /// How large its native region is, and how long a message to it may be; `None` if it has none.
    pub geometry: Option<Geometry>,
    /// Our lane to it in numbers; `None` if its region is no native one.
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

/// What is known of `id`; `None` if it is not in the table, or is ourselves.
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
    // A life that the directory did not name yet when it was followed last.
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

/// The life of `to` that has ended, if it has: nobody makes space there before its next one.
pub(crate) fn ended_life<E: AnyEndpoint + ?Sized>(endpoint: &E, to: InstanceId) -> Option<Incarnation> {
    state_of::<E>(&endpoint.instance(to).ok()?).ended()
}
