//! Who is who: subscribers by what happens to them, servers by what the lists
//! say of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use jiff::{Timestamp, ToSpan};

use super::Feed;

/// A subscriber's device.
#[derive(Copy, Clone, Debug)]
pub(super) struct Host {
    pub(super) ip: IpAddr,
    pub(super) tags: Tags,
    /// Consents to detection.
    pub(super) consents: bool,
}

/// VLAN tags on the subscriber's packets, both ways.
#[derive(Copy, Clone, Debug)]
pub(super) enum Tags {
    None,
    One(u16),
    /// 802.1ad outside, 802.1Q inside.
    Two(u16, u16),
}

/// A server and the port that it is called on; `None`: on any.
#[derive(Copy, Clone, Debug)]
pub(super) struct Server {
    pub(super) ip: IpAddr,
    pub(super) port: Option<u16>,
}

/// Subscribers by what happens to them.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) clean: Vec<Host>,
    pub(super) answered: Vec<Host>,
    /// Infected; opted out of a purpose, but not of detection.
    pub(super) other_purpose: Vec<Host>,
    pub(super) unanswered: Vec<Host>,
    pub(super) forged: Vec<Host>,
    /// Infected; opted out, IPv4 by address.
    pub(super) opted_out: Vec<Host>,
    /// Infected or not; opted out as a range.
    pub(super) opted_out_range: Vec<Host>,
    pub(super) neighbour: Vec<Host>,
    pub(super) other_port: Vec<Host>,
    pub(super) not_valid: Vec<Host>,
}

const OPTED_OUT_RANGE: &str = "198.18.200.0/24";

/// 198.18.0.0/16 and 2001:db8:1000::/36.
pub(super) fn subscriber_space() -> Vec<IpNet> {
    vec![
        IpNet::new_assert(Ipv4Addr::new(198, 18, 0, 0).into(), 16),
        IpNet::new_assert(
            Ipv6Addr::new(0x2001, 0xdb8, 0x1000, 0, 0, 0, 0, 0).into(),
            36,
        ),
    ]
}

/// Gives every host an address of its own.
#[derive(Default)]
struct Hosts {
    v4: u16,
    v6: u16,
}

impl Hosts {
    fn take(&mut self, v4: u16, v6: u16, consents: bool) -> Vec<Host> {
        let first_v4 = self.v4;
        let first_v6 = self.v6;
        self.v4 += v4;
        self.v6 += v6;
        let host = |number: u16, ip: IpAddr| Host {
            ip,
            tags: match number % 8 {
                1 | 5 => Tags::One(100 + number % 50),
                7 => Tags::Two(200, 1 + number % 4000),
                _ => Tags::None,
            },
            consents,
        };
        let v4 = (first_v4..self.v4).map(|number| {
            let ip = Ipv4Addr::new(198, 18, (10 + number / 200) as u8, (1 + number % 200) as u8);
            host(number, ip.into())
        });
        // Each in a /56 of its own.
        let v6 = (first_v6..self.v6).map(|number| {
            let delegated = (number & 0xff) << 8;
            let ip = Ipv6Addr::new(
                0x2001,
                0xdb8,
                0x1000 + (number >> 8),
                delegated,
                0,
                0,
                0,
                0x100 + number,
            );
            host(number, ip.into())
        });
        v4.chain(v6).collect()
    }
}

impl Plan {
    pub(super) fn new() -> Self {
        let mut hosts = Hosts::default();
        Self {
            clean: hosts.take(300, 120, true),
            answered: hosts.take(28, 12, true),
            other_purpose: hosts.take(2, 1, true),
            unanswered: hosts.take(4, 2, true),
            forged: hosts.take(8, 4, true),
            opted_out: hosts.take(6, 5, false),
            opted_out_range: (1..=10)
                .map(|last| Host {
                    ip: Ipv4Addr::new(198, 18, 200, last * 7).into(),
                    tags: Tags::None,
                    consents: false,
                })
                .collect(),
            neighbour: hosts.take(12, 4, true),
            other_port: hosts.take(8, 4, true),
            not_valid: hosts.take(6, 3, true),
        }
    }

    /// Everyone, for legitimate traffic.
    pub(super) fn everyone(&self) -> Vec<Host> {
        [
            &self.clean,
            &self.answered,
            &self.other_purpose,
            &self.unanswered,
            &self.forged,
            &self.opted_out,
            &self.opted_out_range,
            &self.neighbour,
            &self.other_port,
            &self.not_valid,
        ]
        .into_iter()
        .flatten()
        .copied()
        .collect()
    }

