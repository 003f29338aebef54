// SPDX-License-Identifier: MIT OR Apache-2.0
//! Error numbers, as C peers return them.

/// A Linux error number, positive (`Errno::EINVAL.0 == 22`). A C call returns it negated.
///
/// Source: `errno.h` of any LP64 Linux; the numbers are the same on x86, arm64 and riscv.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl Errno {
    /// No such device or address: the page, CPU or doorbell does not exist.
    pub const ENXIO: Self = Self(6);
    /// Not possible now. Try again.
    pub const EAGAIN: Self = Self(11);
    /// No memory left: a pool, table or queue is exhausted.
    pub const ENOMEM: Self = Self(12);
    /// Not permitted by the platform's policy.
    pub const EACCES: Self = Self(13);
    /// Slot, instance or handler in use.
    pub const EBUSY: Self = Self(16);
    /// The instance exists already.
    pub const EEXIST: Self = Self(17);
    /// The instance has no region, or no pool to make one from.
    pub const ENODEV: Self = Self(19);
    /// Invalid argument.
    pub const EINVAL: Self = Self(22);
    /// No space left in the lane.
    pub const ENOSPC: Self = Self(28);
    /// A number does not fit the field that carries it.
    pub const ERANGE: Self = Self(34);
    /// Deadlock: the call would wait until its own caller has finished.
    pub const EDEADLK: Self = Self(35);
    /// Protocol error: a layout or version that is not supported, or words of a peer that contradict the protocol.
    pub const EPROTO: Self = Self(71);
    /// The message is longer than the layout allows.
    pub const EMSGSIZE: Self = Self(90);
    /// The handle or incarnation belongs to a former life.
    pub const ESTALE: Self = Self(116);

    /// The value a C call returns: the number negated.
    pub const fn to_c(self) -> i32 {
        self.0.wrapping_neg()
    }
}
