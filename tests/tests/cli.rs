//! The command line from the outside: help, exit codes, and what an operator is
//! told when something is missing.

use std::{
    io::{BufRead, BufReader, Read},
    process::Stdio,
};

use anyhow::{Context, Result};
use matcher_tests::{lab::Lab, matcher::Deployment, skip::skip};

/// Whether the test has to be skipped.
fn is_skipped(test: &str) -> bool {
    Lab::obstacle()
        .inspect(|reason| skip(test, reason))
        .is_some()
}

#[test]
fn every_command_explains_itself() -> Result<()> {
    if is_skipped("every_command_explains_itself") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    let help = deployment.matcher(["--help"])?.succeeded();
    assert_eq!(help.err, "");
    insta::assert_snapshot!("help", help.out);
    for command in [
        "check",
        "run",
        "attach",
        "load",
        "tail",
        "status",
        "detach",
        "stop-matching",
        "consent",
        "consent show",
        "consent opt-out",
        "consent opt-in",
        "consent import",
        "replay",
        "parse",
        "feed",
        "feed check",
        "feed lookup",
        "feed diff",
        "feed list",
    ] {
        let words = command.split(' ').chain(["--help"]);
        let help = deployment.matcher(words)?.succeeded();
        let usage = format!("Usage: matcher {command}");
        assert!(help.out.contains(&usage), "{command}: {}", help.out);
        assert_eq!(help.err, "", "{command}");
        // A sentence first, and nothing wider than a terminal.
        assert!(!help.out.starts_with("Usage"), "{command}: {}", help.out);
        assert!(help.out.lines().all(|line| line.chars().count() <= 100));
    }
    Ok(())
}

#[test]
fn a_wrong_command_line_or_configuration_exits_with_2() -> Result<()> {
    if is_skipped("a_wrong_command_line_or_configuration_exits_with_2") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    for arguments in [
        &["atach"][..],
        &["attach", "--mode", "fast"],
        &["attach", "--iface", "access0:edge"],
        &["attach", "--iface", ""],
        &["load", "--feed", "no-such-format:cc.txt"],
        &["load", "--feed", "cc.txt"],
        &["consent", "opt-out", "203.0.113.300"],
        &["consent", "opt-out", "203.0.113.9", "--purpose", "detekt"],
        &["consent", "opt-out", "subscriber=cust-1"],
        &["feed", "lookup", "198.51.100.23:99999"],
        &["feed", "lookup", "198.51.100.23"],
        &["replay", "x.pcap"],
        &["-c", "no-such-file.toml", "check"],
    ] {
        let ended = deployment.matcher(arguments)?;
        assert_eq!(ended.code, 2, "{arguments:?}: {ended:#?}");
        assert!(!ended.err.is_empty(), "{arguments:?}");
        assert_eq!(ended.out, "", "{arguments:?}");
    }
    deployment.write("matcher.toml", "edge = 7\n")?;
    for command in ["check", "run", "attach", "load", "tail", "status", "detach"] {
        let ended = deployment.matcher([command])?.failed(2);
        assert!(
            ended.err.contains("matcher.toml:1:8"),
            "{command}: {}",
            ended.err
        );
    }
    Ok(())
}

#[test]
fn check_names_every_mistake_with_line_and_column() -> Result<()> {
    if is_skipped("check_names_every_mistake_with_line_and_column") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    let good = deployment.matcher(["check"])?.succeeded();
    insta::assert_snapshot!("check_good", deployment.redacted(&(good.err + &good.out)));
    deployment.configure("role = \"access\"", "role = \"acess\"")?;
    deployment.configure("203.0.113.0/24", "203.0.113.0/33")?;
    deployment.configure("format = \"plain\"", "fromat = \"plain\"")?;
    let bad = deployment.matcher(["check"])?.failed(2);
    assert_eq!(bad.out, "");
    insta::assert_snapshot!("check_bad", deployment.redacted(&bad.err));
    Ok(())
}

#[test]
fn without_privilege_every_command_that_needs_it_says_so_and_exits_with_3() -> Result<()> {
    if is_skipped("without_privilege_every_command_that_needs_it_says_so_and_exits_with_3") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    deployment.write("empty.pcap", pcap_header())?;
    let mut said = String::new();
    for arguments in [
        &["attach"][..],
        &["run"],
        &["load"],
        &["status"],
        &["tail"],
        &["detach"],
        &["stop-matching"],
        &["parse", "empty.pcap"],
        &[
            "replay",
            "--feed",
            "plain:cc.txt",
            "--subscribers",
            "203.0.113.0/24",
            "empty.pcap",
        ],
    ] {
        let ended = deployment.matcher_as_nobody(arguments)?;
        assert_eq!(ended.code, 3, "{arguments:?}: {ended:#?}");
        let name = arguments.first().context("a command")?;
        said += &format!("{name}: {}", deployment.redacted(&ended.err));
    }
    insta::assert_snapshot!("without_privilege", said);
    // What needs none works.
    deployment.matcher_as_nobody(["check"])?.succeeded();
    deployment
        .matcher_as_nobody(["feed", "check", "plain:cc.txt"])?
        .succeeded();
    Ok(())
}

