//! A destination that is allowed takes back what rested on it.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use matcher_tests::{
    lab::Lab,
    matcher::{Deployment, answer, beacon, subscriber, wait_until},
    skip::skip,
};
use rustix::process::Signal;
use serde_json::Value;

const ALLOW: &str =
    "[guards]\nallow = [{ value = \"198.51.100.23\", reason = \"ticket 4711\" }]\n\n[[feed]]\n";

fn is_skipped(test: &str) -> bool {
    Lab::obstacle()
        .inspect(|reason| skip(test, reason))
        .is_some()
}

/// Both directions of a flow that makes a candidate.
fn contact(deployment: &Deployment, host: u8, port: u16) -> Result<()> {
    deployment
        .access()?
        .send_all([beacon(subscriber(host), port)], 1_000)?;
    std::thread::sleep(Duration::from_millis(20));
    deployment
        .core()?
        .send_all([answer(subscriber(host), port)], 1_000)?;
    Ok(())
}

#[test]
fn a_new_allowlist_entry_withdraws_what_rests_on_its_indicator_alone() -> Result<()> {
    if is_skipped("a_new_allowlist_entry_withdraws_what_rests_on_its_indicator_alone") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    let out = deployment.folder().join("candidates.out");
    let printed = || -> Result<String> { Ok(fs::read_to_string(&out)?) };
    let mut agent = deployment.agent_with(fs::File::create(&out)?, &["run"])?;
    agent.wait_for_log("3 indicators in force")?;
    contact(&deployment, 7, 50_001)?;
    wait_until("the first candidate", || {
        Ok(printed()?.contains("203.0.113.7\""))
    })?;

    deployment.configure("[[feed]]\n", ALLOW)?;
    agent.signal(Signal::HUP)?;
    agent.wait_for_log("2 indicators in force")?;
    agent.wait_for_log(
        "candidates: 1 withdrawn, which rested on destinations that are never matched alone",
    )?;
    let before = printed()?;
    let last: Value = serde_json::from_str(before.lines().last().context("a line")?)?;
    assert_eq!(last["state"], "withdrawn", "{last}");
    assert_eq!(last["id"], 1);
    assert_eq!(
        last["why"],
        "198.51.100.23 is never matched now (an allowed destination)"
    );
    // Neither matched any more nor printed again.
    contact(&deployment, 8, 50_002)?;
    agent.signal(Signal::TERM)?;
    assert_eq!(agent.wait()?, 0);
    assert_eq!(printed()?, before);
    Ok(())
}

/// The agent was down when its hits came, and the entry was allowed since.
#[test]
fn hits_that_wait_while_their_destination_is_allowed_make_no_candidate() -> Result<()> {
    if is_skipped("hits_that_wait_while_their_destination_is_allowed_make_no_candidate") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    deployment.start()?;
    contact(&deployment, 7, 50_001)?;
    deployment.configure("[[feed]]\n", ALLOW)?;
    let out = deployment.folder().join("candidates.out");
    let mut agent = deployment.agent_with(fs::File::create(&out)?, &["run"])?;
    agent.wait_for_log("2 indicators in force")?;
    agent.signal(Signal::TERM)?;
    assert_eq!(agent.wait()?, 0);
    assert!(
        agent.log()?.contains("stored 0 hits, discarded 2"),
        "{}",
        agent.log()?
    );
    assert_eq!(fs::read_to_string(&out)?, "");
    assert_eq!(deployment.stored()?.len(), 0);
    Ok(())
}
