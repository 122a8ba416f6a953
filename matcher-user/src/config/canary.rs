//! `[canary]`: a flow of the product's own that proves the way from packet to
//! hit.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;

use super::{
    SubscriberConfig,
    reader::{At, Document, Section},
    sections::{DAY, value},
};

/// The canary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanaryConfig {
    /// Sent so often.
    pub every: Duration,
    /// The subscriber's end; the product puts it into the subscriber space.
    pub subscriber: IpAddr,
    /// The C&C's end, of the same family.
    pub remote: IpAddr,
    /// The C&C's port (UDP).
    pub port: u16,
}

impl Default for CanaryConfig {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(5 * 60),
            subscriber: IpAddr::from([198, 18, 255, 1]),
            remote: IpAddr::from([198, 19, 255, 1]),
            port: 9,
        }
    }
}

/// Ranges that are no one's on the Internet: benchmarks (RFC 2544, RFC 5180)
/// and documentation (RFC 5737, RFC 3849, RFC 9637).
const NOBODYS: &[&str] = &[
    "198.18.0.0/15",
    "192.0.2.0/24",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "2001:2::/48",
    "2001:db8::/32",
    "3fff::/20",
];

/// `None` without the table: the canary takes an address of the subscriber
/// space and a place in the C&C table, and shows in counters, which nobody
/// should meet who did not ask for it.
pub(super) fn canary(
    document: &mut Document<'_>,
    top: &Section<'_>,
    subscribers: &SubscriberConfig,
) -> Option<CanaryConfig> {
    let section = top.table(document, "canary.");
    if section.is_absent() {
        section.finish(document);
        return None;
    }
    let default = CanaryConfig::default();
    let every = section
        .duration(
            document,
            "every",
            ("10s", Duration::from_secs(10)),
            ("24h", DAY),
        )
        .map_or(default.every, value);
    let subscriber = address(document, &section, "subscriber", subscribers);
    let remote = address(document, &section, "remote", subscribers);
    let port = section
        .integer(document, "port", 1, u16::MAX.into())
        .and_then(|port| u16::try_from(port.value).ok())
        .unwrap_or(default.port);
    let at = remote.as_ref().or(subscriber.as_ref()).map(|it| it.offset);
    let config = CanaryConfig {
        every,
        subscriber: subscriber.map_or(default.subscriber, value),
        remote: remote.map_or(default.remote, value),
        port,
    };
    if let Some(at) = at
        && (config.subscriber.is_ipv4() != config.remote.is_ipv4()
            || config.subscriber == config.remote)
    {
        document.diagnostics.error(
            at,
            format!(
                "canary.subscriber ({}) and canary.remote ({}) must be two different \
                 addresses of one family",
                config.subscriber, config.remote
            ),
        );
    }
    section.finish(document);
    Some(config)
}

fn address(
    document: &mut Document<'_>,
    section: &Section<'_>,
    key: &str,
    subscribers: &SubscriberConfig,
) -> Option<At<IpAddr>> {
    let address = section.parsed::<IpAddr>(document, key)?;
    let within = |prefix: &IpNet| prefix.contains(&address.value);
    let nobodys = NOBODYS
        .iter()
        .filter_map(|range| range.parse().ok())
        .any(|range: IpNet| within(&range));
    if !nobodys {
        let message = format!(
            "{key} must be an address that nobody has, from {}",
            NOBODYS.join(", ")
        );
        document.diagnostics.error(address.offset, message);
    } else if let Some(prefix) = subscribers.prefixes.iter().find(|prefix| within(prefix)) {
        let message = format!("{key} lies in {prefix}, which subscribers.prefixes names");
        document.diagnostics.error(address.offset, message);
    }
    Some(address)
}
