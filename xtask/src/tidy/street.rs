//! The one-way street: a stage of the agent knows only the stages before it.

use super::rust::{Kind, Token, after_group, code};
use super::{Finding, Source};

/// The modules of `matcher-user`, in order, and what each is. A module names only modules above
/// its own line. A new module gets a line here, as far up as what it needs allows.
const STREET: &[(&str, &str)] = &[
    ("threads", "long lists, by two threads"),
    ("protocol", "protocol numbers and names"),
    ("indicator", "what a C&C entry says"),
    ("hit", "what a match says"),
    ("feeds", "feed formats and their guards"),
    ("indicators", "all feeds as one set with stable ids"),
    ("verdicts", "what the operator found out about indicators"),
    ("consent", "opt-out lists and who allows what"),
    ("subscribers", "the subscriber spaces"),
    ("nat64", "IPv4 addresses inside IPv6 addresses"),
    (
        "config",
        "the operator's file; names feeds and consent, they do not name it",
    ),
    ("canary", "an indicator and a flow of the product's own"),
    ("fetch", "feeds from the web, and files that change"),
    (
        "tables",
        "indicators, consent and settings as the kernel wants them",
    ),
    ("kernel", "the only stage that talks to the kernel"),
    ("clock", "kernel time to wall clock"),
    ("drain", "ring buffer to hits"),
    (
        "aggregate",
        "hits of one subscriber, put together over time",
    ),
    ("candidate", "what a notification would rest on"),
    ("store", "where hits and candidates are kept"),
    ("sinks", "where hits and candidates go"),
    ("instance", "what commands and agent do to one pinned state"),
    ("control", "requests from other processes"),
    ("agent", "the running whole"),
    ("capture", "packets out of capture files"),
    ("replay", "captures through the program in the kernel"),
    ("commands", "the command line: wires all of it"),
];

const WHY: &str =
    "each stage knows only earlier ones, so that it can be read, tested and replaced alone";

/// Checks every import between the modules of `matcher-user`.
pub fn check(sources: &[Source]) -> Vec<Finding> {
    check_against(STREET, sources)
}

fn check_against(street: &[(&str, &str)], sources: &[Source]) -> Vec<Finding> {
    let place = |module: &str| street.iter().position(|(name, _)| *name == module);
    let mut findings = Vec::new();
    let mut unknown: Vec<String> = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        let Some(path) = source.path.strip_prefix("matcher-user/src/") else {
            continue;
        };
        let modules = modules_of(path);
        // lib.rs and main.rs name all stages: that is what they are for.
        let Some(own) = modules.first().map(String::as_str) else {
            continue;
        };
        let finding = |line, what, fix| Finding {
            file: source.path.clone(),
            line,
            what,
            why: WHY,
            fix,
            warning: false,
        };
        let Some(own_place) = place(own) else {
            if !unknown.iter().any(|known| known == own) {
                unknown.push(own.to_owned());
                findings.push(finding(
                    0,
                    format!("the module `{own}` has no place in the one-way street"),
                    "give it a line in the table of xtask/src/tidy/street.rs".to_owned(),
                ));
            }
            continue;
        };
        for (line, target) in targets(&code(&source.text), &modules) {
            if target == own || place(&target).is_some_and(|target| target < own_place) {
                continue;
            }
            let what = match place(&target) {
                Some(_) => format!("`{own}` names the later stage `{target}`"),
                None => format!("`{own}` names `{target}` of the crate's root, which is no stage"),
            };
            let fix = format!(
                "move what both need into a stage before `{own}`, or hand it in from `commands`"
            );
            findings.push(finding(line, what, fix));
        }
    }
    findings
}

/// `a/b.rs` and `a/b/mod.rs` are both module a, b.
fn modules_of(path: &str) -> Vec<String> {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let mut modules: Vec<String> = path.split('/').map(str::to_owned).collect();
    if matches!(
        modules.last().map(String::as_str),
        Some("mod" | "lib" | "main")
    ) {
        modules.pop();
    }
    modules
}

