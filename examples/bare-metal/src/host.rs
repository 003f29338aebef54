// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host kernel: makes regions and directory, loads and starts the other kernels, says how it ended.

use crate::boot;
use crate::clock::{self, SECOND};
use crate::control::control;
use crate::layout::{self, MAX_KERNELS};
use crate::machine::{exit, Exit};
use crate::node::{instance, Node, DONE, READY};
use crate::options::Options;
use crate::platform::{bytes, ENDPOINT};
use crate::{acpi_tables, demo, image};
use mk_ipi_abi::boot_param::{MK_IPI_DIRECTORY, MK_IPI_SHARED};
use mk_ipi_abi::directory::{EntryFlags, InstanceRecord, Layout, State};
use mk_ipi_abi::{Incarnation, InstanceId, PhysAddr, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::directory::{config_of, DirectoryWriter};
use mk_ipi_core::platform::{Access, PhysMemory, ThisCpu};
use mk_ipi_core::sync::AtomicU64;
use mk_ipi_core::{InstanceConfig, LinkConfig, Occupied};
use mk_ipi_x86::{start_cpu, StartPage};

/// Room for CPUs in an entry of the directory; the demo's kernels have one each.
const CPUS_PER_INSTANCE: u32 = 4;
/// Fewest slots of a region; more if an APIC id is larger.
const MIN_SLOTS: u64 = 8;

/// The host's view of the machine: kernel k runs on CPU `cpus[k]`.
struct Machine {
    cpus: [PhysCpuId; MAX_KERNELS],
    kernels: usize,
    slots: u32,
    directory: DirectoryWriter<'static, AtomicU64>,
}

/// Brings the machine up: all kernels take messages when this returns.
pub fn start(options: Options) -> Node {
    let mut machine = Machine::find(&options);
    for k in 0..machine.kernels {
        machine.create(k);
    }
    ENDPOINT.identify(InstanceId::HOST, Incarnation::FIRST);
    demo::register();
    x86_64::instructions::interrupts::enable();
    for (k, file) in (1..).zip(options.images()) {
        machine.spawn(k, file, &options);
    }
    let Machine { kernels, .. } = machine;
    let node = Node { me: 0, kernels, options };
    node.reach(READY);
    node
}

/// Waits for the verdicts, and ends the machine with what they say.
pub fn finish(node: &Node) -> ! {
    node.wait_for_all(DONE, "not all kernels are done", || {});
    let ok = (0..node.kernels).all(|k| control().verdict(k));
    record!("{{\"done\":{{\"ok\":{ok}}}}}");
    exit(if ok { Exit::Success } else { Exit::Failed })
}

impl Machine {
    /// Looks at the CPUs, gives each kernel one, and makes an empty directory.
    fn find(options: &Options) -> Self {
        let kernel = ENDPOINT.platform();
        let kernels = 1 + options.images().count();
        if layout::own_kernel() != 0 {
            fatal!("the host's image is linked for kernel {}", layout::own_kernel());
        }
        let found =
            acpi_tables::cpus(kernel.boot().rsdp).unwrap_or_else(|e| fatal!("no CPUs in ACPI: {e:?}"));
        let me = kernel.physical_id();
        let mut cpus = [me; MAX_KERNELS];
        let others = found.ids().iter().filter(|&&cpu| cpu != me);
        let given = cpus[1..kernels].iter_mut().zip(others).map(|(place, &cpu)| *place = cpu).count();
        if 1 + given < kernels {
            fatal!("{kernels} kernels need a CPU each, the machine has {}", found.ids().len());
        }
        let slots = cpus.iter().map(|cpu| cpu.0 + 1).fold(MIN_SLOTS, u64::max);
        let slots =
            u32::try_from(slots).unwrap_or_else(|_| fatal!("an APIC id is beyond any region: {slots}"));
        let directory = kernel.map(layout::directory(), Access::ReadWrite);
        // The memory map's directory is no RAM: too small a machine.
        let directory = directory.unwrap_or_else(|e| fatal!("the directory's memory: {e:?}"));
        // SAFETY: all of memory stays mapped for ever (platform.rs).
        let words = unsafe { directory.as_ptr().as_ref() };
        let directory = DirectoryWriter::create(words, kernels as u32, CPUS_PER_INSTANCE);
        let directory = directory.unwrap_or_else(|e| fatal!("the directory: {e:?}"));
        Self { cpus, kernels, slots, directory }
    }

    /// What the directory says of kernel `k`.
    fn record(&self, k: usize, state: State) -> InstanceRecord {
        let region = ENDPOINT.instance(instance(k)).ok().and_then(|i| i.region());
        InstanceRecord {
            instance: instance(k),
            incarnation: Incarnation::FIRST,
            state,
            layout: Layout::RfcV2,
            flags: EntryFlags::EXCLUSIVE,
            region,
            doorbell_cpu: self.cpus[k],
            vector: Vector::RFC_V2,
            nr_cpus: 1,
        }
    }

    fn list(&mut self, k: usize, state: State) {
        let record = self.record(k, state);
        if let Err(e) = self.directory.write(&record, &[self.cpus[k]]) {
            fatal!("the directory's entry {k}: {e:?}");
        }
    }

    /// Makes the region of kernel `k` from its pool, and lists it.
    fn create(&mut self, k: usize) {
        let cpus = [self.cpus[k]];
        let config = config_of(&self.record(k, State::Starting), &cpus);
        let link = LinkConfig::RfcV2 { slots: self.slots, policy: Occupied::Exclusive };
        let config = InstanceConfig { link, ..config };
        if let Err(e) = ENDPOINT.create_instance(&config) {
            fatal!("the region of kernel {k}: {e:?}");
        }
        self.list(k, if k == 0 { State::Running } else { State::Starting });
    }

    /// Loads kernel `k` from `file`, starts it on its CPU, and waits until it takes messages.
    fn spawn(&mut self, k: usize, file: PhysRange, options: &Options) {
        let kernel = ENDPOINT.platform();
        let window = layout::image_window(k);
        for (range, what) in [(file, "ELF file"), (window, "window")] {
            if !kernel.boot().is_ram(range) || range.overlaps(layout::own_image()) {
                fatal!("the {what} of kernel {k} at {:#x} is no free RAM", range.start().0);
            }
        }
        if file.start().0 < layout::FILES {
            fatal!("the ELF file of kernel {k} lies below {:#x}", layout::FILES);
        }
        // SAFETY: RAM that the memory map sets aside for files and for this kernel, which does not run yet.
        let entry = unsafe { image::load(bytes(file), window) };
        let entry = entry.unwrap_or_else(|e| fatal!("the image of kernel {k}: {e}"));
        let shared = self.record(k, State::Starting).region.map_or(0, |r| r.start().0);
        let directory = layout::DIRECTORY;
        let words = format_args!("{MK_IPI_SHARED}={shared:#x} {MK_IPI_DIRECTORY}={directory:#x} {options}");
        // SAFETY: as above; the start info page lies beside the control area.
        let start_info = unsafe { kernel.boot().write_for(k, words) };
        let start_info = start_info.unwrap_or_else(|_| fatal!("the command line of kernel {k} is too long"));
        self.run(k, entry, start_info);
        self.list(k, State::Running);
    }

    /// Starts the CPU of kernel `k` at `entry`, and waits until it says that it takes messages.
    fn run(&self, k: usize, entry: u32, start_info: u32) {
        let page = StartPage::new(PhysAddr(layout::TRAMPOLINE));
        let page = page.unwrap_or_else(|e| fatal!("the trampoline: {e:?}"));
        // SAFETY: the CPU that was started before has left the trampoline, for it is ready; the page is free.
        unsafe { boot::set_trampoline(entry, start_info) };
        let kernel = ENDPOINT.platform();
        // SAFETY: the CPU belongs to nobody yet, and the trampoline is in place.
        let started =
            unsafe { start_cpu(kernel.apic(), self.cpus[k], page, |us| clock::delay_us(us.0.into())) };
        if let Err(e) = started {
            fatal!("CPU {} for kernel {k}: {e:?}", self.cpus[k].0);
        }
        let start = clock::now();
        while control().step(k) < READY {
            if clock::now().wrapping_sub(start) > 10 * SECOND {
                fatal!("kernel {k} does not come up on CPU {}", self.cpus[k].0);
            }
            kernel.sleep(kernel.runs());
        }
    }
}
