//! `matcher.example.toml` documents every key of the configuration, and no other.

use super::rust::{Kind, after_group, code};
use super::{Finding, Source};

const EXAMPLE: &str = "matcher.example.toml";
const WHY: &str =
    "operators write their file from the example: what is not in it does not exist for them";

/// Compares the list `KEYS` of the configuration stage with the example.
pub fn check(sources: &[Source]) -> Vec<Finding> {
    let Some((place, keys)) = sources
        .iter()
        .filter(|source| in_config(source))
        .find_map(keys)
    else {
        return Vec::new();
    };
    let finding = |file: &str, line, what, fix: &str| Finding {
        file: file.to_owned(),
        line,
        what,
        why: WHY,
        fix: fix.to_owned(),
        warning: false,
    };
    let Some(example) = sources.iter().find(|source| source.path == EXAMPLE) else {
        let what = format!("{EXAMPLE} is missing");
        return vec![finding(
            &place,
            0,
            what,
            "write it, with every key and its default",
        )];
    };
    let documented = documented(&example.text);
    let mut findings = Vec::new();
    for (line, key) in &keys {
        if !documented.iter().any(|(_, other)| other == key) {
            findings.push(finding(
                &place,
                *line,
                format!("the key `{key}` is not in {EXAMPLE}"),
                "add it there with a comment, or take it out of KEYS",
            ));
        }
    }
    for (line, key) in &documented {
        // A table that is written inline is a key and a section at once.
        let section = format!("{key}.");
        if !keys
            .iter()
            .any(|(_, other)| other == key || other.starts_with(&section))
        {
            findings.push(finding(
                EXAMPLE,
                *line,
                format!("the key `{key}` does not exist"),
                "take it out, or add it to KEYS of matcher-user/src/config",
            ));
        }
    }
    findings
}

fn in_config(source: &Source) -> bool {
    source.is_rust()
        && (source.path == "matcher-user/src/config.rs"
            || source.path.starts_with("matcher-user/src/config/"))
}

/// The strings of `const KEYS: &[&str] = &[...]` with their lines, and the file.
fn keys(source: &Source) -> Option<(String, Vec<(usize, String)>)> {
    let tokens = code(&source.text);
    let at = tokens.windows(3).position(
        |three| matches!(three, [a, b, c] if a.is("const") && b.is("KEYS") && c.is(":")),
    )?;
    let equals = at + tokens.iter().skip(at).position(|token| token.is("="))?;
    let open = equals + tokens.iter().skip(equals).position(|token| token.is("["))?;
    let end = after_group(&tokens, open);
    let keys = tokens
        .get(open..end)?
        .iter()
        .filter(|token| token.kind == Kind::Literal)
        .map(|token| (token.line, token.text.trim_matches('"').to_owned()))
        .collect();
    Some((source.path.clone(), keys))
}

/// Every key of the example with its line, those in comments too: `# key = value` shows a key that
/// is off.
fn documented(text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut section = String::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim_start_matches('#').trim();
        if let Some(name) = header(line) {
            section = name;
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            continue;
        };
        let (key, value) = (key.trim(), value.trim());
        if !is_key(key) || !begins_value(value) {
            continue;
        }
        let path = if section.is_empty() {
            key.to_owned()
        } else {
            format!("{section}.{key}")
        };
        let inner = inline_keys(value)
            .into_iter()
            .map(|name| format!("{path}.{name}"));
        let names: Vec<String> = std::iter::once(path.clone()).chain(inner).collect();
        for name in names {
            if !found.iter().any(|(_, known)| *known == name) {
                found.push((at + 1, name));
            }
        }
    }
    found
}

/// The name in `[a.b]` or `[[a]]`, if the line is such a header.
fn header(line: &str) -> Option<String> {
    let (name, rest) = line.strip_prefix('[')?.split_once(']')?;
    let name = name.trim_start_matches('[').trim();
    let rest = rest.trim_start_matches(']').trim();
    ((rest.is_empty() || rest.starts_with('#')) && is_key(name)).then(|| name.to_owned())
}

/// Bare keys with dots, in lower case as all of ours.
fn is_key(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c))
}

/// Whether a TOML value begins here; prose after an equals sign in a comment does not.
fn begins_value(text: &str) -> bool {
    text.starts_with(['"', '\'', '[', '{', '+', '-'])
        || text.starts_with(|c: char| c.is_ascii_digit())
        || text.starts_with("true")
        || text.starts_with("false")
}

/// The keys of inline tables in a value: `{ a = 1, b = "x, c = d" }` gives a and b.
fn inline_keys(value: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut depth = 0_usize;
    for c in value.chars() {
        if let Some(end) = quote {
            if c == end {
                quote = None;
            }
            continue;
        }
        match c {
            '"' | '\'' => quote = Some(c),
            '{' => {
                depth += 1;
                word.clear();
            }
            '}' => depth = depth.saturating_sub(1),
            ',' | '[' => word.clear(),
            '=' if depth == 1 => {
                if is_key(word.trim()) {
                    keys.push(word.trim().to_owned());
                }
                word.clear();
            }
            '#' => break,
            _ => word.push(c),
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::super::samples::{short, source};
    use super::*;

    const CODE: &str = "/// Keys.\npub const KEYS: &[&str] = &[\n    \"mode\",\n    \"consent.deadline\",\n    \
                        \"interfaces.name\",\n    \"limits.a\",\n];\n";

    fn found(example: &str) -> Vec<String> {
        let files = [
            source("matcher-user/src/config/keys.rs", CODE),
            source(EXAMPLE, example),
        ];
        short(&check(&files))
    }

    #[test]
    fn keys_may_be_on_or_off_in_sections_lists_and_inline_tables() {
        let example = "# How: see docs = there.\nmode = \"auto\"\n\n[consent]\n# deadline = \"15m\"\n\n\
                       [[interfaces]]\nname = \"eth0\" # x = 1\n\n# [limits]\n#a = 3\n";
        assert_eq!(found(example), [""; 0]);
        let inline = "mode = 'x'\nconsent = { deadline = \"a, b = c\" }\n\
                      interfaces = [{ name = \"eth0\" }]\nlimits.a = 1\n";
        assert_eq!(found(inline), [""; 0]);
    }

    #[test]
    fn a_key_without_documentation_is_found() {
        let example = "mode = \"auto\"\n[interfaces]\nname = \"e\"\n[limits]\na = 1\n";
        assert_eq!(
            found(example),
            [format!(
                "matcher-user/src/config/keys.rs:4 the key `consent.deadline` is not in {EXAMPLE}"
            )]
        );
    }

    #[test]
    fn a_documented_key_that_does_not_exist_is_found() {
        let example =
            "mode = 1\nold = 2\n[consent]\ndeadline = 1\n[interfaces]\nname = 1\n[limits]\na = 1\n";
        assert_eq!(
            found(example),
            [format!("{EXAMPLE}:2 the key `old` does not exist")]
        );
    }

    #[test]
    fn without_an_example_there_is_one_finding() {
        let files = [source("matcher-user/src/config.rs", CODE)];
        assert_eq!(
            short(&check(&files)),
            [format!("matcher-user/src/config.rs:0 {EXAMPLE} is missing")]
        );
    }
}
