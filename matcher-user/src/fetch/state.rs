//! What is known of the past of a feed that is fetched; kept beside its copy.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::feeds::Format;

/// The past of a feed that is fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FetchState {
    /// The address without what may be secret in it, and the format: what
    /// the rest speaks of.
    pub of: Option<(String, Format)>,
    /// A number that stands for the whole address.
    pub address: u64,
    /// What the server said the copy is.
    pub validators: Validators,
    /// When the server was asked last.
    pub attempted: Option<Timestamp>,
    /// When it answered last, with a list or with "unchanged".
    pub confirmed: Option<Timestamp>,
    /// When the copy was taken.
    pub copied: Option<Timestamp>,
    /// Failures in a row.
    pub failures: u32,
    /// Why the last fetch failed.
    pub error: Option<String>,
    /// When to ask again.
    pub next: Option<Timestamp>,
    /// Until when the server wants to be left alone.
    pub paused_until: Option<Timestamp>,
    /// TAXII: how far each collection was read.
    pub collections: Vec<CollectionState>,
    /// TAXII: when the collections were last read from their beginning.
    pub whole: Option<Timestamp>,
}

/// How a server names a version of a file (RFC 9110 section 8.8).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Validators {
    /// `ETag`, as it came.
    pub etag: Option<String>,
    /// `Last-Modified`, as it came.
    pub last_modified: Option<String>,
}

impl Validators {
    /// There is nothing to ask by.
    pub fn is_empty(&self) -> bool {
        self.etag.is_none() && self.last_modified.is_none()
    }
}

/// How far a collection of a TAXII server was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectionState {
    /// Its id.
    pub id: String,
    /// Up to what was added then (`X-TAXII-Date-Added-Last`), as it came.
    pub added: String,
}
