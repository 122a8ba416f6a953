//! `matcher replay`: a hit for every matching packet, in capture order.
//!
//! What the program decides here is what it decides on a wire, with these
//! differences: the interface takes packets of either side (role `both`) and
//! its subscribers' addresses count as not forged; the packet's own time is
//! the clock for the validity of entries and of opt-outs; nothing is folded,
//! and the emergency stop and the dead-man's switch of consent are off.
//!
//! A hit as JSON is the line of [`Hit`] with `capture` (the file as it was
//! named) and `packet` (its number there, from 1, as Wireshark shows it) in
//! front; `interface` is null, `time` the packet's, and `sequence` counts the
//! hits of this replay from 0. As text:
//!
//! ```text
//! 2026-11-22T12:00:00.000000004Z  day.pcap:1  tcp  203.0.113.7:51413 -> 198.51.100.23:443  [own: 198.51.100.23 tcp port 443 Qakbot]
//! ```
//!
//! The subscriber stands on the left, whoever sent the packet; `->` is
//! outbound, `<-` inbound; in brackets the feeds and what they list.
//!
//! Lists are judged as the agent judges them. Feed lines that cannot be read,
//! and entries that the guards refuse, are named and the others load; a feed
//! that is no list at all ends the replay, and so does an opt-out list that
//! cannot be read: nobody is matched while it is unknown who refused.

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufWriter, Write},
    path::PathBuf,
    sync::Arc,
};

use jiff::Timestamp;
use matcher_common::{
    abi::{Counter, HitEvent, InterfaceSettings, Setting, role},
    parse,
};

use super::{
    ReplayError,
    account::ReplayAccount,
    captures::{Source, walk},
    consent::ConsentInTime,
    line,
    lists::Lists,
    runnable,
};
use crate::{
    drain::bare_hit,
    feeds::FeedSource,
    hit::{Hit, IndicatorSummary},
    indicator::IndicatorId,
    indicators::{IndicatorSet, summary},
    kernel::{
        KernelError,
        object::Object,
        program::{Clock, LOOPBACK, Loaded, Program},
        ring::Ring,
    },
    nat64::Nat64Prefix,
    subscribers::{SpaceSource, SubscriberArgument},
    tables::indicators::unix_ns,
};

/// What to replay, against what.
#[derive(Clone, Debug)]
pub struct Request {
    /// The C&C lists, at least one.
    pub feeds: Vec<FeedSource>,
    /// The subscriber space.
    pub subscribers: SubscriberArgument,
    /// Subscriber spaces of VLANs.
    pub vlan_spaces: Vec<SpaceSource>,
    /// NAT64 prefixes.
    pub nat64: Vec<Nat64Prefix>,
    /// The opt-out list; without one everybody consents.
    pub opt_out: Option<PathBuf>,
    /// Refuse entries that no C&C server can have, with the subscriber space
    /// as the operator's own; else load whatever the feeds say.
    pub guards: bool,
    /// Hits as JSON lines instead of text.
    pub json: bool,
    /// The captures, in order.
    pub captures: Vec<PathBuf>,
}

