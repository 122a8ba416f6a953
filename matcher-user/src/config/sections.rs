//! The walk over the document, table by table.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::Duration,
};

use toml::de::DeTable;

use super::{
    CandidateConfig, Config, ConfigError, ConsentConfig, ControlConfig, FoldingConfig, Paths,
    RetentionConfig, Severity, SubscriberConfig, TableConfig,
    canary::canary,
    diagnostic::{Diagnostics, position},
    interface::{AttachMode, Interface, Role, check_interface_name},
    reader::{At, Document, Section},
};
use crate::consent::ConsentModel;
use crate::nat64::{MAX_NAT64_PREFIXES, Nat64Prefix};
use crate::subscribers::{SpaceSource, VlanRange, vlan_spaces};

pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads and checks the text of a config.
pub(super) fn read(
    path: &Path,
    text: &str,
    exists: impl Fn(&Path) -> bool,
) -> Result<Config, ConfigError> {
    // Goes on after a syntax error, so that all of them are found at once.
    let (table, syntax) = DeTable::parse_recoverable(text);
    let mut document = Document {
        diagnostics: Diagnostics::new(path, text),
        broken_from: syntax
            .iter()
            .map(|error| error.span().map_or(0, |span| span.start))
            .min(),
    };
    let mut broken_lines = Vec::new();
    for error in &syntax {
        let at = error.span().map_or(0, |span| span.start);
        broken_lines.push(position(text, at).0);
        document.diagnostics.error(at, error.message());
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let walk = Walk { folder, exists };
    let config = walk.config(&mut document, Section::top(&table), path);

    let mut problems = document.diagnostics.finish();
    // What stands in the place of a broken value says nothing about it.
    let mut reported_lines = Vec::new();
    problems.retain(|problem| {
        let broken = broken_lines.contains(&problem.line);
        let again = broken && reported_lines.contains(&problem.line);
        reported_lines.push(problem.line);
        !again
    });
    let failed = problems
        .iter()
        .any(|problem| problem.severity == Severity::Error);
    match config {
        Some(config) if !failed => Ok(Config {
            warnings: problems,
            ..config
        }),
        _ => Err(ConfigError { problems }),
    }
}

pub(super) struct Walk<'a, E> {
    /// The config's own folder: relative paths start there.
    folder: &'a Path,
    exists: E,
}

