// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases about the stamp: what is no native region is refused, and named if it is known.

use super::{Native, CELLS, MAGIC, NATIVE_LEN};
use crate::env::{Env, Steps};
use crate::{check, Failed, Outcome};
use mk_ipi_core::abi::directory::Version;
use mk_ipi_core::abi::native::{Geometry, KnownLayouts, StampError};
use mk_ipi_core::abi::{InstanceId, PhysAddr, PhysRange};
use mk_ipi_core::{AddError, InstanceConfig, LinkConfig};

/// An id that no kernel of the machine has.
const NOBODY: InstanceId = InstanceId::new(200);

/// Attaches NOBODY to the first `len` bytes of our region, from `at` on.
fn attach<E: Env>(env: &'static E, at: u64, len: u64, geometry: Option<Geometry>) -> Result<(), AddError> {
    let start = PhysAddr(env.native_region_of(env.me()).start().0 + at);
    let range = PhysRange::new(start, len).ok_or(AddError::Misaligned)?;
    let config = env.config_of(env.me());
    let config = InstanceConfig { id: NOBODY, link: LinkConfig::Native(geometry), ..config };
    env.endpoint().attach_instance(&config, Some(range))
}

/// What attaching NOBODY to our whole region gives.
fn found<E: Env>(env: &'static E) -> Result<(), AddError> {
    attach(env, 0, NATIVE_LEN, None)
}

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
        check!(named, "another generation's size is named, with what is found");
    }
    // MKIPI003, version 3, by its own magic.
    let at = 264_232 / 8;
    env.poke(env.me(), at, 0x4d4b_4950_4930_3033)?;
    env.poke(env.me(), at + 1, 0xffff_ffff_0000_0003)?;
    let version_3 = refused(StampError::Mkipi003 { version: 3 });
    check!(attach(env, 0, 264_256, None) == version_3, "MKIPI003 is known by its magic");
    check!(attach(env, 0, 264_232, None) != version_3, "and not beyond the region's end");
    env.poke(env.me(), at, 0)?;
    check!(attach(env, 4, 4096, None) == Err(AddError::Misaligned), "a region begins with a page");
    check!(attach(env, 0, 4088, None) == refused(StampError::TooSmall(4096)), "and has one at least");
    check!(env.endpoint().instance(NOBODY).is_err(), "none of it leaves an instance behind");
    env.step()
}

pub(crate) fn a_bad_stamp_is_refused<E: Env>(env: &'static E) -> Outcome {
    env.lay_out()?;
    let (me, lanes) = (env.me(), env.kernels() as u64);
    let total = env.geometry()?.total_size();
    check!(total == env.header(env.kernels(), 0) as u64 * 8, "the total follows from lanes and cells");
    env.poke(me, 0, MAGIC ^ 1)?;
    let none = StampError::NoStamp { found: MAGIC ^ 1, known: KnownLayouts::empty() };
    check!(found(env) == refused(none), "every bit of the magic counts");
    env.stamp(lanes, CELLS, total)?;
    env.poke(me, 1, 2 | 7 << 16 | lanes << 32)?;
    let other = StampError::Version(Version { major: 2, minor: 7 });
    check!(found(env) == refused(other), "another major version");
    for (lanes, cells) in [(0, 8), (257, 8), (3, 0), (3, 1), (3, 12), (3, 2048), (u32::MAX, u32::MAX)] {
        env.stamp(lanes.into(), cells.into(), total)?;
        let bounds = StampError::Geometry { lanes, cells };
        check!(found(env) == refused(bounds), "numbers of lanes and cells out of bounds");
    }
    for size in [0, total - 8, total + 8, u64::MAX] {
        env.stamp(lanes, CELLS, size)?;
        check!(found(env) == refused(StampError::Size(size)), "a total that does not follow from them");
    }
    env.stamp(lanes, CELLS, total)?;
    let small = refused(StampError::TooSmall(total));
    check!(attach(env, 0, total - 8, None) == small, "a region smaller than its stamp says");
    let asked = Geometry::new(env.kernels() as u32, 16);
    let geometry = env.geometry()?;
    check!(attach(env, 0, total, asked) == Err(AddError::Geometry(geometry)), "not what was asked for");
    let one = Geometry::new(1, CELLS as u32).ok_or(Failed("one lane"))?;
    env.stamp(1, CELLS, one.total_size())?;
    let no_lane = if me == 0 { Ok(()) } else { Err(AddError::NoLane(E::id(me))) };
    check!(found(env) == no_lane, "no lane for us");
    let left = env.endpoint().destroy_instance(NOBODY).is_ok();
    check!(left == (me == 0), "what is refused leaves no instance behind");
    env.stamp(lanes, CELLS, total)?;
    env.poke(me, 1, 1 | 9 << 16 | lanes << 32)?;
    env.poke(me, 4, u64::MAX)?;
    check!(found(env) == Ok(()), "a later minor version and features that nobody knows are no error");
    check!(env.endpoint().destroy_instance(NOBODY).is_ok(), "and it can go");
    env.step()
}
