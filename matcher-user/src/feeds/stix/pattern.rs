//! STIX patterns (STIX 2.1 section 9), as far as they name the destination of
//! traffic: an address, a port and a protocol, or a name.
//!
//! A pattern is turned into its alternatives. Every condition of an
//! alternative must be one that is understood: a condition left aside would
//! make the entry match more than its author said. So an alternative with
//! another condition is left out, and so is a whole pattern with `NOT` or with
//! several observations that must all be seen.

use ipnet::IpNet;

use super::super::{lines::quoted, value};
use crate::{
    indicator::{DomainName, Qualifier},
    protocol::Protocol,
};

/// What one alternative of a pattern lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) value: FoundValue,
    pub(super) qualifier: Qualifier,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FoundValue {
    Address(IpNet),
    Name(DomainName),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PatternError {
    #[error("the pattern is empty")]
    Empty,
    #[error("pattern: {expected} expected at character {at}")]
    Syntax { at: usize, expected: &'static str },
    #[error("the pattern is nested too deeply or has too many alternatives")]
    TooLarge,
    #[error("pattern: {0}")]
    Value(String),
    /// Well-formed, and nothing that can be matched here.
    #[error("{0}")]
    NotC2(&'static str),
}

const OTHER_OBJECT: &str = "a pattern of something else than addresses and names";
const SOURCE: &str = "a pattern of the source of traffic, no C&C address";
const NOT_EXACT: &str = "a pattern with a comparison that cannot be matched (NOT, LIKE, >, ...)";
const SEQUENCE: &str = "a pattern of several observations, or with a time window";

/// Alternatives that one pattern may have.
const MOST: usize = 10_000;
/// Parentheses inside parentheses.
const DEEPEST: u32 = 32;

/// Reads a pattern; at least one alternative.
pub(super) fn read(text: &str) -> Result<Vec<Found>, PatternError> {
    if text.is_empty() {
        return Err(PatternError::Empty);
    }
    let mut parser = Parser {
        text,
        at: 0,
        depth: 0,
        left_out: None,
    };
    let alternatives = parser.observations()?;
    parser.skip_blanks();
    if parser.at < text.len() {
        return Err(parser.expected("the end of the pattern"));
    }
    if let Some(reason) = parser.left_out {
        return Err(PatternError::NotC2(reason));
    }
    let mut listed = Vec::with_capacity(alternatives.len());
    let mut not_c2 = None;
    for tests in &alternatives {
        match found(tests) {
            Ok(found) => listed.push(found),
            Err(reason @ PatternError::NotC2(_)) => not_c2 = Some(reason),
            Err(error) => return Err(error),
        }
    }
    match not_c2 {
        // The other alternatives say something by themselves.
        Some(reason) if listed.is_empty() => Err(reason),
        _ => Ok(listed),
    }
}

/// `path = value`.
#[derive(Clone, Debug)]
struct Test {
    path: String,
    value: String,
}

/// All tests of it must hold.
type Alternative = Vec<Test>;

fn found(tests: &[Test]) -> Result<Found, PatternError> {
    let mut addresses: Vec<IpNet> = Vec::new();
    let mut names: Vec<DomainName> = Vec::new();
    let mut qualifier = Qualifier::default();
    for Test { path, value: text } in tests {
        let address = || {
            value::prefix(text)
                .map(|prefix| prefix.net)
                .map_err(|error| PatternError::Value(error.to_string()))
        };
        let name = || {
            text.parse::<DomainName>()
                .map_err(|error| PatternError::Value(format!("{}: {error}", quoted(text))))
        };
        match path.as_str() {
            "ipv4-addr:value" | "ipv6-addr:value" => addresses.push(address()?),
            "domain-name:value" => names.push(name()?),
            // The target is an address or a name, whatever dst_ref.type says.
            "network-traffic:dst_ref.value" => match value::prefix(text) {
                Ok(prefix) => addresses.push(prefix.net),
                Err(_) => names.push(name()?),
            },
            "network-traffic:dst_ref.type"
                if matches!(text.as_str(), "ipv4-addr" | "ipv6-addr" | "domain-name") => {}
            "network-traffic:dst_port" => {
                let port = value::port(text).map_err(|it| PatternError::Value(it.to_string()))?;
                if qualifier.port.is_some_and(|other| other != port) {
                    return Err(PatternError::NotC2(OTHER_OBJECT));
                }
                qualifier.port = Some(port);
            }
            path if path.starts_with("network-traffic:protocols[") => {
                // Beside the transport, names of the layers around it: `ipv4`,
                // `http`. They say nothing that can be seen of a packet.
                match Protocol::parse(text).filter(|protocol| protocol.name().is_some()) {
                    Some(protocol) => qualifier.protocol = Some(protocol),
                    None if matches!(
                        text.to_ascii_lowercase().as_str(),
                        "ipv4" | "ipv6" | "http" | "https" | "ssl" | "tls" | "dns"
                    ) => {}
                    None => return Err(PatternError::NotC2(OTHER_OBJECT)),
                }
            }
            path if path.starts_with("network-traffic:src_") => {
                return Err(PatternError::NotC2(SOURCE));
            }
            _ => return Err(PatternError::NotC2(OTHER_OBJECT)),
        }
    }
    let value = match (addresses.as_slice(), names.as_slice()) {
        ([address], []) => FoundValue::Address(*address),
        ([], [name]) => FoundValue::Name(name.clone()),
        _ => return Err(PatternError::NotC2(OTHER_OBJECT)),
    };
    Ok(Found { value, qualifier })
}

struct Parser<'a> {
    text: &'a str,
    /// Byte offset.
    at: usize,
    depth: u32,
    /// Why the pattern, well-formed as it is, cannot be used.
    left_out: Option<&'static str>,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn expected(&self, expected: &'static str) -> PatternError {
        let at = self
            .text
            .get(..self.at)
            .map_or(0, |read| read.chars().count())
            + 1;
        PatternError::Syntax { at, expected }
    }

    /// Takes a sign if it is next.
    fn sign(&mut self, sign: &str) -> bool {
        self.skip_blanks();
        let is_next = self.rest().starts_with(sign);
        if is_next {
            self.at += sign.len();
        }
        is_next
    }

    /// Takes a word, in any case, if it is next and ends there.
    fn word(&mut self, word: &str) -> bool {
        self.skip_blanks();
        let rest = self.rest();
        let is_next = rest
            .get(..word.len())
            .is_some_and(|it| it.eq_ignore_ascii_case(word))
            && !rest
                .get(word.len()..)
                .and_then(|rest| rest.chars().next())
                .is_some_and(|next| {
                    next.is_ascii_alphanumeric() || matches!(next, '_' | '-' | ':')
                });
        if is_next {
            self.at += word.len();
        }
        is_next
    }

    fn deeper<T>(
        &mut self,
        inside: impl FnOnce(&mut Self) -> Result<T, PatternError>,
    ) -> Result<T, PatternError> {
        if self.depth >= DEEPEST {
            return Err(PatternError::TooLarge);
        }
        self.depth += 1;
        let result = inside(self)?;
        self.depth -= 1;
        if !self.sign(")") {
            return Err(self.expected(")"));
        }
        Ok(result)
    }

    /// `[...] OR [...]`, and what else may join observations.
    fn observations(&mut self) -> Result<Vec<Alternative>, PatternError> {
        let mut all = self.observation()?;
        loop {
            if self.word("OR") {
                all.extend(self.observation()?);
            } else if self.word("AND") || self.word("FOLLOWEDBY") {
                self.left_out = Some(SEQUENCE);
                all.extend(self.observation()?);
            } else {
                return bounded(all);
            }
        }
    }

    fn observation(&mut self) -> Result<Vec<Alternative>, PatternError> {
        let all = if self.sign("[") {
            let inside = self.any_of()?;
            if !self.sign("]") {
                return Err(self.expected("]"));
            }
            inside
        } else if self.sign("(") {
            self.deeper(Self::observations)?
        } else {
            return Err(self.expected("["));
        };
        // WITHIN 5 SECONDS, REPEATS 5 TIMES, START t'...' STOP t'...'
        while ["WITHIN", "REPEATS", "START"]
            .iter()
            .any(|word| self.word(word))
        {
            self.left_out = Some(SEQUENCE);
            self.literal()?;
            if self.word("STOP") {
                self.literal()?;
            } else if !(self.word("SECONDS") || self.word("TIMES")) {
                return Err(self.expected("SECONDS, TIMES or STOP"));
            }
        }
        Ok(all)
    }

    fn any_of(&mut self) -> Result<Vec<Alternative>, PatternError> {
        let mut all = self.all_of()?;
        while self.word("OR") {
            all.extend(self.all_of()?);
        }
        bounded(all)
    }

    fn all_of(&mut self) -> Result<Vec<Alternative>, PatternError> {
        let mut all = self.comparison()?;
        while self.word("AND") {
            let more = self.comparison()?;
            if all.len().saturating_mul(more.len()) > MOST {
                return Err(PatternError::TooLarge);
            }
            all = all
                .iter()
                .flat_map(|left| {
                    more.iter()
                        .map(move |right| [&left[..], &right[..]].concat())
                })
                .collect();
        }
        Ok(all)
    }

    fn comparison(&mut self) -> Result<Vec<Alternative>, PatternError> {
        if self.sign("(") {
            return self.deeper(Self::any_of);
        }
        if self.word("EXISTS") {
            self.left_out = Some(NOT_EXACT);
            self.path()?;
            return Ok(vec![Vec::new()]);
        }
        let path = self.path()?;
        if self.word("NOT") {
            self.left_out = Some(NOT_EXACT);
        }
        let exact = self.operator()?;
        if !exact {
            self.left_out = Some(NOT_EXACT);
        }
        let values = if self.sign("(") {
            let mut values = vec![self.literal()?];
            while self.sign(",") {
                values.push(self.literal()?);
            }
            if !self.sign(")") {
                return Err(self.expected(")"));
            }
            values
        } else {
            vec![self.literal()?]
        };
        Ok(values
            .into_iter()
            .map(|value| {
                vec![Test {
                    path: path.clone(),
                    value,
                }]
            })
            .collect())
    }

    /// `type:property.list[*].'quoted-key'`.
    fn path(&mut self) -> Result<String, PatternError> {
        self.skip_blanks();
        let mut path = String::new();
        let mut quoted = false;
        let mut index = false;
        for letter in self.rest().chars() {
            match letter {
                '\'' if quoted => quoted = false,
                _ if quoted => {}
                '\'' if path.ends_with(['.', ':']) => quoted = true,
                // A bracket that nothing opened closes the observation.
                '[' if !path.is_empty() && !index => index = true,
                ']' if index => index = false,
                '_' | '-' | ':' | '.' | '*' => {}
                letter if letter.is_ascii_alphanumeric() => {}
                _ => break,
            }
            path.push(letter);
        }
        if !path.contains(':') {
            return Err(self.expected("an object path such as ipv4-addr:value"));
        }
        self.at += path.len();
        Ok(path)
    }

    /// Whether it asks for one exact value or a prefix.
    fn operator(&mut self) -> Result<bool, PatternError> {
        for sign in ["!=", "<>", "<=", ">=", "<", ">"] {
            if self.sign(sign) {
                return Ok(false);
            }
        }
        if self.sign("==") || self.sign("=") || self.word("IN") || self.word("ISSUBSET") {
            return Ok(true);
        }
        for word in ["LIKE", "MATCHES", "ISSUPERSET"] {
            if self.word(word) {
                return Ok(false);
            }
        }
        Err(self.expected("a comparison such as ="))
    }

    /// `'text'`, with `\'` and `\\` inside; a number; or one with a letter
    /// before the quote (a time, binary data).
    fn literal(&mut self) -> Result<String, PatternError> {
        self.skip_blanks();
        let rest = self.rest();
        let prefixed = rest
            .strip_prefix(['t', 'b', 'h'])
            .filter(|rest| rest.starts_with('\''));
        let text = prefixed.unwrap_or(rest);
        let Some(inside) = text.strip_prefix('\'') else {
            let end = rest
                .find(|letter: char| {
                    !(letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '+'))
                })
                .unwrap_or(rest.len());
            let word = rest.get(..end).unwrap_or_default();
            if word.is_empty() {
                return Err(self.expected("a value"));
            }
            self.at += end;
            return Ok(word.to_owned());
        };
        let mut value = String::new();
        let mut escaped = false;
        for (offset, letter) in inside.char_indices() {
            match letter {
                _ if escaped => {
                    value.push(letter);
                    escaped = false;
                }
                '\\' => escaped = true,
                '\'' => {
                    self.at += rest.len() - inside.len() + offset + 1;
                    return Ok(value);
                }
                _ => value.push(letter),
            }
        }
        Err(self.expected("a closing quote after this value"))
    }
}

