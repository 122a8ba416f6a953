//! Rounds over all rows.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use ipnet::IpNet;
use matcher_common::abi::{Counter, HitEvent, InterfaceSettings, Setting, role};
use matcher_user::{
    consent::{Answer, Purpose, PurposeSet},
    kernel::{
        bench::{Baseline, Flows, Rotor, Target},
        object::Object,
        program::{Clock, LOOPBACK, Limits, Loaded, Program},
        ring::Ring,
    },
    tables::{consent::ConsentEntries, spaces::SpaceTables},
};

use super::{
    Family, Plan,
    lists::{compile_feed, opted_out, prefixes, subscriber_space},
    traffic::{Traffic, flows, frame},
};
use crate::traffic::Random;

/// What runs in a row.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Measured {
    /// A program of the baselines object.
    Baseline(Baseline),
    /// The product's parser alone.
    Parse,
    /// The product's program, with a list of so many prefixes.
    Matcher {
        /// Entries of the C&C list.
        prefixes: usize,
    },
}

impl Measured {
    /// As the report writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Baseline(Baseline::Empty) => "empty",
            Self::Baseline(Baseline::ParseMin) => "parse-min",
            Self::Parse => "parse",
            Self::Matcher { .. } => "matcher",
        }
    }

    /// Entries of the C&C list, where there is one.
    pub fn prefixes(self) -> Option<usize> {
        match self {
            Self::Baseline(_) | Self::Parse => None,
            Self::Matcher { prefixes } => Some(prefixes),
        }
    }
}

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// Of the packets.
    pub family: Family,
    /// What ran.
    pub measured: Measured,
    /// On which packets.
    pub traffic: Traffic,
    /// Nanoseconds a packet in each round, with everything around the program.
    pub rounds: Vec<f64>,
    /// Packets of all rounds.
    pub packets: u64,
    /// Those that took the exit of their traffic; all, or the benchmark fails.
    pub exits: Option<u64>,
    /// Look-ups in the C&C tables of the family.
    pub lookups: Option<u64>,
}

/// What it took to get a list into the kernel.
#[derive(Clone, Debug)]
pub struct LoadTimes {
    /// Of the list.
    pub family: Family,
    /// Its entries.
    pub prefixes: usize,
    /// Reading and guarding the feed's lines.
    pub parse: Duration,
    /// One set with ids.
    pub merge: Duration,
    /// Rules for each prefix.
    pub compile: Duration,
    /// Into the kernel, and the switch to the new generation.
    pub load: Duration,
}

