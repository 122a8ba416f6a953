//! The benchmark behind `cargo xtask bench`: what one packet costs in the
//! kernel, measured with `BPF_PROG_TEST_RUN`, and what loading a list costs.
//! `docs/benchmarks.md` says what each figure means.
//!
//! - [`lists`]: random lists of indicators and the space of subscribers;
//! - [`traffic`]: the addresses that packets carry, with known answers;
//! - [`measure`]: rounds over all rows, and the proof that no packet was
//!   decided in another way than its row says;
//! - [`report`]: the figures as text and JSON;
//! - [`machine`]: where and with what they were taken.

pub mod lists;
pub mod machine;
pub mod measure;
pub mod report;
pub mod traffic;

use serde_json::{Value, json};

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

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Prefixes in the C&C lists, ascending.
    pub sizes: Vec<usize>,
    /// Subscribers who opted out.
    pub opt_outs: usize,
    /// Pairs of addresses that each kind of traffic goes round.
    pub flows: usize,
    /// Times that every row is measured.
    pub rounds: usize,
    /// Packets of one system call; as many hits fit into the ring buffer.
    pub burst: u32,
    /// System calls of one row in one round.
    pub bursts: u32,
    /// Where all randomness comes from.
    pub seed: u64,
}

impl Plan {
    /// The plan whose figures count.
    pub fn full() -> Self {
        Self {
            sizes: vec![1_000, 100_000, 1_000_000],
            opt_outs: 10_000,
            flows: 1 << 20,
            rounds: 5,
            burst: 100_000,
            bursts: 5,
            seed: 2,
        }
    }

    /// A plan that shows that everything works; its figures mean nothing.
    pub fn quick() -> Self {
        Self {
            // One list: the verifier takes seconds over each on a busy machine.
            sizes: vec![1_000],
            opt_outs: 100,
            flows: 1 << 10,
            rounds: 1,
            burst: 5_000,
            bursts: 2,
            seed: 2,
        }
    }

    /// Packets of one row in one round.
    pub fn packets_per_round(&self) -> u64 {
        u64::from(self.burst) * u64::from(self.bursts)
    }

    fn json(&self) -> Value {
        json!({
            "rounds": self.rounds,
            "packets_per_round": self.packets_per_round(),
            "packets_per_call": self.burst,
            "flows": self.flows,
            "opt_outs": self.opt_outs,
            "seed": self.seed,
        })
    }
}
