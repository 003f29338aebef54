// SPDX-License-Identifier: MIT OR Apache-2.0
//! The CPUs that this Linux must not use: CPUs that it gave away, or CPUs that its host did not give to it. This module
//! keeps them offline.

use crate::failure::{check, refuse, Result};
use crate::platform::MAX_CPUS;
use crate::start;
use crate::vector::DOORBELL_CPU;
use crate::{deferred, ffi};
use core::ffi::c_int;
use kernel::prelude::*;
use mk_ipi_core::abi::PhysCpuId;
use mk_ipi_core::sync::{AtomicU64, Ordering};

/// A set of CPUs, by Linux's numbers.
struct Set([AtomicU64; MAX_CPUS / u64::BITS as usize]);

const _: () = assert!(MAX_CPUS % u64::BITS as usize == 0);

impl Set {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; MAX_CPUS / u64::BITS as usize])
    }
    fn place(&self, cpu: u32) -> Option<(&AtomicU64, u64)> {
        Some((self.0.get((cpu / u64::BITS) as usize)?, 1 << (cpu % u64::BITS)))
    }
    fn has(&self, cpu: u32) -> bool {
        self.place(cpu).is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }
    fn set(&self, cpu: u32, has: bool) {
        if let Some((word, bit)) = self.place(cpu) {
            if has {
                word.fetch_or(bit, Ordering::Relaxed);
            } else {
                word.fetch_and(!bit, Ordering::Relaxed);
            }
        }
    }
}

/// The CPUs that this Linux must not use. The names and messages below call each of them "given away", also if it never
/// belonged to this Linux.
static GIVEN: Set = Set::new();
/// The CPUs that were online when Linux gave them away.
static WERE_ONLINE: Set = Set::new();

/// Returns whether `cpu` is given away.
pub fn is_given(cpu: u32) -> bool {
    GIVEN.has(cpu)
}

/// The physical ids of the present CPUs that are not given away.
pub fn kept() -> impl Iterator<Item = PhysCpuId> {
    (0..MAX_CPUS as u32).filter(|cpu| !is_given(*cpu)).filter_map(apic_id)
}

/// The CPUs that are given away.
pub fn given() -> impl Iterator<Item = u32> {
    (0..MAX_CPUS as u32).filter(|cpu| is_given(*cpu))
}

/// The APIC id of the CPU with Linux's number `cpu`; `None` if there is no such CPU.
pub fn apic_id(cpu: u32) -> Option<PhysCpuId> {
    // SAFETY: `mk_ipi_glue_cpu_present` accepts any number. The APIC id is read only if there is such a CPU.
    unsafe { ffi::mk_ipi_glue_cpu_present(cpu).then(|| PhysCpuId(ffi::mk_ipi_glue_apic_id(cpu).into())) }
}

/// The machine's boot CPU. Linux gives number 0 to the CPU on which it started.
pub fn boot_cpu() -> Option<PhysCpuId> {
    apic_id(0)
}

/// Checks that this module is built for as many CPUs as the machine has.
pub fn check_count() -> Result {
    // SAFETY: reads a number that does not change.
    let possible = unsafe { ffi::mk_ipi_glue_nr_cpus() };
    match (MAX_CPUS as u32..possible).find(|cpu| apic_id(*cpu).is_some()) {
        Some(cpu) => refuse!(ENOSPC, "there is a CPU {cpu}; this module is built for {MAX_CPUS}"),
        None => Ok(()),
    }
}

/// Takes `cpu` from Linux.
pub fn give(cpu: u32) -> Result {
    if cpu as usize >= MAX_CPUS || apic_id(cpu).is_none() {
        return refuse!(ENXIO, "there is no CPU {cpu}");
    }
    if cpu == DOORBELL_CPU {
        return refuse!(EBUSY, "CPU {cpu} receives Linux's own doorbell");
    }
    if is_given(cpu) {
        return refuse!(EEXIST, "CPU {cpu} is given away already");
    }
    // SAFETY: it is the number of a CPU.
    WERE_ONLINE.set(cpu, unsafe { ffi::mk_ipi_glue_cpu_online(cpu) });
    // The CPU is marked before it goes offline, so that nothing puts it online again.
    GIVEN.set(cpu, true);
    // SAFETY: process context. The result 1 means that the CPU was offline before.
    let removed = check(unsafe { ffi::remove_cpu(cpu) }, format_args!("CPU {cpu} does not go offline"));
    if removed.is_err() {
        GIVEN.set(cpu, false);
    }
    removed.map(drop)
}

