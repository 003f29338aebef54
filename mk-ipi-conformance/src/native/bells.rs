// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases about doorbells: when a sender rings and when not, what happens if a doorbell is lost, and how a doorbell moves.

use super::{header, Native, ARMED, BELL};
use crate::env::{Env, Steps};
use crate::{check, Outcome};
use mk_ipi_core::abi::PhysCpuId;
use mk_ipi_core::platform::Doorbell;
use mk_ipi_core::MoveError;

/// Calls `on_interrupt`, as an interrupt does. It sets ARMED to 0, so senders do not ring this receiver any more.
fn wake<E: Env>(env: &'static E) -> Outcome {
    env.endpoint().on_interrupt();
    check!(env.peek(env.me(), ARMED)? == 0, "an interrupt sets ARMED to 0");
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
            env.send_all(1, 0..2)?;
            check!(rung() == mark, "a receiver that has taken an interrupt is not rung again");
            Ok(())
        })?;
        env.at(1, || {
            let looks =
                core::iter::repeat_with(|| env.endpoint().drain()).take_while(|look| look.messages != 0);
            let found: usize = looks.map(|look| look.messages).sum();
            check!(found == 2 * (env.kernels() - 1), "`drain` finds all messages");
            check!(env.peek(1, ARMED)? == 0, "`drain` leaves ARMED at 0");
            Ok(())
        })?;
        env.not_at(1, || {
            let mark = rung();
            env.send_all(1, 2..4)?;
            check!(rung() == mark, "a receiver whose ARMED is 0 is not rung");
            Ok(())
        })?;
        env.at(1, || {
            env.drain_by_hand()?;
            check!(env.peek(1, ARMED)? == 1, "a receiver that has nothing left sets ARMED to 1");
            env.expect_from_others(before, 0, 4)
        })?;
        env.not_at(1, || {
            let mark = rung().0;
            env.send_all(1, 4..5)?;
            check!(rung().0 == mark + 1, "a receiver whose ARMED is 1 is rung");
            let told = env.endpoint().lane_stats(E::id(1)).is_ok_and(|lane| Ok(lane.rung) == rung().1);
            check!(told, "the lane's header counts the doorbell");
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
            // Our interrupts are off, so no deferred work of our kernel flushes the posts between these calls.
            env.undisturbed(|| {
                let rung = || env.endpoint().stats().rung;
                let mark = rung();
                check!((0..3).all(|n| env.post_number(1, n) == Ok(n + 1)), "a message can be posted");
                check!(rung() == mark, "a post does not ring");
                check!(env.endpoint().flush(E::id(1)).is_ok(), "a flush succeeds");
                check!(rung() == mark + 1, "a flush rings once for all messages");
                check!(env.post_number(1, 3).is_ok(), "another message can be posted");
                check!(rung() == mark + 1, "a post after the flush does not ring either");
                env.endpoint().run_deferred();
                check!(rung() == mark + 2, "the end of a run of deferred work rings for what was posted");
                env.endpoint().run_deferred();
                check!(rung() == mark + 2, "a second run of deferred work does not ring again");
                Ok(())
            })
        })
    })?;
    env.at(1, || env.expect_from_others(before, 0, 4))?;
    env.unlisten(handle)
}

pub(crate) fn a_poll_finds_what_was_not_rung_for<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (before, handle) = (env.inbox().count(), env.listen()?);
    env.linger();
    env.with_deaf(1, || {
        env.step()?;
        // ARMED is 0, so the sender does not ring. For the receiver this is the same as a doorbell that is lost.
        env.at(1, || wake(env))?;
        env.not_at(1, || {
            let rung = env.endpoint().stats().rung;
            env.send_all(1, 0..1)?;
            check!(env.endpoint().stats().rung == rung, "a receiver whose ARMED is 0 is not rung");
            Ok(())
        })?;
        env.at(1, || {
            env.drain_by_hand()?;
            env.expect_from_others(before, 0, 1)?;
            env.poke(1, ARMED, 0)
        })?;
        env.not_at(1, || env.send_all(1, 1..2))?;
        env.at(1, || {
            check!(env.endpoint().poll() == Ok(true), "a poll schedules the deferred work");
            Ok(())
        })
    })?;
    env.at(1, || {
        env.expect_from_others(before, 0, 2)?;
        check!(env.until(|| env.peek(1, ARMED) == Ok(1)), "the deferred work sets ARMED to 1");
        env.poke(1, ARMED, 0)
    })?;
    env.not_at(1, || env.send_all(1, 2..3))?;
    env.at(1, || {
        env.linger();
        check!(
            env.inbox().count() == before + 2 * (env.kernels() as u64 - 1),
            "no message is found without a doorbell, a poll or a tick"
        );
        env.endpoint().tick(0, 1);
        env.expect_from_others(before, 0, 3)
    })?;
    env.unlisten(handle)
}

