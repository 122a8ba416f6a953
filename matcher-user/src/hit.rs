//! One matching packet as the agent sees it: the record that everything after
//! the ring buffer works on. Addresses, ports, protocol, time, and nothing
//! else of the traffic (R3).

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use jiff::Timestamp;
use matcher_common::abi::Tunnel;
use serde::{Deserialize, Serialize, Serializer};

use crate::{
    indicator::{IndicatorId, Qualifier},
    protocol::Protocol,
};

/// Who sent the packet.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The subscriber.
    Outbound,
    /// The C&C address, or someone who forged it (design decision 8).
    Inbound,
}

/// An address, and the port where the packet has one.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// IPv4 or IPv6 address.
    pub ip: IpAddr,
    /// `None` for protocols without ports and for later fragments.
    pub port: Option<u16>,
}

/// An address as one network gives it out.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriberAddress {
    /// Subscriber space; 0 unless the VLAN has one of its own. The same private
    /// address in two spaces is two subscribers'.
    pub space: u32,
    /// The address.
    pub ip: IpAddr,
}

impl fmt::Display for SubscriberAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.space {
            0 => write!(f, "{}", self.ip),
            space => write!(f, "{} in space {space}", self.ip),
        }
    }
}

/// Where a matching layer lay inside another one.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Encapsulation {
    /// What carried it.
    pub tunnel: Tunnel,
    /// Sender of the layer around it: the one by which the subscriber is known,
    /// if that is not the matching layer itself, else the nearest.
    pub outer_source: IpAddr,
    /// Receiver of that layer.
    pub outer_destination: IpAddr,
}

/// What a hit says about the indicator that matched; shared by all hits of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IndicatorSummary {
    /// Stable id.
    pub id: IndicatorId,
    /// Address or prefix as people write it.
    pub value: String,
    /// Protocol and port of the entry, where it has any.
    #[serde(flatten)]
    pub qualifier: Qualifier,
    /// Feeds that list it.
    pub feeds: Vec<Arc<str>>,
    /// Malware family, where a feed names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub malware: Option<Arc<str>>,
    /// 0-100, where a feed gives one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<u8>,
}

/// A packet between a consenting subscriber and a C&C address, or several that
/// differ in time only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// When the kernel saw the packet (of several, the last), in wall-clock time.
    pub time: Timestamp,
    /// Interface it came in on; `None` in replay.
    pub interface: Option<Arc<str>>,
    /// Who sent it.
    pub direction: Direction,
    /// Transport protocol.
    pub protocol: Protocol,
    /// The subscriber's end. The address may be that of an outer layer, if only
    /// that lies in the subscriber space (DS-Lite, RFC 6333); the port is
    /// always that of the packet that matched.
    pub subscriber: Endpoint,
    /// The subscriber's end as the matching packet itself names it.
    pub local_ip: IpAddr,
    /// The other end, which the indicator covers.
    pub remote: Endpoint,
    /// The IPv4 address that the other end carries, if it was looked up as such
    /// (NAT64, RFC 6052).
    pub nat64: Option<Ipv4Addr>,
    /// The tunnel that the matching layer lay in.
    pub encapsulation: Option<Encapsulation>,
    /// Subscriber space; 0 unless the VLAN has one of its own.
    pub space: u32,
    /// VLAN ids in front of the packet, outermost first, 0 where there is none.
    pub vlan_ids: [u16; 2],
    /// What matched.
    pub indicator: Arc<IndicatorSummary>,
    /// Packets this record stands for: 1, unless the kernel folded them.
    pub packets: u32,
    /// Sequence number from the kernel, which counts per CPU: a gap among the
    /// hits of one CPU is a lost hit. 0 in a record of folded packets. In replay,
    /// the hits of that replay.
    pub sequence: u64,
    /// The interface is one where a subscriber's address cannot be forged
    /// (design decision 8).
    pub source_validated: bool,
    /// The packets are of several flows between the subscriber and addresses of
    /// the indicator. The addresses are those of the first, without ports, since
    /// behind a shared address each port may be another subscriber; who began
    /// them is not known.
    pub several_flows: bool,
}

impl Hit {
    /// The address that the subscriber is known by.
    pub fn subscriber_address(&self) -> SubscriberAddress {
        SubscriberAddress {
            space: self.space,
            ip: self.subscriber.ip,
        }
    }

    /// The subscriber is known by its own address and, behind a shared one, by
    /// the port: not so when only an outer address is the subscriber's.
    pub fn known_by_port(&self) -> bool {
        self.subscriber.ip == self.local_ip
    }

    /// The VLAN ids that are there, outermost first.
    pub fn vlans(&self) -> &[u16] {
        match self.vlan_ids {
            [0, 0] => &[],
            [_, 0] => self.vlan_ids.split_at(1).0,
            _ => &self.vlan_ids,
        }
    }

    /// Every address in the hit, with the port that stands beside it: whoever
    /// of them is a subscriber has a say in whether it may be kept (R1).
    pub fn ends(&self) -> impl Iterator<Item = Endpoint> {
        let local = Endpoint {
            ip: self.local_ip,
            port: self.subscriber.port,
        };
        let outer = self.encapsulation.into_iter().flat_map(|around| {
            [around.outer_source, around.outer_destination].map(|ip| Endpoint { ip, port: None })
        });
        [local, self.remote].into_iter().chain(outer)
    }
}

