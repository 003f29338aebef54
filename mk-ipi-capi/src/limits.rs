// SPDX-License-Identifier: MIT OR Apache-2.0
//! Limits of the library. They are set at build time, by environment variables of these names.
//!
//! The header has macros of the same names. A program must define them to the same values, unless they are the default ones.

/// Most CPUs of this kernel, 1 to 4096: `this_cpu_index` is below it. CPUs of other kernels need no room.
pub const MK_IPI_MAX_CPUS: usize = limit(option_env!("MK_IPI_MAX_CPUS"), 64, 4096);
/// Most handlers that can be registered at a time, 1 to 128.
pub const MK_IPI_MAX_HANDLERS: usize = limit(option_env!("MK_IPI_MAX_HANDLERS"), 64, 128);
/// Messages that one run of the deferred work handles at most; on RFC v2 also those that can wait for it on a
/// CPU. A power of two, 1 to 1024.
pub const MK_IPI_QUEUE: usize = limit(option_env!("MK_IPI_QUEUE"), 16, 1024);
/// Number of instances, 1 to 256. Ids of instances in the table are below it.
pub const MK_IPI_MAX_INSTANCES: usize = limit(option_env!("MK_IPI_MAX_INSTANCES"), 256, 256);
/// Bytes of `struct mk_ipi`.
pub const MK_IPI_SIZE: usize = size(MK_IPI_MAX_CPUS, MK_IPI_MAX_HANDLERS, MK_IPI_QUEUE, MK_IPI_MAX_INSTANCES);

/// Bytes of `struct mk_ipi` that do not depend on the limits.
pub const FIXED: usize = 5376;
/// Bytes for each CPU, without its queue. The sum of both is rounded up to 128.
pub const PER_CPU: usize = 232;
/// Bytes for each message that can wait on a CPU.
pub const PER_QUEUED: usize = 280;
/// Bytes for each CPU's last error.
pub const PER_ERROR: usize = 4;
/// Bytes for each handler.
pub const PER_HANDLER: usize = 44;
/// Bytes for each instance.
pub const PER_INSTANCE: usize = 617;

const _: () = assert!(MK_IPI_QUEUE.is_power_of_two(), "MK_IPI_QUEUE is not a power of two");

const _: () =
    assert!(limit(None, 7, 9) == 7 && limit(Some("1"), 7, 9) == 1 && limit(Some("0256"), 7, 256) == 256);

/// Bytes of `struct mk_ipi` with these limits; the header computes the same number. It is an upper bound, as `instance` asserts.
#[expect(clippy::arithmetic_side_effects, reason = "of limits, while it is compiled")]
pub const fn size(cpus: usize, handlers: usize, queue: usize, instances: usize) -> usize {
    let cpu = (PER_CPU + PER_QUEUED * queue).next_multiple_of(128);
    (FIXED + (cpu + PER_ERROR) * cpus + PER_HANDLER * handlers + PER_INSTANCE * instances)
        .next_multiple_of(128)
}

/// The number from the environment variable, from 1 to `most`.
#[expect(clippy::arithmetic_side_effects, reason = "of seven digits at most, while it is compiled")]
const fn limit(chosen: Option<&str>, usual: usize, most: usize) -> usize {
    let Some(text) = chosen else { return usual };
    let (mut rest, mut n) = (text.as_bytes(), 0usize);
    assert!(!rest.is_empty() && rest.len() < 8, "a limit in the environment is no number");
    while let Some((digit, further)) = rest.split_first() {
        assert!(digit.is_ascii_digit(), "a limit in the environment is no number");
        n = n * 10 + (*digit - b'0') as usize;
        rest = further;
    }
    assert!(n >= 1 && n <= most, "a limit in the environment is 0, or above its maximum");
    n
}
