//! What a feed says about one address or prefix: an indicator of compromise.

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::protocol::Protocol;

/// Names one indicator for as long as any list holds it; hits in the ring
/// buffer carry it. Never 0, never given to another indicator.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IndicatorId(pub u32);

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

/// One C&C address or prefix, merged over all feeds that list it (R6, R20).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Indicator {
    /// Stable over reloads.
    pub id: IndicatorId,
    /// Address (a prefix of full length) or prefix, host bits cleared.
    pub value: IpNet,
    /// Protocol and port the entry is limited to.
    #[serde(flatten)]
    pub qualifier: Qualifier,
    /// Names of the feeds that list it, sorted, at least one.
    pub feeds: Vec<String>,
    /// Malware family as the feed spells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub malware: Option<String>,
    /// 0-100, the highest that any feed gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<u8>,
    /// When a feed says it was first seen (the earliest).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seen: Option<Timestamp>,
    /// When a feed says it was last seen (the latest).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
    /// The entry does not match before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_from: Option<Timestamp>,
    /// The entry does not match from this time on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Timestamp>,
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
