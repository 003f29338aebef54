// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the kernel of an instance is started and stopped.

use super::{with, Generation, Host, Instance, Phase, HOST};
use crate::failure::{refuse, Result};
use crate::file::File;
use crate::image::{self, Loaded};
use crate::memory::{self, Owner};
use crate::peers::{self, MAX_INSTANCES};
use crate::platform::{Linux, ENDPOINT};
use crate::start::{self, Handed};
use crate::{cpus, ffi, net, role, services, traffic};
use core::fmt;
use mk_ipi_core::abi::boot_param::{MK_IPI_DIRECTORY, MK_IPI_SHARED};
use mk_ipi_core::abi::directory::State;
use mk_ipi_core::abi::{Incarnation, InstanceId, PhysRange};
use mk_ipi_x86::{Microseconds, Mode};

/// Bytes below 1 MiB for a kernel that can be put anywhere. Linux keeps the code there with which it starts its CPUs.
const LOW: u64 = 48 << 10;

/// What a kernel is started from.
pub struct Files<'a> {
    /// Its image.
    pub image: &'a File,
    /// Its first file system.
    pub initrd: Option<&'a File>,
    /// The words that follow the host's own on its command line.
    pub words: &'a str,
}

/// The words that every spawned Linux needs: no devices of the host, no CPUs beyond its own, a clock that is measured
/// already, no restart of the machine. A later word on the command line overrides them.
struct LinuxWords {
    cpus: usize,
}

impl fmt::Display for LinuxWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: it was written at boot.
        let khz = unsafe { ffi::tsc_khz };
        write!(f, "tsc_early_khz={khz} tsc=reliable maxcpus={} ", self.cpus)?;
        // When Linux brings up CPUs in parallel, it does not do so in the order of their numbers. But only the first
        // ones belong to it; others may not.
        f.write_str("cpuhp.parallel=0 pci=off 8250.nr_uarts=0 ")?;
        f.write_str("no_ipi_broadcast=1 panic=0 apic_extnmi=none ")?;
        match Linux.apic().map(|apic| apic.mode()) {
            // Without this word it would leave x2APIC mode, because it finds no interrupt remapping.
            Some(Mode::X2Apic) => f.write_str("noapic "),
            _ => Ok(()),
        }
    }
}

/// A kernel that is ready to be entered.
struct Ready {
    entry: u32,
    pages: PhysRange,
}

impl Host {
    /// Starts the kernel of `id`, in its first life or the next. A start that fails costs only a number of its lives,
    /// and the image of the former life.
    pub fn start(&mut self, id: InstanceId, files: &Files<'_>) -> Result {
        let ready = self.load_or_undo(id, files)?;
        let mut instance = self.get(id)?;
        if instance.phase == Phase::Stopped {
            instance.incarnation = instance.incarnation.next();
        }
        let done = self.enter(id, &instance, &ready);
        instance.phase = Phase::Running;
        self.set(id, Some(instance));
        // If that fails too, the CPU may be in the image: the kernel counts as running, and can be killed again.
        let listed = if done.is_ok() { self.list(id, &instance, State::Running) } else { self.kill(id) };
        if self.get(id)?.phase != Phase::Running {
            Self::unload(id);
        }
        done.and(listed)
    }

    /// Does all that comes before the start of the kernel of `id`, and undoes it. Tells whether the kernel could be
    /// started.
    pub fn check_start(&mut self, id: InstanceId, files: &Files<'_>) -> Result {
        self.load_or_undo(id, files).map(|_| Self::unload(id))
    }

    fn load_or_undo(&mut self, id: InstanceId, files: &Files<'_>) -> Result<Ready> {
        let instance = self.get(id)?;
        if instance.phase == Phase::Running || self.ending {
            return refuse!(EBUSY, "instance {} runs, or the machine is about to end", id.get());
        }
        let ready = self.load(id, &instance, files);
        if ready.is_err() {
            Self::unload(id);
        }
        ready
    }

