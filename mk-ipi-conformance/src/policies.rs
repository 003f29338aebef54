// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases about slots: their bytes, payload sizes, both policies, lost and stray doorbells, full queues, and the counters.

use crate::env::{Env, Steps, TYPE};
use crate::inbox::{digest, payload};
use crate::{check, Failed, Outcome};
use mk_ipi_core::abi::rfc_v2::Claim;
use mk_ipi_core::abi::Incarnation;
use mk_ipi_core::sync::{Ordering, Word};
use mk_ipi_core::{PollError, SendError, SlotPolicy};

/// Payload sizes next to the ends of words and cache lines, and the smallest and the largest size.
const SIZES: [usize; 14] = [1, 2, 7, 8, 9, 15, 16, 47, 48, 64, 127, 248, 255, 256];

/// Returns the 34 words of a slot that holds the message of `seed` and `len` from kernel 0, as SPEC L-2 defines the struct.
fn expected<E: Env>(env: &'static E, seed: u64, len: usize) -> Result<[u64; 34], Failed> {
    let (sender, _) = env.doorbell_of(0)?;
    let bytes = payload(seed, len);
    let mut words = [0; 34];
    words[0] = sender.0 | (u64::from(TYPE.0) << 32);
    words[1] = len as u64;
    for (i, byte) in bytes.iter().enumerate() {
        words[2 + i / 8] |= u64::from(*byte) << (8 * (i % 8));
    }
    Ok(words)
}

pub(crate) fn a_sent_message_has_the_bytes_of_the_struct<E: Env>(env: &'static E) -> Outcome {
    for policy in [SlotPolicy::Overwrite, SlotPolicy::Exclusive] {
        env.set_policy(policy)?;
        for (i, len) in SIZES.into_iter().enumerate() {
            let exchange = || {
                if env.me() == 1 {
                    (2..34).try_for_each(|word| env.scribble(1, word, u64::MAX))?;
                    env.scribble(1, 1, 0)?;
                }
                env.step()?;
                if env.me() == 0 {
                    check!(env.try_send(1, i as u64, len).is_ok(), "a message can be sent");
                }
                env.step()?;
                if env.me() == 1 {
                    let found =
                        env.with_slot(1, |s| core::array::from_fn(|w| s[w].load(Ordering::Acquire)))?;
                    check!(
                        expected(env, i as u64, len)? == found,
                        "the 272 bytes are header, payload and zeros after it"
                    );
                }
                Ok(())
            };
            // The receiver keeps its interrupts off, so that it does not empty the slot before the check.
            if env.me() == 1 { env.undisturbed(exchange) } else { exchange() }?;
            env.step()?;
            let emptied = || env.slot_word(1, 1) == Ok(0);
            check!(policy == SlotPolicy::Overwrite || env.until(emptied), "an exclusive slot is emptied");
            env.step()?;
        }
    }
    Ok(())
}

pub(crate) fn a_message_lies_in_the_slot_of_its_cpu<E: Env>(env: &'static E) -> Outcome {
    let exchange = || {
        env.step()?;
        if env.me() == 0 {
            check!(env.try_send(1, 5, 256).is_ok(), "a message can be sent");
        }
        env.step()?;
        if env.me() == 1 {
            let (cpu, _) = env.doorbell_of(1)?;
            let instance =
                env.endpoint().instance(E::id(1)).map_err(|_| Failed("this kernel is attached"))?;
            let used =
                |slot: &[_]| slot.iter().any(|w: &crate::env::WordOf<E>| w.load(Ordering::Relaxed) != 0);
            let mut slots = instance.words().chunks(34).enumerate();
            check!(slots.all(|(i, slot)| (i as u64 == cpu.0) || !used(slot)), "no other slot is written");
            check!(
                env.slot_word(1, 1)? == 256,
                "the message is in the slot of the receiving CPU's physical id"
            );
        }
        Ok(())
    };
    if env.me() == 1 { env.undisturbed(exchange) } else { exchange() }?;
    env.step()
}

