//! `cargo xtask fuzz`: arbitrary bytes for every parser, for a bounded time.
//!
//! The targets are the `[[bin]]`s of `fuzz/Cargo.toml`, `feed` once for each format. A run starts from the checked-in seeds and
//! from what earlier runs found, in `target/fuzz/corpus`. Built without AddressSanitizer: what is
//! fuzzed is safe Rust, in which it finds nothing and halves the speed; so any compiler will do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::setup::{self, Need};
use crate::{build, process, progress, workspace};

/// Everything that the targets need is compiled for them alone.
const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);
/// Beyond the time given: starting, and reading the corpus.
const RUN_SLACK: Duration = Duration::from_secs(120);

/// Options of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub struct Args {
    /// How long each target runs
    #[arg(long, value_name = "N", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Targets of fuzz/Cargo.toml [default: all]
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
}

/// A binary, and the format when it is that of the feeds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    binary: String,
    format: Option<String>,
}

impl Target {
    fn name(&self) -> String {
        match &self.format {
            Some(format) => format!("{}-{format}", self.binary),
            None => self.binary.clone(),
        }
    }
}

/// The binary that fuzzes feeds, and the variable that tells it the format.
const FEED: &str = "feed";
const FEED_FORMAT: &str = "MATCHER_FUZZ_FEED";

/// Runs `cargo xtask fuzz`.
pub fn run(args: Args) -> Result<()> {
    let binaries = build(&tool()?)?;
    let known = targets(&binaries)?;
    let names: Vec<String> = known.iter().map(Target::name).collect();
    if let Some(unknown) = args.targets.iter().find(|name| !names.contains(name)) {
        bail!(
            "there is no target {unknown}: there are {}",
            names.join(", ")
        );
    }
    let wanted: Vec<Target> = known
        .into_iter()
        .filter(|target| args.targets.is_empty() || args.targets.contains(&target.name()))
        .collect();
    fuzz(&binaries, &wanted, Duration::from_secs(args.seconds))
}

/// Runs every target for some seconds; built by [`build()`].
pub fn run_all(binaries: &Path, each: Duration) -> Result<()> {
    fuzz(binaries, &targets(binaries)?, each)
}

/// Every target, in the order of the manifest.
fn targets(binaries: &Path) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for binary in manifest(&workspace::root())? {
        if binary != FEED {
            let format = None;
            targets.push(Target { binary, format });
            continue;
        }
        let mut list = Command::new(binaries.join(&binary));
        let formats = process::output(list.env(FEED_FORMAT, "list"))?;
        targets.extend(formats.lines().map(|format| Target {
            binary: binary.clone(),
            format: Some(format.to_owned()),
        }));
    }
    Ok(targets)
}

/// What builds the targets.
///
/// # Errors
/// When it is not here and cannot be had, with what is missing.
pub fn tool() -> Result<PathBuf> {
    setup::ensure(Need::Fuzz)?;
    setup::cargo_fuzz()
}

/// Compiles all targets with [`tool`]; the folder with the binaries.
pub fn build(cargo_fuzz: &Path) -> Result<PathBuf> {
    let fuzz = workspace::root().join("fuzz");
    let target = workspace::target_dir().join("fuzz/build");
    let mut command = Command::new(cargo_fuzz);
    workspace::forget_own_package(&mut command);
    command
        .current_dir(&fuzz)
        .args(["fuzz", "build", "--sanitizer", "none", "--fuzz-dir"])
        .arg(&fuzz)
        .arg("--target-dir")
        .arg(&target)
        .env("MATCHER_EBPF_OBJECT", build::object()?);
    let log = workspace::target_dir().join("fuzz/build.log");
    progress::logged("building the fuzz targets", &mut command, &log, BUILD_LIMIT)?;
    Ok(target.join(host()?).join("release"))
}

/// The target triple of this machine, which cargo-fuzz builds for.
fn host() -> Result<String> {
    let said = process::output(Command::new("rustc").arg("-vV"))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("`rustc -vV` names no host")?.to_owned())
}

/// The names in `fuzz/Cargo.toml`.
fn manifest(root: &Path) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Manifest {
        bin: Vec<Binary>,
    }
    #[derive(Deserialize)]
    struct Binary {
        name: String,
    }
    let path = root.join("fuzz/Cargo.toml");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let manifest: Manifest = toml::from_str(&text).with_context(|| path.display().to_string())?;
    Ok(manifest.bin.into_iter().map(|binary| binary.name).collect())
}

/// Where a target starts from.
fn seeds(root: &Path, binary: &str) -> Vec<PathBuf> {
    let mut folders = vec![
        root.join("fuzz/seeds").join(binary),
        root.join("tests/fixtures/crashes").join(binary),
    ];
    if binary == FEED {
        folders.push(root.join("tests/fixtures/feeds"));
    }
    folders.retain(|folder| folder.is_dir());
    folders
}