/// Everything that was measured.
#[derive(Clone, Debug)]
pub struct Figures {
    /// The rows.
    pub rows: Vec<Row>,
    /// Loading each list.
    pub lists: Vec<LoadTimes>,
    /// Instructions that the verifier walked for each program, where the
    /// kernel tells.
    pub instructions: Vec<(&'static str, Option<u32>)>,
}

/// A list in the kernel.
struct Instance {
    loaded: Loaded,
    ring: Ring,
}

/// What a row runs on: indices into the rotors and instances of its family.
struct Place {
    rotor: usize,
    instance: Option<usize>,
}

/// One family's packets and lists.
struct Bed {
    frame: Vec<u8>,
    rotors: Vec<Rotor>,
    instances: Vec<Instance>,
    rows: Vec<(Row, Place)>,
}

const XDP_PASS: u32 = 2;

/// Measures everything in the plan; tells on `say` what is being done.
///
/// # Errors
/// The kernel refused something, or a packet was decided in another way than
/// its row says: then no figure is worth anything.
pub fn measure(
    plan: &Plan,
    object: &Object,
    baselines: &Path,
    say: &mut dyn FnMut(&str),
) -> Result<Figures> {
    let mut lists = Vec::new();
    let mut beds = Vec::new();
    for family in Family::ALL {
        beds.push(Bed::new(plan, family, object, baselines, &mut lists, say)?);
    }
    for round in 1..=plan.rounds {
        say(&format!("round {round} of {}", plan.rounds));
        for bed in &mut beds {
            bed.round(plan)?;
        }
    }
    let mut instructions = Vec::new();
    if let Some(bed) = beds.first_mut() {
        let rotor = bed.rotors.first_mut().context("no baselines")?;
        for baseline in [Baseline::Empty, Baseline::ParseMin] {
            let walked = rotor.verified_instructions(baseline)?;
            instructions.push((Measured::Baseline(baseline).name(), walked));
        }
        let instance = bed.instances.first_mut().context("no list")?;
        for (name, program) in [("parse", Program::Parse), ("matcher", Program::Matcher)] {
            let walked = instance.loaded.verified_instructions(program)?;
            instructions.push((name, walked));
        }
    }
    Ok(Figures {
        rows: beds
            .into_iter()
            .flat_map(|bed| bed.rows.into_iter().map(|(row, _)| row))
            .collect(),
        lists,
        instructions,
    })
}

impl Bed {
    fn new(
        plan: &Plan,
        family: Family,
        object: &Object,
        baselines: &Path,
        lists: &mut Vec<LoadTimes>,
        say: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        let mut random = Random::new(plan.seed);
        let largest = plan.sizes.iter().copied().max().context("no list")?;
        let all = prefixes(family, largest, &mut random);
        let out = opted_out(family, plan.opt_outs, &mut random)?;
        let mut bed = Self {
            frame: frame(family),
            rotors: Vec::new(),
            instances: Vec::new(),
            rows: Vec::new(),
        };
        let mut addresses = |traffic, listed: &[IpNet], say: &mut dyn FnMut(&str)| {
            say(&format!(
                "{} addresses of {} packets: {}",
                plan.flows,
                family.name(),
                Traffic::name(traffic)
            ));
            flows(family, traffic, plan.flows, listed, &out, &mut random)
        };

        // Not listed in the largest list is not listed in the smaller ones
        // either: all sizes meet the same packets.
        let miss = bed.rotor(baselines, &addresses(Traffic::Miss, &all, say)?)?;
        for baseline in [Baseline::Empty, Baseline::ParseMin] {
            bed.row(
                family,
                Measured::Baseline(baseline),
                Traffic::Miss,
                miss,
                None,
            );
        }
        for prefixes in &plan.sizes {
            let listed = all.get(..*prefixes).context("a list within the largest")?;
            say(&format!("a list of {prefixes} {} prefixes", family.name()));
            let (instance, times) = Instance::new(plan, family, object, listed, &out)?;
            lists.push(times);
            bed.instances.push(instance);
            let at = Some(bed.instances.len() - 1);
            if at == Some(0) {
                bed.row(family, Measured::Parse, Traffic::Miss, miss, at);
            }
            let measured = Measured::Matcher {
                prefixes: *prefixes,
            };
            bed.row(family, measured, Traffic::Miss, miss, at);
            let hit = bed.rotor(baselines, &addresses(Traffic::Hit, listed, say)?)?;
            bed.row(family, measured, Traffic::Hit, hit, at);
            if *prefixes == largest {
                for traffic in [Traffic::Transit, Traffic::OptedOut] {
                    let rotor = bed.rotor(baselines, &addresses(traffic, &all, say)?)?;
                    bed.row(family, measured, traffic, rotor, at);
                }
            }
        }
        Ok(bed)
    }

    fn rotor(&mut self, baselines: &Path, flows: &Flows) -> Result<usize> {
        self.rotors.push(Rotor::load(baselines, flows)?);
        Ok(self.rotors.len() - 1)
    }

    fn row(
        &mut self,
        family: Family,
        measured: Measured,
        traffic: Traffic,
        rotor: usize,
        instance: Option<usize>,
    ) {
        let counted = match measured {
            Measured::Matcher { .. } => Some(0),
            Measured::Baseline(_) | Measured::Parse => None,
        };
        let row = Row {
            family,
            measured,
            traffic,
            rounds: Vec::new(),
            packets: 0,
            exits: counted,
            lookups: counted,
        };
        self.rows.push((row, Place { rotor, instance }));
    }

