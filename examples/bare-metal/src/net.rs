// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mk_ipi.ip=ADDRESS/PREFIX`: a network interface to each of the first four kernels (SPEC chapter E), all with this address.
//! A kernel that serves answers ICMP pings. On TCP port 7 it sends all bytes back. On TCP port 9 it answers with the CRC-32
//! of all bytes.
//!
//! The deferred work assembles frames from messages and stores them here. The main program passes them to smoltcp.

use crate::arch::without_interrupts;
use crate::clock::{self, SECOND};
use crate::serve::SERVER;
use core::fmt::Write;
use core::net::Ipv4Addr;
use crc::{Crc, Digest, CRC_32_ISO_HDLC};
use mk_ipi_abi::directory::Layout;
use mk_ipi_abi::{Incarnation, InstanceId};
use mk_ipi_core::platform::PeerEvent;
use mk_ipi_core::{Message, SendError};
use mk_ipi_net::net::{
    Features, FrameHead, Key, Offer, Offload, NET_CONTROL_TYPE, NET_FRAME_TYPE, NET_PART_TYPE,
};
use mk_ipi_net::{FrameAssembler, FrameSplitter, Port};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet, SocketStorage};
use smoltcp::phy::{self, Checksum, Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Cidr};
use spin::{Mutex, MutexGuard};

/// Kernels with ids below this number have an interface.
const PEERS: usize = 4;
/// The length of the longest frame, in bytes: an Ethernet header, and 1,500 bytes of payload.
const FRAME: usize = 1514;
/// The largest number of frames that wait for the main program. Further frames are dropped.
const WAITING: usize = 48;
/// The largest number of control messages that are sent in a row.
const CONTROLS: usize = 4;
/// The size of a TCP connection's buffer in each direction, in bytes.
const KEPT: usize = 32 << 10;
/// The TCP port that sends all bytes back.
const ECHO: u16 = 7;
/// The TCP port that answers with the CRC-32 of all bytes.
const SUM: u16 = 9;
/// The CRC-32 of the program `crc32`.
static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// This kernel's end of the interface to one peer. Accessed with interrupts off, so that no code ever waits for its lock.
struct In {
    port: Port,
    gather: FrameAssembler,
    frames: [[u8; FRAME]; WAITING],
    lens: [usize; WAITING],
    /// The index of the oldest waiting frame.
    first: usize,
    /// The number of waiting frames.
    count: usize,
    /// True if the incomplete frame has a place in `frames`: the one after the waiting frames.
    has_place: bool,
}

static INS: [Mutex<In>; PEERS] = [const { Mutex::new(In::NEW) }; PEERS];

/// The memory of the two sockets of an interface.
struct Buffers {
    sockets: [SocketStorage<'static>; 2],
    echo: [[u8; KEPT]; 2],
    sum: [[u8; KEPT]; 2],
}

static BUFFERS: [Mutex<Buffers>; PEERS] = [const {
    Mutex::new(Buffers { sockets: [SocketStorage::EMPTY; 2], echo: [[0; KEPT]; 2], sum: [[0; KEPT]; 2] })
}; PEERS];

/// Calls `f` with this kernel's end of the interface to `id`. `None` if `id` cannot have an interface.
fn with<R>(id: InstanceId, f: impl FnOnce(&mut In) -> R) -> Option<R> {
    INS.get(id.index()).map(|end| without_interrupts(|| f(&mut end.lock())))
}

impl In {
    const NEW: Self = Self {
        port: Port::new(),
        gather: FrameAssembler::new(),
        frames: [[0; FRAME]; WAITING],
        lens: [0; WAITING],
        first: 0,
        count: 0,
        has_place: false,
    };

    fn take(&mut self, message: &Message) {
        let taken = self.gather.take(self.port.ours(), message.msg_type(), message.payload());
        // An invalid message is dropped.
        let Ok(taken) = taken else { return };
        let place = (self.first + self.count) % WAITING;
        if let Some((len, _)) = taken.begins {
            self.has_place = self.count < WAITING;
            if self.has_place {
                self.lens[place] = len as usize;
            }
        }
        if !self.has_place {
            return;
        }
        let frame = self.frames[place].iter_mut().skip(taken.at as usize);
        frame.zip(taken.bytes).for_each(|(to, byte)| *to = *byte);
        if taken.is_whole {
            self.count += 1;
            self.has_place = false;
        }
    }

