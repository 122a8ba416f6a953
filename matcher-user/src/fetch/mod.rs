//! Feeds that are fetched: when ([`plan`]), from where, and where the last
//! good copy is kept ([`Place`]); and feeds that are files: when they change
//! ([`watch`]).
//!
//! A fetch changes nothing by itself. It brings a [`Fetched`]: a complete new
//! copy that was read and found to be a list, or the reason why there is none.
//! [`Fetched::keep`] puts the copy into the place of the old one in one step
//! and then notes what the server said of it. A crash at any moment leaves the
//! old copy or the new one. Loads read the copy as they read any other file,
//! so that an edge without a network goes on with what it has.

mod error;
mod http;
mod misp;
mod place;
pub mod plan;
mod proxy;
mod secret;
mod state;
mod taxii;
pub mod watch;

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::PathBuf,
};

use jiff::Timestamp;

pub use self::{
    error::FetchError,
    place::{FetchLock, Place},
    state::{CollectionState, FetchState, Validators},
};
use self::{
    http::{Client, Question, Reply},
    place::Staged,
    plan::Interval,
};
use crate::feeds::{FeedSource, Format, LoadedFeed, Remote, parse};

/// What a fetch brought; nothing of it is kept yet.
#[derive(Debug)]
pub struct Fetched {
    staged: Option<Staged>,
    state: FetchState,
    failed: Option<FetchError>,
}

/// What became of a fetch.
#[derive(Debug)]
pub enum FetchOutcome {
    /// There is a new copy.
    New,
    /// The server says, or its bytes say, that nothing changed.
    Unchanged,
    /// The last good copy stays.
    Failed(FetchError),
}

/// How a fetch goes on: bytes of the current file so far, and bytes promised.
pub type Meter<'a> = &'a (dyn Fn(u64, Option<u64>) + Sync);

/// Is it time to ask for this feed? Feeds that are files are never asked for.
pub fn is_due(source: &FeedSource, state: &FetchState, asker: plan::Asker, now: Timestamp) -> bool {
    let Some(remote) = &source.remote else {
        return false;
    };
    // Another address has no past.
    !speaks_of(state, source, remote) || Interval::of(source, remote).is_due(state, asker, now)
}

/// Asks for a feed. `max_bad_share`: a list with a larger share of lines that
/// cannot be read is no new copy; `chance` (0.0 to 1.0) spreads the fetches
/// of many edges.
pub fn fetch(
    source: &FeedSource,
    remote: &Remote,
    max_bad_share: f64,
    now: Timestamp,
    chance: f64,
    meter: Meter<'_>,
) -> Fetched {
    let place = Place::of(source);
    let mut state = place.state();
    if !speaks_of(&state, source, remote) {
        state = FetchState {
            of: Some((remote.url.to_string(), source.format)),
            address: address(remote),
            copied: state.copied,
            ..FetchState::default()
        };
    }
    state.attempted = Some(now);
    state.paused_until = None;
    let interval = Interval::of(source, remote);
    let mut fresh = state.clone();
    match ask(
        source,
        remote,
        &place,
        &mut fresh,
        max_bad_share,
        now,
        meter,
    ) {
        Ok(staged) => {
            fresh.confirmed = Some(now);
            fresh.failures = 0;
            fresh.error = None;
            fresh.next = Some(interval.after_success(now, chance));
            if staged.is_some() {
                fresh.copied = Some(now);
            }
            Fetched {
                staged,
                state: fresh,
                failed: None,
            }
        }
        Err(error) => {
            state.failures = state.failures.saturating_add(1);
            state.error = Some(error.to_string());
            state.next = Some(interval.after_failure(&error, state.failures, now, chance));
            state.paused_until = interval.paused_until(&error, now);
            Fetched {
                staged: None,
                state,
                failed: Some(error),
            }
        }
    }
}

