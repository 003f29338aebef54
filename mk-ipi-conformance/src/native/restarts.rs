// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases about the lives of a receiver: which messages the next life hands out, and which events the senders get.
//!
//! The number of a message is the position after its last line. `send_all` and `send_number` count the messages instead, from 0:
//! this count is called `n` here.

use super::{control, hello, Native, BELL, FIRST, LINES};
use crate::env::{Env, Steps, TYPE};
use crate::{check, Failed, Outcome};
use mk_ipi_core::abi::Incarnation;
use mk_ipi_core::platform::PeerEvent;
use mk_ipi_core::sync::Ordering::Relaxed;
use mk_ipi_core::SendError;

/// Kernel 1 begins its next life. The caller has switched the interrupts of kernel 1 off.
fn restart<E: Env>(env: &'static E) -> Outcome {
    env.at(1, || {
        env.next_life()?;
        env.attach_again(1)
    })
}

pub(crate) fn what_was_unread_is_delivered_to_the_next_life<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (before, handle, told) = (env.inbox().count(), env.listen()?, env.peer_reports());
    let others = env.kernels() as u64 - 1;
    env.step()?;
    env.not_at(1, || env.send_all(1, 0..2))?;
    env.at(1, || env.expect_from_others(before, 0, 2))?;
    env.with_deaf(1, || {
        env.step()?;
        // The messages with `n` from 2 to 4 are sent to a life that does not read them. The later ones are sent after that life
        // has ended.
        env.not_at(1, || env.send_all(1, 2..5))?;
        env.at(1, || env.detach(1))?;
        env.not_at(1, || {
            env.send_all(1, 5..2 + LINES)?;
            check!(env.try_number(1, 2 + LINES) == Err(SendError::Full), "a full lane takes no more");
            Ok(())
        })?;
        restart(env)
    })?;
    env.at(1, || {
        env.expect_from_others(before, 0, 2 + LINES)?;
        for n in before..env.inbox().count() {
            let life = if n < before + 2 * others { 1 } else { 2 };
            check!(
                env.inbox().get(n).is_some_and(|got| got.lives == [1, life]),
                "each message has the incarnations of the sender's life and of the receiver's life that handles it"
            );
        }
        env.but(1).try_for_each(|lane| {
            let words = [control::ANSWER, control::RESETS, control::DOUBTS, control::CREDIT];
            let expected = [hello(1, 1, FIRST), 2, 0, 2 + LINES];
            check!(
                env.controls(1, lane, words)? == expected,
                "the sender's life goes on in its lane, and the restart is counted"
            );
            check!(
                told.once(lane, PeerEvent::Began(Incarnation::FIRST)),
                "the receiver's next life gets one event Began for the sender's life"
            );
            Ok(())
        })
    })?;
    env.not_at(1, || {
        (0..3).for_each(|now| env.endpoint().tick(now, 100));
        check!(
            told.once(1, PeerEvent::Up(Incarnation::FIRST.next())),
            "the sender gets one event Up for the receiver's new life"
        );
        check!(!told.anything_became(), "no message is reported as discarded or in doubt");
        (2 + LINES..2 + 3 * LINES).try_for_each(|n| env.send_number(1, n))
    })?;
    env.at(1, || env.expect_from_others(before, 0, 2 + 3 * LINES))?;
    env.unlisten(handle)
}

pub(crate) fn a_handler_runs_between_handed_and_credit<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let before = env.inbox().count();
    let handle = env.register(TYPE, |env, m| {
        let lane = m.sender().map(|id| id.index()).ok_or(Failed("a native message has a sender"));
        let found = lane.and_then(|lane| env.controls(env.me(), lane, [control::HANDED, control::CREDIT]));
        let told = found.is_ok_and(|[handed, credit]| Some(handed) == m.number() && credit < handed);
        // Counts the calls in which HANDED and CREDIT have the expected values.
        env.inbox().note.fetch_add(told.into(), Relaxed);
        env.inbox().push(m);
    });
    let handle = handle.ok_or(Failed("a handler can be registered"))?;
    env.with_deaf(1, || {
        env.step()?;
        env.not_at(1, || {
            // Messages of one, four and three lines.
            env.send_all(1, 0..1)?;
            check!([200, 160].iter().all(|len| env.try_send(1, 0, *len).is_ok()), "a message can be sent");
            Ok(())
        })?;
        env.at(1, || {
            env.drain_by_hand()?;
            let count = env.inbox().count() - before;
            check!(count == 3 * (env.kernels() as u64 - 1), "every message arrives");
            check!(
                env.inbox().note.load(Relaxed) == count,
                "while a handler runs, HANDED is the position after its message, and CREDIT is smaller"
            );
            env.but(1).try_for_each(|lane| {
                check!(
                    env.controls(1, lane, [control::HANDED, control::CREDIT])? == [8, 8],
                    "after the drain HANDED and CREDIT are the position after the last message"
                );
                Ok(())
            })
        })
    })?;
    env.unlisten(handle)
}

