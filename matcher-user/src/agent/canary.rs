//! The agent's canary: sent on demand and on a timer, awaited in the drain.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use matcher_common::abi::Counter;
use tokio::{sync::oneshot, time::Instant};

use super::{Agent, flow::CanarySeen};
use crate::{
    canary::{self, Passed, Report, Stage, Trouble},
    clock::boot_now_ns,
    instance::{Answer, CanaryStatus, InstanceError},
    kernel::tables::Counters,
};

/// A canary that has not come through by then does not come. The drain looks
/// at the ring buffer every second, also without being woken.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the agent knows of canaries.
#[derive(Default)]
pub(super) struct Canary {
    /// When the next one is due; none while the canary is off.
    due: Option<Instant>,
    flight: Option<Flight>,
    /// Who waits for the one in flight, or the next; true: wants JSON.
    waiting: Vec<(oneshot::Sender<Answer>, bool)>,
    sent: u64,
    last: Option<Report>,
    /// Ports that were used: the next flow has another.
    port: u16,
}

/// Frames sent and not seen yet.
struct Flight {
    at: Timestamp,
    until: Instant,
    /// By port: interface name and index.
    missing: HashMap<u16, (String, u32)>,
    passed: Vec<Passed>,
    /// What stood in the way of other frames when these were sent.
    standing: Vec<Trouble>,
    /// Frames that could not be sent.
    unsent: Vec<Trouble>,
    before: Counters,
}

impl Agent {
    /// For `matcher status`; none while the canary is off.
    pub(super) fn canary_status(&self) -> Option<CanaryStatus> {
        Some(CanaryStatus {
            every_seconds: self.instance.canary()?.every.as_secs(),
            sent: self.canary.sent,
            seen: self.flow.canaries_seen(),
            last: self.canary.last.clone(),
        })
    }

    /// Sends one for whoever asks; the answer comes when it came through or
    /// did not.
    pub(super) fn canary_asked(&mut self, json: bool, reply: oneshot::Sender<Answer>) {
        if let Err(error) = self.instance.canary_config() {
            let mut answer = Answer::default();
            answer.problem(format!("error: {error}"));
            answer.exit = error.exit_code();
            // The asker may have gone.
            let _ = reply.send(answer);
            return;
        }
        self.canary.waiting.push((reply, json));
        if self.canary.flight.is_none() {
            self.send_canary();
        }
    }

    /// Sends one when it is due. Called every second.
    pub(super) fn canary_tick(&mut self) {
        let Some(every) = self.instance.canary().map(|canary| canary.every) else {
            self.canary.due = None;
            return;
        };
        let now = Instant::now();
        match self.canary.due {
            // The first load comes first.
            _ if self.load.is_some() => {}
            Some(due) if now < due => {}
            _ => {
                self.canary.due = Some(now + every);
                if self.canary.flight.is_none() {
                    self.send_canary();
                }
            }
        }
    }

    fn send_canary(&mut self) {
        let at = Timestamp::now();
        match self.launch(at) {
            Ok(flight) => self.canary.flight = Some(flight),
            Err(troubles) => self.land(Report::failed(at, troubles)),
        }
    }

    fn launch(&mut self, at: Timestamp) -> Result<Flight, Vec<Trouble>> {
        let failed = |error| vec![unreadable(&error)];
        let config = self.instance.canary_config().map_err(failed)?;
        let state = self
            .instance
            .canary_state(&config, &self.tables)
            .map_err(failed)?;
        let troubles = state.troubles();
        // One interface in trouble does not hide what the others do.
        let blocked = |it: &Trouble| !matches!(it.stage, Stage::Attached | Stage::Interface);
        let usable: Vec<_> = state
            .edges
            .iter()
            .filter_map(|edge| Some((edge, edge.usable()?)))
            .collect();
        if troubles.iter().any(blocked) || usable.is_empty() {
            return Err(troubles);
        }
        let before = self
            .tables
            .counters()
            .map_err(|error| failed(error.into()))?;
        let mut flight = Flight {
            at,
            until: Instant::now() + PATIENCE,
            missing: HashMap::new(),
            passed: Vec::new(),
            standing: troubles,
            unsent: Vec::new(),
            before,
        };
        for (edge, settings) in usable {
            let port = self.next_port();
            let frame = canary::frame(&config, canary::direction(settings), port);
            match self.instance.pins().run(&frame, edge.ifindex, 1) {
                Ok(_) => {
                    self.canary.sent += 1;
                    flight
                        .missing
                        .insert(port, (edge.name.clone(), edge.ifindex));
                }
                Err(error) => flight.unsent.push(Trouble {
                    stage: Stage::Match,
                    what: format!("{}: the program could not be run: {error}", edge.name),
                }),
            }
        }
        Ok(flight)
    }

