//! `[[feed]]` and `[guards]`: what is listed, and what no list may bring in.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use jiff::Timestamp;

use super::{
    reader::{At, Document, Section},
    sections::{DAY, MINUTE, Names, Walk, require, value},
};
use crate::{
    feeds::{
        AllowFileError, Allowed, AllowedValue, Auth, Confirmed, DEFAULT_MAX_BAD_SHARE, FeedPolicy,
        FeedSource, FeedUrl, FetchLimits, Format, Guards, Remote,
        guards::{DEFAULT_MIN_PREFIX_LEN_V4, DEFAULT_MIN_PREFIX_LEN_V6},
        read_allow_file,
    },
    indicator::Quality,
    subscribers::exact_prefix,
};

/// What no feed may load, entry by entry and as a whole, and how good an
/// entry must be before something follows from it.
#[derive(Clone, Debug, PartialEq)]
pub struct GuardConfig {
    /// The widest IPv4 prefix, 0-32.
    pub min_prefix_len_v4: u8,
    /// The widest IPv6 prefix, 0-128.
    pub min_prefix_len_v6: u8,
    /// The operator's own addresses.
    pub own_prefixes: Vec<IpNet>,
    /// A feed that shrinks below this share of its last good reading is held
    /// back, 0.0-1.0.
    pub min_remaining_share: f64,
    /// A feed with a larger share of lines that cannot be read is not used,
    /// 0.0-1.0.
    pub max_bad_share: f64,
    /// Entries with a lower confidence are refused, 0-100.
    pub min_confidence: u8,
    /// Entries that were last seen longer ago are refused.
    pub max_age: Option<Duration>,
    /// The shipped list of shared services is never matched.
    pub never_match_defaults: bool,
    /// Destinations that are never matched.
    pub allow: Vec<Allowed>,
    /// Files with more of them.
    pub allow_files: Vec<PathBuf>,
    /// Entries of own space that somebody vouches for.
    pub confirmed: Vec<Confirmed>,
    /// What an entry must reach before a hit of it counts for a candidate.
    pub notify: Quality,
    /// What it must reach before it may ever block (R13, R20).
    pub block: Quality,
}

impl Default for GuardConfig {
    fn default() -> Self {
        Self {
            min_prefix_len_v4: DEFAULT_MIN_PREFIX_LEN_V4,
            min_prefix_len_v6: DEFAULT_MIN_PREFIX_LEN_V6,
            own_prefixes: Vec::new(),
            min_remaining_share: 0.5,
            max_bad_share: DEFAULT_MAX_BAD_SHARE,
            min_confidence: 0,
            max_age: None,
            never_match_defaults: true,
            allow: Vec::new(),
            allow_files: Vec::new(),
            confirmed: Vec::new(),
            notify: Quality::ANY,
            // Dropping traffic asks for more than telling somebody.
            block: Quality {
                min_feeds: 2,
                min_confidence: 75,
            },
        }
    }
}

impl GuardConfig {
    /// The guards themselves. `subscribers`: the subscriber space, which is
    /// own space too; `now`: the time that the age of entries is measured at.
    ///
    /// # Errors
    ///
    /// When a file of destinations cannot be read.
    pub fn guards(
        &self,
        subscribers: impl IntoIterator<Item = IpNet>,
        now: Timestamp,
    ) -> Result<Guards, AllowFileError> {
        let mut allow = self.allow.clone();
        for path in &self.allow_files {
            allow.extend(read_allow_file(path)?);
        }
        let own = self.own_prefixes.iter().copied();
        Ok(Guards {
            own_prefixes: own.chain(subscribers).collect(),
            min_prefix_len_v4: self.min_prefix_len_v4,
            min_prefix_len_v6: self.min_prefix_len_v6,
            min_confidence: Some(self.min_confidence),
            never_match_defaults: self.never_match_defaults,
            allow,
            confirmed: self.confirmed.clone(),
            max_age: self.max_age,
            now: Some(now),
            ..Guards::default()
        })
    }
}

/// A feed is fetched so often unless set.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(60 * MINUTE.as_secs());
/// Limits of `every`.
const LEAST_INTERVAL: (&str, Duration) = ("10s", Duration::from_secs(10));
const MOST_INTERVAL: (&str, Duration) = ("30d", Duration::from_secs(30 * DAY.as_secs()));
/// Limits of `max_time` and `idle_time`.
const LEAST_TIME: (&str, Duration) = ("1s", Duration::from_secs(1));
const MOST_TIME: (&str, Duration) = ("1h", Duration::from_secs(60 * MINUTE.as_secs()));
/// The most of `max_bytes`: what a load reads of a feed.
const MOST_BYTES: u32 = 1 << 30;

/// Limits of `max_age`.
const LEAST_AGE: (&str, Duration) = ("1h", Duration::from_secs(60 * MINUTE.as_secs()));
const MOST_AGE: (&str, Duration) = ("3650d", Duration::from_secs(3650 * DAY.as_secs()));

