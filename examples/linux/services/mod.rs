// SPDX-License-Identifier: MIT OR Apache-2.0
//! The services for programs and users on the native link: consoles (SPEC chapter K) and channels (SPEC chapter G).
//!
//! Message handlers store the messages that arrive. A message to a peer is sent at once if the lane has room. Otherwise a
//! work item in process context sends it later. This work item is queued when a peer begins a life or reports space, and
//! the tick does the same work. The work also adds the devices of new peers, and removes the devices of peers that were
//! removed. A send can report an event, while the sender holds a lock. So the handler of events takes no lock: it stores
//! the content of the event in atomic words.

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

/// The state of one peer, as the events have reported it.
struct News {
    /// The peer's incarnation, shifted left by one bit; 0 if none is known. The bit [`ENDED`] is set when that life has
    /// ended. Both are in one word, so a reader cannot combine the incarnation of one life with the end of another.
    life: AtomicU64,
    /// True if the lane to the peer was full, and the peer has not reported space since then.
    is_full: AtomicBool,
}

/// Bit of `News::life`: the life has ended.
const ENDED: u64 = 1;

static NEWS: [News; MAX_INSTANCES] =
    [const { News { life: AtomicU64::new(0), is_full: AtomicBool::new(false) } }; MAX_INSTANCES];

/// True if events may queue the work item.
static IS_ON: AtomicBool = AtomicBool::new(false);

/// True if the regions of this host are native. The tick must not wait for the host's lock, so it reads this copy.
static IS_NATIVE: AtomicBool = AtomicBool::new(false);

fn news(id: InstanceId) -> Option<&'static News> {
    NEWS.get(id.index())
}

/// The last known incarnation of `id`, and whether this life goes on.
fn life_of(id: InstanceId) -> Option<(Incarnation, bool)> {
    let word = news(id)?.life.load(Ordering::Acquire);
    let life = Incarnation::new((word >> 1) as u32)?;
    Some((life, word & ENDED == 0))
}

/// Queues the work item. Can be called in any context except an NMI.
fn have_work_done() {
    if IS_ON.load(Ordering::Acquire) {
        // SAFETY: `start_work` has initialised the work item.
        unsafe { ffi::mk_ipi_glue_queue_services() };
    }
}

/// One bit for each terminal: bytes have arrived for it, or it has room again.
static TERMINALS: AtomicU64 = AtomicU64::new(0);
/// One bit for each channel: the programs that wait for it must be woken.
static CHANNELS: AtomicU64 = AtomicU64::new(0);

fn tell(of: &AtomicU64, bit: usize) {
    of.fetch_or(1 << bit, Ordering::Release);
    // SAFETY: queueing an irq work is possible in any context.
    unsafe { ffi::mk_ipi_glue_queue_news() };
}

/// Marks the terminal of `id`, because bytes have arrived for it, or it has room again. The irq work then serves it.
fn tell_terminal(id: InstanceId) {
    tell(&TERMINALS, id.index());
}

/// Marks the channel with this index. The irq work then wakes the programs that wait for it.
fn tell_channel(index: usize) {
    tell(&CHANNELS, index);
}

/// Serves terminals and wakes programs, as `TERMINALS` and `CHANNELS` say. This is an irq work, because message handlers
/// run in hard interrupt context and must not do it.
#[no_mangle]
extern "C" fn mk_ipi_rs_news(_: *mut c_void) {
    let (terminals, channels) = (TERMINALS.swap(0, Ordering::Acquire), CHANNELS.swap(0, Ordering::Acquire));
    (0..MAX_INSTANCES as u8)
        .filter(|id| terminals & 1 << id != 0)
        .for_each(|id| console::serve(InstanceId::new(id)));
    for index in (0..channel::SLOTS).filter(|index| channels & 1 << index != 0) {
        // SAFETY: it is an index of the table.
        unsafe { ffi::mk_ipi_glue_peer_wake(index as u32) };
    }
}

/// Called for each event of a peer. Takes no lock.
pub fn on_event(id: InstanceId, event: PeerEvent) {
    let Some(news) = news(id) else { return };
    match event {
        PeerEvent::Up(life) => news.life.store(u64::from(life.get()) << 1, Ordering::Release),
        PeerEvent::Dead(life) => {
            // Another CPU may have reported a later life before. That life has not ended.
            let is_over =
                |word| Incarnation::new((word >> 1) as u32).is_none_or(|known| !life.is_before(known));
            let ended = |word| is_over(word).then_some(word | ENDED);
            _ = news.life.fetch_update(Ordering::Release, ended);
        }
        PeerEvent::Space | PeerEvent::Answered => {}
        _ => return,
    }
    news.is_full.store(false, Ordering::Release);
    have_work_done();
}

/// Called when the kernel of `id` was stopped, or the directory says that it does not run.
pub fn on_death(id: InstanceId) {
    if let Some(news) = news(id) {
        news.life.fetch_or(ENDED, Ordering::Release);
        have_work_done();
    }
}

