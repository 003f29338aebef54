// SPDX-License-Identifier: MIT OR Apache-2.0
//! The content of the files that can be read: the instances (`/dev/mk_ipi`), the counters (debugfs `statistics`), and the
//! directory and the regions (debugfs `memory`).

use crate::platform::ENDPOINT;
use crate::{cpus, ffi, host, memory, peers, role};
use core::ffi::{c_int, c_void};
use core::fmt::{self, Write};
use mk_ipi_core::abi::{Errno, InstanceId, PhysAddr, PhysRange, PAGE_SIZE};

/// A `seq_file` of Linux, to which text is written.
pub struct Seq(pub *mut c_void);

impl Write for Seq {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        // SAFETY: Linux passed this `seq_file` to the show function, and it exists until that function returns. If the text
        // does not fit, Linux calls the show function again, with a larger buffer.
        unsafe { ffi::seq_write(self.0, s.as_ptr().cast(), s.len()) };
        Ok(())
    }
}

/// Shows CPUs, separated by commas.
struct List<'a>(&'a [u32]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(n, cpu)| {
            let comma = if n == 0 { "" } else { "," };
            write!(f, "{comma}{cpu}")
        })
    }
}

fn instances(to: &mut Seq) -> fmt::Result {
    if role::is_joined() {
        return peers_of(to);
    }
    host::with(|host| {
        writeln!(to, "generation {}", host.generation().name())?;
        write!(to, "given")?;
        cpus::given().try_for_each(|cpu| write!(to, " {cpu}"))?;
        writeln!(to, "\ninstance phase incarnation cpus region peer number handled received in_doubt")?;
        own(to)?;
        for (id, instance) in host.instances() {
            let phase = match instance.phase {
                host::Phase::Created => "created",
                host::Phase::Running => "running",
                host::Phase::Stopped => "stopped",
            };
            write!(to, "{} {phase} {} {} ", id.get(), instance.incarnation.get(), List(instance.cpus.get()))?;
            link(to, id)?;
        }
        Ok(())
    })
}

/// For a Linux that another kernel started: shows this kernel, and all other kernels that it knows.
fn peers_of(to: &mut Seq) -> fmt::Result {
    let Some((me, life)) = ENDPOINT.identity() else { return Ok(()) };
    writeln!(to, "instance {} incarnation {}", me.get(), life.get())?;
    writeln!(to, "instance region peer number handled received in_doubt")?;
    let known = (0..peers::MAX_INSTANCES as u8).map(InstanceId::new);
    for id in known.filter(|id| *id != me && ENDPOINT.instance(*id).is_ok()) {
        write!(to, "{} ", id.get())?;
        link(to, id)?;
    }
    Ok(())
}

/// Shows the region of `id`, and the state of the link to it.
fn link(to: &mut Seq, id: InstanceId) -> fmt::Result {
    region(to, id)?;
    let lane = ENDPOINT.lane_stats(id).unwrap_or_default();
    // The number of the last message that was sent, and of the last one that was handled. These numbers grow, but not by one
    // for each message.
    write!(to, " {} {} {}", peers::sign(id), lane.number, ENDPOINT.handled(id).unwrap_or(0))?;
    writeln!(to, " {} {}", lane.received, peers::in_doubt(id))
}

fn own(to: &mut Seq) -> fmt::Result {
    write!(to, "0 running 1 {} ", crate::vector::DOORBELL_CPU)?;
    region(to, InstanceId::HOST)?;
    writeln!(to, " - - - - -")
}

fn region(to: &mut Seq, id: InstanceId) -> fmt::Result {
    match ENDPOINT.instance(id).ok().and_then(|i| i.region()) {
        Some(region) => write!(to, "{:#x}+{:#x}", region.start().0, region.len()),
        None => write!(to, "-"),
    }
}

/// Writes the content of `/dev/mk_ipi`.
#[no_mangle]
extern "C" fn mk_ipi_rs_show_instances(to: *mut c_void, _: *mut c_void) -> c_int {
    // Writing to a `Seq` never fails.
    let _ = instances(&mut Seq(to));
    0
}

/// Writes the content of debugfs `statistics`: the counters of this kernel, then the counters of its lanes, then the owners
/// of the memory.
#[no_mangle]
extern "C" fn mk_ipi_rs_show_statistics(to: *mut c_void, _: *mut c_void) -> c_int {
    let mut to = Seq(to);
    // Writing to a `Seq` never fails.
    let _ = writeln!(to, "{:#?}", ENDPOINT.stats());
    for id in (0..peers::MAX_INSTANCES as u8).map(InstanceId::new) {
        if let Ok(lane) = ENDPOINT.lane_stats(id) {
            let _ = writeln!(to, "lane to instance {}: {lane:#?}", id.get());
        }
    }
    let _ = memory::list(&mut to);
    0
}

/// Returns whether this page is part of the directory, or of the region of a known instance. Such pages contain only data of
/// the protocol, and no other data of a kernel.
fn is_shown(page: PhysRange) -> bool {
    let contains = |outer: PhysRange| outer.start() <= page.start() && page.end() <= outer.end();
    let mut known = (0..peers::MAX_INSTANCES as u8).map(InstanceId::new);
    memory::of(memory::Owner::Directory).is_some_and(contains)
        || known.any(|id| {
            let region = ENDPOINT.instance(id).ok().and_then(|instance| instance.region());
            region.and_then(whole_pages).is_some_and(contains)
        })
}

/// The range, with its end rounded up to a page. The rest of the last page is not used for other data (`InstancePool`).
fn whole_pages(range: PhysRange) -> Option<PhysRange> {
    PhysRange::new(range.start(), range.len().checked_next_multiple_of(PAGE_SIZE)?)
}

/// Reads debugfs `memory`: up to `len` bytes from the physical address `at`, and not beyond the end of the page. Returns how
/// many bytes were read, or a negative error number.
///
/// # Safety
///
/// `to` has room for `len` bytes.
#[no_mangle]
unsafe extern "C" fn mk_ipi_rs_read_memory(at: u64, to: *mut u8, len: usize) -> c_int {
    let offset = (at % PAGE_SIZE) as usize;
    let page = PhysRange::new(PhysAddr(at - at % PAGE_SIZE), PAGE_SIZE);
    let Some(page) = page.filter(|page| is_shown(*page) && memory::is_ours(*page)) else {
        return Errno::EACCES.to_c();
    };
    let len = len.min(PAGE_SIZE as usize - offset);
    let Ok(mapped) = memory::Mapped::new(page) else { return Errno::ENOMEM.to_c() };
    // SAFETY: the caller's buffer has room for `len` bytes.
    let to = unsafe { core::slice::from_raw_parts_mut(to, len) };
    mapped.read_words(offset, to);
    len as c_int
}
