// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases about a lane that is full: which calls are refused, and which events a sender that waits for space gets.

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
            check!(env.try_number(1, LINES) == Err(SendError::Full), "a full lane refuses a send");
            check!(
                env.endpoint().post(E::id(1), TYPE, &[1]) == Err(SendError::Full),
                "a full lane refuses a post"
            );
            check!(env.lines(1)? == lines, "a refusal changes no line");
            check!(
                env.endpoint().lane_stats(E::id(1)).is_ok_and(|l| l.number == LINES),
                "a refused message takes no line"
            );
            check!(env.endpoint().stats().full == full + 2, "both refusals are counted");
            check!(
                env.peek(1, env.header(env.me(), header::FULL))? >= 2,
                "the lane's header counts the refusals too"
            );
            check!(want() == Ok(false), "a full lane has no space");
            check!(
                env.peek(1, env.header(env.me(), header::WANT))? == 1,
                "WANT is the CREDIT that the sender waits for"
            );
            env.linger();
            check!(!told.once(1, PeerEvent::Space), "no space is reported while the receiver reads nothing");
            Ok(())
        })
    })?;
    env.not_at(1, || {
        check!(env.until(|| told.once(1, PeerEvent::Space)), "space is reported when the receiver has read");
        check!(env.try_number(1, LINES).is_ok(), "there is space when it is reported");
        (0..3).for_each(|_| _ = env.endpoint().run_deferred());
        check!(told.once(1, PeerEvent::Space), "space is reported once for each request");
        Ok(())
    })?;
    env.at(1, || env.expect_from_others(before, 0, LINES + 1))?;
    env.unlisten(handle)
}

pub(crate) fn space_is_told_of_when_the_message_fits<E: Env>(env: &'static E) -> Outcome {
    env.go_native_as(LARGE)?;
    let (before, handle, told) = (env.inbox().count(), env.listen()?, env.peer_reports());
    let want = || env.peek(1, LARGE.lane(env.kernels(), 0) + header::WANT);
    // Each run of the deferred work handles 8 messages. Here these take 8 lines.
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
            check!(want()? == 74, "WANT is the CREDIT that the sender waits for");
            Ok(())
        })?;
        reads(9)?;
        env.at(0, || {
            check!(spaces() == 0, "72 lines are too few");
            check!(
                env.endpoint().send(E::id(1), TYPE, &[0; 4096]) == Err(SendError::Full),
                "a message of 74 lines is refused while 72 lines are free"
            );
            check!(
                env.endpoint().want_space(E::id(1), 256) == Ok(true),
                "there is space for a smaller message"
            );
            env.send_all(1, LARGE.lines..LARGE.lines + 8)
        })?;
        reads(1)?;
        env.at(0, || {
            check!(spaces() == 0, "lines that were used after the request do not count as space");
            check!(want()? == 82, "WANT goes up by the lines that were used after the request");
            Ok(())
        })?;
        reads(1)?;
        env.at(0, || {
            check!(spaces() == 1, "space is reported when the message fits");
            check!(
                env.endpoint().want_space(E::id(1), 4096) == Ok(true),
                "there is space for the message when it is reported"
            );
            check!(spaces() <= 2, "a second request gives at most one more report");
            Ok(())
        })
    })?;
    env.at(1, || {
        let total = before + LARGE.lines + 8;
        check!(env.until(|| env.inbox().count() >= total), "every message arrives");
        check!(env.in_order(before, 0, 0)? == LARGE.lines + 8, "messages arrive in order");
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
            // This is a breach of the protocol by our own kernel: a tag of another lap.
            env.poke(1, env.line(env.me(), 0, 0), tag(5))
        })
    })?;
    env.not_at(1, || {
        check!(env.until(|| told.once(1, refused)), "a sender that waits for space gets the event Refused");
        check!(env.try_number(1, LINES) == Err(SendError::Quarantined), "a send gives Quarantined");
        (0..3).for_each(|n| env.endpoint().tick(n, 100));
        check!(told.once(1, refused), "the refusal is reported once");
        check!(!told.once(1, PeerEvent::Space), "a refused sender gets no report of space");
        env.attach_again(1)?;
        env.send_number(1, 0)?;
        (3..6).for_each(|n| env.endpoint().tick(n, 100));
        check!(
            told.once(1, refused) && told.once(1, PeerEvent::Answered),
            "the next life gets the event Answered, and no event Refused"
        );
        Ok(())
    })?;
    env.unlisten(handle)
}
