//! The benchmark runs, and its report has the shape that other programs read.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use matcher_tests::skip::skip;
use matcher_user::feeds::Format;
use serde_json::Value;

/// The objects that the agent was built with: both, or the benchmark cannot
/// run.
fn objects() -> (PathBuf, PathBuf) {
    let object = env::var_os("MATCHER_EBPF_OBJECT").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/matcher.o"),
        PathBuf::from,
    );
    let baselines = object.with_file_name("baselines.o");
    (object, baselines)
}

/// Why the benchmark cannot run here.
fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("running programs in the kernel needs root".to_owned());
    }
    let (_, baselines) = objects();
    (!baselines.is_file()).then(|| format!("there is no {}", baselines.display()))
}

fn skipped(test: &str) -> bool {
    let Some(reason) = obstacle() else {
        return false;
    };
    skip(test, &reason);
    true
}

fn bench(baselines: &Path, json: &Path) -> Command {
    let (object, _) = objects();
    let mut bench = Command::new(env!("CARGO_BIN_EXE_bench"));
    bench
        .arg("--quick")
        .arg("--object")
        .arg(object)
        .arg("--baselines")
        .arg(baselines)
        .arg("--json")
        .arg(json)
        .arg("--chart")
        .arg(json.with_extension("svg"));
    bench
}

