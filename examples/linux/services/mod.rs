// SPDX-License-Identifier: MIT OR Apache-2.0
//! What programs and people have of the native link: consoles (SPEC chapter K), and channels (SPEC chapter G).
//!
//! Handlers take what comes. What is to be sent goes at once if the lane has room; else, and when a peer begins a life or says that there is
//! space, by a piece of work in process context, which also makes the devices of peers that come, and takes those of peers that go. The
//! tick has it look again. What an event tells is kept in atomic words: an event may come in the middle of a send.

mod channel;
mod console;
mod memory;

use crate::callback::Callback;
use crate::failure::{check, failure, Result};
use crate::lock::Locked;
use crate::peers::MAX_INSTANCES;
use crate::platform::ENDPOINT;
use crate::{ffi, role};
use core::ffi::c_void;
use kernel::prelude::*;
use mk_ipi_core::abi::channel::CHANNEL_TYPE;
use mk_ipi_core::abi::console::CONSOLE_TYPE;
use mk_ipi_core::abi::{Incarnation, InstanceId, MessageType};
use mk_ipi_core::platform::PeerEvent;
use mk_ipi_core::sync::{AtomicBool, AtomicU64, Ordering};
use mk_ipi_core::{Handle, Message, SendError};

/// What events told of one peer.
struct News {
    /// Its life in the upper bits, 0 before one is known; [`ENDED`] once that life is over. One word, so that a reader never takes the
    /// end of one life for that of the next.
    life: AtomicU64,
    /// Its lane was full, and nobody has said since that there is space.
    is_full: AtomicBool,
}

/// Bit of `life`: it is over.
const ENDED: u64 = 1;

static NEWS: [News; MAX_INSTANCES] =
    [const { News { life: AtomicU64::new(0), is_full: AtomicBool::new(false) } }; MAX_INSTANCES];

/// Events and the tick have work done.
static IS_ON: AtomicBool = AtomicBool::new(false);

/// What regions speak, of which the host's books cannot be asked where the tick would wait for them.
static IS_NATIVE: AtomicBool = AtomicBool::new(false);

fn news(id: InstanceId) -> Option<&'static News> {
    NEWS.get(id.index())
}

/// The life of `id` that is known, and whether it goes on.
fn life_of(id: InstanceId) -> Option<(Incarnation, bool)> {
    let word = news(id)?.life.load(Ordering::Acquire);
    let life = Incarnation::new((word >> 1) as u32)?;
    Some((life, word & ENDED == 0))
}

/// Has the work done soon, from any context but an NMI's.
fn have_work_done() {
    if IS_ON.load(Ordering::Acquire) {
        // SAFETY: `start_work` has made it.
        unsafe { ffi::mk_ipi_glue_queue_services() };
    }
}

/// Terminals at which there is something, and channels of which somebody is to be woken: one bit for each.
static TERMINALS: AtomicU64 = AtomicU64::new(0);
static CHANNELS: AtomicU64 = AtomicU64::new(0);

fn tell(of: &AtomicU64, bit: usize) {
    of.fetch_or(1 << bit, Ordering::Release);
    // SAFETY: any context.
    unsafe { ffi::mk_ipi_glue_queue_news() };
}

/// Something came for the terminal of `id`, or there is room there.
fn tell_terminal(id: InstanceId) {
    tell(&TERMINALS, id.index());
}

/// Something happened to the channel in that place.
fn tell_channel(index: usize) {
    tell(&CHANNELS, index);
}

/// What handlers must not do in hard interrupt context.
#[no_mangle]
extern "C" fn mk_ipi_rs_news(_: *mut c_void) {
    let (terminals, channels) = (TERMINALS.swap(0, Ordering::Acquire), CHANNELS.swap(0, Ordering::Acquire));
    (0..MAX_INSTANCES as u8)
        .filter(|id| terminals & 1 << id != 0)
        .for_each(|id| console::serve(InstanceId::new(id)));
    for index in (0..channel::SLOTS).filter(|index| channels & 1 << index != 0) {
        // SAFETY: a place of the table.
        unsafe { ffi::mk_ipi_glue_peer_wake(index as u32) };
    }
}

