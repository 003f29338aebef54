// SPDX-License-Identifier: MIT OR Apache-2.0
//! CPUs that move by messages (SPEC chapter M). The host asks and waits. A kernel that it started does as asked, and
//! answers.

use crate::callback::Callback;
use crate::failure::{check, failure, refuse, Failure, Result};
use crate::lock::Locked;
use crate::platform::ENDPOINT;
use crate::{cpus, ffi, listed, role, start, vector};
use kernel::prelude::*;
use mk_ipi_core::abi::cpu_move::{CpuMove, CpuMoveKind, CPU_MOVE_TYPE};
use mk_ipi_core::abi::{Errno, Incarnation, InstanceId, PhysCpuId};
use mk_ipi_core::sync::{AtomicU64, Ordering};
use mk_ipi_core::{Handle, Message};
use mk_ipi_x86::Microseconds;

/// How long the host waits for an answer. The kernel must first move programs off the CPU.
const ANSWER: Microseconds = Microseconds(20_000_000);
/// How long to wait for room in a lane.
const ROOM: Microseconds = Microseconds(5_000_000);

/// The number of the last request. The holder of this lock asks, so there is one request at a time.
// SAFETY: the only `Locked` with 5.
static REQUESTS: Locked<u32> = unsafe { Locked::new(5, 0) };
/// The last answer: bit 63 is set, bits 62..32 are the low bits of the request's number, 31..0 the error number or 0.
static ANSWERED: AtomicU64 = AtomicU64::new(0);
/// The kernel that is asked, and about which CPU, as `asked` encodes them.
static ASKED: AtomicU64 = AtomicU64::new(0);

/// What the host wants of this kernel: bit 63 is set, bit 62 means use, bits 61..32 are the low bits of the request's
/// number, 31..0 the CPU's APIC id. 0 if it wants nothing.
static WANTED: AtomicU64 = AtomicU64::new(0);

const IS_THERE: u64 = 1 << 63;
const IS_USE: u64 = 1 << 62;
/// The bits of a request's number that are compared.
const NUMBER: u32 = (1 << 30) - 1;

/// Why the kernel that was asked has not done it.
pub enum NotDone {
    /// It refused, or was never asked: nothing has changed.
    Refused(Failure),
    /// It does not answer. It may still do it later.
    Silent(Failure),
}

impl NotDone {
    /// The reason.
    pub fn into_failure(self) -> Failure {
        let (Self::Refused(e) | Self::Silent(e)) = self;
        e
    }
}

fn asked(id: InstanceId, cpu: PhysCpuId) -> u64 {
    u64::from(id.get()) << 32 | cpu.0 & u64::from(u32::MAX)
}

/// Asks the life of `id` to do `kind` with `cpu`. Waits for its answer, or until `there` returns false. Must not be
/// called with the host's lock held.
pub fn ask(
    id: InstanceId,
    life: Incarnation,
    kind: CpuMoveKind,
    cpu: PhysCpuId,
    there: impl Fn() -> bool,
) -> core::result::Result<(), NotDone> {
    REQUESTS.with(|last| {
        let request = last.wrapping_add(1) & NUMBER;
        *last = request;
        ASKED.store(asked(id, cpu), Ordering::Relaxed);
        ANSWERED.store(0, Ordering::Release);
        send(id, &CpuMove { kind, request, cpu, life }).map_err(NotDone::Refused)?;
        let mut errno = None;
        start::wait_until(ANSWER, || {
            let answer = ANSWERED.load(Ordering::Acquire);
            let is_ours = answer & IS_THERE != 0 && (answer >> 32) as u32 & NUMBER == request;
            errno = is_ours.then_some(answer as u32);
            // SAFETY: it looks at the task that runs this.
            errno.is_some() || !there() || unsafe { ffi::mk_ipi_glue_signal_pending() }
        });
        match errno {
            Some(0) => Ok(()),
            Some(errno) => {
                let words =
                    format_args!("instance {} refuses {kind:?} of CPU {}: error {errno}", id.get(), cpu.0);
                Err(NotDone::Refused(failure!(EBUSY, "{words}")))
            }
            None => {
                let words = format_args!("instance {} does not answer about CPU {}", id.get(), cpu.0);
                Err(NotDone::Silent(failure!(ETIMEDOUT, "{words}")))
            }
        }
    })
}

/// Sends, and waits for room: a lane can be full of other messages.
fn send(to: InstanceId, message: &CpuMove) -> Result {
    let (payload, mut result) = (message.encode(), Ok(()));
    start::wait_until(ROOM, || {
        result = ENDPOINT.send(to, CPU_MOVE_TYPE, &payload).map(drop);
        !matches!(result, Err(e) if e.is_transient())
    });
    result.map_err(|e| failure!(EIO, "instance {} is not told of CPU {}: {e:?}", to.get(), message.cpu.0))
}

