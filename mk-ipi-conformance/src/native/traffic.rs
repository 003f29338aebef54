// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases about messages on lanes: order, senders, numbers, many at a time.

use super::{control, header, hello, Native, BEGIN, LINES, LONG};
use crate::env::{Env, Steps, TestHandler, TYPE};
use crate::inbox::{digest, payload};
use crate::{check, Failed, Outcome};
use mk_ipi_core::abi::{Incarnation, PhysCpuId};
use mk_ipi_core::platform::PeerEvent;
use mk_ipi_core::SendError;

pub(crate) fn what_is_sent_before_the_receiver_is_up_arrives<E: Env>(env: &'static E) -> Outcome {
    let handle = env.listen()?;
    // By the life that still speaks; by one that was over before it was heard of; by one whose answer was half given when the
    // receiver died.
    for (again, half_answered) in [(false, false), (true, false), (true, true)] {
        env.lay_out()?;
        let (before, told) = (env.inbox().count(), env.peer_reports());
        env.not_at(1, || {
            (0..env.kernels()).try_for_each(|kernel| env.attach_native(kernel))?;
            env.send_all(1, 0..LINES)?;
            check!(env.try_number(1, LINES) == Err(SendError::Full), "a lane takes what it has lines for");
            let lane = env.endpoint().lane_stats(E::id(1));
            check!(lane.is_ok_and(|lane| lane.rung == 0), "nobody is rung who is not there");
            Ok(())
        })?;
        if half_answered {
            env.at(1, || {
                let answer = |lane| env.poke(1, env.control(lane, control::ANSWER), hello(1, 1, BEGIN));
                env.but(1).try_for_each(answer)
            })?;
        }
        env.not_at(1, || {
            if again {
                env.attach_again(1)?;
                check!(env.hello_of(1)? == hello(1, 2, BEGIN), "a second life begins");
                check!(env.try_number(1, LINES) == Err(SendError::Unanswered), "and needs an answer");
            }
            Ok(())
        })?;
        env.at(1, || {
            (0..env.kernels()).try_for_each(|kernel| env.attach_native(kernel))?;
            env.expect_from_others(before, 0, LINES)
        })?;
        env.not_at(1, || env.send_number(1, LINES))?;
        env.at(1, || {
            env.expect_from_others(before, 0, LINES + 1)?;
            let breaches = told.about(|_, event| matches!(event, PeerEvent::Quarantined(_)));
            check!(breaches == 0, "and nobody is accused");
            Ok(())
        })?;
    }
    env.unlisten(handle)
}

pub(crate) fn many_lanes_lose_nothing<E: Env>(env: &'static E) -> Outcome {
    const EACH: u64 = 30;
    env.go_native()?;
    let (before, handle) = (env.inbox().count(), env.listen()?);
    env.step()?;
    // Of all sizes: most go over several lines, and now and then over the end of the lane.
    for n in LONG..LONG + EACH {
        (0..env.kernels()).try_for_each(|to| env.send_number(to, n))?;
    }
    let total = EACH * env.kernels() as u64;
    check!(env.until(|| env.inbox().count() >= before + total), "every message arrives");
    env.step()?;
    env.linger();
    check!(env.inbox().count() == before + total, "none twice");
    for kernel in 0..env.kernels() {
        check!(env.in_order(before, kernel, LONG)? == EACH, "from each sender, its own too");
    }
    for n in before..before + total {
        let lives = env.inbox().get(n).map(|got| got.lives);
        check!(lives == Some([1, 1]), "of its first life, to our first");
    }
    env.step()?;
    env.unlisten(handle)
}

