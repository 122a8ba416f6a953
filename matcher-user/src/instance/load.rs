//! Loading feeds: read, guard, merge, compile, switch.

use jiff::Timestamp;
use matcher_common::abi::Setting;

use super::{Answer, Instance, InstanceError, LockName};
use crate::{
    feeds::{DEFAULT_MAX_BAD_SHARE, FeedEntry, FeedSource, Guards, LoadedFeed, shrunk},
    indicators::{Catalog, IndicatorSet},
    kernel::tables::Tables,
    tables::indicators,
};

/// Lines about single entries that a load prints for one feed.
const MAX_LINES: usize = 20;

/// What a load put in force.
pub struct LoadedIndicators {
    /// The list in force.
    pub set: IndicatorSet,
    /// It, and what was listed before.
    pub catalog: Catalog,
    /// Generation of the tables.
    pub generation: u64,
}

impl Instance {
    /// What no feed may load. The subscriber space that the kernel holds and
    /// the operator's own prefixes can never be C&C addresses.
    pub fn guards(&self, tables: &Tables) -> Result<Guards, InstanceError> {
        let mut guards = Guards::default();
        if let Some(config) = &self.config {
            guards.min_prefix_len_v4 = config.guards.min_prefix_len_v4;
            guards.min_prefix_len_v6 = config.guards.min_prefix_len_v6;
            guards
                .own_prefixes
                .extend(config.guards.own_prefixes.iter().copied());
        }
        let subscribers = tables.subscribers()?;
        guards
            .own_prefixes
            .extend(subscribers.into_iter().map(|at| at.prefix));
        Ok(guards)
    }

    /// The catalog of indicators; empty before the first load.
    pub fn catalog(&self) -> Result<Catalog, InstanceError> {
        Ok(Catalog::load(&self.catalog_path())?.unwrap_or_default())
    }

    /// Makes exactly these feeds the list in force. A feed that cannot be
    /// used, or that lost too much, keeps its last good entries, and the
    /// answer says so; when there is nothing to put in force nothing changes.
    pub fn load(
        &self,
        tables: &mut Tables,
        sources: &[FeedSource],
        answer: &mut Answer,
    ) -> Result<LoadedIndicators, InstanceError> {
        let _loading = self.run_dir().lock(LockName::Load)?;
        let guards = self.guards(tables)?;
        let before = self.catalog()?;
        let min_share = self.config.as_ref().map_or_else(
            || crate::config::GuardConfig::default().min_remaining_share,
            |config| config.guards.min_remaining_share,
        );
        let mut usable = 0;
        let mut feeds: Vec<(&str, Vec<FeedEntry>)> = Vec::with_capacity(sources.len());
        for source in sources {
            let last_good = before.listed_by(&source.name);
            let entries = match read_feed(source, &guards, last_good.len(), min_share, answer) {
                Some(entries) => {
                    usable += 1;
                    entries
                }
                None => {
                    answer.exit = 1;
                    if !last_good.is_empty() {
                        answer.warn(format!(
                            "{}: its last good list with {} entries stays in force",
                            source.name,
                            last_good.len()
                        ));
                    }
                    last_good
                }
            };
            feeds.push((&source.name, entries));
        }
        let nothing = feeds.iter().all(|(_, entries)| entries.is_empty());
        if usable == 0 && nothing && !sources.is_empty() {
            return Err(InstanceError::NoFeed);
        }
        let parts: Vec<(&str, &[FeedEntry])> = feeds
            .iter()
            .map(|(name, entries)| (*name, entries.as_slice()))
            .collect();
        let (set, catalog) = IndicatorSet::merge(&before, &parts, Timestamp::now())?;
        let compiled = indicators::compile(set.iter())?;
        // The catalog before the kernel: a hit must never carry an id that a
        // crash makes us forget.
        catalog.save(&self.catalog_path())?;
        let generation = tables.load_indicators(&compiled)?;
        answer.say(format!(
            "{} indicators in force, generation {generation}",
            set.len()
        ));
        Ok(LoadedIndicators {
            set,
            catalog,
            generation,
        })
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

/// The entries of one feed, or `None` with the reason in the answer.
fn read_feed(
    source: &FeedSource,
    guards: &Guards,
    last_good: usize,
    min_share: f64,
    answer: &mut Answer,
) -> Option<Vec<FeedEntry>> {
    let mut feed = match LoadedFeed::read(source) {
        Ok(feed) => feed,
        Err(error) => {
            answer.problem(format!("error: {error}"));
            return None;
        }
    };
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
    if let Err(error) = feed.usable(DEFAULT_MAX_BAD_SHARE) {
        answer.problem(format!("error: {error}"));
        return None;
    }
    if let Some(shrunk) = shrunk(last_good, feed.entries.len(), min_share) {
        answer.problem(format!("error: {}: {shrunk}", source.path.display()));
        return None;
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
    Some(feed.entries)
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
