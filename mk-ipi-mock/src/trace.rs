// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes the runs of a machine as a trace, which Perfetto and Chrome can show. The trace has a track for each CPU, with its
//! interrupts, deferred work, sends and handlers. An arrow goes from each send to its handler, and from each doorbell to its
//! interrupt.
//!
//! `mk-ipi-core` has no code for this. The trace is made from the stores to native regions: a kernel stores a tag to publish a
//! message, HANDED before it calls the handlers, and CREDIT when they have returned (SPEC N-4 to N-8).

use crate::kernel::RegionEvent;
use crate::machine::Machine;
use crate::memory::lock;
use crate::notes::{Note, NoteKind};
use crate::sched::Shared;
use mk_ipi_abi::native::{
    control, header, lines_of, receiver, Geometry, Hello, Life, LineTag, MessageInfo, Stamp, LINE_WORDS,
    STAMP_WORDS,
};
use mk_ipi_abi::{InstanceId, PhysRange, Vector};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::Ordering;

/// The meaning of a store to a region.
enum Meaning {
    /// A sender published a message. `end` is the position after it, which is the message's number.
    Published { end: u64, len: u32, msg_type: u32 },
    /// A receiver is about to call the handlers of the message with this number.
    Handed(u64),
    /// A receiver stored CREDIT. So the handlers of the lane's last message have returned.
    Credit,
    /// A word about a life changed. The text describes the change.
    Life(String),
}

/// A native region, the instance that owns it, and its geometry.
struct Region {
    instance: InstanceId,
    range: PhysRange,
    geometry: Geometry,
}

impl Region {
    /// Returns the lane to which the word at `at` belongs, and the meaning of a store of `value` to it. `about` is the value of
    /// the next word, which a sender stores before the tag. Returns `None` if such a store is not shown.
    fn meaning(&self, at: u64, value: u64, about: u64) -> Option<(u32, Meaning)> {
        let word = usize::try_from((at - self.range.start().0) / 8).ok()?;
        if let Some(of_lane) = word.checked_sub(usize::try_from(self.geometry.lanes_at() / 8).ok()?) {
            let words = usize::try_from(self.geometry.lane_len() / 8).ok()?;
            let lane = u32::try_from(of_lane / words).ok()?;
            return Some((lane, self.in_lane(of_lane % words, value, about)?));
        }
        if word == receiver::LIFE {
            let life = Life::from_word(value)?;
            let over = if life.over { "says goodbye" } else { "begins" };
            return Some((0, Meaning::Life(format!("life {} {over}", life.incarnation.get()))));
        }
        let of_control = word.checked_sub(receiver::CONTROL)?;
        let lane = u32::try_from(of_control / receiver::CONTROL_WORDS).ok()?;
        let meaning = match of_control % receiver::CONTROL_WORDS {
            control::HANDED => Meaning::Handed(value),
            control::CREDIT => Meaning::Credit,
            control::ANSWER => Meaning::Life(format!("answers {}", hello(value)?)),
            control::BREACH if value != 0 => Meaning::Life(format!("quarantine of lane {lane}: {value}")),
            _ => return None,
        };
        Some((lane, meaning))
    }

    /// Returns the meaning of a store to a sender's word. `word` is its index in the lane.
    fn in_lane(&self, word: usize, value: u64, about: u64) -> Option<Meaning> {
        if word == header::HELLO {
            return Some(Meaning::Life(format!("says {}", hello(value)?)));
        }
        let line = word.checked_sub(header::WORDS).filter(|line| line % LINE_WORDS == 0)? / LINE_WORDS;
        // The tag contains only the low 30 bits of the lap. A run is never so long that the lap has more bits.
        let lap = u64::from(LineTag::of_word(value).0) & ((1 << 30) - 1);
        let position = lap * u64::from(self.geometry.lines()) + line as u64;
        if LineTag::of_word(value) != self.geometry.first_tag(position) {
            return None;
        }
        let MessageInfo { len, .. } = MessageInfo::from_word(about);
        let end = position + lines_of((len & 0xfff) as usize);
        Some(Meaning::Published { end, len, msg_type: (value >> 32) as u32 })
    }
}

/// Describes a HELLO or ANSWER word. Returns `None` if the word is not valid.
fn hello(word: u64) -> Option<String> {
    let hello = Hello::from_word(word)?;
    Some(format!("{:?} of life {}, session {}", hello.phase, hello.incarnation.get(), hello.session))
}