pub(crate) fn native_sends_are_checked<E: Env>(env: &'static E) -> Outcome {
    let to = E::id(env.next());
    let endpoint = env.endpoint();
    let not_native = SendError::NotNative;
    check!(endpoint.send_from_nmi(to, TYPE, &[1]) == Err(not_native), "slots know no NMI");
    check!(endpoint.post(to, TYPE, &[1]) == Err(not_native), "nor posts");
    check!(endpoint.post_many(to, TYPE, &[&[1]]) == Err(not_native), "nor many");
    check!(endpoint.send_many(to, TYPE, &[&[1]]) == Err(not_native), "nor many, sent");
    check!(endpoint.flush(to) == Err(not_native), "nor flushes");
    check!(endpoint.want_space(to, 1) == Err(not_native), "nor space");
    check!(endpoint.handled(to) == Err(not_native), "nor numbers");
    check!(endpoint.stop(to, Incarnation::FIRST) == Err(not_native), "nor a stop word");
    check!(endpoint.lane_stats(to) == Err(not_native), "nor lanes");
    check!(endpoint.poller().is_none(), "nor pollers");
    env.go_native()?;
    let (before, handle, refused) = (env.inbox().count(), env.listen()?, endpoint.stats().refused);
    env.step()?;
    let (lines, too_long) = (env.lines(env.next())?, Err(SendError::TooLong));
    check!(endpoint.send(to, TYPE, &[0; 257]) == too_long, "257 bytes are too many");
    check!(endpoint.want_space(to, 257) == Err(SendError::TooLong), "there is never space for them");
    let one_is: [&[u8]; 2] = [&[1], &[0; 257]];
    check!(endpoint.post_many(to, TYPE, &one_is) == Err(SendError::TooLong), "nor is any other of them sent");
    let (cpu, _) = env.doorbell_of(env.me())?;
    check!(endpoint.send_to_cpu(to, cpu, TYPE, &[1]) == Err(SendError::NotItsCpu(cpu)), "not its CPU");
    let nobody = PhysCpuId(u64::MAX);
    check!(endpoint.send_to_cpu(to, nobody, TYPE, &[1]) == Err(SendError::NotItsCpu(nobody)), "nobody's CPU");
    check!(endpoint.post_many(to, TYPE, &[]) == Ok(0), "none of none");
    check!(env.lines(env.next())? == lines, "a bad send changes no line");
    check!(endpoint.lane_stats(to).is_ok_and(|lane| lane.number == 0), "nor takes one");
    check!(endpoint.stats().refused == refused + 4, "and is counted");
    let (cpu, _) = env.doorbell_of(env.next())?;
    let bytes = payload(env.seed(0), 8);
    check!(endpoint.send_from_nmi(to, TYPE, &bytes[..8]) == Ok(1), "an NMI handler may send");
    check!(endpoint.send_to_cpu(to, cpu, TYPE, &[]) == Ok(2), "also to a CPU by name, and nothing");
    check!(env.until(|| env.inbox().count() == before + 2), "both arrive");
    let from = E::id((env.me() + env.kernels() - 1) % env.kernels());
    let empty = env.inbox().get(before + 1).ok_or(Failed("each is remembered"))?;
    check!(empty.len == 0 && empty.from == Some(from) && empty.msg_type == TYPE, "a message without bytes");
    env.step()?;
    env.unlisten(handle)
}