    /// Takes the oldest waiting frame. Returns the frame and its length in bytes.
    fn next(&mut self) -> Option<([u8; FRAME], usize)> {
        self.count = self.count.checked_sub(1)?;
        let at = self.first;
        self.first = (at + 1) % WAITING;
        Some((self.frames[at], self.lens[at]))
    }
}

/// Registers the message handlers. Called before the kernel joins the others.
pub fn register() {
    let registered = SERVER
        .register(NET_CONTROL_TYPE, &on_control)
        .and_then(|_| SERVER.register(NET_FRAME_TYPE, &on_frame))
        .and_then(|_| SERVER.register(NET_PART_TYPE, &on_frame));
    if registered.is_err() {
        fatal!("the registry is full");
    }
}

fn on_control(message: &Message) {
    let Some(id) = message.sender() else { return };
    // An invalid message has no effect.
    with(id, |end| _ = end.port.receive(message.sender_incarnation(), message.payload()));
    say(id);
}

fn on_frame(message: &Message) {
    message.sender().map(|id| with(id, |end| end.take(message)));
}

/// Called for each event of a peer.
pub fn on_event(id: InstanceId, event: PeerEvent) {
    with(id, |In { port, .. }| match event {
        PeerEvent::Up(life) | PeerEvent::Began(life) => _ = port.peer_is_up(life),
        PeerEvent::Suspect => _ = port.peer_is_suspect(true),
        PeerEvent::Alive => _ = port.peer_is_suspect(false),
        PeerEvent::Dead(life) => _ = port.peer_is_gone(Some(life)),
        PeerEvent::Quarantined(_) | PeerEvent::Refused(_) | PeerEvent::Unsettled { .. } => {
            _ = port.peer_is_gone(None);
        }
        _ => {}
    });
}

/// The offer of the other end of the interface to `id`. `None` while there is no carrier.
pub fn carrier(id: InstanceId) -> Option<Offer> {
    with(id, |end| end.port.carrier()).flatten()
}

/// Sends the control messages that are due to `id`. A message that cannot be sent now is sent by the next tick.
fn say(id: InstanceId) {
    if !SERVER.instance(id).is_ok_and(|i| i.layout() == Some(Layout::Native)) {
        return;
    }
    for _ in 0..CONTROLS {
        let Some(Some(message)) = with(id, |end| end.port.begin_send()) else { return };
        let sent = SERVER.send(id, NET_CONTROL_TYPE, &message.encode());
        let was_sent = matches!(sent, Ok(_) | Err(SendError::NotRung(_)));
        if with(id, |end| end.port.end_send(was_sent)) != Some(true) {
            return;
        }
    }
}

/// The network device that smoltcp uses for one peer.
struct Wire {
    id: InstanceId,
    number: u32,
}

/// A received frame, and its length.
struct Received([u8; FRAME], usize);

/// Permission to send one frame: there is space for it.
struct ToSend<'a>(&'a mut Wire);

impl Wire {
    /// Returns whether a frame of the largest size can be sent now. If not, an interrupt comes when this is possible.
    fn has_space(&self) -> bool {
        SERVER.want_space(self.id, FrameHead::LEN + FRAME).unwrap_or(false)
    }

    fn send(&mut self, frame: &[u8]) {
        let Some(theirs) = carrier(self.id) else { return };
        let max = SERVER.instance(self.id).ok().and_then(|to| to.geometry()).map_or(0, |g| g.max_len());
        self.number = self.number.wrapping_add(1);
        let Ok(mut cut) =
            FrameSplitter::new(&theirs, self.number, frame.len() as u32, Offload::default(), max)
        else {
            return;
        };
        let mut message = [0; FrameHead::LEN + FRAME];
        while let Some(piece) = cut.next() {
            let bytes = frame.get(piece.at as usize..).unwrap_or(&[]).iter().take(piece.len as usize);
            let all = piece.head.as_bytes().iter().chain(bytes);
            let len = message.iter_mut().zip(all).map(|(to, byte)| *to = *byte).count();
            if SERVER.send(self.id, piece.msg_type, message.get(..len).unwrap_or(&[])).is_err() {
                // The rest of the frame is useless. TCP sends its content again, as on any network that drops a frame.
                return;
            }
            cut.sent(&piece);
        }
    }
}

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0.get(..self.1).unwrap_or(&[]))
    }
}

impl phy::TxToken for ToSend<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = [0; FRAME];
        // smoltcp asks for at most the device's `max_transmission_unit`.
        let frame = &mut frame[..len];
        let result = f(frame);
        self.0.send(frame);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = ToSend<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, ToSend<'_>)> {
        if with(self.id, |end| end.count)? == 0 || !self.has_space() {
            return None;
        }
        let (frame, len) = with(self.id, In::next)??;
        Some((Received(frame, len), ToSend(self)))
    }

    fn transmit(&mut self, _: Instant) -> Option<ToSend<'_>> {
        self.has_space().then_some(ToSend(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut can = DeviceCapabilities::default();
        can.medium = Medium::Ethernet;
        can.max_transmission_unit = FRAME;
        // A received frame can have no TCP checksum (SPEC E-7), so smoltcp must not check it.
        can.checksum.tcp = Checksum::Tx;
        can
    }
}

/// The interface to one peer.
struct Net {
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    echo: SocketHandle,
    sum: SocketHandle,
    /// The CRC-32 of the bytes received so far at port [`SUM`].
    sum_so_far: Digest<'static, u32>,
    /// The key of the peer's interface, if there is a carrier. A new key means that the peer has a new life, or has opened
    /// its interface again.
    key: Option<Key>,
}

/// All interfaces.
pub struct Nets([Option<Net>; PEERS]);

