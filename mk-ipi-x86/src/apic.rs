// SPDX-License-Identifier: MIT OR Apache-2.0
//! The local APIC as a doorbell.

use crate::icr::{Icr, DELIVERY_PENDING};
use crate::mode::{ApicBase, Mode, ModeError};
use crate::regs::{ApicIo, Register};
use mk_ipi_abi::{PhysCpuId, Vector};
use mk_ipi_core::platform::{Doorbell, DoorbellError};

/// How often a send looks at the delivery status before it gives up. This takes some milliseconds with interrupts off;
/// a delivery takes about a microsecond. The manual states no bound.
pub const IDLE_POLLS: u32 = 20_000;

bitflags::bitflags! {
    /// The error status register (Intel SDM vol. 3A, 10.5.3). Several bits can be set at once.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ErrorStatus: u32 {
        /// A message sent had a bad checksum (P6 and Pentium only).
        const SEND_CHECKSUM = 1 << 0;
        /// A message received had a bad checksum (P6 and Pentium only).
        const RECEIVE_CHECKSUM = 1 << 1;
        /// No APIC accepted a message that was sent. AMD's CPUs report this (AMD64 APM vol. 2, 24593, "APIC Error
        /// Interrupts"); of Intel's CPUs only P6 and Pentium do.
        const SEND_ACCEPT = 1 << 2;
        /// No APIC accepted a message received (P6 and Pentium only).
        const RECEIVE_ACCEPT = 1 << 3;
        /// A lowest-priority interrupt, which this CPU cannot send.
        const REDIRECTABLE_IPI = 1 << 4;
        /// A vector below 16 in an interrupt sent.
        const SEND_ILLEGAL_VECTOR = 1 << 5;
        /// A vector below 16 in an interrupt received, or in the local vector table.
        const RECEIVED_ILLEGAL_VECTOR = 1 << 6;
        /// An access to a register that does not exist (xAPIC mode; in x2APIC mode it faults).
        const ILLEGAL_REGISTER = 1 << 7;
        /// Bits reserved today are reported, not hidden.
        const _ = !0;
    }
}

impl ErrorStatus {
    /// The errors which say that an interrupt that was sent reached no CPU: [`SEND_CHECKSUM`](Self::SEND_CHECKSUM),
    /// [`SEND_ACCEPT`](Self::SEND_ACCEPT), [`REDIRECTABLE_IPI`](Self::REDIRECTABLE_IPI),
    /// [`SEND_ILLEGAL_VECTOR`](Self::SEND_ILLEGAL_VECTOR).
    pub const SEND: Self = Self::SEND_CHECKSUM
        .union(Self::SEND_ACCEPT)
        .union(Self::REDIRECTABLE_IPI)
        .union(Self::SEND_ILLEGAL_VECTOR);
}

/// The vector of an interrupt that went away before the CPU took it (Intel SDM vol. 3A, 10.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpuriousVector(u8);

impl SpuriousVector {
    /// The usual vector, 0xff.
    pub const DEFAULT: Self = Self(0xff);

    /// The vector `v`, or `None` below 32, where the exceptions are.
    pub const fn new(v: u8) -> Option<Self> {
        match v {
            0x20..=0xff => Some(Self(v)),
            _ => None,
        }
    }

    /// The register's value with the APIC enabled: bit 8.
    const fn enabled(self) -> u32 {
        1 << 8 | self.0 as u32
    }
}

/// How the machine's boot CPU is known.
#[derive(Clone, Copy, Debug)]
enum BootCpu {
    Unknown,
    Told(PhysCpuId),
    /// By its own flag.
    Flagged(PhysCpuId),
}

/// Checks that this CPU's id fits into the id register of `mode`. A CPU that does not report its id of 32 bits passes.
fn has_room(mode: Mode, io: &impl ApicIo) -> Result<(), ModeError> {
    match (mode, io.long_id()) {
        (Mode::XApic, Some(id @ 0xff..)) => Err(ModeError::IdTooLong(id)),
        _ => Ok(()),
    }
}

/// Most interrupts in service: one for each vector.
const MOST_IN_SERVICE: u32 = 256;

/// The local APIC of whichever CPU runs the call: one object serves all CPUs of a kernel.
#[derive(Clone, Copy, Debug)]
pub struct LocalApic<Io> {
    io: Io,
    mode: Mode,
    boot_cpu: BootCpu,
    checks_errors: bool,
}

