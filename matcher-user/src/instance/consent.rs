//! Consent into the kernel (R1, R2; design decision 2).

use std::{fs, path::PathBuf, sync::Arc};

use ipnet::IpNet;
use jiff::Timestamp;
use matcher_common::abi::Setting;
use serde::{Deserialize, Serialize};

use super::{Answer, Instance, InstanceError, LockName};
use crate::{
    clock::{WallOffset, boot_now_ns},
    config::{Config, Paths},
    consent::{
        Asked, Closed, ConsentLists, ConsentModel, ConsentTable, ParsedList, PortLimit, Purpose,
        PurposeSet, Reload, Space, Subject, Whom,
        managed::{self, ManagedList},
    },
    hit::Hit,
    kernel::tables::Tables,
    store::Store,
    subscribers::exact_prefix,
    tables::{consent::ConsentEntries, spaces::SpaceTables},
};

/// Whom `matcher consent` is asked about, as it was typed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsentSubject {
    /// Address or prefix.
    pub subject: String,
    /// Only these ports: the value of `ports=` in a list.
    pub ports: Option<String>,
    /// Only the ports of this port set: the value of `map-e=` in a list.
    pub map_e: Option<String>,
    /// Only in this subscriber space.
    pub space: Option<u32>,
}

/// What `matcher consent` is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "action")]
pub enum ConsentAction {
    /// Show the lists in force, or which lines speak of an address.
    Show {
        /// Whom to show; everybody when absent.
        whom: Option<ConsentSubject>,
    },
    /// Take a subscriber out, now.
    OptOut {
        /// Whom.
        whom: ConsentSubject,
        /// Purposes by name; all when empty.
        purposes: Vec<String>,
    },
    /// Take an opt-out back, or in the opt-in model record consent.
    OptIn {
        /// Whom.
        whom: ConsentSubject,
        /// Purposes by name; all when empty.
        purposes: Vec<String>,
    },
    /// Add the lines of a file to the product's own opt-out list (in the
    /// opt-in model: to its list of consents).
    Import {
        /// The file.
        path: PathBuf,
    },
}

/// A refusal that was to be recorded so long ago never will be.
const REFUSAL_LEFT_BEHIND_NS: u64 = 600_000_000_000;

/// The consent in force after it was put into the kernel.
pub struct AppliedConsent {
    /// Who allows what.
    pub table: ConsentTable,
    /// When the kernel stops matching unless consent is renewed, boot time.
    pub deadline_ns: u64,
}

/// The consent lists of a configuration, not read yet.
pub fn consent_lists(config: &Config, paths: &Paths) -> ConsentLists {
    let mut lists = ConsentLists::new(config.consent.sources(Some(paths.state_dir.clone())));
    // Their numbers; where their subscribers are is known when they are loaded.
    let spaces = config.subscribers.spaces.iter().map(|space| Space {
        id: space.id,
        prefixes: space.prefixes.clone(),
    });
    lists.set_spaces(spaces.collect());
    lists
}

impl Instance {
    /// Reads the lists again and puts what they say into the kernel,
    /// restrictions first; then renews the deadline. When it returns, the
    /// kernel acts on it.
    pub fn apply_consent(
        &self,
        tables: &mut Tables,
        lists: &mut ConsentLists,
        answer: &mut Answer,
    ) -> Result<AppliedConsent, InstanceError> {
        lists.set_spaces(tables.spaces()?.for_consent());
        self.read_and_put(tables, lists, None, answer)
    }

    /// The same, and makes the subscriber spaces and NAT64 prefixes of the
    /// configuration the kernel's. When they cannot be read nothing changes.
    pub fn apply_subscribers(
        &self,
        tables: &mut Tables,
        lists: &mut ConsentLists,
        answer: &mut Answer,
    ) -> Result<AppliedConsent, InstanceError> {
        let spaces = self.configured_spaces()?;
        lists.set_spaces(spaces.for_consent());
        self.read_and_put(tables, lists, Some(&spaces), answer)
    }

