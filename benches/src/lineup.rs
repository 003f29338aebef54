// SPDX-License-Identifier: MIT OR Apache-2.0
//! Chooses which links and queues are measured (the contenders) at each message size, and how many messages each of them has room
//! for.

use crate::link::{Contender, Kind};
use crate::ours;
use crate::pair::Counts;
use crate::peers::{self, Make};

/// The message sizes that are measured, in bytes. 48 bytes are the most that fit into one line of a lane, 256 bytes are the
/// default limit of a message, and 4,096 bytes the largest possible limit.
pub const SIZES: [usize; 6] = [0, 8, 48, 256, 1024, 4096];
/// Lines of mk-ipi's lane: the default for a region of few lanes. The lane is compared with queues that hold as many messages,
/// and with queues of as many bytes.
const LINES: usize = 256;
/// Cells of a queue of a usual size. It is compared with a lane of as many lines.
const CELLS: usize = 64;

/// How much room a queue has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    /// [`CELLS`] cells.
    Cells,
    /// Room for as many messages as mk-ipi's lane.
    SameMessages,
    /// As many bytes as mk-ipi's lane.
    SameBytes,
}

impl Room {
    const ALL: [Self; 3] = [Self::Cells, Self::SameMessages, Self::SameBytes];

    const fn name(self) -> &'static str {
        match self {
            Self::Cells => "64 cells",
            Self::SameMessages => "same messages",
            Self::SameBytes => "same bytes",
        }
    }

    /// The number of cells of a queue with this room. Each cell has `beside` bytes in addition to the message. `None` if no such
    /// queue is measured at this message size.
    fn cells(self, bytes: usize, beside: usize) -> Option<usize> {
        match self {
            // With larger messages, this queue would hold more messages, in more bytes, than mk-ipi's lane.
            Self::Cells => (bytes <= 48).then_some(CELLS),
            Self::SameMessages => Some(LINES / ours::lines_of(bytes)),
            Self::SameBytes => (LINES * ours::LINE_BYTES)
                .checked_div(bytes)
                .map(|_| LINES * ours::LINE_BYTES / (bytes + beside)),
        }
    }
}

/// The contenders at this message size.
pub fn contenders(kind: Kind, bytes: usize) -> Vec<Contender> {
    use peers::heapless;
    use Room::{Cells, SameBytes, SameMessages};
    // The number of cells of a `heapless` queue is a parameter of its type.
    match bytes {
        0 => all::<0>(kind, [heapless::<0, 64>(Cells.name()), heapless::<0, 256>(SameMessages.name())]),
        8 => all::<1>(
            kind,
            [
                heapless::<1, 64>(Cells.name()),
                heapless::<1, 256>(SameMessages.name()),
                heapless::<1, 2048>(SameBytes.name()),
            ],
        ),
        48 => all::<6>(
            kind,
            [
                heapless::<6, 64>(Cells.name()),
                heapless::<6, 256>(SameMessages.name()),
                heapless::<6, 341>(SameBytes.name()),
            ],
        ),
        256 => {
            all::<32>(kind, [heapless::<32, 51>(SameMessages.name()), heapless::<32, 64>(SameBytes.name())])
        }
        1024 => all::<128>(
            kind,
            [heapless::<128, 13>(SameMessages.name()), heapless::<128, 16>(SameBytes.name())],
        ),
        _ => {
            all::<512>(kind, [heapless::<512, 3>(SameMessages.name()), heapless::<512, 4>(SameBytes.name())])
        }
    }
}

/// All contenders: mk-ipi's links, the other queues with each room, and the given queues of `heapless`.
fn all<const WORDS: usize>(kind: Kind, heapless: impl IntoIterator<Item = Contender>) -> Vec<Contender> {
    let bytes = 8 * WORDS;
    let mut all = ours::contenders::<WORDS>(kind, if bytes <= 48 { &[LINES, CELLS] } else { &[LINES] });
    let makes: [(Make, usize); 5] = [
        (peers::rtrb::<WORDS>, 0),
        (peers::rtrb_chunks::<WORDS>, 0),
        (peers::ringbuf::<WORDS>, 0),
        (peers::ringbuf_slices::<WORDS>, 0),
        (peers::crossbeam::<WORDS>, peers::CROSSBEAM_STAMP),
    ];
    for (make, beside) in makes {
        let rooms = Room::ALL.into_iter();
        all.extend(rooms.filter_map(|room| Some(make(room.name(), room.cells(bytes, beside)?))));
    }
    all.extend(heapless);
    all
}

/// How many round trips or messages are measured: as many as take about a millisecond. Few with `quick`.
pub fn counts(kind: Kind, bytes: usize, quick: bool) -> Counts {
    let timed = match (kind, bytes) {
        _ if quick => 200,
        (Kind::RoundTrip, 0..=256) => 800,
        (Kind::RoundTrip, _) => 300,
        (Kind::Stream, 0..=48) => 16_000,
        (Kind::Stream, 256) => 6_000,
        (Kind::Stream, 1024) => 2_000,
        (Kind::Stream, _) => 800,
    };
    Counts { warm_up: timed / 5, timed }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn room_is_counted_right() {
        let cells = |room: Room| SIZES.map(|bytes| room.cells(bytes, 0).unwrap_or(0));
        assert_eq!(cells(Room::Cells), [64, 64, 64, 0, 0, 0]);
        assert_eq!(cells(Room::SameMessages), [256, 256, 256, 51, 13, 3]);
        assert_eq!(cells(Room::SameBytes), [0, 2048, 341, 64, 16, 4]);
    }

    #[test]
    fn each_name_stands_once_and_heapless_has_the_cells_of_the_others() {
        for kind in [Kind::RoundTrip, Kind::Stream] {
            for bytes in SIZES {
                let labels: Vec<_> = contenders(kind, bytes).into_iter().map(|c| c.label).collect();
                let names: BTreeSet<_> = labels.iter().map(|label| &label.name).collect();
                assert_eq!(names.len(), labels.len());
                for room in Room::ALL {
                    let found = |name: &str| {
                        let name = format!("{name}, {}", room.name());
                        labels.iter().find(|label| label.name == name).map(|label| label.room.messages)
                    };
                    // One cell of heapless stays empty.
                    assert_eq!(found("heapless::spsc").map(|n| n + 1), found("rtrb"), "{bytes} {room:?}");
                }
            }
        }
    }
}
