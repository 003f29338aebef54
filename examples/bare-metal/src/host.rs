// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host kernel: makes the regions and the directory, loads, starts and stops the other kernels, and reports the result.

use crate::arch;
use crate::clock::{self, Microseconds, SECOND};
use crate::control::control;
use crate::layout::{self, MAX_KERNELS};
use crate::machine::{exit, Exit};
use crate::node::{instance, Node, DONE, READY};
use crate::options::{Generation, Options, Run};
use crate::platform::{bytes, ENDPOINT};
use crate::shares::Shares;
use crate::{console, demo, hand_over, image, journal, own};
use mk_ipi_abi::boot_param::{MK_IPI_DIRECTORY, MK_IPI_SHARED};
use mk_ipi_abi::directory::{EntryFlags, InstanceRecord, Layout, State};
use mk_ipi_abi::native::Geometry;
use mk_ipi_abi::{Incarnation, InstanceId, PhysAddr, PhysCpuId, PhysRange, PAGE_SIZE};
use mk_ipi_core::directory::DirectoryWriter;
use mk_ipi_core::platform::{Access, PhysMemory, ThisCpu};
use mk_ipi_core::sync::AtomicU64;
use mk_ipi_core::{config_of, InstanceConfig, LinkConfig, SlotPolicy};

/// The smallest number of slots in a region. If a CPU's id needs more slots, the regions have more.
const MIN_SLOTS: u64 = 8;

/// The time that a CPU is given to stop. It is long, because an emulated CPU stops only when the emulator runs its thread.
const STOP: Microseconds = Microseconds(50_000);

/// The host's view of the machine. `lives[k]` is the incarnation of kernel k.
pub struct Machine {
    shares: Shares,
    /// True if a CPU is moved in this run. In such a run each kernel has its own doorbell vector.
    moves: bool,
    lives: [Incarnation; MAX_KERNELS],
    kernels: usize,
    link: LinkConfig,
    directory: DirectoryWriter<'static, AtomicU64>,
}

/// Makes the regions and the directory, and starts all other kernels. All kernels take messages when this returns.
pub fn start(options: Options) -> (Node, Machine) {
    let mut machine = Machine::find(&options);
    (0..machine.kernels).for_each(journal::clear);
    demo::register();
    // The identity must be set before this kernel's native region is made.
    ENDPOINT.identify(InstanceId::HOST, Incarnation::FIRST);
    for k in 0..machine.kernels {
        machine.create(k);
    }
    arch::interrupts::enable();
    let going_on = options.kills.is_some() || options.moves.is_some();
    control().go_on(options.run == Run::Demo && going_on);
    for (k, file) in (1..).zip(options.images()) {
        machine.spawn(k, file, &options);
    }
    let node = Node { me: 0, kernels: machine.kernels, options };
    node.reach(READY);
    (node, machine)
}

/// Waits for the results of all kernels, and ends the machine. The exit status says whether all kernels found no fault.
pub fn finish(node: &Node) -> ! {
    node.wait_for_all(DONE, "not all kernels are done", || {});
    let ok = (0..node.kernels).all(|k| control().verdict(k));
    record!("{{\"done\":{{\"ok\":{ok}}}}}");
    exit(if ok { Exit::Success } else { Exit::Failed })
}

impl Machine {
    /// Finds the machine's CPUs, gives each kernel one, and makes an empty directory.
    fn find(options: &Options) -> Self {
        let kernel = ENDPOINT.platform();
        let kernels = 1 + options.images().count();
        if own::kernel() != 0 {
            fatal!("the host's image is linked for kernel {}", own::kernel());
        }
        let found =
            arch::cpus(kernel.boot()).unwrap_or_else(|e| fatal!("firmware does not list the CPUs: {e:?}"));
        let me = kernel.physical_id();
        let moves = options.moves.is_some();
        let Some(shares) = Shares::new(&found, me, kernels, moves) else {
            fatal!("{kernels} kernels need too many CPUs: the machine has {}", found.ids().len())
        };
        let link = link(options.generation, found.ids(), kernels);
        let directory = kernel.map(layout::directory(), Access::ReadWrite);
        // This fails if the machine has too little RAM for the memory map (layout.rs).
        let directory = directory.unwrap_or_else(|e| fatal!("no memory for the directory: {e:?}"));
        // SAFETY: memory is never unmapped (platform.rs).
        let words = unsafe { directory.as_ptr().as_ref() };
        // Each entry of the directory has room for all CPUs of the machine.
        let directory = DirectoryWriter::create(words, kernels as u32, found.ids().len() as u32);
        let directory = directory.unwrap_or_else(|e| fatal!("cannot make the directory: {e:?}"));
        let Some(boot_cpu) = kernel.controller().boot_cpu() else {
            fatal!("it is not known which CPU booted the machine")
        };
        let directory = directory.at(PhysAddr(layout::DIRECTORY)).boot_cpu(boot_cpu);
        kernel.set_directory(directory.reader());
        Self { shares, moves, lives: [Incarnation::FIRST; MAX_KERNELS], kernels, link, directory }
    }

