//! Traffic of an ISP's edge with known answers: subscribers at their business,
//! some infected and calling C&C servers, some of those opted out, and what must
//! not be mistaken for it. The same seed gives the same packets.
//!
//! All addresses are of the documentation and benchmark ranges (RFC 5737, 2544,
//! 3849).

mod conversations;
mod plan;
pub mod random;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::BufWriter,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use ipnet::IpNet;
use jiff::Timestamp;

pub use self::random::Random;
use crate::{pcap::PcapWriter, wire::Sender};

/// Traffic, the lists that it meets, and what must come of it.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// When the first packet is sent; lists are of that day.
    pub start: Timestamp,
    /// In the order in which they cross the edge, some 23,000 in ten minutes.
    pub packets: Vec<Packet>,
    /// C&C lists in their publishers' layouts.
    pub feeds: Vec<Feed>,
    /// The subscriber space.
    pub subscribers: Vec<IpNet>,
    /// Opt-out list, format `plain`.
    pub opt_out_list: String,
    /// What must come of it.
    pub expected: Expected,
}

/// A packet that crosses the edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// All of it, from the Ethernet header on.
    pub frame: Vec<u8>,
    /// Where it comes in.
    pub side: Side,
    /// How long after the packet before it.
    pub delay: Duration,
}

/// The interface that a packet comes in on (design decision 9).
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// From the subscribers: all that they send.
    Access,
    /// From the Internet: all that is sent to them.
    Core,
}

/// A C&C list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feed {
    /// Name of the format, as in `--feed FORMAT:PATH`.
    pub format: &'static str,
    /// A name for the file.
    pub file_name: &'static str,
    /// What the file holds.
    pub text: String,
}

/// What a packet is there for.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Between subscribers and servers on no list, of all subscribers; also what
    /// is not IP.
    Legitimate,
    /// Between others, one of them a C&C server: no subscriber's.
    Transit,
    /// Between a consenting subscriber and a C&C server that answers: hits, and
    /// a candidate.
    Answered,
    /// From a consenting subscriber to a C&C server that does not answer: hits,
    /// but no candidate by default, since contact is one-way.
    Unanswered,
    /// From a C&C server's address to a consenting subscriber who never sent it
    /// anything: hits, but never a candidate (design decision 8).
    Forged,
    /// The same as `Answered`, of a subscriber who opted out: nothing.
    OptedOut,
    /// With an unlisted address beside a listed one.
    Neighbour,
    /// With a listed address, on a port that its entry does not name.
    OtherPort,
    /// With an address whose entry is no longer valid, or not yet.
    NotValid,
}

/// Hits of one subscriber, one for every packet.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Contacts {
    /// Packets the subscriber sent.
    pub outbound: u64,
    /// Packets sent to the subscriber.
    pub inbound: u64,
}

/// What must come of a scenario.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Hits by subscriber.
    pub hits: BTreeMap<IpAddr, Contacts>,
    /// Subscribers that become candidates.
    pub candidates: BTreeSet<IpAddr>,
    /// Packets of subscribers who opted out of detection, whoever the other end:
    /// those that consent stops before any C&C look-up (R1).
    pub stopped_by_consent: u64,
    /// Packets of each kind; [`Kind::OptedOut`] are those of `stopped_by_consent`
    /// that would be hits otherwise.
    pub packets: BTreeMap<Kind, u64>,
}

impl Expected {
    /// Hits in all.
    pub fn hit_count(&self) -> u64 {
        self.hits
            .values()
            .map(|contacts| contacts.outbound + contacts.inbound)
            .sum()
    }

    /// Packets of that kind.
    pub fn packets_of(&self, kind: Kind) -> u64 {
        self.packets.get(&kind).copied().unwrap_or(0)
    }
}

/// Where [`Scenario::write_into`] put what.
#[derive(Clone, Debug)]
pub struct Files {
    /// Format and path of each feed.
    pub feeds: Vec<(&'static str, PathBuf)>,
    /// The opt-out list.
    pub opt_out: PathBuf,
    /// The subscriber space, one prefix a line.
    pub subscribers: PathBuf,
    /// All packets of both sides, in order.
    pub capture: PathBuf,
}

impl Scenario {
    /// Makes up a scenario that starts at `start`, to the second.
    pub fn new(seed: u64, start: Timestamp) -> Self {
        let second = Timestamp::from_second(start.as_second()).unwrap_or(start);
        let plan = plan::Plan::new();
        let (packets, expected) = conversations::generate(&plan, seed);
        Self {
            start: second,
            packets,
            feeds: plan.feeds(second),
            subscribers: plan::subscriber_space(),
            opt_out_list: plan.opt_out_list(),
            expected,
        }
    }

    /// The packets with their times.
    pub fn timed(&self) -> impl Iterator<Item = (Timestamp, &Packet)> {
        let mut since_start = Duration::ZERO;
        self.packets.iter().map(move |packet| {
            since_start += packet.delay;
            (self.start + since_start, packet)
        })
    }

    /// Writes the packets as a capture.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_pcap(&self, path: &Path) -> Result<()> {
        let write = || {
            let mut writer = PcapWriter::new(BufWriter::new(File::create(path)?))?;
            for (time, packet) in self.timed() {
                writer.write(time, &packet.frame)?;
            }
            writer.finish()
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
        Ok(())
    }

    /// Writes lists and packets into a folder that exists.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write_into(&self, folder: &Path) -> Result<Files> {
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            Ok::<PathBuf, anyhow::Error>(path)
        };
        let subscribers: String = self
            .subscribers
            .iter()
            .map(|prefix| format!("{prefix}\n"))
            .collect();
        let capture = folder.join("traffic.pcap");
        self.write_pcap(&capture)?;
        Ok(Files {
            feeds: self
                .feeds
                .iter()
                .map(|feed| Ok((feed.format, write(feed.file_name, &feed.text)?)))
                .collect::<Result<_>>()?,
            opt_out: write("opt-out.txt", &self.opt_out_list)?,
            subscribers: write("subscribers.txt", &subscribers)?,
            capture,
        })
    }

    /// Sends the packets, each on its side and after the one before it was
    /// taken, and returns how many were. Delays are replaced by the rate.
    ///
    /// # Errors
    /// Those of [`Sender::send_all`].
    pub fn send(&self, access: &Sender, core: &Sender, packets_per_second: u32) -> Result<u64> {
        let mut taken = 0;
        let start = std::time::Instant::now();
        let mut sent = 0_u32;
        for run in self.packets.chunk_by(|a, b| a.side == b.side) {
            let due = Duration::from_secs(1) * sent / packets_per_second.max(1);
            std::thread::sleep(due.saturating_sub(start.elapsed()));
            let sender = match run.first().map(|packet| packet.side) {
                Some(Side::Access) | None => access,
                Some(Side::Core) => core,
            };
            taken += sender.send_all(run.iter().map(|packet| &packet.frame), u32::MAX)?;
            sent += run.len() as u32;
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests;