/// Something happened to a peer.
pub fn on_event(id: InstanceId, event: PeerEvent) {
    let Some(news) = news(id) else { return };
    match event {
        PeerEvent::Up(life) => news.life.store(u64::from(life.get()) << 1, Ordering::Release),
        PeerEvent::Dead(_) => _ = news.life.fetch_or(ENDED, Ordering::Release),
        PeerEvent::Space | PeerEvent::Answered => {}
        _ => return,
    }
    news.is_full.store(false, Ordering::Release);
    have_work_done();
}

/// The kernel of `id` was stopped.
pub fn on_death(id: InstanceId) {
    if let Some(news) = news(id) {
        news.life.fetch_or(ENDED, Ordering::Release);
        have_work_done();
    }
}

/// `id` is about to be made: its lives begin again.
pub fn forget(id: InstanceId) {
    if let Some(news) = news(id) {
        news.life.store(0, Ordering::Release);
    }
}

/// Why a message was not sent.
enum Unsent {
    /// It may be tried again.
    Later,
    /// The peer takes nothing from this life of ours.
    Never,
}

/// Sends to `id`; notes that its lane is full, and asks to be told of space.
fn send(id: InstanceId, ty: MessageType, payload: &[u8]) -> core::result::Result<(), Unsent> {
    match ENDPOINT.send(id, ty, payload) {
        // The bell fails where the peer is about to go: what it has is in its lane.
        Ok(_) | Err(SendError::NotRung(_)) => Ok(()),
        Err(e) if e.is_transient() => {
            if let Some(news) = news(id) {
                // First: told of space in between, it is not full. The work looks again in any case.
                news.is_full.store(true, Ordering::Release);
                if ENDPOINT.want_space(id, payload.len()) == Ok(true) {
                    news.is_full.store(false, Ordering::Release);
                }
            }
            Err(Unsent::Later)
        }
        Err(_) => Err(Unsent::Never),
    }
}

/// Who sent a message, in which life, to which life of ours; not what slots carry, nor what a life sent that was over before we heard of it.
fn ends(message: &Message<'_>) -> Option<(InstanceId, Incarnation, Incarnation)> {
    let (from, ours) = (message.sender_incarnation()?, message.receiver_incarnation()?);
    let id = message.sender()?;
    // Of a life that is over nothing more counts.
    let is_late = life_of(id).is_some_and(|(life, _)| from.is_before(life));
    (!is_late).then_some((id, from, ours))
}

/// The devices that there are: bit by bit, peers and terminals.
struct Devices {
    is_on: bool,
    peers: u32,
    terminals: u32,
}

// SAFETY: the only one with 7.
static DEVICES: Locked<Devices> = unsafe { Locked::new(7, Devices { is_on: false, peers: 0, terminals: 0 }) };

/// Adds and takes away, one by one, what differs; gives what there is then.
fn change(
    are: u32,
    wanted: u32,
    add: unsafe extern "C" fn(u32) -> i32,
    remove: unsafe extern "C" fn(u32),
) -> u32 {
    let mut now = are;
    for id in 0..MAX_INSTANCES as u32 {
        let bit = 1 << id;
        match (are & bit != 0, wanted & bit != 0) {
            // SAFETY: process context, one at a time (DEVICES); it is not there.
            (false, true) if unsafe { add(id) } == 0 => now |= bit,
            (true, false) => {
                // SAFETY: as above; it is there.
                unsafe { remove(id) };
                now &= !bit;
            }
            _ => {}
        }
    }
    now
}

