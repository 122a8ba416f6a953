//! One function a command: in the agent when one runs, else right here.

mod captures;
mod cli;
mod feed;
mod progress;
mod tail;
mod verdict;

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::Parser as _;
use matcher_user::{
    agent,
    config::Config,
    control::{Request, client::Client},
    fetch::plan::Asker,
    instance::{
        Answer, ConsentAction, ConsentSubject, Instance, InstanceError, chosen_interfaces,
        consent_lists, parse_sources,
    },
};

use self::cli::{Cli, Command, Consent, Part, Subject};

/// Does what the arguments ask for and gives the exit code of the contract.
pub(crate) fn execute() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no mistakes.
            let code = if error.use_stderr() { 2 } else { 0 };
            // Nothing is left to be said when the output is closed.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let foreground = matches!(cli.command, Command::Run { .. });
    start_log(foreground);
    let config = cli.config.as_deref();
    let done = match cli.command {
        Command::Check => check(config),
        Command::Run { text } => run(config, text),
        Command::Attach { interfaces, mode } => attach(config, interfaces, mode),
        Command::Load { feeds, fetch } => load(config, feeds, fetch),
        Command::Tail { json, once } => tail::tail(config, json, once),
        Command::Status { json } => status(config, json),
        Command::Canary { json } => canary(config, json),
        Command::Detach => detach(config),
        Command::StopMatching { resume } => stop_matching(config, resume),
        Command::Consent(command) => consent(config, command),
        Command::Replay(replay) => captures::replay(config, replay),
        Command::Parse { json, captures } => captures::parse(config, json, captures),
        Command::Feed(command) => feed::feed(config, command),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let code = error
                .downcast_ref::<InstanceError>()
                .map_or(1, InstanceError::exit_code);
            // Nothing is left to be said when standard error is closed.
            let _ = writeln!(io::stderr(), "error: {}", sentence(&error));
            ExitCode::from(code)
        }
    }
}

/// An error and its causes on one line, each once: most of ours name their
/// cause themselves.
fn sentence(error: &anyhow::Error) -> String {
    error
        .chain()
        .map(ToString::to_string)
        .fold(String::new(), |mut text, cause| {
            if text.is_empty() {
                text = cause;
            } else if !text.contains(&cause) {
                text.push_str(": ");
                text.push_str(&cause);
            }
            text
        })
}