impl<E: Fn(&Path) -> bool> Walk<'_, E> {
    /// `None` when something that has no default is missing or wrong, which is
    /// then reported.
    fn config(&self, document: &mut Document<'_>, top: Section<'_>, path: &Path) -> Option<Config> {
        let edge = top.string(document, "edge").map_or_else(host_name, value);
        let ebpf_object = self.file(document, &top, "ebpf_object").map(value);
        let paths = self.paths(document, &top);
        let interfaces = interfaces(document, &top);
        let mut subscribers = self.subscribers(document, &top);
        let nat64 = nat64(document, &top);
        let consent = self.consent(document, &top);
        let feeds = self.feeds(document, &top, &paths.state_dir);
        let guards = self.guards(document, &top);
        let tables = tables(document, &top);
        let folding = folding(document, &top);
        let candidates = candidates(document, &top);
        let retention = retention(document, &top);
        let control = control(document, &top);
        let canary = canary(document, &top, &subscribers);
        if let Some(canary) = &canary {
            subscribers.prefixes.push(canary.subscriber.into());
        }
        top.finish(document);
        Some(Config {
            path: path.to_owned(),
            edge,
            ebpf_object,
            paths,
            interfaces,
            subscribers,
            nat64,
            consent: consent?,
            feeds,
            guards,
            tables,
            folding,
            candidates,
            retention,
            control,
            canary,
            warnings: Vec::new(),
        })
    }

    /// A path, joined to the config's folder.
    fn path(
        &self,
        document: &mut Document<'_>,
        section: &Section<'_>,
        key: &str,
    ) -> Option<At<PathBuf>> {
        section
            .string(document, key)
            .map(|At { offset, value }| At {
                offset,
                value: self.folder.join(value),
            })
    }

    /// A path of a file to be read; one that is not there is warned of.
    pub(super) fn file(
        &self,
        document: &mut Document<'_>,
        section: &Section<'_>,
        key: &str,
    ) -> Option<At<PathBuf>> {
        let path = self.path(document, section, key)?;
        self.warn_if_absent(document, &path);
        Some(path)
    }

    pub(super) fn files(
        &self,
        document: &mut Document<'_>,
        section: &Section<'_>,
        key: &str,
    ) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = Vec::new();
        for At { offset, value } in section.list(document, key, "file names", |text| {
            Ok(self.folder.join(text))
        }) {
            if files.contains(&value) {
                let message = format!("{} stands twice in {key}", value.display());
                document.diagnostics.warn(offset, message);
                continue;
            }
            let file = At { offset, value };
            self.warn_if_absent(document, &file);
            files.push(file.value);
        }
        files
    }

    fn warn_if_absent(&self, document: &mut Document<'_>, file: &At<PathBuf>) {
        if !(self.exists)(&file.value) {
            let message = format!("there is no file {} (yet)", file.value.display());
            document.diagnostics.warn(file.offset, message);
        }
    }

    fn paths(&self, document: &mut Document<'_>, top: &Section<'_>) -> Paths {
        let section = top.table(document, "paths.");
        let default = Paths::default();
        let paths = Paths {
            run_dir: self
                .path(document, &section, "run_dir")
                .map_or(default.run_dir, value),
            pin_dir: self
                .path(document, &section, "pin_dir")
                .map_or(default.pin_dir, value),
            state_dir: self
                .path(document, &section, "state_dir")
                .map_or(default.state_dir, value),
        };
        section.finish(document);
        paths
    }

    fn subscribers(&self, document: &mut Document<'_>, top: &Section<'_>) -> SubscriberConfig {
        let section = top.table(document, "subscribers.");
        let subscribers = SubscriberConfig {
            prefixes: section.prefixes(document, "prefixes"),
            files: self.files(document, &section, "files"),
            spaces: self.spaces(document, &section),
        };
        if section.is_empty_list("prefixes")
            && section.is_empty_list("files")
            && !section.has("space")
        {
            document.missing_but_usable(
                section.offset,
                "no subscriber prefix: every packet counts as transit and nothing is matched \
                 (set subscribers.prefixes or subscribers.files)",
            );
        }
        section.finish(document);
        subscribers
    }

    /// The spaces of VLANs.
    fn spaces(&self, document: &mut Document<'_>, subscribers: &Section<'_>) -> Vec<SpaceSource> {
        let mut spaces: Vec<SpaceSource> = Vec::new();
        for section in subscribers.tables(document, "subscribers.space.") {
            let id = section.integer(document, "id", 1, u32::MAX);
            let offset = section.offset;
            let vlans = section.list(document, "vlans", "VLANs", |text| {
                text.parse::<VlanRange>().map_err(|error| error.to_string())
            });
            let prefixes = section.prefixes(document, "prefixes");
            let files = self.files(document, &section, "files");
            require(document, &section, "subscribers.space", &["id", "vlans"]);
            if section.is_empty_list("prefixes") && section.is_empty_list("files") {
                document.missing_but_usable(
                    offset,
                    "no prefix in this [[subscribers.space]]: nothing is matched in its VLANs",
                );
            }
            section.finish(document);
            let Some(id) = id else { continue };
            if spaces.iter().any(|known| known.id == id.value) {
                let message = format!("the space {} is there twice", id.value);
                document.diagnostics.error(id.offset, message);
                continue;
            }
            spaces.push(SpaceSource {
                id: id.value,
                vlans: vlans.into_iter().map(value).collect(),
                prefixes,
                files,
            });
            let all = spaces
                .iter()
                .map(|space| (space.id, space.vlans.as_slice()));
            if let Err(error) = vlan_spaces(all) {
                document.diagnostics.error(offset, error.to_string());
                // Told once is enough.
                spaces.pop();
            }
        }
        spaces
    }

    fn consent(&self, document: &mut Document<'_>, top: &Section<'_>) -> Option<ConsentConfig> {
        let section = top.table(document, "consent.");
        let model = section.parsed::<ConsentModel>(document, "model").map(value);
        let lists = self.files(document, &section, "lists");
        let no_list = section.boolean(document, "no_list");
        let exclusions = self.files(document, &section, "exclusions");
        let notice_since = section.timestamp(document, "notice_since");
        let deadline = section
            .duration(document, "deadline", ("1m", MINUTE), ("24h", DAY))
            .map_or(ConsentConfig::DEFAULT_DEADLINE, value);

        if section.is_absent() {
            document.missing(
                section.offset,
                "the table [consent] is missing: who consents has to be stated, so nothing is \
                 matched without it",
            );
        } else if !section.has("model") {
            document.missing(
                section.offset,
                r#"consent.model is missing: "opt-out" (all consent unless listed) or "opt-in" (only those who are listed)"#,
            );
        }
        let stated_no_list = no_list.as_ref().is_some_and(|no_list| no_list.value);
        let contradicted = !section.is_empty_list("lists");
        if let Some(no_list) = no_list
            .as_ref()
            .filter(|no_list| no_list.value && contradicted)
        {
            document.diagnostics.error(
                no_list.offset,
                "no_list = true says that there is no list, but lists names some: remove one",
            );
        }
        match model {
            Some(ConsentModel::OptOut) => {
                let unreadable = section.has("no_list") && no_list.is_none();
                if section.is_empty_list("lists") && !stated_no_list && !unreadable {
                    document.missing(
                        section.offset,
                        "no opt-out list: name it in consent.lists, or state with no_list = true \
                         that there is none; nothing is matched before (consent fails closed)",
                    );
                }
                if !section.has("notice_since") {
                    document.missing(
                        section.offset,
                        "consent.notice_since is missing: opt-out rests on prior notice, so state \
                         since when yours holds, as 2026-12-01T00:00:00+09:00",
                    );
                }
            }
            Some(ConsentModel::OptIn) => {
                if let Some(notice_since) = &notice_since {
                    document.diagnostics.warn(
                        notice_since.offset,
                        "notice_since has no effect with opt-in: from= in the list says since \
                         when a consent holds",
                    );
                }
            }
            None => {}
        }
        section.finish(document);
        Some(ConsentConfig {
            model: model?,
            lists,
            no_list: stated_no_list,
            exclusions,
            notice_since: notice_since.map(value),
            deadline,
        })
    }
}