fn fuzz(binaries: &Path, targets: &[Target], each: Duration) -> Result<()> {
    let mut crashed = Vec::new();
    let mut table = vec![format!(
        "{:<20} {:>12} {:>9} {:>7}  outcome",
        "target", "executions", "a second", "corpus"
    )];
    for target in targets {
        let run = one(binaries, target, each)?;
        let name = target.name();
        table.push(format!(
            "{name:<20} {:>12} {:>9} {:>7}  {}",
            run.executions,
            run.per_second,
            run.corpus,
            run.crash.as_deref().unwrap_or("no crash"),
        ));
        if run.crash.is_some() {
            crashed.push(name);
        }
    }
    println!("{}", table.join("\n"));
    if crashed.is_empty() {
        return Ok(());
    }
    bail!(
        "crashes in {}: run the binary in {} on the file to see it again; once mended, the file \
         goes to tests/fixtures/crashes/TARGET under a name that says what it is",
        crashed.join(", "),
        binaries.display()
    )
}

/// What one run said of itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct Run {
    executions: u64,
    per_second: u64,
    corpus: u64,
    /// The file that makes it crash, or how else it ended.
    crash: Option<String>,
}

fn one(binaries: &Path, target: &Target, each: Duration) -> Result<Run> {
    let name = target.name();
    let folder = workspace::target_dir().join("fuzz");
    let corpus = folder.join("corpus").join(&name);
    let artifacts = folder.join("artifacts").join(&name);
    for folder in [&corpus, &artifacts] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut command = Command::new(binaries.join(&target.binary));
    if let Some(format) = &target.format {
        command.env(FEED_FORMAT, format);
    }
    command
        .arg(&corpus)
        .args(seeds(&workspace::root(), &target.binary))
        .arg(format!("-max_total_time={}", each.as_secs()))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args(["-print_final_stats=1", "-timeout=10"]);
    let log = folder.join(format!("{name}.log"));
    let ended = progress::logged(
        &format!("fuzzing {name}"),
        &mut command,
        &log,
        each + RUN_SLACK,
    );
    let said = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let mut run = read(&String::from_utf8_lossy(&said));
    if let (Err(error), None) = (ended, &run.crash) {
        run.crash = Some(format!("{error:#}"));
    }
    Ok(run)
}

/// Reads libFuzzer's log.
fn read(log: &str) -> Run {
    let mut run = Run::default();
    for line in log.lines() {
        let stat = |name: &str| {
            let rest = line.strip_prefix("stat::")?.strip_prefix(name)?;
            rest.strip_prefix(':')?.trim().parse().ok()
        };
        if let Some(executions) = stat("number_of_executed_units") {
            run.executions = executions;
        } else if let Some(per_second) = stat("average_exec_per_sec") {
            run.per_second = per_second;
        } else if let Some((_, file)) = line.split_once("Test unit written to ") {
            run.crash = Some(file.to_owned());
        } else if let Some((_, rest)) = line.split_once(" corp: ") {
            let files = rest.split('/').next().and_then(|files| files.parse().ok());
            run.corpus = files.unwrap_or(run.corpus);
        }
    }
    run
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "#2\tINITED cov: 5 ft: 6 corp: 1/1b exec/s: 0 rss: 30Mb\n\
        #99\tDONE   cov: 215 ft: 600 corp: 120/9Kb lim: 4096 exec/s: 99 rss: 80Mb\n\
        Done 99 runs in 1 second(s)\n\
        stat::number_of_executed_units: 99\n\
        stat::average_exec_per_sec:     98\n";

    #[test]
    fn the_figures_are_those_that_libfuzzer_closes_with() {
        let expected = Run {
            executions: 99,
            per_second: 98,
            corpus: 120,
            crash: None,
        };
        assert_eq!(read(LOG), expected);
    }

    #[test]
    fn a_crash_is_named_by_its_file() {
        let log = format!("{LOG}artifact_prefix='a/'; Test unit written to a/crash-1\n");
        assert_eq!(read(&log).crash.as_deref(), Some("a/crash-1"));
    }

    #[test]
    fn every_target_has_its_file_and_seeds_to_start_from() {
        let root = workspace::root();
        let targets = manifest(&root).unwrap();
        assert!(targets.contains(&"packet".to_owned()));
        for target in targets {
            assert!(root.join(format!("fuzz/targets/{target}.rs")).is_file());
            let seeds = seeds(&root, &target);
            assert!(!seeds.is_empty(), "{target}");
        }
    }
}
