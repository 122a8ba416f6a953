//! A laboratory of two network namespaces: `edge`, where the matcher attaches,
//! and `world`, from which both sides send, with veth pairs between them.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use matcher_tests::lab::Lab;
//!
//! let lab = Lab::new("matcher-test")?;
//! lab.veth("access0", "acc-peer")?;
//! lab.veth("core0", "core-peer")?;
//! lab.edge().command("matcher").arg("status").status()?;
//! # Ok(())
//! # }
//! ```
//!
//! Nothing outside of the two namespaces is touched: even the pairs are made
//! inside. They are named after the process, so that laboratories of tests that
//! run at once do not meet, and are removed when the laboratory is dropped or the
//! process is told to end.

mod counters;

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::{fd::AsFd, unix::process::CommandExt},
    panic,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    process::{Pid, Signal, kill_process},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

pub(crate) use counters::CounterFile;
pub use counters::Counters;

use crate::cleanup::{Cleanup, making};

/// Where `ip netns` keeps its namespaces.
const NAMESPACES: &str = "/run/netns";
const ROLES: [&str; 2] = ["edge", "world"];

/// Two namespaces and what is between them; removed when dropped.
#[derive(Debug)]
pub struct Lab {
    edge: Namespace,
    world: Namespace,
    _cleanup: Cleanup,
}

impl Lab {
    /// Why no laboratory can be made here, as a reason to skip a test; `None` if
    /// one can.
    pub fn obstacle() -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("network namespaces need root".to_owned());
        }
        ["ip", "nsenter"].into_iter().find_map(|tool| {
            let runs = Command::new(tool).arg("-V").stdout(Stdio::null()).status();
            runs.is_err()
                .then(|| format!("`{tool}` is not installed (packages iproute2, util-linux)"))
        })
    }

    /// Makes the two namespaces, named `PREFIX-PID-NUMBER-ROLE`.
    ///
    /// # Errors
    /// A command failed: the error holds it and what it said.
    pub fn new(prefix: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let [edge, world] = ROLES.map(|role| Namespace {
            name: format!("{prefix}-{}-{number}-{role}", process::id()),
        });
        let both = [edge.clone(), world.clone()];
        let cleanup = Cleanup::new(move || both.iter().for_each(Namespace::remove))?;
        for namespace in [&edge, &world] {
            making(|| namespace.create())?;
        }
        Ok(Self {
            edge,
            world,
            _cleanup: cleanup,
        })
    }

    /// The namespace that the matcher attaches in.
    pub fn edge(&self) -> &Namespace {
        &self.edge
    }

    /// The namespace of everyone else: subscribers and the Internet.
    pub fn world(&self) -> &Namespace {
        &self.world
    }

    /// Makes a veth pair with one end in `edge` and one in `world`, without
    /// addresses, and returns when both have carrier.
    ///
    /// # Errors
    /// A command failed, or there is no carrier within five seconds.
    pub fn veth(&self, edge_end: &str, world_end: &str) -> Result<()> {
        let world = &self.world.name;
        self.edge.ip(&[
            "link", "add", edge_end, "type", "veth", "peer", "name", world_end, "netns", world,
        ])?;
        let ends = [(&self.edge, edge_end), (&self.world, world_end)];
        for (namespace, interface) in ends {
            namespace.switch_offloads_off(interface)?;
            namespace.ip(&["link", "set", "dev", interface, "up"])?;
        }
        for (namespace, interface) in ends {
            namespace.wait_for_carrier(interface)?;
        }
        Ok(())
    }

    /// Removes laboratories with this prefix whose process no longer lives (it
    /// was killed without a chance to clean up), and returns their names.
    ///
    /// # Errors
    /// The folder of namespaces cannot be read.
    pub fn sweep_stale(prefix: &str) -> Result<Vec<String>> {
        let entries = match fs::read_dir(NAMESPACES) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).context(format!("cannot read {NAMESPACES}")),
        };
        let mut swept = Vec::new();
        for entry in entries {
            let Ok(name) = entry?.file_name().into_string() else {
                continue;
            };
            if owner(&name, prefix).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
            {
                Namespace { name: name.clone() }.remove();
                swept.push(name);
            }
        }
        Ok(swept)
    }
}

/// The process that made the namespace, if it is one of a laboratory with this
/// prefix.
fn owner(name: &str, prefix: &str) -> Option<u32> {
    let rest = name.strip_prefix(prefix)?.strip_prefix('-')?;
    match rest.split('-').collect::<Vec<_>>()[..] {
        [pid, number, role] if ROLES.contains(&role) => {
            number.parse::<u32>().ok()?;
            pid.parse().ok()
        }
        _ => None,
    }
}