pub(super) fn value<T>(at: At<T>) -> T {
    at.value
}

/// The host's name, as the kernel has it.
fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// Reports the keys of a repeated table that have no default.
pub(super) fn require(
    document: &mut Document<'_>,
    section: &Section<'_>,
    table: &str,
    keys: &[&str],
) {
    for key in keys {
        if !section.has(key) {
            document.missing(
                section.offset,
                format!("{key} is missing in this [[{table}]]"),
            );
        }
    }
}

/// Names that may be used once.
#[derive(Default)]
pub(super) struct Names {
    seen: HashSet<String>,
}

impl Names {
    pub(super) fn claim(&mut self, document: &mut Document<'_>, what: &str, name: &At<String>) {
        if !self.seen.insert(name.value.clone()) {
            let message = format!("the {what} {:?} is there twice", name.value);
            document.diagnostics.error(name.offset, message);
        }
    }
}

fn interfaces(document: &mut Document<'_>, top: &Section<'_>) -> Vec<Interface> {
    let mut interfaces = Vec::new();
    let mut names = Names::default();
    let sections = top.tables(document, "interface.");
    if !top.has("interface") {
        document.missing_but_usable(0, "no [[interface]]: the program is attached to nothing");
    }
    for section in sections {
        let name = section.string(document, "name").filter(|name| {
            check_interface_name(&name.value)
                .inspect_err(|error| {
                    document
                        .diagnostics
                        .error(name.offset, format!("name: {error}"));
                })
                .is_ok()
        });
        if let Some(name) = &name {
            names.claim(document, "interface", name);
        }
        let role = section.parsed::<Role>(document, "role");
        let mode = section
            .parsed::<AttachMode>(document, "mode")
            .map_or(AttachMode::Auto, value);
        let validated = section.boolean(document, "source_validated");
        require(document, &section, "interface", &["name", "role"]);
        if let Some(role) = &role {
            warn_of_sources(document, role, validated.as_ref());
        }
        section.finish(document);
        if let (Some(name), Some(role)) = (name, role) {
            interfaces.push(Interface {
                name: name.value,
                role: role.value,
                mode,
                source_validated: validated.map_or(role.value.source_validated(), value),
            });
        }
    }
    interfaces
}

/// Whether hits there can become candidates (design decision 8).
fn warn_of_sources(document: &mut Document<'_>, role: &At<Role>, validated: Option<&At<bool>>) {
    match (role.value, validated) {
        (Role::Both, None) | (Role::Both | Role::Access, Some(At { value: false, .. })) => {
            let at = validated.map_or(role.offset, |validated| validated.offset);
            document.diagnostics.warn(
                at,
                "sources are not validated here: hits are shown but never become candidates \
                 (source_validated = true says that a subscriber's address cannot be forged here)",
            );
        }
        (
            Role::Core,
            Some(At {
                offset,
                value: true,
            }),
        ) => document.diagnostics.warn(
            *offset,
            "source_validated has no effect with role core: a subscriber's address coming in \
             from outside is spoofed and never matched",
        ),
        _ => {}
    }
}

