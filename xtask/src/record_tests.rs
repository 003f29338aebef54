// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the records and their checks: each single fault must be found.

use super::*;

fn sent(from: u32, to: u32, count: u64) -> String {
    format!(
        r#"@{{"sent":{{"from":{from},"to":{to},"mode":"xapic","generation":"native","sent":{count},"doorbells":{count},"busy":1,"rtt_cycles":{{"min":1,"median":2,"p99":3}}}}}}"#
    )
}

fn received(from: u32, to: u32, [received, lost, torn, doubled]: [u64; 4]) -> String {
    format!(
        r#"@{{"received":{{"from":{from},"to":{to},"mode":"xapic","generation":"native","received":{received},"lost":{lost},"torn":{torn},"doubled":{doubled}}}}}"#
    )
}

fn drains(kernel: u32, longest: u64) -> String {
    format!(r#"@{{"drains":{{"kernel":{kernel},"calls":9,"longest":{longest},"allowed":1}}}}"#)
}

fn listed(kernel: u32, host_cpus: u32) -> String {
    format!(r#"@{{"listed":{{"kernel":{kernel},"host_cpus":{host_cpus},"room":1}}}}"#)
}

const ORDER: Order = Order {
    kernels: 2,
    messages: 10,
    mode: Mode::Xapic,
    generation: Generation::Native,
    kills: 0,
    host_cpus: 1,
    moves: 0,
};

/// The lines of a run of two kernels with ten messages each way, in which no fault occurs.
fn good() -> Vec<String> {
    vec![
        r#"@{"kernel":{"id":0,"lang":"rust","cpu":0,"life":1}}"#.into(),
        r#"@{"kernel":{"id":1,"lang":"rust","cpu":1,"life":1}}"#.into(),
        "booted, all well".into(),
        r#"@{"progress":{"kernel":0,"done":5,"total":10}}"#.into(),
        sent(0, 1, 10),
        sent(1, 0, 10),
        received(0, 1, [10, 0, 0, 0]),
        received(1, 0, [10, 0, 0, 0]),
        r#"@{"done":{"ok":true}}"#.into(),
        drains(0, 1),
        drains(1, 0),
        listed(1, 1),
    ]
}

fn problems(lines: &[String]) -> Vec<String> {
    problems_of(lines, &ORDER)
}

fn problems_of(lines: &[String], order: &Order) -> Vec<String> {
    let mut report = Report::default();
    for line in lines {
        report.take(line);
    }
    report.demo_problems(order)
}

/// Returns the problems of the good run after one of its lines was replaced.
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
    let sum = |of| format!("xAPIC 0->1: received 10 and lost 0 of {of}, 0 in doubt");
    assert_eq!(with(4, &sent(0, 1, 9)), ["xAPIC 0->1: sent 9 of 10", &sum(9)]);
    assert_eq!(with(4, &sent(0, 1, 11)), ["xAPIC 0->1: sent 11 of 10", &sum(11)]);
    assert_eq!(with(6, &received(0, 1, [9, 1, 0, 0])), ["xAPIC 0->1: 1 lost"]);
    assert_eq!(
        with(6, &received(0, 1, [9, 0, 0, 0])),
        ["xAPIC 0->1: received 9 and lost 0 of 10, 0 in doubt"]
    );
    assert_eq!(with(6, &received(0, 1, [10, 0, 1, 0])), ["xAPIC 0->1: 1 torn"]);
    assert_eq!(with(6, &received(0, 1, [10, 0, 0, 1])), ["xAPIC 0->1: 1 doubled"]);
    let disordered = received(0, 1, [10, 0, 0, 0]).replace("\"doubled\":0", "\"doubled\":0,\"disordered\":1");
    assert_eq!(with(6, &disordered), ["xAPIC 0->1: 1 out of order"]);
    let starved =
        "kernel 0: 2 drains in a row took nothing from a lane with messages, at most 1 in a row may do so";
    assert_eq!(with(9, &drains(0, 2)), [starved]);
    // If no kernel was killed, no message may be in doubt.
    let in_doubt = sent(0, 1, 10).replace("\"busy\":1", "\"busy\":1,\"in_doubt\":1");
    let mut lines = good();
    (lines[4], lines[6]) = (in_doubt, received(0, 1, [9, 0, 0, 0]));
    assert_eq!(problems(&lines), ["xAPIC 0->1: 1 in doubt after 0 deaths"]);
    assert_eq!(with(8, r#"@{"done":{"ok":false}}"#).len(), 1);
    assert_eq!(with(3, r#"@{"error":{"kernel":1,"text":"no region"}}"#), ["kernel 1: no region"]);
    assert_eq!(
        with(3, r#"@{"kernel":{"id":7,"lang":"rust","cpu":7,"life":1}}"#),
        ["kernel 7 reported, but there is no such kernel"]
    );
    assert_eq!(
        with(4, &sent(0, 1, 10).replace("xapic", "x2apic")),
        ["xAPIC 0->1: the sender ran in x2APIC mode"]
    );
    assert_eq!(
        with(6, &received(0, 1, [10, 0, 0, 0]).replace("native", "rfc-v2")),
        ["xAPIC 0->1: the receiver did not report"]
    );
}

#[test]
fn a_stream_rings_for_one_message_in_ten_at_most() {
    let lines = |doorbells: u64| -> Vec<String> {
        let sent = |from, to| {
            sent(from, to, 1000).replace("\"doorbells\":1000", &format!("\"doorbells\":{doorbells}"))
        };
        let mut lines = good();
        (lines[4], lines[5]) = (sent(0, 1), sent(1, 0));
        (lines[6], lines[7]) = (received(0, 1, [1000, 0, 0, 0]), received(1, 0, [1000, 0, 0, 0]));
        lines
    };
    let order = Order { messages: 1000, ..ORDER };
    assert_eq!(problems_of(&lines(100), &order), Vec::<String>::new());
    assert_eq!(problems_of(&lines(101), &order).len(), 2);
}

/// The lines of a run of three kernels in which kernel 1 is killed once, and no fault occurs.
fn killed() -> Vec<String> {
    let kernel =
        |id: u32, life: u32| format!(r#"@{{"kernel":{{"id":{id},"lang":"rust","cpu":{id},"life":{life}}}}}"#);
    let mut lines = vec![kernel(0, 1), kernel(1, 1), kernel(2, 1), kernel(1, 2), drains(0, 0), drains(2, 0)];
    lines.push(r#"@{"killed":{"kernel":1,"times":1,"in_stream":1,"meanwhile":5}}"#.into());
    for (from, to) in pairs(3) {
        let (told, lost) = match (from, to) {
            // One message is in doubt, and was not received.
            (_, 1) => ("\"busy\":1,\"in_doubt\":1", [9, 0, 0, 0]),
            // One message is in doubt, and was received.
            (1, _) => ("\"busy\":1,\"in_doubt\":1", [10, 0, 0, 0]),
            _ => ("\"busy\":1", [10, 0, 0, 0]),
        };
        lines.push(sent(from, to, 10).replace("\"busy\":1", told));
        lines.push(received(from, to, lost));
    }
    lines.push(r#"@{"done":{"ok":true}}"#.into());
    lines.extend([listed(1, 1), listed(2, 1)]);
    lines
}

#[test]
fn every_spawned_kernel_must_find_all_cpus_of_the_host() {
    let order = Order { host_cpus: 128, ..ORDER };
    let found = "kernel 1 found 1 CPUs of the host in the directory, not 128";
    assert_eq!(problems_of(&good(), &order), [found]);
    let mut lines = good();
    lines[11] = listed(1, 128);
    assert_eq!(problems_of(&lines, &order), Vec::<String>::new());
}

#[test]
fn one_message_may_be_in_doubt_for_each_death_and_none_be_lost() {
    let order = Order { kernels: 3, kills: 1, ..ORDER };
    let with = |from: &str, to: &str| {
        let lines: Vec<String> = killed().iter().map(|line| line.replace(from, to)).collect();
        problems_of(&lines, &order)
    };
    assert_eq!(with("", ""), Vec::<String>::new());
    let lost = ["xAPIC 0->1: 1 lost", "xAPIC 2->1: 1 lost"];
    assert_eq!(with("\"received\":9,\"lost\":0", "\"received\":9,\"lost\":1"), lost);
    let missing = with("\"in_doubt\":1", "\"in_doubt\":0");
    let sum = |ends| format!("xAPIC {ends}: received 9 and lost 0 of 10, 0 in doubt");
    assert_eq!(missing, [sum("0->1"), sum("2->1")], "a missing message must be in doubt");
    let too_many = with("\"in_doubt\":1", "\"in_doubt\":2");
    let twice = |ends| format!("xAPIC {ends}: 2 in doubt after 1 deaths");
    assert_eq!(too_many, ["0->1", "1->0", "1->2", "2->1"].map(twice));
    let again = with("\"doubled\":0", "\"doubled\":1");
    assert_eq!(again.len(), 6, "a message that was in doubt must not arrive twice either");
    // Streams run on until the last kill, so more messages than ordered are allowed, but the sums must still be right.
    assert_eq!(with("\"sent\":10", "\"sent\":11").len(), 4);
    assert_eq!(with("\"sent\":10", "\"sent\":9").len(), 10);
    // In a stream between two kernels that were not killed, no message may be missing.
    let (from, to) = (received(0, 2, [10, 0, 0, 0]), received(0, 2, [9, 1, 0, 0]));
    assert_eq!(with(&from, &to), ["xAPIC 0->2: 1 lost"]);
}

#[test]
fn each_kill_must_have_been_one() {
    let order = Order { kernels: 3, kills: 1, ..ORDER };
    for (from, to) in [
        ("\"times\":1", "\"times\":0"),
        ("\"in_stream\":1", "\"in_stream\":0"),
        ("\"meanwhile\":5", "\"meanwhile\":0"),
        ("{\"killed\":{\"kernel\":1", "{\"killed\":{\"kernel\":2"),
        ("@{\"killed\"", "{\"killed\""),
        ("@{\"drains\":{\"kernel\":2", "{\"drains\":{\"kernel\":2"),
        ("@{\"kernel\":{\"id\":1,\"lang\":\"rust\",\"cpu\":1,\"life\":2}}", "no second life"),
    ] {
        let lines: Vec<String> = killed().iter().map(|line| line.replace(from, to)).collect();
        assert_eq!(problems_of(&lines, &order).len(), 1, "{from} -> {to}");
    }
}

#[test]
fn a_line_that_its_writer_did_not_live_to_end_is_void() {
    let mut report = Report::default();
    assert_eq!(report.take("@{\"progress\":{\"ker\u{18}"), None);
    assert!(report.errors.is_empty());
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
    assert_eq!(with(3, &again), ["a record came twice, or in the wrong order: sent 0->1"]);
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