#[test]
fn every_packet_of_every_row_is_decided_as_the_row_says() {
    if skipped("every_packet_of_every_row_is_decided_as_the_row_says") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bench.json");
    let output = bench(&objects().1, &path).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(text.contains("its figures mean nothing"), "{text}");

    let report: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(report["version"], 2);
    assert_eq!(report["quick"], true);
    for field in ["date", "compiler"] {
        assert!(report[field].is_string(), "{field}: {report}");
    }
    assert!(report["machine"]["kernel"].is_string(), "{report}");
    let programs: Vec<&str> = report["programs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|program| {
            assert!(program["verified_instructions"].as_u64().unwrap() > 1);
            program["program"].as_str().unwrap()
        })
        .collect();
    assert_eq!(
        programs,
        [
            "empty",
            "parse-min",
            "plain-tries",
            "hash-map",
            "parse",
            "matcher"
        ]
    );

    let rows: Vec<String> = report["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let name = |field: &str| row[field].as_str().unwrap_or("-").to_owned();
            let packets = row["packets"].as_u64().unwrap();
            assert!(packets > 0, "{row}");
            assert!(row["ns"]["median"].as_f64().unwrap() > 0.0, "{row}");
            for paired in ["empty_ns", "parse_min_ns"] {
                let rounds = row[paired].as_array().unwrap();
                assert_eq!(rounds.len(), row["rounds_ns"].as_array().unwrap().len());
            }
            if row["program"].as_str().unwrap().starts_with("matcher") {
                assert_eq!(row["exits"], packets, "{row}");
            }
            if row["prefixes"].is_u64() {
                let looked_up = !matches!(name("traffic").as_str(), "transit" | "opted-out");
                let lookups = if looked_up { packets } else { 0 };
                assert_eq!(row["lookups"], lookups, "{row}");
            }
            let prefixes = row["prefixes"].as_u64().unwrap_or(0);
            format!(
                "{} {} {prefixes} {} {}",
                name("family"),
                name("program"),
                name("traffic"),
                name("exit")
            )
        })
        .collect();
    let expected: Vec<String> = ["ipv4", "ipv6"]
        .iter()
        .flat_map(|family| {
            let listed = ["miss no-match", "hit matched", "near-miss no-match"];
            let popular = ["hot-set no-match", "zipf no-match"];
            let mut rows = ["empty 0 miss -", "parse-min 0 miss -", "parse 0 miss -"]
                .map(str::to_owned)
                .to_vec();
            for traffic in listed.into_iter().chain(popular) {
                let (traffic, exit) = traffic.split_once(' ').unwrap();
                rows.push(format!("matcher 1000 {traffic} {exit}"));
                for reference in ["plain-tries", "hash-map"] {
                    rows.push(format!("{reference} 1000 {traffic} -"));
                }
            }
            for row in ["flood matched", "transit transit", "opted-out opted-out"] {
                rows.push(format!("matcher 1000 {row}"));
            }
            if thread::available_parallelism().unwrap().get() > 1 {
                for row in ["miss no-match", "hit matched"] {
                    rows.push(format!("matcher-swap 1000 {row}"));
                }
            }
            rows.into_iter().map(move |row| format!("{family} {row}"))
        })
        .collect();
    assert_eq!(rows, expected);

    let lists = report["lists"].as_array().unwrap();
    assert_eq!(lists.len(), 2);
    for list in lists {
        for step in [
            "read_ms",
            "parse_ms",
            "merge_ms",
            "compile_ms",
            "kernel_ms",
            "total_ms",
            "plain_trie_ms",
        ] {
            assert!(list[step]["median"].as_f64().unwrap() >= 0.0, "{list}");
        }
        assert!(list["peak_bytes"].as_u64().unwrap() > 1 << 20, "{list}");
        let maps = list["maps"].as_object().unwrap();
        let told: u64 = maps.values().map(|bytes| bytes.as_u64().unwrap()).sum();
        assert!(
            told > 0 && told <= list["maps_bytes"].as_u64().unwrap(),
            "{list}"
        );
    }

    let feeds = report["feeds"].as_array().unwrap();
    assert_eq!(feeds.len(), Format::ALL.len());
    for feed in feeds {
        let rate = feed["entries_per_second"]["median"].as_f64().unwrap();
        assert!(rate > 0.0 && feed["entries"] == 1_000, "{feed}");
        assert!(feed["peak_bytes"].as_u64().unwrap() > 1 << 20, "{feed}");
    }

    let drains = report["drain"].as_array().unwrap();
    if thread::available_parallelism().unwrap().get() > 1 {
        let readers: Vec<&str> = drains
            .iter()
            .map(|drained| drained["reader"].as_str().unwrap())
            .collect();
        assert_eq!(
            readers,
            [
                "bare ring",
                "matcher, bare",
                "matcher, events",
                "matcher, hits"
            ]
        );
    }
    for drained in drains {
        for run in ["fates", "overload"] {
            let number = |fate: &str| drained[run][fate].as_u64().unwrap();
            assert_eq!(
                number("matched"),
                number("delivered") + number("folded") + number("lost"),
                "{drained}"
            );
            assert_eq!(number("read"), number("delivered"), "{drained}");
        }
        assert!(
            drained["overload"]["lost"].as_u64().unwrap() > 0,
            "{drained}"
        );
    }

    for aim in report["aims"].as_array().unwrap() {
        let reached = aim["measured"].as_f64().map(|measured| {
            let limit = aim["limit"].as_f64().unwrap();
            match aim["bound"].as_str().unwrap() {
                "at most" => measured <= limit,
                _ => measured >= limit,
            }
        });
        assert_eq!(aim["reached"].as_bool(), reached, "{aim}");
    }

    // Every candidate is there or is named with the reason why not.
    let names = |field: &str| -> Vec<String> {
        let list = report[field].as_array().unwrap();
        list.iter()
            .map(|one| one["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let (forwarded, missing) = (names("forwarding"), names("missing"));
    for name in [
        "pass-only",
        "matcher",
        "plain-tries",
        "nft-hash",
        "nft-interval",
        "iptables",
        "ipset",
        "xdp-filter",
    ] {
        let is = |names: &[String]| names.iter().any(|one| one == name);
        assert!(is(&forwarded) != is(&missing), "{name}: {report}");
    }
    for one in report["forwarding"].as_array().unwrap() {
        let rate = one["packets_per_second"]["median"].as_f64().unwrap();
        assert!(rate > 0.0, "{one}");
    }

    if forwarded.is_empty() {
        assert!(report["opt_outs"].is_null(), "{report}");
    } else if thread::available_parallelism().unwrap().get() > 1 {
        let ms = |of: &str| report["opt_outs"][of]["median"].as_f64().unwrap();
        let (in_force, answered) = (ms("in_force_ms"), ms("answered_ms"));
        // 0: before the counter was looked at again. Ten looks, as the benchmark grants.
        let bounds = 0.0..=answered + 10.0;
        assert!(answered > 0.0 && bounds.contains(&in_force), "{report}");
    }

    let chart = fs::read_to_string(path.with_extension("svg")).unwrap();
    assert!(
        chart.starts_with("<svg") && chart.ends_with("</svg>\n"),
        "{chart}"
    );
    assert!(chart.contains("THE FIGURES MEAN NOTHING"), "{chart}");
}

#[test]
fn an_object_without_the_baselines_is_refused_by_name() {
    if skipped("an_object_without_the_baselines_is_refused_by_name") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (object, _) = objects();
    let output = bench(&object, &folder.path().join("bench.json"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("matcher.o"), "{said}");
}
