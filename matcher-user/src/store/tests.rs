//! What the store promises: nothing lost, nothing twice, and files that only
//! the right build and the owner can read.

use std::{
    io::Read,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
    time::Instant,
};

use jiff::Timestamp;
use matcher_common::abi::Tunnel;
use proptest::prelude::*;

use super::*;
use crate::{
    hit::{Direction, Encapsulation, Endpoint, IndicatorSummary, SubscriberAddress},
    indicator::{IndicatorId, Qualifier},
    protocol::Protocol,
};

mod erasure;

fn ring() -> RingIdentity {
    RingIdentity("5b1e-17".to_owned())
}

fn summary(id: u32) -> Arc<IndicatorSummary> {
    Arc::new(IndicatorSummary {
        id: IndicatorId(id),
        value: format!("198.51.100.{id}"),
        qualifier: Qualifier {
            protocol: Some(Protocol::TCP),
            port: None,
        },
        feeds: vec!["feodo".into(), "own".into()],
        malware: Some("Pikabot".into()),
        confidence: None,
    })
}

fn hit(sequence: u64, subscriber: &str) -> Hit {
    Hit {
        time: Timestamp::from_second(1_795_305_600 + i64::try_from(sequence).unwrap()).unwrap(),
        interface: Some("eth0".into()),
        direction: Direction::Outbound,
        protocol: Protocol::TCP,
        subscriber: Endpoint {
            ip: subscriber.parse().unwrap(),
            port: Some(51_413),
        },
        remote: Endpoint {
            ip: "198.51.100.23".parse().unwrap(),
            port: Some(443),
        },
        local_ip: subscriber.parse().unwrap(),
        nat64: None,
        encapsulation: None,
        space: 0,
        vlan_ids: [0; 2],
        indicator: summary(23),
        packets: 1,
        sequence,
        source_validated: true,
        several_flows: false,
    }
}

fn in_folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state/hits.db");
    (folder, path)
}

fn all(store: &Store) -> Vec<Hit> {
    let hits = store.hits_after(Cursor(0), usize::MAX).unwrap();
    hits.into_iter().map(|(_, hit)| hit).collect()
}

