// SPDX-License-Identifier: MIT OR Apache-2.0
//! Decodes instructions of riscv64. The doorbell is a call of SBI that sends an interrupt. Before it there must be `fence w, o`
//! (SPEC RV-3). The encodings are from the RISC-V instruction set manual, volume 1, "RV32/64G Instruction Set Listings" and "RVC
//! Instruction Set Listings".

use anyhow::{bail, Result};

use super::barriers::{Instruction, What};

/// `fence w, o`.
const FENCE_W_O: u32 = 0x0140_000f;
/// `ecall`.
const ECALL: u32 = 0x73;
/// The number of SBI's extension that sends interrupts: `sPI`.
const IPI: i64 = 0x73_5049;
/// The register that has the number of the extension in a call of SBI.
const A7: u32 = 17;

/// Decodes all instructions in `code`. The first one is at `address`. It is an error if the code does not load the number of the
/// extension right before a call of SBI.
pub fn decode(code: &[u8], address: u64) -> Result<Vec<Instruction>> {
    let (mut all, mut rest, mut at) = (Vec::new(), code, address);
    // The value of A7, if the last instructions have loaded a constant into it.
    let mut a7 = None;
    while let [low, high, ..] = *rest {
        let half = u32::from(u16::from_le_bytes([low, high]));
        // The low two bits say whether an instruction has two bytes or four.
        let (word, len) = match *rest {
            [_, _, third, fourth, ..] if half & 3 == 3 => {
                (half | u32::from(u16::from_le_bytes([third, fourth])) << 16, 4)
            }
            _ => (half, 2),
        };
        let what = match (word, a7) {
            (FENCE_W_O, _) => What::Barrier,
            (ECALL, Some(IPI)) => What::Doorbell,
            (ECALL, Some(_)) => What::Jump { target: None },
            (ECALL, None) => bail!("the code does not show which SBI extension the call at {at:#x} uses"),
            _ if len == 4 => of_four(at, word),
            _ => of_two(at, word),
        };
        a7 = constant(word, len, a7);
        all.push((at, what));
        (rest, at) = (rest.get(len..).unwrap_or_default(), at.wrapping_add(len as u64));
    }
    Ok(all)
}

/// The value of A7 after an instruction, if this instruction loads a constant into A7 or adds one to it. `None` after any other
/// instruction. `len` is the length of the instruction in bytes, and `a7` is the value before it.
fn constant(word: u32, len: usize, a7: Option<i64>) -> Option<i64> {
    let (rd, rs1) = (word >> 7 & 31, word >> 15 & 31);
    let low = i64::from(word as i32 >> 20);
    // The six bits of a compressed immediate.
    let six = i64::from(((word >> 7 & 0x20 | word >> 2 & 0x1f) << 26) as i32 >> 26);
    if rd != A7 {
        return None;
    }
    match (len, word & 0x7f, word >> 12 & 7) {
        // LUI.
        (4, 0x37, _) => Some(i64::from((word & 0xffff_f000) as i32)),
        // ADDI and ADDIW.
        (4, 0x13 | 0x1b, 0) if rs1 == A7 => a7.map(|a7| a7.wrapping_add(low)),
        (4, 0x13, 0) if rs1 == 0 => Some(low),
        // C.LI, C.LUI, C.ADDI and C.ADDIW.
        (2, _, _) if word & 3 == 1 => match word >> 13 {
            0b010 => Some(six),
            0b011 => Some(six << 12),
            0b000 | 0b001 => a7.map(|a7| a7.wrapping_add(six)),
            _ => None,
        },
        _ => None,
    }
}

/// Returns how often a load or a store comes directly after `fence w, o`, as in the doorbell of an IMSIC, which is a store. Such
/// a doorbell without its fence looks like any other store, so it is not found.
pub fn fenced_stores(all: &[Instruction]) -> usize {
    let is = |pair: &&[Instruction]| matches!(pair, [(_, What::Barrier), (_, What::Memory)]);
    all.windows(2).filter(is).count()
}

/// The class of an instruction with four bytes.
fn of_four(at: u64, word: u32) -> What {
    // Takes `count` bits of `word`, from bit `from` on, and shifts them so that they begin at bit `to`.
    let part = |from: u32, count: u32, to: u32| (word >> from & ((1 << count) - 1)) << to;
    let jump = |by: u32, bits: u32| What::Jump { target: Some(at.wrapping_add_signed(signed(by, bits))) };
    match word & 0x7f {
        // LOAD, LOAD-FP, STORE, STORE-FP, AMO.
        0x03 | 0x07 | 0x23 | 0x27 | 0x2f => What::Memory,
        // BRANCH.
        0x63 => jump(part(31, 1, 12) | part(7, 1, 11) | part(25, 6, 5) | part(8, 4, 1), 13),
        // JAL.
        0x6f => jump(part(31, 1, 20) | part(12, 8, 12) | part(20, 1, 11) | part(21, 10, 1), 21),
        // JALR.
        0x67 => What::Jump { target: None },
        _ => What::Other,
    }
}

