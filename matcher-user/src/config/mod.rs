//! The config: one TOML file, checked as a whole. [`Config::load`] reports
//! every problem with line and column, not only the first, and refuses keys
//! that it does not know. `matcher.example.toml` documents every key.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use jiff::Timestamp;

use crate::{
    consent::{ConsentModel, ConsentSources},
    feeds::FeedSource,
    nat64::Nat64Prefix,
    subscribers::SpaceSource,
};

mod canary;
mod diagnostic;
mod feeds;
mod interface;
mod reader;
mod sections;

pub use self::{
    canary::CanaryConfig,
    diagnostic::{ConfigError, Diagnostic, Severity},
    feeds::GuardConfig,
    interface::{
        AttachMode, Interface, InterfaceArgument, InterfaceArgumentError, InterfaceNameError, Role,
        UnknownName, check_interface_name,
    },
};

/// Every key that the config knows, as `table.key`. The reader refuses keys
/// that are not here, and cannot read one that is not.
pub const KEYS: &[&str] = &[
    "edge",
    "ebpf_object",
    "paths.run_dir",
    "paths.pin_dir",
    "paths.state_dir",
    "interface.name",
    "interface.role",
    "interface.mode",
    "interface.source_validated",
    "subscribers.prefixes",
    "subscribers.files",
    "subscribers.space.id",
    "subscribers.space.vlans",
    "subscribers.space.prefixes",
    "subscribers.space.files",
    "nat64.prefixes",
    "consent.model",
    "consent.notice_since",
    "consent.lists",
    "consent.no_list",
    "consent.exclusions",
    "consent.deadline",
    "feed.name",
    "feed.format",
    "feed.path",
    "feed.url",
    "feed.every",
    "feed.auth",
    "feed.secret_file",
    "feed.ca_file",
    "feed.plain_http",
    "feed.collections",
    "feed.max_bytes",
    "feed.max_time",
    "feed.idle_time",
    "feed.match_attackers",
    "feed.malware",
    "feed.confidence",
    "feed.min_confidence",
    "feed.max_age",
    "feed.max_bad_share",
    "feed.min_remaining_share",
    "guards.min_prefix_len_v4",
    "guards.min_prefix_len_v6",
    "guards.own_prefixes",
    "guards.min_remaining_share",
    "guards.max_bad_share",
    "guards.min_confidence",
    "guards.max_age",
    "guards.never_match_defaults",
    "guards.allow_files",
    "guards.allow.value",
    "guards.allow.reason",
    "guards.confirmed.value",
    "guards.confirmed.by",
    "guards.confirmed.reason",
    "guards.confirmed.at",
    "guards.notify.min_feeds",
    "guards.notify.min_confidence",
    "guards.block.min_feeds",
    "guards.block.min_confidence",
    "tables.max_indicators",
    "tables.max_consent_entries",
    "tables.max_port_ranges",
    "tables.ring_bytes",
    "folding.window",
    "folding.max_flows",
    "folding.max_events",
    "candidates.require_two_way",
    "candidates.min_contacts",
    "retention.hits",
    "control.group",
    "canary.every",
    "canary.subscriber",
    "canary.remote",
    "canary.port",
];

/// A config without errors. Relative paths in the file are relative to its
/// folder; here they are joined to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file it was read from.
    pub path: PathBuf,
    /// Name of this edge, carried by every record; the host's name unless set.
    pub edge: String,
    /// The program to load instead of the built-in one.
    pub ebpf_object: Option<PathBuf>,
    /// Folders.
    pub paths: Paths,
    /// Interfaces to attach to.
    pub interfaces: Vec<Interface>,
    /// The subscriber spaces.
    pub subscribers: SubscriberConfig,
    /// NAT64 prefixes, each once.
    pub nat64: Vec<Nat64Prefix>,
    /// Who consents.
    pub consent: ConsentConfig,
    /// The feeds of C&C addresses.
    pub feeds: Vec<FeedSource>,
    /// What no feed may load.
    pub guards: GuardConfig,
    /// Sizes of the kernel's tables.
    pub tables: TableConfig,
    /// How repeated hits are folded.
    pub folding: FoldingConfig,
    /// What makes a candidate of hits.
    pub candidates: CandidateConfig,
    /// How long records are kept (R4).
    pub retention: RetentionConfig,
    /// Who may talk to the agent.
    pub control: ControlConfig,
    /// The canary, if it is on. Its subscriber is in the subscriber space.
    pub canary: Option<CanaryConfig>,
    /// What may not be as meant; does not stop anything.
    pub warnings: Vec<Diagnostic>,
}

/// Folders that the product uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Control socket and locks; emptied by a reboot.
    pub run_dir: PathBuf,
    /// Pinned links and maps; inside a mounted bpffs.
    pub pin_dir: PathBuf,
    /// Records and lists; survives a reboot.
    pub state_dir: PathBuf,
}

impl Default for Paths {
    /// The folders of a run without a config.
    fn default() -> Self {
        Self {
            run_dir: "/run/matcher".into(),
            pin_dir: "/sys/fs/bpf/matcher".into(),
            state_dir: "/var/lib/matcher".into(),
        }
    }
}

