//! Packets forwarded through a veth pair: this product beside others, with the
//! same list and the same traffic.
//!
//! A generator on one end sends live frames; XDP on the other end, in native
//! mode, passes them, and what is behind drops them as soon as it can. One CPU
//! does all of it, so a packet's time is the sum, and a rate tells what the
//! program under test adds. Every candidate has a pair of its own, so that
//! rounds can go from one to the next.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use ipnet::IpNet;
use matcher_common::abi::{Counter, InterfaceSettings, role};
use matcher_user::kernel::{
    attach::{self, Mode, Wanted},
    bench::{Flows, Generator, Reference, ReferenceProgram, ReferenceTables},
    pins::Pins,
    tables::{Counters, Tables},
};

use super::{
    Bench, Family,
    cost::{filled_reference, furnish, limits},
    lists::prefixes,
    load::compile_list,
    peers::{self, AtWork, Peer},
    population::Population,
    traffic::{Direction, Pair, Pairs, Traffic, flows, frame},
};
use crate::{cleanup::Cleanup, lab::Lab, traffic::Random};

/// All that forwarded, and all that could not be tried.
#[derive(Clone, Debug, Default)]
pub struct Forwarding {
    /// Candidates in the order of the report; the first only passes.
    pub candidates: Vec<Candidate>,
    /// Name, and why it is not here.
    pub missing: Vec<(&'static str, String)>,
}

/// One candidate's figures.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its name.
    pub name: &'static str,
    /// Entries of the list that it holds.
    pub entries: usize,
    /// What a reader has to know.
    pub note: String,
    /// Packets a second, in each round.
    pub rounds: Vec<f64>,
}

/// A frame of 64 bytes on the wire has 60 without its checksum.
const FRAME: usize = 60;
/// Of hits that each candidate must find before it is measured.
const PROBES: usize = 500;

/// A candidate on its own pair of interfaces.
struct Lane {
    candidate: Candidate,
    /// The end where packets come in.
    interface: String,
    /// Index of the other end.
    sender: u32,
    what: What,
}

enum What {
    Passes,
    Matcher(Box<Tables>),
    Plain(Box<Reference>),
    Peer(AtWork),
}

/// Everything that is attached; parts go before the namespaces they are in.
struct Rig<'a> {
    bench: &'a Bench<'a>,
    lanes: Vec<Lane>,
    missing: Vec<(&'static str, String)>,
    /// On the ends that have no program of their own.
    passing: Reference,
    /// Removes the matcher's pins.
    pinned: Option<Cleanup>,
    folder: tempfile::TempDir,
    lab: Lab,
}

/// Measures every candidate; all are named, whether they could be tried or not.
pub(super) fn measure(bench: &Bench<'_>, say: &mut dyn FnMut(&str)) -> Result<Forwarding> {
    if let Some(reason) = Lab::obstacle() {
        say(&format!("no forwarding: {reason}"));
        let missing = ["pass-only", "matcher", "plain-tries"]
            .into_iter()
            .chain(Peer::ALL.map(Peer::name))
            .map(|name| (name, reason.clone()))
            .collect();
        return Ok(Forwarding {
            candidates: Vec::new(),
            missing,
        });
    }
    let mut random = Random::new(bench.plan.seed);
    let family = Family::V4;
    let population = Population::new(family, bench.plan.opt_outs, &mut random)?;
    let list = prefixes(family, bench.plan.largest(), &mut random);
    let mut rig = Rig::new(bench, &population, &list, say)?;

    let pairs = Pairs::new(family, &population, &list);
    let misses = pairs.of(Traffic::Miss, list.len(), bench.plan.flows, &mut random)?;
    let hosts: Vec<IpNet> = list
        .iter()
        .filter(|net| net.prefix_len() == family.bits())
        .take(PROBES)
        .copied()
        .collect();
    let hits = hosts
        .iter()
        .map(|host| Ok((population.consenting(&mut random)?, host.addr())))
        .collect::<Result<Vec<_>>>()?;
    let mut sixty = frame(family);
    sixty.resize(FRAME, 0);
    let mut generator = |pairs: &[Pair]| {
        let flows = flows(family, pairs, Direction::Outbound, &mut random)?;
        match flows {
            Flows::V4(flows) => Ok(Generator::load(bench.baselines, &flows, &sixty)?),
            Flows::V6(_) => Err(anyhow!("the generator is for IPv4")),
        }
    };
    let (mut probing, mut measuring) = (generator(&hits)?, generator(&misses)?);
    let listed = u32::try_from(hits.len())?;
    rig.probe(&mut probing, listed)?;
    for round in 1..=bench.plan.rounds {
        say(&format!(
            "forwarding, round {round} of {}",
            bench.plan.rounds
        ));
        rig.round(&mut measuring)?;
    }
    rig.expect_found(listed)?;
    Ok(Forwarding {
        candidates: rig.lanes.drain(..).map(|lane| lane.candidate).collect(),
        missing: std::mem::take(&mut rig.missing),
    })
}

