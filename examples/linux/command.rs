// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands of `/dev/mk_ipi`. Each write is one command: words, separated by spaces.
//!
//! | command | what it does |
//! | --- | --- |
//! | `give CPU...` | puts these CPUs offline, so that instances can use them; CPU is Linux's number of the CPU |
//! | `take CPU...` | gives these CPUs back to Linux |
//! | `create ID cpus=CPU[,CPU...] [may=CPU[,CPU...]] [pool=BYTES]` | makes instance ID with a pool and a region; `may=` names CPUs that it can get later |
//! | `start ID FILE [initrd=FILE] [WORD...]` | starts the kernel in FILE on instance ID; WORD is put on the command line of the kernel |
//! | `check ID FILE [initrd=FILE] [WORD...]` | prepares such a start, and says whether it is possible; does not start the kernel |
//! | `give CPU... to=ID` | moves CPUs to the kernel of instance ID, which runs; takes them from Linux first, if Linux uses them |
//! | `take CPU... from=ID` | moves CPUs from the kernel of instance ID, which runs, to Linux |
//! | `stop ID [SECONDS]` | asks the kernel to stop (native link only), waits up to SECONDS (default 10) for its goodbye, then stops its CPUs |
//! | `kill ID` | stops the CPUs of the instance at once |
//! | `destroy ID` | removes the instance, whose kernel must not run |
//! | `send ID TYPE TEXT` | sends TEXT as a message of type TYPE to instance ID |
//!
//! A Linux that another kernel started accepts only `send`.

use crate::callback::trace_sent;
use crate::failure::{check, refuse, Failure, Result};
use crate::file::File;
use crate::host::{self, CpuList, DEFAULT_POOL, MAX_INSTANCE_CPUS};
use crate::platform::ENDPOINT;
use crate::{ffi, role};
use core::ffi::{c_char, c_int};
use kernel::prelude::*;
use mk_ipi_core::abi::boot_param::parse_size;
use mk_ipi_core::abi::{InstanceId, MessageType};
use mk_ipi_x86::Microseconds;

/// How many seconds `stop` waits for the kernel's goodbye, if the command does not name a time. In this time a Linux must
/// end its programs, and say goodbye.
const STOP_SECONDS: u32 = 10;
/// The longest time that the command `stop` accepts, in seconds.
const MAX_STOP_SECONDS: u32 = 600;

/// Runs the command on one line. Returns 0, or a negative error number.
#[no_mangle]
extern "C" fn mk_ipi_rs_command(line: *const c_char, len: usize) -> c_int {
    // SAFETY: glue.c passes a NUL-terminated copy of `len` bytes.
    let line = unsafe { core::slice::from_raw_parts(line.cast::<u8>(), len) };
    let done = match core::str::from_utf8(line) {
        Ok(line) if !line.contains('\0') => run(line.trim()),
        _ => refuse!(EINVAL, "a command must be UTF-8 text without NUL"),
    };
    match done {
        Ok(()) => 0,
        Err(e) => e.to_c(),
    }
}

/// Parses a decimal number, or a hexadecimal number that begins with `0x`.
fn number(word: &str) -> Option<u32> {
    match word.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => word.parse().ok(),
    }
}

/// Splits `text` into its first word and the rest.
fn split(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((text, ""));
    (word, rest.trim_start())
}

fn run(line: &str) -> Result {
    let (verb, rest) = split(line);
    match verb {
        "send" => {}
        _ if role::is_joined() => {
            return refuse!(EPERM, "another kernel is the host; this kernel accepts only the command send")
        }
        _ => {}
    }
    match verb {
        "give" => match rest.rsplit_once("to=") {
            Some((cpus, id)) => with_instance(cpus, id, host::give_to, host::take_from),
            None => each_cpu(rest, host::give, host::take),
        },
        "take" => match rest.rsplit_once("from=") {
            Some((cpus, id)) => with_instance(cpus, id, host::take_from, host::give_to),
            None => each_cpu(rest, host::take, host::give),
        },
        "create" | "start" | "check" | "stop" | "kill" | "destroy" | "send" => {
            let (id, rest) = split(rest);
            let id = instance(id)?;
            match (verb, rest) {
                ("create", _) => create(id, rest),
                ("start", _) => with_files(id, rest, host::Host::start),
                ("check", _) => with_files(id, rest, host::Host::check_start),
                ("send", _) => send(id, rest),
                ("stop", _) => stop(id, rest),
                ("kill", "") => host::with(|host| host.kill(id)),
                ("destroy", "") => host::with(|host| host.destroy(id)),
                _ => refuse!(EINVAL, "{verb} takes only the number of an instance; there is more: {rest}"),
            }
        }
        _ => refuse!(
            EINVAL,
            "no such command: {verb}; the commands are give, take, create, start, check, stop, kill, destroy, send"
        ),
    }
}

