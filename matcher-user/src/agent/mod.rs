//! The agent: drains hits, renews consent, answers commands.
//!
//! One task owns everything that changes, and does one thing at a time; loads
//! of feeds and connections run beside it. Only the drain touches the ring
//! buffer (design decision 12).

mod canary;
mod feeds;
mod flow;
mod requests;

use std::{io::Write, sync::Arc, time::Duration};

use jiff::Timestamp;
use matcher_common::abi::Setting;
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    aggregate::Policy,
    clock::WallOffset,
    config::Config,
    consent::ConsentLists,
    control::{
        Door, Request,
        server::{self, Asked, Desk},
    },
    fetch::plan::Asker,
    instance::{
        Answer, AppliedConsent, Instance, InstanceError, LoadedIndicators, LockName, consent_lists,
    },
    kernel::{ring::Ring, tables::Tables},
    sinks::SinkError,
    store::Store,
    verdicts::Verdicts,
};

use canary::Canary;
use feeds::Feeds;
use flow::{Excluded, Flow, Sink};

/// How the agent's records leave it.
pub trait Output: Write + Send {}
impl<T: Write + Send> Output for T {}

/// Lists are read again and the deadline is renewed at least so often.
const RENEWAL: Duration = Duration::from_secs(60);
/// Records past their retention are erased so often (R4).
const PURGE: Duration = Duration::from_secs(600);
/// The ring buffer is looked at so often. The kernel wakes us only when much
/// waits, because a wake-up costs it more than an event does.
const LOOK: Duration = Duration::from_millis(20);
/// A wall clock that is this far off is put right in the kernel.
const CLOCK_TOLERANCE_NS: u128 = 1_000_000;

/// A load of feeds under way.
struct Load {
    task: JoinHandle<(Answer, Option<LoadedIndicators>)>,
    reply: Option<oneshot::Sender<Answer>>,
}

/// A verdict that was recorded and put in force, or not; and who asked.
struct GivenVerdict {
    answer: Answer,
    verdicts: Option<Verdicts>,
    reply: oneshot::Sender<Answer>,
}

/// A load that a command asked for while feeds were being loaded anyway.
struct NextLoad {
    feeds: Vec<String>,
    fetch: Option<Asker>,
    answer: Answer,
    reply: oneshot::Sender<Answer>,
}

struct Agent {
    instance: Instance,
    tables: Tables,
    lists: ConsentLists,
    consent: AppliedConsent,
    flow: Flow,
    load: Option<Load>,
    verdicts: JoinSet<GivenVerdict>,
    canary: Canary,
    next_load: Option<NextLoad>,
    feeds: Feeds,
    renewed: Instant,
    purged: Instant,
    /// When what was folded was taken out of the kernel last.
    swept: Instant,
    leaving: bool,
}

