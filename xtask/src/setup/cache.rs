//! The folder outside the checkout where tools are kept, built once per machine.

use std::env;
use std::fs::{self, File, TryLockError};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// `$MATCHER_CACHE`, `$XDG_CACHE_HOME/matcher` or `~/.cache/matcher`.
pub fn folder() -> Result<PathBuf> {
    let set = |name: &str| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(own) = set("MATCHER_CACHE") {
        return Ok(own);
    }
    if let Some(base) = set("XDG_CACHE_HOME") {
        return Ok(base.join("matcher"));
    }
    match set("HOME") {
        Some(home) => Ok(home.join(".cache/matcher")),
        None => bail!("no cache folder: set MATCHER_CACHE, XDG_CACHE_HOME or HOME"),
    }
}

/// Where a long step writes what it says.
pub fn log(step: &str) -> Result<PathBuf> {
    Ok(folder()?.join("log").join(format!("{step}.log")))
}

/// Held while something is being installed; another run waits. Let go when dropped, also when
/// the process dies.
#[must_use]
pub struct Lock {
    _file: File,
}

/// Takes the lock of the cache.
pub fn lock() -> Result<Lock> {
    let folder = folder()?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            eprintln!(
                "another set-up is running: waiting for it ({})",
                path.display()
            );
            file.lock()
                .with_context(|| format!("cannot lock {}", path.display()))?;
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    Ok(Lock { _file: file })
}
