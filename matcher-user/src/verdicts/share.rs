//! Verdicts in the forms in which they are exchanged (R15). What leaves says
//! which entry of a list was found right or wrong, and when: no traffic, no
//! counts of it, no subscriber, and not the words of the person who judged.

use std::{fmt, str::FromStr};

use ipnet::IpNet;
use jiff::Timestamp;

use super::{Opinion, Subject, Value, Verdict, Verdicts, misp, stix};
use crate::indicator::Tlp;

/// A form of exchange.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum ShareFormat {
    /// One JSON object a line, each the body of a request to add a sighting
    /// to a MISP instance.
    MispSighting,
    /// A STIX 2.1 bundle of opinions and sightings.
    Stix,
}

impl FromStr for ShareFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "misp-sighting" => Ok(Self::MispSighting),
            "stix" => Ok(Self::Stix),
            other => Err(format!(
                "{other:?} is no form of exchange: misp-sighting or stix"
            )),
        }
    }
}

impl fmt::Display for ShareFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MispSighting => "misp-sighting",
            Self::Stix => "stix",
        })
    }
}

/// What is said of one subject over time.
pub(super) struct Said<'a> {
    /// The first verdict about it.
    pub(super) first: &'a Verdict,
    /// The first that confirmed it.
    pub(super) confirmed: Option<&'a Verdict>,
    /// The last one.
    pub(super) last: &'a Verdict,
}

impl Said<'_> {
    pub(super) fn subject(&self) -> &Subject {
        &self.last.subject
    }
}

/// Verdicts to give away, and what was kept back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// The file's contents.
    pub text: String,
    /// Verdicts that are in it.
    pub verdicts: usize,
    /// Why others are not, for a person.
    pub withheld: Vec<String>,
}

/// The last verdict about each subject, of those given at `since` or later.
///
/// Kept back: what lies in `own` space (a C&C server inside the own network is
/// somebody's line), and what its feed marks more strictly than `strictest`, in
/// any case TLP:AMBER+STRICT and TLP:RED. Whether a recipient may have what is
/// marked TLP:AMBER, a person must say. `organisation` signs it.
pub fn share(
    verdicts: &Verdicts,
    format: ShareFormat,
    since: Option<Timestamp>,
    organisation: Option<&str>,
    own: &[IpNet],
    strictest: Tlp,
) -> Shared {
    let mut withheld = Vec::new();
    let mut said = Vec::new();
    for (at, last) in verdicts.history().iter().enumerate() {
        let same = |other: &&Verdict| other.subject == last.subject;
        let superseded = verdicts.history().iter().skip(at + 1).any(|it| same(&it));
        if superseded || since.is_some_and(|since| last.at < since) {
            continue;
        }
        if let Some(reason) = kept_back(last, own, strictest, format) {
            withheld.push(format!("{}: {reason}", last.subject));
            continue;
        }
        let mut of_subject = verdicts.history().iter().filter(same);
        let confirmed = of_subject
            .clone()
            .find(|it| it.verdict == Opinion::Confirmed);
        said.push(Said {
            first: of_subject.next().unwrap_or(last),
            confirmed,
            last,
        });
    }
    let text = match format {
        ShareFormat::MispSighting => misp::lines(&said, organisation),
        ShareFormat::Stix => {
            let first = verdicts.history().first().map(|it| it.at);
            stix::bundle(&said, organisation, first.unwrap_or_default())
        }
    };
    Shared {
        text,
        verdicts: said.len(),
        withheld,
    }
}

fn kept_back(
    verdict: &Verdict,
    own: &[IpNet],
    strictest: Tlp,
    format: ShareFormat,
) -> Option<String> {
    if let Value::Address(value) = &verdict.subject.value
        && own
            .iter()
            .any(|own| own.contains(value) || value.contains(own))
    {
        return Some("is in the operator's own space".to_owned());
    }
    if let Some(tlp @ (Tlp::AmberStrict | Tlp::Red)) = verdict.tlp {
        return Some(format!(
            "is marked {tlp} by its feed, and may not be passed on"
        ));
    }
    if let Some(tlp) = verdict.tlp.filter(|tlp| *tlp > strictest) {
        let word = match tlp {
            Tlp::Clear => "clear",
            Tlp::Green => "green",
            _ => "amber",
        };
        return Some(format!(
            "is marked {tlp} by its feed; --tlp {word} passes it on, if the recipient may have it"
        ));
    }
    if format == ShareFormat::MispSighting && verdict.verdict == Opinion::Clear {
        return Some(
            "was taken back; MISP has no sighting for that, delete the earlier one there"
                .to_owned(),
        );
    }
    if format == ShareFormat::MispSighting && !misp::can_say(verdict) {
        return Some(
            "is limited to a port or protocol, and no MISP feed lists it: MISP would take the \
             sighting for every port of the address (--format stix can say it)"
                .to_owned(),
        );
    }
    None
}
