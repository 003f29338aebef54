// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases about the bounds of a drain, and about the stop word: one busy sender must not hold up the messages of others, and only
//! the host can stop a kernel.

use super::{header, Native, LINES};
use crate::env::{Env, Steps};
use crate::{check, Failed, Outcome};
use mk_ipi_core::abi::Incarnation;
use mk_ipi_core::SendError;

/// Sends messages to kernel `to` until our lane there is full. Their numbers begin with `n`. Returns the next number.
fn fill<E: Env>(env: &'static E, to: usize, mut n: u64) -> u64 {
    while n < 40 * LINES && env.try_number(to, n).is_ok() {
        n += 1;
    }
    n
}

pub(crate) fn a_drain_keeps_to_its_budget_and_to_turns<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (before, handle) = (env.inbox().count(), env.listen()?);
    let senders = env.kernels() as u64 - 1;
    env.with_deaf(1, || {
        env.step()?;
        let mut next = 0;
        env.not_at(1, || {
            next = fill(env, 1, 0);
            check!(next == LINES, "a lane takes as many messages as it has lines for");
            Ok(())
        })?;
        for round in 1..=senders {
            env.at(1, || {
                let run = env.endpoint().run_deferred();
                check!(
                    run.messages as u64 == LINES && run.more,
                    "a run handles its budget of messages, and says that there are more"
                );
                check!(
                    env.inbox().count() == before + round * LINES,
                    "a run handles no more than its budget"
                );
                Ok(())
            })?;
            // Kernel 0 fills its lane again after each run.
            env.at(0, || {
                next = fill(env, 1, next);
                Ok(())
            })?;
        }
        env.at(1, || {
            for kernel in env.but(1) {
                check!(env.in_order(before, kernel, 0)? >= LINES, "each lane was read");
            }
            env.drain_by_hand()?;
            check!(
                env.endpoint().run_deferred().messages == 0,
                "no message is left when the deferred work has ended"
            );
            check!(
                env.in_order(before, 0, 0)? >= 2 * LINES,
                "messages that were sent between the runs are handled too"
            );
            Ok(())
        })
    })?;
    env.unlisten(handle)
}

pub(crate) fn work_that_is_left_is_done<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (before, handle) = (env.inbox().count(), env.listen()?);
    env.with_deaf(1, || {
        env.step()?;
        env.not_at(1, || {
            check!(fill(env, 1, 0) == LINES, "a lane takes as many messages as it has lines for");
            Ok(())
        })
    })?;
    // The messages need several runs of the deferred work, but at most one interrupt is pending.
    env.at(1, || env.expect_from_others(before, 0, LINES))?;
    env.unlisten(handle)
}

pub(crate) fn the_host_alone_stops_a_kernel_past_a_full_lane<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let stops = env.stops();
    let (first, second) = (Incarnation::FIRST, Incarnation::FIRST.next());
    let stop = |life| env.endpoint().stop(E::id(1), life).map_err(|_| Failed("a stop word can be written"));
    // Makes this kernel read the stop word in `on_interrupt`, in `poll` and in `tick`. Returns how often it was told to stop.
    let look = || {
        env.endpoint().on_interrupt();
        let _ = env.endpoint().poll();
        env.endpoint().tick(0, 1);
        env.stops()
    };
    env.with_deaf(1, || {
        env.step()?;
        env.not_at(0, || if env.me() == 1 { Ok(()) } else { stop(first) })?;
        env.at(1, || {
            check!(look() == stops, "a stop word from a kernel that is not the host is ignored");
            env.drain_by_hand()
        })?;
        env.at(0, || {
            check!(fill(env, 1, 0) == LINES, "a lane takes as many messages as it has lines for");
            check!(env.try_number(1, LINES) == Err(SendError::Full), "a full lane takes no more");
            stop(second)
        })?;
        env.at(1, || {
            check!(look() == stops, "a stop word for another life is ignored");
            Ok(())
        })?;
        env.at(0, || {
            stop(first)?;
            check!(env.peek(1, env.header(0, header::STOP))? == 1, "STOP is the receiver's incarnation");
            Ok(())
        })?;
        env.at(1, || {
            env.endpoint().on_interrupt();
            check!(env.stops() == stops + 1, "the host's stop word is obeyed at an interrupt");
            let _ = env.endpoint().poll();
            check!(env.stops() == stops + 2, "the host's stop word is obeyed at a poll");
            env.endpoint().tick(0, 1);
            check!(env.stops() == stops + 3, "the host's stop word is obeyed at a tick");
            // STOP still names the former life, so it must not stop the next one.
            env.next_life()?;
            env.attach_again(1)?;
            let stops = env.stops();
            check!(look() == stops, "the next life is not stopped");
            Ok(())
        })
    })?;
    check!(env.me() == 1 || env.stops() == stops, "no other kernel is stopped");
    env.step()
}
