//! The agent from the outside: across SIGKILL, through its socket, and against
//! those who mean it no good.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    process::Stdio,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use jiff::Timestamp;
use matcher_common::abi::Setting;
use matcher_tests::{
    frames::Frame,
    lab::Lab,
    matcher::{Deployment, Ended, PATIENCE, answer, beacon, subscriber, wait_until},
    skip::skip,
};
use matcher_user::{
    clock::WallOffset,
    control::client::Client,
    hit::Hit,
    instance::{LockName, RunDir},
};
use rustix::process::Signal;
use serde_json::{Value, json};

fn is_skipped(test: &str) -> bool {
    Lab::obstacle()
        .inspect(|reason| skip(test, reason))
        .is_some()
}

fn ports(hits: &[Hit]) -> Vec<u16> {
    hits.iter().filter_map(|hit| hit.subscriber.port).collect()
}

/// The heart of design decision 12. A packet is told by its port: each port is
/// sent once.
#[test]
fn killing_the_agent_again_and_again_loses_no_hit_and_doubles_none() -> Result<()> {
    if is_skipped("killing_the_agent_again_and_again_loses_no_hit_and_doubles_none") {
        return Ok(());
    }
    const FIRST: u16 = 10_000;
    const PACKETS: u16 = 20_000;
    const RATE: u32 = 4_000;
    const KILLS: u64 = 3;
    let deployment = Deployment::new()?;
    let mut agent = deployment.agent()?;
    let tail_out = deployment.folder().join("tail.out");
    let mut tail = deployment.agent_with(fs::File::create(&tail_out)?, &["tail", "--json"])?;
    let access = deployment.access()?;
    // The tail has its place in the stream once it has printed something.
    let mut first = 1;
    wait_until("the tail prints", || {
        access.send_all([beacon(subscriber(7), first)], 1_000)?;
        first += 1;
        thread::sleep(Duration::from_millis(50));
        Ok(fs::metadata(&tail_out)?.len() > 0)
    })?;

    let kills = AtomicU64::new(0);
    let end = thread::scope(|scope| -> Result<u16> {
        let sending = scope.spawn(|| -> Result<u16> {
            let mut end = FIRST + PACKETS;
            let frames = (FIRST..end).map(|port| beacon(subscriber(7), port));
            let mut sent = access.send_all(frames, RATE)?;
            // Where starting an agent takes long, until it was killed often
            // enough under traffic.
            while kills.load(Ordering::SeqCst) < KILLS {
                sent += access.send_all([beacon(subscriber(7), end)], RATE)?;
                end = end.checked_add(1).context("a port")?;
                thread::sleep(Duration::from_millis(10));
            }
            assert_eq!(sent, u64::from(end - FIRST), "the wire took every packet");
            Ok(end)
        });
        let killing = || -> Result<()> {
            while !sending.is_finished() {
                let killed = kills.load(Ordering::SeqCst);
                // At moments that have nothing to do with the agent's own rhythm.
                thread::sleep(Duration::from_millis(137 + 61 * killed));
                agent.kill()?;
                kills.store(killed + 1, Ordering::SeqCst);
                agent = deployment.agent()?;
            }
            Ok(())
        };
        let killed = killing();
        // The sender does not wait for more when one went wrong.
        kills.store(KILLS, Ordering::SeqCst);
        let end = sending.join().expect("the sender does not panic");
        killed?;
        end
    })?;
    // The one before went with the scope.
    let _agent = deployment.agent()?;
    let all = u64::from(end - FIRST) + u64::from(first - 1);
    wait_until("everything is stored", || {
        Ok(deployment.stored()?.len() as u64 >= all)
    })?;

    let stored = deployment.stored()?;
    let expected: Vec<u16> = (1..first).chain(FIRST..end).collect();
    assert_eq!(ports(&stored), expected, "each once, in order");
    assert_eq!(
        deployment.status()?["hits"],
        json!({"matched": all, "delivered": all, "folded": 0, "lost": 0})
    );

    // A tail that ran through all of it, from its first line on.
    let printed = || -> Result<Vec<u64>> {
        let text = fs::read_to_string(&tail_out)?;
        text.split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
            .map(|line| {
                let hit: Value = serde_json::from_str(line)?;
                hit["subscriber_port"].as_u64().context("a port")
            })
            .collect()
    };
    let last = u64::from(end - 1);
    wait_until("the tail prints the last", || {
        Ok(printed()?.last() == Some(&last))
    })?;
    let printed = printed()?;
    let from = *printed.first().context("a line")?;
    let expected: Vec<u64> = expected
        .into_iter()
        .map(u64::from)
        .filter(|port| *port >= from)
        .collect();
    assert_eq!(printed, expected);
    tail.signal(Signal::TERM)?;
    tail.wait()?;
    assert_eq!(
        tail.log()?,
        "following the hits of the agent; Ctrl-C ends\n"
    );
    Ok(())
}

