use std::net::{Ipv4Addr, Ipv6Addr};

use matcher_user::capture::Capture;

use super::*;
use crate::lab::Lab;

const START: &str = "2026-11-22T01:02:03.456Z";

fn scenario(seed: u64) -> Scenario {
    Scenario::new(seed, START.parse().unwrap())
}

/// An entry of a list, as naively as can be.
struct Entry {
    prefix: IpNet,
    port: Option<u16>,
    from: Option<Timestamp>,
    until: Option<Timestamp>,
}

fn net(text: &str) -> IpNet {
    text.parse()
        .unwrap_or_else(|_| IpNet::from(text.parse::<IpAddr>().unwrap()))
}

fn entries(feeds: &[Feed]) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut add = |prefix, port, from, until| {
        entries.push(Entry {
            prefix,
            port,
            from,
            until,
        });
    };
    for feed in feeds {
        for line in feed.text.lines().filter(|line| !line.starts_with('#')) {
            match feed.format {
                "feodo-csv" => {
                    let fields: Vec<&str> =
                        line.split(',').map(|it| it.trim_matches('"')).collect();
                    if let Ok(port) = fields[2].parse() {
                        add(net(fields[1]), Some(port), None, None);
                    }
                }
                "spamhaus-drop" => {
                    let value: serde_json::Value = serde_json::from_str(line).unwrap();
                    if let Some(cidr) = value.get("cidr") {
                        add(net(cidr.as_str().unwrap()), None, None, None);
                    }
                }
                "plain" => {
                    let line = line.split(';').next().unwrap();
                    let words: Vec<&str> = line.split_whitespace().collect();
                    let option = |key: &str| {
                        let value = words[1..].iter().find_map(|word| word.strip_prefix(key));
                        value.map(|value| value.parse().unwrap())
                    };
                    let (value, port) = match words[0].parse::<std::net::SocketAddr>() {
                        Ok(both) => (both.ip().into(), Some(both.port())),
                        Err(_) => (net(words[0]), None),
                    };
                    add(value, port, option("from="), option("until="));
                }
                other => panic!("unknown format {other}"),
            }
        }
    }
    entries
}

/// Those who do not consent to detection.
fn opted_out(list: &str) -> Vec<IpNet> {
    list.lines()
        .map(|line| line.split('#').next().unwrap())
        .filter(|line| !line.trim().is_empty())
        .filter(|line| !line.contains("purposes=") || line.contains("detect"))
        .map(|line| net(line.split_whitespace().next().unwrap()))
        .collect()
}

/// Addresses and ports of a frame, read by its bytes.
fn ends(frame: &[u8]) -> Option<[(IpAddr, Option<u16>); 2]> {
    let mut at = 12;
    let ethertype = loop {
        match (frame[at], frame[at + 1]) {
            (0x81, 0x00) | (0x88, 0xa8) => at += 4,
            other => break other,
        }
    };
    let packet = &frame[at + 2..];
    let (source, destination, protocol, transport): (IpAddr, IpAddr, u8, &[u8]) = match ethertype {
        (0x08, 0x00) => {
            let address =
                |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
            let offset = u16::from_be_bytes([packet[6] & 0x1f, packet[7]]);
            let protocol = if offset == 0 { packet[9] } else { 0 };
            (
                address(12).into(),
                address(16).into(),
                protocol,
                &packet[20..],
            )
        }
        (0x86, 0xdd) => {
            let address =
                |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap());
            (
                address(8).into(),
                address(24).into(),
                packet[6],
                &packet[40..],
            )
        }
        _ => return None,
    };
    let port = |at: usize| {
        matches!(protocol, 6 | 17).then(|| u16::from_be_bytes([transport[at], transport[at + 1]]))
    };
    Some([(source, port(0)), (destination, port(2))])
}

/// What a scenario must come to, from its packets and lists alone.
fn model(scenario: &Scenario) -> (Expected, u64) {
    let entries = entries(&scenario.feeds);
    let opted_out = opted_out(&scenario.opt_out_list);
    let within = |nets: &[IpNet], ip: IpAddr| nets.iter().any(|net| net.contains(&ip));
    let mut expected = Expected::default();
    let mut opted_out_calls = 0;
    for (time, packet) in scenario.timed() {
        let Some([source, destination]) = ends(&packet.frame) else {
            continue;
        };
        let (host, remote) = match packet.side {
            Side::Access => (source, destination),
            Side::Core => (destination, source),
        };
        assert!(!within(&scenario.subscribers, remote.0), "{remote:?}");
        if !within(&scenario.subscribers, host.0) {
            assert_eq!(packet.side, Side::Core, "{host:?}");
            continue;
        }
        let listed = entries.iter().any(|entry| {
            entry.prefix.contains(&remote.0)
                && (entry.port.is_none() || entry.port == remote.1)
                && entry.from.is_none_or(|from| time >= from)
                && entry.until.is_none_or(|until| time < until)
        });
        if within(&opted_out, host.0) {
            expected.stopped_by_consent += 1;
            opted_out_calls += u64::from(listed);
        } else if listed {
            let contacts = expected.hits.entry(host.0).or_default();
            match packet.side {
                Side::Access => contacts.outbound += 1,
                Side::Core => contacts.inbound += 1,
            }
        }
    }
    for (ip, contacts) in &expected.hits {
        if contacts.outbound > 0 && contacts.inbound > 0 {
            expected.candidates.insert(*ip);
        }
    }
    (expected, opted_out_calls)
}

