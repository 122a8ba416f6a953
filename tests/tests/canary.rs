//! The canary (design decision 11): it comes through where all is well, and
//! names the part of the way that is broken where it is not.

use std::{fs, process::Command};

use anyhow::{Context, Result};
use matcher_common::abi::Setting;
use matcher_tests::{
    lab::Lab,
    matcher::{Deployment, beacon, subscriber, wait_until},
    skip::skip,
};
use matcher_user::clock::boot_now_ns;
use rustix::process::Signal;
use serde_json::{Value, json};

fn is_skipped(test: &str) -> bool {
    Lab::obstacle()
        .inspect(|reason| skip(test, reason))
        .is_some()
}

/// With a canary that is sent once, when the agent has started.
fn deployment() -> Result<Deployment> {
    let deployment = Deployment::new()?;
    deployment.configure("[[feed]]", "[canary]\nevery = \"24h\"\n\n[[feed]]")?;
    Ok(deployment)
}

fn canary(deployment: &Deployment) -> Result<Value> {
    let ended = deployment.matcher(["canary", "--json"])?;
    let report: Value = serde_json::from_str(&ended.out).with_context(|| format!("{ended:?}"))?;
    assert_eq!(ended.code, i32::from(report["ok"] == false), "{report}");
    Ok(report)
}

/// The stages that are in trouble.
fn stages(report: &Value) -> Vec<&str> {
    report["troubles"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|trouble| trouble["stage"].as_str())
        .collect()
}

#[test]
fn the_canary_comes_through_and_leaves_no_trace() -> Result<()> {
    if is_skipped("the_canary_comes_through_and_leaves_no_trace") {
        return Ok(());
    }
    let deployment = deployment()?;
    // Its hits are neither folded nor bounded.
    deployment.configure("window = \"0s\"", "window = \"10m\"\nmax_events = 1")?;
    let out = deployment.folder().join("candidates");
    let mut agent = deployment.agent_with(fs::File::create(&out)?, &["run"])?;
    agent.wait_for_log("indicators in force")?;
    // The timer's first.
    wait_until("the timer sends it", || {
        Ok(deployment.status()?["canary"]["last"]["ok"] == true)
    })?;
    for _ in 0..3 {
        let report = canary(&deployment)?;
        assert_eq!(report["ok"], true, "{report}");
        let names: Vec<&Value> = report["interfaces"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|it| &it["name"])
            .collect();
        assert_eq!(names, ["access0", "core0"], "one each way");
        assert!(report["interfaces"][0]["latency_us"].as_u64() < Some(5_000_000));
    }
    let status = deployment.status()?;
    assert_eq!(status["canary"]["sent"], 8);
    assert_eq!(status["canary"]["seen"], 8);
    // In the kernel they are packets like others.
    assert_eq!(
        status["hits"],
        json!({"matched": 8, "delivered": 8, "folded": 0, "lost": 0})
    );
    assert_eq!(deployment.stored()?, []);
    let text = deployment.matcher(["canary"])?.succeeded().out;
    assert!(text.starts_with("canary ok: access0 "), "{text}");
    let text = deployment.matcher(["status"])?.succeeded().out;
    assert!(text.contains("\ncanary       ok: access0 "), "{text}");

    // A subscriber's own packet to the canary's address is no evidence either.
    let frame = matcher_tests::frames::Frame::ethernet()
        .ipv4(subscriber(7), [198, 19, 255, 1])
        .udp(4_000, 9)
        .build();
    deployment
        .access()?
        .send_all([frame.clone(), frame.clone(), frame], 1_000)?;
    wait_until("each is seen", || {
        Ok(deployment.status()?["canary"]["seen"] == 13)
    })?;
    assert_eq!(deployment.stored()?, []);
    assert_eq!(
        deployment.status()?["hits"],
        json!({"matched": 13, "delivered": 13, "folded": 0, "lost": 0})
    );
    agent.signal(Signal::TERM)?;
    agent.wait()?;
    assert_eq!(fs::read_to_string(&out)?, "");
    Ok(())
}