/// Forgets the last incarnation of `id`. Called before an instance is made, because its incarnations begin at 1 again.
pub fn forget(id: InstanceId) {
    if let Some(news) = news(id) {
        news.life.store(0, Ordering::Release);
    }
}

/// Why a message was not sent.
enum Unsent {
    /// There is no room now. The send can be tried again.
    Later,
    /// The peer accepts no messages from this life of this kernel.
    Never,
}

/// Sends a message to `id`. If the lane is full, stores this in `is_full`, and asks the peer to report space.
fn send(id: InstanceId, ty: MessageType, payload: &[u8]) -> core::result::Result<(), Unsent> {
    match ENDPOINT.send(id, ty, payload) {
        // The doorbell can fail if the peer is being removed. The message is in the lane, so it was sent.
        Ok(_) | Err(SendError::NotRung(_)) => Ok(()),
        Err(e) if e.is_transient() => {
            if let Some(news) = news(id) {
                // This comes before `want_space`: if the peer reports space directly after it, `on_event` clears the flag.
                // A flag that is set too long does no harm, because `run` clears it.
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

/// Returns the sender of a message, the sender's incarnation, and the incarnation of this kernel to which it was sent.
/// Returns `None` for messages in slots (RFC v2), and for messages of a life that is older than the last known one.
fn ends(message: &Message<'_>) -> Option<(InstanceId, Incarnation, Incarnation)> {
    let (from, ours) = (message.sender_incarnation()?, message.receiver_incarnation()?);
    let id = message.sender()?;
    let is_late = life_of(id).is_some_and(|(life, _)| from.is_before(life));
    (!is_late).then_some((id, from, ours))
}

/// The devices that exist.
struct Devices {
    /// True if devices may be added.
    is_on: bool,
    /// One bit for each peer that has a device `/dev/mk_ipi_peerN`.
    peers: u32,
    /// One bit for each peer that has a terminal `/dev/ttyMKN`.
    terminals: u32,
}

// SAFETY: no other `Locked` has the number 7.
static DEVICES: Locked<Devices> = unsafe { Locked::new(7, Devices { is_on: false, peers: 0, terminals: 0 }) };

/// Adds the devices that are in `wanted` and not in `are`, and removes those that are in `are` and not in `wanted`. Returns
/// the devices that exist after that. One bit stands for one device.
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
            // SAFETY: process context, and the lock of `DEVICES` is held. The device does not exist.
            (false, true) if unsafe { add(id) } == 0 => now |= bit,
            (true, false) => {
                // SAFETY: as above, but the device exists.
                unsafe { remove(id) };
                now &= !bit;
            }
            _ => {}
        }
    }
    now
}

/// The other kernels that this kernel knows, one bit each. 0 on a host with slots (RFC v2), because the services need the
/// native link.
fn peers() -> u32 {
    if !role::is_joined() && !IS_NATIVE.load(Ordering::Relaxed) {
        return 0;
    }
    let me = ENDPOINT.identity().map(|(me, _)| me);
    let known = |id: &InstanceId| Some(*id) != me && ENDPOINT.instance(*id).is_ok();
    (0..MAX_INSTANCES as u8).map(InstanceId::new).filter(known).fold(0, |all, id| all | 1 << id.index())
}

/// Adds and removes devices. Sends all messages that are due and for which there is room. Runs in process context.
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
        // A send can set `is_full` just after the event that would clear it. So the flags are cleared here, and the next
        // send finds out whether the lane is still full.
        NEWS.iter().for_each(|news| news.is_full.store(false, Ordering::Release));
        console::run();
        channel::run();
    });
}

/// The work item. Runs in process context.
#[no_mangle]
extern "C" fn mk_ipi_rs_services(_: *mut c_void) {
    run();
}

/// The registered handlers of the messages of both services. Dropping this unregisters them.
pub struct Handlers([Handle; 2]);

impl Handlers {
    /// Registers the handlers.
    pub fn register() -> Result<Self> {
        if role::is_joined() {
            // In each life of this kernel, the host sends its first message only once. So the line must exist before the
            // handler is registered.
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

/// The devices of both services. Dropping this removes them. At that time no device is open, because an open device keeps
/// the module from being unloaded.
pub struct Services(());

impl Services {
    /// Registers the drivers, and adds the devices of the known peers.
    pub fn new(is_native: bool) -> Result<Self> {
        // SAFETY: called once; `drop` undoes it.
        check(
            unsafe { ffi::mk_ipi_glue_tty_start(!role::is_joined()) },
            format_args!("no driver for terminals"),
        )?;
        // SAFETY: as above.
        if let Err(e) = check(unsafe { ffi::mk_ipi_glue_peer_start() }, format_args!("no driver for peers")) {
            // SAFETY: it was just registered.
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
        // SAFETY: `new` registered the drivers, and no device is left.
        unsafe {
            ffi::mk_ipi_glue_peer_stop();
            ffi::mk_ipi_glue_tty_stop();
        }
    }
}