fn start_log(foreground: bool) {
    let level = if foreground { "info" } else { "error" };
    let filter = tracing_subscriber::EnvFilter::try_from_env("MATCHER_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_target(false)
        .with_ansi(false);
    // Fails only when a log was started before.
    let _ = if foreground {
        log.try_init()
    } else {
        log.without_time().try_init()
    };
}

/// Prints an answer and gives its exit code.
fn print(answer: &Answer) -> anyhow::Result<u8> {
    write_out(io::stderr(), answer.err.as_bytes())?;
    write_out(io::stdout(), answer.out.as_bytes())?;
    Ok(answer.exit)
}

/// Writes and flushes; false when the reader has gone (`| head`), which is no
/// failure.
fn write_out(mut to: impl io::Write, bytes: &[u8]) -> anyhow::Result<bool> {
    match to.write_all(bytes).and_then(|()| to.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The agent, if one runs.
fn agent(instance: &Instance) -> anyhow::Result<Option<Client>> {
    let socket = instance.run_dir().socket();
    match Client::connect(&socket) {
        Ok(client) => Ok(client),
        Err(source) => Err(InstanceError::File {
            action: "reach the agent at",
            path: socket,
            source,
        }
        .into()),
    }
}

/// Lets the agent do it when one runs, else does it here.
fn through_agent(
    instance: &Instance,
    request: &Request,
    here: impl FnOnce(&mut Answer) -> Result<(), InstanceError>,
) -> anyhow::Result<u8> {
    through_agent_then(instance, request, here, || {})
}

/// The same; `before_printing` is called before anything is printed.
fn through_agent_then(
    instance: &Instance,
    request: &Request,
    here: impl FnOnce(&mut Answer) -> Result<(), InstanceError>,
    before_printing: impl FnOnce(),
) -> anyhow::Result<u8> {
    if let Some(mut agent) = agent(instance)? {
        let answer = agent.ask(request).context("asking the agent")?;
        before_printing();
        return print(&answer);
    }
    let mut answer = Answer::default();
    let done = here(&mut answer);
    before_printing();
    let code = print(&answer)?;
    done?;
    Ok(code)
}

fn needed(config: Option<&Path>) -> anyhow::Result<&Path> {
    Ok(config.ok_or(InstanceError::NoConfig)?)
}

/// Paths mean the same to the agent, wherever it was started.
fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("finding {}", path.display()))
}

fn absolute_feeds(feeds: Vec<String>) -> anyhow::Result<Vec<String>> {
    parse_sources(&feeds)?
        .into_iter()
        .map(|mut source| {
            source.path = absolute(&source.path)?;
            Ok(source.to_string())
        })
        .collect()
}

fn check(config: Option<&Path>) -> anyhow::Result<u8> {
    let path = needed(config)?;
    let mut answer = Answer::default();
    match Config::load(path) {
        Ok(config) => {
            for warning in &config.warnings {
                answer.problem(warning.to_string());
            }
            answer.say(format!(
                "{}: no errors{}",
                path.display(),
                match config.warnings.len() {
                    0 => String::new(),
                    1 => ", 1 warning".into(),
                    n => format!(", {n} warnings"),
                }
            ));
        }
        Err(error) => {
            answer.problem(error.to_string());
            answer.exit = 2;
        }
    }
    print(&answer)
}

fn run(config: Option<&Path>, text: bool) -> anyhow::Result<u8> {
    let instance = Instance::of_config(needed(config)?)?;
    for warning in instance.config().map(|config| &config.warnings)? {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(agent::run(instance, Box::new(io::stdout()), !text))?;
    Ok(0)
}

fn attach(
    config: Option<&Path>,
    interfaces: Vec<String>,
    mode: Option<String>,
) -> anyhow::Result<u8> {
    let instance = Instance::open(config)?;
    let request = Request::Attach {
        interfaces: interfaces.clone(),
        mode: mode.clone(),
    };
    through_agent(&instance, &request, |answer| {
        let configured = &instance.config()?.interfaces;
        let interfaces = chosen_interfaces(configured, &interfaces, mode.as_deref())?;
        instance.attach(&interfaces, answer)
    })
}

fn load(config: Option<&Path>, feeds: Vec<String>, fetch: bool) -> anyhow::Result<u8> {
    let instance = Instance::open(config)?;
    let feeds = absolute_feeds(feeds)?;
    let request = Request::Load {
        feeds: feeds.clone(),
        fetch,
    };
    let progress = progress::Bar::begin();
    let here = |answer: &mut Answer| {
        let mut tables = instance.tables()?;
        let config = instance.config()?;
        let sources = if feeds.is_empty() {
            config.feeds.clone()
        } else {
            parse_sources(&feeds)?
        };
        let mut lists = consent_lists(config, &instance.paths);
        let consent = instance.apply_subscribers(&mut tables, &mut lists, answer)?;
        instance.erase_refused(&consent.table, answer)?;
        let asker = if fetch {
            Asker::Person
        } else {
            Asker::Schedule
        };
        instance.fetch_due(&sources, asker, answer, &progress);
        instance.load(&mut tables, &sources, answer, &progress)?;
        instance.warn_if_closed(&tables, answer)
    };
    through_agent_then(&instance, &request, here, || progress.end())
}

fn status(config: Option<&Path>, json: bool) -> anyhow::Result<u8> {
    let instance = Instance::open(config)?;
    through_agent(&instance, &Request::Status { json }, |answer| {
        let status = instance.status(&instance.tables()?, false)?;
        if json {
            answer.say(serde_json::to_string(&status).unwrap_or_default());
        } else {
            answer.out.push_str(&status.text());
        }
        Ok(())
    })
}

fn detach(config: Option<&Path>) -> anyhow::Result<u8> {
    let instance = Instance::open(config)?;
    through_agent(&instance, &Request::Detach, |answer| {
        instance.detach(answer)
    })
}

fn stop_matching(config: Option<&Path>, resume: bool) -> anyhow::Result<u8> {
    let instance = Instance::open(config)?;
    through_agent(&instance, &Request::StopMatching { resume }, |answer| {
        instance.stop_matching(&mut instance.tables()?, resume, answer)
    })
}

fn consent(config: Option<&Path>, command: Consent) -> anyhow::Result<u8> {
    let instance = Instance::open(config)?;
    let action = match command {
        Consent::Show { subject, part } => ConsentAction::Show {
            whom: subject.map(|subject| whom(subject, part)),
        },
        Consent::OptOut(Subject {
            subject,
            part,
            purposes,
        }) => ConsentAction::OptOut {
            whom: whom(subject, part),
            purposes,
        },
        Consent::OptIn(Subject {
            subject,
            part,
            purposes,
        }) => ConsentAction::OptIn {
            whom: whom(subject, part),
            purposes,
        },
        Consent::Import { path } => ConsentAction::Import {
            path: absolute(&path)?,
        },
    };
    through_agent(&instance, &Request::Consent(action.clone()), |answer| {
        let mut lists = consent_lists(instance.config()?, &instance.paths);
        if let Some(applied) = instance.consent(&mut lists, &action, answer)? {
            instance.erase_refused(&applied.table, answer)?;
        }
        Ok(())
    })
}

/// Longer than the agent gives a canary.
const CANARY_PATIENCE: Duration = Duration::from_secs(15);

fn canary(config: Option<&Path>, json: bool) -> anyhow::Result<u8> {
    let instance = Instance::open(config)?;
    let mut hung = false;
    if let Some(mut agent) = agent(&instance)? {
        let asked = agent.ask_within(&Request::Canary { json }, CANARY_PATIENCE);
        if let Some(answer) = asked.context("asking the agent")? {
            return print(&answer);
        }
        hung = true;
    }
    let report = instance.canary_without_agent(hung)?;
    let mut answer = Answer::default();
    if json {
        answer.say(serde_json::to_string(&report)?);
    } else {
        answer.say(format!("canary {}", report.text()));
    }
    answer.exit = 1;
    print(&answer)
}

fn whom(subject: String, part: Part) -> ConsentSubject {
    let Part {
        ports,
        map_e,
        space,
    } = part;
    ConsentSubject {
        subject,
        ports,
        map_e,
        space,
    }
}
