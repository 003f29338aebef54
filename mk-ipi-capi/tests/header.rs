// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks that `include/mk_ipi.h` is the header that cbindgen makes from the crate, and that it asserts the sizes and offsets of
//! the crate's structs.
//!
//! With `MK_IPI_HEADER=write` in the environment the test writes the header first: `cargo xtask capi` does that.
#![cfg(not(miri))]
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use mk_ipi_capi::directory::mk_ipi_directory_writer;
use mk_ipi_capi::instance::mk_ipi;
use mk_ipi_capi::limits::{self, MK_IPI_SIZE};
use mk_ipi_capi::ops::mk_ipi_ops;
use mk_ipi_capi::poller::mk_ipi_poller;
use mk_ipi_capi::types::*;
use std::fmt::Write;
use std::mem::{align_of, offset_of, size_of};
use std::path::Path;

/// A section of the header: its title, a sentence about its content, the crate's files whose items belong to it, and the items of
/// other files that belong to it. A name that ends with `*` stands for all names with that beginning.
struct Section {
    title: &'static str,
    about: &'static str,
    files: &'static [&'static str],
    items: &'static [&'static str],
}

/// The header's sections, in order.
const SECTIONS: [Section; 6] = [
    Section {
        title: "General",
        about: "Error numbers and their texts, layouts of regions, counters.",
        files: &["error", "reason"],
        items: &["MK_IPI_RFC_V2", "MK_IPI_NATIVE", "MK_IPI_MAX_ENTRY_CPUS", "mk_ipi_range", "mk_ipi_stats"],
    },
    Section {
        title: "Life of a kernel",
        about: "The operations of a kernel, its identity, the instances in its table, and its end.",
        files: &["ops", "instance", "life", "start", "follow"],
        items: &[
            "mk_ipi_instance",
            "mk_ipi_instance_info",
            "MK_IPI_FOLLOWED_*",
            "mk_ipi_followed_callback_t",
        ],
    },
    Section {
        title: "Messages",
        about: "Callbacks for messages, sending and receiving, on both layouts.",
        files: &["handlers", "send", "receive", "pages"],
        items: &["mk_ipi_handler", "mk_ipi_message", "mk_ipi_message_callback_t"],
    },
    Section {
        title: "Native link",
        about: "Calls that only the native link has: several messages in one call, events, pollers, moves of the doorbell.",
        files: &["native", "poller"],
        items: &[
            "MK_IPI_MAX_LEN",
            "MK_IPI_MAX_MANY",
            "MK_IPI_EVENT_*",
            "mk_ipi_event",
            "mk_ipi_lane_stats",
            "mk_ipi_payload",
            "mk_ipi_send_from_nmi",
            "mk_ipi_post",
            "mk_ipi_post_many",
            "mk_ipi_send_many",
            "mk_ipi_flush",
            "mk_ipi_want_space",
        ],
    },
    Section {
        title: "RFC v2",
        about: "The calls of the Linux patch, with its names and results. They use the default instance of the library.\n \
                * Macros whose names do not begin with MK_IPI_ are defined only if they are not defined yet.",
        files: &["compat"],
        items: &[
            "MK_MAX_DATA_SIZE",
            "MK_MAX_INSTANCES",
            "MK_PFN_IPI_TYPE",
            "MULTIKERNEL_VECTOR",
            "mk_ipi_data",
            "mk_ipi_callback_t",
            "mk_ipi_set_default",
            "mk_ipi_start_rfc_v2",
        ],
    },
    Section {
        title: "Host",
        about: "For the kernel that starts and stops other kernels: the directory, and the calls that free a CPU or a region.",
        files: &["directory"],
        items: &[
            "MK_IPI_ABSENT",
            "MK_IPI_STARTING",
            "MK_IPI_RUNNING",
            "MK_IPI_DEAD",
            "MK_IPI_ENDING",
            "MK_IPI_EXCLUSIVE",
            "MK_IPI_ONE_DOORBELL",
            "MK_IPI_CONFLICT_*",
            "mk_ipi_record",
            "mk_ipi_conflict",
            "mk_ipi_has_stopped_callback_t",
            "mk_ipi_behind_callback_t",
            "mk_ipi_destroy_stopped",
            "mk_ipi_clear_claims",
            "mk_ipi_behind",
            "mk_ipi_stop",
        ],
    },
];

