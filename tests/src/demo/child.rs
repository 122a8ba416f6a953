//! Processes that run beside the demo, and what they print.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::cleanup::{Cleanup, making};

/// A process that ends by itself gets so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// A process that is told to end gets so long. The agent may be within a system
/// call of some seconds: the kernel verifies its program.
const GRACE: Duration = Duration::from_secs(1);

type Lines = Arc<Mutex<Vec<String>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ctrl-C in a terminal goes to a whole process group. A child of its own group
/// is left to the demo, which ends it at its turn.
pub(super) fn apart(command: &mut Command) -> &mut Command {
    command
        .env_remove("MATCHER_CONFIG")
        .env_remove("MATCHER_LOG")
        .stdin(Stdio::null())
        .process_group(0)
}

/// What a command printed.
///
/// # Errors
/// It failed: the error holds what it said.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let name = name(command);
    let done =
        making(|| apart(command).output()).with_context(|| format!("cannot run `{name}`"))?;
    if !done.status.success() {
        bail!(
            "`{name}` failed ({}): {}",
            done.status,
            String::from_utf8_lossy(&done.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

fn name(command: &Command) -> String {
    format!("{command:?}").replace('"', "")
}

/// A process that runs beside the demo. Ended when dropped, or at a signal.
#[derive(Debug)]
pub(super) struct Running {
    child: Arc<Mutex<Option<Child>>>,
    out: Lines,
    err: Lines,
    readers: Vec<thread::JoinHandle<()>>,
    _cleanup: Cleanup,
}

impl Running {
    /// Starts it. `seen` gets each line of its standard output as it comes, with
    /// its number from 0; standard error goes to `log`, or is kept.
    pub(super) fn start(
        command: &mut Command,
        log: Option<File>,
        seen: impl Fn(usize, &str) + Send + 'static,
    ) -> Result<Self> {
        let slot = Arc::new(Mutex::new(None));
        let ended = Arc::clone(&slot);
        let cleanup = Cleanup::new(move || {
            end(&ended);
        })?;
        apart(command).stdout(Stdio::piped());
        command.stderr(log.map_or_else(Stdio::piped, Stdio::from));
        let (out, err) = making(|| {
            let mut child = command.spawn()?;
            let pipes = (child.stdout.take(), child.stderr.take());
            *lock(&slot) = Some(child);
            Ok::<_, std::io::Error>(pipes)
        })
        .with_context(|| format!("cannot start `{}`", name(command)))?;
        let mut running = Self {
            child: slot,
            out: Lines::default(),
            err: Lines::default(),
            readers: Vec::new(),
            _cleanup: cleanup,
        };
        if let Some(pipe) = out {
            let lines = Arc::clone(&running.out);
            running.readers.push(read(pipe, lines, seen));
        }
        if let Some(pipe) = err {
            let lines = Arc::clone(&running.err);
            running.readers.push(read(pipe, lines, |_, _| ()));
        }
        Ok(running)
    }

    /// Lines on standard output so far.
    pub(super) fn line_count(&self) -> u64 {
        lock(&self.out).len() as u64
    }

    /// Lines on standard output so far.
    pub(super) fn lines(&self) -> Vec<String> {
        lock(&self.out).clone()
    }

    /// What it said on standard error, where that is kept.
    pub(super) fn said(&self) -> String {
        lock(&self.err).join("\n")
    }

    /// How it ended, if it did.
    pub(super) fn ended(&self) -> Option<ExitStatus> {
        lock(&self.child).as_mut()?.try_wait().ok()?
    }

    /// Waits until it has ended by itself and all its lines are read.
    ///
    /// # Errors
    /// It did not within some seconds.
    pub(super) fn wait(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.ended() {
                for reader in self.readers.drain(..) {
                    // A reader that panicked has read what it could.
                    let _ = reader.join();
                }
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("it still runs after {} s", PATIENCE.as_secs());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

fn read(
    pipe: impl Read + Send + 'static,
    to: Lines,
    seen: impl Fn(usize, &str) + Send + 'static,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let number = lock(&to).len();
            seen(number, &line);
            lock(&to).push(line);
        }
    })
}

/// Ends a child by its id: kindly first.
fn end(slot: &Mutex<Option<Child>>) {
    let Some(mut child) = lock(slot).take() else {
        return;
    };
    let _ = kill_process(Pid::from_child(&child), Signal::TERM);
    let deadline = Instant::now() + GRACE;
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() >= deadline {
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn every_line_is_kept_and_seen_with_its_number() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&seen);
        let script = "echo a; echo b; echo c >&2; exit 4";
        let mut running = Running::start(&mut shell(script), None, move |number, line| {
            lock(&to).push((number, line.to_owned()));
        })
        .unwrap();
        assert_eq!(running.wait().unwrap().code(), Some(4));
        assert_eq!(running.lines(), ["a", "b"]);
        assert_eq!(running.said(), "c");
        assert_eq!(*lock(&seen), [(0, "a".to_owned()), (1, "b".to_owned())]);
    }

    #[test]
    fn a_child_is_ended_when_dropped() {
        let running =
            Running::start(&mut shell("echo $$; exec sleep 600"), None, |_, _| ()).unwrap();
        while running.line_count() == 0 {
            thread::sleep(Duration::from_millis(5));
        }
        let pid = running.lines()[0].clone();
        drop(running);
        assert!(!std::path::Path::new("/proc").join(pid).exists());
    }
}
