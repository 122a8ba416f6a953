//! A Rust compiler for the kernel program.
//!
//! `bpfel-unknown-none` ships no precompiled `core`, so the compiler must have the library
//! sources beside it (`-Zbuild-std=core`). Its LLVM number is asked of the compiler itself:
//! distributions move it.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::cache;
use crate::{process, progress, workspace};

/// Debian's compiler for browsers, kept new in stable releases, and its sources.
pub const DEBIAN: &[&str] = &["rustc-web", "cargo-web", "rust-web-src"];

/// rustup without network gives up by itself, mostly.
const COMPONENT_LIMIT: Duration = Duration::from_secs(120);

/// A compiler with the sources of `core`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiler {
    /// Where from, for messages.
    pub origin: &'static str,
    /// Holds `bin/rustc`, `bin/cargo` and `lib/rustlib/src`.
    pub sysroot: PathBuf,
    /// As it says itself, such as `1.95.0`.
    pub release: String,
    /// Major number of its LLVM.
    pub llvm: u32,
}

impl Compiler {
    /// The compiler's path.
    pub fn rustc(&self) -> PathBuf {
        self.sysroot.join("bin/rustc")
    }

    /// The cargo of the same release.
    pub fn cargo(&self) -> PathBuf {
        self.sysroot.join("bin/cargo")
    }

    /// Whether the distribution's package manager put it there.
    pub fn is_system(&self) -> bool {
        self.sysroot == Path::new("/usr")
    }

    /// A cargo command that uses this compiler and nothing of the one that runs xtask.
    pub fn command(&self) -> Command {
        let bin = self.sysroot.join("bin");
        let mut command = Command::new(self.cargo());
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths(std::iter::once(bin).chain(env::split_paths(&path)));
        command
            .env("PATH", path.unwrap_or_default())
            .env("RUSTC", self.rustc())
            // -Zbuild-std on a stable compiler.
            .env("RUSTC_BOOTSTRAP", "1");
        for name in [
            "CARGO",
            "LD_LIBRARY_PATH",
            "RUSTUP_TOOLCHAIN",
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "RUSTC_WORKSPACE_WRAPPER",
        ] {
            command.env_remove(name);
        }
        workspace::forget_own_package(&mut command);
        command
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            origin,
            release,
            llvm,
            ..
        } = self;
        write!(
            f,
            "{} ({origin}, {release}, LLVM {llvm})",
            self.rustc().display()
        )
    }
}

/// Every usable compiler, best first; and why others are not.
pub fn find() -> (Vec<Compiler>, Vec<String>) {
    let mut found: Vec<Compiler> = Vec::new();
    let mut refused = Vec::new();
    let wanted = oldest();
    for (origin, sysroot) in places() {
        if found.iter().any(|known| known.sysroot == sysroot) {
            continue;
        }
        match look(origin, &sysroot, &wanted) {
            Ok(Some(compiler)) => found.push(compiler),
            Ok(None) => {}
            Err(reason) => refused.push(format!("{}: {reason:#}", sysroot.display())),
        }
    }
    (found, refused)
}

/// The sysroots to look at, in order of preference.
fn places() -> Vec<(&'static str, PathBuf)> {
    let mut places = Vec::new();
    // Cargo names itself by its real path, not rustup's proxy: no process needed.
    let own = env::var_os("CARGO").map(PathBuf::from);
    let own = own.as_deref().and_then(Path::parent).and_then(Path::parent);
    match own {
        Some(sysroot) if sysroot.join("bin/rustc").is_file() => {
            places.push(("the active toolchain", sysroot.to_path_buf()));
        }
        _ => {
            let mut ask = Command::new("rustc");
            if let Ok(sysroot) = process::output(ask.args(["--print", "sysroot"])) {
                places.push(("the active toolchain", PathBuf::from(sysroot.trim())));
            }
        }
    }
    // rustup keeps a toolchain in a folder of its name; asking rustup could start a download.
    let rustup = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".rustup")));
    if let Some(toolchains) = rustup.and_then(|home| fs::read_dir(home.join("toolchains")).ok()) {
        let mut nightly: Vec<PathBuf> = toolchains
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("nightly-"))
            .map(|entry| entry.path())
            .collect();
        nightly.sort();
        places.extend(
            nightly
                .into_iter()
                .map(|sysroot| ("rustup nightly", sysroot)),
        );
    }
    places.push(("the system's", PathBuf::from("/usr")));
    places
}

