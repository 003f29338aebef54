// SPDX-License-Identifier: MIT OR Apache-2.0
//! The functions of mk-ipi-abi.

use crate::opaque::{any, bytes, instance, option, range, sink, vector};
use core::hash::{Hash, Hasher};
use mk_ipi_abi::boot_param::{self, BootParamError};
use mk_ipi_abi::channel::ChannelMessage;
use mk_ipi_abi::console::ConsoleMessage;
use mk_ipi_abi::cpu_move::CpuMove;
use mk_ipi_abi::directory::*;
use mk_ipi_abi::ids::*;
use mk_ipi_abi::rfc_v2::*;
use mk_ipi_abi::Errno;
use zerocopy::{FromBytes, IntoBytes};

pub fn call_all() {
    ids();
    boot_params();
    slot();
    header();
    entry();
    flags();
    cpu_moves();
    services();
}

fn services() {
    let mut room = [0; 512];
    let room = core::hint::black_box(&mut room[..]);
    sink(ConsoleMessage::decode(bytes()).map(|message| message.encode(room).map(<[u8]>::len)));
    sink(ChannelMessage::decode(bytes()).map(|message| message.encode(room).map(<[u8]>::len)));
}

fn cpu_moves() {
    let message = CpuMove::decode(bytes());
    sink(message.map(|message| message.encode()));
}

/// Calls the methods of derived traits that have code.
fn derived<T: Clone + PartialEq + Hash>(a: T, b: T) {
    struct Sum(u64);
    impl Hasher for Sum {
        fn finish(&self) -> u64 {
            self.0
        }
        fn write(&mut self, bytes: &[u8]) {
            sink(bytes);
        }
    }
    let mut sum = Sum(any());
    a.hash(&mut sum);
    sink((sum.finish(), a.clone(), a == b));
}

fn ids() {
    sink((instance().get(), instance().index(), instance().cmp(&instance())));
    sink(InstanceId::try_from(any::<i64>()).map_err(InvalidInstance::errno));
    sink(InstanceId::try_from(any::<i32>()).map_err(InvalidInstance::errno));
    derived(instance(), instance());
    if let (Some(a), Some(b)) = (Incarnation::new(any()), Incarnation::new(any())) {
        sink(a.is_before(b));
        sink((a.get(), a.next()));
        derived(a, b);
    }
    sink(MessageType::try_from(any::<u64>()).map_err(TypeTooLarge::errno));
    derived(MessageType(any()), MessageType(any()));
    derived(PhysCpuId(any()), PhysCpuId(any()));
    sink(PhysCpuId(any()).cmp(&PhysCpuId(any())));
    if let (Some(a), Some(b)) = (vector(), vector()) {
        sink((a.get(), a.number(), Vector::of_number(any())));
        derived(a, b);
    }
    sink((PhysAddr(any()).is_page_aligned(), PhysAddr(any()).cmp(&PhysAddr(any()))));
    derived(PhysAddr(any()), PhysAddr(any()));
    if let (Some(a), Some(b)) = (range(), range()) {
        sink((a.start(), a.len(), a.end(), a.overlaps(b)));
        derived(a, b);
    }
    sink((Pfn(any()).range(), Pfn(any()).cmp(&Pfn(any()))));
    derived(Pfn(any()), Pfn(any()));
    sink(Errno(any()).to_c());
    derived(Errno(any()), Errno(any()));
}

fn boot_params() {
    sink(boot_param::mk_ipi_shared(bytes()).map_err(BootParamError::errno));
    sink(boot_param::mk_ipi_directory(bytes()).map_err(BootParamError::errno));
    sink(boot_param::parse_address(bytes()));
    sink(boot_param::parse_size(bytes()));
}

fn slot() {
    sink(region_size(any()));
    sink(check_data_size(any()));
    sink(any::<MkIpiData>().check().map(<[u8]>::len));
    sink(any::<MkIpiData>() == any::<MkIpiData>());
    sink(MkIpiData::read_from_bytes(bytes()).ok());
    sink(MkIpiData::ref_from_bytes(bytes()).is_ok());
    sink(MkSharedData::<1>::read_from_bytes(bytes()).ok());
    let (mut data, mut room) = (any::<MkIpiData>(), [0; 300]);
    sink(data.as_bytes().len());
    data.as_mut_bytes().fill(any());
    sink(data.write_to(core::hint::black_box(&mut room[..])).is_ok());
    sink(data);
    if let (Some(a), Some(b)) = (Claim::from_data_size(any()), Claim::from_data_size(any())) {
        sink((a, a.to_data_size(), a == b));
    }
    sink(encode_pfn(Pfn(any())));
    sink(decode_pfn(MessageType(any()), bytes()).map_err(PfnError::errno));
}

fn header() {
    sink(directory_size(any(), any()));
    sink(DirectoryHeader::new(any(), any()));
    sink(any::<DirectoryHeader>().check(any()));
    sink(any::<DirectoryHeader>().entry_words());
    sink(any::<DirectoryHeader>() == any::<DirectoryHeader>());
    sink(any::<Version>() == any::<Version>());
}

/// Any record whose numbers are valid for their types.
pub fn record() -> Option<InstanceRecord> {
    Some(InstanceRecord {
        instance: instance(),
        incarnation: Incarnation::new(any())?,
        state: State::from_u32(any())?,
        layout: if crate::opaque::maybe() { Layout::RfcV2 } else { Layout::Native },
        flags: EntryFlags::from_bits_retain(any()),
        region: option(range()?),
        doorbell_cpu: PhysCpuId(any()),
        vector: vector()?,
        nr_cpus: any(),
    })
}

fn entry() {
    if let (Some(a), Some(b)) = (record(), record()) {
        sink((a.to_entry(any()), a == b));
    }
    sink(any::<InstanceEntry>().check(instance(), any()));
    sink(Layout::from_u32(any()) == Layout::from_u32(any()));
    sink(any::<InstanceEntry>() == any::<InstanceEntry>());
}

/// The functions that `bitflags!` declares.
fn flags() {
    let (mut a, b) = (EntryFlags::from_bits_retain(any()), EntryFlags::from_bits_truncate(any()));
    sink((EntryFlags::from_bits(any()), EntryFlags::empty(), EntryFlags::all()));
    sink((a.bits(), a.is_empty(), a.is_all(), a.contains(b), a.intersects(b), a == b));
    sink((a.intersection(b), a.union(b), a.difference(b), a.symmetric_difference(b), a.complement()));
    sink((a & b, a | b, a ^ b, a - b, !a));
    a.insert(b);
    a.remove(b);
    a.toggle(b);
    a.set(b, crate::opaque::maybe());
    sink((a, core::str::from_utf8(bytes()).ok().and_then(EntryFlags::from_name)));
}
