//! `cargo xtask bench` runs this with the objects that it has built.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::Parser;
use matcher_tests::bench::{
    Plan,
    machine::{Machine, stay_on_one_cpu},
    measure::measure,
    report::Report,
};
use matcher_user::kernel::{KernelError, object::Object};

/// What one packet costs in the kernel.
#[derive(Parser)]
struct Cli {
    /// The kernel program
    #[arg(long)]
    object: PathBuf,
    /// What it is held against
    #[arg(long)]
    baselines: PathBuf,
    /// Where the figures go as JSON
    #[arg(long)]
    json: PathBuf,
    /// Small tables, one round: only to see that it works
    #[arg(long)]
    quick: bool,
}

/// Exit codes as in the contract of `matcher`: 0 done, 1 failed, 2 usage
/// (clap's own), 3 the machine lacks something.
fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            let lacks = error.chain().any(|cause| {
                matches!(
                    cause.downcast_ref(),
                    Some(KernelError::Privilege(_) | KernelError::Unsupported(_))
                )
            });
            ExitCode::from(if lacks { 3 } else { 1 })
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let plan = if cli.quick {
        Plan::quick()
    } else {
        Plan::full()
    };
    let machine = Machine::here(&cli.object)?;
    let object = Object::from_file(&cli.object)?;
    let cpu = stay_on_one_cpu()?;
    eprintln!("measuring on CPU {cpu}");
    let figures = measure(&plan, &object, &cli.baselines, &mut |doing| {
        eprintln!("{doing}");
    })?;
    let report = Report {
        plan,
        quick: cli.quick,
        machine,
        figures,
    };
    println!("{}", report.text());
    let mut json = serde_json::to_string_pretty(&report.json())?;
    json.push('\n');
    fs::write(&cli.json, json).with_context(|| format!("cannot write {}", cli.json.display()))?;
    eprintln!("the same as JSON: {}", cli.json.display());
    Ok(())
}