pub(crate) fn the_message_that_a_dead_life_was_at_is_in_doubt<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (before, handle, told) = (env.inbox().count(), env.listen()?, env.peer_reports());
    let doubts = |number| told.count(1, |event| event == PeerEvent::InDoubt { number });
    let all = || told.count(1, |event| matches!(event, PeerEvent::InDoubt { .. }));
    env.step()?;
    // Each of six rounds simulates that a life of kernel 1 ends in the handler of the first of two messages.
    for round in 0..6 {
        let number = 2 * round + 1;
        env.with_deaf(1, || {
            env.step()?;
            env.not_at(1, || env.send_all(1, 2 * round..2 * round + 2))?;
            env.at(1, || {
                env.detach(1)?;
                // No handler runs here. HANDED gets the number of the first message, as if the life had ended in the handler of that
                // message.
                env.but(1).try_for_each(|lane| {
                    check!(
                        env.controls(1, lane, [control::CREDIT])? == [number - 1],
                        "all earlier messages were handled"
                    );
                    env.poke(1, env.control(lane, control::HANDED), number)
                })?;
                env.next_life()?;
                env.attach_native(1)?;
                env.but(1).try_for_each(|lane| {
                    let ring = control::DOUBT + round as usize % 4;
                    let words = [control::DOUBTS, ring, control::CREDIT, control::HANDED];
                    let expected = [round + 1, number, number, number];
                    check!(
                        env.controls(1, lane, words)? == expected,
                        "the message's number is in DOUBT, and CREDIT and HANDED are the position after the message"
                    );
                    // Sets CREDIT back, as if the life that was attached above had ended after it stored DOUBT and DOUBTS, and
                    // before it stored CREDIT. The next life must not store the same number to DOUBT again.
                    env.poke(1, env.control(lane, control::CREDIT), number - 1)
                })?;
                env.next_life()?;
                env.attach_again(1)?;
                env.but(1).try_for_each(|lane| {
                    let words = [control::DOUBTS, control::CREDIT, control::HANDED];
                    check!(
                        env.controls(1, lane, words)? == [round + 1, number, number],
                        "the next life does not count the same message in DOUBTS again"
                    );
                    Ok(())
                })
            })
        })?;
        env.not_at(1, || {
            (0..3).for_each(|now| env.endpoint().tick(now, 100));
            check!(
                doubts(number) == 1 && all() as u64 == round + 1,
                "the sender gets one event InDoubt with the message's number"
            );
            Ok(())
        })?;
        env.at(1, || {
            let total = before + (round + 1) * (env.kernels() as u64 - 1);
            check!(
                env.until(|| env.inbox().count() == total),
                "the next life gets the message after the one in doubt"
            );
            Ok(())
        })?;
    }
    env.not_at(1, || {
        check!(env.endpoint().handled(E::id(1)) == Ok(12), "all messages count as handled");
        check!(
            told.count(1, |event| matches!(event, PeerEvent::Discarded { .. })) == 0,
            "no message is reported as discarded"
        );
        env.send_number(1, 12)
    })?;
    env.at(1, || {
        let others = env.kernels() as u64 - 1;
        check!(
            env.until(|| env.inbox().count() == before + 7 * others),
            "a message after all restarts arrives"
        );
        env.linger();
        check!(env.inbox().count() == before + 7 * others, "no message arrives twice");
        for n in before..before + 7 * others {
            let first = env.inbox().get(n).map(|got| got.first & 0xffff_ffff);
            check!(
                first.is_some_and(|n| n % 2 == 1 || n == 12),
                "a message in doubt is not handed out again"
            );
        }
        Ok(())
    })?;
    env.unlisten(handle)
}

pub(crate) fn impossible_positions_of_a_dead_life_do_not_stop_new_senders<E: Env>(
    env: &'static E,
) -> Outcome {
    env.go_native()?;
    let (before, handle, told) = (env.inbox().count(), env.listen()?, env.peer_reports());
    env.step()?;
    // CREDIT and HANDED: too far apart, too large, or beyond what was sent.
    let words = [[0, LINES + 1], [1 << 62, 1 << 62], [u64::MAX, 0], [0, u64::MAX], [40, 41]];
    for (n, [credit, handed]) in (0..).zip(words) {
        env.with_deaf(1, || {
            env.step()?;
            env.at(1, || {
                env.detach(1)?;
                env.but(1).try_for_each(|lane| {
                    env.poke(1, env.control(lane, control::CREDIT), credit)?;
                    env.poke(1, env.control(lane, control::HANDED), handed)
                })?;
                env.next_life()?;
                env.attach_native(1)
            })
        })?;
        env.not_at(1, || {
            (0..LINES).for_each(|n| _ = env.try_number(1, 1000 + n));
            // Even if the receiver found wrong words, it must take the messages of a sender's life that begins now.
            env.attach_again(1)?;
            env.send_number(1, n)
        })?;
        env.at(1, || {
            let is_new = |n: &u64| env.inbox().get(*n).is_some_and(|got| got.first & 0xffff_ffff < 1000);
            let all = || (before..env.inbox().count()).filter(is_new);
            let total = (n + 1) * (env.kernels() as u64 - 1);
            check!(
                env.until(|| all().count() as u64 == total),
                "every message of a sender's new life arrives"
            );
            let breaches = told.about(|_, event| matches!(event, PeerEvent::Quarantined(_)));
            check!(
                breaches == 0,
                "no sender is put into quarantine because of words that our former life wrote"
            );
            Ok(())
        })?;
    }
    env.unlisten(handle)
}

