//! Rust source as tokens with their lines: enough to tell code from comments and strings.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Name or keyword.
    Word,
    /// One character of punctuation; `::` is one token.
    Mark,
    /// String, character, number or lifetime.
    Literal,
    /// Comment, documentation included.
    Comment,
}

/// A piece of source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    /// What it is.
    pub kind: Kind,
    /// As written.
    pub text: &'a str,
    /// Line it begins on, 1-based.
    pub line: usize,
}

impl Token<'_> {
    /// Whether it is this word or mark.
    pub fn is(&self, text: &str) -> bool {
        matches!(self.kind, Kind::Word | Kind::Mark) && self.text == text
    }
}

/// All tokens but the comments.
pub fn code(source: &str) -> Vec<Token<'_>> {
    let mut tokens = tokens(source);
    tokens.retain(|token| token.kind != Kind::Comment);
    tokens
}

/// All tokens. Source that does not compile may give nonsense, but always ends.
pub fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = source;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        if first.is_whitespace() {
            line += usize::from(first == '\n');
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (kind, length) = token(rest, first);
        let (text, after) = rest.split_at(length);
        tokens.push(Token { kind, text, line });
        line += text.matches('\n').count();
        rest = after;
    }
    tokens
}

/// Kind and length in bytes of the token at the beginning of `rest`.
fn token(rest: &str, first: char) -> (Kind, usize) {
    if rest.starts_with("//") {
        return (Kind::Comment, rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return (Kind::Comment, block_comment(rest));
    }
    if let Some(length) = prefixed_string(rest) {
        return (Kind::Literal, length);
    }
    if first == '"' {
        return (Kind::Literal, quoted(rest, '"'));
    }
    if first == '\'' {
        return (Kind::Literal, character_or_lifetime(rest));
    }
    if first.is_ascii_digit() {
        return (Kind::Literal, word(rest));
    }
    if first == '_' || first.is_alphabetic() {
        let raw = if rest.starts_with("r#") { 2 } else { 0 };
        return (Kind::Word, raw + word(&rest[raw..]));
    }
    if rest.starts_with("::") {
        return (Kind::Mark, 2);
    }
    (Kind::Mark, first.len_utf8())
}

/// Length of the letters, digits and underscores at the beginning.
fn word(rest: &str) -> usize {
    rest.find(|c: char| c != '_' && !c.is_alphanumeric())
        .unwrap_or(rest.len())
}

/// Length of a `/* */`, which may hold others.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        if here.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// Length of `b"..."`, `c"..."`, `b'.'`, `r"..."`, `r#"..."#` and their combinations.
fn prefixed_string(rest: &str) -> Option<usize> {
    let letters = rest.find(|c| !matches!(c, 'b' | 'c' | 'r'))?;
    let prefix = rest
        .get(..letters)
        .filter(|prefix| matches!(prefix.len(), 1 | 2))?;
    let after = &rest[letters..];
    if prefix.ends_with('r') {
        let hashes = after.find(|c| c != '#')?;
        let end = format!("\"{}", &after[..hashes]);
        let body = after[hashes..].strip_prefix('"')?;
        let length = body.find(&end).map_or(body.len(), |at| at + end.len());
        return Some(letters + hashes + 1 + length);
    }
    match after.chars().next()? {
        '"' => Some(letters + quoted(after, '"')),
        '\'' if prefix == "b" => Some(letters + quoted(after, '\'')),
        _ => None,
    }
}

/// Length of a quoted text with backslash escapes, both quotes included.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == quote {
            return at + c.len_utf8();
        }
    }
    rest.len()
}

/// Length of `'x'`, `'\n'` or `'lifetime`.
fn character_or_lifetime(rest: &str) -> usize {
    let mut characters = rest.chars().skip(1);
    match (characters.next(), characters.next()) {
        (Some('\\'), _) | (Some(_), Some('\'')) => quoted(rest, '\''),
        _ => 1 + word(&rest[1..]),
    }
}

/// The index after the bracket that closes the one at `open`; the end when none does.
pub fn after_group(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        if token.kind != Kind::Mark {
            continue;
        }
        match token.text {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<(Kind, &str)> {
        tokens(source)
            .into_iter()
            .map(|token| (token.kind, token.text))
            .collect()
    }

    #[test]
    fn comments_and_strings_are_no_code() {
        let source =
            "a // use x\n/* b /* c */ d */ \"e \\\" f\" r#\"g \" h\"# b\"i\" b'j' 'k' '\\n'";
        let words: Vec<&str> = code(source)
            .into_iter()
            .filter(|token| token.kind == Kind::Word)
            .map(|token| token.text)
            .collect();
        assert_eq!(words, ["a"]);
        assert_eq!(code(source).len(), 7);
    }

    #[test]
    fn lifetimes_and_characters_are_told_apart() {
        use Kind::{Literal, Mark, Word};
        assert_eq!(
            texts("&'a str 'b' x::y r#type"),
            [
                (Mark, "&"),
                (Literal, "'a"),
                (Word, "str"),
                (Literal, "'b'"),
                (Word, "x"),
                (Mark, "::"),
                (Word, "y"),
                (Word, "r#type"),
            ]
        );
    }

    #[test]
    fn lines_are_counted_through_comments_and_strings() {
        let lines: Vec<usize> = code("a\n/* \n */ b \"\n\" c")
            .iter()
            .map(|token| token.line)
            .collect();
        assert_eq!(lines, [1, 3, 3, 4]);
    }

    #[test]
    fn unfinished_source_ends() {
        for source in ["\"abc", "/* /* */", "r#\"", "'", "'\\", "b'", "r##", "{ ("] {
            assert!(!tokens(source).is_empty(), "{source}");
        }
    }

    #[test]
    fn a_group_ends_at_its_own_bracket() {
        let tokens = code("{ a (b) { c } } d");
        assert_eq!(after_group(&tokens, 0), tokens.len() - 1);
    }
}
