//! The packets: conversations between hosts and servers, put in order.

use std::{net::IpAddr, time::Duration};

use super::{
    Expected, Kind, Packet, Side,
    plan::{Host, Plan, Server, Tags},
    random::Random,
};
use crate::frames::{Frame, tcp_flags};

/// How long the scenario takes.
const SPAN: Duration = Duration::from_secs(600);
/// Legitimate conversations.
const ORDINARY: usize = 3_500;
/// Calls of each infected host.
const BEACONS: u32 = 12;
/// Packets from one server's address to one subscriber who never called it.
const FORGED: u32 = 8;

/// Who sends a packet of a conversation.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum From {
    Host,
    Server,
}

/// What a conversation speaks.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Speech {
    Tcp,
    Udp,
    Echo,
    /// One UDP datagram of the host in two IPv4 fragments.
    Fragments,
}

struct Generator {
    random: Random,
    /// Unordered; the time since the start.
    packets: Vec<(Duration, Side, Vec<u8>)>,
    expected: Expected,
}

/// The packets and what must come of them.
pub(super) fn generate(plan: &Plan, seed: u64) -> (Vec<Packet>, Expected) {
    let mut generator = Generator {
        random: Random::new(seed),
        packets: Vec::new(),
        expected: Expected::default(),
    };
    generator.ordinary(plan);
    generator.infected(plan);
    generator.mistakable(plan);
    generator.finish()
}

