// SPDX-License-Identifier: MIT OR Apache-2.0
//! The message of each error is a sentence, and contains the values that the error holds. Errors that C gets have an error number.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use mk_ipi_core::abi::directory::{EntryError, EntryFlags, InstanceRecord, Layout, State};
use mk_ipi_core::abi::native::Geometry;
use mk_ipi_core::abi::rfc_v2::PfnError;
use mk_ipi_core::abi::{Errno, Incarnation, InstanceId, Pfn, PhysAddr, PhysCpuId, Vector};
use mk_ipi_core::directory::WriteError;
use mk_ipi_core::platform::{DoorbellError, MapError, PoolError};
use mk_ipi_core::{
    AddError, DestroyError, JoinError, LookupError, MapPfnError, MoveError, PollError, RegistryFull,
    SendError, UnregisterError,
};
use std::collections::BTreeSet;
use std::error::Error;

const CPU: PhysCpuId = PhysCpuId(0x77);
const ID: InstanceId = InstanceId::new(78);

/// The messages of `all`. Checks that no two are the same, and that each is a sentence and not the `Debug` output.
fn sentences<E: Error>(all: &[E]) -> BTreeSet<String> {
    let said: BTreeSet<String> = all.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), all.len(), "two errors say the same: {said:?}");
    for (sentence, error) in all.iter().map(|e| (e.to_string(), format!("{e:?}"))) {
        assert!(sentence.contains(' ') && sentence != error && !sentence.ends_with('.'), "{sentence}");
    }
    said
}

/// Checks that each string of `found` is contained in one of the messages `said`.
fn name(said: &BTreeSet<String>, found: &[&str]) {
    for found in found {
        assert!(said.iter().any(|sentence| sentence.contains(found)), "{found} is not in {said:?}");
    }
}

#[test]
fn sending() {
    use SendError as S;
    let all = [
        S::Empty,
        S::TooLong,
        S::NoIdentity,
        S::SenderBeyondField,
        S::Instance(LookupError::Unknown),
        S::NoRegion,
        S::NotItsCpu(CPU),
        S::Busy,
        S::ClaimLost,
        S::Full,
        S::Unanswered,
        S::Contended,
        S::Quarantined,
        S::Broken,
        S::RegionGone,
        S::NotNative,
        S::Unreachable(DoorbellError::Stuck),
        S::NotRung(DoorbellError::Stuck),
    ];
    name(&sentences(&all), &["0x77", "no such instance", "busy"]);
    let transient: Vec<_> = all.iter().filter(|e| e.is_transient()).collect();
    assert_eq!(transient, [&S::Busy, &S::Full, &S::Unanswered, &S::Contended]);
    let poll = [PollError::NotExclusive, PollError::NoRegion, PollError::BeyondCpus];
    sentences(&poll);
    let moved = [MoveError::NotNative, MoveError::NotOurCpu(CPU)];
    name(&sentences(&moved), &["0x77"]);
    let pfn = [
        MapPfnError::NotAPfn(PfnError::WrongSize(7)),
        MapPfnError::OutOfRange(Pfn(0x79)),
        MapPfnError::NotShared(Pfn(0x7a)),
        MapPfnError::Map(MapError::NoMemory),
    ];
    name(&sentences(&pfn), &["7", "0x79", "0x7a", "memory"]);
}

#[test]
fn platforms() {
    use DoorbellError as D;
    let doorbell = [D::Unreachable(CPU), D::NoSuchVector(Vector::RFC_V2), D::Stuck, D::Refused(0x79)];
    name(&sentences(&doorbell), &["0x77", "0x79"]);
    assert_eq!(doorbell.map(D::errno), [Errno::ENXIO, Errno::EINVAL, Errno::EAGAIN, Errno::EINVAL]);
    let map = [MapError::Misaligned, MapError::NoMemory, MapError::NotAllowed];
    sentences(&map);
    assert_eq!(map.map(MapError::errno), [Errno::EINVAL, Errno::ENOMEM, Errno::EACCES]);
    let pool = [PoolError::NoPool, PoolError::Exhausted];
    sentences(&pool);
    assert_eq!(pool.map(PoolError::errno), [Errno::ENODEV, Errno::ENOMEM]);
    sentences(&[RegistryFull]);
    sentences(&[UnregisterError::InCallback, UnregisterError::Stale, UnregisterError::OtherRegistry]);
}

#[test]
fn instances() {
    use AddError as A;
    let add = [
        A::Exists,
        A::BeyondTable(ID),
        A::Overlaps(ID),
        A::BadCpus,
        A::BeyondRegion(CPU),
        A::Misaligned,
        A::TooSmall(7777),
        A::Pool(PoolError::NoPool),
        A::Map(MapError::NoMemory),
        A::NoIdentity,
        A::NoLane(ID),
        A::Geometry(Geometry::default_for(3).unwrap()),
    ];
    name(&sentences(&add), &["78", "0x77", "7777", "3 lanes"]);
    sentences(&[LookupError::Unknown, LookupError::Destroyed]);
    let destroy = [
        DestroyError::Unknown,
        DestroyError::InUse(79),
        DestroyError::Mapped(ID, Incarnation::FIRST),
        DestroyError::Map(MapError::NoMemory),
    ];
    name(&sentences(&destroy), &["78", "79", "memory"]);
}

#[test]
fn directories() {
    use JoinError as J;
    let join = [
        J::NotListed(PhysAddr(0x7000)),
        J::Instance(ID, AddError::Exists),
        J::Changing(ID),
        J::InUse(ID),
        J::Busy,
        J::Ringing,
        J::Entry(ID, EntryError::BadCpus),
    ];
    name(&sentences(&join), &["0x7000", "78", "in the table", "no CPU or too many"]);
    let record = InstanceRecord {
        instance: ID,
        incarnation: Incarnation::FIRST,
        state: State::Running,
        layout: Layout::Native,
        flags: EntryFlags::empty(),
        region: None,
        doorbell_cpu: CPU,
        vector: Vector::RFC_V2,
        nr_cpus: 1,
    };
    use WriteError as W;
    let write = [
        W::Entry(EntryError::BadRegion),
        W::BadCpus,
        W::DoorbellNotListed(CPU),
        W::CpuTwice(CPU),
        W::CpuTaken(CPU, ID),
        W::RegionTaken(ID),
        W::OnDirectory,
        W::Live(record),
        W::Over(ID),
        W::Unreadable(ID, EntryError::Changing),
    ];
    name(&sentences(&write), &["0x77", "78", "misaligned", "changing"]);
}
