//! The benchmark's program in a process of its own, whose peak of memory is that
//! of one task.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// What another process told.
pub(super) struct Told(pub(super) Value);

impl Told {
    /// A number by its name.
    pub(super) fn number(&self, name: &str) -> Result<u64> {
        let Self(told) = self;
        told[name]
            .as_u64()
            .with_context(|| format!("{name} in {told}"))
    }

    /// Nanoseconds by their name.
    pub(super) fn time(&self, name: &str) -> Result<Duration> {
        self.number(name).map(Duration::from_nanos)
    }
}

/// Runs this program again; what it told.
pub(super) fn again(arguments: &[&str]) -> Result<Told> {
    let output = Command::new(std::env::current_exe()?)
        .args(arguments)
        .output()
        .context("cannot run the benchmark a second time")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    serde_json::from_slice(&output.stdout)
        .map(Told)
        .context("what the other process told")
}

/// `VmHWM`: the most memory that this process had at once.
pub(super) fn peak_bytes() -> Result<u64> {
    const PATH: &str = "/proc/self/status";
    let status = fs::read_to_string(PATH).with_context(|| format!("cannot read {PATH}"))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .with_context(|| format!("{PATH} has no VmHWM"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_of_memory_is_known() {
        assert!(peak_bytes().unwrap() > 1 << 20);
    }
}
