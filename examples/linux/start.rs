// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starts a CPU in the image of a kernel, and stops it.
//!
//! A CPU is started by INIT and SIPI. It begins in a page below 1 MiB, which contains the trampoline. From there it jumps
//! to the start pages of the kernel, and from the start pages to the entry of the image.
//!
//! The start pages are in the memory that was set aside. They contain the data for the kernel (the start info of Xen's
//! PVH boot ABI, and ACPI tables), and also the last instructions before the entry. So the page below 1 MiB can be used
//! for other things as soon as the CPU has left it.

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

/// Offset in the first start page of the last part of the trampoline, which jumps to the image. The start info does not
/// use this part of the page.
const EXIT: usize = start_info::CALLERS.start;
/// Offset in the first start page of a flag. The CPU sets it when it has left the page below 1 MiB.
const FLAG: usize = start_info::CALLERS.end - 16;

/// How long to wait until a CPU has entered its image.
const ENTER: Microseconds = Microseconds(2_000_000);
/// How long to wait until a CPU has stopped. A CPU of an emulator stops only when its thread runs again.
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

/// Calls `is` about every millisecond, until it returns true or `time` is over. Returns whether it returned true.
pub fn wait_until(time: Microseconds, mut is: impl FnMut() -> bool) -> bool {
    // SAFETY: Linux keeps time while the module runs.
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

/// What a kernel is told at its entry, in addition to the map of its memory.
pub struct Handed<'a> {
    /// The machine's boot CPU.
    pub boot_cpu: PhysCpuId,
    /// The kernel's CPUs, followed by the CPUs that it can get later.
    pub cpus: &'a [PhysCpuId],
    /// Where its initramfs is, if it has one.
    pub initrd: Option<PhysRange>,
    /// The kernel's command line.
    pub cmdline: fmt::Arguments<'a>,
}

/// Size in bytes of the start pages of a kernel that can have `cpus` CPUs.
pub fn pages_len(cpus: usize) -> u64 {
    PAGE_SIZE.saturating_add(acpi::len(cpus) as u64)
}

/// Writes the start pages of the kernel of `id`. The first page gets the start info, the command line and the memory
/// map. The ACPI tables are in the pages after it.
///
/// # Safety
///
/// The kernel does not run, and `pages` are its start pages.
pub unsafe fn write_start_pages(id: InstanceId, pages: PhysRange, handed: &Handed<'_>) -> Result {
    let mut mapped = Mapped::new(pages)?;
    // SAFETY: they belong to the instance, which does not run (the caller promises it).
    let bytes = unsafe { mapped.bytes_mut() };
    bytes.fill(0);
    let Some((page, tables)) = bytes.split_at_mut_checked(PAGE_SIZE as usize) else {
        return refuse!(ENODEV, "the start pages of instance {} are too small", id.get());
    };
    let (at, tables_at) = (pages.start(), PhysAddr(pages.start().0.saturating_add(PAGE_SIZE)));
    let rsdp = acpi::write(tables, tables_at, handed.boot_cpu, handed.cpus.iter().copied())
        .map_err(|e| failure!(EINVAL, "the ACPI tables: {e}"))?;
    write_start_info(id, page, at, rsdp, handed).map_err(|e| failure!(EINVAL, "the start info: {e}"))?;
    // The kernel can map a page of the tables uncached. So the data must be written back from the caches to memory.
    // SAFETY: `bytes` is mapped, and has this length.
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

/// The parts of trampoline.s: the code for the page below 1 MiB, the offset of its mailbox in that code, and the code
/// for the start page.
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
        // SAFETY: `from` and `to` are labels of one section, in this order.
        unsafe { core::slice::from_raw_parts(from, len) }
    };
    let start = &raw const mk_ipi_trampoline_start;
    let mailbox = (&raw const mk_ipi_trampoline_mailbox as usize).saturating_sub(start as usize);
    let exit = between(&raw const mk_ipi_trampoline_exit, &raw const mk_ipi_trampoline_exit_end);
    (between(start, &raw const mk_ipi_trampoline_end), mailbox, exit)
}

/// The page below 1 MiB in which a CPU starts. It contains the trampoline until this is dropped. Then its former content
/// is put back, although Linux keeps this memory reserved and does not use it.
struct LowPage {
    page: Mapped,
    before: [u8; LowPage::LEN],
}

impl LowPage {
    /// How many bytes of the page are overwritten, and later put back.
    const LEN: usize = 256;

    /// Writes the trampoline to the page at `at`, with the addresses that it needs in its mailbox. `is_ours` says that
    /// the page was set aside for this purpose.
    fn borrow(at: PhysAddr, is_ours: bool, mailbox: [u32; 4]) -> Result<Self> {
        let Some(range) = PhysRange::new(at, PAGE_SIZE) else {
            return refuse!(EINVAL, "trampoline={:#x}", at.0);
        };
        // SAFETY: it only reads page tables and the memory map.
        if !is_ours && !unsafe { ffi::mk_ipi_glue_may_borrow(at.0) } {
            return refuse!(
                EBUSY,
                "trampoline={:#x} is not RAM below 1 MiB, or Linux's own trampoline uses it",
                at.0
            );
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
        // SAFETY: the page can be written (see `borrow`). The CPU has left it, or was stopped.
        unsafe { self.page.write(0, &self.before) };
    }
}

/// Starts `cpu` at `entry` with `page` as its start page, and waits until it leaves the trampoline for its image. If this
/// fails, the CPU is stopped. If that fails too, it is not known what the CPU executes.
///
/// # Safety
///
/// The CPU was given to an instance whose image has its entry at `entry`. The CPU does not run.
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
    // The CPU must not execute in the low page when the former content is put back. If the stop fails, the log says so.
    // SAFETY: the CPU belongs to the instance.
    let _ = unsafe { stop(cpu) };
    entered
}

/// Stops `cpu` by an INIT, whatever it executes. It then waits for a SIPI.
///
/// # Safety
///
/// The CPU was given away, and the code that runs on it need not continue.
pub unsafe fn stop(cpu: PhysCpuId) -> Result {
    let apic = Linux.apic().ok_or(()).or_else(|()| refuse!(ENODEV, "no APIC"))?;
    // SAFETY: the caller promises it.
    unsafe { stop_cpu(apic, cpu, STOP, wait) }
        .map_err(|e| failure!(EIO, "CPU {} does not stop: {e:?}", cpu.0))
}
