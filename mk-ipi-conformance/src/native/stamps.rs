// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases about the stamp: an attachment of memory that is not a native region is refused. The error names the layout of that
//! memory, if the layout is known.

use super::{Native, Shape, LINES, MAGIC, NATIVE_LEN, SMALL};
use crate::env::{Env, Steps};
use crate::{check, Outcome};
use mk_ipi_core::abi::directory::Version;
use mk_ipi_core::abi::native::{Geometry, KnownLayouts, StampError};
use mk_ipi_core::abi::{InstanceId, PhysAddr, PhysRange};
use mk_ipi_core::{AddError, InstanceConfig, LinkConfig};

/// An instance id that no kernel of the machine has.
const NOBODY: InstanceId = InstanceId::new(200);

/// Attaches instance `NOBODY`. Its region is the `len` bytes of our region that begin at byte `at`.
fn attach<E: Env>(env: &'static E, at: u64, len: u64, geometry: Option<Geometry>) -> Result<(), AddError> {
    let start = PhysAddr(env.native_region_of(env.me()).start().0 + at);
    let range = PhysRange::new(start, len).ok_or(AddError::Misaligned)?;
    let config = env.config_of(env.me());
    let config = InstanceConfig { id: NOBODY, link: LinkConfig::Native(geometry), ..config };
    env.endpoint().attach_instance(&config, Some(range))
}

/// Attaches instance `NOBODY`, with all of our region, and returns the result.
fn found<E: Env>(env: &'static E) -> Result<(), AddError> {
    attach(env, 0, NATIVE_LEN, None)
}

/// Returns the result of an attachment that is refused because of the stamp.
fn refused(e: StampError) -> Result<(), AddError> {
    Err(AddError::Stamp(e))
}

pub(crate) fn a_region_without_a_stamp_is_named_by_its_size<E: Env>(env: &'static E) -> Outcome {
    env.lay_out()?;
    env.poke(env.me(), 0, 77)?;
    let sizes = [
        (4096, KnownLayouts::empty()),
        (16 * 272, KnownLayouts::RFC_V2),
        (17_416, KnownLayouts::FIRST_RING),
        (20_480, KnownLayouts::FIRST_RING),
        (263_696, KnownLayouts::V7_MK2),
        (264_256, KnownLayouts::MKIPI003),
        (266_240, KnownLayouts::V7_MK2 | KnownLayouts::MKIPI003),
    ];
    for (len, known) in sizes {
        let named = attach(env, 0, len, None) == refused(StampError::NoStamp { found: 77, known });
        check!(
            named,
            "the error has the layouts that have this size, and the word that was found instead of the magic"
        );
    }
    check!(attach(env, 4, 4096, None) == Err(AddError::Misaligned), "a region must begin on a page boundary");
    check!(
        attach(env, 0, 4088, None) == refused(StampError::TooSmall(4096)),
        "a region must have at least one page"
    );
    check!(env.endpoint().instance(NOBODY).is_err(), "a refused attachment leaves no instance behind");
    env.step()
}

pub(crate) fn another_generation_is_named_by_its_own_magic<E: Env>(env: &'static E) -> Outcome {
    env.lay_out()?;
    env.poke(env.me(), 0, 77)?;
    // Layouts of the family MKIPI0nn have the bytes "MKIPI0" and two digits at this place, and their version in the next word.
    let at = 264_232 / 8;
    env.poke(env.me(), at + 1, 0xffff_ffff_0000_0009)?;
    for number in [3, 0, 4, 12, 99] {
        let digits = 0x3030 + number / 10 * 0x100 + number % 10;
        env.poke(env.me(), at, 0x4d4b_4950_4930 << 16 | digits)?;
        let named = refused(StampError::Mkipi0nn { number: number as u8, version: 9 });
        check!(
            attach(env, 0, 264_256, None) == named,
            "the error names MKIPI0nn, with its two digits and version"
        );
        check!(
            attach(env, 0, 264_232, None) != named,
            "the magic of MKIPI0nn is not read beyond the region's end"
        );
    }
    let none = |len| refused(StampError::NoStamp { found: 77, known: KnownLayouts::of_size(len) });
    for other in [0x4d4b_4950_4930_3a33, 0x4d4b_4950_4930_332f, 0x4d4b_4950_4931_3033, 0x4d4b_4951_4930_3033]
    {
        env.poke(env.me(), at, other)?;
        check!(
            attach(env, 0, 264_256, None) == none(264_256),
            "a word that is not a magic of MKIPI0nn is not reported as that layout"
        );
    }
    // Version 1 of mk-ipi's native link has the same magic.
    env.poke(env.me(), at, 0)?;
    env.poke(env.me(), 0, MAGIC)?;
    env.poke(env.me(), 1, 1 | 3 << 32)?;
    let first = StampError::Version(Version { major: 1, minor: 0 });
    check!(found(env) == refused(first), "the error names version 1");
    env.step()
}