impl<E: Fn(&Path) -> bool> Walk<'_, E> {
    pub(super) fn feeds(
        &self,
        document: &mut Document<'_>,
        top: &Section<'_>,
        state_dir: &Path,
    ) -> Vec<FeedSource> {
        let mut feeds = Vec::new();
        let mut names = Names::default();
        let sections = top.tables(document, "feed.");
        if !top.has("feed") {
            document.missing_but_usable(0, "no [[feed]]: there is nothing to match against");
        }
        for section in sections {
            let name = section.string(document, "name");
            if let Some(name) = &name {
                names.claim(document, "feed", name);
            }
            let format = section.string(document, "format").and_then(|format| {
                let parsed: Result<Format, _> = format.value.parse();
                if let Err(error) = &parsed {
                    document
                        .diagnostics
                        .error(format.offset, format!("format: {error}"));
                }
                let offset = format.offset;
                parsed.ok().map(|value| At { offset, value })
            });
            let meant = section.boolean(document, "match_attackers");
            let meant = meant.is_some_and(|meant| meant.value);
            if let Some(format) = format
                .as_ref()
                .filter(|it| it.value.lists_sources() && !meant)
            {
                let message = format!(
                    "{} lists networks that attack, not C&C servers: an infected device need not \
                     call them (match_attackers = true says that you mean it)",
                    format.value
                );
                document.diagnostics.error(format.offset, message);
            }
            let path = self.file(document, &section, "path");
            let policy = policy(document, &section);
            let format = format.map(value);
            let remote = self.remote(document, &section, format);
            require(document, &section, "feed", &["name", "format"]);
            match (section.has("path"), section.has("url")) {
                (true, true) => document.diagnostics.error(
                    section.offset,
                    "path and url: a feed is a file or is fetched; remove one",
                ),
                (false, false) => document.missing(
                    section.offset,
                    "path is missing in this [[feed]] (or url, for a feed that is fetched)",
                ),
                _ => {}
            }
            if let Some(name) = name
                .as_ref()
                .filter(|it| section.has("url") && it.value.len() > Remote::MAX_NAME_BYTES)
            {
                let message = format!(
                    "the name of a feed that is fetched has at most {} bytes",
                    Remote::MAX_NAME_BYTES
                );
                document.diagnostics.error(name.offset, message);
            }
            section.finish(document);
            let (Some(name), Some(format)) = (name.map(value), format) else {
                continue;
            };
            let path = match (&remote, path) {
                (Some(_), _) => Remote::copy_path(state_dir, &name),
                (None, Some(path)) => path.value,
                (None, None) => continue,
            };
            feeds.push(FeedSource {
                name,
                format,
                path,
                policy,
                remote: remote.map(Arc::new),
            });
        }
        feeds
    }

    /// From where a feed is fetched; `None` when it is a file.
    fn remote(
        &self,
        document: &mut Document<'_>,
        section: &Section<'_>,
        format: Option<Format>,
    ) -> Option<Remote> {
        let url = section.parsed::<FeedUrl>(document, "url");
        let least = format.map_or(LEAST_INTERVAL.1, Format::least_interval);
        let every = section.duration(document, "every", LEAST_INTERVAL, MOST_INTERVAL);
        if let (Some(every), Some(format)) = (every.as_ref().filter(|it| it.value < least), format)
        {
            let message = format!(
                "every must be at least {} s for {format}: more often brings nothing new and can \
                 get this edge locked out",
                least.as_secs()
            );
            document.diagnostics.error(every.offset, message);
        }
        let auth = section.parsed::<Auth>(document, "auth");
        let secret = self.file(document, section, "secret_file");
        if auth.is_some() != secret.is_some() && section.has("auth") != section.has("secret_file") {
            document.diagnostics.error(
                section.offset,
                "auth and secret_file belong together: how the secret is shown, and where it is",
            );
        }
        let plain_http = section.boolean(document, "plain_http");
        let plain_http = plain_http.is_some_and(|it| it.value);
        let default = FetchLimits::default();
        let remote = Remote {
            every: every.map_or(DEFAULT_INTERVAL.max(least), value),
            auth: auth.map(value).zip(secret.map(value)),
            ca_file: self.file(document, section, "ca_file").map(value),
            plain_http,
            collections: section
                .list(document, "collections", "ids or titles", |it| {
                    Ok(it.to_owned())
                })
                .into_iter()
                .map(value)
                .collect(),
            limits: FetchLimits {
                bytes: section
                    .integer(document, "max_bytes", 1, MOST_BYTES)
                    .map_or(default.bytes, |it| it.value.into()),
                total: section
                    .duration(document, "max_time", LEAST_TIME, MOST_TIME)
                    .map_or(default.total, value),
                idle: section
                    .duration(document, "idle_time", LEAST_TIME, MOST_TIME)
                    .map_or(default.idle, value),
            },
            url: match url {
                Some(url) => {
                    if !url.value.is_tls() && !url.value.is_loopback() && !plain_http {
                        document.diagnostics.error(
                            url.offset,
                            "without TLS anybody on the way can change the list: write https:// \
                             (plain_http = true says that you mean it)",
                        );
                    }
                    url.value
                }
                None => {
                    self.of_no_use(document, section);
                    return None;
                }
            },
        };
        Some(remote)
    }

    /// Keys that say how a feed is fetched, of one that is not.
    fn of_no_use(&self, document: &mut Document<'_>, section: &Section<'_>) {
        const OF_FETCHES: [&str; 8] = [
            "every",
            "auth",
            "ca_file",
            "plain_http",
            "collections",
            "max_bytes",
            "max_time",
            "idle_time",
        ];
        if section.has("url") {
            return;
        }
        for key in OF_FETCHES.iter().filter(|key| section.has(key)) {
            let message = format!("{key} has no effect on a feed that is a file: it is watched");
            document.diagnostics.warn(section.offset, message);
        }
    }

    pub(super) fn guards(&self, document: &mut Document<'_>, top: &Section<'_>) -> GuardConfig {
        let section = top.table(document, "guards.");
        let default = GuardConfig::default();
        let mut length =
            |key, most, default| small(document, &section, key, most).unwrap_or(default);
        let min_prefix_len_v4 = length("min_prefix_len_v4", 32, default.min_prefix_len_v4);
        let min_prefix_len_v6 = length("min_prefix_len_v6", 128, default.min_prefix_len_v6);
        let min_confidence = length("min_confidence", 100, default.min_confidence);
        let guards = GuardConfig {
            min_prefix_len_v4,
            min_prefix_len_v6,
            min_confidence,
            own_prefixes: section.prefixes(document, "own_prefixes"),
            min_remaining_share: section
                .share(document, "min_remaining_share")
                .map_or(default.min_remaining_share, value),
            max_bad_share: section
                .share(document, "max_bad_share")
                .map_or(default.max_bad_share, value),
            max_age: section
                .duration(document, "max_age", LEAST_AGE, MOST_AGE)
                .map(value),
            never_match_defaults: section
                .boolean(document, "never_match_defaults")
                .map_or(default.never_match_defaults, value),
            allow: allow(document, &section),
            allow_files: self.files(document, &section, "allow_files"),
            confirmed: confirmed(document, &section),
            notify: quality(document, &section, "guards.notify.", default.notify),
            block: quality(document, &section, "guards.block.", default.block),
        };
        section.finish(document);
        guards
    }
}

