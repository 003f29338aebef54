// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases about what one peer can do to the others: budget, fairness, the stop word.

use super::{header, Native, LINES};
use crate::env::{Env, Steps};
use crate::{check, Failed, Outcome};
use mk_ipi_core::abi::Incarnation;
use mk_ipi_core::SendError;

/// Fills our lane to `to` with what fits, from number `n` on; gives the next number.
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
            check!(next == LINES, "a lane takes what it has lines for");
            Ok(())
        })?;
        for round in 1..=senders {
            env.at(1, || {
                let run = env.endpoint().run_deferred();
                check!(
                    run.messages as u64 == LINES && run.more,
                    "a budget of messages, and it says that there is more"
                );
                check!(env.inbox().count() == before + round * LINES, "no more are handled");
                Ok(())
            })?;
            // Kernel 0 never lets its lane be empty.
            env.at(0, || {
                next = fill(env, 1, next);
                Ok(())
            })?;
        }
        env.at(1, || {
            for kernel in env.but(1) {
                check!(env.in_order(before, kernel, 0)? >= LINES, "each lane has had its turn");
            }
            env.drain_by_hand()?;
            check!(env.endpoint().run_deferred().messages == 0, "then nothing is left");
            check!(env.in_order(before, 0, 0)? >= 2 * LINES, "of what was sent meanwhile");
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
            check!(fill(env, 1, 0) == LINES, "a lane takes what it has lines for");
            Ok(())
        })
    })?;
    // Many budgets full, and one doorbell pending.
    env.at(1, || env.expect_from_others(before, 0, LINES))?;
    env.unlisten(handle)
}

pub(crate) fn the_host_alone_stops_a_kernel_past_a_full_lane<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let stops = env.stops();
    let (first, second) = (Incarnation::FIRST, Incarnation::FIRST.next());
    let stop = |life| env.endpoint().stop(E::id(1), life).map_err(|_| Failed("a stop word can be written"));
    // At an interrupt, at a poll and at a tick.
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
            check!(look() == stops, "no other kernel's word is obeyed");
            env.drain_by_hand()
        })?;
        env.at(0, || {
            check!(fill(env, 1, 0) == LINES, "a lane takes what it has lines for");
            check!(env.try_number(1, LINES) == Err(SendError::Full), "and no more");
            stop(second)
        })?;
        env.at(1, || {
            check!(look() == stops, "a word for another life is not meant");
            Ok(())
        })?;
        env.at(0, || {
            stop(first)?;
            check!(env.peek(1, env.header(0, header::STOP))? == 1, "the word is the receiver's incarnation");
            Ok(())
        })?;
        env.at(1, || {
            env.endpoint().on_interrupt();
            check!(env.stops() == stops + 1, "the host's is obeyed, at the interrupt");
            let _ = env.endpoint().poll();
            check!(env.stops() == stops + 2, "at a poll");
            env.endpoint().tick(0, 1);
            check!(env.stops() == stops + 3, "at a tick: again each time");
            // The word names one life, not the next.
            env.next_life()?;
            env.attach_again(1)?;
            let stops = env.stops();
            check!(look() == stops, "the next life is not meant");
            Ok(())
        })
    })?;
    check!(env.me() == 1 || env.stops() == stops, "and nobody else's either");
    env.step()
}
