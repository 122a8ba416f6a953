//! `matcher feed check` and `matcher feed lookup`.

use std::path::Path;

use jiff::Timestamp;
use matcher_user::{
    feeds::{
        self, DEFAULT_MAX_BAD_SHARE, FeedEntry, FeedSource, Guards, LoadedFeed, address_and_port,
    },
    hit::Endpoint,
    indicators::{Catalog, IndicatorSet, report},
    instance::{Answer, Instance, InstanceError, parse_sources},
    subscribers::SubscriberSpace,
};

use super::{cli::Feed, print};

pub(super) fn feed(config: Option<&Path>, command: Feed) -> anyhow::Result<u8> {
    match command {
        Feed::Check { feed, json } => check(config, &feed, json),
        Feed::Lookup {
            address,
            feeds,
            json,
        } => lookup(config, &address, &feeds, json),
    }
}

/// Guards of the configuration, or the usual ones without.
fn guards(config: Option<&Path>) -> anyhow::Result<Guards> {
    let mut guards = Guards::default();
    if let Some(path) = config {
        let instance = Instance::of_config(path)?;
        let config = instance.config()?;
        let space = SubscriberSpace::load(
            config.subscribers.prefixes.iter().copied(),
            &config.subscribers.files,
        )
        .map_err(InstanceError::from)?;
        guards.min_prefix_len_v4 = config.guards.min_prefix_len_v4;
        guards.min_prefix_len_v6 = config.guards.min_prefix_len_v6;
        guards.own_prefixes.clone_from(&config.guards.own_prefixes);
        guards.own_prefixes.extend(space.prefixes());
    }
    Ok(guards)
}

fn source(text: &str) -> anyhow::Result<FeedSource> {
    Ok(text
        .parse()
        .map_err(|error| InstanceError::Usage(format!("{error}")))?)
}

fn check(config: Option<&Path>, feed: &str, json: bool) -> anyhow::Result<u8> {
    let source = source(feed)?;
    let guards = guards(config)?;
    let mut feed = LoadedFeed::read(&source)?;
    feed.guard(&guards);
    let mut answer = Answer::default();
    if json {
        answer.say(feeds::report::check_json(&feed, DEFAULT_MAX_BAD_SHARE).trim_end());
    } else {
        answer
            .out
            .push_str(&feeds::report::check_text(&feed, DEFAULT_MAX_BAD_SHARE));
    }
    if feed.usable(DEFAULT_MAX_BAD_SHARE).is_err() {
        answer.exit = 1;
    }
    print(&answer)
}

fn lookup(
    config: Option<&Path>,
    address: &str,
    feeds: &[String],
    json: bool,
) -> anyhow::Result<u8> {
    let (ip, port) = address_and_port(address)
        .map_err(|error| InstanceError::Usage(format!("{address}: {error}")))?;
    let set = if feeds.is_empty() {
        loaded(config)?
    } else {
        read(config, feeds)?
    };
    let asked = Endpoint { ip, port };
    let now = Timestamp::now();
    let mut answer = Answer::default();
    if json {
        answer.say(report::lookup_json(&set, asked, now).trim_end());
    } else {
        answer.out.push_str(&report::lookup_text(&set, asked, now));
    }
    print(&answer)
}

/// What was put in force last.
fn loaded(config: Option<&Path>) -> anyhow::Result<IndicatorSet> {
    let path = Instance::open(config)?.catalog_path();
    match Catalog::load(&path).map_err(InstanceError::from)? {
        Some(catalog) => Ok(catalog.current()),
        None => Err(InstanceError::Usage(format!(
            "no list has been loaded yet (there is no {}); name one with --feed FORMAT:PATH",
            path.display()
        ))
        .into()),
    }
}

fn read(config: Option<&Path>, feeds: &[String]) -> anyhow::Result<IndicatorSet> {
    let guards = guards(config)?;
    let mut read: Vec<(String, Vec<FeedEntry>)> = Vec::new();
    for source in parse_sources(feeds)? {
        let mut feed = LoadedFeed::read(&source)?;
        feed.guard(&guards);
        feed.usable(DEFAULT_MAX_BAD_SHARE)?;
        read.push((source.name, feed.entries));
    }
    let parts: Vec<(&str, &[FeedEntry])> = read
        .iter()
        .map(|(name, entries)| (name.as_str(), entries.as_slice()))
        .collect();
    let (set, _) = IndicatorSet::merge(&Catalog::default(), &parts, Timestamp::now())
        .map_err(InstanceError::from)?;
    Ok(set)
}
