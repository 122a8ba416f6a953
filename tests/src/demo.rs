//! The demo: an edge of network namespaces, the product as an operator would run
//! it, traffic with known answers, and an account held against those.
//!
//! Nothing is known of the product but its commands: `matcher check`, `run`,
//! `status`, `tail`, `detach`, and the JSON lines of the contract.

mod account;
mod child;
mod place;
mod screen;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use serde_json::Value;

pub use self::{account::Account, screen::Screen};
use self::{
    account::{Counted, Status, contacts},
    child::Running,
    place::Place,
    screen::{number, seconds},
};
use crate::{
    traffic::{Files, Kind, Scenario},
    wire::Sender,
};

/// The same traffic each time.
const SEED: u64 = 1;
/// Some three seconds of traffic.
const PACKETS_PER_SECOND: u32 = 8_000;
/// Hits that are shown.
const HITS_SHOWN: usize = 12;
/// Candidates that are shown.
const CANDIDATES_SHOWN: usize = 15;
/// Lines of the agent's log that are shown when something fails.
const LOG_SHOWN: usize = 20;
/// What takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// What to show.
#[derive(Clone, Debug)]
pub struct Options {
    /// The binary `matcher`.
    pub matcher: PathBuf,
    /// A folder that lists, capture, hits and candidates are copied to.
    pub keep: Option<PathBuf>,
}

/// Runs the demo and removes all that it made. Needs root, `ip` and `nsenter`
/// (see [`crate::lab::Lab::obstacle`]).
///
/// # Errors
/// It could not come to an account; the end of the agent's log is in the error.
pub fn run(options: &Options, screen: Screen) -> Result<Account> {
    let start = Instant::now();
    let matcher = options
        .matcher
        .canonicalize()
        .with_context(|| format!("there is no {}", options.matcher.display()))?;
    screen.bold(
        "matcher tells an Internet provider which of its lines likely have an infected device,",
    );
    screen.bold("and does not look at the traffic of anyone who opted out. This is it, at work:");
    place::sweep()?;

    let step = screen.step(
        "1. An edge to watch",
        "Two network namespaces joined by two cables (veth): what comes in at access0 is\n\
         from subscribers, what comes in at core0 from the Internet. And ten minutes of\n\
         their traffic, made up, so that the right answers are known beforehand.",
    );
    let place = Place::new(&matcher)?;
    let scenario = Scenario::new(SEED, Timestamp::now());
    let files = place.write(&scenario)?;
    step.done(traffic(&scenario));

    let shown = Show {
        matcher: &matcher,
        screen,
        place: &place,
        scenario: &scenario,
        files: &files,
    };
    let account =
        shown
            .run(options.keep.as_deref())
            .map_err(|error| match log_end(&place.log()) {
                Some(log) => error.context(format!(
                    "the end of the agent's log:\n{log}\nthe demo failed"
                )),
                None => error,
            })?;
    account.show(screen);

    let step = screen.step("Removing what was made", "");
    place.remove()?;
    step.done("no namespace, no pinned program, no file is left");
    screen.line("");
    screen.bold(if account.holds() {
        format!("All as it had to be, in {}.", seconds(start.elapsed()))
    } else {
        "The demo FAILED: see the verdict above.".to_owned()
    });
    Ok(account)
}

/// The cast.
fn traffic(scenario: &Scenario) -> String {
    let expected = &scenario.expected;
    format!(
        "{} packets, IPv4 and IPv6, some with VLAN tags: {} of legitimate traffic,\n      \
         {} of {} infected hosts with C&C servers that answer, {} of infected hosts that opted out,\n      \
         {} forged in the name of C&C servers, and other things that look alike",
        number(scenario.packets.len() as u64),
        number(expected.packets_of(Kind::Legitimate)),
        number(expected.packets_of(Kind::Answered)),
        expected.candidates.len(),
        number(expected.packets_of(Kind::OptedOut)),
        number(expected.packets_of(Kind::Forged)),
    )
}

/// The last lines of a log, if there is one.
fn log_end(log: &Path) -> Option<String> {
    let text = fs::read_to_string(log).ok()?;
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LOG_SHOWN);
    let shown: Vec<String> = lines
        .get(from..)?
        .iter()
        .map(|it| format!("  | {it}"))
        .collect();
    (!shown.is_empty()).then(|| shown.join("\n"))
}

/// The product at work.
struct Show<'a> {
    matcher: &'a Path,
    screen: Screen,
    place: &'a Place,
    scenario: &'a Scenario,
    files: &'a Files,
}

