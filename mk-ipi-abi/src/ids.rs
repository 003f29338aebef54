// SPDX-License-Identifier: MIT OR Apache-2.0
//! Types for the numbers of kernels, of their lives, CPUs, message types, vectors and physical memory.

use crate::{Errno, PAGE_SIZE};
use core::num::NonZeroU32;

/// Number of kernel instances a machine can have (`MK_MAX_INSTANCES`; SPEC T-1).
pub const MK_MAX_INSTANCES: usize = 256;

/// The number of a kernel instance: `0..=255` (SPEC T-1). Every value of this type is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(u8);

impl InstanceId {
    /// The host kernel of a machine. By convention it has this number (SPEC D-6).
    pub const HOST: Self = Self(0);

    /// The instance `id`. Every byte is a valid id.
    pub const fn new(id: u8) -> Self {
        Self(id)
    }

    /// The number, `0..=255`.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The number as an index into a table of [`MK_MAX_INSTANCES`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// An instance number outside `0..256`. It holds the number that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidInstance(pub i64);

impl core::fmt::Display for InvalidInstance {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} is not an instance id: instance ids are 0 to 255", self.0)
    }
}

impl core::error::Error for InvalidInstance {}

impl InvalidInstance {
    /// `EINVAL`, as the C calls return for an id out of range (SPEC C-2).
    pub const fn errno(self) -> Errno {
        Errno::EINVAL
    }
}

impl TryFrom<i64> for InstanceId {
    type Error = InvalidInstance;
    fn try_from(id: i64) -> Result<Self, InvalidInstance> {
        u8::try_from(id).map(Self).map_err(|_| InvalidInstance(id))
    }
}

impl TryFrom<i32> for InstanceId {
    type Error = InvalidInstance;
    fn try_from(id: i32) -> Result<Self, InvalidInstance> {
        Self::try_from(i64::from(id))
    }
}

/// One life of one kernel. It changes with every restart and is never 0 (SPEC T-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Incarnation(NonZeroU32);

impl Incarnation {
    /// The first life of a kernel.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// The incarnation `n`, or `None` for 0.
    pub const fn new(n: u32) -> Option<Self> {
        match NonZeroU32::new(n) {
            Some(n) => Some(Self(n)),
            None => None,
        }
    }

    /// The number, never 0.
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// The incarnation of the next life: the next number, or 1 after `u32::MAX`.
    pub const fn next(self) -> Self {
        match NonZeroU32::new(self.get().wrapping_add(1)) {
            Some(n) => Self(n),
            None => Self::FIRST,
        }
    }

    /// Whether this life is earlier than `other`: `other` is 1 to 2^31 - 1 numbers ahead. The numbers wrap (SPEC N-12).
    pub const fn is_before(self, other: Self) -> bool {
        let lives = other.get().wrapping_sub(self.get());
        lives != 0 && lives < 1 << 31
    }
}

/// The id by which the interrupt controller addresses a CPU. On x86 it is the APIC id. It is never a kernel's logical CPU number.
///
/// It has 64 bits on every architecture. The ids of a machine can have gaps (SPEC T-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct PhysCpuId(pub u64);

/// The user-defined type of a message, 32 bits on the wire (SPEC L-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageType(pub u32);

/// A type that does not fit into the 32 bits of the wire (SPEC H-14). It holds the number that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeTooLarge(pub u64);

impl core::fmt::Display for TypeTooLarge {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "the message type {:#x} does not fit into 32 bits", self.0)
    }
}

impl core::error::Error for TypeTooLarge {}

impl TypeTooLarge {
    /// `ERANGE`.
    pub const fn errno(self) -> Errno {
        Errno::ERANGE
    }
}

impl TryFrom<u64> for MessageType {
    type Error = TypeTooLarge;
    /// The C calls take the type as `unsigned long`. A type above 32 bits is refused, not truncated.
    fn try_from(ty: u64) -> Result<Self, TypeTooLarge> {
        u32::try_from(ty).map(Self).map_err(|_| TypeTooLarge(ty))
    }
}

/// An interrupt vector that may serve as a doorbell: `0x20..=0xfe` on x86.
///
/// Lower vectors are exceptions (Intel SDM vol. 3A, 6.2). `0xff` is the usual spurious vector.
///
/// The directory uses this range on every architecture (SPEC L-6). On arm64 and riscv64 vector `0x20 + n` stands for interrupt *n*
/// of the controller: [`of_number`](Self::of_number).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Vector(u8);

/// The lowest vector.
const FIRST_VECTOR: u8 = 0x20;

impl Vector {
    /// `MULTIKERNEL_VECTOR` of the RFC v2 C peers (SPEC L-6).
    pub const RFC_V2: Self = Self(0xea);

    /// The vector `v`, or `None` outside `0x20..=0xfe`.
    pub const fn new(v: u8) -> Option<Self> {
        match v {
            0x20..=0xfe => Some(Self(v)),
            _ => None,
        }
    }

