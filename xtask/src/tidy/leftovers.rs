//! What is left over from work in progress, and what editors disagree about.

use super::rust::{Kind, Token, code, tokens};
use super::{Finding, Source};

/// Past this a file is asked which second idea moved in.
const LONG: usize = 600;

/// Words in comments that say "not done yet".
const UNFINISHED: [&str; 3] = ["TODO", "FIXME", "XXX"];

/// Checks the text of every file, and the code of the Rust ones.
pub fn check(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    // Fixtures are as the world writes them.
    for source in sources.iter().filter(|source| !is_fixture(&source.path)) {
        if is_text(&source.path) {
            check_text(source, &mut findings);
        }
        if source.is_rust() {
            check_rust(source, &mut findings);
        } else if has_hash_comments(&source.path) {
            for (line, text) in lines(&source.text) {
                if let Some((_, comment)) = text.split_once('#') {
                    unfinished(source, line, comment, &mut findings);
                }
            }
        }
    }
    findings
}

fn is_fixture(path: &str) -> bool {
    path.split('/')
        .any(|part| matches!(part, "fixtures" | "snapshots" | "proptest-regressions"))
}

/// Files that people write by hand.
fn is_text(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    match name.rsplit_once('.') {
        Some((_, extension)) => {
            matches!(
                extension,
                "rs" | "toml" | "md" | "sh" | "lock" | "service" | "txt"
            )
        }
        None => path.starts_with("scripts/") || path.starts_with(".ci/"),
    }
}

fn has_hash_comments(path: &str) -> bool {
    path.ends_with(".toml") || path.ends_with(".sh") || path.starts_with(".ci/")
}

/// Lines with their numbers.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split_terminator('\n')
        .enumerate()
        .map(|(at, line)| (at + 1, line))
}

fn finding(source: &Source, line: usize, what: String, why: &'static str, fix: &str) -> Finding {
    Finding {
        file: source.path.clone(),
        line,
        what,
        why,
        fix: fix.to_owned(),
        warning: false,
    }
}

fn check_text(source: &Source, findings: &mut Vec<Finding>) {
    const WHY: &str = "differences that nobody sees make every diff longer";
    for (line, text) in lines(&source.text) {
        let (what, fix) = if text.ends_with('\r') {
            ("the line ends in CR LF", "end it in LF")
        } else if text.ends_with([' ', '\t']) {
            ("white space at the end of the line", "take it out")
        } else if text.contains('\t') {
            ("a tab", "write spaces, or \\t in a string")
        } else {
            continue;
        };
        findings.push(finding(source, line, what.to_owned(), WHY, fix));
    }
    if !source.text.is_empty() && !source.text.ends_with('\n') {
        let last = lines(&source.text).count();
        let what = "no line end at the end of the file".to_owned();
        findings.push(finding(source, last, what, WHY, "add one"));
    }
    let count = lines(&source.text).count();
    if source.is_rust() && count > LONG {
        findings.push(Finding {
            file: source.path.clone(),
            line: 0,
            what: format!("{count} lines"),
            why: "a file is one idea",
            fix: "ask which second idea moved in, and move it out".to_owned(),
            warning: true,
        });
    }
}

fn check_rust(source: &Source, findings: &mut Vec<Finding>) {
    for comment in tokens(&source.text)
        .iter()
        .filter(|token| token.kind == Kind::Comment)
    {
        for (offset, text) in lines(comment.text) {
            unfinished(source, comment.line + offset - 1, text, findings);
        }
    }
    let code = code(&source.text);
    for (at, token) in code.iter().enumerate() {
        let next = |offset: usize| code.get(at + offset);
        if matches!(token.text, "todo" | "unimplemented")
            && token.kind == Kind::Word
            && next(1).is_some_and(|mark| mark.is("!"))
        {
            findings.push(finding(
                source,
                token.line,
                format!("{}!", token.text),
                "nothing here is a stub",
                "write it, or leave the way to it out",
            ));
        }
        if let Some(name) = attribute(&code, at) {
            let (why, fix) = match name {
                "allow" => (
                    "a lint that is off says why, and says so when it is no longer needed",
                    "#[expect(lint, reason = \"...\")]",
                ),
                "ignore" => (
                    "a test that does not run proves nothing",
                    "make it run everywhere, or skip at run time with a line that says why",
                ),
                _ => continue,
            };
            findings.push(finding(source, token.line, format!("#[{name}]"), why, fix));
        }
    }
}

