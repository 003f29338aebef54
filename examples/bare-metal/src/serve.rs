// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mk_ipi.run=serve`: a kernel whose host is no kernel of this program, and does what messages tell it (order.rs).
//!
//! It is a guest: the machine, its memory and its serial lines are the host's. It uses what its command line and its start
//! info give it, and when it fails, or is told to stop, it stops alone.

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

/// The host has told us to stop.
static STOP: AtomicBool = AtomicBool::new(false);
/// This kernel's end of every link. It has one CPU; its host may have any number.
pub static SERVER: End<1> = Endpoint::new(Kernel);

/// All whom a kernel that serves can know.
pub fn ids() -> impl Iterator<Item = InstanceId> {
    (0..MAX_INSTANCES as u8).map(InstanceId::new)
}

/// Serves until the host says stop. Interrupts are set up, and off.
pub fn run(cmdline: &[u8], shared: PhysAddr, options: &Options) -> ! {
    Kernel.controller().ignore_strays();
    inbox::register();
    net::register();
    let directory = spawned::directory(cmdline);
    // Who is left out is looked for again when the directory has changed.
    let (me, kernels) = spawned::join(&SERVER, directory, shared, |_, _| ());
    if me.index() >= MAX_INSTANCES {
        fatal!("instance {} is beyond the {MAX_INSTANCES} that are known here", me.get());
    }
    if SERVER.instance(InstanceId::HOST).is_err() {
        fatal!("the host is not listed, or cannot be added");
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
    Kernel.directory()?.record(id).ok().map(|record| record.incarnation)
}

/// The endpoint's table, kept as the directory has it.
pub struct Peers {
    directory: &'static Directory<'static, AtomicU64>,
    /// Those that are in the table: one bit for each.
    known: u64,
    /// Those that could not be added, as was said: one bit for each.
    refused: u64,
}

/// What became of a peer since the directory was last followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was added.
    Came,
    /// It was taken out: it is gone for good.
    Went,
    /// Another one of that id was added in its place.
    Replaced,
}

impl Peers {
    /// The peers that are known after the join.
    fn new(directory: &'static Directory<'static, AtomicU64>) -> Self {
        let known = ids().filter(|id| SERVER.instance(*id).is_ok()).fold(0, |bits, id| bits | bit(id));
        Self { directory, known, refused: 0 }
    }

    /// Does what the directory asks for by now, and calls `each` for whoever came or went. A kernel that is dead keeps its place:
    /// it may live again in its region.
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

    /// Keeps what became of `id`.
    fn note(&mut self, id: InstanceId, followed: Followed) -> Option<Change> {
        let (bit, had) = (bit(id), self.known & bit(id) != 0);
        let change = match followed {
            // Another life in the same region, or rung elsewhere: its streams go on.
            Followed::Changed | Followed::TakenForDead => return None,
            Followed::Added if had => Some(Change::Replaced),
            Followed::Added => Some(Change::Came),
            Followed::Removed => Some(Change::Went),
            Followed::LeftOut(e) => {
                if self.refused & bit == 0 {
                    log!("kernel {} cannot be added: {e:?}", id.get());
                }
                self.refused |= bit;
                // An entry that makes no sense takes nobody out.
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

/// The bit of `id`, if it is one of those that can be known.
fn bit(id: InstanceId) -> u64 {
    1u64.checked_shl(id.get().into()).unwrap_or(0)
}
