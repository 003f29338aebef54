// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask soak`: boots the demo again and again for the given time, and checks what became of each message.

use std::time::{Duration, Instant};

use anyhow::{bail, Result};
use clap::Args;

use crate::arch::Arch;
use crate::cmd::Places;
use crate::demo::{self, DemoArgs, Modes, Stage};
use crate::image::Flavour;
use crate::kernels::Kernels;
use crate::provision::Provision;
use crate::summary::Totals;

/// Messages that each kernel sends to each other kernel, in a boot in which no kernel is killed.
const MESSAGES: u64 = 200_000;
/// How often kernel 1 is killed, in every second boot.
const KILLS: u32 = 50;
/// The smallest number of messages that each kernel sends to each other kernel, in a boot in which kernel 1 is killed. The
/// streams run on until the last kill, so there can be more messages.
const MESSAGES_WITH_KILLS: u64 = 20_000;

/// The options of `cargo xtask soak`.
#[derive(Args, Clone, Debug)]
pub struct SoakArgs {
    /// After this number of minutes no new boot begins
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// How many kernels, at least 3 because one is killed; or a list such as `rust,rust,rust`
    #[arg(long, default_value = "3", value_name = "N|LIST")]
    kernels: Kernels,
    /// Install missing tools without asking
    #[arg(long)]
    pub yes: bool,
}

/// The command `cargo xtask soak`. Boots the demo until the time is over, or until a boot has a problem. The boots are, in turn:
/// in xAPIC mode without kills and with kills, then in x2APIC mode without kills and with kills.
pub fn soak(places: &Places, provision: &Provision, args: &SoakArgs) -> Result<()> {
    let stage = Stage::build(places, provision, (Arch::X86, &args.kernels), Flavour::OneCpu, true)?;
    let (start, wanted) = (Instant::now(), Duration::from_secs(args.minutes * 60));
    let mut totals = Totals::default();
    let boots = [Modes::Xapic, Modes::X2apic].map(|mode| [(mode, None), (mode, Some(KILLS))]).concat();
    for &(mode, kill) in boots.iter().cycle() {
        let messages = if kill.is_some() { MESSAGES_WITH_KILLS } else { MESSAGES };
        let plain = DemoArgs::plain(args.kernels.clone());
        let outcome = demo::play(&stage, &DemoArgs { mode, kill, messages, ..plain })?;
        totals.add(&outcome.summary);
        println!("after {} s: {totals}", start.elapsed().as_secs());
        if !outcome.problems.is_empty() {
            bail!("the soak failed:\n  {}", demo::first_of(&outcome.problems).join("\n  "))
        }
        if start.elapsed() >= wanted {
            break;
        }
    }
    Ok(())
}
