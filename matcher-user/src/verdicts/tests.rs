use super::*;
use crate::{
    feeds::{Format, parse},
    indicators::Listed,
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_795_305_600 + second).unwrap()
}

/// Two entries of one address, a prefix, an address of a STIX feed, one of a
/// MISP feed, a name.
fn catalog() -> Catalog {
    let own = parse(
        Format::Plain,
        b"198.51.100.23 proto=tcp port=443\n198.51.100.23:8080\n198.51.100.23 proto=udp port=8080\n\
          192.0.2.0/24\n2001:db8:bad::1\n203.0.113.66\n198.18.0.9\n",
    )
    .entries;
    let mut stix = parse(Format::Plain, b"198.51.100.77\n").entries;
    stix[0].said.id = Some("indicator--8e2e2d2b-17d4-4cbf-938f-98ee46b3cd3f".into());
    stix[0].said.tlp = Some(Tlp::Green);
    let mut misp = parse(
        Format::Plain,
        b"198.51.100.88:443\n198.51.100.99\n198.51.100.66\n",
    )
    .entries;
    misp[0].said.id = Some("5f1a9c10-1d2c-4b1a-8a53-0a1b2c3d4e5f".into());
    misp[1].said.tlp = Some(Tlp::Red);
    misp[2].said.tlp = Some(Tlp::Amber);
    let names = parse(Format::Rpz, b"cc.example.com CNAME .\n").names;
    let feeds = [
        Listed {
            feed: "own",
            entries: &own,
            names: &names,
        },
        ("stix", stix.as_slice()).into(),
        ("misp", misp.as_slice()).into(),
    ];
    IndicatorSet::merge(&Catalog::default(), &feeds, at(0))
        .unwrap()
        .1
}

fn asked(value: &str, verdict: Opinion) -> AskedVerdict {
    AskedVerdict {
        value: value.to_owned(),
        id: None,
        verdict,
        by: "A. Person".to_owned(),
        why: "203.0.113.7 calls a mirror of ours there".to_owned(),
    }
}

fn give(verdicts: &mut Verdicts, value: &str, verdict: Opinion, second: i64) {
    let verdict = asked(value, verdict).about(&catalog(), at(second)).unwrap();
    verdicts.push(verdict);
}

fn values(set: &IndicatorSet) -> Vec<String> {
    set.iter()
        .map(|it| {
            let value = Value::Address(it.value);
            let only = Some(it.qualifier);
            Subject { value, only }.to_string()
        })
        .collect()
}

#[test]
fn a_false_positive_is_out_until_it_is_taken_back() {
    let all = catalog().current();
    let mut verdicts = Verdicts::default();
    assert_eq!(values(&verdicts.refuted().taken_from(&all)), values(&all));
    give(&mut verdicts, "198.51.100.23", Opinion::FalsePositive, 1);
    let left = values(&verdicts.refuted().taken_from(&all));
    assert_eq!(left.len(), values(&all).len() - 3);
    assert!(!left.iter().any(|it| it.starts_with("198.51.100.23 ")));
    give(&mut verdicts, "198.51.100.23", Opinion::Clear, 2);
    assert_eq!(values(&verdicts.refuted().taken_from(&all)), values(&all));
    assert_eq!(verdicts.in_force().count(), 0);
}

#[test]
fn a_verdict_on_one_entry_leaves_the_others() {
    let all = catalog().current();
    let mut verdicts = Verdicts::default();
    give(
        &mut verdicts,
        "198.51.100.23:443",
        Opinion::FalsePositive,
        1,
    );
    let left = values(&verdicts.refuted().taken_from(&all));
    assert_eq!(left.len(), values(&all).len() - 1);
    assert!(!left.contains(&"198.51.100.23 tcp port 443".to_owned()));
    // The last that speaks of an entry holds, wider or narrower.
    give(&mut verdicts, "198.51.100.23", Opinion::Clear, 2);
    assert_eq!(values(&verdicts.refuted().taken_from(&all)), values(&all));
    give(&mut verdicts, "198.51.100.23", Opinion::FalsePositive, 3);
    give(&mut verdicts, "198.51.100.23:443", Opinion::Confirmed, 4);
    let left = values(&verdicts.refuted().taken_from(&all));
    assert!(left.contains(&"198.51.100.23 tcp port 443".to_owned()));
    assert_eq!(left.len(), values(&all).len() - 2);
}

