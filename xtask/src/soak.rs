// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask soak`: the demo boot after boot for as long as you like, each message accounted for.

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
/// Deaths in a boot that has any.
const KILLS: u32 = 50;
/// Messages each way that a boot with deaths has at least: it ends with the last death if that is later.
const MESSAGES_WITH_KILLS: u64 = 20_000;

/// What `soak` takes.
#[derive(Args, Clone, Debug)]
pub struct SoakArgs {
    /// For how long; the last boot is not cut short
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// How many kernels
    #[arg(long, default_value = "3", value_name = "N|LIST")]
    kernels: Kernels,
    /// Install what is missing without asking
    #[arg(long)]
    pub yes: bool,
}

/// Boots until the time is over: xAPIC and x2APIC in turn, without deaths and with them. The first fault ends it.
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
