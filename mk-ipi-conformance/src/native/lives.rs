// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases about the lives of a sender in its lane: what a receiver does when one life ends and the next one begins.

use super::{control, header, hello, tag, Native, BEGIN, CLEAN, FIRST, LINES, LONG};
use crate::env::{Env, Steps, TYPE};
use crate::inbox::digest;
use crate::{check, Outcome};
use mk_ipi_core::abi::Incarnation;
use mk_ipi_core::platform::PeerEvent;
use mk_ipi_core::SendError;

/// Every other kernel sends `old` messages to kernel 1, which does not read them yet. Then each sender begins a new life in its
/// lane to kernel 1: as its next incarnation if `restarted`, else as the same incarnation.
fn new_lives<E: Env>(env: &'static E, old: u64, restarted: bool) -> Outcome {
    env.go_native()?;
    let (before, told) = (env.inbox().count(), env.peer_reports());
    let others = env.kernels() as u64 - 1;
    let life = if restarted { Incarnation::FIRST.next() } else { Incarnation::FIRST };
    let says = |phase| hello(life.get().into(), 2, phase);
    // After the `old` messages of the former life, the receiver looks at K more lines, because that life can have published
    // messages there.
    let base = old + LINES;
    // Interrupts are off at all kernels, so a kernel does only what this code calls.
    env.undisturbed(|| {
        env.step()?;
        env.not_at(1, || {
            check!(
                env.hello_of(1)? == hello(1, 1, FIRST),
                "the first HELLO is incarnation, session, phase First and bit 50"
            );
            env.send_all(1, 0..old)?;
            if restarted {
                env.next_life()?;
            }
            env.attach_again(1)?;
            check!(env.hello_of(1)? == says(BEGIN), "the next HELLO has another session and phase Begin");
            check!(
                env.try_number(1, old) == Err(SendError::Unanswered),
                "nothing can be sent before Begin is answered"
            );
            check!(
                env.post_number(1, old) == Err(SendError::Unanswered),
                "nothing can be posted before Begin is answered"
            );
            env.endpoint().run_deferred();
            check!(
                env.hello_of(1)? == says(BEGIN),
                "no line is set to 0 before Begin is answered, because it can hold an unread message"
            );
            Ok(())
        })?;
        env.at(1, || {
            let rung = env.endpoint().stats().rung;
            env.drain_by_hand()?;
            check!(env.endpoint().stats().rung == rung + others, "an answer to Begin rings the sender");
            env.expect_from_others(before, 0, old)?;
            env.but(1).try_for_each(|lane| {
                let words = [control::ANSWER, control::CREDIT, control::HANDED];
                check!(
                    env.controls(1, lane, words)? == [says(BEGIN), base, base],
                    "the receiver reads all lines of the former life before it answers Begin"
                );
                check!(
                    told.count(lane, |e| matches!(e, PeerEvent::Began(_))) == 0,
                    "a new life is not reported before its Clean"
                );
                Ok(())
            })
        })?;
        env.not_at(1, || {
            env.endpoint().run_deferred();
            check!(env.hello_of(1)? == says(CLEAN), "after the answer to Begin the sender writes Clean");
            env.check_clean(1)?;
            check!(
                env.try_number(1, old) == Err(SendError::Unanswered),
                "nothing can be sent before Clean is answered"
            );
            check!(
                told.count(1, |e| e == PeerEvent::Answered) == 0,
                "no answer is reported before Clean is answered"
            );
            Ok(())
        })?;
        env.at(1, || {
            let rung = env.endpoint().stats().rung;
            env.drain_by_hand()?;
            check!(env.endpoint().stats().rung == rung + others, "an answer to Clean rings the sender");
            env.but(1).try_for_each(|lane| {
                let words =
                    [control::ANSWER, control::BASE, control::CREDIT, control::HANDED, control::BREACH];
                check!(
                    env.controls(1, lane, words)? == [says(CLEAN), base, base, base, 0],
                    "BASE, CREDIT and HANDED are the receiver's position when Clean is answered"
                );
                check!(env.controls(1, lane, [control::RESETS])? == [2], "a new life is counted");
                check!(told.once(lane, PeerEvent::Began(life)), "a new life is reported once");
                Ok(())
            })
        })
    })?;
    env.not_at(1, || {
        check!(env.until(|| told.once(1, PeerEvent::Answered)), "the answer is reported to the sender once");
        check!(env.try_number(1, old) == Ok(base + 1), "the first message number is BASE + 1");
        (old + 1..old + 2 * LINES).try_for_each(|n| env.send_number(1, n))
    })?;
    env.at(1, || {
        env.expect_from_others(before, 0, old + 2 * LINES)?;
        for n in before + old * others..env.inbox().count() {
            check!(
                env.inbox().get(n).is_some_and(|got| got.lives == [life.get(), 1]),
                "each message names the sender's life"
            );
        }
        Ok(())
    })
}

