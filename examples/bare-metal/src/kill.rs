// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mk_ipi.kill=N:K`: while the kernels stream, the host stops kernel K at a random time and starts it again, N times.

use crate::clock::{self, Microseconds, SECOND};
use crate::control::control;
use crate::host::Machine;
use crate::journal;
use crate::node::{Node, READY};
use crate::options::{Kills, MAX_MESSAGES};
use crate::platform::ENDPOINT;
use crate::stream::Stream;

/// A new life must take messages within this number of seconds after its start.
const PATIENCE: u64 = 20;

/// The kernel to kill (the victim), and the state of this task.
pub struct Killer<'a> {
    node: &'a Node,
    machine: &'a mut Machine,
    kills: Kills,
    /// A kernel other than the host that is not killed.
    survivor: usize,
    /// How often the victim was killed.
    done: u32,
    /// How often the victim was killed while this kernel still streamed to the survivor.
    in_stream: u32,
    /// The number of messages that all lives of the victim had sent when its present life began.
    born_at: u64,
    /// The time at which the victim will be killed. `None` while its present life has not sent enough messages.
    due: Option<u64>,
    /// The number of messages that this kernel got from other survivors while the victim was dead.
    meanwhile: u64,
}

impl<'a> Killer<'a> {
    /// Begins the task. No kernel has been killed yet.
    pub fn new(node: &'a Node, machine: &'a mut Machine, kills: Kills) -> Self {
        let Some(survivor) = node.others().find(|&k| !node.is_victim(k)) else {
            fatal!("{} kernels are too few for mk_ipi.kill=: no other kernel survives", node.kernels)
        };
        if usize::from(kills.kernel) >= node.kernels {
            fatal!("there is no kernel {} to kill", kills.kernel);
        }
        Self { node, machine, kills, survivor, done: 0, in_stream: 0, born_at: 0, due: None, meanwhile: 0 }
    }

    fn victim(&self) -> usize {
        self.kills.kernel.into()
    }

    /// The number of messages that the victim has sent in all its lives.
    fn victims_messages(&self) -> u64 {
        let sent = &journal::of(self.victim()).sent;
        sent.iter().fold(0, |sum, s| sum + s.messages())
    }

    /// The number of messages that this kernel got from the survivors.
    fn survivors_messages(&self) -> u64 {
        let survivors = self.node.others().filter(|&k| !self.node.is_victim(k));
        survivors.map(|k| journal::own().receiver.next(k)).sum()
    }

    /// Kills and restarts the victim if it is time. Returns whether it was killed as often as ordered.
    pub fn turn(&mut self, stream: &mut Stream) -> bool {
        if self.done == self.kills.count {
            control().go_on(false);
            return true;
        }
        let all = u64::from(self.node.options.messages) * (self.node.kernels as u64 - 1);
        if self.victims_messages() - self.born_at <= all / u64::from(self.kills.count + 1) {
            return false;
        }
        let now = clock::now();
        // A delay of up to 16 million units of the clock, which depends on the clock's lowest bits. So the victim can be
        // stopped at any point of its program.
        let due = *self.due.get_or_insert(now + (now.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40));
        if now >= due {
            self.due = None;
            self.kill(stream);
        }
        false
    }

    /// Stops the victim, and starts its next life. This kernel's own stream continues meanwhile.
    fn kill(&mut self, stream: &mut Stream) {
        let (victim, before) = (self.victim(), self.survivors_messages());
        self.in_stream += u32::from(stream.sent(self.survivor) < MAX_MESSAGES.into());
        self.machine.stop(victim, |us| work(stream, us));
        self.born_at = self.victims_messages();
        self.machine.revive(victim, &self.node.options, |us| work(stream, us));
        let start = clock::now();
        while control().step(victim) < READY {
            if clock::now().wrapping_sub(start) > PATIENCE * SECOND {
                fatal!("the next life of kernel {victim} did not start within {PATIENCE} s");
            }
            work(stream, Microseconds(100));
        }
        self.machine.runs(victim);
        self.meanwhile += self.survivors_messages() - before;
        self.done += 1;
        control().set_ordered(self.done.into());
    }

    /// Prints the record of this task.
    pub fn report(&self) {
        let Self { done, in_stream, meanwhile, .. } = self;
        record!(
            "{{\"killed\":{{\"kernel\":{},\"times\":{done},\"in_stream\":{in_stream},\"meanwhile\":{meanwhile}}}}}",
            self.victim()
        );
    }
}

/// Continues this kernel's stream for at least this time.
pub fn work(stream: &mut Stream, us: Microseconds) {
    let start = clock::now();
    while clock::now().wrapping_sub(start) < u64::from(us.0) * (SECOND / 1_000_000) {
        stream.turn();
        ENDPOINT.platform().service();
    }
}
