//! Hits through the ring buffer: how many a second, none lost, and what is told
//! of those that are.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail, ensure};
use matcher_common::abi::{Counter, HitEvent};
use matcher_user::{
    clock::WallOffset,
    drain::Names,
    indicators::Catalog,
    kernel::{
        bench::{BareConsumer, BareRing, Flows, Rotor, Target},
        program::Loaded,
        ring::Ring,
        tables::{Counters, Tables},
    },
};

use super::{
    Bench, Family,
    cost::{Instance, limits},
    lists::prefixes,
    load::{Catalogued, compile_list},
    machine::stay_on,
    population::Population,
    traffic::{Direction, Pairs, Traffic, flows, frame},
};
use crate::traffic::Random;

/// What reads the ring buffer.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Reader {
    /// A program that does nothing but write records, and aya's consumer, which
    /// reads nothing of them.
    Bare,
    /// The product's program, and aya's consumer.
    BareReader,
    /// The product's program and its consumer.
    Ring,
    /// The same, each event made a hit with its indicator's name.
    Hits,
}

impl Reader {
    /// As the report writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare ring",
            Self::BareReader => "matcher, bare",
            Self::Ring => "matcher, events",
            Self::Hits => "matcher, hits",
        }
    }
}

/// What became of hits in one run.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Fates {
    /// Packets that matched.
    pub matched: u64,
    /// Put into the ring buffer.
    pub delivered: u64,
    /// Counted into an earlier event.
    pub folded: u64,
    /// For which there was no room.
    pub lost: u64,
    /// Taken out of the ring buffer.
    pub read: u64,
}

/// One reader's figures.
#[derive(Clone, Debug)]
pub struct Drained {
    /// Which.
    pub reader: Reader,
    /// Seconds of the run without loss.
    pub seconds: f64,
    /// Events delivered a second in that run; `None` when every rate that was
    /// tried lost some.
    pub without_loss: Option<f64>,
    /// What became of them.
    pub fates: Fates,
    /// Each rate that was tried, in hits a second, and how many were lost.
    pub trials: Vec<(u64, u64)>,
    /// Events a second that the reader takes out of a full ring buffer, with
    /// nothing else to do.
    pub emptying: f64,
    /// What became of hits while nobody read.
    pub overload: Fates,
}

/// Something that empties a ring buffer.
trait Consumer {
    /// Takes what waits, up to some thousand events; how many that were.
    fn take(&mut self) -> Result<u64>;
}

/// How long a reader leaves an empty ring buffer alone. One that waits to be
/// woken is woken by nearly every event, and then that is what is measured: it
/// costs the packet's CPU microseconds.
const PAUSE: Duration = Duration::from_millis(1);
/// Events read and released together, as the agent does.
const BATCH: u64 = 4_096;

struct Product<'a> {
    ring: &'a mut Ring,
    names: Option<Naming<'a>>,
}

struct Naming<'a> {
    names: Names,
    offset: WallOffset,
    catalog: &'a Catalog,
    /// Those that are named together.
    events: Vec<HitEvent>,
    /// Keeps the hits from being thought away.
    ports: u64,
}

impl Consumer for Product<'_> {
    fn take(&mut self) -> Result<u64> {
        let mut events = 0;
        while events < BATCH {
            let taken = match &mut self.names {
                Some(naming) => naming.take(self.ring)?,
                None => self.ring.next_event().transpose()?.into_iter().count(),
            };
            if taken == 0 {
                break;
            }
            events += taken as u64;
        }
        self.ring.release();
        Ok(events)
    }
}

impl Naming<'_> {
    /// Some events, as the agent names them.
    fn take(&mut self, ring: &mut Ring) -> Result<usize> {
        self.events.clear();
        ring.next_events(Names::AHEAD, &mut self.events)?;
        self.names.look_ahead(&self.events, self.catalog);
        for event in &self.events {
            let hit = self.names.hit(event, self.offset, self.catalog, |_| None);
            self.ports = self.ports.wrapping_add(hit.remote.port.unwrap_or(0).into());
        }
        Ok(self.events.len())
    }
}

impl Consumer for BareConsumer {
    fn take(&mut self) -> Result<u64> {
        Ok(self.take())
    }
}

