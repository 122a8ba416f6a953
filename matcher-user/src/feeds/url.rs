//! Addresses of feeds on the web, as far as a fetch needs to understand them
//! (RFC 3986): origin, joining, and a form that may be shown.

use std::{fmt, net::IpAddr, str::FromStr};

/// An absolute `http` or `https` address of printable ASCII, without a user's
/// name and without a fragment.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct FeedUrl {
    tls: bool,
    /// Host, and `:port` where it is not the scheme's own; lower case.
    authority: String,
    /// Begins with `/`.
    path: String,
    /// With its `?`; may be empty. May hold a secret: never shown.
    query: String,
}

/// Why a text is no address of a feed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Neither `https` nor `http`.
    #[error("an address begins with https:// (or http://)")]
    Scheme,
    /// No host, or one with characters that hosts do not have.
    #[error("there is no readable host in the address")]
    Host,
    /// The port is no number from 1 to 65535.
    #[error("the port is no number from 1 to 65535")]
    Port,
    /// `user:password@` before the host.
    #[error("no name or password belongs into an address: set auth and secret_file")]
    User,
    /// Blanks, control characters or letters beyond ASCII.
    #[error("the address has a blank or a character beyond ASCII: write it percent-encoded")]
    Character,
}

impl FeedUrl {
    /// Asked for over TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Host without port; an IPv6 address in its brackets.
    pub fn host(&self) -> &str {
        match self.authority.rfind(':') {
            Some(colon) if !self.authority.ends_with(']') => {
                self.authority.get(..colon).unwrap_or(&self.authority)
            }
            _ => &self.authority,
        }
    }

    /// The host is this machine by its name or address, so that nobody
    /// stands between.
    pub fn is_loopback(&self) -> bool {
        let host = self.host();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// Same scheme, host and port: what may be told the secret.
    pub fn same_origin(&self, other: &Self) -> bool {
        self.tls == other.tls && self.authority == other.authority
    }

    /// Reads a reference, such as the `Location` of a redirect, from here.
    ///
    /// # Errors
    ///
    /// When what comes out is no address of a feed.
    pub fn join(&self, reference: &str) -> Result<Self, UrlError> {
        let reference = reference.split('#').next().unwrap_or_default();
        if has_scheme(reference) {
            return reference.parse();
        }
        let scheme = if self.tls { "https" } else { "http" };
        if reference.starts_with("//") {
            return format!("{scheme}:{reference}").parse();
        }
        if reference.chars().any(|it| !it.is_ascii_graphic()) {
            return Err(UrlError::Character);
        }
        let (path, query) = split_query(reference);
        let path = if path.is_empty() {
            self.path.clone()
        } else if path.starts_with('/') {
            without_dots(path)
        } else {
            let folder = self.path.rfind('/').and_then(|it| self.path.get(..=it));
            without_dots(&format!("{}{path}", folder.unwrap_or("/")))
        };
        let keeps_query = reference.is_empty();
        Ok(Self {
            path,
            query: if keeps_query {
                self.query.clone()
            } else {
                query.to_owned()
            },
            ..self.clone()
        })
    }

    /// The same address with these parameters behind its own.
    pub fn with_query<'a>(&self, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut url = self.clone();
        for (name, value) in pairs {
            url.query.push(if url.query.is_empty() { '?' } else { '&' });
            url.query.push_str(name);
            url.query.push('=');
            for byte in value.bytes() {
                match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                        url.query.push(char::from(byte));
                    }
                    _ => url.query.push_str(&format!("%{byte:02X}")),
                }
            }
        }
        url
    }

    /// The same address as that of a folder: its path ends with `/`.
    pub fn as_folder(&self) -> Self {
        let mut url = self.clone();
        if !url.path.ends_with('/') {
            url.path.push('/');
        }
        url
    }

    /// In full, with what may be secret in it: for the request alone.
    pub fn in_full(&self) -> String {
        format!("{self}{}", self.query)
    }
}

/// Without the query, which may hold a key.
impl fmt::Display for FeedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

impl fmt::Debug for FeedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FeedUrl({self})")
    }
}

impl FromStr for FeedUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let text = text.trim();
        let text = text.split('#').next().unwrap_or_default();
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(UrlError::Scheme),
        };
        if rest.chars().any(|it| !it.is_ascii_graphic()) {
            return Err(UrlError::Character);
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        if authority.contains('@') {
            return Err(UrlError::User);
        }
        let authority = normal_authority(tls, authority)?;
        let (path, query) = split_query(rest);
        let path = if path.is_empty() {
            "/".to_owned()
        } else {
            without_dots(path)
        };
        Ok(Self {
            tls,
            authority,
            path,
            query: query.to_owned(),
        })
    }
}

fn has_scheme(reference: &str) -> bool {
    reference.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|it: char| it.is_ascii_alphabetic())
            && scheme
                .chars()
                .all(|it| it.is_ascii_alphanumeric() || matches!(it, '+' | '-' | '.'))
    })
}

