// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases about lives: of a sender in its lane, of a receiver, and what each sees of the other.

use super::{control, header, hello, Native, CELLS};
use crate::env::{Env, Steps};
use crate::{check, Failed, Outcome};
use core::cell::Cell;
use mk_ipi_core::abi::Incarnation;
use mk_ipi_core::platform::PeerEvent;
use mk_ipi_core::SendError;

/// The word of LIFE in a region.
const LIFE: usize = 9;

/// We are our own next incarnation from now on.
fn next_life<E: Env>(env: &'static E) -> Result<Incarnation, Failed> {
    let (me, life) = env.endpoint().identity().ok_or(Failed("we know who we are"))?;
    env.endpoint().identify(me, life.next());
    Ok(life.next())
}

/// Every sender begins anew in its lane to kernel 1, after `old` messages that are unread; `restarted`: as its next
/// incarnation.
fn new_lives<E: Env>(env: &'static E, old: u64, restarted: bool) -> Outcome {
    env.go_native()?;
    let (before, told) = (env.inbox().count(), env.told());
    let interrupts = || env.endpoint().stats().interrupts;
    let mark = Cell::new(0);
    let life = if restarted { Incarnation::FIRST.next() } else { Incarnation::FIRST };
    // The receiver sees the other hello when it has read all of the life before.
    let (word, seen_at) = (|lane, word| env.peek(1, env.control(lane, word)), old);
    env.with_deaf(1, || {
        env.step()?;
        env.not_at(1, || {
            let said = env.peek(1, env.header(env.me(), header::HELLO))?;
            check!(said == hello(1, 1, true), "the first hello: incarnation, session, first, bit 49");
            check!((0..old).all(|n| env.try_number(1, n).is_ok()), "a message can be sent");
            if restarted {
                next_life(env)?;
            }
            env.attach_again(1)?;
            let said = env.peek(1, env.header(env.me(), header::HELLO))?;
            check!(said == hello(life.get().into(), 2, false), "the next one: another session, not first");
            check!(env.try_number(1, old) == Err(SendError::Unanswered), "nothing is sent before its answer");
            env.linger();
            mark.set(interrupts());
            Ok(())
        })?;
        env.at(1, || {
            env.drain_by_hand()?;
            env.expect_from_others(before, 0, old)?;
            for lane in (0..env.kernels()).filter(|lane| *lane != 1) {
                let answer = hello(life.get().into(), 2, false);
                check!(
                    word(lane, control::ANSWER)? == answer,
                    "all that was sent is read, then it is answered"
                );
                // The first multiple of C that is at least C behind the receiver's next.
                let base = (seen_at + CELLS).next_multiple_of(CELLS);
                check!(word(lane, control::BASE)? == base, "a new life begins where no lap can be");
                check!(word(lane, control::CREDIT)? == base, "with all cells");
                check!(told.once(lane, PeerEvent::Began(life)), "and is told of");
            }
            Ok(())
        })
    })?;
    env.not_at(1, || {
        check!(env.until(|| interrupts() > mark.get()), "the answer rings");
        (old..old + 2 * CELLS).try_for_each(|n| env.send_number(1, n))?;
        let clean = env.peek(1, env.header(env.me(), header::CLEAN))?;
        check!(clean == hello(life.get().into(), 2, false), "it says that it has cleaned its cells");
        Ok(())
    })?;
    env.at(1, || env.expect_from_others(before, 0, old + 2 * CELLS))
}

pub(crate) fn a_new_life_follows_the_old_one<E: Env>(env: &'static E) -> Outcome {
    let handle = env.listen()?;
    for old in [0, 3, CELLS] {
        new_lives(env, old, false)?;
        new_lives(env, old, true)?;
        // The next round begins as the first incarnation again.
        env.fresh()?;
    }
    env.unlisten(handle)
}