impl<'a> Rig<'a> {
    fn new(
        bench: &'a Bench<'a>,
        population: &Population,
        list: &[IpNet],
        say: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        let mut rig = Self {
            bench,
            lanes: Vec::new(),
            missing: Vec::new(),
            passing: Reference::load(bench.baselines, ReferenceTables::None, 1, 1)?,
            pinned: None,
            folder: tempfile::tempdir().context("cannot make a folder for lists")?,
            lab: Lab::new("matcher-bench")?,
        };
        let out = population.opt_outs()?;
        rig.lane("pass-only", 0, |rig, interface| {
            rig.pass(interface)?;
            Ok(What::Passes)
        })?;
        say("forwarding: the matcher");
        rig.lane("matcher", list.len(), |rig, interface| {
            rig.matcher(interface, list, &out)
        })?;
        say("forwarding: plain tries");
        rig.lane("plain-tries", list.len(), |rig, interface| {
            let mut plain = filled_reference(rig.bench, ReferenceTables::Tries, list, &out)?;
            rig.lab.edge().run(|| {
                let ifindex = attach::ifindex(interface)?;
                plain.attach(ReferenceProgram::PlainTries, ifindex, Mode::Native)
            })??;
            Ok(What::Plain(Box::new(plain)))
        })?;
        for peer in Peer::ALL {
            say(&format!("forwarding: {}", peer.name()));
            let made = rig.lane(peer.name(), 0, |rig, interface| {
                if peer.wants_own_packets() {
                    let mac = "02:00:00:00:00:02";
                    rig.lab
                        .edge()
                        .ip(&["link", "set", "dev", interface, "address", mac])?;
                }
                if !peer.is_xdp() {
                    rig.pass(interface)?;
                }
                let folder: &Path = rig.folder.path();
                peers::set_up(peer, rig.lab.edge(), interface, list, folder).map(What::Peer)
            });
            if let Err(error) = made {
                rig.missing.push((peer.name(), format!("{error:#}")));
            }
        }
        Ok(rig)
    }

    /// Makes a pair of interfaces and puts something on it.
    fn lane(
        &mut self,
        name: &'static str,
        entries: usize,
        set_up: impl FnOnce(&mut Self, &str) -> Result<What>,
    ) -> Result<()> {
        let number = self.lanes.len() + self.missing.len();
        let (interface, other) = (format!("bench{number}"), format!("from{number}"));
        self.lab.veth(&interface, &other)?;
        let what = set_up(self, &interface)?;
        // A veth takes frames from XDP only if both of its ends have a program.
        let passing = &mut self.passing;
        let sender = self.lab.world().run(|| {
            let ifindex = attach::ifindex(&other)?;
            passing.attach(ReferenceProgram::PassOnly, ifindex, Mode::Native)?;
            Ok::<u32, anyhow::Error>(ifindex)
        })??;
        let (entries, note) = match &what {
            What::Peer(peer) => (peer.entries, peer.note.clone()),
            _ => (entries, String::new()),
        };
        self.lanes.push(Lane {
            candidate: Candidate {
                name,
                entries,
                note,
                rounds: Vec::new(),
            },
            interface,
            sender,
            what,
        });
        Ok(())
    }

    fn pass(&mut self, interface: &str) -> Result<()> {
        let passing = &mut self.passing;
        self.lab.edge().run(|| {
            let ifindex = attach::ifindex(interface)?;
            passing.attach(ReferenceProgram::PassOnly, ifindex, Mode::Native)
        })??;
        Ok(())
    }

