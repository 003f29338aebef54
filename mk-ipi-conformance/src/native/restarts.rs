// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases about the lives of a receiver: what it leaves to the next one, and what its senders learn.

use super::{control, hello, Native, BELL, FIRST, LINES};
use crate::env::{Env, Steps, TYPE};
use crate::{check, Failed, Outcome};
use mk_ipi_core::abi::Incarnation;
use mk_ipi_core::platform::PeerEvent;
use mk_ipi_core::sync::Ordering::Relaxed;
use mk_ipi_core::SendError;

/// Kernel 1, which nobody interrupts, begins its next life.
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
        // To a life that does not read them, and to nobody.
        env.not_at(1, || env.send_all(1, 2..5))?;
        env.at(1, || env.detach(1))?;
        env.not_at(1, || {
            env.send_all(1, 5..2 + LINES)?;
            check!(env.try_number(1, 2 + LINES) == Err(SendError::Full), "as many as there are lines");
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
                "each names the life that gets it"
            );
        }
        env.but(1).try_for_each(|lane| {
            let words = [control::ANSWER, control::RESETS, control::DOUBTS, control::CREDIT];
            let expected = [hello(1, 1, FIRST), 2, 0, 2 + LINES];
            check!(env.controls(1, lane, words)? == expected, "the lane goes on; the restart is counted");
            check!(
                told.once(lane, PeerEvent::Began(Incarnation::FIRST)),
                "who speaks is told once to each life"
            );
            Ok(())
        })
    })?;
    env.not_at(1, || {
        (0..3).for_each(|now| env.endpoint().tick(now, 100));
        check!(
            told.once(1, PeerEvent::Up(Incarnation::FIRST.next())),
            "the sender learns that it is another"
        );
        check!(!told.anything_became(), "and that is all there is to learn");
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
        // Counts what is as it must be.
        env.inbox().note.fetch_add(told.into(), Relaxed);
        env.inbox().push(m);
    });
    let handle = handle.ok_or(Failed("a handler can be registered"))?;
    env.with_deaf(1, || {
        env.step()?;
        env.not_at(1, || {
            // One, four and three lines.
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
                "HANDED is beyond the message when its handler is called, CREDIT is not"
            );
            env.but(1).try_for_each(|lane| {
                check!(env.controls(1, lane, [control::HANDED, control::CREDIT])? == [8, 8], "then both are");
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
    // A life ends in the handler of the first of two messages, six times.
    for round in 0..6 {
        let number = 2 * round + 1;
        env.with_deaf(1, || {
            env.step()?;
            env.not_at(1, || env.send_all(1, 2 * round..2 * round + 2))?;
            env.at(1, || {
                env.detach(1)?;
                // Just as it would have left the words.
                env.but(1).try_for_each(|lane| {
                    check!(
                        env.controls(1, lane, [control::CREDIT])? == [number - 1],
                        "all before was handled"
                    );
                    env.poke(1, env.control(lane, control::HANDED), number)
                })?;
                env.next_life()?;
                env.attach_native(1)?;
                env.but(1).try_for_each(|lane| {
                    let ring = control::DOUBT + round as usize % 4;
                    let words = [control::DOUBTS, ring, control::CREDIT, control::HANDED];
                    let expected = [round + 1, number, number, number];
                    check!(env.controls(1, lane, words)? == expected, "in doubt: told, then passed");
                    // A life that ended before it had passed it: its next one does not tell it twice.
                    env.poke(1, env.control(lane, control::CREDIT), number - 1)
                })?;
                env.next_life()?;
                env.attach_again(1)?;
                env.but(1).try_for_each(|lane| {
                    let words = [control::DOUBTS, control::CREDIT, control::HANDED];
                    check!(env.controls(1, lane, words)? == [round + 1, number, number], "once");
                    Ok(())
                })
            })
        })?;
        env.not_at(1, || {
            (0..3).for_each(|now| env.endpoint().tick(now, 100));
            check!(doubts(number) == 1 && all() as u64 == round + 1, "the sender is told which, once");
            Ok(())
        })?;
        env.at(1, || {
            let total = before + (round + 1) * (env.kernels() as u64 - 1);
            check!(env.until(|| env.inbox().count() == total), "what lies behind it is the next life's");
            Ok(())
        })?;
    }
    env.not_at(1, || {
        check!(env.endpoint().handled(E::id(1)) == Ok(12), "all are through");
        check!(
            told.count(1, |event| matches!(event, PeerEvent::Discarded { .. })) == 0,
            "and none given back"
        );
        env.send_number(1, 12)
    })?;
    env.at(1, || {
        let others = env.kernels() as u64 - 1;
        check!(env.until(|| env.inbox().count() == before + 7 * others), "and it goes on");
        env.linger();
        check!(env.inbox().count() == before + 7 * others, "with nothing twice");
        for n in before..before + 7 * others {
            let first = env.inbox().get(n).map(|got| got.first & 0xffff_ffff);
            check!(first.is_some_and(|n| n % 2 == 1 || n == 12), "those in doubt were not handed out again");
        }
        Ok(())
    })?;
    env.unlisten(handle)
}

pub(crate) fn words_that_a_dead_life_cannot_have_meant_are_not_believed<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (before, handle, told) = (env.inbox().count(), env.listen()?, env.peer_reports());
    env.step()?;
    // Credit, handed: too far ahead of each other, of everything, or of what was sent.
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
            // Whatever it is that is found out: a life that is attached anew is heard.
            env.attach_again(1)?;
            env.send_number(1, n)
        })?;
        env.at(1, || {
            let is_new = |n: &u64| env.inbox().get(*n).is_some_and(|got| got.first & 0xffff_ffff < 1000);
            let all = || (before..env.inbox().count()).filter(is_new);
            let total = (n + 1) * (env.kernels() as u64 - 1);
            check!(env.until(|| all().count() as u64 == total), "each of the next life's messages arrives");
            let breaches = told.about(|_, event| matches!(event, PeerEvent::Quarantined(_)));
            check!(breaches == 0, "and nobody is accused of what our own former life wrote");
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
            check!(env.peek(1, BELL)? == 0, "it begins without a bell");
            Ok(())
        })
    })?;
    env.at(1, || env.expect_from_others(before, 0, 3))?;
    env.not_at(1, || {
        env.endpoint().tick(0, 100);
        check!(!told.anything_became(), "the receiver is the same: nothing became of anything");
        Ok(())
    })?;
    env.at(1, || {
        env.but(1).try_for_each(|lane| {
            check!(env.controls(1, lane, [control::RESETS])? == [1], "nor is that a restart");
            Ok(())
        })
    })?;
    env.unlisten(handle)
}

