//! Repetition from the kernel to the candidate (design decision 7): every folded
//! packet is stored once, wherever the agent is killed, and nothing of those who
//! opt out.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use matcher_tests::{
    lab::Lab,
    matcher::{Deployment, answer, beacon, subscriber, wait_until},
    skip::skip,
};
use matcher_user::{
    clock::WallOffset,
    drain::Names,
    indicators::Catalog,
    kernel::{attach, ring::Ring},
    store::{RingIdentity, Store},
};
use rustix::process::Signal;
use serde_json::Value;

/// A deployment whose kernel folds.
fn folding_deployment(window: &str) -> Result<Deployment> {
    let deployment = Deployment::new()?;
    deployment.configure("window = \"0s\"", &format!("window = \"{window}\""))?;
    Ok(deployment)
}

fn is_skipped(test: &str) -> bool {
    Lab::obstacle()
        .inspect(|reason| skip(test, reason))
        .is_some()
}

fn stored_packets(deployment: &Deployment) -> Result<u64> {
    let hits = deployment.stored()?;
    Ok(hits.iter().map(|hit| u64::from(hit.packets)).sum())
}

/// As if they came in on the access interface, as fast as the kernel decides.
fn run_on_access(deployment: &Deployment, frame: &[u8], times: u32) -> Result<()> {
    let edge = deployment.lab().edge();
    edge.run(|| -> Result<()> {
        let ifindex = attach::ifindex("access0")?;
        deployment.pins().run(frame, ifindex, times)?;
        Ok(())
    })?
}

#[test]
fn a_million_packets_reach_the_candidate_the_last_window_too() -> Result<()> {
    let test = "a_million_packets_reach_the_candidate_the_last_window_too";
    if is_skipped(test) {
        return Ok(());
    }
    let deployment = folding_deployment("1s")?;
    let candidates = deployment.folder().join("candidates");
    let mut agent = deployment.agent_with(fs::File::create(&candidates)?, &["run"])?;
    agent.wait_for_log("indicators in force")?;
    let frame = beacon(subscriber(7), 1);
    deployment.access()?.send_all([&frame], 1_000)?;
    deployment
        .core()?
        .send_all([answer(subscriber(7), 1)], 1_000)?;
    run_on_access(&deployment, &frame, 999_999)?;
    // Nothing comes any more: time alone brings it.
    wait_until("the last window is stored", || {
        Ok(stored_packets(&deployment)? == 1_000_001)
    })?;
    let records = deployment.stored()?.len();
    assert!(records < 50, "{records} records of a million packets");
    let hits = &deployment.status()?["hits"];
    assert_eq!(hits["matched"], 1_000_001);
    assert_eq!(hits["lost"], 0);
    let sum = hits["delivered"].as_u64().context("delivered")?
        + hits["folded"].as_u64().context("folded")?;
    assert_eq!(sum, 1_000_001);

    // What is folded in the moment of the end is not left behind either.
    run_on_access(&deployment, &frame, 500)?;
    agent.signal(Signal::TERM)?;
    assert_eq!(agent.wait()?, 0);
    let text = fs::read_to_string(&candidates)?;
    let last: Value = serde_json::from_str(text.lines().last().context("a candidate")?)?;
    assert_eq!(last["contacts"]["count"], 1_000_500, "{last}");
    Ok(())
}

#[test]
fn a_generation_is_stored_once_wherever_the_agent_is_killed() -> Result<()> {
    let test = "a_generation_is_stored_once_wherever_the_agent_is_killed";
    if is_skipped(test) {
        return Ok(());
    }
    let deployment = folding_deployment("10m")?;
    let agent = deployment.agent()?;
    let mut sent = 0;
    let mut send = |host: u8, times: u32| -> Result<()> {
        sent += u64::from(times);
        run_on_access(&deployment, &beacon(subscriber(host), 1), times)
    };
    send(7, 1_000)?;
    agent.kill()?;
    let tables = || deployment.tables();
    let ring = RingIdentity(Ring::open(&tables()?)?.id().0.clone());
    let path = deployment.folder().join("state/hits.db");
    let stored = |sent: u64| {
        wait_until("all is stored", || Ok(stored_packets(&deployment)? == sent))?;
        // And no more comes.
        thread::sleep(Duration::from_millis(300));
        assert_eq!(stored_packets(&deployment)?, sent);
        anyhow::Ok(())
    };

    // Closed, and killed before it was stored.
    tables()?.close_folds()?;
    send(7, 1_000)?;
    let agent = deployment.agent()?;
    stored(2_000)?;

    // Stored, and killed before it was emptied.
    send(8, 1_000)?;
    agent.kill()?;
    let mut kernel = tables()?;
    let closed = kernel.close_folds()?;
    let (mut names, offset) = (Names::default(), WallOffset::measure());
    let hits: Vec<_> = kernel
        .folds(closed)?
        .iter()
        .map(|summary| names.hit(summary, offset, &Catalog::default(), |_| None))
        .collect();
    assert_eq!(hits.len(), 1);
    Store::open(&path, "edge-1")?.commit_folds(&ring, closed, &hits)?;
    send(8, 1_000)?;
    let agent = deployment.agent()?;
    stored(4_000)?;

    // Emptied, and killed before anything else.
    agent.kill()?;
    let closed = kernel.close_folds()?;
    kernel.clear_folds(closed)?;
    send(8, 1_000)?;
    let mut agent = deployment.agent()?;
    stored(5_000)?;
    assert_eq!(deployment.status()?["hits"]["lost"], 0);
    // Nor does anything come with its end.
    agent.signal(Signal::TERM)?;
    assert_eq!(agent.wait()?, 0);
    assert_eq!(stored_packets(&deployment)?, sent);
    assert_eq!(deployment.counter("matched")?, sent);
    Ok(())
}

