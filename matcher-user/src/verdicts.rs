//! What the operator found out about an indicator: confirmed, or a false
//! positive (R15, R20). Who said so, when and why is kept for good; the last
//! verdict that speaks of an indicator holds, and a false positive is in no
//! list that is put in force until the verdict is taken back.
//!
//! A verdict speaks of a value, not of an id: a feed that moves the end of an
//! entry's validity makes another indicator of it, about which the same is
//! true.

mod file;
mod misp;
mod share;
mod stix;

use std::{collections::HashMap, fmt, str::FromStr};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::{
    file::VerdictFileError,
    share::{ShareFormat, Shared, share},
};
use crate::{
    hit::IndicatorSummary,
    indicator::{DomainName, Indicator, IndicatorId, Qualifier, Tlp, value_text},
    indicators::{Catalog, IndicatorSet},
};

/// What the operator says of an indicator.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Opinion {
    /// It is what the feed says.
    Confirmed,
    /// It is not: it must not match.
    FalsePositive,
    /// What was said before is taken back.
    Clear,
}

impl fmt::Display for Opinion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Confirmed => "confirmed",
            Self::FalsePositive => "false positive",
            Self::Clear => "taken back",
        })
    }
}

impl FromStr for Opinion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "confirmed" => Ok(Self::Confirmed),
            "false-positive" => Ok(Self::FalsePositive),
            "clear" => Ok(Self::Clear),
            other => Err(format!(
                "{other:?} is no verdict: say confirmed, false-positive or clear"
            )),
        }
    }
}

/// What an indicator lists.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Value {
    /// An address or prefix, host bits cleared.
    Address(IpNet),
    /// A name.
    Name(DomainName),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(prefix) => f.write_str(&value_text(*prefix)),
            Self::Name(name) => write!(f, "{name}"),
        }
    }
}

/// What a verdict is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Subject {
    /// The value of the indicators.
    pub value: Value,
    /// Only the entries that are limited to exactly this; all of the value
    /// when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<Qualifier>,
}

impl Subject {
    /// Whether it speaks of an indicator with this qualifier, if the value is
    /// its own.
    fn includes(&self, qualifier: Qualifier) -> bool {
        self.only.is_none_or(|only| only == qualifier)
    }

    /// Whether everything that `other` speaks of is in it.
    fn covers(&self, other: &Self) -> bool {
        self.value == other.value && (self.only.is_none() || self.only == other.only)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.value)?;
        let Some(only) = self.only else {
            return Ok(());
        };
        if let Some(protocol) = only.protocol {
            write!(f, " {protocol}")?;
        }
        match only.port {
            Some(port) => write!(f, " port {port}"),
            None => write!(f, " any port"),
        }
    }
}

/// How a feed calls an entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reference {
    /// The feed.
    pub feed: String,
    /// Its own id for the entry.
    pub id: String,
}

/// One verdict, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// When it was given.
    pub at: Timestamp,
    /// What it is about.
    #[serde(flatten)]
    pub subject: Subject,
    /// What it says.
    pub verdict: Opinion,
    /// Who said so.
    pub by: String,
    /// Why; stays with the operator.
    pub why: String,
    /// How feeds call the entries, then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<Reference>,
    /// The strictest marking of the entries, then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tlp: Option<Tlp>,
}

impl Verdict {
    /// Why an indicator is out, for a person: `false positive, A. Person at
    /// 2026-11-22T01:02:03Z: a mirror of ours`.
    pub fn reason(&self) -> String {
        let Self {
            verdict,
            by,
            at,
            why,
            ..
        } = self;
        format!("{verdict}, {by} at {at:.0}: {why}")
    }
}

/// A verdict that is asked for, not found good yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedVerdict {
    /// `ADDR[:PORT]`, prefix or name.
    pub value: String,
    /// One indicator of several with the value.
    pub id: Option<u32>,
    /// What is said.
    pub verdict: Opinion,
    /// Who says so.
    pub by: String,
    /// Why.
    pub why: String,
}

/// Why a verdict cannot be given as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerdictError {
    /// The value cannot be read.
    #[error("{0}")]
    Value(String),
    /// Who or why is missing or no plain text.
    #[error("{0}")]
    Words(String),
    /// Nothing lists exactly this.
    #[error("{0}")]
    NotListed(String),
    /// Several entries, of which the value names some but not one.
    #[error("{value} is several indicators: {choices}; name one with --id, or leave out the port")]
    Several {
        /// As asked.
        value: String,
        /// Each with its id.
        choices: String,
    },
}