pub(crate) fn every_size_arrives_whole<E: Env>(env: &'static E) -> Outcome {
    let before = env.inbox().count();
    let handle = env.listen()?;
    env.step()?;
    let from = (env.me() + env.kernels() - 1) % env.kernels();
    for len in 1..=256 {
        env.send(env.next(), len as u64, len)?;
    }
    check!(env.until(|| env.inbox().count() >= before + 256), "256 messages arrive");
    env.step()?;
    let (sender, _) = env.doorbell_of(from)?;
    for len in 1..=256usize {
        let got = env.inbox().get(before + len as u64 - 1).ok_or(Failed("each message is in the inbox"))?;
        let same = digest(&payload(len as u64, len)[..len]);
        check!(got.len == len && got.digest == same, "messages arrive in order, each with its own bytes");
        check!(got.sender == sender && got.msg_type == TYPE, "messages arrive with sender and type");
    }
    check!(env.inbox().count() == before + 256, "no message arrives twice");
    env.unlisten(handle)
}

pub(crate) fn the_doorbell_does_not_overtake_the_message<E: Env>(env: &'static E) -> Outcome {
    let handle = env.listen()?;
    let (before, stats) = (env.inbox().count(), env.endpoint().stats());
    env.step()?;
    // The next message is sent after this one was taken, so each interrupt belongs to exactly one message.
    for n in 0..100 {
        if env.me() == 0 {
            env.send(1, n, 256)?;
            check!(env.until(|| env.slot_word(1, 1) == Ok(0)), "the receiver empties the slot");
        } else if env.me() == 1 {
            check!(env.until(|| env.inbox().count() > before + n), "the message arrives");
        }
    }
    env.step()?;
    let now = env.endpoint().stats();
    check!(now.empty == stats.empty && now.claimed == stats.claimed, "no interrupt came before its message");
    env.unlisten(handle)
}

pub(crate) fn a_slot_that_holds_no_message_delivers_none<E: Env>(env: &'static E) -> Outcome {
    let handle = env.listen()?;
    for policy in [SlotPolicy::Overwrite, SlotPolicy::Exclusive] {
        env.set_policy(policy)?;
        let (before, stats) = (env.inbox().count(), env.endpoint().stats());
        env.step()?;
        let sizes = [0, 257, 4096, 1 << 32, 1 << 63, u64::MAX];
        for (i, size) in sizes.into_iter().enumerate() {
            if env.me() == 0 {
                env.scribble(1, 1, size)?;
                env.ring(1)?;
            }
            let seen = || env.endpoint().stats().interrupts > stats.interrupts + i as u64;
            check!(env.me() != 1 || env.until(seen), "the doorbell rings");
            env.step()?;
        }
        let now = env.endpoint().stats();
        check!(
            env.inbox().count() == before && now.received == stats.received,
            "a slot without a message delivers nothing"
        );
        let counted = now.empty == stats.empty + 1 && now.bad_size == stats.bad_size + 5;
        check!(env.me() != 1 || counted, "size 0 is counted as empty, and each larger one as a bad size");
        env.step()?;
        if env.me() == 1 {
            env.scribble(1, 1, 0)?;
        }
    }
    env.unlisten(handle)
}

pub(crate) fn a_stray_doorbell_delivers_nothing_from_an_exclusive_slot<E: Env>(env: &'static E) -> Outcome {
    let handle = env.listen()?;
    let (before, stats) = (env.inbox().count(), env.endpoint().stats());
    env.step()?;
    if env.me() == 0 {
        env.send(1, 1, 8)?;
    }
    check!(env.me() != 1 || env.until(|| env.inbox().count() == before + 1), "a message arrives");
    env.step()?;
    if env.me() == 0 {
        env.ring(1)?;
    }
    let seen = || env.endpoint().stats().empty > stats.empty;
    check!(env.me() != 1 || env.until(seen), "a stray doorbell is counted");
    env.linger();
    check!(env.me() != 1 || env.inbox().count() == before + 1, "a stray doorbell delivers nothing");
    env.unlisten(handle)
}