#[test]
fn sigterm_ends_the_agent_in_order_and_the_program_stays() -> Result<()> {
    if is_skipped("sigterm_ends_the_agent_in_order_and_the_program_stays") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    let candidates = deployment.folder().join("candidates");
    let mut agent = deployment.agent_with(fs::File::create(&candidates)?, &["run"])?;
    agent.wait_for_log("indicators in force")?;
    let (access, core) = (deployment.access()?, deployment.core()?);
    access.send_all([beacon(subscriber(7), 1)], 1_000)?;
    core.send_all([answer(subscriber(7), 1)], 1_000)?;
    // Forged by anyone: no candidate.
    core.send_all([answer(subscriber(8), 1)], 1_000)?;
    agent.signal(Signal::TERM)?;
    assert_eq!(agent.wait()?, 0);
    let log = agent.log()?;
    assert!(
        log.contains("3 matched = 3 delivered + 0 folded + 0 lost"),
        "{log}"
    );
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
    assert!(!deployment.folder().join("run/control.sock").exists());
    let text = fs::read_to_string(&candidates)?;
    let lines: Vec<Value> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let last = lines.last().context("a candidate")?;
    assert!(
        last["endpoint"].to_string().contains("203.0.113.7"),
        "{last}"
    );
    assert!(!text.contains("203.0.113.8"), "{text}");

    // What matches meanwhile waits for the next agent.
    access.send_all([beacon(subscriber(7), 2)], 1_000)?;
    let _agent = deployment.agent()?;
    wait_until("the fourth hit", || Ok(deployment.stored()?.len() == 4))?;
    Ok(())
}

#[test]
fn commands_go_through_the_agent() -> Result<()> {
    if is_skipped("commands_go_through_the_agent") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    let mut agent = deployment.agent()?;
    let status = deployment.status()?;
    assert_eq!(
        (&status["agent"], &status["generation"]),
        (&json!(true), &json!(1))
    );

    let second = deployment.matcher(["run"])?.failed(1);
    assert_eq!(
        second.err,
        format!(
            "error: an agent is running already (process {})\n",
            agent.pid()
        )
    );

    deployment.write("cc.txt", "198.51.100.23:443\n192.0.2.66\n2001:db8:bad::1\n")?;
    let loaded = deployment.matcher(["load"])?.succeeded();
    assert!(
        loaded
            .out
            .ends_with("3 indicators in force, generation 2\n"),
        "{}",
        loaded.out
    );
    // As a service manager reloads it.
    deployment.write("cc.txt", "198.51.100.23:443\n192.0.2.66\n192.0.2.67\n")?;
    agent.signal(Signal::HUP)?;
    agent.wait_for_log("generation 3")?;
    let new = Frame::ethernet()
        .ipv4(subscriber(7), [192, 0, 2, 67])
        .udp(1, 2)
        .build();
    deployment.access()?.send_all([new], 1_000)?;
    wait_until("a hit of the new entry", || {
        Ok(deployment.stored()?.len() == 1)
    })?;

    deployment.matcher(["stop-matching"])?.succeeded();
    assert_eq!(deployment.status()?["stopped"], true);
    deployment
        .matcher(["stop-matching", "--resume"])?
        .succeeded();
    deployment.lab().veth("access1", "acc1-peer")?;
    let attached = deployment
        .matcher(["attach", "--iface", "access1:access"])?
        .succeeded();
    assert!(
        attached.out.starts_with("access1: attached in native mode"),
        "{attached:?}"
    );

    // A broken configuration changes nothing; its place is in the log.
    deployment.configure("edge-1\"", "edge-1")?;
    agent.signal(Signal::HUP)?;
    agent.wait_for_log("the configuration has errors and stays as it was")?;
    agent.wait_for_log("matcher.toml:1:")?;
    deployment.configure("edge-1", "edge-1\"")?;

    let detached = deployment.matcher(["detach"])?.succeeded();
    assert_eq!(
        detached.out,
        "access0: detached\ncore0: detached\naccess1: detached\nthe agent ends\n"
    );
    assert_eq!(agent.wait()?, 0, "{}", agent.log()?);
    assert!(!deployment.pins().directory().exists());
    Ok(())
}

