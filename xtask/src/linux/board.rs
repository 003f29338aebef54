// SPDX-License-Identifier: MIT OR Apache-2.0
//! The emulated machine: its memory, CPUs and serial lines, and the options about them on Linux's command line.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::trace::MARKS;
use crate::provision::qemu::Qemu;
use crate::record::Mode;

/// The address of the memory that is reserved for other kernels. The images of the bare-metal kernels are linked there.
const SPAWNED: u64 = 0x1000_0000;
/// The size and the address of the memory below 1 MiB that is reserved for spawned Linuxes. Each of them gets 64 KiB of it.
const LOW: &str = "256K$0x40000";

/// The parameters of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Board {
    /// The mode of the local APIC.
    pub mode: Mode,
    /// The number of CPUs.
    pub cpus: u32,
    /// The number of hardware threads of each core. CPUs with successive numbers are threads of one core.
    pub threads: u32,
    /// Whether a Linux is spawned, in addition to two bare-metal kernels.
    pub spawn: bool,
    /// Whether Linux is built with debug checks. Such a Linux needs more memory and time.
    pub debug: bool,
}

/// Sizes in MiB.
struct Memory {
    /// All memory of the machine.
    whole: u64,
    /// The memory that is reserved for other kernels.
    spawned: u64,
    /// The pool of a spawned Linux: its memory without its image.
    pool: u64,
}

/// The destinations of the serial lines.
pub struct Lines {
    /// Where the host's console goes, as an option of QEMU.
    pub console: String,
    /// Where the records go, as an option of QEMU.
    pub records: String,
    /// Where the spawned Linux's console goes, as an option of QEMU.
    pub spawned: String,
    /// The file for the output of kernel 1.
    pub k1: PathBuf,
    /// The file for the output of kernel 2.
    pub k2: PathBuf,
}

/// A path as part of an option of QEMU. In such an option a comma separates values, so a comma in the path is doubled.
fn quoted(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// QEMU's option for a serial line that is written to a file.
pub fn to_file(file: &Path) -> String {
    format!("file:{}", quoted(file))
}

/// QEMU's option for a serial line that is a socket, to which a program can connect.
pub fn to_socket(path: &Path) -> String {
    format!("unix:{},server=on,wait=off", quoted(path))
}

impl Board {
    /// The number of CPUs that the host gives to other kernels.
    pub fn given(spawn: bool) -> u32 {
        if spawn {
            4
        } else {
            2
        }
    }

    /// The CPUs that the host gives to other kernels. These are the last CPUs: first one for each bare-metal kernel, then those
    /// for the spawned Linux.
    fn given_cpus(&self) -> Vec<u32> {
        (self.cpus - Self::given(self.spawn)..self.cpus).collect()
    }

    /// The CPUs of the spawned Linux.
    pub fn spawned_cpus(&self) -> Vec<u32> {
        self.given_cpus().split_off(2)
    }

    /// The sizes of the parts of the memory. The tables of the firmware are at the end of all memory, and not in the part for
    /// other kernels.
    fn memory(&self) -> Memory {
        match (self.spawn, self.debug) {
            (false, _) => Memory { whole: 1024, spawned: 64, pool: 0 },
            (true, false) => Memory { whole: 1280, spawned: 256, pool: 96 },
            (true, true) => Memory { whole: 2304, spawned: 768, pool: 448 },
        }
    }

    /// The options about the machine for Linux's command line.
    pub fn words(&self) -> String {
        let Memory { spawned, pool, .. } = self.memory();
        // If the machine has many CPUs, Linux starts only some of them, because all emulated CPUs share a few real ones. The
        // others are present and offline.
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

    /// The command that runs QEMU, with the options for this machine.
    pub fn command(&self, qemu: &Qemu, lines: &Lines) -> Command {
        let mut cmd = qemu.command();
        cmd.args(["-M", "q35", "-cpu", "max", "-accel", "tcg,thread=multi"]);
        cmd.arg("-m").arg(format!("{}M", self.memory().whole)).args(["-smp", &self.cpu_topology()]);
        if self.mode == Mode::X2apic {
            // Linux uses x2APIC mode only if the machine can remap interrupts.
            cmd.args(["-device", "intel-iommu,intremap=on,eim=on"]);
        }
        cmd.args(["-nodefaults", "-display", "none", "-no-reboot"]);
        for serial in [&lines.console, &lines.records, &lines.spawned, &to_file(&lines.k1)] {
            cmd.arg("-serial").arg(serial);
        }
        // A PC has at most four UARTs. Kernel 2 writes its output to this port instead. If accesses to devices are traced, the
        // host writes the marks to the same port, and does not start kernel 2.
        cmd.arg("-chardev").arg(format!("file,id=k2,path={}", quoted(&lines.k2)));
        cmd.arg("-device").arg(format!("isa-debugcon,iobase={MARKS:#x},chardev=k2"));
        cmd
    }

    /// QEMU's option for the CPUs.
    fn cpu_topology(&self) -> String {
        let Self { cpus, threads, .. } = self;
        format!("{cpus},sockets=1,cores={},threads={threads}", cpus / threads)
    }

    /// The factor by which the time limits are multiplied.
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
            // The tables and other data of the firmware take less than 64 MiB. If a machine has 2.75 GiB or more, QEMU splits its
            // memory.
            assert!((SPAWNED >> 20) + spawned + 64 <= whole && whole < 2816);
            // There is room for the pool and an image. All of it is below 1 GiB, because the start pages must be there.
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
