// SPDX-License-Identifier: MIT OR Apache-2.0
//! Error numbers, and their texts.

use core::ffi::{c_char, c_int, CStr};
use mk_ipi_core::abi::Errno;

/// Error numbers. They have the values of Linux. Calls return them negated: `-MK_IPI_EINVAL`. `mk_ipi_strerror` returns a text
/// for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum mk_ipi_error {
    /// No such CPU or address.
    MK_IPI_ENXIO = 6,
    /// Not possible now: try again.
    MK_IPI_EAGAIN = 11,
    /// Out of memory, or a table is full.
    MK_IPI_ENOMEM = 12,
    /// The kernel does not allow this memory to be mapped.
    MK_IPI_EACCES = 13,
    /// In use.
    MK_IPI_EBUSY = 16,
    /// The instance or the directory exists already.
    MK_IPI_EEXIST = 17,
    /// No region, no pool, no directory, no identity of this kernel, or no default instance of the library.
    MK_IPI_ENODEV = 19,
    /// Invalid argument.
    MK_IPI_EINVAL = 22,
    /// The lane is full.
    MK_IPI_ENOSPC = 28,
    /// A number is too large.
    MK_IPI_ERANGE = 34,
    /// The caller would wait for itself.
    MK_IPI_EDEADLK = 35,
    /// The protocol or its version is not known, or the peer broke the protocol.
    MK_IPI_EPROTO = 71,
    /// The handle, the instance or the region is not valid any more.
    MK_IPI_ESTALE = 116,
}

/// The text of an error number. Calls return only `ENXIO` to `ESTALE`.
const fn text_of(error: Errno) -> &'static CStr {
    match error {
        Errno::ENXIO => c"no such CPU or address",
        Errno::EAGAIN => c"not possible now: try again",
        Errno::ENOMEM => c"out of memory, or a table is full",
        Errno::EACCES => c"the kernel does not allow this memory to be mapped",
        Errno::EBUSY => c"in use",
        Errno::EEXIST => c"the instance or the directory exists already",
        Errno::ENODEV => c"no region, no pool, no directory, no identity, or no default instance",
        Errno::EINVAL => c"invalid argument",
        Errno::ENOSPC => c"the lane is full",
        Errno::ERANGE => c"a number is too large",
        Errno::EDEADLK => c"the caller would wait for itself",
        Errno::EPROTO => c"the protocol or its version is not known, or the peer broke the protocol",
        Errno::ESTALE => c"the handle, the instance or the region is not valid any more",
        Errno(0) => c"no error",
        _ => c"not an error number of this library",
    }
}

/// Returns the text of an error number. The number may be negated, as calls return it. 0 and numbers that no call returns have a
/// text too. The text is constant, and the result is never NULL. Context: any.
#[no_mangle]
pub extern "C" fn mk_ipi_strerror(error: c_int) -> *const c_char {
    text_of(Errno(error.checked_abs().unwrap_or(c_int::MAX))).as_ptr()
}

const _: () = {
    use mk_ipi_error as e;
    assert!(e::MK_IPI_ENXIO as c_int == Errno::ENXIO.0);
    assert!(e::MK_IPI_EAGAIN as c_int == Errno::EAGAIN.0);
    assert!(e::MK_IPI_ENOMEM as c_int == Errno::ENOMEM.0);
    assert!(e::MK_IPI_EACCES as c_int == Errno::EACCES.0);
    assert!(e::MK_IPI_EBUSY as c_int == Errno::EBUSY.0);
    assert!(e::MK_IPI_EEXIST as c_int == Errno::EEXIST.0);
    assert!(e::MK_IPI_ENODEV as c_int == Errno::ENODEV.0);
    assert!(e::MK_IPI_EINVAL as c_int == Errno::EINVAL.0);
    assert!(e::MK_IPI_ENOSPC as c_int == Errno::ENOSPC.0);
    assert!(e::MK_IPI_ERANGE as c_int == Errno::ERANGE.0);
    assert!(e::MK_IPI_EDEADLK as c_int == Errno::EDEADLK.0);
    assert!(e::MK_IPI_EPROTO as c_int == Errno::EPROTO.0);
    assert!(e::MK_IPI_ESTALE as c_int == Errno::ESTALE.0);
};
