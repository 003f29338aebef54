// SPDX-License-Identifier: MIT OR Apache-2.0
//! The results of a run, for each direction (from one kernel to another).

use super::{deaths, inbox};
use crate::host;
use crate::lock::Locked;
use crate::order::Report;
use crate::platform::Linux;
use core::fmt::{self, Write};
use mk_ipi_core::abi::InstanceId;
use mk_ipi_x86::Mode;

/// The results of one direction.
#[derive(Clone, Copy)]
struct Row {
    from: InstanceId,
    to: InstanceId,
    /// The report of `from`. `None` if `from` was killed, because then it is not known how many messages it sent.
    sent: Option<Report>,
    /// The report of `to`.
    received: Report,
    /// The round trips that `from` began: minimum, median and 99th percentile, in cycles of the time stamp counter.
    trips: [u64; 3],
}

/// The largest number of kernels in a run, including this one.
pub const MAX_KERNELS: usize = 4;
/// The number of directions between this many kernels.
const MAX_ROWS: usize = MAX_KERNELS * (MAX_KERNELS - 1);

// SAFETY: no other `Locked` has the number 2.
static RESULTS: Locked<[Option<Row>; MAX_ROWS]> = unsafe { Locked::new(2, [None; MAX_ROWS]) };

/// Removes the results of the last run.
pub fn clear() {
    RESULTS.with(|rows| rows.iter_mut().for_each(|row| *row = None));
}

/// Stores the reports of a direction. `sent` is `None` if the sender was killed.
pub fn keep(from: InstanceId, to: InstanceId, sent: Option<Report>, received: Report) {
    RESULTS.with(|rows| {
        if let Some(place) = rows.iter_mut().find(|row| row.is_none()) {
            *place = Some(Row { from, to, sent, received, trips: [0; 3] });
        }
    });
}

/// Like `keep`, but does nothing if the results of that direction are stored already.
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

/// Makes this kernel's report about its messages to and from `about`. The fields about pings are 0.
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

/// Writes the results: for each direction two lines of JSON, or one line if the sender was killed.
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
        // A message in doubt may have been received or not. It does not count as lost, and is shown separately.
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
