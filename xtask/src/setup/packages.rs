//! Programs from the distribution. Installed only as root and only where apt-get is; elsewhere
//! the message says which package.

use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Result;

use super::{Missing, cache};
use crate::{process, progress};

/// Lists can be slow to fetch, or a proxy dead.
const UPDATE_LIMIT: Duration = Duration::from_secs(120);
const INSTALL_LIMIT: Duration = Duration::from_secs(15 * 60);

/// A program, the Debian package that has it, and what it is for.
pub struct Tool {
    /// Its name on `PATH`.
    pub program: &'static str,
    /// Debian's package.
    pub package: &'static str,
    /// Why it is wanted.
    pub why: &'static str,
}

impl Tool {
    /// The command that would bring it.
    pub fn install(&self) -> String {
        format!("apt-get install {}", self.package)
    }
}

/// SQLite is compiled from C.
pub const CC: &Tool = &Tool {
    program: "cc",
    package: "build-essential",
    why: "compiles SQLite and links",
};
/// libFuzzer is compiled from C++.
pub const CXX: &Tool = &Tool {
    program: "c++",
    package: "build-essential",
    why: "compiles libFuzzer",
};
/// Namespaces, veth pairs.
pub const IP: &Tool = &Tool {
    program: "ip",
    package: "iproute2",
    why: "makes the network namespaces of the tests",
};
/// Into a namespace.
pub const NSENTER: &Tool = &Tool {
    program: "nsenter",
    package: "util-linux",
    why: "enters the network namespaces",
};
/// A second opinion on captures.
pub const TSHARK: &Tool = &Tool {
    program: "tshark",
    package: "tshark",
    why: "the parser is compared with it",
};
/// Takes a program off an interface by force.
pub const BPFTOOL: &Tool = &Tool {
    program: "bpftool",
    package: "bpftool",
    why: "a test takes the program off an interface with it",
};
/// For the ABI of the last commit.
pub const GIT: &Tool = &Tool {
    program: "git",
    package: "git",
    why: "tidy compares with the last commit",
};

/// Boots other kernels.
pub const QEMU: &Tool = &Tool {
    program: "qemu-system-x86_64",
    package: "qemu-system-x86",
    why: "boots other kernels",
};
/// Their user space.
pub const BUSYBOX: &Tool = &Tool {
    program: "busybox",
    package: "busybox-static",
    why: "the user space of those kernels",
};

/// Sets of addresses at netdev ingress.
pub const NFT: &Tool = &Tool {
    program: "nft",
    package: "nftables",
    why: "the benchmark measures it beside the matcher",
};
/// Rules that ask a set of ipset.
pub const IPTABLES: &Tool = &Tool {
    program: "iptables",
    package: "iptables",
    why: "the benchmark measures it beside the matcher",
};
/// Sets of addresses for iptables.
pub const IPSET: &Tool = &Tool {
    program: "ipset",
    package: "ipset",
    why: "the benchmark measures it beside the matcher",
};
/// An XDP program with a list of addresses.
pub const XDP_FILTER: &Tool = &Tool {
    program: "xdp-filter",
    package: "xdp-tools",
    why: "the benchmark measures it beside the matcher",
};

/// All of them, for the report of `cargo xtask setup`.
pub const TOOLS: [&Tool; 13] = [
    CC, CXX, GIT, IP, NSENTER, TSHARK, BPFTOOL, QEMU, BUSYBOX, NFT, IPTABLES, IPSET, XDP_FILTER,
];

/// The program is there afterwards.
///
/// # Errors
/// [`Missing`] when it is not and cannot be installed.
pub fn require(tool: &Tool) -> Result<()> {
    if process::on_path(tool.program).is_some() {
        return Ok(());
    }
    let mut tried = Vec::new();
    let _lock = cache::lock()?;
    if process::on_path(tool.program).is_some()
        || install(&[tool.package], &mut tried)? && process::on_path(tool.program).is_some()
    {
        return Ok(());
    }
    let mut what = format!(
        "`{}` is missing ({}): {}",
        tool.program,
        tool.why,
        tool.install()
    );
    for attempt in tried {
        what.push_str(&format!("\n  tried: {attempt}"));
    }
    Err(Missing { what }.into())
}

/// The program is there afterwards if that can be had; else a line says what will not be done.
pub fn wish(tool: &Tool) -> Result<()> {
    if process::on_path(tool.program).is_some() {
        return Ok(());
    }
    let mut tried = Vec::new();
    let _lock = cache::lock()?;
    install(&[tool.package], &mut tried)?;
    if process::on_path(tool.program).is_none() {
        eprintln!(
            "note: `{}` is not here ({}); what needs it is skipped. {} would bring it.",
            tool.program,
            tool.why,
            tool.install()
        );
    }
    Ok(())
}

/// Installs packages; false, with the reason in `tried`, when that cannot be done from here. The
/// caller holds the cache's lock.
pub fn install(packages: &[&str], tried: &mut Vec<String>) -> Result<bool> {
    let wanted = packages.join(" ");
    let Some(apt) = process::on_path("apt-get") else {
        tried.push(format!("{wanted}: this machine has no apt-get"));
        return Ok(false);
    };
    if !process::is_root() {
        tried.push(format!("{wanted}: `apt-get install {wanted}` needs root"));
        return Ok(false);
    }
    if let Some(failure) = update() {
        // Old lists may still do: go on, and keep the reason for the message.
        tried.push(failure.to_owned());
    }
    let mut command = apt_get(&apt);
    command
        .args(["install", "--yes", "--no-install-recommends"])
        .args(packages);
    let title = format!("apt-get install {wanted}");
    match progress::logged(&title, &mut command, &cache::log("apt-get")?, INSTALL_LIMIT) {
        Ok(()) => Ok(true),
        Err(error) => {
            tried.push(format!("{error:#}"));
            Ok(false)
        }
    }
}

/// `apt-get update`, once a run; why it failed, if it did.
fn update() -> Option<&'static str> {
    static OUTCOME: OnceLock<Option<String>> = OnceLock::new();
    let outcome = OUTCOME.get_or_init(|| {
        let mut command = apt_get("apt-get".as_ref());
        command.arg("update");
        let log = cache::log("apt-get-update");
        log.and_then(|log| progress::logged("apt-get update", &mut command, &log, UPDATE_LIMIT))
            .err()
            .map(|error| format!("{error:#}"))
    });
    outcome.as_deref()
}

fn apt_get(program: &std::path::Path) -> Command {
    let mut command = Command::new(program);
    // Another apt may be running, as on a machine that just booted.
    command.args(["-o", "DPkg::Lock::Timeout=120"]);
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env_remove("LD_LIBRARY_PATH");
    command
}
