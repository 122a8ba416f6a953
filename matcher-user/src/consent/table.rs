//! The consent of every address and port, compiled from the lists at one
//! instant.
//!
//! Pure: the same lists at the same instant give the same table. A longest-
//! prefix match over [`ConsentTable::entries`] alone gives the right answer,
//! because whatever covers an entry is already worked into it, port by port.
//!
//! Each subscriber space has entries of its own. A refusal that names no space
//! holds in all of them: entries of a space other than 0 are made of those
//! refusals that touch its prefixes, so that a thousand spaces do not hold a
//! list a thousand times.

mod answers;
mod push_down;
mod rules;

use std::{collections::BTreeMap, fmt, net::IpAddr};

use ipnet::IpNet;
use jiff::Timestamp;

use self::{
    answers::Answers,
    push_down::{Compiled, Compiler},
    rules::{Rule, Says, touching},
};
use super::{
    ConsentModel,
    answer::Answer,
    list::ListKind,
    prefix::SpacePrefix,
    purpose::{Purpose, PurposeSet},
    refused::Refused,
    state::List,
};

/// A subscriber space other than 0, as far as consent depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    /// Its number.
    pub id: u32,
    /// Where its subscribers are.
    pub prefixes: Vec<IpNet>,
}

/// Everything that consent depends on.
#[derive(Clone, Debug)]
pub struct ConsentInputs<'a> {
    /// Who consents when no list names them.
    pub model: ConsentModel,
    /// The lists in force; consents ([`ListKind::OptIn`]) count in the opt-in
    /// model only.
    pub lists: Vec<&'a List>,
    /// The subscriber spaces besides 0. A refusal for a space that is not here
    /// holds in every space, a consent for one in none.
    pub spaces: &'a [Space],
    /// Since when the prior notice holds that the opt-out model needs (R2);
    /// before it nobody has consented. `None`: it holds.
    pub notice_since: Option<Timestamp>,
    /// False when a list of people who refuse is unknown (see
    /// [`super::state::apply`]): then nobody may be matched.
    pub matching_allowed: bool,
}

/// Why nobody at all may be matched.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// A list of people who refuse could never be read.
    UnknownRefusals,
    /// The prior notice holds only from this time on.
    NoNoticeBefore(Timestamp),
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownRefusals => {
                f.write_str("nothing is matched: an opt-out or exclusion list cannot be read")
            }
            Self::NoNoticeBefore(since) => write!(
                f,
                "nothing is matched before {since}: until then consent.notice_since says that \
                 no prior notice holds"
            ),
        }
    }
}

/// Who allows what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsentTable {
    default: PurposeSet,
    answers: Answers,
    /// By space; only those with an entry.
    spaces: BTreeMap<u32, Compiled>,
    /// What every space refuses, beside its own entries.
    everywhere: Everywhere,
    valid_until: Option<Timestamp>,
    closed: Option<Closed>,
}

/// Entries of a space are made for the addresses of its subscribers. Records
/// may speak of others, or of a space that is gone: for them too hold the
/// refusals that name no space.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Everywhere {
    /// Whoever has no entry has consented to nothing.
    Nobody,
    /// They are those of space 0.
    SpaceZero,
    /// Space 0 has others of its own.
    Own(Compiled),
}

