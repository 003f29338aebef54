// SPDX-License-Identifier: MIT OR Apache-2.0
//! The boot parameters of a spawned kernel: `mk_ipi_shared=` and `mk_ipi_directory=` (SPEC chapter B).
//!
//! The value is read as Linux reads memory sizes: decimal, `0x` hexadecimal or `0` octal, then at most one
//! suffix of `K M G T P E` in either case, for powers of 1,024. A value that Linux would wrap, truncate or partly ignore is an
//! error here. The command line is split as Linux splits it (SPEC B-2).

use crate::{Errno, PhysAddr};

/// Where the kernel's own region lies (SPEC B-1).
pub const MK_IPI_SHARED: &str = "mk_ipi_shared";
/// Where the machine's directory lies (SPEC D-1).
pub const MK_IPI_DIRECTORY: &str = "mk_ipi_directory";

/// Why a boot parameter does not give a valid address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootParamError {
    /// No value: `name`, `name=` or `name=""`.
    Empty,
    /// The value does not begin with a digit.
    NotANumber,
    /// Other bytes follow the number and its suffix. This is the offset of the first of them in the value.
    Garbage(usize),
    /// The number, with its suffix, does not fit into 64 bits.
    Overflow,
    /// The address is 0.
    Zero,
    /// The address is not on a 4 KiB page boundary.
    Misaligned(u64),
    /// The address is 2^52 or above. CPUs cannot use such addresses ([`PhysAddr::LIMIT`]).
    OutOfRange(u64),
}

impl core::fmt::Display for BootParamError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Empty => f.write_str("the parameter has no value"),
            Self::NotANumber => f.write_str("the value does not begin with a digit"),
            Self::Garbage(at) => write!(
                f,
                "the byte at offset {at} of the value belongs neither to the number nor to its suffix"
            ),
            Self::Overflow => f.write_str("the number does not fit into 64 bits"),
            Self::Zero => f.write_str("the address is 0"),
            Self::Misaligned(address) => write!(f, "the address {address:#x} is not on a page boundary"),
            Self::OutOfRange(address) => write!(f, "the address {address:#x} is not below 2^52"),
        }
    }
}

impl core::error::Error for BootParamError {}

impl BootParamError {
    /// `ERANGE` for a number or an address that is too large, else `EINVAL` (SPEC B-4).
    pub const fn errno(self) -> Errno {
        match self {
            Self::Overflow | Self::OutOfRange(_) => Errno::ERANGE,
            _ => Errno::EINVAL,
        }
    }
}

/// The value of `mk_ipi_shared=` on `cmdline`: the address of the kernel's own region.
///
/// `Ok(None)` if the parameter is absent: the kernel has no region (SPEC B-3). If it is given twice, the last one counts.
pub fn mk_ipi_shared(cmdline: &[u8]) -> Result<Option<PhysAddr>, BootParamError> {
    find_address(cmdline, MK_IPI_SHARED)
}

/// The value of `mk_ipi_directory=` on `cmdline`: the address of the directory (SPEC D-1).
pub fn mk_ipi_directory(cmdline: &[u8]) -> Result<Option<PhysAddr>, BootParamError> {
    find_address(cmdline, MK_IPI_DIRECTORY)
}

fn find_address(cmdline: &[u8], name: &str) -> Result<Option<PhysAddr>, BootParamError> {
    match Params(cmdline).filter(|(n, _)| same_name(n, name.as_bytes())).last() {
        Some((_, value)) => parse_address(value.unwrap_or(b"")).map(Some),
        None => Ok(None),
    }
}

/// The page-aligned, non-zero address that `value` gives.
pub fn parse_address(value: &[u8]) -> Result<PhysAddr, BootParamError> {
    let at = PhysAddr(parse_size(value)?);
    match at.0 {
        0 => Err(BootParamError::Zero),
        v if !at.is_page_aligned() => Err(BootParamError::Misaligned(v)),
        v if v >= PhysAddr::LIMIT => Err(BootParamError::OutOfRange(v)),
        _ => Ok(at),
    }
}

