// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mk_ipi.run=serve`: a kernel whose host is of another kind, such as Linux. It does what the host's messages say (order.rs).
//!
//! The machine, its memory and its serial lines belong to the host. The kernel uses only what its command line and its start
//! info name. If it fails, or is told to stop, it stops only itself.

use crate::arch::interrupts;
use crate::console;
use crate::hostile::{self, Noise};
use crate::inbox;
use crate::link_log;
use crate::machine::{self, Exit};
use crate::net::{self, Nets};
use crate::options::{Hostile, Options};
use crate::order::MAX_INSTANCES;
use crate::own;
use crate::platform::{End, Kernel};
use crate::play;
use crate::requests::REQUESTS;
use crate::spawned;
use crate::stream::Heart;
use mk_ipi_abi::{Incarnation, InstanceId, PhysAddr};
use mk_ipi_core::directory::Directory;
use mk_ipi_core::sync::{AtomicBool, AtomicU64, Ordering};
use mk_ipi_core::{Endpoint, Followed, JoinError};

/// True after the host has told this kernel to stop.
static STOP: AtomicBool = AtomicBool::new(false);
/// This kernel's endpoint. This kernel has one CPU; its host can have any number.
pub static SERVER: End<1> = Endpoint::new(Kernel);

/// The ids below [`MAX_INSTANCES`]. A kernel that serves can know only kernels with these ids.
pub fn ids() -> impl Iterator<Item = InstanceId> {
    (0..MAX_INSTANCES as u8).map(InstanceId::new)
}

/// Serves until the host tells this kernel to stop. Interrupts are set up, but off.
pub fn run(cmdline: &[u8], shared: PhysAddr, options: &Options) -> ! {
    Kernel.controller().ignore_strays();
    inbox::register();
    net::register();
    let directory = spawned::directory(cmdline);
    // If a kernel cannot be added now, `Peers::follow` tries to add it when the directory has changed.
    let (me, kernels) = spawned::join(&SERVER, directory, shared, |_, _| ());
    if me.index() >= MAX_INSTANCES {
        fatal!("instance id {} is too large: the largest is {}", me.get(), MAX_INSTANCES - 1);
    }
    if SERVER.instance(InstanceId::HOST).is_err() {
        fatal!("the directory does not list the host, or the host cannot be added");
    }
    play::introduce(SERVER.identity());
    log!("image at {:#x}, {}, {kernels} kernels known, serving", own::image().start().0, options.mode);
    let mut requests = REQUESTS.lock();
    requests.begin(me);
    interrupts::enable();
    let mut peers = Peers::new(directory);
    let mut heart = Heart::new();
    let mut nets = match (options.ip, SERVER.identity()) {
        (Some(address), Some((me, life))) => Nets::open(me, life, address),
        _ => Nets::NONE,
    };
    let mut noise = match options.hostile {
        Some(Hostile::Noise(seed)) => Some(Noise::new(seed)),
        _ => None,
    };
    while !STOP.load(Ordering::Relaxed) {
        let runs = Kernel.runs();
        if heart.beat(&SERVER) {
            requests.look_around(&mut peers);
            if console::is_link() {
                link_log::go_on();
            }
            nets.tick();
        }
        if options.hostile == Some(Hostile::Deaf) {
            hostile::be_deaf(&mut heart);
        }
        let is_noisy = noise.as_mut().is_some_and(Noise::turn);
        if !is_noisy & !nets.turn() & requests.turn(&mut peers) {
            Kernel.sleep(runs);
        }
    }
    log!("the host told this kernel to stop; {:?}", SERVER.stats());
    interrupts::disable();
    // `goodbye` must be the last call. After the host has seen it, the host can take the CPU and the memory away.
    SERVER.goodbye();
    machine::halt()
}

/// Stops this kernel after an error, which the caller has reported.
pub fn give_up(how: Exit) -> ! {
    interrupts::disable();
    // After an exception this kernel's state may be wrong, so `goodbye` is not called. The host notices that the heartbeat
    // has ended.
    if !matches!(how, Exit::Exception) {
        SERVER.goodbye();
    }
    machine::halt()
}

/// Called when the host has set the stop word. This can run in an interrupt, so it only sets a flag, which the main program
/// reads.
pub fn on_stop() {
    STOP.store(true, Ordering::Relaxed);
}

/// The incarnation of `id` in the directory. `None` if the directory does not list `id`.
pub fn listed_life(id: InstanceId) -> Option<Incarnation> {
    Kernel.directory()?.record(id).ok().map(|record| record.incarnation)
}

/// Keeps the endpoint's table up to date with the directory, and remembers which kernels are in the table.
pub struct Peers {
    directory: &'static Directory<'static, AtomicU64>,
    /// The kernels in the table: one bit for each.
    known: u64,
    /// The kernels that could not be added, and for which this was logged: one bit for each.
    refused: u64,
}

/// What has changed for a peer since the directory was last followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The peer was added.
    Came,
    /// The peer was removed, because the directory does not list it any more.
    Went,
    /// The peer was removed, and another kernel with the same id was added.
    Replaced,
}

impl Peers {
    /// Begins with the peers that are in the table after the join.
    fn new(directory: &'static Directory<'static, AtomicU64>) -> Self {
        let known = ids().filter(|id| SERVER.instance(*id).is_ok()).fold(0, |bits, id| bits | bit(id));
        Self { directory, known, refused: 0 }
    }

    /// Follows the directory, and calls `each` for each kernel that was added or removed. A dead kernel stays in the table,
    /// because its next life can use its region.
    pub fn follow(&mut self, mut each: impl FnMut(InstanceId, Change)) {
        let directory = self.directory;
        let followed = SERVER.follow(directory, |id, followed| {
            if let Some(change) = self.note(id, followed).filter(|_| id.index() < MAX_INSTANCES) {
                each(id, change);
            }
        });
        match followed {
            Ok(_)
            | Err(JoinError::Changing(_) | JoinError::InUse(_) | JoinError::Ringing | JoinError::Busy) => {}
            Err(e) => log!("the directory cannot be followed: {e:?}"),
        }
    }

    /// Records the change of `id`. Returns what [`follow`](Self::follow) must pass to its callback, if anything.
    fn note(&mut self, id: InstanceId, followed: Followed) -> Option<Change> {
        let (bit, had) = (bit(id), self.known & bit(id) != 0);
        let change = match followed {
            // The peer has a new life in the same region, or its doorbell has moved. Its streams continue.
            Followed::Changed | Followed::TakenForDead => return None,
            Followed::Added if had => Some(Change::Replaced),
            Followed::Added => Some(Change::Came),
            Followed::Removed => Some(Change::Went),
            Followed::LeftOut(e) => {
                if self.refused & bit == 0 {
                    log!("kernel {} cannot be added: {e:?}", id.get());
                }
                self.refused |= bit;
                // If only the directory entry is invalid, the kernel stays in the table.
                (had && SERVER.instance(id).is_err()).then_some(Change::Went)
            }
        };
        if matches!(change, Some(Change::Came | Change::Replaced)) {
            (self.known, self.refused) = (self.known | bit, self.refused & !bit);
        }
        if matches!(change, Some(Change::Went | Change::Replaced)) {
            inbox::forget(id);
        }
        if change == Some(Change::Went) {
            self.known &= !bit;
        }
        change
    }
}

/// The bit of `id`. 0 if `id` is too large for a bit map.
fn bit(id: InstanceId) -> u64 {
    1u64.checked_shl(id.get().into()).unwrap_or(0)
}
