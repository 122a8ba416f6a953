//! `matcher feed check`, `lookup`, `diff` and `list`.

use std::path::Path;

use jiff::Timestamp;
use matcher_user::{
    config::GuardConfig,
    feeds::{
        self, FeedOutcome, FeedOutcomes, FeedSource, Guards, LoadedFeed, ValueError,
        address_and_port,
    },
    hit::Endpoint,
    indicator::{DomainName, IndicatorId},
    indicators::{Catalog, IndicatorSet, Listed, report},
    instance::{Answer, FetchStatus, Instance, InstanceError, parse_sources},
    subscribers::{SubscriberSpace, SubscriberSpaces},
    verdicts::{AskedVerdict, Refuted, Verdict},
};
use serde::Serialize;

use super::{cli::Feed, print, progress::Bar, verdict};

pub(super) fn feed(config: Option<&Path>, command: Feed) -> anyhow::Result<u8> {
    match command {
        Feed::Check { feed, json } => check(config, &feed, json),
        Feed::Lookup {
            address,
            feeds,
            json,
        } => lookup(config, &address, &feeds, json),
        Feed::Diff { feeds, json } => diff(config, &feeds, json),
        Feed::List { json } => list(config, json),
        Feed::Verdict {
            value,
            verdict,
            by,
            why,
            id,
        } => {
            let asked = AskedVerdict {
                value,
                id,
                verdict,
                by,
                why,
            };
            verdict::give(config, asked)
        }
        Feed::Verdicts { json } => verdict::list(config, json),
        Feed::Export {
            format,
            since,
            organisation,
            tlp,
        } => verdict::export(config, format, since, organisation.as_deref(), tlp),
    }
}

/// The guards of the configuration, or the usual ones without.
struct Judged {
    guards: Guards,
    max_bad_share: f64,
}

fn guards(config: Option<&Path>) -> anyhow::Result<Judged> {
    let Some(path) = config else {
        return Ok(Judged {
            guards: Guards::default(),
            max_bad_share: GuardConfig::default().max_bad_share,
        });
    };
    let instance = Instance::of_config(path)?;
    Ok(Judged {
        guards: guards_of(&instance)?,
        max_bad_share: instance.config()?.guards.max_bad_share,
    })
}

/// The guards of an instance, with the subscriber spaces of its files.
fn guards_of(instance: &Instance) -> anyhow::Result<Guards> {
    let spaces = match &instance.config {
        None => SubscriberSpaces::default(),
        Some(config) => {
            let subscribers = &config.subscribers;
            let default =
                SubscriberSpace::load(subscribers.prefixes.iter().copied(), &subscribers.files)
                    .map_err(InstanceError::from)?;
            SubscriberSpaces::load(default, &subscribers.spaces).map_err(InstanceError::from)?
        }
    };
    Ok(instance.guards_with(spaces.prefixes().map(|at| at.prefix))?)
}

fn source(text: &str) -> anyhow::Result<FeedSource> {
    Ok(text
        .parse()
        .map_err(|error| InstanceError::Usage(format!("{error}")))?)
}

fn check(config: Option<&Path>, feed: &str, json: bool) -> anyhow::Result<u8> {
    let source = source(feed)?;
    let Judged {
        guards,
        max_bad_share,
    } = guards(config)?;
    let mut feed = LoadedFeed::read(&source)?;
    feed.guard(&guards);
    let mut answer = Answer::default();
    if json {
        answer.say(feeds::report::check_json(&feed, max_bad_share).trim_end());
    } else {
        answer
            .out
            .push_str(&feeds::report::check_text(&feed, max_bad_share));
    }
    if feed.usable(max_bad_share).is_err() {
        answer.exit = 1;
    }
    print(&answer)
}

/// What `feed lookup` is asked for.
enum Asked {
    Endpoint(Endpoint),
    Name(DomainName),
}

fn asked(text: &str) -> Result<Asked, InstanceError> {
    match address_and_port(text) {
        Ok((ip, port)) => Ok(Asked::Endpoint(Endpoint { ip, port })),
        Err(error @ ValueError::Name(_)) => match text.trim().parse() {
            Ok(name) => Ok(Asked::Name(name)),
            Err(_) => Err(InstanceError::Usage(format!("{text}: {error}"))),
        },
        Err(error) => Err(InstanceError::Usage(format!("{text}: {error}"))),
    }
}

