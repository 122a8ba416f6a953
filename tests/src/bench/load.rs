//! A list on its way from a file to tables in force.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use jiff::Timestamp;
use matcher_user::{
    feeds::{self, Format, Guards},
    indicators::{Catalog, IndicatorSet},
    kernel::{
        bench::{Reference, ReferenceTables, maps_of_this_process},
        object::Object,
        program::{Clock, Loaded},
    },
    tables::indicators::{IndicatorTables, compile},
};
use serde_json::{Value, json};

use super::{
    Bench, Family,
    again::{Told, again, peak_bytes},
    cost::{consent, limits},
    lists::prefixes,
    machine::stay_on,
    population::Population,
};
use crate::traffic::Random;

/// A list as the kernel is given it, and who explains its hits.
pub(super) struct Catalogued {
    pub(super) tables: IndicatorTables,
    pub(super) catalog: Catalog,
}

/// What loading a list took.
#[derive(Clone, Debug)]
pub struct Loading {
    /// Of the list.
    pub family: Family,
    /// Its entries.
    pub prefixes: usize,
    /// Each time that it was loaded.
    pub times: Vec<LoadTimes>,
    /// Most memory that the process had at once, loading, in bytes.
    pub peak_bytes: u64,
    /// What all maps take with that list and the opt-outs, in bytes.
    pub maps_bytes: u64,
    /// Every map that takes more than 64 KiB: name, bytes.
    pub maps: Vec<(String, u64)>,
}

/// The steps.
#[derive(Copy, Clone, Debug)]
pub struct LoadTimes {
    /// Reading the file.
    pub read: Duration,
    /// Reading and guarding the feed's lines.
    pub parse: Duration,
    /// One set with ids.
    pub merge: Duration,
    /// Rules for each prefix.
    pub compile: Duration,
    /// Into the kernel, and the switch to the new generation.
    pub kernel: Duration,
    /// The same prefixes into one LPM trie and nothing else.
    pub plain: Duration,
}

impl LoadTimes {
    /// From file to active.
    pub fn total(&self) -> Duration {
        self.read + self.parse + self.merge + self.compile + self.kernel
    }
}

/// Does what the agent does with a feed, up to the border of the kernel.
///
/// # Errors
/// A line of the list was not taken, which would be a mistake of the benchmark.
pub(super) fn compile_list(prefixes: &[IpNet], subscribers: IpNet) -> Result<Catalogued> {
    let text = text_of(prefixes)?;
    Ok(compile_feed(text.as_bytes(), prefixes.len(), subscribers)?.0)
}

fn text_of(prefixes: &[IpNet]) -> Result<String> {
    let mut text = String::new();
    for prefix in prefixes {
        writeln!(text, "{prefix}")?;
    }
    Ok(text)
}

fn compile_feed(
    text: &[u8],
    expected: usize,
    subscribers: IpNet,
) -> Result<(Catalogued, [Duration; 3])> {
    let guards = Guards {
        own_prefixes: vec![subscribers],
        // Of a million random prefixes some hold a public resolver.
        never_match_defaults: false,
        ..Guards::default()
    };

    let start = Instant::now();
    let mut feed = feeds::parse(Format::Plain, text);
    let refused = guards.apply(&mut feed.entries);
    let parse = start.elapsed();
    ensure!(
        refused.is_empty() && feed.entries.len() == expected,
        "of {expected} entries {} were read and {} refused",
        feed.entries.len(),
        refused.len(),
    );

    let start = Instant::now();
    let entries = [("bench", feed.entries.as_slice())];
    let (set, catalog) = IndicatorSet::merge(&Catalog::default(), &entries, Timestamp::now())?;
    let merge = start.elapsed();

    let start = Instant::now();
    let tables = compile(set.iter())?;
    let compile = start.elapsed();
    Ok((Catalogued { tables, catalog }, [parse, merge, compile]))
}

/// Loads every list of the plan, each time in a new process: so its peak of
/// memory is that list's, and no load profits from the one before.
pub(super) fn measure(bench: &Bench<'_>, say: &mut dyn FnMut(&str)) -> Result<Vec<Loading>> {
    let folder = tempfile::tempdir().context("cannot make a folder for feeds")?;
    let mut loadings = Vec::new();
    for family in Family::ALL {
        for entries in bench.plan.sizes.iter().copied().filter(|size| *size > 0) {
            say(&format!("loading {entries} {} entries", family.name()));
            let list = prefixes(family, entries, &mut Random::new(bench.plan.seed));
            let feed = folder.path().join(format!("{}-{entries}", family.name()));
            fs::write(&feed, text_of(&list)?)
                .with_context(|| format!("cannot write {}", feed.display()))?;
            let mut loading = Loading {
                family,
                prefixes: entries,
                times: Vec::new(),
                peak_bytes: 0,
                maps_bytes: 0,
                maps: Vec::new(),
            };
            for _ in 0..bench.plan.loads {
                // As the agent, which may use them all.
                bench.cpus.use_all()?;
                let told = in_new_process(bench, family, entries, &feed)?;
                stay_on(bench.cpus.packets)?;
                loading.add(&told)?;
            }
            loadings.push(loading);
        }
    }
    Ok(loadings)
}