    /// The C&C lists as they are published on the day of `start`.
    pub(super) fn feeds(&self, start: Timestamp) -> Vec<Feed> {
        let days = |days: i64| start + (24 * days).hours();
        let feed = |format, file_name, text| Feed {
            format,
            file_name,
            text,
        };
        vec![
            feed("feodo-csv", "feodo.csv", feodo(start, days(-40))),
            feed("spamhaus-drop", "drop_v4.json", drop(start, &DROP_V4)),
            feed("spamhaus-drop", "drop_v6.json", drop(start, &DROP_V6)),
            feed("plain", "own.txt", plain(days(-30), days(30))),
        ]
    }

    pub(super) fn opt_out_list(&self) -> String {
        let mut list = format!(
            "# Subscribers who opted out.\n\
             {OPTED_OUT_RANGE}          # a whole range\n"
        );
        for host in &self.opted_out {
            let line = match host.ip {
                IpAddr::V4(ip) => format!("{ip}\n"),
                // A delegated prefix, every address of it.
                IpAddr::V6(ip) => {
                    let [a, b, c, d, ..] = ip.segments();
                    let delegated = Ipv6Addr::new(a, b, c, d & 0xff00, 0, 0, 0, 0);
                    format!("{delegated}/56  purposes=detect,notify\n")
                }
            };
            list.push_str(&line);
        }
        list.push_str("# These still consent to detection.\n");
        for host in &self.other_purpose {
            list.push_str(&format!("{}  purposes=vulnerable\n", host.ip));
        }
        list
    }
}

/// Feodo Tracker: an address and a port each.
const FEODO: [(Ipv4Addr, u16, &str); 8] = [
    (Ipv4Addr::new(203, 0, 113, 10), 443, "Pikabot"),
    (Ipv4Addr::new(203, 0, 113, 11), 443, "Dridex"),
    (Ipv4Addr::new(203, 0, 113, 12), 2222, "QakBot"),
    (Ipv4Addr::new(203, 0, 113, 13), 995, "QakBot"),
    (Ipv4Addr::new(203, 0, 113, 14), 8080, "Emotet"),
    (Ipv4Addr::new(203, 0, 113, 15), 7080, "Emotet"),
    (Ipv4Addr::new(203, 0, 113, 16), 449, "TrickBot"),
    (Ipv4Addr::new(203, 0, 113, 17), 1194, "Pikabot"),
];

/// Spamhaus DROP: prefixes, every port.
const DROP_V4: [(&str, &str); 2] = [
    ("198.51.100.64/26", "SBL100001"),
    ("203.0.113.128/27", "SBL100002"),
];
const DROP_V6: [(&str, &str); 1] = [("2001:db8:bad0::/48", "SBL100003")];

const PLAIN_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 200);
const PLAIN_V4_PORT: (Ipv4Addr, u16) = (Ipv4Addr::new(203, 0, 113, 201), 8443);
const PLAIN_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc2, 0, 0, 0, 0, 7);
const PLAIN_V6_PORT: (Ipv6Addr, u16) = (Ipv6Addr::new(0x2001, 0xdb8, 0xc2, 0, 0, 0, 0, 8), 4443);
const EXPIRED_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 220);
const EXPIRED_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc2, 0, 0, 0, 0, 0xe);
const FUTURE_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 221);
/// A port that no entry names.
const UNLISTED_PORT: u16 = 8081;

fn feodo(start: Timestamp, first_seen: Timestamp) -> String {
    let rule = "#".repeat(64);
    let mut text = format!(
        "{rule}\n\
         # Feodo Tracker Botnet C2 IP Blocklist (layout only: made up)  #\n\
         # Last updated: {} UTC                       #\n\
         {rule}\n\
         \"first_seen_utc\",\"dst_ip\",\"dst_port\",\"c2_status\",\"last_online\",\"malware\"\n",
        start.strftime("%Y-%m-%d %H:%M:%S")
    );
    for (ip, port, malware) in FEODO {
        text.push_str(&format!(
            "\"{}\",\"{ip}\",\"{port}\",\"online\",\"{}\",\"{malware}\"\n",
            first_seen.strftime("%Y-%m-%d %H:%M:%S"),
            start.strftime("%Y-%m-%d"),
        ));
    }
    text.push_str(&format!("# END {} entries\n", FEODO.len()));
    text
}

