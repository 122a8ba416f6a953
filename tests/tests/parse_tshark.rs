//! Captures that nobody here made, through the programs in the kernel: every
//! packet comes to an end, and Wireshark sees the same addresses and ports.
//!
//! The captures are no part of the repository: those of tcpdump's own tests
//! in the folder `tcpdump` of `MATCHER_PCAPS`, or beside the workspace.

use std::{
    collections::{BTreeMap, HashMap},
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use matcher_common::abi::Counter;
use matcher_tests::skip::skip;
use matcher_user::{
    capture::Capture,
    kernel::object::Object,
    replay::{account::ParseAccount, dissect, matching},
};
use serde_json::Value;

/// Where we see another thing than Wireshark, and are right.
const EXPLAINED: [Explained; 7] = [
    Explained {
        capture: "LINKTYPE_IPV4_invalid.pcap",
        packet: 1,
        why: "An IPv6 packet under a link type for IPv4, which Wireshark shows as IPv6 inside \
              IPv4. RFC 8200 section 3: \"Version: 4-bit Internet Protocol version number = 6\": \
              we read it as what it says that it is.",
    },
    Explained {
        capture: "LINKTYPE_IPV6_invalid.pcap",
        packet: 1,
        why: "An IPv4 packet under a link type for IPv6, which Wireshark does not read. RFC 791 \
              section 3.1: \"The Version field indicates the format of the internet header\": we \
              read it as what it says that it is.",
    },
    Explained {
        capture: "bigtcp-ipv6.pcap",
        packet: 1,
        why: BIG_TCP,
    },
    Explained {
        capture: "bigtcp-ipv6-geneve-ipv4.pcap",
        packet: 1,
        why: BIG_TCP,
    },
    Explained {
        capture: "bigtcp-ipv6-geneve-ipv6.pcap",
        packet: 1,
        why: BIG_TCP,
    },
    Explained {
        capture: "bigtcp-ipv6-vxlan-ipv4.pcap",
        packet: 1,
        why: BIG_TCP,
    },
    Explained {
        capture: "bigtcp-ipv6-vxlan-ipv6.pcap",
        packet: 1,
        why: BIG_TCP,
    },
];

const BIG_TCP: &str = "Payload length 0 without a jumbo payload option: Linux leaves the \
    segmentation of more than 65,535 bytes to the NIC (\"BIG TCP\"). RFC 2675 section 3: \"The \
    Payload Length field in the IPv6 header must be set to zero in every packet that carries the \
    Jumbo Payload option\", so 0 never says that there is no payload. Wireshark takes it as empty \
    and shows no ports.";

struct Explained {
    capture: &'static str,
    packet: u64,
    why: &'static str,
}

#[test]
fn wireshark_sees_the_same_addresses_and_ports() {
    const TEST: &str = "parse_tshark::wireshark_sees_the_same_addresses_and_ports";
    let Some(captures) = captures_or_skip(TEST) else {
        return;
    };
    for tool in ["tshark", "mergecap"] {
        if Command::new(tool).arg("-v").output().is_err() {
            skip(TEST, &format!("{tool} is not installed"));
            return;
        }
    }
    let (lines, _) = parse_all(&captures);
    let judged = wireshark(&captures);

    let mut compared = 0;
    let mut differences: BTreeMap<(String, u64), String> = BTreeMap::new();
    for line in &lines {
        let capture = line["capture"].as_str().unwrap();
        let packet = line["packet"].as_u64().unwrap();
        let judged = &judged[&(capture.into(), packet)];
        compared += u64::from(line["unparsed"].is_null());
        if let Some(difference) = difference(line, judged) {
            let name = Path::new(capture).file_name().unwrap();
            let key = (name.to_str().unwrap().to_owned(), packet);
            differences.insert(key, difference);
        }
    }
    println!("{compared} packets compared, {} differ", differences.len());
    assert!(compared > 1000, "{compared} packets are no test");
    for explained in &EXPLAINED {
        let key = (explained.capture.to_owned(), explained.packet);
        let is_here = captures
            .iter()
            .any(|path| path.ends_with(explained.capture));
        assert!(
            differences.remove(&key).is_some() || !is_here,
            "{key:?} agrees with Wireshark now; it is still explained: {}",
            explained.why
        );
    }
    assert!(differences.is_empty(), "{differences:#?}");
}

/// With everybody a subscriber and every address a C&C address, every packet
/// that is parsed is a hit.
#[test]
fn replay_and_parse_see_the_same_in_every_capture() {
    const TEST: &str = "parse_tshark::replay_and_parse_see_the_same_in_every_capture";
    let Some(captures) = captures_or_skip(TEST) else {
        return;
    };
    let (lines, parsed) = parse_all(&captures);
    assert!(parsed.captured.all_usable());
    let unparsed: u64 = parsed.unparsed.values().sum();
    assert_eq!(
        parsed.parsed + unparsed + parsed.captured.skipped,
        parsed.captured.packets
    );

    let folder = tempfile::tempdir().unwrap();
    let everything = folder.path().join("everything.txt");
    fs::write(&everything, "0.0.0.0/0\n::/0\n").unwrap();
    let request = matching::Request {
        feeds: vec![format!("plain:{}", everything.display()).parse().unwrap()],
        subscribers: "0.0.0.0/0,::/0".parse().unwrap(),
        opt_out: None,
        guards: false,
        json: true,
        captures,
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let account =
        matching::replay(&Object::built_in().unwrap(), &request, &mut out, &mut err).unwrap();
    assert_eq!(account.captured, parsed.captured);
    assert_eq!(account.hits, parsed.parsed);
    for (reason, packets) in &parsed.unparsed {
        assert_eq!(account.get(*reason), *packets, "{reason:?}");
    }
    assert_eq!(account.get(Counter::Lost), 0);

    let ends = |line: &Value, keys: [&str; 4]| keys.map(|key| line[key].clone());
    let hits = json_lines(&out).into_iter().map(|hit| {
        let keys = [
            "subscriber_ip",
            "subscriber_port",
            "remote_ip",
            "remote_port",
        ];
        (
            hit["capture"].clone(),
            hit["packet"].clone(),
            ends(&hit, keys),
        )
    });
    let seen = lines
        .into_iter()
        .filter(|line| line["unparsed"].is_null())
        .map(|mut line| {
            let layer = line["layers"][0].take();
            line["source"] = layer["source"].clone();
            line["destination"] = layer["destination"].clone();
            let keys = ["source", "source_port", "destination", "destination_port"];
            (
                line["capture"].clone(),
                line["packet"].clone(),
                ends(&line, keys),
            )
        });
    assert!(hits.eq(seen));
}

/// The captures, in order; says so when the test has to be skipped.
fn captures_or_skip(test: &str) -> Option<Vec<PathBuf>> {
    if !rustix::process::geteuid().is_root() {
        skip(test, "running packets in the kernel needs root");
        return None;
    }
    let folder = env::var_os("MATCHER_PCAPS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/pcaps")),
        PathBuf::from,
    );
    let folder = folder.join("tcpdump");
    let Ok(entries) = fs::read_dir(&folder) else {
        let reason = format!(
            "there is no folder {}; MATCHER_PCAPS names the one around it",
            folder.display()
        );
        skip(test, &reason);
        return None;
    };
    let mut captures: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let extension = path.extension().and_then(|extension| extension.to_str());
            matches!(extension, Some("pcap" | "pcapng"))
        })
        .collect();
    captures.sort();
    assert!(!captures.is_empty(), "no capture in {}", folder.display());
    Some(captures)
}