impl Generator {
    fn ordinary(&mut self, plan: &Plan) {
        let everyone = plan.everyone();
        let servers = Server::ordinary();
        for _ in 0..ORDINARY {
            let host = *self.random.of(&everyone);
            let server = self.server(&servers, &host);
            let speech = match self.random.within(0, 10) {
                0..6 => Speech::Tcp,
                6..9 => Speech::Udp,
                _ => Speech::Echo,
            };
            let at = self.any_time();
            self.conversation(Kind::Legitimate, &host, server, speech, at);
        }
        for number in 0..40 {
            let at = self.any_time();
            // ARP: who has the gateway?
            let mut request = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 198, 18, 0, number];
            request.extend([0, 0, 0, 0, 0, 0, 198, 18, 0, 254]);
            let frame = Frame::ethernet().protocol(0x0806).payload(&request);
            self.put(Kind::Legitimate, at, Side::Access, &frame);
        }
        let listed = Server::listed();
        for _ in 0..100 {
            let server = *self.random.of(&listed);
            let other: IpAddr = match server.ip {
                IpAddr::V4(_) => [192, 0, 2, 250].into(),
                IpAddr::V6(_) => [0x2001, 0xdb8, 0x2000, 0, 0, 0, 0, 0x250].into(),
            };
            let frame = Frame::ethernet()
                .ip(server.ip, other)
                .tcp(server.port.unwrap_or(443), 50_000);
            let at = self.any_time();
            self.put(Kind::Transit, at, Side::Core, &frame);
        }
    }

    fn infected(&mut self, plan: &Plan) {
        let listed = Server::listed();
        for host in plan.answered.iter().chain(&plan.other_purpose) {
            self.expected.candidates.insert(host.ip);
            self.beacons(Kind::Answered, host, &listed);
        }
        // Of the range, every second host is infected.
        let infected_range = plan.opted_out_range.iter().step_by(2);
        for host in plan.opted_out.iter().chain(infected_range) {
            self.beacons(Kind::OptedOut, host, &listed);
        }
        for host in &plan.unanswered {
            let server = self.server(&listed, host);
            for number in 0..BEACONS {
                let at = self.beacon_time(number);
                let frame = self.ports(host, server, Speech::Tcp);
                let frame = frame.packet(From::Host).tcp_with(
                    frame.host_port,
                    frame.server_port,
                    tcp_flags::SYN,
                );
                for attempt in 0..3 {
                    let at = at + Duration::from_secs(attempt);
                    self.exchange(Kind::Unanswered, host, From::Host, at, &frame);
                }
            }
        }
    }

    /// Calls to one server at even intervals, with some jitter.
    fn beacons(&mut self, kind: Kind, host: &Host, servers: &[Server]) {
        let server = self.server(servers, host);
        let speeches: &[Speech] = match (server.port, host.ip) {
            // The entry names a port, which an echo request has not.
            (Some(_), _) => &[Speech::Tcp],
            (None, IpAddr::V4(_)) => &[Speech::Tcp, Speech::Udp, Speech::Echo, Speech::Fragments],
            (None, IpAddr::V6(_)) => &[Speech::Tcp, Speech::Udp, Speech::Echo],
        };
        for number in 0..BEACONS {
            // The first is always a whole conversation.
            let speech = match number {
                0 => Speech::Tcp,
                _ => *self.random.of(speeches),
            };
            let at = self.beacon_time(number);
            self.conversation(kind, host, server, speech, at);
        }
    }

    fn mistakable(&mut self, plan: &Plan) {
        let listed = Server::listed();
        for host in &plan.forged {
            let server = self.server(&listed, host);
            for _ in 0..FORGED {
                let at = self.any_time();
                let ends = self.ports(host, server, Speech::Tcp);
                let flags = *self.random.of(&[
                    tcp_flags::SYN | tcp_flags::ACK,
                    tcp_flags::RST,
                    tcp_flags::PSH | tcp_flags::ACK,
                ]);
                let frame = ends.packet(From::Server);
                let frame = frame.tcp_with(ends.server_port, ends.host_port, flags);
                self.exchange(Kind::Forged, host, From::Server, at, &frame);
            }
        }
        for (kind, hosts, servers) in [
            (Kind::Neighbour, &plan.neighbour, Server::neighbours()),
            (Kind::OtherPort, &plan.other_port, Server::on_other_ports()),
            (Kind::NotValid, &plan.not_valid, Server::not_valid()),
        ] {
            for host in hosts {
                for number in 0..4 {
                    let server = self.server(&servers, host);
                    let at = self.beacon_time(number);
                    self.conversation(kind, host, server, Speech::Tcp, at);
                }
            }
        }
    }

    /// One that speaks the host's family.
    fn server(&mut self, servers: &[Server], host: &Host) -> Server {
        let same: Vec<Server> = servers
            .iter()
            .filter(|server| server.ip.is_ipv4() == host.ip.is_ipv4())
            .copied()
            .collect();
        *self.random.of(&same)
    }

    fn any_time(&mut self) -> Duration {
        Duration::from_nanos(self.random.within(0, SPAN.as_nanos() as u64))
    }

    fn beacon_time(&mut self, number: u32) -> Duration {
        SPAN / BEACONS * number + Duration::from_millis(self.random.within(0, 5_000))
    }

    fn ports(&mut self, host: &Host, server: Server, speech: Speech) -> Ends {
        let any = match speech {
            Speech::Tcp => *self.random.of(&[443, 4444, 8080]),
            _ => *self.random.of(&[53, 4444, 51820]),
        };
        Ends {
            host: *host,
            server: server.ip,
            host_port: self.random.within(1024, 65_536) as u16,
            server_port: server.port.unwrap_or(any),
        }
    }

    fn conversation(
        &mut self,
        kind: Kind,
        host: &Host,
        server: Server,
        speech: Speech,
        at: Duration,
    ) {
        let ends = self.ports(host, server, speech);
        let frames = match speech {
            Speech::Tcp => self.tcp(&ends),
            Speech::Udp => self.udp(&ends),
            Speech::Echo => self.echo(&ends),
            Speech::Fragments => self.fragments(&ends),
        };
        let mut at = at;
        for (from, frame) in frames {
            self.exchange(kind, host, from, at, &frame);
            at += Duration::from_micros(self.random.within(200, 30_000));
        }
    }

    fn tcp(&mut self, ends: &Ends) -> Vec<(From, Frame)> {
        use tcp_flags::{ACK, FIN, PSH, SYN};
        let request = self.random.within(20, 200) as usize;
        let reply = self.random.within(20, 1_000) as usize;
        [
            (From::Host, SYN, 0),
            (From::Server, SYN | ACK, 0),
            (From::Host, ACK, 0),
            (From::Host, PSH | ACK, request),
            (From::Server, PSH | ACK, reply),
            (From::Host, FIN | ACK, 0),
            (From::Server, FIN | ACK, 0),
        ]
        .into_iter()
        .map(|(from, flags, length)| {
            let (source, destination) = ends.ports_of(from);
            let frame = ends.packet(from).tcp_with(source, destination, flags);
            (from, frame.payload(&self.random.bytes(length)))
        })
        .collect()
    }

    fn udp(&mut self, ends: &Ends) -> Vec<(From, Frame)> {
        [From::Host, From::Server]
            .map(|from| {
                let (source, destination) = ends.ports_of(from);
                let length = self.random.within(20, 500) as usize;
                let frame = ends.packet(from).udp(source, destination);
                (from, frame.payload(&self.random.bytes(length)))
            })
            .to_vec()
    }

    fn echo(&mut self, ends: &Ends) -> Vec<(From, Frame)> {
        let payload = self.random.bytes(56);
        [(From::Host, 8, 128), (From::Server, 0, 129)]
            .map(|(from, v4, v6)| {
                let frame = ends.packet(from);
                let frame = match ends.server {
                    IpAddr::V4(_) => frame.icmp(v4, 0),
                    IpAddr::V6(_) => frame.icmpv6(v6, 0),
                };
                (from, frame.payload(&payload))
            })
            .to_vec()
    }

    fn fragments(&mut self, ends: &Ends) -> Vec<(From, Frame)> {
        let id = self.random.next() as u32;
        let (source, destination) = ends.ports_of(From::Host);
        let first = ends.packet(From::Host).fragment(0, true, id);
        let rest = ends.packet(From::Host).fragment(808, false, id);
        vec![
            (
                From::Host,
                first
                    .udp(source, destination)
                    .payload(&self.random.bytes(800)),
            ),
            (
                From::Host,
                rest.protocol(17).payload(&self.random.bytes(100)),
            ),
        ]
    }

    /// Takes up a packet between a subscriber and someone else, and what is
    /// expected of it.
    fn exchange(&mut self, kind: Kind, host: &Host, from: From, at: Duration, frame: &Frame) {
        if !host.consents {
            self.expected.stopped_by_consent += 1;
        }
        if matches!(kind, Kind::Answered | Kind::Unanswered | Kind::Forged) {
            let contacts = self.expected.hits.entry(host.ip).or_default();
            match from {
                From::Host => contacts.outbound += 1,
                From::Server => contacts.inbound += 1,
            }
        }
        let side = match from {
            From::Host => Side::Access,
            From::Server => Side::Core,
        };
        self.put(kind, at, side, frame);
    }

    fn put(&mut self, kind: Kind, at: Duration, side: Side, frame: &Frame) {
        *self.expected.packets.entry(kind).or_default() += 1;
        self.packets.push((at, side, frame.build()));
    }

    fn finish(mut self) -> (Vec<Packet>, Expected) {
        // Stable, so packets of the same moment stay in order.
        self.packets.sort_by_key(|(at, ..)| *at);
        let mut last = Duration::ZERO;
        let packets = self
            .packets
            .into_iter()
            .map(|(at, side, frame)| {
                let delay = at - last;
                last = at;
                Packet { frame, side, delay }
            })
            .collect();
        (packets, self.expected)
    }
}

/// Both ends of a conversation.
struct Ends {
    host: Host,
    server: IpAddr,
    host_port: u16,
    server_port: u16,
}

impl Ends {
    /// Source and destination port.
    fn ports_of(&self, from: From) -> (u16, u16) {
        match from {
            From::Host => (self.host_port, self.server_port),
            From::Server => (self.server_port, self.host_port),
        }
    }

    /// All but the transport.
    fn packet(&self, from: From) -> Frame {
        let frame = match self.host.tags {
            Tags::None => Frame::ethernet(),
            Tags::One(id) => Frame::ethernet().vlan(id),
            Tags::Two(outer, inner) => Frame::ethernet().service_vlan(outer).vlan(inner),
        };
        match from {
            From::Host => frame.ip(self.host.ip, self.server),
            From::Server => frame.ip(self.server, self.host.ip),
        }
    }
}
