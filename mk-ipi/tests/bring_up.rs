// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests the start of a host from its plan, and of a spawned kernel from its command line. Correct ones come up. Wrong ones are
//! refused, and every step is undone.
#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::panic,
    reason = "a test may panic"
)]

mod common;

use common::{clock, end, End, A, B, FIRST, SECOND, TYPE};
use mk_ipi::abi::directory::{directory_size, DirectoryError, EntryError, State};
use mk_ipi::abi::native::Geometry;
use mk_ipi::abi::{boot_param::BootParamError, InstanceId, PhysAddr, PhysCpuId, PhysRange, Vector};
use mk_ipi::blocking::Deadline;
use mk_ipi::bring_up::{find_directory, HostError, HostPlan, SpawnedError};
use mk_ipi::directory::WriteError;
use mk_ipi::platform::{DoorbellError, MapError, PoolError};
use mk_ipi::{AddError, EndpointExt, InstanceConfig, JoinError, LinkConfig, SlotPolicy};
use mk_ipi_mock::{Machine, RegionEvent};

const C: InstanceId = InstanceId::new(2);
const SLOTS: LinkConfig = LinkConfig::RfcV2 { slots: 16, policy: SlotPolicy::Exclusive };

fn native(lanes: u32) -> LinkConfig {
    LinkConfig::Native(Some(Geometry::new(lanes, 8, 256).unwrap()))
}

