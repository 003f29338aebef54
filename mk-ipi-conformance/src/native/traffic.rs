// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases about messages in lanes: their order, senders and numbers, and calls that send several messages at a time.

use super::{control, header, hello, Native, BEGIN, LINES, LONG};
use crate::env::{Env, Steps, TestHandler, TYPE};
use crate::inbox::{digest, payload};
use crate::{check, Failed, Outcome};
use mk_ipi_core::abi::{Incarnation, PhysCpuId};
use mk_ipi_core::platform::PeerEvent;
use mk_ipi_core::SendError;

pub(crate) fn what_is_sent_before_the_receiver_is_up_arrives<E: Env>(env: &'static E) -> Outcome {
    let handle = env.listen()?;
    // Three rounds. First: the life that sends the messages continues. Second: it ends before the receiver has read its HELLO.
    // Third: it also ends, but ANSWER already holds Begin, as if the receiver had died before it stored First there.
    for (again, half_answered) in [(false, false), (true, false), (true, true)] {
        env.lay_out()?;
        let (before, told) = (env.inbox().count(), env.peer_reports());
        env.not_at(1, || {
            (0..env.kernels()).try_for_each(|kernel| env.attach_native(kernel))?;
            env.send_all(1, 0..LINES)?;
            check!(
                env.try_number(1, LINES) == Err(SendError::Full),
                "a lane takes no more messages than it has lines for"
            );
            let lane = env.endpoint().lane_stats(E::id(1));
            check!(lane.is_ok_and(|lane| lane.rung == 0), "a receiver whose life has not begun is not rung");
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
                check!(env.hello_of(1)? == hello(1, 2, BEGIN), "a second life writes Begin");
                check!(
                    env.try_number(1, LINES) == Err(SendError::Unanswered),
                    "a life without an answer cannot send"
                );
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
            check!(breaches == 0, "no breach is reported");
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
    // Messages of up to 256 bytes: most take several lines, and some wrap from the last line to the first.
    for n in LONG..LONG + EACH {
        (0..env.kernels()).try_for_each(|to| env.send_number(to, n))?;
    }
    let total = EACH * env.kernels() as u64;
    check!(env.until(|| env.inbox().count() >= before + total), "every message arrives");
    env.step()?;
    env.linger();
    check!(env.inbox().count() == before + total, "no message arrives twice");
    for kernel in 0..env.kernels() {
        check!(
            env.in_order(before, kernel, LONG)? == EACH,
            "the messages of every sender arrive, and those of our own kernel too"
        );
    }
    for n in before..before + total {
        let lives = env.inbox().get(n).map(|got| got.lives);
        check!(lives == Some([1, 1]), "each message names the first life of its sender and of its receiver");
    }
    env.step()?;
    env.unlisten(handle)
}

pub(crate) fn native_sends_are_checked<E: Env>(env: &'static E) -> Outcome {
    let to = E::id(env.next());
    let endpoint = env.endpoint();
    let not_native = SendError::NotNative;
    check!(
        endpoint.send_from_nmi(to, TYPE, &[1]) == Err(not_native),
        "`send_from_nmi` to a slot gives NotNative"
    );
    check!(endpoint.post(to, TYPE, &[1]) == Err(not_native), "`post` to a slot gives NotNative");
    check!(endpoint.post_many(to, TYPE, &[&[1]]) == Err(not_native), "`post_many` to a slot gives NotNative");
    check!(endpoint.send_many(to, TYPE, &[&[1]]) == Err(not_native), "`send_many` to a slot gives NotNative");
    check!(endpoint.flush(to) == Err(not_native), "`flush` of a slot gives NotNative");
    check!(endpoint.want_space(to, 1) == Err(not_native), "`want_space` of a slot gives NotNative");
    check!(endpoint.handled(to) == Err(not_native), "`handled` of a slot gives NotNative");
    check!(
        endpoint.stop(to, Incarnation::FIRST) == Err(not_native),
        "`stop` of a kernel with slots gives NotNative"
    );
    check!(endpoint.lane_stats(to) == Err(not_native), "`lane_stats` of a slot gives NotNative");
    check!(endpoint.poller().is_none(), "a kernel without a native region cannot poll");
    env.go_native()?;
    let (before, handle, refused) = (env.inbox().count(), env.listen()?, endpoint.stats().refused);
    env.step()?;
    let (lines, too_long) = (env.lines(env.next())?, Err(SendError::TooLong));
    check!(endpoint.send(to, TYPE, &[0; 257]) == too_long, "257 bytes are too many");
    check!(
        endpoint.want_space(to, 257) == Err(SendError::TooLong),
        "a request for space for 257 bytes is refused"
    );
    let one_is: [&[u8]; 2] = [&[1], &[0; 257]];
    check!(
        endpoint.post_many(to, TYPE, &one_is) == Err(SendError::TooLong),
        "`post_many` posts nothing if one message is too long"
    );
    let (cpu, _) = env.doorbell_of(env.me())?;
    check!(
        endpoint.send_to_cpu(to, cpu, TYPE, &[1]) == Err(SendError::NotItsCpu(cpu)),
        "a CPU of another kernel is refused"
    );
    let nobody = PhysCpuId(u64::MAX);
    check!(
        endpoint.send_to_cpu(to, nobody, TYPE, &[1]) == Err(SendError::NotItsCpu(nobody)),
        "a CPU that belongs to no kernel is refused"
    );
    check!(endpoint.post_many(to, TYPE, &[]) == Ok(0), "`post_many` of no messages posts none");
    check!(env.lines(env.next())? == lines, "a bad send changes no line");
    check!(endpoint.lane_stats(to).is_ok_and(|lane| lane.number == 0), "a bad send takes no line");
    check!(endpoint.stats().refused == refused + 4, "bad sends are counted as refused");
    let (cpu, _) = env.doorbell_of(env.next())?;
    let bytes = payload(env.seed(0), 8);
    check!(endpoint.send_from_nmi(to, TYPE, &bytes[..8]) == Ok(1), "`send_from_nmi` sends a message");
    check!(endpoint.send_to_cpu(to, cpu, TYPE, &[]) == Ok(2), "an empty message can be sent to a named CPU");
    check!(env.until(|| env.inbox().count() == before + 2), "both messages arrive");
    let from = E::id((env.me() + env.kernels() - 1) % env.kernels());
    let empty = env.inbox().get(before + 1).ok_or(Failed("each message is in the inbox"))?;
    check!(
        empty.len == 0 && empty.from == Some(from) && empty.msg_type == TYPE,
        "an empty message arrives with its sender and type"
    );
    env.step()?;
    env.unlisten(handle)
}

/// Kernel 0 sends a message to each of the other kernels. There the handler `answer` sends it back. Kernel 0 must get all
/// answers.
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
            let got = env.inbox().get(n).ok_or(Failed("each message is in the inbox"))?;
            let from = got.from.map_or(0, |id| id.index());
            let same = digest(&payload(from as u64, 100)[..100]);
            check!(
                from != 0 && got.digest == same,
                "an answer has the payload that was sent, and comes in its sender's lane"
            );
        }
        Ok(())
    })?;
    env.unlisten(handle)
}

