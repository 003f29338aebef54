// SPDX-License-Identifier: MIT OR Apache-2.0
//! The library for C: its header compiles with each compiler, its C tests pass, it contains only what it should, and it needs
//! only the symbols that the header names.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{bail, ensure, Context as _, Result};
use object::{Object, ObjectSymbol};

use super::{no_panic, Context, Notes};
use crate::capi::{self, Limits, C_TESTS};
use crate::cmd::{self, BARE_TARGET};
use crate::{image, provision};

/// The symbols that the library for this machine needs, according to the header; and `bcmp`, which compilers use for comparisons.
const DOCUMENTED: [&str; 5] = ["memcpy", "memset", "memcmp", "memmove", "bcmp"];
/// The compiler flags for a sanitized program.
const SANITIZED: [&str; 2] = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
/// Calls that `small.c` makes.
const CALLED: [&str; 3] = ["mk_ipi_init", "mk_ipi_send", "mk_ipi_run_deferred"];
/// Some calls that `small.c` does not make.
const NOT_CALLED: [&str; 5] = [
    "mk_ipi_join",
    "mk_ipi_directory_create",
    "mk_ipi_create_instance",
    "multikernel_send_ipi_data",
    "mk_ipi_boot_shared",
];

/// The step.
pub fn run(context: &Context) -> Result<Notes> {
    let places = context.places;
    let out = places.own_target("capi").join("out");
    capi::header_test(places, false)?;
    let msrv = format!("+{}", provision::MSRV);
    let mut check = places.cargo();
    check.env("CARGO_TARGET_DIR", places.own_target("msrv")).env_remove("RUSTUP_TOOLCHAIN");
    cmd::run(check.args([&msrv, "check", "-p", capi::PACKAGE, "--target", BARE_TARGET]))?;
    capi::install(places, &out, Limits::default())?;
    let mut notes = Notes::new();
    for compiler in compilers(places.ci)? {
        header(context, compiler, &out)?;
        kernel(context, compiler, &out)?;
        first_kernel(context, compiler, &out)?;
        notes.extend(programs(context, compiler, &out)?);
    }
    notes.extend(peer_program(&out, places.ci)?);
    notes.push(symbols(context, &out)?);
    notes.push(small(context, &out)?);
    notes.push(limits(context, &out)?);
    Ok(notes)
}

/// The C and C++ compilers. On a developer's machine clang may be missing.
fn compilers(ci: bool) -> Result<Vec<(&'static str, &'static str)>> {
    let mut found = Vec::new();
    for (cc, cxx) in [("gcc", "g++"), ("clang", "clang++")] {
        match cmd::which(cc).and(cmd::which(cxx)) {
            Some(_) => found.push((cc, cxx)),
            None if ci => bail!("there is no {cc} or no {cxx}"),
            None => eprintln!("{cc} and {cxx}: at least one is missing, so both are left out"),
        }
    }
    ensure!(!found.is_empty(), "there is neither gcc nor clang");
    Ok(found)
}

/// Programs that include the header, and the flags with which they are compiled: as C99 and C11, freestanding, and as C++;
/// without the compiler's own headers; with a kernel's types; and with macros of the patch that the caller has defined itself.
const HEADER_TESTS: [(&str, &[&str]); 7] = [
    (INCLUDES, &["-x", "c", "-std=c11", "-ffreestanding", "-nostdlib"]),
    (INCLUDES, &["-x", "c", "-std=c99", "-ffreestanding", "-nostdlib"]),
    (INCLUDES, &["-x", "c++", "-std=c++17"]),
    ("#include <mk_ipi.h>\nstatic uint64_t n;\nuint64_t *at(void);\nuint64_t *at(void) { return &n; }\n", &["-x", "c", "-std=c99", "-nostdinc"]),
    ("#include <mk_ipi.h>\n", &["-x", "c", "-std=c11", "-nostdinc", "-DMK_IPI_TYPES=<types_of_a_kernel.h>"]),
    (
        "#define MULTIKERNEL_VECTOR 0xea\n#define MK_PFN_IPI_TYPE 0x80000001U\n#define MK_MAX_DATA_SIZE 256\n#define \
         MK_MAX_INSTANCES 256\n#include <mk_ipi.h>\n",
        &["-x", "c", "-std=c99"],
    ),
    (
        "#include <mk_ipi.h>\n#define MULTIKERNEL_VECTOR 0xea\n#define MK_PFN_IPI_TYPE 0x80000001U\n#define MK_MAX_DATA_SIZE \
         256\n#define MK_MAX_INSTANCES 256\n",
        &["-x", "c", "-std=c99"],
    ),
];
const INCLUDES: &str = "#include <mk_ipi.h>\n#include <mk_ipi_peer.h>\n#include <mk_ipi.h>\n";
/// The types as Linux defines them. They have the same sizes as those of the compiler, but are other types.
const TYPES_OF_A_KERNEL: &str =
    "typedef unsigned long size_t;\ntypedef unsigned char uint8_t;\ntypedef unsigned int uint32_t;\n\
                                 typedef unsigned long long uint64_t;\ntypedef signed long long int64_t;\n";

