// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page where a started CPU begins: what the start-up interrupt carries as its vector.

use mk_ipi_abi::{PhysAddr, PAGE_SIZE};

/// The page where a started CPU begins, in real mode, at its first byte: CS is the address divided by 16, IP
/// is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartPage(u8);

/// Why no CPU can start at an address. Each variant gives the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidStartPage {
    /// Not on a 4 KiB boundary.
    Misaligned(PhysAddr),
    /// At or above 1 MiB.
    TooHigh(PhysAddr),
    /// `0xa0000..0xc0000`, which is no memory (MultiProcessor Specification 1.4, B.4.2).
    Reserved(PhysAddr),
}

impl core::fmt::Display for InvalidStartPage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Misaligned(at) => {
                write!(f, "no CPU can start at {:#x}: it is not on a page boundary", at.0)
            }
            Self::TooHigh(at) => write!(f, "no CPU can start at {:#x}: it is not below 1 MiB", at.0),
            Self::Reserved(at) => write!(f, "no CPU can start at {:#x}: it is no memory", at.0),
        }
    }
}

impl core::error::Error for InvalidStartPage {}

impl StartPage {
    /// The page at `address`.
    pub const fn new(address: PhysAddr) -> Result<Self, InvalidStartPage> {
        if !address.is_page_aligned() {
            return Err(InvalidStartPage::Misaligned(address));
        }
        match address.0 / PAGE_SIZE {
            0xa0..=0xbf => Err(InvalidStartPage::Reserved(address)),
            #[expect(clippy::cast_possible_truncation, reason = "the pattern bounds it")]
            page @ 0..=0xff => Ok(Self(page as u8)),
            _ => Err(InvalidStartPage::TooHigh(address)),
        }
    }

    /// The page's number, which is the vector of the start-up interrupt.
    pub const fn vector(self) -> u8 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(address: u64) -> Result<StartPage, InvalidStartPage> {
        StartPage::new(PhysAddr(address))
    }

    #[test]
    fn a_start_page_is_aligned_below_1_mib_and_not_reserved() {
        for (address, vector) in [(0, 0), (0x1000, 1), (0x9_f000, 0x9f), (0xc_0000, 0xc0), (0xf_f000, 0xff)] {
            assert_eq!(page(address).unwrap().vector(), vector);
        }
        for address in [1, 0x8001, 0x8800, 0x10_0001, u64::MAX] {
            assert_eq!(page(address), Err(InvalidStartPage::Misaligned(PhysAddr(address))));
        }
        for address in [0xa_0000, 0xb_f000] {
            assert_eq!(page(address), Err(InvalidStartPage::Reserved(PhysAddr(address))));
        }
        for address in [0x10_0000, 0x10a_0000, 1 << 32, !0xfff] {
            assert_eq!(page(address), Err(InvalidStartPage::TooHigh(PhysAddr(address))));
        }
    }
}
