//! The arguments of `matcher`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use jiff::Timestamp;
use matcher_user::{
    indicator::Tlp,
    verdicts::{Opinion, ShareFormat},
};

/// Tells an Internet provider which of its lines likely have an infected
/// device, without looking at the traffic of anyone who did not consent.
#[derive(Debug, Parser)]
#[command(name = "matcher", version, max_term_width = 100)]
pub(super) struct Cli {
    /// Configuration file. Commands that come after `matcher attach` find it
    /// by themselves
    #[arg(
        short,
        long,
        global = true,
        value_name = "FILE",
        env = "MATCHER_CONFIG"
    )]
    pub(super) config: Option<PathBuf>,

    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check a configuration: every problem with line and column
    Check,
    /// Run the agent in the foreground; candidates go to standard output
    Run {
        /// Candidates as sentences for people instead of JSON lines
        #[arg(long)]
        text: bool,
    },
    /// Attach to interfaces; the program stays when the command ends
    Attach {
        /// Interface to attach to, with its role: access, core or both.
        /// Default: those of the configuration
        #[arg(long = "iface", value_name = "NAME[:ROLE]")]
        interfaces: Vec<String>,
        /// native (in the driver), generic (in the stack, slow) or auto
        #[arg(long)]
        mode: Option<String>,
    },
    /// Load feeds of C&C addresses, and read the consent lists again
    ///
    /// Feeds whose time has come are fetched first.
    Load {
        /// Fetch feeds now, even before their time, as far as their publishers
        /// allow
        #[arg(long, conflicts_with = "feeds")]
        fetch: bool,
        /// Load exactly these instead of the configured feeds
        #[arg(long = "feed", value_name = "FORMAT:PATH")]
        feeds: Vec<String>,
    },
    /// Print hits as they come
    Tail {
        /// JSON lines
        #[arg(long)]
        json: bool,
        /// Print what waits, then end
        #[arg(long)]
        once: bool,
    },
    /// Show what is attached, loaded and counted
    Status {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Prove the way from packet to hit with a packet of the product's own
    Canary {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Detach from every interface and remove everything pinned
    Detach,
    /// Emergency stop: everything passes unmatched, at once
    StopMatching {
        /// End the stop
        #[arg(long)]
        resume: bool,
    },
    /// Show and change who consents to what
    #[command(subcommand)]
    Consent(Consent),
    /// Run captures through the program in the kernel; no interface needed
    Replay(Replay),
    /// Show what the parser in the kernel sees of each packet of a capture
    Parse {
        /// JSON lines
        #[arg(long)]
        json: bool,
        /// Captures, pcap or pcapng
        #[arg(required = true, value_name = "PCAP")]
        captures: Vec<PathBuf>,
    },
    /// Look at feeds and judge what they list
    #[command(subcommand)]
    Feed(Feed),
}

#[derive(Debug, Subcommand)]
pub(super) enum Consent {
    /// Show the consent in force, or which lines speak of an address
    Show {
        /// Address or prefix
        subject: Option<String>,
        #[command(flatten)]
        part: Part,
    },
    /// Take a subscriber out; in force when the command returns
    OptOut(Subject),
    /// Take an opt-out back (in the opt-in model: record consent)
    OptIn(Subject),
    /// Add the lines of a file in the format of the opt-out list
    Import {
        /// The file
        path: PathBuf,
    },
}

/// The part of an address that is one subscriber's.
#[derive(Debug, Args)]
pub(super) struct Part {
    /// Only these ports of a shared address, as 1024-2047 or 1024-2047,4096
    #[arg(long, value_name = "PORTS", conflicts_with = "map_e")]
    pub(super) ports: Option<String>,
    /// Only this MAP-E port set of a shared address, as a:4,k:8,psid:0x34
    #[arg(long, value_name = "PORT-SET")]
    pub(super) map_e: Option<String>,
    /// Only in this subscriber space; 0 is that of all VLANs without their own
    #[arg(long, value_name = "NUMBER")]
    pub(super) space: Option<u32>,
}

#[derive(Debug, Args)]
pub(super) struct Subject {
    /// Address or prefix
    pub(super) subject: String,
    #[command(flatten)]
    pub(super) part: Part,
    /// detect, notify, vulnerable, block or discover; all when absent
    #[arg(long = "purpose", value_name = "PURPOSE")]
    pub(super) purposes: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Replay {
    /// Feed of C&C addresses
    #[arg(long = "feed", required = true, value_name = "FORMAT:PATH")]
    pub(super) feeds: Vec<String>,
    /// The subscriber space: prefixes, or a file with one a line
    #[arg(long, value_name = "CIDR[,CIDR...]|@FILE")]
    pub(super) subscribers: String,
    /// A subscriber space of VLANs, as 7:100,300-399:10.0.0.0/8
    #[arg(long = "vlan-space", value_name = "ID:VLAN[,VLAN...]:CIDR[,CIDR...]")]
    pub(super) vlan_spaces: Vec<String>,
    /// A NAT64 prefix, as 64:ff9b::/96: its addresses are looked up as the IPv4
    /// addresses that they carry
    #[arg(long, value_name = "PREFIX")]
    pub(super) nat64: Vec<String>,
    /// Opt-out list
    #[arg(long, value_name = "PATH")]
    pub(super) opt_out: Option<PathBuf>,
    /// Load entries that the feed guards would refuse
    #[arg(long)]
    pub(super) no_guards: bool,
    /// JSON lines
    #[arg(long)]
    pub(super) json: bool,
    /// Captures, pcap or pcapng
    #[arg(required = true, value_name = "PCAP")]
    pub(super) captures: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Feed {
    /// Read a feed file and say what is in it and what is wrong with it
    Check {
        /// The feed
        #[arg(value_name = "FORMAT:PATH")]
        feed: String,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Say which entries cover an address, and why they match or not
    Lookup {
        /// The address, with a port or without; or a name
        #[arg(value_name = "ADDR[:PORT]")]
        address: String,
        /// Look in these instead of in what is loaded
        #[arg(long = "feed", value_name = "FORMAT:PATH")]
        feeds: Vec<String>,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Say what loading the feeds would change; changes nothing
    Diff {
        /// Compare with these instead of with the configured feeds
        #[arg(long = "feed", value_name = "FORMAT:PATH")]
        feeds: Vec<String>,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Record what you found out about an indicator; a false positive is out
    /// when the command returns
    Verdict {
        /// What the indicator lists
        #[arg(value_name = "ADDR[:PORT]|PREFIX|NAME")]
        value: String,
        /// confirmed, false-positive, or clear (takes back what was said)
        verdict: Opinion,
        /// Who says so
        #[arg(long, value_name = "NAME")]
        by: String,
        /// Why; stays here, whatever is exported
        #[arg(long, value_name = "TEXT")]
        why: String,
        /// One indicator of several with the value (`feed lookup` shows ids)
        #[arg(long, value_name = "N")]
        id: Option<u32>,
    },
    /// List the verdicts that hold
    Verdicts {
        /// One JSON object for each, those that were taken back too
        #[arg(long)]
        json: bool,
    },
    /// Write verdicts for others, without anything about subscribers
    Export {
        /// misp-sighting or stix
        #[arg(long)]
        format: ShareFormat,
        /// Only those given at this time or later, RFC 3339
        #[arg(long, value_name = "TIME")]
        since: Option<Timestamp>,
        /// Sign with the name of your organisation
        #[arg(long, value_name = "NAME")]
        organisation: Option<String>,
        /// The strictest marking that the recipient may have: clear, green or amber
        #[arg(long, value_name = "MARKING", default_value = "green", value_parser = passed_on)]
        tlp: Tlp,
    },
    /// Say how old each feed is, what of it is in force, and how its last load went
    List {
        /// One JSON list
        #[arg(long)]
        json: bool,
    },
}

/// The strictest marking that an export may hold.
fn passed_on(text: &str) -> Result<Tlp, String> {
    match Tlp::parse(text) {
        Some(tlp) if tlp <= Tlp::Amber => Ok(tlp),
        Some(tlp) => Err(format!("what is marked {tlp} may not be passed on")),
        None => Err("no marking: clear, green or amber".to_owned()),
    }
}
