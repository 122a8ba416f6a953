//! The figures as JSON, and what is worked out of them.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    Figures, Plan,
    aims::{Aim, Bound},
    cost::Row,
    drain::{Drained, Fates},
    feeds::{Reading, Times},
    forward::Candidate,
    load::{LoadTimes, Loading},
    machine::Machine,
    opt_out::OptOuts,
    spread::{Spread, rounded},
};

/// Version of the JSON; a field that goes or changes its meaning raises it.
const VERSION: u32 = 2;

/// A row's figures, held against the baselines of the same rounds.
pub(super) struct Compared<'a> {
    pub(super) row: &'a Row,
    /// Nanoseconds a packet.
    pub(super) ns: Spread,
    /// Nanoseconds a packet over `empty`.
    pub(super) added: Spread,
    /// `ns` over that of `parse-min`.
    pub(super) times_parse_min: Spread,
}

/// Everything there is to tell.
#[derive(Clone, Debug)]
pub struct Report {
    /// How it was measured.
    pub plan: Plan,
    /// Whether the plan is one whose figures mean nothing.
    pub quick: bool,
    /// Where.
    pub machine: Machine,
    /// What came of it.
    pub figures: Figures,
}

impl Report {
    /// Every row against the baselines that ran right before and after it,
    /// round by round: what disturbed one disturbed the others.
    pub(super) fn compared(&self) -> Vec<Compared<'_>> {
        self.figures
            .cost
            .rows
            .iter()
            .filter_map(|row| {
                let own = || row.rounds.iter().copied();
                Some(Compared {
                    row,
                    ns: Spread::of(own())?,
                    added: Spread::of(own().zip(&row.empty).map(|(own, empty)| own - empty))?,
                    times_parse_min: Spread::of(
                        own().zip(&row.parse_min).map(|(own, least)| own / least),
                    )?,
                })
            })
            .collect()
    }

    /// The report for programs.
    pub fn json(&self) -> Value {
        let all = |each: &[f64]| each.iter().copied().map(rounded).collect::<Vec<_>>();
        let rows: Vec<Value> = self
            .compared()
            .into_iter()
            .map(|compared| {
                let row = compared.row;
                json!({
                    "family": row.family.name(),
                    "program": row.measured.name(),
                    "prefixes": row.measured.prefixes(),
                    "traffic": row.traffic.name(),
                    "ns": compared.ns.json(),
                    "added_ns": compared.added.json(),
                    "times_parse_min": compared.times_parse_min.json(),
                    "rounds_ns": all(&row.rounds),
                    "empty_ns": all(&row.empty),
                    "parse_min_ns": all(&row.parse_min),
                    "packets": row.packets,
                    "exit": row.exits.map(|_| row.traffic.exit().name()),
                    "exits": row.exits,
                    "lookups": row.lookups,
                    "swaps": row.swaps,
                })
            })
            .collect();
        let programs: Vec<Value> = self
            .figures
            .cost
            .instructions
            .iter()
            .map(|(name, walked)| json!({"program": name, "verified_instructions": walked}))
            .collect();
        json!({
            "version": VERSION,
            "quick": self.quick,
            "date": self.machine.date.to_string(),
            "commit": self.machine.commit,
            "compiler": self.machine.compiler,
            "optimised": self.machine.optimised,
            "machine": self.machine.json(),
            "method": self.plan.json(),
            "programs": programs,
            "forwarding": self.forwarded().iter().map(Forwarded::json).collect::<Vec<_>>(),
            "drain": self.figures.drain.iter().map(drained_json).collect::<Vec<_>>(),
            "lists": self.figures.load.iter().map(Loaded::of).map(Loaded::json).collect::<Vec<_>>(),
            "feeds": self.feeds().into_iter().map(Read::json).collect::<Vec<_>>(),
            "missing": self.missing().map(|(name, reason)| {
                json!({"name": name, "reason": reason})
            }).collect::<Vec<_>>(),
            "rows": rows,
            "opt_outs": self.figures.opt_outs.as_ref().ok().map(opt_outs_json),
            "aims": self.aims().iter().map(aim_json).collect::<Vec<_>>(),
        })
    }

    /// Every candidate against the one that only passes, round by round.
    pub(super) fn forwarded(&self) -> Vec<Forwarded<'_>> {
        let candidates = &self.figures.forward.candidates;
        let Some(passes) = candidates.first() else {
            return Vec::new();
        };
        candidates
            .iter()
            .filter_map(|candidate| {
                let own = || candidate.rounds.iter().copied();
                Some(Forwarded {
                    candidate,
                    rate: Spread::of(own())?,
                    of_pass_only: Spread::of(
                        own().zip(&passes.rounds).map(|(own, passes)| own / passes),
                    )?,
                })
            })
            .collect()
    }

    /// What reading a feed took, by format.
    pub(super) fn feeds(&self) -> Vec<Read<'_>> {
        self.figures.feeds.iter().map(Read::of).collect()
    }

    /// What could not be measured, and why.
    pub(super) fn missing(&self) -> impl Iterator<Item = &(&'static str, String)> {
        let figures = &self.figures;
        let others = figures.cost.missing.iter().chain(&figures.forward.missing);
        others.chain(figures.opt_outs.as_ref().err())
    }
}

