//! A notification candidate: which subscriber, on what evidence, on what
//! legal ground. The JSON line is part of the contract with operators.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use serde::{Serialize, Serializer};

use crate::{
    aggregate::{Contacts, Cursor, Finding, Remote, Rule},
    hit::{IndicatorSummary, time_text},
    indicator::{IndicatorId, Qualifier},
};

/// Names a candidate for as long as it exists; never given to another.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct CandidateId(pub i64);

impl fmt::Display for CandidateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "candidate {}", self.0)
    }
}

/// Where it is on its way to a notification.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Nobody has decided on it yet.
    Open,
    /// It was printed, and rests on nothing any more.
    Withdrawn,
}

/// What the subscriber would be told.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A device is likely infected.
    Infected,
    /// A device is vulnerable (R10).
    Vulnerable,
}

/// The legal ground that carries it (R9).
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ground {
    /// Comprehensive, prior consent: the only ground for detection on the wire.
    Consent,
    /// Reports from outside of devices that make a disruption concrete.
    JustifiedAct,
    /// Logs of a taken-down C&C server, or of an attacked party.
    Necessity,
}

impl fmt::Display for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Consent => "consent",
            Self::JustifiedAct => "justified act",
            Self::Necessity => "necessity",
        })
    }
}

/// Why no subscriber is named (R7: never a guess).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Resolution {
    /// How it ended.
    pub status: ResolutionStatus,
    /// Why, for a person.
    pub reason: String,
}

/// How the search for the subscriber's line ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResolutionStatus {
    /// The records name more than one line.
    Ambiguous,
    /// The records name none.
    Unresolved,
}

/// What the abuse desk gets to see and to decide on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Stable over restarts.
    pub id: CandidateId,
    /// Where it stands.
    pub state: State,
    /// What it is about.
    pub kind: Kind,
    /// Why it may be looked at.
    pub ground: Ground,
    /// Why the subscriber is not named.
    pub resolution: Resolution,
    /// What shows it.
    pub finding: Finding,
    /// Where it was seen.
    pub edge: String,
    /// Why it was withdrawn.
    pub why: Option<String>,
}

impl Candidate {
    /// A likely infected device, found on the wire: by consent, since
    /// detection on the wire has no other ground (R9).
    pub fn infected(id: CandidateId, edge: &str, finding: Finding) -> Self {
        Self {
            id,
            state: State::Open,
            kind: Kind::Infected,
            ground: Ground::Consent,
            resolution: Resolution {
                status: ResolutionStatus::Unresolved,
                reason: "no assignment records are configured".to_owned(),
            },
            finding,
            edge: edge.to_owned(),
            why: None,
        }
    }

    /// The same, taken back: what it rested on was found to be wrong.
    pub fn withdrawn(self, why: String) -> Self {
        Self {
            state: State::Withdrawn,
            why: Some(why),
            ..self
        }
    }

    /// Grows with new evidence; the same again after a restart.
    pub fn revision(&self) -> u64 {
        self.finding.revision.0
    }

    fn rule_in_words(&self) -> String {
        let packets = counted(self.finding.contacts.count, "packet");
        let own = format!(
            "the subscriber sent {packets} to listed addresses, over an interface where its address \
             cannot be forged, in flows that it began"
        );
        match self.finding.rule {
            Rule::Answered => format!("{own}; each remote end answered within an hour"),
            Rule::OwnPackets => format!("{own}; an answer is not required"),
        }
    }
}

impl Serialize for Candidate {
    /// The JSON line of the contract.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let finding = &self.finding;
        Line {
            id: self.id,
            revision: self.revision(),
            state: self.state,
            kind: self.kind,
            ground: self.ground,
            subscriber: None,
            resolution: &self.resolution,
            endpoint: EndpointPart {
                address: finding.address.ip,
                space: finding.address.space,
                ports: &finding.ports,
                more_ports: finding.more_ports,
            },
            indicators: finding
                .indicators
                .iter()
                .map(|summary| IndicatorPart::of(summary))
                .collect(),
            more_indicators: finding.more_indicators,
            first_seen: time_text(finding.first_seen),
            last_seen: time_text(finding.last_seen),
            contacts: finding.contacts,
            evidence: EvidencePart {
                rule: self.rule_in_words(),
                remotes: &finding.remotes,
                more_remotes: finding.more_remotes,
                records: &finding.records,
                record_count: finding.record_count,
            },
            edge: &self.edge,
            why: self.why.as_deref(),
        }
        .serialize(serializer)
    }
}

