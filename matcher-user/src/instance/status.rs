//! What `matcher status` shows.

use std::{collections::BTreeMap, fmt::Write as _};

use jiff::Timestamp;
use matcher_common::abi::{Counter, CounterKind, Setting, role};
use serde::Serialize;

use super::{Answer, CanaryStatus, FetchStatus, Instance, InstanceError};
use crate::{
    clock::boot_now_ns,
    feeds::{FeedOutcomes, FeedSource},
    kernel::{attach, ring::Ring, tables::Tables},
};

/// The state of an instance.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// Whether an agent runs.
    pub agent: bool,
    /// The emergency stop is on.
    pub stopped: bool,
    /// Seconds until the kernel stops matching unless consent is renewed; 0
    /// when it has stopped.
    pub consent_seconds_left: f64,
    /// Generation of the C&C tables; 0 before the first load.
    pub generation: u64,
    /// Prefixes in the subscriber space.
    pub subscriber_prefixes: usize,
    /// VLANs with a subscriber space of their own.
    pub vlans: usize,
    /// NAT64 prefixes.
    pub nat64_prefixes: usize,
    /// Prefixes with a consent of their own.
    pub consent_entries: usize,
    /// Port ranges of shared addresses in use, and how many fit.
    pub port_ranges: [u32; 2],
    /// The configured feeds.
    pub feeds: Vec<FeedStatus>,
    /// Attached interfaces.
    pub interfaces: Vec<InterfaceStatus>,
    /// Packets seen.
    pub packets: u64,
    /// Share of the IP packets that were parsed to their end, 0 to 1.
    pub coverage: f64,
    /// Matches and what became of them.
    pub hits: HitCounts,
    /// Bytes waiting in the ring buffer, and bytes that fit.
    pub ring: [u64; 2],
    /// The canary, if it is on.
    pub canary: Option<CanaryStatus>,
    /// All counters by name.
    pub counters: BTreeMap<&'static str, u64>,
}

/// One feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FeedStatus {
    /// Its name.
    pub feed: String,
    /// Its file was used when it was loaded last.
    pub used: bool,
    /// Why not; the last good list then stays in force.
    pub error: Option<String>,
    /// Seconds since its file was changed or fetched.
    pub age_seconds: Option<i64>,
    /// How fetching it goes; `None` for a feed that is a file.
    pub fetch: Option<FetchStatus>,
}

impl FeedStatus {
    fn of(source: &FeedSource, outcomes: &FeedOutcomes, now: Timestamp) -> Self {
        let last = outcomes.of(&source.name);
        let changed = last.and_then(|last| last.file_changed);
        Self {
            feed: source.name.clone(),
            used: last.is_some_and(|last| last.error.is_none()),
            error: last.and_then(|last| last.error.clone()),
            age_seconds: changed.map(|changed| now.duration_since(changed).as_secs()),
            fetch: FetchStatus::of(source),
        }
    }

    /// One line for a person.
    fn text(&self) -> String {
        let mut text = self.feed.clone();
        text += match (&self.error, self.used) {
            (Some(_), _) => ": NOT USED, the last good list stays in force",
            (None, true) => ": used",
            (None, false) => ": not loaded yet",
        };
        if let Some(age) = self.age_seconds {
            text += &format!(", list {age} s old");
        }
        if let Some(error) = &self.error {
            text += &format!("\n               {error}");
        }
        if let Some(error) = self.fetch.as_ref().and_then(|fetch| fetch.error.as_ref()) {
            let times = self.fetch.as_ref().map_or(0, |fetch| fetch.failures);
            text += &format!("\n               fetch FAILED ({times} in a row): {error}");
        }
        text
    }
}

/// One attached interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InterfaceStatus {
    /// Name when it was attached.
    pub name: String,
    /// Index.
    pub ifindex: u32,
    /// `access`, `core` or `both`.
    pub role: &'static str,
    /// A subscriber's address cannot be forged there.
    pub source_validated: bool,
    /// `native` or `generic`.
    pub mode: String,
    /// It can be seen from this network namespace under its name.
    pub visible: bool,
}

