//! The commands one by one, without an agent: what each puts in force, and what
//! it prints.

use std::{collections::BTreeSet, thread, time::Duration};

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use matcher_common::abi::Setting;
use matcher_tests::{
    frames::Frame,
    lab::Lab,
    matcher::{Deployment, answer, beacon, subscriber},
    skip::skip,
};
use matcher_user::clock::boot_now_ns;
use serde_json::{Value, json};

fn is_skipped(test: &str) -> bool {
    Lab::obstacle()
        .inspect(|reason| skip(test, reason))
        .is_some()
}

/// Time of a hit, checked to be about now.
fn take_time(hit: &mut Value) -> Result<Timestamp> {
    let time = hit["time"].as_str().context("a time")?.parse()?;
    assert_eq!(hit["time"].as_str().map(str::len), Some(30), "nine digits");
    hit["time"] = json!("[TIME]");
    // Counted per CPU.
    assert!(hit["sequence"].is_u64(), "{hit}");
    hit["sequence"] = json!("[SEQUENCE]");
    Ok(time)
}

#[test]
fn each_matching_packet_is_one_hit_in_the_shape_of_the_contract() -> Result<()> {
    if is_skipped("each_matching_packet_is_one_hit_in_the_shape_of_the_contract") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    deployment.start()?;
    let before = Timestamp::now();
    let v6 = Frame::ethernet()
        .vlan(100)
        .ipv6(
            "2001:db8:100::7".parse::<std::net::Ipv6Addr>()?,
            "2001:db8:bad::1".parse::<std::net::Ipv6Addr>()?,
        )
        .icmpv6(128, 0)
        .build();
    let other_port = Frame::ethernet()
        .ipv4(subscriber(7), [198, 51, 100, 23])
        .tcp(1024, 80)
        .build();
    let legitimate = Frame::ethernet()
        .ipv4(subscriber(7), [192, 0, 2, 80])
        .tcp(1024, 443)
        .build();
    let udp = Frame::ethernet()
        .ipv4(subscriber(8), [198, 51, 100, 3])
        .udp(5000, 53)
        .build();
    let frames = [
        beacon(subscriber(7), 51413),
        other_port,
        legitimate,
        udp,
        v6,
    ];
    deployment.access()?.send_all(frames, 1000)?;
    deployment
        .core()?
        .send_all([answer(subscriber(7), 51413)], 1000)?;
    let ended = deployment
        .matcher(["tail", "--once", "--json"])?
        .succeeded();
    assert_eq!(ended.err, "");
    let mut shown = String::new();
    let mut last = before;
    for mut hit in ended.json_lines()? {
        let time = take_time(&mut hit)?;
        assert!(
            time >= last - SignedDuration::from_millis(5),
            "in order, and not before"
        );
        last = time;
        shown += &format!("{hit}\n");
    }
    assert!(last <= Timestamp::now() + SignedDuration::from_millis(5));
    insta::assert_snapshot!("hits", shown);
    let status = deployment.status()?;
    assert_eq!(
        status["hits"],
        json!({"matched": 4, "delivered": 4, "folded": 0, "lost": 0})
    );
    assert_eq!(status["packets"], 6);
    // What was printed is released.
    assert_eq!(deployment.hits()?.len(), 0);
    Ok(())
}

/// Indicator ids by their values, from the catalog.
fn id_of(deployment: &Deployment, address: &str) -> Result<Option<u64>> {
    let found = deployment
        .matcher(["feed", "lookup", address, "--json"])?
        .succeeded();
    let found: Value = serde_json::from_str(&found.out)?;
    let text = found.to_string();
    Ok(text.split_once("\"id\":").and_then(|(_, rest)| {
        rest.split(|c: char| !c.is_ascii_digit())
            .next()?
            .parse()
            .ok()
    }))
}