/// The compiler of one sysroot; `None` when there is none at all.
fn look(origin: &'static str, sysroot: &Path, wanted: &Option<String>) -> Result<Option<Compiler>> {
    let rustc = sysroot.join("bin/rustc");
    if !rustc.is_file() {
        return Ok(None);
    }
    if !sysroot
        .join("lib/rustlib/src/rust/library/core/Cargo.toml")
        .is_file()
    {
        return Err(anyhow!(
            "{} has no sources of core (rust-src)",
            rustc.display()
        ));
    }
    if !sysroot.join("bin/cargo").is_file() {
        return Err(anyhow!("{} has no cargo beside it", rustc.display()));
    }
    let mut ask = Command::new(&rustc);
    ask.arg("-vV").env_remove("LD_LIBRARY_PATH");
    let said = process::output(&mut ask)?;
    let (release, llvm) = version(&said)
        .with_context(|| format!("`{}` does not name its LLVM", process::line(&ask)))?;
    if let Some(wanted) = wanted
        && numbers(&release) < numbers(wanted)
    {
        return Err(anyhow!(
            "{} is {release}, older than {wanted}",
            rustc.display()
        ));
    }
    Ok(Some(Compiler {
        origin,
        sysroot: sysroot.to_path_buf(),
        release,
        llvm,
    }))
}

/// Release and LLVM major of `rustc -vV`.
fn version(said: &str) -> Option<(String, u32)> {
    let field = |name: &str| {
        said.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    let llvm = field("LLVM version:")?.split('.').next()?.parse().ok()?;
    Some((field("release:")?.to_owned(), llvm))
}

/// The leading numbers of a version: `1.97.0-nightly` is 1, 97, 0.
fn numbers(version: &str) -> Vec<u32> {
    let plain = version.split('-').next().unwrap_or_default();
    plain
        .split('.')
        .map_while(|part| part.parse().ok())
        .collect()
}

/// `rust-version` of the workspace: an older compiler fails late and unclearly.
fn oldest() -> Option<String> {
    let manifest = fs::read_to_string(workspace::root().join("Cargo.toml")).ok()?;
    let line = manifest
        .lines()
        .find(|line| line.starts_with("rust-version"))?;
    Some(line.split('"').nth(1)?.to_owned())
}

/// Asks rustup for the sources of the active toolchain; what happened goes to `tried`.
pub fn add_source_component(tried: &mut Vec<String>) -> Result<()> {
    let Some(rustup) = process::on_path("rustup") else {
        return Ok(());
    };
    let mut command = Command::new(rustup);
    command.args(["component", "add", "rust-src"]);
    let log = cache::log("rust-src")?;
    match progress::logged(
        "rustup component add rust-src",
        &mut command,
        &log,
        COMPONENT_LIMIT,
    ) {
        Ok(()) => {}
        Err(error) => tried.push(format!("{error:#}")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_and_llvm_are_read_from_what_the_compiler_says() {
        let said = "rustc 1.96.0 (ac68faa20 2026-05-25)\nhost: x86_64-unknown-linux-gnu\n\
                    release: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(version(said), Some(("1.96.0".to_owned(), 22)));
        assert_eq!(version("release: 1.96.0\n"), None);
    }

    #[test]
    fn versions_are_ordered_by_number() {
        assert!(numbers("1.97.0-nightly") > numbers("1.95"));
        assert!(numbers("1.9.0") < numbers("1.95"));
        assert!(numbers("1.95.0") >= numbers("1.95"));
    }

    #[test]
    fn the_workspace_names_its_oldest_compiler() {
        assert!(oldest().is_some_and(|wanted| numbers(&wanted) >= vec![1, 85]));
    }

    #[test]
    fn a_compiler_without_sources_is_refused_by_name() {
        let sysroot = tempfile::tempdir().unwrap();
        fs::create_dir(sysroot.path().join("bin")).unwrap();
        assert_eq!(
            look("x", sysroot.path(), &None).unwrap(),
            None,
            "no compiler at all"
        );
        fs::write(sysroot.path().join("bin/rustc"), "").unwrap();
        let reason = look("x", sysroot.path(), &None).unwrap_err().to_string();
        assert!(
            reason.contains("bin/rustc has no sources of core"),
            "{reason}"
        );
    }
}
