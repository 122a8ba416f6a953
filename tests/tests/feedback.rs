//! Verdicts on indicators: at once, for good, and shared without a word about
//! any subscriber (R15, R20).

use std::{
    fs,
    net::Ipv4Addr,
    path::Path,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result};
use matcher_tests::{
    frames::Frame,
    lab::Lab,
    matcher::{Agent, Deployment, Ended, answer, beacon, subscriber, wait_until},
    skip::skip,
};
use rustix::process::Signal;
use serde_json::Value;

fn is_skipped(test: &str) -> bool {
    Lab::obstacle()
        .inspect(|reason| skip(test, reason))
        .is_some()
}

/// A second C&C address.
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 66);

fn verdict(deployment: &Deployment, value: &str, verdict: &str) -> Result<Ended> {
    deployment.matcher([
        "feed",
        "verdict",
        value,
        verdict,
        "--by",
        "A. Person",
        "--why",
        "the line of 203.0.113.7 calls a mirror of ours",
    ])
}

/// The agent, and the file that its candidates go to.
fn agent_with_candidates(deployment: &Deployment, file: &str) -> Result<Agent> {
    let out = fs::File::create(deployment.folder().join(file))?;
    let mut agent = deployment.agent_with(out, &["run"])?;
    agent.wait_for_log("indicators in force")?;
    Ok(agent)
}

/// The whole lines that it has written so far.
fn candidates(deployment: &Deployment, file: &str) -> Result<Vec<Value>> {
    let text = fs::read_to_string(deployment.folder().join(file))?;
    text.split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .map(|line| Ok(serde_json::from_str(line)?))
        .collect()
}

fn of_address<'a>(lines: &'a [Value], address: &str) -> Vec<&'a Value> {
    lines
        .iter()
        .filter(|line| line["endpoint"]["address"] == address)
        .collect()
}

#[test]
fn a_false_positive_is_out_of_the_kernel_when_the_command_returns() -> Result<()> {
    if is_skipped("a_false_positive_is_out_of_the_kernel_when_the_command_returns") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    deployment.start()?;
    let access = deployment.access()?;
    access.send_all([beacon(subscriber(7), 1)], 1_000)?;
    assert_eq!(deployment.hits()?.len(), 1);

    let given = verdict(&deployment, "198.51.100.23:443", "false-positive")?.succeeded();
    assert_eq!(
        given.out,
        "198.51.100.23 port 443: false positive; recorded\n1 taken out; 2 indicators in force, \
         generation 2\ncandidates are withdrawn when the agent starts\n"
    );
    access.send_all([beacon(subscriber(7), 2)], 1_000)?;
    assert_eq!(deployment.hits()?, [] as [Value; 0]);
    // After a reload, and with a broken feed, too.
    let loaded = deployment.matcher(["load"])?.succeeded();
    assert!(loaded.out.contains("1 listed and left out"), "{loaded:?}");
    fs::remove_file(deployment.folder().join("cc.txt"))?;
    deployment.matcher(["load"])?.failed(1);
    access.send_all([beacon(subscriber(7), 3)], 1_000)?;
    assert_eq!(deployment.hits()?, [] as [Value; 0]);
    let lookup = deployment
        .matcher(["feed", "lookup", "198.51.100.23:443"])?
        .succeeded();
    assert!(lookup.out.contains("no match"), "{lookup:?}");
    assert!(
        lookup
            .err
            .contains("is listed and taken out: false positive, A. Person at "),
        "{lookup:?}"
    );

    // Taken back: at once as well, although the file is gone.
    verdict(&deployment, "198.51.100.23", "clear")?.succeeded();
    access.send_all([beacon(subscriber(7), 4)], 1_000)?;
    assert_eq!(deployment.hits()?.len(), 1);

    // What the file says cannot be read any more: no list is put in force.
    fs::write(deployment.folder().join("state/verdicts.jsonl"), "?\n")?;
    let refused = deployment.matcher(["load"])?.failed(1);
    assert!(
        refused.err.contains("verdicts.jsonl:1: no verdict"),
        "{refused:?}"
    );
    Ok(())
}