impl Serialize for Hit {
    /// The JSON line of the contract; `capture` and `packet` are added in
    /// replay by [`crate::replay`].
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Line<'a> {
            time: String,
            interface: Option<&'a str>,
            direction: Direction,
            protocol: Protocol,
            subscriber_ip: IpAddr,
            subscriber_port: Option<u16>,
            remote_ip: IpAddr,
            remote_port: Option<u16>,
            indicator: &'a IndicatorSummary,
            tunnel: Option<&'static str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            outer_source_ip: Option<IpAddr>,
            #[serde(skip_serializing_if = "Option::is_none")]
            outer_destination_ip: Option<IpAddr>,
            #[serde(skip_serializing_if = "Option::is_none")]
            local_ip: Option<IpAddr>,
            #[serde(skip_serializing_if = "Option::is_none")]
            nat64_ip: Option<Ipv4Addr>,
            #[serde(skip_serializing_if = "<[u16]>::is_empty")]
            vlans: &'a [u16],
            #[serde(skip_serializing_if = "is_zero")]
            space: u32,
            packets: u32,
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            several_flows: bool,
            sequence: u64,
        }
        Line {
            time: time_text(self.time),
            interface: self.interface.as_deref(),
            direction: self.direction,
            protocol: self.protocol,
            subscriber_ip: self.subscriber.ip,
            subscriber_port: self.subscriber.port,
            remote_ip: self.remote.ip,
            remote_port: self.remote.port,
            indicator: &self.indicator,
            tunnel: self.encapsulation.map(|around| around.tunnel.name()),
            outer_source_ip: self.encapsulation.map(|around| around.outer_source),
            outer_destination_ip: self.encapsulation.map(|around| around.outer_destination),
            local_ip: (self.local_ip != self.subscriber.ip).then_some(self.local_ip),
            nat64_ip: self.nat64,
            vlans: self.vlans(),
            space: self.space,
            packets: self.packets,
            several_flows: self.several_flows,
            sequence: self.sequence,
        }
        .serialize(serializer)
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// One line for a person, from the JSON line of the contract.
pub fn line_text(line: &serde_json::Value) -> String {
    let text = |key: &str| {
        line.get(key)
            .and_then(|value| value.as_str())
            .unwrap_or("-")
    };
    let endpoint = |side: &str| {
        let ip = text(&format!("{side}_ip"));
        match line
            .get(format!("{side}_port"))
            .and_then(|port| port.as_u64())
        {
            Some(port) if ip.contains(':') => format!("[{ip}]:{port}"),
            Some(port) => format!("{ip}:{port}"),
            None => ip.to_owned(),
        }
    };
    let arrow = if text("direction") == "outbound" {
        "->"
    } else {
        "<-"
    };
    let protocol = match line.get("protocol") {
        Some(serde_json::Value::String(name)) => name.clone(),
        Some(number) => number.to_string(),
        None => "-".into(),
    };
    let indicator = line.get("indicator").unwrap_or(&serde_json::Value::Null);
    let of_indicator = |key: &str| indicator.get(key).and_then(|value| value.as_str());
    let feeds = indicator
        .get("feeds")
        .and_then(|feeds| feeds.as_array())
        .map(|feeds| {
            feeds
                .iter()
                .filter_map(|feed| feed.as_str())
                .collect::<Vec<_>>()
                .join(",")
        })
        .unwrap_or_default();
    let malware = of_indicator("malware").map_or_else(String::new, |name| format!(" {name}"));
    let tunnel = match line.get("tunnel").and_then(|tunnel| tunnel.as_str()) {
        Some(tunnel) => format!(
            "  in {tunnel} {} -> {}",
            text("outer_source_ip"),
            text("outer_destination_ip")
        ),
        None => String::new(),
    };
    let line = format!(
        "{} {} {protocol} {} {arrow} {}{tunnel}  [{feeds}: {}{malware}]",
        text("time"),
        text("interface"),
        endpoint("subscriber"),
        endpoint("remote"),
        of_indicator("value").unwrap_or("-"),
    );
    // Names come from feeds: none may steer the terminal.
    line.replace(char::is_control, "\u{fffd}")
}

/// RFC 3339 with nanoseconds, always nine digits, always UTC.
pub fn time_text(time: Timestamp) -> String {
    format!("{time:.9}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_a_person_cannot_steer_the_terminal() {
        let line = serde_json::json!({
            "time": "2026-11-22T01:02:03.000000004Z", "interface": "eth0",
            "direction": "outbound", "protocol": "tcp",
            "subscriber_ip": "2001:db8::7", "subscriber_port": 51413,
            "remote_ip": "198.51.100.23", "remote_port": null,
            "indicator": {"value": "198.51.100.23", "feeds": ["feodo"], "malware": "a\u{1b}[2Jb"},
        });
        assert_eq!(
            line_text(&line),
            "2026-11-22T01:02:03.000000004Z eth0 tcp [2001:db8::7]:51413 -> 198.51.100.23  \
             [feodo: 198.51.100.23 a\u{fffd}[2Jb]"
        );
    }
}