#[test]
fn a_changed_feed_is_in_force_at_once_and_ids_stay() -> Result<()> {
    if is_skipped("a_changed_feed_is_in_force_at_once_and_ids_stay") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    deployment.start()?;
    let access = deployment.access()?;
    let to = |remote: [u8; 4]| {
        Frame::ethernet()
            .ipv4(subscriber(7), remote)
            .tcp(1024, 443)
            .build()
    };
    let (kept, gone, new) = ([198, 51, 100, 23], [198, 51, 100, 3], [192, 0, 2, 66]);
    let kept_id = id_of(&deployment, "198.51.100.23:443")?.context("an id")?;
    let gone_id = id_of(&deployment, "198.51.100.3")?.context("an id")?;
    access.send_all([to(kept), to(gone), to(new)], 1000)?;
    let remotes = |hits: Vec<Value>| -> Vec<(String, u64)> {
        hits.iter()
            .map(|hit| {
                (
                    hit["remote_ip"].as_str().unwrap_or_default().to_owned(),
                    hit["indicator"]["id"].as_u64().unwrap_or_default(),
                )
            })
            .collect()
    };
    assert_eq!(
        remotes(deployment.hits()?),
        [
            ("198.51.100.23".to_owned(), kept_id),
            ("198.51.100.3".to_owned(), gone_id)
        ]
    );

    deployment.write("cc.txt", "198.51.100.23:443\n2001:db8:bad::1\n192.0.2.66\n")?;
    let loaded = deployment.matcher(["load"])?.succeeded();
    insta::assert_snapshot!("load", deployment.redacted(&(loaded.out + &loaded.err)));
    access.send_all([to(kept), to(gone), to(new)], 1000)?;
    let hits = remotes(deployment.hits()?);
    let new_id = id_of(&deployment, "192.0.2.66")?.context("an id")?;
    assert_eq!(
        hits,
        [
            ("198.51.100.23".to_owned(), kept_id),
            ("192.0.2.66".to_owned(), new_id)
        ]
    );
    assert_ne!(new_id, gone_id, "an id is never given twice");
    assert_eq!(deployment.status()?["generation"], 2);

    // What comes back has its id again; --feed loads exactly what it names.
    deployment.write("back.txt", "198.51.100.0/28\n")?;
    deployment
        .matcher(["load", "--feed", "plain:back.txt"])?
        .succeeded();
    access.send_all([to(kept), to(gone), to(new)], 1000)?;
    assert_eq!(
        remotes(deployment.hits()?),
        [("198.51.100.3".to_owned(), gone_id)]
    );
    Ok(())
}

#[test]
fn a_broken_feed_keeps_its_last_good_list_while_others_change() -> Result<()> {
    if is_skipped("a_broken_feed_keeps_its_last_good_list_while_others_change") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    deployment.configure(
        "[[feed]]",
        "[[feed]]\nname = \"other\"\nformat = \"plain\"\npath = \"other.txt\"\n\n[[feed]]",
    )?;
    deployment.write("other.txt", "192.0.2.66\n")?;
    deployment.start()?;
    deployment.write("cc.txt", "<html>\nblocked\n")?;
    deployment.write("other.txt", "192.0.2.67\n")?;
    let loaded = deployment.matcher(["load"])?.failed(1);
    insta::assert_snapshot!(
        "load_broken",
        deployment.redacted(&(loaded.err + &loaded.out))
    );
    let to = |remote: [u8; 4]| {
        Frame::ethernet()
            .ipv4(subscriber(7), remote)
            .tcp(1024, 443)
            .build()
    };
    deployment.access()?.send_all(
        [
            to([198, 51, 100, 23]),
            to([192, 0, 2, 66]),
            to([192, 0, 2, 67]),
        ],
        1000,
    )?;
    let remotes: Vec<_> = deployment
        .hits()?
        .iter()
        .map(|hit| hit["remote_ip"].clone())
        .collect();
    assert_eq!(remotes, [json!("198.51.100.23"), json!("192.0.2.67")]);
    Ok(())
}

