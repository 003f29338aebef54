// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compare and exchange for a kernel with one CPU: `cmpxchg` without the LOCK prefix. Such a kernel does not need the prefix,
//! and the instruction is faster without it.

use mk_ipi_core::sync::AtomicU64;

/// Writes `new` to `word` if the value of `word` is `current`. Returns whether the value was `current`.
///
/// The call is atomic with respect to interrupts and NMIs of the CPU that runs it, but not with respect to other CPUs: without
/// LOCK, another CPU can access the word between the read and the write. But the read and the write are one instruction (Intel
/// SDM vol. 2A, "CMPXCHG"), and a CPU takes interrupts only between instructions (vol. 3A, 6.6, "Program or Task Restart").
/// Other memory accesses are not ordered by the call (as with `Ordering::Relaxed`).
///
/// On other architectures, and under Miri and loom, this function is the ordinary atomic compare and exchange.
///
/// # The caller's duty
///
/// Only one CPU may write the word. Other CPUs may read it. The instruction writes in every case: if the value is not `current`,
/// it writes the value that it has read. So a write of another CPU between this read and this write would be lost.
#[inline]
pub fn compare_exchange_alone(word: &AtomicU64, current: u64, new: u64) -> bool {
    exchange(word, current, new)
}

#[cfg(all(target_arch = "x86_64", not(miri), not(loom)))]
#[inline(always)]
fn exchange(word: &AtomicU64, current: u64, new: u64) -> bool {
    let found: u64;
    // SAFETY: the pointer comes from a reference to an `AtomicU64`, so the word is valid, aligned, and may be written. The
    // instruction does a relaxed load and a relaxed store of that word, and nothing else. The options do not contain `nomem` and
    // `pure`, so the compiler does not remove the instruction, and does not move other memory accesses across it. The
    // instruction changes RAX, which is an operand, and the flags: the options do not contain `preserves_flags`. It uses no
    // stack.
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
        // All 64 bits are compared: a difference in only one half of the word counts too.
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
                    assert!(seen >= last && seen <= 1000, "the reader saw {seen} after {last}");
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