    /// The content of the directory entry of kernel `k`.
    fn record(&self, k: usize, state: State) -> InstanceRecord {
        let region = ENDPOINT.instance(instance(k)).ok().and_then(|i| i.region());
        let native = matches!(self.link, LinkConfig::Native(_));
        InstanceRecord {
            instance: instance(k),
            incarnation: self.lives[k],
            state,
            layout: if native { Layout::Native } else { Layout::RfcV2 },
            flags: if native { EntryFlags::empty() } else { EntryFlags::EXCLUSIVE },
            region,
            doorbell_cpu: self.shares.first(k),
            vector: match k {
                k if self.moves => hand_over::vector(k),
                0 => arch::DOORBELL,
                _ => arch::DOORBELL_OF_SPAWNED,
            },
            nr_cpus: self.shares.of(k).len() as u32,
        }
    }

    /// Writes the directory entry of kernel `k`. Returns the directory's new generation.
    fn list(&mut self, k: usize, state: State) -> u32 {
        let record = self.record(k, state);
        let written = self.directory.write(&record, self.shares.of(k));
        written.unwrap_or_else(|e| fatal!("cannot write the directory entry of kernel {k}: {e:?}"))
    }

    /// Makes the region of kernel `k` in its pool, and writes the kernel's directory entry.
    fn create(&mut self, k: usize) {
        let config = config_of(&self.record(k, State::Starting), self.shares.of(k));
        let config = InstanceConfig { link: self.link, ..config };
        if let Err(e) = ENDPOINT.create_instance(&config) {
            fatal!("cannot make the region of kernel {k}: {e:?}");
        }
        self.list(k, if k == 0 { State::Running } else { State::Starting });
    }

    /// Loads kernel `k` from its ELF file `file`, starts it on its CPU, and waits until it takes messages.
    fn spawn(&mut self, k: usize, file: PhysRange, options: &Options) {
        self.start(k, file, options, |us| clock::delay_us(us.0.into()));
        let (kernel, start) = (ENDPOINT.platform(), clock::now());
        while control().step(k) < READY {
            if clock::now().wrapping_sub(start) > 10 * SECOND {
                fatal!("kernel {k} did not start on CPU {} within 10 s", self.shares.first(k).0);
            }
            kernel.sleep(kernel.runs());
        }
        self.runs(k);
    }

    /// Ends the present life of kernel `k`. On x86-64 it stops at any instruction. On arm64 and riscv64, where one CPU cannot
    /// stop another one, it stops at its next doorbell. For `meanwhile` see [`arch::Controller::stop`].
    pub fn stop(&mut self, k: usize, meanwhile: impl FnMut(Microseconds)) {
        control().order_stop(k, true);
        // SAFETY: the CPU belongs to that kernel alone, and the host may end that kernel.
        let stopped = unsafe { ENDPOINT.platform().controller().stop(self.shares.first(k), STOP, meanwhile) };
        if let Err(e) = stopped {
            fatal!("cannot stop CPU {} of kernel {k}: {e:?}", self.shares.first(k).0);
        }
        control().order_stop(k, false);
        self.list(k, State::Dead);
        // The kernel has stopped writing, so its claims can be cleared.
        ENDPOINT.clear_claims(instance(k), self.lives[k]);
        console::release_of(k);
        control().set_step(k, 0);
    }

    /// Starts the next life of kernel `k`, which has been stopped. Its image is loaded again; its region is not changed.
    /// For `meanwhile` see `delay` of [`arch::Controller::start`].
    pub fn revive(&mut self, k: usize, options: &Options, meanwhile: impl FnMut(Microseconds)) {
        let Some(file) = options.images().nth(k - 1) else { fatal!("kernel {k} has no image") };
        self.lives[k] = self.lives[k].next();
        self.list(k, State::Starting);
        self.start(k, file, options, meanwhile);
    }

    /// Sets the state of kernel `k` in the directory to running.
    pub fn runs(&mut self, k: usize) {
        self.list(k, State::Running);
    }

