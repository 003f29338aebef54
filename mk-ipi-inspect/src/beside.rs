// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compares the contents of a region with the directory (SPEC D-5 to D-10, N-12, N-17).

use crate::directory::{Directory, Instance};
use crate::finding::Notes;
use crate::native::{Lane, Receiver, Region};
use crate::rfc_v2;
use mk_ipi_abi::native::Attached;
use mk_ipi_abi::Incarnation;

/// Compares a native region with the directory. `instance` is the receiver of the region.
pub(crate) fn native(region: &Region, directory: &Directory, instance: &Instance, notes: &mut Notes<'_>) {
    if let Some(receiver) = &region.receiver {
        life(receiver, instance, notes);
        bell(receiver, directory, instance, notes);
    }
    for lane in &region.lanes {
        let sender = directory.instances.iter().find(|sender| u32::from(sender.id) == lane.instance);
        sending_cpu(lane, sender, notes);
        let Some(attached) = attached(lane) else { continue };
        if instance.is_ending() && lane.instance != u32::from(instance.id) {
            notes.suspect(
                format!("lane {}: the region ends, and life {} of the sender says that it has the region mapped", lane.instance, attached.incarnation.get()),
                "The host must not reuse the memory until that kernel has detached, or its CPUs are known to have stopped (SPEC D-8, D-10).",
            );
        } else {
            sending_life(lane, attached, directory, sender, instance, notes);
        }
    }
    if region.shape.is_some() && instance.live {
        directory.instances.iter().for_each(|sender| missing(region, sender, instance, notes));
    }
}

/// Adds a finding for each live kernel that says that it has this region mapped, although no directory names the region.
pub(crate) fn unnamed(region: &Region, directories: &[Directory], notes: &mut Notes<'_>) {
    let instances = || directories.iter().flat_map(|directory| &directory.instances);
    for lane in &region.lanes {
        let Some(attached) = attached(lane) else { continue };
        let is_it =
            |i: &Instance| u32::from(i.id) == lane.instance && i.incarnation == attached.incarnation.get();
        if instances().any(|i| i.live && is_it(i)) {
            notes.suspect(
                format!("lane {}: life {} of the sender is live, and says that it has this region mapped", lane.instance, attached.incarnation.get()),
                "It can still write here. If the memory was given back, it can write into memory of another owner. The host must wait until no kernel has the region mapped (SPEC D-10).",
            );
        }
    }
}

/// The contents of ATTACHED: the life of the sender that has the region mapped, and the generation that this life has followed.
fn attached(lane: &Lane) -> Option<Attached> {
    let incarnation = lane.header.attached.and_then(Incarnation::new)?;
    Some(Attached { incarnation, generation: lane.header.followed })
}

/// Compares LIFE with the incarnation and the state in the directory.
fn life(receiver: &Receiver, instance: &Instance, notes: &mut Notes<'_>) {
    let (listed, state) = (instance.incarnation, instance.state);
    let Some(life) = receiver.life else {
        if receiver.life_word == 0 && state == "running" {
            notes.suspect(
                format!("the directory says that life {listed} is running, and LIFE is 0"),
                "No kernel rings this receiver. LIFE was overwritten, or the host wrote the state before the kernel had joined (SPEC D-10, N-12).",
            );
        }
        return;
    };
    if is_older(life, listed) {
        notes.suspect(
            format!("LIFE names life {life}, and the directory names life {listed}"),
            "The life that the directory names has not begun yet. No kernel rings it. When it begins, it looks for messages without a doorbell (SPEC N-12).",
        );
    } else if life != listed {
        notes.broken(
            format!("LIFE names life {life}, which is newer than life {listed} in the directory"),
            "The host has not written this life to the directory, or another kernel uses the region.",
        );
    } else if receiver.over && instance.live {
        notes.suspect(
            format!("life {life} has said goodbye, and the directory says that it is {state}"),
            "The host has not noticed the goodbye yet. Kernels send to this instance, and ring it, until the host writes that it is dead (SPEC D-10, D-11).",
        );
    } else if !receiver.over && instance.is_ending() {
        notes.suspect(
            format!("the region ends, and life {life} of its receiver has not said goodbye"),
            "The host may reuse the memory only if the CPUs of that life are known to have stopped (SPEC D-10).",
        );
    } else if !receiver.over && !instance.live {
        notes.note(
            format!("the directory says that life {life} is {state}, and it has not said goodbye"),
            "The kernel was stopped, or the host treats it as dead. If its CPUs still run, it learns this when it follows the directory (SPEC D-7, D-11).",
        );
    }
}

/// True if `life` is older than `listed` (SPEC N-12).
fn is_older(life: u32, listed: u32) -> bool {
    (1..1 << 31).contains(&listed.wrapping_sub(life))
}

/// Compares the CPU in BELL with the CPUs in the directory.
fn bell(receiver: &Receiver, directory: &Directory, instance: &Instance, notes: &mut Notes<'_>) {
    let Some((cpu, vector)) = receiver.bell else { return };
    if !instance.live || receiver.life.is_some_and(|life| is_older(life, instance.incarnation)) {
        return notes.note(
            format!("BELL is CPU {cpu}, vector {vector:#x}, and was written by a life that is over"),
            "No kernel rings there for this receiver. The next life writes BELL before LIFE (SPEC N-11, N-12).",
        );
    }
    if instance.cpus.contains(&cpu) {
        return;
    }
    let owner = directory.instances.iter().find(|other| other.live && other.cpus.contains(&cpu));
    let whose = owner.map_or("no live instance".into(), |owner| format!("instance {}", owner.id));
    notes.suspect(
        format!("the receiver wants to be rung at CPU {cpu}, vector {vector:#x}, but in the directory that CPU belongs to {whose}"),
        "A kernel that has followed the directory rings the receiver's doorbell CPU in the directory instead, and reads the directory again (SPEC N-12).",
    );
}

