// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests that read the bytes of the tables at the offsets of the specification. In `tests/acpi_tables.rs` the parser of
//! another project reads the tables.
use super::*;
use std::cell::Cell;
use std::string::ToString;
use std::vec;
use std::vec::Vec;

const AT: u64 = 0x3000_0000;

/// A buffer to which tables were written.
struct Memory(Vec<u8>);

impl Memory {
    fn with(boot: u64, cpus: &[u64]) -> Self {
        let ids = cpus.iter().map(|id| PhysCpuId(*id));
        let mut memory = vec![0x55; len(cpus.len())];
        assert_eq!(write(&mut memory, PhysAddr(AT), PhysCpuId(boot), ids), Ok(PhysAddr(AT)));
        Self(memory)
    }

    fn get(&self, at: u64, len: usize) -> &[u8] {
        let offset = usize::try_from(at - AT).unwrap();
        &self.0[offset..offset + len]
    }

    fn u32(&self, at: u64) -> u32 {
        u32::from_le_bytes(self.get(at, 4).try_into().unwrap())
    }

    fn u64(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.get(at, 8).try_into().unwrap())
    }

    /// The bytes of the table at `at`. Checks the signature, and that the sum of the bytes is 0.
    fn table(&self, at: u64, signature: &[u8]) -> &[u8] {
        let table = self.get(at, self.u32(at + 4) as usize);
        assert_eq!((&table[..4], sum(table)), (signature, 0));
        table
    }

    fn xsdt(&self) -> u64 {
        assert_eq!((self.get(AT, 8), self.get(AT + 15, 1)), (&b"RSD PTR "[..], &[2][..]));
        assert_eq!((self.u32(AT + 16), self.u32(AT + 20)), (0, 36));
        assert_eq!((sum(self.get(AT, 20)), sum(self.get(AT, 36))), (0, 0));
        self.u64(AT + 24)
    }

    fn madt(&self) -> &[u8] {
        self.table(self.u64(self.xsdt() + 44), b"APIC")
    }

    /// The CPUs of the MADT, each with the type of its entry and its APIC id; and the address of the IO-APIC.
    fn cpus(&self) -> (Vec<(u8, u32)>, u32) {
        let (mut cpus, mut rest) = (Vec::new(), &self.madt()[44..]);
        let word = |at: &[u8]| u32::from_le_bytes(at.try_into().unwrap());
        loop {
            let entry;
            (entry, rest) = rest.split_at(rest[1].into());
            match entry {
                [0, 8, uid, id, 1, 0, 0, 0] if uid == id => cpus.push((0, u32::from(*id))),
                [9, 16, 0, 0, ..] if entry[4..8] == entry[12..] && word(&entry[8..12]) == 1 => {
                    cpus.push((9, word(&entry[4..8])));
                }
                [1, 12, 0, 0, a, b, c, d, 0, 0, 0, 0] if rest.is_empty() => {
                    return (cpus, word(&[*a, *b, *c, *d]));
                }
                _ => panic!("{entry:?}"),
            }
        }
    }
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

#[test]
fn the_tables_lead_to_each_other_and_add_up() {
    let memory = Memory::with(0, &[2]);
    let xsdt = memory.xsdt();
    assert_eq!((memory.table(xsdt, b"XSDT").len(), memory.get(xsdt + 8, 1)), (52, &[1][..]));
    let fadt = memory.u64(xsdt + 36);
    let bytes = memory.table(fadt, b"FACP");
    assert_eq!((bytes.len(), bytes[8], bytes[131]), (276, 6, 4));
    assert_eq!((bytes[109], bytes[110], memory.u32(fadt + 112)), (0x3c, 0, 0x10_0001));
    let dsdt = memory.u64(fadt + 140);
    assert_eq!((memory.table(dsdt, b"DSDT").len(), memory.get(dsdt + 8, 1)), (36, &[2][..]));
    // All these fields are 0: they describe registers and tables that do not exist.
    let rest = [&bytes[36..109], &[bytes[111]], &bytes[116..131], &bytes[132..140], &bytes[148..]];
    assert!(rest.concat().iter().all(|byte| *byte == 0));
    let madt = memory.madt();
    assert_eq!((madt[8], &madt[36..44]), (5, &[0, 0, 0xe0, 0xfe, 0, 0, 0, 0][..]));
}

#[test]
fn the_boot_cpu_comes_first_and_once() {
    assert_eq!(Memory::with(4, &[]).cpus().0, [(0, 4)]);
    assert_eq!(Memory::with(0, &[2]).cpus().0, [(0, 0), (0, 2)]);
    assert_eq!(Memory::with(4, &[9, 4, 3]).cpus().0, [(0, 4), (0, 9), (0, 3)]);
    assert_eq!(Memory::with(300, &[0, 300]).cpus().0, [(9, 300), (0, 0)]);
}

