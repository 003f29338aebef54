// SPDX-License-Identifier: MIT OR Apache-2.0
//! The indices of the words of a region, except of the words in lines (SPEC N-3 to N-5). Each word has one writer.

/// Words of the receiver's pages. The indices count from the start of the region (SPEC N-3).
pub mod receiver {
    /// A counter that the receiver advances while it lives; 0 if the receiver has no clock.
    pub const HEARTBEAT: usize = 8;
    /// A [`Life`](crate::native::Life) word: the receiver's life, and whether it has said goodbye.
    pub const LIFE: usize = 9;
    /// 1 while the receiver wants to be rung. The word begins a cache line, in which only `BELL` follows.
    pub const ARMED: usize = 16;
    /// A [`Bell`](crate::native::Bell) word: the CPU and vector at which to ring the receiver. 0: those in the directory.
    pub const BELL: usize = 17;
    /// First word of the control line of lane 0. The lanes' control lines are 16 words apart.
    pub const CONTROL: usize = 32;
    /// Words from one control line to the next: 128 bytes.
    pub const CONTROL_WORDS: usize = 16;
}

/// Words of a lane's control line, which the receiver writes (SPEC N-4).
pub mod control {
    /// The sender may use lines below this position again: their messages were handled.
    pub const CREDIT: usize = 0;
    /// The [`Hello`](crate::native::Hello) word that the receiver has answered; 0 if none yet.
    pub const ANSWER: usize = 1;
    /// The position at which the life in `ANSWER` begins.
    pub const BASE: usize = 2;
    /// The position after the last message that was given to handlers. It is above `CREDIT` while they run.
    pub const HANDED: usize = 3;
    /// The [`Breach`](crate::native::Breach) for which the lane is in quarantine; 0 if it is not.
    pub const BREACH: usize = 4;
    /// How many messages were in doubt since the region was created.
    pub const DOUBTS: usize = 5;
    /// First of the words with the numbers of the last messages in doubt. Messages in doubt are counted from 0: the number of
    /// message `n` in doubt is in word [`doubt`]`(n)`.
    pub const DOUBT: usize = 6;
    /// Number of words that begin at `DOUBT`.
    pub const DOUBT_WORDS: usize = 4;

    /// The index of the word with the number of message `nth` in doubt, counted from 0.
    pub const fn doubt(nth: u64) -> usize {
        DOUBT.wrapping_add(nth as usize & (DOUBT_WORDS - 1))
    }
    /// Messages with a number above this, up to `DISCARD_TO`, were discarded unread by a new life of the receiver.
    pub const DISCARD_FROM: usize = 10;
    /// The number of the last message that was discarded; see `DISCARD_FROM`.
    pub const DISCARD_TO: usize = 11;
    /// Statistics: messages handed to handlers.
    pub const RECEIVED: usize = 12;
    /// Statistics: lives of the sender that were answered, and restarts of the receiver.
    pub const RESETS: usize = 13;
    /// Statistics: times the lane went into quarantine.
    pub const BAD: usize = 14;
    /// Statistics: the last [`Breach`](crate::native::Breach).
    pub const LAST_BREACH: usize = 15;
}

/// Words of a lane's header, which the sender writes (SPEC N-5).
pub mod header {
    /// The sender's [`Hello`](crate::native::Hello); 0 until its first.
    pub const HELLO: usize = 0;
    /// The incarnation of the receiver that must stop. Receivers read it in the host's lane only.
    pub const STOP: usize = 1;
    /// The sender waits for room, and wants to be rung when `CREDIT` is this or more. 0 if this life has never waited.
    pub const WANT: usize = 2;
    /// [`Attached`](crate::native::Attached): whether the sender has the region mapped; 0 if not.
    pub const ATTACHED: usize = 3;
    /// Statistics: sends that found the lane full. This begins a cache line that the receiver does not read.
    pub const FULL: usize = 16;
    /// Statistics: doorbells that the sender rang. The other sends needed no doorbell.
    pub const RUNG: usize = 17;
    /// Number of words of the header.
    pub const WORDS: usize = 32;
}
