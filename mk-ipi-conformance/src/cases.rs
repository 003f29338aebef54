// SPDX-License-Identifier: MIT OR Apache-2.0
//! The list of all cases, and the cases about handlers and deferred work.

use crate::env::{Env, Steps, TestHandler, TYPE};
use crate::inbox::{digest, payload};
use crate::{check, Case, Failed, Outcome};
use mk_ipi_core::abi::{MessageType, PhysCpuId};
use mk_ipi_core::sync::Ordering::Relaxed;
use mk_ipi_core::{RegistryFull, SendError, UnregisterError};

type Part<E> = fn(&'static E) -> Outcome;

macro_rules! cases {
    ($($clauses:literal $module:ident::$name:ident,)*) => {
        /// The cases, in the order in which they run.
        pub const CASES: &[Case] = &[$(Case { name: stringify!($name), clauses: $clauses }),*];

        /// The functions of the cases, in the order of [`CASES`].
        pub(crate) fn parts<E: Env>() -> [Part<E>; CASES.len()] {
            [$(crate::$module::$name::<E>),*]
        }
    };
}

cases! {
    "L-2 L-5 S-4" policies::a_sent_message_has_the_bytes_of_the_struct,
    "R-2 L-5" policies::a_message_lies_in_the_slot_of_its_cpu,
    "S-1 R-3 R-4" policies::every_size_arrives_whole,
    "O-1 O-2" policies::the_doorbell_does_not_overtake_the_message,
    "R-3" policies::a_slot_that_holds_no_message_delivers_none,
    "X-4 H-16" policies::a_stray_doorbell_delivers_nothing_from_an_exclusive_slot,
    "X-1 H-1" policies::overwrite_keeps_the_last_message,
    "X-1 H-16" policies::a_receiver_of_c_senders_never_writes_its_slot,
    "X-2 X-4" policies::an_unread_message_makes_its_slot_busy,
    "X-2 X-5" policies::a_claim_is_ignored_and_cleared_by_the_host,
    "X-2 X-4 H-1" policies::many_senders_lose_nothing,
    "R-6 H-5" policies::a_full_queue_leaves_the_message_in_its_slot,
    "R-6 H-5" policies::a_full_queue_drops_the_newest_of_an_overwritten_slot,
    "R-7" policies::a_poll_finds_what_a_lost_doorbell_left,
    "H-15" policies::the_counters_count,
    "C-6" cases::every_handler_of_a_type_gets_each_message,
    "C-6" cases::a_full_registry_refuses,
    "C-7 H-9" cases::an_ended_registration_is_over_and_cannot_end_twice,
    "C-7" cases::unregistration_inside_a_callback_is_refused,
    "C-8 S-6" cases::a_callback_may_send,
    "C-8 H-2" cases::a_callback_has_a_private_copy,
    "S-2 H-10" cases::a_kernel_can_send_to_itself,
    "S-1 H-4" instances::a_bad_send_writes_nothing,
    "S-1 A-4" instances::an_unreachable_cpu_is_refused,
    "C-1 H-6" instances::a_bad_instance_is_refused,
    "C-3 C-4 H-8" instances::an_instance_in_use_is_not_destroyed,
    "C-2 C-4" instances::a_destroyed_instance_takes_no_messages,
    "P-1 P-2" instances::a_pfn_arrives,
    "P-3 P-4 H-18" instances::a_shared_page_is_mapped_and_no_other,
    "N-1 N-2 U-15" native::a_region_without_a_stamp_is_named_by_its_size,
    "N-1 N-2 U-15" native::another_generation_is_named_by_its_own_magic,
    "N-1 N-2" native::a_bad_stamp_is_refused,
    "N-3 N-6 N-7 N-8 U-5" native::every_size_lies_in_its_lines_and_arrives_whole,
    "N-2 N-6 N-7 N-8" native::messages_are_as_long_as_the_stamp_says,
    "N-8 N-10 N-16 U-1 U-10 U-12" native::a_full_lane_refuses_and_tells_of_space,
    "N-8 N-10 U-12" native::space_is_told_of_when_the_message_fits,
    "N-10 N-14" native::a_waiter_is_told_that_it_is_refused,
    "N-8 N-9 U-13" native::what_is_sent_before_the_receiver_is_up_arrives,
    "N-8 N-12 N-13 U-4" native::many_lanes_lose_nothing,
    "N-7 N-8" native::native_sends_are_checked,
    "N-8" native::many_are_sent_as_far_as_there_is_space,
    "N-8" native::a_sender_knows_what_was_handled,
    "N-8 N-12" native::a_callback_may_send_on_a_lane,
    "N-10" native::what_a_callback_posts_is_flushed_by_itself,
    "N-4 N-5 N-16" native::the_lane_counts,
    "N-10" native::a_busy_receiver_is_not_rung,
    "N-10" native::what_is_posted_waits_for_the_flush,
    "N-10" native::a_poll_finds_what_was_not_rung_for,
    "N-10 U-6" native::every_stream_ends_with_a_doorbell_that_counts,
    "N-12 U-16" native::a_doorbell_moves,
    "N-10 N-13" native::a_poller_holds_the_lanes_and_is_rung_by_nobody,
    "N-10 N-15" native::a_poller_sees_to_what_deferred_work_would,
    "C-7 N-10" native::a_pollers_handlers_can_end,
    "N-13 U-9" native::a_drain_keeps_to_its_budget_and_to_turns,
    "N-13 U-9" native::work_that_is_left_is_done,
    "N-15 U-11" native::the_host_alone_stops_a_kernel_past_a_full_lane,
    "N-14 N-12 N-7 N-16 U-8" native::a_breach_ends_in_quarantine_until_the_next_life,
    "N-14" native::what_is_no_breach_changes_nothing,
    "N-8 N-9" native::a_receiver_that_contradicts_itself_is_noticed,
    "N-11" native::what_cannot_have_become_of_messages_is_not_told,
    "N-4 N-5 N-9" native::the_hello_stands_where_it_is_looked_for,
    "N-4 N-5 N-9" native::a_new_life_follows_the_old_one,
    "N-9 U-3" native::gaps_that_a_dead_life_left_are_left_out,
    "N-9" native::lives_that_end_half_way_hold_up_nobody,
    "N-9 N-11" native::a_kernel_that_restarts_whole_is_heard_again,
    "N-11" native::what_was_unread_is_delivered_to_the_next_life,
    "N-11" native::a_handler_runs_between_handed_and_credit,
    "N-11" native::the_message_that_a_dead_life_was_at_is_in_doubt,
    "N-11" native::impossible_positions_of_a_dead_life_do_not_stop_new_senders,
    "N-11" native::an_attachment_of_the_same_life_loses_nothing,
    "N-11" native::goodbye_and_a_heartbeat_that_stands_still_are_seen,
    "N-11" native::a_life_may_discard_what_was_unread,
}

/// A second message type that the cases use, in addition to [`TYPE`].
const OTHER: MessageType = MessageType(0x4000_0002);

pub(crate) fn every_handler_of_a_type_gets_each_message<E: Env>(env: &'static E) -> Outcome {
    let before = env.inbox().count();
    let unhandled = env.endpoint().stats().unhandled;
    let handles = [env.listen()?, env.listen()?, env.listen()?];
    let other = env
        .register(OTHER, |env, m| env.inbox().push(m))
        .ok_or(Failed("a handler for another type can be registered"))?;
    env.step()?;
    env.send(env.next(), 1, 9)?;
    check!(
        env.until(|| env.inbox().count() >= before + 3),
        "each of three handlers of a type gets each message of that type"
    );
    env.linger();
    check!(env.inbox().count() == before + 3, "a handler of another type does not get the message");
    env.step()?;
    handles.into_iter().chain([other]).try_for_each(|h| env.unlisten(h))?;
    env.step()?;
    env.send(env.next(), 2, 9)?;
    check!(
        env.until(|| env.endpoint().stats().unhandled == unhandled + 1),
        "a message without handler is counted"
    );
    check!(env.inbox().count() == before + 3, "handlers that ended are not called");
    Ok(())
}

pub(crate) fn a_full_registry_refuses<E: Env>(env: &'static E) -> Outcome {
    let mut handles = [None; 16];
    for place in &mut handles {
        *place = Some(env.listen()?);
    }
    let tap = || env.endpoint().register(TYPE, TestHandler::new(env, |_, _| ()));
    check!(tap() == Err(RegistryFull), "a registry with 16 handlers refuses another one");
    handles.into_iter().flatten().try_for_each(|h| env.unlisten(h))?;
    match tap() {
        Ok(handle) => env.unlisten(handle),
        Err(RegistryFull) => Err(Failed("an ended registration frees its place")),
    }
}

pub(crate) fn an_ended_registration_is_over_and_cannot_end_twice<E: Env>(env: &'static E) -> Outcome {
    let before = env.inbox().count();
    let first = env.listen()?;
    env.unlisten(first)?;
    check!(
        env.endpoint().unregister(first) == Err(UnregisterError::Stale),
        "a handle can be unregistered only once"
    );
    let second = env.listen()?;
    check!(
        env.endpoint().unregister(first) == Err(UnregisterError::Stale),
        "a handle that has ended does not end the next handler in its place"
    );
    env.step()?;
    env.send(env.next(), 3, 16)?;
    check!(env.until(|| env.inbox().count() == before + 1), "the next handler in that place gets messages");
    env.unlisten(second)
}

/// Stores the result of a callback's check in the inbox: 1 for true, 2 for false. The case reads it with [`noted`].
fn note<E: Env>(env: &'static E, yes: bool) {
    env.inbox().note.store(if yes { 1 } else { 2 }, Relaxed);
}

/// Returns the result that a callback stored with [`note`], or 0 if it has stored none.
fn noted<E: Env>(env: &'static E) -> u64 {
    env.inbox().note.load(Relaxed)
}

pub(crate) fn unregistration_inside_a_callback_is_refused<E: Env>(env: &'static E) -> Outcome {
    let other = env.listen()?;
    let tries = env.endpoint().register(OTHER, TestHandler::unregister(env, other));
    let tries = tries.map_err(|_| Failed("a handler can be registered"))?;
    env.step()?;
    let sent = env.until(|| env.endpoint().send(E::id(env.next()), OTHER, &[1]) != Err(SendError::Busy));
    check!(sent && env.until(|| noted(env) != 0), "the callback runs");
    check!(noted(env) == 1, "unregister gives InCallback inside every callback, for every handle");
    env.step()?;
    env.unlisten(tries)?;
    env.unlisten(other)
}

pub(crate) fn a_callback_may_send<E: Env>(env: &'static E) -> Outcome {
    let before = env.inbox().count();
    // Kernel 0 gets the answers; the others answer from their callbacks.
    let handle = if env.me() == 0 {
        env.listen()
    } else {
        let answer = env.register(TYPE, |env, m| {
            let answer = || env.endpoint().send(E::id(0), TYPE, m.payload());
            // The answer of another kernel can still be in kernel 0's slot, until kernel 0 reads it. A callback must not call
            // `pause`, so it only tries again.
            (0..E::PATIENCE).any(|_| answer() != Err(SendError::Busy));
        });
        answer.ok_or(Failed("a handler can be registered"))
    }?;
    env.step()?;
    if env.me() == 0 {
        for to in 1..env.kernels() {
            env.send(to, 40 + to as u64, 40)?;
            check!(
                env.until(|| env.inbox().count() == before + to as u64),
                "an answer comes from the callback"
            );
            let answer = env.inbox().get(before + to as u64 - 1);
            let same = digest(&payload(40 + to as u64, 40)[..40]);
            check!(
                answer.is_some_and(|a| a.digest == same && a.len == 40),
                "the answer has the payload that was sent"
            );
        }
    }
    env.step()?;
    env.unlisten(handle)
}

pub(crate) fn a_callback_has_a_private_copy<E: Env>(env: &'static E) -> Outcome {
    let handle = env.register(TYPE, |env, m| {
        let before = digest(m.payload());
        for word in 0..34 {
            // Any kernel that has the region mapped can write to the slot while the callback runs.
            let _ = env.scribble(env.me(), word, 0xffff_0000_ffff_ffff);
        }
        note(env, before == digest(m.payload()) && m.payload().len() == 200 && m.msg_type() == TYPE);
    });
    let handle = handle.ok_or(Failed("a handler can be registered"))?;
    env.step()?;
    if env.me() == 0 {
        env.send(1, 50, 200)?;
    }
    env.step()?;
    if env.me() == 1 {
        check!(env.until(|| noted(env) != 0), "the callback runs");
        check!(noted(env) == 1, "the message does not change while the callback reads it");
        env.scribble(1, 1, 0)?;
    }
    env.step()?;
    env.unlisten(handle)
}

pub(crate) fn a_kernel_can_send_to_itself<E: Env>(env: &'static E) -> Outcome {
    let before = env.inbox().count();
    let handle = env.listen()?;
    let (cpu, _) = env.doorbell_of(env.me())?;
    env.send(env.me(), 60, 33)?;
    check!(env.until(|| env.inbox().count() == before + 1), "a message to our own kernel arrives");
    let sent = env.until(|| {
        let sent = env.endpoint().send_to_cpu(E::id(env.me()), cpu, TYPE, &payload(61, 33)[..33]);
        sent != Err(SendError::Busy)
    });
    check!(
        sent && env.until(|| env.inbox().count() == before + 2),
        "a message to a named CPU of our own kernel arrives"
    );
    let record = env.inbox().get(before + 1);
    check!(
        record.is_some_and(|r| r.sender == cpu && r.first == 61),
        "the message has the id of the sending CPU, and its own payload"
    );
    let not_ours = PhysCpuId(cpu.0 ^ (1 << 40));
    let refused = env.endpoint().send_to_cpu(E::id(env.me()), not_ours, TYPE, &[1]);
    check!(refused == Err(SendError::NotItsCpu(not_ours)), "a CPU that belongs to no kernel is refused");
    env.unlisten(handle)
}
