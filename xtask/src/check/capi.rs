// SPDX-License-Identifier: MIT OR Apache-2.0
//! The step `capi`: checks the library for C. The header must compile with each compiler, the C tests must pass, a program must
//! contain only the functions that it calls, and the library must need only the symbols that the header names.

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

/// The undefined symbols that the library for this machine can have. The header names all of them except `bcmp`, which compilers
/// use for comparisons.
const DOCUMENTED: [&str; 5] = ["memcpy", "memset", "memcmp", "memmove", "bcmp"];
/// The compiler flags for a program with sanitizers.
const SANITIZED: [&str; 2] = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
/// Functions that `small.c` calls.
const CALLED: [&str; 3] = ["mk_ipi_init", "mk_ipi_send", "mk_ipi_run_deferred"];
/// Some functions that `small.c` does not call.
const NOT_CALLED: [&str; 5] = [
    "mk_ipi_join",
    "mk_ipi_directory_create",
    "mk_ipi_create_instance",
    "multikernel_send_ipi_data",
    "mk_ipi_boot_shared",
];

/// Runs the step. Returns notes with the results of the tests.
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

/// Returns the pairs of a C and a C++ compiler that are installed. In CI it is an error if gcc or clang is missing. Elsewhere one
/// of them is enough.
fn compilers(ci: bool) -> Result<Vec<(&'static str, &'static str)>> {
    let mut found = Vec::new();
    for (cc, cxx) in [("gcc", "g++"), ("clang", "clang++")] {
        match cmd::which(cc).and(cmd::which(cxx)) {
            Some(_) => found.push((cc, cxx)),
            None if ci => bail!("there is no {cc} or no {cxx}"),
            None => eprintln!("{cc} or {cxx} is missing, so neither of them is used"),
        }
    }
    ensure!(!found.is_empty(), "there is neither gcc nor clang");
    Ok(found)
}

/// Programs that include the header, and the compiler flags for each. They are: freestanding C11 and C99; C++; C99 without the
/// compiler's own headers; C11 with types that a kernel defines; and C99 in which the caller defines the macros of the Linux
/// patches itself, before or after the header.
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
/// A program that includes both headers, and one of them twice.
const INCLUDES: &str = "#include <mk_ipi.h>\n#include <mk_ipi_peer.h>\n#include <mk_ipi.h>\n";
/// The integer types as Linux defines them. They have the same sizes as the compiler's own types with these names, but some of
/// them are different C types.
const TYPES_OF_A_KERNEL: &str =
    "typedef unsigned long size_t;\ntypedef unsigned char uint8_t;\ntypedef unsigned int uint32_t;\n\
                                 typedef unsigned long long uint64_t;\ntypedef signed long long int64_t;\n";

/// Compiles the programs of [`HEADER_TESTS`].
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
    // If the caller has defined a macro of the Linux patches with another value, the header must not compile.
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
    ensure!(!wrong.status()?.success(), "the header compiles with {cc} although MK_MAX_DATA_SIZE is 128");
    Ok(())
}

/// Compiles the kernel in C with this compiler. The step `demo-qemu` runs it.
fn kernel(context: &Context, (cc, _): (&str, &str), out: &Path) -> Result<()> {
    let library = out.join("lib").join(BARE_TARGET).join("libmk_ipi.a");
    image::compile_c(context.places, cc, 0x0200_0000, &library, &out.join(format!("kernel-{cc}.elf")))
}

/// Compiles and runs the two kernels in C that the book shows. Checks that the host receives what the other kernel sends back.
/// The other kernel must compile although no header except ours can be found.
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
    ensure!(said.lines().eq(wanted), "{} printed {said:?}, not {wanted:?}", capi::FIRST_KERNEL);
    Ok(())
}

/// Returns whether the compiler has the libraries for sanitizers. gcc must have them. On Debian clang does not have them.
fn sanitizes(cc: &str, out: &Path) -> Result<bool> {
    let source = out.join("nothing.c");
    fs::write(&source, "int main(void) { return 0; }\n")?;
    let mut cmd = Command::new(cc);
    cmd.args(SANITIZED).arg(&source).arg("-o").arg(out.join("nothing")).stderr(Stdio::null());
    let links = cmd.status().with_context(|| cc.to_owned())?.success();
    ensure!(links || cc != "gcc", "gcc cannot link a program with sanitizers");
    Ok(links)
}

/// Runs the C tests without and with sanitizers. Each time the tests are also run with two peers in shared objects: one that uses
/// our library, and one that was written from SPEC.md only.
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
            notes.push(format!("{cc}, sanitized: not run: the libraries for sanitizers are not installed"));
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

/// Runs the test program with a peer in Python, which gets each call through its stdin, and answers through its stdout. This peer
/// must pass. A peer that sends nothing must fail. A peer without the native link must pass the parts about RFC v2, and fail the
/// others.
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

/// From each library, links all functions that the header declares. All of these must exist. Only the symbols that the header
/// allows can be undefined, and there must be no panic path.
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
        ensure!(found.is_empty(), "{library} has a panic path:\n  {}", found.join("\n  "));
        let missing: Vec<_> =
            undefined(&object)?.into_iter().filter(|n| !needed.contains(&n.as_str())).collect();
        ensure!(
            missing.is_empty(),
            "{library} needs symbols that the header does not name: {}",
            missing.join(", ")
        );
    }
    Ok(format!("{} functions, none is undefined, none can panic", functions.len()))
}

/// Builds a library for a kernel with one CPU. The C tests must pass with it, and its structure must be small. A program that was
/// built for other limits must be refused.
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
    // Three headers are tried: a header with the limits of the library; the default header, with these limits as macros; and the
    // default header without these macros. With the last one, the library must refuse the program.
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

/// Returns the names of the undefined symbols of an object file.
fn undefined(object: &[u8]) -> Result<BTreeSet<String>> {
    let file = object::File::parse(object)?;
    let symbols = file.symbols().filter(|s| s.is_undefined()).filter_map(|s| s.name().ok());
    Ok(symbols.filter(|name| !name.is_empty()).map(ToOwned::to_owned).collect())
}

/// Links a small freestanding program. It must contain the functions that it calls, and no other functions of the library.
/// Returns a note with its size.
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
        ensure!(names.contains(name), "the program of {C_TESTS}/small.c does not contain {name}");
    }
    for name in NOT_CALLED {
        ensure!(
            !names.contains(name),
            "the program of {C_TESTS}/small.c contains {name}, which it does not call"
        );
    }
    let code = Command::new("size").arg(&program).stdin(Stdio::null()).output().context("size")?;
    let said = String::from_utf8_lossy(&code.stdout);
    let text = said.lines().nth(1).and_then(|l| l.split_whitespace().next()).unwrap_or("?");
    Ok(format!("a program that sends and receives: {text} bytes of code and constants"))
}
