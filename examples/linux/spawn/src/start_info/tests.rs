// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests that read the page at the offsets of Xen's `start_info.h`.
use super::*;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

const AT: u64 = 0x3012_3000;

/// Reads the page at physical addresses, as the kernel does.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn u32(&self, at: u64) -> u32 {
        u32::from_le_bytes(self.0[(at - AT) as usize..][..4].try_into().unwrap())
    }

    fn u64(&self, at: u64) -> u64 {
        u64::from(self.u32(at)) | u64::from(self.u32(at + 4)) << 32
    }

    fn command_line(&self) -> &[u8] {
        let text = &self.0[(self.u64(AT + 24) - AT) as usize..];
        &text[..text.iter().position(|byte| *byte == 0).unwrap()]
    }

    fn memory(&self) -> Vec<(u64, u64, u32)> {
        let (start, count) = (self.u64(AT + 40), self.u32(AT + 48));
        let piece = |at| {
            assert_eq!(self.u32(at + 20), 0);
            (self.u64(at), self.u64(at + 8), self.u32(at + 16))
        };
        (0..u64::from(count)).map(|n| piece(start + 24 * n)).collect()
    }
}

fn range(start: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr(start), len).unwrap()
}

#[test]
fn a_page_says_what_it_was_told() {
    let mut page = vec![0x55; 4096];
    let mut info = StartInfo::new(&mut page, PhysAddr(AT)).unwrap();
    assert_eq!(info.address(), PhysAddr(AT));
    info.rsdp(PhysAddr(0x3012_4000)).unwrap();
    info.initramfs(range(0x3100_0000, 0x12_3456)).unwrap();
    info.memory(range(0x5_0000, 0x1_0000), Kind::Ram).unwrap();
    info.memory(range(1 << 40, 1 << 33), Kind::Reserved).unwrap();
    info.command_line(format_args!("tsc_early_khz={} quiet", 2_000_000)).unwrap();
    let kernel = Reader(&page);
    assert_eq!((kernel.u32(AT), kernel.u32(AT + 4), kernel.u32(AT + 8)), (0x336e_c578, 1, 0));
    assert_eq!(kernel.u64(AT + 32), 0x3012_4000);
    assert_eq!(kernel.u32(AT + 12), 1);
    let module = kernel.u64(AT + 16);
    let words = [0, 8, 16, 24].map(|at| kernel.u64(module + at));
    assert_eq!(words, [0x3100_0000, 0x12_3456, 0, 0]);
    assert_eq!(kernel.memory(), [(0x5_0000, 0x1_0000, 1), (1 << 40, 1 << 33, 2)]);
    assert_eq!(kernel.command_line(), b"tsc_early_khz=2000000 quiet");
    assert_eq!(kernel.u32(AT + 52), 0);
}

#[test]
fn a_page_that_was_told_nothing_is_good_as_well() {
    let mut page = vec![0x55; 4096];
    StartInfo::new(&mut page, PhysAddr(AT)).unwrap();
    let kernel = Reader(&page);
    assert_eq!((kernel.u32(AT), kernel.u32(AT + 12), kernel.u64(AT + 32)), (0x336e_c578, 0, 0));
    assert_eq!((kernel.memory(), kernel.command_line()), (vec![], &b""[..]));
    assert!(page[..0xf00].iter().all(|byte| *byte != 0x55));
}

#[test]
fn the_callers_part_of_the_page_stays_as_it_is() {
    let mut page = vec![0x55; 4096];
    let mut info = StartInfo::new(&mut page, PhysAddr(AT)).unwrap();
    info.command_line(format_args!("{}", "x".repeat(2047))).unwrap();
    for n in 1..=MAX_MEMORY as u64 {
        info.memory(range(n << 20, 1 << 20), Kind::Ram).unwrap();
    }
    assert_eq!((CALLERS.start, CALLERS.end), (0xf00, 0x1000));
    assert!(page[CALLERS].iter().all(|byte| *byte == 0x55));
    // All data can be read, so its parts do not overlap.
    let kernel = Reader(&page);
    assert_eq!(kernel.memory().len(), 32);
    assert!(kernel.memory().iter().zip(1..).all(|(piece, n)| *piece == (n << 20, 1 << 20, 1)));
    assert_eq!(kernel.command_line().len(), 2047);
    assert_eq!(kernel.u32(AT + 12), 0);
}

