// SPDX-License-Identifier: MIT OR Apache-2.0
//! Parses boot parameters, and compares the results with a simple model of SPEC chapter B.

use mk_ipi_abi::boot_param::{mk_ipi_directory, mk_ipi_shared, parse_address, parse_size, BootParamError};

/// Parses the bytes as a value, as a command line, and as values on a command line.
pub fn boot_param(data: &[u8]) {
    value(data);
    line(data);
    line(&[b"quiet mk_ipi_shared=", data].concat());
    line(&[b"\"mk-ipi_directory=", data, b"\" mk_ipi_shared=1M"].concat());
    if let Some((at, rest)) = data.split_first() {
        let (first, second) = rest.split_at(usize::from(*at).min(rest.len()));
        line(&[b"mk_ipi_shared=", first, b" mk_ipi_shared=\"", second].concat());
        digits(*at, rest);
    }
}

/// Makes numbers from the bytes and parses them, because random bytes are seldom numbers.
fn digits(kind: u8, data: &[u8]) {
    let prefix = ["", "0", "0x", "0X"][usize::from(kind % 4)];
    let alphabet =
        *[b"0123456789KMGTPEkmgtpe", b"0123456789abcdefABCDEF"].get(usize::from(kind / 4 % 2)).unwrap();
    let text: Vec<u8> = data.iter().take(24).map(|&b| alphabet[usize::from(b) % alphabet.len()]).collect();
    value(&[prefix.as_bytes(), &text].concat());
    for suffix in *b"KMGTPEkmgtpe" {
        let plain = text.iter().copied().filter(u8::is_ascii_digit).take(usize::from(kind / 8));
        let number: Vec<u8> = plain.chain([suffix]).collect();
        value(&[prefix.as_bytes(), &number].concat());
    }
}

/// Parses a value, and checks the result.
fn value(text: &[u8]) {
    assert_eq!(parse_size(text).ok(), model_size(text), "{:?}", text.escape_ascii().to_string());
    if let Err(BootParamError::Garbage(at)) = parse_size(text) {
        let before = parse_size(&text[..at]);
        assert!(
            at < text.len() && matches!(before, Ok(_) | Err(BootParamError::Overflow)),
            "{at} {before:?}"
        );
    }
    let address = parse_address(text).ok().map(|at| at.0);
    assert_eq!(address, model_address(text));
}

/// Parses a command line, and checks the results.
fn line(text: &[u8]) {
    for (name, found) in
        [("mk_ipi_shared", mk_ipi_shared(text)), ("mk_ipi_directory", mk_ipi_directory(text))]
    {
        let shown = || text.escape_ascii().to_string();
        match (model_line(text, name), found) {
            (None, found) => assert_eq!(found, Ok(None), "{}", shown()),
            (Some(value), found) => {
                let address = found.ok().map(|at| at.expect("it is there").0);
                assert_eq!(address, model_address(&value), "{}", shown());
            }
        }
    }
}

/// The expected number; `None` if `text` is not a number with at most one suffix, or does not fit into 64 bits.
fn model_size(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let (radix, rest) = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        Some(rest) => (16, rest),
        None if text.starts_with('0') => (8, text),
        None => (10, text),
    };
    let suffix = rest.chars().last().filter(|c| !c.is_digit(radix));
    let power = suffix.map_or(Some(0), |c| "KMGTPE".find(c.to_ascii_uppercase()).map(|at| at + 1))?;
    let digits = &rest[..rest.len() - suffix.map_or(0, char::len_utf8)];
    if !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let number = u64::from_str_radix(digits, radix).ok()?;
    u64::try_from(u128::from(number) << (10 * power)).ok()
}

/// The expected address.
fn model_address(text: &[u8]) -> Option<u64> {
    model_size(text).filter(|at| *at != 0 && at % 4096 == 0 && *at < 1 << 52)
}

/// The expected value of `name` on a command line: the last one. It is empty if there is no `=` after `name`.
fn model_line(text: &[u8], name: &str) -> Option<Vec<u8>> {
    let mut params = vec![Vec::new()];
    let mut quoted = false;
    for &byte in text.iter().take_while(|&&b| b != 0) {
        quoted ^= byte == b'"';
        match byte {
            9..=13 | 32 | 160 if !quoted => params.push(Vec::new()),
            _ => params.last_mut().unwrap().push(byte),
        }
    }
    let params = params.into_iter().filter(|p| !p.is_empty()).take_while(|p| unquoted(p) != b"--");
    let named = params.filter_map(|param| {
        let param = unquoted(&param);
        let mut parts = param.splitn(2, |&b| b == b'=');
        let own = parts.next()?.iter().map(|&b| if b == b'-' { b'_' } else { b }).eq(name.bytes());
        own.then(|| parts.next().map_or(Vec::new(), |value| unquoted(value).to_vec()))
    });
    named.last()
}

/// Removes a quote at the beginning. If there was one, also removes a quote at the end.
fn unquoted(text: &[u8]) -> &[u8] {
    match text {
        [b'"', inner @ .., b'"'] | [b'"', inner @ ..] => inner,
        _ => text,
    }
}