    /// Puts into the memory of `id` what its kernel is started from, and what it is told. On any error, `unload` undoes
    /// it.
    fn load(&mut self, id: InstanceId, instance: &Instance, files: &Files<'_>) -> Result<Ready> {
        let (Some(pages), Some(region), Some(directory), Some(boot_cpu)) = (
            memory::of(Owner::StartPages(id)),
            self.region_of(id),
            memory::of(Owner::Directory),
            cpus::boot_cpu(),
        ) else {
            return refuse!(ENODEV, "instance {} has no region", id.get());
        };
        // SAFETY: its CPUs were stopped, or never started.
        let Loaded { entry, is_movable } = unsafe { image::load(id, files.image)? };
        // SAFETY: as above.
        let initrd = files.initrd.map(|file| unsafe { image::put_initrd(id, file) }).transpose()?;
        let needs_low = is_movable && memory::of(Owner::Low(id)).is_none();
        if needs_low {
            memory::take_low(id, LOW)?;
        }
        let (ids, own, count) = instance.ids();
        let of_linux = is_movable.then_some(LinuxWords { cpus: own });
        let [shared, directory] = [region, directory].map(|range| range.start().0);
        let handed = |cmdline: fmt::Arguments<'_>| {
            let cpus = ids.get(..count).unwrap_or(&[]);
            // SAFETY: as above; the pages are its own.
            unsafe { start::write_start_pages(id, pages, &Handed { boot_cpu, cpus, initrd, cmdline }) }
        };
        let ours = format_args!("{MK_IPI_SHARED}={shared:#x} {MK_IPI_DIRECTORY}={directory:#x}");
        match of_linux {
            Some(of_linux) => handed(format_args!("{ours} {of_linux}{}", files.words))?,
            None => handed(format_args!("{ours} {}", files.words))?,
        }
        Ok(Ready { entry, pages })
    }

    /// Gives back what `load` took.
    fn unload(id: InstanceId) {
        memory::give_back(Owner::Image(id));
        memory::give_back(Owner::Low(id));
    }

    /// Lists the coming life, and makes the first CPU enter it.
    fn enter(&mut self, id: InstanceId, instance: &Instance, ready: &Ready) -> Result {
        peers::forget(id);
        if self.generation == Generation::RfcV2 {
            traffic::peer_restarts(id);
        }
        self.list(id, instance, State::Starting)?;
        let ([first, ..], ..) = instance.ids();
        // SAFETY: the CPU belongs to the instance, whose image was just loaded.
        unsafe { start::enter(first, ready.entry, ready.pages) }
    }

    fn region_of(&self, id: InstanceId) -> Option<PhysRange> {
        ENDPOINT.instance(id).ok()?.region()
    }

    /// Asks the kernel of `id` to stop. Returns its life.
    fn ask_to_stop(&mut self, id: InstanceId) -> Result<Incarnation> {
        let instance = self.get(id)?;
        if instance.phase != Phase::Running {
            return refuse!(EINVAL, "instance {} does not run", id.get());
        }
        if self.generation == Generation::Native {
            // A kernel that has no lane for it cannot be asked.
            let _ = ENDPOINT.stop(id, instance.incarnation);
        }
        Ok(instance.incarnation)
    }

    /// Stops the CPUs of `id`, whatever they run.
    pub fn kill(&mut self, id: InstanceId) -> Result {
        let mut instance = self.get(id)?;
        if instance.phase != Phase::Running {
            return refuse!(EINVAL, "instance {} does not run", id.get());
        }
        let (ids, count, _) = instance.ids();
        for cpu in ids.iter().take(count) {
            // SAFETY: the CPU belongs to the instance, which must end.
            unsafe { start::stop(*cpu)? };
        }
        instance.phase = Phase::Stopped;
        self.set(id, Some(instance));
        traffic::on_death(id);
        services::on_death(id);
        net::on_kill(id);
        ENDPOINT.clear_claims(id, instance.incarnation);
        self.list(id, &instance, State::Dead)
    }

    /// Returns whether the kernel of any instance runs.
    pub fn any_runs(&self) -> bool {
        self.instances().any(|(_, i)| i.phase == Phase::Running)
    }

    /// Stops the CPUs of all instances.
    fn kill_all(&mut self) {
        for id in (0..MAX_INSTANCES as u8).map(InstanceId::new) {
            if self.find(id).is_some_and(|i| i.phase == Phase::Running) {
                // If that fails, the log says so.
                let _ = self.kill(id);
            }
        }
    }
}

/// Asks the kernel of `id` to stop, waits up to `patience` for its goodbye, and stops its CPUs in any case. Returns
/// whether it said goodbye. With slots (RFC v2) no kernel can be asked. The host's lock is not held during the wait.
pub fn stop(id: InstanceId, patience: Microseconds) -> Result<bool> {
    let (life, can_answer) =
        with(|host| host.ask_to_stop(id).map(|life| (life, host.generation == Generation::Native)))?;
    let runs = || with(|host| host.find(id).and_then(|i| i.life()) == Some(life) && !host.ending);
    // SAFETY: it looks at the task that runs this.
    let is_over = || peers::is_gone(id, life) || !runs() || unsafe { ffi::mk_ipi_glue_signal_pending() };
    if can_answer {
        start::wait_until(patience, is_over);
    }
    // In the meantime another caller may have stopped it, and started it anew.
    with(|host| if host.find(id).and_then(|i| i.life()) == Some(life) { host.kill(id) } else { Ok(()) })?;
    Ok(peers::is_gone(id, life))
}

/// The machine is about to restart, or another kernel to take its place: no spawned kernel may run then.
#[no_mangle]
extern "C" fn mk_ipi_rs_end() {
    if role::is_joined() {
        // Such a kernel's end comes later (spawned.c).
        return;
    }
    HOST.with(|host| {
        host.ending = true;
        host.kill_all();
    });
}

/// If `sleep`, the machine is about to sleep. It must not while a kernel runs, because that kernel would not survive
/// it. Otherwise the machine has woken up.
#[no_mangle]
extern "C" fn mk_ipi_rs_sleep(sleep: bool) -> bool {
    HOST.with(|host| {
        host.ending = sleep && !host.any_runs();
        host.ending == sleep
    })
}
