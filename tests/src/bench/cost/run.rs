//! A round of a row: the packets, and the counters that prove that each of them
//! was handled.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Result, anyhow, bail, ensure};
use matcher_common::abi::Counter;
use matcher_user::{
    kernel::{
        bench::{Baseline, Reference, ReferenceProgram, Rotor, Tally, Target},
        ring::Ring,
        tables::Tables,
    },
    tables::indicators::IndicatorTables,
};

use super::{Instance, Measured, Row};
use crate::bench::{Bench, Family, machine::stay_on};

const XDP_PASS: u32 = 2;

/// Takes what waits in a ring buffer out of it; gives its number.
fn drain(ring: &mut Ring) -> Result<u64> {
    let mut events = 0;
    while ring.next_event().transpose()?.is_some() {
        events += 1;
    }
    ring.release();
    Ok(events)
}

/// What a row needs to run.
pub(super) struct Run<'a> {
    pub(super) bench: &'a Bench<'a>,
    pub(super) frame: &'a [u8],
    pub(super) rotor: &'a mut Rotor,
}

impl Run<'_> {
    /// One system call; nanoseconds a packet.
    fn burst(&mut self) -> Result<f64> {
        let outcome = self.rotor.run(self.frame, self.bench.plan.burst)?;
        ensure!(
            outcome.action == XDP_PASS,
            "action {} instead of a pass",
            outcome.action
        );
        Ok(outcome.duration.as_nanos() as f64)
    }

    /// What `empty` and `parse-min` take on these packets now.
    pub(super) fn baselines(&mut self) -> Result<[f64; 2]> {
        let mut each = [0.0; 2];
        for (baseline, took) in [Baseline::Empty, Baseline::ParseMin].iter().zip(&mut each) {
            self.rotor.aim(Target::Baseline(*baseline))?;
            (*took, _) = self.bursts(|| Ok(()))?;
        }
        Ok(each)
    }

    /// A round of an undisturbed row; `after` each burst.
    fn bursts(&mut self, mut after: impl FnMut() -> Result<()>) -> Result<(f64, u64)> {
        let mut took = Vec::new();
        for _ in 0..self.bench.plan.bursts {
            took.push(self.burst()?);
            after()?;
        }
        Ok((steady(&took), self.bench.plan.packets_per_round()))
    }
}

/// The average of the bursts behind the first, which met caches full of the row
/// before: on a line this program is the only one.
fn steady(bursts: &[f64]) -> f64 {
    let behind = match bursts {
        [_, behind @ ..] if !behind.is_empty() => behind,
        all => all,
    };
    behind.iter().sum::<f64>() / behind.len() as f64
}

impl Row {
    pub(super) fn of_baseline(&mut self, run: &mut Run<'_>) -> Result<()> {
        let Measured::Baseline(baseline) = self.measured else {
            bail!("{}: no tables", self.title());
        };
        run.rotor.aim(Target::Baseline(baseline))?;
        let (average, packets) = run.bursts(|| Ok(()))?;
        self.note(average, packets);
        Ok(())
    }

    pub(super) fn of_reference(
        &mut self,
        run: &mut Run<'_>,
        reference: &mut Reference,
    ) -> Result<()> {
        let Measured::Reference { program, .. } = self.measured else {
            bail!("{}: no reference", self.title());
        };
        let before = reference.tally()?;
        run.rotor.aim(Target::Reference(reference, program))?;
        let (average, packets) = run.bursts(|| Ok(()))?;
        let after = reference.tally()?;
        let Tally { lookups, hits } = Tally {
            lookups: after.lookups - before.lookups,
            hits: after.hits - before.hits,
        };
        let matches = self.traffic.matches(packets);
        let as_expected = match program {
            // It knows of a prefix its first address only: a twentieth of the
            // list is more or less lost.
            ReferenceProgram::HashMap => hits <= matches && hits >= matches / 10 * 9,
            ReferenceProgram::PassOnly | ReferenceProgram::PlainTries => hits == matches,
        };
        ensure!(
            lookups == self.traffic.lookups(packets) && as_expected,
            "{}: of {packets} packets {lookups} were looked up and {hits} found",
            self.title(),
        );
        self.lookups = self.lookups.map(|sum| sum + lookups);
        self.note(average, packets);
        Ok(())
    }