pub(crate) fn overwrite_keeps_the_last_message<E: Env>(env: &'static E) -> Outcome {
    env.set_policy(SlotPolicy::Overwrite)?;
    let handle = env.listen()?;
    let (before, stats) = (env.inbox().count(), env.endpoint().stats());
    let exchange = || {
        env.step()?;
        if env.me() == 0 {
            for seed in 1..=3 {
                check!(
                    env.try_send(1, seed, 100 + seed as usize).is_ok(),
                    "an occupied slot of this policy takes another message"
                );
            }
        }
        env.step()
    };
    if env.me() == 1 { env.undisturbed(exchange) } else { exchange() }?;
    if env.me() == 1 {
        check!(env.until(|| env.inbox().count() > before), "a message arrives");
        env.linger();
        let got = env.inbox().get(before).ok_or(Failed("the message is in the inbox"))?;
        check!(
            got.first == 3 && got.len == 103 && got.digest == digest(&payload(3, 103)[..103]),
            "the last message arrives with its own size and bytes"
        );
        let now = env.endpoint().stats();
        check!(
            now.interrupts == stats.interrupts + 1,
            "doorbells that come while interrupts are off cause one interrupt"
        );
        check!(env.inbox().count() == before + 1, "the last message arrives only once");
    }
    env.step()?;
    env.unlisten(handle)
}

pub(crate) fn a_receiver_of_c_senders_never_writes_its_slot<E: Env>(env: &'static E) -> Outcome {
    env.set_policy(SlotPolicy::Overwrite)?;
    let handle = env.listen()?;
    let before = env.inbox().count();
    env.step()?;
    if env.me() == 0 {
        check!(env.try_send(1, 9, 200).is_ok(), "a message can be sent");
    }
    check!(env.me() != 1 || env.until(|| env.inbox().count() == before + 1), "the message arrives");
    env.step()?;
    let found = env.with_slot(1, |s| core::array::from_fn(|w| s[w].load(Ordering::Acquire)))?;
    check!(expected(env, 9, 200)? == found, "the message stays in the slot, byte for byte");
    if env.me() == 0 {
        env.ring(1)?;
    }
    check!(
        env.me() != 1 || env.until(|| env.inbox().count() == before + 2),
        "a stray doorbell delivers the message again"
    );
    env.step()?;
    if env.me() == 1 {
        check!(
            env.endpoint().poll() == Err(PollError::NotExclusive),
            "a poll of slots that are overwritten is refused"
        );
        env.scribble(1, 1, 0)?;
    }
    env.step()?;
    env.unlisten(handle)
}

pub(crate) fn an_unread_message_makes_its_slot_busy<E: Env>(env: &'static E) -> Outcome {
    let handle = env.listen()?;
    let before = env.inbox().count();
    let exchange = || {
        env.step()?;
        if env.me() == 0 {
            check!(env.try_send(1, 1, 8).is_ok(), "an empty slot takes a message");
            check!(env.try_send(1, 2, 8) == Err(SendError::Busy), "an occupied slot is busy");
        }
        env.step()?;
        if env.me() == 2 {
            check!(
                env.try_send(1, 3, 8) == Err(SendError::Busy),
                "an occupied slot is busy for every sender"
            );
        }
        env.step()
    };
    if env.me() == 1 { env.undisturbed(exchange) } else { exchange() }?;
    if env.me() == 2 {
        env.send(1, 4, 8)?;
    }
    env.step()?;
    if env.me() == 1 {
        check!(env.until(|| env.inbox().count() == before + 2), "both messages that were accepted arrive");
        let firsts = [before, before + 1].map(|n| env.inbox().get(n).map(|r| r.first));
        check!(firsts == [Some(1), Some(4)], "no refused message arrives");
    }
    env.step()?;
    env.unlisten(handle)
}

