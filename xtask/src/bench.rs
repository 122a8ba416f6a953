//! `cargo xtask bench`: what one packet costs in the kernel, what is forwarded beside other
//! products, what the ring buffer carries, and what reading feeds and loading a list takes.

use std::path::{PathBuf, absolute};

use anyhow::{Context, Result, bail};

use crate::setup::{self, Need};
use crate::{build, process, workspace};

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Args {
    /// Where the figures go as JSON [default: target/bench.json]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where they go as a picture, SVG
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    /// Small tables, one round: only to see that it works
    #[arg(long)]
    quick: bool,
    /// Only these parts, separated by commas: cost, forward, drain, load, feeds, opt-out
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    only: Vec<String>,
}

/// Builds the kernel program and what it is held against, and runs both. The bench is a program
/// of its own: it needs the agent's library, without which xtask must build.
pub fn run(args: Args) -> Result<()> {
    setup::ensure(match args.quick {
        true => Need::Build,
        false => Need::Bench,
    })?;
    let object = build::object()?;
    let baselines = object.with_file_name("baselines.o");
    if !baselines.is_file() {
        bail!(
            "there is no {}: the benchmark needs the baselines beside the kernel program; unset \
             MATCHER_EBPF_OBJECT to have both built",
            baselines.display()
        );
    }
    // Cargo runs in the checkout's root, the user may be elsewhere.
    let place = |given: PathBuf| {
        absolute(&given).with_context(|| format!("cannot tell where {} is", given.display()))
    };
    let json = match args.json {
        Some(given) => place(given)?,
        None => workspace::target_dir().join("bench.json"),
    };
    let mut cargo = workspace::cargo();
    cargo
        .args(["run", "--quiet", "--release"])
        .args(["--package", "matcher-tests", "--bin", "bench", "--"])
        .arg("--object")
        .arg(&object)
        .arg("--baselines")
        .arg(baselines)
        .arg("--json")
        .arg(json);
    if let Some(chart) = args.chart {
        cargo.arg("--chart").arg(place(chart)?);
    }
    if args.quick {
        cargo.arg("--quick");
    }
    for part in args.only {
        cargo.arg("--only").arg(part);
    }
    Err(process::replace(cargo.env("MATCHER_EBPF_OBJECT", &object)))
}
