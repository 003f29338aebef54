// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a CPU enters an image: start pages, trampoline, INIT and SIPI. And how it is stopped.
//!
//! The start pages lie in the memory that was set aside. They contain what the kernel is told (Xen's PVH boot ABI, ACPI
//! tables). They also contain the last instructions before its entry, so that the page below 1 MiB is free again as
//! soon as the CPU has left it.

use crate::failure::{failure, refuse, Result};
use crate::ffi;
use crate::memory::{self, Mapped};
use crate::platform::Linux;
use core::fmt;
use mk_ipi_core::abi::{InstanceId, PhysAddr, PhysCpuId, PhysRange, PAGE_SIZE};
use mk_ipi_spawn::acpi;
use mk_ipi_spawn::start_info::{self, Kind, StartInfo, StartInfoError};
use mk_ipi_x86::{start_cpu, stop_cpu, Microseconds, StartPage};

core::arch::global_asm!(include_str!("trampoline.s"), options(att_syntax));

/// Offsets in the first start page of the parts that do not belong to the start info: the exit of the trampoline, and
/// its flag.
const EXIT: usize = start_info::CALLERS.start;
const FLAG: usize = start_info::CALLERS.end - 16;

/// How long a CPU is given to enter its image.
const ENTER: Microseconds = Microseconds(2_000_000);
/// How long a CPU is given to stop: an emulated one stops when its thread runs next.
const STOP: Microseconds = Microseconds(50_000);

fn wait(time: Microseconds) {
    // SAFETY: process context, which can sleep or spin for this time.
    unsafe {
        if time.0 < 1000 {
            ffi::__udelay(time.0.into());
        } else {
            ffi::msleep(time.0.div_ceil(1000));
        }
    }
}

/// Looks again and again until `is` returns true, or the time is over. Returns whether it was true.
pub fn wait_until(time: Microseconds, mut is: impl FnMut() -> bool) -> bool {
    // SAFETY: the clock runs.
    let now = || unsafe { ffi::ktime_get() };
    let end = now().saturating_add(i64::from(time.0) * 1000);
    while !is() {
        if now() > end {
            return false;
        }
        // SAFETY: process context.
        unsafe { ffi::usleep_range_state(500, 1000, ffi::TASK_UNINTERRUPTIBLE) };
    }
    true
}

/// What a kernel is given at its entry, in addition to its memory.
pub struct Handed<'a> {
    /// The machine's boot CPU.
    pub boot_cpu: PhysCpuId,
    /// Its CPUs, followed by those that it may get later.
    pub cpus: &'a [PhysCpuId],
    /// Its initramfs.
    pub initrd: Option<PhysRange>,
    /// Its command line.
    pub cmdline: fmt::Arguments<'a>,
}

/// Bytes of the start pages of a kernel that may have this many CPUs.
pub fn pages_len(cpus: usize) -> u64 {
    PAGE_SIZE.saturating_add(acpi::len(cpus) as u64)
}

/// Writes what the kernel of `id` is told: start info, command line and memory map, and after them the ACPI tables.
///
/// # Safety
///
/// The kernel does not run; `pages` are its start pages.
pub unsafe fn write_start_pages(id: InstanceId, pages: PhysRange, handed: &Handed<'_>) -> Result {
    let mut mapped = Mapped::new(pages)?;
    // SAFETY: they belong to the instance, which does not run (the caller promises it).
    let bytes = unsafe { mapped.bytes_mut() };
    bytes.fill(0);
    let Some((page, tables)) = bytes.split_at_mut_checked(PAGE_SIZE as usize) else {
        return refuse!(ENODEV, "the start pages of instance {} are too few", id.get());
    };
    let (at, tables_at) = (pages.start(), PhysAddr(pages.start().0.saturating_add(PAGE_SIZE)));
    let rsdp = acpi::write(tables, tables_at, handed.boot_cpu, handed.cpus.iter().copied())
        .map_err(|e| failure!(EINVAL, "the ACPI tables: {e}"))?;
    write_start_info(id, page, at, rsdp, handed).map_err(|e| failure!(EINVAL, "the start info: {e}"))?;
    // The kernel may map a page of the tables uncached.
    // SAFETY: it is mapped, and has this length.
    unsafe { ffi::clflush_cache_range(bytes.as_mut_ptr().cast(), bytes.len() as u32) };
    Ok(())
}

fn write_start_info(
    id: InstanceId,
    page: &mut [u8],
    at: PhysAddr,
    rsdp: PhysAddr,
    handed: &Handed<'_>,
) -> core::result::Result<(), StartInfoError> {
    let mut info = StartInfo::new(page, at)?;
    info.rsdp(rsdp)?;
    handed.initrd.map_or(Ok(()), |range| info.initramfs(range))?;
    let mut mapped = Ok(());
    memory::map_of(id, |range, is_own| {
        let kind = if is_own { Kind::Ram } else { Kind::Reserved };
        mapped = mapped.and_then(|()| info.memory(range, kind));
    });
    mapped?;
    info.command_line(handed.cmdline)
}

