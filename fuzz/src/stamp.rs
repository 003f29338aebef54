// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attaches a region whose stamp can have any bytes. The region must be accepted, or refused with the right error (SPEC N-1).

use arbitrary::{Arbitrary, Unstructured};
use mk_ipi_abi::native::{Geometry, KnownLayouts, Stamp, StampError, STAMP_WORDS};
use mk_ipi_abi::{Incarnation, InstanceId, MessageType, PhysAddr, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::{AddError, Endpoint, InstanceConfig, LinkConfig, Message, SendError};
use mk_ipi_mock::{Machine, MockPlatform};

type Callback = &'static (dyn Fn(&Message<'_>) + Send + Sync);
type End = Endpoint<MockPlatform, Callback, 2, 1, 4>;

const PAGES: u64 = 80;
/// The magic of the layouts MKIPI0nn, without its two digits, and the byte offset of the magic in a region.
const OTHER: (u64, u64) = (0x4d4b_4950_4930_0000, 264_232);

#[derive(Arbitrary, Debug)]
struct Input {
    lanes: u16,
    /// The number of lines, as an exponent of 2.
    lines: u8,
    max_len: u16,
    /// The length of the region in bytes, as a directory could give it.
    len: u32,
    /// The instance id of the kernel that attaches the region.
    me: u8,
    /// Whether the region is this kernel's own.
    own: bool,
    /// Whether the config gives a geometry.
    wanted: bool,
    /// The two digits of the magic of a layout MKIPI0nn, if its magic is in the region.
    other: Option<[u8; 2]>,
    patches: Vec<(u8, Patch)>,
}

#[derive(Arbitrary, Debug)]
enum Patch {
    Word(u64),
    Low(u16),
    High(u16),
    Flip(u8),
}

/// Writes a stamp, changes it as the bytes describe, and attaches the region.
pub fn stamp(data: &[u8]) {
    let Ok(input) = Input::arbitrary(&mut Unstructured::new(data)) else { return };
    let machine = Machine::builder().kernel(&[1]).memory(PAGES as usize).build();
    let start = machine.memory().start();
    let word = |at: u64| PhysAddr(start.0 + at);
    let (lanes, lines, max_len) = (input.lanes % 300, 1 << (input.lines % 14), input.max_len % 5000);
    let geometry = Geometry::new(lanes.into(), lines, max_len.into());
    let made = Stamp::new(geometry.unwrap_or(Geometry::new(2, 8, 256).unwrap()));
    let mut words: [u64; STAMP_WORDS] = zerocopy::transmute!(made);
    for (at, patch) in &input.patches {
        let word = &mut words[usize::from(*at) % STAMP_WORDS];
        *word = match *patch {
            Patch::Word(value) => value,
            Patch::Low(value) => *word & !0xffff_ffff | u64::from(value),
            Patch::High(value) => *word & 0xffff_ffff | u64::from(value) << 32,
            Patch::Flip(bit) => *word ^ 1 << (bit % 64),
        };
    }
    words.iter().zip(0..).for_each(|(value, i)| machine.poke(word(8 * i), *value));
    if let Some(digits) = input.other {
        machine.poke(word(OTHER.1), OTHER.0 | u64::from(u16::from_be_bytes(digits)));
        machine.poke(word(OTHER.1 + 8), 3);
    }
    let len = u64::from(input.len) % (PAGES * 4096 + 1);
    let Some(range) = PhysRange::new(start, len) else { return };
    let end = End::new(machine.kernel(0));
    let me = InstanceId::new(input.me);
    end.identify(me, Incarnation::FIRST);
    let config = InstanceConfig {
        id: if input.own { me } else { InstanceId::new(input.me.wrapping_add(1)) },
        incarnation: Incarnation::FIRST,
        cpus: &[PhysCpuId(1)],
        doorbell_cpu: PhysCpuId(1),
        vector: Vector::RFC_V2,
        link: LinkConfig::Native(if input.wanted { geometry } else { None }),
        one_doorbell: false,
    };
    let attached = end.attach_instance(&config, Some(range));
    match expected(&words, &input, len) {
        Err(e) => assert_eq!(attached, Err(e)),
        Ok(found) if input.wanted && geometry.is_some_and(|g| g != found) => {
            assert_eq!(attached, Err(AddError::Geometry(found)));
        }
        Ok(found) => {
            assert_eq!(attached, Ok(()));
            assert_eq!(end.instance(config.id).unwrap().region().unwrap().len(), found.total_size());
            let sent = end.send(config.id, MessageType(1), b"hello");
            if found.max_len() < 5 {
                assert_eq!(sent, Err(SendError::TooLong));
            } else {
                // The lane was never used, so the message is in its first line.
                assert_eq!(sent, Ok(1));
            }
            assert_eq!(end.run_deferred().messages, usize::from(input.own && sent.is_ok()));
            end.destroy_instance(config.id).unwrap();
        }
    }
    assert_eq!(machine.kernel(0).live_mappings(), 0);
}

/// The expected result. This code follows only the text of SPEC.md, and not the code that is tested.
fn expected(words: &[u64; STAMP_WORDS], input: &Input, len: u64) -> Result<Geometry, AddError> {
    let refused = |e| Err(AddError::Stamp(e));
    let len = len & !7;
    if len < 4096 {
        return refused(StampError::TooSmall(4096));
    }
    let (major, lanes) = (words[1] as u16, (words[1] >> 32) as u32);
    let (lines, max_len) = (words[3] as u32, (words[3] >> 32) as u32);
    if words[0].to_le_bytes() != *b"MKIPINAT" {
        let number = input.other.filter(|d| d.iter().all(u8::is_ascii_digit) && len >= OTHER.1 + 16);
        let number = number.map(|d| std::str::from_utf8(&d).unwrap().parse().unwrap());
        return refused(match number {
            Some(number) => StampError::Mkipi0nn { number, version: 3 },
            None => StampError::NoStamp { found: words[0], known: KnownLayouts::of_size(len) },
        });
    }
    if major != 2 {
        let stamp: Stamp = zerocopy::transmute!(*words);
        return refused(StampError::Version(stamp.version));
    }
    let (most, long) = (u64::from(lines), u64::from(max_len));
    let fits = (1..=4096).contains(&long) && long.saturating_sub(48).div_ceil(56) < most;
    if lanes == 0 || lanes > 256 || !(8..=4096).contains(&lines) || lines & (lines - 1) != 0 || !fits {
        return refused(StampError::Geometry { lanes, lines, max_len });
    }
    let pages = |bytes: u64| bytes.div_ceil(4096) * 4096;
    let l = u64::from(lanes);
    let total = pages(256 + 128 * l) + l * pages(256 + 64 * most);
    if words[2] != total {
        return refused(StampError::Size(words[2]));
    }
    if total > len {
        return refused(StampError::TooSmall(total));
    }
    if u32::from(input.me) >= lanes {
        return Err(AddError::NoLane(InstanceId::new(input.me)));
    }
    Ok(Geometry::new(lanes, lines, max_len).unwrap())
}