/// The other kernels that are known. Slots carry neither service.
fn peers() -> u32 {
    if !role::is_joined() && !IS_NATIVE.load(Ordering::Relaxed) {
        return 0;
    }
    let me = ENDPOINT.identity().map(|(me, _)| me);
    let known = |id: &InstanceId| Some(*id) != me && ENDPOINT.instance(*id).is_ok();
    (0..MAX_INSTANCES as u8).map(InstanceId::new).filter(known).fold(0, |all, id| all | 1 << id.index())
}

/// All that is due: process context.
pub fn run() {
    DEVICES.with(|devices| {
        if !devices.is_on {
            return;
        }
        let peers = peers();
        // A spawned kernel has a terminal at its host, and the host one at each.
        let terminals = if role::is_joined() { peers & 1 } else { peers };
        console::make(terminals);
        devices.peers = change(devices.peers, peers, ffi::mk_ipi_glue_peer_add, ffi::mk_ipi_glue_peer_remove);
        devices.terminals =
            change(devices.terminals, terminals, ffi::mk_ipi_glue_tty_add, ffi::mk_ipi_glue_tty_remove);
        // Nobody tells when a life of ours is answered just before it is noted that it is not.
        NEWS.iter().for_each(|news| news.is_full.store(false, Ordering::Release));
        console::run();
        channel::run();
    });
}

/// The work: process context.
#[no_mangle]
extern "C" fn mk_ipi_rs_services(_: *mut c_void) {
    run();
}

/// The handlers of both services; dropping it ends them.
pub struct Handlers([Handle; 2]);

impl Handlers {
    /// From now on messages are taken.
    pub fn register() -> Result<Self> {
        if role::is_joined() {
            // What the host says first is said once.
            console::make(1);
        }
        let one = |ty: MessageType, call| {
            let handle = ENDPOINT.register(ty, Callback::Rust(call));
            handle.map_err(|e| failure!(ENOMEM, "no handler for type {:#x}: {e:?}", ty.0))
        };
        let console = one(CONSOLE_TYPE, console::on_message)?;
        match one(CHANNEL_TYPE, channel::on_message) {
            Ok(channel) => Ok(Self([console, channel])),
            Err(e) => {
                let _ = ENDPOINT.unregister(console);
                Err(e)
            }
        }
    }
}

impl Drop for Handlers {
    fn drop(&mut self) {
        for handle in self.0 {
            if let Err(e) = ENDPOINT.unregister(handle) {
                pr_err!("a handler stays: {e:?}\n");
            }
        }
    }
}

/// The devices; dropping it takes them away. Nobody has one open then: whoever does holds the module.
pub struct Services(());

impl Services {
    /// Makes them.
    pub fn new(is_native: bool) -> Result<Self> {
        // SAFETY: once; `drop` undoes it.
        check(unsafe { ffi::mk_ipi_glue_tty_start(!role::is_joined()) }, format_args!("no terminals"))?;
        // SAFETY: as above.
        if let Err(e) = check(unsafe { ffi::mk_ipi_glue_peer_start() }, format_args!("no devices")) {
            // SAFETY: made just now.
            unsafe { ffi::mk_ipi_glue_tty_stop() };
            return Err(e);
        }
        IS_NATIVE.store(is_native, Ordering::Relaxed);
        DEVICES.with(|devices| devices.is_on = true);
        IS_ON.store(true, Ordering::Release);
        run();
        Ok(Self(()))
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        IS_ON.store(false, Ordering::Release);
        DEVICES.with(|devices| {
            devices.is_on = false;
            console::end();
            change(devices.peers, 0, ffi::mk_ipi_glue_peer_add, ffi::mk_ipi_glue_peer_remove);
            change(devices.terminals, 0, ffi::mk_ipi_glue_tty_add, ffi::mk_ipi_glue_tty_remove);
            (devices.peers, devices.terminals) = (0, 0);
            console::make(0);
            channel::end();
        });
        // SAFETY: made by `new`; no device is left.
        unsafe {
            ffi::mk_ipi_glue_peer_stop();
            ffi::mk_ipi_glue_tty_stop();
        }
    }
}
