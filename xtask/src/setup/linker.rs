//! bpf-linker: links the bitcode that the compiler writes. Its LLVM must be at least as new as
//! the compiler's.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::compiler::Compiler;
use super::install::Install;
use super::{Ebpf, packages};
use crate::process;

/// The release that is built here.
const VERSION: &str = "0.13.0";
/// The LLVM majors that this release can be built against (its features `llvm-N`).
const LLVMS: [u32; 3] = [21, 22, 23];

/// The first compiler that has a linker already.
pub fn ready(found: &[Compiler]) -> Option<Ebpf> {
    found.iter().find_map(|compiler| {
        let linker = built(compiler.llvm).or_else(|| on_path(compiler.llvm))?;
        Some(Ebpf {
            compiler: compiler.clone(),
            linker,
        })
    })
}

/// Builds a linker for the first compiler that has an LLVM on this machine; else for the first
/// one whose LLVM can be installed.
pub fn obtain(found: &[Compiler], tried: &mut Vec<String>) -> Result<Option<Ebpf>> {
    if let Some(ready) = ready(found) {
        return Ok(Some(ready));
    }
    let pairs: Vec<(&Compiler, u32)> = found
        .iter()
        .flat_map(|compiler| fitting(compiler.llvm).map(move |llvm| (compiler, llvm)))
        .collect();
    for compiler in found
        .iter()
        .filter(|compiler| fitting(compiler.llvm).next().is_none())
    {
        tried.push(format!(
            "bpf-linker {VERSION} cannot follow LLVM {}",
            compiler.llvm
        ));
    }
    for (compiler, llvm) in &pairs {
        if let Some(prefix) = llvm_prefix(*llvm)
            && let Some(linker) = build(*llvm, &prefix, tried)
        {
            return Ok(Some(Ebpf {
                compiler: (*compiler).clone(),
                linker,
            }));
        }
    }
    let mut asked: Vec<u32> = Vec::new();
    for (compiler, llvm) in &pairs {
        if asked.contains(llvm) || llvm_prefix(*llvm).is_some() {
            continue;
        }
        asked.push(*llvm);
        if packages::install(&[&format!("llvm-{llvm}-dev")], tried)?
            && let Some(prefix) = llvm_prefix(*llvm)
            && let Some(linker) = build(*llvm, &prefix, tried)
        {
            let compiler = (*compiler).clone();
            return Ok(Some(Ebpf { compiler, linker }));
        }
    }
    Ok(None)
}

/// The LLVM majors that can follow a compiler's, nearest first.
fn fitting(compiler: u32) -> impl Iterator<Item = u32> {
    LLVMS.into_iter().filter(move |llvm| *llvm >= compiler)
}

/// A linker that was built here and still runs.
fn built(compiler: u32) -> Option<PathBuf> {
    fitting(compiler).find_map(|llvm| {
        let (variant, feature) = (format!("-llvm{llvm}"), format!("llvm-{llvm}"));
        let there = recipe(&variant, &options(&feature), &[])
            .there()
            .ok()
            .flatten()?;
        // It is dynamically linked: a removed LLVM package breaks it.
        llvm_of(&there).is_some().then_some(there)
    })
}

/// A linker that somebody else installed, when its LLVM is new enough.
fn on_path(compiler: u32) -> Option<PathBuf> {
    let linker = process::on_path("bpf-linker")?;
    (llvm_of(&linker)? >= compiler).then_some(linker)
}

/// The LLVM major of a linker. `--version` does not say it; LLVM's own option of that name does,
/// and it works for statically linked ones too.
fn llvm_of(linker: &Path) -> Option<u32> {
    let mut ask = Command::new(linker);
    ask.args([
        "--llvm-args=--version",
        "--output",
        "/dev/null",
        "/dev/null",
    ]);
    llvm_in(&process::output(ask.env_remove("LD_LIBRARY_PATH")).ok()?)
}

/// The major number in "Debian LLVM version 22.1.8".
fn llvm_in(said: &str) -> Option<u32> {
    let (_, rest) = said.split_once("LLVM version ")?;
    rest.split('.').next()?.trim().parse().ok()
}

/// Where LLVM's development files of that major are.
fn llvm_prefix(llvm: u32) -> Option<PathBuf> {
    let debian = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    if debian.join("bin/llvm-config").is_file() && debian.join("include/llvm-c").is_dir() {
        return Some(debian);
    }
    let config = process::on_path(&format!("llvm-config-{llvm}"))?;
    let prefix = process::output(Command::new(config).arg("--prefix")).ok()?;
    let prefix = PathBuf::from(prefix.trim());
    prefix.join("include/llvm-c").is_dir().then_some(prefix)
}

/// Compiles bpf-linker against one LLVM; a failure goes to `tried`.
fn build(llvm: u32, prefix: &Path, tried: &mut Vec<String>) -> Option<PathBuf> {
    let (variant, feature) = (format!("-llvm{llvm}"), format!("llvm-{llvm}"));
    let environment = [("LLVM_PREFIX", prefix.to_path_buf())];
    let title = format!(
        "building bpf-linker {VERSION} against LLVM {llvm} (once per machine, a minute or two)"
    );
    match recipe(&variant, &options(&feature), &environment).run(&title) {
        Ok(linker) => Some(linker),
        Err(error) => {
            tried.push(format!("{error:#}"));
            None
        }
    }
}

fn options(feature: &str) -> [&str; 3] {
    ["--no-default-features", "--features", feature]
}

fn recipe<'a>(
    variant: &'a str,
    options: &'a [&'a str],
    environment: &'a [(&'a str, PathBuf)],
) -> Install<'a> {
    Install {
        name: "bpf-linker",
        version: VERSION,
        variant,
        options,
        environment,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_llvm_as_new_as_the_compilers_fits_and_the_nearest_comes_first() {
        assert_eq!(fitting(22).collect::<Vec<_>>(), [22, 23]);
        assert_eq!(fitting(24).next(), None);
    }

    #[test]
    fn the_llvm_of_a_linker_is_read_from_what_llvm_says() {
        assert_eq!(
            llvm_in("Debian LLVM version 22.1.8\n  Optimized build.\n"),
            Some(22)
        );
        assert_eq!(
            llvm_in("LLVM (http://llvm.org/):\n  LLVM version 23.0.0git\n"),
            Some(23)
        );
        assert_eq!(llvm_in("error: unknown argument"), None);
    }
}