/// Runs the agent until it is told to end: SIGINT, SIGTERM, or `matcher
/// detach`. `out` gets candidates, as JSON lines or as text. The program stays
/// attached when the agent ends; what matches meanwhile waits in the ring
/// buffer, and matching stops when consent is not renewed.
pub async fn run(
    instance: Instance,
    out: Box<dyn Output>,
    json: bool,
) -> Result<(), InstanceError> {
    crate::kernel::support::require()?;
    let run_dir = instance.run_dir();
    let _agent = run_dir.try_lock(LockName::Agent)?;
    let signal_error = |source| InstanceError::File {
        action: "handle signals for",
        path: "the agent".into(),
        source,
    };
    let mut hangup = signal(SignalKind::hangup()).map_err(signal_error)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(signal_error)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(signal_error)?;

    let (mut agent, ring) = tokio::task::block_in_place(|| Agent::start(instance, out, json))?;
    let _ring_lock = ring.1;
    // SAFETY: `Ring` owns its descriptor, always gives the same one, and closes
    // it only when it is dropped, together with the registration.
    let registered = unsafe { AsyncFd::register_with_interest(ring.0, Interest::READABLE) };
    let mut ring = registered.map_err(|error| InstanceError::File {
        action: "wait for",
        path: "the ring buffer".into(),
        source: error.into(),
    })?;

    let (requests, mut asked) = mpsc::channel::<Asked>(16);
    let (stored_sender, stored) = watch::channel(agent.flow.last_cursor()?);
    let door = agent.door()?;
    let listener = server::listen(&door).map_err(|source| InstanceError::File {
        action: "listen on",
        path: door.path.clone(),
        source,
    })?;
    let (store_path, edge) = (agent.instance.store_path(), agent.instance.edge());
    let refusing = agent.instance.clone();
    let desk = Arc::new(Desk {
        requests,
        stored,
        at_once: Box::new(move |request| match request {
            Request::Consent(action) => refusing
                .refuse_now(action)
                .map_err(|error| error.to_string()),
            _ => Ok(()),
        }),
        open_store: Box::new(move || {
            Store::open(&store_path, &edge).map_err(|error| error.to_string())
        }),
    });
    let serving = tokio::spawn(server::serve(listener, door.clone(), desk));
    agent.begin_first_load()?;
    notify_ready();
    tracing::info!("agent ready, control socket {}", door.path.display());

    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let outcome = loop {
        let step = tokio::select! {
            _ = interrupt.recv() => break Ok(()),
            _ = terminate.recv() => break Ok(()),
            _ = hangup.recv() => agent.reload(),
            Some(asked) = asked.recv() => {
                let answer = tokio::task::block_in_place(|| agent.answer(asked, ring.get_mut()));
                if agent.leaving {
                    // The answer is on its way; let it be sent.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    break Ok(());
                }
                answer
            }
            loaded = wait_for(&mut agent.load) => {
                tokio::task::block_in_place(|| agent.finish_load(loaded))
            }
            Some(given) = agent.verdicts.join_next() => {
                tokio::task::block_in_place(|| agent.finish_verdict(given))
            }
            () = agent.feeds.news() => Ok(()),
            _ = tick.tick() => tokio::task::block_in_place(|| {
                // Also when the kernel's notification was missed, and before
                // what was folded, where it can be.
                agent.flow.drain(ring.get_mut(), &agent.consent.table)?;
                agent.tick()?;
                agent.flow.publish(false)?;
                agent.canary_tick();
                Ok(())
            }),
            _ = look.tick() => tokio::task::block_in_place(|| {
                agent.flow.drain(ring.get_mut(), &agent.consent.table).map(drop)
            }),
            ready = ring.readable_mut() => match ready {
                Ok(mut ready) => tokio::task::block_in_place(|| {
                    let more = agent.flow.drain(ready.get_inner_mut(), &agent.consent.table)?;
                    if !more {
                        ready.clear_ready();
                    }
                    Ok(())
                }),
                Err(source) => Err(InstanceError::File {
                    action: "wait for",
                    path: "the ring buffer".into(),
                    source,
                }),
            },
        };
        agent.settle_canary();
        // Nobody listens any more if this fails; then no tail is there.
        let _ = stored_sender.send(agent.flow.last_cursor()?);
        match step {
            Ok(()) => {}
            Err(InstanceError::Sink(SinkError::Closed)) => {
                tracing::info!("the reader of standard output has gone; ending");
                break Ok(());
            }
            Err(error) => break Err(error),
        }
    };
    serving.abort();
    let last = tokio::task::block_in_place(|| agent.end(ring.get_mut()));
    // The next agent makes its own.
    let _ = std::fs::remove_file(&door.path);
    outcome.and(last)
}

/// Waits for a load under way; for ever when there is none.
async fn wait_for(load: &mut Option<Load>) -> (Answer, Option<LoadedIndicators>) {
    match load {
        Some(load) => match (&mut load.task).await {
            Ok(done) => done,
            Err(error) => (
                Answer {
                    err: format!("error: loading feeds ended early: {error}\n"),
                    exit: 1,
                    ..Answer::default()
                },
                None,
            ),
        },
        None => std::future::pending().await,
    }
}

