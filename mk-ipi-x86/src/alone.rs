// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compare and exchange for a kernel with one CPU: `cmpxchg` without the LOCK prefix, which such a kernel need not pay for.

use mk_ipi_core::sync::AtomicU64;

/// Writes `new` if the word is `current`, and returns whether it did. Atomic against the interrupts and NMIs of the CPU
/// that runs it, not against another CPU. No order is promised (relaxed).
///
/// Without LOCK the instruction is not atomic among CPUs. But it is one instruction (Intel SDM vol. 2A, "CMPXCHG"), and
/// a CPU takes interrupts only between instructions (vol. 3A, 6.6, "Program or Task Restart").
///
/// # The caller's duty
///
/// Only one CPU ever writes the word. Others may read it. The instruction writes even if it finds another value: it
/// then writes back what it read. So a write by another CPU in between would be lost.
///
/// On other processors, and under Miri and loom, it is the ordinary compare and exchange.
#[inline]
pub fn compare_exchange_alone(word: &AtomicU64, current: u64, new: u64) -> bool {
    exchange(word, current, new)
}

#[cfg(all(target_arch = "x86_64", not(miri), not(loom)))]
#[inline(always)]
fn exchange(word: &AtomicU64, current: u64, new: u64) -> bool {
    let found: u64;
    // SAFETY: the pointer comes from a live, aligned word, which may be written through a shared reference. The
    // instruction does no more than a relaxed load and a relaxed store of that word. Without `nomem` and `pure` the
    // compiler keeps it in its place. It changes RAX, which is an operand, and the flags, which no option says to be
    // preserved. It uses no stack.
    unsafe {
        core::arch::asm!(
            "cmpxchg qword ptr [{word}], {new}",
            word = in(reg) word.as_ptr(),
            new = in(reg) new,
            inout("rax") current => found,
            options(nostack),
        );
    }
    found == current
}

#[cfg(not(all(target_arch = "x86_64", not(miri), not(loom))))]
#[inline(always)]
fn exchange(word: &AtomicU64, current: u64, new: u64) -> bool {
    word.compare_exchange(current, new, mk_ipi_core::sync::Ordering::Relaxed).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mk_ipi_core::sync::Ordering::Relaxed;

    #[test]
    fn the_value_expected_is_replaced() {
        for (current, new) in [(0, 1), (1, 0), (7, 7), (u64::MAX, 1 << 63), (1 << 32, 1)] {
            let word = AtomicU64::new(current);
            assert!(compare_exchange_alone(&word, current, new));
            assert_eq!(word.load(Relaxed), new);
        }
    }

    #[test]
    fn any_other_value_stays() {
        // A difference in one half alone counts, too: all 64 bits are compared.
        for (held, current) in
            [(0, 1), (1, 0), (1 << 32, 0), (1 << 32 | 5, 5), (5, 1 << 32 | 5), (0, u64::MAX)]
        {
            let word = AtomicU64::new(held);
            assert!(!compare_exchange_alone(&word, current, 9));
            assert_eq!(word.load(Relaxed), held);
        }
    }

    #[test]
    fn only_the_word_itself_changes() {
        let words = [AtomicU64::new(1), AtomicU64::new(2), AtomicU64::new(3)];
        assert!(compare_exchange_alone(&words[1], 2, u64::MAX));
        assert_eq!(words.each_ref().map(|word| word.load(Relaxed)), [1, u64::MAX, 3]);
    }

    #[test]
    fn a_loop_of_exchanges_counts() {
        let word = AtomicU64::new(0);
        for _ in 0..1000 {
            let mut seen = word.load(Relaxed);
            while !compare_exchange_alone(&word, seen, seen + 1) {
                seen = word.load(Relaxed);
            }
        }
        assert_eq!(word.load(Relaxed), 1000);
    }

    #[test]
    fn other_cpus_may_read_and_see_each_value_in_turn() {
        let word = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut last = 0;
                while last < 1000 {
                    let seen = word.load(Relaxed);
                    assert!(seen >= last && seen <= 1000, "{seen} after {last}");
                    last = seen;
                    mk_ipi_core::sync::spin_hint();
                }
            });
            for n in 0..1000 {
                assert!(compare_exchange_alone(&word, n, n + 1));
                assert!(!compare_exchange_alone(&word, n, 0));
            }
            reader.join().unwrap();
        });
    }
}