fn any_hit() -> impl Strategy<Value = Hit> {
    let endpoint = || (any::<IpAddr>(), any::<Option<u16>>());
    (
        (
            any::<i64>(),
            any::<Option<u8>>(),
            any::<bool>(),
            any::<u8>(),
        ),
        endpoint(),
        endpoint(),
        (
            0..4_u32,
            any::<u32>(),
            any::<u64>(),
            any::<bool>(),
            any::<bool>(),
        ),
        (
            any::<Option<IpAddr>>(),
            prop::option::of((
                prop::sample::select(Tunnel::ALL),
                any::<IpAddr>(),
                any::<IpAddr>(),
            )),
            any::<Option<Ipv4Addr>>(),
            any::<u32>(),
            any::<[u16; 2]>(),
        ),
    )
        .prop_map(
            |((time, interface, out, protocol), subscriber, remote, rest, more)| {
                let (local_ip, around, nat64, space, vlan_ids) = more;
                let (indicator, packets, sequence, source_validated, several_flows) = rest;
                Hit {
                    time: Timestamp::from_nanosecond(time.into()).unwrap(),
                    interface: interface.map(|number| format!("eth{number}").into()),
                    direction: if out {
                        Direction::Outbound
                    } else {
                        Direction::Inbound
                    },
                    protocol: Protocol(protocol),
                    subscriber: Endpoint {
                        ip: subscriber.0,
                        port: subscriber.1,
                    },
                    remote: Endpoint {
                        ip: remote.0,
                        port: remote.1,
                    },
                    local_ip: local_ip.unwrap_or(subscriber.0),
                    nat64,
                    encapsulation: around.map(|(tunnel, outer_source, outer_destination)| {
                        Encapsulation {
                            tunnel,
                            outer_source,
                            outer_destination,
                        }
                    }),
                    space,
                    vlan_ids,
                    indicator: summary(indicator),
                    packets,
                    sequence,
                    source_validated,
                    several_flows,
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_hit_comes_back_as_it_was_stored(
        batches in prop::collection::vec(prop::collection::vec(any_hit(), 0..20), 0..5),
    ) {
        let mut store = Store::in_memory("tokyo-1").unwrap();
        let mut expected = Vec::new();
        for (position, batch) in (1..).zip(&batches) {
            let range = store.commit(&ring(), position, batch).unwrap();
            prop_assert_eq!(range.cursors().count(), batch.len());
            expected.extend(range.cursors().zip(batch.iter().cloned()));
        }
        prop_assert_eq!(store.hits_after(Cursor(0), usize::MAX).unwrap(), expected);
    }
}

#[test]
fn hits_and_position_survive_and_the_position_never_goes_back() {
    let (_folder, path) = in_folder();
    let mut store = Store::open(&path, "tokyo-1").unwrap();
    assert_eq!(store.drained_to(&ring()).unwrap(), None);
    let hits = [hit(0, "203.0.113.7"), hit(1, "2001:db8::7")];
    let range = store.commit(&ring(), 128, &hits).unwrap();
    assert_eq!(range.cursors().collect::<Vec<_>>(), [Cursor(1), Cursor(2)]);

    for (position, hits) in [(127, &[][..]), (128, &hits[..])] {
        let error = store.commit(&ring(), position, hits).unwrap_err();
        assert!(matches!(
            *error.failure,
            Failure::Backwards { recorded: 128, .. }
        ));
    }
    store.commit(&ring(), 128, &[]).unwrap();
    store
        .commit(&RingIdentity("another".to_owned()), 8, &[])
        .unwrap();

    drop(store);
    let store = Store::open(&path, "tokyo-1").unwrap();
    assert_eq!(store.drained_to(&ring()).unwrap(), Some(128));
    assert_eq!(all(&store), hits);
    assert_eq!(store.hits_after(Cursor(1), 10).unwrap().len(), 1);
    assert_eq!(store.hits_after(Cursor(0), 1).unwrap()[0].0, Cursor(1));
}

#[test]
fn what_was_folded_in_a_generation_is_stored_once() {
    let (_folder, path) = in_folder();
    let mut store = Store::open(&path, "tokyo-1").unwrap();
    assert_eq!(store.folds_stored(&ring()).unwrap(), None);
    let of_flow = Hit {
        packets: 999_999,
        ..hit(0, "203.0.113.7")
    };
    let of_many = Hit {
        several_flows: true,
        ..of_flow.clone()
    };
    let hits = [of_flow, of_many];
    store.commit_folds(&ring(), 0, &hits).unwrap();
    store.commit_folds(&ring(), 2, &[]).unwrap();
    for generation in [0, 1, 2] {
        let error = store.commit_folds(&ring(), generation, &hits).unwrap_err();
        assert!(matches!(*error.failure, Failure::FoldedAlready { .. }));
    }
    // Other tables have generations of their own.
    let another = RingIdentity("another".to_owned());
    store.commit_folds(&another, 0, &[]).unwrap();
    drop(store);
    let store = Store::open(&path, "tokyo-1").unwrap();
    assert_eq!(store.folds_stored(&ring()).unwrap(), Some(2));
    assert_eq!(store.drained_to(&ring()).unwrap(), None);
    assert_eq!(all(&store), hits);
}

#[test]
fn a_hit_keeps_its_edge_and_what_its_indicator_said() {
    let (_folder, path) = in_folder();
    let mut store = Store::open(&path, "tokyo-1").unwrap();
    store.commit(&ring(), 1, &[hit(0, "203.0.113.7")]).unwrap();
    drop(store);
    let mut store = Store::open(&path, "osaka-2").unwrap();
    let mut reused = hit(1, "203.0.113.7");
    Arc::make_mut(&mut reused.indicator).value = "192.0.2.1".to_owned();
    store.commit(&ring(), 2, &[reused]).unwrap();
    let values: Vec<String> = all(&store)
        .iter()
        .map(|hit| hit.indicator.value.clone())
        .collect();
    assert_eq!(values, ["198.51.100.23", "192.0.2.1"]);
    let edges: String = store
        .db
        .query_row(
            "SELECT group_concat(name, ' ') FROM
             (SELECT name FROM hits JOIN edges ON edges.id = hits.edge ORDER BY cursor)",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(edges, "tokyo-1 osaka-2");
}

#[test]
fn a_commit_that_fails_leaves_nothing_and_the_next_one_works() {
    let mut store = Store::in_memory("tokyo-1").unwrap();
    let mut far = hit(1, "203.0.113.7");
    far.time = Timestamp::MAX;
    let error = store
        .commit(&ring(), 1, &[hit(0, "203.0.113.7"), far])
        .unwrap_err();
    assert!(matches!(*error.failure, Failure::Time(_)));
    assert_eq!(store.drained_to(&ring()).unwrap(), None);
    assert_eq!(all(&store), []);
    store.commit(&ring(), 1, &[hit(0, "203.0.113.7")]).unwrap();
    assert_eq!(all(&store).len(), 1);
}

#[test]
fn cursors_are_not_given_again_after_deletion() {
    let mut store = Store::in_memory("tokyo-1").unwrap();
    store.commit(&ring(), 1, &[hit(0, "203.0.113.7")]).unwrap();
    assert_eq!(store.purge_before(Timestamp::MIN).unwrap(), 0);
    assert_eq!(store.purge_before(Timestamp::MAX).unwrap(), 1);
    assert_eq!(store.last_cursor().unwrap(), Cursor(1));
    let range = store.commit(&ring(), 2, &[hit(1, "203.0.113.7")]).unwrap();
    assert_eq!(range.cursors().next(), Some(Cursor(2)));
}

#[test]
fn a_candidate_keeps_its_id_and_revision_until_its_last_hit_goes() {
    let (_folder, path) = in_folder();
    let address = hit(0, "203.0.113.7").subscriber_address();
    let mut store = Store::open(&path, "tokyo-1").unwrap();
    store
        .commit(&ring(), 1, &[hit(0, "203.0.113.7"), hit(9, "203.0.113.7")])
        .unwrap();
    let id = store.candidate_id(address).unwrap();
    assert_eq!(store.published(id).unwrap(), None);
    store.mark_published(id, 7).unwrap();
    store.mark_published(id, 5).unwrap();

    drop(store);
    let mut store = Store::open(&path, "tokyo-1").unwrap();
    store.purge_before(hit(5, "::").time).unwrap();
    assert_eq!(store.candidate_id(address).unwrap(), id);
    assert_eq!(store.published(id).unwrap(), Some(7));

    store
        .erase_hits(|hit| hit.subscriber_address() == address)
        .unwrap();
    assert_eq!(store.published(id).unwrap(), None);
    let error = store.mark_published(id, 8).unwrap_err();
    assert!(matches!(*error.failure, Failure::NoSuchCandidate(_)));
    assert_ne!(store.candidate_id(address).unwrap(), id);
}

#[test]
fn a_newer_a_foreign_and_a_damaged_file_are_refused_with_advice() {
    let (folder, path) = in_folder();
    drop(Store::open(&path, "tokyo-1").unwrap());
    let db = Connection::open(&path).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    let message = |path: &Path| {
        let text = Store::open(path, "tokyo-1").unwrap_err().to_string();
        text.replace(folder.path().to_str().unwrap(), "/var/lib")
    };
    insta::assert_snapshot!(message(&path), @"/var/lib/state/hits.db: the store has schema version 99, this build knows up to 3; run the newer build, or move the file away to start an empty store");

    let foreign = folder.path().join("foreign.db");
    Connection::open(&foreign)
        .unwrap()
        .execute_batch("CREATE TABLE t (x)")
        .unwrap();
    insta::assert_snapshot!(message(&foreign), @"/var/lib/foreign.db: this is a database of another program; give another state_dir");

    let damaged = folder.path().join("damaged.db");
    fs::write(&damaged, [7; 8192]).unwrap();
    insta::assert_snapshot!(message(&damaged), @"/var/lib/damaged.db: cannot open the store: file is not a database; move it away to start an empty store");

    insta::assert_snapshot!(message(&folder.path().join("foreign.db/hits.db")), @"/var/lib/foreign.db/hits.db: cannot make its directory: File exists (os error 17); state_dir must be a directory that the agent may write to");
}

#[test]
fn only_the_owner_can_read_the_files() {
    let (_folder, path) = in_folder();
    let mut store = Store::open(&path, "tokyo-1").unwrap();
    store.commit(&ring(), 1, &[hit(0, "203.0.113.7")]).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    let files = [path.clone(), beside(&path, "-wal"), beside(&path, "-shm")];
    assert_eq!(files.each_ref().map(|path| mode(path)), [0o600; 3]);

    drop(store);
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    drop(Store::open(&path, "tokyo-1").unwrap());
    assert_eq!(mode(&path), 0o600);
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

const CRASH_CHILD: &str = "MATCHER_STORE_CRASH_CHILD";

/// The ring stands for itself: at position p, hits 0 to p - 1 were drained.
fn drain_for_ever(path: &Path) {
    let mut store = Store::open(path, "tokyo-1").unwrap();
    let mut position = store.drained_to(&ring()).unwrap().unwrap_or(0);
    for (round, batch) in (1..=40).cycle().enumerate() {
        let hits: Vec<Hit> = (position..position + batch)
            .map(|sequence| hit(sequence, "203.0.113.7"))
            .collect();
        position += batch;
        store.commit(&ring(), position, &hits).unwrap();
        // Once there is something to lose, however slow the machine.
        if round == 0 {
            println!("ready");
        }
    }
}

#[test]
fn after_sigkill_hits_and_position_agree_exactly() {
    if let Some(path) = std::env::var_os(CRASH_CHILD) {
        drain_for_ever(Path::new(&path));
        return;
    }
    let (_folder, path) = in_folder();
    let mut before = 0;
    for round in 0..12_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("store::tests::after_sigkill_hits_and_position_agree_exactly")
            .env(CRASH_CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = child.stdout.take().unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"ready\n") {
            let mut byte = [0];
            output.read_exact(&mut byte).unwrap();
            seen.push(byte[0]);
        }
        std::thread::sleep(Duration::from_micros(20_000 + round * 7_919));
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());

        let store = Store::open(&path, "tokyo-1").unwrap();
        let position = store.drained_to(&ring()).unwrap().unwrap();
        let sequences: Vec<u64> = all(&store).iter().map(|hit| hit.sequence).collect();
        assert_eq!(sequences, (0..position).collect::<Vec<u64>>());
        assert!(position > before, "the child stored something");
        before = position;
    }
}

/// The bound leaves a slow machine room; the real number is printed.
#[test]
fn a_hundred_thousand_hits_are_stored_within_seconds() {
    let (_folder, path) = in_folder();
    let mut store = Store::open(&path, "tokyo-1").unwrap();
    let mut hits: Vec<Hit> = (0..1_000)
        .map(|number| hit(number, "203.0.113.7"))
        .collect();
    let indicators: Vec<_> = (0..200).map(summary).collect();
    for (hit, indicator) in hits.iter_mut().zip(indicators.iter().cycle()) {
        hit.indicator = Arc::clone(indicator);
    }
    let start = Instant::now();
    for position in 1..=100 {
        store.commit(&ring(), position, &hits).unwrap();
    }
    let taken = start.elapsed();
    println!("{:.0} hits/s", 100_000.0 / taken.as_secs_f64());
    assert!(taken < Duration::from_secs(10), "{taken:?}");
    let start = Instant::now();
    assert_eq!(
        store.hits_after(Cursor(0), usize::MAX).unwrap().len(),
        100_000
    );
    println!("read back in {:?}", start.elapsed());
    let start = Instant::now();
    store.purge_before(hit(500, "::").time).unwrap();
    println!("half purged in {:?}", start.elapsed());
}

#[test]
fn the_store_can_move_to_a_thread_of_its_own() {
    let store = Store::in_memory("tokyo-1").unwrap();
    let cursor = std::thread::spawn(move || store.last_cursor().unwrap());
    assert_eq!(cursor.join().unwrap(), Cursor(0));
}

/// A file of the first version becomes a current one, with all that was in it.
#[test]
fn a_file_of_version_1_keeps_its_hits_and_its_candidates_ids() {
    let (_folder, path) = in_folder();
    let mut store = Store::open(&path, "tokyo-1").unwrap();
    let hits = [hit(0, "203.0.113.7"), hit(1, "2001:db8::7")];
    store.commit(&ring(), 1, &hits).unwrap();
    let gone = store
        .candidate_id(hit(2, "203.0.113.9").subscriber_address())
        .unwrap();
    drop(store);
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "ALTER TABLE hits DROP COLUMN local_ip;
         ALTER TABLE hits DROP COLUMN tunnel;
         ALTER TABLE hits DROP COLUMN outer_source_ip;
         ALTER TABLE hits DROP COLUMN outer_destination_ip;
         ALTER TABLE hits DROP COLUMN nat64_ip;
         ALTER TABLE hits DROP COLUMN space;
         ALTER TABLE hits DROP COLUMN vlan_ids;
         ALTER TABLE hits DROP COLUMN several_flows;
         DROP TABLE folds;
         CREATE TABLE old (
             id INTEGER PRIMARY KEY AUTOINCREMENT, address BLOB NOT NULL UNIQUE, published INTEGER
         ) STRICT;
         INSERT INTO old (id, address) SELECT id, address FROM candidates;
         DELETE FROM old;
         DROP TABLE candidates;
         ALTER TABLE old RENAME TO candidates;
         PRAGMA user_version = 1;",
    )
    .unwrap();
    drop(db);

    let mut store = Store::open(&path, "tokyo-1").unwrap();
    assert_eq!(all(&store), hits);
    let next = store.candidate_id(hits[0].subscriber_address()).unwrap();
    assert!(next > gone, "an id is never given again");
}
