//! `cargo xtask deny`: licences, sources and advisories of everything that is compiled in.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::{process, progress, setup, workspace};

/// The advisory database is a git repository on GitHub: out of reach on closed networks.
const FETCH_LIMIT: Duration = Duration::from_secs(60);

/// Checks both workspaces: the agent's and the kernel program's.
pub fn run() -> Result<()> {
    let deny = setup::cargo_deny()?;
    let root = workspace::root();
    let advisories = fetch(&deny, &root);
    for manifest in ["Cargo.toml", "matcher-ebpf/Cargo.toml"] {
        let mut check = command(&deny, &root, manifest);
        check.args(["check", "bans", "licenses", "sources"]);
        if advisories.is_ok() {
            // Just fetched.
            check.args(["advisories", "--disable-fetch"]);
        }
        process::run(&mut check)?;
    }
    if let Err(reason) = advisories {
        println!("advisories: not checked (cannot fetch the database: {reason})");
    }
    Ok(())
}

fn command(deny: &Path, root: &Path, manifest: &str) -> Command {
    let mut command = Command::new(deny);
    command
        .current_dir(root)
        .args(["--manifest-path", manifest]);
    command
}

/// Fetches the advisory database; why not, if it cannot.
fn fetch(deny: &Path, root: &Path) -> std::result::Result<(), String> {
    let log = workspace::target_dir().join("deny-fetch.log");
    let mut fetch = command(deny, root, "Cargo.toml");
    fetch.args(["fetch", "db"]);
    progress::logged(
        "fetching the advisory database",
        &mut fetch,
        &log,
        FETCH_LIMIT,
    )
    .map_err(|error| last_line(&format!("{error:#}")).to_owned())
}

/// What git said last: the reason.
fn last_line(error: &str) -> &str {
    let lines = error.lines().rev();
    lines
        .map(|line| line.trim_start_matches([' ', '|']).trim())
        .find(|line| !line.is_empty())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_the_last_line_with_anything_in_it() {
        let error = "`cargo-deny fetch db` failed: exit status: 1\nthe end of x.log:\n  | Cloning\n  | \
                     fatal: Could not resolve host: github.com\n  | ";
        assert_eq!(
            last_line(error),
            "fatal: Could not resolve host: github.com"
        );
    }
}
