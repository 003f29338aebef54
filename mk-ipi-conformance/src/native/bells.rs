// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases about doorbells: wanted, suppressed, lost, moved; and about hints, which anybody can write.

use super::{header, Native, ARMED, BELL, CELLS};
use crate::env::{Env, Steps, TYPE};
use crate::{check, Outcome};
use mk_ipi_core::abi::PhysCpuId;
use mk_ipi_core::platform::Doorbell;
use mk_ipi_core::MoveError;

/// A receiver that is awake wants no doorbell: what its interrupt handler does first.
fn wake<E: Env>(env: &'static E) -> Outcome {
    env.endpoint().on_interrupt();
    check!(env.peek(env.me(), ARMED)? == 0, "an interrupt disarms");
    Ok(())
}

pub(crate) fn a_busy_receiver_is_not_rung<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (before, handle) = (env.inbox().count(), env.listen()?);
    let rung = || (env.endpoint().stats().rung, env.peek(1, env.header(env.me(), header::RUNG)));
    env.with_deaf(1, || {
        env.step()?;
        env.at(1, || wake(env))?;
        env.not_at(1, || {
            let mark = rung();
            check!((0..4).all(|n| env.try_number(1, n).is_ok()), "messages can be sent");
            check!(rung() == mark, "no doorbell for a receiver that is awake");
            Ok(())
        })?;
        env.at(1, || {
            env.drain_by_hand()?;
            check!(env.peek(1, ARMED)? == 1, "a receiver that has nothing left arms");
            env.expect_from_others(before, 0, 4)
        })?;
        env.not_at(1, || {
            let mark = rung().0;
            check!(env.try_number(1, 4).is_ok(), "a message can be sent");
            check!(rung().0 == mark + 1, "and then is rung");
            let told = env.endpoint().lane_stats(E::id(1)).is_ok_and(|lane| Ok(lane.rung) == rung().1);
            check!(told, "which the lane's header counts");
            Ok(())
        })
    })?;
    env.at(1, || env.expect_from_others(before, 0, 5))?;
    env.unlisten(handle)
}

pub(crate) fn what_is_posted_waits_for_the_flush<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (before, handle) = (env.inbox().count(), env.listen()?);
    env.with_deaf(1, || {
        env.step()?;
        env.at(1, || env.drain_by_hand())?;
        env.not_at(1, || {
            let rung = env.endpoint().stats().rung;
            for n in 0..3 {
                let (seed, len) = (env.seed(n), super::len_of(n));
                let bytes = crate::inbox::payload(seed, len);
                check!(env.endpoint().post(E::id(1), TYPE, &bytes[..len]).is_ok(), "a message can be posted");
            }
            check!(env.endpoint().stats().rung == rung, "a post does not ring");
            check!(env.endpoint().flush(E::id(1)).is_ok(), "a flush");
            check!(env.endpoint().stats().rung == rung + 1, "rings, once for all");
            Ok(())
        })
    })?;
    env.at(1, || env.expect_from_others(before, 0, 3))?;
    env.unlisten(handle)
}

pub(crate) fn a_poll_finds_what_was_not_rung_for<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (before, handle) = (env.inbox().count(), env.listen()?);
    env.linger();
    env.step()?;
    env.not_at(1, || {
        let bytes = crate::inbox::payload(env.seed(0), 8);
        // Neither hint nor doorbell: both were lost.
        check!(env.endpoint().post(E::id(1), TYPE, &bytes[..8]).is_ok(), "a message can be posted");
        Ok(())
    })?;
    env.at(1, || {
        check!(env.endpoint().poll() == Ok(true), "a poll finds the messages");
        env.expect_from_others(before, 0, 1)?;
        check!(env.endpoint().poll() == Ok(false), "once");
        Ok(())
    })?;
    env.unlisten(handle)
}