#[test]
fn kills_at_any_moment_lose_no_folded_packet_and_double_none() -> Result<()> {
    let test = "kills_at_any_moment_lose_no_folded_packet_and_double_none";
    if is_skipped(test) {
        return Ok(());
    }
    let deployment = folding_deployment("1s")?;
    let mut agent = deployment.agent()?;
    let done = AtomicBool::new(false);
    let mut kills = 0;
    let sent = thread::scope(|scope| -> Result<u64> {
        let sending = scope.spawn(|| -> Result<u64> {
            let mut sent = 0;
            while !done.load(Ordering::SeqCst) {
                let port = 1 + (sent / 100 % 200) as u16;
                run_on_access(&deployment, &beacon(subscriber(7), port), 100)?;
                sent += 100;
                thread::sleep(Duration::from_millis(2));
            }
            Ok(sent)
        });
        let killing = || -> Result<()> {
            while kills < 5 {
                thread::sleep(Duration::from_millis(900 + 170 * kills));
                agent.kill()?;
                kills += 1;
                agent = deployment.agent()?;
            }
            Ok(())
        };
        let killed = killing();
        done.store(true, Ordering::SeqCst);
        let sent = sending.join().expect("the sender does not panic");
        killed?;
        sent
    })?;
    // The one before went with the scope.
    let mut agent = deployment.agent()?;
    wait_until("everything is stored", || {
        Ok(stored_packets(&deployment)? >= sent)
    })?;
    // What it holds yet comes with its end.
    agent.signal(Signal::TERM)?;
    assert_eq!(agent.wait()?, 0);
    assert_eq!(stored_packets(&deployment)?, sent);
    assert_eq!(deployment.counter("matched")?, sent);
    assert_eq!(deployment.counter("lost")?, 0);
    assert!(deployment.counter("folded")? > 0);
    Ok(())
}

#[test]
fn of_those_who_opt_out_nothing_folded_is_kept() -> Result<()> {
    let test = "of_those_who_opt_out_nothing_folded_is_kept";
    if is_skipped(test) {
        return Ok(());
    }
    let deployment = folding_deployment("10m")?;
    let _agent = deployment.agent()?;
    for host in [7, 8] {
        for port in 1..=100 {
            run_on_access(&deployment, &beacon(subscriber(host), port), 10)?;
        }
    }
    deployment
        .matcher(["consent", "opt-out", "203.0.113.7"])?
        .succeeded();
    // When the command returns the kernel holds nothing of theirs.
    let mut kernel = deployment.tables()?;
    for _ in 0..2 {
        let closed = kernel.close_folds()?;
        assert_eq!(kernel.folds(closed)?, []);
    }
    wait_until("those of the other are stored", || {
        Ok(stored_packets(&deployment)? == 1_000)
    })?;
    let stored = deployment.stored()?;
    assert!(stored.iter().all(|hit| hit.subscriber.ip == subscriber(8)));
    assert!(stored.iter().any(|hit| hit.several_flows));
    assert_eq!(deployment.counter("matched")?, 2_000);
    Ok(())
}

#[test]
fn tail_without_an_agent_prints_what_was_folded_once() -> Result<()> {
    let test = "tail_without_an_agent_prints_what_was_folded_once";
    if is_skipped(test) {
        return Ok(());
    }
    let deployment = folding_deployment("10m")?;
    deployment.start()?;
    run_on_access(&deployment, &beacon(subscriber(7), 1), 1_000)?;
    let packets = |hits: Vec<Value>| -> Vec<u64> {
        hits.iter()
            .filter_map(|hit| hit["packets"].as_u64())
            .collect()
    };
    assert_eq!(packets(deployment.hits()?), [1, 999]);
    assert_eq!(packets(deployment.hits()?), [0; 0]);
    let hits = &deployment.status()?["hits"];
    assert_eq!(
        *hits,
        serde_json::json!({"matched": 1000, "delivered": 1, "folded": 999, "lost": 0})
    );
    Ok(())
}