pub(crate) fn a_callback_may_send_on_a_lane<E: Env>(env: &'static E) -> Outcome {
    // The handler need not check the result: if the send fails, the case fails at kernel 0.
    answers(env, TestHandler::new(env, |env, m| _ = env.endpoint().send(E::id(0), TYPE, m.payload())))
}

pub(crate) fn what_a_callback_posts_is_flushed_by_itself<E: Env>(env: &'static E) -> Outcome {
    answers(env, TestHandler::new(env, |env, m| _ = env.endpoint().post(E::id(0), TYPE, m.payload())))
}

pub(crate) fn many_are_sent_as_far_as_there_is_space<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (before, handle) = (env.inbox().count(), env.listen()?);
    let endpoint = env.endpoint();
    // Sends (if `send`) or posts `count` messages in one call, at most 10. Their numbers begin with `first`.
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
            check!(many(0, 3, false) == Ok(3), "several messages can be posted at once");
            check!(endpoint.stats().rung == rung, "`post_many` does not ring");
            check!(many(3, 10, true) == Ok(5), "`send_many` sends the first messages, as many as fit");
            check!(endpoint.stats().rung == rung + 1, "`send_many` rings once for all messages");
            check!(endpoint.stats().sent == sent + 8, "each message is counted as sent");
            check!(many(8, 2, true) == Err(SendError::Full), "`send_many` gives Full if no message fits");
            check!(
                endpoint.lane_stats(E::id(1)).is_ok_and(|lane| lane.number == LINES),
                "the lane is full when `send_many` gives Full"
            );
            Ok(())
        })
    })?;
    env.at(1, || env.expect_from_others(before, 0, 8))?;
    // Messages of one, five and four lines: the third does not fit into the two lines that are left.
    env.with_deaf(1, || {
        env.step()?;
        env.not_at(1, || {
            let bytes = [7; 256];
            let all: [&[u8]; 3] = [&bytes[..48], &bytes, &bytes[..200]];
            check!(
                endpoint.send_many(E::id(1), TYPE, &all) == Ok(2),
                "`send_many` counts the lines of each message"
            );
            Ok(())
        })
    })?;
    let total = before + 10 * (env.kernels() as u64 - 1);
    env.at(1, || {
        check!(env.until(|| env.inbox().count() >= total), "every message arrives");
        env.linger();
        check!(env.inbox().count() == total, "no message arrives twice");
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
            check!(handled() == Ok(0), "`handled` is 0 before the first send");
            check!(env.try_number(1, 0) == Ok(1), "a message of one line has number 1");
            // 200 bytes: four lines.
            check!(
                env.try_send(1, env.seed(1), 200) == Ok(5),
                "a message of four lines after it has number 5"
            );
            check!(handled() == Ok(0), "`handled` is 0 before the receiver has read");
            let lane = env.endpoint().lane_stats(E::id(1));
            check!(
                lane.is_ok_and(|lane| lane.number == 5 && lane.received == 0),
                "the lane's number is 5, with 0 received"
            );
            Ok(())
        })?;
        env.at(1, || env.drain_by_hand())?;
        env.not_at(1, || {
            check!(handled() == Ok(5), "`handled` is 5 when both messages were handled");
            env.attach_again(1)?;
            check!(handled() == Ok(0), "`handled` is 0 when the next life begins");
            Ok(())
        })
    })?;
    env.not_at(1, || {
        env.send_number(1, 2)?;
        let number = env.endpoint().lane_stats(E::id(1)).map_or(0, |lane| lane.number);
        check!(number > 5, "numbers go on from life to life");
        check!(
            env.until(|| handled() == Ok(number)),
            "`handled` reaches the number of the next life's message"
        );
        check!(told.once(1, PeerEvent::Answered), "the answer to the next life is reported once");
        Ok(())
    })?;
    env.unlisten(handle)
}

