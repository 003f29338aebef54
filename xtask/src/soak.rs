// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask soak`: boots the demo again and again for any time, and accounts for each message.

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

/// Messages each way per pair of kernels in a boot.
const MESSAGES: u64 = 200_000;
/// Deaths in a boot with deaths.
const KILLS: u32 = 50;
/// The least number of messages each way in a boot with deaths. The streams run on until the last death.
const MESSAGES_WITH_KILLS: u64 = 20_000;

/// What `soak` takes.
#[derive(Args, Clone, Debug)]
pub struct SoakArgs {
    /// How many minutes; the last boot is not cut short
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// How many kernels
    #[arg(long, default_value = "3", value_name = "N|LIST")]
    kernels: Kernels,
    /// Install what is missing without asking
    #[arg(long)]
    pub yes: bool,
}

/// Boots until the time is over: in xAPIC and x2APIC mode in turn, without deaths and with deaths. The first fault ends it.
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
