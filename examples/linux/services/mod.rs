// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the native link offers to programs and people: consoles (SPEC chapter K) and channels (SPEC chapter G).
//!
//! Handlers take what comes. What must be sent goes at once if the lane has room. Otherwise a work item in process
//! context sends it. That work also runs when a peer begins a life or says that there is space, and the tick queues it,
//! too. It makes the devices of peers that come, and removes those of peers that go. What an event tells is kept in
//! atomic words, because an event can come in the middle of a send.

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

/// What events have told about one peer.
struct News {
    /// The peer's life in the upper bits, 0 before one is known. [`ENDED`] is set once that life is over. It is one
    /// word, so that a reader never takes the end of one life for the end of the next.
    life: AtomicU64,
    /// True if the peer's lane was full, and the peer has not said since that there is space.
    is_full: AtomicBool,
}

/// Bit of `life`: the life is over.
const ENDED: u64 = 1;

static NEWS: [News; MAX_INSTANCES] =
    [const { News { life: AtomicU64::new(0), is_full: AtomicBool::new(false) } }; MAX_INSTANCES];

/// True if events and the tick may queue the work.
static IS_ON: AtomicBool = AtomicBool::new(false);

/// True if regions are native. The tick cannot ask the host for it, because it would have to wait for the host's lock.
static IS_NATIVE: AtomicBool = AtomicBool::new(false);

fn news(id: InstanceId) -> Option<&'static News> {
    NEWS.get(id.index())
}

/// The known life of `id`, and whether it goes on.
fn life_of(id: InstanceId) -> Option<(Incarnation, bool)> {
    let word = news(id)?.life.load(Ordering::Acquire);
    let life = Incarnation::new((word >> 1) as u32)?;
    Some((life, word & ENDED == 0))
}

/// Queues the work. Can be called in any context except an NMI.
fn have_work_done() {
    if IS_ON.load(Ordering::Acquire) {
        // SAFETY: `start_work` has made it.
        unsafe { ffi::mk_ipi_glue_queue_services() };
    }
}

/// Terminals for which something has come, and channels of which a program must be woken: one bit for each.
static TERMINALS: AtomicU64 = AtomicU64::new(0);
static CHANNELS: AtomicU64 = AtomicU64::new(0);

fn tell(of: &AtomicU64, bit: usize) {
    of.fetch_or(1 << bit, Ordering::Release);
    // SAFETY: it can be called in any context.
    unsafe { ffi::mk_ipi_glue_queue_news() };
}

/// Something came for the terminal of `id`, or there is room there.
fn tell_terminal(id: InstanceId) {
    tell(&TERMINALS, id.index());
}

/// Something happened to the channel at this place of the table.
fn tell_channel(index: usize) {
    tell(&CHANNELS, index);
}

