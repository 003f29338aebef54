// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mk_ipi.run=serve`: a kernel whose host is not a kernel of this program, and that does what messages tell it
//! (order.rs).
//!
//! It is a guest: the machine, its memory and its serial lines belong to the host. It uses what its command line and
//! its start info give it. When it fails, or is told to stop, it stops only itself.

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

/// True once the host has told this kernel to stop.
static STOP: AtomicBool = AtomicBool::new(false);
/// This kernel's end of every link. It has one CPU; its host may have any number.
pub static SERVER: End<1> = Endpoint::new(Kernel);

/// The ids of all kernels that a kernel that serves can know.
pub fn ids() -> impl Iterator<Item = InstanceId> {
    (0..MAX_INSTANCES as u8).map(InstanceId::new)
}

/// Serves until the host says stop. Interrupts are set up, but off.
pub fn run(cmdline: &[u8], shared: PhysAddr, options: &Options) -> ! {
    Kernel.controller().ignore_strays();
    inbox::register();
    net::register();
    let directory = spawned::directory(cmdline);
    // A kernel that is left out here is looked for again when the directory has changed.
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
    // This is the last thing it does: once the host sees it, it may take the CPU and the memory away.
    SERVER.goodbye();
    machine::halt()
}

/// Stops this kernel, which cannot go on and has said why.
pub fn give_up(how: Exit) -> ! {
    interrupts::disable();
    // After an exception nothing can be relied upon. Then the heartbeat ends by itself.
    if !matches!(how, Exit::Exception) {
        SERVER.goodbye();
    }
    machine::halt()
}

/// The host has set the stop word. This runs in an interrupt, so the main program acts on it.
pub fn on_stop() {
    STOP.store(true, Ordering::Relaxed);
}

/// The life of `id` that the directory lists, if it lists one.
pub fn listed_life(id: InstanceId) -> Option<Incarnation> {
    Kernel.directory()?.record(id).ok().map(|record| record.incarnation)
}

/// The endpoint's table, kept up to date with the directory.
pub struct Peers {
    directory: &'static Directory<'static, AtomicU64>,
    /// The kernels that are in the table: one bit for each.
    known: u64,
    /// The kernels that could not be added, which was logged: one bit for each.
    refused: u64,
}

/// What happened to a peer since the directory was last followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was added.
    Came,
    /// It was taken out, because it is gone for good.
    Went,
    /// Another kernel with that id was added in its place.
    Replaced,
}

impl Peers {
    /// The peers that are known after the join.
    fn new(directory: &'static Directory<'static, AtomicU64>) -> Self {
        let known = ids().filter(|id| SERVER.instance(*id).is_ok()).fold(0, |bits, id| bits | bit(id));
        Self { directory, known, refused: 0 }
    }

    /// Follows the directory, and calls `each` for each kernel that came or went. A kernel that is dead keeps its
    /// place, because it may live again in its region.
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

    /// Records what happened to `id`.
    fn note(&mut self, id: InstanceId, followed: Followed) -> Option<Change> {
        let (bit, had) = (bit(id), self.known & bit(id) != 0);
        let change = match followed {
            // It has another life in the same region, or is rung elsewhere: its streams go on.
            Followed::Changed | Followed::TakenForDead => return None,
            Followed::Added if had => Some(Change::Replaced),
            Followed::Added => Some(Change::Came),
            Followed::Removed => Some(Change::Went),
            Followed::LeftOut(e) => {
                if self.refused & bit == 0 {
                    log!("kernel {} cannot be added: {e:?}", id.get());
                }
                self.refused |= bit;
                // An invalid entry removes no kernel.
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

/// The bit of `id`, or 0 if it is not one of those that can be known.
fn bit(id: InstanceId) -> u64 {
    1u64.checked_shl(id.get().into()).unwrap_or(0)
}
