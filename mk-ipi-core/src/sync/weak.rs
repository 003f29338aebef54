// SPDX-License-Identifier: MIT OR Apache-2.0
//! Removes one SYNC POINT, so that the real code runs with weaker ordering. The loom model of that point must fail then.
//!
//! A point is identified by its comment in the source. It is the operation after the comment.

use super::Ordering;
use core::ops::Range;
use core::panic::Location;
use std::cell::RefCell;
use std::string::{String, ToString};
use std::vec::Vec;

/// The text that comes before "name (kind)" in the comment of a point. Several points in one comment are separated by "; ".
const MARK: &str = "SYNC POINT: ";
/// The operation of a point is at most this number of lines below the comment.
const REACH: u32 = 3;

#[derive(Debug)]
struct Point {
    file: &'static str,
    lines: Range<u32>,
    kind: &'static str,
}

std::thread_local! {
    /// The point that is removed now. It is local to a thread, because loom runs all threads of a model on the thread of the
    /// test.
    static MISSING: RefCell<Option<Point>> = const { RefCell::new(None) };
}

/// The points of a source text: line of the comment, name and kind.
pub(crate) fn points(source: &str) -> impl Iterator<Item = (u32, String)> + '_ {
    (1..).zip(source.lines()).flat_map(|(number, line)| {
        let names = line.split_once(MARK).map_or("", |(_, names)| names).split("; ");
        let names = names.filter_map(|name| name.find(')').and_then(|end| name.get(..=end)));
        names.map(|name| (number, name.to_string())).collect::<Vec<_>>()
    })
}

/// Runs `model` without point number `nth`, from 0, of that name and kind in `sources` (file names and texts). If
/// there is no such point, the model runs unchanged, and the test that expects a failure fails.
pub(crate) fn without(sources: &[(&'static str, &str)], name: &str, nth: usize, model: impl FnOnce()) {
    let kind = ["(acquire)", "(release)", "(fence)"].into_iter().find(|kind| name.ends_with(kind));
    let all = sources.iter().flat_map(|(file, text)| points(text).map(move |point| (*file, *text, point)));
    let found = all.filter(|(.., (_, found))| found == name).nth(nth);
    MISSING.set(found.zip(kind).map(|((file, text, (line, _)), kind)| {
        let next = points(text).map(|(next, _)| next).find(|&next| next > line).unwrap_or(u32::MAX);
        Point { file, lines: line..next.min(line + REACH + 1), kind }
    }));
    model();
    MISSING.set(None);
}

fn is_missing(kind: &str, at: &Location<'_>) -> bool {
    MISSING.with_borrow(|missing| {
        let here = |p: &Point| p.kind == kind && p.lines.contains(&at.line()) && at.file().ends_with(p.file);
        missing.as_ref().is_some_and(here)
    })
}

/// What remains of the memory ordering `order` of the caller's access.
#[track_caller]
pub(super) fn left(order: Ordering) -> Ordering {
    let at = Location::caller();
    match (order, is_missing("(acquire)", at), is_missing("(release)", at)) {
        (order, false, false) => order,
        (Ordering::AcqRel, true, _) => Ordering::Release,
        (Ordering::AcqRel, _, true) => Ordering::Acquire,
        _ => Ordering::Relaxed,
    }
}

/// Whether the caller's fence remains.
#[track_caller]
pub(super) fn is_fence_left() -> bool {
    !is_missing("(fence)", Location::caller())
}