/// The number that `value` gives, with its suffix applied. `value` must contain nothing else.
pub fn parse_size(value: &[u8]) -> Result<u64, BootParamError> {
    use BootParamError::{Empty, Garbage, NotANumber, Overflow};
    let (base, digits) = match value {
        [] => return Err(Empty),
        [b'0', b'x' | b'X', rest @ ..] if rest.first().is_some_and(u8::is_ascii_hexdigit) => (16, rest),
        [b'0', ..] => (8, value),
        _ => (10, value),
    };
    let mut number = 0u64;
    let mut rest = digits;
    while let [byte, tail @ ..] = rest {
        let Some(digit) = char::from(*byte).to_digit(base) else { break };
        let shifted = number.checked_mul(u64::from(base)).ok_or(Overflow)?;
        number = shifted.checked_add(u64::from(digit)).ok_or(Overflow)?;
        rest = tail;
    }
    if rest.len() == digits.len() {
        return Err(NotANumber);
    }
    let shift = match rest.first().map(u8::to_ascii_uppercase) {
        Some(b'K') => 10,
        Some(b'M') => 20,
        Some(b'G') => 30,
        Some(b'T') => 40,
        Some(b'P') => 50,
        Some(b'E') => 60,
        _ => 0,
    };
    if let Some((_, tail)) = rest.split_first().filter(|_| shift != 0) {
        rest = tail;
    }
    if !rest.is_empty() {
        return Err(Garbage(value.len().wrapping_sub(rest.len())));
    }
    number.checked_mul(1 << shift).ok_or(Overflow)
}

/// Compares two names of parameters as Linux does: `-` and `_` are the same.
fn same_name(a: &[u8], b: &[u8]) -> bool {
    let fold = |c: &u8| if *c == b'-' { b'_' } else { *c };
    a.iter().map(fold).eq(b.iter().map(fold))
}

/// The parameters of a kernel command line. Blanks separate them, but a blank in double quotes does not. `--` and NUL end them.
struct Params<'a>(&'a [u8]);

impl<'a> Iterator for Params<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.0.iter().position(|&c| !is_blank(c)).unwrap_or(self.0.len());
        let line = self.0.get(start..)?;
        let mut quoted = false;
        let end = line.iter().position(|&c| {
            quoted ^= c == b'"';
            c == 0 || (is_blank(c) && !quoted)
        });
        let (param, rest) = line.split_at_checked(end.unwrap_or(line.len()))?;
        self.0 = if rest.first() == Some(&0) { b"" } else { rest };
        let ends = param.is_empty();
        let param = unquote(param);
        if ends || param == b"--" {
            self.0 = b"";
            return None;
        }
        Some(match param.iter().position(|&c| c == b'=').and_then(|i| param.split_at_checked(i)) {
            Some((name, value)) => (name, value.get(1..).map(unquote)),
            None => (param, None),
        })
    }
}

/// Whether Linux's `isspace` is true for `c`. Its table is for Latin-1, in which 0xa0 is the no-break space.
const fn is_blank(c: u8) -> bool {
    matches!(c, b' ' | b'\t'..=b'\r' | 0xa0)
}