impl<Io: ApicIo> LocalApic<Io> {
    /// The APIC, in the mode that this CPU's APIC is in now.
    ///
    /// An xAPIC is refused if its page is not mapped ([`ModeError::NotMapped`]), or if the CPU's id is above 254
    /// ([`ModeError::IdTooLong`]): [`Mode`] says what such a CPU means for all kernels of its machine.
    ///
    /// On the CPU that booted the machine it also learns that CPU's id ([`boot_cpu`](Self::boot_cpu)). It reads the
    /// flag and the id with interrupts off, so that both are of the same CPU.
    pub fn new(io: Io) -> Result<Self, ModeError> {
        let mode = match Mode::read(&io)? {
            Mode::XApic if !io.has_mmio() => return Err(ModeError::NotMapped),
            mode => mode,
        };
        has_room(mode, &io)?;
        let mut apic = Self { io, mode, boot_cpu: BootCpu::Unknown, checks_errors: false };
        let state = apic.io.disable();
        if ApicBase::read(&apic.io).contains(ApicBase::BSP) {
            apic.boot_cpu = BootCpu::Flagged(apic.apic_id());
        }
        apic.io.restore(state);
        Ok(apic)
    }

    /// The same APIC, told which CPU booted the machine. A kernel needs this if [`new`](Self::new) ran on another CPU.
    ///
    /// The machine's first kernel knows it from its CPU's own flag (Intel SDM vol. 3A, 10.4.4), or from the ACPI MADT:
    /// its first processor entry should be the boot CPU (ACPI 6.5, 5.2.12.1). That kernel tells the kernels that it
    /// starts. If `new` saw the flag itself, `cpu` is ignored. A wrong `cpu` lets [`stop_cpu`](crate::stop_cpu) reset
    /// the machine.
    #[must_use]
    pub fn with_boot_cpu(mut self, cpu: PhysCpuId) -> Self {
        if !matches!(self.boot_cpu, BootCpu::Flagged(_)) {
            self.boot_cpu = BootCpu::Told(cpu);
        }
        self
    }

    /// The same APIC, with a look at the error status after each doorbell that `ring` sends: [`DoorbellError::Refused`]
    /// then names the errors of [`ErrorStatus::SEND`] that the APIC reports.
    ///
    /// Off unless asked for, because it costs much and tells little. Each `ring` then accesses registers four more
    /// times and, in xAPIC mode, waits until the interrupt has left: some microseconds, all with interrupts off. AMD's
    /// CPUs report that a target does not exist ("sent accept error"); Intel's have not done so since the Pentium 4
    /// (Intel SDM vol. 3A, 10.5.3). In x2APIC mode nothing says when a report has arrived. So use this to search for an
    /// error. A doorbell from an NMI handler is sent without the look.
    ///
    /// Each `ring` loses the errors from before it, which [`read_errors`](Self::read_errors) would have given.
    /// [`DoorbellError::Stuck`] can then also mean that the interrupt was sent and does not leave.
    #[must_use]
    pub fn with_error_check(mut self) -> Self {
        self.checks_errors = true;
        self
    }

    /// The CPU that booted the machine, if that is known: from its own flag, which `new` saw, or from
    /// [`with_boot_cpu`](Self::with_boot_cpu). [`start_cpu`](crate::start_cpu) and [`stop_cpu`](crate::stop_cpu) need
    /// it.
    pub const fn boot_cpu(&self) -> Option<PhysCpuId> {
        match self.boot_cpu {
            BootCpu::Unknown => None,
            BootCpu::Told(cpu) | BootCpu::Flagged(cpu) => Some(cpu),
        }
    }

    /// Checks that this CPU's APIC is in the mode for which the object was made, and that its id fits there. Each CPU
    /// calls it once.
    pub fn confirm_mode(&self) -> Result<(), ModeError> {
        match Mode::read(&self.io)? {
            mode if mode == self.mode => has_room(mode, &self.io),
            mode => Err(ModeError::Differs(mode)),
        }
    }

    /// The mode.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// The access to the registers.
    pub const fn io(&self) -> &Io {
        &self.io
    }

    /// This CPU's id: what peers ring, and the index of its slot. [`new`](Self::new) and
    /// [`confirm_mode`](Self::confirm_mode) have checked that it fits into the 8 bits of xAPIC mode.
    pub fn apic_id(&self) -> PhysCpuId {
        let id = self.read(Register::Id);
        PhysCpuId(match self.mode {
            Mode::XApic => u64::from(id >> 24),
            Mode::X2Apic => u64::from(id),
        })
    }

    /// Ends the interrupt in service: once per doorbell interrupt, before its messages are read, so that a
    /// message that comes later rings again. Not for a spurious interrupt, which is not in service.
    pub fn eoi(&self) {
        // SAFETY: the register takes 0 in both modes; it touches no memory.
        unsafe { self.write(Register::Eoi, 0) }
    }