#[test]
fn what_is_expected_is_what_a_naive_model_finds() {
    for seed in [1, 2, 0xdead_beef] {
        let scenario = scenario(seed);
        let (found, opted_out_calls) = model(&scenario);
        let expected = &scenario.expected;
        assert_eq!(found.hits, expected.hits);
        assert_eq!(found.candidates, expected.candidates);
        assert_eq!(found.stopped_by_consent, expected.stopped_by_consent);
        assert_eq!(opted_out_calls, expected.packets_of(Kind::OptedOut));
        let hits_of = |kind: fn(&Contacts) -> bool| -> u64 {
            let of_kind = found.hits.values().filter(|contacts| kind(contacts));
            of_kind
                .map(|contacts| contacts.outbound + contacts.inbound)
                .sum()
        };
        assert_eq!(
            hits_of(|it| it.outbound > 0 && it.inbound > 0),
            expected.packets_of(Kind::Answered)
        );
        assert_eq!(
            hits_of(|it| it.inbound == 0),
            expected.packets_of(Kind::Unanswered)
        );
        assert_eq!(
            hits_of(|it| it.outbound == 0),
            expected.packets_of(Kind::Forged)
        );
        assert_eq!(
            expected.hit_count(),
            [Kind::Answered, Kind::Unanswered, Kind::Forged]
                .map(|kind| expected.packets_of(kind))
                .iter()
                .sum::<u64>()
        );
        assert_eq!(
            expected.packets.values().sum::<u64>(),
            scenario.packets.len() as u64
        );
    }
}

#[test]
fn there_is_enough_of_everything() {
    let scenario = scenario(1);
    let expected = &scenario.expected;
    println!("{} packets: {:?}", scenario.packets.len(), expected.packets);
    println!("{} stopped by consent", expected.stopped_by_consent);
    assert!((20_000..30_000).contains(&scenario.packets.len()));
    for (kind, least) in [
        (Kind::Legitimate, 10_000),
        (Kind::Transit, 100),
        (Kind::Answered, 2_000),
        (Kind::Unanswered, 200),
        (Kind::Forged, 90),
        (Kind::OptedOut, 800),
        (Kind::Neighbour, 300),
        (Kind::OtherPort, 300),
        (Kind::NotValid, 200),
    ] {
        assert!(expected.packets_of(kind) >= least, "{kind:?}");
    }
    assert!(expected.stopped_by_consent > expected.packets_of(Kind::OptedOut));
    for v4 in [true, false] {
        let of_family = expected.candidates.iter().filter(|ip| ip.is_ipv4() == v4);
        assert!(of_family.count() >= 12);
    }
    let tagged = |ethertype: [u8; 2]| {
        let of_type = scenario
            .packets
            .iter()
            .filter(|it| it.frame[12..14] == ethertype);
        of_type.count()
    };
    assert!(tagged([0x81, 0x00]) > 2_000 && tagged([0x88, 0xa8]) > 1_000);
    let length: Duration = scenario.packets.iter().map(|packet| packet.delay).sum();
    assert!(length <= Duration::from_secs(605), "{length:?}");
}

#[test]
fn a_seed_gives_its_packets_again_and_another_gives_others() {
    assert_eq!(scenario(7).packets, scenario(7).packets);
    assert_eq!(scenario(7).expected, scenario(7).expected);
    assert_ne!(scenario(7).packets, scenario(8).packets);
}

#[test]
fn the_lists_are_in_their_publishers_layouts() {
    let scenario = scenario(1);
    let mut text = String::new();
    for feed in &scenario.feeds {
        text.push_str(&format!(
            "--- {} {}\n{}",
            feed.format, feed.file_name, feed.text
        ));
    }
    text.push_str(&format!("--- opt-out\n{}", scenario.opt_out_list));
    insta::assert_snapshot!(text);
}

#[test]
fn the_files_hold_the_scenario() {
    let scenario = scenario(3);
    let folder = tempfile::tempdir().unwrap();
    let files = scenario.write_into(folder.path()).unwrap();
    let captured: Vec<_> = Capture::open(&files.capture)
        .unwrap()
        .map(|packet| packet.unwrap())
        .collect();
    assert_eq!(captured.len(), scenario.packets.len());
    for (read, (time, packet)) in captured.iter().zip(scenario.timed()) {
        assert_eq!((read.time, &read.data), (time, &packet.frame));
    }
    for ((format, path), feed) in files.feeds.iter().zip(&scenario.feeds) {
        assert_eq!(*format, feed.format);
        assert_eq!(fs::read_to_string(path).unwrap(), feed.text);
    }
    assert_eq!(
        fs::read_to_string(files.opt_out).unwrap(),
        scenario.opt_out_list
    );
    assert_eq!(
        fs::read_to_string(files.subscribers).unwrap(),
        "198.18.0.0/16\n2001:db8:1000::/36\n"
    );
}

#[test]
fn the_wire_takes_all_of_it_each_packet_on_its_side() {
    if let Some(reason) = Lab::obstacle() {
        println!("skipped: {reason}");
        return;
    }
    let scenario = scenario(1);
    let lab = Lab::new("matcher-traffic").unwrap();
    lab.veth("access0", "acc-peer").unwrap();
    lab.veth("core0", "core-peer").unwrap();
    let access = Sender::open(lab.world(), "acc-peer").unwrap();
    let core = Sender::open(lab.world(), "core-peer").unwrap();
    let start = std::time::Instant::now();
    let taken = scenario.send(&access, &core, 1_000_000).unwrap();
    println!("sent in {:?}", start.elapsed());
    assert_eq!(taken, scenario.packets.len() as u64);
    for (interface, side) in [("access0", Side::Access), ("core0", Side::Core)] {
        let of_side = scenario.packets.iter().filter(|packet| packet.side == side);
        assert_eq!(
            lab.edge().counters(interface).unwrap().rx_packets,
            of_side.count() as u64
        );
    }
}