#[test]
fn an_opt_out_through_the_agent_holds_when_the_command_returns_and_erases() -> Result<()> {
    if is_skipped("an_opt_out_through_the_agent_holds_when_the_command_returns_and_erases") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    let _agent = deployment.agent()?;
    let access = deployment.access()?;
    let both = |ports: std::ops::Range<u16>| {
        ports.flat_map(|port| [7, 8].map(|host| beacon(subscriber(host), port)))
    };
    access.send_all(both(0..500), 20_000)?;
    wait_until("all are stored", || Ok(deployment.stored()?.len() == 1_000))?;
    // Some are on their way when the command is given.
    access.send_all(both(500..1_000), 100_000)?;
    let out = deployment
        .matcher(["consent", "opt-out", "203.0.113.7"])?
        .succeeded();
    assert_eq!(
        out.out,
        "203.0.113.7: opted out for detect,notify,vulnerable,block,discover\n"
    );
    let matched = deployment.counter("matched")?;
    access.send_all(both(1_000..1_500), 20_000)?;
    wait_until("those of the other are stored", || {
        let stored = deployment.stored()?;
        let of_other = stored
            .iter()
            .filter(|hit| hit.subscriber.ip == subscriber(8));
        Ok(of_other.count() == 1_500)
    })?;
    assert_eq!(deployment.counter("matched")?, matched + 500);
    assert_eq!(deployment.counter("opted-out")?, 500);
    let stored = deployment.stored()?;
    assert!(stored.iter().all(|hit| hit.subscriber.ip == subscriber(8)));
    assert_eq!(stored.len(), 1_500);
    Ok(())
}

/// Reading long lists and writing long tables takes seconds, and whatever the
/// agent does meanwhile takes its time too.
#[test]
fn an_opt_out_holds_while_the_agent_is_busy_with_something_else() -> Result<()> {
    if is_skipped("an_opt_out_holds_while_the_agent_is_busy_with_something_else") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    let _agent = deployment.agent()?;
    let access = deployment.access()?;
    access.send_all([beacon(subscriber(7), 1)], 1_000)?;
    wait_until("it is stored", || Ok(deployment.stored()?.len() == 1))?;

    // Whoever changes consent waits for this.
    let busy = RunDir::at(&deployment.folder().join("run")).lock(LockName::Changes)?;
    let mut command =
        deployment.agent_with(Stdio::null(), &["consent", "opt-out", "203.0.113.7"])?;
    let tables = deployment.tables()?;
    wait_until("the refusal holds", || {
        Ok(tables.setting(Setting::RefusedNow)? == 1)
    })?;
    let matched = deployment.counter("matched")?;
    access.send_all((2..502).map(|port| beacon(subscriber(7), port)), 20_000)?;
    wait_until("they have passed", || {
        Ok(deployment.counter("opted-out")? == 500)
    })?;
    assert_eq!(deployment.counter("matched")?, matched);
    assert!(command.child().try_wait()?.is_none(), "it is not done yet");

    drop(busy);
    assert_eq!(command.wait()?, 0);
    assert_eq!(tables.setting(Setting::RefusedNow)?, 0);
    access.send_all((502..1_002).map(|port| beacon(subscriber(7), port)), 20_000)?;
    wait_until("they have passed", || {
        Ok(deployment.counter("opted-out")? == 1_000)
    })?;
    assert_eq!(deployment.counter("matched")?, matched);
    assert!(
        deployment.stored()?.is_empty(),
        "and what was stored is gone"
    );
    Ok(())
}

