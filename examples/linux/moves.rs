// SPDX-License-Identifier: MIT OR Apache-2.0
//! CPUs that move by messages (SPEC chapter M): the host asks, and waits; a kernel that it started does as asked, and answers.

use crate::callback::Callback;
use crate::failure::{failure, refuse, Result};
use crate::platform::{Linux, ENDPOINT};
use crate::{cpus, ffi, listed, peers, role, start, vector};
use kernel::prelude::*;
use mk_ipi_core::abi::cpu_move::{CpuMove, What, CPU_MOVE_TYPE};
use mk_ipi_core::abi::{Errno, Incarnation, InstanceId, PhysCpuId};
use mk_ipi_core::platform::LocalInterrupts;
use mk_ipi_core::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use mk_ipi_core::{Handle, Message};
use mk_ipi_x86::Microseconds;

/// How long the host waits for an answer: programs are moved off the CPU first.
const ANSWER: Microseconds = Microseconds(20_000_000);

/// How long one waits for room in a lane.
const ROOM: Microseconds = Microseconds(5_000_000);

/// The host's last request: its number, and whom it asked. One at a time, under the host's lock.
static REQUEST: AtomicU32 = AtomicU32::new(0);
static ASKED: AtomicU32 = AtomicU32::new(0);
/// The answer to it: bit 63 is set once it is there; bits 31..0 the error number, 0 for none.
static ANSWERED: AtomicU64 = AtomicU64::new(0);
const IS_THERE: u64 = 1 << 63;

/// What the host asked of us last, and is not done yet: the payload's words. Written in interrupt context, read by the errand.
static WANTED: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
static IS_WANTED: AtomicBool = AtomicBool::new(false);

/// Has the life of `id` do `what` with `cpu`, and waits until it has.
pub fn ask(id: InstanceId, life: Incarnation, what: What, cpu: PhysCpuId) -> Result {
    let request = REQUEST.load(Ordering::Relaxed).wrapping_add(1);
    ASKED.store(id.get().into(), Ordering::Relaxed);
    ANSWERED.store(0, Ordering::Relaxed);
    REQUEST.store(request, Ordering::Release);
    send(id, &CpuMove { what, request, cpu })?;
    let answer = || ANSWERED.load(Ordering::Acquire);
    start::wait_until(ANSWER, || answer() != 0 || peers::is_gone(id, life));
    match (answer(), answer() & !IS_THERE) {
        (0, _) => refuse!(ETIMEDOUT, "instance {} does not answer about CPU {}", id.get(), cpu.0),
        (_, 0) => Ok(()),
        (_, errno) => {
            refuse!(EBUSY, "instance {} refuses {what:?} of CPU {}: error {errno}", id.get(), cpu.0)
        }
    }
}

/// Sends, and waits for room: a lane may be full of others' messages.
fn send(to: InstanceId, said: &CpuMove) -> Result {
    let (payload, mut result) = (said.encode(), Ok(()));
    start::wait_until(ROOM, || {
        result = ENDPOINT.send(to, CPU_MOVE_TYPE, &payload).map(drop);
        !matches!(result, Err(e) if e.is_transient())
    });
    result.map_err(|e| failure!(EIO, "instance {} is not told of CPU {}: {e:?}", to.get(), said.cpu.0))
}

fn on_move(message: &Message<'_>) {
    let (Some(sender), Ok(said)) = (message.sender(), CpuMove::decode(message.payload())) else { return };
    let errno = match said.what {
        What::Done => 0,
        What::Refused(errno) => errno.0.unsigned_abs(),
        What::GiveUp | What::Use => {
            if role::is_joined() && sender == InstanceId::HOST {
                want(&said);
            }
            return;
        }
    };
    let is_answer = said.request == REQUEST.load(Ordering::Acquire);
    if is_answer && u32::from(sender.get()) == ASKED.load(Ordering::Relaxed) {
        ANSWERED.store(IS_THERE | u64::from(errno), Ordering::Release);
    }
}

/// Has the errand do what the host wants. Whatever it wanted before, it has given up waiting for.
fn want(said: &CpuMove) {
    let is_use = u64::from(said.what == What::Use);
    let [request, cpu] = &WANTED;
    IS_WANTED.store(false, Ordering::Relaxed);
    request.store(u64::from(said.request) << 1 | is_use, Ordering::Relaxed);
    cpu.store(said.cpu.0, Ordering::Relaxed);
    IS_WANTED.store(true, Ordering::Release);
    // SAFETY: `start_work` has made it.
    unsafe { ffi::mk_ipi_glue_queue_errand() };
}

/// Does what the host wants, if it wants something: process context.
pub fn run_errand() {
    // Handlers run on this CPU, the doorbell's: with interrupts off no request comes in between.
    let interrupts = Linux.disable();
    let is_wanted = IS_WANTED.swap(false, Ordering::Acquire);
    let [request, cpu] = WANTED.each_ref().map(|word| word.load(Ordering::Relaxed));
    Linux.restore(interrupts);
    if !is_wanted {
        return;
    }
    let (is_use, request, cpu) = (request & 1 != 0, (request >> 1) as u32, PhysCpuId(cpu));
    let done = if is_use { use_one(cpu) } else { give_up(cpu) };
    let what = done.map_or_else(|e| What::Refused(Errno(e.to_c().saturating_neg())), |()| What::Done);
    let answer = CpuMove { what, request, cpu };
    // If that fails, the log says so.
    let _ = send(InstanceId::HOST, &answer);
}

fn give_up(cpu: PhysCpuId) -> Result {
    let Some(number) = cpus::number_of(cpu) else { return Ok(()) };
    if cpus::is_given(number) {
        return Ok(());
    }
    if number == vector::DOORBELL_CPU {
        return refuse!(EBUSY, "the doorbell is at CPU {number}");
    }
    cpus::give(number)
}

fn use_one(cpu: PhysCpuId) -> Result {
    let me = ENDPOINT.identity().map(|(me, _)| me);
    if me.and_then(|me| listed::lists_cpu(me, cpu)) != Some(true) {
        return refuse!(EACCES, "the directory does not list CPU {} as ours", cpu.0);
    }
    match cpus::number_of(cpu) {
        Some(number) => cpus::use_one(number),
        None => refuse!(ENXIO, "this kernel was not told of CPU {} at its start", cpu.0),
    }
}

/// The handler of these messages; dropping it ends it.
pub struct Moves(Handle);

impl Moves {
    /// From now on they are taken.
    pub fn register() -> Result<Self> {
        let handle = ENDPOINT.register(CPU_MOVE_TYPE, Callback::Rust(on_move));
        Ok(Self(handle.map_err(|e| failure!(ENOMEM, "no handler for type {:#x}: {e:?}", CPU_MOVE_TYPE.0))?))
    }
}

impl Drop for Moves {
    fn drop(&mut self) {
        if let Err(e) = ENDPOINT.unregister(self.0) {
            pr_err!("a handler stays: {e:?}\n");
        }
    }
}
