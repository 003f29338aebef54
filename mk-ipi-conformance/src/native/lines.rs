// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases about the words in a lane: payload sizes, laps, and messages that wrap from the last line to the first.

use super::{lines_of, tag, Native, Shape, FURTHER, LARGE, SMALL};
use crate::env::{Env, Steps, TYPE};
use crate::inbox::{digest, long_payload};
use crate::{check, Failed, Outcome};
use mk_ipi_core::sync::Ordering::Relaxed;
use mk_ipi_core::SendError;

/// Payload sizes next to the ends of lines, and the smallest and the largest size.
const SIZES: [usize; 12] = [0, 48, 49, 104, 105, 256, 1024, 4096, 1, 47, 160, 161];

/// Returns the index of the first word of the line at `position` of kernel 0's lane, in a region of this shape.
fn line<E: Env>(env: &'static E, shape: Shape, position: u64) -> usize {
    shape.lane(env.kernels(), 0) + 32 + (position % shape.lines) as usize * 8
}

/// Checks each word of the message of `len` bytes from kernel 0 that begins at `position` in our region. SPEC N-6 defines the
/// words.
fn check_lines<E: Env>(env: &'static E, shape: Shape, position: u64, len: usize) -> Outcome {
    let word = |position, word| env.peek(env.me(), line(env, shape, position) + word);
    let bytes: [u8; 4096] = long_payload(len as u64, len);
    let (sender, _) = env.doorbell_of(0)?;
    let lap = |position| position / shape.lines;
    let first = tag(lap(position)) | u64::from(TYPE.0) << 32;
    check!(word(position, 0)? == first, "word 0 of the first line is lap, bit 30 and type");
    let about = len as u64 | (sender.0 & 0xffff_ffff) << 32;
    check!(word(position, 1)? == about, "word 1 of the first line is length and sending CPU");
    for n in 1..lines_of(len) {
        let position = position + n;
        check!(
            word(position, 0)? == tag(lap(position)) | FURTHER,
            "word 0 of a further line is its own lap and bits 30 and 31"
        );
    }
    for (n, eight) in bytes[..len].chunks(8).enumerate() {
        // In the first line, words 2 to 7 are payload. In each further line, words 1 to 7 are payload.
        let (behind, at) = if n < 6 { (0, 2 + n) } else { (1 + (n - 6) / 7, 1 + (n - 6) % 7) };
        let found = word(position + behind as u64, at)?.to_le_bytes();
        check!(
            found[..eight.len()] == *eight,
            "the payload is little endian, 48 bytes in the first line, 56 in each further one"
        );
    }
    Ok(())
}

/// Kernel 0 sends messages of these sizes, always as many as fit into the empty lane. Kernel 1 checks their lines, and then takes
/// them. Returns the position after the last message.
fn exchange<E: Env>(
    env: &'static E,
    shape: Shape,
    mut position: u64,
    sizes: impl Iterator<Item = usize> + Clone,
) -> Result<u64, Failed> {
    let mut rest = sizes;
    while rest.clone().next().is_some() {
        // How many messages fit. Both kernels compute the same number.
        let (mut used, mut count) = (0, 0);
        for len in rest.clone() {
            used += lines_of(len);
            if used > shape.lines {
                break;
            }
            count += 1;
        }
        let now = rest.clone().take(count);
        let numbered = now.clone().scan(position, |next, len| {
            *next += lines_of(len);
            Some((len, *next))
        });
        env.at(0, || {
            for (len, number) in numbered.clone() {
                let bytes: [u8; 4096] = long_payload(len as u64, len);
                let sent = env.endpoint().send(E::id(1), TYPE, &bytes[..len]);
                check!(sent == Ok(number), "a message's number is the position after it");
            }
            Ok(())
        })?;
        env.at(1, || {
            for (len, number) in numbered.clone() {
                check_lines(env, shape, number - lines_of(len), len)?;
            }
            env.drain_by_hand()
        })?;
        for len in now {
            position += lines_of(len);
            rest.next();
        }
    }
    Ok(position)
}

/// Checks the messages that came since the inbox had `before` messages: their sizes, their bytes and their numbers.
fn check_arrived<E: Env>(env: &'static E, before: u64, sizes: impl Iterator<Item = usize>) -> Outcome {
    let mut count = before;
    let mut number = 0;
    for len in sizes {
        let got = env.inbox().get(count).ok_or(Failed("every message arrives"))?;
        let same = digest(&long_payload::<4096>(len as u64, len)[..len]);
        check!(got.len == len && got.digest == same, "messages arrive in order, each with its own bytes");
        check!(got.number == number + lines_of(len), "a message has the number that its sender got");
        (count, number) = (count + 1, got.number);
    }
    check!(env.inbox().count() == count, "no message arrives twice");
    Ok(())
}

pub(crate) fn every_size_lies_in_its_lines_and_arrives_whole<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let before = env.inbox().count();
    let handle = env.register(TYPE, |env, m| {
        if m.payload().as_ptr().addr() % 8 != 0 {
            env.inbox().note.store(1, Relaxed);
        }
        env.inbox().push(m);
    });
    let handle = handle.ok_or(Failed("a handler can be registered"))?;
    // A lane has only eight lines, so many messages wrap from the last line to the first.
    env.with_deaf(1, || {
        env.step()?;
        exchange(env, SMALL, 0, 0..=256)
    })?;
    if env.me() == 1 {
        check_arrived(env, before, 0..=256)?;
        check!(env.inbox().note.load(Relaxed) == 0, "the payload is aligned to 8 bytes");
    }
    env.unlisten(handle)
}

pub(crate) fn messages_are_as_long_as_the_stamp_says<E: Env>(env: &'static E) -> Outcome {
    env.go_native_as(LARGE)?;
    let (before, handle) = (env.inbox().count(), env.listen()?);
    // In the second round the longest messages wrap from the last line to the first.
    let sizes = || SIZES.into_iter().chain(SIZES);
    env.with_deaf(1, || {
        env.step()?;
        exchange(env, LARGE, 0, sizes())
    })?;
    if env.me() == 1 {
        check_arrived(env, before, sizes())?;
    }
    env.step()?;
    let refused = env.endpoint().stats().refused;
    let bytes = [0; 4097];
    let too_long = Err(SendError::TooLong);
    check!(
        env.endpoint().send(E::id(env.next()), TYPE, &bytes) == too_long,
        "4,097 bytes are too many to send"
    );
    check!(
        env.endpoint().post(E::id(env.next()), TYPE, &bytes) == too_long,
        "4,097 bytes are too many to post"
    );
    check!(env.endpoint().stats().refused == refused + 2, "both refusals are counted");
    env.step()?;
    env.unlisten(handle)
}
