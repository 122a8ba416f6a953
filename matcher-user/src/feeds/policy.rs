//! What the operator says about one feed.

use std::{sync::Arc, time::Duration};

/// Settings of one feed; what is absent is as for all feeds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FeedPolicy {
    /// A larger share of bad data lines (0 to 1) and the file is not used.
    pub max_bad_share: Option<f64>,
    /// A list that shrinks below this share (0 to 1) of the last good one is
    /// held back.
    pub min_remaining_share: Option<f64>,
    /// Entries with a lower confidence (0-100) are refused.
    pub min_confidence: Option<u8>,
    /// Entries that were last seen (or, without that, first seen) longer ago
    /// are refused.
    pub max_age: Option<Duration>,
    /// Confidence of entries to which the feed gives none, 0-100.
    pub confidence: Option<u8>,
    /// Malware family of entries to which the feed gives none.
    pub malware: Option<Arc<str>>,
}
