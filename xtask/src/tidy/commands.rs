//! Every command is in the README.

use super::rust::{Kind, Token, after_group, code};
use super::{Finding, Source};

const README: &str = "README.md";
const WHY: &str = "a command that the README does not name is not found by those who need it";

/// Looks for the subcommands of `cargo xtask` (given) and of `matcher` (its enum `Command`).
pub fn check(sources: &[Source], xtask: &[String]) -> Vec<Finding> {
    let finding = |file: &str, line, what, fix: &str, warning| Finding {
        file: file.to_owned(),
        line,
        what,
        why: WHY,
        fix: fix.to_owned(),
        warning,
    };
    let Some(readme) = sources.iter().find(|source| source.path == README) else {
        return vec![finding(
            README,
            0,
            "there is no README.md".to_owned(),
            "write it",
            true,
        )];
    };
    let mut findings = Vec::new();
    for name in xtask {
        if !mentions(&readme.text, "xtask", name) {
            let what = format!("`cargo xtask {name}` is not in {README}");
            findings.push(finding("xtask/src/main.rs", 0, what, "add it there", false));
        }
    }
    for source in sources {
        let path = &source.path;
        if !path.starts_with("matcher-user/src/main.rs")
            && !path.starts_with("matcher-user/src/commands")
        {
            continue;
        }
        for (line, name) in variants(&code(&source.text)) {
            if !mentions(&readme.text, "matcher", &name) {
                let what = format!("`matcher {name}` is not in {README}");
                findings.push(finding(path, line, what, "add it there", false));
            }
        }
    }
    findings
}

/// Whether the text has `program name`, `program a|name|b` or `name` by itself in code quotes.
fn mentions(text: &str, program: &str, name: &str) -> bool {
    let quoted = [format!("`{name}`"), format!("`{name} ")];
    if quoted.iter().any(|quoted| text.contains(quoted)) {
        return true;
    }
    let follows = format!("{program} ");
    text.match_indices(&follows).any(|(at, _)| {
        let rest = text.get(at + follows.len()..).unwrap_or_default();
        let list = rest
            .split(|c: char| c.is_whitespace() || c == '`')
            .next()
            .unwrap_or_default();
        list.split('|')
            .any(|word| word.trim_end_matches(['.', ',', ';', ':', ')']) == name)
    })
}

/// The variants of `enum Command`, as clap names them, with their lines.
fn variants(tokens: &[Token<'_>]) -> Vec<(usize, String)> {
    let start = tokens.windows(3).position(
        |three| matches!(three, [a, b, c] if a.is("enum") && b.is("Command") && c.is("{")),
    );
    let Some(open) = start.map(|at| at + 2) else {
        return Vec::new();
    };
    let end = after_group(tokens, open).saturating_sub(1);
    let mut found = Vec::new();
    let mut at = open + 1;
    while let Some(token) = tokens.get(at).filter(|_| at < end) {
        if token.is("#") {
            at = after_group(tokens, at + 1);
        } else if token.kind == Kind::Word {
            found.push((token.line, kebab(token.text)));
            at += 1;
            if tokens
                .get(at)
                .is_some_and(|mark| mark.is("(") || mark.is("{"))
            {
                at = after_group(tokens, at);
            }
        } else {
            at += 1;
        }
    }
    found
}

/// `StopMatching` is `stop-matching` on the command line.
fn kebab(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !text.is_empty() {
            text.push('-');
        }
        text.extend(c.to_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::samples::{short, source};
    use super::*;

    const CODE: &str = "#[derive(Subcommand)]\nenum Command {\n    /// Docs\n    Check(Args),\n    \
                        #[command(visible_alias = \"x\")]\n    StopMatching { a: u8 },\n    Tail,\n}\n";

    fn found(readme: &str) -> Vec<String> {
        let files = [
            source(README, readme),
            source("matcher-user/src/main.rs", CODE),
        ];
        short(&check(&files, &["demo".to_owned()]))
    }

    #[test]
    fn commands_may_be_named_in_lists_tables_and_examples() {
        assert_eq!(
            found("    cargo xtask demo\nthen matcher check|tail.\n| `stop-matching` | x |\n"),
            [""; 0]
        );
    }

    #[test]
    fn a_command_that_is_not_named_is_found() {
        assert_eq!(
            found("`cargo xtask build|demolish`, matcher checks, `tail -f`\n"),
            [
                "xtask/src/main.rs:0 `cargo xtask demo` is not in README.md",
                "matcher-user/src/main.rs:4 `matcher check` is not in README.md",
                "matcher-user/src/main.rs:6 `matcher stop-matching` is not in README.md",
            ]
        );
    }

    #[test]
    fn a_missing_readme_is_a_warning() {
        let findings = check(&[], &["demo".to_owned()]);
        assert!(matches!(&*findings, [one] if one.warning));
    }
}
