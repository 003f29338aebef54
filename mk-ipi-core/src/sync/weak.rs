// SPDX-License-Identifier: MIT OR Apache-2.0
//! Loom's atomics, from which [`without`] takes away one SYNC POINT: the real code then runs on memory that orders less,
//! and the model of that point must fail.
//!
//! A point is found by its comment in the source: it is the operation behind that comment.

use core::ops::Range;
use core::panic::Location;
use loom::sync::atomic as imp;
pub use loom::sync::atomic::Ordering;
use std::cell::RefCell;
use std::string::{String, ToString};
use std::vec::Vec;

/// How far below its comment an operation may stand.
const REACH: u32 = 3;
const MARK: &str = "SYNC POINT: ";

/// What a point does, as its comment says in parentheses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Acquire,
    Release,
    Fence,
}

#[derive(Debug)]
struct Point {
    file: &'static str,
    lines: Range<u32>,
    kind: Kind,
}

std::thread_local! {
    /// Loom runs a model's threads on the thread that runs the test.
    static MISSING: RefCell<Option<Point>> = const { RefCell::new(None) };
}

/// The points of a source file: line of the comment, name with kind.
#[cfg(test)]
pub(crate) fn points(source: &str) -> impl Iterator<Item = (u32, String)> + '_ {
    (1..).zip(source.lines()).flat_map(|(number, line)| {
        let names = line.split_once(MARK).map_or("", |(_, names)| names);
        let names = names.split("; ").filter_map(|name| name.find(')').and_then(|end| name.get(..=end)));
        names.map(move |name| (number, name.to_string())).collect::<Vec<_>>()
    })
}

/// Runs `model` without point number `nth`, from 0, of that name in `file`. If there is none the model runs as it is.
#[cfg(test)]
pub(crate) fn without(file: &'static str, source: &str, name: &str, nth: usize, model: impl FnOnce()) {
    let kind = match name.split_once('(') {
        Some((_, "acquire)")) => Kind::Acquire,
        Some((_, "release)")) => Kind::Release,
        _ => Kind::Fence,
    };
    let missing = points(source).filter(|(_, found)| found == name).nth(nth).map(|(line, _)| {
        let next = points(source).map(|(line, _)| line).find(|&next| next > line).unwrap_or(u32::MAX);
        Point { file, lines: line..next.min(line + REACH + 1), kind }
    });
    MISSING.set(missing);
    model();
    MISSING.set(None);
}

fn is_missing(kind: Kind, at: &Location<'_>) -> bool {
    MISSING.with_borrow(|missing| {
        missing.as_ref().is_some_and(|point| {
            point.kind == kind && point.lines.contains(&at.line()) && at.file().ends_with(point.file)
        })
    })
}

/// What is left of `order` at this place.
#[track_caller]
fn left(order: Ordering) -> Ordering {
    let at = Location::caller();
    let acquires = !is_missing(Kind::Acquire, at);
    let releases = !is_missing(Kind::Release, at);
    match order {
        Ordering::Acquire if !acquires => Ordering::Relaxed,
        Ordering::Release if !releases => Ordering::Relaxed,
        Ordering::AcqRel | Ordering::SeqCst if !acquires => Ordering::Release,
        Ordering::AcqRel | Ordering::SeqCst if !releases => Ordering::Acquire,
        order => order,
    }
}

/// As loom's.
#[track_caller]
pub fn fence(order: Ordering) {
    if !is_missing(Kind::Fence, Location::caller()) {
        imp::fence(order);
    }
}

macro_rules! atomic {
    ($name:ident($value:ty) { $($op:ident),* }) => {
        #[derive(Debug)]
        pub struct $name(imp::$name);

        #[expect(clippy::disallowed_types, reason = "the one place")]
        #[track_caller]
        impl $name {
        }
    };
}