fn config(id: InstanceId, cpus: &'static [PhysCpuId], link: LinkConfig) -> InstanceConfig<'static> {
    let (doorbell_cpu, vector) = (cpus[0], Vector::RFC_V2);
    InstanceConfig { id, incarnation: FIRST, cpus, doorbell_cpu, vector, one_doorbell: false, link }
}

/// A machine with three kernels on four CPUs, a pool for each kernel, and memory for the directory.
struct Bench {
    machine: Machine,
    directory: PhysRange,
    host: &'static End,
}

impl Bench {
    fn new() -> Self {
        let builder = Machine::builder().kernel(&[0]).kernel(&[4, 5]).kernel(&[9]);
        let machine = [A, B, C].into_iter().fold(builder, |b, id| b.pool(id, 8)).build();
        let directory = machine.reserve(4096);
        let host = end(&machine.kernel(0), |_, _| ());
        Self { machine, directory, host }
    }

    fn configs(link: LinkConfig) -> [InstanceConfig<'static>; 3] {
        [
            config(A, &[PhysCpuId(0)], link),
            InstanceConfig {
                doorbell_cpu: PhysCpuId(5),
                one_doorbell: true,
                ..config(B, &[PhysCpuId(4), PhysCpuId(5)], link)
            },
            config(C, &[PhysCpuId(9)], SLOTS),
        ]
    }

    fn plan<'a>(&self, instances: &'a [InstanceConfig<'a>]) -> HostPlan<'a> {
        HostPlan {
            directory: self.directory,
            max_instances: 4,
            cpus_per_instance: 2,
            boot_cpu: Some(PhysCpuId(0)),
            me: A,
            instances,
        }
    }

    /// Checks that the endpoint has no identity and no instances, that the pools are unused, that nothing is mapped, and that the
    /// directory's memory has no stamp.
    fn assert_untouched(&self, what: HostError) {
        assert_eq!((self.host.identity(), self.machine.kernel(0).live_mappings()), (None, 0), "{what}");
        for id in [A, B, C] {
            assert_eq!(self.machine.pool_used(id), 0, "{what}");
            assert!(self.host.instance(id).is_err(), "{what}");
        }
        assert_eq!(self.machine.peek(self.directory.start()), 0, "{what}: no stamp");
    }

    /// Returns the error for this plan. Checks that every step was undone.
    fn refused(&self, plan: &HostPlan<'_>) -> HostError {
        let e = self.host.bring_up_host(plan).unwrap_err();
        self.assert_untouched(e);
        e
    }

    /// The command line of the kernel whose region is at `region`.
    fn command_line(&self, region: PhysAddr) -> String {
        let directory = self.directory.start().0;
        format!("quiet mk_ipi_shared={:#x} mk_ipi_directory={directory:#x}", region.0)
    }
}

/// A deadline that has passed at the read number `at` of its clock.
fn turns(at: u64) -> Deadline<impl FnMut() -> u64> {
    Deadline::new(clock(|_| ()), at)
}

#[test]
fn a_machine_comes_up_and_all_talk_to_all() {
    for link in [native(3), LinkConfig::Native(None), SLOTS] {
        // The default geometry has 16 lanes of 128 lines, so the pools must be large.
        let builder = Machine::builder().kernel(&[0]).kernel(&[4, 5]).kernel(&[9]).memory(1024);
        let machine = [A, B, C].into_iter().fold(builder, |b, id| b.pool(id, 80)).build();
        let (directory, host) = (machine.reserve(4096), end(&machine.kernel(0), |_, _| ()));
        let bench = Bench { machine, directory, host };
        let configs = Bench::configs(link);
        let writer = host.bring_up_host(&bench.plan(&configs)).unwrap();
        assert_eq!(host.identity(), Some((A, FIRST)));
        assert_eq!((writer.reader().boot_cpu(), writer.reader().nr_instances()), (Some(PhysCpuId(0)), 4));
        let mut ends = vec![host];
        for config in &configs[1..] {
            let record = writer.reader().record(config.id).unwrap();
            assert_eq!((record.state, record.doorbell_cpu), (State::Starting, config.doorbell_cpu));
            let spawned = end(&bench.machine.kernel(config.id.index()), |_, _| ());
            let line = bench.command_line(record.region.unwrap().start());
            let left_out = |id, e| panic!("{id:?} was left out: {e:?}");
            let up = spawned.bring_up_spawned(line.as_bytes(), turns(5), left_out).unwrap();
            assert_eq!((up.me, up.incarnation, up.instances), (config.id, FIRST, 3));
            assert_eq!(up.directory.record(A).unwrap().state, State::Running);
            ends.push(spawned);
        }
        // Twice, because both ends must look into their regions before a lane can be used.
        for _ in 0..2 {
            bench.machine.run(|_| ()).unwrap();
        }
        let run = bench.machine.run(|cpu| {
            let me = cpu.kernel();
            for to in [A, B, C].into_iter().filter(|to| to.index() != me && cpu.index() == 0) {
                while ends[me].send(to, TYPE, &[1]).is_err_and(|e| e.is_transient()) {
                    cpu.relax();
                }
            }
        });
        run.unwrap();
        assert!(ends.iter().all(|end| end.stats().unhandled == 2), "each kernel has received two messages");
    }
}

#[test]
fn each_bad_plan_is_refused_before_anything_is_done() {
    let bench = Bench::new();
    let good = Bench::configs(native(3));
    let refused = |change: &dyn Fn(&mut HostPlan<'_>)| {
        let mut plan = bench.plan(&good);
        change(&mut plan);
        bench.refused(&plan)
    };
    let at = |start, len| PhysRange::new(PhysAddr(start), len).unwrap();
    let start = bench.directory.start().0;
    assert_eq!(refused(&|p| p.directory = at(start + 8, 2048)), HostError::Misaligned(PhysAddr(start + 8)));
    let size = directory_size(4, 2);
    let too_small = HostError::Directory(DirectoryError::TooSmall(size));
    assert_eq!(refused(&|p| p.directory = at(start, size - 8)), too_small);
    let geometry = HostError::Directory(DirectoryError::Geometry);
    for (instances, cpus) in [(0, 2), (257, 2), (4, 0), (4, 1025)] {
        assert_eq!(refused(&|p| (p.max_instances, p.cpus_per_instance) = (instances, cpus)), geometry);
    }
    assert_eq!(refused(&|p| p.max_instances = 2), HostError::BeyondDirectory(C));
    assert_eq!(refused(&|p| p.cpus_per_instance = 1), HostError::CpuCount(B));
    assert_eq!(refused(&|p| p.me = InstanceId::new(3)), HostError::HostNotPlanned(InstanceId::new(3)));
    assert_eq!(refused(&|p| p.me = B), HostError::NotOurCpu(PhysCpuId(0)));

    let refused = |n: usize, change: &dyn Fn(&mut InstanceConfig<'_>)| {
        let mut instances = good;
        change(&mut instances[n]);
        bench.refused(&bench.plan(&instances))
    };
    assert_eq!(refused(2, &|i| i.id = B), HostError::Twice(B));
    assert_eq!(refused(1, &|i| i.cpus = &[]), HostError::CpuCount(B));
    let twice = refused(1, &|i| i.cpus = &[PhysCpuId(5), PhysCpuId(5)]);
    assert_eq!(twice, HostError::CpuTaken(PhysCpuId(5), B, B));
    let taken = refused(2, &|i| i.cpus = &[PhysCpuId(9), PhysCpuId(4)]);
    assert_eq!(taken, HostError::CpuTaken(PhysCpuId(4), B, C));
    let elsewhere = refused(1, &|i| i.doorbell_cpu = PhysCpuId(9));
    assert_eq!(elsewhere, HostError::Doorbell(B, PhysCpuId(9)));
    const FAR: PhysCpuId = PhysCpuId(1 << 48);
    let far = refused(1, &|i| (i.cpus, i.doorbell_cpu) = (&[FAR], FAR));
    assert_eq!(far, HostError::Doorbell(B, FAR));
    let no_such_cpu = refused(1, &|i| (i.cpus, i.doorbell_cpu) = (&[PhysCpuId(8)], PhysCpuId(8)));
    assert_eq!(no_such_cpu, HostError::Unreachable(B, DoorbellError::Unreachable(PhysCpuId(8))));
    let slots = LinkConfig::RfcV2 { slots: 9, policy: SlotPolicy::Overwrite };
    assert_eq!(refused(2, &|i| i.link = slots), HostError::NoSlot(C, PhysCpuId(9)));
    assert_eq!(refused(0, &|i| i.link = native(2)), HostError::TooFewLanes(A, 3));

    // The default geometry has 16 lanes.
    let id = InstanceId::new(16);
    let many = [good[0], InstanceConfig { id, link: LinkConfig::Native(None), ..good[1] }];
    let many = HostPlan { max_instances: 17, cpus_per_instance: 2, ..bench.plan(&many) };
    assert_eq!(bench.refused(&many), HostError::TooFewLanes(A, 17));

    assert!(bench.machine.kernel(0).regions_seen().is_empty(), "no region was created");
    // The unchanged plan is accepted.
    assert!(bench.host.bring_up_host(&bench.plan(&good)).is_ok());
    let again = bench.host.bring_up_host(&bench.plan(&good));
    assert_eq!(again.unwrap_err(), HostError::HasIdentity(A));
}

#[test]
fn an_endpoint_that_is_too_small_or_in_use_is_refused() {
    let bench = Bench::new();
    let good = Bench::configs(native(3));
    let small = mk_ipi::Endpoint::<_, mk_ipi::typed::DynHandler, 1, 1, 2, 2>::new(bench.machine.kernel(0));
    assert_eq!(small.bring_up_host(&bench.plan(&good)).unwrap_err(), HostError::BeyondTable(C));
    assert_eq!((small.identity(), bench.machine.kernel(0).live_mappings()), (None, 0));
    let slots = bench.machine.reserve(8192);
    bench.host.attach_instance(&good[2], Some(slots)).unwrap();
    assert_eq!(bench.host.bring_up_host(&bench.plan(&good)).unwrap_err(), HostError::Exists(C));
    assert!(bench.host.instance(C).is_ok(), "the instance that was attached before stays");
}

#[test]
fn what_fails_later_is_undone() {
    let bench = Bench::new();
    let good = Bench::configs(native(3));
    bench.machine.exhaust_pool(C, true);
    let exhausted = HostError::Region(C, AddError::Pool(PoolError::Exhausted));
    assert_eq!(bench.refused(&bench.plan(&good)), exhausted, "after A and B were created");
    let come_and_gone = bench.machine.kernel(0).regions_seen();
    let gone = |id| come_and_gone.iter().any(|e| matches!(e, RegionEvent::Removed(i, _) if *i == id));
    assert!(gone(A) && gone(B) && !gone(C));
    bench.machine.exhaust_pool(C, false);

    bench.machine.kernel(0).refuse_maps(true);
    assert_eq!(bench.refused(&bench.plan(&good)), HostError::Map(MapError::NoMemory));
    bench.machine.kernel(0).refuse_maps(false);

    // The directory is planned at the place where the pool of C allocates its region.
    let region = bench.host.create_instance(&good[2]).unwrap();
    bench.host.destroy_instance(C).unwrap();
    let plan = HostPlan { directory: PhysRange::new(region.start(), 4096).unwrap(), ..bench.plan(&good) };
    assert_eq!(bench.refused(&plan), HostError::Entry(C, WriteError::OnDirectory));
    assert_eq!(
        find(&bench, region.start()),
        Some(SpawnedError::Directory(DirectoryError::NoStamp(bench.machine.peek(region.start()))))
    );

    // After all these errors, the same endpoint can be brought up.
    let writer = bench.host.bring_up_host(&bench.plan(&good)).unwrap();
    assert_eq!(writer.reader().ids().filter(|id| writer.reader().record(*id).is_ok()).count(), 3);
    assert_eq!(find(&bench, bench.directory.start()), None);
}

/// Returns the error of `find_directory` for the directory at `at`. `None` if there is no error.
fn find(bench: &Bench, at: PhysAddr) -> Option<SpawnedError> {
    let line = format!("mk_ipi_directory={:#x}", at.0);
    find_directory(&bench.machine.kernel(2), line.as_bytes()).err()
}

#[test]
fn a_spawned_kernel_that_cannot_come_up_says_why_and_leaves_nothing() {
    let bench = Bench::new();
    let writer = bench.host.bring_up_host(&bench.plan(&Bench::configs(native(3)))).unwrap();
    let region = writer.reader().record(B).unwrap().region.unwrap().start();
    let kernel = bench.machine.kernel(1);
    let spawned = end(&kernel, |_, _| ());
    let refused = |line: &str| {
        let e = spawned.bring_up_spawned(line.as_bytes(), turns(3), |_, _| ()).unwrap_err();
        assert_eq!((spawned.identity(), kernel.live_mappings()), (None, 0), "{e}");
        assert_eq!(spawned.peers().count(), 0, "{e}");
        e
    };
    let (shared, directory) = (region.0, bench.directory.start().0);
    assert_eq!(refused(""), SpawnedError::NoRegion);
    assert_eq!(refused("mk_ipi_shared=x"), SpawnedError::Shared(BootParamError::NotANumber));
    assert_eq!(refused(&format!("mk_ipi_shared={shared:#x}")), SpawnedError::NoDirectory);
    let line = |directory: &str| format!("mk_ipi_shared={shared:#x} mk_ipi_directory={directory}");
    assert_eq!(refused(&line("0")), SpawnedError::DirectoryParam(BootParamError::Zero));
    assert_eq!(refused(&line("0x7000000000000")), SpawnedError::Map(MapError::NotAllowed), "not memory");
    let stamp = bench.machine.peek(region);
    let no_directory = SpawnedError::Directory(DirectoryError::NoStamp(stamp));
    assert_eq!(refused(&line(&format!("{shared:#x}"))), no_directory, "a region is no directory");
    let elsewhere = PhysAddr(directory);
    let wrong = refused(&format!("mk_ipi_shared={directory:#x} mk_ipi_directory={directory:#x}"));
    assert_eq!(wrong, SpawnedError::Join(JoinError::NotListed(elsewhere)));
    kernel.refuse_maps(true);
    assert_eq!(refused(&bench.command_line(region)), SpawnedError::Map(MapError::NoMemory));
    kernel.refuse_maps(false);

    // The host never finishes a change of B's entry. B waits until the deadline.
    let sequence = PhysAddr(directory + 64 + 64 + 16);
    let at_rest = bench.machine.peek(sequence);
    bench.machine.poke(sequence, at_rest | 1);
    assert_eq!(refused(&bench.command_line(region)), SpawnedError::Join(JoinError::Changing(B)));
    // Now the host finishes the change.
    let line = bench.command_line(region);
    let end_of_write = |now| {
        if now == 3 {
            bench.machine.poke(sequence, at_rest + 2);
        }
    };
    let up = spawned.bring_up_spawned(line.as_bytes(), Deadline::new(clock(end_of_write), 100), |_, _| ());
    assert_eq!(up.unwrap().me, B);
}

#[test]
fn a_neighbour_that_cannot_be_added_is_left_out_and_told() {
    let bench = Bench::new();
    let writer = bench.host.bring_up_host(&bench.plan(&Bench::configs(native(3)))).unwrap();
    let region = writer.reader().record(B).unwrap().region.unwrap().start();
    // Write a state that does not exist into the entry of C.
    let state_of_c = PhysAddr(bench.directory.start().0 + 64 + 2 * (64 + 16) + 16);
    bench.machine.poke(state_of_c, bench.machine.peek(state_of_c) | 0xff);
    let spawned = end(&bench.machine.kernel(1), |_, _| ());
    let mut left_out = Vec::new();
    let line = bench.command_line(region);
    let up = spawned.bring_up_spawned(line.as_bytes(), turns(3), |id, e| left_out.push((id, e)));
    assert_eq!(up.unwrap().instances, 2);
    let [(C, JoinError::Entry(C, EntryError::UnknownState(_)))] = left_out[..] else {
        panic!("{left_out:?}")
    };
}

#[test]
fn the_host_goes_on_with_the_directory() {
    let bench = Bench::new();
    let mut writer = bench.host.bring_up_host(&bench.plan(&Bench::configs(native(3)))).unwrap();
    let mut record = writer.reader().record(B).unwrap();
    let cpus = [PhysCpuId(4), PhysCpuId(5)];
    for (state, incarnation) in [(State::Dead, FIRST), (State::Starting, SECOND)] {
        (record.state, record.incarnation) = (state, incarnation);
        writer.write(&record, &cpus).unwrap();
        bench.host.follow(&writer.reader(), |_, _| ()).unwrap();
        let seen = bench.host.peer(B).unwrap();
        assert_eq!((seen.state.ended(), seen.listed), ((state == State::Dead).then_some(FIRST), incarnation));
    }
    let spawned = end(&bench.machine.kernel(1), |_, _| ());
    let line = bench.command_line(record.region.unwrap().start());
    let up = spawned.bring_up_spawned(line.as_bytes(), turns(3), |_, _| ()).unwrap();
    assert_eq!((up.me, up.incarnation), (B, SECOND));
}

#[test]
fn each_error_says_what_it_is() {
    let bench = Bench::new();
    let text = |e: HostError| Box::<dyn std::error::Error>::from(e).to_string();
    let wrong = HostError::CpuTaken(PhysCpuId(0x40), B, C);
    assert_eq!(text(wrong), "CPU 0x40 is planned for instance 1 and for instance 2");
    let at = bench.directory.start();
    let id = [HostError::HasIdentity(B), HostError::HostNotPlanned(B), HostError::Twice(B)];
    let more = [HostError::BeyondDirectory(B), HostError::BeyondTable(B), HostError::Exists(B)];
    let cpus =
        [HostError::CpuCount(B), HostError::Doorbell(B, PhysCpuId(1)), HostError::NoSlot(B, PhysCpuId(1))];
    for e in id.into_iter().chain(more).chain(cpus).chain([HostError::TooFewLanes(B, 3)]) {
        assert!(text(e).contains("instance 1"), "{e}");
    }
    assert!(text(HostError::Misaligned(at)).contains(&format!("{:#x}", at.0)));
    assert!(text(HostError::NotOurCpu(PhysCpuId(7))).contains("0x7"));
    let text = |e: SpawnedError| Box::<dyn std::error::Error>::from(e).to_string();
    assert!(text(SpawnedError::NoRegion).contains("mk_ipi_shared="));
    assert!(text(SpawnedError::NoDirectory).contains("mk_ipi_directory="));
    assert!(text(SpawnedError::Join(JoinError::Busy)).contains("cannot join"));
}