/// The subscriber spaces, as given; [`crate::subscribers::SubscriberSpaces::load`]
/// reads them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriberConfig {
    /// Prefixes, without duplicates.
    pub prefixes: Vec<IpNet>,
    /// Files with one prefix a line.
    pub files: Vec<PathBuf>,
    /// Spaces of VLANs, each number once; no VLAN is in two of them.
    pub spaces: Vec<SpaceSource>,
}

/// Who consents (R1, R2; design decisions 1 and 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsentConfig {
    /// Who consents when no list names them.
    pub model: ConsentModel,
    /// Opt-out lists, or in the opt-in model lists of those who consent.
    pub lists: Vec<PathBuf>,
    /// The operator states that there is no opt-out list.
    pub no_list: bool,
    /// Lists of ranges under other terms, never matched.
    pub exclusions: Vec<PathBuf>,
    /// Since when the prior notice holds; always there in the opt-out model.
    pub notice_since: Option<Timestamp>,
    /// Consent in the kernel ends so long after the agent renewed it last; 1
    /// minute to 24 hours.
    pub deadline: Duration,
}

impl ConsentConfig {
    /// Consent in the kernel ends so long after the agent renewed it last,
    /// unless set.
    pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(15 * 60);

    /// The lists to read, with those that the product keeps in `state_dir`.
    pub fn sources(&self, state_dir: Option<PathBuf>) -> ConsentSources {
        ConsentSources {
            model: self.model,
            lists: self.lists.clone(),
            no_list: self.no_list,
            exclusions: self.exclusions.clone(),
            notice_since: self.notice_since,
            state_dir,
        }
    }
}

/// Sizes of the kernel's tables, fixed when they are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableConfig {
    /// C&C entries over all feeds.
    pub max_indicators: u32,
    /// Prefixes with a consent of their own.
    pub max_consent_entries: u32,
    /// Port ranges of shared addresses, 8 bytes each.
    pub max_port_ranges: u32,
    /// The ring buffer of hits in bytes; a power of two.
    pub ring_bytes: u32,
}

impl Default for TableConfig {
    fn default() -> Self {
        Self {
            max_indicators: 1_000_000,
            max_consent_entries: 1_000_000,
            max_port_ranges: 1_000_000,
            ring_bytes: 16 << 20,
        }
    }
}

/// How the kernel folds packets that repeat (design decision 7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoldingConfig {
    /// How long packets of one flow are counted into one event; zero: every
    /// packet is an event.
    pub window: Duration,
    /// Flows that are told apart in a window; fixed when the tables are made.
    pub max_flows: u32,
    /// Events of one subscriber and one indicator in a window.
    pub max_events: u32,
}

impl Default for FoldingConfig {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(10),
            max_flows: 65_536,
            max_events: 64,
        }
    }
}

/// What makes a candidate of hits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CandidateConfig {
    /// Only contacts that both ends sent packets in.
    pub require_two_way: bool,
    /// How many of the subscriber's own packets to the C&C address it takes.
    pub min_contacts: u32,
}

impl Default for CandidateConfig {
    fn default() -> Self {
        Self {
            require_two_way: true,
            min_contacts: 1,
        }
    }
}

/// How long records are kept (R4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionConfig {
    /// Hits are erased at the latest so long after they were seen.
    pub hits: Duration,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self {
            hits: Duration::from_secs(90 * 24 * 60 * 60),
        }
    }
}

/// Who may talk to the agent over its socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControlConfig {
    /// A group whose members may, besides root.
    pub group: Option<String>,
}

impl Config {
    /// Reads and checks a config file.
    ///
    /// # Errors
    /// Every problem of the file, warnings included.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let bytes = fs::read(path).map_err(|error| whole_file(path, &error))?;
        let text = match str::from_utf8(&bytes) {
            Ok(text) => text,
            Err(error) => {
                let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
                let valid = String::from_utf8_lossy(valid);
                let mut found = diagnostic::Diagnostics::new(path, &valid);
                found.error(valid.len(), "the file is not UTF-8 from here on");
                return Err(ConfigError {
                    problems: found.finish(),
                });
            }
        };
        sections::read(path, text, Path::exists)
    }

    /// Checks the text of a config; `exists` says whether a file that it
    /// names is there, for a warning.
    ///
    /// # Errors
    /// Every problem of the text, warnings included.
    pub fn parse(
        path: &Path,
        text: &str,
        exists: impl Fn(&Path) -> bool,
    ) -> Result<Self, ConfigError> {
        sections::read(path, text, exists)
    }
}

/// A problem that has no place in the text.
fn whole_file(path: &Path, error: &io::Error) -> ConfigError {
    ConfigError {
        problems: vec![Diagnostic {
            path: path.to_owned(),
            line: 0,
            column: 0,
            message: format!("cannot read it: {error}"),
            severity: Severity::Error,
        }],
    }
}

#[cfg(test)]
mod tests;
