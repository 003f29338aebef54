// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls every public function of mk-ipi, mk-ipi-abi, -core, -net, -x86, -arm64, -riscv, -services and -spawn. The compiler
//! cannot know anything about the arguments. This image is linked, and never run. The linker removes only code that no call can
//! reach. So if the image contains no panic symbol, none of these functions can panic.
//!
//! A library (rlib) would not be enough: it does not contain generic and inlined functions. So each generic function is
//! instantiated here, and trait implementations that have code of their own are called too. `cargo xtask test --only no-panic`
//! links this image for each architecture, at two levels of optimisation. It fails if a public function is not named here.
//!
//! Some functions are not called here, because no function of the crates calls them, and their code is not part of the crates.
//! These are `Debug` and `Display`, whose code is formatting code of the core library; the iterators over flags, in which
//! bitflags adds with an overflow check; and operations on atomics with an `Ordering` that is not allowed for the operation,
//! where the core library panics. All callers pass a constant `Ordering` that is allowed, and so do the calls here.
#![no_std]
#![no_main]

mod abi;
mod arm64;
mod endpoint;
mod front;
mod native;
mod net;
mod opaque;
mod riscv;
mod services;
mod spawn;
mod sync;
#[cfg(target_arch = "x86_64")]
mod x86;

#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}

/// The entry of the image. The linker keeps everything that it calls.
#[no_mangle]
extern "C" fn _start() -> ! {
    abi::call_all();
    sync::call_all();
    native::call_all();
    endpoint::call_all();
    front::call_all();
    net::call_all();
    arm64::call_all();
    riscv::call_all();
    #[cfg(target_arch = "x86_64")]
    x86::call_all();
    services::call_all();
    spawn::call_all();
    #[cfg(feature = "planted-panic")]
    opaque::sink(mk_ipi_abi::PAGE_SIZE / opaque::any::<u64>());
    loop {
        core::hint::spin_loop();
    }
}
