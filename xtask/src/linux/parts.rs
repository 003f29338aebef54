// SPDX-License-Identifier: MIT OR Apache-2.0
//! Builds all that a boot needs: the modules, the bare-metal kernels, the programs in C, and the initramfs of both Linuxes.

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

/// The addresses at which the bare-metal kernels are linked: in the memory that Linux must not use. The last image is linked
/// elsewhere, because it must be refused.
const IMAGES: [(&str, u64); 2] = [("k1.elf", 0x1100_0000), ("far.elf", 0x0800_0000)];
/// The same, for the kernel in C.
const C_IMAGE: (&str, u64) = ("k2.elf", 0x1200_0000);
/// The folder of programs in C, below the module's folder. They are linked statically.
const TOOLS: &str = "tools";
const UARTSH: &str = "uartsh";
const FUZZ_START: &str = "fuzz-start";
const TALK: &str = "talk";

fn entry(to: impl Into<String>, from: PathBuf) -> Entry {
    Entry { to: to.into(), from }
}

/// Builds what is not built yet. Returns the initramfs of the host.
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

/// The entries that both Linuxes have, together with the files in a folder of the module.
fn common(places: &Places, folder: &str, modules: &Modules, iperf: bool) -> Result<Vec<Entry>> {
    let mut entries = initramfs::tree(&places.root.join(stage::MODULE).join(folder))?;
    entries.push(entry("/bin/busybox", provision::busybox().context("no static busybox")?));
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
        // Each has a target folder of its own, so that nothing is built twice.
        image::linked_at(places, base, &format!("linux/bare-metal-{base:x}"), &file)?;
        Ok(entry(format!("/lib/mk_ipi/{name}"), file))
    };
    let mut entries: Vec<Entry> = IMAGES.into_iter().map(build).collect::<Result<_>>()?;
    let (name, base) = C_IMAGE;
    image::c_linked_at(places, base, &images.join(name))?;
    entries.push(entry(format!("/lib/mk_ipi/{name}"), images.join(name)));
    Ok(entries)
}

/// The files with which the host spawns another Linux, which is the same Linux as the host. Also files that must be refused.
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

/// A program of this machine, and all libraries that its loader needs, at the same paths.
fn with_libraries(program: &str) -> Result<Vec<Entry>> {
    let file = cmd::which(program).with_context(|| format!("no {program}"))?;
    let said = cmd::output(clean("ldd").arg(&file))?;
    let libraries = libraries(&said).into_iter().map(|path| entry(path, path.into()));
    Ok(libraries.chain([entry(format!("/bin/{program}"), file.clone())]).collect())
}

/// The paths in what `ldd` says: `NAME => PATH (ADDRESS)`, or `PATH (ADDRESS)`.
fn libraries(said: &str) -> Vec<&str> {
    said.split_whitespace().filter(|word| word.starts_with('/')).collect()
}

/// The Linux as an ELF file, without debug information.
fn stripped(places: &Places, linux: &Built) -> Result<PathBuf> {
    let file = places.own_target(&format!("linux/vmlinux-{}", linux.key));
    cmd::run(clean("objcopy").arg("--strip-debug").arg(linux.elf()).arg(&file))?;
    Ok(file)
}

/// The inspector, linked statically.
fn inspector(places: &Places) -> Result<PathBuf> {
    // The target is named, so that these flags are not used for build scripts and macros.
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let folder = places.own_target("linux/inspect");
    let mut cargo = places.cargo();
    cargo
        .args(["build", "--quiet", "-p", "mk-ipi-inspect", "--target", TARGET])
        .env("CARGO_TARGET_DIR", &folder);
    cmd::run(cargo.env("RUSTFLAGS", "-Ctarget-feature=+crt-static -Cstrip=symbols"))?;
    Ok(folder.join(TARGET).join("debug/mk-ipi-inspect"))
}

/// Builds a program in C.
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