/// Compiles the header alone.
fn header(context: &Context, (cc, cxx): (&str, &str), out: &Path) -> Result<()> {
    let object = out.join("header.o");
    let source = out.join("header.c");
    fs::write(out.join("types_of_a_kernel.h"), TYPES_OF_A_KERNEL)?;
    for (text, flags) in HEADER_TESTS {
        fs::write(&source, text)?;
        let mut cmd = Command::new(if flags.contains(&"c++") { cxx } else { cc });
        cmd.current_dir(&context.places.root).args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"]);
        cmd.arg(out.join("include"))
            .arg("-I")
            .arg(out)
            .args(flags)
            .arg("-c")
            .arg(&source)
            .arg("-o")
            .arg(&object);
        cmd::run(&mut cmd)?;
    }
    // If a caller has defined a macro of the patch with another value, the header must not compile.
    fs::write(&source, "#define MK_MAX_DATA_SIZE 128\n#include <mk_ipi.h>\n")?;
    let mut wrong = Command::new(cc);
    wrong
        .arg("-I")
        .arg(out.join("include"))
        .arg("-c")
        .arg(&source)
        .arg("-o")
        .arg(&object)
        .stderr(Stdio::null());
    ensure!(!wrong.status()?.success(), "{cc} accepts a MK_MAX_DATA_SIZE of 128");
    Ok(())
}

/// Compiles the kernel in C with each compiler. Other steps run it.
fn kernel(context: &Context, (cc, _): (&str, &str), out: &Path) -> Result<()> {
    let library = out.join("lib").join(BARE_TARGET).join("libmk_ipi.a");
    image::compile_c(context.places, cc, 0x0200_0000, &library, &out.join(format!("kernel-{cc}.elf")))
}

/// The book's kernels in C: checks that the host receives what the other kernel sends back. The other kernel must compile with
/// our header only.
fn first_kernel(context: &Context, (cc, _): (&str, &str), out: &Path) -> Result<()> {
    let root = &context.places.root;
    let kernel = root.join(capi::RFC_V2_KERNEL);
    let mut bare = Command::new(cc);
    bare.current_dir(root).args([
        "-std=c99",
        "-Wall",
        "-Wextra",
        "-Wpedantic",
        "-Werror",
        "-ffreestanding",
        "-nostdinc",
        "-I",
    ]);
    cmd::run(
        bare.arg(out.join("include")).arg("-c").arg(&kernel).arg("-o").arg(out.join("rfc_v2_kernel.o")),
    )?;
    let program = out.join(format!("first_kernel-{cc}"));
    let mut cmd = capi::compiler(context.places, cc, &out.join("include"));
    cmd.arg(root.join(capi::FIRST_KERNEL)).arg(&kernel).arg(out.join("lib/libmk_ipi.a"));
    cmd::run(cmd.arg("-o").arg(&program))?;
    let said = cmd::output(&mut Command::new(&program))?;
    let wanted = ["the host heard \"hello, kernel 1\" from CPU 1"];
    ensure!(said.lines().eq(wanted), "{} says {said:?}", capi::FIRST_KERNEL);
    Ok(())
}

/// Whether the compiler has the libraries for a sanitized program. On Debian gcc has them, and clang does not.
fn sanitizes(cc: &str, out: &Path) -> Result<bool> {
    let source = out.join("nothing.c");
    fs::write(&source, "int main(void) { return 0; }\n")?;
    let mut cmd = Command::new(cc);
    cmd.args(SANITIZED).arg(&source).arg("-o").arg(out.join("nothing")).stderr(Stdio::null());
    let links = cmd.status().with_context(|| cc.to_owned())?.success();
    ensure!(links || cc != "gcc", "gcc cannot link a sanitized program");
    Ok(links)
}

