//! What one packet costs in the kernel: rounds over all rows.

mod run;

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use matcher_common::abi::{HitEvent, InterfaceSettings, Setting, role};
use matcher_user::{
    consent::{Answer, PurposeSet},
    kernel::{
        bench::{Baseline, Reference, ReferenceProgram, ReferenceTables, Rotor},
        object::Object,
        program::{Clock, LOOPBACK, Limits, Loaded, Program},
        ring::Ring,
        tables::Tables,
    },
    tables::{consent::ConsentEntries, indicators::IndicatorTables, spaces::SpaceTables},
};

use self::run::Run;
use super::{
    Bench, Family, Plan,
    lists::prefixes,
    load::compile_list,
    population::Population,
    traffic::{Direction, Pairs, Traffic, flows, frame},
};
use crate::traffic::Random;

/// What runs in a row.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Measured {
    /// A program of the baselines object.
    Baseline(Baseline),
    /// The product's parser alone.
    Parse,
    /// A reference with tables of its own.
    Reference {
        /// Which.
        program: ReferenceProgram,
        /// Entries of the C&C list.
        prefixes: usize,
    },
    /// The product's program.
    Matcher {
        /// Entries of the C&C list.
        prefixes: usize,
        /// While the other CPU loads the same list again and again.
        swapping: bool,
    },
}

