// SPDX-License-Identifier: MIT OR Apache-2.0
//! mk-ipi for kernels written in C: a static library and one header, `include/mk_ipi.h`, which cbindgen makes
//! from this crate.
//!
//! Two sets of calls. Those of [`compat`] have the names, signatures and results of the Linux patch
//! "Introduce generic multikernel IPI communication framework" and work on one instance of the library, the
//! default one. All others begin with `mk_ipi_`, name the instance, and report every failure as an
//! error.
//!
//! The calls here only check their arguments, call [`mk_ipi_core`], and turn errors into negated
//! error numbers. There is no allocation and no panic.
#![no_std]
#![expect(non_camel_case_types, reason = "the names of the C header")]

// Tests are built with unwinding, and then link std for its panic handler. A library for C is built with `panic = "abort"`.
#[cfg(panic = "unwind")]
extern crate std;

mod args;
mod callback;
pub mod compat;
pub mod directory;
mod early;
pub mod error;
pub mod follow;
pub mod handlers;
pub mod instance;
mod kept;
pub mod life;
pub mod limits;
pub mod native;
pub mod ops;
pub mod pages;
pub mod poller;
pub mod reason;
pub mod receive;
pub mod send;
pub mod start;
pub mod types;

/// Never called, because no call of this library panics. The compiler requires it nevertheless.
#[cfg(panic = "abort")]
#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