/// `matched = delivered + folded + lost` whenever the path is quiet.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HitCounts {
    /// Packets that matched.
    pub matched: u64,
    /// Handed to the ring buffer.
    pub delivered: u64,
    /// Counted into an earlier event.
    pub folded: u64,
    /// The ring buffer was full.
    pub lost: u64,
}

impl Instance {
    /// Reads the state. `agent`: whether the asker knows that one runs.
    pub fn status(&self, tables: &Tables, agent: bool) -> Result<Status, InstanceError> {
        let counters = tables.counters()?;
        let known = self.run_dir().record()?.interfaces;
        let mut roles = tables.interfaces()?;
        // The kernel's table has no order.
        roles.sort_unstable_by_key(|(ifindex, _)| *ifindex);
        let interfaces = roles
            .into_iter()
            .map(|(ifindex, settings)| {
                let record = known.iter().find(|record| record.ifindex == ifindex);
                let name = record.map_or_else(
                    || format!("interface {ifindex}"),
                    |record| record.name.clone(),
                );
                InterfaceStatus {
                    visible: attach::name(ifindex).is_some_and(|now| now == name),
                    name,
                    ifindex,
                    role: match settings.role {
                        role::ACCESS => "access",
                        role::CORE => "core",
                        _ => "both",
                    },
                    source_validated: settings.source_validated != 0,
                    mode: record.map_or_else(|| "unknown".into(), |record| record.mode.clone()),
                }
            })
            .collect();
        let unparsed: u64 = UNPARSED.iter().map(|counter| counters.get(*counter)).sum();
        let ip = counters.packets().saturating_sub(
            counters.get(Counter::NotIp)
                + counters.get(Counter::Stopped)
                + counters.get(Counter::ConsentExpired)
                + counters.get(Counter::InterfaceUnknown),
        );
        let (used, size) = Ring::open(tables)?.fill();
        let spaces = tables.spaces()?;
        let (ranges, most_ranges) = tables.port_range_fill()?;
        // How the last loads went is no reason to show nothing at all.
        let outcomes = FeedOutcomes::load(&self.outcomes_path()).unwrap_or_default();
        let now = Timestamp::now();
        let feeds = self.config.iter().flat_map(|config| &config.feeds);
        let left = tables
            .setting(Setting::ConsentDeadline)?
            .saturating_sub(boot_now_ns());
        Ok(Status {
            agent,
            feeds: feeds
                .map(|feed| FeedStatus::of(feed, &outcomes, now))
                .collect(),
            stopped: tables.setting(Setting::Stopped)? != 0,
            consent_seconds_left: left as f64 / 1e9,
            generation: tables.setting(Setting::Generation)?,
            subscriber_prefixes: spaces.subscribers.len(),
            vlans: spaces.vlans.len(),
            nat64_prefixes: spaces.nat64.len(),
            consent_entries: tables.consent()?.entries.len(),
            port_ranges: [ranges, most_ranges],
            interfaces,
            packets: counters.packets(),
            coverage: if ip == 0 {
                1.0
            } else {
                1.0 - unparsed as f64 / ip as f64
            },
            hits: HitCounts {
                matched: counters.get(Counter::Matched),
                delivered: counters.get(Counter::Delivered),
                folded: counters.get(Counter::Folded),
                lost: counters.get(Counter::Lost),
            },
            ring: [used, size],
            canary: self.canary().map(|canary| CanaryStatus {
                every_seconds: canary.every.as_secs(),
                ..CanaryStatus::default()
            }),
            counters: counters
                .iter()
                .map(|(counter, value)| (counter.name(), value))
                .collect(),
        })
    }
}

