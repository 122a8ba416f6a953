//! The demo from the outside: what it says of itself, and what it leaves.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use matcher_tests::{lab::Lab, skip::skip};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Whether the test cannot run here; then it says so.
fn skipped(test: &str) -> bool {
    let obstacle = Lab::obstacle();
    if let Some(reason) = &obstacle {
        skip(test, reason);
    }
    obstacle.is_some()
}

/// One at a time: a demo sweeps what another left that was killed.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn demo(options: &[&str]) -> Command {
    assert!(
        env::var_os("MATCHER_BIN").is_some(),
        "MATCHER_BIN must name the `matcher` binary: run `cargo xtask test`"
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command.args(options).stdin(Stdio::null());
    command
}

/// Everything of the demo with this process id that is there.
fn left_of(pid: u32) -> Vec<PathBuf> {
    let temp = env::temp_dir();
    let mut left = Vec::new();
    for folder in ["/run/netns", "/sys/fs/bpf", temp.to_str().unwrap()] {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let own = format!("matcher-demo-{pid}");
            if name == own || name.starts_with(&format!("{own}-")) {
                left.push(path);
            }
        }
    }
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        // A process may end while it is looked at.
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&arguments).contains(&format!("matcher-demo-{pid}/")) {
            left.push(entry.path());
        }
    }
    left
}

fn pins(pid: u32) -> PathBuf {
    Path::new("/sys/fs/bpf").join(format!("matcher-demo-{pid}"))
}

#[test]
fn the_demo_comes_out_as_expected_and_leaves_nothing() {
    if skipped("the_demo_comes_out_as_expected_and_leaves_nothing") {
        return;
    }
    let _alone = alone();
    let kept = tempfile::tempdir().unwrap();
    let folder = kept.path().join("kept");
    let child = demo(&["--json", "--keep", folder.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let done = child.wait_with_output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.success(), "{:?}: {said}", done.status);
    assert_eq!(said, "", "nothing to complain of");
    let account: Value = serde_json::from_slice(&done.stdout).unwrap();
    println!("{account:#}");

    let count = |key: &str| account[key].as_u64().unwrap();
    assert_eq!(account["ok"], true);
    let claims = account["claims"].as_object().unwrap();
    assert_eq!(claims.len(), 8);
    assert!(claims.values().all(|holds| *holds == true));
    assert_eq!(account["modes"], serde_json::json!(["native", "native"]));
    assert!(count("packets_sent") > 20_000);
    assert_eq!(count("packets_seen"), count("packets_sent"));
    assert_eq!(count("hits"), count("hits_matched"));
    assert_eq!(count("hits_lost"), 0);
    assert!(count("hits") > 2_000 && count("candidates") > 40);
    assert!(count("forged_hits") > 90);
    assert!(count("opted_out_passed") > count("opted_out_calls_passed"));
    assert!(count("opted_out_calls_passed") > 800);

    // The files say the same.
    let lines = |name: &str| {
        let text = fs::read_to_string(folder.join(name)).unwrap();
        text.lines().count() as u64
    };
    assert_eq!(lines("hits.jsonl"), count("hits"));
    assert!(lines("candidates.jsonl") >= count("candidates"));
    for name in ["traffic.pcap", "feodo.csv", "opt-out.txt", "agent.log"] {
        assert!(folder.join(name).exists(), "{name}");
    }
    assert_eq!(left_of(pid), Vec::<PathBuf>::new());
}

/// Starts a demo and waits until `far_enough`.
fn started(far_enough: impl Fn(u32) -> bool) -> Child {
    let child = demo(&["--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !far_enough(child.id()) {
        assert!(Instant::now() < deadline, "the demo does not get so far");
        thread::sleep(Duration::from_millis(2));
    }
    child
}

#[test]
fn the_demo_leaves_nothing_when_it_is_interrupted() {
    if skipped("the_demo_leaves_nothing_when_it_is_interrupted") {
        return;
    }
    let _alone = alone();
    // It has begun, is making its namespaces, pins its tables, follows the hits,
    // sends.
    type Point = fn(u32) -> bool;
    let points: [(Signal, Point); 5] = [
        (Signal::INT, |pid| !left_of(pid).is_empty()),
        (Signal::TERM, |pid| {
            Path::new(&format!("/run/netns/matcher-demo-{pid}-0-edge")).exists()
        }),
        (Signal::INT, |pid| pins(pid).exists()),
        (Signal::INT, |pid| {
            left_of(pid)
                .iter()
                .filter(|path| path.starts_with("/proc"))
                .count()
                >= 3
        }),
        (Signal::HUP, |pid| {
            // The store has grown beyond what an empty one is.
            let store = env::temp_dir().join(format!("matcher-demo-{pid}/state/hits.db-wal"));
            fs::metadata(store).is_ok_and(|it| it.len() > 200_000)
        }),
    ];
    for (number, (signal, point)) in points.into_iter().enumerate() {
        let child = started(point);
        let pid = child.id();
        kill_process(Pid::from_child(&child), signal).unwrap();
        let done = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(130), "point {number}: {said}");
        assert_eq!(said, "", "point {number}");
        assert_eq!(left_of(pid), Vec::<PathBuf>::new(), "point {number}");
    }
}

#[test]
fn a_demo_that_was_killed_is_cleaned_up_by_the_next() {
    if skipped("a_demo_that_was_killed_is_cleaned_up_by_the_next") {
        return;
    }
    let _alone = alone();
    let mut killed = started(|pid| pins(pid).join("program").exists());
    let pid = killed.id();
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(!left_of(pid).is_empty());
    // The next sweeps before it makes its own.
    let next = started(|next| !left_of(next).is_empty());
    let left = left_of(pid);
    kill_process(Pid::from_child(&next), Signal::INT).unwrap();
    next.wait_with_output().unwrap();
    assert_eq!(left, Vec::<PathBuf>::new());
}
