// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mk_ipi.hostile=noise:SEED|deaf`, with `mk_ipi.run=serve`: a kernel that breaks the rules, to test that this does not harm
//! its host.
//!
//! - `noise`: in addition to its usual service it sends messages of the types of consoles, channels and network interfaces (SPEC
//!   chapters K, G and E). Some messages are random. Some are valid except for a few bytes. Some are valid network frames with a
//!   random content.
//! - `deaf`: as soon as the network interface to the host has a carrier, the kernel takes no more messages. Its heartbeat
//!   goes on.

use crate::arch::interrupts;
use crate::net;
use crate::serve::SERVER;
use crate::stream::Heart;
use fastrand::Rng;
use mk_ipi_abi::channel::{self, ChannelMessage, CHANNEL_TYPE};
use mk_ipi_abi::console::{self, ConsoleMessage, CONSOLE_TYPE};
use mk_ipi_abi::{Incarnation, InstanceId, MessageType};
use mk_ipi_net::net::{
    Control, Features, FrameHead, Key, Offer, Offload, PartHead, MAX_FRAME, NET_CONTROL_TYPE, NET_FRAME_TYPE,
    NET_PART_TYPE,
};

/// The length of the longest message, in bytes.
const LONGEST: usize = 4096;
/// The number of messages that [`Noise::turn`] sends.
const MESSAGES: u32 = 16;

/// The sender of the messages of `noise`.
pub struct Noise {
    random: Rng,
    number: u32,
}

impl Noise {
    /// A sender whose random numbers begin with this seed.
    pub fn new(seed: u64) -> Self {
        Self { random: Rng::with_seed(seed), number: 0 }
    }

    /// Sends some messages to the host, until one cannot be sent. Returns whether all were sent.
    pub fn turn(&mut self) -> bool {
        let host = SERVER.instance(InstanceId::HOST).ok();
        let longest = host.and_then(|host| host.geometry()).map_or(0, |g| g.max_len() as usize);
        (0..MESSAGES).all(|_| {
            let mut message = [0; LONGEST];
            self.random.fill(&mut message);
            let (msg_type, len) = self.compose(&mut message);
            self.damage(&mut message, len);
            let payload = message.get(..len.min(longest)).unwrap_or(&[]);
            SERVER.send(InstanceId::HOST, msg_type, payload).is_ok()
        })
    }

    /// Writes a message of a random kind to the start of `to`. The caller has filled `to` with random bytes. Returns the
    /// message's type and length.
    fn compose(&mut self, to: &mut [u8; LONGEST]) -> (MessageType, usize) {
        match self.random.u8(..8) {
            0 => (CONSOLE_TYPE, self.console(to)),
            1 => (CHANNEL_TYPE, self.channel(to)),
            2 => (NET_CONTROL_TYPE, put(to, &self.control().encode())),
            3 => (NET_PART_TYPE, self.part(to)),
            4 => (MessageType(0xffff_0000 | u32::from(self.random.u8(..))), self.random.usize(..=LONGEST)),
            _ => (NET_FRAME_TYPE, self.frame(to)),
        }
    }

    /// In half of the calls, changes one to three bytes among the first 64 bytes of the message.
    fn damage(&mut self, message: &mut [u8; LONGEST], len: usize) {
        if self.random.bool() {
            return;
        }
        for _ in 0..self.random.u8(1..4) {
            let at = self.random.usize(..len.clamp(1, 64));
            if let Some(byte) = message.get_mut(at) {
                *byte =
                    if self.random.bool() { self.random.u8(..) } else { *byte ^ 1 << self.random.u8(..8) };
            }
        }
    }

    /// A random number. Small and large numbers have about the same probability.
    fn position(&mut self) -> u64 {
        self.random.u64(..) >> self.random.u8(..64)
    }

    fn life(&mut self) -> Option<Incarnation> {
        let known = SERVER.instance(InstanceId::HOST).ok().map(|host| host.incarnation());
        known.filter(|_| self.random.u8(..8) != 0)
    }

    fn console(&mut self, to: &mut [u8; LONGEST]) -> usize {
        let mut bytes = [0; 128];
        self.random.fill(&mut bytes);
        let bytes = bytes.get(..self.random.usize(..=128)).unwrap_or(&[]);
        let position = self.position();
        let body = match self.random.u8(..3) {
            0 => console::Body::Listen { limit: position },
            1 => console::Body::Log { position, bytes },
            _ => console::Body::Terminal { position, bytes },
        };
        ConsoleMessage { to: self.life(), body }.encode(to).map_or(0, <[u8]>::len)
    }

