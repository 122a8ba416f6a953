//! The tests of the program, for a guest: those that ask for nothing but the kernel.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{build, process, workspace};

/// Test binaries that need neither interfaces nor other programs.
const TESTS: [&str; 6] = [
    "consent_first",
    "decision",
    "edge_packets",
    "folding",
    "parser_agreement",
    "shared_addresses",
];

/// Builds them, and gives copies without debug information.
pub fn build() -> Result<Vec<PathBuf>> {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--package", "matcher-tests", "--no-run"]);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    for test in TESTS {
        cargo.args(["--test", test]);
    }
    cargo.env("MATCHER_EBPF_OBJECT", build::object()?);
    let messages = process::output(&mut cargo)?;
    let folder = workspace::target_dir().join("kernels/tests");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    TESTS
        .iter()
        .map(|test| {
            let built = messages
                .lines()
                .find_map(|message| executable(message, test))
                .with_context(|| format!("cargo built no test {test}"))?;
            let stripped = folder.join(test);
            let mut strip = Command::new("strip");
            strip.arg("-o").arg(&stripped).arg(&built);
            // It is there wherever there is a linker.
            process::run(&mut strip)?;
            Ok(stripped)
        })
        .collect()
}

/// The binary in a message of cargo about this test.
fn executable(message: &str, test: &str) -> Option<PathBuf> {
    let name = format!("\"name\":\"{test}\"");
    if !message.contains(&name) || !message.contains("\"kind\":[\"test\"]") {
        return None;
    }
    let (_, rest) = message.split_once("\"executable\":\"")?;
    let (path, _) = rest.split_once('"')?;
    Some(Path::new(path).to_owned())
}

/// How many tests ran in the guest, if all of them passed.
pub fn judge(said: &str) -> Result<u64> {
    let ended: Vec<(&str, &str)> = said
        .lines()
        .filter_map(|line| line.trim().strip_prefix("guest: test ")?.split_once(' '))
        .collect();
    if ended.is_empty() {
        bail!("no test ran:\n{said}");
    }
    if let Some((status, test)) = ended.iter().find(|(status, _)| *status != "0") {
        bail!("{test} ended with status {status}:\n{said}");
    }
    Ok(said
        .lines()
        .filter_map(|line| line.trim().strip_prefix("test result: ok. "))
        .filter_map(|result| result.split_once(" passed")?.0.parse::<u64>().ok())
        .sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_that_passed_are_counted() {
        let said = "test result: ok. 3 passed; 0 failed\r\nguest: test 0 /tests/a\r\n\
                    test result: ok. 40 passed; 0 failed\r\nguest: test 0 /tests/b\r\n";
        assert_eq!(judge(said).unwrap(), 43);
    }

    #[test]
    fn a_test_that_failed_or_did_not_run_is_told() {
        assert!(judge("guest: test 101 /tests/a\n").is_err());
        assert!(judge("panic: no init\n").is_err());
    }

    #[test]
    fn the_binary_of_a_test_is_found_in_what_cargo_says() {
        let message = r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"ring"},"executable":"/t/ring-1"}"#;
        assert_eq!(executable(message, "ring"), Some("/t/ring-1".into()));
        assert_eq!(executable(message, "decision"), None);
    }
}
