// SPDX-License-Identifier: MIT OR Apache-2.0
//! The interrupt command register (ICR): which interrupt to send, and to which CPU.

use crate::page::StartPage;
use mk_ipi_abi::Vector;

/// What the interrupt does at the target: bits 10:8 (Intel SDM vol. 3A, 10.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum DeliveryMode {
    /// Each target takes the vector.
    Fixed = 0b000,
    /// One of the targets takes the vector: the one with the lowest priority. Not every CPU model can send this.
    LowestPriority = 0b001,
    /// System management interrupt. The vector must be 0.
    Smi = 0b010,
    /// Non-maskable interrupt. The vector is ignored.
    Nmi = 0b100,
    /// Resets the target, which then waits for a start-up interrupt. The vector must be 0.
    Init = 0b101,
    /// Start-up interrupt (SIPI): starts a CPU that waits for one. The vector is the number of the page where the CPU begins.
    StartUp = 0b110,
}

/// What the destination means: bit 11.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum DestinationMode {
    /// One APIC id, or the broadcast id.
    Physical = 0,
    /// A set of CPUs. Each APIC compares it with its logical destination register.
    Logical = 1 << 11,
}

/// Bit 14. It must be 1 ("assert") in every command except INIT de-assert. No x86-64 CPU needs INIT de-assert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Level {
    /// INIT de-assert.
    Deassert = 0,
    /// Every other command.
    Assert = 1 << 14,
}

/// Bit 15. The APIC uses it only for INIT de-assert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Trigger {
    /// Edge-triggered.
    Edge = 0,
    /// Level-triggered.
    Level = 1 << 15,
}

/// A set of targets that replaces the destination: bits 19:18.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Shorthand {
    /// No shorthand: the destination field names the targets.
    None = 0,
    /// This CPU.
    Myself = 1 << 18,
    /// All CPUs.
    All = 2 << 18,
    /// All but this CPU.
    Others = 3 << 18,
}

/// The fields of the ICR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// Bits 7:0.
    pub vector: u8,
    /// Bits 10:8.
    pub delivery: DeliveryMode,
    /// Bit 11.
    pub destination_mode: DestinationMode,
    /// Bit 14.
    pub level: Level,
    /// Bit 15.
    pub trigger: Trigger,
    /// Bits 19:18.
    pub shorthand: Shorthand,
    /// Bits 63:32 in x2APIC mode. In xAPIC mode bits 63:56, so only a value below 256 fits.
    pub destination: u32,
}

/// Bit 12 of the low half: the last interrupt has not left this APIC yet. Read only; xAPIC mode only.
pub const DELIVERY_PENDING: u32 = 1 << 12;

/// A value of the ICR, in the 64-bit form of x2APIC mode (Intel SDM vol. 3A, 10.12.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icr(u64);

impl Icr {
    /// The command with these fields.
    pub const fn new(fields: Fields) -> Self {
        let low = fields.vector as u32
            | (fields.delivery as u32) << 8
            | fields.destination_mode as u32
            | fields.level as u32
            | fields.trigger as u32
            | fields.shorthand as u32;
        Self((fields.destination as u64) << 32 | low as u64)
    }

    /// The command of a doorbell: fixed delivery of `vector`, physical destination, edge, no shorthand (SPEC A-2).
    pub const fn fixed(vector: Vector, destination: u32) -> Self {
        Self::physical(DeliveryMode::Fixed, vector.get(), destination)
    }

    /// The command that sends INIT to the CPU with the APIC id `destination`.
    pub const fn init(destination: u32) -> Self {
        Self::physical(DeliveryMode::Init, 0, destination)
    }

    /// The command that sends a start-up interrupt (SIPI) for `page` to the CPU with the APIC id `destination`.
    pub const fn start_up(page: StartPage, destination: u32) -> Self {
        Self::physical(DeliveryMode::StartUp, page.vector(), destination)
    }

    const fn physical(delivery: DeliveryMode, vector: u8, destination: u32) -> Self {
        Self::new(Fields {
            vector,
            delivery,
            destination_mode: DestinationMode::Physical,
            level: Level::Assert,
            trigger: Trigger::Edge,
            shorthand: Shorthand::None,
            destination,
        })
    }

