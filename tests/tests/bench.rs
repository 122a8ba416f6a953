//! The benchmark runs, and its report has the shape that other programs read.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use matcher_tests::skip::skip;
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
        .arg(json);
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
    assert_eq!(report["version"], 1);
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
    assert_eq!(programs, ["empty", "parse-min", "parse", "matcher"]);

    let rows: Vec<String> = report["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let name = |field: &str| row[field].as_str().unwrap_or("-").to_owned();
            let packets = row["packets"].as_u64().unwrap();
            assert!(packets > 0, "{row}");
            assert!(row["ns"]["median"].as_f64().unwrap() > 0.0, "{row}");
            if row["program"] == "matcher" {
                assert_eq!(row["exits"], packets, "{row}");
                let looked_up = matches!(name("traffic").as_str(), "miss" | "hit");
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
            [
                "empty 0 miss -",
                "parse-min 0 miss -",
                "parse 0 miss -",
                "matcher 1000 miss no-match",
                "matcher 1000 hit matched",
                "matcher 1000 transit transit",
                "matcher 1000 opted-out opted-out",
            ]
            .map(|row| format!("{family} {row}"))
        })
        .collect();
    assert_eq!(rows, expected);

    let lists = report["lists"].as_array().unwrap();
    assert_eq!(lists.len(), 2);
    for list in lists {
        for step in ["parse_ms", "merge_ms", "compile_ms", "load_ms"] {
            assert!(list[step].as_f64().unwrap() >= 0.0, "{list}");
        }
    }
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
