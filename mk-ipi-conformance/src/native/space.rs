// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases about a lane that is full: what is refused, who waits, and what a waiter is told.

use super::{header, tag, Native, LARGE, LINES};
use crate::env::{Env, Steps, TYPE};
use crate::{check, Outcome};
use mk_ipi_core::abi::native::Breach;
use mk_ipi_core::platform::PeerEvent;
use mk_ipi_core::SendError;

pub(crate) fn a_full_lane_refuses_and_tells_of_space<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (before, handle, told) = (env.inbox().count(), env.listen()?, env.peer_reports());
    let want = || env.endpoint().want_space(E::id(1), 8);
    env.with_deaf(1, || {
        env.step()?;
        env.not_at(1, || {
            check!(want() == Ok(true), "an empty lane has space");
            env.send_all(1, 0..LINES)?;
            let (lines, full) = (env.lines(1)?, env.endpoint().stats().full);
            check!(env.try_number(1, LINES) == Err(SendError::Full), "and no more");
            check!(
                env.endpoint().post(E::id(1), TYPE, &[1]) == Err(SendError::Full),
                "neither sent nor posted"
            );
            check!(env.lines(1)? == lines, "a refusal changes no line");
            check!(env.endpoint().lane_stats(E::id(1)).is_ok_and(|l| l.number == LINES), "nor takes one");
            check!(env.endpoint().stats().full == full + 2, "it is counted");
            check!(env.peek(1, env.header(env.me(), header::FULL))? >= 2, "in the lane too");
            check!(want() == Ok(false), "a full lane has no space");
            check!(
                env.peek(1, env.header(env.me(), header::WANT))? == 1,
                "WANT: the credit that is waited for"
            );
            env.linger();
            check!(!told.once(1, PeerEvent::Space), "nor is there while the receiver reads nothing");
            Ok(())
        })
    })?;
    env.not_at(1, || {
        check!(env.until(|| told.once(1, PeerEvent::Space)), "space is told of");
        check!(env.try_number(1, LINES).is_ok(), "and there is some");
        (0..3).for_each(|_| _ = env.endpoint().run_deferred());
        check!(told.once(1, PeerEvent::Space), "once for each time that it is asked for");
        Ok(())
    })?;
    env.at(1, || env.expect_from_others(before, 0, LINES + 1))?;
    env.unlisten(handle)
}

pub(crate) fn space_is_told_of_when_the_message_fits<E: Env>(env: &'static E) -> Outcome {
    env.go_native_as(LARGE)?;
    let (before, handle, told) = (env.inbox().count(), env.listen()?, env.peer_reports());
    let want = || env.peek(1, LARGE.lane(env.kernels(), 0) + header::WANT);
    // A budget is 8 messages, here of one line each.
    let reads = |budgets| {
        env.at(1, || {
            (0..budgets).for_each(|_| _ = env.endpoint().run_deferred());
            Ok(())
        })
    };
    let spaces = || {
        (0..3).for_each(|_| _ = env.endpoint().run_deferred());
        told.count(1, |event| event == PeerEvent::Space)
    };
    env.with_deaf(1, || {
        env.step()?;
        env.at(0, || {
            env.send_all(1, 0..LARGE.lines)?;
            // 4,096 bytes take 74 lines.
            check!(env.endpoint().want_space(E::id(1), 4096) == Ok(false), "a full lane has no space");
            check!(want()? == 74, "WANT: the credit that is waited for");
            Ok(())
        })?;
        reads(9)?;
        env.at(0, || {
            check!(spaces() == 0, "72 lines are too few");
            check!(
                env.endpoint().send(E::id(1), TYPE, &[0; 4096]) == Err(SendError::Full),
                "for that message"
            );
            check!(env.endpoint().want_space(E::id(1), 256) == Ok(true), "not for a smaller one");
            env.send_all(1, LARGE.lines..LARGE.lines + 8)
        })?;
        reads(1)?;
        env.at(0, || {
            check!(spaces() == 0, "what others took is not there for who waits");
            check!(want()? == 82, "it is asked for again");
            Ok(())
        })?;
        reads(1)?;
        env.at(0, || {
            check!(spaces() == 1, "then it is told of");
            check!(env.endpoint().want_space(E::id(1), 4096) == Ok(true), "and it is there");
            check!(spaces() <= 2, "whoever asks may be told once more, no oftener");
            Ok(())
        })
    })?;
    env.at(1, || {
        let total = before + LARGE.lines + 8;
        check!(env.until(|| env.inbox().count() >= total), "every message arrives");
        check!(env.in_order(before, 0, 0)? == LARGE.lines + 8, "in order");
        Ok(())
    })?;
    env.unlisten(handle)
}

pub(crate) fn a_waiter_is_told_that_it_is_refused<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (handle, told) = (env.listen()?, env.peer_reports());
    let refused = PeerEvent::Refused(Breach::Tag);
    env.with_deaf(1, || {
        env.step()?;
        env.not_at(1, || {
            env.send_all(1, 0..LINES)?;
            check!(env.endpoint().want_space(E::id(1), 8) == Ok(false), "a full lane has no space");
            // Somebody of ours breaks the protocol.
            env.poke(1, env.line(env.me(), 0, 0), tag(5))
        })
    })?;
    env.not_at(1, || {
        check!(env.until(|| told.once(1, refused)), "who waits is told that it waits in vain");
        check!(env.try_number(1, LINES) == Err(SendError::Quarantined), "as is who sends");
        (0..3).for_each(|n| env.endpoint().tick(n, 100));
        check!(told.once(1, refused), "once");
        check!(!told.once(1, PeerEvent::Space), "and is not told of space");
        env.attach_again(1)?;
        env.send_number(1, 0)?;
        (3..6).for_each(|n| env.endpoint().tick(n, 100));
        check!(
            told.once(1, refused) && told.once(1, PeerEvent::Answered),
            "of its next life it is not told so"
        );
        Ok(())
    })?;
    env.unlisten(handle)
}