/// Runs the captures through the program: hits to `out`, what is wrong with
/// lists and captures, and the account, to `err`.
///
/// # Errors
/// See [`ReplayError`]; what was found until then has been written. A capture
/// that cannot be read is no error here: see
/// [`all_usable`](super::account::Captured::all_usable).
pub fn replay(
    object: &Object,
    request: &Request,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<ReplayAccount, ReplayError> {
    let lists = Lists::load(request, err)?;
    let mut out = BufWriter::with_capacity(1 << 16, out);
    let mut engine = Engine::new(object, lists)?;
    let place_width = place_width(&request.captures);
    let mut hits = 0;
    let captured = walk(
        &request.captures,
        err,
        |source| -> Result<(), ReplayError> {
            if let Some(event) = engine.run(source)? {
                let hit = engine.names.hit(&event, source.time, hits)?;
                hits += 1;
                if request.json {
                    line::write_json(&mut out, source, &hit)?;
                } else {
                    line::write_text(&mut out, source, place_width, &hit)?;
                }
            }
            Ok(())
        },
    )?;
    out.flush()?;
    let account = ReplayAccount {
        captured,
        counters: engine.counters()?,
        hits,
    };
    account.write(err)?;
    let (matched, delivered) = (
        account.get(Counter::Matched),
        account.get(Counter::Delivered),
    );
    if matched != delivered || delivered != hits {
        return Err(ReplayError::Unaccounted {
            matched,
            delivered,
            read: hits,
        });
    }
    Ok(account)
}

/// Room for the longest capture's name and six digits.
fn place_width(captures: &[PathBuf]) -> usize {
    let longest = captures
        .iter()
        .map(|path| path.display().to_string().chars().count())
        .max();
    longest.unwrap_or(0) + 7
}

/// The program, its tables, and the consumer of its hits.
struct Engine {
    loaded: Loaded,
    ring: Ring,
    consent: ConsentInTime,
    names: Names,
    /// What the kernel has as the packet's time.
    now_ns: Option<u64>,
    /// Packets that were too short to run, by the host parser's reason.
    not_run: BTreeMap<Counter, u64>,
}

impl Engine {
    fn new(object: &Object, lists: Lists) -> Result<Self, ReplayError> {
        let mut loaded = Loaded::load(object, lists.limits(), Clock::Replay)?;
        let tables = &mut loaded.tables;
        tables.set_interface(
            LOOPBACK,
            InterfaceSettings {
                role: role::BOTH,
                source_validated: 1,
            },
        )?;
        tables.set(Setting::ConsentDeadline, u64::MAX)?;
        tables.set_spaces(&lists.spaces)?;
        tables.load_indicators(&lists.tables)?;
        let ring = Ring::open(tables)?;
        Ok(Self {
            loaded,
            ring,
            consent: lists.consent,
            names: Names {
                indicators: lists.indicators,
                summaries: HashMap::new(),
            },
            now_ns: None,
            not_run: BTreeMap::new(),
        })
    }

    /// Runs one packet; gives the event if it matched.
    fn run(&mut self, source: &Source<'_>) -> Result<Option<HitEvent>, KernelError> {
        let Some(frame) = runnable(source.frame) else {
            if let Some(unparsed) = parse::parse(source.frame).unparsed() {
                *self.not_run.entry(unparsed).or_default() += 1;
            }
            return Ok(None);
        };
        let tables = &mut self.loaded.tables;
        self.consent.apply(source.time, tables)?;
        let now_ns = unix_ns(source.time);
        if self.now_ns != Some(now_ns) {
            tables.set(Setting::ReplayNow, now_ns)?;
            self.now_ns = Some(now_ns);
        }
        self.loaded.run(Program::Matcher, frame, LOOPBACK, 1)?;
        let event = self.ring.next_event().transpose()?;
        if event.is_some() {
            self.ring.release();
        }
        Ok(event)
    }

    /// Every counter, with the packets that did not run.
    fn counters(&self) -> Result<BTreeMap<Counter, u64>, KernelError> {
        let mut counters: BTreeMap<Counter, u64> = self.loaded.tables.counters()?.iter().collect();
        for (counter, packets) in &self.not_run {
            *counters.entry(*counter).or_default() += packets;
        }
        Ok(counters)
    }
}

/// What the numbers in events stand for.
struct Names {
    indicators: IndicatorSet,
    summaries: HashMap<IndicatorId, Arc<IndicatorSummary>>,
}

impl Names {
    /// The hit that an event stands for. `sequence` numbers the hits of this
    /// replay: the kernel's numbers are those of a CPU, and the scheduler
    /// chooses the CPU.
    fn hit(
        &mut self,
        event: &HitEvent,
        time: Timestamp,
        sequence: u64,
    ) -> Result<Hit, KernelError> {
        let id = IndicatorId(event.flow.indicator);
        let indicator = match self.summaries.get(&id) {
            Some(known) => Arc::clone(known),
            None => {
                let listed = self.indicators.get(id).ok_or_else(|| KernelError::Failed {
                    action: "reading a hit".into(),
                    reason: format!("no list has an indicator {}", id.0),
                })?;
                let new = Arc::new(summary(listed));
                self.summaries.insert(id, Arc::clone(&new));
                new
            }
        };
        Ok(Hit {
            time,
            sequence,
            ..bare_hit(event, indicator)
        })
    }
}