/// Constants that the header must contain in hexadecimal. cbindgen writes them in decimal.
const AS_WRITTEN: [(&str, &str); 2] = [("MK_PFN_IPI_TYPE", "0x80000001U"), ("MULTIKERNEL_VECTOR", "0xea")];

/// The layout of a struct in this build: its name, size, alignment, and the offset of each field.
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

/// The text of the assertions, in C.
fn assertions() -> String {
    let mut text = String::from(
        "/* The size, the alignment and the offsets of each struct, as in the library. */\n\
         #ifdef __cplusplus\n#define MK_IPI_ASSERT(what) static_assert(what, #what)\n\
         #elif __STDC_VERSION__ >= 201112L\n#define MK_IPI_ASSERT(what) _Static_assert(what, #what)\n\
         #else\n#define MK_IPI_ASSERT(what) extern char mk_ipi_asserted[(what) ? 1 : -1]\n#endif\n",
    );
    writeln!(text, "MK_IPI_ASSERT(MK_PFN_IPI_TYPE == 0x80000001U);").unwrap();
    for Layout { name, size, align, fields } in layouts() {
        // The size of `struct mk_ipi` depends on the limits, so the header computes it.
        let size = if size == MK_IPI_SIZE { "MK_IPI_SIZE".to_owned() } else { size.to_string() };
        writeln!(text, "MK_IPI_ASSERT(sizeof(struct {name}) == {size});").unwrap();
        writeln!(text, "MK_IPI_ASSERT(__alignof__(struct {name}) == {align});").unwrap();
        for (field, offset) in fields {
            writeln!(text, "MK_IPI_ASSERT(offsetof(struct {name}, {field}) == {offset});").unwrap();
        }
    }
    text
}

/// A limit: its name, its default, its maximum, and what it means.
const LIMITS: [(&str, usize, usize, &str); 4] = [
    (
        "MK_IPI_MAX_CPUS",
        64,
        4096,
        "Largest number of CPUs of this kernel. `this_cpu_index` returns indexes below this limit. CPUs of other kernels do\n \
         * not count.",
    ),
    ("MK_IPI_MAX_HANDLERS", 64, 128, "Largest number of callbacks that can be registered at the same time."),
    (
        "MK_IPI_QUEUE",
        16,
        1024,
        "Largest number of messages that one run of the deferred work handles. On RFC v2 it is also the largest number of\n \
         * messages that can wait for the deferred work on one CPU. A power of two.",
    ),
    ("MK_IPI_MAX_INSTANCES", 256, 256, "The table of instances can hold ids below this number."),
];

/// The text of the macros for the limits, and for the size of `struct mk_ipi` that follows from them.
fn limits_in_c() -> String {
    let mut text = String::from(
        "\n/*\n * Limits. They are chosen when the library is built (`cargo xtask capi --help`). A program must define \
         them to\n * the same values. mk_ipi_init fails if the sizes of struct mk_ipi differ.\n */\n",
    );
    for (name, usual, most, what) in LIMITS {
        writeln!(text, "/** {what} 1 to {most}. */\n#ifndef {name}\n#define {name} {usual}\n#endif").unwrap();
        writeln!(text, "#if {name} < 1 || {name} > {most}\n#error \"{name} must be 1 to {most}\"\n#endif")
            .unwrap();
    }
    let (fixed, cpu, queued) = (limits::FIXED, limits::PER_CPU, limits::PER_QUEUED);
    let (handler, instance, error) = (limits::PER_HANDLER, limits::PER_INSTANCE, limits::PER_ERROR);
    writeln!(
        text,
        "/** Bytes of `struct mk_ipi`. */\n#define MK_IPI_ROUND_(n) (((n) + 127) / 128 * 128)\n#define MK_IPI_SIZE \\\n\tMK_IPI_ROUND_({fixed} + \
         MK_IPI_MAX_CPUS * (MK_IPI_ROUND_({cpu} + {queued} * MK_IPI_QUEUE) + {error}) + \\\n\t\t       {handler} * MK_IPI_MAX_HANDLERS + {instance} * MK_IPI_MAX_INSTANCES)"
    )
    .unwrap();
    text
}