pub(crate) fn the_lane_counts<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (before, handle) = (env.inbox().count(), env.listen()?);
    let (to, me) = (env.next(), env.me());
    let from = (me + env.kernels() - 1) % env.kernels();
    let stats = || env.endpoint().lane_stats(E::id(to)).map_err(|_| Failed("a lane has statistics"));
    let rung = env.endpoint().stats().rung;
    let first = stats()?;
    env.step()?;
    (0..5).try_for_each(|n| env.send_number(to, n))?;
    check!(env.until(|| env.inbox().count() == before + 5), "all messages arrive");
    env.step()?;
    let now = stats()?;
    check!(
        now.number == 5 && now.received == 5 && now.full == 0,
        "the lane counts five sent, five received and none refused"
    );
    check!(
        now.resets == 1 && now.bad == 0 && now.last_breach.is_none(),
        "the lane counts one life and no breach"
    );
    check!(
        now.rung - first.rung <= env.endpoint().stats().rung - rung,
        "the lane counts no more doorbells than the endpoint"
    );
    let header = |word| env.peek(to, env.header(me, word));
    check!(
        header(header::FULL)? == 0 && header(header::RUNG)? == now.rung,
        "the sender's statistics are in its lane's header"
    );
    let words = [control::RECEIVED, control::RESETS, control::BAD, control::LAST_BREACH];
    check!(
        env.controls(me, from, words)? == [5, 1, 0, 0],
        "the receiver's statistics are in the control line"
    );
    let words = [control::CREDIT, control::HANDED, control::BASE, control::BREACH, control::DOUBTS];
    check!(
        env.controls(me, from, words)? == [5, 5, 0, 0, 0],
        "CREDIT and HANDED are 5, and BASE, BREACH and DOUBTS are 0"
    );
    env.step()?;
    env.unlisten(handle)
}
