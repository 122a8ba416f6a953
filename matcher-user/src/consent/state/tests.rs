use proptest::prelude::*;

use super::*;

fn read(kind: ListKind, text: &str) -> ParsedList {
    ParsedList::read(kind, &Path::new("x.list").into(), text.as_bytes())
}

fn in_force(kind: ListKind, text: &str) -> List {
    apply(None, Ok(read(kind, text))).list.unwrap()
}

fn unreadable(kind: ListKind) -> Unreadable {
    Unreadable {
        kind,
        source_file: Path::new("x.list").into(),
        reason: "cannot be read: I/O error".to_owned(),
    }
}

/// What is in force, one line each.
fn lines(outcome: &Outcome) -> Vec<String> {
    let list = outcome.list.as_ref().unwrap();
    let mut lines: Vec<String> = list.entries.iter().map(ToString::to_string).collect();
    lines.sort();
    lines
}

#[test]
fn a_clean_file_replaces_what_was() {
    let before = in_force(ListKind::OptOut, "203.0.113.1\n203.0.113.2\n");
    let outcome = apply(Some(&before), Ok(read(ListKind::OptOut, "203.0.113.3\n")));
    assert_eq!(lines(&outcome), ["203.0.113.3"]);
    assert_eq!((outcome.held_back, outcome.problems.len()), (0, 0));
}

#[test]
fn removals_of_opt_outs_wait_for_a_clean_file() {
    let before = in_force(ListKind::OptOut, "203.0.113.1\n203.0.113.2\n");
    let outcome = apply(
        Some(&before),
        Ok(read(ListKind::OptOut, "203.0.113.2\n203.0.113.3\nx\n")),
    );
    assert_eq!(
        lines(&outcome),
        ["203.0.113.1", "203.0.113.2", "203.0.113.3"]
    );
    assert_eq!(outcome.held_back, 1);
    assert!(outcome.matching_allowed);
    insta::assert_snapshot!(outcome.problems[1], @"x.list: error: opt-outs gone from it stay in force until it has no errors: 1");
    // The next clean file lets them go.
    let outcome = apply(
        outcome.list.as_ref(),
        Ok(read(ListKind::OptOut, "203.0.113.3\n")),
    );
    assert_eq!(lines(&outcome), ["203.0.113.3"]);
}

#[test]
fn new_consents_wait_for_a_clean_file_and_withdrawals_do_not() {
    let before = in_force(
        ListKind::OptIn,
        "203.0.113.1\n203.0.113.2 purposes=detect,notify\n203.0.113.4 purposes=detect\n",
    );
    let outcome = apply(
        Some(&before),
        Ok(read(
            ListKind::OptIn,
            "203.0.113.2 purposes=detect\n203.0.113.3\n203.0.113.4 purposes=detect,block\nx\n",
        )),
    );
    assert_eq!(
        lines(&outcome),
        ["203.0.113.2 purposes=detect", "203.0.113.4 purposes=detect"]
    );
    assert_eq!(outcome.held_back, 2);
}

#[test]
fn an_unreadable_list_leaves_what_was_or_stops_matching() {
    let before = in_force(ListKind::OptOut, "203.0.113.1\n");
    let outcome = apply(Some(&before), Err(unreadable(ListKind::OptOut)));
    assert_eq!(outcome.list.as_ref(), Some(&before));
    assert!(outcome.matching_allowed);
    insta::assert_snapshot!(outcome.problems[0], @"x.list: error: cannot be read: I/O error: its last good reading stays in force (lines: 1)");
    for kind in [ListKind::OptOut, ListKind::Exclusion] {
        let outcome = apply(None, Err(unreadable(kind)));
        assert!(!outcome.matching_allowed && outcome.list.is_none());
        insta::allow_duplicates!(
            insta::assert_snapshot!(outcome.problems[0], @"x.list: error: cannot be read: I/O error: nothing is matched until it can be read")
        );
    }
    // Nobody refuses by not being on a list of consents.
    assert!(apply(None, Err(unreadable(ListKind::OptIn))).matching_allowed);
}

#[test]
fn a_file_without_any_readable_line_counts_as_unreadable() {
    let garbage = || Ok(read(ListKind::OptOut, "<html>\n502 Bad Gateway\n"));
    assert!(!apply(None, garbage()).matching_allowed);
    let before = in_force(ListKind::OptOut, "203.0.113.1\n");
    let outcome = apply(Some(&before), garbage());
    assert_eq!(lines(&outcome), ["203.0.113.1"]);
}

