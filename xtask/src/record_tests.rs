// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the records and of the verdict: each flaw alone must be seen.

use super::*;

fn sent(from: u32, to: u32, count: u64) -> String {
    format!(
        r#"@{{"sent":{{"from":{from},"to":{to},"mode":"xapic","generation":"rfc-v2","sent":{count},"doorbells":{count},"busy":1,"rtt_cycles":{{"min":1,"median":2,"p99":3}}}}}}"#
    )
}

fn received(from: u32, to: u32, [received, lost, torn, doubled]: [u64; 4]) -> String {
    format!(
        r#"@{{"received":{{"from":{from},"to":{to},"mode":"xapic","generation":"rfc-v2","received":{received},"lost":{lost},"torn":{torn},"doubled":{doubled}}}}}"#
    )
}

/// A faultless run of two kernels with ten messages, line by line.
fn good() -> Vec<String> {
    vec![
        r#"@{"kernel":{"id":0,"lang":"rust","cpu":0}}"#.into(),
        r#"@{"kernel":{"id":1,"lang":"rust","cpu":1}}"#.into(),
        "booted, all well".into(),
        r#"@{"progress":{"kernel":0,"done":5,"total":10}}"#.into(),
        sent(0, 1, 10),
        sent(1, 0, 10),
        received(0, 1, [10, 0, 0, 0]),
        received(1, 0, [10, 0, 0, 0]),
        r#"@{"done":{"ok":true}}"#.into(),
    ]
}

fn problems(lines: &[String]) -> Vec<String> {
    let mut report = Report::default();
    for line in lines {
        report.take(line);
    }
    report.demo_problems(2, 10, Mode::Xapic)
}

/// The good run with one line put in the place of another.
fn with(index: usize, line: &str) -> Vec<String> {
    let mut lines = good();
    lines[index] = line.to_owned();
    problems(&lines)
}

#[test]
fn a_good_run_has_no_problem() {
    assert_eq!(problems(&good()), Vec::<String>::new());
}

#[test]
fn every_line_that_is_missing_is_a_problem() {
    for (index, line) in
        good().iter().enumerate().filter(|(_, l)| l.starts_with('@') && !l.contains("progress"))
    {
        let mut lines = good();
        lines.remove(index);
        assert_eq!(problems(&lines).len(), 1, "without {line}");
    }
}

#[test]
fn each_flaw_alone_is_a_problem() {
    assert_eq!(with(4, &sent(0, 1, 9)), ["xAPIC 0->1: sent 9 of 10"]);
    assert_eq!(
        with(6, &received(0, 1, [9, 1, 0, 0])),
        ["xAPIC 0->1: received 9 of 10", "xAPIC 0->1: 1 lost"]
    );
    assert_eq!(with(6, &received(0, 1, [10, 1, 0, 0])), ["xAPIC 0->1: 1 lost"]);
    assert_eq!(with(6, &received(0, 1, [10, 0, 1, 0])), ["xAPIC 0->1: 1 torn"]);
    assert_eq!(with(6, &received(0, 1, [10, 0, 0, 1])), ["xAPIC 0->1: 1 doubled"]);
    assert_eq!(with(8, r#"@{"done":{"ok":false}}"#).len(), 1);
    assert_eq!(with(3, r#"@{"error":{"kernel":1,"text":"no region"}}"#), ["kernel 1: no region"]);
    assert_eq!(with(3, r#"@{"kernel":{"id":7,"lang":"rust","cpu":7}}"#), ["a kernel 7 reported, unasked"]);
    assert_eq!(with(4, &sent(0, 1, 10).replace("xapic", "x2apic")), ["xAPIC 0->1: sent in x2APIC"]);
    assert_eq!(
        with(6, &received(0, 1, [10, 0, 0, 0]).replace("xapic", "x2apic")),
        ["xAPIC 0->1: received in x2APIC"]
    );
}

#[test]
fn a_record_that_breaks_the_rules_is_a_problem() {
    for bad in [
        "@",
        "@{",
        "@{}",
        r#"@{"unknown":{}}"#,
        r#"@{"done":{}}"#,
        r#"@{"progress":{"kernel":-1,"done":0,"total":1}}"#,
    ] {
        assert_eq!(with(3, bad).len(), 1, "{bad}");
    }
    let again = good()[4].clone();
    assert_eq!(with(3, &again), ["reported twice: sent 0->1"]);
}

#[test]
fn log_is_not_a_record() {
    let mut report = Report::default();
    assert_eq!(report.take("kernel 1: @ home"), None);
    assert_eq!(report.take(""), None);
    assert!(report.errors.is_empty());
}

fn conformance(case: &str) -> Vec<String> {
    let mut report = Report::default();
    for line in good().iter().filter(|l| l.contains("\"kernel\":{") || l.contains("done\":{")) {
        report.take(line);
    }
    report.take(r#"@{"case":{"name":"a","clause":"L-1","kernel":0,"result":"pass"}}"#);
    report.take(case);
    report.conformance_problems(2)
}

#[test]
fn conformance_needs_every_case() {
    let case = |result: &str, detail: &str| {
        conformance(&format!(
            r#"@{{"case":{{"name":"b","clause":"L-2","kernel":1,"result":"{result}","detail":"{detail}"}}}}"#
        ))
    };
    assert_eq!(case("pass", ""), Vec::<String>::new());
    assert_eq!(case("skip", "one CPU only"), Vec::<String>::new());
    assert_eq!(case("skip", "").len(), 1);
    assert_eq!(case("fail", "5 != 6"), ["b (L-2) on kernel 1: 5 != 6"]);
    assert_eq!(case("perhaps", "").len(), 1);
}

#[test]
fn conformance_without_a_case_is_a_problem() {
    let mut report = Report::default();
    for line in good().iter().filter(|l| l.contains("\"kernel\":{") || l.contains("done\":{")) {
        report.take(line);
    }
    assert_eq!(report.conformance_problems(2), ["no case passed"]);
}

#[test]
fn ordered_pairs() {
    assert_eq!(pairs(3).collect::<Vec<_>>(), [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]);
    assert_eq!(pairs(16).count(), 240);
}
