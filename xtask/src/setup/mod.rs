//! `cargo xtask setup`: finds what building and testing needs, or installs it.
//!
//! Other subcommands call [`ensure`] or [`ebpf`] first; both are quick when everything is there.

pub mod cache;
mod compiler;
mod install;
mod linker;
mod packages;

use std::fmt;
use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::Result;

use crate::process;
use packages::{
    BPFTOOL, BUSYBOX, CC, CXX, GIT, IP, IPSET, IPTABLES, NFT, NSENTER, QEMU, TSHARK, XDP_FILTER,
};

pub use compiler::Compiler;

/// What `cargo deny` is here; newer ones may judge the same `deny.toml` differently.
const CARGO_DENY: &str = "0.20.2";

/// Builds and runs fuzz targets.
const CARGO_FUZZ: &str = "0.13.2";

/// Options of `cargo xtask setup`.
#[derive(clap::Args)]
pub struct Args {
    /// What this machine is to be set up for
    #[arg(long = "for", value_enum, default_value = "build")]
    need: Need,
}

/// What a subcommand is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Need {
    /// Compile the kernel program and the agent.
    Build,
    /// The same, and make network namespaces.
    Lab,
    /// The same, and compare with other programs where they can be had.
    Test,
    /// The same, and judge the dependencies.
    Ci,
    /// As to build, and compare with other programs: without them it is pointless.
    Oracle,
    /// As to build, and fuzz.
    Fuzz,
    /// As to build, and boot other kernels.
    Emulator,
    /// As to build, and measure other products where they can be had.
    Bench,
}

/// The machine lacks something that this checkout cannot install: exit status 3.
#[derive(Debug)]
pub struct Missing {
    /// What, and which commands would help.
    pub what: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Missing {}

/// What compiles the kernel program.
pub struct Ebpf {
    /// The compiler, with the sources of `core` beside it.
    pub compiler: Compiler,
    /// A bpf-linker whose LLVM can read what this compiler writes.
    pub linker: PathBuf,
}

/// Runs `cargo xtask setup`.
pub fn run(args: Args) -> Result<()> {
    ensure(args.need)?;
    match given_object() {
        Some(object) => println!(
            "kernel program:      {} (MATCHER_EBPF_OBJECT)",
            object.display()
        ),
        None => {
            let ebpf = ebpf()?;
            println!("compiler:            {}", ebpf.compiler);
            println!("bpf-linker:          {}", ebpf.linker.display());
        }
    }
    for tool in packages::TOOLS {
        let place = process::on_path(tool.program);
        let place = place.map_or_else(
            || format!("not here ({}; {})", tool.why, tool.install()),
            |place| place.display().to_string(),
        );
        println!("{:<21}{place}", format!("{}:", tool.program));
    }
    Ok(())
}

/// Makes sure that this machine can do what is about to be done.
///
/// # Errors
/// [`Missing`] when it cannot and no way to change that from here worked.
pub fn ensure(need: Need) -> Result<()> {
    packages::require(CC)?;
    if given_object().is_none() {
        ebpf()?;
    }
    let (required, wished): (&[_], &[_]) = match need {
        Need::Build => (&[], &[]),
        Need::Lab => (&[IP, NSENTER], &[]),
        Need::Test => (&[IP, NSENTER], &[TSHARK, BPFTOOL]),
        Need::Ci => (&[IP, NSENTER, GIT], &[TSHARK, BPFTOOL]),
        Need::Oracle => (&[TSHARK], &[]),
        Need::Fuzz => (&[CXX], &[]),
        Need::Emulator => (&[QEMU, BUSYBOX], &[]),
        Need::Bench => (&[], &[IP, NSENTER, NFT, IPTABLES, IPSET, XDP_FILTER]),
    };
    for tool in required {
        packages::require(tool)?;
    }
    for tool in wished {
        packages::wish(tool)?;
    }
    if need == Need::Ci {
        cargo_deny()?;
    }
    Ok(())
}

/// The kernel program that the user built elsewhere, if any: then no BPF toolchain is needed.
pub fn given_object() -> Option<PathBuf> {
    std::env::var_os("MATCHER_EBPF_OBJECT")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
}

/// The compiler and the linker of the kernel program; installs what is missing.
///
/// # Errors
/// [`Missing`] when there is no way to them from here.
pub fn ebpf() -> Result<&'static Ebpf> {
    // Several steps of one run ask.
    static KNOWN: OnceLock<Ebpf> = OnceLock::new();
    if let Some(known) = KNOWN.get() {
        return Ok(known);
    }
    let found = find_or_install()?;
    Ok(KNOWN.get_or_init(|| found))
}