/// All readers, on IPv4.
pub(super) fn measure(bench: &Bench<'_>, say: &mut dyn FnMut(&str)) -> Result<Vec<Drained>> {
    let Some(beside) = bench.cpus.beside else {
        say("no drain: this process may use one CPU only");
        return Ok(Vec::new());
    };
    say("draining: a list and hits of it");
    let frame = frame(FAMILY);
    let (mut instance, list, mut rotor) = distinct_hits(bench)?;
    let long = Duration::from_secs(bench.plan.drain_seconds.into());
    // The others are there for comparison.
    let short = (long / 6).max(Duration::from_millis(500));
    let mut drained = Vec::new();
    for reader in [Reader::Bare, Reader::BareReader, Reader::Ring, Reader::Hits] {
        say(&format!("draining: {}", reader.name()));
        let mut setup = Setup {
            burst: bench.plan.burst,
            frame: &frame,
            rotor: &mut rotor,
            beside,
            length: match reader {
                Reader::Hits => long,
                _ => short,
            },
            trial: Duration::from_secs(1).min(short),
        };
        let one = match reader {
            Reader::Bare => of_bare(bench, &mut setup)?,
            _ => of_product(reader, &mut setup, &mut instance, &list)?,
        };
        say(&format!("draining: {}: {:?}", reader.name(), one.trials));
        drained.push(one);
    }
    Ok(drained)
}

const FAMILY: Family = Family::V4;

/// The largest list in the kernel and in words, and packets of which hardly two
/// have the same ends, each a hit of that list: none is folded into another.
fn distinct_hits(bench: &Bench<'_>) -> Result<(Instance, Catalogued, Rotor)> {
    let plan = bench.plan;
    let mut random = Random::new(plan.seed);
    let population = Population::new(FAMILY, plan.opt_outs, &mut random)?;
    let list = prefixes(FAMILY, plan.largest(), &mut random);
    let catalogued = compile_list(&list, Population::space(FAMILY)?)?;
    let out = population.opt_outs()?;
    let instance = Instance::new(plan, FAMILY, bench.object, &catalogued.tables, &out)?;

    let pairs = Pairs::new(FAMILY, &population, &list);
    let pairs = pairs.of(Traffic::Hit, list.len(), plan.flows, &mut random)?;
    let Flows::V4(flows) = flows(FAMILY, &pairs, Direction::Outbound, &mut random)? else {
        bail!("the drain is for IPv4");
    };
    let rotor = Rotor::load_pairs(bench.baselines, flows)?;
    Ok((instance, catalogued, rotor))
}

struct Setup<'a> {
    burst: u32,
    frame: &'a [u8],
    rotor: &'a mut Rotor,
    beside: usize,
    length: Duration,
    trial: Duration,
}

fn of_bare(bench: &Bench<'_>, setup: &mut Setup<'_>) -> Result<Drained> {
    let ring_bytes = limits(0, 0, bench.plan.burst)?.ring_bytes;
    let mut bare = BareRing::load(bench.baselines, ring_bytes)?;
    setup.rotor.aim(Target::Bare(&mut bare))?;
    run(
        Reader::Bare,
        setup,
        &mut bare,
        |bare, work| work(bare.consumer()),
        |bare| {
            let (delivered, lost) = bare.delivered_and_lost()?;
            Ok(Fates {
                matched: delivered + lost,
                delivered,
                lost,
                ..Fates::default()
            })
        },
    )
}

fn of_product(
    reader: Reader,
    setup: &mut Setup<'_>,
    instance: &mut Instance,
    list: &Catalogued,
) -> Result<Drained> {
    let Instance { loaded, ring } = instance;
    setup.rotor.aim(Target::Matcher(loaded))?;
    let Loaded { tables, .. } = loaded;
    // Another consumer may have read from it meanwhile.
    *ring = Ring::open(tables)?;
    let mut state: (&mut Ring, &Tables) = (ring, tables);
    run(
        reader,
        setup,
        &mut state,
        |(ring, tables), work| {
            if reader == Reader::BareReader {
                return work(&mut BareConsumer::instead(tables)?);
            }
            let names = (reader == Reader::Hits).then(|| Naming {
                names: Names::default(),
                offset: WallOffset::measure(),
                catalog: &list.catalog,
                events: Vec::with_capacity(Names::AHEAD),
                ports: 0,
            });
            work(&mut Product { ring, names })
        },
        |(_, tables)| {
            let counters: Counters = tables.counters()?;
            Ok(Fates {
                matched: counters.get(Counter::Matched),
                delivered: counters.get(Counter::Delivered),
                folded: counters.get(Counter::Folded),
                lost: counters.get(Counter::Lost),
                read: 0,
            })
        },
    )
}

/// Something done with a consumer.
type Work<'a> = &'a mut dyn FnMut(&mut (dyn Consumer + Send)) -> Result<()>;

