//! Other products that find packets by a list of addresses, set up on an
//! interface with the list of the benchmark.

use std::{
    fmt::Write as _,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use matcher_user::kernel::bench::XdpFilterAddresses;

use crate::{cleanup::Cleanup, lab::Namespace};

/// A product.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// nftables: a chain at netdev ingress, a set of hosts.
    NftHash,
    /// nftables: the same with a set of intervals, which takes prefixes.
    NftInterval,
    /// iptables alone, without a set: what the next one costs besides the set.
    Iptables,
    /// iptables with a set `hash:net`.
    Ipset,
    /// xdp-filter of xdp-tools.
    XdpFilter,
}

impl Peer {
    pub(super) const ALL: [Self; 5] = [
        Self::NftHash,
        Self::NftInterval,
        Self::Iptables,
        Self::Ipset,
        Self::XdpFilter,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::NftHash => "nft-hash",
            Self::NftInterval => "nft-interval",
            Self::Iptables => "iptables",
            Self::Ipset => "ipset",
            Self::XdpFilter => "xdp-filter",
        }
    }

    /// Whether it sees only packets that are addressed to the machine.
    pub(super) fn wants_own_packets(self) -> bool {
        matches!(self, Self::Iptables | Self::Ipset)
    }

    /// Whether it attaches an XDP program itself.
    pub(super) fn is_xdp(self) -> bool {
        self == Self::XdpFilter
    }

    /// Programs it is made of, and the Debian package of each.
    fn programs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::NftHash | Self::NftInterval => &[("nft", "nftables")],
            Self::Iptables => &[("iptables", "iptables")],
            Self::Ipset => &[("iptables", "iptables"), ("ipset", "ipset")],
            Self::XdpFilter => &[("xdp-filter", "xdp-tools")],
        }
    }
}

/// A product at work.
pub(super) struct AtWork {
    /// Entries it holds, and what it leaves out.
    pub(super) entries: usize,
    /// What a reader has to know.
    pub(super) note: String,
    counting: Counting,
    _cleanup: Option<Cleanup>,
}

enum Counting {
    Nothing,
    Nft(Namespace, String),
    Iptables(Namespace, String),
    XdpFilter(XdpFilterAddresses),
}

impl AtWork {
    /// Packets that it found so far; `None` for one that looks for none.
    pub(super) fn found(&self) -> Result<Option<u64>> {
        Ok(match &self.counting {
            Counting::Nothing => None,
            Counting::Nft(namespace, chain) => {
                let mut command = namespace.command("nft");
                command.args(["--terse", "list", "chain", "netdev", TABLE, chain]);
                let text = output(&mut command)?;
                let found = text
                    .split_once("counter packets ")
                    .and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
                Some(found.with_context(|| format!("nft tells of no counter: {text}"))?)
            }
            Counting::Iptables(namespace, set) => {
                let mut command = namespace.command("iptables");
                command.args(["-t", "raw", "-L", "PREROUTING", "-v", "-x", "-n"]);
                let text = output(&mut command)?;
                let found = text
                    .lines()
                    .find(|line| line.contains(&format!("match-set {set} ")))
                    .and_then(|line| line.split_whitespace().next()?.parse().ok());
                Some(found.with_context(|| format!("iptables tells of no counter: {text}"))?)
            }
            Counting::XdpFilter(addresses) => Some(addresses.hits()?),
        })
    }
}

const TABLE: &str = "matcher_bench";
/// Where xdp-filter pins its tables.
const XDP_FILTER: &str = "/sys/fs/bpf/xdp-filter";
/// Where its library pins its dispatchers. It leaves the folder behind.
const LIBXDP: &str = "/sys/fs/bpf/xdp";

/// Sets a product up on an interface; `interface` in `namespace` must drop what
/// the product lets pass.
///
/// # Errors
/// Why it cannot be: a program is not installed, or the kernel lacks something.
pub(super) fn set_up(
    peer: Peer,
    namespace: &Namespace,
    interface: &str,
    list: &[IpNet],
    folder: &Path,
) -> Result<AtWork> {
    for (program, package) in peer.programs() {
        let runs = Command::new(program)
            .arg("--help")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .stdin(Stdio::null())
            .status();
        if runs.is_err() {
            bail!("`{program}` is not installed (apt-get install {package})");
        }
    }
    let hosts = || {
        list.iter()
            .filter(|net| net.prefix_len() == net.max_prefix_len())
    };
    match peer {
        Peer::NftHash => {
            let hosts: Vec<String> = hosts().map(|net| net.addr().to_string()).collect();
            nft(namespace, interface, "type ipv4_addr", &hosts, folder)?;
            Ok(AtWork {
                entries: hosts.len(),
                note: "hosts only: a hash set takes no prefixes".into(),
                counting: Counting::Nft(namespace.clone(), interface.into()),
                _cleanup: None,
            })
        }
        Peer::NftInterval => {
            let kind = "type ipv4_addr; flags interval; auto-merge";
            let all: Vec<String> = list.iter().map(IpNet::to_string).collect();
            nft(namespace, interface, kind, &all, folder)?;
            Ok(AtWork {
                entries: all.len(),
                note: String::new(),
                counting: Counting::Nft(namespace.clone(), interface.into()),
                _cleanup: None,
            })
        }
        Peer::Iptables => {
            iptables(namespace, &["-i", interface, "-j", "DROP"])?;
            Ok(AtWork {
                entries: 0,
                note: "no list: drops in raw PREROUTING, as the next one does".into(),
                counting: Counting::Nothing,
                _cleanup: None,
            })
        }
        Peer::Ipset => {
            ipset(namespace, interface, list, folder)?;
            Ok(AtWork {
                entries: list.len(),
                note: "in raw PREROUTING, hash:net".into(),
                counting: Counting::Iptables(namespace.clone(), interface.into()),
                _cleanup: None,
            })
        }
        Peer::XdpFilter => {
            let hosts: Vec<IpAddr> = hosts().map(IpNet::addr).collect();
            xdp_filter(namespace, interface, &hosts)
        }
    }
}

