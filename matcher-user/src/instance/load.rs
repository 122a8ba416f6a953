//! Loading feeds: read, guard, merge, compile, switch.

use std::path::Path;

use ipnet::IpNet;
use jiff::Timestamp;
use matcher_common::abi::Setting;

use super::{
    Answer, Instance, InstanceError, LockName, Progress, Step, fetch::FetchStatus,
    in_force::InForce,
};
use crate::{
    config::GuardConfig,
    feeds::{
        FeedEntry, FeedOutcome, FeedOutcomes, FeedSource, Guards, LoadedFeed, NeverMatched, shrunk,
    },
    indicator::DomainName,
    indicators::{Catalog, IndicatorSet, Listed, diff, diff_of_names},
    kernel::tables::Tables,
    tables::indicators,
    verdicts::Verdicts,
};

/// Lines about single entries that a load prints for one feed.
const MAX_LINES: usize = 20;

/// What a load put in force.
pub struct LoadedIndicators {
    /// The list in force.
    pub set: IndicatorSet,
    /// It, what verdicts take out of it, and what was listed before.
    pub catalog: Catalog,
    /// The verdicts that it was held against.
    pub verdicts: Verdicts,
    /// Generation of the tables.
    pub generation: u64,
    /// The tables held this list already: no new generation was made.
    pub unchanged: bool,
    /// The destinations that it was guarded against.
    pub never_matched: NeverMatched,
}

/// Feeds read, judged and merged; nothing of it is in force.
pub struct PreparedIndicators {
    /// The list that is in force now.
    pub before: IndicatorSet,
    /// The list as it would be.
    pub set: IndicatorSet,
    /// It, and what was listed before.
    pub catalog: Catalog,
    /// How each feed went.
    pub outcomes: FeedOutcomes,
}

/// What one feed brings into the next list.
struct Part<'a> {
    feed: &'a str,
    entries: Vec<FeedEntry>,
    names: Vec<FeedEntry<DomainName>>,
}

impl Part<'_> {
    fn len(&self) -> usize {
        self.entries.len() + self.names.len()
    }
}

impl Instance {
    /// What no feed may load. The subscriber space that the kernel holds and
    /// the operator's own prefixes can never be C&C addresses.
    pub fn guards(&self, tables: &Tables) -> Result<Guards, InstanceError> {
        let subscribers = tables.subscribers()?;
        self.guards_with(subscribers.into_iter().map(|at| at.prefix))
    }

    /// The same, with a subscriber space from elsewhere.
    pub fn guards_with(
        &self,
        subscribers: impl IntoIterator<Item = IpNet>,
    ) -> Result<Guards, InstanceError> {
        Ok(self.guard_config().guards(subscribers, Timestamp::now())?)
    }

    /// The destinations that are never matched. A list of them that cannot be
    /// read is told, and goes without: no load uses it either.
    pub fn never_matched(&self) -> NeverMatched {
        let mut config = self.guard_config();
        let read = config.guards([], Timestamp::now()).or_else(|error| {
            tracing::error!("{error}");
            config.allow_files.clear();
            config.guards([], Timestamp::now())
        });
        read.map(|guards| guards.never_matched())
            .unwrap_or_default()
    }

    pub(super) fn guard_config(&self) -> GuardConfig {
        self.config
            .as_ref()
            .map(|config| config.guards.clone())
            .unwrap_or_default()
    }

    /// The catalog of indicators; empty before the first load.
    pub fn catalog(&self) -> Result<Catalog, InstanceError> {
        Ok(Catalog::load(&self.catalog_path())?.unwrap_or_default())
    }

