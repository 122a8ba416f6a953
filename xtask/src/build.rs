//! `cargo xtask build`: the kernel program, then the agent with that program inside.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::setup::{self, Ebpf};
use crate::{process, workspace};

/// The target of the kernel program.
pub const BPF_TARGET: &str = "bpfel-unknown-none";

/// Options of `cargo xtask build`.
#[derive(clap::Args)]
pub struct Args {
    /// The agent unoptimised, for development (the kernel program is always optimised)
    #[arg(long)]
    debug: bool,
    /// With aya-log in the kernel program: for debugging only, it costs time on every packet
    #[arg(long)]
    kernel_log: bool,
}

/// How the agent is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Fast to build.
    Debug,
    /// Fast to run.
    Release,
}

/// Runs `cargo xtask build`.
pub fn run(args: Args) -> Result<()> {
    let profile = if args.debug {
        Profile::Debug
    } else {
        Profile::Release
    };
    let matcher = build(profile, args.kernel_log)?;
    println!("{}", matcher.display());
    Ok(())
}

/// The object file of the kernel program: built, unless `MATCHER_EBPF_OBJECT` names one.
pub fn object() -> Result<PathBuf> {
    object_with(false)
}

/// The `matcher` binary, with the kernel program of [`object`] inside.
pub fn matcher(profile: Profile) -> Result<PathBuf> {
    build(profile, false)
}

fn build(profile: Profile, kernel_log: bool) -> Result<PathBuf> {
    setup::ensure(setup::Need::Build)?;
    let object = object_with(kernel_log)?;
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--package", "matcher-user", "--bin", "matcher"]);
    let folder = match profile {
        Profile::Debug => "debug",
        Profile::Release => {
            cargo.arg("--release");
            "release"
        }
    };
    if kernel_log {
        cargo.args(["--features", "kernel-log"]);
    }
    process::run(cargo.env("MATCHER_EBPF_OBJECT", object))?;
    Ok(workspace::target_dir().join(folder).join("matcher"))
}

fn object_with(kernel_log: bool) -> Result<PathBuf> {
    if let Some(given) = setup::given_object() {
        let given = workspace::root().join(given);
        if !given.is_file() {
            bail!(
                "MATCHER_EBPF_OBJECT names {}, which is not a file",
                given.display()
            );
        }
        return Ok(given);
    }
    let ebpf = setup::ebpf()?;
    let target = workspace::target_dir().join("bpf");
    let mut cargo = ebpf_cargo(ebpf, "build");
    // Never the dev profile: a panic path left in the program does not load.
    cargo.args([
        "--release",
        "--target",
        BPF_TARGET,
        "-Zbuild-std=core",
        "--target-dir",
    ]);
    cargo.arg(&target);
    if kernel_log {
        cargo.args(["--features", "kernel-log"]);
    }
    process::run(&mut cargo)?;
    let built = target.join(BPF_TARGET).join("release");
    // For `cargo xtask bench`, which finds it beside the program.
    copy_if_changed(&built.join("baselines"), &target.join("baselines.o"))?;
    // A name of its own, so that a later build of the agent does not pick it up unasked.
    let name = if kernel_log {
        "matcher-kernel-log.o"
    } else {
        "matcher.o"
    };
    let object = target.join(name);
    copy_if_changed(&built.join("matcher"), &object)?;
    Ok(object)
}

/// A cargo command in the kernel program's folder, with the flags that its target needs.
pub fn ebpf_cargo(ebpf: &Ebpf, subcommand: &str) -> std::process::Command {
    let mut cargo = ebpf.compiler.command();
    cargo
        .current_dir(workspace::root().join("matcher-ebpf"))
        .arg(subcommand);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags(&ebpf.linker));
    cargo
}

/// What every crate of the kernel program is compiled with, as `CARGO_ENCODED_RUSTFLAGS` wants it.
fn flags(linker: &Path) -> OsString {
    let mut linker_flag = OsString::from("linker=");
    linker_flag.push(linker);
    let flags: [OsString; 10] = [
        "-C".into(),
        // The BTF of maps and functions is made from the debug information.
        "debuginfo=2".into(),
        "-C".into(),
        "link-arg=--btf".into(),
        "-C".into(),
        // Atomics that give back a value (kernel 5.12).
        "target-cpu=v3".into(),
        "-C".into(),
        // Copies and fills of known size as loads and stores: the linker's own default turns
        // each into a call that goes byte by byte.
        "link-arg=--disable-expand-memcpy-in-order".into(),
        "-C".into(),
        linker_flag,
    ];
    flags.join(&OsString::from("\x1f"))
}

/// Puts the content of `from` at `to` in one step; leaves `to` alone when it is the same, so that
/// the agent is not compiled again.
fn copy_if_changed(from: &Path, to: &Path) -> Result<bool> {
    let new = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(false);
    }
    let beside = to.with_extension(format!("o.{}", std::process::id()));
    fs::write(&beside, &new).with_context(|| format!("cannot write {}", beside.display()))?;
    fs::rename(&beside, to)
        .with_context(|| format!("cannot move {} to {}", beside.display(), to.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_object_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("a"), folder.path().join("b.o"));
        fs::write(&from, b"one").unwrap();
        assert!(copy_if_changed(&from, &to).unwrap());
        let written = to.metadata().unwrap().modified().unwrap();
        assert!(!copy_if_changed(&from, &to).unwrap());
        assert_eq!(to.metadata().unwrap().modified().unwrap(), written);
        fs::write(&from, b"two").unwrap();
        assert!(copy_if_changed(&from, &to).unwrap());
        assert_eq!(fs::read(&to).unwrap(), b"two");
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            2,
            "nothing is left over"
        );
    }

    #[test]
    fn the_linker_may_be_in_a_folder_with_spaces() {
        let flags = flags(Path::new("/a b/bpf-linker"));
        assert!(
            flags
                .to_str()
                .unwrap()
                .ends_with("\x1f-C\x1flinker=/a b/bpf-linker")
        );
    }
}