#[test]
fn an_entry_whose_validity_moved_is_still_refuted() {
    let mut verdicts = Verdicts::default();
    give(&mut verdicts, "2001:db8:bad::1", Opinion::FalsePositive, 1);
    let entries = parse(
        Format::Plain,
        b"2001:db8:bad::1 until=2027-01-01T00:00:00Z\n",
    )
    .entries;
    let (set, _) = IndicatorSet::merge(&catalog(), &[("own", entries.as_slice())], at(2)).unwrap();
    assert_eq!(set.len(), 1);
    assert!(verdicts.refuted().taken_from(&set).is_empty());
}

#[test]
fn a_refuted_name_is_out() {
    let all = catalog().current();
    assert_eq!(all.names().len(), 1);
    let mut verdicts = Verdicts::default();
    give(&mut verdicts, "cc.example.com", Opinion::FalsePositive, 1);
    assert_eq!(verdicts.refuted().taken_from(&all).names().len(), 0);
}

#[test]
fn what_cannot_be_judged_is_told_with_the_way_out() {
    let catalog = catalog();
    let told = |asked: AskedVerdict| asked.about(&catalog, at(1)).unwrap_err().to_string();
    let plain = |value: &str| asked(value, Opinion::Confirmed);
    let messages = [
        told(plain("198.51.100.24")),
        told(plain("192.0.2.7")),
        told(plain("198.51.100.23:8080")),
        told(plain("198.51.100.23:25")),
        told(plain("192.0.2.7/24")),
        told(plain("no such thing")),
        told(plain("nowhere.example.net")),
        told(AskedVerdict {
            id: Some(999),
            ..plain("192.0.2.0/24")
        }),
        told(AskedVerdict {
            by: " ".to_owned(),
            ..plain("192.0.2.0/24")
        }),
        told(AskedVerdict {
            why: "a\nb".to_owned(),
            ..plain("192.0.2.0/24")
        }),
    ];
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn verdicts_are_read_back_as_written_and_a_damaged_line_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state/verdicts.jsonl");
    assert_eq!(Verdicts::load(&path).unwrap(), Verdicts::default());
    let verdicts = exchanged();
    verdicts.save(&path).unwrap();
    assert_eq!(Verdicts::load(&path).unwrap(), verdicts);
    insta::assert_snapshot!("file", std::fs::read_to_string(&path).unwrap());
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{text}{{\"at\":")).unwrap();
    let error = Verdicts::load(&path).unwrap_err().to_string();
    assert!(error.contains("verdicts.jsonl:13: no verdict"), "{error}");
}

/// Every kind of verdict that can be exchanged, and such that must not.
fn exchanged() -> Verdicts {
    use Opinion::{Clear, Confirmed, FalsePositive};
    let mut verdicts = Verdicts::default();
    for (second, (value, verdict)) in [
        ("198.51.100.23:443", Confirmed),
        ("192.0.2.0/24", FalsePositive),
        ("198.51.100.77", FalsePositive),
        ("198.51.100.88:443", Confirmed),
        ("cc.example.com", Confirmed),
        ("2001:db8:bad::1", Confirmed),
        ("2001:db8:bad::1", FalsePositive),
        ("198.18.0.9", FalsePositive),
        ("198.18.0.9", Clear),
        // In own space, marked red, and marked amber.
        ("203.0.113.66", Confirmed),
        ("198.51.100.99", FalsePositive),
        ("198.51.100.66", FalsePositive),
    ]
    .into_iter()
    .enumerate()
    {
        give(
            &mut verdicts,
            value,
            verdict,
            i64::try_from(second).unwrap(),
        );
    }
    verdicts
}

fn own() -> Vec<IpNet> {
    vec!["203.0.113.0/24".parse().unwrap()]
}