#[test]
fn a_false_positive_withdraws_candidates_that_rest_on_it_alone() -> Result<()> {
    if is_skipped("a_false_positive_withdraws_candidates_that_rest_on_it_alone") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    deployment.write("cc.txt", format!("198.51.100.23:443\n{OTHER}\n"))?;
    let agent = agent_with_candidates(&deployment, "first")?;
    let (access, core) = (deployment.access()?, deployment.core()?);
    let other = |port| {
        Frame::ethernet()
            .ipv4(subscriber(8), OTHER)
            .udp(port, 2)
            .build()
    };
    let from_other = |port| {
        Frame::ethernet()
            .ipv4(OTHER, subscriber(8))
            .udp(2, port)
            .build()
    };
    // The one talks to the first address only, the other to both.
    for (out, back) in [
        (beacon(subscriber(7), 41_001), answer(subscriber(7), 41_001)),
        (beacon(subscriber(8), 41_002), answer(subscriber(8), 41_002)),
        (other(41_003), from_other(41_003)),
    ] {
        access.send_all([out], 1_000)?;
        core.send_all([back], 1_000)?;
    }
    // When the second's hits came in parts, it is printed with both of its
    // indicators a minute later only; that they are stored is enough here.
    wait_until("both are candidates", || {
        let lines = candidates(&deployment, "first")?;
        let printed = |address| !of_address(&lines, address).is_empty();
        let stored = deployment.stored()?.len();
        Ok(stored == 6 && printed("203.0.113.7") && printed("203.0.113.8"))
    })?;

    let given = verdict(&deployment, "198.51.100.23", "false-positive")?.succeeded();
    assert!(
        given
            .out
            .ends_with("candidates: 1 withdrawn, which rested on false positives alone; 1 printed again, on what they rest on now\n"),
        "{given:?}"
    );
    let lines = candidates(&deployment, "first")?;
    let seven = of_address(&lines, "203.0.113.7");
    let (opened, last) = (seven[0], seven.last().context("a line")?);
    assert_eq!(last["state"], "withdrawn");
    assert_eq!(last["id"], opened["id"]);
    assert!(
        last["why"]
            .as_str()
            .is_some_and(|why| why.starts_with("198.51.100.23 is a false positive, A. Person at ")),
        "{last}"
    );
    let eight = of_address(&lines, "203.0.113.8");
    let last = eight.last().context("a line")?;
    assert_eq!(last["state"], "open");
    assert_eq!(last["indicators"][0]["value"], OTHER.to_string());
    assert_eq!(last["indicators"].as_array().map(Vec::len), Some(1));

    // The next agent says neither again, and records nothing of it.
    let stored = deployment.stored()?.len();
    access.send_all([beacon(subscriber(9), 41_004)], 1_000)?;
    agent.kill()?;
    let agent = agent_with_candidates(&deployment, "second")?;
    access.send_all([other(41_005)], 1_000)?;
    wait_until("a hit of the other address", || {
        Ok(deployment.stored()?.len() == stored + 1)
    })?;
    let lines = candidates(&deployment, "second")?;
    assert_eq!(of_address(&lines, "203.0.113.7"), [] as [&Value; 0]);

    // Taken back, it counts again.
    verdict(&deployment, "198.51.100.23", "clear")?.succeeded();
    wait_until("the candidate is open again", || {
        let lines = candidates(&deployment, "second")?;
        Ok(of_address(&lines, "203.0.113.7")
            .last()
            .is_some_and(|line| line["state"] == "open"))
    })?;

    // While no agent runs: the next one withdraws it, once.
    agent.kill()?;
    verdict(&deployment, "198.51.100.23:443", "false-positive")?.succeeded();
    for (file, expected) in [("third", 1), ("fourth", 0)] {
        let agent = agent_with_candidates(&deployment, file)?;
        let lines = candidates(&deployment, file)?;
        let withdrawn = lines.iter().filter(|line| line["state"] == "withdrawn");
        assert_eq!(withdrawn.count(), expected, "{file}: {lines:?}");
        agent.kill()?;
    }
    Ok(())
}

