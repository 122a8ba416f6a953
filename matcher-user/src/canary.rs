//! The canary: an indicator and a flow of the product's own, which prove the
//! way from packet to hit (design decision 11). A quiet edge and a dead one
//! look the same from outside; the canary tells them apart.
//!
//! Its frame goes through the attached program with the real tables, on an
//! interface that has a role; the match goes through the ring buffer and the
//! agent's drain. No packet leaves the machine. Its hit is known by its
//! indicator, and is neither stored nor evidence nor a candidate.

mod frame;

use std::{fmt, net::IpAddr, sync::Arc};

use matcher_common::abi::{InterfaceSettings, role};
use serde::Serialize;

pub use self::frame::frame;
use crate::{
    config::CanaryConfig,
    hit::{Direction, IndicatorSummary},
    indicator::{Indicator, IndicatorId, Qualifier},
    protocol::Protocol,
};

/// The name of the canary's feed, which is none.
const FEED: &str = "canary";

/// Transport protocol of the flow.
pub const PROTOCOL: Protocol = Protocol(17);

/// What the C&C tables hold for the canary: its address, port and protocol.
pub fn indicator(config: &CanaryConfig) -> Indicator {
    Indicator {
        qualifier: Qualifier {
            protocol: Some(PROTOCOL),
            port: Some(config.port),
        },
        ..Indicator::bare(IndicatorId::CANARY, config.remote.into(), FEED)
    }
}

/// What a hit of it says about its indicator.
pub fn summary() -> Arc<IndicatorSummary> {
    Arc::new(IndicatorSummary {
        id: IndicatorId::CANARY,
        value: FEED.into(),
        qualifier: Qualifier::default(),
        feeds: vec![FEED.into()],
        malware: None,
        confidence: None,
    })
}

/// Which way the flow goes on an interface: a subscriber's address as source
/// is spoofed on a core interface, and the only one on an access interface.
pub fn direction(settings: InterfaceSettings) -> Direction {
    match settings.role {
        role::CORE => Direction::Inbound,
        _ => Direction::Outbound,
    }
}

/// A part of the way from packet to hit.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The program is attached.
    Attached,
    /// An agent reads the hits.
    Agent,
    /// The emergency stop is off.
    Stop,
    /// Consent is confirmed.
    Deadline,
    /// A list is loaded.
    Generation,
    /// The interface has a role.
    Interface,
    /// The canary's address is in the subscriber space.
    Subscriber,
    /// The canary's address allows detection.
    Consent,
    /// The program matches it.
    Match,
    /// The ring buffer takes the hit.
    Ring,
    /// The hit is read and released.
    Drain,
}

/// What stands in the way, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// Where.
    pub stage: Stage,
    /// What is wrong, and what to do.
    pub what: String,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = serde_json::to_value(self.stage).unwrap_or_default();
        write!(f, "{}: {}", stage.as_str().unwrap_or("?"), self.what)
    }
}

/// An interface, as the canary finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Name.
    pub name: String,
    /// Index.
    pub ifindex: u32,
    /// Role; `None`: its packets pass unmatched.
    pub settings: Option<InterfaceSettings>,
    /// It can be reached from this network namespace.
    pub visible: bool,
    /// The program is on it: nobody took it off.
    pub holds: bool,
}

/// The state that the way depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The emergency stop is on.
    pub stopped: bool,
    /// Consent holds.
    pub consent: bool,
    /// Generation of the C&C tables; 0 before the first load.
    pub generation: u64,
    /// Attached interfaces.
    pub edges: Vec<Edge>,
    /// The canary's subscriber.
    pub subscriber: IpAddr,
    /// It lies in the subscriber space.
    pub in_space: bool,
    /// It allows detection.
    pub allows: bool,
    /// Bytes waiting in the ring buffer, and bytes that fit.
    pub ring: [u64; 2],
}

/// Room that the ring buffer must have: the record of one hit, and some more.
const RECORD: u64 = 512;

