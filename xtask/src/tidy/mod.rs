//! `cargo xtask tidy`: what a reviewer would otherwise repeat. Reads sources only, in well under
//! a second; every finding says where, what, why and what to do.

mod abi;
mod borders;
mod commands;
mod config_keys;
mod leftovers;
mod rust;
mod street;

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Folders and files of the project; everything else in the checkout is not its source.
const PARTS: &[&str] = &[
    ".cargo",
    ".ci",
    ".editorconfig",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "Cargo.toml",
    "PRINCIPLES.md",
    "README.md",
    "clippy.toml",
    "deny.toml",
    "docs",
    "fuzz",
    "matcher-common",
    "matcher-ebpf",
    "matcher-user",
    "matcher.example.toml",
    "rustfmt.toml",
    "scripts",
    "tests",
    "xtask",
];

/// Options of `cargo xtask tidy`.
#[derive(clap::Args)]
pub struct Args {
    /// Record the ABI as it is now, after ABI_VERSION was raised
    #[arg(long)]
    bless: bool,
}

/// One file of the project.
#[derive(Debug)]
pub struct Source {
    /// From the checkout's root, with `/`.
    pub path: String,
    /// Its content.
    pub text: String,
}

impl Source {
    /// Whether it is Rust.
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

/// Something that must not stay, or (a warning) should not.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// File, from the checkout's root.
    pub file: String,
    /// Line, 1-based; 0 for the file as a whole.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// Why that matters.
    pub why: &'static str,
    /// What to do.
    pub fix: String,
    /// Shown, but no failure.
    pub warning: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.warning { "warning" } else { "error" };
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(
            f,
            ": {kind}: {}\n    why: {}\n    do:  {}",
            self.what, self.why, self.fix
        )
    }
}

/// Runs `cargo xtask tidy`.
pub fn run(args: Args) -> Result<()> {
    if args.bless {
        println!(
            "{}",
            abi::bless(&workspace::root(), &sources(&workspace::root())?)?
        );
    }
    check()
}

/// Every check, over the whole checkout.
pub fn check() -> Result<()> {
    let sources = sources(&workspace::root())?;
    let mut findings = Vec::new();
    findings.extend(street::check(&sources));
    findings.extend(borders::check(&sources));
    findings.extend(abi::check(&sources));
    findings.extend(config_keys::check(&sources));
    findings.extend(leftovers::check(&sources));
    findings.extend(commands::check(&sources, &crate::subcommands()));
    findings.sort_by(|a, b| (a.warning, &a.file, a.line).cmp(&(b.warning, &b.file, b.line)));
    for finding in &findings {
        println!("{finding}");
    }
    let errors = findings.iter().filter(|finding| !finding.warning).count();
    let warnings = findings.len() - errors;
    println!(
        "tidy: {} files, {errors} errors, {warnings} warnings",
        sources.len()
    );
    if errors > 0 {
        bail!("tidy found {errors} errors");
    }
    Ok(())
}

/// Reads the project's text files.
fn sources(root: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for part in PARTS {
        let path = root.join(part);
        if path.exists() {
            read(root, &path, &mut sources)?;
        }
    }
    Ok(sources)
}

fn read(root: &Path, path: &Path, sources: &mut Vec<Source>) -> Result<()> {
    let context = || format!("cannot read {}", path.display());
    if path.is_dir() {
        if path.file_name().is_some_and(|name| name == "target") {
            return Ok(());
        }
        let mut entries: Vec<_> = fs::read_dir(path)
            .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
            .with_context(context)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            read(root, &entry.path(), sources)?;
        }
        return Ok(());
    }
    // Captures and the like are no text.
    if let Ok(text) = String::from_utf8(fs::read(path).with_context(context)?) {
        let relative = path.strip_prefix(root).unwrap_or(path);
        sources.push(Source {
            path: relative.to_string_lossy().into_owned(),
            text,
        });
    }
    Ok(())
}

/// What the checks' own tests share.
#[cfg(test)]
mod samples {
    use super::{Finding, Source};

    /// A file of the project, for a check's test.
    pub(super) fn source(path: &str, text: &str) -> Source {
        Source {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    /// "file:line what" of each finding.
    pub(super) fn short(findings: &[Finding]) -> Vec<String> {
        findings
            .iter()
            .map(|f| format!("{}:{} {}", f.file, f.line, f.what))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_says_where_what_why_and_what_to_do() {
        let finding = Finding {
            file: "a.rs".to_owned(),
            line: 3,
            what: "wrong".to_owned(),
            why: "because",
            fix: "change it".to_owned(),
            warning: false,
        };
        assert_eq!(
            finding.to_string(),
            "a.rs:3: error: wrong\n    why: because\n    do:  change it"
        );
    }

    #[test]
    fn files_of_the_project_are_read_and_build_output_is_not() {
        let root = tempfile::tempdir().unwrap();
        for file in [
            "xtask/src/main.rs",
            "matcher-ebpf/target/x.rs",
            "elsewhere/y.rs",
        ] {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "fn main() {}\n").unwrap();
        }
        fs::write(
            root.path().join("xtask/capture.pcap"),
            [0xd4, 0xc3, 0xb2, 0xa1],
        )
        .unwrap();
        let paths: Vec<String> = sources(root.path())
            .unwrap()
            .into_iter()
            .map(|source| source.path)
            .collect();
        assert_eq!(paths, ["xtask/src/main.rs"]);
    }
}