fn instance(word: &str) -> Result<InstanceId> {
    match number(word).and_then(|n| u8::try_from(n).ok()) {
        Some(id) => Ok(InstanceId::new(id)),
        None => refuse!(EINVAL, "not an instance: {word}"),
    }
}

fn cpu(word: &str) -> Result<u32> {
    number(word).map_or_else(|| refuse!(EINVAL, "not a CPU: {word}"), Ok)
}

/// Moves CPUs to or from a kernel that runs.
fn with_instance(
    words: &str,
    id: &str,
    act: fn(InstanceId, u32) -> Result,
    undo: fn(InstanceId, u32) -> Result,
) -> Result {
    let id = instance(id.trim())?;
    each_cpu(words, |cpu| act(id, cpu), |cpu| undo(id, cpu))
}

/// Calls `act` for each CPU that `words` names. If one call fails, calls `undo` for the CPUs before it, and returns the
/// error.
fn each_cpu(words: &str, act: impl Fn(u32) -> Result, undo: impl Fn(u32) -> Result) -> Result {
    if words.trim().is_empty() {
        return refuse!(EINVAL, "no CPU is named");
    }
    words.split_ascii_whitespace().try_for_each(|word| cpu(word).map(drop))?;
    let cpus = || words.split_ascii_whitespace().filter_map(number);
    for (done, cpu) in cpus().enumerate() {
        if let Err(e) = act(cpu) {
            for cpu in cpus().take(done) {
                // If `undo` fails, the log says so.
                let _ = undo(cpu);
            }
            return Err(e);
        }
    }
    Ok(())
}

/// Parses numbers of CPUs, separated by commas.
fn list(words: &str) -> Result<CpuList> {
    let mut cpus = CpuList::NONE;
    for name in words.split(',') {
        if !cpus.add(cpu(name)?) {
            return refuse!(EINVAL, "more than {MAX_INSTANCE_CPUS} CPUs");
        }
    }
    Ok(cpus)
}

fn create(id: InstanceId, words: &str) -> Result {
    let (mut cpus, mut may, mut pool) = (CpuList::NONE, CpuList::NONE, DEFAULT_POOL);
    for word in words.split_ascii_whitespace() {
        match word.split_once('=') {
            Some(("cpus", names)) => cpus = list(names)?,
            Some(("may", names)) => may = list(names)?,
            Some(("pool", size)) => match parse_size(size.as_bytes()) {
                Ok(size) => pool = size,
                Err(e) => return refuse!(EINVAL, "{word}: {e:?}"),
            },
            _ => return refuse!(EINVAL, "create takes only cpus=, may= and pool=, not {word}"),
        }
    }
    host::with(|host| host.create(id, &cpus, &may, pool))
}

/// Reads the image and the initramfs that the command names, and calls `act` with them.
fn with_files(
    id: InstanceId,
    rest: &str,
    act: fn(&mut host::Host, InstanceId, &host::Files<'_>) -> Result,
) -> Result {
    // SAFETY: it only reads the rights of the current task.
    check(unsafe { ffi::mk_ipi_glue_may_start() }, format_args!("this task may not start a kernel"))?;
    let (image, rest) = split(rest);
    let (first, others) = split(rest);
    let (initrd, words) = match first.strip_prefix("initrd=") {
        Some(path) => (Some(path), others),
        None => (None, rest),
    };
    // The host's lock is not held while the files are read, so a slow disk does not delay other commands.
    let image = File::image(image)?;
    let initrd = initrd.map(File::initrd).transpose()?;
    host::with(|host| act(host, id, &host::Files { image: &image, initrd: initrd.as_ref(), words }))
}

fn stop(id: InstanceId, seconds: &str) -> Result {
    let seconds = match seconds {
        "" => Some(STOP_SECONDS),
        seconds => number(seconds).filter(|s| *s <= MAX_STOP_SECONDS),
    };
    let Some(seconds) = seconds else {
        return refuse!(
            EINVAL,
            "stop takes the number of an instance and a time of at most {MAX_STOP_SECONDS} seconds"
        );
    };
    if !host::stop(id, Microseconds(seconds * 1_000_000))? {
        pr_info!("instance {} was stopped without its goodbye\n", id.get());
    }
    Ok(())
}

fn send(id: InstanceId, rest: &str) -> Result {
    let (ty, text) = split(rest);
    let Some(ty) = number(ty) else { return refuse!(EINVAL, "not a message type: {ty}") };
    let sent = ENDPOINT.send(id, MessageType(ty), text.as_bytes());
    trace_sent(id.get(), ty, text.len(), sent.map_or_else(|e| e.errno().to_c(), |_| 0));
    sent.map(drop)
        .map_err(|e| Failure::new(e.errno(), format_args!("nothing sent to instance {}: {e:?}", id.get())))
}