/// The parts of trampoline.s.
fn code() -> (&'static [u8], usize, &'static [u8]) {
    extern "C" {
        static mk_ipi_trampoline_start: u8;
        static mk_ipi_trampoline_mailbox: u8;
        static mk_ipi_trampoline_end: u8;
        static mk_ipi_trampoline_exit: u8;
        static mk_ipi_trampoline_exit_end: u8;
    }
    let between = |from: *const u8, to: *const u8| {
        let len = (to as usize).saturating_sub(from as usize);
        // SAFETY: they are labels of one section, in this order.
        unsafe { core::slice::from_raw_parts(from, len) }
    };
    let start = &raw const mk_ipi_trampoline_start;
    let mailbox = (&raw const mk_ipi_trampoline_mailbox as usize).saturating_sub(start as usize);
    let exit = between(&raw const mk_ipi_trampoline_exit, &raw const mk_ipi_trampoline_exit_end);
    (between(start, &raw const mk_ipi_trampoline_end), mailbox, exit)
}

/// The page below 1 MiB, with the trampoline in it until this is dropped. Linux keeps that memory reserved and does not
/// use it. Nevertheless its former content is put back.
struct LowPage {
    page: Mapped,
    before: [u8; LowPage::LEN],
}

impl LowPage {
    /// How many bytes are borrowed.
    const LEN: usize = 256;

    /// Puts the trampoline at `at`, with the addresses that it needs. `is_ours` says that the page was set aside for
    /// this.
    fn borrow(at: PhysAddr, is_ours: bool, mailbox: [u32; 4]) -> Result<Self> {
        let Some(range) = PhysRange::new(at, PAGE_SIZE) else {
            return refuse!(EINVAL, "trampoline={:#x}", at.0);
        };
        // SAFETY: it looks at page tables and the memory map.
        if !is_ours && !unsafe { ffi::mk_ipi_glue_may_borrow(at.0) } {
            return refuse!(EBUSY, "trampoline={:#x}: no RAM below 1 MiB, or Linux's own trampoline", at.0);
        }
        // SAFETY: the page is ours. Or it is reserved: since 5.13 Linux reserves all memory below 1 MiB, and uses only
        // its own trampoline there.
        let page = unsafe { Mapped::any(range)? };
        let mut before = [0; Self::LEN];
        let (code, at, _) = code();
        if code.len() > Self::LEN {
            return refuse!(ENOSPC, "the trampoline has {} bytes", code.len());
        }
        // SAFETY: as above.
        unsafe {
            page.read(&mut before);
            page.write(0, code);
            mailbox.iter().enumerate().for_each(|(i, word)| page.write(at + i * 4, &word.to_le_bytes()));
        }
        Ok(Self { page, before })
    }
}

impl Drop for LowPage {
    fn drop(&mut self) {
        // SAFETY: as in `borrow`; the CPU has left the page, or was stopped.
        unsafe { self.page.write(0, &self.before) };
    }
}

/// Starts `cpu` at `entry` with `page` as its start page, and waits until it is in its image. On an error the CPU was
/// stopped. If stopping it failed too, it may run anything.
///
/// # Safety
///
/// The CPU was given to an instance, whose image lies at `entry`, and runs nothing.
pub unsafe fn enter(cpu: PhysCpuId, entry: u32, page: PhysRange) -> Result {
    let ours = memory::start_page();
    // SAFETY: the parameter is read-only.
    let low = ours.unwrap_or(PhysAddr(unsafe { ffi::mk_ipi_glue_trampoline }));
    let target = StartPage::new(low).map_err(|e| failure!(EINVAL, "trampoline={:#x}: {e:?}", low.0))?;
    let apic = Linux.apic().ok_or(()).or_else(|()| refuse!(ENODEV, "no APIC"))?;
    let mapped = Mapped::new(page)?;
    let (_, _, exit) = code();
    // `write_start_pages` has checked that the page lies below 4 GiB.
    let at = page.start().0 as u32;
    // SAFETY: it is the start page of a kernel that does not run.
    unsafe {
        mapped.write(EXIT, exit);
        mapped.write(FLAG, &0u32.to_le_bytes());
    }
    let _low = LowPage::borrow(low, ours.is_some(), [at + EXIT as u32, entry, at, at + FLAG as u32])?;
    // SAFETY: the CPU belongs to the instance, and the trampoline lies at `low`.
    let started = unsafe { start_cpu(apic, cpu, target, wait) };
    let entered = match started {
        Ok(()) if wait_until(ENTER, || mapped.word(FLAG) != 0) => return Ok(()),
        Ok(()) => refuse!(ETIMEDOUT, "CPU {} does not come up", cpu.0),
        Err(e) => refuse!(EIO, "CPU {}: {e:?}", cpu.0),
    };
    // The CPU must leave the low page before that is given back. If this fails, the log says so.
    // SAFETY: the CPU belongs to the instance.
    let _ = unsafe { stop(cpu) };
    entered
}

/// Stops `cpu`, whatever it runs. It then waits for a start.
///
/// # Safety
///
/// The CPU was given away, and what it was doing is not needed.
pub unsafe fn stop(cpu: PhysCpuId) -> Result {
    let apic = Linux.apic().ok_or(()).or_else(|()| refuse!(ENODEV, "no APIC"))?;
    // SAFETY: the caller promises it.
    unsafe { stop_cpu(apic, cpu, STOP, wait) }
        .map_err(|e| failure!(EIO, "CPU {} does not stop: {e:?}", cpu.0))
}
