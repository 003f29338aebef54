// SPDX-License-Identifier: MIT OR Apache-2.0
//! Builds all files that a boot of Linux needs: the modules, the bare-metal kernels, the programs in C, and the initramfs of the
//! host and of the spawned Linux.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Context, Result};

use super::initramfs::{self, Entry};
use super::kernel::Built;
use super::make::clean;
use super::modules::{self, Modules};
use super::programs;
use super::stage;
use crate::cmd::{self, Places};
use crate::{image, provision};

/// The images of the bare-metal kernels in Rust, each with the address at which it is linked. k1.elf is linked in the memory that
/// the command line of Linux reserves for other kernels. far.elf is linked outside of this memory, so the module must refuse to
/// start it.
const IMAGES: [(&str, u64); 2] = [("k1.elf", 0x1100_0000), ("far.elf", 0x0800_0000)];
/// The image of the kernel in C, with the address at which it is linked.
const C_IMAGE: (&str, u64) = ("k2.elf", 0x1200_0000);
/// The folder of the programs in C, below the folder of the module.
const TOOLS: &str = "tools";
/// The program that runs a shell on the spawned Linux's UART.
const UARTSH: &str = "uartsh";
/// The program that passes damaged images to the module.
const FUZZ_START: &str = "fuzz-start";
/// The program that talks to other kernels through the module's devices.
const TALK: &str = "talk";

/// The file `from`, at the path `to` of an initramfs.
fn entry(to: impl Into<String>, from: PathBuf) -> Entry {
    Entry { to: to.into(), from }
}

/// Builds all files, and returns the path of the host's initramfs. With `spawn` it has the files for a spawned Linux too, with
/// `iperf` also iperf3.
pub fn build(places: &Places, linux: &Built, spawn: bool, iperf: bool) -> Result<PathBuf> {
    let stage = places.own_target(&format!("linux/stage-{}", linux.key));
    stage::lay(places, &stage)?;
    let modules = modules::build(linux, &stage)?;
    let mut entries = common(places, "initramfs", &modules, iperf)?;
    entries.push(entry("/lib/modules/mk_ipi_test_c.ko", modules.test.clone()));
    entries.push(entry("/bin/mk-ipi-inspect", inspector(places)?));
    entries.extend(images(places)?);
    if spawn {
        entries.extend(programs::entries()?);
        entries.extend(spawned(places, linux, &modules, iperf)?);
    }
    let file = places.own_target(&format!("linux/initramfs-{}", linux.key));
    initramfs::write(linux, &entries, &file)?;
    Ok(file)
}

/// The files that are in both initramfs: the files in the folder `folder` of the module, busybox, the module, and some programs.
fn common(places: &Places, folder: &str, modules: &Modules, iperf: bool) -> Result<Vec<Entry>> {
    let mut entries = initramfs::tree(&places.root.join(stage::MODULE).join(folder))?;
    entries.push(entry("/bin/busybox", provision::busybox().context("a static busybox was not found")?));
    entries.push(entry("/lib/modules/mk_ipi.ko", modules.mk_ipi.clone()));
    entries.push(entry(format!("/bin/{TALK}"), tool(places, TALK)?));
    if iperf {
        entries.extend(with_libraries("iperf3")?);
    }
    Ok(entries)
}

/// The images of the bare-metal kernels.
fn images(places: &Places) -> Result<Vec<Entry>> {
    let images = places.own_target("linux/images");
    fs::create_dir_all(&images)?;
    let build = |(name, base)| {
        let file = images.join(name);
        // Each image has its own target folder. With one folder for all images, cargo would build everything again for each.
        image::linked_at(places, base, &format!("linux/bare-metal-{base:x}"), &file)?;
        Ok(entry(format!("/lib/mk_ipi/{name}"), file))
    };
    let mut entries: Vec<Entry> = IMAGES.into_iter().map(build).collect::<Result<_>>()?;
    let (name, base) = C_IMAGE;
    image::c_linked_at(places, base, &images.join(name))?;
    entries.push(entry(format!("/lib/mk_ipi/{name}"), images.join(name)));
    Ok(entries)
}