impl ConsentTable {
    /// Compiles the lists as they stand at `at`.
    ///
    /// Refusals accumulate and consents unite, over all lines that cover an
    /// address and port; a refusal wins over any consent. A refusal of `block`
    /// refuses `discover` too (R2). A line does not count before its `from`:
    /// an opt-out is in force from the time that it names.
    pub fn compile(inputs: &ConsentInputs<'_>, at: Timestamp) -> Self {
        let mut valid_until: Option<Timestamp> = None;
        let mut closed = None;
        if inputs.model == ConsentModel::OptOut
            && let Some(since) = inputs.notice_since.filter(|since| *since > at)
        {
            closed = Some(Closed::NoNoticeBefore(since));
            valid_until = Some(since);
        }
        if !inputs.matching_allowed {
            closed = Some(Closed::UnknownRefusals);
            valid_until = None;
        }
        if closed.is_some() {
            return Self {
                default: PurposeSet::NONE,
                answers: Answers::default(),
                spaces: BTreeMap::new(),
                everywhere: Everywhere::Nobody,
                valid_until,
                closed,
            };
        }

        let mut lines = Lines::new(inputs.spaces);
        for list in &inputs.lists {
            if list.kind == ListKind::OptIn && inputs.model == ConsentModel::OptOut {
                continue;
            }
            for entry in &list.entries {
                let Some(net) = entry.prefix() else { continue };
                if !entry.in_force(at) {
                    valid_until = match (valid_until, entry.from) {
                        (Some(known), Some(from)) => Some(known.min(from)),
                        (known, from) => known.or(from),
                    };
                    continue;
                }
                let rule = Rule {
                    net,
                    says: Says::new(list.kind, entry.purposes),
                    ports: entry.ports.as_deref(),
                };
                lines.add(list.kind, entry.space, rule);
            }
        }
        let base = match inputs.model {
            ConsentModel::OptOut => PurposeSet::ALL,
            ConsentModel::OptIn => PurposeSet::NONE,
        };
        let mut compiler = Compiler::new(base);
        let (spaces, everywhere) = lines.compile(inputs, &mut compiler);
        Self {
            default: base.lawful(),
            answers: compiler.into_answers(),
            spaces,
            everywhere,
            valid_until,
            closed,
        }
    }

    /// What an address allows that no entry covers.
    pub fn default_allowed(&self) -> PurposeSet {
        self.default
    }

    /// What the prefixes allow whose answer differs from that of the prefix
    /// around them; in the order of [`SpacePrefix`]. The longest match in a
    /// space alone is right for the space's subscribers.
    pub fn entries(&self) -> impl Iterator<Item = (SpacePrefix, Answer)> + '_ {
        self.spaces.iter().flat_map(|(space, compiled)| {
            compiled.entries.iter().map(|(prefix, answer)| {
                let place = SpacePrefix {
                    space: *space,
                    prefix: *prefix,
                };
                (place, self.answers.get(*answer))
            })
        })
    }

    /// Number of [`ConsentTable::entries`].
    pub fn entry_count(&self) -> usize {
        self.spaces
            .values()
            .map(|compiled| compiled.entries.len())
            .sum()
    }

    /// From when on the table has to be compiled anew, because a line comes
    /// into force.
    pub fn valid_until(&self) -> Option<Timestamp> {
        self.valid_until
    }

    /// Why nobody may be matched, where that is so.
    pub fn closed(&self) -> Option<Closed> {
        self.closed
    }

    /// What those at the address allow, port by port. IPv4-mapped IPv6 is
    /// taken as written: give the address as it stands on the wire.
    pub fn answer(&self, space: u32, address: IpAddr) -> Answer {
        let of = |compiled: Option<&Compiled>| match compiled.and_then(|found| found.find(address))
        {
            Some(id) => self.answers.get(id),
            None => Answer::Whole(self.default),
        };
        let own = of(self.spaces.get(&space));
        let everywhere = match &self.everywhere {
            _ if space == 0 => return own,
            Everywhere::Nobody => return own,
            Everywhere::SpaceZero => self.spaces.get(&0),
            Everywhere::Own(compiled) => Some(compiled),
        };
        own.and(&of(everywhere))
    }

    /// What the address allows for packets with this port on its side; `None`
    /// for those whose port cannot be known.
    pub fn allowed(&self, space: u32, address: IpAddr, port: Option<u16>) -> PurposeSet {
        let of = |compiled: Option<&Compiled>| match compiled.and_then(|found| found.find(address))
        {
            Some(id) => self.answers.allowed(id, port),
            None => self.default,
        };
        let own = of(self.spaces.get(&space));
        match &self.everywhere {
            _ if space == 0 => own,
            Everywhere::Nobody => own,
            Everywhere::SpaceZero => own.intersection(of(self.spaces.get(&0))),
            Everywhere::Own(compiled) => own.intersection(of(Some(compiled))),
        }
    }

    /// Whether the address allows the purpose for packets with this port on
    /// its side, or for those whose port cannot be known.
    pub fn allows(&self, space: u32, address: IpAddr, port: Option<u16>, purpose: Purpose) -> bool {
        self.allowed(space, address, port).contains(purpose)
    }

    /// Everybody who refuses the purpose.
    pub fn refused(&self, purpose: Purpose) -> Refused<'_> {
        Refused::new(self, purpose)
    }

    /// Whether every address allows the purpose for every port.
    pub(super) fn nobody_refuses(&self, purpose: Purpose) -> bool {
        let compiled = self.spaces.values().chain(match &self.everywhere {
            Everywhere::Own(compiled) => Some(compiled),
            Everywhere::Nobody | Everywhere::SpaceZero => None,
        });
        self.default.contains(purpose)
            && compiled
                .flat_map(|compiled| &compiled.entries)
                .all(|(_, id)| self.answers.allowed(*id, None).contains(purpose))
    }
}

