// SPDX-License-Identifier: MIT OR Apache-2.0
//! The end of a run: checks that all messages were delivered, and that no sender waits for ever. Then the hostile kernels restart
//! as honest kernels, and the same is checked again.

use super::{pairs, End, World, HOSTILE, KERNELS};
use mk_ipi_abi::native::{Stamp, STAMP_WORDS};
use mk_ipi_core::SendError;

impl World {
    /// Runs all kernels until nothing is left to do. This needs few runs, because the hostile kernels do not write any more.
    fn settle(&mut self) {
        for _ in 0..5 {
            for n in 0..KERNELS {
                let _ = self.kernels[n].end.poll();
                let runs = (0..400).take_while(|_| self.run(n, End::run_deferred)).count();
                assert!(runs < 400, "kernel {n} always finds more to do");
                self.look_at_events();
                self.tick(n, 0);
            }
        }
    }

    /// Does all checks at the end of a run.
    pub fn finish(mut self) {
        self.later().clear();
        self.settle();
        (0..HOSTILE).filter(|n| self.model.hostile[*n]).collect::<Vec<_>>().into_iter().for_each(|n| {
            self.restart(n, false, &[]);
        });
        self.settle();
        self.see_that_all_works();
        self.heal();
        self.settle();
        self.see_that_all_works();
        for n in 0..KERNELS {
            (0..KERNELS).for_each(|id| self.destroy(n, id));
            assert_eq!(self.kernels[n].end.platform().live_mappings(), 0);
        }
    }

    /// Checks that between honest kernels all messages were delivered. If a former life has damaged a lane, the sender must get
    /// an error. Then it attaches again, and the lane must work.
    fn see_that_all_works(&mut self) {
        let honest: Vec<_> = pairs().filter(|(from, to)| self.model.honest(*from, *to)).collect();
        for &(from, to) in &honest {
            if !self.model.lanes[from][to].sound {
                self.look_whether_it_ends(from, to);
                self.attach_anew(from, to);
            }
        }
        self.settle();
        for &(from, to) in &honest {
            assert!(self.model.lanes[from][to].is_empty(), "from {from} to {to}: a message is lost");
            assert!(
                !self.model.owed[from][to],
                "from {from} to {to}: the sender did not get the event Space"
            );
            self.send(from, to, 200, End::send);
            let last = self.model.lanes[from][to].last();
            assert!(matches!(last, Some(Ok(_))), "from {from} to {to}: {last:?}");
        }
        self.settle();
        honest.iter().for_each(|&(from, to)| {
            assert!(self.model.lanes[from][to].is_empty(), "from {from} to {to}: a message is lost")
        });
    }

    /// Checks that a sender does not wait for ever in a lane that a former life of one end has damaged. After all kernels have run,
    /// its sends succeed, or fail with `Broken` or `Quarantined`.
    fn look_whether_it_ends(&mut self, from: usize, to: usize) {
        for _ in 0..2 * self.geometry.lines() {
            self.send(from, to, 8, End::send);
            let last = self.model.lanes[from][to].last();
            if !matches!(last, Some(Err(SendError::Full | SendError::Unanswered))) {
                continue;
            }
            self.settle();
            self.send(from, to, 8, End::send);
            let last = self.model.lanes[from][to].last();
            assert!(
                matches!(last, Some(Ok(_) | Err(SendError::Broken | SendError::Quarantined))),
                "{last:?}"
            );
        }
    }

    /// Gives the hostile kernel a fresh region, and begins its next life, which is honest.
    fn heal(&mut self) {
        let stamp: [u64; STAMP_WORDS] = zerocopy::transmute!(Stamp::new(self.geometry));
        (0..KERNELS).for_each(|n| self.destroy(n, HOSTILE));
        for word in 0..usize::try_from(self.geometry.total_size() / 8).unwrap() {
            let value = stamp.get(word).copied().unwrap_or(0);
            self.machine.poke(self.at(HOSTILE, 0, word), value);
        }
        self.restart(HOSTILE, false, &[]);
        self.model.hostile[HOSTILE] = false;
        (0..KERNELS).for_each(|id| self.attach_anew(HOSTILE, id));
        (0..HOSTILE).for_each(|n| self.attached(n, HOSTILE));
    }
}
