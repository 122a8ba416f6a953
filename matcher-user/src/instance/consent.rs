//! Consent into the kernel (R1, R2; design decision 2).

use std::{fs, path::PathBuf, sync::Arc};

use jiff::Timestamp;
use matcher_common::abi::Setting;
use serde::{Deserialize, Serialize};

use super::{Answer, Instance, InstanceError, LockName};
use crate::{
    clock::{WallOffset, boot_now_ns},
    config::{Config, Paths},
    consent::{
        Closed, ConsentLists, ConsentModel, ConsentTable, ParsedList, Purpose, PurposeSet, Reload,
        Subject,
        managed::{self, ManagedList},
    },
    hit::Hit,
    kernel::tables::Tables,
    store::Store,
    subscribers::exact_prefix,
    tables::consent::{ConsentEntries, transition},
};

/// What `matcher consent` is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "action")]
pub enum ConsentAction {
    /// Show the lists in force, or which lines speak of an address.
    Show {
        /// Address or prefix.
        subject: Option<String>,
    },
    /// Take a subscriber out, now.
    OptOut {
        /// Address or prefix.
        subject: String,
        /// Purposes by name; all when empty.
        purposes: Vec<String>,
    },
    /// Take an opt-out back, or in the opt-in model record consent.
    OptIn {
        /// Address or prefix.
        subject: String,
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

/// The consent in force after it was put into the kernel.
pub struct AppliedConsent {
    /// Who allows what.
    pub table: ConsentTable,
    /// When the kernel stops matching unless consent is renewed, boot time.
    pub deadline_ns: u64,
}

/// The consent lists of a configuration, not read yet.
pub fn consent_lists(config: &Config, paths: &Paths) -> ConsentLists {
    ConsentLists::new(config.consent.sources(Some(paths.state_dir.clone())))
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
        let reload = lists.reload();
        report(&reload, answer);
        // Remembering needs a disk; obeying does not.
        let applied = self.put_consent(tables, lists, answer);
        if let Err(source) = lists.remember() {
            answer.warn(format!(
                "cannot keep the consent lists' last good readings in {}: {source}",
                self.paths.state_dir.display()
            ));
        }
        applied
    }

    /// Puts the lists, as read last, into the kernel.
    fn put_consent(
        &self,
        tables: &mut Tables,
        lists: &ConsentLists,
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
        let new = ConsentEntries {
            entries: table
                .entries()
                .iter()
                .map(|(prefix, purposes)| (*prefix, purposes.bits().into()))
                .collect(),
            default: table.default_allowed().bits().into(),
        };
        let plan = transition(&tables.consent()?, &new);
        tables.change_consent(&plan)?;
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
            ConsentAction::Show { subject } => {
                report(&lists.reload(), answer);
                self.show_consent(lists, subject.as_deref(), answer)?;
                return Ok(None);
            }
            ConsentAction::OptOut { subject, purposes } => {
                let (subject, purposes) = asked(subject, purposes)?;
                let changed = managed::opt_out(
                    self.model()?,
                    &self.paths.state_dir,
                    &subject,
                    purposes,
                    now(),
                )?;
                answer.say(format!(
                    "{subject}: {} for {purposes}",
                    if changed {
                        "opted out"
                    } else {
                        "was opted out already"
                    }
                ));
            }
            ConsentAction::OptIn { subject, purposes } => {
                let (subject, purposes) = asked(subject, purposes)?;
                let changed = managed::opt_in(
                    self.model()?,
                    &self.paths.state_dir,
                    &subject,
                    purposes,
                    now(),
                )?;
                answer.say(format!(
                    "{subject}: {}",
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
            Some(self.apply_consent(&mut tables, lists, answer)?)
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
        if let ConsentAction::OptIn { subject, purposes } = action {
            let (Subject::Prefix(prefix), purposes) = asked(subject, purposes)? else {
                return Ok(applied);
            };
            for line in lists.refusals(prefix, purposes) {
                answer.exit = 1;
                answer.warn(format!("still opted out by {line}"));
            }
        }
        Ok(applied)
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

    fn show_consent(
        &self,
        lists: &ConsentLists,
        subject: Option<&str>,
        answer: &mut Answer,
    ) -> Result<(), InstanceError> {
        let config = self.config()?;
        let table = lists.compile(now());
        let Some(subject) = subject else {
            answer.say(format!("model             {}", config.consent.model));
            answer.say(format!("without an entry  {}", table.default_allowed()));
            answer.say(format!("entries           {}", table.entries().len()));
            if let Some(closed) = table.closed() {
                answer.say(closed.to_string());
            }
            for (prefix, purposes) in table.entries() {
                answer.say(format!(
                    "{:<43} {purposes}",
                    crate::indicator::value_text(*prefix)
                ));
            }
            return Ok(());
        };
        let (Subject::Prefix(prefix), _) = asked(subject, &[])? else {
            return Err(not_on_the_wire(subject));
        };
        let allowed = table.allowed(prefix.addr());
        answer.say(format!("{subject}: allows {allowed}"));
        for line in lists.explain(prefix) {
            answer.say(format!("  {line}"));
        }
        if self.pins().exist() {
            let in_kernel = self.tables()?.allowed_purposes(prefix.addr())?;
            let in_kernel = PurposeSet::from_bits(u8::try_from(in_kernel).unwrap_or(0));
            if in_kernel != allowed {
                answer.warn(format!(
                    "the kernel allows {in_kernel} at the moment; a list was changed and not \
                     loaded yet"
                ));
            }
        }
        Ok(())
    }
}

/// Whether a subscriber in the hit refuses detection.
pub fn refuses(table: &ConsentTable, hit: &Hit) -> bool {
    !table.allows(hit.subscriber.ip, Purpose::Detect)
}

fn now() -> Timestamp {
    Timestamp::now()
}

fn asked(subject: &str, purposes: &[String]) -> Result<(Subject, PurposeSet), InstanceError> {
    if subject.starts_with("subscriber=") {
        return Err(not_on_the_wire(subject));
    }
    let prefix = exact_prefix(subject).map_err(InstanceError::Usage)?;
    let purposes = if purposes.is_empty() {
        PurposeSet::ALL
    } else {
        purposes
            .join(",")
            .parse()
            .map_err(|error| InstanceError::Usage(format!("{error}")))?
    };
    Ok((Subject::Prefix(prefix), purposes))
}

fn not_on_the_wire(subject: &str) -> InstanceError {
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