/// A candidate of the forwarding, held against the one that only passes.
pub(super) struct Forwarded<'a> {
    pub(super) candidate: &'a Candidate,
    /// Packets a second.
    pub(super) rate: Spread,
    /// That, over the rate of the one that only passes.
    pub(super) of_pass_only: Spread,
}

impl Forwarded<'_> {
    fn json(&self) -> Value {
        json!({
            "family": "ipv4",
            "name": self.candidate.name,
            "entries": self.candidate.entries,
            "note": self.candidate.note,
            "packets_per_second": self.rate.json(),
            "of_pass_only": self.of_pass_only.json(),
        })
    }
}

fn opt_outs_json(opt_outs: &OptOuts) -> Value {
    let spread = |times: &[Duration]| {
        Spread::of(times.iter().map(|time| time.as_secs_f64() * 1e3)).map(Spread::json)
    };
    json!({
        "opted_out_before": opt_outs.before,
        "prefixes": opt_outs.prefixes,
        "in_force_ms": spread(&opt_outs.in_force),
        "answered_ms": spread(&opt_outs.answered),
    })
}

fn aim_json(aim: &Aim) -> Value {
    json!({
        "aim": aim.what,
        "bound": match aim.bound {
            Bound::AtMost => "at most",
            Bound::AtLeast => "at least",
        },
        "limit": aim.limit,
        "measured": aim.measured,
        "reached": aim.is_reached(),
    })
}

fn drained_json(drained: &Drained) -> Value {
    let fates = |fates: &Fates| {
        json!({
            "matched": fates.matched,
            "delivered": fates.delivered,
            "folded": fates.folded,
            "lost": fates.lost,
            "read": fates.read,
        })
    };
    json!({
        "reader": drained.reader.name(),
        "seconds": rounded(drained.seconds),
        "hits_per_second": drained.without_loss.map(rounded),
        "fates": fates(&drained.fates),
        "trials": drained.trials,
        "emptying_per_second": rounded(drained.emptying),
        "overload": fates(&drained.overload),
    })
}

/// The medians of loading a list, in milliseconds.
pub(super) struct Loaded<'a> {
    pub(super) loading: &'a Loading,
    /// Steps by name.
    pub(super) steps: [(&'static str, Option<Spread>); 7],
}

impl<'a> Loaded<'a> {
    pub(super) fn of(loading: &'a Loading) -> Self {
        let of = |step: fn(&LoadTimes) -> Duration| {
            Spread::of(
                loading
                    .times
                    .iter()
                    .map(|times| step(times).as_secs_f64() * 1e3),
            )
        };
        Self {
            loading,
            steps: [
                ("read", of(|times| times.read)),
                ("parse", of(|times| times.parse)),
                ("merge", of(|times| times.merge)),
                ("compile", of(|times| times.compile)),
                ("kernel", of(|times| times.kernel)),
                ("total", of(LoadTimes::total)),
                ("plain_trie", of(|times| times.plain)),
            ],
        }
    }

    fn json(self) -> Value {
        let mut list = serde_json::Map::new();
        list.insert("family".into(), self.loading.family.name().into());
        list.insert("prefixes".into(), self.loading.prefixes.into());
        for (name, spread) in self.steps {
            list.insert(format!("{name}_ms"), spread.map(Spread::json).into());
        }
        list.insert("peak_bytes".into(), self.loading.peak_bytes.into());
        list.insert("maps_bytes".into(), self.loading.maps_bytes.into());
        list.insert(
            "maps".into(),
            self.loading.maps.iter().cloned().collect::<Value>(),
        );
        Value::Object(list)
    }
}

/// The medians of reading a feed.
pub(super) struct Read<'a> {
    pub(super) reading: &'a Reading,
    /// Entries parsed in a second.
    pub(super) per_second: Option<Spread>,
    /// Seconds in the guards.
    pub(super) guard: Option<Spread>,
    /// Seconds to merge.
    pub(super) merge: Option<Spread>,
}

impl<'a> Read<'a> {
    fn of(reading: &'a Reading) -> Self {
        let of = |step: fn(&Times) -> Duration| {
            Spread::of(reading.times.iter().map(|times| step(times).as_secs_f64()))
        };
        Self {
            reading,
            per_second: Spread::of(reading.per_second()),
            guard: of(|times| times.guard),
            merge: of(|times| times.merge),
        }
    }

    fn json(self) -> Value {
        json!({
            "format": self.reading.format.name(),
            "entries": self.reading.entries,
            "entries_per_second": self.per_second.map(Spread::json),
            "guard_seconds": self.guard.map(Spread::json),
            "merge_seconds": self.merge.map(Spread::json),
            "entry_bytes": self.reading.entry_bytes,
            "peak_bytes": self.reading.peak_bytes,
        })
    }
}