/// Every module at the crate's root that the code of module `own` names, with the line.
fn targets(tokens: &[Token<'_>], own: &[String]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    // Inline modules around the current token, and where each ends.
    let mut inline: Vec<(String, usize)> = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        while inline.last().is_some_and(|(_, end)| at >= *end) {
            inline.pop();
        }
        let next = |offset: usize| tokens.get(at + offset);
        if token.is("mod")
            && let (Some(name), Some(brace)) = (next(1), next(2))
            && brace.is("{")
        {
            inline.push((name.text.to_owned(), after_group(tokens, at + 2)));
        }
        let continues = at > 0 && tokens.get(at - 1).is_some_and(|before| before.is("::"));
        if continues || !next(1).is_some_and(|after| after.is("::")) {
            continue;
        }
        let mut base: Vec<&str> = own
            .iter()
            .map(String::as_str)
            .chain(inline.iter().map(|(name, _)| &**name))
            .collect();
        let mut rest = at;
        if token.is("crate") || token.is("matcher_user") {
            base.clear();
            rest += 2;
        } else if token.is("super") {
            while tokens.get(rest).is_some_and(|token| token.is("super")) {
                base.pop();
                rest += 2;
            }
        } else {
            continue;
        }
        match base.first() {
            Some(module) => found.push((token.line, (*module).to_owned())),
            None => found.extend(roots(tokens, rest)),
        }
    }
    found
}

/// The first names of what follows `crate::`: one, or those of a braced list.
fn roots(tokens: &[Token<'_>], at: usize) -> Vec<(usize, String)> {
    let Some(first) = tokens.get(at) else {
        return Vec::new();
    };
    if !first.is("{") {
        return vec![(first.line, first.text.to_owned())];
    }
    let end = after_group(tokens, at);
    let mut names = Vec::new();
    let mut depth = 0_usize;
    for at in at..end {
        let Some(token) = tokens.get(at) else { break };
        match token.text {
            "{" => depth += 1,
            "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        let begins = at > 0 && tokens.get(at - 1).is_some_and(|b| b.is("{") || b.is(","));
        if depth == 1 && begins && (token.kind == Kind::Word || token.is("*")) {
            names.push((token.line, token.text.to_owned()));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::super::samples::{short, source};
    use super::*;

    const SAMPLE: &[(&str, &str)] = &[("early", ""), ("middle", ""), ("late", "")];

    fn found(path: &str, text: &str) -> Vec<String> {
        short(&check_against(SAMPLE, &[source(path, text)]))
    }

    #[test]
    fn earlier_stages_and_the_own_one_may_be_named() {
        let text = "use crate::early::X;\nuse crate::{early, middle::{Y, late}};\nuse super::early;\n\
                    use matcher_common::late;\n// crate::late\nconst A: &str = \"crate::late\";";
        assert_eq!(found("matcher-user/src/middle.rs", text), [""; 0]);
    }

    #[test]
    fn later_stages_may_not_be_named() {
        let path = "matcher-user/src/middle/part.rs";
        let expected = |line| {
            vec![format!(
                "{path}:{line} `middle` names the later stage `late`"
            )]
        };
        for text in [
            "use crate::late::Z;",
            "use crate::{early::{A, B}, late};",
            "fn f() { crate::late::g() }",
            "use super::super::late;",
            "use matcher_user::late::Z;",
            "mod tests { use super::super::super::late::Z; }",
        ] {
            assert_eq!(found(path, text), expected(1), "{text}");
        }
        assert_eq!(
            found(path, "\n\nuse crate::{\n    early,\n    late,\n};"),
            expected(5)
        );
    }

    #[test]
    fn super_inside_the_own_stage_is_no_import() {
        let text = "use super::late;\nmod tests { use super::*; use super::super::late; }";
        assert_eq!(found("matcher-user/src/middle/part.rs", text), [""; 0]);
    }

    #[test]
    fn a_module_without_a_place_is_found_once() {
        let files = [
            source("matcher-user/src/new/mod.rs", ""),
            source("matcher-user/src/new/part.rs", ""),
            source("matcher-user/src/lib.rs", "pub mod new;"),
        ];
        assert_eq!(
            short(&check_against(SAMPLE, &files)),
            ["matcher-user/src/new/mod.rs:0 the module `new` has no place in the one-way street"]
        );
    }

    #[test]
    fn the_root_of_the_crate_is_no_stage() {
        assert_eq!(
            found("matcher-user/src/late.rs", "use crate::Thing;"),
            [
                "matcher-user/src/late.rs:1 `late` names `Thing` of the crate's root, which is no stage"
            ]
        );
        assert_eq!(found("matcher-user/src/late.rs", "use crate::*;").len(), 1);
    }

    #[test]
    fn every_stage_is_in_the_table_once() {
        for (at, (name, what)) in STREET.iter().enumerate() {
            assert!(!what.is_empty(), "{name}");
            assert!(
                !STREET.iter().skip(at + 1).any(|(other, _)| other == name),
                "{name}"
            );
        }
    }
}
