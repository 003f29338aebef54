// SPDX-License-Identifier: MIT OR Apache-2.0
//! Limits of the library. Environment variables with the names of the constants set them when the library is built.
//!
//! The header has macros of the same names. If a limit is not the default, a program must define its macro to the same value.

/// Largest number of CPUs of this kernel, 1 to 4096. The operation `this_cpu_index` returns indexes below this limit. CPUs of
/// other kernels do not count.
pub const MK_IPI_MAX_CPUS: usize = limit(option_env!("MK_IPI_MAX_CPUS"), 64, 4096);
/// Largest number of handlers that can be registered at the same time, 1 to 128.
pub const MK_IPI_MAX_HANDLERS: usize = limit(option_env!("MK_IPI_MAX_HANDLERS"), 64, 128);
/// Largest number of messages that one run of the deferred work handles. On RFC v2 it is also the largest number of messages that
/// can wait for the deferred work on one CPU. A power of two, 1 to 1024.
pub const MK_IPI_QUEUE: usize = limit(option_env!("MK_IPI_QUEUE"), 16, 1024);
/// Number of places in the table of instances, 1 to 256. The table can hold instances whose ids are below this number.
pub const MK_IPI_MAX_INSTANCES: usize = limit(option_env!("MK_IPI_MAX_INSTANCES"), 256, 256);
/// Bytes of `struct mk_ipi`.
pub const MK_IPI_SIZE: usize = size(MK_IPI_MAX_CPUS, MK_IPI_MAX_HANDLERS, MK_IPI_QUEUE, MK_IPI_MAX_INSTANCES);

/// Bytes of `struct mk_ipi` that do not depend on the limits.
pub const FIXED: usize = 5376;
/// Bytes for each CPU, without its queue. The bytes of a CPU with its queue are rounded up to a multiple of 128.
pub const PER_CPU: usize = 232;
/// Bytes for each message in the queue of a CPU.
pub const PER_QUEUED: usize = 280;
/// Bytes for the last error of each CPU.
pub const PER_ERROR: usize = 4;
/// Bytes for each handler.
pub const PER_HANDLER: usize = 44;
/// Bytes for each instance.
pub const PER_INSTANCE: usize = 617;

const _: () = assert!(MK_IPI_QUEUE.is_power_of_two(), "MK_IPI_QUEUE is not a power of two");

const _: () =
    assert!(limit(None, 7, 9) == 7 && limit(Some("1"), 7, 9) == 1 && limit(Some("0256"), 7, 256) == 256);

/// Bytes of `struct mk_ipi` with these limits. The header computes the same number. The module `instance` asserts that it is
/// large enough.
#[expect(clippy::arithmetic_side_effects, reason = "with limits only, at compile time")]
pub const fn size(cpus: usize, handlers: usize, queue: usize, instances: usize) -> usize {
    let cpu = (PER_CPU + PER_QUEUED * queue).next_multiple_of(128);
    (FIXED + (cpu + PER_ERROR) * cpus + PER_HANDLER * handlers + PER_INSTANCE * instances)
        .next_multiple_of(128)
}

/// The number in the text `chosen` of an environment variable: 1 to `most`. `usual` if the variable is not set.
#[expect(clippy::arithmetic_side_effects, reason = "with seven digits at most, at compile time")]
const fn limit(chosen: Option<&str>, usual: usize, most: usize) -> usize {
    let Some(text) = chosen else { return usual };
    let (mut rest, mut n) = (text.as_bytes(), 0usize);
    assert!(!rest.is_empty() && rest.len() < 8, "a limit in the environment has no digits, or more than 7");
    while let Some((digit, further)) = rest.split_first() {
        assert!(digit.is_ascii_digit(), "a limit in the environment has a character that is not a digit");
        n = n * 10 + (*digit - b'0') as usize;
        rest = further;
    }
    assert!(n >= 1 && n <= most, "a limit in the environment is 0, or is above its maximum");
    n
}