impl Show<'_> {
    fn run(&self, keep: Option<&Path>) -> Result<Account> {
        let screen = self.screen;
        let mut agent = self.start_agent()?;

        let step = screen.step(
            "3. The traffic, and `matcher tail`",
            &format!(
                "Each packet between a consenting subscriber and a C&C server becomes a hit.\n\
                 The first {HITS_SHOWN}, as they come:"
            ),
        );
        let seen = move |at: usize, line: &str| {
            if at < HITS_SHOWN {
                screen.line(format_args!("   {line}"));
            }
        };
        let text = self.tail(&[], seen)?;
        let json = self.tail(&["--json"], |_, _| ())?;
        let access = Sender::open(self.place.lab.world(), "subscribers")?;
        let core = Sender::open(self.place.lab.world(), "internet")?;
        let sending = Instant::now();
        let sent = self.scenario.send(&access, &core, PACKETS_PER_SECOND)?;
        let sending = sending.elapsed();
        let status = self.wait_until_quiet(sent, &[&text, &json])?;
        let more = text.line_count().saturating_sub(HITS_SHOWN as u64);
        screen.line(format_args!("   ... and {} more", number(more)));
        let hits = json.lines();
        drop((text, json));
        step.done(format_args!(
            "{} packets sent in {}, {} hits",
            number(sent),
            seconds(sending),
            number(hits.len() as u64)
        ));

        let step = screen.step(
            "4. The candidates, and `matcher detach`",
            "Who called a C&C server and was answered is a candidate for a notification:",
        );
        self.matcher(&["detach"])?;
        let ended = agent.wait().context("the agent does not end")?;
        ensure!(ended.success(), "the agent failed ({ended})");
        let lines = agent.lines();
        let candidates = latest(&lines)?;
        for candidate in candidates.values().take(CANDIDATES_SHOWN) {
            screen.line(format_args!("   {}", sentence(candidate)));
        }
        if let Some(more) = candidates.len().checked_sub(CANDIDATES_SHOWN)
            && more > 0
        {
            screen.line(format_args!("   ... and {more} more"));
        }
        step.done(format_args!(
            "{} candidates; the program is detached",
            candidates.len()
        ));

        if let Some(folder) = keep {
            self.keep(folder, &hits, &lines)?;
        }
        Account::new(
            self.scenario,
            Counted {
                sent,
                status,
                hits: contacts(&hits)?,
                candidates: candidates.into_keys().collect(),
            },
        )
    }

    /// Checks the configuration, starts the agent and waits until it matches.
    fn start_agent(&self) -> Result<Running> {
        let step = self.screen.step(
            "2. The agent: `matcher check`, `matcher run`",
            "It attaches the program to both interfaces in native mode (in the driver), loads\n\
             lists of C&C addresses in their publishers' layouts and the list of those who\n\
             opted out.",
        );
        self.matcher(&["check"])?;
        let log = self.place.log();
        let to = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let agent = Running::start(&mut self.command(&["run"]), Some(to), |_, _| ())?;
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(ended) = agent.ended() {
                bail!("`matcher run` ended at once ({ended})");
            }
            // Fails until the agent has attached.
            match self.status() {
                Ok(status) if status.generation > 0 => break status,
                _ if Instant::now() < deadline => thread::sleep(Duration::from_millis(50)),
                Ok(_) => bail!("the feeds are not loaded after {} s", PATIENCE.as_secs()),
                Err(error) => return Err(error.context("the agent is not ready")),
            }
        };
        let native = status.modes.iter().filter(|mode| *mode == "native").count();
        step.done(format_args!(
            "attached to {} interfaces, {native} of them in native mode; {} lists loaded",
            status.modes.len(),
            self.files.feeds.len(),
        ));
        Ok(agent)
    }

    /// Starts `matcher tail`; returns when no hit escapes it any more.
    fn tail(
        &self,
        options: &[&str],
        seen: impl Fn(usize, &str) + Send + 'static,
    ) -> Result<Running> {
        let mut command = self.command(&["tail"]);
        let tail = Running::start(command.args(options), None, seen)?;
        let deadline = Instant::now() + PATIENCE;
        while !tail.said().contains("following the hits") {
            if let Some(ended) = tail.ended() {
                bail!("`matcher tail` ended at once ({ended}): {}", tail.said());
            }
            ensure!(
                Instant::now() < deadline,
                "`matcher tail` does not say that it follows"
            );
            thread::sleep(Duration::from_millis(10));
        }
        Ok(tail)
    }

    /// Waits until every packet is counted and every hit has been read, or until
    /// that takes too long: the account then shows what is missing.
    fn wait_until_quiet(&self, sent: u64, tails: &[&Running]) -> Result<Status> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status()?;
            let read = tails.iter().all(|it| it.line_count() >= status.delivered);
            let quiet = status.packets >= sent && status.ring_used == 0 && read;
            if quiet || Instant::now() >= deadline {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn status(&self) -> Result<Status> {
        Status::parse(&self.matcher(&["status", "--json"])?)
    }

    /// `matcher`, at the edge.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.place.lab.edge().command(self.matcher);
        command.arg("-c").arg(&self.place.config).args(arguments);
        command
    }

    fn matcher(&self, arguments: &[&str]) -> Result<String> {
        child::output(&mut self.command(arguments))
    }

    /// Copies what a person may want to look at, and says what can be done with
    /// it.
    fn keep(&self, folder: &Path, hits: &[String], candidates: &[String]) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let write = |name: &str, lines: &[String]| {
            let path = folder.join(name);
            fs::write(
                &path,
                lines
                    .iter()
                    .map(|line| format!("{line}\n"))
                    .collect::<String>(),
            )
            .with_context(|| format!("cannot write {}", path.display()))
        };
        write("hits.jsonl", hits)?;
        write("candidates.jsonl", candidates)?;
        let log = self.place.log();
        let Files {
            feeds,
            opt_out,
            subscribers,
            capture,
        } = self.files;
        let files = feeds.iter().map(|(_, path)| path);
        for path in files.chain([opt_out, subscribers, capture, &log]) {
            let name = path.file_name().unwrap_or_default();
            fs::copy(path, folder.join(name)).with_context(|| {
                format!("cannot copy {} to {}", path.display(), folder.display())
            })?;
        }
        let screen = self.screen;
        screen.line("");
        screen.line(format_args!(
            "   Kept in {}. The same capture through the kernel, without any interface:",
            folder.display()
        ));
        screen.line(format_args!(
            "   cd {} && matcher replay \\",
            folder.display()
        ));
        for (format, path) in feeds {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            screen.line(format_args!("     --feed {format}:{name} \\"));
        }
        screen.line("     --subscribers @subscribers.txt --opt-out opt-out.txt traffic.pcap");
        Ok(())
    }
}

