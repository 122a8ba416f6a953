//! The `matcher` command. What it does lives in the library; the commands
//! wire it together.

mod commands;

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::execute()
}