fn lookup(
    config: Option<&Path>,
    address: &str,
    feeds: &[String],
    json: bool,
) -> anyhow::Result<u8> {
    let asked = asked(address)?;
    let listed = if feeds.is_empty() {
        loaded(config)?
    } else {
        read(config, feeds)?
    };
    // Without an instance there are no verdicts.
    let refuted = if feeds.is_empty() || config.is_some() {
        Instance::open(config)?.verdicts()?.refuted()
    } else {
        Refuted::default()
    };
    let set = refuted.taken_from(&listed);
    let now = Timestamp::now();
    let said = match (&asked, json) {
        (Asked::Endpoint(asked), true) => report::lookup_json(&set, *asked, now),
        (Asked::Endpoint(asked), false) => report::lookup_text(&set, *asked, now),
        (Asked::Name(name), true) => report::name_lookup_json(&set, name),
        (Asked::Name(name), false) => report::name_lookup_text(&set, name),
    };
    let mut answer = Answer::default();
    answer.say(said.trim_end());
    // In the way of both forms: whoever asks must learn that it is listed.
    for line in taken_out(&listed, &refuted, &asked) {
        answer.problem(line);
    }
    print(&answer)
}

/// What lists the address or name and is left out because of a verdict.
fn taken_out(listed: &IndicatorSet, refuted: &Refuted, asked: &Asked) -> Vec<String> {
    let line = |id: IndicatorId, verdict: &Verdict| {
        format!(
            "#{} {} is listed and taken out: {}",
            id.0,
            verdict.subject,
            verdict.reason()
        )
    };
    match asked {
        Asked::Endpoint(endpoint) => listed
            .iter()
            .filter(|indicator| indicator.value.contains(&endpoint.ip))
            .filter_map(|indicator| Some(line(indicator.id, refuted.why(indicator)?)))
            .collect(),
        Asked::Name(name) => listed
            .names()
            .filter(|indicator| indicator.value.covers(name))
            .filter_map(|indicator| Some(line(indicator.id, refuted.why_name(indicator)?)))
            .collect(),
    }
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
    let Judged {
        guards,
        max_bad_share,
    } = guards(config)?;
    let mut read: Vec<LoadedFeed> = Vec::new();
    for source in parse_sources(feeds)? {
        let mut feed = LoadedFeed::read(&source)?;
        feed.guard(&guards);
        feed.usable(max_bad_share)?;
        read.push(feed);
    }
    let listed: Vec<Listed<'_>> = read
        .iter()
        .map(|feed| Listed {
            feed: &feed.source.name,
            entries: &feed.entries,
            names: &feed.names,
        })
        .collect();
    let (set, _) = IndicatorSet::merge(&Catalog::default(), &listed, Timestamp::now())
        .map_err(InstanceError::from)?;
    Ok(set)
}

/// What loading would change; changes nothing.
fn diff(config: Option<&Path>, feeds: &[String], json: bool) -> anyhow::Result<u8> {
    let instance = Instance::open(config)?;
    let sources = if feeds.is_empty() {
        instance.config()?.feeds.clone()
    } else {
        parse_sources(feeds)?
    };
    let guards = guards_of(&instance)?;
    let mut answer = Answer::default();
    let progress = Bar::begin();
    let prepared = instance.prepare(&guards, &sources, &mut answer, &progress);
    progress.end();
    let prepared = prepared?;
    if json {
        // What a load would say of its feeds stands beside it, not in it.
        answer.out.clear();
        answer.say(report::diff_json(&prepared.before, &prepared.set));
    } else {
        let difference = report::diff_text(&prepared.before, &prepared.set);
        answer.out.push_str(&difference);
    }
    print(&answer)
}

/// One feed in `feed list`.
#[derive(Serialize)]
struct Row<'a> {
    feed: &'a str,
    format: String,
    path: String,
    /// Addresses and prefixes of it in force.
    entries: usize,
    /// Names of it that are kept.
    names: usize,
    /// Seconds since the file was changed or fetched, when it was read last.
    file_age_seconds: Option<i64>,
    /// How fetching it goes; `null` for a feed that is a file.
    fetch: Option<FetchStatus>,
    last: Option<&'a FeedOutcome>,
}

