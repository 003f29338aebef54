// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases about peers that break the protocol, from either end.

use super::{control, header, hello, Native, CELLS};
use crate::env::{Env, Steps, TYPE};
use crate::{check, Failed, Outcome};
use mk_ipi_core::abi::native::Breach;
use mk_ipi_core::platform::PeerEvent;
use mk_ipi_core::SendError;

/// The kernel whose lane is written by somebody hostile.
const BAD: usize = 2;

/// What somebody hostile does: the breach as which it is found out, honest messages before it, what is stored.
type Attack<E> = (Breach, u64, fn(&'static E, u64) -> Outcome);

/// A published message at `position` with this lap and second word.
fn forge<E: Env>(env: &'static E, position: u64, lap: u64, about: u64) -> Outcome {
    env.poke(1, env.cell(BAD, position, 1), about)?;
    env.poke(1, env.cell(BAD, position, 0), lap | u64::from(TYPE.0) << 32)
}

fn attacks<E: Env>() -> [Attack<E>; 10] {
    [
        (Breach::Lap, 1, |env, p| forge(env, p, 2, 8)),
        (Breach::Lap, 0, |env, p| forge(env, p, 1 << 30, 8)),
        (Breach::Lap, 0, |env, p| forge(env, p, 3, 8)),
        (Breach::Length, 2, |env, p| forge(env, p, 1, 257)),
        (Breach::Length, 0, |env, p| forge(env, p, 1, 0xffff)),
        (Breach::Cpu, 1, |env, p| forge(env, p, 1, 8 | 1 << 16)),
        (Breach::Cpu, 0, |env, p| forge(env, p, 1, 8 | 0xffff << 16)),
        (Breach::Hello, 3, |env, _| env.poke(1, env.header(BAD, header::HELLO), 5)),
        (Breach::Hello, 0, |env, _| env.poke(1, env.header(BAD, header::HELLO), 0)),
        (Breach::Hello, 2, |env, _| env.poke(1, env.header(BAD, header::HELLO), hello(1, 9, true))),
    ]
}

/// The attack and what the others see of it; then the hostile kernel begins anew.
fn attack<E: Env>(env: &'static E, (breach, honest, store): Attack<E>) -> Outcome {
    env.go_native()?;
    let (before, told) = (env.inbox().count(), env.told());
    let quarantined = env.endpoint().stats().quarantined;
    let others = || (0..env.kernels()).filter(|kernel| *kernel != 1 && *kernel != BAD);
    env.step()?;
    env.at(BAD, || (0..honest).try_for_each(|n| env.send_number(1, n)))?;
    env.at(1, || {
        check!(env.until(|| env.inbox().count() == before + honest), "it was honest once");
        Ok(())
    })?;
    env.at(BAD, || {
        store(env, honest)?;
        env.ring(1)
    })?;
    env.at(1, || {
        let event = PeerEvent::Quarantined(breach);
        check!(env.until(|| told.once(BAD, event)), "the breach is found out and told of");
        check!(env.endpoint().stats().quarantined == quarantined + 1, "and counted");
        check!(env.in_order(before, BAD, 0)? == honest, "what came before it is delivered, no more");
        let word = |word| env.peek(1, env.control(BAD, word));
        let says = [control::BREACH, control::LAST_BREACH].map(word);
        check!(says == [Ok(breach as u64); 2] && word(control::BAD)? == 1, "the sender can see it");
        let (answer, said) = (word(control::ANSWER)?, env.peek(1, env.header(BAD, header::HELLO))?);
        // A lane that was used never looks unused.
        check!(answer != 0 && (answer == said || said == 0), "with the hello that it is about");
        Ok(())
    })?;
    // The others go on, for more than a lap.
    for n in 0..CELLS + 2 {
        check!(env.me() == 1 || env.me() == BAD || env.send_number(1, n).is_ok(), "the others go on");
    }
    env.at(1, || {
        let all = before + honest + (CELLS + 2) * others().count() as u64;
        check!(env.until(|| env.inbox().count() >= all), "their messages arrive");
        others().try_for_each(|kernel| {
            check!(env.in_order(before, kernel, 0)? == CELLS + 2, "all of them");
            Ok(())
        })
    })?;
    env.at(BAD, || {
        let full = (0..=CELLS).map(|n| env.try_number(1, 100 + n)).find_map(Result::err);
        check!(full == Some(SendError::Quarantined), "nothing is taken from the one who broke the protocol");
        let lane = env.endpoint().lane_stats(E::id(1)).map_err(|_| Failed("a lane has numbers"))?;
        check!(lane.bad == 1 && lane.last_breach == Some(breach), "and it can know why");
        // What it leaves behind: laps of every kind, in every cell.
        (0..CELLS).try_for_each(|p| forge(env, p, [1 << 30, 2, 3, 4, 5, 6][p as usize % 6], 8))?;
        env.attach_again(1)?;
        (200..200 + 2 * CELLS).try_for_each(|n| env.send_number(1, n))
    })?;
    env.at(1, || {
        let all = before + honest + (CELLS + 2) * others().count() as u64;
        check!(env.until(|| env.inbox().count() >= all + 2 * CELLS), "its next life is taken from again");
        check!(
            env.in_order(all, BAD, 200)? == 2 * CELLS,
            "from its first message on, and nothing of the old"
        );
        check!(env.peek(1, env.control(BAD, control::BREACH))? == 0, "the quarantine is over");
        let breaches = told.count(BAD, |event| matches!(event, PeerEvent::Quarantined(_)));
        check!(breaches == 1, "and nobody honest came into another");
        Ok(())
    })
}

pub(crate) fn a_breach_ends_in_quarantine_until_the_next_life<E: Env>(env: &'static E) -> Outcome {
    let handle = env.listen()?;
    attacks().into_iter().try_for_each(|how| attack(env, how))?;
    env.unlisten(handle)
}

pub(crate) fn a_receiver_that_contradicts_itself_is_noticed<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let senders = || (0..env.kernels()).filter(|kernel| *kernel != 1);
    let scribble = |word, value: u64| {
        env.at(1, || senders().try_for_each(|lane| env.poke(1, env.control(lane, word), value)))
    };
    let expect = |error| {
        env.not_at(1, || {
            check!(env.try_number(1, 0) == Err(error), "no message is stored on a word that cannot be true");
            Ok(())
        })
    };
    env.with_deaf(1, || {
        env.step()?;
        env.not_at(1, || {
            check!((0..CELLS).all(|n| env.try_number(1, n).is_ok()), "a lane takes what it has cells for");
            Ok(())
        })?;
        for credit in [CELLS + 1, 1 << 40, u64::MAX, u64::MAX - 1] {
            scribble(control::CREDIT, credit)?;
            expect(SendError::Broken)?;
        }
        // True again, and the sender has forgiven: three cells are free, and one of them is used.
        scribble(control::CREDIT, 3)?;
        env.not_at(1, || {
            check!((0..3).all(|n| env.try_number(1, CELLS + n).is_ok()), "three cells");
            Ok(())
        })?;
        scribble(control::CREDIT, 2)?;
        expect(SendError::Broken)?;
        env.not_at(1, || {
            env.attach_again(1)?;
            check!(env.try_number(1, 0) == Err(SendError::Unanswered), "a new life needs an answer");
            Ok(())
        })?;
        for base in [3, CELLS + 1, 1 << 63, !(CELLS - 1)] {
            scribble(control::BASE, base)?;
            scribble(control::ANSWER, 0)?;
            expect(SendError::Unanswered)?;
            env.at(1, || {
                senders().try_for_each(|lane| {
                    let hello = env.peek(1, env.header(lane, header::HELLO))?;
                    env.poke(1, env.control(lane, control::ANSWER), hello)
                })
            })?;
            expect(SendError::Broken)?;
        }
        Ok(())
    })?;
    env.step()
}

pub(crate) fn lost_ranges_that_cannot_be_are_not_told<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let told = env.told();
    env.not_at(1, || (0..4).try_for_each(|n| env.send_number(1, n)))?;
    // From, to: beyond what was sent, backwards, empty.
    for (from, to) in [(0, 5), (3, u64::MAX), (4, 2), (3, 3), (u64::MAX, 4)] {
        env.at(1, || {
            (0..env.kernels()).filter(|lane| *lane != 1).try_for_each(|lane| {
                env.poke(1, env.control(lane, control::LOST_FROM), from)?;
                env.poke(1, env.control(lane, control::LOST_TO), to)
            })
        })?;
        env.not_at(1, || {
            env.endpoint().tick(0, 1);
            let lost = told.count(1, |event| matches!(event, PeerEvent::Lost { .. }));
            check!(lost == 0, "no message is lost that cannot be");
            Ok(())
        })?;
    }
    env.step()
}
