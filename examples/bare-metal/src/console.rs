// SPDX-License-Identifier: MIT OR Apache-2.0
//! Output of text. All kernels share one serial line, and a lock keeps their lines of text apart. A line that begins with `@`
//! contains a JSON object, which xtask reads. Other lines are for people.
//!
//! A kernel that serves (serve.rs) has its own serial line, or prints over the link, or prints nothing.

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

/// The longest line, in bytes. The rest of a longer line is cut off.
const LINE: usize = 512;
/// How long a kernel waits for the console's lock, in units of the clock. After this time it assumes that the holder died,
/// and takes the lock.
const PATIENCE: u64 = clock::SECOND / 2;
/// Ends an unfinished line, whose writer died. The character CAN of ASCII tells xtask to ignore the line.
const CUT: &[u8] = b"\x18\n";

/// Where a kernel that serves prints.
#[derive(Clone, Copy, Debug)]
pub enum Own {
    /// The UART at this port.
    Port(uart::Port),
    /// The host, over the link.
    Link,
}

/// Where this kernel prints, if it does not share the line of the other kernels. The inner `None` means that it prints nothing.
static OWN: Once<Option<Own>> = Once::new();

/// One line of output. It is complete before the console's lock is taken.
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

/// Sets up the shared serial line. The host calls this once, before another kernel runs.
pub fn init() {
    uart::set_up(uart::SHARED);
}

/// Makes this kernel print to `own` from now on, or print nothing if `own` is `None`.
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

/// Prints one line: `prefix` followed by `args`.
pub fn print(prefix: fmt::Arguments, args: fmt::Arguments) {
    let mut line = Line { bytes: [0; LINE], len: 0 };
    // Writing to a `Line` cannot fail. If a `Display` implementation returns an error, the line ends there.
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

/// This kernel's number; 255 if it is not known yet. In the demo, the address of the image tells the number (own.rs). A
/// kernel that serves learns it when it joins.
pub fn me() -> u8 {
    match OWN.get() {
        None => own::kernel(),
        Some(_) => SERVER.identity().map_or(u8::MAX, |(me, _)| me.get()),
    }
}

/// The value of the console's lock while CPU number `cpu` of kernel `k` holds it.
fn holder(k: usize, cpu: usize) -> u64 {
    (cpu as u64) << 32 | (k as u64 + 1)
}

/// Runs `f` while this CPU holds the console's lock. If the lock is not free within [`PATIENCE`], takes it from its holder,
/// which is assumed to be dead.
fn locked(f: impl FnOnce()) {
    let lock = &control::control().console;
    let me = holder(own::kernel().into(), Kernel.index());
    let start = clock::now();
    let mut nested = false;
    while let Err(holder) = lock.compare_exchange(0, me, Ordering::Acquire) {
        // This CPU itself holds the lock: an exception interrupted it while it printed.
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

/// Releases the console's lock if kernel `k` holds it. That kernel has been stopped.
pub fn release_of(k: usize) {
    let lock = &control::control().console;
    // A kernel that is stopped and restarted has one CPU, with number 0.
    let (dead, me) = (holder(k, 0), holder(own::kernel().into(), Kernel.index()));
    without_interrupts(|| {
        if lock.compare_exchange(dead, me, Ordering::Acquire).is_ok() {
            uart::send(uart::SHARED, CUT);
            let _ = lock.compare_exchange(me, 0, Ordering::Release);
        }
    });
}

/// Prints a line of text for people, such as `[k1] ...`.
#[macro_export]
macro_rules! log {
    ($($arg:tt)*) => {
        $crate::console::print(format_args!("[k{}] ", $crate::console::me()), format_args!($($arg)*))
    };
}

/// Prints a record for xtask: `@`, and the JSON object that is made from the arguments.
#[macro_export]
macro_rules! record {
    ($($arg:tt)*) => { $crate::console::print(format_args!("@"), format_args!($($arg)*)) };
}

/// Formats a value as the content of a JSON string: escapes quotes and backslashes, and replaces control characters by blanks.
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

/// Prints an error record, and ends the machine with the status `how`. A kernel that serves stops only itself.
pub fn fatal(args: fmt::Arguments, how: Exit) -> ! {
    record!("{{\"error\":{{\"kernel\":{},\"text\":\"{}\"}}}}", me(), Json(args));
    match Kernel.role() {
        Role::Serve => serve::give_up(how),
        Role::Demo | Role::Suite => machine::exit(how),
    }
}

/// Calls [`fatal`](crate::console::fatal) with the message, and with [`crate::machine::Exit::Error`].
#[macro_export]
macro_rules! fatal {
    ($($arg:tt)*) => { $crate::console::fatal(format_args!($($arg)*), $crate::machine::Exit::Error) };
}
