//! The agent keeps its feeds up to date: files that change, servers that are
//! asked on a timer, signals, commands; and a kill at any moment of it.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use matcher_tests::{
    feed_server::{FeedServer, reply},
    frames::Frame,
    lab::Lab,
    matcher::{Agent, CC_PORT, Deployment, binary, subscriber, wait_until},
    skip::skip,
    traffic::Random,
};
use matcher_user::indicators::Catalog;
use rustix::process::Signal;

fn is_skipped(test: &str) -> bool {
    Lab::obstacle()
        .inspect(|reason| skip(test, reason))
        .is_some()
}

fn generation(deployment: &Deployment) -> Result<u64> {
    deployment.status()?["generation"]
        .as_u64()
        .context("a generation")
}

fn feed_of(deployment: &Deployment, url: &str, more: &str) -> Result<()> {
    deployment.configure(
        "[[feed]]\n",
        &format!(
            "[[feed]]\nname = \"web\"\nformat = \"plain\"\nurl = \"{url}\"\n{more}\n[[feed]]\n"
        ),
    )
}

#[test]
fn a_load_in_which_nothing_changed_makes_no_new_generation() -> Result<()> {
    if is_skipped("a_load_in_which_nothing_changed_makes_no_new_generation") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    deployment.start()?;
    let first = generation(&deployment)?;
    let again = deployment.matcher(["load"])?.succeeded();
    assert!(again.out.contains("nothing changed"), "{again:?}");
    assert_eq!(generation(&deployment)?, first);
    // A comment is no change, an entry is one.
    deployment.write(
        "cc.txt",
        "# new\n198.51.100.23:443\n198.51.100.0/28\n2001:db8:bad::1\n",
    )?;
    deployment.matcher(["load"])?.succeeded();
    assert_eq!(generation(&deployment)?, first);
    deployment.write("cc.txt", "198.51.100.23:443\n198.51.100.0/28\n")?;
    let changed = deployment.matcher(["load"])?.succeeded();
    assert!(
        changed.out.contains("0 added, 1 removed, 0 changed"),
        "{changed:?}"
    );
    assert_eq!(generation(&deployment)?, first + 1);
    // New tables hold nothing, whatever was written down of the old ones.
    deployment.matcher(["detach"])?.succeeded();
    deployment.start()?;
    assert_eq!(generation(&deployment)?, 1);
    Ok(())
}

#[test]
fn the_agent_takes_up_a_file_that_is_written_or_replaced() -> Result<()> {
    if is_skipped("the_agent_takes_up_a_file_that_is_written_or_replaced") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    let mut agent = deployment.agent()?;
    let first = generation(&deployment)?;
    deployment.write(
        "cc.txt",
        "198.51.100.23:443\n198.51.100.24\n198.51.100.25\n",
    )?;
    wait_until("written in place", || {
        Ok(generation(&deployment)? == first + 1)
    })?;
    let other = deployment.write("cc.new", "198.51.100.23:443\n198.51.100.24\n")?;
    fs::rename(other, deployment.folder().join("cc.txt"))?;
    wait_until("replaced", || Ok(generation(&deployment)? == first + 2))?;

    // Broken: the last good list stays, and everybody is told.
    deployment.write("cc.txt", "<html>\n")?;
    agent.wait_for_log("its last good list with 2 entries stays in force")?;
    assert_eq!(generation(&deployment)?, first + 2);
    let status = deployment.matcher(["status"])?.succeeded();
    assert!(status.out.contains("cc: NOT USED"), "{status:?}");
    let list = deployment.matcher(["feed", "list"])?.succeeded();
    assert!(list.out.contains("NOT USED"), "{list:?}");
    deployment.write("cc.txt", "198.51.100.23:443\n")?;
    wait_until("well again", || Ok(generation(&deployment)? == first + 3))?;

    // SIGHUP without a change.
    let loads = |log: &str| log.matches("nothing changed").count();
    let before = loads(&agent.log()?);
    agent.signal(Signal::HUP)?;
    wait_until("read again", || Ok(loads(&agent.log()?) > before))?;
    assert_eq!(generation(&deployment)?, first + 3);
    Ok(())
}