/// The name of the attribute that begins at this token: `#[name` or `#![name`.
fn attribute<'a>(code: &[Token<'a>], at: usize) -> Option<&'a str> {
    code.get(at).filter(|token| token.is("#"))?;
    let open = if code.get(at + 1)?.is("!") {
        at + 2
    } else {
        at + 1
    };
    code.get(open).filter(|token| token.is("["))?;
    code.get(open + 1).map(|name| name.text)
}

fn unfinished(source: &Source, line: usize, comment: &str, findings: &mut Vec<Finding>) {
    let word = comment
        .split(|c: char| c != '_' && !c.is_alphanumeric())
        .find(|word| UNFINISHED.contains(word));
    if let Some(word) = word {
        findings.push(finding(
            source,
            line,
            format!("{word} in a comment"),
            "nobody comes back to it",
            "do it, or put it into the known limits of CHANGELOG.md",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{short, source};
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        short(&check(&[source(path, text)]))
    }

    #[test]
    fn clean_sources_have_no_findings() {
        let text = "//! Docs.\n#[expect(dead_code, reason = \"x\")]\nconst A: &str = \"TODO todo!()\";\n\
                    fn allow(ignore: u8) {}\n";
        assert_eq!(found("xtask/src/a.rs", text), [""; 0]);
        assert_eq!(found(".ci/run", "#!/bin/sh\ntrue\n"), [""; 0]);
        assert_eq!(
            found("tests/fixtures/bad.toml", "a = 1\t\r\n# TODO"),
            [""; 0]
        );
    }

    #[test]
    fn work_in_progress_is_found_with_its_line() {
        let cases = [
            ("a.rs", "\n// TODO: more\n", "a.rs:2 TODO in a comment"),
            ("a.rs", "/* x\n FIXME */\n", "a.rs:2 FIXME in a comment"),
            ("a.toml", "a = 1 # XXX\n", "a.toml:1 XXX in a comment"),
            ("a.rs", "fn f() { todo!() }\n", "a.rs:1 todo!"),
            (
                "a.rs",
                "fn f() {\n unimplemented!(\"x\") }\n",
                "a.rs:2 unimplemented!",
            ),
            ("a.rs", "#![allow(unused)]\n", "a.rs:1 #[allow]"),
            ("a.rs", "#[allow(unused)]\n", "a.rs:1 #[allow]"),
            (
                "a.rs",
                "#[test]\n#[ignore = \"slow\"]\n",
                "a.rs:2 #[ignore]",
            ),
        ];
        for (path, text, expected) in cases {
            assert_eq!(found(path, text), [expected], "{text}");
        }
    }

    #[test]
    fn invisible_differences_are_found() {
        let cases = [
            ("a\r\n", "a.rs:1 the line ends in CR LF"),
            ("a \n", "a.rs:1 white space at the end of the line"),
            ("\n\ta\n", "a.rs:2 a tab"),
            ("a\nb", "a.rs:2 no line end at the end of the file"),
        ];
        for (text, expected) in cases {
            assert_eq!(found("a.rs", text), [expected], "{text:?}");
        }
    }

    #[test]
    fn a_long_file_is_a_warning() {
        let findings = check(&[source("a.rs", &"\n".repeat(LONG + 1))]);
        assert!(matches!(&*findings, [one] if one.warning && one.what == "601 lines"));
        assert_eq!(found("a.rs", &"\n".repeat(LONG)), [""; 0]);
    }
}