/// Does what handlers must not do in hard interrupt context.
#[no_mangle]
extern "C" fn mk_ipi_rs_news(_: *mut c_void) {
    let (terminals, channels) = (TERMINALS.swap(0, Ordering::Acquire), CHANNELS.swap(0, Ordering::Acquire));
    (0..MAX_INSTANCES as u8)
        .filter(|id| terminals & 1 << id != 0)
        .for_each(|id| console::serve(InstanceId::new(id)));
    for index in (0..channel::SLOTS).filter(|index| channels & 1 << index != 0) {
        // SAFETY: it is a place of the table.
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

/// Forgets `id`, which is about to be made: its lives begin again.
pub fn forget(id: InstanceId) {
    if let Some(news) = news(id) {
        news.life.store(0, Ordering::Release);
    }
}

/// Why a message was not sent.
enum Unsent {
    /// It can be tried again.
    Later,
    /// The peer takes nothing from this life of the kernel.
    Never,
}

/// Sends to `id`. If the lane is full, notes that, and asks to be told of space.
fn send(id: InstanceId, ty: MessageType, payload: &[u8]) -> core::result::Result<(), Unsent> {
    match ENDPOINT.send(id, ty, payload) {
        // The doorbell fails if the peer is about to go. The message is in its lane.
        Ok(_) | Err(SendError::NotRung(_)) => Ok(()),
        Err(e) if e.is_transient() => {
            if let Some(news) = news(id) {
                // This comes first: if space is reported in between, the lane does not count as full. The work looks
                // again in any case.
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

/// Who sent a message: the sender, its life, and the life of this kernel that it was sent to. `None` for messages in
/// slots, and for those of a life that was over before it was heard of.
fn ends(message: &Message<'_>) -> Option<(InstanceId, Incarnation, Incarnation)> {
    let (from, ours) = (message.sender_incarnation()?, message.receiver_incarnation()?);
    let id = message.sender()?;
    // A message of a life that is over does not count any more.
    let is_late = life_of(id).is_some_and(|(life, _)| from.is_before(life));
    (!is_late).then_some((id, from, ours))
}

/// The devices that exist: one bit for each peer and for each terminal.
struct Devices {
    is_on: bool,
    peers: u32,
    terminals: u32,
}

// SAFETY: the only `Locked` with 7.
static DEVICES: Locked<Devices> = unsafe { Locked::new(7, Devices { is_on: false, peers: 0, terminals: 0 }) };

/// Adds and removes, one by one, what differs. Returns what exists then.
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
            // SAFETY: process context, one at a time (DEVICES); the device does not exist.
            (false, true) if unsafe { add(id) } == 0 => now |= bit,
            (true, false) => {
                // SAFETY: as above; the device exists.
                unsafe { remove(id) };
                now &= !bit;
            }
            _ => {}
        }
    }
    now
}

/// The other kernels that are known. Slots (RFC v2) carry neither service.
fn peers() -> u32 {
    if !role::is_joined() && !IS_NATIVE.load(Ordering::Relaxed) {
        return 0;
    }
    let me = ENDPOINT.identity().map(|(me, _)| me);
    let known = |id: &InstanceId| Some(*id) != me && ENDPOINT.instance(*id).is_ok();
    (0..MAX_INSTANCES as u8).map(InstanceId::new).filter(known).fold(0, |all, id| all | 1 << id.index())
}

/// Does all that is due, in process context.
pub fn run() {
    DEVICES.with(|devices| {
        if !devices.is_on {
            return;
        }
        let peers = peers();
        // A spawned kernel has a terminal to its host, and the host has one to each kernel.
        let terminals = if role::is_joined() { peers & 1 } else { peers };
        console::make(terminals);
        devices.peers = change(devices.peers, peers, ffi::mk_ipi_glue_peer_add, ffi::mk_ipi_glue_peer_remove);
        devices.terminals =
            change(devices.terminals, terminals, ffi::mk_ipi_glue_tty_add, ffi::mk_ipi_glue_tty_remove);
        // A lane can be noted as full just after the peer has answered this life. No event tells of that, so the notes
        // are cleared here.
        NEWS.iter().for_each(|news| news.is_full.store(false, Ordering::Release));
        console::run();
        channel::run();
    });
}

/// The work, in process context.
#[no_mangle]
extern "C" fn mk_ipi_rs_services(_: *mut c_void) {
    run();
}

/// The handlers of both services. Dropping it unregisters them.
pub struct Handlers([Handle; 2]);

impl Handlers {
    /// From now on messages are taken.
    pub fn register() -> Result<Self> {
        if role::is_joined() {
            // The host sends its first message only once, so the terminal must be there.
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
                pr_err!("a handler cannot be removed: {e:?}\n");
            }
        }
    }
}

/// The devices. Dropping it removes them. None is open then, because an open device holds the module.
pub struct Services(());

impl Services {
    /// Makes the devices.
    pub fn new(is_native: bool) -> Result<Self> {
        // SAFETY: called once; `drop` undoes it.
        check(unsafe { ffi::mk_ipi_glue_tty_start(!role::is_joined()) }, format_args!("no terminals"))?;
        // SAFETY: as above.
        if let Err(e) = check(unsafe { ffi::mk_ipi_glue_peer_start() }, format_args!("no devices")) {
            // SAFETY: it was just made.
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
        // SAFETY: `new` made them, and no device is left.
        unsafe {
            ffi::mk_ipi_glue_peer_stop();
            ffi::mk_ipi_glue_tty_stop();
        }
    }
}
