// SPDX-License-Identifier: MIT OR Apache-2.0
//! One serial line for all kernels. It carries whole lines: `@` and a JSON object for machines, other text for people.
//!
//! A kernel that serves (serve.rs) has a line of its own, or none.

use crate::arch::{uart, without_interrupts};
use crate::machine::{self, Exit};
use crate::own;
use crate::platform::{Kernel, Role};
use crate::serve::SERVER;
use crate::{clock, control, link_log, serve};
use core::fmt::{self, Write};
use mk_ipi_core::platform::ThisCpu;
use mk_ipi_core::sync::Ordering;
use spin::Once;

/// Longest line. The rest of a longer one is cut off.
const LINE: usize = 512;
/// How long, in cycles, a writer waits for the console before it takes it from a holder that may be dead.
const PATIENCE: u64 = clock::SECOND / 2;
/// Ends a line whose writer died in it. ASCII's CAN says that what stands before it is void.
const CUT: &[u8] = b"\x18\n";

/// Where a kernel that serves prints.
#[derive(Clone, Copy, Debug)]
pub enum Own {
    /// The UART at this port.
    Port(uart::Port),
    /// The host, over the link.
    Link,
}

/// This kernel's own output, if it does not share the others' line. `None` inside: it prints nothing.
static OWN: Once<Option<Own>> = Once::new();

/// One line of output, built before the console is taken.
struct Line {
    bytes: [u8; LINE],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let room = LINE - 1 - self.len;
        let n = s.len().min(room);
        self.bytes[self.len..][..n].copy_from_slice(&s.as_bytes()[..n]);
        self.len += n;
        Ok(())
    }
}

/// Sets up the line: once, by the host, before any other kernel runs.
pub fn init() {
    uart::set_up(uart::SHARED);
}

/// From now on this kernel has a line of its own, or none.
pub fn init_own(own: Option<Own>) {
    OWN.call_once(|| own);
    if let Some(Own::Port(port)) = own {
        uart::set_up(port);
    }
}

/// Returns whether this kernel prints over the link.
pub fn is_link() -> bool {
    matches!(OWN.get(), Some(Some(Own::Link)))
}

/// Prints one line: `prefix`, then `args`.
pub fn print(prefix: fmt::Arguments, args: fmt::Arguments) {
    let mut line = Line { bytes: [0; LINE], len: 0 };
    // A `Line` never fails. If a `Display` fails, the line is short.
    let _ = line.write_fmt(prefix).and_then(|()| line.write_fmt(args));
    line.bytes[line.len] = b'\n';
    let bytes = &line.bytes[..=line.len];
    without_interrupts(|| match OWN.get() {
        None => locked(|| uart::send(uart::SHARED, bytes)),
        Some(Some(Own::Port(port))) => uart::send(*port, bytes),
        Some(Some(Own::Link)) => link_log::write(bytes),
        Some(None) => {}
    });
}

/// This kernel's number. The demo knows it before any directory is read. 255 while unknown.
pub fn me() -> u8 {
    match OWN.get() {
        None => own::kernel(),
        Some(_) => SERVER.identity().map_or(u8::MAX, |(me, _)| me.get()),
    }
}

/// The value by which CPU number `cpu` of kernel `k` says that it holds the console.
fn holder(k: usize, cpu: usize) -> u64 {
    (cpu as u64) << 32 | (k as u64 + 1)
}

/// Runs `f` while this kernel holds the console. After [`PATIENCE`] it takes the console from its holder, which has
/// then died.
fn locked(f: impl FnOnce()) {
    let lock = &control::control().console;
    let me = holder(own::kernel().into(), Kernel.index());
    let start = clock::now();
    let mut nested = false;
    while let Err(holder) = lock.compare_exchange(0, me, Ordering::Acquire) {
        // An exception came while this CPU was printing.
        nested = holder == me;
        if nested || clock::now().wrapping_sub(start) > PATIENCE {
            uart::send(uart::SHARED, CUT);
            lock.store(me, Ordering::Relaxed);
            break;
        }
        core::hint::spin_loop();
    }
    f();
    if !nested {
        let _ = lock.compare_exchange(me, 0, Ordering::Release);
    }
}

/// Releases the console if kernel `k`, which was stopped, holds it.
pub fn release_of(k: usize) {
    let lock = &control::control().console;
    // A kernel that is stopped has one CPU.
    let (dead, me) = (holder(k, 0), holder(own::kernel().into(), Kernel.index()));
    without_interrupts(|| {
        if lock.compare_exchange(dead, me, Ordering::Acquire).is_ok() {
            uart::send(uart::SHARED, CUT);
            let _ = lock.compare_exchange(me, 0, Ordering::Release);
        }
    });
}

/// Prints a log line for people: `[k1] ...`.
#[macro_export]
macro_rules! log {
    ($($arg:tt)*) => {
        $crate::console::print(format_args!("[k{}] ", $crate::console::me()), format_args!($($arg)*))
    };
}

/// Prints a record for machines: `@` and the JSON object that the arguments give.
#[macro_export]
macro_rules! record {
    ($($arg:tt)*) => { $crate::console::print(format_args!("@"), format_args!($($arg)*)) };
}

/// The inside of a JSON string: characters that must not stand there are left out or replaced.
pub struct Json<T>(pub T);

impl<T: fmt::Display> fmt::Display for Json<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Escape<'a, 'b>(&'a mut fmt::Formatter<'b>);
        impl Write for Escape<'_, '_> {
            fn write_str(&mut self, s: &str) -> fmt::Result {
                s.chars().try_for_each(|c| match c {
                    '"' | '\\' => self.0.write_char('\\').and_then(|()| self.0.write_char(c)),
                    c if c.is_control() => self.0.write_char(' '),
                    c => self.0.write_char(c),
                })
            }
        }
        write!(Escape(f), "{}", self.0)
    }
}

/// Reports that this kernel cannot go on, and ends the machine. A kernel that serves ends only itself.
pub fn fatal(args: fmt::Arguments, how: Exit) -> ! {
    record!("{{\"error\":{{\"kernel\":{},\"text\":\"{}\"}}}}", me(), Json(args));
    match Kernel.role() {
        Role::Serve => serve::give_up(how),
        Role::Demo | Role::Suite => machine::exit(how),
    }
}

/// Reports an error record and ends with [`crate::machine::Exit::Error`].
#[macro_export]
macro_rules! fatal {
    ($($arg:tt)*) => { $crate::console::fatal(format_args!($($arg)*), $crate::machine::Exit::Error) };
}
