// SPDX-License-Identifier: MIT OR Apache-2.0
//! [`boot`] and [`wait`]: the boot and the idle loop, which are the same for most kernels.

use crate::kernel::{EnterError, Kernel};
use crate::machine::{Machine, OpenError};
use mk_ipi_abi::boot_param::{mk_ipi_shared, BootParamError};
use mk_ipi_abi::{PhysCpuId, Vector};
use mk_ipi_core::platform::Observer;
use mk_ipi_core::{Endpoint, Handler, JoinError, Message};
use std::fs::File;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// The longest sleep of [`wait`], and the shortest time between two calls of `tick` in one `wait`.
const NAP: Duration = Duration::from_millis(20);
/// A peer whose heartbeat does not change for this many milliseconds is suspect.
const PATIENCE: u64 = 1_000;

/// The endpoint of a kernel that is a process, and so has one CPU.
pub type Link = Endpoint<Kernel, Callback, 1>;

/// A message handler that calls a closure.
#[derive(Clone)]
pub struct Callback(Arc<dyn Fn(&Message<'_>) + Send + Sync>);

impl core::fmt::Debug for Callback {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Callback")
    }
}

impl Callback {
    /// Makes a handler that calls `f`.
    pub fn new(f: impl Fn(&Message<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(f))
    }
}

impl Handler for Callback {
    fn handle(&self, message: &Message<'_>) {
        (self.0)(message);
    }
}

/// Why a process could not boot as a kernel.
#[derive(Debug)]
pub enum BootError {
    /// The file could not be opened as a machine.
    Open(OpenError),
    /// This process cannot be a kernel.
    Enter(EnterError),
    /// `None`: the command line has no `mk_ipi_shared=`. `Some`: the value of `mk_ipi_shared=` is invalid.
    CommandLine(Option<BootParamError>),
    /// The host has not created the directory yet.
    NoDirectory,
    /// `Endpoint::join` failed.
    Join(JoinError),
}

impl std::fmt::Display for BootError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open(e) => e.fmt(f),
            Self::Enter(e) => e.fmt(f),
            Self::CommandLine(None) => f.write_str("the command line has no mk_ipi_shared="),
            Self::CommandLine(Some(e)) => write!(f, "mk_ipi_shared=: {e}"),
            Self::NoDirectory => f.write_str("the host has not created the directory yet"),
            Self::Join(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for BootError {}

/// Boots this process as a kernel: enters the machine in `file` as `cpu`, makes an endpoint, and joins the other kernels. The
/// kernel is the instance whose region is at the `mk_ipi_shared=` of `command_line`.
///
/// # Errors
///
/// See [`BootError`].
pub fn boot(
    file: File,
    cpu: PhysCpuId,
    command_line: &str,
    observer: impl Observer + Send + Sync + 'static,
) -> Result<&'static Link, BootError> {
    let shared = mk_ipi_shared(command_line.as_bytes()).map_err(|e| BootError::CommandLine(Some(e)))?;
    let shared = shared.ok_or(BootError::CommandLine(None))?;
    let machine = Machine::open(file).map_err(BootError::Open)?;
    let kernel = Kernel::enter_with(machine, cpu, observer).map_err(BootError::Enter)?;
    // The endpoint must live as long as the process, because interrupts can come until the process ends.
    let link: &'static Link = Box::leak(Box::new(Link::new(kernel.clone())));
    kernel.set_vector(Vector::RFC_V2, || link.on_interrupt());
    let directory = kernel.machine().directory().ok_or(BootError::NoDirectory)?;
    link.join(shared, &directory).map_err(BootError::Join)?;
    Ok(link)
}

/// A kernel's idle loop. It sleeps until an interrupt comes, and runs the deferred work, which calls the message handlers.
/// Between sleeps it calls `tick`, and follows the directory. It returns true when `done` returns true, and false when the time
/// `at_most` has passed.
pub fn wait(link: &Link, at_most: Duration, done: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    let mut ticked: Option<Duration> = None;
    loop {
        if done() {
            return true;
        }
        let now = start.elapsed();
        if now >= at_most {
            return false;
        }
        if ticked.is_none_or(|last| now - last >= NAP) {
            ticked = Some(now);
            upkeep(link);
        }
        if link.platform().idle(NAP) {
            link.run_deferred();
        }
    }
}

/// Calls `tick`, and follows the directory.
fn upkeep(link: &Link) {
    // The times for `tick` must be of one clock. So all calls of `wait` use this one.
    static CLOCK: OnceLock<Instant> = OnceLock::new();
    let now = CLOCK.get_or_init(Instant::now).elapsed().as_millis();
    link.tick(u64::try_from(now).unwrap_or(u64::MAX), PATIENCE);
    if let Some(directory) = link.platform().machine().directory() {
        // After an error the next call of `upkeep` tries again.
        let _ = link.follow(&directory, |_, _| ());
    }
}
