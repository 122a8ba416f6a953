//! Consent in the kernel, changed while packets are judged by it.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use matcher_common::abi::{ConsentEntry, PortRange, Setting};
use zerocopy::IntoBytes as _;

use super::{KernelError, grace::wait_for_packets, port_ranges::PortRanges, tables::Tables};
use crate::{
    consent::{Answer, PortRun, Purpose, PurposeSet, SpacePrefix},
    tables::{
        consent::{ConsentEntries, transition},
        places::{Places, Span},
    },
};

const TABLE: &str = "consent";

/// How a change of consent went.
#[must_use]
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsentChange {
    /// Prefixes whose port ranges found no room: there packets are allowed
    /// what all who share an address allow. `tables.max_port_ranges` makes
    /// room.
    pub without_room: usize,
}

type Value = [u8; size_of::<ConsentEntry>()];

/// What the kernel holds.
struct Held {
    table: ConsentEntries,
    /// Where the ranges of the entries are that have some.
    spans: HashMap<SpacePrefix, Span>,
}

impl Tables {
    /// What the consent table holds now.
    pub fn consent(&self) -> Result<ConsentEntries, KernelError> {
        Ok(self.held_consent()?.table)
    }

    /// Purposes that the kernel allows for packets of one address with this
    /// port on its side; `None` for those whose port cannot be known.
    pub fn allowed_purposes(
        &self,
        space: u32,
        address: IpAddr,
        port: Option<u16>,
    ) -> Result<PurposeSet, KernelError> {
        match self.consent.lookup(TABLE, space, address)? {
            Some(value) => Ok(answer(&self.port_ranges, zerocopy::transmute!(value)).allowed(port)),
            None => self.default_purposes(),
        }
    }

    /// Port ranges in use, and how many fit.
    pub fn port_range_fill(&self) -> Result<(u32, u32), KernelError> {
        let held = self.held_consent()?;
        let capacity = self.port_ranges.capacity();
        Ok((Places::new(capacity, &held.places(self)).used(), capacity))
    }

    /// Makes the consent table hold exactly `new`, restrictions first: at no
    /// moment is anyone allowed more than the old table or the new one allows.
    ///
    /// Port ranges are written where no entry leads; then the entry is
    /// replaced, in one step. The place of the old ranges is written over only
    /// when every packet that may have read the old entry is done: no packet
    /// sees half a set of ranges.
    pub fn set_consent(&mut self, new: &ConsentEntries) -> Result<ConsentChange, KernelError> {
        let held = self.held_consent()?;
        let plan = transition(&held.table, new);
        if plan.is_empty()
            && self.default_purposes()? == plan.final_default
            && self.classes_are_current()?
        {
            return Ok(ConsentChange::default());
        }
        self.classes_are_due()?;
        let places = Places::new(self.port_ranges.capacity(), &held.places(self));
        self.set_default(plan.narrow_default)?;
        let mut writer = Writer {
            tables: self,
            places,
            spans: held.spans,
            quiet: false,
            done: 0,
            without_room: HashMap::new(),
        };
        for (at, answer) in &plan.restrict {
            writer.write(at, answer)?;
        }
        for (at, answer) in &plan.grant {
            writer.write(at, answer)?;
        }
        for at in &plan.remove {
            writer.tables.consent.remove(TABLE, at)?;
            writer.without_room.remove(at);
        }
        // What the old table held is gone now, and may have left room.
        for (at, answer) in std::mem::take(&mut writer.without_room) {
            writer.write(&at, &answer)?;
        }
        let change = ConsentChange {
            without_room: writer.without_room.len(),
        };
        // Before the default is widened: in the old image it still stands for
        // addresses that have an entry now.
        let of_space_0 = new.entries.iter().filter(|(at, _)| at.space == 0);
        self.switch_classes(of_space_0.map(|(at, answer)| {
            let refuses =
                matches!(answer, Answer::Whole(allowed) if !allowed.contains(Purpose::Detect));
            (at.prefix, refuses)
        }))?;
        if plan.final_default != plan.narrow_default {
            // A packet may have found no entry before the restrictions were
            // written and the image was switched, and read the default only now.
            wait_for_packets();
        }
        self.set_default(plan.final_default)?;
        Ok(change)
    }
}

impl Tables {
    fn default_purposes(&self) -> Result<PurposeSet, KernelError> {
        let bits = self.setting(Setting::DefaultPurposes)?;
        Ok(purposes(u32::try_from(bits).unwrap_or(0)))
    }

    fn set_default(&mut self, default: PurposeSet) -> Result<(), KernelError> {
        self.set(Setting::DefaultPurposes, default.bits().into())
    }