#[test]
fn the_timer_sends_it_and_the_log_tells_of_a_failure_that_nobody_asked_for() -> Result<()> {
    if is_skipped("the_timer_sends_it_and_the_log_tells_of_a_failure_that_nobody_asked_for") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    // IPv6 takes the same way.
    deployment.configure(
        "[[feed]]",
        "[canary]\nevery = \"10s\"\nsubscriber = \"2001:db8:ffff::1\"\nremote = \
         \"2001:2::1\"\nport = 4000\n\n[[feed]]",
    )?;
    let mut agent = deployment.agent()?;
    wait_until("the timer has sent it twice, on two interfaces", || {
        let status = deployment.status()?;
        assert_ne!(status["canary"]["last"]["ok"], false, "{status}");
        Ok(status["canary"]["seen"].as_u64() >= Some(4))
    })?;
    deployment.matcher(["stop-matching"])?.succeeded();
    agent.wait_for_log("canary FAILED: stop: the emergency stop is on")?;
    let text = deployment.matcher(["status"])?.succeeded().out;
    assert!(text.contains("\ncanary       FAILED\n"), "{text}");
    deployment
        .matcher(["stop-matching", "--resume"])?
        .succeeded();
    agent.wait_for_log("canary ok: the way from packet to hit works again")
}

#[test]
fn a_program_that_was_taken_off_by_force_is_told() -> Result<()> {
    const NAME: &str = "a_program_that_was_taken_off_by_force_is_told";
    if is_skipped(NAME) {
        return Ok(());
    }
    let deployment = deployment()?;
    let _agent = deployment.agent()?;
    assert_eq!(canary(&deployment)?["ok"], true);
    let (access, _) = *deployment
        .tables()?
        .interfaces()?
        .iter()
        .find(|(_, settings)| settings.source_validated != 0)
        .context("the access interface")?;
    let link = deployment
        .pins()
        .directory()
        .join(format!("links/{access}"));
    let detached = Command::new("bpftool")
        .args(["link", "detach", "pinned"])
        .arg(&link)
        .output();
    match detached {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            skip(NAME, &String::from_utf8_lossy(&output.stderr));
            return Ok(());
        }
        Err(error) => {
            skip(NAME, &format!("no bpftool: {error}"));
            return Ok(());
        }
    }
    let report = canary(&deployment)?;
    assert_eq!(stages(&report), ["attached"], "{report}");
    assert!(
        report["troubles"][0]["what"]
            .as_str()
            .is_some_and(|what| what.starts_with("access0: the program was taken off")),
        "{report}"
    );
    assert_eq!(report["interfaces"][0]["name"], "core0", "{report}");
    Ok(())
}

#[test]
fn a_canary_that_is_taken_out_of_the_configuration_is_sent_no_more() -> Result<()> {
    if is_skipped("a_canary_that_is_taken_out_of_the_configuration_is_sent_no_more") {
        return Ok(());
    }
    let deployment = deployment()?;
    let agent = deployment.agent()?;
    assert_eq!(canary(&deployment)?["ok"], true);
    deployment.configure("[canary]\nevery = \"24h\"\n", "")?;
    agent.signal(Signal::HUP)?;
    wait_until("it is off", || {
        Ok(deployment.status()?["canary"] == Value::Null)
    })?;
    deployment.matcher(["canary"])?.failed(2);
    // Its packets are transit, and its rule is gone.
    let tables = deployment.tables()?;
    wait_until("the next generation", || {
        Ok(tables.setting(Setting::Generation)? == 2)
    })?;
    let address: ipnet::IpNet = "198.18.255.1/32".parse()?;
    assert!(!tables.subscribers()?.iter().any(|at| at.prefix == address));
    // And it comes back.
    deployment.configure("[[feed]]", "[canary]\n\n[[feed]]")?;
    agent.signal(Signal::HUP)?;
    wait_until("it is on", || {
        let ended = deployment.matcher(["canary", "--json"])?;
        Ok(ended.code == 0)
    })
}