pub(crate) fn a_bad_stamp_is_refused<E: Env>(env: &'static E) -> Outcome {
    env.lay_out()?;
    let (me, lanes) = (env.me(), env.kernels() as u64);
    let total = env.geometry()?.total_size();
    check!(
        total == SMALL.lane(env.kernels(), env.kernels()) as u64 * 8,
        "the total size follows from the numbers of lanes and lines"
    );
    env.poke(me, 0, MAGIC ^ 1)?;
    let none = StampError::NoStamp { found: MAGIC ^ 1, known: KnownLayouts::empty() };
    check!(found(env) == refused(none), "a magic with one wrong bit is refused");
    env.stamp(lanes, LINES, 256, total)?;
    env.poke(me, 1, 3 | 7 << 16 | lanes << 32)?;
    let other = StampError::Version(Version { major: 3, minor: 7 });
    check!(found(env) == refused(other), "another major version is refused");
    let bounds = [
        (0, 8, 256),
        (257, 8, 256),
        (3, 0, 256),
        (3, 4, 48),
        (3, 12, 256),
        (3, 8192, 256),
        (3, 8, 0),
        (3, 128, 4097),
        // Eight lines are too few for 441 bytes, and 64 for 4,096.
        (3, 8, 441),
        (3, 64, 4096),
        (u32::MAX, u32::MAX, u32::MAX),
    ];
    for (lanes, lines, max_len) in bounds {
        env.stamp(lanes.into(), lines.into(), max_len.into(), total)?;
        let bounds = StampError::Geometry { lanes, lines, max_len };
        check!(
            found(env) == refused(bounds),
            "numbers that are out of bounds, or too few lines for the longest message, are refused"
        );
    }
    for size in [0, total - 8, total + 8, u64::MAX] {
        env.stamp(lanes, LINES, 256, size)?;
        check!(
            found(env) == refused(StampError::Size(size)),
            "a total size that does not follow from the numbers is refused"
        );
    }
    env.stamp(lanes, LINES, 256, total)?;
    let small = refused(StampError::TooSmall(total));
    check!(attach(env, 0, total - 8, None) == small, "a region smaller than its stamp says is refused");
    let geometry = env.geometry()?;
    for shape in [Shape { lines: 16, ..SMALL }, Shape { max_len: 255, ..SMALL }] {
        let asked = Some(shape.geometry(env.kernels())?);
        check!(
            attach(env, 0, total, asked) == Err(AddError::Geometry(geometry)),
            "a region whose geometry is not the requested one is refused"
        );
    }
    let one = SMALL.geometry(1)?;
    env.stamp(1, LINES, 256, one.total_size())?;
    let no_lane = if me == 0 { Ok(()) } else { Err(AddError::NoLane(E::id(me))) };
    check!(found(env) == no_lane, "a region without a lane for this kernel is refused");
    let left = env.endpoint().destroy_instance(NOBODY).is_ok();
    check!(left == (me == 0), "a refused attachment leaves no instance behind");
    // 440 bytes fit into eight lines.
    env.stamp(lanes, LINES, 440, total)?;
    env.poke(me, 1, 2 | 9 << 16 | lanes << 32)?;
    (4..8).try_for_each(|word| env.poke(me, word, u64::MAX))?;
    check!(
        found(env) == Ok(()),
        "another minor version, and other values in the last 32 bytes, are accepted"
    );
    let layout = env.endpoint().instance(NOBODY).map(|nobody| nobody.region());
    check!(
        layout.is_ok_and(|region| region.map(PhysRange::len) == Some(total)),
        "the region's length is the total size in its stamp"
    );
    check!(env.endpoint().destroy_instance(NOBODY).is_ok(), "the instance can be destroyed");
    env.step()
}