pub(crate) fn a_claim_is_ignored_and_cleared_by_the_host<E: Env>(env: &'static E) -> Outcome {
    let handle = env.listen()?;
    let (before, stats) = (env.inbox().count(), env.endpoint().stats());
    let dead = Claim { instance: E::id(2), incarnation: Incarnation::FIRST };
    env.step()?;
    if env.me() == 2 {
        env.scribble(1, 1, dead.to_data_size())?;
    }
    env.step()?;
    if env.me() == 0 {
        check!(env.try_send(1, 1, 8) == Err(SendError::Busy), "a claimed slot is busy");
        env.ring(1)?;
    }
    let seen = || env.endpoint().stats().claimed > stats.claimed;
    check!(env.me() != 1 || env.until(seen), "the receiver counts the claim");
    env.step()?;
    if env.me() == 0 {
        let clear = |id, life| env.endpoint().clear_claims(E::id(id), life);
        check!(
            clear(1, dead.incarnation) == 0 && clear(2, dead.incarnation.next()) == 0,
            "claims of other kernels and of other lives are not cleared"
        );
        check!(clear(2, dead.incarnation) == 1, "the host clears the claim of a dead life");
        check!(env.try_send(1, 7, 8).is_ok(), "the slot takes a message after its claim was cleared");
    }
    check!(
        env.me() != 1 || env.until(|| env.inbox().count() == before + 1),
        "a message arrives after the claim was cleared"
    );
    check!(
        env.me() != 1 || env.inbox().get(before).is_some_and(|r| r.first == 7),
        "the message that arrives is the one that was sent"
    );
    env.step()?;
    env.unlisten(handle)
}

pub(crate) fn many_senders_lose_nothing<E: Env>(env: &'static E) -> Outcome {
    const EACH: u64 = 60;
    let handle = env.listen()?;
    let before = env.inbox().count();
    env.step()?;
    let total = EACH * (env.kernels() as u64 - 1);
    if env.me() != 0 {
        for n in 0..EACH {
            env.send(0, ((env.me() as u64) << 32) | n, 8 + (n as usize * 11) % 249)?;
        }
    } else {
        check!(env.until(|| env.inbox().count() >= before + total), "every message arrives");
    }
    env.step()?;
    if env.me() == 0 {
        env.linger();
        check!(env.inbox().count() == before + total, "no message arrives twice");
        let mut next = [0; 16];
        for i in 0..total.min(500) {
            let got = env.inbox().get(before + i).ok_or(Failed("each message is in the inbox"))?;
            let (from, n) = ((got.first >> 32) as usize, got.first & 0xffff_ffff);
            let len = 8 + (n as usize * 11) % 249;
            check!(from < 16 && next[from] == n, "each sender's messages arrive in order");
            check!(
                got.len == len && got.digest == digest(&payload(got.first, len)[..len]),
                "each message arrives with its own size and bytes"
            );
            next[from] += 1;
        }
    }
    env.step()?;
    env.unlisten(handle)
}

/// Marks the first word of the last message that [`overflow`] sends. Bits 31..0 of this word are the number of messages that were
/// sent before it.
const END: u64 = 1 << 32;

/// Kernel 0 sends to kernel 1 until the counter `overflowed` of kernel 1 goes up. Meanwhile the handler at kernel 1 waits for the
/// same counter. So the deferred work there does not continue, and the queue becomes full.
///
/// Returns three numbers at kernel 1: how many messages were sent, how many its handler got, and how many different messages its
/// handler got. With the policy Overwrite a message is delivered twice if the interrupt of an earlier message comes late (SPEC
/// H-16). At the other kernels all three numbers are 0.
fn overflow<E: Env>(env: &'static E, overflowed: fn(&'static E) -> u64) -> Result<[u64; 3], Failed> {
    let (before, mark) = (env.inbox().count(), overflowed(env));
    env.step()?;
    let next_step = env.inbox().progress.load(Ordering::Relaxed) + 1;
    if env.me() == 0 {
        let mut sent = 0;
        while env.posted(1) < next_step && sent < 10_000 {
            env.send(1, sent, 64)?;
            env.linger();
            sent += 1;
        }
        env.step()?;
        env.send(1, END | sent, 8)?;
    } else {
        check!(env.me() != 1 || env.until(|| overflowed(env) > mark), "the queue overflows");
        env.step()?;
    }
    if env.me() != 1 {
        env.step()?;
        return Ok([0; 3]);
    }
    let last = || env.inbox().get(env.inbox().count() - 1).filter(|r| r.first & END != 0);
    let ended = env.until(|| env.inbox().count() > before && last().is_some());
    check!(ended, "a message that is sent after the overflow arrives");
    env.step()?;
    let seen = env.inbox().count() - before - 1;
    let mut distinct = 0;
    let mut newest = None;
    for got in (before..before + seen).map(|n| env.inbox().get(n).map_or(u64::MAX, |r| r.first)) {
        check!(newest.is_none_or(|newest| newest <= got), "messages arrive in order");
        distinct += u64::from(newest != Some(got));
        newest = Some(got);
    }
    Ok([last().map_or(0, |r| r.first & !END), seen, distinct])
}