    fn read_and_put(
        &self,
        tables: &mut Tables,
        lists: &mut ConsentLists,
        spaces: Option<&SpaceTables>,
        answer: &mut Answer,
    ) -> Result<AppliedConsent, InstanceError> {
        // A command records what it asks for within moments; what is older was
        // left by one that died, and the lists decide.
        let leftover = boot_now_ns().saturating_sub(REFUSAL_LEFT_BEHIND_NS);
        let reload = lists.reload();
        report(&reload, answer);
        // Remembering needs a disk; obeying does not.
        let applied = self.put_consent(tables, lists, spaces, answer);
        if applied.is_ok() {
            tables.end_refusals_before(leftover)?;
        }
        if let Err(source) = lists.remember() {
            answer.warn(format!(
                "cannot keep the consent lists' last good readings in {}: {source}",
                self.paths.state_dir.display()
            ));
        }
        applied
    }

    /// Puts the lists, as read last, into the kernel, with the spaces if there
    /// are others.
    fn put_consent(
        &self,
        tables: &mut Tables,
        lists: &ConsentLists,
        spaces: Option<&SpaceTables>,
        answer: &mut Answer,
    ) -> Result<AppliedConsent, InstanceError> {
        let now = Timestamp::now();
        let table = lists.compile(now);
        if let Some(closed) = table.closed() {
            // Closed first, before the tables are touched.
            tables.set(Setting::ConsentDeadline, 0)?;
            answer.warn(closed.to_string());
            if closed == Closed::UnknownRefusals {
                answer.exit = 1;
            }
        }
        let new = ConsentEntries::from(&table);
        let change = match spaces {
            Some(spaces) => tables.set_spaces_and_consent(spaces, &new)?,
            None => tables.set_consent(&new)?,
        };
        if change.without_room > 0 {
            answer.exit = 1;
            answer.warn(format!(
                "the table of port ranges is full: {} shared addresses are left alone as a whole \
                 wherever one of their subscribers opted out; raise tables.max_port_ranges, then \
                 detach and attach",
                change.without_room
            ));
        }
        let deadline_ns = self.deadline(&table)?;
        tables.set(Setting::ConsentDeadline, deadline_ns)?;
        Ok(AppliedConsent { table, deadline_ns })
    }

    /// Until when the kernel may act on this table: as long as the
    /// configuration lets it, and never past the time at which a line comes
    /// into force.
    fn deadline(&self, table: &ConsentTable) -> Result<u64, InstanceError> {
        if table.closed().is_some() {
            return Ok(0);
        }
        let grace = u64::try_from(self.config()?.consent.deadline.as_nanos()).unwrap_or(u64::MAX);
        let deadline = boot_now_ns().saturating_add(grace);
        Ok(match table.valid_until() {
            Some(until) => deadline.min(WallOffset::measure().boot_ns(until)),
            None => deadline,
        })
    }