/// Runs the C tests, without and with sanitizers, and with peers in shared objects: ours, and one that was written from SPEC.md.
fn programs(context: &Context, (cc, _): (&str, &str), out: &Path) -> Result<Notes> {
    let (places, include, library) = (context.places, out.join("include"), out.join("lib/libmk_ipi.a"));
    let shared = |source: &str, libraries: &[&Path]| -> Result<PathBuf> {
        let object = out.join(source).with_extension("so");
        let mut cmd = capi::compiler(places, cc, &include);
        cmd.args(["-fPIC", "-shared", source]).args(libraries).arg("-o").arg(&object);
        cmd::run(&mut cmd)?;
        Ok(object)
    };
    let ours = shared("peer_ours.c", &[&library])?;
    let spec = shared("spec_peer.c", &[])?;
    let mut notes = Notes::new();
    for (name, flags) in [("plain", &[][..]), ("sanitized", &SANITIZED[..])] {
        if name == "sanitized" && !sanitizes(cc, out)? {
            notes.push(format!("{cc}: not sanitized: its runtime is not installed"));
            continue;
        }
        let program = out.join(format!("mk_ipi_test-{cc}-{name}"));
        capi::compile_test(places, cc, flags, &include, &library, &program)?;
        notes.push(format!("{cc}, {name}: {}", capi::run_test(&program, None)?));
        for peer in [&ours, &spec] {
            let said = capi::run_test(&program, Some(peer))?;
            let peer = peer.file_name().unwrap_or_default().to_string_lossy();
            notes.push(format!("{cc}, {name}, {peer}: {said}"));
        }
    }
    Ok(notes)
}

/// Checks that a peer in Python passes, which is driven through its standard input and output; and that a peer that refuses to
/// send fails.
fn peer_program(out: &Path, ci: bool) -> Result<Option<String>> {
    if cmd::which("python3").is_none() {
        ensure!(!ci, "there is no python3");
        return Ok(Some("the peer in Python: not run: there is no python3".into()));
    }
    let (program, stdio) = (out.join("bin/mk_ipi_test"), out.join("lib/mk_ipi_peer_stdio.so"));
    let python = format!("python3 '{}'", out.join("share/peer.py").display());
    let run = |words: &str, speaks: &[&str]| capi::run_test_of_program(&program, &stdio, words, speaks);
    let said = run(&python, &[])?;
    let wrong = format!("{python} | sed -u 's/^= 0$/= -22/'");
    ensure!(run(&wrong, &[]).is_err(), "a peer that sends nothing passed");
    // A peer that implements only RFC v2 passes the test of that part, and fails the others.
    let text = fs::read_to_string(out.join("share/peer.py"))?;
    let (both, one) = ("{1: Slots, 2: Native}", "{1: Slots}");
    ensure!(text.matches(both).count() == 1, "peer.py has no {both}");
    fs::write(out.join("old_peer.py"), text.replace(both, one))?;
    let old = format!("python3 '{}'", out.join("old_peer.py").display());
    run(&old, &["rfc-v2", "rfc-v2-exclusive"])?;
    for speaks in [&[][..], &["native"], &["native-long"], &["native-restart"], &["rfc-v2", "rfc-v3"]] {
        ensure!(run(&old, speaks).is_err(), "a peer without a native link passed {speaks:?}");
    }
    Ok(Some(format!("peer.py: {said}")))
}

