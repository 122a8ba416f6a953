//! Works every covering prefix into those it covers.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{
    answers::{AnswerId, Answers, Interner},
    rules::{PortSays, PortSets, Rule, Says, united},
};
use crate::consent::{
    answer::Answer,
    ports::PortRun,
    prefix::{first, last, number},
    purpose::PurposeSet,
};

/// The answers of one subscriber space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Compiled {
    /// Sorted by family, address and length; the longest match is right.
    pub(super) entries: Vec<(IpNet, AnswerId)>,
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

impl Compiled {
    /// The answer for an address; `None` where no entry covers it.
    pub(super) fn find(&self, address: IpAddr) -> Option<AnswerId> {
        match address {
            IpAddr::V4(v4) => self.v4.find(u32::from(v4)),
            IpAddr::V6(_) => self.v6.find(number(address)),
        }
    }
}

/// Disjoint ranges by their starts; each ends where the next begins.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ranges<N> {
    starts: Vec<N>,
    answers: Vec<AnswerId>,
}

impl<N> Default for Ranges<N> {
    fn default() -> Self {
        Self {
            starts: Vec::new(),
            answers: Vec::new(),
        }
    }
}

impl<N: Ord + Copy> Ranges<N> {
    /// The range's answer; `None` before the first range.
    fn find(&self, number: N) -> Option<AnswerId> {
        let after = self.starts.partition_point(|start| *start <= number);
        self.answers.get(after.checked_sub(1)?).copied()
    }

    /// Starts a range. Starts never go down; of several at the same place the
    /// last one counts.
    fn start(&mut self, start: N, answer: AnswerId) {
        if self.starts.last() == Some(&start) {
            self.starts.pop();
            self.answers.pop();
        }
        if self.answers.last() != Some(&answer) {
            self.starts.push(start);
            self.answers.push(answer);
        }
    }
}

/// Compiles the rules of one space after the other; all share the answers.
pub(super) struct Compiler {
    base: PurposeSet,
    interner: Interner,
}

impl Compiler {
    /// `base` is what is allowed where no line says anything.
    pub(super) fn new(base: PurposeSet) -> Self {
        Self {
            base,
            interner: Interner::default(),
        }
    }

    pub(super) fn into_answers(self) -> Answers {
        self.interner.into_answers()
    }

    /// One pass over rules sorted by prefix.
    pub(super) fn compile(&mut self, rules: &[Rule<'_>]) -> Compiled {
        let split = rules.partition_point(|rule| matches!(rule.net, IpNet::V4(_)));
        let (v4, v6) = rules.split_at_checked(split).unwrap_or((rules, &[]));
        let mut compiled = Compiled::default();
        let narrow = |start| u32::try_from(start).unwrap_or(u32::MAX);
        compiled.v4 = self.push_down(v4, u32::MAX.into(), &mut compiled.entries, narrow);
        compiled.v6 = self.push_down(v6, u128::MAX, &mut compiled.entries, |start| start);
        compiled
    }

    fn push_down<N: Ord + Copy>(
        &mut self,
        rules: &[Rule<'_>],
        family_last: u128,
        entries: &mut Vec<(IpNet, AnswerId)>,
        from_number: impl Fn(u128) -> N,
    ) -> Ranges<N> {
        let nothing = Open {
            last: family_last,
            says: Says::default(),
            ports: None,
            answer: self
                .interner
                .id(Answer::Whole(Says::default().allowed(self.base))),
        };
        let mut inherited = Inherited::default();
        let mut port_sets = PortSets::default();
        // The prefixes around the current place, outermost first; at most one
        // for each length.
        let mut around: Vec<Open> = Vec::new();
        let mut ranges = Ranges::default();
        let close = |around: &mut Vec<Open>, ranges: &mut Ranges<N>| {
            if let Some(closed) = around.pop()
                && closed.last < family_last
            {
                let outer = around.last().unwrap_or(&nothing).answer;
                ranges.start(from_number(closed.last + 1), outer);
            }
        };
        for same in rules.chunk_by(|a, b| a.net == b.net) {
            let Some(Rule { net, .. }) = same.first() else {
                continue;
            };
            let start = first(net);
            while around.last().is_some_and(|open| open.last < start) {
                close(&mut around, &mut ranges);
            }
            let outer = around.last().unwrap_or(&nothing);
            let says = same
                .iter()
                .filter(|rule| rule.ports.is_none())
                .fold(outer.says, |says, rule| says.with(rule.says));
            let own = port_sets.of(same);
            let only_inherited = own.is_none();
            let ports = united(&outer.ports, own);
            let answer = match &ports {
                None => self.interner.id(Answer::Whole(says.allowed(self.base))),
                // Many prefixes under one with ports of its own must not each
                // work them out again.
                Some(ports) if only_inherited => {
                    inherited.answer(ports, says, || self.answer(says, ports))
                }
                Some(ports) => self.answer(says, ports),
            };
            let open = Open {
                last: last(net),
                says,
                ports,
                answer,
            };
            if open.answer != outer.answer {
                entries.push((*net, open.answer));
            }
            ranges.start(from_number(start), open.answer);
            around.push(open);
        }
        while !around.is_empty() {
            close(&mut around, &mut ranges);
        }
        ranges
    }

    /// The answer where lines say this of all ports, and that of some.
    fn answer(&mut self, says: Says, ports: &[PortRun<Says>]) -> AnswerId {
        let base = self.base;
        let runs = ports.iter().map(|run| PortRun {
            first: run.first,
            last: run.last,
            value: says.with(run.value).allowed(base),
        });
        self.interner.id(Answer::new(says.allowed(base), runs))
    }
}

/// A prefix around the current place, with what covers it worked in.
struct Open {
    last: u128,
    /// What is said of all ports.
    says: Says,
    /// What is said of some.
    ports: PortSays,
    answer: AnswerId,
}

/// Ports, kept so that their place stays theirs, and the answer.
type Known = (Arc<[PortRun<Says>]>, AnswerId);

/// Answers of prefixes whose ports are those of the prefix around them.
#[derive(Default)]
struct Inherited {
    /// By the ports' place in memory and what is said of all ports.
    known: HashMap<(*const PortRun<Says>, Says), Known>,
}

impl Inherited {
    fn answer(
        &mut self,
        ports: &Arc<[PortRun<Says>]>,
        says: Says,
        work_out: impl FnOnce() -> AnswerId,
    ) -> AnswerId {
        let (_, answer) = self
            .known
            .entry((ports.as_ptr(), says))
            .or_insert_with(|| (Arc::clone(ports), work_out()));
        *answer
    }
}