fn unquote(s: &[u8]) -> &[u8] {
    match s.strip_prefix(b"\"") {
        Some(inner) => inner.strip_suffix(b"\"").unwrap_or(inner),
        None => s,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use BootParamError::*;

    #[test]
    fn every_base_and_suffix() {
        for (text, value) in [
            ("0", 0),
            ("4096", 4096),
            ("0x1000", 4096),
            ("0X1000", 4096),
            ("010000", 4096),
            ("4k", 4096),
            ("4K", 4096),
            ("0x10m", 16 << 20),
            ("010M", 8 << 20),
            ("3g", 3 << 30),
            ("3G", 3 << 30),
            ("2t", 2 << 40),
            ("2T", 2 << 40),
            ("1p", 1 << 50),
            ("1P", 1 << 50),
            ("1e", 1 << 60),
            ("1E", 1 << 60),
            ("15E", 15 << 60),
            ("0x1E", 0x1e),
            ("0x1eK", 0x1e << 10),
            ("0xffffffffffffffff", u64::MAX),
            ("18446744073709551615", u64::MAX),
            ("01777777777777777777777", u64::MAX),
        ] {
            assert_eq!(parse_size(text.as_bytes()), Ok(value), "{text}");
        }
    }

    #[test]
    fn every_bad_form() {
        for (text, error) in [
            ("", Empty),
            ("K", NotANumber),
            ("x1000", NotANumber),
            ("-4096", NotANumber),
            ("+4096", NotANumber),
            (" 4096", NotANumber),
            ("0x", Garbage(1)),
            ("0xg", Garbage(1)),
            ("08", Garbage(1)),
            ("1Mjunk", Garbage(2)),
            ("1MM", Garbage(2)),
            ("1 M", Garbage(1)),
            ("4096 ", Garbage(4)),
            ("4Kb", Garbage(2)),
            ("0x10000000000000000", Overflow),
            ("18446744073709551616", Overflow),
            ("16E", Overflow),
            ("0x4000000000000001P", Overflow),
            ("99999999999999999999999", Overflow),
        ] {
            assert_eq!(parse_size(text.as_bytes()), Err(error), "{text:?}");
        }
    }

    #[test]
    fn an_address_is_a_page_a_cpu_can_reach() {
        assert_eq!(parse_address(b"64M"), Ok(PhysAddr(64 << 20)));
        assert_eq!(parse_address(b"0xffffffffff000"), Ok(PhysAddr(0xf_ffff_ffff_f000)));
        for (text, error) in [
            ("0", Zero),
            ("0K", Zero),
            ("0x1008", Misaligned(0x1008)),
            ("1", Misaligned(1)),
            ("4P", OutOfRange(1 << 52)),
            ("0x10000000000000", OutOfRange(1 << 52)),
        ] {
            assert_eq!(parse_address(text.as_bytes()), Err(error), "{text}");
        }
        assert_eq!(Zero.errno(), Errno::EINVAL);
        assert_eq!(Overflow.errno(), Errno::ERANGE);
    }

    #[test]
    fn the_command_line_is_split_as_linux_splits_it() {
        let at = |s: &str| mk_ipi_shared(s.as_bytes());
        let found = Ok(Some(PhysAddr(0x10_0000)));
        assert_eq!(at(""), Ok(None));
        assert_eq!(at("console=ttyS0 quiet"), Ok(None));
        assert_eq!(at("mk_ipi_shared=1M"), found);
        assert_eq!(at("  a=b\tmk_ipi_shared=1M\n"), found);
        assert_eq!(at("mk-ipi-shared=1M"), found);
        assert_eq!(at("mk_ipi_shared=\"1M\""), found);
        assert_eq!(at("\"mk_ipi_shared=1M\""), found);
        assert_eq!(at("x=\"mk_ipi_shared=2M y\" mk_ipi_shared=1M"), found);
        assert_eq!(at("mk_ipi_shared=1M x=\"y mk_ipi_shared=2M\""), found);
        assert_eq!(at("mk_ipi_shared=junk mk_ipi_shared=1M"), found, "the last one counts");
        assert_eq!(at("mk_ipi_shared=1M mk_ipi_shared=junk"), Err(NotANumber));
        assert_eq!(at("mk_ipi_shared=1M -- mk_ipi_shared=2M"), found, "parameters after -- are for init");
        assert_eq!(
            at("mk_ipi_shared=1M \"--\" mk_ipi_shared=2M"),
            found,
            "a quoted -- ends the parameters too"
        );
        assert_eq!(at("--= \"\" mk_ipi_shared=1M"), found, "neither of these two ends the parameters");
        for blank in [b' ', b'\t', b'\n', 0x0b, 0x0c, b'\r', 0xa0] {
            let line = [&[blank], &b"quiet"[..], &[blank], b"mk_ipi_shared=1M", &[blank]].concat();
            assert_eq!(mk_ipi_shared(&line), found, "{blank:#x}");
        }
        for other in [0x08, 0x0e, 0x1f, 0x85] {
            assert_eq!(mk_ipi_shared(&[&[other], &b"mk_ipi_shared=1M"[..]].concat()), Ok(None), "{other:#x}");
        }
        assert_eq!(at("mk_ipi_shared=1M\0mk_ipi_shared=2M"), found, "NUL ends the line");
        assert_eq!(at("xmk_ipi_shared=1M mk_ipi_sharedx=1M mk_ipi_share=1M"), Ok(None));
        for empty in ["mk_ipi_shared", "mk_ipi_shared=", "mk_ipi_shared=\"\""] {
            assert_eq!(at(empty), Err(Empty), "{empty}");
        }
        assert_eq!(at("mk_ipi_shared=\"1M"), found, "Linux does not require the closing quote");
        assert_eq!(at("mk_ipi_shared==1M"), Err(NotANumber));
        assert_eq!(mk_ipi_directory(b"mk_ipi_shared=1M mk_ipi_directory=2M"), Ok(Some(PhysAddr(2 << 20))));
    }
}