    /// Every row once.
    fn round(&mut self, plan: &Plan) -> Result<()> {
        for (row, place) in &mut self.rows {
            let rotor = self.rotors.get_mut(place.rotor).context("no rotor")?;
            let instance = match place.instance {
                Some(index) => Some(self.instances.get_mut(index).context("no instance")?),
                None => None,
            };
            row.measure(plan, &self.frame, rotor, instance)?;
        }
        Ok(())
    }
}

impl Instance {
    fn new(
        plan: &Plan,
        family: Family,
        object: &Object,
        listed: &[IpNet],
        opted_out: &[IpNet],
    ) -> Result<(Self, LoadTimes)> {
        let subscribers = subscriber_space(family)?;
        let compiled = compile_feed(listed, subscribers)?;
        let record = u32::try_from(size_of::<HitEvent>())?.next_multiple_of(8) + 8;
        let limits = Limits {
            max_indicators: u32::try_from(listed.len())?,
            max_consent_entries: u32::try_from(opted_out.len())?.max(1),
            max_port_ranges: 1,
            ring_bytes: (plan.burst * record + 1).next_power_of_two().max(4096),
        };
        let mut loaded = Loaded::load(object, limits, Clock::Kernel)?;
        let tables = &mut loaded.tables;
        tables.set_interface(
            LOOPBACK,
            InterfaceSettings {
                role: role::BOTH,
                source_validated: 1,
            },
        )?;
        tables.set(Setting::ConsentDeadline, u64::MAX)?;
        tables.set_spaces(&SpaceTables::one([subscribers]))?;
        let nothing = Answer::Whole(PurposeSet::NONE);
        let consent = ConsentEntries {
            entries: opted_out
                .iter()
                .map(|prefix| ((*prefix).into(), nothing.clone()))
                .collect(),
            default: Purpose::Detect.into(),
        };
        // No entry has port ranges.
        let _ = tables.set_consent(&consent)?;
        let start = Instant::now();
        tables.load_indicators(&compiled.tables)?;
        let load = start.elapsed();
        let ring = Ring::open(tables)?;
        let times = LoadTimes {
            family,
            prefixes: listed.len(),
            parse: compiled.parse,
            merge: compiled.merge,
            compile: compiled.compile,
            load,
        };
        Ok((Self { loaded, ring }, times))
    }

    /// Takes what waits in the ring buffer out of it; gives its number.
    fn drain(&mut self) -> Result<u64> {
        let mut events = 0;
        while self.ring.next_event().transpose()?.is_some() {
            events += 1;
        }
        self.ring.release();
        Ok(events)
    }
}

impl Row {
    /// One round of this row.
    fn measure(
        &mut self,
        plan: &Plan,
        frame: &[u8],
        rotor: &mut Rotor,
        mut instance: Option<&mut Instance>,
    ) -> Result<()> {
        let before = match (&instance, self.exits) {
            (Some(instance), Some(_)) => Some(instance.loaded.tables.counters()?),
            _ => None,
        };
        match (self.measured, &mut instance) {
            (Measured::Baseline(baseline), _) => rotor.aim(Target::Baseline(baseline))?,
            (Measured::Matcher { .. }, Some(instance)) => {
                rotor.aim(Target::Matcher(&mut instance.loaded))?;
            }
            (Measured::Parse, Some(instance)) => {
                rotor.aim(Target::Parse(&mut instance.loaded))?;
            }
            (Measured::Parse | Measured::Matcher { .. }, None) => {
                bail!("{}: no list", self.title())
            }
        }
        let mut average = 0.0;
        let mut events = 0;
        for _ in 0..plan.bursts {
            let outcome = rotor.run(frame, plan.burst)?;
            ensure!(
                outcome.action == XDP_PASS,
                "{}: action {} instead of a pass",
                self.title(),
                outcome.action
            );
            average += outcome.duration.as_nanos() as f64 / f64::from(plan.bursts);
            if let Some(instance) = &mut instance {
                events += instance.drain()?;
            }
        }
        let packets = plan.packets_per_round();
        self.rounds.push(average);
        self.packets += packets;
        if let (Some(instance), Some(before)) = (instance, before) {
            let after = instance.loaded.tables.counters()?;
            let counted = |counter| after.get(counter) - before.get(counter);
            let lookups = counted(match self.family {
                Family::V4 => Counter::LookupsV4,
                Family::V6 => Counter::LookupsV6,
            });
            let exits = counted(self.traffic.exit());
            let hits = match self.traffic {
                Traffic::Hit => packets,
                Traffic::Miss | Traffic::Transit | Traffic::OptedOut => 0,
            };
            ensure!(
                exits == packets
                    && after.packets() - before.packets() == packets
                    && lookups == self.traffic.lookups(packets)
                    && counted(Counter::Delivered) == hits
                    && counted(Counter::Lost) == 0
                    && events == hits,
                "{}: of {packets} packets {exits} were counted as {}, with {lookups} look-ups, \
                 {} hits delivered, {} lost and {events} read",
                self.title(),
                self.traffic.exit().name(),
                counted(Counter::Delivered),
                counted(Counter::Lost),
            );
            self.exits = self.exits.map(|sum| sum + exits);
            self.lookups = self.lookups.map(|sum| sum + lookups);
        }
        Ok(())
    }

    fn title(&self) -> String {
        format!(
            "{} {} {} {}",
            self.family.name(),
            self.measured.name(),
            self.measured
                .prefixes()
                .map_or("-".to_owned(), |prefixes| prefixes.to_string()),
            self.traffic.name(),
        )
    }
}
