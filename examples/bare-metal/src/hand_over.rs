// SPDX-License-Identifier: MIT OR Apache-2.0
//! Moves a CPU between running kernels: the messages between the host and a kernel, and a kernel's part.
//!
//! | what | from | value | what for |
//! | --- | --- | --- | --- |
//! | `GiveUp` | host | | move your doorbell away from the CPU |
//! | `GivenUp` | kernel | | it was moved away |
//! | `Leave` | host | generation | the directory says that the CPU is not yours; stop it when no kernel rings it any more |
//! | `Left` | kernel | | it is stopped |
//! | `Take` | host | | the CPU is yours, and the directory says so |
//! | `Ready` | kernel | address | where the CPU must begin |
//! | `Taken` | kernel | | the CPU runs, and doorbells go to it |
//!
//! Each kernel has its own doorbell vector. If one arrives at a CPU that belongs to another kernel by then, it is
//! counted as a stray.

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

/// One step of a hand-over.
const HAND_OVER: MessageType = MessageType(0x120);
/// Seconds within which deferred work must end.
const PATIENCE: u64 = 10;

/// What is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteKind {
    /// Move your doorbell away from the CPU.
    GiveUp,
    /// The doorbell was moved away.
    GivenUp,
    /// Stop the CPU when no kernel rings it any more.
    Leave,
    /// The CPU is stopped.
    Left,
    /// The CPU is yours.
    Take,
    /// The CPU can begin at this address.
    Ready,
    /// The CPU runs.
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
    /// The kernel that sent it.
    pub from: InstanceId,
    /// What it says.
    pub kind: NoteKind,
    /// A generation, or an address.
    pub value: u64,
}

/// The last note that came and was not fetched. The host waits for one answer at a time, and each question is answered
/// once.
static NOTE: Mutex<Option<Note>> = Mutex::new(None);
/// Vectors of other kernels that arrived here.
static STRAYS: AtomicU64 = AtomicU64::new(0);
/// Doorbells that arrived at the second CPU.
static ARRIVED: AtomicU64 = AtomicU64::new(0);
/// How often this kernel had a second CPU.
static HAD: AtomicU64 = AtomicU64::new(0);
/// A failure on order: no kernel follows the directory, and none waits until others have.
static STALE: AtomicBool = AtomicBool::new(false);

/// The doorbell vector of kernel `k`.
pub fn vector(k: usize) -> Vector {
    arch::doorbell_of(k).unwrap_or_else(|| fatal!("no vector for kernel {k}"))
}

/// Opens this kernel's own vector, and counts the vectors of the others as strays. Interrupts are off.
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

/// Returns whether the directory must not be followed: a failure on order.
pub fn is_stale() -> bool {
    STALE.load(Ordering::Relaxed)
}

/// This kernel's vector arrived at its CPU number `index`.
pub fn saw_doorbell(index: usize) {
    if index != 0 {
        ARRIVED.fetch_add(1, Ordering::Relaxed);
    }
}

/// Another kernel's vector arrived.
pub fn saw_stray() {
    STRAYS.fetch_add(1, Ordering::Relaxed);
}

fn on_note(message: &Message) {
    let note = || {
        let (kind, value) = message.payload().split_first_chunk::<8>()?;
        let kind = *ALL.get(usize::try_from(u64::from_le_bytes(*kind)).ok()?)?;
        Some(Note { from: message.sender()?, kind, value: u64::from_le_bytes(*value.first_chunk::<8>()?) })
    };
    let Some(note) = note() else { fatal!("a hand-over message that makes no sense") };
    if let Some(before) = without_interrupts(|| NOTE.lock().replace(note)) {
        fatal!("{note:?} before {before:?} was read");
    }
}

/// The note that came, if there is one.
pub fn next_note() -> Option<Note> {
    without_interrupts(|| NOTE.lock().take())
}

/// Sends a note to kernel `k`. Returns whether there was room.
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

/// Returns whether every live kernel that has our region mapped has followed the directory to `generation`. No kernel
/// dies in a run that moves a CPU.
pub fn nobody_is_behind(generation: u32) -> bool {
    let mut behind = false;
    let looked = ENDPOINT.behind(generation, |_, _| behind = true);
    is_stale() || (looked.is_ok() && !behind)
}

/// Reports what this kernel saw of the CPU that was moved.
pub fn report(node: &Node) {
    let [had, arrived, stray] = [&HAD, &ARRIVED, &STRAYS].map(|n| n.load(Ordering::Relaxed));
    record!("{{\"spare\":{{\"kernel\":{},\"had\":{had},\"arrived\":{arrived},\"stray\":{stray}}}}}", node.me);
}

/// What a kernel is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Nothing,
    /// Give the CPU up once a doorbell has come to it: a move without one proves nothing.
    Using,
    /// Wait until no kernel rings the CPU any more.
    Settling(u32),
    /// Wait until the CPU is off.
    Leaving,
    /// Wait until the CPU is on.
    Starting,
    /// Send this note.
    Saying(NoteKind, u64, &'static Doing),
}

/// A spawned kernel's part.
pub struct Guest<'a> {
    node: &'a Node,
    doing: Doing,
    /// Doorbells that had arrived when the CPU came.
    before: u64,
}

impl<'a> Guest<'a> {
    /// There is nothing to do yet. `None` if no CPU is moved.
    pub fn new(node: &'a Node) -> Option<Self> {
        node.options.moves?;
        if OWN_CPUS < 2 {
            fatal!("this kernel is built for one CPU, but should get another one");
        }
        Some(Self { node, doing: Doing::Nothing, before: 0 })
    }

    /// Does what can be done now. Returns whether the host has finished moving the CPU.
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
            // What was ordered is done: the rest of the run is as usual.
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
            _ => fatal!("{note:?} while {:?}", self.doing),
        }
    }

    /// A failure on order: the doorbell stays at a CPU that is given up.
    fn keeps_doorbell(&self) -> bool {
        let fault = self.node.options.fault.filter(|fault| usize::from(fault.kernel) == self.node.me);
        fault.is_some_and(|fault| matches!(fault.kind, FaultKind::Keep | FaultKind::Stale))
    }

    fn move_doorbell(&self, cpu: PhysCpuId) {
        if let Err(e) = ENDPOINT.move_doorbell(cpu, vector(self.node.me)) {
            fatal!("the doorbell does not move to CPU {}: {e:?}", cpu.0);
        }
    }

    /// Moves doorbells back to the first CPU, and finds the messages that rang the old one.
    fn give_up(&self) {
        if self.keeps_doorbell() {
            return;
        }
        self.move_doorbell(Kernel.physical_id());
        // A look that began before this does not count. One that begins from now on does, on either CPU.
        fence(Ordering::SeqCst);
        let start = clock::now();
        while Kernel.second_runs() {
            if clock::now().wrapping_sub(start) > PATIENCE * SECOND {
                fatal!("the second CPU's deferred work does not end");
            }
            spin_hint();
        }
        Kernel.service();
    }
}
