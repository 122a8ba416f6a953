//! Tools that are compiled from crates.io into the cache, each release in a folder of its own.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use super::cache;
use crate::{progress, workspace};

/// Compiling is slow on small machines, but not that slow.
const LIMIT: Duration = Duration::from_secs(45 * 60);

/// A `cargo install` of one release.
pub struct Install<'a> {
    /// Crate and binary.
    pub name: &'a str,
    /// The exact release.
    pub version: &'a str,
    /// What sets this build apart from others of the same release, for the folder's name.
    pub variant: &'a str,
    /// Further options of `cargo install`.
    pub options: &'a [&'a str],
    /// Further environment variables.
    pub environment: &'a [(&'a str, PathBuf)],
}

impl Install<'_> {
    fn folder(&self) -> Result<PathBuf> {
        Ok(cache::folder()?.join(format!("{}-{}{}", self.name, self.version, self.variant)))
    }

    /// The binary, when it is there.
    pub fn there(&self) -> Result<Option<PathBuf>> {
        let binary = self.folder()?.join("bin").join(self.name);
        Ok(Some(binary).filter(|file| file.is_file()))
    }

    /// Compiles it. The caller holds the cache's lock.
    pub fn run(&self, title: &str) -> Result<PathBuf> {
        if let Some(there) = self.there()? {
            return Ok(there);
        }
        let folder = self.folder()?;
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command
            .args([
                "install",
                self.name,
                "--version",
                self.version,
                "--locked",
                "--root",
            ])
            .arg(&folder)
            .args(self.options)
            // Outside the checkout, whose .cargo/config.toml is not meant for this.
            .current_dir(cache::folder()?);
        for name in [
            "CARGO_TARGET_DIR",
            "CARGO_BUILD_TARGET",
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
        ] {
            command.env_remove(name);
        }
        workspace::forget_own_package(&mut command);
        for (name, value) in self.environment {
            command.env(name, value);
        }
        progress::logged(title, &mut command, &cache::log(self.name)?, LIMIT)?;
        match self.there()? {
            Some(binary) => Ok(binary),
            None => bail!(
                "cargo install left no {} in {}",
                self.name,
                folder.display()
            ),
        }
    }
}