    pub(super) fn of_product(
        &mut self,
        run: &mut Run<'_>,
        instance: &mut Instance,
        lists: [&IndicatorTables; 2],
    ) -> Result<()> {
        let before = instance.loaded.tables.counters()?;
        run.rotor.aim(match self.measured {
            Measured::Parse => Target::Parse(&mut instance.loaded),
            _ => Target::Matcher(&mut instance.loaded),
        })?;
        let Instance { loaded, ring } = instance;
        let mut events = 0;
        let (average, packets) = match (self.swaps, run.bench.cpus.beside) {
            (Some(_), Some(beside)) => {
                let after = || {
                    events += drain(ring)?;
                    Ok(())
                };
                let (average, packets, swaps) =
                    during_swaps(run, &mut loaded.tables, lists, beside, after)?;
                self.swaps = self.swaps.map(|sum| sum + swaps);
                (average, packets)
            }
            _ => run.bursts(|| {
                events += drain(ring)?;
                Ok(())
            })?,
        };
        if self.exits.is_some() {
            let after = loaded.tables.counters()?;
            let counted = |counter| after.get(counter) - before.get(counter);
            let lookups = counted(match self.family {
                Family::V4 => Counter::LookupsV4,
                Family::V6 => Counter::LookupsV6,
            });
            let exits = counted(self.traffic.exit());
            let [delivered, folded, lost] =
                [Counter::Delivered, Counter::Folded, Counter::Lost].map(counted);
            ensure!(
                exits == packets
                    && after.packets() - before.packets() == packets
                    && lookups == self.traffic.lookups(packets)
                    && delivered + folded == self.traffic.matches(packets)
                    && lost == 0
                    && events == delivered,
                "{}: of {packets} packets {exits} were counted as {}, with {lookups} look-ups, \
                 {delivered} hits delivered, {folded} folded, {lost} lost and {events} read",
                self.title(),
                self.traffic.exit().name(),
            );
            self.exits = self.exits.map(|sum| sum + exits);
            self.lookups = self.lookups.map(|sum| sum + lookups);
        }
        self.note(average, packets);
        Ok(())
    }

    fn note(&mut self, average: f64, packets: u64) {
        self.rounds.push(average);
        self.packets += packets;
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

/// Bursts while another CPU loads one list after the other, each once at least
/// and until all bursts of a round are done; `after` each burst. Average,
/// packets, changes. The last list is in force afterwards.
fn during_swaps(
    run: &mut Run<'_>,
    tables: &mut Tables,
    lists: [&IndicatorTables; 2],
    beside: usize,
    mut after: impl FnMut() -> Result<()>,
) -> Result<(f64, u64, u64)> {
    let (enough, started, done) = (
        AtomicBool::new(false),
        AtomicBool::new(false),
        AtomicBool::new(false),
    );
    thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            let mut swap = || {
                stay_on(beside)?;
                started.store(true, Ordering::Release);
                let mut swaps = 0;
                loop {
                    for list in lists {
                        tables.load_indicators(list)?;
                        swaps += 1;
                    }
                    if enough.load(Ordering::Acquire) {
                        break Ok::<u64, anyhow::Error>(swaps);
                    }
                }
            };
            let result = swap();
            started.store(true, Ordering::Release);
            done.store(true, Ordering::Release);
            result
        });
        while !started.load(Ordering::Acquire) {
            thread::yield_now();
        }
        let mut took = Vec::new();
        let mut measure = || {
            while !done.load(Ordering::Acquire) {
                took.push(run.burst()?);
                after()?;
                if took.len() >= run.bench.plan.bursts as usize {
                    enough.store(true, Ordering::Release);
                }
            }
            Ok::<(), anyhow::Error>(())
        };
        let measured = measure();
        enough.store(true, Ordering::Release);
        let swaps = swapper
            .join()
            .map_err(|_| anyhow!("the thread that changes the list has panicked"))??;
        measured?;
        ensure!(
            !took.is_empty(),
            "the list changed before a packet was handled"
        );
        let packets = u64::from(run.bench.plan.burst) * took.len() as u64;
        Ok((steady(&took), packets, swaps))
    })
}
