use std::{os::unix::fs::PermissionsExt as _, thread};

use proptest::prelude::*;

use super::*;
use crate::consent::Purpose;

fn now() -> Timestamp {
    "2026-12-01T12:00:00.5Z".parse().unwrap()
}

fn subject(text: &str) -> Whom {
    Subject::Prefix(crate::consent::prefix::read_prefix(text).unwrap().net).into()
}

fn purposes(text: &str) -> PurposeSet {
    text.parse().unwrap()
}

#[test]
fn adding_twice_changes_once() {
    let folder = tempfile::tempdir().unwrap();
    let list = ManagedList::opt_outs(&folder.path().join("state"));
    let seven = subject("203.0.113.7");
    assert!(list.add(&seven, purposes("detect"), now()).unwrap());
    assert!(!list.add(&seven, purposes("detect"), now()).unwrap());
    assert!(list.add(&seven, PurposeSet::ALL, now()).unwrap());
    assert!(!list.add(&seven, purposes("notify"), now()).unwrap());
    insta::assert_snapshot!(fs::read_to_string(list.path()).unwrap(), @r"
    # Kept by matcher (matcher consent opt-out|opt-in|import). Edits are kept.
    203.0.113.7 purposes=detect  # 2026-12-01T12:00:00Z
    203.0.113.7  # 2026-12-01T12:00:00Z
    ");
}

#[test]
fn removing_leaves_comments_and_other_lines() {
    let folder = tempfile::tempdir().unwrap();
    let list = ManagedList::opt_outs(folder.path());
    let text = "# by hand\n203.0.113.7 # phone call\n203.0.113.7 purposes=detect\n\nbroken line\n203.0.113.0/24\n203.0.113.7 from=2027-01-01T00:00:00Z # later";
    fs::write(list.path(), text).unwrap();
    fs::set_permissions(list.path(), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(
        list.remove(&subject("203.0.113.7"), purposes("detect"))
            .unwrap()
    );
    insta::assert_snapshot!(fs::read_to_string(list.path()).unwrap(), @r"
    # by hand
    203.0.113.7 purposes=notify,vulnerable,block,discover  # phone call

    broken line
    203.0.113.0/24
    203.0.113.7 purposes=notify,vulnerable,block,discover from=2027-01-01T00:00:00Z  # later
    ");
    assert!(
        !list
            .remove(&subject("203.0.113.7"), purposes("detect"))
            .unwrap()
    );
    assert!(
        list.remove(&subject("203.0.113.7"), PurposeSet::ALL)
            .unwrap()
    );
    assert!(
        list.remove(&subject("203.0.113.0/24"), PurposeSet::ALL)
            .unwrap()
    );
    assert_eq!(
        fs::read_to_string(list.path()).unwrap(),
        "# by hand\n\nbroken line\n"
    );
    let mode = fs::metadata(list.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let names = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(names, 2, "the list and its lock, no temporary file");
}

#[test]
fn a_list_is_never_left_with_zero_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let list = ManagedList::opt_outs(folder.path());
    fs::write(list.path(), "203.0.113.7\n").unwrap();
    assert!(
        list.remove(&subject("203.0.113.7"), PurposeSet::ALL)
            .unwrap()
    );
    assert!(!fs::read(list.path()).unwrap().is_empty());
}

#[test]
fn what_cannot_be_enforced_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let list = ManagedList::opt_outs(folder.path());
    let id = Subject::Subscriber("cust-4711".into()).into();
    let error = list.add(&id, PurposeSet::ALL, now()).unwrap_err();
    insta::assert_snapshot!(error, @"subscriber=cust-4711 cannot be enforced yet: give the subscriber's addresses");
    assert!(!list.path().exists());
}

#[test]
fn an_import_adds_what_is_new_and_enforceable() {
    let folder = tempfile::tempdir().unwrap();
    let list = ManagedList::opt_outs(folder.path());
    fs::write(list.path(), "203.0.113.7").unwrap();
    let text = b"203.0.113.7\n203.0.113.8 purposes=detect ports=1-5\nsubscriber=x\n203.0.113.9 purposes=x\n203.0.113.9\n";
    let imported = ParsedList::read(ListKind::OptOut, &Path::new("x").into(), text);
    assert_eq!(list.import(&imported.entries, now()).unwrap(), 2);
    assert_eq!(list.import(&imported.entries, now()).unwrap(), 0);
    insta::assert_snapshot!(fs::read_to_string(list.path()).unwrap(), @r"
    203.0.113.7
    203.0.113.8 purposes=detect ports=1-5  # 2026-12-01T12:00:00Z, imported
    203.0.113.9  # 2026-12-01T12:00:00Z, imported
    ");
}

#[test]
fn commands_at_the_same_time_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let list = ManagedList::opt_outs(folder.path());
    thread::scope(|scope| {
        for part in 0..4 {
            let list = &list;
            scope.spawn(move || {
                for host in 0..8 {
                    let subject = subject(&format!("203.0.113.{}", part * 8 + host));
                    assert!(list.add(&subject, PurposeSet::ALL, now()).unwrap());
                }
            });
        }
    });
    assert_eq!(list.content().unwrap().list.entries.len(), 32);
}

#[test]
fn a_folder_that_refuses_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state");
    fs::write(&file, "").unwrap();
    let error = ManagedList::opt_outs(&file)
        .add(&subject("203.0.113.7"), PurposeSet::ALL, now())
        .unwrap_err()
        .to_string();
    assert!(error.contains("state: cannot make the folder: "), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn adding_then_removing_ends_where_it_began(
        bytes in "(203\\.0\\.113\\.[1-3]( purposes=(detect|notify|x))?( # c)?\n|\\PC{0,10}\n){0,6}",
        host in 4u8..6,
        bits in 1u8..32,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let list = ManagedList::opt_outs(folder.path());
        let text = format!("# start\n{bytes}");
        fs::write(list.path(), &text).unwrap();
        let subject = subject(&format!("203.0.113.{host}"));
        let purposes = PurposeSet::from_bits(bits);
        prop_assert!(list.add(&subject, purposes, now()).unwrap());
        let entries = list.content().unwrap().list.entries;
        prop_assert!(entries.iter().any(|entry| entry.subject == subject.subject && entry.purposes == purposes));
        prop_assert!(list.remove(&subject, purposes).unwrap());
        prop_assert_eq!(fs::read_to_string(list.path()).unwrap(), text);
    }
}

#[test]
fn consent_can_be_given_and_withdrawn_purpose_by_purpose() {
    let folder = tempfile::tempdir().unwrap();
    let seven = subject("203.0.113.7");
    let model = ConsentModel::OptIn;
    let detect = PurposeSet::from(Purpose::Detect);
    assert!(opt_in(model, folder.path(), &seven, PurposeSet::ALL, now()).unwrap());
    assert!(opt_out(model, folder.path(), &seven, detect, now()).unwrap());
    assert!(!opt_out(model, folder.path(), &seven, detect, now()).unwrap());
    let granted = ManagedList::opt_ins(folder.path())
        .content()
        .unwrap()
        .list
        .entries;
    assert_eq!(granted[0].purposes, PurposeSet::ALL.without(detect));
    assert!(opt_in(model, folder.path(), &seven, detect, now()).unwrap());
    let refused = ManagedList::opt_outs(folder.path())
        .content()
        .unwrap()
        .list
        .entries;
    assert!(refused.is_empty());
}

#[test]
fn whoever_shares_an_address_is_added_and_taken_away_alone() {
    let folder = tempfile::tempdir().unwrap();
    let list = ManagedList::opt_outs(folder.path());
    let address = subject("198.51.100.9");
    let sharer = Whom {
        ports: PortLimit::read_map_e("a:4,k:8,psid:0x34"),
        space: Some(7),
        ..address.clone()
    };
    let other = Whom {
        ports: PortLimit::read_ports("1024-2047"),
        ..address.clone()
    };
    assert!(list.add(&address, purposes("detect"), now()).unwrap());
    assert!(list.add(&sharer, PurposeSet::ALL, now()).unwrap());
    assert!(!list.add(&sharer, purposes("detect"), now()).unwrap());
    assert!(list.add(&other, purposes("block"), now()).unwrap());
    insta::assert_snapshot!(fs::read_to_string(list.path()).unwrap(), @r"
    # Kept by matcher (matcher consent opt-out|opt-in|import). Edits are kept.
    198.51.100.9 purposes=detect  # 2026-12-01T12:00:00Z
    198.51.100.9 map-e=a:4,k:8,psid:0x34 space=7  # 2026-12-01T12:00:00Z
    198.51.100.9 ports=1024-2047 purposes=block  # 2026-12-01T12:00:00Z
    ");
    assert!(list.remove(&address, PurposeSet::ALL).unwrap());
    assert!(list.remove(&other, PurposeSet::ALL).unwrap());
    let left = list.content().unwrap().list.entries;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].space, Some(7));
}