#[derive(Serialize)]
struct Line<'a> {
    id: CandidateId,
    revision: u64,
    state: State,
    kind: Kind,
    ground: Ground,
    subscriber: Option<&'a str>,
    resolution: &'a Resolution,
    endpoint: EndpointPart<'a>,
    indicators: Vec<IndicatorPart<'a>>,
    more_indicators: bool,
    first_seen: String,
    last_seen: String,
    contacts: Contacts,
    evidence: EvidencePart<'a>,
    edge: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
}

#[derive(Serialize)]
struct EndpointPart<'a> {
    address: IpAddr,
    #[serde(skip_serializing_if = "is_default_space")]
    space: u32,
    ports: &'a [u16],
    more_ports: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_default_space(space: &u32) -> bool {
    *space == 0
}

#[derive(Serialize)]
struct IndicatorPart<'a> {
    id: IndicatorId,
    value: &'a str,
    #[serde(flatten)]
    qualifier: Qualifier,
    family: Option<&'a str>,
    feeds: &'a [Arc<str>],
    confidence: Option<u8>,
}

impl<'a> IndicatorPart<'a> {
    fn of(summary: &'a IndicatorSummary) -> Self {
        Self {
            id: summary.id,
            value: &summary.value,
            qualifier: summary.qualifier,
            family: summary.malware.as_deref(),
            feeds: &summary.feeds,
            confidence: summary.confidence,
        }
    }
}

#[derive(Serialize)]
struct EvidencePart<'a> {
    rule: String,
    remotes: &'a [Remote],
    more_remotes: bool,
    records: &'a [Cursor],
    record_count: u64,
}

impl fmt::Display for Candidate {
    /// One sentence for a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let finding = &self.finding;
        write!(f, "{} likely ", finding.address)?;
        f.write_str(match self.kind {
            Kind::Infected => "infected",
            Kind::Vulnerable => "vulnerable",
        })?;
        let families = distinct(
            finding
                .indicators
                .iter()
                .filter_map(|summary| summary.malware.as_deref()),
        );
        if !families.is_empty() {
            write!(f, " ({})", families.join(", "))?;
        }
        write!(
            f,
            ": {} in {} with ",
            counted(finding.contacts.count, "contact"),
            counted(finding.contacts.distinct_hours, "distinct hour"),
        )?;
        let named: Vec<String> = finding
            .remotes
            .iter()
            .take(NAMED)
            .map(remote_text)
            .collect();
        f.write_str(&named.join(", "))?;
        let others = finding.remotes.len().saturating_sub(NAMED);
        match (others, finding.more_remotes) {
            (0, false) => {}
            (0, true) => f.write_str(" and others")?,
            (others, false) => write!(f, " and {others} more")?,
            (others, true) => write!(f, " and more than {others} more")?,
        }
        let feeds = distinct(
            finding
                .indicators
                .iter()
                .flat_map(|summary| summary.feeds.iter().map(AsRef::as_ref)),
        );
        let way = if finding.contacts.two_way {
            "two-way"
        } else {
            "one-way"
        };
        write!(f, " [{}], {way}, ground {}", feeds.join(", "), self.ground)?;
        match &self.why {
            Some(why) => write!(f, "; WITHDRAWN: {why}"),
            None => Ok(()),
        }
    }
}

/// Remote ends that the sentence for people names.
const NAMED: usize = 3;

fn remote_text(remote: &Remote) -> String {
    match (remote.ip, remote.port) {
        (ip, None) => format!("{ip}/{}", remote.protocol),
        (ip, Some(port)) => format!("{}/{}", SocketAddr::new(ip, port), remote.protocol),
    }
}

