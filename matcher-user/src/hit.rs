//! One matching packet as the agent sees it: the record that everything after
//! the ring buffer works on. Addresses, ports, protocol, time, and nothing
//! else of the traffic (R3).

use std::{net::IpAddr, sync::Arc};

use jiff::Timestamp;
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
    pub feeds: Vec<String>,
    /// Malware family, where a feed names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub malware: Option<String>,
    /// 0-100, where a feed gives one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<u8>,
}

/// A packet between a consenting subscriber and a C&C address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// When the kernel saw the packet, in wall-clock time.
    pub time: Timestamp,
    /// Interface it came in on; `None` in replay.
    pub interface: Option<Arc<str>>,
    /// Who sent it.
    pub direction: Direction,
    /// Transport protocol.
    pub protocol: Protocol,
    /// The subscriber's end.
    pub subscriber: Endpoint,
    /// The other end, which the indicator covers.
    pub remote: Endpoint,
    /// What matched.
    pub indicator: Arc<IndicatorSummary>,
    /// Packets this record stands for (more than 1 once the kernel folds).
    pub packets: u32,
    /// Sequence number from the kernel, which counts per CPU: a gap among the
    /// hits of one CPU is a lost hit. In replay, the hits of that replay.
    pub sequence: u64,
    /// The interface is one where a subscriber's address cannot be forged
    /// (design decision 8).
    pub source_validated: bool,
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
            tunnel: Option<&'a str>,
            packets: u32,
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
            tunnel: None,
            packets: self.packets,
            sequence: self.sequence,
        }
        .serialize(serializer)
    }
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
    let line = format!(
        "{} {} {protocol} {} {arrow} {}  [{feeds}: {}{malware}]",
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