#[test]
fn the_agent_fetches_loads_and_stays_with_the_last_good_list() -> Result<()> {
    if is_skipped("the_agent_fetches_loads_and_stays_with_the_last_good_list") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    let server = FeedServer::start_in(deployment.lab().edge())?;
    server.list("/list", "1", "192.0.2.1\n192.0.2.2\n");
    feed_of(&deployment, &server.url("/list"), "every = \"10s\"\n")?;
    let mut agent = deployment.agent()?;
    agent.wait_for_log("web: fetched a new list")?;
    wait_until("five entries", || {
        Ok(agent.log()?.contains("5 indicators in force"))
    })?;
    let first = generation(&deployment)?;

    for (how, status, body, reason) in [
        ("page", 200, "<html>\n", "looks like a web page"),
        ("empty", 200, "", "has no entries"),
        ("503", 503, "later", "HTTP 503"),
    ] {
        server.on("/list", move |_, out| {
            reply(out, status, &[], body.as_bytes())
        });
        // The command says it, and so do status, list and log.
        let load = deployment.matcher(["load", "--fetch"])?.failed(1);
        assert!(load.err.contains(reason), "{how}: {load:?}");
        let shown = deployment.matcher(["status"])?.succeeded();
        assert!(shown.out.contains("fetch FAILED"), "{how}: {shown:?}");
        assert!(shown.out.contains(reason), "{how}: {shown:?}");
        let list = deployment.matcher(["feed", "list"])?.succeeded();
        assert!(list.out.contains(reason), "{how}: {list:?}");
        assert!(
            list.out.contains("in force      2 entries"),
            "{how}: {list:?}"
        );
        agent.wait_for_log(reason)?;
        assert_eq!(generation(&deployment)?, first, "{how}");
    }
    // It shrank to a tenth: guarded when it is loaded.
    let many = |from: u8| -> String {
        let hosts = from..from + 30;
        hosts.map(|host| format!("192.0.2.{host}\n")).collect()
    };
    server.list("/list", "2", many(1));
    deployment.matcher(["load", "--fetch"])?.succeeded();
    assert_eq!(generation(&deployment)?, first + 1);
    server.list("/list", "3", "192.0.2.1\n192.0.2.2\n192.0.2.3\n");
    let held = deployment.matcher(["load", "--fetch"])?.failed(1);
    assert!(held.err.contains("3 entries now, 30 before"), "{held:?}");
    assert_eq!(generation(&deployment)?, first + 1);

    // The timer alone; the failures before have not slowed it down.
    server.list("/list", "4", many(101));
    wait_until("the timer", || Ok(generation(&deployment)? == first + 2))?;

    // Without a network, after a restart: from the copy.
    drop(server);
    agent.kill()?;
    deployment.matcher(["detach"])?.succeeded();
    let mut agent = deployment.agent()?;
    agent.wait_for_log("33 indicators in force")?;
    let list = deployment.matcher(["feed", "list"])?.succeeded();
    assert!(list.out.contains("copy          "), "{list:?}");
    Ok(())
}

