// SPDX-License-Identifier: MIT OR Apache-2.0
//! The local APIC as a doorbell.

use crate::icr::{Icr, DELIVERY_PENDING};
use crate::mode::{ApicBase, Mode, ModeError};
use crate::regs::{ApicIo, Register};
use mk_ipi_abi::{PhysCpuId, Vector};
use mk_ipi_core::platform::{Doorbell, DoorbellError};

/// The number of times that a send reads the delivery status before it fails with [`DoorbellError::Stuck`]. These reads take some
/// milliseconds, with interrupts off. A delivery usually takes about a microsecond. The manual gives no upper limit.
pub const IDLE_POLLS: u32 = 20_000;

bitflags::bitflags! {
    /// The error status register (Intel SDM vol. 3A, 10.5.3). Several bits can be set at once.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ErrorStatus: u32 {
        /// This APIC sent a message with a bad checksum (P6 and Pentium only).
        const SEND_CHECKSUM = 1 << 0;
        /// This APIC received a message with a bad checksum (P6 and Pentium only).
        const RECEIVE_CHECKSUM = 1 << 1;
        /// This APIC sent a message that no APIC accepted. AMD's CPUs report this (AMD64 APM vol. 2, 24593, "APIC Error
        /// Interrupts"). Of Intel's CPUs, only P6 and Pentium report it.
        const SEND_ACCEPT = 1 << 2;
        /// A message arrived at this APIC, and no APIC accepted it, not even this one (P6 and Pentium only).
        const RECEIVE_ACCEPT = 1 << 3;
        /// Software wrote a command for a lowest-priority interrupt, and this CPU cannot send such interrupts.
        const REDIRECTABLE_IPI = 1 << 4;
        /// Software wrote a command for an interrupt with a vector below 16.
        const SEND_ILLEGAL_VECTOR = 1 << 5;
        /// This APIC received an interrupt with a vector below 16, or the local vector table has one.
        const RECEIVED_ILLEGAL_VECTOR = 1 << 6;
        /// Software accessed a register that does not exist (only in xAPIC mode: in x2APIC mode the access faults).
        const ILLEGAL_REGISTER = 1 << 7;
        /// Reserved bits are kept, so that a caller can see errors that only later CPUs report.
        const _ = !0;
    }
}

impl ErrorStatus {
    /// The errors that mean that an interrupt of this APIC has reached no CPU: [`SEND_CHECKSUM`](Self::SEND_CHECKSUM),
    /// [`SEND_ACCEPT`](Self::SEND_ACCEPT), [`REDIRECTABLE_IPI`](Self::REDIRECTABLE_IPI),
    /// [`SEND_ILLEGAL_VECTOR`](Self::SEND_ILLEGAL_VECTOR).
    pub const SEND: Self = Self::SEND_CHECKSUM
        .union(Self::SEND_ACCEPT)
        .union(Self::REDIRECTABLE_IPI)
        .union(Self::SEND_ILLEGAL_VECTOR);
}

/// The spurious vector. The CPU gets this vector if an interrupt was announced to it and is masked before the CPU has taken it
/// (Intel SDM vol. 3A, 10.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpuriousVector(u8);

impl SpuriousVector {
    /// The usual vector, 0xff.
    pub const DEFAULT: Self = Self(0xff);

    /// The vector `v`. `None` if it is below 32: these vectors belong to exceptions.
    pub const fn new(v: u8) -> Option<Self> {
        match v {
            0x20..=0xff => Some(Self(v)),
            _ => None,
        }
    }

    /// The value of the spurious vector register that sets this vector and enables the APIC (bit 8).
    const fn enabled(self) -> u32 {
        1 << 8 | self.0 as u32
    }
}

/// The CPU that booted the machine, and how its id became known.
#[derive(Clone, Copy, Debug)]
enum BootCpu {
    Unknown,
    /// `with_boot_cpu` named it.
    Told(PhysCpuId),
    /// `new` ran on this CPU, and its `IA32_APIC_BASE` has the flag BSP.
    Flagged(PhysCpuId),
}

/// In xAPIC mode, checks that this CPU's 32-bit id is at most 254, because 255 stands for all CPUs. Returns `Ok` without a check
/// in x2APIC mode, or if the CPU does not report its 32-bit id.
fn has_room(mode: Mode, io: &impl ApicIo) -> Result<(), ModeError> {
    match (mode, io.long_id()) {
        (Mode::XApic, Some(id @ 0xff..)) => Err(ModeError::IdTooLong(id)),
        _ => Ok(()),
    }
}

/// The largest number of interrupts that can be in service: one for each vector.
const MOST_IN_SERVICE: u32 = 256;