pub(crate) fn an_attachment_of_the_same_life_loses_nothing<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (before, handle, told) = (env.inbox().count(), env.listen()?, env.peer_reports());
    env.with_deaf(1, || {
        env.step()?;
        env.not_at(1, || env.send_all(1, 0..3))?;
        env.at(1, || {
            env.poke(1, BELL, 1)?;
            env.attach_again(1)?;
            check!(env.peek(1, BELL)? == 0, "BELL is 0 after an attachment");
            Ok(())
        })
    })?;
    env.at(1, || env.expect_from_others(before, 0, 3))?;
    env.not_at(1, || {
        env.endpoint().tick(0, 100);
        check!(
            !told.anything_became(),
            "after an attachment of the same life no sender is told that a message is discarded or in doubt"
        );
        Ok(())
    })?;
    env.at(1, || {
        env.but(1).try_for_each(|lane| {
            check!(
                env.controls(1, lane, [control::RESETS])? == [1],
                "an attachment of the same life is not counted as a restart"
            );
            Ok(())
        })
    })?;
    env.unlisten(handle)
}

/// This must stay the last case. It calls `discard_unread`, so every later life of kernel 1 discards the unread messages.
pub(crate) fn a_life_may_discard_what_was_unread<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (before, handle, told) = (env.inbox().count(), env.listen()?, env.peer_reports());
    let discarded = |after, to| told.count(1, |event| event == PeerEvent::Discarded { after, to });
    let all = || told.count(1, |event| matches!(event, PeerEvent::Discarded { .. }));
    env.step()?;
    env.not_at(1, || env.send_all(1, 0..2))?;
    env.at(1, || env.expect_from_others(before, 0, 2))?;
    env.with_deaf(1, || {
        env.step()?;
        env.not_at(1, || {
            // The message with `n` = 2 takes one line and has number 3. The next one takes five lines and has number 8.
            env.send_all(1, 2..3)?;
            check!(env.try_send(1, 0, 256) == Ok(8), "a message can be sent");
            Ok(())
        })?;
        env.at(1, || {
            env.endpoint().discard_unread();
            Ok(())
        })?;
        restart(env)?;
        env.at(1, || {
            env.but(1).try_for_each(|lane| {
                let words = [control::DISCARD_FROM, control::DISCARD_TO, control::CREDIT, control::HANDED];
                check!(
                    env.controls(1, lane, words)? == [2, 8, 8, 8],
                    "the discarded messages are from DISCARD_FROM to DISCARD_TO, and CREDIT is after them"
                );
                Ok(())
            })
        })
    })?;
    env.not_at(1, || {
        (0..3).for_each(|now| env.endpoint().tick(now, 100));
        check!(discarded(2, 8) == 1 && all() == 1, "the sender gets one event Discarded with both positions");
        check!(
            told.count(1, |event| matches!(event, PeerEvent::InDoubt { .. })) == 0,
            "no discarded message is in doubt"
        );
        (2..4).try_for_each(|n| env.send_number(1, n))
    })?;
    env.at(1, || env.expect_from_others(before, 0, 4))?;
    env.with_deaf(1, || {
        env.step()?;
        env.not_at(1, || env.send_all(1, 4..6))?;
        // An attachment of the same life discards nothing.
        env.at(1, || env.attach_again(1))
    })?;
    env.at(1, || env.expect_from_others(before, 0, 6))?;
    env.with_deaf(1, || {
        env.step()?;
        // One life ends in the handler of the message with number 13 (`n` = 6). The next life discards the messages after it. The life after that finds no
        // unread message.
        env.not_at(1, || env.send_all(1, 6..9))?;
        env.at(1, || {
            env.detach(1)?;
            env.but(1).try_for_each(|lane| env.poke(1, env.control(lane, control::HANDED), 13))?;
            env.next_life()?;
            env.attach_native(1)
        })?;
        restart(env)
    })?;
    env.not_at(1, || {
        (3..6).for_each(|now| env.endpoint().tick(now, 100));
        check!(
            told.once(1, PeerEvent::InDoubt { number: 13 }),
            "a message whose number is in HANDED, but above CREDIT, is in doubt"
        );
        check!(
            discarded(13, 15) == 1 && all() == 2,
            "the messages after the one in doubt are reported as discarded, once"
        );
        env.send_number(1, 6)
    })?;
    env.at(1, || env.expect_from_others(before, 0, 7))?;
    env.unlisten(handle)
}