/// Longest name and longest reason, in bytes.
const MAX_WORDS: usize = 1_000;

fn words(what: &str, text: &str) -> Result<String, VerdictError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(VerdictError::Words(format!("{what} must say something")));
    }
    if text.len() > MAX_WORDS {
        return Err(VerdictError::Words(format!(
            "{what} is longer than {MAX_WORDS} bytes"
        )));
    }
    if text.contains(char::is_control) {
        return Err(VerdictError::Words(format!(
            "{what} has a line break or another control character"
        )));
    }
    Ok(text.to_owned())
}

/// An indicator that a verdict may be about.
struct Meant {
    id: IndicatorId,
    qualifier: Qualifier,
    references: Vec<Reference>,
    tlp: Option<Tlp>,
}

impl<V> From<&Indicator<V>> for Meant {
    fn from(indicator: &Indicator<V>) -> Self {
        let mut references: Vec<Reference> = indicator
            .statements
            .iter()
            .filter_map(|statement| {
                Some(Reference {
                    feed: statement.feed.to_string(),
                    id: statement.said.id.as_deref()?.to_owned(),
                })
            })
            .collect();
        references.sort_unstable();
        references.dedup();
        Self {
            id: indicator.id,
            qualifier: indicator.qualifier,
            references,
            tlp: indicator.tlp(),
        }
    }
}

impl AskedVerdict {
    /// The verdict, about what `catalog` lists or has listed.
    ///
    /// # Errors
    /// When it names nothing that is or was listed, or is incomplete.
    pub fn about(&self, catalog: &Catalog, at: Timestamp) -> Result<Verdict, VerdictError> {
        let by = words("--by", &self.by)?;
        let why = words("--why", &self.why)?;
        let (value, port) = self.read_value()?;
        let mut meant: Vec<Meant> = match &value {
            Value::Address(prefix) => catalog.of_value(*prefix).map(Meant::from).collect(),
            Value::Name(name) => catalog.of_name(name).map(Meant::from).collect(),
        };
        if meant.is_empty() {
            return Err(VerdictError::NotListed(self.not_listed(&value, catalog)));
        }
        let choices = |meant: &[Meant]| {
            let each = meant.iter().map(|it| {
                let only = Some(it.qualifier);
                let value = value.clone();
                format!("#{} {}", it.id.0, Subject { value, only })
            });
            each.collect::<Vec<_>>().join(", ")
        };
        let mut only = None;
        if let Some(id) = self.id {
            let all = choices(&meant);
            meant.retain(|it| it.id.0 == id);
            let Some(one) = meant.first() else {
                return Err(VerdictError::NotListed(format!(
                    "indicator {id} is not one of {value}: {all}"
                )));
            };
            only = Some(one.qualifier);
        } else if let Some(port) = port {
            let all = choices(&meant);
            meant.retain(|it| it.qualifier.port == Some(port));
            let Some(one) = meant.first().map(|it| it.qualifier) else {
                return Err(VerdictError::NotListed(format!(
                    "no entry of {value} is limited to port {port}: {all}"
                )));
            };
            if meant.iter().any(|it| it.qualifier != one) {
                return Err(VerdictError::Several {
                    value: self.value.clone(),
                    choices: choices(&meant),
                });
            }
            only = Some(one);
        }
        let mut references: Vec<Reference> =
            meant.iter().flat_map(|it| it.references.clone()).collect();
        references.sort_unstable();
        references.dedup();
        Ok(Verdict {
            at,
            subject: Subject { value, only },
            verdict: self.verdict,
            by,
            why,
            references,
            tlp: meant.iter().filter_map(|it| it.tlp).max(),
        })
    }

