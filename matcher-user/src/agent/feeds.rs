//! Keeping feeds up to date: fetches those that are due, notices files that
//! changed, and asks for a load when something is new.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::oneshot,
    task::JoinSet,
    time::Instant,
};

use crate::{
    config::Config,
    feeds::FeedSource,
    fetch::{
        Place,
        plan::{Asker, Interval},
        watch::{Fingerprints, SETTLING, Watcher},
    },
    instance::{FetchReport, Instance, Quiet},
};

/// Files are looked at so often even when the kernel says nothing: it does
/// not hear of changes on network file systems.
const LOOK: Duration = Duration::from_secs(30);
/// Fetches that run side by side.
const AT_ONCE: usize = 8;

/// A load waits so long for other fetches under way.
const GATHER: Duration = Duration::from_secs(5);
/// The least pause between two fetches of one feed.
const PAUSE: Duration = Duration::from_secs(5);

/// What the agent knows about its feeds.
pub(super) struct Feeds {
    fetches: JoinSet<(String, Option<FetchReport>)>,
    fetching: BTreeSet<String>,
    watcher: Option<AsyncFd<Watcher>>,
    /// The versions of the files that the last load began with.
    seen: Fingerprints,
    looked: Instant,
    /// The kernel heard a change that was not looked at yet.
    heard: Option<Instant>,
    /// Something is new, since then.
    wanted: Option<Instant>,
    /// Not asked for before then, whatever is written down: what cannot be
    /// written down, on a full disk, must not make us ask again and again.
    not_before: BTreeMap<String, Instant>,
}

impl Feeds {
    pub(super) fn new() -> Self {
        let watcher = Watcher::new().and_then(|watcher| {
            // SAFETY: `Watcher` owns its descriptor, always gives the same one,
            // and closes it only when it is dropped, with the registration.
            let registered =
                unsafe { AsyncFd::register_with_interest(watcher, Interest::READABLE) };
            registered.map_err(Into::into)
        });
        Self {
            watcher: watcher
                .inspect_err(|error| {
                    tracing::warn!(
                        "files of feeds cannot be watched ({error}); they are looked at every {} s",
                        LOOK.as_secs()
                    );
                })
                .ok(),
            fetches: JoinSet::new(),
            fetching: BTreeSet::new(),
            seen: Fingerprints::default(),
            looked: Instant::now(),
            heard: None,
            wanted: None,
            not_before: BTreeMap::new(),
        }
    }

    /// A load is needed as soon as there is time for one.
    pub(super) fn want_load(&mut self) {
        self.wanted.get_or_insert_with(Instant::now);
    }

    /// A load of the configured feeds begins: from now on a change is a
    /// change to what it reads.
    pub(super) fn load_begins(&mut self, config: &Config) {
        self.wanted = None;
        self.heard = None;
        self.looked = Instant::now();
        if let Some(watcher) = &mut self.watcher {
            for (folder, error) in watcher.get_mut().watch(files(config)) {
                tracing::debug!("cannot watch {}: {error}", folder.display());
            }
        }
        self.seen = Fingerprints::of(files(config));
    }

    /// What time alone brings about; true when feeds are to be loaded.
    pub(super) fn tick(&mut self, instance: &Instance, config: &Config) -> bool {
        self.start_fetches(instance, config);
        self.look(config);
        // Feeds that are due at once are loaded at once, and a slow one holds
        // up nobody.
        self.wanted
            .is_some_and(|since| self.fetching.is_empty() || since.elapsed() >= GATHER)
    }

    /// Returns when a fetch has ended or the kernel has heard of a change.
    pub(super) async fn news(&mut self) {
        let watched = async {
            match &mut self.watcher {
                Some(watcher) => watcher.readable_mut().await.map(|mut ready| {
                    let heard = ready.get_inner_mut().drain();
                    ready.clear_ready();
                    heard
                }),
                None => std::future::pending().await,
            }
        };
        let fetched = async {
            match self.fetches.join_next().await {
                Some(done) => done,
                None => std::future::pending().await,
            }
        };
        let done = tokio::select! {
            heard = watched => {
                match heard {
                    Ok(true) => self.heard = Some(Instant::now()),
                    Ok(false) => {}
                    // The look every half minute goes on.
                    Err(error) => {
                        tracing::warn!("files of feeds can no longer be watched: {error}");
                        self.watcher = None;
                    }
                }
                return;
            }
            done = fetched => done,
        };
        match done {
            Ok((name, report)) => {
                self.fetching.remove(&name);
                self.take(&name, report);
            }
            // Only a panic ends a task early; it has said so itself.
            Err(error) => tracing::error!("a fetch ended early: {error}"),
        }
    }

    fn take(&mut self, name: &str, report: Option<FetchReport>) {
        match report {
            Some(FetchReport::New(line)) => {
                tracing::info!("{line}");
                self.want_load();
            }
            Some(FetchReport::Same(line)) => tracing::debug!("{line}"),
            Some(FetchReport::Failed(line)) => tracing::warn!("{line}"),
            None => tracing::error!("{name}: the fetch ended early"),
        }
    }

    fn start_fetches(&mut self, instance: &Instance, config: &Config) {
        for source in instance.due(&config.feeds, Asker::Schedule, Timestamp::now()) {
            if self.fetching.len() >= AT_ONCE {
                break;
            }
            let paused = self.not_before.get(&source.name);
            if paused.is_some_and(|until| Instant::now() < *until)
                || !self.fetching.insert(source.name.clone())
            {
                continue;
            }
            let least = source.remote.as_ref().map_or(PAUSE, |remote| {
                Interval::of(source, remote).least.max(PAUSE)
            });
            self.not_before
                .insert(source.name.clone(), Instant::now() + least);
            let (sender, report) = oneshot::channel();
            let (instance, source) = (instance.clone(), source.clone());
            let name = source.name.clone();
            // A thread of its own: the agent does not wait for it when it
            // ends, and what it has not kept by then is fetched again.
            let started = std::thread::Builder::new()
                .name("fetch".into())
                .spawn(move || sender.send(instance.fetch(&source, &Quiet)));
            if let Err(error) = started {
                tracing::error!("{name}: cannot start a fetch: {error}");
            }
            self.fetches.spawn(async move { (name, report.await.ok()) });
        }
    }

    fn look(&mut self, config: &Config) {
        let heard = self.heard.is_some_and(|at| at.elapsed() >= SETTLING);
        if !heard && self.looked.elapsed() < LOOK {
            return;
        }
        let now = Fingerprints::of(files(config));
        if now != self.seen {
            if !now.are_settled(SystemTime::now()) {
                self.heard = Some(Instant::now());
                return;
            }
            tracing::info!("files of feeds have changed");
            self.want_load();
        }
        self.heard = None;
        self.looked = Instant::now();
    }
}

/// The files that a load reads and that somebody else writes.
fn files(config: &Config) -> impl Iterator<Item = &Path> {
    let feeds = config.feeds.iter().filter(|feed| feed.remote.is_none());
    feeds
        .map(|feed| feed.path.as_path())
        .chain(config.guards.allow_files.iter().map(|it| it.as_path()))
}

/// There is something to load before the first fetch is done.
pub(super) fn anything_there(feeds: &[FeedSource]) -> bool {
    feeds.is_empty()
        || feeds
            .iter()
            .any(|feed| feed.remote.is_none() || Place::of(feed).has_copy())
}
