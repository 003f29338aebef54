// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the package sources that we make from those of the machine.

use super::*;

fn release(codename: &str) -> Release {
    Release { id: "debian".into(), codename: codename.into() }
}

#[test]
fn os_release() {
    let text = "NAME=\"Some Linux\"\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\nID=debian\n";
    assert_eq!(Release::parse(text).ok(), Some(release("bookworm")));
    let noble = Release { id: "ubuntu".into(), codename: "noble".into() };
    assert_eq!(Release::parse("ID=ubuntu\nVERSION_CODENAME=\"noble\"\n").ok(), Some(noble));
    assert!(Release::parse("ID=rolling\n").is_err());
    assert!(Release::parse("VERSION_CODENAME=\n").is_err());
}

#[test]
fn deb822_gains_the_backports() {
    let text = "Types: deb deb-src\n# a comment\nURIs: http://mirror.example/debian\n\
                Suites: bookworm bookworm-updates\nComponents: main\nSigned-By: /some/key.gpg\n\n\
                Types: deb\nURIs: http://mirror.example/security\nSuites: bookworm-security\nComponents: main\n";
    let expected = "Types: deb\nURIs: http://mirror.example/debian\n\
                    Suites: bookworm bookworm-updates bookworm-backports\nComponents: main\nSigned-By: /some/key.gpg\n\n\
                    Types: deb\nURIs: http://mirror.example/security\nSuites: bookworm-security\nComponents: main\n\n";
    assert_eq!(from_deb822(text, &release("bookworm"), &Suites::Own), expected);
}

#[test]
fn deb822_keeps_a_key_of_many_lines() {
    let text = "Types: deb\nURIs: http://m.example/d\nSuites: trixie\nComponents: main\nSigned-By:\n -----BEGIN\n .\n abc\n";
    let expected =
        "Types: deb\nURIs: http://m.example/d\nSuites: trixie\nComponents: main\nSigned-By: \n -----BEGIN\n .\n abc\n\n";
    assert_eq!(from_deb822(text, &release("trixie"), &Suites::Own), expected);
}

#[test]
fn deb822_leaves_out_what_is_not_the_release() {
    let stanza = |extra: &str, suite: &str| {
        format!("Types: deb\nURIs: http://m.example/d\nSuites: {suite}\nComponents: main\n{extra}")
    };
    let derived = |text: String| from_deb822(&text, &release("noble"), &Suites::Own);
    assert_eq!(derived(stanza("", "nodistro")), "");
    assert_eq!(derived(stanza("Enabled: no\n", "noble")), "");
    assert_eq!(derived(stanza("", "noble").replace("deb\n", "deb-src\n")), "");
    assert_eq!(derived("not a stanza\n".into()), "");
    assert_ne!(derived(stanza("Enabled: yes\n", "noble")), "");
}

#[test]
fn the_backports_are_not_named_twice() {
    let text =
        "Types: deb\nURIs: http://m.example/d\nSuites: bookworm bookworm-backports\nComponents: main\n";
    assert_eq!(from_deb822(text, &release("bookworm"), &Suites::Own).matches("backports").count(), 1);
}

#[test]
fn one_line_style() {
    let text = "# comment\n\
                deb cdrom:[Debian 12]/ bookworm main\n\
                deb http://mirror.example/debian/ bookworm main contrib # trailing\n\
                deb-src http://mirror.example/debian/ bookworm main\n\
                deb [signed-by=/k.gpg arch=amd64] http://mirror.example/sec bookworm-security main\n\
                deb http://stranger.example/ nodistro main\n\
                debug nonsense\n";
    let expected = "deb http://mirror.example/debian/ bookworm main contrib\n\
                    deb http://mirror.example/debian/ bookworm-backports main contrib\n\
                    deb [signed-by=/k.gpg arch=amd64] http://mirror.example/sec bookworm-security main\n";
    assert_eq!(from_one_line(text, &release("bookworm"), &Suites::Own), expected);
}

#[test]
fn other_releases_gain_nothing() {
    let text = "deb http://m.example/ubuntu noble main universe\n";
    assert_eq!(from_one_line(text, &release("noble"), &Suites::Own), text);
}

#[test]
fn another_suite_comes_from_where_the_release_does() {
    let text = "Types: deb deb-src\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\n\
                Signed-By: /some/key.gpg\n\n\
                Types: deb\nURIs: http://mirror.example/security\nSuites: bookworm-security\nComponents: main\n\n\
                Types: deb\nURIs: http://stranger.example/\nSuites: nodistro\nComponents: main\n";
    let expected =
        "Types: deb\nURIs: http://mirror.example/debian\nSuites: trixie-backports\nComponents: main\n\
                    Signed-By: /some/key.gpg\n\n";
    let only = Suites::Only("trixie-backports".into());
    assert_eq!(from_deb822(text, &release("bookworm"), &only), expected);
    let text = "deb http://mirror.example/debian bookworm main\ndeb http://mirror.example/sec bookworm-security main\n";
    let expected = "deb http://mirror.example/debian trixie-backports main\n";
    assert_eq!(from_one_line(text, &release("bookworm"), &only), expected);
}