#[test]
fn each_failure_is_told_by_its_stage() -> Result<()> {
    if is_skipped("each_failure_is_told_by_its_stage") {
        return Ok(());
    }
    let deployment = deployment()?;
    // Nobody there at all.
    assert_eq!(stages(&canary(&deployment)?), ["attached", "agent"]);
    let agent = deployment.agent()?;
    assert_eq!(canary(&deployment)?["ok"], true);

    deployment.matcher(["stop-matching"])?.succeeded();
    let report = canary(&deployment)?;
    assert_eq!(stages(&report), ["stop"], "{report}");
    let status = deployment.status()?;
    assert_eq!(status["canary"]["last"]["ok"], false);
    deployment
        .matcher(["stop-matching", "--resume"])?
        .succeeded();

    let mut tables = deployment.tables()?;
    let deadline = tables.setting(Setting::ConsentDeadline)?;
    tables.set(Setting::ConsentDeadline, boot_now_ns())?;
    assert_eq!(stages(&canary(&deployment)?), ["deadline"]);
    tables.set(Setting::ConsentDeadline, deadline)?;

    let generation = tables.setting(Setting::Generation)?;
    tables.set(Setting::Generation, 0)?;
    assert_eq!(stages(&canary(&deployment)?), ["generation"]);
    // The other half, which holds nothing.
    tables.set(Setting::Generation, generation + 1)?;
    let report = canary(&deployment)?;
    assert_eq!(stages(&report), ["match"], "{report}");
    tables.set(Setting::Generation, generation)?;

    // One interface does not hide the other.
    let (ifindex, settings) = *tables
        .interfaces()?
        .iter()
        .find(|(_, settings)| settings.source_validated != 0)
        .context("the access interface")?;
    tables.remove_interface(ifindex)?;
    let report = canary(&deployment)?;
    assert_eq!(stages(&report), ["interface"], "{report}");
    assert!(
        report["troubles"][0]["what"]
            .as_str()
            .is_some_and(|what| what.starts_with("access0 has no role")),
        "{report}"
    );
    assert_eq!(report["interfaces"][0]["name"], "core0");
    tables.set_interface(ifindex, settings)?;

    deployment
        .matcher(["consent", "opt-out", "198.18.255.1"])?
        .succeeded();
    assert_eq!(stages(&canary(&deployment)?), ["consent"]);
    deployment
        .matcher(["consent", "opt-in", "198.18.255.1"])?
        .succeeded();
    assert_eq!(canary(&deployment)?["ok"], true);

    agent.kill()?;
    assert_eq!(stages(&canary(&deployment)?), ["agent"]);
    Ok(())
}

#[test]
fn an_agent_that_hangs_and_a_full_ring_buffer_are_told() -> Result<()> {
    if is_skipped("an_agent_that_hangs_and_a_full_ring_buffer_are_told") {
        return Ok(());
    }
    let deployment = deployment()?;
    deployment.configure("[[feed]]", "[tables]\nring_bytes = 65536\n\n[[feed]]")?;
    let agent = deployment.agent()?;
    agent.signal(Signal::STOP)?;
    let frames = (1..=2_000).map(|port| beacon(subscriber(7), port));
    deployment.access()?.send_all(frames, 20_000)?;
    let report = canary(&deployment)?;
    assert_eq!(stages(&report), ["agent", "ring"], "{report}");
    assert!(
        report["troubles"][0]["what"]
            .as_str()
            .is_some_and(|what| what.starts_with("the agent does not answer")),
        "{report}"
    );
    agent.signal(Signal::CONT)?;
    wait_until("the agent has caught up", || {
        Ok(deployment.status()?["ring"][0] == 0)
    })?;
    assert_eq!(canary(&deployment)?["ok"], true);
    Ok(())
}

#[test]
fn without_a_canary_the_command_says_how_to_get_one() -> Result<()> {
    if is_skipped("without_a_canary_the_command_says_how_to_get_one") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    let _agent = deployment.agent()?;
    let refused = deployment.matcher(["canary"])?.failed(2);
    assert!(refused.err.contains("[canary]"), "{refused:?}");
    assert_eq!(deployment.status()?["canary"], Value::Null);
    Ok(())
}