/// The wall clock cannot be set here; what the kernel was told of it can.
#[test]
fn a_wrong_wall_clock_in_the_kernel_is_put_right() -> Result<()> {
    if is_skipped("a_wrong_wall_clock_in_the_kernel_is_put_right") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    let soon = Timestamp::now() + jiff::SignedDuration::from_hours(1);
    deployment.write("cc.txt", format!("198.51.100.23 until={soon}\n"))?;
    let mut agent = deployment.agent()?;
    let mut tables = deployment.tables()?;
    let day = 86_400_000_000_000_u64;
    let wrong = WallOffset::measure().setting().wrapping_add(day);
    tables.set(Setting::WallOffset, wrong)?;
    wait_until("the clock is right", || {
        let in_kernel = WallOffset::from_setting(tables.setting(Setting::WallOffset)?);
        Ok(WallOffset::measure().distance(in_kernel) < 1_000_000_000)
    })?;
    agent.wait_for_log("the wall clock was set: it moved by 86400.0 s")?;
    // An entry that would have ended by the wrong clock, at the right time.
    let before = Timestamp::now();
    deployment
        .access()?
        .send_all([beacon(subscriber(7), 1)], 1_000)?;
    wait_until("a hit", || Ok(deployment.stored()?.len() == 1))?;
    let tolerance = jiff::SignedDuration::from_millis(5);
    for hit in deployment.stored()? {
        assert!(hit.time >= before - tolerance && hit.time <= Timestamp::now() + tolerance);
    }
    Ok(())
}

#[test]
fn the_socket_is_not_hurt_by_strangers_garbage_or_crowds() -> Result<()> {
    if is_skipped("the_socket_is_not_hurt_by_strangers_garbage_or_crowds") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    let mut agent = deployment.agent()?;
    let socket = deployment.folder().join("run/control.sock");
    let mode = fs::metadata(&socket)?.permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    // The file's mode keeps strangers out; where it does not, the agent does.
    let stranger = deployment.matcher_as_nobody(["status"])?.failed(3);
    assert!(stranger.err.contains("control.sock"), "{}", stranger.err);
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666))?;
    for command in [&["status"][..], &["detach"], &["tail"], &["stop-matching"]] {
        let stranger = deployment.matcher_as_nobody(command)?.failed(3);
        assert!(
            stranger
                .err
                .contains("only root and the group control.group may talk to the agent"),
            "{command:?}: {stranger:?}"
        );
        assert_eq!(stranger.out, "");
    }
    agent.wait_for_log("refused user 65534")?;

    let mut idle = Vec::new();
    for garbage in [
        &b"\n"[..],
        b"{}\n",
        b"\xff\xfe\xfd\n",
        b"{\"command\":\"no-such\"}\n",
        b"{\"command\":\"load\",\"feeds\":7}\n",
        b"{\"command\":\"status\"",
        b"",
    ] {
        let mut stream = UnixStream::connect(&socket)?;
        stream.write_all(garbage)?;
        if garbage.ends_with(b"\n") {
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut said = String::new();
            stream.read_to_string(&mut said)?;
            if let Ok(answer) = serde_json::from_str::<Value>(&said) {
                assert_eq!(answer["exit"], 1, "{said}");
            }
        } else {
            // Never goes on, never hangs up.
            idle.push(stream);
        }
    }
    let mut endless = UnixStream::connect(&socket)?;
    endless.set_write_timeout(Some(PATIENCE))?;
    // The agent hangs up in the middle of it.
    let _ = endless.write_all(&vec![b'a'; 4 << 20]);

    // A crowd of tails, half of which never reads.
    let mut silent = Vec::new();
    let mut readers = Vec::new();
    for _ in 0..16 {
        let client = Client::connect(&socket)?.context("an agent")?;
        silent.push(client.tail(Some(0))?);
        let client = Client::connect(&socket)?.context("an agent")?;
        let tail = client.tail(Some(0))?;
        readers.push(thread::spawn(move || -> Result<Vec<Value>> {
            tail.filter_map(|line| line.map(|line| line.hit).transpose())
                .take(2_000)
                .map(|hit| Ok(hit?["subscriber_port"].clone()))
                .collect()
        }));
    }
    let frames = (0..2_000).map(|port| beacon(subscriber(7), port));
    deployment.access()?.send_all(frames, 20_000)?;
    let expected: Vec<Value> = (0..2_000).map(|port| json!(port)).collect();
    for reader in readers {
        assert_eq!(reader.join().expect("a reader does not panic")?, expected);
    }
    assert_eq!(deployment.status()?["agent"], true);
    assert!(!agent.log()?.contains("panicked"));
    Ok(())
}