/// Kernel 0 sends to each of the others, whose callbacks answer by `answer`; kernel 0 gets all answers.
fn answers<E: Env>(env: &'static E, answer: TestHandler<E>) -> Outcome {
    env.go_native()?;
    let before = env.inbox().count();
    let handle = match env.me() {
        0 => env.listen()?,
        _ => env.endpoint().register(TYPE, answer).map_err(|_| Failed("a handler can be registered"))?,
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

pub(crate) fn a_callback_may_send_on_a_lane<E: Env>(env: &'static E) -> Outcome {
    // One that is lost shows at kernel 0.
    answers(env, TestHandler::new(env, |env, m| _ = env.endpoint().send(E::id(0), TYPE, m.payload())))
}

pub(crate) fn what_a_callback_posts_is_flushed_by_itself<E: Env>(env: &'static E) -> Outcome {
    answers(env, TestHandler::new(env, |env, m| _ = env.endpoint().post(E::id(0), TYPE, m.payload())))
}

pub(crate) fn many_are_sent_as_far_as_there_is_space<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (before, handle) = (env.inbox().count(), env.listen()?);
    let endpoint = env.endpoint();
    // Numbers from `first` on, `count` of them at most 10.
    let many = |first: u64, count: usize, send: bool| {
        let bytes: [_; 10] = core::array::from_fn(|n| payload(env.seed(first + n as u64), 256));
        let all: [_; 10] = core::array::from_fn(|n| &bytes[n][..super::len_of(first + n as u64)]);
        match send {
            true => endpoint.send_many(E::id(1), TYPE, &all[..count]),
            false => endpoint.post_many(E::id(1), TYPE, &all[..count]),
        }
    };
    env.with_deaf(1, || {
        env.step()?;
        env.at(1, || env.drain_by_hand())?;
        env.not_at(1, || {
            let (rung, sent) = (endpoint.stats().rung, endpoint.stats().sent);
            check!(many(0, 3, false) == Ok(3), "several at once");
            check!(endpoint.stats().rung == rung, "posted: nobody is rung");
            check!(many(3, 10, true) == Ok(5), "of more than fit the first, as many as fit");
            check!(endpoint.stats().rung == rung + 1, "sent: one doorbell for all");
            check!(endpoint.stats().sent == sent + 8, "each is counted");
            check!(many(8, 2, true) == Err(SendError::Full), "and of none that fits that the lane is full");
            check!(endpoint.lane_stats(E::id(1)).is_ok_and(|lane| lane.number == LINES), "it is");
            Ok(())
        })
    })?;
    env.at(1, || env.expect_from_others(before, 0, 8))?;
    // Long ones: of the first, five lines each; what is left over is too few for another.
    env.with_deaf(1, || {
        env.step()?;
        env.not_at(1, || {
            let bytes = [7; 256];
            let all: [&[u8]; 3] = [&bytes[..48], &bytes, &bytes[..200]];
            check!(endpoint.send_many(E::id(1), TYPE, &all) == Ok(2), "the length of each counts");
            Ok(())
        })
    })?;
    let total = before + 10 * (env.kernels() as u64 - 1);
    env.at(1, || {
        check!(env.until(|| env.inbox().count() >= total), "every message arrives");
        env.linger();
        check!(env.inbox().count() == total, "none twice");
        Ok(())
    })?;
    env.unlisten(handle)
}

pub(crate) fn a_sender_knows_what_was_handled<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let handle = env.listen()?;
    let told = env.peer_reports();
    let handled = || env.endpoint().handled(E::id(1));
    env.with_deaf(1, || {
        env.step()?;
        env.not_at(1, || {
            check!(handled() == Ok(0), "nothing was sent");
            check!(env.try_number(1, 0) == Ok(1), "one line: number 1");
            // 200 bytes: four lines.
            check!(env.try_send(1, env.seed(1), 200) == Ok(5), "four lines more: number 5");
            check!(handled() == Ok(0), "nothing was handled");
            let lane = env.endpoint().lane_stats(E::id(1));
            check!(lane.is_ok_and(|lane| lane.number == 5 && lane.received == 0), "and the lane says so");
            Ok(())
        })?;
        env.at(1, || env.drain_by_hand())?;
        env.not_at(1, || {
            check!(handled() == Ok(5), "all with a number up to this were handled");
            env.attach_again(1)?;
            check!(handled() == Ok(0), "of the next life nothing was");
            Ok(())
        })
    })?;
    env.not_at(1, || {
        env.send_number(1, 2)?;
        let number = env.endpoint().lane_stats(E::id(1)).map_or(0, |lane| lane.number);
        check!(number > 5, "numbers go on from life to life");
        check!(env.until(|| handled() == Ok(number)), "and then that is");
        check!(told.once(1, PeerEvent::Answered), "which was answered");
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
    check!(now.number == 5 && now.received == 5 && now.full == 0, "five sent, five received");
    check!(now.resets == 1 && now.bad == 0 && now.last_breach.is_none(), "one life, no breach");
    check!(
        now.rung - first.rung <= env.endpoint().stats().rung - rung,
        "doorbells, not one for each message"
    );
    let header = |word| env.peek(to, env.header(me, word));
    check!(
        header(header::FULL)? == 0 && header(header::RUNG)? == now.rung,
        "the sender's numbers in its header"
    );
    let words = [control::RECEIVED, control::RESETS, control::BAD, control::LAST_BREACH];
    check!(env.controls(me, from, words)? == [5, 1, 0, 0], "the receiver's in its control line");
    let words = [control::CREDIT, control::HANDED, control::BASE, control::BREACH, control::DOUBTS];
    check!(env.controls(me, from, words)? == [5, 5, 0, 0, 0], "with what it decides by");
    env.step()?;
    env.unlisten(handle)
}
