//! Where and with what figures were taken. What cannot be found out is left
//! out of the report, never guessed.

use std::{fs, path::Path, process::Command, thread};

use anyhow::{Context, Result};
use jiff::{Timestamp, Unit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::{Value, json};

/// The machine, the kernel, and what was built.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The processor's name for itself.
    pub cpu: Option<String>,
    /// Processors that this process may use.
    pub cpus: Option<usize>,
    /// Memory in MiB.
    pub memory_mib: Option<u64>,
    /// Release of the running kernel.
    pub kernel: String,
    /// Runnable tasks over the last minute, before the benchmark began: above
    /// 1 or so, others disturbed it.
    pub load_average: Option<f64>,
    /// Commit of the checkout, with `-dirty` when files differ from it.
    pub commit: Option<String>,
    /// Compiler of the kernel program, as its debug information names it.
    pub compiler: Option<String>,
    /// Whether the agent's side was built with optimisation: only the times of
    /// loading depend on it.
    pub optimised: bool,
    /// When.
    pub date: Timestamp,
}

impl Machine {
    /// This machine, and the object file that is measured.
    ///
    /// # Errors
    /// The object file cannot be read.
    pub fn here(object: &Path) -> Result<Self> {
        let bytes =
            fs::read(object).with_context(|| format!("cannot read {}", object.display()))?;
        let now = Timestamp::now();
        Ok(Self {
            cpu: field("/proc/cpuinfo", "model name"),
            cpus: thread::available_parallelism().ok().map(usize::from),
            memory_mib: field("/proc/meminfo", "MemTotal")
                .and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
                .map(|kib| kib / 1024),
            kernel: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            load_average: fs::read_to_string("/proc/loadavg")
                .ok()
                .and_then(|text| text.split(' ').next()?.parse().ok()),
            commit: commit(),
            compiler: compiler(&bytes),
            optimised: !cfg!(debug_assertions),
            date: now.round(Unit::Second).unwrap_or(now),
        })
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "cpu": self.cpu,
            "cpus": self.cpus,
            "memory_mib": self.memory_mib,
            "kernel": self.kernel,
            "load_average": self.load_average,
        })
    }
}

/// The value of `name : value` in a file of /proc.
fn field(path: &str, name: &str) -> Option<String> {
    fs::read_to_string(path).ok()?.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(["-C", env!("CARGO_MANIFEST_DIR")])
            .args(arguments)
            .output()
            .ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(match changed.is_empty() {
        true => commit,
        false => format!("{commit}-dirty"),
    })
}

/// "rustc 1.95.0 (59807616e 2026-04-14)": the compiler writes it into the
/// debug information as "... (rustc version 1.95.0 (59807616e 2026-04-14))".
fn compiler(object: &[u8]) -> Option<String> {
    const MARK: &[u8] = b"(rustc version ";
    let at = object
        .windows(MARK.len())
        .position(|window| window == MARK)?;
    let text = &object[at + MARK.len()..];
    let end = text.iter().position(|byte| *byte == 0)?;
    let version = String::from_utf8_lossy(&text[..end]);
    Some(format!(
        "rustc {}",
        version.strip_suffix(')').unwrap_or(&version)
    ))
}

/// The CPUs of a benchmark.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Cpus {
    /// Where packets are handled: the last that this process may use.
    pub packets: usize,
    /// Where the agent's part runs meanwhile; `None` on a machine with one.
    pub beside: Option<usize>,
    /// All that this process might use when it began.
    all: CpuSet,
}

impl Cpus {
    /// Those that this process may use.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn here() -> Result<Self> {
        let allowed = sched_getaffinity(None).context("cannot ask which CPUs may be used")?;
        let mut from_last = (0..CpuSet::MAX_CPU)
            .rev()
            .filter(|cpu| allowed.is_set(*cpu));
        Ok(Self {
            packets: from_last.next().context("no CPU may be used")?,
            beside: from_last.next(),
            all: allowed,
        })
    }

    /// Lets this thread, and what it starts, use all of them, as the agent does.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn use_all(&self) -> Result<()> {
        sched_setaffinity(None, &self.all).context("cannot use all CPUs")
    }
}

/// Keeps this thread, and those that it starts, on one CPU: a program that
/// changes CPU between two calls begins with cold caches.
///
/// # Errors
/// The kernel refuses.
pub fn stay_on(cpu: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only).with_context(|| format!("cannot stay on CPU {cpu}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiler_is_read_from_debug_information() {
        let object = b"\0clang LLVM (rustc version 1.95.0 (59807616e 2026-04-14))\0next";
        assert_eq!(
            compiler(object).as_deref(),
            Some("rustc 1.95.0 (59807616e 2026-04-14)")
        );
        assert_eq!(compiler(b"stripped"), None);
    }
}
