// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starts and stops the kernels of instances.

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

/// How many bytes below 1 MiB a kernel gets if its image can be moved. Linux needs this memory for the code with which it
/// starts its other CPUs.
const LOW: u64 = 48 << 10;

/// The arguments of a start of a kernel.
pub struct Files<'a> {
    /// The image of the kernel.
    pub image: &'a File,
    /// The initramfs of the kernel, if it gets one.
    pub initrd: Option<&'a File>,
    /// The words that are put on the kernel's command line, after the words of the host.
    pub words: &'a str,
}

/// Writes the words that every spawned Linux needs on its command line. They tell it not to use devices of the host, to use
/// only its own CPUs, to use the clock rate that the host has measured, and not to restart the machine. A later word on
/// the command line overrides an earlier one.
struct LinuxWords {
    /// How many CPUs the kernel has at its start.
    cpus: usize,
}

impl fmt::Display for LinuxWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: Linux writes this variable only at boot.
        let khz = unsafe { ffi::tsc_khz };
        write!(f, "tsc_early_khz={khz} tsc=reliable maxcpus={} ", self.cpus)?;
        // With `maxcpus=` the kernel must bring up its first CPUs, because only these belong to it at its start. But a Linux
        // that brings up CPUs in parallel does not take them in the order of their numbers. So it must not do that.
        f.write_str("cpuhp.parallel=0 pci=off 8250.nr_uarts=0 ")?;
        f.write_str("no_ipi_broadcast=1 panic=0 apic_extnmi=none ")?;
        match Linux.apic().map(|apic| apic.mode()) {
            // Without `noapic` a Linux that finds no interrupt remapping leaves x2APIC mode.
            Some(Mode::X2Apic) => f.write_str("noapic "),
            _ => Ok(()),
        }
    }
}

/// A kernel in memory that can be started.
struct Ready {
    /// The address of the kernel's entry.
    entry: u32,
    /// Its start pages.
    pages: PhysRange,
}

impl Host {
    /// Starts the kernel of `id`, in its first or next life. If the image is loaded but the CPU cannot be started, the
    /// instance is stopped, one incarnation number is used up, and the image of the former life is lost.
    pub fn start(&mut self, id: InstanceId, files: &Files<'_>) -> Result {
        let ready = self.load_or_undo(id, files)?;
        let mut instance = self.get(id)?;
        if instance.phase == Phase::Stopped {
            instance.incarnation = instance.incarnation.next();
        }
        let done = self.enter(id, &instance, &ready);
        instance.phase = Phase::Running;
        self.set(id, Some(instance));
        // If the kill fails too, the CPU can be in the image. Then the instance stays in the phase `Running`, and the
        // command `kill` can be repeated.
        let listed = if done.is_ok() { self.list(id, &instance, State::Running) } else { self.kill(id) };
        if self.get(id)?.phase != Phase::Running {
            Self::unload(id);
        }
        done.and(listed)
    }

    /// Does all steps of a start of the kernel of `id` before its CPU is started, and undoes them. Returns an error if the
    /// kernel cannot be started.
    pub fn check_start(&mut self, id: InstanceId, files: &Files<'_>) -> Result {
        self.load_or_undo(id, files).map(|_| Self::unload(id))
    }

    fn load_or_undo(&mut self, id: InstanceId, files: &Files<'_>) -> Result<Ready> {
        let instance = self.get(id)?;
        if instance.phase == Phase::Running || self.ending {
            return refuse!(
                EBUSY,
                "instance {} runs already, or the machine is about to restart or to sleep",
                id.get()
            );
        }
        let ready = self.load(id, &instance, files);
        if ready.is_err() {
            Self::unload(id);
        }
        ready
    }