#[test]
fn a_cpu_with_a_long_id_has_the_long_entry() {
    let most = u64::from(u32::MAX - 1);
    let cpus = Memory::with(0, &[254, 255, 256, 1000, most]).cpus().0;
    assert_eq!(cpus, [(0, 0), (0, 254), (9, 255), (9, 256), (9, 1000), (9, u32::MAX - 1)]);
}

#[test]
fn the_io_apic_is_the_last_page_which_is_all_ones() {
    for count in [0, 1, 197, 198, 299] {
        let ids: Vec<u64> = (256..256 + count).collect();
        let memory = Memory::with(0, &ids);
        let (cpus, ones) = memory.cpus();
        assert_eq!(cpus.len() as u64, 1 + count);
        assert_eq!(u64::from(ones), AT + memory.0.len() as u64 - 4096);
        assert!(memory.get(ones.into(), 4096).iter().all(|byte| *byte == 0xff));
    }
}

#[test]
fn the_length_is_that_of_whole_pages() {
    let all = |cpus: usize| (0x240 + 44 + 12 + 16 * (cpus + 1)).div_ceil(4096) * 4096 + 4096;
    for cpus in [0, 1, 214, 215, 216, 217, 218, 300, 1024] {
        assert_eq!(len(cpus), all(cpus), "{cpus}");
    }
    assert_eq!((len(215), len(216)), (0x2000, 0x3000));
    assert!(len(usize::MAX) > usize::MAX - 4096);
}

#[test]
fn what_follows_the_tables_is_left_alone() {
    let mut memory = [0x55; 0x3000];
    write(&mut memory, PhysAddr(AT), PhysCpuId(0), [PhysCpuId(1)].into_iter()).unwrap();
    assert!(memory[..0x2000].iter().all(|byte| *byte != 0x55));
    assert!(memory[0x2000..].iter().all(|byte| *byte == 0x55));
}

#[test]
fn tables_that_cannot_be() {
    let with = |len: usize, at: u64, boot: u64, cpus: &[u64]| {
        let ids = cpus.iter().map(|id| PhysCpuId(*id));
        write(&mut vec![0; len], PhysAddr(at), PhysCpuId(boot), ids)
    };
    let small = AcpiError::TooSmall { needed: 0x2000, given: 0x1fff };
    assert_eq!(with(0x1fff, AT, 0, &[1]), Err(small));
    assert_eq!(small.to_string(), "the ACPI tables need 0x2000 bytes, but the buffer has 0x1fff");
    assert_eq!(with(0x2000, AT + 8, 0, &[1]), Err(AcpiError::Unaligned(PhysAddr(AT + 8))));
    assert_eq!(with(0x2000, 0xffff_e000, 0, &[1]), Ok(PhysAddr(0xffff_e000)));
    for at in [0xffff_f000, 1 << 32, u64::MAX - 0xfff] {
        let high = AcpiError::TooHigh { at: PhysAddr(at), len: 0x2000 };
        assert_eq!(with(0x2000, at, 0, &[1]), Err(high));
        assert!(high.to_string().contains(&std::format!("{at:#x}")));
    }
    for id in [u64::from(u32::MAX), 1 << 32, u64::MAX] {
        assert_eq!(with(0x2000, AT, 0, &[1, id]), Err(AcpiError::CpuId(PhysCpuId(id))));
        assert_eq!(with(0x2000, AT, id, &[1]), Err(AcpiError::CpuId(PhysCpuId(id))));
    }
    assert_eq!(with(0x2000, AT, 0, &[1, 2, 1]), Err(AcpiError::Twice(PhysCpuId(1))));
    assert_eq!(with(0x2000, AT, 0, &[7, 7]), Err(AcpiError::Twice(PhysCpuId(7))));
}

#[test]
fn a_list_that_is_longer_when_it_is_read_again() {
    let reads = Cell::new(0);
    let list = |_| {
        reads.set(reads.get() + 1);
        0..1000 * (reads.get() - 1)
    };
    let cpus = [()].into_iter().flat_map(list).map(|id| PhysCpuId(id + 1));
    let mut memory = vec![0x55; len(1000)];
    let written = write(&mut memory, PhysAddr(AT), PhysCpuId(0), cpus);
    assert!(matches!(written, Err(AcpiError::TooSmall { given: 0x1000, .. })), "{written:?}");
    assert!(memory[0x1000..0x2000].iter().all(|byte| *byte == 0xff));
    assert!(memory[0x2000..].iter().all(|byte| *byte == 0x55));
}