/// An item of the header: its name, and its text including the comment.
struct Item<'a> {
    name: &'a str,
    text: &'a str,
}

/// The item in a block of the header. The block begins with the item's comment.
fn item_of(text: &str) -> Item<'_> {
    let (_, declared) = text.split_once("*/\n").unwrap();
    let words = || declared.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|w| !w.is_empty());
    let name = match words().next().unwrap() {
        "define" => words().nth(1),
        "struct" | "enum"
            if declared.contains("{\n") || declared.ends_with(';') && !declared.contains('(') =>
        {
            let head = declared.split(['{', ';'].as_slice()).next().unwrap();
            head.split_whitespace().last()
        }
        "typedef" => words().find(|w| w.starts_with("mk_ipi_") && w.ends_with("_t")),
        _ => declared.split('(').next().unwrap().rsplit([' ', '*'].as_slice()).next(),
    };
    Item { name: name.unwrap(), text }
}

/// Whether the item is a struct, with or without a body.
fn is_struct(item: &Item<'_>) -> bool {
    let declared = item.text.split_once("*/\n").map_or("", |(_, declared)| declared);
    declared.starts_with("struct ") && (declared.contains("{\n") || !declared.contains('('))
}

/// The crate's file that defines an item.
fn file_of(name: &str, sources: &[(&'static str, String)]) -> &'static str {
    let defines = |source: &str| {
        ["fn", "struct", "enum", "type", "const"].iter().any(|kind| {
            source
                .split(&format!("pub {kind} {name}"))
                .chain(source.split(&format!("extern \"C\" {kind} {name}")))
                .skip(1)
                .any(|behind| {
                    behind.starts_with(['(', ' ', ':', '{', '='].as_slice()) || behind.starts_with("\n")
                })
        })
    };
    sources.iter().find(|(_, source)| defines(source)).unwrap_or_else(|| panic!("no file defines {name}")).0
}

/// The text of an item. A constant of [`AS_WRITTEN`] gets its hexadecimal value. A constant whose name does not begin with
/// `MK_IPI_` gets an `#ifndef`, because another header may define it too.
fn as_written(item: &Item<'_>) -> String {
    let Some((comment, value)) = item.text.split_once("\n#define ") else { return item.text.to_owned() };
    let value = value.strip_prefix(item.name).unwrap().trim();
    let written = AS_WRITTEN.iter().find(|(name, _)| *name == item.name).map_or(value, |(_, written)| {
        let digits = written.trim_start_matches("0x").trim_end_matches('U');
        assert_eq!(u64::from_str_radix(digits, 16), value.parse(), "{}", item.name);
        written
    });
    let name = item.name;
    if name.starts_with("MK_IPI_") {
        return format!("{comment}\n#define {name} {written}");
    }
    format!("{comment}\n#ifndef {name}\n#define {name} {written}\n#endif")
}

/// Whether `said`, an item in the list of a section, stands for this name.
fn is_said(name: &str, said: &str) -> bool {
    said.strip_suffix('*').map_or(name == said, |beginning| name.starts_with(beginning))
}

/// Sorts the items of the header into the sections.
fn in_sections(text: &str, sources: &[(&'static str, String)]) -> String {
    let (head, rest) = text.split_once("\n\n\n/**\n").unwrap();
    let rest = format!("/**\n{rest}");
    let blocks = rest.split("\n\n").map(|block| block.trim_matches('\n'));
    let items: Vec<_> = blocks.filter(|block| block.starts_with("/**\n")).map(item_of).collect();
    let mut out = format!("{head}\n\n/* Declared here, so that each section can use them. */\n");
    for item in items.iter().filter(|item| is_struct(item)) {
        writeln!(out, "struct {};", item.name).unwrap();
    }
    out += "\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n";
    let mut left: Vec<_> = items.iter().map(|item| item.name).collect();
    for section in &SECTIONS {
        let rule = "=".repeat(68);
        writeln!(out, "\n/* {rule}\n * {}\n *\n * {}\n */", section.title, section.about).unwrap();
        for item in &items {
            let named = SECTIONS.iter().position(|s| s.items.iter().any(|said| is_said(item.name, said)));
            let here = match named {
                Some(at) => SECTIONS[at].title == section.title,
                None => section.files.contains(&file_of(item.name, sources)),
            };
            if here {
                write!(out, "\n{}\n", as_written(item)).unwrap();
                left.retain(|name| *name != item.name);
            }
        }
    }
    assert!(left.is_empty(), "in no section: {left:?}");
    write!(out, "\n{}\n#ifdef __cplusplus\n}}\n#endif\n\n#endif /* MK_IPI_H */\n", assertions()).unwrap();
    out
}

/// The header that cbindgen makes, in sections.
fn made() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    config.after_includes = Some(config.after_includes.unwrap_or_default() + &limits_in_c());
    let mut builder = cbindgen::Builder::new().with_config(config);
    let files = ["types"].into_iter().chain(SECTIONS.iter().flat_map(|s| s.files.iter().copied()));
    let mut sources = Vec::new();
    for file in files {
        let path = root.join("src").join(format!("{file}.rs"));
        sources.push((file, std::fs::read_to_string(&path).unwrap()));
        builder = builder.with_src(path);
    }
    let mut text = Vec::new();
    builder.generate().unwrap().write(&mut text);
    let text = String::from_utf8(text).unwrap();
    in_sections(&text.replace(" * # Safety\n *\n", " * Safety:\n"), &sources)
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

/// The structs that the header defines: the name and the body of each.
fn structs_of(header: &str) -> impl Iterator<Item = (&str, &str)> {
    header.split("\nstruct ").skip(1).filter_map(|text| {
        let (head, rest) = text.split_once('{')?;
        let name = head.split_whitespace().last()?;
        // Leave out prototypes and forward declarations.
        (!head.contains([';', '('].as_slice()) || head.contains("MK_IPI_ALIGNED")).then_some(())?;
        Some((name, rest.split_once("\n}")?.0))
    })
}

/// The names of the fields in the body of a struct: the word before `;`, before an array's length, or before a function's
/// arguments.
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

/// The name and the comment of each function.
fn comments_of(header: &str) -> Vec<(&str, &str)> {
    let blocks = header.split("\n\n").filter(|block| block.starts_with("/**\n"));
    let items =
        blocks.map(item_of).filter(|item| item.text.ends_with(");") && !item.text.contains("typedef"));
    items.filter_map(|item| Some((item.name, item.text.split_once("*/\n")?.0))).collect()
}

#[test]
fn each_function_says_its_context() {
    let made = made();
    let comments = comments_of(&made);
    assert!(comments.len() > 60, "{} functions", comments.len());
    for (name, comment) in &comments {
        // The context is in the comment itself, or in the comment of a call to which it refers. Up to three such steps are
        // followed.
        let (mut said, mut at) = (*comment, *name);
        for _ in 0..3 {
            if said.contains("Context:") {
                break;
            }
            let referred = said.split('`').skip(1).step_by(2).find(|word| {
                *word != at
                    && comments.iter().any(|(n, _)| n == word)
                    && said.contains(&format!("s `{word}`"))
            });
            at = referred.unwrap_or_else(|| panic!("{name} does not say its context"));
            said = comments.iter().find(|(n, _)| *n == at).unwrap().1;
        }
        assert!(said.contains("Context:"), "{name} does not say its context");
    }
}
