// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases about a CPU that polls: while a poller exists, only its polls read the lanes. When it is dropped, the deferred work
//! reads them again.

use super::{Native, ARMED, LONG};
use crate::env::{Env, Steps, TYPE};
use crate::{check, Failed, Outcome};
use mk_ipi_core::abi::Incarnation;
use mk_ipi_core::platform::PeerEvent;
use mk_ipi_core::{DestroyError, UnregisterError};

/// A number of polls in a row, of which at least one looks at every lane.
const ALL: usize = 256;

pub(crate) fn a_poller_holds_the_lanes_and_is_rung_by_nobody<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (before, handle) = (env.inbox().count(), env.listen()?);
    let all = |each: u64| before + each * (env.kernels() as u64 - 1);
    env.with_deaf(1, || {
        env.step()?;
        env.at(1, || env.drain_by_hand())?;
        let poller = (env.me() == 1).then(|| env.endpoint().poller());
        let mut poller = match poller {
            Some(None) => return Err(Failed("a kernel with a native region can poll")),
            Some(poller) => poller,
            None => None,
        };
        env.at(1, || {
            check!(env.peek(1, ARMED)? == 0, "ARMED is 0 while a poller exists");
            check!(env.endpoint().poller().is_none(), "only one poller can exist at a time");
            Ok(())
        })?;
        for n in LONG..LONG + 20 {
            env.not_at(1, || {
                let rung = env.endpoint().stats().rung;
                env.send_number(1, n)?;
                check!(env.endpoint().stats().rung == rung, "a receiver that polls is not rung");
                Ok(())
            })?;
            if let Some(poller) = &mut poller {
                let look = |_| if n % 2 == 0 { poller.poll() } else { poller.wait(2) };
                let found: usize = (0..ALL).map(look).sum();
                check!(found as u64 == all(1) - before, "the polls return how many messages they found");
                check!(env.inbox().count() == all(n - LONG + 1), "all messages are handed out by the polls");
                check!(env.peek(1, ARMED)? == 0, "a poll leaves ARMED at 0");
            }
            env.step()?;
        }
        env.not_at(1, || env.send_number(1, LONG + 20))?;
        if env.me() == 1 {
            let mark = env.inbox().count();
            check!(
                env.endpoint().run_deferred().messages == 0,
                "deferred work takes nothing while a poller holds the lanes"
            );
            check!(
                env.endpoint().drain().messages == 0 && env.inbox().count() == mark,
                "`drain` takes nothing while a poller holds the lanes"
            );
            drop(poller.take());
            check!(env.inbox().count() == mark, "dropping a poller hands out nothing");
        }
        Ok(())
    })?;
    env.at(1, || {
        check!(env.until(|| env.inbox().count() == all(21)), "dropping a poller schedules the deferred work");
        check!(env.until(|| env.peek(1, ARMED) == Ok(1)), "the deferred work after a poller sets ARMED to 1");
        env.but(1).try_for_each(|kernel| {
            check!(env.in_order(before, kernel, LONG)? == 21, "no message is lost, and all arrive in order");
            Ok(())
        })
    })?;
    env.not_at(1, || env.send_number(1, LONG + 21))?;
    env.at(1, || {
        check!(env.until(|| env.inbox().count() == all(22)), "a message after the poller rings again");
        Ok(())
    })?;
    env.unlisten(handle)
}

pub(crate) fn a_poller_sees_to_what_deferred_work_would<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (told, stops, before) = (env.peer_reports(), env.stops(), env.inbox().count());
    let handle = env.register(TYPE, |env, m| {
        env.inbox().push(m);
        if env.me() == 1 {
            // The poller flushes this post later, so the handler does not.
            let from = m.sender().unwrap_or(E::id(1));
            // A handler must not panic. If the message is too short, a later check fails.
            let _ = m.payload().get(..8).map(|first| env.endpoint().post(from, TYPE, first));
        }
    });
    let handle = handle.ok_or(Failed("a handler can be registered"))?;
    env.with_deaf(1, || {
        env.step()?;
        env.not_at(1, || env.send_all(1, 0..1))?;
        env.at(0, || {
            env.endpoint()
                .stop(E::id(1), Incarnation::FIRST)
                .map_err(|_| Failed("a stop word can be written"))
        })?;
        env.at(1, || {
            let poller = env.endpoint().poller();
            let mut poller = poller.ok_or(Failed("a kernel with a native region can poll"))?;
            (0..ALL).for_each(|_| _ = poller.poll());
            check!(
                env.inbox().count() == before + env.kernels() as u64 - 1,
                "all messages are handed out by the polls"
            );
            check!(env.stops() > stops, "a poll reads the stop word, and calls `stop`");
            let handled = env.until(|| {
                (0..ALL).for_each(|_| _ = poller.poll());
                env.but(1).all(|kernel| env.endpoint().handled(E::id(kernel)) == Ok(1))
            });
            check!(handled, "a poll flushes what its handlers posted");
            // We begin a new life in our lane to kernel 2. Kernel 2 answers it while we poll.
            env.attach_again(2)?;
            let answered = env.until(|| {
                (0..ALL).for_each(|_| _ = poller.poll());
                told.once(2, PeerEvent::Answered)
            });
            check!(answered, "a poll sees the answer to our new life");
            check!(
                env.endpoint().destroy_instance(E::id(1)) == Err(DestroyError::InUse(1)),
                "our instance cannot be destroyed while a poller exists"
            );
            drop(poller);
            env.attach_again(1)
        })
    })?;
    env.unlisten(handle)
}

pub(crate) fn a_pollers_handlers_can_end<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (before, handle) = (env.inbox().count(), env.listen()?);
    let total = || env.inbox().count();
    env.with_deaf(1, || {
        env.step()?;
        env.not_at(1, || env.send_all(1, 0..2))?;
        env.at(1, || {
            let poller = env.endpoint().poller();
            let mut poller = poller.ok_or(Failed("a kernel with a native region can poll"))?;
            (0..ALL).for_each(|_| _ = poller.poll());
            let unhandled = env.endpoint().stats().unhandled;
            let mark = total();
            check!(
                mark == before + 2 * (env.kernels() as u64 - 1),
                "all messages are handed out by the polls"
            );
            drop(poller);
            env.unlisten(handle)?;
            check!(
                env.endpoint().unregister(handle) == Err(UnregisterError::Stale),
                "a handle can be unregistered only once"
            );
            let poller = env.endpoint().poller();
            let mut poller = poller.ok_or(Failed("a kernel can poll again"))?;
            env.try_number(1, 0).map_err(|_| Failed("a message to ourselves can be sent"))?;
            (0..ALL).for_each(|_| _ = poller.poll());
            check!(total() == mark, "a handler that ended is not called");
            check!(
                env.endpoint().stats().unhandled == unhandled + 1,
                "a message without a handler is counted as unhandled"
            );
            let handle = env.listen()?;
            env.try_number(1, 1).map_err(|_| Failed("a message to ourselves can be sent"))?;
            (0..ALL).for_each(|_| _ = poller.poll());
            check!(total() == mark + 1, "a handler that is registered while we poll is called");
            drop(poller);
            env.unlisten(handle)
        })
    })?;
    if env.me() != 1 {
        env.unlisten(handle)?;
    }
    env.step()
}
