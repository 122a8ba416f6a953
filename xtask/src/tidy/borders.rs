//! Names that belong to one place only.

use super::rust::{Kind, code};
use super::{Finding, Source};

/// A crate, and the only places that may name it.
struct Border {
    /// The crate's name; names that continue it with `_` belong to it.
    name: &'static str,
    /// Where the rule holds.
    within: &'static [&'static str],
    /// Where the name may be used all the same.
    except: &'static [&'static str],
    why: &'static str,
    fix: &'static str,
}

const BORDERS: [Border; 2] = [
    Border {
        name: "aya",
        within: &["matcher-user/", "tests/", "xtask/"],
        except: &["matcher-user/src/kernel.rs", "matcher-user/src/kernel/"],
        why: "the kernel side may become a process of its own: everything else goes through one narrow interface",
        fix: "call, or extend, what matcher-user/src/kernel/ offers",
    },
    Border {
        name: "anyhow",
        within: &[
            "matcher-common/src/",
            "matcher-ebpf/src/",
            "matcher-user/src/",
        ],
        except: &[
            "matcher-user/src/main.rs",
            "matcher-user/src/commands.rs",
            "matcher-user/src/commands/",
        ],
        why: "an error of the library is a type that its caller can tell apart",
        fix: "make it a thiserror type with file, line or address in it",
    },
];

/// Checks every border.
pub fn check(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let lies_in = |path: &str, places: &[&str]| places.iter().any(|place| path.starts_with(place));
    for source in sources.iter().filter(|source| source.is_rust()) {
        let borders: Vec<&Border> = BORDERS
            .iter()
            .filter(|border| lies_in(&source.path, border.within))
            .filter(|border| !lies_in(&source.path, border.except))
            .collect();
        if borders.is_empty() {
            continue;
        }
        for token in code(&source.text)
            .iter()
            .filter(|token| token.kind == Kind::Word)
        {
            let crossed = borders.iter().find(|border| {
                token
                    .text
                    .strip_prefix(border.name)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
            });
            if let Some(border) = crossed {
                findings.push(Finding {
                    file: source.path.clone(),
                    line: token.line,
                    what: format!("`{}` does not belong here", token.text),
                    why: border.why,
                    fix: border.fix.to_owned(),
                    warning: false,
                });
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::samples::{short, source};
    use super::*;

    #[test]
    fn the_kernel_stage_names_aya_and_the_commands_name_anyhow() {
        let good = [
            source("matcher-user/src/kernel/maps.rs", "use aya::maps::Array;"),
            source("matcher-user/src/commands/run.rs", "use anyhow::Result;"),
            source(
                "matcher-user/src/drain.rs",
                "// aya\nlet ayacht = \"anyhow\";",
            ),
            source("xtask/src/main.rs", "use anyhow::Result;"),
            source("matcher-ebpf/src/main.rs", "use aya_ebpf::macros::xdp;"),
        ];
        assert_eq!(short(&check(&good)), [""; 0]);
    }

    #[test]
    fn anybody_else_does_not() {
        let bad = [
            source("matcher-user/src/drain.rs", "\nuse aya::maps::RingBuf;"),
            source("matcher-user/src/tables.rs", "fn f(x: aya_obj::Object) {}"),
            source("matcher-user/src/feeds/mod.rs", "use anyhow::Context;"),
            source("tests/src/lab.rs", "use aya::Ebpf;"),
        ];
        assert_eq!(
            short(&check(&bad)),
            [
                "matcher-user/src/drain.rs:2 `aya` does not belong here",
                "matcher-user/src/tables.rs:1 `aya_obj` does not belong here",
                "matcher-user/src/feeds/mod.rs:1 `anyhow` does not belong here",
                "tests/src/lab.rs:1 `aya` does not belong here",
            ]
        );
    }
}
