// SPDX-License-Identifier: MIT OR Apache-2.0
//! The inspector predicts what a receiver does next, and this is compared with what it does: how many messages it hands out,
//! and whether a lane goes into quarantine.

use super::{instance, pairs, End, World, KERNELS};
use mk_ipi_abi::native::control;
use mk_ipi_inspect::machine::{Kind, Region};
use mk_ipi_inspect::native::{Lane, State};
use mk_ipi_inspect::{Machine, Memory};
use mk_ipi_mock::MEMORY_START;

impl World {
    /// The lanes that the inspector sees, by receiver.
    fn lanes(&self) -> [Vec<Lane>; KERNELS] {
        let words = (self.machine.memory().start().0..self.machine.memory().end().0).step_by(8);
        let bytes = words.flat_map(|at| self.machine.peek(mk_ipi_abi::PhysAddr(at)).to_le_bytes()).collect();
        let memory = Memory::of_bytes(bytes, Some(MEMORY_START.0)).expect("memory");
        self.regions.map(|region| {
            let found = Machine::at(&memory, region.start().0, Kind::Native, 3).expect("all of it is there");
            match found.regions.into_iter().next().expect("one region").region {
                Region::Native(region) => region.lanes,
                Region::RfcV2(_) => unreachable!("no slots were asked for"),
            }
        })
    }

    /// Inspects all regions, runs every honest receiver, and compares.
    pub fn foretell(&mut self) {
        self.later().clear();
        let lanes = self.lanes();
        let counted = |world: &Self, from, to, word| world.machine.peek(world.control(from, to, word));
        let before = [control::RECEIVED, control::BAD]
            .map(|word| pairs().map(|(from, to)| counted(self, from, to, word)).collect::<Vec<_>>());
        let hostile = self.model.ever_hostile;
        for n in (0..KERNELS).filter(|n| !hostile[*n]) {
            let _ = self.kernels[n].end.poll();
            let runs = (0..400).take_while(|_| self.run(n, End::run_deferred)).count();
            assert!(runs < 400, "kernel {n} always finds more to do");
        }
        for (pair, (from, to)) in pairs().enumerate() {
            let found = lanes[to].iter().find(|lane| lane.instance == u32::from(instance(from).get()));
            // A receiver does not look at an instance that it has not attached. A receiver that was ever hostile may have
            // spoiled its own words.
            let looks = self.kernels[to].end.instance(instance(from)).is_ok() && !self.model.ever_hostile[to];
            let Some(lane) = found.filter(|_| looks) else { continue };
            let [received, breaches] = [control::RECEIVED, control::BAD]
                .iter()
                .zip(&before)
                .map(|(word, before)| counted(self, from, to, *word) - before[pair])
                .collect::<Vec<_>>()
                .try_into()
                .expect("two");
            if !self.model.ever_hostile[from] {
                assert_eq!(received, lane.lines.unread, "from {from} to {to}: {lane:?}");
            }
            if lane.lines.breach_to_come.is_some() && lane.state == State::Open {
                let closed = counted(self, from, to, control::ANSWER) != lane.control.answer_word;
                assert!(breaches != 0 || closed, "from {from} to {to}: {lane:?}");
            }
        }
        self.look_at_events();
    }
}
