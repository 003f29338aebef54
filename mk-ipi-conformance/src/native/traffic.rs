// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases about messages on lanes: bytes, sizes, order, space, senders.

use super::{control, header, Native, CELLS};
use crate::env::{Env, Steps, Tap, TYPE};
use crate::inbox::{digest, payload};
use crate::{check, Failed, Outcome};
use mk_ipi_core::abi::PhysCpuId;
use mk_ipi_core::platform::PeerEvent;
use mk_ipi_core::SendError;

/// The message at position `len`, of `len` bytes, from kernel 0 to us, straight from the cell's definition.
fn check_cell<E: Env>(env: &'static E, len: usize) -> Outcome {
    let position = len as u64;
    let word = |word| env.peek(env.me(), env.cell(0, position, word));
    let bytes = payload(position, len);
    let lap = position / CELLS + 1;
    check!(word(0)? == lap | u64::from(TYPE.0) << 32, "word 0: lap and type");
    check!(word(1)? == len as u64, "word 1: length, and the index of kernel 0's only CPU");
    for (i, byte) in bytes[..len].iter().enumerate() {
        check!((word(2 + i / 8)? >> (8 * (i % 8))) as u8 == *byte, "words 2 to 33: payload, little endian");
    }
    Ok(())
}

pub(crate) fn every_size_lies_in_its_cell_and_arrives_whole<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (before, handle) = (env.inbox().count(), env.listen()?);
    env.with_deaf(1, || {
        env.step()?;
        for first in (0..=256).step_by(CELLS as usize) {
            let sizes = || (first..first + CELLS as usize).filter(|len| *len <= 256);
            env.at(0, || {
                let sent = sizes().all(|len| env.try_send(1, len as u64, len).is_ok());
                check!(sent, "a lane takes as many messages as it has cells");
                Ok(())
            })?;
            env.at(1, || {
                sizes().try_for_each(|len| check_cell(env, len))?;
                env.drain_by_hand()
            })?;
        }
        Ok(())
    })?;
    if env.me() == 1 {
        check!(env.inbox().count() == before + 257, "every message arrives, once");
        for len in 0..=256usize {
            let got = env.inbox().get(before + len as u64).ok_or(Failed("each message is remembered"))?;
            let same = digest(&payload(len as u64, len)[..len]);
            check!(got.len == len && got.digest == same, "in order, each with its own bytes");
        }
    }
    env.unlisten(handle)
}

pub(crate) fn a_full_lane_refuses_and_tells_of_space<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (before, handle, told) = (env.inbox().count(), env.listen()?, env.told());
    let want = || env.endpoint().want_space(E::id(1));
    env.with_deaf(1, || {
        env.step()?;
        env.not_at(1, || {
            check!(want() == Ok(true), "an empty lane has space");
            check!((0..CELLS).all(|n| env.try_number(1, n).is_ok()), "a lane takes what it has cells for");
            let (cells, full) = (env.cells(1)?, env.endpoint().stats().full);
            check!(env.try_number(1, CELLS) == Err(SendError::Full), "and no more");
            check!(
                env.endpoint().post(E::id(1), TYPE, &[1]) == Err(SendError::Full),
                "neither sent nor posted"
            );
            check!(env.cells(1)? == cells, "a refusal changes no cell");
            check!(env.peek(1, env.header(env.me(), header::SENT))? == CELLS, "nor takes a position");
            check!(env.endpoint().stats().full == full + 2, "it is counted");
            check!(want() == Ok(false), "a full lane has no space");
            env.linger();
            check!(!told.once(1, PeerEvent::Space), "nor is there while the receiver reads nothing");
            Ok(())
        })
    })?;
    env.not_at(1, || {
        check!(env.until(|| told.once(1, PeerEvent::Space)), "space is told of");
        check!(env.try_number(1, CELLS).is_ok(), "and there is some");
        (0..3).for_each(|_| _ = env.endpoint().run_deferred());
        check!(told.once(1, PeerEvent::Space), "once for each time that it is asked for");
        Ok(())
    })?;
    env.at(1, || env.expect_from_others(before, 0, CELLS + 1))?;
    env.unlisten(handle)
}

pub(crate) fn what_is_sent_before_the_receiver_is_up_arrives<E: Env>(env: &'static E) -> Outcome {
    let handle = env.listen()?;
    for again in [false, true] {
        env.lay_out()?;
        let before = env.inbox().count();
        env.not_at(1, || {
            (0..env.kernels()).try_for_each(|kernel| env.attach_native(kernel))?;
            check!((0..CELLS).all(|n| env.try_number(1, n).is_ok()), "the first life needs no answer");
            check!(env.try_number(1, CELLS) == Err(SendError::Full), "a lane takes what it has cells for");
            let lane = env.endpoint().lane_stats(E::id(1));
            check!(lane.is_ok_and(|lane| lane.rung == 0), "nobody is rung who is not there");
            if again {
                env.attach_again(1)?;
                check!(env.try_number(1, CELLS) == Err(SendError::Unanswered), "the second does");
            }
            Ok(())
        })?;
        env.at(1, || {
            (0..env.kernels()).try_for_each(|kernel| env.attach_native(kernel))?;
            env.expect_from_others(before, 0, CELLS)
        })?;
        env.not_at(1, || env.send_number(1, CELLS))?;
        env.at(1, || env.expect_from_others(before, 0, CELLS + 1))?;
    }
    env.unlisten(handle)
}

