// SPDX-License-Identifier: MIT OR Apache-2.0
//! `include/mk_ipi.h` is what cbindgen makes of the crate, and says the sizes and offsets that the crate has.
//!
//! With `MK_IPI_HEADER=write` in the environment it is written instead: `cargo xtask capi` does that.
#![cfg(not(miri))]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use mk_ipi_capi::directory::mk_ipi_directory_writer;
use mk_ipi_capi::instance::mk_ipi;
use mk_ipi_capi::limits::{self, MK_IPI_SIZE};
use mk_ipi_capi::ops::mk_ipi_ops;
use mk_ipi_capi::poller::mk_ipi_poller;
use mk_ipi_capi::types::*;
use std::fmt::Write;
use std::mem::{align_of, offset_of, size_of};
use std::path::Path;

/// The crate's files, in the order in which the header shows them.
const FILES: [&str; 14] = [
    "types",
    "instance",
    "ops",
    "life",
    "start",
    "follow",
    "handlers",
    "compat",
    "send",
    "receive",
    "native",
    "poller",
    "pages",
    "directory",
];

/// What the compiler says of a struct: its name, size, alignment, and the offset of each field.
struct Layout {
    name: &'static str,
    size: usize,
    align: usize,
    fields: Vec<(&'static str, usize)>,
}

macro_rules! layouts {
    ($($name:ident { $($field:ident),* })*) => {
        vec![$(Layout {
            name: stringify!($name),
            size: size_of::<$name>(),
            align: align_of::<$name>(),
            fields: vec![$((stringify!($field).trim_start_matches("r#"), offset_of!($name, $field))),*],
        }),*]
    };
}

fn layouts() -> Vec<Layout> {
    layouts! {
        mk_ipi_data { sender_cpu, r#type, data_size, buffer }
        mk_ipi_message {
            payload, size, number, sender_cpu, r#type, sender, sender_incarnation, receiver_incarnation
        }
        mk_ipi_payload { data, size }
        mk_ipi_instance {
            cpus, doorbell_cpu, nr_cpus, id, incarnation, vector, layout, slots, exclusive, lanes, lines, max_len,
            one_doorbell
        }
        mk_ipi_instance_info {
            region_start, region_len, doorbell_cpu, incarnation, layout, exclusive, vector, one_doorbell,
            reserved
        }
        mk_ipi_range { start, len }
        mk_ipi_event { number, after, peer, kind, theirs, ours, incarnation, breach }
        mk_ipi_record {
            region_start, region_len, doorbell_cpu, instance, incarnation, state, layout, flags, vector, nr_cpus,
            reserved
        }
        mk_ipi_conflict { cpu, why, instance, incarnation, reserved }
        mk_ipi_stats {
            sent, busy, full, refused, rung, not_rung, interrupts, received, handled, unhandled, empty, bad_size,
            overwritten, dropped, left, no_region, beyond_cpus, quarantined
        }
        mk_ipi_lane_stats { number, full, rung, received, resets, bad, last_breach }
        mk_ipi_ops {
            size, version, reserved, ctx, pool_alloc, pool_free, map, unmap, peer_may_share, doorbell_check,
            doorbell_ring, doorbell_ring_nmi, this_cpu_id, this_cpu_index, irq_save, irq_restore, schedule, relax,
            log, region_added, region_removed, peer_event, peer_has_cpu, left_out, stop, unhandled
        }
        mk_ipi {}
        mk_ipi_directory_writer {}
        mk_ipi_poller {}
    }
}

/// The assertions, in C.
fn assertions() -> String {
    let mut text = String::from(
        "\n/* Size, alignment and offsets, as the library was built. */\n#ifdef __cplusplus\n#define MK_IPI_ASSERT(what) \
         static_assert(what, #what)\n#define MK_IPI_ALIGNOF(type) alignof(type)\n#else\n#define MK_IPI_ASSERT(what) \
         _Static_assert(what, #what)\n#define MK_IPI_ALIGNOF(type) _Alignof(type)\n#endif\n",
    );
    for Layout { name, size, align, fields } in layouts() {
        // What the limits make of it, the header computes.
        let size = if size == MK_IPI_SIZE { "MK_IPI_SIZE".to_owned() } else { size.to_string() };
        writeln!(text, "MK_IPI_ASSERT(sizeof(struct {name}) == {size});").unwrap();
        writeln!(text, "MK_IPI_ASSERT(MK_IPI_ALIGNOF(struct {name}) == {align});").unwrap();
        for (field, offset) in fields {
            writeln!(text, "MK_IPI_ASSERT(offsetof(struct {name}, {field}) == {offset});").unwrap();
        }
    }
    text
}

/// A limit: its name, the usual value, the most that it can be, and what it is.
const LIMITS: [(&str, usize, usize, &str); 4] = [
    ("MK_IPI_MAX_CPUS", 64, 4096, "Most CPUs of this kernel: `this_cpu_index` is below it. Those of others need no room."),
    ("MK_IPI_MAX_HANDLERS", 64, 128, "Most handlers that can be registered at a time."),
    (
        "MK_IPI_QUEUE",
        16,
        1024,
        "Messages that one run of the deferred work handles at most; on RFC v2 also those that can wait for it on a CPU. A power \
         of two.",
    ),
    ("MK_IPI_MAX_INSTANCES", 256, 256, "Ids of instances that this kernel can know are below it."),
];

/// The limits, and the size that follows from them.
fn limits_in_c() -> String {
    let mut text = String::from(
        "\n/*\n * Limits. Who builds the library chooses them (`cargo xtask capi --help`), and defines them here to the same \
         values:\n * mk_ipi_init finds out if these ask for another size.\n */\n",
    );
    for (name, usual, most, what) in LIMITS {
        writeln!(text, "/** {what} 1 to {most}. */\n#ifndef {name}\n#define {name} {usual}\n#endif").unwrap();
        writeln!(text, "#if {name} < 1 || {name} > {most}\n#error \"{name} must be 1 to {most}\"\n#endif")
            .unwrap();
    }
    let (fixed, cpu, queued) = (limits::FIXED, limits::PER_CPU, limits::PER_QUEUED);
    let (handler, instance) = (limits::PER_HANDLER, limits::PER_INSTANCE);
    writeln!(
        text,
        "/** Bytes of `struct mk_ipi`. */\n#define MK_IPI_ROUND_(n) (((n) + 127) / 128 * 128)\n#define MK_IPI_SIZE \\\n\tMK_IPI_ROUND_({fixed} + \
         MK_IPI_MAX_CPUS * MK_IPI_ROUND_({cpu} + {queued} * MK_IPI_QUEUE) + \\\n\t\t       {handler} * MK_IPI_MAX_HANDLERS + {instance} * MK_IPI_MAX_INSTANCES)"
    )
    .unwrap();
    text
}

fn made() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    config.trailer = Some(assertions());
    config.after_includes = Some(config.after_includes.unwrap_or_default() + &limits_in_c());
    let mut builder = cbindgen::Builder::new().with_config(config);
    for file in FILES {
        builder = builder.with_src(root.join("src").join(format!("{file}.rs")));
    }
    let mut text = Vec::new();
    builder.generate().unwrap().write(&mut text);
    let text = String::from_utf8(text).unwrap();
    text.replace(" * # Safety\n *\n", " * Safety:\n")
}

#[test]
fn the_kept_header_is_what_cbindgen_makes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/mk_ipi.h");
    let made = made();
    if std::env::var("MK_IPI_HEADER").is_ok_and(|v| v == "write") {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = kept.lines().zip(made.lines()).find(|(kept, made)| kept != made);
    if let Some((kept, made)) = differs {
        panic!("include/mk_ipi.h is stale: `cargo xtask capi` writes it\n  kept: {kept}\n  made: {made}");
    }
    assert!(kept == made, "include/mk_ipi.h is stale: `cargo xtask capi` writes it");
}

#[test]
fn every_struct_and_field_of_the_header_is_asserted() {
    let made = made();
    let mut structs = 0;
    for (name, body) in structs_of(&made) {
        structs += 1;
        assert!(made.contains(&format!("sizeof(struct {name}) ==")), "{name}");
        for field in fields_of(body).filter(|field| *field != "_opaque") {
            assert!(made.contains(&format!("offsetof(struct {name}, {field}) ==")), "{name}.{field}");
        }
    }
    assert_eq!(structs, layouts().len());
}

/// The structs that the header defines: name and body.
fn structs_of(header: &str) -> impl Iterator<Item = (&str, &str)> {
    header.split("\nstruct ").skip(1).filter_map(|text| {
        let (head, rest) = text.split_once('{')?;
        let name = head.split_whitespace().last()?;
        // Not a prototype or a forward declaration.
        (!head.contains([';', '('].as_slice()) || head.contains("MK_IPI_ALIGNED")).then_some(())?;
        Some((name, rest.split_once("\n}")?.0))
    })
}

/// The fields' names: what stands before `;`, an array's length, or a function's arguments.
fn fields_of(body: &str) -> impl Iterator<Item = &str> {
    let lines = body.lines().map(str::trim).filter(|l| !l.starts_with(['*', '/']) && !l.is_empty());
    lines.filter_map(|line| match line.split_once("(*") {
        Some((_, rest)) => rest.split_once(')').map(|(name, _)| name),
        None if line.ends_with(';') && !line.contains(')') => {
            let line = line.trim_end_matches(';').split('[').next()?;
            line.rsplit([' ', '*']).next()
        }
        None => None,
    })
}