    /// The destination field.
    pub const fn destination(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The value of the register in x2APIC mode.
    pub const fn x2apic(self) -> u64 {
        self.0
    }

    /// The value of the low half in xAPIC mode.
    #[expect(clippy::cast_possible_truncation, reason = "the function returns the low half")]
    pub const fn xapic_low(self) -> u32 {
        self.0 as u32
    }

    /// The value of the high half in xAPIC mode. `None` if the destination has more than 8 bits.
    pub const fn xapic_high(self) -> Option<u32> {
        match self.destination() {
            id @ 0..=0xff => Some(id << 24),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mk_ipi_abi::PhysAddr;

    #[test]
    fn a_doorbell_is_fixed_physical_edge_assert_without_shorthand() {
        let icr = Icr::fixed(Vector::RFC_V2, 3);
        assert_eq!((icr.xapic_high(), icr.xapic_low()), (Some(0x0300_0000), 0x0000_40ea));
        assert_eq!(icr.x2apic(), 0x0000_0003_0000_40ea);
    }

    #[test]
    fn init_and_start_up_have_the_manuals_values() {
        let page = StartPage::new(PhysAddr(0x8000)).unwrap();
        assert_eq!(Icr::init(1).x2apic(), 0x0000_0001_0000_4500);
        assert_eq!(Icr::start_up(page, 1).x2apic(), 0x0000_0001_0000_4608);
        // The commands to all other CPUs in the manual's example (8.4.4.1).
        let others = |delivery, vector| {
            let fields = Fields { shorthand: Shorthand::Others, ..fields(delivery, vector) };
            Icr::new(fields).xapic_low()
        };
        assert_eq!(others(DeliveryMode::Init, 0), 0x000c_4500);
        assert_eq!(others(DeliveryMode::StartUp, 0x12), 0x000c_4612);
    }

    const fn fields(delivery: DeliveryMode, vector: u8) -> Fields {
        Fields {
            vector,
            delivery,
            destination_mode: DestinationMode::Physical,
            level: Level::Assert,
            trigger: Trigger::Edge,
            shorthand: Shorthand::None,
            destination: 0,
        }
    }

    /// The value of the ICR if every field is 0, except those that `change` sets.
    fn with(change: impl FnOnce(&mut Fields)) -> u64 {
        let mut f = Fields { level: Level::Deassert, ..fields(DeliveryMode::Fixed, 0) };
        change(&mut f);
        Icr::new(f).x2apic()
    }

    #[test]
    fn each_field_of_the_icr_has_its_own_bits() {
        use DeliveryMode::*;
        assert_eq!(with(|_| ()), 0);
        assert_eq!(with(|f| f.vector = 0xff), 0xff);
        for (delivery, bits) in
            [(Fixed, 0), (LowestPriority, 0x100), (Smi, 0x200), (Nmi, 0x400), (Init, 0x500), (StartUp, 0x600)]
        {
            assert_eq!(with(|f| f.delivery = delivery), bits, "{delivery:?}");
        }
        assert_eq!(with(|f| f.destination_mode = DestinationMode::Logical), 0x800);
        assert_eq!(with(|f| f.level = Level::Assert), 0x4000);
        assert_eq!(with(|f| f.trigger = Trigger::Level), 0x8000);
        assert_eq!(with(|f| f.shorthand = Shorthand::Myself), 0x4_0000);
        assert_eq!(with(|f| f.shorthand = Shorthand::All), 0x8_0000);
        assert_eq!(with(|f| f.shorthand = Shorthand::Others), 0xc_0000);
        assert_eq!(with(|f| f.destination = u32::MAX), 0xffff_ffff_0000_0000);
        assert_eq!(DELIVERY_PENDING, 0x1000);
    }

    #[test]
    fn a_destination_has_8_bits_in_xapic_mode_and_32_in_x2apic_mode() {
        for (id, high) in
            [(0, Some(0)), (1, Some(1 << 24)), (254, Some(0xfe00_0000)), (255, Some(0xff00_0000))]
        {
            assert_eq!(Icr::fixed(Vector::RFC_V2, id).xapic_high(), high);
        }
        for id in [256, 0x0100_0000, u32::MAX] {
            let icr = Icr::fixed(Vector::RFC_V2, id);
            assert_eq!((icr.xapic_high(), icr.destination()), (None, id));
            assert_eq!(icr.x2apic() >> 32, u64::from(id));
        }
    }
}