impl Fetched {
    /// Puts a new copy into force and notes how the fetch went. The caller
    /// sees to it that no load reads the copy meanwhile.
    pub fn keep(self, source: &FeedSource) -> FetchOutcome {
        let place = Place::of(source);
        let is_new = self.staged.is_some();
        let kept = match self.staged {
            Some(staged) => place.keep(staged),
            None => Ok(()),
        };
        let kept = kept.and_then(|()| place.keep_state(&self.state));
        match (self.failed, kept) {
            (Some(error), _) | (None, Err(error)) => FetchOutcome::Failed(error),
            (None, Ok(())) if is_new => FetchOutcome::New,
            (None, Ok(())) => FetchOutcome::Unchanged,
        }
    }
}

fn ask(
    source: &FeedSource,
    remote: &Remote,
    place: &Place,
    state: &mut FetchState,
    max_bad_share: f64,
    now: Timestamp,
    meter: Meter<'_>,
) -> Result<Option<Staged>, FetchError> {
    let mut client = Client::new(remote, now, meter)?;
    if source.format == Format::Taxii {
        let staged = taxii::fetch(&mut client, remote, place, state, now)?;
        return judged(source, remote, place, staged, max_bad_share);
    }
    // Without a copy, "unchanged" would help nobody.
    let known = state.validators.clone();
    let unless = (place.has_copy() && !known.is_empty()).then_some(&known);
    let manifest = (source.format == Format::Misp)
        .then(|| misp::manifest_url(&remote.url))
        .flatten();
    let (staged, validators) = match manifest {
        Some(manifest) => match misp::fetch(&mut client, &manifest, place, unless)? {
            None => return Ok(None),
            Some(fetched) => fetched,
        },
        None => {
            let question = Question {
                url: &remote.url,
                accept: "*/*",
                unless,
            };
            match client.get(&question)? {
                Reply::Unchanged => return Ok(None),
                Reply::Body(body) => (Staged::File(body.bytes), body.validators),
            }
        }
    };
    let same = match &staged {
        Staged::File(bytes) => fs::read(place.copy()).is_ok_and(|copy| copy == *bytes),
        Staged::Folder(_) => false,
    };
    state.validators = validators;
    if same {
        return Ok(None);
    }
    judged(source, remote, place, Some(staged), max_bad_share)
}

/// Lets only lists through that may replace the last good one. Guards and the
/// comparison with the last good list come when it is loaded.
fn judged(
    source: &FeedSource,
    remote: &Remote,
    place: &Place,
    staged: Option<Staged>,
    max_bad_share: f64,
) -> Result<Option<Staged>, FetchError> {
    // Messages name where it came from.
    let named = FeedSource {
        path: PathBuf::from(remote.url.to_string()),
        ..source.clone()
    };
    let read = match &staged {
        None => return Ok(None),
        Some(Staged::File(bytes)) => Ok(LoadedFeed::new(named, parse(source.format, bytes), bytes)),
        Some(Staged::Folder(path)) => LoadedFeed::read(&FeedSource {
            path: path.clone(),
            ..source.clone()
        }),
    };
    let usable = read.and_then(|feed| feed.usable(max_bad_share));
    match (usable, &staged) {
        (Ok(()), _) => Ok(staged),
        (Err(error), Some(Staged::File(bytes))) => Err(FetchError::NotUsable(format!(
            "{error} (kept for a look: {})",
            place.keep_rejected(bytes).display()
        ))),
        (Err(error), _) => Err(FetchError::NotUsable(error.to_string())),
    }
}

fn speaks_of(state: &FetchState, source: &FeedSource, remote: &Remote) -> bool {
    state.address == address(remote)
        && state
            .of
            .as_ref()
            .is_some_and(|(url, format)| *url == remote.url.to_string() && *format == source.format)
}

/// Stands for the whole address, so that what may be secret in it is not
/// written down.
fn address(remote: &Remote) -> u64 {
    let mut hasher = DefaultHasher::new();
    remote.url.in_full().hash(&mut hasher);
    remote.collections.hash(&mut hasher);
    hasher.finish()
}
