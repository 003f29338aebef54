// SPDX-License-Identifier: MIT OR Apache-2.0
//! Traffic on order, to check that links work and how fast: debugfs `traffic`.
//!
//! `run MESSAGES PINGS ID...` is for the named kernels and this one. Each streams MESSAGES to every other one, all at
//! the same time. Then each plays PINGS rounds of ping-pong with each other one in turn. The kernels serve
//! (examples/bare-metal/src/order.rs). The write returns when the run is over. Then the file has two lines of JSON for
//! each direction, whatever the result. A kernel that is killed meanwhile drops out. If it is started anew at once, and
//! the links are native, its next life reports what it got: nothing may be lost.
//!
//! A Linux that another one started accepts `serve` instead.

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

/// True while a run is under way.
static BUSY: AtomicBool = AtomicBool::new(false);
/// Messages that are done, and messages that there will be, in all directions of this kernel.
static PROGRESS: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Takes messages from now on.
pub fn register() -> Result<Handlers> {
    Handlers::register(if role::is_joined() { &serve::HANDLERS } else { &[] })
}

/// This kernel's id.
fn me() -> InstanceId {
    ENDPOINT.identity().map_or(InstanceId::HOST, |(me, _)| me)
}

/// Most messages for each direction.
const MAX_MESSAGES: u64 = 1 << 32;

/// What was ordered.
#[derive(Clone, Copy)]
struct Plan {
    messages: u64,
    pings: u64,
    /// One bit for each kernel, this one's set.
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

/// Something happened to a peer.
pub fn on_event(id: InstanceId, event: PeerEvent) {
    inbox::on_event(id, event);
    deaths::on_event(id, event);
    serve::on_event(id, event);
}

/// Runs the traffic on one line. Returns 0, or a negative error number.
#[no_mangle]
extern "C" fn mk_ipi_rs_traffic(line: *const c_char, len: usize) -> c_int {
    // SAFETY: glue.c passes a copy of `len` bytes.
    let line = unsafe { core::slice::from_raw_parts(line.cast::<u8>(), len) };
    let line = core::str::from_utf8(line).ok();
    let done = match line.and_then(Plan::parse) {
        _ if role::is_joined() && line.map(str::trim) == Some("serve") => alone(serve::begin),
        _ if role::is_joined() => refuse!(EINVAL, "the host drives the traffic; this kernel takes: serve"),
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

fn alone(f: impl FnOnce() -> Result) -> Result {
    if BUSY.swap(true, Ordering::Acquire) {
        return refuse!(EBUSY, "a run is under way");
    }
    let done = f();
    BUSY.store(false, Ordering::Release);
    done
}

/// debugfs `traffic`: the progress of a run, or the result of the last one.
#[no_mangle]
extern "C" fn mk_ipi_rs_show_traffic(to: *mut c_void, _: *mut c_void) -> c_int {
    use core::fmt::Write;
    let mut to = crate::show::Seq(to);
    // It never fails.
    let _ = if BUSY.load(Ordering::Relaxed) {
        let [done, total] = &PROGRESS;
        let (done, total) = (done.load(Ordering::Relaxed), total.load(Ordering::Relaxed));
        writeln!(to, "{{\"progress\":{{\"kernel\":0,\"done\":{done},\"total\":{total}}}}}")
    } else {
        report::show(&mut to)
    };
    0
}