/// A network namespace of a laboratory.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Its name for `ip netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file to enter it by.
    pub fn path(&self) -> PathBuf {
        Path::new(NAMESPACES).join(&self.name)
    }

    /// A command that runs inside. Only the network differs: unlike `ip netns
    /// exec`, which mounts a new /sys, this leaves the BPF file system in sight.
    /// The process id is the command's own.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.path().display()))
            .arg("--")
            .arg(program);
        command
    }

    /// Runs `work` on a thread of its own inside of the namespace. Sockets and
    /// BPF links made there stay there, and can be used from anywhere.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    ///
    /// # Panics
    /// When `work` does.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        in_namespace(&self.name, work)
    }

    /// Runs `ip` inside, as `ip -n NAME ARGUMENTS`, and returns what it printed.
    ///
    /// # Errors
    /// It failed: the error holds the command and what it said.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        output(Command::new("ip").args(["-n", &self.name]).args(arguments))
    }

    /// Sets a value below /proc/sys/net inside of the namespace.
    ///
    /// # Errors
    /// The kernel has no such value, or refuses it.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys/net").join(key);
        self.run(|| fs::write(&path, value))?
            .with_context(|| format!("cannot set {} in {}", path.display(), self.name))
    }

    /// Returns when the interface is up and its other end too.
    ///
    /// # Errors
    /// There is no such interface, or no carrier within a minute.
    pub fn wait_for_carrier(&self, interface: &str) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let state = self.ip(&["-o", "link", "show", "dev", interface])?;
            if state.contains("LOWER_UP") {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{interface} in {} has no carrier: {state}",
                self.name
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// What the interface received and sent so far.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn counters(&self, interface: &str) -> Result<Counters> {
        self.open_counters()?.read(interface)
    }

    /// Counters to be read often.
    pub(crate) fn open_counters(&self) -> Result<CounterFile> {
        self.run(CounterFile::open)?
    }

    fn create(&self) -> Result<()> {
        output(Command::new("ip").args(["netns", "add", &self.name]))?;
        self.ip(&["link", "set", "dev", "lo", "up"])?;
        // The kernel's own IPv6 packets (neighbour and router solicitations,
        // multicast reports) would disturb counts. A kernel without IPv6 has no
        // such packets and no such values.
        if Path::new("/proc/sys/net/ipv6").exists() {
            for scope in ["all", "default"] {
                for (key, value) in [
                    ("disable_ipv6", "1"),
                    ("accept_ra", "0"),
                    ("router_solicitations", "0"),
                    ("dad_transmits", "0"),
                ] {
                    self.sysctl(&format!("ipv6/conf/{scope}/{key}"), value)?;
                }
            }
        }
        Ok(())
    }

    /// Segmentation and VLAN offloads make what XDP sees differ from the wire.
    fn switch_offloads_off(&self, interface: &str) -> Result<()> {
        // No packet stands for more than one segment, with or without ethtool.
        self.ip(&["link", "set", "dev", interface, "gso_max_segs", "1"])?;
        if Command::new("ethtool").arg("--version").output().is_ok() {
            for feature in ["gso", "tso", "gro", "rxvlan", "txvlan"] {
                // Some are fixed, which ethtool reports as a failure.
                let _ = self
                    .command("ethtool")
                    .args(["-K", interface, feature, "off"])
                    .output();
            }
        }
        Ok(())
    }

    /// Ends what still runs inside and removes the namespace. Goes on past what
    /// fails: it is the last that anyone does about it.
    fn remove(&self) {
        if !self.path().exists() {
            return;
        }
        let pids = || -> Vec<Pid> {
            output(Command::new("ip").args(["netns", "pids", &self.name]))
                .unwrap_or_default()
                .lines()
                .filter_map(|line| line.parse().ok().and_then(Pid::from_raw))
                .filter(|pid| *pid != rustix::process::getpid())
                .collect()
        };
        for (signal, patience) in [
            (Signal::TERM, Duration::from_secs(2)),
            (Signal::KILL, Duration::from_secs(1)),
        ] {
            let deadline = Instant::now() + patience;
            for pid in pids() {
                let _ = kill_process(pid, signal);
            }
            while !pids().is_empty() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(10));
            }
        }
        // A socket still open somewhere keeps the namespace alive without a name;
        // its interfaces go now.
        let veths = self.ip(&["-o", "link", "show", "type", "veth"]);
        for line in veths.unwrap_or_default().lines() {
            // "2: access0@if3: <BROADCAST,...".
            let name = line.split([':', '@']).nth(1).map_or("", str::trim);
            let _ = self.ip(&["link", "del", "dev", name]);
        }
        if let Err(error) = output(Command::new("ip").args(["netns", "del", &self.name]))
            // Two may sweep at once.
            && self.path().exists()
        {
            eprintln!("left behind: network namespace {}: {error:#}", self.name);
        }
    }
}

/// Runs `work` on a thread of its own inside of the named namespace.
///
/// # Errors
/// The namespace cannot be entered.
///
/// # Panics
/// When `work` does.
pub fn in_namespace<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    let path = Path::new(NAMESPACES).join(name);
    let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let entered = thread::scope(|scope| {
        scope
            .spawn(|| {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok::<T, rustix::io::Errno>(work())
            })
            .join()
    });
    match entered {
        Ok(result) => result.with_context(|| format!("cannot enter {}", path.display())),
        Err(cause) => panic::resume_unwind(cause),
    }
}

/// What the command printed.
fn output(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}").replace('"', "");
    let done = command
        .stdin(Stdio::null())
        // Ctrl-C in a terminal goes to a whole process group; what makes or
        // removes something is let finish.
        .process_group(0)
        .output()
        .with_context(|| format!("cannot run `{shown}`"))?;
    if !done.status.success() {
        bail!(
            "`{shown}` failed: {}",
            String::from_utf8_lossy(&done.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

#[cfg(test)]
mod tests;