#[test]
fn a_file_of_zero_bytes_does_not_empty_the_list_but_a_comment_does() {
    let before = in_force(ListKind::OptOut, "203.0.113.1\n");
    let outcome = apply(Some(&before), Ok(read(ListKind::OptOut, "")));
    assert_eq!(lines(&outcome), ["203.0.113.1"]);
    assert_eq!(outcome.problems.len(), 1);
    let outcome = apply(Some(&before), Ok(read(ListKind::OptOut, "# nobody\n")));
    assert_eq!(lines(&outcome), Vec::<String>::new());
    // Before there was anybody, an empty file says nothing wrong.
    let outcome = apply(None, Ok(read(ListKind::OptOut, "")));
    assert!(outcome.matching_allowed && outcome.problems.is_empty());
}

/// Lines over few subjects, so that readings overlap, with some broken ones.
fn any_text() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        6 => (0u8..6, 1u8..32, prop::option::of(0u8..3)).prop_map(|(host, bits, from)| {
            let purposes = PurposeSet::from_bits(bits);
            let from = from.map_or(String::new(), |day| format!(" from=2026-12-0{}T00:00:00Z", day + 1));
            format!("203.0.113.{host} purposes={purposes}{from}\n")
        }),
        1 => (0u8..6).prop_map(|host| format!("203.0.113.{host} purposes=x\n")),
        1 => Just("x\n".to_owned()),
    ];
    prop::collection::vec(line, 0..10).prop_map(|lines| lines.concat())
}

/// What the entries say of a host at a time.
fn said(entries: &[Entry], host: u8, at: Timestamp) -> PurposeSet {
    let net = format!("203.0.113.{host}/32").parse().unwrap();
    entries
        .iter()
        .filter(|entry| entry.prefix() == Some(net) && entry.in_force(at))
        .fold(PurposeSet::NONE, |said, entry| said.union(entry.purposes))
}

fn times() -> Vec<Timestamp> {
    ["2026-11-30", "2026-12-01", "2026-12-02", "2026-12-03"]
        .iter()
        .map(|day| format!("{day}T00:00:00Z").parse().unwrap())
        .collect()
}

proptest! {
    #[test]
    fn no_opt_out_is_lost_while_a_file_has_errors(readings in prop::collection::vec(any_text(), 1..5)) {
        let mut previous: Option<List> = None;
        for text in readings {
            let parsed = read(ListKind::OptOut, &text);
            let (clean, new) = (parsed.is_clean(), parsed.entries.clone());
            let outcome = apply(previous.as_ref(), Ok(parsed));
            let before = previous.map_or_else(Vec::new, |list| list.entries);
            for (host, at) in (0..6).flat_map(|host| times().into_iter().map(move |at| (host, at))) {
                let now = outcome
                    .list
                    .as_ref()
                    .map_or(PurposeSet::NONE, |list| said(&list.entries, host, at));
                prop_assert!(now.covers(said(&new, host, at)), "a readable line applies at once");
                if !clean {
                    prop_assert!(now.covers(said(&before, host, at)), "a removal waits");
                } else if !text.is_empty() {
                    prop_assert_eq!(now, said(&new, host, at));
                }
            }
            prop_assert_eq!(outcome.matching_allowed, outcome.list.is_some());
            previous = outcome.list;
        }
    }

    #[test]
    fn no_consent_is_gained_while_a_file_has_errors(readings in prop::collection::vec(any_text(), 1..5)) {
        let mut previous: Option<List> = None;
        for text in readings {
            let parsed = read(ListKind::OptIn, &text);
            let (clean, new) = (parsed.is_clean(), parsed.entries.clone());
            let outcome = apply(previous.as_ref(), Ok(parsed));
            let before = previous.map_or_else(Vec::new, |list| list.entries);
            let list = outcome.list.unwrap();
            for (host, at) in (0..6).flat_map(|host| times().into_iter().map(move |at| (host, at))) {
                let now = said(&list.entries, host, at);
                let expected = if clean {
                    said(&new, host, at)
                } else {
                    said(&new, host, at).intersection(said(&before, host, at))
                };
                prop_assert_eq!(now, expected);
            }
            previous = Some(list);
        }
    }
}
