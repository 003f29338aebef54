// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mk_ipi.move=`: the host moves a CPU between running kernels, again and again (hand_over.rs).

use crate::clock::{self, SECOND};
use crate::control::control;
use crate::hand_over::{next_note, nobody_is_behind, say, NoteKind};
use crate::host::Machine;
use crate::kill::work;
use crate::node::{self, Node};
use crate::options::MAX_MESSAGES;
use crate::stream::Stream;

/// Seconds within which a step of a hand-over is done.
const PATIENCE: u64 = 20;

/// Moves from one word about them to the next.
const TOLD: u32 = 10;

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// At that time: the next move begins.
    Rest(u64),
    /// Tell that kernel.
    Say(usize, NoteKind, u64),
    /// Wait for that kernel's answer.
    Await(usize, NoteKind),
    /// Wait until all have followed the directory so far.
    Settle(usize, u32),
    /// Give the CPU to the next kernel.
    Give,
    /// All is done.
    Over,
}

/// How far the moves are.
pub struct Mover<'a> {
    node: &'a Node,
    machine: &'a mut Machine,
    count: u32,
    /// How often it went from one kernel to another.
    done: u32,
    /// How often while we still streamed.
    in_stream: u32,
    /// Who has the CPU.
    holder: Option<usize>,
    step: Step,
    since: u64,
}

impl<'a> Mover<'a> {
    /// Nothing done yet: nobody has the CPU.
    pub fn new(node: &'a Node, machine: &'a mut Machine, count: u32) -> Self {
        if node.kernels < 3 {
            fatal!("a CPU is moved between two kernels beside the host, there are {}", node.kernels);
        }
        let (step, since) = (Step::Give, clock::now());
        Self { node, machine, count, done: 0, in_stream: 0, holder: None, step, since }
    }

    /// Goes on if something has come; whether all is done.
    pub fn turn(&mut self, stream: &mut Stream) -> bool {
        let next = self.next(stream);
        let now = clock::now();
        if next != self.step {
            (self.step, self.since) = (next, now);
        } else if next != Step::Over && now.wrapping_sub(self.since) > PATIENCE * SECOND {
            fatal!("move {} does not get on: {next:?}", self.done);
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
                Some(note) => fatal!("{note:?} in the place of {kind:?} of kernel {k}"),
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
            // All of these CPUs were in turn, the last holder gives it back.
            Step::Give if self.done == self.count => Step::Over,
            Step::Give => {
                let to = self.next_holder();
                self.machine.give_spare(to);
                Step::Say(to, NoteKind::Take, 0)
            }
            step => step,
        }
    }

    /// Kernel `k` has said `what`.
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
                // Up to 16 million cycles of use, as the counter's low bits have it.
                let now = clock::now();
                Step::Rest(now + (now.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40))
            }
        }
    }

    /// The CPU runs in kernel `k`.
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

    /// The kernel that has it next: each in its turn.
    fn next_holder(&self) -> usize {
        match self.holder {
            Some(holder) if holder + 1 < self.node.kernels => holder + 1,
            _ => 1,
        }
    }

    /// Says what was done.
    pub fn report(&self) {
        let (cpu, times, in_stream) = (self.machine.spare().0, self.done, self.in_stream);
        record!("{{\"moved\":{{\"cpu\":{cpu},\"times\":{times},\"in_stream\":{in_stream}}}}}");
    }
}

/// What a kernel says to that in the end.
fn answer_to(kind: NoteKind) -> NoteKind {
    match kind {
        NoteKind::GiveUp => NoteKind::GivenUp,
        NoteKind::Leave => NoteKind::Left,
        _ => NoteKind::Ready,
    }
}