/// The last of the cases about lanes: from then on every life of kernel 1 gives back what it did not read.
pub(crate) fn a_life_may_give_back_what_was_unread<E: Env>(env: &'static E) -> Outcome {
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
            // Numbers 3 and 8: one line, and five.
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
                    "what is given back, and where it goes on"
                );
                Ok(())
            })
        })
    })?;
    env.not_at(1, || {
        (0..3).for_each(|now| env.endpoint().tick(now, 100));
        check!(discarded(2, 8) == 1 && all() == 1, "the sender is told, once");
        check!(
            told.count(1, |event| matches!(event, PeerEvent::InDoubt { .. })) == 0,
            "nothing of it was handled"
        );
        (2..4).try_for_each(|n| env.send_number(1, n))
    })?;
    env.at(1, || env.expect_from_others(before, 0, 4))?;
    env.with_deaf(1, || {
        env.step()?;
        env.not_at(1, || env.send_all(1, 4..6))?;
        // The same life, attached anew, is no new life.
        env.at(1, || env.attach_again(1))
    })?;
    env.at(1, || env.expect_from_others(before, 0, 6))?;
    env.with_deaf(1, || {
        env.step()?;
        // A life that ended in a handler, and one that had nothing unread.
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
        check!(told.once(1, PeerEvent::InDoubt { number: 13 }), "what it was at is in doubt");
        check!(
            discarded(13, 15) == 1 && all() == 2,
            "what lies behind is given back, all else was told before"
        );
        env.send_number(1, 6)
    })?;
    env.at(1, || env.expect_from_others(before, 0, 7))?;
    env.unlisten(handle)
}
