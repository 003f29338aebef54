// SPDX-License-Identifier: MIT OR Apache-2.0
//! The message of each error is a sentence, and contains the values that the error holds.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use mk_ipi_abi::boot_param::BootParamError;
use mk_ipi_abi::channel::ChannelError;
use mk_ipi_abi::console::ConsoleError;
use mk_ipi_abi::cpu_move::CpuMoveError;
use mk_ipi_abi::directory::{DirectoryError, EntryError, Version};
use mk_ipi_abi::native::{KnownLayouts, StampError};
use mk_ipi_abi::net::{ControlError, OffloadError};
use mk_ipi_abi::rfc_v2::{Claim, NoMessage, PfnError};
use mk_ipi_abi::{Incarnation, InstanceId, MessageType};
use std::collections::BTreeSet;
use std::error::Error;

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
fn services() {
    use ChannelError as Ch;
    let channel = [
        Ch::WrongSize(7777),
        Ch::WrongVersion(77),
        Ch::WrongKind(78),
        Ch::WrongFlags(0x79),
        Ch::WrongPosition(1 << 61),
        Ch::WrongSession(7771),
        Ch::NoReceiver,
    ];
    name(&sentences(&channel), &["7777", "77", "78", "0x79", "0x2000000000000000", "7771"]);
    use ConsoleError as Co;
    let console = [
        Co::WrongSize(7777),
        Co::WrongVersion(77),
        Co::WrongKind(78),
        Co::NotZero(0x79),
        Co::WrongPosition(1 << 61),
        Co::NoReceiver,
    ];
    name(&sentences(&console), &["7777", "77", "78", "0x79", "0x2000000000000000"]);
    let moves = [
        CpuMoveError::WrongSize(7777),
        CpuMoveError::WrongKind(78),
        CpuMoveError::WrongErrno(79),
        CpuMoveError::NoLife,
    ];
    name(&sentences(&moves), &["7777", "78", "79"]);
}

#[test]
fn network() {
    use ControlError as C;
    let control = [
        C::WrongSize(7777),
        C::Version(77),
        C::WrongKind(78),
        C::NoKey,
        C::WrongFeatures(0x79),
        C::WrongMaxFrame(7770),
        C::WrongMac([1, 2, 3, 4, 5, 6]),
    ];
    name(&sentences(&control), &["7777", "77", "78", "0x79", "7770", "01:02:03:04:05:06"]);
    use OffloadError as O;
    let offload =
        [O::Flags(0x77), O::Gso(0x78), O::GsoWhole, O::Csum { start: 777, offset: 778 }, O::NotSupported];
    name(&sentences(&offload), &["0x77", "0x78", "777", "778"]);
}

#[test]
fn layouts() {
    let version = Version { major: 7, minor: 8 };
    use StampError as S;
    let stamp = [
        S::Mkipi0nn { number: 3, version: 9 },
        S::NoStamp { found: 0x77, known: KnownLayouts::empty() },
        S::Version(version),
        S::Geometry { lanes: 71, lines: 72, max_len: 73 },
        S::Size(7770),
        S::TooSmall(7771),
    ];
    name(&sentences(&stamp), &["MKIPI003", "0x0000000000000077", "7.8", "71", "72", "73", "7770", "7771"]);
    use DirectoryError as D;
    let directory = [D::NoStamp(0x77), D::Version(version), D::Geometry, D::TooSmall(7771)];
    name(&sentences(&directory), &["0x0000000000000077", "7.8", "7771"]);
    use EntryError as E;
    let entry = [
        E::OutOfRange,
        E::Absent,
        E::Changing,
        E::WrongInstance(77),
        E::NoIncarnation,
        E::UnknownState(78),
        E::UnknownLayout(79),
        E::BadVector(0x1f),
        E::BadRegion,
        E::BadCpus,
    ];
    name(&sentences(&entry), &["77", "78", "79", "0x1f"]);
}

#[test]
fn numbers_and_slots() {
    use BootParamError as B;
    let boot = [
        B::Empty,
        B::NotANumber,
        B::Garbage(7),
        B::Overflow,
        B::Zero,
        B::Misaligned(0x77),
        B::OutOfRange(1 << 52),
    ];
    name(&sentences(&boot), &["7", "0x77", "0x10000000000000"]);
    let claim = Claim { instance: InstanceId::new(77), incarnation: Incarnation::FIRST };
    let slot = [NoMessage::Empty, NoMessage::Claimed(claim), NoMessage::BadSize(0x7777)];
    name(&sentences(&slot), &["77", "0x7777"]);
    let pfn = [PfnError::WrongType(MessageType(0x77)), PfnError::WrongSize(7)];
    name(&sentences(&pfn), &["0x77", "7"]);
    name(&sentences(&[InstanceId::try_from(7777i64).unwrap_err()]), &["7777"]);
    name(&sentences(&[MessageType::try_from(0x1_0000_0077u64).unwrap_err()]), &["0x100000077"]);
}