/// A capture without packets, Ethernet.
fn pcap_header() -> Vec<u8> {
    let mut header = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
    header.extend([2, 0, 4, 0]);
    header.extend([0; 8]);
    header.extend(65535_u32.to_le_bytes());
    header.extend(1_u32.to_le_bytes());
    header
}

#[test]
fn when_nothing_is_attached_each_command_says_what_comes_first() -> Result<()> {
    if is_skipped("when_nothing_is_attached_each_command_says_what_comes_first") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    for arguments in [
        &["status"][..],
        &["status", "--json"],
        &["tail"],
        &["tail", "--once"],
        &["load"],
        &["stop-matching"],
        &["stop-matching", "--resume"],
    ] {
        let ended = deployment.matcher(arguments)?.failed(1);
        assert_eq!(ended.out, "", "{arguments:?}");
        assert_eq!(
            deployment.redacted(&ended.err),
            "error: matcher is not attached: nothing is pinned in [PINS]; `matcher attach` comes \
             first\n",
            "{arguments:?}"
        );
    }
    let ended = deployment.matcher(["detach"])?.succeeded();
    assert_eq!(ended.out, "nothing was attached\n");
    assert_eq!(ended.err, "");
    assert!(!deployment.pins().directory().exists());
    Ok(())
}

#[test]
fn a_feed_is_checked_and_looked_into_without_being_loaded() -> Result<()> {
    if is_skipped("a_feed_is_checked_and_looked_into_without_being_loaded") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    let checked = deployment
        .matcher(["feed", "check", "plain:cc.txt"])?
        .succeeded();
    insta::assert_snapshot!(
        "feed_check",
        deployment.redacted(&(checked.out + &checked.err))
    );
    let missing = deployment
        .matcher(["feed", "check", "plain:none.txt"])?
        .failed(1);
    assert!(missing.err.contains("none.txt"), "{}", missing.err);

    let feed = ["--feed", "plain:cc.txt"];
    let lookup = |address| deployment.matcher(["feed", "lookup", address].into_iter().chain(feed));
    let covered = lookup("198.51.100.23:443")?.succeeded();
    let other_port = lookup("198.51.100.23:80")?.succeeded();
    let unlisted = lookup("192.0.2.1")?.succeeded();
    insta::assert_snapshot!(
        "feed_lookup",
        [covered.out, other_port.out, unlisted.out]
            .map(|out| without_time(&out))
            .join("---\n")
    );

    // What is loaded is looked into once there is something.
    let none = deployment
        .matcher(["feed", "lookup", "198.51.100.3"])?
        .failed(2);
    assert!(
        none.err.contains("no list has been loaded yet"),
        "{}",
        none.err
    );
    deployment.start()?;
    deployment.write("cc.txt", "# emptied after the load\n")?;
    let loaded = deployment
        .matcher(["feed", "lookup", "198.51.100.3", "--json"])?
        .succeeded();
    assert!(loaded.out.contains("198.51.100.0/28"), "{}", loaded.out);
    Ok(())
}

/// Without the time in the first line: `ADDRESS at TIME: ANSWER`.
fn without_time(lookup: &str) -> String {
    let (asked, rest) = lookup.split_once(" at ").unwrap_or((lookup, ""));
    let (_, answer) = rest.split_once(": ").unwrap_or_default();
    format!("{asked} at [TIME]: {answer}")
}

#[test]
fn a_reader_that_goes_away_is_no_failure() -> Result<()> {
    if is_skipped("a_reader_that_goes_away_is_no_failure") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    let many: String = (0..20_000_u32)
        .map(|n| format!("2001:db8:100:{n:x}::/64\n"))
        .collect();
    deployment.write("opt-out.list", many)?;
    let mut child = deployment
        .command(["consent", "show"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::with_capacity(64, child.stdout.take().context("a pipe")?).read_line(&mut line)?;
    assert!(line.starts_with("model"), "{line}");
    let mut said = String::new();
    child
        .stderr
        .take()
        .context("a pipe")?
        .read_to_string(&mut said)?;
    assert_eq!((child.wait()?.code(), said.as_str()), (Some(0), ""));
    Ok(())
}
