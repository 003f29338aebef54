// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases about senders and receivers that break the protocol.

use super::{control, header, hello, tag, Native, BEGIN, CLEAN, FIRST, FURTHER, LINES};
use crate::env::{Env, Steps, TYPE};
use crate::{check, Failed, Outcome};
use mk_ipi_core::abi::native::Breach;
use mk_ipi_core::platform::PeerEvent;
use mk_ipi_core::SendError;

/// The kernel that acts as the hostile sender.
const BAD: usize = 2;

/// An attack: the breach that the receiver must report, the number of correct messages before the breach, and the function that
/// stores the wrong words.
type Attack<E> = (Breach, u64, fn(&'static E, u64) -> Outcome);

/// Stores a message in the hostile kernel's lane at `position`: word 1 is `about`, and word 0 has this tag.
fn forge<E: Env>(env: &'static E, position: u64, tag: u64, about: u64) -> Outcome {
    env.poke(1, env.line(BAD, position, 1), about)?;
    env.poke(1, env.line(BAD, position, 0), tag | u64::from(TYPE.0) << 32)
}

/// Stores a message of two lines in the hostile kernel's lane at `position`. The second line has the tag `second`.
fn forge_two<E: Env>(env: &'static E, position: u64, second: u64) -> Outcome {
    env.poke(1, env.line(BAD, position + 1, 0), second)?;
    forge(env, position, tag(0), 60)
}

/// Stores HELLO in the hostile kernel's lane.
fn store_hello<E: Env>(env: &'static E, word: u64) -> Outcome {
    env.poke(1, env.header(BAD, header::HELLO), word)
}

fn attacks<E: Env>() -> [Attack<E>; 14] {
    [
        (Breach::Tag, 1, |env, p| forge(env, p, tag(1), 8)),
        (Breach::Tag, 0, |env, p| forge(env, p, tag(2), 8)),
        (Breach::Tag, 2, |env, p| forge(env, p, tag((1 << 29) - 1), 8)),
        (Breach::Tag, 0, |env, p| forge(env, p, tag(0) | FURTHER, 8)),
        (Breach::Tag, 1, |env, p| forge_two(env, p, tag(0))),
        (Breach::Tag, 0, |env, p| forge_two(env, p, tag(1) | FURTHER)),
        (Breach::Tag, 0, |env, p| forge_two(env, p, 0)),
        (Breach::Length, 2, |env, p| forge(env, p, tag(0), 257)),
        (Breach::Length, 0, |env, p| forge(env, p, tag(0), u64::MAX)),
        (Breach::Length, 1, |env, p| forge(env, p, tag(0), 1 << 31)),
        (Breach::Hello, 3, |env, _| store_hello(env, 5)),
        (Breach::Hello, 0, |env, _| store_hello(env, hello(0, 2, BEGIN))),
        (Breach::Hello, 0, |env, _| store_hello(env, hello(1, 9, FIRST))),
        (Breach::Hello, 2, |env, _| store_hello(env, hello(1, 2, BEGIN) | 1 << 51)),
    ]
}

/// Runs an attack. Checks the quarantine at the receiver, that the other kernels can still send, and the errors and events of the
/// hostile kernel. Then the hostile kernel begins a new life, whose messages must arrive.
fn attack<E: Env>(env: &'static E, (breach, honest, store): Attack<E>) -> Outcome {
    env.go_native()?;
    let (before, told) = (env.inbox().count(), env.peer_reports());
    let quarantined = env.endpoint().stats().quarantined;
    let others = || env.but(1).filter(|kernel| *kernel != BAD);
    env.step()?;
    env.at(BAD, || env.send_all(1, 0..honest))?;
    env.at(1, || {
        check!(
            env.until(|| env.inbox().count() == before + honest),
            "correct messages before the breach arrive"
        );
        Ok(())
    })?;
    env.at(BAD, || {
        store(env, honest)?;
        env.ring(1)
    })?;
    env.at(1, || {
        let event = PeerEvent::Quarantined(breach);
        check!(env.until(|| told.once(BAD, event)), "the breach is found, and reported once");
        check!(env.endpoint().stats().quarantined == quarantined + 1, "the quarantine is counted");
        check!(
            env.in_order(before, BAD, 0)? == honest,
            "messages before the breach are delivered, and no others"
        );
        let words = [control::BREACH, control::LAST_BREACH, control::BAD];
        check!(
            env.controls(1, BAD, words)? == [breach as u64, breach as u64, 1],
            "the breach is in the control line, where the sender can read it"
        );
        let words = [control::ANSWER, control::CREDIT, control::HANDED];
        check!(
            env.controls(1, BAD, words)? == [hello(1, 1, FIRST), honest, honest],
            "ANSWER, CREDIT and HANDED stay as they were before the breach"
        );
        Ok(())
    })?;
    // The other kernels send more messages than a lane has lines.
    for n in 0..LINES + 2 {
        check!(
            env.me() == 1 || env.me() == BAD || env.send_number(1, n).is_ok(),
            "the other kernels can send"
        );
    }
    let all = before + honest + (LINES + 2) * others().count() as u64;
    env.at(1, || {
        check!(env.until(|| env.inbox().count() >= all), "messages on the other lanes arrive");
        others().try_for_each(|kernel| {
            check!(
                env.in_order(before, kernel, 0)? == LINES + 2,
                "all messages on the other lanes arrive in order"
            );
            Ok(())
        })
    })?;
    env.at(BAD, || {
        let full = (0..=LINES).map(|n| env.try_number(1, 100 + n)).find_map(Result::err);
        check!(full == Some(SendError::Quarantined), "a send of the kernel in quarantine gives Quarantined");
        let lane = env.endpoint().lane_stats(E::id(1)).map_err(|_| Failed("a lane has statistics"))?;
        check!(
            lane.bad == 1 && lane.last_breach == Some(breach),
            "the statistics of the kernel in quarantine have the number of breaches and the last breach"
        );
        (0..3).for_each(|now| env.endpoint().tick(now, 100));
        check!(told.once(1, PeerEvent::Refused(breach)), "the kernel in quarantine gets one event Refused");
        // The hostile kernel fills its lines with wrong tags of several kinds. Its next life must set them to 0.
        let tags = [tag(1 << 29), tag(0), tag(1) | FURTHER, tag(1), tag(2), tag(0) | FURTHER];
        (0..LINES).try_for_each(|p| forge(env, p, tags[p as usize % 6], 8))?;
        env.attach_again(1)?;
        (200..200 + 2 * LINES).try_for_each(|n| env.send_number(1, n))
    })?;
    env.at(1, || {
        check!(env.until(|| env.inbox().count() >= all + 2 * LINES), "messages of its next life arrive");
        check!(
            env.in_order(all, BAD, 200)? == 2 * LINES,
            "all messages of its next life arrive, and no message of the former life"
        );
        check!(env.controls(1, BAD, [control::BREACH])? == [0], "the next life ends the quarantine");
        let breaches = told.about(|_, event| matches!(event, PeerEvent::Quarantined(_)));
        check!(breaches == 1, "no other kernel is put into quarantine");
        Ok(())
    })
}

pub(crate) fn a_breach_ends_in_quarantine_until_the_next_life<E: Env>(env: &'static E) -> Outcome {
    let handle = env.listen()?;
    attacks().into_iter().try_for_each(|how| attack(env, how))?;
    env.unlisten(handle)
}

pub(crate) fn what_is_no_breach_changes_nothing<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (before, handle, told) = (env.inbox().count(), env.listen()?, env.peer_reports());
    env.step()?;
    env.at(BAD, || env.send_all(1, 0..1))?;
    env.at(1, || {
        check!(env.until(|| env.inbox().count() == before + 1), "a message arrives");
        Ok(())
    })?;
    // Values for word 0 of the next line: tags of former laps, and words that are not a tag. Meanwhile HELLO is 0.
    for stale in [0, tag((1 << 30) - 1), tag(1 << 29), tag((1 << 30) - 1) | FURTHER, 7] {
        env.at(BAD, || {
            forge(env, 1, stale, 8)?;
            store_hello(env, 0)?;
            env.ring(1)
        })?;
        env.at(1, || {
            let _ = env.endpoint().poll();
            env.linger();
            check!(env.inbox().count() == before + 1, "a line with a stale tag delivers no message");
            Ok(())
        })?;
    }
    env.at(BAD, || {
        store_hello(env, hello(1, 1, FIRST))?;
        env.send_all(1, 1..LINES)
    })?;
    env.at(1, || {
        check!(
            env.until(|| env.inbox().count() == before + LINES),
            "correct messages after stale tags arrive"
        );
        check!(env.in_order(before, BAD, 0)? == LINES, "correct messages after stale tags arrive in order");
        let breaches = told.about(|_, event| matches!(event, PeerEvent::Quarantined(_)));
        check!(breaches == 0, "no breach is reported");
        Ok(())
    })?;
    env.unlisten(handle)
}

pub(crate) fn a_receiver_that_contradicts_itself_is_noticed<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let told = env.peer_reports();
    let scribble = |word, value: u64| {
        env.at(1, || env.but(1).try_for_each(|lane| env.poke(1, env.control(lane, word), value)))
    };
    let expect = |error| {
        env.not_at(1, || {
            check!(
                env.try_number(1, 0) == Err(error),
                "a send is refused while the receiver's words do not allow it"
            );
            Ok(())
        })
    };
    env.with_deaf(1, || {
        env.step()?;
        env.not_at(1, || env.send_all(1, 0..LINES))?;
        for credit in [LINES + 1, 1 << 40, u64::MAX, u64::MAX - 1] {
            scribble(control::CREDIT, credit)?;
            expect(SendError::Broken)?;
            let handled = env.endpoint().handled(E::id(1));
            check!(
                env.me() == 1 || handled == Err(SendError::Broken),
                "`handled` refuses a CREDIT that is impossible"
            );
            env.step()?;
        }
        // CREDIT is possible again, and the sender continues: three lines are free, and it uses all three.
        scribble(control::CREDIT, 3)?;
        env.not_at(1, || env.send_all(1, LINES..LINES + 3))?;
        scribble(control::CREDIT, 2)?;
        expect(SendError::Broken)?;
        scribble(control::CREDIT, 4)?;
        // These ANSWER words are for another session, for another incarnation, for an unknown life, and not valid at all. After
        // each of them the sender must assume that the receiver does not know the sender's life any more.
        for answer in [hello(1, 2, CLEAN), hello(2, 1, FIRST), hello(9, 9, BEGIN), u64::MAX] {
            scribble(control::ANSWER, answer)?;
            expect(SendError::Broken)?;
        }
        scribble(control::ANSWER, hello(1, 1, FIRST))?;
        env.not_at(1, || {
            env.send_all(1, LINES + 3..LINES + 4)?;
            env.attach_again(1)?;
            check!(env.hello_of(1)? == hello(1, 2, BEGIN), "a new life writes Begin");
            check!(
                env.try_number(1, 0) == Err(SendError::Unanswered),
                "a life without an answer cannot send"
            );
            Ok(())
        })?;
        // None of these ANSWER words is the answer to that Begin.
        for answer in [hello(1, 2, FIRST), hello(1, 3, BEGIN), hello(2, 2, BEGIN), hello(1, 1, FIRST), 0] {
            scribble(control::ANSWER, answer)?;
            expect(SendError::Unanswered)?;
        }
        env.not_at(1, || {
            check!(
                told.count(1, |event| event == PeerEvent::Answered) == 0,
                "a wrong ANSWER word gives no event Answered"
            );
            Ok(())
        })?;
        scribble(control::ANSWER, hello(1, 2, BEGIN))?;
        expect(SendError::Unanswered)?;
        env.not_at(1, || {
            check!(
                env.hello_of(1)? == hello(1, 2, CLEAN),
                "after the answer to Begin the sender writes Clean"
            );
            env.check_clean(1)
        })?;
        // These BASE words are larger than a position can be.
        for base in [1 << 62, 1 << 63, u64::MAX] {
            scribble(control::BASE, base)?;
            scribble(control::ANSWER, hello(1, 2, CLEAN))?;
            expect(SendError::Unanswered)?;
        }
        scribble(control::CREDIT, 1001)?;
        scribble(control::BASE, 1001)?;
        env.not_at(1, || {
            check!(env.try_number(1, 0) == Ok(1002), "the sender begins at BASE if BASE is possible");
            let found = env.peek(1, env.line(env.me(), 1001, 0))?;
            check!(
                found == tag(1001 / LINES) | u64::from(TYPE.0) << 32,
                "the tag has the lap of that position"
            );
            Ok(())
        })
    })?;
    env.step()
}

