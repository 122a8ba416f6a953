//! What may not become an indicator, whatever a feed says.

use std::{fmt, net::IpAddr, time::Duration};

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};

use super::{
    Allowed, AllowedValue, FeedEntry, FeedPolicy, LineProblem, NEVER_MATCH, ProblemKind,
    bogons::{Bogon, bogon, overlap},
};
use crate::{
    indicator::{DomainName, Said, value_text},
    threads::both,
};

/// Widest IPv4 prefix by default. The widest that is known from published
/// lists is a /14 (Spamhaus DROP); two bits more leave room. Whatever is wider
/// is rather a slip of the feed, and would accuse whole countries.
pub const DEFAULT_MIN_PREFIX_LEN_V4: u8 = 12;

/// Widest IPv6 prefix by default. A /29 is what registries give without
/// asking and the widest that is known from published lists; some carriers
/// hold up to a /24 or so.
pub const DEFAULT_MIN_PREFIX_LEN_V6: u8 = 24;

/// What to refuse. [`Guards::default`] refuses all that is described at the
/// fields; the operator's own prefixes must be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guards {
    /// Refuse what overlaps space that no C&C server on the Internet can
    /// have: private, shared, loopback, link-local, multicast, reserved.
    pub refuse_bogons: bool,
    /// With `refuse_bogons`: let private space through all the same (RFC 1918
    /// and RFC 4193), for laboratories. Shared space (100.64.0.0/10, RFC 6598)
    /// stays refused: an access network's subscribers live there.
    pub allow_private: bool,
    /// The operator's own prefixes and the subscriber space: an entry that
    /// overlaps one of them, on either side, is refused. A C&C server inside
    /// the own network is a matter for its take-down (R12), and a prefix that
    /// covers subscribers would accuse them of being called.
    pub own_prefixes: Vec<IpNet>,
    /// Shorter IPv4 prefixes are refused (0 to 32).
    pub min_prefix_len_v4: u8,
    /// Shorter IPv6 prefixes are refused (0 to 128).
    pub min_prefix_len_v6: u8,
    /// Entries with a lower confidence are refused (R20); entries whose feed
    /// gives none are not.
    pub min_confidence: Option<u8>,
    /// Refuse what overlaps [`NEVER_MATCH`].
    pub never_match_defaults: bool,
    /// Refuse what overlaps these too.
    pub allow: Vec<Allowed>,
    /// Entries in own space that are let through all the same.
    pub confirmed: Vec<Confirmed>,
    /// Entries that were last seen longer ago are refused; entries that say
    /// nothing of it are not.
    pub max_age: Option<Duration>,
    /// The time that ages are measured at; without it they are not judged.
    pub now: Option<Timestamp>,
}

/// An entry of own space that a person vouches for: this very value is a C&C
/// server, and is matched until it is taken down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// The entry's value; covers nothing but an entry of the same value.
    pub value: IpNet,
    /// Who confirmed it; never empty.
    pub by: String,
    /// Why; never empty.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

impl Default for Guards {
    fn default() -> Self {
        Self {
            refuse_bogons: true,
            allow_private: false,
            own_prefixes: Vec::new(),
            min_prefix_len_v4: DEFAULT_MIN_PREFIX_LEN_V4,
            min_prefix_len_v6: DEFAULT_MIN_PREFIX_LEN_V6,
            min_confidence: None,
            never_match_defaults: true,
            allow: Vec::new(),
            confirmed: Vec::new(),
            max_age: None,
            now: None,
        }
    }
}

impl Guards {
    /// No guard at all, for replaying captures that are full of private
    /// addresses.
    pub fn none() -> Self {
        Self {
            refuse_bogons: false,
            allow_private: true,
            own_prefixes: Vec::new(),
            min_prefix_len_v4: 0,
            min_prefix_len_v6: 0,
            min_confidence: None,
            never_match_defaults: false,
            allow: Vec::new(),
            confirmed: Vec::new(),
            max_age: None,
            now: None,
        }
    }

    /// The same guards, with what the operator says of one feed.
    pub fn for_feed(&self, policy: &FeedPolicy) -> Self {
        Self {
            min_confidence: policy.min_confidence.or(self.min_confidence),
            max_age: policy.max_age.or(self.max_age),
            ..self.clone()
        }
    }

    /// The destinations that are never matched: the shipped list, if it is
    /// switched on, and the operator's own.
    pub fn never_matched(&self) -> NeverMatched {
        let defaults = NEVER_MATCH
            .iter()
            .filter(|_| self.never_match_defaults)
            .map(|(address, _)| IpNet::from(*address));
        let allowed = self.allow.iter().filter_map(|allowed| match allowed.value {
            AllowedValue::Prefix(prefix) => Some(prefix),
            AllowedValue::Name(_) => None,
        });
        NeverMatched(Prefixes::new(defaults.chain(allowed)))
    }