/// Links the whole of each library, and checks that every function that the header declares exists, that only the symbols that
/// the header names are undefined, and that there is no panic path.
fn symbols(context: &Context, out: &Path) -> Result<String> {
    let header = fs::read_to_string(out.join("include/mk_ipi.h"))?;
    let functions = capi::declared(&header);
    ensure!(functions.len() > 40, "the header declares only {} functions", functions.len());
    for (name, library, needed) in [
        ("host", "lib/libmk_ipi.a", &DOCUMENTED[..]),
        ("bare", "lib/x86_64-unknown-none/libmk_ipi.a", &[][..]),
    ] {
        let whole = out.join(format!("whole-{name}.o"));
        let mut link = Command::new("ld");
        link.current_dir(&context.places.root).args(["-r", "--gc-sections", "-o"]).arg(&whole);
        link.args(functions.iter().flat_map(|f| ["-u", f.as_str()])).arg(out.join(library));
        cmd::run(&mut link)?;
        let object = fs::read(&whole)?;
        let found = no_panic::panic_symbols(&object)?;
        ensure!(found.is_empty(), "a panic path is in {library}:\n  {}", found.join("\n  "));
        let missing: Vec<_> =
            undefined(&object)?.into_iter().filter(|n| !needed.contains(&n.as_str())).collect();
        ensure!(missing.is_empty(), "{library} needs {}", missing.join(", "));
    }
    Ok(format!("{} functions, none undefined, no panic", functions.len()))
}

/// A library for a kernel with one CPU: checks that the C tests pass, that its storage is small, and that a program that was
/// built for other limits is refused.
fn limits(context: &Context, out: &Path) -> Result<String> {
    let places = context.places;
    let limits = Limits { cpus: Some(1), handlers: Some(16), instances: Some(16), ..Limits::default() };
    let folder = out.join("one-cpu");
    let (_, library) = capi::install_host(places, &folder, limits)?;
    let said = (limits.named().iter())
        .filter_map(|(name, limit)| Some(format!("-D{name}={}", (*limit)?)))
        .chain(["-DONE_CPU".to_owned()])
        .collect::<Vec<_>>();
    let said: Vec<_> = said.iter().map(String::as_str).collect();
    let usual = places.root.join(capi::PACKAGE).join("include");
    // With the library's own header; with the default header and the limits as macros; and with the default header alone.
    for (name, include, flags) in [
        ("own", folder.join("include"), &["-DONE_CPU"][..]),
        ("said", usual.clone(), &said[..]),
        ("other", usual, &["-DOTHER_LIMITS"][..]),
    ] {
        let program = folder.join(format!("limits-{name}"));
        let mut cc = capi::compiler(places, "cc", &include);
        cmd::run(cc.args(flags).arg("limits.c").arg(&library).arg("-o").arg(&program))?;
        cmd::run(&mut Command::new(&program))?;
    }
    let program = folder.join("mk_ipi_test");
    capi::compile_test(places, "cc", &["-DONE_CPU"], &folder.join("include"), &library, &program)?;
    Ok(format!("for one CPU: {}", capi::run_test(&program, None)?))
}

/// The undefined symbols of an object file.
fn undefined(object: &[u8]) -> Result<BTreeSet<String>> {
    let file = object::File::parse(object)?;
    let symbols = file.symbols().filter(|s| s.is_undefined()).filter_map(|s| s.name().ok());
    Ok(symbols.filter(|name| !name.is_empty()).map(ToOwned::to_owned).collect())
}

/// Links the least freestanding program: what it does not call is not in it.
fn small(context: &Context, out: &Path) -> Result<String> {
    let program = out.join("small.elf");
    let mut link = capi::compiler(context.places, "cc", &out.join("include"));
    link.args(["-O2", "-ffreestanding", "-fno-pic", "-no-pie", "-mno-red-zone", "-static", "-nostdlib"]);
    link.args(["-fno-stack-protector", "small.c", "-Wl,--gc-sections", "-Wl,--build-id=none"]);
    cmd::run(link.arg(out.join("lib/x86_64-unknown-none/libmk_ipi.a")).arg("-o").arg(&program))?;
    let elf = fs::read(&program)?;
    let file = object::File::parse(&*elf)?;
    let names: BTreeSet<_> = file.symbols().filter_map(|s| s.name().ok()).collect();
    for name in CALLED {
        ensure!(names.contains(name), "{C_TESTS}/small.c does not hold {name}");
    }
    for name in NOT_CALLED {
        ensure!(!names.contains(name), "{name} is in a program that does not call it");
    }
    let code = Command::new("size").arg(&program).stdin(Stdio::null()).output().context("size")?;
    let said = String::from_utf8_lossy(&code.stdout);
    let text = said.lines().nth(1).and_then(|l| l.split_whitespace().next()).unwrap_or("?");
    Ok(format!("a program that sends and receives: {text} bytes of code and constants"))
}
