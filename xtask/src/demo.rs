//! `cargo xtask demo`: the product at work, on traffic of its own.
//!
//! The demo itself is a binary of the package `matcher-tests`, which has the traffic and the
//! network namespaces; xtask only makes sure that it can run.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::build::{self, Profile};
use crate::setup::{self, Missing, Need};
use crate::{process, workspace};

/// Options of `cargo xtask demo`.
#[derive(clap::Args)]
pub struct Args {
    /// Print nothing but the closing account, as one JSON object
    #[arg(long)]
    json: bool,
    /// Keep lists, capture, hits and candidates in this folder
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// Sets up, builds and becomes the demo: its signals and its exit status are then those of xtask.
pub fn run(args: Args) -> Result<()> {
    if !process::is_root() {
        // Said before anything is built.
        return Err(Missing {
            what: "the demo makes network namespaces and loads a program into the kernel: run it \
                   as root"
                .to_owned(),
        }
        .into());
    }
    setup::ensure(Need::Lab)?;
    // The builds that `cargo xtask test` uses too.
    let matcher = build::matcher(Profile::Debug)?;
    let mut cargo = workspace::cargo();
    cargo
        .args(["build", "--package", "matcher-tests", "--bin", "demo"])
        .env("MATCHER_EBPF_OBJECT", build::object()?);
    process::run(&mut cargo)?;
    let mut demo = Command::new(workspace::target_dir().join("debug").join("demo"));
    demo.env("MATCHER_BIN", matcher);
    if args.json {
        demo.arg("--json");
    }
    if let Some(folder) = args.keep {
        demo.arg("--keep").arg(folder);
    }
    Err(process::replace(&mut demo))
}