    /// Takes the refused entries out of `entries` and returns why, in order;
    /// beside them a note for each entry that somebody confirmed.
    pub fn apply(&self, entries: &mut Vec<FeedEntry>) -> Vec<LineProblem> {
        let judge = Judge::new(self);
        let middle = entries.len() / 2;
        let (one, other) = entries.split_at(middle);
        let (mut said, more) = both(
            entries.len(),
            || judge.all(one, 0),
            || judge.all(other, middle),
        );
        said.extend(more);
        let mut refused = said
            .iter()
            .filter(|(_, problem)| problem.kind == ProblemKind::Refused)
            .map(|(at, _)| *at)
            .peekable();
        let mut places = 0..;
        entries.retain(|_| {
            let place = places.next();
            refused.next_if(|at| Some(*at) == place).is_none()
        });
        said.into_iter().map(|(_, problem)| problem).collect()
    }

    /// The same for names.
    pub fn apply_to_names(&self, names: &mut Vec<FeedEntry<DomainName>>) -> Vec<LineProblem> {
        let judge = Judge::new(self);
        let mut refused = Vec::new();
        names.retain(|entry| match judge.name(entry) {
            Ok(()) => true,
            Err(refusal) => {
                refused.push(LineProblem {
                    part: entry.part,
                    line: entry.line,
                    kind: ProblemKind::Refused,
                    reason: format!("{} {refusal}", entry.value),
                });
                false
            }
        });
        refused
    }
}

/// The guards, made ready for a long list.
struct Judge<'a> {
    guards: &'a Guards,
    own: Prefixes,
    allowed: NeverMatched,
    /// Entries seen last before this time are too old.
    oldest: Option<(Timestamp, Duration)>,
}

impl<'a> Judge<'a> {
    fn new(guards: &'a Guards) -> Self {
        Self {
            guards,
            own: Prefixes::new(guards.own_prefixes.iter().copied()),
            allowed: guards.never_matched(),
            oldest: guards.now.zip(guards.max_age).and_then(|(now, age)| {
                let oldest = now.checked_sub(SignedDuration::try_from(age).ok()?).ok()?;
                Some((oldest, age))
            }),
        }
    }

    /// What is to be said of entries, with the place of each, of which `first` is
    /// the first one's.
    fn all(&self, entries: &[FeedEntry], first: usize) -> Vec<(usize, LineProblem)> {
        let mut said = Vec::new();
        for (entry, place) in entries.iter().zip(first..) {
            let (kind, reason) = match self.address(entry) {
                Ok(None) => continue,
                Ok(Some(confirmed)) => (
                    ProblemKind::Note,
                    format!(
                        "is in the operator's own space; {} confirmed it at {}: {}",
                        confirmed.by, confirmed.at, confirmed.reason
                    ),
                ),
                Err(refusal) => (ProblemKind::Refused, refusal.to_string()),
            };
            let problem = LineProblem {
                part: entry.part,
                line: entry.line,
                kind,
                reason: format!("{} {reason}", value_text(entry.value)),
            };
            said.push((place, problem));
        }
        said
    }

    /// `Some` for an entry of own space that somebody confirmed.
    fn address(&self, entry: &FeedEntry) -> Result<Option<&'a Confirmed>, Refusal<'a>> {
        let value = entry.value;
        if self.guards.refuse_bogons
            && let Some(bogon) = bogon(value, self.guards.allow_private)
        {
            // A default route overlaps every bogon; its width is the news.
            return Err(if value.prefix_len() == 0 {
                Refusal::DefaultRoute
            } else {
                Refusal::Bogon(bogon)
            });
        }
        let min_len = match value {
            IpNet::V4(_) => self.guards.min_prefix_len_v4,
            IpNet::V6(_) => self.guards.min_prefix_len_v6,
        };
        if value.prefix_len() < min_len {
            return Err(if value.prefix_len() == 0 {
                Refusal::DefaultRoute
            } else {
                Refusal::TooWide { min_len }
            });
        }
        if self.allowed.overlaps(value) {
            return Err(self.reason_to_allow(value));
        }
        self.quality(&entry.said)?;
        let Some(own) = self.own.overlapping(value) else {
            return Ok(None);
        };
        let confirmed = &self.guards.confirmed;
        match confirmed.iter().find(|it| it.value == value) {
            Some(confirmed) => Ok(Some(confirmed)),
            None => Err(Refusal::Own(own)),
        }
    }