    /// Reads the errors since the last call, and clears them.
    ///
    /// The register shows nothing new before it is written (Intel SDM vol. 3A, 10.5.3). Interrupts are off between the
    /// write and the read: a handler that reads the errors, too, could otherwise take what this call should report.
    pub fn read_errors(&self) -> ErrorStatus {
        let state = self.io.disable();
        // SAFETY: the register takes 0 in both modes; it touches no memory.
        unsafe { self.write(Register::ErrorStatus, 0) };
        let errors = self.read(Register::ErrorStatus);
        self.io.restore(state);
        ErrorStatus::from_bits_retain(errors)
    }

    /// Makes this CPU's APIC accept interrupts: it lets every priority in and enables the APIC in software (Intel SDM
    /// vol. 3A, 10.4.7.2). Each CPU calls it once, and not in an interrupt handler.
    ///
    /// First it ends the interrupts that a former kernel left in service. Such a kernel was stopped inside a handler
    /// and replaced without a reset, as by kexec. Until its end, each such interrupt holds back all others of its
    /// priority and below (10.8.4, 10.8.5). The end of a level-triggered one also goes to the I/O APICs, which would
    /// otherwise never raise that line again. A CPU that was started anew ([`start_cpu`](crate::start_cpu)) has none in
    /// service, because INIT clears them.
    ///
    /// Interrupts that were requested and not yet taken (the IRR) cannot be cleared by software. They are
    /// delivered once interrupts are on.
    ///
    /// # Safety
    ///
    /// Once interrupts are on, the IDT has entries for `spurious`, whose handler must not call [`eoi`](Self::eoi), and
    /// for every vector that any kernel can send here, or has sent to the kernel that ran here before. No handler of
    /// this kernel has an interrupt in service on this CPU, because this call ends them all.
    pub unsafe fn enable(&self, spurious: SpuriousVector) {
        self.end_all_in_service();
        // SAFETY: both values are legal in both modes; the caller promises the handlers.
        unsafe {
            self.write(Register::TaskPriority, 0);
            self.write(Register::SpuriousVector, spurious.enabled());
        }
    }

    /// Ends all interrupts in service. Each EOI ends the highest one. The loop is bounded, in case an APIC ends none.
    fn end_all_in_service(&self) {
        for _ in 0..MOST_IN_SERVICE {
            if Register::IN_SERVICE.iter().all(|&register| self.read(register) == 0) {
                break;
            }
            self.eoi();
        }
    }

    /// Sends any command.
    ///
    /// [`DoorbellError::Unreachable`] if the destination has no room in this mode, or
    /// [`DoorbellError::Stuck`] if an earlier interrupt does not leave; nothing is sent then.
    ///
    /// # Safety
    ///
    /// The caller may do to the targets what the command does. An INIT, for example, stops a CPU whatever it runs.
    pub unsafe fn send(&self, icr: Icr) -> Result<(), DoorbellError> {
        match self.mode {
            Mode::XApic => {
                let state = self.io.disable();
                // SAFETY: interrupts are off; the caller promises the rest.
                let sent = unsafe { self.send_xapic(icr) };
                self.io.restore(state);
                sent
            }
            Mode::X2Apic => {
                // WRMSR to an x2APIC register waits for no earlier store: the interrupt could overtake the
                // message. MFENCE makes the stores visible, LFENCE keeps the WRMSR from starting before that
                // (Intel SDM vol. 3A, 10.12.3).
                self.io.fence_before_doorbell();
                // SAFETY: the CPU is in x2APIC mode, an `Icr` has no reserved bits; the caller promises the rest.
                unsafe { self.io.wrmsr(Register::IcrLow.msr(), icr.x2apic()) };
                Ok(())
            }
        }
    }

    /// Writes two registers. The second write sends.
    ///
    /// No fence: a store to UC memory becomes visible after all earlier stores ([`ApicIo`]).
    ///
    /// # Safety
    ///
    /// As for `send`. The CPU is in xAPIC mode, and no interrupt handler sends anything between the two writes.
    unsafe fn send_xapic(&self, icr: Icr) -> Result<(), DoorbellError> {
        let high = icr.xapic_high().ok_or(DoorbellError::Unreachable(PhysCpuId(icr.destination().into())))?;
        self.wait_idle()?;
        // SAFETY: the caller promises all of it.
        unsafe {
            self.io.mmio_write(Register::IcrHigh, high);
            self.io.mmio_write(Register::IcrLow, icr.xapic_low());
        }
        Ok(())
    }