#[test]
fn a_load_shows_how_far_it_is_on_a_terminal_and_nowhere_else() -> Result<()> {
    const TEST: &str = "a_load_shows_how_far_it_is_on_a_terminal_and_nowhere_else";
    if is_skipped(TEST) {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    deployment.matcher(["attach"])?.succeeded();
    let load = format!("{} -c matcher.toml load", binary()?.display());
    // It gives the command a terminal of its own.
    let on_terminal = deployment
        .lab()
        .edge()
        .command("script")
        .args(["-qec", &load, "/dev/null"])
        .current_dir(deployment.folder())
        .env("TERM", "xterm")
        .stdin(std::process::Stdio::null())
        .output();
    let shown = match on_terminal {
        Ok(shown) => shown,
        Err(error) => {
            skip(TEST, &format!("script: {error}"));
            return Ok(());
        }
    };
    let text = String::from_utf8_lossy(&shown.stdout);
    assert!(text.contains("loading feeds"), "{text}");
    assert!(text.contains("3 indicators in force"), "{text}");
    let elsewhere = deployment.matcher(["load"])?.succeeded();
    assert!(!elsewhere.err.contains("loading feeds"), "{elsewhere:?}");
    Ok(())
}

/// Validity is the kernel's: the agent is not needed to end an entry.
#[test]
fn an_entry_past_its_time_does_not_match_although_the_agent_is_dead() -> Result<()> {
    if is_skipped("an_entry_past_its_time_does_not_match_although_the_agent_is_dead") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    let access = deployment.access()?;
    let matched = |port: u16| -> Result<Vec<u8>> {
        let frames = [23, 24].map(|host| {
            Frame::ethernet()
                .ipv4(subscriber(7), Ipv4Addr::new(198, 51, 100, host))
                .tcp(port, CC_PORT)
                .build()
        });
        access.send_all(frames, 1_000)?;
        let hits = deployment.hits()?;
        let of_port = hits.iter().filter(|hit| hit["subscriber_port"] == port);
        of_port
            .map(|hit| match hit["remote_ip"].as_str() {
                Some("198.51.100.23") => Ok(23),
                Some("198.51.100.24") => Ok(24),
                other => anyhow::bail!("{other:?}"),
            })
            .collect()
    };
    // Longer where an agent takes longer to start.
    for (port, seconds) in [(1_024, 20), (1_026, 60), (1_028, 180)] {
        let until = Timestamp::now() + SignedDuration::from_secs(seconds);
        deployment.write(
            "cc.txt",
            format!("198.51.100.23 until={until}\n198.51.100.24\n"),
        )?;
        let mut agent = deployment.agent_with(std::process::Stdio::null(), &["run"])?;
        agent.wait_for_log("2 indicators in force")?;
        agent.kill()?;
        let before = matched(port)?;
        if Timestamp::now() < until {
            assert_eq!(before, [23, 24]);
            let left = Timestamp::now().duration_until(until).as_millis().max(0);
            thread::sleep(Duration::from_millis(u64::try_from(left)? + 100));
            assert_eq!(matched(port + 1)?, [24]);
            return Ok(());
        }
    }
    anyhow::bail!("the machine is too slow for it")
}

#[test]
fn a_proxy_of_the_environment_is_asked_and_hosts_of_no_proxy_are_not() -> Result<()> {
    if is_skipped("a_proxy_of_the_environment_is_asked_and_hosts_of_no_proxy_are_not") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    let server = FeedServer::start_in(deployment.lab().edge())?;
    server.list("/list", "1", "192.0.2.1\n");
    let proxy = FeedServer::start_in(deployment.lab().edge())?;
    feed_of(&deployment, &server.url("/list"), "")?;
    deployment.matcher(["attach"])?.succeeded();
    let load = |exempt: &str| {
        let mut command = deployment.command(["load", "--fetch"]);
        command
            .env("http_proxy", format!("http://{}", proxy.address()))
            .env("no_proxy", exempt)
            .output()
    };
    // It knows no CONNECT: the fetch fails, at the proxy.
    load("")?;
    assert_eq!(proxy.asked().len(), 1);
    assert_eq!(proxy.last()?.target, server.address().to_string());
    assert!(server.asked().is_empty());
    load("127.0.0.0/8")?;
    assert_eq!((proxy.asked().len(), server.asked().len()), (1, 1));
    Ok(())
}

const KILLS: u8 = 100;
/// Entries of each feed.
const SIZE: u8 = 20;

fn addresses(feed: u8, round: u8) -> Vec<Ipv4Addr> {
    (0..SIZE)
        .map(|host| Ipv4Addr::new(45, 61 + (feed & 1), round, 100 + host))
        .collect()
}

fn text(feed: u8, round: u8) -> String {
    let lines = addresses(feed, round)
        .into_iter()
        .map(|it| format!("{it}\n"));
    lines.collect()
}

/// The update of [`start_of_an_update`], and how long it takes while nobody
/// disturbs it.
fn undisturbed_update(deployment: &Deployment, server: &FeedServer, round: u8) -> Result<Duration> {
    let start = Instant::now();
    let agent = start_of_an_update(deployment, server, round)?;
    for feed in 0..2 {
        let [address, ..] = addresses(feed, round)[..] else {
            anyhow::bail!("feed {feed} lists nothing");
        };
        wait_until("the new list is in force", || {
            let lookup = deployment.matcher(["feed", "lookup", &address.to_string()])?;
            Ok(!lookup.out.contains("no match"))
        })?;
    }
    let taken = start.elapsed();
    agent.kill()?;
    Ok(taken)
}

/// New lists in the file and on the server, and an agent that begins with them.
fn start_of_an_update(deployment: &Deployment, server: &FeedServer, round: u8) -> Result<Agent> {
    let fresh = deployment.write("cc.new", text(0, round))?;
    fs::rename(fresh, deployment.folder().join("cc.txt"))?;
    server.list("/list", &round.to_string(), text(1, round));
    // A fetch is due at the start of every agent.
    let state = deployment.folder().join("state/feeds/web/state.json");
    let due = fs::read_to_string(&state)?.replace("\"attempted\":\"2", "\"attempted\":\"1");
    fs::write(&state, due)?;
    deployment.agent_with(std::process::Stdio::null(), &["run"])
}

/// The lists of a file and of a server, both new in every round, and a kill
/// somewhere between the start of the agent and the end of the update. In the
/// kernel is the old list of a feed or the new one, never a part; so is the
/// catalog, and every hit can be explained.
#[test]
fn killing_the_agent_at_any_moment_of_an_update_leaves_the_old_or_the_new_list() -> Result<()> {
    if is_skipped("killing_the_agent_at_any_moment_of_an_update_leaves_the_old_or_the_new_list") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    let server = FeedServer::start_in(deployment.lab().edge())?;
    server.list("/list", "0", text(1, 0));
    feed_of(&deployment, &server.url("/list"), "")?;
    // Each round's list is another one altogether.
    deployment.configure(
        "[[feed]]\n",
        "[guards]\nmin_remaining_share = 0.0\n\n[[feed]]\n",
    )?;
    deployment.write("cc.txt", text(0, 0))?;
    deployment.matcher(["attach"])?.succeeded();
    let first = deployment.matcher(["load"])?.succeeded();
    assert!(first.out.contains("40 indicators in force"), "{first:?}");

    let access = deployment.access()?;
    let mut random = Random::new(0x6665_6564);
    let undisturbed = undisturbed_update(&deployment, &server, 1)?;
    // Some after its end, however fast this machine is.
    let latest = (undisturbed * 6 / 5).clamp(Duration::from_secs(1), Duration::from_secs(10));
    println!("an update takes {undisturbed:?}; kills come within {latest:?}");
    let mut in_force = [1_u8; 2];
    let mut advanced = [0_u32; 2];
    let mut port = 1_024_u16;
    for round in 2..=KILLS + 1 {
        let agent = start_of_an_update(&deployment, &server, round)?;
        let moment = random.within(0, u64::try_from(latest.as_millis())?);
        thread::sleep(Duration::from_millis(moment));
        agent.kill()?;

        Catalog::load(&deployment.folder().join("state/indicators.catalog"))?
            .context("a catalog")?;
        let mut frames = Vec::new();
        for feed in 0..2_u8 {
            for list in in_force[usize::from(feed)]..=round {
                for address in addresses(feed, list) {
                    port = if port == u16::MAX { 1_024 } else { port + 1 };
                    frames.push(
                        Frame::ethernet()
                            .ipv4(subscriber(7), address)
                            .tcp(port, CC_PORT)
                            .build(),
                    );
                }
            }
        }
        access.send_all(frames, 20_000)?;
        let hits = deployment.hits()?;
        let matched: BTreeSet<IpAddr> = hits
            .iter()
            .map(|hit| Ok(hit["remote_ip"].as_str().context("an address")?.parse()?))
            .collect::<Result<_>>()?;
        assert!(
            hits.iter().all(|hit| !hit["indicator"]["value"].is_null()),
            "round {round}: every hit can be explained"
        );
        let mut expected_size = 0;
        for feed in 0..2_u8 {
            let before = &mut in_force[usize::from(feed)];
            let whole = (*before..=round).find(|list| {
                addresses(feed, *list)
                    .iter()
                    .all(|it| matched.contains(&IpAddr::V4(*it)))
            });
            let whole = whole.with_context(|| {
                format!("round {round}: feed {feed} is in force in part: {matched:?}")
            })?;
            // A list that was fetched whole before a kill is loaded after it.
            assert!(
                whole == *before || whole == round || feed == 1,
                "round {round}: {whole}"
            );
            advanced[usize::from(feed)] += u32::from(whole == round);
            *before = whole;
            expected_size += usize::from(SIZE);
        }
        assert_eq!(
            matched.len(),
            expected_size,
            "round {round}: nothing beside"
        );
    }
    // The moments were spread over before and after.
    for (feed, advanced) in advanced.iter().enumerate() {
        println!("feed {feed}: {advanced} of {KILLS} updates were done before the kill");
        assert!(
            (1..u32::from(KILLS)).contains(advanced),
            "feed {feed}: {advanced}"
        );
    }
    Ok(())
}