/// The files by which the host spawns another Linux, which is the same Linux as the host. The bzImage and the program
/// `fuzz-start` are for tests in which the module must refuse an image.
fn spawned(places: &Places, linux: &Built, modules: &Modules, iperf: bool) -> Result<Vec<Entry>> {
    let mut guests = common(places, "initramfs-guest", modules, iperf)?;
    guests.push(entry(format!("/bin/{UARTSH}"), tool(places, UARTSH)?));
    guests.extend(programs::entries()?);
    let guest = places.own_target(&format!("linux/guest-{}", linux.key));
    initramfs::write(linux, &guests, &guest)?;
    Ok(vec![
        entry("/lib/mk_ipi/guest.cpio", guest),
        entry("/lib/mk_ipi/vmlinux", stripped(places, linux)?),
        entry("/lib/mk_ipi/bzImage", linux.image()),
        entry(format!("/bin/{FUZZ_START}"), tool(places, FUZZ_START)?),
        entry("/bin/mk-ipi-instance", places.root.join(stage::MODULE).join("systemd/mk-ipi-instance")),
    ])
}

/// A program of this machine, in `/bin`; and the libraries that it loads, at the same paths as on this machine.
fn with_libraries(program: &str) -> Result<Vec<Entry>> {
    let file = cmd::which(program).with_context(|| format!("{program} was not found"))?;
    let said = cmd::output(clean("ldd").arg(&file))?;
    let libraries = libraries(&said).into_iter().map(|path| entry(path, path.into()));
    Ok(libraries.chain([entry(format!("/bin/{program}"), file.clone())]).collect())
}

/// The paths in the output of `ldd`. Its lines are `NAME => PATH (ADDRESS)`, or `PATH (ADDRESS)`.
fn libraries(said: &str) -> Vec<&str> {
    said.split_whitespace().filter(|word| word.starts_with('/')).collect()
}

/// Makes a copy of Linux's ELF file without debug information, and returns its path.
fn stripped(places: &Places, linux: &Built) -> Result<PathBuf> {
    let file = places.own_target(&format!("linux/vmlinux-{}", linux.key));
    cmd::run(clean("objcopy").arg("--strip-debug").arg(linux.elf()).arg(&file))?;
    Ok(file)
}

/// Builds `mk-ipi-inspect`, linked statically, and returns its path.
fn inspector(places: &Places) -> Result<PathBuf> {
    // If a target is named, cargo does not use RUSTFLAGS for build scripts and macros.
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let folder = places.own_target("linux/inspect");
    let mut cargo = places.cargo();
    cargo
        .args(["build", "--quiet", "-p", "mk-ipi-inspect", "--target", TARGET])
        .env("CARGO_TARGET_DIR", &folder);
    cmd::run(cargo.env("RUSTFLAGS", "-Ctarget-feature=+crt-static -Cstrip=symbols"))?;
    Ok(folder.join(TARGET).join("debug/mk-ipi-inspect"))
}

/// Builds a program in C, linked statically, and returns its path.
fn tool(places: &Places, name: &str) -> Result<PathBuf> {
    let source = Path::new(stage::MODULE).join(TOOLS).join(name.replace('-', "_")).with_extension("c");
    let folder = places.own_target("linux/tools");
    fs::create_dir_all(&folder)?;
    let file = folder.join(name);
    let mut cc = Command::new("cc");
    cc.current_dir(&places.root).args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static"]);
    cmd::run(cc.arg("-o").arg(&file).arg(&source))?;
    ensure!(file.is_file(), "the compiler made no {}", file.display());
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_loader_asks_for() {
        let said = "\tlinux-vdso.so.1 (0x7ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x7f)\n";
        assert_eq!(libraries(said), ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
    }
}
