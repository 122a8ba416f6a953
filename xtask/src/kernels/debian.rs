//! Debian's kernels for virtual machines: fetched once, unpacked into the cache, not installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::setup::cache;
use crate::{process, progress};

const DOWNLOAD_LIMIT: Duration = Duration::from_secs(600);

/// The boot image of the newest kernel of a series: one that was fetched before, else Debian's
/// newest.
pub fn kernel(series: &str) -> Result<PathBuf> {
    let folder = cache::folder()?.join("kernels");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    if let Some(image) = unpacked(&folder, series)? {
        return Ok(image);
    }
    let package = newest(series)?;
    let log = cache::log("kernel")?;
    let mut download = Command::new("apt-get");
    download.current_dir(&folder).args(["download", &package]);
    progress::logged(
        &format!("fetching {package}"),
        &mut download,
        &log,
        DOWNLOAD_LIMIT,
    )?;
    let start = format!("{package}_");
    let archive = files(&folder)?
        .into_iter()
        .find(|path| name(path).starts_with(&start) && name(path).ends_with(".deb"))
        .with_context(|| format!("`{}` left no package", process::line(&download)))?;
    // Unpacked beside and moved, so that a broken run leaves no half kernel.
    let part = folder.join(format!("{package}.part"));
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("--extract").arg(&archive).arg(&part);
    progress::logged(
        &format!("unpacking {package}"),
        &mut unpack,
        &log,
        DOWNLOAD_LIMIT,
    )?;
    fs::rename(&part, folder.join(&package))
        .with_context(|| format!("cannot move {}", part.display()))?;
    fs::remove_file(&archive).with_context(|| format!("cannot remove {}", archive.display()))?;
    match unpacked(&folder, series)? {
        Some(image) => Ok(image),
        None => bail!("{package} holds no boot/vmlinuz"),
    }
}

/// The newest boot image among the unpacked packages of a series.
fn unpacked(folder: &Path, series: &str) -> Result<Option<PathBuf>> {
    let mut packages: Vec<PathBuf> = files(folder)?
        .into_iter()
        .filter(|path| is_package(name(path), series) && path.is_dir())
        .collect();
    packages.sort_by_key(|path| numbers(name(path)));
    let Some(package) = packages.last() else {
        return Ok(None);
    };
    Ok(files(&package.join("boot"))?
        .into_iter()
        .find(|path| name(path).starts_with("vmlinuz-")))
}

/// Debian's newest package of a series.
fn newest(series: &str) -> Result<String> {
    let mut search = Command::new("apt-cache");
    search.args(["search", "--names-only", "^linux-image-.*-cloud-amd64$"]);
    let said = process::output(&mut search)?;
    let known = said
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    match known
        .filter(|name| is_package(name, series))
        .max_by_key(|name| numbers(name))
    {
        Some(package) => Ok(package.to_owned()),
        None => bail!(
            "`{}` knows no kernel {series} (is `apt-get update` needed?)",
            process::line(&search)
        ),
    }
}

/// Whether a package is a kernel of the series: 6.1 is not 6.12.
fn is_package(name: &str, series: &str) -> bool {
    name.strip_prefix("linux-image-")
        .and_then(|rest| rest.strip_prefix(series))
        .is_some_and(|rest| rest.starts_with('.') && rest.ends_with("-cloud-amd64"))
}

/// All numbers in a name, to order versions by.
fn numbers(name: &str) -> Vec<u32> {
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = || -> std::io::Result<Vec<PathBuf>> {
        fs::read_dir(folder)?
            .map(|entry| Ok(entry?.path()))
            .collect()
    };
    read().with_context(|| format!("cannot read {}", folder.display()))
}

fn name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_not_another_one_that_begins_alike() {
        assert!(is_package("linux-image-6.1.0-56-cloud-amd64", "6.1"));
        assert!(!is_package("linux-image-6.12.117+deb12-cloud-amd64", "6.1"));
        assert!(is_package("linux-image-6.12.117+deb12-cloud-amd64", "6.12"));
        assert!(!is_package("linux-image-6.1.0-56-cloud-amd64-dbg", "6.1"));
    }

    #[test]
    fn the_newest_unpacked_kernel_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        for release in ["6.1.0-9", "6.1.0-56", "6.12.1"] {
            let boot = folder
                .path()
                .join(format!("linux-image-{release}-cloud-amd64/boot"));
            fs::create_dir_all(&boot).unwrap();
            fs::write(boot.join(format!("vmlinuz-{release}")), "").unwrap();
        }
        let image = unpacked(folder.path(), "6.1").unwrap().unwrap();
        assert_eq!(name(&image), "vmlinuz-6.1.0-56");
        assert_eq!(unpacked(folder.path(), "6.6").unwrap(), None);
    }
}