pub(crate) fn what_cannot_have_become_of_messages_is_not_told<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let told = env.peer_reports();
    // Each message takes one line, so their numbers are 1 to 4.
    env.not_at(1, || (0..4).try_for_each(|n| env.send_number(1, n)))?;
    let scribble = |words: [(usize, u64); 2]| {
        env.at(1, || {
            env.but(1).try_for_each(|lane| {
                words.into_iter().try_for_each(|(word, value)| env.poke(1, env.control(lane, word), value))
            })
        })?;
        env.not_at(1, || {
            env.endpoint().tick(0, 1);
            check!(!told.anything_became(), "the sender gets no report about messages that it never sent");
            Ok(())
        })
    };
    // Wrong values of DISCARD_FROM and DISCARD_TO: above the last number, in the wrong order, and equal.
    for (after, to) in [(0, 5), (3, u64::MAX), (4, 2), (3, 3), (u64::MAX, 4)] {
        scribble([(control::DISCARD_FROM, after), (control::DISCARD_TO, to)])?;
    }
    // Wrong values of DOUBT: 0, and numbers above the last one.
    for (n, number) in (0..).zip([0, 5, u64::MAX, 1 << 40, 0, 6]) {
        scribble([(control::DOUBT + n % 4, number), (control::DOUBTS, n as u64 + 1)])?;
    }
    // First DOUBTS goes down. Then it gets the largest value, so the sender reads all four entries of DOUBT.
    scribble([(control::DOUBT, u64::MAX), (control::DOUBTS, 2)])?;
    scribble([(control::DOUBT + 1, u64::MAX), (control::DOUBTS, u64::MAX)])?;
    env.step()
}
