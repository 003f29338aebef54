// SPDX-License-Identifier: MIT OR Apache-2.0
//! Moves a CPU between running kernels: the messages between the host and a spawned kernel, and the spawned kernel's part.
//! The host's part is mover.rs. "Generation" means a generation of the directory (SPEC D-7).
//!
//! | message | sender | value | meaning |
//! | --- | --- | --- | --- |
//! | `GiveUp` | host | | move your doorbell from the CPU that you must give up to your first CPU |
//! | `GivenUp` | kernel | | my doorbell was moved |
//! | `Leave` | host | generation | in this generation the CPU is not yours; when all kernels have followed to it, stop the CPU |
//! | `Left` | kernel | | the CPU has stopped |
//! | `Take` | host | | the CPU is yours, and the directory lists it as yours |
//! | `Ready` | kernel | address | the CPU must be started at this address |
//! | `Taken` | kernel | | the CPU runs, and my doorbell is at this CPU |
//!
//! Each kernel has its own doorbell vector. A kernel that is interrupted on the vector of another kernel counts this as a
//! stray: the sender used a CPU that no longer belongs to the receiver.

use crate::arch::{self, without_interrupts};
use crate::clock::{self, SECOND};
use crate::control::control;
use crate::layout::MAX_KERNELS;
use crate::node::{self, instance, Node};
use crate::options::{FaultKind, Options};
use crate::platform::{Kernel, ENDPOINT, OWN_CPUS};
use crate::{own, second};
use mk_ipi_abi::{InstanceId, MessageType, PhysCpuId, Vector};
use mk_ipi_core::platform::ThisCpu;
use mk_ipi_core::sync::{fence, spin_hint, AtomicBool, AtomicU64, Ordering};
use mk_ipi_core::{Message, SendError};
use spin::Mutex;

/// The type of the messages in the table above.
const HAND_OVER: MessageType = MessageType(0x120);
/// The time limit for a run of deferred work, in seconds.
const PATIENCE: u64 = 10;

/// The meaning of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteKind {
    /// The receiver must move its doorbell from the CPU to its first CPU.
    GiveUp,
    /// The sender has moved its doorbell.
    GivenUp,
    /// The receiver must stop the CPU after all kernels have followed the directory to this generation.
    Leave,
    /// The CPU has stopped.
    Left,
    /// The CPU belongs to the receiver.
    Take,
    /// The host must start the CPU at this address.
    Ready,
    /// The CPU runs, and the sender's doorbell is at it.
    Taken,
}

const ALL: [NoteKind; 7] = [
    NoteKind::GiveUp,
    NoteKind::GivenUp,
    NoteKind::Leave,
    NoteKind::Left,
    NoteKind::Take,
    NoteKind::Ready,
    NoteKind::Taken,
];

/// A message of a hand-over.
#[derive(Clone, Copy, Debug)]
pub struct Note {
    /// The kernel that sent the message.
    pub from: InstanceId,
    /// The meaning of the message.
    pub kind: NoteKind,
    /// For `Leave` a generation of the directory, for `Ready` an address, for others 0.
    pub value: u64,
}

/// The note that was received and is not fetched yet. One place is enough: the host sends a note only after the answer to its
/// former note, and each note has one answer.
static NOTE: Mutex<Option<Note>> = Mutex::new(None);
/// The number of interrupts on the doorbell vectors of other kernels.
static STRAYS: AtomicU64 = AtomicU64::new(0);
/// The number of this kernel's doorbells at its second CPU.
static ARRIVED: AtomicU64 = AtomicU64::new(0);
/// How often this kernel was given a second CPU.
static HAD: AtomicU64 = AtomicU64::new(0);
/// True with the fault `stale` (options.rs): this kernel does not follow the directory, and does not wait until other kernels
/// have followed it.
static STALE: AtomicBool = AtomicBool::new(false);

/// The doorbell vector of kernel `k`.
pub fn vector(k: usize) -> Vector {
    arch::doorbell_of(k).unwrap_or_else(|| fatal!("kernel {k} has no doorbell vector"))
}