    fn held_consent(&self) -> Result<Held, KernelError> {
        let mut spans = HashMap::new();
        let mut known: HashMap<ConsentEntry, Answer> = HashMap::new();
        let mut entries = Vec::new();
        for (at, value) in self.consent.entries(TABLE)? {
            let entry: ConsentEntry = zerocopy::transmute!(value);
            if entry.count == 0 {
                entries.push((at, answer(&self.port_ranges, entry)));
                continue;
            }
            let held = known
                .entry(entry)
                .or_insert_with(|| answer(&self.port_ranges, entry));
            entries.push((at, held.clone()));
            spans.insert(
                at,
                Span {
                    first: entry.first,
                    count: entry.count,
                },
            );
        }
        Ok(Held {
            table: ConsentEntries {
                entries,
                default: self.default_purposes()?,
            },
            spans,
        })
    }
}

impl Held {
    /// The ranges in use, once for each entry that leads to them.
    fn places(&self, tables: &Tables) -> Vec<(Span, Arc<[PortRun<PurposeSet>]>)> {
        let mut known: HashMap<Span, Arc<[PortRun<PurposeSet>]>> = HashMap::new();
        self.spans
            .values()
            .map(|span| {
                let ranges = known
                    .entry(*span)
                    .or_insert_with(|| runs(&tables.port_ranges, *span).collect());
                (*span, Arc::clone(ranges))
            })
            .collect()
    }
}

/// Writes entries with their ranges.
struct Writer<'a> {
    tables: &'a mut Tables,
    places: Places,
    spans: HashMap<SpacePrefix, Span>,
    /// No packet is under way that read an entry before this change.
    quiet: bool,
    done: usize,
    /// What should stand where the ranges found no room.
    without_room: HashMap<SpacePrefix, Answer>,
}

impl Writer<'_> {
    fn write(&mut self, at: &SpacePrefix, answer: &Answer) -> Result<(), KernelError> {
        let whole = |allowed: PurposeSet| ConsentEntry {
            allowed: allowed.bits().into(),
            portless: allowed.bits().into(),
            ..ConsentEntry::default()
        };
        self.without_room.remove(at);
        let (entry, span) = match answer {
            Answer::Whole(allowed) => (whole(*allowed), None),
            Answer::ByPort(by_port) => match self.place(by_port.ranges()) {
                Some(span) => (
                    ConsentEntry {
                        allowed: by_port.outside().bits().into(),
                        portless: by_port.portless().bits().into(),
                        first: span.first,
                        count: span.count,
                    },
                    Some(span),
                ),
                None => {
                    self.without_room.insert(*at, answer.clone());
                    (whole(by_port.portless()), None)
                }
            },
        };
        let mut value: Value = [0; size_of::<ConsentEntry>()];
        value.copy_from_slice(entry.as_bytes());
        self.tables.consent.insert(TABLE, self.done, at, value)?;
        self.done += 1;
        let before = match span {
            Some(span) => self.spans.insert(*at, span),
            None => self.spans.remove(at),
        };
        if let Some(before) = before {
            self.places.leave(before);
        }
        Ok(())
    }

    /// A place that holds these ranges; `None` when there is no room.
    fn place(&mut self, ranges: &Arc<[PortRun<PurposeSet>]>) -> Option<Span> {
        let taken = match self.places.take(ranges) {
            None if self.places.anything_left() => {
                wait_for_packets();
                self.places.reclaim();
                self.places.take(ranges)
            }
            taken => taken,
        }?;
        if taken.is_new {
            if !self.quiet {
                // What is free now may have been left a moment ago, by a
                // change before this one.
                wait_for_packets();
                self.quiet = true;
            }
            for (index, run) in (taken.span.first..).zip(ranges.iter()) {
                let written = self.tables.port_ranges.set(
                    index,
                    PortRange {
                        first: run.first,
                        last: run.last,
                        allowed: run.value.bits().into(),
                    },
                );
                debug_assert!(written, "places end where the array does");
            }
        }
        Some(taken.span)
    }
}

fn purposes(bits: u32) -> PurposeSet {
    PurposeSet::from_bits(u8::try_from(bits).unwrap_or(0))
}

/// What an entry of the kernel says.
fn answer(ranges: &PortRanges, entry: ConsentEntry) -> Answer {
    if entry.count == 0 {
        return Answer::Whole(purposes(entry.allowed));
    }
    let span = Span {
        first: entry.first,
        count: entry.count,
    };
    Answer::new(purposes(entry.allowed), runs(ranges, span))
}

fn runs(ranges: &PortRanges, span: Span) -> impl Iterator<Item = PortRun<PurposeSet>> + '_ {
    (span.first..span.first.saturating_add(span.count))
        .map_while(|index| ranges.get(index))
        .map(|range| PortRun {
            first: range.first,
            last: range.last,
            value: purposes(range.allowed),
        })
}
