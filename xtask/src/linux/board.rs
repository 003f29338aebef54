// SPDX-License-Identifier: MIT OR Apache-2.0
//! The emulated machine: its memory, CPUs and serial lines, and the words about them on Linux's command line.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::trace::MARKS;
use crate::provision::qemu::Qemu;
use crate::record::Mode;

/// The address of the memory that Linux must not use. The images of the bare-metal kernels are linked there.
const SPAWNED: u64 = 0x1000_0000;
/// Memory below 1 MiB that Linux must not use either: 64 KiB for each spawned Linux.
const LOW: &str = "256K$0x40000";

/// The machine.
#[derive(Clone, Copy, Debug)]
pub struct Board {
    /// The mode of the local APIC.
    pub mode: Mode,
    /// How many CPUs it has.
    pub cpus: u32,
    /// How many CPUs in a row are threads of one core.
    pub threads: u32,
    /// Whether a Linux is spawned, in addition to two bare-metal kernels.
    pub spawn: bool,
    /// Whether Linux has debug checks, which take memory and time.
    pub debug: bool,
}

/// Sizes in MiB.
struct Memory {
    /// All of it.
    whole: u64,
    /// The memory that Linux must not use.
    spawned: u64,
    /// The pool of a spawned Linux: its memory without its image.
    pool: u64,
}

/// The ends of the serial lines.
pub struct Lines {
    /// Linux's console, as an option of QEMU.
    pub console: String,
    /// The serial line with the records.
    pub records: String,
    /// The spawned Linux's console.
    pub spawned: String,
    /// The file for kernel 1.
    pub k1: PathBuf,
    /// The file for kernel 2.
    pub k2: PathBuf,
}