/// What `matcher parse --json` says of every packet.
fn parse_all(captures: &[PathBuf]) -> (Vec<Value>, ParseAccount) {
    let request = dissect::Request {
        json: true,
        captures: captures.to_vec(),
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let account =
        dissect::parse(&Object::built_in().unwrap(), &request, &mut out, &mut err).unwrap();
    (json_lines(&out), account)
}

fn json_lines(bytes: &[u8]) -> Vec<Value> {
    std::str::from_utf8(bytes)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Fields asked of tshark: those of the first layer that has them.
const FIELDS: [&str; 13] = [
    "frame.protocols",
    "ip.src",
    "ip.dst",
    "ipv6.src",
    "ipv6.dst",
    "tcp.srcport",
    "tcp.dstport",
    "udp.srcport",
    "udp.dstport",
    "sctp.srcport",
    "sctp.dstport",
    "ip.frag_offset",
    "ipv6.fraghdr.offset",
];

type Fields = HashMap<&'static str, String>;

/// What Wireshark says of every packet, by capture and number. All captures
/// are put behind one another first (with their link types), since starting
/// tshark takes longer than reading them.
fn wireshark(captures: &[PathBuf]) -> HashMap<(PathBuf, u64), Fields> {
    let folder = tempfile::tempdir().unwrap();
    let merged = folder.path().join("all.pcapng");
    let tool = |name: &str| {
        let mut command = Command::new(name);
        // Not the preferences of whoever runs the test.
        command
            .env("HOME", folder.path())
            .env_remove("XDG_CONFIG_HOME");
        command
    };
    let mut mergecap = tool("mergecap");
    mergecap.args(["-a", "-F", "pcapng", "-w"]).arg(&merged);
    done(mergecap.args(captures).output().unwrap());
    let mut tshark = tool("tshark");
    tshark.args(["-n", "-T", "fields", "-E", "occurrence=f", "-r"]);
    tshark.arg(&merged);
    for preference in [
        "ip.defragment:FALSE",
        "ipv6.defragment:FALSE",
        "tcp.desegment_tcp_streams:FALSE",
    ] {
        tshark.args(["-o", preference]);
    }
    for field in FIELDS {
        tshark.args(["-e", field]);
    }
    let text = done(tshark.output().unwrap());

    let numbers = captures.iter().flat_map(|path| {
        let packets = Capture::open(path).unwrap().filter(Result::is_ok).count() as u64;
        (1..=packets).map(|number| (path.clone(), number))
    });
    let mut rows = text.lines();
    let judged = numbers
        .zip(rows.by_ref())
        .map(|(packet, row)| {
            let fields = FIELDS.into_iter().zip(row.split('\t').map(str::to_owned));
            (packet, fields.collect())
        })
        .collect();
    assert_eq!(rows.next(), None, "Wireshark reads more packets");
    judged
}

fn done(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What differs between our line and Wireshark's fields. The ports that count
/// are those of the header directly above the outermost IP layer: the others
/// belong to packets that it carries or quotes.
fn difference(line: &Value, judged: &Fields) -> Option<String> {
    let layers: Vec<&str> = judged["frame.protocols"]
        .split(':')
        .filter(|layer| *layer != "ethertype")
        .collect();
    let ip = layers
        .iter()
        .position(|layer| matches!(*layer, "ip" | "ipv6"));
    let is_vlan = |layer: &&&str| matches!(**layer, "vlan" | "ieee8021ad");
    match line["unparsed"].as_str() {
        // Nor must we say that there is no IP where there is.
        Some("not-ip") => {
            let below = layers.iter().take(ip?);
            return below
                .clone()
                .all(|layer| is_vlan(&layer) || matches!(*layer, "eth" | "raw"))
                .then(|| format!("we say that it is not IP, Wireshark {layers:?}"));
        }
        Some(_) => return None,
        None => {}
    }
    let Some(ip) = ip else {
        return Some(format!("we see IP, Wireshark {layers:?}"));
    };
    let family = layers[ip];
    let is_extension =
        |layer: &&str| *layer == "ah" || (layer.starts_with("ipv6.") && family == "ipv6");
    let mut above = layers[ip + 1..].iter().copied().peekable();
    let mut is_fragmented = family == "ip";
    while let Some(extension) = above.next_if(is_extension) {
        is_fragmented |= extension == "ipv6.fraghdr";
    }
    let field = |name: &str| match judged[name].as_str() {
        "" => Value::Null,
        text => text.into(),
    };
    let port = |side: &str| match above.clone().next() {
        Some(transport @ ("tcp" | "udp" | "sctp")) => judged[&*format!("{transport}.{side}")]
            .parse::<u16>()
            .map_or(Value::Null, Value::from),
        _ => Value::Null,
    };
    let offset = match family {
        "ip" => "ip.frag_offset",
        _ => "ipv6.fraghdr.offset",
    };
    let is_later = is_fragmented && !matches!(judged[offset].as_str(), "" | "0");
    let theirs = [
        ("source", field(&format!("{family}.src"))),
        ("destination", field(&format!("{family}.dst"))),
        ("source port", port("srcport")),
        ("destination port", port("dstport")),
        ("later fragment", is_later.into()),
        (
            "VLAN tags",
            layers[..ip].iter().filter(is_vlan).count().into(),
        ),
    ];
    let layer = &line["layers"][0];
    let ours = [
        layer["source"].clone(),
        layer["destination"].clone(),
        line["source_port"].clone(),
        line["destination_port"].clone(),
        (layer["fragment_offset"] != 0).into(),
        line["vlan_tags"].clone(),
    ];
    let differing: Vec<String> = theirs
        .iter()
        .zip(&ours)
        .filter(|((_, theirs), ours)| theirs != *ours)
        .map(|((what, theirs), ours)| format!("{what}: we {ours}, Wireshark {theirs}"))
        .collect();
    (!differing.is_empty()).then(|| format!("{} ({layers:?})", differing.join("; ")))
}