#[test]
fn consent_is_in_force_when_the_command_returns() -> Result<()> {
    if is_skipped("consent_is_in_force_when_the_command_returns") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    deployment.write("opt-out.list", "# by letter\n203.0.113.9\n")?;
    deployment.start()?;
    let access = deployment.access()?;
    let frames = [7, 8, 9].map(|host| beacon(subscriber(host), 1024));
    let hit = || -> Result<Vec<Value>> {
        access.send_all(&frames, 1000)?;
        let hits = deployment.hits()?;
        Ok(hits
            .iter()
            .map(|hit| hit["subscriber_ip"].clone())
            .collect())
    };
    let (seven, eight, nine) = (
        json!("203.0.113.7"),
        json!("203.0.113.8"),
        json!("203.0.113.9"),
    );
    let both = [seven, eight.clone()];
    let only_eight = [eight];
    assert_eq!(hit()?, both);

    let out = deployment
        .matcher(["consent", "opt-out", "203.0.113.7"])?
        .succeeded();
    assert_eq!(
        out.out,
        "203.0.113.7: opted out for detect,notify,vulnerable,block,discover\n"
    );
    assert_eq!(hit()?, only_eight);
    // Other purposes than detection leave detection as it is.
    deployment
        .matcher(["consent", "opt-out", "203.0.113.8", "--purpose", "notify"])?
        .succeeded();
    assert_eq!(hit()?, only_eight);

    let back = deployment
        .matcher(["consent", "opt-in", "203.0.113.7"])?
        .succeeded();
    assert_eq!(back.out, "203.0.113.7: its opt-out is taken back\n");
    assert_eq!(hit()?, both);

    // The operator's own list says otherwise: told, with its line.
    let still = deployment
        .matcher(["consent", "opt-in", "203.0.113.9"])?
        .failed(1);
    insta::assert_snapshot!(
        "still_opted_out",
        deployment.redacted(&(still.err + &still.out))
    );
    assert!(!hit()?.contains(&nine));

    let list = deployment.write("import.list", "203.0.113.7\n2001:db8:100:7::/64\n")?;
    let imported = deployment
        .command(["consent", "import"])
        .arg(&list)
        .output()?;
    let imported = matcher_tests::matcher::Ended::from(imported).succeeded();
    assert_eq!(
        deployment.redacted(&imported.out),
        "2 new lines in [FOLDER]/state/opt-out.list, 0 were there already\n"
    );
    assert_eq!(hit()?, only_eight);
    let shown = deployment.matcher(["consent", "show"])?.succeeded();
    insta::assert_snapshot!("consent_show", deployment.redacted(&shown.out));
    assert_eq!(
        deployment.counter("matched")? + deployment.counter("opted-out")?,
        deployment.status()?["packets"].as_u64().unwrap_or(0)
    );
    Ok(())
}

#[test]
fn the_emergency_stop_lasts_until_it_is_ended() -> Result<()> {
    if is_skipped("the_emergency_stop_lasts_until_it_is_ended") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    deployment.start()?;
    let access = deployment.access()?;
    deployment.matcher(["stop-matching"])?.succeeded();
    access.send_all([beacon(subscriber(7), 1)], 1000)?;
    assert_eq!(deployment.counter("stopped")?, 1);
    // Neither a load nor attaching again ends it.
    let loaded = deployment.matcher(["load"])?.succeeded();
    assert!(
        loaded.err.contains("the emergency stop is on"),
        "{}",
        loaded.err
    );
    deployment.matcher(["attach"])?.succeeded();
    access.send_all([beacon(subscriber(7), 2)], 1000)?;
    assert_eq!(deployment.counter("stopped")?, 2);
    let status = deployment.matcher(["status"])?.succeeded();
    assert!(status.out.contains("STOPPED"), "{}", status.out);
    deployment
        .matcher(["stop-matching", "--resume"])?
        .succeeded();
    access.send_all([beacon(subscriber(7), 3)], 1000)?;
    let ports: Vec<_> = deployment
        .hits()?
        .iter()
        .map(|hit| hit["subscriber_port"].clone())
        .collect();
    assert_eq!(ports, [json!(3)]);
    Ok(())
}