/// The class of an instruction with two bytes.
fn of_two(at: u64, word: u32) -> What {
    let part = |from: u32, count: u32, to: u32| (word >> from & ((1 << count) - 1)) << to;
    let jump = |by: u32, bits: u32| What::Jump { target: Some(at.wrapping_add_signed(signed(by, bits))) };
    match (word & 3, word >> 13) {
        // C.J.
        (1, 0b101) => jump(
            part(12, 1, 11)
                | part(11, 1, 4)
                | part(9, 2, 8)
                | part(8, 1, 10)
                | part(7, 1, 6)
                | part(6, 1, 7)
                | part(3, 3, 1)
                | part(2, 1, 5),
            12,
        ),
        // C.BEQZ, C.BNEZ.
        (1, 0b110 | 0b111) => {
            jump(part(12, 1, 8) | part(10, 2, 3) | part(5, 2, 6) | part(3, 2, 1) | part(2, 1, 5), 9)
        }
        // All instructions with 0 in the low two bits, except C.ADDI4SPN, are loads and stores.
        (0, 1..) => What::Memory,
        // C.JR, C.JALR and C.EBREAK. If the bits 6:2 are not 0, it is C.MV or C.ADD.
        (2, 0b100) if part(2, 5, 0) == 0 => What::Jump { target: None },
        // Loads and stores relative to the stack pointer. The remaining code, 0, is C.SLLI.
        (2, 0b001..=0b011 | 0b101..) => What::Memory,
        _ => What::Other,
    }
}

/// Sign-extends a number that has `bits` bits.
fn signed(value: u32, bits: u32) -> i64 {
    i64::from((value << (32 - bits)) as i32 >> (32 - bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FENCE: &[u8] = &[0x0f, 0x00, 0x40, 0x01];
    const LI_IPI: &[u8] = &[0xb7, 0x58, 0x73, 0x00, 0x93, 0x88, 0x98, 0x04];
    const LI_BASE: &[u8] = &[0xc1, 0x48];
    const CALL: &[u8] = &[0x73, 0, 0, 0];

    fn whats(code: &[&[u8]]) -> Option<Vec<What>> {
        let all = decode(&code.concat(), 0x1000).ok()?;
        Some(all.into_iter().map(|(_, what)| what).collect())
    }

    #[test]
    fn calls_are_told_apart_by_the_extension_loaded_right_before() {
        use What::{Barrier, Doorbell, Other};
        assert_eq!(whats(&[FENCE, LI_IPI, CALL]).as_deref(), Some(&[Barrier, Other, Other, Doorbell][..]));
        assert_eq!(whats(&[LI_BASE, CALL]).as_deref(), Some(&[Other, What::Jump { target: None }][..]));
        // `mv a7, s1` before the call; no instruction before the call; an instruction for another register just before the call.
        for code in [&[&[0xa6, 0x88][..], CALL][..], &[CALL], &[LI_IPI, &[0x05, 0x45], CALL]] {
            assert_eq!(whats(code), None, "{code:x?}");
        }
    }

    #[test]
    fn a_store_behind_its_fence_is_counted() {
        let stores = |code: &[&[u8]]| decode(&code.concat(), 0).ok().map(|all| fenced_stores(&all));
        // sw a0, 0(a1).
        const SW: &[u8] = &[0x23, 0xa0, 0xa5, 0x00];
        assert_eq!(stores(&[FENCE, SW, SW]), Some(1));
        assert_eq!(stores(&[SW, FENCE, LI_BASE, SW]), Some(0));
    }

    #[test]
    fn instructions_as_an_assembler_writes_them() {
        let jump = |target| What::Jump { target: Some(target) };
        for (code, expected) in [
            (&[0x0f, 0x00, 0x30, 0x03][..], What::Other), // fence rw, rw
            (&[0x83, 0x36, 0x04, 0xc2], What::Memory),    // ld a3, -992(s0)
            (&[0x23, 0x30, 0xa4, 0x00], What::Memory),    // sd a0, 0(s0)
            (&[0x2f, 0xb5, 0x05, 0x10], What::Memory),    // lr.d a0, (a1)
            (&[0x07, 0xb5, 0x05, 0x00], What::Memory),    // fld fa0, 0(a1)
            (&[0x08, 0x61], What::Memory),                // ld a0, 0(a0)
            (&[0x2a, 0xe8], What::Memory),                // sd a0, 16(sp)
            (&[0xa6, 0x60], What::Memory),                // ld ra, 72(sp)
            (&[0x28, 0x00], What::Other),                 // addi a0, sp, 8
            (&[0x05, 0x45], What::Other),                 // li a0, 1
            (&[0x2e, 0x85], What::Other),                 // mv a0, a1
            (&[0x0e, 0x05], What::Other),                 // slli a0, a0, 3
            (&[0x82, 0x80], What::Jump { target: None }), // ret
            (&[0xe7, 0x80, 0x00, 0x00], What::Jump { target: None }), // jalr ra
            (&[0x6f, 0xf0, 0xdf, 0xff], jump(0xffc)),     // j .-4
            (&[0xef, 0x00, 0x00, 0x01], jump(0x1010)),    // jal .+16
            (&[0x63, 0x04, 0x05, 0x00], jump(0x1008)),    // beqz a0, .+8
            (&[0xe3, 0x0e, 0x05, 0xfe], jump(0xffc)),     // beqz a0, .-4
            (&[0x29, 0xa0], jump(0x100a)),                // c.j .+10
            (&[0xf5, 0xbf], jump(0xffc)),                 // c.j .-4
            (&[0x11, 0xc1], jump(0x1004)),                // c.beqz a0, .+4
            (&[0x75, 0xfd], jump(0xffc)),                 // c.bnez a0, .-4
        ] {
            assert_eq!(whats(&[code]), Some(vec![expected]), "{code:x?}");
        }
    }
}
