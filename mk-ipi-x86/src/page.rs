// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page where a started CPU begins. The start-up interrupt has the number of this page in its vector field.

use mk_ipi_abi::{PhysAddr, PAGE_SIZE};

/// The page where a started CPU begins. The CPU begins at the first byte of the page, in real mode: CS is the address divided by
/// 16, and IP is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartPage(u8);

/// Why no CPU can start at an address. Each variant gives the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidStartPage {
    /// The address is not on a 4 KiB boundary.
    Misaligned(PhysAddr),
    /// The address is 1 MiB or above.
    TooHigh(PhysAddr),
    /// The address is in `0xa0000..0xc0000`, which is reserved (MultiProcessor Specification 1.4, B.4.2).
    Reserved(PhysAddr),
}

impl core::fmt::Display for InvalidStartPage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Misaligned(at) => {
                write!(f, "no CPU can start at {:#x}: it is not on a page boundary", at.0)
            }
            Self::TooHigh(at) => write!(f, "no CPU can start at {:#x}: it is not below 1 MiB", at.0),
            Self::Reserved(at) => write!(f, "no CPU can start at {:#x}: it is reserved", at.0),
        }
    }
}

impl core::error::Error for InvalidStartPage {}

impl StartPage {
    /// The page at the physical address `address`. It fails if no CPU can start there.
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