/// A slice of a CPU's track that has begun and has not ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Interrupt,
    Deferred,
    /// The handlers of a message, with the address of its region and its lane.
    Message(u64, u32),
}

struct Writer<'a> {
    shared: &'a Shared,
    /// The events that were written so far, as JSON.
    out: String,
    /// For each CPU: the slices that have begun and not ended, the innermost last.
    open: Vec<Vec<Open>>,
    /// The arrows of messages that were not handled yet, by region, lane and number.
    messages: BTreeMap<(u64, u32, u64), u64>,
    /// The arrows of doorbells whose interrupt was not taken yet, by CPU and vector.
    rings: BTreeMap<(usize, u8), Vec<u64>>,
    /// The number of arrows so far. It is the id of the last one.
    arrows: u64,
    /// The last value that was stored to each address.
    words: BTreeMap<u64, u64>,
}

impl Machine {
    /// Returns the runs of the machine so far, as one JSON object in Chrome's trace format, which
    /// [Perfetto](https://ui.perfetto.dev) shows. In the trace a step of the machine takes one microsecond. The trace contains
    /// only the names of kernels and CPUs unless the machine was built with [`Builder::trace`](crate::Builder::trace).
    ///
    /// Messages are shown only if they are sent in a native region that a kernel has attached. Stores of the thread that built
    /// the machine are not steps, and are not shown.
    pub fn chrome_trace(&self) -> String {
        let shared = self.shared();
        let mut writer = Writer {
            shared,
            out: String::new(),
            open: vec![Vec::new(); shared.cpus.len()],
            messages: BTreeMap::new(),
            rings: BTreeMap::new(),
            arrows: 0,
            words: BTreeMap::new(),
        };
        writer.name_tracks();
        let regions = regions(shared);
        let notes = shared.notes.all();
        for note in &notes {
            writer.note(note, &regions);
        }
        let end = notes.last().map_or(0, |note| note.time + 1);
        (0..shared.cpus.len()).for_each(|cpu| writer.close_all(cpu, end));
        format!("{{\"displayTimeUnit\":\"ns\",\"traceEvents\":[{}]}}\n", writer.out.trim_end_matches(",\n"))
    }
}

/// Returns the native regions that kernels have attached.
fn regions(shared: &Shared) -> Vec<Region> {
    let mut found: Vec<Region> = Vec::new();
    let seen = shared.kernels.iter().flat_map(|kernel| lock(&kernel.regions).clone());
    for event in seen {
        let RegionEvent::Added(instance, range) = event else { continue };
        let words = shared.memory.words(range).and_then(|words| words.first_chunk::<STAMP_WORDS>());
        let Some(words) = words.filter(|_| found.iter().all(|known| known.range != range)) else { continue };
        let copy = words.each_ref().map(|word| word.raw().load(Ordering::Relaxed));
        let stamp: Stamp = zerocopy::transmute!(copy);
        if let Ok(geometry) = stamp.check(range.len(), None) {
            found.push(Region { instance, range, geometry });
        }
    }
    found
}

