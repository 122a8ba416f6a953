//! `cargo xtask ci`: everything that must pass before a change is accepted, on any machine.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::setup::{self, Need};
use crate::{build, deny, process, test, tidy, workspace};

/// A step's name and what it does.
type Step = (&'static str, fn() -> Result<()>);

const STEPS: [Step; 8] = [
    ("fmt", fmt),
    ("tidy", tidy::check),
    ("ebpf", ebpf),
    ("clippy", clippy),
    ("clippy-ebpf", clippy_ebpf),
    ("deny", deny::run),
    ("doc", doc),
    ("test", || test::run_with(&[])),
];

/// Runs every step, also after one failed, so that one run shows all that is wrong.
pub fn run() -> Result<()> {
    let mut results = Vec::new();
    results.push(timed("setup", || setup::ensure(Need::Ci)));
    for (name, step) in STEPS {
        results.push(timed(name, step));
    }
    println!();
    for (name, took, result) in &results {
        let outcome = if result.is_ok() { "ok" } else { "FAILED" };
        println!("{name:<12} {outcome:<7} {:>6.1} s", took.as_secs_f64());
    }
    let failed: Vec<&str> = results
        .iter()
        .filter(|(_, _, result)| result.is_err())
        .map(|(name, ..)| *name)
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    for (name, _, result) in &results {
        if let Err(error) = result {
            println!("\n{name}: {error:#}");
        }
    }
    bail!("failed: {}", failed.join(", "))
}

fn timed(
    name: &'static str,
    step: impl FnOnce() -> Result<()>,
) -> (&'static str, Duration, Result<()>) {
    println!("\n==> {name}");
    let began = Instant::now();
    let result = step();
    if let Err(error) = &result {
        println!("{name} failed: {error:#}");
    }
    (name, began.elapsed(), result)
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