/// Sorted, each once.
fn distinct<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut texts: Vec<&str> = texts.collect();
    texts.sort_unstable();
    texts.dedup();
    texts
}

fn counted(count: u64, thing: &str) -> String {
    if count == 1 {
        format!("1 {thing}")
    } else {
        format!("{count} {thing}s")
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{hit::SubscriberAddress, protocol::Protocol};

    fn candidate() -> Candidate {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let finding = Finding {
            address: SubscriberAddress {
                space: 0,
                ip: "203.0.113.7".parse().unwrap(),
            },
            ports: vec![50_000, 51_413],
            more_ports: false,
            indicators: vec![Arc::new(IndicatorSummary {
                id: IndicatorId(12),
                value: "198.51.100.23".to_owned(),
                qualifier: Qualifier {
                    protocol: Some(Protocol::TCP),
                    port: Some(443),
                },
                feeds: vec!["feodo".into()],
                malware: Some("Pikabot".into()),
                confidence: Some(90),
            })],
            more_indicators: false,
            remotes: vec![Remote {
                ip: "198.51.100.23".parse().unwrap(),
                port: Some(443),
                protocol: Protocol::TCP,
            }],
            more_remotes: false,
            first_seen: time("2026-11-22T01:02:03.000000004Z"),
            last_seen: time("2026-11-22T02:30:00Z"),
            contacts: Contacts {
                count: 14,
                distinct_hours: 2,
                two_way: true,
            },
            rule: Rule::Answered,
            records: vec![Cursor(101), Cursor(117), Cursor(118), Cursor(131)],
            record_count: 14,
            revision: Cursor(131),
        };
        Candidate::infected(CandidateId(7), "tokyo-1", finding)
    }

    #[test]
    fn the_json_line_is_the_contract() {
        insta::assert_json_snapshot!("candidate", candidate());
    }

    #[test]
    fn what_is_not_known_is_null_and_lists_say_when_they_were_cut() {
        let mut candidate = candidate();
        let indicator = Arc::make_mut(&mut candidate.finding.indicators[0]);
        indicator.malware = None;
        indicator.confidence = None;
        indicator.qualifier = Qualifier::default();
        candidate.finding.ports = Vec::new();
        candidate.finding.more_remotes = true;
        candidate.finding.contacts.count = 1;
        candidate.finding.record_count = 1;
        candidate.finding.contacts.distinct_hours = 1;
        candidate.finding.contacts.two_way = false;
        candidate.finding.rule = Rule::OwnPackets;
        candidate.finding.remotes[0].port = None;
        candidate.finding.remotes[0].protocol = Protocol(1);
        insta::assert_json_snapshot!("candidate_with_little_known", candidate);
        assert_eq!(
            candidate.to_string(),
            "203.0.113.7 likely infected: 1 contact in 1 distinct hour with 198.51.100.23/icmp and \
             others [feodo], one-way, ground consent"
        );
    }

    #[test]
    fn people_get_one_sentence() {
        assert_eq!(
            candidate().to_string(),
            "203.0.113.7 likely infected (Pikabot): 14 contacts in 2 distinct hours with \
             198.51.100.23:443/tcp [feodo], two-way, ground consent"
        );
        let mut many = candidate();
        many.finding.address.ip = "2001:db8::7".parse().unwrap();
        many.finding.remotes = (1..=5)
            .map(|host| Remote {
                ip: format!("2001:db8:c2::{host}").parse().unwrap(),
                port: Some(8443),
                protocol: Protocol::TCP,
            })
            .collect();
        assert_eq!(
            many.to_string(),
            "2001:db8::7 likely infected (Pikabot): 14 contacts in 2 distinct hours with \
             [2001:db8:c2::1]:8443/tcp, [2001:db8:c2::2]:8443/tcp, [2001:db8:c2::3]:8443/tcp and \
             2 more [feodo], two-way, ground consent"
        );
    }
}