    /// Reads and merges exactly these feeds; changes nothing. A feed that
    /// cannot be used, or that lost too much, keeps its last good entries,
    /// as far as the guards of today let them, and the answer says so.
    pub fn prepare(
        &self,
        guards: &Guards,
        sources: &[FeedSource],
        answer: &mut Answer,
        progress: &dyn Progress,
    ) -> Result<PreparedIndicators, InstanceError> {
        let before = self.catalog()?;
        let previous = FeedOutcomes::load(&self.outcomes_path()).unwrap_or_else(|error| {
            answer.warn(format!("{error}"));
            FeedOutcomes::default()
        });
        let config = self.guard_config();
        let now = Timestamp::now();
        let mut outcomes = FeedOutcomes::default();
        let mut guarded_out = 0;
        let mut parts: Vec<Part<'_>> = Vec::with_capacity(sources.len());
        for (at, source) in sources.iter().enumerate() {
            progress.at(Step::Reading {
                feed: &source.name,
                number: at + 1,
                of: sources.len(),
            });
            let mut last_good = Part {
                feed: &source.name,
                entries: before.listed_by(&source.name),
                names: before.names_listed_by(&source.name),
            };
            let mut outcome = FeedOutcome {
                feed: source.name.clone(),
                format: source.format,
                path: source.path.clone(),
                at: now,
                file_changed: changed(&source.path),
                error: None,
                counts: Default::default(),
                last_used: Some(now),
            };
            let part = match read_feed(source, guards, last_good.len(), &config, answer) {
                Ok(feed) => {
                    outcome.counts = feed.counts();
                    Part {
                        feed: &source.name,
                        entries: feed.entries,
                        names: feed.names,
                    }
                }
                Err(reason) => {
                    answer.problem(format!("error: {reason}"));
                    answer.exit = 1;
                    outcome.error = Some(reason);
                    outcome.last_used = previous.of(&source.name).and_then(|it| it.last_used);
                    // What was good then may be guarded against by now.
                    let was = last_good.len();
                    let guards = guards.for_feed(&source.policy);
                    guards.apply(&mut last_good.entries);
                    guards.apply_to_names(&mut last_good.names);
                    let refused = was - last_good.len();
                    guarded_out += refused;
                    if was > 0 {
                        answer.warn(format!(
                            "{}: its last good list with {was} entries {}",
                            source.name,
                            if refused == was {
                                "is taken out: guards refuse all of it now".to_owned()
                            } else if refused > 0 {
                                format!("stays in force, without {refused} that guards refuse now")
                            } else {
                                "stays in force".to_owned()
                            }
                        ));
                    }
                    last_good
                }
            };
            outcomes.0.push(outcome);
            parts.push(part);
        }
        let usable = outcomes.0.iter().any(|outcome| outcome.error.is_none());
        let nothing = parts.iter().all(|part| part.len() == 0);
        // What guards refuse today may not go on being matched because there is
        // nothing else to match.
        if !usable && nothing && guarded_out == 0 && !sources.is_empty() {
            self.keep_outcomes(&outcomes, answer);
            return Err(InstanceError::NoFeed);
        }
        let listed: Vec<Listed<'_>> = parts
            .iter()
            .map(|part| Listed {
                feed: part.feed,
                entries: &part.entries,
                names: &part.names,
            })
            .collect();
        progress.at(Step::Merging(parts.iter().map(Part::len).sum()));
        let (set, catalog) = IndicatorSet::merge(&before, &listed, now)?;
        Ok(PreparedIndicators {
            before: before.current(),
            set,
            catalog,
            outcomes,
        })
    }

    /// Makes exactly these feeds the list in force ([`Self::prepare`]); when
    /// there is nothing to put in force nothing changes.
    pub fn load(
        &self,
        tables: &mut Tables,
        sources: &[FeedSource],
        answer: &mut Answer,
        progress: &dyn Progress,
    ) -> Result<LoadedIndicators, InstanceError> {
        let _loading = self.run_dir().lock(LockName::Load)?;
        let guards = self.guards(tables)?;
        let verdicts = self.verdicts()?;
        let PreparedIndicators {
            before,
            set: listed,
            catalog,
            outcomes,
        } = self.prepare(&guards, sources, answer, progress)?;
        let refuted = verdicts.refuted();
        let set = refuted.taken_from(&listed);
        let canary = self.canary_indicator();
        let in_tables = || set.iter().chain(canary.as_ref());
        let generation = tables.setting(Setting::Generation)?;
        let unchanged = generation > 0
            && InForce::of(self) == Some(InForce::new(tables, generation, in_tables())?);
        let generation = if unchanged {
            // What the feeds say of it may have changed all the same.
            if !diff(&before, &listed).is_empty() || !diff_of_names(&before, &listed).is_empty() {
                catalog.save(&self.catalog_path())?;
            }
            generation
        } else {
            let compiled = indicators::compile(in_tables())?;
            // The catalog before the kernel: a hit must never carry an id that
            // a crash makes us forget.
            catalog.save(&self.catalog_path())?;
            progress.at(Step::Writing(set.len()));
            let generation = tables.load_indicators(&compiled)?;
            // Without it the next load writes the same list once more.
            if let Err(error) = InForce::new(tables, generation, in_tables())?.remember(self) {
                answer.warn(format!("cannot note which list is in force: {error}"));
            }
            generation
        };
        self.keep_outcomes(&outcomes, answer);
        let before = refuted.taken_from(&before);
        let difference = diff(&before, &set);
        answer.say(if unchanged {
            "nothing changed".to_owned()
        } else {
            format!(
                "{} added, {} removed, {} changed",
                difference.added.len(),
                difference.removed.len(),
                difference.changed.len()
            )
        });
        answer.say(format!(
            "{} indicators in force, generation {generation}",
            set.len()
        ));
        let out = listed.len() - set.len();
        if out > 0 {
            answer.say(format!(
                "{out} listed and left out: false positives (`matcher feed verdicts`)"
            ));
        }
        if set.names().len() > 0 {
            answer.say(format!(
                "{} names are kept; nothing matches names yet",
                set.names().len()
            ));
        }
        Ok(LoadedIndicators {
            set,
            catalog,
            verdicts,
            generation,
            unchanged,
            never_matched: guards.never_matched(),
        })
    }