/// If CPUs are moved: sets the handlers of all kernels' doorbell vectors, and registers the message handler. Interrupts must
/// be off.
pub fn prepare(options: &Options) {
    if options.moves.is_none() {
        return;
    }
    let me = usize::from(own::kernel());
    (0..MAX_KERNELS).for_each(|k| Kernel.controller().lead(vector(k), k == me));
    Kernel.controller().lead(arch::DOORBELL, false);
    STALE.store(options.fault.is_some_and(|f| f.kind == FaultKind::Stale), Ordering::Relaxed);
    if ENDPOINT.register(HAND_OVER, &on_note).is_err() {
        fatal!("the registry is full");
    }
}

/// Returns whether the command line has the fault `stale`: the directory must not be followed.
pub fn is_stale() -> bool {
    STALE.load(Ordering::Relaxed)
}

/// Called for each doorbell of this kernel. `index` is the number of the CPU that took it.
pub fn saw_doorbell(index: usize) {
    if index != 0 {
        ARRIVED.fetch_add(1, Ordering::Relaxed);
    }
}

/// Called for each interrupt on another kernel's doorbell vector.
pub fn saw_stray() {
    STRAYS.fetch_add(1, Ordering::Relaxed);
}

fn on_note(message: &Message) {
    let note = || {
        let (kind, value) = message.payload().split_first_chunk::<8>()?;
        let kind = *ALL.get(usize::try_from(u64::from_le_bytes(*kind)).ok()?)?;
        Some(Note { from: message.sender()?, kind, value: u64::from_le_bytes(*value.first_chunk::<8>()?) })
    };
    let Some(note) = note() else { fatal!("a hand-over message has an invalid content") };
    if let Some(before) = without_interrupts(|| NOTE.lock().replace(note)) {
        fatal!("{note:?} was received before {before:?} was read");
    }
}

/// Returns the note that was received, if there is one, and empties its place.
pub fn next_note() -> Option<Note> {
    without_interrupts(|| NOTE.lock().take())
}

/// Sends a note to kernel `k`. Returns false if there is no room for it now.
pub fn say(k: usize, kind: NoteKind, value: u64) -> bool {
    let mut bytes = [0; 16];
    let number = ALL.iter().position(|w| *w == kind).unwrap_or(ALL.len());
    bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
    bytes[8..].copy_from_slice(&value.to_le_bytes());
    match ENDPOINT.send(instance(k), HAND_OVER, &bytes) {
        Ok(_) => true,
        Err(SendError::Full | SendError::Unanswered) => false,
        Err(e) => fatal!("sending {kind:?} to kernel {k}: {e:?}"),
    }
}

/// Returns whether every live kernel that has this kernel's region mapped has followed the directory to `generation`. No
/// kernel dies in a run that moves a CPU. With the fault `stale` it always returns true.
pub fn nobody_is_behind(generation: u32) -> bool {
    let mut behind = false;
    let looked = ENDPOINT.behind(generation, |_, _| behind = true);
    is_stale() || (looked.is_ok() && !behind)
}

/// Prints the record of this kernel's counters about the CPU that is moved.
pub fn report(node: &Node) {
    let [had, arrived, stray] = [&HAD, &ARRIVED, &STRAYS].map(|n| n.load(Ordering::Relaxed));
    record!("{{\"spare\":{{\"kernel\":{},\"had\":{had},\"arrived\":{arrived},\"stray\":{stray}}}}}", node.me);
}

/// The present task of a spawned kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Nothing,
    /// Wait for a doorbell at the CPU, and give the CPU up after it. (A move without a doorbell would test nothing.)
    Using,
    /// Wait until all kernels have followed the directory to this generation.
    Settling(u32),
    /// Wait until the CPU has left this kernel.
    Leaving,
    /// Wait until the CPU runs in this kernel.
    Starting,
    /// Send this note, and go on with the task that follows.
    Saying(NoteKind, u64, &'static Doing),
}

