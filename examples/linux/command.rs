// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is written to `/dev/mk_ipi`: one command a write, in words.
//!
//! | command | what it does |
//! | --- | --- |
//! | `give CPU...` | takes CPUs from Linux, which number them |
//! | `take CPU...` | gives them back |
//! | `create ID cpus=CPU[,CPU...] [pool=BYTES]` | makes an instance with a region |
//! | `start ID FILE [WORD...]` | starts the kernel in FILE there, with these words on its command line |
//! | `stop ID` | asks the kernel to stop (native), then stops its CPUs |
//! | `kill ID` | stops its CPUs at once |
//! | `destroy ID` | takes the instance away |
//! | `send ID TYPE TEXT` | sends a message |

use crate::callback::trace_sent;
use crate::failure::{check, refuse, Failure, Result, Text};
use crate::ffi;
use crate::host::{self, DEFAULT_POOL, MAX_INSTANCE_CPUS};
use crate::image::File;
use crate::platform::ENDPOINT;
use core::ffi::{c_char, c_int, CStr};
use core::fmt::Write;
use kernel::prelude::*;
use mk_ipi_core::abi::boot_param::parse_size;
use mk_ipi_core::abi::{InstanceId, MessageType};

/// Runs the command on one line; 0, or a negative error number.
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
        "give" => each_cpu(rest, host::Host::give, host::Host::take),
        "take" => each_cpu(rest, host::Host::take, host::Host::give),
        "create" | "start" | "stop" | "kill" | "destroy" | "send" => {
            let (id, rest) = split(rest);
            let id = instance(id)?;
            match (verb, rest) {
                ("create", _) => create(id, rest),
                ("start", _) => start(id, rest),
                ("send", _) => send(id, rest),
                ("stop", "") => stop(id),
                ("kill", "") => host::with(|host| host.kill(id)),
                ("destroy", "") => host::with(|host| host.destroy(id)),
                _ => refuse!(EINVAL, "{verb} takes an instance, and nothing else: {rest}"),
            }
        }
        _ => refuse!(EINVAL, "no such command: {verb}; give, take, create, start, stop, kill, destroy, send"),
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

/// One or more CPUs: all, or on an error none.
fn each_cpu(
    words: &str,
    act: fn(&mut host::Host, u32) -> Result,
    undo: fn(&mut host::Host, u32) -> Result,
) -> Result {
    if words.is_empty() {
        return refuse!(EINVAL, "which CPUs?");
    }
    words.split_ascii_whitespace().try_for_each(|word| cpu(word).map(drop))?;
    host::with(|host| {
        let cpus = || words.split_ascii_whitespace().filter_map(number);
        for (done, cpu) in cpus().enumerate() {
            if let Err(e) = act(host, cpu) {
                for cpu in cpus().take(done) {
                    // If that fails, the log says so.
                    let _ = undo(host, cpu);
                }
                return Err(e);
            }
        }
        Ok(())
    })
}

fn create(id: InstanceId, words: &str) -> Result {
    let (mut cpus, mut count, mut pool) = ([0u32; MAX_INSTANCE_CPUS], 0, DEFAULT_POOL);
    for word in words.split_ascii_whitespace() {
        match word.split_once('=') {
            Some(("cpus", list)) => {
                for name in list.split(',') {
                    let Some(place) = cpus.get_mut(count) else {
                        return refuse!(EINVAL, "more than {MAX_INSTANCE_CPUS} CPUs");
                    };
                    *place = cpu(name)?;
                    count += 1;
                }
            }
            Some(("pool", size)) => match parse_size(size.as_bytes()) {
                Ok(size) => pool = size,
                Err(e) => return refuse!(EINVAL, "{word}: {e:?}"),
            },
            _ => return refuse!(EINVAL, "neither cpus= nor pool=: {word}"),
        }
    }
    host::with(|host| host.create(id, cpus.get(..count).unwrap_or(&[]), pool))
}

fn start(id: InstanceId, rest: &str) -> Result {
    let (file, words) = split(rest);
    let mut path = Text::<256>::EMPTY;
    // A text never fails: it cuts, and then has no NUL.
    let _ = write!(path, "{file}\0");
    match CStr::from_bytes_with_nul(path.as_str().as_bytes()) {
        Ok(path) if !file.is_empty() => {
            // SAFETY: looks at the task that runs this.
            check(unsafe { ffi::mk_ipi_glue_may_start() }, format_args!("you may not start a kernel"))?;
            // Not under the host's lock: a slow medium holds up nobody else.
            let file = File::read(path)?;
            host::with(|host| host.start(id, &file, words))
        }
        _ => refuse!(EINVAL, "no usable file name: {file}"),
    }
}

fn stop(id: InstanceId) -> Result {
    if !host::with(|host| host.stop(id))? {
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
