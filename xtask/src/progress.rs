//! Long steps: what is happening and for how long, on the terminal; what the command says, in a
//! log file whose end is shown when it fails.

use std::fs::{self, File};
use std::io::{IsTerminal, Write, stderr};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process;

/// How often a line is printed where there is no terminal to draw on.
const LINE_EVERY: Duration = Duration::from_secs(15);
/// How often the child is looked at, and the spinner turns.
const TICK: Duration = Duration::from_millis(100);
/// How much of the log is shown after a failure.
const TAIL_LINES: usize = 20;

/// Runs `command` with its output in `log`, for at most `limit`.
///
/// # Errors
/// When it cannot start, fails or takes longer than `limit`: the command line, how it ended, the
/// end of its output.
pub fn logged(title: &str, command: &mut Command, log: &Path, limit: Duration) -> Result<()> {
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let copy = file
        .try_clone()
        .with_context(|| format!("cannot write {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(file).stderr(copy);
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start `{}`", process::line(command)))?;
    let began = Instant::now();
    match wait(title, &mut child, began, limit)? {
        Some(status) if status.success() => Ok(()),
        Some(status) => bail!("{}\n{}", process::failure(command, status), tail(log)),
        None => bail!(
            "`{}` was stopped: not done after {} s\n{}",
            process::line(command),
            limit.as_secs(),
            tail(log)
        ),
    }
}

/// Waits for the child and shows that it lives; `None` when the limit passed.
fn wait(
    title: &str,
    child: &mut Child,
    began: Instant,
    limit: Duration,
) -> Result<Option<ExitStatus>> {
    let mut shown = Line::new(title);
    let ended = loop {
        if let Some(status) = child
            .try_wait()
            .context("cannot wait for a child process")?
        {
            break Some(status);
        }
        if began.elapsed() > limit {
            // A limit is for steps that can hang on the network: end them and say so.
            child.kill().context("cannot stop a child process")?;
            child.wait().context("cannot wait for a child process")?;
            break None;
        }
        shown.turn(began.elapsed());
        thread::sleep(TICK);
    };
    let outcome = match ended {
        Some(status) if status.success() => "done",
        Some(_) => "failed",
        None => "took too long",
    };
    shown.end(began.elapsed(), outcome);
    Ok(ended)
}

/// The one line that is redrawn on a terminal, or printed now and then elsewhere.
struct Line<'a> {
    title: &'a str,
    terminal: bool,
    turns: usize,
    next: Duration,
}

impl<'a> Line<'a> {
    fn new(title: &'a str) -> Self {
        let terminal = stderr().is_terminal();
        if !terminal {
            eprintln!("{title} ...");
        }
        Self {
            title,
            terminal,
            turns: 0,
            next: LINE_EVERY,
        }
    }

    fn turn(&mut self, elapsed: Duration) {
        let seconds = elapsed.as_secs();
        if self.terminal {
            let mark = ["|", "/", "-", "\\"].get(self.turns % 4).unwrap_or(&"");
            eprint!("\r\x1b[K{mark} {} ({seconds} s)", self.title);
            // A progress line that cannot be drawn is no reason to fail the step.
            stderr().flush().unwrap_or_default();
            self.turns += 1;
        } else if elapsed >= self.next {
            eprintln!("{} ... {seconds} s", self.title);
            self.next += LINE_EVERY;
        }
    }

    fn end(&self, elapsed: Duration, outcome: &str) {
        let start = if self.terminal { "\r\x1b[K" } else { "" };
        eprintln!(
            "{start}{}: {outcome} ({:.1} s)",
            self.title,
            elapsed.as_secs_f64()
        );
    }
}

/// The last lines of a log, indented, with its place.
fn tail(log: &Path) -> String {
    let text = fs::read(log).map(|raw| String::from_utf8_lossy(&raw).into_owned());
    let text = text.unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(TAIL_LINES);
    let mut shown = format!("the end of {}:", log.display());
    for line in lines.iter().skip(from) {
        shown.push_str("\n  | ");
        shown.push_str(line);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_goes_to_the_log_and_its_end_into_the_error() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("sub/step.log");
        let script = "for i in $(seq 1 50); do echo line $i; done; echo broken >&2; exit 3";
        let error = logged("a step", &mut shell(script), &log, LIMIT)
            .unwrap_err()
            .to_string();
        assert!(error.contains("failed: exit status: 3"), "{error}");
        assert!(error.ends_with("  | line 50\n  | broken"), "{error}");
        assert!(
            !error.contains("line 5\n"),
            "only the end is shown: {error}"
        );
    }

    #[test]
    fn a_step_past_its_limit_is_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("step.log");
        let began = Instant::now();
        let error = logged(
            "a step",
            &mut shell("exec sleep 30"),
            &log,
            Duration::from_millis(200),
        )
        .unwrap_err()
        .to_string();
        assert!(
            error.contains("`sh -c 'exec sleep 30'` was stopped"),
            "{error}"
        );
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}