impl Instance {
    /// The emergency stop (design decision 13): one write, and everything
    /// passes unmatched. With `resume` it ends.
    pub fn stop_matching(
        &self,
        tables: &mut Tables,
        resume: bool,
        answer: &mut Answer,
    ) -> Result<(), InstanceError> {
        tables.set(Setting::Stopped, u64::from(!resume))?;
        if resume {
            tracing::warn!("matching resumes by command");
            answer.say("matching resumes");
        } else {
            tracing::warn!("matching is stopped by command");
            answer.say(
                "matching is stopped: every packet passes unmatched until `matcher \
                 stop-matching --resume`",
            );
        }
        Ok(())
    }
}

/// Exits of IP packets, or of what may hold some, that were not read.
const UNPARSED: &[Counter] = &[
    Counter::TruncatedLink,
    Counter::VlanDepth,
    Counter::Pppoe,
    Counter::Mpls,
    Counter::TruncatedIp,
    Counter::MalformedIp,
    Counter::ExtensionHeaders,
    Counter::Tunnel,
];

impl Status {
    /// For a person.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let matching = if self.stopped {
            "STOPPED by `matcher stop-matching`; `matcher stop-matching --resume` ends it".into()
        } else if self.consent_seconds_left <= 0.0 {
            "OFF: consent is not confirmed; run the agent, or `matcher load -c FILE`".into()
        } else {
            format!(
                "on; consent holds for {:.0} s more{}",
                self.consent_seconds_left,
                if self.agent {
                    " and is renewed by the agent"
                } else {
                    ", no agent renews it"
                }
            )
        };
        writeln!(text, "matching     {matching}")?;
        writeln!(
            text,
            "agent        {}",
            if self.agent { "running" } else { "not running" }
        )?;
        writeln!(
            text,
            "tables       generation {}, {} subscriber prefixes, {} consent entries",
            self.generation, self.subscriber_prefixes, self.consent_entries
        )?;
        let [ranges, most_ranges] = self.port_ranges;
        if ranges > 0 {
            writeln!(
                text,
                "shared       {ranges} of {most_ranges} port ranges of shared addresses"
            )?;
        }
        if self.vlans > 0 || self.nat64_prefixes > 0 {
            writeln!(
                text,
                "spaces       {} VLANs with a subscriber space of their own, {} NAT64 prefixes",
                self.vlans, self.nat64_prefixes
            )?;
        }
        for feed in &self.feeds {
            writeln!(text, "feed         {}", feed.text())?;
        }
        for interface in &self.interfaces {
            writeln!(
                text,
                "interface    {}: {} mode, role {}{}{}",
                interface.name,
                interface.mode,
                interface.role,
                if interface.source_validated {
                    ", sources validated"
                } else {
                    ""
                },
                if interface.visible {
                    ""
                } else {
                    " (gone, or in another network namespace)"
                }
            )?;
        }
        let hits = &self.hits;
        writeln!(
            text,
            "hits         {} matched = {} delivered + {} folded + {} lost",
            hits.matched, hits.delivered, hits.folded, hits.lost
        )?;
        let [used, size] = self.ring;
        writeln!(text, "ring buffer  {used} of {size} bytes waiting")?;
        if let Some(canary) = &self.canary {
            writeln!(text, "canary       {}", canary_text(canary, self.agent))?;
        }
        writeln!(
            text,
            "packets      {}, {:.2} % of the IP packets parsed to their end",
            self.packets,
            self.coverage * 100.0
        )?;
        for counter in Counter::ALL {
            let value = self.counters.get(counter.name()).copied().unwrap_or(0);
            if value != 0 && counter.kind() != CounterKind::Fate {
                writeln!(text, "  {:<19} {value}", counter.name())?;
            }
        }
        Ok(())
    }
}

fn canary_text(canary: &CanaryStatus, agent: bool) -> String {
    let Some(last) = &canary.last else {
        return if agent {
            "on; none was sent yet".into()
        } else {
            "on; no agent sends it".into()
        };
    };
    let age = Timestamp::now().duration_since(last.time).as_secs();
    format!(
        "{}\n  {age} s ago; {} of the packets and {} of the hits are canaries",
        last.text(),
        canary.sent,
        canary.seen
    )
}
