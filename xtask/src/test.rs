//! `cargo xtask test`: every test of the workspace.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, IsTerminal, Write, stdout};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::build::{self, Profile};
use crate::setup::{self, Need};
use crate::{process, workspace};

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Args {
    /// Handed on to `cargo test --workspace`, such as a test's name or `-- --nocapture`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Runs `cargo xtask test`.
pub fn run(args: Args) -> Result<()> {
    run_with(&args.arguments)
}

/// Builds the kernel program and the agent, then runs the tests against both; closes with the
/// totals and the names of the tests that could not run here.
pub fn run_with(arguments: &[OsString]) -> Result<()> {
    setup::ensure(if process::is_root() {
        Need::Test
    } else {
        Need::Build
    })?;
    let object = build::object()?;
    let matcher = build::matcher(Profile::Debug)?;
    let skips = workspace::target_dir().join("skipped-tests.log");
    fs::write(&skips, "").with_context(|| format!("cannot write {}", skips.display()))?;

    let mut cargo = workspace::cargo();
    cargo
        .args(["test", "--workspace", "--no-fail-fast"])
        .args(arguments)
        .env("MATCHER_EBPF_OBJECT", object)
        .env("MATCHER_BIN", matcher)
        .env("MATCHER_SKIP_LOG", &skips)
        .stdout(Stdio::piped());
    if stdout().is_terminal() {
        // Its output goes through a pipe to be counted.
        cargo.env("CARGO_TERM_COLOR", "always");
    }
    let mut child = cargo
        .spawn()
        .with_context(|| format!("cannot start `{}`", process::line(&cargo)))?;
    let mut totals = Totals::default();
    if let Some(output) = child.stdout.take() {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output
            .read_until(b'\n', &mut line)
            .context("cannot read from cargo test")?
            > 0
        {
            stdout()
                .write_all(&line)
                .context("cannot write to standard output")?;
            totals.add(&String::from_utf8_lossy(&line));
            line.clear();
        }
    }
    let status = child.wait().context("cannot wait for cargo test")?;
    let skipped = read_skips(&skips)?;
    close(&totals, &skipped);
    process::check(&cargo, status)?;
    if totals.groups == 0 {
        bail!("`{}` ran no test at all", process::line(&cargo));
    }
    Ok(())
}

/// The names that tests wrote, each once, in order.
fn read_skips(path: &Path) -> Result<Vec<String>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut names: Vec<String> = text.lines().map(str::to_owned).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

fn close(totals: &Totals, skipped: &[String]) {
    println!();
    if !skipped.is_empty() {
        println!("not run on this machine, or not as this user:");
        for name in skipped {
            println!("  {name}");
        }
    }
    // A skipped test returned without a word of complaint: cargo counts it as passed.
    println!(
        "tests: {} ran, {} failed, {} skipped{}",
        (totals.passed + totals.failed).saturating_sub(skipped.len()),
        totals.failed,
        skipped.len(),
        if process::is_root() {
            ""
        } else {
            " (run as root for those that need the kernel)"
        },
    );
}

/// The sums of cargo's `test result:` lines.
#[derive(Debug, Default, PartialEq, Eq)]
struct Totals {
    groups: usize,
    passed: usize,
    failed: usize,
}

impl Totals {
    /// Adds one line of output, if it is a result line.
    fn add(&mut self, line: &str) {
        let Some((_, result)) = line.split_once("test result: ") else {
            return;
        };
        let count = |word: &str| {
            let (before, _) = result.split_once(word)?;
            before.split_whitespace().next_back()?.parse::<usize>().ok()
        };
        if let (Some(passed), Some(failed)) = (count(" passed"), count(" failed")) {
            self.groups += 1;
            self.passed += passed;
            self.failed += failed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_summed_with_and_without_colour() {
        let mut totals = Totals::default();
        totals.add("test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n");
        totals
            .add("test result: \x1b[31mFAILED\x1b[0m. 3 passed; 2 failed; 0 ignored; 0 measured\n");
        totals.add("test feeds::a_test ... ok\n");
        assert_eq!(
            totals,
            Totals {
                groups: 2,
                passed: 15,
                failed: 2
            }
        );
    }

    #[test]
    fn a_skipped_test_is_listed_once() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("skips");
        fs::write(&log, "b\na\nb\n").unwrap();
        assert_eq!(read_skips(&log).unwrap(), ["a", "b"]);
    }
}