/// From now on Linux must not use the present CPUs for which `is_not_ours` returns true.
pub fn forbid(is_not_ours: impl Fn(PhysCpuId) -> bool) {
    (0..MAX_CPUS as u32)
        .filter(|cpu| apic_id(*cpu).is_some_and(&is_not_ours))
        .for_each(|cpu| GIVEN.set(cpu, true));
}

/// Linux's number of the CPU with the APIC id `id`.
pub fn number_of(id: PhysCpuId) -> Option<u32> {
    (0..MAX_CPUS as u32).find(|cpu| apic_id(*cpu) == Some(id))
}

/// Puts `cpu`, which the host has given to this kernel, online.
pub fn use_one(cpu: u32) -> Result {
    GIVEN.set(cpu, false);
    // SAFETY: process context. The result 1 means that the CPU was online before.
    let added = check(unsafe { ffi::add_cpu(cpu) }, format_args!("CPU {cpu} does not come online"));
    if added.is_err() {
        GIVEN.set(cpu, true);
    }
    added.map(drop)
}

/// Does what the host asks: puts `cpu` offline, if it is online, and marks it as given away.
pub fn give_up(cpu: u32) -> Result {
    // SAFETY: it is the number of a CPU.
    if unsafe { ffi::mk_ipi_glue_cpu_online(cpu) } {
        GIVEN.set(cpu, false);
        return give(cpu);
    }
    GIVEN.set(cpu, true);
    Ok(())
}

/// Gives back to Linux all CPUs that it has given away.
pub fn take_all() {
    for cpu in given() {
        // If `take` fails, the log says so.
        let _ = take(cpu);
    }
}

/// Gives `cpu` back to Linux. The CPU must not belong to an instance. It is put online if it was online when it was given
/// away.
pub fn take(cpu: u32) -> Result {
    let (true, Some(id)) = (is_given(cpu), apic_id(cpu)) else {
        return refuse!(EINVAL, "CPU {cpu} is not given away");
    };
    // SAFETY: no instance has the CPU (the caller promises it). So if code still runs on it, nobody needs this code.
    unsafe { start::stop(id)? };
    GIVEN.set(cpu, false);
    if WERE_ONLINE.has(cpu) {
        // SAFETY: process context.
        let added = check(unsafe { ffi::add_cpu(cpu) }, format_args!("CPU {cpu} does not come online again"));
        if added.is_err() {
            GIVEN.set(cpu, true);
        }
        added?;
    }
    Ok(())
}

/// Called before Linux puts `cpu` online.
#[no_mangle]
extern "C" fn mk_ipi_rs_cpu_prepare(cpu: u32) -> c_int {
    if is_given(cpu) {
        pr_err!("CPU {cpu} belongs to another kernel: only a command on the host can move it\n");
        return crate::failure::errno::EBUSY.to_c();
    }
    deferred::cpu_starts(cpu);
    0
}

/// The CPU hotplug callback that refuses to put a CPU online that is given away. Dropping this removes the callback.
pub struct Watch(c_int);

impl Watch {
    /// Registers the callback.
    pub fn new() -> Result<Self> {
        // SAFETY: called once; `drop` undoes it.
        let state = unsafe { ffi::mk_ipi_glue_watch_cpus() };
        check(state, format_args!("no CPU hotplug state is free"))?;
        Ok(Self(state))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // SAFETY: `new` has registered the callback.
        unsafe { ffi::mk_ipi_glue_unwatch_cpus(self.0) };
    }
}
