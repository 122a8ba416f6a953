//! What is refused or too old goes, nothing else does, and no byte of it stays
//! in a file.

use std::collections::BTreeSet;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn erasure_takes_what_is_refused_and_nothing_else(
        hits in prop::collection::vec((0..4_u8, 0..2_u32), 0..60),
        refused in (0..4_u8, 0..2_u32),
    ) {
        let hits: Vec<Hit> = hits
            .iter()
            .map(|(last, space)| {
                let mut hit = hit(0, "203.0.113.0");
                hit.subscriber.ip = IpAddr::from([203, 0, 113, *last]);
                hit.space = *space;
                hit
            })
            .collect();
        let refused = SubscriberAddress {
            ip: IpAddr::from([203, 0, 113, refused.0]),
            space: refused.1,
        };
        let mut store = Store::in_memory("tokyo-1").unwrap();
        store.commit(&ring(), 1, &hits).unwrap();
        for hit in &hits {
            store.candidate_id(hit.subscriber_address()).unwrap();
        }
        let erased = store
            .erase_hits(|hit| hit.subscriber_address() == refused)
            .unwrap();
        let (gone, kept): (Vec<Hit>, Vec<Hit>) = hits
            .into_iter()
            .partition(|hit| hit.subscriber_address() == refused);
        prop_assert_eq!(erased, gone.len() as u64);
        let candidates: i64 = store
            .db
            .query_row("SELECT count(*) FROM candidates", [], |row| row.get(0))
            .unwrap();
        let addresses: BTreeSet<_> = kept.iter().map(Hit::subscriber_address).collect();
        prop_assert_eq!(candidates, addresses.len() as i64);
        prop_assert_eq!(all(&store), kept);
    }
}

/// How often `needle` occurs in the files of the store.
fn traces(path: &Path, needle: &[u8]) -> usize {
    let folder = path.parent().unwrap();
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    files
        .map(|file| {
            let bytes = fs::read(file).unwrap();
            bytes
                .windows(needle.len())
                .filter(|window| *window == needle)
                .count()
        })
        .sum()
}

/// Rows of many sizes, deleted here and there over and over: SQLite moves
/// rows between pages and leaves copies, which `secure_delete` alone does not
/// reach.
#[test]
fn deleted_addresses_are_in_no_file_afterwards() {
    let (_folder, path) = in_folder();
    let mut store = Store::open(&path, "tokyo-1").unwrap();
    let address = |number: u64| IpAddr::from([10, 77, (number / 250) as u8, (number % 250) as u8]);
    let long = "i".repeat(200);
    for round in 0..6_u64 {
        let mut hits = Vec::new();
        for number in 0..1_500 {
            let mut hit = hit(round * 10_000 + number, "::");
            hit.subscriber.ip = address(number);
            hit.local_ip = address(number);
            hit.interface = Some(long[..(number * 37 % 200) as usize].into());
            hit.indicator = summary(number as u32 % 50);
            hits.push(hit);
        }
        store.commit(&ring(), round + 1, &hits).unwrap();
        for number in 0..1_500 {
            let address = SubscriberAddress {
                space: 0,
                ip: address(number),
            };
            store.candidate_id(address).unwrap();
        }
        let erased: Vec<u64> = (0..1_500)
            .filter(|number| (number * 7 + round) % 3 == 0)
            .collect();
        assert!(traces(&path, &address::to_blob(address(erased[0]))) > 0);
        let addresses: BTreeSet<IpAddr> = erased.iter().map(|number| address(*number)).collect();
        let refused = |hit: &Hit| addresses.contains(&hit.subscriber.ip);
        assert!(store.erase_hits(refused).unwrap() > 0);
        for number in &erased {
            let needle = address::to_blob(address(*number));
            assert_eq!(traces(&path, &needle), 0, "{} left", address(*number));
        }
    }
    assert!(store.purge_before(hit(60_000, "::").time).unwrap() > 0);
    assert_eq!(traces(&path, &[4, 10, 77]), 0);
    assert_eq!(
        traces(&path, b"198.51.100."),
        0,
        "indicators go with their hits"
    );
    assert_eq!(traces(&path, b"iiiiiiii"), 0);
}

#[test]
fn a_reader_delays_the_removal_of_bytes_and_the_next_start_makes_up_for_it() {
    let (_folder, path) = in_folder();
    let mut store = Store::open(&path, "tokyo-1").unwrap();
    store.db.busy_timeout(Duration::ZERO).unwrap();
    store.commit(&ring(), 1, &[hit(0, "203.0.113.7")]).unwrap();
    let needle = address::to_blob("203.0.113.7".parse().unwrap());

    let reader = Connection::open(&path).unwrap();
    reader.execute_batch("BEGIN; SELECT * FROM hits").unwrap();
    let error = store.erase_hits(|_| true).unwrap_err();
    assert!(matches!(*error.failure, Failure::NotGoneYet));
    assert_eq!(all(&store), []);
    assert!(traces(&path, &needle) > 0);

    drop(reader);
    // The writer ends as if killed, so that nothing is tidied up.
    std::mem::forget(store);
    let _store = Store::open(&path, "tokyo-1").unwrap();
    assert_eq!(traces(&path, &needle), 0);
}