#[test]
fn what_was_folded_of_a_false_positive_is_dropped_like_its_hits() -> Result<()> {
    if is_skipped("what_was_folded_of_a_false_positive_is_dropped_like_its_hits") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    deployment.configure("window = \"0s\"", "window = \"10m\"")?;
    deployment.write("cc.txt", format!("198.51.100.23:443\n{OTHER}\n"))?;
    let mut agent = deployment.agent()?;
    let other = Frame::ethernet()
        .ipv4(subscriber(8), OTHER)
        .udp(1, 2)
        .build();
    let frames = (0..10).flat_map(|_| [beacon(subscriber(7), 1), other.clone()]);
    deployment.access()?.send_all(frames, 1_000)?;
    wait_until("the first of each flow is stored", || {
        Ok(deployment.stored()?.len() == 2)
    })?;
    verdict(&deployment, "198.51.100.23", "false-positive")?.succeeded();
    agent.signal(Signal::TERM)?;
    assert_eq!(agent.wait()?, 0);
    let folded: Vec<_> = deployment
        .stored()?
        .into_iter()
        .filter(|hit| hit.packets > 1)
        .map(|hit| (hit.remote.ip, hit.packets))
        .collect();
    assert_eq!(folded, [(OTHER.into(), 9)]);
    assert_eq!(deployment.counter("folded")?, 18);
    assert!(
        agent.log()?.contains("stored 3 hits, discarded 1"),
        "{}",
        agent.log()?
    );
    Ok(())
}

#[test]
fn verdicts_given_at_the_same_time_are_all_kept() -> Result<()> {
    if is_skipped("verdicts_given_at_the_same_time_are_all_kept") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    let list: String = (1..=8).map(|host| format!("192.0.2.{host}\n")).collect();
    deployment.write("cc.txt", list)?;
    let agent = deployment.agent()?;
    let all_at_once = |opinion: &str| -> Result<()> {
        thread::scope(|scope| {
            let given: Vec<_> = (1..=8)
                .map(|host| {
                    let value = format!("192.0.2.{host}");
                    let deployment = &deployment;
                    scope.spawn(move || verdict(deployment, &value, opinion))
                })
                .collect();
            for one in given {
                one.join().expect("no panic")?.succeeded();
            }
            Ok(())
        })
    };
    all_at_once("confirmed")?;
    agent.kill()?;
    all_at_once("false-positive")?;
    let listed = deployment
        .matcher(["feed", "verdicts", "--json"])?
        .succeeded();
    assert_eq!(listed.json_lines()?.len(), 16);
    let in_force = deployment.matcher(["feed", "verdicts"])?.succeeded().out;
    assert_eq!(in_force.lines().count(), 8, "{in_force}");
    assert!(
        in_force
            .lines()
            .all(|it| it.contains("false positive, A. Person at "))
    );
    let lookup = deployment
        .matcher(["feed", "lookup", "192.0.2.5"])?
        .succeeded();
    assert!(lookup.out.contains("no match"), "{lookup:?}");
    Ok(())
}

/// What leaves: not an address or a port of anybody, whatever was recorded.
#[test]
fn what_is_exported_names_no_subscriber_of_the_scenario() -> Result<()> {
    if is_skipped("what_is_exported_names_no_subscriber_of_the_scenario") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    // One C&C of the own network, which somebody vouches for.
    deployment.write(
        "cc.txt",
        "198.51.100.23:443\n198.51.100.0/28\n203.0.113.66\n",
    )?;
    deployment.configure(
        "[[feed]]",
        "[[guards.confirmed]]\nvalue = \"203.0.113.66\"\nby = \"A. Person\"\nreason = \"sandbox\"\n\
         at = 2026-01-01T00:00:00Z\n\n[[feed]]",
    )?;
    let _agent = deployment.agent()?;
    let (access, core) = (deployment.access()?, deployment.core()?);
    let ports: Vec<u16> = (0..40).map(|host| 51_000 + host * 97).collect();
    for (host, port) in (1..=40).zip(&ports) {
        access.send_all([beacon(subscriber(host), *port)], 1_000)?;
        core.send_all([answer(subscriber(host), *port)], 1_000)?;
    }
    wait_until("all is stored", || Ok(deployment.stored()?.len() == 80))?;
    verdict(&deployment, "198.51.100.23:443", "confirmed")?.succeeded();
    verdict(&deployment, "198.51.100.0/28", "false-positive")?.succeeded();
    verdict(&deployment, "203.0.113.66", "confirmed")?.succeeded();
    // By value, MISP would take it for every port.
    let ports_kept_back = "warning: kept back: 198.51.100.23 port 443: is limited to a port or \
                           protocol, and no MISP feed lists it: MISP would take the sighting for \
                           every port of the address (--format stix can say it)\n";
    for (format, also_kept_back, written) in
        [("stix", "", 2), ("misp-sighting", ports_kept_back, 1)]
    {
        let exported = deployment
            .matcher([
                "feed",
                "export",
                "--format",
                format,
                "--organisation",
                "Example ISP",
            ])?
            .succeeded();
        assert!(exported.out.contains("198.51.100.0/28"), "{exported:?}");
        assert_eq!(
            exported.err,
            format!(
                "{also_kept_back}warning: kept back: 203.0.113.66: is in the operator's own \
                 space\n{written} verdicts written\n"
            )
        );
        for hit in deployment.stored()? {
            let address = hit.subscriber.ip.to_string();
            assert!(!exported.out.contains(&address), "{address}: {exported:?}");
        }
        // Ports as words: digits also stand in ids.
        let words: Vec<&str> = exported.out.split(|c: char| !c.is_alphanumeric()).collect();
        for port in &ports {
            let port = port.to_string();
            assert!(!words.contains(&port.as_str()), "{port}: {exported:?}");
        }
        for word in ["203.0.113.", "Person", "mirror", "edge-1"] {
            assert!(!exported.out.contains(word), "{word}: {exported:?}");
        }
    }
    Ok(())
}

