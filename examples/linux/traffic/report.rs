// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a run found, direction by direction.

use super::{deaths, inbox};
use crate::host;
use crate::lock::Locked;
use crate::order::Report;
use crate::platform::Linux;
use core::fmt::{self, Write};
use mk_ipi_core::abi::InstanceId;
use mk_ipi_x86::Mode;

/// One direction.
#[derive(Clone, Copy)]
struct Row {
    from: InstanceId,
    to: InstanceId,
    /// `None` if `from` was killed: then it is not known how much it sent.
    sent: Option<Report>,
    received: Report,
    /// Round trips that `from` began: least, median, 99th percentile, in cycles.
    trips: [u64; 3],
}

/// Most kernels of a run.
pub const MAX_KERNELS: usize = 4;
/// The directions between them.
const MAX_ROWS: usize = MAX_KERNELS * (MAX_KERNELS - 1);

// SAFETY: the only `Locked` with 2.
static RESULTS: Locked<[Option<Row>; MAX_ROWS]> = unsafe { Locked::new(2, [None; MAX_ROWS]) };

/// Forgets what the last run found.
pub fn clear() {
    RESULTS.with(|rows| rows.iter_mut().for_each(|row| *row = None));
}

/// Stores both ends' reports of a direction, or the report of the end that lives.
pub fn keep(from: InstanceId, to: InstanceId, sent: Option<Report>, received: Report) {
    RESULTS.with(|rows| {
        if let Some(place) = rows.iter_mut().find(|row| row.is_none()) {
            *place = Some(Row { from, to, sent, received, trips: [0; 3] });
        }
    });
}

/// As `keep`, but not if that direction was stored before.
pub fn keep_once(from: InstanceId, to: InstanceId, sent: Option<Report>, received: Report) {
    let is_kept = RESULTS.with(|rows| rows.iter().flatten().any(|row| row.from == from && row.to == to));
    if !is_kept {
        keep(from, to, sent, received);
    }
}

/// Stores the round trips of a direction.
pub fn keep_trips(from: InstanceId, to: InstanceId, trips: [u64; 3]) {
    RESULTS.with(|rows| {
        for row in rows.iter_mut().flatten().filter(|row| row.from == from && row.to == to) {
            row.trips = trips;
        }
    });
}

/// What this kernel knows of itself and `about`.
pub fn own(about: InstanceId, run: u32, sent: u64, doorbells: u64, busy: u64) -> Report {
    let from = inbox::from(about);
    let counts = from.map(|f| f.check.counts()).unwrap_or_default();
    Report {
        about,
        me: super::me(),
        run,
        sent,
        doorbells,
        busy,
        in_doubt: deaths::doubts(about),
        received: counts.received,
        former: counts.former,
        first: counts.first,
        lost: counts.lost,
        torn: counts.torn.saturating_add(inbox::torn()),
        doubled: counts.doubled,
        disordered: counts.disordered,
        pings: 0,
        rtt_min: 0,
        rtt_median: 0,
        rtt_p99: 0,
        still_sending: false,
    }
}

/// Writes the results: two lines of JSON for each direction, or one if the sender was killed.
pub fn show(to: &mut impl Write) -> fmt::Result {
    let generation = host::with(|host| host.generation().name());
    let mode = match Linux.apic().map(|apic| apic.mode()) {
        Some(Mode::X2Apic) => "x2apic",
        _ => "xapic",
    };
    RESULTS.with(|rows| rows.iter().flatten().try_for_each(|row| row.show(to, mode, generation)))
}

impl Row {
    fn show(&self, to: &mut impl Write, mode: &str, generation: &str) -> fmt::Result {
        let ([from, at], received) = ([self.from.get(), self.to.get()], &self.received);
        // A message in doubt may or may not have come: it is counted apart.
        let lost = self.sent.map_or(received.lost, |sent| {
            sent.sent.saturating_sub(received.received).saturating_sub(sent.in_doubt)
        });
        writeln!(
            to,
            "{{\"received\":{{\"from\":{from},\"to\":{at},\"mode\":\"{mode}\",\"generation\":\"{generation}\",\
             \"received\":{},\"lost\":{lost},\"torn\":{},\"doubled\":{},\"disordered\":{}}}}}",
            received.received, received.torn, received.doubled, received.disordered,
        )?;
        let (Some(sent), [min, median, p99]) = (&self.sent, self.trips) else { return Ok(()) };
        writeln!(
            to,
            "{{\"sent\":{{\"from\":{from},\"to\":{at},\"mode\":\"{mode}\",\"generation\":\"{generation}\",\
             \"sent\":{},\"doorbells\":{},\"busy\":{},\"in_doubt\":{},\
             \"rtt_cycles\":{{\"min\":{min},\"median\":{median},\"p99\":{p99}}}}}}}",
            sent.sent, sent.doorbells, sent.busy, sent.in_doubt,
        )
    }
}