    /// As an operator attaches it: pinned.
    fn matcher(&mut self, interface: &str, list: &[IpNet], out: &[IpNet]) -> Result<What> {
        let directory: PathBuf = format!("/sys/fs/bpf/matcher-bench-{}", std::process::id()).into();
        let pins = Pins::at(&directory);
        let limits = limits(list.len(), out.len(), self.bench.plan.burst)?;
        let remove = pins.clone();
        self.pinned = Some(Cleanup::new(move || {
            if let Err(error) = remove.remove_all() {
                eprintln!("left behind: {}: {error}", remove.directory().display());
            }
        })?);
        let mut tables = pins.open_or_create(self.bench.object, limits)?;
        let attached = self
            .lab
            .edge()
            .run(|| attach::attach(&pins, interface, Wanted::Only(Mode::Native)))??;
        let compiled = compile_list(list, Population::space(Family::V4)?)?;
        furnish(
            &mut tables,
            attached.ifindex,
            Family::V4,
            &compiled.tables,
            out,
        )?;
        tables.set_interface(
            attached.ifindex,
            InterfaceSettings {
                role: role::ACCESS,
                source_validated: 1,
            },
        )?;
        Ok(What::Matcher(Box::new(tables)))
    }

    /// Every candidate must find every packet that it was set up to find.
    fn probe(&mut self, generator: &mut Generator, packets: u32) -> Result<()> {
        for at in 0..self.lanes.len() {
            let arrived = self.send(at, generator, packets)?.0;
            let name = self.lanes.get(at).context("no lane")?.candidate.name;
            ensure!(
                arrived == u64::from(packets),
                "{name}: of {packets} listed packets {arrived} arrived",
            );
        }
        self.expect_found(packets)
    }

    /// Nothing else but the listed packets may ever be found. To be asked
    /// seldom: nft reads its whole set, half a minute for a million entries,
    /// whatever it is asked for.
    fn expect_found(&mut self, packets: u32) -> Result<()> {
        for at in 0..self.lanes.len() {
            let found = self.found(at)?;
            let name = self.lanes.get(at).context("no lane")?.candidate.name;
            ensure!(
                found.is_none_or(|found| found == u64::from(packets)),
                "{name} found {found:?} packets, and was sent {packets} that are listed"
            );
        }
        Ok(())
    }

    fn round(&mut self, generator: &mut Generator) -> Result<()> {
        let packets = self.bench.plan.forwarded;
        for at in 0..self.lanes.len() {
            let counted = self.counters(at)?;
            let (arrived, seconds) = self.send(at, generator, packets)?;
            let lookups = match (counted, self.counters(at)?) {
                (Some(before), Some(after)) => {
                    let since = |counter| after.get(counter) - before.get(counter);
                    Some((since(Counter::LookupsV4), since(Counter::NoMatch)))
                }
                _ => None,
            };
            let lane = self.lanes.get_mut(at).context("no lane")?;
            let name = lane.candidate.name;
            ensure!(
                arrived >= u64::from(packets) / 100 * 99,
                "{name}: of {packets} packets {arrived} arrived"
            );
            ensure!(
                lookups.is_none_or(|both| both == (arrived, arrived)),
                "{name}: of {arrived} packets {lookups:?} were looked up and not found"
            );
            lane.candidate.rounds.push(arrived as f64 / seconds);
        }
        Ok(())
    }

    /// Packets that arrived, and seconds.
    fn send(&mut self, at: usize, generator: &mut Generator, packets: u32) -> Result<(u64, f64)> {
        let lane = self.lanes.get(at).context("no lane")?;
        let edge = self.lab.edge();
        let before = edge.counters(&lane.interface)?.rx_packets;
        generator.aim(lane.sender)?;
        let passed = self.lab.world().run(|| generator.run(packets))??;
        let after = edge.counters(&lane.interface)?.rx_packets;
        Ok((after - before, passed.elapsed.as_secs_f64()))
    }

    fn counters(&self, at: usize) -> Result<Option<Counters>> {
        match self.lanes.get(at).map(|lane| &lane.what) {
            Some(What::Matcher(tables)) => Ok(Some(tables.counters()?)),
            _ => Ok(None),
        }
    }

    /// Packets that the candidate found so far; `None` for one that looks for
    /// none.
    fn found(&mut self, at: usize) -> Result<Option<u64>> {
        match &mut self.lanes.get_mut(at).context("no lane")?.what {
            What::Passes => Ok(None),
            What::Matcher(tables) => Ok(Some(tables.counters()?.get(Counter::Matched))),
            What::Plain(plain) => Ok(Some(plain.tally()?.hits)),
            What::Peer(peer) => peer.found(),
        }
    }
}
