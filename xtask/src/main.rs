//! `cargo xtask`: set-up, build, tests and checks of matcher, from a checkout.
//!
//! One module a subcommand. A new one is its `mod` line, its variant in [`Task`] and its arm in
//! [`Task::run`].

mod bench;
mod build;
mod ci;
mod demo;
mod deny;
mod front;
mod fuzz;
mod kernels;
mod oracle;
mod process;
mod progress;
mod setup;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};

/// Set-up, build, tests and checks of matcher, from a checkout.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Find or install what the build of the kernel program needs
    Setup(setup::Args),
    /// Build the kernel program and the agent
    Build(build::Args),
    /// Show the whole thing at work on made-up traffic, in network namespaces of its own
    Demo(demo::Args),
    /// Run every test; as root also those that need the kernel
    Test(test::Args),
    /// Measure what one packet costs in the kernel, and loading a list
    Bench(bench::Args),
    /// Check what a reviewer would otherwise repeat: module order, ABI, config keys, leftovers
    Tidy(tidy::Args),
    /// Check licences, sources and advisories of all dependencies
    Deny,
    /// Boot older kernels in an emulator and match a small capture there
    Kernels(kernels::Args),
    /// Arbitrary bytes for every parser, for a bounded time
    Fuzz(fuzz::Args),
    /// Compare the parser with tshark, packet by packet, over folders of captures
    Oracle(oracle::Args),
    /// Everything that must pass before a change is accepted
    Ci(ci::Args),
    /// `matcher attach` from this checkout
    Attach(front::Args),
    /// `matcher load` from this checkout
    Load(front::Args),
    /// `matcher tail` from this checkout
    Tail(front::Args),
    /// `matcher detach` from this checkout
    Detach(front::Args),
}

impl Task {
    fn run(self) -> Result<()> {
        match self {
            Self::Setup(args) => setup::run(args),
            Self::Build(args) => build::run(args),
            Self::Demo(args) => demo::run(args),
            Self::Test(args) => test::run(args),
            Self::Bench(args) => bench::run(args),
            Self::Tidy(args) => tidy::run(args),
            Self::Deny => deny::run(),
            Self::Kernels(args) => kernels::run(args),
            Self::Fuzz(args) => fuzz::run(args),
            Self::Oracle(args) => oracle::run(args),
            Self::Ci(args) => ci::run(args),
            Self::Attach(args) => front::run("attach", args),
            Self::Load(args) => front::run("load", args),
            Self::Tail(args) => front::run("tail", args),
            Self::Detach(args) => front::run("detach", args),
        }
    }
}

/// The names of all subcommands, for the check that the README has them.
fn subcommands() -> Vec<String> {
    Cli::command()
        .get_subcommands()
        .map(|task| task.get_name().to_owned())
        .collect()
}

/// Exit codes as in the contract of `matcher`: 0 done, 1 failed, 2 usage (clap's own), 3 the
/// machine lacks something.
fn main() -> ExitCode {
    match Cli::parse().task.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            let lacks = error.chain().any(|cause| cause.is::<setup::Missing>());
            ExitCode::from(if lacks { 3 } else { 1 })
        }
    }
}
