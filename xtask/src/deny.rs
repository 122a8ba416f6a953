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
    .map_err(|error| {
        let said = format!("{error:#}");
        said.lines()
            .last()
            .unwrap_or_default()
            .trim_start_matches([' ', '|'])
            .to_owned()
    })
}