fn nat64(document: &mut Document<'_>, top: &Section<'_>) -> Vec<Nat64Prefix> {
    let section = top.table(document, "nat64.");
    let mut prefixes: Vec<Nat64Prefix> = Vec::new();
    for At { offset, value } in section.list(document, "prefixes", "NAT64 prefixes", |text| {
        text.parse::<Nat64Prefix>()
            .map_err(|error| error.to_string())
    }) {
        if prefixes.contains(&value) {
            let message = format!("{value} stands twice in prefixes");
            document.diagnostics.warn(offset, message);
        } else if prefixes.len() == MAX_NAT64_PREFIXES {
            let message = format!("more than {MAX_NAT64_PREFIXES} NAT64 prefixes");
            document.diagnostics.error(offset, message);
            break;
        } else {
            prefixes.push(value);
        }
    }
    section.finish(document);
    prefixes
}

fn tables(document: &mut Document<'_>, top: &Section<'_>) -> TableConfig {
    let section = top.table(document, "tables.");
    const MOST_ENTRIES: u32 = 1 << 24;
    const MOST_PORT_RANGES: u32 = 1 << 27;
    // A multiple of every page size in use; the kernel wants a power of two.
    const LEAST_RING: u32 = 1 << 16;
    const MOST_RING: u32 = 1 << 30;
    let default = TableConfig::default();
    let ring = section.integer(document, "ring_bytes", LEAST_RING, MOST_RING);
    if let Some(ring) = ring.as_ref().filter(|ring| !ring.value.is_power_of_two()) {
        let message = format!(
            "ring_bytes must be a power of two: the next is {}",
            ring.value.next_power_of_two()
        );
        document.diagnostics.error(ring.offset, message);
    }
    let tables = TableConfig {
        max_indicators: section
            .integer(document, "max_indicators", 1, MOST_ENTRIES)
            .map_or(default.max_indicators, value),
        max_consent_entries: section
            .integer(document, "max_consent_entries", 1, MOST_ENTRIES)
            .map_or(default.max_consent_entries, value),
        max_port_ranges: section
            .integer(document, "max_port_ranges", 1, MOST_PORT_RANGES)
            .map_or(default.max_port_ranges, value),
        ring_bytes: ring.map_or(default.ring_bytes, value),
    };
    section.finish(document);
    tables
}

fn folding(document: &mut Document<'_>, top: &Section<'_>) -> FoldingConfig {
    let section = top.table(document, "folding.");
    const MOST_FLOWS: u32 = 1 << 22;
    let default = FoldingConfig::default();
    let least = ("0s", Duration::ZERO);
    let window = section.duration(document, "window", least, ("10m", MINUTE * 10));
    // The agent looks once a second.
    if let Some(window) = window
        .as_ref()
        .filter(|window| !window.value.is_zero() && window.value < Duration::from_secs(1))
    {
        let message = "window must be \"0s\" (nothing is folded) or at least \"1s\"";
        document.diagnostics.error(window.offset, message);
    }
    let folding = FoldingConfig {
        window: window.map_or(default.window, value),
        max_flows: section
            .integer(document, "max_flows", 1, MOST_FLOWS)
            .map_or(default.max_flows, value),
        max_events: section
            .integer(document, "max_events", 1, 1_000_000)
            .map_or(default.max_events, value),
    };
    section.finish(document);
    folding
}

fn candidates(document: &mut Document<'_>, top: &Section<'_>) -> CandidateConfig {
    let section = top.table(document, "candidates.");
    let default = CandidateConfig::default();
    let candidates = CandidateConfig {
        require_two_way: section
            .boolean(document, "require_two_way")
            .map_or(default.require_two_way, value),
        min_contacts: section
            .integer(document, "min_contacts", 1, 1_000_000)
            .map_or(default.min_contacts, value),
    };
    section.finish(document);
    candidates
}

fn retention(document: &mut Document<'_>, top: &Section<'_>) -> RetentionConfig {
    let section = top.table(document, "retention.");
    let default = RetentionConfig::default();
    let most = ("3650d", DAY * 3650);
    let retention = RetentionConfig {
        hits: section
            .duration(document, "hits", ("1h", MINUTE * 60), most)
            .map_or(default.hits, value),
    };
    section.finish(document);
    retention
}

fn control(document: &mut Document<'_>, top: &Section<'_>) -> ControlConfig {
    let section = top.table(document, "control.");
    let control = ControlConfig {
        group: section.string(document, "group").map(value),
    };
    section.finish(document);
    control
}
