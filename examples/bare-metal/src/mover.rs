// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mk_ipi.move=N`: the host moves a CPU N times between running kernels (hand_over.rs). This is the host's part.

use crate::clock::{self, SECOND};
use crate::control::control;
use crate::hand_over::{next_note, nobody_is_behind, say, NoteKind};
use crate::host::Machine;
use crate::kill::work;
use crate::node::{self, Node};
use crate::options::MAX_MESSAGES;
use crate::stream::Stream;

/// The time limit for a step of a move, in seconds.
const PATIENCE: u64 = 20;

/// The number of moves from one printed record to the next.
const TOLD: u32 = 10;

/// The next step of the moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Wait until this time, and then begin the next move.
    Rest(u64),
    /// Send this note to this kernel.
    Say(usize, NoteKind, u64),
    /// Wait for this answer from this kernel.
    Await(usize, NoteKind),
    /// Wait until all kernels have followed the directory to this generation, and then send `Leave` to this kernel.
    Settle(usize, u32),
    /// Give the CPU to the next kernel, unless there were as many moves as ordered.
    Give,
    /// All moves are done.
    Over,
}

/// The state of the moves.
pub struct Mover<'a> {
    node: &'a Node,
    machine: &'a mut Machine,
    count: u32,
    /// How often the CPU went from one kernel to another.
    done: u32,
    /// The number of moves that ended while this kernel still streamed to the receiver of the CPU.
    in_stream: u32,
    /// The kernel that has the CPU.
    holder: Option<usize>,
    step: Step,
    since: u64,
}

impl<'a> Mover<'a> {
    /// Begins the task. No kernel has the CPU yet.
    pub fn new(node: &'a Node, machine: &'a mut Machine, count: u32) -> Self {
        if node.kernels < 3 {
            fatal!(
                "a CPU is moved between two kernels other than the host, but there are {} kernels in all",
                node.kernels
            );
        }
        let (step, since) = (Step::Give, clock::now());
        Self { node, machine, count, done: 0, in_stream: 0, holder: None, step, since }
    }

    /// Does the next step, if that is possible now. Returns whether all moves are done.
    pub fn turn(&mut self, stream: &mut Stream) -> bool {
        let next = self.next(stream);
        let now = clock::now();
        if next != self.step {
            (self.step, self.since) = (next, now);
        } else if next != Step::Over && now.wrapping_sub(self.since) > PATIENCE * SECOND {
            fatal!("no progress after {} moves: {next:?}", self.done);
        }
        if next == Step::Over {
            control().go_on(false);
        }
        next == Step::Over
    }

    fn next(&mut self, stream: &mut Stream) -> Step {
        match self.step {
            Step::Rest(until) if clock::now() >= until => match self.holder {
                Some(holder) => Step::Say(holder, NoteKind::GiveUp, 0),
                None => Step::Give,
            },
            Step::Say(k, kind, value) if say(k, kind, value) => Step::Await(k, answer_to(kind)),
            Step::Await(k, kind) => match next_note() {
                None => self.step,
                Some(note) if (note.from.index(), note.kind) == (k, kind) => {
                    self.handle_note(k, kind, note.value, stream)
                }
                Some(note) => fatal!("received {note:?}, but expected {kind:?} from kernel {k}"),
            },
            Step::Settle(holder, generation) => {
                let followed = node::follow().is_some();
                let settled = followed && nobody_is_behind(generation);
                if settled {
                    Step::Say(holder, NoteKind::Leave, generation.into())
                } else {
                    self.step
                }
            }
            // The CPU was moved as often as ordered. The last holder has given it back.
            Step::Give if self.done == self.count => Step::Over,
            Step::Give => {
                let to = self.next_holder();
                self.machine.give_spare(to);
                Step::Say(to, NoteKind::Take, 0)
            }
            step => step,
        }
    }

    /// Handles the note `kind` from kernel `k`, and returns the next step.
    fn handle_note(&mut self, k: usize, kind: NoteKind, value: u64, stream: &mut Stream) -> Step {
        match kind {
            NoteKind::GivenUp => Step::Settle(k, self.machine.take_spare(k)),
            NoteKind::Left => {
                self.machine.stop_spare(|us| work(stream, us));
                Step::Give
            }
            NoteKind::Ready => {
                self.machine.start_spare(k, value, |us| work(stream, us));
                Step::Await(k, NoteKind::Taken)
            }
            _ => {
                self.arrived(k, stream);
                // The kernel uses the CPU for up to 16 million units of the clock. The time depends on the clock's lowest bits.
                let now = clock::now();
                Step::Rest(now + (now.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40))
            }
        }
    }

    /// Called when the CPU has begun to run in kernel `k`. Counts the move, unless kernel `k` is the CPU's first holder.
    fn arrived(&mut self, k: usize, stream: &mut Stream) {
        if self.holder.replace(k).is_some() {
            self.done += 1;
            control().set_ordered(self.done.into());
            if self.done.is_multiple_of(TOLD) {
                record!("{{\"moving\":{{\"done\":{},\"of\":{}}}}}", self.done, self.count);
            }
            self.in_stream += u32::from(stream.sent(k) < MAX_MESSAGES.into());
        }
    }

    /// The kernel that gets the CPU next. All kernels except the host take turns.
    fn next_holder(&self) -> usize {
        match self.holder {
            Some(holder) if holder + 1 < self.node.kernels => holder + 1,
            _ => 1,
        }
    }

    /// Prints the record of this task.
    pub fn report(&self) {
        let (cpu, times, in_stream) = (self.machine.spare().0, self.done, self.in_stream);
        record!("{{\"moved\":{{\"cpu\":{cpu},\"times\":{times},\"in_stream\":{in_stream}}}}}");
    }
}

/// The kind of the note that answers a note of this kind.
fn answer_to(kind: NoteKind) -> NoteKind {
    match kind {
        NoteKind::GiveUp => NoteKind::GivenUp,
        NoteKind::Leave => NoteKind::Left,
        _ => NoteKind::Ready,
    }
}