/// The local APIC. Each call accesses the APIC of the CPU that runs the call, so one object serves all CPUs of a kernel.
#[derive(Clone, Copy, Debug)]
pub struct LocalApic<Io> {
    io: Io,
    mode: Mode,
    boot_cpu: BootCpu,
    checks_errors: bool,
}

impl<Io: ApicIo> LocalApic<Io> {
    /// Makes the object for the mode in which this CPU's APIC is now.
    ///
    /// It fails if the APIC is off ([`ModeError::Disabled`]) or its mode bits are invalid ([`ModeError::Invalid`]). In xAPIC mode
    /// it also fails if the page is not mapped ([`ModeError::NotMapped`]), or if the CPU's id is above 254
    /// ([`ModeError::IdTooLong`]). [`Mode`] says what all kernels of a machine must do if it has a CPU with such an id.
    ///
    /// If this CPU booted the machine, the object keeps the id of this CPU ([`boot_cpu`](Self::boot_cpu)). The call reads
    /// the flag BSP and the id of this CPU with interrupts off, so that the code cannot move to another CPU between the two
    /// reads.
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

    /// Returns the same APIC with the id of the CPU that booted the machine. This is necessary if [`new`](Self::new) ran on
    /// another CPU.
    ///
    /// The machine's first kernel finds the id by the flag of the boot CPU (Intel SDM vol. 3A, 10.4.4), or in the ACPI MADT,
    /// whose first processor entry should be the boot CPU (ACPI 6.5, 5.2.12.1). It must pass the id to the kernels that it
    /// starts. If `new` found the flag BSP on its CPU, `cpu` is ignored. If `cpu` is wrong, [`start_cpu`](crate::start_cpu) and
    /// [`stop_cpu`](crate::stop_cpu) can reset the machine.
    #[must_use]
    pub fn with_boot_cpu(mut self, cpu: PhysCpuId) -> Self {
        if !matches!(self.boot_cpu, BootCpu::Flagged(_)) {
            self.boot_cpu = BootCpu::Told(cpu);
        }
        self
    }

    /// Returns the same APIC with the error check on. `ring` then reads the error status after each doorbell that it sends. If
    /// the APIC reports errors of [`ErrorStatus::SEND`], `ring` fails with [`DoorbellError::Refused`], which contains their bits.
    /// `ring_from_nmi` makes no error check.
    ///
    /// Use the check to search for a fault. It is off by default, because it is slow and finds few errors. Each `ring` then
    /// accesses registers four more times and, in xAPIC mode, waits until the interrupt has left this APIC. This takes some
    /// microseconds, with interrupts off. AMD's CPUs report that a target does not exist ("sent accept error"). Intel's CPUs have
    /// not reported it since the Pentium 4 (Intel SDM vol. 3A, 10.5.3). In x2APIC mode no register tells when the error status is
    /// final, so the check can come too early.
    ///
    /// Each `ring` also clears the errors that the APIC recorded before it, so [`read_errors`](Self::read_errors) does not return
    /// them any more. With this check [`DoorbellError::Stuck`] has a second meaning in xAPIC mode: the command of this doorbell
    /// was written, but its interrupt did not leave this APIC in time. Without the check `ring` returns `Stuck` only if it has
    /// written no command.
    #[must_use]
    pub fn with_error_check(mut self) -> Self {
        self.checks_errors = true;
        self
    }

    /// The CPU that booted the machine. `None` if it is not known: [`new`](Self::new) ran on another CPU, and
    /// [`with_boot_cpu`](Self::with_boot_cpu) was not called. [`start_cpu`](crate::start_cpu) and [`stop_cpu`](crate::stop_cpu)
    /// need this CPU's id.
    pub const fn boot_cpu(&self) -> Option<PhysCpuId> {
        match self.boot_cpu {
            BootCpu::Unknown => None,
            BootCpu::Told(cpu) | BootCpu::Flagged(cpu) => Some(cpu),
        }
    }

    /// Checks that this CPU's APIC is in the mode for which the object was made, and, if the CPU reports its 32-bit id, that this
    /// id can be used in that mode. Each CPU of the kernel must call it once.
    pub fn confirm_mode(&self) -> Result<(), ModeError> {
        match Mode::read(&self.io)? {
            mode if mode == self.mode => has_room(mode, &self.io),
            mode => Err(ModeError::Differs(mode)),
        }
    }

    /// The mode for which the object was made.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// The object that accesses the registers.
    pub const fn io(&self) -> &Io {
        &self.io
    }

