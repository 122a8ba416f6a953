//! The lists of a replay, read and judged before the first packet runs.

use std::{io::Write, path::Path};

use jiff::Timestamp;

use super::{ReplayError, consent::ConsentInTime, line::printable, matching::Request};
use crate::{
    consent::{ConsentLists, ConsentModel, ConsentSources},
    feeds::{DEFAULT_MAX_BAD_SHARE, FeedEntry, FeedError, FeedSource, Guards, LoadedFeed},
    indicators::{Catalog, IndicatorSet},
    kernel::program::Limits,
    subscribers::SubscriberSpaces,
    tables::{
        indicators::{IndicatorTables, compile},
        spaces::SpaceTables,
    },
};

/// What packets are held against.
pub(super) struct Lists {
    pub(super) indicators: IndicatorSet,
    pub(super) tables: IndicatorTables,
    pub(super) spaces: SpaceTables,
    pub(super) consent: ConsentInTime,
}

impl Lists {
    /// Reads all lists; says on `err` what is wrong with their lines.
    ///
    /// # Errors
    /// A list that must not be used; all feeds are read before one of them
    /// ends this.
    pub(super) fn load(request: &Request, err: &mut dyn Write) -> Result<Self, ReplayError> {
        let subscribers =
            SubscriberSpaces::load(request.subscribers.load()?, &request.vlan_spaces)?;
        let spaces = SpaceTables::new(&subscribers, &request.nat64);
        if spaces.subscribers.is_empty() {
            writeln!(
                err,
                "the subscriber space is empty: every packet is transit, and none can match"
            )?;
        }
        let consent = consent_lists(request.opt_out.as_deref(), &spaces, err)?;
        let consent = ConsentInTime::new(consent);
        let guards = if request.guards {
            Guards {
                own_prefixes: subscribers.prefixes().map(|at| at.prefix).collect(),
                ..Guards::default()
            }
        } else {
            Guards::none()
        };
        let feeds = feeds(&request.feeds, &guards, err)?;
        let entries: Vec<(&str, &[FeedEntry])> = feeds
            .iter()
            .map(|feed| (feed.source.name.as_str(), feed.entries.as_slice()))
            .collect();
        // Ids of this replay alone: nothing outlives it.
        let (indicators, _) = IndicatorSet::merge(&Catalog::default(), &entries, Timestamp::now())?;
        let tables = compile(indicators.iter())?;
        Ok(Self {
            indicators,
            tables,
            spaces,
            consent,
        })
    }

    /// Sizes of the kernel's tables that hold these lists at any time.
    pub(super) fn limits(&self) -> Limits {
        // There are two rules for every indicator.
        let rules = self.tables.rules.len().div_ceil(2);
        let indicators = self.tables.prefixes.len().max(rules);
        let entries = self
            .consent
            .most_entries()
            .max(self.spaces.subscribers.len());
        Limits {
            // Every packet is a hit of its own.
            max_flows: 1,
            max_indicators: u32::try_from(indicators).unwrap_or(u32::MAX),
            max_consent_entries: u32::try_from(entries).unwrap_or(u32::MAX),
            max_port_ranges: self.consent.most_port_ranges(),
            ring_bytes: RING_BYTES,
        }
    }
}

/// The ring buffer is emptied after every packet.
const RING_BYTES: u32 = 1 << 16;

fn feeds(
    sources: &[FeedSource],
    guards: &Guards,
    err: &mut dyn Write,
) -> Result<Vec<LoadedFeed>, ReplayError> {
    let mut feeds = Vec::with_capacity(sources.len());
    let mut unusable = Vec::new();
    for source in sources {
        match LoadedFeed::read(source) {
            Ok(mut feed) => {
                feed.guard(guards);
                for problem in feed.problem_lines() {
                    writeln!(err, "{}", printable(problem))?;
                }
                match feed.usable(DEFAULT_MAX_BAD_SHARE) {
                    Ok(()) => feeds.push(feed),
                    Err(error) => unusable.push(error),
                }
            }
            Err(error) => unusable.push(error),
        }
    }
    if unusable.is_empty() {
        return Ok(feeds);
    }
    if unusable
        .iter()
        .any(|error| matches!(error, FeedError::AllRefused { .. }))
    {
        writeln!(
            err,
            "entries that the guards refuse can be loaded with --no-guards, for captures of a \
             laboratory"
        )?;
    }
    Err(ReplayError::Feeds(unusable))
}

/// Reads the opt-out list once; nothing is kept of it.
fn consent_lists(
    opt_out: Option<&Path>,
    spaces: &SpaceTables,
    err: &mut dyn Write,
) -> Result<ConsentLists, ReplayError> {
    let mut lists = ConsentLists::new(ConsentSources {
        model: ConsentModel::OptOut,
        lists: opt_out.map(Path::to_owned).into_iter().collect(),
        no_list: opt_out.is_none(),
        exclusions: Vec::new(),
        notice_since: None,
        state_dir: None,
    });
    lists.set_spaces(spaces.for_consent());
    let mut reload = lists.reload();
    // When the list cannot be used, the last problem is the reason.
    let reason = match reload.matching_allowed {
        true => None,
        false => Some(reload.problems.pop()),
    };
    for problem in &reload.problems {
        writeln!(err, "{}", printable(problem.to_string()))?;
    }
    match reason {
        None => Ok(lists),
        Some(reason) => Err(ReplayError::RefusalsUnknown(reason.map_or_else(
            || "the opt-out list cannot be used: nothing is matched".to_owned(),
            |reason| format!("{}: {}", reason.source.display(), reason.message),
        ))),
    }
}
