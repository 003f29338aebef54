// SPDX-License-Identifier: MIT OR Apache-2.0
//! QEMU's monitor, by its machine protocol (QMP): one command, one answer, a line of JSON each.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{bail, Context, Result};
use serde_json::{json, Value};

/// A dump of all memory takes some seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// A socket at which QEMU listens. It is removed when this is dropped.
pub struct Socket(PathBuf);

impl Socket {
    /// Makes the machine that `cmd` starts listen at a socket of its own.
    pub fn of(cmd: &mut Command) -> Self {
        // Not in the target folder, whose path may be too long for a socket.
        let path = std::env::temp_dir().join(format!("mk-ipi-qmp-{}", std::process::id()));
        // If a killed run left a socket at this path, QEMU could not make its own.
        let _ = std::fs::remove_file(&path);
        let place = path.display().to_string().replace(',', ",,");
        cmd.arg("-qmp").arg(format!("unix:{place},server=on,wait=off"));
        Self(path)
    }

    /// Connects to the machine.
    pub fn connect(&self) -> Result<Monitor> {
        Monitor::connect(&self.0)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // QEMU may have removed it.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A machine's monitor.
pub struct Monitor(BufReader<UnixStream>);

impl Monitor {
    fn connect(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path).context("QEMU's monitor")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut monitor = Self(BufReader::new(stream));
        // Its greeting.
        monitor.line()?;
        monitor.run("qmp_capabilities", json!({}))?;
        Ok(monitor)
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.0.read_line(&mut line).context("QEMU's monitor does not answer")? == 0 {
            bail!("QEMU's monitor closed the connection");
        }
        serde_json::from_str(&line).with_context(|| format!("QEMU's monitor said {line}"))
    }

    /// Runs a command, and returns its answer. Events that come meanwhile are skipped.
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