fn in_new_process(bench: &Bench<'_>, family: Family, entries: usize, feed: &Path) -> Result<Told> {
    let path = |path: &Path| {
        let text = path.to_str().map(str::to_owned);
        text.with_context(|| format!("{} is not UTF-8", path.display()))
    };
    again(&[
        "load-once",
        "--object",
        &path(bench.object_path)?,
        "--baselines",
        &path(bench.baselines)?,
        "--family",
        family.name(),
        "--entries",
        &entries.to_string(),
        "--opt-outs",
        &bench.plan.opt_outs.to_string(),
        "--feed",
        &path(feed)?,
    ])
    .context("loading a list")
}

impl Loading {
    fn add(&mut self, told: &Told) -> Result<()> {
        self.times.push(LoadTimes {
            read: told.time("read_ns")?,
            parse: told.time("parse_ns")?,
            merge: told.time("merge_ns")?,
            compile: told.time("compile_ns")?,
            kernel: told.time("kernel_ns")?,
            plain: told.time("plain_ns")?,
        });
        self.peak_bytes = self.peak_bytes.max(told.number("peak_bytes")?);
        self.maps_bytes = told.number("maps_bytes")?;
        self.maps = told.0["maps"]
            .as_object()
            .context("maps")?
            .iter()
            .filter_map(|(name, bytes)| Some((name.clone(), bytes.as_u64()?)))
            .collect();
        self.maps
            .sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        Ok(())
    }
}

/// What the process of its own is to do.
#[derive(Debug)]
pub struct Once {
    /// The kernel program.
    pub object: PathBuf,
    /// What it is held against.
    pub baselines: PathBuf,
    /// Of the list.
    pub family: Family,
    /// Its length.
    pub entries: usize,
    /// Subscribers who opted out: they take memory too.
    pub opt_outs: usize,
    /// Where it is, one prefix a line.
    pub feed: PathBuf,
}

/// Maps that take less are not told of.
const WORTH_TELLING: u64 = 64 << 10;

/// Loads one list and tells of it.
///
/// # Errors
/// The list cannot be read, or the kernel refuses.
pub fn once(once: &Once) -> Result<Value> {
    let object = Object::from_file(&once.object)?;
    let limits = limits(once.entries, once.opt_outs, 1 << 10)?;
    let mut loaded = Loaded::load(&object, limits, Clock::Kernel)?;

    let start = Instant::now();
    let text =
        fs::read(&once.feed).with_context(|| format!("cannot read {}", once.feed.display()))?;
    let read = start.elapsed();
    let space = Population::space(once.family)?;
    let (list, [parse, merge, compile]) = compile_feed(&text, once.entries, space)?;
    let start = Instant::now();
    loaded.tables.load_indicators(&list.tables)?;
    let kernel = start.elapsed();

    let peak_bytes = peak_bytes()?;
    let population = Population::new(once.family, once.opt_outs, &mut Random::new(1))?;
    consent(&mut loaded.tables, once.family, &population.opt_outs()?)?;
    // The kernel cuts names: two may have the same.
    let mut maps: BTreeMap<String, u64> = BTreeMap::new();
    for map in maps_of_this_process()? {
        *maps.entry(map.name).or_default() += map.bytes;
    }
    let maps_bytes: u64 = maps.values().sum();
    maps.retain(|_, bytes| *bytes >= WORTH_TELLING);

    let prefixes: Vec<IpNet> = list.tables.prefixes.iter().map(|(net, _)| *net).collect();
    let entries = u32::try_from(prefixes.len())?;
    let mut plain = Reference::load(&once.baselines, ReferenceTables::Tries, 1, entries)?;
    let start = Instant::now();
    plain.list(&prefixes)?;
    let plain = start.elapsed();
    let ns = |step: Duration| u64::try_from(step.as_nanos()).unwrap_or(u64::MAX);
    Ok(json!({
        "read_ns": ns(read),
        "parse_ns": ns(parse),
        "merge_ns": ns(merge),
        "compile_ns": ns(compile),
        "kernel_ns": ns(kernel),
        "plain_ns": ns(plain),
        "peak_bytes": peak_bytes,
        "maps_bytes": maps_bytes,
        "maps": maps,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_a_list_is_taken() {
        for family in Family::ALL {
            let list = prefixes(family, 1_000, &mut Random::new(1));
            let space = Population::space(family).unwrap();
            let compiled = compile_list(&list, space).unwrap();
            assert_eq!(compiled.tables.prefixes.len(), 1_000);
        }
    }
}