pub(crate) fn wiped_hints_delay_and_lose_nothing<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (before, handle) = (env.inbox().count(), env.listen()?);
    let wipe = |value| (0..4).try_for_each(|word| env.poke(1, env.hints() + word, value));
    env.with_deaf(1, || {
        env.step()?;
        env.at(1, || wake(env))?;
        env.not_at(1, || env.try_number(1, 0).map_err(|_| crate::Failed("a message can be sent")))?;
        env.at(0, || wipe(0))?;
        env.at(1, || {
            // Without a doorbell: each drain looks at one lane more.
            (0..env.kernels()).for_each(|_| _ = env.endpoint().drain());
            env.expect_from_others(before, 0, 1)?;
            env.drain_by_hand()
        })?;
        env.at(0, || env.try_number(1, 1).map_err(|_| crate::Failed("a message can be sent")))?;
        env.at(2, || wipe(0))
    })?;
    // With a doorbell, which is pending: a wake-up that finds nothing looks everywhere.
    env.at(1, || {
        let all = before + env.kernels() as u64;
        check!(env.until(|| env.inbox().count() == all), "the doorbell is enough");
        Ok(())
    })?;
    // Hints at every lane, and at lanes that do not exist.
    env.not_at(1, || {
        wipe(u64::MAX)?;
        env.ring(1)?;
        env.send_number(1, if env.me() == 0 { 2 } else { 1 })
    })?;
    env.at(1, || {
        let all = before + 2 * env.kernels() as u64 - 1;
        check!(env.until(|| env.inbox().count() == all), "every message arrives");
        for kernel in (0..env.kernels()).filter(|kernel| *kernel != 1) {
            check!(env.in_order(before, kernel, 0)? == if kernel == 0 { 3 } else { 2 }, "once and in order");
        }
        check!(env.until(|| env.peek(1, ARMED) == Ok(1)), "and the receiver finds rest");
        Ok(())
    })?;
    env.unlisten(handle)
}

pub(crate) fn every_stream_ends_with_a_doorbell_that_counts<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (before, handle) = (env.inbox().count(), env.listen()?);
    env.step()?;
    // One at a time: the doorbell of each is the only one, and the receiver has armed, or is just about to.
    for n in 0..60 {
        env.send_number(env.next(), n)?;
        check!(env.until(|| env.inbox().count() > before + n), "no message waits for the next one");
    }
    env.step()?;
    env.unlisten(handle)
}

pub(crate) fn a_doorbell_moves<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (before, handle) = (env.inbox().count(), env.listen()?);
    env.linger();
    let (spare, interrupts) = (env.spare_interrupts(), env.endpoint().stats().interrupts);
    env.step()?;
    env.at(1, || {
        let (here, _) = env.doorbell_of(1)?;
        let (foreign, _) = env.doorbell_of(0)?;
        let nobody = PhysCpuId(here.0 ^ (1 << 40));
        let moved = |cpu| env.endpoint().move_doorbell(cpu, E::SPARE_VECTOR);
        check!(moved(foreign) == Err(MoveError::NotOurCpu(foreign)), "not to a CPU of somebody else");
        check!(moved(nobody) == Err(MoveError::NotOurCpu(nobody)), "nor of nobody");
        check!(env.peek(1, BELL)? == 0, "what is refused changes nothing");
        check!(moved(here).is_ok(), "to another vector");
        let bell = 1 << 63 | u64::from(E::SPARE_VECTOR.get()) << 16;
        check!(env.peek(1, BELL)? == bell, "index of the CPU in the directory's list, vector, bit 63");
        check!(env.until(|| env.peek(1, ARMED) == Ok(1)), "the receiver arms again");
        Ok(())
    })?;
    env.not_at(1, || env.send_number(1, 0))?;
    env.at(1, || {
        env.expect_from_others(before, 0, 1)?;
        check!(env.spare_interrupts() > spare, "it is rung there");
        Ok(())
    })?;
    // CPU not listed, vector below 0x20 or above 0xfe, unknown bits, no mark.
    let vector = u64::from(E::SPARE_VECTOR.get()) << 16;
    let senseless =
        [1 << 63 | vector | 1, 1 << 63 | vector | 0xffff, 1 << 63 | 3 << 16, 1 << 63 | 0xff << 16];
    for (n, bell) in (1..).zip(senseless.into_iter().chain([1 << 63 | 1 << 24 | vector, vector])) {
        let spare = env.spare_interrupts();
        env.at(1, || {
            env.poke(1, BELL, bell)?;
            check!(env.until(|| env.peek(1, ARMED) == Ok(1)), "the receiver arms again");
            Ok(())
        })?;
        env.not_at(1, || env.send_number(1, n))?;
        env.at(1, || env.expect_from_others(before, 0, n + 1))?;
        check!(env.spare_interrupts() == spare, "a bell that makes no sense is what the directory says");
    }
    let strangers = env.me() == 1 || env.endpoint().stats().interrupts == interrupts;
    check!(strangers, "and nobody else's CPU is interrupted");
    check!(env.endpoint().platform().check(env.doorbell_of(1)?.0, E::SPARE_VECTOR).is_ok(), "ever");
    env.step()?;
    env.unlisten(handle)
}

/// Used by the budget's case too: fills our lane to `to` with what fits, from number `n` on; gives the next number.
pub(super) fn fill<E: Env>(env: &'static E, to: usize, mut n: u64) -> u64 {
    while n < 40 * CELLS && env.try_number(to, n).is_ok() {
        n += 1;
    }
    n
}
