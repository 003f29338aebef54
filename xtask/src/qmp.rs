// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client of QEMU's monitor, which speaks QEMU's machine protocol (QMP). Each command and each answer is one line of JSON.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{bail, Context, Result};
use serde_json::{json, Value};

/// The time limit for an answer. A dump of all memory takes some seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// The path of a socket at which QEMU's monitor listens. When this value is dropped, the socket is removed.
pub struct Socket(PathBuf);

impl Socket {
    /// Adds an option to the command that starts QEMU, so that the monitor listens at a socket. Returns this socket.
    pub fn of(cmd: &mut Command) -> Self {
        // The target folder is not used, because its path can be too long for a socket.
        let path = std::env::temp_dir().join(format!("mk-ipi-qmp-{}", std::process::id()));
        // A run that was killed may have left a socket at this path. Then QEMU could not make its own.
        let _ = std::fs::remove_file(&path);
        let place = path.display().to_string().replace(',', ",,");
        cmd.arg("-qmp").arg(format!("unix:{place},server=on,wait=off"));
        Self(path)
    }

    /// Connects to the monitor. QEMU must run.
    pub fn connect(&self) -> Result<Monitor> {
        Monitor::connect(&self.0)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // This fails if QEMU has already removed the socket, which does no harm.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A connection to the monitor of a machine.
pub struct Monitor(BufReader<UnixStream>);

impl Monitor {
    fn connect(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path).context("cannot connect to QEMU's monitor")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut monitor = Self(BufReader::new(stream));
        // The first line is QEMU's greeting.
        monitor.line()?;
        monitor.run("qmp_capabilities", json!({}))?;
        Ok(monitor)
    }

    /// Reads a line.
    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.0.read_line(&mut line).context("QEMU's monitor does not answer")? == 0 {
            bail!("QEMU's monitor closed the connection");
        }
        serde_json::from_str(&line).with_context(|| format!("QEMU's monitor sent invalid JSON: {line}"))
    }

    /// Runs a command, and returns its result. Events that come before the answer are skipped.
    pub fn run(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let line = json!({ "execute": command, "arguments": arguments }).to_string();
        writeln!(self.0.get_mut(), "{line}")?;
        loop {
            let answer = self.line()?;
            if let Some(error) = answer.get("error") {
                bail!("QEMU's monitor refuses {command}: {error}");
            }
            if let Some(done) = answer.get("return") {
                return Ok(done.clone());
            }
        }
    }
}