impl Measured {
    /// As the report writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Baseline(Baseline::Empty) => "empty",
            Self::Baseline(Baseline::ParseMin) => "parse-min",
            Self::Parse => "parse",
            Self::Reference { program, .. } => match program {
                ReferenceProgram::PassOnly => "pass-only",
                ReferenceProgram::PlainTries => "plain-tries",
                ReferenceProgram::HashMap => "hash-map",
            },
            Self::Matcher { swapping, .. } => match swapping {
                false => "matcher",
                true => "matcher-swap",
            },
        }
    }

    /// Entries of the C&C list, where there is one.
    pub fn prefixes(self) -> Option<usize> {
        match self {
            Self::Baseline(_) | Self::Parse => None,
            Self::Reference { prefixes, .. } | Self::Matcher { prefixes, .. } => Some(prefixes),
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
    /// The same of the empty program, on the same packets right before and
    /// right after.
    pub empty: Vec<f64>,
    /// The same of `parse-min`.
    pub parse_min: Vec<f64>,
    /// Packets of all rounds.
    pub packets: u64,
    /// Those that took the exit of their traffic; all, or the benchmark fails.
    pub exits: Option<u64>,
    /// Look-ups in the C&C tables of the family.
    pub lookups: Option<u64>,
    /// Changes of the list meanwhile.
    pub swaps: Option<u64>,
}

/// What packets cost.
#[derive(Clone, Debug, Default)]
pub struct Costs {
    /// The rows.
    pub rows: Vec<Row>,
    /// Instructions that the verifier walked for each program, where the
    /// kernel tells.
    pub instructions: Vec<(&'static str, Option<u32>)>,
    /// Rows that could not be, and why.
    pub missing: Vec<(&'static str, String)>,
}

/// A list in the kernel, and who reads its hits.
pub(super) struct Instance {
    pub(super) loaded: Loaded,
    pub(super) ring: Ring,
}

/// What a row runs on: indices into the parts of its family's bed.
#[derive(Copy, Clone)]
enum On {
    Nothing,
    Instance(usize),
    Reference(usize),
}

/// One family's packets and lists.
struct Bed {
    frame: Vec<u8>,
    rotors: Vec<Rotor>,
    instances: Vec<Instance>,
    references: Vec<Reference>,
    rows: Vec<(Row, usize, On)>,
    /// The largest list, to change to.
    largest: IndicatorTables,
    /// Another of that length, half of it the same.
    other: IndicatorTables,
}

/// Both families.
pub(super) struct Beds {
    all: Vec<Bed>,
}

impl Beds {
    pub(super) fn new(bench: &Bench<'_>, say: &mut dyn FnMut(&str)) -> Result<Self> {
        Ok(Self {
            all: Family::ALL
                .into_iter()
                .map(|family| Bed::new(bench, family, say))
                .collect::<Result<_>>()?,
        })
    }

    /// Rounds over all rows.
    pub(super) fn measure(
        &mut self,
        bench: &Bench<'_>,
        say: &mut dyn FnMut(&str),
    ) -> Result<Costs> {
        for round in 1..=bench.plan.rounds {
            say(&format!("round {round} of {}", bench.plan.rounds));
            for bed in &mut self.all {
                bed.round(bench)?;
            }
        }
        let mut missing = Vec::new();
        if bench.cpus.beside.is_none() {
            missing.push((
                "matcher-swap",
                "this process may use one CPU only".to_owned(),
            ));
        }
        Ok(Costs {
            instructions: self.instructions()?,
            rows: self
                .all
                .iter_mut()
                .flat_map(|bed| std::mem::take(&mut bed.rows))
                .map(|(row, ..)| row)
                .collect(),
            missing,
        })
    }

    fn instructions(&mut self) -> Result<Vec<(&'static str, Option<u32>)>> {
        let bed = self.all.first_mut().context("no family")?;
        let mut instructions = Vec::new();
        let rotor = bed.rotors.first_mut().context("no baselines")?;
        for baseline in [Baseline::Empty, Baseline::ParseMin] {
            let walked = rotor.verified_instructions(baseline)?;
            instructions.push((Measured::Baseline(baseline).name(), walked));
        }
        let reference = bed.references.first_mut().context("no reference")?;
        for program in [ReferenceProgram::PlainTries, ReferenceProgram::HashMap] {
            let measured = Measured::Reference {
                program,
                prefixes: 0,
            };
            instructions.push((measured.name(), reference.verified_instructions(program)?));
        }
        let instance = bed.instances.first_mut().context("no list")?;
        for (name, program) in [("parse", Program::Parse), ("matcher", Program::Matcher)] {
            let walked = instance.loaded.verified_instructions(program)?;
            instructions.push((name, walked));
        }
        Ok(instructions)
    }
}

impl Bed {
    fn new(bench: &Bench<'_>, family: Family, say: &mut dyn FnMut(&str)) -> Result<Self> {
        let plan = bench.plan;
        let mut random = Random::new(plan.seed);
        let largest = plan.largest();
        let population = Population::new(family, plan.opt_outs, &mut random)?;
        let out = population.opt_outs()?;
        let half = largest / 2;
        let all = prefixes(family, largest + largest - half, &mut random);
        let other = [
            all.get(..half).unwrap_or_default(),
            all.get(largest..).unwrap_or_default(),
        ]
        .concat();
        let space = Population::space(family)?;
        let other = compile_list(&other, space)?.tables;
        // What misses one list misses the other too.
        let pairs = Pairs::new(family, &population, &all);
        let mut bed = Self {
            frame: frame(family),
            rotors: Vec::new(),
            instances: Vec::new(),
            references: Vec::new(),
            rows: Vec::new(),
            largest: compile_list(all.get(..largest).unwrap_or_default(), space)?.tables,
            other,
        };
        // The same pairs twice: for programs that find out which end is the
        // subscriber's, and for those that take the source for it.
        let mut rotors = |bed: &mut Self, traffic, entries, say: &mut dyn FnMut(&str)| {
            say(&format!(
                "{} addresses of {} packets: {}",
                plan.flows,
                family.name(),
                Traffic::name(traffic)
            ));
            let count = match traffic {
                // None comes twice, or it would be folded.
                Traffic::Hit => plan.packets_per_row().max(plan.flows),
                _ => plan.flows,
            };
            let pairs = pairs.of(traffic, entries, count, &mut random)?;
            for direction in [Direction::Either, Direction::Outbound] {
                let flows = flows(family, &pairs, direction, &mut random)?;
                bed.rotors.push(Rotor::load(bench.baselines, &flows)?);
            }
            Ok::<_, anyhow::Error>(bed.rotors.len() - 2)
        };
        // Not listed in the largest list is not listed in the smaller ones
        // either: all sizes meet the same packets.
        let miss = rotors(&mut bed, Traffic::Miss, largest, say)?;
        for baseline in [Baseline::Empty, Baseline::ParseMin] {
            let measured = Measured::Baseline(baseline);
            bed.row(family, measured, Traffic::Miss, miss, On::Nothing);
        }
        for entries in plan.sizes.iter().copied() {
            let listed = all.get(..entries).context("a list within the largest")?;
            say(&format!(
                "{} {} entries and {} opt-outs, three times",
                entries,
                family.name(),
                out.len()
            ));
            let parts = bed.load(bench, family, listed, &out)?;
            if bed.instances.len() == 1 {
                let at = On::Instance(0);
                bed.row(family, Measured::Parse, Traffic::Miss, miss, at);
            }
            let mut traffics = vec![(Traffic::Miss, miss)];
            if entries > 0 {
                let hit = rotors(&mut bed, Traffic::Hit, entries, say)?;
                traffics.push((Traffic::Hit, hit));
            }
            if entries == largest {
                for traffic in [Traffic::NearMiss, Traffic::HotSet, Traffic::Zipf] {
                    traffics.push((traffic, rotors(&mut bed, traffic, entries, say)?));
                }
            }
            for (traffic, rotor) in traffics {
                for (measured, on) in parts {
                    let outbound = matches!(measured, Measured::Reference { .. });
                    let rotor = rotor + usize::from(outbound);
                    bed.row(family, measured, traffic, rotor, on);
                }
            }
            if entries == largest {
                let [(matcher, on), ..] = parts;
                for traffic in [Traffic::Flood, Traffic::Transit, Traffic::OptedOut] {
                    let rotor = rotors(&mut bed, traffic, entries, say)?;
                    bed.row(family, matcher, traffic, rotor, on);
                }
                if bench.cpus.beside.is_some() {
                    let swapping = Measured::Matcher {
                        prefixes: entries,
                        swapping: true,
                    };
                    bed.row(family, swapping, Traffic::Miss, miss, on);
                    // Listed before and after: a hit at every moment.
                    let hit = rotors(&mut bed, Traffic::Hit, half, say)?;
                    bed.row(family, swapping, Traffic::Hit, hit, on);
                }
            }
        }
        Ok(bed)
    }

    /// Puts a list into the product and into each reference.
    fn load(
        &mut self,
        bench: &Bench<'_>,
        family: Family,
        listed: &[IpNet],
        out: &[IpNet],
    ) -> Result<[(Measured, On); 3]> {
        let compiled = compile_list(listed, Population::space(family)?)?;
        let instance = Instance::new(bench.plan, family, bench.object, &compiled.tables, out)?;
        self.instances.push(instance);
        let matcher = Measured::Matcher {
            prefixes: listed.len(),
            swapping: false,
        };
        let mut reference = |tables, program| {
            let measured = Measured::Reference {
                program,
                prefixes: listed.len(),
            };
            self.references
                .push(filled_reference(bench, tables, listed, out)?);
            Ok::<_, anyhow::Error>((measured, On::Reference(self.references.len() - 1)))
        };
        Ok([
            (matcher, On::Instance(self.instances.len() - 1)),
            reference(ReferenceTables::Tries, ReferenceProgram::PlainTries)?,
            reference(ReferenceTables::Hashes, ReferenceProgram::HashMap)?,
        ])
    }

    fn row(&mut self, family: Family, measured: Measured, traffic: Traffic, rotor: usize, on: On) {
        let counted = match on {
            On::Instance(_) if measured != Measured::Parse => Some(0),
            _ => None,
        };
        let row = Row {
            family,
            measured,
            traffic,
            rounds: Vec::new(),
            empty: Vec::new(),
            parse_min: Vec::new(),
            packets: 0,
            exits: counted,
            lookups: match on {
                On::Reference(_) => Some(0),
                _ => counted,
            },
            swaps: matches!(measured, Measured::Matcher { swapping: true, .. }).then_some(0),
        };
        self.rows.push((row, rotor, on));
    }

    /// Every row once.
    fn round(&mut self, bench: &Bench<'_>) -> Result<()> {
        for (row, rotor, on) in &mut self.rows {
            let mut run = Run {
                bench,
                frame: &self.frame,
                rotor: self.rotors.get_mut(*rotor).context("no rotor")?,
            };
            let before = run.baselines()?;
            match on {
                On::Nothing => row.of_baseline(&mut run)?,
                On::Instance(at) => {
                    let instance = self.instances.get_mut(*at).context("no instance")?;
                    let lists = [&self.other, &self.largest];
                    row.of_product(&mut run, instance, lists)?;
                }
                On::Reference(at) => {
                    let reference = self.references.get_mut(*at).context("no reference")?;
                    row.of_reference(&mut run, reference)?;
                }
            }
            let after = run.baselines()?;
            row.empty.push((before[0] + after[0]) / 2.0);
            row.parse_min.push((before[1] + after[1]) / 2.0);
        }
        Ok(())
    }
}

/// A reference with these tables.
pub(super) fn filled_reference(
    bench: &Bench<'_>,
    tables: ReferenceTables,
    listed: &[IpNet],
    out: &[IpNet],
) -> Result<Reference> {
    let mut reference = Reference::load(
        bench.baselines,
        tables,
        u32::try_from(out.len())?,
        u32::try_from(listed.len())?,
    )?;
    reference.opt_out(out)?;
    reference.list(listed)?;
    Ok(reference)
}

/// Room for lists of this size, and for `events` hits.
pub(super) fn limits(entries: usize, opt_outs: usize, events: u32) -> Result<Limits> {
    let record = u32::try_from(size_of::<HitEvent>())?.next_multiple_of(8) + 8;
    Ok(Limits {
        max_flows: 1 << 16,
        max_indicators: u32::try_from(entries)?.max(1),
        max_consent_entries: u32::try_from(opt_outs)?.max(1),
        max_port_ranges: 1,
        ring_bytes: (events * record + 1).next_power_of_two().max(4096),
    })
}

/// Makes the tables those of an operator whose subscribers consent unless they
/// opted out, on one interface that both sides come in on.
pub(super) fn furnish(
    tables: &mut Tables,
    ifindex: u32,
    family: Family,
    list: &IndicatorTables,
    opted_out: &[IpNet],
) -> Result<()> {
    tables.set_interface(
        ifindex,
        InterfaceSettings {
            role: role::BOTH,
            source_validated: 1,
        },
    )?;
    tables.set(Setting::ConsentDeadline, u64::MAX)?;
    let opted_out = consent(tables, family, opted_out)?;
    ensure!(
        opted_out == 0,
        "{opted_out} opt-outs by port, where there are none"
    );
    tables.load_indicators(list)?;
    Ok(())
}

/// The subscribers of a family, of whom these have opted out; how many of them
/// found no room.
pub(super) fn consent(tables: &mut Tables, family: Family, opted_out: &[IpNet]) -> Result<usize> {
    let refused = Answer::Whole(PurposeSet::NONE);
    let consent = ConsentEntries {
        entries: opted_out
            .iter()
            .map(|prefix| ((*prefix).into(), refused.clone()))
            .collect(),
        default: PurposeSet::ALL,
    };
    let spaces = SpaceTables::one([Population::space(family)?]);
    Ok(tables
        .set_spaces_and_consent(&spaces, &consent)?
        .without_room)
}

impl Instance {
    pub(super) fn new(
        plan: &Plan,
        family: Family,
        object: &Object,
        list: &IndicatorTables,
        opted_out: &[IpNet],
    ) -> Result<Self> {
        let limits = limits(list.prefixes.len(), opted_out.len(), plan.burst)?;
        let mut loaded = Loaded::load(object, limits, Clock::Kernel)?;
        furnish(&mut loaded.tables, LOOPBACK, family, list, opted_out)?;
        let ring = Ring::open(&loaded.tables)?;
        Ok(Self { loaded, ring })
    }
}