pub(crate) fn a_new_life_follows_the_old_one<E: Env>(env: &'static E) -> Outcome {
    let handle = env.listen()?;
    for old in [0, 3, LINES] {
        new_lives(env, old, false)?;
        new_lives(env, old, true)?;
        // The next round begins as the first incarnation again.
        env.fresh()?;
    }
    env.unlisten(handle)
}

pub(crate) fn gaps_that_a_dead_life_left_are_left_out<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (before, handle, told) = (env.inbox().count(), env.listen()?, env.peer_reports());
    let forge = |position, first: u64, len: u64| {
        env.poke(1, env.line(2, position, 1), len)?;
        (2..8).try_for_each(|word| env.poke(1, env.line(2, position, word), first))?;
        env.poke(1, env.line(2, position, 0), tag(0) | u64::from(TYPE.0) << 32)
    };
    env.with_deaf(1, || {
        env.step()?;
        env.at(2, || {
            env.send_all(1, 0..1)?;
            // Line 1 stays without a tag, as if a crash interrupted a send there. The messages at 2 and 4 are complete.
            forge(2, 102, 48)?;
            forge(4, 104, 1)?;
            // The messages at 3, 5 and 7 are bad. The first has no further line. The second is too long. The third needs three
            // further lines, but the lines after it do not have such tags.
            forge(3, 103, 60)?;
            forge(5, 105, 257)?;
            forge(7, 107, 200)
        })?;
        env.at(1, || {
            env.drain_by_hand()?;
            check!(
                env.inbox().count() == before + 1,
                "the receiver waits for a message that is not stored yet"
            );
            Ok(())
        })?;
        env.at(2, || {
            env.next_life()?;
            env.attach_again(1)
        })?;
        env.at(1, || {
            env.drain_by_hand()?;
            let found =
                |n: u64| env.inbox().get(before + n).map(|got| (got.first, got.len, got.number, got.lives));
            check!(
                found(1) == Some((102, 48, 3, [1, 1])),
                "complete messages after the gap are handed out when the next life begins"
            );
            check!(
                found(2) == Some((104, 1, 5, [1, 1])),
                "a message after the gap names the life that sent it"
            );
            check!(found(3).is_none(), "bad messages after the gap are left out");
            let word = 102u64.to_le_bytes();
            let same = digest(&core::array::from_fn::<_, 48, _>(|n| word[n % 8]));
            check!(
                env.inbox().get(before + 1).is_some_and(|got| got.digest == same),
                "a message after the gap has its own bytes"
            );
            check!(
                told.count(2, |event| matches!(event, PeerEvent::Quarantined(_))) == 0,
                "no breach is reported"
            );
            check!(env.controls(1, 2, [control::DOUBTS])? == [0], "no message is in doubt");
            Ok(())
        })
    })?;
    env.at(2, || env.send_number(1, 1))?;
    env.at(1, || {
        check!(env.until(|| env.inbox().count() == before + 4), "messages of the next life arrive");
        check!(
            env.inbox().get(before + 3).is_some_and(|got| got.lives == [2, 1]),
            "messages of the next life name it"
        );
        Ok(())
    })?;
    env.unlisten(handle)
}

