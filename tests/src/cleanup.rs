//! What must be undone when the process ends, however it ends: normally, by a
//! failing test, or by Ctrl-C, SIGTERM or SIGHUP. (After SIGKILL nobody is left
//! to undo anything: see [`crate::lab::Lab::sweep_stale`].)

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    process,
    sync::{Mutex, MutexGuard, PoisonError, RwLock, TryLockError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

type Action = Box<dyn FnOnce() + Send>;

static REGISTRY: Mutex<Registry> = Mutex::new(Registry {
    next: 0,
    listens: false,
    actions: BTreeMap::new(),
});

/// Held for reading while something is made or undone, and for good once the
/// process ends.
static MAKING: RwLock<()> = RwLock::new(());
/// What is being made or undone when a signal comes gets so long to be finished.
const PATIENCE: Duration = Duration::from_secs(10);

struct Registry {
    next: u64,
    listens: bool,
    actions: BTreeMap<u64, Action>,
}

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An action that runs once: when this is dropped, or at a signal that ends the
/// process (the newest first, then exit code 130).
#[derive(Debug)]
#[must_use = "the action runs when this is dropped"]
pub struct Cleanup {
    id: u64,
}

impl Cleanup {
    /// Registers `action`. Do so before making what it undoes, so that no signal
    /// falls between.
    ///
    /// # Errors
    /// Something else in the process already handles the signals.
    pub fn new(action: impl FnOnce() + Send + 'static) -> Result<Self> {
        let mut registry = registry();
        if !registry.listens {
            ctrlc::set_handler(end).context("cannot listen for Ctrl-C")?;
            registry.listens = true;
        }
        let id = registry.next;
        registry.next += 1;
        registry.actions.insert(id, Box::new(action));
        Ok(Self { id })
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        // A signal that comes meanwhile waits for the action.
        let _guard = MAKING.read().unwrap_or_else(PoisonError::into_inner);
        let action = registry().actions.remove(&self.id);
        if let Some(action) = action {
            action();
        }
    }
}

/// Makes something that a [`Cleanup`] undoes: a signal that comes meanwhile is
/// acted upon when it is made, so that nothing appears after its removal. After
/// a signal this never returns.
pub fn making<T>(make: impl FnOnce() -> T) -> T {
    let _guard = MAKING.read().unwrap_or_else(PoisonError::into_inner);
    make()
}

/// Runs on ctrlc's own thread. Holds the registry to the end, so that the other
/// threads can neither register anything more nor run an action twice.
fn end() {
    let deadline = Instant::now() + PATIENCE;
    let _nothing_more = loop {
        match MAKING.try_write() {
            Ok(guard) => break Some(guard),
            Err(TryLockError::Poisoned(error)) => break Some(error.into_inner()),
            Err(_) if Instant::now() >= deadline => break None,
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    };
    let mut registry = registry();
    while let Some((_, action)) = registry.actions.pop_last() {
        // One action that fails must not keep the others from running.
        let _: Result<(), _> = catch_unwind(AssertUnwindSafe(action));
    }
    process::exit(130);
}

#[cfg(test)]
mod tests {
    use std::{
        env,
        io::{BufRead, BufReader},
        process::{Command, Stdio},
        sync::atomic::{AtomicU32, Ordering},
    };

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;

    /// The test starts itself again as the process that is to be ended.
    #[test]
    fn a_signal_waits_for_what_is_being_made_or_undone() {
        const CHILD: &str = "MATCHER_CLEANUP_CHILD";
        if let Ok(part) = env::var(CHILD) {
            // Both take longer than the signal needs.
            let slowly = |what| {
                println!("\nready");
                thread::sleep(Duration::from_millis(500));
                println!("\n{what}");
            };
            let cleanup = Cleanup::new(move || slowly("undone")).unwrap();
            if part == "make" {
                making(|| slowly("made"));
            }
            drop(cleanup);
            thread::sleep(Duration::from_secs(60));
            return;
        }
        for (part, expected) in [
            ("make", &["ready", "made", "ready", "undone"][..]),
            ("undo", &["ready", "undone"]),
        ] {
            let mut child = Command::new(env::current_exe().unwrap())
                .args(["--exact", "--nocapture"])
                .arg("cleanup::tests::a_signal_waits_for_what_is_being_made_or_undone")
                .env(CHILD, part)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap())
                .lines()
                .map(|line| line.unwrap())
                .filter(|line| ["ready", "made", "undone"].contains(&line.as_str()));
            let mut seen = vec![lines.next().unwrap()];
            kill_process(Pid::from_child(&child), Signal::INT).unwrap();
            seen.extend(lines);
            assert_eq!(seen, expected, "{part}");
            assert_eq!(child.wait().unwrap().code(), Some(130));
        }
    }

    #[test]
    fn an_action_runs_once_and_when_dropped() {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let cleanup = Cleanup::new(|| {
            RUNS.fetch_add(1, Ordering::SeqCst);
        })
        .unwrap();
        assert_eq!(RUNS.load(Ordering::SeqCst), 0);
        drop(cleanup);
        assert_eq!(RUNS.load(Ordering::SeqCst), 1);
    }
}
