//! One more opt-out while packets of that subscriber match: how long until the
//! last of them.

use std::{
    fmt::Write as _,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use matcher_common::abi::{Counter, InterfaceSettings, role};
use matcher_user::{
    clock::boot_now_ns,
    consent::ConsentLists,
    instance::{Answer, ConsentAction, ConsentSubject, Instance, consent_lists},
    kernel::{
        attach::{self, Mode, Wanted},
        bench::{Flows, Generator, Reference, ReferenceProgram, ReferenceTables},
        pins::Pins,
        tables::Tables,
    },
};

use super::{
    Bench, Family,
    cost::limits,
    lists::prefixes,
    load::compile_list,
    machine::stay_on,
    population::Population,
    traffic::{Direction, flows, frame},
};
use crate::{cleanup::Cleanup, lab::Lab, traffic::Random};

/// What single opt-outs took.
#[derive(Clone, Debug)]
pub struct OptOuts {
    /// Subscribers who had opted out before.
    pub before: usize,
    /// Entries of the C&C list.
    pub prefixes: usize,
    /// From the request to the last hit, each time.
    pub in_force: Vec<Duration>,
    /// From the request to its answer.
    pub answered: Vec<Duration>,
}

/// As the report writes it.
pub(super) const NAME: &str = "opt-out";
/// The end where packets come in, and the other.
const ENDS: [&str; 2] = ["optout0", "sub0"];
/// Packets of one system call.
const BURST: u32 = 2_000;
/// How often it is looked whether more has matched: what a figure may be wrong by.
const LOOK: Duration = Duration::from_millis(1);
/// Longest wait for packets that match.
const PATIENCE: Duration = Duration::from_secs(30);

/// The figures, or why there are none.
pub(super) fn measure(
    bench: &Bench<'_>,
    say: &mut dyn FnMut(&str),
) -> Result<Result<OptOuts, (&'static str, String)>> {
    let Some(beside) = bench.cpus.beside else {
        let reason = "this process may use one CPU only".to_owned();
        return Ok(Err((NAME, reason)));
    };
    if let Some(reason) = Lab::obstacle() {
        return Ok(Err((NAME, reason)));
    }
    say("one more opt-out");
    let mut random = Random::new(bench.plan.seed);
    let population = Population::new(Family::V4, bench.plan.opt_outs, &mut random)?;
    let edge = Edge::new(bench, &population, &mut random)?;
    let mut figures = OptOuts {
        before: bench.plan.opt_outs,
        prefixes: bench.plan.largest(),
        in_force: Vec::new(),
        answered: Vec::new(),
    };
    stay_on(beside)?;
    let done = edge.opt_outs(bench, &population, &mut random, &mut figures);
    stay_on(bench.cpus.packets)?;
    done?;
    Ok(Ok(figures))
}

/// The product as an operator has it; parts go before the namespaces that they
/// are in.
struct Edge {
    instance: Instance,
    tables: Tables,
    /// Index of the sending end.
    sender: u32,
    /// A host of the list.
    listed: IpAddr,
    _passing: Reference,
    _pinned: Cleanup,
    _folder: tempfile::TempDir,
    lab: Lab,
}

impl Edge {
    fn new(bench: &Bench<'_>, population: &Population, random: &mut Random) -> Result<Self> {
        let [interface, other] = ENDS;
        let lab = Lab::new("matcher-bench")?;
        lab.veth(interface, other)?;
        let folder = tempfile::tempdir().context("cannot make a folder for lists")?;
        let pin_dir: PathBuf =
            format!("/sys/fs/bpf/matcher-bench-out-{}", std::process::id()).into();
        let config = write_files(folder.path(), &pin_dir, interface, population)?;
        let instance = Instance::of_config(&config)?;

        let list = prefixes(Family::V4, bench.plan.largest(), random);
        let listed = list
            .iter()
            .find(|net| net.prefix_len() == Family::V4.bits())
            .context("no host is listed")?
            .addr();
        let pins = Pins::at(&pin_dir);
        let remove = pins.clone();
        let pinned = Cleanup::new(move || {
            if let Err(error) = remove.remove_all() {
                eprintln!("left behind: {}: {error}", remove.directory().display());
            }
        })?;
        // Room for those who are to come.
        let room = bench.plan.opt_outs + 2 * bench.plan.rounds;
        let limits = limits(list.len(), room, bench.plan.burst)?;
        let mut tables = pins.open_or_create(bench.object, limits)?;
        let attached = lab
            .edge()
            .run(|| attach::attach(&pins, interface, Wanted::Only(Mode::Native)))??;
        tables.set_interface(
            attached.ifindex,
            InterfaceSettings {
                role: role::ACCESS,
                source_validated: 1,
            },
        )?;
        let list = compile_list(&list, Population::space(Family::V4)?)?;
        tables.load_indicators(&list.tables)?;
        // A veth takes frames from XDP only if both of its ends have a program.
        let mut passing = Reference::load(bench.baselines, ReferenceTables::None, 1, 1)?;
        let sender = lab.world().run(|| {
            let ifindex = attach::ifindex(other)?;
            passing.attach(ReferenceProgram::PassOnly, ifindex, Mode::Native)?;
            Ok::<u32, anyhow::Error>(ifindex)
        })??;
        Ok(Self {
            instance,
            tables,
            sender,
            listed,
            _passing: passing,
            _pinned: pinned,
            _folder: folder,
            lab,
        })
    }

    fn opt_outs(
        mut self,
        bench: &Bench<'_>,
        population: &Population,
        random: &mut Random,
        figures: &mut OptOuts,
    ) -> Result<()> {
        // As the agent does at its start.
        let mut lists = consent_lists(self.instance.config()?, &self.instance.paths);
        let mut answer = Answer::default();
        self.instance
            .apply_subscribers(&mut self.tables, &mut lists, &mut answer)?;
        ensure!(answer.exit == 0, "consent: {}", answer.err);
        for _ in 0..bench.plan.rounds {
            let subscriber = population.consenting(random)?;
            let flow = [(subscriber, self.listed)];
            let Flows::V4(flow) = flows(Family::V4, &flow, Direction::Outbound, random)? else {
                bail!("the generator is for IPv4");
            };
            let mut sixty = frame(Family::V4);
            sixty.resize(60, 0);
            let mut generator = Generator::load(bench.baselines, &flow, &sixty)?;
            generator.aim(self.sender)?;
            let (in_force, answered) =
                self.opt_out(bench.cpus.packets, subscriber, &mut generator, &mut lists)?;
            figures.in_force.push(in_force);
            figures.answered.push(answered);
        }
        Ok(())
    }

    /// Takes one subscriber out while its packets match.
    fn opt_out(
        &self,
        packets_on: usize,
        subscriber: IpAddr,
        generator: &mut Generator,
        lists: &mut ConsentLists,
    ) -> Result<(Duration, Duration)> {
        let matched = || Ok::<_, anyhow::Error>(self.tables.counters()?.get(Counter::Matched));
        let (done, last_hit) = (AtomicBool::new(false), AtomicU64::new(0));
        let action = ConsentAction::OptOut {
            whom: ConsentSubject {
                subject: subscriber.to_string(),
                ..ConsentSubject::default()
            },
            purposes: Vec::new(),
        };
        thread::scope(|scope| {
            let sending = scope.spawn(|| {
                stay_on(packets_on)?;
                self.lab.world().run(|| {
                    while !done.load(Ordering::Acquire) {
                        generator.run(BURST)?;
                    }
                    Ok::<_, anyhow::Error>(())
                })?
            });
            // The counter tells, not the events: several hits may be one event.
            let looking = scope.spawn(|| {
                let mut before = matched()?;
                while !done.load(Ordering::Acquire) {
                    let now = matched()?;
                    if now != before {
                        before = now;
                        last_hit.store(boot_now_ns(), Ordering::Release);
                    }
                    thread::sleep(LOOK);
                }
                Ok::<_, anyhow::Error>(())
            });
            let mut ask = || {
                let waiting = Instant::now();
                while last_hit.load(Ordering::Acquire) == 0 {
                    ensure!(
                        waiting.elapsed() < PATIENCE,
                        "{subscriber}: nothing matches"
                    );
                    thread::sleep(LOOK);
                }
                let mut answer = Answer::default();
                let asked = boot_now_ns();
                self.instance.consent(lists, &action, &mut answer)?;
                let answered = boot_now_ns();
                ensure!(answer.exit == 0, "{subscriber}: {}", answer.err);
                // In which nothing may match any more.
                thread::sleep(Duration::from_millis(200));
                let last = last_hit.load(Ordering::Acquire);
                let looks = u64::try_from(10 * LOOK.as_nanos()).unwrap_or(u64::MAX);
                ensure!(
                    last <= answered + looks,
                    "{subscriber} was matched {} ms after it was told that it is not",
                    (last - answered) / 1_000_000
                );
                Ok::<_, anyhow::Error>((last.saturating_sub(asked), answered - asked))
            };
            let asked = ask();
            done.store(true, Ordering::Release);
            for thread in [sending, looking] {
                thread
                    .join()
                    .map_err(|_| anyhow!("a thread of the opt-out has panicked"))??;
            }
            let (in_force, answered) = asked?;
            Ok((
                Duration::from_nanos(in_force),
                Duration::from_nanos(answered),
            ))
        })
    }
}

/// The configuration, and the list of those who opted out before.
fn write_files(
    folder: &Path,
    pin_dir: &Path,
    interface: &str,
    population: &Population,
) -> Result<PathBuf> {
    for made in ["run", "state"] {
        fs::create_dir(folder.join(made)).with_context(|| format!("cannot make {made}"))?;
    }
    let mut list = String::new();
    for prefix in population.opt_outs()? {
        writeln!(list, "{prefix}")?;
    }
    fs::write(folder.join("opt-out.list"), list).context("cannot write the opt-out list")?;
    let config = folder.join("matcher.toml");
    let text = format!(
        "edge = \"bench\"\n\
         [paths]\nrun_dir = \"run\"\npin_dir = \"{}\"\nstate_dir = \"state\"\n\
         [[interface]]\nname = \"{interface}\"\nrole = \"access\"\n\
         [subscribers]\nprefixes = [\"{}\"]\n\
         [consent]\nmodel = \"opt-out\"\nnotice_since = 2026-01-01T00:00:00Z\n\
         lists = [\"opt-out.list\"]\n",
        pin_dir.display(),
        Population::space(Family::V4)?,
    );
    fs::write(&config, text).context("cannot write the configuration")?;
    Ok(config)
}
