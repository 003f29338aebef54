// SPDX-License-Identifier: MIT OR Apache-2.0
//! The example `two_processes` runs. `Machine` refuses files that are not machines, and `Host` refuses invalid entries.
#![expect(clippy::unwrap_used, reason = "tests")]

use mk_ipi_core::abi::native::Geometry;
use mk_ipi_core::abi::{InstanceId, PhysAddr, PhysCpuId, PhysRange};
use mk_ipi_core::sync::Ordering;
use mk_ipi_process::{Host, HostError, Machine, OpenError, Shape};
use std::fs::File;
use std::process::Command;

const SHAPE: Shape = Shape { cpus: 2, instances: 2, pool: 1 << 16 };

/// Makes a file for one test.
fn file(name: &str) -> (File, std::path::PathBuf) {
    let path = std::env::temp_dir().join(format!("mk-ipi-{name}-{}", std::process::id()));
    (File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap(), path)
}

#[test]
fn two_processes_play() {
    // Cargo builds a package's examples with its tests.
    let tests = std::env::current_exe().unwrap();
    let folder = tests.parent().and_then(|deps| deps.parent()).unwrap();
    let out = Command::new(folder.join("examples/two_processes")).output().unwrap();
    let said = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success(), "{said} {}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(said.lines().filter(|line| line.starts_with("round trip ")).count(), 5, "{said}");
    assert!(said.contains("pong ended with exit status: 0"), "{said}");
}

#[test]
fn what_is_no_machine_is_refused() {
    let (empty, path) = file("empty");
    assert!(matches!(Machine::open(empty), Err(OpenError::Io(_))));
    let (short, _) = file("empty");
    short.set_len(4096).unwrap();
    assert!(matches!(Machine::open(short), Err(OpenError::NoMachine(0))));
    std::fs::remove_file(path).unwrap();
    for bad in [
        Shape { cpus: 0, ..SHAPE },
        Shape { cpus: 1025, ..SHAPE },
        Shape { instances: 257, ..SHAPE },
        Shape { pool: 100, ..SHAPE },
        Shape { pool: 1 << 50, ..SHAPE },
    ] {
        assert!(Machine::in_memory(bad).is_err(), "{bad:?}");
    }
    // A file that is too short for its machine is not mapped, because an access beyond its end would fault.
    let (whole, path) = file("cut");
    let machine = Machine::create(whole, SHAPE).unwrap();
    machine.file().set_len(machine.pools().end().0 - 1).unwrap();
    assert!(matches!(Machine::open(machine.file().try_clone().unwrap()), Err(OpenError::Shape)));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn memory_without_a_name_cannot_be_cut() {
    let machine = Machine::in_memory(SHAPE).unwrap();
    assert!(machine.file().set_len(0).is_err());
    let other = Machine::open(machine.file().try_clone().unwrap()).unwrap();
    assert_eq!(other.shape(), SHAPE);
    assert!(matches!(Host::new(&other), Err(HostError::NotTheHost)));
}

#[test]
fn only_pools_are_mapped() {
    let machine = Machine::in_memory(SHAPE).unwrap();
    let range = |start, len| PhysRange::new(PhysAddr(start), len).unwrap();
    let pools = machine.pools();
    assert_eq!(machine.map(pools, true).unwrap().words().len(), 2 << 13);
    for bad in
        [range(0, 4096), range(4096, 64), range(pools.start().0 + 8, 8), range(pools.end().0 - 4096, 8192)]
    {
        assert!(machine.map(bad, false).is_err(), "{bad:?}");
    }
}

#[test]
fn the_host_writes_what_may_be_written() {
    let machine = Machine::in_memory(SHAPE).unwrap();
    let mut host = Host::new(&machine).unwrap();
    let (id, cpu) = (InstanceId::new(0), PhysCpuId(1));
    let geometry = |lines| Geometry::new(2, lines, 256).unwrap();
    assert!(
        matches!(host.create(id, &[cpu], geometry(4096)), Err(HostError::Io(_))),
        "the region is larger than its pool"
    );
    let region = host.create(id, &[cpu], geometry(8)).unwrap();
    assert!(
        matches!(host.create(InstanceId::new(1), &[cpu], geometry(8)), Err(HostError::Write(_))),
        "the CPU belongs to another instance"
    );
    assert!(matches!(host.create(InstanceId::new(2), &[cpu], geometry(8)), Err(HostError::Unknown(_))));
    assert!(host.next_life(id).is_err(), "the instance is not dead");
    let words = machine.map(region, true).unwrap();
    let last = words.words().last().unwrap();
    last.store(7, Ordering::Relaxed);
    for again in ["live", "dead"] {
        assert!(matches!(host.create(id, &[cpu], geometry(8)), Err(HostError::Exists(_))), "{again}");
        host.died(id).unwrap();
    }
    assert_eq!(last.load(Ordering::Relaxed), 7, "the region has not changed");
    host.died(id).unwrap();
    host.next_life(id).unwrap();
    let record = machine.directory().unwrap().record(id).unwrap();
    assert_eq!((record.incarnation.get(), record.region), (2, Some(region)));
    assert_eq!(
        host.command_line(id).unwrap(),
        format!("mk_ipi_shared={:#x} mk_ipi_directory={:#x}", region.start().0, machine.directory_at().0)
    );
}
