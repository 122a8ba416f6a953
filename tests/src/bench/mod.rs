//! The benchmark behind `cargo xtask bench`. `docs/benchmarks.md` says what each
//! figure means.
//!
//! - [`population`]: the subscribers; [`lists`]: random lists of indicators;
//! - [`traffic`]: the addresses that packets carry, with known answers;
//! - [`cost`]: what one packet costs in the kernel (`BPF_PROG_TEST_RUN`), and the
//!   proof that no packet was decided in another way than its row says;
//! - [`forward`]: packets through a veth pair, beside the products of [`peers`];
//! - [`drain`]: hits through the ring buffer;
//! - [`load`]: a feed from file to active, in a process of its own (`again.rs`);
//! - [`feeds`]: a feed of each format from text to entries, likewise;
//! - [`opt_out`]: one more opt-out while packets match;
//! - [`report`]: the figures as JSON, [`text`] and [`chart`], and [`aims`], what
//!   they were to be;
//! - [`machine`]: where and with what they were taken.

mod again;
pub mod aims;
pub mod chart;
pub mod cost;
pub mod drain;
pub mod feeds;
pub mod forward;
pub mod lists;
pub mod load;
pub mod machine;
pub mod opt_out;
pub mod peers;
pub mod population;
pub mod report;
pub mod spread;
pub mod text;
pub mod traffic;

use std::path::Path;

use anyhow::Result;
use matcher_user::kernel::object::Object;
use serde_json::{Value, json};

use self::machine::Cpus;

/// IPv4 or IPv6.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, in the order of the report.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// As the report writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }

    /// Bits of an address.
    pub fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

/// What is measured, and where.
pub struct Bench<'a> {
    /// How much.
    pub plan: &'a Plan,
    /// The kernel program.
    pub object: &'a Object,
    /// Its file, for processes of their own.
    pub object_path: &'a Path,
    /// What it is held against.
    pub baselines: &'a Path,
    /// Where packets are handled, and what runs beside them.
    pub cpus: Cpus,
}

/// Everything that was measured.
#[derive(Clone, Debug)]
pub struct Figures {
    /// What a packet costs.
    pub cost: cost::Costs,
    /// Packets forwarded.
    pub forward: forward::Forwarding,
    /// Hits through the ring buffer.
    pub drain: Vec<drain::Drained>,
    /// From file to active.
    pub load: Vec<load::Loading>,
    /// From text to entries.
    pub feeds: Vec<feeds::Reading>,
    /// Single opt-outs, or name and reason.
    pub opt_outs: Result<opt_out::OptOuts, (&'static str, String)>,
}

/// A part of the benchmark.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// What a packet costs.
    Cost,
    /// Packets forwarded, beside other products.
    Forward,
    /// Hits through the ring buffer.
    Drain,
    /// A feed from file to active.
    Load,
    /// Feeds of every format.
    Feeds,
    /// One more opt-out.
    OptOut,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 6] = [
        Self::Cost,
        Self::Forward,
        Self::Drain,
        Self::Load,
        Self::Feeds,
        Self::OptOut,
    ];
}

/// Measures everything in the plan; tells on `say` what is being done.
///
/// # Errors
/// The kernel refused something, or a packet was decided in another way than
/// its row says: then no figure is worth anything.
pub fn measure(bench: &Bench<'_>, say: &mut dyn FnMut(&str)) -> Result<Figures> {
    let wanted = |part| bench.plan.parts.contains(&part);
    let load = match wanted(Part::Load) {
        true => load::measure(bench, say)?,
        false => Vec::new(),
    };
    let feeds = match wanted(Part::Feeds) {
        true => feeds::measure(bench, say)?,
        false => Vec::new(),
    };
    let opt_outs = match wanted(Part::OptOut) {
        true => opt_out::measure(bench, say)?,
        false => Err((opt_out::NAME, "not asked for".to_owned())),
    };
    let forward = match wanted(Part::Forward) {
        true => forward::measure(bench, say)?,
        false => forward::Forwarding::default(),
    };
    let mut cost = cost::Costs::default();
    if wanted(Part::Cost) {
        cost = cost::Beds::new(bench, say)?.measure(bench, say)?;
    }
    let drain = match wanted(Part::Drain) {
        true => drain::measure(bench, say)?,
        false => Vec::new(),
    };
    Ok(Figures {
        cost,
        forward,
        drain,
        load,
        feeds,
        opt_outs,
    })
}

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is measured.
    pub parts: Vec<Part>,
    /// Entries of the C&C lists, ascending.
    pub sizes: Vec<usize>,
    /// Subscribers who opted out.
    pub opt_outs: usize,
    /// Pairs of addresses that each kind of traffic goes round.
    pub flows: usize,
    /// Times that every row is measured.
    pub rounds: usize,
    /// Packets of one system call; as many hits fit into the ring buffer.
    pub burst: u32,
    /// System calls of one row in one round; the first is not timed.
    pub bursts: u32,
    /// Packets through a veth pair in one round.
    pub forwarded: u32,
    /// Seconds of the drain.
    pub drain_seconds: u32,
    /// Times that each list is loaded, and each feed read.
    pub loads: usize,
    /// Entries of each feed.
    pub feed_entries: u32,
    /// Where all randomness comes from.
    pub seed: u64,
}

impl Plan {
    /// The plan whose figures count.
    pub fn full() -> Self {
        Self {
            parts: Part::ALL.to_vec(),
            sizes: vec![0, 1_000, 10_000, 100_000, 1_000_000],
            opt_outs: 1_000_000,
            flows: 1 << 20,
            rounds: 5,
            burst: 100_000,
            bursts: 4,
            forwarded: 500_000,
            drain_seconds: 30,
            loads: 3,
            feed_entries: 1_000_000,
            seed: 2,
        }
    }

    /// A plan that shows that everything works; its figures mean nothing.
    pub fn quick() -> Self {
        Self {
            parts: Part::ALL.to_vec(),
            // One list: the verifier takes seconds over each on a busy machine.
            sizes: vec![1_000],
            opt_outs: 100,
            flows: 1 << 10,
            rounds: 1,
            burst: 5_000,
            bursts: 2,
            forwarded: 5_000,
            drain_seconds: 1,
            loads: 1,
            feed_entries: 1_000,
            seed: 2,
        }
    }

    /// Packets of one row in one round.
    pub fn packets_per_round(&self) -> u64 {
        u64::from(self.burst) * u64::from(self.bursts)
    }

    /// Packets of one row in all rounds.
    pub fn packets_per_row(&self) -> usize {
        self.rounds * self.bursts as usize * self.burst as usize
    }

    /// The largest list.
    pub fn largest(&self) -> usize {
        self.sizes.iter().copied().max().unwrap_or(0)
    }

    fn json(&self) -> Value {
        json!({
            "rounds": self.rounds,
            "packets_per_round": self.packets_per_round(),
            "packets_per_call": self.burst,
            "flows": self.flows,
            "opt_outs": self.opt_outs,
            "forwarded_per_round": self.forwarded,
            "drain_seconds": self.drain_seconds,
            "loads": self.loads,
            "feed_entries": self.feed_entries,
            "seed": self.seed,
        })
    }
}
