// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mk_ipi.run=serve`: a kernel whose host is no kernel of this program, and does what messages tell it (order.rs).
//!
//! It is a guest: the machine, its memory and its serial lines are the host's. It uses what its command line and its start
//! info give it, and when it fails, or is told to stop, it stops alone.

use crate::errands::ERRANDS;
use crate::inbox;
use crate::layout;
use crate::machine::{self, Exit};
use crate::options::ApicMode;
use crate::order::MAX_INSTANCES;
use crate::platform::{End, Kernel, CPUS};
use crate::spawned;
use crate::stream::Heart;
use mk_ipi_abi::directory::{EntryError, State};
use mk_ipi_abi::{Incarnation, InstanceId, PhysAddr, PhysCpuId, PhysRange};
use mk_ipi_core::directory::{Directory, InstanceRecord};
use mk_ipi_core::sync::{AtomicBool, AtomicU64, Ordering};
use mk_ipi_core::{config_of, Endpoint, InstanceConfig, InstanceRef};
use x86_64::instructions::interrupts;

/// The host has told us to stop.
static STOP: AtomicBool = AtomicBool::new(false);
/// This kernel's end of every link: its host may have several CPUs.
pub static SERVER: End<CPUS> = Endpoint::new(Kernel);

/// All whom a kernel that serves can know.
pub fn ids() -> impl Iterator<Item = InstanceId> {
    (0..MAX_INSTANCES as u8).map(InstanceId::new)
}

/// Serves until the host says stop. Interrupts are set up, and off.
pub fn run(cmdline: &[u8], shared: PhysAddr, mode: ApicMode) -> ! {
    Kernel.ignore_strays();
    inbox::register();
    let directory = spawned::directory(cmdline);
    // Who is left out is looked for again and again.
    let (me, kernels) = spawned::join(&SERVER, directory, shared, |_, _| ());
    if me.index() >= MAX_INSTANCES {
        fatal!("instance {} is beyond the {MAX_INSTANCES} that are known here", me.get());
    }
    if SERVER.instance(InstanceId::HOST).is_err() {
        fatal!("the host is not listed, or with more than {CPUS} CPUs");
    }
    crate::introduce(SERVER.identity());
    log!("image at {:#x}, {mode}, {kernels} kernels known, serving", layout::own_image().start().0);
    let mut errands = ERRANDS.lock();
    errands.begin(me);
    interrupts::enable();
    let mut peers = Peers { me, directory, refused: 0 };
    let mut heart = Heart::new();
    while !STOP.load(Ordering::Relaxed) {
        let runs = Kernel.runs();
        if heart.beat(&SERVER) {
            errands.look_around(&mut peers);
        }
        if errands.turn(&mut peers) {
            Kernel.sleep(runs);
        }
    }
    log!("stopping, as told; {:?}", SERVER.stats());
    interrupts::disable();
    // The last thing: whoever sees it may take the CPU and the memory away.
    SERVER.goodbye();
    machine::halt()
}

/// Stops this kernel, which cannot go on and has said why.
pub fn give_up(how: Exit) -> ! {
    interrupts::disable();
    // Where an exception struck nothing can be relied upon; the heartbeat ends by itself.
    if !matches!(how, Exit::Exception) {
        SERVER.goodbye();
    }
    machine::halt()
}

/// The host's stop word. In an interrupt: the main program acts.
pub fn on_stop() {
    STOP.store(true, Ordering::Relaxed);
}

/// The life of `id` that the directory lists, if it does.
pub fn listed_life(id: InstanceId) -> Option<Incarnation> {
    let mut cpus = [PhysCpuId(0); CPUS];
    Kernel.directory()?.read(id, &mut cpus).ok().map(|record| record.incarnation)
}

/// The endpoint's table, kept as the directory has it.
pub struct Peers {
    me: InstanceId,
    directory: &'static Directory<'static, AtomicU64>,
    /// Those that could not be added, as was said: one bit for each.
    refused: u64,
}

/// What became of a peer since it was last looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// It was added.
    Came,
    /// It was taken out: it is gone for good.
    Went,
    /// Another one of that id was added in its place.
    Replaced,
}

impl Peers {
    /// All that can be looked for.
    pub fn listed(&self) -> impl Iterator<Item = InstanceId> + 'static {
        self.directory.ids().take(MAX_INSTANCES)
    }

    /// Looks for `id` in the directory. A kernel that is dead keeps its place: it may live again in its region.
    pub fn look_for(&mut self, id: InstanceId) -> Change {
        let mut cpus = [PhysCpuId(0); CPUS];
        match self.directory.read(id, &mut cpus) {
            _ if id == self.me => Change::None,
            Ok(record) => self.meet(&record, &config_of(&record, &cpus)),
            Err(EntryError::Absent) if self.part_with(id) => Change::Went,
            // To be read when the host has come to rest; one that makes no sense changes nothing.
            Err(_) => Change::None,
        }
    }

    fn meet(&mut self, record: &InstanceRecord, config: &InstanceConfig) -> Change {
        let id = record.instance;
        let is_known = SERVER.instance(id).is_ok_and(|known| is_same(&known, record, config));
        if is_known || !matches!(record.state, State::Starting | State::Running) {
            return Change::None;
        }
        let had = self.part_with(id);
        match (self.attach(record, config), had) {
            (true, true) => Change::Replaced,
            (true, false) => Change::Came,
            (false, true) => Change::Went,
            (false, false) => Change::None,
        }
    }

    fn attach(&mut self, record: &InstanceRecord, config: &InstanceConfig) -> bool {
        let (id, bit) = (record.instance.get(), 1 << record.instance.get());
        match SERVER.attach_instance(config, record.region) {
            Ok(()) => {
                self.refused &= !bit;
                return true;
            }
            Err(e) if self.refused & bit == 0 => log!("kernel {id} cannot be added: {e:?}"),
            Err(_) => {}
        }
        self.refused |= bit;
        false
    }

    /// Takes `id` out of the table, if it is there; whether it was.
    fn part_with(&self, id: InstanceId) -> bool {
        // Nobody uses it: there is one CPU, and deferred work is not under way.
        let had = SERVER.destroy_instance(id).is_ok();
        if had {
            inbox::forget(id);
        }
        had
    }
}

/// Whether the peer that we know is reached as the directory says.
fn is_same(
    known: &InstanceRef<'_, AtomicU64, CPUS>,
    record: &InstanceRecord,
    config: &InstanceConfig,
) -> bool {
    known.region().map(PhysRange::start) == record.region.map(PhysRange::start)
        && (known.cpus(), known.doorbell_cpu()) == (config.cpus, config.doorbell_cpu)
        && (known.vector(), known.one_doorbell()) == (config.vector, config.one_doorbell)
}