    /// Begins somewhere and goes on: a frame that somebody else sends is not
    /// taken for ours.
    fn next_port(&mut self) -> u16 {
        let port = &mut self.canary.port;
        if *port < 1024 {
            let [low, high, ..] = (boot_now_ns() >> 8).to_le_bytes();
            *port = u16::from_le_bytes([low, high]) | 1024;
        }
        *port = port.checked_add(1).unwrap_or(1024);
        *port
    }

    /// Takes note of canaries that came through, and of those that did not in
    /// time. Called after every step of the agent.
    pub(super) fn settle_canary(&mut self) {
        let seen = self.flow.take_canaries();
        let Some(flight) = &mut self.canary.flight else {
            return;
        };
        for canary in seen {
            flight.see(canary);
        }
        if !flight.missing.is_empty() && Instant::now() < flight.until {
            return;
        }
        let Some(mut flight) = self.canary.flight.take() else {
            return;
        };
        let mut troubles = if flight.missing.is_empty() {
            std::mem::take(&mut flight.standing)
        } else {
            // Being unable to tell is no reason to end the agent.
            self.why_missing(&flight)
                .unwrap_or_else(|error| vec![unreadable(&error)])
        };
        troubles.append(&mut flight.unsent);
        flight.passed.sort_by(|a, b| a.name.cmp(&b.name));
        self.land(Report {
            ok: troubles.is_empty(),
            time: flight.at,
            interfaces: flight.passed,
            troubles,
        });
    }

    /// What stands in the way by now; what the counters tell when nothing does.
    fn why_missing(&self, flight: &Flight) -> Result<Vec<Trouble>, InstanceError> {
        let config = self.instance.canary_config()?;
        let state = self.instance.canary_state(&config, &self.tables)?;
        let mut troubles = state.troubles();
        // What stood in the way before was in the way of others.
        if troubles == flight.standing {
            troubles.extend(flight.unexplained(&self.tables.counters()?));
        }
        Ok(troubles)
    }

    /// It is known how it went.
    fn land(&mut self, report: Report) {
        let was_ok = self.canary.last.as_ref().is_none_or(|last| last.ok);
        if !report.ok {
            let troubles: Vec<String> = report.troubles.iter().map(Trouble::to_string).collect();
            tracing::warn!("canary FAILED: {}", troubles.join("; "));
        } else if !was_ok {
            tracing::info!("canary ok: the way from packet to hit works again");
        }
        for (reply, json) in self.canary.waiting.drain(..) {
            // The asker may have gone.
            let _ = reply.send(answer(&report, json));
        }
        self.canary.last = Some(report);
    }
}

impl Flight {
    fn see(&mut self, canary: CanarySeen) {
        let Some(port) = canary.port else {
            return;
        };
        if self
            .missing
            .get(&port)
            .is_none_or(|(_, ifindex)| *ifindex != canary.ifindex)
        {
            return;
        }
        if let Some((name, _)) = self.missing.remove(&port) {
            self.passed.push(Passed {
                name,
                latency_us: canary.latency_ns / 1_000,
            });
        }
    }

    /// Nothing stands in the way that can be seen, and it did not come.
    fn unexplained(&self, now: &Counters) -> Vec<Trouble> {
        let grown = |counter: Counter| now.get(counter) > self.before.get(counter);
        let mut names: Vec<&str> = self.missing.values().map(|(name, _)| &**name).collect();
        names.sort_unstable();
        let names = names.join(", ");
        let (stage, what) = if grown(Counter::Lost) {
            (
                Stage::Ring,
                "hits were lost meanwhile because the ring buffer was full; the agent does not \
                 keep up or could not store them, its log says which (tables.ring_bytes)"
                    .to_owned(),
            )
        } else if grown(Counter::Matched) {
            (
                Stage::Drain,
                "the program matched, and the hit was not read and released in time; the agent's \
                 log says why"
                    .to_owned(),
            )
        } else {
            let exits: Vec<&str> = now
                .iter()
                .filter(|(counter, _)| grown(*counter))
                .map(|(counter, _)| counter.name())
                .collect();
            (
                Stage::Match,
                format!(
                    "the program did not match it although nothing stands in the way; the tables \
                     may be older than [canary] (`matcher load`). Counters that grew: {}",
                    exits.join(", ")
                ),
            )
        };
        vec![Trouble {
            stage,
            what: format!("{names}: {what}"),
        }]
    }
}

/// The kernel's state cannot be read.
fn unreadable(error: &InstanceError) -> Trouble {
    Trouble {
        stage: Stage::Match,
        what: error.to_string(),
    }
}

/// What `matcher canary` prints.
fn answer(report: &Report, json: bool) -> Answer {
    let mut answer = Answer::default();
    if json {
        answer.say(serde_json::to_string(report).unwrap_or_default());
    } else {
        answer.say(format!("canary {}", report.text()));
    }
    answer.exit = u8::from(!report.ok);
    answer
}