impl Agent {
    fn start(
        instance: Instance,
        out: Box<dyn Output>,
        json: bool,
    ) -> Result<(Self, (Ring, crate::instance::Lock)), InstanceError> {
        let config = instance.config()?.clone();
        let mut answer = Answer::default();
        instance.attach(&config.interfaces, &mut answer)?;
        let ring_lock = instance.run_dir().try_lock(LockName::Ring)?;
        let mut tables = instance.tables()?;
        let mut lists = consent_lists(&config, &instance.paths);
        log(&answer);
        // Attaching has read the lists a moment ago, and said what is wrong.
        let mut said = Answer::default();
        let consent = instance.apply_consent(&mut tables, &mut lists, &mut said)?;
        let mut ring = Ring::open(&tables)?;
        let store = Store::open(&instance.store_path(), &config.edge)?;
        let flow = Flow::new(
            store,
            policy(&config),
            instance.catalog_path(),
            &mut ring,
            config.edge.clone(),
            Sink::new(out, json),
        )?;
        let mut agent = Self {
            instance,
            tables,
            lists,
            consent,
            flow,
            load: None,
            verdicts: JoinSet::new(),
            canary: Canary::default(),
            next_load: None,
            feeds: Feeds::new(),
            renewed: Instant::now(),
            purged: Instant::now(),
            swept: Instant::now(),
            leaving: false,
        };
        agent.forget_refusing()?;
        agent.flow.purge(Timestamp::now())?;
        // Given while no agent ran, perhaps.
        let excluded = Excluded {
            refuted: agent.instance.verdicts()?.refuted(),
            never_matched: agent.instance.never_matched(),
        };
        if let Some(text) = agent.flow.start(excluded)? {
            tracing::info!("{text}");
        }
        Ok((agent, (ring, ring_lock)))
    }

    fn door(&self) -> Result<Door, InstanceError> {
        let group = match &self.instance.config()?.control.group {
            Some(name) => Some(
                server::group_id(name).map_err(|source| InstanceError::File {
                    action: "find the group in",
                    path: "/etc/group".into(),
                    source,
                })?,
            ),
            None => None,
        };
        Ok(Door {
            path: self.instance.run_dir().socket(),
            group,
        })
    }

    /// What time alone brings about.
    fn tick(&mut self) -> Result<(), InstanceError> {
        self.keep_clock()?;
        self.keep_feeds()?;
        let now = Timestamp::now();
        let due = self
            .consent
            .table
            .valid_until()
            .is_some_and(|until| now >= until);
        let deadline = self.instance.config()?.consent.deadline;
        if due || self.renewed.elapsed() >= RENEWAL.min(deadline / 3) {
            log(&self.renew_consent()?);
        }
        let window = self.instance.config()?.folding.window;
        if !window.is_zero() && self.swept.elapsed() >= window {
            self.sweep()?;
        }
        if self.purged.elapsed() >= PURGE {
            self.purged = Instant::now();
            self.flow.purge(now)?;
        }
        Ok(())
    }

    /// Puts the wall clock right in the kernel after it was set or slewed.
    fn keep_clock(&mut self) -> Result<(), InstanceError> {
        let offset = WallOffset::measure();
        let in_kernel = WallOffset::from_setting(self.tables.setting(Setting::WallOffset)?);
        let off = offset.distance(in_kernel);
        if off > CLOCK_TOLERANCE_NS {
            self.tables.set(Setting::WallOffset, offset.setting())?;
            if off > 1_000_000_000 {
                tracing::warn!(
                    "the wall clock was set: it moved by {:.1} s",
                    off as f64 / 1e9
                );
            }
        }
        self.flow.set_offset(offset);
        Ok(())
    }

