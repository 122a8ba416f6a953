//! The consent of every address, compiled from the lists at one instant.
//!
//! Pure: the same lists at the same instant give the same table. A longest-
//! prefix match over [`ConsentTable::entries`] alone gives the right answer,
//! because whatever covers an entry is already worked into it.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use jiff::Timestamp;

use super::{
    ConsentModel,
    list::ListKind,
    prefix::{first, last, number},
    purpose::{Purpose, PurposeSet},
    state::List,
};

/// Everything that consent depends on.
#[derive(Clone, Debug)]
pub struct ConsentInputs<'a> {
    /// Who consents when no list names them.
    pub model: ConsentModel,
    /// The lists in force; consents ([`ListKind::OptIn`]) count in the opt-in
    /// model only.
    pub lists: Vec<&'a List>,
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
    entries: Vec<(IpNet, PurposeSet)>,
    valid_until: Option<Timestamp>,
    closed: Option<Closed>,
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

impl ConsentTable {
    /// Compiles the lists as they stand at `at`.
    ///
    /// Refusals accumulate and consents unite, over all lines that cover an
    /// address; a refusal wins over any consent. A refusal of `block` refuses
    /// `discover` too (R2). A line does not count before its `from`: an
    /// opt-out is in force from the time that it names.
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
                entries: Vec::new(),
                valid_until,
                closed,
                v4: Ranges::default(),
                v6: Ranges::default(),
            };
        }

        let base = match inputs.model {
            ConsentModel::OptOut => PurposeSet::ALL,
            ConsentModel::OptIn => PurposeSet::NONE,
        };
        let mut rules = Vec::new();
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
                let says = Says::new(list.kind, entry.purposes);
                rules.push((net, says));
            }
        }
        // Equal prefixes become neighbours, a covering one stands before the
        // covered, IPv4 before IPv6.
        rules.sort_unstable_by_key(|(net, _)| *net);
        rules.dedup_by(|(net, says), (kept_net, kept)| {
            let same = net == kept_net;
            if same {
                *kept = kept.with(*says);
            }
            same
        });

        let split = rules.partition_point(|(net, _)| matches!(net, IpNet::V4(_)));
        let (v4_rules, v6_rules) = rules.split_at_checked(split).unwrap_or((&rules, &[]));
        let mut entries = Vec::with_capacity(rules.len());
        let v4 = push_down(v4_rules, base, &mut entries, |start| {
            u32::try_from(start).unwrap_or(u32::MAX)
        });
        let v6 = push_down(v6_rules, base, &mut entries, |start| start);
        Self {
            default: base.lawful(),
            entries,
            valid_until,
            closed,
            v4,
            v6,
        }
    }

    /// What an address allows that no entry covers.
    pub fn default_allowed(&self) -> PurposeSet {
        self.default
    }

    /// What the prefixes allow whose answer differs from that of the prefix
    /// around them; sorted by family, address and length. The longest match
    /// alone is right.
    pub fn entries(&self) -> &[(IpNet, PurposeSet)] {
        &self.entries
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

    /// What the address allows. IPv4-mapped IPv6 is taken as written: give
    /// the address as it stands on the wire.
    pub fn allowed(&self, address: IpAddr) -> PurposeSet {
        match address {
            IpAddr::V4(v4) => self.v4.find(u32::from(v4)),
            IpAddr::V6(_) => self.v6.find(number(address)),
        }
        .unwrap_or(self.default)
    }

    /// Whether the address allows the purpose.
    pub fn allows(&self, address: IpAddr, purpose: Purpose) -> bool {
        self.allowed(address).contains(purpose)
    }
}

/// What lines say of one prefix.
#[derive(Copy, Clone, Debug, Default)]
struct Says {
    granted: PurposeSet,
    refused: PurposeSet,
}

impl Says {
    fn new(kind: ListKind, purposes: PurposeSet) -> Self {
        match kind {
            ListKind::OptIn => Self {
                granted: purposes,
                refused: PurposeSet::NONE,
            },
            ListKind::OptOut | ListKind::Exclusion => Self {
                granted: PurposeSet::NONE,
                refused: purposes,
            },
        }
    }

    fn with(self, other: Self) -> Self {
        Self {
            granted: self.granted.union(other.granted),
            refused: self.refused.union(other.refused),
        }
    }

    fn allowed(self, base: PurposeSet) -> PurposeSet {
        base.union(self.granted).without(self.refused).lawful()
    }
}

/// Disjoint ranges by their starts; each ends where the next begins.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ranges<N> {
    starts: Vec<N>,
    allowed: Vec<PurposeSet>,
}

impl<N> Default for Ranges<N> {
    fn default() -> Self {
        Self {
            starts: Vec::new(),
            allowed: Vec::new(),
        }
    }
}

impl<N: Ord + Copy> Ranges<N> {
    /// The range's answer; `None` before the first range.
    fn find(&self, number: N) -> Option<PurposeSet> {
        let after = self.starts.partition_point(|start| *start <= number);
        self.allowed.get(after.checked_sub(1)?).copied()
    }

    /// Starts a range. Starts never go down; of several at the same place the
    /// last one counts.
    fn start(&mut self, start: N, allowed: PurposeSet) {
        if self.starts.last() == Some(&start) {
            self.starts.pop();
            self.allowed.pop();
        }
        if self.allowed.last() != Some(&allowed) {
            self.starts.push(start);
            self.allowed.push(allowed);
        }
    }
}

/// Works every covering prefix into those it covers, in one pass over sorted,
/// distinct prefixes of one family. Appends the entries and gives the ranges.
fn push_down<N: Ord + Copy>(
    rules: &[(IpNet, Says)],
    base: PurposeSet,
    entries: &mut Vec<(IpNet, PurposeSet)>,
    from_number: impl Fn(u128) -> N,
) -> Ranges<N> {
    struct Open {
        last: u128,
        says: Says,
    }
    // The prefixes around the current place, outermost first; at most one for
    // each length.
    let mut around: Vec<Open> = Vec::new();
    let mut ranges = Ranges::default();
    let answer = |around: &[Open]| {
        around
            .last()
            .map(|open| open.says)
            .unwrap_or_default()
            .allowed(base)
    };
    let close = |around: &mut Vec<Open>, ranges: &mut Ranges<N>, family_last: u128| {
        if let Some(closed) = around.pop()
            && closed.last < family_last
        {
            ranges.start(from_number(closed.last + 1), answer(around));
        }
    };
    let family_last = match rules.first() {
        Some((IpNet::V4(_), _)) => u128::from(u32::MAX),
        _ => u128::MAX,
    };
    for (net, says) in rules {
        let start = first(net);
        while around.last().is_some_and(|open| open.last < start) {
            close(&mut around, &mut ranges, family_last);
        }
        let outer = around.last().map(|open| open.says).unwrap_or_default();
        let says = outer.with(*says);
        let allowed = says.allowed(base);
        if allowed != outer.allowed(base) {
            entries.push((*net, allowed));
        }
        ranges.start(from_number(start), allowed);
        around.push(Open {
            last: last(net),
            says,
        });
    }
    while !around.is_empty() {
        close(&mut around, &mut ranges, family_last);
    }
    ranges
}

#[cfg(test)]
mod tests;