    /// The vector that stands for interrupt `n` of a controller that has numbers of its own, as on arm64 and riscv64: `0x20 + n`.
    /// `None` if `n` is 0xdf or above.
    pub const fn of_number(n: u8) -> Option<Self> {
        match n.checked_add(FIRST_VECTOR) {
            Some(v) => Self::new(v),
            None => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The interrupt number *n* that was given to [`of_number`](Self::of_number) for this vector: the vector minus 0x20.
    pub const fn number(self) -> u8 {
        // No wrap: no vector is below `FIRST_VECTOR`.
        self.0.wrapping_sub(FIRST_VECTOR)
    }
}

/// A physical address, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhysAddr(pub u64);

impl PhysAddr {
    /// The first address that no x86-64 or arm64 CPU can use: 2^52 (Intel SDM vol. 3A, 4.1.4; Arm ARM D8.1).
    pub const LIMIT: u64 = 1 << 52;

    /// Whether the address lies on a 4 KiB page boundary.
    pub const fn is_page_aligned(self) -> bool {
        self.0 & 0xfff == 0
    }
}

/// A range of physical memory: start and length in bytes. It is never empty, and never ends above [`PhysAddr::LIMIT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PhysRange {
    start: PhysAddr,
    len: u64,
}

impl PhysRange {
    /// The range of `len` bytes at `start`; `None` if it is empty or ends above [`PhysAddr::LIMIT`].
    pub const fn new(start: PhysAddr, len: u64) -> Option<Self> {
        match start.0.checked_add(len) {
            Some(end) if len != 0 && end <= PhysAddr::LIMIT => Some(Self { start, len }),
            _ => None,
        }
    }

    /// First byte.
    pub const fn start(self) -> PhysAddr {
        self.start
    }

    /// Length in bytes, never 0.
    #[expect(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub const fn len(self) -> u64 {
        self.len
    }

    /// First byte after the range.
    pub const fn end(self) -> PhysAddr {
        // `new` checked the sum: it does not wrap, and is not above the limit.
        PhysAddr(self.start.0.wrapping_add(self.len))
    }

    /// Whether the two ranges share a byte.
    pub const fn overlaps(self, other: Self) -> bool {
        self.start.0 < other.end().0 && other.start.0 < self.end().0
    }
}

/// The number of a 4 KiB page: physical address divided by 4,096.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pfn(pub u64);

impl Pfn {
    /// The 4,096 bytes of the page; `None` if the page is not below [`PhysAddr::LIMIT`].
    pub const fn range(self) -> Option<PhysRange> {
        match self.0.checked_mul(PAGE_SIZE) {
            Some(start) => PhysRange::new(PhysAddr(start), PAGE_SIZE),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instance_ids_are_0_to_255() {
        for id in 0..256i32 {
            assert_eq!(InstanceId::try_from(id).unwrap().index(), id as usize);
        }
        for id in [-1, 256, i32::MIN, i32::MAX] {
            let e = InstanceId::try_from(id).unwrap_err();
            assert_eq!((e.0, e.errno().to_c()), (i64::from(id), -22));
        }
    }

    #[test]
    fn incarnations_skip_zero() {
        assert_eq!(Incarnation::new(0), None);
        assert_eq!(Incarnation::FIRST.next().get(), 2);
        assert_eq!(Incarnation::new(u32::MAX).unwrap().next(), Incarnation::FIRST);
    }

    #[test]
    fn lives_are_in_order_across_the_wrap() {
        let life = |n| Incarnation::new(n).unwrap();
        let cases = [(1, 2, true), (2, 1, false), (7, 7, false), (u32::MAX, 1, true), (1, u32::MAX, false)];
        let far = [(1, 1 << 31, true), (1, (1 << 31) + 1, false), (2, (1 << 31) + 2, false)];
        for (a, b, before) in cases.into_iter().chain(far) {
            assert_eq!(life(a).is_before(life(b)), before, "{a} {b}");
        }
    }

    #[test]
    fn a_type_above_32_bits_is_refused() {
        assert_eq!(MessageType::try_from(0xffff_ffffu64), Ok(MessageType(u32::MAX)));
        assert_eq!(MessageType::try_from(1u64 << 32), Err(TypeTooLarge(1 << 32)));
    }

    #[test]
    fn vectors_leave_out_exceptions_and_the_spurious_one() {
        assert!((0..=255u8).all(|v| Vector::new(v).is_some() == (0x20..=0xfe).contains(&v)));
        assert_eq!(Vector::RFC_V2, Vector::new(0xea).unwrap());
    }

    #[test]
    fn a_vector_stands_for_one_interrupt_of_a_controller_with_numbers() {
        for n in 0..=255u8 {
            assert_eq!(Vector::of_number(n).map(Vector::number), (n <= 0xde).then_some(n));
        }
        assert_eq!(Vector::of_number(1), Vector::new(0x21));
    }

    #[test]
    fn ranges_are_neither_empty_nor_wrapped() {
        let r = |s, l| PhysRange::new(PhysAddr(s), l);
        assert_eq!(r(0x1000, 0), None);
        assert_eq!(r(u64::MAX, 1), None);
        assert_eq!(r(PhysAddr::LIMIT - 1, 2), None);
        assert_eq!(r(PhysAddr::LIMIT - 1, 1).unwrap().end().0, PhysAddr::LIMIT);
        let (a, b, c) = (r(0, 10).unwrap(), r(9, 1).unwrap(), r(10, 5).unwrap());
        assert!(a.overlaps(b) && b.overlaps(a) && !a.overlaps(c) && !c.overlaps(a));
        assert!(PhysAddr(0x2000).is_page_aligned() && !PhysAddr(0x2008).is_page_aligned());
    }

    #[test]
    fn a_pfn_is_a_page_a_cpu_can_address() {
        let page = Pfn(0x1234).range().unwrap();
        assert_eq!((page.start().0, page.len()), (0x123_4000, 4096));
        assert_eq!(Pfn((1 << 40) - 1).range().unwrap().end().0, PhysAddr::LIMIT);
        for pfn in [1 << 40, 1 << 52, u64::MAX] {
            assert_eq!(Pfn(pfn).range(), None);
        }
    }
}