fn bounded(all: Vec<Alternative>) -> Result<Vec<Alternative>, PatternError> {
    if all.len() > MOST {
        return Err(PatternError::TooLarge);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listing(pattern: &str) -> String {
        match read(pattern) {
            Err(error) => error.to_string(),
            Ok(found) => found
                .iter()
                .map(|Found { value, qualifier }| {
                    let value = match value {
                        FoundValue::Address(address) => address.to_string(),
                        FoundValue::Name(name) => name.to_string(),
                    };
                    let protocol = qualifier
                        .protocol
                        .map_or(String::new(), |it| format!(" {it}"));
                    let port = qualifier.port.map_or(String::new(), |it| format!(" :{it}"));
                    format!("{value}{protocol}{port}")
                })
                .collect::<Vec<_>>()
                .join(", "),
        }
    }

    #[test]
    fn patterns_in_the_wild_are_read() {
        for (pattern, want) in [
            ("[ipv4-addr:value = '203.0.113.10']", "203.0.113.10/32"),
            ("[ipv4-addr:value='203.0.113.0/24']", "203.0.113.0/24"),
            (
                "[ipv4-addr:value ISSUBSET '203.0.113.0/24']",
                "203.0.113.0/24",
            ),
            ("[ipv6-addr:value = '2001:db8::7']", "2001:db8::7/128"),
            (
                "[network-traffic:dst_ref.type = 'ipv4-addr' AND network-traffic:dst_ref.value = '5.6.7.8' AND network-traffic:dst_port = '5678']",
                "5.6.7.8/32 :5678",
            ),
            (
                "[ ( network-traffic:dst_port = 443 AND network-traffic:dst_ref.value = '8.8.8.8' ) ]",
                "8.8.8.8/32 :443",
            ),
            ("[domain-name:value = 'Evil.example']", "evil.example"),
            (
                "[network-traffic:dst_ref.type = 'domain-name' AND network-traffic:dst_ref.value = 'evil.example']",
                "evil.example",
            ),
            (
                "[ipv4-addr:value = '192.0.2.1' OR ipv4-addr:value = '192.0.2.2'] OR [domain-name:value = 'a.example']",
                "192.0.2.1/32, 192.0.2.2/32, a.example",
            ),
            (
                "[ipv4-addr:value = '192.0.2.1' OR file:hashes.MD5 = 'ab']",
                "192.0.2.1/32",
            ),
            (
                "[ipv4-addr:value IN ('192.0.2.1', '192.0.2.2')]",
                "192.0.2.1/32, 192.0.2.2/32",
            ),
            (
                "[network-traffic:dst_ref.value = '192.0.2.1' AND (network-traffic:dst_port = 80 OR network-traffic:dst_port = 443) AND network-traffic:protocols[*] = 'tcp' AND network-traffic:protocols[0] = 'ipv4']",
                "192.0.2.1/32 tcp :80, 192.0.2.1/32 tcp :443",
            ),
        ] {
            assert_eq!(listing(pattern), want, "{pattern}");
        }
    }

    #[test]
    fn what_would_match_more_than_was_meant_is_left_out() {
        let patterns = [
            "[file:hashes.'SHA-256' = 'ab']",
            "[url:value = 'http://192.0.2.1/']",
            "[ipv4-addr:value = '192.0.2.1' AND file:name = 'x']",
            "[network-traffic:src_ref.value = '192.0.2.1']",
            "[ipv4-addr:value != '192.0.2.1']",
            "[ipv4-addr:value NOT = '192.0.2.1']",
            "[domain-name:value LIKE '%.example']",
            "[ipv4-addr:value = '192.0.2.1'] FOLLOWEDBY [ipv4-addr:value = '192.0.2.2']",
            "[ipv4-addr:value = '192.0.2.1'] AND [ipv4-addr:value = '192.0.2.2']",
            "[ipv4-addr:value = '192.0.2.1'] WITHIN 5 SECONDS",
            "[ipv4-addr:value = '192.0.2.1'] START t'2026-01-01T00:00:00Z' STOP t'2026-01-02T00:00:00Z'",
            "[domain-name:value = 'a.example' AND domain-name:resolves_to_refs[*].value = '192.0.2.1']",
            "[network-traffic:dst_port = 443]",
            "[network-traffic:extensions.'http-request-ext'.request_method = 'get' AND network-traffic:dst_port = 80]",
            "[EXISTS ipv4-addr:value]",
        ];
        let said = patterns.map(listing).join("\n");
        insta::assert_snapshot!(said);
    }

    #[test]
    fn broken_patterns_say_where() {
        let deep = format!("[{}", "(".repeat(100));
        let patterns = [
            "",
            "ipv4-addr:value = 'x'",
            "[ipv4-addr:value = '192.0.2.1'",
            "[ipv4-addr:value = '192.0.2.1]",
            "[ipv4-addr:value '192.0.2.1']",
            "[ipv4-addr:value = ]",
            "[value = '1']",
            "[ipv4-addr:value = '192.0.2.1'] x",
            "[ipv4-addr:value = '192.0.2']",
            "[domain-name:value = 'com']",
            "[network-traffic:dst_ref.value = '192.0.2.1' AND network-traffic:dst_port = 0]",
            &deep,
        ];
        let said = patterns.map(listing).join("\n");
        insta::assert_snapshot!(said);
    }

    #[test]
    fn alternatives_are_bounded() {
        let ports: Vec<String> = (1..200).map(|it| it.to_string()).collect();
        let ports = format!("network-traffic:dst_port IN ({})", ports.join(","));
        let pattern = format!("[{ports} AND {ports} AND {ports}]");
        assert_eq!(read(&pattern), Err(PatternError::TooLarge));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(
            text in "(\\[|\\]|\\(|\\)| AND | OR |=|'|ipv4-addr:value|network-traffic:dst_port|192\\.0\\.2\\.1|NOT|IN|\\PC){0,30}"
        ) {
            if let Ok(found) = read(&text) {
                prop_assert!(!found.is_empty());
            }
        }
    }
}