fn on_move(message: &Message<'_>) {
    let (Some(sender), Ok(message)) = (message.sender(), CpuMove::decode(message.payload())) else { return };
    let errno = match message.kind {
        CpuMoveKind::Done => 0,
        CpuMoveKind::Refused(errno) => errno.0.unsigned_abs(),
        CpuMoveKind::GiveUp | CpuMoveKind::Use => {
            let is_ours = ENDPOINT.identity().is_some_and(|(_, life)| life == message.life);
            if role::is_joined() && sender == InstanceId::HOST && is_ours {
                want(&message);
            }
            return;
        }
    };
    if ASKED.load(Ordering::Relaxed) == asked(sender, message.cpu) {
        let number = u64::from(message.request & NUMBER) << 32;
        ANSWERED.store(IS_THERE | number | u64::from(errno), Ordering::Release);
    }
}

/// Queues `host_request` to do what the host wants. If the host wanted something before, it has given up waiting for
/// it.
fn want(message: &CpuMove) {
    // No APIC id is longer.
    let Ok(cpu) = u32::try_from(message.cpu.0) else { return };
    let is_use = if message.kind == CpuMoveKind::Use { IS_USE } else { 0 };
    WANTED.store(
        IS_THERE | is_use | u64::from(message.request & NUMBER) << 32 | u64::from(cpu),
        Ordering::Relaxed,
    );
    // SAFETY: `start_work` has made it.
    unsafe { ffi::mk_ipi_glue_queue_host_request() };
}

/// Does what the host wants, if it wants something. Runs in process context.
pub fn run_host_request() {
    let wanted = WANTED.swap(0, Ordering::Relaxed);
    let (Some((_, life)), true) = (ENDPOINT.identity(), wanted & IS_THERE != 0) else { return };
    let (request, cpu) = ((wanted >> 32) as u32 & NUMBER, PhysCpuId(wanted & u64::from(u32::MAX)));
    let done = if wanted & IS_USE != 0 { use_one(cpu) } else { give_up(cpu) };
    let kind =
        done.map_or_else(|e| CpuMoveKind::Refused(Errno(e.to_c().saturating_neg())), |()| CpuMoveKind::Done);
    // If that fails, the log says so.
    let _ = send(InstanceId::HOST, &CpuMove { kind, request, cpu, life });
    let _ = guard();
}

fn give_up(cpu: PhysCpuId) -> Result {
    let Some(number) = cpus::number_of(cpu) else { return Ok(()) };
    if number == vector::DOORBELL_CPU {
        return refuse!(EBUSY, "the doorbell is at CPU {number}");
    }
    cpus::give_up(number)
}

fn use_one(cpu: PhysCpuId) -> Result {
    let Some((me, _)) = ENDPOINT.identity() else { return refuse!(ENODEV, "this kernel has no identity") };
    // It is held, so that the directory stays.
    let Ok(_held) = ENDPOINT.instance(me) else { return refuse!(ENODEV, "this kernel has left the others") };
    // SAFETY: `_held` is an instance of the endpoint.
    if unsafe { listed::lists_cpu(me, cpu) } != Some(true) {
        return refuse!(EACCES, "the directory does not list CPU {} as ours", cpu.0);
    }
    match cpus::number_of(cpu) {
        Some(number) => cpus::use_one(number),
        None => refuse!(ENXIO, "this kernel was not told of CPU {} at its start", cpu.0),
    }
}

/// True while the module is held, so that it cannot be unloaded. Without the module Linux could put a CPU online that
/// belongs to another kernel.
// SAFETY: the only `Locked` with 6.
static HELD: Locked<bool> = unsafe { Locked::new(6, false) };

/// Holds the module while there is a CPU that does not belong to this Linux, which another kernel started.
pub fn guard() -> Result {
    HELD.with(|held| {
        let is_needed = cpus::given().next().is_some();
        match (*held, is_needed) {
            (false, true) => {
                // SAFETY: it requires nothing of its caller.
                let is_held = unsafe { ffi::mk_ipi_glue_hold_module() };
                check(if is_held { 0 } else { -19 }, format_args!("the module is being unloaded"))?;
            }
            // SAFETY: it was held.
            (true, false) => unsafe { ffi::mk_ipi_glue_release_module() },
            _ => {}
        }
        *held = is_needed;
        Ok(())
    })
}

/// The handler of these messages. Dropping it unregisters the handler.
pub struct Moves(Handle);

impl Moves {
    /// Takes these messages from now on.
    pub fn register() -> Result<Self> {
        let handle = ENDPOINT.register(CPU_MOVE_TYPE, Callback::Rust(on_move));
        Ok(Self(handle.map_err(|e| failure!(ENOMEM, "no handler for type {:#x}: {e:?}", CPU_MOVE_TYPE.0))?))
    }
}

impl Drop for Moves {
    fn drop(&mut self) {
        if let Err(e) = ENDPOINT.unregister(self.0) {
            pr_err!("a handler cannot be removed: {e:?}\n");
        }
    }
}