/// The candidates by subscriber, each as it was printed last: one that grew is
/// printed again.
fn latest(lines: &[String]) -> Result<BTreeMap<IpAddr, Value>> {
    let mut candidates = BTreeMap::new();
    for line in lines {
        let read = || {
            let value: Value = serde_json::from_str(line).ok()?;
            let address: IpAddr = value.pointer("/endpoint/address")?.as_str()?.parse().ok()?;
            Some((address, value))
        };
        let (address, value) =
            read().with_context(|| format!("not a candidate of the contract: {line}"))?;
        candidates.insert(address, value);
    }
    Ok(candidates)
}

/// A candidate for a person: short, one line.
fn sentence(candidate: &Value) -> String {
    let text = |pointer: &str| match candidate.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => "?".to_owned(),
    };
    let address = text("/evidence/remotes/0/ip");
    let remote = match candidate.pointer("/evidence/remotes/0/port") {
        Some(Value::Number(port)) if address.contains(':') => format!("[{address}]:{port}"),
        Some(Value::Number(port)) => format!("{address}:{port}"),
        _ => address,
    };
    let remotes = candidate
        .pointer("/evidence/remotes")
        .and_then(Value::as_array);
    let more = match remotes.map_or(0, Vec::len) {
        0 | 1 => String::new(),
        many => format!(" and {} more", many - 1),
    };
    let family = match candidate.pointer("/indicators/0/family") {
        Some(Value::String(family)) => format!("{family}, "),
        _ => String::new(),
    };
    let way = match candidate.pointer("/contacts/two_way") {
        Some(Value::Bool(true)) => "answered",
        _ => "not answered",
    };
    format!(
        "{:<24}{:>4} packets to {remote}{more}, {way}  [{family}listed by {}]",
        text("/endpoint/address"),
        text("/contacts/count"),
        text("/indicators/0/feeds/0"),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn candidate(address: &str, count: u32) -> Value {
        json!({
            "endpoint": { "address": address },
            "contacts": { "count": count, "two_way": true },
            "indicators": [{ "family": "Emotet", "feeds": ["feodo"] }],
            "evidence": { "remotes": [
                { "ip": "2001:db8::1", "port": 443 },
                { "ip": "203.0.113.1", "port": null },
            ]},
        })
    }

    #[test]
    fn a_candidate_is_one_readable_line() {
        assert_eq!(
            sentence(&candidate("198.18.10.1", 48)),
            "198.18.10.1               48 packets to [2001:db8::1]:443 and 1 more, answered  \
             [Emotet, listed by feodo]"
        );
    }

    #[test]
    fn of_a_candidate_that_grew_the_last_line_counts() {
        let lines = [("198.18.10.1", 1), ("198.18.10.2", 1), ("198.18.10.1", 7)]
            .map(|(address, count)| candidate(address, count).to_string());
        let latest = latest(&lines).unwrap();
        assert_eq!(latest.len(), 2);
        assert_eq!(
            latest[&"198.18.10.1".parse().unwrap()]["contacts"]["count"],
            7
        );
        assert!(super::latest(&["{}".to_owned()]).is_err());
    }
}