fn nft(
    namespace: &Namespace,
    interface: &str,
    kind: &str,
    elements: &[String],
    folder: &Path,
) -> Result<()> {
    let path = folder.join(format!("{interface}.nft"));
    let mut text = format!(
        "table netdev {TABLE} {{\n\
         \tset {interface} {{\n\t\t{}\n\t\telements = {{ {} }}\n\t}}\n\
         \tchain {interface} {{\n\
         \t\ttype filter hook ingress device \"{interface}\" priority 0; policy accept;\n\
         \t\tip daddr @{interface} counter\n\
         \t}}\n}}\n",
        kind.replace("; ", "\n\t\t"),
        elements.join(",\n")
    );
    if elements.is_empty() {
        text = text.replace("elements = {  }\n", "");
    }
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    output(namespace.command("nft").arg("-f").arg(&path))?;
    Ok(())
}

fn iptables(namespace: &Namespace, rule: &[&str]) -> Result<()> {
    let mut command = namespace.command("iptables");
    command.args(["-t", "raw", "-A", "PREROUTING"]).args(rule);
    output(&mut command)?;
    Ok(())
}

fn ipset(namespace: &Namespace, set: &str, list: &[IpNet], folder: &Path) -> Result<()> {
    let path = folder.join(format!("{set}.ipset"));
    let mut text = format!(
        "create {set} hash:net family inet hashsize {} maxelem {}\n",
        (list.len() / 2).next_power_of_two().max(64),
        list.len().max(1)
    );
    for net in list {
        writeln!(text, "add {set} {net}")?;
    }
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    let mut restore = namespace.command("ipset");
    output(restore.arg("-exist").arg("-file").arg(&path).arg("restore"))?;
    let found = [
        "-i",
        set,
        "-m",
        "set",
        "--match-set",
        set,
        "dst",
        "-j",
        "DROP",
    ];
    iptables(namespace, &found)?;
    iptables(namespace, &["-i", set, "-j", "DROP"])
}

fn xdp_filter(namespace: &Namespace, interface: &str, hosts: &[IpAddr]) -> Result<AtWork> {
    let pinned: PathBuf = XDP_FILTER.into();
    if pinned.exists() {
        bail!("{XDP_FILTER} exists: xdp-filter is in use here, and is left alone");
    }
    let libxdp_was_here = Path::new(LIBXDP).exists();
    let mut load = namespace.command("xdp-filter");
    load.args(["load", "--mode", "native", "--features", "ipv4", interface]);
    output(&mut load)?;
    let (inside, from) = (namespace.clone(), interface.to_owned());
    let cleanup = Cleanup::new(move || {
        let mut unload = inside.command("xdp-filter");
        if let Err(error) = output(unload.args(["unload", &from])) {
            eprintln!("left behind: xdp-filter on {from}: {error:#}");
        }
        if !libxdp_was_here {
            // Stays if another uses it by now: only an empty folder goes.
            let _ = fs::remove_dir(LIBXDP);
        }
    })?;
    let Some(first) = hosts.first() else {
        bail!("no host is listed");
    };
    let mut add = namespace.command("xdp-filter");
    output(add.args(["ip", "--mode", "dst", &first.to_string()]))?;
    let mut addresses = XdpFilterAddresses::open(&pinned.join("filter_ipv4"))?;
    let capacity = addresses.capacity() as usize;
    let rest: Vec<[u8; 4]> = hosts
        .iter()
        .take(capacity)
        .skip(1)
        .filter_map(|host| match host {
            IpAddr::V4(host) => Some(host.octets()),
            IpAddr::V6(_) => None,
        })
        .collect();
    addresses.extend_like_first(&rest)?;
    let note = match hosts.len() > capacity {
        true => format!("hosts only, and {capacity} of them: its table is that large"),
        false => "hosts only: it takes no prefixes".into(),
    };
    Ok(AtWork {
        entries: rest.len() + 1,
        note,
        counting: Counting::XdpFilter(addresses),
        _cleanup: Some(cleanup),
    })
}

/// What a command printed.
fn output(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}").replace('"', "");
    let done = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run `{shown}`"))?;
    if !done.status.success() {
        let said = [&done.stderr[..], &done.stdout[..]].concat();
        let said = String::from_utf8_lossy(&said);
        let first: Vec<&str> = said.lines().map(str::trim).take(3).collect();
        bail!("`{shown}` failed: {}", first.join(" / "));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
