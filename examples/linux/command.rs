// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands that are written to `/dev/mk_ipi`: each write is one command, in words.
//!
//! | command | what it does |
//! | --- | --- |
//! | `give CPU...` | takes CPUs from Linux; CPU is Linux's number of it |
//! | `take CPU...` | gives these CPUs back to Linux |
//! | `create ID cpus=CPU[,CPU...] [may=CPU[,CPU...]] [pool=BYTES]` | makes an instance with a region; `may`: CPUs that it can get later |
//! | `start ID FILE [initrd=FILE] [WORD...]` | starts the kernel in FILE on the instance, with these words on its command line |
//! | `check ID FILE [initrd=FILE] [WORD...]` | does all of that except the start, and undoes it |
//! | `give CPU... to=ID` | moves CPUs to a kernel that runs, also from Linux |
//! | `take CPU... from=ID` | moves them from that kernel back to Linux |
//! | `stop ID [SECONDS]` | asks the kernel to stop (native), waits up to SECONDS (10) for its goodbye, stops its CPUs |
//! | `kill ID` | stops its CPUs at once |
//! | `destroy ID` | removes the instance |
//! | `send ID TYPE TEXT` | sends a message |
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

/// How long a kernel is given to say goodbye, if the command does not say it. A Linux first ends its programs.
const STOP_SECONDS: u32 = 10;
/// The longest time that it can be given.
const MAX_STOP_SECONDS: u32 = 600;

/// Runs the command on one line. Returns 0, or a negative error number.
#[no_mangle]
extern "C" fn mk_ipi_rs_command(line: *const c_char, len: usize) -> c_int {
    // SAFETY: glue.c passes a NUL-terminated copy of `len` bytes.
    let line = unsafe { core::slice::from_raw_parts(line.cast::<u8>(), len) };
    let done = match core::str::from_utf8(line) {
        Ok(line) if !line.contains('\0') => run(line.trim()),
        _ => refuse!(EINVAL, "a command is text"),
    };
    match done {
        Ok(()) => 0,
        Err(e) => e.to_c(),
    }
}

/// A number, decimal or after `0x` hexadecimal.
fn number(word: &str) -> Option<u32> {
    match word.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => word.parse().ok(),
    }
}

/// The first word, and the rest.
fn split(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((text, ""));
    (word, rest.trim_start())
}

fn run(line: &str) -> Result {
    let (verb, rest) = split(line);
    match verb {
        "send" => {}
        _ if role::is_joined() => return refuse!(EPERM, "another kernel is the host; this one takes: send"),
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
                _ => refuse!(EINVAL, "{verb} takes an instance, and nothing else: {rest}"),
            }
        }
        _ => refuse!(
            EINVAL,
            "no such command: {verb}; give, take, create, start, check, stop, kill, destroy, send"
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

/// Does it for one or more CPUs: for all, or on an error for none.
fn each_cpu(words: &str, act: impl Fn(u32) -> Result, undo: impl Fn(u32) -> Result) -> Result {
    if words.trim().is_empty() {
        return refuse!(EINVAL, "which CPUs?");
    }
    words.split_ascii_whitespace().try_for_each(|word| cpu(word).map(drop))?;
    let cpus = || words.split_ascii_whitespace().filter_map(number);
    for (done, cpu) in cpus().enumerate() {
        if let Err(e) = act(cpu) {
            for cpu in cpus().take(done) {
                // If that fails, the log says so.
                let _ = undo(cpu);
            }
            return Err(e);
        }
    }
    Ok(())
}

/// CPUs, separated by commas.
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
            _ => return refuse!(EINVAL, "none of cpus=, may=, pool=: {word}"),
        }
    }
    host::with(|host| host.create(id, &cpus, &may, pool))
}

/// What a kernel is started from.
fn with_files(
    id: InstanceId,
    rest: &str,
    act: fn(&mut host::Host, InstanceId, &host::Files<'_>) -> Result,
) -> Result {
    // SAFETY: it looks at the task that runs this.
    check(unsafe { ffi::mk_ipi_glue_may_start() }, format_args!("you may not start a kernel"))?;
    let (image, rest) = split(rest);
    let (first, others) = split(rest);
    let (initrd, words) = match first.strip_prefix("initrd=") {
        Some(path) => (Some(path), others),
        None => (None, rest),
    };
    // The host's lock is not held here: a slow medium delays no one else.
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
        return refuse!(EINVAL, "stop takes an instance, and at most {MAX_STOP_SECONDS} seconds");
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