#[test]
fn a_memory_map_has_room_for_32_pieces() {
    let mut page = vec![0; 4096];
    let mut info = StartInfo::new(&mut page, PhysAddr(AT)).unwrap();
    for _ in 0..32 {
        info.memory(range(0x1000, 0x1000), Kind::Ram).unwrap();
    }
    let more = range(0xabc000, 0x1000);
    let error = info.memory(more, Kind::Reserved).unwrap_err();
    assert_eq!(error, StartInfoError::TooManyPieces(more));
    assert_eq!(
        error.to_string(),
        "the memory map has 32 entries already, and no room for 0x1000 bytes at 0xabc000"
    );
    assert_eq!(Reader(&page).memory().len(), 32);
}

#[test]
fn a_command_line_is_whole_or_refused() {
    let mut page = vec![0; 4096];
    let mut line = |text: &str| {
        let mut info = StartInfo::new(&mut page, PhysAddr(AT)).unwrap();
        info.command_line(format_args!("one that was there before")).unwrap();
        let written = info.command_line(format_args!("{text}"));
        (written, String::from_utf8(Reader(&page).command_line().into()).unwrap())
    };
    let longest = "y".repeat(2047);
    assert_eq!(line(&longest), (Ok(()), longest.clone()));
    let nothing = String::new();
    let long = StartInfoError::CommandLine(2048);
    assert_eq!(line(&"y".repeat(2048)), (Err(long), nothing.clone()));
    assert_eq!(long.to_string(), "the kernel's command line has 2048 bytes, more than 2047");
    assert_eq!(line(&"y".repeat(70_000)), (Err(StartInfoError::CommandLine(70_000)), nothing.clone()));
    assert_eq!(line("one\0two"), (Err(StartInfoError::Nul(3)), nothing.clone()));
    assert_eq!(line("one\0"), (Err(StartInfoError::Nul(3)), nothing));
    assert_eq!(line("short"), (Ok(()), "short".into()));
}

#[test]
fn text_that_cannot_be_had_is_no_command_line() {
    struct Broken;
    impl fmt::Display for Broken {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            Err(fmt::Error)
        }
    }
    let mut page = vec![0; 4096];
    let mut info = StartInfo::new(&mut page, PhysAddr(AT)).unwrap();
    assert_eq!(info.command_line(format_args!("half {Broken} done")), Err(StartInfoError::Format));
    assert_eq!(Reader(&page).command_line(), b"");
}

#[test]
fn a_page_is_a_page() {
    for len in [0, 4095, 4097, 8192] {
        let made = StartInfo::new(&mut vec![0; len], PhysAddr(AT)).map(|info| info.at);
        assert_eq!(made, Err(StartInfoError::PageSize(len)));
    }
    let at = |at| StartInfo::new(&mut [0; 4096], PhysAddr(at)).map(|info| info.at.0);
    assert_eq!(at(AT + 8), Err(StartInfoError::Unaligned(PhysAddr(AT + 8))));
    assert_eq!(at(0xffff_f000), Ok(0xffff_f000));
    for high in [1 << 32, u64::MAX - 4095] {
        assert_eq!(at(high), Err(StartInfoError::TooHigh { at: PhysAddr(high), len: 4096 }));
    }
}

#[test]
fn what_a_kernel_is_given_lies_below_4_gib() {
    let mut page = vec![0; 4096];
    let mut info = StartInfo::new(&mut page, PhysAddr(AT)).unwrap();
    let at = PhysAddr(0xffff_0000);
    let high = StartInfoError::TooHigh { at, len: 0x1_0001 };
    assert_eq!(info.initramfs(range(at.0, 0x1_0001)), Err(high));
    assert_eq!(
        high.to_string(),
        "0x10001 bytes at 0xffff0000, which the kernel needs at its start, are not below 4 GiB"
    );
    assert_eq!(info.initramfs(range(at.0, 0x1_0000)), Ok(()));
    let at = PhysAddr(1 << 32);
    assert_eq!(info.rsdp(at), Err(StartInfoError::TooHigh { at, len: 1 }));
    assert_eq!(info.rsdp(PhysAddr(0xffff_ffff)), Ok(()));
}
