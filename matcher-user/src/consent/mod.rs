//! Consent comes before collation (R1): who allows what, from the operator's
//! lists and from those that the product keeps itself.
//!
//! - [`list`] reads one list; a line in doubt favours the subscriber;
//! - [`state`] decides what is in force of a list that was read anew;
//! - [`lists`] holds all lists of a configuration and reads them again;
//! - [`ports`] knows which ports of a shared address a subscriber holds;
//! - [`table`] compiles them into the answer for every address and port;
//! - [`Refused`] says which records of earlier traffic must go;
//! - [`managed`] changes the lists that the product keeps itself.

use std::{fmt, str::FromStr};

mod answer;
#[cfg(test)]
pub(crate) mod any_answer;
mod atomic_file;
pub mod list;
pub mod lists;
pub mod managed;
pub mod ports;
pub mod prefix;
mod purpose;
mod refused;
pub mod state;
pub mod table;

pub use self::{
    answer::{Answer, PortAnswers},
    list::{Entry, ListKind, ListProblem, ParsedList, Subject, Weight},
    lists::{Asked, ConsentLists, ConsentSources, Mention, Reload},
    managed::{ManagedError, ManagedList, Whom},
    ports::{PortLimit, PortRange, PortRun},
    prefix::SpacePrefix,
    purpose::{Purpose, PurposeSet, UnknownPurpose},
    refused::Refused,
    table::{Closed, ConsentInputs, ConsentTable, Space},
};

/// Who consents when no list names them.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum ConsentModel {
    /// Everyone who is not listed: comprehensive prior consent, with notice
    /// (R2).
    OptOut,
    /// Only those who are listed.
    OptIn,
}

impl ConsentModel {
    /// The name in the config.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OptOut => "opt-out",
            Self::OptIn => "opt-in",
        }
    }

    /// What the operator's own lists say of their subjects.
    pub const fn list_kind(self) -> ListKind {
        match self {
            Self::OptOut => ListKind::OptOut,
            Self::OptIn => ListKind::OptIn,
        }
    }
}

impl fmt::Display for ConsentModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A word that names no consent model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no consent model (known: opt-out, opt-in)")]
pub struct UnknownConsentModel(pub String);

impl FromStr for ConsentModel {
    type Err = UnknownConsentModel;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::OptOut, Self::OptIn]
            .into_iter()
            .find(|model| model.name() == text)
            .ok_or_else(|| UnknownConsentModel(text.to_owned()))
    }
}