/// The path, and the query with its `?`.
fn split_query(text: &str) -> (&str, &str) {
    text.split_at(text.find('?').unwrap_or(text.len()))
}

fn normal_authority(tls: bool, authority: &str) -> Result<String, UrlError> {
    let authority = authority.to_ascii_lowercase();
    let (host, port) = match authority.rfind(']') {
        Some(bracket) => {
            let (host, rest) = authority.split_at(bracket + 1);
            let inner = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
            if inner.is_none_or(|it| it.parse::<std::net::Ipv6Addr>().is_err()) {
                return Err(UrlError::Host);
            }
            match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if rest.is_empty() => (host, None),
                None => return Err(UrlError::Host),
            }
        }
        None => {
            let (host, port) = match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority.as_str(), None),
            };
            let good = !host.is_empty()
                && host
                    .chars()
                    .all(|it| it.is_ascii_alphanumeric() || matches!(it, '-' | '.' | '_'));
            if !good {
                return Err(UrlError::Host);
            }
            (host, port)
        }
    };
    let usual = if tls { 443 } else { 80 };
    match port.filter(|port| !port.is_empty()) {
        None => Ok(host.to_owned()),
        Some(port) => match port.parse::<u16>() {
            Ok(0) | Err(_) => Err(UrlError::Port),
            Ok(port) if port == usual => Ok(host.to_owned()),
            Ok(port) => Ok(format!("{host}:{port}")),
        },
    }
}

/// RFC 3986 section 5.2.4.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    for (at, segment) in segments.iter().enumerate() {
        let last = at + 1 == segments.len();
        match *segment {
            "." if last => kept.push(""),
            "." => {}
            ".." => {
                kept.pop();
                if last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn url(text: &str) -> FeedUrl {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_read_and_brought_into_one_form() {
        for (text, form) in [
            ("https://Example.ORG", "https://example.org/"),
            (
                "HTTPS://example.org:443/a/./b/../c",
                "https://example.org/a/c",
            ),
            (
                "http://127.0.0.1:8080/x?key=1#part",
                "http://127.0.0.1:8080/x?key=1",
            ),
            ("https://[2001:DB8::1]:8443/", "https://[2001:db8::1]:8443/"),
            ("https://example.org?x", "https://example.org/?x"),
        ] {
            assert_eq!(url(text).in_full(), form, "{text}");
        }
        for (text, error) in [
            ("example.org", UrlError::Scheme),
            ("ftp://example.org/", UrlError::Scheme),
            ("https:///x", UrlError::Host),
            ("https://[::1", UrlError::Host),
            ("https://[evil]/", UrlError::Host),
            ("https://example.org:99999/", UrlError::Port),
            ("https://me:secret@example.org/", UrlError::User),
            ("https://example.org/a b", UrlError::Character),
            ("https://ex\u{e4}mple.org/", UrlError::Character),
        ] {
            assert_eq!(text.parse::<FeedUrl>(), Err(error), "{text}");
        }
    }

    /// The examples of RFC 3986 section 5.4 that a feed may meet.
    #[test]
    fn references_are_joined_as_the_rfc_says() {
        let base = url("http://a/b/c/d;p?q");
        for (reference, joined) in [
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g/"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y", "http://a/b/c/g?y"),
            ("g#s", "http://a/b/c/g"),
            ("", "http://a/b/c/d;p?q"),
            (".", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../../../g", "http://a/g"),
            ("https://other/x", "https://other/x"),
        ] {
            assert_eq!(
                base.join(reference).unwrap().in_full(),
                joined,
                "{reference}"
            );
        }
        assert_eq!(base.join("file:///etc/passwd"), Err(UrlError::Scheme));
    }

    #[test]
    fn what_may_be_a_key_is_never_shown() {
        let url = url("https://example.org/list?auth-key=verysecret");
        assert_eq!(url.to_string(), "https://example.org/list");
        assert!(!format!("{url:?}").contains("secret"));
        assert_eq!(
            url.with_query([("added_after", "2026-01-01T00:00:00Z")])
                .in_full(),
            "https://example.org/list?auth-key=verysecret&added_after=2026-01-01T00%3A00%3A00Z"
        );
    }

    #[test]
    fn loopback_is_told_from_the_rest() {
        for text in [
            "http://127.0.0.9/",
            "http://[::1]:8/",
            "http://localhost:1/",
        ] {
            assert!(url(text).is_loopback(), "{text}");
        }
        for text in ["http://127.0.0.1.example.org/", "http://192.0.2.1/"] {
            assert!(!url(text).is_loopback(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gives_an_answer_and_a_form_that_stays(text in "\\PC*", reference in "\\PC*") {
            let text = format!("https://h/{text}");
            if let Ok(url) = text.parse::<FeedUrl>() {
                prop_assert_eq!(&url.in_full().parse::<FeedUrl>().unwrap(), &url);
                if let Ok(joined) = url.join(&reference) {
                    prop_assert_eq!(&joined.in_full().parse::<FeedUrl>().unwrap(), &joined);
                }
            }
        }
    }
}
