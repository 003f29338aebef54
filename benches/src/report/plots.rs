// SPDX-License-Identifier: MIT OR Apache-2.0
//! Drawings. For each workload: its contenders with their quartiles. For each kind: the best times at all message sizes.

use std::error::Error;
use std::fs;
use std::path::Path;

use anyhow::{anyhow, Context, Result};
use plotters::prelude::*;

use super::{Report, Workload};
use crate::link::Kind;

const OURS: RGBColor = RGBColor(0, 90, 181);
const PEER: RGBColor = RGBColor(220, 100, 30);
const FLOOR: RGBColor = RGBColor(90, 90, 90);
const WIDTH: u32 = 900;

impl Report {
    /// Writes all drawings to `folder`. Makes the folder if it does not exist.
    pub fn plot(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        for workload in &self.workloads {
            let file = folder.join(format!("{}-{}.svg", workload.kind.slug(), workload.bytes));
            ranges(workload, &file).map_err(|err| anyhow!("{}: {err}", file.display()))?;
        }
        for kind in [Kind::RoundTrip, Kind::Stream] {
            let workloads: Vec<_> = self.workloads.iter().filter(|workload| workload.kind == kind).collect();
            let file = folder.join(format!("{}.svg", kind.slug()));
            if workloads.len() > 1 {
                sizes(kind, &workloads, &file).map_err(|err| anyhow!("{}: {err}", file.display()))?;
            }
        }
        Ok(())
    }
}

type Drawn<'a> = Result<(), Box<dyn Error + 'a>>;

/// Draws a bar for each contender, from the first to the third quartile, as multiples of the floor.
fn ranges<'a>(workload: &Workload, file: &'a Path) -> Drawn<'a> {
    let all = &workload.contenders;
    let rows = all.len() as i32;
    let most = all.iter().map(|outcome| outcome.ratio_to_floor.q3).fold(1.0, f64::max) * 1.05;
    let root = SVGBackend::new(file, (WIDTH, 90 + 20 * all.len() as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    let title =
        format!("{} B {}: times the floor ({:.0} ns)", workload.bytes, workload.kind, workload.floor_ns);
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(330)
        .build_cartesian_2d(0.0..most, (0..rows).into_segmented())?;
    let name = |at: &SegmentValue<i32>| match at {
        SegmentValue::CenterOf(row) | SegmentValue::Exact(row) => {
            // The first contender is at the top.
            all.get((rows - 1 - row) as usize).map_or_else(String::new, |outcome| outcome.label.name.clone())
        }
        SegmentValue::Last => String::new(),
    };
    chart.configure_mesh().disable_y_mesh().y_labels(all.len() + 1).y_label_formatter(&name).draw()?;
    for (row, outcome) in (0..rows).rev().zip(all) {
        let colour = if outcome.label.ours { OURS } else { PEER };
        let (ratio, middle) = (outcome.ratio_to_floor, SegmentValue::CenterOf(row));
        let line = vec![(ratio.q1, middle.clone()), (ratio.q3, middle.clone())];
        chart.draw_series([PathElement::new(line, colour.stroke_width(5))])?;
        chart.draw_series([Circle::new((ratio.median, middle), 5, colour.filled())])?;
    }
    let floor = vec![(1.0, SegmentValue::Exact(0)), (1.0, SegmentValue::Last)];
    chart.draw_series([PathElement::new(floor, FLOOR.stroke_width(1))])?;
    root.present()?;
    Ok(())
}

/// Draws nanoseconds over bytes: the floor, the best link of mk-ipi, and the best peer.
fn sizes<'a>(kind: Kind, workloads: &[&Workload], file: &'a Path) -> Drawn<'a> {
    let best = |ours: bool| {
        let of = |(at, workload): (usize, &&Workload)| {
            Some((at as i32, workload.best(|outcome| outcome.label.ours == ours)?.median_ns))
        };
        workloads.iter().enumerate().filter_map(of).collect::<Vec<_>>()
    };
    let floor = workloads.iter().enumerate().map(|(at, workload)| (at as i32, workload.floor_ns)).collect();
    let series = [
        ("floor, a round trip", FLOOR, floor),
        ("best of mk-ipi", OURS, best(true)),
        ("best peer", PEER, best(false)),
    ];
    let nanos = || series.iter().flat_map(|(_, _, points)| points.iter().map(|(_, nanos)| *nanos));
    let (least, most) = (nanos().fold(f64::INFINITY, f64::min), nanos().fold(1.0, f64::max));
    let root = SVGBackend::new(file, (WIDTH, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    let last = workloads.len() as i32 - 1;
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("{kind}: ns by bytes of a message"), ("sans-serif", 18))
        .margin(10)
        .margin_right(35)
        .x_label_area_size(30)
        .y_label_area_size(60)
        .build_cartesian_2d(0..last, (least * 0.7..most * 1.4).log_scale())?;
    let bytes = |at: &i32| workloads.get(*at as usize).map_or_else(String::new, |w| format!("{} B", w.bytes));
    chart.configure_mesh().x_labels(workloads.len()).x_label_formatter(&bytes).draw()?;
    for (name, colour, points) in series {
        chart
            .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 4, colour.filled())))?;
    }
    chart.configure_series_labels().position(SeriesLabelPosition::UpperLeft).border_style(FLOOR).draw()?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{report, workload};
    use super::*;

    #[test]
    fn drawings_name_who_is_drawn() {
        let took = [("mk-ipi send", 110.0), ("rtrb, 64 cells", 150.0)];
        let report = report([8, 48].map(|bytes| workload(Kind::RoundTrip, bytes, &took)).into());
        let folder = std::env::temp_dir().join(format!("mk-ipi-plots-{}", std::process::id()));
        report.plot(&folder).expect("drawings");
        let text = |name: &str| fs::read_to_string(folder.join(name)).expect("a drawing");
        assert!(text("round_trip-48.svg").contains("rtrb, 64 cells"));
        assert!(text("round_trip.svg").contains("best peer"));
        fs::remove_dir_all(&folder).expect("gone");
    }
}