    fn channel(&mut self, to: &mut [u8; LONGEST]) -> usize {
        let mut bytes = [0; 128];
        self.random.fill(&mut bytes);
        let bytes = bytes.get(..self.random.usize(..=128)).unwrap_or(&[]);
        let (session, position) = (self.random.u32(..4), self.position());
        let (is_first, is_last) = (self.random.bool(), self.random.bool());
        let body = match self.random.u8(..4) {
            0 => channel::Body::Ask,
            1 => channel::Body::Grant { session, limit: position },
            2 => channel::Body::Part { session, position, is_first, is_last, bytes },
            _ => channel::Body::Closed { session, read: position },
        };
        let number = self.random.u32(..16);
        ChannelMessage { number, to: self.life(), body }.encode(to).map_or(0, <[u8]>::len)
    }

    /// A control message of a network interface. Its key changes between this kernel's right key and random ones, so the
    /// carrier comes and goes.
    fn control(&mut self) -> Control {
        let ours = Key::of(SERVER.identity().map_or(Incarnation::FIRST, |(_, life)| life), 1);
        let any = Key::new(self.random.u32(..)).unwrap_or(ours);
        let key = if self.random.bool() { ours } else { any };
        if self.random.u8(..8) == 0 {
            return Control::Close(key);
        }
        let features = Features::from_bits_retain(self.random.u32(..8));
        let mac = [2, self.random.u8(..), 0, 0, 0, 1];
        let offer = Offer { key, features, max_frame: self.random.u32(..=MAX_FRAME), mac };
        Control::Open { offer, heard: Some(self.host_key()) }
    }

    /// The key of the host's interface, which frames to the host must contain. A random key while there is no carrier.
    fn host_key(&mut self) -> Key {
        let theirs = net::carrier(InstanceId::HOST).map(|theirs| theirs.key);
        theirs.or_else(|| Key::new(self.random.u32(1..))).unwrap_or(Key::of(Incarnation::FIRST, 1))
    }

    fn offload(&mut self) -> Offload {
        let random = &mut self.random;
        Offload {
            flags: random.u8(..4),
            gso_type: [0, 0, 1, 4, 0x81, 0x84, 3, 5][random.usize(..8)],
            hdr_len: random.u16(..128),
            gso_size: random.u16(..2048),
            csum_start: random.u16(..128),
            csum_offset: random.u16(..32),
        }
    }

    /// Writes a frame, or the beginning of a longer frame. The Ethernet header is valid, and often that of an IP packet. The
    /// rest is random.
    fn frame(&mut self, to: &mut [u8; LONGEST]) -> usize {
        self.number = self.number.wrapping_add(1);
        let there = self.random.usize(..=1600);
        let more = if self.random.u8(..4) == 0 { self.random.u32(..MAX_FRAME) } else { 0 };
        let len = there as u32 + more;
        let offload = if self.random.bool() { Offload::default() } else { self.offload() };
        let head = FrameHead { key: self.host_key(), number: self.number, len, offload }.encode();
        let kinds = [[8, 0], [0x86, 0xdd], [8, 6], [0x81, 0], [0, 0]];
        let [high, low] = kinds[self.random.usize(..kinds.len())];
        let version = if high == 8 { 0x45 } else { 0x60 };
        let ethernet = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, high, low, version];
        let begun = put(to, &head);
        if let Some(rest) = to.get_mut(begun..) {
            put(rest, &ethernet);
        }
        begun + there
    }

    fn part(&mut self, to: &mut [u8; LONGEST]) -> usize {
        let at = self.random.u32(..MAX_FRAME);
        let head = PartHead { key: self.host_key(), number: self.number, at }.encode();
        put(to, &head) + self.random.usize(..=1600)
    }
}

/// Writes `bytes` to the start of `to`, as far as they fit. Returns the number of bytes written.
fn put(to: &mut [u8], bytes: &[u8]) -> usize {
    to.iter_mut().zip(bytes).map(|(to, byte)| *to = *byte).count()
}

/// Returns at once while the network interface to the host has no carrier. Otherwise never returns, and takes no more messages.
pub fn be_deaf(heart: &mut Heart) {
    if net::carrier(InstanceId::HOST).is_none() {
        return;
    }
    log!("this kernel takes no more messages");
    interrupts::disable();
    loop {
        heart.beat(&SERVER);
        core::hint::spin_loop();
    }
}
