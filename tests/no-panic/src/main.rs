// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls every public function of mk-ipi, mk-ipi-abi, -core, -x86, -arm64, -riscv, -services and -spawn with inputs of which the compiler knows nothing, and is
//! linked, not run. If the image holds no panic symbol, none of these functions can panic: what can be reached stays
//! in the image, and only what cannot is dropped by the linker.
//!
//! An rlib proves nothing: generic and inlined functions are not in it. So each generic one is instantiated here, and
//! trait implementations with code of their own are called as well. `cargo xtask test --only no-panic` links this image at
//! two levels of optimisation and fails if a public function is not named here; for each architecture, with its
//! own instructions.
//!
//! Left out, as code of others that no call of the crates uses: `Debug` and `Display`, which are core's formatting; the
//! iterators over flags, where bitflags counts with an overflow check; atomics with an `Ordering` that does not exist
//! for the operation, where core panics: all callers name a constant, and so do the calls here.
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

/// The image's entry, so that the linker keeps what it calls.
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