/// A path as part of an option of QEMU, in which a comma that belongs to the value is doubled.
fn quoted(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// A serial line that goes to a file.
pub fn to_file(file: &Path) -> String {
    format!("file:{}", quoted(file))
}

/// A serial line to a socket, to which a program can connect.
pub fn to_socket(path: &Path) -> String {
    format!("unix:{},server=on,wait=off", quoted(path))
}

impl Board {
    /// How many CPUs are given away.
    pub fn given(spawn: bool) -> u32 {
        if spawn {
            4
        } else {
            2
        }
    }

    /// The CPUs that are given away. These are the last ones: one for each bare-metal kernel, then those of the spawned Linux.
    fn given_cpus(&self) -> Vec<u32> {
        (self.cpus - Self::given(self.spawn)..self.cpus).collect()
    }

    /// The CPUs of the spawned Linux.
    pub fn spawned_cpus(&self) -> Vec<u32> {
        self.given_cpus().split_off(2)
    }

    /// The sizes of the memory. The firmware's tables are at the end of the whole memory, outside of the memory that is given
    /// to others.
    fn memory(&self) -> Memory {
        match (self.spawn, self.debug) {
            (false, _) => Memory { whole: 1024, spawned: 64, pool: 0 },
            (true, false) => Memory { whole: 1280, spawned: 256, pool: 96 },
            (true, true) => Memory { whole: 2304, spawned: 768, pool: 448 },
        }
    }

    /// The words about the machine for Linux's command line.
    pub fn words(&self) -> String {
        let Memory { spawned, pool, .. } = self.memory();
        // Of many emulated CPUs only a few are online, because they share few real ones. Linux knows all of them.
        let few = if self.cpus > 8 { "maxcpus=4 " } else { "" };
        let apic = if self.mode == Mode::Xapic { "nox2apic" } else { "intremap=on" };
        let given: Vec<String> = self.given_cpus().iter().map(u32::to_string).collect();
        let mut words = format!(
            "{few}console=ttyS0 panic=-1 oops=panic memmap={spawned}M${SPAWNED:#x} no_ipi_broadcast=1 {apic} \
             mk_ipi.memory={SPAWNED:#x}+{spawned}M mk_ipi.cpus={}",
            given.join(",")
        );
        if self.spawn {
            let low = LOW.split_once('$').map_or_else(String::new, |(size, at)| format!("{at}+{size}"));
            words.push_str(&format!(" memmap={LOW} mk_ipi.low={low} mk_ipi.pool={pool}M"));
        }
        words
    }

    /// Adds the options of QEMU for this machine.
    pub fn command(&self, qemu: &Qemu, lines: &Lines) -> Command {
        let mut cmd = qemu.command();
        cmd.args(["-M", "q35", "-cpu", "max", "-accel", "tcg,thread=multi"]);
        cmd.arg("-m").arg(format!("{}M", self.memory().whole)).args(["-smp", &self.cpu_topology()]);
        if self.mode == Mode::X2apic {
            // Linux uses x2APIC only if interrupts can be remapped.
            cmd.args(["-device", "intel-iommu,intremap=on,eim=on"]);
        }
        cmd.args(["-nodefaults", "-display", "none", "-no-reboot"]);
        for serial in [&lines.console, &lines.records, &lines.spawned, &to_file(&lines.k1)] {
            cmd.arg("-serial").arg(serial);
        }
        // A PC has no fifth UART. This port accepts bytes, which is enough for a kernel that only writes. It also takes the
        // trace marks.
        cmd.arg("-chardev").arg(format!("file,id=k2,path={}", quoted(&lines.k2)));
        cmd.arg("-device").arg(format!("isa-debugcon,iobase={MARKS:#x},chardev=k2"));
        cmd
    }

    /// The CPUs, as an option of QEMU.
    fn cpu_topology(&self) -> String {
        let Self { cpus, threads, .. } = self;
        format!("{cpus},sockets=1,cores={},threads={threads}", cpus / threads)
    }

    /// The factor by which this machine may be slower than usual.
    pub fn slowness(&self) -> u32 {
        if self.debug {
            4
        } else {
            1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOARD: Board = Board { mode: Mode::Xapic, cpus: 6, threads: 1, spawn: true, debug: false };

    #[test]
    fn what_linux_is_told_of_the_machine() {
        let words = "console=ttyS0 panic=-1 oops=panic memmap=256M$0x10000000 no_ipi_broadcast=1 nox2apic \
                     mk_ipi.memory=0x10000000+256M mk_ipi.cpus=2,3,4,5 \
                     memmap=256K$0x40000 mk_ipi.low=0x40000+256K mk_ipi.pool=96M";
        assert_eq!(BOARD.words(), words);
        let x2apic = Board { mode: Mode::X2apic, ..BOARD };
        assert_eq!(x2apic.words(), words.replace("nox2apic", "intremap=on"));
        let plain = Board { cpus: 4, spawn: false, ..BOARD };
        let (head, _) = words.split_once(" memmap=256K").expect("both");
        assert_eq!(plain.words(), head.replace("256M", "64M").replace("2,3,4,5", "2,3"));
        let large = Board { cpus: 512, ..BOARD }.words();
        assert!(large.starts_with("maxcpus=4 ") && large.contains("cpus=508,509,510,511 "));
    }

    #[test]
    fn what_others_get_is_memory_that_the_firmware_has_not() {
        for (spawn, debug) in [(false, false), (false, true), (true, false), (true, true)] {
            let Memory { whole, spawned, pool } = Board { spawn, debug, ..BOARD }.memory();
            // The firmware's tables and other data take less than 64 MiB. Above 2.75 GiB QEMU splits the memory.
            assert!((SPAWNED >> 20) + spawned + 64 <= whole && whole < 2816);
            // There is room for the pool and an image. Everything is below 1 GiB, where the start pages must be.
            assert!(pool + 128 < spawned || !spawn);
            assert!((SPAWNED >> 20) + spawned <= 1024);
        }
    }

    #[test]
    fn the_spawned_linux_has_the_last_cpus() {
        assert_eq!(BOARD.spawned_cpus(), [4, 5]);
        assert!(Board { cpus: 4, spawn: false, ..BOARD }.spawned_cpus().is_empty());
    }

    #[test]
    fn threads_of_a_core_follow_each_other() {
        assert_eq!(BOARD.cpu_topology(), "6,sockets=1,cores=6,threads=1");
        assert_eq!(Board { threads: 2, ..BOARD }.cpu_topology(), "6,sockets=1,cores=3,threads=2");
    }

    #[test]
    fn commas_in_paths() {
        assert_eq!(to_file(Path::new("/a,b")), "file:/a,,b");
        assert_eq!(to_socket(Path::new("/a,b")), "unix:/a,,b,server=on,wait=off");
    }
}
