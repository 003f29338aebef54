// SPDX-License-Identifier: MIT OR Apache-2.0
//! Moves a CPU between the host and a kernel that runs, by messages (SPEC chapter M). The host sends a request, and waits
//! for the answer. The kernel that the host started takes the CPU online or offline, and answers.

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

/// How long the host waits for an answer. The other kernel must first move all programs from the CPU to other CPUs.
const ANSWER: Microseconds = Microseconds(20_000_000);
/// How long to wait for room in a lane.
const ROOM: Microseconds = Microseconds(5_000_000);

/// The number of the last request. The lock is held until the request is answered, so there is one request at a time.
// SAFETY: no other `Locked` has the number 5.
static REQUESTS: Locked<u32> = unsafe { Locked::new(5, 0) };
/// On the host: the last answer. Bit 63 is set. Bits 61..32 are the low bits of the request's number. Bits 31..0 are an
/// error number, or 0 if the request was done. The word is 0 until the answer to the last request has arrived.
static ANSWERED: AtomicU64 = AtomicU64::new(0);
/// On the host: the instance and the CPU of the last request, in the encoding of the function `asked`.
static ASKED: AtomicU64 = AtomicU64::new(0);

/// On a kernel that a host started: the host's request that is still to be done, or 0. Bit 63 is set. Bit 62 is set if the
/// kernel is asked to use the CPU, and clear if it is asked to give the CPU up. Bits 61..32 are the low bits of the
/// request's number. Bits 31..0 are the CPU's APIC id.
static WANTED: AtomicU64 = AtomicU64::new(0);

/// Bit of `ANSWERED` and `WANTED`: there is an answer or a request.
const IS_THERE: u64 = 1 << 63;
/// Bit of `WANTED`: the kernel is asked to use the CPU.
const IS_USE: u64 = 1 << 62;
/// The low bits of a request's number. Only these are stored and compared.
const NUMBER: u32 = (1 << 30) - 1;

/// Why a request was not done.
pub enum NotDone {
    /// The kernel refused, or the request could not be sent. The CPU has not moved.
    Refused(Failure),
    /// The kernel has not answered. It can still do what was asked, later.
    Silent(Failure),
}

impl NotDone {
    /// The reason.
    pub fn into_failure(self) -> Failure {
        let (Self::Refused(e) | Self::Silent(e)) = self;
        e
    }
}

/// The instance and the CPU of a request as one word.
fn asked(id: InstanceId, cpu: PhysCpuId) -> u64 {
    u64::from(id.get()) << 32 | cpu.0 & u64::from(u32::MAX)
}

/// Asks the kernel of `id`, in its incarnation `life`, to do `kind` with `cpu`. Waits for the answer. Stops waiting if
/// `there` returns false, if the calling task gets a signal, or after `ANSWER`. Must not be called with the host's lock
/// held.
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
            // SAFETY: it only reads the state of the current task.
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

/// Sends `message`. If the lane is full of other messages, waits for room.
fn send(to: InstanceId, message: &CpuMove) -> Result {
    let (payload, mut result) = (message.encode(), Ok(()));
    start::wait_until(ROOM, || {
        result = ENDPOINT.send(to, CPU_MOVE_TYPE, &payload).map(drop);
        !matches!(result, Err(e) if e.is_transient())
    });
    result.map_err(|e| {
        failure!(EIO, "no message to instance {} about CPU {} can be sent: {e:?}", to.get(), message.cpu.0)
    })
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

/// Stores the host's request, and queues the work item that does it. If an earlier request is still stored, it is
/// overwritten: the host sends a new request only if it does not wait for the earlier one any more.
fn want(message: &CpuMove) {
    // An APIC id has at most 32 bits, so a larger number is no CPU.
    let Ok(cpu) = u32::try_from(message.cpu.0) else { return };
    let is_use = if message.kind == CpuMoveKind::Use { IS_USE } else { 0 };
    WANTED.store(
        IS_THERE | is_use | u64::from(message.request & NUMBER) << 32 | u64::from(cpu),
        Ordering::Relaxed,
    );
    // SAFETY: `start_work` has initialised the work item.
    unsafe { ffi::mk_ipi_glue_queue_host_request() };
}

/// Does the host's request, if there is one, and sends the answer. Runs in process context.
pub fn run_host_request() {
    let wanted = WANTED.swap(0, Ordering::Relaxed);
    let (Some((_, life)), true) = (ENDPOINT.identity(), wanted & IS_THERE != 0) else { return };
    let (request, cpu) = ((wanted >> 32) as u32 & NUMBER, PhysCpuId(wanted & u64::from(u32::MAX)));
    let done = if wanted & IS_USE != 0 { use_one(cpu) } else { give_up(cpu) };
    let kind =
        done.map_or_else(|e| CpuMoveKind::Refused(Errno(e.to_c().saturating_neg())), |()| CpuMoveKind::Done);
    // If the send fails, the log says so.
    let _ = send(InstanceId::HOST, &CpuMove { kind, request, cpu, life });
    let _ = guard();
}

fn give_up(cpu: PhysCpuId) -> Result {
    let Some(number) = cpus::number_of(cpu) else { return Ok(()) };
    if number == vector::DOORBELL_CPU {
        return refuse!(EBUSY, "CPU {number} receives this kernel's doorbell");
    }
    cpus::give_up(number)
}

fn use_one(cpu: PhysCpuId) -> Result {
    let Some((me, _)) = ENDPOINT.identity() else { return refuse!(ENODEV, "this kernel has no identity") };
    // While the instance is held, the directory stays mapped.
    let Ok(_held) = ENDPOINT.instance(me) else {
        return refuse!(ENODEV, "this kernel does not take part in mk-ipi any more");
    };
    // SAFETY: `_held` is an instance of the endpoint, so the directory is mapped.
    if unsafe { listed::lists_cpu(me, cpu) } != Some(true) {
        return refuse!(EACCES, "the directory does not list CPU {} as a CPU of this kernel", cpu.0);
    }
    match cpus::number_of(cpu) {
        Some(number) => cpus::use_one(number),
        None => refuse!(ENXIO, "this kernel was not told of CPU {} at its start", cpu.0),
    }
}

/// True while this code holds a reference to the module, so that the module cannot be unloaded. Without the module, Linux
/// could put a CPU online that belongs to another kernel.
// SAFETY: no other `Locked` has the number 6.
static HELD: Locked<bool> = unsafe { Locked::new(6, false) };

/// Takes or drops the reference to the module. The reference is held while Linux knows a CPU that it must not use. Called
/// only if another kernel is the host.
pub fn guard() -> Result {
    HELD.with(|held| {
        let is_needed = cpus::given().next().is_some();
        match (*held, is_needed) {
            (false, true) => {
                // SAFETY: it can be called at any time.
                let is_held = unsafe { ffi::mk_ipi_glue_hold_module() };
                check(if is_held { 0 } else { -19 }, format_args!("the module is being unloaded"))?;
            }
            // SAFETY: this code holds the reference.
            (true, false) => unsafe { ffi::mk_ipi_glue_release_module() },
            _ => {}
        }
        *held = is_needed;
        Ok(())
    })
}

/// The registered handler of the messages that move CPUs. Dropping this unregisters the handler.
pub struct Moves(Handle);

impl Moves {
    /// Registers the handler.
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