const VALIDATE: &str = r#"
import json, sys, stix2, pymisp
bundle = stix2.parse(open(sys.argv[1]).read(), allow_custom=False, version="2.1")
print(*sorted(o.type for o in bundle.objects))
for o in bundle.objects:
    o.serialize()
for line in open(sys.argv[2]):
    given = json.loads(line)
    assert set(given) <= {"value", "uuid", "type", "timestamp", "source"}, given
    sighting = pymisp.MISPSighting()
    sighting.from_dict(**given)
    assert sighting.type in ("0", "1"), given
    assert json.loads(sighting.to_json()) == given, (sighting.to_json(), given)
    print(sighting.type, getattr(sighting, "value", None) or sighting.uuid)
"#;

/// A Python with the libraries that the two projects publish, or why not.
fn python(folder: &Path) -> Result<std::result::Result<String, String>> {
    let venv = folder.join("venv");
    let run = |command: &mut Command| -> Result<std::result::Result<(), String>> {
        let output = command.stdin(Stdio::null()).output();
        Ok(match output {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Err(error.to_string()),
        })
    };
    if let Err(error) = run(Command::new("python3").args(["-m", "venv"]).arg(&venv))? {
        return Ok(Err(format!("no Python virtual environment: {error}")));
    }
    let python = venv.join("bin/python").display().to_string();
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "stix2==3.0.2",
        "pymisp==2.5.34.4",
    ];
    Ok(run(Command::new(&python).args(pip))?
        .map(|()| python)
        .map_err(|error| format!("stix2 and pymisp cannot be had from PyPI: {error}")))
}

#[test]
fn exports_are_valid_for_the_libraries_of_stix_and_misp() -> Result<()> {
    const NAME: &str = "exports_are_valid_for_the_libraries_of_stix_and_misp";
    if is_skipped(NAME) {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    let python = match python(deployment.folder())? {
        Ok(python) => python,
        Err(reason) => {
            skip(NAME, &reason);
            return Ok(());
        }
    };
    deployment.write(
        "event.json",
        r#"{"Event": {"uuid": "5f9d1a3e-0001-4000-8000-0a0b0c0d0e0f", "info": "controllers",
            "date": "2026-11-01", "Attribute": [{"uuid": "5f1a9c10-1d2c-4b1a-8a53-0a1b2c3d4e5f",
            "type": "ip-dst|port", "value": "198.51.100.23|443", "to_ids": true}]}}"#,
    )?;
    deployment.configure(
        "[[feed]]",
        "[[feed]]\nname = \"cert\"\nformat = \"misp\"\npath = \"event.json\"\n\n[[feed]]",
    )?;
    deployment.start()?;
    verdict(&deployment, "198.51.100.23:443", "confirmed")?.succeeded();
    verdict(&deployment, "198.51.100.0/28", "false-positive")?.succeeded();
    verdict(&deployment, "2001:db8:bad::1", "false-positive")?.succeeded();
    let export = |format: &str, organisation: &[&str]| -> Result<String> {
        let mut arguments = vec!["feed", "export", "--format", format];
        arguments.extend(organisation);
        Ok(deployment.matcher(arguments)?.succeeded().out)
    };
    for organisation in [&[][..], &["--organisation", "Example ISP"]] {
        let stix = deployment.write("out.stix", export("stix", organisation)?)?;
        let misp = deployment.write("out.misp", export("misp-sighting", organisation)?)?;
        let output = Command::new(&python)
            .args(["-c", VALIDATE])
            .args([&stix, &misp])
            .output()?;
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "{err}");
        let identity = if organisation.is_empty() {
            ""
        } else {
            "identity "
        };
        assert_eq!(
            out,
            format!(
                "{identity}indicator indicator indicator opinion opinion opinion sighting\n0 \
                 5f1a9c10-1d2c-4b1a-8a53-0a1b2c3d4e5f\n1 198.51.100.0/28\n1 2001:db8:bad::1\n"
            )
        );
    }
    Ok(())
}

