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

impl FetchState {
    /// From the bytes of a state file. What they do not mention is not known.
    ///
    /// # Errors
    ///
    /// When they are no state, with line and column.
    pub fn read(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes)
    }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::{collection::vec, option::of, prelude::*};

    use super::*;
    use crate::fetch::plan;

    fn time() -> impl Strategy<Value = Timestamp> {
        (Timestamp::MIN.as_nanosecond()..=Timestamp::MAX.as_nanosecond())
            .prop_map(|it| Timestamp::from_nanosecond(it).expect("in its range"))
    }

    fn text() -> impl Strategy<Value = String> {
        any::<String>()
    }

    prop_compose! {
        fn collection()(id in text(), added in text()) -> CollectionState {
            CollectionState { id, added }
        }
    }

    prop_compose! {
        /// Any that could be kept, likely or not.
        fn state()(
            of in of((text(), proptest::sample::select(&Format::ALL[..]))),
            (address, failures) in (any::<u64>(), any::<u32>()),
            (etag, last_modified, error) in (of(text()), of(text()), of(text())),
            (attempted, confirmed, copied) in (of(time()), of(time()), of(time())),
            (next, paused_until, whole) in (of(time()), of(time()), of(time())),
            collections in vec(collection(), 0..4),
        ) -> FetchState {
            FetchState {
                of,
                address,
                validators: Validators { etag, last_modified },
                attempted,
                confirmed,
                copied,
                failures,
                error,
                next,
                paused_until,
                collections,
                whole,
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back(state in state()) {
            let bytes = serde_json::to_vec(&state).unwrap();
            prop_assert_eq!(FetchState::read(&bytes).unwrap(), state);
        }

        #[test]
        fn a_state_that_is_cut_off_is_refused(state in state(), at in any::<prop::sample::Index>()) {
            let bytes = serde_json::to_vec(&state).unwrap();
            let error = FetchState::read(&bytes[..at.index(bytes.len())]).unwrap_err();
            prop_assert!(error.is_eof(), "{}", error);
        }

        #[test]
        fn bytes_are_a_state_or_refused_with_their_place(bytes in vec(any::<u8>(), 0..200)) {
            if let Err(error) = FetchState::read(&bytes) {
                prop_assert!(error.to_string().contains(" at line "), "{}", error);
            }
        }

        /// A state file cannot stop fetches, whatever times it holds.
        #[test]
        fn whatever_was_kept_a_feed_is_asked_for_within_two_days(state in state(), now in time()) {
            let interval = plan::Interval {
                every: Duration::from_secs(3600),
                least: Duration::from_secs(60),
            };
            let later = now.checked_add(Duration::from_secs(2 * 86_400)).unwrap_or(Timestamp::MAX);
            prop_assume!(later < Timestamp::MAX);
            for asker in [plan::Asker::Schedule, plan::Asker::Person] {
                let due = |at| interval.is_due(&state, asker, at);
                prop_assert!(due(now) || due(later), "{:?}", asker);
            }
        }
    }
}