fn now() -> Instant {
    Instant::from_micros((clock::now() / (SECOND / 1_000_000)) as i64)
}

impl Nets {
    /// No interfaces, for a kernel without an address.
    pub const NONE: Self = Self([const { None }; PEERS]);

    /// Opens an interface to each other kernel that can have one. Must be called only once.
    pub fn open(me: InstanceId, life: Incarnation, (address, prefix): (Ipv4Addr, u8)) -> Self {
        let address = Ipv4Cidr::new(address, prefix);
        let mut nets = Self::NONE;
        for ((place, id), buffers) in nets.0.iter_mut().zip((0..).map(InstanceId::new)).zip(&BUFFERS) {
            if id != me {
                *place = Some(Net::open(id, me, life, address, MutexGuard::leak(buffers.lock())));
            }
        }
        nets
    }

    /// Does all work of the interfaces that is possible now. Returns whether there was any.
    pub fn turn(&mut self) -> bool {
        self.0.iter_mut().flatten().fold(false, |done, net| net.turn() | done)
    }

    /// Sends the control messages that could not be sent before. Called with each heartbeat.
    pub fn tick(&self) {
        self.0.iter().flatten().for_each(|net| say(net.wire.id));
    }
}

impl Net {
    fn open(
        id: InstanceId,
        me: InstanceId,
        life: Incarnation,
        address: Ipv4Cidr,
        buffers: &'static mut Buffers,
    ) -> Self {
        let mac = [0x02, 0x6d, 0x6b, 0, me.get(), id.get()];
        let offer = Offer { key: Key::of(life, 1), features: Features::CSUM, max_frame: FRAME as u32, mac };
        with(id, |end| _ = end.port.open(offer));
        let mut wire = Wire { id, number: 0 };
        let mut interface = Interface::new(Config::new(EthernetAddress(mac).into()), &mut wire, now());
        interface.update_ip_addrs(|all| {
            if all.push(IpCidr::Ipv4(address)).is_err() {
                fatal!("an interface has no room for its address");
            }
        });
        let Buffers { sockets, echo, sum } = buffers;
        let mut sockets = SocketSet::new(&mut sockets[..]);
        let [echo, sum] = [echo, sum].map(|kept| {
            let [incoming, outgoing] = kept.each_mut().map(|kept| tcp::SocketBuffer::new(&mut kept[..]));
            let mut socket = tcp::Socket::new(incoming, outgoing);
            // No delayed ACKs, because this kernel can sleep until the next message.
            socket.set_ack_delay(None);
            sockets.add(socket)
        });
        Self { wire, interface, sockets, echo, sum, sum_so_far: CRC.digest(), key: None }
    }

    fn turn(&mut self) -> bool {
        let id = self.wire.id;
        let key = carrier(id).map(|theirs| theirs.key);
        if key != self.key {
            self.key = key;
            [self.echo, self.sum].into_iter().for_each(|s| self.sockets.get_mut::<tcp::Socket>(s).abort());
            log!("interface to kernel {}: {}", id.get(), if key.is_some() { "up" } else { "down" });
        }
        if key.is_none() {
            return false;
        }
        let polled = self.interface.poll(now(), &mut self.wire, &mut self.sockets);
        self.give_back() | self.sum_up() | (polled == smoltcp::iface::PollResult::SocketStateChanged)
    }

    /// Sends back the bytes that the connection at port [`ECHO`] received. Returns whether anything was done.
    fn give_back(&mut self) -> bool {
        let socket = self.sockets.get_mut::<tcp::Socket>(self.echo);
        if !socket.is_open() {
            return socket.listen(ECHO).is_ok();
        }
        let mut bytes = [0; 4096];
        let there = socket.peek_slice(&mut bytes).unwrap_or(0);
        let sent = socket.send_slice(bytes.get(..there).unwrap_or(&[])).unwrap_or(0);
        // These bytes were in the buffer above, so removing them cannot fail.
        let _ = socket.recv(|_| (sent, ()));
        if is_through(socket) {
            socket.close();
        }
        sent != 0
    }

    /// Adds the bytes that the connection at port [`SUM`] received to the CRC-32. Sends the CRC-32 after the last byte.
    /// Returns whether anything was done.
    fn sum_up(&mut self) -> bool {
        let socket = self.sockets.get_mut::<tcp::Socket>(self.sum);
        if !socket.is_open() {
            self.sum_so_far = CRC.digest();
            return socket.listen(SUM).is_ok();
        }
        let sum = &mut self.sum_so_far;
        let come = socket.recv(|bytes| {
            sum.update(bytes);
            (bytes.len(), bytes.len())
        });
        if is_through(socket) {
            let sum = core::mem::replace(sum, CRC.digest()).finalize();
            // This fails only if the connection is closed.
            let _ = writeln!(socket, "{sum:08x}");
            socket.close();
        }
        come.is_ok_and(|count| count != 0)
    }
}

/// Returns whether the other end has closed its direction, and all its bytes have been read.
fn is_through(socket: &tcp::Socket<'_>) -> bool {
    socket.state() == tcp::State::CloseWait && socket.recv_queue() == 0
}