pub(crate) fn a_full_queue_leaves_the_message_in_its_slot<E: Env>(env: &'static E) -> Outcome {
    env.inbox().note.store(env.endpoint().stats().left, Ordering::Relaxed);
    let handle = env.register(TYPE, |env, m| {
        env.inbox().push(m);
        // Only the first call waits. In later calls the counter is already above the note.
        env.until(|| env.endpoint().stats().left > env.inbox().note.load(Ordering::Relaxed));
    });
    let handle = handle.ok_or(Failed("a handler can be registered"))?;
    let [sent, seen, distinct] = overflow(env, |env| env.endpoint().stats().left)?;
    check!(sent == seen && sent == distinct, "no message is lost, and none arrives twice");
    env.unlisten(handle)
}

pub(crate) fn a_full_queue_drops_the_newest_of_an_overwritten_slot<E: Env>(env: &'static E) -> Outcome {
    env.set_policy(SlotPolicy::Overwrite)?;
    env.inbox().note.store(env.endpoint().stats().dropped, Ordering::Relaxed);
    let handle = env.register(TYPE, |env, m| {
        env.inbox().push(m);
        env.until(|| env.endpoint().stats().dropped > env.inbox().note.load(Ordering::Relaxed));
    });
    let handle = handle.ok_or(Failed("a handler can be registered"))?;
    let [sent, seen, distinct] = overflow(env, |env| env.endpoint().stats().dropped)?;
    let kept = env.me() != 1 || (seen >= 8 && distinct < sent);
    check!(kept, "a full queue of messages arrives, and later ones are dropped");
    env.unlisten(handle)
}

pub(crate) fn a_poll_finds_what_a_lost_doorbell_left<E: Env>(env: &'static E) -> Outcome {
    let handle = env.listen()?;
    let before = env.inbox().count();
    env.step()?;
    if env.me() == 0 {
        let words = expected(env, 77, 30)?;
        // Stores a message as a sender does, but does not ring. This has the same effect as a lost doorbell.
        (0..34).filter(|&w| w != 1).try_for_each(|w| env.scribble(1, w, words[w]))?;
        env.scribble(1, 1, words[1])?;
    }
    env.step()?;
    env.linger();
    check!(env.inbox().count() == before, "no message arrives without a doorbell");
    env.step()?;
    if env.me() == 1 {
        check!(env.endpoint().poll() == Ok(true), "a poll finds the message");
        check!(env.endpoint().poll() == Ok(false), "a second poll finds nothing");
        check!(
            env.until(|| env.inbox().count() == before + 1),
            "the message that the poll found is delivered"
        );
        check!(
            env.inbox().get(before).is_some_and(|r| r.first == 77 && r.len == 30),
            "the message that the poll found has its own first word and size"
        );
    }
    env.step()?;
    env.unlisten(handle)
}

pub(crate) fn the_counters_count<E: Env>(env: &'static E) -> Outcome {
    let handle = env.listen()?;
    let stats = env.endpoint().stats();
    env.step()?;
    for n in 0..10 {
        env.send(env.next(), n, 8)?;
    }
    check!(
        env.endpoint().send(E::id(env.next()), TYPE, &[]) == Err(SendError::Empty),
        "an empty message is refused"
    );
    let all = || env.endpoint().stats().handled == stats.handled + 10;
    check!(env.until(all), "ten messages are counted as handled");
    env.step()?;
    let now = env.endpoint().stats();
    check!(
        now.sent == stats.sent + 10 && now.refused == stats.refused + 1,
        "ten messages are counted as sent, and one as refused"
    );
    check!(
        now.received == stats.received + 10 && now.unhandled == stats.unhandled,
        "ten messages are counted as received, and none as unhandled"
    );
    check!(now.interrupts > stats.interrupts, "interrupts are counted");
    env.unlisten(handle)
}