    /// Writes the image, the initramfs and the start pages into the memory of `id`. After an error, the caller must call
    /// `unload`.
    fn load(&mut self, id: InstanceId, instance: &Instance, files: &Files<'_>) -> Result<Ready> {
        let (Some(pages), Some(region), Some(directory), Some(boot_cpu)) = (
            memory::of(Owner::StartPages(id)),
            self.region_of(id),
            memory::of(Owner::Directory),
            cpus::boot_cpu(),
        ) else {
            return refuse!(ENODEV, "instance {} has no region", id.get());
        };
        // SAFETY: the CPUs of the instance were stopped, or never started.
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
            // SAFETY: as above, and these are the start pages of the instance.
            unsafe { start::write_start_pages(id, pages, &Handed { boot_cpu, cpus, initrd, cmdline }) }
        };
        let ours = format_args!("{MK_IPI_SHARED}={shared:#x} {MK_IPI_DIRECTORY}={directory:#x}");
        match of_linux {
            Some(of_linux) => handed(format_args!("{ours} {of_linux}{}", files.words))?,
            None => handed(format_args!("{ours} {}", files.words))?,
        }
        Ok(Ready { entry, pages })
    }

    /// Frees the memory that `load` took.
    fn unload(id: InstanceId) {
        memory::give_back(Owner::Image(id));
        memory::give_back(Owner::Low(id));
    }

    /// Writes the directory entry of the new life, and starts the first CPU in the image.
    fn enter(&mut self, id: InstanceId, instance: &Instance, ready: &Ready) -> Result {
        peers::forget(id);
        if self.generation == Generation::RfcV2 {
            traffic::peer_restarts(id);
        }
        self.list(id, instance, State::Starting)?;
        let ([first, ..], ..) = instance.ids();
        // SAFETY: the CPU belongs to the instance, and the image was just loaded.
        unsafe { start::enter(first, ready.entry, ready.pages) }
    }

    fn region_of(&self, id: InstanceId) -> Option<PhysRange> {
        ENDPOINT.instance(id).ok()?.region()
    }

    /// Asks the kernel of `id` to stop, if it is on the native link. Returns its incarnation.
    fn ask_to_stop(&mut self, id: InstanceId) -> Result<Incarnation> {
        let instance = self.get(id)?;
        if instance.phase != Phase::Running {
            return refuse!(EINVAL, "instance {} does not run", id.get());
        }
        if self.generation == Generation::Native {
            // This fails if the kernel has no lane for this host. Then the kernel is not asked, and is stopped without its
            // goodbye.
            let _ = ENDPOINT.stop(id, instance.incarnation);
        }
        Ok(instance.incarnation)
    }

    /// Stops the CPUs of `id` at once, whatever they execute.
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
                // If a kill fails, the log says so.
                let _ = self.kill(id);
            }
        }
    }
}

/// Asks the kernel of `id` to stop, waits up to `patience` for its goodbye, and then stops its CPUs in any case. Returns
/// whether the kernel said goodbye. With slots (RFC v2) a kernel cannot be asked, so its CPUs are stopped at once. The
/// host's lock is not held during the wait.
pub fn stop(id: InstanceId, patience: Microseconds) -> Result<bool> {
    let (life, can_answer) =
        with(|host| host.ask_to_stop(id).map(|life| (life, host.generation == Generation::Native)))?;
    let runs = || with(|host| host.find(id).and_then(|i| i.life()) == Some(life) && !host.ending);
    // SAFETY: it only reads the state of the current task.
    let is_over = || peers::is_gone(id, life) || !runs() || unsafe { ffi::mk_ipi_glue_signal_pending() };
    if can_answer {
        start::wait_until(patience, is_over);
    }
    // During the wait another caller can have stopped this kernel, and started its next life. That life is not stopped.
    with(|host| if host.find(id).and_then(|i| i.life()) == Some(life) { host.kill(id) } else { Ok(()) })?;
    Ok(peers::is_gone(id, life))
}

/// Called before the machine restarts or is switched off, and before kexec starts another kernel. Stops all other kernels.
#[no_mangle]
extern "C" fn mk_ipi_rs_end() {
    if role::is_joined() {
        // A host has started this kernel. Such a kernel ends later, in a function of spawned.c.
        return;
    }
    HOST.with(|host| {
        host.ending = true;
        host.kill_all();
    });
}

/// Called before the machine sleeps (`sleep` is true), and after it has woken up (`sleep` is false). Returns false if the
/// machine must not sleep, because a kernel of an instance runs: it would not continue after the sleep.
#[no_mangle]
extern "C" fn mk_ipi_rs_sleep(sleep: bool) -> bool {
    HOST.with(|host| {
        host.ending = sleep && !host.any_runs();
        host.ending == sleep
    })
}