#[test]
fn closed_standard_output_ends_the_agent_quietly() -> Result<()> {
    if is_skipped("closed_standard_output_ends_the_agent_quietly") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    let mut agent = deployment.agent_with(Stdio::piped(), &["run"])?;
    agent.wait_for_log("indicators in force")?;
    drop(agent.child().stdout.take());
    deployment
        .access()?
        .send_all([beacon(subscriber(7), 1)], 1_000)?;
    deployment
        .core()?
        .send_all([answer(subscriber(7), 1)], 1_000)?;
    assert_eq!(agent.wait()?, 0, "{}", agent.log()?);
    let log = agent.log()?;
    assert!(
        log.contains("the reader of standard output has gone"),
        "{log}"
    );
    assert!(!log.contains("ERROR") && !log.contains("error:"), "{log}");
    // Its candidate was not printed, so the next agent prints it.
    let candidates = deployment.folder().join("candidates");
    let mut next = deployment.agent_with(fs::File::create(&candidates)?, &["run"])?;
    wait_until("the candidate", || {
        Ok(fs::read_to_string(&candidates)?.contains("203.0.113.7"))
    })?;
    next.signal(Signal::INT)?;
    assert_eq!(next.wait()?, 0);
    Ok(())
}

/// Two consumers would each see half of the hits.
#[test]
fn a_tail_without_an_agent_holds_the_ring_alone() -> Result<()> {
    if is_skipped("a_tail_without_an_agent_holds_the_ring_alone") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    deployment.start()?;
    let out = deployment.folder().join("tail.out");
    let tail = deployment.agent_with(fs::File::create(&out)?, &["tail", "--json"])?;
    let access = deployment.access()?;
    access.send_all([beacon(subscriber(7), 1)], 1_000)?;
    wait_until("a hit is printed", || Ok(fs::metadata(&out)?.len() > 0))?;
    let busy: Ended = deployment.matcher(["tail", "--once"])?.failed(1);
    assert_eq!(
        busy.err,
        format!(
            "error: hits are being read already (`matcher tail` without an agent) (process {})\n",
            tail.pid()
        )
    );
    deployment.matcher(["run"])?.failed(1);
    tail.kill()?;
    // What was printed is released, also when the reader was killed.
    access.send_all([beacon(subscriber(7), 2)], 1_000)?;
    let left: Vec<_> = deployment
        .hits()?
        .iter()
        .map(|hit| hit["subscriber_port"].clone())
        .collect();
    assert_eq!(left, [json!(2)]);
    Ok(())
}