/// The rules of all lines, by the spaces they hold in.
struct Lines<'a> {
    everywhere: Vec<Rule<'a>>,
    own: BTreeMap<u32, Vec<Rule<'a>>>,
}

impl<'a> Lines<'a> {
    fn new(spaces: &[Space]) -> Self {
        let ids = spaces.iter().map(|space| space.id);
        Self {
            everywhere: Vec::new(),
            own: ids.chain([0]).map(|id| (id, Vec::new())).collect(),
        }
    }

    fn add(&mut self, kind: ListKind, space: Option<u32>, rule: Rule<'a>) {
        match kind {
            ListKind::OptIn => {
                if let Some(rules) = self.own.get_mut(&space.unwrap_or(0)) {
                    rules.push(rule);
                }
            }
            ListKind::OptOut | ListKind::Exclusion => {
                match space.and_then(|space| self.own.get_mut(&space)) {
                    Some(rules) => rules.push(rule),
                    None => self.everywhere.push(rule),
                }
            }
        }
    }

    fn compile(
        mut self,
        inputs: &ConsentInputs<'_>,
        compiler: &mut Compiler,
    ) -> (BTreeMap<u32, Compiled>, Everywhere) {
        // A covering prefix stands before the covered, IPv4 before IPv6.
        self.everywhere.sort_unstable_by_key(|rule| rule.net);
        let mut spaces = BTreeMap::new();
        for space in inputs.spaces {
            let Some(mut rules) = self.own.remove(&space.id).filter(|_| space.id != 0) else {
                continue;
            };
            let mut nets = space.prefixes.clone();
            nets.extend(rules.iter().map(|rule| rule.net));
            rules.extend(touching(&self.everywhere, &nets));
            rules.sort_unstable_by_key(|rule| rule.net);
            let compiled = compiler.compile(&rules);
            if !compiled.entries.is_empty() {
                spaces.insert(space.id, compiled);
            }
        }
        let own = self.own.remove(&0).unwrap_or_default();
        let everywhere = match inputs.model {
            ConsentModel::OptIn => Everywhere::Nobody,
            ConsentModel::OptOut if own.is_empty() => Everywhere::SpaceZero,
            ConsentModel::OptOut => Everywhere::Own(compiler.compile(&self.everywhere)),
        };
        let mut rules = self.everywhere;
        if !own.is_empty() {
            rules.extend(own);
            rules.sort_unstable_by_key(|rule| rule.net);
        }
        let compiled = compiler.compile(&rules);
        if !compiled.entries.is_empty() {
            spaces.insert(0, compiled);
        }
        (spaces, everywhere)
    }
}

#[cfg(test)]
mod tests;