    /// What cannot be kept of it is no reason to undo a load.
    fn keep_outcomes(&self, outcomes: &FeedOutcomes, answer: &mut Answer) {
        if let Err(error) = outcomes.save(&self.outcomes_path()) {
            answer.warn(format!("{error}"));
        }
    }

    /// Says what stands between a load and the first hit, if anything does.
    pub fn warn_if_closed(
        &self,
        tables: &Tables,
        answer: &mut Answer,
    ) -> Result<(), InstanceError> {
        if tables.setting(Setting::Stopped)? != 0 {
            answer.warn(
                "the emergency stop is on: nothing is matched until `matcher stop-matching \
                 --resume`",
            );
        }
        if tables.subscribers()?.is_empty() {
            answer.warn(
                "the subscriber space is empty: every packet is transit (see [subscribers] in \
                 the configuration)",
            );
        }
        if tables.setting(Setting::ConsentDeadline)? <= crate::clock::boot_now_ns() {
            answer.warn(
                "consent has expired or was never loaded: nothing is matched until the agent \
                 runs, or `matcher load -c FILE` reads the lists again",
            );
        }
        Ok(())
    }
}

/// When a file was changed last, as far as the system knows.
fn changed(path: &Path) -> Option<Timestamp> {
    let time = path.metadata().and_then(|it| it.modified()).ok()?;
    Timestamp::try_from(time).ok()
}

/// One feed, read and found good; or the reason why not.
fn read_feed(
    source: &FeedSource,
    guards: &Guards,
    last_good: usize,
    config: &GuardConfig,
    answer: &mut Answer,
) -> Result<LoadedFeed, String> {
    if let Some(fetch) = FetchStatus::of(source).filter(|it| it.copied.is_none()) {
        return Err(match fetch.error {
            Some(error) => format!("{}: never fetched yet: {error}", source.name),
            None => format!("{}: not fetched yet from {}", source.name, fetch.url),
        });
    }
    let mut feed = LoadedFeed::read(source).map_err(|error| error.to_string())?;
    feed.guard(guards);
    for line in feed.problem_lines().take(MAX_LINES) {
        answer.problem(line);
    }
    let more = feed.problems.len().saturating_sub(MAX_LINES);
    if more > 0 {
        answer.problem(format!(
            "{}: and {more} more; `matcher feed check {source}` lists them",
            source.path.display()
        ));
    }
    feed.usable(config.max_bad_share)
        .map_err(|error| error.to_string())?;
    let listed = feed.entries.len() + feed.names.len();
    let min_share = source
        .policy
        .min_remaining_share
        .unwrap_or(config.min_remaining_share);
    if let Some(shrunk) = shrunk(last_good, listed, min_share) {
        return Err(format!("{}: {shrunk}", source.path.display()));
    }
    if let Some(caution) = source.format.caution() {
        answer.warn(format!("{}: {caution}", source.name));
    }
    answer.say(format!(
        "{}: {} {} from {}",
        source.name,
        feed.entries.len(),
        if feed.entries.len() == 1 {
            "entry"
        } else {
            "entries"
        },
        source.path.display()
    ));
    Ok(feed)
}

/// Feeds as given on a command line.
pub fn parse_sources(feeds: &[String]) -> Result<Vec<FeedSource>, InstanceError> {
    feeds
        .iter()
        .map(|feed| {
            feed.parse()
                .map_err(|error| InstanceError::Usage(format!("--feed {feed}: {error}")))
        })
        .collect()
}
