//! `cargo xtask demo`.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;
use matcher_tests::{
    cleanup::making,
    demo::{self, Options, Screen},
    lab::Lab,
};

/// Shows matcher at work: an edge of network namespaces, C&C lists, traffic with
/// known answers, hits, candidates, and an account that is held against what had
/// to come of it.
#[derive(Parser)]
#[command(name = "demo")]
struct Cli {
    /// Print nothing but the closing account, as one JSON object
    #[arg(long)]
    json: bool,
    /// Keep lists, capture, hits and candidates in this folder
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// The binary to show
    #[arg(long, value_name = "FILE", env = "MATCHER_BIN")]
    matcher: PathBuf,
}

/// 0: as expected; 1: not, or it could not go on; 2: usage; 3: the machine lacks
/// something.
fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(obstacle) = Lab::obstacle() {
        eprintln!("error: the demo cannot run here: {obstacle}");
        return ExitCode::from(3);
    }
    let screen = if cli.json {
        Screen::silent()
    } else {
        Screen::standard_output()
    };
    let options = Options {
        matcher: cli.matcher,
        keep: cli.keep,
    };
    let done = demo::run(&options, screen);
    // After Ctrl-C nothing is said any more: what failed then failed of it.
    making(|| match done {
        Ok(account) => {
            if cli.json {
                // A reader who has gone does not change the verdict.
                let _ = writeln!(io::stdout(), "{}", account.json());
            }
            ExitCode::from(u8::from(!account.holds()))
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    })
}