fn drop(start: Timestamp, prefixes: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (cidr, sblid) in prefixes {
        text.push_str(&format!(
            "{{\"cidr\":\"{cidr}\",\"sblid\":\"{sblid}\",\"rir\":\"apnic\"}}\n"
        ));
    }
    text.push_str(&format!(
        "{{\"type\":\"metadata\",\"timestamp\":{},\"size\":{},\"records\":{},\
         \"copyright\":\"made up\",\"terms\":\"none\"}}\n",
        start.as_second(),
        text.len(),
        prefixes.len()
    ));
    text
}

fn plain(past: Timestamp, future: Timestamp) -> String {
    let (v4, v4_port) = PLAIN_V4_PORT;
    let (v6, v6_port) = PLAIN_V6_PORT;
    // Two of the entries lie inside others: an address matches when any entry
    // that covers it does (design decision 5).
    let (covered, ..) = FEODO[0];
    format!(
        "# Own findings.\n\
         {PLAIN_V4}\n\
         {v4}:{v4_port}\n\
         {PLAIN_V6}\n\
         [{v6}]:{v6_port}\n\
         198.51.100.70:8443\n\
         {EXPIRED_V4} until={past}\n\
         {EXPIRED_V6} until={past}\n\
         {covered} until={past}   ; its port is listed elsewhere, and still valid\n\
         {FUTURE_V4} from={future}\n"
    )
}

impl Server {
    fn new(ip: impl Into<IpAddr>, port: Option<u16>) -> Self {
        Self {
            ip: ip.into(),
            port,
        }
    }

    /// C&C servers on the lists.
    pub(super) fn listed() -> Vec<Self> {
        let feodo = FEODO.map(|(ip, port, _)| Self::new(ip, Some(port)));
        let dropped = [64, 70, 100, 127].map(|last| Self::new([198, 51, 100, last], None));
        let others = [
            Self::new([203, 0, 113, 128], None),
            Self::new([203, 0, 113, 159], None),
            Self::new(PLAIN_V4, None),
            Self::new(PLAIN_V4_PORT.0, Some(PLAIN_V4_PORT.1)),
            Self::new([0x2001, 0xdb8, 0xbad0, 0, 0, 0, 0, 1], None),
            Self::new([0x2001, 0xdb8, 0xbad0, 0xffff, 1, 2, 3, 4], None),
            Self::new(PLAIN_V6, None),
            Self::new(PLAIN_V6_PORT.0, Some(PLAIN_V6_PORT.1)),
        ];
        [&feodo[..], &dropped, &others].concat()
    }

    /// Right beside those: the addresses before and after a listed prefix, and
    /// others of the same /24 or /48.
    pub(super) fn neighbours() -> Vec<Self> {
        [
            Self::new([203, 0, 113, 9], None),
            Self::new([203, 0, 113, 18], None),
            Self::new([203, 0, 113, 127], None),
            Self::new([203, 0, 113, 160], None),
            Self::new([203, 0, 113, 199], None),
            Self::new([198, 51, 100, 63], None),
            Self::new([198, 51, 100, 128], None),
            Self::new([0x2001, 0xdb8, 0xbacf, 0xffff, 0, 0, 0, 1], None),
            Self::new([0x2001, 0xdb8, 0xbad1, 0, 0, 0, 0, 1], None),
            Self::new([0x2001, 0xdb8, 0xc2, 0, 0, 0, 0, 6], None),
        ]
        .to_vec()
    }

    /// Listed addresses, called on a port that the list does not name.
    pub(super) fn on_other_ports() -> Vec<Self> {
        let listed = Self::listed().into_iter().filter(|it| it.port.is_some());
        listed
            .map(|it| Self::new(it.ip, Some(UNLISTED_PORT)))
            .collect()
    }

    /// Listed, but no longer, or not yet.
    pub(super) fn not_valid() -> Vec<Self> {
        vec![
            Self::new(EXPIRED_V4, None),
            Self::new(EXPIRED_V6, None),
            Self::new(FUTURE_V4, None),
        ]
    }

    /// On no list: the Internet at large.
    pub(super) fn ordinary() -> Vec<Self> {
        let ports = [443, 443, 443, 80, 53, 123, 8080, 993];
        (0..320_u16)
            .map(|number| {
                let port = Some(ports[usize::from(number) % ports.len()]);
                match number % 3 {
                    0 => Self::new([0x2001, 0xdb8, 0x2000 + number, 0, 0, 0, 0, 0x443], port),
                    1 => Self::new([192, 0, 2, 1 + (number / 3) as u8], port),
                    _ => Self::new([198, 19, number as u8, 9], port),
                }
            })
            .collect()
    }
}
