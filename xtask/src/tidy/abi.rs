//! A changed ABI needs a new `ABI_VERSION`: otherwise an agent would read the pinned maps of an
//! older program wrongly.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::rust::{after_group, code};
use super::{Finding, Source};
use crate::process;

/// Records version and fingerprint of the ABI that was last accepted.
const LOCK: &str = "matcher-common/abi.lock";
const WHY: &str =
    "kernel program, pinned maps and agent of different builds meet on a running machine";

/// The ABI of some state of the sources.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Abi {
    version: u32,
    fingerprint: String,
}

/// Checks that the recorded ABI is the one in the sources.
pub fn check(sources: &[Source]) -> Vec<Finding> {
    let Some(file) = files(sources).next() else {
        return Vec::new();
    };
    let finding = |what: &str, fix: &str| {
        vec![Finding {
            file: file.path.clone(),
            line: 0,
            what: what.to_owned(),
            why: WHY,
            fix: fix.to_owned(),
            warning: false,
        }]
    };
    let Some(now) = of(sources) else {
        return finding("no `pub const ABI_VERSION: u32 = N;` here", "declare it");
    };
    let lock = sources.iter().find(|source| source.path == LOCK);
    match lock.map(|lock| parse(&lock.text)) {
        None => finding(
            &format!("{LOCK} is missing"),
            "run `cargo xtask tidy --bless`",
        ),
        Some(None) => finding(&format!("{LOCK} is not readable"), "restore it from git"),
        Some(Some(locked)) if locked == now => Vec::new(),
        Some(Some(locked)) if locked.version == now.version => finding(
            &format!("the ABI changed, ABI_VERSION is still {}", now.version),
            "raise ABI_VERSION, then run `cargo xtask tidy --bless`",
        ),
        Some(Some(locked)) => finding(
            &format!(
                "ABI_VERSION is {}, {LOCK} records {}",
                now.version, locked.version
            ),
            "run `cargo xtask tidy --bless`",
        ),
    }
}

/// Records the ABI of the sources.
///
/// # Errors
/// When it changed and its version did not, compared with the record and with that of the last
/// commit.
pub fn bless(root: &Path, sources: &[Source]) -> Result<String> {
    let Some(now) = of(sources) else {
        bail!("no `pub const ABI_VERSION: u32 = N;` in matcher-common/src/abi");
    };
    let lock = sources.iter().find(|source| source.path == LOCK);
    let recorded = lock.and_then(|lock| parse(&lock.text));
    let mut show = Command::new("git");
    show.current_dir(root)
        .args(["show", &format!("HEAD:{LOCK}")]);
    // No git, no commit or no such file in it: nothing was promised to anybody yet.
    let committed = process::output(&mut show)
        .ok()
        .and_then(|text| parse(&text));
    accept(&now, recorded.as_ref(), committed.as_ref())?;
    let text = format!(
        "# The ABI that the sources were last accepted with; written by `cargo xtask tidy --bless`.\n\
         version = {}\nfingerprint = \"{}\"\n",
        now.version, now.fingerprint
    );
    fs::write(root.join(LOCK), text).with_context(|| format!("cannot write {LOCK}"))?;
    Ok(format!(
        "{LOCK}: version {}, fingerprint {}",
        now.version, now.fingerprint
    ))
}

/// Whether `now` may be recorded: it is what was committed, or has a higher version, or nothing
/// was committed and recorded with the same version.
fn accept(now: &Abi, recorded: Option<&Abi>, committed: Option<&Abi>) -> Result<()> {
    // Between two commits the ABI may change many times under one new version.
    let Some(promised) = committed.or(recorded) else {
        return Ok(());
    };
    if now == promised || now.version > promised.version {
        return Ok(());
    }
    bail!(
        "the ABI changed: raise ABI_VERSION above {} before it is recorded ({WHY})",
        promised.version
    )
}

/// The sources of the ABI, without their tests, in order of path.
fn files(sources: &[Source]) -> impl Iterator<Item = &Source> {
    sources.iter().filter(|source| {
        source.path == "matcher-common/src/abi.rs"
            || source.path.starts_with("matcher-common/src/abi/")
                && source.is_rust()
                && !source.path.ends_with("/tests.rs")
    })
}

