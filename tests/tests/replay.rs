//! `matcher replay` and `matcher parse`, as the commands call them: captures
//! and lists with known answers, through the real programs in the kernel.

use std::{collections::BTreeMap, fs, net::IpAddr, path::PathBuf};

use jiff::Timestamp;
use matcher_common::abi::Counter;
use matcher_tests::{
    frames::Frame,
    pcap::PcapWriter,
    skip::skip,
    traffic::{Contacts, Kind, Scenario},
};
use matcher_user::{
    kernel::object::Object,
    replay::{ReplayError, account::ReplayAccount, dissect, matching},
};
use serde_json::Value;

/// A folder of lists and captures, and what a replay of them is asked.
struct Case {
    folder: tempfile::TempDir,
    request: matching::Request,
}

/// What a replay gave.
struct Answer {
    result: Result<ReplayAccount, ReplayError>,
    out: String,
    err: String,
}

impl Case {
    /// `None`, with a word about it, where the kernel cannot be asked.
    fn new(test: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skip(
                &format!("replay::{test}"),
                "running packets in the kernel needs root",
            );
            return None;
        }
        Some(Self {
            folder: tempfile::tempdir().unwrap(),
            request: matching::Request {
                feeds: vec![],
                subscribers: "203.0.113.0/24,2001:db8:1::/48".parse().unwrap(),
                vlan_spaces: vec![],
                nat64: vec![],
                opt_out: None,
                guards: true,
                json: false,
                captures: vec![],
            },
        })
    }

    fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, contents).unwrap();
        path
    }

    fn feed(&mut self, format: &str, name: &str, text: &str) {
        let path = self.write(name, text);
        let source = format!("{format}:{}", path.display());
        self.request.feeds.push(source.parse().unwrap());
    }

    fn opt_out(&mut self, text: &str) {
        self.request.opt_out = Some(self.write("opt-out.txt", text));
    }

    fn capture(&mut self, name: &str, packets: &[(&str, Frame)]) {
        let path = self.write(name, pcap(packets));
        self.request.captures.push(path);
    }

    fn replay(&self) -> Answer {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let object = Object::built_in().unwrap();
        let result = matching::replay(&object, &self.request, &mut out, &mut err);
        Answer {
            result,
            out: self.text(out),
            err: self.text(err),
        }
    }

    /// What `matcher parse` writes.
    fn parse(&self, json: bool) -> (String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let request = dissect::Request {
            json,
            captures: self.request.captures.clone(),
        };
        dissect::parse(&Object::built_in().unwrap(), &request, &mut out, &mut err).unwrap();
        (self.text(out), self.text(err))
    }

    /// Output without the folder's name, which is another one each time.
    fn text(&self, bytes: Vec<u8>) -> String {
        let folder = format!("{}/", self.folder.path().display());
        String::from_utf8(bytes).unwrap().replace(&folder, "")
    }
}

