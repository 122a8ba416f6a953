//! `cargo xtask bench` runs this with the objects that it has built.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use matcher_tests::bench::{
    Bench, Family, Part, Plan, feeds,
    load::{self, Once},
    machine::{Cpus, Machine, stay_on},
    measure,
    report::Report,
};
use matcher_user::{
    feeds::Format,
    kernel::{KernelError, object::Object},
};

/// What one packet costs in the kernel.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    all: Option<All>,
}

#[derive(clap::Args)]
struct All {
    /// The kernel program
    #[arg(long)]
    object: PathBuf,
    /// What it is held against
    #[arg(long)]
    baselines: PathBuf,
    /// Where the figures go as JSON
    #[arg(long)]
    json: PathBuf,
    /// Where they go as a picture
    #[arg(long)]
    chart: Option<PathBuf>,
    /// Small tables, one round: only to see that it works
    #[arg(long)]
    quick: bool,
    /// Only these parts
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    only: Vec<PartName>,
}

#[derive(Clone, Copy, ValueEnum)]
enum PartName {
    Cost,
    Forward,
    Drain,
    Load,
    Feeds,
    OptOut,
}

impl From<PartName> for Part {
    fn from(name: PartName) -> Self {
        match name {
            PartName::Cost => Self::Cost,
            PartName::Forward => Self::Forward,
            PartName::Drain => Self::Drain,
            PartName::Load => Self::Load,
            PartName::Feeds => Self::Feeds,
            PartName::OptOut => Self::OptOut,
        }
    }
}

#[derive(Subcommand)]
enum Command {
    /// Loads one list and tells of it: the benchmark runs this in processes of their own
    LoadOnce {
        #[arg(long)]
        object: PathBuf,
        #[arg(long)]
        baselines: PathBuf,
        #[arg(long)]
        family: FamilyName,
        #[arg(long)]
        entries: usize,
        #[arg(long)]
        opt_outs: usize,
        #[arg(long)]
        feed: PathBuf,
    },
    /// Reads one feed and tells of it, likewise
    ReadOnce {
        #[arg(long)]
        format: Format,
        #[arg(long)]
        entries: u32,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum FamilyName {
    Ipv4,
    Ipv6,
}

/// Exit codes as in the contract of `matcher`: 0 done, 1 failed, 2 usage
/// (clap's own), 3 the machine lacks something.
fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match (cli.command, cli.all) {
        (Some(part), _) => run_part(part),
        (None, Some(all)) => run(&all),
        (None, None) => Err(anyhow::anyhow!("nothing to do; see --help")),
    };
    match done {
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

fn run_part(part: Command) -> Result<()> {
    let told = match part {
        Command::LoadOnce {
            object,
            baselines,
            family,
            entries,
            opt_outs,
            feed,
        } => load::once(&Once {
            object,
            baselines,
            family: match family {
                FamilyName::Ipv4 => Family::V4,
                FamilyName::Ipv6 => Family::V6,
            },
            entries,
            opt_outs,
            feed,
        })?,
        Command::ReadOnce { format, entries } => feeds::once(format, entries)?,
    };
    println!("{told}");
    Ok(())
}

fn run(all: &All) -> Result<()> {
    let mut plan = if all.quick {
        Plan::quick()
    } else {
        Plan::full()
    };
    if !all.only.is_empty() {
        plan.parts = all.only.iter().copied().map(Part::from).collect();
    }
    let machine = Machine::here(&all.object)?;
    let object = Object::from_file(&all.object)?;
    let cpus = Cpus::here()?;
    stay_on(cpus.packets)?;
    eprintln!("measuring on CPU {}", cpus.packets);
    let bench = Bench {
        plan: &plan,
        object: &object,
        object_path: &all.object,
        baselines: &all.baselines,
        cpus,
    };
    let figures = measure(&bench, &mut |doing| eprintln!("{doing}"))?;
    let report = Report {
        plan,
        quick: all.quick,
        machine,
        figures,
    };
    println!("{}", report.text());
    let mut json = serde_json::to_string_pretty(&report.json())?;
    json.push('\n');
    fs::write(&all.json, json).with_context(|| format!("cannot write {}", all.json.display()))?;
    eprintln!("the same as JSON: {}", all.json.display());
    if let Some(chart) = &all.chart {
        fs::write(chart, report.chart())
            .with_context(|| format!("cannot write {}", chart.display()))?;
        eprintln!("as a picture: {}", chart.display());
    }
    Ok(())
}