pub(crate) fn many_lanes_lose_nothing<E: Env>(env: &'static E) -> Outcome {
    const EACH: u64 = 30;
    env.go_native()?;
    let (before, handle) = (env.inbox().count(), env.listen()?);
    env.step()?;
    for n in 0..EACH {
        (0..env.kernels()).try_for_each(|to| env.send_number(to, n))?;
    }
    let total = EACH * env.kernels() as u64;
    check!(env.until(|| env.inbox().count() >= before + total), "every message arrives");
    env.step()?;
    env.linger();
    check!(env.inbox().count() == before + total, "none twice");
    for kernel in 0..env.kernels() {
        check!(env.in_order(before, kernel, 0)? == EACH, "from each sender, its own too");
    }
    env.step()?;
    env.unlisten(handle)
}

pub(crate) fn native_sends_are_checked<E: Env>(env: &'static E) -> Outcome {
    let to = E::id(env.next());
    let endpoint = env.endpoint();
    check!(endpoint.send_from_nmi(to, TYPE, &[1]) == Err(SendError::NotNative), "slots know no NMI");
    check!(endpoint.post(to, TYPE, &[1]) == Err(SendError::NotNative), "nor posts");
    check!(endpoint.flush(to) == Err(SendError::NotNative), "nor flushes");
    check!(endpoint.want_space(to) == Err(SendError::NotNative), "nor space");
    check!(endpoint.stop(to) == Err(SendError::NotNative), "nor a stop word");
    check!(endpoint.lane_stats(to) == Err(SendError::NotNative), "nor lanes");
    env.go_native()?;
    let (before, handle, refused) = (env.inbox().count(), env.listen()?, endpoint.stats().refused);
    env.step()?;
    let cells = env.cells(env.next())?;
    check!(endpoint.send(to, TYPE, &[0; 257]) == Err(SendError::TooLong), "257 bytes are too many");
    let (cpu, _) = env.doorbell_of(env.me())?;
    check!(endpoint.send_to_cpu(to, cpu, TYPE, &[1]) == Err(SendError::NotItsCpu(cpu)), "not its CPU");
    let nobody = PhysCpuId(u64::MAX);
    check!(endpoint.send_to_cpu(to, nobody, TYPE, &[1]) == Err(SendError::NotItsCpu(nobody)), "nobody's CPU");
    check!(env.cells(env.next())? == cells, "a bad send changes no cell");
    check!(endpoint.stats().refused == refused + 3, "and is counted");
    let (cpu, _) = env.doorbell_of(env.next())?;
    let bytes = payload(env.seed(0), 8);
    check!(endpoint.send_from_nmi(to, TYPE, &bytes[..8]).is_ok(), "an NMI handler may send");
    check!(endpoint.send_to_cpu(to, cpu, TYPE, &[]).is_ok(), "also to a CPU by name, and nothing");
    check!(env.until(|| env.inbox().count() == before + 2), "both arrive");
    let from = E::id((env.me() + env.kernels() - 1) % env.kernels());
    let empty = env.inbox().get(before + 1).ok_or(Failed("each is remembered"))?;
    check!(empty.len == 0 && empty.from == Some(from) && empty.msg_type == TYPE, "a message without bytes");
    env.step()?;
    env.unlisten(handle)
}

pub(crate) fn a_callback_may_send_on_a_lane<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let before = env.inbox().count();
    let handle = if env.me() == 0 {
        env.listen()?
    } else {
        let answer = Tap::new(env, |env, m| {
            // One that is lost shows at kernel 0.
            let _ = env.endpoint().send(E::id(0), TYPE, m.payload());
        });
        env.endpoint().register(TYPE, answer).map_err(|_| Failed("a handler can be registered"))?
    };
    env.step()?;
    env.at(0, || {
        for to in 1..env.kernels() {
            env.try_send(to, to as u64, 100).map_err(|_| Failed("a message can be sent"))?;
        }
        let all = env.kernels() as u64 - 1;
        check!(env.until(|| env.inbox().count() == before + all), "an answer comes from each callback");
        for n in before..before + all {
            let got = env.inbox().get(n).ok_or(Failed("each is remembered"))?;
            let from = got.from.map_or(0, |id| id.index());
            let same = digest(&payload(from as u64, 100)[..100]);
            check!(from != 0 && got.digest == same, "with the payload that was sent, in its sender's lane");
        }
        Ok(())
    })?;
    env.unlisten(handle)
}

pub(crate) fn the_lane_counts<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (before, handle) = (env.inbox().count(), env.listen()?);
    let (to, me) = (env.next(), env.me());
    let from = (me + env.kernels() - 1) % env.kernels();
    let stats = || env.endpoint().lane_stats(E::id(to)).map_err(|_| Failed("a lane has numbers"));
    let rung = env.endpoint().stats().rung;
    let first = stats()?;
    env.step()?;
    (0..5).try_for_each(|n| env.send_number(to, n))?;
    check!(env.until(|| env.inbox().count() == before + 5), "all arrive");
    env.step()?;
    let now = stats()?;
    check!(now.sent == 5 && now.received == 5 && now.full == 0, "five sent, five received");
    check!(now.resets == 1 && now.bad == 0 && now.last_breach.is_none(), "one life, no breach");
    check!(
        now.rung - first.rung <= env.endpoint().stats().rung - rung,
        "doorbells, not one for each message"
    );
    let header = |word| env.peek(to, env.header(me, word));
    let control = |word| env.peek(me, env.control(from, word));
    check!(header(header::SENT)? == 5 && header(header::FULL)? == 0, "the sender's numbers in its header");
    check!(header(header::RUNG)? == now.rung, "all of them");
    let [received, resets] = [control::RECEIVED, control::RESETS].map(control);
    check!(received? == 5 && resets? == 1, "the receiver's in its control line");
    let [bad, last] = [control::BAD, control::LAST_BREACH].map(control);
    check!(bad? == 0 && last? == 0 && control(control::CREDIT)? == 5, "all of them");
    env.step()?;
    env.unlisten(handle)
}
