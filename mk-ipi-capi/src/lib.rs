// SPDX-License-Identifier: MIT OR Apache-2.0
//! mk-ipi for kernels written in C: a static library, and one header, `include/mk_ipi.h`. cbindgen makes the header from
//! this crate.
//!
//! There are two sets of calls. Those of [`compat`] have the names, signatures and results of the Linux patch
//! "Introduce generic multikernel IPI communication framework". They use one instance of the library, the
//! default one. The names of all other calls begin with `mk_ipi_`. They take the instance of the library as an argument,
//! and report every failure as an error.
//!
//! The calls check their arguments, call [`mk_ipi_core`], and turn errors into negated error numbers. They allocate nothing
//! and never panic.
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

/// The compiler requires a panic handler. It is never called, because no call of this library panics.
#[cfg(panic = "abort")]
#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