pub(crate) fn what_a_restart_loses_is_told<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (before, handle, told) = (env.inbox().count(), env.listen()?, env.told());
    let lost = || told.count(1, |event| matches!(event, PeerEvent::Lost { .. }));
    env.step()?;
    env.not_at(1, || (0..2).try_for_each(|n| env.send_number(1, n)))?;
    env.at(1, || env.expect_from_others(before, 0, 2))?;
    env.with_deaf(1, || {
        env.step()?;
        env.not_at(1, || (2..5).try_for_each(|n| env.send_number(1, n)))?;
        env.at(1, || {
            next_life(env)?;
            env.attach_again(1)
        })
    })?;
    env.not_at(1, || {
        (0..3).for_each(|now| env.endpoint().tick(now, 100));
        let three = PeerEvent::Lost { first: 2, count: 3 };
        check!(told.once(1, three) && lost() == 1, "the sender is told which, once");
        check!(told.once(1, PeerEvent::Up(Incarnation::FIRST.next())), "and that the receiver is another");
        (5..5 + 2 * CELLS).try_for_each(|n| env.send_number(1, n))
    })?;
    env.at(1, || {
        let senders = env.kernels() as u64 - 1;
        let all = before + senders * (2 + 2 * CELLS);
        check!(env.until(|| env.inbox().count() >= all), "what is sent then arrives");
        env.linger();
        check!(env.inbox().count() == all, "what was unread is not read again");
        for kernel in (0..env.kernels()).filter(|kernel| *kernel != 1) {
            let first = before + senders * 2;
            check!(env.in_order(first, kernel, 5)? == 2 * CELLS, "in order, without another hello");
            let resets = env.peek(1, env.control(kernel, control::RESETS))?;
            check!(resets == 2, "the restart is counted");
        }
        Ok(())
    })?;
    // Another restart loses nothing: all was read.
    env.at(1, || {
        next_life(env)?;
        env.attach_again(1)
    })?;
    env.not_at(1, || {
        env.endpoint().tick(9, 100);
        check!(lost() == 1, "a restart that loses nothing tells of nothing");
        Ok(())
    })?;
    env.unlisten(handle)
}

pub(crate) fn an_attachment_of_the_same_life_loses_nothing<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (before, handle, told) = (env.inbox().count(), env.listen()?, env.told());
    env.with_deaf(1, || {
        env.step()?;
        env.not_at(1, || (0..3).try_for_each(|n| env.send_number(1, n)))?;
        env.at(1, || env.attach_again(1))
    })?;
    env.at(1, || env.expect_from_others(before, 0, 3))?;
    env.not_at(1, || {
        env.endpoint().tick(0, 100);
        let lost = told.count(1, |event| matches!(event, PeerEvent::Lost { .. }));
        check!(lost == 0, "the receiver is the same: nothing is lost");
        Ok(())
    })?;
    env.unlisten(handle)
}

pub(crate) fn a_kernel_that_restarts_whole_is_heard_again<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (before, handle) = (env.inbox().count(), env.listen()?);
    env.step()?;
    for round in 0..3 {
        for kernel in 0..env.kernels() {
            env.at(kernel, || {
                (0..env.kernels()).try_for_each(|other| env.detach(other))?;
                next_life(env)?;
                (0..env.kernels()).try_for_each(|other| env.attach_native(other))
            })?;
        }
        let two = 2 * round;
        (two..two + 2).try_for_each(|n| {
            (0..env.kernels()).filter(|to| *to != env.me()).try_for_each(|to| env.send_number(to, n))
        })?;
        env.expect_from_others(before, 0, two + 2)?;
        env.step()?;
    }
    env.unlisten(handle)
}

pub(crate) fn goodbye_and_a_heartbeat_that_stands_still_are_seen<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let told = env.told();
    let (first, second) = (Incarnation::FIRST, Incarnation::FIRST.next());
    let tick = |now| {
        env.endpoint().tick(now, 10);
        Ok(())
    };
    let look = |now| env.not_at(1, || tick(now));
    let expect = |event: PeerEvent, what: usize| env.me() == 1 || told.count(1, |e| e == event) == what;
    env.step()?;
    check!(env.peek(1, LIFE)? == 1, "LIFE: the incarnation");
    look(0)?;
    look(50)?;
    check!(expect(PeerEvent::Up(first), 1), "the receiver lives");
    check!(expect(PeerEvent::Suspect, 0), "a heart that never beat is no clock");
    env.at(1, || tick(0))?;
    look(100)?;
    look(110)?;
    check!(expect(PeerEvent::Suspect, 0), "patience");
    look(111)?;
    look(130)?;
    check!(expect(PeerEvent::Suspect, 1), "a heartbeat that stands still is told of once");
    env.at(1, || tick(0))?;
    look(131)?;
    check!(expect(PeerEvent::Alive, 1), "and that it beats again");
    look(141)?;
    look(142)?;
    check!(expect(PeerEvent::Suspect, 2), "and that it stands still again");
    env.at(1, || {
        env.endpoint().goodbye();
        check!(env.peek(1, LIFE)? == 1 | 1 << 32, "LIFE: over");
        Ok(())
    })?;
    look(143)?;
    look(200)?;
    check!(expect(PeerEvent::Dead(first), 1), "a goodbye is told of once");
    check!(expect(PeerEvent::Suspect, 2), "and from the dead no heartbeat is expected");
    env.at(1, || {
        check!(next_life(env)? == second, "the next incarnation");
        env.attach_again(1)
    })?;
    look(201)?;
    check!(expect(PeerEvent::Up(second), 1), "the next life is told of");
    check!(
        expect(PeerEvent::Up(first), 1) && expect(PeerEvent::Dead(second), 0),
        "and nothing that is not so"
    );
    env.step()
}