pub(crate) fn every_stream_ends_with_a_doorbell_that_counts<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (before, handle) = (env.inbox().count(), env.listen()?);
    env.step()?;
    // The next message is sent only after this one has arrived. So no doorbell of another message can make up for a lost one.
    // When a message is sent, the receiver has set ARMED to 1, or is about to do so.
    for n in 0..60 {
        env.send_number(env.next(), n)?;
        check!(env.until(|| env.inbox().count() > before + n), "no message waits until the next one is sent");
    }
    env.step()?;
    env.unlisten(handle)
}

/// Returns the BELL word for this CPU and vector (SPEC N-4).
const fn bell(cpu: PhysCpuId, vector: u64) -> u64 {
    1 << 63 | vector << 48 | cpu.0
}

pub(crate) fn a_doorbell_moves<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (before, handle) = (env.inbox().count(), env.listen()?);
    env.linger();
    let interrupts = env.endpoint().stats().interrupts;
    let (here, _) = env.doorbell_of(1)?;
    let (foreign, _) = env.doorbell_of(0)?;
    let vector = u64::from(E::SPARE_VECTOR.get());
    let n = core::cell::Cell::new(0);
    // All other kernels send to kernel 1 while its ARMED is 1. If `there` is true, checks that this rings the spare vector of
    // kernel 1. If `there` is false, checks that it does not.
    let rings_there = |there: bool| {
        let spare = env.spare_interrupts();
        env.at(1, || {
            check!(env.until(|| env.peek(1, ARMED) == Ok(1)), "the receiver sets ARMED to 1 again");
            Ok(())
        })?;
        env.not_at(1, || env.send_number(1, n.get()))?;
        n.set(n.get() + 1);
        env.at(1, || env.expect_from_others(before, 0, n.get()))?;
        let expected = there && env.me() == 1;
        check!(
            (env.spare_interrupts() > spare) == expected,
            "the receiver is rung at the spare vector exactly if BELL allows it"
        );
        Ok(())
    };
    env.step()?;
    env.at(1, || {
        let nobody = PhysCpuId(here.0 ^ (1 << 40));
        let too_far = PhysCpuId(1 << 48);
        let moved = |cpu| env.endpoint().move_doorbell(cpu, E::SPARE_VECTOR);
        check!(
            moved(foreign) == Err(MoveError::NotOurCpu(foreign)),
            "a doorbell cannot move to another kernel's CPU"
        );
        check!(
            moved(nobody) == Err(MoveError::NotOurCpu(nobody)),
            "a doorbell cannot move to a CPU that belongs to no kernel"
        );
        check!(
            moved(too_far) == Err(MoveError::NotOurCpu(too_far)),
            "a doorbell cannot move to a CPU id of more than 48 bits"
        );
        check!(env.peek(1, BELL)? == 0, "a refused move does not change BELL");
        check!(moved(here).is_ok(), "a doorbell can move to another vector");
        check!(env.peek(1, BELL)? == bell(here, vector), "BELL has the physical id, the vector and bit 63");
        Ok(())
    })?;
    rings_there(true)?;
    // Senders must not use any of these BELL words. In their order they have: another kernel's CPU; a CPU of no kernel; a vector
    // below 0x20; a vector above 0xfe; a bit that must be 0; bit 63 clear.
    let senseless = [
        bell(foreign, vector),
        bell(PhysCpuId((1 << 48) - 1), vector),
        bell(here, 3),
        bell(here, 0xff),
        bell(here, vector) | 1 << 56,
        bell(here, vector) & !(1 << 63),
    ];
    for word in senseless {
        env.at(1, || env.poke(1, BELL, word))?;
        rings_there(false)?;
    }
    env.at(1, || env.poke(1, BELL, bell(here, vector)))?;
    rings_there(true)?;
    // A new life is not rung at the doorbell of the former life.
    env.at(1, || {
        env.next_life()?;
        env.attach_again(1)?;
        check!(env.peek(1, BELL)? == 0, "BELL is 0 when a new life begins");
        Ok(())
    })?;
    rings_there(false)?;
    let strangers = env.me() == 1 || env.endpoint().stats().interrupts == interrupts;
    check!(strangers, "no other kernel's CPU is interrupted");
    check!(
        env.endpoint().platform().check(here, E::SPARE_VECTOR).is_ok(),
        "a doorbell can reach the spare vector"
    );
    env.step()?;
    env.unlisten(handle)
}