/// The ABI of the sources, when they declare a version.
fn of(sources: &[Source]) -> Option<Abi> {
    let mut version = None;
    let mut hash = Fnv::new();
    for source in files(sources) {
        let tokens = code(&source.text);
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            let next = |offset: usize| tokens.get(at + offset);
            // Tests may change freely.
            if token.is("#")
                && next(2).is_some_and(|token| token.is("cfg"))
                && next(4).is_some_and(|token| token.is("test"))
                && next(7).is_some_and(|token| token.is("mod"))
            {
                let body = at + 9;
                at = if next(9).is_some_and(|token| token.is("{")) {
                    after_group(&tokens, body)
                } else {
                    body + 1
                };
                continue;
            }
            // The version is compared by itself.
            if token.is("ABI_VERSION") && next(1).is_some_and(|token| token.is(":")) {
                version = next(4).and_then(|number| number.text.parse().ok());
                at += 5;
                continue;
            }
            hash.add(token.text);
            at += 1;
        }
    }
    Some(Abi {
        version: version?,
        fingerprint: format!("{:016x}", hash.0),
    })
}

/// Reads an `abi.lock`.
fn parse(text: &str) -> Option<Abi> {
    let value = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once('=')?.1.trim().trim_matches('"'))
    };
    Some(Abi {
        version: value("version")?.parse().ok()?,
        fingerprint: value("fingerprint")?.to_owned(),
    })
}

/// FNV-1a, 64 bits: the same on every machine and compiler. It notices changes; nobody attacks it.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, text: &str) {
        for byte in text.bytes().chain([b'\n']) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{short, source};
    use super::*;

    const PATH: &str = "matcher-common/src/abi.rs";
    const BASE: &str = "pub const ABI_VERSION: u32 = 3;\npub struct Hit { pub a: u32 }\n";

    fn abi(text: &str) -> Abi {
        of(&[source(PATH, text)]).unwrap()
    }

    fn with_lock(text: &str, locked: &Abi) -> Vec<String> {
        let lock = format!(
            "# x\nversion = {}\nfingerprint = \"{}\"\n",
            locked.version, locked.fingerprint
        );
        short(&check(&[source(PATH, text), source(LOCK, &lock)]))
    }

    #[test]
    fn comments_layout_tests_and_the_version_are_not_part_of_the_fingerprint() {
        let same = "/// Docs.\npub const ABI_VERSION: u32 = 4;\n\npub struct Hit {\n    pub a: u32 }\n\
                    #[cfg(test)]\nmod tests { fn f() {} }\n";
        assert_eq!(abi(same).fingerprint, abi(BASE).fingerprint);
        assert_eq!((abi(BASE).version, abi(same).version), (3, 4));
    }

    #[test]
    fn a_changed_field_changes_the_fingerprint() {
        assert_ne!(
            abi(&BASE.replace("u32 }", "u64 }")).fingerprint,
            abi(BASE).fingerprint
        );
        let more = format!("{BASE}#[cfg(test)] mod tests;\npub const X: u8 = 1;");
        assert_ne!(abi(&more).fingerprint, abi(BASE).fingerprint);
    }

    #[test]
    fn an_unchanged_abi_is_accepted_and_a_changed_one_needs_a_new_version() {
        assert_eq!(with_lock(BASE, &abi(BASE)), [""; 0]);
        let changed = BASE.replace("a: u32", "b: u32");
        assert_eq!(
            with_lock(&changed, &abi(BASE)),
            [format!("{PATH}:0 the ABI changed, ABI_VERSION is still 3")]
        );
        let raised = changed.replace("= 3", "= 4");
        assert_eq!(
            with_lock(&raised, &abi(BASE)),
            [format!("{PATH}:0 ABI_VERSION is 4, {LOCK} records 3")]
        );
        assert_eq!(
            short(&check(&[source(PATH, BASE)])),
            [format!("{PATH}:0 {LOCK} is missing")]
        );
    }

    #[test]
    fn a_changed_abi_is_recorded_only_with_a_higher_version_than_the_committed_one() {
        let old = abi(BASE);
        let changed = abi(&BASE.replace("a: u32", "b: u32"));
        let raised = Abi {
            version: 4,
            ..changed.clone()
        };
        assert!(accept(&old, None, None).is_ok(), "the first");
        assert!(accept(&old, Some(&old), Some(&old)).is_ok(), "unchanged");
        assert!(accept(&changed, Some(&old), None).is_err());
        assert!(accept(&changed, Some(&old), Some(&old)).is_err());
        assert!(accept(&raised, Some(&old), Some(&old)).is_ok());
        let again = Abi {
            version: 4,
            ..abi(&BASE.replace("a: u32", "c: u32"))
        };
        assert!(
            accept(&again, Some(&raised), Some(&old)).is_ok(),
            "changed again before a commit"
        );
        let error = accept(&changed, None, Some(&old)).unwrap_err().to_string();
        assert!(error.contains("raise ABI_VERSION above 3"), "{error}");
    }
}