/// A whole number that fits a byte.
fn small(document: &mut Document<'_>, section: &Section<'_>, key: &str, most: u32) -> Option<u8> {
    let number = section.integer(document, key, 0, most)?;
    u8::try_from(number.value).ok()
}

fn policy(document: &mut Document<'_>, section: &Section<'_>) -> FeedPolicy {
    FeedPolicy {
        max_bad_share: section.share(document, "max_bad_share").map(value),
        min_remaining_share: section.share(document, "min_remaining_share").map(value),
        min_confidence: small(document, section, "min_confidence", 100),
        max_age: section
            .duration(document, "max_age", LEAST_AGE, MOST_AGE)
            .map(value),
        confidence: small(document, section, "confidence", 100),
        malware: section
            .string(document, "malware")
            .map(|it| it.value.trim().into()),
    }
}

fn allow(document: &mut Document<'_>, guards: &Section<'_>) -> Vec<Allowed> {
    let mut allow = Vec::new();
    for section in guards.tables(document, "guards.allow.") {
        let value = section.parsed::<AllowedValue>(document, "value");
        let reason = section.string(document, "reason");
        require(document, &section, "guards.allow", &["value", "reason"]);
        section.finish(document);
        if let (Some(value), Some(reason)) = (value, reason) {
            allow.push(Allowed {
                value: value.value,
                reason: reason.value,
            });
        }
    }
    allow
}

fn confirmed(document: &mut Document<'_>, guards: &Section<'_>) -> Vec<Confirmed> {
    let mut confirmed = Vec::new();
    for section in guards.tables(document, "guards.confirmed.") {
        let value = section.string(document, "value").and_then(|given| {
            exact_prefix(&given.value)
                .inspect_err(|error| {
                    document
                        .diagnostics
                        .error(given.offset, format!("value: {error}"));
                })
                .ok()
        });
        let by = section.string(document, "by");
        let reason = section.string(document, "reason");
        let at = section.timestamp(document, "at");
        let keys = ["value", "by", "reason", "at"];
        require(document, &section, "guards.confirmed", &keys);
        section.finish(document);
        if let (Some(value), Some(by), Some(reason), Some(at)) = (value, by, reason, at) {
            confirmed.push(Confirmed {
                value,
                by: by.value,
                reason: reason.value,
                at: at.value,
            });
        }
    }
    confirmed
}

fn quality(
    document: &mut Document<'_>,
    guards: &Section<'_>,
    name: &'static str,
    default: Quality,
) -> Quality {
    let section = guards.table(document, name);
    let quality = Quality {
        min_feeds: section
            .integer(document, "min_feeds", 1, 100)
            .map_or(default.min_feeds, value),
        min_confidence: small(document, &section, "min_confidence", 100)
            .unwrap_or(default.min_confidence),
    };
    section.finish(document);
    quality
}
