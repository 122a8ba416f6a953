//! The installed product as an operator has it: the `matcher` binary with a
//! configuration, lists and folders of its own, in a laboratory with an access
//! and a core interface.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use matcher_tests::matcher::Deployment;
//!
//! let deployment = Deployment::new()?;
//! deployment.matcher(["attach"])?.succeeded();
//! assert!(deployment.matcher(["status"])?.out.contains("access0"));
//! # Ok(())
//! # }
//! ```
//!
//! Everything is removed when the deployment is dropped or the process is told
//! to end.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    net::Ipv4Addr,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{self, Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use matcher_user::{
    hit::Hit,
    kernel::{pins::Pins, tables::Tables},
    store::{Cursor, Store},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::{cleanup::Cleanup, frames::Frame, lab::Lab, wire::Sender};

/// The configuration of a new deployment; `{pins}` stands for the pin directory.
const CONFIG: &str = r#"edge = "edge-1"

[paths]
run_dir = "run"
pin_dir = "{pins}"
state_dir = "state"

[[interface]]
name = "access0"
role = "access"

[[interface]]
name = "core0"
role = "core"

[subscribers]
prefixes = ["203.0.113.0/24", "2001:db8:100::/40"]

[consent]
model = "opt-out"
notice_since = 2026-01-01T00:00:00Z
lists = ["opt-out.list"]

[[feed]]
name = "cc"
format = "plain"
path = "cc.txt"

# Tests count packet by packet, unless they are about folding.
[folding]
window = "0s"
"#;

/// C&C addresses of a new deployment's feed, IPv4.
pub const CC: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 23);
/// An address on no list.
pub const INNOCENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
/// The port of the C&C addresses.
pub const CC_PORT: u16 = 443;
const FEED: &str = "198.51.100.23:443\n198.51.100.0/28\n2001:db8:bad::1\n";

/// How long to wait for what should happen at once: a failure takes this long, and
/// a busy machine may take most of it to load the program.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A subscriber of a deployment's IPv4 prefix.
pub fn subscriber(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, host)
}

/// A subscriber's packet to the C&C address, told from others by its port.
pub fn beacon(from: Ipv4Addr, port: u16) -> Vec<u8> {
    Frame::ethernet().ipv4(from, CC).tcp(port, CC_PORT).build()
}

/// The C&C address's answer to [`beacon`].
pub fn answer(to: Ipv4Addr, port: u16) -> Vec<u8> {
    Frame::ethernet().ipv4(CC, to).tcp(CC_PORT, port).build()
}

/// The `matcher` binary under test: `MATCHER_BIN`, else the one that cargo put
/// beside this test.
///
/// # Errors
/// There is none.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("MATCHER_BIN") {
        return Ok(path.into());
    }
    let test = env::current_exe().context("cannot tell where this test is")?;
    let path = test
        .ancestors()
        .map(|folder| folder.join("matcher"))
        .find(|path| path.is_file());
    path.context("no `matcher` binary: build it with `cargo build -p matcher-user`, or name one in MATCHER_BIN")
}

