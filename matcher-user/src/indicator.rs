//! What feeds say about one address, prefix or name: an indicator of
//! compromise.

mod name;
mod tlp;

use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::{
    name::{DomainName, NameError},
    tlp::Tlp,
};
use crate::protocol::Protocol;

/// Names one indicator for as long as any list holds it; hits in the ring
/// buffer carry it. Never 0, never given to another indicator.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IndicatorId(pub u32);

impl IndicatorId {
    /// The canary's: an indicator of the product's own, which no feed lists.
    pub const CANARY: Self = Self(matcher_common::abi::CANARY_INDICATOR);
}

/// Which traffic with the address the indicator speaks of. Absent parts mean
/// "any" (R6: a C&C entry may carry a port).
#[derive(
    Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Qualifier {
    /// Transport protocol, where the feed names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Port on the C&C's side, where the feed names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// What one feed says of an indicator, beside its value and validity.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Said {
    /// The feed's own name for the entry, such as an SBL number or a UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Arc<str>>,
    /// Where the feed says more about it: a URL, or the title of a report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Arc<str>>,
    /// Malware family as the feed spells it; never empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub malware: Option<Arc<str>>,
    /// 0-100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<u8>,
    /// When the feed says it was first seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seen: Option<Timestamp>,
    /// When the feed says it was last seen; the start of the day where it
    /// gives only a date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
    /// To whom the entry may be passed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tlp: Option<Tlp>,
}

/// What one feed says, and which.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Statement {
    /// Name of the feed.
    pub feed: Arc<str>,
    /// What it says.
    #[serde(flatten)]
    pub said: Said,
}

/// One C&C address, prefix or name, merged over all feeds that list it (R6,
/// R20). `V` is what is listed: the kernel matches `Indicator<IpNet>`; an
/// `Indicator<DomainName>` is kept for detection at the DNS server (R8), and
/// cannot get into a table of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Indicator<V = IpNet> {
    /// Stable over reloads.
    pub id: IndicatorId,
    /// Address (a prefix of full length) or prefix, host bits cleared; or name.
    pub value: V,
    /// Protocol and port the entry is limited to.
    pub qualifier: Qualifier,
    /// The entry does not match before this time.
    pub valid_from: Option<Timestamp>,
    /// The entry does not match from this time on.
    pub valid_until: Option<Timestamp>,
    /// What the feeds say: at least one statement, in order of feed name,
    /// then of the lines in the feed. A feed that lists it more than once and
    /// says different things has more than one. Indicators of which the same is
    /// said share them.
    pub statements: Arc<[Arc<Statement>]>,
}

impl<V> Indicator<V> {
    /// An indicator that one feed lists and says nothing about.
    pub fn bare(id: IndicatorId, value: V, feed: &str) -> Self {
        Self {
            id,
            value,
            qualifier: Qualifier::default(),
            valid_from: None,
            valid_until: None,
            statements: [Arc::new(Statement {
                feed: feed.into(),
                said: Said::default(),
            })]
            .into(),
        }
    }

    /// Names of the feeds that list it, sorted, each once, at least one.
    pub fn feeds(&self) -> Vec<Arc<str>> {
        let feeds = self.statements.iter().map(|it| Arc::clone(&it.feed));
        let mut feeds: Vec<Arc<str>> = feeds.collect();
        feeds.dedup();
        feeds
    }

    /// Malware family: that of the first feed by name that gives one.
    pub fn malware(&self) -> Option<Arc<str>> {
        self.said().find_map(|said| said.malware.clone())
    }

    /// 0-100, the highest that any feed gives.
    pub fn confidence(&self) -> Option<u8> {
        self.said().filter_map(|said| said.confidence).max()
    }

    /// When a feed says it was first seen (the earliest).
    pub fn first_seen(&self) -> Option<Timestamp> {
        self.said().filter_map(|said| said.first_seen).min()
    }

    /// When a feed says it was last seen (the latest).
    pub fn last_seen(&self) -> Option<Timestamp> {
        self.said().filter_map(|said| said.last_seen).max()
    }

    /// To whom it may be passed on: the strictest marking of any feed.
    pub fn tlp(&self) -> Option<Tlp> {
        self.said().filter_map(|said| said.tlp).max()
    }

    fn said(&self) -> impl Iterator<Item = &Said> {
        self.statements.iter().map(|statement| &statement.said)
    }
}

impl Indicator {
    /// The value as people write it: a host without `/32` or `/128`.
    pub fn value_text(&self) -> String {
        value_text(self.value)
    }
}

/// A prefix as people write it: a host without `/32` or `/128`.
pub fn value_text(value: IpNet) -> String {
    if value.prefix_len() == value.max_prefix_len() {
        value.addr().to_string()
    } else {
        value.to_string()
    }
}

/// How good an indicator must be before something follows from it (R20).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Quality {
    /// So many feeds list it, at least; 1 asks for nothing.
    pub min_feeds: u32,
    /// A feed gives it this confidence, at least; 0 asks for nothing. An
    /// indicator that no feed rates does not reach any other.
    pub min_confidence: u8,
}

impl Quality {
    /// Every indicator is good enough.
    pub const ANY: Self = Self {
        min_feeds: 1,
        min_confidence: 0,
    };

    /// Whether an indicator that so many feeds list, with this as the highest
    /// confidence, is good enough.
    pub fn reached(self, feeds: usize, confidence: Option<u8>) -> bool {
        u32::try_from(feeds).unwrap_or(u32::MAX) >= self.min_feeds
            && confidence.unwrap_or(0) >= self.min_confidence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_feeds_say_is_kept_and_summed_up() {
        let statement = |feed: &str, confidence, seen: i64, tlp| {
            Arc::new(Statement {
                feed: feed.into(),
                said: Said {
                    malware: (feed != "a").then(|| feed.into()),
                    confidence,
                    first_seen: Timestamp::from_second(seen).ok(),
                    last_seen: Timestamp::from_second(seen + 5).ok(),
                    tlp,
                    ..Said::default()
                },
            })
        };
        let indicator = Indicator {
            statements: [
                statement("a", Some(40), 20, Some(Tlp::Green)),
                statement("a", None, 30, None),
                statement("b", Some(90), 10, Some(Tlp::Amber)),
                statement("c", None, 15, Some(Tlp::Clear)),
            ]
            .into(),
            ..Indicator::bare(
                IndicatorId(1),
                "192.0.2.1/32".parse::<IpNet>().unwrap(),
                "x",
            )
        };
        assert_eq!(indicator.feeds().join(" "), "a b c");
        assert_eq!(indicator.malware().as_deref(), Some("b"));
        assert_eq!(indicator.confidence(), Some(90));
        assert_eq!(indicator.first_seen(), Timestamp::from_second(10).ok());
        assert_eq!(indicator.last_seen(), Timestamp::from_second(35).ok());
        assert_eq!(indicator.tlp(), Some(Tlp::Amber));
    }

    #[test]
    fn an_indicator_that_nobody_rates_reaches_no_confidence() {
        assert!(Quality::ANY.reached(1, None));
        let asked = Quality {
            min_feeds: 2,
            min_confidence: 50,
        };
        assert!(asked.reached(2, Some(50)));
        assert!(!asked.reached(1, Some(100)));
        assert!(!asked.reached(2, Some(49)));
        assert!(!asked.reached(9, None));
    }
}
