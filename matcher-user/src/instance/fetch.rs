//! Fetching feeds for an instance: those that are due, a few at a time.

use std::{
    collections::VecDeque,
    hash::{BuildHasher as _, RandomState},
    sync::Mutex,
    thread,
};

use jiff::Timestamp;
use serde::Serialize;

use super::{Answer, Instance, InstanceError, LockName, Progress, Step};
use crate::{
    feeds::{FeedSource, Remote},
    fetch::{self, FetchOutcome, Place, plan::Asker},
};

/// Fetches that a command runs side by side.
const AT_ONCE: usize = 4;

/// How a fetch went, for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchReport {
    /// There is a new copy.
    New(String),
    /// Nothing changed, or somebody else is at it.
    Same(String),
    /// It failed; the last good copy stays.
    Failed(String),
}

/// Where a fetched feed stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FetchStatus {
    /// The address, without what may be secret in it.
    pub url: String,
    /// When the copy was taken.
    pub copied: Option<Timestamp>,
    /// When the server last confirmed it or gave a new one.
    pub confirmed: Option<Timestamp>,
    /// When the server was asked last.
    pub attempted: Option<Timestamp>,
    /// When it is asked next.
    pub next: Option<Timestamp>,
    /// Failures in a row.
    pub failures: u32,
    /// Why the last fetch failed.
    pub error: Option<String>,
}

impl FetchStatus {
    /// Of a feed; `None` for one that is a file.
    pub fn of(source: &FeedSource) -> Option<Self> {
        let remote = source.remote.as_ref()?;
        let place = Place::of(source);
        let state = place.state();
        Some(Self {
            url: remote.url.to_string(),
            copied: state.copied.filter(|_| place.has_copy()),
            confirmed: state.confirmed,
            attempted: state.attempted,
            next: state.next,
            failures: state.failures,
            error: state.error,
        })
    }
}

impl Instance {
    /// The feeds that it is time to ask for.
    pub fn due<'s>(
        &self,
        sources: &'s [FeedSource],
        asker: Asker,
        now: Timestamp,
    ) -> Vec<&'s FeedSource> {
        sources
            .iter()
            .filter(|it| it.remote.is_some())
            .filter(|it| fetch::is_due(it, &Place::of(it).state(), asker, now))
            .collect()
    }

    /// Fetches one feed and keeps what came; puts nothing in force.
    pub fn fetch(&self, source: &FeedSource, progress: &dyn Progress) -> FetchReport {
        let name = &source.name;
        let Some(remote) = &source.remote else {
            return FetchReport::Same(format!("{name}: is a file; nothing to fetch"));
        };
        match self.fetch_and_keep(source, remote, progress) {
            Ok(Some(FetchOutcome::New)) => {
                FetchReport::New(format!("{name}: fetched a new list from {}", remote.url))
            }
            Ok(Some(FetchOutcome::Unchanged)) => {
                FetchReport::Same(format!("{name}: unchanged at {}", remote.url))
            }
            Ok(Some(FetchOutcome::Failed(error))) => failed(source, &error.to_string()),
            Ok(None) => FetchReport::Same(format!("{name}: is being fetched already")),
            Err(error) => failed(source, &error.to_string()),
        }
    }

    fn fetch_and_keep(
        &self,
        source: &FeedSource,
        remote: &Remote,
        progress: &dyn Progress,
    ) -> Result<Option<FetchOutcome>, InstanceError> {
        let Some(_fetching) = Place::of(source).lock()? else {
            return Ok(None);
        };
        let max_bad_share = self.guard_config().max_bad_share;
        let meter = |bytes, of| {
            progress.at(Step::Fetching {
                feed: &source.name,
                bytes,
                of,
            });
        };
        let now = Timestamp::now();
        let fetched = fetch::fetch(source, remote, max_bad_share, now, chance(), &meter);
        // No load may read the copy while it changes.
        let _loading = self.run_dir().lock(LockName::Load)?;
        Ok(Some(fetched.keep(source)))
    }

    /// Fetches the feeds that are due; true when a copy is new.
    pub fn fetch_due(
        &self,
        sources: &[FeedSource],
        asker: Asker,
        answer: &mut Answer,
        progress: &dyn Progress,
    ) -> bool {
        let due = Mutex::new(VecDeque::from(self.due(sources, asker, Timestamp::now())));
        let next = || due.lock().ok().and_then(|mut due| due.pop_front());
        let reports = thread::scope(|scope| {
            let workers: Vec<_> = (0..AT_ONCE)
                .map(|_| {
                    scope.spawn(|| {
                        let mut reports = Vec::new();
                        while let Some(source) = next() {
                            reports.push(self.fetch(source, progress));
                        }
                        reports
                    })
                })
                .collect();
            workers
                .into_iter()
                .flat_map(|worker| worker.join().unwrap_or_default())
                .collect::<Vec<_>>()
        });
        let mut is_new = false;
        for report in reports {
            match report {
                FetchReport::New(line) => {
                    is_new = true;
                    answer.say(line);
                }
                FetchReport::Same(line) => answer.say(line),
                FetchReport::Failed(line) => {
                    answer.problem(format!("error: {line}"));
                    answer.exit = 1;
                }
            }
        }
        is_new
    }
}

fn failed(source: &FeedSource, error: &str) -> FetchReport {
    let place = Place::of(source);
    let then = match place.state().copied {
        _ if !place.has_copy() => "there is no copy to go on with".to_owned(),
        Some(copied) => format!("the last good copy of {copied:.0} stays in force"),
        None => "the last good copy stays in force".to_owned(),
    };
    FetchReport::Failed(format!("{}: {error}; {then}", source.name))
}

/// From 0.0 to 1.0, another one each time.
fn chance() -> f64 {
    let number = RandomState::new().hash_one(0);
    (number >> 11) as f64 / (1_u64 << 53) as f64
}