/// What a command printed, and its exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Exit code; -N after signal N.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ended {
    /// Checks that it exited with 0.
    ///
    /// # Panics
    /// It did not.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, 0, "{self:#?}");
        self
    }

    /// Checks that it exited with this code.
    ///
    /// # Panics
    /// It did not.
    #[track_caller]
    pub fn failed(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// Standard output as JSON lines.
    ///
    /// # Errors
    /// A line is no JSON.
    pub fn json_lines(&self) -> Result<Vec<Value>> {
        json_lines(&self.out)
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let signal = || output.status.signal().map_or(i32::MIN, |signal| -signal);
        Self {
            code: output.status.code().unwrap_or_else(signal),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

fn json_lines(text: &str) -> Result<Vec<Value>> {
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")))
        .collect()
}

/// Returns as soon as `done` says so.
///
/// # Errors
/// It does not within [`PATIENCE`], or fails.
pub fn wait_until(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !done()? {
        ensure!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// One instance of matcher in a laboratory of its own.
#[derive(Debug)]
pub struct Deployment {
    binary: PathBuf,
    config: PathBuf,
    pins: Pins,
    agents: AtomicU32,
    folder: TempDir,
    // Fields are dropped in this order: what is attached before what it is
    // attached to.
    _unpin: Cleanup,
    lab: Lab,
}

impl Deployment {
    /// A configuration with a feed of three entries and an empty opt-out list;
    /// nothing is attached.
    ///
    /// # Errors
    /// The laboratory or a file cannot be made.
    pub fn new() -> Result<Self> {
        let lab = Lab::new("matcher-test")?;
        lab.veth("access0", "acc-peer")?;
        lab.veth("core0", "core-peer")?;
        Self::beside(lab)
    }

    /// As [`Deployment::new`], in a laboratory that may have other interfaces.
    ///
    /// # Errors
    /// A file cannot be made.
    pub fn beside(lab: Lab) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = format!("/sys/fs/bpf/matcher-test-{}-{number}", process::id());
        let pins = Pins::at(Path::new(&directory));
        let unpin = {
            let pins = pins.clone();
            Cleanup::new(move || {
                if let Err(error) = pins.remove_all() {
                    eprintln!("left behind: {error}");
                }
            })?
        };
        let folder = tempfile::tempdir().context("cannot make a folder")?;
        let deployment = Self {
            binary: binary()?,
            config: folder.path().join("matcher.toml"),
            pins,
            agents: AtomicU32::new(0),
            folder,
            _unpin: unpin,
            lab,
        };
        deployment.write("matcher.toml", CONFIG.replace("{pins}", &directory))?;
        deployment.write("opt-out.list", "")?;
        deployment.write("cc.txt", FEED)?;
        Ok(deployment)
    }

    /// The laboratory.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The folder of the configuration, which paths in it start at.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The pinned state.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// The pinned tables.
    ///
    /// # Errors
    /// Nothing is attached.
    pub fn tables(&self) -> Result<Tables> {
        Ok(self.pins.open()?)
    }

    /// A file beside the configuration.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.folder().join(name);
        fs::write(&path, contents).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Replaces `from`, which must be in the configuration, by `to`.
    ///
    /// # Errors
    /// It is not there, or the file cannot be written.
    pub fn configure(&self, from: &str, to: &str) -> Result<()> {
        let text = fs::read_to_string(&self.config)?;
        ensure!(text.contains(from), "the configuration has no {from:?}");
        self.write("matcher.toml", text.replacen(from, to, 1))?;
        Ok(())
    }

    /// `matcher -c CONFIG ARGUMENTS` in the edge's namespace.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.lab.edge().command(&self.binary);
        command
            .arg("-c")
            .arg(&self.config)
            .args(arguments)
            .current_dir(self.folder())
            .env_remove("MATCHER_CONFIG")
            .env_remove("MATCHER_LOG")
            .stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn matcher<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Ended> {
        ended(&mut self.command(arguments))
    }

    /// Runs it to its end as somebody without any privilege, for whom the
    /// configuration is readable.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn matcher_as_nobody<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Ended> {
        // The checkout may lie where only its owner gets to.
        let copy = self.folder().join("matcher");
        if !copy.exists() {
            fs::copy(&self.binary, &copy)?;
            open_to_all(self.folder())?;
        }
        let mut command = self.lab.edge().command("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .args(["--inh-caps=-all", "--"])
            .arg(&copy)
            .arg("-c")
            .arg(&self.config)
            .args(arguments)
            .current_dir(self.folder())
            .env_remove("MATCHER_CONFIG")
            .env_remove("MATCHER_LOG");
        ended(&mut command)
    }

    /// `status --json`.
    ///
    /// # Errors
    /// It failed.
    pub fn status(&self) -> Result<Value> {
        let ended = self.matcher(["status", "--json"])?;
        ensure!(ended.code == 0, "{ended:?}");
        Ok(serde_json::from_str(&ended.out)?)
    }

    /// One packet counter of the kernel.
    ///
    /// # Errors
    /// Nothing is attached.
    pub fn counter(&self, name: &str) -> Result<u64> {
        let counters = self.tables()?.counters()?;
        counters
            .iter()
            .find(|(counter, _)| counter.name() == name)
            .map(|(_, value)| value)
            .with_context(|| format!("there is no counter {name}"))
    }

    /// Attaches and loads the configured feeds.
    ///
    /// # Errors
    /// A command failed.
    pub fn start(&self) -> Result<()> {
        for command in ["attach", "load"] {
            let ended = self.matcher([command])?;
            ensure!(ended.code == 0, "{command}: {ended:?}");
        }
        Ok(())
    }

    /// Hits that wait in the ring buffer.
    ///
    /// # Errors
    /// `tail` failed.
    pub fn hits(&self) -> Result<Vec<Value>> {
        let ended = self.matcher(["tail", "--once", "--json"])?;
        ensure!(ended.code == 0, "{ended:?}");
        ended.json_lines()
    }

    /// Hits in the store, in order.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn stored(&self) -> Result<Vec<Hit>> {
        let store = Store::open(&self.folder().join("state/hits.db"), "edge-1")?;
        let hits = store.hits_after(Cursor(0), usize::MAX)?;
        Ok(hits.into_iter().map(|(_, hit)| hit).collect())
    }

    /// What subscribers send from.
    ///
    /// # Errors
    /// The interface cannot be opened.
    pub fn access(&self) -> Result<Sender> {
        Sender::open(self.lab.world(), "acc-peer")
    }

    /// What the Internet sends from.
    ///
    /// # Errors
    /// The interface cannot be opened.
    pub fn core(&self) -> Result<Sender> {
        Sender::open(self.lab.world(), "core-peer")
    }

    /// Starts the agent and returns when it has loaded the feeds.
    ///
    /// # Errors
    /// It ends, or does not get ready.
    pub fn agent(&self) -> Result<Agent> {
        let mut agent = self.agent_with(Stdio::null(), &["run"])?;
        agent.wait_for_log("indicators in force")?;
        Ok(agent)
    }

    /// Starts `matcher ARGUMENTS` in the background with its log in a file.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn agent_with(&self, out: impl Into<Stdio>, arguments: &[&str]) -> Result<Agent> {
        let number = self.agents.fetch_add(1, Ordering::Relaxed);
        let log = self.folder().join(format!("agent-{number}.log"));
        let child = self
            .command(arguments)
            .stdout(out)
            .stderr(File::create(&log)?)
            .spawn()
            .context("cannot start matcher")?;
        Ok(Agent { child, log })
    }

    /// The text with what differs from run to run replaced.
    pub fn redacted(&self, text: &str) -> String {
        text.replace(&self.folder().display().to_string(), "[FOLDER]")
            .replace(&self.pins.directory().display().to_string(), "[PINS]")
    }
}

fn ended(command: &mut Command) -> Result<Ended> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .context("cannot start matcher")?;
    Ok(output.into())
}

fn open_to_all(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// A `matcher` in the background; killed when dropped.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    log: PathBuf,
}

impl Agent {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its pipe, if it was given one.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// What it wrote to standard error so far.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    /// Returns when its log holds this.
    ///
    /// # Errors
    /// It ends before, or it takes too long.
    pub fn wait_for_log(&mut self, text: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = self.child.try_wait()?;
            let log = self.log()?;
            if log.contains(text) {
                return Ok(());
            }
            if let Some(status) = ended {
                bail!("matcher ended ({status}) without saying {text:?}:\n{log}");
            }
            ensure!(Instant::now() < deadline, "no {text:?} in the log:\n{log}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("no process id")?, signal).context("cannot signal matcher")
    }

    /// Its exit code once it has ended, -N after signal N.
    ///
    /// # Errors
    /// It does not end.
    pub fn wait(&mut self) -> Result<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status
                    .code()
                    .unwrap_or_else(|| status.signal().map_or(i32::MIN, |signal| -signal)));
            }
            ensure!(
                Instant::now() < deadline,
                "matcher does not end:\n{}",
                self.log()?
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGKILL, and waits.
    ///
    /// # Errors
    /// It has ended before.
    pub fn kill(mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        ensure!(self.wait()? == -9, "ended before it was killed");
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