fn pcap(packets: &[(&str, Frame)]) -> Vec<u8> {
    let mut writer = PcapWriter::new(Vec::new()).unwrap();
    for (time, frame) in packets {
        writer.write(time.parse().unwrap(), &frame.build()).unwrap();
    }
    writer.finish().unwrap()
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

const SUBSCRIBER: [u8; 4] = [203, 0, 113, 7];
const OTHER_SUBSCRIBER: [u8; 4] = [203, 0, 113, 8];
const LISTED: [u8; 4] = [198, 51, 100, 23];
const UNLISTED: [u8; 4] = [198, 51, 100, 24];
const NOON: &str = "2026-11-22T12:00:00Z";

fn call() -> Frame {
    Frame::ethernet().ipv4(SUBSCRIBER, LISTED).tcp(51413, 443)
}

fn answer() -> Frame {
    Frame::ethernet().ipv4(LISTED, SUBSCRIBER).tcp(443, 51413)
}

/// The folder's part of a place differs in length from run to run; runs of
/// blanks are not what a snapshot is about.
fn squeezed(text: &str) -> String {
    text.lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n")
        .collect()
}

#[test]
fn every_hit_of_an_isps_traffic_is_found_and_nothing_else() {
    let Some(mut case) = Case::new("every_hit_of_an_isps_traffic_is_found_and_nothing_else") else {
        return;
    };
    let scenario = Scenario::new(4711, "2026-11-22T01:02:03Z".parse().unwrap());
    let files = scenario.write_into(case.folder.path()).unwrap();
    case.request.feeds = files
        .feeds
        .iter()
        .map(|(format, path)| format!("{format}:{}", path.display()).parse().unwrap())
        .collect();
    case.request.subscribers = format!("@{}", files.subscribers.display()).parse().unwrap();
    case.request.opt_out = Some(files.opt_out);
    case.request.captures = vec![files.capture];
    case.request.json = true;

    let answer = case.replay();
    let account = answer.result.unwrap();
    let mut hits: BTreeMap<IpAddr, Contacts> = BTreeMap::new();
    let times: Vec<Timestamp> = scenario.timed().map(|(time, _)| time).collect();
    let mut last = 0;
    let lines = json_lines(&answer.out);
    for (number, line) in lines.iter().enumerate() {
        let subscriber = line["subscriber_ip"].as_str().unwrap().parse().unwrap();
        let contacts = hits.entry(subscriber).or_default();
        match line["direction"].as_str().unwrap() {
            "outbound" => contacts.outbound += 1,
            "inbound" => contacts.inbound += 1,
            other => panic!("{other}"),
        }
        let packet = line["packet"].as_u64().unwrap();
        assert!(packet > last, "in capture order, one hit a packet");
        last = packet;
        let time: Timestamp = line["time"].as_str().unwrap().parse().unwrap();
        assert_eq!(time, times[packet as usize - 1]);
        assert_eq!(line["sequence"], number);
        assert_eq!(line["interface"], Value::Null);
        assert_eq!(line["capture"], "traffic.pcap");
    }
    let expected = &scenario.expected;
    assert_eq!(hits, expected.hits);
    assert_eq!(account.hits, expected.hit_count());
    assert_eq!(account.get(Counter::Matched), expected.hit_count());
    assert_eq!(account.get(Counter::OptedOut), expected.stopped_by_consent);
    assert_eq!(
        account.get(Counter::Transit),
        expected.packets_of(Kind::Transit)
    );
    assert_eq!(account.get(Counter::Lost), 0);
    assert_eq!(account.captured.packets, scenario.packets.len() as u64);
    assert!(account.captured.all_usable());
}

#[test]
fn hits_read_well() {
    let Some(mut case) = Case::new("hits_read_well") else {
        return;
    };
    case.feed(
        "plain",
        "own.txt",
        "198.51.100.23:443 proto=tcp malware=Qakbot\n2001:db8:c2::/48\n",
    );
    case.feed(
        "spamhaus-drop",
        "drop.json",
        "{\"cidr\":\"198.51.100.0/24\",\"sblid\":\"SBL1\"}\n",
    );
    let v6 = Frame::ethernet().ipv6(
        "2001:db8:1::7".parse::<std::net::Ipv6Addr>().unwrap(),
        "2001:db8:c2::9".parse::<std::net::Ipv6Addr>().unwrap(),
    );
    case.capture(
        "day.pcap",
        &[
            ("2026-11-22T12:00:00.000000004Z", call()),
            ("2026-11-22T12:00:00.1Z", answer()),
            (
                NOON,
                Frame::ethernet()
                    .vlan(7)
                    .ipv4(SUBSCRIBER, UNLISTED)
                    .icmp(8, 0),
            ),
            (NOON, v6.clone().udp(5353, 53)),
            (NOON, v6.protocol(50).payload(b"secret")),
            (
                NOON,
                Frame::ethernet().ipv4(SUBSCRIBER, [192, 0, 2, 1]).tcp(1, 2),
            ),
            (NOON, Frame::ethernet().ipv4(LISTED, UNLISTED).tcp(1, 2)),
        ],
    );
    let answer = case.replay();
    assert_eq!(answer.result.unwrap().hits, 5);
    insta::assert_snapshot!("hits_text", squeezed(&answer.out));
    insta::assert_snapshot!("hits_account", answer.err);
    // Columns stand below each other, but for addresses of IPv6.
    let arrow = |line: &str| line.find(" -> ").or(line.find(" <- ")).unwrap();
    let lines: Vec<&str> = answer.out.lines().collect();
    assert_eq!(arrow(lines[0]), arrow(lines[1]));
    assert_eq!(arrow(lines[0]), arrow(lines[2]));

    case.request.json = true;
    insta::assert_snapshot!("hits_json", case.replay().out);
}

#[test]
fn the_packets_time_is_the_clock_for_entries_and_opt_outs() {
    let Some(mut case) = Case::new("the_packets_time_is_the_clock_for_entries_and_opt_outs") else {
        return;
    };
    case.feed(
        "plain",
        "own.txt",
        "198.51.100.23 from=2026-03-01T00:00:00Z until=2026-05-01T00:00:00Z\n",
    );
    case.opt_out("203.0.113.7 from=2026-04-01T00:00:00Z\n");
    let other = || Frame::ethernet().ipv4(OTHER_SUBSCRIBER, LISTED).udp(1, 2);
    case.capture(
        "forward.pcap",
        &[
            ("2026-02-28T23:59:59.999999999Z", call()),
            ("2026-03-01T00:00:00Z", call()),           // a hit
            ("2026-03-31T23:59:59.999999999Z", call()), // a hit
            ("2026-04-01T00:00:00Z", call()),
            ("2026-04-01T00:00:00Z", other()),           // a hit
            ("2026-04-30T23:59:59.999999999Z", other()), // a hit
            ("2026-05-01T00:00:00Z", other()),
        ],
    );
    case.capture(
        "backward.pcap",
        &[
            ("2026-06-01T00:00:00Z", call()),
            ("2026-04-15T00:00:00Z", call()),
            ("2026-03-15T00:00:00Z", call()), // a hit
            ("2026-04-15T00:00:00Z", call()),
            ("2026-03-02T00:00:00Z", call()), // a hit
            ("2026-01-01T00:00:00Z", call()),
        ],
    );
    case.request.json = true;
    let answer = case.replay();
    let hits: Vec<String> = json_lines(&answer.out)
        .iter()
        .map(|hit| format!("{}:{}", hit["capture"].as_str().unwrap(), hit["packet"]))
        .collect();
    assert_eq!(
        hits,
        [
            "forward.pcap:2",
            "forward.pcap:3",
            "forward.pcap:5",
            "forward.pcap:6",
            "backward.pcap:3",
            "backward.pcap:5"
        ]
    );
    let account = answer.result.unwrap();
    assert_eq!(account.get(Counter::OptedOut), 4);
    assert_eq!(account.get(Counter::NoMatch), 3);
}

#[test]
fn guards_refuse_what_no_server_can_have_unless_told_not_to() {
    let Some(mut case) = Case::new("guards_refuse_what_no_server_can_have_unless_told_not_to")
    else {
        return;
    };
    case.feed("plain", "own.txt", "198.51.100.23\n10.1.2.3\n203.0.113.8\n");
    case.capture(
        "lab.pcap",
        &[
            (NOON, call()),
            (
                NOON,
                Frame::ethernet().ipv4(SUBSCRIBER, [10, 1, 2, 3]).tcp(1, 2),
            ),
            (
                NOON,
                Frame::ethernet()
                    .ipv4(SUBSCRIBER, OTHER_SUBSCRIBER)
                    .tcp(1, 2),
            ),
        ],
    );
    let guarded = case.replay();
    assert_eq!(guarded.result.unwrap().hits, 1);
    insta::assert_snapshot!("guarded", guarded.err);

    case.request.guards = false;
    let unguarded = case.replay();
    assert_eq!(unguarded.result.unwrap().hits, 3);
    assert!(!unguarded.err.contains("own.txt"), "{}", unguarded.err);

    let mut case = Case::new("").unwrap();
    case.feed("plain", "lab.txt", "10.1.2.3\n");
    case.capture("lab.pcap", &[(NOON, call())]);
    let refused = case.replay();
    let error = refused.result.unwrap_err();
    assert!(
        error.to_string().contains("every entry (1) was refused"),
        "{error}"
    );
    assert!(refused.err.contains("--no-guards"), "{}", refused.err);
}

#[test]
fn what_is_wrong_is_said_and_the_rest_is_used() {
    let Some(mut case) = Case::new("what_is_wrong_is_said_and_the_rest_is_used") else {
        return;
    };
    case.feed(
        "plain",
        "own.txt",
        "198.51.100.23\nevil.example\n198.51.100.0/33\n192.0.2.1\n",
    );
    case.opt_out("203.0.113.7x\n203.0.113.8 # moved\n203.0.113.9 purpose=detect\n");
    let other = || Frame::ethernet().ipv4(OTHER_SUBSCRIBER, LISTED).tcp(1, 2);
    let whole = pcap(&[(NOON, call()), (NOON, other()), (NOON, call())]);
    let cut = case.write("cut.pcap", &whole[..whole.len() - 5]);
    let mut damaged = whole.clone();
    // The length of the second packet.
    damaged[24 + 16 + 54 + 8..][..4].copy_from_slice(&[0xff; 4]);
    let damaged = case.write("damaged.pcap", damaged);
    let mut cooked = whole.clone();
    cooked[20] = 113;
    let cooked = case.write("cooked.pcap", cooked);
    let text = case.write("notes.txt", "no capture");
    let whole = case.write("whole.pcap", whole);
    let missing = case.folder.path().join("missing.pcap");
    case.request.captures = vec![cut, missing, damaged, text, cooked, whole];

    let answer = case.replay();
    let account = answer.result.unwrap();
    assert!(!account.captured.all_usable());
    // cut: the first, not the second (opted out); damaged: the first; whole: two.
    assert_eq!(account.hits, 4);
    insta::assert_snapshot!("wrong_account", answer.err);
    let (_, err) = case.parse(false);
    insta::assert_snapshot!("wrong_parse_account", err);
}

#[test]
fn without_a_readable_opt_out_list_nothing_is_matched() {
    let Some(mut case) = Case::new("without_a_readable_opt_out_list_nothing_is_matched") else {
        return;
    };
    case.feed("plain", "own.txt", "198.51.100.23\n");
    case.capture("day.pcap", &[(NOON, call())]);
    case.request.opt_out = Some(case.folder.path().join("opt-out.txt"));
    let missing = case.replay();
    assert_eq!(missing.out, "");
    case.opt_out("<html>\n<body>\n");
    let unreadable = case.replay();
    assert_eq!(unreadable.out, "");
    let said = |answer: Answer| {
        let error = answer.result.unwrap_err();
        assert!(matches!(error, ReplayError::RefusalsUnknown(_)));
        answer.err + &case.text(error.to_string().into_bytes())
    };
    insta::assert_snapshot!("no_opt_out_list", said(missing) + &said(unreadable));
}

#[test]
fn all_feeds_that_cannot_be_used_are_named() {
    let Some(mut case) = Case::new("all_feeds_that_cannot_be_used_are_named") else {
        return;
    };
    case.feed("plain", "empty.txt", "# nothing\n");
    case.feed("plain", "own.txt", "198.51.100.23\n");
    case.feed("feodo-csv", "page.csv", "<html>\n");
    case.capture("day.pcap", &[(NOON, call())]);
    let answer = case.replay();
    assert_eq!(answer.out, "");
    let error = answer.result.unwrap_err().to_string();
    insta::assert_snapshot!("unusable_feeds", case.text(error.into_bytes()));
}

#[test]
fn frames_of_any_length_come_to_an_end() {
    let Some(mut case) = Case::new("frames_of_any_length_come_to_an_end") else {
        return;
    };
    case.feed("plain", "own.txt", "198.51.100.23\n");
    let lengths: [usize; 12] = [
        0, 1, 13, 14, 54, 1514, 4000, 9014, 65_534, 65_535, 65_536, 200_000,
    ];
    let mut bytes = pcap(&[]);
    for length in lengths {
        let mut frame = call().build();
        // Total length 0: segmentation left to the NIC.
        frame[16..18].fill(0);
        frame.resize(length, 0);
        let length = (length as u32).to_le_bytes();
        bytes.extend([[0; 4], [0; 4], length, length].concat());
        bytes.extend(frame);
    }
    case.request.captures = vec![case.write("lengths.pcap", bytes)];
    case.request.json = true;
    let answer = case.replay();
    let hits: Vec<u64> = json_lines(&answer.out)
        .iter()
        .map(|hit| hit["packet"].as_u64().unwrap())
        .collect();
    assert_eq!(hits, (5..=12).collect::<Vec<_>>());
    let account = answer.result.unwrap();
    assert_eq!(account.get(Counter::TruncatedLink), 3);
    assert_eq!(account.get(Counter::TruncatedIp), 1);

    let lines = json_lines(&case.parse(true).0);
    let by: Vec<&str> = lines
        .iter()
        .map(|line| line["by"].as_str().unwrap())
        .collect();
    let (host, kernel) = ("host", "kernel");
    assert_eq!(
        by,
        [
            host, host, host, kernel, kernel, kernel, kernel, kernel, kernel, kernel, host, host
        ]
    );
    for line in &lines[4..] {
        assert_eq!(line["source_port"], 51413, "{line}");
        assert_eq!(line["unparsed"], Value::Null);
    }
}

#[test]
fn what_the_parser_saw_reads_well() {
    let Some(mut case) = Case::new("what_the_parser_saw_reads_well") else {
        return;
    };
    let (a, b) = (SUBSCRIBER, LISTED);
    let v6 = |address: &str| address.parse::<std::net::Ipv6Addr>().unwrap();
    case.capture(
        "kinds.pcap",
        &[
            (NOON, call()),
            (
                NOON,
                Frame::ethernet()
                    .service_vlan(7)
                    .vlan(8)
                    .ipv6(v6("2001:db8:1::7"), v6("2001:db8:c2::9"))
                    .hop_by_hop(0)
                    .udp(5353, 53),
            ),
            (NOON, Frame::ethernet().ipv4(a, b).icmp(8, 0)),
            (
                NOON,
                Frame::ethernet()
                    .ipv4(a, b)
                    .fragment(1480, false, 1)
                    .udp(1, 2),
            ),
            (
                NOON,
                Frame::ethernet().ipv4(a, b).protocol(50).payload(b"secret"),
            ),
            (NOON, Frame::ethernet().ipv4(a, b).ipv4(b, a).tcp(1, 2)),
            (
                NOON,
                Frame::ethernet()
                    .vlan(1)
                    .vlan(2)
                    .vlan(3)
                    .ipv4(a, b)
                    .tcp(1, 2),
            ),
            (NOON, Frame::ethernet().protocol(0x0806).payload(&[0; 28])),
            (NOON, Frame::default().payload(b"short")),
        ],
    );
    let (text, err) = case.parse(false);
    insta::assert_snapshot!("kinds_text", text);
    insta::assert_snapshot!("kinds_account", err);
    insta::assert_snapshot!("kinds_json", case.parse(true).0);
}
