// SPDX-License-Identifier: MIT OR Apache-2.0
//! The traffic test: the file `traffic` in debugfs. It checks that the links work, and measures how fast they are.
//!
//! Writing `run MESSAGES PINGS ID...` starts a run between this kernel and the kernels ID. Each kernel sends MESSAGES
//! messages to each other kernel, all at the same time. This is a stream. Then each pair of kernels does PINGS round trips
//! in each direction, one pair after the other. The other kernels must run in serve mode
//! (examples/bare-metal/src/order.rs). The write returns at the end of the run. After that, the file contains two lines
//! of JSON for each direction, or one line if the sender was killed. It contains them also if messages were lost.
//!
//! If a kernel is killed during the run, the run continues without it. If it is started again at once, and the links are
//! native, its next life reports the messages that it received, and none may be lost.
//!
//! A Linux that another kernel started does not accept `run`. It accepts `serve`, which starts serve mode.

mod deaths;
mod drive;
mod inbox;
mod report;
mod serve;

pub use deaths::on_death;
pub use inbox::{peer_restarts, Handlers};
pub use serve::end as end_service;

use crate::failure::{refuse, Result};
use crate::peers::MAX_INSTANCES;
use crate::platform::ENDPOINT;
use crate::role;
use core::ffi::{c_char, c_int, c_void};
use mk_ipi_core::abi::InstanceId;
use mk_ipi_core::platform::PeerEvent;
use mk_ipi_core::sync::{AtomicBool, AtomicU64, Ordering};

/// True during a run, and while serve mode is being started.
static BUSY: AtomicBool = AtomicBool::new(false);
/// How many messages this kernel has sent and received in this run, and how many it will have sent and received at the
/// end.
static PROGRESS: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Registers the handlers of the test's messages.
pub fn register() -> Result<Handlers> {
    Handlers::register(if role::is_joined() { &serve::HANDLERS } else { &[] })
}

/// This kernel's id.
fn me() -> InstanceId {
    ENDPOINT.identity().map_or(InstanceId::HOST, |(me, _)| me)
}

/// The largest number of messages of one stream.
const MAX_MESSAGES: u64 = 1 << 32;

/// The arguments of `run`.
#[derive(Clone, Copy)]
struct Plan {
    messages: u64,
    pings: u64,
    /// The kernels of the run: the bit of each one is set. This kernel's bit is always set.
    kernels: u32,
}

impl Plan {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some("run") {
            return None;
        }
        let (messages, pings) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let mut kernels = 1u32;
        for word in words {
            let id: usize = word.parse().ok().filter(|id| (1..MAX_INSTANCES).contains(id))?;
            kernels |= 1 << id;
        }
        let count = kernels.count_ones() as usize;
        let sane = (2..=report::MAX_KERNELS).contains(&count)
            && messages <= MAX_MESSAGES
            && pings <= crate::order::MAX_PINGS;
        sane.then_some(Self { messages, pings, kernels })
    }

    /// All kernels, including this one.
    fn kernels(&self) -> impl Iterator<Item = InstanceId> + Clone {
        let kernels = self.kernels;
        (0..MAX_INSTANCES as u8).filter(move |id| kernels & 1 << id != 0).map(InstanceId::new)
    }

    /// All kernels except this one.
    fn others(&self) -> impl Iterator<Item = InstanceId> + Clone {
        self.kernels().filter(|id| *id != InstanceId::HOST)
    }
}

/// Called for each event of a peer.
pub fn on_event(id: InstanceId, event: PeerEvent) {
    inbox::on_event(id, event);
    deaths::on_event(id, event);
    serve::on_event(id, event);
}

/// Runs the command in `line`, which was written to the file `traffic`. Returns 0, or a negative error number.
#[no_mangle]
extern "C" fn mk_ipi_rs_traffic(line: *const c_char, len: usize) -> c_int {
    // SAFETY: glue.c passes a copy of `len` bytes.
    let line = unsafe { core::slice::from_raw_parts(line.cast::<u8>(), len) };
    let line = core::str::from_utf8(line).ok();
    let done = match line.and_then(Plan::parse) {
        _ if role::is_joined() && line.map(str::trim) == Some("serve") => alone(serve::begin),
        _ if role::is_joined() => {
            refuse!(EINVAL, "only the host can run the traffic test; this kernel accepts only serve")
        }
        Some(plan) => alone(|| drive::run(&plan)),
        None => refuse!(
            EINVAL,
            "traffic takes: run MESSAGES PINGS ID..., at most {MAX_MESSAGES} messages, {} pings, {} IDs",
            crate::order::MAX_PINGS,
            report::MAX_KERNELS - 1
        ),
    };
    match done {
        Ok(()) => 0,
        Err(e) => e.to_c(),
    }
}

/// Calls `f`, unless another call of `alone` is in progress.
fn alone(f: impl FnOnce() -> Result) -> Result {
    if BUSY.swap(true, Ordering::Acquire) {
        return refuse!(EBUSY, "another run is in progress");
    }
    let done = f();
    BUSY.store(false, Ordering::Release);
    done
}

/// Writes the content of the file `traffic`: the progress of the run, or the results of the last run.
#[no_mangle]
extern "C" fn mk_ipi_rs_show_traffic(to: *mut c_void, _: *mut c_void) -> c_int {
    use core::fmt::Write;
    let mut to = crate::show::Seq(to);
    // Writing to a `Seq` never fails.
    let _ = if BUSY.load(Ordering::Relaxed) {
        let [done, total] = &PROGRESS;
        let (done, total) = (done.load(Ordering::Relaxed), total.load(Ordering::Relaxed));
        writeln!(to, "{{\"progress\":{{\"kernel\":0,\"done\":{done},\"total\":{total}}}}}")
    } else {
        report::show(&mut to)
    };
    0
}
