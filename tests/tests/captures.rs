//! Captures that nobody here made, through the programs in the kernel: every
//! packet comes to an end, and matching sees what the parser sees. What
//! Wireshark sees of them, `cargo xtask oracle` asks.
//!
//! The captures are no part of the repository: those of tcpdump's own tests
//! in the folder `tcpdump` of `MATCHER_PCAPS`, or beside the workspace.

use std::{env, fs, path::PathBuf};

use matcher_common::abi::Counter;
use matcher_tests::skip::skip;
use matcher_user::{
    kernel::object::Object,
    replay::{account::ParseAccount, dissect, matching},
};
use serde_json::Value;

/// With everybody a subscriber and every address a C&C address, every packet
/// that is parsed is a hit.
#[test]
fn replay_and_parse_see_the_same_in_every_capture() {
    const TEST: &str = "captures::replay_and_parse_see_the_same_in_every_capture";
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
        vlan_spaces: vec![],
        nat64: vec![],
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
        .map(|line| {
            // Of a tunnel the outermost layer: it is looked up first.
            let keys = ["source", "source_port", "destination", "destination_port"];
            (
                line["capture"].clone(),
                line["packet"].clone(),
                ends(&line["layers"][0], keys),
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
