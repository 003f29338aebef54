// SPDX-License-Identifier: MIT OR Apache-2.0
//! A case about the events that a kernel gets about the lives of another kernel: Up, Suspect, Alive and Dead.

use super::{control, Native, LIFE};
use crate::env::{Env, Steps};
use crate::{check, Outcome};
use mk_ipi_core::abi::Incarnation;
use mk_ipi_core::platform::PeerEvent;

pub(crate) fn goodbye_and_a_heartbeat_that_stands_still_are_seen<E: Env>(env: &'static E) -> Outcome {
    env.go_native()?;
    let (before, handle, told) = (env.inbox().count(), env.listen()?, env.peer_reports());
    let (first, second) = (Incarnation::FIRST, Incarnation::FIRST.next());
    let tick = |now| {
        env.endpoint().tick(now, 10);
        Ok(())
    };
    let look = |now| env.not_at(1, || tick(now));
    // Returns true if this event about kernel 1 was reported `what` times, each time with kernel 1's incarnation `theirs` and our
    // own incarnation. Kernel 1 itself does not check this.
    let expect = |event: PeerEvent, theirs: Incarnation, what: usize| {
        let mine = |peer: mk_ipi_core::platform::Peer| {
            peer.id == E::id(1) && peer.theirs == Some(theirs) && peer.ours == first
        };
        env.me() == 1
            || (told.count(1, |e| e == event) == what
                && told.about(|peer, e| e == event && mine(peer)) == what)
    };
    env.step()?;
    check!(env.peek(1, LIFE)? == 1, "LIFE is the incarnation of the receiver");
    look(0)?;
    look(50)?;
    check!(expect(PeerEvent::Up(first), first, 1), "the receiver is reported as up, once");
    check!(
        expect(PeerEvent::Suspect, first, 0),
        "a heartbeat that never began does not make a kernel suspect"
    );
    env.at(1, || tick(0))?;
    look(100)?;
    look(110)?;
    check!(
        expect(PeerEvent::Suspect, first, 0),
        "a heartbeat that is not late yet does not make a kernel suspect"
    );
    look(111)?;
    look(130)?;
    check!(expect(PeerEvent::Suspect, first, 1), "a heartbeat that stands still is reported once");
    env.at(1, || tick(0))?;
    look(131)?;
    check!(expect(PeerEvent::Alive, first, 1), "a heartbeat that continues is reported once");
    look(141)?;
    look(142)?;
    check!(expect(PeerEvent::Suspect, first, 2), "a heartbeat that stands still again is reported again");
    env.not_at(1, || env.send_all(1, 0..2))?;
    env.at(1, || env.expect_from_others(before, 0, 2))?;
    env.with_deaf(1, || {
        env.step()?;
        env.at(1, || {
            env.endpoint().goodbye();
            check!(env.peek(1, LIFE)? == 1 | 1 << 32, "LIFE says that the life is over");
            env.but(1).try_for_each(|lane| {
                check!(
                    env.controls(1, lane, [control::CREDIT, control::HANDED])? == [2, 2],
                    "all messages were handled before the goodbye"
                );
                Ok(())
            })
        })?;
        env.not_at(1, || env.send_all(1, 2..4))?;
        look(143)?;
        look(200)?;
        check!(expect(PeerEvent::Dead(first), first, 1), "a goodbye is reported once");
        check!(expect(PeerEvent::Suspect, first, 2), "no heartbeat is expected after a goodbye");
        env.at(1, || {
            check!(env.next_life()? == second, "the next life is the next incarnation");
            env.attach_again(1)
        })
    })?;
    look(201)?;
    check!(expect(PeerEvent::Up(second), second, 1), "the next life is reported once");
    check!(
        expect(PeerEvent::Up(first), first, 1) && expect(PeerEvent::Dead(second), second, 0),
        "the former life is not reported as up again, nor the next one as dead"
    );
    env.at(1, || env.expect_from_others(before, 0, 4))?;
    check!(!told.anything_became(), "no message that was sent after the goodbye is discarded or in doubt");
    env.step()?;
    env.unlisten(handle)
}