/// Overload, emptying, and the search for a rate without loss, of one reader.
fn run<S>(
    reader: Reader,
    setup: &mut Setup<'_>,
    state: &mut S,
    mut with_consumer: impl FnMut(&mut S, Work<'_>) -> Result<()>,
    mut count: impl FnMut(&mut S) -> Result<Fates>,
) -> Result<Drained> {
    // Nobody reads: more than the ring buffer holds.
    let before = count(state)?;
    setup.rotor.pace(Duration::ZERO)?;
    for _ in 0..4 {
        setup.rotor.run(setup.frame, setup.burst)?;
    }
    let mut overload = count(state)?.since(before);
    let mut emptying = 0.0;
    with_consumer(state, &mut |consumer| {
        let start = Instant::now();
        overload.read = empty(consumer)?;
        emptying = overload.read as f64 / start.elapsed().as_secs_f64();
        Ok(())
    })?;
    overload.check(reader)?;
    ensure!(
        overload.lost > 0,
        "{}: nothing was lost while nobody read: {overload:?}",
        reader.name()
    );

    let mut trials = Vec::new();
    let mut attempt = |setup: &mut Setup<'_>, rate: Option<f64>, length: Duration| {
        let before = count(state)?;
        let (mut read, mut seconds) = (0, 0.0);
        with_consumer(state, &mut |consumer| {
            (read, seconds) = beside_each_other(setup, rate, length, consumer)?;
            Ok(())
        })?;
        let mut fates = count(state)?.since(before);
        fates.read = read;
        fates.check(reader)?;
        trials.push(((fates.matched as f64 / seconds) as u64, fates.lost));
        Ok::<_, anyhow::Error>((fates, seconds))
    };
    let (first, seconds) = attempt(setup, None, setup.trial)?;
    let fastest = first.matched as f64 / seconds;
    ensure!(first.matched > 0, "{}: no packet matched", reader.name());
    // What was delivered while some was lost is what the reader can take.
    let mut rate = match first.lost {
        0 => None,
        lost => Some(fastest * (1.0 - lost as f64 / first.matched as f64)),
    };
    let mut last = (first, seconds, false);
    for _ in 0..8 {
        let (fates, _) = attempt(setup, rate, setup.trial)?;
        if fates.lost == 0 {
            let (fates, seconds) = attempt(setup, rate, setup.length)?;
            last = (fates, seconds, fates.lost == 0);
            if fates.lost == 0 {
                break;
            }
        }
        rate = Some(rate.unwrap_or(fastest) * 0.9);
    }
    let (fates, seconds, clean) = last;
    Ok(Drained {
        reader,
        seconds,
        without_loss: clean.then(|| fates.delivered as f64 / seconds),
        fates,
        trials,
        emptying,
        overload,
    })
}

impl Fates {
    fn since(self, before: Self) -> Self {
        Self {
            matched: self.matched - before.matched,
            delivered: self.delivered - before.delivered,
            folded: self.folded - before.folded,
            lost: self.lost - before.lost,
            read: 0,
        }
    }

    /// Nothing is unaccounted for (design decision 7).
    fn check(self, reader: Reader) -> Result<()> {
        ensure!(
            self.matched == self.delivered + self.folded + self.lost && self.read == self.delivered,
            "{}: hits are unaccounted for: {self:?}",
            reader.name()
        );
        Ok(())
    }
}

fn empty(consumer: &mut (dyn Consumer + Send)) -> Result<u64> {
    let mut events = 0;
    loop {
        match consumer.take()? {
            0 => break Ok(events),
            some => events += some,
        }
    }
}

/// Packets on this CPU, the consumer on the other: events read, seconds.
fn beside_each_other(
    setup: &mut Setup<'_>,
    rate: Option<f64>,
    length: Duration,
    consumer: &mut (dyn Consumer + Send),
) -> Result<(u64, f64)> {
    let quiet = AtomicBool::new(false);
    let beside = setup.beside;
    thread::scope(|scope| {
        let reading = scope.spawn(|| {
            stay_on(beside)?;
            let mut events = 0;
            loop {
                // Asked before the ring is: what came before is seen.
                let last = quiet.load(Ordering::Acquire);
                let taken = empty(consumer)?;
                events += taken;
                if last {
                    break Ok::<u64, anyhow::Error>(events);
                }
                if taken == 0 {
                    thread::sleep(PAUSE);
                }
            }
        });
        let produced = produce(setup, rate, length);
        quiet.store(true, Ordering::Release);
        let events = reading
            .join()
            .map_err(|_| anyhow!("the thread that reads hits has panicked"))??;
        Ok((events, produced?))
    })
}

/// Runs packets at this rate, or as fast as they go; the seconds it took.
fn produce(setup: &mut Setup<'_>, rate: Option<f64>, length: Duration) -> Result<f64> {
    /// A system call takes a while before its first packet and after its last,
    /// when the kernel waits for all CPUs (net/bpf/test_run.c).
    const LONG: Duration = Duration::from_millis(500);
    let between = rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(1.0 / rate));
    setup.rotor.pace(between)?;
    let long = LONG.min(length / 4);
    let mut packets: u32 = 1_000;
    let start = Instant::now();
    while start.elapsed() < length {
        let call = Instant::now();
        setup.rotor.run(setup.frame, packets)?;
        if call.elapsed() < long {
            packets = packets.saturating_mul(2);
        }
    }
    Ok(start.elapsed().as_secs_f64())
}