    /// Loads kernel `k` from `file` and starts its CPU. For `delay` see [`arch::Controller::start`].
    fn start(&self, k: usize, file: PhysRange, options: &Options, delay: impl FnMut(Microseconds)) {
        let kernel = ENDPOINT.platform();
        let window = layout::image_window(k);
        for (range, what) in [(file, "ELF file"), (window, "window")] {
            if !kernel.boot().is_ram(range) || range.overlaps(own::image()) {
                fatal!("the {what} of kernel {k} at {:#x} is not free RAM", range.start().0);
            }
        }
        if file.start().0 < layout::FILES {
            fatal!("the ELF file of kernel {k} is below {:#x}", layout::FILES);
        }
        // SAFETY: this is RAM that the memory map (layout.rs) reserves for the files, and for kernel `k`, which does not run.
        let entry = unsafe { image::load(bytes(file), window) };
        let entry = entry.unwrap_or_else(|e| fatal!("cannot load kernel {k}: {e}"));
        let shared = self.record(k, State::Starting).region.map_or(0, |r| r.start().0);
        let directory = layout::DIRECTORY;
        let words = format_args!("{MK_IPI_SHARED}={shared:#x} {MK_IPI_DIRECTORY}={directory:#x} {options}");
        // SAFETY: kernel `k` does not run. The start info page is RAM, because it is directly after the control area.
        let start_info = unsafe { kernel.boot().write_for(k, words) };
        let start_info = start_info.unwrap_or_else(|_| fatal!("the command line of kernel {k} is too long"));
        let told = PhysRange::new(PhysAddr(start_info), PAGE_SIZE);
        [Some(window), told].into_iter().flatten().for_each(arch::publish);
        // SAFETY: no kernel runs on the CPU. The image is loaded, and its entry takes a start info.
        unsafe { start_at(self.shares.first(k), entry, start_info, delay) };
    }

    /// The spare CPU, which is moved between kernels.
    pub fn spare(&self) -> PhysCpuId {
        self.shares.spare()
    }

    /// Removes the spare CPU from the directory entry of kernel `k`. Returns the first generation without it.
    pub fn take_spare(&mut self, k: usize) -> u32 {
        self.shares.holder = None;
        self.list(k, State::Running)
    }

    /// Adds the spare CPU to the directory entry of kernel `k`.
    pub fn give_spare(&mut self, k: usize) {
        self.shares.holder = Some(k);
        self.list(k, State::Running);
    }

    /// Stops the spare CPU, which belongs to no kernel now. For `meanwhile` see [`arch::Controller::stop`].
    pub fn stop_spare(&self, meanwhile: impl FnMut(Microseconds)) {
        let cpu = self.spare();
        // SAFETY: the CPU belongs to no kernel. The last one has reported by `Left` that it does not use the CPU any more.
        let stopped = unsafe { ENDPOINT.platform().controller().stop(cpu, STOP, meanwhile) };
        if let Err(e) = stopped {
            fatal!("cannot stop CPU {}: {e:?}", cpu.0);
        }
    }

    /// Starts the spare CPU at `entry`, the address that kernel `k` gave in its note `Ready`. For `delay` see
    /// [`arch::Controller::start`].
    pub fn start_spare(&self, k: usize, entry: u64, delay: impl FnMut(Microseconds)) {
        let at =
            PhysRange::new(PhysAddr(entry), 1).filter(|at| layout::contains(layout::image_window(k), *at));
        if at.is_none() {
            fatal!("the entry {entry:#x} is outside of the window of kernel {k}");
        }
        // SAFETY: the CPU is stopped and belongs to kernel `k`, which gave this address as the CPU's entry.
        unsafe { start_at(self.spare(), entry, 0, delay) };
    }
}

/// Starts `cpu` at `entry`, with `argument`. For `delay` see [`arch::Controller::start`].
///
/// # Safety
///
/// As for [`arch::Controller::start`].
unsafe fn start_at(cpu: PhysCpuId, entry: u64, argument: u64, delay: impl FnMut(Microseconds)) {
    // SAFETY: the caller keeps the safety rules of this function.
    let started = unsafe { ENDPOINT.platform().controller().start(cpu, entry, argument, delay) };
    if let Err(e) = started {
        fatal!("cannot start CPU {}: {e:?}", cpu.0);
    }
}

/// The layout of the regions, for `kernels` kernels on these CPUs.
fn link(generation: Generation, cpus: &[PhysCpuId], kernels: usize) -> LinkConfig {
    match generation {
        Generation::Native => LinkConfig::Native(Geometry::default_for(kernels as u32)),
        Generation::RfcV2 => {
            let slots = cpus.iter().map(|cpu| cpu.0 + 1).fold(MIN_SLOTS, u64::max);
            let slots =
                u32::try_from(slots).unwrap_or_else(|_| fatal!("a CPU id is too large: {slots} slots"));
            LinkConfig::RfcV2 { slots, policy: SlotPolicy::Exclusive }
        }
    }
}
