// SPDX-License-Identifier: MIT OR Apache-2.0
//! Decodes instructions of arm64. The doorbell is a write of `ICC_SGI1R_EL1`. Before it there must be `dsb ishst`, and after it
//! `isb` (SPEC AR-3). The encodings are from the Arm ARM, "A64 Instruction Set Encoding".

use super::barriers::{Instruction, What};

/// `dsb ishst`.
const DSB_ISHST: u32 = 0xd503_3a9f;
/// `isb`.
const ISB: u32 = 0xd503_3fdf;
/// `msr S3_0_C12_C11_5, x0`; the register is in the low five bits.
const MSR_SGI1R: u32 = 0xd518_cba0;

/// Decodes all instructions in `code`. The first one is at `address`.
pub fn decode(code: &[u8], address: u64) -> Vec<Instruction> {
    let words = code.chunks_exact(4).map(|c| c.iter().rev().fold(0, |word, b| word << 8 | u32::from(*b)));
    (address..).step_by(4).zip(words).map(|(at, word)| (at, what(at, word))).collect()
}

/// The class of the instruction `word` at the address `at`.
fn what(at: u64, word: u32) -> What {
    // Bits 28:25 tell the group of an instruction.
    match word {
        DSB_ISHST => What::Barrier,
        ISB => What::Behind,
        _ if word & !0x1f == MSR_SGI1R => What::Doorbell,
        // Loads and stores.
        _ if word & 0x0a00_0000 == 0x0800_0000 => What::Memory,
        // The group of branches, exceptions and system instructions. System instructions have 0xd5 in the high byte.
        _ if word & 0x1c00_0000 == 0x1400_0000 && word >> 24 != 0xd5 => {
            What::Jump { target: offset(word).map(|by| at.wrapping_add_signed(by)) }
        }
        _ => What::Other,
    }
}

/// The offset of a branch in bytes; `None` if it is not in the instruction.
fn offset(word: u32) -> Option<i64> {
    let field = |low: u32, bits: u32| i64::from((word << (32 - low - bits)) as i32 >> (32 - bits)) * 4;
    match word >> 24 {
        // B and BL.
        0x14..=0x17 | 0x94..=0x97 => Some(field(0, 26)),
        // B.cond, CBZ, CBNZ.
        0x54 | 0x34 | 0x35 | 0xb4 | 0xb5 => Some(field(5, 19)),
        // TBZ, TBNZ.
        0x36 | 0x37 | 0xb6 | 0xb7 => Some(field(5, 14)),
        // The target is in a register, or the instruction causes an exception.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_as_an_assembler_writes_them() {
        for (word, expected) in [
            (0xd503_3a9f, What::Barrier),
            (0xd503_3f9f, What::Other), // dsb sy
            (0xd503_3b9f, What::Other), // dsb ish
            (0xd503_3fdf, What::Behind),
            (0xd518_cba0, What::Doorbell),
            (0xd518_cba9, What::Doorbell),
            (0xd518_cc20, What::Other),  // msr ICC_EOIR1_EL1, x0
            (0xf940_07e8, What::Memory), // ldr x8, [sp, #8]
            (0xa900_07e0, What::Memory), // stp x0, x1, [sp]
            (0x3900_0020, What::Memory), // strb w0, [x1]
            (0xc85f_fc41, What::Memory), // ldaxr x1, [x2]
            (0x9100_d3e0, What::Other),  // add x0, sp, #52
            (0x2a13_03e2, What::Other),  // mov w2, w19
            (0xd2a0_0021, What::Other),  // mov x1, #0x10000
            (0x1400_0004, What::Jump { target: Some(0x1010) }), // b .+16
            (0x97ff_ffff, What::Jump { target: Some(0xffc) }), // bl .-4
            (0x5400_00c1, What::Jump { target: Some(0x1018) }), // b.ne .+24
            (0xb4ff_ffe0, What::Jump { target: Some(0xffc) }), // cbz x0, .-4
            (0x3600_0040, What::Jump { target: Some(0x1008) }), // tbz w0, #0, .+8
            (0xd65f_03c0, What::Jump { target: None }), // ret
            (0xd400_0002, What::Jump { target: None }), // hvc #0
        ] {
            assert_eq!(what(0x1000, word), expected, "{word:#x}");
        }
        let code = [0x9f, 0x3a, 0x03, 0xd5, 0xa0, 0xcb, 0x18, 0xd5];
        assert_eq!(decode(&code, 0x1000), [(0x1000, What::Barrier), (0x1004, What::Doorbell)]);
    }
}