    fn name(&self, entry: &FeedEntry<DomainName>) -> Result<(), Refusal<'a>> {
        for allowed in &self.guards.allow {
            if let AllowedValue::Name(name) = &allowed.value
                && entry.value.is_within(name)
            {
                return Err(Refusal::AllowedName {
                    name,
                    reason: &allowed.reason,
                });
            }
        }
        self.quality(&entry.said)
    }

    fn quality(&self, said: &Said) -> Result<(), Refusal<'a>> {
        if let (Some(least), Some(given)) = (self.guards.min_confidence, said.confidence)
            && given < least
        {
            return Err(Refusal::Confidence { given, least });
        }
        if let (Some((oldest, most)), Some(seen)) =
            (self.oldest, said.last_seen.or(said.first_seen))
            && seen < oldest
        {
            return Err(Refusal::Stale { seen, most });
        }
        Ok(())
    }

    /// Which of the allowed destinations `value` overlaps, and why it is one.
    fn reason_to_allow(&self, value: IpNet) -> Refusal<'a> {
        let own = self
            .guards
            .allow
            .iter()
            .find_map(|allowed| match allowed.value {
                AllowedValue::Prefix(prefix) if overlap(prefix, value) => {
                    Some((prefix, allowed.reason.as_str()))
                }
                _ => None,
            });
        let default = || {
            NEVER_MATCH
                .iter()
                .map(|(address, what)| (IpNet::from(*address), *what))
                .find(|(prefix, _)| overlap(*prefix, value))
        };
        let (prefix, reason) = own.or_else(default).unwrap_or((value, "allowed"));
        Refusal::Allowed { prefix, reason }
    }
}

/// Why an entry is refused; reads on from its value.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Refusal<'a> {
    DefaultRoute,
    Bogon(Bogon),
    TooWide {
        min_len: u8,
    },
    Own(IpNet),
    Allowed {
        prefix: IpNet,
        reason: &'a str,
    },
    AllowedName {
        name: &'a DomainName,
        reason: &'a str,
    },
    Confidence {
        given: u8,
        least: u8,
    },
    Stale {
        seen: Timestamp,
        most: Duration,
    },
}

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DefaultRoute => write!(f, "is a default route and would match everything"),
            Self::Bogon(bogon) => bogon.fmt(f),
            Self::TooWide { min_len } => write!(
                f,
                "is wider than the /{min_len} that this configuration allows"
            ),
            Self::Own(own) => write!(f, "overlaps {own}, the operator's own space"),
            Self::Allowed { prefix, reason } => write!(
                f,
                "overlaps {}, which is never matched: {reason}",
                value_text(*prefix)
            ),
            Self::AllowedName { name, reason } => {
                write!(f, "is within {name}, which is never matched: {reason}")
            }
            Self::Confidence { given, least } => write!(
                f,
                "has confidence {given}, below the {least} that this configuration asks for"
            ),
            Self::Stale { seen, most } => write!(
                f,
                "was last seen at {seen}, longer ago than the {} days that this configuration \
                 allows",
                most.as_secs() / (24 * 60 * 60)
            ),
        }
    }
}

/// Destinations that are never matched, whatever a feed says: what was matched
/// before one of them was allowed shows nothing either.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NeverMatched(Prefixes);

impl NeverMatched {
    /// An entry with this value is refused.
    pub fn overlaps(&self, value: IpNet) -> bool {
        self.0.overlapping(value).is_some()
    }

    /// The same for the value of an indicator as a stored hit has it: an
    /// address or a prefix.
    pub fn overlaps_text(&self, value: &str) -> bool {
        let prefix = value
            .parse::<IpAddr>()
            .map(IpNet::from)
            .or_else(|_| value.parse());
        prefix.is_ok_and(|prefix| self.overlaps(prefix))
    }
}

/// Prefixes, disjoint and in order, so that a list of a million entries
/// against thousands of prefixes stays quick.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Prefixes(Vec<IpNet>);

impl Prefixes {
    fn new(prefixes: impl IntoIterator<Item = IpNet>) -> Self {
        let prefixes = prefixes.into_iter().map(|it| it.trunc()).collect();
        let mut disjoint = IpNet::aggregate(&prefixes);
        disjoint.sort_unstable();
        Self(disjoint)
    }

    /// The (first) prefix, as aggregated, that overlaps `value`.
    fn overlapping(&self, value: IpNet) -> Option<IpNet> {
        // In order of address, families apart: the candidate is the first that
        // ends at or behind the start of `value`.
        let start: IpAddr = value.network();
        let first = self.0.partition_point(|own| own.broadcast() < start);
        self.0
            .get(first)
            .copied()
            .filter(|own| overlap(*own, value))
    }
}

/// A list that lost so much that it is held back; the last good one stays.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Shrunk {
    /// Entries in the last good list.
    pub previous: usize,
    /// Entries in the list at hand.
    pub now: usize,
}

impl fmt::Display for Shrunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { previous, now } = self;
        write!(
            f,
            "held back, the last good list stays: {now} entries now, {previous} before"
        )
    }
}

/// Lists up to this size may shrink as they like: where a list has a handful
/// of entries (Feodo Tracker in 2024 and after), losing most of them is an
/// ordinary day.
pub const TINY_LIST: usize = 20;

/// Compares a list with the last good one: `Some` when it has fewer than
/// `min_share` (0 to 1) of its entries, and the last good one was not tiny. A
/// list that became empty is held back at any size.
pub fn shrunk(previous: usize, now: usize, min_share: f64) -> Option<Shrunk> {
    let emptied = now == 0 && previous > 0;
    let lost = previous > TINY_LIST && (now as f64) < previous as f64 * min_share;
    (emptied || lost).then_some(Shrunk { previous, now })
}

#[cfg(test)]
mod tests;