impl Writer<'_> {
    /// Writes one event on the track of `cpu`. `more` contains further fields of the event, as JSON.
    fn event(&mut self, kind: char, cpu: usize, time: u64, name: &str, more: &str) {
        let kernel = self.shared.cpus[cpu].kernel;
        let _ = writeln!(
            self.out,
            "{{\"ph\":\"{kind}\",\"pid\":{kernel},\"tid\":{cpu},\"ts\":{time},\"name\":\"{name}\",\"cat\":\"mk-ipi\"{more}}},"
        );
    }

    fn name_tracks(&mut self) {
        for cpu in 0..self.shared.cpus.len() {
            let state = &self.shared.cpus[cpu];
            let instance = self.shared.kernels[state.kernel].instance.load(Ordering::Relaxed);
            let kernel = match instance.checked_sub(1) {
                Some(id) => format!("kernel {}: instance {id}", state.kernel),
                None => format!("kernel {}", state.kernel),
            };
            let id = state.id.0;
            self.event('M', cpu, 0, "process_name", &format!(",\"args\":{{\"name\":\"{kernel}\"}}"));
            self.event('M', cpu, 0, "thread_name", &format!(",\"args\":{{\"name\":\"CPU {id}\"}}"));
        }
    }

    /// Writes an event that takes one step.
    fn point(&mut self, cpu: usize, time: u64, name: &str, args: &str) {
        self.event('X', cpu, time, name, &format!(",\"dur\":1,\"args\":{{{args}}}"));
    }

    fn begin(&mut self, cpu: usize, time: u64, what: Open, name: &str) {
        self.open[cpu].push(what);
        self.event('B', cpu, time, name, "");
    }

    /// Ends the innermost open slice for which `what` returns true, and all slices that are nested in it.
    fn end(&mut self, cpu: usize, time: u64, what: impl Fn(Open) -> bool) {
        let Some(at) = self.open[cpu].iter().rposition(|open| what(*open)) else { return };
        for _ in self.open[cpu].drain(at..).collect::<Vec<_>>() {
            self.event('E', cpu, time, "", "");
        }
    }

    fn close_all(&mut self, cpu: usize, time: u64) {
        while !self.open[cpu].is_empty() {
            self.end(cpu, time, |_| true);
        }
    }

    /// Begins an arrow at the event that was written last. Returns the arrow's id.
    fn arrow(&mut self, cpu: usize, time: u64) -> u64 {
        self.arrows += 1;
        let id = format!(",\"id\":{}", self.arrows);
        self.event('s', cpu, time, "flow", &id);
        self.arrows
    }

    fn arrow_ends(&mut self, cpu: usize, time: u64, arrow: u64) {
        self.event('f', cpu, time, "flow", &format!(",\"bp\":\"e\",\"id\":{arrow}"));
    }

    fn note(&mut self, note: &Note, regions: &[Region]) {
        let (cpu, time) = (note.cpu, note.time);
        match note.what {
            NoteKind::Ring(to, vector) => self.ring(cpu, time, to, vector),
            NoteKind::Interrupt(vector) => {
                self.begin(cpu, time, Open::Interrupt, &format!("interrupt {:#x}", vector.get()));
                let rings = self.rings.remove(&(cpu, vector.get())).unwrap_or_default();
                rings.into_iter().for_each(|arrow| self.arrow_ends(cpu, time, arrow));
            }
            NoteKind::InterruptEnd => self.end(cpu, time, |open| open == Open::Interrupt),
            NoteKind::Deferred => self.begin(cpu, time, Open::Deferred, "deferred work"),
            NoteKind::DeferredEnd => self.end(cpu, time, |open| open == Open::Deferred),
            NoteKind::Stopped => {
                self.close_all(cpu, time);
                self.point(cpu, time, "the kernel is stopped", "");
            }
            NoteKind::Store(at, value) => {
                let region = regions.iter().find(|r| r.range.start() <= at && at < r.range.end());
                let Some(region) = region else { return };
                self.words.insert(at.0, value);
                let about = self.words.get(&(at.0 + 8)).copied().unwrap_or(0);
                if let Some((lane, meaning)) = region.meaning(at.0, value, about) {
                    self.store(note, region, lane, meaning);
                }
            }
        }
    }

    fn ring(&mut self, cpu: usize, time: u64, to: usize, vector: Vector) {
        self.point(cpu, time, &format!("ring CPU {}", self.shared.cpus[to].id.0), "");
        let arrow = self.arrow(cpu, time);
        self.rings.entry((to, vector.get())).or_default().push(arrow);
    }

    fn store(&mut self, note: &Note, region: &Region, lane: u32, meaning: Meaning) {
        let (cpu, time, at) = (note.cpu, note.time, region.range.start().0);
        let in_lane = |open: Open| open == Open::Message(at, lane);
        match meaning {
            Meaning::Published { end, len, msg_type } => {
                let args = format!("\"number\":{end},\"bytes\":{len},\"type\":{msg_type}");
                self.point(cpu, time, &format!("send {end} to instance {}", region.instance.get()), &args);
                let arrow = self.arrow(cpu, time);
                self.messages.insert((at, lane, end), arrow);
            }
            Meaning::Handed(end) => {
                self.end(cpu, time, in_lane);
                // A receiver also stores HANDED when its life begins. Then no handler is called, and no message has that number.
                if let Some(arrow) = self.messages.remove(&(at, lane, end)) {
                    let what = Open::Message(at, lane);
                    self.begin(cpu, time, what, &format!("message {end} from instance {lane}"));
                    self.arrow_ends(cpu, time, arrow);
                }
            }
            Meaning::Credit => self.end(cpu, time, in_lane),
            Meaning::Life(text) => self.point(cpu, time, &text, ""),
        }
    }
}