/// The part of a spawned kernel.
pub struct Guest<'a> {
    node: &'a Node,
    doing: Doing,
    /// The value of `ARRIVED` when this kernel was given the CPU.
    before: u64,
}

impl<'a> Guest<'a> {
    /// Begins without a task. `None` if no CPU is moved in this run.
    pub fn new(node: &'a Node) -> Option<Self> {
        node.options.moves?;
        if OWN_CPUS < 2 {
            fatal!("this kernel is built for one CPU, so no second CPU can be moved to it");
        }
        Some(Self { node, doing: Doing::Nothing, before: 0 })
    }

    /// Does the part of the task that can be done now. Returns whether the host has made its last move.
    pub fn turn(&mut self) -> bool {
        node::follow();
        if let Some(note) = next_note() {
            self.doing = self.take(note);
        }
        let arrived = ARRIVED.load(Ordering::Relaxed);
        self.doing = match self.doing {
            Doing::Using if arrived != self.before => {
                self.give_up();
                Doing::Saying(NoteKind::GivenUp, 0, &Doing::Nothing)
            }
            Doing::Settling(generation) if nobody_is_behind(generation) => {
                second::leave();
                Doing::Leaving
            }
            Doing::Leaving if second::is_off() => Doing::Saying(NoteKind::Left, 0, &Doing::Nothing),
            Doing::Starting if second::is_on() => {
                HAD.fetch_add(1, Ordering::Relaxed);
                self.before = arrived;
                self.move_doorbell(second::physical_id());
                Doing::Saying(NoteKind::Taken, 0, &Doing::Nothing)
            }
            doing => doing,
        };
        if let Doing::Saying(kind, value, next) = self.doing {
            if say(0, kind, value) {
                self.doing = *next;
            }
        }
        let is_over = !control().is_going_on();
        if is_over && self.keeps_doorbell() {
            // The moves are over, so the doorbell that the fault left at the wrong CPU is moved back.
            self.move_doorbell(Kernel.physical_id());
        }
        is_over
    }

    fn take(&self, note: Note) -> Doing {
        match (note.kind, self.doing) {
            (NoteKind::GiveUp, Doing::Nothing) => Doing::Using,
            (NoteKind::Leave, Doing::Nothing) => Doing::Settling(note.value as u32),
            (NoteKind::Take, Doing::Nothing) => {
                Doing::Saying(NoteKind::Ready, second::entry(), &Doing::Starting)
            }
            _ => fatal!("{note:?} was received during the task {:?}", self.doing),
        }
    }

    /// Returns whether this kernel has the fault `keep` or `stale`: it leaves its doorbell at the CPU that it gives up.
    fn keeps_doorbell(&self) -> bool {
        let fault = self.node.options.fault.filter(|fault| usize::from(fault.kernel) == self.node.me);
        fault.is_some_and(|fault| matches!(fault.kind, FaultKind::Keep | FaultKind::Stale))
    }

    fn move_doorbell(&self, cpu: PhysCpuId) {
        if let Err(e) = ENDPOINT.move_doorbell(cpu, vector(self.node.me)) {
            fatal!("the doorbell cannot be moved to CPU {}: {e:?}", cpu.0);
        }
    }

    /// Moves the doorbell back to the first CPU, and drains the messages whose doorbells went to the second CPU.
    fn give_up(&self) {
        if self.keeps_doorbell() {
            return;
        }
        self.move_doorbell(Kernel.physical_id());
        // After the doorbell has moved, this kernel must drain once (SPEC N-12). A drain that began before this fence does
        // not count, so this waits for its end. A drain on either CPU that begins after the fence counts.
        fence(Ordering::SeqCst);
        let start = clock::now();
        while Kernel.second_runs() {
            if clock::now().wrapping_sub(start) > PATIENCE * SECOND {
                fatal!("the second CPU's deferred work did not end within {PATIENCE} s");
            }
            spin_hint();
        }
        Kernel.service();
    }
}