    /// Reads the physical id of this CPU. Peers send doorbells to this id, and a slot of RFC v2 has this id as its index. In
    /// xAPIC mode the register has 8 bits. If the CPU reports its 32-bit id, [`new`](Self::new) and
    /// [`confirm_mode`](Self::confirm_mode) have refused an id that is longer.
    pub fn apic_id(&self) -> PhysCpuId {
        let id = self.read(Register::Id);
        PhysCpuId(match self.mode {
            Mode::XApic => u64::from(id >> 24),
            Mode::X2Apic => u64::from(id),
        })
    }

    /// Ends the interrupt in service (EOI). The doorbell's handler calls this once, before it looks for messages. If a peer then
    /// stores another message, its doorbell causes a new interrupt. Do not call this for a spurious interrupt, which is not in
    /// service.
    pub fn eoi(&self) {
        // SAFETY: 0 is legal for this register in both modes, and the write changes no memory.
        unsafe { self.write(Register::Eoi, 0) }
    }

    /// Returns the errors that the APIC has recorded since the last call, and clears them.
    ///
    /// The register shows new errors only after software has written to it (Intel SDM vol. 3A, 10.5.3). Interrupts are off
    /// between the write and the read. Otherwise an interrupt handler that also reads the errors could clear the errors that this
    /// call must return.
    pub fn read_errors(&self) -> ErrorStatus {
        let state = self.io.disable();
        // SAFETY: 0 is legal for this register in both modes, and the write changes no memory.
        unsafe { self.write(Register::ErrorStatus, 0) };
        let errors = self.read(Register::ErrorStatus);
        self.io.restore(state);
        ErrorStatus::from_bits_retain(errors)
    }

    /// Makes this CPU's APIC accept interrupts: it sets the task priority to 0, which accepts every priority, and sets the
    /// software enable bit (Intel SDM vol. 3A, 10.4.7.2). Each CPU of the kernel must call it once, and not in an interrupt
    /// handler.
    ///
    /// First the call ends the interrupts that a former kernel left in service. There are some if that kernel was stopped inside
    /// an interrupt handler and replaced without a reset, for example by kexec. An interrupt in service holds back all
    /// interrupts of the same or a lower priority until it is ended (10.8.4, 10.8.5). The EOI of a level-triggered interrupt also
    /// goes to the I/O APICs: without it they would send no further interrupt for that input. A CPU that was started by
    /// [`start_cpu`](crate::start_cpu) has no interrupts in service, because INIT clears them.
    ///
    /// Software cannot clear interrupts that are requested but not yet taken (the IRR). The CPU takes them when its interrupts
    /// are switched on.
    ///
    /// # Safety
    ///
    /// When interrupts are switched on, the IDT has an entry for `spurious`, whose handler must not call [`eoi`](Self::eoi). It
    /// also has an entry for every vector that a kernel can send to this CPU, or has sent while another kernel ran on it. When
    /// the call is made, no handler of this kernel has an interrupt in service on this CPU: the call would end that interrupt
    /// before the handler does.
    pub unsafe fn enable(&self, spurious: SpuriousVector) {
        self.end_all_in_service();
        // SAFETY: both values are legal in both modes. The caller promises the handlers.
        unsafe {
            self.write(Register::TaskPriority, 0);
            self.write(Register::SpuriousVector, spurious.enabled());
        }
    }

    /// Ends all interrupts in service. Each EOI ends the one with the highest priority. The loop has a bound, because an APIC
    /// with a fault could end none.
    fn end_all_in_service(&self) {
        for _ in 0..MOST_IN_SERVICE {
            if Register::IN_SERVICE.iter().all(|&register| self.read(register) == 0) {
                break;
            }
            self.eoi();
        }
    }

