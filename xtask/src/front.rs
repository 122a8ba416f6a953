//! `cargo xtask attach|load|tail|detach`: the commands of `matcher`, from this checkout.

use std::ffi::OsString;
use std::process::Command;

use anyhow::Result;

use crate::build::{self, Profile};
use crate::process;

/// Everything is handed on.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    /// Options and arguments of the command of `matcher`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Builds the agent if that is needed, and becomes `matcher COMMAND ARGUMENTS`: its exit status is
/// the one of the contract.
pub fn run(command: &str, args: Args) -> Result<()> {
    let matcher = build::matcher(Profile::Release)?;
    Err(process::replace(
        Command::new(matcher).arg(command).args(args.arguments),
    ))
}
