// SPDX-License-Identifier: MIT OR Apache-2.0
//! One serial line, COM1, for all kernels: whole lines, `@` and a JSON object for machines, else for people.

use crate::layout::own_kernel;
use crate::{clock, control};
use core::fmt::{self, Write};
use mk_ipi_core::sync::Ordering;
use uart_16550::{Config, Uart16550};
use x86_64::instructions::interrupts;

/// Longest line; what goes beyond is cut.
const LINE: usize = 512;
/// How long a writer waits for the others, in cycles, before it takes a dead one's place.
const PATIENCE: u64 = clock::SECOND / 2;
/// Ends a line whose writer died in it: ASCII's CAN says that what stands before it is void.
const CUT: &[u8] = b"\x18\n";

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
    // SAFETY: COM1's ports; no other kernel runs yet.
    if let Ok(mut uart) = unsafe { Uart16550::new_port(0x3f8) } {
        // Without a serial line there is nobody to tell; the exit status still says how it ended.
        let _ = uart.init(Config::default());
    }
}

/// Prints one line: `prefix`, then `args`.
pub fn print(prefix: fmt::Arguments, args: fmt::Arguments) {
    let mut line = Line { bytes: [0; LINE], len: 0 };
    // A `Line` never fails; a `Display` that does leaves a short line.
    let _ = line.write_fmt(prefix).and_then(|()| line.write_fmt(args));
    line.bytes[line.len] = b'\n';
    interrupts::without_interrupts(|| locked(|| send(&line.bytes[..=line.len])));
}

/// Runs `f` while this kernel holds the console. A holder that died is robbed after [`PATIENCE`].
fn locked(f: impl FnOnce()) {
    let lock = &control::control().console;
    let me = u64::from(own_kernel()) + 1;
    let start = clock::now();
    let mut nested = false;
    while let Err(holder) = lock.compare_exchange(0, me, Ordering::Acquire) {
        // An exception while this very kernel was printing.
        nested = holder == me;
        if nested || clock::now().wrapping_sub(start) > PATIENCE {
            send(CUT);
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

/// Gives the console up for kernel `k`, which was stopped, if it holds it.
pub fn release_of(k: usize) {
    let lock = &control::control().console;
    let (dead, me) = (k as u64 + 1, u64::from(own_kernel()) + 1);
    interrupts::without_interrupts(|| {
        if lock.compare_exchange(dead, me, Ordering::Acquire).is_ok() {
            send(CUT);
            let _ = lock.compare_exchange(me, 0, Ordering::Release);
        }
    });
}

/// Sends bytes to COM1, in the settings that the host made.
fn send(bytes: &[u8]) {
    // SAFETY: COM1's ports; the lock keeps others off, or its holder is dead.
    if let Ok(mut uart) = unsafe { Uart16550::new_port(0x3f8) } {
        for &byte in bytes {
            // Bounded: a line that takes nothing must not hang the kernel.
            for _ in 0..100_000 {
                if uart.try_send_byte(byte).is_ok() {
                    break;
                }
                core::hint::spin_loop();
            }
        }
    }
}

/// Prints a log line for people: `[k1] ...`.
#[macro_export]
macro_rules! log {
    ($($arg:tt)*) => {
        $crate::console::print(format_args!("[k{}] ", $crate::layout::own_kernel()), format_args!($($arg)*))
    };
}

/// Prints a record for machines: `@` and the JSON object that the arguments give.
#[macro_export]
macro_rules! record {
    ($($arg:tt)*) => { $crate::console::print(format_args!("@"), format_args!($($arg)*)) };
}

/// The inside of a JSON string: what must not stand there is left out or replaced.
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

/// Reports that this kernel cannot go on, and ends the machine.
pub fn fatal(args: fmt::Arguments, how: crate::machine::Exit) -> ! {
    record!("{{\"error\":{{\"kernel\":{},\"text\":\"{}\"}}}}", own_kernel(), Json(args));
    crate::machine::exit(how)
}

/// Reports an error record and ends the machine with [`crate::machine::Exit::Error`].
#[macro_export]
macro_rules! fatal {
    ($($arg:tt)*) => { $crate::console::fatal(format_args!($($arg)*), $crate::machine::Exit::Error) };
}
