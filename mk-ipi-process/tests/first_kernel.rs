// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program in the book's chapter "A first kernel" runs, and prints what the chapter shows.

use std::process::Command;

#[test]
fn each_question_is_answered_in_order() {
    // Cargo builds a package's examples with its tests.
    let tests = std::env::current_exe().unwrap();
    let folder = tests.parent().and_then(|deps| deps.parent()).unwrap();
    let out = Command::new(folder.join("examples/first_kernel")).output().unwrap();
    let said = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success(), "{said} {}", String::from_utf8_lossy(&out.stderr));
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 4, "{said}");
    for (line, number) in lines.iter().zip(1..=3) {
        assert!(
            line.starts_with(&format!("answer to [{number}, 0, 0, 0, 0, 0, 0, 0] from process ")),
            "{said}"
        );
    }
    assert_eq!(lines.last(), Some(&"the other kernel ended with exit status: 0"));
}