/// R20: a doubtful entry leads to no notification, though it is shown.
#[test]
fn candidates_wait_for_enough_feeds_and_enough_confidence() -> Result<()> {
    if is_skipped("candidates_wait_for_enough_feeds_and_enough_confidence") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    // Who talks to the other address is a candidate at any time.
    let list =
        |name: &str, rest: &str| deployment.write(name, format!("{OTHER} confidence=90\n{rest}\n"));
    list("cc.txt", "198.51.100.23 port=443 confidence=60")?;
    list("second.txt", "192.0.2.1")?;
    deployment.configure(
        "[[feed]]",
        "[guards.notify]\nmin_feeds = 2\nmin_confidence = 80\n\n[[feed]]\nname = \"second\"\n\
         format = \"plain\"\npath = \"second.txt\"\n\n[[feed]]",
    )?;
    let _agent = agent_with_candidates(&deployment, "candidates")?;
    let (access, core) = (deployment.access()?, deployment.core()?);
    let mut witnesses = 100..;
    let mut contact = |port| -> Result<Vec<Value>> {
        access.send_all([beacon(subscriber(7), port)], 1_000)?;
        core.send_all([answer(subscriber(7), port)], 1_000)?;
        wait_until("the hits are stored", || {
            let stored = deployment.stored()?;
            let of_port = stored
                .iter()
                .filter(|hit| hit.subscriber.port == Some(port));
            Ok(of_port.count() == 2)
        })?;
        // Candidates are printed in the order of their addresses: with one of
        // a later hit and a higher address, what was due before is printed.
        let witness = subscriber(witnesses.next().context("a witness")?);
        let frame = Frame::ethernet();
        access.send_all(
            [frame.clone().ipv4(witness, OTHER).udp(1, 2).build()],
            1_000,
        )?;
        core.send_all([frame.ipv4(OTHER, witness).udp(2, 1).build()], 1_000)?;
        let mut lines = Vec::new();
        wait_until("the witness is printed", || {
            lines = candidates(&deployment, "candidates")?;
            Ok(!of_address(&lines, &witness.to_string()).is_empty())
        })?;
        lines.retain(|line| line["endpoint"]["address"] == "203.0.113.7");
        Ok(lines)
    };
    assert_eq!(contact(42_001)?, [] as [Value; 0]);
    // Two feeds, not sure enough.
    list("second.txt", "198.51.100.23 port=443 confidence=70")?;
    deployment.matcher(["load"])?.succeeded();
    assert_eq!(contact(42_002)?, [] as [Value; 0]);
    // Sure enough, in one feed.
    list("cc.txt", "192.0.2.1")?;
    list("second.txt", "198.51.100.23 port=443 confidence=90")?;
    deployment.matcher(["load"])?.succeeded();
    assert_eq!(contact(42_003)?, [] as [Value; 0]);
    // Both. Only what matched then counts.
    list("cc.txt", "198.51.100.23 port=443 confidence=60")?;
    deployment.matcher(["load"])?.succeeded();
    let lines = contact(42_004)?;
    let last = lines.last().context("a candidate")?;
    assert_eq!(last["contacts"]["count"], 1, "{last}");
    assert_eq!(last["endpoint"]["ports"], serde_json::json!([42_004]));
    assert_eq!(last["indicators"][0]["confidence"], 90);
    Ok(())
}
