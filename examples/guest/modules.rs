// SPDX-License-Identifier: MIT OR Apache-2.0
// The modules of the program that tests mk-ipi in a guest: the unchanged demo and conformance suite of examples/bare-metal,
// with the guest as the host of the machine. This folder contains the code by which they use the guest's kernel. It is the
// same for each guest. Each guest's main.rs includes this file. The guest's test.rs reads the data from the boot loader, and
// writes to the serial line.

#[macro_use]
#[path = "../bare-metal/src/console.rs"]
mod console;
#[path = "arch.rs"]
mod arch;
#[path = "../bare-metal/src/boot.rs"]
mod boot;
#[path = "../bare-metal/src/clock.rs"]
mod clock;
#[path = "../bare-metal/src/conformance.rs"]
mod conformance;
#[path = "../bare-metal/src/control.rs"]
mod control;
#[path = "../bare-metal/src/cpus.rs"]
mod cpus;
#[path = "../bare-metal/src/demo.rs"]
mod demo;
#[path = "../bare-metal/src/drains.rs"]
mod drains;
#[path = "../bare-metal/src/hand_over.rs"]
mod hand_over;
#[path = "../bare-metal/src/host.rs"]
mod host;
#[path = "../bare-metal/src/image.rs"]
mod image;
#[path = "../bare-metal/src/journal.rs"]
mod journal;
#[path = "../bare-metal/src/kill.rs"]
mod kill;
#[path = "../bare-metal/src/layout.rs"]
mod layout;
#[path = "link_log.rs"]
mod link_log;
#[path = "../bare-metal/src/machine.rs"]
mod machine;
#[path = "../bare-metal/src/mover.rs"]
mod mover;
#[path = "../bare-metal/src/node.rs"]
mod node;
#[path = "../bare-metal/src/options.rs"]
mod options;
#[path = "../bare-metal/src/order.rs"]
mod order;
#[path = "own.rs"]
mod own;
#[path = "../bare-metal/src/payload.rs"]
mod payload;
#[path = "platform.rs"]
mod platform;
#[path = "../bare-metal/src/play.rs"]
mod play;
#[path = "../bare-metal/src/pools.rs"]
mod pools;
#[path = "program.rs"]
mod program;
#[path = "../bare-metal/src/progress.rs"]
mod progress;
#[path = "../bare-metal/src/receive.rs"]
mod receive;
#[path = "second.rs"]
mod second;
#[path = "serve.rs"]
mod serve;
#[path = "../bare-metal/src/shares.rs"]
mod shares;
#[path = "../bare-metal/src/stream.rs"]
mod stream;