/// Compares the sending CPUs in unread messages with the sender's CPUs in the directory.
fn sending_cpu(lane: &Lane, sender: Option<&Instance>, notes: &mut Notes<'_>) {
    let Some(sender) = sender.filter(|sender| sender.live && !lane.torn) else { return };
    // A message contains only the low 32 bits of the id.
    let is_its = |cpu: u32| sender.cpus.iter().any(|own| own & u64::from(u32::MAX) == u64::from(cpu));
    if let Some(message) = lane.lines.messages.iter().find(|message| !is_its(message.cpu)) {
        notes.note(
            format!("lane {}: message {} names CPU {} as its sender, and in the directory this CPU is not one of the sender's", lane.instance, message.number, message.cpu),
            "The CPU was added or removed just now, or the sender wrote a wrong id. The message is handed out all the same, because this id is not used (SPEC N-12).",
        );
    }
}

/// Compares ATTACHED, which names a life of the sender and a generation, with the directory.
fn sending_life(
    lane: &Lane,
    attached: Attached,
    directory: &Directory,
    sender: Option<&Instance>,
    instance: &Instance,
    notes: &mut Notes<'_>,
) {
    let generation = directory.generation.and_then(|generation| u32::try_from(generation).ok()).unwrap_or(0);
    let life = attached.incarnation.get();
    match sender {
        None => notes.note(
            format!("lane {0}: its sender, instance {0}, is not in the directory", lane.instance),
            "The sender has ended, or is not on this machine. The receiver does not look at this lane (SPEC N-10).",
        ),
        Some(sender) if !sender.live => notes.note(
            format!("lane {}: its sender is {}, and has not detached", lane.instance, sender.state),
            "The messages that it has published are handed out. The region can end when the CPUs of this sender have stopped (SPEC D-10).",
        ),
        Some(sender) if sender.incarnation != life => notes.suspect(
            format!("lane {}: life {life} of the sender is attached, and the directory names life {}", lane.instance, sender.incarnation),
            "A new life of the sender has just begun, or has not attached yet (SPEC D-5).",
        ),
        Some(sender) => {
            let own = sender.id == instance.id;
            if !own && generation != 0 && !attached.has_followed(generation) {
                let followed = match attached.generation {
                    0 => "has not followed the directory".into(),
                    followed => format!("has followed the directory to generation {followed}, not to {generation}"),
                };
                notes.suspect(
                    format!("lane {}: its sender {followed}", lane.instance),
                    "It can still ring CPUs, and use regions, that an older generation listed. The host waits for it before it gives these to another kernel (SPEC D-7, D-10).",
                );
            }
        }
    }
}

/// Adds a finding if `sender` is running, and is not attached to this region.
fn missing(region: &Region, sender: &Instance, instance: &Instance, notes: &mut Notes<'_>) {
    let is_attached = |lane: &Lane| lane.instance == u32::from(sender.id) && lane.header.attached_word != 0;
    let speaks = sender.id != instance.id && sender.state == "running" && sender.layout == "native";
    if !speaks || region.lanes.iter().any(is_attached) {
        return;
    }
    let lanes = region.shape.as_ref().map_or(0, |shape| shape.lanes);
    if u32::from(sender.id) < lanes {
        notes.suspect(
            format!("instance {} is running, and has not attached this region", sender.id),
            "It cannot send here. A kernel attaches each live instance when it joins, and when it follows the directory, unless its table of instances is full or it cannot use the region (SPEC D-7).",
        );
    } else {
        notes.suspect(
            format!("instance {} is running, and the region has {lanes} lanes", sender.id),
            "It has no lane, and can never send here. A region with more lanes must be made (SPEC N-3).",
        );
    }
}

/// Compares a region of slots with the directory. `instance` is the receiver of the region.
pub(crate) fn slots(
    region: &rfc_v2::Region,
    directory: &Directory,
    instance: &Instance,
    notes: &mut Notes<'_>,
) {
    for slot in &region.used {
        if !instance.cpus.contains(&slot.cpu) {
            notes.suspect(
                format!(
                    "slot {0} is used, and CPU {0} does not belong to instance {1}",
                    slot.cpu, instance.id
                ),
                "No kernel reads this slot (SPEC L-5).",
            );
        }
        let rfc_v2::Content::Claimed { instance: by, incarnation } = slot.content else { continue };
        let claimer = directory.instances.iter().find(|claimer| claimer.id == by);
        if !claimer.is_some_and(|claimer| claimer.live && claimer.incarnation == incarnation) {
            notes.broken(
                format!("slot {} is claimed by life {incarnation} of instance {by}, which is over", slot.cpu),
                "All senders get `Busy` there until the host frees the slot (SPEC X-5).",
            );
        } else if !instance.exclusive {
            notes.broken(
                format!("slot {} is claimed, and the region is not exclusive", slot.cpu),
                "The kernels do not agree on the policy of the region: one of them uses another directory (SPEC X-1).",
            );
        }
    }
}