    /// Waits until the last interrupt has left: a command written earlier may be lost (Intel SDM vol. 3A,
    /// 10.6.1, "Delivery Status").
    fn wait_idle(&self) -> Result<(), DoorbellError> {
        for _ in 0..IDLE_POLLS {
            if self.read(Register::IcrLow) & DELIVERY_PENDING == 0 {
                return Ok(());
            }
            self.io.pause();
        }
        Err(DoorbellError::Stuck)
    }

    /// Sends a command and checks what the APIC reports of it, see [`with_error_check`](Self::with_error_check).
    ///
    /// # Safety
    ///
    /// As for `send`.
    unsafe fn send_checked(&self, icr: Icr) -> Result<(), DoorbellError> {
        let state = self.io.disable();
        self.read_errors();
        // SAFETY: the caller promises it.
        let sent = unsafe { self.send(icr) };
        let left = match self.mode {
            Mode::XApic => sent.and_then(|()| self.wait_idle()),
            Mode::X2Apic => sent,
        };
        let errors = self.read_errors().intersection(ErrorStatus::SEND);
        self.io.restore(state);
        left?;
        if errors.is_empty() {
            Ok(())
        } else {
            Err(DoorbellError::Refused(errors.bits()))
        }
    }

    /// The destination field for one CPU. The highest id of each mode is the broadcast (Intel SDM vol. 3A,
    /// 10.6.2.1 and 10.12.9).
    pub(crate) fn reach(&self, cpu: PhysCpuId) -> Result<u32, DoorbellError> {
        let last = match self.mode {
            Mode::XApic => 0xfe,
            Mode::X2Apic => 0xffff_fffe,
        };
        match u32::try_from(cpu.0) {
            Ok(id) if id <= last => Ok(id),
            _ => Err(DoorbellError::Unreachable(cpu)),
        }
    }

    fn read(&self, register: Register) -> u32 {
        match self.mode {
            // SAFETY: the CPU is in xAPIC mode, and `new` saw that the page is mapped.
            Mode::XApic => unsafe { self.io.mmio_read(register) },
            // The upper half of a 32-bit register is reserved (Intel SDM vol. 3A, 10.12.1.2).
            #[expect(clippy::cast_possible_truncation, reason = "see above")]
            // SAFETY: the CPU is in x2APIC mode; `IcrHigh` alone has no MSR, and is read in xAPIC mode only.
            Mode::X2Apic => unsafe { self.io.rdmsr(register.msr()) as u32 },
        }
    }

    /// # Safety
    ///
    /// The register takes the value, and the caller may cause the effect.
    // Inlined, so that each WRMSR says which register it writes: the check of the disassembly must tell them apart (SPEC A-5).
    #[inline(always)]
    unsafe fn write(&self, register: Register, value: u32) {
        match self.mode {
            // SAFETY: the CPU is in xAPIC mode, and `new` saw the page mapped; the caller promises the rest.
            Mode::XApic => unsafe { self.io.mmio_write(register, value) },
            // SAFETY: the CPU is in x2APIC mode; the caller promises the rest.
            Mode::X2Apic => unsafe { self.io.wrmsr(register.msr(), value.into()) },
        }
    }
}

// SAFETY: ordering is by the UC store in xAPIC mode and by the fence in x2APIC mode, see `send`; a physical
// destination that is no broadcast id reaches one CPU.
//
// The error status is looked at only if that was asked for: `with_error_check` says why.
unsafe impl<Io: ApicIo> Doorbell for LocalApic<Io> {
    fn check(&self, cpu: PhysCpuId, _vector: Vector) -> Result<(), DoorbellError> {
        self.reach(cpu).map(drop)
    }

    fn ring(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        let icr = Icr::fixed(vector, self.reach(cpu)?);
        if self.checks_errors {
            // SAFETY: an interrupt with a vector that its kernel expects, at the one CPU that was named.
            return unsafe { self.send_checked(icr) };
        }
        // SAFETY: as above.
        unsafe { self.send(icr) }
    }

    /// It can interrupt another send between its two writes. So it puts the high half back to that send's value once
    /// its own interrupt has left.
    fn ring_from_nmi(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        let icr = Icr::fixed(vector, self.reach(cpu)?);
        if self.mode == Mode::X2Apic {
            // SAFETY: as in `ring`.
            return unsafe { self.send(icr) };
        }
        let high = self.read(Register::IcrHigh);
        // SAFETY: as in `ring`; what an NMI handler's write could break is put back.
        let sent = unsafe { self.send_xapic(icr) };
        let left = self.wait_idle();
        // SAFETY: it is the value that was there, and a write of this half sends nothing.
        unsafe { self.io.mmio_write(Register::IcrHigh, high) };
        sent.and(left)
    }
}

#[cfg(test)]
#[path = "apic_tests.rs"]
mod tests;