    /// Reads the lists again; the answer holds what is wrong with them.
    fn renew_consent(&mut self) -> Result<Answer, InstanceError> {
        let mut answer = Answer::default();
        self.consent =
            self.instance
                .apply_consent(&mut self.tables, &mut self.lists, &mut answer)?;
        self.renewed = Instant::now();
        self.forget_refusing()?;
        Ok(answer)
    }

    /// Reads subscriber spaces and lists again. Spaces that cannot be read stay
    /// as they were.
    fn renew_subscribers(&mut self) -> Result<Answer, InstanceError> {
        let mut answer = Answer::default();
        match self
            .instance
            .apply_subscribers(&mut self.tables, &mut self.lists, &mut answer)
        {
            Ok(consent) => self.consent = consent,
            Err(InstanceError::Subscribers(error)) => {
                tracing::error!("the subscriber spaces stay as they were: {error}");
                return self.renew_consent();
            }
            Err(error) => return Err(error),
        }
        self.renewed = Instant::now();
        self.forget_refusing()?;
        Ok(answer)
    }

    /// Takes what the kernel folded.
    fn sweep(&mut self) -> Result<(), InstanceError> {
        self.swept = Instant::now();
        self.flow.sweep(&mut self.tables, &self.consent.table)
    }

    /// Erases what was recorded of subscribers who refuse now (R2), and leaves
    /// nothing of theirs in the kernel's counts.
    fn forget_refusing(&mut self) -> Result<(), InstanceError> {
        self.sweep()?;
        self.flow.forget_refusing(&self.consent.table)
    }

    /// SIGHUP: configuration, lists and feeds again. A configuration with
    /// errors changes nothing.
    fn reload(&mut self) -> Result<(), InstanceError> {
        let path = self.instance.config()?.path.clone();
        match Config::load(&path) {
            Ok(config) => {
                if config.paths != self.instance.paths {
                    tracing::warn!("[paths] takes effect when the agent starts again");
                }
                self.lists = consent_lists(&config, &self.instance.paths);
                self.flow.set_policy(policy(&config))?;
                self.instance.config = Some(config);
                self.tables.set_folding(self.instance.folding()?)?;
            }
            Err(error) => {
                tracing::error!("the configuration has errors and stays as it was:\n{error}");
            }
        }
        let answer = tokio::task::block_in_place(|| self.renew_subscribers())?;
        log(&answer);
        self.begin_load(Vec::new(), None, Answer::default(), None)
    }

    /// Drains what is there, publishes what is pending and says how it went.
    fn end(&mut self, ring: &mut Ring) -> Result<(), InstanceError> {
        if !self.leaving {
            while self.flow.drain(ring, &self.consent.table)? {}
            self.sweep()?;
            while self.flow.drain(ring, &self.consent.table)? {}
        }
        self.flow.publish(true)?;
        let counters = self.tables.counters()?;
        tracing::info!("{}", self.flow.account(&counters));
        Ok(())
    }
}

fn policy(config: &Config) -> Policy {
    Policy {
        require_two_way: config.candidates.require_two_way,
        min_contacts: config.candidates.min_contacts,
        quality: config.guards.notify,
        retention: config.retention.hits,
    }
}

/// What a command would print, into the log.
fn log(answer: &Answer) {
    for line in answer.out.lines() {
        tracing::info!("{line}");
    }
    for line in answer.err.lines() {
        match line.strip_prefix("warning: ") {
            Some(line) => tracing::warn!("{line}"),
            None => tracing::error!("{line}"),
        }
    }
}

/// Tells systemd that the agent is ready (`Type=notify`, sd_notify(3)); does
/// nothing where no one asked.
fn notify_ready() {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let sent = std::os::unix::net::UnixDatagram::unbound()
        .and_then(|socket| socket.send_to(b"READY=1\n", path));
    if let Err(error) = sent {
        tracing::warn!("cannot notify the service manager: {error}");
    }
}