fn shared(format: ShareFormat, organisation: Option<&str>) -> Shared {
    share(&exchanged(), format, None, organisation, &own(), Tlp::Green)
}

#[test]
fn what_is_marked_amber_leaves_on_somebodys_word_alone() {
    let value = "198.51.100.66";
    for format in [ShareFormat::Stix, ShareFormat::MispSighting] {
        let kept = shared(format, None);
        assert!(!kept.text.contains(value), "{format}");
        assert!(kept.withheld.iter().any(|it| it.starts_with(value)));
        let given = share(&exchanged(), format, None, None, &own(), Tlp::Amber);
        assert!(given.text.contains(value), "{format}");
        assert_eq!(given.verdicts, kept.verdicts + 1);
        // Red is red, whatever is asked for; green can be kept back as well.
        let all = share(&exchanged(), format, None, None, &own(), Tlp::Red);
        assert!(!all.text.contains("198.51.100.99"), "{format}");
        let clear = share(&exchanged(), format, None, None, &own(), Tlp::Clear);
        assert!(
            clear
                .withheld
                .iter()
                .any(|it| it.starts_with("198.51.100.77: is marked TLP:GREEN"))
        );
    }
}

#[test]
fn the_stix_bundle_reads_well() {
    let shared = shared(ShareFormat::Stix, Some("Example ISP"));
    insta::assert_snapshot!("stix", shared.text);
    insta::assert_snapshot!("stix_withheld", shared.withheld.join("\n"));
}

#[test]
fn the_misp_sightings_read_well() {
    let shared = shared(ShareFormat::MispSighting, Some("Example ISP"));
    insta::assert_snapshot!("misp", shared.text);
    insta::assert_snapshot!("misp_withheld", shared.withheld.join("\n"));
}

#[test]
fn what_is_shared_holds_no_subscriber_and_no_words_of_the_judge() {
    for format in [ShareFormat::Stix, ShareFormat::MispSighting] {
        for organisation in [None, Some("Example ISP")] {
            let text = shared(format, organisation).text;
            for secret in ["203.0.113.", "A. Person", "mirror", "198.51.100.99"] {
                assert!(!text.contains(secret), "{format}: {secret} in {text}");
            }
        }
    }
}

#[test]
fn only_verdicts_since_a_time_are_shared_and_none_make_an_empty_bundle() {
    let some = share(
        &exchanged(),
        ShareFormat::MispSighting,
        Some(at(4)),
        None,
        &own(),
        Tlp::Green,
    );
    // The name, and the address that was confirmed first.
    assert_eq!(some.verdicts, 2);
    let none = share(
        &exchanged(),
        ShareFormat::Stix,
        Some(at(99)),
        Some("Example ISP"),
        &own(),
        Tlp::Green,
    );
    assert_eq!(none.verdicts, 0);
    assert!(!none.text.contains("objects"));
}

/// Whoever reads our STIX gets what was confirmed, and nothing else.
#[test]
fn our_own_reader_takes_the_confirmed_from_the_bundle_and_not_the_refuted() {
    let text = shared(ShareFormat::Stix, None).text;
    let parsed = parse(Format::Stix, text.as_bytes());
    assert_eq!(parsed.problems, []);
    let mut read: Vec<String> = parsed
        .entries
        .iter()
        .map(|it| {
            let value = Value::Address(it.value);
            let only = Some(it.qualifier);
            Subject { value, only }.to_string()
        })
        .collect();
    read.sort();
    assert_eq!(
        read,
        ["198.51.100.23 tcp port 443", "198.51.100.88 port 443"]
    );
    let names: Vec<String> = parsed.names.iter().map(|it| it.value.to_string()).collect();
    assert_eq!(names, ["cc.example.com"]);
}

#[test]
fn a_verdict_exported_twice_is_the_same_object() {
    let once = shared(ShareFormat::Stix, Some("Example ISP"));
    assert_eq!(once, shared(ShareFormat::Stix, Some("Example ISP")));
    let other = shared(ShareFormat::Stix, Some("Other ISP"));
    assert_ne!(once.text, other.text);
}