    fn read_value(&self) -> Result<(Value, Option<u16>), VerdictError> {
        let text = self.value.trim();
        if let Ok(prefix) = text.parse::<IpNet>() {
            if prefix.trunc() != prefix {
                return Err(VerdictError::Value(format!(
                    "{text} has bits beyond its length; the prefix is {}",
                    prefix.trunc()
                )));
            }
            return Ok((Value::Address(prefix), None));
        }
        match crate::feeds::address_and_port(text) {
            Ok((ip, port)) => Ok((Value::Address(ip.into()), port)),
            Err(error) => match text.parse() {
                Ok(name) => Ok((Value::Name(name), None)),
                Err(_) => Err(VerdictError::Value(format!("{text}: {error}"))),
            },
        }
    }

    fn not_listed(&self, value: &Value, catalog: &Catalog) -> String {
        let Value::Address(prefix) = value else {
            return format!("no feed lists {value} or has listed it");
        };
        let covering = catalog.current().covering_values(prefix.network());
        match covering.first() {
            None => format!("no feed lists {value} or has listed it"),
            Some(_) => format!(
                "no feed lists exactly {value}; it is within {}. Give the verdict on that, or put \
                 the address into guards.allow: an allowed destination takes out what overlaps it",
                covering.join(", ")
            ),
        }
    }
}

/// All verdicts, in the order in which they were given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    history: Vec<Verdict>,
}

impl Verdicts {
    /// Adds one.
    pub fn push(&mut self, verdict: Verdict) {
        self.history.push(verdict);
    }

    /// Every verdict that was ever given.
    pub fn history(&self) -> &[Verdict] {
        &self.history
    }

    /// The verdicts that hold: each is the last that speaks of something, and
    /// was not taken back.
    pub fn in_force(&self) -> impl Iterator<Item = &Verdict> {
        let superseded = |at: usize, verdict: &Verdict| {
            self.history
                .iter()
                .skip(at + 1)
                .any(|later| later.subject.covers(&verdict.subject))
        };
        self.history
            .iter()
            .enumerate()
            .filter(move |(at, verdict)| {
                verdict.verdict != Opinion::Clear && !superseded(*at, verdict)
            })
            .map(|(_, verdict)| verdict)
    }

    /// What must not match, ready for a long list.
    pub fn refuted(&self) -> Refuted {
        let mut refuted = Refuted::default();
        for verdict in &self.history {
            let value = &verdict.subject.value;
            refuted
                .by_text
                .entry(value.to_string())
                .or_default()
                .push(verdict.clone());
            if let Value::Address(prefix) = value {
                refuted
                    .by_prefix
                    .entry(*prefix)
                    .or_default()
                    .push(verdict.clone());
            }
        }
        refuted.by_text.retain(|_, said| any_false(said));
        refuted.by_prefix.retain(|_, said| any_false(said));
        refuted
    }
}

fn any_false(said: &[Verdict]) -> bool {
    said.iter().any(|it| it.verdict == Opinion::FalsePositive)
}

/// The false positives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refuted {
    by_prefix: HashMap<IpNet, Vec<Verdict>>,
    by_text: HashMap<String, Vec<Verdict>>,
}

impl Refuted {
    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.by_text.is_empty()
    }

    /// The verdict that takes an indicator out.
    pub fn why(&self, indicator: &Indicator) -> Option<&Verdict> {
        decided(self.by_prefix.get(&indicator.value)?, indicator.qualifier)
    }

    /// The same for a name.
    pub fn why_name(&self, indicator: &Indicator<DomainName>) -> Option<&Verdict> {
        decided(
            self.by_text.get(indicator.value.as_str())?,
            indicator.qualifier,
        )
    }

    /// The same for the indicator of a hit.
    pub fn why_hit(&self, indicator: &IndicatorSummary) -> Option<&Verdict> {
        decided(self.by_text.get(&indicator.value)?, indicator.qualifier)
    }

    /// A list without what is refuted.
    pub fn taken_from(&self, set: &IndicatorSet) -> IndicatorSet {
        if self.is_empty() {
            return set.clone();
        }
        set.filtered(
            |indicator| self.why(indicator).is_none(),
            |indicator| self.why_name(indicator).is_none(),
        )
    }
}

/// The last verdict that speaks of the qualifier, if it is a false positive.
fn decided(said: &[Verdict], qualifier: Qualifier) -> Option<&Verdict> {
    said.iter()
        .rev()
        .find(|verdict| verdict.subject.includes(qualifier))
        .filter(|verdict| verdict.verdict == Opinion::FalsePositive)
}

#[cfg(test)]
mod tests;