    /// Erases what is stored of subscribers who refuse detection (R2). For
    /// commands; an agent has the store open and erases itself.
    pub fn erase_refused(
        &self,
        table: &ConsentTable,
        answer: &mut Answer,
    ) -> Result<(), InstanceError> {
        let path = self.store_path();
        if !path.exists() {
            return Ok(());
        }
        // Then no record has to be read.
        if table.refused(Purpose::Detect).is_empty() {
            return Ok(());
        }
        let mut store = Store::open(&path, &self.edge())?;
        match store.erase_hits(|hit| refuses(table, hit)) {
            Ok(0) => {}
            Ok(hits) => answer.say(format!("{hits} stored hits erased")),
            // Deleted, but a reader keeps the old pages for now.
            Err(error) if error.is_deferred() => answer.warn(error.to_string()),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Name of this edge.
    pub fn edge(&self) -> String {
        self.config
            .as_ref()
            .map_or_else(String::new, |config| config.edge.clone())
    }

    /// Does what `matcher consent` is asked to do. `lists` are the lists to
    /// act on; gives the consent in force when it changed.
    pub fn consent(
        &self,
        lists: &mut ConsentLists,
        action: &ConsentAction,
        answer: &mut Answer,
    ) -> Result<Option<AppliedConsent>, InstanceError> {
        match action {
            ConsentAction::Show { whom } => {
                match self.pins().exist() {
                    true => lists.set_spaces(self.tables()?.spaces()?.for_consent()),
                    false => lists.set_spaces(self.configured_spaces()?.for_consent()),
                }
                report(&lists.reload(), answer);
                self.show_consent(lists, whom.as_ref(), answer)?;
                return Ok(None);
            }
            ConsentAction::OptOut { whom, purposes } => {
                // Holds at once; the lists and tables may be long.
                self.refuse_now(action)?;
                let (whom, purposes) = (asked(whom)?, asked_purposes(purposes)?);
                let recorded =
                    managed::opt_out(self.model()?, &self.paths.state_dir, &whom, purposes, now());
                if recorded.is_err() {
                    self.end_refusal(action)?;
                }
                let changed = recorded?;
                answer.say(format!(
                    "{whom}: {} for {purposes}",
                    if changed {
                        "opted out"
                    } else {
                        "was opted out already"
                    }
                ));
            }
            ConsentAction::OptIn { whom, purposes } => {
                let (whom, purposes) = (asked(whom)?, asked_purposes(purposes)?);
                let changed =
                    managed::opt_in(self.model()?, &self.paths.state_dir, &whom, purposes, now())?;
                answer.say(format!(
                    "{whom}: {}",
                    if changed {
                        match self.model()? {
                            ConsentModel::OptOut => "its opt-out is taken back",
                            ConsentModel::OptIn => "its consent is recorded",
                        }
                    } else {
                        "nothing changed"
                    }
                ));
            }
            ConsentAction::Import { path } => self.import_consent(path, answer)?,
        }
        let applied = if self.pins().exist() {
            let _changing = self.run_dir().lock(LockName::Changes)?;
            let mut tables = self.tables()?;
            let applied = self.apply_consent(&mut tables, lists, answer)?;
            // Where that failed, the refusal goes on to hold.
            self.end_refusal(action)?;
            Some(applied)
        } else {
            report(&lists.reload(), answer);
            lists.remember().map_err(|source| InstanceError::File {
                action: "write to",
                path: self.paths.state_dir.clone(),
                source,
            })?;
            answer.say("recorded; nothing is attached, so no traffic is looked at");
            None
        };
        if let ConsentAction::OptIn { whom, purposes } = action {
            let (whom, purposes) = (asked(whom)?, asked_purposes(purposes)?);
            let Some(asked) = asked_of(&whom) else {
                return Ok(applied);
            };
            for line in lists.refusals(asked, purposes) {
                answer.exit = 1;
                answer.warn(format!("still opted out by {line}"));
            }
        }
        Ok(applied)
    }

    /// Does at once, without reading a list, what an opt-out asks for: nobody at
    /// the address or prefix is matched until the tables say exactly who. For
    /// other actions nothing. To be followed by [`Instance::consent`], which
    /// records it.
    pub fn refuse_now(&self, action: &ConsentAction) -> Result<(), InstanceError> {
        if let Some(prefix) = refused_prefix(action)?
            && self.pins().exist()
        {
            self.tables()?.refuse_now(&prefix, boot_now_ns())?;
        }
        Ok(())
    }

    fn end_refusal(&self, action: &ConsentAction) -> Result<(), InstanceError> {
        if let Some(prefix) = refused_prefix(action)?
            && self.pins().exist()
        {
            self.tables()?.end_refusal(&prefix)?;
        }
        Ok(())
    }

    fn model(&self) -> Result<ConsentModel, InstanceError> {
        Ok(self.config()?.consent.model)
    }

    fn import_consent(
        &self,
        path: &std::path::Path,
        answer: &mut Answer,
    ) -> Result<(), InstanceError> {
        let bytes = fs::read(path).map_err(|source| InstanceError::File {
            action: "read",
            path: path.to_path_buf(),
            source,
        })?;
        let model = self.model()?;
        let parsed = ParsedList::read(model.list_kind(), &Arc::from(path), &bytes);
        for problem in &parsed.problems {
            answer.problem(problem.to_string());
        }
        if !parsed.is_clean() {
            answer.exit = 1;
        }
        let list = match model {
            ConsentModel::OptOut => ManagedList::opt_outs(&self.paths.state_dir),
            ConsentModel::OptIn => ManagedList::opt_ins(&self.paths.state_dir),
        };
        let added = list.import(&parsed.entries, now())?;
        answer.say(format!(
            "{added} new lines in {}, {} were there already",
            list.path().display(),
            parsed.entries.len().saturating_sub(added)
        ));
        Ok(())
    }
}

/// Whether a subscriber in the hit refuses detection by now. Where all consent
/// who are not listed, every address in the hit is asked, in every layer of it:
/// whoever is listed is a subscriber. Where nobody consents who is not listed,
/// only the subscriber of the hit is: an address without an entry may be
/// anybody's there.
pub fn refuses(table: &ConsentTable, hit: &Hit) -> bool {
    let refused = table.refused(Purpose::Detect);
    let port = hit.subscriber.port.filter(|_| hit.known_by_port());
    refused.contains(hit.space, hit.subscriber.ip, port)
        || (table.default_allowed().contains(Purpose::Detect)
            && hit
                .ends()
                .any(|end| refused.contains(hit.space, end.ip, end.port)))
}

pub(super) fn now() -> Timestamp {
    Timestamp::now()
}

/// Whom a command is about.
pub(super) fn asked(whom: &ConsentSubject) -> Result<Whom, InstanceError> {
    if whom.subject.starts_with("subscriber=") {
        return Err(not_on_the_wire(&whom.subject));
    }
    let prefix = exact_prefix(&whom.subject).map_err(InstanceError::Usage)?;
    let unreadable = |option, value: &str, form| {
        InstanceError::Usage(format!("{option} {value} is not of the form {form}"))
    };
    let ports = match (&whom.ports, &whom.map_e) {
        (None, None) => None,
        (Some(ports), None) => Some(
            PortLimit::read_ports(ports)
                .ok_or_else(|| unreadable("--ports", ports, "1024-2047 or 1024-2047,4096"))?,
        ),
        (None, Some(map_e)) => Some(PortLimit::read_map_e(map_e).ok_or_else(|| {
            let form = "a:4,k:8,psid:0x34 with a + k at most 16 and psid below 2^k";
            unreadable("--map-e", map_e, form)
        })?),
        (Some(_), Some(_)) => {
            return Err(InstanceError::Usage(
                "give --ports or --map-e, not both".into(),
            ));
        }
    };
    Ok(Whom {
        subject: Subject::Prefix(prefix),
        ports,
        space: whom.space,
    })
}

/// The prefix that an opt-out of detection is about.
fn refused_prefix(action: &ConsentAction) -> Result<Option<IpNet>, InstanceError> {
    let ConsentAction::OptOut { whom, purposes } = action else {
        return Ok(None);
    };
    Ok(match asked(whom)?.subject {
        Subject::Prefix(prefix) if asked_purposes(purposes)?.contains(Purpose::Detect) => {
            Some(prefix)
        }
        _ => None,
    })
}

/// As the lists are asked; `None` for a subject that is not on the wire.
pub(super) fn asked_of(whom: &Whom) -> Option<Asked<'_>> {
    match whom.subject {
        Subject::Prefix(prefix) => Some(Asked {
            prefix,
            space: whom.space,
            ports: whom.ports.as_ref(),
        }),
        Subject::Subscriber(_) => None,
    }
}

fn asked_purposes(purposes: &[String]) -> Result<PurposeSet, InstanceError> {
    if purposes.is_empty() {
        return Ok(PurposeSet::ALL);
    }
    purposes
        .join(",")
        .parse()
        .map_err(|error| InstanceError::Usage(format!("{error}")))
}

pub(super) fn not_on_the_wire(subject: &str) -> InstanceError {
    InstanceError::Usage(format!(
        "{subject}: without assignment records a subscriber id cannot be told on the wire; give \
         the subscriber's addresses"
    ))
}

fn report(reload: &Reload, answer: &mut Answer) {
    for problem in &reload.problems {
        answer.problem(problem.to_string());
    }
    if reload.held_back > 0 {
        answer.warn(format!(
            "{} changes in the subscribers' disfavour wait until the lists have no errors",
            reload.held_back
        ));
    }
}