fn list(config: Option<&Path>, json: bool) -> anyhow::Result<u8> {
    let instance = Instance::open(config)?;
    let catalog = instance.catalog()?;
    let outcomes = FeedOutcomes::load(&instance.outcomes_path()).map_err(InstanceError::from)?;
    let now = Timestamp::now();
    let configured = instance
        .config
        .as_ref()
        .map(|config| config.feeds.as_slice())
        .unwrap_or_default();
    let row = |feed: &str, format: String, path: String| (feed.to_owned(), format, path);
    let mut feeds: Vec<(String, String, String)> = configured
        .iter()
        .map(|it| {
            let place = match &it.remote {
                Some(remote) => remote.url.to_string(),
                None => it.path.display().to_string(),
            };
            row(&it.name, it.format.to_string(), place)
        })
        .collect();
    // Loaded by --feed, beside the configuration.
    for outcome in &outcomes.0 {
        if !feeds.iter().any(|(name, ..)| *name == outcome.feed) {
            feeds.push(row(
                &outcome.feed,
                outcome.format.to_string(),
                outcome.path.display().to_string(),
            ));
        }
    }
    let rows: Vec<Row<'_>> = feeds
        .iter()
        .map(|(feed, format, path)| {
            let last = outcomes.of(feed);
            Row {
                feed,
                format: format.clone(),
                path: path.clone(),
                entries: catalog.listed_by(feed).len(),
                names: catalog.names_listed_by(feed).len(),
                file_age_seconds: last
                    .and_then(|last| last.file_changed)
                    .map(|changed| now.duration_since(changed).as_secs()),
                fetch: configured
                    .iter()
                    .find(|it| it.name == *feed)
                    .and_then(FetchStatus::of),
                last,
            }
        })
        .collect();
    let mut answer = Answer::default();
    if json {
        answer.say(serde_json::to_string(&rows)?);
        return print(&answer);
    }
    if rows.is_empty() {
        answer.say("no feed is configured, and none was loaded");
    }
    for row in &rows {
        answer.say(text(row, now));
    }
    print(&answer)
}

fn text(row: &Row<'_>, now: Timestamp) -> String {
    let Row {
        feed,
        format,
        path,
        entries,
        names,
        ..
    } = row;
    let mut text = format!("{feed} ({format}) {path}\n  in force      {entries} entries");
    if *names > 0 {
        text += &format!(", {names} names (nothing matches names yet)");
    }
    if let Some(fetch) = &row.fetch {
        text += &fetch_text(fetch, now);
    }
    let Some(last) = row.last else {
        return text + "\n  last result   never loaded";
    };
    if let Some(changed) = last.file_changed.filter(|_| row.fetch.is_none()) {
        text += &format!("\n  file          changed {} ago", age(now, changed));
    }
    let ago = age(now, last.at);
    text += &match &last.error {
        None => format!(
            "\n  last result   used {ago} ago: {} of {} lines, {} refused, {} unreadable, {} left out",
            last.counts.entries + last.counts.names,
            last.counts.data_lines,
            last.counts.refused,
            last.counts.bad,
            last.counts.left_out
        ),
        Some(error) => {
            let since = last.last_used.map_or_else(
                || "it was never used".to_owned(),
                |used| format!("last used {} ago", age(now, used)),
            );
            format!("\n  last result   NOT USED {ago} ago ({since}): {error}")
        }
    };
    text
}

fn fetch_text(fetch: &FetchStatus, now: Timestamp) -> String {
    let mut text = match fetch.copied {
        None => "\n  copy          none yet".to_owned(),
        Some(copied) => {
            let confirmed = fetch.confirmed.map_or_else(String::new, |at| {
                format!(", confirmed {} ago", age(now, at))
            });
            format!("\n  copy          {} old{confirmed}", age(now, copied))
        }
    };
    if let (Some(error), Some(attempted)) = (&fetch.error, fetch.attempted) {
        text += &format!(
            "\n  last fetch    FAILED {} ago ({} in a row): {error}",
            age(now, attempted),
            fetch.failures
        );
    }
    match fetch.next {
        Some(next) if next > now => {
            text += &format!("\n  next fetch    in {}", age(next, now));
        }
        Some(_) => text += "\n  next fetch    due",
        None => text += "\n  next fetch    due, never asked yet",
    }
    text
}

/// As people say it, in its largest unit: `3 h`.
fn age(now: Timestamp, then: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    for (length, name) in [(86_400, "days"), (3_600, "hours"), (60, "minutes")] {
        let whole = seconds / length;
        if whole >= 2 {
            return format!("{whole} {name}");
        }
    }
    format!("{seconds} seconds")
}