/// The dead-man's switch: with the agent killed, the kernel matches on for at
/// most `consent.deadline`, and then no packet more.
#[test]
fn with_the_agent_killed_matching_stops_at_the_deadline() -> Result<()> {
    if is_skipped("with_the_agent_killed_matching_stops_at_the_deadline") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    deployment.configure("[consent]", "[consent]\ndeadline = \"1m\"")?;
    deployment.agent()?.kill()?;
    let mut tables = deployment.tables()?;
    let left = tables
        .setting(Setting::ConsentDeadline)?
        .saturating_sub(boot_now_ns());
    assert!((1..=60_000_000_000).contains(&left), "{left} ns");

    let access = deployment.access()?;
    let mut sent = access.send_all([beacon(subscriber(7), 1)], 1_000)?;
    // As if the minute were nearly over.
    let deadline = boot_now_ns() + 300_000_000;
    tables.set(Setting::ConsentDeadline, deadline)?;
    // The program's clock is at most a tick of the kernel's timer old.
    const TICK_NS: u64 = 10_000_000;
    let mut outlasted = 0;
    for port in 2..=u16::MAX {
        outlasted += u32::from(boot_now_ns() > deadline + TICK_NS);
        sent += access.send_all([beacon(subscriber(7), port)], 1_000)?;
        if outlasted == 500 {
            break;
        }
        // A thousand a second or fewer.
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(outlasted, 500, "the traffic outlasts the deadline");
    let ports: Vec<_> = deployment
        .hits()?
        .iter()
        .filter_map(|hit| hit["subscriber_port"].as_u64())
        .collect();
    let expired = deployment.counter("consent-expired")?;
    assert!(
        !ports.is_empty() && expired >= u64::from(outlasted),
        "{} hits, {expired} expired",
        ports.len()
    );
    assert_eq!(ports.len() as u64 + expired, sent);
    // Every packet before the deadline, none after it.
    assert!(ports.iter().copied().eq(1..=ports.len() as u64));
    let off = deployment.matcher(["status"])?.succeeded();
    assert!(off.out.contains("matching     OFF"), "{}", off.out);
    // Reading the lists again starts it again.
    deployment.matcher(["load"])?.succeeded();
    access.send_all([beacon(subscriber(7), 2_000)], 1_000)?;
    assert_eq!(deployment.hits()?.len(), 1);
    Ok(())
}

#[test]
fn an_opt_in_deployment_matches_only_those_who_consent() -> Result<()> {
    if is_skipped("an_opt_in_deployment_matches_only_those_who_consent") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    deployment.configure(
        "model = \"opt-out\"\nnotice_since = 2026-01-01T00:00:00Z\nlists = [\"opt-out.list\"]",
        "model = \"opt-in\"\nlists = [\"consents.list\"]",
    )?;
    deployment.write("consents.list", "203.0.113.7 purposes=detect,notify\n")?;
    deployment.start()?;
    let access = deployment.access()?;
    let hit = || -> Result<BTreeSet<String>> {
        access.send_all([7, 8, 9].map(|host| beacon(subscriber(host), 1024)), 1000)?;
        let hits = deployment.hits()?;
        Ok(hits
            .iter()
            .filter_map(|hit| hit["subscriber_ip"].as_str().map(str::to_owned))
            .collect())
    };
    let set = |addresses: &[&str]| addresses.iter().map(|a| (*a).to_owned()).collect();
    assert_eq!(hit()?, set(&["203.0.113.7"]));
    deployment
        .matcher(["consent", "opt-in", "203.0.113.8"])?
        .succeeded();
    assert_eq!(hit()?, set(&["203.0.113.7", "203.0.113.8"]));
    // Refusing wins over the operator's list of consents.
    deployment
        .matcher(["consent", "opt-out", "203.0.113.7"])?
        .succeeded();
    assert_eq!(hit()?, set(&["203.0.113.8"]));
    Ok(())
}
