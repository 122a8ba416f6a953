//! `cargo xtask oracle`: does tshark see the same in every packet of every capture?
//!
//! Captures that others made go through the program in the kernel (`matcher parse`) and through
//! tshark, which others wrote. Addresses at each IP layer, ports, protocol and fragment offset
//! must be the same; where they are not and matcher is right, `tests/oracle/explained.toml` says
//! so, packet by packet.

mod compare;
mod explained;
mod matcher;
mod report;
mod seen;
mod tshark;

use std::env;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};

use crate::build::{self, Profile};
use crate::setup::{self, Need};
use crate::{process, workspace};
use report::Report;
use seen::Theirs;
use tshark::Tshark;

/// What is explained, from the checkout's root.
const EXPLAINED: &str = "tests/oracle/explained.toml";

/// Options of `cargo xtask oracle`.
#[derive(clap::Args)]
pub struct Args {
    /// Folders that are searched for captures (pcap and pcapng), or single captures
    #[arg(required = true, value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// Explained differences [default: tests/oracle/explained.toml]
    #[arg(long, value_name = "FILE")]
    explained: Option<PathBuf>,
    /// Also what tshark sees in the packets that matcher leaves unread
    #[arg(long)]
    unread: bool,
}

/// Runs `cargo xtask oracle`.
pub fn run(args: Args) -> Result<()> {
    let explained = args.explained;
    let explained = explained.unwrap_or_else(|| workspace::root().join(EXPLAINED));
    compare_with(&args.folders, &explained, args.unread)
}

/// The captures that are no part of the repository: `MATCHER_PCAPS`, or beside the checkout.
pub fn shared_captures() -> PathBuf {
    match env::var_os("MATCHER_PCAPS").filter(|folder| !folder.is_empty()) {
        Some(folder) => folder.into(),
        None => workspace::root().join("../shared/pcaps"),
    }
}

/// The same, over these folders, with what the checkout explains.
pub fn compare(folders: &[PathBuf]) -> Result<()> {
    compare_with(folders, &workspace::root().join(EXPLAINED), false)
}

fn compare_with(folders: &[PathBuf], explained: &Path, unread: bool) -> Result<()> {
    let captures = captures(folders)?;
    setup::ensure(Need::Oracle)?;
    if !process::is_root() {
        let what = "running packets in the kernel needs root".to_owned();
        return Err(setup::Missing { what }.into());
    }
    let explained = explained::read(explained)?;
    let matcher = build::matcher(Profile::Debug)?;
    let tshark = Tshark::find()?;
    eprintln!("{} captures, {}", captures.len(), tshark.version);

    let parsed = matcher::parse(&matcher, &captures)?;
    let judged = judge(&tshark, &captures)?;
    let mut report = Report::default();
    let base = common_folder(&captures);
    for (capture, theirs) in captures.iter().zip(&judged) {
        let name = capture.strip_prefix(&base).unwrap_or(capture);
        let ours = parsed.packets.get(capture).map_or(&[][..], Vec::as_slice);
        let name = name.display().to_string();
        report.add(&name, capture, ours, theirs, &explained);
    }
    println!("{}", report.text(unread));
    for remark in parsed.remarks.lines() {
        eprintln!("matcher: {remark}");
    }
    let failures = report.failures();
    if failures.is_empty() {
        Ok(())
    } else {
        bail!("{}", failures.join("; "))
    }
}

/// What tshark says of each capture; a batch on each processor.
fn judge(tshark: &Tshark, captures: &[PathBuf]) -> Result<Vec<Vec<Theirs>>> {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let batch = captures.len().div_ceil(processors).max(1);
    thread::scope(|scope| {
        let batches = captures.chunks(batch);
        let threads: Vec<_> = batches
            .map(|batch| scope.spawn(|| tshark.read(batch)))
            .collect();
        let mut judged = Vec::new();
        for thread in threads {
            judged.extend(thread.join().map_err(|_| anyhow!("a thread died"))??);
        }
        Ok(judged)
    })
}

/// Every capture below the folders, in order, by absolute path.
fn captures(folders: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in folders {
        let folder = fs::canonicalize(folder)
            .with_context(|| format!("there is no {}", folder.display()))?;
        search(&folder, &mut found)?;
    }
    found.sort();
    found.dedup();
    if found.is_empty() {
        let folders: Vec<_> = folders
            .iter()
            .map(|folder| folder.display().to_string())
            .collect();
        bail!("no pcap or pcapng capture in {}", folders.join(", "));
    }
    Ok(found)
}

fn search(path: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let context = || format!("cannot read {}", path.display());
    if path.is_dir() {
        for entry in fs::read_dir(path).with_context(context)? {
            search(&entry.with_context(context)?.path(), found)?;
        }
    } else if path.is_file() && is_capture(path).with_context(context)? {
        found.push(path.to_path_buf());
    }
    Ok(())
}

/// By the first four bytes: names lie.
fn is_capture(path: &Path) -> std::io::Result<bool> {
    const MAGIC: [u32; 3] = [0xa1b2_c3d4, 0xa1b2_3c4d, 0x0a0d_0d0a];
    let mut start = Vec::new();
    fs::File::open(path)?.take(4).read_to_end(&mut start)?;
    Ok(<[u8; 4]>::try_from(start).is_ok_and(|start| {
        MAGIC.contains(&u32::from_le_bytes(start)) || MAGIC.contains(&u32::from_be_bytes(start))
    }))
}

/// The deepest folder that holds all captures, so that their names in the report are short.
fn common_folder(captures: &[PathBuf]) -> PathBuf {
    let mut folders = captures.iter().filter_map(|capture| capture.parent());
    let mut common = folders.next().map(Path::to_path_buf).unwrap_or_default();
    for folder in folders {
        while !folder.starts_with(&common) && common.pop() {}
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captures_are_found_by_their_content_in_folders_below() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/b");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("x.bin"), [0xd4, 0xc3, 0xb2, 0xa1, 2, 0]).unwrap();
        fs::write(root.path().join("y"), [0x0a, 0x0d, 0x0d, 0x0a, 28]).unwrap();
        fs::write(root.path().join("z.pcap"), "text").unwrap();
        fs::write(root.path().join("short.pcap"), [0xd4]).unwrap();
        let found = captures(&[root.path().to_path_buf()]).unwrap();
        let names: Vec<_> = found.iter().filter_map(|path| path.file_name()).collect();
        assert_eq!(names, ["x.bin", "y"]);
        assert_eq!(
            common_folder(&found),
            fs::canonicalize(root.path()).unwrap()
        );
        let error = captures(&[root.path().join("short.pcap")]).unwrap_err();
        assert!(error.to_string().starts_with("no pcap or pcapng capture"));
    }
}