impl Edge {
    /// The role, if a canary can be sent here.
    pub fn usable(&self) -> Option<InterfaceSettings> {
        self.settings.filter(|_| self.visible && self.holds)
    }
}

impl State {
    /// Everything that stands in the way, in the order of the way.
    pub fn troubles(&self) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        let mut add = |stage, what: String| troubles.push(Trouble { stage, what });
        // One that is gone is told below.
        for edge in self.edges.iter().filter(|it| it.visible && !it.holds) {
            add(
                Stage::Attached,
                format!(
                    "{}: the program was taken off by somebody else, and its packets pass \
                     unseen; `matcher detach`, then start the agent again",
                    edge.name
                ),
            );
        }
        if self.stopped {
            add(
                Stage::Stop,
                "the emergency stop is on; `matcher stop-matching --resume` ends it".into(),
            );
        }
        if !self.consent {
            add(
                Stage::Deadline,
                "consent is not confirmed, or the time for which it was has passed; the agent \
                 renews it unless a list cannot be read (`matcher consent show` says which)"
                    .into(),
            );
        }
        if self.generation == 0 {
            add(
                Stage::Generation,
                "no list of C&C addresses is loaded; `matcher load` says why".into(),
            );
        }
        if self.edges.is_empty() {
            add(
                Stage::Interface,
                "attached to no interface; name some in [[interface]] and run `matcher attach`"
                    .into(),
            );
        }
        for edge in &self.edges {
            let name = &edge.name;
            if edge.settings.is_none() {
                add(
                    Stage::Interface,
                    format!(
                        "{name} has no role, so its packets pass unmatched; `matcher attach \
                         --iface {name}:ROLE` gives it one"
                    ),
                );
            } else if !edge.visible {
                add(
                    Stage::Interface,
                    format!(
                        "{name} is gone, or in another network namespace than this process; when \
                         it is back, start the agent again"
                    ),
                );
            }
        }
        if !self.in_space {
            add(
                Stage::Subscriber,
                format!(
                    "{} is not in the subscriber space in the kernel: [canary] was added after \
                     it was loaded; send the agent SIGHUP",
                    self.subscriber
                ),
            );
        } else if !self.allows && self.consent {
            add(
                Stage::Consent,
                format!(
                    "{0} does not allow detection; record it as consenting (`matcher consent \
                     opt-in {0} --purpose detect`): it is an address of the product's own, and \
                     nobody's",
                    self.subscriber
                ),
            );
        }
        let [used, size] = self.ring;
        if used + RECORD > size {
            add(
                Stage::Ring,
                format!(
                    "the ring buffer is full ({used} of {size} bytes wait): hits are being lost. \
                     The agent does not keep up or cannot store them; its log says which"
                ),
            );
        }
        troubles
    }
}

/// How one canary went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// It came through on every interface.
    pub ok: bool,
    /// When it was sent.
    pub time: jiff::Timestamp,
    /// Interfaces on which it came through.
    pub interfaces: Vec<Passed>,
    /// What stood in the way, in the order of the way.
    pub troubles: Vec<Trouble>,
}

/// An interface on which it came through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Passed {
    /// The interface.
    pub name: String,
    /// From the program to the agent's commit, microseconds.
    pub latency_us: u64,
}

impl Report {
    /// Nothing came through.
    pub fn failed(time: jiff::Timestamp, troubles: Vec<Trouble>) -> Self {
        Self {
            ok: false,
            time,
            interfaces: Vec::new(),
            troubles,
        }
    }

    /// For a person; the troubles each on a line.
    pub fn text(&self) -> String {
        let mut text = String::from(if self.ok { "ok" } else { "FAILED" });
        let passed: Vec<String> = self
            .interfaces
            .iter()
            .map(|it| format!("{} {} \u{b5}s", it.name, it.latency_us))
            .collect();
        if !passed.is_empty() {
            text += &format!(": {}", passed.join(", "));
        }
        for trouble in &self.troubles {
            text += &format!("\n  {trouble}");
        }
        text
    }
}

#[cfg(test)]
mod tests;
