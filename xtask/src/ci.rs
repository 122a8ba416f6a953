//! `cargo xtask ci`: everything that must pass before a change is accepted, on any machine.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::setup::{self, Need};
use crate::{build, deny, fuzz, kernels, oracle, process, test, tidy, workspace};

/// How long each fuzz target runs: enough to see that it works, and what is plainly broken.
const FUZZ_EACH: Duration = Duration::from_secs(10);

/// Options of `cargo xtask ci`.
#[derive(clap::Args)]
pub struct Args {
    /// A step that this machine cannot run counts as failed
    #[arg(long)]
    strict: bool,
}

/// How a step ended that did not fail.
enum Done {
    Ok,
    /// This machine cannot, and why.
    NotRun(String),
}

/// A step's name and what it does.
type Step = (&'static str, fn() -> Result<Done>);

const STEPS: [Step; 11] = [
    ("fmt", || fmt().map(ok)),
    ("tidy", || tidy::check().map(ok)),
    ("ebpf", || ebpf().map(ok)),
    ("clippy", || clippy().map(ok)),
    ("clippy-ebpf", || clippy_ebpf().map(ok)),
    ("deny", || deny::run().map(ok)),
    ("doc", || doc().map(ok)),
    ("test", || test::run_with(&[]).map(ok)),
    ("oracle", compare),
    ("kernels", boot_kernels),
    ("fuzz", fuzz_each),
];

fn ok((): ()) -> Done {
    Done::Ok
}

/// Runs every step, also after one failed, so that one run shows all that is wrong.
pub fn run(args: Args) -> Result<()> {
    let mut results = Vec::new();
    results.push(timed("setup", || setup::ensure(Need::Ci).map(ok)));
    for (name, step) in STEPS {
        results.push(timed(name, step));
    }
    println!();
    let mut failed = Vec::new();
    for (name, took, result) in &results {
        let outcome = match result {
            Ok(Done::Ok) => "ok",
            Ok(Done::NotRun(_)) => "not run",
            Err(_) => "FAILED",
        };
        println!("{name:<12} {outcome:<7} {:>6.1} s", took.as_secs_f64());
        if result.is_err() || args.strict && matches!(result, Ok(Done::NotRun(_))) {
            failed.push(*name);
        }
    }
    for (name, _, result) in &results {
        match result {
            Ok(Done::Ok) => {}
            Ok(Done::NotRun(reason)) => println!("\n{name}: not run: {reason}"),
            Err(error) => println!("\n{name}: {error:#}"),
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("failed: {}", failed.join(", "))
}

fn timed(
    name: &'static str,
    step: impl FnOnce() -> Result<Done>,
) -> (&'static str, Duration, Result<Done>) {
    println!("\n==> {name}");
    let began = Instant::now();
    let result = step();
    match &result {
        Ok(Done::Ok) => {}
        Ok(Done::NotRun(reason)) => println!("{name}: not run: {reason}"),
        Err(error) => println!("{name} failed: {error:#}"),
    }
    (name, began.elapsed(), result)
}

/// What is missing is no failure of the change; anything else is.
fn unless_missing(result: Result<()>) -> Result<Done> {
    match result {
        Ok(()) => Ok(Done::Ok),
        Err(error) if error.chain().any(|cause| cause.is::<setup::Missing>()) => {
            Ok(Done::NotRun(format!("{error:#}")))
        }
        Err(error) => Err(error),
    }
}

fn compare() -> Result<Done> {
    let folder = oracle::shared_captures();
    if !folder.is_dir() {
        return Ok(Done::NotRun(format!(
            "there are no captures in {}; MATCHER_PCAPS names their folder",
            folder.display()
        )));
    }
    unless_missing(oracle::compare(&[folder]))
}

fn boot_kernels() -> Result<Done> {
    if let not_here @ Done::NotRun(_) = unless_missing(setup::ensure(Need::Emulator))? {
        return Ok(not_here);
    }
    Ok(match kernels::boot_all(&kernels::SERIES)? {
        not_run if not_run.is_empty() => Done::Ok,
        not_run => Done::NotRun(not_run.join("; ")),
    })
}

fn fuzz_each() -> Result<Done> {
    // A target that does not compile is a failure; a machine without the tool is not.
    match fuzz::tool() {
        Ok(tool) => fuzz::run_all(&fuzz::build(&tool)?, FUZZ_EACH).map(ok),
        Err(error) => Ok(Done::NotRun(format!("{error:#}"))),
    }
}

fn fmt() -> Result<()> {
    process::run(workspace::cargo().args(["fmt", "--all", "--check"]))?;
    let mut ebpf = workspace::cargo();
    ebpf.args([
        "fmt",
        "--manifest-path",
        "matcher-ebpf/Cargo.toml",
        "--check",
    ]);
    process::run(&mut ebpf)
}

/// Built before anything that includes it.
fn ebpf() -> Result<()> {
    build::object().map(|object| println!("{}", object.display()))
}

fn clippy() -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]);
    process::run(cargo.env("MATCHER_EBPF_OBJECT", build::object()?))
}

/// Clippy of the toolchain that builds the program; where that one has none (Debian's), clippy of
/// the active toolchain, for the host: it has no sources of core to build for BPF.
fn clippy_ebpf() -> Result<()> {
    let own = match setup::given_object() {
        Some(_) => None,
        None => Some(setup::ebpf()?),
    };
    let own = own.filter(|ebpf| {
        let bin = ebpf.compiler.sysroot.join("bin");
        bin.join("cargo-clippy").is_file() && bin.join("clippy-driver").is_file()
    });
    let target = workspace::target_dir().join("bpf-clippy");
    let mut cargo: Command;
    match own {
        Some(ebpf) => {
            cargo = build::ebpf_cargo(ebpf, "clippy");
            cargo.args(["--target", build::BPF_TARGET, "-Zbuild-std=core"]);
        }
        None => {
            println!("the compiler of the kernel program has no clippy: checked for the host");
            cargo = workspace::cargo();
            cargo
                .current_dir(workspace::root().join("matcher-ebpf"))
                .arg("clippy");
        }
    }
    // Release: without std there is nothing to unwind with, and that profile aborts.
    cargo
        .args(["--release", "--target-dir"])
        .arg(target)
        .args(["--", "-D", "warnings"]);
    process::run(&mut cargo)
}

fn doc() -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args(["doc", "--workspace", "--no-deps"]);
    cargo
        .env("RUSTDOCFLAGS", "-D warnings")
        .env("MATCHER_EBPF_OBJECT", build::object()?);
    process::run(&mut cargo)
}