fn find_or_install() -> Result<Ebpf> {
    let (found, _) = compiler::find();
    if let Some(ready) = linker::ready(&found) {
        return Ok(ready);
    }
    // From here on it is slow and changes the machine: one run at a time.
    let _lock = cache::lock()?;
    let (mut found, mut refused) = compiler::find();
    if let Some(ready) = linker::ready(&found) {
        return Ok(ready);
    }
    let mut tried = Vec::new();
    if found.is_empty() {
        compiler::add_source_component(&mut tried)?;
        (found, refused) = compiler::find();
    }
    if let Some(ready) = linker::obtain(&found, &mut tried)? {
        return Ok(ready);
    }
    // Either no compiler with sources, or one that no LLVM of this machine can follow: Debian's
    // own compiler and Debian's own LLVM fit each other.
    if !found.iter().any(Compiler::is_system) && packages::install(compiler::DEBIAN, &mut tried)? {
        (found, refused) = compiler::find();
        if let Some(ready) = linker::obtain(&found, &mut tried)? {
            return Ok(ready);
        }
    }
    Err(hopeless(&found, &refused, &tried).into())
}

/// The `cargo-deny` that this checkout pins, built once per machine.
pub fn cargo_deny() -> Result<PathBuf> {
    pinned("cargo-deny", CARGO_DENY)
}

/// The `cargo-fuzz` that this checkout pins, built once per machine.
pub fn cargo_fuzz() -> Result<PathBuf> {
    pinned("cargo-fuzz", CARGO_FUZZ)
}

/// A tool of exactly this release: the one on `PATH`, or one built into the cache.
fn pinned(name: &'static str, version: &'static str) -> Result<PathBuf> {
    if let Some(own) = process::on_path(name) {
        let said = process::output(std::process::Command::new(&own).arg("--version"));
        if said.is_ok_and(|said| said.trim().ends_with(&format!(" {version}"))) {
            return Ok(own);
        }
    }
    let install = install::Install {
        name,
        version,
        variant: "",
        options: &[],
        environment: &[],
    };
    if let Some(there) = install.there()? {
        return Ok(there);
    }
    let _lock = cache::lock()?;
    install.run(&format!("building {name} (once per machine, some minutes)"))
}

/// Says what was found, what was tried and what a person can do.
fn hopeless(found: &[Compiler], refused: &[String], tried: &[String]) -> Missing {
    let mut what = String::from("this machine cannot compile the kernel program.");
    for compiler in found {
        what.push_str(&format!(
            "\n  found: {compiler}, but no bpf-linker with LLVM {} or newer",
            compiler.llvm
        ));
    }
    for reason in refused {
        what.push_str(&format!("\n  not usable: {reason}"));
    }
    for attempt in tried {
        what.push_str(&format!("\n  tried: {attempt}"));
    }
    let llvm = found
        .first()
        .map_or_else(|| "N".to_owned(), |compiler| compiler.llvm.to_string());
    what.push_str(&format!(
        "\nOne of these would help:\
         \n  rustup component add rust-src            (sources of core for the installed compiler)\
         \n  apt-get install {}   (Debian, as root: a compiler with sources)\
         \n  apt-get install llvm-{llvm}-dev              (so that bpf-linker can be built; {llvm}: the LLVM of `rustc -vV`)\
         \n  a bpf-linker of https://github.com/aya-rs/bpf-linker/releases on PATH\
         \n  MATCHER_EBPF_OBJECT=FILE                 (a kernel program built elsewhere)",
        compiler::DEBIAN.join(" "),
    ));
    Missing { what }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_cannot_build_is_told_why_and_what_helps() {
        let refused = ["rustup stable: no rust-src".to_owned()];
        let tried = ["`rustup component add rust-src` failed: exit status: 1".to_owned()];
        let said = hopeless(&[], &refused, &tried).to_string();
        for part in [
            "not usable: rustup stable",
            "tried: `rustup",
            "apt-get install rustc-web",
        ] {
            assert!(said.contains(part), "{part} is not in:\n{said}");
        }
    }
}
