// SPDX-License-Identifier: MIT OR Apache-2.0
//! The inspector reads the memory, and predicts what a receiver will do: how many messages it hands out, and whether it puts a
//! lane into quarantine. Then the receiver runs, and the prediction is compared with what it did. The inspector must have called
//! each lane broken that is put into quarantine.

use super::{instance, pairs, End, World, KERNELS};
#[cfg(test)]
use super::{Unstructured, HOSTILE};
use mk_ipi_abi::native::{control, Hello};
use mk_ipi_inspect::machine::{Kind, Region};
use mk_ipi_inspect::native::{self, Lane, State};
use mk_ipi_inspect::{Machine, Memory, Severity};
use mk_ipi_mock::MEMORY_START;

impl World {
    /// What the inspector finds in each receiver's region.
    fn inspect(&self) -> [native::Region; KERNELS] {
        let words = (self.machine.memory().start().0..self.machine.memory().end().0).step_by(8);
        let bytes = words.flat_map(|at| self.machine.peek(mk_ipi_abi::PhysAddr(at)).to_le_bytes()).collect();
        let memory = Memory::of_bytes(bytes, Some(MEMORY_START.0)).expect("memory");
        self.regions.map(|region| {
            let found = Machine::at(&memory, region.start().0, Kind::Native, 3).expect("all of it is there");
            match found.regions.into_iter().next().expect("one region").region {
                Region::Native(region) => region,
                Region::RfcV2(_) => unreachable!("no slots were asked for"),
            }
        })
    }

    /// Inspects all regions, runs every receiver that was never hostile, and compares. Returns the number of lanes that were put
    /// into quarantine.
    pub fn foretell(&mut self) -> usize {
        self.later().clear();
        let regions = self.inspect();
        let counted = |world: &Self, from, to, word| world.machine.peek(world.control(from, to, word));
        let before = [control::RECEIVED, control::BAD]
            .map(|word| pairs().map(|(from, to)| counted(self, from, to, word)).collect::<Vec<_>>());
        let hostile = self.model.ever_hostile;
        for n in (0..KERNELS).filter(|n| !hostile[*n]) {
            let _ = self.kernels[n].end.poll();
            let runs = (0..400).take_while(|_| self.run(n, End::run_deferred)).count();
            assert!(runs < 400, "kernel {n} always finds more to do");
        }
        let mut quarantines = 0;
        for (pair, (from, to)) in pairs().enumerate() {
            let found =
                regions[to].lanes.iter().find(|lane| lane.instance == u32::from(instance(from).get()));
            // A receiver does not read the lane of an instance that it has not attached. A receiver that was hostile before may
            // have damaged its own words.
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
            if lane.state == State::Nonsense {
                let answer = Hello::from_word(counted(self, from, to, control::ANSWER));
                let disowned = !answer.is_some_and(Hello::may_send);
                assert!(breaches != 0 || disowned, "from {from} to {to}: {lane:?}");
            }
            quarantines += usize::from(breaches != 0);
            // If a life was not answered yet, the receiver does not read its lines now, so the inspector cannot find a breach in
            // them.
            if breaches != 0 && lane.state != State::WaitsForReceiver {
                assert!(is_called_broken(&regions[to], lane), "from {from} to {to}: {:?}", regions[to]);
            }
        }
        self.look_at_events();
        quarantines
    }
}

/// Whether the inspector says that something is broken in this lane.
fn is_called_broken(region: &native::Region, lane: &Lane) -> bool {
    let place = format!("region {:#x}, lane {}", region.at, lane.instance);
    region.findings.iter().any(|finding| finding.severity == Severity::Broken && finding.place == place)
}

/// Does the operations that `data` describes, and lets the hostile kernel write the words that `words` describe. Then compares
/// what the inspector predicts with what happens. Returns the number of lanes that were put into quarantine.
#[cfg(test)]
pub(crate) fn explain(data: &[u8], words: &[u8]) -> usize {
    let Some((_, mut world)) = World::after(data) else { return 0 };
    let mut words = Unstructured::new(words);
    while let (false, Ok(what)) = (words.is_empty(), words.arbitrary()) {
        world.scribble(HOSTILE, &what, false);
    }
    let quarantines = world.foretell();
    world.finish();
    quarantines
}