    /// Writes `icr` to the interrupt command register. This sends the interrupt.
    ///
    /// In xAPIC mode it fails with [`DoorbellError::Unreachable`] if the destination does not fit into the register, and with
    /// [`DoorbellError::Stuck`] if an earlier interrupt stays in this APIC. In both cases nothing is sent.
    ///
    /// # Safety
    ///
    /// The caller has the right to cause the effect of the command at its targets. For example, INIT stops a CPU, whatever that
    /// CPU executes.
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
                // A WRMSR to an x2APIC register does not wait for earlier stores, so the interrupt could arrive before the
                // message is visible. MFENCE makes the stores visible. LFENCE makes the WRMSR wait until MFENCE is complete
                // (Intel SDM vol. 3A, 10.12.3).
                self.io.fence_before_doorbell();
                // SAFETY: the CPU is in x2APIC mode, and an `Icr` sets no reserved bits. The caller promises the rest.
                unsafe { self.io.wrmsr(Register::IcrLow.msr(), icr.x2apic()) };
                Ok(())
            }
        }
    }

    /// Writes both halves of the interrupt command register. The write of the low half sends the interrupt.
    ///
    /// It needs no fence: a store to UC memory becomes visible after all earlier stores ([`ApicIo`]).
    ///
    /// # Safety
    ///
    /// The same as for `send`. The CPU is in xAPIC mode. Its maskable interrupts are off, or the caller is an NMI handler. An NMI
    /// handler that writes the ICR between the two writes restores the high half before it returns
    /// ([`ring_from_nmi`](Doorbell::ring_from_nmi)).
    unsafe fn send_xapic(&self, icr: Icr) -> Result<(), DoorbellError> {
        let high = icr.xapic_high().ok_or(DoorbellError::Unreachable(PhysCpuId(icr.destination().into())))?;
        self.wait_idle()?;
        // SAFETY: `Mode::XApic` was made by `new`, which has checked the mapping of the page. The caller promises the rest.
        unsafe {
            self.io.mmio_write(Register::IcrHigh, high);
            self.io.mmio_write(Register::IcrLow, icr.xapic_low());
        }
        Ok(())
    }

    /// Waits until the last interrupt has left this APIC. A command that is written before that can be lost (Intel SDM vol. 3A,
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

    /// Sends a command, then reads the error status, as [`with_error_check`](Self::with_error_check) describes.
    ///
    /// # Safety
    ///
    /// The same as for `send`.
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

    /// Returns the destination field that names `cpu`. It fails with [`DoorbellError::Unreachable`] if this mode cannot address
    /// the CPU. The highest id of each mode is not for one CPU: it means all CPUs (Intel SDM vol. 3A, 10.6.2.1 and 10.12.9).
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
            // SAFETY: the CPU is in xAPIC mode, and `new` has checked that the page is mapped.
            Mode::XApic => unsafe { self.io.mmio_read(register) },
            // In x2APIC mode a 32-bit register is read by an MSR of 64 bits, whose bits 63:32 are reserved (Intel SDM vol. 3A,
            // 10.12.1.2).
            #[expect(clippy::cast_possible_truncation, reason = "see above")]
            // SAFETY: the CPU is in x2APIC mode. Every register except `IcrHigh` has an MSR, and no call reads `IcrHigh` in
            // x2APIC mode.
            Mode::X2Apic => unsafe { self.io.rdmsr(register.msr()) as u32 },
        }
    }

    /// # Safety
    ///
    /// `value` is legal for `register`, and the caller has the right to cause the effect of the write.
    // Inlined, so that the instructions before each WRMSR load the number of its register as a constant. The check of the
    // disassembly must know the register of every WRMSR, to tell the WRMSRs to the ICR from the others (SPEC A-5).
    #[inline(always)]
    unsafe fn write(&self, register: Register, value: u32) {
        match self.mode {
            // SAFETY: the CPU is in xAPIC mode, and `new` has checked that the page is mapped. The caller promises the rest.
            Mode::XApic => unsafe { self.io.mmio_write(register, value) },
            // SAFETY: the CPU is in x2APIC mode. The caller promises the rest.
            Mode::X2Apic => unsafe { self.io.wrmsr(register.msr(), value.into()) },
        }
    }
}

// SAFETY: earlier stores are ordered by the UC store in xAPIC mode, and by the fence in x2APIC mode (see `send`). A physical
// destination addresses one CPU, unless it is the broadcast id, which `reach` refuses.
unsafe impl<Io: ApicIo> Doorbell for LocalApic<Io> {
    fn check(&self, cpu: PhysCpuId, _vector: Vector) -> Result<(), DoorbellError> {
        self.reach(cpu).map(drop)
    }

    fn ring(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        let icr = Icr::fixed(vector, self.reach(cpu)?);
        if self.checks_errors {
            // SAFETY: the command interrupts only `cpu`, with a vector that the kernel on `cpu` expects.
            return unsafe { self.send_checked(icr) };
        }
        // SAFETY: as above.
        unsafe { self.send(icr) }
    }

    /// The NMI may have interrupted a send between its two ICR writes. So in xAPIC mode this method first reads the high half of
    /// the ICR. Then it sends, and waits until its own interrupt has left the APIC or the wait has failed. At last it writes that
    /// value back (SPEC A-9).
    fn ring_from_nmi(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        let icr = Icr::fixed(vector, self.reach(cpu)?);
        if self.mode == Mode::X2Apic {
            // SAFETY: as in `ring`.
            return unsafe { self.send(icr) };
        }
        let high = self.read(Register::IcrHigh);
        // SAFETY: as in `ring`. The high half is restored below.
        let sent = unsafe { self.send_xapic(icr) };
        let left = self.wait_idle();
        // SAFETY: the register had this value before, and a write of this half sends nothing.
        unsafe { self.io.mmio_write(Register::IcrHigh, high) };
        sent.and(left)
    }
}

#[cfg(test)]
#[path = "apic_tests.rs"]
mod tests;