pub(crate) fn lives_that_end_half_way_hold_up_nobody<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (before, handle, told) = (env.inbox().count(), env.listen()?, env.peer_reports());
    env.with_deaf(1, || {
        env.step()?;
        env.not_at(1, || {
            env.send_all(1, 0..2)?;
            // Three lives begin, one after the other, before any of them is answered.
            (0..3).try_for_each(|_| {
                env.next_life()?;
                env.attach_again(1)
            })?;
            check!(env.hello_of(1)? == hello(4, 4, BEGIN), "each life has a session of its own");
            Ok(())
        })?;
        env.at(1, || env.drain_by_hand())?;
        env.not_at(1, || {
            check!(env.until(|| env.hello_of(1) == Ok(hello(4, 4, CLEAN))), "the last life goes on to Clean");
            // That life ends before the receiver answers its Clean. The next life writes Clean too. Before the receiver answers
            // this second Clean, the receiver begins a new life itself.
            env.next_life()?;
            env.attach_again(1)
        })?;
        env.at(1, || env.drain_by_hand())?;
        env.not_at(1, || {
            check!(env.until(|| env.hello_of(1) == Ok(hello(5, 5, CLEAN))), "the next life goes on to Clean");
            Ok(())
        })?;
        // Now the receiver begins a new life. Before that, each ANSWER is overwritten with a life that no sender has.
        env.at(1, || {
            env.detach(1)?;
            env.but(1)
                .try_for_each(|lane| env.poke(1, env.control(lane, control::ANSWER), hello(9, 9, BEGIN)))?;
            env.next_life()?;
            env.attach_native(1)
        })
    })?;
    env.not_at(1, || (2..2 + LINES).try_for_each(|n| env.send_number(1, n)))?;
    env.at(1, || {
        env.expect_from_others(before, 0, 2 + LINES)?;
        check!(told.about(|_, e| matches!(e, PeerEvent::Quarantined(_))) == 0, "no breach is reported");
        env.but(1).try_for_each(|lane| {
            let last = |e| matches!(e, PeerEvent::Began(life) if life.get() == 5);
            check!(told.count(lane, last) >= 1, "the last life is reported");
            Ok(())
        })
    })?;
    env.unlisten(handle)
}

pub(crate) fn a_kernel_that_restarts_whole_is_heard_again<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (before, handle, told) = (env.inbox().count(), env.listen()?, env.peer_reports());
    env.step()?;
    for round in 0..3 {
        for kernel in 0..env.kernels() {
            env.at(kernel, || {
                (0..env.kernels()).try_for_each(|other| env.detach(other))?;
                env.next_life()?;
                (0..env.kernels()).try_for_each(|other| env.attach_native(other))
            })?;
        }
        let two = LONG + 2 * round;
        (two..two + 2).try_for_each(|n| env.but(env.me()).try_for_each(|to| env.send_number(to, n)))?;
        env.expect_from_others(before, LONG, 2 * round + 2)?;
        env.step()?;
        env.endpoint().tick(round, 100);
        check!(!told.anything_became(), "no message is discarded or in doubt");
    }
    env.unlisten(handle)
}

pub(crate) fn the_hello_stands_where_it_is_looked_for<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    for to in 0..env.kernels() {
        check!(
            env.peek(to, env.header(env.me(), header::HELLO))? == hello(1, 1, FIRST),
            "each lane has its sender's HELLO"
        );
        check!(
            env.controls(to, env.me(), [control::ANSWER])? == [hello(1, 1, FIRST)],
            "each control line has the ANSWER to the HELLO of its lane"
        );
    }
    env.step()
}
